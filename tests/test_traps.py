"""What exports hold and importers trip over, one test a trap: on a small export, and on the whole one beside it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from digest import catalogue, ingest
from digest import models as m
from digest.config import Settings
from digest.db import Database
from digest.fetch import Fetcher
from digest.sources import KINDS, wppost
from digest.text import clean
from digest.types import CleanArticle, RawArticle, Skipped, TopicKind

SMALL = Path(__file__).parent / "data" / "traps"
WHOLE = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "wxr-capital"
FILES = {"small": (SMALL / "traps.xml.gz", SMALL / "traps.json")}
if WHOLE.is_dir():
    FILES["whole"] = (WHOLE / "digitalgov-2k.xml.gz", WHOLE / "digitalgov-2k.manifest.json")


@dataclass(frozen=True)
class Export:
    traps: dict[str, list[Any]]
    now: datetime
    articles: dict[int, tuple[RawArticle, CleanArticle]]
    skipped: Counter[str]


@cache
def export(name: str) -> Export:
    path, manifest = FILES[name]
    told = json.loads(manifest.read_text())
    found: dict[int, tuple[RawArticle, CleanArticle]] = {}
    skipped: Counter[str] = Counter()
    for raw in KINDS["wxr"](str(path), {}, Fetcher(Settings.load(None, {}).fetch)).fetch({}).items:
        if isinstance(raw, Skipped):
            skipped[raw.reason] += 1
            continue
        made = clean(raw)
        assert isinstance(made, CleanArticle), raw
        assert raw.native_id
        assert found.setdefault(int(raw.native_id), (raw, made)) == (raw, made), "an id comes once"
    return Export(told["traps"], datetime.fromisoformat(told["now"]), found, skipped)


@pytest.fixture(params=FILES)
def given(request: pytest.FixtureRequest) -> Export:
    return export(request.param)


def trapped(given: Export, trap: str) -> list[tuple[RawArticle, CleanArticle]]:
    found = [given.articles[number] for number in given.traps[trap]]
    assert found
    return found


def test_broken_html(given: Export) -> None:
    for _, made in trapped(given, "broken_html"):
        assert made.repaired
        tail = made.body_text[made.body_text.rindex("Cultivating Synergy") :]
        assert not re.search(r"[<>]", tail), tail
        for words in ("Operations: planned work.", "Secure lines.", "Shared Resource Management:", "Joint efforts."):
            assert words in tail
        assert "<li><strong>Shared Resource Management:</strong> Coordinated utilization.</li>" in made.body_html
    others = [n for n, (_, c) in given.articles.items() if c.repaired and n not in given.traps["broken_html"]]
    assert len(others) <= len(given.articles) / 1_000, "one of the real articles has a '>' too many"


def test_cdata_end(given: Export) -> None:
    for _, made in trapped(given, "cdata_end"):
        assert made.body_text.endswith("Literal CDATA end ]]> and <tag> and bare & ampersand.")
        assert "]]&gt; and &lt;tag&gt; and bare &amp; ampersand." in made.body_html


def test_co_author(given: Export) -> None:
    both = [raw.authors for raw, _ in trapped(given, "co_author")]
    assert all(len(set(names)) == len(names) and 1 <= len(names) <= 2 for names in both)
    assert any(len(names) == 2 for names in both)
    assert not any("@" in name or name.islower() for raw, _ in given.articles.values() for name in raw.authors)


def test_empty_body(given: Export) -> None:
    for raw, made in trapped(given, "empty_body"):
        assert (made.body_html, made.body_text, made.word_count) == ("", "", 0)
        assert made.title
        assert bool(made.excerpt) == bool(raw.excerpt_html)


def test_entity_soup_title(given: Export) -> None:
    for _, made in trapped(given, "entity_soup_title"):
        assert made.title.endswith(" – Q&A & more")
        assert not re.search(r"&#|&\w+;|\s{2}|\xa0", made.title)


def test_future(given: Export) -> None:
    for raw, _ in trapped(given, "future"):
        assert raw.published_at is not None
        assert raw.published_at > given.now


def test_hostile_html(given: Export) -> None:
    for _, made in trapped(given, "hostile_html"):
        assert made.body_text.endswith("styled")
        assert "alert(" not in made.body_html
        assert not re.search(
            r"<(?:script|iframe|style|form|input|[^<>]*(?:\son\w+=|\sstyle=|javascript:))", made.body_html
        )


def test_links_relative_tracking(given: Export) -> None:
    for raw, made in trapped(given, "links_relative_tracking"):
        links = re.findall(r'<(?:a href|img src)="([^"]*)"', made.body_html)
        assert links[1:5] == [
            "https://capitalcities.example/2025/06/related/", "https://cdn.example.com/a.pdf", f"{raw.url}?p=12",
            "https://capitalcities.example/wp-content/uploads/2025/06/map.jpg",
        ]  # fmt: skip
        assert all(link.startswith(("http://", "https://", "mailto:")) for link in links)
        assert "srcset" not in made.body_html
        assert 'alt="Map &amp; key"' in made.body_html
        assert made.image is not None
        assert (made.image.url, made.image.alt) == (links[4], "Map & key")


def test_no_terms(given: Export) -> None:
    for raw, _ in trapped(given, "no_terms"):
        assert [(t.kind, t.slug) for t in raw.topics] == [(TopicKind.CATEGORY, "uncategorized")]


def test_odd_title(given: Export) -> None:
    titles = [made.title for _, made in trapped(given, "odd_title")]
    for title in titles:
        assert 0 < len(title) <= 300
        assert title == " ".join(title.split())
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", title)
    assert any(title.startswith("🔥 ") and title.endswith("ABC") for title in titles)
    assert any(title.endswith("…") for title in titles)


def test_password(given: Export) -> None:
    for raw, made in trapped(given, "password"):
        assert raw.withheld
        assert (made.body_html, made.body_text, made.excerpt, made.image) == ("", "", "", None)


def test_same_second(given: Export) -> None:
    some = trapped(given, "same_second")
    assert max(Counter(raw.published_at for raw, _ in some).values()) > 1
    assert len({made.canonical_url for _, made in some}) == len({raw.guid for raw, _ in some}) == len(some)


def test_shortcodes(given: Export) -> None:
    for _, made in trapped(given, "shortcodes"):
        assert not re.search(r"\[/?(?:caption|gallery|embed)|<!--", made.body_html)
        assert made.body_html.startswith("<figure><img src=")
        assert "A caption</figure>" in made.body_html
        link = "https://www.youtube.com/watch?v=abc"
        assert f'<a href="{link}">{link}</a>' in made.body_html


@pytest.mark.parametrize("status", ["draft", "pending", "private", "trash"])
def test_status(given: Export, status: str) -> None:
    wanted = given.traps[f"status_{status}"]
    assert wanted
    assert not set(wanted) & set(given.articles)
    assert given.skipped[f"status_{status}"] == len(wanted)


def test_sticky(given: Export) -> None:
    assert {n for n, (raw, _) in given.articles.items() if raw.sticky} == set(given.traps["sticky"])


def test_tag_case(given: Export) -> None:
    names: dict[str, set[str]] = {}
    for raw, _ in given.articles.values():
        for topic in raw.topics:
            names.setdefault(f"{topic.kind}:{topic.slug}", set()).add(topic.name)
    assert all(len(spellings) == 1 for spellings in names.values()), "the site's own list spells them"
    for raw, _ in trapped(given, "tag_case"):
        slugs = [(t.kind, t.slug) for t in raw.topics]
        assert len(set(slugs)) == len(slugs)
        assert all(t.slug == t.slug.lower() and t.name == t.name.strip() for t in raw.topics)


def test_updated(given: Export) -> None:
    for raw, made in trapped(given, "updated"):
        assert raw.published_at is not None
        assert raw.updated_at is not None
        assert raw.updated_at > raw.published_at
        assert made.body_text.endswith("Update: corrected.")


@pytest.mark.parametrize("trap", ["near_duplicate_pairs", "exact_duplicate_pairs"])
def test_duplicates_are_articles_of_their_own(given: Export, trap: str) -> None:
    assert given.traps[trap]
    for one, other in given.traps[trap]:
        (first, a), (second, b) = given.articles[one], given.articles[other]
        assert (first.guid, a.canonical_url) != (second.guid, b.canonical_url)
        assert a.body_text == b.body_text or trap == "near_duplicate_pairs"


# ----------------------------------------------------------------------------- in the database


def test_the_traps_are_stored_as_they_should_be(database: Database, settings: Any) -> None:
    told = export("small")
    path, _ = FILES["small"]
    ingest.add_source(database, "Site", kind="wxr", location=str(path), at=told.now)
    (report,) = ingest.refresh(database, Fetcher(settings.fetch), at=told.now)
    assert (report.new, report.errors) == (len(told.articles), [])
    with database.reading() as session:
        ids = dict(
            session.execute(select(m.ArticleAlias.value, m.ArticleAlias.article_id).filter_by(kind="native")).all()
        )
        rows = {int(n): session.get_one(m.Article, article) for n, article in ids.items()}
        shown = {item.id for item in catalogue.feed_items(session, _all(), limit_min=999, limit_max=999)}
        for trap, status in (("future", "scheduled"), ("password", "withheld"), ("sticky", "published")):
            for number in told.traps[trap]:
                assert rows[number].status == status
                assert (rows[number].feed_id in shown) == (status == "published")
        for number in told.traps["updated"]:
            assert rows[number].updated_at > rows[number].published_at
        assert all(rows[n].sticky for n in told.traps["sticky"])
        for row in rows.values():
            assert row.updated_at >= row.published_at
            if row.status != "scheduled":
                assert row.eligible_at == row.published_at
        spelled = [t.name for t in catalogue.topic_rows(session, include_empty=True)]
    assert len(rows) == len(told.articles)
    assert not [name for name in spelled if name != name.strip() or not name]


def _all() -> Any:
    from digest.types import FeedSelector

    return FeedSelector("all")


# ----------------------------------------------------------------------------- what search engines are told


def test_a_meta_description_is_found_where_plugins_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "one.xml"
    key, value = ("wp:meta_key>_yoast_wpseo_metadesc</wp:meta_key", "wp:meta_value>About it.</wp:meta_value")
    meta = f"<wp:postmeta><{key}><{value}></wp:postmeta>"
    path.write_text(
        '<rss xmlns:wp="http://wordpress.org/export/1.2/"><channel><wp:wxr_version>1.2</wp:wxr_version><item>'
        f"<title>x</title><link>https://x.example/1/</link><wp:post_id>1</wp:post_id>{meta}</item></channel></rss>"
    )
    (raw,) = KINDS["wxr"](str(path), {}, Fetcher(Settings.load(None, {}).fetch)).fetch({}).items
    assert isinstance(raw, RawArticle)
    assert raw.description == "About it."
    post = {
        "title": "x",
        "content": "y",
        "yoast_head_json": {"description": "About it."},
        "link": "https://x.example/1",
    }
    for head, wanted in ((post["yoast_head_json"], "About it."), ("closed", ""), ({"description": 7}, "")):
        made = wppost.made(post | {"yoast_head_json": head}, {}, UTC)
        assert isinstance(made, RawArticle)
        assert made.description == wanted
