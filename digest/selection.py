"""Which stories a reader gets: pure, over integers. No SQL, no clock, no rendering.

A pool is candidates in order, best first, grouped into stories. A set of stories is one integer (bit i = the i-th best
story), so that what is unseen, matching and within the limits is a few machine words: about a microsecond an outcome.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import islice

#: Decoded HTML a mail may have; Gmail cuts at about 102,000.
HTML_BUDGET = 95_000


class Reason(StrEnum):
    """Why a candidate is in or out of one outcome."""

    PICKED = "picked"
    ALSO = "also"  # shown as a near-duplicate of the article above
    SEEN = "already in an earlier edition"
    FRESH = "still in its grace period"
    OTHER_TOPICS = "not of the chosen topics"
    MAXIMUM = "over the maximum"
    NO_ROOM = "no room left in the mail"
    MINIMUM = "under the minimum"
    EXCLUDED = "removed by an editor"
    GONE = "no longer published"


@dataclass(frozen=True, slots=True)
class Story:
    """A story of the pool. ``articles``: ids, the one shown first; ``topics``: of all of them, ancestors included.

    ``primary``: topic id of the lead's primary category; ``cost``: bytes of its card in the mail.
    """

    id: int
    articles: tuple[int, ...]
    topics: frozenset[int]
    primary: int | None = None
    cost: int = 0


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


@dataclass(frozen=True)
class Pool:
    """Stories, best first, and the site-wide order of topics (ids); sections stand in that order."""

    stories: Sequence[Story]
    topic_order: Sequence[int] = ()
    limits: Limits = field(default_factory=Limits)

    @cached_property
    def everything(self) -> int:
        return (1 << len(self.stories)) - 1

    @cached_property
    def rank_of(self) -> dict[int, int]:
        """Topic id → its place among the topics that occur in this pool; places are the bits of a topic set."""
        here = frozenset().union(*(s.topics for s in self.stories)) if self.stories else frozenset()
        order = [t for t in self.topic_order if t in here]
        order += sorted(here.difference(order))
        return {t: i for i, t in enumerate(order)}

    @cached_property
    def _topic_at(self) -> list[int]:
        return list(self.rank_of)

    @cached_property
    def _reach(self) -> list[int]:
        """Topic place → the stories that have it."""
        reach = [0] * len(self.rank_of)
        for i, story in enumerate(self.stories):
            for topic in story.topics:
                reach[self.rank_of[topic]] |= 1 << i
        return reach

    @cached_property
    def _topic_bits(self) -> list[int]:
        return [sum(1 << self.rank_of[t] for t in s.topics) for s in self.stories]

    @cached_property
    def _primary_bit(self) -> list[int]:
        return [1 << self.rank_of[s.primary] if s.primary in self.rank_of else 0 for s in self.stories]

    @cached_property
    def bit_of(self) -> dict[int, int]:
        """Story id → its bit."""
        return {s.id: 1 << i for i, s in enumerate(self.stories)}

    def taste(self, topics: Collection[int]) -> tuple[int, int]:
        """A set of topic ids → (its places here, the stories it reaches). No topics: the whole digest, as (0, all)."""
        if not topics:
            return 0, self.everything
        places = sum(1 << self.rank_of[t] for t in topics if t in self.rank_of)
        reach = 0
        for place in bits(places):
            reach |= self._reach[place]
        return places, reach

    def pick(self, places: int, available: int) -> Outcome:
        """The outcome for a taste's *places* and its *available* (unseen, reached) stories. Pure and deterministic."""
        if available.bit_count() < self.limits.minimum:
            return NOTHING
        sections: dict[int, int] = {}
        room, shown = self.limits.room, 0
        for i in islice(bits(available), self.limits.maximum):
            section = self._section(i, places)
            cost = self.stories[i].cost + (self.limits.section_cost if section >= 0 and section not in sections else 0)
            if cost > room:
                break  # the order is kept: what finds no room now comes first next time
            room -= cost
            sections[section] = sections.get(section, 0) | 1 << i
            shown |= 1 << i
        picked = tuple((self._topic_at[s] if s >= 0 else 0, sections[s]) for s in sorted(sections))
        wanted = min(available.bit_count(), self.limits.maximum)
        if picked and shown.bit_count() < wanted:
            return (*picked, (MORE, wanted - shown.bit_count()))
        return picked

    def _section(self, story: int, places: int) -> int:
        """Place of the section a story stands in: its primary category's if chosen, else the first; -1: no sections."""
        if not places:
            return -1
        if places & self._primary_bit[story]:
            return self._primary_bit[story].bit_length() - 1
        mine = places & self._topic_bits[story]
        return (mine & -mine).bit_length() - 1

    def items(self, outcome: Outcome) -> list[tuple[int, int]]:
        """(article id, section topic id) of an outcome, in the order of the mail; "also" articles follow their lead.

        Shown and also alike are claims: neither comes to this reader again. Article 0 stands for "and n more", n in
        the section's place: it claims nothing.
        """
        items: list[tuple[int, int]] = []
        for section, here in outcome:
            if section == MORE:
                items.append((0, here))
            else:
                items += [(a, section) for i in bits(here) for a in self.stories[i].articles]
        return items

    def explain(self, places: int, reach: int, seen: int, outcome: Outcome) -> dict[int, tuple[str, Reason]]:
        """Story id → (in | out, reason): exactly one for every story of the pool."""
        shown = 0
        for section, here in outcome:
            shown |= here if section != MORE else 0
        available = reach & ~seen
        full = shown.bit_count() == self.limits.maximum
        verdicts = {}
        for i, story in enumerate(self.stories):
            verdicts[story.id] = self._verdict(1 << i, reach, seen, shown, available, full)
        return verdicts

    def _verdict(self, b: int, reach: int, seen: int, shown: int, available: int, full: bool) -> tuple[str, Reason]:
        if b & shown:
            return "in", Reason.PICKED
        if not b & reach:
            return "out", Reason.OTHER_TOPICS
        if b & seen:
            return "out", Reason.SEEN
        if available.bit_count() < self.limits.minimum:
            return "out", Reason.MINIMUM
        return "out", Reason.MAXIMUM if full else Reason.NO_ROOM


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
        )
        for story, parts in grouped.items()
    ]


@dataclass(frozen=True, slots=True)
class StoryPart:
    """One candidate, as grouping sees it."""

    article_id: int
    story_id: int
    topics: frozenset[int]
    primary: int | None = None
    cost: int = 0


def story_bits(items: Sequence[tuple[int, int]], bit_of_article: Mapping[int, int]) -> int:
    """What of today's pool an earlier variant carried. *bit_of_article* follows today's story map."""
    seen = 0
    for article, _ in items:
        seen |= bit_of_article.get(article, 0)
    return seen
