"""From hostile strings to text we can store, show, mail and put into feeds.

Owns decoding, control characters, titles, slugs, canonical URLs, the HTML allow-list, plain text and excerpts. Knows
nothing of where a text came from and reads no clock and no network: the same input gives the same output.

    clean(raw)    address → body → title → excerpt → image
    a body        controls out → cap 512 KB, depth 200 → mend debris → shortcodes → best sizes of images → boilerplate
                  → nh3, links absolute → what is left of boilerplate
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

from digest.text.addresses import canonical_url, normal_url, resolve
from digest.text.characters import charset, decode, strip_controls
from digest.text.clues import alternative_texts, clue_title, clue_url, without_publisher
from digest.text.debris import mend
from digest.text.images import nearest, picture_of
from digest.text.markup import paragraphs, safe_html, sanitize
from digest.text.prose import count_words, counted, cut_sentence, excerpt, plain
from digest.text.titles import clean_title, shorten, slugify
from digest.types import CleanArticle, Enclosure, Image, RawArticle, Skipped

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
    "nearest",
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
    url = canonical = normal_url(link, raw.base_url)
    if url is not None and "#" in url:
        canonical = canonical_url(link, raw.base_url)
    if url is None or canonical is None:
        return Skipped("no_link", clean_title(raw.title, limit=80) or strip_controls(link)[:200], "no http(s) address")
    base = (raw.base_url and normal_url(raw.base_url)) or url
    body, repaired = ("", False) if raw.withheld else safe_html(raw.body_html, base)
    (text, words), picture = counted(body), None
    title = clean_title(raw.title, is_html=raw.title_is_html) or _title_from(text, canonical)
    if not title:
        return Skipped("empty", url, "neither title nor text")
    if not raw.withheld:
        picture = picture_of(raw.image, body, base, title)
    return CleanArticle(
        title=title, url=url, canonical_url=canonical, body_html=body, body_text=text,
        excerpt="" if raw.withheld else excerpt(raw.excerpt_html, body, text, raw.description),
        word_count=words, image=picture, enclosures=() if raw.withheld else tuple(_enclosures(raw.enclosures, base)),
        repaired=repaired, clue_title=clue_title(_alts(raw, picture, body)),
        clue_url=clue_url(body, canonical),
    )  # fmt: skip


_MEDIA_TYPE = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]{0,80}\Z")
_ENCLOSURES_MOST = 10


def _enclosures(given: Iterable[Enclosure], base: str) -> Iterator[Enclosure]:
    """Those at an address, of a media type, each once; pictures are shown as such."""
    known: set[str] = set()
    for one in itertools.islice(given, _ENCLOSURES_MOST):
        url, kind = normal_url(one.url, base), one.type.partition(";")[0].strip().lower()
        if url is not None and url not in known and _MEDIA_TYPE.match(kind) and not kind.startswith("image/"):
            known.add(url)
            yield Enclosure(url, kind, max(one.length, 0))


def _alts(raw: RawArticle, picture: Image | None, body: str) -> Iterator[str]:
    """The alternative texts of an article's images: the one it is shown with first."""
    yield from (image.alt for image in (raw.image, picture) if image is not None)
    yield from alternative_texts(body)


def _title_from(text: str, url: str) -> str:
    """Return the first words of *text*, else the last part of the path of *url*."""
    if text:
        return shorten(" ".join(text[:400].split()), 80)
    last = unquote(urlsplit(url).path, errors="replace").strip("/").rpartition("/")[2]
    words = re.sub(r"\.\w{1,5}$|[\W_]+", " ", last).strip()
    return clean_title(words[:1].upper() + words[1:], is_html=False)
