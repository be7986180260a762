"""Deliveries that a person settles or has sent again: what failed, and what may have arrived.

A delivery ends once. To send what failed again, its end is *reopened*: the attempt stays as it was told, and ends
nothing any more. Whoever had the stories by a later edition in the meantime is passed over, as any release would (the
lock of releases is held): what was given back may be sent again only until a later release has read it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, insert, not_, select, update
from sqlalchemy.orm import Session, aliased

from digest.db import clock
from digest.ledger.batches import next_number, unpack_positions
from digest.ledger.history import (
    BATCH_SIZE,
    PART_BITS,
    carried_since,
    pack_ids,
    pack_ordinals,
    unpack_ids,
    unpack_ordinals,
)
from digest.models import Attempt, Batch, Edition, Subscriber
from digest.types import EditionStatus, Result

FAILED = (Result.REJECTED, Result.EXPIRED)


@dataclass(frozen=True, slots=True)
class Again:
    """``queued``: readers whose mail waits to be sent again; ``passed_over``: who had its stories otherwise since."""

    queued: int
    passed_over: int


def last_outcome(edition: Edition, outcomes: Collection[Result]) -> ColumnElement[bool]:
    """Attempts that are the last of their delivery, still count, and say one of these."""
    later = aliased(Attempt)
    followed = exists().where(
        later.edition_month == Attempt.edition_month,
        later.edition_id == Attempt.edition_id,
        later.subscriber_id == Attempt.subscriber_id,
        later.attempt > Attempt.attempt,
    )
    mine = and_(Attempt.edition_month == edition.month, Attempt.edition_id == edition.id)
    return and_(mine, Attempt.outcome.in_(sorted(outcomes)), not_(Attempt.reopened), not_(followed))


def retry(session: Session, edition: Edition) -> Again:
    """Send to those whose delivery was rejected or has expired, and to nobody else."""
    rows = session.execute(
        select(Attempt.subscriber_id, Attempt.attempt, Attempt.at).where(last_outcome(edition, FAILED))
    ).all()
    if not rows:
        return Again(0, 0)
    since = min(at for _, _, at in rows)
    ordinals = _ordinals(session, edition, {reader for reader, _, _ in rows})
    had = carried_since(session, edition, since, ordinals)
    again = [(reader, attempt) for reader, attempt, _ in rows if reader not in had]
    for start in range(0, len(again), 500):
        _reopen(session, edition, dict(again[start : start + 500]))
    send_again(session, edition, {reader: ordinals[reader] for reader, _ in again})
    return Again(len(again), len(rows) - len(again))


def _reopen(session: Session, edition: Edition, ends: Mapping[int, int]) -> None:
    mine = and_(Attempt.edition_month == edition.month, Attempt.edition_id == edition.id)
    session.execute(
        update(Attempt)
        .where(mine, Attempt.subscriber_id.in_(list(ends)), Attempt.outcome.in_(FAILED))
        .values(reopened=True)
        .execution_options(synchronize_session=False)
    )


def unsettled(session: Session, edition: Edition) -> dict[int, int]:
    """Readers whose mail may have arrived, and that nobody is going to send again: reader → number of the attempt."""
    maybe = dict(
        session.execute(
            select(Attempt.subscriber_id, Attempt.attempt).where(last_outcome(edition, [Result.UNCERTAIN]))
        ).all()
    )
    return {reader: attempt for reader, attempt in maybe.items() if reader not in _in_hand(session, edition.id)}


def _in_hand(session: Session, edition_id: int) -> set[int]:
    """Readers in a batch that is still open."""
    waiting: set[int] = set()
    rows = session.execute(select(Batch.ids, Batch.todo).where(Batch.edition_id == edition_id, not_(Batch.done)))
    for packed, todo in rows:
        ids = unpack_ids(packed)
        waiting.update(ids if todo is None else (ids[p] for p in unpack_positions(todo)))
    return waiting


def settle(session: Session, edition: Edition, readers: Mapping[int, int], result: Result, text: str) -> None:
    """End deliveries by a person's word. *readers*: as of `unsettled`."""
    rows: list[dict[str, Any]] = []
    now = clock(session)
    ids = list(readers)
    for start in range(0, len(ids), 500):
        chunk = ids[start : start + 500]
        addresses = dict(
            session.execute(select(Subscriber.id, Subscriber.address).where(Subscriber.id.in_(chunk))).all()
        )
        rows += [
            {
                "edition_month": edition.month, "edition_id": edition.id, "subscriber_id": reader,
                "attempt": readers[reader] + 1, "outcome": result.value, "text": text,
                "address": addresses.get(reader, ""), "at": now,
            }
            for reader in chunk
        ]  # fmt: skip
    if rows:
        session.execute(insert(Attempt), rows)


def resend(session: Session, edition: Edition, readers: Collection[int]) -> None:
    """Send to readers whose mail may have arrived once more, under the same Message-ID."""
    send_again(session, edition, _ordinals(session, edition, readers))


def _ordinals(session: Session, edition: Edition, readers: Collection[int]) -> dict[int, int]:
    """Reader → the variant that the release gave them."""
    found: dict[int, int] = {}
    rows = session.execute(select(Batch.ids, Batch.ordinals).where(Batch.edition_id == edition.id, Batch.retry == 0))
    for ids, ordinals in rows:
        found |= {s: v for s, v in zip(unpack_ids(ids), unpack_ordinals(ordinals), strict=True) if s in readers}
    return found


def send_again(session: Session, edition: Edition, readers: Mapping[int, int]) -> None:
    """New batches for these readers and variants; an edition that was finished is on its way again."""
    highest = session.execute(select(func.max(Batch.retry)).where(Batch.edition_id == edition.id)).scalar_one() or 0
    parts: dict[int, list[tuple[int, int]]] = {}
    for ordinal, reader in sorted((v, s) for s, v in readers.items()):
        parts.setdefault(reader >> PART_BITS, []).append((reader, ordinal))
    for part, members in parts.items():
        _write(session, edition, part, highest + 1, members)
    if readers and edition.status == EditionStatus.FINISHED:
        edition.status, edition.finished_at = EditionStatus.SENDING, None


def _write(session: Session, edition: Edition, part: int, retry: int, members: list[tuple[int, int]]) -> None:
    now = clock(session)
    first = next_number(session, edition.id, part)
    chunks: Iterable[list[tuple[int, int]]] = (
        members[start : start + BATCH_SIZE] for start in range(0, len(members), BATCH_SIZE)
    )
    for n, chunk in enumerate(chunks, first):
        session.add(
            Batch(
                edition_id=edition.id, part=part, n=n, retry=retry, ids=pack_ids(s for s, _ in chunk),
                ordinals=pack_ordinals(v for _, v in chunk), not_before=now,
            )
        )  # fmt: skip
    session.flush()
