"""WebSub: a hub is told once of each feed and change; one that fails is left alone and disturbs nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

import pytest
from sqlalchemy import update

from digest import catalogue
from digest import models as m
from digest.config import Settings
from digest.db import Database
from digest.errors import ConfigError
from digest.feeds import FORMATS
from digest.fetch import Fetcher
from digest.publishing import hub_states, tell_hubs
from tests import build

PUBLIC = "https://news.example"


@dataclass
class TestHub:
    """A hub on loopback. ``status``: what it answers."""

    __test__ = False
    status: int = 204
    pings: list[list[tuple[str, str]]] = field(default_factory=list)
    url: str = ""

    def feeds(self) -> list[str]:
        """The first address of each ping, as a path without the extension."""
        urls = [ping[-1][1] for ping in self.pings]
        self.pings.clear()
        return [url.removeprefix(f"{PUBLIC}/feeds/").rpartition(".")[0] for url in urls]


@pytest.fixture
def hub() -> Iterator[TestHub]:
    made = TestHub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            made.pings.append(parse_qsl(body))
            self.send_response(made.status)
            self.send_header("location", "http://127.0.0.1:9/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def fetcher(**limits: object) -> Fetcher:
    given = {"DIGEST_FETCH__ALLOW_HOSTS": "127.0.0.1", "DIGEST_FETCH__TIMEOUT_S": "3"}
    return Fetcher(Settings.load(None, given | {k: str(v) for k, v in limits.items()}).fetch)


def tell(database: Database, *hubs: str) -> int:
    return tell_hubs(database, fetcher(), PUBLIC, hubs)


def publish(database: Database, tag: str) -> None:
    with database.transaction() as session:
        build.article(session, tags=[tag])
        catalogue.bump(session, [session.query(m.Topic).filter_by(name=tag).one().id])


@pytest.fixture
def site(database: Database) -> Database:
    with database.transaction() as session:
        build.publication(session)
        build.digest(session)
    publish(database, "Climate")
    publish(database, "Sport")
    return database


def test_a_hub_is_told_once_of_each_changed_feed(site: Database, hub: TestHub) -> None:
    assert (tell(site, hub.url), hub.feeds()) == (0, [])  # what is there already counts as told
    publish(site, "Climate")
    assert tell(site, hub.url) == 2
    assert hub.pings[1] == [
        ("hub.mode", "publish"),
        *(("hub.url", f"{PUBLIC}/feeds/{tree}tag/climate.{x}") for tree in ("", "stories/") for x in FORMATS),
    ]  # fmt: skip
    assert hub.feeds() == ["stories/all", "stories/tag/climate"]
    assert (tell(site, hub.url), hub.feeds()) == (0, [])
    publish(site, "Weather")  # a new topic is a change
    assert (tell(site, hub.url), len(hub.feeds())) == (2, 2)
    with site.transaction() as session:
        build.edition(session, session.query(m.Digest).one())
    assert (tell(site, hub.url), hub.feeds()) == (1, ["digest/morning"])


def test_a_hub_that_fails_backs_off_and_loses_nothing(site: Database, hub: TestHub) -> None:
    dead = "http://127.0.0.1:9/hub"
    tell(site, hub.url, dead)
    publish(site, "Sport")
    assert tell(site, hub.url, dead) == 2  # the other one heard all the same
    hub.feeds()
    for failures in (1, 2, 3):
        with site.reading() as session:
            states = {s.url: s for s in hub_states(session, [hub.url, dead])}
        assert states[dead].failures == failures
        assert "127.0.0.1:9" in (states[dead].error or "")
        wait = states[dead].not_before - datetime.now(UTC)
        assert timedelta(seconds=50) * 2 ** (failures - 1) < wait <= timedelta(minutes=2 ** (failures - 1))
        assert tell(site, hub.url, dead) == 0
        with site.transaction() as session:
            session.execute(update(m.Hub).where(m.Hub.url == dead).values(not_before=datetime.now(UTC)))
        if failures < 3:
            tell(site, dead)


@pytest.mark.parametrize("status", [302, 404, 500, 503])
def test_any_answer_but_a_good_one_is_a_failure(site: Database, hub: TestHub, status: int) -> None:
    tell(site, hub.url)
    publish(site, "Sport")
    hub.status = status
    assert (tell(site, hub.url), len(hub.pings)) == (0, 1)
    hub.status = 202
    with site.transaction() as session:
        session.execute(update(m.Hub).values(not_before=datetime.now(UTC)))
    assert tell(site, hub.url) == 2
    with site.reading() as session:
        (state,) = hub_states(session, [hub.url])
    assert (state.failures, state.error) == (0, None)


def test_of_two_processes_one_tells(site: Database, hub: TestHub) -> None:
    tell(site, hub.url)
    publish(site, "Sport")
    threads = [threading.Thread(target=tell, args=(site, hub.url)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(hub.feeds()) == ["stories/all", "stories/tag/sport"]


def test_a_hub_inside_is_refused(site: Database) -> None:
    inside = "http://169.254.169.254/latest"
    tell(site, inside)
    publish(site, "Sport")
    assert tell(site, inside) == 0
    with site.reading() as session:
        (state,) = hub_states(session, [inside])
    assert "169.254.169.254" in (state.error or "")


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "ftp://hub.example/", "https://a:b@hub.example/", "hub", "http://x/ y"]
)
def test_what_is_no_hub_is_no_setting(url: str) -> None:
    with pytest.raises(ConfigError, match="address of a hub"):
        Settings.load(None, {"DIGEST_FEEDS__HUBS": url})
