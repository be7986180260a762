"""What the ledger does not keep for ever, and the months that it makes ahead. Works in steps, a transaction each.

Attempts, batches, variants and what was heard of mail later are kept for a number of months; an edition keeps its
counts of outcomes for good, as it keeps its snapshot. On PostgreSQL a month of attempts is one partition: it is dropped
whole, and those of the next months are made before anybody needs them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from digest.ledger.editions import OPEN, RUNNING, make_partition
from digest.ledger.readings import outcome_counts
from digest.models import Attempt, Batch, CapturedMail, DeliveryEvent, Edition, SystemMail, Variant

AHEAD = 2  # months
CHUNK = 20_000  # rows of one step


def month_of(when: datetime, back: int = 0) -> int:
    """202507, so many months before *when*."""
    months = when.year * 12 + when.month - 1 - back
    return months // 12 * 100 + months % 12 + 1


def make_months(session: Session, now: datetime) -> None:
    """The partitions of this month and the next ones; nothing on SQLite."""
    for ahead in range(AHEAD + 1):
        make_partition(session, month_of(now, -ahead))


def forget_month(session: Session, now: datetime, months: int) -> bool:
    """One step of forgetting what editions left behind that are older than so many months; False: nothing is left."""
    oldest = month_of(now, months)
    edition = session.scalars(
        select(Edition)
        .where(
            Edition.month < oldest, Edition.counts.is_(None), Edition.released_at.is_not(None),
            Edition.status.not_in((*OPEN, *RUNNING)),
        )
        .order_by(Edition.id)
        .limit(1)
    ).one_or_none()  # fmt: skip
    if edition is not None:
        edition.counts = {outcome: n for outcome, n in outcome_counts(session, edition).items() if n}
        for table in (Batch, Variant):
            session.execute(delete(table).where(table.edition_id == edition.id))
        return True
    return _forget_attempts(session, oldest)


def _forget_attempts(session: Session, oldest: int) -> bool:
    """Attempts of months before *oldest*, those of editions that still run apart."""
    kept = select(Edition.month).where(Edition.month < oldest, Edition.status.in_((*OPEN, *RUNNING)))
    if session.get_bind().dialect.name == "postgresql":
        return _drop_partition(session, oldest, set(session.scalars(kept)))
    a = Attempt.edition_month
    month = session.scalar(select(func.min(a)).where(a < oldest, a.not_in(kept)))
    if month is None:
        return False
    some = "DELETE FROM attempts WHERE rowid IN (SELECT rowid FROM attempts WHERE edition_month = :month LIMIT :most)"
    session.execute(text(some), {"month": month, "most": CHUNK})
    return True


def _drop_partition(session: Session, oldest: int, kept: set[int]) -> bool:
    names = session.scalars(
        text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'attempts'::regclass ORDER BY 1")
    )
    for name in names:
        month = int(name.rpartition("_")[2])
        if month < oldest and month not in kept:
            session.execute(text(f"DROP TABLE {name}"))
            return True
    return False


def forget_later(session: Session, now: datetime, months: int, captured_days: int) -> bool:
    """One step of forgetting events, system mails that are out, and mails that the capture server caught."""
    before = now - timedelta(days=round(months * 30.44))
    return any(
        [
            _oldest(session, DeliveryEvent, DeliveryEvent.at, before),
            _oldest(session, SystemMail, SystemMail.created_at, before, SystemMail.outcome.is_not(None)),
            _oldest(session, CapturedMail, CapturedMail.received_at, now - timedelta(days=captured_days)),
        ]
    )


def _oldest(session: Session, table: Any, at: Any, before: datetime, *also: Any) -> bool:
    """Delete the oldest rows, a step at most. Numbers rise with time: where the first one is young, so are the rest."""
    first = session.scalar(select(at).where(*also).order_by(table.id).limit(1))
    if first is None or first >= before:
        return False
    old = select(table.id).where(at < before, *also).order_by(table.id).limit(CHUNK)
    session.execute(
        delete(table).where(table.id.in_(old.scalar_subquery())).execution_options(synchronize_session=False)
    )
    return True
