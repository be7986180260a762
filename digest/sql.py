"""The statements that SQLAlchemy does not spell the same on both databases, or is slow at when rows are many.

For the rooms that own SQL. Knows no table: models are handed in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Table,
    TableValuedAlias,
    Text,
    bindparam,
    cast,
    column,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session
from sqlalchemy.types import TypeEngine


def _on_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def insert_new(session: Session, model: type[DeclarativeBase], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows given by attribute name; those that a unique key already knows are left alone."""
    if not rows:
        return
    insert = sqlite.insert if _on_sqlite(session) else postgresql.insert
    session.execute(insert(model).on_conflict_do_nothing(), list(rows))


def insert_many(
    session: Session,
    model: type[DeclarativeBase],
    columns: Mapping[str, Sequence[Any]],
    shared: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """`insert_new` for thousands of rows, whole and column by column; *shared*: columns with one value for all.

    Strings, integers, plain data and None. The rows travel as one parameter (PostgreSQL: one array a column), which
    costs a tenth of a statement of many values.
    """
    if not columns or not next(iter(columns.values())):
        return
    table = model.__table__
    assert isinstance(table, Table)
    source, values = _given_sqlite(columns) if _on_sqlite(session) else _given_postgresql(session, table, columns)
    statement = text(
        f"INSERT INTO {table.name} ({', '.join((*columns, *shared))})"
        f" SELECT {', '.join((source[0], *(':' + name for name in shared)))}"
        f" FROM {source[1]} WHERE true ON CONFLICT DO NOTHING"  # "true": else ON would begin a join condition
    ).bindparams(*(bindparam(name, type_=table.c[name].type) for name in shared))
    session.execute(statement, {**values, **shared})


_Column = ColumnElement[Any] | InstrumentedAttribute[Any]
_Source = tuple[tuple[str, str], dict[str, str]]  # (select list, from), parameters


def _given_sqlite(columns: Mapping[str, Sequence[Any]]) -> _Source:
    picked = ", ".join(f"json_extract(given.value, '$[{i}]')" for i in range(len(columns)))
    rows = json.dumps(list(zip(*columns.values(), strict=True)), ensure_ascii=False)
    return (picked, "json_each(:given) AS given"), {"given": rows}


def _given_postgresql(session: Session, table: Table, columns: Mapping[str, Sequence[Any]]) -> _Source:
    dialect = session.get_bind().dialect
    arrays = ", ".join(f"CAST(CAST(:{name} AS TEXT) AS {table.c[name].type.compile(dialect)}[])" for name in columns)
    names = ", ".join(columns)
    return (names, f"unnest({arrays}) AS given({names})"), {n: _array(v) for n, v in columns.items()}


def _array(values: Sequence[Any]) -> str:
    """PostgreSQL's array literal. Plain data goes in as its JSON text."""
    kinds = set(map(type, values))
    if kinds == {str} and (plain := '","'.join(values)).count('"') == 2 * len(values) - 2 and "\\" not in plain:
        return f'{{"{plain}"}}'  # nothing to escape, as mostly: one look at the whole
    if kinds <= {str, int, type(None)}:
        spelled = {value: _cell(value) for value in set(values)}  # zones and languages are few
        return "{" + ",".join(map(spelled.__getitem__, values)) + "}"
    return "{" + ",".join(map(_cell, values)) + "}"


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(int(value))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def one_of(session: Session, of: _Column, values: Sequence[Any]) -> ColumnElement[bool]:
    """``column IN (values)`` for thousands of them, as one parameter."""
    # joined, not compared with ANY: without statistics the planner would search the array once a row of the table
    return of.in_(select(given(session, values).c.value))


def given(session: Session, values: Sequence[Any]) -> TableValuedAlias:
    """Strings or integers as a table of one column, ``value``; they travel as one parameter."""
    if _on_sqlite(session):
        return func.json_each(bindparam(None, json.dumps(values), Text)).table_valued("value")
    kind: TypeEngine[Any] = Text() if isinstance(next(iter(values), ""), str) else BigInteger()
    array = cast(bindparam(None, _array(values), Text), postgresql.ARRAY(kind))
    return func.unnest(array).table_valued(column("value", kind)).render_derived()
