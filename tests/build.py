"""Rows for tests, straight into the tables: the least that makes sense, everything else by keyword.

Each builder adds one thing in the given session, flushes, and returns the row. `T` is a fixed present.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import models as m
from digest.types import ArticleCard

T = datetime(2025, 7, 14, 12, 0, tzinfo=UTC)
R = TypeVar("R")
_numbers = itertools.count(1)


def _add(session: Session, row: R) -> R:
    session.add(row)
    session.flush()
    return row


def publication(session: Session, **columns: Any) -> m.Publication:
    return _add(session, m.Publication(**{"id": 1, "name": "The Harbour Paper", "timezone": "UTC", **columns}))


def source(session: Session, **columns: Any) -> m.Source:
    n = next(_numbers)
    given = {"slug": f"source-{n}", "kind": "feed", "location": f"https://news.example/{n}/feed", "created_at": T}
    return _add(session, m.Source(**{**given, **columns}))


def topic(session: Session, name: str, *, kind: str = "category", parent: m.Topic | None = None) -> m.Topic:
    """The topic of that name, made if need be; its slug is the name in lower case with hyphens."""
    slug = name.lower().replace(" ", "-")
    found = session.scalar(select(m.Topic).filter_by(kind=kind, slug=slug))
    return found or _add(session, m.Topic(kind=kind, slug=slug, name=name, parent_id=parent.id if parent else None))


def article(
    session: Session,
    *,
    categories: Iterable[str] = (),
    tags: Iterable[str] = (),
    authors: Iterable[str] = (),
    age: timedelta = timedelta(hours=1),
    **columns: Any,
) -> m.Article:
    """A published article *age* before `T`. Topics by name; ancestors are not implied. Its own story unless told."""
    n = next(_numbers)
    when = columns.get("published_at", T - age)
    given = {
        "source_id": None, "story_id": 0, "status": "published", "url": f"https://news.example/{n}",
        "canonical_url": f"https://news.example/{n}", "feed_id": f"https://news.example/{n}",
        "title": f"Headline number {n}", "body_html": f"<p>Body {n}.</p>", "body_text": f"Body {n}.",
        "excerpt": f"Excerpt {n}.", "authors": list(authors), "word_count": 2, "content_hash": f"{n:064x}",
        "published_at": when, "eligible_at": when, "updated_at": when, "first_seen_at": when,
    }  # fmt: skip
    row = _add(session, m.Article(**{**given, **columns}))
    row.story_id = row.story_id or row.id
    session.add(m.ArticleAlias(scope=0, kind="url", value=row.canonical_url, article_id=row.id))
    named = [("category", c) for c in categories] + [("tag", t) for t in tags]
    for position, (kind, name) in enumerate(named):
        about = topic(session, name, kind=kind)
        about.articles += row.status in ("published", "withheld")
        session.add(m.ArticleTopic(article_id=row.id, topic_id=about.id, position=position))
    for position, name in enumerate(authors):
        slug = name.lower().replace(" ", "-")
        session.add(m.ArticleAuthor(article_id=row.id, slug=slug, name=name, position=position))
    session.flush()
    return row


def digest(
    session: Session, slug: str = "morning", *, cron: str = "0 7 * * *", zone: str = "UTC", **columns: Any
) -> m.Digest:
    """A digest and, unless *cron* is empty, one schedule of it."""
    row = _add(
        session, m.Digest(**{"slug": slug, "name": slug.title(), "created_at": T - timedelta(days=60), **columns})
    )
    if cron:
        schedule(session, row, cron=cron, zone=zone)
    return row


def schedule(
    session: Session, digest: m.Digest, *, cron: str = "0 7 * * *", zone: str = "UTC", **columns: Any
) -> m.Schedule:
    given = {"digest_id": digest.id, "cron": cron, "timezone": zone, "created_at": digest.created_at}
    return _add(session, m.Schedule(**{**given, **columns}))


def schedule_of(session: Session, digest: m.Digest) -> m.Schedule:
    return session.scalars(select(m.Schedule).filter_by(digest_id=digest.id).order_by(m.Schedule.id)).one()


def subscriber(session: Session, address: str | None = None, **columns: Any) -> m.Subscriber:
    address = address or f"reader{next(_numbers)}@example.org"
    given = {"address": address, "address_key": address.lower(), "created_at": T - timedelta(days=30)}
    return _add(session, m.Subscriber(**{**given, **columns}))


def taste(session: Session, topics: Iterable[m.Topic] = ()) -> m.Taste:
    """The one taste of exactly these topics; none = everything the digest has."""
    key = ",".join(map(str, sorted(t.id for t in topics)))
    return session.scalar(select(m.Taste).filter_by(key=key)) or _add(session, m.Taste(key=key))


def subscription(
    session: Session,
    digest: m.Digest,
    reader: m.Subscriber | None = None,
    *,
    topics: Iterable[m.Topic] = (),
    **columns: Any,
) -> m.Subscription:
    """An active, confirmed subscription on the digest's one schedule; a new subscriber unless one is given."""
    reader = reader or subscriber(session)
    runs = session.scalars(select(m.Schedule.id).filter_by(digest_id=digest.id).order_by(m.Schedule.id)).first()
    since = T - timedelta(days=30)
    given = {
        "digest_id": digest.id, "subscriber_id": reader.id, "schedule_id": runs, "taste_id": taste(session, topics).id,
        "status": "active", "created_at": since, "confirmed_at": since,
    }  # fmt: skip
    return _add(session, m.Subscription(**{**given, **columns}))


def edition(
    session: Session,
    digest: m.Digest,
    cards: Iterable[ArticleCard] = (),
    *,
    sections: Iterable[m.Topic | None] = (),
    also: Iterable[int] = (),
    **columns: Any,
) -> m.Edition:
    """A finished edition at `T` whose house variant picked *cards* in this order.

    *sections*: the topic under which each stands, one a card; *also*: ids of cards that belong to the story before.
    """
    instant = columns.get("instant", T)
    given = {
        "digest_id": digest.id, "local_time": f"{instant:%Y-%m-%dT%H:%M}", "instant": instant, "zone": "UTC",
        "request_id": f"run-{next(_numbers)}", "slug": f"{instant:%Y-%m-%d}", "month": int(f"{instant:%Y%m}"),
        "at": instant, "status": "finished", "subject": f"{digest.name} of the day", "released_at": instant,
        "finished_at": instant, "created_at": instant,
    }  # fmt: skip
    row = _add(session, m.Edition(**{**given, **columns}))
    under, same, story = list(sections), set(also), 0
    for position, card in enumerate(cards):
        topic = under[position] if position < len(under) else None
        story = story if card.id in same else card.id
        session.add(
            m.EditionArticle(
                edition_id=row.id, article_id=card.id, rank=position, position=position, story_id=story,
                card=card.to_json(), verdict="in", reason="also" if card.id in same else "picked",
                section=topic.id if topic else 0,
            )
        )  # fmt: skip
    session.flush()
    return row
