"""Values that travel many at a time arrive as they were, whatever they are."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from digest import models as m
from digest import sql
from digest.db import Database
from tests import build

LETTERS = st.sampled_from(
    ['"', "\\", ",", "{", "}", "\n", "\t", " ", "NULL", "null", "a", "é", "\u2028", "\U0001f30d", "'", "%", ":x"]
)
TEXTS = st.one_of(
    st.lists(LETTERS, max_size=6).map("".join), st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
)
EACH = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@EACH
@given(values=st.one_of(st.lists(TEXTS, max_size=8), st.lists(st.integers(-(2**40), 2**40), max_size=8)))
def test_a_list_is_the_table_it_says(database: Database, values: list[Any]) -> None:
    with database.reading() as session:
        assert session.scalars(select(sql.given(session, values).c.value)).all() == values


@EACH
@given(rows=st.lists(st.tuples(TEXTS, st.none() | TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=2)), max_size=5))
def test_rows_arrive_as_they_were(database: Database, rows: list[tuple[str, str | None, dict[str, str]]]) -> None:
    with database.rehearsal() as session:
        reader, digest = build.subscriber(session).id, build.digest(session).id
        told = {"kind": "imported", "at": build.T, "subscriber_id": reader, "digest_id": digest}
        columns = {"source": [source for source, _, _ in rows], "detail": [detail for _, _, detail in rows]}
        sql.insert_many(session, m.ConsentEvent, columns, told)
        found = select(m.ConsentEvent.source, m.ConsentEvent.detail).order_by(m.ConsentEvent.id)
        assert [tuple(row) for row in session.execute(found)] == [(source, detail) for source, _, detail in rows]
        keys = [f"{n}@example.net" for n in range(len(rows))]
        zones = {"timezone": [zone for _, zone, _ in rows], "address": [source for source, _, _ in rows]}
        sql.insert_many(session, m.Subscriber, {"address_key": keys, **zones}, {"created_at": build.T})
        readers = select(m.Subscriber.address, m.Subscriber.timezone).where(m.Subscriber.id != reader)
        kept = session.execute(readers.order_by(m.Subscriber.address_key))
        assert [tuple(row) for row in kept] == [(source, zone) for source, zone, _ in rows]
