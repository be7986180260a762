"""Sources as rows: added, listed, removed. Which kinds there are, and whether a location can be read, work asks."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from digest.catalogue.shared import take_turn
from digest.catalogue.topics import ensure_topics
from digest.errors import UsageError
from digest.models import Article, ArticleAlias, Source
from digest.text import slugify
from digest.types import ArticleStatus, TopicKind, TopicRef


def add_source(
    session: Session,
    name: str,
    *,
    kind: str,
    location: str,
    categories: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    at: datetime,
) -> Source:
    """Add a source under the slug of *name*; nothing is fetched. Its articles get *categories* beside their own."""
    slug = slugify(name)
    if not slug:
        raise UsageError("a source needs a name with letters or digits in it")
    take_turn(session)
    same_place = (Source.kind == kind) & (Source.location == location)
    for other in session.scalars(select(Source).where(or_(Source.slug == slug, same_place))):
        if other.slug == slug:
            raise UsageError(f"there is a source {slug!r} already; choose another name or remove it first")
        raise UsageError(f"the source {other.slug!r} reads {location} already")
    source = Source(
        slug=slug, kind=kind, location=location, options=dict(options or {}), created_at=at,
        categories=_ensured(session, categories),
    )  # fmt: skip
    session.add(source)
    session.flush()
    return source


def change_source(
    session: Session,
    source: Source,
    *,
    location: str | None,
    categories: Iterable[str] | None,
    options: Mapping[str, Any],
) -> Source:
    """Change a source; None leaves what is there. What it remembered goes: the next poll is soon, and whole."""
    take_turn(session)
    if location is not None and location != source.location:
        same_place = (Source.kind == source.kind) & (Source.location == location)
        if other := session.scalar(select(Source).where(same_place)):
            raise UsageError(f"the source {other.slug!r} reads {location} already")
        source.location, source.imported_at = location, None
    if categories is not None:
        source.categories = _ensured(session, categories)
    source.options, source.state = dict(options), {}
    source.polled_at = source.retry_at = source.disabled_at = source.moved_to = None
    source.moved_count = 0
    session.flush()
    return source


def _ensured(session: Session, categories: Iterable[str]) -> list[str]:
    """The slugs of categories, which are there now."""
    refs = [TopicRef(TopicKind.CATEGORY, slugify(c), c.strip()) for c in categories if slugify(c)]
    ensure_topics(session, refs)
    return list(dict.fromkeys(r.slug for r in refs))


def list_sources(session: Session) -> list[Source]:
    """All sources, oldest first."""
    return list(session.scalars(select(Source).order_by(Source.id)))


def get_source(session: Session, slug: str) -> Source:
    """The source called *slug*; a UsageError names the nearest one."""
    found = session.scalar(select(Source).where(Source.slug == slug))
    if found is not None:
        return found
    slugs = list(session.scalars(select(Source.slug).order_by(Source.slug)))
    near = difflib.get_close_matches(slug, slugs, n=1, cutoff=0.5)
    if near:
        raise UsageError(f"there is no source {slug!r}; did you mean {near[0]!r}?")
    raise UsageError(f"there is no source {slug!r}; `digest sources list` shows those there are")


def count_articles(session: Session, source: Source) -> tuple[int, int]:
    """How many articles a source has given that are still there, and how many of them wait for their date."""
    there = (Article.source_id == source.id) & (Article.status != str(ArticleStatus.REMOVED))
    by_status = dict(session.execute(select(Article.status, func.count()).where(there).group_by(Article.status)).all())
    return sum(by_status.values()), by_status.get(ArticleStatus.SCHEDULED, 0)


def native_ids(session: Session, source: Source, since: datetime | None = None) -> list[str]:
    """The source's own ids of its articles that are still there, published after *since*."""
    query = select(ArticleAlias.value).join(Article, Article.id == ArticleAlias.article_id)
    query = query.where(
        ArticleAlias.scope == source.id, ArticleAlias.kind == "native", Article.source_id == source.id,
        Article.status != str(ArticleStatus.REMOVED),
    )  # fmt: skip
    if since is not None:
        query = query.where(Article.published_at > since)
    return list(session.scalars(query.order_by(ArticleAlias.article_id, ArticleAlias.value)))


def remove_source(session: Session, slug: str) -> None:
    """Forget a source. Its articles stay, under their addresses; ids that only it gave a meaning to go with it.

    (SQLite hands the id of a removed source out again: another site's post 12 must not be taken for this one's.)
    """
    take_turn(session)
    source = get_source(session, slug)
    session.execute(delete(ArticleAlias).where(ArticleAlias.scope == source.id))
    session.delete(source)
    session.flush()
