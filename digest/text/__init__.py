"""From hostile strings to text we can store, show, mail and put into feeds.

Owns decoding, control characters, titles, slugs, canonical URLs, the HTML allow-list, plain text and excerpts. Knows
nothing of where a text came from and reads no clock and no network: the same input gives the same output.

    clean(raw)    address → body → title → excerpt → image
    a body        controls out → cap 512 KB, depth 200 → mend debris → shortcodes → boilerplate → nh3, links absolute
"""

from __future__ import annotations

import html as entities
import re
from urllib.parse import unquote, urlsplit

from digest.text.addresses import canonical_url, normal_url, resolve
from digest.text.characters import charset, decode, strip_controls
from digest.text.clues import alternative_texts, clue_title, clue_url, without_publisher
from digest.text.debris import IMG_ATTRIBUTE, SAFE_IMG, mend
from digest.text.markup import paragraphs, safe_html, sanitize
from digest.text.prose import count_words, cut_sentence, excerpt, plain
from digest.text.titles import clean_title, shorten, slugify
from digest.types import CleanArticle, Image, RawArticle, Skipped

__all__ = [
    "alternative_texts",
    "canonical_url",
    "charset",
    "clean",
    "clean_title",
    "clue_title",
    "clue_url",
    "count_words",
    "cut_sentence",
    "decode",
    "mend",
    "paragraphs",
    "plain",
    "resolve",
    "sanitize",
    "shorten",
    "slugify",
    "strip_controls",
    "without_publisher",
]


def clean(raw: RawArticle) -> CleanArticle | Skipped:
    """Return *raw* as it may be stored and shown, or why it cannot be.

    The body of a withheld article is dropped here: its password protects it on the site, so it goes nowhere.
    """
    link = raw.url or raw.guid or ""
    url, canonical = normal_url(link, raw.base_url), canonical_url(link, raw.base_url)
    if url is None or canonical is None:
        return Skipped("no_link", clean_title(raw.title, limit=80) or strip_controls(link)[:200], "no http(s) address")
    base = (raw.base_url and normal_url(raw.base_url)) or url
    body, repaired = ("", False) if raw.withheld else safe_html(raw.body_html, base)
    text = plain(body)
    title = clean_title(raw.title, is_html=raw.title_is_html) or _title_from(text, canonical)
    if not title:
        return Skipped("empty", url, "neither title nor text")
    return CleanArticle(
        title=title, url=url, canonical_url=canonical, body_html=body, body_text=text,
        excerpt="" if raw.withheld else excerpt(raw.excerpt_html, body, text),
        word_count=count_words(text), image=None if raw.withheld else _image(raw, body, base), repaired=repaired,
    )  # fmt: skip


def _title_from(text: str, url: str) -> str:
    """Return the first words of *text*, else the last part of the path of *url*."""
    if text:
        return shorten(" ".join(text[:400].split()), 80)
    last = unquote(urlsplit(url).path, errors="replace").strip("/").rpartition("/")[2]
    words = re.sub(r"\.\w{1,5}$|[\W_]+", " ", last).strip()
    return clean_title(words[:1].upper() + words[1:], is_html=False)


def _image(raw: RawArticle, body: str, base: str) -> Image | None:
    """Return the image the source names, else the first of the body that is more than an icon."""
    if raw.image and (found := _picture(raw.image.url, base)):
        alt, credit = clean_title(raw.image.alt), clean_title(raw.image.credit)
        return Image(found, _size(raw.image.width), _size(raw.image.height), alt, credit)
    for match in SAFE_IMG.finditer(body):
        inside = {name: entities.unescape(value) for name, value in IMG_ATTRIBUTE.findall(match[1])}
        width, height = _size(inside.get("width")), _size(inside.get("height"))
        if min(width or 999, height or 999) >= 50 and (found := _picture(inside.get("src", ""), base)):
            return Image(found, width, height, clean_title(inside.get("alt", "")))
    return None


def _picture(address: str, base: str) -> str | None:
    """An image's address as it was given, if it is one: a server may want its parameters untouched."""
    found = resolve(address, base)
    return found if found and normal_url(found) else None


def _size(value: object) -> int | None:
    text = str(value or "")
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text[:9]) < 100_000 else None
