"""Several relays: order, weight, one that stands in for another, and one that asks for less."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest.delivery.pace import SLOWEST, Pace, too_fast
from digest.delivery.smtp import Health, Pool, Relays
from digest.delivery.transport import Grants, Transport
from digest.errors import DeliveryError
from digest.types import Outcome, Relay, Result
from tests.grants import Recorder, envelope
from tests.smtp_server import Script, Server

ADDRESSES = [f"r{n}@example.net" for n in range(120)]


def hasty(relay: Relay, grants: Grants) -> Transport:
    return Pool(relay, grants, pause=0.01, tries=3)


async def sent(
    servers: Sequence[Server], relays: Sequence[Relay], grants: Recorder, *, stop: Callable[[], Any] | None = None,
    health: Health | None = None, mend_s: float = 60.0,
) -> None:  # fmt: skip
    """Send what *grants* have over relays at those servers."""
    there = [replace(relay, port=server.port) for relay, server in zip(relays, servers, strict=True)]
    transport = Relays(there, grants, pool=hasty, health=health, mend_s=mend_s)
    transport.start()
    try:
        await grants.until_done(transport)
        await transport.drain()
    finally:
        transport.abort()


def relay(name: str, *, order: int = 1, weight: int = 1, **more: Any) -> Relay:
    return Relay("127.0.0.1", 1, connections=3, name=name, order=order, weight=weight, **more)


def posted(
    relays: Sequence[Relay], scripts: dict[str, Script] | None = None, *, addresses: Sequence[str] = ADDRESSES
) -> tuple[Recorder, Counter[str]]:
    """How many mails went by each relay."""

    async def main() -> tuple[Recorder, Counter[str]]:
        grants = Recorder(map(envelope, addresses))
        async with AsyncExitStack() as stack:
            made = [Server((scripts or {}).get(r.name, lambda *_: None), delay=0.001) for r in relays]
            servers = [await stack.enter_async_context(server) for server in made]
            await sent(servers, relays, grants)
            return grants, Counter({r.name: len(s.taken) for r, s in zip(relays, servers, strict=True)})

    return asyncio.run(main())


def refusing(verb: str, rcpt: str) -> bytes | None:
    return b"421 4.3.2 down for repairs" if verb == "CONNECT" else None


def test_mail_goes_in_proportion_to_weights() -> None:
    grants, by = posted([relay("three", weight=3), relay("one")])
    assert set(grants.results) == set(ADDRESSES)
    assert by.total() == len(ADDRESSES)
    assert by["one"] == pytest.approx(len(ADDRESSES) / 4, abs=8)


def test_one_stands_by_until_it_is_needed() -> None:
    _, by = posted([relay("first"), relay("backup", order=2)])
    assert by == {"first": len(ADDRESSES), "backup": 0}


def test_another_takes_over_where_a_relay_does_not_want_us() -> None:
    grants, by = posted([relay("first"), relay("backup", order=2)], {"first": refusing})
    assert by == {"first": 0, "backup": len(ADDRESSES)}
    assert all(found == ["accepted"] for found in grants.results.values()), "no attempt was counted"


def test_a_relay_that_goes_away_in_the_middle_loses_and_repeats_nothing() -> None:
    served = 0

    def dying(verb: str, rcpt: str) -> bytes | None:
        nonlocal served
        served += verb == "RCPT"
        if served <= 40:
            return None
        return b"421 4.3.2 shutting down" if verb in ("CONNECT", "MAIL") else None

    grants, by = posted([relay("first"), relay("backup", order=2)], {"first": dying})
    assert by.total() == len(ADDRESSES)
    assert by["first"] >= 30
    assert all(found == ["accepted"] for found in grants.results.values())


def test_where_none_can_be_used_each_says_why() -> None:
    with pytest.raises(DeliveryError) as told:
        posted([relay("smtp"), relay("backup", order=2)], {"smtp": refusing, "backup": refusing})
    assert "smtp.host" in str(told.value)
    assert "relays.backup.host" in str(told.value)
    assert "Nothing is lost" in str(told.value)


def test_a_relay_that_comes_back_is_used_again_and_the_one_that_stood_in_rests() -> None:
    async def main() -> None:
        down = True

        def mended(verb: str, rcpt: str) -> bytes | None:
            return refusing(verb, rcpt) if down else None

        relays = [relay("first"), relay("backup", order=2)]
        async with Server(mended) as first, Server(delay=0.002) as backup:
            grants = Recorder(map(envelope, ADDRESSES))
            there = [replace(r, port=s.port) for r, s in zip(relays, (first, backup), strict=True)]
            transport = Relays(there, grants, pool=hasty, mend_s=0.05)
            transport.start()
            while not backup.taken:
                await asyncio.sleep(0.005)
            down = False
            while not first.taken:
                if not grants.queue:
                    grants.give(envelope("more@example.net"))
                await asyncio.sleep(0.005)
            for address in ADDRESSES:
                grants.give(envelope(address))
            before = len(backup.taken)
            await grants.until_done(transport)
            await transport.drain()
            assert len(backup.taken) - before <= 6, "what it had announced, and no more"

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_relay_that_was_away_is_left_alone_by_the_next_run() -> None:
    async def main() -> None:
        health = Health()
        relays = [relay("first"), relay("backup", order=2)]
        async with Server(refusing) as first, Server() as backup:
            await sent([first, backup], relays, Recorder(map(envelope, ADDRESSES[:5])), health=health)
            tried = len(first.sessions)
            await sent([first, backup], relays, Recorder(map(envelope, ADDRESSES[:5])), health=health)
            assert len(first.sessions) == tried
            assert len(backup.taken) == 10

    asyncio.run(main())


def test_a_relay_that_hangs_does_not_hold_up_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digest.delivery.smtp.relays.STALLED_S", 0.1)

    async def main() -> None:
        from tests.smtp_server import SILENCE

        def stuck(verb: str, rcpt: str) -> bytes | None:
            return SILENCE if verb == "RCPT" else None

        grants = Recorder(map(envelope, ADDRESSES))
        async with Server(stuck) as first, Server() as other:
            there = [replace(relay("stuck"), port=first.port), replace(relay("other"), port=other.port)]
            transport = Relays(there, grants, pool=hasty)
            transport.start()
            async with asyncio.timeout(60):
                while len(other.taken) < len(ADDRESSES) - 6:
                    await asyncio.sleep(0.01)
            transport.abort()

    asyncio.run(main())


def test_a_rate_of_a_relay_is_kept_and_the_other_takes_the_rest() -> None:
    async def main() -> None:
        left = 10

        def gate(relay: Relay) -> bool:
            nonlocal left
            if relay.name == "free":
                return True
            left -= left > 0
            return left > 0

        grants = Recorder(map(envelope, ADDRESSES))
        async with Server() as slow, Server() as free:
            there = [replace(relay("slow"), port=slow.port), replace(relay("free", order=1), port=free.port)]
            transport = Relays(there, grants, pool=hasty, gate=gate)
            transport.start()
            async with asyncio.timeout(60):
                while len(slow.taken) + len(free.taken) < len(ADDRESSES):
                    await asyncio.sleep(0.01)
            transport.abort()
            assert len(slow.taken) <= 10

    asyncio.run(main())


# ----------------------------------------------------------------------------- pace


@pytest.mark.parametrize(
    ("outcome", "slower"),
    [
        (Outcome(Result.DEFERRED, 421, "4.3.2", "closing"), True),
        (Outcome(Result.DEFERRED, 451, "4.7.1", "try later"), True),
        (Outcome(Result.DEFERRED, 450, "4.7.28", "unusual rate"), True),
        (Outcome(Result.DEFERRED, 451, "4.3.0", "no disk"), False),
        (Outcome(Result.REJECTED, 550, "5.7.1", "no"), False),
        (Outcome(Result.ACCEPTED, 250), False),
        (Outcome(Result.DEFERRED, text="the edition is paused"), False),
    ],
)
def test_who_asks_for_less(outcome: Outcome, slower: bool) -> None:
    assert too_fast(outcome) is slower


def heard(pace: Pace, start: float, seconds: int, a_second: int) -> float:
    for n in range(seconds * a_second):
        pace.hear(start + n / a_second, slower=False)
    return start + seconds


def gone(pace: Pace, start: float, seconds: float, step: float = 0.01) -> int:
    """Mails that may go in so many seconds."""
    return sum(pace.may(start + n * step) for n in range(int(seconds / step)))


def test_half_the_speed_and_then_slowly_all_of_it_again() -> None:
    pace = Pace()
    now = heard(pace, 0.0, 8, 40)
    assert gone(pace, now, 0.5) == 50, "no bound yet"
    assert [pace.hear(now, slower=True) for _ in range(40)].count(True) == 1, "what is on its way already counts once"
    assert pace.rate == pytest.approx(22, rel=0.1)
    assert gone(pace, now, 10) == pytest.approx(220, rel=0.1)
    assert gone(pace, now + 10, 5) == pytest.approx(140, rel=0.1), "a quarter more after ten quiet seconds"
    assert gone(pace, now + 80, 1) == 100, "and no bound in the end"
    assert pace.rate is None


def test_a_few_that_are_put_off_among_many_mean_nothing() -> None:
    """Greylisting: one in thirty is told 4.7.1, for as long as it lasts."""
    pace = Pace()
    for n in range(6_000):
        pace.hear(n / 100, slower=n % 30 == 0)
    assert pace.rate is None


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=80))
def test_it_is_never_stopped_for_good(said: list[tuple[float, bool]]) -> None:
    pace, now = Pace(), 0.0
    for pause, slower in said:
        now += pause
        pace.hear(now, slower=slower)
        pace.may(now)
        assert pace.rate is None or pace.rate >= SLOWEST
    assert any(pace.may(now + second) for second in range(1, 12))
