"""Readers of a digest, any number of them, written by a few statements.

Subscriber 1 … n stand in one of 24 zones and, where they choose topics, have one of many tastes: three topics on the
average, topic k chosen 1/k times as often as the first (Zipf), as on a site where few topics draw most readers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from benchmarks.shared.catalogue import NUMBERS
from benchmarks.shared.export import NEWEST
from digest.models import Taste

#: Each an hour behind the one before it; the names have their signs the other way round.
ZONES = [f"Etc/GMT{hours:+d}" for hours in range(-12, 12)]

_SUBSCRIBERS = """
INSERT INTO subscribers (id, address, address_key, created_at)
SELECT i, 'reader' || i || '@example.net', 'reader' || i || '@example.net', {since} FROM ({numbers}) AS counted
"""
_SUBSCRIPTIONS = """
INSERT INTO subscriptions (digest_id, subscriber_id, schedule_id, zone, taste_id, dress, status, created_at,
    confirmed_at)
SELECT :digest, i, :schedule, {zone}, :taste + (CAST(i AS bigint) * 7919) % :tastes, 0, 'active', {since}, {since}
FROM ({numbers}) AS counted
"""


def subscribe(
    session: Session, digest: int, count: int, tastes: range, schedule: int | None = None, zones: Sequence[str] = ("",)
) -> None:
    """Write *count* readers into an empty table and subscribe them all; tastes and zones go round among them."""
    dialect = session.get_bind().dialect.name
    since = f"{'timestamptz' if dialect == 'postgresql' else ''} '{NEWEST:%Y-%m-%d} 00:00:00.000000'"
    zone = "CASE i % {} {} END".format(len(zones), " ".join(f"WHEN {n} THEN '{name}'" for n, name in enumerate(zones)))
    words = {"numbers": NUMBERS[dialect], "since": since, "zone": zone}
    session.execute(text(_SUBSCRIBERS.format(**words)), {"count": count})
    given = {"digest": digest, "schedule": schedule, "taste": tastes.start, "tastes": len(tastes), "count": count}
    session.execute(text(_SUBSCRIPTIONS.format(**words)), given)


def draw_tastes(session: Session, topics: Sequence[int], draws: int) -> range:
    """Draw that many sets of topics and write the distinct ones; their ids."""
    chance = random.Random(7)
    drawn = {_taste(topics, chance) for _ in range(draws)}
    first = 1_000_000
    session.execute(insert(Taste), [{"id": first + n, "key": key} for n, key in enumerate(sorted(drawn))])
    return range(first, first + len(drawn))


def _taste(topics: Sequence[int], chance: random.Random) -> str:
    """One to five topics; ``n ** u`` of an even u draws k about as often as 1/k says."""
    chosen = {topics[int(len(topics) ** chance.random()) - 1] for _ in range(chance.randint(1, 5))}
    return ",".join(map(str, sorted(chosen)))
