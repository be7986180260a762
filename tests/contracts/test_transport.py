"""What every transport must keep, held against the real client on a real socket and against the one in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import chain, repeat

import pytest

from digest.delivery.memory import MemoryPool, Outbox
from digest.delivery.smtp import Pool, Relays
from digest.delivery.transport import Envelope, Grants, Transport
from digest.errors import DeliveryError
from digest.types import Outcome, Relay, Result
from tests.grants import Recorder, envelope
from tests.smtp_server import LOST, Server

#: Address → what it answers, one reply after the other; afterwards it is accepted.
Answers = Mapping[str, list[Outcome]]

GONE = Outcome(Result.REJECTED, 550, "5.1.1", "no such mailbox")
LATER = Outcome(Result.DEFERRED, 451, "4.3.0", "try later")
CLOSING = Outcome(Result.DEFERRED, 421, "4.3.2", "closing")
UNKNOWN = Outcome(Result.UNCERTAIN)


@dataclass
class Other:
    """The other side of a transport: makes transports to it, knows what arrived."""

    connect: Callable[[Grants], Transport]
    arrived: Callable[[], list[tuple[bytes, bytes, bytes]]]
    port: int = 0


Side = Callable[[Answers], AbstractAsyncContextManager[Other]]


@asynccontextmanager
async def real(answers: Answers) -> AsyncIterator[Other]:
    replies = {key: iter([wire(outcome) for outcome in found]) for key, found in answers.items()}

    def script(verb: str, rcpt: str) -> bytes | None:
        at = "RCPT" if answers.get(rcpt, [None])[0] == GONE else "DOT"
        return next(replies.get(rcpt, iter(())), None) if verb == at else None

    async with Server(script) as server:
        relay = Relay("127.0.0.1", server.port, connections=2)
        yield Other(
            lambda grants: Pool(relay, grants),
            lambda: [(t.mail_from.encode(), t.rcpt.encode(), t.message) for t in server.taken],
            server.port,
        )


@asynccontextmanager
async def several(answers: Answers) -> AsyncIterator[Other]:
    """The same relay twice, with two names."""
    async with real(answers) as one:
        port = one.port
        relays = [Relay("127.0.0.1", port, connections=1, name=name) for name in ("smtp", "other")]
        yield Other(lambda grants: Relays(relays, grants), one.arrived)


def wire(outcome: Outcome) -> bytes:
    if outcome.result is Result.UNCERTAIN:
        return LOST
    return f"{outcome.code} {outcome.enhanced} {outcome.text}".encode()


@asynccontextmanager
async def memory(answers: Answers) -> AsyncIterator[Other]:
    accepted = Outcome(Result.ACCEPTED, 250, "2.0.0", "Ok")
    replies = {key: chain(found, repeat(accepted)) for key, found in answers.items()}
    outbox = Outbox({key: lambda e, found=found: next(found) for key, found in replies.items()})
    yield Other(
        lambda grants: MemoryPool(outbox, grants), lambda: [(p.mail_from, p.rcpt, p.message) for p in outbox.posted]
    )


@pytest.fixture(params=[real, several, memory])
def side(request: pytest.FixtureRequest) -> Side:
    found: Side = request.param
    return found


async def send(side: Side, grants: Recorder, answers: Answers | None = None) -> list[tuple[bytes, bytes, bytes]]:
    async with side(answers or {}) as other:
        transport = other.connect(grants)
        transport.start()
        await grants.until_done(transport)
        await transport.drain()
        return other.arrived()


def addresses(count: int) -> list[str]:
    return [f"reader{n}@example.net" for n in range(count)]


def test_each_is_answered_once_and_arrives_as_it_was_built(side: Side) -> None:
    grants = Recorder(map(envelope, addresses(40)))
    arrived = asyncio.run(send(side, grants))
    assert grants.results == {address: ["accepted"] for address in addresses(40)}
    expected = [(e.mail_from, e.rcpt, b"".join(e.build())) for e in map(envelope, addresses(40))]
    assert sorted(arrived) == sorted(expected)
    assert grants.came_back == []


def test_two_envelopes_a_connection_at_most(side: Side) -> None:
    grants = Recorder(map(envelope, addresses(40)))
    asyncio.run(send(side, grants))
    assert grants.most_out <= 4


def test_refusals_carry_what_was_said(side: Side) -> None:
    grants = Recorder(map(envelope, addresses(6)))
    arrived = asyncio.run(send(side, grants, {"reader1@example.net": [GONE], "reader4@example.net": [LATER]}))
    assert grants.outcomes["reader1@example.net"] == [GONE]
    assert grants.outcomes["reader4@example.net"] == [LATER]
    assert len(arrived) == 4


def test_a_message_that_cannot_be_built_costs_itself(side: Side) -> None:
    def broken() -> list[bytes]:
        raise ValueError("a hostile value")

    bad = Envelope(b"s@example.org", b"bad@example.net", broken, key="bad")
    grants = Recorder([envelope("a@example.net"), bad, envelope("b@example.net")])
    arrived = asyncio.run(send(side, grants))
    assert grants.outcomes["bad"] == [Outcome(Result.DEFERRED, text="could not be built")]
    assert sorted(rcpt for _, rcpt, _ in arrived) == [b"a@example.net", b"b@example.net"]


@pytest.mark.parametrize(
    "hostile", ["x@y.example>\r\nRCPT TO:<evil@z.example", "a b@y.example", "é@y.example", "a@b\0", ""]
)
def test_an_address_that_would_be_a_second_command_is_never_written(side: Side, hostile: str) -> None:
    grants = Recorder([envelope("a@example.net"), envelope(hostile), envelope("b@example.net")])
    arrived = asyncio.run(send(side, grants))
    assert grants.results[hostile] == ["rejected"]
    assert sorted(rcpt for _, rcpt, _ in arrived) == [b"a@example.net", b"b@example.net"]


def test_a_closing_relay_defers_one_and_gives_the_next_back(side: Side) -> None:
    grants = Recorder(map(envelope, addresses(20)))
    arrived = asyncio.run(send(side, grants, {"reader3@example.net": [CLOSING]}))
    assert grants.outcomes.pop("reader3@example.net") == [CLOSING]
    assert set(map(tuple, grants.results.values())) == {("accepted",)}
    assert len(arrived) == len({rcpt for _, rcpt, _ in arrived}) == 19
    assert len(grants.came_back) == 1
    assert len(grants.reasons) == 3, "one connection was lost, two said goodbye"


def test_a_reply_that_never_came_is_uncertain(side: Side) -> None:
    grants = Recorder(map(envelope, addresses(20)))
    arrived = asyncio.run(send(side, grants, {"reader3@example.net": [UNKNOWN]}))
    assert grants.results["reader3@example.net"] == ["uncertain"]
    assert len(arrived) == 20
    assert len(grants.outcomes) == 20


def test_a_waiting_connection_takes_what_comes_later(side: Side) -> None:
    async def main() -> None:
        grants = Recorder()
        async with side({}) as other:
            transport = other.connect(grants)
            transport.start()
            async with asyncio.timeout(5):
                while len(grants.waiting) < 2:
                    await asyncio.sleep(0.01)
            grants.give(envelope("late@example.net"))
            await grants.until_done(transport)
            await transport.drain()
            assert [rcpt for _, rcpt, _ in other.arrived()] == [b"late@example.net"]

    asyncio.run(main())


def test_drain_finishes_what_is_out_and_asks_no_more(side: Side) -> None:
    async def main() -> None:
        grants = Recorder(map(envelope, addresses(500)))
        async with side({}) as other:
            transport = other.connect(grants)
            transport.start()
            async with asyncio.timeout(5):
                while len(grants.outcomes) < 5:
                    await asyncio.sleep(0)
            asked = grants.asked
            await transport.drain()
            assert grants.asked == asked
            assert grants.out == []
            assert grants.queue, "the test must stop in the middle"
            assert grants.came_back == []
            assert len(other.arrived()) == len(grants.outcomes)
            assert grants.reasons == [None] * len(grants.reasons)

    asyncio.run(main())


def test_after_abort_nobody_is_called(side: Side) -> None:
    async def main() -> None:
        grants = Recorder(map(envelope, addresses(500)))
        async with side({}) as other:
            transport = other.connect(grants)
            transport.start()
            async with asyncio.timeout(5):
                while len(grants.outcomes) < 5:
                    await asyncio.sleep(0)
            transport.abort()
            before = (grants.asked, len(grants.outcomes), len(grants.out), list(grants.reasons))
            await asyncio.sleep(0.1)
            assert (grants.asked, len(grants.outcomes), len(grants.out), list(grants.reasons)) == before
            await transport.drain()

    asyncio.run(main())


@pytest.mark.parametrize("call", ["next", "answered"])
def test_what_a_grant_raises_reaches_the_owner(side: Side, call: str) -> None:
    class Lost(Exception):
        pass

    class Raising(Recorder):
        def next(self) -> Envelope | None:
            if call == "next" and len(self.outcomes) > 3:
                raise Lost
            return super().next()

        def answered(self, envelope: Envelope, outcome: Outcome) -> None:
            if call == "answered" and len(self.outcomes) > 3:
                raise Lost
            super().answered(envelope, outcome)

    async def main() -> None:
        grants = Raising(map(envelope, addresses(20)))
        async with side({}) as other:
            transport = other.connect(grants)
            transport.start()
            with pytest.raises(Lost):
                await grants.until_done(transport)
            answered = len(grants.outcomes)
            await asyncio.sleep(0.05)
            assert len(grants.outcomes) == answered

    asyncio.run(main())


def test_nobody_there_is_said_in_a_sentence_and_costs_nothing() -> None:
    async def main(connect: Callable[[Grants], Transport]) -> None:
        grants = Recorder(map(envelope, addresses(3)))
        transport = connect(grants)
        transport.start()
        with pytest.raises(DeliveryError, match=r"Nothing is lost"):
            await grants.until_done(transport)
        assert len(grants.queue) == 3
        assert grants.outcomes == {}

    asyncio.run(main(lambda grants: Pool(Relay("127.0.0.1", 1), grants, pause=0.01)))
    asyncio.run(main(lambda grants: MemoryPool(Outbox(reachable=False), grants)))
