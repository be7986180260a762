"""The suppression list: what it stops, how it is carried in and out, and what stays of an erased address."""

from __future__ import annotations

import csv
import io
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from digest import audience
from digest import models as m
from digest.audience import parse_address
from digest.db import Database
from digest.errors import UsageError
from digest.types import SuppressionReason
from tests import build
from tests.build import T

MANUAL = SuppressionReason.MANUAL


def listed(database: Database) -> list[tuple[Any, ...]]:
    with database.reading() as session:
        return [(r["email"], r["hash"] and "#", r["reason"], r["detail"]) for r in audience.listed(session)]


def bring(database: Database, text: str, reason: SuppressionReason = MANUAL) -> audience.SuppressionReport:
    return audience.import_suppressions(database, io.StringIO(text), reason=reason, now=T)


# ----------------------------------------------------------------------------- one by one


def test_the_first_reason_stands_until_it_is_taken_off(database: Database) -> None:
    with database.transaction() as session:
        assert audience.suppress(session, "a@example.org", "bounce", T, "5.1.1 unknown")
        assert not audience.suppress(session, "a@example.org", "complaint", T)
    assert listed(database) == [("a@example.org", None, "bounce", "5.1.1 unknown")]
    with database.transaction() as session:
        assert audience.lift(session, parse_address("A@Example.org")) == "bounce"
        with pytest.raises(UsageError, match="is not suppressed"):
            audience.lift(session, parse_address("a@example.org"))
    assert listed(database) == []


def test_all_of_a_reason_and_a_time_are_taken_off_together(database: Database) -> None:
    """A server that was wrong about everybody for an afternoon."""
    with database.transaction() as session:
        for hour, reason in ((0, "bounce"), (1, "bounce"), (1, "complaint"), (2, "bounce")):
            audience.suppress(session, f"{reason}{hour}@example.org", reason, T + timedelta(hours=hour))
        gone = audience.lift_all(session, SuppressionReason.BOUNCE, T, T + timedelta(hours=2))
    assert gone == 2
    assert [row[0] for row in listed(database)] == ["complaint1@example.org", "bounce2@example.org"]


def test_a_suppressed_address_is_answered_like_any_other_and_leaves_no_row(database: Database) -> None:
    with database.transaction() as session:
        build.digest(session, "daily")
        audience.suppress(session, "a@example.org", "complaint", T)
        asked = audience.subscribe(session, "daily", "a@example.org", now=T, source="form")
        assert not asked.mailed
        assert session.scalars(select(m.Subscriber)).all() == []
        with pytest.raises(UsageError, match=r"suppressed \(complaint\)"):
            audience.add(session, "a@example.org", ["daily"], confirmed=True, now=T)


# ----------------------------------------------------------------------------- erased


def test_an_erased_address_stays_suppressed_by_a_hash_that_names_nobody(database: Database) -> None:
    with database.transaction() as session:
        build.digest(session, "daily")
        build.subscriber(session, "amara@example.org")
        audience.suppress(session, "amara@example.org", "bounce", T, "550 <amara@example.org> unknown")
        audience.hash_away(session, "amara@example.org", T)
    assert listed(database) == [(None, "#", "bounce", None)]
    with database.transaction() as session:
        assert audience.suppression(session, "amara@example.org") == "bounce"
        assert audience.suppression(session, "bram@example.org") is None
        assert not audience.subscribe(session, "daily", "Amara@example.org", now=T, source="form").mailed
    report = audience.import_csv(
        database, io.StringIO("email\namara@example.org\nbram@example.org\n"), digest="daily", confirmed=True, now=T
    )
    assert (report.suppressed_kept, report.new) == (1, 1)
    with database.transaction() as session:
        assert audience.lift(session, parse_address("amara@example.org")) == "bounce"
        assert audience.suppression(session, "amara@example.org") is None


def test_one_who_was_erased_comes_back_alone_and_only_by_themselves(database: Database) -> None:
    with database.transaction() as session:
        build.digest(session, "daily")
        audience.hash_away(session, "amara@example.org", T)
    assert listed(database) == [(None, "#", "erased", None)]
    rows = "email\namara@example.org\n"
    report = audience.import_csv(database, io.StringIO(rows), digest="daily", confirmed=True, now=T)
    assert report.suppressed_kept == 1
    with database.transaction() as session:
        asked = audience.subscribe(session, "daily", "amara@example.org", now=T, source="form")
        assert asked.mailed
        audience.confirm(session, asked.subscription_ids[0], now=T)
    assert listed(database) == []


# ----------------------------------------------------------------------------- in and out


def test_what_goes_out_comes_in_again(database: Database) -> None:
    with database.transaction() as session:
        audience.suppress(session, "a@example.org", "bounce", T, "5.1.1, unknown")
        audience.suppress(session, "+b@example.org", "complaint", T, "=1+1")
        audience.hash_away(session, "erased@example.org", T)
    before, out = listed(database), io.StringIO()
    with database.reading() as session:
        assert audience.write_suppressions(audience.listed(session), out) == 3
    cells = list(csv.reader(io.StringIO(out.getvalue())))
    assert cells[0] == ["email", "hash", "reason", "detail", "at"]
    assert not any(cell.startswith(("=", "+")) for row in cells for cell in row), "no spreadsheet runs it"
    assert bring(database, out.getvalue()).unchanged == 3
    with database.transaction() as session:
        session.execute(m.Suppression.__table__.delete())
    assert bring(database, out.getvalue()).new == 3
    assert {row[:3] for row in listed(database)} == {row[:3] for row in before}


def test_lists_of_other_systems(database: Database) -> None:
    text = (
        "Email Address;Status;Comment\nAmara@Example.org;hard_bounce;mailbox gone\nbram@example.org;spam;\n"
        "chi@example.org;unsubscribed in 2019;\nnobody;spam;\namara@example.org;spam;twice\n"
    )
    report = bring(database, text)
    assert (report.rows, report.new, report.unchanged, report.invalid) == (5, 3, 1, 1)
    assert {row[0]: row[2] for row in listed(database)} == {
        "amara@example.org": "complaint", "bram@example.org": "complaint", "chi@example.org": "manual",
    }  # fmt: skip
    plain = bring(database, "dayo@example.org\neze@example.org\n", SuppressionReason.BOUNCE)
    assert plain.new == 2
    with pytest.raises(UsageError, match="holds no address"):
        bring(database, "name,age\nAda,3\n")


def test_a_hash_from_outside_meets_readers_who_are_here(database: Database) -> None:
    with database.transaction() as session:
        build.digest(session, "daily")
        audience.suppress(session, "amara@example.org", "complaint", T)
        audience.hash_away(session, "amara@example.org", T)
        (row,) = list(audience.listed(session))
        audience.lift(session, parse_address("amara@example.org"))
        build.subscriber(session, "amara@example.org")
    report = bring(database, f"email,hash,reason\n,{row['hash']},complaint\n,{'0' * 64},bounce\n,short,bounce\n")
    assert (report.new, report.invalid) == (2, 1)
    with database.reading() as session:
        found = session.scalars(select(m.Suppression.reason).filter_by(address_key="amara@example.org")).one()
    assert found == "complaint", "what senders look up"


def test_memory_does_not_grow_with_the_file(sqlite: Database) -> None:
    class Lines(io.StringIO):
        """As many addresses as asked for, made as they are read."""

        def __init__(self, count: int) -> None:
            super().__init__()
            self.rows: Iterator[str] = (f"reader{n}@example.org\n" for n in range(count))

        def __next__(self) -> str:
            return next(self.rows)

    def peak(count: int) -> int:
        tracemalloc.start()
        audience.import_suppressions(sqlite, Lines(count), reason=MANUAL, now=T)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(12_000) < 1.5 * peak(4_000)
