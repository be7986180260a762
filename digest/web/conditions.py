"""What a poll of a feed is answered, as RFC 9110 has it: pure, no bytes on the wire, no database.

representation  Accept-Encoding → br, gzip, plain, or none that would do (406)
preconditions   If-Match, else If-Unmodified-Since → 412; If-None-Match, else If-Modified-Since → 304
Range           never: a feed is one piece
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

from digest.publishing import Coded, Entry

_SKEW_S = 60.0
_CODINGS = {"br": "br", "gzip": "gzip", "x-gzip": "gzip", "identity": ""}
_ETAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_STRONG = re.compile(rb'(?:^|,)[ \t]*("[\x21\x23-\x7e\x80-\xff]*")')
_Q = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z")


class Asked(NamedTuple):
    """The header fields that matter; one that came in several lines is joined by commas."""

    accept_encoding: bytes | None = None
    if_none_match: bytes | None = None
    if_modified_since: bytes | None = None
    if_match: bytes | None = None
    if_unmodified_since: bytes | None = None


FIELDS = {
    b"accept-encoding": 0, b"if-none-match": 1, b"if-modified-since": 2, b"if-match": 3, b"if-unmodified-since": 4,
}  # fmt: skip


class Decision(NamedTuple):
    """A status (200, 304, 406, 412), and of the first two the coding whose bytes or ETag the answer has."""

    status: int
    coding: str = ""
    coded: Coded | None = None


def decide(entry: Entry, asked: Asked) -> Decision:
    accept = asked.accept_encoding
    coding = negotiate(accept) if accept is not None else ""
    if coding is None:
        return Decision(406)
    coded = entry.br if coding == "br" else entry.gzip if coding == "gzip" else entry.plain
    modified = entry.modified.timestamp()
    # RFC 9110 §13.2.2: in this order
    if asked.if_match is not None:
        if not _matches_strongly(asked.if_match, coded.etag):
            return Decision(412)
    elif asked.if_unmodified_since is not None and not _unmodified(asked.if_unmodified_since, modified):
        return Decision(412)
    if not_modified(asked.if_none_match, asked.if_modified_since, coded.etag, modified):
        return Decision(304, coding, coded)
    return Decision(200, coding, coded)


# ----------------------------------------------------------------------------- codings


@lru_cache(256)
def negotiate(accept: bytes) -> str | None:
    """``br``, ``gzip``, nothing (plain) or None (nothing would do) for an Accept-Encoding (RFC 9110 §12.5.3).

    The most wanted; of equals the smallest. Plain bytes do unless they are refused by name or by ``*``.
    """
    weights: dict[str, float] = {}
    for part in accept.decode("latin-1").lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        if coding:
            weights[_CODINGS.get(coding, coding)] = _weight(parameters)
    others = weights.get("*", 0.0)
    wanted = [(weights.get(coding, others), coding) for coding in ("br", "gzip")]
    best, coding = max(wanted, key=lambda choice: choice[0])  # of equals the first
    if best > 0 and best >= weights.get("", 0.0):
        return coding
    return "" if weights.get("", weights.get("*", 1.0)) > 0 else None


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return float(value) if _Q.match(value := value.strip()) else 0.0
    return 1.0


# ----------------------------------------------------------------------------- conditions


def not_modified(none_match: bytes | None, since: bytes | None, etag: str, modified: float) -> bool:
    """Whether the reader has it already: the ETag decides; the date only where no ETag came."""
    if none_match is not None:
        return _matches(none_match, etag)
    if since is None:
        return False
    date = _instant(since)
    return date is not None and modified <= date <= time.time() + _SKEW_S  # one from the future would freeze the feed


def _matches(none_match: bytes, etag: str) -> bool:
    """Weak comparison (RFC 9110 §13.1.2): a proxy that compressed our bytes again has made our ETag weak."""
    wanted = etag.encode()
    if none_match == wanted:
        return True
    return none_match.strip() == b"*" or wanted in _ETAG.findall(none_match)


def _matches_strongly(match: bytes, etag: str) -> bool:
    """RFC 9110 §13.1.1."""
    return match.strip() == b"*" or etag.encode() in _STRONG.findall(match)


def _unmodified(since: bytes, modified: float) -> bool:
    """RFC 9110 §13.1.4; what is no date is no condition."""
    date = _instant(since)
    return date is None or modified <= date


@lru_cache(1024)
def _instant(date: bytes) -> float | None:
    """An HTTP date in any of its three forms (RFC 9110 §5.6.7), as a timestamp."""
    text = date.decode("latin-1").strip()
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        try:
            when = datetime.strptime(text, "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007
        except (ValueError, OverflowError):
            return None
    try:
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


@lru_cache(1024)
def http_date(timestamp: float) -> bytes:
    return formatdate(timestamp, usegmt=True).encode()
