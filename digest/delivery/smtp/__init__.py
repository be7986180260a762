"""The SMTP client: pools of pipelined connections, one for each relay.

    write   body of A + dot + MAIL, RCPT, DATA of B        one write, one packet train (RFC 2920 §3.1)
    read    250 (A)  250  250  354 (B may come)            A is answered, B's body goes next

So a message costs one round trip and next to no work in Python. A body is written only after its own 354. Where the
relay does not offer PIPELINING the same steps are taken one by one.

What is written waits for a reply before more is written, so at most one body and one set of commands lies in a
connection's buffer, however slow the relay: no further back-pressure is needed and memory stays flat.

* `opening`     how a session begins: greeting, EHLO, TLS, signing in
* `connection`  one envelope after the other, in step with the replies
* `pool`        how many connections there are, and what a relay that is not there means
* `relays`      several relays behind one transport: order, weight, and who stands in
* `timers`      steps that are taken later, and can be called off

Owns sockets and time-outs. Does not sign, does not retry a recipient, does not know what is sent or to whom.
"""

from digest.delivery.smtp.connection import Connection
from digest.delivery.smtp.pool import Pool
from digest.delivery.smtp.relays import Health, Relays
from digest.delivery.transport import Envelope, Grants

__all__ = ["Connection", "Envelope", "Grants", "Health", "Pool", "Relays"]
