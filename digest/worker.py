"""The worker: APScheduler knocks, one trigger a schedule and a sweep a minute; the work itself remembers nothing in it.

On SQLite this one process does all the work:

    knock (or two quiet seconds) → look: refresh, open, compose, release (a thread) → deliver (this loop) → finish

On PostgreSQL a knock is a job, and this process one of any number that take jobs: see `digest.engine.Shared`.

A knock is only a reason to look: what is due is a question to SQL. SIGTERM lets what is on the wire finish and hands
the rest back. Decides nothing about articles or readers.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import select

from digest import bounces, catalogue, engine, jobs
from digest.bootstrap import App, Connect, build
from digest.config import Settings
from digest.errors import ConfigError, DigestError
from digest.ledger.digests import READERS_ZONE
from digest.models import Schedule, ScheduleClock
from digest.schedules import CronSimTrigger
from digest.sending import run_async

log = logging.getLogger("digest.worker")

#: How often a worker says that it is alive, to whom wants to know.
BEAT_S = 1.0
#: Look this often whether a feed changed that hubs are to be told of.
HUBS_S = 5.0


def work(settings: Settings, beat: Callable[[], None] = lambda: None) -> None:
    """Work until SIGTERM or SIGINT. Mail goes where `App.connected` says; going live is noticed within seconds.

    *beat* is called about once a second from the loop that sends: whoever listens knows that it turns.
    """
    for noisy in ("apscheduler", "procrastinate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    run_async(lambda: Worker(settings, beat).run())


def poll_bounces(app: App, stop: Callable[[], bool]) -> bounces.Polled:
    """One poll of the mailbox that the settings name."""
    place, post = app.settings.bounce_mailbox(), app.post
    assert place is not None
    return bounces.poll(
        app.db, place, keys=post.keys, domain=post.mail_domain, now=lambda: datetime.now(UTC), stop=stop
    )


class Worker:
    """One worker process."""

    def __init__(self, settings: Settings, beat: Callable[[], None]) -> None:
        self._settings, self._beat = settings, beat

    async def run(self) -> None:
        self._stop, self._knock = asyncio.Event(), asyncio.Event()
        self._due = True
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stopped)
        app = await asyncio.to_thread(build, self._settings)
        self._clock = AsyncIOScheduler(timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True})
        self._clock.add_job(self._knocked, "interval", seconds=self._settings.worker.tick_s, id="sweep")
        self._clock.start()
        beating = asyncio.create_task(self._beats())
        telling = asyncio.create_task(self._tell_hubs(app)) if self._settings.feeds.hubs else None
        polling = asyncio.create_task(self._poll(app))
        try:
            while not self._stop.is_set():
                await self._under_one_transport(app)
        finally:
            self._stop.set()
            beating.cancel()
            if telling is not None:
                await telling
            self._clock.shutdown(wait=False)
            await polling
            app.close()

    async def _tell_hubs(self, app: App) -> None:
        """Beside everything else, so that a hub that is slow holds up nothing."""
        while not self._stop.is_set():
            try:
                await asyncio.to_thread(app.tell_hubs)
            except DigestError as e:
                log.error("hubs.failed %s", e)
            await engine.wait(self._stop, HUBS_S)

    async def _poll(self, app: App) -> None:
        """Empty the mailbox of bounces now and then, beside everything else: its server may be slow."""
        while app.settings.bounces.host is not None and not self._stop.is_set():
            try:
                polled = await asyncio.to_thread(poll_bounces, app, self._stop.is_set)
                if polled.read:
                    log.info("bounces.polled read=%d left=%d", polled.read, polled.left)
            except (DigestError, ConfigError) as e:
                log.warning("bounces.failed %s", e)
            await engine.wait(self._stop, app.settings.bounces.every_s)

    def _stopped(self) -> None:
        self._stop.set()
        self._knock.set()

    def _knocked(self) -> None:
        self._due = True
        self._knock.set()

    async def _beats(self) -> None:
        while True:
            self._beat()
            await asyncio.sleep(BEAT_S)

    async def _under_one_transport(self, app: App) -> None:
        """Work as long as mail goes the same way."""
        live = await self._live(app)
        if live is None:
            await engine.wait(self._stop, engine.PAUSE_S)
            return
        with app.connected() as (connect, connections):
            if app.db.is_sqlite:
                while not self._stop.is_set() and await self._live(app) in (live, None):
                    await self._alone(app, connect, connections)
            else:
                await self._among_others(app, connect, connections, live)

    async def _live(self, app: App) -> bool | None:
        """Does mail leave now? None while the database does not say."""
        try:
            return await asyncio.to_thread(lambda: app.live)
        except DigestError as e:
            log.error("database.lost %s", e)
            return None

    # -- all the work in this process

    async def _alone(self, app: App, connect: Connect, connections: int) -> None:
        self._knock.clear()
        if self._due:
            self._due = False
            self._due = not await self._tried(self._look, app)
        pause = await engine.send_once(app, connect, connections, self._stop)
        await engine.wait(self._knock, engine.PAUSE_S if self._due else pause)

    def _look(self, app: App) -> None:
        self._set_triggers(app)
        engine.look(app, datetime.now(UTC))

    async def _tried(self, what: Callable[[App], None], app: App) -> bool:
        """True when it worked; a failure of the database is one line in the log."""
        try:
            await asyncio.to_thread(what, app)
        except DigestError as e:
            log.error("pass.failed %s", e)
            return False
        return True

    # -- one of many

    async def _among_others(self, app: App, connect: Connect, connections: int, live: bool) -> None:
        done = asyncio.Event()
        working = asyncio.create_task(engine.Shared(app, connect, connections, done).run())
        try:
            while not self._stop.is_set() and not working.done() and await self._live(app) in (live, None):
                self._knock.clear()
                if self._due:
                    self._due = not await self._tried(self._ask, app)
                await engine.wait(self._knock, engine.QUIET_S)
        finally:
            done.set()
            await working

    def _ask(self, app: App) -> None:
        """A look, by whichever process is free."""
        self._set_triggers(app)
        with app.db.transaction() as session:
            jobs.submit(session, jobs.Task.LOOK)

    # -- when to knock

    def _set_triggers(self, app: App) -> None:
        """One trigger a schedule and zone, so that a run starts on its second and not with the next sweep."""
        with app.db.reading() as session:
            home = catalogue.publication(session).timezone
            wanted = {
                f"{schedule.id} {schedule.cron} {zone}": (schedule.cron, zone)
                for schedule, zone in session.execute(
                    select(Schedule, ScheduleClock.zone).join(ScheduleClock, ScheduleClock.schedule_id == Schedule.id)
                )
                for zone in [home if zone == READERS_ZONE else zone]
            }
        have = {job.id for job in self._clock.get_jobs()} - {"sweep"}
        for gone in have - wanted.keys():
            self._clock.remove_job(gone)
        for new in wanted.keys() - have:
            self._clock.add_job(self._knocked, CronSimTrigger(*wanted[new]), id=new)
