"""The demo as a newcomer runs it: one command, then everything it names is there."""

from __future__ import annotations

import email
import email.policy
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import feedparser
import pytest

from tests.feed_readers import tree_faults

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    given = {k: v for k, v in os.environ.items() if not k.startswith("DIGEST_")}
    command = [sys.executable, "-m", "digest", "demo", "--no-serve", *words]
    environ = {**given, "DIGEST_DATA_DIR": str(folder / "demo"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=900)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the demo says for programs, after it has run twice: the second starts anew."""
    folder = tmp_path_factory.mktemp("newcomer")
    first, second = demo(folder), demo(folder, "--json")
    for done in (first, second):
        assert done.returncode == 0, done.stderr
    row: dict[str, Any] = json.loads(second.stdout)
    for said in (*row["urls"].values(), row["database"], row["mails"][0], "dates were moved"):
        assert re.sub(r":\d+/", ":0/", said) in re.sub(r":\d+/", ":0/", first.stdout)
    assert [p.name for p in folder.iterdir()] == ["demo"]
    return row


def mails(shown: dict[str, Any]) -> list[EmailMessage]:
    with sqlite3.connect(shown["database"]) as database:
        raw = database.execute("SELECT message FROM captured_mails").fetchall()
    database.close()
    return [email.message_from_bytes(m, _class=EmailMessage, policy=email.policy.default) for (m,) in raw]


def test_two_digests_went_out_and_every_mail_was_caught(shown: dict[str, Any]) -> None:
    assert shown["articles"] >= 200
    assert len(shown["editions"]) == 2
    for edition in shown["editions"]:
        assert edition["status"] == "finished"
        assert edition["accepted"] == edition["recipients"] > 10
        assert edition["stories"]
    assert shown["captured"] == sum(e["accepted"] for e in shown["editions"]) == len(mails(shown))


def test_nobody_has_a_story_twice_although_both_digests_carry_some(shown: dict[str, Any]) -> None:
    assert shown["shared_stories"] > 0
    links: dict[str, Counter[str]] = {}
    for mail in mails(shown):
        text = mail.get_body(("plain",))
        assert text is not None
        found = set(re.findall(r"https?://\S+", text.get_content())) - {shown["urls"]["pages"]}
        links.setdefault(str(mail["To"]), Counter()).update(u for u in found if "127.0.0.1" not in u)
    repeated = {to: [u for u, n in urls.items() if n > 1 and "imprint" not in u and "privacy" not in u]
                for to, urls in links.items()}  # fmt: skip
    assert {to: urls for to, urls in repeated.items() if urls} == {}
    assert sum(links["omar@example.org"].values()) > 15  # one who reads both


@pytest.mark.full
def test_every_feed_is_valid(shown: dict[str, Any]) -> None:
    assert tree_faults(Path(shown["data_dir"]) / "feeds", shown["urls"]["pages"].rstrip("/"))[1] == []


def test_feeds_and_mails_lie_where_it_says(shown: dict[str, Any]) -> None:
    folder = Path(shown["data_dir"])
    for kind in ("rss", "atom"):
        feed = feedparser.parse((folder / f"feeds/feeds/all.{kind}").read_bytes())
        assert not feed.bozo
        assert len(feed.entries) >= 20
    assert len(list((folder / "feeds").rglob("*.*"))) == shown["feeds"] + 1  # and the list of its own files
    count, found = tree_faults(folder / "feeds", shown["urls"]["pages"].rstrip("/"), step=17)
    assert found == []
    assert count > 1_000
    for path in map(Path, shown["mails"]):
        assert path.read_text().lstrip().lower().startswith("<!doctype html")
        assert path.with_suffix(".eml").stat().st_size > path.stat().st_size
        assert path.with_suffix(".txt").read_text().strip()
    assert len(shown["mails"]) == 2
