"""What follows from a failure: pure decision first, then the audience's tables. Also for refusals while sending."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import audience, ledger
from digest.delivery.classify import SOFT_WITHIN, Weight, gives_up, weigh
from digest.ledger.events import Failure, Sent
from digest.models import Subscriber
from digest.types import Outcome, Result, SuppressionReason

#: How long a server may hold a mail before it reports that it gave up (RFC 5321 §4.5.4.1).
GIVING_UP = timedelta(days=5)


class Action(StrEnum):
    """What a failure or a report led to."""

    SUPPRESSED = "suppressed"  # the address is never written to again
    UNSUBSCRIBED = "unsubscribed"
    SUSPENDED = "suspended"  # the fifth day of bounces
    COUNTED = "counted"  # one more day of bounces
    NONE = "none"


def heed(session: Session, subscriber_id: int, outcome: Outcome, now: datetime) -> None:
    """A refusal by the relay, after its attempt is recorded: the address may be gone, or have failed once too often."""
    if outcome.result is Result.REJECTED and (outcome.code or 0) >= 500:
        fail(session, subscriber_id, outcome.enhanced, outcome.text, now)


def fail(session: Session, subscriber_id: int, status: str | None, text: str, now: datetime) -> Action:
    """Mail to a reader failed for good, and that is recorded: what is done about it."""
    key = session.scalars(select(Subscriber.address_key).filter_by(id=subscriber_id)).one_or_none()
    weight = weigh(status)
    if weight is Weight.OURS or key is None:
        return Action.NONE
    if weight is Weight.GONE:
        audience.suppress(session, key, SuppressionReason.BOUNCE, now, f"{status} {text}"[:500])
        return Action.SUPPRESSED
    bounces, sent = ledger.events.recent(session, subscriber_id, now - SOFT_WITHIN - GIVING_UP)
    if gives_up(days_of_failure(bounces, sent), now.date()):
        audience.suspend(session, subscriber_id, now=now, source="bounces")
        return Action.SUSPENDED
    return Action.COUNTED


def days_of_failure(bounces: Iterable[Failure], sent: Sequence[Sent]) -> set[date]:
    """Days on which mail to a reader failed since the last one that did arrive.

    A delivery has arrived if it was accepted, no bounce of it came, and one of a later delivery did: servers take their
    time to give up, so that what was accepted yesterday proves nothing yet.
    """
    failures: dict[int, list[datetime]] = {}
    when = {s.edition: s.at for s in sent}
    refused = [Failure(s.edition, s.status, s.at) for s in sent if not s.accepted]
    for bounce in (*bounces, *refused):
        if weigh(bounce.status) is not Weight.OURS:
            failures.setdefault(bounce.edition or 0, []).append(bounce.at)
    mailed = {edition: when.get(edition, min(ats)) for edition, ats in failures.items()}
    newest = max(mailed.values(), default=None)
    arrived = [s.at for s in sent if s.accepted and s.edition not in failures and newest and s.at < newest]
    last = max(arrived, default=None)
    return {at.date() for edition, ats in failures.items() if last is None or mailed[edition] > last for at in ats}
