"""The worker: APScheduler knocks, one trigger a schedule and a sweep a minute; the work itself remembers nothing in it.

    knock (or two quiet seconds) → pass: refresh, open, compose, release (a thread) → deliver (this loop) → finish

A knock is only a reason to look: what is due is a question to SQL. SIGTERM lets what is on the wire finish and hands
the rest back. Decides nothing about articles or readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import select

from digest import audience, catalogue, engine, ingest
from digest.bootstrap import App, Connect, build
from digest.config import Settings
from digest.errors import DigestError, LeaseLost
from digest.ledger.digests import READERS_ZONE
from digest.models import Schedule, ScheduleClock
from digest.schedules import CronSimTrigger
from digest.sending import run_async

log = logging.getLogger("digest.worker")

#: Without a knock, look this often whether a confirmation or a deferred batch waits.
QUIET_S = 2.0
#: An address that nobody confirms is forgotten after this long, as the confirmation mail says.
UNCONFIRMED = timedelta(days=30)
#: After a failure of the database or the relay.
PAUSE_S = 5.0


def work(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT. Mail goes where `App.connected` says; going live is noticed within a minute."""
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    run_async(lambda: Worker(settings).run())


class Worker:
    """One worker process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sweep_s = settings.worker.tick_s

    async def run(self) -> None:
        self._stop, self._knock = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stopped)
        app = await asyncio.to_thread(build, self._settings)
        self._clock = AsyncIOScheduler(timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True})
        self._clock.start()
        try:
            while not self._stop.is_set():
                await self._under_one_transport(app)
        finally:
            self._clock.shutdown(wait=False)
            app.close()

    def _stopped(self) -> None:
        self._stop.set()
        self._knock.set()

    def _knocked(self) -> None:
        self._swept = False
        self._knock.set()

    async def _under_one_transport(self, app: App) -> None:
        """Work as long as mail goes the same way."""
        live = await asyncio.to_thread(lambda: app.live)
        with app.connected() as (connect, connections):
            while not self._stop.is_set() and live == await asyncio.to_thread(lambda: app.live):
                await self._once(app, connect, connections)

    async def _once(self, app: App, connect: Connect, connections: int) -> None:
        self._knock.clear()
        try:
            if not self._swept:
                self._swept = True
                await asyncio.to_thread(self._look, app)
            done = engine.Pass()
            await engine.deliver(app, connect, connections, done, stop=self._stop)
            await asyncio.to_thread(app.editor().finish)
            pause = PAUSE_S if done.trouble else QUIET_S
            if done.trouble:
                log.warning("delivery.trouble %s", done.trouble)
        except LeaseLost as e:
            log.warning("lease.lost %s", e)
            pause = 0.0
        except DigestError as e:
            log.error("pass.failed %s", e)
            self._swept, pause = False, PAUSE_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._knock.wait(), pause)

    _swept = False

    def _look(self, app: App) -> None:
        """Refresh sources, open, compose, release: everything that is due now."""
        at = datetime.now(UTC)
        self._set_triggers(app)
        for report in ingest.refresh(app.db, app.fetcher, at=at):
            for code, message in report.errors:
                log.warning("source.failed source=%s code=%s %s", report.source, code, message)
        app.editor().tick(at)
        with app.db.transaction() as session:
            audience.forget_unconfirmed(session, at - UNCONFIRMED)

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
