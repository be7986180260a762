"""An editor's word on topics: hidden, renamed, merged. It holds whatever sources go on saying.

A renamed topic keeps its id; the slug it had is kept, so that sources and rules that still use it mean the same topic.
A merged one keeps its row and its slug, and answers with the topic it went into. Readers' tastes are the audience's.
"""

from __future__ import annotations

import difflib

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from digest.catalogue.publication import ensure_publication
from digest.catalogue.shared import chunks, insert_missing, take_turn
from digest.catalogue.topics import MAX_NAME, TopicRow, Tree, find_topic, name_for_good, row_of
from digest.catalogue.versions import bump_all
from digest.errors import UsageError
from digest.models import Article, ArticleTopic, Topic, TopicSlug
from digest.text import slugify, strip_controls
from digest.types import ArticleStatus, TopicKind

_COUNTED = (str(ArticleStatus.PUBLISHED), str(ArticleStatus.WITHHELD))


def named_topic(session: Session, name: str) -> Topic:
    """The topic that ``category:SLUG`` or ``tag:SLUG`` means; a merged one is the one it went into."""
    kind, colon, slug = name.partition(":")
    if not colon or kind not in (*TopicKind,):
        raise UsageError(f"{name!r} is no topic; write category:SLUG or tag:SLUG")
    found = find_topic(session, kind, slug.lower())
    if found is None:
        near = difflib.get_close_matches(slug.lower(), session.scalars(select(Topic.slug).filter_by(kind=kind)), n=1)
        said = f"did you mean {kind}:{near[0]}?" if near else "`digest topics --all` shows those there are"
        raise UsageError(f"there is no {kind} {slug!r}; {said}")
    return session.get_one(Topic, found.merged_into) if found.merged_into else found


def hide(session: Session, name: str, *, hidden: bool = True) -> TopicRow:
    """Take a topic out of lists, feeds and what mails call an article's category; or show it again.

    Its articles stay where they are, and rules that name it go on to find them.
    """
    take_turn(session)
    topic = named_topic(session, name)
    if topic.hidden != hidden:
        topic.hidden = hidden
        session.flush()
        bump_all(session)  # items of every feed name their topics
    return row_of(session, topic)


def set_feed_text(session: Session, name: str, text: str | None) -> None:
    """Whether feeds of a topic, or with *name* ``all`` of the publication, carry whole bodies or summaries alone.

    *text*: ``full``, ``excerpt``, or for a topic None: as the publication has it.
    """
    take_turn(session)
    if name == "all":
        ensure_publication(session).feed_text = text or "full"
    else:
        named_topic(session, name).feed_text = text
    session.flush()
    bump_all(session)


def rename(session: Session, name: str, to: str, *, slug: str | None = None) -> TopicRow:
    """Give a topic another name and, unless *slug* says otherwise, the slug of that name; the old slug stays known."""
    take_turn(session)
    topic = named_topic(session, name)
    said = " ".join(strip_controls(to).split())[:MAX_NAME]
    new = slugify(slug if slug is not None else said)
    if not said or not new:
        raise UsageError("a topic must have a name that can be read; give it one with letters in it")
    if new.isdigit() and slug is None and not topic.slug.isdigit():
        raise UsageError(f"the slug of {said!r} would be a number; give a slug with a word in it: --slug year-{new}")
    if new != topic.slug:
        _free(session, topic, new)
        session.execute(delete(TopicSlug).where(TopicSlug.kind == topic.kind, TopicSlug.slug == new))
        kept = {"kind": topic.kind, "slug": topic.slug, "topic_id": topic.id}
        topic.slug = new
        session.flush()
        insert_missing(session, TopicSlug.__table__, [kept])  # type: ignore[arg-type]
    name_for_good(session, topic, said)
    bump_all(session)
    return row_of(session, topic)


def _free(session: Session, topic: Topic, slug: str) -> None:
    """A slug means one topic, and so do the slugs that topics had."""
    other = find_topic(session, topic.kind, slug)
    if other is None or other.id == topic.id:
        return
    if other.slug == slug and other.merged_into is None:
        said = f"there is a {topic.kind} {slug!r} already; `digest topics merge` makes one of two"
    else:
        said = f"{slug!r} was the slug of another {topic.kind}, and still leads there; choose another with --slug"
    raise UsageError(said)


def merge(session: Session, name: str, into: str) -> tuple[int, TopicRow]:
    """Move all that a topic has to another of its kind. Returns the id of the one that is gone, and what is left."""
    take_turn(session)
    gone, kept = named_topic(session, name), named_topic(session, into)
    if gone.kind != kept.kind:
        raise UsageError(f"{name} and {into} are of two kinds; merge a category into a category, a tag into a tag")
    if gone.id == kept.id:
        raise UsageError(f"{name} and {into} are one topic already")
    _move_children(session, gone, kept)
    _move_articles(session, gone.id, kept.id)
    session.execute(
        update(Topic).where((Topic.merged_into == gone.id) | (Topic.id == gone.id)).values(merged_into=kept.id)
    )
    for topic in (gone, kept):
        counted = select(func.count()).select_from(ArticleTopic).join(Article, Article.id == ArticleTopic.article_id)
        topic.articles = (
            session.scalar(counted.where(ArticleTopic.topic_id == topic.id, Article.status.in_(_COUNTED))) or 0
        )
    session.flush()
    session.expire(gone)
    bump_all(session, {gone.id, *Tree.load(session).up(kept.id)})
    return gone.id, row_of(session, kept)


def _move_children(session: Session, gone: Topic, kept: Topic) -> None:
    """What stood below the one stands below the other; where that stood below the one itself, it takes its place."""
    if gone.id in Tree.load(session).up(kept.id):
        kept.parent_id = gone.parent_id
        session.flush()
    session.execute(update(Topic).where(Topic.parent_id == gone.id, Topic.id != kept.id).values(parent_id=kept.id))
    gone.parent_id = None
    session.flush()


def _move_articles(session: Session, gone: int, kept: int) -> None:
    """Articles of the one are articles of the other, in the same place; those that were of both are so once."""
    both = select(ArticleTopic.article_id).where(ArticleTopic.topic_id == kept)
    rows = session.execute(
        select(ArticleTopic.article_id, ArticleTopic.position)
        .where(ArticleTopic.topic_id == gone, ArticleTopic.article_id.not_in(both))
        .order_by(ArticleTopic.article_id)
    ).all()
    for part in chunks(rows):
        session.execute(
            insert(ArticleTopic), [{"article_id": a, "topic_id": kept, "position": position} for a, position in part]
        )
    session.execute(delete(ArticleTopic).where(ArticleTopic.topic_id == gone))
