"""Replies read, addresses judged, waits counted."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest.delivery.classify import hard, next_attempt, outcome, printable
from digest.types import Outcome, Result


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (250, "2.0.0 Ok: queued as 4F", Outcome(Result.ACCEPTED, 250, "2.0.0", "Ok: queued as 4F")),
        (250, "", Outcome(Result.ACCEPTED, 250)),
        (550, "5.1.1 <a@b>: unknown", Outcome(Result.REJECTED, 550, "5.1.1", "<a@b>: unknown")),
        (550, b"5.7.26 not\n5.7.26 authenticated", Outcome(Result.REJECTED, 550, "5.7.26", "not authenticated")),
        (550, "4.7.1 of another class", Outcome(Result.REJECTED, 550, None, "4.7.1 of another class")),
        (550, "5.1.10", Outcome(Result.REJECTED, 550, "5.1.10")),
        (550, "5.1.1000 no status", Outcome(Result.REJECTED, 550, None, "5.1.1000 no status")),
        (504, "5.5.2 <b>: need fully-qualified", Outcome(Result.REJECTED, 504, "5.5.2", "<b>: need fully-qualified")),
        (451, "4.7.1 Greylisted", Outcome(Result.DEFERRED, 451, "4.7.1", "Greylisted")),
        (421, "closing", Outcome(Result.DEFERRED, 421, None, "closing")),
    ],
)
def test_a_reply_is_read(code: int, text: str | bytes, expected: Outcome) -> None:
    assert outcome(code, text) == expected


@pytest.mark.parametrize("code", [500, 502, 503, 530, 534, 535, 538])
def test_trouble_with_the_session_ends_nobodys_edition(code: int) -> None:
    assert outcome(code, "5.7.0 Authentication required").result is Result.DEFERRED


@given(st.one_of(st.text(), st.binary()))
def test_any_text_becomes_one_printable_line(text: str | bytes) -> None:
    line = outcome(550, text).text
    assert line.isprintable()
    assert len(line) <= 500
    assert line == " ".join(line.split())
    assert len(printable(b"x" * 100_000)) < 5_000


@pytest.mark.parametrize(
    ("enhanced", "code"), [("5.1.1", 550), ("5.1.2", 550), ("5.1.10", 556), (None, 556), ("5.4.4", 550)]
)
def test_an_address_that_is_gone(enhanced: str | None, code: int) -> None:
    assert hard(enhanced, code)


@pytest.mark.parametrize(
    ("enhanced", "code"),
    [("5.2.2", 552), ("5.7.1", 550), ("5.7.26", 550), ("4.1.1", 450), (None, 550), (None, None), ("5.7.515", 550)],
)
def test_an_address_that_may_work_again(enhanced: str | None, code: int | None) -> None:
    assert not hard(enhanced, code)


def test_waits_double_up_to_the_longest_and_are_the_same_each_time_they_are_asked() -> None:
    waits = [next_attempt(n, seed=7).total_seconds() for n in range(1, 9)]
    for wait, plain in zip(waits, [300, 600, 1200, 2400, 4000, 4000, 4000, 4000], strict=True):
        assert plain * 0.9 <= wait <= plain * 1.1
    assert waits == [next_attempt(n, seed=7).total_seconds() for n in range(1, 9)]


def test_waits_of_different_batches_are_spread() -> None:
    waits = {next_attempt(1, seed=seed) for seed in range(100)}
    assert len(waits) > 90
    assert max(waits) - min(waits) > timedelta(seconds=30)


def test_a_wait_after_very_many_attempts_or_none() -> None:
    assert next_attempt(10_000) < timedelta(seconds=4_401)
    assert next_attempt(0) >= timedelta(seconds=270)
