"""Small helps of the room: turns of writers, inserts that may meet their like, lists cut to size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Table, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

T = TypeVar("T")

#: Ids in one IN list: well under the bound-parameter limits of SQLite (32,766) and PostgreSQL (65,535).
IDS_A_QUERY = 5_000

# Any number will do, as long as no other lock of ours has it.
_WRITERS_LOCK = 0x6469676573740001


def take_turn(session: Session) -> None:
    """Let writers of the catalogue go one after the other, until this transaction ends.

    Two ingests that meet the same story would otherwise insert it twice or wait for each other in a circle. SQLite
    has one writer anyway. Fetching and cleaning happen outside, so little is lost.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITERS_LOCK})


def insert_missing(session: Session, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert *rows*; those whose key is there already are left as they are."""
    if rows:
        make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        session.execute(make(table).on_conflict_do_nothing(), list(rows))


def chunks(items: Iterable[T], size: int = IDS_A_QUERY) -> Iterator[list[T]]:
    """Yield *items* in lists of at most *size*."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
