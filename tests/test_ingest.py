"""Articles in, end to end: sources fetched, cleaned and stored; what goes wrong costs itself. On both databases."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, func, select

from digest import catalogue, ingest
from digest import models as m
from digest.db import Database
from digest.errors import SourceError, UsageError
from digest.fetch import Fetcher
from digest.ingest import refreshing
from digest.ingest.sample import sample_dates
from digest.sources import KINDS
from digest.types import FeedSelector, Fetched, RawArticle, Skipped, TopicKind, TopicRef
from tests.test_catalogue import assert_counts_are_true, everything

T = datetime(2025, 9, 6, 17, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
EXPORT = CORPUS / "wxr-capital" / "digitalgov-2k.xml.gz"


@pytest.fixture
def fetcher(settings: Any) -> Fetcher:
    return Fetcher(settings.fetch)


class Shelf:
    """A source of the test's own: `boxes` by location hold what it gives; exceptions are raised, functions called."""

    kind: ClassVar[str] = "shelf"
    boxes: ClassVar[dict[str, list[Any]]] = {}
    topics: ClassVar[tuple[TopicRef, ...]] = ()

    def __init__(self, location: str, options: Mapping[str, Any], fetcher: Fetcher) -> None:
        self.location = location

    def fetch(self, state: Mapping[str, Any]) -> Fetched:
        first = self.boxes[self.location][:1]
        if first and isinstance(first[0], SourceError):
            raise first[0]
        if state.get("tag") == "same":
            return Fetched(iter(()), not_modified=True, state=dict(state))
        read = {"read": len(self.boxes[self.location])}
        return Fetched(self._items(), topics=self.topics, state=read, title="A <b> title")

    def _items(self) -> Iterator[RawArticle | Skipped]:
        for item in self.boxes[self.location]:
            if isinstance(item, Exception):
                raise item
            if callable(item):
                item()
            else:
                yield item


@pytest.fixture
def boxes(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    monkeypatch.setitem(KINDS, "shelf", Shelf)
    monkeypatch.setattr(Shelf, "boxes", {})
    monkeypatch.setattr(Shelf, "topics", ())
    return Shelf.boxes


def raw(n: int, **columns: Any) -> RawArticle:
    given = {
        "native_id": str(n), "url": f"https://site.example/{n}/", "title": f"Headline {n}",
        "body_html": f"<p>Body of {n}.</p>", "published_at": T - n * timedelta(minutes=1),
    }  # fmt: skip
    return RawArticle(**{**given, **columns})


def shelf(database: Database, *names: str) -> None:
    with database.transaction() as session:
        for name in names:
            catalogue.add_source(session, name, kind="shelf", location=name, at=T)


def column(database: Database, slug: str, name: str) -> Any:
    with database.reading() as session:
        return session.scalar(select(getattr(m.Source, name)).where(m.Source.slug == slug))


def count(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(m.Article)) or 0


def changes(database: Database) -> Any:
    """Rows written while the block runs, by table."""
    written: Counter[str] = Counter()

    def note(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        words = statement.split()
        if words[0] in ("INSERT", "UPDATE", "DELETE"):
            table = words[2 if words[0] in ("INSERT", "DELETE") else 1].strip('"')
            written[table] += cursor.rowcount

    class Listening:
        def __enter__(self) -> Counter[str]:
            event.listen(database.engine, "after_cursor_execute", note)
            return written

        def __exit__(self, *_: object) -> None:
            event.remove(database.engine, "after_cursor_execute", note)

    return Listening()


# ----------------------------------------------------------------------------- a refresh


def test_a_source_goes_in_and_says_what_it_did(
    database: Database, fetcher: Fetcher, boxes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf(database, "one")
    monkeypatch.setattr(Shelf, "topics", (TopicRef(TopicKind.CATEGORY, "empty", "Empty"),))
    boxes["one"] = [
        *map(raw, range(450)), Skipped("status_draft"), Skipped("status_draft"), Skipped("no_identity"),
        raw(900, published_at=T + DAY), raw(5, title="again"), raw(901, url="javascript:alert(1)", guid=None),
    ]  # fmt: skip
    (report,) = ingest.refresh(database, fetcher, at=T)
    assert report.to_json() == {
        "source": "one", "new": 451, "changed": 0, "unchanged": 0, "removed": 0, "scheduled": 1,
        "skipped": [{"reason": "no_identity", "count": 1}, {"reason": "no_link", "count": 1},
                    {"reason": "repeated", "count": 1}, {"reason": "status_draft", "count": 2}],
        "errors": [], "warnings": [],
    }  # fmt: skip
    assert column(database, "one", "imported_at") == column(database, "one", "polled_at") == T
    assert column(database, "one", "state") == {"read": 456}
    with database.reading() as session:
        assert catalogue.topic_rows(session) == []
        assert [t.slug for t in catalogue.topic_rows(session, include_empty=True)] == ["empty"]
    with changes(database) as written:
        (again,) = ingest.refresh(database, fetcher, at=T + HOUR)
    assert (again.new, again.changed, again.unchanged, again.scheduled) == (0, 0, 451, 1)
    assert set(written) == {"sources"}


def test_first_import_and_after(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    shelf(database, "one")
    boxes["one"] = [raw(1, published_at=T - 9 * DAY)]
    ingest.refresh(database, fetcher, at=T)
    boxes["one"].append(raw(2, published_at=T - 9 * DAY))
    ingest.refresh(database, fetcher, at=T + DAY)
    with database.reading() as session:
        found = session.execute(select(m.Article.eligible_at, m.Article.first_seen_at).order_by(m.Article.id)).all()
    assert found == [(T - 9 * DAY, T), (T + DAY, T + DAY)]


def test_only_what_is_due_is_read_those_never_read_first(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    shelf(database, "a", "b", "c")
    boxes.update(a=[raw(1)], b=[raw(2)], c=[raw(3)])
    ingest.refresh(database, fetcher, at=T, names=["b"])

    def read(after: timedelta, force: bool = False) -> list[str]:
        return [r.source for r in ingest.refresh(database, fetcher, at=T + after, force=force)]

    assert read(timedelta(minutes=9)) == ["a", "c"]
    assert read(timedelta(minutes=10)) == ["b"]
    assert read(timedelta(minutes=10), force=True) == ["a", "c", "b"]
    assert len(read(-DAY)) == 3, "another present: nothing has been read in it"
    with pytest.raises(UsageError, match="no source 'd'"):
        ingest.refresh(database, fetcher, at=T, names=["d"])


def test_the_budget_leaves_the_rest_for_the_next_time(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    shelf(database, "a", "b")
    boxes.update(a=[raw(1)], b=[raw(2)])
    assert [r.source for r in ingest.refresh(database, fetcher, at=T, budget_s=-1)] == []
    assert len(ingest.refresh(database, fetcher, at=T, names=["a", "b"], budget_s=-1)) == 2


def test_a_source_that_fails_is_named_and_waits(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    shelf(database, "bad", "good")
    boxes.update(bad=[SourceError("unreachable", "the host does not answer; try later")], good=[raw(1)])
    bad, good = ingest.refresh(database, fetcher, at=T)
    assert bad.errors == [("unreachable", "the host does not answer; try later")]
    assert good.new == 1
    assert column(database, "bad", "failures") == 1
    assert column(database, "bad", "last_error") == "the host does not answer; try later"
    since, until = column(database, "bad", "failing_since"), column(database, "bad", "retry_at")
    assert until - since == timedelta(minutes=10)
    assert [r.source for r in ingest.refresh(database, fetcher, at=T + DAY)] == ["good"]
    ingest.refresh(database, fetcher, at=T + DAY, names=["bad"])
    assert column(database, "bad", "failing_since") == since
    assert column(database, "bad", "retry_at") > until + timedelta(minutes=9)
    boxes["bad"] = [raw(2)]
    ingest.refresh(database, fetcher, at=T + DAY, names=["bad"])
    kept = [column(database, "bad", name) for name in ("failing_since", "failures", "retry_at", "last_error")]
    assert kept == [None, 0, None, None]


@pytest.mark.parametrize(("asked", "given"), [(3600, 3600), (-5, 0), (1e30, 86400), (float("inf"), 86400)])
def test_a_server_may_say_when_to_come_back(asked: float, given: float) -> None:
    assert refreshing._wait(1, asked) == timedelta(seconds=given)


def test_back_off_grows_to_a_limit() -> None:
    waits = [refreshing._wait(n, None) for n in range(1, 2000)]
    assert waits[:3] == [timedelta(minutes=10), timedelta(minutes=20), timedelta(minutes=40)]
    assert max(waits) == timedelta(hours=6)


def test_what_was_stored_before_a_failure_stays_and_the_rest_follows(
    database: Database, fetcher: Fetcher, boxes: Any
) -> None:
    shelf(database, "one")
    items = [raw(n) for n in range(700)]
    boxes["one"] = [*items[:650], ValueError("torn"), *items[650:]]
    (report,) = ingest.refresh(database, fetcher, at=T)
    assert [code for code, _ in report.errors] == ["unreadable"]
    assert count(database) == 500
    assert column(database, "one", "imported_at") is None
    assert column(database, "one", "state") == {}
    boxes["one"] = items
    (report,) = ingest.refresh(database, fetcher, at=T + HOUR, names=["one"])
    assert (report.new, report.unchanged) == (200, 500)
    with database.reading() as session:
        late = session.scalars(select(m.Article.eligible_at).order_by(m.Article.id.desc()).limit(1)).one()
    assert late == T - 699 * timedelta(minutes=1), "still the first import"


def test_a_poisoned_article_costs_itself(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    """One that the text pipeline cannot take, and one that no database can store, among hundreds."""
    shelf(database, "one")
    items = [raw(n) for n in range(300)]
    items[77] = raw(77, body_html=b"bytes")
    items[150] = raw(150, published_at=datetime(2025, 1, 1))  # naive: refused on the way into the database
    boxes["one"] = items
    (report,) = ingest.refresh(database, fetcher, at=T)
    assert report.errors == []
    assert report.new == 298
    assert report.skipped == {"unreadable": 1, "rejected": 1}
    assert count(database) == 298
    assert_counts_are_true(database)


def test_hostile_text_goes_in_clean(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    shelf(database, "one")
    evil = "\x00\x0b\ud800 ]]> <script>alert(1)</script>\u202e"
    boxes["one"] = [
        raw(n, title=evil + "T", body_html="<p>" + evil, authors=(evil + "A", "\x00"), native_id=evil + str(n),
            topics=(TopicRef(TopicKind.TAG, evil, evil), TopicRef(TopicKind.TAG, "", "\x00")), language=evil,
            guid=evil + str(n), published_at=T - n * HOUR)
        for n in range(3)
    ] + [raw(9)]  # fmt: skip
    (report,) = ingest.refresh(database, fetcher, at=T)
    assert (report.new, report.skipped, report.errors) == (4, {}, [])
    with database.reading() as session:
        for item in catalogue.feed_items(session, FeedSelector("all")):
            assert "script" not in item.html
            assert not set(item.title + item.html + "".join(item.authors)) & set("\x00\x0b\u202e")


def test_what_is_taken_back_is_removed(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    shelf(database, "one")
    boxes["one"] = [raw(1), raw(2)]
    ingest.refresh(database, fetcher, at=T)
    boxes["one"] = [raw(1), Skipped("status_trash", native_id="2"), Skipped("status_draft", native_id="3")]
    (report,) = ingest.refresh(database, fetcher, at=T + HOUR)
    assert (report.removed, report.unchanged, dict(report.skipped)) == (1, 1, {"status_trash": 1, "status_draft": 1})
    (report,) = ingest.refresh(database, fetcher, at=T + DAY)
    assert report.removed == 0
    with database.reading() as session:
        assert [a.title for a in catalogue.list_articles(session)] == ["Headline 1"]


def test_an_unchanged_source_is_left_alone(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    shelf(database, "one")
    boxes["one"] = [raw(1)]
    ingest.refresh(database, fetcher, at=T)
    with database.transaction() as session:
        catalogue.get_source(session, "one").state = {"tag": "same"}
    (report,) = ingest.refresh(database, fetcher, at=T + HOUR)
    assert report.not_modified
    assert (report.new, report.unchanged) == (0, 1)
    assert (column(database, "one", "state"), column(database, "one", "polled_at")) == ({"tag": "same"}, T + HOUR)


def test_a_date_that_comes_is_published_by_the_refresh(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    shelf(database, "one")
    boxes["one"] = [raw(1, published_at=T + HOUR)]
    ingest.refresh(database, fetcher, at=T)
    boxes["one"] = []
    with database.reading() as session:
        assert catalogue.feed_items(session, FeedSelector("all")) == []
    ingest.refresh(database, fetcher, at=T + HOUR)
    with database.reading() as session:
        assert len(catalogue.feed_items(session, FeedSelector("all"))) == 1


def test_two_refreshes_at_once(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    """Two processes, the same two sources that carry the same stories: each article once, nobody waits for ever."""
    shelf(database, "a", "b")
    boxes.update(a=[raw(n) for n in range(500)], b=[raw(n) for n in reversed(range(500))])
    failed: list[BaseException] = []

    def work(names: list[str]) -> None:
        try:
            ingest.refresh(database, fetcher, at=T, names=names)
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=work, args=(names,)) for names in (["a", "b"], ["b", "a"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []
    assert count(database) == 500
    before = everything(database)
    ingest.refresh(database, fetcher, at=T, force=True)
    after = everything(database)
    assert {t for t in after if after[t] != before[t]} <= {"sources"}


def test_a_source_removed_while_it_is_read(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    shelf(database, "one")

    def remove() -> None:
        with database.transaction() as session:
            catalogue.remove_source(session, "one")

    boxes["one"] = [*(raw(n) for n in range(250)), remove, raw(250)]
    (report,) = ingest.refresh(database, fetcher, at=T)
    assert [code for code, _ in report.errors] == ["removed"]
    assert ingest.refresh(database, fetcher, at=T + DAY) == []


# ----------------------------------------------------------------------------- adding, checking


def test_adding_a_source_looks_at_kind_and_place(database: Database, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "export.xml").write_text("<rss/>")
    monkeypatch.chdir(tmp_path)
    source = ingest.add_source(database, "My Site", kind="wxr", location="export.xml", at=T)
    assert (source.slug, source.location) == ("my-site", str(tmp_path / "export.xml"))
    other = ingest.add_source(database, "O", kind="feed", location=(tmp_path / "export.xml").as_uri(), at=T)
    assert other.location == str(tmp_path / "export.xml")
    far = ingest.add_source(database, "F", kind="feed", location="https://x.example/f", at=T)
    assert far.location == "https://x.example/f"
    for kind, location, says in [
        ("wrx", "export.xml", "no kind of source 'wrx'"), ("wxr", "missing.xml", "no file missing.xml"),
        ("feed", "ftp://x/y", "ftp addresses"), ("feed", "https:///feed", "names no host"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=says):
            ingest.add_source(database, "Z", kind=kind, location=location, at=T)


def test_checking_a_source_stores_nothing(database: Database, fetcher: Fetcher, boxes: Any) -> None:
    shelf(database, "one")
    boxes["one"] = [raw(1), raw(2), Skipped("status_draft")]
    before = everything(database)
    report = ingest.check_source(database, fetcher, "one")
    assert (report.new, report.skipped) == (2, {"status_draft": 1})
    boxes["one"] = [SourceError("not_found", "there is nothing")]
    assert ingest.check_source(database, fetcher, "one").errors == [("not_found", "there is nothing")]
    assert everything(database) == before


# ----------------------------------------------------------------------------- a WordPress export


def export(posts: int, paragraph: str = "Words of the article. ") -> Iterator[str]:
    """A small site's export: two categories one under the other, tags, a password, a future post, a draft."""
    yield (
        '<?xml version="1.0"?><rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/"'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:wp="http://wordpress.org/export/1.2/"><channel>'
        "<title>Small</title><link>https://small.example</link><language>en-US</language><wp:wxr_version>1.2</wp:wxr_version>"
    )
    for slug, parent in (("africa", "world"), ("world", ""), ("gulf", "empty"), ("empty", "")):
        yield (
            f"<wp:category><wp:category_nicename>{slug}</wp:category_nicename><wp:category_parent>{parent}"
            f"</wp:category_parent><wp:cat_name>{slug.title()}</wp:cat_name></wp:category>"
        )
    for n in range(1, posts + 1):
        when = T + 5 * DAY if n == 3 else T - n * 11 * HOUR
        status = {3: "future", 4: "draft", 5: "trash"}.get(n, "publish")
        category = "africa" if n % 2 else "world"
        yield (
            f"<item><title>Post {n}</title><link>https://small.example/{n}/</link>"
            f"<pubDate>{when:%a, %d %b %Y %H:%M:%S} +0000</pubDate><dc:creator>ada</dc:creator>"
            f'<guid isPermaLink="false">https://small.example/?p={n}</guid>'
            f"<content:encoded><![CDATA[<p>{paragraph * 3}{n}</p>]]></content:encoded><wp:post_id>{n}</wp:post_id>"
            f"<wp:post_date_gmt>{when:%Y-%m-%d %H:%M:%S}</wp:post_date_gmt>"
            f"<wp:status>{status}</wp:status><wp:post_type>post</wp:post_type>"
            f"<wp:post_password>{'secret' if n == 6 else ''}</wp:post_password>"
            f'<category domain="category" nicename="{category}"><![CDATA[{category.title()}]]></category>'
            f'<category domain="post_tag" nicename="t{n % 5}"><![CDATA[T{n % 5}]]></category></item>'
        )
    yield "</channel></rss>"


@dataclass(frozen=True)
class Truth:
    """What an export holds, as its maker counted it. ``skipped``: posts that are not published, by status."""

    new: int
    scheduled: int
    withheld: int
    skipped: Mapping[str, int]
    months: Mapping[str, int]
    categories: Mapping[str, int]  # by name
    tags: Mapping[str, int]  # by slug
    empty: Mapping[str, str | None]  # some categories without articles, and their parents


def small(folder: Path) -> tuple[Path, Truth]:
    """A small export of our own and the truth about it."""
    path = folder / "small.xml.gz"
    path.write_bytes(gzip.compress("".join(export(60)).encode()))
    published = [n for n in range(1, 61) if n not in (3, 4, 5)]
    local = [(T - n * 11 * HOUR).astimezone(ZoneInfo("America/New_York")) for n in published]
    return path, Truth(
        new=58, scheduled=1, withheld=1, skipped={"status_draft": 1, "status_trash": 1},
        months=Counter(when.strftime("%Y-%m") for when in local),
        categories=Counter("Africa" if n % 2 else "World" for n in published),
        tags=Counter(f"t{n % 5}" for n in published), empty={"gulf": "empty", "empty": None},
    )  # fmt: skip


def capital(_folder: Path) -> tuple[Path, Truth]:
    """The corpus' export of 2,119 posts, which lies beside the project where it lies at all.

    Its manifest counts a category twice where a post names it twice; 15 do. An article is in a category or it is not.
    """
    manifest = json.loads((EXPORT.parent / "digitalgov-2k.manifest.json").read_text())
    categories = Counter(manifest["published_by_category"])
    for item in gzip.decompress(EXPORT.read_bytes()).decode().split("<item>")[1:]:
        if "<wp:status><![CDATA[publish]]>" in item:
            named = Counter(re.findall(r'<category domain="category" nicename="[^"]*"><!\[CDATA\[(.*?)\]\]>', item))
            categories -= Counter({name: times - 1 for name, times in named.items()})
    statuses = manifest["posts_by_status"]
    return EXPORT, Truth(
        new=statuses["publish"] + statuses["future"], scheduled=statuses["future"],
        withheld=len(manifest["traps"]["password"]),
        skipped={f"status_{s}": statuses[s] for s in ("draft", "pending", "private", "trash")},
        months=manifest["published_by_local_month"], categories=categories,
        tags=manifest["published_by_tag_top60"], empty={"gulf": "middle-east", "africa": None},
    )  # fmt: skip


@pytest.mark.parametrize("given", [small, capital] if EXPORT.exists() else [small])
def test_an_export_equals_its_truth(
    database: Database, fetcher: Fetcher, tmp_path: Path, given: Callable[[Path], tuple[Path, Truth]]
) -> None:
    path, truth = given(tmp_path)
    with database.transaction() as session:
        catalogue.ensure_publication(session, {"name": "Capital Cities", "timezone": "America/New_York"})
    ingest.add_source(database, "Site", kind="wxr", location=str(path), at=T)
    new, peak = measured(database, T, tmp_path)
    assert new == truth.new
    assert peak <= 150
    with database.reading() as session:
        zone = ZoneInfo(catalogue.publication(session).timezone)
        rows = catalogue.topic_rows(session)
        assert dict(catalogue.months(session, zone)) == truth.months
        assert {t.name: t.count for t in rows if t.kind == "category"} == truth.categories
        assert {t.slug: t.count for t in rows if t.kind == "tag"} == truth.tags
        empty = {t.slug: t.parent for t in catalogue.topic_rows(session, include_empty=True) if not t.count}
        assert {slug: empty.get(slug, "not there") for slug in truth.empty} == truth.empty
        assert session.scalar(select(func.count()).where(m.Article.status == "withheld")) == truth.withheld
        shown = sum(truth.months.values()) - truth.withheld
        assert len(catalogue.feed_items(session, FeedSelector("all"), limit_min=5000, limit_max=5000)) == shown
    assert_counts_are_true(database)
    with changes(database) as written:
        (again,) = ingest.refresh(database, fetcher, at=T, names=["site"])
    assert set(written) <= {"sources"}
    assert (again.new, again.changed, again.unchanged, again.removed) == (0, 0, new, 0)
    assert again.scheduled == truth.scheduled
    assert {r: n for r, n in again.skipped.items() if r.startswith("status_")} == truth.skipped


MEASURED = """
import sys
from datetime import datetime
from digest import ingest
from digest.config import Settings
from digest.db import Database
from digest.fetch import Fetcher
from tests.memory import peak_kb
database = Database(sys.argv[1])
settings = Settings.load(None, {"DIGEST_DATA_DIR": sys.argv[3]})
reports = ingest.refresh(database, Fetcher(settings.fetch), at=datetime.fromisoformat(sys.argv[2]))
print(sum(r.new for r in reports), peak_kb() // 1024)
"""


def measured(database: Database, at: datetime, folder: Path) -> tuple[int, int]:
    """Refresh in a process of its own: articles that came in, and the most memory it ever held, in MB."""
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-W", "error", "-c", MEASURED, url, at.isoformat(), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[1])
    assert done.returncode == 0, done.stderr
    new, peak = done.stdout.split()
    return int(new), int(peak)


def test_memory_stays_flat(database: Database, tmp_path: Path) -> None:
    """Four times the export takes no more memory; 24 MB of text go in under 150 MB."""
    peaks = []
    for n, posts in enumerate((500, 2000)):
        path = tmp_path / f"{posts}.xml"
        path.write_text("".join(export(posts, "Words of an article of a fair length. " * 100 + str(n))))
        with database.transaction() as session:
            for source in catalogue.list_sources(session):
                catalogue.remove_source(session, source.slug)
            session.execute(m.Base.metadata.tables["articles"].delete())
        ingest.add_source(database, f"s{posts}", kind="wxr", location=str(path), at=T)
        new, peak = measured(database, T, tmp_path)
        assert new == posts - 2
        peaks.append(peak)
    assert peaks[1] <= 150
    assert peaks[1] <= peaks[0] + 25, peaks


# ----------------------------------------------------------------------------- the sample


def test_the_sample_is_of_today(database: Database, fetcher: Fetcher, tmp_path: Path) -> None:
    path = ingest.write_sample(tmp_path / "sample", T)
    assert path.read_bytes() == ingest.write_sample(tmp_path / "again", T).read_bytes()
    ingest.add_source(database, "Sample", kind="wxr", location=str(path), at=T)
    (report,) = ingest.refresh(database, fetcher, at=T)
    assert (report.errors, dict(report.skipped), report.scheduled, report.changed) == ([], {}, 0, 0)
    assert report.new >= 200
    with database.reading() as session:
        articles = catalogue.list_articles(session)
        items = catalogue.feed_items(session, FeedSelector("all"))
        categories = {t.slug: t for t in catalogue.topic_rows(session, "category", include_empty=True)}
        tags = catalogue.topic_rows(session, "tag")
    assert T - 3 * HOUR <= articles[-1].published_at <= T - timedelta(minutes=15)
    assert T - 36 * DAY < articles[0].published_at < T - 30 * DAY
    assert sum(a.published_at > T - 7 * DAY for a in articles) >= 0.3 * len(articles)
    assert all(a.categories and a.tags and a.author for a in articles)
    assert categories["africa"].parent == "world"
    assert categories["design"].parent == "technology"
    assert categories["africa"].count >= 10
    assert len(tags) >= 45
    for item in items:
        assert "{{" not in item.html
        assert "creativecommons.org" in item.html
        assert 40 <= len(item.summary) <= 240
        assert "Digital.gov" in item.html or "Global Voices" in item.html


def test_the_sample_is_small_and_names_its_licences() -> None:
    from digest.paths import shipped

    folder = shipped("config") / "sample"
    assert (folder / "site.xml.gz").stat().st_size <= 600_000
    told = (folder / "README.md").read_text()
    assert "CC0 1.0" in told
    assert "CC BY 3.0" in told


@pytest.mark.parametrize("minutes", [0, 1, 10, 60, 300, 1439])
def test_the_newest_is_from_the_day_itself(minutes: int) -> None:
    at = datetime(2026, 11, 24, tzinfo=UTC) + timedelta(minutes=minutes)
    dates = sample_dates(250, at)
    assert dates[0].date() == at.date()
    assert dates[0] <= at
    assert dates == sorted(dates, reverse=True)
    assert len(set(dates)) == 250
