"""One reader at a time: ask, confirm, leave, look up.

    pending ──confirm──▶ active ──unsubscribe──▶ unsubscribed ──subscribe──▶ pending …

Every change of what a reader agreed to leaves a consent event, in the same transaction. `subscribe` answers the same
whoever asks and whatever is known of the address. The rows of a reader are changed under a lock on the subscriber.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from digest.audience.addresses import Address, parse_address
from digest.audience.suppressions import lift_erased, suppression
from digest.errors import UsageError
from digest.models import (
    ConsentEvent,
    Digest,
    Publication,
    Schedule,
    ScheduleClock,
    Subscriber,
    Subscription,
    SystemMail,
    Taste,
)
from digest.sql import insert_new
from digest.types import DigestStatus, Dress, Format, SubscriptionStatus, SuppressionReason

CONFIRMATION_EVERY = timedelta(hours=24)
CONFIRMATIONS_EVER = 3
#: A reader asked, or asks again, from here: these become pending. Paused and active ones stay as they are.
_REOPENED = (SubscriptionStatus.UNSUBSCRIBED, SubscriptionStatus.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Requested:
    """What a request to subscribe led to. For our own books: nothing of it may reach the one who asked."""

    subscription_ids: tuple[int, ...]
    mailed: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A subscription as its reader sees it."""

    id: int
    subscriber_id: int
    digest_slug: str
    digest_name: str
    status: SubscriptionStatus
    dress: Dress
    cron: str | None
    zone: str  # the zone its clock runs in
    since: datetime
    confirmed: bool  # ever


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a confirmation link asks its reader: every request of theirs that is still open."""

    subscriber_id: int
    address: str
    asked: Standing
    pending: tuple[Standing, ...]


@dataclass(frozen=True, slots=True)
class Preferences:
    subscriber_id: int
    address: str
    subscriptions: tuple[Standing, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A digest that readers can subscribe to. ``cadences``: (cron, zone) of its schedules."""

    slug: str
    name: str
    cadences: tuple[tuple[str, str], ...]


# ----------------------------------------------------------------------------- ask


def subscribe(
    session: Session,
    digests: str | Sequence[str],
    address: str | Address,
    *,
    now: datetime,
    source: str,
    language: str | None = None,
    timezone: str | None = None,
    format: Format = Format.HTML,
    detail: Mapping[str, Any] | None = None,
) -> Requested:
    """Note that somebody who claims to be *address* wants *digests*; at most one mail asks them to confirm.

    A stranger may ask in anybody's name: nothing of an existing reader changes but what waits for their own word,
    and one address gets one confirmation in 24 hours and three until it confirms. A suppressed address leaves no row.
    """
    rows = _digests(session, [digests] if isinstance(digests, str) else digests)
    address = parse_address(address) if isinstance(address, str) else address
    if suppression(session, address.key) not in (None, SuppressionReason.ERASED):
        return Requested((), mailed=False)
    reader = _reader(session, address, now, language, timezone)
    asked = [_ask(session, reader, digest, format, now, source, detail or {}) for digest in rows]
    waiting = [s for s in asked if s.status == SubscriptionStatus.PENDING]
    mailed = bool(waiting) and _queue_confirmation(session, waiting[0], now)
    return Requested(tuple(s.id for s in asked), mailed)


def _ask(
    session: Session,
    reader: Subscriber,
    digest: Digest,
    format: Format,
    now: datetime,
    source: str,
    detail: Mapping[str, Any],
) -> Subscription:
    row, made = _subscription(session, reader, digest, format, now)
    if not made and row.status not in _REOPENED:
        return row
    row.status = SubscriptionStatus.PENDING
    _consent(session, row, "requested", source, now, detail)
    return row


def _queue_confirmation(session: Session, subscription: Subscription, now: datetime) -> bool:
    """Write the mail that asks, unless one went out within 24 hours or three did since the reader last confirmed.

    Its ``request`` counts: requests that race for one place collide on the unique key.
    """
    reader = subscription.subscriber_id
    agreed = (ConsentEvent.subscriber_id == reader) & ConsentEvent.kind.in_(("confirmed", "imported"))
    rounds, last = session.execute(select(func.count(), func.max(ConsentEvent.at)).where(agreed)).one()
    mails = select(func.count(), func.max(SystemMail.created_at)).where(
        SystemMail.kind == "confirm", SystemMail.subscriber_id == reader
    )
    count, newest = session.execute(mails.where(SystemMail.created_at > last) if last else mails).one()
    if count >= CONFIRMATIONS_EVER or (newest and newest > now - CONFIRMATION_EVERY):
        return False
    row = {
        "kind": "confirm", "subscriber_id": reader, "request": f"{rounds}.{count + 1}", "not_before": now,
        "params": {"subscription_id": subscription.id}, "text": "", "attempts": 0, "created_at": now,
    }  # fmt: skip
    insert_new(session, SystemMail, [row])
    return True


# ----------------------------------------------------------------------------- confirm, leave


def invitation(session: Session, subscription_id: int) -> Invitation | None:
    """What the holder of a confirmation link is asked; None: there is no such request any more."""
    asked = find(session, subscription_id)
    if asked is None:
        return None
    whole = preferences(session, asked.subscriber_id)
    assert whole is not None
    pending = tuple(s for s in whole.subscriptions if s.status == SubscriptionStatus.PENDING)
    return Invitation(whole.subscriber_id, whole.address, asked, pending)


def confirm(
    session: Session,
    subscription_id: int,
    *,
    now: datetime,
    source: str = "link",
    detail: Mapping[str, Any] | None = None,
) -> Standing | None:
    """The reader's own word: a pending subscription becomes active. Any other stays as it is; None: unknown."""
    row = _locked(session, subscription_id)
    if row is None:
        return None
    if row.status == SubscriptionStatus.PENDING:
        _activate(session, row, now)
        _consent(session, row, "confirmed", source, now, detail or {})
        lift_erased(session, session.scalars(select(Subscriber.address_key).filter_by(id=row.subscriber_id)).one())
        session.flush()
    return find(session, subscription_id)


def unsubscribe(
    session: Session, subscription_id: int, *, now: datetime, source: str, detail: Mapping[str, Any] | None = None
) -> Standing | None:
    """End a subscription at once, whatever its state; again is the same as once. None: unknown."""
    row = _locked(session, subscription_id)
    if row is None:
        return None
    if row.status != SubscriptionStatus.UNSUBSCRIBED:
        row.status, row.ended_at = SubscriptionStatus.UNSUBSCRIBED, now
        _consent(session, row, "unsubscribed", source, now, detail or {})
        session.flush()
    return find(session, subscription_id)


def leave_all(session: Session, subscriber_id: int, *, now: datetime, source: str) -> int:
    """End every subscription of a reader: a complaint means all of them. Returns how many it ended."""
    ids = session.scalars(
        select(Subscription.id).filter_by(subscriber_id=subscriber_id).order_by(Subscription.id)
    ).all()
    before = [s for i in ids if (s := find(session, i)) and s.status is not SubscriptionStatus.UNSUBSCRIBED]
    for standing in before:
        unsubscribe(session, standing.id, now=now, source=source)
    return len(before)


def suspend(session: Session, subscriber_id: int, *, now: datetime, source: str) -> int:
    """Stop writing to a reader whose address fails: active subscriptions wait until they subscribe again.

    Returns how many it stopped.
    """
    session.execute(select(Subscriber.id).filter_by(id=subscriber_id).with_for_update())
    rows = session.scalars(
        select(Subscription).filter_by(subscriber_id=subscriber_id, status=SubscriptionStatus.ACTIVE)
    ).all()
    for row in rows:
        row.status, row.ended_at = SubscriptionStatus.SUSPENDED, now
        _consent(session, row, "suspended", source, now, {})
    session.flush()
    return len(rows)


def resubscribe(session: Session, subscription_id: int, *, now: datetime, source: str) -> Standing | None:
    """The reader takes leaving back, by a link of their own. One who never confirmed has nothing to go back to."""
    row = _locked(session, subscription_id)
    if row is None:
        return None
    if row.status == SubscriptionStatus.UNSUBSCRIBED and row.confirmed_at is not None:
        since = row.confirmed_at
        _activate(session, row, now)
        row.confirmed_at = since
        _consent(session, row, "resubscribed", source, now, {})
        session.flush()
    return find(session, subscription_id)


def forget_unconfirmed(session: Session, before: datetime) -> int:
    """Erase readers who were asked to confirm, last before *before*, and never have. Returns their number.

    Imported ones who were not asked yet stay: nothing was promised to them.
    """
    asked = select(SystemMail.id).where(SystemMail.kind == "confirm", SystemMail.subscriber_id == Subscriber.id)
    agreed = select(ConsentEvent.id).where(
        ConsentEvent.subscriber_id == Subscriber.id, ConsentEvent.kind.in_(("confirmed", "imported"))
    )
    gone = session.execute(
        delete(Subscriber).where(
            asked.exists(), ~asked.where(SystemMail.created_at >= before).exists(), ~agreed.exists()
        ).returning(Subscriber.id)
    )  # fmt: skip
    return len(gone.all())


def add(
    session: Session,
    address: str | Address,
    digests: Sequence[str],
    *,
    confirmed: bool,
    now: datetime,
    source: str = "admin",
    language: str | None = None,
    timezone: str | None = None,
    format: Format = Format.HTML,
) -> dict[str, Any]:
    """Put a reader on *digests* by hand; no mail. ``confirmed``: somebody vouches for their consent.

    One who has unsubscribed is not brought back this way: UsageError. Returns what `show` does.
    """
    rows = _digests(session, digests)
    address = parse_address(address) if isinstance(address, str) else address
    if reason := suppression(session, address.key):
        raise UsageError(f"{address.given} is suppressed ({reason}); nothing was added")
    reader = _reader(session, address, now, language, timezone)
    for digest in rows:
        row, _ = _subscription(session, reader, digest, format, now)
        if row.status in _REOPENED:
            raise UsageError(
                f"{address.given} is {row.status} from {digest.slug}; only the reader can come back, by subscribing"
            )
        if confirmed and row.status == SubscriptionStatus.PENDING:
            _activate(session, row, now)
            _consent(session, row, "imported", source, now, {})
    session.flush()
    return show(session, address)


# ----------------------------------------------------------------------------- look up


def _standings() -> Any:
    # ''-zoned clocks run in their schedule's zone; "subscriber" ones in the reader's
    return (
        select(Subscription, Digest.slug, Digest.name, Schedule.cron, Schedule.timezone)
        .join(Digest, Digest.id == Subscription.digest_id)
        .outerjoin(Schedule, Schedule.id == Subscription.schedule_id)
        .order_by(Digest.rank, Digest.id)
    )


def _standing(row: Any) -> Standing:
    s, slug, name, cron, zone = row
    since = s.confirmed_at or s.created_at
    status = SubscriptionStatus(s.status)
    return Standing(
        s.id,
        s.subscriber_id,
        slug,
        name,
        status,
        Dress.of(s.dress),
        cron,
        s.zone or zone or "",
        since,
        s.confirmed_at is not None,
    )


def find(session: Session, subscription_id: int) -> Standing | None:
    row = session.execute(_standings().where(Subscription.id == subscription_id)).one_or_none()
    return _standing(row) if row else None


def preferences(session: Session, subscriber_id: int) -> Preferences | None:
    """All that a reader takes or took; None: unknown."""
    reader = session.get(Subscriber, subscriber_id)
    if reader is None:
        return None
    rows = session.execute(_standings().where(Subscription.subscriber_id == subscriber_id)).all()
    return Preferences(reader.id, reader.address, tuple(map(_standing, rows)))


def reader_id(session: Session, address: Address) -> int | None:
    """The subscriber of an address; None: there is none."""
    return session.scalar(select(Subscriber.id).filter_by(address_key=address.key))


def given_address(session: Session, address: Address) -> str:
    """The address as its reader gave it, else as it was given now."""
    return session.scalar(select(Subscriber.address).filter_by(address_key=address.key)) or address.given


def offers(session: Session) -> list[Offer]:
    """The digests that take readers, in the site's order."""
    digests = session.scalars(
        select(Digest).where(Digest.status == DigestStatus.ACTIVE).order_by(Digest.rank, Digest.id)
    ).all()
    schedules = session.scalars(select(Schedule).order_by(Schedule.id)).all()
    return [
        Offer(d.slug, d.name, tuple((s.cron, s.timezone) for s in schedules if s.digest_id == d.id)) for d in digests
    ]


def show(session: Session, address: str | Address) -> dict[str, Any]:
    """All that is held of one address, as plain data; UsageError: nothing is."""
    address = parse_address(address) if isinstance(address, str) else address
    reader = session.scalars(select(Subscriber).filter_by(address_key=address.key)).one_or_none()
    reason = suppression(session, address.key)
    if reader is None:
        if reason:
            return {"email": address.given, "suppressed": reason, "timezone": None, "language": None,
                    "created_at": None, "subscriptions": [], "consent": []}  # fmt: skip
        raise UsageError(f"there is no subscriber {address.given}")
    whole = preferences(session, reader.id)
    assert whole is not None
    return {
        "email": reader.address,
        "suppressed": reason,
        "timezone": reader.timezone,
        "language": reader.language,
        "created_at": reader.created_at,
        "subscriptions": [_as_data(s) for s in whole.subscriptions],
        "consent": _consent_of(session, reader.id),
    }


def _as_data(s: Standing) -> dict[str, Any]:
    return {
        "digest": s.digest_slug, "status": s.status.value, "cadence": s.cron, "zone": s.zone,
        "language": s.dress.language, "format": s.dress.format.name.lower(), "since": s.since,
    }  # fmt: skip


def _consent_of(session: Session, subscriber_id: int) -> list[dict[str, Any]]:
    events = session.execute(
        select(ConsentEvent, Digest.slug)
        .outerjoin(Digest, Digest.id == ConsentEvent.digest_id)
        .where(ConsentEvent.subscriber_id == subscriber_id)
        .order_by(ConsentEvent.id)
    )
    return [{"at": e.at, "kind": e.kind, "digest": slug, "source": e.source, "detail": e.detail} for e, slug in events]


# ----------------------------------------------------------------------------- rows


def _digests(session: Session, slugs: Sequence[str]) -> list[Digest]:
    found = {d.slug: d for d in session.scalars(select(Digest).where(Digest.slug.in_(slugs)))}
    for slug in slugs:
        if slug not in found:
            raise UsageError(unknown_digest(slug, session.scalars(select(Digest.slug))))
    return [found[slug] for slug in dict.fromkeys(slugs)]


def unknown_digest(slug: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(slug, list(known), 1)
    hint = f"did you mean {near[0]!r}?" if near else "`digests list` shows those there are"
    return f"there is no digest {slug!r}; {hint}"


def _reader(
    session: Session, address: Address, now: datetime, language: str | None, timezone: str | None
) -> Subscriber:
    """The subscriber of an address, made if need be, locked. What is known of one is not changed here."""
    row = {"address": address.given, "address_key": address.key, "timezone": timezone, "language": language}
    insert_new(session, Subscriber, [{**row, "created_at": now}])
    return session.scalars(select(Subscriber).filter_by(address_key=address.key).with_for_update()).one()


def _locked(session: Session, subscription_id: int) -> Subscription | None:
    owner = session.scalar(select(Subscription.subscriber_id).filter_by(id=subscription_id))
    session.execute(select(Subscriber.id).filter_by(id=owner).with_for_update())
    return session.get(Subscription, subscription_id, populate_existing=True)


def _subscription(
    session: Session, reader: Subscriber, digest: Digest, format: Format, now: datetime
) -> tuple[Subscription, bool]:
    """The subscription of a (locked) reader to a digest, and whether it was made here, pending."""
    row = session.scalars(select(Subscription).filter_by(digest_id=digest.id, subscriber_id=reader.id)).one_or_none()
    if row is not None:
        return row, False
    home = publication(session)
    schedule = first_schedule(session, digest.id)
    row = Subscription(
        digest_id=digest.id,
        subscriber_id=reader.id,
        schedule_id=schedule.id if schedule else None,
        zone=zone_of(schedule.timezone if schedule else "", reader.timezone, home.timezone),
        taste_id=ensure_taste(session, ()),
        dress=dress_code(reader.language or home.language, format),
        status=SubscriptionStatus.PENDING,
        created_at=now,
    )
    session.add(row)
    session.flush()
    return row, True


def _activate(session: Session, row: Subscription, now: datetime) -> None:
    row.status, row.confirmed_at, row.ended_at = SubscriptionStatus.ACTIVE, now, None
    ensure_clocks(session, row.schedule_id, {row.zone})


def _consent(
    session: Session, row: Subscription, kind: str, source: str, now: datetime, detail: Mapping[str, Any]
) -> None:
    event = {"subscriber_id": row.subscriber_id, "digest_id": row.digest_id, "kind": kind}
    session.add(ConsentEvent(**event, source=source, detail=dict(detail), at=now))


def publication(session: Session) -> Publication:
    """The publication row; its defaults where nobody has set it up yet."""
    return session.get(Publication, 1) or Publication(id=1, name="", timezone="UTC", language="en")


def first_schedule(session: Session, digest_id: int) -> Schedule | None:
    return session.scalars(select(Schedule).filter_by(digest_id=digest_id).order_by(Schedule.id).limit(1)).first()


def zone_of(schedule_zone: str, own: str | None, home: str) -> str:
    """The zone of a reader's clock: their own where the schedule says so, else '' for the schedule's."""
    return (own or home) if schedule_zone == "subscriber" else ""


def ensure_clocks(session: Session, schedule_id: int | None, zones: Iterable[str]) -> None:
    """A clock for each reader's zone that has none yet. A schedule's one fixed clock is made with the schedule."""
    if schedule_id is not None:
        rows = [{"schedule_id": schedule_id, "zone": z, "next_run_at": None} for z in sorted(zones) if z]
        insert_new(session, ScheduleClock, rows)


def dress_code(language: str | None, format: Format) -> int:
    """The dress of a reader; a language that mails do not speak falls back to the first one."""
    return Dress.speaking((language or "").replace("_", "-"), format).code


def ensure_taste(session: Session, topic_ids: Iterable[int]) -> int:
    """The id of the taste of exactly these topics; none = everything a digest has."""
    key = ",".join(map(str, sorted(set(topic_ids))))
    taste_id = session.scalar(select(Taste.id).filter_by(key=key))
    if taste_id is None:
        insert_new(session, Taste, [{"key": key}])
        taste_id = session.scalars(select(Taste.id).filter_by(key=key)).one()
    return taste_id
