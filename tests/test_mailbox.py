"""Polling a mailbox over real IMAP and POP3: nothing is removed before it is kept, and no letter is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select

from digest import audience, bounces
from digest import models as m
from digest.bounces import Taken
from digest.db import Database
from digest.delivery.mailbox import open_mailbox
from digest.delivery.reports import LIMIT
from digest.errors import DeliveryError
from digest.types import MailPlace
from tests import build, reports
from tests.mail_servers import Held, make_certificate, serving
from tests.test_bounces import DOMAIN, KEYS, envelope

PERSON = b"From: Amara <amara@example.org>\nTo: news@news.example\nSubject: Thank you!\n\nA fine paper.\n"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture(autouse=True)
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.fixture(params=["imap", "pop"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def place(protocol: str, held: Held, certificate: Path) -> Iterator[MailPlace]:
    with serving(protocol, held, certificate) as port:
        yield MailPlace(protocol, "localhost", port, "tls", "bounces", held.password, timeout_s=5)  # type: ignore[arg-type]


def poll(database: Database, place: MailPlace, told: list[Taken] | None = None, **options: int) -> bounces.Polled:
    heard = [] if told is None else told
    return bounces.poll(
        database, place, keys=KEYS, domain=DOMAIN, now=lambda: datetime.now(UTC), told=heard.append, **options
    )


def readers(database: Database, count: int) -> list[tuple[int, str]]:
    with database.transaction() as session:
        return [(build.subscriber(session, a := f"poll{n}@example.org").id, a) for n in range(count)]


def test_bounces_are_kept_and_removed_and_a_persons_letter_stays(
    database: Database, place: MailPlace, held: Held
) -> None:
    (who, address), *_ = readers(database, 1)
    held.put(
        reports.dsn(to=envelope(7, who), rcpt=address), PERSON, reports.absent(to=envelope(7, who), sender=address)
    )
    told: list[Taken] = []
    polled = poll(database, place, told)
    assert (polled.read, polled.left) == (3, 1)
    assert [(t.kind, t.action) for t in told] == [
        ("bounce", "suppressed"), ("unknown", "none"), ("auto_reply", "none"),
    ]  # fmt: skip
    assert list(held.messages.values()) == [PERSON]
    if place.protocol == "imap":
        assert held.flags[2] == {r"\Flagged"}, "a person sees a star"
        assert poll(database, place).read == 0, "and it is not read again"
    with database.reading() as session:
        assert audience.suppression(session, address) == "bounce"


def test_a_connection_that_breaks_loses_nothing_and_counts_nothing_twice(
    database: Database, place: MailPlace, held: Held
) -> None:
    people = readers(database, 8)
    held.put(*(reports.dsn(to=envelope(7, who), rcpt=address) for who, address in people))
    held.breaks_after = 5
    with pytest.raises(DeliveryError, match=r"cannot be read .*; check \[bounces\]"):
        poll(database, place)
    assert len(held.messages) == 8, "nothing goes before the end"
    held.breaks_after = None
    told: list[Taken] = []
    poll(database, place, told)
    assert held.messages == {}
    if place.protocol == "pop":
        assert [t.action for t in told] == ["none"] * 5 + ["suppressed"] * 3
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(m.DeliveryEvent)) == 8
        assert session.scalar(select(func.count()).select_from(m.Suppression)) == 8


def test_a_failing_database_removes_nothing(database: Database, place: MailPlace, held: Held) -> None:
    held.put(reports.dsn(to=envelope(7, 1), rcpt="a@example.org"))
    with database.transaction() as session:
        session.execute(m.Base.metadata.tables["delivery_events"].delete())
        session.connection().exec_driver_sql("ALTER TABLE delivery_events RENAME TO away")
    with pytest.raises(Exception, match=r"(?i)delivery_events|schema"):
        poll(database, place)
    assert len(held.messages) == 1
    with database.transaction() as session:
        session.connection().exec_driver_sql("ALTER TABLE away RENAME TO delivery_events")
    assert poll(database, place).read == 1
    assert held.messages == {}


# The rest needs no second database.


def test_a_large_message_is_cut_and_long_lines_and_dots_pass(sqlite: Database, place: MailPlace, held: Held) -> None:
    (who, address), *_ = readers(sqlite, 1)
    long = reports.dsn(to=envelope(7, who), rcpt=address, returned="Subject: x\n\n.dot\n..two\n" + "x" * 5_000_000)
    held.put(long)
    with open_mailbox(place) as mailbox:
        (letter,) = mailbox.letters(10)
    assert letter.size >= len(long)
    assert len(letter.octets) == LIMIT
    assert b"\n.dot" in letter.octets.replace(b"\r", b"")
    assert b"\n..two" in letter.octets.replace(b"\r", b"")
    told: list[Taken] = []
    assert poll(sqlite, place, told).read == 1
    assert told[0].action == "suppressed"
    assert (told[0].reason or "").startswith("it is 5,0")


def test_a_mailbox_of_more_than_one_round(sqlite: Database, place: MailPlace, held: Held) -> None:
    held.put(*(PERSON + b"%d" % n for n in range(12)))
    held.put(*(reports.dsn(to=f"b+1.{n}.x@{DOMAIN}", rcpt="a@example.org") for n in range(38)))
    assert poll(sqlite, place, together=10).read == 50
    assert len(held.messages) == 12
    assert held.sessions >= 3, "what is kept is removed on the way"


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_does_not_match_is_refused(
    protocol: str, held: Held, certificate: Path, security: str
) -> None:
    with serving(protocol, held, certificate, tls=security == "tls") as port:
        place = MailPlace(protocol, "127.0.0.1", port, security, "bounces", "letmein", timeout_s=5)  # type: ignore[arg-type]
        with pytest.raises(DeliveryError, match=r"(?i)certificate"), open_mailbox(place):
            pass
        with open_mailbox(replace(place, host="localhost")) as mailbox:
            assert list(mailbox.letters(5)) == []


def test_what_a_person_is_told_holds_no_password(place: MailPlace, held: Held) -> None:
    held.password = "another"
    with pytest.raises(DeliveryError) as told, open_mailbox(place):
        pass
    assert "wrong password" in str(told.value)
    assert "letmein" not in str(told.value) + repr(place)
    with pytest.raises(DeliveryError, match="cannot be read"), open_mailbox(replace(place, port=1)):
        pass


def test_without_uidplus_what_is_marked_goes(sqlite: Database, held: Held, certificate: Path) -> None:
    held.uidplus = False
    held.put(reports.dsn(to="b+1.1.x@x.example", rcpt="a@example.org"))
    with serving("imap", held, certificate) as port:
        poll(sqlite, MailPlace("imap", "localhost", port, "tls", "bounces", "letmein"))
    assert held.messages == {}
