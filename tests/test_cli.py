"""The command from outside: keys that stay, exit codes, one sentence for whatever is wrong, on both databases."""

from __future__ import annotations

import asyncio
import csv
import email
import email.policy
import html
import io
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import dkim as verifier
import pytest
from click.testing import CliRunner
from sqlalchemy import select as choose
from sqlalchemy import update

from digest.cli import cli
from digest.db import Database
from digest.models import CapturedMail, Source
from tests import build
from tests.build import T
from tests.smtp_server import Server

ROOT = Path(__file__).parents[1]
AT = "2025-07-14T12:00:00Z"
EDITION = {
    "edition", "digest", "scheduled_for", "status", "reason", "recipients", "accepted", "deferred", "rejected",
    "uncertain", "suppressed", "expired", "cancelled",
}  # fmt: skip
ARTICLE = {"id", "title", "url", "published_at", "categories", "tags", "author", "story"}


@dataclass
class Said:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.rows
        return row


class Shell:
    """Runs commands on one database, with no settings but these."""

    def __init__(self, folder: Path, **environ: str) -> None:
        (folder / "empty.toml").touch()
        self.environ = {
            "DIGEST_CONFIG": str(folder / "empty.toml"),
            "DIGEST_DATA_DIR": str(folder),
            "CHROMIUM": "",
            **environ,
        }

    def __call__(self, *words: str, code: int = 0, input: str | None = None, **environ: str) -> Said:
        result = CliRunner().invoke(cli, words, env={**self.environ, **environ}, input=input)
        said = Said(result.exit_code, result.stdout, result.stderr)
        assert said.code == code, (words, said)
        assert "Traceback" not in result.output
        return said

    def refused(self, *words: str, code: int = 2, **environ: str) -> str:
        """The one sentence of a command that must fail, with nothing on stdout."""
        said = self(*words, code=code, **environ)
        assert said.out == ""
        assert said.err.startswith("digest: ")
        assert said.err.count("\n") == 1
        return said.err.removeprefix("digest: ").rstrip()

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """The command as a process of its own."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("DIGEST_")}
        environ |= {**self.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen([sys.executable, "-m", "digest", *words], env=environ, **options)


@pytest.fixture
def shell(database_url: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, DIGEST_DATABASE__URL=database_url)


@pytest.fixture
def full(shell: Shell, database: Database) -> Shell:
    """Three articles, a digest with two readers, one by text."""
    with database.transaction() as session:
        build.publication(session, timezone="Europe/Berlin", postal_address="1 Quay Street")
        source = build.source(session, slug="wire", kind="feed", location="/nowhere/feed.xml", imported_at=T)
        source.polled_at = T
        for n, (category, tag) in enumerate([("Africa", "trade"), ("Africa", "sports"), ("Europe", "trade")]):
            build.article(
                session, categories=[category], tags=[tag], authors=["Ada Obi"], age=timedelta(hours=n + 1),
                source_id=source.id,
            )  # fmt: skip
    shell("digests", "add", "africa", "--name", "Africa", "--category", "africa", "--schedule", "0 7 * * *")
    shell("subscribers", "add", "amara@example.org", "--digest", "africa", "--confirmed")
    shell("subscribers", "add", "bram@example.org", "--digest", "africa", "--confirmed", "--format", "text")
    return shell


def caught(database: Database) -> list[Any]:
    from digest import ledger

    with database.reading() as session:
        return [
            email.message_from_bytes(mail.message, policy=email.policy.default)
            for mail in ledger.captured(session, 100)
        ]


# ----------------------------------------------------------------------------- selection


def test_marks_and_wishes_are_taken_shown_and_taken_back(full: Shell) -> None:
    first, *_ = (row["id"] for row in full("articles", "list", "--json").rows)
    pinned = full("articles", "pin", str(first), "--digest", "africa", "--until", "2099-01-01T00:00:00Z", "--json").row
    assert pinned["marks"] == [{"kind": "pin", "digest": "africa", "until": "2099-01-01T00:00:00Z"}]
    assert full("articles", "show", str(first), "--json").row["marks"] == pinned["marks"]
    assert full("articles", "exclude", str(first), "--json").row["marks"][0]["digest"] is None
    assert full("articles", "unmark", str(first), "--json").row["marks"] == []
    assert "did you mean africa?" in full.refused("articles", "pin", str(first), "--digest", "afrika")
    given = ("--quota", "category:africa=2", "--per-author", "1", "--score", "recency=1", "--sections", "category")
    kept = full("digests", "set", "africa", *given, "--json").row["selection"]
    assert kept == {
        "quotas": {"category:africa": 2}, "per_author": 1, "score": {"recency": 1.0}, "sections": "category",
    }  # fmt: skip
    assert "recency" in full("preview", "africa", "--at", "2025-07-15T07:00:00Z", "--why").out
    back = ("--quota", "", "--per-author", "0", "--score", "", "--sections", "none")
    assert full("digests", "set", "africa", *back, "--json").row["selection"] == {}


# ----------------------------------------------------------------------------- keys


def test_every_row_has_its_keys(full: Shell, tmp_path: Path) -> None:
    listed = full("sources", "list", "--json").row
    assert {"source", "kind", "location", "categories"} <= listed.keys()
    assert full("articles", "list", "--json").rows[0].keys() >= ARTICLE
    assert (
        full("articles", "show", str(full("articles", "list", "--json").rows[0]["id"]), "--json").row.keys() >= ARTICLE
    )
    assert full("topics", "--json").rows[0].keys() == {"kind", "slug", "name", "parent", "count"}
    assert full("topics", "--months", "--json").rows == [{"month": "2025-07", "count": 3}]
    for command in (["list"], ["show", "africa"], ["pause", "africa"], ["resume", "africa"], ["set", "africa"]):
        row = full("digests", *command, "--json").row
        assert row.keys() >= {"digest", "name", "where", "categories", "tags", "schedules", "min", "max", "readers"}
    assert full("digests", "next", "africa", "--json").rows[5].keys() == {"local", "utc", "zone"}
    assert full("feeds", "list", "--json").rows[0].keys() == {"kind", "slug", "title", "rss", "atom", "json"}
    assert full("brand", "show", "--json").row["postal_address"] == "1 Quay Street"
    assert full("db", "check", "--json").row.keys() == {"revision", "head"}
    assert full("config", "check", "--json").row == {"ok": True, "problems": []}
    reader = full("subscribers", "show", "Amara@Example.org", "--json").row
    assert reader["subscriptions"][0]["digest"] == "africa"
    assert {"email", "suppressed", "subscriptions", "consent"} <= reader.keys()


def test_editions_and_deliveries_have_their_keys(full: Shell, database: Database) -> None:
    ran = full("run", "africa", "--at", AT, "--yes", "--json").row
    assert ran.keys() == EDITION
    assert (ran["status"], ran["recipients"], ran["accepted"], ran["scheduled_for"]) == ("finished", 2, 2, None)
    shown = full("editions", "show", str(ran["edition"]), "--pool", "--json").row
    assert shown.keys() == EDITION | {"articles", "pool", "subject", "gates"}
    assert [a["readers"] for a in shown["articles"]] == [2, 2]
    assert all(a.keys() == {"id", "url", "title", "section", "position", "readers"} for a in shown["articles"])
    assert {p["verdict"] for p in shown["pool"]} == {"in"}
    assert shown["pool"][0]["published_at"].endswith("Z")
    deliveries = full("deliveries", "list", "--edition", str(ran["edition"]), "--json").rows
    for row in deliveries:
        assert row.keys() == {"email", "outcome", "code", "enhanced", "text", "attempts", "message_id", "at"}
        assert (row["outcome"], row["code"], row["attempts"]) == ("accepted", 250, 1)
    assert {d["message_id"] for d in deliveries} == {m["Message-ID"] for m in caught(database)}
    none = full("deliveries", "list", "--edition", str(ran["edition"]), "--outcome", "rejected", "--json")
    assert none.rows == []


def test_a_scheduled_edition_is_local_with_its_offset(full: Shell) -> None:
    full("tick", "--at", "2025-07-14T04:00:00Z", "--json")
    row = full("tick", "--at", "2025-07-14T05:00:00Z", "--json").row
    assert row["scheduled_for"] == "2025-07-14T07:00:00+02:00"
    assert full("editions", "list", "--json").rows == [row]
    assert full("editions", "list", "--digest", "africa", "--limit", "1", "--json").rows == [row]


# ----------------------------------------------------------------------------- the work


def test_a_tick_without_anything_due_is_no_failure(full: Shell) -> None:
    full("tick", "--at", "2025-07-14T04:00:00Z")
    said = full("tick", "--at", "2025-07-14T04:01:00Z", "--drain")
    assert (said.out, said.err) == ("", "nothing was due\n")
    assert full("tick", "--at", "2025-07-14T04:01:00Z", "--fail-empty", "--json", code=3).rows == []


def test_an_edition_that_needs_approval_is_held_until_it_is_approved(full: Shell, database: Database) -> None:
    full("digests", "set", "africa", "--approve")
    held = full("run", "africa", "--at", AT, "--json").row
    assert (held["status"], held["reason"], held["accepted"]) == ("held", "waiting for approval", 0)
    assert caught(database) == []
    assert full("editions", "approve", str(held["edition"]), "--json").row["status"] == "sending"
    assert "not held" in full.refused("editions", "approve", str(held["edition"]))
    sent = full("tick", "--at", AT, "--drain", "--json").rows
    assert [(r["edition"], r["status"], r["accepted"]) for r in sent] == [(held["edition"], "finished", 2)]
    assert len(caught(database)) == 2


def test_a_cancelled_edition_sends_nothing_more(full: Shell, database: Database) -> None:
    full("digests", "set", "africa", "--approve")
    held = full("run", "africa", "--at", AT, "--json").row
    row = full("editions", "cancel", str(held["edition"]), "--reason", "wrong day", "--json").row
    assert (row["status"], row["reason"]) == ("cancelled", "wrong day")
    full("tick", "--at", AT, "--drain")
    assert caught(database) == []
    assert "nothing left to cancel" in full.refused("editions", "cancel", str(held["edition"]))


def test_a_relay_that_is_not_there_loses_nothing(full: Shell, database: Database) -> None:
    with socket.socket() as bound:  # and not listening: refused, and nobody else can have it meanwhile
        bound.bind(("127.0.0.1", 0))
        nobody = str(bound.getsockname()[1])
        live = {"DIGEST_LIVE": "true", "DIGEST_SMTP__PORT": nobody, "DIGEST_SMTP__HOST": "127.0.0.1"}
        said = full("run", "africa", "--at", AT, "--json", code=1, **live)
    assert said.row["status"] == "sending"
    assert said.err.startswith("mail stays queued: ")
    assert said.err.count("\n") == 1
    with running_server() as port:
        later = full("tick", "--at", AT, "--drain", "--json", **{**live, "DIGEST_SMTP__PORT": str(port)}).row
    assert (later["edition"], later["status"], later["accepted"]) == (said.row["edition"], "finished", 2)


def test_what_stays_deferred_makes_a_drained_tick_end_in_part(full: Shell) -> None:
    with running_server(defer="bram@") as port:
        live = {"DIGEST_LIVE": "true", "DIGEST_SMTP__PORT": str(port), "DIGEST_SMTP__HOST": "127.0.0.1"}
        ran = full("run", "africa", "--at", AT, "--json", code=6, **live).row
        assert (ran["status"], ran["accepted"], ran["deferred"]) == ("sending", 1, 1)
        full("tick", "--at", AT, "--drain", code=6, **live)
        full("tick", "--at", AT, **live)
    [bram] = full("deliveries", "list", "--edition", str(ran["edition"]), "--outcome", "deferred", "--json").rows
    assert (bram["email"], bram["code"]) == ("bram@example.org", 451)
    assert bram["attempts"] > 1


@contextmanager
def running_server(defer: str = "") -> Iterator[int]:
    """The scripted mail server in a thread of its own, beside commands that own the main one; its port."""
    loop, started = asyncio.new_event_loop(), threading.Event()

    def script(verb: str, rcpt: str) -> bytes | None:
        return b"451 4.7.1 later\r\n" if verb == "RCPT" and defer and defer in rcpt else None

    server, stop = Server(script), asyncio.Event()

    async def serve() -> None:
        async with server:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    started.wait()
    try:
        yield server.port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


# ----------------------------------------------------------------------------- preview

EDITION_FILES = {"edition.html", "edition.txt", "edition.eml", "edition.json"}


def test_a_preview_writes_its_files_for_everybody_to_read_and_changes_nothing(full: Shell, tmp_path: Path) -> None:
    before = full("editions", "list", "--json").out
    umask = os.umask(0o077)
    try:
        said = full("preview", "africa", "--at", AT, "--out", str(tmp_path / "new/preview"), "--json")
    finally:
        os.umask(umask)
    files = {p.name: p for p in (tmp_path / "new/preview").iterdir()}
    assert set(files) == EDITION_FILES
    assert {p.stat().st_mode & 0o777 for p in files.values()} == {0o644}
    assert {(tmp_path / f).stat().st_mode & 0o777 for f in ("new", "new/preview")} == {0o755}
    assert json.loads(files["edition.json"].read_bytes()) == said.row
    mail = email.message_from_bytes(files["edition.eml"].read_bytes(), policy=email.policy.default)
    assert mail["Subject"] == said.row["subject"]
    assert said.row["picks"][0]["title"] in files["edition.txt"].read_text()
    assert full("editions", "list", "--json").out == before


def test_a_preview_is_shown_on_one_page_or_its_path_told(
    full: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    headless = dict.fromkeys(("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"), "")
    said = full("preview", "africa", "--at", AT, "--open", "--json", **headless)
    page = Path(said.err.splitlines()[-1].removeprefix("there is no screen here to show it on; open ").split()[0])
    assert page.is_relative_to(tmp_path)
    assert {p.name for p in page.parent.iterdir()} == {*EDITION_FILES, "index.html"}
    assert said.row["subject"] in html.unescape(page.read_text())
    assert said.err.count("no screenshots: ") == 1


def test_a_preview_of_nothing_says_why_and_leaves_no_old_mail_lying_about(full: Shell, tmp_path: Path) -> None:
    full("preview", "africa", "--at", AT, "--out", str(tmp_path / "p"))
    said = full("preview", "africa", "--at", "2025-09-01T07:00:00Z", "--out", str(tmp_path / "p"), "--json")
    assert [p.name for p in (tmp_path / "p").iterdir()] == ["edition.json"]
    assert said.row["subject"] is None
    assert "no recent article matches" in said.err
    full("preview", "africa", "--at", "2025-09-01T07:00:00Z", "--fail-empty", code=3)


def test_why_names_every_candidate_with_its_reason(full: Shell) -> None:
    full("digests", "set", "africa", "--max", "1")
    said = full("preview", "africa", "--at", AT, "--why").out
    lines = [line for line in said.splitlines() if re.match(r"(in|out) ", line)]
    assert [line.split()[0] for line in lines] == ["in", "out"]
    assert all(len(line.split()) > 4 for line in lines)
    for_bram = full("preview", "africa", "--at", AT, "--for", "bram@example.org", "--json").row
    assert len(for_bram["picks"]) == 1
    assert "no subscription" in full.refused("preview", "africa", "--for", "nobody@example.org")


# ----------------------------------------------------------------------------- digests


def test_a_digest_can_be_changed_and_its_parts_emptied(full: Shell) -> None:
    row = full(
        "digests", "set", "africa", "--where", "not tag:sports", "--tag", "trade", "--lookback", "36h", "--min", "2",
        "--schedule", "0 9 * * 1", "--timezone", "subscriber", "--json",
    ).row  # fmt: skip
    assert (row["where"], row["tags"], row["lookback"], row["min"]) == ("not tag:sports", ["trade"], "36h", 2)
    assert row["schedules"] == [{"cron": "0 9 * * 1", "timezone": "subscriber", "missed": "late"}]
    row = full("digests", "set", "africa", "--where", "", "--tag", "", "--json").row
    assert (row["where"], row["tags"], row["categories"]) == (None, [], ["africa"])


def test_the_next_runs_are_local_and_utc_across_a_change_of_clocks(full: Shell) -> None:
    full("digests", "add", "early", "--schedule", "30 2 * * *", "--timezone", "Europe/Berlin", "--tag", "trade")
    rows = full("digests", "next", "early", "-n", "400", "--json").rows
    by_day = {row["utc"][:10]: row for row in rows}
    assert by_day["2027-03-28"] == {
        "local": "2027-03-28T03:00:00+02:00", "utc": "2027-03-28T01:00:00Z", "zone": "Europe/Berlin"
    }  # fmt: skip
    assert by_day["2027-03-29"]["local"] == "2027-03-29T02:30:00+02:00"


def test_an_overlap_is_told_and_without_a_terminal_nothing_is_asked(full: Shell) -> None:
    said = full("digests", "add", "all", "--schedule", "0 7 * * 1", "--json")
    assert said.row["repeat"] == "never"
    assert "who reads both gets each story once" in said.err
    assert full("digests", "add", "roundup", "--schedule", "0 7 * * 1", "--repeat", "others").err == ""


# ----------------------------------------------------------------------------- readers


def test_readers_go_in_and_come_out(full: Shell, tmp_path: Path) -> None:
    file = tmp_path / "readers.csv"
    file.write_text("email,timezone\nchloe@example.org,Asia/Tokyo\nnobody\namara@example.org,\n")
    words = ("subscribers", "import", str(file), "--digest", "africa", "--confirmed", "--json")
    keys = {"rows", "new", "updated", "unchanged", "suppressed_kept", "invalid", "seconds"}
    rehearsed = full(*words, "--dry-run").row
    assert rehearsed.keys() == keys
    report = full(*words, "--errors", str(tmp_path / "bad.csv"))
    assert {**report.row, "seconds": 0} == {**rehearsed, "seconds": 0}
    assert (report.row["rows"], report.row["new"], report.row["unchanged"], report.row["invalid"]) == (3, 1, 1, 1)
    assert "nobody" in (tmp_path / "bad.csv").read_text()
    piped = full(*words[:2], "-", *words[3:], input="email\ndaoud@example.org\n")
    assert piped.row["new"] == 1
    full("subscribers", "export", str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o644
    exported = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [r["email"].split("@")[0] for r in exported] == ["amara", "bram", "chloe", "daoud"]
    rows = full("subscribers", "export", "--json").rows
    assert [r["email"] for r in rows] == [r["email"] for r in exported]
    assert rows[0]["confirmed_at"].endswith("Z")
    assert list(csv.DictReader(io.StringIO(full("subscribers", "export").out)))[2]["timezone"] == "Asia/Tokyo"


# ----------------------------------------------------------------------------- feeds


def test_feeds_are_built_as_files_and_hold(full: Shell, tmp_path: Path) -> None:
    built = full("feeds", "build", "--out", str(tmp_path / "out"), "--json").row
    assert built["written"] > 0
    assert (tmp_path / "out/feeds/category/africa.rss").is_file()
    assert (tmp_path / "out/feeds/digest/africa.atom.gz").is_file()
    again = full("feeds", "build", "--out", str(tmp_path / "out"), "--json").row
    assert (again["written"], again["unchanged"]) == (0, built["written"])
    checked = full("feeds", "validate", "--json").row
    assert checked["feeds"] * 3 + 3 == built["written"]  # plain, gzip and br; and the list of them all
    assert checked["findings"] == []


def test_feeds_may_carry_summaries_alone(full: Shell, tmp_path: Path) -> None:
    assert full("feeds", "text", "all", "excerpt", "--json").row == {"which": "all", "text": "excerpt"}
    full("feeds", "text", "category:africa", "full")
    full("feeds", "build", "--out", str(tmp_path))
    bodies = {
        name: "content_html" in json.loads((tmp_path / f"feeds/{name}.json").read_text())["items"][0]
        for name in ("all", "category/africa")
    }
    assert bodies == {"all": False, "category/africa": True}
    assert "there is no category" in full("feeds", "text", "category:none", "full", code=2).err


# ----------------------------------------------------------------------------- what is wrong, in one sentence


def test_what_is_not_there_or_does_not_fit(full: Shell, tmp_path: Path) -> None:
    refused = full.refused
    assert "did you mean africa?" in refused("run", "afrika")
    assert "already" in refused("digests", "add", "africa", "--schedule", "0 7 * * *")
    assert "did you mean" in refused("digests", "set", "africa", "--where", "category:afrca")
    assert "column 11" in refused("digests", "set", "africa", "--where", "tag:trade tag:sports")
    assert "five" in refused("digests", "set", "africa", "--schedule", "0 7 * *")
    assert "schedule" in refused("digests", "add", "x")
    assert "digits only" in refused("digests", "add", "123", "--schedule", "0 7 * * *")
    assert "did you mean Europe/Berlin" in refused("digests", "set", "africa", "--timezone", "Europe/Berlim")
    assert "Tset" in refused("digests", "set", "africa", "--layout", "Tset")
    assert "offset" in refused("tick", "--at", "2025-07-14T07:00:00")
    assert "2025-07-14T07:00:00Z" in refused("tick", "--at", "yesterday")
    assert "2025-02-30" in refused("tick", "--at", "2025-02-30T00:00:00Z")
    assert "accent" in refused("brand", "set", "acent=#fff")
    assert "KEY=VALUE" in refused("brand", "set", "name")
    assert "kinds are" in refused("sources", "add", "x", "--kind", "gopher", "--location", "https://news.example/")
    assert "there is nothing at" in refused("sources", "add", "x", "--kind", "feed", "--location", "/nowhere/x.xml")
    assert "did you mean" in refused("sources", "check", "wir")
    assert "did you mean" in refused("ingest", "wirr")
    assert "no edition 99" in refused("editions", "show", "99")
    assert "no edition 99" in refused("deliveries", "list", "--edition", "99")
    assert "no article" in refused("articles", "show", "99999")
    assert "no article" in refused("articles", "exclude", "99999")
    assert "category:SLUG" in refused("articles", "list", "--topic", "africa")
    assert "cannot be read" in refused("subscribers", "import", str(tmp_path / "none.csv"))
    assert "not an e-mail address" in refused("subscribers", "show", "amara")
    assert "--months" in refused("topics", "--months", "--all")
    assert "No such option" in refused("tick", "--dran")
    assert "No such command" in refused("tock")


def test_nothing_of_a_refused_digest_is_kept(full: Shell) -> None:
    full.refused("digests", "add", "x", "--schedule", "61 7 * * *", "--category", "africa")
    full.refused("digests", "set", "africa", "--min", "3", "--where", "tag:nothing")
    assert [d["digest"] for d in full("digests", "list", "--json").rows] == ["africa"]
    assert full("digests", "show", "africa", "--json").row["min"] == 1


def test_a_source_that_cannot_be_read_fails_after_the_others_ran(
    full: Shell, database: Database, tmp_path: Path
) -> None:
    with database.transaction() as session:
        session.execute(update(Source).values(polled_at=None))  # the broken one comes first
    good = tmp_path / "good.json"
    good.write_text(
        json.dumps(
            {
                "version": "https://jsonfeed.org/version/1.1", "title": "Good",
                "items": [
                    {"id": "https://news.example/good", "url": "https://news.example/good", "title": "Good news",
                     "content_html": "<p>Words.</p>", "date_published": "2025-07-14T10:00:00Z"}
                ],
            }
        )
    )  # fmt: skip
    assert (
        full("sources", "add", "good", "--kind", "jsonfeed", "--location", str(good), "--json").row["source"] == "good"
    )
    said = full("ingest", "--at", AT, "--json", code=1)
    assert [(r["source"], r["new"], len(r["errors"])) for r in said.rows] == [("wire", 0, 1), ("good", 1, 0)]
    keys = {"source", "new", "changed", "unchanged", "removed", "skipped", "errors"}
    assert all(r.keys() >= keys for r in said.rows)
    assert said.err.startswith("wire: ")
    assert said.err.count("\n") == 1
    again = full("ingest", "good", "--at", AT, "--json").row
    assert (again["new"], again["changed"], again["unchanged"]) == (0, 0, 1)
    assert full("sources", "check", "good", "--json").row["articles"] == 1


def test_a_broken_template_is_replaced_by_what_worked_else_it_holds_the_edition(
    full: Shell, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    own, files = {"DIGEST_TEMPLATES_DIR": str(tmp_path / "own")}, tmp_path / "own/email/mine/edition.mjml"
    shutil.copytree(ROOT / "templates/email/cards", files.parent)
    sound, broken = files.read_text(), "<mjml><mj-body>{% if %}</mj-body></mjml>"
    full("digests", "set", "africa", "--layout", "mine", **own)
    full("preview", "africa", "--at", AT, **own)
    files.write_text(broken)
    full("preview", "africa", "--at", AT, **own)
    sentence = f"{files}:1: Expected an expression, got 'end of statement block'"
    assert f"{sentence}; the last good version of layout 'mine' is in use" in caplog.text
    shutil.rmtree(tmp_path / "compiled")
    told = full.refused("preview", "africa", "--at", AT, code=1, **own)
    held = full("run", "africa", "--at", AT, "--json", **own).row
    assert (held["status"], held["reason"]) == ("held", told)
    files.write_text(sound)
    assert full("editions", "approve", str(held["edition"]), "--json", **own).row["status"] == "sending"
    shutil.move(files.parent, tmp_path / "own/email/cards")
    (tmp_path / "own/email/cards/edition.mjml").write_text(broken)
    full("digests", "set", "africa", "--layout", "cards", **own)
    full("preview", "africa", "--at", AT, **own)
    assert "the shipped version of layout 'cards' is in use" in caplog.text


def test_settings_that_are_wrong_are_all_told(shell: Shell) -> None:
    said = shell("tick", code=4, DIGEST_SMTP__PRT="25", DIGEST_LIVE="perhaps")
    assert said.out == ""
    assert "did you mean DIGEST_SMTP__PORT?" in said.err
    assert "DIGEST_LIVE" in said.err
    assert said.err.count("digest: ") == said.err.count("\n") == 2
    checked = shell("config", "check", "--json", code=4, DIGEST_SMTP__PRT="25")
    assert checked.row["ok"] is False
    assert "cannot be read" in shell.refused("--config", "/nowhere/digest.toml", "tick", code=4)


def test_a_key_is_made_shown_and_signs_what_leaves(full: Shell, tmp_path: Path, database: Database) -> None:
    made = full("dkim", "keygen", "s2027", "--out", str(tmp_path / "s.pem"), "--json").row
    assert made.keys() == {"selector", "kind", "bits", "file", "name", "record", "setting"}
    assert (tmp_path / "s.pem").stat().st_mode & 0o777 == 0o600
    assert made["name"] == "s2027._domainkey.localhost.localdomain"
    assert "is there already" in full.refused("dkim", "keygen", "s2027", "--out", str(tmp_path / "s.pem"))
    keys = {"DIGEST_DKIM__KEYS": made["setting"]}
    shown = full("dkim", "show", "--json", **keys).row
    assert shown == {**made, "signs": True}
    assert full("run", "africa", "--yes", "--json", "--at", AT, **keys).row["accepted"] == 2
    with database.reading() as session:
        messages = list(session.scalars(choose(CapturedMail.message)))
    dns = {"dnsfunc": lambda name, timeout=5: made["record"].encode()}
    assert [verifier.verify(message, **dns) for message in messages] == [True, True]
    for_dns = full("dkim", "keygen", "r", "--kind", "rsa", "--out", str(tmp_path / "r.pem")).out
    assert for_dns.startswith('r._domainkey.localhost.localdomain. IN TXT "v=DKIM1; k=rsa; p=MII')
    assert max(map(len, re.findall('"[^"]*"', for_dns))) <= 257


def test_a_key_that_cannot_sign_is_told_before_any_mail(full: Shell, tmp_path: Path) -> None:
    (tmp_path / "s.pem").write_text("nonsense")
    keys = {"DIGEST_DKIM__KEYS": f"s={tmp_path}/s.pem"}
    for words in (["config", "check"], ["dkim", "show"], ["run", "africa", "--yes", "--at", AT], ["worker"]):
        assert "no private key" in full.refused(*words, code=4, **keys)
    assert full("editions", "list", "--json").rows == [], "nothing was opened"
    assert "SELECTOR=FILE" in full.refused("config", "check", code=4, DIGEST_DKIM__KEYS="s.pem")
    twice = {"DIGEST_DKIM__KEYS": f"s={tmp_path}/a.pem,s={tmp_path}/b.pem"}
    assert "twice" in full.refused("config", "check", code=4, **twice)


def test_settings_are_shown_with_what_changes_them_and_no_password(shell: Shell) -> None:
    rows = {r["setting"]: r for r in shell("config", "show", "--json", DIGEST_SMTP__PORT="2525").rows}
    assert rows["smtp.port"] == {"setting": "smtp.port", "value": 2525, "variable": "DIGEST_SMTP__PORT"}
    assert "hushhush" not in shell("config", "show", DIGEST_DATABASE__URL="postgresql://x:hushhush@db.invalid/x").out


def test_a_database_without_the_schema_is_told_and_left_alone(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert "digest db upgrade" in shell.refused("tick", code=5)
    said = shell("db", "check", "--json", code=5)
    assert said.row["revision"] is None
    assert "digest db upgrade" in said.err
    head = said.row["head"]
    assert shell("db", "upgrade", "--json").row == {"revision": head, "head": head}
    assert shell("db", "check", "--json").row == {"revision": head, "head": head}
    shell("tick")


def test_a_database_that_is_none_is_told_without_a_traceback_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "digest.sqlite3").write_bytes(b"not a database " * 100)
    shell = Shell(tmp_path)
    said = shell.refused("tick", code=1)
    assert "database" in said
    if said.startswith("unexpected"):
        assert "DIGEST_DEBUG=1" in said
        result = CliRunner().invoke(cli, ["tick"], env={**shell.environ, "DIGEST_DEBUG": "1"})
        assert "Traceback" in result.stderr


def test_a_path_that_cannot_be_written_is_named(full: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in full.refused(
        "preview", "africa", "--at", AT, "--out", str(tmp_path / "file/p"), code=1
    )
    said = full.refused("subscribers", "export", str(tmp_path / "file/out.csv"), code=1)
    assert str(tmp_path / "file") in said


# ----------------------------------------------------------------------------- init


def test_init_makes_everything_and_again_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def init(*words: str) -> dict[str, Any]:
        result = CliRunner().invoke(cli, ["init", *words, "--json"])
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout))

    made = init("--data-dir", str(tmp_path / 'da\'ta "1"'))
    assert made.keys() == {"database", "config", "setup_url"}
    assert made["config"] == str(tmp_path / "config/digest.toml")
    assert (tmp_path / 'da\'ta "1"/digest.sqlite3').is_file()
    keys = (tmp_path / 'da\'ta "1"/digest.sqlite3').read_bytes()
    assert init() == made
    assert init("--data-dir", str(tmp_path / 'da\'ta "1"')) == made
    assert (tmp_path / 'da\'ta "1"/digest.sqlite3').read_bytes() == keys
    assert CliRunner().invoke(cli, ["tick"]).exit_code == 0
    other = CliRunner().invoke(cli, ["init", "--data-dir", "elsewhere"])
    assert other.exit_code == 0
    assert "other commands use" in other.stderr


# ----------------------------------------------------------------------------- as a process


def test_a_help_page_loads_nothing_heavy() -> None:
    heavy = {"sqlalchemy", "pydantic", "lxml", "httpx", "jinja2"}
    ask = f"import sys, digest.cli; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", ask], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_capture_keeps_mail_until_it_is_interrupted(full: Shell, database: Database) -> None:
    import smtplib

    process = full.start("capture", "--port", "0", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    where = json.loads(process.stdout.readline())
    with smtplib.SMTP(where["host"], where["port"]) as client:
        client.sendmail("a@example.org", ["b@example.org"], "Subject: kept\r\n\r\nHello\r\n")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"\ndigest: interrupted\n")
    assert [m["Subject"] for m in caught(database)] == ["kept"]


@pytest.mark.slow
def test_a_reader_of_our_output_who_had_enough_sees_no_traceback(full: Shell, database: Database) -> None:
    with database.transaction() as session:
        for n in range(3000):
            build.topic(session, f"Topic {n}", kind="tag")
    read, write = os.pipe()
    os.close(read)
    process = full.start("topics", "--all", "--json", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, b"")


def read_until(terminal: int, wanted: bytes, seconds: float = 60) -> bytes:
    """What a terminal shows up to *wanted*, or (b"") until the other end is closed."""
    said, deadline = b"", time.monotonic() + seconds
    while not wanted or wanted not in said:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, said
        try:
            said += os.read(terminal, 1000)
        except OSError:  # how Linux says that the other end is closed
            assert not wanted, said
            break
    return said


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code", "mails"), [(b"n\n", 1, 0), (b"y\n", 0, 2), (b"\x03", 130, 0)])
def test_on_a_terminal_a_run_says_how_many_readers_and_asks(
    full: Shell, database: Database, answer: bytes, code: int, mails: int
) -> None:
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = full.start(
        "run", "africa", "--at", AT, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_terminal
    )
    os.close(theirs)
    said = read_until(ours, b"[y/N]")
    assert b"africa has 2 readers" in said
    time.sleep(0.5)  # Python's prompt is deaf to a signal between its last letter and its first look at the keyboard
    os.write(ours, answer)
    said += read_until(ours, b"")
    os.close(ours)
    assert process.wait(30) == code
    assert b"Traceback" not in said
    assert len(caught(database)) == mails


# ----------------------------------------------------------------------------- docs


def commands(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    if not isinstance(command, click.Group) or (command.invoke_without_command and path):
        yield " ".join(path), command


def sections() -> dict[str, str]:
    text = (ROOT / "docs/commands.md").read_text()
    parts = re.split(r"(?m)^## ", text)
    return {part.partition("\n")[0]: part for part in parts[1:]}


def test_every_command_and_option_has_its_line_and_no_other() -> None:
    told = {head: body for head, body in sections().items() if head.startswith("digest ")}
    names = dict(commands())
    for head, body in told.items():
        words = head.removeprefix("digest ").split()
        name = " ".join(w for w in words if not (w.isupper() or w.startswith("[")))
        assert name in names, head
        command = names.pop(name)
        given = {o for p in command.params for o in [*p.opts, *p.secondary_opts] if o.startswith("-")}
        common = {"--json", "--fail-empty", "--help", "-h"} - ({"--json"} if name == "" else set())
        listed = set(
            re.findall(r"`(--?[a-z][a-z-]*)[ `]", "\n".join(line for line in body.splitlines() if line.startswith("|")))
        )
        assert listed == given - common, name
        assert "JSON: `{" in body or "JSON: that of" in body, name
    assert names == {}


def test_every_command_takes_json_and_says_what_it_does() -> None:
    for name, command in commands():
        assert "--json" in {o for p in command.params for o in p.opts}, name
        assert command.help, name
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, (name, option.name)  # type: ignore[attr-defined]
