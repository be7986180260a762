"""What was heard of mail later: bounces, complaints, wishes to leave; and which requests of hooks were obeyed.

An event never changes an outcome: *accepted* stays accepted, and the bounce stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Text, cast, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from digest.models import Attempt, CapturedMail, DeliveryEvent, HookNonce
from digest.types import Result


def _insert(session: Session) -> Any:
    return postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert


def heard_before(session: Session, fingerprint: str) -> DeliveryEvent | None:
    """The event that the very same report made."""
    return session.scalars(select(DeliveryEvent).filter_by(fingerprint=fingerprint)).one_or_none()


def record(session: Session, values: Mapping[str, Any]) -> bool:
    """Keep an event; False: another process has kept it in the meantime."""
    statement = _insert(session)(DeliveryEvent).values(**values).on_conflict_do_nothing().returning(DeliveryEvent.id)
    return session.execute(statement).scalar_one_or_none() is not None


def events_of(session: Session, subscriber_id: int, edition_id: int | None = None) -> Sequence[DeliveryEvent]:
    """What was heard of a reader's mail, oldest first; *edition_id*: of that edition's alone."""
    query = select(DeliveryEvent).filter_by(subscriber_id=subscriber_id).order_by(DeliveryEvent.id)
    return session.scalars(query if edition_id is None else query.filter_by(edition_id=edition_id)).all()


def listed(session: Session, *, kind: str | None, limit: int | None) -> list[DeliveryEvent]:
    """Everything that was heard, oldest first; with a limit the newest."""
    query = select(DeliveryEvent) if kind is None else select(DeliveryEvent).filter_by(kind=kind)
    if limit is None:
        return list(session.scalars(query.order_by(DeliveryEvent.id)))
    return list(session.scalars(query.order_by(DeliveryEvent.id.desc()).limit(limit)))[::-1]


@dataclass(frozen=True, slots=True)
class Failure:
    """A bounce, by its report. ``edition`` None: of a mail of no edition."""

    edition: int | None
    status: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Sent:
    """What the relay said in the end to an edition's mail to a reader."""

    edition: int
    accepted: bool
    status: str | None
    at: datetime


def recent(session: Session, subscriber_id: int, since: datetime) -> tuple[list[Failure], list[Sent]]:
    """A reader's bounces, and what the relay took or refused for good, since then."""
    e, a = DeliveryEvent, Attempt
    bounces = session.execute(
        select(e.edition_id, e.status, e.at).where(e.subscriber_id == subscriber_id, e.kind == "bounce", e.at > since)
    )
    sent = session.execute(
        select(a.edition_id, a.outcome, a.enhanced, a.at).where(
            a.subscriber_id == subscriber_id, a.at > since, a.outcome.in_((Result.ACCEPTED, Result.REJECTED))
        )
    )
    return (
        [Failure(*row) for row in bounces],
        [Sent(edition, outcome == Result.ACCEPTED, status, at) for edition, outcome, status, at in sent],
    )


def settle(session: Session, fingerprint: str, action: str, reason: str) -> None:
    """What a report led to, once that is known."""
    session.execute(
        update(DeliveryEvent).where(DeliveryEvent.fingerprint == fingerprint).values(action=action, reason=reason)
    )


def forget(session: Session, subscriber_id: int | None, address: str) -> None:
    """Erasure: rows stay as counts, the address in them does not; mails that the capture server caught for it go."""
    event, caught = DeliveryEvent, CapturedMail
    theirs = or_(func.lower(event.email) == address.lower(), event.subscriber_id == subscriber_id)
    session.execute(update(event).where(theirs).values(email=None, text=""))
    session.execute(update(Attempt).where(Attempt.subscriber_id == subscriber_id).values(address="", text=""))
    named = cast(caught.rcpt_to, Text).contains(json.dumps(address), autoescape=True)
    session.execute(delete(caught).where(named))


# ----------------------------------------------------------------------------- hooks


def first_time(session: Session, nonce: str, now: datetime, window: timedelta) -> bool:
    """Whether this request has not been obeyed before. Those too old to be fresh are forgotten on the way."""
    session.execute(delete(HookNonce).where(HookNonce.seen_at < now - window))
    statement = _insert(session)(HookNonce).values(nonce=nonce, seen_at=now)
    return (
        session.execute(statement.on_conflict_do_nothing().returning(HookNonce.nonce)).scalar_one_or_none() is not None
    )
