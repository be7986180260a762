"""What editors say of an article: pin it in a digest, keep it out of one or of all.

A digest has at most one mark on an article, and the last one holds. What is kept out of every digest is out, pinned
or not. What a mark does to an edition is decided by selection.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, or_, select
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from digest.errors import UsageError
from digest.models import Article, ArticleMark, Digest

#: In place of a digest: all of them.
EVERYWHERE = 0
PIN, EXCLUDE = "pin", "exclude"


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks that hold for a digest at an instant, as article ids."""

    pinned: frozenset[int] = frozenset()
    excluded: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class MarkRow:
    """A mark as people see it. ``digest``: a slug, None for all; ``until``: when a pin ends, None for never."""

    kind: str
    digest: str | None
    until: datetime | None


def pin(session: Session, article: int, digest: int, until: datetime | None, now: datetime) -> None:
    """Put an article first in a digest; it takes the place of an exclusion from that digest."""
    _known(session, article)
    if until is not None and until <= now:
        raise UsageError(f"a pin until {until.isoformat()} has ended already; give a later --until, or none")
    if session.get(ArticleMark, (article, EVERYWHERE, EXCLUDE)) is not None:
        raise UsageError(f"article {article} is kept out of every digest; first: digest articles unmark {article}")
    _mark(session, ArticleMark(article_id=article, digest_id=digest, kind=PIN, until=until, at=now))


def exclude(session: Session, article: int, digest: int, now: datetime) -> None:
    """Keep an article out of a digest, or `EVERYWHERE`; what is excluded everywhere loses its pins."""
    _known(session, article)
    if digest == EVERYWHERE:
        unmark(session, article)
    _mark(session, ArticleMark(article_id=article, digest_id=digest, kind=EXCLUDE, until=None, at=now))


def unmark(session: Session, article: int, digest: int | None = None) -> int:
    """Take back the marks of a digest, or all. How many there were."""
    _known(session, article)
    statement = delete(ArticleMark).where(ArticleMark.article_id == article)
    if digest is not None:
        statement = statement.where(ArticleMark.digest_id == digest)
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount


def marks_of(session: Session, article: int) -> list[MarkRow]:
    """All marks on an article, those that hold everywhere first."""
    rows = session.execute(
        select(ArticleMark.kind, Digest.slug, ArticleMark.until)
        .outerjoin(Digest, Digest.id == ArticleMark.digest_id)
        .where(ArticleMark.article_id == article)
        .order_by(ArticleMark.digest_id, ArticleMark.kind)
    )
    return [MarkRow(*row) for row in rows]


def marks(session: Session, digest: int, at: datetime) -> Marks:
    """What holds for a digest at *at*."""
    found: dict[str, set[int]] = {PIN: set(), EXCLUDE: set()}
    rows = session.execute(
        select(ArticleMark.article_id, ArticleMark.kind).where(
            ArticleMark.digest_id.in_((EVERYWHERE, digest)),
            or_(ArticleMark.until.is_(None), ArticleMark.until > at),
        )
    )
    for article, kind in rows:
        found[kind].add(article)
    return Marks(frozenset(found[PIN] - found[EXCLUDE]), frozenset(found[EXCLUDE]))


def _mark(session: Session, mark: ArticleMark) -> None:
    """In the place of what the digest said of it before."""
    unmark(session, mark.article_id, mark.digest_id)
    session.add(mark)
    session.flush()


def _known(session: Session, article: int) -> None:
    if session.get(Article, article) is None:
        raise UsageError(f"there is no article {article}; `digest articles list` shows those there are")
