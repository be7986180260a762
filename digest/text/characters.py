"""Bytes to characters, and characters that no document may hold."""

from __future__ import annotations

import codecs
import re

# What XML 1.0 §2.2 forbids, other non-characters, byte order marks, and the marks that turn the direction of text
# around for all that follows (a title must not be able to disguise what stands behind it). Kept to the first plane:
# with the non-characters of the others, which XML allows, the search takes five times as long.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_ASCII_CONTROLS = bytes([*range(0x20), 0x7F]).translate(None, b"\t\n")
# Without one of these bytes in its UTF-8 no text holds any of them: controls, the lead bytes of C1 (\xc2), surrogates
# (\xed) and of the plane's end (\xef), and what ends the marks of direction (U+202A to E, U+2066 to 9).
_SUSPECTS = bytes([*_ASCII_CONTROLS, 0xC2, 0xED, 0xEF, 0x81, *range(0xAA, 0xAF)])
_SURROGATES = re.compile("[\ud800-\udfff]")
# C1 controls are what windows-1252 read as latin-1 leaves behind; HTML reads them so too.
_C1 = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}


def strip_controls(text: str) -> str:
    """Return *text* without characters that XML forbids, lone surrogates and direction overrides; CR LF becomes LF."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():  # as most are; `translate` is as fast as memory
        data = text.encode()
        kept = data.translate(None, _ASCII_CONTROLS)
        return text if len(kept) == len(data) else kept.decode()
    data = text.encode("utf-8", "surrogatepass")
    if len(data.translate(None, _SUSPECTS)) == len(data) or _CONTROLS.search(text) is None:
        return text
    if _SURROGATES.search(text):  # a pair written as two halves is one character; a half is none
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return _CONTROLS.sub("", text.translate(_C1))


_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_DECLARED = re.compile(rb"""^[^>]{0,200}?\bencoding=["']([\w.:-]{2,40})["']""")


def decode(data: bytes, declared: str | None = None) -> str:
    """Return *data* as text: byte order mark, else *declared*, else its XML declaration, UTF-8, windows-1252.

    A declared charset that does not fit the bytes is passed over. Nothing raises: the last resort replaces.
    """
    for bom, name in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(name, "replace")
    found = _DECLARED.match(data)
    for wanted in (declared, found and found[1].decode("ascii"), "utf-8"):
        if wanted and (codec := charset(wanted)):
            try:
                return data.decode(codec)
            except UnicodeDecodeError:
                continue
    return data.decode("cp1252", "replace")


def charset(name: str) -> str | None:
    """Return the codec that a declared charset means, or None. Latin-1 is windows-1252 (WHATWG Encoding §4.2)."""
    try:
        codec = codecs.lookup(name.strip())
        b"x".decode(codec.name, "replace")  # "hex" and "zlib" are codecs, but no charsets
    except (LookupError, ValueError):
        return None
    return "cp1252" if codec.name in ("iso8859-1", "ascii") else codec.name
