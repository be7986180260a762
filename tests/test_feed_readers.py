"""How many read a feed: what services say of their readers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from digest import models as m
from digest.db import Database
from digest.publishing import ReaderCounts, reader_counts
from digest.publishing.readers import FLUSH_S, reported


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("Feedly/1.0 (+https://feedly.com/poller.html; 16 subscribers; )", ("Feedly", 16)),
        ("Mozilla/5.0 (compatible; inoreader.com; 3 subscribers)", ("Inoreader", 3)),
        ("Feedbin feed-id:12 - 1 subscriber", ("Feedbin", 1)),
        ("NewsBlur Feed Fetcher - 42 subscribers - http://www.newsblur.com/site/1", ("NewsBlur", 42)),
        ("Feedly/1.0", None),
        ("Nobody/1.0 (500 subscribers)", None),
        ("Feedly 999999999999 subscribers", None),
        ("x" * 10_000 + "Feedly 5 subscribers", None),
        ("", None),
    ],
)
def test_services_say_how_many_read(agent: str, expected: object) -> None:
    assert reported(agent) == expected


def test_the_last_word_of_each_service_adds_up(database: Database) -> None:
    now = [0.0]
    counts = ReaderCounts(database, clock=lambda: now[0])
    assert not counts.note("/feeds/all", "Feedly (16 subscribers)")
    counts.note("/feeds/all", "Feedly (12 subscribers)")  # the most of a day
    counts.note("/feeds/all", "Feedbin 3 subscribers")
    counts.note("/feeds/tag/x", "curl/8")
    now[0] = FLUSH_S
    assert counts.note("/feeds/all", "curl/8")
    counts.flush()
    counts.note("/feeds/all", "Feedly (20 subscribers)")
    counts.flush()
    with database.transaction() as session:
        old = f"{database.now() - timedelta(days=2):%Y-%m-%d}"
        session.add(m.FeedReaders(day=old, feed="/feeds/all", agent="Feedly", readers=900))
        session.add(m.FeedReaders(day="2020-01-01", feed="/feeds/tag/old", agent="Feedly", readers=9))
    with database.reading() as session:
        assert reader_counts(session, database.now()) == {"/feeds/all": 23}
