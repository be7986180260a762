"""A small newsroom over many days, and an oracle that keeps every reader's mailbox in plain sets.

The oracle knows nothing of batches, masks or bits: a reader may get a story of the pool unless a mail that still counts
carried an article of that story, under today's map of stories. Whatever release does differently is counted by kind.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert, update
from sqlalchemy.orm import Session

from digest import models as m
from digest.db import Database
from digest.ledger import history
from digest.selection import Caps, Limits, Pool, Story
from tests import build

START = datetime(2025, 5, 1, 7, 0, tzinfo=UTC)
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo")
TOPICS = 24
WEIGHTS = [1 / (i + 1) for i in range(TOPICS)]
MAXIMUM = 12


@dataclass(frozen=True)
class Kind:
    """A digest of this world. ``topics`` None: each reader's own."""

    lookback: int
    topics: frozenset[int] | None
    every: int = 1
    on: int = 0
    repeats: bool = False
    minimum: int = 1
    quota: tuple[int, int] | None = None  # a topic, and how many stories of it a mail may carry


KINDS = (
    Kind(2, frozenset({1, 2})),  # a daily
    Kind(2, None, minimum=2, quota=(1, 2)),  # a personal daily, not too much of one topic
    Kind(8, None, every=7, on=4),  # a personal weekly
    Kind(8, frozenset({7, 8, 9}), every=2, on=1, repeats=True),  # a round-up that may repeat the others
    Kind(2, frozenset({2, 3})),  # a daily that overlaps the first
)


@dataclass
class Reader:
    zone: str
    dress: int
    digests: set[int]
    topics: frozenset[int]
    paused: int = 0


@dataclass(eq=False)
class Mail:
    edition: int
    digest: int
    articles: list[int]
    live: bool
    repeats: bool
    state: str = "out"  # out · accepted · gone


@dataclass
class World:
    session: Session
    seed: int
    readers: int
    releaser: Callable[..., Any] = history.Releaser
    violations: Counter[str] = field(default_factory=Counter)
    stats: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.story_of: dict[int, int] = {}
        self.topics_of: dict[int, frozenset[int]] = {}
        self.day_of: dict[int, int] = {}
        self.people: dict[int, Reader] = {}
        self.mailbox: dict[int, list[Mail]] = defaultdict(list)
        self.later: list[tuple[int, int, int, Mail]] = []
        self.next_story = 1_000_000
        self.tastes: dict[frozenset[int], int] = {}
        s = self.session
        build.publication(s)
        for n in range(1, TOPICS + 1):
            build.topic(s, f"topic {n}")
        self.digests = [build.digest(s, f"digest-{i}", zone="subscriber") for i in range(len(KINDS))]
        self.schedules = [build.schedule_of(s, d).id for d in self.digests]
        for _ in range(self.readers):
            self.join()

    # -- what happens in a newsroom

    def choose(self, n: int) -> frozenset[int]:
        return frozenset(self.random.choices(range(1, TOPICS + 1), WEIGHTS, k=n))

    def join(self) -> None:
        subscriber = build.subscriber(self.session).id
        self.people[subscriber] = Reader(
            self.random.choice(ZONES), self.random.randrange(3),
            set(self.random.sample(range(len(KINDS)), self.random.randrange(1, 4))),
            self.choose(1 + self.random.randrange(4)),
        )  # fmt: skip
        self.write(subscriber)

    def taste(self, topics: frozenset[int] | None) -> int:
        topics = topics or frozenset()
        if topics not in self.tastes:
            row = m.Taste(key=",".join(map(str, sorted(topics))))
            self.session.add(row)
            self.session.flush()
            self.tastes[topics] = row.id
        return self.tastes[topics]

    def write(self, subscriber: int) -> None:
        """The reader's choices as rows."""
        s, reader = self.session, self.people[subscriber]
        s.execute(delete(m.Subscription).where(m.Subscription.subscriber_id == subscriber))
        rows = [
            {
                "digest_id": self.digests[d].id, "subscriber_id": subscriber, "schedule_id": self.schedules[d],
                "zone": reader.zone, "taste_id": self.taste(KINDS[d].topics or reader.topics), "dress": reader.dress,
                "status": "paused" if reader.paused > 0 else "active", "created_at": START,
            }
            for d in sorted(reader.digests)
        ]  # fmt: skip
        s.execute(insert(m.Subscription), rows)

    def publish(self, day: int) -> None:
        recent = [a for a, d in self.day_of.items() if d >= day - 4]
        for _ in range(20):
            columns = {}
            if recent and self.random.random() < 0.15:
                columns["story_id"] = self.story_of[self.random.choice(recent)]
            row = build.article(self.session, **columns)
            self.story_of[row.id], self.day_of[row.id] = row.story_id, day
            self.topics_of[row.id] = self.choose(self.random.randrange(4)) | {1 + self.random.randrange(5)}

    def edit_stories(self, day: int) -> None:
        """An editor splits a story in two, and merges two others."""
        recent = defaultdict(list)
        for a, d in self.day_of.items():
            if d >= day - 5:
                recent[self.story_of[a]].append(a)
        if several := [v for v in recent.values() if len(v) > 1]:
            self.next_story += 1
            self.move([self.random.choice(several)[-1]], self.next_story)
            self.stats["splits"] += 1
        if len(recent) > 1:
            keep, gone = self.random.sample(sorted(recent), 2)
            self.move([a for a, story in self.story_of.items() if story == gone], keep)
            self.stats["merges"] += 1

    def move(self, articles: list[int], story: int) -> None:
        self.story_of |= dict.fromkeys(articles, story)
        self.session.execute(update(m.Article).where(m.Article.id.in_(articles)).values(story_id=story))

    def churn(self) -> None:
        for subscriber in list(self.people):
            reader, u = self.people[subscriber], self.random.random()
            back = reader.paused == 1
            reader.paused = max(0, reader.paused - 1)
            if u < 0.01:
                reader.zone = self.random.choice(ZONES)
            elif u < 0.02:
                reader.topics = self.choose(1 + self.random.randrange(4))
            elif u < 0.025:
                reader.paused = self.random.randrange(1, 9)
            elif u < 0.03:
                self.session.execute(delete(m.Subscription).where(m.Subscription.subscriber_id == subscriber))
                del self.people[subscriber]
                self.join()
                continue
            elif not back:
                continue
            self.write(subscriber)

    def run(self, days: int) -> World:
        for day in range(days):
            self.publish(day)
            if day:
                self.edit_stories(day)
            self.churn()
            for zone in ZONES:
                for d, kind in enumerate(KINDS):
                    if day % kind.every == kind.on:
                        self.edition(day, d, zone)
        return self

    # -- an edition

    def edition(self, day: int, d: int, zone: str) -> None:
        if self.random.random() < 0.1:  # a reader moves between two zones of one run
            self.people[subscriber := self.random.choice(list(self.people))].zone = self.random.choice(ZONES)
            self.write(subscriber)
        kind, s = KINDS[d], self.session
        instant = START + timedelta(days=day, hours=ZONES.index(zone))
        row = m.Edition(
            digest_id=self.digests[d].id, schedule_id=self.schedules[d], local_time=f"{instant:%Y-%m-%dT%H:%M}",
            fold=0, instant=instant, zone=zone, zones=[zone], slug=f"{day}-{zone[:3]}", month=202505, at=instant,
            live=self.random.random() > 0.05, repeats=kind.repeats, created_at=START, released_at=START,
            status="sending",
        )  # fmt: skip
        s.add(row)
        s.flush()
        pool = self.pool(day, kind)
        rows = [
            {
                "edition_id": row.id, "article_id": a, "rank": i, "story_id": st.id, "topics": sorted(st.topics),
                "verdict": "out", "reason": "",
            }
            for i, st in enumerate(pool.stories)
            for a in st.articles
        ]  # fmt: skip
        if not rows:
            return
        s.execute(insert(m.EditionArticle), rows)
        bit_of_article = history.article_bits(s, row.id, pool.bit_of)
        self.releaser(
            s, row, taste=pool.taste, pick=pool.pick, had=pool.had, items=pool.items, now=START,
            priors=history.prior_editions(s, row, bit_of_article),
        ).run()  # fmt: skip
        mails = self.judge(row, d, kind, pool)
        self.send(day, row, mails)
        self.stats["editions"] += 1

    def pool(self, day: int, kind: Kind) -> Pool:
        stories = defaultdict(list)
        for a, d in self.day_of.items():
            if d > day - kind.lookback:
                stories[self.story_of[a]].append(a)
        found = []
        for story, articles in stories.items():
            topics = frozenset().union(*(self.topics_of[a] for a in articles))
            if kind.topics is None or topics & kind.topics:
                found.append(Story(story, tuple(sorted(articles, reverse=True)), topics))
        found.sort(key=lambda st: -st.articles[0])
        caps = Caps(quotas=(kind.quota,) if kind.quota else ())
        return Pool(found, range(1, TOPICS + 1), Limits(kind.minimum, MAXIMUM), caps)

    def judge(self, row: m.Edition, d: int, kind: Kind, pool: Pool) -> list[tuple[int, Mail]]:
        """Compare with the mailboxes, then put the new mails into them."""
        s = self.session
        variants = {v.ordinal: v for v in s.query(m.Variant).filter_by(edition_id=row.id)}
        got: dict[int, int] = {}
        for batch in s.query(m.Batch).filter_by(edition_id=row.id, retry=0):
            for subscriber, ordinal in zip(
                history.unpack_ids(batch.ids), history.unpack_ordinals(batch.ordinals), strict=True
            ):
                self.violations["in two batches"] += subscriber in got
                got[subscriber] = ordinal
        due = {n for n, r in self.people.items() if d in r.digests and r.zone == row.zone and r.paused <= 0}
        self.violations["due readers missing or extra"] += due != set(got)
        mails = []
        for subscriber in sorted(due & set(got)):
            reader = self.people[subscriber]
            wanted = kind.topics or reader.topics
            expected = self.expected(row, d, subscriber, wanted, pool, kind)
            variant = variants[got[subscriber]]
            items = [a for a, _ in history.unpack_items(variant.items) if a]
            had = -sum(n for a, n in history.unpack_items(variant.items) if not a and n < 0)
            stories = list(dict.fromkeys(self.story_of[a] for a in items if a in self.story_of))
            self.violations["wrong dress"] += bool(items) and variant.dress != reader.dress
            seen = self.seen(row, d, subscriber)
            self.violations["twice"] += len(set(stories) & seen)
            if len(stories) < MAXIMUM:
                self.violations["forgotten"] += len(set(expected) - set(stories))
            self.violations["differs"] += set(stories) != set(expected)
            self.stats["under the minimum"] += not items
            self.stats["left out"] += had
            self.violations["wrongly told what was left out"] += had != self.left_out(row, d, subscriber, kind, pool)
            if items:
                full = [a for st in pool.stories if st.id in stories for a in st.articles]
                mail = Mail(row.id, d, full, row.live, row.repeats)
                self.mailbox[subscriber].append(mail)
                mails.append((subscriber, mail))
        self.stats["mails"] += len(mails)
        return mails

    def left_out(self, row: m.Edition, d: int, subscriber: int, kind: Kind, pool: Pool) -> int:
        """The stories that other digests brought and that this mail, if there is one, would have had without them."""
        wanted, others = kind.topics or self.people[subscriber].topics, self.seen(row, d, subscriber, others=True)
        would = self.match(pool, wanted, kind, self.seen(row, d, subscriber) - others)
        return len(others & set(would)) if self.expected(row, d, subscriber, wanted, pool, kind) else 0

    def seen(self, row: m.Edition, d: int, subscriber: int, *, others: bool = False) -> set[int]:
        return {
            self.story_of[a]
            for mail in self.mailbox[subscriber]
            if mail.state != "gone"
            and (mail.live or not row.live)
            and (mail.digest == d or not (mail.repeats or row.repeats))
            and not (others and mail.digest == d)
            for a in mail.articles
        }

    def expected(
        self, row: m.Edition, d: int, subscriber: int, wanted: frozenset[int], pool: Pool, kind: Kind
    ) -> list[int]:
        match = self.match(pool, wanted, kind, self.seen(row, d, subscriber))
        return match if len(match) >= kind.minimum else []

    def match(self, pool: Pool, wanted: frozenset[int], kind: Kind, seen: set[int]) -> list[int]:
        match = [st.id for st in pool.stories if st.topics & wanted and st.id not in seen]
        if kind.quota:
            topic, most = kind.quota
            over = [st.id for st in pool.stories if topic in st.topics and st.id in match][most:]
            match = [story for story in match if story not in over]
        return match[:MAXIMUM]

    # -- what becomes of the mails

    def send(self, day: int, row: m.Edition, mails: list[tuple[int, Mail]]) -> None:
        fate = self.random.random()
        cut = 0 if fate < 0.04 else len(mails) // 2 if fate < 0.10 else len(mails)
        self.random.shuffle(mails)
        for i, (subscriber, mail) in enumerate(mails):
            if i >= cut:
                mail.state = "gone"
                if self.random.random() < 0.5:  # the other half: cancelled without a row of its own
                    self.attempt(row.id, subscriber, "cancelled")
            else:
                self.first_try(day, row.id, subscriber, mail)
        if cut < len(mails):
            row.status = "cancelled"
            self.stats["cancelled"] += 1
            for waiting in [w for w in self.later if w[1] == row.id]:
                waiting[3].state = "gone"
                self.later.remove(waiting)
        for waiting in [w for w in self.later if w[0] <= day and self.random.random() < 0.5]:
            self.later.remove(waiting)
            outcome = self.random.choice(["accepted", "expired", "rejected"])
            waiting[3].state = "accepted" if outcome == "accepted" else "gone"
            self.attempt(waiting[1], waiting[2], outcome, 2)
        self.session.flush()

    def first_try(self, day: int, edition: int, subscriber: int, mail: Mail) -> None:
        u = self.random.random()
        if u > 0.97:
            outcome = self.random.choice(["rejected", "suppressed"])
        elif u > 0.945:
            self.later.append((day + self.random.randrange(4), edition, subscriber, mail))
            outcome = "deferred"
        else:
            outcome = "uncertain" if u > 0.93 else "accepted"
        mail.state = {"rejected": "gone", "suppressed": "gone", "deferred": "out"}.get(outcome, "accepted")
        self.attempt(edition, subscriber, outcome)

    def attempt(self, edition: int, subscriber: int, outcome: str, number: int = 1) -> None:
        self.stats[outcome] += 1
        values = {
            "edition_month": 202505, "edition_id": edition, "subscriber_id": subscriber, "attempt": number,
            "outcome": outcome, "text": "", "address": "", "at": START,
        }  # fmt: skip
        self.session.execute(insert(m.Attempt), [values])


def live_through(database: Database, *, seed: int, readers: int, days: int, **how: Any) -> World:
    """Run a world in one transaction that is rolled back."""
    from digest.ledger.editions import make_partition

    with database.rehearsal() as session:
        make_partition(session, 202505)
        return World(session, seed, readers, **how).run(days)
