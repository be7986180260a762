"""Picking over integers: what is in, what is out, and why."""

from hypothesis import given, settings
from hypothesis import strategies as st

from digest.selection import MORE, NOTHING, Limits, Pool, Reason, Story, StoryPart, bits, group_stories


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
    assert p.explain(0, p.everything, 0, outcome)[3] == ("out", Reason.NO_ROOM)


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
    assert {s for s, (v, _) in verdicts.items() if v == "in"} == set(picked)
    eligible = [i + 1 for i in bits(reach & ~seen)]
    assert sorted(picked) == eligible[: len(picked)], "the best come first, without a gap"
    assert sum(10 for _ in items) + 3 * len({s for _, s in items if s}) <= room or not items
    if len(eligible) < minimum:
        assert not picked
    for article, section in items:
        assert section == 0 if not taste else section in topics[article - 1] & taste
    assert outcome == p.pick(places, reach & ~seen), "the same again"
