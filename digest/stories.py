"""Which articles tell the same news: pure decisions over headlines, clues, bodies and dates.

    compare     two articles → the rule by which they are one story, or None
    Board       the articles around some that changed → which stories they join, and why

A story has a representative, the first that told it; each other member matched it, so nothing chains. Articles are
looked at in the order they came out, and each joins the earliest story that it matches and that has room: the outcome
follows from the articles and the editor's word alone, not from the order in which sources brought them. What a change
cannot reach is not looked at again.

Owns the rules and their thresholds. Knows no SQL: rows and bodies are handed in by two functions.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain, islice, pairwise
from typing import TypeVar

from rapidfuzz.fuzz import token_set_ratio

from digest.text import without_publisher
from digest.types import StoryPiece, StoryPlace, StoryRule

T = TypeVar("T")

#: Titles alone, and titles with bodies, speak of news that is this close in time.
WINDOW = timedelta(hours=72)
#: The very same headline, clue or address may come back for a week.
LONG_WINDOW = timedelta(days=7)
#: A story takes no more articles by itself; an editor may add to it.
CAP = 8
#: Words from which a body is one, and not a teaser.
FULL_BODY = 60
_CLUE_WORDS = 4
_BODY_ALIKE = 0.35
_BODIES_HELD = 400  # a board keeps no more in mind: some 20 MB
_AT_ONCE = 50  # articles whose comparisons are read for in one go
_BODY_CHARS = 40_000  # what is compared of a body: more tells nothing new


# ----------------------------------------------------------------------------- headlines


@dataclass(frozen=True, slots=True)
class Headline:
    """A headline as it is compared. ``words``: those that mean something; ``numbers``: what tells parts and days apart.

    ``series``: what stands before a colon; ``rest``: ``words`` without it. ``sorted``: ``words`` in one line.
    """

    plain: str
    words: frozenset[str]
    series: str
    rest: frozenset[str]
    numbers: frozenset[str]
    sorted: str


_STOP_WORDS = """
a about after again all also am an and any are as at be been before being but by can could did do does down for from
had has have he her here his how i if in into is it its itself just me more most my new no nor not now of off on once
only or our out over own s said say says set she should so some still such t than that the their them then there these
they this those to too under until up very was we were what when where which while who why will with would you your
der die das den dem des ein eine einer eines einem einen und oder aber auf aus bei mit nach von vor zu zum zur im ist
sind war wird werden nicht auch für über um als wie sich le la les un une du de des et ou dans en sur pour par avec au
aux est sont el los las del al y que se con su lo o da do dos das em na no um uma il gli di che per
"""
_STOP = frozenset(_STOP_WORDS.split())
_DAYS = (
    "monday tuesday wednesday thursday friday saturday sunday january february april june july august september october"
    " november december one two three four five six seven eight nine ten eleven twelve ii iii iv vi vii viii ix"
)
_NUMBER_WORDS = frozenset(_DAYS.split())
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'"})
_POSSESSIVE = re.compile(r"(?<=\w)'s?\b|(?<=s)'(?=\s|$)")
_ABBREVIATED = re.compile(r"\b(?:[^\W\d_]\.){2,}")
_WORD = re.compile(r"\d+(?:[.,:/]\d+)*(?!\w)|\w+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]{3,}")
_DIGITS = re.compile(r"\d+(?:[.,:/-]\d+)*")
_SERIES = re.compile(r"^\s*(\S+(?:\s+\S+){0,4}?)\s*:\s+(?=\S+\s+\S+)")


@lru_cache(maxsize=8_192)
def headline(title: str) -> Headline:
    """*title* as it is compared: compatibility forms folded, possessives and punctuation off, lower case."""
    folded = unicodedata.normalize("NFKC", title).translate(_APOSTROPHES)
    cut = without_publisher(folded)
    tokens, series = _tokens(cut), _SERIES.match(cut)
    rest = _telling(_tokens(cut[series.end() :])) if series else _telling(tokens)
    numbers = {n.replace(",", ".") for n in _DIGITS.findall(folded)}
    numbers |= _NUMBER_WORDS.intersection(_tokens(folded))
    before = " ".join(_tokens(series[1])) if series else ""
    words = _telling(tokens)
    return Headline(" ".join(tokens), words, before, rest, frozenset(numbers), " ".join(sorted(words)))


def _tokens(text: str) -> list[str]:
    text = _ABBREVIATED.sub(lambda m: m[0].replace(".", ""), text)
    text = _POSSESSIVE.sub("", text).casefold()
    return _WORD.findall(text if text.isascii() else _UNSPACED.sub(_in_pairs, text))


def _in_pairs(run: re.Match[str]) -> str:
    """Scripts that put no spaces between words: each two letters stand for one."""
    return " ".join(map("".join, pairwise(run[0])))


def _telling(tokens: Iterable[str]) -> frozenset[str]:
    words = frozenset(tokens)
    return words - _STOP or words


def overlap(a: frozenset[T], b: frozenset[T]) -> float:
    """Jaccard: the share of what either has that both have."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def likeness(a: Iterable[str], b: Iterable[str]) -> float:
    """How alike two sets of words are to the letter, 0 to 100, what only one of them has more of forgiven."""
    return token_set_ratio(" ".join(sorted(a)), " ".join(sorted(b)))


# ----------------------------------------------------------------------------- bodies

Shingles = frozenset[int]


def shingles(text: str) -> Shingles:
    """A body as its runs of three words (as hashes, for this process alone)."""
    text = text[:_BODY_CHARS].casefold()
    words = re.findall(r"\w+", text if text.isascii() else _UNSPACED.sub(_in_pairs, text))
    return frozenset(map(hash, zip(words, words[1:], words[2:], strict=False)))


# ----------------------------------------------------------------------------- two articles


Bodies = Callable[[int], Shingles]


def compare(a: StoryPiece, b: StoryPiece, bodies: Bodies) -> StoryRule | None:
    """The rule by which *a* and *b* tell the same news; the order of the two does not matter."""
    apart = abs(a.published_at - b.published_at)
    if apart > LONG_WINDOW:
        return None
    one, two = headline(a.title), headline(b.title)
    if _same_address(a, b) and one.words & two.words:
        return StoryRule.URL
    if _same_clue(a, b):
        return StoryRule.CLUE
    if one.plain == two.plain and one.numbers == two.numbers and _same_text(a, b, len(one.words), bodies):
        return StoryRule.TITLE
    if apart > WINDOW:
        return None
    full = a.word_count >= FULL_BODY and b.word_count >= FULL_BODY
    if _titles_alike(one, two) and a.word_count and b.word_count and _bodies_alike(a, b, bodies):
        return StoryRule.BODY
    return StoryRule.GUARDED_TITLE if not full and _titles_equal_but_for_words(one, two) else None


def _same_address(a: StoryPiece, b: StoryPiece) -> bool:
    """A home page is the address of nothing, even where every link of a feed leads there."""
    return a.canonical_url == b.canonical_url and a.canonical_url.partition("://")[2].partition("/")[2] != ""


def _same_clue(a: StoryPiece, b: StoryPiece) -> bool:
    if a.clue_url is not None and a.clue_url in (b.clue_url, b.canonical_url):
        return True
    if b.clue_url is not None and b.clue_url == a.canonical_url:
        return True
    if a.clue_title is None or b.clue_title is None:
        return False
    one, two = headline(a.clue_title), headline(b.clue_title)
    return one.plain == two.plain and one.numbers == two.numbers and len(one.plain.split()) >= _CLUE_WORDS


def _same_text(a: StoryPiece, b: StoryPiece, words: int, bodies: Bodies) -> bool:
    """What must hold besides an equal headline: bodies alike, or one missing beneath a headline that says enough."""
    if min(a.word_count, b.word_count) >= FULL_BODY:
        return _bodies_alike(a, b, bodies)
    return words >= _CLUE_WORDS or (a.word_count > 0 and b.word_count > 0 and _bodies_alike(a, b, bodies))


def _need_bodies(a: StoryPiece, b: StoryPiece) -> bool:
    """Whether `compare` is likely to ask for the bodies of these two."""
    one, two = headline(a.title), headline(b.title)
    if one.plain == two.plain:
        return True
    return abs(a.published_at - b.published_at) <= WINDOW and _titles_alike(one, two)


def _bodies_alike(a: StoryPiece, b: StoryPiece, bodies: Bodies) -> bool:
    return overlap(bodies(a.id), bodies(b.id)) >= _BODY_ALIKE


def _titles_alike(one: Headline, two: Headline) -> bool:
    if len(one.words & two.words) < 3 or overlap(one.words, two.words) < 0.30:
        return False
    return token_set_ratio(one.sorted, two.sorted) >= 75


def _titles_equal_but_for_words(one: Headline, two: Headline) -> bool:
    """Headlines that must speak for themselves, a body being missing: "part 1" is not "part 2".

    The name of a series that both belong to is no likeness.
    """
    a, b = (one.rest, two.rest) if one.series == two.series else (one.words, two.words)
    if one.numbers != two.numbers or len(a & b) < 4 or overlap(a, b) < 0.5:
        return False
    return likeness(a, b) >= 85


# ----------------------------------------------------------------------------- the editor's word


class Edits:
    """What an editor said of pairs of articles. Those merged are one, so that a split of one is a split of them."""

    def __init__(self) -> None:
        self.partners: dict[int, set[int]] = defaultdict(set)
        self._apart: dict[int, set[int]] = defaultdict(set)

    def add(self, merged: Iterable[tuple[int, int]] = (), split: Iterable[tuple[int, int]] = ()) -> None:
        for pairs, of in ((merged, self.partners), (split, self._apart)):
            for a, b in pairs:
                of[a].add(b)
                of[b].add(a)

    def known(self, article: int) -> bool:
        return article in self.partners or article in self._apart

    def forbid(self, article: int, members: Iterable[int]) -> bool:
        """Whether *article*, or one that it was merged with, was split from one of *members* or of theirs."""
        if not self._apart:
            return False
        own = {article, *self.partners.get(article, ())}
        apart = {other for one in own for other in self._apart.get(one, ())}
        return bool(apart) and any(not apart.isdisjoint({m, *self.partners.get(m, ())}) for m in members)


# ----------------------------------------------------------------------------- stories


@dataclass(frozen=True, slots=True)
class Found:
    """Articles of a span of time, and what an editor said of them: whom that ties to others is among them too."""

    pieces: Sequence[StoryPiece]
    merged: Sequence[tuple[int, int]] = ()
    split: Sequence[tuple[int, int]] = ()


Fetch = Callable[[datetime, datetime], Found]
ReadBodies = Callable[[Sequence[int]], Mapping[int, str]]


class Board:
    """Articles around those that changed, an inverted index over them, and where each of them belongs.

    *fetch* gives the articles of a span of time, *read* the texts of some. `settle` looks again at what changed and at
    whatever that moves, in the order of telling, and tells what is to be written.
    """

    def __init__(self, fetch: Fetch, read: ReadBodies) -> None:
        self._fetch, self._read, self._edits = fetch, read, Edits()
        self._pieces: dict[int, StoryPiece] = {}
        self._places: dict[int, StoryPlace] = {}
        self._members: dict[int, set[int]] = defaultdict(set)
        self._spans: list[tuple[datetime, datetime]] = []
        self._by_word: dict[str, list[int]] = defaultdict(list)
        self._by_sign: dict[str, list[int]] = defaultdict(list)
        self._shingles: dict[int, Shingles] = {}
        self._others: dict[int, list[int]] = {}
        self._near: dict[int, dict[int, StoryRule]] = {}

    def settle(self, changed: Sequence[StoryPiece], companions: Sequence[StoryPiece] = ()) -> dict[int, StoryPlace]:
        """Look again at what *changed* and at what follows from it. Returns the places that moved.

        *companions*: the others of their stories, for an article that was given another date may have left them.
        """
        self._add([*changed, *companions])
        self._see(_around(piece) for piece in changed)
        before = {p.id: _place(p) for p in changed}
        fresh = {piece.id for piece in changed}
        waiting = [self._pieces[i].key for i in fresh.union(*(self._members[before[f].story] for f in fresh))]
        heapq.heapify(waiting)
        last, ahead = None, iter(sorted(fresh, key=lambda i: self._pieces[i].key))
        while waiting:
            key = heapq.heappop(waiting)
            if key == last:
                continue
            last, article = key, key[-1]
            if article in fresh and article not in self._near and article not in self._others:
                self._look_ahead(article, ahead)
            before.setdefault(article, self._places[article])
            moved = self._put(article, self._decide(self._pieces[article]))
            for later in self._after(article, moved, article in fresh):
                heapq.heappush(waiting, self._pieces[later].key)
        return {i: self._places[i] for i, place in before.items() if place != self._places[i]}

    # ------------------------------------------------------------------ what is known

    def _add(self, pieces: Iterable[StoryPiece]) -> None:
        for piece in pieces:
            if piece.id in self._pieces:
                continue
            self._pieces[piece.id] = piece
            self._places[piece.id] = place = _place(piece)
            self._members[place.story].add(piece.id)
            for word in headline(piece.title).words:
                self._by_word[word].append(piece.id)
            for sign in _signs(piece):
                self._by_sign[sign].append(piece.id)

    def _see(self, spans: Iterable[tuple[datetime, datetime]]) -> None:
        """Have all articles of these spans of time on the board."""
        missing = [s for s in spans if not any(low <= s[0] and s[1] <= high for low, high in self._spans)]
        for low, high in _joined(missing):
            found = self._fetch(low, high)
            self._add(found.pieces)
            self._edits.add(found.merged, found.split)
        self._spans = _joined([*self._spans, *missing])

    def _text(self, article: int) -> Shingles:
        if article not in self._shingles:
            self._shingles[article] = shingles(self._read([article]).get(article, ""))
        return self._shingles[article]

    def _open(self, articles: Iterable[int]) -> None:
        """Read bodies that are about to be compared, in one go."""
        if len(self._shingles) > _BODIES_HELD:
            self._shingles.clear()
        wanted = [a for a in dict.fromkeys(articles) if a not in self._shingles]
        if wanted:
            self._shingles.update((a, shingles(text)) for a, text in self._read(wanted).items())

    # ------------------------------------------------------------------ who is like whom

    def _neighbours(self, article: int) -> Mapping[int, StoryRule]:
        """Articles that match this one, and by which rule."""
        if article not in self._near:
            piece = self._pieces[article]
            self._see([_around(piece)])
            found, others = {}, self._others.pop(article, None)
            if others is None:
                others = self._alike(piece)
                self._open(self._to_read(piece, others))
            for other in others:
                rule = compare(piece, self._pieces[other], self._text)
                if rule is not None:
                    found[other] = rule
            self._near[article] = found
        return self._near[article]

    def _look_ahead(self, article: int, ahead: Iterator[int]) -> None:
        """Find whom this article and those that follow have to be compared with, and read all their bodies at once."""
        wanted: list[int] = []
        for each in dict.fromkeys((article, *islice(ahead, _AT_ONCE))):
            if each not in self._near:
                piece = self._pieces[each]
                self._others[each] = self._alike(piece)
                wanted += self._to_read(piece, self._others[each])
            if len(wanted) > _BODIES_HELD:
                break
        self._open(wanted)

    def _to_read(self, piece: StoryPiece, others: Iterable[int]) -> list[int]:
        """The bodies that comparing *piece* with *others* will ask for."""
        asked = [other for other in others if _need_bodies(piece, self._pieces[other])]
        return [piece.id, *asked] if asked else []

    def _alike(self, piece: StoryPiece) -> list[int]:
        """Articles that share three words of the headline, the whole of it, a clue or the address."""
        words = headline(piece.title).words
        shared = Counter(chain.from_iterable(self._by_word.get(word, ()) for word in words))
        found = {o for sign in _signs(piece) for o in self._by_sign.get(sign, ())}
        found.update(
            other
            for other, count in shared.items()
            if count >= 3 and overlap(words, headline(self._pieces[other].title).words) >= 0.30
        )
        found.discard(piece.id)
        return [o for o in found if abs(self._pieces[o].published_at - piece.published_at) <= LONG_WINDOW]

    # ------------------------------------------------------------------ who belongs where

    def _decide(self, piece: StoryPiece) -> StoryPlace:
        """Where *piece* belongs, given that all that came before it are in their places."""
        partners = [p for p in self._edits.partners.get(piece.id, ()) if p in self._pieces]
        first = min((self._pieces[p].key for p in partners), default=None)
        if first is not None and first < piece.key:
            return StoryPlace(self._places[first[-1]].story, StoryRule.EDITOR, first[-1])
        near = self._neighbours(piece.id)
        for other in sorted((self._pieces[n] for n in near), key=lambda p: p.key):
            if other.key > piece.key:
                break
            place = self._places[other.id]
            if place.rule not in (None, StoryRule.EDITOR):
                continue  # matched a member, not a representative: stories do not chain
            if self._has_room(place.story, piece):
                return StoryPlace(place.story, near[other.id], other.id)
        return StoryPlace(piece.id)

    def _has_room(self, story: int, piece: StoryPiece) -> bool:
        earlier = [m for m in self._members[story] if m != piece.id and self._pieces[m].key < piece.key]
        return len(earlier) < CAP and not self._edits.forbid(piece.id, earlier)

    def _put(self, article: int, place: StoryPlace) -> set[int]:
        """Put an article into its place; returns the stories that it left and joined, if it moved."""
        old = self._places[article]
        self._places[article] = place
        if old.story == place.story:
            return {place.story} if old.rule != place.rule else set()
        self._members[old.story].discard(article)
        self._members[place.story].add(article)
        return {old.story, place.story}

    def _after(self, article: int, moved: set[int], changed: bool) -> Iterator[int]:
        """What has to be looked at again, all of it later than *article*: nothing that came before depends on it."""
        key = self._pieces[article].key
        concerned: set[int] = set()
        if moved or changed:
            concerned |= set(self._neighbours(article)) | self._edits.partners.get(article, set())
        for story in moved:
            concerned |= self._members[story]
            if len(self._members[story]) >= CAP - 1 or self._edits.known(article):  # its room has changed
                for teller in self._tellers(story):
                    concerned |= set(self._neighbours(teller))
        return (c for c in concerned if c in self._pieces and self._pieces[c].key > key)

    def _tellers(self, story: int) -> list[int]:
        """The representative, and whom an editor put beside it."""
        return [m for m in self._members[story] if self._places[m].rule in (None, StoryRule.EDITOR)]


def _place(piece: StoryPiece) -> StoryPlace:
    return StoryPlace(piece.story, piece.rule, piece.matched)


def _around(piece: StoryPiece) -> tuple[datetime, datetime]:
    return piece.published_at - LONG_WINDOW, piece.published_at + LONG_WINDOW


def _signs(piece: StoryPiece) -> Iterator[str]:
    """What an article is found by, besides the words of its headline."""
    yield "t" + headline(piece.title).plain
    yield "u" + piece.canonical_url
    if piece.clue_url is not None:
        yield "u" + piece.clue_url
    if piece.clue_title is not None:
        yield "c" + headline(piece.clue_title).plain


def _joined(spans: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Spans of time, those that touch made one."""
    joined: list[tuple[datetime, datetime]] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(high, joined[-1][1])
        else:
            joined.append((low, high))
    return joined
