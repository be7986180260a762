"""Jobs, and the workers of several machines that share one database."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update

from digest import audience, jobs, ledger
from digest import models as m
from digest.bootstrap import build as build_app
from digest.db import Database
from digest.errors import SchemaBehind
from digest.jobs import Task
from digest.types import Outcome, Result
from tests import build
from tests.smtp_server import Server
from tests.test_worker import count, due_in, start, stop, wait_for

ROOT = Path(__file__).parents[1]
TRIGGER = "procrastinate_trigger_status_events_update_v1"  # the last script makes it anew
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def waiting(database: Database) -> list[str]:
    with database.reading() as session:
        rows = session.execute(text("SELECT queueing_lock FROM procrastinate_jobs WHERE status = 'todo' ORDER BY id"))
        return [name for (name,) in rows]


# ----------------------------------------------------------------------------- jobs


@on_postgresql
def test_a_job_lives_and_dies_with_its_transaction_and_waits_once(database: Database) -> None:
    with contextlib.suppress(RuntimeError), database.transaction() as session:
        jobs.submit(session, Task.COMPOSE, 1)
        raise RuntimeError
    assert waiting(database) == []
    for _ in range(2):
        with database.transaction() as session:
            jobs.submit(session, Task.COMPOSE, 7)
            jobs.submit(session, Task.COMPOSE, 8)
            jobs.submit_mail(session, 2)
            jobs.submit(session, Task.COMPOSE, 7)  # the transaction goes on after a job that is there already
    assert waiting(database) == ["compose:7", "compose:8", "send:0", "send:1"]
    with database.transaction() as session:
        jobs.submit_mail(session, 100_000)
    assert len(waiting(database)) == 2 + jobs.WAKES, "a large edition wakes processes, it does not make jobs by batch"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sqlite_has_no_jobs(database: Database) -> None:
    with database.transaction() as session:
        jobs.submit(session, Task.LOOK)
    jobs.upgrade(database)
    assert not jobs.behind(database)


@on_postgresql
def test_the_queue_is_upgraded_by_the_librarys_own_scripts(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    assert not jobs.behind(database)
    newest = jobs._scripts()[-1].stem
    with database.transaction() as session:  # as if the last script had not run
        session.execute(text(f"DROP TRIGGER {TRIGGER} ON procrastinate_jobs"))
        session.execute(text(f"COMMENT ON TABLE procrastinate_jobs IS 'schema {jobs._scripts()[-2].stem}'"))
    assert jobs.behind(database)
    from digest.config import Settings

    (tmp_path / "digest.toml").touch()
    settings = Settings.load(tmp_path / "digest.toml", {"DIGEST_DATABASE__URL": database_url})
    with pytest.raises(SchemaBehind, match="digest db upgrade"):
        build_app(settings)
    for _ in range(2):
        jobs.upgrade(database)
    with database.reading() as session:
        assert session.scalar(text(jobs._INSTALLED)) == f"schema {newest}"
        assert session.scalar(text(f"SELECT count(*) FROM pg_trigger WHERE tgname = '{TRIGGER}'")) == 1
    build_app(settings).close()


@on_postgresql
def test_opening_and_release_submit_their_jobs_in_the_same_transaction(database: Database) -> None:
    from tests.office import Office

    due_in(database, 0)
    announced: list[tuple[str, int]] = []

    class Told:
        def opened(self, session: object, edition_id: int) -> None:
            announced.append(("opened", edition_id))

        def released(self, session: object, batches: int) -> None:
            announced.append(("released", batches))

    editor = Office(database).editor
    editor._announce = Told()
    (edition,) = editor.open_due(datetime.now(UTC))
    assert announced == [("opened", edition)]
    editor.compose(edition)
    assert editor.release_ready() == [edition]
    assert announced[1:] == [("released", 1)]


def test_an_edition_waits_for_an_earlier_one_that_is_being_composed(database: Database) -> None:
    from tests.office import Office

    now = datetime.now(UTC).replace(microsecond=0)
    with database.transaction() as session:
        build.publication(session)
        for name, rank in (("morning", 1), ("evening", 2)):
            digest = build.digest(session, slug=name, rank=rank, repeat="others")
            build.subscription(session, digest, build.subscriber(session, f"{name}@example.org"))
        build.article(session, published_at=now - timedelta(hours=2))
    office = Office(database)
    first, second = (office.editor.open_manual(slug, now) for slug in ("morning", "evening"))
    office.editor.compose(second)
    assert office.editor.release_ready() == [], "the first is younger than two minutes and not composed"
    office.editor.compose(first)
    with database.transaction() as session:  # its composer has not looked at its mails yet
        session.execute(update(m.Edition).where(m.Edition.id == first).values(gates=[]))
    assert office.editor.release_ready() == [first, second]
    with database.reading() as session:
        assert session.get_one(m.Edition, first).gates, "none goes out that did not pass the gates"

    third, fourth = (office.editor.open_manual(slug, now) for slug in ("morning", "evening"))
    office.editor.compose(fourth)
    with database.transaction() as session:  # whoever composed it died, and nobody can do it
        session.execute(update(m.Edition).where(m.Edition.id == third).values(created_at=now - timedelta(minutes=3)))
    assert office.editor.release_ready() == [fourth]


@on_postgresql
def test_two_workers_that_end_their_batches_at_once_both_put_off_what_was_deferred(database: Database) -> None:
    with database.transaction() as session:
        edition = build.edition(
            session, build.digest(session), status="sending", recipe={}, live=True, released_at=datetime.now(UTC)
        )
        for n in range(2):
            session.add(m.Batch(
                edition_id=edition.id, part=0, n=n, ids=ledger.history.pack_ids([n]), not_before=build.T,
                ordinals=ledger.history.pack_ordinals([1]),
            ))  # fmt: skip
            ledger.editions.make_partition(session, edition.month)
    written = threading.Barrier(2)

    def end_one(worker: str, wait_there: bool) -> None:
        lease, wait = timedelta(seconds=10), lambda *_: timedelta(0)
        with database.transaction() as session:
            batch = ledger.batches.claim(session, worker=worker, lease=lease, live=True, wait=wait)
        assert batch
        [reader] = batch.recipients
        answer = ledger.batches.Answer(reader, Outcome(Result.DEFERRED, 451))
        with database.transaction() as session:
            moves = [ledger.batches.Move(batch, 1, True)]
            ledger.batches.note(
                session.connection(), worker=worker, lease=lease, moves=moves, answers=[answer], granting=[]
            )
            ledger.batches.close(session, moves, wait)
            if wait_there:
                written.wait()
                time.sleep(0.3)  # the other one looks for a number meanwhile

    with ThreadPoolExecutor() as pool:
        first = pool.submit(end_one, "first", True)
        written.wait()
        pool.submit(end_one, "second", False).result()
        first.result()
    with database.reading() as session:
        assert sorted(session.scalars(select(m.Batch.n))) == [0, 1, 2, 3]


@on_postgresql
def test_a_look_publishes_articles_whose_date_has_come_though_no_source_is_due(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    from digest import engine
    from digest.config import Settings

    now = datetime.now(UTC)
    with database.transaction() as session:
        build.publication(session)
        build.article(session, status="scheduled", published_at=now - timedelta(minutes=1))
        build.article(session, status="scheduled", published_at=now + timedelta(hours=1))
    (tmp_path / "digest.toml").touch()
    app = build_app(Settings.load(tmp_path / "digest.toml", {"DIGEST_DATABASE__URL": database_url}))
    with app.connected() as (connect, connections):
        engine.Shared(app, connect, connections, asyncio.Event())._look()
    app.close()
    assert count(database, m.Article.id, m.Article.status == "published") == 1


# ----------------------------------------------------------------------------- workers


class Pages(http.server.ThreadingHTTPServer):
    """A feed that counts who asks."""

    def __init__(self) -> None:
        self.asked = 0
        super().__init__(("127.0.0.1", 0), Feed)


class Feed(http.server.BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        self.server.asked += 1
        body = (
            b'<rss version="2.0"><channel><title>News</title><link>https://x.example/</link><item><title>One</title>'
            b"<link>https://x.example/1</link><description>Some words of news.</description></item></channel></rss>"
        )
        time.sleep(0.5)  # long enough for another worker to come by
        self.send_response(200)
        self.send_header("Content-Type", "application/rss+xml")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def pages() -> Iterator[Pages]:
    server = Pages()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_due_source_is_read_without_any_schedule_and_once_among_workers(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    with pages() as site:
        with database.transaction() as session:
            build.publication(session)
            build.source(session, kind="feed", location=f"http://127.0.0.1:{site.server_address[1]}/feed")
        environ = {"DIGEST_FETCH__ALLOW_HOSTS": "127.0.0.1", "DIGEST_WORKER__TICK_S": "1"}
        workers = [start(database_url, tmp_path, "worker", **environ) for _ in range(1 if database.is_sqlite else 3)]
        try:
            wait_for(lambda: count(database, m.Source.imported_at) == 1)  # its last word on the first reading
            assert count(database, m.Article.id) == 1
            with database.transaction() as session:  # ten minutes later
                session.execute(update(m.Source).values(polled_at=datetime.now(UTC) - timedelta(minutes=11)))
            wait_for(lambda: site.asked > 1)
            time.sleep(2.5)
        finally:
            said = [stop(worker) for worker in workers]
    assert site.asked == 2, "each time it was due one worker asked"
    assert not any("Traceback" in err for _, err in said), said


class Machine:
    """A worker on a machine of its own: it calls its host by another name."""

    def __init__(self, name: str, database_url: str, folder: Path, **environ: str) -> None:
        (folder / "digest.toml").touch()
        code = f"import socket; socket.gethostname = lambda: {name!r}; from digest.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "--config", str(folder / "digest.toml"), "worker"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "DIGEST_DATABASE__URL": database_url,
                 "DIGEST_DATA_DIR": str(folder), **environ},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@contextlib.contextmanager
def slow_relay(delay: float) -> Iterator[Server]:
    """A real relay on a thread of its own that takes its time before each reply."""
    server, loop = Server(delay=delay), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    yield server
    asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.slow
@on_postgresql
def test_two_machines_share_an_edition_and_one_finishes_what_the_other_died_with(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    readers = 2_000
    due_in(database, 0)
    with database.transaction() as session:
        digest = session.scalars(select(m.Digest)).one()
        for n in range(5, readers):
            build.subscription(session, digest, build.subscriber(session, f"reader{n}@example.org"))
    with slow_relay(0.02) as relay:
        environ = {"DIGEST_LIVE": "true", "DIGEST_SMTP__HOST": "127.0.0.1", "DIGEST_SMTP__PORT": str(relay.port)}
        machines = {name: Machine(name, database_url, tmp_path, **environ) for name in ("alpha", "beta")}
        try:
            wait_for(lambda: holders(database) >= {"alpha", "beta"})
            wait_for(lambda: len(relay.taken) > 200)
            machines["beta"].process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            wait_for(lambda: count(database, m.Edition.id, m.Edition.status == "finished"))
            took = time.monotonic() - killed
        finally:
            _, err = stop(machines["alpha"].process)
            machines["beta"].process.kill()
            machines["beta"].process.communicate()
    assert "Traceback" not in err
    got = Counter(mail.rcpt for mail in relay.taken)
    assert len(got) == readers, "nobody was lost"
    repeats = sum(n - 1 for n in got.values())
    with database.reading() as session:
        uncertain = session.scalar(select(func.count()).where(m.Attempt.outcome == "uncertain")) or 0
        ended = session.scalar(select(func.count()).where(m.Attempt.outcome == "accepted"))
        counts = ledger.outcome_counts(
            session, session.scalars(select(m.Edition).where(m.Edition.recipients > 0)).one()
        )
    assert ended == counts["accepted"] == readers
    assert repeats <= uncertain <= 50
    rest = readers * 3 * 0.02 / 16  # alone, three replies a message over sixteen connections
    assert took <= 15 + rest, f"{took:.1f} s after the kill"


def holders(database: Database) -> set[str]:
    with database.reading() as session:
        return {worker.split(":")[0] for worker in ledger.batches.leaseholders(session)}


@pytest.mark.full
@on_postgresql
def test_workers_outlive_an_outage_of_the_database(database: Database, database_url: str, tmp_path: Path) -> None:
    """Every connection is cut, and again while new ones are refused for longer than the library stands it."""
    due_in(database, 0)
    worker = start(database_url, tmp_path, "worker", DIGEST_WORKER__TICK_S="1")
    name = database.url.database
    admin = Database(database_url.replace(f"/{name}", "/postgres"))
    try:
        wait_for(lambda: count(database, m.CapturedMail.id) == 5)
        database.close()
        outage(admin, str(name), seconds=10)
        with database.transaction() as session:
            audience.subscribe(session, "morning", "new@example.org", now=datetime.now(UTC), source="form")
        wait_for(lambda: count(database, m.CapturedMail.id) == 6)
    finally:
        _, err = stop(worker)
        admin.close()
    assert worker.returncode == 0, err
    assert "Traceback" not in err


def registered(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(text("SELECT count(*) FROM procrastinate_workers")) or 0


def outage(admin: Database, name: str, seconds: float) -> None:
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"), {"n": name}
            )
            time.sleep(0.5)
        connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))


@contextlib.contextmanager
def service_manager(path: Path) -> Iterator[list[bytes]]:
    """Who listens at $NOTIFY_SOCKET, and what was said so far."""
    said: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))

        def listen() -> None:
            while (message := manager.recv(100)) != b"over":
                said.append(message)

        listener = threading.Thread(target=listen)
        listener.start()
        yield said
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"over", str(path))
        listener.join()


@pytest.mark.slow
@on_postgresql
def test_a_parent_runs_several_workers_and_tells_systemd(database: Database, database_url: str, tmp_path: Path) -> None:
    due_in(database, 0)
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    with service_manager(tmp_path / "notify") as said:
        parent = start(database_url, tmp_path, "worker", "--processes", "2", **environ)
        try:
            wait_for(lambda: count(database, m.CapturedMail.id) == 5)
            wait_for(lambda: registered(database) == 4)  # each takes mail and the rest
        finally:
            _, err = stop(parent)
    assert parent.returncode == 0, err
    assert "Traceback" not in err
    assert (said[0], said[-1], set(said[1:-1])) == (b"READY=1", b"STOPPING=1", {b"WATCHDOG=1"})


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sqlite_takes_one_worker(database: Database, database_url: str, tmp_path: Path) -> None:
    worker = start(database_url, tmp_path, "worker", "--processes", "2")
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 2
    assert "PostgreSQL" in err
    assert "Traceback" not in err
