"""Bounces and suppressions from the command line, as a mail server and an admin use them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from digest import models as m
from digest.db import Database
from digest.delivery.message import leaving_address, verp
from tests import build, reports
from tests.test_cli import ROOT, Shell, T

TAKEN = {"kind", "email", "status", "action", "reason", "edition"}


@pytest.fixture
def shell(database_url: str, tmp_path: Path) -> Shell:
    return Shell(
        tmp_path, DIGEST_DATABASE__URL=database_url, DIGEST_MAIL_DOMAIN="news.example", DIGEST_BOUNCES__READ="true"
    )


@pytest.fixture
def edition(shell: Shell, database: Database) -> int:
    """An edition that went to two readers, into the capture server."""
    with database.transaction() as session:
        build.publication(session)
        build.article(session, title="Rain", categories=["Africa"])
    shell("digests", "add", "africa", "--name", "Africa", "--category", "africa", "--schedule", "0 7 * * *")
    for name in ("amara", "bram"):
        shell("subscribers", "add", f"{name}@example.org", "--digest", "africa", "--confirmed")
    return int(shell("run", "africa", "--at", "2025-07-14T12:00:00Z", "--yes", "--json").row["edition"])


def test_a_bounce_by_pipe_and_the_story_of_its_mail(
    shell: Shell, edition: int, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with database.reading() as session:
        who = session.scalars(select(m.Subscriber.id).filter_by(address="amara@example.org")).one()
        caught = session.scalars(select(m.CapturedMail)).all()
        sender, message = next((c.mail_from, c.message) for c in caught if c.rcpt_to == ["amara@example.org"])
        key = session.scalars(select(m.Secret.value).filter_by(name="message_id")).one()
        subscription = session.scalars(select(m.Subscription.id).filter_by(subscriber_id=who)).one()
    assert sender == verp(edition, who, key, "news.example"), "the envelope that a bounce comes back to"
    leaving = leaving_address(subscription, key, "news.example")
    assert f", <mailto:{leaving}?subject=unsubscribe>\r\n".encode() in message

    row = shell("bounce", "--json", input=reports.dsn(to=sender, rcpt="amara@example.org").decode()).row
    assert row.keys() == TAKEN
    assert row == {
        "kind": "bounce", "email": "amara@example.org", "status": "5.1.1", "action": "suppressed", "reason": None,
        "edition": edition,
    }  # fmt: skip
    story = shell("deliveries", "show", "amara@example.org", "--edition", str(edition), "--json").row
    assert story.keys() == {"email", "edition", "outcome", "message_id", "attempts", "events"}
    assert story["outcome"] == "accepted", "a bounce is no outcome"
    assert story["attempts"][0].keys() == {"attempt", "outcome", "code", "enhanced", "text", "email", "at"}
    (event,) = story["events"]
    assert event.keys() == {"at", "kind", "status", "action", "reason", "source", "text"}
    assert (event["kind"], event["source"], event["text"]) == ("bounce", "pipe", "550 5.1.1 no such user here")
    assert "no such user here" in shell("deliveries", "show", "amara@example.org", "--edition", str(edition)).out
    assert "not released to" in shell.refused("deliveries", "show", "x@example.org", "--edition", str(edition))
    assert shell("suppressions", "list", "--json").row["reason"] == "bounce"

    left = shell("bounce", "--json", input=reports.leaving(to=leaving, sender="x@example.org").decode()).row
    assert (left["kind"], left["action"]) == ("unsubscribe", "unsubscribed")
    hidden = reports.qmail(to="undisclosed", rcpt="bram@example.org").decode()
    assert shell("bounce", "--json", input=hidden).row["action"] == "none"
    named = shell("bounce", "--recipient", sender, "--json", input=hidden + "\n").row
    assert named["action"] == "suppressed"
    assert [r["kind"] for r in shell("bounces", "list", "--json").rows] == ["bounce", "unsubscribe", "bounce", "bounce"]
    assert "amara" not in caplog.text
    assert sender not in caplog.text


def test_a_mail_server_is_told_to_try_again_when_the_database_is_not_there(tmp_path: Path) -> None:
    shell = Shell(tmp_path, DIGEST_DATABASE__URL="postgresql://nobody@127.0.0.1:1/none")
    said = shell("bounce", code=75, input="From: x\n\n")
    assert said.err.startswith("digest: the database cannot be reached")


def test_an_erased_reader_leaves_counts_and_a_hash(shell: Shell, edition: int, database: Database) -> None:
    with database.reading() as session:
        who = session.scalars(select(m.Subscriber.id).filter_by(address="amara@example.org")).one()
        key = session.scalars(select(m.Secret.value).filter_by(name="message_id")).one()
    gone = reports.dsn(to=verp(edition, who, key, "news.example"), rcpt="amara@example.org").decode()
    shell("bounce", input=gone)
    row = shell("subscribers", "erase", "Amara@Example.org", "--yes", "--json").row
    assert row == {"erased": 1, "kept": "hash", "reason": "bounce"}
    assert "nothing is held of" in shell.refused("subscribers", "erase", "nobody@example.org", "--yes")
    with database.reading() as session:
        tables = m.Base.metadata.sorted_tables
        held = " ".join(str(row) for table in tables for row in session.execute(select(table)).all())
    assert "amara" not in held.lower()
    assert "bram@example.org" in held
    counts = shell("editions", "list", "--json").row
    assert counts["accepted"] == 2
    assert shell("suppressions", "list", "--email", "amara@example.org", "--json").row["reason"] == "bounce"
    added = shell.refused("subscribers", "add", "amara@example.org", "--digest", "africa", "--confirmed")
    assert "suppressed (bounce)" in added


@pytest.mark.slow
def test_fifty_megabytes_by_pipe_are_one_row_in_little_memory(tmp_path: Path, sqlite: Database) -> None:
    (tmp_path / "empty.toml").touch()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("DIGEST_")}
    environ |= {
        "DIGEST_CONFIG": str(tmp_path / "empty.toml"),
        "DIGEST_DATA_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    measured = (
        "import sys; from digest.cli import cli; from tests.memory import peak_kb\n"
        "try: cli.main(['bounce', '--json'], prog_name='digest')\n"
        "finally: print(peak_kb() // 1024, file=sys.stderr)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", measured], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(reports.dsn(to="b+1.1.00000000000000000000@news.example", rcpt="amara@example.org"))
        for _ in range(50):
            process.stdin.write(b"x" * 999 + b"\n" + b"y" * ((1 << 20) - 1000))
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count(b"\n") == 1
    assert b"octets long" in out
    assert int(err.split()[-1]) < 200


def test_suppressions_from_the_command_line(shell: Shell, database: Database, tmp_path: Path) -> None:
    keys = {"email", "hash", "reason", "detail", "at"}
    row = shell("suppressions", "add", "Amara@Example.org", "--detail", "asked by phone", "--json").row
    assert row.keys() == keys
    assert (row["email"], row["reason"], row["detail"]) == ("amara@example.org", "manual", "asked by phone")
    (tmp_path / "list.csv").write_text("email,reason\nbram@example.org,spam\nno address,spam\n")
    report = shell("suppressions", "import", str(tmp_path / "list.csv"), "--json")
    assert {k: v for k, v in report.row.items() if k != "seconds"} == {
        "rows": 2, "new": 1, "unchanged": 0, "invalid": 1,
    }  # fmt: skip
    assert "1 rows name no address" in report.err
    shell("suppressions", "export", str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "email,hash,reason,detail,at"
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o644
    assert [r["email"] for r in shell("suppressions", "export", "--json").rows] == [
        "amara@example.org", "bram@example.org",
    ]  # fmt: skip
    assert shell("suppressions", "list", "--reason", "complaint", "--json").row["email"] == "bram@example.org"
    assert shell("suppressions", "list", "--email", "x@example.org", "--fail-empty", code=3).out == ""
    assert shell("suppressions", "remove", "AMARA@example.org", "--json").row == {"removed": 1, "reason": "manual"}
    assert "is not suppressed" in shell.refused("suppressions", "remove", "amara@example.org")
    assert "say which" in shell.refused("suppressions", "remove")
    gone = shell("suppressions", "remove", "--reason", "complaint", "--since", f"{T:%Y-%m-%dT%H:%M:%SZ}", "--json").row
    assert gone == {"removed": 1, "reason": "complaint"}
    assert "no mailbox of bounces is set" in shell.refused("bounces", "poll", code=4)
