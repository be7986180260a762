"""Reading the ledger: outcomes of deliveries, counts of an edition, what it carried, the archive. Writes nothing.

A delivery is a reading, not a table: a recipient of a first batch and the attempts made for it. Its outcome is that of
its last attempt; a cancelled edition speaks for the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, exists, func, not_, or_, select
from sqlalchemy.orm import Session, aliased

from digest.ledger.history import unpack_ids, unpack_items, unpack_ordinals
from digest.models import Attempt, Batch, Digest, Edition, EditionArticle, Subscriber, Topic, Variant
from digest.types import ArticleCard, EditionPage, EditionStatus, Result, Section, StoryCard

#: Outcomes in the order of a report.
COUNTED = (
    Result.ACCEPTED, Result.DEFERRED, Result.REJECTED, Result.UNCERTAIN, Result.SUPPRESSED, Result.EXPIRED,
    Result.CANCELLED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Delivery:
    """``outcome`` None: nothing tried yet. ``attempts``: how many tries reached a server or may have."""

    subscriber_id: int
    address: str
    outcome: str | None
    code: int | None
    enhanced: str | None
    text: str | None
    attempts: int
    at: datetime | None


def _last(edition: Edition) -> ColumnElement[bool]:
    later = aliased(Attempt)
    return and_(
        Attempt.edition_month == edition.month,
        Attempt.edition_id == edition.id,
        not_(
            exists().where(
                later.edition_month == Attempt.edition_month,
                later.edition_id == Attempt.edition_id,
                later.subscriber_id == Attempt.subscriber_id,
                later.attempt > Attempt.attempt,
            )
        ),
    )


def outcome_counts(session: Session, edition: Edition) -> dict[str, int]:
    """How many of the edition's recipients ended in each outcome so far; all seven keys."""
    counts = dict.fromkeys((r.value for r in COUNTED), 0)
    if edition.counts is not None:
        return counts | edition.counts
    for outcome, n in session.execute(
        select(Attempt.outcome, func.count()).where(_last(edition), not_(Attempt.reopened)).group_by(Attempt.outcome)
    ):
        counts[outcome] = n
    if edition.status == EditionStatus.CANCELLED:
        rest = edition.recipients - sum(counts.values())
        counts[Result.CANCELLED] += rest + counts[Result.DEFERRED]
        counts[Result.DEFERRED] = 0
    return counts


def deliveries(session: Session, edition: Edition, outcome: str | None = None) -> Iterator[Delivery]:
    """Every recipient of the edition, in the order of joining; *outcome* keeps those that ended so."""
    last = {r.subscriber_id: r for r in session.scalars(select(Attempt).where(_last(edition)))}
    members = sorted(_recipients(session, edition.id))
    for start in range(0, len(members), 500):
        chunk = members[start : start + 500]
        people = dict(session.execute(select(Subscriber.id, Subscriber.address).where(Subscriber.id.in_(chunk))).all())
        for s in chunk:
            delivery = _delivery(edition, s, people.get(s, ""), last.get(s))
            if outcome is None or delivery.outcome == outcome:
                yield delivery


def delivery(session: Session, edition: Edition, subscriber_id: int) -> tuple[Delivery, Sequence[Attempt]] | None:
    """One reader's delivery with every attempt of it, oldest first; None: the edition was not released to them."""
    if subscriber_id not in set(_recipients(session, edition.id)):
        return None
    attempts = session.scalars(
        select(Attempt)
        .where(
            Attempt.edition_month == edition.month,
            Attempt.edition_id == edition.id,
            Attempt.subscriber_id == subscriber_id,
        )
        .order_by(Attempt.attempt)
    ).all()
    address = session.scalar(select(Subscriber.address).where(Subscriber.id == subscriber_id)) or ""
    return _delivery(edition, subscriber_id, address, attempts[-1] if attempts else None), attempts


def _recipients(session: Session, edition_id: int) -> Iterator[int]:
    for ids, ordinals in session.execute(
        select(Batch.ids, Batch.ordinals).where(Batch.edition_id == edition_id, Batch.retry == 0)
    ):
        yield from (s for s, v in zip(unpack_ids(ids), unpack_ordinals(ordinals), strict=True) if v)


def _delivery(edition: Edition, subscriber: int, address: str, last: Attempt | None) -> Delivery:
    cancelled = edition.status == EditionStatus.CANCELLED
    if last is None:
        return Delivery(subscriber, address, Result.CANCELLED.value if cancelled else None, None, None, None, 0, None)
    waits = last.outcome == Result.DEFERRED or last.reopened
    outcome = Result.CANCELLED.value if cancelled and waits else None if last.reopened else last.outcome
    return Delivery(
        subscriber, last.address or address, outcome, last.code, last.enhanced, last.text, last.attempt, last.at
    )


# ----------------------------------------------------------------------------- what an edition carried


@dataclass(frozen=True, slots=True)
class Carried:
    """An article that some variant picked. ``readers``: recipients who got it; ``position``: in the house variant."""

    article_id: int
    section: int
    position: int | None
    readers: int
    card: ArticleCard


def carried(session: Session, edition_id: int) -> list[Carried]:
    """What any variant picked, in the order of the pool."""
    readers: dict[int, int] = {}
    for (ordinals,) in session.execute(select(Batch.ordinals).where(Batch.edition_id == edition_id, Batch.retry == 0)):
        for v in unpack_ordinals(ordinals):
            readers[v] = readers.get(v, 0) + 1
    count: dict[int, int] = {}
    sections: dict[int, int] = {}
    for ordinal, items in session.execute(
        select(Variant.ordinal, Variant.items).where(Variant.edition_id == edition_id).order_by(Variant.ordinal)
    ):
        for article, section in unpack_items(items):
            count[article] = count.get(article, 0) + readers.get(ordinal, 0)
            sections.setdefault(article, section)
    rows = session.scalars(
        select(EditionArticle).where(EditionArticle.edition_id == edition_id).order_by(EditionArticle.rank)
    )
    return [
        Carried(r.article_id, sections.get(r.article_id, r.section), r.position, count.get(r.article_id, 0),
                ArticleCard.from_json(r.card))
        for r in rows
        if r.article_id in count or r.verdict == "in"
    ]  # fmt: skip


def variant_items(session: Session, edition_id: int, ordinals: Collection[int]) -> dict[int, tuple[int, bytes]]:
    """Ordinal → (dress, packed items)."""
    rows = session.execute(
        select(Variant.ordinal, Variant.dress, Variant.items).where(
            Variant.edition_id == edition_id, Variant.ordinal.in_(list(ordinals))
        )
    )
    return {o: (dress, items) for o, dress, items in rows}


def titles_before(session: Session, edition: Edition) -> list[tuple[int, str]]:
    """(article id, title) of all that an edition of this digest just before could have had on top."""
    before = (
        select(Edition.id)
        .where(Edition.digest_id == edition.digest_id, Edition.id < edition.id, Edition.released_at.is_not(None))
        .order_by(Edition.id.desc())
        .limit(10)
    )
    rows = session.execute(
        select(EditionArticle.article_id, EditionArticle.card).where(EditionArticle.edition_id.in_(before))
    )
    return [(article, card["title"]) for article, card in rows]


# ----------------------------------------------------------------------------- the archive


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    digest_slug: str
    digest_name: str
    slug: str
    subject: str
    local: datetime
    count: int


def _shown(live: bool) -> ColumnElement[bool]:
    """Released editions that the public sees: one zone of a run, not empty, not called back before anybody had it.

    Once mail is live, editions that went to the capture server are hidden.
    """
    had = exists().where(
        Attempt.edition_month == Edition.month,
        Attempt.edition_id == Edition.id,
        Attempt.outcome.in_((Result.ACCEPTED.value, Result.UNCERTAIN.value)),
    )
    picked = exists().where(EditionArticle.edition_id == Edition.id, EditionArticle.verdict == "in")
    sent = Edition.status.in_((EditionStatus.SENDING, EditionStatus.PAUSED, EditionStatus.FINISHED))
    shown = and_(
        Edition.released_at.is_not(None),
        Edition.archived,
        or_(sent, and_(Edition.status == EditionStatus.CANCELLED, had)),
        picked,
    )
    return and_(shown, Edition.live) if live else shown


def archive(
    session: Session, *, live: bool, digest_slug: str | None = None, limit: int | None = None
) -> list[ArchiveEntry]:
    """Editions that the public sees, newest first."""
    count = (
        select(func.count())
        .select_from(EditionArticle)
        .where(EditionArticle.edition_id == Edition.id, EditionArticle.verdict == "in", EditionArticle.reason != "also")
        .scalar_subquery()
    )
    query = (
        select(Edition, Digest.slug, Digest.name, count)
        .join(Digest, Digest.id == Edition.digest_id)
        .where(_shown(live))
        .order_by(Edition.instant.desc(), Edition.id.desc())
    )
    if digest_slug is not None:
        query = query.where(Digest.slug == digest_slug)
    if limit is not None:
        query = query.limit(limit)
    return [ArchiveEntry(slug, name, e.slug, e.subject, _local(e), n) for e, slug, name, n in session.execute(query)]


def _local(edition: Edition) -> datetime:
    return edition.instant.astimezone(ZoneInfo(edition.zone))


def edition_page(session: Session, digest_slug: str, edition_slug: str, *, live: bool) -> EditionPage | None:
    """One edition as its web page shows it; None when the public does not see it."""
    pages = _pages(session, and_(_shown(live), Digest.slug == digest_slug, Edition.slug == edition_slug), 1)
    return pages[0] if pages else None


def edition_pages(session: Session, digest_slug: str, limit: int, *, live: bool) -> list[EditionPage]:
    """A digest's newest editions, newest first: what its feed carries."""
    return _pages(session, and_(_shown(live), Digest.slug == digest_slug), limit)


def _pages(session: Session, which: ColumnElement[bool], limit: int) -> list[EditionPage]:
    rows = session.execute(
        select(Edition, Digest.slug, Digest.name)
        .join(Digest, Digest.id == Edition.digest_id)
        .where(which)
        .order_by(Edition.instant.desc(), Edition.id.desc())
        .limit(limit)
    ).all()
    return [
        EditionPage(
            edition_id=e.id, digest_slug=slug, digest_name=name, slug=e.slug, subject=e.subject, local=_local(e),
            released=_public_since(e).replace(microsecond=0), sections=house_sections(session, e.id),
        )
        for e, slug, name in rows
    ]  # fmt: skip


def _public_since(edition: Edition) -> datetime:
    """The moment it speaks of: when it was composed, so that the same month gives the same feed wherever it is lived
    again; of one that a person let go, when they did."""
    if edition.recipe.get("held") and edition.released_at is not None:
        return edition.released_at
    return edition.at


def house_sections(session: Session, edition_id: int) -> tuple[Section, ...]:
    """The house variant as sections of stories."""
    rows = session.scalars(
        select(EditionArticle)
        .where(EditionArticle.edition_id == edition_id, EditionArticle.verdict == "in")
        .order_by(EditionArticle.position)
    ).all()
    cards = {r.article_id: ArticleCard.from_json(r.card) for r in rows}
    return build_sections(
        [(r.article_id, r.section) for r in rows],
        cards,
        {r.article_id: r.story_id for r in rows},
        section_titles(session, {r.section for r in rows}),
    )


def section_titles(session: Session, topics: Collection[int]) -> dict[int, str]:
    """Topic id → its name."""
    return dict(session.execute(select(Topic.id, Topic.name).where(Topic.id.in_(list(topics)))).all())


def build_sections(
    items: Sequence[tuple[int, int]],
    cards: dict[int, ArticleCard],
    story_of: dict[int, int],
    titles: dict[int, str],
) -> tuple[Section, ...]:
    """Items of a variant, in order, → sections of stories; an article of the story before it is an "also"."""
    sections: list[tuple[int, list[list[ArticleCard]]]] = []
    last_story: int | None = None
    for article, section in items:
        card, story = cards[article], story_of.get(article, article)
        if not sections or sections[-1][0] != section:
            sections.append((section, []))
            last_story = None
        if story == last_story:
            sections[-1][1][-1].append(card)
        else:
            sections[-1][1].append([card])
        last_story = story
    return tuple(
        Section(titles.get(section, ""), tuple(StoryCard(s[0], tuple(s[1:])) for s in stories))
        for section, stories in sections
    )
