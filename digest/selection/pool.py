"""Which stories a reader gets: pure, over integers. No SQL, no clock, no rendering.

A pool is candidates in order, best first, grouped into stories. A set of stories is one integer (bit i = the i-th best
story), so that what is unseen, matching and within the limits is a few machine words: microseconds an outcome.

    Pool.pick(places, available)
    ├ choose    which stories: pins, then the places kept for sections, then the best that no cap keeps out
    └ lay out   in that order into their sections, until the mail has no room; sections in the site-wide order
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

from digest.selection.caps import Caps, Choice, Group, alike_masks, groups_of
from digest.selection.story import MORE, NOTHING, Limits, Outcome, Reason, Story, Verdict, bits


@dataclass(frozen=True)
class Pool:
    """Stories, best first, and the site-wide order of topics (ids); sections stand in that order.

    ``silent``: topics that are found by and counted, but head no section, such as hidden ones.
    """

    stories: Sequence[Story]
    topic_order: Sequence[int] = ()
    limits: Limits = field(default_factory=Limits)
    caps: Caps = field(default_factory=Caps)
    silent: frozenset[int] = frozenset()

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

    # ------------------------------------------------------------------------- what the caps say of this pool

    @cached_property
    def _binding(self) -> bool:
        return self.caps.binding

    @cached_property
    def _pinned(self) -> int:
        return sum(1 << i for i, s in enumerate(self.stories) if s.pinned)

    @cached_property
    def _silent(self) -> int:
        return sum(1 << self.rank_of[t] for t in self.silent if t in self.rank_of)

    @cached_property
    def _own_headings(self) -> int:
        return sum(1 << self.rank_of[t] for t in self.caps.sections if t in self.rank_of) & ~self._silent

    def _headings(self, places: int) -> int:
        """Places of the topics that head sections: what the reader chose, else what the digest says; 0: no sections."""
        return places & ~self._silent if places else self._own_headings

    @cached_property
    def _alike(self) -> list[int]:
        return alike_masks(self.stories, self.caps.alike) if self.caps.alike else []

    @cached_property
    def _groups(self) -> tuple[tuple[list[Group], list[list[int]]], ...]:
        """(groups, story → its groups), for those who chose no topics and for those who did."""
        both = (groups_of(self.stories, self.caps, personal=personal) for personal in (False, True))
        return tuple((groups, self._group_index(groups)) for groups in both)

    def _group_index(self, groups: Sequence[Group]) -> list[list[int]]:
        index: list[list[int]] = [[] for _ in self.stories]
        for n, group in enumerate(groups):
            for i in bits(group.mask):
                index[i].append(n)
        return index

    @cached_property
    def _own_sections(self) -> list[Group]:
        return self._limited(self._own_headings)

    def _limited(self, headings: int) -> list[Group]:
        """The sections that may overflow."""
        most = self.caps.section_max
        named = zip(bits(headings), self._section_masks(headings), strict=True)
        return [
            Group(mask, most, Reason.SECTION, ("topic", self._topic_at[place]))
            for place, mask in named
            if mask.bit_count() > most
        ]

    def _sections(self, places: int) -> list[Group]:
        if not self.caps.section_max:
            return []
        return self._limited(self._headings(places)) if places else self._own_sections

    def _section_masks(self, headings: int) -> list[int]:
        """The stories of each section, in the order of the sections: `_section` for all stories at once."""
        primary = 0
        for place in bits(headings):
            primary |= self._is_primary[place]
        masks, rest = [], self.everything & ~primary
        for place in bits(headings):
            masks.append(self._is_primary[place] | self._reach[place] & rest)
            rest &= ~self._reach[place]
        return masks

    @cached_property
    def _is_primary(self) -> list[int]:
        """Topic place → the stories whose primary category it is."""
        masks = [0] * len(self.rank_of)
        for i, bit in enumerate(self._primary_bit):
            if bit:
                masks[bit.bit_length() - 1] |= 1 << i
        return masks

    # ------------------------------------------------------------------------- picking

    def pick(self, places: int, available: int) -> Outcome:
        """The outcome for a taste's *places* and its *available* (unseen, reached) stories. Pure and deterministic."""
        wanted = min(available.bit_count(), self.limits.maximum)
        order: Iterable[int] = islice(bits(available), self.limits.maximum)
        if self._binding:
            order = taken = self._taken(places, available)
            wanted = len(taken)
        if wanted < self.limits.minimum:
            return NOTHING
        headings = self._headings(places)
        sections: dict[int, int] = {}
        room, shown = self.limits.room, 0
        for i in order:
            section = self._section(i, headings)
            cost = self.stories[i].cost + (self.limits.section_cost if section >= 0 and section not in sections else 0)
            if cost > room:
                break  # the order is kept: what finds no room now comes first next time
            room -= cost
            sections[section] = sections.get(section, 0) | 1 << i
            shown += 1
        picked = tuple((self._topic_at[s] if s >= 0 else 0, sections[s]) for s in sorted(sections))
        return (*picked, (MORE, wanted - shown)) if picked and shown < wanted else picked

    def choose(self, places: int, available: int) -> int:
        """The stories that limits and caps allow, the mail's room aside."""
        return sum(1 << i for i in self._taken(places, available))

    def had(self, places: int, available: int, lost: int) -> int:
        """How many of the *lost* stories, brought by other digests, a mail would have beside the *available* ones."""
        if self._binding:
            return (self.choose(places, available | lost) & lost).bit_count()
        beyond = available | lost
        for _ in range(min(self.limits.maximum, beyond.bit_count())):
            beyond &= beyond - 1
        return (lost & ~beyond).bit_count()

    def _taken(self, places: int, available: int) -> list[int]:
        """`choose`, in the order in which they get their room: places kept for a section are kept in the mail too."""
        if not self._binding:
            return list(islice(bits(available), self.limits.maximum))
        groups, index = self._groups[1 if places else 0]
        choice = Choice(available, self.limits.maximum, groups, index, self._sections(places), self._alike)
        choice.pins(available & self._pinned)
        if self.caps.section_min:
            choice.reserve(self._section_masks(self._headings(places)), self.caps.section_min)
        return choice.fill()

    def _section(self, story: int, headings: int) -> int:
        """Place of the section a story stands in: its primary category's if that is one, else the first; -1: none."""
        if not headings:
            return -1
        if headings & self._primary_bit[story]:
            return self._primary_bit[story].bit_length() - 1
        mine = headings & self._topic_bits[story]
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

    # ------------------------------------------------------------------------- explaining

    def explain(self, places: int, reach: int, seen: int, outcome: Outcome) -> dict[int, Verdict]:
        """Story id → its verdict: exactly one for every story of the pool."""
        shown, available = _shown(outcome), reach & ~seen
        chosen = self.choose(places, available)
        refused = self._refused(places, chosen)
        freely = self._shown_freely(places, available) if shown and self.caps.section_min else shown
        verdicts = {}
        for i, story in enumerate(self.stories):
            b = 1 << i
            if b & shown:
                reason = Reason.PICKED if b & freely else Reason.SECTION_PLACE
                verdicts[story.id] = Verdict("in", Reason.PINNED if story.pinned else reason)
            elif b & freely and i not in refused:
                verdicts[story.id] = Verdict("out", Reason.GAVE_WAY)
            else:
                verdicts[story.id] = self._left_out(i, reach, seen, chosen, refused)
        return verdicts

    def _shown_freely(self, places: int, available: int) -> int:
        """What a mail would show that kept no places for sections."""
        return _shown(replace(self, caps=replace(self.caps, section_min=0)).pick(places, available))

    def _left_out(self, i: int, reach: int, seen: int, chosen: int, refused: Mapping[int, Verdict]) -> Verdict:
        b = 1 << i
        if not b & reach:
            return Verdict("out", Reason.OTHER_TOPICS)
        if b & seen:
            return Verdict("out", Reason.SEEN)
        if b & chosen:
            return Verdict("out", Reason.MINIMUM if chosen.bit_count() < self.limits.minimum else Reason.NO_ROOM)
        return refused.get(i, Verdict("out", Reason.MAXIMUM))

    def _refused(self, places: int, chosen: int) -> dict[int, Verdict]:
        """Story's place → the cap that keeps it out beside the *chosen*."""
        if not self._binding:
            return {}
        groups, index = self._groups[1 if places else 0]
        full = [g.full(chosen) for g in groups]
        overflowing = [s for s in self._sections(places) if s.full(chosen)]
        refused = {}
        for i in bits(self.everything & ~chosen & ~self._pinned):
            cap = next((groups[n] for n in index[i] if full[n]), None)
            cap = cap or next((section for section in overflowing if 1 << i & section.mask), None)
            if cap is not None:
                refused[i] = Verdict("out", cap.reason, cap.by)
            elif self._alike and (near := self._alike[i] & chosen):
                refused[i] = Verdict("out", Reason.ALIKE, ("story", self.stories[next(bits(near))].id))
        return refused


def _shown(outcome: Outcome) -> int:
    """The stories of an outcome."""
    return sum(here for section, here in outcome if section != MORE)
