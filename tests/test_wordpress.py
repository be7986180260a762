"""A WordPress site read by its REST API, over real HTTP: what posts say, and that none is missed or doubled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from digest import catalogue, ingest
from digest.db import Database
from digest.errors import SourceError
from digest.fetch import Fetcher
from digest.sources import KINDS
from digest.sources.wordpress import WordPress
from digest.sources.wppost import made
from digest.types import Fetched, Image, RawArticle, Skipped, TopicKind
from tests.wordpress_server import Site, serving

START = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass
class Limits:
    timeout_s: float = 5.0
    max_bytes: int = 10_000_000
    allow_hosts: tuple[str, ...] = ("127.0.0.1",)


@pytest.fixture(scope="module")
def fetcher() -> Iterator[Fetcher]:
    made = Fetcher(Limits())
    yield made
    made.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(START)) as site:
        yield site


def fetch(site: Site, fetcher: Fetcher, state: Any = None, **options: Any) -> tuple[Fetched, list[RawArticle]]:
    source = KINDS["wordpress"](site.url, options, fetcher)
    fetched = source.fetch(json.loads(json.dumps(dict(state or {}))))
    items = list(fetched.items)
    assert all(isinstance(item, RawArticle) for item in items)
    return fetched, items  # type: ignore[return-value]


# ----------------------------------------------------------------------------- what a post says


def test_a_post_is_read_with_all_it_says(site: Site, fetcher: Fetcher) -> None:
    post = site.publish("Salt & light", age=HOUR, categories=[1, 2], tags=[11, 10], sticky=True)
    fetched, [article] = fetch(site, fetcher)
    assert (article.native_id, article.url) == (str(post.id), f"https://site.example/{post.id}/")
    assert article.guid == f"http://site.example/?p={post.id}"
    assert article.title == "Salt &amp; light"
    assert article.title_is_html
    assert (article.published_at, article.updated_at) == (START - HOUR, START)  # not the site's own clock
    assert article.authors == ("Ann Author",)
    assert article.sticky
    told = [(ref.kind, ref.slug, ref.name, ref.parent) for ref in article.topics]
    assert told == [
        (TopicKind.CATEGORY, "world", "World", None), (TopicKind.CATEGORY, "africa", "Africa & Sahel", "world"),
        (TopicKind.TAG, "tag-1", "Tag 1", None), (TopicKind.TAG, "tag-0", "Tag 0", None),
    ]  # fmt: skip
    assert fetched.title == 'The "Site"'
    assert {(ref.slug, ref.parent) for ref in fetched.topics} == {
        ("world", None),
        ("africa", "world"),
        ("asia", "world"),
    }


def test_terms_are_asked_for_where_they_are_not_embedded(site: Site, fetcher: Fetcher) -> None:
    site.embeds = False
    site.publish(categories=[2], tags=[12])
    _, [article] = fetch(site, fetcher)
    assert [(ref.slug, ref.parent) for ref in article.topics] == [("africa", "world"), ("tag-2", None)]


def test_closed_authors_fall_back_and_their_error_is_no_name(site: Site, fetcher: Fetcher) -> None:
    site.closed_authors = True
    site.publish()
    site.publish(extra={"yoast_head_json": {"author": "Bea Byline"}})
    assert [article.authors for article in fetch(site, fetcher)[1]] == [(), ("Bea Byline",)]


def test_a_password_withholds(site: Site, fetcher: Fetcher) -> None:
    site.publish(protected=True)
    assert [article.withheld for article in fetch(site, fetcher)[1]] == [True]


def test_the_primary_category_comes_first(site: Site, fetcher: Fetcher) -> None:
    crumbs = [{"name": "Home"}, {"name": "Africa & Sahel"}, {"name": "A headline"}]
    graph = [{"@type": "WebPage"}, {"@type": "BreadcrumbList", "itemListElement": crumbs}]
    site.publish(categories=[1, 3, 2], extra={"meta": {"_yoast_wpseo_primary_category": "3"}})
    site.publish(categories=[1, 3, 2], extra={"yoast_head_json": {"schema": {"@graph": graph}}})
    site.publish(categories=[1, 3, 2], extra={"meta": {"_yoast_wpseo_primary_category": "77"}})
    firsts = [article.topics[0].slug for article in fetch(site, fetcher)[1]]
    assert firsts == ["asia", "africa", "world"]


def picture(**sizes: tuple[int, int]) -> dict[str, Any]:
    """Media with sizes called EXTENSION_NUMBER: width and height."""
    made = {
        name: {"source_url": f"https://s.example/{w}.{name.split('_')[0]}", "width": w, "height": h}
        for name, (w, h) in sizes.items()
    }
    whole = made.pop("jpg_full")
    details = {"width": whole["width"], "height": whole["height"], "sizes": made}
    return {"source_url": whole["source_url"], "alt_text": "Alt", "media_details": details}


@pytest.mark.parametrize(
    ("sizes", "url"),
    [
        ({"jpg_full": (4000, 3000), "jpg_1": (300, 200), "jpg_2": (1024, 768), "jpg_3": (1536, 1024)}, "1024.jpg"),
        ({"jpg_full": (4000, 3000), "webp_1": (1200, 800), "jpg_1": (1000, 700)}, "1000.jpg"),
        ({"jpg_full": (1300, 900), "avif_1": (1200, 800)}, "1300.jpg"),
        ({"jpg_full": (2500, 1500), "jpg_1": (300, 200), "jpg_2": (150, 150)}, "2500.jpg"),
        ({"jpg_full": (400, 300)}, "400.jpg"),
    ],
)
def test_the_size_nearest_to_ours_as_mail_programs_read_it(sizes: dict[str, tuple[int, int]], url: str) -> None:
    post = {"title": {"rendered": "x"}, "content": {}, "_embedded": {"wp:featuredmedia": [picture(**sizes)]}}
    article = made(post, {}, UTC)
    assert isinstance(article, RawArticle)
    width, height = next(size for name, size in sizes.items() if f"{size[0]}.{name.split('_')[0]}" == url)
    assert article.image == Image(f"https://s.example/{url}", width, height, "Alt")


def test_the_language_is_that_of_the_posts_else_of_the_page(fetcher: Fetcher) -> None:
    with serving(Site(START, page=b'<!doctype html><html class="no-js" lang="de-DE"><title>x</title>')) as site:
        site.publish()
        fetched = WordPress(site.url, {}, fetcher).fetch({})
        assert (fetched.language, [item.language for item in fetched.items]) == ("de-DE", [None])
        site.publish(extra={"yoast_head_json": {"og_locale": "fr_FR"}})
        site.publish(extra={"lang": "it"})
        assert [item.language for item in WordPress(site.url, {}, fetcher).fetch({}).items] == [None, "fr_FR", "it"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["rendered", "protected", "author", "wp:term", "wp:featuredmedia", "id", "name", "taxonomy",
                         "media_details", "sizes", "source_url", "schema", "@graph", "code", "message"]),
        inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FIELDS = ["id", "date_gmt", "date", "modified_gmt", "guid", "link", "status", "type", "excerpt", "sticky", "categories",
          "tags", "_embedded", "meta", "yoast_head_json", "primary_category", "lang"]  # fmt: skip


@settings(max_examples=200)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON), title=JSON, content=JSON)
def test_a_post_of_any_shape_is_an_article_or_a_reason(fields: dict[str, Any], title: Any, content: Any) -> None:
    assert isinstance(made({**fields, "title": title, "content": content}, {}, UTC), RawArticle | Skipped)


# ----------------------------------------------------------------------------- where the API is, and whether


def test_without_pretty_addresses_the_api_is_found_and_remembered(site: Site, fetcher: Fetcher) -> None:
    site.only_rest_route = True
    site.publish()
    fetched, found = fetch(site, fetcher)
    assert len(found) == 1
    assert fetched.state["api"] == f"{site.url}/?rest_route=/"
    del site.asked[:]
    fetch(site, fetcher, fetched.state)
    assert not [path for path in site.asked if path.startswith("/wp-json")]


@pytest.mark.parametrize("rest_route", [False, True])
def test_a_site_that_moved_is_asked_at_its_new_place_once_that_is_sure(
    site: Site, fetcher: Fetcher, rest_route: bool
) -> None:
    with serving(Site(START, only_rest_route=rest_route)) as new:
        new.publish("One", age=HOUR)
        site.moved_to, state, asked = new.url, None, []
        for _ in range(5):
            site.asked.clear()
            fetched, _ = fetch(site, fetcher, state)
            state, asked = fetched.state, [*asked, bool(site.asked)]
            assert state["moved_to"] == new.url + ("/?rest_route=/" if rest_route else "/wp-json/")
        assert asked == [True, True, True, False, False]
        site.moved_to, new.blocked = "", "html"  # it came back
        site.publish("Two", age=HOUR)
        fetched, _ = fetch(site, fetcher, state)
        assert fetched.state["api"].startswith(site.url)
        assert "moved_to" not in fetched.state


@pytest.mark.parametrize("blocked", ["html", "401", "403", "error"])
def test_a_blocked_api_is_not_an_empty_one(site: Site, fetcher: Fetcher, blocked: str) -> None:
    site.blocked = blocked
    with pytest.raises(SourceError, match="feed") as caught:
        fetch(site, fetcher)
    assert caught.value.code == "api_blocked"
    site.blocked = ""
    fetched, found = fetch(site, fetcher)
    assert (found, fetched.not_modified) == ([], False)


def test_a_site_without_wordpress_says_what_to_do(site: Site, fetcher: Fetcher) -> None:
    site.answer = lambda *_: (404, "", {})  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="feed") as caught:
        fetch(site, fetcher)
    assert caught.value.code == "no_api"


def test_busy_says_when_to_come_back(site: Site, fetcher: Fetcher) -> None:
    site.busy = [(429, "120")]
    with pytest.raises(SourceError) as caught:
        fetch(site, fetcher)
    assert (caught.value.code, caught.value.retry_after) == ("too_many_requests", 120)


# ----------------------------------------------------------------------------- polls


def test_a_poll_reads_what_is_new_or_changed_and_nothing_else(site: Site, fetcher: Fetcher) -> None:
    posts = [site.publish(age=n * DAY) for n in range(30)]
    first, found = fetch(site, fetcher)
    assert len(found) == 30
    quiet, _ = fetch(site, fetcher, first.state)
    assert quiet.not_modified
    site.now += HOUR
    site.edit(posts[20].id, "Another headline")
    new = site.publish()
    _, found = fetch(site, fetcher, quiet.state)
    assert {article.native_id for article in found} == {str(posts[20].id), str(new.id)}


def test_a_scheduled_post_that_appears_is_seen_though_it_was_not_modified(site: Site, fetcher: Fetcher) -> None:
    site.publish()
    planned = site.schedule(5 * DAY)
    state = fetch(site, fetcher)[0].state
    site.now += 4 * DAY
    site.publish()
    state = fetch(site, fetcher, state)[0].state
    site.now += 2 * DAY
    assert str(planned.id) in {article.native_id for article in fetch(site, fetcher, state)[1]}


def test_a_bound_that_is_ignored_is_noticed(site: Site, fetcher: Fetcher) -> None:
    site.ignores_bounds = True
    posts = [site.publish(age=n * DAY) for n in range(300)]
    for n, post in enumerate(posts):
        post.modified -= n * DAY
    state = fetch(site, fetcher)[0].state
    site.now += HOUR
    site.edit(posts[250].id, "Another headline")
    del site.asked[:]
    _, found = fetch(site, fetcher, state)
    assert [article.native_id for article in found] == [str(posts[250].id)]
    assert len(site.asked) < 10  # not the whole site again


def test_what_is_gone_is_told_by_the_site_alone(site: Site, fetcher: Fetcher) -> None:
    posts = [site.publish(age=n * DAY) for n in range(5)]
    ids = [str(post.id) for post in posts]

    def gone() -> list[str]:
        source = WordPress(site.url, {}, fetcher)
        list(source.fetch(state).items)
        return source.gone(ids)

    state = fetch(site, fetcher)[0].state
    assert gone() == []
    site.remove(posts[3].id)
    assert gone() == [ids[3]]
    site.restore(posts[3].id)
    listed = site._chosen
    site._chosen = lambda query: [] if "include" in query else listed(query)  # type: ignore[method-assign]
    assert gone() == []  # an answer without the post that was just seen tells nothing
    site._chosen = lambda query: listed({k: v for k, v in query.items() if k != "include"})  # type: ignore[method-assign]
    site.remove(posts[4].id)
    site.publish()
    assert gone() == []  # nor one with others than were asked for


@pytest.mark.parametrize("counts", [True, False])
def test_that_a_site_is_empty_is_believed_where_it_counts_its_posts(
    site: Site, fetcher: Fetcher, *, counts: bool
) -> None:
    post, site.no_totals = site.publish(), not counts
    state = fetch(site, fetcher)[0].state
    site.remove(post.id)
    source = WordPress(site.url, {}, fetcher)
    assert list(source.fetch(state).items) == []
    assert source.gone([str(post.id)]) == ([str(post.id)] if counts else [])


def test_unpublished_articles_are_removed_and_come_back(site: Site, database: Database, fetcher: Fetcher) -> None:
    posts = [site.publish(age=n * DAY) for n in range(4)]
    ingest.add_source(database, "site", kind="wordpress", location=site.url, at=START)

    def poll(force: bool = False) -> tuple[int, int, int]:
        site.now += HOUR
        [report] = ingest.refresh(database, fetcher, at=site.now, force=force)
        assert report.errors == []
        return report.new, report.changed, report.removed

    assert poll() == (4, 0, 0)
    site.remove(posts[2].id)
    assert poll() == (0, 0, 1)
    assert poll() == (0, 0, 0)
    site.restore(posts[2].id)
    assert poll() == (0, 1, 0)
    site.posts.pop(posts[0].id)
    assert poll(force=True) == (0, 0, 1)
    with database.reading() as session:
        assert len(catalogue.list_articles(session)) == 3


# ----------------------------------------------------------------------------- none missed, none doubled

# Small numbers name the oldest posts: what goes from the front of a list moves all of it up.
NUMBERS = st.integers(0, 3) | st.integers(0, 10_000)
OPS = st.tuples(
    st.sampled_from(["publish", "publish", "backdate", "schedule", "edit", "remove", "remove", "restore"]), NUMBERS
)
# As far apart as the clocks of sites are off, and as a watermark overlaps.
STEPS = st.lists(st.tuples(OPS, st.sampled_from([0, 1, 30, 300, 600, 840, 2_000])), min_size=3, max_size=6)
BURSTS = st.lists(st.lists(OPS, min_size=1, max_size=3), max_size=4)  # one burst between two pages


class Polls(RuleBasedStateMachine):
    """A site that goes on while it is read, against what a catalogue that believes the source would hold."""

    fetcher: ClassVar[Fetcher]
    polls: ClassVar[int] = 0

    @initialize(
        count=st.sampled_from([0, 1, 7, 15, 25]), cap=st.integers(2, 9), hours=st.sampled_from([-12, -8, -5, 0, 3, 14]),
        bounds=st.sampled_from([False, False, True]), totals=st.booleans(), embeds=st.booleans(), closed=st.booleans(),
        rest=st.booleans(),
    )  # fmt: skip
    def begin(
        self, count: int, cap: int, hours: int, bounds: bool, totals: bool, embeds: bool, closed: bool, rest: bool
    ) -> None:
        self.site = Site(
            START, timedelta(hours=hours), cap=cap, ignores_bounds=bounds, no_totals=totals, embeds=embeds,
            closed_authors=closed, only_rest_route=rest,
        )  # fmt: skip
        for n in range(count):
            post = self.site.publish(age=n * 9 * HOUR)
            post.modified = post.date
        self.serving = serving(self.site)
        self.serving.__enter__()
        self.state: dict[str, Any] = {}
        self.known: dict[str, str] = {}

    @rule(steps=STEPS)
    def live(self, steps: list[tuple[tuple[str, int], int]]) -> None:
        for op, minutes in steps:
            self._do(*op)
            self.site.now += timedelta(minutes=minutes)

    @rule()
    def read_anew(self) -> None:
        self.state, self.known = {}, {}

    @rule(noise=BURSTS, busy=st.sampled_from([0, 0, 0, 1, 3]), blocked=st.booleans())
    def poll_while_it_goes_on(self, noise: list[list[tuple[str, int]]], busy: int, blocked: bool) -> None:
        self.site.now += timedelta(minutes=10)
        left, before = list(noise), {n: (p.title, p.modified) for n, p in self.site.shown().items()}
        self.site.between = lambda: [self._do(*op) for op in (left.pop() if left else ())]
        if busy and not left:
            self.site.busy = [(429, "60")] * busy
        self.site.blocked = "html" if blocked and busy else ""
        self._poll(fails=bool(self.site.busy or self.site.blocked))
        self.site.between, self.site.busy, self.site.blocked = None, [], ""
        after = {n: (p.title, p.modified) for n, p in self.site.shown().items()}
        if self.state:  # what nobody touched meanwhile is known
            for number in before.keys() & after.keys():
                if before[number] == after[number] and self.polled:
                    assert self.known.get(str(number)) == after[number][0]

    @rule()
    def poll_in_peace(self) -> None:
        self.site.now += timedelta(minutes=10)
        self._poll()
        there = {str(n): p.title for n, p in self.site.shown().items()}
        if there or not self.site.no_totals:  # that a site is empty is believed where it counts its posts
            assert self.known == there

    def _poll(self, fails: bool = False) -> None:
        source, self.polled = WordPress(self.site.url, {}, self.fetcher), False
        type(self).polls += 1
        known = dict(self.known)
        try:
            fetched = source.fetch(json.loads(json.dumps(self.state)))
            items = list(fetched.items)
            gone = source.gone(list(known))
        except SourceError:
            if fails:
                return
            raise
        ids = [item.native_id for item in items if isinstance(item, RawArticle)]
        assert len(set(ids)) == len(ids) == len(items)
        known |= {item.native_id: item.title for item in items}
        assert not set(gone) & set(ids)
        self.known = {number: title for number, title in known.items() if number not in gone}
        self.state, self.polled = dict(fetched.state), True

    def _do(self, op: str, n: int) -> None:
        site = self.site
        there, gone = sorted(site.shown()), sorted(n for n, p in site.posts.items() if p.status == "trash")
        if op == "publish":
            site.publish()
        elif op == "backdate":
            site.publish(age=timedelta(hours=n % 500))
        elif op == "schedule":
            site.schedule(timedelta(hours=1 + n % 100))
        elif op == "edit" and there:
            site.edit(there[n % len(there)], f"Edit {n}")
        elif op == "remove" and there:
            site.remove(there[n % len(there)])
        elif op == "restore" and gone:
            site.restore(gone[n % len(gone)])

    def teardown(self) -> None:
        if hasattr(self, "serving"):
            self.serving.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("examples", "steps", "polls"), [(40, 15, 100), pytest.param(250, 25, 1_000, marks=pytest.mark.full)]
)
def test_no_article_is_missed_or_doubled(examples: int, steps: int, polls: int, fetcher: Fetcher) -> None:
    Polls.fetcher, Polls.polls = fetcher, 0
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Polls,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
        ),
    )
    assert Polls.polls >= polls
