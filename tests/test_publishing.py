"""Feeds from the database: what each holds, what its date says, how it is kept, exported and checked."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import brotli
import pytest
from lxml import etree
from sqlalchemy import delete, event, update
from sqlalchemy.orm import Session

from digest import catalogue, feeds
from digest import models as m
from digest.config import Settings
from digest.db import Database, upgrade_schema
from digest.errors import UsageError
from digest.feeds import FORMATS
from digest.fetch import Fetcher
from digest.ingest import add_source, refresh
from digest.publishing import Entry, Shelf, selector_of
from digest.publishing.export import MANIFEST
from digest.publishing.readings import strictly_last
from digest.types import ArticleCard, FeedSelector
from tests import build
from tests.build import T
from tests.feed_readers import faults, read

PUBLIC = "https://news.example"


class Clock:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float = 2.0) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf(database: Database, clock: Clock) -> Iterator[Shelf]:
    shelf = Shelf(database, PUBLIC, clock=clock)
    yield shelf
    shelf.close()


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Every SQL statement that reaches the database meanwhile."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def edition(session: Session, digest: m.Digest, day: int, *articles: m.Article, **columns: Any) -> m.Edition:
    """A released edition of *digest* that shows *articles* in one section without a heading."""
    when = T.replace(hour=7) + timedelta(days=day)
    given = {
        "digest_id": digest.id, "local_time": when.strftime("%Y-%m-%dT%H:%M"), "instant": when, "zone": "UTC",
        "slug": when.strftime("%Y-%m-%d"), "month": int(when.strftime("%Y%m")), "at": when, "status": "finished",
        "subject": f"Day {day}", "released_at": when, "finished_at": when, "created_at": when,
    }  # fmt: skip
    row = m.Edition(**{**given, **columns})
    session.add(row)
    session.flush()
    for n, a in enumerate(articles):
        card = ArticleCard(a.id, a.title, a.url, a.excerpt)
        session.add(m.EditionArticle(
            edition_id=row.id, article_id=a.id, rank=n, story_id=a.id, card=card.to_json(), verdict="in",
            reason="newest", position=n,
        ))  # fmt: skip
    session.flush()
    return row


def fill(session: Session) -> None:
    """A small site: categories with a child, tags, authors, every status, one digest with two editions."""
    build.publication(session)
    world = build.topic(session, "World")
    build.topic(session, "Africa", parent=world)
    build.topic(session, "Empty")
    first = build.article(
        session, title="Rains & <floods>", categories=["Africa"], tags=["Climate"], authors=["Ana Lopes"],
        image={"url": "https://news.example/i.jpg", "width": 3, "height": 2, "alt": "", "credit": ""}, language="de",
    )  # fmt: skip
    second = build.article(session, categories=["World"], tags=["Climate"], age=timedelta(hours=3))
    for status in ("withheld", "scheduled", "removed"):
        build.article(session, status=status, title=f"Never {status}", categories=["World"], tags=["Climate"])
    for topic in session.query(m.Topic):
        topic.articles = 0 if topic.slug in ("empty", "world") else 1
    digest = build.digest(session)
    edition(session, digest, 0, first)
    edition(session, digest, 1, second, first)
    edition(session, digest, 2, second, status="draft", released_at=None, finished_at=None)
    catalogue.bump(session, [t.id for t in session.query(m.Topic)])


@pytest.fixture
def site(database: Database) -> Database:
    with database.transaction() as session:
        fill(session)
    return database


def entry(shelf: Shelf, path: str) -> Entry:
    found = shelf.entry(path)
    assert found is not None, path
    return found


def titles(shelf: Shelf, path: str) -> list[str]:
    return [r.title for r in read("json", entry(shelf, path).plain.body)]


# ----------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/feeds/all.rss", (FeedSelector("all"), "rss")),
        ("/feeds/category/africa.atom", (FeedSelector("category", "africa"), "atom")),
        ("/feeds/tag/v1.2.json", (FeedSelector("tag", "v1.2"), "json")),
        ("/feeds/author/ana-núñez.rss", (FeedSelector("author", "ana-núñez"), "rss")),
        ("/feeds/digest/morning.rss", (FeedSelector("digest", "morning"), "rss")),
        ("/feeds/all.xml", None),
        ("/feeds/all", None),
        ("/feeds/.rss", None),
        ("/feeds/tag/.rss", None),
        ("/feeds/tag.rss", None),
        ("/feeds/source/x.rss", (FeedSelector("source", "x"), "rss")),
        ("/feeds/language/de.rss", (FeedSelector("language", "de"), "rss")),
        ("/feeds/stories/all.rss", (FeedSelector("all", stories=True), "rss")),
        ("/feeds/stories/tag/x/2025-07.rss", (FeedSelector("tag", "x", stories=True, month="2025-07"), "rss")),
        ("/feeds/all/2025-07.rss", (FeedSelector("all", month="2025-07"), "rss")),
        ("/feeds/all/page-2.rss", (FeedSelector("all", page=2), "rss")),
        ("/feeds/any/tag:b+category:z+tag:a+tag:b.rss", (FeedSelector("any", "category:z+tag:a+tag:b"), "rss")),
        ("/feeds/all/tag:b+tag:a/2025-07.rss", (FeedSelector("every", "tag:a+tag:b", month="2025-07"), "rss")),
        ("/feeds/any/tag:a.rss", (FeedSelector("tag", "a"), "rss")),
        (
            "/feeds/any/" + "+".join(f"tag:{n}" for n in range(10)) + ".rss",
            (FeedSelector("any", "+".join(f"tag:{n}" for n in range(10))), "rss"),
        ),
        ("/feeds/any/" + "+".join(f"tag:{n}" for n in range(11)) + ".rss", None),
        ("/feeds/any/author:a+tag:b.rss", None),
        ("/feeds/any/tag:a+.rss", None),
        ("/feeds/any/tag:a+tag:.rss", None),
        ("/feeds/any.rss", None),
        ("/feeds/all/x.rss", None),
        ("/feeds/all/page-1.rss", None),
        ("/feeds/all/page-100.rss", None),
        ("/feeds/all/2025-13.rss", None),
        ("/feeds/all/0001-01.rss", None),
        ("/feeds/all/2025-07/page-2.rss", None),
        ("/feeds/digest/x/page-2.rss", None),
        ("/feeds/stories/digest/x.rss", None),
        ("/feeds/stories/stories/all.rss", None),
        ("/feeds//all.rss", None),
        ("/feeds/tag/../all.rss", None),
        ("/feeds/tag/a\x00b.rss", None),
        ("/feeds/tag/" + "x" * 300 + ".rss", None),
        ("/other/all.rss", None),
    ],
)
def test_paths_name_feeds(path: str, expected: object) -> None:
    assert selector_of(path) == expected


# ----------------------------------------------------------------------------- what feeds hold


def test_every_feed_of_a_site_is_valid_and_reads_back(site: Database, shelf: Shelf) -> None:
    with site.reading() as session:
        every = shelf.list_feeds(session)
    assert [(f.selector.kind, f.selector.slug) for f in every] == [
        ("all", ""), ("category", "africa"), ("category", "world"), ("tag", "climate"), ("author", "ana-lopes"),
        ("language", "de"), ("digest", "morning"),
    ]  # fmt: skip
    for feed in every:
        in_each = []
        for name, url in feed.urls().items():
            found = entry(shelf, url.removeprefix(PUBLIC))
            assert faults(name, found.plain.body) == []
            assert FORMATS[name].check(found.plain.body) == []
            assert gzip.decompress(found.gzip.body) == brotli.decompress(found.br.body) == found.plain.body
            assert len({found.plain.etag, found.gzip.etag, found.br.etag}) == 3
            assert b"Never" not in found.plain.body
            in_each.append(
                [(r.id, r.title, r.url, r.published, r.updated, r.authors) for r in read(name, found.plain.body)]
            )
        assert in_each[0] == in_each[1] == in_each[2] != []
    assert shelf.validate() == ((6 * 2 + 1) * len(FORMATS), [])  # those of articles by story too


def test_feeds_hold_published_articles_of_their_topic_newest_first(site: Database, shelf: Shelf) -> None:
    both = ["Rains & <floods>", titles(shelf, "/feeds/all.json")[1]]
    assert titles(shelf, "/feeds/all.json") == both
    assert titles(shelf, "/feeds/tag/climate.json") == both
    assert titles(shelf, "/feeds/category/world.json") == both  # with its children
    assert titles(shelf, "/feeds/category/africa.json") == both[:1]
    assert titles(shelf, "/feeds/author/ana-lopes.json") == both[:1]
    assert titles(shelf, "/feeds/category/empty.json") == []


def test_a_digest_feed_holds_its_released_editions(site: Database, shelf: Shelf) -> None:
    got = read("json", entry(shelf, "/feeds/digest/morning.json").plain.body)
    assert [(r.title, r.url) for r in got] == [
        ("Day 1", f"{PUBLIC}/archive/morning/2025-07-15"),
        ("Day 0", f"{PUBLIC}/archive/morning/2025-07-14"),
    ]
    assert '">Rains &amp; &lt;floods&gt;</a></h3>' in got[1].html


@pytest.mark.parametrize("path", ["/feeds/tag/none.rss", "/feeds/digest/none.rss", "/feeds/author/none.rss"])
def test_what_is_not_there_is_no_feed(site: Database, shelf: Shelf, path: str) -> None:
    assert shelf.entry(path) is None


@pytest.mark.parametrize("gone", [{"hidden": True}, {"merged_into": 1}])
def test_hidden_and_merged_topics_are_no_feeds(
    site: Database, shelf: Shelf, clock: Clock, gone: dict[str, Any]
) -> None:
    assert shelf.entry("/feeds/tag/climate.rss") is not None
    with site.transaction() as session:
        topic = session.query(m.Topic).filter_by(slug="climate").one()
        other = session.query(m.Topic).filter_by(slug="africa").one()
        for key, value in gone.items():
            setattr(topic, key, other.id if key == "merged_into" else value)
        catalogue.bump(session, [topic.id])
    clock.tick()
    assert shelf.entry("/feeds/tag/climate.rss") is None


def test_feeds_of_renamed_merged_and_hidden_topics_say_where_they_went(
    site: Database, shelf: Shelf, clock: Clock
) -> None:
    def went(path: str) -> tuple[str, bool]:
        slot = shelf.ready(path) or shelf.refresh(path).result()
        assert slot.entry is None
        return slot.moved, slot.gone

    assert shelf.entry("/feeds/tag/climate.rss") is not None
    with site.transaction() as session:
        build.topic(session, "Weather", kind="tag")
        catalogue.rename(session, "tag:climate", "Climate & Sky")
    clock.tick()
    assert went("/feeds/tag/climate.rss") == ("/feeds/tag/climate-sky.rss", True)
    assert shelf.entry("/feeds/tag/climate-sky.rss") is not None
    with site.transaction() as session:
        catalogue.merge(session, "tag:climate", "tag:weather")
    clock.tick()
    assert went("/feeds/tag/climate.atom") == went("/feeds/tag/climate-sky.atom") == ("/feeds/tag/weather.atom", True)
    assert shelf.entry("/feeds/tag/weather.atom") is not None
    with site.transaction() as session:
        catalogue.hide(session, "tag:weather")
    clock.tick()
    assert went("/feeds/tag/climate.json") == went("/feeds/tag/weather.json") == ("", True)
    assert went("/feeds/tag/none.rss") == went("/feeds/author/none.rss") == ("", False)


def test_editions_from_before_going_live_leave_the_feed(site: Database, shelf: Shelf, clock: Clock) -> None:
    assert len(titles(shelf, "/feeds/digest/morning.json")) == 2
    with site.transaction() as session:
        session.execute(update(m.Publication).values(armed_for=PUBLIC))
    clock.tick()
    assert titles(shelf, "/feeds/digest/morning.json") == []


# ----------------------------------------------------------------------------- combinations, stories, months, pages


def moved_to(shelf: Shelf, path: str) -> str:
    slot = shelf.ready(path) or shelf.refresh(path).result()
    assert slot.entry is None
    return slot.moved


def test_topics_combine(site: Database, shelf: Shelf) -> None:
    both, africa = titles(shelf, "/feeds/all.json"), titles(shelf, "/feeds/category/africa.json")
    assert titles(shelf, "/feeds/any/category:africa+tag:climate.json") == both
    assert titles(shelf, "/feeds/all/category:africa+tag:climate.json") == africa
    assert titles(shelf, "/feeds/stories/all/category:africa+tag:climate.json") == africa
    assert titles(shelf, "/feeds/all/category:world+tag:climate/2025-07.json") == both  # world has its children's
    feed = json.loads(entry(shelf, "/feeds/any/category:africa+tag:climate.json").plain.body)
    assert feed["title"] == "Africa, Climate – The Harbour Paper"
    assert feed["feed_url"] == f"{PUBLIC}/feeds/any/category:africa+tag:climate.json"


def test_a_combination_has_one_address(site: Database, shelf: Shelf, clock: Clock) -> None:
    one = "/feeds/any/category:africa+tag:climate.rss"
    assert moved_to(shelf, "/feeds/any/tag:climate+category:africa.rss") == one
    assert moved_to(shelf, "/feeds/any/tag:climate+category:africa+tag:climate.rss") == one
    assert moved_to(shelf, "/feeds/all/tag:climate.rss") == "/feeds/tag/climate.rss"
    for unknown in ("/feeds/any/tag:climate+tag:none.rss", "/feeds/all/tag:climate+category:none.rss"):
        assert moved_to(shelf, unknown) == ""
    with site.transaction() as session:
        catalogue.rename(session, "tag:climate", "Air", slug="air")
    clock.tick()
    assert moved_to(shelf, one) == "/feeds/any/category:africa+tag:air.rss"
    with site.transaction() as session:
        catalogue.hide(session, "category:africa")
    clock.tick()
    slot = shelf.refresh("/feeds/any/category:africa+tag:air.rss").result()
    assert (slot.entry, slot.gone, slot.moved) == (None, True, "")


def test_languages_and_sources_have_feeds(site: Database, shelf: Shelf, clock: Clock) -> None:
    with site.transaction() as session:
        wire = build.source(session, slug="wire", title="The Wire")
        build.article(session, title="Wired", source_id=wire.id, language="de-at", age=timedelta(0))
        catalogue.bump(session, [])
    assert titles(shelf, "/feeds/source/wire.json") == ["Wired"]
    assert titles(shelf, "/feeds/language/de.json") == ["Wired", "Rains & <floods>"]
    assert titles(shelf, "/feeds/language/de-at.json") == ["Wired"]
    assert json.loads(entry(shelf, "/feeds/source/wire.json").plain.body)["title"] == "The Wire – The Harbour Paper"
    for none in ("/feeds/source/none.rss", "/feeds/language/fr.rss", "/feeds/language/DE.rss"):
        assert shelf.entry(none) is None


@pytest.fixture
def years(database: Database) -> Database:
    """400 articles of one month, 30 of the month before, three of a year before that."""
    with database.transaction() as session:
        build.publication(session)
        for n in range(400):
            build.article(session, title=f"July {n}", tags=["Climate"], published_at=T - timedelta(minutes=45 * n))
        for n in range(30):
            build.article(session, title=f"June {n}", published_at=T.replace(month=6) - timedelta(hours=n))
        for n in range(3):
            build.article(session, title=f"Old {n}", tags=["Climate"], published_at=T.replace(year=2024, day=1 + n))
        catalogue.bump(session, [t.id for t in session.query(m.Topic)])
    return database


def _chain(shelf: Shelf, path: str, link: str) -> list[tuple[str, list[str]]]:
    """A feed and what its links lead to, one after the other: (path, titles)."""
    found = []
    while path:
        feed = json.loads(entry(shelf, path).plain.body)
        found.append((path, [item["title"] for item in feed["items"]]))
        path = (feed if link == "next_url" else feed["_digest"]).get(link, "").removeprefix(PUBLIC)
    return found


def test_older_articles_are_found_by_pages_and_then_by_months(years: Database, shelf: Shelf) -> None:
    chain = _chain(shelf, "/feeds/all.json", "next_url")
    names = ["all", "all/page-2", "all/page-3", "all/page-4", "all/page-5", "all/2025-06", "all/2024-07"]
    assert [path for path, _ in chain] == [f"/feeds/{name}.json" for name in names]
    assert len(chain[0][1]) == 65  # all of 48 hours
    told = [title for _, titles in chain for title in titles]
    assert len(told) == len(set(told)) == 433
    assert _chain(shelf, "/feeds/stories/all.json", "next_url")[1][1] == chain[1][1]
    assert shelf.entry("/feeds/all/page-6.json") is None
    assert shelf.entry("/feeds/all/2025-05.json") is None


def test_closed_months_are_archives_that_nothing_is_added_to(years: Database, shelf: Shelf, clock: Clock) -> None:
    def links(name: str) -> dict[str, str]:
        root = etree.fromstring(entry(shelf, f"/feeds/{name}.atom").plain.body)
        found = {e.get("rel"): e.get("href") for e in root.iterfind("{http://www.w3.org/2005/Atom}link")}
        return {rel: url.removeprefix(f"{PUBLIC}/feeds/") for rel, url in found.items() if rel not in ("alternate",)}

    archive = b"fh:archive"
    assert links("all") == {"self": "all.atom", "next": "all/page-2.atom", "prev-archive": "all/2025-06.atom"}
    assert links("all/2025-06") == {
        "self": "all/2025-06.atom", "current": "all.atom", "prev-archive": "all/2024-07.atom",
    }  # fmt: skip
    assert links("all/2024-07")["next-archive"] == "all/2025-06.atom"
    assert links("tag/climate/2024-07") == {"self": "tag/climate/2024-07.atom", "current": "tag/climate.atom"}
    assert [archive in entry(shelf, f"/feeds/all{part}.rss").plain.body for part in ("", "/2025-07", "/2025-06")] == [
        False, False, True,
    ]  # fmt: skip
    june = entry(shelf, "/feeds/all/2025-06.rss")
    with years.transaction() as session:
        build.article(session, age=timedelta(0), tags=["Climate"])
        catalogue.bump(session, [t.id for t in session.query(m.Topic)])
    clock.tick()
    assert entry(shelf, "/feeds/all/2025-06.rss") is june
    for name, part in itertools.product(FORMATS, ("all", "all/page-2", "all/2025-06", "stories/tag/climate/2024-07")):
        assert faults(name, entry(shelf, f"/feeds/{part}.{name}").plain.body) == []


def _walks(database: Database, path: str) -> bool:
    """Whether a feed is found by going back through the whole catalogue from its newest article."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    shelf = Shelf(database, PUBLIC)
    event.listen(database.engine, "before_cursor_execute", note)
    assert shelf.entry(path) is not None
    event.remove(database.engine, "before_cursor_execute", note)
    shelf.close()
    with database.engine.connect() as connection:
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {q}", p).all() for q, p in asked if q[:6] == "SELECT"]
    return any("USING INDEX ix_articles_status_published (status=?)" in row[3] for plan in plans for row in plan)


def test_the_few_articles_of_a_topic_are_not_looked_for_in_the_whole_catalogue(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite.transaction() as session:
        fill(session)
    paths = ["/feeds/tag/climate.rss", "/feeds/category/world.rss", "/feeds/any/category:africa+tag:climate.rss"]
    assert not any(_walks(sqlite, path) for path in paths)
    monkeypatch.setattr("digest.catalogue.feeding.FEW", 1)
    assert _walks(sqlite, paths[0])  # those of many are met soon
    assert _walks(sqlite, "/feeds/all.rss")


def test_a_story_stands_once_by_whoever_told_it_first(site: Database, shelf: Shelf, clock: Clock) -> None:
    with site.transaction() as session:
        first = session.query(m.Article).filter_by(title="Rains & <floods>").one()
        first.body_html = "<p>It rains.</p>"
        build.article(
            session, title="Again & again", story_id=first.story_id, age=timedelta(minutes=5), tags=["Weather"]
        )
        catalogue.bump(session, [t.id for t in session.query(m.Topic)])
    told = json.loads(entry(shelf, "/feeds/stories/all.json").plain.body)["items"]
    assert [item["title"] for item in told] == ["Rains & <floods>", titles(shelf, "/feeds/all.json")[-1]]
    assert [also["title"] for also in told[0]["_digest"]["also"]] == ["Again & again"]
    assert told[0]["content_html"].endswith('">Again &amp; again</a></li></ul>')
    assert told[0]["date_modified"] > told[0]["date_published"]  # the same item, changed
    weather = json.loads(entry(shelf, "/feeds/stories/tag/weather.json").plain.body)["items"]
    assert [item["title"] for item in weather] == ["Again & again"]  # the first of this feed's own
    assert len(titles(shelf, "/feeds/all.json")) == 3


def test_a_recording_goes_from_source_to_feed_and_a_longer_one_is_a_change(
    database: Database, shelf: Shelf, clock: Clock, settings: Settings, tmp_path: Path
) -> None:
    place = tmp_path / "feed.xml"
    at = T

    def heard(length: int) -> dict[str, Any]:
        nonlocal at
        at += timedelta(hours=1)
        recording = f'<enclosure url="https://news.example/a.mp3" length="{length}" type="audio/mpeg"/>'
        item = (
            f"<item><title>x</title><link>https://news.example/a</link><description>y</description>{recording}</item>"
        )
        place.write_text(f'<rss version="2.0"><channel><title>News</title>{item}</channel></rss>')
        assert not refresh(database, Fetcher(settings.fetch), at=at, force=True)[0].errors
        clock.tick()
        (found,) = json.loads(entry(shelf, "/feeds/all.json").plain.body)["items"]
        return dict(found)

    place.touch()
    add_source(database, "site", kind="feed", location=str(place), at=T)
    first, second, third = heard(1234), heard(1234), heard(5678)
    assert first["attachments"] == [
        {"url": "https://news.example/a.mp3", "mime_type": "audio/mpeg", "size_in_bytes": 1234}
    ]
    assert second == first
    assert third["attachments"][0]["size_in_bytes"] == 5678
    assert third["date_modified"] > second["date_modified"]


def test_a_feed_may_carry_summaries_alone(site: Database, shelf: Shelf, clock: Clock) -> None:
    def bodies(path: str) -> list[bool]:
        return ["content_html" in item for item in json.loads(entry(shelf, path).plain.body)["items"]]

    assert bodies("/feeds/all.json") == [True, True]
    with site.transaction() as session:
        catalogue.set_feed_text(session, "all", "excerpt")
    clock.tick()
    assert bodies("/feeds/all.json") == bodies("/feeds/tag/climate.json") == [False, False]
    with site.transaction() as session:
        catalogue.set_feed_text(session, "tag:climate", "full")
    clock.tick()
    assert (bodies("/feeds/all.json"), bodies("/feeds/tag/climate.json")) == ([False, False], [True, True])


def test_all_feeds_can_be_imported_at_one_go(site: Database, shelf: Shelf) -> None:
    root = etree.fromstring(entry(shelf, "/feeds.opml").plain.body)
    assert root.findtext("head/title") == "The Harbour Paper"
    urls = [e.get("xmlUrl") for e in root.iter("outline") if e.get("type") == "rss"]
    with site.reading() as session:
        assert urls == [f"{feed.url}.atom" for feed in shelf.list_feeds(session)]
    assert [e.get("text") for e in root.findall("body/outline")] == [
        "The Harbour Paper", "Categories", "Tags", "Authors", "Languages", "Editions",
    ]  # fmt: skip


# ----------------------------------------------------------------------------- same data, same bytes

_ELSEWHERE = """
import sys
from pathlib import Path
from digest.db import Database
from digest.publishing import Shelf
database = Database(sys.argv[1])
shelf = Shelf(database, "https://news.example")
shelf.build(Path(sys.argv[2]))
shelf.close()
"""


def _grown(session: Session) -> None:
    """The small site, grown older: pages, months, and a story that two articles tell."""
    fill(session)
    for n in range(130):
        build.article(session, title=f"July {n}", tags=["Climate"], published_at=T - timedelta(minutes=90 * n))
    for n in range(3):
        build.article(session, title=f"June {n}", tags=["Climate"], published_at=T.replace(month=6, day=1 + n))
        build.article(session, title=f"May {n}", categories=["World"], published_at=T.replace(month=5, day=1 + n))
    first, second = session.query(m.Article).filter(m.Article.title.in_(["July 3", "July 5"])).order_by(m.Article.title)
    second.story_id = first.story_id
    session.flush()
    catalogue.bump(session, [t.id for t in session.query(m.Topic)])


def test_the_same_data_gives_the_same_bytes_everywhere(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both databases, another process with another hash seed and zone, files and server; all parts of all feeds."""
    name = cluster.create()
    urls = {"sqlite": f"sqlite:///{tmp_path}/a.sqlite3", "postgresql": cluster.url(name)}
    for kind, url in urls.items():
        database = Database(url)
        upgrade_schema(database)
        monkeypatch.setattr(build, "_numbers", itertools.count(1))
        with database.transaction() as session:
            _grown(session)
        shelf = Shelf(database, PUBLIC)
        shelf.build(tmp_path / kind)
        _is_served(shelf, tmp_path / kind)
        shelf.close()
        database.close()
    cluster.drop(name)
    env = {**os.environ, "PYTHONHASHSEED": "4711", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", _ELSEWHERE, urls["sqlite"], str(tmp_path / "elsewhere")]
    subprocess.run(command, env=env, cwd=Path(__file__).parents[1], check=True)
    here, there, elsewhere = (_tree(tmp_path / kind) for kind in ("sqlite", "postgresql", "elsewhere"))
    assert here == there == elsewhere
    assert {p.name: p.stat().st_mtime for p in (tmp_path / "sqlite").rglob("*.*s") if "feeds" in p.parts} == {
        p.name: p.stat().st_mtime for p in (tmp_path / "elsewhere").rglob("*.*s") if "feeds" in p.parts
    }
    parts = {f"feeds/{tree}{feed}{part}.atom.br" for tree in ("", "stories/") for feed in ("all", "tag/climate")
             for part in ("", "/page-2", "/2025-07", "/2025-06")}  # fmt: skip
    assert parts <= here.keys()
    assert not [name for name in here if "author" in name and "2025" in name]  # shows all that it has


def _is_served(shelf: Shelf, out: Path) -> None:
    """Every file is what the server would send, and as old."""
    for path in (p for p in out.rglob("*") if p.is_file() and p.name != MANIFEST):
        name, suffix = f"/{path.relative_to(out).as_posix()}", path.suffix
        found = entry(shelf, name.removesuffix(suffix) if suffix in (".gz", ".br") else name)
        coded = {".gz": found.gzip, ".br": found.br}.get(suffix, found.plain)
        assert path.read_bytes() == coded.body, name
        assert path.stat().st_mtime == found.modified.timestamp(), name


# ----------------------------------------------------------------------------- dates


def test_the_date_moves_with_every_change_even_within_one_second(site: Database, shelf: Shelf, clock: Clock) -> None:
    """Retitled, untopped, removed: the items' own dates stand still or go back, the feed's moves on."""
    path = "/feeds/tag/climate.rss"
    seen = [entry(shelf, path)]

    def change(**values: Any) -> None:
        with site.transaction() as session:
            newest = (
                session.query(m.Article).filter_by(status="published").order_by(m.Article.published_at.desc()).first()
            )
            assert newest is not None
            session.execute(update(m.Article).where(m.Article.id == newest.id).values(**values))
            catalogue.bump(session, [session.query(m.Topic).filter_by(slug="climate").one().id])
        clock.tick()
        seen.append(entry(shelf, path))

    change(title="Another title")
    change(excerpt="Another excerpt")
    change(status="removed")
    assert len({e.plain.etag for e in seen}) == 4
    assert all(a.modified + timedelta(seconds=1) <= b.modified for a, b in itertools.pairwise(seen))
    assert all(e.modified.microsecond == 0 for e in seen)


def test_a_digest_feeds_date_moves_with_every_edition(site: Database, shelf: Shelf, clock: Clock) -> None:
    path = "/feeds/digest/morning.atom"
    seen = [entry(shelf, path)]
    released = T + timedelta(days=9)
    for n in range(3):
        with site.transaction() as session:
            digest = session.query(m.Digest).one()
            article = session.query(m.Article).filter_by(status="published").first()
            moment = released + timedelta(milliseconds=n)
            edition(session, digest, 10 + n, article, released_at=moment, finished_at=None, status="sending")
        clock.tick()
        seen.append(entry(shelf, path))
    assert len({e.plain.etag for e in seen}) == 4
    assert all(a.modified + timedelta(seconds=1) <= b.modified for a, b in itertools.pairwise(seen))


def test_moments_count_a_second_apart() -> None:
    at = datetime(2025, 1, 1, 0, 0, 5, 900_000, tzinfo=UTC)
    assert strictly_last([]) is None
    assert strictly_last([at]) == at.replace(microsecond=0)
    assert strictly_last([at, at, at - timedelta(days=1)]) == at.replace(microsecond=0) + timedelta(seconds=1)


def test_a_feed_without_articles_has_a_fixed_date(database: Database, shelf: Shelf) -> None:
    found = entry(shelf, "/feeds/all.atom")
    assert found.modified == datetime(2000, 1, 1, tzinfo=UTC)
    assert faults("atom", found.plain.body) == []


# ----------------------------------------------------------------------------- kept warm


def test_a_warm_feed_costs_no_sql_and_no_rendering(
    site: Database, shelf: Shelf, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/feeds/all.rss"
    first = entry(shelf, path)
    with statements(site) as seen:
        for _ in range(100):
            assert shelf.entry(path) is first
        assert seen == []
        clock.tick(1.5)
        assert shelf.entry(path) is first
        assert len([s for s in seen if s.lstrip().upper().startswith("SELECT")]) == 1


def test_a_feed_is_made_again_only_when_its_own_version_moved(site: Database, shelf: Shelf, clock: Clock) -> None:
    africa, climate = entry(shelf, "/feeds/category/africa.rss"), entry(shelf, "/feeds/tag/climate.rss")
    everything = entry(shelf, "/feeds/all.rss")
    with site.transaction() as session:
        build.article(session, tags=["Climate"], age=timedelta(0))
        catalogue.bump(session, [session.query(m.Topic).filter_by(slug="climate").one().id])
    clock.tick()
    assert shelf.entry("/feeds/category/africa.rss") is africa
    assert entry(shelf, "/feeds/tag/climate.rss").plain.etag != climate.plain.etag
    assert entry(shelf, "/feeds/all.rss").plain.etag != everything.plain.etag


def test_a_new_name_of_the_publication_is_in_every_feed(site: Database, shelf: Shelf, clock: Clock) -> None:
    before = entry(shelf, "/feeds/tag/climate.rss")
    with site.transaction() as session:
        catalogue.set_brand(session, "name", "The Lighthouse")
    clock.tick()
    after = entry(shelf, "/feeds/tag/climate.rss")
    assert b"Climate \xe2\x80\x93 The Lighthouse" in after.plain.body
    assert after.modified > before.modified


def test_those_who_ask_at_once_share_one_flight(site: Database, shelf: Shelf) -> None:
    with statements(site) as seen:
        entry(shelf, "/feeds/all.rss")
        alone = len(seen)
    other = Shelf(site, PUBLIC)
    with statements(site) as seen:
        found: list[Entry | None] = []
        threads = [threading.Thread(target=lambda: found.append(other.entry("/feeds/all.rss"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == alone
    assert len({id(e) for e in found}) == 1
    other.close()


def test_the_shelf_is_bounded(site: Database, clock: Clock) -> None:
    shelf = Shelf(site, PUBLIC, limit=20_000, clock=clock)
    for n in range(200):
        assert shelf.entry(f"/feeds/tag/none-{n}.rss") is None
    entry(shelf, "/feeds/all.rss")
    assert shelf.ready("/feeds/all.rss") is not None
    assert shelf.ready("/feeds/tag/none-0.rss") is None
    assert sum(slot.size for slot in shelf._slots.values()) == shelf._size <= 20_000
    shelf.close()


def test_a_database_that_is_away_is_asked_once_a_second(
    site: Database, shelf: Shelf, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    first = entry(shelf, "/feeds/all.rss")
    clock.tick()
    site.engine.dispose()
    asked: list[int] = []

    def away(*_: Any) -> None:
        asked.append(1)
        raise OSError("no route to the database")

    event.listen(site.engine, "do_connect", away)
    try:
        for _ in range(5):
            with pytest.raises(OSError, match="no route"):
                shelf.entry("/feeds/all.rss")
        with pytest.raises(OSError, match="no route"):
            shelf.entry("/feeds/tag/climate.rss")
    finally:
        event.remove(site.engine, "do_connect", away)
    assert len(asked) == 1
    stale = shelf.stale("/feeds/all.rss")
    assert stale is not None
    assert stale.entry is first
    assert "no route to the database" in caplog.text
    clock.tick()
    assert shelf.entry("/feeds/all.rss") is first


# ----------------------------------------------------------------------------- a hostile article


def test_a_hostile_article_changes_nothing_but_itself(site: Database, shelf: Shelf, clock: Clock) -> None:
    before = {name: read(name, entry(shelf, f"/feeds/all.{name}").plain.body) for name in FORMATS}
    hostile = {
        "title": "]]>" + "<script>alert(1)</script>\x0b\ufffe" + "x" * 2_000_000,
        "body_html": "<p>]]> \x08 &amp;</p>", "excerpt": "\x1b[31m & <b>", "url": "javascript:alert(1)",
    }  # fmt: skip
    with site.transaction() as session:
        build.article(session, age=timedelta(minutes=1), **{**hostile, "url": "https://news.example/hostile"})
        build.article(session, age=timedelta(minutes=2), **hostile)
        catalogue.bump(session, [])
    clock.tick()
    for name in FORMATS:
        found = entry(shelf, f"/feeds/all.{name}")
        assert faults(name, found.plain.body) == []
        first, *rest = read(name, found.plain.body)
        assert rest == before[name]
        assert first.url == "https://news.example/hostile"
        assert len(found.plain.body) < 20_000
    count, findings = shelf.validate()
    assert count == (6 * 2 + 1) * 3
    assert {(f.path, f.problem) for f in findings} == {
        (f"/feeds/{path}", "1 items cannot be written and are left out") for path in ("all", "stories/all")
    }


# ----------------------------------------------------------------------------- export


def _tree(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_the_export_is_what_is_served(site: Database, shelf: Shelf, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "public"
    mask = os.umask(0o077)
    try:
        report = shelf.build(out)
    finally:
        os.umask(mask)
    assert len(report.written) == ((6 * 2 + 1) * 3 + 1) * 3
    assert (report.unchanged, report.removed, report.findings) == ((), (), ())
    _is_served(shelf, out)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in out.rglob("*") if p.is_file()}
    assert modes == {0o644}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (out, out.parent, *out.rglob("*")) if p.is_dir()} == {0o755}


def test_only_what_changed_is_written_again(site: Database, shelf: Shelf, tmp_path: Path) -> None:
    out = tmp_path / "public"
    shelf.build(out)
    inodes = {p: p.stat().st_ino for p in out.rglob("*") if p.is_file()}
    again = shelf.build(out)
    assert (again.written, len(again.unchanged)) == ((), ((6 * 2 + 1) * 3 + 1) * 3)
    with site.transaction() as session:
        build.article(session, categories=["Africa"], age=timedelta(0))
        ids = [session.query(m.Topic).filter_by(slug=s).one().id for s in ("africa", "world")]
        catalogue.bump(session, ids)
    changed = shelf.build(out)
    stems = {name.partition(".")[0].rpartition("/")[2] for name in changed.written}
    assert stems == {"all", "africa", "world"}
    kept = {p for p in inodes if p.stat().st_ino == inodes[p]}
    assert {p.relative_to(out).as_posix() for p in kept} - {MANIFEST} == set(changed.unchanged)


def test_feeds_that_are_gone_are_deleted_and_nothing_else(site: Database, shelf: Shelf, tmp_path: Path) -> None:
    out = tmp_path / "public"
    mine = out / "feeds" / "tag" / "mine.rss"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    outside = tmp_path / "outside.rss"
    outside.write_text("outside")
    shelf.build(out)
    listed = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps([*listed, "../outside.rss", "feeds/../../outside.rss", 7, "/etc/x"]))
    with site.transaction() as session:
        session.execute(update(m.Topic).where(m.Topic.slug == "climate").values(hidden=True))
        catalogue.bump_all(session)
    report = shelf.build(out)
    assert sorted(report.removed) == sorted(
        f"feeds/{tree}tag/climate.{n}{s}" for tree in ("", "stories/") for n in FORMATS for s in ("", ".gz", ".br")
    )
    assert not (out / "feeds/tag/climate.rss").exists()
    assert mine.read_text() == "mine"
    assert outside.read_text() == "outside"
    assert not any("climate" in name for name in _tree(out))


def test_a_build_that_was_cut_short_is_cleaned_up_by_the_next(
    site: Database, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "public"
    real = os.replace
    done: list[object] = []

    def failing(src: Any, dst: Any) -> None:
        if len(done) == 60:
            raise OSError(28, "No space left on device")
        done.append(dst)
        real(src, dst)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(UsageError, match="No space left"):
        shelf.build(out)
    monkeypatch.setattr(os, "replace", real)
    assert not [name for name in _tree(out) if ".feed-" in name]
    written = set(_tree(out))
    with site.transaction() as session:
        session.execute(delete(m.ArticleTopic))
        session.execute(update(m.Topic).values(hidden=True))
        catalogue.bump_all(session)
    report = shelf.build(out)
    assert set(report.removed) == {n for n in written if "/category/" in n or "/tag/" in n} != set()


def test_a_folder_that_cannot_be_written_is_told(site: Database, shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written to"):
        shelf.build(tmp_path / "file" / "feeds")


def test_a_slug_cannot_lead_out_of_the_folder(site: Database, shelf: Shelf, tmp_path: Path) -> None:
    out = tmp_path / "public"
    with site.transaction() as session:
        session.execute(update(m.Topic).where(m.Topic.slug == "climate").values(slug="../../../climate"))
        catalogue.bump_all(session)
    report = shelf.build(out)
    assert {f.path for f in report.findings} >= {f"/feeds/tag/../../../climate.{n}" for n in FORMATS}
    assert all("climate" in f.path for f in report.findings)
    assert not list(tmp_path.rglob("climate*"))


def test_a_defect_in_a_format_is_found(site: Database, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(FORMATS["rss"], write=lambda view: feeds.write_rss(view).replace(b"<guid", b"<gid"))
    monkeypatch.setitem(FORMATS, "rss", broken)
    _, findings = shelf.validate()
    assert {"/feeds/all.rss", "/feeds/stories/tag/climate.rss", "/feeds/digest/morning.rss"} <= {
        f.path for f in findings
    }
    assert len(findings) >= 6 * 2 + 1
    assert all(f.path.endswith(".rss") for f in findings)
