"""A database that refuses: full, locked, read-only. The sender stops with a sentence, and loses nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from sqlalchemy import event, func, select

from digest import models as m
from digest.db import Database
from digest.errors import DatabaseError
from digest.sending import LedgerStore
from tests.office import Office, arrivals
from tests.test_sending import end_leases, released

READERS = 300


@contextmanager
def pragma(database: Database, *statements: str) -> Iterator[None]:
    """Every transaction that begins meanwhile runs under these."""

    def begin(connection: Any) -> None:
        for statement in statements:
            connection.exec_driver_sql(f"PRAGMA {statement}")

    event.listen(database.engine, "begin", begin)
    try:
        yield
    finally:
        event.remove(database.engine, "begin", begin)


def full(database: Database) -> str:
    with database.reading() as session:
        pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar_one()
    return f"max_page_count = {pages}"


def at_the_sixth(store: LedgerStore, trouble: Callable[[], AbstractContextManager[None]]) -> None:
    """Under *trouble* the sixth group of a store is recorded, and all that follow."""
    group, calls = store.group, 0

    def troubled(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < 6:
            return group(*args)
        with trouble():
            return group(*args)

    store.group = troubled  # type: ignore[method-assign]


def settled(office: Office, addresses: list[str], edition: int) -> None:
    """The trouble is over: the rest goes out, nobody is lost, and whoever had it twice has a row that says so."""
    end_leases(office.db)
    for _ in range(3):
        office.send(impatient=True)
    assert office.counts(edition) == {"accepted": READERS}
    got = arrivals(office, addresses)
    assert min(got) == 1
    with office.db.reading() as session:
        maybe = session.scalar(select(func.count()).where(m.Attempt.outcome == "uncertain")) or 0
    assert sum(got) - READERS <= maybe <= 50


@pytest.mark.parametrize(
    ("statements", "sentence"),
    [((full, "cache_spill = 0"), "the disk is full"), (("query_only = 1",), "cannot be opened for writing")],
    ids=["full", "read-only"],
)
def test_a_database_that_takes_nothing_more_stops_the_sender_with_a_sentence(
    sqlite: Database, statements: tuple[Any, ...], sentence: str
) -> None:
    office, addresses, edition = released(sqlite, readers=READERS)
    store = office.store()
    told = [s(sqlite) if callable(s) else s for s in statements]
    at_the_sixth(store, lambda: pragma(sqlite, *told))
    with pytest.raises(DatabaseError, match=sentence):
        office.send(store=store)
    sqlite.close()  # as a process that is started again
    assert 0 < len(office.outbox.posted) < READERS
    settled(office, addresses, edition)


@pytest.mark.full
def test_a_lock_that_is_held_for_a_minute_is_survived(sqlite: Database) -> None:
    office, addresses, edition = released(sqlite, readers=READERS)
    store = office.store()
    other = sqlite3.connect(str(sqlite.url.database), isolation_level=None, check_same_thread=False)
    free = threading.Timer(60, lambda: other.execute("ROLLBACK"))

    @contextmanager
    def locked() -> Iterator[None]:
        if not free.is_alive():
            other.execute("BEGIN IMMEDIATE")
            free.start()
        yield

    at_the_sixth(store, locked)
    with pytest.raises(DatabaseError, match="locked by another process"):
        office.send(store=store)
    free.join()
    other.close()
    assert 0 < len(office.outbox.posted) < READERS
    settled(office, addresses, edition)
