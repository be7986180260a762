"""Who runs the work, and in which order.

Inline, in one process, on both databases (commands, and the worker on SQLite):

    tick(app, at)
    ├ ingest.refresh       sources that are due; scheduled articles whose time has come
    ├ Editor.tick          open → compose → release
    ├ send                 system mails, then batches, through one pool of connections
    ├ Editor.finish        editions whose batches are all done
    └ tell_hubs            feeds that changed

Shared, by the workers of any number of machines, on PostgreSQL. Each arrow is a job (`digest.jobs`), which any process
takes; what it does is asked of SQL again:

    look ─┬─► poll (a source)
          └─► compose (an edition): due sources first, then composed, and released in order ──► send
    sweep, every other second: mail that waits without a lease ──► send

Knows no SQL of its own and no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from digest import audience, ingest, jobs, ledger
from digest.bootstrap import App, Connect
from digest.db import clock
from digest.errors import DigestError, LeaseLost
from digest.models import Edition
from digest.sending import LedgerStore, Refusals, Sender, SystemPost, is_gone, run_async
from digest.types import EditionStatus

log = logging.getLogger("digest.engine")

#: Without a knock, look this often whether a confirmation or a deferred batch waits.
QUIET_S = 2.0
#: After a failure of the database or the relay.
PAUSE_S = 5.0
#: An edition that is due waits this long, all in all, for sources that are due.
FRESH_S = 60.0
#: An address that nobody confirms is forgotten after this long, as the confirmation mail says.
UNCONFIRMED = timedelta(days=30)
#: Steps of forgetting in one look: the rest waits for the next.
HOUSE_STEPS = 10
#: While draining, how often to look whether another worker's lease has ended.
PATIENCE_S = 0.25


@dataclass(slots=True)
class Pass:
    """What a pass did. ``editions``: ids it touched; ``trouble``: why mail stayed queued, in one sentence;
    ``over``: that the mails of the day have gone; ``left``: batches still open afterwards."""

    editions: set[int] = field(default_factory=set)
    sources: list[ingest.SourceReport] = field(default_factory=list)
    trouble: str | None = None
    over: str | None = None
    left: int = 0


def tick(app: App, at: datetime, *, drain: bool = False, refresh: bool = True) -> Pass:
    """One pass as the worker makes it. *at* governs what is due and recent, never leases or back-off."""
    app.signer  # noqa: B018 — a key that cannot sign is said before anything is opened
    done = Pass()
    if refresh:
        done.sources = ingest.refresh(app.db, app.fetcher, at=at)
    done.editions.update(app.editor().tick(at))
    send(app, done, drain=drain)
    app.tell_hubs()
    return done


def send(app: App, done: Pass | None = None, *, drain: bool = False) -> Pass:
    """Send what is queued. *drain*: until nothing is left, deferred ones at once and at most three times."""
    done = done or Pass()
    with app.connected() as (connect, connections):
        run_async(lambda: deliver(app, connect, connections, done, drain=drain))
    done.editions.update(app.editor().finish())
    return done


def run(app: App, slug: str, at: datetime) -> tuple[Pass, int]:
    """Open an edition of a digest outside its schedule and send it, all of it, unless it is held; the edition's id."""
    app.signer  # noqa: B018 — as in `tick`
    editor = app.editor()
    edition = editor.open_manual(slug, at)
    editor.compose(edition)
    editor.release(edition)
    released = edition_rows(app, ids=[edition])[0]["status"] == EditionStatus.SENDING
    return send(app, drain=True) if released else Pass(), edition


async def deliver(
    app: App, connect: Connect, connections: int, done: Pass, *, drain: bool = False, stop: asyncio.Event | None = None
) -> None:
    """System mails first, then batches; see `send`. Sets ``done.trouble`` when the relay is not there."""
    await _system_mails(app, connect, done, impatient=drain)
    live = app.live
    worker = app.settings.worker
    refusals = Refusals(after=worker.refused_after, share=worker.refused_share)
    shares = app.shares if live else None
    store = LedgerStore(
        app.db, app.renderer, app.outgoing, live=live, lease_s=worker.lease_s, impatient=drain, refusals=refusals,
        shares=shares,
    )  # fmt: skip
    while not (stop and stop.is_set()):
        if shares and (over := shares.over):
            done.over = over
            break
        sender = Sender(
            store, connect, connections=connections, window=worker.window, lease_s=worker.lease_s, shares=shares,
            patient=drain,
        )  # fmt: skip
        sent = await sender.run(stop)
        done.editions |= sent.editions
        done.trouble, done.over = sent.trouble or done.trouble, sent.over
        if not drain or sent.trouble or sent.over or not await asyncio.to_thread(store.left):
            break
        await asyncio.sleep(PATIENCE_S)
    done.left = await asyncio.to_thread(_open_batches, app, live)


def _open_batches(app: App, live: bool) -> int:
    with app.db.reading() as session:
        return ledger.editions.open_batches(session, live)


async def _system_mails(app: App, connect: Connect, done: Pass, *, impatient: bool) -> None:
    post = SystemPost(app.db, app.renderer, app.outgoing)
    while await asyncio.to_thread(post.claim, impatient=False):
        await post.run(connect)
        if post.trouble:
            done.trouble = post.trouble
            return


# ----------------------------------------------------------------------------- inline, for as long as a worker lives


def look(app: App, at: datetime) -> None:
    """Refresh sources, open, compose, release: everything that is due at *at*, and keep the house."""
    _warn(ingest.refresh(app.db, app.fetcher, at=at))
    app.editor().tick(at)
    keep_house(app, at)


def keep_house(app: App, at: datetime) -> None:
    """Forget what must not be kept or need not be, a little at a time; make room for the next months."""
    kept = app.settings.retention
    with app.db.transaction() as session:
        audience.forget_unconfirmed(session, at - UNCONFIRMED)
        ledger.retention.make_months(session, at)
        ledger.rates.forget(session, clock(session))
    for _ in range(HOUSE_STEPS):
        with app.db.transaction() as session:
            now = clock(session)
            more = ledger.retention.forget_month(session, now, kept.months)
            if not (ledger.retention.forget_later(session, now, kept.months, kept.captured_days) or more):
                return


def _warn(reports: Sequence[ingest.SourceReport]) -> None:
    for report in reports:
        for code, message in report.errors:
            log.warning("source.failed source=%s code=%s %s", report.source, code, message)


async def send_once(app: App, connect: Connect, connections: int, stop: asyncio.Event) -> float:
    """Send what waits; seconds to pause before the next look. What fails is one line in the log."""
    done = Pass()
    try:
        await deliver(app, connect, connections, done, stop=stop)
        await asyncio.to_thread(app.editor().finish)
    except LeaseLost as e:
        log.warning("lease.lost %s", e)
        return 0.0
    except DigestError as e:
        log.error("pass.failed %s", e)
        return PAUSE_S
    if done.trouble:
        log.warning("delivery.trouble %s", done.trouble)
        return PAUSE_S
    return QUIET_S


# ----------------------------------------------------------------------------- shared by the workers of all machines


class Shared:
    """This process's part of the work that the jobs hand out, for as long as mail goes the same way."""

    def __init__(self, app: App, connect: Connect, connections: int, stop: asyncio.Event) -> None:
        self._app, self._connect, self._connections, self._stop = app, connect, connections, stop

    async def run(self) -> None:
        """Take jobs until told to stop; what is at work then is finished."""
        handlers = {
            jobs.Task.LOOK: lambda _: self._in_thread(self._look),
            jobs.Task.POLL: lambda source: self._in_thread(self._poll, source),
            jobs.Task.COMPOSE: lambda edition: self._in_thread(self._compose, edition),
            jobs.Task.SEND: lambda _: self._send(),
        }
        sweeping = asyncio.create_task(self._sweep())
        try:
            await jobs.work(self._app.db, handlers, self._stop)
        finally:
            sweeping.cancel()

    async def _in_thread(self, what: Callable[..., None], *args: int) -> None:
        try:
            await asyncio.to_thread(what, *args)
        except DigestError as e:  # the next look asks SQL again
            log.error("job.failed %s", e)

    def _look(self) -> None:
        """Submit what is due at this moment: polls, and editions with their opening."""
        at = datetime.now(UTC)
        ingest.refresh(self._app.db, self._app.fetcher, at=at, among=())  # no source: articles whose date has come
        for source in ingest.due(self._app.db, at):
            self._submit(jobs.Task.POLL, source)
        editor = self._app.editor()
        editor.close_captured()
        editor.open_due(at)
        for edition in self._waiting():  # drafts whose job was lost
            self._submit(jobs.Task.COMPOSE, edition)
        editor.finish()
        keep_house(self._app, at)

    def _submit(self, task: jobs.Task, key: int = 0) -> None:
        with self._app.db.transaction() as session:
            jobs.submit(session, task, key)

    def _waiting(self) -> Sequence[int]:
        with self._app.db.reading() as session:
            return list(ledger.editions.waiting(session))

    def _poll(self, source: int) -> None:
        _warn(ingest.refresh(self._app.db, self._app.fetcher, at=datetime.now(UTC), among=[source]))

    def _compose(self, edition: int) -> None:
        """Sources first, ours and those that others read just now; then this edition, and what it held up."""
        self._freshen()
        editor = self._app.editor()
        editor.compose(edition)
        editor.release_ready()

    def _freshen(self) -> None:
        until = time.monotonic() + FRESH_S
        at = datetime.now(UTC)
        while (left := until - time.monotonic()) > 0 and (sources := ingest.due(self._app.db, at)):
            _warn(ingest.refresh(self._app.db, self._app.fetcher, at=at, among=sources, budget_s=left))
            time.sleep(0.2)

    async def _send(self) -> None:
        pause = await send_once(self._app, self._connect, self._connections, self._stop)
        if pause == PAUSE_S:  # a relay or database that is away: this process has had its turn
            await wait(self._stop, pause)

    async def _sweep(self) -> None:
        """Mail that is due and nobody's wakes a process: deferred, confirmations, what a dead worker held."""
        while True:
            await asyncio.sleep(QUIET_S)
            try:
                await asyncio.to_thread(self._wake)
            except DigestError as e:
                log.error("sweep.failed %s", e)

    def _wake(self) -> None:
        live = self._app.live
        with self._app.db.reading() as session:
            holders = {*ledger.batches.leaseholders(session), *ledger.mails.leaseholders(session)}
            gone = [w for w in holders if is_gone(w)]
            free = ledger.batches.free(session, live, gone, jobs.WAKES) or int(ledger.mails.waiting(session, gone))
        if free:
            with self._app.db.transaction() as session:
                jobs.submit_mail(session, free)


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event or the time, whichever comes first."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


# ----------------------------------------------------------------------------- reports


def edition_rows(app: App, ids: Sequence[int] | None = None, **which: Any) -> list[dict[str, Any]]:
    """Editions as `tick`, `run` and `editions list` print them, by (scheduled time, digest, edition)."""
    with app.db.reading() as session:
        return [
            _row(edition, slug, ledger.outcome_counts(session, edition))
            for edition, slug in ledger.editions.editions(session, ids=ids, **which)
        ]


def _row(edition: Edition, slug: str, counts: dict[str, int]) -> dict[str, Any]:
    local = edition.instant.astimezone(ZoneInfo(edition.zone))
    return {
        "edition": edition.id,
        "digest": slug,
        "scheduled_for": local.isoformat() if edition.request_id is None else None,
        "status": edition.status,
        "reason": edition.reason,
        "recipients": edition.recipients,
        **counts,
    }
