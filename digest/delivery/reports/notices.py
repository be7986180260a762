"""Reports as JSON: Amazon SES, SendGrid's events, and our own plain form. Pure; whether to believe them is the door's.

The plain form is one object, or a list of them: ``{"kind": "bounce", "email": …, "status": "5.1.1", "text": …}``, with
kind bounce, complaint or unsubscribe, and ``sender`` for the envelope sender of the mail, where it is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from digest.delivery.classify import one_line, status_of
from digest.delivery.reports.report import Report, ReportKind

#: More in one request is refused: a hook that reports a million is not a hook.
MOST = 1000
_KINDS = {
    "bounce": ReportKind.BOUNCE, "dropped": ReportKind.BOUNCE, "blocked": ReportKind.BOUNCE,
    "deferred": ReportKind.DELAYED, "delayed": ReportKind.DELAYED,
    "complaint": ReportKind.COMPLAINT, "spamreport": ReportKind.COMPLAINT,
    "unsubscribe": ReportKind.UNSUBSCRIBE, "group_unsubscribe": ReportKind.UNSUBSCRIBE,
    "delivered": ReportKind.DELIVERED, "delivery": ReportKind.DELIVERED, "processed": ReportKind.DELIVERED,
    "open": ReportKind.DELIVERED, "click": ReportKind.DELIVERED,
}  # fmt: skip
#: SES says of a bounce without status what it was in words of its own.
_SES_STATUS = {
    ("Permanent", "NoEmail"): "5.1.1", ("Permanent", "General"): "5.1.1", ("Permanent", "Suppressed"): "5.1.1",
    ("Permanent", "OnAccountSuppressionList"): "5.1.1", ("Transient", "MailboxFull"): "4.2.2",
    ("Transient", "MessageTooLarge"): "5.3.4", ("Transient", "ContentRejected"): "5.6.0",
    ("Transient", "AttachmentRejected"): "5.6.0", ("Transient", "General"): "4.0.0",
}  # fmt: skip


def read_notices(octets: bytes | str) -> list[Report]:
    """The reports in a body of JSON; [] where it is none of the forms that are known."""
    data = _first_value(octets)
    if isinstance(data, dict) and data.get("Type") == "Notification" and isinstance(data.get("Message"), str):
        data = _first_value(data["Message"])  # SNS wraps it (the signature is the hook's to check)
    rows = data if isinstance(data, list) else [data]
    found: list[Report] = []
    for row in rows[:MOST]:
        if isinstance(row, dict):
            found += _ses(row) if _is_ses(row) else _plain(row)
    return found


def _first_value(octets: bytes | str) -> Any:
    text = octets.decode("utf-8", "replace") if isinstance(octets, bytes) else octets
    try:
        return json.JSONDecoder().raw_decode(text.lstrip())[0]
    except (ValueError, RecursionError):
        return None


# ----------------------------------------------------------------------------- plain, SendGrid


def _plain(row: Mapping[str, Any]) -> list[Report]:
    kind = _KINDS.get(_text(row, "kind") or _text(row, "event"))
    if kind is None and "status" in row and "reason" in row:
        kind = ReportKind.BOUNCE  # as SendGrid lists its bounces
    email = _text(row, "email")
    if kind is None or "@" not in email:
        return []
    said = one_line(_text(row, "text") or _text(row, "reason"))
    status = status_of(_text(row, "status"), said)
    traces = (sender,) if (sender := _text(row, "sender")) else ()
    return [Report(kind, email, status, said, traces=traces)]


# ----------------------------------------------------------------------------- SES


def _is_ses(row: Mapping[str, Any]) -> bool:
    return ("notificationType" in row or "eventType" in row or "bounce" in row or "complaint" in row) and "mail" in row


def _ses(row: Mapping[str, Any]) -> list[Report]:
    """One report a recipient."""
    kind = (_text(row, "notificationType") or _text(row, "eventType")).lower()
    traces = _ses_traces(_object(row, "mail"))
    if kind == "bounce":
        return _ses_bounces(_object(row, "bounce"), traces)
    if kind == "complaint":
        complaint = _object(row, "complaint")
        said = one_line(f"feedback: {_text(complaint, 'complaintFeedbackType') or 'of no type'}")
        if _text(complaint, "complaintFeedbackType") in ("not-spam", "auth-failure"):
            return []
        return [Report(ReportKind.COMPLAINT, email, text=said, traces=traces)
                for email in _emails(complaint, "complainedRecipients")]  # fmt: skip
    if kind in ("delivery", "send", "open", "click"):
        to = _object(row, "mail").get("destination")
        first = next((a for a in to if isinstance(a, str)), None) if isinstance(to, list) else None
        return [Report(ReportKind.DELIVERED, first, text=kind, traces=traces)]
    return []


def _ses_bounces(bounce: Mapping[str, Any], traces: tuple[str, ...]) -> list[Report]:
    words = _text(bounce, "bounceType"), _text(bounce, "bounceSubType")
    found: list[Report] = []
    for recipient in _objects(bounce, "bouncedRecipients"):
        email, said = _text(recipient, "emailAddress"), one_line(_text(recipient, "diagnosticCode"))
        if words == ("Transient", "General") and not said and not _text(recipient, "status"):
            found.append(
                Report(ReportKind.AUTO_REPLY, email or None, text=" ".join(words), traces=traces)
            )  # out of office
            continue
        status = status_of(_text(recipient, "status"), said) or _SES_STATUS.get(words)
        if words[0] != "Permanent" and status is not None and status.startswith("5.1."):
            status = "4" + status[1:]  # SES itself does not call it final
        found.append(Report(ReportKind.BOUNCE, email or None, status, said or " ".join(words), traces=traces))
    return found


def _ses_traces(mail: Mapping[str, Any]) -> tuple[str, ...]:
    source = _text(mail, "source")
    headers = [_text(h, "value") for h in _objects(mail, "headers") if _text(h, "name").lower() == "return-path"]
    return tuple(a.strip("<> ") for a in (source, *headers) if "@" in a)


def _emails(row: Mapping[str, Any], key: str) -> list[str]:
    return [email for recipient in _objects(row, key) if "@" in (email := _text(recipient, "emailAddress"))]


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return value[:2000] if isinstance(value, str) else ""


def _object(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = row.get(key)
    return value if isinstance(value, dict) else {}


def _objects(row: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    value = row.get(key)
    return [v for v in value[:MOST] if isinstance(v, dict)] if isinstance(value, list) else []
