# ruff: noqa: E501 - one seed a line
"""The linter of layouts: seeded mistakes are found where they are, sound layouts raise no alarm, nothing takes long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest.errors import Problem
from digest.paths import shipped
from digest.rendering import lint as linter
from digest.rendering.grammar import ATTRIBUTES, CHILDREN
from digest.rendering.lint import MAX_PROBLEMS
from digest.rendering.source import plain

SOUND = """<mjml lang="{{ lang }}" dir="{{ dir }}">
  <mj-head>
    <mj-title>{{ subject }}</mj-title>
    <mj-attributes>
      <mj-all font-family="Arial, sans-serif" />
      <mj-class name="big" font-size="20px" />
    </mj-attributes>
    <mj-breakpoint width="480px" />
    <mj-raw><meta name="color-scheme" content="light dark"></mj-raw>
    <!-- a comment may say <anything> -->
    <mj-style>
      .a > b { color: red } @media (max-width: 479px) { .b { color: {{ colour.ink }} !important; } }
    </mj-style>
    <mj-style inline="inline">.c { margin: 0 }</mj-style>
  </mj-head>
  <mj-body width="600px" background-color="#f4f5f2">
    <mj-raw><div class="pre">{{ preheader }}</div></mj-raw>
    <mj-section padding="0 12px" direction="{{ dir }}">
      <mj-column width="50%" css-class="side">
        <mj-image src="{{ brand.logo_url }}" alt="{{ brand.name }}" width="160px" />
        <mj-text mj-class="big" color="#333" line-height="1.5">Hello <b>{{ digest.name }}</b>,<br>again&nbsp;</mj-text>
        <mj-button href="{{ home_url }}" inner-padding="12px 24px">{{ words.archive }}</mj-button>
        <mj-divider border-width="1px" />
        <mj-spacer height="20px"></mj-spacer>
        <mj-social mode="horizontal">
          <mj-social-element name="mastodon" href="https://x.example" alt="Mastodon">Follow</mj-social-element>
        </mj-social>
      </mj-column>
      <mj-column>
        <mj-table><tr><td align="left">{% if a < b %}<i>{{ x | fill(n="<p>") }}</i>{% else %}-{% endif %}</td></tr></mj-table>
        <mj-raw>
          {% for story in stories %}<tr><td class="in" data-x="1" aria-label="{{ story.title }}">
          {% if story.wide %}<div class="a">{% else %}<div class="b">{% endif %}
          {% if story.url %}<a href="{{ story.url }}">{% endif %}<img src="{{ story.url }}" alt="" width="20">{% if story.url %}</a>{% endif %}
          </div></td></tr>{% endfor %}
          <!--[if mso]><table><tr><td><![endif]-->
        </mj-raw>
      </mj-column>
    </mj-section>
    <mj-wrapper><mj-section><mj-group><mj-column></mj-column></mj-group></mj-section></mj-wrapper>
  </mj-body>
</mjml>
"""

# what stands there → what is written instead, with ¦ before the very place of the mistake, and what is said of it
SEEDED = [
    ("<mj-text mj", "¦<mj-txet mj", "<mj-txet> is not an MJML tag; is 'mj-text' meant?"),
    ("<mj-divider", "¦<mj-line", "<mj-line> is not an MJML tag"),
    ("<b>{{", "¦<bold>{{", "<bold> is not a tag of HTML"),
    ("<mj-spacer height", "¦<MJ-Spacer height", "small letters: <mj-spacer>"),
    ('color="#333"', '¦colour="#333"', "colour is not an attribute of <mj-text>; is 'color' meant?"),
    ('border-width="1px"', '¦border-thickness="1px"', "border-thickness is not an attribute of <mj-divider>"),
    ('align="left"', '¦aling="left"', "aling is not an attribute of <td>; is 'align' meant?"),
    ('css-class="side"', '¦class="side"', "class is not an attribute of <mj-column>; is 'css-class' meant?"),
    ('mode="horizontal"', '¦mode="sideways"', "mode of <mj-social> is 'sideways'; it wants horizontal or vertical"),
    ('width="50%"', '¦width="half"', "width of <mj-column> is 'half'; it wants a length, like 12px or 50%"),
    ('width="160px"', '¦width="160"', "width of <mj-image> is '160'; it wants a number of pixels"),
    ('color="#333"', '¦color="#33"', "color of <mj-text> is '#33'; it wants a colour"),
    ('padding="0 12px"', '¦padding="0 12px 1 2 3"', "padding of <mj-section> is '0 12px 1 2 3'; it wants one to four"),
    ('<mj-breakpoint width="480px" />', '<mj-breakpoint ¦width="wide" />', "width of <mj-breakpoint> is 'wide'"),
    ("<mj-wrapper>", "¦<mj-column><mj-text>x</mj-text></mj-column><mj-wrapper>", "has no place directly in <mj-body>"),
    ("<mj-section padding", '¦<mj-text font-family="x">x</mj-text><mj-section padding', "it belongs into <mj-column>"),
    ("<mj-group><mj-column>", "<mj-group>¦<mj-section><mj-column></mj-column></mj-section><mj-column>", "in <mj-group>"),
    ("Hello <b>", "Hello ¦<mj-divider /><b>", "<mj-divider> has no place directly in <mj-text>"),
    ("Hello <b>", "Hello <b>¦<mj-spacer /></b><b>", "<mj-spacer> has no place inside <b>; MJML does not look into HTML"),
    ("<mj-column></mj-column>", "<mj-column>¦<p>x</p></mj-column>", "<p> has no place directly in <mj-column>"),
    ("<mj-column></mj-column>", "<mj-column>¦words</mj-column>", "text has no place directly in <mj-column>"),
    ("<mj-column></mj-column>", "<mj-column>¦{{ x }}</mj-column>", "text has no place directly in <mj-column>"),
    ("<mj-wrapper>", "¦{% if x %}<mj-wrapper>", "Jinja has no place directly in <mj-body>; put it into <mj-raw>"),
    ("again&nbsp;</mj-text>", "again¦</mj-button>", "</mj-button> where </mj-text> was expected; <mj-text> is open since"),
    ("</b>,", "¦</i>,", "</i> where </b> was expected"),
    ("</tr></mj-table>", "¦</mj-table>", "</mj-table> where </tr> was expected"),
    ("again&nbsp;", "again¦</p>", "</p> where </mj-text> was expected|</p> closes nothing"),
    ("<br>again", "<br>¦</br>again", "</br> closes nothing: <br> has no end"),
    ("</mjml>", "", "<mjml> is never closed; add </mjml>"),
    ("<mj-divider border", '<mj-divider border-width="2px" ¦border', "border-width stands twice in <mj-divider>"),
    ('name="mastodon"', "¦name=mastodon", "the value of name stands without quotes"),
    ('alt="Mastodon"', "¦alt", 'alt has no value; write alt="…"'),
    ('href="{{ home_url }}"', 'href="{{ url(¦"x") }}"', "double quotes in an expression inside double quotes; use single"),
    ('href="{{ home_url }}"', "href='{{ url(¦'x') }}'", "single quotes in an expression inside single quotes; use double"),
    ('<mj-image src="{{ brand.logo_url }}" alt="{{ brand.name }}"', '¦<mj-image src="{{ brand.logo_url }}"', "has no alt"),
    ('<img src="{{ story.url }}" alt=""', '¦<img src="{{ story.url }}"', "<img> has no alt"),
    ('href="https://x.example" alt="Mastodon"', 'href="https://x.example"', "<mj-social-element> has no alt"),
    ('alt="" width="20"', 'alt=""', "<img> has no width"),
    ("<mj-column></mj-column>", '<mj-column>¦<mj-include path="../../etc/passwd" /></mj-column>', "not supported"),
    ("<mj-title>", '¦<mj-font name="Roboto" href="https://fonts.example" /><mj-title>', "a font from another server"),
    ("<mj-title>", "¦<mj-preview>x</mj-preview><mj-title>", "white text"),
    ("<mj-title>", "¦<mj-html-attributes></mj-html-attributes><mj-title>", "not supported"),
    ("Hello <b>", "Hello 1 ¦< 2 <b>", "write &lt; for the sign itself"),
    ('alt="{{ brand.name }}"', 'alt="{{ brand.name }}', "quotes do not match|among the attributes"),
    ("Hello <b>", "Hello ¦<script>x</script><b>", "<script> has no place in a mail"),
    ("<b>{{", '<b ¦onclick="x()">{{', "onclick would run a script"),
    (".c { margin: 0 }", "¦@import url(https://x.example/a.css);", "loads something from elsewhere"),
    (".c { margin: 0 }", "¦.c { margin: 0 ", "1 { of this style sheet is never closed"),
    ("<!-- a comment may", "¦<!- a comment may", "has no place in MJML|begins no tag"),
    ("<mjml lang", "¦<!DOCTYPE html><mjml lang", "<!DOCTYPE html> has no place in MJML"),
    ("<mj-title>", "<mj-title>¦<![CDATA[x]]>", "has no place in MJML"),
    ('      <mj-all font-family="Arial, sans-serif" />\n', "", "<mj-text> has no font-family"),
    ("Hello <b>", "Hello <b>¦<div/></b><b>", "<div/> does not close <div> in HTML"),
    ('<div class="b">', "", "</div> where </td> was expected|</div> closes nothing"),
]  # fmt: skip


def lint(file: str, source: str) -> list[Problem]:
    return linter.lint(plain(file, source))


def test_a_sound_layout_raises_no_alarm() -> None:
    assert lint("x", SOUND) == []


@pytest.mark.parametrize(
    "path", sorted((shipped("templates") / "email").glob("*/edition.mjml")), ids=lambda p: p.parent.name
)
def test_shipped_layouts_raise_no_alarm(path: object) -> None:
    from digest.rendering import Renderer

    name = path.parent.name  # type: ignore[attr-defined]
    assert Renderer().check(name) == []


@pytest.mark.parametrize(("old", "new", "says"), SEEDED, ids=range(len(SEEDED)))
def test_a_seeded_mistake_is_found_where_it_is(old: str, new: str, says: str) -> None:
    assert SOUND.count(old) == 1, "the seed wants one place"
    marked = SOUND.replace(old, new)
    before, mark, after = marked.partition("¦")
    problems = lint("x.mjml", before + after if mark else marked)
    said = [p for p in problems if any(part in p.what for part in says.split("|"))]
    assert said, problems
    if mark:
        place = (before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
        assert place in [(p.line, p.column) for p in said]
    assert len(problems) <= 3, "one mistake is not to be told many times"


def test_forty_mistakes_at_once_are_all_found() -> None:
    """Seeded into one file, each on its own line: as a careless afternoon leaves it."""
    lines = [
        "<mjml><mj-head><mj-attributes><mj-all font-family='x' /></mj-attributes></mj-head><mj-body><mj-section><mj-column>"
    ]
    for number in range(40):
        lines.append(
            ('<mj-image src="x" />', '<mj-text colour="red">x</mj-text>', "<mj-tabel></mj-tabel>", "<p>x</p>")[
                number % 4
            ]
        )
    lines.append("</mj-column></mj-section></mj-body></mjml>")
    assert {p.line for p in lint("x", "\n".join(lines))} == set(range(2, 42))


def test_a_problem_is_one_sentence_with_its_place() -> None:
    assert str(Problem("a/b.mjml", 3, 7, "wrong; do right")) == "a/b.mjml:3:7: wrong; do right"
    assert str(Problem("a/b.mjml", 3, 0, "wrong")) == "a/b.mjml:3: wrong"
    assert str(Problem("a/b.mjml", 0, 0, "wrong")) == "a/b.mjml: wrong"


def test_columns_count_after_expressions_of_any_length() -> None:
    source = SOUND.replace("Hello <b>", "{{ a }}é{# no #}{% set x = 1 %}<zz>Hello</zz><b>")
    [problem] = [p for p in lint("x", source) if "<zz>" in p.what]
    line = source.split("\n")[problem.line - 1]
    assert line[problem.column - 1 :].startswith("<zz>")


@given(st.text(st.sampled_from("<>/=\"'{}%# \nmj-textabi&;!"), max_size=200))
def test_whatever_is_written_ends_in_problems_not_in_an_exception(source: str) -> None:
    for text in (source, SOUND.replace("Hello", source)):
        for problem in lint("x", text):
            assert problem.line >= 1 <= problem.column
            assert "\n" not in str(problem)


@pytest.mark.parametrize(
    "source",
    ["<b>" * 60_000, "<" * 100_000, "<a " * 60_000, '<a b="' * 30_000, "{{" * 90_000, "<!--" * 40_000, "{% if x %}" * 18_000,
     "<mj-style>{" * 15_000, "<a " + "x=1 " * 45_000 + ">", "</b>" * 45_000, "</" * 90_000, '=" {{ "' * 25_000],
    ids=range(12),
)  # fmt: skip
def test_a_hostile_file_is_read_in_no_time(source: str) -> None:
    started = time.process_time()
    problems = lint("x", f"<mjml>{source}")
    assert time.process_time() - started < 4
    assert 0 < len(problems) <= MAX_PROBLEMS


def test_deep_nesting_is_told_before_a_parser_dies_of_it() -> None:
    [problem] = [p for p in lint("x", SOUND.replace("Hello", "<b>" * 9_000 + "</b>" * 9_000)) if "deeply" in p.what]
    assert problem.line == SOUND[: SOUND.index("Hello")].count("\n") + 1


def test_the_tables_agree_with_each_other() -> None:
    kinds = {kind for attributes in ATTRIBUTES.values() for kind in attributes.values()}
    assert {kind for kind in kinds if kind.partition("|")[0] not in (*linter._KINDS, "text") and "|" not in kind} <= {
        "inline", "desktop", "hamburger",
    }  # fmt: skip
    assert {child for children in CHILDREN.values() for child in children} | {"mjml"} >= ATTRIBUTES.keys()
