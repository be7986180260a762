"""What templates see: an edition and its stories as plain dicts of clean text and safe links.

Owns the step from frozen data to template values: links that are not absolute http(s) are taken out, texts are cleaned
and capped, pictures get a shape. A template never meets an object of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from digest.errors import RenderError
from digest.rendering.links import OwnLinks, own_links, safe_link, safe_url
from digest.rendering.palette import palette
from digest.rendering.words import Words
from digest.text import cut_sentence, markdown
from digest.types import ArticleCard, Brand, EditionView, Image, Section, StoryCard

MAX_TITLE = 300
MAX_EXCERPT = 500
MAX_BRIEF = 150  # two lines of a mail
MAX_ALSO = 5
#: What looks like a value that somebody forgot to fill in, in this or another program's way of writing it.
PLACEHOLDER = re.compile(
    r"\{\{.{0,80}?\}\}|\{%.{0,80}?%\}|\*\|\w{1,40}\|\*|%%\w{1,30}%%|%[A-Z_]{4,30}%|\[\[\w{1,40}\]\]"
)
MAX_PROSE = 4_000  # characters of an intro, a closing text, a sponsor's
_SERIF = "Georgia, 'Times New Roman', Times, serif"
_SANS = "-apple-system, BlinkMacSystemFont, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
#: Typefaces that readers have; no font is loaded.
FONTS = {
    "mixed": {"heads": _SERIF, "text": _SANS},
    "sans": {"heads": _SANS, "text": _SANS},
    "serif": {"heads": _SERIF, "text": _SERIF},
}
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+")


def clean(text: str, limit: int) -> str:
    """One line without controls, at most *limit* characters."""
    if len(text) <= limit and text.isprintable() and "  " not in text:
        return text.strip(" ")  # as nearly all there is
    line = " ".join(_CONTROLS.sub(" ", text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def brand_values(brand: Brand, link: Callable[[str], str] = safe_url) -> dict[str, Any]:
    """*link*: what makes a link of an address; a mail's adds parameters to the publication's own."""

    def listed(links: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
        return [{"label": clean(label, 80), "url": link(url)} for label, url in links]

    return {
        "name": clean(brand.name, MAX_TITLE),
        "url": safe_url(brand.url),
        "logo_url": safe_url(brand.logo_url),
        "logo_dark_url": safe_url(brand.logo_dark_url),
        "logo_width": brand.logo_width,
        "postal_address": [line for raw in brand.postal_address.splitlines() if (line := clean(raw, 200))],
        "footer_links": listed(brand.footer_links),
        "social_links": listed(brand.social_links),
    }


def shell_values(view: EditionView, words: Words) -> dict[str, Any]:
    """What stands around the stories: the same for all variants of an edition in one language."""
    rtl = words.direction == "rtl"
    link = own_links(view)
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
            "day": view.local_date.date().isoformat(),
            "url": link(view.archive_url),
        },
        "home_url": link(view.brand.site_url or view.home_url),
        "brand": brand_values(view.brand, link),
        "colour": palette(view.brand.accent),
        "font": FONTS.get(view.brand.font, FONTS["mixed"]),
        "opening": prose(view.intro, link),
        "closing": prose(view.closing, link),
        "sponsor": prose(view.sponsor, link),
    }


def check_prose(source: str, what: str) -> None:
    """Raise RenderError unless *source* can stand in a mail: Markdown, not too long, nothing left to be filled in."""
    if len(source) > MAX_PROSE:
        raise RenderError(f"the {what} is longer than {MAX_PROSE} characters; a mail has little room for it")
    if found := PLACEHOLDER.search(source):
        raise RenderError(f"the {what} says {found[0]!r}, but nothing is filled in there; write it out")


def prose(source: str, link: OwnLinks) -> list[dict[str, Any]]:
    """What an admin wrote in Markdown, as blocks of plain words: a template prints and styles them."""
    made = []
    for block in markdown.blocks(source[:MAX_PROSE]):
        image = safe_url(block.image)
        runs = [_run(run, link) for run in block.runs]
        if image or runs:
            made.append(
                {
                    "bullet": block.bullet, "runs": runs, "text": "".join(_said(run) for run in runs),
                    "image": image, "alt": clean(block.alt, 200), "url": _linked(block.url, link),
                }
            )  # fmt: skip
    return made


def _run(run: markdown.Run, link: OwnLinks) -> dict[str, Any]:
    text = _CONTROLS.sub(" ", run.text)
    return {"text": text, "url": _linked(run.url, link), "strong": run.strong, "emphasis": run.emphasis}


def _linked(url: str, link: OwnLinks) -> str:
    return link(url) or safe_link(url)


def _said(run: dict[str, Any]) -> str:
    """As plain text says it: an address behind the words it belongs to."""
    text, url = run["text"], run["url"]
    return f"{text} ({url})" if url and url not in (text, f"mailto:{text}") else str(text)


def story_values(
    story: StoryCard,
    view: EditionView,
    words: Words,
    *,
    kicker: bool = True,
    form: str = "card",
    link: OwnLinks | None = None,
) -> dict[str, Any]:
    """One story. ``kicker``: show the category above the title. ``form``: how much of it the mail has room for.

    ``link``: `own_links` of the view, from those who have many stories.
    """
    lead, link = story.lead, link or own_links(view)
    values = article_values(lead, link)
    return {
        **values,
        "form": form,
        "kicker": values["category"] if kicker else "",
        "byline": byline(lead.authors, words),
        "date": _together(words.short_date(lead.published_at, view.local_date)) if lead.published_at else "",
        "brief": cut_sentence(values["excerpt"], MAX_BRIEF),
        "picture": picture(lead.image),
        "also": [article_values(article, link) for article in story.also[:MAX_ALSO]],
    }


def _together(date: str) -> str:
    """No line ends between a day and its month."""
    return date.replace(" ", "\u00a0")


def article_values(article: ArticleCard, link: Callable[[str], str] = safe_url) -> dict[str, Any]:
    return {
        "title": clean(article.title, MAX_TITLE) or clean(article.url, MAX_TITLE) or "…",
        "url": link(article.url),
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
        "edition": {"id": view.edition_id, "date": words.full_date(view.local_date), "url": view.archive_url,
                    "day": view.local_date.date().isoformat()},
        "brand": {"name": clean(view.brand.name, MAX_TITLE), "url": view.brand.url},
    }  # fmt: skip


@lru_cache(maxsize=512)
def _lead_values(lead: ArticleCard) -> dict[str, Any]:
    """The same few articles lead all variants of an edition."""
    return article_values(lead)


def story_line_values(sections: Sequence[Section]) -> dict[str, Any]:
    leads = [story.lead for section in sections for story in section.stories]
    empty = {"title": "", "url": "", "excerpt": "", "category": "", "author": ""}
    return {
        "lead": _lead_values(leads[0]) if leads else empty,
        "others": [clean(lead.title, MAX_TITLE) for lead in leads[1:4]],
        "count": len(leads),
    }
