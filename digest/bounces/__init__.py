"""Bounces and complaints: what was heard of mail that had left, and what follows for its reader.

    a mail (pipe, IMAP, POP) or a hook ─▶ delivery.reports: what it says ─▶ prove: whose mail it is about
      ─▶ decide: what follows ─▶ audience: suppressed, unsubscribed, suspended ─▶ ledger: an event

* `taking`   one report, one transaction
* `heeding`  refusals that the relay spoke while sending
* `polling`  a mailbox, message by message; nothing is deleted before it is kept

Anybody can write a bounce. One that does not prove whose mail it is about suppresses nobody (docs/bounces.md).
"""

from digest.bounces.heeding import Action, heed
from digest.bounces.polling import Polled, poll
from digest.bounces.taking import Taken, Trust, take

__all__ = ["Action", "Polled", "Taken", "Trust", "heed", "poll", "take"]
