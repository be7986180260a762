"""One article stays one, however it arrives again, and never becomes recent anew. On both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from digest import catalogue, ingest
from digest import models as m
from digest.db import Database
from digest.fetch import Fetcher
from digest.types import RawArticle
from tests import build
from tests.test_catalogue import DAY, HOUR, T, articles, assert_counts_are_true, everything, pick, put, raw, tag

DATA = Path(__file__).parent / "data" / "same-articles"
FORMS = {
    "wxr": ("wxr", "wxr.xml.gz"), "rss1": ("feed", "rss1.rdf.gz"), "atom": ("feed", "atom.xml.gz"),
    "json": ("jsonfeed", "feed.json.gz"), "rss2": ("feed", "rss2.xml.gz"),
    "rss2 page 2": ("feed", "rss2-paged-2.xml.gz"),
}  # fmt: skip


@pytest.fixture
def fetcher(settings: Any) -> Fetcher:
    return Fetcher(settings.fetch)


@pytest.fixture
def site(database: Database) -> m.Source:
    with database.transaction() as session:
        return build.source(session, slug="site", kind="wxr", imported_at=T - 10 * DAY)


# ----------------------------------------------------------------------------- arriving again

SITE = "https://site.example"
OLD = raw(1, published_at=T - 5 * DAY, topics=(tag("a"),))
AGAIN: dict[str, RawArticle] = {
    "a new title": replace(OLD, title="Quite another headline"),
    "another guid": replace(OLD, native_id=None, guid="https://site.example/?p=4711"),
    "a guid that is none": replace(OLD, native_id=None, guid="1"),
    "no guid": replace(OLD, native_id=None, guid=None),
    "another address": replace(OLD, url=f"{SITE}/2025/07/a-better-slug/"),
    "another address and title": replace(OLD, native_id=None, url=f"{SITE}/better/", title="Better"),
    "tracking": replace(OLD, native_id=None, guid=None, url=f"{SITE}/1/?utm_source=rss&at_medium=x#comments"),
    "a date that jumped": replace(OLD, published_at=T + HOUR),
    "a date that went back": replace(OLD, published_at=T - 90 * DAY),
    "no date": replace(OLD, published_at=None),
    "a date and title": replace(OLD, native_id=None, published_at=T, title="Updated: headline"),
    "a moved domain": replace(OLD, native_id=None, guid="https://new.example/?p=1", url="https://new.example/x/"),
    "a moved domain, by its native id": replace(OLD, guid="https://new.example/?p=1", url="https://new.example/1/"),
}


@pytest.mark.parametrize("how", AGAIN)
@pytest.mark.parametrize("late", [False, True], ids=["at once", "a week later"])
def test_it_is_the_same_article_and_no_news(database: Database, site: m.Source, how: str, late: bool) -> None:
    at = T + 7 * DAY if late else T + HOUR
    put(database, site, OLD)
    (before,) = articles(database)
    assert put(database, site, AGAIN[how], at=at).new == 0
    assert put(database, site, AGAIN[how], at=at + HOUR).new == 0
    (after,) = articles(database)
    assert (after.published_at, after.eligible_at, after.first_seen_at, after.feed_id, after.story_id) == (
        before.published_at, before.eligible_at, before.first_seen_at, before.feed_id, before.story_id,
    )  # fmt: skip
    with database.reading() as session:
        fresh = pick(session, at=at, lookback=at - T - DAY if late else HOUR / 2)
    assert fresh == [], "it is not recent again"
    assert_counts_are_true(database)


@pytest.mark.parametrize("how", ["another guid", "no guid", "a guid that is none", "tracking", "a date that jumped"])
def test_another_source_with_the_same_article_only_adds_its_names(database: Database, site: m.Source, how: str) -> None:
    """Another kind of source has ids of its own: the address is what both know."""
    put(database, site, OLD)
    (before,) = articles(database)
    with database.transaction() as session:
        feed = build.source(session, slug="feed", kind="feed", imported_at=T - DAY)
    copy = replace(AGAIN[how], native_id=None, title="As the feed has it", topics=())
    assert put(database, feed, copy, at=T + HOUR).new == 0
    (after,) = articles(database)
    assert (after.title, after.source_id, after.eligible_at) == (before.title, site.id, before.eligible_at)
    moved = replace(copy, url=f"{SITE}/elsewhere/", guid=copy.guid or "g")
    put(database, feed, replace(copy, guid=moved.guid), at=T + 2 * HOUR)
    assert put(database, feed, moved, at=T + 3 * HOUR).new == 0, "by the guid that the feed itself gave"


def test_a_site_without_guids_moves_to_another_domain(database: Database, site: m.Source) -> None:
    bare = [raw(n, native_id=None, guid=None, url=f"{SITE}/2025/{n}/") for n in range(1, 4)]
    put(database, site, *bare)
    moved = [replace(r, url=(r.url or "").replace("site.example", "new.example")) for r in bare]
    assert put(database, site, *moved, at=T + DAY).new == 0
    assert put(database, site, *(replace(r, published_at=T) for r in moved), at=T + 2 * DAY).new == 0
    assert put(database, site, raw(9, native_id=None, guid=None, url="https://x.example/2025/1/")).new == 1


def test_an_article_that_came_before_its_source_was_removed_goes_on(database: Database, site: m.Source) -> None:
    put(database, site, OLD)
    (before,) = articles(database)
    with database.transaction() as session:
        catalogue.remove_source(session, "site")
        feed = build.source(session, slug="feed", imported_at=T)
    put(database, feed, replace(OLD, title="Heir"), at=T + DAY)
    (after,) = articles(database)
    assert (after.title, after.source_id, after.eligible_at) == ("Heir", feed.id, before.eligible_at)


# ----------------------------------------------------------------------------- forms of one site


def read(database: Database, fetcher: Fetcher, form: str, at: datetime) -> ingest.SourceReport:
    kind, name = FORMS[form]
    ingest.add_source(database, f"Site {form}", kind=kind, location=str(DATA / name), at=at)
    with database.transaction() as session:
        session.query(m.Source).update({"imported_at": at - DAY})  # so that what is new would be recent
    reports = ingest.refresh(database, fetcher, at=at, names=[f"site-{_slug(form)}"])
    return reports[0]


def _slug(form: str) -> str:
    return form.replace(" ", "-")


NOW = datetime.fromisoformat("2025-09-06T17:00:00+00:00")


@pytest.mark.parametrize("first", ["wxr", "rss1", "atom", "json"])
def test_forms_of_one_site_make_thirty_articles(database: Database, fetcher: Fetcher, first: str) -> None:
    """Each form in turn first, all others after it: thirty articles, as the first one told them."""
    assert read(database, fetcher, first, NOW).new == 30
    before = {a.id: (a.title, a.published_at, a.eligible_at, a.updated_at, a.feed_id) for a in articles(database)}
    for later, form in enumerate([f for f in FORMS if f != first], 1):
        report = read(database, fetcher, form, NOW + later * DAY)
        assert (report.new, report.changed, report.errors) == (0, 0, []), form
        assert report.unchanged >= 10, form
    after = {a.id: (a.title, a.published_at, a.eligible_at, a.updated_at, a.feed_id) for a in articles(database)}
    assert after == before
    written = everything(database)
    ingest.refresh(database, fetcher, at=NOW + 10 * DAY, force=True)
    again = everything(database)
    assert {name for name in written if written[name] != again[name]} <= {"sources"}
    assert_counts_are_true(database)


@pytest.mark.parametrize("order", list(permutations(["native", "guid", "url"])), ids="-".join)
def test_names_come_in_any_order(database: Database, site: m.Source, order: tuple[str, ...]) -> None:
    """Each arrival knows one name more than the last: whichever came first, they lead to one article."""
    known: dict[str, Any] = {"native_id": None, "guid": None}
    given = {"native": {"native_id": "1"}, "guid": {"guid": f"{SITE}/?p=1"}, "url": {"url": f"{SITE}/1/"}}
    put(database, site, replace(OLD, **known))
    for name in order:
        known |= given[name]
        assert put(database, site, replace(OLD, **known)).new == 0
    with database.reading() as session:
        names = {(a.kind, a.value) for a in session.scalars(select(m.ArticleAlias)) if a.kind != "hostless"}
    assert names == {("native", "1"), ("guid", f"{SITE}/?p=1"), ("url", f"{SITE}/1/")}
