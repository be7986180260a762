"""Feeds over HTTP: conditions, codings, methods, and what a poll costs."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

import brotli
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from digest import catalogue
from digest import models as m
from digest.db import Database
from digest.feeds import FORMATS
from digest.publishing import STALE_S, Shelf
from digest.web.conditions import negotiate, not_modified
from digest.web.feeds import FeedsApp
from tests import build
from tests.feed_readers import faults, read

PUBLIC = "https://news.example"
ALL = "/feeds/all.rss"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    app: Any,
    path: str = ALL,
    *,
    method: str = "GET",
    root: str = "",
    client: str = "192.0.2.1",
    **headers: str | list[str],
) -> Answer:
    """One request, as a server would hand it in; underscores in header names stand for hyphens."""
    lines = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    scope = {
        "type": "http", "method": method, "path": root + unquote(path), "raw_path": (root + path).encode(),
        "root_path": root, "headers": lines, "query_string": b"",
        "client": (client, 1),
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert [s["type"] for s in sent] == ["http.response.start", "http.response.body"]
    got = {k.decode(): v.decode("latin-1") for k, v in sent[0]["headers"]}
    assert len(got) == len(sent[0]["headers"])
    return Answer(sent[0]["status"], got, sent[1]["body"])


@pytest.fixture
def site(database: Database) -> Database:
    with database.transaction() as session:
        build.publication(session)
        build.article(session, tags=["Climate"], authors=["Ana Núñez"])
        build.article(session, tags=["Climate"], age=timedelta(hours=2))
        build.digest(session)
        catalogue.bump(session, [session.query(m.Topic).one().id])
    return database


class Clock:
    """The shelf's clock: what was read of the database grows old when tests say so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def tick(self) -> None:
        self.now += STALE_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf(site: Database, clock: Clock) -> Iterator[Shelf]:
    shelf = Shelf(site, PUBLIC, clock=clock)
    yield shelf
    shelf.close()


@pytest.fixture
def app(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> FeedsApp:
    """As patient as the machine that runs the tests is slow."""
    monkeypatch.setattr("digest.web.feeds._PATIENCE_S", 60.0)
    return FeedsApp(shelf)


def change(site: Database) -> None:
    with site.transaction() as session:
        build.article(session, tags=["Climate"], age=timedelta(0))
        catalogue.bump(session, [session.query(m.Topic).one().id])


# ----------------------------------------------------------------------------- 200


@pytest.mark.parametrize("name", FORMATS)
def test_a_feed_is_served(app: FeedsApp, name: str) -> None:
    got = ask(app, f"/feeds/tag/climate.{name}")
    assert got.status == 200
    assert faults(name, got.body) == []
    assert len(read(name, got.body)) == 2
    assert got.headers["content-type"] == FORMATS[name].content_type
    assert got.headers["content-length"] == str(len(got.body))
    assert got.headers["cache-control"].startswith("public, max-age=300, stale-while-revalidate=")
    assert got.headers["vary"] == "Accept-Encoding, Sec-Fetch-Dest"
    assert got.headers["etag"].startswith('"')
    assert "content-encoding" not in got.headers
    assert parsedate_to_datetime(got.headers["last-modified"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "path", ["/feeds/author/ana-n%C3%BA%C3%B1ez.rss", "/feeds/digest/morning.rss", "/feeds/%61ll.rss"]
)
def test_paths_may_be_percent_encoded(app: FeedsApp, path: str) -> None:
    assert ask(app, path).status == 200


def test_codings_hold_the_same_feed_under_etags_of_their_own(app: FeedsApp) -> None:
    plain, zipped, brotlied = (ask(app, accept_encoding=a) for a in ("identity", "gzip, deflate", "gzip, br;q=1.0"))
    assert (zipped.headers["content-encoding"], brotlied.headers["content-encoding"]) == ("gzip", "br")
    assert gzip.decompress(zipped.body) == brotli.decompress(brotlied.body) == plain.body
    assert len({a.headers["etag"] for a in (plain, zipped, brotlied)}) == 3
    assert {a.headers["vary"] for a in (plain, zipped, brotlied)} == {"Accept-Encoding, Sec-Fetch-Dest"}


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"", ""), (b"identity", ""), (b"gzip", "gzip"), (b"x-gzip", "gzip"), (b"GZIP", "gzip"), (b"br", "br"),
        (b"gzip, deflate, br, zstd", "br"), (b"gzip;q=1.0, br;q=0.5", "gzip"), (b"gzip;q=0", ""),
        (b"br;q=0, gzip", "gzip"),
        (b"*", "br"), (b"*;q=0", None), (b"br;q=0, *", "gzip"), (b"gzip;q=0.5, identity", ""), (b"deflate", ""),
        (b"gzip;q=0.5, identity;q=0.2", "gzip"), (b"identity;q=0", None), (b"gzip ; q=0.001", "gzip"),
        (b"gzip;q=x", ""), (b"gzip;q=2", ""), (b",,gzip,", "gzip"), (b"gzip;q", ""), (b"\xff\x00", ""),
    ],
)  # fmt: skip
def test_codings_are_negotiated(accept: bytes, coding: str | None) -> None:
    assert negotiate(accept) == coding


def test_head_is_get_without_a_body(app: FeedsApp) -> None:
    got, head = ask(app), ask(app, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers == got.headers
    assert ask(app, method="HEAD", if_none_match=got.headers["etag"]).status == 304


def test_a_range_is_ignored(app: FeedsApp) -> None:
    got = ask(app, range="bytes=0-9", if_range='"x"')
    assert got.status == 200
    assert "content-range" not in got.headers
    assert len(got.body) > 10


# ----------------------------------------------------------------------------- 304


def test_a_reader_that_has_it_gets_304(app: FeedsApp) -> None:
    for accept in ("identity", "gzip", "br"):
        got = ask(app, accept_encoding=accept)
        again = ask(app, accept_encoding=accept, if_none_match=got.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        for header in ("etag", "cache-control", "vary"):  # RFC 9110 §15.4.5
            assert again.headers[header] == got.headers[header]
        assert not {"content-type", "content-length", "content-encoding"} & again.headers.keys()
        since = ask(app, accept_encoding=accept, if_modified_since=got.headers["last-modified"])
        assert (since.status, since.body, since.headers) == (304, b"", again.headers)


def test_the_etag_decides_and_the_date_only_without_one(app: FeedsApp) -> None:
    got = ask(app)
    etag, date = got.headers["etag"], got.headers["last-modified"]
    old = "Sat, 01 Jan 2000 00:00:00 GMT"
    assert ask(app, if_none_match=etag, if_modified_since=old).status == 304
    assert ask(app, if_none_match='"other"', if_modified_since=date).status == 200
    assert ask(app, if_modified_since=old).status == 200


def test_if_none_match_is_a_list_compared_weakly(app: FeedsApp) -> None:
    etag = ask(app).headers["etag"]
    for value in (etag, f"W/{etag}", f'"a", {etag}', f'W/"a,b",W/{etag}', "*", f" {etag} ", ['"a"', etag]):
        assert ask(app, if_none_match=value).status == 304, value
    for value in ('"a"', "", etag.strip('"'), etag[:-2] + '"', 'W/"*"', f'"x{etag[1:]}'):
        assert ask(app, if_none_match=value).status == 200, value


def test_an_etag_of_another_coding_does_not_match(app: FeedsApp) -> None:
    etag = ask(app, accept_encoding="gzip").headers["etag"]
    assert ask(app, if_none_match=etag).status == 200


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (b"Mon, 14 Jul 2025 05:00:00 GMT", True),
        (b"Monday, 14-Jul-25 05:00:00 GMT", True),
        (b"Mon Jul 14 05:00:00 2025", True),
        (b"Mon, 14 Jul 2025 05:00:01 GMT", True),
        (b"Mon, 14 Jul 2025 04:59:59 GMT", False),
        (b"Fri, 01 Jan 2100 00:00:00 GMT", False),  # not the truth: it would freeze the feed
        (b"yesterday", False),
        (b"", False),
        (b"Mon, 99 Jul 2025 05:00:00 GMT", False),
        (b"Sun, 31 Dec 99999999999999 00:00:00 GMT", False),
        (b"\xff\xfe", False),
    ],
)
def test_dates_are_read_in_all_their_forms(since: bytes, expected: bool) -> None:
    assert not_modified(None, since, '"x"', datetime(2025, 7, 14, 5, tzinfo=UTC).timestamp()) is expected


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_no_header_breaks_it(accept: bytes, none_match: bytes, since: bytes) -> None:
    assert negotiate(accept) in ("", "br", "gzip", None)
    assert not_modified(none_match, since, '"x"', 0.0) in (True, False)
    assert not_modified(None, since, '"x"', 0.0) in (True, False)


def test_a_change_moves_etag_and_date(site: Database, app: FeedsApp, clock: Clock) -> None:
    before = ask(app)
    change(site)
    clock.tick()
    time.sleep(1.1)  # no date is in the future
    after = ask(app, if_none_match=before.headers["etag"], if_modified_since=before.headers["last-modified"])
    assert after.status == 200
    assert ask(app, if_modified_since=before.headers["last-modified"]).status == 200
    gap = parsedate_to_datetime(after.headers["last-modified"]) - parsedate_to_datetime(before.headers["last-modified"])
    assert gap >= timedelta(seconds=1)


def test_no_date_is_in_the_future(site: Database, app: FeedsApp) -> None:
    with site.transaction() as session:
        for _ in range(20):  # each moves the date on by a second at least
            catalogue.bump(session, [])
    got = ask(app)
    said = parsedate_to_datetime(got.headers["last-modified"])
    assert said <= datetime.now(UTC)
    assert ask(app, if_modified_since=format_datetime(said, usegmt=True)).status == 200  # late, but never too early


# ----------------------------------------------------------------------------- what it costs


def test_a_warm_poll_costs_no_sql_and_no_rendering(
    site: Database, app: FeedsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    etags = {
        path: ask(app, path).headers["etag"] for path in (ALL, "/feeds/tag/climate.atom", "/feeds/digest/morning.json")
    }
    assert ask(app, "/feeds/tag/none.rss").status == 404
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    def render(_view: Any) -> bytes:
        raise AssertionError("rendered")

    for name, fmt in list(FORMATS.items()):
        monkeypatch.setitem(FORMATS, name, replace(fmt, write=render))
    event.listen(site.engine, "before_cursor_execute", note)
    for path, etag in etags.items():
        for accept in ("identity", "gzip", "br"):
            assert ask(app, path, accept_encoding=accept).status == 200
        assert ask(app, path, if_none_match=etag).status == 304
    assert ask(app, "/feeds/tag/none.rss").status == 404
    event.remove(site.engine, "before_cursor_execute", note)
    assert seen == []


def test_a_change_is_served_within_two_seconds(site: Database, app: FeedsApp, clock: Clock) -> None:
    assert len(read("rss", ask(app).body)) == 2
    change(site)
    clock.tick()
    assert STALE_S < 2
    assert len(read("rss", ask(app).body)) == 3


# ----------------------------------------------------------------------------- other answers


def test_a_feed_that_moved_is_301_and_one_that_is_no_more_410(site: Database, app: FeedsApp, clock: Clock) -> None:
    with site.transaction() as session:
        catalogue.rename(session, "tag:climate", "Klima & Ökologie", slug="klima-日")
    got = ask(app, "/feeds/tag/climate.rss")
    assert (got.status, got.headers["location"]) == (301, "/feeds/tag/klima-%E6%97%A5.rss")
    with site.transaction() as session:
        catalogue.hide(session, "tag:climate")
    clock.tick()
    assert ask(app, "/feeds/tag/climate.rss").status == 410
    assert ask(app, "/feeds/tag/climate.rss", method="HEAD").status == 410


@pytest.mark.parametrize(
    "path", ["/feeds/tag/none.rss", "/feeds/all.xml", "/feeds/", "/feeds/tag/", "/feeds/all", "/x"]
)
def test_what_is_not_there_is_404_in_plain_words(app: FeedsApp, path: str) -> None:
    got = ask(app, path)
    assert got.status == 404
    assert got.headers["content-type"] == "text/plain; charset=utf-8"
    assert got.body.endswith(b".\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"])
def test_feeds_can_only_be_read(app: FeedsApp, method: str) -> None:
    got = ask(app, method=method)
    assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")


def test_everything_else_goes_on(shelf: Shelf) -> None:
    went: list[str] = []

    async def rest(scope: Any, _receive: Any, send: Any) -> None:
        went.append(scope.get("path", scope["type"]))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"rest"})

    app = FeedsApp(shelf, rest)
    assert ask(app, "/archive").body == b"rest"
    assert ask(app, "/feeds.opml").body.startswith(b"<?xml")
    assert ask(app, sec_fetch_dest="document").body == b"rest"
    assert ask(app).body.startswith(b"<?xml")
    asyncio.run(app({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert went == ["/archive", ALL, "lifespan"]


def test_it_works_below_a_prefix(app: FeedsApp) -> None:
    assert ask(app, root="/news").status == 200


def test_a_failing_database_leaves_the_old_feed_standing(
    site: Database, app: FeedsApp, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = ask(app)
    clock.tick()
    site.engine.dispose()

    def away(*_: Any) -> None:
        raise OSError("no route to the database")

    event.listen(site.engine, "do_connect", away)
    old = ask(app, if_none_match='"x"')
    cold = ask(app, "/feeds/tag/climate.rss")
    event.remove(site.engine, "do_connect", away)
    assert (old.status, old.body, old.headers) == (200, fresh.body, fresh.headers)
    assert (cold.status, cold.headers["retry-after"], cold.headers["cache-control"]) == (503, "30", "no-store")
    assert "no route to the database" in caplog.text
    clock.tick()
    assert ask(app, "/feeds/tag/climate.rss").status == 200


def test_a_slow_database_does_not_hold_up_who_can_have_the_old_feed(site: Database, shelf: Shelf, clock: Clock) -> None:
    app = FeedsApp(shelf)
    fresh = ask(app)
    change(site)
    clock.tick()
    let_go = threading.Event()

    def slow(*_: Any) -> None:
        let_go.wait(60)

    event.listen(site.engine, "before_cursor_execute", slow)
    began = time.monotonic()
    old = ask(app)
    took = time.monotonic() - began
    let_go.set()
    event.remove(site.engine, "before_cursor_execute", slow)
    assert old.body == fresh.body
    assert took < 30


def test_what_changes_many_times_a_second_hides_nothing(site: Database, app: FeedsApp, clock: Clock) -> None:
    climate = "/feeds/tag/climate.rss"
    assert len(read("rss", ask(app, climate).body)) == 2
    with site.transaction() as session:
        for _ in range(200):  # the whole catalogue is dated minutes ahead
            catalogue.bump(session, [])
    clock.tick()
    ask(app)
    change(site)
    clock.tick()
    ask(app)  # what has moved is read for all feeds at once
    assert len(read("rss", ask(app, climate).body)) == 3


def test_what_is_long_out_of_date_is_waited_for(
    site: Database, shelf: Shelf, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digest.web.feeds._PATIENCE_S", 0.0)
    app = FeedsApp(shelf)
    climate = "/feeds/tag/climate.rss"
    assert [len(read("rss", ask(app, path).body)) for path in (climate, ALL)] == [2, 2]
    for n in (3, 4):  # others make the shelf look twice
        change(site)
        clock.tick()
        assert len(read("rss", shelf.refresh(ALL).result().entry.plain.body)) == n  # type: ignore[union-attr]
    assert len(read("rss", ask(app, climate).body)) == 4


def test_who_asks_for_much_that_is_not_ready_may_wait_but_keeps_what_lies_there(shelf: Shelf, clock: Clock) -> None:
    app = FeedsApp(shelf, unready_per_minute=2)  # ten at once
    assert [ask(app, f"/feeds/tag/none-{n}.rss").status for n in range(9)] == [404] * 9
    assert ask(app).status == 200
    refused = ask(app, "/feeds/tag/none-10.rss")
    assert (refused.status, refused.headers["retry-after"], refused.headers["cache-control"]) == (429, "30", "no-store")
    assert ask(app, "/feeds/tag/climate.rss").status == 429
    clock.tick()
    assert [ask(app).status, ask(app, "/feeds/tag/none-1.rss").status] == [200, 404]
    assert ask(app, "/feeds/tag/climate.rss", client="192.0.2.2").status == 200
    no_limit = FeedsApp(shelf)
    assert {ask(no_limit, f"/feeds/tag/other-{n}.rss").status for n in range(30)} == {404}


# ----------------------------------------------------------------------------- through a real server


@pytest.fixture
def port(app: FeedsApp) -> Iterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def test_over_the_wire(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/feeds/author/ana-n%C3%BA%C3%B1ez.atom", headers={"Accept-Encoding": "br"})
    response = connection.getresponse()
    body = brotli.decompress(response.read())
    assert (response.status, faults("atom", body)) == (200, [])
    date = parsedate_to_datetime(response.headers["Date"])
    assert parsedate_to_datetime(response.headers["Last-Modified"]) <= date
    etag = response.headers["ETag"]
    for method in ("GET", "HEAD"):
        headers = {"Accept-Encoding": "br", "If-None-Match": etag}
        connection.request(method, "/feeds/author/ana-n%C3%BA%C3%B1ez.atom", headers=headers)
        response = connection.getresponse()
        assert (response.status, response.read(), response.headers["ETag"]) == (304, b"", etag)
    connection.request("HEAD", "/feeds/all.json")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"")
    assert int(response.headers["Content-Length"]) > 100
    connection.close()
