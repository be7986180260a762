"""Schedules under several schedulers, clocks that jump, outages and daylight saving: each run makes one edition."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from digest import ledger
from digest import models as m
from digest.db import Database
from tests import build
from tests.office import Office, arrivals, newsroom

MORNING = build.T.replace(hour=7) + timedelta(days=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def scheduled(database: Database, cron: str, zone: str = "UTC", since: datetime = build.T) -> None:
    with database.transaction() as session:
        build.publication(session)
        digest = build.digest(session, cron=cron, zone=zone, created_at=since)
        build.subscription(session, digest)
        ledger.editions.add_clock(session, build.schedule_of(session, digest).id, zone)


def runs(database: Database) -> list[tuple[str, int, str]]:
    """(local time, fold, status) of every edition."""
    with database.reading() as session:
        rows = session.execute(
            select(m.Edition.local_time, m.Edition.fold, m.Edition.status).order_by(m.Edition.instant)
        )
        return [tuple(row) for row in rows]


# ----------------------------------------------------------------------------- several schedulers


def scheduler(url: str, times: int, meet: Any, seed: int) -> None:
    """One of several: looks whenever a run is due, at the very moment when the others do, by a clock of its own."""
    database, chance = Database(url), random.Random(seed)
    editor = Office(database).editor
    for n in range(1, times + 1):
        meet.wait()
        editor.open_due(build.T + timedelta(minutes=n, seconds=chance.uniform(0, 50)))
    database.close()


@pytest.mark.full
@pytest.mark.parametrize("schedulers", [2, 4])
def test_several_schedulers_make_one_edition_of_each_of_200_runs(
    database: Database, database_url: str, schedulers: int
) -> None:
    scheduled(database, "* * * * *")
    database.close()
    spawn = multiprocessing.get_context("spawn")
    meet = spawn.Barrier(schedulers)
    workers = [spawn.Process(target=scheduler, args=(database_url, 200, meet, n)) for n in range(schedulers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(600)
        assert worker.exitcode == 0
    made = runs(database)
    assert len(made) == len({local for local, _, _ in made}) == 200
    assert {status for _, _, status in made} == {"draft"}, "none was missed"


# ----------------------------------------------------------------------------- outages


@pytest.mark.parametrize("down", [HOUR, DAY, 40 * DAY], ids=["an hour", "a day", "forty days"])
def test_after_an_outage_one_late_edition_tells_what_is_recent_and_nothing_twice(
    sqlite: Database, down: timedelta
) -> None:
    addresses = newsroom(sqlite, readers=2, articles=2)
    office = Office(sqlite)
    office.tick(MORNING)
    assert arrivals(office, addresses) == [1, 1]
    back = MORNING + DAY + down  # nobody was there from that morning's edition on
    with sqlite.transaction() as session:
        for age in (HOUR, 5 * HOUR):
            build.article(session, categories=["Africa"], published_at=back - age, title=f"{age} old")
    office.tick(back)
    assert arrivals(office, addresses) == [2, 2], "one late edition stands for all"
    said = Counter(status for _, _, status in runs(sqlite))
    assert said["finished"] == 2
    assert sum(said.values()) == 2 + said["skipped"]
    late = office.outbox.posted[-1].message
    assert late.count(b"https://news.example/") >= 2
    office.tick(back + timedelta(minutes=1))
    assert arrivals(office, addresses) == [2, 2]
    office.tick(back + DAY + HOUR)  # the next morning there is nothing that they have not had
    assert arrivals(office, addresses) == [2, 2]


# ----------------------------------------------------------------------------- clocks that jump


@pytest.mark.parametrize("jump", [HOUR, -HOUR, DAY, -DAY], ids=["+1 h", "-1 h", "+1 d", "-1 d"])
def test_a_clock_that_jumps_and_comes_back_makes_no_run_twice(sqlite: Database, jump: timedelta) -> None:
    scheduled(sqlite, "0 * * * *")
    editor = Office(sqlite).editor
    for minute in range(0, 180, 10):
        at = build.T + timedelta(minutes=minute)
        editor.open_due(at)
        if minute in (60, 90):
            editor.open_due(at + jump)
    for minute in range(180, 2 * 1440, 30):  # and on for two days
        editor.open_due(build.T + timedelta(minutes=minute))
    made = Counter(local for local, _, _ in runs(sqlite))
    assert set(made.values()) == {1}
    hours = {f"{build.T + n * HOUR:%Y-%m-%dT%H:%M}" for n in range(1, 48)}
    assert hours <= made.keys(), "and none is missing"


# ----------------------------------------------------------------------------- daylight saving


def ticks(start: datetime, days: int) -> Iterator[datetime]:
    yield from (start + timedelta(minutes=30 * n) for n in range(days * 48))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("ahead", [True, False], ids=["forward", "back"])
def test_the_day_of_a_change_of_clocks_has_one_edition(sqlite: Database, zone: str, ahead: bool) -> None:
    change = changed(zone, ahead=ahead)
    scheduled(sqlite, "15 2 * * *", zone, since=change - 3 * DAY)
    editor = Office(sqlite).editor
    for at in ticks(change - 2 * DAY, 4):
        editor.open_due(at)
    made = runs(sqlite)
    days = Counter(local[:10] for local, _, _ in made)
    assert set(days.values()) == {1}, made
    assert len(days) >= 3
    assert f"{change.astimezone(ZoneInfo(zone)):%Y-%m-%d}" in days
    assert {fold for _, fold, _ in made} == {0}


def changed(zone: str, *, ahead: bool) -> datetime:
    """The instant in 2025 at which clocks go forward, or back."""
    at = datetime(2025, 1, 1, tzinfo=UTC)
    while True:
        offset, later = (when.astimezone(ZoneInfo(zone)).utcoffset() for when in (at, at + HOUR / 2))
        assert offset is not None
        assert later is not None
        if later != offset and (later > offset) == ahead:
            return at + HOUR / 2
        at += HOUR / 2
