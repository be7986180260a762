"""The ledger and the printer behind the window's sender: every call is one transaction on the calling thread."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from digest import bounces, ledger
from digest.db import Database, clock
from digest.delivery.classify import next_attempt
from digest.delivery.message import Prepared
from digest.delivery.transport import Envelope
from digest.errors import RenderError
from digest.ledger.batches import Answer, Claimed, Move, Recipient
from digest.ledger.rates import Bound
from digest.models import Edition
from digest.rendering import Renderer
from digest.sending.names import is_gone, worker_name
from digest.sending.printer import Post, Printer
from digest.sending.refusals import Refusals
from digest.sending.shares import Shares
from digest.types import EditionStatus, Outcome, Result

log = logging.getLogger("digest.sending")

#: Mail to a domain that takes no more connections is looked at again after so long.
NEXT_LOOK = timedelta(seconds=10)
#: While draining, a deferred delivery is tried again at once this many times.
IMPATIENT_RETRIES = 3


def wait_before(retry: int, batch_id: int) -> timedelta:
    return next_attempt(retry, seed=batch_id)


# ----------------------------------------------------------------------------- the store


class LedgerStore:
    """Claims, prints and records for one worker. ``impatient``: deferred ones at once, up to three times."""

    def __init__(
        self, database: Database, renderer: Renderer, post: Post, *, live: bool, lease_s: float = 10.0,
        impatient: bool = False, refusals: Refusals | None = None, shares: Shares | None = None,
    ) -> None:  # fmt: skip
        self._db, self._renderer, self._post, self._live = database, renderer, post, live
        self.worker, self._lease, self._impatient = worker_name(), timedelta(seconds=lease_s), impatient
        self._refusals, self._shares = refusals or Refusals(), shares
        self._printers: dict[int, Printer] = {}
        self._prepared: dict[tuple[int, int], Prepared] = {}
        self._allowed: ledger.batches.Tries | None = None
        self._line = database.line()

    def claim(self) -> tuple[Claimed, Mails] | None:
        """The next batch and what makes its mails. An edition that cannot be printed is paused with the reason."""
        while (batch := self._claim()) is not None:
            try:
                return batch, self._print(batch)
            except RenderError as e:
                self._pause(batch, str(e))
        return None

    def _claim(self) -> Claimed | None:
        with self._db.transaction() as session:
            return ledger.batches.claim(
                session,
                worker=self.worker,
                lease=self._lease,
                live=self._live,
                wait=wait_before,
                gone=[w for w in ledger.batches.leaseholders(session) if is_gone(w)],
                impatient=self._impatient,
                tries=self._tries(session),
                limited=self._shares.limited if self._shares else None,
            )

    def _tries(self, session: Session) -> ledger.batches.Tries | None:
        """Deferred ones have three immediate tries in this pass; None: they wait for their time."""
        if self._impatient and self._allowed is None:
            most: dict[int, int] = {}
            for _, edition, retry in ledger.batches.open_retries(session, self._live):
                most[edition] = max(retry + IMPATIENT_RETRIES, most.get(edition, 0))
            self._allowed = ledger.batches.Tries(most, IMPATIENT_RETRIES)
        return self._allowed

    def left(self) -> int:
        """Open batches that this pass may still get: those under another worker's lease included."""
        with self._db.reading() as session:
            tries = self._tries(session)
            batches = ledger.batches.open_retries(session, self._live)
            return sum(tries is None or not tries.over(edition, retry) for _, edition, retry in batches)

    def _print(self, batch: Claimed) -> Mails:
        """Prepare every variant of the batch: on this thread, so that the event loop only joins bytes."""
        with self._db.reading() as session:
            printer = self._printer(session, batch.edition_id)
            wanted = {r.ordinal for r in batch.recipients}
            self._prepared = {k: p for k, p in self._prepared.items() if k[0] == batch.edition_id and k[1] in wanted}
            missing = wanted - {ordinal for _, ordinal in self._prepared}
            variants = ledger.readings.variant_items(session, batch.edition_id, missing)
            for ordinal, (dress, packed) in variants.items():
                items = ledger.history.unpack_items(packed)
                printer.learn_titles(session, items)
                self._prepared[batch.edition_id, ordinal] = printer.prepare(dress, items)
        prepared = {ordinal: self._prepared[batch.edition_id, ordinal] for ordinal in wanted}
        return Mails(printer, prepared, seals=self._post.signer is not None)

    def _printer(self, session: Session, edition_id: int) -> Printer:
        if edition_id not in self._printers:
            edition = session.get_one(Edition, edition_id)
            self._printers = {edition_id: Printer.load(session, edition, self._renderer, self._post)}
        return self._printers[edition_id]

    def _pause(self, batch: Claimed, reason: str) -> None:
        with self._db.transaction() as session:
            ledger.batches.hand_back(session, worker=self.worker, batch=batch, left=batch.recipients)
            _pause(session, batch.edition_id, reason)

    def group(
        self, moves: Sequence[Move], answers: Sequence[Answer], granting: Sequence[Recipient]
    ) -> dict[Recipient, Outcome]:
        stop = self._refuse(answers)
        if self._plain(moves, answers) and not stop:
            with self._line.transaction() as connection:
                return self._note(connection, moves, answers, granting)
        with self._db.transaction() as session:
            refused = self._note(session.connection(), moves, answers, granting)
            ledger.batches.close(session, moves, wait_before)
            if self._live:  # the capture server knows no reader
                self._heed(session, answers)
            for edition_id, reason in stop.items():
                log.error("edition.refused edition=%d %s", edition_id, reason)
                _pause(session, edition_id, reason)
            return refused

    def _note(
        self, connection: Connection, moves: Sequence[Move], answers: Sequence[Answer], granting: Sequence[Recipient]
    ) -> dict[Recipient, Outcome]:
        return ledger.batches.note(
            connection, worker=self.worker, lease=self._lease, moves=moves, answers=answers, granting=granting
        )

    @staticmethod
    def _plain(moves: Sequence[Move], answers: Sequence[Answer]) -> bool:
        """Most commits: nothing has to be looked for afterwards, and no answer has further consequences."""
        return not any(m.closes for m in moves) and not any(a.outcome.result is Result.REJECTED for a in answers)

    def _refuse(self, answers: Sequence[Answer]) -> dict[int, str]:
        """Editions that the relay refuses, which are to be paused, and why."""
        if not self._live:
            return {}
        return self._refusals.hear((answer.recipient.batch.edition_id, answer.outcome) for answer in answers)

    def rest(self) -> None:
        self._line.close()

    def _heed(self, session: Session, answers: Sequence[Answer]) -> None:
        """What the relay refused for good may end more than this delivery."""
        for answer in answers:
            if answer.outcome.result is Result.REJECTED:
                bounces.heed(session, answer.recipient.subscriber_id, answer.outcome, clock(session))

    def put_off(self, batch: Claimed, kept: Sequence[int], off: Sequence[Recipient], bound: Bound | None) -> None:
        with self._db.transaction() as session:
            turn = ledger.rates.book(session, bound, len(off)) if bound else clock(session) + NEXT_LOOK
            ledger.batches.put_off(session, worker=self.worker, batch=batch, kept=kept, off=off, not_before=turn)

    def hand_back(self, batch: Claimed, left: Sequence[Recipient]) -> None:
        with self._db.transaction() as session:
            ledger.batches.hand_back(session, worker=self.worker, batch=batch, left=left)


def _pause(session: Session, edition_id: int, reason: str) -> None:
    edition = ledger.editions.lock_edition(session, edition_id)
    if edition is not None and edition.status == EditionStatus.SENDING:
        edition.status, edition.reason = EditionStatus.PAUSED, reason


class Mails:
    """A batch's mails. ``seals``: they are signed, which takes longer than all the rest; `seal` does so ahead."""

    def __init__(self, printer: Printer, prepared: Mapping[int, Prepared], *, seals: bool) -> None:
        self._printer, self._prepared, self.seals = printer, prepared, seals
        self._sealed: dict[Recipient, list[bytes]] = {}

    def seal(self, recipients: Sequence[Recipient]) -> None:
        """Make these mails now, on the calling thread. One that cannot be made says so when its turn comes."""
        for recipient in recipients:
            with contextlib.suppress(ValueError):
                self._sealed[recipient] = self._build(recipient)

    def envelope(self, recipient: Recipient) -> Envelope:
        return Envelope(
            mail_from=self._printer.envelope_sender(recipient.subscriber_id).encode(),
            rcpt=recipient.address.encode(),
            build=lambda: self._sealed.pop(recipient, None) or self._build(recipient),
            key=recipient,
        )

    def _build(self, r: Recipient) -> list[bytes]:
        addressee = self._printer.addressee(r.subscriber_id, r.subscription_id, r.address, datetime.now(UTC))
        return self._prepared[r.ordinal].build(addressee)
