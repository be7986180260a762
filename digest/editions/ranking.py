"""The candidates of an edition in its order, and what its recipe's topics are in the database. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import catalogue, schedules, selection
from digest.catalogue.topics import ids_of
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
    ids = topic_ids(session, selection.topics_in(wanted))
    sizes = Counter(c.story_id for c in found)
    half = selection.half_life(_period(session, edition))
    parts = {
        c.card.id: selection.parts(
            selection.Scored(
                age=edition.at - c.published_at,
                words=c.card.word_count,
                image=c.card.image is not None,
                size=sizes[c.story_id],
                topics=frozenset(name for name, topic in ids.items() if topic in c.topics),
            ),
            weights,
            half,
        )
        for c in found
    }
    # The sort is stable: of equal scores the newest comes first, as it was found.
    return sorted(found, key=lambda c: (not c.pinned, not c.sticky, -sum(parts[c.card.id].values()))), parts


def topic_ids(session: Session, names: Sequence[str]) -> dict[str, int]:
    """``kind:slug`` → id, of the topic it went into where it was merged; one that is gone is left out."""
    found = {}
    for name in names:
        kind, _, slug = name.partition(":")
        for topic in ids_of(session, kind, {slug}):
            found[name] = topic
    return found


def terms(session: Session, wanted: Mapping[str, Any], topics: Collection[int]) -> dict[str, Any]:
    """What an edition keeps beside *wanted*: ids of the topics it names, and which of *topics* head sections."""
    kind = wanted.get("sections")
    heads = {t.id for t in catalogue.topic_rows(session, kind)} if kind else set()
    return {
        "topic_ids": topic_ids(session, selection.topics_in(wanted)),
        "headings": sorted(heads.intersection(topics)),
    }


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
