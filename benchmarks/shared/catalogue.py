"""A catalogue of any size, written by a few statements: 80 articles a day back from `NEWEST`, whatever their number.

So an edition has the same few hundred candidates however many articles lie behind them. Each article stands in one of
seven categories and has three of 200 tags, or of as many as are wanted; one in twenty tells the story of the one
before it.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from benchmarks.shared.export import NEWEST
from digest.db import Database
from tests import build

CATEGORIES, TAGS = 7, 200

NUMBERS = {
    "postgresql": "SELECT i FROM generate_series(1, :count) AS numbers(i)",
    "sqlite": "WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < :count)"
    " SELECT i FROM numbers",
}
_DATE = {
    "postgresql": "CAST(:newest AS timestamptz) - (:count - i) * interval '18 minutes'",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S.000000', :newest, '-' || ((:count - i) * 18) || ' minutes')",
}
_ARTICLES = """
INSERT INTO articles (id, source_id, story_id, status, url, canonical_url, feed_id, title, body_html, body_text,
    excerpt, authors, language, word_count, sticky, content_hash, published_at, published_precision, eligible_at,
    updated_at, first_seen_at)
SELECT i, :source, CASE WHEN i % 20 = 0 THEN i - 1 ELSE i END, 'published', 'https://news.example/' || i,
    'https://news.example/' || i, 'https://news.example/' || i, 'Headline number ' || i || ' of the day', :body, :body,
    'What it says in short, for article ' || i || '.', '["Ada Obi"]', 'en', 90, :no, 'hash' || i, {date}, 'given',
    {date}, {date}, {date}
FROM ({numbers}) AS counted
"""
_TOPICS = """
INSERT INTO article_topics (article_id, topic_id, position)
SELECT i, CASE k WHEN 0 THEN 1 + i % {categories} ELSE 1 + {categories} + (i * 7 + k * 61) % {tags} END, k
FROM ({numbers}) AS counted CROSS JOIN (SELECT 0 AS k UNION SELECT 1 UNION SELECT 2 UNION SELECT 3) AS four
"""


def fill(database: Database, count: int, tags: int = TAGS) -> None:
    """Write *count* articles into an empty, migrated database, and its topics, source and publication."""
    dialect = database.engine.dialect.name
    with database.transaction() as session:
        build.publication(session)
        source = build.source(session).id
        names = [("category", f"Category {n}") for n in range(CATEGORIES)] + [("tag", f"Tag {n}") for n in range(tags)]
        ids = [build.topic(session, name, kind=kind).id for kind, name in names]
        assert ids == list(range(1, CATEGORIES + tags + 1))
        given = {
            "count": count, "source": source, "no": False, "body": "A sentence of a body. " * 20,
            "newest": NEWEST if dialect == "postgresql" else f"{NEWEST:%Y-%m-%d %H:%M:%S}",
        }  # fmt: skip
        _write(session, _ARTICLES.format(date=_DATE[dialect], numbers=NUMBERS[dialect]), given)
        topics = _TOPICS.format(categories=CATEGORIES, tags=tags, numbers=NUMBERS[dialect])
        _write(session, topics, {"count": count})
    if dialect == "postgresql":  # its own daemon would do so within the minute
        with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("VACUUM ANALYZE articles, article_topics"))


def _write(session: Session, statement: str, given: dict[str, object]) -> None:
    session.execute(text(statement), given)
