"""Reports by the book: delivery status (RFC 3464), abuse (RFC 5965), receipts (RFC 8098)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from email.message import Message

from digest.delivery.classify import one_line, status_of
from digest.delivery.reports.report import Report, ReportKind

#: The worst thing that a report says of a recipient decides what it is.
_ACTIONS = {
    "failed": ReportKind.BOUNCE,
    "delayed": ReportKind.DELAYED,
    "delivered": ReportKind.DELIVERED,
    "relayed": ReportKind.DELIVERED,
    "expanded": ReportKind.DELIVERED,
}
_WORST = (ReportKind.BOUNCE, ReportKind.DELAYED, ReportKind.DELIVERED)
#: Feedback of other types is about our authentication, or says that mail is no spam (RFC 5965 §7.3, RFC 6591).
_NO_COMPLAINT = ("not-spam", "auth-failure", "dmarc")
_ADDRESS = re.compile(r"[^\s<>;,\"]{1,64}@[^\s<>;,\"]{1,253}")
_FIELD = re.compile(r"(?m)^([A-Za-z][A-Za-z0-9-]{0,60})[ \t]*:[ \t]*((?:.*)(?:\n[ \t]+.+)*)")


def read(message: Message, parts: Sequence[Message], octets: bytes) -> Report | None:
    """The report in one of the parts; None: there is none by any standard."""
    for part in parts:
        kind = part.get_content_type()
        if kind == "message/feedback-report":
            return _feedback(_fields(_flat(part)), parts)
        if kind in ("message/delivery-status", "message/global-delivery-status"):
            found = _delivery_status(part, message)
            if found is not None:
                return found
        if kind in ("message/disposition-notification", "message/global-disposition-notification"):
            return _receipt(_fields(_flat(part)))
    return _complaint_by_header(parts) or _status_in_pieces(message, octets)


# ----------------------------------------------------------------------------- RFC 3464


def _delivery_status(part: Message, message: Message) -> Report | None:
    found = [r for group in _groups(part) if (r := _recipient(group, message)) is not None]
    return min(found, key=lambda r: _WORST.index(r.kind), default=None)


def _status_in_pieces(message: Message, octets: bytes) -> Report | None:
    """A delivery report whose parts cannot be told apart, for want of the boundary it promised."""
    found = re.search(rb"(?mi)^(?:final|original)-recipient[ \t]*:", octets[: 1 << 17])
    if not found or message.is_multipart():
        return None
    text = octets[max(0, found.start() - 200) : found.end() + 4000].decode("utf-8", "replace").replace("\r\n", "\n")
    block = next((b for b in re.split(r"\n[ \t]*\n", text) if re.search(r"(?mi)^final-recipient", b)), "")
    return _recipient(_fields(block), message)


def _groups(part: Message) -> Iterator[Mapping[str, str]]:
    """The fields of each block: of the message first, then of each recipient (RFC 3464 §2.1)."""
    for block in re.split(r"\n[ \t]*\n", _flat(part)):
        if fields := _fields(block):
            yield fields


def _recipient(fields: Mapping[str, str], message: Message) -> Report | None:
    address = fields.get("original-recipient") or fields.get("final-recipient") or fields.get("x-actual-recipient")
    action = re.match(r"[a-z]+", fields.get("action", "").lower())
    if not address and not action:
        return None
    said = fields.get("diagnostic-code", "")
    text = one_line(re.sub(r"^[\w.-]+\s*;\s*", "", said))
    kind = _ACTIONS.get(action[0]) if action else None
    status = status_of(fields.get("status"), text)
    if kind is None:  # Status is a must too (RFC 3464 §2.3.4), and servers leave out either
        kind = ReportKind.DELAYED if (status or "5").startswith("4") else ReportKind.BOUNCE
    if kind is ReportKind.BOUNCE and status is None:
        status = status_of(None, one_line(str(message.get("Subject", ""))))
    return Report(kind, _address(address), status, text)


# ----------------------------------------------------------------------------- RFC 5965


def _feedback(fields: Mapping[str, str], parts: Sequence[Message]) -> Report:
    kind = re.match(r"[\w-]*", fields.get("feedback-type", "").lower())
    name = kind[0] if kind else ""
    text = one_line(f"feedback: {name or 'of no type'}")
    if name in _NO_COMPLAINT:
        return Report(ReportKind.UNKNOWN, text=text, problem=f"feedback of the type {name} is no complaint")
    address = _address(fields.get("original-rcpt-to") or fields.get("removal-recipient"))
    return Report(ReportKind.COMPLAINT, address or _returned_recipient(parts), text=text)


def _returned_recipient(parts: Sequence[Message]) -> str | None:
    """To of the mail that is returned: the last of the inner messages."""
    for part in reversed(parts[1:]):
        if part.get("To") and part.get_content_type() not in ("message/rfc822", "text/rfc822-headers"):
            return _address(str(part.get("To")))
        if part.get_content_type() == "text/rfc822-headers":
            return _address(_fields(_flat(part)).get("to"))
    return None


def _complaint_by_header(parts: Sequence[Message]) -> Report | None:
    """Outlook's junk reports come as the mail itself, with a header that names whose they are."""
    for part in parts:
        if (address := part.get("X-HmXmrOriginalRecipient")) is not None:
            return Report(ReportKind.COMPLAINT, _address(str(address)), text="feedback: junk mail report")
    return None


# ----------------------------------------------------------------------------- RFC 8098


def _receipt(fields: Mapping[str, str]) -> Report:
    disposition = fields.get("disposition", "").lower()
    address = _address(fields.get("original-recipient") or fields.get("final-recipient"))
    # "deleted" without having been shown is a program at work; "failed" is about the receipt, never the mail
    return Report(ReportKind.DELIVERED, address, text=one_line(f"receipt: {disposition}"))


# ----------------------------------------------------------------------------- fields


def _flat(part: Message) -> str:
    """The text of a part that the parser may have taken for messages of its own."""
    payload = part.get_payload()
    if isinstance(payload, list):
        return "\n\n".join(
            "\n".join(f"{name}: {value}" for name, value in inner.items()) + "\n\n" + _body(inner)
            for inner in payload
            if isinstance(inner, Message)
        )
    return _body(part)


def _body(part: Message) -> str:
    payload = part.get_payload(decode=True)
    if isinstance(payload, bytes):
        return payload.decode("utf-8", "replace").replace("\r\n", "\n")
    inner = part.get_payload()
    return inner.replace("\r\n", "\n") if isinstance(inner, str) else ""


def _fields(text: str) -> Mapping[str, str]:
    """Fields of a block by their lower-case names, unfolded; the first of each name stands."""
    found: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        found.setdefault(name.lower(), " ".join(value.split()))
    return found


def _address(value: str | None) -> str | None:
    found = _ADDRESS.search(value or "")
    return found[0].strip("'") if found else None
