"""A feed as a person sees it who opens its address."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import sync_playwright
from starlette.testclient import TestClient

from digest import catalogue
from digest import models as m
from digest.bootstrap import App
from digest.config import Settings
from digest.db import Database
from digest.web.app import create_app, server
from tests import build

PERSON = {"Sec-Fetch-Dest": "document"}
EVIL = '<script>alert(1)</script>"'


@pytest.fixture
def app(sqlite_template: object, settings: Settings) -> Iterator[App]:
    """On SQLite alone: what pages show is the same on both."""
    path = settings.data_dir / "digest.sqlite3"
    shutil.copyfile(str(sqlite_template), path)
    database = Database(f"sqlite:///{path}")
    with database.transaction() as session:
        build.publication(session)
        for n in range(25):
            build.article(session, title=f"Rain {n}", tags=["Climate"], authors=["Ana"], age=timedelta(hours=n))
        build.article(session, title=EVIL, tags=["Evil"], authors=[EVIL], excerpt=EVIL)
        for topic in session.query(m.Topic).filter_by(slug="evil"):
            topic.name = EVIL
        build.digest(session)
        catalogue.bump(session, [t.id for t in session.query(m.Topic)])
    app = App(settings, database)
    yield app
    app.shelf.close()
    database.close()


@pytest.fixture
def client(app: App) -> TestClient:
    return TestClient(create_app(app), base_url="http://127.0.0.1:8000", follow_redirects=False)


def test_a_browser_gets_a_page_and_a_reader_the_feed_under_one_address(client: TestClient) -> None:
    page, feed = client.get("/feeds/tag/climate.rss", headers=PERSON), client.get("/feeds/tag/climate.rss")
    assert (page.headers["content-type"], page.status_code) == ("text/html; charset=utf-8", 200)
    assert feed.headers["content-type"] == "application/rss+xml; charset=utf-8"
    assert page.headers["vary"] == feed.headers["vary"] == "Accept-Encoding, Sec-Fetch-Dest"
    assert 'value="http://127.0.0.1:8000/feeds/tag/climate.rss"' in page.text
    assert (
        "https://feedly.com/i/subscription/feed/http%3A%2F%2F127.0.0.1%3A8000%2Ffeeds%2Ftag%2Fclimate.rss" in page.text
    )
    assert page.text.count("Rain ") == 20
    head = client.head("/feeds/tag/climate.rss", headers=PERSON)
    assert (head.status_code, head.content) == (200, b"")


def test_a_readers_accept_header_makes_no_browser_of_it(client: TestClient) -> None:
    miniflux = "application/xml, application/atom+xml, application/feed+json, text/html, */*;q=0.9"
    assert client.get("/feeds/all.rss", headers={"Accept": miniflux}).text.startswith("<?xml")
    assert client.get("/feeds/all.rss", headers={"Sec-Fetch-Dest": "empty"}).text.startswith("<?xml")


def test_what_a_feed_says_is_text_on_its_page(client: TestClient) -> None:
    page = client.get("/feeds/tag/evil.atom", headers=PERSON).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    "path", ["all.xml", "tag/none.rss", "", "tag/x/y/z.rss", "any/tag:none+tag:climate.rss", "all"]
)
def test_people_are_told_too_what_is_not_there(client: TestClient, path: str) -> None:
    got = client.get(f"/feeds/{path}", headers=PERSON)
    assert (got.status_code, got.headers["content-type"]) == (404, "text/html; charset=utf-8")


def test_people_follow_a_feed_that_moved(client: TestClient, app: App) -> None:
    with app.db.transaction() as session:
        catalogue.rename(session, "tag:climate", "Sky", slug="sky")
        catalogue.hide(session, "tag:evil")
    got = client.get("/feeds/tag/climate.rss", headers=PERSON)
    assert (got.status_code, got.headers["location"]) == (301, "/feeds/tag/sky.rss")
    assert client.get("/feeds/tag/evil.rss", headers=PERSON).status_code == 410


def test_every_page_names_the_list_of_all_feeds(client: TestClient) -> None:
    for path in ("/", "/archive", "/topics", "/subscribe", "/nowhere"):
        assert 'type="text/x-opml"' in client.get(path).text
    page = client.get("/feeds/tag/climate.rss", headers=PERSON).text
    assert 'type="application/feed+json" title="Climate – The Harbour Paper (JSON Feed)"' in page


@pytest.mark.slow
def test_the_page_in_a_browser(app: App, chromium: str) -> None:
    """Fits a phone, copies where scripts run, and hides the button where they don't."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = server(app, "127.0.0.1", port)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for scripts in (True, False):
                context = browser.new_context(viewport={"width": 375, "height": 700}, java_script_enabled=scripts)
                page = context.new_page()
                said: list[str] = []
                page.on("console", lambda message, said=said: said.append(message.text))
                page.goto(f"http://127.0.0.1:{port}/feeds/tag/climate.rss")
                assert page.is_visible("#copy") is scripts
                assert page.input_value("#address").endswith("/feeds/tag/climate.rss")
                if scripts:
                    assert page.evaluate("document.documentElement.scrollWidth") == 375
                    page.click("#copy")
                    page.wait_for_function("document.getElementById('copy').textContent == 'Copied'")
                assert said == []
                context.close()
            browser.close()
    finally:
        running.should_exit = True
        thread.join()
