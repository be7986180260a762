"""A short way through the server for polls of feeds: uvicorn's own protocol, with a look at each request before it.

    bytes ─┬▶ a whole GET or HEAD of a feed that lies ready on the shelf ──▶ the same decision, answered at once
           └▶ everything else, and whatever looks unusual ──▶ httptools ──▶ ASGI

The lane takes only what it reads exactly as the parser behind it would: one complete request without a body, plain
names, one Host. It frames nothing itself, so that no two readings of one stream of bytes can differ. It also gives up
on clients that never finish a request, and on heads without end. What is answered is decided in `conditions`.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from digest.publishing import Entry, Shelf, Slot
from digest.web.conditions import FIELDS, Asked, decide, http_date
from digest.web.feeds import cache_control, head, not_modified_head

#: Seconds for a request to arrive whole, and most bytes of its head.
SLOW_S, HEAD_MAX = 20.0, 64 * 1024

_START = re.compile(rb"(GET|HEAD) (/feeds(?:/[A-Za-z0-9_][A-Za-z0-9_.:+-]*)+) HTTP/1\.1\Z")
_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_TEXT = bytes({*range(0x20, 0x7F), *range(0x80, 0x100), *b"\t\r\n"})
_HOST, _ELSEWHERE, _ONLY = -1, -2, -3
_KNOWN = {
    **FIELDS, b"host": _HOST, b"content-length": _ELSEWHERE, b"transfer-encoding": _ELSEWHERE, b"expect": _ELSEWHERE,
    b"upgrade": _ELSEWHERE, b"connection": _ONLY, b"sec-fetch-dest": _ONLY,
}  # fmt: skip
#: Of Connection and Sec-Fetch-Dest, what programs say that want the feed and go on talking.
_PLAIN = (b"keep-alive", b"empty")


class Lane(HttpToolsProtocol):
    """One connection. ``shelf`` is set by `lane`."""

    shelf: Shelf
    clock: Clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._between = True  # no request is half read
        self._head_read = 0
        self._slow: asyncio.TimerHandle | None = self.loop.call_later(SLOW_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hurry_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._between and (answer := self._answered(data)) is not None:
            self._hurry_no_more()
            self._unset_keepalive_if_required()
            self.server_state.total_requests += 1
            self.transport.writelines(answer)
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            return
        self._head_read += len(data)
        super().data_received(data)
        if not self._between and self._head_read > HEAD_MAX and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large", b"That is more than any request of ours needs.\n")

    # ------------------------------------------------------------------------- what the parser tells

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._between, self._head_read = False, 0
        if self._slow is None:
            self._slow = self.loop.call_later(SLOW_S, self._too_slow)

    def on_headers_complete(self) -> None:
        self._head_read = -(2**40)  # bodies have a limit of their own
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between, self._head_read = True, 0
        self._hurry_no_more()

    # ------------------------------------------------------------------------- slow and endless

    def _hurry_no_more(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _too_slow(self) -> None:
        self._slow = None
        self._refuse(b"408 Request Timeout", b"The request did not arrive in time.\n")

    def _refuse(self, status: bytes, sentence: bytes) -> None:
        if not self.transport.is_closing():
            kind = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close" % len(sentence)
            self.transport.write(b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, kind, sentence))
            self.transport.close()

    # ------------------------------------------------------------------------- the lane

    def _answered(self, data: bytes) -> tuple[bytes, ...] | None:
        """What to write for a request that the lane can take; None for any other."""
        if data[:11] != b"GET /feeds/" and data[:12] != b"HEAD /feeds/":
            return None
        if not self._idle() or data[-4:] != b"\r\n\r\n" or b"subscriber" in data:  # those are counted on the long way
            return None
        first, *lines = data[:-4].split(b"\r\n")
        # No bare CR or LF, no second request behind an empty line, no control characters (RFC 9110 §5.5).
        if data.count(b"\n") != len(lines) + 2 or data.count(b"\r") != len(lines) + 2 or data.translate(None, _TEXT):
            return None
        start = _START.match(first)
        asked = _read(lines)
        if start is None or asked is None:
            return None
        slot = self.shelf.ready(start[2].decode())
        if slot is None or slot.entry is None:
            return None
        return self.clock.answer(slot, slot.entry, asked, get=start[1] == b"GET")

    def _idle(self) -> bool:
        cycle = self.cycle
        return (cycle is None or cycle.response_complete) and not self.pipeline and not self.flow.write_paused


def _read(lines: list[bytes]) -> Asked | None:
    """The fields that matter; None where the request is not a plain one."""
    found: list[bytes | None] = [None, None, None, None, None]
    hosts = 0
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.match(name):
            return None
        n = _KNOWN.get(name.lower())
        if n is None:
            continue
        value = value.strip(b" \t")
        if n >= 0:
            before = found[n]
            found[n] = value if before is None else before + b"," + value
        elif n == _HOST:
            hosts += 1
        elif n == _ELSEWHERE or value.lower() not in _PLAIN:
            return None
    return Asked(*found) if hosts == 1 else None


class Clock:
    """Heads of answers: what stands still is made once a body, what moves once a second."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._second = 0
        self._moving: dict[tuple[bool, bool], bytes] = {}

    def answer(self, slot: Slot, entry: Entry, asked: Asked, *, get: bool) -> tuple[bytes, ...] | None:
        status, coding, coded = decide(entry, asked)
        now = time.time()
        if coded is None or entry.modified.timestamp() > now:
            return None
        moving = self._head_that_moves(slot, now)
        if status == 304:
            if (still := coded.heads.get("lane-304")) is None:
                still = coded.heads["lane-304"] = _wire(b"304 Not Modified", not_modified_head(coded))
            return still, moving
        if (still := coded.heads.get("lane-200")) is None:
            modified = (b"last-modified", http_date(entry.modified.timestamp()))
            still = coded.heads["lane-200"] = _wire(b"200 OK", (*head(entry, coding, coded), modified))
        return (still, moving, coded.body) if get else (still, moving)

    def _head_that_moves(self, slot: Slot, now: float) -> bytes:
        if int(now) != self._second:
            self._second, self._moving = int(now), {}
        key = (slot.kind == "digest", slot.archive)
        if (moving := self._moving.get(key)) is None:
            age = cache_control(self._shelf.planned.max_age(slot.kind, slot.archive, now))
            date = http_date(float(self._second))
            moving = self._moving[key] = b"cache-control: %b\r\ndate: %b\r\n\r\n" % (age, date)
        return moving


def _wire(status: bytes, fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return b"HTTP/1.1 %b\r\n" % status + b"".join(b"%b: %b\r\n" % field for field in fields)


def lane(shelf: Shelf) -> type[Any]:
    """The protocol for a server whose feeds lie on *shelf*."""
    return type("FeedsLane", (Lane,), {"shelf": shelf, "clock": Clock(shelf)})
