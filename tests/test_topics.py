"""Topics as an editor sets them right: spellings, hidden, renamed and merged topics, and all that follows them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import catalogue, editions, rules
from digest import models as m
from digest.catalogue.topics import Tree
from digest.db import Database
from digest.errors import RuleError, UsageError
from digest.types import FeedSelector, TopicKind, TopicRef
from tests import build
from tests.build import T
from tests.office import Office, commands
from tests.test_catalogue import HOUR, assert_counts_are_true, category, pick, put, raw, recounted, tag


@pytest.fixture
def source(database: Database) -> m.Source:
    with database.transaction() as session:
        return build.source(session, slug="site", imported_at=T - 240 * HOUR)


def spelled(name: str) -> TopicRef:
    return TopicRef(TopicKind.TAG, name.lower().replace(" ", "-"), name)


def shown(session: Session) -> list[tuple[str, str, int]]:
    return [(f"{t.kind}:{t.slug}", t.name, t.count) for t in catalogue.topic_rows(session)]


# ----------------------------------------------------------------------------- spellings


def test_the_most_used_spelling_is_the_name_and_a_tie_changes_nothing(database: Database, source: m.Source) -> None:
    def name() -> str:
        with database.reading() as session:
            return catalogue.topic_rows(session)[0].name

    put(database, source, raw(1, topics=(spelled("open data"),)))
    put(database, source, raw(2, topics=(spelled("Open Data"),)))
    assert name() == "open data"
    with database.reading() as session:
        before = catalogue.feed_versions(session)
    put(database, source, raw(3, topics=(spelled("Open Data"),)), raw(4, topics=(tag("other"),)))
    assert name() == "Open Data"
    with database.reading() as session:
        after = catalogue.feed_versions(session)
        counts = dict(session.execute(select(m.TopicName.name, m.TopicName.count)).all())
    assert all(after[topic] == before[topic] + 1 for topic in before), "every feed may name the topic"
    assert counts == {"open data": 1, "Open Data": 2, "other": 1}
    put(database, source, raw(3, topics=(spelled("OPEN DATA"),), title="New"), at=T + HOUR)
    put(database, source, raw(3, topics=(spelled("Open Data"),), title="New"), at=T + HOUR)
    with database.reading() as session:
        assert session.scalar(select(m.TopicName.count).filter_by(name="Open Data")) == 2, "once an article"


def test_a_sources_default_categories_have_no_say_in_spelling(database: Database) -> None:
    with database.transaction() as session:
        row = catalogue.add_source(session, "Wire", kind="feed", location="x", categories=["middle-east"], at=T)
    put(database, row, raw(1, topics=(category("Middle East"),)), *(raw(n) for n in range(2, 5)))
    put(database, row, raw(9, topics=(TopicRef(TopicKind.CATEGORY, "middle-east", "Middle East"),)))
    with database.reading() as session:
        assert shown(session)[0] == ("category:middle-east", "Middle East", 5)


# ----------------------------------------------------------------------------- hidden


def test_a_hidden_topic_is_nowhere_but_on_its_articles(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, topics=(tag("a"), tag("b"))))
    with database.reading() as session:
        before = catalogue.feed_versions(session)
    assert editions.hide_topic(database, "tag:a").slug == "a"
    with database.reading() as session:
        assert shown(session) == [("tag:b", "b", 1)]
        assert catalogue.feed_items(session, FeedSelector("tag", "a")) == []
        assert [t.slug for t in catalogue.feed_items(session, FeedSelector("all"))[0].topics] == ["b"]
        assert catalogue.list_articles(session)[0].tags == ("a", "b")
        assert len(pick(session, "tag:a")) == 1
        known = catalogue.known_slugs(session)
        assert "a" in known["tag"]
        assert list(known["tag"]) == ["b"]
        with pytest.raises(RuleError, match="no tag 'aa'") as refused:
            rules.check(rules.parse("tag:aa"), known, "tag:aa")
        assert "did you mean a" not in str(refused.value)
        assert all(v > before[t] for t, v in catalogue.feed_versions(session).items())
    put(database, source, raw(1, topics=(tag("a"), tag("b")), title="Again"), at=T + HOUR)
    editions.hide_topic(database, "tag:a", hidden=False)
    with database.reading() as session:
        assert [t for t, _, _ in shown(session)] == ["tag:a", "tag:b"]
    assert_counts_are_true(database)


# ----------------------------------------------------------------------------- renamed


def test_a_rename_holds_through_the_next_ingest(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, topics=(category("Gulf", "asia"), category("Asia"), tag("asia"))))
    row = editions.rename_topic(database, "category:asia", "Asia and Pacific")
    assert (row.slug, row.name, row.count) == ("asia-and-pacific", "Asia and Pacific", 1)
    more = [raw(n, topics=(category("Asia"), category("Gulf", "asia"))) for n in range(2, 6)]
    put(database, source, *more, at=T + HOUR)
    with database.reading() as session:
        assert shown(session) == [
            ("category:asia-and-pacific", "Asia and Pacific", 5), ("category:gulf", "Gulf", 5), ("tag:asia", "asia", 1),
        ]  # fmt: skip
        assert catalogue.topic_rows(session, "category")[1].parent == "asia-and-pacific"
        assert [len(pick(session, f"category:{s}", T + HOUR)) for s in ("asia", "asia-and-pacific")] == [5, 5]
        assert "asia" in catalogue.known_slugs(session)["category"]
        assert len(catalogue.list_articles(session, "category:asia")) == 5
    editions.rename_topic(database, "category:asia-and-pacific", "Asia")  # and back
    with database.reading() as session:
        assert shown(session)[0] == ("category:asia", "Asia", 5)
        assert session.scalars(select(m.TopicSlug.slug)).all() == ["asia-and-pacific"]
    assert_counts_are_true(database)


def test_an_editors_name_outweighs_every_article(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, topics=(tag("eu"),)))
    editions.rename_topic(database, "tag:eu", "European Union", slug="eu")
    put(database, source, *(raw(n, topics=(TopicRef(TopicKind.TAG, "eu", "EU"),)) for n in range(2, 40)))
    with database.reading() as session:
        assert shown(session) == [("tag:eu", "European Union", 39)]
    editions.rename_topic(database, "tag:eu", "The EU", slug="eu")
    editions.rename_topic(database, "tag:eu", "The Union", slug="eu")
    with database.reading() as session:
        assert shown(session) == [("tag:eu", "The Union", 39)]


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (("rename", "tag:a", "b"), "there is a tag 'b' already; `digest topics merge` makes one of two"),
        (("rename", "tag:a", "old"), "'old' was the slug of another tag"),
        (("rename", "tag:a", "merged"), "'merged' was the slug of another tag"),
        (("rename", "tag:a", " "), "must have a name"),
        (("rename", "tag:a", "2025"), "would be a number"),
        (("rename", "a", "b"), "write category:SLUG or tag:SLUG"),
        (("hide", "tag:bb"), "there is no tag 'bb'; did you mean tag:b?"),
        (("merge", "tag:a", "tag:a"), "are one topic already"),
        (("merge", "tag:merged", "tag:b"), "are one topic already"),
        (("merge", "tag:a", "category:c"), "are of two kinds"),
    ],
)
def test_what_an_editor_cannot_want_is_refused_in_a_sentence(
    database: Database, act: tuple[str, ...], says: str
) -> None:
    with database.transaction() as session:
        for name in ("a", "b", "old", "merged"):
            build.topic(session, name, kind="tag")
        build.topic(session, "c")
    editions.rename_topic(database, "tag:old", "new")
    editions.merge_topics(database, "tag:merged", "tag:b")
    done: Any = {"rename": editions.rename_topic, "hide": editions.hide_topic, "merge": editions.merge_topics}[act[0]]
    with pytest.raises(UsageError) as refused:
        done(database, *act[1:])
    assert says in str(refused.value)


# ----------------------------------------------------------------------------- merged


def test_a_merge_takes_everything_along_and_holds_through_the_next_ingest(database: Database, source: m.Source) -> None:
    topics = {1: ("warming",), 2: ("climate",), 3: ("warming", "climate"), 4: ("else", "warming")}
    given = [raw(n, topics=tuple(map(tag, slugs))) for n, slugs in topics.items()]
    put(database, source, *given, raw(5, withheld=True, topics=(tag("warming"),)))
    with database.transaction() as session:
        digest = build.digest(session, tags=["warming"])
        climate, warming = (catalogue.find_topic(session, "tag", s) for s in ("climate", "warming"))
        other = catalogue.find_topic(session, "tag", "else")
        assert climate and warming and other  # noqa: PT018
        readers = [
            build.subscription(session, digest, topics=chosen).id
            for chosen in ([warming], [warming, climate], [warming, other], [other], [])
        ]
        ids = {"climate": climate.id, "else": other.id}
    row = editions.merge_topics(database, "tag:warming", "tag:climate")
    assert (row.slug, row.name, row.count) == ("climate", "climate", 5)
    put(database, source, *given, raw(6, topics=(tag("warming"),)), at=T + HOUR)
    put(database, source, raw(1, topics=(tag("warming"),), title="New"), at=T + HOUR)
    with database.reading() as session:
        assert shown(session) == [("tag:climate", "climate", 6), ("tag:else", "else", 1)]
        assert {a.tags for a in catalogue.list_articles(session)} == {("climate",), ("else", "climate")}
        found = [{c.card.id for c in pick(session, rule, T + HOUR)} for rule in ("tag:climate", "tag:warming")]
        assert found[0] == found[1]
        assert len(found[0]) == 5
        assert len(pick(session, "not tag:warming", T + HOUR)) == 0
        tastes = {s.id: s.taste_id for s in session.scalars(select(m.Subscription))}
        keys = dict(session.execute(select(m.Taste.id, m.Taste.key)).all())
        both = ",".join(map(str, sorted(ids.values())))
        wanted = [str(ids["climate"]), str(ids["climate"]), both, str(ids["else"]), ""]
        assert [keys[tastes[r]] for r in readers] == wanted
        known = catalogue.known_slugs(session)
        rules.check(rules.combine("", digest.categories, digest.tags), known, "")
        assert "warming" not in list(known["tag"])
    assert_counts_are_true(database)


def test_merges_in_a_row_lead_to_the_last_one(database: Database, source: m.Source) -> None:
    put(database, source, *(raw(n, topics=(tag(f"t{n}"),)) for n in range(1, 4)))
    editions.rename_topic(database, "tag:t1", "First")
    editions.merge_topics(database, "tag:first", "tag:t2")
    editions.merge_topics(database, "tag:t2", "tag:t3")
    put(database, source, *(raw(n, topics=(tag(f"t{n}"),), title="New") for n in range(1, 4)), at=T + HOUR)
    with database.reading() as session:
        assert shown(session) == [("tag:t3", "t3", 3)]
        for slug in ("t1", "first", "t2", "t3"):
            assert len(pick(session, f"tag:{slug}", T + HOUR)) == 3
    assert_counts_are_true(database)


@pytest.mark.parametrize(("gone", "kept"), [("world", "kenya"), ("kenya", "world"), ("africa", "asia")])
def test_the_tree_stays_one_after_a_merge(database: Database, source: m.Source, gone: str, kept: str) -> None:
    tree = (category("World"), category("Africa", "world"), category("Kenya", "africa"), category("Asia"))
    put(database, source, *(raw(n, topics=(ref,)) for n, ref in enumerate(tree, 1)))
    editions.merge_topics(database, f"category:{gone}", f"category:{kept}")
    put(database, source, *(raw(n, topics=(ref,), title="New") for n, ref in enumerate(tree, 1)), at=T + HOUR)
    with database.reading() as session:
        rows = {t.slug: t for t in catalogue.topic_rows(session)}
        loaded = Tree.load(session)
        for row in rows.values():
            assert loaded.up(row.id)[-1] != row.id or row.parent is None
        assert gone not in rows
        assert rows[kept].count == 2
        if (gone, kept) == ("world", "kenya"):
            assert (rows["kenya"].parent, rows["africa"].parent) == (None, "kenya")
        if gone == "africa":
            assert rows["kenya"].parent == "asia"
    assert_counts_are_true(database)


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["store", "store", "merge", "rename", "hide"]), st.integers(0, 3), st.integers(0, 3)
    ),
    max_size=10,
)  # fmt: skip


@hypothesis_settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_counts_stay_true_whatever_an_editor_does(database: Database, acts: list[tuple[str, int, int]]) -> None:
    """Whatever was merged and renamed, sources that go on as before make no topic anew and every count holds."""
    names = ("a", "b", "c", "d")
    with database.rehearsal() as session:
        row = build.source(session, imported_at=T)
        for name in names:
            build.topic(session, name, kind="tag")
        for n, (act, one, two) in enumerate(acts):
            try:
                if act == "store":
                    given = raw(one, title=f"T{n}", topics=(tag(names[one]), tag(names[two])))
                    catalogue.store(session, row, [(given, _clean(given))], at=T + n * HOUR)
                elif act == "merge":
                    catalogue.merge(session, f"tag:{names[one]}", f"tag:{names[two]}")
                elif act == "rename":
                    catalogue.rename(session, f"tag:{names[one]}", f"name {two}")
                else:
                    catalogue.hide(session, f"tag:{names[one]}", hidden=bool(two % 2))
            except UsageError:
                continue
        session.expire_all()
        kept = dict(session.execute(select(m.Topic.id, m.Topic.articles).where(m.Topic.articles != 0)).all())
        assert kept == recounted(session)
        assert session.query(m.Topic).count() == 4


def _clean(given: Any) -> Any:
    from digest.text import clean

    return clean(given)


# ----------------------------------------------------------------------------- what digests and readers said before


AT = T.replace(hour=7) + timedelta(days=1)


def change(office: Office, wishes: dict[str, Any] | None = None, **fields: Any) -> None:
    selection = editions.Wishes(**wishes) if wishes else None
    office.setup.change("morning", editions.DigestFields(selection=selection, **fields))


def told(office: Office, email: str | None = None) -> tuple[list[tuple[str, str | None]], dict[str, str]]:
    """Titles and sections of the picks; reasons of the others."""
    data = office.preview("morning", AT, email).data
    out = {c["title"]: c["reason"] for c in data["candidates"] if c["verdict"] == "out"}
    return [(p["title"], p["section"]) for p in data["picks"]], out


@pytest.mark.parametrize("named", ["old", "merged"])
def test_old_names_in_a_digest_mean_the_topic_they_became(database: Database, source: m.Source, named: str) -> None:
    given = [raw(n, title=f"T{n}", topics=(category("Old" if n % 2 else "Sport"),)) for n in range(1, 7)]
    given += [raw(7, title="T7", topics=(category("Gulf", "old"),), body_html="<p>" + "word " * 700)]
    put(database, source, *given)
    office = Office(database)
    with database.transaction() as session:
        build.publication(session)
        build.digest(session)
        old = catalogue.find_topic(session, "category", "old")
        reader = build.subscriber(session, "reader@example.org")
        digest = session.scalars(select(m.Digest)).one()
        build.subscription(session, digest, reader, topics=[old] if old else [])
    score = "recency=.001,length=.1,topic:category:old=1"
    wishes = {"quotas": ("category:old=2",), "sections": "category", "score": score}
    change(office, wishes, where="category:old or category:sport", grace="0m", lookback="9d")
    before = told(office), told(office, "reader@example.org")
    if named == "old":
        editions.rename_topic(database, "category:old", "New", slug="new")
    else:
        put(database, source, raw(99, title="Elsewhere", withheld=True, topics=(category("New"),)))
        editions.merge_topics(database, "category:old", "category:new")
    put(database, source, *(replace(g, title=f"{g.title}") for g in given), at=T + HOUR)

    def now(what: tuple[Any, Any]) -> tuple[Any, Any]:
        return [(title, "New" if section == "Old" else section) for title, section in what[0]], what[1]

    assert (told(office), told(office, "reader@example.org")) == (now(before[0]), now(before[1]))
    assert len(before[0][1]) == 2
    assert "over the quota of its topic" in before[0][1].values()
    change(office, {"quotas": ("category:old=1",)})
    assert len(told(office)[1]) == 3


def test_two_names_of_one_topic_have_the_smaller_quota_and_the_greater_weight(
    database: Database, source: m.Source
) -> None:
    given = raw(1, title="One", topics=(tag("a"),)), raw(2, title="Two", topics=(tag("b"),)), raw(3, title="Three")
    put(database, source, *given)
    office = Office(database)
    with database.transaction() as session:
        build.publication(session)
        build.digest(session)
    change(office, {"quotas": ("tag:a=3", "tag:b=1"), "score": "topic:tag:a=.25,topic:tag:b=.5"}, grace="0m")
    editions.merge_topics(database, "tag:a", "tag:b")
    data = office.preview("morning", AT).data
    scores = {c["title"]: c["score"]["total"] for c in data["candidates"]}
    assert scores == {"One": 0.5, "Two": 0.5, "Three": 0.0}
    assert [p["title"] for p in data["picks"]] == ["One", "Three"]


def test_a_hidden_topic_in_a_digest_is_found_and_counted_but_heads_nothing(
    database: Database, source: m.Source
) -> None:
    topics = {1: (category("Desk"),), 2: (category("Desk"), category("Sport")), 3: (category("Sport"),)}
    put(database, source, *(raw(n, title=f"T{n}", topics=t) for n, t in topics.items()))
    office = Office(database)
    with database.transaction() as session:
        build.publication(session)
        digest = build.digest(session)
        desk = catalogue.find_topic(session, "category", "desk")
        assert desk
        build.subscription(session, digest, build.subscriber(session, "reader@example.org"), topics=[desk])
    wishes = {"quotas": ("category:desk=1",), "sections": "category"}
    change(office, wishes, where="category:desk or category:sport", grace="0m")
    editions.hide_topic(database, "category:desk")
    assert told(office) == ([("T1", ""), ("T3", "Sport")], {"T2": "over the quota of its topic"})
    assert told(office, "reader@example.org")[0] == [("T1", "")]


def test_overlap_is_told_through_old_names_and_children(database: Database, source: m.Source) -> None:
    put(database, source, raw(1, topics=(category("Kenya", "africa"), category("Africa"), category("Asia"))))
    office = Office(database)
    for slug, where in (("africa", "category:africa"), ("kenya", "category:kenya"), ("asia", "category:asia")):
        office.setup.add(slug, editions.DigestFields(where=where, schedule="0 7 * * *"), T)
    assert office.setup.overlapping("kenya") == ["africa"]
    editions.rename_topic(database, "category:africa", "The Continent")
    office.setup.add("again", editions.DigestFields(where="category:the-continent!only", schedule="0 7 * * *"), T)
    assert office.setup.overlapping("again") == ["africa"]


# ----------------------------------------------------------------------------- the command


def test_the_commands_print_the_topic(database_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Database(database_url)
    with base.transaction() as session:
        build.article(session, categories=["World"], tags=["a", "b"])
    base.close()
    said = commands(database_url, tmp_path, monkeypatch)

    def topic(slug: str, name: str, count: int = 1) -> dict[str, Any]:
        return {"kind": "tag", "slug": slug, "name": name, "parent": None, "count": count}

    assert said("topics", "rename", "tag:a", "Alpha") == [topic("alpha", "Alpha")]
    assert said("topics", "merge", "tag:alpha", "tag:b") == [topic("b", "b")]
    assert said("topics", "--kind", "tag") == [topic("b", "b")]
    assert said("topics", "hide", "tag:a") == [topic("b", "b")]
    assert said("topics", "--kind", "tag") == []
    assert said("topics", "hide", "tag:b", "--undo") == [topic("b", "b")]
