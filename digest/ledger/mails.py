"""System mails (confirmations and the like) that wait to be sent, and the mails that the capture server caught."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.header import decode_header, make_header
from email.parser import BytesHeaderParser
from typing import Any

from sqlalchemy import ColumnElement, exists, insert, or_, select, update
from sqlalchemy.orm import Session

from digest.db import clock
from digest.models import CapturedMail, Subscriber, SystemMail
from digest.types import CaughtMail, Outcome, Result

#: A confirmation that could not be handed over in this many tries is given up.
SYSTEM_TRIES = 8


@dataclass(frozen=True, slots=True)
class WaitingMail:
    id: int
    kind: str
    address: str
    subscriber_id: int
    language: str | None
    params: dict[str, Any]
    attempts: int


def leaseholders(session: Session) -> Sequence[str]:
    """Workers with a lease on a mail that waits."""
    waiting = SystemMail.outcome.is_(None), SystemMail.worker.is_not(None)
    return [w for w in session.scalars(select(SystemMail.worker).where(*waiting).distinct()) if w]


def claim_system_mails(
    session: Session, *, worker: str, lease: timedelta, gone: Collection[str] = (), impatient: bool = False,
    limit: int = 50,
) -> list[WaitingMail]:  # fmt: skip
    """Lease mails that are due; *impatient*: those that were deferred too."""
    now = clock(session)
    query = (
        select(SystemMail, Subscriber.address, Subscriber.language)
        .join(Subscriber, Subscriber.id == SystemMail.subscriber_id)
        .where(SystemMail.outcome.is_(None), _nobodys(now, gone))
        .order_by(SystemMail.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=SystemMail)
    )
    if not impatient:
        query = query.where(SystemMail.not_before <= now)
    claimed = []
    for mail, address, language in session.execute(query).all():
        mail.worker, mail.leased_until, mail.attempts = worker, now + lease, mail.attempts + 1
        claimed.append(
            WaitingMail(mail.id, mail.kind, address, mail.subscriber_id, language, dict(mail.params), mail.attempts)
        )
    return claimed


def _nobodys(now: datetime, gone: Collection[str]) -> ColumnElement[bool]:
    nobody = or_(SystemMail.leased_until.is_(None), SystemMail.leased_until <= now)
    return or_(nobody, SystemMail.worker.in_(list(gone))) if gone else nobody


def waiting(session: Session, gone: Collection[str] = ()) -> bool:
    """Is a mail due that nobody has leased?"""
    now = clock(session)
    due = exists().where(SystemMail.outcome.is_(None), SystemMail.not_before <= now, _nobodys(now, gone))
    return bool(session.scalar(select(due)))


def record_system_mail(session: Session, mail: WaitingMail, outcome: Outcome, wait: timedelta) -> None:
    """Write what became of one try. A deferred or uncertain one is tried again after *wait*: twice is harmless here."""
    again = outcome.result in (Result.DEFERRED, Result.UNCERTAIN) and mail.attempts < SYSTEM_TRIES
    session.execute(
        update(SystemMail)
        .where(SystemMail.id == mail.id, SystemMail.outcome.is_(None))
        .values(
            outcome=None if again else outcome.result.value,
            text=outcome.text,
            leased_until=None,
            not_before=clock(session) + wait,
        )
    )


def store_captured(session: Session, mails: Sequence[CaughtMail]) -> None:
    """Keep what the capture server caught; called before it answers 250."""
    session.execute(insert(CapturedMail), [_caught(m) for m in mails])


def _caught(mail: CaughtMail) -> dict[str, Any]:
    headers = BytesHeaderParser().parsebytes(mail.message)
    try:
        subject = str(make_header(decode_header(str(headers.get("Subject", "")))))
    except (LookupError, ValueError):  # a charset that does not exist, bytes that do not fit it
        subject = str(headers.get("Subject", ""))
    return {
        "received_at": mail.received_at, "mail_from": mail.mail_from, "rcpt_to": list(mail.rcpt_to),
        "subject": subject, "message_id": str(headers.get("Message-ID", ""))[:300], "size": len(mail.message),
        "message": mail.message,
    }  # fmt: skip


def captured(session: Session, limit: int, before: int | None = None) -> Sequence[CapturedMail]:
    """Caught mails, newest first; *before*: the id of the last one of the page before."""
    query = select(CapturedMail).order_by(CapturedMail.id.desc()).limit(limit)
    return session.scalars(query.where(CapturedMail.id < before) if before is not None else query).all()


def captured_mail(session: Session, mail_id: int) -> CapturedMail | None:
    return session.get(CapturedMail, mail_id)
