"""Colours that can be read: from the publication's one accent, inks for light and dark that keep their contrast.

Owns the arithmetic (WCAG 2.2, relative luminance). Which element takes which colour is the layout's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

PAPER = "#ffffff"
PAPER_DARK = "#1c1f24"
FALLBACK = "#0b5fad"
READABLE = 4.5  # WCAG 2.2 §1.4.3
# A little more than asked for, so that the tinted page behind the cards passes as well as the cards.
_AIM = 5.2

RGB = tuple[float, float, float]


@lru_cache(maxsize=64)
def palette(accent: str) -> Mapping[str, str]:
    """Return the colours a layout needs of *accent*: as it is, on paper, on dark paper, and what is read upon it."""
    if not re.fullmatch("#[0-9a-fA-F]{6}", accent):
        accent = FALLBACK
    return {
        "accent": accent.lower(),
        "on_accent": max(("#ffffff", "#000000"), key=lambda ink: contrast(ink, accent)),
        "ink": readable(accent, PAPER),
        "ink_dark": readable(accent, PAPER_DARK),
    }


def readable(colour: str, paper: str) -> str:
    """Darken or lighten *colour*, no more than needed, until it can be read on *paper*."""
    target = (0.0, 0.0, 0.0) if _luminance(_rgb(paper)) > 0.2 else (255.0, 255.0, 255.0)
    start = _rgb(colour)
    for step in range(21):
        share = step / 20
        mixed = tuple(a + (b - a) * share for a, b in zip(start, target, strict=True))
        hexed = "#" + "".join(f"{round(part):02x}" for part in mixed)
        if contrast(hexed, paper) >= _AIM:
            return hexed
    return hexed


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two ``#rrggbb`` colours, 1 to 21."""
    high, low = sorted((_luminance(_rgb(first)), _luminance(_rgb(second))), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _rgb(colour: str) -> RGB:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(rgb: RGB) -> float:
    red, green, blue = (_linear(part / 255) for part in rgb)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
