"""A relay's octets cut into replies (RFC 5321 §4.2), bounded. Knows no commands and gives replies no meaning."""

from __future__ import annotations

from collections.abc import Iterator

from digest.delivery.classify import printable

_LINE_LIMIT = 8192  # RFC 5321 §4.5.3.1.5 says 512; a relay may be chatty, not endless
_TEXT_LIMIT = 4096


class Garbled(Exception):
    """What came was not SMTP; nothing more can be learnt from this connection."""


class Replies:
    """Cuts a stream into replies (RFC 5321 §4.2), whatever the chunks. A reply's text is bounded, its lines are not."""

    __slots__ = ("_buffer", "_text")

    def __init__(self) -> None:
        self._buffer, self._text = b"", b""

    @property
    def pending(self) -> bool:
        """Something has come that is no whole reply yet."""
        return bool(self._buffer or self._text)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (code, text) of each reply that is complete; the lines of a text are joined by LF."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > _LINE_LIMIT:
            raise Garbled("a reply line without an end")
        for line in lines:
            mark = line[3:4].rstrip(b"\r")
            if not (line[:3].isdigit() and line[:1] in b"2345" and mark in (b" ", b"-", b"")):
                raise Garbled(f"not a reply: {printable(line)[:100]!r}")
            if len(self._text) < _TEXT_LIMIT:
                self._text += line[4 : 4 + _TEXT_LIMIT].rstrip(b"\r") + b"\n"
            if mark != b"-":
                text, self._text = self._text, b""
                yield int(line[:3]), text[:-1]
