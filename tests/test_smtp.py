"""The SMTP client against relays that refuse, hesitate, stammer and hang up. Each row ends in one known state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from digest.delivery.replies import Garbled, Replies
from digest.delivery.smtp import Pool
from digest.delivery.transport import Envelope
from digest.errors import DeliveryError
from digest.types import Outcome, Relay, Result
from tests.grants import Recorder, envelope
from tests.smtp_server import DROP, LOST, SILENCE, Script, Server

ADDRESSES = [f"r{n}@example.net" for n in range(12)]
BAD = "r5@example.net"


@dataclass
class Sent:
    grants: Recorder
    server: Server
    error: Exception | None = None

    @property
    def bad(self) -> Outcome:
        (outcome,) = self.grants.outcomes[BAD]
        return outcome

    @property
    def arrived(self) -> list[str]:
        return sorted(taken.rcpt for taken in self.server.taken)


def send(
    script: Script, *, grants: Callable[[], Recorder] | None = None, relay: dict[str, Any] | None = None, **server: Any
) -> Sent:
    """Send to all ADDRESSES over two connections, drain, and tell what happened."""

    async def main() -> Sent:
        found = grants() if grants else Recorder(map(envelope, ADDRESSES))
        async with Server(script, **server) as other:
            options = {"connections": 2, "reply_timeout": 5.0, "data_timeout": 5.0, **(relay or {})}
            pool = Pool(Relay("127.0.0.1", other.port, **options), found, pause=0.01)
            pool.start()
            try:
                await found.until_done(pool)
            except DeliveryError as problem:
                return Sent(found, other, problem)
            await pool.drain()
            return Sent(found, other)

    return asyncio.run(main())


def at(verb: str, reply: bytes, rcpt: str = BAD, times: int = 1) -> Script:
    """A script that answers ``verb`` for one recipient so, a number of times."""
    left = [times]

    def script(said: str, to: str) -> bytes | None:
        if said == verb and to == rcpt and left[0]:
            left[0] -= 1
            return reply
        return None

    return script


# ----------------------------------------------------------------------------- one recipient's own refusals

REFUSALS = [
    ("RCPT", b"550 5.1.1 <r5@example.net>: no such user", Result.REJECTED, 550, "5.1.1"),
    ("RCPT", b"552 5.2.2 mailbox full", Result.REJECTED, 552, "5.2.2"),
    ("RCPT", b"450 4.2.1 greylisted", Result.DEFERRED, 450, "4.2.1"),
    ("RCPT", b"451 try later", Result.DEFERRED, 451, None),
    ("RCPT", b"452 4.5.3 too many recipients", Result.DEFERRED, 452, "4.5.3"),
    ("RCPT", b"530 5.7.0 Must authenticate first", Result.DEFERRED, 530, "5.7.0"),
    ("DATA", b"451 4.3.0 no disk", Result.DEFERRED, 451, "4.3.0"),
    ("DATA", b"554 5.5.0 no", Result.REJECTED, 554, "5.5.0"),
    ("DOT", b"554 5.7.1 looks like spam", Result.REJECTED, 554, "5.7.1"),
    ("DOT", b"550-5.7.26 not\r\n550-5.7.26 authenticated\r\n550 5.7.26 at all", Result.REJECTED, 550, "5.7.26"),
    ("DOT", b"451 4.7.1 greylisted", Result.DEFERRED, 451, "4.7.1"),
    ("DOT", b"452", Result.DEFERRED, 452, None),
]


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(("verb", "reply", "result", "code", "enhanced"), REFUSALS)
def test_a_refusal_costs_one_recipient(
    verb: str, reply: bytes, result: Result, code: int, enhanced: str | None, pipelining: bool
) -> None:
    sent = send(at(verb, reply), pipelining=pipelining)
    assert (sent.bad.result, sent.bad.code, sent.bad.enhanced) == (result, code, enhanced)
    assert sent.arrived == sorted(set(ADDRESSES) - {BAD})
    assert set(map(tuple, (found for key, found in sent.grants.results.items() if key != BAD))) == {("accepted",)}
    assert sent.grants.came_back == []
    assert len(sent.server.sessions) == 2, "no connection was lost over it"
    assert sent.server.early == 0


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(("reply", "result"), [(b"550 5.7.1 no", Result.REJECTED), (b"451 later", Result.DEFERRED)])
def test_a_refused_sender(reply: bytes, result: Result, pipelining: bool) -> None:
    seen = []

    def script(verb: str, rcpt: str) -> bytes | None:
        if verb == "MAIL":
            seen.append(1)
            return reply if len(seen) == 3 else None
        return None

    sent = send(script, pipelining=pipelining)
    refused = [key for key, (found,) in sent.grants.results.items() if found == result.value]
    assert len(refused) == 1
    assert sent.arrived == sorted(set(ADDRESSES) - set(refused))


def test_a_relay_that_says_354_to_a_message_without_recipients_gets_a_lone_dot() -> None:
    def script(verb: str, rcpt: str) -> bytes | None:
        if rcpt == BAD and verb == "RCPT":
            return b"550 5.1.1 nobody"
        return b"354 go on" if verb == "DATA" else None

    sent = send(script)
    assert (sent.bad.result, sent.bad.code) == (Result.REJECTED, 550)
    assert sent.arrived == sorted(set(ADDRESSES) - {BAD})
    assert len(sent.server.sessions) == 2
    log = next(log for log in sent.server.sessions if f"RCPT TO:<{BAD}>" in log)
    where = log.index(f"RCPT TO:<{BAD}>")
    assert log[where + 1 : where + 3] == ["DATA", "."]


def test_no_empty_message_where_the_sender_was_refused_but_not_the_recipient() -> None:
    refused: list[str] = []

    def script(verb: str, rcpt: str) -> bytes | None:
        if verb == "MAIL" and rcpt == "r3@example.net" and not refused:
            refused.append(rcpt)
            return b"451 4.3.0 no"
        return {"RCPT": b"250 fine", "DATA": b"354 go on"}.get(verb)

    sent = send(script, relay={"connections": 1})
    assert [key for key, found in sent.grants.results.items() if found == ["deferred"]] == ["r4@example.net"]
    assert all(taken.message.startswith(b"Subject") for taken in sent.server.taken)
    assert len(sent.server.sessions) == 2


# ----------------------------------------------------------------------------- the end of a connection


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("verb", ["RCPT", "DATA"])
@pytest.mark.parametrize("reply", [b"421 4.3.2 closing", DROP])
def test_a_relay_that_leaves_before_a_body_costs_no_attempt(verb: str, reply: bytes, pipelining: bool) -> None:
    sent = send(at(verb, reply), pipelining=pipelining, relay={"connections": 1})
    assert sent.grants.results == {address: ["accepted"] for address in ADDRESSES}
    assert sent.grants.came_back == [BAD]
    assert sent.arrived == sorted(ADDRESSES)


def test_421_after_the_dot_defers_that_one_and_gives_the_next_back() -> None:
    sent = send(at("DOT", b"421 4.7.0 too much mail"), relay={"connections": 1})
    assert (sent.bad.result, sent.bad.code) == (Result.DEFERRED, 421)
    assert sent.grants.came_back == ["r6@example.net"]
    assert sent.arrived == sorted(set(ADDRESSES) - {BAD})


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("verb", "reply", "arrives"), [("BODY", DROP, False), ("DOT", DROP, False), ("DOT", LOST, True)]
)
def test_no_reply_to_a_body_is_uncertain(verb: str, reply: bytes, arrives: bool, pipelining: bool) -> None:
    sent = send(at(verb, reply), pipelining=pipelining, relay={"connections": 1})
    assert sent.bad.result is Result.UNCERTAIN
    assert sent.bad.text
    assert sent.grants.came_back == (["r6@example.net"] if pipelining else [])
    assert sent.arrived == sorted(set(ADDRESSES) if arrives else set(ADDRESSES) - {BAD})


@pytest.mark.parametrize("verb", ["RCPT", "DATA"])
@pytest.mark.parametrize("reply", [b"421 4.3.2 not you", DROP])
def test_a_recipient_that_ends_every_connection_does_not_come_back_for_ever(verb: str, reply: bytes) -> None:
    sent = send(at(verb, reply, times=1000), relay={"connections": 1})
    assert sent.bad.result is Result.DEFERRED
    assert sent.arrived == sorted(set(ADDRESSES) - {BAD})


def test_a_connection_that_was_closed_while_idle_comes_back_when_there_is_work() -> None:
    async def main() -> None:
        grants = Recorder([envelope("first@example.net")])
        async with Server() as server:
            pool = Pool(Relay("127.0.0.1", server.port, connections=2), grants, pause=0.01)
            pool.start()
            async with asyncio.timeout(5):
                while len(grants.waiting) < 2:
                    await asyncio.sleep(0.01)
                for task in list(server._tasks):
                    task.cancel()
                while len(grants.reasons) < 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert len(server.sessions) == 2, "nobody reconnects for nothing"
            grants.give(envelope("second@example.net"))
            await grants.until_done(pool)
            await pool.drain()
            assert grants.results == {"first@example.net": ["accepted"], "second@example.net": ["accepted"]}

    asyncio.run(main())


def test_one_message_a_connection_still_gets_through() -> None:
    sent = send(lambda verb, rcpt: b"421 4.4.5 one at a time" if verb == "MAIL" and rcpt else None)
    assert sent.grants.results == {address: ["accepted"] for address in ADDRESSES}
    assert sent.arrived == sorted(ADDRESSES)


# ----------------------------------------------------------------------------- the relay itself


@pytest.mark.parametrize("greeting", [b"554 5.7.1 not for you", b"421 4.3.2 down for repairs", b"nonsense", DROP])
def test_a_relay_that_does_not_want_us_counts_no_attempt(greeting: bytes) -> None:
    sent = send(lambda verb, rcpt: greeting if verb == "CONNECT" else None)
    assert isinstance(sent.error, DeliveryError)
    assert "smtp.host" in str(sent.error)
    assert "Nothing is lost" in str(sent.error)
    assert sent.grants.outcomes == {}
    assert len(sent.grants.queue) == len(ADDRESSES)
    assert 1 < len(sent.server.sessions) < 20


def test_a_relay_that_comes_back_in_time_is_used() -> None:
    greetings = iter([b"421 4.3.2 starting", b"421 4.3.2 starting"])
    sent = send(lambda verb, rcpt: next(greetings, None) if verb == "CONNECT" else None)
    assert sent.arrived == sorted(ADDRESSES)


@pytest.mark.parametrize("reply", [b"500 what?", b"502 5.5.2 no", b"550 no EHLO here"])
def test_an_older_relay_is_greeted_with_helo(reply: bytes) -> None:
    sent = send(lambda verb, rcpt: reply if verb == "EHLO" else None, pipelining=False)
    assert sent.arrived == sorted(ADDRESSES)
    assert sent.server.early == 0
    assert sent.server.sessions[0][:2] == ["EHLO localhost.localdomain", "HELO localhost.localdomain"]


def test_a_relay_that_limits_connections_is_used_as_far_as_it_lets_us() -> None:
    def script(verb: str, rcpt: str) -> bytes | None:
        return b"421 4.7.0 too many connections" if verb == "CONNECT" and server_of[0].open_now > 1 else None

    server_of: list[Server] = []

    class Noting(Server):
        async def __aenter__(self) -> Server:
            server_of.append(self)
            return await super().__aenter__()

    async def main() -> None:
        grants = Recorder(map(envelope, ADDRESSES * 20))
        async with Noting(script) as server:
            pool = Pool(Relay("127.0.0.1", server.port, connections=4), grants, pause=0.01)
            pool.start()
            await grants.until_done(pool)
            await pool.drain()
            assert len(server.taken) == len(ADDRESSES) * 20

    asyncio.run(main())


def test_size_is_declared_and_kept() -> None:
    big = envelope(BAD, b"Subject: big\r\n\r\n" + b"x" * 70 + b"\r\n" * 300)
    sent = send(
        lambda verb, rcpt: None,
        grants=lambda: Recorder([*map(envelope, ADDRESSES[:3]), big]),
        extensions=(b"SIZE 300", b"8BITMIME"),
    )
    assert (sent.bad.result, sent.bad.enhanced) == (Result.REJECTED, "5.3.4")
    assert len(sent.server.taken) == 3
    size = len(sent.server.taken[0].message)
    assert f"MAIL FROM:<b+1.2.mac@example.org> SIZE={size}" in sent.server.sessions[0]
    assert BAD not in str(sent.server.sessions)


def test_commands_go_out_together_only_where_the_relay_offers_it() -> None:
    together = send(lambda verb, rcpt: None)
    assert together.server.early == 0
    assert together.arrived == sorted(ADDRESSES)
    apart = send(lambda verb, rcpt: None, pipelining=False)
    assert apart.server.early == 0, "a command came before the reply to the one before it"
    assert apart.arrived == sorted(ADDRESSES)


def test_one_round_trip_a_message() -> None:
    """With a relay that takes its time for every packet, pipelining costs one wait a message, lock-step four."""

    class Packets(asyncio.Protocol):
        reads = 0

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.buffer = b""
            transport.write(b"220 x\r\n")  # type: ignore[attr-defined]

        def data_received(self, data: bytes) -> None:
            Packets.reads += 1
            self.buffer += data
            while b"\r\n" in self.buffer:
                line, _, self.buffer = self.buffer.partition(b"\r\n")
                verb = line[:4]
                known = {b"EHLO": b"250-x\r\n250 PIPELINING", b"DATA": b"354 go", b"MAIL": b"250 m", b"RCPT": b"250 r"}
                if reply := {**known, b".": b"250 taken", b"QUIT": b"221 bye"}.get(verb):
                    self.transport.write(reply + b"\r\n")  # type: ignore[attr-defined]

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Packets, "127.0.0.1", 0)
        grants = Recorder(map(envelope, ADDRESSES))
        pool = Pool(Relay("127.0.0.1", server.sockets[0].getsockname()[1], connections=1), grants)
        pool.start()
        await grants.until_done(pool)
        await pool.drain()
        server.close()
        await server.wait_closed()
        assert len(grants.outcomes) == len(ADDRESSES)
        assert Packets.reads <= 1 + 1 + len(ADDRESSES) + 1, "EHLO, first commands, one write a message, QUIT"

    asyncio.run(main())


def test_a_greeting_name_is_one_word() -> None:
    with pytest.raises(DeliveryError, match="host name"):
        Pool(Relay("127.0.0.1", 1, helo="me\r\nMAIL FROM:<>"), Recorder())


# ----------------------------------------------------------------------------- time and garbage


@pytest.mark.parametrize(
    ("verb", "limits", "result"),
    [
        ("DOT", {"data_timeout": 0.2}, Result.UNCERTAIN),
        ("RCPT", {"reply_timeout": 0.2}, None),
        ("DATA", {"reply_timeout": 0.2}, None),
    ],
)
def test_silence_ends_in_time(verb: str, limits: dict[str, float], result: Result | None) -> None:
    sent = send(at(verb, SILENCE), relay={"connections": 1, **limits})
    if result is None:
        assert sent.grants.results == {address: ["accepted"] for address in ADDRESSES}
        assert sent.grants.came_back == [BAD]
    else:
        assert sent.bad.result is result
        assert "in time" in sent.bad.text


def test_silence_before_the_greeting_is_the_relays_trouble() -> None:
    sent = send(lambda verb, rcpt: SILENCE if verb == "CONNECT" else None, relay={"reply_timeout": 0.05})
    assert "in time" in str(sent.error)
    assert sent.grants.outcomes == {}


def test_a_slow_relay_is_waited_for() -> None:
    sent = send(lambda verb, rcpt: None, delay=0.02, relay={"reply_timeout": 1.0, "connections": 4})
    assert sent.arrived == sorted(ADDRESSES)


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello?",
        b"999 what",
        b"2",
        b"\x00\x01\x02\x03",
        b"25O ok",
        b"354 again",
        b"250" + b"x" * 10,
        b"250 " + b"x" * 200_000,
        "250ümlaut".encode(),
    ],
)
def test_garbage_after_a_body_is_uncertain_and_everybody_else_goes_on(garbage: bytes) -> None:
    sent = send(at("DOT", garbage), relay={"connections": 1})
    if garbage.startswith(b"250 "):
        assert sent.bad.result in (Result.UNCERTAIN, Result.ACCEPTED)
    else:
        assert sent.bad.result is Result.UNCERTAIN
    assert {key for key, found in sent.grants.results.items() if found == ["accepted"]} >= set(ADDRESSES) - {BAD}


def test_replies_cannot_act() -> None:
    reply = b"550 5.1.1 \x1b[31m<img src=x>\x00\xff\xfe tab\there " + "é".encode() + b" " + b"long " * 300
    sent = send(at("RCPT", reply))
    assert sent.bad.text.isprintable()
    assert len(sent.bad.text) <= 500
    assert "é" in sent.bad.text
    assert "\x1b" not in sent.bad.text


def test_a_reply_of_ten_thousand_lines() -> None:
    reply = b"\r\n".join([b"550-5.1.1 no"] * 10_000 + [b"550 5.1.1 really not"])
    sent = send(at("RCPT", reply))
    assert (sent.bad.result, sent.bad.enhanced) == (Result.REJECTED, "5.1.1")
    assert len(sent.bad.text) <= 500
    assert len(sent.server.taken) == len(ADDRESSES) - 1


def test_a_relay_that_talks_without_being_asked_is_left() -> None:
    """One reply too many would be taken for the next message's."""

    class Stammering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(b"220 x\r\n")  # type: ignore[attr-defined]
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(b"250 x\r\n250 y\r\n")  # type: ignore[attr-defined]

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Stammering, "127.0.0.1", 0)
        grants = Recorder()
        pool = Pool(Relay("127.0.0.1", server.sockets[0].getsockname()[1], connections=1), grants)
        pool.start()
        async with asyncio.timeout(5):
            while not grants.reasons:
                await asyncio.sleep(0.01)
        pool.abort()
        server.close()
        await server.wait_closed()
        assert grants.outcomes == {}

    asyncio.run(main())


reply_lines = st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n")), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.integers(200, 599), reply_lines), max_size=5), st.data())
def test_replies_are_the_same_whatever_the_chunks(said: list[tuple[int, list[str]]], data: st.DataObject) -> None:
    stream = b"".join(
        b"%d%s%s\r\n" % (code, b"-" if line is not lines[-1] else b" ", line.encode())
        for code, lines in ((code, [f"{n}{line}" for n, line in enumerate(lines)]) for code, lines in said)
        for line in lines
    )
    replies, found = Replies(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += replies.feed(stream[:cut])
        stream = stream[cut:]
    assert found == [(code, b"\n".join(f"{n}{line}".encode() for n, line in enumerate(lines))) for code, lines in said]


@given(st.binary())
def test_any_octets_are_replies_or_garbage(octets: bytes) -> None:
    try:
        found = list(Replies().feed(octets))
    except Garbled as problem:
        found = [(500, str(problem).encode())]
    assert all(200 <= code <= 599 and len(text) < 20_000 for code, text in found)


def test_a_relay_cannot_fill_our_memory_with_one_reply() -> None:
    replies = Replies()
    with pytest.raises(Garbled, match="without an end"):
        list(replies.feed(b"250 " + b"x" * 100_000))
    replies = Replies()
    for _ in range(100):
        assert list(replies.feed(b"250-" + b"x" * 1_000 + b"\r\n")) == []
    ((_, text),) = replies.feed(b"250 " + b"x" * 100_000 + b"\r\n")
    assert len(text) < 20_000


def test_memory_stays_flat_before_a_relay_that_reads_slowly() -> None:
    """At most one body and one set of commands wait in a connection, however much is granted."""
    waiting: list[int] = []

    async def main() -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 x\r\n")
            line = await reader.readline()
            writer.write(b"250-x\r\n250 PIPELINING\r\n")
            while line := await reader.readline():
                if line == b"QUIT\r\n":
                    break
                if line == b"DATA\r\n":
                    writer.write(b"250 a\r\n250 b\r\n354 c\r\n")
                    await asyncio.sleep(0.01)
                    await reader.readuntil(b"\r\n.\r\n")
                    waiting.append(sum(c._transport.get_write_buffer_size() for c in pool._connections if c._transport))
                    writer.write(b"250 d\r\n")
            writer.close()

        server = await asyncio.start_server(slow, "127.0.0.1", 0, limit=1 << 24)
        body = b"Subject: x\r\n\r\n" + b"y" * (1 << 20) + b"\r\n"
        grants = Recorder(envelope(address, body) for address in ADDRESSES)
        relay = Relay("127.0.0.1", server.sockets[0].getsockname()[1], connections=1)
        pool = Pool(relay, grants)
        pool.start()
        await grants.until_done(pool)
        await pool.drain()
        server.close()
        await server.wait_closed()

    asyncio.run(main())
    assert len(waiting) == len(ADDRESSES)
    assert max(waiting) < 3 << 19


def test_a_build_that_fails_in_the_middle_is_never_half_sent() -> None:
    def broken() -> list[bytes]:
        raise ValueError("a value that cannot be written")

    def grants() -> Recorder:
        bad = Envelope(b"s@example.org", BAD.encode(), broken, key=BAD)
        return Recorder([*map(envelope, ADDRESSES[:5]), bad, *map(envelope, ADDRESSES[6:])])

    sent = send(lambda verb, rcpt: None, grants=grants)
    assert sent.bad == Outcome(Result.DEFERRED, text="could not be built")
    assert sent.arrived == sorted(set(ADDRESSES) - {BAD})
    assert len(sent.server.sessions) == 2


def test_draining_while_connections_come_up_ends_on_uvloop() -> None:
    """A connection whose opening is cancelled in the moment it comes up must not be waited for."""

    async def often() -> None:
        async with Server() as server:
            for turn in range(40):
                pool = Pool(Relay("127.0.0.1", server.port, connections=16), Recorder())
                pool.start()
                await asyncio.sleep(turn % 8 * 0.0005)
                await asyncio.wait_for(pool.drain(), 5)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(often())
