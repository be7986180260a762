"""Who runs the work, and in which order. Inline: one pass after the other in this process, on both databases.

    tick(app, at)
    ├ ingest.refresh       sources that are due; scheduled articles whose time has come
    ├ Editor.tick          open → compose → release
    ├ send                 system mails, then batches, through one pool of connections
    └ Editor.finish        editions whose batches are all done

Knows no SQL of its own and no protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from digest import ingest, ledger
from digest.bootstrap import App, Connect
from digest.models import Edition
from digest.sending import LedgerStore, Sender, SystemPost, run_async
from digest.types import EditionStatus

#: While draining, how often to look whether another worker's lease has ended.
PATIENCE_S = 0.25


@dataclass(slots=True)
class Pass:
    """What a pass did. ``editions``: ids it touched; ``trouble``: why mail stayed queued, in one sentence;
    ``left``: batches still open afterwards."""

    editions: set[int] = field(default_factory=set)
    sources: list[ingest.SourceReport] = field(default_factory=list)
    trouble: str | None = None
    left: int = 0


def tick(app: App, at: datetime, *, drain: bool = False, refresh: bool = True) -> Pass:
    """One pass as the worker makes it. *at* governs what is due and recent, never leases or back-off."""
    app.signer  # noqa: B018 — a key that cannot sign is said before anything is opened
    done = Pass()
    if refresh:
        done.sources = ingest.refresh(app.db, app.fetcher, at=at)
    done.editions.update(app.editor().tick(at))
    send(app, done, drain=drain)
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
    store = LedgerStore(app.db, app.renderer, app.outgoing, live=live, lease_s=worker.lease_s, impatient=drain)
    while not (stop and stop.is_set()):
        sender = Sender(store, connect, connections=connections, window=worker.window, lease_s=worker.lease_s)
        sent = await sender.run(stop)
        done.editions |= sent.editions
        done.trouble = sent.trouble or done.trouble
        if not drain or sent.trouble or not await asyncio.to_thread(store.left):
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
