"""Batches while they go out: claims under a lease, groups of answers, takeover, retry. Never opens a socket.

A batch belongs to one worker at a time. Its lease is fenced on (batch, worker, attempt): each write of a group names
all three, and a count that does not fit means that another worker has taken over (LeaseLost). ``wire_to`` is moved and
committed before a recipient may be written to a socket, so that after a crash the granted recipients without an answer
are exactly those that may have had the mail.

    claim ──► note … note ──► close             answers, grants and lease move together, one commit a group
       ▲         │  ├► hand_back                SIGTERM: what was not answered waits for the next claim
       │         │  └► put_off                  a domain that has had its part waits in a batch of its own
       └─ lease ended, or its process is gone: granted without an answer → `uncertain`, then resend or hold
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, not_, or_, select, text, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from digest.db import clock
from digest.errors import LeaseLost
from digest.ledger import hotpath
from digest.ledger.history import pack_ids, pack_ordinals, unpack_ids, unpack_ordinals
from digest.models import Attempt, Batch, Edition
from digest.types import TERMINAL, EditionStatus, Outcome, Result

#: (number of the coming retry, batch id) → how long a deferred delivery waits before it.
Wait = Callable[[int, int], timedelta]


@dataclass(eq=False, slots=True)
class Recipient:
    """One delivery in a worker's hand. ``attempts``: tries recorded so far; ``position``: its place in the batch."""

    batch: Claimed
    subscriber_id: int
    position: int
    ordinal: int
    address: str
    subscription_id: int
    attempts: int = 0

    @property
    def domain(self) -> str:
        return domain_of(self.address)


@dataclass(eq=False, slots=True)
class Claimed:
    """A batch under lease. ``recipients`` in the order in which they are granted."""

    batch_id: int
    edition_id: int
    digest_id: int
    month: int
    fence: int
    retry: int
    recipients: list[Recipient] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    recipient: Recipient
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Move:
    """How far a batch has got: ``wire_to`` recipients granted; ``finished``: all of them answered, none left.

    ``again``: some of its answers were not final, so that what is left of it has to be looked for.
    """

    batch: Claimed
    wire_to: int
    finished: bool
    again: bool = True

    @property
    def closes(self) -> bool:
        return self.finished and self.again


@dataclass(frozen=True, slots=True)
class Tries:
    """How often a pass tries what was deferred: up to that ``retry`` of each edition, ``others`` of any other."""

    editions: Mapping[int, int]
    others: int

    def over(self, edition: int, retry: int) -> bool:
        return retry > self.editions.get(edition, self.others)

    def left(self) -> ColumnElement[bool]:
        known = [and_(Batch.edition_id == edition, Batch.retry <= most) for edition, most in self.editions.items()]
        return or_(*known, and_(Batch.edition_id.not_in(list(self.editions)), Batch.retry <= self.others))


def domain_of(address: str) -> str:
    return address.rpartition("@")[2].lower()


def leaseholders(session: Session) -> Sequence[str]:
    """Workers with a lease on an open batch."""
    return [
        w
        for w in session.scalars(select(Batch.worker).where(not_(Batch.done), Batch.worker.is_not(None)).distinct())
        if w
    ]


def open_retries(session: Session, live: bool) -> list[tuple[int, int, int]]:
    """(batch, edition, retry) of every batch still to send by this transport."""
    rows = session.execute(
        select(Batch.id, Batch.edition_id, Batch.retry)
        .join(Edition, Edition.id == Batch.edition_id)
        .where(not_(Batch.done), Edition.live == live, Edition.status == EditionStatus.SENDING)
        .order_by(Batch.id)
    )
    return [(b, e, r) for b, e, r in rows]


def free(session: Session, live: bool, gone: Collection[str], limit: int) -> int:
    """How many batches are due and under nobody's lease, counted up to *limit*. ``gone``: see `claim`."""
    query = _claimable(session, live, gone).where(Batch.not_before <= clock(session)).limit(limit)
    return session.execute(select(func.count()).select_from(query.with_only_columns(Batch.id).subquery())).scalar_one()


# ----------------------------------------------------------------------------- claim and takeover


def claim(
    session: Session,
    *,
    worker: str,
    lease: timedelta,
    live: bool,
    wait: Wait,
    gone: Collection[str] = (),
    impatient: bool = False,
    exclude: Collection[int] = (),
    tries: Tries | None = None,
    limited: Callable[[str], bool] | None = None,
) -> Claimed | None:
    """Lease the next batch that is due and free; None when there is none.

    ``gone``: workers known to be dead, whose leases are void. ``impatient``: deferred ones are due at once, but for
    those that had their ``tries``.
    ``limited``: domains whose mail may have to wait; it comes last.
    A batch whose every recipient turns out to be settled is closed on the way and the next one is taken.
    """
    while (batch := _next(session, live, gone, impatient, exclude, tries)) is not None:
        edition = session.get_one(Edition, batch.edition_id)
        claimed = _take(session, batch, edition, worker, lease, limited)
        if claimed.recipients:
            return claimed
        batch.done = True
        _requeue(session, edition, batch, wait)
        session.flush()
    return None


def _next(
    session: Session, live: bool, gone: Collection[str], impatient: bool, exclude: Collection[int],
    tries: Tries | None,
) -> Batch | None:  # fmt: skip
    query = _claimable(session, live, gone)
    if not impatient:
        query = query.where(Batch.not_before <= clock(session))
    if exclude:
        query = query.where(Batch.id.not_in(list(exclude)))
    if tries is not None:  # asked here: what another thread puts off meanwhile is in no list made before
        query = query.where(tries.left())
    query = query.order_by(Batch.retry, Edition.instant, Batch.id).limit(1)
    return session.scalars(query.with_for_update(skip_locked=True, of=Batch)).one_or_none()


def _claimable(session: Session, live: bool, gone: Collection[str]) -> Any:
    """Open batches of this transport that are under nobody's lease, due or not."""
    nobody = or_(Batch.leased_until.is_(None), Batch.leased_until <= clock(session))
    if gone:
        nobody = or_(nobody, Batch.worker.in_(list(gone)))
    # A cancelled edition's batch is only settled: what was on the wire when its worker died is still owed a row.
    status = Edition.status.in_((EditionStatus.SENDING, EditionStatus.CANCELLED))
    query = select(Batch).join(Edition, Edition.id == Batch.edition_id).where(not_(Batch.done), nobody, status)
    return query.where(Edition.live == live)


def _take(
    session: Session, batch: Batch, edition: Edition, worker: str, lease: timedelta,
    limited: Callable[[str], bool] | None,
) -> Claimed:  # fmt: skip
    ids, ordinals = unpack_ids(batch.ids), unpack_ordinals(batch.ordinals)
    history = _History(session, edition, ids) if batch.attempt or batch.retry else _History.empty()
    todo = list(unpack_positions(batch.todo)) if batch.todo is not None else list(range(len(ids)))
    if batch.wire_to:
        todo = _settle(session, batch, edition, ids, todo, history)
    todo = [p for p in todo if ids[p] not in history.ended]
    if edition.status == EditionStatus.CANCELLED:
        todo = []
    people = _addresses(session, edition.digest_id, [ids[p] for p in todo])
    if limited is not None:
        todo = _limited_last(todo, {p: domain_of(people.get(ids[p], ("", 0))[0]) for p in todo}, limited)
    batch.todo, batch.wire_to = pack_positions(todo), 0
    batch.worker, batch.attempt, batch.leased_until = worker, batch.attempt + 1, clock(session) + lease
    session.flush()
    claimed = Claimed(batch.id, edition.id, edition.digest_id, edition.month, batch.attempt, batch.retry)
    for p in todo:
        address, subscription = people.get(ids[p], ("", 0))
        claimed.recipients.append(
            Recipient(claimed, ids[p], p, ordinals[p], address, subscription, history.count(ids[p]))
        )
    return claimed


def _limited_last(todo: list[int], domains: Mapping[int, str], limited: Callable[[str], bool]) -> list[int]:
    """What may have to wait behind what need not; the domains with most mail at the end."""
    counts = Counter(domains.values())
    weights = {domain: (counts[domain] if limited(domain) else 0, domain) for domain in counts}
    return sorted(todo, key=lambda p: weights[domains[p]])


class _History:
    """Attempts so far of a batch's recipients."""

    def __init__(self, session: Session | None, edition: Edition | None, ids: Iterable[int]) -> None:
        self.tries: dict[int, int] = {}
        self.ended: set[int] = set()
        self._last_in: dict[tuple[int, int | None], tuple[str, str | None]] = {}
        if session is None or edition is None:
            return
        rows = session.execute(
            select(
                Attempt.subscriber_id,
                Attempt.attempt,
                Attempt.outcome,
                Attempt.batch_id,
                Attempt.worker,
                Attempt.reopened,
            )
            .where(
                Attempt.edition_month == edition.month,
                Attempt.edition_id == edition.id,
                Attempt.subscriber_id.in_(list(ids)),
            )
            .order_by(Attempt.attempt)
        )
        for subscriber, attempt, outcome, batch, worker, reopened in rows:
            self.tries[subscriber] = attempt
            self._last_in[subscriber, batch] = outcome, worker
            if outcome in TERMINAL and not reopened:
                self.ended.add(subscriber)

    @classmethod
    def empty(cls) -> _History:
        return cls(None, None, ())

    def count(self, subscriber: int) -> int:
        return self.tries.get(subscriber, 0)

    def last_in(self, batch_id: int, subscriber: int) -> str | None:
        """The last outcome under that very batch."""
        return self._last_in.get((subscriber, batch_id), (None, None))[0]

    def answered_by(self, worker: str | None, batch_id: int, subscriber: int) -> bool:
        """Whether that worker recorded the last outcome under that very batch. `uncertain` of another was written when
        its lease ended: what has been granted since is not answered by it."""
        outcome, by = self._last_in.get((subscriber, batch_id), (None, None))
        return outcome is not None and (outcome != Result.UNCERTAIN or by == worker)


def _settle(
    session: Session, batch: Batch, edition: Edition, ids: Sequence[int], todo: list[int], history: _History
) -> list[int]:
    """A worker died with mail on the wire: write `uncertain` for exactly what was granted and not answered.

    Returns what is left to write: by the digest's policy the uncertain ones first (their Message-ID is the same) or
    not at all, then those never granted.
    """
    granted, unsent = todo[: batch.wire_to], todo[batch.wire_to :]
    unanswered = [p for p in granted if not history.answered_by(batch.worker, batch.id, ids[p])]
    addresses = _addresses(session, edition.digest_id, [ids[p] for p in unanswered])
    now = clock(session)
    rows = []
    for p in unanswered:
        history.tries[ids[p]] = history.count(ids[p]) + 1
        rows.append(
            _row(
                edition.month, edition.id, ids[p], history.tries[ids[p]], addresses.get(ids[p], ("", 0))[0],
                Outcome(Result.UNCERTAIN, text="the worker died while this mail may have been on the wire"),
                batch.id, batch.worker, now,
            )
        )  # fmt: skip
    if rows:
        session.execute(insert(Attempt), rows)
    return (unanswered if edition.recipe.get("uncertain", "resend") == "resend" else []) + unsent


def _addresses(session: Session, digest_id: int, ids: Sequence[int]) -> dict[int, tuple[str, int]]:
    """Subscriber → (address as given, subscription id)."""
    return hotpath.addresses(session.connection(), digest_id, ids)


# ----------------------------------------------------------------------------- groups


def note(
    connection: Connection,
    *,
    worker: str,
    lease: timedelta,
    moves: Sequence[Move],
    answers: Sequence[Answer],
    granting: Sequence[Recipient],
) -> dict[Recipient, Outcome]:
    """One commit of a sender: lease and ``wire_to`` of every batch in hand, answers, and who may not be written to.

    Returns the recipients of *granting* that must not go out, with what to record for them. Raises LeaseLost, and has
    then written nothing. Batches that are finished by it are done; `close` then looks, in the same transaction, for
    what is left of those that say so.
    """
    found = hotpath.write(
        connection,
        hotpath.Commit(
            worker=worker,
            lease=lease,
            moves=[(m.batch.batch_id, m.batch.fence, m.wire_to, m.finished) for m in moves],
            rows=[_answer_row(a, worker) for a in answers],  # the unique index refuses a second end
            granting=[(r.batch.edition_id, r.batch.digest_id, r.subscriber_id) for r in granting],
        ),
    )
    if found.moved != len(moves):
        raise LeaseLost("a batch was taken over by another worker")
    return _refused(found, granting)


def close(session: Session, moves: Sequence[Move], wait: Wait) -> None:
    """What was deferred in batches that are finished makes new ones."""
    for move in moves:
        if move.closes:
            batch = session.get_one(Batch, move.batch.batch_id, populate_existing=True)
            _requeue(session, session.get_one(Edition, batch.edition_id, populate_existing=True), batch, wait)


def _lost(batch: Claimed) -> LeaseLost:
    return LeaseLost(f"batch {batch.batch_id} was taken over by another worker")


def _fenced(session: Session, worker: str, batch: Claimed, values: Mapping[str, Any]) -> None:
    result = session.execute(
        update(Batch)
        .where(Batch.id == batch.batch_id, Batch.worker == worker, Batch.attempt == batch.fence, not_(Batch.done))
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        raise _lost(batch)


def _refused(found: hotpath.Found, granting: Sequence[Recipient]) -> dict[Recipient, Outcome]:
    """What was found at the last moment: a cancelled or paused edition, a suppression, an unsubscribe."""
    refused: dict[Recipient, Outcome] = {}
    for place, recipient in enumerate(granting):
        status = found.statuses.get(recipient.batch.edition_id, "gone")
        if status != EditionStatus.SENDING:
            result = Result.CANCELLED if status == EditionStatus.CANCELLED else Result.DEFERRED
            refused[recipient] = Outcome(result, text=f"the edition is {status}")
        elif place not in found.wanted:
            refused[recipient] = Outcome(Result.SUPPRESSED, text="unsubscribed or suppressed since the release")
    return refused


def put_off(
    session: Session, *, worker: str, batch: Claimed, kept: Sequence[int], off: Sequence[Recipient],
    not_before: datetime,
) -> None:  # fmt: skip
    """Recipients that were never granted wait in a batch of their own, or expire. ``kept``: the positions that stay, in
    their order; those granted so far are the first of them."""
    _fenced(session, worker, batch, {"todo": pack_positions(kept)})
    row = session.get_one(Batch, batch.batch_id, populate_existing=True)
    edition = session.get_one(Edition, batch.edition_id, populate_existing=True)
    now = clock(session)
    if _outlived(edition, now):
        ids = [r.subscriber_id for r in off]
        _expire(session, edition, row, ids, _History(session, edition, ids), now)
    else:
        _add(session, row, [(r.subscriber_id, r.ordinal) for r in off], max(row.retry, 1), not_before)


def hand_back(session: Session, *, worker: str, batch: Claimed, left: Sequence[Recipient]) -> None:
    """Give a batch up whose granted recipients are all answered or never left: the next claim goes on with *left*."""
    todo = pack_positions(r.position for r in left)
    _fenced(session, worker, batch, {"todo": todo, "wire_to": 0, "worker": None, "leased_until": None})


def _row(
    month: int, edition: int, subscriber: int, attempt: int, address: str, outcome: Outcome,
    batch: int | None, worker: str | None, now: datetime,
) -> dict[str, Any]:  # fmt: skip
    return {
        "edition_month": month, "edition_id": edition, "subscriber_id": subscriber, "attempt": attempt,
        "outcome": outcome.result.value, "code": outcome.code, "enhanced": outcome.enhanced, "text": outcome.text,
        "address": address, "batch_id": batch, "worker": worker, "at": now,
    }  # fmt: skip


def _answer_row(answer: Answer, worker: str) -> hotpath.AttemptRow:
    r, said = answer.recipient, answer.outcome
    b = r.batch
    r.attempts += 1
    return (
        b.month, b.edition_id, r.subscriber_id, r.attempts, said.result.value, said.code, said.enhanced, said.text,
        r.address, b.batch_id, worker,
    )  # fmt: skip


# ----------------------------------------------------------------------------- what was deferred


def _requeue(session: Session, edition: Edition, batch: Batch, wait: Wait) -> None:
    """A batch is done: its deferred recipients make a new one with ``not_before``, or expire with their lifetime."""
    if edition.status == EditionStatus.CANCELLED:
        return
    ids, ordinals = unpack_ids(batch.ids), unpack_ordinals(batch.ordinals)
    history = _History(session, edition, ids)
    again = {Result.DEFERRED.value}
    if edition.recipe.get("uncertain", "resend") == "resend":
        again.add(Result.UNCERTAIN.value)
    left = [p for p in range(len(ids)) if ids[p] not in history.ended and history.last_in(batch.id, ids[p]) in again]
    if not left:
        return
    now = clock(session)
    if _outlived(edition, now):
        _expire(session, edition, batch, [ids[p] for p in left], history, now)
        return
    again_at = now + wait(batch.retry + 1, batch.id)
    _add(session, batch, [(ids[p], ordinals[p]) for p in left], batch.retry + 1, again_at)


def _outlived(edition: Edition, now: datetime) -> bool:
    return now - (edition.released_at or now) > timedelta(seconds=edition.recipe.get("lifetime_s", 5 * 86400))


def _add(session: Session, batch: Batch, members: Sequence[tuple[int, int]], retry: int, not_before: datetime) -> None:
    """A batch out of another one: (subscriber, variant) of each member."""
    session.add(
        Batch(
            edition_id=batch.edition_id, part=batch.part, n=next_number(session, batch.edition_id, batch.part),
            retry=retry, ids=pack_ids(s for s, _ in members), ordinals=pack_ordinals(v for _, v in members),
            not_before=not_before, attempt=0, wire_to=0, done=False,
        )
    )  # fmt: skip
    session.flush()


def next_number(session: Session, edition_id: int, part: int) -> int:
    """The next free number in a part of an edition, to this transaction alone: two workers may each end a batch."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(
            text("SELECT pg_advisory_xact_lock(hashtext('digest batches'), hashint8(:id))"), {"id": edition_id}
        )
    highest = select(func.max(Batch.n)).where(Batch.edition_id == edition_id, Batch.part == part)
    return int(session.execute(highest).scalar_one()) + 1


def _expire(
    session: Session, edition: Edition, batch: Batch, ids: Sequence[int], history: _History, now: datetime
) -> None:
    addresses = _addresses(session, edition.digest_id, ids)
    outcome = Outcome(Result.EXPIRED, text="deferred until its lifetime ended")
    rows = [
        _row(edition.month, edition.id, s, history.count(s) + 1, addresses.get(s, ("", 0))[0], outcome,
             batch.id, None, now)
        for s in ids
    ]  # fmt: skip
    session.execute(insert(Attempt), rows)


def pack_positions(positions: Iterable[int]) -> bytes:
    return array("H", positions).tobytes()


def unpack_positions(packed: bytes) -> Sequence[int]:
    a = array("H")
    a.frombytes(packed)
    return a
