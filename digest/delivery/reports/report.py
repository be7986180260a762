"""What a report says, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ReportKind(StrEnum):
    BOUNCE = "bounce"  # it did not arrive
    DELAYED = "delayed"  # it has not arrived yet; the server goes on trying
    COMPLAINT = "complaint"  # its reader called it spam
    UNSUBSCRIBE = "unsubscribe"  # its reader wants no more
    DELIVERED = "delivered"  # it arrived, or was opened: nobody asked
    AUTO_REPLY = "auto_reply"  # somebody is out of office
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Report:
    """One report, unproven. ``status`` is enhanced (RFC 3463), ``text`` one printable line of at most 500 characters.

    ``to``: whom the report itself was delivered to; ``traces``: addresses from the places where the envelope sender of
    the mail in question may stand; ``links``: what its List-Unsubscribe held. ``problem``: why it could not be read as
    it should, or says nothing.
    """

    kind: ReportKind
    email: str | None = None
    status: str | None = None
    text: str = ""
    to: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    problem: str = ""
