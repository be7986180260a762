"""A mailbox emptied message by message: read, kept by a commit, and only then marked for removal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from digest.audience import Keys
from digest.bounces.taking import Taken, take
from digest.db import Database
from digest.delivery.mailbox import open_mailbox
from digest.delivery.reports import ReportKind, read_report
from digest.types import MailPlace

#: Of a fuller mailbox the rest waits for the next poll.
MOST = 20_000
#: Removal is asked for after so many: a connection that breaks brings no more than these back, to be known again.
TOGETHER = 200


@dataclass(slots=True)
class Polled:
    """How many messages were read, and how many are left in the mailbox for a person."""

    read: int = 0
    left: int = 0


def poll(
    database: Database, place: MailPlace, *, keys: Keys, domain: str, now: Callable[[], datetime],
    told: Callable[[Taken], None] = lambda taken: None, most: int = MOST, together: int = TOGETHER,
    stop: Callable[[], bool] = lambda: False,
) -> Polled:  # fmt: skip
    """Empty the mailbox, or until ``stop``; ``told`` hears of each message.

    DeliveryError: it cannot be reached, or the connection broke.
    Nothing is lost by a crash at any moment: a message goes only after its row is committed, and one that is read
    twice is known by its fingerprint.
    """
    polled, left = Polled(), set[str]()
    while True:
        asked, got, before = min(together + len(left), most), 0, polled.read
        with open_mailbox(place) as mailbox:
            for letter in mailbox.letters(asked):
                if stop():
                    break
                got += 1
                if letter.fingerprint in left:
                    mailbox.leave(letter)
                    continue
                report = read_report(letter)
                with database.transaction() as session:
                    taken = take(
                        session, report, fingerprint=letter.fingerprint, source=place.protocol, keys=keys,
                        domain=domain, now=now(),
                    )  # fmt: skip
                told(taken)
                polled.read += 1
                if taken.kind == ReportKind.UNKNOWN:
                    left.add(letter.fingerprint)
                    mailbox.leave(letter)
                else:
                    mailbox.done(letter)
        polled.left = len(left)
        if got < asked or polled.read == before or polled.read >= most:
            return polled
