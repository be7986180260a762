"""Feeds over HTTP: a raw ASGI application in front of everything else, because feeds are most of all requests.

A poll of a feed that has not changed costs no SQL and no rendering: the shelf's bytes, ETags and dates are prepared,
and this module only chooses among them.

GET, HEAD  /feeds/….{rss,atom,json}
├ ready?          else brought up to date in a thread, once for all who ask; if that fails, the old one; else 503
├ Accept-Encoding → br, gzip or plain
├ renamed, merged → 301; hidden → 410
├ If-None-Match, else If-Modified-Since → 304
└ 200

Not here: what a feed holds and how it is kept (publishing), pages (web.app).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from digest.publishing import Coded, Entry, Shelf, Slot

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

#: Readers that heed it (most do) come back after this long; an article waits no longer than that.
MAX_AGE_S = 300
_CACHE = f"public, max-age={MAX_AGE_S}, stale-while-revalidate=600, stale-if-error=86400".encode()
_RETRY_AFTER_S = 30
#: How long a request waits for a newer feed while there is an older one, and while there is none.
_PATIENCE_S, _COLD_PATIENCE_S = 0.25, 20.0
_SKEW_S = 60.0


class FeedsApp:
    """Answers below ``/feeds/``; everything else goes on to *rest*."""

    def __init__(self, shelf: Shelf, rest: Application | None = None) -> None:
        self._shelf, self._rest = shelf, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope) if scope["type"] == "http" else ""
        if path.startswith("/feeds/"):
            await self._answer(path, scope, send)
        elif self._rest is not None:
            await self._rest(scope, receive, send)
        elif scope["type"] == "http":
            await _tell(send, 404, "There is nothing here.")

    async def _answer(self, path: str, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _tell(send, 405, "Feeds can only be read: use GET or HEAD.", (b"allow", b"GET, HEAD"))
            return
        slot = self._shelf.ready(path) or await self._brought(path)
        if slot is None:
            retry = (b"retry-after", str(_RETRY_AFTER_S).encode())
            await _tell(send, 503, "This feed cannot be made just now; try again a little later.", retry)
        elif slot.moved:  # RFC 9110 §15.4.2: readers of feeds store the new address
            location = (b"location", (str(scope.get("root_path") or "") + quote(slot.moved)).encode())
            await _tell(send, 301, "This feed has another address now.", location)
        elif slot.gone:
            await _tell(send, 410, "This feed is no more.")
        elif slot.entry is None:
            await _tell(send, 404, "There is no such feed; it may have been renamed.")
        else:
            await _serve(slot.entry, scope, send)

    async def _brought(self, path: str) -> Slot | None:
        """The slot brought up to date; the old one if that fails or takes too long, None if there is no old one."""
        old = self._shelf.stale(path)
        flight = asyncio.wrap_future(self._shelf.refresh(path))
        flight.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, even if nobody waits
        await asyncio.wait({flight}, timeout=_COLD_PATIENCE_S if old is None else _PATIENCE_S)
        if flight.done() and flight.exception() is None:
            return flight.result()
        return old


def _path(scope: Scope) -> str:
    """The decoded path below wherever the application is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "")
    return path.removeprefix(root) if root and path.startswith(root + "/") else path


async def _serve(entry: Entry, scope: Scope, send: Send) -> None:
    accept, none_match, since = _asked(scope["headers"])
    coding = negotiate(accept) if accept is not None else ""
    coded: Coded = entry.br if coding == "br" else entry.gzip if coding == "gzip" else entry.plain
    modified = entry.modified.timestamp()
    if not_modified(none_match, since, coded.etag, modified):
        # RFC 9110 §15.4.5: what guides a cache, and nothing that describes a body
        await _start(send, 304, _always(coded.etag))
        await send({"type": "http.response.body", "body": b""})
        return
    headers = _with_body(coded.etag, entry.content_type, coding, len(coded.body))
    # RFC 9110 §8.8.2.1: never a date later than now
    await _start(send, 200, (*headers, (b"last-modified", _http_date(min(modified, int(time.time()))))))
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else coded.body})


def _asked(headers: list[tuple[bytes, bytes]]) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Accept-Encoding, If-None-Match, If-Modified-Since; lists that came in several lines are joined."""
    accept = none_match = since = None
    for name, value in headers:
        if name == b"accept-encoding":
            accept = value if accept is None else accept + b"," + value
        elif name == b"if-none-match":
            none_match = value if none_match is None else none_match + b"," + value
        elif name == b"if-modified-since":
            since = value
    return accept, none_match, since


# ----------------------------------------------------------------------------- what is said


async def _start(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def _tell(send: Send, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
    body = sentence.encode() + b"\n"
    said = (
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store" if status == 503 else b"public, max-age=60"),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    )
    await _start(send, status, said)
    await send({"type": "http.response.body", "body": body})


@lru_cache(1024)
def _always(etag: str) -> Headers:
    return (
        (b"etag", etag.encode()),
        (b"cache-control", _CACHE),
        (b"vary", b"Accept-Encoding"),
        (b"access-control-allow-origin", b"*"),  # readers that run in a browser
    )


@lru_cache(1024)
def _with_body(etag: str, content_type: str, coding: str, length: int) -> Headers:
    coded = ((b"content-encoding", coding.encode()),) if coding else ()
    return (
        *_always(etag),
        (b"content-type", content_type.encode()),
        (b"content-length", str(length).encode()),
        (b"x-content-type-options", b"nosniff"),
        *coded,
    )


@lru_cache(1024)
def _http_date(timestamp: float) -> bytes:
    return formatdate(timestamp, usegmt=True).encode()


# ----------------------------------------------------------------------------- what is asked

_CODINGS = {"br": "br", "gzip": "gzip", "x-gzip": "gzip", "identity": ""}
_ETAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_Q = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z")


@lru_cache(256)
def negotiate(accept: bytes) -> str:
    """``br``, ``gzip`` or nothing for an Accept-Encoding (RFC 9110 §12.5.3): the most wanted, of equals the smallest.

    Plain bytes are sent where nothing else is wanted, even if they are refused: better than no feed.
    """
    weights: dict[str, float] = {}
    for part in accept.decode("latin-1").lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        if coding:
            weights[_CODINGS.get(coding, coding)] = _weight(parameters)
    others = weights.get("*", 0.0)
    wanted = [(weights.get(coding, others), coding) for coding in ("br", "gzip")]
    best, coding = max(wanted, key=lambda choice: choice[0])  # of equals the first
    return coding if best > 0 and best >= weights.get("", 0.0) else ""


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return float(value) if _Q.match(value := value.strip()) else 0.0
    return 1.0


def not_modified(none_match: bytes | None, since: bytes | None, etag: str, modified: float) -> bool:
    """Whether the reader has it already (RFC 9110 §13.2.2): the ETag decides; the date only where no ETag came."""
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


@lru_cache(1024)
def _instant(http_date: bytes) -> float | None:
    """An HTTP date in any of its three forms (RFC 9110 §5.6.7), as a timestamp."""
    text = http_date.decode("latin-1").strip()
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        try:
            when = datetime.strptime(text, "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007
        except ValueError:
            return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
