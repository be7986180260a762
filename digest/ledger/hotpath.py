"""A sender's commit in hand-written statements: they run for every few dozen mails.

On PostgreSQL it is one statement, because each further one is a round trip that the connections wait for; on SQLite,
where there are none to save, four. Through the expression language the same commit costs twice the CPU. What they mean
is `digest.ledger.batches`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection
from sqlalchemy.orm import Session

#: month, edition, subscriber, attempt, outcome, code, enhanced, text, address, batch, worker
AttemptRow = tuple[int, int, int, int, str, int | None, str | None, str, str, int, str]


@dataclass(frozen=True, slots=True)
class Commit:
    """``moves``: (batch, fence, wire_to); ``granting``: (edition, digest, subscriber)."""

    worker: str
    lease: timedelta
    moves: Sequence[tuple[int, int, int]]
    rows: Sequence[AttemptRow]
    granting: Sequence[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Found:
    """``moved``: the batches that were still this worker's; ``statuses`` of the editions that are granted of;
    ``wanted``: places in ``granting`` of those still subscribed and not suppressed."""

    moved: int
    statuses: dict[int, str]
    wanted: frozenset[int]


def write(session: Session, commit: Commit) -> Found:
    """Move ``wire_to`` and leases under their fences, insert attempts, look again at who is granted.

    Where a fence does not hold nothing is inserted: another worker may have ended those deliveries already.
    """
    connection = session.connection()
    return _on_sqlite(connection, commit) if connection.dialect.name == "sqlite" else _on_postgresql(connection, commit)


# ----------------------------------------------------------------------------- PostgreSQL

_COLUMNS = (
    "edition_month, edition_id, subscriber_id, attempt, outcome, code, enhanced, text, address, batch_id, worker, at"
)
_TYPES = ("int", "bigint", "bigint", "int", "text", "smallint", "text", "text", "text", "bigint", "text")
_VALUES = ", ".join(f"(a ->> {place})::{kind}" for place, kind in enumerate(_TYPES))
# Rows go as JSON, which the driver need not look into: as arrays they cost it half of the commit.
_ALL = f"""
WITH moves AS (
    SELECT (m ->> 0)::bigint AS id, (m ->> 1)::int AS fence, (m ->> 2)::int AS wire_to
    FROM jsonb_array_elements(%s::jsonb) AS m
), moved AS (
    UPDATE batches b SET wire_to = m.wire_to, leased_until = clock_timestamp() + %s
    FROM moves m WHERE b.id = m.id AND b.worker = %s AND b.attempt = m.fence AND NOT b.done RETURNING b.id
), told AS (
    INSERT INTO attempts ({_COLUMNS}) SELECT {_VALUES}, clock_timestamp() FROM jsonb_array_elements(%s::jsonb) AS a
    WHERE (SELECT count(*) FROM moved) = (SELECT count(*) FROM moves)
), granting AS (
    SELECT (g ->> 0)::bigint AS edition, (g ->> 1)::bigint AS digest, (g ->> 2)::bigint AS subscriber, place
    FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS given(g, place)
)
SELECT (SELECT count(*) FROM moved),
    (SELECT json_object_agg(e.id, e.status) FROM editions e WHERE e.id IN (SELECT edition FROM granting)),
    (SELECT array_agg(g.place) FROM granting g
        JOIN subscriptions u ON u.digest_id = g.digest AND u.subscriber_id = g.subscriber
        JOIN subscribers s ON s.id = u.subscriber_id
        WHERE u.status = 'active' AND NOT EXISTS (SELECT 1 FROM suppressions p WHERE p.address_key = s.address_key))
"""


def _on_postgresql(connection: Connection, commit: Commit) -> Found:
    moves, rows, granting = map(json.dumps, (commit.moves, commit.rows, commit.granting))
    values = (moves, commit.lease, commit.worker, rows, granting)
    moved, statuses, wanted = connection.exec_driver_sql(_ALL, values).one()
    named = {int(edition): status for edition, status in (statuses or {}).items()}
    return Found(moved, named, frozenset(place - 1 for place in wanted or ()))


# ----------------------------------------------------------------------------- SQLite

_ADVANCE = "UPDATE batches SET wire_to = ?, leased_until = ? WHERE id = ? AND worker = ? AND attempt = ? AND NOT done"
_RECORD = f"INSERT INTO attempts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
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
    for batch, fence, wire_to in commit.moves:
        moved += run(_ADVANCE, (wire_to, until, batch, commit.worker, fence)).rowcount
    if moved != len(commit.moves):
        return Found(moved, {}, frozenset())
    if commit.rows:
        run(_RECORD, [(*row, at) for row in commit.rows])
    statuses = {edition: run(_STATUS, (edition,)).scalar_one() for edition in {e for e, _, _ in commit.granting}}
    wanted: set[tuple[int, int]] = set()
    for digest in {d for _, d, _ in commit.granting}:
        among = json.dumps([subscriber for _, d, subscriber in commit.granting if d == digest])
        wanted |= {(digest, subscriber) for subscriber in run(_WANTED, (among, digest)).scalars()}
    places = (place for place, (_, digest, reader) in enumerate(commit.granting) if (digest, reader) in wanted)
    return Found(moved, statuses, frozenset(places))


def _text(value: datetime) -> str:
    """As `digest.db.UtcDateTime` stores it."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
