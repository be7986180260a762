"""What the reasons of a pool name, in words: the topic, the author, the story, the edition that kept one out.

Owns the words beside a reason. Which reason holds is decided by `digest.selection`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import schedules
from digest.models import Digest, Edition, Source, Topic
from digest.selection import Pool, Reason, Verdict, bits

_TITLE = 80  # characters of a story's headline


def told_by(
    session: Session, pool: Pool, verdicts: Mapping[int, Verdict], earlier: Mapping[int, int]
) -> dict[int, str]:
    """Story id → what its reason names; stories whose reason names nothing are left out.

    *earlier*: edition → bits of the stories that it had.
    """
    named = {by for by in (v.by for v in verdicts.values()) if by is not None}
    words: dict[Any, str] = {("author", key): str(key) for kind, key in named if kind == "author"}
    topics = select(Topic.id, Topic.kind, Topic.slug).where(Topic.id.in_([k for kind, k in named if kind == "topic"]))
    words |= {("topic", topic): f"{kind}:{slug}" for topic, kind, slug in session.execute(topics)}
    sources = select(Source.id, Source.slug).where(Source.id.in_([k for kind, k in named if kind == "source"]))
    words |= {("source", source): slug for source, slug in session.execute(sources)}
    words |= {("story", s.id): f"“{_cut(s.title)}”" for s in pool.stories if ("story", s.id) in named}
    details = {story: words[v.by] for story, v in verdicts.items() if v.by in words}
    editions = _editions(session, earlier)
    for edition in sorted(earlier):
        for story in (pool.stories[i].id for i in bits(earlier[edition] & pool.everything)):
            if verdicts[story].reason is Reason.SEEN:
                details[story] = editions[edition]
    return details


def _editions(session: Session, ids: Collection[int]) -> dict[int, str]:
    """What an editor knows an edition by."""
    rows = session.execute(
        select(Edition.id, Edition.instant, Edition.zone, Digest.slug)
        .join(Digest, Digest.id == Edition.digest_id)
        .where(Edition.id.in_(list(ids)))
    )
    return {
        edition: f"{slug} of {instant.astimezone(schedules.zone(zone)):%Y-%m-%d}, edition {edition}"
        for edition, instant, zone, slug in rows
    }


def _cut(title: str) -> str:
    return title if len(title) <= _TITLE else f"{title[: _TITLE - 1].rstrip()}…"
