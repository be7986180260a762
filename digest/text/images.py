"""The picture of an article: which of several, how it is described, who is named for it."""

from __future__ import annotations

import html as entities
import re
from collections.abc import Iterable
from dataclasses import replace

from digest.text.addresses import normal_url, resolve
from digest.text.clues import signed
from digest.text.debris import IMG_ATTRIBUTE, SAFE_IMG
from digest.text.titles import clean_title
from digest.types import Image

#: What mails and pages want of a picture: twice the width of a mail.
WIDTH = 1_200
_HEADLINE = 4  # words; a shorter text before a dash describes what is to be seen
_MODERN = re.compile(r"\.(?:webp|avif|jxl|heic)(?:[?#]|$)|[?&](?:format|fm|fmt)=(?:webp|avif)", re.IGNORECASE)


def nearest(images: Iterable[Image]) -> Image | None:
    """The image to take: JPEG or PNG before what mail programs cannot show, then the width nearest to 1,200 pixels.

    One that would be blurred comes after those that are too wide, one that says no width last; of equals the first
    stands.
    """
    return min(images, key=_unfitness, default=None)


def _unfitness(image: Image) -> tuple[bool, bool, bool, int]:
    width = image.width or 0
    return bool(_MODERN.search(image.url)), not width, width < WIDTH // 2, abs(width - WIDTH)


def picture_of(named: Image | None, body: str, base: str, title: str) -> Image | None:
    """The image that the source names, else the first of the clean *body* that is more than an icon.

    An alternative text that is another publisher's headline ("… – MSN") is a credit, and never said of our picture.
    """
    found = _named(named, base) or _first_of(body, base)
    if found is None:
        return None
    foreign = signed(found.alt)
    if foreign is None or len(foreign[0].split()) < _HEADLINE:
        return found
    return replace(found, alt=title, credit=found.credit or foreign[1])


def _named(image: Image | None, base: str) -> Image | None:
    if image is None or (found := _picture(image.url, base)) is None:
        return None
    alt, credit = clean_title(image.alt), clean_title(image.credit)
    return Image(found, size(image.width), size(image.height), alt, credit)


def _first_of(body: str, base: str) -> Image | None:
    for match in SAFE_IMG.finditer(body):
        inside = {name: entities.unescape(value) for name, value in IMG_ATTRIBUTE.findall(match[1])}
        width, height = size(inside.get("width")), size(inside.get("height"))
        if min(width or 999, height or 999) >= 50 and (found := _picture(inside.get("src", ""), base)):
            return Image(found, width, height, clean_title(inside.get("alt", "")))
    return None


def _picture(address: str, base: str) -> str | None:
    """An image's address as it was given, if it is one: a server may want its parameters untouched."""
    found = resolve(address, base)
    return found if found and normal_url(found) else None


def size(value: object) -> int | None:
    """A width or height in pixels, if it is one."""
    text = str(value or "")
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text[:9]) < 100_000 else None


# ----------------------------------------------------------------------------- srcset

_IMG = re.compile(r"<img\b[^<>]*>", re.IGNORECASE)
_SRCSET = re.compile(r"\s(?:data-(?:lazy-)?)?srcset=([\"'])(.*?)\1", re.IGNORECASE | re.DOTALL)
_SRC = re.compile(r"\ssrc=([\"'])(.*?)\1", re.IGNORECASE | re.DOTALL)
_CANDIDATE = re.compile(r"\s*+([^\s,][^\s]{0,2000})\s++(\d{1,5})w\s*+(?:,|$)")  # HTML §4.8.4.2.1, widths alone


def with_best_sizes(html: str) -> str:
    """Give images of which a source has several sizes the one nearest to 1,200 pixels."""
    return _IMG.sub(_sized, html) if "srcset=" in html else html


def _sized(match: re.Match[str]) -> str:
    tag = match[0]
    listed, own = _SRCSET.search(tag), _SRC.search(tag)
    if listed is None:
        return tag
    choices = [Image(address, int(width)) for address, width in _CANDIDATE.findall(listed[2][:20_000])]
    best = nearest(choices)
    if best is None or (own is not None and own[2] not in {c.url for c in choices}):
        return tag  # an image that is none of the sizes may be another picture
    source = f' src="{best.url.replace(chr(34), "%22")}"'
    return tag[: own.start()] + source + tag[own.end() :] if own else f"{tag[:4]}{source}{tag[4:]}"
