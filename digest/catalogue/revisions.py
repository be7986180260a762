"""What an article was before: one row a change of its content, the newest twenty of each article."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from digest.catalogue.shared import chunks
from digest.models import Article, ArticleRevision, ArticleTopic, Topic
from digest.types import ArticleStatus

#: A site that writes something new into its articles at every build must not fill the database.
KEPT = 20
_COLUMNS = ("url", "title", "body_html", "excerpt", "authors", "image", "enclosures", "language", "sticky")
#: What a site protects from now on is not kept here either.
_PROTECTED = frozenset({"body_html", "excerpt", "image", "enclosures"})


@dataclass(frozen=True, slots=True)
class Revision:
    """One change. ``before``: what was replaced, by column; ``topics`` as ``kind:slug``."""

    at: datetime
    before: Mapping[str, Any]


def record_revisions(session: Session, changes: Mapping[int, Mapping[str, Any]], at: datetime) -> set[int]:
    """Keep what *changes* are about to replace (columns by article; ``topics``: ids; ``status``). Returns whose is.

    An article all of whose columns stay as they are has not changed, whatever its hash says.
    """
    rows = []
    for part in chunks(sorted(changes), 500):
        topics = _topics(session, part)
        columns = [getattr(Article, name) for name in _COLUMNS]
        for row in session.execute(select(Article.id, *columns).where(Article.id.in_(part)).order_by(Article.id)):
            new = changes[row.id]
            before = {name: getattr(row, name) for name in _COLUMNS if getattr(row, name) != new[name]}
            if [topic for topic, _ in topics.get(row.id, ())] != list(new["topics"]):
                before["topics"] = [name for _, name in topics.get(row.id, ())]
            if new["status"] == ArticleStatus.WITHHELD:
                before = {name: None if name in _PROTECTED else value for name, value in before.items()}
            if before:
                rows.append({"article_id": row.id, "at": at, "before": before})
    if rows:
        session.execute(insert(ArticleRevision), rows)
        _prune(session, [row["article_id"] for row in rows])
    return {row["article_id"] for row in rows}


def _topics(session: Session, articles: Iterable[int]) -> dict[int, list[tuple[int, str]]]:
    query = select(ArticleTopic.article_id, Topic.id, Topic.kind, Topic.slug)
    query = query.join(Topic, Topic.id == ArticleTopic.topic_id).where(ArticleTopic.article_id.in_(articles))
    found: dict[int, list[tuple[int, str]]] = {}
    for article, topic, kind, slug in session.execute(query.order_by(ArticleTopic.article_id, ArticleTopic.position)):
        found.setdefault(article, []).append((topic, f"{kind}:{slug}"))
    return found


def _prune(session: Session, articles: list[int]) -> None:
    for part in chunks(articles):
        place = func.row_number().over(partition_by=ArticleRevision.article_id, order_by=ArticleRevision.id.desc())
        ranked = select(ArticleRevision.id, place.label("place")).where(ArticleRevision.article_id.in_(part)).subquery()
        old = select(ranked.c.id).where(ranked.c.place > KEPT)
        session.execute(delete(ArticleRevision).where(ArticleRevision.id.in_(old)))


def revisions(session: Session, article: int) -> list[Revision]:
    """The changes of an article, oldest first."""
    query = select(ArticleRevision.at, ArticleRevision.before).where(ArticleRevision.article_id == article)
    return [Revision(at, before) for at, before in session.execute(query.order_by(ArticleRevision.id))]
