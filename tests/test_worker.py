"""A real worker process: it opens what is due, sends it to the capture server, and stops when told to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import pytest
from sqlalchemy import func, select, update

from digest import audience, ledger
from digest import models as m
from digest.db import Database
from digest.paths import shipped
from tests import build

pytestmark = pytest.mark.slow


def start(
    database_url: str, folder: Path, *command: str, stderr: IO[str] | int = subprocess.PIPE, **environ: str
) -> subprocess.Popen[str]:
    (folder / "digest.toml").touch()
    return subprocess.Popen(
        [sys.executable, "-m", "digest", "--config", str(folder / "digest.toml"), *command],
        env={
            **os.environ,
            "DIGEST_DATABASE__URL": database_url,
            "DIGEST_DATA_DIR": str(folder),
            "PYTHONFAULTHANDLER": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **environ,
        },
        stdout=subprocess.PIPE, stderr=stderr, text=True,
    )  # fmt: skip


def stop(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End it as an operator does; one that does not end tells where it hangs."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        raise AssertionError(process.communicate()[1]) from None


def wait_for(what: Callable[[], object], seconds: float = 90) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come true within {seconds} s")


def count(database: Database, column: object, *where: object) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count(column)).where(*where)) or 0  # type: ignore[call-overload, no-any-return]


def due_in(database: Database, seconds: float) -> None:
    """A digest whose clock strikes in a moment."""
    now = datetime.now(UTC)
    with database.transaction() as session:
        build.publication(session)
        morning = build.digest(session, cron="* * * * *", created_at=now - timedelta(hours=1))
        schedule = build.schedule_of(session, morning)
        ledger.editions.add_clock(session, schedule.id, "UTC")
        session.execute(update(m.ScheduleClock).values(next_run_at=now.replace(second=0, microsecond=0)))
        build.article(session, published_at=now - timedelta(hours=2))
        for n in range(5):
            build.subscription(session, morning, build.subscriber(session, f"reader{n}@example.org"))


def test_the_worker_sends_what_is_due_and_stops_when_told(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    due_in(database, 0)
    worker = start(database_url, tmp_path, "worker")
    try:
        wait_for(lambda: count(database, m.Attempt.subscriber_id, m.Attempt.outcome == "accepted") == 5)
        assert count(database, m.CapturedMail.id) == 5
        with database.transaction() as session:
            audience.subscribe(session, "morning", "new@example.org", now=datetime.now(UTC), source="form")
        wait_for(lambda: count(database, m.CapturedMail.id) == 6)
    finally:
        out, err = stop(worker)
    assert worker.returncode == 0, err
    assert "Traceback" not in err
    assert "@example.org" not in out + err, "addresses stay out of logs"
    with database.reading() as session:
        last = ledger.captured(session, 1)[0]
    assert last.rcpt_to == ["new@example.org"]
    assert b"Auto-Submitted: auto-generated" in last.message
    assert b"/confirm/" in last.message.replace(b"=\r\n", b"")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_serve_is_web_and_worker_and_ends_with_both(database: Database, database_url: str, tmp_path: Path) -> None:
    """Templates of the operator's that are broken stop neither: it is said at the start, and the shipped ones serve."""
    import urllib.error
    import urllib.request

    due_in(database, 0)
    own = broken_layouts(tmp_path, "briefing", "cards")
    port, said = free_port(), (tmp_path / "said.txt").open("w")
    told = {"DIGEST_PUBLIC_URL": f"http://127.0.0.1:{port}", "DIGEST_TEMPLATES_DIR": str(own)}
    serve = start(database_url, tmp_path, "serve", "--port", str(port), stderr=said, **told)

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/feeds/all.rss", timeout=2) as reply:
                return b"<rss" in reply.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    try:
        wait_for(answers)
        wait_for(lambda: count(database, m.CapturedMail.id) >= 5)
        for name in ("briefing", "cards"):
            sentence = (
                f"{own}/email/{name}/edition.mjml:1:1: <mjml> is never closed; add </mjml>; the shipped version of"
            )
            wait_for(lambda sentence=sentence: sentence in Path(said.name).read_text())  # type: ignore[misc]
    finally:
        stop(serve)
        said.close()
    err = Path(said.name).read_text()
    assert serve.returncode == 0, err
    assert "Traceback" not in err


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_schema_behind_is_told_before_anything_starts(database_url: str, tmp_path: Path) -> None:
    worker = start(f"sqlite:///{tmp_path}/empty.sqlite3", tmp_path, "worker")
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 5
    assert "digest db upgrade" in err
    assert "Traceback" not in err


def broken_layouts(folder: Path, *names: str) -> Path:
    """A folder of templates with these layouts as shipped, but for their last line."""
    own = folder / "templates"
    for name in names:
        shutil.copytree(shipped("templates") / "email" / name, own / "email" / name)
        file = own / "email" / name / "edition.mjml"
        file.write_text(file.read_text().replace("</mjml>", ""))
    return own


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
