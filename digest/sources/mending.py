"""XML as it is found, made such that a parser can read it: characters, references and bytes that XML forbids.

A parser that recovers from them by itself drops the text around them, or the rest of the document.
"""

from __future__ import annotations

import codecs
import io
import re
import zlib
from dataclasses import dataclass, field
from html.entities import html5
from typing import IO, Any

from digest.errors import SourceError
from digest.text import charset, strip_controls

CHUNK = 1 << 16
_MAX_TAGS = 1_000_000  # of an item, or of what stands before the first: all of it is in memory at once

_DECLARATION = re.compile(r"\s*<\?xml[^>]{0,200}\?>")
_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?\bencoding=[\"']([\w.:-]{2,40})[\"']")
_REFERENCE = re.compile(
    r"&(?!(?:amp|lt|gt|quot|apos);)(?:(?:#(?:([0-9]{1,8})|[xX]([0-9a-fA-F]{1,7}))|([A-Za-z][A-Za-z0-9]{1,31}));)?"
)
# Stands for an "&" that begins no reference, until the parser is past: "&amp;" would be read as that inside CDATA.
AMPERSAND = "\ue0a6"


@dataclass(slots=True)
class Mended:
    """A stream as the parser may see it: UTF-8, and no character or reference that XML forbids.

    Text that comes out may hold AMPERSAND. ``closings`` counts the ends of items that went by, ``whole`` says whether
    the last tag did, ``empty`` whether there was nothing but blanks.
    """

    stream: IO[bytes]
    closings: int = 0
    whole: bool = False
    empty: bool = True
    _tags: int = 0  # since the last item ended
    _held: str = ""
    _decoder: Any = field(default=None)
    _ended: bool = False

    def read(self, size: int = -1) -> bytes:
        """Return some more bytes, or none at the end."""
        while not self._ended:
            data = read_on(self.stream)
            self._ended = not data
            first = self._decoder is None
            if first:
                self._decoder = codecs.getincrementaldecoder(_encoding(data))("digest.cp1252")
            text = self._held + self._decoder.decode(data, final=self._ended)
            if first:
                text = _DECLARATION.sub("", text.lstrip("\ufeff"), count=1)
            if made := self._mend(text):
                return made.encode()
        return b""

    def _mend(self, text: str) -> str:
        """Mend what is complete; a reference or tag that may go on in the next chunk waits for it."""
        hold = max(text.rfind("&", -40), text.rfind("<", -10)) if not self._ended else -1
        text, self._held = (text, "") if hold < 0 else (text[:hold], text[hold:])
        text = strip_controls(text)
        self.empty = self.empty and not text.strip()
        ended = text.count("</item>")
        self.closings += ended
        self._tags = text.count("<") + (0 if ended else self._tags)
        if self._tags > _MAX_TAGS:
            raise SourceError("too_large", f"an item has more than {_MAX_TAGS:,} elements; no article has")
        self.whole = self.whole or "</rss>" in text or "</channel>" in text
        return _REFERENCE.sub(_referred, text) if "&" in text else text


def _referred(match: re.Match[str]) -> str:
    decimal, hexadecimal, name = match.groups()
    if name or not (decimal or hexadecimal):  # &nbsp; is HTML: XML has five names
        char = html5.get(f"{name};", "")
        return AMPERSAND + match[0][1:] if not char or char in "<>&\"'" else char
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return match[0] if code < 0x110000 and strip_controls(chr(code)) else ""


def _encoding(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    found = _ENCODING.search(start[:300])
    return (found and charset(found[1].decode("ascii"))) or "utf-8"


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are not UTF-8 come from a database that held windows-1252."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("digest.cp1252", _as_cp1252)


def read_on(stream: IO[bytes]) -> bytes:
    """Some bytes; a .gz that is cut off or damaged ends there."""
    try:
        return stream.read(CHUNK)
    except (EOFError, OSError, zlib.error):
        return b""


def mended(data: bytes) -> bytes:
    """Return a whole document mended."""
    source = Mended(io.BytesIO(data))
    return b"".join(iter(source.read, b"")).replace(AMPERSAND.encode(), b"&amp;")
