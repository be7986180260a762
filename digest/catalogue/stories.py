"""Stories as rows: what grouping needs to read, where articles belong, and what an editor said for good.

Decides nothing: the rules are craft's, work brings the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, product
from typing import Any

from sqlalchemy import Row, Select, Table, bindparam, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from digest.catalogue.shared import chunks
from digest.catalogue.topics import Tree
from digest.catalogue.versions import bump
from digest.errors import UsageError
from digest.models import Article, ArticleTopic, StoryEdit, StoryMember
from digest.sql import one_of
from digest.types import ArticleStatus, StoryPiece, StoryPlace, StoryRule

_articles: Table = Article.__table__  # type: ignore[assignment]
_members: Table = StoryMember.__table__  # type: ignore[assignment]
_edits: Table = StoryEdit.__table__  # type: ignore[assignment]

Pairs = list[tuple[int, int]]

# ----------------------------------------------------------------------------- to decide by


def pieces(session: Session, articles: Iterable[int]) -> list[StoryPiece]:
    """These articles as grouping sees them."""
    wanted = sorted(set(articles))
    return list(map(_piece, session.execute(_pieces().where(one_of(session, Article.id, wanted))))) if wanted else []


def pieces_between(session: Session, low: datetime, high: datetime) -> list[StoryPiece]:
    """The articles dated so, whatever their status: one that was taken back was told all the same."""
    dated = Article.status.in_(list(ArticleStatus)) & Article.published_at.between(low, high)  # as the index has it
    return list(map(_piece, session.execute(_pieces().where(dated))))


def _pieces() -> Select[*tuple[Any, ...]]:
    return select(
        Article.id, Article.title, Article.canonical_url, Article.published_at, Article.word_count, Article.clue_title,
        Article.clue_url, Article.story_id, StoryMember.rule, StoryMember.matched_id,
    ).outerjoin(StoryMember, StoryMember.article_id == Article.id)  # fmt: skip


def _piece(row: Row[*tuple[Any, ...]]) -> StoryPiece:
    values: list[Any] = list(row)
    values[-2] = None if values[-2] is None else StoryRule(values[-2])
    return StoryPiece(*values)


def bodies(session: Session, articles: Sequence[int]) -> dict[int, str]:
    query = select(Article.id, Article.body_text).where(one_of(session, Article.id, articles))
    return dict(session.execute(query).all())


def edits(session: Session, articles: Sequence[int]) -> tuple[Pairs, Pairs]:
    """What an editor said of these articles: pairs merged, pairs split."""
    if session.scalar(select(StoryEdit.article_id).limit(1)) is None:  # of most sites
        return [], []
    merged, split = set[tuple[int, int]](), set[tuple[int, int]]()
    edit = StoryEdit
    either = or_(one_of(session, edit.article_id, articles), one_of(session, edit.other_id, articles))
    for a, b, kind in session.execute(select(edit.article_id, edit.other_id, edit.kind).where(either)):
        (merged if kind == "merge" else split).add((a, b))
    return sorted(merged), sorted(split)


def members_of(session: Session, stories: Iterable[int]) -> list[int]:
    """The articles of these stories."""
    wanted = sorted(set(stories))
    return list(session.scalars(select(Article.id).where(one_of(session, Article.story_id, wanted)))) if wanted else []


# ----------------------------------------------------------------------------- to write


def move(session: Session, places: Mapping[int, StoryPlace], at: datetime) -> list[int]:
    """Put articles into their stories; feeds of their topics are told. Returns those whose story is another now."""
    there = select(Article.id, Article.story_id).where(one_of(session, Article.id, sorted(places)))
    before = dict(session.execute(there).all())
    moved = [a for a in sorted(before) if before[a] != places[a].story]
    if moved:
        statement = update(_articles).where(_articles.c.id == bindparam("article")).values(story_id=bindparam("story"))
        session.execute(statement, [{"article": a, "story": places[a].story} for a in moved])
    session.execute(delete(_members).where(one_of(session, _members.c.article_id, sorted(before))))
    rows = [
        {"article_id": a, "matched_id": places[a].matched, "rule": str(rule), "at": at}
        for a in sorted(before)
        if (rule := places[a].rule) is not None
    ]
    if rows:
        session.execute(insert(_members), rows)
    _tell_feeds(session, moved)
    return moved


def _tell_feeds(session: Session, articles: Sequence[int]) -> None:
    if articles:
        named = select(ArticleTopic.topic_id).where(one_of(session, ArticleTopic.article_id, articles)).distinct()
        bump(session, Tree.load(session).all_up(session.scalars(named)))


def say_same(session: Session, articles: Sequence[int], at: datetime) -> None:
    """An editor says that all of these tell one story."""
    _say(session, combinations(sorted(set(articles)), 2), "merge", at)


def say_apart(session: Session, article: int, others: Sequence[int], at: datetime) -> None:
    """An editor says that *article* tells another story than *others*."""
    _say(session, product([article], sorted(set(others) - {article})), "split", at)


def _say(session: Session, pairs: Iterable[tuple[int, int]], kind: str, at: datetime) -> None:
    """The last word holds."""
    rows = [{"article_id": min(pair), "other_id": max(pair), "kind": kind, "at": at} for pair in pairs]
    make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = make(_edits)
    statement = statement.on_conflict_do_update(
        index_elements=["article_id", "other_id"],
        set_={"kind": statement.excluded.kind, "at": statement.excluded.at},
    )
    if rows:
        session.execute(statement, rows)


# ----------------------------------------------------------------------------- to show


@dataclass(frozen=True, slots=True)
class Member:
    """An article of a story. ``rule`` and ``matched``: why it joined; None for the first that told it."""

    id: int
    title: str
    url: str
    published_at: datetime
    status: str
    rule: str | None
    matched: int | None


def story_of(session: Session, article: int) -> int:
    """The story of an article; a UsageError if there is none of that id."""
    story = session.scalar(select(Article.story_id).where(Article.id == article))
    if story is None:
        raise UsageError(f"there is no article {article}; `digest articles list` shows those there are")
    return story


def members(session: Session, stories: Iterable[int]) -> dict[int, list[Member]]:
    """Story → its articles, as they were told."""
    found: dict[int, list[Member]] = {}
    columns = (Article.id, Article.title, Article.url, Article.published_at, Article.status)
    for part in chunks(sorted(set(stories))):
        query = select(Article.story_id, *columns, StoryMember.rule, StoryMember.matched_id)
        query = query.outerjoin(StoryMember, StoryMember.article_id == Article.id).where(Article.story_id.in_(part))
        query = query.order_by(Article.published_at, Article.canonical_url, Article.id)
        for row in session.execute(query):
            story, *member = list[Any](row)
            found.setdefault(story, []).append(Member(*member))
    return found
