"""The two statements that SQLAlchemy does not spell the same on both databases, and the one it is slow at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Table, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from digest.models import Base


def insert_new(session: Session, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows given by attribute name; those that a unique key already knows are left alone."""
    if not rows:
        return
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    session.execute(insert(model).on_conflict_do_nothing(), list(rows))


def insert_many(session: Session, model: type[Base], columns: Mapping[str, Sequence[Any]]) -> None:
    """`insert_new` for thousands of rows, given whole and column by column: one array a column on PostgreSQL."""
    count = len(next(iter(columns.values())))
    if not count:
        return
    if session.get_bind().dialect.name == "sqlite":
        insert_new(
            session, model, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        )
        return
    table = model.__table__
    assert isinstance(table, Table)
    dialect = session.get_bind().dialect
    bound, casts = {}, []
    for name, values in columns.items():
        kind = table.c[name].type
        bound[name] = [json.dumps(v) for v in values] if isinstance(kind, JSON) else list(values)
        casts.append(f"CAST(:{name} AS {kind.compile(dialect)}[])")
    session.execute(
        text(
            f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT * FROM unnest({', '.join(casts)})"
            " ON CONFLICT DO NOTHING"
        ),
        bound,
    )
