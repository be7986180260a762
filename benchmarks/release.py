"""A release: who of a million readers gets which stories, decided once and written down.

* **plain**: a digest without topics, nothing of it read before. The peer is a bare INSERT … SELECT array_agg of the
  same batches from subscriptions, with the same compression and indexes: ≤ 3 ×. PostgreSQL alone has array_agg.
* **personal**: a daily of which each reader chose topics (three of 200, by Zipf), at seven in the morning in 24 zones,
  with eight days of editions that have to be looked at: ≤ 20 µs a recipient, worker < 300 MB, and not a row a reader.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from benchmarks.shared.catalogue import CATEGORIES, TAGS, fill
from benchmarks.shared.databases import KINDS, Databases, databases
from benchmarks.shared.export import NEWEST
from benchmarks.shared.measuring import Figure, called
from benchmarks.shared.readers import ZONES, draw_tastes, subscribe
from digest import ledger
from digest.audience import Keys
from digest.db import Database
from digest.editions import Editor
from digest.ledger.digests import READERS_ZONE
from digest.models import Batch, Edition, Variant
from digest.rendering import Renderer
from digest.sending import Post
from tests import build

SIZES = {"readers": 1_000_000, "turns": 5, "articles": 5_000, "tastes": 400_000, "days": 8, "zones": 24, "apart": 1}
TINY = {"readers": 300, "turns": 1, "articles": 900, "tastes": 50, "days": 1, "zones": 2, "apart": 0}

DAY = timedelta(days=1)
POST = Post("https://news.example", "news.example", Keys(b"t" * 32, b"m" * 32))

_BARE = """
CREATE TABLE bare (edition_id bigint, part int, n int, ids bigint[], ordinals int[], not_before timestamptz,
    done boolean, PRIMARY KEY (edition_id, part, n));
CREATE INDEX ON bare (not_before) WHERE NOT done;
"""
_FILL = """
INSERT INTO bare SELECT 1, (subscriber_id >> 17)::int, ((subscriber_id & 131071) / 500)::int,
    array_agg(subscriber_id), array_agg(1), now(), false
FROM subscriptions WHERE digest_id = :digest AND status = 'active' GROUP BY 1, 2, 3
"""
_PACKED = "SELECT attcompression = 'l' FROM pg_attribute WHERE attrelid = 'batches'::regclass AND attname = 'ids'"
_LZ4 = "ALTER TABLE bare ALTER ids SET COMPRESSION lz4, ALTER ordinals SET COMPRESSION lz4;"


def run(sizes: dict[str, int]) -> Iterator[Figure]:
    with databases() as made:
        for kind in KINDS:
            yield from _plain(made, kind, sizes)
            yield from _personal(made, kind, sizes)


class _Desk:
    """An editor who times what is released."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.editor = Editor(self.database, Renderer(), POST, live=True)

    def release(self, edition: int) -> tuple[float, int]:
        """Compose an edition, then release it: (seconds of the release, recipients)."""
        self.editor.compose(edition)
        began = time.perf_counter()
        self.editor.release(edition)
        spent = time.perf_counter() - began
        with self.database.reading() as session:
            return spent, session.get_one(Edition, edition).recipients

    def all_of(self, edition: int, readers: int) -> float:
        spent, recipients = self.release(edition)
        if recipients != readers:
            raise RuntimeError(f"{recipients} of {readers} readers got something")
        return spent


# ----------------------------------------------------------------------------- plain


def _plain(made: Databases, kind: str, sizes: dict[str, int]) -> Iterator[Figure]:
    """Editions that lie so far apart that they share no story, and beside each the bare statement."""
    readers = sizes["readers"]
    with made.fresh(kind) as url:
        desk = _Desk(url)
        fill(desk.database, sizes["articles"])
        with desk.database.transaction() as session:
            digest = build.digest(session, cron="", lookback_s=86_400).id
            taste = build.taste(session).id
            subscribe(session, digest, readers, range(taste, taste + 1))
        _settle(desk.database)
        dates = [NEWEST - n * 2 * DAY for n in range(sizes["turns"], -1, -1)]
        desk.all_of(desk.editor.open_manual("morning", dates[0]), readers)  # templates compile, pages come in
        pairs: list[tuple[float, float | None]] = []
        for at in dates[1:]:
            ours = desk.all_of(desk.editor.open_manual("morning", at), readers)
            pairs.append((ours, _bare(desk.database, digest) if kind == "PostgreSQL" else None))
        desk.database.close()
    bar = 3 if kind == "PostgreSQL" else None
    yield Figure(f"plain digest to {readers:,} readers, {kind}", pairs, "s", at_most=bar)


def _bare(database: Database, digest: int) -> float:
    with database.transaction() as session:
        packed = (
            "SELECT attcompression = 'l' FROM pg_attribute WHERE attrelid = 'batches'::regclass AND attname = 'ids'"
        )
        lz4 = _LZ4 if session.scalar(text(packed)) else ""
        session.execute(text(f"DROP TABLE IF EXISTS bare; {_BARE}{lz4}"))
    began = time.perf_counter()
    with database.transaction() as session:
        session.execute(text(_FILL), {"digest": digest})
    return time.perf_counter() - began


def _settle(database: Database) -> None:
    """What PostgreSQL's own daemon does within the minute."""
    if not database.is_sqlite:
        with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("VACUUM ANALYZE subscribers, subscriptions, tastes"))


# ----------------------------------------------------------------------------- personal


def _personal(made: Databases, kind: str, sizes: dict[str, int]) -> Iterator[Figure]:
    with made.fresh(kind) as url:
        called("benchmarks.release:site", apart=sizes["apart"], url=url, sizes=sizes)
        called("benchmarks.release:days", apart=sizes["apart"], url=url, first=-sizes["days"], count=sizes["days"])
        sample = called("benchmarks.release:days", apart=sizes["apart"], url=url, first=0, count=1)
    got = sample.result
    if got["rows"] > got["recipients"] / 3 + 1_000:
        raise RuntimeError(f"{got['rows']:,} rows for {got['recipients']:,} recipients")
    name = f"personal daily to {sizes['readers']:,} readers in {sizes['zones']} zones, {kind}"
    yield Figure(f"{name}, a recipient", [(got["seconds"] / got["recipients"] * 1e6, None)], "µs", at_most=20)
    yield Figure(f"{name}, memory", [(sample.peak_mb, None)], "MB", at_most=300)


def site(url: str, sizes: dict[str, int]) -> None:
    """Articles, a digest that may look nine days back, and readers who chose."""
    database = Database(url)
    fill(database, sizes["articles"])
    with database.transaction() as session:
        digest = build.digest(session, zone=READERS_ZONE, lookback_s=(sizes["days"] + 1) * 86_400)
        schedule = build.schedule_of(session, digest).id
        topics = range(1 + CATEGORIES, 1 + CATEGORIES + TAGS)
        tastes = draw_tastes(session, topics, sizes["tastes"])
        zones = ZONES[: sizes["zones"]]
        subscribe(session, digest.id, sizes["readers"], tastes, schedule, zones)
        for zone in zones:
            ledger.editions.add_clock(session, schedule, zone)
    _settle(database)
    database.close()


def days(url: str, first: int, count: int) -> dict[str, Any]:
    """Release what strikes on *count* days, hour by hour; day 0 is the last one with articles."""
    desk, seconds, recipients = _Desk(url), 0.0, 0
    with desk.database.reading() as session:
        rows = -_rows(session)
    start = NEWEST.replace(hour=0, minute=0, second=0, microsecond=0) - DAY
    desk.editor.open_due(start + first * DAY)  # clocks that nobody has looked at are set
    for hour in range(1, 24 * count + 1):
        for edition in desk.editor.open_due(start + first * DAY + hour * timedelta(hours=1)):
            spent, got = desk.release(edition)
            seconds, recipients = seconds + spent, recipients + got
    with desk.database.reading() as session:
        rows += _rows(session)
    desk.database.close()
    return {"seconds": seconds, "recipients": recipients, "rows": rows}


def _rows(session: Session) -> int:
    return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in (Batch, Variant))
