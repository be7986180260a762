"""A mail as bytes: headers, MIME parts, personal values. Also the names that a delivery goes by on the wire.

    MessageFactory(identity)        what all mails of a digest share
      .prepare(rendered variant)    headers and parts joined once          ≈ once a variant
        .build(addressee)           five header lines and a few values     ≈ 15 µs a reader

Headers are written by `digest.mime` alone. The standard library's message classes are kept away from text that other
people wrote: given an encoded word they decode it and write what was inside, line ends included, and they fold a long
List-Unsubscribe into encoded words, which no mailbox provider can click. `digest.delivery.dkim` signs, where it is
handed in. Sends nothing, knows no SQL.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from digest.delivery.dkim import Begun, Signer
from digest.errors import RenderError
from digest.keyed import mac
from digest.mime import (
    CRLF,
    SOFT,
    check_address,
    close,
    header_list_id,
    header_mailbox,
    header_text,
    header_verbatim,
    qp_encode,
    qp_value,
)
from digest.types import PERSONAL_FIELDS, Body, RenderedVariant


@dataclass(frozen=True, slots=True)
class Identity:
    """Who writes: one a digest. ``list_id`` looks like a host (``daily.news.example``); ``list_name`` is for people.

    ``feedback_id``: up to three parts and the sender's own, none of them about one reader.
    """

    from_address: str
    from_name: str = ""
    reply_to: str = ""
    list_id: str = ""
    list_name: str = ""
    archive_url: str = ""
    feedback_id: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Addressee:
    """One reader of one edition. ``message_id`` in angle brackets, ``date`` aware: the real clock of this attempt.

    ``leaving_address``: where mail unsubscribes; "" where nobody reads it.
    """

    address: str
    message_id: str
    unsubscribe_url: str
    preferences_url: str
    date: datetime
    leaving_address: str = ""


# ----------------------------------------------------------------------------- messages


class MessageFactory:
    """Turns rendered variants into messages of one sender. ValueError where the identity itself cannot be written."""

    def __init__(self, identity: Identity, signer: Signer | None = None) -> None:
        check_address(identity.from_address)
        self._signer = signer
        self._from = header_mailbox("From", identity.from_name, identity.from_address)
        self._fixed = b"".join(_fixed_headers(identity))

    def prepare(self, rendered: RenderedVariant) -> Prepared:
        """Join what all readers of this variant share. RenderError where a part would not be safe on the wire."""
        subject = header_text("Subject", rendered.subject)
        pieces, slots = _mime(rendered.text_body, rendered.html_body, seed=subject, above=self._fixed)
        begun = None
        if self._signer is not None:
            headers, _, start = pieces[0].partition(CRLF + CRLF)
            begun = self._signer.begin(self._from + headers, start)
        return Prepared(self._from, subject, pieces, slots, begun)


class Prepared:
    """One variant of one sender, but for its reader. Shared between threads; building changes nothing."""

    __slots__ = ("_after", "_begun", "_first", "_from", "_slots", "_subject")

    def __init__(
        self, sender: bytes, subject: bytes, pieces: list[bytes], slots: list[tuple[str, bool]], begun: Begun | None
    ) -> None:
        self._from, self._subject, self._begun = sender, subject, begun
        self._first, *self._after = pieces
        self._slots = slots

    def build(self, addressee: Addressee) -> list[bytes]:
        """The whole message in parts to be written one after the other: CRLF throughout, no line begins with a dot.

        The same addressee gives the same bytes. ValueError where an address or URL cannot stand in a header.
        """
        personal = _personal_headers(addressee, self._subject)
        parts = [self._from, personal, self._first]
        values: dict[str, bytes] = {}
        for (field, markup), piece in zip(self._slots, self._after, strict=True):
            value: str = getattr(addressee, field)
            if markup:
                value = html.escape(value)
            encoded = values.get(value)
            if encoded is None:
                encoded = values[value] = qp_value(value)
            parts += (encoded, piece)
        if self._begun is not None:
            parts.insert(0, self._begun.sign(personal, parts[3:], addressee.date))
        return parts


def system_message(
    sender: Identity, *, to: str, subject: str, text: str, html_text: str | None, message_id: str, date: datetime,
    signer: Signer | None = None,
) -> bytes:  # fmt: skip
    """A confirmation or the like: to one person, not to a list, and marked as written by a program."""
    check_address(sender.from_address)
    subject_line = header_text("Subject", subject)
    pieces, _ = _mime(_whole(text), None if html_text is None else _whole(html_text), seed=subject_line)
    message = b"".join(
        (
            header_mailbox("From", sender.from_name, sender.from_address),
            *_delivery_headers(to, subject_line, date, message_id),
            *_reply_to(sender),
            header_verbatim("Auto-Submitted", "auto-generated"),  # RFC 3834 §5
            *pieces,
        )
    )
    if signer is None:
        return message
    headers, _, body = message.partition(CRLF + CRLF)
    return signer.begin(headers).sign(b"", [body], date) + message


def _whole(text: str) -> Body:
    return Body((qp_encode(text),), ())


# ----------------------------------------------------------------------------- headers

#: What an RFC 3986 URL may hold that also stands between angle brackets.
_URL = re.compile(r"https?://[!-;=?-~]{1,960}")
_MESSAGE_ID = re.compile(r"<[A-Za-z0-9._+=-]{1,120}@[A-Za-z0-9.-]{1,253}>")


def _fixed_headers(identity: Identity) -> list[bytes]:
    lines = _reply_to(identity)
    if identity.list_id:
        lines.append(header_list_id(identity.list_name, identity.list_id))
    if identity.archive_url:
        lines.append(header_verbatim("List-Archive", f"<{identity.archive_url}>"))
    if identity.feedback_id:
        lines.append(header_verbatim("Feedback-ID", ":".join(identity.feedback_id)))
    lines.append(header_verbatim("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))  # RFC 8058 §3.1
    return lines


def _reply_to(identity: Identity) -> list[bytes]:
    return [header_mailbox("Reply-To", "", check_address(identity.reply_to))] if identity.reply_to else []


def _delivery_headers(to: str, subject: bytes, date: datetime, message_id: str) -> tuple[bytes, ...]:
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError("this Message-ID cannot stand in a header")
    return (
        b"To: %b\r\n" % check_address(to).encode("ascii"),
        subject,
        b"Date: %b\r\nMessage-ID: %b\r\n" % (_date(date.replace(microsecond=0)), message_id.encode("ascii")),
    )


def _personal_headers(addressee: Addressee, subject: bytes) -> bytes:
    url = addressee.unsubscribe_url
    if not _URL.fullmatch(url):
        raise ValueError("this unsubscribe URL cannot stand in a header")
    # RFC 2369 §2, RFC 8058 §3.1: on one line as it is, never folded and never an encoded word
    unsubscribe = b"List-Unsubscribe: <%b>" % url.encode("ascii")
    if addressee.leaving_address:
        check_address(addressee.leaving_address)
        unsubscribe += b", <mailto:%b?subject=unsubscribe>" % addressee.leaving_address.encode("ascii")
    unsubscribe += CRLF
    headers = _delivery_headers(addressee.address, subject, addressee.date, addressee.message_id)
    return b"".join((*headers, unsubscribe))


@lru_cache(maxsize=256)
def _date(date: datetime) -> bytes:
    if date.tzinfo is None:
        raise ValueError("the date of a message needs a zone")
    return format_datetime(date.astimezone(UTC)).encode("ascii")


# ----------------------------------------------------------------------------- MIME


def _mime(
    text: Body, html_body: Body | None, *, seed: bytes, above: bytes = b""
) -> tuple[list[bytes], list[tuple[str, bool]]]:
    """MIME headers and parts as ``pieces[0], slots[0], pieces[1], …``; a slot is (field, inside HTML)."""
    opening = above + b"MIME-Version: 1.0\r\n"
    if html_body is None:
        return _join([(opening + _part_head(b"plain"), text, False)], b"")
    boundary = _boundary(seed, text.segments)
    opening += b'Content-Type: multipart/alternative;\r\n boundary="%b"\r\n\r\n' % boundary
    delimiter = b"--%b\r\n" % boundary
    return _join(
        [
            (opening + delimiter + _part_head(b"plain"), text, False),
            (CRLF + delimiter + _part_head(b"html"), html_body, True),
        ],
        b"\r\n--%b--\r\n" % boundary,
    )


def _part_head(subtype: bytes) -> bytes:
    return b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" % subtype


def _boundary(seed: bytes, segments: Sequence[bytes]) -> bytes:
    """A boundary that no part can hold: ``=_`` never occurs in quoted-printable (RFC 2045 §6.7).

    It differs from mail to mail, so that one forwarded inside another keeps its shape, and follows from the content,
    so that a resend has the same bytes.
    """
    digest = hashlib.blake2b(seed, digest_size=12)
    for segment in segments:
        digest.update(segment)
    return b"=_" + digest.hexdigest().encode("ascii")


def _join(parts: Sequence[tuple[bytes, Body, bool]], end: bytes) -> tuple[list[bytes], list[tuple[str, bool]]]:
    runs: list[list[bytes]] = [[]]  # joined once: a mail is large, and copied soon enough
    slots: list[tuple[str, bool]] = []
    for head, body, markup in parts:
        first, *others = _checked(body)
        runs[-1] += (head, first)
        runs += ([other] for other in others)
        slots += [(field, markup) for field in body.fields]
    runs[-1].append(end)
    return [b"".join(run) for run in runs], slots


def _checked(body: Body) -> list[bytes]:
    """The segments of a part as pieces that values fit between, the last closed by a hard line end.

    Values come closed, so the break a segment may begin with is not needed. What would end the message early or open
    a second one on the wire is refused here, once a variant, rather than looked for in every message; what the mail
    encoder made for us holds none of it.
    """
    if len(body.segments) != len(body.fields) + 1 or not set(body.fields) <= set(PERSONAL_FIELDS):
        raise RenderError("A rendered part and its personal fields do not fit; check the layout's templates.")
    first, *others = body.segments
    segments = [first, *(segment.removeprefix(SOFT) for segment in others)]
    for segment in () if body.vouched else segments:
        ends = segment.count(CRLF)
        if segment.count(b"\r") != ends or segment.count(b"\n") != ends:
            raise RenderError("A rendered part has a line end that is not CRLF; it must come from the mail encoder.")
        if segment.startswith(b".") or b"\n." in segment:
            raise RenderError("A rendered part has a line that begins with a dot; it must come from the mail encoder.")
    last = segments.pop()
    # RFC 2045 §6.7: "=" cannot be the last character of a part
    last = last.removesuffix(SOFT)
    return [*map(close, segments), last if last.endswith(CRLF) else last + CRLF]


# ----------------------------------------------------------------------------- names on the wire


def message_id(key: bytes, edition: int, subscriber: int, domain: str) -> str:
    """The Message-ID of a delivery: the same on every attempt, and nobody without the key can tell whose it is."""
    return f"<{_mac(key, b'message-id', edition, subscriber, 20)}@{domain}>"


def verp(edition: int, subscriber: int, key: bytes, domain: str) -> str:
    """The envelope sender of a delivery: a bounce to it names the delivery, and cannot be forged without the key.

    At most 62 octets stand before the @ (RFC 5321 §4.5.3.1.1 allows 64).
    """
    return f"b+{edition}.{subscriber}.{_mac(key, b'verp', edition, subscriber, 10)}@{domain}"


_VERP = re.compile(r"b\+([0-9]{1,19})\.([0-9]{1,19})\.([0-9a-f]{20})")


def parse_verp(address: str, key: bytes, domain: str) -> tuple[int, int] | None:
    """(edition, subscriber) of an envelope sender that `verp` made, however servers changed its case; else None."""
    local, _, host = address.lower().rpartition("@")
    found = _VERP.fullmatch(local)
    if not found or host != domain.lower():
        return None
    edition, subscriber = int(found[1]), int(found[2])
    genuine = hmac.compare_digest(found[3], _mac(key, b"verp", edition, subscriber, 10))
    return (edition, subscriber) if genuine else None


def leaving_address(subscription: int, key: bytes, domain: str) -> str:
    """Where a reader's mail program writes to unsubscribe (RFC 2369 §3.2); names the subscription, and proves it."""
    return f"u+{subscription}.{_mac(key, b'leave', 0, subscription, 12)}@{domain}"


_LEAVING = re.compile(r"u\+([0-9]{1,19})\.([0-9a-f]{24})")


def parse_leaving_address(address: str, key: bytes, domain: str) -> int | None:
    """The subscription that an address made by `leaving_address` ends; else None."""
    local, _, host = address.lower().rpartition("@")
    found = _LEAVING.fullmatch(local)
    if not found or host != domain.lower():
        return None
    genuine = hmac.compare_digest(found[2], _mac(key, b"leave", 0, int(found[1]), 12))
    return int(found[1]) if genuine else None


def _mac(key: bytes, purpose: bytes, edition: int, subscriber: int, size: int) -> str:
    return mac(key, b"%b:%d.%d" % (purpose, edition, subscriber))[:size].hex()
