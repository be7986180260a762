"""What lies at an address or a path is found out, and a look at it says what its articles carry."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from digest import catalogue, ingest
from digest import models as m
from digest.db import Database
from digest.errors import SourceError, UsageError
from digest.fetch import Fetcher
from digest.sources import KINDS
from digest.types import RawArticle
from tests.wordpress_server import Site, serving

DATA = Path(__file__).parent / "data" / "same-articles"
T = datetime(2025, 9, 6, 17, tzinfo=UTC)
HOUR = timedelta(hours=1)
Answer = tuple[int, dict[str, str], bytes]


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
def web() -> Iterator[tuple[str, dict[str, Answer]]]:
    """A server's address, and what it answers by path."""
    pages: dict[str, Answer] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            status, headers, body = pages.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    with contextlib.closing(server.socket):
        yield f"http://127.0.0.1:{server.server_address[1]}", pages
        server.shutdown()


FILES = {
    "wxr.xml.gz": "wxr", "wp-posts-1.json.gz": "wordpress", "rss2.xml.gz": "feed", "rss1.rdf.gz": "feed",
    "atom.xml.gz": "feed", "feed.json.gz": "jsonfeed",
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_told_by_its_content(name: str, packed: bool, tmp_path: Path, fetcher: Fetcher) -> None:
    data = (DATA / name).read_bytes()
    path = tmp_path / "what"
    path.write_bytes(data if packed else gzip.decompress(data))
    look = ingest.find_source(fetcher, str(path))
    assert (look.kind, look.location) == (FILES[name], str(path))
    assert len(look.newest()) == 5
    dates = [article["published_at"] for article in look.newest()]
    assert dates == sorted(dates, reverse=True)
    assert look.carries["dates"] == look.carries["authors"] == look.articles
    assert look.carries["full text"] > look.articles * 0.9


def test_a_folder_is_told_by_its_content(tmp_path: Path, fetcher: Fetcher) -> None:
    shutil.unpack_archive(DATA / "markdown.tar.gz", tmp_path)
    look = ingest.find_source(fetcher, str(tmp_path / "markdown"), {"url": "https://x.example/"})
    assert (look.kind, look.articles) == ("markdown", 30)
    assert "full text, images in 24 of 30" in look.told()


def test_behind_a_home_page_lies_its_api(fetcher: Fetcher) -> None:
    with serving(Site(T, only_rest_route=True)) as site:
        for n in range(7):
            site.publish(age=n * HOUR)
        look = ingest.find_source(fetcher, f"{site.url}/")
        assert (look.kind, look.location) == ("wordpress", f"{site.url}/")
        assert [article["title"] for article in look.newest()] == [f"Post {100 + n}" for n in range(5)]
        assert "categories" in look.told()


def test_a_page_leads_to_its_feeds_and_comments_are_none(web: Any, fetcher: Fetcher) -> None:
    url, pages = web
    rss, atom = (gzip.decompress((DATA / name).read_bytes()) for name in ("rss2.xml.gz", "atom.xml.gz"))
    pages["/"] = 200, {"Content-Type": "text/html"}, (
        b"<!doctype html><html><head><link rel=alternate type='application/rss+xml' href='/comments/feed' title=x>"
        b"<link href=\"/gone.xml\" rel='alternate' type=\"application/rss+xml\">"
        b"<link rel='alternate home' type='application/rss+xml' title='News &amp; more' href='feed.xml'>"
        b"<link rel=alternate type=application/atom+xml href=/atom.xml><link rel=stylesheet href=/x.css>"
    )  # fmt: skip
    pages["/feed.xml"], pages["/atom.xml"] = (200, {}, rss), (200, {}, atom)
    look = ingest.find_source(fetcher, f"{url}/")
    assert (look.kind, look.location) == ("feed", f"{url}/feed.xml")
    assert "“News & more”" in look.what
    assert [f.location for f in look.also] == [f"{url}/atom.xml"]
    assert ingest.find_source(fetcher, f"{url}/atom.xml").location == f"{url}/atom.xml"


def test_a_blocked_api_leaves_the_feed(web: Any, fetcher: Fetcher) -> None:
    url, pages = web
    pages["/"] = 200, {"Link": f'<{url}/wp-json/>; rel="https://api.w.org/"'}, (
        b"<!doctype html><link rel=alternate type=application/rss+xml href=/feed/>"
    )  # fmt: skip
    pages["/feed/"] = 200, {}, gzip.decompress((DATA / "rss2.xml.gz").read_bytes())
    assert ingest.find_source(fetcher, f"{url}/").kind == "feed"


@pytest.mark.parametrize("content", [b"", b"<!doctype html><p>Hello", b"\x00\x01", b"{}", b"[1]", b"just words"])
def test_nothing_to_read_is_one_sentence(content: bytes, web: Any, tmp_path: Path, fetcher: Fetcher) -> None:
    url, pages = web
    pages["/x"] = 200, {}, content
    path = tmp_path / "x"
    path.write_bytes(content)
    for location in (f"{url}/x", str(path)):
        with pytest.raises(SourceError, match="feed itself") as caught:
            ingest.find_source(fetcher, location)
        assert caught.value.code == "nothing_found"


def test_an_address_without_its_beginning_is_told_how_to_write_it() -> None:
    with pytest.raises(UsageError, match=r"write it as https://news\.example\.org/feed"):
        ingest.absolute("news.example.org/feed")
    with pytest.raises(UsageError, match="there is nothing at"):
        ingest.absolute("./feed.xml.d/none")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, fetcher: Fetcher) -> None:
    os.mkfifo(tmp_path / "pipe")
    for kind in KINDS:
        with pytest.raises(SourceError) as caught:
            list(KINDS[kind](str(tmp_path / "pipe"), {}, fetcher).fetch({}).items)
        assert caught.value.code == "unreadable"
    with pytest.raises(SourceError, match="is no file"):
        ingest.find_source(fetcher, str(tmp_path / "pipe"))


# ----------------------------------------------------------------------------- what a source's row learns


@pytest.fixture
def row(database: Database) -> Callable[[], m.Source]:
    def read() -> m.Source:
        with database.reading() as session:
            found = session.scalar(select(m.Source))
            session.expunge_all()
        assert found is not None
        return found

    return read


def test_three_equal_redirects_are_believed(web: Any, database: Database, fetcher: Fetcher, row: Any) -> None:
    url, pages = web
    pages["/old"] = 301, {"Location": "/new"}, b""
    pages["/new"] = 200, {}, gzip.decompress((DATA / "rss2.xml.gz").read_bytes())
    ingest.add_source(database, "s", kind="feed", location=f"{url}/old", at=T)
    seen = []
    for n in range(3):
        ingest.refresh(database, fetcher, at=T + n * HOUR, force=n == 1)  # a whole read counts as any other
        seen.append((row().moved_to, row().moved_count))
    assert seen == [(f"{url}/new", n) for n in (1, 2, 3)]
    del pages["/old"]
    [report] = ingest.refresh(database, fetcher, at=T + 4 * HOUR)
    assert report.errors == []
    pages["/old"] = pages["/new"]
    [report] = ingest.refresh(database, fetcher, at=T + 5 * HOUR, force=True)
    assert (row().moved_to, row().moved_count) == (None, 0)


def test_gone_for_good_is_asked_no_more_but_by_name(web: Any, database: Database, fetcher: Fetcher, row: Any) -> None:
    url, pages = web
    pages["/feed"] = 410, {}, b""
    ingest.add_source(database, "s", kind="feed", location=f"{url}/feed", at=T)
    [report] = ingest.refresh(database, fetcher, at=T)
    assert [code for code, _ in report.errors] == ["gone"]
    assert row().disabled_at is not None
    assert "removed for good" in row().last_error
    assert ingest.refresh(database, fetcher, at=T + 100 * HOUR) == []
    pages["/feed"] = 200, {}, gzip.decompress((DATA / "rss2.xml.gz").read_bytes())
    [report] = ingest.refresh(database, fetcher, at=T + 100 * HOUR, names=["s"])
    assert report.new > 0
    assert row().disabled_at is None


def test_an_article_unpublished_in_a_full_export_is_removed(
    tmp_path: Path, database: Database, fetcher: Fetcher
) -> None:
    path = tmp_path / "export.xml"
    whole = gzip.decompress((DATA / "wxr.xml.gz").read_bytes())
    path.write_bytes(whole)
    ingest.add_source(database, "s", kind="wxr", location=str(path), at=T)
    [first] = ingest.refresh(database, fetcher, at=T)
    path.write_bytes(whole.replace(b"<wp:status><![CDATA[publish]]>", b"<wp:status><![CDATA[draft]]>", 1)
                     .replace(b"<wp:status>publish<", b"<wp:status>draft<", 1))  # fmt: skip
    assert path.read_bytes() != whole
    [second] = ingest.refresh(database, fetcher, at=T + HOUR)
    assert (first.new, second.removed) == (30, 1)


def test_exports_in_one_folder_are_one_site(tmp_path: Path, database: Database, fetcher: Fetcher) -> None:
    whole = gzip.decompress((DATA / "wxr.xml.gz").read_bytes())
    head, *posts = whole.split(b"<item>")
    end = b"</channel></rss>"
    posts[-1] = posts[-1].partition(b"</channel>")[0]
    for n in range(3):
        part = b"".join(b"<item>" + post for post in posts[n::3])
        (tmp_path / f"part-{n}.xml").write_bytes(head + part + end)
    look = ingest.find_source(fetcher, str(tmp_path))
    assert (look.kind, look.articles, look.warnings) == ("wxr", 30, [])
    ingest.add_source(database, "s", kind="wxr", location=str(tmp_path), at=T)
    assert [r.new for r in ingest.refresh(database, fetcher, at=T)] == [30]
    assert [r.not_modified for r in ingest.refresh(database, fetcher, at=T + HOUR)] == [True]
    (tmp_path / "part-1.xml").write_bytes(head + end)
    assert [(r.unchanged, r.removed) for r in ingest.refresh(database, fetcher, at=T + 2 * HOUR)] == [(20, 0)]


def test_one_article_is_pushed_and_known_again(database: Database, fetcher: Fetcher, tmp_path: Path) -> None:
    feed = tmp_path / "feed.json"
    feed.write_text(json.dumps({"version": "https://jsonfeed.org/version/1.1", "items": []}))
    ingest.add_source(database, "s", kind="jsonfeed", location=str(feed), at=T)
    raw = RawArticle(guid="urn:x:1", url="https://x.example/1", title="One", body_html="<p>x", published_at=T - HOUR)
    report = ingest.push(database, "s", raw, at=T)
    assert (report.new, report.changed) == (1, 0)
    assert ingest.push(database, "s", raw, at=T).unchanged == 1
    assert ingest.push(database, "s", RawArticle(title="No link"), at=T).skipped == {"no_link": 1}
    with database.reading() as session:
        [article] = catalogue.list_articles(session)
        assert session.scalar(select(m.Article.eligible_at)) == T  # it came now: no first import of old ones
    assert article.title == "One"
