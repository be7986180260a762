"""Workers killed -9 while an edition goes out: nothing lost, nothing twice that is not told, and a checker that bites.

The harness is tests/kills; docs/reliability.md tells what it found. What runs here by default is its short form.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kills.checker import Case, Try, Verdict, check
from tests.kills.judge import Entry
from tests.kills.sabotage import BUGS, MAY_REPEAT, POINTS
from tests.postgres import Cluster

ROOT = Path(__file__).parents[1]
NONE = dict.fromkeys(("busy", "later", "gone", "cut_body", "cut_dot", "lost", "slow"), 0)
#: What the checker must find in each seeded bug.
FOUND = {
    "checkpoint_at_fetch": "lost", "error_is_success": "lost", "random_message_id": "strangers",
    "no_lease": "unexplained", "window_not_kept": "more uncertain than the window",
}  # fmt: skip

Plans = list[dict[str, Any]]


def carried_out(plans: Plans, seconds: float = 3_000) -> list[Verdict]:
    """One process for all of them: what takes longest is its start."""
    lines = "".join(json.dumps(plan) + "\n" for plan in plans)
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills.loop", "--plans"], cwd=ROOT, input=lines, capture_output=True, text=True,
        timeout=seconds, check=False,
    )  # fmt: skip
    verdicts = [Verdict(**json.loads(line)) for line in done.stdout.splitlines()]
    assert len(verdicts) == len(plans), done.stderr
    return verdicts


@pytest.fixture
def fresh(tmp_path: Path, sqlite_template: Path) -> Callable[[], str]:
    """The URL of one more SQLite database."""
    count = iter(range(1_000))

    def one() -> str:
        path = tmp_path / f"{next(count)}.sqlite3"
        path.write_bytes(sqlite_template.read_bytes())
        return f"sqlite:///{path}"

    return one


@pytest.fixture
def fresh_postgresql(cluster: Cluster, postgresql_template: str) -> Iterator[Callable[[], str]]:
    made: list[str] = []

    def one() -> str:
        made.append(cluster.create(postgresql_template))
        return cluster.url(made[-1])

    yield one
    for name in made:
        cluster.drop(name)


# ----------------------------------------------------------------------------- the short form

SHORT = {"mails": 160, "workers": 3, "batch": 40, "leavers": 6, "seed": 3}
BUGGY = {"mails": 200, "workers": 2, "batch": 100, "kills": 3, "seed": 3}
SOME = ("mid_data", "after_dot", "after_commit", "while_released")


@pytest.mark.slow
def test_the_short_form(fresh: Callable[[], str], fresh_postgresql: Callable[[], str]) -> None:
    """Both databases; every seeded bug is found; named points are survived, and only some of them repeat a mail."""
    loops = [{**SHORT, "kills": 5, "url": url} for url in (fresh(), fresh_postgresql())]
    bugs = [{**BUGGY, "bug": bug, "url": fresh()} for bug in BUGS]
    points = [point_by_point(fresh(), point, 1, mails=12) for point in SOME]
    verdicts = carried_out([*loops, *bugs, *points], 600)
    for verdict in verdicts[:2]:
        assert verdict.broken == [], verdict
        assert verdict.kills == 5, verdict
    for bug, verdict in zip(BUGS, verdicts[2:], strict=False):
        assert any(what.startswith(FOUND[bug]) for what in verdict.broken), (bug, verdict)
    for point, verdict in zip(SOME, verdicts[-len(SOME) :], strict=True):
        check_point(point, verdict, 1)


def point_by_point(url: str, point: str, kills: int, **changes: Any) -> dict[str, Any]:
    """One worker, one connection, one mail at a time: what a death costs is what that very mail costs."""
    one = {"workers": 1, "connections": 1, "window": 1, "batch": 20, "faults": NONE, "think_s": 0}
    return {**one, "url": url, "point": point, "kills": kills, "mails": 60, **changes}


def check_point(point: str, verdict: Verdict, kills: int) -> None:
    assert verdict.broken == [], (point, verdict)
    assert verdict.kills == kills, (point, verdict)
    assert verdict.repeated == (kills if point in MAY_REPEAT else 0), (point, verdict)
    granted = ("after_mail", "after_rcpt", "mid_data", *MAY_REPEAT)  # the rest dies with nothing out
    if point == "after_commit":  # unless the batch was done, that very commit granted the next
        assert verdict.uncertain <= kills, (point, verdict)
    else:
        assert verdict.uncertain == (kills if point in granted else 0), (point, verdict)


# ----------------------------------------------------------------------------- the long form


@pytest.mark.full
@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_a_hundred_kills_over_ten_thousand_mails(database_url: str) -> None:
    [verdict] = carried_out([{"url": database_url, "mails": 10_000, "kills": 100, "leavers": 120}])
    print(verdict)
    assert verdict.broken == [], verdict
    assert verdict.kills == 100
    assert verdict.on_wire >= 80


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_a_thousand_kills_over_a_hundred_thousand_mails(database_url: str, seed: int) -> None:
    [verdict] = carried_out([{"url": database_url, "mails": 100_000, "kills": 1_000, "leavers": 600, "seed": seed}])
    print(verdict)
    assert verdict.broken == [], verdict
    assert verdict.kills == 1_000
    assert verdict.on_wire >= 800


@pytest.mark.full
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_twenty_deaths_at_each_named_point(
    kind: str, fresh: Callable[[], str], fresh_postgresql: Callable[[], str]
) -> None:
    new = fresh if kind == "sqlite" else fresh_postgresql
    verdicts = carried_out([point_by_point(new(), point, 20, mails=300) for point in POINTS])
    for point, verdict in zip(POINTS, verdicts, strict=True):
        print(point, verdict)
        check_point(point, verdict, 20)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_twenty_deaths_with_a_full_window_repeat_no_more_than_it(
    kind: str, fresh: Callable[[], str], fresh_postgresql: Callable[[], str]
) -> None:
    new = fresh if kind == "sqlite" else fresh_postgresql
    plans = [{"workers": 1, "mails": 2_000, "point": p, "kills": 20, "faults": NONE, "url": new()} for p in MAY_REPEAT]
    for point, verdict in zip(MAY_REPEAT, carried_out(plans), strict=True):
        print(point, verdict)
        assert verdict.broken == [], (point, verdict)
        assert verdict.kills == 20
        assert 20 <= verdict.repeated <= 20 * 50
        assert verdict.most_at_risk <= 50


# ----------------------------------------------------------------------------- the database, and standing still


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "trouble", "times", "think_s"),
    [
        ("postgresql", "restart", 20, 0.002),
        ("postgresql", "terminate", 100, 0.002),
        ("postgresql", "lost_commits", 100, 0.002),
        ("postgresql", "cut_off", 4, 0.05),
        ("postgresql", "freeze", 5, 0.05),
        ("sqlite", "freeze", 5, 0.1),
    ],
)
def test_a_database_that_goes_away_and_a_worker_that_stands_still(
    kind: str, trouble: str, times: int, think_s: float
) -> None:
    """10,000 mails by eight workers. ``think_s``: slow enough that what stands still is missed."""
    words = {"kind": kind, "trouble": trouble, "troubles": times, "mails": 10_000, "kills": 0, "lease-s": 2,
             "batch": 200, "think-s": think_s}  # fmt: skip
    given = [f"--{name}={value}" for name, value in words.items()]
    command = [sys.executable, "-m", "tests.kills.loop", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1_800, check=False)
    assert done.returncode == 0, done.stderr
    verdict = Verdict(**json.loads(done.stdout))
    print(trouble, times, verdict)
    assert verdict.broken == [], verdict
    assert verdict.troubles == times, verdict


# ----------------------------------------------------------------------------- the checker itself

KILLED = "life-1.example.org"
GOOD = Case(
    owed={"a", "b", "c"},
    tries=[
        Try("a", 1, "accepted", "life-2.example.org"),
        Try("b", 1, "uncertain", KILLED, died=True),
        Try("b", 2, "accepted", "life-2.example.org"),
        Try("c", 1, "rejected", "life-2.example.org"),
    ],
    entries=[
        Entry("took", "life-2.example.org", "a", "<a>"),
        Entry("took", KILLED, "b", "<b>"),
        Entry("took", "life-2.example.org", "b", "<b>"),
        Entry("refused", "life-2.example.org", "c", code=550),
    ],
    killed={KILLED},
)


def test_the_checker_is_content_with_what_is_explained() -> None:
    verdict = check(GOOD)
    assert verdict.broken == []
    assert (verdict.repeated, verdict.most_at_risk, verdict.uncertain) == (1, 1, 1)
    assert verdict.outcomes == {"accepted": 2, "rejected": 1}


def entries(*more: Entry, without: int | None = None) -> list[Entry]:
    return [*(e for n, e in enumerate(GOOD.entries) if n != without), *more]


@pytest.mark.parametrize(
    ("case", "found"),
    [
        (replace(GOOD, tries=[t for t in GOOD.tries if t.rcpt != "a"]), "lost: 1"),
        (replace(GOOD, entries=entries(without=0)), "lost: 1"),
        (replace(GOOD, tries=[*GOOD.tries, Try("a", 2, "expired", None)]), "lost: 1"),
        (replace(GOOD, entries=entries(without=3)), "rejected, as our books say, and the judge does not: c"),
        (replace(GOOD, entries=entries(Entry("took", KILLED, "a", "<a>"))), "unexplained: 1"),
        (replace(GOOD, entries=entries(Entry("took", KILLED, "x", "<x>"))), "strangers: 1"),
        (replace(GOOD, entries=entries(Entry("lost", KILLED, "b", "<other>"))), "strangers: 1"),
        (replace(GOOD, entries=[replace(e, message_id="<same>") for e in GOOD.entries]), "strangers: 1"),
        (replace(GOOD, left={"a"}), "mailed after leaving: 1"),
        (replace(GOOD, killed=()), "repeated more than allowed: 1"),
        (replace(GOOD, window=0), "more at risk than the window: 1"),
        (replace(GOOD, window=0), "more uncertain than the window: 1"),
        (replace(GOOD, finished=False), "the edition did not finish"),
        (replace(GOOD, fallen=1), "workers that fell by themselves: 1"),
    ],
)  # fmt: skip
def test_the_checker_names_each_broken_promise(case: Case, found: str) -> None:
    assert found in check(case).broken
