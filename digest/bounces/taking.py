"""One report: whose mail is it about, and what follows. One transaction, one row, whatever comes in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import audience, ledger
from digest.audience import Keys, Tokens
from digest.bounces.heeding import Action, fail
from digest.delivery.classify import Weight, weigh
from digest.delivery.message import parse_leaving_address, parse_verp
from digest.delivery.reports import Report, ReportKind
from digest.errors import TokenInvalid, UsageError
from digest.models import DeliveryEvent, Subscriber, Subscription
from digest.types import SuppressionReason


class Trust(StrEnum):
    """What a report must prove by itself."""

    NOBODY = "nobody"  # anybody may have written it: an envelope sender of ours in it is the proof
    SIGNED = "signed"  # whoever signed the request answers for the addresses in it


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a report; the keys of `digest bounce --json`."""

    kind: str
    email: str | None
    status: str | None
    action: str
    reason: str | None
    edition: int | None


@dataclass(frozen=True, slots=True)
class _Proof:
    """Whose mail it is about. ``by_envelope``: proven by what only servers on its way have seen."""

    subscriber_id: int
    edition_id: int | None = None
    by_envelope: bool = True


@dataclass(frozen=True, slots=True)
class _Verdict:
    action: Action
    reason: str = ""


def take(
    session: Session, report: Report, *, fingerprint: str, source: str, keys: Keys, domain: str, now: datetime,
    trust: Trust = Trust.NOBODY,
) -> Taken:  # fmt: skip
    """Let a report have its effect, once however often it comes.

    ``source``: the door it came by (pipe, imap, pop, hook, ses). ``domain``: of our envelope senders.
    """
    if (known := ledger.events.heard_before(session, fingerprint)) is not None:
        return _again(known)
    leaving = _leaving(session, report, keys, domain)
    proof = _Proof(leaving.subscriber_id) if leaving else _prove(session, report, keys, domain, trust)
    kind = ReportKind.UNSUBSCRIBE if leaving else report.kind
    email, edition = report.email or _address(session, proof), proof.edition_id if proof else None
    # recorded first: it is itself one of the bounces that are counted, and of two processes one goes on
    values = {
        "fingerprint": fingerprint, "kind": kind.value, "edition_id": edition,
        "subscriber_id": proof.subscriber_id if proof else None, "email": email and email[:320],
        "status": report.status, "text": report.text, "action": Action.NONE.value, "reason": report.problem,
        "source": source, "at": now,
    }  # fmt: skip
    if not ledger.events.record(session, values):
        return Taken(kind.value, email, report.status, Action.NONE.value, "it is being read elsewhere", edition)
    if leaving is not None:
        audience.unsubscribe(session, leaving.id, now=now, source="mail")
        verdict = _Verdict(Action.UNSUBSCRIBED)
    else:
        verdict = _follow(session, report, proof, trust, now)
    reason = "; ".join(filter(None, (verdict.reason, report.problem)))
    ledger.events.settle(session, fingerprint, verdict.action.value, reason)
    return Taken(kind.value, email, report.status, verdict.action.value, reason or None, edition)


def _address(session: Session, proof: _Proof | None) -> str | None:
    return session.scalar(select(Subscriber.address).filter_by(id=proof.subscriber_id)) if proof else None


def _again(known: DeliveryEvent) -> Taken:
    reason = f"it was read before, on {known.at:%Y-%m-%d}, and led to: {known.action}"
    return Taken(known.kind, known.email, known.status, Action.NONE.value, reason, known.edition_id)


# ----------------------------------------------------------------------------- proof


def _prove(session: Session, report: Report, keys: Keys, domain: str, trust: Trust) -> _Proof | None:
    for address in (*report.to, *report.traces):
        if (delivery := parse_verp(address, keys.message_id, domain)) is not None:
            edition, subscriber = delivery
            return _Proof(subscriber, edition or None)
    if trust is Trust.SIGNED and report.email is not None:
        return _named(session, report.email)
    return _linked(session, report, keys) if report.kind is ReportKind.COMPLAINT else None


def _named(session: Session, email: str) -> _Proof | None:
    try:
        subscriber = audience.reader_id(session, audience.parse_address(email))
    except UsageError:
        return None
    return _Proof(subscriber) if subscriber is not None else None


def _linked(session: Session, report: Report, keys: Keys) -> _Proof | None:
    """A mail that is passed on carries its links along: they prove enough to leave, not to be shut out."""
    for subscription_id in _tokens(report, keys):
        subscription = session.get(Subscription, subscription_id)
        if subscription is not None:
            return _Proof(subscription.subscriber_id, by_envelope=False)
    return None


def _tokens(report: Report, keys: Keys) -> Iterator[int]:
    tokens = Tokens(keys.token)
    for link in report.links:
        token = urlsplit(link).path.rpartition("/unsubscribe/")[2]
        try:
            yield tokens.read("unsubscribe", token)[0]
        except TokenInvalid:
            continue


def _leaving(session: Session, report: Report, keys: Keys, domain: str) -> Subscription | None:
    """The subscription that a mail to its leaving address ends. A bounce or a robot's reply to it ends nothing."""
    if report.kind not in (ReportKind.UNKNOWN, ReportKind.UNSUBSCRIBE):
        return None
    for address in report.to:
        if (subscription_id := parse_leaving_address(address, keys.message_id, domain)) is not None:
            return session.get(Subscription, subscription_id)
    return None


# ----------------------------------------------------------------------------- what follows


def _follow(session: Session, report: Report, proof: _Proof | None, trust: Trust, now: datetime) -> _Verdict:
    if report.kind in (ReportKind.AUTO_REPLY, ReportKind.DELIVERED, ReportKind.DELAYED, ReportKind.UNKNOWN):
        return _Verdict(Action.NONE, _NOTHING[report.kind])
    if proof is None:
        return _unproven(session, report, trust, now)
    if report.kind is ReportKind.COMPLAINT:
        return _complained(session, proof, report, now)
    if report.kind is ReportKind.UNSUBSCRIBE:
        if trust is not Trust.SIGNED:
            return _Verdict(Action.NONE, "it was not sent to an address that unsubscribes")
        audience.leave_all(session, proof.subscriber_id, now=now, source="hook")
        return _Verdict(Action.UNSUBSCRIBED)
    if weigh(report.status) is Weight.OURS:
        return _Verdict(Action.NONE, f"{report.status} is about us or this mail, not about the address")
    return _Verdict(fail(session, proof.subscriber_id, report.status, report.text, now))


_NOTHING = {
    ReportKind.AUTO_REPLY: "somebody is out of office",
    ReportKind.DELIVERED: "it says that mail arrived",
    ReportKind.DELAYED: "the server is still trying",
    ReportKind.UNKNOWN: "",
}


def _complained(session: Session, proof: _Proof, report: Report, now: datetime) -> _Verdict:
    audience.leave_all(session, proof.subscriber_id, now=now, source="complaint")
    if not proof.by_envelope:
        return _Verdict(Action.UNSUBSCRIBED, "proven by a link of the mail alone, so the address is not suppressed")
    key = session.scalar(select(Subscriber.address_key).filter_by(id=proof.subscriber_id))
    if key is not None:
        audience.suppress(session, key, SuppressionReason.COMPLAINT, now, report.text[:500])
    return _Verdict(Action.UNSUBSCRIBED)


def _unproven(session: Session, report: Report, trust: Trust, now: datetime) -> _Verdict:
    """An address that is nobody's here: what a signer says of it is kept for the day it subscribes."""
    if trust is not Trust.SIGNED:
        return _Verdict(Action.NONE, "it does not prove which mail of ours it is about")
    reason = {
        ReportKind.COMPLAINT: SuppressionReason.COMPLAINT, ReportKind.BOUNCE: SuppressionReason.BOUNCE,
    }.get(report.kind)  # fmt: skip
    if reason is None or (reason is SuppressionReason.BOUNCE and weigh(report.status) is not Weight.GONE):
        return _Verdict(Action.NONE, "this address is no reader's")
    try:
        key = audience.parse_address(report.email or "").key
    except UsageError:
        return _Verdict(Action.NONE, "it names no address")
    audience.suppress(session, key, reason, now, f"{report.status or ''} {report.text}".strip()[:500])
    return _Verdict(Action.SUPPRESSED, "this address is no reader's")
