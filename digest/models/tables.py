"""The publication, articles in, digests, readers, editions: every table but those of `sent`, in reading order."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, SmallInteger, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from digest.db import BigId, UtcDateTime

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s", "pk": "pk_%(table_name)s",
}  # fmt: skip


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON, str: Text, bytes: LargeBinary,
    }  # fmt: skip


Base.metadata.naming_convention = _NAMES


def _id() -> Mapped[int]:
    return mapped_column(BigId, primary_key=True, autoincrement=True)


def _ref(target: str, *, nullable: bool = False, index: bool = False, primary_key: bool = False) -> Any:
    return mapped_column(
        BigId, ForeignKey(target, ondelete="CASCADE"), nullable=nullable, index=index, primary_key=primary_key
    )


# ----------------------------------------------------------------------------- publication


class Publication(Base):
    """One row, id 1: one installation is one publication."""

    __tablename__ = "publication"
    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    timezone: Mapped[str] = mapped_column(default="UTC")
    language: Mapped[str] = mapped_column(default="en")
    mail_domain: Mapped[str | None]
    from_name: Mapped[str] = mapped_column(default="")
    site_url: Mapped[str] = mapped_column(default="")  # the news site; its links are our own
    logo_url: Mapped[str] = mapped_column(default="")
    logo_dark_url: Mapped[str] = mapped_column(default="")
    logo_width: Mapped[int] = mapped_column(SmallInteger, default=0)  # 0: as wide as 32 pixels of height make it
    font: Mapped[str] = mapped_column(String(16), default="mixed")
    accent: Mapped[str] = mapped_column(default="#0b5fad")
    postal_address: Mapped[str] = mapped_column(default="")
    tagline: Mapped[str] = mapped_column(default="")
    footer_links: Mapped[list[Any]] = mapped_column(default=list)
    feed_text: Mapped[str] = mapped_column(String(8), default="full", server_default="full")  # full | excerpt
    social_links: Mapped[list[Any]] = mapped_column(default=list)
    armed_for: Mapped[str | None]  # the public URL that mail may leave for; a copy under another URL mails nobody


class Secret(Base):
    """Keys that every machine and every backup must have: ``token``, ``message_id``, ``suppression``."""

    __tablename__ = "secrets"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[bytes]
    created_at: Mapped[datetime]


# ----------------------------------------------------------------------------- articles in


class Source(Base):
    __tablename__ = "sources"
    id: Mapped[int] = _id()
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    location: Mapped[str]
    categories: Mapped[list[Any]] = mapped_column(default=list)  # default categories: slugs
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[dict[str, Any]] = mapped_column(default=dict)  # what the last whole fetch wants to remember
    title: Mapped[str] = mapped_column(default="")
    language: Mapped[str | None]
    created_at: Mapped[datetime]
    imported_at: Mapped[datetime | None]  # end of the first whole import; before it eligible_at = published_at
    polled_at: Mapped[datetime | None]  # by `at`
    polling_until: Mapped[datetime | None]  # a process reads it now, by the real clock; one that died loses it then
    failing_since: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    disabled_at: Mapped[datetime | None]  # it said 410, or an admin did
    moved_to: Mapped[str | None]  # a permanent redirect, and how often in a row it was met
    moved_count: Mapped[int] = mapped_column(default=0)


class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = _id()
    source_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("sources.id", ondelete="SET NULL"), index=True)
    story_id: Mapped[int] = mapped_column(BigId, index=True)  # an article on its own carries its own id
    status: Mapped[str] = mapped_column(String(16))
    url: Mapped[str]
    canonical_url: Mapped[str]
    feed_id: Mapped[str]  # frozen at first sight
    title: Mapped[str]
    body_html: Mapped[str]
    body_text: Mapped[str]
    excerpt: Mapped[str]
    authors: Mapped[list[Any]] = mapped_column(default=list)
    image: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    enclosures: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))  # [URL, media type, bytes] of each
    language: Mapped[str | None] = mapped_column(String(16))
    word_count: Mapped[int] = mapped_column(default=0)
    sticky: Mapped[bool] = mapped_column(default=False)
    content_hash: Mapped[str] = mapped_column(String(64))
    clue_url: Mapped[str | None]  # the story it was rewritten from, where the site tells
    clue_title: Mapped[str | None]  # that story's headline, as an image's alternative text gives it away
    published_at: Mapped[datetime]
    published_precision: Mapped[str] = mapped_column(String(8), default="given")  # given | seen
    eligible_at: Mapped[datetime]
    updated_at: Mapped[datetime]  # moves only when content does
    first_seen_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_articles_status_eligible", "status", "eligible_at"),
        Index("ix_articles_status_published", "status", "published_at", "id"),
    )


class ArticleRevision(Base):
    """What changed in an article, and when. ``before``: the values that were replaced, by column."""

    __tablename__ = "article_revisions"
    id: Mapped[int] = _id()
    article_id: Mapped[int] = _ref("articles.id", index=True)
    at: Mapped[datetime]
    before: Mapped[dict[str, Any]] = mapped_column(default=dict)


class StoryMember(Base):
    """Why an article joined its story: by which rule, and through which member. One row an article that joined."""

    __tablename__ = "story_members"
    article_id: Mapped[int] = _ref("articles.id", primary_key=True)
    matched_id: Mapped[int | None] = mapped_column(BigId)
    rule: Mapped[str] = mapped_column(String(32))  # url | title | clue | body | guarded_title | editor
    at: Mapped[datetime]


class StoryEdit(Base):
    """An editor's word on two articles, for good: the same story (merge) or not (split)."""

    __tablename__ = "story_edits"
    article_id: Mapped[int] = _ref("articles.id", primary_key=True)
    other_id: Mapped[int] = _ref("articles.id", primary_key=True, index=True)
    kind: Mapped[str] = mapped_column(String(8))  # merge | split
    at: Mapped[datetime]


class ArticleMark(Base):
    """An editor's mark on an article. ``digest_id`` 0: for every digest. A pin ends at ``until``."""

    __tablename__ = "article_marks"
    article_id: Mapped[int] = _ref("articles.id", primary_key=True)
    digest_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)  # pin | exclude
    until: Mapped[datetime | None]
    at: Mapped[datetime]


class ArticleAlias(Base):
    """All names an article goes by. ``scope`` 0: the installation; else a source, whose ids mean nothing elsewhere."""

    __tablename__ = "article_aliases"
    scope: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)  # guid | hostless | url | native
    value: Mapped[str] = mapped_column(String(2048), primary_key=True)
    article_id: Mapped[int] = _ref("articles.id", index=True)


class ArticleAuthor(Base):
    """An author's name as a slug, for author feeds and rules."""

    __tablename__ = "article_authors"
    article_id: Mapped[int] = _ref("articles.id", primary_key=True)
    slug: Mapped[str] = mapped_column(String(200), primary_key=True)
    name: Mapped[str]
    position: Mapped[int] = mapped_column(SmallInteger, default=0)
    __table_args__ = (Index("ix_article_authors_slug", "slug", "article_id"),)


class Topic(Base):
    __tablename__ = "topics"
    id: Mapped[int] = _id()
    kind: Mapped[str] = mapped_column(String(16))
    slug: Mapped[str] = mapped_column(String(200))
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("topics.id", ondelete="SET NULL"), index=True)
    hidden: Mapped[bool] = mapped_column(default=False)
    merged_into: Mapped[int | None] = mapped_column(BigId, ForeignKey("topics.id", ondelete="SET NULL"), index=True)
    articles: Mapped[int] = mapped_column(default=0)  # its own, published and withheld: moved with every change of them
    feed_text: Mapped[str | None] = mapped_column(String(8))  # full | excerpt; NULL: as the publication
    __table_args__ = (UniqueConstraint("kind", "slug"),)


class TopicSlug(Base):
    """Slugs that a topic had before it was renamed: they go on leading to it. A merged topic keeps its own."""

    __tablename__ = "topic_slugs"
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    slug: Mapped[str] = mapped_column(String(200), primary_key=True)
    topic_id: Mapped[int] = _ref("topics.id", index=True)


class TopicName(Base):
    """Spellings of a topic and how many articles came with each: the most used one is its name."""

    __tablename__ = "topic_names"
    topic_id: Mapped[int] = _ref("topics.id", primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class ArticleTopic(Base):
    __tablename__ = "article_topics"
    article_id: Mapped[int] = _ref("articles.id", primary_key=True)
    topic_id: Mapped[int] = _ref("topics.id", primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, default=0)  # 0 of the categories = the primary one
    __table_args__ = (Index("ix_article_topics_topic_id", "topic_id", "article_id"),)


class FeedVersion(Base):
    """What feeds read once a second instead of the articles: 0 is the whole catalogue, minus its id a digest's own row.

    Bumped last in a transaction, in the order of ids, so that two writers cannot lock each other out. ``changed_at`` is
    a Last-Modified: a whole second later with every bump, so that no reader sees a new ETag beside an old date.
    """

    __tablename__ = "feed_versions"
    topic_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(BigId, default=0)
    changed_at: Mapped[datetime | None] = mapped_column(index=True)  # indexed: feeds ask what moved since


class Hub(Base):
    """A WebSub hub of the settings, and how it is doing. Rows of hubs that the settings no longer name stay."""

    __tablename__ = "hubs"
    id: Mapped[int] = _id()
    url: Mapped[str] = mapped_column(String(500), unique=True)
    failures: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]  # real clock: back-off, and the lease of who is telling it
    told_at: Mapped[datetime | None]
    last_error: Mapped[str | None]


class HubFeed(Base):
    """What a hub was last told of a feed. ``topic_id``: as in `FeedVersion`."""

    __tablename__ = "hub_feeds"
    hub_id: Mapped[int] = _ref("hubs.id", primary_key=True)
    topic_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(BigId)


class FeedReaders(Base):
    """Readers that a service reported for a feed on a day, the most it said. No address, no single reader."""

    __tablename__ = "feed_readers_counters"
    day: Mapped[str] = mapped_column(String(10), primary_key=True)  # 2025-07-14, UTC
    feed: Mapped[str] = mapped_column(String(700), primary_key=True)  # its path without the extension
    agent: Mapped[str] = mapped_column(String(40), primary_key=True)
    readers: Mapped[int]


# ----------------------------------------------------------------------------- digests and schedules


class Digest(Base):
    """The standing recipe. ``categories`` and ``tags`` are OR-ed, and AND-ed with ``rule``."""

    __tablename__ = "digests"
    id: Mapped[int] = _id()
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    name: Mapped[str]
    rule: Mapped[str] = mapped_column(default="")
    categories: Mapped[list[Any]] = mapped_column(default=list)
    tags: Mapped[list[Any]] = mapped_column(default=list)
    layout: Mapped[str] = mapped_column(default="cards")
    lookback_s: Mapped[int] = mapped_column(default=7 * 86400)
    grace_s: Mapped[int] = mapped_column(default=900)
    minimum: Mapped[int] = mapped_column(default=1)
    maximum: Mapped[int] = mapped_column(default=12)
    selection: Mapped[dict[str, Any]] = mapped_column(default=dict)  # quotas, caps, weights, sections
    repeat: Mapped[str] = mapped_column(String(16), default="never")  # never | others: may repeat other digests
    approve: Mapped[bool] = mapped_column(default=False)
    uncertain: Mapped[str] = mapped_column(String(16), default="resend")  # resend | hold
    rank: Mapped[int] = mapped_column(default=0)
    subject: Mapped[str] = mapped_column(default="")
    preheader: Mapped[str] = mapped_column(default="")
    from_name: Mapped[str] = mapped_column(default="")
    reply_to: Mapped[str] = mapped_column(default="")
    intro: Mapped[str] = mapped_column(default="")  # Markdown, as are closing and sponsor
    closing: Mapped[str] = mapped_column(default="")
    sponsor: Mapped[str] = mapped_column(default="")
    link_params: Mapped[str] = mapped_column(default="")  # utm_source=digest&utm_campaign={{ digest.slug }}
    lifetime_s: Mapped[int] = mapped_column(default=5 * 86400)
    status: Mapped[str] = mapped_column(String(16), default="active")
    created_at: Mapped[datetime]


class Schedule(Base):
    """One cadence. ``timezone`` is an IANA name, or ``subscriber``: each reader's own."""

    __tablename__ = "schedules"
    id: Mapped[int] = _id()
    digest_id: Mapped[int] = _ref("digests.id", index=True)
    cron: Mapped[str] = mapped_column(String(200))
    timezone: Mapped[str] = mapped_column(String(64))
    missed: Mapped[str] = mapped_column(String(16), default="late")  # late | merge | skip: schedules.decide_due
    missed_max_age_s: Mapped[int] = mapped_column(default=86400)
    created_at: Mapped[datetime]


class ScheduleClock(Base):
    """When a schedule next runs in a zone. NULL until a tick sees it. Moved by compare-and-set alone."""

    __tablename__ = "schedule_clocks"
    schedule_id: Mapped[int] = _ref("schedules.id", primary_key=True)
    zone: Mapped[str] = mapped_column(String(64), primary_key=True)
    next_run_at: Mapped[datetime | None] = mapped_column(index=True)


# ----------------------------------------------------------------------------- readers


class Subscriber(Base):
    """An address, written to as given. ``address_key``: its comparison form (domain in lower-case A-labels)."""

    __tablename__ = "subscribers"
    id: Mapped[int] = _id()
    address: Mapped[str]
    address_key: Mapped[str] = mapped_column(String(320), unique=True)
    timezone: Mapped[str | None] = mapped_column(String(64))
    language: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[datetime]


class Taste(Base):
    """A set of topics: unique, immutable, shared. ``key``: sorted topic ids joined by commas; '' = the whole digest."""

    __tablename__ = "tastes"
    id: Mapped[int] = _id()
    key: Mapped[str] = mapped_column(unique=True)


class Subscription(Base):
    """A subscriber × a digest. Its clock: ``schedule_id`` and ``zone`` ('' unless the schedule runs in theirs)."""

    __tablename__ = "subscriptions"
    id: Mapped[int] = _id()
    digest_id: Mapped[int] = _ref("digests.id")
    subscriber_id: Mapped[int] = _ref("subscribers.id", index=True)
    schedule_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("schedules.id", ondelete="SET NULL"))
    zone: Mapped[str] = mapped_column(String(64), default="")
    taste_id: Mapped[int] = mapped_column(BigId, ForeignKey("tastes.id"))
    dress: Mapped[int] = mapped_column(SmallInteger, default=0)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    created_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("digest_id", "subscriber_id"),
        Index("ix_subscriptions_clock", "digest_id", "schedule_id", "zone", "subscriber_id"),
    )


class PrivateFeed(Base):
    """A reader's own feed. Its address holds ``serial``: a higher one makes the addresses before it worthless."""

    __tablename__ = "private_feeds"
    subscriber_id: Mapped[int] = _ref("subscribers.id", primary_key=True)
    serial: Mapped[int]
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]


class PrivateFeedReaders(Base):
    """On which day a private feed was last asked for."""

    __tablename__ = "private_feed_counters"
    subscriber_id: Mapped[int] = _ref("private_feeds.subscriber_id", primary_key=True)
    day: Mapped[str] = mapped_column(String(10))


class Suppression(Base):
    """An address we may not write to. ``address_key``: comparison form, or ``hash:…`` after an erasure."""

    __tablename__ = "suppressions"
    id: Mapped[int] = _id()
    address_key: Mapped[str] = mapped_column(String(320), unique=True)
    reason: Mapped[str] = mapped_column(String(32))  # bounce | complaint | manual | erased
    detail: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime]


class ConsentEvent(Base):
    """What a reader agreed to or took back, when and by what. Append-only."""

    __tablename__ = "consent_events"
    id: Mapped[int] = _id()
    subscriber_id: Mapped[int] = _ref("subscribers.id", index=True)
    digest_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("digests.id", ondelete="SET NULL"))
    # requested | confirmed | imported | unsubscribed | resubscribed | suspended (no word of theirs: after bounces)
    kind: Mapped[str] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(default="")  # form, one-click, import:FILE …
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    at: Mapped[datetime]


# ----------------------------------------------------------------------------- editions


class Edition(Base):
    """One issue of a digest: one run at one instant, or one manual run (``request_id``).

    ``recipe`` is the digest as it was when the edition opened. ``live``: released to the relay, not to the capture
    server.
    """

    __tablename__ = "editions"
    id: Mapped[int] = _id()
    digest_id: Mapped[int] = _ref("digests.id", index=True)
    schedule_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("schedules.id", ondelete="SET NULL"))
    local_time: Mapped[str] = mapped_column(String(16))  # 2025-07-14T07:00
    fold: Mapped[int] = mapped_column(SmallInteger, default=0)
    instant: Mapped[datetime]
    zone: Mapped[str] = mapped_column(String(64))
    zones: Mapped[list[Any]] = mapped_column(default=list)  # readers' zones that share it; [] = all of the schedule
    request_id: Mapped[str | None] = mapped_column(String(64), unique=True)
    slug: Mapped[str] = mapped_column(String(32))  # 2025-07-14, 2025-07-14-2 …: its place in the archive
    month: Mapped[int]  # 202507, of the instant in UTC: the partition of its attempts
    at: Mapped[datetime]  # what was recent when it was composed
    recipe: Mapped[dict[str, Any]] = mapped_column(default=dict)
    live: Mapped[bool] = mapped_column(default=False)
    repeats: Mapped[bool] = mapped_column(default=False)
    archived: Mapped[bool] = mapped_column(default=True)  # shown in archive and digest feed: one zone of a run
    revision: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(String(16), default="draft")
    reason: Mapped[str | None]
    recipients: Mapped[int] = mapped_column(default=0)
    template_hash: Mapped[str] = mapped_column(String(64), default="")
    subject: Mapped[str] = mapped_column(default="")  # of the house variant
    counts: Mapped[dict[str, Any] | None]  # outcomes, once the attempts themselves are forgotten
    gates: Mapped[list[Any]] = mapped_column(default=list)  # what was checked before release: gate, ok, detail
    composed_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None] = mapped_column(index=True)  # indexed: feeds ask for the newest every second
    finished_at: Mapped[datetime | None] = mapped_column(index=True)
    created_at: Mapped[datetime]  # real clock
    __table_args__ = (
        UniqueConstraint("schedule_id", "local_time", "fold", "instant"),
        UniqueConstraint("digest_id", "slug"),
        Index("ix_editions_status", "status", "instant"),
    )


class EditionArticle(Base):
    """The pool: every candidate of an edition, snapshot, with the house variant's verdict and reason. Kept for good."""

    __tablename__ = "edition_articles"
    edition_id: Mapped[int] = _ref("editions.id", primary_key=True)
    article_id: Mapped[int] = mapped_column(BigId, primary_key=True)
    rank: Mapped[int]  # order of the pool, best first
    story_id: Mapped[int] = mapped_column(BigId)  # as it was when composed
    topics: Mapped[list[Any]] = mapped_column(default=list)  # topic ids of the article, ancestors included
    card: Mapped[dict[str, Any]] = mapped_column(default=dict)  # ArticleCard
    cost: Mapped[int] = mapped_column(default=0)  # bytes of its card in the mail
    verdict: Mapped[str] = mapped_column(String(8))  # in | out
    reason: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(default="", server_default="")  # the reason's who or what, in words
    score: Mapped[dict[str, Any]] = mapped_column(default=dict)
    section: Mapped[int] = mapped_column(BigId, default=0)
    position: Mapped[int | None]  # in the house variant
    __table_args__ = (Index("ix_edition_articles_article_id", "article_id"),)


class Variant(Base):
    """One distinct outcome of picking. ``items``: struct ``<qq`` (article, section topic). Ordinal 0: under minimum.

    Article 0 claims nothing: with n above zero it says "and n more", below zero that the reader had so many already.
    """

    __tablename__ = "variants"
    edition_id: Mapped[int] = _ref("editions.id", primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    dress: Mapped[int] = mapped_column(SmallInteger)
    items: Mapped[bytes]
