"""What picking talks of: a story of the pool, the limits of a mail, an outcome, and the reasons for it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from digest.types import HTML_BUDGET


class Reason(StrEnum):
    """Why a candidate is in or out of one outcome."""

    PICKED = "picked"
    PINNED = "pinned by an editor"
    SECTION_PLACE = "in a place kept for its section"
    ALSO = "also"  # shown as a near-duplicate of the article above
    SEEN = "already in an earlier edition"
    FRESH = "still in its grace period"
    OTHER_TOPICS = "not of the chosen topics"
    QUOTA = "over the quota of its topic"
    SHARE = "over the share of its category"
    AUTHOR = "enough by its author already"
    SOURCE = "enough from its source already"
    SECTION = "its section is full"
    ALIKE = "much like another story of the mail"
    MAXIMUM = "over the maximum"
    GAVE_WAY = "its place was kept for another section"
    NO_ROOM = "no room left in the mail"
    MINIMUM = "under the minimum"
    EXCLUDED = "removed by an editor"
    GONE = "no longer published"
    CHANGED = "no longer taken by the rule"


class Verdict(NamedTuple):
    """A story is ``in`` or ``out``, and why.

    ``by``: what keeps it out, where that has a name: ("topic", id), ("author", name), ("source", id) or ("story", id).
    """

    word: str
    reason: Reason
    by: tuple[str, Hashable] | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """A story of the pool. ``articles``: ids, the one shown first; ``topics``: of all of them, ancestors included.

    ``primary``: topic id of the lead's primary category; ``cost``: bytes of its card in the mail. ``authors``,
    ``source`` and ``title`` are the lead's. ``pinned``: by an editor; taken before all others, whatever the caps say.
    """

    id: int
    articles: tuple[int, ...]
    topics: frozenset[int]
    primary: int | None = None
    cost: int = 0
    authors: tuple[str, ...] = ()
    source: int | None = None
    title: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """``room``: bytes for cards and section heads; ``section_cost``: of one head (heads differ by their names only)."""

    minimum: int = 1
    maximum: int = 12
    room: int = HTML_BUDGET
    section_cost: int = 0


#: ((section topic id, story bits), …) in the order of the mail; () = under the minimum. Section 0 has no heading.
#: A last (MORE, n) says that n more found no room in the mail.
Outcome = tuple[tuple[int, int], ...]
MORE = -1
NOTHING: Outcome = ()


def bits(x: int) -> Iterator[int]:
    """Positions of the ones of *x*, lowest first."""
    while x:
        low = x & -x
        yield low.bit_length() - 1
        x ^= low


@dataclass(frozen=True, slots=True)
class StoryPart:
    """One candidate, as grouping sees it."""

    article_id: int
    story_id: int
    topics: frozenset[int]
    primary: int | None = None
    cost: int = 0
    authors: tuple[str, ...] = ()
    source: int | None = None
    title: str = ""
    pinned: bool = False


def group_stories(candidates: Sequence[StoryPart]) -> list[Story]:
    """Candidates, best first, → stories, best first; the best article of each is shown, the others are "also"."""
    grouped: dict[int, list[StoryPart]] = {}
    for candidate in candidates:
        grouped.setdefault(candidate.story_id, []).append(candidate)
    return [
        Story(
            id=story,
            articles=tuple(p.article_id for p in parts),
            topics=frozenset().union(*(p.topics for p in parts)),
            primary=parts[0].primary,
            cost=sum(p.cost for p in parts),
            authors=parts[0].authors,
            source=parts[0].source,
            title=parts[0].title,
            pinned=parts[0].pinned,
        )
        for story, parts in grouped.items()
    ]
