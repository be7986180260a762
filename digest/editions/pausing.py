"""A running edition stopped for now, and let go on. Sends nothing: senders look at the status at every group."""

from __future__ import annotations

from digest import ledger
from digest.db import Database
from digest.errors import UsageError
from digest.types import EditionStatus


def pause(database: Database, edition_id: int, reason: str = "paused by an admin") -> None:
    """Grant nothing more until `resume`. What is on the wire may still arrive; deferred ones wait as well."""
    _move(database, edition_id, EditionStatus.SENDING, EditionStatus.PAUSED, reason, "not being sent", "pause")


def resume(database: Database, edition_id: int) -> None:
    """Let a paused edition go on with those who have not had it."""
    _move(database, edition_id, EditionStatus.PAUSED, EditionStatus.SENDING, None, "not paused", "resume")


def _move(
    database: Database, edition_id: int, before: EditionStatus, after: EditionStatus, reason: str | None, other: str,
    what: str,
) -> None:  # fmt: skip
    with database.transaction() as session:
        edition = ledger.editions.known(session, edition_id)
        if edition.status != before:
            raise UsageError(f"edition {edition_id} is {edition.status}, {other}; there is nothing to {what}")
        edition.status, edition.reason = after, reason
