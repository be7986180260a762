"""Jobs on PostgreSQL: wake-ups for the worker processes of every machine. Owner of the queue library, Procrastinate.

    submit ── in the transaction of the rows it speaks of ──► job ── NOTIFY ──► one process of any machine ──► handler

A job says where to look; what is due, whose lease runs and what was sent stays in the domain's own rows. So a job that
runs twice does no harm, one that is lost is submitted again by the next look, and there is at most one waiting job of a
task and key. On SQLite there are no jobs: `submit` does nothing, the one worker looks by itself. The library and the
driver are imported only where they are needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from digest.db import Database, told_plainly

if TYPE_CHECKING:
    from procrastinate import App

log = logging.getLogger("digest.jobs")


class Task(StrEnum):
    """What a process can be woken for. The key says which one: a source, an edition, a place in line."""

    LOOK = "look"  # what is due? (0)
    POLL = "poll"  # a source
    COMPOSE = "compose"  # an edition
    SEND = "send"  # mail waits; 0, 1, 2 … wake as many processes


#: A task's work: the key in, nothing out. Failures of the database or of an item are its own to tell.
Handler = Callable[[int], Awaitable[None]]

#: Most processes that one submission of mail wakes; the sweep wakes more.
WAKES = 16
#: A live process shows up this often; one that did not for thrice as long is dead, and its jobs are others'.
HEARTBEAT_S = 2.0
#: What runs at once in a process: one sender, which holds all connections; a few of the rest.
_QUEUES = {"send": 1, "work": 4}
_PAUSE_S = 1.0
_MARK = "schema "


def _queue(task: Task) -> str:
    return "send" if task is Task.SEND else "work"


# ----------------------------------------------------------------------------- submitting


@lru_cache(maxsize=1)
def _deferrer() -> App:
    from procrastinate import App, SyncPsycopgConnector

    return App(connector=SyncPsycopgConnector())  # never opened: jobs go over the session's own connection


def submit(session: Session, task: Task, key: int = 0) -> None:
    """Put a job into the transaction of *session*, unless one of that task and key waits already."""
    if session.get_bind().dialect.name == "sqlite":
        return
    from procrastinate.exceptions import AlreadyEnqueued

    name = f"{task}:{key}"
    session.execute(
        text("SELECT")
    )  # the driver begins with its first statement; without one, the savepoint would commit
    raw: Any = session.connection().connection.driver_connection
    job = _deferrer().configure_task(
        task.value,
        queue=_queue(task),
        queueing_lock=name,
        lock=None if task is Task.SEND else name,  # two at work on one edition would only wait for each other
        connection=raw,
        allow_unknown=True,
    )
    with contextlib.suppress(AlreadyEnqueued), raw.transaction():  # a savepoint: the refusal must not end the rest
        job.defer(key=key)


def submit_mail(session: Session, batches: int) -> None:
    """Wake as many processes as there are batches to send, within reason."""
    for place in range(min(batches, WAKES)):
        submit(session, Task.SEND, place)


# ----------------------------------------------------------------------------- working


async def work(database: Database, handlers: Mapping[Task, Handler], stop: asyncio.Event) -> None:
    """Run jobs until *stop*, then let those at work finish. Outlives outages of the database.

    The library's worker ends by itself when the database was away for some seconds; it is started again.
    """
    await asyncio.gather(*(_serve(database, queue, handlers, stop) for queue in _QUEUES))


async def _serve(database: Database, queue: str, handlers: Mapping[Task, Handler], stop: asyncio.Event) -> None:
    import psycopg
    from procrastinate.exceptions import ProcrastinateException

    while not stop.is_set():
        app = _app(database, handlers)
        try:
            async with app.open_async():
                await _run(app, queue, stop)
        except (ProcrastinateException, psycopg.Error, OSError) as e:
            log.warning("queue.lost queue=%s %s; trying again", queue, _first_line(e))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _PAUSE_S)


def _app(database: Database, handlers: Mapping[Task, Handler]) -> App:
    from procrastinate import App, PsycopgConnector

    conninfo = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    app = App(connector=PsycopgConnector(conninfo=conninfo, min_size=1, max_size=4, timeout=5.0))
    for task, handler in handlers.items():
        app.task(name=task.value, queue=_queue(task))(_named(handler))
    return app


def _named(handler: Handler) -> Callable[..., Awaitable[None]]:
    async def run(key: int) -> None:
        await handler(key)

    return run


async def _run(app: App, queue: str, stop: asyncio.Event) -> None:
    """One life of the library's worker, beside what hands dead workers' jobs to others."""
    worker = asyncio.create_task(
        app.run_worker_async(
            queues=[queue], name=f"digest-{queue}", concurrency=_QUEUES[queue], install_signal_handlers=False,
            delete_jobs="always", update_heartbeat_interval=HEARTBEAT_S, stalled_worker_timeout=15 * HEARTBEAT_S,
        )
    )  # fmt: skip
    rescue = asyncio.create_task(_rescue(app, queue))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((worker, rescue, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (worker, rescue, stopped):  # the library lets running jobs finish before it gives in
            task.cancel()
        ended = await asyncio.gather(worker, rescue, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def _rescue(app: App, queue: str) -> None:
    """Hand over the jobs of workers that stopped showing up: the library itself does so for none."""
    from procrastinate.exceptions import ConnectorException

    while True:
        await asyncio.sleep(HEARTBEAT_S)
        stalled = await app.job_manager.get_stalled_jobs(queue=queue, seconds_since_heartbeat=3 * HEARTBEAT_S)
        for job in stalled:
            log.warning("job.taken_over task=%s", job.task_name)
            with contextlib.suppress(ConnectorException):  # another process was quicker, or its like waits already
                await app.job_manager.retry_job(job)


def _first_line(e: BaseException) -> str:
    told = str(e.__cause__ or e).strip()
    return told.splitlines()[0] if told else type(e).__name__


# ----------------------------------------------------------------------------- schema


def upgrade(database: Database) -> None:
    """Install the library's tables on PostgreSQL, or bring them up to the installed library. Twice is once.

    The scripts are the library's own. Which of them ran is written on the table itself, so that it travels with a dump.
    """
    if database.is_sqlite:
        return
    from procrastinate.schema import SchemaManager

    scripts = _scripts()
    with told_plainly(), database.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.autocommit = True  # a script that adds to an enum must be committed before the next one uses it
        raw.execute("SELECT pg_advisory_lock(hashtext('digest jobs'))")
        try:
            have = _installed(raw)
            if have is None:
                _apply(raw, SchemaManager.get_schema(), scripts[-1].stem)
            for script in [s for s in scripts if have is not None and s.stem > have]:
                _apply(raw, script.read_text(), script.stem)
        finally:
            raw.execute("SELECT pg_advisory_unlock(hashtext('digest jobs'))")
            raw.autocommit = False


def behind(database: Database) -> bool:
    """True when `upgrade` has something to do."""
    if database.is_sqlite:
        return False
    with database.reading() as session:
        have = session.execute(text(_INSTALLED)).scalar_one()
    return have is None or have < _MARK + _scripts()[-1].stem


BEHIND = "the tables of the queue are not those this program wants; run `digest db upgrade`"
_INSTALLED = "SELECT obj_description(to_regclass('procrastinate_jobs'), 'pg_class')"


def _scripts() -> list[Path]:
    from procrastinate.schema import SchemaManager

    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))


def _installed(raw: Any) -> str | None:
    """The last script that ran; None without tables."""
    (told,) = raw.execute(_INSTALLED).fetchone()
    return told.removeprefix(_MARK) if told else None


def _apply(raw: Any, script: str, name: str) -> None:
    with raw.transaction():
        raw.execute(script)
        raw.execute(f"COMMENT ON TABLE procrastinate_jobs IS '{_MARK}{name}'")
