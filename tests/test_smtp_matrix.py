"""What a relay may do to a delivery, and what becomes of it: outcome, next try, address. Over a real socket, by a real
sender, into real books; each row goes on afterwards, for a relay that is well again must get the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from digest import models as m
from digest.db import Database
from digest.delivery.smtp import Pool
from digest.sending import Sender, Sent, run_async
from digest.types import Relay
from tests.certificates import Authority
from tests.office import Office
from tests.smtp_server import DROP, LOST, SILENCE, Script, Server, Slowly
from tests.test_sending import released

BAD = "reader1@example.org"
READERS = 4
SOON = (240, 360)  # seconds until the first retry, give or take a tenth and a slow machine

Books = list[str]


def at(verb: str, reply: bytes, times: int = 1) -> Callable[[], Script]:
    """At that verb, for that one reader; verbs before RCPT know no reader."""

    def new() -> Script:
        left = times

        def script(said: str, rcpt: str) -> bytes | None:
            nonlocal left
            if said == verb and left and (rcpt == BAD or verb in ("CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL")):
                left -= 1
                return reply
            return None

        return script

    return new


@dataclass
class Row:
    """``books``: outcomes of each attempt of that reader, with code and enhanced status; ``wait``: until the next try;
    ``trouble``: what is said of a relay that cannot be used, in which case nothing is counted against anybody."""

    name: str
    script: Callable[[], Script]
    books: Books = field(default_factory=lambda: ["accepted 250 2.0.0"])
    wait: tuple[float, float] | None = None
    suppressed: bool = False
    trouble: str = ""
    relay: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    anybody: bool = False  # the script hits whoever comes first


IMPATIENT = {"reply_timeout": 1.5, "data_timeout": 1.5}
ALWAYS = 10**6
LONG = b"\r\n".join([b"550-5.1.1 no"] * 10_000 + [b"550 5.1.1 really not"])

ROWS = [
    Row("nobody listens", at("CONNECT", b""), trouble="cannot be used", relay={"port": 1}),
    Row("banner 421", at("CONNECT", b"421 4.3.2 down", ALWAYS), trouble="421 4.3.2 down"),
    Row("banner 554", at("CONNECT", b"554 5.7.1 not for you", ALWAYS), trouble="554 5.7.1"),
    Row("EHLO garbage", at("EHLO", b"\x00\xff what", ALWAYS), trouble="cannot be used"),
    Row("no STARTTLS", at("NEVER", b""), trouble="not sent in clear", relay={"security": "starttls"}),
    Row("a certificate of nobody's", at("NEVER", b""), trouble="certificate does not fit",
        relay={"security": "starttls"}, server={"security": "starttls", "tls": "other"}),
    Row("AUTH 454", at("AUTH", b"454 4.7.0 not now", ALWAYS), trouble="454 4.7.0",
        relay={"username": "me", "password": "x"}, server={"extensions": (b"AUTH PLAIN",), "login": ("me", "x")}),
    Row("AUTH 535", at("AUTH", b"535 5.7.8 who?", ALWAYS), trouble="smtp.password_file",
        relay={"username": "me", "password": "x"}, server={"extensions": (b"AUTH PLAIN",), "login": ("me", "x")}),
    Row("MAIL 421", at("MAIL", b"421 4.7.0 one at a time"), ["deferred 421 4.7.0"], SOON, anybody=True),
    Row("MAIL 452", at("MAIL", b"452 4.3.1 no room"), ["deferred 452 4.3.1"], SOON, anybody=True),
    Row("MAIL 552", at("MAIL", b"552 5.3.4 too big"), ["rejected 552 5.3.4"], anybody=True),
    Row("RCPT 450", at("RCPT", b"450 4.2.1 greylisted"), ["deferred 450 4.2.1"], SOON),
    Row("RCPT 451", at("RCPT", b"451 try later"), ["deferred 451 None"], SOON),
    Row("RCPT 452", at("RCPT", b"452 4.5.3 too many"), ["deferred 452 4.5.3"], SOON),
    Row("RCPT 550 5.1.1", at("RCPT", b"550 5.1.1 nobody"), ["rejected 550 5.1.1"], suppressed=True),
    Row("RCPT 552 5.2.2", at("RCPT", b"552 5.2.2 full"), ["rejected 552 5.2.2"]),
    Row("RCPT 550 5.7.1", at("RCPT", b"550 5.7.1 policy"), ["rejected 550 5.7.1"]),
    Row("354 withheld", at("DATA", SILENCE), relay=IMPATIENT),
    Row("4xx after the dot", at("DOT", b"451 4.3.0 no disk"), ["deferred 451 4.3.0"], SOON),
    Row("5xx after the dot", at("DOT", b"554 5.6.0 no"), ["rejected 554 5.6.0"]),
    Row("421 after the dot", at("DOT", b"421 4.3.2 closing"), ["deferred 421 4.3.2"], SOON),
    Row("no reply after the dot", at("DOT", SILENCE), ["uncertain None None"], SOON, relay=IMPATIENT),
    Row("taken, and cut off before it could say so", at("DOT", LOST), ["uncertain None None"], SOON),
    Row("an octet at a time", at("DOT", Slowly(b"250 2.0.0 Ok: at last")), relay={"data_timeout": 60.0}),
    Row("a reply of ten thousand lines", at("RCPT", LONG), ["rejected 550 5.1.1"], suppressed=True),
    Row("NUL and 8-bit in a reply", at("RCPT", b"550 5.1.1 \x00\x1b[31m\xff\xfe<b>"), ["rejected 550 5.1.1"],
        suppressed=True),
    Row("half open", at("RCPT", SILENCE), relay=IMPATIENT),
    Row("closed between two mails", at("RCPT", DROP)),
]  # fmt: skip


def sent(office: Office, row: Row, server: Server) -> Sent:
    async def main() -> Sent:
        async with server:
            options = {"port": server.port, "connections": 1, "reply_timeout": 60.0, "data_timeout": 60.0, **row.relay}
            relay = Relay("127.0.0.1", **options)
            return await Sender(office.store(), lambda g: Pool(relay, g, pause=0.01, tries=3), connections=1).run()

    found: Sent = run_async(main)
    office.editor.finish()
    return found


def books(database: Database, address: str) -> Books:
    with database.reading() as session:
        rows = session.scalars(select(m.Attempt).where(m.Attempt.address == address).order_by(m.Attempt.attempt))
        return [f"{row.outcome} {row.code} {row.enhanced}" for row in rows]


def texts(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(m.Attempt.text)))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_becomes_of_a_delivery(row: Row, sqlite: Database, authority: Authority) -> None:
    office, addresses, edition = released(sqlite, readers=READERS)
    options = row.server | ({"tls": authority.context("other.example")} if "tls" in row.server else {})
    found = sent(office, row, Server(row.script(), **options))
    everyone = {address: books(sqlite, address) for address in addresses}
    hit = next((a for a, told in everyone.items() if told == row.books), None) if row.anybody else BAD
    assert all(text.isprintable() and len(text) <= 500 for text in texts(sqlite))
    if row.trouble:
        assert row.trouble in str(found.trouble)
        assert set(map(tuple, everyone.values())) == {()}, "no attempt was counted"
    else:
        assert found.trouble is None
        assert hit is not None, everyone
        assert everyone.pop(hit) == row.books
        assert set(map(tuple, everyone.values())) == {("accepted 250 2.0.0",)}, "it cost nobody else anything"
    after(office, edition, row, hit or BAD)


def after(office: Office, edition: int, row: Row, hit: str) -> None:
    """When it is tried again, whether its address may still be written to, and that the edition ends."""
    with office.db.transaction() as session:
        waiting = session.scalars(select(m.Batch).where(m.Batch.done.is_(False))).all()
        suppressed = set(session.scalars(select(m.Suppression.address_key)))
        assert suppressed == ({hit} if row.suppressed else set())
        assert len(waiting) == (1 if row.wait or row.trouble else 0)
        if row.wait:
            low, high = row.wait
            assert low < (waiting[0].not_before - datetime.now(UTC)).total_seconds() < high
            waiting[0].not_before = datetime.now(UTC) - timedelta(days=1)
    well = replace(row, relay={}, server={})
    sent(office, well, Server())
    counts = office.counts(edition)
    rejected = sum(told.startswith("rejected") for told in row.books)
    assert counts == {"accepted": READERS - rejected} | ({"rejected": rejected} if rejected else {})
    assert office.editions()[0].status == "finished"


def test_the_matrix_is_whole() -> None:
    assert len(ROWS) >= 26
    assert len({row.name for row in ROWS}) == len(ROWS)
