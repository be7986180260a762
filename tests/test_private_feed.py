"""A reader's own feed: made, renewed and ended by its reader; worthless to everybody after that."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete
from starlette.testclient import TestClient

from digest import audience, catalogue
from digest import models as m
from digest.bootstrap import App
from digest.config import Settings
from digest.db import Database
from digest.web.app import create_app
from tests import build

HERE = "http://127.0.0.1:8000"


@pytest.fixture
def app(sqlite_template: Path, settings: Settings) -> Iterator[App]:
    shutil.copyfile(sqlite_template, settings.data_dir / "digest.sqlite3")
    database = Database(f"sqlite:///{settings.data_dir}/digest.sqlite3")
    with database.transaction() as session:
        build.publication(session)
        world = build.topic(session, "World")
        build.topic(session, "Africa", parent=world)
        build.article(session, title="Of Africa", categories=["Africa"], age=timedelta(hours=3))
        first = build.article(session, title="Of the sea", tags=["Sea"], age=timedelta(hours=2))
        build.article(session, title="The sea again", tags=["Sea"], story_id=first.story_id)
        build.article(session, title="Of sports", tags=["Sports"])
        morning = build.digest(session, categories=["world"])
        weekly = build.digest(session, "weekly", rule="not tag:sports")
        paused = build.digest(session, "paused", tags=["sports"])
        reader = build.subscriber(session, "ana@example.org")
        build.subscription(session, morning, reader)
        build.subscription(session, weekly, reader, topics=[build.topic(session, "Sea", kind="tag")])
        build.subscription(session, paused, reader, status="unsubscribed")
        build.subscriber(session, "bo@example.org")
        catalogue.bump(session, [t.id for t in session.query(m.Topic)])
    app = App(settings, database)
    yield app
    app.shelf.close()
    database.close()


@pytest.fixture
def client(app: App) -> TestClient:
    return TestClient(create_app(app), base_url=HERE)


def reader(app: App, address: str = "ana@example.org") -> int:
    with app.db.reading() as session:
        return int(session.query(m.Subscriber).filter_by(address=address).one().id)


def preferences(app: App) -> str:
    return f"/preferences/{app.tokens.make('preferences', (reader(app),))}"


def made(app: App, client: TestClient, feed: str = "new") -> str:
    """Press the button; the path of the feed that the page shows, without the extension."""
    page = client.post(f"{preferences(app)}/feed", data={"feed": feed})
    assert page.status_code == 200
    found = re.search(rf'value="{HERE}(/feeds/private/[^"]+)\.rss"', page.text)
    return found[1] if found else ""


def test_it_holds_the_readers_topics_each_story_once(app: App, client: TestClient) -> None:
    assert "Make my feed" in client.get(preferences(app)).text
    path = made(app, client)
    got = client.get(f"{path}.json")
    feed = json.loads(got.text)
    assert [item["title"] for item in feed["items"]] == ["Of the sea", "Of Africa"]
    assert feed["feed_url"] == f"{HERE}{path}.json"
    assert got.headers["cache-control"] == "private, max-age=900"
    assert got.headers["x-robots-tag"] == "noindex"
    assert "last-modified" not in got.headers
    assert client.get(f"{path}.rss").text.startswith("<?xml")
    assert client.get(f"{path}.atom").headers["content-type"] == "application/atom+xml; charset=utf-8"


def test_an_unchanged_one_is_304(app: App, client: TestClient) -> None:
    path = made(app, client)
    etag = client.get(f"{path}.rss").headers["etag"]
    assert client.get(f"{path}.rss", headers={"If-None-Match": etag}).status_code == 304
    assert client.head(f"{path}.rss").status_code == 200
    with app.db.transaction() as session:
        build.article(session, title="New", tags=["Sea"], age=timedelta(0))
    assert client.get(f"{path}.rss", headers={"If-None-Match": etag}).status_code == 200


def test_a_new_address_ends_the_old_one_at_once(app: App, client: TestClient) -> None:
    first = made(app, client)
    assert client.get(f"{first}.rss").status_code == 200
    second = made(app, client)
    assert second != first
    assert (client.get(f"{first}.rss").status_code, client.get(f"{second}.rss").status_code) == (410, 200)
    assert made(app, client, "off") == ""
    assert client.get(f"{second}.rss").status_code == 410
    third = made(app, client)
    assert third not in (first, second)
    with app.db.transaction() as session:
        for row in session.query(m.Subscription).all():
            session.delete(row)
        session.flush()
        session.execute(delete(m.Subscriber))  # what erasing a reader comes to
    assert client.get(f"{third}.rss").status_code == 410


def test_a_forged_or_broken_address_opens_nothing(app: App, client: TestClient) -> None:
    path = made(app, client)
    for wrong in (path[:-1], f"{path}x", path.replace("private/", "private/1"), "/feeds/private/x"):
        assert client.get(f"{wrong}.rss").status_code == 404
    assert client.get(f"{path}.exe").status_code == 404
    other = f"/feeds/private/{app.tokens.make('preferences', (reader(app),))}.rss"
    assert client.get(other).status_code == 404
    assert client.get(f"{preferences(app)}/feed").status_code == 405


def test_who_asks_is_counted_once_and_by_day_alone(app: App, client: TestClient) -> None:
    path = made(app, client)
    for _ in range(3):
        client.get(f"{path}.rss")
    with app.db.reading() as session:
        rows = session.query(m.PrivateFeedReaders).all()
        assert [(row.subscriber_id, len(row.day)) for row in rows] == [(reader(app), 10)]
        assert audience.count_private_readers(session, datetime.now(UTC)) == 1
        assert audience.count_private_readers(session, datetime.now(UTC) + timedelta(days=40)) == 0
