"""What readers have had, and the release that adds to it. The batches are the history: nothing is stored a reader.

``release``   runs in one transaction, after `lock_releases` and before any other reader of this history
├ prior       every released edition whose pool holds an article of a story in this pool, all zones and digests
├ masks       prior variant → integer of today's stories it carried
└ per part    part = subscriber id >> 17; a batch lies in one part, so memory stays flat
    seen      OR of the masks in the part's first batches, less what was given back (read, never written)
    pick      memo of (taste, unseen) → outcome; outcome × stories left out × dress → variant
    batches   ids and variant ordinals side by side, one variant's readers together

Claims are article ids: splitting and merging stories is safe. Picking itself is `digest.selection`.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, and_, cast, false, func, insert, not_, or_, select, text, true
from sqlalchemy.orm import Session, aliased

from digest.models import Article, Attempt, Batch, Edition, EditionArticle, Subscription, Taste, Variant
from digest.types import GAVE_BACK, TERMINAL, EditionStatus, Result, SubscriptionStatus

PART_BITS = 17
BATCH_SIZE = 500
_MEMO_MAX = 500_000
_ITEM = struct.Struct("<qq")  # article id, section topic id
_RELEASE_LOCK = 0x64_69_67_65_73_74  # "digest"
_KEPT = frozenset({Result.ACCEPTED, Result.UNCERTAIN})  # all that a cancelled edition still claims


def lock_releases(session: Session) -> None:
    """Serialise releases: taken before the first read. On SQLite the transaction itself is the lock."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _RELEASE_LOCK})


def pack_items(items: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(_ITEM.pack(article, section) for article, section in items)


def unpack_items(packed: bytes) -> list[tuple[int, int]]:
    return list(_ITEM.iter_unpack(packed))


def left_out(had: int) -> list[tuple[int, int]]:
    """The item that says how many stories a variant lacks because its readers had them. Of no article: no claim."""
    return [(0, -had)] if had else []


def pack_ids(ids: Iterable[int]) -> bytes:
    return _little("q", ids)


def unpack_ids(packed: bytes) -> array[int]:
    return _array("q", packed)


def pack_ordinals(ordinals: Iterable[int]) -> bytes:
    return _little("I", ordinals)


def unpack_ordinals(packed: bytes) -> array[int]:
    return _array("I", packed)


def _little(code: str, values: Iterable[int]) -> bytes:
    a = array(code, values)
    return a.tobytes()


def _array(code: str, packed: bytes) -> array[int]:
    a = array(code)
    a.frombytes(packed)
    return a


# ----------------------------------------------------------------------------- what was had


class Masks:
    """Edition → its variant ordinal → bits of today's stories. Read when they are first asked for.

    Of most earlier editions none of today's readers had anything: they went out in another zone.
    """

    def __init__(self, session: Session, bit_of_article: Mapping[int, int]) -> None:
        self._session, self._bit_of_article = session, bit_of_article
        self._read: dict[int, list[int]] = {}
        self._same: dict[int, int] = {}  # many variants carried the same of today's stories

    def of(self, edition: int) -> Sequence[int]:
        if edition not in self._read:
            table = self._read[edition] = list[int]()
            rows = select(Variant.ordinal, Variant.items).where(Variant.edition_id == edition).order_by(Variant.ordinal)
            for ordinal, items in self._session.execute(rows):
                table.extend([0] * (ordinal - len(table)))
                mask = 0
                for article, _ in _ITEM.iter_unpack(items):
                    mask |= self._bit_of_article.get(article, 0)
                table.append(self._same.setdefault(mask, mask))
        return self._read[edition]


@dataclass(frozen=True, slots=True)
class Prior:
    """An earlier edition that shares a story with this pool."""

    edition_id: int
    masks: Masks
    kept: frozenset[int] | None  # a cancelled edition: only these readers keep what it gave; None: all but `gone`
    gone: frozenset[int]
    elsewhere: bool = False  # of another digest

    def carried(self, ids: array[int], ordinals: array[int]) -> Iterator[tuple[int, int]]:
        """(subscriber, story bits) of a batch, given-back ones left out."""
        masks = self.masks.of(self.edition_id)
        if self.kept is not None:
            yield from ((s, masks[v]) for s, v in zip(ids, ordinals, strict=True) if s in self.kept)
        elif self.gone.isdisjoint(ids):
            yield from ((s, masks[v]) for s, v in zip(ids, ordinals, strict=True))
        else:
            yield from ((s, masks[v]) for s, v in zip(ids, ordinals, strict=True) if s not in self.gone)


def article_bits(session: Session, edition_id: int, bit_of_story: dict[int, int]) -> dict[int, int]:
    """Every article of a story in this pool → its story's bit, under today's story map."""
    mine, member = aliased(Article), aliased(Article)
    rows = session.execute(
        select(member.id, member.story_id)
        .select_from(EditionArticle)
        .join(mine, mine.id == EditionArticle.article_id)
        .join(member, member.story_id == mine.story_id)
        .where(EditionArticle.edition_id == edition_id)
        .distinct()
    )
    return {article: bit_of_story[story] for article, story in rows if story in bit_of_story}


def _counts_against(edition: Edition) -> ColumnElement[bool]:
    """Which earlier editions count: released, of a kind with this one's transport, and not free to be repeated.

    Captured mail claims nothing from live editions. An edition that repeats others still never repeats its own digest.
    """
    transport = Edition.live.is_(True) if edition.live else true()
    others = false() if edition.repeats else not_(Edition.repeats)
    return and_(
        Edition.id != edition.id,
        Edition.released_at.is_not(None),
        transport,
        or_(Edition.digest_id == edition.digest_id, others),
    )


def prior_editions(session: Session, edition: Edition, bit_of_article: dict[int, int]) -> list[Prior]:
    """Earlier editions, of all digests and zones, that hold any article of a story in this pool."""
    mine, member, theirs = aliased(Article), aliased(Article), aliased(EditionArticle)
    rows = session.execute(
        select(Edition.id, Edition.status, Edition.month, Edition.digest_id)
        .select_from(EditionArticle)
        .join(mine, mine.id == EditionArticle.article_id)
        .join(member, member.story_id == mine.story_id)
        .join(theirs, theirs.article_id == member.id)
        .join(Edition, Edition.id == theirs.edition_id)
        .where(EditionArticle.edition_id == edition.id, _counts_against(edition))
        .distinct()
        .order_by(Edition.id)
    ).all()
    if not rows:
        return []
    masks = Masks(session, bit_of_article)
    stopped = [(e, month) for e, status, month, _ in rows if status == EditionStatus.CANCELLED]
    kept = _ended(session, stopped, _KEPT)
    for e, readers in _on_the_wire(session, stopped).items():
        kept.setdefault(e, []).extend(readers)
    out = [(e, month) for e, status, month, _ in rows if status != EditionStatus.CANCELLED]
    gone = _ended(session, out, GAVE_BACK)
    priors = []
    for e, status, _, digest_id in rows:
        had = frozenset(kept.get(e, ())) if status == EditionStatus.CANCELLED else None
        priors.append(Prior(e, masks, had, frozenset(gone.get(e, ())), digest_id != edition.digest_id))
    return priors


def _ended(session: Session, editions: Sequence[tuple[int, int]], outcomes: Collection[Result]) -> dict[int, list[int]]:
    """Edition → readers whose delivery has one of these outcomes. *editions*: (id, month)."""
    ended: dict[int, list[int]] = {}
    if not editions:
        return ended
    rows = session.execute(
        select(Attempt.edition_id, Attempt.subscriber_id).where(
            Attempt.edition_month.in_({month for _, month in editions}),
            Attempt.edition_id.in_([e for e, _ in editions]),
            Attempt.outcome.in_(sorted(outcomes)),
            not_(Attempt.reopened),
        )
    )
    for edition, subscriber in rows:
        ended.setdefault(edition, []).append(subscriber)
    return ended


def _on_the_wire(session: Session, editions: Sequence[tuple[int, int]]) -> dict[int, set[int]]:
    """Readers to whom a cancelled edition's mail was granted and of whom nothing is recorded yet: it may arrive."""
    readers: dict[int, set[int]] = {}
    if not editions:
        return readers
    ended = _ended(session, editions, TERMINAL)
    batches = session.execute(
        select(Batch.edition_id, Batch.ids, Batch.todo, Batch.wire_to).where(
            Batch.edition_id.in_([e for e, _ in editions]), not_(Batch.done), Batch.wire_to > 0
        )
    )
    for edition, packed, todo, wire_to in batches:
        ids = unpack_ids(packed)
        granted = (range(len(ids)) if todo is None else _array("H", todo))[:wire_to]
        readers.setdefault(edition, set()).update({ids[p] for p in granted} - set(ended.get(edition, ())))
    return readers


def seen_by(
    session: Session, priors: Sequence[Prior], part: int, readers: Iterable[int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Reader → bits of today's stories that an earlier edition already carried to them.

    And those among them that another digest brought; only of readers to whom one did.
    """
    seen, elsewhere = dict.fromkeys(readers, 0), dict[int, int]()
    by_id = {p.edition_id: p for p in priors}
    if not by_id or not seen:
        return seen, elsewhere
    batches = session.execute(
        select(Batch.edition_id, Batch.ids, Batch.ordinals).where(
            Batch.edition_id.in_(list(by_id)), Batch.part == part, Batch.retry == 0
        )
    )
    for edition, packed, ordinals in batches:
        prior, ids = by_id[edition], unpack_ids(packed)
        if seen.keys().isdisjoint(ids):
            continue
        for subscriber, mask in prior.carried(ids, unpack_ordinals(ordinals)):
            if mask and subscriber in seen:
                seen[subscriber] |= mask
                if prior.elsewhere:
                    elsewhere[subscriber] = elsewhere.get(subscriber, 0) | mask
    return seen, elsewhere


def carried_since(session: Session, edition: Edition, since: datetime, readers: Mapping[int, int]) -> set[int]:
    """Those of *readers* (and their variants) to whom an edition released since then carried a story of theirs.

    Only under `lock_releases`: a release that runs meanwhile may be about to.
    """
    bits = _own_bits(session, edition.id)
    newer = set(session.scalars(select(Edition.id).where(Edition.released_at > since)))
    priors = [p for p in prior_editions(session, edition, bits) if p.edition_id in newer]
    own = Masks(session, bits).of(edition.id)
    had: set[int] = set()
    for part in {reader >> PART_BITS for reader in readers} if priors else ():
        theirs = [reader for reader in readers if reader >> PART_BITS == part]
        seen, _ = seen_by(session, priors, part, theirs)
        for reader, carried in seen.items():
            if carried & own[readers[reader]]:
                had.add(reader)
    return had


def _own_bits(session: Session, edition_id: int) -> dict[int, int]:
    """Every article of a story in this pool → a bit of its own for that story."""
    stories = session.scalars(
        select(Article.story_id)
        .join(EditionArticle, EditionArticle.article_id == Article.id)
        .where(EditionArticle.edition_id == edition_id)
        .distinct()
    )
    return article_bits(session, edition_id, {story: 1 << place for place, story in enumerate(stories)})


def house_seen(session: Session, edition: Edition, bit_of_article: dict[int, int]) -> dict[int, int]:
    """The digest's own earlier editions → bits of today's stories that they showed: the house variant's history.

    Editions of the same run in other zones are siblings, not history; a cancelled one counts when somebody had it.
    """
    had = select(Attempt.edition_id).where(
        Attempt.edition_month == Edition.month, Attempt.edition_id == Edition.id, Attempt.outcome.in_(sorted(_KEPT))
    )
    sibling = and_(
        Edition.schedule_id == edition.schedule_id,
        Edition.local_time == edition.local_time,
        Edition.fold == edition.fold,
    )
    rows = session.execute(
        select(EditionArticle.article_id, Edition.id)
        .join(Edition, Edition.id == EditionArticle.edition_id)
        .where(
            Edition.digest_id == edition.digest_id,
            Edition.id != edition.id,
            Edition.released_at.is_not(None),
            Edition.live.is_(True) if edition.live else true(),
            Edition.status != EditionStatus.SKIPPED,
            or_(Edition.status != EditionStatus.CANCELLED, had.exists()),
            not_(func.coalesce(sibling, false())),
            EditionArticle.verdict == "in",
            EditionArticle.article_id.in_(list(bit_of_article)),
        )
    )
    seen = defaultdict[int, int](int)
    for article, earlier in rows:
        seen[earlier] |= bit_of_article[article]
    return dict(seen)


# ----------------------------------------------------------------------------- release

#: `digest.selection.Pool`'s functions: (topics of a taste) → (places, reach); (places, available) → outcome;
#: (places, available, lost) → how many of the lost would have been in.
Taste_ = Callable[[Collection[int]], tuple[int, int]]
Pick = Callable[[int, int], Any]
Had = Callable[[int, int, int], int]


@dataclass(frozen=True, slots=True)
class Released:
    readers: int  # all that were due
    recipients: int  # those that get something
    variants: int


def due_readers(edition: Edition) -> ColumnElement[bool]:
    """Active subscriptions whose clock struck: all of the digest for a manual run. Never filtered by `at`."""
    due = and_(Subscription.digest_id == edition.digest_id, Subscription.status == SubscriptionStatus.ACTIVE)
    if edition.schedule_id is not None:
        due = and_(due, Subscription.schedule_id == edition.schedule_id)
    if edition.zones:
        due = and_(due, Subscription.zone.in_(edition.zones))
    return due


def _grouped(session: Session, edition: Edition, part: int) -> list[tuple[int, int, Sequence[int]]]:
    """Due readers of a part who chose alike: (taste, dress, their ids in order), by the first of them.

    On PostgreSQL a group comes as one string of bytes: a million rows cost more to hand over than to decide.
    """
    alike, reader = (Subscription.taste_id, Subscription.dress), Subscription.subscriber_id
    here = and_(due_readers(edition), reader >= part << PART_BITS, reader < (part + 1) << PART_BITS)
    if session.get_bind().dialect.name == "postgresql":
        packed = func.string_agg(func.int8send(reader), cast(b"", LargeBinary), type_=LargeBinary)
        rows = session.execute(select(*alike, packed).where(here).group_by(*alike))
        found = [(taste, dress, sorted(_big(ids))) for taste, dress, ids in rows]
    else:
        groups = defaultdict[tuple[int, int], list[int]](list)
        for taste, dress, s in session.execute(select(*alike, reader).where(here)):
            groups[taste, dress].append(s)
        found = [(taste, dress, sorted(ids)) for (taste, dress), ids in groups.items()]
    return sorted(found, key=lambda group: group[2][0])


def _big(packed: bytes) -> array[int]:
    """Eight bytes each, the highest first, as networks have them."""
    ids = _array("q", packed)
    if sys.byteorder == "little":
        ids.byteswap()
    return ids


class Releaser:
    """One release: tastes and outcomes are worked out once and shared by all readers they fit."""

    def __init__(
        self,
        session: Session,
        edition: Edition,
        *,
        taste: Taste_,
        pick: Pick,
        had: Had,
        items: Callable[[Any], list[tuple[int, int]]],
        priors: Sequence[Prior],
        now: datetime,
    ) -> None:
        self.session, self.edition, self.priors, self.now = session, edition, priors, now
        self._taste, self._pick, self._had, self._items = taste, pick, had, items
        self._tastes: dict[int, tuple[int, int]] = {}
        self._memo: dict[tuple[int, int], int] = {}
        self._had_memo: dict[tuple[int, int, int], int] = {}
        self._outcomes: dict[Any, int] = {(): 0}
        self._ordinals: dict[tuple[int, int, int], int] = {(0, 0, 0): 0}  # (outcome, had, dress); 0 = under the minimum

    def run(self) -> Released:
        ends = self.session.execute(
            select(func.min(Subscription.subscriber_id), func.max(Subscription.subscriber_id)).where(
                due_readers(self.edition)
            )
        ).one()
        readers = recipients = 0
        if ends[0] is not None:
            for part in range(ends[0] >> PART_BITS, (ends[1] >> PART_BITS) + 1):
                due, given = self._part(part)
                readers, recipients = readers + due, recipients + given
        self._write_variants()
        return Released(readers, recipients, len(self._ordinals) - 1)

    def _part(self, part: int) -> tuple[int, int]:
        ids, ordinals = self._given(part)
        nothing = ordinals.count(0)
        self._write_batches(part, ids, ordinals, nothing)
        for memo in (self._memo, self._had_memo):
            if len(memo) > _MEMO_MAX:
                memo.clear()
        return len(ids), len(ids) - nothing

    def _given(self, part: int) -> tuple[array[int], array[int]]:
        """The part's due readers and the ordinals of what they get, those of one variant together."""
        groups = _grouped(self.session, self.edition, part)
        self._learn_tastes({taste for taste, _, _ in groups})
        members = defaultdict[int, list[int]](list)
        if self.priors:
            seen, elsewhere = seen_by(self.session, self.priors, part, (s for _, _, ids in groups for s in ids))
            for taste, dress, ids in groups:
                for s in ids:
                    members[self._ordinal(taste, dress, seen[s], elsewhere.get(s, 0))].append(s)
        else:  # those who chose alike get the same
            for taste, dress, ids in groups:
                members[self._ordinal(taste, dress, 0, 0)].extend(ids)
        readers, ordinals = array("q"), array("I")
        for ordinal in sorted(members):
            readers.extend(sorted(members[ordinal]))
            ordinals.extend([ordinal] * len(members[ordinal]))
        return readers, ordinals

    def _learn_tastes(self, ids: set[int]) -> None:
        new = sorted(ids - self._tastes.keys())
        for start in range(0, len(new), 500):
            for taste, key in self.session.execute(
                select(Taste.id, Taste.key).where(Taste.id.in_(new[start : start + 500]))
            ):
                self._tastes[taste] = self._taste([int(t) for t in key.split(",")] if key else [])

    def _ordinal(self, taste: int, dress: int, seen: int, elsewhere: int) -> int:
        places, reach = self._tastes[taste]
        available = reach & ~seen
        outcome = self._memo.get((places, available))
        if outcome is None:
            picked = self._pick(places, available)
            outcome = self._memo[places, available] = self._outcomes.setdefault(picked, len(self._outcomes))
        lost = reach & elsewhere
        had = self._left_out(places, available, lost) if outcome and lost else 0
        return self._ordinals.setdefault((outcome, had, dress) if outcome else (0, 0, 0), len(self._ordinals))

    def _left_out(self, places: int, available: int, lost: int) -> int:
        """How many stories this mail lacks because other digests brought them."""
        key = places, available, lost
        if (had := self._had_memo.get(key)) is None:
            had = self._had_memo[key] = self._had(*key)
        return had

    def _write_batches(self, part: int, ids: array[int], ordinals: array[int], nothing: int) -> None:
        """Some 500 readers a batch; the first *nothing* of them get nothing, so that theirs are done."""
        starts = [*range(0, nothing, BATCH_SIZE), *range(nothing, len(ids), BATCH_SIZE), len(ids)]
        rows = [
            {
                "edition_id": self.edition.id, "part": part, "n": n, "retry": 0, "done": start < nothing,
                "ids": pack_ids(ids[start:end]), "ordinals": pack_ordinals(ordinals[start:end]),
                "not_before": self.now, "wire_to": 0, "attempt": 0,
            }
            for n, (start, end) in enumerate(pairwise(starts))
        ]  # fmt: skip
        if rows:
            self.session.execute(insert(Batch), rows)

    def _write_variants(self) -> None:
        packed = [pack_items(self._items(outcome)) for outcome in self._outcomes]
        rows: list[dict[str, Any]] = [
            {
                "edition_id": self.edition.id, "ordinal": ordinal, "dress": dress,
                "items": packed[outcome] + pack_items(left_out(had)),
            }
            for (outcome, had, dress), ordinal in self._ordinals.items()
        ]  # fmt: skip
        for start in range(0, len(rows), 5000):
            self.session.execute(insert(Variant), rows[start : start + 5000])
