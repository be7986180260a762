"""The builders fit the tables: every foreign key and unique key of both databases accepts what they make."""

from __future__ import annotations

from sqlalchemy import func, select

from digest import models as m
from digest.db import Database
from tests import build


def test_builders_make_rows_that_hang_together(database: Database) -> None:
    with database.transaction() as session:
        build.publication(session)
        africa = build.topic(session, "East Africa", parent=build.topic(session, "Africa"))
        own = build.article(session, categories=["East Africa", "Business"], tags=["Trade"], authors=["Ada Obi"])
        build.article(session, source_id=build.source(session).id, story_id=own.id, categories=["East Africa"])
        digest = build.digest(session, categories=["africa"])
        first = build.subscription(session, digest, topics=[africa])
        second = build.subscription(session, digest, topics=[africa])
        build.subscription(session, digest, build.subscriber(session, "Grace@Example.org"), status="pending")
    with database.reading() as session:
        assert own.story_id == own.id
        assert first.taste_id == second.taste_id
        assert first.schedule_id == build.schedule_of(session, digest).id
        assert session.scalar(select(func.count()).select_from(m.ArticleTopic)) == 4
        assert (
            session.scalar(select(m.Subscriber.address_key).filter_by(address="Grace@Example.org"))
            == "grace@example.org"
        )
