"""Sending: claimed batches → personalised messages → SMTP → attempts.

* `printer`  an edition's mails from its snapshot
* `window`   the sender: grants, answers and leases, within a bound on what a crash can repeat
* `store`    the ledger and the printer behind it
* `shares`   what it may send of every rate just now
* `refusals` when a relay refuses so much that an edition is better stopped
* `system`   confirmations and the like
* `names`    who works here, and who is gone

Owns transactions and the order of events; SQL is the ledger's, bytes and sockets are delivery's.
"""

from digest.sending.names import is_gone, worker_name
from digest.sending.printer import Post, Printer
from digest.sending.refusals import Refusals
from digest.sending.shares import Shares
from digest.sending.store import LedgerStore
from digest.sending.system import SystemPost
from digest.sending.window import Sender, Sent, group_size, run_async, window_for

__all__ = [
    "LedgerStore",
    "Post",
    "Printer",
    "Refusals",
    "Sender",
    "Sent",
    "Shares",
    "SystemPost",
    "group_size",
    "is_gone",
    "run_async",
    "window_for",
    "worker_name",
]
