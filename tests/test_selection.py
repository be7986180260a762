"""Picking over integers: what is in, what is out, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digest.errors import UsageError
from digest.selection import (
    MORE,
    NOTHING,
    Caps,
    Limits,
    Pool,
    Reason,
    Scored,
    Story,
    StoryPart,
    Wishes,
    bits,
    caps_of,
    changed,
    group_stories,
    half_life,
    in_words,
    parts,
    topics_in,
)


def pool(*topics: set[int], cost: int = 10, **limits: int) -> Pool:
    stories = [Story(i + 1, (i + 1,), frozenset(t), cost=cost) for i, t in enumerate(topics)]
    return Pool(stories, [3, 1, 2], Limits(**limits))


def shown(p: Pool, topics: set[int], seen: int = 0) -> list[tuple[int, int]]:
    places, reach = p.taste(topics)
    return p.items(p.pick(places, reach & ~seen))


def test_the_whole_digest_is_one_section_in_the_order_of_the_pool() -> None:
    assert shown(pool({1}, {2}, set()), set()) == [(1, 0), (2, 0), (3, 0)]


def test_sections_stand_in_the_site_wide_order() -> None:
    assert shown(pool({1}, {2}, {3}), {1, 2, 3}) == [(3, 3), (1, 1), (2, 2)]


def test_an_article_of_two_topics_stands_in_its_primary_categorys_section() -> None:
    p = Pool([Story(1, (1,), frozenset({1, 2}), primary=2)], [1, 2])
    assert shown(p, {1, 2}) == [(1, 2)]
    assert shown(p, {1}) == [(1, 1)], "its primary category was not chosen"


def test_seen_stories_are_left_out_and_the_next_ones_come_up() -> None:
    assert shown(pool({1}, {1}, {1}, maximum=1), {1}, seen=0b1) == [(2, 1)]


def test_under_the_minimum_nothing_goes_out() -> None:
    p = pool({1}, {2}, minimum=2)
    assert p.pick(*p.taste({1})) == NOTHING


def test_also_articles_are_claimed_with_their_lead() -> None:
    parts = [StoryPart(article, story, frozenset()) for article, story in ((7, 1), (8, 2), (9, 1))]
    stories = group_stories(parts)
    assert shown(Pool(stories), set()) == [(7, 0), (9, 0), (8, 0)]


def test_what_finds_no_room_is_no_claim_and_is_told() -> None:
    p = pool({1}, {1}, {1}, room=25)
    outcome = p.pick(0, p.everything)
    assert outcome[-1] == (MORE, 1)
    assert p.items(outcome) == [(1, 0), (2, 0), (0, 1)]
    assert p.explain(0, p.everything, 0, outcome)[3][:2] == ("out", Reason.NO_ROOM)


def test_section_heads_cost_room_too() -> None:
    p = pool({1}, {2}, room=29, section_cost=5)
    assert shown(p, {1, 2}) == [(1, 1), (0, 1)]


worlds = st.lists(st.sets(st.integers(1, 6)), max_size=12)


@settings(max_examples=300)
@given(worlds, st.sets(st.integers(1, 8)), st.integers(0, 2**12 - 1), st.integers(1, 4), st.integers(1, 8),
       st.integers(0, 120))  # fmt: skip
def test_every_candidate_has_one_verdict_and_no_rule_is_broken(
    topics: list[set[int]], taste: set[int], seen: int, minimum: int, extra: int, room: int
) -> None:
    maximum = minimum + extra
    p = pool(*topics, minimum=minimum, maximum=maximum, room=room, section_cost=3)
    places, reach = p.taste(taste)
    outcome = p.pick(places, reach & ~seen)
    verdicts = p.explain(places, reach, seen, outcome)
    assert set(verdicts) == {s.id for s in p.stories}
    items = [(a, s) for a, s in p.items(outcome) if a]
    picked = [a for a, _ in items]
    assert len(picked) == len(set(picked)) <= maximum
    assert {s for s, (v, *_) in verdicts.items() if v == "in"} == set(picked)
    eligible = [i + 1 for i in bits(reach & ~seen)]
    assert sorted(picked) == eligible[: len(picked)], "the best come first, without a gap"
    assert sum(10 for _ in items) + 3 * len({s for _, s in items if s}) <= room or not items
    if len(eligible) < minimum:
        assert not picked
    for article, section in items:
        assert section == 0 if not taste else section in topics[article - 1] & taste
    assert outcome == p.pick(places, reach & ~seen), "the same again"


# ----------------------------------------------------------------------------- quotas, caps, sections


def capped(stories: Sequence[Story], caps: Caps, **limits: int) -> Pool:
    return Pool(stories, [1, 2, 3, 4, 5, 6], caps=caps, limits=Limits(**limits))


def told(p: Pool, topics: set[int] = frozenset(), seen: int = 0) -> list[tuple[str, Reason]]:  # type: ignore[assignment]
    places, reach = p.taste(topics)
    return [v[:2] for v in p.explain(places, reach, seen, p.pick(places, reach & ~seen)).values()]


def story(n: int, *topics: int, **more: object) -> Story:
    return Story(n, (n,), frozenset(topics), **more)  # type: ignore[arg-type]


IN, OUT = ("in", Reason.PICKED), "out"


def test_a_quota_keeps_the_best_of_its_topic_and_lets_the_next_come_up() -> None:
    p = capped([story(1, 1), story(2, 1), story(3, 1), story(4, 2)], Caps(quotas=((1, 2),)), maximum=3)
    assert told(p) == [IN, IN, (OUT, Reason.QUOTA), IN]


def test_a_share_holds_by_primary_category_but_not_for_who_chose_topics() -> None:
    p = capped([story(n, 1, 2, primary=1) for n in (1, 2, 3)], Caps(share=2))
    assert told(p) == [IN, IN, (OUT, Reason.SHARE)]
    assert told(p, {1}) == [IN, IN, IN]


def test_authors_and_sources_have_their_caps() -> None:
    by = [story(1, authors=("Ann",), source=1), story(2, authors=("ann", "Bo"), source=2), story(3, source=2)]
    assert told(capped(by, Caps(per_author=1))) == [IN, (OUT, Reason.AUTHOR), IN]
    assert told(capped(by, Caps(per_source=1))) == [IN, IN, (OUT, Reason.SOURCE)]


def test_a_pin_is_taken_whatever_the_caps_say_and_counts() -> None:
    p = capped([story(n, 1, pinned=n < 3) for n in (1, 2, 3)], Caps(quotas=((1, 1),)))
    assert told(p) == [("in", Reason.PINNED), ("in", Reason.PINNED), (OUT, Reason.QUOTA)]
    assert told(replace(p, limits=Limits(maximum=1)))[1] == (OUT, Reason.MAXIMUM)


def test_under_the_minimum_after_the_caps_nothing_goes_out() -> None:
    p = capped([story(1, 1), story(2, 1)], Caps(quotas=((1, 1),)), minimum=2)
    assert told(p) == [(OUT, Reason.MINIMUM), (OUT, Reason.QUOTA)]


def test_a_plain_digest_has_the_sections_it_asks_for() -> None:
    stories = [story(1, 2, 3, primary=3), story(2, 1, 2), story(3, 5), story(4, 2)]
    p = capped(stories, Caps(sections=frozenset({1, 2, 3})))
    assert p.items(p.pick(0, p.everything)) == [(3, 0), (2, 1), (4, 2), (1, 3)]


def test_places_are_kept_for_each_section_and_none_takes_more_than_its_own() -> None:
    stories = [story(1, 1), story(2, 1), story(3, 1), story(4, 2)]
    kept = capped(stories, Caps(section_min=1, sections=frozenset({1, 2})), maximum=2)
    assert told(kept) == [IN, (OUT, Reason.GAVE_WAY), (OUT, Reason.MAXIMUM), ("in", Reason.SECTION_PLACE)]
    full = capped(stories, Caps(section_max=2, sections=frozenset({1, 2})))
    assert told(full) == [IN, IN, (OUT, Reason.SECTION), IN]
    assert told(replace(full, caps=Caps(section_max=1)), {1, 2}) == [
        IN, (OUT, Reason.SECTION), (OUT, Reason.SECTION), IN,
    ]  # fmt: skip


def test_places_kept_for_a_section_are_kept_in_the_mails_room_too() -> None:
    stories = [story(n, 2 if n == 4 else 1, cost=10) for n in range(1, 5)]
    kept = capped(stories, Caps(section_min=1, sections=frozenset({1, 2})), maximum=4, room=25)
    assert kept.items(kept.pick(0, kept.everything)) == [(1, 1), (4, 2), (0, 2)]
    assert told(kept) == [IN, (OUT, Reason.GAVE_WAY), (OUT, Reason.NO_ROOM), ("in", Reason.SECTION_PLACE)]
    tight = replace(kept, limits=replace(kept.limits, room=15))
    assert told(tight) == [IN, *[(OUT, Reason.NO_ROOM)] * 3], "no mail is longer than it may be"


def test_a_topic_that_is_silent_finds_its_stories_and_heads_no_section() -> None:
    stories = [story(1, 1, primary=1), story(2, 2), story(3, 1, 2), story(4, 3)]
    p = replace(capped(stories, Caps(sections=frozenset({1, 2}))), silent=frozenset({1}))
    assert shown(p, {1, 2}) == [(1, 0), (2, 2), (3, 2)]
    assert shown(p, {1}) == [(1, 0), (3, 0)]
    assert shown(p, set()) == [(1, 0), (4, 0), (2, 2), (3, 2)]


def test_more_like_this_is_left_out() -> None:
    titles = ["Senate passes the budget bill", "The budget bill passes Senate", "Rain in the north"]
    stories = [story(n, title=t) for n, t in enumerate(titles, 1)]
    assert told(capped(stories, Caps(alike=75))) == [IN, (OUT, Reason.ALIKE), IN]
    about = [story(1, 1, 2, 3), story(2, 1, 2, 3), story(3, 1)]
    assert told(capped(about, Caps(alike=100))) == [IN, (OUT, Reason.ALIKE), IN], "one topic in common tells nothing"


# A second picking, slow and in plain sets, straight from the words of docs/selection.md.


def slow(
    stories: Sequence[Story],
    caps: Caps,
    limits: Limits,
    topics: Set[int],
    seen: Set[int],
    silent: Set[int] = frozenset(),
) -> list[int]:
    """Ids of the stories in the order in which they get their room."""
    order = [1, 2, 3, 4, 5, 6]
    heads = (topics or caps.sections) - silent
    open_ = [s for s in stories if s.id not in seen and (not topics or s.topics & topics)]
    got: list[Story] = []

    def section(s: Story) -> int:
        return s.primary if s.primary in heads else next((t for t in order if t in heads & s.topics), 0)  # type: ignore[return-value]

    def fits(s: Story) -> bool:
        def few(same: Sequence[bool], most: int) -> bool:
            return not most or sum(same) < most

        return (
            all(few([t in g.topics for g in got], most) for t, most in caps.quotas if t in s.topics)
            and (bool(topics) or s.primary is None or few([g.primary == s.primary for g in got], caps.share))
            and all(few([a in g.authors for g in got], caps.per_author) for a in s.authors)
            and (s.source is None or few([g.source == s.source for g in got], caps.per_source))
            and (not section(s) or few([section(g) == section(s) for g in got], caps.section_max))
            and not any(alike(s, g) for g in got)
        )

    def alike(a: Story, b: Story) -> bool:
        if not caps.alike:
            return False
        x, y = (set(re.findall(r"\w{3,}", t.title)) for t in (a, b))
        return any(
            min(len(p), len(q)) >= least and len(p & q) / len(p | q) >= caps.alike / 100
            for p, q, least in ((x, y, 1), (a.topics, b.topics, 3))
        )

    got += [s for s in open_ if s.pinned][: limits.maximum]
    for n in range(1, caps.section_min + 1):
        for head in [t for t in order if t in heads]:
            if len(got) < limits.maximum and sum(section(g) == head for g in got) < n:
                got += [s for s in open_ if s not in got and section(s) == head and fits(s)][:1]
    for s in open_:
        if len(got) < limits.maximum and s not in got and fits(s):
            got.append(s)
    return [s.id for s in got] if len(got) >= limits.minimum else []


@st.composite
def drawn_stories(draw: st.DrawFn) -> list[Story]:
    one = st.builds(
        lambda topics, first, authors, source, title, pinned: (topics, first, authors, source, title, pinned),
        st.frozensets(st.integers(1, 6), max_size=4), st.booleans(), st.frozensets(st.sampled_from("abc"), max_size=2),
        st.sampled_from([None, 1, 2]), st.lists(st.sampled_from(["rain", "vote", "bank", "goal"]), max_size=3),
        st.sampled_from([False, False, False, True]),
    )  # fmt: skip
    found = sorted(draw(st.lists(one, max_size=10)), key=lambda d: not d[5])  # pins stand first in a pool
    return [
        story(n, *topics, primary=min(topics) if topics and first else None, authors=tuple(sorted(authors)),
              source=source, title=" ".join(title), pinned=pinned, cost=10)
        for n, (topics, first, authors, source, title, pinned) in enumerate(found, 1)
    ]  # fmt: skip


few = st.sampled_from([0, 0, 0, 1, 2, 3])
drawn_caps = st.builds(
    Caps,
    quotas=st.dictionaries(st.integers(1, 6), st.integers(1, 3), max_size=3).map(lambda d: tuple(d.items())),
    share=few, per_author=few, per_source=few, section_min=few, section_max=few,
    sections=st.frozensets(st.integers(1, 6), max_size=4), alike=st.sampled_from([0, 0, 0, 40, 75, 100]),
)  # fmt: skip


@settings(max_examples=400)
@given(drawn_stories(), drawn_caps, st.frozensets(st.integers(1, 6), max_size=4), st.sets(st.integers(1, 10)),
       st.integers(1, 3), st.integers(0, 6), st.sampled_from([95_000, 60, 25]),
       st.frozensets(st.integers(1, 6), max_size=2))  # fmt: skip
def test_no_rule_is_broken_whatever_is_asked_for(
    stories: list[Story],
    caps: Caps,
    topics: frozenset[int],
    seen: set[int],
    minimum: int,
    extra: int,
    room: int,
    silent: frozenset[int],
) -> None:
    limits = Limits(minimum, minimum + extra, room, section_cost=3)
    p = capped(stories, caps)
    p = replace(p, limits=limits, silent=silent)
    taken = sum(1 << (n - 1) for n in seen if n <= len(stories))
    places, reach = p.taste(topics)
    outcome = p.pick(places, reach & ~taken)
    expected = slow(stories, caps, limits, topics, seen, silent)
    chosen = [i + 1 for i in bits(p.choose(places, reach & ~taken))]
    assert (chosen if len(chosen) >= minimum else []) == sorted(expected)

    items = [(a, s) for a, s in p.items(outcome) if a]
    picked = sorted(a for a, _ in items)
    assert picked == sorted(expected[: len(picked)]), "the room takes from the end"
    assert sum(10 for _ in items) + 3 * len({s for _, s in items if s}) <= room
    assert [s for _, s in items] == sorted(s for _, s in items), "sections stand in the order of the site"
    heads = (topics or caps.sections) - silent
    for article, section in items:
        mine = stories[article - 1]
        assert section == (mine.primary if mine.primary in heads else min(mine.topics & heads, default=0))

    verdicts = p.explain(places, reach, taken, outcome)
    assert list(verdicts) == [s.id for s in stories]
    assert sorted(n for n, (v, *_) in verdicts.items() if v == "in") == picked
    without = replace(p, caps=replace(caps, section_min=0))
    freely = {a for a, _ in without.items(without.pick(places, reach & ~taken)) if a}
    for n, (_, reason, _) in verdicts.items():
        assert (reason in (Reason.PICKED, Reason.PINNED, Reason.SECTION_PLACE)) == (n in picked)
        assert (reason is Reason.SECTION_PLACE) == (n in picked and n not in freely and not stories[n - 1].pinned)
        assert (reason is Reason.GAVE_WAY) <= (n in freely and n not in picked and bool(caps.section_min))
        assert (reason is Reason.SEEN) == (n in seen and bool(not topics or stories[n - 1].topics & topics))
        assert (reason is Reason.MINIMUM) <= (not expected)
        assert (reason is Reason.NO_ROOM) <= (n in expected and n not in picked)
        if n in expected and n not in picked:
            assert reason is (Reason.GAVE_WAY if picked and caps.section_min and n in freely else Reason.NO_ROOM)
    assert outcome == replace(p).pick(places, reach & ~taken), "another process picks the same"


@settings(max_examples=300)
@given(drawn_stories(), drawn_caps, st.frozensets(st.integers(1, 6), max_size=4), st.integers(1, 6), st.data())
def test_what_was_not_picked_makes_no_difference(
    stories: list[Story], caps: Caps, topics: frozenset[int], maximum: int, data: st.DataObject
) -> None:
    def choose(these: Sequence[Story]) -> list[int]:
        p = capped(these, caps, maximum=maximum)
        return [these[i].id for i in bits(p.choose(*p.taste(topics)))]

    chosen = choose(stories)
    others = [s for s in stories if s.id not in chosen]
    if others:
        gone = data.draw(st.sampled_from(others))
        assert choose([s for s in stories if s is not gone]) == chosen


# ----------------------------------------------------------------------------- an admin's words

KNOWN = {"category": {"africa", "asia"}, "tag": {"oil", "africa"}}


def test_words_become_what_a_digest_keeps_and_caps() -> None:
    kept = changed({}, Wishes(
        quotas=("category:africa=3", "tag:oil=1"), share=0.4, per_author=2, section_max=4, sections="category",
        score="recency=1, topic:tag:oil=-.5", diverse=0.5), KNOWN)  # fmt: skip
    assert kept == {
        "quotas": {"category:africa": 3, "tag:oil": 1}, "share": 0.4, "per_author": 2, "section_max": 4,
        "sections": "category", "score": {"recency": 1.0, "topic:tag:oil": -0.5}, "diverse": 0.5,
    }  # fmt: skip
    assert topics_in(kept) == ["category:africa", "tag:oil"]
    assert caps_of(kept, 12, {"category:africa": 7}, [7, 8]) == Caps(
        quotas=((7, 3),), share=5, per_author=2, section_max=4, sections=frozenset({7, 8}), alike=50
    )
    assert caps_of({"share": 0.07}, 100, {}, []).share == 7, "floats would make it 8"
    assert not caps_of({}, 12, {}, []).binding


def test_what_is_not_named_stays_and_nothing_takes_it_back() -> None:
    kept: dict[str, Any] = {"per_author": 2, "score": {"recency": 1.0}, "quotas": {"tag:oil": 1}, "sections": "tag"}
    assert changed(kept, Wishes(), KNOWN) == kept
    assert changed(kept, Wishes(per_author=0, score="", quotas=("",), sections="none"), KNOWN) == {}


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes(quotas=("category:afrika=3",)), "did you mean category:africa?"),
        (Wishes(quotas=("tag:xyz=3",)), "digest topics --all"),
        (Wishes(quotas=("africa=3",)), "category:SLUG or tag:SLUG"),
        (Wishes(quotas=("category:africa=0",)), "1 to 100"),
        (Wishes(quotas=("category:africa",)), "such as category:africa=3"),
        (Wishes(share=1.5), "a part of one"),
        (Wishes(diverse=float("nan")), "a part of one"),
        (Wishes(per_author=-1), "--per-author -1"),
        (Wishes(section_min=3, section_max=2), "do not fit"),
        (Wishes(sections="categories"), "did you mean category?"),
        (Wishes(score="recensy=1"), "did you mean recency?"),
        (Wishes(score="recency"), "recency=.5"),
        (Wishes(score="recency=much"), "a number"),
        (Wishes(score="recency=inf"), "a number"),
        (Wishes(score="topic:category:asja=1"), "did you mean category:asia?"),
    ],
)  # fmt: skip
def test_words_that_do_not_fit_are_one_sentence(wishes: Wishes, said: str) -> None:
    with pytest.raises(UsageError) as e:
        changed({}, wishes, KNOWN)
    assert said in str(e.value)
    assert "\n" not in str(e.value)


def said_of(wishes: Wishes) -> str:
    try:
        changed({}, wishes, KNOWN)
    except UsageError as e:
        return str(e)
    return ""


@given(st.text(max_size=30))
def test_any_text_is_taken_or_told_in_one_line(text: str) -> None:
    for wishes in (Wishes(score=text), Wishes(quotas=(text,)), Wishes(sections=text)):
        assert "\n" not in said_of(wishes)


def test_a_score_is_the_sum_of_its_parts_in_whole_millionths() -> None:
    told = Scored(timedelta(hours=24), words=300, image=True, size=4, topics=frozenset({"tag:oil"}))
    weights = {"image": 0.3, "length": 0.2, "recency": 1, "story": 0.1, "topic:tag:oil": 0.5, "topic:tag:gas": 9}
    got = parts(told, weights, half_life(timedelta(days=1)))
    assert got == {
        "image": 300_000, "length": 100_000, "recency": 500_000, "story": 200_000, "topic:tag:oil": 500_000,
        "topic:tag:gas": 0,
    }  # fmt: skip
    assert (in_words(got) or {})["total"] == 1.6
    assert in_words(None) is None


def test_recency_halves_in_a_day_for_a_daily_and_in_three_for_a_weekly() -> None:
    assert half_life(None) == half_life(timedelta(days=2)) == timedelta(hours=24)
    assert half_life(timedelta(days=7)) == timedelta(hours=72)
    early = Scored(timedelta(hours=-5), words=0, image=False, size=0, topics=frozenset())
    assert parts(early, {"recency": 1, "story": 1}, timedelta(hours=24)) == {"recency": 1_000_000, "story": 0}
