"""What operators do about deliveries: retry what failed, settle what may have arrived; and what is kept how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update

from digest import ledger
from digest import models as m
from digest.db import Database
from digest.delivery.memory import Outbox
from digest.editions import pausing, settling
from digest.errors import UsageError
from digest.ledger.again import Again
from digest.ledger.retention import forget_later, forget_month, make_months, month_of
from digest.types import Outcome, Result
from tests import build
from tests.office import Office, arrivals, commands
from tests.test_sending import AT, claim, end_leases, released

GONE = Outcome(Result.REJECTED, 550, "5.1.1", "no such mailbox")


def due_now(database: Database) -> None:
    with database.transaction() as session:
        session.execute(update(m.Batch).values(not_before=build.T))


def story(database: Database, edition: int, address: str) -> list[str]:
    with database.reading() as session:
        reader = session.scalar(select(m.Subscriber.id).filter_by(address=address))
        assert reader
        found = ledger.readings.delivery(session, session.get_one(m.Edition, edition), reader)
    assert found
    return [a.outcome for a in found[1]]


# ----------------------------------------------------------------------------- retry


def test_a_retry_sends_to_those_who_failed_and_to_nobody_else(database: Database) -> None:
    office, addresses, edition = released(database, readers=5)
    office.outbox.answers = {a: Outcome(Result.REJECTED, 554, "5.7.1", "not from you") for a in addresses[:2]}
    office.send()
    assert office.counts(edition) == {"accepted": 3, "rejected": 2}
    office.outbox = Outbox(answers={addresses[1]: Outcome(Result.REJECTED, 554, "5.7.1", "not from you")})
    assert settling.retry(database, edition) == Again(2, 0)
    assert office.counts(edition) == {"accepted": 3}, "those two wait"
    assert office.editions()[0].status == "sending"
    office.send()
    assert arrivals(office, addresses) == [1, 0, 0, 0, 0]
    assert office.counts(edition) == {"accepted": 4, "rejected": 1}
    assert office.editions()[0].status == "finished"
    assert story(database, edition, addresses[0]) == ["rejected", "accepted"]
    assert settling.retry(database, edition) == Again(1, 0), "and once more"
    office.outbox = Outbox()
    office.send()
    assert office.counts(edition) == {"accepted": 5}
    assert story(database, edition, addresses[1]) == ["rejected", "rejected", "accepted"]
    with pytest.raises(UsageError, match="nothing to retry"):
        settling.retry(database, edition)


def test_a_retry_passes_over_whom_a_later_edition_has_reached(database: Database) -> None:
    office, addresses, edition = released(database, readers=3)
    office.outbox.answers = dict.fromkeys(addresses[:2], GONE)
    office.send()
    with database.transaction() as session:  # one of the two is away when the next edition gives the stories again
        reader = session.scalar(select(m.Subscriber.id).filter_by(address=addresses[1]))
        session.execute(update(m.Subscription).where(m.Subscription.subscriber_id == reader).values(status="paused"))
        session.execute(text("DELETE FROM suppressions"))
    office.outbox = Outbox()
    second = office.editor.open_manual("morning", AT)
    office.editor.compose(second)
    office.editor.release(second)
    with database.transaction() as session:
        session.execute(update(m.Subscription).values(status="active"))
    assert settling.retry(database, edition) == Again(1, 1)
    office.send()
    assert arrivals(office, addresses) == [1, 1, 0], "each has the stories once: by the second edition, by the retry"
    assert office.counts(edition) == {"accepted": 2, "rejected": 1}


def test_what_is_retried_is_not_given_back_meanwhile(database: Database) -> None:
    office, addresses, edition = released(database, readers=1)
    office.outbox.answers = {addresses[0]: Outcome(Result.REJECTED, 554)}
    office.send()
    settling.retry(database, edition)
    second = office.editor.open_manual("morning", AT)
    office.editor.compose(second)
    office.editor.release(second)
    office.outbox = Outbox()
    office.send()
    assert arrivals(office, addresses) == [1]
    assert [e.status for e in office.editions()].count("skipped") == 1, "there was nothing new"


def test_a_cancelled_edition_is_not_retried(database: Database) -> None:
    office, _, edition = released(database)
    office.editor.cancel(edition)
    with pytest.raises(UsageError, match="is cancelled"):
        settling.retry(database, edition)
    with pytest.raises(UsageError, match="no edition 99"):
        settling.retry(database, 99)


# ----------------------------------------------------------------------------- what may have arrived


def held(database: Database) -> tuple[Office, list[str], int, list[int]]:
    """Six readers had it, four may have: their worker died, and the digest holds those for a person."""
    office, addresses, edition = released(database, readers=10, uncertain="hold")
    maybe = [r.subscriber_id for r in claim(office, granted=4).recipients[:4]]
    end_leases(database)
    office.send()
    assert office.counts(edition) == {"accepted": 6, "uncertain": 4}
    return office, addresses, edition, maybe


def test_a_person_settles_what_may_have_arrived(database: Database) -> None:
    office, _, edition, maybe = held(database)
    assert settling.settle(database, edition, "arrived", maybe[:1]) == 1
    assert settling.settle(database, edition, "lost", maybe[1:2]) == 1
    assert office.counts(edition) == {"accepted": 7, "cancelled": 1, "uncertain": 2}
    with pytest.raises(UsageError, match="1 of those readers have nothing to settle"):
        settling.settle(database, edition, "lost", maybe[:1])
    assert settling.settle(database, edition, "resend") == 2
    assert settling.settle(database, edition, "arrived") == 0, "what goes out again is nobody's to settle"
    office.send()
    assert sum(office.inboxes().values()) == 8
    assert office.counts(edition) == {"accepted": 9, "cancelled": 1}
    assert office.editions()[0].status == "finished"
    ids = {p.message.split(b"Message-ID: ")[1].split(b"\r\n")[0] for p in office.outbox.posted}
    assert len(ids) == 8


def test_what_is_said_to_be_lost_gives_its_stories_back(database: Database) -> None:
    office, _, edition, maybe = held(database)
    settling.settle(database, edition, "lost", maybe[:1])
    second = office.editor.open_manual("morning", AT)
    office.editor.compose(second)
    office.editor.release(second)
    assert [e.recipients for e in office.editions() if e.id == second] == [1]


def test_the_commands(database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, addresses, edition, _ = held(database)
    said = commands(database_url, tmp_path, monkeypatch)
    maybe = said("deliveries", "list", "--edition", str(edition), "--outcome", "uncertain")
    one = maybe[0]["email"]
    assert said("deliveries", "settle", one, "--edition", str(edition), "--as", "arrived") == [
        {"edition": edition, "settled": 1, "as": "arrived"}
    ]
    assert said("deliveries", "show", one, "--edition", str(edition))[0]["attempts"][1]["text"] == (
        "settled by hand: arrived"
    )
    assert said("deliveries", "settle", "--all", "--edition", str(edition), "--as", "lost")[0]["settled"] == 3
    with database.transaction() as session:
        session.execute(update(m.Attempt).where(m.Attempt.address == addresses[9]).values(outcome="rejected"))
    [row] = said("editions", "retry", str(edition))
    assert (row["edition"], row["status"], row["retried"], row["passed_over"]) == (edition, "sending", 1, 0)


# ----------------------------------------------------------------------------- while it runs


def test_an_unsubscribe_is_obeyed_by_the_next_group(database: Database) -> None:
    office, _, _ = released(database, readers=10)
    store = office.store()
    got = store.claim()
    assert got
    batch = got[0]
    assert store.group([ledger.batches.Move(batch, 4, False)], [], batch.recipients[:4]) == {}
    with database.transaction() as session:
        leaver = batch.recipients[5]
        session.execute(
            update(m.Subscription).where(m.Subscription.id == leaver.subscription_id).values(status="unsubscribed")
        )
    refused = store.group([ledger.batches.Move(batch, 8, False)], [], batch.recipients[4:8])
    assert {r: o.result for r, o in refused.items()} == {leaver: Result.SUPPRESSED}


def test_an_edition_that_the_relay_refuses_is_paused_and_says_why(database: Database) -> None:
    office, addresses, edition = released(database, readers=400)
    office.outbox.answers = {a: Outcome(Result.REJECTED, 550, "5.7.26", "who are you?") for a in addresses}
    office.send()
    [row] = office.editions()
    assert row.status == "paused"
    assert row.reason
    assert "the relay refused" in row.reason
    assert "550 5.7.26" in row.reason
    said = office.counts(edition)
    assert 100 <= said["rejected"] <= 250, "it did not go through them all"
    office.outbox = Outbox()
    pausing.resume(database, edition)
    due_now(database)
    office.send()
    settling.retry(database, edition)
    due_now(database)
    office.send()
    assert office.counts(edition) == {"accepted": 400}


def test_a_few_bad_addresses_pause_nothing(database: Database) -> None:
    office, addresses, edition = released(database, readers=300)
    office.outbox.answers = dict.fromkeys(addresses[::3], GONE)
    office.send()
    assert office.counts(edition) == {"accepted": 200, "rejected": 100}
    assert office.editions()[0].status == "finished"


# ----------------------------------------------------------------------------- how long


def test_months() -> None:
    assert month_of(build.T) == 202507
    assert month_of(build.T, 7) == 202412
    assert month_of(build.T, 13) == 202406
    assert month_of(build.T, -6) == 202601


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_next_months_are_made_ahead(database: Database) -> None:
    for _ in range(2):
        with database.transaction() as session:
            make_months(session, datetime(2026, 11, 30, tzinfo=UTC))
    with database.reading() as session:
        names = session.scalars(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'attempts'::regclass")
        )
        assert sorted(names) == ["attempts_202611", "attempts_202612", "attempts_202701"]


def forgotten(database: Database, now: datetime) -> int:
    steps = 0
    while True:
        with database.transaction() as session:
            if not (forget_month(session, now, 13) or forget_later(session, now, 13, 30)):
                return steps
        steps += 1


def test_old_deliveries_are_forgotten_and_their_counts_are_not(database: Database) -> None:
    office, addresses, edition = released(database, readers=3)
    office.outbox.answers = {addresses[0]: GONE}
    office.send()
    with database.transaction() as session:
        session.add(m.DeliveryEvent(fingerprint="x", kind="bounce", action="none", source="pipe", at=AT))
        session.add(m.CapturedMail(received_at=AT, mail_from="", size=1, message=b"x"))
    assert forgotten(database, AT + timedelta(days=20)) == 0
    assert forgotten(database, AT + timedelta(days=31)) == 1, "what the capture server caught"
    assert forgotten(database, AT + timedelta(days=390)) == 0
    assert forgotten(database, AT + timedelta(days=430)) >= 2
    with database.reading() as session:
        for table in (m.Attempt, m.Batch, m.Variant, m.DeliveryEvent, m.CapturedMail):
            assert session.scalar(select(func.count()).select_from(table)) == 0, table
        assert session.scalar(select(func.count()).select_from(m.EditionArticle)), "the archive lives on it"
    assert office.counts(edition) == {"accepted": 2, "rejected": 1}
    assert forgotten(database, AT + timedelta(days=430)) == 0


def test_an_edition_that_still_runs_is_not_forgotten(database: Database) -> None:
    office, addresses, edition = released(database, readers=3)
    office.outbox.answers = {addresses[0]: Outcome(Result.DEFERRED, 451)}
    office.send()
    assert forgotten(database, AT + timedelta(days=430)) == 0
    assert office.counts(edition) == {"accepted": 2, "deferred": 1}
