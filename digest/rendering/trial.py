"""A layout is tried out before any mail is made with it: an edition with every oddity, in both parts.

Owns the sample edition and what must hold of any layout. Runs in the compiler's child process, under its limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

from digest.errors import RenderError
from digest.rendering import sandbox
from digest.rendering.layout import BLOCKS, Dressed, Layout, build
from digest.rendering.source import Source
from digest.rendering.view import shell_values, story_values
from digest.rendering.words import Words, load_words
from digest.types import (
    HTML_BUDGET,
    PREVIEW,
    ArticleCard,
    Brand,
    Dress,
    EditionView,
    Format,
    Image,
    RenderedVariant,
    Section,
    StoryCard,
)

_WHEN = datetime(2026, 7, 14, 7, 0, tzinfo=UTC)
_FULL = ArticleCard(
    id=1, title="A title with <tags> & “quotes”", url="https://news.example/a?b=1&c=2", excerpt="What it is about.",
    image=Image("https://news.example/a.jpg", 1200, 600, "A picture"), authors=("Ada", "Bo"), published_at=_WHEN,
    category="Science",
)  # fmt: skip
_BARE = ArticleCard(id=2, title="Without anything else", url="javascript:void(0)")
_TALL = replace(_FULL, id=3, image=Image("https://news.example/t.jpg", 300, 600))
SAMPLE_SECTIONS = (
    Section("", (StoryCard(_FULL, (_BARE, _TALL)), StoryCard(_BARE))),
    Section("Science", (StoryCard(_TALL),)),
)
SAMPLE_VIEW = EditionView(
    edition_id=1, digest_slug="morning", digest_name="Morning & evening", layout="", local_date=_WHEN,
    archive_url="https://news.example/archive/morning/2026-07-14", home_url="https://news.example/",
    brand=Brand("The News", "https://news.example/", logo_url="https://news.example/logo.png",
                logo_dark_url="https://news.example/dark.png", postal_address="1 Street\nTown",
                footer_links=(("Imprint", "https://news.example/imprint"),),
                social_links=(("Mastodon", "https://social.example/@news"),)),
    intro="Good *morning*, **all**.\n\n* one\n* [two](https://news.example/two)", closing="Bye.",
    sponsor="![Logo](https://sponsor.example/logo.png) [Sponsor](https://sponsor.example/)",
)  # fmt: skip


def try_out(name: str, html: str | Source, text: Source, settings: Mapping[str, str]) -> None:
    """Raise RenderError unless the layout renders, whole and in fragments, to the same mail.

    *html*: what was compiled; or the MJML itself, whose lines are those of its files.
    """
    words = {"en": load_words((), "en")}
    layout = build(name, "", html, text, settings, words)
    for template, part in ((layout.html, "edition.mjml"), (layout.text, "edition.txt")):
        if missing := [block for block in BLOCKS if block not in template.blocks]:
            raise RenderError(f"templates/email/{layout.name}/{part}: block {missing[0]!r} is missing")
    bare_view = replace(SAMPLE_VIEW, brand=Brand("", ""), archive_url="", home_url="")
    for view, sections, more in product((SAMPLE_VIEW, bare_view), (SAMPLE_SECTIONS, ()), (0, 3)):
        roomy = _agrees(layout, view, sections, more, HTML_BUDGET)
        _agrees(layout, view, sections, more, roomy.html_size)  # which is a little under its costs
        _agrees(layout, view, sections, more, 0)


def _agrees(
    layout: Layout, view: EditionView, sections: tuple[Section, ...], more: int, budget: int
) -> RenderedVariant:
    dressed = layout.open(view, Dress("en", Format.HTML), budget)
    rendered = dressed.assemble(sections, more=more, had=more)
    for part, joined in (("edition.mjml", rendered.html), ("edition.txt", rendered.text)):
        if joined != whole(dressed, part, sections, more, more, rendered):
            raise RenderError(
                f"templates/email/{layout.name}/{part}: something stands between the blocks 'section', 'card' and"
                " 'more' inside 'stories', or a block uses what is set outside of it"
            )
    return rendered


def whole(
    dressed: Dressed, part: str, sections: tuple[Section, ...], more: int, had: int, rendered: RenderedVariant
) -> str:
    """Render a part at once, loops and all, as one would without fragments. Shows what they must add up to."""
    layout = dressed.layout
    template = layout.html if part == "edition.mjml" else layout.text
    words = layout.words[dressed.dress.language]
    forms = dressed.forms(sections, more, had)
    values = whole_values(dressed.view, words, sections, forms, more=more, had=had if "had" in layout.optional else 0)
    values |= {"subject": rendered.subject, "preheader": rendered.preheader}
    with sandbox.explained(f"templates/email/{layout.name}/{part}"):
        return sandbox.render(template, values)


def whole_values(
    view: EditionView, words: Words, sections: Sequence[Section], forms: Sequence[str], *, more: int = 0, had: int = 0
) -> dict[str, Any]:
    """What a template sees that is rendered at once, but for its subject and preheader."""
    count = sum(len(section.stories) for section in sections)
    form = iter(forms)
    listed = [
        {
            "title": section.title,
            "stories": [
                story_values(
                    s, view, words, kicker=s.lead.category.casefold() != section.title.casefold(), form=next(form)
                )
                for s in section.stories
            ],
        }
        for section in sections
    ]
    return {
        **shell_values(view, words), **PREVIEW,
        "sections": listed, "tally": words.count("stories", count) if count else words.plain["nothing"],
        "more": {"number": more, "text": words.count("more", more)} if more else None,
        "had": {"number": had, "text": words.count("had", had)} if had else None,
    }  # fmt: skip
