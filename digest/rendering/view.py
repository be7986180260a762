"""What templates see: an edition and its stories as plain dicts of clean text and safe links.

Owns the step from frozen data to template values: links that are not absolute http(s) are taken out, texts are cleaned
and capped, pictures get a shape. A template never meets an object of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from digest.rendering.palette import palette
from digest.rendering.words import Words
from digest.types import ArticleCard, Brand, EditionView, Image, Section, StoryCard

MAX_URL = 2_000
MAX_TITLE = 300
MAX_EXCERPT = 500
MAX_ALSO = 5
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+")
_NOT_IN_URL = re.compile("[\x00-\x20\x7f-\x9f\"'<>\\\\^`{|}\u2028\u2029\ud800-\udfff]")


def clean(text: str, limit: int) -> str:
    """One line without controls, at most *limit* characters."""
    line = " ".join(_CONTROLS.sub(" ", text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def safe_url(url: str) -> str:
    """Return *url* if it is an absolute http(s) link that can stand in an attribute, else ``""``."""
    url = url.strip()
    if len(url) > MAX_URL or _NOT_IN_URL.search(url):
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme.lower() in ("http", "https") and parts.hostname else ""


def brand_values(brand: Brand) -> dict[str, Any]:
    return {
        "name": clean(brand.name, MAX_TITLE),
        "url": safe_url(brand.url),
        "logo_url": safe_url(brand.logo_url),
        "postal_address": [line for raw in brand.postal_address.splitlines() if (line := clean(raw, 200))],
        "footer_links": [{"label": clean(label, 80), "url": safe_url(url)} for label, url in brand.footer_links],
    }


def shell_values(view: EditionView, words: Words) -> dict[str, Any]:
    """What stands around the stories: the same for all variants of an edition in one language."""
    rtl = words.direction == "rtl"
    return {
        "lang": words.language,
        "dir": words.direction,
        "start": "right" if rtl else "left",
        "end": "left" if rtl else "right",
        "arrow": "←" if rtl else "→",
        "words": dict(words.plain),
        "digest": {"name": clean(view.digest_name, MAX_TITLE), "slug": view.digest_slug},
        "edition": {
            "id": view.edition_id,
            "date": words.full_date(view.local_date),
            "url": safe_url(view.archive_url),
        },
        "home_url": safe_url(view.home_url),
        "brand": brand_values(view.brand),
        "colour": palette(view.brand.accent),
    }


def story_values(story: StoryCard, view: EditionView, words: Words, *, kicker: bool = True) -> dict[str, Any]:
    """One story. ``kicker``: show the category above the title."""
    lead = story.lead
    return {
        **article_values(lead),
        "kicker": clean(lead.category, 80) if kicker else "",
        "byline": byline(lead.authors, words),
        "date": words.short_date(lead.published_at, view.local_date) if lead.published_at else "",
        "picture": picture(lead.image),
        "also": [article_values(article) for article in story.also[:MAX_ALSO]],
    }


def article_values(article: ArticleCard) -> dict[str, Any]:
    return {
        "title": clean(article.title, MAX_TITLE) or clean(article.url, MAX_TITLE) or "…",
        "url": safe_url(article.url),
        "excerpt": clean(article.excerpt, MAX_EXCERPT),
        "category": clean(article.category, 80),
        "author": clean(", ".join(article.authors), 200),
    }


def byline(authors: Sequence[str], words: Words) -> str:
    names = [name for raw in authors[:4] if (name := clean(raw, 80))]
    if not names:
        return ""
    if len(names) > 1:
        joined = words.plain["and"].replace("{rest}", ", ".join(names[:-1])).replace("{last}", names[-1])
    else:
        joined = names[0]
    return words.plain["by"].replace("{authors}", joined)


def picture(image: Image | None) -> dict[str, Any] | None:
    """``wide`` pictures may take the whole width; a tall, square or small one stands beside the text.

    Mail programs cannot crop, so a portrait at full width would push everything else off the screen.
    """
    if image is None or not (url := safe_url(image.url)):
        return None
    width, height = image.width or 0, image.height or 0
    if width and width < 80:
        return None  # an icon or a tracking pixel
    wide = not (width and width < 400) and not (width and height and height > 0.8 * width)
    return {"url": url, "wide": wide, "alt": clean(image.alt, 200), "credit": clean(image.credit, 120)}


def line_values(view: EditionView, words: Words) -> dict[str, Any]:
    """What every subject and preheader template of an edition sees; ``story_line_values`` adds the stories."""
    return {
        "digest": {"name": clean(view.digest_name, MAX_TITLE), "slug": view.digest_slug},
        "edition": {"id": view.edition_id, "date": words.full_date(view.local_date), "url": view.archive_url},
        "brand": {"name": clean(view.brand.name, MAX_TITLE), "url": view.brand.url},
    }


def story_line_values(sections: Sequence[Section]) -> dict[str, Any]:
    leads = [story.lead for section in sections for story in section.stories]
    empty = {"title": "", "url": "", "excerpt": "", "category": "", "author": ""}
    return {
        "lead": article_values(leads[0]) if leads else empty,
        "others": [clean(lead.title, MAX_TITLE) for lead in leads[1:4]],
        "count": len(leads),
    }
