"""Cron + zone → runs: weekdays as cron counts them, gaps, overlaps, missed runs."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from hypothesis import given
from hypothesis import strategies as st

from digest import schedules
from digest.errors import UsageError


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(cron: str, zone: str, after: str, count: int = 3) -> list[str]:
    return [r.local_key for r in schedules.next_runs(cron, zone, at(after), count)]


def test_weekday_1_is_monday() -> None:
    assert local("0 7 * * 1", "UTC", "2026-11-24T00:00", 2) == ["2026-11-30T07:00", "2026-12-07T07:00"]


def test_nth_weekday_and_month_end() -> None:
    assert local("0 7 * * 1#1", "America/New_York", "2026-01-01T00:00") == [
        "2026-01-05T07:00", "2026-02-02T07:00", "2026-03-02T07:00",
    ]  # fmt: skip
    assert local("0 7 L * *", "UTC", "2026-01-01T00:00") == [
        "2026-01-31T07:00", "2026-02-28T07:00", "2026-03-31T07:00",
    ]  # fmt: skip


def test_a_time_in_a_gap_runs_once_right_after_it() -> None:
    runs = schedules.next_runs("30 2 * * *", "Europe/Berlin", at("2026-03-28T12:00"), 2)
    assert [(r.local_key, r.instant) for r in runs] == [
        ("2026-03-29T03:00", at("2026-03-29T01:00")),
        ("2026-03-30T02:30", at("2026-03-30T00:30")),
    ]


def test_a_time_in_an_overlap_runs_once_at_the_first_of_the_two() -> None:
    runs = schedules.next_runs("30 2 * * *", "Europe/Berlin", at("2026-10-24T12:00"), 2)
    assert [(r.local_key, r.fold) for r in runs] == [("2026-10-25T02:30", 0), ("2026-10-26T02:30", 0)]


def test_a_starred_minute_runs_through_the_overlap() -> None:
    runs = schedules.next_runs("*/30 * * * *", "Europe/Berlin", at("2026-10-25T00:00"), 3)
    assert [(r.local_key, r.fold) for r in runs] == [
        ("2026-10-25T02:30", 0), ("2026-10-25T02:00", 1), ("2026-10-25T02:30", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 7 * *", "4 fields, not five"),
        ("61 * * * *", "cannot be read"),
        ("0 0 31 2 *", "cannot be read"),
        ("0 7 * * MOM", "cannot be read"),
        ("", "0 fields"),
    ],
)
def test_a_bad_cron_text_is_one_sentence(cron: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as e:
        schedules.check_cron(cron)
    assert "\n" not in str(e.value)


def test_an_unknown_zone_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean Europe/Berlin"):
        schedules.zone("Europe/Berlinn")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../UTC", "Nowhere/At/All"])
def test_a_hostile_zone_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        schedules.zone(name)


def due(first: str, now: str, policy: str = "late", hours: int = 24, cron: str = "0 7 * * *") -> schedules.Due:
    return schedules.decide_due(cron, "UTC", at(first), at(now), policy=policy, max_age=timedelta(hours=hours))


def test_a_run_on_time_opens() -> None:
    d = due("2026-01-05T07:00", "2026-01-05T07:00")
    assert [(r.run.local_key, r.skip) for r in d.runs] == [("2026-01-05T07:00", None)]
    assert d.next_run_at == at("2026-01-06T07:00")


def test_before_its_time_nothing_is_due() -> None:
    d = due("2026-01-05T07:00", "2026-01-05T06:59")
    assert d.runs == ()
    assert d.next_run_at == at("2026-01-05T07:00")


def test_down_over_three_runs_one_late_edition_stands_for_all() -> None:
    d = due("2026-01-05T07:00", "2026-01-07T09:00")
    assert [r.skip is None for r in d.runs] == [False, False, True]
    assert "2026-01-07T07:00 stands for it" in (d.runs[0].skip or "")
    assert d.runs[2].reach == timedelta(0)


def test_merge_reaches_back_to_the_oldest_missed_run() -> None:
    d = due("2026-01-05T07:00", "2026-01-07T09:00", "merge")
    assert d.runs[2].skip is None
    assert d.runs[2].reach == timedelta(days=2)


def test_older_than_the_age_is_skipped() -> None:
    d = due("2026-01-05T07:00", "2026-01-12T06:00", cron="0 7 * * 1")
    assert [r.skip for r in d.runs] == ["missed by more than 24 h"]


def test_skip_policy_skips_what_is_late() -> None:
    assert due("2026-01-05T07:00", "2026-01-05T07:05", "skip").runs[0].skip is None
    assert "skips late runs" in (due("2026-01-05T07:00", "2026-01-05T08:00", "skip").runs[0].skip or "")


def test_weeks_of_missed_minutes_leave_few_rows_that_tell_of_the_rest() -> None:
    d = due("2026-01-01T00:00", "2026-01-08T00:00", cron="* * * * *")
    assert len(d.runs) == schedules.MISSED_ROWS + 1
    assert f"and {7 * 24 * 60 + 1 - len(d.runs)} runs before it" in (d.runs[0].skip or "")
    assert d.runs[-1].skip is None


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]


@given(
    st.sampled_from(["0 7 * * *", "30 2 * * *", "0 0 * * 1", "15 */6 * * *", "59 23 L * *"]),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)),
)
def test_runs_are_strictly_later_and_one_by_one(cron: str, zone: str, when: datetime) -> None:
    after = when.replace(tzinfo=UTC)
    runs = schedules.next_runs(cron, zone, after, 5)
    assert all(a.instant < b.instant for a, b in pairwise(runs))
    assert runs[0].instant > after
    stepped, now = [], after
    for _ in range(5):
        run = schedules.next_run(cron, zone, now)
        assert run is not None
        stepped.append(run)
        now = run.instant
    assert stepped == runs


def test_the_trigger_fires_on_cron_monday_and_survives_pickling() -> None:
    import pickle

    trigger = pickle.loads(pickle.dumps(schedules.CronSimTrigger("0 7 * * 1", "Europe/Berlin")))
    scheduler = BackgroundScheduler(timezone=UTC)
    job = scheduler.add_job(lambda: None, trigger)
    scheduler.start(paused=True)
    try:
        assert job.next_run_time.strftime("%A %H:%M") == "Monday 07:00"
    finally:
        scheduler.shutdown()
    with pytest.raises(UsageError):
        schedules.CronSimTrigger("0 7 * * MOM", "UTC")
