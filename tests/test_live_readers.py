"""Readers at a server that really runs: nothing comes twice, nothing is missed, a poll for nothing costs nothing."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import uvicorn

from digest import catalogue
from digest.db import Database
from digest.fetch import Fetcher
from digest.ingest import add_source, refresh
from digest.publishing import STALE_S, Shelf
from digest.web.feeds import FeedsApp
from digest.web.lane import lane
from tests import build
from tests.live_readers import LIBRARIES, PROGRAMS, Library, Reader, Wire
from tests.test_worker import free_port, start, stop, wait_for

DATA = Path(__file__).parent / "data" / "same-articles"
READERS = LIBRARIES | PROGRAMS
#: Reloads until a condition is sent, where the first has none yet.
RELOADS = {"newsboat": 3}


class OldSite(http.server.ThreadingHTTPServer):
    """A WordPress site of 30 articles: ``/own/feed/`` is its own, ``/feed/`` what readers have, until it moves."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Pages)
        first, second = (gzip.decompress((DATA / f"{name}.xml.gz").read_bytes()) for name in ("rss2", "rss2-paged-2"))
        items = second[second.index(b"<item>") : second.rindex(b"</channel>")]
        self.feed = first.replace(b"</channel>", items + b"</channel>")
        self.moved_to = ""
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._published = 0

    def publish(self) -> None:
        n, now = self._published, datetime.now(UTC)
        self._published += 1
        item = (
            f"<item><title>Fresh {n}</title><link>https://capitalcities.example/fresh-{n}</link>"
            f"<pubDate>{format_datetime(now)}</pubDate><guid isPermaLink='false'>https://capitalcities.example/?p=9{n}"
            f"</guid><description>What is new, {n}.</description></item><item>"
        )
        self.feed = self.feed.replace(b"<item>", item.encode(), 1)


class _Pages(http.server.BaseHTTPRequestHandler):
    server: OldSite

    def log_message(self, *_: object) -> None:
        """In silence."""

    def do_GET(self) -> None:
        old = self.server
        if self.path == "/feed/" and old.moved_to:
            self.send_response(301)
            self.send_header("Location", old.moved_to)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/rss+xml; charset=UTF-8")
        self.send_header("Content-Length", str(len(old.feed)))
        self.end_headers()
        self.wfile.write(old.feed)


@pytest.fixture
def old() -> Iterator[OldSite]:
    site = OldSite()
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield site
    site.shutdown()
    site.server_close()


@dataclass
class Paper:
    """The old site's articles in `digest serve`, and the wire to it. ``fetch``: the settings of fetching."""

    old: OldSite
    database: Database
    fetcher: Fetcher
    wire: Wire

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.wire.port}/feeds/{name}"

    def read(self) -> None:
        (report,) = refresh(self.database, self.fetcher, at=datetime.now(UTC), force=True)
        assert not report.errors

    def publish(self) -> str:
        """One more article, and its title; it is back when our feed has it."""
        self.old.publish()
        self.read()
        title = f"Fresh {self.old._published - 1}"
        wait_for(lambda: title in self.titles())
        self.wire.told()
        return title

    def titles(self) -> list[str]:
        try:
            with urllib.request.urlopen(self.url("all.json"), timeout=10) as answer:
                return [item["title"] for item in json.loads(answer.read())["items"]]
        except OSError:
            return []


@dataclass
class _Fetching:
    timeout_s: float = 10.0
    max_bytes: int = 10_000_000
    allow_hosts: tuple[str, ...] = ("127.0.0.1",)


@pytest.fixture
def paper(sqlite: Database, old: OldSite, tmp_path: Path) -> Iterator[Paper]:
    port = free_port()
    wire = Wire(port)
    found = Paper(old, sqlite, Fetcher(_Fetching()), wire)
    add_source(sqlite, "old", kind="feed", location=f"{old.url}/own/feed/", at=datetime.now(UTC))
    found.read()
    public = {"DIGEST_PUBLIC_URL": f"http://127.0.0.1:{wire.port}", "DIGEST_FETCH__ALLOW_HOSTS": "127.0.0.1"}
    serve = start(f"sqlite:///{tmp_path}/digest.sqlite3", tmp_path, "serve", "--port", str(port), **public)
    try:
        wait_for(lambda: len(found.titles()) == 20)  # the newest
        wire.told()
        yield found
    finally:
        wire.close()
        _, err = stop(serve)
    assert serve.returncode == 0, err
    assert "Traceback" not in err


def _readers(names: Iterable[str], folder: Path) -> dict[str, Reader]:
    found = {}
    for name in names:
        (folder / name).mkdir()
        found[name] = READERS[name](folder / name)
    return found


def _idle(paper: Paper, name: str, reader: Reader) -> None:
    """Reloads bring nothing, and cost a 304 as soon as the reader sends a condition."""
    for _ in range(RELOADS.get(name, 1)):
        assert reader.reload() == set(), name
    assert paper.wire.told()[-1] == 304, name


def _see_what_is_new_once(paper: Paper, readers: dict[str, Reader]) -> None:
    for _ in range(2):
        title = paper.publish()
        for name, reader in readers.items():
            new = reader.reload()
            assert len(new) == 1, (name, title, new)
            assert paper.wire.told() == [200], name
            _idle(paper, name, reader)


def _move(paper: Paper, readers: dict[str, Reader]) -> None:
    """They read the feed of the old site, are led to ours by a 301, and stay."""
    for name, reader in readers.items():
        reader.subscribe(f"{paper.old.url}/feed/")
        assert len(reader.reload()) == 30, name
    paper.old.moved_to = paper.url("all.rss")
    for name, reader in readers.items():
        assert reader.reload() == set(), name
        assert paper.wire.told() == [200], name
        _idle(paper, name, reader)
    _see_what_is_new_once(paper, readers)


@pytest.mark.slow
def test_readers_that_are_led_from_an_old_feed_see_what_is_new_once(paper: Paper, tmp_path: Path) -> None:
    _move(paper, _readers(LIBRARIES, tmp_path))


@pytest.mark.full
def test_programs_that_are_led_from_an_old_feed_see_what_is_new_once(paper: Paper, tmp_path: Path) -> None:
    _move(paper, _readers(PROGRAMS, tmp_path))


@pytest.mark.full
@pytest.mark.parametrize("extension", ["atom", "rss"])
def test_every_reader_reads_every_format(paper: Paper, extension: str, tmp_path: Path) -> None:
    readers = _readers(READERS, tmp_path)
    for name, reader in readers.items():
        reader.subscribe(paper.url(f"all.{extension}"))
        assert len(reader.reload()) == 20, name
        _idle(paper, name, reader)
    _see_what_is_new_once(paper, readers)


# ----------------------------------------------------------------------------- a month of news


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_who_polls_once_a_day_misses_nothing(sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 days of 79 articles each, and a reader that comes once a day."""
    monkeypatch.setattr("digest.web.feeds._PATIENCE_S", 60.0)
    clock = Clock()
    shelf = Shelf(sqlite, "https://news.example", clock=clock)
    server = uvicorn.Server(
        uvicorn.Config(FeedsApp(shelf), port=0, http=lane(shelf), lifespan="off", log_level="error", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    reader = Library(tmp_path)
    reader.subscribe(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/feeds/all.atom")
    try:
        for day in range(30):
            _a_day(sqlite, day)
            clock.now += STALE_S
            assert len(reader.reload()) == 79, day
    finally:
        server.should_exit = True
        thread.join()
        shelf.close()


def _a_day(database: Database, day: int) -> None:
    morning = build.T + timedelta(days=day)
    with database.transaction() as session:
        for n in range(79):
            build.article(session, published_at=morning + timedelta(minutes=18 * n))
        catalogue.bump(session, [])
