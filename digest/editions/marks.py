"""What editors mark: an article pinned in a digest, or kept out of one or all. Each returns the article's marks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from digest import ledger
from digest.catalogue import marks
from digest.catalogue.marks import MarkRow
from digest.db import Database


def pin_article(
    database: Database, article: int, digest: str, until: datetime | None, now: datetime
) -> Sequence[MarkRow]:
    """First in every mail of *digest* whose reader has not had it, until then or until it is unmarked."""
    with database.transaction() as session:
        marks.pin(session, article, ledger.digests.find_digest(session, digest).id, until, now)
        return marks.marks_of(session, article)


def exclude_article(database: Database, article: int, digest: str | None, now: datetime) -> Sequence[MarkRow]:
    """Out of the editions of *digest*, or of all digests, that are not on their way yet."""
    with database.transaction() as session:
        where = ledger.digests.find_digest(session, digest).id if digest else marks.EVERYWHERE
        marks.exclude(session, article, where, now)
        return marks.marks_of(session, article)


def unmark_article(database: Database, article: int, digest: str | None) -> Sequence[MarkRow]:
    """As if *digest*, or anybody, had never marked it."""
    with database.transaction() as session:
        where = ledger.digests.find_digest(session, digest).id if digest else None
        marks.unmark(session, article, where)
        return marks.marks_of(session, article)
