"""Readers' own feeds: one a reader, under an address that a new one makes worthless; and how many ask for theirs."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from digest.models import Digest, PrivateFeed, PrivateFeedReaders, Subscriber, Subscription, Taste
from digest.types import SubscriptionStatus

#: A reader whose feed was asked for within these days counts.
READ_WITHIN = timedelta(days=30)


def private_serial(session: Session, subscriber_id: int) -> int | None:
    """The serial in the address of the reader's feed; None without one."""
    feed = session.get(PrivateFeed, subscriber_id)
    return feed.serial if feed is not None and feed.active else None


def open_private_feed(session: Session, subscriber_id: int, now: datetime) -> int | None:
    """Give the reader a feed, or the feed a new address; its serial, None if there is no such reader."""
    if session.get(Subscriber, subscriber_id) is None:
        return None
    feed = session.get(PrivateFeed, subscriber_id, with_for_update=True)
    if feed is None:
        feed = PrivateFeed(subscriber_id=subscriber_id, serial=0, active=True, created_at=now)
        session.add(feed)
    feed.serial, feed.active = feed.serial + 1, True
    session.flush()
    return feed.serial


def close_private_feed(session: Session, subscriber_id: int) -> None:
    """Take the feed away; a later one has another address."""
    feed = session.get(PrivateFeed, subscriber_id, with_for_update=True)
    if feed is not None:
        feed.active = False
        session.flush()


def private_choices(session: Session, subscriber_id: int) -> list[tuple[Digest, tuple[int, ...]]]:
    """The digests that the reader gets, each with the topics chosen of it; none chosen: all of it."""
    query = select(Digest, Taste.key).join(Subscription, Subscription.digest_id == Digest.id)
    query = query.join(Taste, Taste.id == Subscription.taste_id).order_by(Digest.id)
    active = Subscription.status == SubscriptionStatus.ACTIVE
    rows = session.execute(query.where(Subscription.subscriber_id == subscriber_id, active)).all()
    return [(digest, tuple(int(i) for i in key.split(",") if i)) for digest, key in rows]


def note_private_poll(session: Session, subscriber_id: int, now: datetime) -> None:
    """Remember the day, and nothing else, on which the feed was asked for."""
    make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = make(PrivateFeedReaders.__table__).values(subscriber_id=subscriber_id, day=f"{now:%Y-%m-%d}")  # type: ignore[arg-type]
    session.execute(row.on_conflict_do_update(index_elements=["subscriber_id"], set_={"day": row.excluded.day}))


def private_polled_today(session: Session, subscriber_id: int, now: datetime) -> bool:
    day = session.scalar(select(PrivateFeedReaders.day).where(PrivateFeedReaders.subscriber_id == subscriber_id))
    return day == f"{now:%Y-%m-%d}"


def count_private_readers(session: Session, now: datetime) -> int:
    since = f"{now - READ_WITHIN:%Y-%m-%d}"
    return session.scalar(select(func.count()).where(PrivateFeedReaders.day >= since)) or 0
