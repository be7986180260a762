"""Editions of every size in three languages, for looking at: screenshots, gates, accessibility.

Texts in German and Arabic (tests/data/rendering/gallery.json) were written for these tests; the English ones are real.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path

from digest.rendering import Renderer
from digest.types import ArticleCard, Dress, EditionView, RenderedVariant, Section, StoryCard
from tests.mail_sample import BRAND, VIEW, WHEN, cards

LAYOUTS = ("briefing", "cards", "headlines", "hero")
LANGUAGES = ("en", "de", "ar")
SIZES = (3, 12, 40, 100)
PICTURES = "https://news.example/pictures"

_ROWS = json.loads((Path(__file__).parent / "data" / "rendering" / "gallery.json").read_text("utf-8"))
_PEOPLE = {"de": ("Jana Petersen", "Mehmet Öztürk"), "ar": ("ليلى حداد", "سامي نصّار")}
_SECTIONS = {
    "en": ("Top stories", "Security", "Accessibility"),
    "de": ("Das Wichtigste", "Aus der Stadt", "Leben"),
    "ar": ("أهم الأخبار", "من المدينة", "حياة"),
}
_NAMES = {"en": "The Morning Digest", "de": "Der Morgenüberblick", "ar": "نشرة الصباح"}
_INTRO = {
    "en": "Good morning. The harbour is **open again**, and so is the [question](https://news.example/q) who pays.",
    "de": "Guten Morgen. Der Hafen ist **wieder frei**, und wer zahlt, ist die [Frage](https://news.example/q).",
    "ar": "صباح الخير. الميناء **مفتوح من جديد**، ويبقى [السؤال](https://news.example/q) عمّن يدفع.",
}
_SPONSOR = {
    "en": "**Acme** keeps the lights on. [Look inside](https://acme.example/)",
    "de": "**Acme** lässt das Licht an. [Hineinschauen](https://acme.example/)",
    "ar": "**أكمي** تُبقي الأنوار مضاءة. [ألقِ نظرة](https://acme.example/)",
}
_CLOSING = {"en": "*Until tomorrow.*", "de": "*Bis morgen.*", "ar": "*إلى الغد.*"}
_FOOTER = {"en": ("About us", "Privacy"), "de": ("Impressum", "Datenschutz"), "ar": ("من نحن", "الخصوصية")}


def view(language: str, layout: str = "cards", pictures: str = PICTURES, **changes: object) -> EditionView:
    about, privacy = _FOOTER[language]
    brand = replace(
        BRAND, language=language,
        logo_url=f"{pictures}/logo-day-360x72.svg", logo_dark_url=f"{pictures}/logo-night-360x72.svg", logo_width=180,
        social_links=(("Mastodon", "https://social.example/@news"), ("Bluesky", "https://sky.example/news")),
        footer_links=((about, "https://news.example/about"), (privacy, "https://news.example/privacy")),
    )  # fmt: skip
    said = {
        "brand": brand, "layout": layout, "digest_name": _NAMES[language], "intro": _INTRO[language],
        "sponsor": _SPONSOR[language], "closing": _CLOSING[language],
    }  # fmt: skip
    return replace(VIEW, **said | changes)  # type: ignore[arg-type]


def articles(language: str, count: int, pictures: str = PICTURES) -> list[ArticleCard]:
    """*count* different articles; their texts come round again, marked by a number."""
    if language == "en":
        kinds = cards(pictures)
    else:
        english = cards(pictures)
        kinds = [
            replace(
                english[n], title=row["title"], excerpt=row["excerpt"], category=row["topic"],
                authors=_PEOPLE[language][: 1 + n % 2],
            )
            for n, row in enumerate(_ROWS[language])
        ]  # fmt: skip
        kinds = [replace(c, image=c.image and replace(c.image, alt=c.category)) for c in kinds]
    made = []
    for n in range(count):
        kind, turn = kinds[n % len(kinds)], n // len(kinds)
        made.append(
            replace(
                kind, id=n + 1, title=f"{kind.title} ({turn + 1})" if turn else kind.title,
                url=f"https://news.example/{language}/{n + 1}",
                published_at=WHEN.astimezone(UTC) - timedelta(hours=3 * n + 1),
            )
        )  # fmt: skip
    return made


def sections(language: str, count: int, pictures: str = PICTURES) -> tuple[Section, ...]:
    """Three sections; the first story has two that tell the same, where there are enough."""
    found = articles(language, count, pictures)
    stories = (
        [StoryCard(found[0], tuple(found[-2:])), *map(StoryCard, found[1:-2])]
        if count > 5
        else list(map(StoryCard, found))
    )
    third = -(-len(stories) // 3)
    names = _SECTIONS[language]
    return tuple(
        Section(names[n], tuple(part)) for n in range(3) if (part := stories[n * third : (n + 1) * third])
    )  # fmt: skip


def mail(layout: str, language: str, count: int, pictures: str = PICTURES, **changes: object) -> RenderedVariant:
    dressed = Renderer().layout(layout).open(view(language, layout, pictures, **changes), Dress(language))
    return dressed.assemble(sections(language, count, pictures), had=3)


__all__ = ["LANGUAGES", "LAYOUTS", "SIZES", "articles", "mail", "sections", "view"]
