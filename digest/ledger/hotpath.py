"""A sender's commit in hand-written statements: they run for every few dozen mails. And the addresses of a batch.

On PostgreSQL a commit is one statement, because each further one is a round trip that the connections wait for; on
SQLite, where there are none to save, four. Through the expression language the same commit costs twice the CPU. What
they mean is `digest.ledger.batches`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

#: month, edition, subscriber, attempt, outcome, code, enhanced, text, address, batch, worker
AttemptRow = tuple[int, int, int, int, str, int | None, str | None, str, str, int, str]


@dataclass(frozen=True, slots=True)
class Commit:
    """``moves``: (batch, fence, wire_to, whether it is done); ``granting``: (edition, digest, subscriber)."""

    worker: str
    lease: timedelta
    moves: Sequence[tuple[int, int, int, bool]]
    rows: Sequence[AttemptRow]
    granting: Sequence[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Found:
    """``moved``: the batches that were still this worker's; ``statuses`` of the editions that are granted of;
    ``wanted``: places in ``granting`` of those still subscribed and not suppressed."""

    moved: int
    statuses: dict[int, str]
    wanted: frozenset[int]


def write(connection: Connection, commit: Commit) -> Found:
    """Move ``wire_to`` and leases under their fences, insert attempts, look again at who is granted.

    Where a fence does not hold nothing is recorded: another worker may have ended those deliveries already. On
    PostgreSQL nothing at all is written then, so that this may be the whole of a transaction; on SQLite roll back.
    """
    return _on_sqlite(connection, commit) if connection.dialect.name == "sqlite" else _on_postgresql(connection, commit)


# ----------------------------------------------------------------------------- PostgreSQL

_COLUMNS = (
    "edition_month, edition_id, subscriber_id, attempt, outcome, code, enhanced, text, address, batch_id, worker, at"
)
_TYPES = ("int", "bigint", "bigint", "int", "text", "smallint", "text", "text", "text", "bigint", "text")
_VALUES = ", ".join(f"(a ->> {place})::{kind}" for place, kind in enumerate(_TYPES))
# Rows go as JSON, which the driver need not look into: as arrays they cost it half of the commit. Who is wanted is
# asked reader by reader, by key: joined, a table whose size the server does not know yet is read whole each time.
_ALL = f"""
WITH moves AS (
    SELECT (m ->> 0)::bigint AS id, (m ->> 1)::int AS fence, (m ->> 2)::int AS wire_to, (m ->> 3)::boolean AS done
    FROM jsonb_array_elements(%s::jsonb) AS m
), held AS (
    SELECT b.id, m.wire_to, m.done FROM batches b JOIN moves m ON b.id = m.id
    WHERE b.worker = %s AND b.attempt = m.fence AND NOT b.done FOR UPDATE OF b
), moved AS (
    UPDATE batches b SET wire_to = h.wire_to, done = h.done,
        leased_until = CASE WHEN NOT h.done THEN clock_timestamp() + %s::interval END FROM held h
    WHERE b.id = h.id AND (SELECT count(*) FROM held) = (SELECT count(*) FROM moves)
), told AS (
    INSERT INTO attempts ({_COLUMNS}) SELECT {_VALUES}, clock_timestamp() FROM jsonb_array_elements(%s::jsonb) AS a
    WHERE (SELECT count(*) FROM held) = (SELECT count(*) FROM moves)
), granting AS (
    SELECT (g ->> 0)::bigint AS edition, (g ->> 1)::bigint AS digest, (g ->> 2)::bigint AS subscriber, place
    FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS given(g, place)
)
SELECT (SELECT count(*) FROM held),
    (SELECT json_object_agg(e.id, e.status) FROM editions e WHERE e.id IN (SELECT edition FROM granting)),
    (SELECT array_agg(g.place) FROM granting g WHERE (
        SELECT u.status = 'active' AND NOT EXISTS (SELECT 1 FROM suppressions p WHERE p.address_key = s.address_key)
        FROM subscriptions u JOIN subscribers s ON s.id = u.subscriber_id
        WHERE u.digest_id = g.digest AND u.subscriber_id = g.subscriber))
"""


def _on_postgresql(connection: Connection, commit: Commit) -> Found:
    moves, rows, granting = map(json.dumps, (commit.moves, commit.rows, commit.granting))
    values = (moves, commit.worker, commit.lease, rows, granting)
    moved, statuses, wanted = connection.exec_driver_sql(_ALL, values).one()
    named = {int(edition): status for edition, status in (statuses or {}).items()}
    return Found(moved, named, frozenset(place - 1 for place in wanted or ()))


# ----------------------------------------------------------------------------- SQLite

_ADVANCE = (
    "UPDATE batches SET wire_to = ?, done = ?, leased_until = ?"
    " WHERE id = ? AND worker = ? AND attempt = ? AND NOT done"
)
# One step for all rows: between two of them the event loop's thread takes the interpreter, and gives it back late.
_VALUES_OF_JSON = ", ".join(f"json_extract(a.value, '$[{place}]')" for place in range(len(_TYPES)))
_RECORD = f"INSERT INTO attempts ({_COLUMNS}) SELECT {_VALUES_OF_JSON}, ? FROM json_each(?) a"
_STATUS = "SELECT status FROM editions WHERE id = ?"
_WANTED = (
    "SELECT s.id FROM json_each(?) g CROSS JOIN subscriptions u ON u.digest_id = ? AND u.subscriber_id = g.value"
    " JOIN subscribers s ON s.id = u.subscriber_id"
    " WHERE u.status = 'active' AND NOT EXISTS (SELECT 1 FROM suppressions p WHERE p.address_key = s.address_key)"
)


def _on_sqlite(connection: Connection, commit: Commit) -> Found:
    now, run = datetime.now(UTC), connection.exec_driver_sql
    until, at = _text(now + commit.lease), _text(now)
    moved = 0
    for batch, fence, wire_to, done in commit.moves:
        moved += run(_ADVANCE, (wire_to, done, None if done else until, batch, commit.worker, fence)).rowcount
    if moved != len(commit.moves):
        return Found(moved, {}, frozenset())
    if commit.rows:
        run(_RECORD, (at, json.dumps(commit.rows)))
    statuses = {edition: run(_STATUS, (edition,)).scalar_one() for edition in {e for e, _, _ in commit.granting}}
    wanted: set[tuple[int, int]] = set()
    for digest in {d for _, d, _ in commit.granting}:
        among = json.dumps([subscriber for _, d, subscriber in commit.granting if d == digest])
        wanted |= {(digest, subscriber) for subscriber in run(_WANTED, (among, digest)).scalars()}
    places = (place for place, (_, digest, reader) in enumerate(commit.granting) if (digest, reader) in wanted)
    return Found(moved, statuses, frozenset(places))


# ----------------------------------------------------------------------------- addresses

_ADDRESSES = {
    "postgresql": "SELECT s.id, s.address, s.subscription FROM unnest(%s::bigint[]) AS g(id) CROSS JOIN LATERAL ("
    "SELECT s.id, s.address, u.id AS subscription FROM subscriptions u JOIN subscribers s ON s.id = u.subscriber_id"
    " WHERE u.digest_id = %s AND u.subscriber_id = g.id OFFSET 0) AS s",  # OFFSET 0: reader by reader, as above
    "sqlite": "SELECT s.id, s.address, u.id FROM json_each(?) g CROSS JOIN subscriptions u"
    " ON u.subscriber_id = g.value AND u.digest_id = ? JOIN subscribers s ON s.id = u.subscriber_id",
}


def addresses(connection: Connection, digest: int, subscribers: Sequence[int]) -> dict[int, tuple[str, int]]:
    """Subscriber → (address as given, subscription) of those who have one to that digest."""
    dialect = connection.dialect.name
    among = json.dumps(list(subscribers)) if dialect == "sqlite" else list(subscribers)
    rows = connection.exec_driver_sql(_ADDRESSES[dialect], (among, digest))
    return {subscriber: (address, subscription) for subscriber, address, subscription in rows}


def _text(value: datetime) -> str:
    """As `digest.db.UtcDateTime` stores it."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
