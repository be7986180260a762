"""Topics as an editor sets them right: the catalogue's part and the readers' in one transaction."""

from __future__ import annotations

from digest import audience, catalogue
from digest.catalogue import TopicRow
from digest.db import Database


def hide_topic(database: Database, name: str, *, hidden: bool = True) -> TopicRow:
    """Take ``category:SLUG`` or ``tag:SLUG`` out of lists and feeds, or show it again."""
    with database.transaction() as session:
        return catalogue.hide(session, name, hidden=hidden)


def rename_topic(database: Database, name: str, to: str, *, slug: str | None = None) -> TopicRow:
    """Give a topic another name and slug; the old slug goes on leading to it."""
    with database.transaction() as session:
        return catalogue.rename(session, name, to, slug=slug)


def merge_topics(database: Database, name: str, into: str) -> TopicRow:
    """Make one topic of two: articles, counts, rules and what readers chose go over to the second."""
    with database.transaction() as session:
        gone, row = catalogue.merge(session, name, into)
        audience.follow_merge(session, gone, row.id)
        return row
