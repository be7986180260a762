"""Cron text + zone → runs. One function serves the worker, the preview of next runs, the commands and the API.

Cron is read by cronsim, because APScheduler's own counts Monday as 0, joins day and weekday by AND and gets daylight
saving wrong. A fixed time in a gap runs once, right after it; in an overlap once, at the first of the two (fold 0),
unless minute or hour starts with ``*``. Pure: the clock is an argument. Says when, never what to do then; what a
missed run becomes is decided by `decide_due`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim, CronSimError

from digest.errors import UsageError
from digest.types import Run

#: A worker knocks once a minute; a run seen within this much of its instant is not late.
ON_TIME = timedelta(minutes=10)
#: More missed runs than this leave one row for all the older ones.
MISSED_ROWS = 50
MISSED_POLICIES = ("late", "merge", "skip")


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The zone of that IANA name; UsageError names the nearest."""
    try:
        if not name or name.startswith(("/", ".")):
            raise ZoneInfoNotFoundError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        from difflib import get_close_matches

        near = get_close_matches(name, sorted(available_timezones()), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else "; use an IANA name such as Europe/Berlin"
        raise UsageError(f"there is no time zone {name!r}{hint}") from None


def check_cron(cron: str) -> None:
    """Raise UsageError, in one sentence, unless *cron* is five fields that some day come true."""
    if len(cron.split()) != 5:
        raise UsageError(
            f"the schedule {cron!r} has {len(cron.split())} fields, not five: minute hour day month weekday, "
            "such as '0 7 * * 1' for Mondays 07:00"
        )
    try:
        next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as e:
        raise UsageError(f"the schedule {cron!r} cannot be read: {e}; write minute hour day month weekday") from None
    except StopIteration:
        raise UsageError(f"the schedule {cron!r} never comes true") from None


def runs_after(cron: str, zone_name: str, after: datetime) -> Iterator[Run]:
    """Runs strictly after the instant *after*, oldest first, without end."""
    tz = zone(zone_name)
    for local in CronSim(cron, after.astimezone(tz)):
        yield Run(local.replace(tzinfo=None, fold=0), local.fold, local.astimezone(UTC), zone_name)


def next_run(cron: str, zone_name: str, after: datetime) -> Run | None:
    """The first run strictly after *after*; None when there is none within cronsim's horizon (50 years)."""
    return next(runs_after(cron, zone_name, after), None)


def next_runs(cron: str, zone_name: str, after: datetime, count: int) -> list[Run]:
    return list(islice(runs_after(cron, zone_name, after), count))


@dataclass(frozen=True, slots=True)
class DueRun:
    """What becomes of a run that is due. ``skip`` None: an edition opens; else the reason why not.

    ``reach``: how much farther back than its look-back a merged edition takes articles.
    """

    run: Run
    skip: str | None = None
    reach: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Due:
    runs: tuple[DueRun, ...]
    next_run_at: datetime | None


def decide_due(
    cron: str, zone_name: str, next_run_at: datetime, at: datetime, *, policy: str, max_age: timedelta
) -> Due:
    """Runs from *next_run_at* to *at*, what becomes of each, and when the clock strikes next. Pure.

    ``late`` (default): the newest missed run within *max_age* opens late, those before it are skipped; ``merge``: the
    same, and its look-back reaches to the oldest missed one; ``skip``: a missed run is skipped.
    """
    missed: list[Run] = []
    dropped = 0
    coming: datetime | None = None
    for run in runs_after(cron, zone_name, next_run_at - timedelta(seconds=1)):
        if run.instant > at:
            coming = run.instant
            break
        missed.append(run)
        if len(missed) > MISSED_ROWS + 1:
            missed.pop(0)
            dropped += 1
    return Due(tuple(_become(missed, at, policy, max_age, dropped)), coming)


def _become(missed: Sequence[Run], at: datetime, policy: str, max_age: timedelta, dropped: int) -> Iterator[DueRun]:
    for i, run in enumerate(missed):
        age = at - run.instant
        before = f", and {dropped} runs before it" if dropped and i == 0 else ""
        if i < len(missed) - 1:
            yield DueRun(run, f"missed; {missed[-1].local_key} stands for it{before}")
        elif age > max_age:
            yield DueRun(run, f"missed by more than {_hours(max_age)}{before}")
        elif policy == "skip" and age > ON_TIME:
            yield DueRun(run, f"missed by {_hours(age)}; this schedule skips late runs{before}")
        else:
            yield DueRun(run, None, run.instant - missed[0].instant if policy == "merge" else timedelta(0))


def _hours(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    return f"{minutes // 60} h" if minutes >= 60 else f"{minutes} min"


class CronSimTrigger(BaseTrigger):  # type: ignore[misc]
    """An APScheduler trigger that fires when `runs_after` says so; a bad text fails here, not at the first fire."""

    __slots__ = ("cron", "zone_name")

    def __init__(self, cron: str, zone_name: str) -> None:
        check_cron(cron)
        zone(zone_name)
        self.cron, self.zone_name = cron, zone_name

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        after = max(previous_fire_time, now) if previous_fire_time else now
        run = next_run(self.cron, self.zone_name, after)
        return run.instant.astimezone(zone(self.zone_name)) if run else None

    def __getstate__(self) -> dict[str, Any]:
        return {"cron": self.cron, "zone_name": self.zone_name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.cron, self.zone_name = state["cron"], state["zone_name"]

    def __str__(self) -> str:
        return f"cron[{self.cron!r} {self.zone_name}]"

    __repr__ = __str__
