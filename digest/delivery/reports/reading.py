"""A mail as octets → a Report. Memory and time stay bounded, whatever comes in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from typing import IO

from digest.delivery.reports import loose, standard
from digest.delivery.reports.notices import read_notices
from digest.delivery.reports.report import Report, ReportKind

#: Of a longer message only the beginning is read: what a report has to say stands before what it returns.
LIMIT = 1 << 20
_CHUNK = 1 << 16
_MOST_PARTS = 200
_MOST = 40

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}")
_LINK = re.compile(r"<(https?://[^<>\s]{1,1000})>")
#: Where servers write down whom they delivered a message to, and who had sent the one that is returned.
_ENVELOPE = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "X-Forwarded-To", "To", "Cc")
_SENDER = ("Return-Path", "X-Envelope-From", "Envelope-From", "X-Original-Mail-From", "Errors-To", "Sender")


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it came: its beginning, how long it was, and what it can be known again by."""

    octets: bytes
    size: int
    fingerprint: str

    @classmethod
    def of(cls, octets: bytes) -> Letter:
        return cls(octets[:LIMIT], len(octets), hashlib.sha256(octets).hexdigest())


def read_letter(stream: IO[bytes]) -> Letter:
    """Take a message off a stream to its end; memory stays below twice `LIMIT`."""
    head, size, seen = bytearray(), 0, hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        head += chunk[: LIMIT - len(head)]
        size += len(chunk)
        seen.update(chunk)
    return Letter(bytes(head), size, seen.hexdigest())


def read_report(letter: Letter) -> Report:
    """What a message reports."""
    octets = _with_line_ends(letter.octets)
    try:
        report = _read(octets)
    except Exception as e:  # a parser that stumbles over hostile octets costs this message alone
        report = Report(ReportKind.UNKNOWN, problem=f"it cannot be read ({type(e).__name__})")
    if letter.size > len(letter.octets):
        long = f"it is {letter.size:,} octets long; the first {len(letter.octets):,} were read"
        report = replace(report, problem="; ".join(filter(None, (report.problem, long))))
    return report


def _read(octets: bytes) -> Report:
    if octets.lstrip()[:1] in (b"{", b"[") and (notices := read_notices(octets)):
        return notices[0]
    if octets.lower().count(b"multipart/") > _MOST_PARTS:  # the parser compares each line with all that is open
        return Report(ReportKind.UNKNOWN, problem="it has more parts in parts than any report")
    message = BytesParser(policy=compat32).parsebytes(octets)
    parts = list(_walk(message))
    report = standard.read(message, parts, octets) or loose.read(message, parts, octets)
    return replace(report, to=_to(message), traces=_traces(parts, octets), links=_links(parts, octets))


def _with_line_ends(octets: bytes) -> bytes:
    """Some archives keep only the carriage return of a line's end."""
    return octets if b"\n" in octets else octets.replace(b"\r", b"\n")


def _walk(message: Message) -> Iterator[Message]:
    """Every part, the outermost first; without recursion, and no more than a report has."""
    waiting, count = [message], 0
    while waiting and count < _MOST_PARTS:
        part = waiting.pop(0)
        count += 1
        yield part
        if part.is_multipart():
            inner = part.get_payload()
            if isinstance(inner, list):
                waiting[:0] = [p for p in inner if isinstance(p, Message)]


def _to(message: Message) -> tuple[str, ...]:
    """Whom this very message was delivered to, as servers on the way wrote it down."""
    return _addresses([message], _ENVELOPE)


def _traces(parts: list[Message], octets: bytes) -> tuple[str, ...]:
    """Addresses that may be the envelope sender of the mail in question."""
    found = dict.fromkeys(_addresses(parts, _SENDER))
    # what is returned as plain text, and the fields of a report, have theirs in the body
    found.update(dict.fromkeys(m.decode() for m in _BARE_VERP.findall(octets)))
    return tuple(found)[:_MOST]


def _addresses(parts: list[Message], names: tuple[str, ...]) -> tuple[str, ...]:
    values = [str(value)[:2000] for part in parts for name in names for value in part.get_all(name, [])]
    return tuple(dict.fromkeys(a for value in values for a in _ADDRESS.findall(value)))[:_MOST]


_BARE_VERP = re.compile(rb"[bB]\+[0-9]{1,19}\.[0-9]{1,19}\.[0-9a-fA-F]{20}@[A-Za-z0-9.-]{1,253}")


def _links(parts: list[Message], octets: bytes) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for part in parts:
        for value in part.get_all("List-Unsubscribe", []):
            found.update(dict.fromkeys(_LINK.findall("".join(str(value).split()))))
    for line in re.findall(rb"(?im)^List-Unsubscribe:([^\r\n]{1,2000})", octets):
        found.update(dict.fromkeys(_LINK.findall(line.decode("ascii", "replace"))))
    return tuple(found)[:_MOST]
