"""The capture server over real sockets: the octets that came, stored before they are answered."""

from __future__ import annotations

import asyncio
import logging
import smtplib
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from digest.delivery.capture import SIZE_LIMIT, CaptureServer
from digest.delivery.smtp import Pool
from digest.errors import DeliveryError
from digest.types import CaughtMail, Relay
from tests.grants import Recorder, envelope


class Box:
    """Where caught mails go."""

    def __init__(self) -> None:
        self.groups: list[list[CaughtMail]] = []
        self.threads: set[int] = set()
        self.broken = False
        self.slow = 0.0

    def store(self, mails: Sequence[CaughtMail]) -> None:
        self.threads.add(threading.get_ident())
        time.sleep(self.slow)
        if self.broken:
            raise OSError("disk full")
        self.groups.append(list(mails))

    @property
    def mails(self) -> list[CaughtMail]:
        return [mail for group in self.groups for mail in group]


def talk(port: int, octets: bytes) -> list[bytes]:
    """Write everything at once, as a client that pipelines, and read until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(octets)
        reply = b""
        while chunk := client.recv(65536):
            reply += chunk
    return reply.splitlines()


ENVELOPE = b"EHLO me\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"


def stuffed(message: bytes) -> bytes:
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


lines = st.lists(
    st.sampled_from([b"", b".", b"..", b"x.", b"a" * 80, b".x", b"\x00\xff\xc3\xa9", b"From me"]), max_size=6
)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Box, CaptureServer]]:
    box = Box()
    with CaptureServer("127.0.0.1", 0, box.store) as server:
        yield box, server


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines)
@example([b"", b"", b""])
@example([b""])
@example([b"."])
@example([b"", b"."])
def test_the_octets_are_kept_as_they_came(running: tuple[Box, CaptureServer], body: list[bytes]) -> None:
    box, server = running
    message = b"".join(line + b"\r\n" for line in body)
    replies = talk(server.port, ENVELOPE + stuffed(message) + b"QUIT\r\n")
    assert replies[-2:] == [b"250 2.0.0 Ok: caught", b"221 Bye"]
    assert box.mails[-1].message == message
    assert (box.mails[-1].mail_from, box.mails[-1].rcpt_to) == ("a@x.example", ("b@y.example",))


def test_many_mails_in_one_breath(running: tuple[Box, CaptureServer]) -> None:
    box, server = running
    before = len(box.mails)
    mail = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nhello\r\n.\r\n"
    replies = talk(server.port, b"EHLO me\r\n" + mail * 20 + b"QUIT\r\n")
    assert b"250-PIPELINING" in replies
    assert replies.count(b"250 2.0.0 Ok: caught") == 20
    assert len(box.mails) == before + 20


def test_a_library_can_send_to_it(running: tuple[Box, CaptureServer]) -> None:
    box, server = running
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.sendmail("a@x.example", ["b@y.example", "c@y.example"], "Subject: é\r\n\r\nx\r\n".encode())
        assert client.docmd("MAIL nonsense")[0] == 501
    assert box.mails[-1].rcpt_to == ("b@y.example", "c@y.example")


def test_an_address_beyond_ascii(running: tuple[Box, CaptureServer]) -> None:
    box, server = running
    talk(server.port, ENVELOPE.replace(b"b@y", "jörg@y".encode()) + b"x\r\n.\r\nQUIT\r\n")
    assert box.mails[-1].rcpt_to == ("jörg@y.example",)


def test_too_large_is_refused_and_the_next_is_taken(running: tuple[Box, CaptureServer]) -> None:
    box, server = running
    before = len(box.mails)
    huge = b"x" * 70 + b"\r\n"
    one = ENVELOPE + huge * (SIZE_LIMIT // len(huge) + 1) + b".\r\n"
    endless = ENVELOPE[9:] + b"y" * (SIZE_LIMIT + 1) + b"\r\n.\r\n"
    replies = talk(server.port, one + endless + ENVELOPE[9:] + b"small\r\n.\r\nQUIT\r\n")
    assert [reply[:3] for reply in replies].count(b"552") == 2
    assert [m.message for m in box.mails[before:]] == [b"small\r\n"]


def test_what_is_not_stored_is_not_taken() -> None:
    box = Box()
    box.broken = True
    with CaptureServer("127.0.0.1", 0, box.store) as server:
        assert talk(server.port, ENVELOPE + b"x\r\n.\r\nQUIT\r\n")[-2].startswith(b"451 4.3.0")
        box.broken = False
        assert talk(server.port, ENVELOPE + b"x\r\n.\r\nQUIT\r\n")[-2].startswith(b"250")
    assert len(box.mails) == 1


def test_mails_are_stored_in_groups_and_in_one_thread_before_they_are_answered() -> None:
    async def main(port: int) -> dict[str, list[str]]:
        grants = Recorder(envelope(f"r{n}@example.net") for n in range(200))
        pool = Pool(Relay("127.0.0.1", port, connections=8), grants)
        pool.start()
        await grants.until_done(pool)
        await pool.drain()
        return grants.results

    box = Box()
    box.slow = 0.005
    with CaptureServer("127.0.0.1", 0, box.store) as server:
        results = asyncio.run(main(server.port))
    assert set(map(tuple, results.values())) == {("accepted",)}
    assert sorted(m.rcpt_to[0] for m in box.mails) == sorted(results)
    assert len(box.threads) == 1
    assert len(box.groups) < 150, "a group a commit, not a mail a commit"


def test_stopping_keeps_what_was_answered_and_frees_the_port() -> None:
    box = Box()
    box.slow = 0.2
    server = CaptureServer("127.0.0.1", 0, box.store)
    server.start()
    port = server.port
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(ENVELOPE + b"x\r\n.\r\n")
        time.sleep(0.1)
        server.stop()
        server.stop()
        assert client.recv(65536).endswith(b"250 2.0.0 Ok: caught\r\n")
    assert len(box.mails) == 1, "what was being stored is stored"
    with CaptureServer("127.0.0.1", port, box.store) as again:
        assert again.port == port


def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    with CaptureServer("127.0.0.1", 0, Box().store) as first:
        second = CaptureServer("127.0.0.1", first.port, Box().store)
        with pytest.raises(DeliveryError, match=rf"cannot listen on 127.0.0.1:{first.port} .*capture.port"):
            second.start()
        second.stop()


def test_a_client_that_goes_away_in_the_middle_stores_nothing() -> None:
    box = Box()
    with CaptureServer("127.0.0.1", 0, box.store) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(ENVELOPE + b"half a message\r\n")
            time.sleep(0.05)
        assert talk(server.port, ENVELOPE + b"whole\r\n.\r\nQUIT\r\n")[-2].startswith(b"250")
    assert [m.message for m in box.mails] == [b"whole\r\n"]


def test_no_address_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with CaptureServer("127.0.0.1", 0, Box().store) as server:
        talk(server.port, ENVELOPE + b"x\r\n.\r\nQUIT\r\n")
    assert "y.example" not in caplog.text
