"""The database: engine, sessions, transactions, time stamps, schema upgrades. Owner of alembic.

SQLite runs in WAL mode with ``synchronous=FULL``; every writing transaction begins IMMEDIATE, because a deferred one
that turns into a writer fails at once when another writes, whatever the busy timeout. PostgreSQL runs READ COMMITTED:
a lock taken by the first statement is seen by the snapshots of those after it. Knows no table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, DateTime, Dialect, Engine, Integer, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator

from digest.errors import ConfigError, DatabaseError, SchemaBehind
from digest.paths import shipped

#: 64 bits on PostgreSQL; on SQLite the row id, which is 64 bits anyway.
BigId = BigInteger().with_variant(Integer, "sqlite")

_BUSY_TIMEOUT_S = 30.0


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant, in UTC on the way in and out. A naive one is an error of the caller."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime reached the database")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """One engine. ``transaction()`` writes and commits, ``reading()`` never changes anything."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self.url = parse_url(url)
        self.engine = _make_engine(self.url, pool_size)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A writing transaction: committed at the end, rolled back by any exception."""
        with told_plainly(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session whose transaction is rolled back at the end; on SQLite it never waits for a writer.

        What was read stays readable afterwards, detached.
        """
        engine = self.engine.execution_options(deferred=True)
        with told_plainly(), Session(engine, expire_on_commit=False) as session:
            try:
                yield session
            finally:
                session.expunge_all()
                session.rollback()

    @contextmanager
    def rehearsal(self) -> Iterator[Session]:
        """A writing transaction that is always rolled back: what a preview runs in."""
        with told_plainly(), Session(self.engine, expire_on_commit=False) as session:
            try:
                session.connection()
                yield session
            finally:
                session.rollback()

    def line(self) -> Line:
        """A connection of one's own, for commits that come by the hundred a second."""
        return Line(self.engine)

    def now(self) -> datetime:
        """The real clock that leases and lifetimes go by: the database's own on PostgreSQL."""
        if self.is_sqlite:
            return datetime.now(UTC)
        with self.reading() as session:
            now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
            return now.astimezone(UTC)

    def close(self) -> None:
        self.engine.dispose()


class Line:
    """A connection that is kept, where a session's beginning and end cost more than what happens between them.

    Used from one thread. On PostgreSQL each statement is a transaction: one round trip; what belongs together must be
    one statement. On SQLite ``transaction()`` is one. After a failure the next use connects anew.
    """

    def __init__(self, engine: Engine) -> None:
        sqlite = engine.dialect.name == "sqlite"
        self._engine = engine if sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._connection: Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        try:
            with told_plainly():
                self._connection = self._connection or self._engine.connect()
                with self._connection.begin():
                    yield self._connection
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def parse_url(url: str) -> URL:
    """``sqlite:///path`` or ``postgresql://…``; the driver is ours to choose."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError("database.url is not a database URL; use sqlite:///PATH or postgresql://…") from None
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ConfigError(f"database.url: {backend} is not supported; use sqlite:///PATH or postgresql://…")
    return parsed


def _make_engine(url: URL, pool_size: int) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_size=pool_size, max_overflow=8, pool_pre_ping=True, hide_parameters=True)
    # hide_parameters: an address must not reach a log by way of an error's text
    connecting = {"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = create_engine(url, connect_args=connecting, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        deferred = connection.get_execution_options().get("deferred", False)
        connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn what a database refuses into one sentence; a broken promise (IntegrityError …) passes as it is."""
    try:
        yield
    except DBAPIError as e:
        sentence = _sentence(e)
        if sentence is None:
            raise
        raise DatabaseError(sentence) from e


def _sentence(e: DBAPIError) -> str | None:
    said = str(e.orig).strip().splitlines()[0] if e.orig and str(e.orig).strip() else type(e.orig).__name__
    low = said.lower()
    if "locked" in low:
        return "the database is locked by another process; nothing was changed, try again when it has finished"
    if "unable to open" in low or "readonly" in low or "read-only" in low:
        return f"the database file cannot be opened for writing ({said}); check data_dir and its permissions"
    if "disk is full" in low or "no space" in low:
        return "the disk is full; nothing was changed"
    if "no such table" in low or ("relation" in low and "does not exist" in low) or "no such column" in low:
        return "the database has no schema yet or an older one; run `digest db upgrade`"
    if e.connection_invalidated or "connection" in low or "could not translate host" in low:
        return f"the database cannot be reached ({said}); check database.url"
    return None


# ----------------------------------------------------------------------------- schema


def _alembic_config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(shipped("alembic")).replace("%", "%%"))
    return config


def head_revision() -> str:
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_alembic_config()).get_current_head()
    assert head is not None
    return head


def current_revision(database: Database) -> str | None:
    from alembic.runtime.migration import MigrationContext

    with told_plainly(), database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade_schema(database: Database, revision: str = "head") -> str | None:
    """Run the shipped migrations up to *revision*; does nothing when they have run. Returns the revision reached."""
    from alembic import command

    config = _alembic_config()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with told_plainly(), database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return current_revision(database)


def require_schema(database: Database) -> None:
    """Refuse to work on an older or younger schema."""
    have, want = current_revision(database), head_revision()
    if have != want:
        raise SchemaBehind(
            f"the database is at revision {have or 'none'}, this program wants {want}; run `digest db upgrade`"
        )


def clock(session: Session) -> datetime:
    """The real clock inside a transaction: the database's own on PostgreSQL, so that all machines agree."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now.astimezone(UTC)
