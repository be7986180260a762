"""Feeds over HTTP: a raw ASGI application in front of everything else, because feeds are most of all requests.

A poll of a feed that has not changed costs no SQL and no rendering: the shelf's bytes, ETags and dates are prepared,
and this module only chooses among them.

GET, HEAD  /feeds/….{rss,atom,json} · /feeds.opml
├ a browser?      goes on to the page that shows the feed
├ ready?          else brought up to date in a thread, once for all who ask; if that fails, the old one; else 503
├ renamed, merged → 301; hidden → 410; none → 404
└ conditions      → 200, 304, 406, 412

Not here: what a feed holds and how it is kept (publishing), conditions (conditions), the same without ASGI (lane).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import quote

from digest.publishing import OPML_PATH, PRIVATE, Coded, Entry, ReaderCounts, Shelf, Slot
from digest.web.conditions import FIELDS, Asked, decide, http_date
from digest.web.limits import Bucket, client_key

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

_RETRY_AFTER_S = 30
#: How long a request waits for a newer feed while there is one that was right a moment ago, and while there is none.
_PATIENCE_S, _COLD_PATIENCE_S = 0.25, 20.0
#: What caches must look at: a browser is shown a page under the same address.
VARY = b"Accept-Encoding, Sec-Fetch-Dest"


class FeedsApp:
    """Answers below ``/feeds/``; everything else goes on to *rest*, and so does a browser that opens a feed."""

    def __init__(
        self, shelf: Shelf, rest: Application | None = None, readers: ReaderCounts | None = None,
        unready_per_minute: int = 0,
    ) -> None:  # fmt: skip
        """*unready_per_minute*: what one client may ask for that does not lie ready; 0: no limit."""
        self._shelf, self._rest, self._readers = shelf, rest, readers
        self._pause_s = 60 / unready_per_minute if unready_per_minute else 0.0
        self._unready = Bucket(5 * unready_per_minute, self._pause_s) if unready_per_minute else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope) if scope["type"] == "http" else ""
        feed = (path.startswith("/feeds/") and not path.startswith(PRIVATE)) or path == OPML_PATH
        if feed and not (self._rest is not None and path != OPML_PATH and is_browser(scope["headers"])):
            await self._answer(path, scope, send)
        elif self._rest is not None:
            await self._rest(scope, receive, send)
        elif scope["type"] == "http":
            await _tell(send, 404)

    async def _answer(self, path: str, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _tell(send, 405, (b"allow", b"GET, HEAD"))
            return
        slot = self._shelf.ready(path)
        if slot is None and self._is_too_much(path, scope):
            await _tell(send, 429, (b"retry-after", b"%d" % max(math.ceil(self._pause_s), 1)))
            return
        slot = slot or await self._brought(path)
        if slot is None:
            await _tell(send, 503, (b"retry-after", str(_RETRY_AFTER_S).encode()))
        elif slot.moved:  # RFC 9110 §15.4.2: readers of feeds store the new address
            to = str(scope.get("root_path") or "") + quote(slot.moved, safe="/:+")
            await _tell(send, 301, (b"location", to.encode()))
        elif slot.gone:
            await _tell(send, 410)
        elif slot.entry is None:
            await _tell(send, 404)
        else:
            await self._serve(slot, slot.entry, scope, send)
            self._count(path, scope)

    def _is_too_much(self, path: str, scope: Scope) -> bool:
        """Whether a client asks for more that is to be made than it may. What it could have is never refused: readers
        that are refused one feed of a host leave the others alone too.
        """
        if self._unready is None or self._shelf.stale(path) is not None:
            return False
        return not self._unready.take(client_key(str((scope.get("client") or ("",))[0])))

    def _count(self, path: str, scope: Scope) -> None:
        """Hear what a service says of its readers; written down in a thread, nobody waits for it."""
        agent = next((value for name, value in scope["headers"] if name == b"user-agent"), b"").decode("latin-1")
        if self._readers is not None and agent and self._readers.note(path.rpartition(".")[0], agent):
            asyncio.get_running_loop().run_in_executor(None, self._readers.flush)

    async def _serve(self, slot: Slot, entry: Entry, scope: Scope, send: Send) -> None:
        status, coding, coded = decide(entry, _asked(scope["headers"]))
        if coded is None:
            await _tell(send, status, (b"vary", VARY))
            return
        now = time.time()
        fresh = (b"cache-control", cache_control(self._shelf.planned.max_age(slot.kind, slot.archive, now)))
        if status == 304:
            await _start(send, 304, (*not_modified_head(coded), fresh))
            await send({"type": "http.response.body", "body": b""})
            return
        modified = (b"last-modified", last_modified(entry, now))
        await _start(send, 200, (*head(entry, coding, coded), modified, fresh))
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else coded.body})

    async def _brought(self, path: str) -> Slot | None:
        """The slot brought up to date; the old one if that fails or takes too long, None if there is no old one."""
        old = self._shelf.stale(path)
        flight = asyncio.wrap_future(self._shelf.refresh(path))
        flight.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, even if nobody waits
        in_time = old is not None and not self._shelf.is_old(old)  # else many who wait for others would get ever older
        await asyncio.wait({flight}, timeout=_PATIENCE_S if in_time else _COLD_PATIENCE_S)
        if flight.done() and flight.exception() is None:
            return flight.result()
        return old


def _path(scope: Scope) -> str:
    """The decoded path below wherever the application is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "")
    return path.removeprefix(root) if root and path.startswith(root + "/") else path


def is_browser(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """A person opens the address. Accept does not tell: readers of feeds list text/html too."""
    return any(name == b"sec-fetch-dest" and value == b"document" for name, value in headers)


def _asked(headers: Iterable[tuple[bytes, bytes]]) -> Asked:
    found: list[bytes | None] = [None] * len(FIELDS)
    for name, value in headers:
        if (n := FIELDS.get(name)) is not None:
            before = found[n]
            found[n] = value if before is None else before + b"," + value
    return Asked(*found)


# ----------------------------------------------------------------------------- what is said


def cache_control(max_age: int) -> bytes:
    return b"public, max-age=%d, stale-while-revalidate=600, stale-if-error=86400" % max_age


def last_modified(entry: Entry, now: float) -> bytes:
    """RFC 9110 §8.8.2.1: never a date later than now."""
    return http_date(min(entry.modified.timestamp(), int(now)))


def not_modified_head(coded: Coded) -> Headers:
    """RFC 9110 §15.4.5: what guides a cache, and nothing that describes a body."""
    if (made := coded.heads.get("304")) is None:
        made = coded.heads["304"] = (
            (b"etag", coded.etag.encode()),
            (b"vary", VARY),
            (b"access-control-allow-origin", b"*"),  # readers that run in a browser
        )
    return made


def head(entry: Entry, coding: str, coded: Coded) -> Headers:
    """All header fields of a 200 but those that change with time."""
    if (made := coded.heads.get("200")) is None:
        made = coded.heads["200"] = (
            *not_modified_head(coded),
            (b"content-type", entry.content_type.encode()),
            (b"content-length", str(len(coded.body)).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"accept-ranges", b"none"),  # RFC 9110 §14.3
            *(((b"content-encoding", coding.encode()),) if coding else ()),
            *(((b"link", entry.link.encode()),) if entry.link else ()),
        )
    return made


_SENTENCES = {
    301: "This feed has another address now.",
    404: "There is no such feed; it may have been renamed.",
    405: "Feeds can only be read: use GET or HEAD.",
    406: "This feed comes plain, as gzip or as br, and all three are refused.",
    410: "This feed is no more.",
    412: "The feed has changed since.",
    429: "That is much at once; feeds that you have had go on as before.",
    503: "This feed cannot be made just now; try again a little later.",
}


async def _start(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def _tell(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    body = _SENTENCES[status].encode() + b"\n"
    said = (
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store" if status in (406, 412, 429, 503) else b"public, max-age=60"),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    )
    await _start(send, status, said)
    await send({"type": "http.response.body", "body": body})
