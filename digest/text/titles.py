"""Headlines, names and slugs: short plain text."""

from __future__ import annotations

import html as entities
import re
import unicodedata
from functools import lru_cache
from urllib.parse import unquote

from digest.text.characters import strip_controls
from digest.text.tags import KNOWN, either

MAX_TITLE = 300
MAX_SLUG = 100

_KNOWN_TAG = re.compile(rf"</?(?:{either(KNOWN)})(?:[\s/][^<>]*)?/?>|<!--.*?(?:-->|\Z)", re.IGNORECASE | re.DOTALL)
SCRIPT = re.compile(r"<(script|style|template|svg)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TWICE_ESCAPED = re.compile(r"&(?:amp;)?(?:#\d+|#x[0-9a-f]+|amp);", re.IGNORECASE)
_NUMERIC = re.compile(r"&#\d+;")


def clean_title(text: str, *, is_html: bool = True, limit: int = MAX_TITLE) -> str:
    """Return a headline as one line of plain text of at most *limit* characters; it may come out empty.

    Only tags that HTML knows are markup: "<HNH>" in a headline is a ticker. A plain-text title is unescaped only if
    it holds numeric references, which nobody means.
    """
    text = strip_controls(text[: 20 * limit])
    if is_html or _NUMERIC.search(text):
        text = entities.unescape(text)
        if _TWICE_ESCAPED.search(text):
            text = entities.unescape(text)
        text = strip_controls(text)  # an entity can spell a control character
    if is_html:
        text = _KNOWN_TAG.sub("", SCRIPT.sub("", text))
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return shorten(text, limit)


def shorten(text: str, limit: int) -> str:
    """Return *text*, or its beginning up to a word end with "…", in at most *limit* characters."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    cut = head.rfind(" ")
    return (head[:cut] if cut > limit // 2 else head).rstrip(" ,;:–-") + "…"


_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")


def slugify(text: str, limit: int = MAX_SLUG) -> str:
    """Return the slug of a name, or a slug as it is; empty only for a name without a visible character.

    As WordPress makes them: lower case, accents off Latin letters, dashes between words; a slug that it percent-encoded
    is read back, so that the letters of other scripts stay readable. A name of symbols alone gives their code points.
    """
    return _slug(text[: 10 * limit], limit)


@lru_cache(maxsize=4_096)  # a site has the same few names on every article
def _slug(text: str, limit: int) -> str:
    text = strip_controls(text)
    if "%" in text:
        text = unquote(text, errors="replace")
    text = unicodedata.normalize("NFKD", strip_controls(text).lower().translate(_LETTERS))
    text = unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", text)).lower()
    text = _APOSTROPHE.sub("", text)
    kept = "".join(c if c == "_" or unicodedata.category(c)[0] in "LNM" else "-" for c in text)
    slug = re.sub("-{2,}", "-", kept).strip("-")
    if not slug and text.strip():
        slug = "-".join(f"u{ord(c):x}" for c in text.split()[0][:8])
    if len(slug) > limit:
        slug = slug[:limit].rpartition("-")[0] or slug[:limit]
    return slug.strip("-")
