"""How many readers a feed has, as the services that poll for them say in their User-Agent: a lower bound.

Kept: the most that a known service said of a feed on a day. Not kept: addresses, times, anything of a single reader.
Whoever lies in a service's name can raise the figure; a service that says nothing is not in it.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from digest.db import Database
from digest.errors import DigestError
from digest.models import FeedReaders

#: A service's latest day within these counts.
WITHIN = timedelta(days=30)
#: What was heard is written this often, and at most so much of it at once.
FLUSH_S, _HELD_MAX = 60.0, 10_000
_SERVICES = (
    "Feedly", "Feedbin", "FeedBurner", "Inoreader", "NewsBlur", "The Old Reader", "theoldreader", "BazQux", "Miniflux",
    "FreshRSS", "CommaFeed", "Feedspot", "Netvibes", "NewsGator", "Readable", "Yarr", "Feeder", "Bloglovin", "G2Reader",
)  # fmt: skip
_SAID = re.compile(r"(?<!\d)(\d{1,8}) (?:subscriber|reader)s?\b", re.IGNORECASE)
_SERVICE = re.compile("|".join(map(re.escape, _SERVICES)), re.IGNORECASE)
_NAMES = {name.lower(): name for name in _SERVICES}

log = logging.getLogger(__name__)


def reported(agent: str) -> tuple[str, int] | None:
    """Service and readers of a User-Agent; None if it is of no known service or says no number."""
    said, service = _SAID.search(agent[:500]), _SERVICE.search(agent[:500])
    return (_NAMES[service[0].lower()], int(said[1])) if said and service else None


class ReaderCounts:
    """What this process has heard since it last wrote it down."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock = database, clock
        self._heard: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self._flush_at = clock() + FLUSH_S

    def note(self, feed: str, agent: str) -> bool:
        """Hear *agent* ask for *feed* (its path without the extension); whether it is time to `flush`."""
        if (said := reported(agent)) is not None:
            with self._lock:
                key = (feed, said[0])
                if key in self._heard or len(self._heard) < _HELD_MAX:
                    self._heard[key] = max(said[1], self._heard.get(key, 0))
        return bool(self._heard) and self._clock() >= self._flush_at

    def flush(self) -> None:
        with self._lock:
            heard, self._heard = self._heard, {}
            self._flush_at = self._clock() + FLUSH_S
        if not heard:
            return
        try:
            now = self._database.now()
            with self._database.transaction() as session:
                _write(session, heard, now)
        except DigestError as e:
            log.warning("readers of feeds could not be counted: %s", e)


def _write(session: Session, heard: dict[tuple[str, str], int], now: datetime) -> None:
    on_postgresql = session.get_bind().dialect.name == "postgresql"
    make, most = (postgresql.insert, func.greatest) if on_postgresql else (sqlite.insert, func.max)
    day = f"{now:%Y-%m-%d}"
    rows = [{"day": day, "feed": f, "agent": a, "readers": n} for (f, a), n in sorted(heard.items())]
    insert = make(FeedReaders.__table__)  # type: ignore[arg-type]
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["day", "feed", "agent"],
            set_={"readers": most(FeedReaders.readers, insert.excluded.readers)},
        ),
        rows,
    )


def reader_counts(session: Session, now: datetime) -> dict[str, int]:
    """Readers by feed (its path without the extension): of each service what it said last."""
    since = f"{now - WITHIN:%Y-%m-%d}"
    rows = session.execute(
        select(FeedReaders.feed, FeedReaders.agent, FeedReaders.readers)
        .where(FeedReaders.day >= since)
        .order_by(FeedReaders.day)
    )
    latest = {(feed, agent): readers for feed, agent, readers in rows}
    found: dict[str, int] = {}
    for (feed, _), readers in latest.items():
        found[feed] = found.get(feed, 0) + readers
    return dict(sorted(found.items()))
