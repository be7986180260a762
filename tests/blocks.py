"""A typeface of blocks: every letter a bar, tall, low or hanging, wide or narrow as letters are.

Owns how the letters of reference pictures look. Real typefaces differ from machine to machine, in their letters and
thus in where lines end; this one is the same everywhere, and words are still words.
"""

from __future__ import annotations

import base64
import io
import unicodedata
from functools import cache

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

_EM = 1000
_NARROW, _WIDE, _HANGING, _TALL = set("ijlI.,:;·'|!()"), set("mwMW—→←…@"), set("gjpqy,;"), set("bdfhiklt")
_LETTERS = [
    *map(chr, range(0x20, 0x7F)),
    *map(chr, range(0xA0, 0x180)),
    *map(chr, range(0x600, 0x700)),
    *"–—‘’“”„…→←·•",
]


def _bar(character: str) -> tuple[int, int, int]:
    """Width of the letter, bottom and top of its bar."""
    width = 300 if character in _NARROW else 800 if character in _WIDE else 550
    if character.isspace():
        return 280, 0, 0
    if character in ".,…":
        return width, -120 if character == "," else 0, 120
    tall = character.isupper() or character.isdigit() or character in _TALL
    return width, -200 if character in _HANGING else 0, 700 if tall else 500


def missing(text: str) -> set[str]:
    """Letters that would be taken from another typeface."""
    return {c for c in text if not c.isspace()} - set(_LETTERS)


@cache
def css() -> str:
    """Style rules that write everything in it."""
    font = base64.b64encode(_font()).decode()
    face = f"@font-face {{ font-family: Blocks; src: url(data:font/ttf;base64,{font}) }}"
    return f"{face} * {{ font-family: Blocks !important; font-synthesis: none; text-rendering: geometricPrecision }}"


def _font() -> bytes:
    names = {ord(c): f"u{ord(c):04X}" for c in _LETTERS}
    # glyph 0 stands for what is missing: a letter there would be taken from another typeface
    bars = {".notdef": (550, 0, 500)} | {name: _bar(chr(code)) for code, name in names.items()}
    for code, name in names.items():
        if unicodedata.combining(chr(code)):
            bars[name] = (0, 0, 0)
    builder = FontBuilder(_EM, isTTF=True)
    builder.setupGlyphOrder(list(bars))
    builder.setupCharacterMap(names)
    builder.setupGlyf({name: _glyph(*bar) for name, bar in bars.items()})
    builder.setupHorizontalMetrics({name: (width, 40) for name, (width, _, _) in bars.items()})
    builder.setupHorizontalHeader(ascent=900, descent=-250)
    builder.setupNameTable({"familyName": "Blocks", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, sTypoDescender=-250, usWinAscent=900, usWinDescent=250)
    builder.setupPost()
    builder.font["head"].created = builder.font["head"].modified = 0
    made = io.BytesIO()
    builder.save(made)
    return made.getvalue()


def _glyph(width: int, bottom: int, top: int) -> object:
    pen = TTGlyphPen(None)
    if width and top:
        pen.moveTo((40, bottom))
        for corner in ((40, top), (width - 40, top), (width - 40, bottom)):
            pen.lineTo(corner)
        pen.closePath()
    return pen.glyph()
