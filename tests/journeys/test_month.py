"""A simulated month of a newsroom, through the worker's own engine: three digests, two zones, all that goes wrong.

A daily, a weekly and a second daily that overlaps the first; one cancelled edition; an article that arrives late and
backdated; one whose date jumps; a day without a tick. The same month on both databases gives the same rows.
"""

from __future__ import annotations

import dataclasses
import gzip
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from digest import audience, catalogue, engine, ingest, ledger, rules
from digest import models as m
from digest.bootstrap import App, build
from digest.config import Settings
from digest.db import Database
from digest.delivery.memory import MemoryPool, Outbox
from digest.editions import DigestFields
from digest.paths import shipped
from tests.postgres import Cluster

END = datetime(2025, 9, 6, 17, 0, tzinfo=UTC)
START = END - timedelta(days=31)
DAY = timedelta(days=1)
READERS = 9
#: When the ticks of a day fall: after 07:00 in Berlin and after 07:00 and 08:00 in New York.
HOURS = (5, 11, 12)


@dataclasses.dataclass
class Month:
    app: App
    outbox: Outbox
    late: int = 0
    jumped: int = 0

    def tick(self, at: datetime) -> None:
        engine.tick(self.app, at, drain=True, refresh=False)

    def editions(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "edition"} for row in engine.edition_rows(self.app)]

    def deliveries(self) -> list[tuple[Any, ...]]:
        with self.app.db.reading() as session:
            return [
                (slug, e.local_time, d.address, d.outcome, d.code, d.enhanced, d.text, d.attempts)
                for e, slug in ledger.editions.editions(session)
                for d in ledger.deliveries(session, e)
            ]

    def carried(self) -> list[tuple[str, str, list[str]]]:
        """(digest, local time, URLs that went to some reader) of each edition."""
        with self.app.db.reading() as session:
            return [
                (slug, e.local_time, [c.card.url for c in ledger.readings.carried(session, e.id) if c.readers])
                for e, slug in ledger.editions.editions(session)
            ]


def live_a_month(database: Database, settings: Settings, folder: Path, *, live: bool) -> Month:
    outbox = Outbox()
    app = build(
        settings.model_copy(
            update={"database": settings.database.model_copy(update={"url": str_url(database)}), "live": live}
        ),
        transport=lambda grants: MemoryPool(outbox, grants, connections=2),
    )
    month = Month(app, outbox)
    with app.db.transaction() as session:
        catalogue.set_brand(session, "timezone", "America/New_York")
    ingest.add_source(app.db, "site", kind="wxr", location=str(ingest.write_sample(folder, END)), at=START)
    ingest.refresh(app.db, app.fetcher, at=END)
    as_first_imported(app, START)
    set_up(app)
    keep_back(month)
    for day in range(31):
        live_a_day(month, day)
    return month


def str_url(database: Database) -> str:
    return database.url.render_as_string(hide_password=False)


def as_first_imported(app: App, at: datetime) -> None:
    """The whole month's articles are read at once; each was seen on the day it was published."""
    with app.db.transaction() as session:
        session.execute(update(m.Article).values(first_seen_at=m.Article.published_at))


def set_up(app: App) -> None:
    setup = app.setup()
    ny, berlin = "America/New_York", "Europe/Berlin"
    setup.add("world", DigestFields(name="World", categories=("world",), schedule="0 7 * * *", timezone=ny,
                                    maximum=8), START)  # fmt: skip
    setup.add("second", DigestFields(name="Second", categories=("world", "technology"), schedule="0 7 * * *",
                                     timezone=berlin, minimum=3, maximum=8), START)  # fmt: skip
    setup.add("weekly", DigestFields(name="Weekly", categories=("technology",), schedule="0 8 * * 1", timezone=ny,
                                     lookback="8d", repeat="others", maximum=20), START)  # fmt: skip
    with app.db.transaction() as session:
        for n in range(READERS):
            slugs = ["world", "second", "weekly"][: 1 + n % 3]
            audience.add(session, f"reader{n}@example.org", slugs, confirmed=True, now=START, source="test")


def live_a_day(month: Month, day: int) -> None:
    app, midnight = month.app, (START + day * DAY).replace(hour=0)
    if day == 10:
        return  # the machine was down
    if day == 12:
        arrive_late(month, midnight)
    if day == 15:
        jump(month, midnight)
    for hour in HOURS:
        if day == 8 and hour == 5:
            app.editor().tick(midnight + timedelta(hours=hour))
            cancel_the_newest(app)
        month.tick(midnight + timedelta(hours=hour))


def keep_back(month: Month) -> None:
    """An article of the site that is not there yet."""
    with month.app.db.transaction() as session:
        world = catalogue.where(session, rules.parse("category:world"))
        article = session.scalars(select(m.Article).where(world).order_by(m.Article.published_at)).first()
        assert article is not None
        article.status, month.late = "removed", article.id


def arrive_late(month: Month, at: datetime) -> None:
    """Dated five days ago, and only now on the site."""
    with month.app.db.transaction() as session:
        article = session.get_one(m.Article, month.late)
        article.status, article.published_at = "published", at - 5 * DAY
        article.first_seen_at = article.eligible_at = at


def jump(month: Month, at: datetime) -> None:
    """An article that went out already comes again with a new date: ingest meets it in the export."""
    with month.app.db.reading() as session:
        sent = next(c for e, _ in ledger.editions.editions(session, "world") if e.status == "finished"
                    for c in ledger.readings.carried(session, e.id) if c.readers)  # fmt: skip
        month.jumped = sent.article_id
        guid = session.scalars(select(m.ArticleAlias.value).filter_by(article_id=sent.article_id, kind="url")).first()
    source = Path(session_location(month.app))
    text = source.read_text()
    head, *items = text.split("<item>\n")
    stamp = f"{at:%Y-%m-%d %H:%M:%S}"
    changed = [item if f"<link>{guid}</link>" not in item else redated(item, stamp) for item in items]
    assert changed != items
    source.write_text("<item>\n".join([head, *changed]))
    ingest.refresh(month.app.db, month.app.fetcher, at=at, names=["site"])
    as_first_imported(month.app, at)


def redated(item: str, stamp: str) -> str:
    import re

    return re.sub(r"<(wp:post_date_gmt|wp:post_modified_gmt)>[^<]*<", rf"<\1>{stamp}<", item)


def session_location(app: App) -> str:
    with app.db.reading() as session:
        return catalogue.get_source(session, "site").location


def cancel_the_newest(app: App) -> None:
    newest = [r for r in engine.edition_rows(app) if r["status"] == "sending"]
    assert newest
    app.editor().cancel(newest[-1]["edition"])


@pytest.fixture(scope="module")
def months(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, postgresql_template: str, cluster: Cluster
) -> Iterator[dict[str, Month]]:
    """The live month on each database, and a captured one."""
    import shutil

    found: dict[str, Month] = {}
    names = []
    for kind in ("sqlite", "postgresql", "captured"):
        folder = tmp_path_factory.mktemp(kind)
        if kind == "postgresql":
            names.append(cluster.create(postgresql_template))
            url = cluster.url(names[0])
        else:
            shutil.copyfile(sqlite_template, folder / "digest.sqlite3")
            url = f"sqlite:///{folder}/digest.sqlite3"
        (folder / "digest.toml").touch()
        settings = Settings.load(folder / "digest.toml", {"DIGEST_DATA_DIR": str(folder)})
        database = Database(url)
        found[kind] = live_a_month(database, settings, folder, live=kind != "captured")
        database.close()
    yield found
    for month in found.values():
        month.app.close()
    for name in names:
        cluster.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def month(request: pytest.FixtureRequest, months: dict[str, Month]) -> Month:
    return months[request.param]


def test_both_databases_tell_the_same_month(months: dict[str, Month]) -> None:
    a, b = months["sqlite"], months["postgresql"]
    assert a.editions() == b.editions()
    assert a.deliveries() == b.deliveries()
    assert a.carried() == b.carried()


@pytest.mark.parametrize("path", ["/feeds/digest/world.atom", "/feeds/digest/weekly.rss", "/feeds/all.json"])
def test_feeds_of_the_month_are_the_same_bytes(months: dict[str, Month], path: str) -> None:
    bodies = []
    for kind in ("sqlite", "postgresql"):
        entry = months[kind].app.shelf.entry(path)
        assert entry is not None
        bodies.append(entry.plain.body)
    assert bodies[0] == bodies[1]
    assert b"2025" in bodies[0]


def test_every_run_once_and_every_skip_with_a_reason(month: Month) -> None:
    rows = month.editions()
    runs = Counter((r["digest"], r["scheduled_for"]) for r in rows)
    assert set(runs.values()) == {1}
    assert {d: sum(1 for r in rows if r["digest"] == d) for d in ("world", "second", "weekly")} == {
        "world": 31, "second": 30, "weekly": 4,
    }, "a clock first seen at 07:00 strikes the next day"  # fmt: skip
    for row in rows:
        assert row["status"] in ("finished", "skipped", "cancelled")
        assert bool(row["reason"]) == (row["status"] != "finished"), row
    missed = [r["scheduled_for"][:10] for r in rows if "stands for it" in (r["reason"] or "")]
    assert missed == [f"{START + 10 * DAY:%Y-%m-%d}"], "the day the machine was down; the other daily was only late"


def test_no_story_twice_to_a_reader(month: Month) -> None:
    from email import message_from_bytes, policy

    had: dict[str, Counter[str]] = {}
    for posted in month.outbox.posted:
        message = message_from_bytes(posted.message, policy=policy.default)
        if "weekly" in str(message["List-Id"]):
            continue  # it may repeat the others, and is looked at below
        text = message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
        urls = {w for line in text.splitlines() for w in line.split() if w.startswith("http")} & month_urls(month)
        had.setdefault(posted.rcpt.decode(), Counter()).update(urls)
    assert len(had) == READERS
    assert max(c.most_common(1)[0][1] for c in had.values()) == 1
    assert min(len(c) for c in had.values()) > 60


def test_the_weekly_never_repeats_itself(month: Month) -> None:
    seen = Counter(url for digest, _, urls in month.carried() if digest == "weekly" for url in urls)
    assert seen
    assert max(seen.values()) == 1


def month_urls(month: Month) -> set[str]:
    with month.app.db.reading() as session:
        return set(session.scalars(select(m.Article.url)))


def url_of(month: Month, article: int) -> str:
    with month.app.db.reading() as session:
        return session.get_one(m.Article, article).url


def test_the_late_one_is_picked_and_the_jumped_one_is_not_picked_again(month: Month) -> None:
    carried = [(digest, local, url) for digest, local, urls in month.carried() for url in urls]
    late = [(d, local) for d, local, url in carried if url == url_of(month, month.late) and d != "weekly"]
    arrived, gone = (START + n * DAY for n in (12, 19))
    assert late
    assert all(f"{arrived:%Y-%m-%d}" <= local < f"{gone:%Y-%m-%d}" for _, local in late)
    jumped = Counter(d for d, _, url in carried if url == url_of(month, month.jumped))
    assert jumped["world"] == 1


def test_nothing_is_older_than_the_look_back(month: Month) -> None:
    with month.app.db.reading() as session:
        for edition, _ in ledger.editions.editions(session):
            for row in ledger.editions.pool(session, edition.id):
                age = edition.at - datetime.fromisoformat(row.score["eligible_at"])
                assert timedelta(0) <= age <= timedelta(seconds=edition.recipe["lookback_s"])


def test_the_cancelled_edition_burned_nothing(month: Month) -> None:
    [cancelled] = [r for r in month.editions() if r["status"] == "cancelled"]
    assert cancelled["accepted"] == 0
    assert cancelled["cancelled"] == cancelled["recipients"] > 0
    with month.app.db.reading() as session:
        rows = ledger.editions.editions(session)
        index = next(i for i, (e, _) in enumerate(rows) if e.status == "cancelled")
        offered = {c.article_id for c in ledger.readings.carried(session, rows[index][0].id)}
        following = next(e for e, slug in rows[index + 1 :] if slug == rows[index][1])
        told = {r.article_id: r.reason for r in ledger.editions.pool(session, following.id) if r.article_id in offered}
        sent = {c.article_id for c in ledger.readings.carried(session, following.id) if c.readers}
    assert offered
    assert set(told) == offered, "all are candidates again"
    assert "already in an earlier edition" not in told.values()
    assert offered & sent


def test_a_captured_month_burns_nothing_for_the_first_live_edition(months: dict[str, Month]) -> None:
    captured = months["captured"]
    assert captured.editions() == months["sqlite"].editions()
    captured.app.settings = captured.app.settings.model_copy(update={"live": True})
    captured.outbox.posted.clear()
    captured.tick(END + timedelta(hours=19))
    newest = [r for r in captured.editions() if r["status"] == "finished"][-1]
    assert newest["accepted"] > 0
    with captured.app.db.reading() as session:
        edition = ledger.editions.editions(session)[-1][0]
        reasons = {r.reason for r in ledger.editions.pool(session, edition.id)}
    assert "already in an earlier edition" not in reasons


def test_the_sample_is_what_the_wheel_ships() -> None:
    assert gzip.decompress((shipped("config") / "sample" / "site.xml.gz").read_bytes()).count(b"<item>") >= 200
