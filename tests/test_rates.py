"""Rates that many processes keep together, domains that must wait, and a warm-up: slower, and nothing lost over it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from digest import ledger
from digest import models as m
from digest.db import Database
from digest.delivery.memory import MemoryPool
from digest.delivery.smtp import Pool
from digest.errors import LeaseLost
from digest.ledger import rates
from digest.ledger.rates import Bound
from digest.rates import Limit, Rates, WarmUp
from digest.sending import Sender, Shares, run_async
from digest.types import Outcome, Relay, Result
from tests import build
from tests.office import Office, arrivals, newsroom
from tests.smtp_server import Server
from tests.test_kills import NONE, carried_out
from tests.test_sending import AT, claim, end_leases

NOON = datetime(2026, 3, 4, 12, 0, 3, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """The real clock of the rates, held still; called, it moves on."""
    now = NOON
    monkeypatch.setattr(rates, "clock", lambda _: now)

    def move(by: timedelta) -> None:
        nonlocal now
        now += by

    return move


def leased(database: Database, worker: str, bound: Bound) -> int:
    with database.transaction() as session:
        return rates.lease(session, worker, [bound])[bound].amount


# ----------------------------------------------------------------------------- shares in SQL


def test_workers_together_take_what_a_slot_has_and_no_more(
    database: Database, clock: Callable[[timedelta], None]
) -> None:
    bound, chance = Bound("minute", "gmail.example", 600), random.Random(1)
    for _ in range(3):
        taken: Counter[str] = Counter()
        for _ in range(60):
            worker = chance.choice("abc")
            taken[worker] += leased(database, worker, bound)
        assert taken.total() == 100
        assert len(taken) == 3
        clock(timedelta(seconds=10))


def test_less_than_one_a_slot_adds_up_over_a_minute(database: Database, clock: Callable[[timedelta], None]) -> None:
    bound = Bound("minute", "slow.example", 2)
    got = []
    for _ in range(60):
        got.append(leased(database, "a", bound) + leased(database, "b", bound))
        clock(timedelta(seconds=10))
    assert sum(got) == 20
    assert max(got) == 1


def test_a_day_has_its_mails_whoever_sends_them(database: Database, clock: Callable[[timedelta], None]) -> None:
    bound = Bound("day", "", 250)
    assert sum(leased(database, worker, bound) for worker in "ab" * 200) == 250
    clock(timedelta(hours=12))
    assert leased(database, "a", bound) == 2, "the next day (UTC)"


def test_connections_are_shared_fairly_and_those_of_the_dead_come_free(
    database: Database, clock: Callable[[timedelta], None]
) -> None:
    bound = Bound("once", "gmail.example", 10)
    assert leased(database, "a", bound) == 10
    assert leased(database, "b", bound) == 0, "all are taken"
    clock(timedelta(seconds=5))
    assert leased(database, "a", bound) == 5
    assert leased(database, "b", bound) == 5
    clock(timedelta(seconds=11))
    assert leased(database, "b", bound) == 10, "a is dead"


def test_who_waits_is_booked_one_after_the_other(database: Database, clock: Callable[[timedelta], None]) -> None:
    bound = Bound("minute", "gmail.example", 60)
    with database.transaction() as session:
        turns = [rates.book(session, bound, 30) for _ in range(3)]
    assert [(turn - NOON).total_seconds() for turn in turns] == [10, 40, 70]
    clock(timedelta(hours=2))
    with database.transaction() as session:
        assert rates.book(session, bound, 1) - NOON == timedelta(hours=2, seconds=10)
        rates.forget(session, NOON + timedelta(hours=5))
        assert session.scalar(select(func.count()).select_from(m.RateShare)) == 0


# ----------------------------------------------------------------------------- a sender that keeps them


def released(database: Database, others: int, slow: int, limits: Rates) -> tuple[Office, list[str], list[str], int]:
    """An edition to readers of many domains, and to some at one that is slow."""
    addresses = newsroom(database, readers=others)
    slow_ones = [f"reader{n}@slow.example" for n in range(slow)]
    with database.transaction() as session:
        digest = session.scalars(select(m.Digest)).one()
        for address in slow_ones:
            build.subscription(session, digest, build.subscriber(session, address))
    office = Office(database, shares=Shares(database, limits))
    [edition, *_] = office.tick(AT, send=False)
    return office, addresses, slow_ones, edition


def due(database: Database) -> None:
    with database.transaction() as session:
        session.execute(update(m.Batch).values(not_before=build.T))


def test_a_domain_that_has_had_its_part_waits_and_the_rest_goes(database: Database) -> None:
    office, others, slow, edition = released(database, 40, 20, Rates(domains={"slow.example": Limit(6)}))
    office.send()
    assert arrivals(office, others) == [1] * 40
    first = sum(arrivals(office, slow))
    assert first <= 2, "one in ten seconds"
    with database.reading() as session:
        waits = session.scalars(select(m.Batch).where(m.Batch.done.is_(False))).one()
        assert len(ledger.history.unpack_ids(waits.ids)) == 20 - first
        assert waits.retry == 1
        assert waits.not_before > datetime.now(UTC)
        assert session.scalar(select(func.count()).select_from(m.Attempt)) == 40 + first, "no attempt was counted"
    assert office.editions()[0].status == "sending"
    due(database)
    office.shares = Shares(database, Rates())
    office.send()
    assert arrivals(office, [*others, *slow]) == [1] * 60
    assert office.counts(edition) == {"accepted": 60}
    assert office.editions()[0].status == "finished"


def test_each_domain_that_waits_has_a_batch_of_its_own(sqlite: Database) -> None:
    office, others, slow, _ = released(sqlite, 30, 10, Rates(others=Limit(1)))
    office.send()
    assert sum(arrivals(office, [*others, *slow])) <= 4
    with sqlite.reading() as session:
        waiting = session.scalars(select(m.Batch).where(m.Batch.done.is_(False))).all()
        addresses = dict(session.execute(select(m.Subscriber.id, m.Subscriber.address)).all())
    domains = [{addresses[s].partition("@")[2] for s in ledger.history.unpack_ids(batch.ids)} for batch in waiting]
    assert sorted(map(sorted, domains)) == [["example.org"], ["slow.example"]]


def test_what_waits_expires_with_its_edition(database: Database) -> None:
    office, _others, _slow, edition = released(database, 5, 9, Rates(domains={"slow.example": Limit(1)}))
    with database.transaction() as session:
        session.execute(update(m.Edition).values(released_at=build.T))
    office.send()
    counts = office.counts(edition)
    assert counts["accepted"] + counts["expired"] == 14
    assert counts["expired"] >= 8
    assert office.editions()[0].status == "finished"


def test_a_worker_that_dies_after_it_put_mail_off_loses_and_repeats_nothing(database: Database) -> None:
    office, others, slow, edition = released(database, 20, 10, Rates(domains={"slow.example": Limit(6)}))
    batch = claim(office, granted=4)
    assert {r.domain for r in batch.recipients[-10:]} == {"slow.example"}, "what may have to wait comes last"
    store = office.store()
    store.worker = str(worker_of(database))
    off = batch.recipients[-10:]
    store.put_off(batch, [r.position for r in batch.recipients[:-10]], off, Bound("minute", "slow.example", 6))
    end_leases(database)
    due(database)
    office.shares = None
    office.send()
    office.send()
    assert arrivals(office, [*others, *slow]) == [1] * 30
    assert office.counts(edition) == {"accepted": 30}
    with database.reading() as session:
        assert session.scalar(select(func.count()).where(m.Attempt.outcome == "uncertain")) == 4


def worker_of(database: Database) -> str | None:
    with database.reading() as session:
        return session.scalars(select(m.Batch.worker)).one()


def test_a_worker_that_lost_its_lease_puts_nothing_off(database: Database) -> None:
    office, *_ = released(database, 4, 4, Rates(domains={"slow.example": Limit(6)}))
    batch = claim(office, granted=0)
    stranger = office.store()
    with pytest.raises(LeaseLost):
        stranger.put_off(batch, [0, 1, 2, 3], batch.recipients[4:], None)
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(m.Batch)) == 1


def test_while_draining_a_rate_is_waited_for(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SLOT_S", 1)
    office, _others, _slow, edition = released(sqlite, 5, 6, Rates(domains={"slow.example": Limit(240)}))
    office.send(impatient=True)
    assert office.counts(edition) == {"accepted": 11}
    assert office.editions()[0].status == "finished"


def test_a_rate_of_all_mail_is_kept(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    office, _others, _slow, _edition = released(sqlite, 20, 4, Rates(per_minute=60))

    async def main() -> None:
        sender = Sender(
            office.store(),
            lambda grants: MemoryPool(office.outbox, grants, connections=4),
            connections=4,
            shares=office.shares,
        )
        stop = asyncio.Event()
        running = asyncio.create_task(sender.run(stop))
        while len(office.outbox.posted) < 10:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        stop.set()
        await running

    run_async(main)
    assert len(office.outbox.posted) in (10, 20), "ten in ten seconds; twenty where the slot ended in between"
    with sqlite.reading() as session:
        assert session.scalar(select(func.count()).where(m.Attempt.outcome != "accepted")) == 0
        assert session.scalars(select(m.Batch.worker)).one() is None, "the rest was handed back"


def test_no_more_are_on_their_way_to_a_domain_than_may_be(sqlite: Database) -> None:
    office, _others, _slow, edition = released(sqlite, 10, 40, Rates(domains={"slow.example": Limit(None, 3)}))
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()

    def script(verb: str, rcpt: str) -> bytes | None:
        domain = rcpt.partition("@")[2]
        now[domain] += {"RCPT": 1, "DOT": -1}.get(verb, 0)
        most[domain] = max(most[domain], now[domain])
        return None

    async def main() -> None:
        async with Server(script, delay=0.001) as server:
            relay = Relay("127.0.0.1", server.port, connections=8)
            sender = Sender(office.store(), lambda grants: Pool(relay, grants), connections=8, shares=office.shares)
            await sender.run()
            assert len(server.taken) == 50

    run_async(main)
    office.editor.finish()
    assert office.counts(edition) == {"accepted": 50}
    assert most["slow.example"] <= 3
    assert most["example.org"] > 3


def test_a_domain_that_asks_for_less_gets_less_and_the_rest_goes_on(sqlite: Database) -> None:
    office, others, slow, edition = released(sqlite, 40, 120, Rates())
    later = Outcome(Result.DEFERRED, 451, "4.7.28", "unusual rate")
    office.outbox.answers = dict.fromkeys(slow[:3], later)
    with sqlite.transaction() as session:  # the slow ones first, so that it says so early
        batch = session.scalars(select(m.Batch)).one()
        batch.todo = ledger.batches.pack_positions([*range(40, 160), *range(40)])
    office.send()
    assert arrivals(office, others) == [1] * 40
    assert sum(arrivals(office, slow)) < 60
    office.outbox.answers = {}
    office.shares = Shares(sqlite, Rates())
    for _ in range(3):
        due(sqlite)
        office.send()
    assert office.counts(edition) == {"accepted": 160}
    assert arrivals(office, slow) == [1] * 120


# ----------------------------------------------------------------------------- a warm-up


def test_a_warm_up_lets_more_go_each_day() -> None:
    plan = WarmUp(date(2026, 3, 1), 200, 1.5)
    assert [plan.on(date(2026, 3, day)) for day in (1, 2, 3, 8)] == [200, 300, 450, 3417]
    assert plan.on(date(2026, 2, 1)) == 200
    grown = [n for day in range(5_000) if (n := plan.on(plan.since + timedelta(days=day))) is not None]
    assert grown == sorted(grown)
    assert grown[-1] < 10_000_000 < grown[-1] * 1.5, "then there is no bound any more"
    assert WarmUp(date(2026, 3, 1), 200, 10.0).on(date(2036, 1, 1)) is None
    assert WarmUp(date(2026, 3, 1), 200, 1.0).on(date(2036, 1, 1)) == 200


def test_the_mails_of_a_day_go_and_the_rest_goes_on_tomorrow(database: Database) -> None:
    today = datetime.now(UTC).date()
    office, others, _slow, edition = released(database, 20, 0, Rates(warm_up=WarmUp(today, 8, 1.5)))
    sent = office.send()
    assert sum(arrivals(office, others)) == 8
    assert sent.trouble is None
    assert sent.over == office.shares.over  # type: ignore[union-attr]
    assert "8 mails" in str(sent.over)
    assert "tomorrow" in str(sent.over)
    with database.reading() as session:
        assert session.scalar(select(func.count()).where(m.Attempt.outcome != "accepted")) == 0
        batch = session.scalars(select(m.Batch)).one()
        assert (batch.done, batch.worker, batch.wire_to) == (False, None, 0)
    office.shares = Shares(database, Rates(warm_up=WarmUp(today - timedelta(days=7), 8, 1.5)))
    assert office.send().over is None
    assert arrivals(office, others) == [1] * 20
    assert office.counts(edition) == {"accepted": 20}


# ----------------------------------------------------------------------------- all of it together


@pytest.mark.full
@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_workers_that_are_killed_while_a_domain_waits_lose_nothing(database_url: str) -> None:
    plan = {"url": database_url, "mails": 3_000, "kills": 30, "leavers": 60, "rates": ["example.org=6000/12"],
            "faults": NONE}  # fmt: skip
    [verdict] = carried_out([plan])
    print(verdict)
    assert verdict.broken == [], verdict
    assert verdict.kills == 30
