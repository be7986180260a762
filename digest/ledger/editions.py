"""Editions from opening to their end: clocks, pools, states. Decides nothing about articles or readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, exists, func, insert, not_, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from digest.errors import UsageError
from digest.models import Batch, Digest, Edition, EditionArticle, Schedule, ScheduleClock, Subscription
from digest.types import EditionStatus, SubscriptionStatus

OPEN = (EditionStatus.DRAFT, EditionStatus.HELD)
RUNNING = (EditionStatus.SENDING, EditionStatus.PAUSED)


def _insert(session: Session) -> Any:
    return postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert


# ----------------------------------------------------------------------------- clocks


def add_clock(session: Session, schedule_id: int, zone: str, next_run_at: datetime | None = None) -> None:
    """A clock; one that no tick has seen yet unless told when it strikes. Harmless when it is there."""
    statement = _insert(session)(ScheduleClock).values(schedule_id=schedule_id, zone=zone, next_run_at=next_run_at)
    session.execute(statement.on_conflict_do_nothing())


def without_clock(session: Session, timezone: str, zone: str) -> Sequence[Schedule]:
    """Schedules of that *timezone* that have no clock in *zone*."""
    clock = exists().where(ScheduleClock.schedule_id == Schedule.id, ScheduleClock.zone == zone)
    return session.scalars(select(Schedule).where(Schedule.timezone == timezone, not_(clock))).all()


def clocks_to_look_at(session: Session, at: datetime) -> Sequence[tuple[ScheduleClock, Schedule, Digest]]:
    """Clocks that struck by *at*, and those no tick has seen, in the order in which their editions are released."""
    rows = session.execute(
        select(ScheduleClock, Schedule, Digest)
        .join(Schedule, Schedule.id == ScheduleClock.schedule_id)
        .join(Digest, Digest.id == Schedule.digest_id)
        .where(or_(ScheduleClock.next_run_at.is_(None), ScheduleClock.next_run_at <= at))
        .order_by(ScheduleClock.next_run_at, Digest.rank, Digest.id, ScheduleClock.zone)
    )
    return [(c, s, d) for c, s, d in rows]


def move_clock(session: Session, clock: ScheduleClock, to: datetime | None) -> bool:
    """Compare-and-set: False when another process moved it first."""
    seen = clock.next_run_at
    result = session.execute(
        update(ScheduleClock)
        .where(
            ScheduleClock.schedule_id == clock.schedule_id,
            ScheduleClock.zone == clock.zone,
            ScheduleClock.next_run_at.is_(None) if seen is None else ScheduleClock.next_run_at == seen,
        )
        .values(next_run_at=to)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def zones_with_readers(session: Session, schedule_id: int) -> set[str]:
    """Zones in which somebody waits for a schedule that runs in each reader's own."""
    return set(
        session.scalars(
            select(Subscription.zone)
            .where(Subscription.schedule_id == schedule_id, Subscription.status == SubscriptionStatus.ACTIVE)
            .distinct()
        )
    )


def counts_from(session: Session, clock: ScheduleClock, schedule: Schedule) -> datetime:
    """Since when an unseen clock has had runs: its schedule's making, or the first reader's joining in that zone."""
    joined = session.execute(
        select(func.min(func.coalesce(Subscription.confirmed_at, Subscription.created_at))).where(
            Subscription.schedule_id == schedule.id,
            Subscription.zone == clock.zone,  # '' in a fixed zone: no row
            Subscription.status == SubscriptionStatus.ACTIVE,
        )
    ).scalar_one()
    since: datetime = max(schedule.created_at, joined or schedule.created_at)
    return since


# ----------------------------------------------------------------------------- opening


def open_edition(session: Session, values: Mapping[str, Any]) -> int | None:
    """Insert an edition; None when this run or request has one already. Makes its attempts partition."""
    make_partition(session, values["month"])
    statement = _insert(session)(Edition).values(**values).on_conflict_do_nothing().returning(Edition.id)
    return session.execute(statement).scalar_one_or_none()


def join_zone(session: Session, run: Mapping[str, Any], zone: str) -> int | None:
    """Let the readers of *zone* share the edition of that run and instant, if it is not released yet."""
    edition = session.scalars(
        select(Edition)
        .where(
            Edition.schedule_id == run["schedule_id"],
            Edition.local_time == run["local_time"],
            Edition.fold == run["fold"],
            Edition.instant == run["instant"],
            Edition.released_at.is_(None),
        )
        .with_for_update()
    ).one_or_none()
    if edition is None:
        return None
    if zone not in edition.zones:
        edition.zones = sorted({*edition.zones, zone})
    return edition.id


def free_slug(session: Session, digest_id: int, day: str) -> str:
    """``2025-07-14``, or with the next free number behind it."""
    taken = set(
        session.scalars(
            select(Edition.slug).where(
                Edition.digest_id == digest_id, or_(Edition.slug == day, Edition.slug.like(f"{day}-%"))
            )
        )
    )
    if day not in taken:
        return day
    return next(f"{day}-{n}" for n in range(2, len(taken) + 3) if f"{day}-{n}" not in taken)


def make_partition(session: Session, month: int) -> None:
    """Attempts are partitioned by edition month on PostgreSQL: make the month's partition if it is missing."""
    if session.get_bind().dialect.name != "postgresql":
        return
    name = f"attempts_{int(month)}"
    if session.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar_one() is None:
        # Two openers may both find it missing: the lock makes the second wait, then IF NOT EXISTS sees the first's.
        session.execute(text("LOCK TABLE attempts IN SHARE UPDATE EXCLUSIVE MODE"))
        session.execute(text(f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF attempts FOR VALUES IN ({int(month)})"))


# ----------------------------------------------------------------------------- states


def place_in_day(session: Session, edition: Edition) -> int:
    """Which run of its digest on its local day an edition belongs to, from 1; zones of one run share the place."""
    rows = session.execute(
        select(Edition.schedule_id, Edition.local_time, Edition.fold, func.min(Edition.id))
        .where(Edition.digest_id == edition.digest_id, Edition.local_time.startswith(edition.local_time[:10]))
        .group_by(Edition.schedule_id, Edition.local_time, Edition.fold, Edition.request_id)
        .order_by(func.min(Edition.id))
    ).all()
    mine = (edition.schedule_id, edition.local_time, edition.fold)
    if edition.schedule_id is None:  # a run by hand is one of its own
        return sum(first <= edition.id for *_, first in rows)
    return next(n for n, (*run, _) in enumerate(rows, 1) if tuple(run) == mine)


def waiting(session: Session) -> Sequence[int]:
    """Drafts in the order of release: scheduled time, digest rank, id."""
    return session.scalars(
        select(Edition.id)
        .join(Digest, Digest.id == Edition.digest_id)
        .where(Edition.status == EditionStatus.DRAFT)
        .order_by(Edition.instant, Digest.rank, Edition.id)
    ).all()


def lock_edition(session: Session, edition_id: int) -> Edition | None:
    return session.scalars(select(Edition).where(Edition.id == edition_id).with_for_update()).one_or_none()


def known(session: Session, edition_id: int) -> Edition:
    """That edition, locked. UsageError when there is none."""
    edition = lock_edition(session, edition_id)
    if edition is None:
        raise UsageError(f"there is no edition {edition_id}; `digest editions list` shows those there are")
    return edition


def write_pool(session: Session, edition_id: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """The snapshot of the candidates; what was there before is replaced."""
    session.execute(delete(EditionArticle).where(EditionArticle.edition_id == edition_id))
    if rows := [dict(r, edition_id=edition_id) for r in rows]:
        session.execute(insert(EditionArticle), rows)


def pool(session: Session, edition_id: int) -> Sequence[EditionArticle]:
    """Candidates of an edition, best first."""
    return session.scalars(
        select(EditionArticle).where(EditionArticle.edition_id == edition_id).order_by(EditionArticle.rank)
    ).all()


def pool_values(session: Session, edition_id: int) -> dict[int, dict[str, Any]]:
    """Article id → its row of the pool, as `write_pool` takes it, best first."""
    columns = EditionArticle.__table__.c
    rows = session.execute(select(*columns).where(columns.edition_id == edition_id).order_by(columns.rank)).mappings()
    return {row["article_id"]: dict(row) for row in rows}


def cancel(session: Session, edition: Edition, reason: str, now: datetime) -> None:
    """What has not been granted to the wire stays unsent; batches in a worker's hand are stopped at its next group."""
    edition.status, edition.reason, edition.finished_at = EditionStatus.CANCELLED, reason, now
    session.execute(
        update(Batch)
        .where(
            Batch.edition_id == edition.id,
            not_(Batch.done),
            or_(Batch.leased_until.is_(None), Batch.leased_until < now),
            Batch.wire_to == 0,
        )
        .values(done=True)
        .execution_options(synchronize_session=False)
    )


def finish_sent(session: Session, now: datetime) -> list[int]:
    """Editions whose batches are all done → finished. Returns their ids."""
    open_batch = exists().where(Batch.edition_id == Edition.id, not_(Batch.done))
    ids = session.scalars(
        select(Edition.id).where(Edition.status == EditionStatus.SENDING, not_(open_batch)).order_by(Edition.id)
    ).all()
    if ids:
        session.execute(
            update(Edition)
            .where(Edition.id.in_(ids), Edition.status == EditionStatus.SENDING)
            .values(status=EditionStatus.FINISHED, finished_at=now)
            .execution_options(synchronize_session=False)
        )
    return list(ids)


def captured_but_open(session: Session) -> Sequence[Edition]:
    """Editions released to the capture server that were still going out when mail went live."""
    return session.scalars(select(Edition).where(Edition.status.in_(RUNNING), not_(Edition.live))).all()


def open_batches(session: Session, live: bool) -> int:
    """Batches still to send, of editions that leave by this transport."""
    return session.execute(
        select(func.count())
        .select_from(Batch)
        .join(Edition, Edition.id == Batch.edition_id)
        .where(not_(Batch.done), Edition.status == EditionStatus.SENDING, Edition.live == live)
    ).scalar_one()


def batches_of(session: Session, edition_id: int) -> int:
    """How many batches of an edition are open."""
    query = select(func.count()).select_from(Batch).where(Batch.edition_id == edition_id, not_(Batch.done))
    return session.execute(query).scalar_one()


def editions(
    session: Session, digest_slug: str | None = None, ids: Sequence[int] | None = None, limit: int | None = None
) -> list[tuple[Edition, str]]:
    """(edition, digest slug), by (scheduled time, digest, id); with a limit the newest."""
    query = select(Edition, Digest.slug).join(Digest, Digest.id == Edition.digest_id)
    if digest_slug is not None:
        query = query.where(Digest.slug == digest_slug)
    if ids is not None:
        query = query.where(Edition.id.in_(list(ids)))
    if limit is not None:
        newest = query.order_by(Edition.instant.desc(), Digest.slug.desc(), Edition.id.desc()).limit(limit)
        return [(e, slug) for e, slug in reversed(session.execute(newest).all())]
    rows = session.execute(query.order_by(Edition.instant, Digest.slug, Edition.id))
    return [(e, slug) for e, slug in rows]
