"""Telling WebSub hubs that a feed has changed: one ping a hub, feed and change, by one process at a time.

What a hub was told of stands in SQL (`HubFeed`), so that nothing is told twice or forgotten over restarts. A hub that
fails is left alone for a while, twice as long each time, and holds up nothing else. Who subscribes is its business.

    tell_hubs(…)
    ├ rows of new hubs      what is there already counts as told
    ├ claim                 a hub whose time has come, by compare-and-set
    ├ changed               versions above what it was told of
    └ ping each             told → noted; failed → back-off for this hub
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from digest.db import Database
from digest.errors import SourceError
from digest.feeds import FORMATS
from digest.fetch import Fetcher
from digest.models import Digest, FeedVersion, Hub, HubFeed, Topic
from digest.publishing.names import url_of
from digest.publishing.readings import WHOLE, edition_moments
from digest.types import FeedSelector

#: After a failure: twice as long each time, at most the second.
_BACK_OFF, _MAX_BACK_OFF = timedelta(minutes=1), timedelta(hours=6)
#: How long one pass may go on telling a hub, and how long the hub is nobody else's meanwhile.
_PASS_S, _LEASE = 30.0, timedelta(minutes=5)
_ERROR_MAX = 300


@dataclass(frozen=True, slots=True)
class HubState:
    """How a hub of the settings is doing. ``error``: why it was not told last time."""

    url: str
    told_at: datetime | None
    failures: int
    not_before: datetime
    error: str | None


@dataclass(frozen=True, slots=True)
class _Change:
    row: int
    version: int
    selector: FeedSelector


def hub_states(session: Session, hubs: Sequence[str]) -> list[HubState]:
    rows = session.scalars(select(Hub).where(Hub.url.in_(hubs)).order_by(Hub.url))
    return [HubState(h.url, h.told_at, h.failures, h.not_before, h.last_error) for h in rows]


def tell_hubs(database: Database, fetcher: Fetcher, public_url: str, hubs: Sequence[str]) -> int:
    """Tell every hub whose time has come of what changed; how many pings were taken."""
    if not hubs:
        return 0
    _welcome(database, hubs)
    return sum(_tell(database, fetcher, public_url, hub) for hub in _claimed(database, hubs))


def _welcome(database: Database, hubs: Sequence[str]) -> None:
    """New hubs are told of what comes, not of what is there."""
    with database.reading() as session:
        known = set(session.scalars(select(Hub.url).where(Hub.url.in_(hubs))))
    for url in sorted(set(hubs) - known):
        with database.transaction() as session:
            _insert(session, Hub, [{"url": url, "failures": 0, "not_before": database.now()}])
            hub = session.execute(select(Hub.id).where(Hub.url == url)).scalar_one()
            told = [{"hub_id": hub, "topic_id": row, "version": version} for row, version in _versions(session).items()]
            _insert(session, HubFeed, told)


def _claimed(database: Database, hubs: Sequence[str]) -> Iterator[tuple[int, str]]:
    now = database.now()
    with database.reading() as session:
        due = session.execute(select(Hub.id, Hub.url, Hub.not_before).where(Hub.url.in_(hubs), Hub.not_before <= now))
        rows = due.all()
    for hub, url, seen in rows:
        with database.transaction() as session:
            mine = update(Hub).where(Hub.id == hub, Hub.not_before == seen).values(not_before=now + _LEASE)
            won = cast(Any, session.execute(mine)).rowcount == 1
        if won:
            yield hub, url


def _tell(database: Database, fetcher: Fetcher, public_url: str, hub: tuple[int, str]) -> int:
    number, url = hub
    with database.reading() as session:
        changes = _changes(session, number)
    taken, until, problem = 0, time.monotonic() + _PASS_S, ""
    for change in changes:
        if time.monotonic() > until:
            break
        try:
            fetcher.post(url, _ping(change.selector, public_url))
        except SourceError as e:
            problem = str(e)[:_ERROR_MAX]
            break
        taken += 1
        with database.transaction() as session:
            _note(session, number, change)
    _settle(database, number, taken, problem)
    return taken


def _settle(database: Database, hub: int, taken: int, problem: str) -> None:
    """Give the hub free, at once or after its back-off."""
    now = database.now()
    with database.transaction() as session:
        row = session.get_one(Hub, hub)
        row.failures = row.failures + 1 if problem else 0
        row.last_error = problem or None
        row.told_at = now if taken else row.told_at
        row.not_before = now + min(_BACK_OFF * 2 ** min(row.failures - 1, 20), _MAX_BACK_OFF) if problem else now


def _ping(selector: FeedSelector, public_url: str) -> list[tuple[str, str]]:
    """Every address under which the feed is known to subscribers."""
    trees = [selector] if selector.kind == "digest" else [selector, FeedSelector(selector.kind, selector.slug, True)]
    urls = [f"{url_of(tree, public_url)}.{extension}" for tree in trees for extension in FORMATS]
    return [("hub.mode", "publish"), *(("hub.url", url) for url in urls)]


# ----------------------------------------------------------------------------- what changed


def _versions(session: Session) -> dict[int, int]:
    """Versions by row of `FeedVersion`; a digest's counts the moments of its editions too."""
    found: dict[int, int] = dict(session.execute(select(FeedVersion.topic_id, FeedVersion.version)).all())
    for digest in session.scalars(select(Digest.id)):
        found[-digest] = found.get(-digest, 0) + len(edition_moments(session, digest))
    return found


def _changes(session: Session, hub: int) -> list[_Change]:
    query = select(HubFeed.topic_id, HubFeed.version).where(HubFeed.hub_id == hub)
    told: dict[int, int] = dict(session.execute(query).all())
    moved = {row: version for row, version in _versions(session).items() if version > told.get(row, 0)}
    found = []
    for row, version in sorted(moved.items(), key=lambda pair: (pair[0] != WHOLE, pair[0])):
        selector = _selector(session, row)
        if selector is not None:
            found.append(_Change(row, version, selector))
    return found


def _selector(session: Session, row: int) -> FeedSelector | None:
    if row == WHOLE:
        return FeedSelector("all")
    if row < 0:
        slug = session.scalar(select(Digest.slug).where(Digest.id == -row))
        return FeedSelector("digest", slug) if slug else None
    topic = session.get(Topic, row)
    if topic is None or topic.hidden or topic.merged_into is not None:
        return None
    return FeedSelector(cast(Any, topic.kind), topic.slug)


def _note(session: Session, hub: int, change: _Change) -> None:
    make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = make(HubFeed.__table__).values(hub_id=hub, topic_id=change.row, version=change.version)  # type: ignore[arg-type]
    later = func.greatest if session.get_bind().dialect.name == "postgresql" else func.max
    session.execute(
        row.on_conflict_do_update(
            index_elements=["hub_id", "topic_id"], set_={"version": later(HubFeed.version, row.excluded.version)}
        )
    )


def _insert(session: Session, table: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        session.execute(make(table.__table__).on_conflict_do_nothing(), rows)
