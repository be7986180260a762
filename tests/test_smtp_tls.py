"""TLS and signing in: three ways to a relay, and no way around its certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from digest.delivery.smtp import Pool
from digest.errors import DeliveryError
from digest.types import Relay
from tests.certificates import Authority
from tests.grants import Recorder, envelope
from tests.smtp_server import DROP, SILENCE, Script, Server

ADDRESSES = [f"r{n}@example.net" for n in range(8)]
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop,
}  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@dataclass
class Sent:
    grants: Recorder
    server: Server
    error: str | None = None

    @property
    def in_clear(self) -> list[str]:
        """What the server was told before TLS."""
        return [line for log in self.server.sessions for line in log[: log.index("(TLS)") if "(TLS)" in log else None]]


def send(
    relay: dict[str, Any] | None = None, script: Script = lambda verb, rcpt: None, loop: str = "asyncio", **server: Any
) -> Sent:
    async def main() -> Sent:
        grants = Recorder(map(envelope, ADDRESSES))
        async with Server(script, **server) as other:
            options = {"connections": 2, "host": "127.0.0.1", "reply_timeout": 2.0, "connect_timeout": 2.0}
            pool = Pool(Relay(port=other.port, **{**options, **(relay or {})}), grants, pause=0.01)
            pool.start()
            try:
                await grants.until_done(pool)
            except DeliveryError as problem:
                return Sent(grants, other, str(problem))
            await pool.drain()
            return Sent(grants, other)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main())


def all_arrived(sent: Sent) -> bool:
    return sent.error is None and sorted(t.rcpt for t in sent.server.taken) == ADDRESSES


# ----------------------------------------------------------------------------- the certificate


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("pipelining", [True, False])
def test_mail_goes_over_tls(authority: Authority, security: str, loop: str, pipelining: bool) -> None:
    tls = authority.context("127.0.0.1")
    relay = {"security": security, "ca_file": authority.ca}
    sent = send(relay, loop=loop, tls=tls, security=security, pipelining=pipelining)
    assert all_arrived(sent)
    if security == "starttls":
        assert {line.split()[0] for line in sent.in_clear} == {"EHLO", "STARTTLS"}
        after = sent.server.sessions[0][sent.server.sessions[0].index("(TLS)") + 1]
        assert after.startswith("EHLO"), "what was said before TLS is forgotten"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize(
    ("names", "days", "trusted", "why"),
    [
        (["mail.example.org"], 1, True, "mismatch"),
        (["127.0.0.1"], -1, True, "expired"),
        (["127.0.0.1"], 1, False, "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_that_does_not_fit_is_one_sentence_and_no_mail(
    authority: Authority, names: list[str], days: int, trusted: bool, why: str, security: str, loop: str
) -> None:
    relay = {"security": security, "ca_file": authority.ca if trusted else None}
    sent = send(relay, loop=loop, tls=authority.context(*names, days=days), security=security)
    assert sent.error is not None
    assert "its certificate does not fit" in sent.error
    assert why in sent.error
    assert "smtp.ca_file" in sent.error
    assert sent.server.taken == []
    assert sent.grants.outcomes == {}
    assert len(sent.grants.queue) == len(ADDRESSES)
    assert not any(line.startswith(("MAIL", "AUTH")) for line in sent.in_clear)


def test_a_relay_without_starttls_gets_nothing_in_clear() -> None:
    sent = send({"security": "starttls"})
    assert "does not offer STARTTLS" in (sent.error or "")
    assert {line.split()[0] for log in sent.server.sessions for line in log} == {"EHLO"}
    refused = send({"security": "starttls"}, lambda verb, rcpt: b"502 no" if verb == "EHLO" else None)
    assert refused.error
    assert not any("HELO " in line for log in refused.server.sessions for line in log if line[0] == "H")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("said", [b"220 go\r\n250 PIPELINING", b"220 go\r\n250-half a reply", b"220 go\r\n250 x\r\n2"])
def test_what_is_said_between_the_reply_and_the_handshake_ends_the_session(
    authority: Authority, said: bytes, loop: str
) -> None:
    sent = send(
        {"security": "starttls", "ca_file": authority.ca},
        lambda verb, rcpt: said if verb == "STARTTLS" else None,
        loop=loop, tls=authority.context("127.0.0.1"), security="starttls",
    )  # fmt: skip
    assert "in clear" in (sent.error or "")
    assert sent.server.taken == []


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("reply", [b"454 4.7.0 TLS not available", DROP, SILENCE, b"nonsense"])
def test_a_relay_that_cannot_begin_tls_now_counts_no_attempt(authority: Authority, reply: bytes, loop: str) -> None:
    sent = send(
        {"security": "starttls", "ca_file": authority.ca, "reply_timeout": 0.05},
        lambda verb, rcpt: reply if verb == "STARTTLS" else None,
        loop=loop, tls=authority.context("127.0.0.1"), security="starttls",
    )  # fmt: skip
    assert "Nothing is lost" in (sent.error or "")
    assert sent.grants.outcomes == {}


@pytest.mark.parametrize("loop", LOOPS)
def test_tls_where_there_is_none_and_none_where_there_is_tls(authority: Authority, loop: str) -> None:
    clear = send({"security": "tls", "ca_file": authority.ca, "connect_timeout": 0.3}, loop=loop)
    assert clear.error
    assert clear.grants.outcomes == {}
    wrapped = send({"reply_timeout": 0.1}, loop=loop, tls=authority.context("127.0.0.1"), security="tls")
    assert wrapped.error
    assert wrapped.grants.outcomes == {}


def test_a_file_of_authorities_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(DeliveryError, match=r"smtp\.ca_file"):
        Pool(Relay("127.0.0.1", 1, security="tls", ca_file=tmp_path / "ca.pem"), Recorder())


@pytest.mark.parametrize("loop", LOOPS)
def test_draining_while_tls_begins_ends(authority: Authority, loop: str) -> None:
    async def often() -> None:
        async with Server(tls=authority.context("127.0.0.1"), security="starttls") as server:
            for turn in range(12):
                relay = Relay("127.0.0.1", server.port, connections=8, security="starttls", ca_file=authority.ca)
                pool = Pool(relay, Recorder())
                pool.start()
                await asyncio.sleep(turn % 6 * 0.002)
                await asyncio.wait_for(pool.drain(), 5)

    run: Coroutine[Any, Any, None] = often()
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(run)


# ----------------------------------------------------------------------------- signing in

ME = {"username": "désk", "password": "pässword \\ \" 'ok"}
LOGIN = (ME["username"], ME["password"])


@pytest.mark.parametrize("mechanisms", [b"AUTH PLAIN LOGIN", b"AUTH LOGIN", b"auth cram-md5 login"])
def test_signing_in(authority: Authority, mechanisms: bytes) -> None:
    tls = authority.context("127.0.0.1")
    for security in ("none", "starttls", "tls"):  # in clear on loopback alone
        relay = {"security": security, "ca_file": authority.ca, **ME}
        sent = send(relay, tls=tls, security=security, login=LOGIN, extensions=(mechanisms,))
        assert all_arrived(sent), security


@pytest.mark.parametrize(
    ("reply", "why"),
    [(None, "smtp.password_file"), (b"454 4.7.0 later", "454"), (b"334 again", "334"), (DROP, "closed")],
)
def test_who_is_not_let_in_loses_nothing(reply: bytes | None, why: str) -> None:
    script: Script = lambda verb, rcpt: reply if verb == "AUTH" else None  # noqa: E731
    sent = send({**ME, "password": "wrong"}, script, login=LOGIN, extensions=(b"AUTH PLAIN",))
    assert why in (sent.error or "")
    assert "wrong" not in (sent.error or "")
    assert sent.grants.outcomes == {}
    assert len(sent.grants.queue) == len(ADDRESSES)


def test_a_relay_that_knows_no_way_of_signing_in_that_we_know() -> None:
    sent = send(ME, login=LOGIN, extensions=(b"AUTH GSSAPI",))
    assert "neither AUTH PLAIN nor AUTH LOGIN" in (sent.error or "")
    assert {line.split()[0] for log in sent.server.sessions for line in log} == {"EHLO"}


def test_a_password_never_travels_readable() -> None:
    with pytest.raises(DeliveryError, match="travel readable"):
        Pool(Relay("mail.example.org", 25, **ME), Recorder())  # type: ignore[arg-type]
    assert "pässword" not in repr(Relay("mail.example.org", 25, **ME))  # type: ignore[arg-type]
