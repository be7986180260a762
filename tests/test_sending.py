"""The window, leases and takeover: nothing lost, nothing twice, and never more out than the window allows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import dkim as verifier
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import func, select, update

from digest import ledger
from digest import models as m
from digest.db import Database
from digest.delivery.dkim import Key, Signer
from digest.delivery.memory import MemoryPool, Outbox
from digest.editions import pausing
from digest.errors import LeaseLost, UsageError
from digest.ledger.batches import Answer, Move
from digest.sending import LedgerStore, Sender, group_size, is_gone, run_async, window_for, worker_name
from digest.types import Outcome, Result
from tests import build
from tests.office import POST, Office, arrivals, newsroom, renderer

AT = build.T.replace(hour=7) + timedelta(days=1)


def released(db: Database, readers: int = 3, **digest: object) -> tuple[Office, list[str], int]:
    addresses = newsroom(db, readers=readers, **digest)
    office = Office(db)
    [edition, *_] = office.tick(AT, send=False)
    return office, addresses, edition


def test_everybody_gets_one_and_it_is_recorded(database: Database) -> None:
    office, addresses, edition = released(database, readers=120)
    office.send()
    assert arrivals(office, addresses) == [1] * 120
    assert office.counts(edition) == {"accepted": 120}
    assert office.editions()[0].status == "finished"
    assert office.send().answers == {}, "nothing is left to send"


def test_a_rejection_and_a_deferral_are_recorded_and_tried_again_later(database: Database) -> None:
    office, addresses, edition = released(database)
    office.outbox.answers = {
        addresses[0]: Outcome(Result.REJECTED, 550, "5.1.1", "no such mailbox"),
        addresses[1]: Outcome(Result.DEFERRED, 451, "4.7.1", "later"),
    }
    office.send()
    assert office.counts(edition) == {"accepted": 1, "deferred": 1, "rejected": 1}
    assert office.editions()[0].status == "sending", "the deferred one is still to come"
    office.outbox.answers = {}
    assert office.send().answers == {}, "its time has not come"
    with database.transaction() as session:
        session.execute(update(m.Batch).values(not_before=build.T))
    office.send()
    assert office.counts(edition) == {"accepted": 2, "rejected": 1}
    assert office.editions()[0].status == "finished"


def test_draining_tries_deferred_ones_three_times_then_leaves_them_queued(database: Database) -> None:
    office, addresses, edition = released(database)
    office.outbox.answers = {addresses[0]: Outcome(Result.DEFERRED, 451, None, "busy")}
    store = office.store(impatient=True)
    while store.left():
        office.send(store=store)
    with database.reading() as session:
        tries = session.scalar(select(func.count()).where(m.Attempt.outcome == "deferred"))
        assert tries == 4, "once, and three times again"
        assert ledger.editions.open_batches(session, True) == 1
    assert office.counts(edition) == {"accepted": 2, "deferred": 1}


def test_a_deferred_delivery_expires_with_its_lifetime(database: Database) -> None:
    office, addresses, edition = released(database, lifetime_s=3600)
    office.outbox.answers = {addresses[0]: Outcome(Result.DEFERRED, 451, None, "busy")}
    with database.transaction() as session:
        session.execute(update(m.Edition).values(released_at=build.T))
    office.send()
    assert office.counts(edition) == {"accepted": 2, "expired": 1}
    assert office.editions()[0].status == "finished"


def test_who_left_since_the_release_gets_nothing(database: Database) -> None:
    office, addresses, edition = released(database)
    with database.transaction() as session:
        session.execute(
            update(m.Subscription)
            .where(
                m.Subscription.subscriber_id
                == select(m.Subscriber.id).filter_by(address=addresses[0]).scalar_subquery()
            )
            .values(status="unsubscribed")
        )
        session.add(m.Suppression(address_key=addresses[1], reason="complaint", created_at=build.T))
    office.send()
    assert arrivals(office, addresses) == [0, 0, 1]
    assert office.counts(edition) == {"accepted": 1, "suppressed": 2}


def test_a_relay_that_is_not_there_loses_nothing(database: Database) -> None:
    office, addresses, edition = released(database)
    office.outbox = Outbox(reachable=False)
    sent = office.send()
    assert sent.trouble
    assert office.counts(edition) == {}
    office.outbox = Outbox()
    office.send()
    assert arrivals(office, addresses) == [1, 1, 1]


def claim(office: Office, granted: int) -> ledger.batches.Claimed:
    """Take a batch and grant some of it, as a worker that is about to die does."""
    store = office.store()
    got = store.claim()
    assert got is not None
    batch, _ = got
    store.group([Move(batch, granted, False)], [], batch.recipients[:granted])
    store.rest()
    return batch


def end_leases(db: Database) -> None:
    with db.transaction() as session:
        session.execute(update(m.Batch).values(leased_until=build.T))


def test_takeover_writes_uncertain_for_exactly_what_was_granted(database: Database) -> None:
    office, addresses, edition = released(database, readers=10)
    claim(office, granted=4)
    assert office.send().answers == {}, "the lease holds"
    end_leases(database)
    office.send()
    with database.reading() as session:
        uncertain = session.scalar(select(func.count()).where(m.Attempt.outcome == "uncertain"))
        assert uncertain == 4
    assert arrivals(office, addresses) == [1] * 10, "resend is the default"
    assert office.counts(edition) == {"accepted": 10}
    ids = [p.message.split(b"Message-ID: ")[1].split(b"\r\n")[0] for p in office.outbox.posted]
    assert len(set(ids)) == 10


def test_hold_leaves_the_uncertain_for_a_person(database: Database) -> None:
    office, addresses, edition = released(database, readers=10, uncertain="hold")
    claim(office, granted=4)
    end_leases(database)
    office.send()
    assert sum(arrivals(office, addresses)) == 6
    assert office.counts(edition) == {"accepted": 6, "uncertain": 4}
    assert office.editions()[0].status == "finished"


def test_answers_before_the_crash_count_and_are_not_sent_again(database: Database) -> None:
    office, addresses, edition = released(database, readers=10)
    store = office.store()
    got = store.claim()
    assert got is not None
    batch = got[0]
    store.group([Move(batch, 4, False)], [], batch.recipients[:4])
    said = Outcome(Result.ACCEPTED, 250)
    store.group([Move(batch, 6, False)], [Answer(r, said) for r in batch.recipients[:3]], batch.recipients[4:6])
    store.rest()
    end_leases(database)
    office.send()
    assert sum(arrivals(office, addresses)) == 7
    assert office.counts(edition) == {"accepted": 10}


def test_a_reply_that_was_lost_is_told_once_although_the_worker_dies_too(database: Database) -> None:
    office, addresses, edition = released(database, readers=10)
    store = office.store()
    got = store.claim()
    assert got is not None
    batch = got[0]
    store.group([Move(batch, 4, False)], [], batch.recipients[:4])
    store.group([Move(batch, 4, False)], [Answer(batch.recipients[0], Outcome(Result.UNCERTAIN))], [])
    end_leases(database)
    office.send()
    with database.transaction() as session:
        session.execute(update(m.Batch).values(not_before=build.T))
    office.send()
    with database.reading() as session:
        maybe = session.scalars(select(m.Attempt.subscriber_id).where(m.Attempt.outcome == "uncertain")).all()
    assert sorted(maybe) == sorted(r.subscriber_id for r in batch.recipients[:4])
    assert arrivals(office, addresses) == [1] * 10
    assert office.counts(edition) == {"accepted": 10}


def test_a_worker_that_lost_its_lease_is_fenced(database: Database) -> None:
    office, _, _ = released(database, readers=10)
    store = office.store()
    got = store.claim()
    assert got is not None
    end_leases(database)
    other = office.store().claim()
    assert other is not None
    with pytest.raises(LeaseLost):
        store.group([Move(got[0], 4, False)], [], got[0].recipients[:4])
    with pytest.raises(LeaseLost):
        store.hand_back(got[0], got[0].recipients)


def test_a_stale_answer_after_another_worker_ended_the_delivery_is_a_lost_lease(database: Database) -> None:
    office, _, edition = released(database, readers=10)
    store = office.store()
    got = store.claim()
    assert got is not None
    batch = got[0]
    store.group([Move(batch, 4, False)], [], batch.recipients[:4])
    end_leases(database)
    office.send()
    said = Outcome(Result.ACCEPTED, 250)
    with pytest.raises(LeaseLost):
        store.group([Move(batch, 4, False)], [Answer(r, said) for r in batch.recipients[:4]], batch.recipients[4:6])
    assert office.counts(edition) == {"accepted": 10}


def test_a_lease_lost_on_one_batch_writes_nothing_for_the_others(database: Database) -> None:
    office, _, _ = released(database, readers=10)
    store = office.store()
    got = store.claim()
    assert got is not None
    batch, stale = got[0], replace(got[0], fence=got[0].fence - 1)
    said = Outcome(Result.ACCEPTED, 250)
    store.group([Move(batch, 4, False)], [], batch.recipients[:4])
    moves, answers = [Move(batch, 8, False), Move(stale, 1, False)], [Answer(r, said) for r in batch.recipients[:4]]
    with pytest.raises(LeaseLost):
        store.group(moves, answers, batch.recipients[4:8])
    with database.reading() as session:
        assert session.scalars(select(m.Batch.wire_to)).one() == 4
        assert session.scalar(select(func.count()).select_from(m.Attempt)) == 0


def test_a_dead_process_of_this_host_is_seen_at_once(database: Database) -> None:
    office, addresses, _ = released(database)
    claim(office, granted=0)
    with database.transaction() as session:
        host_and_boot, _, _, word = worker_name().rsplit(":", 3)
        session.execute(update(m.Batch).values(worker=f"{host_and_boot}:4194304:1:{word}"))
    office.send()
    assert arrivals(office, addresses) == [1, 1, 1]


def test_who_is_gone() -> None:
    me = worker_name()
    host, pid, started, word = me.rsplit(":", 3)
    assert not is_gone(me)
    assert is_gone(f"{host}:{pid}:{int(started) + 1}:{word}"), "the number went to another process"
    assert not is_gone(f"elsewhere:-:{pid}:1:{word}"), "another host's processes cannot be seen from here"
    assert not is_gone("nonsense")


def test_a_cancelled_edition_stops_and_gives_the_rest_back(database: Database) -> None:
    office, addresses, edition = released(database, readers=10)
    office.editor.cancel(edition)
    office.send()
    assert arrivals(office, addresses) == [0] * 10
    assert office.counts(edition) == {"cancelled": 10}


def test_a_cancelled_edition_still_settles_what_was_on_the_wire(database: Database) -> None:
    office, addresses, edition = released(database, readers=10)
    claim(office, granted=4)
    office.editor.cancel(edition)
    end_leases(database)
    office.send()
    assert arrivals(office, addresses) == [0] * 10
    assert office.counts(edition) == {"cancelled": 6, "uncertain": 4}


def test_what_a_cancelled_edition_has_on_the_wire_is_not_given_to_another(database: Database) -> None:
    office, addresses, edition = released(database, readers=10)
    claim(office, granted=4)
    office.editor.cancel(edition)
    second = office.editor.open_manual("morning", AT)
    office.editor.compose(second)
    office.editor.release(second)  # before anybody has settled what the dead worker left
    end_leases(database)
    office.send()
    assert sum(arrivals(office, addresses)) == 6
    assert office.counts(edition) == {"cancelled": 6, "uncertain": 4}


def test_never_more_granted_than_the_window(database: Database) -> None:
    """Counted at every commit, from the rows: granted without a recorded outcome."""
    office, _, _ = released(database, readers=400)
    store = office.store()
    most = 0
    group = store.group

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal most
        refused = group(*args, **kwargs)  # type: ignore[arg-type]
        with database.reading() as session:
            granted = session.scalar(select(func.sum(m.Batch.wire_to)).where(m.Batch.done.is_(False))) or 0
            answered = session.scalar(
                select(func.count()).select_from(m.Attempt).join(m.Batch, m.Batch.id == m.Attempt.batch_id)
                .where(m.Batch.done.is_(False))
            ) or 0  # fmt: skip
        most = max(most, granted - answered)
        return refused

    store.group = counted  # type: ignore[method-assign, assignment]
    office.send(store=store)
    assert 0 < most <= window_for(office.connections) == 50


def test_window_and_group_follow_the_connections() -> None:
    assert [(window_for(c), group_size(window_for(c), c)) for c in (1, 16, 20, 64)] == [
        (50, 16), (50, 16), (50, 10), (160, 32),
    ]  # fmt: skip


def test_signed_mails_are_sealed_ahead_and_none_is_lost_when_the_work_stops(database: Database) -> None:
    office, addresses, edition = released(database, readers=150)
    key = Key("s", Ed25519PrivateKey.generate())
    signed = replace(POST, signer=Signer("news.example", [key]))

    async def main(stop_after: int) -> None:
        store = LedgerStore(database, renderer(), signed, live=True)
        stop = asyncio.Event()
        pool = lambda grants: MemoryPool(office.outbox, grants, connections=4)  # noqa: E731
        sender = Sender(store, pool, connections=4)
        running = asyncio.ensure_future(sender.run(stop))
        while not running.done() and len(office.outbox.posted) < stop_after:
            await asyncio.sleep(0)
        stop.set()
        await running

    for stop_after in (0, 20, 90, 1000):
        run_async(lambda: main(stop_after))  # noqa: B023 — run at once
    office.editor.finish()
    assert arrivals(office, addresses) == [1] * 150
    assert office.counts(edition) == {"accepted": 150}
    record = key.record.encode()
    assert all(verifier.verify(p.message, dnsfunc=lambda name, timeout=5: record) for p in office.outbox.posted[::10])


def test_two_workers_share_an_edition(database: Database) -> None:
    office, addresses, _ = released(database, readers=30)
    claim(office, granted=0)  # a worker that lives holds the only batch
    assert office.send().answers == {}
    end_leases(database)
    office.send()
    assert arrivals(office, addresses) == [1] * 30


def test_a_paused_edition_goes_on_where_it_stopped(database: Database) -> None:
    office, addresses, edition = released(database, readers=4)
    office.outbox.answers = {addresses[0]: Outcome(Result.DEFERRED, 451, None, "busy")}
    office.send()
    pausing.pause(database, edition, "the picture is wrong")
    assert (office.editions()[0].status, office.editions()[0].reason) == ("paused", "the picture is wrong")
    with database.transaction() as session:
        session.execute(update(m.Batch).values(not_before=build.T))
    office.outbox.answers = {}
    assert office.send().answers == {}, "nothing leaves"
    with pytest.raises(UsageError, match="is paused, not being sent"):
        pausing.pause(database, edition)
    pausing.resume(database, edition)
    office.send()
    assert arrivals(office, addresses) == [1] * 4
    assert (office.editions()[0].status, office.editions()[0].reason) == ("finished", None)
    with pytest.raises(UsageError, match="is finished, not paused"):
        pausing.resume(database, edition)
