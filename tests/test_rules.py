"""The selection language: what it means, what it refuses and where it points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest.errors import RuleError
from digest.rules import (
    ALL,
    MAX_DEPTH,
    MAX_LENGTH,
    And,
    Facts,
    Not,
    Or,
    Rule,
    Term,
    check,
    combine,
    matches,
    parse,
    terms,
)

A, B, C = Term("category", "africa"), Term("tag", "sports"), Term("author", "jane-doe")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", ALL),
        ("  \n", ALL),
        ("category:africa", A),
        ("Category:AFRICA", A),
        ('category:"africa"', A),
        ("category:africa!only", Term("category", "africa", only=True)),
        ("category:africa and not tag:sports", And((A, Not(B)))),
        ("category:africa AND tag:sports or author:jane-doe", Or((And((A, B)), C))),
        ("category:africa and (tag:sports or author:jane-doe)", And((A, Or((B, C))))),
        ("not category:africa or tag:sports", Or((Not(A), B))),
        ("not not tag:sports", Not(Not(B))),
        ("any(category:africa, tag:sports)", Or((A, B))),
        ("all(category:africa,tag:sports)", And((A, B))),
        ("none(category:africa, tag:sports) and author:jane-doe", And((Not(Or((A, B))), C))),
        ("any(category:africa)", A),
        ("tag:and", Term("tag", "and")),
        ('author:"Jane \\"JD\\" Doe"', Term("author", 'jane "jd" doe')),
        ("tag:中国 and language:en-GB", And((Term("tag", "中国"), Term("language", "en-gb")))),
    ],
)
def test_text_becomes_its_tree(text: str, tree: Rule) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("category:africa tag:sports", 17, "'and' or 'or' is missing"),
        ("categry:africa", 1, "did you mean 'category'"),
        ("zzz:africa", 1, "fields are category"),
        ("category:africa and", 20, "ends where a term"),
        ("category:africa adn tag:x", 17, "did you mean 'and'"),
        ("and tag:x", 1, "missing before 'and'"),
        ("tag:x and or tag:y", 11, "missing before 'or'"),
        ("(tag:x and tag:y", 1, "never closed"),
        ("tag:x)", 6, "closes nothing"),
        ("tag:x, tag:y", 6, "belongs inside"),
        ("any tag:x", 5, "wants its terms in brackets"),
        ("any()", 5, "missing before ')'"),
        ("any(tag:x", 4, "never closed"),
        ("any(tag:x and tag:y)", 11, "separated by commas"),
        ("tag: x", 5, "must follow tag:"),
        ('tag:"x', 5, "never closed"),
        ('tag:""', 5, "must follow tag:"),
        ("tag:x!only", 6, "children of a category"),
        ("category:x!onyl", 11, "did you mean '!only'"),
        ("africa", 1, "did you mean category:africa"),
        ("tag:x and\n :y", 12, "no meaning here"),
        ("tag:a:b", 6, "no meaning here"),
    ],
)
def test_an_error_points_at_its_column(text: str, column: int, says: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse(text)
    assert caught.value.column == column
    assert says in str(caught.value)


def test_length_and_depth_are_capped() -> None:
    with pytest.raises(RuleError, match="characters"):
        parse("tag:x or " * MAX_LENGTH)
    for deep in ("(" * 900 + "tag:x" + ")" * 900, "not " * 900 + "tag:x"):
        with pytest.raises(RuleError, match="nested"):
            parse(deep)
    assert parse("(" * MAX_DEPTH + "tag:x" + ")" * MAX_DEPTH) == Term("tag", "x")


values = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(str.strip).map(str.lower)
leaves = st.one_of(
    st.builds(Term, st.just("category"), values, st.booleans()),
    st.builds(Term, st.sampled_from(["tag", "author", "source", "language"]), values),
)
trees: st.SearchStrategy[Rule] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=4).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=4).map(tuple)),
    ),
    max_leaves=12,
)


@given(trees)
def test_a_rule_written_out_reads_back_as_itself(tree: Rule) -> None:
    assert parse(str(tree)) == tree


@given(st.text(st.sampled_from('category:tagandornotany(),!"\\ x\n中'), max_size=40))
def test_any_text_is_a_rule_or_one_error_within_it(text: str) -> None:
    column = 1
    try:
        rule = parse(text)
    except RuleError as error:
        column = error.column
    else:
        assert parse(str(rule)) == rule
    assert 1 <= column <= len(text) + 1


def test_columns_lead_back_to_the_terms() -> None:
    text = '  category:africa and (not tag:"x y" or any(author:z))'
    assert [(t.value, t.column) for t in terms(parse(text))] == [("africa", 3), ("x y", 28), ("z", 45)]
    assert all(text[t.column - 1 :].startswith(t.field) for t in terms(parse(text)))


FACTS = Facts(
    categories=frozenset({"kenya"}),
    ancestors=frozenset({"africa"}),
    tags=frozenset({"trade", "sports"}),
    authors=frozenset({"jane-doe"}),
    sources=frozenset({"wire"}),
    language="en-gb",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("category:kenya", True),
        ("category:africa", True),
        ("category:kenya!only", True),
        ("category:africa!only", False),
        ("tag:kenya", False),
        ("tag:trade and not tag:sports", False),
        ("all(tag:trade, tag:sports, source:wire)", True),
        ("all(tag:trade, tag:economy)", False),
        ("none(tag:economy, category:europe)", True),
        ("none(tag:economy, category:africa)", False),
        ("any(tag:economy, author:jane-doe)", True),
        ("language:en", True),
        ("language:en-gb", True),
        ("language:e", False),
        ("language:en-gb-oed", False),
    ],
)
def test_matches(text: str, expected: bool) -> None:
    assert matches(parse(text), FACTS) is expected


def test_an_unknown_topic_is_named_with_its_nearest() -> None:
    known = {"category": {"africa", "europe"}, "tag": {"sports"}, "language": {"en-gb"}}
    text = "tag:sports and category:afrika"
    with pytest.raises(RuleError, match="no category 'afrika'; did you mean 'africa'") as caught:
        check(parse(text), known, text)
    assert caught.value.column == text.index("category") + 1
    check(parse("category:europe and language:en and source:anything"), known, "")
    with pytest.raises(RuleError, match="no tag 'africa'"):
        check(parse("tag:africa"), known, "tag:africa")
    many = {"tag": {f"topic-{n}" for n in range(20_000)} | {"climate-change"}}
    with pytest.raises(RuleError, match="did you mean 'climate-change'"):
        check(parse("tag:climat-change"), many, "tag:climat-change")


def test_combine_ors_topics_and_ands_the_rule() -> None:
    assert combine("") == ALL
    assert combine("tag:sports") == B
    assert combine("", ["Africa"]) == A
    assert combine("", ["africa"], ["sports"]) == Or((A, B))
    assert combine("author:jane-doe", ["africa"], ["sports"]) == And((C, Or((A, B))))
    with pytest.raises(RuleError, match=r"column 1 of 'category:afrika'"):
        check(combine("author:x", ["afrika"]), {"category": {"africa"}}, "author:x")
