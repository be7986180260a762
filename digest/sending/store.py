"""The ledger and the printer behind the window's sender: every call is one transaction on the calling thread."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from digest import bounces, ledger
from digest.db import Database, clock
from digest.delivery.classify import next_attempt
from digest.delivery.message import Prepared
from digest.delivery.transport import Envelope
from digest.errors import RenderError
from digest.ledger.batches import Answer, Claimed, Move, Recipient
from digest.models import Edition
from digest.rendering import Renderer
from digest.sending.printer import Post, Printer
from digest.sending.refusals import Refusals
from digest.types import EditionStatus, Outcome, Result

log = logging.getLogger("digest.sending")

#: While draining, a deferred delivery is tried again at once this many times.
IMPATIENT_RETRIES = 3


# ----------------------------------------------------------------------------- who works here


@lru_cache(maxsize=1)
def _host() -> str:
    """This boot of this host: a process number means nothing on another."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "-"
    return f"{socket.gethostname()}:{boot}"


def _started(pid: int) -> str | None:
    """When that process began, in clock ticks since boot; None: there is none; '': the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        return "" if _answers(pid) else None
    except (OSError, IndexError):
        return ""


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def worker_name() -> str:
    """A name for one sender of this process: host, boot, process, its start, and a word of its own."""
    pid = os.getpid()
    return f"{_host()}:{pid}:{_started(pid) or ''}:{uuid.uuid4().hex[:8]}"


def is_gone(worker: str) -> bool:
    """True when that worker's process ran on this very host and is no more: its leases are void at once."""
    parts = worker.rsplit(":", 3)
    if len(parts) != 4 or parts[0] != _host() or not parts[1].isdigit():
        return False
    started = _started(int(parts[1]))
    return started is None or (started != "" and started != parts[2])


def wait_before(retry: int, batch_id: int) -> timedelta:
    return next_attempt(retry, seed=batch_id)


# ----------------------------------------------------------------------------- the store


class LedgerStore:
    """Claims, prints and records for one worker. ``impatient``: deferred ones at once, up to three times."""

    def __init__(
        self, database: Database, renderer: Renderer, post: Post, *, live: bool, lease_s: float = 10.0,
        impatient: bool = False, refusals: Refusals | None = None,
    ) -> None:  # fmt: skip
        self._db, self._renderer, self._post, self._live = database, renderer, post, live
        self.worker, self._lease, self._impatient = worker_name(), timedelta(seconds=lease_s), impatient
        self._refusals = refusals or Refusals()
        self._printers: dict[int, Printer] = {}
        self._prepared: dict[tuple[int, int], Prepared] = {}
        self._caps: dict[int, int] | None = None
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
                exclude=self._tried_enough(session),
            )

    def _tried_enough(self, session: Session) -> list[int]:
        """Batches whose deferred ones had their three immediate tries in this pass."""
        if not self._impatient:
            return []
        batches = ledger.batches.open_retries(session, self._live)
        if self._caps is None:
            self._caps = {}
            for _, edition, retry in batches:
                self._caps[edition] = max(retry + IMPATIENT_RETRIES, self._caps.get(edition, 0))
        return [b for b, e, retry in batches if retry > self._caps.get(e, IMPATIENT_RETRIES)]

    def left(self) -> int:
        """Open batches that this pass may still get: those under another worker's lease included."""
        with self._db.reading() as session:
            enough = set(self._tried_enough(session))
            return sum(b not in enough for b, _, _ in ledger.batches.open_retries(session, self._live))

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
