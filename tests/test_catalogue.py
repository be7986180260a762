"""The catalogue: identity, topics and counts, what may be picked, what feeds are made of. On both databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import event, func, insert, select, text
from sqlalchemy.orm import Session

from digest import catalogue, rules
from digest import models as m
from digest.catalogue.identity import names_of, shared_names
from digest.catalogue.topics import Tree
from digest.db import Database
from digest.errors import UsageError
from digest.text import clean
from digest.types import CleanArticle, FeedSelector, RawArticle, TopicKind, TopicRef
from tests import build

T = datetime(2025, 7, 14, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WEEK = timedelta(days=7)


def category(name: str, parent: str | None = None) -> TopicRef:
    return TopicRef(TopicKind.CATEGORY, name.lower(), name, parent)


def tag(name: str) -> TopicRef:
    return TopicRef(TopicKind.TAG, name.lower(), name)


def raw(n: int, **columns: Any) -> RawArticle:
    given = {
        "native_id": str(n), "guid": f"https://site.example/?p={n}", "url": f"https://site.example/{n}/",
        "title": f"Headline {n}", "body_html": f"<p>Body of {n}.</p>", "published_at": T - n * HOUR,
    }  # fmt: skip
    return RawArticle(**{**given, **columns})


def pairs(*raws: RawArticle) -> list[tuple[RawArticle, CleanArticle]]:
    cleaned = [(r, clean(r)) for r in raws]
    return [(r, c) for r, c in cleaned if isinstance(c, CleanArticle)]


@pytest.fixture
def source(database: Database) -> m.Source:
    """A source whose first import is over."""
    with database.transaction() as session:
        return build.source(session, slug="site", imported_at=T - 10 * DAY)


def put(database: Database, source: m.Source, *raws: RawArticle, at: datetime = T) -> catalogue.Counts:
    with database.transaction() as session:
        row = session.get(m.Source, source.id)
        assert row is not None
        return catalogue.store(session, row, pairs(*raws), at=at)


def tally(counts: catalogue.Counts) -> tuple[int, int, int]:
    return counts.new, counts.changed, counts.unchanged


def articles(database: Database) -> list[m.Article]:
    with database.reading() as session:
        rows = list(session.scalars(select(m.Article).order_by(m.Article.id)))
        session.expunge_all()
        return rows


def everything(database: Database) -> dict[str, list[Any]]:
    """Every row of every table, to see that nothing has moved."""
    with database.reading() as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table)).all()))
            for table in m.Base.metadata.sorted_tables
        }


def recounted(session: Session) -> dict[int, int]:
    query = select(m.ArticleTopic.topic_id, func.count()).join(m.Article, m.Article.id == m.ArticleTopic.article_id)
    query = query.where(m.Article.status.in_(["published", "withheld"])).group_by(m.ArticleTopic.topic_id)
    return dict(session.execute(query).all())


def assert_counts_are_true(database: Database) -> None:
    with database.reading() as session:
        kept = dict(session.execute(select(m.Topic.id, m.Topic.articles).where(m.Topic.articles != 0)).all())
        assert kept == recounted(session)


# ----------------------------------------------------------------------------- storing


def test_an_article_goes_in_whole(database: Database, source: m.Source) -> None:
    one = raw(
        1, topics=(category("Africa", "world"), category("World"), tag("Climate")), authors=("Ada Obi", "Ben Ode"),
        language="en_GB", sticky=True,
    )  # fmt: skip
    assert tally(put(database, source, one)) == (1, 0, 0)
    (row,) = articles(database)
    assert (row.title, row.url, row.feed_id) == ("Headline 1", "https://site.example/1/", "https://site.example/?p=1")
    assert (row.story_id, row.status, row.published_precision) == (row.id, "published", "given")
    assert (row.published_at, row.first_seen_at, row.updated_at) == (T - HOUR, T, T - HOUR)
    assert (row.language, row.sticky, row.authors, row.word_count) == ("en-gb", True, ["Ada Obi", "Ben Ode"], 3)
    with database.reading() as session:
        names = {(a.scope, a.kind, a.value) for a in session.scalars(select(m.ArticleAlias))}
        topics = {(t.kind, t.slug): t for t in session.scalars(select(m.Topic))}
        parent, world = topics["category", "africa"].parent_id, topics["category", "world"].id
        authors = list(session.scalars(select(m.ArticleAuthor.slug).order_by(m.ArticleAuthor.position)))
    assert names == {
        (source.id, "native", "1"), (0, "guid", "https://site.example/?p=1"), (0, "url", "https://site.example/1/"),
        (source.id, "hostless", "/?p=1 2025-07-14T11:00:00Z"),
    }  # fmt: skip
    assert parent == world
    assert authors == ["ada-obi", "ben-ode"]
    assert_counts_are_true(database)


def test_the_same_again_writes_nothing(database: Database, source: m.Source) -> None:
    many = [raw(n, topics=(category("World"), tag(f"T{n % 3}")), authors=("Ada",)) for n in range(1, 30)]
    put(database, source, *many)
    before = everything(database)
    assert tally(put(database, source, *many, at=T + HOUR)) == (0, 0, 29)
    assert everything(database) == before


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Other"}, {"body_html": "<p>Other.</p>"}, {"topics": (tag("new"),)}, {"authors": ("Bea",)},
        {"excerpt_html": "By hand"}, {"sticky": True}, {"language": "fr"}, {"url": "https://site.example/moved/"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_change_moves_updated_at_alone_of_the_dates(
    database: Database, source: m.Source, change: dict[str, Any]
) -> None:
    put(database, source, raw(1), raw(2))
    before = {a.id: a for a in articles(database)}
    with database.reading() as session:
        version = catalogue.feed_version(session)
    assert tally(put(database, source, raw(1, **change), raw(2), at=T + HOUR)) == (0, 1, 1)
    first, second = articles(database)
    was = before[first.id]
    assert (first.published_at, first.eligible_at, first.first_seen_at, first.feed_id) == (
        was.published_at, was.eligible_at, was.first_seen_at, was.feed_id,
    )  # fmt: skip
    assert (first.updated_at, second.updated_at) == (T + HOUR, before[second.id].updated_at)
    with database.reading() as session:
        assert catalogue.feed_version(session) == version + 1
    assert_counts_are_true(database)
    again = everything(database)
    put(database, source, raw(1, **change), raw(2), at=T + 2 * HOUR)
    assert everything(database) == again


def test_updated_at_is_what_the_source_says_if_that_is_sane(database: Database, source: m.Source) -> None:
    put(database, source, raw(1), raw(2), raw(3))
    told = T + HOUR / 2
    new = [
        raw(1, title="A", updated_at=told),
        raw(2, title="B", updated_at=T + DAY),
        raw(3, title="C", updated_at=T - 9 * DAY),
    ]
    put(database, source, *new, at=T + HOUR)
    assert [a.updated_at for a in articles(database)] == [told, T + HOUR, T + HOUR]


def test_a_later_date_never_makes_an_article_new(database: Database, source: m.Source) -> None:
    put(database, source, raw(1))
    before = everything(database)
    put(database, source, raw(1, published_at=T + HOUR), at=T + DAY)
    assert everything(database) == before


def test_dates_that_are_none(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, published_at=None), raw(2, published_at=datetime(1758, 9, 6, tzinfo=UTC)))
    assert [(a.published_at, a.published_precision, a.eligible_at) for a in articles(database)] == [(T, "seen", T)] * 2


def test_a_first_import_is_as_old_as_its_articles(database: Database) -> None:
    with database.transaction() as session:
        first, later = build.source(session), build.source(session, imported_at=T - DAY)
    put(database, first, raw(100))
    put(database, later, raw(200, guid=None))
    old, late = articles(database)
    assert (old.eligible_at, late.eligible_at) == (T - 100 * HOUR, T)


def test_a_clock_that_runs_ahead_means_now(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, published_at=T + timedelta(minutes=9)))
    (row,) = articles(database)
    assert (row.status, row.published_at) == ("published", T)


def test_future_articles_wait(database: Database, source: m.Source) -> None:
    counts = put(database, source, raw(1, published_at=T + DAY, topics=(category("World"),)))
    assert (counts.new, counts.scheduled) == (1, 1)
    with database.transaction() as session:
        assert catalogue.publish_due(session, T + DAY - HOUR) == 0
        assert catalogue.topic_rows(session) == []
        assert catalogue.feed_items(session, FeedSelector("all")) == []
        assert catalogue.feed_version(session) == 0
    counts = put(database, source, raw(1, published_at=T + DAY, topics=(category("World"),)), at=T + HOUR)
    assert (tally(counts), counts.scheduled) == ((0, 0, 1), 1)
    with database.transaction() as session:
        assert catalogue.publish_due(session, T + DAY) == 1
        assert catalogue.publish_due(session, T + 2 * DAY) == 0
        assert [r.count for r in catalogue.topic_rows(session)] == [1]
        assert len(catalogue.feed_items(session, FeedSelector("category", "world"))) == 1
        assert catalogue.feed_version(session) == 1
    (row,) = articles(database)
    assert (row.status, row.published_at, row.eligible_at, row.updated_at) == ("published", *[T + DAY] * 3)
    assert_counts_are_true(database)


def test_a_date_still_to_come_may_move(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, published_at=T + DAY), raw(2, published_at=T + DAY))
    counts = put(database, source, raw(1, published_at=T + 3 * DAY), raw(2, published_at=T + HOUR), at=T + 2 * HOUR)
    assert (tally(counts), counts.scheduled) == ((0, 2, 0), 1)
    later, sooner = articles(database)
    assert (later.status, later.published_at, later.eligible_at) == ("scheduled", T + 3 * DAY, T + 3 * DAY)
    assert (sooner.status, sooner.published_at, sooner.eligible_at) == ("published", T + HOUR, T + HOUR)


def test_withheld_articles_count_on_the_site_and_show_nowhere(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, withheld=True, topics=(category("World"),)))
    with database.reading() as session:
        assert [(r.slug, r.count) for r in catalogue.topic_rows(session)] == [("world", 1)]
        assert catalogue.months(session, ZoneInfo("UTC")) == [("2025-07", 1)]
        assert catalogue.feed_items(session, FeedSelector("all")) == []
        assert pick(session) == []
    put(database, source, raw(1, topics=(category("World"),)), at=T + DAY)
    (row,) = articles(database)
    assert (row.status, row.published_at, row.eligible_at) == ("published", T - HOUR, T + DAY)
    put(database, source, raw(1, withheld=True, topics=(category("World"),)), at=T + 2 * DAY)
    assert articles(database)[0].status == "withheld"
    assert "Body" not in articles(database)[0].body_html
    assert_counts_are_true(database)


def test_what_a_source_takes_back_is_gone_until_it_returns(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, topics=(tag("a"),)), raw(2, topics=(tag("a"),)))
    with database.transaction() as session:
        row = session.get_one(m.Source, source.id)
        assert catalogue.remove(session, row, ["1", "99"]) == 1
        assert catalogue.remove(session, row, ["1"]) == 0
        assert [a.title for a in catalogue.list_articles(session)] == ["Headline 2"]
        assert [r.count for r in catalogue.topic_rows(session)] == [1]
        assert len(catalogue.feed_items(session, FeedSelector("tag", "a"))) == 1
    counts = put(database, source, raw(1, topics=(tag("a"),)), raw(2, topics=(tag("a"),)), at=T + HOUR)
    assert tally(counts) == (0, 1, 1)
    assert {a.status for a in articles(database)} == {"published"}
    assert_counts_are_true(database)


# ----------------------------------------------------------------------------- revisions


def revisions(database: Database, article: int) -> list[tuple[datetime, dict[str, Any]]]:
    with database.reading() as session:
        return [(r.at, dict(r.before)) for r in catalogue.revisions(session, article)]


def test_a_revision_keeps_what_was_replaced(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, topics=(tag("a"), category("World"))), raw(2))
    first, second = articles(database)
    put(database, source, raw(1, topics=(tag("a"), category("World"))), raw(2), at=T + HOUR)
    assert revisions(database, first.id) == []
    put(database, source, raw(1, title="New", topics=(tag("b"),)), raw(2), at=T + 2 * HOUR)
    put(database, source, raw(1, title="New", topics=(tag("b"),), body_html="<p>B.</p>"), raw(2), at=T + 3 * HOUR)
    body = {"body_html": "<p>Body of 1.</p>", "excerpt": "Body of 1."}
    assert revisions(database, first.id) == [
        (T + 2 * HOUR, {"title": "Headline 1", "topics": ["tag:a", "category:world"]}), (T + 3 * HOUR, body),
    ]  # fmt: skip
    assert revisions(database, second.id) == []


def test_dates_and_status_are_no_revision(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, published_at=T + DAY), raw(2))
    put(database, source, raw(1, published_at=T + HOUR), raw(2, published_at=T + HOUR), at=T + 2 * HOUR)
    with database.transaction() as session:
        catalogue.remove(session, session.get_one(m.Source, source.id), ["2"])
    put(database, source, raw(2), at=T + 3 * HOUR)
    assert [revisions(database, a.id) for a in articles(database)] == [[], []]
    assert articles(database)[1].updated_at == T - 2 * HOUR


def test_another_hash_of_the_same_content_is_no_change_of_it(database: Database, source: m.Source) -> None:
    """As after a release that takes something else into the hash."""
    put(database, source, raw(1, topics=(tag("a"),)))
    with database.transaction() as session:
        session.query(m.Article).update({"content_hash": "of another release"})
    put(database, source, raw(1, topics=(tag("a"),)), at=T + DAY)
    (row,) = articles(database)
    assert (row.updated_at, revisions(database, row.id)) == (T - HOUR, [])
    assert row.content_hash != "of another release"


def test_what_is_protected_now_is_not_kept_as_a_revision(database: Database, source: m.Source) -> None:
    put(database, source, raw(1))
    put(database, source, raw(1, withheld=True), at=T + HOUR)
    (row,) = articles(database)
    assert revisions(database, row.id) == [(T + HOUR, {"body_html": None, "excerpt": None})]


def test_only_the_newest_revisions_are_kept(database: Database, source: m.Source) -> None:
    for n in range(25):
        put(database, source, raw(1, title=f"Title {n}"), raw(2), at=T + n * HOUR)
    kept = revisions(database, articles(database)[0].id)
    assert [before["title"] for _, before in kept] == [f"Title {n}" for n in range(4, 24)]


# ----------------------------------------------------------------------------- identity


def test_any_name_leads_to_the_article(database: Database, source: m.Source) -> None:
    put(database, source, raw(1))
    moved = {"guid": "https://new.example/?p=1", "url": "https://new.example/other/", "native_id": None}
    others = {
        "native": raw(1, guid=None, url="https://site.example/renamed/"),
        "guid": raw(1, native_id="77", url="https://site.example/renamed-again/"),
        "url": raw(1, native_id=None, guid="another guid"),
        "hostless": raw(1, **moved),
    }
    for kind, other in others.items():
        assert put(database, source, other).new == 0, kind
    assert put(database, source, raw(1, **moved | {"guid": "https://x.example/?p=1", "url": "https://x.example/y",
                                                   "published_at": T - DAY})).new == 1  # fmt: skip


def test_ids_mean_nothing_in_another_source_but_urls_do(database: Database, source: m.Source) -> None:
    with database.transaction() as session:
        other = build.source(session, imported_at=T - DAY)
    put(database, source, raw(1))
    assert put(database, other, raw(1, guid="p1", url="https://other.example/1/")).new == 1
    before = articles(database)[0]
    again = put(database, other, raw(5, guid=None, url="https://site.example/1/?utm_source=x", title="Syndicated copy"))
    assert tally(again) == (0, 0, 1)
    after = articles(database)[0]
    assert (after.title, after.updated_at, after.source_id) == (before.title, before.updated_at, source.id)


def test_names_of_two_articles_leave_the_item_the_older_one(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, native_id=None), raw(2, native_id=None))
    counts = put(database, source, raw(2, native_id=None, url="https://site.example/1/", title="Both"))
    assert tally(counts) == (0, 1, 0)
    assert "goes by names of articles" in counts.warnings[0]
    assert [a.title for a in articles(database)] == ["Both", "Headline 2"]


def test_a_guid_on_two_addresses_of_a_document_names_neither(database: Database, source: m.Source) -> None:
    same = [raw(n, native_id=None, guid="tag:site.example,2025:feed") for n in (1, 2, 3)]
    assert put(database, source, *same).new == 3
    assert {a.feed_id for a in articles(database)} == {f"https://site.example/{n}/" for n in (1, 2, 3)}
    assert tally(put(database, source, *same)) == (0, 0, 3)


def test_an_address_on_two_native_ids_of_a_document_names_neither(database: Database, source: m.Source) -> None:
    same = [raw(n, guid=None, url="https://site.example/all/") for n in (1, 2)]
    assert put(database, source, *same).new == 2
    assert len({a.feed_id for a in articles(database)}) == 2
    assert tally(put(database, source, *same)) == (0, 0, 2)


def test_a_home_page_is_no_name(database: Database, source: m.Source) -> None:
    homes = [raw(n, native_id=None, guid=f"id {n}", url="https://site.example/") for n in (1, 2)]
    assert put(database, source, *homes).new == 2
    assert put(database, source, raw(9, native_id=None, guid=None, url="https://site.example/")).new == 1


def test_a_document_gives_an_article_once(database: Database, source: m.Source) -> None:
    counts = put(database, source, raw(1), raw(1, title="Second thoughts"), raw(2))
    assert (counts.new, counts.repeated) == (2, 1)
    assert articles(database)[0].title == "Headline 1"
    with database.transaction() as session:
        row = session.get_one(m.Source, source.id)
        later = catalogue.store(session, row, pairs(raw(2, title="X"), raw(3)), at=T, seen=counts.seen)
    assert (later.new, later.changed, later.repeated) == (1, 0, 1)


@pytest.mark.parametrize(
    "same",
    [{"native_id": None, "guid": "urn:uuid:feed"}, {"guid": None, "url": "https://site.example/all/"}],
    ids=["guid", "url"],
)
def test_chunks_of_a_document_tell_items_apart_too(database: Database, source: m.Source, same: dict[str, Any]) -> None:
    """One guid on two addresses, one address on two native ids, chunks apart: two articles, and again two."""
    for expected in ((1, 0, 0), (0, 0, 1)):
        seen: dict[int, tuple[int, int]] = {}
        for n in (1, 2):
            with database.transaction() as session:
                row = session.get_one(m.Source, source.id)
                item = pairs(raw(n, **same))
                counts = catalogue.store(session, row, item, at=T, seen=seen)
            seen.update(counts.seen)
            assert tally(counts) == expected, n
    assert len({a.feed_id for a in articles(database)}) == 2


def test_names_of_any_length_and_kind_fit(database: Database, source: m.Source) -> None:
    long = raw(1, guid="https://site.example/" + "ü" * 1500, native_id="n\x00" * 1000, title="Long")
    assert put(database, source, long, raw(2, guid="urn:\x0bodd \ud800")).new == 2
    assert tally(put(database, source, long)) == (0, 0, 1)


def test_names_of_a_removed_source_die_with_it(database: Database, source: m.Source) -> None:
    put(database, source, raw(1))
    with database.transaction() as session:
        catalogue.remove_source(session, "site")
        other = build.source(session, slug="other", imported_at=T)
    assert put(database, other, raw(1, guid="x", url="https://other.example/")).new == 1
    assert [a.source_id for a in articles(database)] == [None, other.id]
    assert tally(put(database, other, raw(1, native_id="7"))) == (0, 1, 0), "an orphan is taken in"
    assert [a.source_id for a in articles(database)] == [other.id, other.id]


def test_shared_names_are_only_those_that_mislead() -> None:
    def shared(*raws: RawArticle) -> set[str]:
        return {n.kind for n in shared_names([names_of(r, c, 1) for r, c in pairs(*raws)])}

    assert shared(raw(1), raw(2)) == set()
    assert shared(raw(1), raw(1)) == set()
    assert shared(raw(1), raw(2, guid=raw(1).guid, published_at=raw(1).published_at)) == {"guid", "hostless"}
    assert shared(raw(1), raw(2, url=raw(1).url)) == {"url"}
    assert shared(raw(1, native_id=None), raw(2, native_id=None, url=raw(1).url)) == set()


# ----------------------------------------------------------------------------- many at once


def statements(database: Database) -> Any:
    """Count what is sent to the database while the block runs."""
    sent: list[str] = []

    class Listening:
        def __enter__(self) -> list[str]:
            event.listen(database.engine, "before_cursor_execute", self.note)
            return sent

        def note(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            sent.append(statement)

        def __exit__(self, *_: object) -> None:
            event.remove(database.engine, "before_cursor_execute", self.note)

    return Listening()


def test_a_chunk_takes_a_handful_of_statements(database: Database, source: m.Source) -> None:
    many = [raw(n, topics=(category("World"), tag(f"T{n}")), authors=(f"A{n}",)) for n in range(1, 201)]
    for change in ({}, {"title": "New"}, {"title": "New"}):
        items = [RawArticle(**{**{f: getattr(r, f) for f in r.__slots__}, **change}) for r in many]
        with statements(database) as sent:
            put(database, source, *items)
        assert len(sent) <= 30, Counter(s.split("(")[0][:60] for s in sent)


def test_two_writers_store_one_article_once(database: Database, source: m.Source) -> None:
    """Two ingests of the same items at the same time: no article twice, no deadlock."""
    import threading

    many = pairs(*[raw(n, topics=(tag(f"t{n % 7}"),)) for n in range(1, 120)])
    made: list[tuple[int, int, int]] = []
    gate = threading.Barrier(2)

    def work(items: list[tuple[RawArticle, CleanArticle]]) -> None:
        gate.wait()
        for start in range(0, len(items), 20):
            with database.transaction() as session:
                row = session.get_one(m.Source, source.id)
                made.append(tally(catalogue.store(session, row, items[start : start + 20], at=T)))

    threads = [threading.Thread(target=work, args=(items,)) for items in (many, many[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(new for new, _, _ in made) == len(articles(database)) == len(many)
    assert sum(map(sum, made)) == 2 * len(many)
    assert_counts_are_true(database)


# ----------------------------------------------------------------------------- topics


def test_topics_make_a_tree_and_never_a_circle(database: Database) -> None:
    with database.transaction() as session:
        refs = [
            category("A", "c"),
            category("B", "a"),
            category("C", "b"),
            category("D", "d"),
            category("E", "nowhere"),
        ]
        ids = catalogue.ensure_topics(session, refs)
        tree = Tree.load(session)
        parents = dict(session.execute(select(m.Topic.id, m.Topic.parent_id)).all())
        for topic in ids.values():
            assert parents[tree.up(topic)[-1]] is None, "every way up ends"
        assert len(tree.down(ids["category", "a"]) | tree.down(ids["category", "c"])) == 3
        assert tree.up(ids["category", "e"]) == [ids["category", "e"]]
        catalogue.ensure_topics(session, [category("Nowhere"), category("E", "nowhere")])
        assert len(Tree.load(session).up(ids["category", "e"])) == 2


def test_a_category_that_moves_tells_both_feeds(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, topics=(category("Old"), category("New"), category("Child", "old"))))
    with database.transaction() as session:
        before = catalogue.feed_versions(session)
        ids = catalogue.ensure_topics(session, [category("Child", "new")])
        after = catalogue.feed_versions(session)
        catalogue.ensure_topics(session, [category("Child", "new")])
        assert catalogue.feed_versions(session) == after
        old, new = catalogue.find_topic(session, "category", "old"), catalogue.find_topic(session, "category", "new")
    assert old is not None and new is not None  # noqa: PT018
    assert {t for t in after if after[t] != before.get(t)} == {0, old.id, new.id, ids["category", "child"]}


def test_the_first_spelling_stays_and_slugs_are_the_key(database: Database, source: m.Source) -> None:
    loud = TopicRef(TopicKind.TAG, "open-data", "OPEN DATA")
    put(
        database,
        source,
        raw(1, topics=(TopicRef(TopicKind.TAG, "Open-Data", "Open  data"), loud, category("Open-data"))),
    )
    with database.reading() as session:
        rows = [(t.kind, t.slug, t.name, t.count) for t in catalogue.topic_rows(session)]
    assert rows == [("category", "open-data", "Open-data", 1), ("tag", "open-data", "Open data", 1)]


def test_a_merged_topic_answers_with_the_one_it_went_into(database: Database, source: m.Source) -> None:
    with database.transaction() as session:
        kept = build.topic(session, "Climate", kind="tag")
        gone = build.topic(session, "Warming", kind="tag")
        gone.merged_into = kept.id
    put(database, source, raw(1, topics=(tag("Warming"), tag("Climate"))))
    with database.reading() as session:
        assert [(t.slug, t.count) for t in catalogue.topic_rows(session)] == [("climate", 1)]
        assert [c.card.id for c in pick(session, "tag:warming")] == [c.card.id for c in pick(session, "tag:climate")]
        assert len(pick(session, "tag:warming")) == 1


def test_topic_rows_in_order_without_the_hidden_and_the_empty(database: Database) -> None:
    with database.transaction() as session:
        world = build.topic(session, "World")
        build.topic(session, "Africa", parent=world)
        build.topic(session, "Secret").hidden = True
        for n in range(3):
            build.article(session, categories=["Africa"] if n else ["World", "Secret"], tags=["b", "a"][: n + 1])
        shown = [(t.kind, t.slug, t.parent, t.count) for t in catalogue.topic_rows(session)]
        assert shown == [
            ("category", "africa", "world", 2), ("category", "world", None, 1),
            ("tag", "b", None, 3), ("tag", "a", None, 2),
        ]  # fmt: skip
        build.topic(session, "Nothing")
        assert [t.slug for t in catalogue.topic_rows(session, "category", include_empty=True)][-1] == "nothing"
        order = catalogue.topic_order(session)
        assert [t.id for t in catalogue.topic_rows(session, include_empty=True)] == order
        known = catalogue.known_slugs(session)
    assert known["category"] == {"africa", "world", "nothing"}
    assert "secret" in known["category"], "understood, but not suggested"
    assert known["tag"] == {"a", "b"}
    assert known["author"] == set()


def test_a_sources_categories_are_added_to_its_articles(database: Database) -> None:
    with database.transaction() as session:
        source = catalogue.add_source(session, "BBC World", kind="feed", location="x", categories=["World news"], at=T)
    put(database, source, raw(1), raw(2, topics=(category("Africa"),)))
    with database.reading() as session:
        rows = {a.title: a.categories for a in catalogue.list_articles(session)}
        assert [t.name for t in catalogue.topic_rows(session)] == ["World news", "Africa"]
        primary = {c.card.title: c.card.category for c in pick(session)}
    assert rows == {"Headline 1": ("world-news",), "Headline 2": ("africa", "world-news")}
    assert primary == {"Headline 1": "World news", "Headline 2": "Africa"}


# ----------------------------------------------------------------------------- rules in SQL

NAMES = ("a", "b", "c", "d%", "e_")
LANGUAGES = (None, "en", "en-gb", "english", "de", "e_", "e%-x")


@st.composite
def rule_trees(draw: st.DrawFn) -> rules.Rule:
    leaf = st.one_of(
        st.builds(rules.Term, st.just("category"), st.sampled_from(NAMES), st.booleans()),
        st.builds(rules.Term, st.sampled_from(["tag", "author", "source"]), st.sampled_from(NAMES)),
        st.builds(rules.Term, st.just("language"), st.sampled_from([x for x in LANGUAGES if x])),
    )
    some = st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(rules.Not, inner),
            st.builds(rules.And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
            st.builds(rules.Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        ),
        max_leaves=8,
    )
    return draw(st.one_of(st.just(rules.ALL), some))


WORLDS = st.lists(
    st.fixed_dictionaries({
        "categories": st.sets(st.sampled_from(NAMES)), "tags": st.sets(st.sampled_from(NAMES)),
        "authors": st.sets(st.sampled_from(NAMES)), "source": st.sampled_from([None, *NAMES]),
        "language": st.sampled_from(LANGUAGES),
    }),
    max_size=6,
)  # fmt: skip
PARENTS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES), max_size=4)


def plant(session: Session, world: list[dict[str, Any]], parents: dict[str, str]) -> list[tuple[int, rules.Facts]]:
    """Put a small world into the tables and say what each of its articles is."""
    topics = {name: build.topic(session, name) for name in NAMES}
    above: dict[str, str] = {}
    for child, parent in parents.items():
        walk = parent
        while walk != child and walk in above:
            walk = above[walk]
        if walk != child:
            above[child] = parent
            topics[child].parent_id = topics[parent].id
    sources = {name: build.source(session, slug=name).id for name in NAMES}
    planted = []
    for article in world:
        row = build.article(
            session, categories=article["categories"], tags=article["tags"], authors=article["authors"],
            source_id=sources.get(article["source"]), language=article["language"],
        )  # fmt: skip
        ancestors = set()
        for name in article["categories"]:
            while name in above:
                name = above[name]
                ancestors.add(name)
        facts = rules.Facts(
            frozenset(article["categories"]), frozenset(ancestors), frozenset(article["tags"]),
            frozenset(article["authors"]), frozenset({article["source"]} - {None}), article["language"],
        )  # fmt: skip
        planted.append((row.id, facts))
    return planted


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=WORLDS, parents=PARENTS, chosen=st.lists(rule_trees(), min_size=1, max_size=6))
def test_a_rule_means_the_same_in_sql(
    database: Database, world: list[dict[str, Any]], parents: dict[str, str], chosen: list[rules.Rule]
) -> None:
    with database.rehearsal() as session:
        planted = plant(session, world, parents)
        for rule in chosen:
            found = set(session.scalars(select(m.Article.id).where(catalogue.where(session, rule))))
            assert found == {article for article, facts in planted if rules.matches(rule, facts)}, str(rule)


def test_the_longest_rule_runs(database: Database) -> None:
    with database.transaction() as session:
        build.article(session, categories=["x1"])
        long = " and ".join(f"not tag:t{n}" for n in range(240))
        assert len(pick(session, long)) == 1
        assert len(pick(session, "any(" + ", ".join(f"category:x{n}" for n in range(250)) + ")")) == 1
        assert pick(session, "not " * 35 + "tag:a and " + "(" * 30 + "tag:b" + ")" * 30) == []


# ----------------------------------------------------------------------------- candidates


def pick(session: Session, rule: str = "", at: datetime = T, lookback: timedelta = WEEK) -> list[Any]:
    parsed = rules.parse(rule)
    return catalogue.candidates(session, parsed, at=at, lookback=lookback, grace=timedelta(minutes=15))


def test_candidates_are_recent_published_and_in_order(database: Database) -> None:
    with database.transaction() as session:

        def add(title: str, age: timedelta, **columns: Any) -> None:
            build.article(session, title=title, age=age, **columns)

        add("sticky", 3 * DAY, sticky=True)
        add("new", HOUR)
        add("old", 6 * DAY)
        add("fresh", timedelta(minutes=5))
        add("too old", WEEK)
        add("late and backdated", 20 * DAY, eligible_at=T - HOUR)
        add("late and far too old", 31 * DAY, eligible_at=T - HOUR)
        add("dated ahead", -HOUR, eligible_at=T - HOUR)
        add("not yet", -HOUR)
        add("on the edge", WEEK - timedelta(seconds=1))
        for status in ("scheduled", "withheld", "removed"):
            add(status, HOUR, status=status)
        found = pick(session)
    assert [c.card.title for c in found] == ["sticky", "fresh", "new", "old", "on the edge", "late and backdated"]
    assert [c.card.title for c in found if c.fresh] == ["fresh"]


def test_a_candidate_carries_all_that_an_edition_needs(database: Database) -> None:
    with database.transaction() as session:
        world = build.topic(session, "World")
        africa = build.topic(session, "Africa", parent=world)
        hidden = build.topic(session, "Hidden")
        hidden.hidden = True
        image = {"url": "https://x.example/i.png", "width": 3, "height": 2, "alt": "A", "credit": ""}
        row = build.article(session, categories=["Hidden", "Africa"], tags=["Climate"], authors=["Ada"], image=image)
        climate = build.topic(session, "Climate", kind="tag")
        (found,) = pick(session)
    assert set(found.topics) == {hidden.id, africa.id, climate.id, world.id}
    assert (found.primary, found.card.category, found.story_id) == (africa.id, "Africa", row.id)
    assert (found.card.authors, found.card.image and found.card.image.alt) == (("Ada",), "A")
    assert (found.published_at, found.eligible_at) == (T - HOUR, T - HOUR)


def test_candidates_take_the_same_few_statements_for_many(database: Database) -> None:
    sent_for = []
    for n in (3, 60):
        with database.transaction() as session:
            for _ in range(n):
                build.article(session, categories=["World"], tags=["a", "b"])
        with statements(database) as sent, database.reading() as session:
            assert len(pick(session, "category:world and not tag:c")) >= n
            sent_for.append([s for s in sent if s.lstrip().upper().startswith("SELECT")])
    assert len(sent_for[0]) == len(sent_for[1]) <= 8


@pytest.mark.parametrize("analysed", [True, False])
def test_candidates_are_found_by_the_index_of_eligibility(database: Database, analysed: bool) -> None:
    """On many articles, most of them older than the look-back, the plan must not read them all."""
    old = T - 200 * DAY
    row = {
        "source_id": None, "status": "published", "title": "t", "body_html": "", "body_text": "", "excerpt": "",
        "authors": [], "content_hash": "", "sticky": False, "word_count": 0, "published_precision": "given",
    }  # fmt: skip
    rows = [
        {**row, "story_id": n, "url": f"u{n}", "canonical_url": f"u{n}", "feed_id": f"u{n}", "published_at": when,
         "eligible_at": when, "updated_at": when, "first_seen_at": when}
        for n in range(6_000) for when in [old + n * timedelta(minutes=47)]
    ]  # fmt: skip
    with database.transaction() as session:
        session.execute(insert(m.Article), rows)
        build.topic(session, "World")
        if analysed:
            session.execute(text("ANALYZE"))
    plan: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "story_id" in statement:
            cursor.execute(explain + statement, parameters)
            plan.extend(str(row) for row in cursor.fetchall())

    event.listen(database.engine, "before_cursor_execute", note)
    with database.reading() as session:
        pick(session, "category:world or not tag:x")
    event.remove(database.engine, "before_cursor_execute", note)
    assert "ix_articles_status_eligible" in "\n".join(plan)


# ----------------------------------------------------------------------------- lists, months


def test_lists_are_oldest_first_and_know_children(database: Database) -> None:
    with database.transaction() as session:
        world = build.topic(session, "World")
        build.topic(session, "Africa", parent=world)
        for n, name in enumerate(["World", "Africa", "Sport"]):
            build.article(session, title=name, categories=[name], tags=["t"], authors=["Ada", "Bea"], age=n * DAY)
        build.article(session, title="waits", status="scheduled", categories=["World"], age=-DAY)
        titles = [a.title for a in catalogue.list_articles(session)]
        assert titles == ["Sport", "Africa", "World"]
        assert [a.title for a in catalogue.list_articles(session, "category:world")] == ["Africa", "World"]
        assert [a.title for a in catalogue.list_articles(session, since=T - HOUR)] == ["World"]
        assert len(catalogue.list_articles(session, "tag:t", limit=2)) == 2
        one = catalogue.list_articles(session, "category:sport")[0]
        assert (one.categories, one.tags, one.author, one.story) == (("sport",), ("t",), "Ada, Bea", one.id)
        assert catalogue.article_row(session, one.id) == one
        for wrong in ("world", "tag:nothing", "author:ada"):
            with pytest.raises(UsageError):
                catalogue.list_articles(session, wrong)
        with pytest.raises(UsageError, match="no article 999999"):
            catalogue.article_row(session, 999_999)


def test_months_are_those_of_the_publication(database: Database) -> None:
    new_york, apia = ZoneInfo("America/New_York"), ZoneInfo("Pacific/Apia")
    instants = [
        datetime(2025, 6, 1, 3, 59, 59, 999999, tzinfo=UTC), datetime(2025, 6, 1, 4, tzinfo=UTC),
        datetime(2025, 7, 1, 3, tzinfo=UTC), datetime(2025, 12, 1, 4, 59, tzinfo=UTC),
        datetime(2025, 12, 1, 5, tzinfo=UTC),
    ]  # fmt: skip
    with database.transaction() as session:
        assert catalogue.months(session, new_york) == []
        for when in instants:
            build.article(session, published_at=when)
        for zone in (new_york, apia, ZoneInfo("Asia/Kathmandu"), ZoneInfo("UTC")):
            wanted = Counter(when.astimezone(zone).strftime("%Y-%m") for when in instants)
            assert catalogue.months(session, zone) == sorted(wanted.items()), zone


# ----------------------------------------------------------------------------- feeds


def feed(session: Session, kind: Any = "all", slug: str = "") -> list[str]:
    return [item.title for item in catalogue.feed_items(session, FeedSelector(kind, slug))]


def test_a_feed_is_as_long_as_its_newest_days(database: Database) -> None:
    with database.transaction() as session:
        for n in range(40):
            build.article(session, title=f"{n}", age=10 * DAY + n * HOUR)
        assert feed(session) == [str(n) for n in range(40)]
        for n in range(10):
            build.article(session, title=f"new {n}", age=DAY + n * HOUR)
        assert len(feed(session)) == 20, "the old ones are out of the 48 hours now"
        for n in range(320):
            build.article(session, title=f"many {n}", age=n * timedelta(minutes=1))
        assert len(feed(session)) == 300


def test_feeds_by_topic_and_author(database: Database) -> None:
    with database.transaction() as session:
        world = build.topic(session, "World")
        build.topic(session, "Africa", parent=world)
        build.article(session, title="w", categories=["World"], age=HOUR)
        build.article(session, title="a", categories=["Africa"], tags=["World"], authors=["Ada Obi"], age=2 * HOUR)
        build.article(session, title="x", status="withheld", categories=["World"], authors=["Ada Obi"])
        assert feed(session, "category", "world") == ["w", "a"]
        assert feed(session, "category", "africa") == feed(session, "tag", "world") == ["a"]
        assert feed(session, "author", "ada-obi") == ["a"]
        assert (
            feed(session, "author", "nobody") == feed(session, "tag", "nothing") == feed(session, "digest", "x") == []
        )
        world.hidden = True
        session.flush()
        assert feed(session, "category", "world") == []
        (item, _) = catalogue.feed_items(session, FeedSelector("all"))
        assert item.topics == ()


def test_a_feed_item_is_in_whole_seconds_and_never_older_than_itself(database: Database) -> None:
    with database.transaction() as session:
        when = T.replace(microsecond=999_999)
        build.article(session, published_at=when, updated_at=when - DAY, tags=["T"], categories=["C"], authors=["A"])
        (item,) = catalogue.feed_items(session, FeedSelector("all"))
    assert (item.published, item.updated, item.authors) == (T, T, ("A",))
    assert [(t.kind, t.slug) for t in item.topics] == [("category", "c"), ("tag", "t")]


def test_a_childs_article_moves_its_parents_version(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, topics=(category("World"), category("Africa", "world"))))
    with database.reading() as session:
        before = catalogue.feed_versions(session)
    put(database, source, raw(2, topics=(category("Africa"),)))
    with database.reading() as session:
        after = catalogue.feed_versions(session)
    assert {topic: after[topic] - before[topic] for topic in after} == dict.fromkeys(after, 1)
    assert len(after) == 3


def test_versions_move_for_what_feeds_see(database: Database, source: m.Source) -> None:
    put(
        database,
        source,
        raw(1, topics=(category("World"), category("Africa", "world"), tag("x"))),
        raw(2, topics=(tag("y"),)),
    )
    with database.reading() as session:
        ids = {t.slug: t.id for t in session.scalars(select(m.Topic))}
        first = catalogue.feed_versions(session)
        dates = dict(session.execute(select(m.FeedVersion.topic_id, m.FeedVersion.changed_at)).all())
    assert set(first) == {0, *ids.values()}
    put(database, source, raw(1, topics=(category("Africa"), tag("z"))), at=T + HOUR)
    with database.reading() as session:
        second = catalogue.feed_versions(session)
        later = dict(session.execute(select(m.FeedVersion.topic_id, m.FeedVersion.changed_at)).all())
        new = session.scalars(select(m.Topic.id).where(m.Topic.slug == "z")).one()
    moved = {topic: second[topic] - first.get(topic, 0) for topic in second}
    assert moved == {0: 1, ids["world"]: 1, ids["africa"]: 1, ids["x"]: 1, ids["y"]: 0, new: 1}
    for topic in (0, ids["x"]):
        assert later[topic] >= dates[topic] + timedelta(seconds=1)
        assert later[topic].microsecond == 0


# ----------------------------------------------------------------------------- sources, publication


def test_sources_are_added_listed_and_found(database: Database) -> None:
    with database.transaction() as session:
        catalogue.add_source(session, "Harbour News", kind="feed", location="https://h.example/feed", at=T)
        with pytest.raises(UsageError, match="'harbour-news' already"):
            catalogue.add_source(session, "harbour news", kind="wxr", location="x", at=T)
        with pytest.raises(UsageError, match="'harbour-news' reads"):
            catalogue.add_source(session, "Other", kind="feed", location="https://h.example/feed", at=T)
        with pytest.raises(UsageError, match="letters or digits"):
            catalogue.add_source(session, " ", kind="feed", location="y", at=T)
        catalogue.add_source(session, "B", kind="wxr", location="z", at=T)
        assert [s.slug for s in catalogue.list_sources(session)] == ["harbour-news", "b"]
        with pytest.raises(UsageError, match="did you mean 'harbour-news'"):
            catalogue.get_source(session, "harbor-news")
        catalogue.remove_source(session, "b")
        with pytest.raises(UsageError, match="no source 'b'"):
            catalogue.remove_source(session, "b")


def test_the_brand_is_made_once_and_checked(database: Database) -> None:
    with database.transaction() as session:
        assert catalogue.brand(session, "https://h.example").name == "Digest"
        catalogue.ensure_publication(session, {"name": "The Harbour Paper", "timezone": "Europe/Oslo"})
        assert catalogue.ensure_publication(session, {"name": "Another"}).name == "The Harbour Paper"
        catalogue.bump(session, [7])
        before = catalogue.feed_versions(session)
        settings = {
            "accent": "#A0F", "language": "de-AT", "postal_address": "Pier 1\\n 0150 Oslo",
            "logo_url": "https://h.example/l.png", "mail_domain": "News.h.example",
            "footer_links": "Imprint=https://h.example/i?a=b;c ; Privacy = https://h.example/p",
        }  # fmt: skip
        for key, value in settings.items():
            catalogue.set_brand(session, key, value)
        after = catalogue.feed_versions(session)
        catalogue.set_brand(session, "accent", "#aa00ff")
        assert catalogue.feed_versions(session) == after
    assert all(after[i] == before[i] + len(settings) for i in (0, 7))
    with database.reading() as session:
        brand = catalogue.brand(session, "https://h.example")
        assert catalogue.publication(session).mail_domain == "news.h.example"
    assert (brand.name, brand.timezone, brand.url) == ("The Harbour Paper", "Europe/Oslo", "https://h.example")
    assert (brand.accent, brand.language, brand.postal_address) == ("#aa00ff", "de-at", "Pier 1\n0150 Oslo")
    assert brand.footer_links == (("Imprint", "https://h.example/i?a=b;c"), ("Privacy", "https://h.example/p"))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("timezone", "Europe/Olso", "did you mean 'Europe/Oslo'"), ("timezone", "localtime", "no time zone"),
        ("accent", "blue", "#rrggbb"), ("language", "english!", "no language tag"), ("flavour", "x", "there are name"),
        ("acent", "#fff", "did you mean 'accent'"), ("logo_url", "javascript:x", "no web address"),
        ("name", " ", "empty"),
        ("footer_links", "Imprint", "LABEL=https"), ("footer_links", "A=ftp://x", "no web address"),
        ("mail_domain", "a b", "no domain"), ("armed_for", "https://x", "brand has no"),
    ],
)  # fmt: skip
def test_a_brand_that_does_not_fit_is_refused_in_a_sentence(
    database: Database, key: str, value: str, says: str
) -> None:
    with database.transaction() as session, pytest.raises(UsageError, match=says):
        catalogue.set_brand(session, key, value)


# ----------------------------------------------------------------------------- any history

STEPS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.fixed_dictionaries({
            "topics": st.sets(st.sampled_from(["a", "b", "c"])).map(lambda s: tuple(tag(x) for x in sorted(s))),
            "withheld": st.booleans(), "published_at": st.sampled_from([T - DAY, T + DAY, None]),
        }),
    ),
    max_size=12,
)  # fmt: skip


@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_counts_stay_true_whatever_happens(database: Database, steps: Iterable[tuple[int, dict[str, Any]]]) -> None:
    with database.rehearsal() as session:
        row = build.source(session, imported_at=T)
        for n, (article, columns) in enumerate(steps):
            now = T + n * 6 * HOUR
            catalogue.store(session, row, pairs(raw(article, **columns)), at=now)
            if n % 3 == 2:
                catalogue.publish_due(session, now)
            if n % 4 == 3:
                catalogue.remove(session, row, [str(article)])
        session.expire_all()
        kept = dict(session.execute(select(m.Topic.id, m.Topic.articles).where(m.Topic.articles != 0)).all())
        assert kept == recounted(session)
