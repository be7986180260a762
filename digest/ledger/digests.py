"""The standing recipes: digests and their schedules as rows. What their texts mean is checked by the rooms above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from digest.db import clock
from digest.errors import UsageError
from digest.ledger.editions import add_clock, zones_with_readers
from digest.models import Digest, Schedule, ScheduleClock, Subscriber, Subscription
from digest.types import DigestStatus, SubscriptionStatus

#: A schedule whose runs follow each reader's own zone.
READERS_ZONE = "subscriber"


@dataclass(frozen=True, slots=True)
class DigestRow:
    digest: Digest
    schedules: tuple[Schedule, ...]
    readers: int  # active subscriptions


def find_digest(session: Session, slug: str) -> Digest:
    """The digest of that slug; UsageError names the nearest."""
    digest = session.scalars(select(Digest).where(Digest.slug == slug)).one_or_none()
    if digest is not None:
        return digest
    known = session.scalars(select(Digest.slug)).all()
    near = get_close_matches(slug, known, n=1)
    if near:
        hint = f"; did you mean {near[0]}?"
    else:
        hint = "; `digest digests list` shows those there are" if known else "; add one with `digest digests add`"
    raise UsageError(f"there is no digest {slug!r}{hint}")


def list_digests(session: Session, slug: str | None = None) -> list[DigestRow]:
    """All digests in the order of their making, or the one of that slug."""
    wanted = [find_digest(session, slug)] if slug else session.scalars(select(Digest).order_by(Digest.id)).all()
    schedules: dict[int, list[Schedule]] = {}
    for schedule in session.scalars(select(Schedule).order_by(Schedule.id)):
        schedules.setdefault(schedule.digest_id, []).append(schedule)
    readers = dict(
        session.execute(
            select(Subscription.digest_id, func.count())
            .where(Subscription.status == SubscriptionStatus.ACTIVE)
            .group_by(Subscription.digest_id)
        ).all()
    )
    return [DigestRow(d, tuple(schedules.get(d.id, ())), readers.get(d.id, 0)) for d in wanted]


def add_digest(session: Session, fields: Mapping[str, Any], now: datetime) -> Digest:
    """A new digest; UsageError when the slug is taken."""
    slug = fields["slug"]
    if session.scalars(select(Digest.id).where(Digest.slug == slug)).one_or_none() is not None:
        raise UsageError(f"there is a digest {slug!r} already; change it with `digest digests set {slug}`")
    digest = Digest(**fields, created_at=now)
    session.add(digest)
    session.flush()
    return digest


def add_schedule(
    session: Session, digest: Digest, *, cron: str, timezone: str, home: str, now: datetime, missed: str = "late"
) -> Schedule:
    """One cadence and its clock. One that follows readers also runs in *home*, the publication's zone."""
    schedule = Schedule(digest_id=digest.id, cron=cron, timezone=timezone, missed=missed, created_at=now)
    session.add(schedule)
    session.flush()
    add_clock(session, schedule.id, home if timezone == READERS_ZONE else timezone)
    return schedule


def change_schedule(session: Session, schedule: Schedule, *, cron: str, timezone: str, home: str) -> None:
    """Another cron text or zone, from now on: runs that it would have had before are none. Readers keep the cadence.

    In a schedule that follows readers each gets a clock in their own zone, or in *home*.
    """
    schedule.cron, schedule.timezone, schedule.created_at = cron, timezone, clock(session)
    session.execute(delete(ScheduleClock).where(ScheduleClock.schedule_id == schedule.id))
    session.flush()
    own = timezone == READERS_ZONE
    add_clock(session, schedule.id, home if own else timezone)
    theirs = select(func.coalesce(Subscriber.timezone, home)).where(Subscriber.id == Subscription.subscriber_id)
    session.execute(
        update(Subscription)
        .where(Subscription.schedule_id == schedule.id)
        .values(zone=theirs.scalar_subquery() if own else "")
        .execution_options(synchronize_session=False)
    )
    if own:
        for zone in sorted(zones_with_readers(session, schedule.id)):
            add_clock(session, schedule.id, zone)


def set_status(session: Session, slug: str, status: DigestStatus) -> Digest:
    digest = find_digest(session, slug)
    digest.status = status
    return digest


def others(session: Session, digest_id: int | None) -> Sequence[Digest]:
    """All digests but that one."""
    query = select(Digest).order_by(Digest.id)
    return session.scalars(query.where(Digest.id != digest_id) if digest_id is not None else query).all()
