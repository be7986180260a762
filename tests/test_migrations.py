"""The migrations make what the models say, on both databases."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from digest.db import Database, current_revision, head_revision, require_schema, upgrade_schema
from digest.errors import SchemaBehind
from digest.models import Base
from tests import build
from tests.postgres import Cluster


def drift(database: Database) -> list[object]:
    """What autogenerate would still change; monthly partitions and the queue's tables belong to no migration."""

    def include_name(name: str | None, kind: str, _parents: object) -> bool:
        return not (kind == "table" and name is not None and name.startswith(("attempts_", "procrastinate_")))

    with database.engine.connect() as connection:
        options = {"compare_type": True, "include_name": include_name}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))


def test_migrations_make_what_the_models_say(database: Database) -> None:
    if not database.is_sqlite:
        with database.transaction() as session:
            session.execute(text("CREATE TABLE attempts_202611 PARTITION OF attempts FOR VALUES IN (202611)"))
    assert drift(database) == []


def test_drift_is_seen(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("ALTER TABLE sources ADD COLUMN surplus INTEGER"))
        session.execute(text("DROP INDEX ix_articles_story_id"))
    assert len(drift(database)) == 2


def test_partial_indexes_are_partial(database: Database) -> None:
    """Autogenerate does not compare an index's condition, so it is asked here."""
    inspector = inspect(database.engine)
    kind = "sqlite" if database.is_sqlite else "postgresql"
    for table in Base.metadata.sorted_tables:
        wanted = {i.name for i in table.indexes if i.dialect_options[kind]["where"] is not None}
        made = {
            i["name"]
            for i in inspector.get_indexes(table.name)
            if i.get("dialect_options", {}).get(f"{kind}_where") is not None
        }
        assert made == wanted, table.name


def test_texts_are_packed_by_lz4_where_postgresql_offers_it(cluster: Cluster, postgresql_template: str) -> None:
    database = Database(cluster.url(postgresql_template))
    with database.reading() as session:
        packed = "SELECT attrelid::regclass || '.' || attname FROM pg_attribute WHERE attcompression = 'l'"
        found = set(session.scalars(text(packed)))
        offered = "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
        texts = {"articles.body_html", "articles.body_text", "batches.ids", "batches.ordinals"}
        wanted = texts if session.scalar(text(offered)) else set()
    database.close()
    assert found == wanted


def test_attempts_are_partitioned_by_month_on_postgresql(cluster: Cluster, postgresql_template: str) -> None:
    database = Database(cluster.url(postgresql_template))
    with database.reading() as session:
        kind = session.execute(text("SELECT pg_get_partkeydef('attempts'::regclass)")).scalar_one()
    database.close()
    assert kind == "LIST (edition_month)"


def test_upgrading_twice_is_harmless(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("INSERT INTO feed_versions (topic_id, version) VALUES (0, 7)"))
    assert upgrade_schema(database) == head_revision() == current_revision(database)
    with database.reading() as session:
        assert session.execute(text("SELECT version FROM feed_versions")).scalar_one() == 7
    require_schema(database)


def test_a_database_without_a_schema_is_refused_with_the_command_that_helps(tmp_path: object) -> None:
    empty = Database(f"sqlite:///{tmp_path}/empty.sqlite3")
    with pytest.raises(SchemaBehind, match="digest db upgrade"):
        require_schema(empty)
    empty.close()


def test_a_readers_number_is_never_used_again(database: Database) -> None:
    """Tokens in old mails and the history of editions name readers by it."""
    with database.transaction() as session:
        session.delete(gone := build.subscriber(session))
        session.flush()
        assert build.subscriber(session).id > gone.id
