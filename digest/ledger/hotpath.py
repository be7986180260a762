"""The four statements of a sender's commit, written by hand: they run for every few dozen mails.

Built through the expression language the same commit costs twice the CPU, and on the writer's thread that is time the
connections wait for. What they mean is `digest.ledger.batches`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

#: month, edition, subscriber, attempt, outcome, code, enhanced, text, address, batch, worker
AttemptRow = tuple[int, int, int, int, str, int | None, str | None, str, str, int, str]

_ADVANCE = "UPDATE batches SET wire_to = ?, leased_until = ? WHERE id = ? AND worker = ? AND attempt = ? AND NOT done"
_RECORD = (
    "INSERT INTO attempts (edition_month, edition_id, subscriber_id, attempt, outcome, code, enhanced, text, address,"
    " batch_id, worker, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_STATUS = "SELECT status FROM editions WHERE id = ?"
_WANTED = (
    "SELECT s.id FROM subscriptions u JOIN subscribers s ON s.id = u.subscriber_id"
    " WHERE u.digest_id = ? AND u.subscriber_id {among} AND u.status = 'active'"
    " AND NOT EXISTS (SELECT 1 FROM suppressions p WHERE p.address_key = s.address_key)"
)


@dataclass(frozen=True, slots=True)
class HotPath:
    """The statements on one transaction's connection."""

    connection: Connection
    sqlite: bool

    def _run(self, statement: str, values: Any) -> Any:
        if not self.sqlite:
            statement = statement.replace("?", "%s")
        return self.connection.exec_driver_sql(statement, values)

    def _instant(self, value: datetime) -> Any:
        """As `digest.db.UtcDateTime` stores it."""
        if not self.sqlite:
            return value
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")

    def advance(self, batch: int, worker: str, fence: int, wire_to: int, until: datetime) -> bool:
        """Move ``wire_to`` and the lease, under the fence; False when the batch is another worker's."""
        changed: int = self._run(_ADVANCE, (wire_to, self._instant(until), batch, worker, fence)).rowcount
        return changed == 1

    def record(self, rows: Sequence[AttemptRow], at: datetime) -> None:
        """Insert attempts."""
        when = self._instant(at)
        self._run(_RECORD, [(*row, when) for row in rows])

    def edition_status(self, edition: int) -> str:
        status: str = self._run(_STATUS, (edition,)).scalar_one()
        return status

    def still_wanted(self, digest: int, subscribers: Sequence[int]) -> set[int]:
        """Those of *subscribers* that are still subscribed and not suppressed."""
        if self.sqlite:
            statement, among = (
                _WANTED.format(among="IN (SELECT value FROM json_each(?))"),
                json.dumps(list(subscribers)),
            )
            return set(self._run(statement, (digest, among)).scalars())
        return set(self._run(_WANTED.format(among="= ANY(?)"), (digest, list(subscribers))).scalars())


def of(session: Session) -> HotPath:
    connection = session.connection()
    return HotPath(connection, connection.dialect.name == "sqlite")
