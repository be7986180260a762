"""The candidates of an edition in its order, and what its recipe's topics are in the database. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import catalogue, schedules, selection
from digest.catalogue.topics import Tree, ids_of
from digest.ledger.digests import READERS_ZONE
from digest.models import Edition, Schedule
from digest.types import Candidate

Parts = Mapping[int, Mapping[str, int]]


def rank(session: Session, edition: Edition, found: Sequence[Candidate]) -> tuple[Sequence[Candidate], Parts]:
    """*found* (pins, then sticky ones, then the newest) by score where the digest weighs parts; article → its parts."""
    wanted = edition.recipe.get("selection", {})
    weights = wanted.get("score")
    if not weights:
        return found, {}
    weighed = _weighed(topic_ids(session, selection.topics_in(wanted)), weights)
    sizes = Counter(c.story_id for c in found)
    half = selection.half_life(_period(session, edition))
    parts = {
        c.card.id: selection.parts(
            selection.Scored(
                age=edition.at - c.published_at,
                words=c.card.word_count,
                image=c.card.image is not None,
                size=sizes[c.story_id],
                topics=frozenset(weighed[topic] for topic in weighed.keys() & set(c.topics)),
            ),
            weights,
            half,
        )
        for c in found
    }
    # The sort is stable: of equal scores the newest comes first, as it was found.
    return sorted(found, key=lambda c: (not c.pinned, not c.sticky, -sum(parts[c.card.id].values()))), parts


def _weighed(ids: Mapping[str, int], weights: Mapping[str, float]) -> dict[int, str]:
    """Topic → the name under which it is weighed: the heaviest one, where a merge made one topic of two."""
    by_weight = sorted((weights[f"topic:{name}"], name) for name in ids if f"topic:{name}" in weights)
    return {ids[name]: name for _, name in by_weight}


def topic_ids(session: Session, names: Sequence[str]) -> dict[str, int]:
    """``kind:slug`` → id, of the topic it went into where it was merged; one that is gone is left out."""
    found = {}
    for name in names:
        kind, _, slug = name.partition(":")
        for topic in ids_of(session, kind, {slug}):
            found[name] = topic
    return found


@dataclass(frozen=True, slots=True)
class Standing:
    """What topics are at this moment, as far as a pool needs it: after what an editor did since it was composed.

    ``now``: each topic of the pool → the one it is now; ``named``: what quotas and weights name; ``headings``: ids of
    the topics that head sections where readers chose none.
    """

    now: Mapping[int, int]
    order: Sequence[int]
    hidden: frozenset[int]
    headings: frozenset[int]
    named: Mapping[str, int]
    tree: Tree

    @classmethod
    def read(cls, session: Session, wanted: Mapping[str, Any], topics: Collection[int]) -> Standing:
        kind = wanted.get("sections")
        return cls(
            now=catalogue.became(session, topics),
            order=catalogue.topic_order(session),
            hidden=catalogue.hidden_topics(session),
            headings=frozenset(catalogue.topic_order(session, kind)) if kind else frozenset(),
            named=topic_ids(session, selection.topics_in(wanted)),
            tree=Tree.load(session),
        )

    def of(self, topics: Iterable[int]) -> frozenset[int]:
        """These topics as they are now, and all above them."""
        return frozenset(self.tree.all_up(self.now[topic] for topic in topics))


def _period(session: Session, edition: Edition) -> timedelta | None:
    """The shortest time between coming runs of the edition's schedule; for a run by hand, of the digest's first."""
    query = select(Schedule).where(Schedule.digest_id == edition.digest_id).order_by(Schedule.id)
    if edition.schedule_id is not None:
        query = query.where(Schedule.id == edition.schedule_id)
    schedule = session.scalars(query).first()
    if schedule is None:
        return None
    zone = edition.zone if schedule.timezone == READERS_ZONE else schedule.timezone
    runs = schedules.next_runs(schedule.cron, zone, edition.instant, 8)
    return min((b.instant - a.instant for a, b in pairwise(runs)), default=None)
