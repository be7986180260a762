"""What a digest asks for beyond a minimum and a maximum: quotas, caps, sections, no two alike. Pure, over integers.

A cap is a set of stories (an integer) and how many of them a mail may carry. When the last place of a cap is taken,
its whole set leaves what is still open: a choice costs a few machine words a story, however many caps there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from digest.selection.story import Reason, Story, bits

_WORD = re.compile(r"\w{3,}")
#: Topics say that two stories are alike only where both have at least so many.
_TELLING = 3


@dataclass(frozen=True, slots=True)
class Caps:
    """All of them hold in every mail; 0 and () ask for nothing. Pinned stories count, but no cap keeps them out.

    ``share``: most stories of one primary category, where the reader chose no topics. ``sections``: ids of the topics
    that head sections there. ``section_min``: places kept for each section before the rest is filled. ``alike``: in
    per cent; of two stories that are so much alike only the better one goes in.
    """

    quotas: tuple[tuple[int, int], ...] = ()  # (topic id, most)
    share: int = 0
    per_author: int = 0
    per_source: int = 0
    section_min: int = 0
    section_max: int = 0
    sections: frozenset[int] = frozenset()
    alike: int = 0

    @property
    def binding(self) -> bool:
        """False: the best are taken as they come."""
        return bool(
            self.quotas or self.share or self.per_author or self.per_source or self.section_min or self.section_max
            or self.alike
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """At most ``most`` of the stories of ``mask``."""

    mask: int
    most: int
    reason: Reason
    by: tuple[str, Hashable]  # as `Verdict.by`

    def full(self, chosen: int) -> bool:
        return (chosen & self.mask).bit_count() >= self.most


def groups_of(stories: Sequence[Story], caps: Caps, *, personal: bool) -> list[Group]:
    """The caps of a pool that can bite. *personal*: for a reader who chose topics, whom no share holds."""
    about = _masks(stories, lambda s: s.topics)
    found = [Group(about[topic], most, Reason.QUOTA, ("topic", topic)) for topic, most in caps.quotas if topic in about]
    if caps.share and not personal:
        masks = _masks(stories, lambda s: [] if s.primary is None else [s.primary])
        found += [Group(mask, caps.share, Reason.SHARE, ("topic", topic)) for topic, mask in masks.items()]
    if caps.per_author:
        spelled: dict[Hashable, str] = {a.casefold(): a for s in reversed(stories) for a in s.authors}
        masks = _masks(stories, lambda s: {a.casefold() for a in s.authors})
        found += [Group(m, caps.per_author, Reason.AUTHOR, ("author", spelled[a])) for a, m in masks.items()]
    if caps.per_source:
        masks = _masks(stories, lambda s: [] if s.source is None else [s.source])
        found += [Group(mask, caps.per_source, Reason.SOURCE, ("source", source)) for source, mask in masks.items()]
    return [g for g in found if g.mask.bit_count() > g.most]


def _masks(stories: Sequence[Story], of: Callable[[Story], Iterable[Hashable]]) -> dict[Hashable, int]:
    masks: dict[Hashable, int] = {}
    for i, story in enumerate(stories):
        for key in of(story):
            masks[key] = masks.get(key, 0) | 1 << i
    return masks


def alike_masks(stories: Sequence[Story], percent: int) -> list[int]:
    """Story → the stories so much like it: words of the titles in common, or topics where both have three."""
    places: dict[str, int] = {}
    words, topics = [], []
    topic_place: dict[int, int] = {}
    for story in stories:
        found = {w for w in _WORD.findall(story.title.casefold()) if not w.isdigit()}
        words.append(sum(1 << places.setdefault(w, len(places)) for w in found))
        topics.append(sum(1 << topic_place.setdefault(t, len(topic_place)) for t in story.topics))
    masks = [0] * len(stories)
    for i, (mine, about) in enumerate(zip(words, topics, strict=True)):
        for j in range(i):
            if _near(mine, words[j], percent, 1) or _near(about, topics[j], percent, _TELLING):
                masks[i] |= 1 << j
                masks[j] |= 1 << i
    return masks


def _near(a: int, b: int, percent: int, least: int) -> bool:
    """Jaccard in integers: no float decides."""
    if min(a.bit_count(), b.bit_count()) < least:
        return False
    return (a & b).bit_count() * 100 >= percent * (a | b).bit_count()


class Choice:
    """One choice under way. ``open``: what may still be taken; ``places``: how many more; ``order``: as taken."""

    __slots__ = ("_alike", "_groups", "_left", "_of", "_sections", "chosen", "open", "order", "places")

    def __init__(
        self,
        available: int,
        maximum: int,
        groups: Sequence[Group],
        of: Sequence[Sequence[int]],
        sections: Sequence[Group],
        alike: Sequence[int],
    ) -> None:
        self.open, self.chosen, self.places, self.order = available, 0, maximum, list[int]()
        self._groups, self._of, self._sections, self._alike = groups, of, sections, alike
        self._left = [g.most for g in groups]

    def take(self, i: int) -> None:
        b = 1 << i
        self.chosen |= b
        self.order.append(i)
        self.open &= ~b
        self.places -= 1
        left = self._left
        for g in self._of[i]:
            left[g] -= 1
            if left[g] <= 0:
                self.open &= ~self._groups[g].mask
        for section in self._sections:  # no story stands in two
            if b & section.mask:
                if section.full(self.chosen):
                    self.open &= ~section.mask
                break
        if self._alike:
            self.open &= ~self._alike[i]

    def pins(self, pinned: int) -> None:
        """Whatever the caps say: an editor does."""
        for i in bits(pinned):
            if not self.places:
                return
            self.take(i)

    def reserve(self, sections: Sequence[int], least: int) -> None:
        """One story for each section in turn, until each has *least* or nothing more to give."""
        for n in range(1, least + 1):
            for section in sections:
                here = self.open & section
                if here and self.places and (self.chosen & section).bit_count() < n:
                    self.take((here & -here).bit_length() - 1)

    def fill(self) -> list[int]:
        """The best of what is open, until no place is left. Returns all that was taken, in that order."""
        while self.places and self.open:
            self.take((self.open & -self.open).bit_length() - 1)
        return self.order
