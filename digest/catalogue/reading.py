"""What others read from the catalogue: candidates of an edition, lists, months. What feeds hold is in `feeding`.

No bodies are read. Nothing here looks at a clock: what is published is a column.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Row, Select, String, and_, column, exists, false, func, not_, or_, select, true
from sqlalchemy import values as value_list
from sqlalchemy.orm import Session

from digest.catalogue.shared import chunks
from digest.catalogue.topics import Tree, ids_of
from digest.db import UtcDateTime
from digest.errors import UsageError
from digest.models import Article, ArticleAuthor, ArticleTopic, Source, Topic
from digest.rules import All, And, Not, Or, Rule, Term
from digest.types import ArticleCard, ArticleStatus, Candidate, Image, TopicKind

#: Older than this is no news, whatever the look-back.
CANDIDATE_AGE = timedelta(days=30)
_ON_SITE = (str(ArticleStatus.PUBLISHED), str(ArticleStatus.WITHHELD))

# ----------------------------------------------------------------------------- rule → SQL


def where(session: Session, rule: Rule) -> ColumnElement[bool]:
    """*rule* as a condition on `Article`, true for exactly those articles that `rules.matches` means.

    Topics become sets of ids first (a category with all below it), so that the database sees plain index look-ups.
    Every part is true or false, never NULL: `not` must mean the others.
    """
    return _compiled(session, rule, Tree.load(session))


def _compiled(session: Session, rule: Rule, tree: Tree) -> ColumnElement[bool]:
    match rule:
        case All():
            return true()
        case Term():
            return _any_of(session, [rule], tree)
        case Not(inner):
            return not_(_compiled(session, inner, tree))
        case And(parts):
            return and_(true(), *(_compiled(session, part, tree) for part in parts))
        case Or(parts):
            terms = [part for part in parts if isinstance(part, Term)]
            others = [part for part in parts if not isinstance(part, Term)]
            return or_(_any_of(session, terms, tree), *(_compiled(session, part, tree) for part in others))


def _any_of(session: Session, terms: Sequence[Term], tree: Tree) -> ColumnElement[bool]:
    """True where one of *terms* holds: the terms of a field become one look-up."""
    topics = ids_of_terms(session, terms, tree)
    authors = [t.value for t in terms if t.field == "author"]
    sources = [t.value for t in terms if t.field == "source"]
    conditions = [speaks(t.value) for t in terms if t.field == "language"]
    if topics:
        conditions.append(about(topics))
    if authors:
        conditions.append(exists().where(ArticleAuthor.article_id == Article.id, ArticleAuthor.slug.in_(authors)))
    if sources:
        conditions.append(exists().where(Source.id == Article.source_id, Source.slug.in_(sources)))
    return or_(false(), *conditions)


def ids_of_terms(session: Session, terms: Sequence[Term], tree: Tree | None = None) -> set[int]:
    """Ids of the topics that *terms* name: of a category with all below it, unless it is named alone."""
    alone = ids_of(session, "category", {t.value for t in terms if t.field == "category" and t.only})
    whole = ids_of(session, "category", {t.value for t in terms if t.field == "category" and not t.only})
    tree = tree or Tree.load(session)
    topics = alone | {below for topic in whole for below in tree.down(topic)}
    return topics | ids_of(session, "tag", {t.value for t in terms if t.field == "tag"})


def about(topics: Iterable[int]) -> ColumnElement[bool]:
    return exists().where(ArticleTopic.article_id == Article.id, ArticleTopic.topic_id.in_(sorted(topics)))


def speaks(wanted: str) -> ColumnElement[bool]:
    language = func.coalesce(Article.language, "", type_=String)
    return or_(language == wanted, language.startswith(wanted + "-", autoescape=True))


# ----------------------------------------------------------------------------- candidates

_CARD = (
    Article.id, Article.title, Article.url, Article.excerpt, Article.image, Article.authors, Article.published_at,
    Article.word_count,
)  # fmt: skip


def candidates(
    session: Session,
    rule: Rule,
    *,
    at: datetime,
    lookback: timedelta,
    grace: timedelta,
    pinned: Collection[int] = (),
) -> list[Candidate]:
    """Articles that an edition composed at *at* may carry: *pinned* ones first, then sticky ones, then the newest.

    Published, become eligible within the look-back, dated within 30 days. Those still in their grace are flagged.
    Pinned ones need only be published by *at*: an editor's word stands above rule, look-back, age and grace.
    """
    # An expression, so that the index on (status, eligible_at) is the one that fits: the look-back is the narrow side.
    dated = func.coalesce(Article.published_at, Article.first_seen_at, type_=UtcDateTime)
    query = (
        select(*_CARD, Article.story_id, Article.eligible_at, Article.sticky, Article.source_id)
        .where(Article.status == str(ArticleStatus.PUBLISHED), Article.eligible_at <= at, dated <= at)
        .order_by(Article.sticky.desc(), Article.published_at.desc(), Article.id.desc())
    )
    first = [row for part in chunks(sorted(pinned)) for row in session.execute(query.where(Article.id.in_(part)))]
    recent = query.where(Article.eligible_at > at - lookback, dated > at - CANDIDATE_AGE, where(session, rule))
    rows = [row for row in session.execute(recent) if row.id not in pinned]
    topics = topics_of(session, [row.id for row in (*first, *rows)])
    tree = Tree.load(session)
    return [
        *(_candidate(row, topics.get(row.id, []), tree, pinned=True) for row in first),
        *(_candidate(row, topics.get(row.id, []), tree, fresh=row.eligible_at > at - grace) for row in rows),
    ]


def _candidate(
    row: Row[Any], topics: Sequence[Row[Any]], tree: Tree, *, fresh: bool = False, pinned: bool = False
) -> Candidate:
    first = next((t for t in topics if t.kind == TopicKind.CATEGORY and not t.hidden), None)
    own = [t.id for t in topics]
    above = [a for t in own for a in tree.up(t)[1:]]
    return Candidate(
        card=_card(row, first.name if first else ""), story_id=row.story_id, topics=tuple(dict.fromkeys(own + above)),
        primary=first.id if first else None, published_at=row.published_at, eligible_at=row.eligible_at,
        sticky=row.sticky, fresh=fresh, source=row.source_id, pinned=pinned,
    )  # fmt: skip


def _card(row: Row[Any], category: str) -> ArticleCard:
    return ArticleCard(
        id=row.id, title=row.title, url=row.url, excerpt=row.excerpt, image=Image(**row.image) if row.image else None,
        authors=tuple(row.authors), published_at=row.published_at, category=category, word_count=row.word_count,
    )  # fmt: skip


def topics_of(session: Session, articles: Sequence[int]) -> dict[int, list[Row[Any]]]:
    """The topics of each article, in the article's order."""
    found: dict[int, list[Any]] = {}
    columns = (ArticleTopic.article_id, Topic.id, Topic.kind, Topic.slug, Topic.name, Topic.hidden)
    for part in chunks(articles):
        query = select(*columns).join(Topic, Topic.id == ArticleTopic.topic_id).where(ArticleTopic.article_id.in_(part))
        for row in session.execute(query.order_by(ArticleTopic.article_id, ArticleTopic.position, Topic.id)):
            found.setdefault(row.article_id, []).append(row)
    return found


# ----------------------------------------------------------------------------- lists


@dataclass(frozen=True, slots=True)
class ArticleRow:
    """An article as lists show it. ``categories`` and ``tags``: slugs, in its own order; ``author``: names, joined."""

    id: int
    title: str
    url: str
    published_at: datetime
    status: str
    categories: tuple[str, ...]
    tags: tuple[str, ...]
    author: str | None
    story: int


_LISTED = (
    Article.id, Article.title, Article.url, Article.published_at, Article.status, Article.authors, Article.story_id,
)  # fmt: skip


def list_articles(
    session: Session, topic: str | None = None, since: datetime | None = None, limit: int | None = None
) -> list[ArticleRow]:
    """Articles on the site, oldest first; of one topic (``category:SLUG`` with its children, or ``tag:SLUG``)."""
    query = select(*_LISTED).where(Article.status.in_(_ON_SITE)).order_by(Article.published_at, Article.id)
    if topic is not None:
        query = query.where(about(_topic_ids(session, topic)))
    if since is not None:
        query = query.where(Article.published_at >= since)
    if limit is not None:
        query = query.limit(limit)
    return list(_rows(session, query))


def article_row(session: Session, article: int) -> ArticleRow:
    """One article, whatever its status; a UsageError if there is none of that id."""
    found = list(_rows(session, select(*_LISTED).where(Article.id == article)))
    if not found:
        raise UsageError(f"there is no article {article}; `digest articles list` shows those there are")
    return found[0]


def _rows(session: Session, query: Select[Any]) -> Iterator[ArticleRow]:
    rows = session.execute(query).all()
    topics = topics_of(session, [row.id for row in rows])
    for row in rows:
        own = topics.get(row.id, [])
        yield ArticleRow(
            id=row.id, title=row.title, url=row.url, published_at=row.published_at, status=row.status,
            categories=tuple(t.slug for t in own if t.kind == TopicKind.CATEGORY),
            tags=tuple(t.slug for t in own if t.kind == TopicKind.TAG),
            author=", ".join(row.authors) or None, story=row.story_id,
        )  # fmt: skip


def _topic_ids(session: Session, topic: str) -> set[int]:
    kind, colon, slug = topic.partition(":")
    if not colon or kind not in (*TopicKind,):
        raise UsageError(f"{topic!r} is no topic; write category:SLUG or tag:SLUG")
    ids = ids_of(session, kind, {slug})
    if not ids:
        raise UsageError(f"there is no {kind} {slug!r}; `digest topics --all` shows those there are")
    tree = Tree.load(session)
    return {below for found in ids for below in tree.down(found)}


def months(session: Session, zone: ZoneInfo) -> list[tuple[str, int]]:
    """How many articles of the site came out in each month of *zone*, oldest first; months without one are left out.

    The limits of months are worked out here (SQLite knows no zones) and counted in one statement, by index.
    """
    on_site = Article.status.in_(_ON_SITE)
    first = session.scalar(select(func.min(Article.published_at)).where(on_site))
    last = session.scalar(select(func.max(Article.published_at)).where(on_site))
    if first is None or last is None:
        return []
    starts = list(month_starts(first.astimezone(zone), last.astimezone(zone)))
    limits = [(start.strftime("%Y-%m"), _utc(start), _utc(end)) for start, end in pairwise(starts)]
    table = value_list(
        column("month", String), column("lo", UtcDateTime), column("hi", UtcDateTime), name="limits"
    ).data(limits).cte("months")  # fmt: skip
    inside = and_(Article.published_at >= table.c.lo, Article.published_at < table.c.hi, on_site)
    query = select(table.c.month, func.count()).join_from(table, Article, inside)
    return [(month, count) for month, count in session.execute(query.group_by(table.c.month).order_by(table.c.month))]


def month_starts(first: datetime, last: datetime) -> Iterator[datetime]:
    """The first instants of the local months from *first* to the one after *last*."""
    start = first.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    while start <= last:
        yield start
        start = (start + timedelta(days=32)).replace(day=1)
    yield start


def _utc(local: datetime) -> datetime:
    return local.astimezone(UTC)
