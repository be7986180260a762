"""An edition that waits, and what editors and sources do meanwhile: it goes out as things are by then."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from digest import catalogue, editions, ingest, ledger
from digest import models as m
from digest.catalogue import marks
from digest.catalogue.topics import Tree
from digest.db import Database
from digest.editions import DigestFields, Wishes, exclude_article, pin_article, unmark_article
from digest.errors import UsageError
from digest.ledger.history import unpack_ids, unpack_items, unpack_ordinals
from digest.types import ArticleStatus
from tests import build
from tests.office import Office, commands

AT = build.T.replace(hour=7) + timedelta(days=1)
NAMES = ("Africa", "Sahel", "Asia", "Gulf")


@dataclass
class Waiting:
    """A digest in sections whose edition is held, eight articles under four categories, and a reader of each."""

    office: Office
    edition: int
    articles: list[int]
    readers: dict[str, int]

    @property
    def db(self) -> Database:
        return self.office.db

    def seen(self) -> list[dict[str, Any]]:
        """The pool as `editions show --pool` has it: what would go out now. Looking changes nothing."""
        with self.db.rehearsal() as session:
            self.office.editor.look(session, self.edition)
            return self._rows(session)

    def released(self) -> list[dict[str, Any]]:
        self.office.editor.approve(self.edition)
        with self.db.reading() as session:
            return self._rows(session)

    def _rows(self, session: Any) -> list[dict[str, Any]]:
        rows = ledger.editions.pool(session, self.edition)
        names = ("article_id", "story_id", "verdict", "reason", "section", "position")
        return [{n: getattr(r, n) for n in names} | {"card": r.card["title"], "in": r.card["category"]} for r in rows]

    def told(self) -> dict[int, str]:
        return {r["article_id"]: f"{r['verdict']}: {r['reason']}" for r in self.seen()}

    def got(self) -> dict[int, list[tuple[int, int]]]:
        """Subscriber → the items of their mail: (article, section)."""
        found = {}
        with self.db.reading() as session:
            variants = session.scalars(select(m.Variant).filter_by(edition_id=self.edition))
            items = {v.ordinal: unpack_items(v.items) for v in variants}
            for batch in session.scalars(select(m.Batch).filter_by(edition_id=self.edition)):
                for reader, ordinal in zip(unpack_ids(batch.ids), unpack_ordinals(batch.ordinals), strict=True):
                    found[reader] = items.get(ordinal, [])
        return found


@pytest.fixture
def waiting(database: Database) -> Waiting:
    office = Office(database)
    readers = {}
    with database.transaction() as session:
        build.publication(session)
        morning = build.digest(
            session, created_at=build.T, approve=True, maximum=12, selection={"sections": "category"}
        )
        ledger.editions.add_clock(session, build.schedule_of(session, morning).id, "UTC")
        parent = build.topic(session, "Africa")
        build.topic(session, "Sahel", parent=parent)
        articles = [
            build.article(session, categories=[NAMES[n % 4]], tags=[f"t{n % 3}"], age=timedelta(hours=n)).id
            for n in range(8)
        ]
        for name in NAMES:
            reader = build.subscription(session, morning, topics=[build.topic(session, name)])
            readers[name] = reader.subscriber_id
        readers["all"] = build.subscription(session, morning).subscriber_id
    office.tick(AT)
    (edition,) = office.editions()
    assert edition.status == "held"
    return Waiting(office, edition.id, articles, readers)


def topic(waiting: Waiting, slug: str) -> m.Topic:
    with waiting.db.reading() as session:
        found = catalogue.find_topic(session, "category", slug)
        assert found
        return found


def correct(waiting: Waiting, article: int, **columns: Any) -> None:
    with waiting.db.transaction() as session:
        session.execute(update(m.Article).where(m.Article.id == article).values(**columns))


# ----------------------------------------------------------------------------- one act at a time


def test_readers_of_a_merged_topic_get_it_from_an_edition_that_waited(waiting: Waiting) -> None:
    editions.merge_topics(waiting.db, "category:gulf", "category:asia")
    asia = topic(waiting, "asia").id
    rows = waiting.released()
    assert [r["section"] for r in rows if r["article_id"] in waiting.articles[2::4]] == [asia, asia]
    both = [(a, asia) for n, a in enumerate(waiting.articles) if n % 4 in (2, 3)]
    assert waiting.got()[waiting.readers["Gulf"]] == waiting.got()[waiting.readers["Asia"]] == both


def test_a_merge_between_composing_and_releasing_loses_no_reader(waiting: Waiting) -> None:
    """As if another process merged in the moment between the two."""
    correct_held = update(m.Edition).values(status="draft", reason=None)
    with waiting.db.transaction() as session:
        session.execute(correct_held)
    editions.merge_topics(waiting.db, "category:gulf", "category:asia")
    waiting.office.editor.release(waiting.edition)
    asia = topic(waiting, "asia").id
    assert len(waiting.got()[waiting.readers["Gulf"]]) == 4
    assert {s for items in waiting.got().values() for _, s in items} >= {asia}
    assert topic(waiting, "gulf").id not in {s for items in waiting.got().values() for _, s in items}


def test_a_renamed_or_hidden_topic_is_called_so_in_an_edition_that_waited(waiting: Waiting) -> None:
    editions.rename_topic(waiting.db, "category:asia", "Asia and Pacific")
    editions.hide_topic(waiting.db, "category:gulf")
    rows = {r["article_id"]: r for r in waiting.released()}
    asian, gulf = waiting.articles[2], waiting.articles[3]
    assert (rows[asian]["in"], rows[asian]["section"]) == ("Asia and Pacific", topic(waiting, "asia").id)
    assert (rows[gulf]["in"], rows[gulf]["section"], rows[gulf]["verdict"]) == ("", 0, "in")
    assert waiting.got()[waiting.readers["Gulf"]] == [(gulf, 0), (waiting.articles[7], 0)], (
        "found, but under no heading"
    )


def test_stories_merged_and_split_meanwhile_are_told_as_they_are(waiting: Waiting) -> None:
    one, two = waiting.articles[:2]
    with waiting.db.transaction() as session:
        ingest.merge(session, one, two, at=AT)
    assert waiting.told()[two] == "in: also"
    with waiting.db.transaction() as session:
        ingest.split(session, two, at=AT)
    assert waiting.told()[two] == "in: picked"
    waiting.released()
    assert sorted(a for a, _ in waiting.got()[waiting.readers["all"]]) == waiting.articles


def test_corrections_go_out_and_what_the_rule_no_longer_takes_does_not(waiting: Waiting) -> None:
    with waiting.db.transaction() as session:
        session.execute(update(m.Edition).values(recipe=waiting.office.editions()[0].recipe | {"rule": "not tag:t0"}))
        labelled = build.topic(session, "t0", kind="tag").id
        session.add(m.ArticleTopic(article_id=waiting.articles[1], topic_id=labelled, position=9))
    correct(waiting, waiting.articles[2], title="A headline set right")
    correct(waiting, waiting.articles[4], status="removed")
    before = waiting.told()
    rows = {r["article_id"]: r for r in waiting.released()}
    assert rows[waiting.articles[2]]["card"] == "A headline set right"
    assert before[waiting.articles[1]] == "out: no longer taken by the rule"
    assert before[waiting.articles[4]] == "out: no longer published"
    assert sorted(rows) == waiting.articles, "none is without a verdict"
    carried = {a for a, _ in waiting.got()[waiting.readers["all"]]}
    assert carried == {n for n, told in before.items() if told.startswith("in")}


def test_nothing_comes_into_an_edition_that_waits_but_what_an_editor_pins(waiting: Waiting) -> None:
    with waiting.db.transaction() as session:
        late, old = (build.article(session, age=timedelta(hours=h)).id for h in (5, 24 * 60))
    assert late not in waiting.told()
    pin_article(waiting.db, old, "morning", None, AT)
    assert next(iter(waiting.told().items())) == (old, "in: pinned by an editor")
    unmark_article(waiting.db, old, None)
    assert old not in waiting.told()


def test_an_exclusion_is_seen_at_once_and_can_be_taken_back(waiting: Waiting) -> None:
    first = waiting.articles[0]
    exclude_article(waiting.db, first, "morning", AT)
    assert waiting.told()[first] == "out: removed by an editor"
    assert all(r["position"] is None for r in waiting.seen() if r["article_id"] == first)
    unmark_article(waiting.db, first, "morning")
    assert waiting.told()[first] == "in: picked"


# ----------------------------------------------------------------------------- whatever happens


def acts(waiting: Waiting, chance: random.Random) -> dict[str, Callable[[], object]]:
    db, one, two = waiting.db, *chance.sample(waiting.articles, 2)
    names = [f"category:{n.lower()}" for n in NAMES]

    def story(act: Callable[..., object], *ids: int) -> None:
        with db.transaction() as session:
            act(session, *ids, at=AT)

    return {
        "merge topics": lambda: editions.merge_topics(db, *chance.sample(names, 2)),
        "rename": lambda: editions.rename_topic(db, chance.choice(names), f"Name {chance.random()}"),
        "hide": lambda: editions.hide_topic(db, chance.choice(names), hidden=chance.random() < 0.7),
        "merge stories": lambda: story(ingest.merge, one, two),
        "split": lambda: story(ingest.split, one),
        "exclude": lambda: exclude_article(db, one, None, AT),
        "unmark": lambda: unmark_article(db, one, None),
        "pin": lambda: pin_article(db, one, "morning", None, AT),
        "correct": lambda: correct(waiting, one, title=f"Corrected {chance.random()}"),
        "unpublish": lambda: correct(waiting, one, status=chance.choice([ArticleStatus.REMOVED, "published"])),
    }


@pytest.mark.parametrize("seed", range(4))
def test_what_was_shown_is_what_goes_out_whatever_happened(waiting: Waiting, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(8):
        possible = acts(waiting, chance)
        try:
            possible[chance.choice(sorted(possible))]()
        except UsageError:
            continue
    shown = waiting.seen()
    rows = waiting.released()
    assert rows == shown
    assert sorted(r["article_id"] for r in rows) == waiting.articles, "one verdict each"
    assert all(r["reason"] for r in rows)
    assert all((r["verdict"] == "in") == (r["position"] is not None) for r in rows)
    leads = [r["story_id"] for r in rows if r["verdict"] == "in" and r["reason"] != "also"]
    assert len(leads) == len(set(leads)), "a story is told once"
    with waiting.db.reading() as session:
        known = {0, *catalogue.topic_order(session)}
        out = marks.marks(session, 1, AT).excluded
        gone = set(session.scalars(select(m.Article.id).where(m.Article.status != ArticleStatus.PUBLISHED)))
        tastes = {
            s.subscriber_id: {int(t) for t in taste.split(",") if t}
            for s, taste in session.execute(
                select(m.Subscription, m.Taste.key).join(m.Taste, m.Taste.id == m.Subscription.taste_id)
            )
        }
        about: dict[int, set[int]] = {}
        tree = Tree.load(session)
        for article, topic in session.execute(select(m.ArticleTopic.article_id, m.ArticleTopic.topic_id)):
            about.setdefault(article, set()).update(tree.up(topic))
        stories = dict(session.execute(select(m.Article.id, m.Article.story_id)).all())
    may = set(waiting.articles) - out - gone
    for reader, items in waiting.got().items():
        got = [a for a, _ in items]
        assert len(got) == len(set(got))
        assert {s for _, s in items} <= known, "every section is one that the site knows"
        chosen = {stories[a] for a in may if not tastes[reader] or about[a] & tastes[reader]}
        assert set(got) == {a for a in may if stories[a] in chosen}


# ----------------------------------------------------------------------------- from the command line


def test_show_tells_of_an_open_edition_how_it_stands_now_and_keeps_nothing(
    waiting: Waiting, database_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = commands(database_url, tmp_path, monkeypatch)
    first = waiting.articles[0]
    with waiting.db.reading() as session:
        before = [(r.reason, r.position) for r in ledger.editions.pool(session, waiting.edition)]
    said("articles", "exclude", str(first))
    (shown,) = said("editions", "show", str(waiting.edition), "--pool")
    assert {p["id"]: p["reason"] for p in shown["pool"]}[first] == "removed by an editor"
    assert first not in {a["id"] for a in shown["articles"]}
    with waiting.db.reading() as session:
        assert [(r.reason, r.position) for r in ledger.editions.pool(session, waiting.edition)] == before


def test_wishes_are_those_the_edition_was_opened_with(waiting: Waiting) -> None:
    waiting.office.setup.change("morning", DigestFields(selection=Wishes(quotas=("category:asia=1",))))
    assert set(waiting.told().values()) == {"in: picked"}
