"""Mails from templates: whole, in fragments, in bytes; and everything a template or an article can do wrong."""

from __future__ import annotations

import quopri
import re
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default as default_policy
from html import escape as html_escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html as lxml_html
from markupsafe import escape

from digest.delivery.message import Addressee, Identity, MessageFactory
from digest.errors import RenderError
from digest.rendering import Dressed, Layout, Renderer, apart, check_line, renderer, sandbox
from digest.rendering.compile import compile_mjml
from digest.rendering.links import safe_url
from digest.rendering.palette import PAPER, PAPER_DARK, READABLE, contrast, palette
from digest.rendering.pieces import Piece, Tokens, join, size
from digest.rendering.trial import SAMPLE_SECTIONS, SAMPLE_VIEW, whole
from digest.types import (
    HTML_BUDGET,
    LANGUAGES,
    LONGEST,
    PERSONAL_FIELDS,
    PREVIEW,
    ArticleCard,
    Body,
    Brand,
    Dress,
    EditionView,
    Format,
    Image,
    RenderedVariant,
    Section,
    StoryCard,
)  # fmt: skip
from tests.mail_sample import BRAND, VIEW, WHEN, cards, sections

SECTIONS = sections()
SHIPPED = ["briefing", "cards", "headlines", "hero"]


@pytest.fixture(scope="module")
def layout() -> Layout:
    return Renderer().layout("cards")


@pytest.fixture
def dressed(layout: Layout) -> Dressed:
    return layout.open(VIEW, Dress())


def decoded(body: Body, values: dict[str, str] = PREVIEW) -> str:
    """What a mail program makes of *body*: personal values joined in as bytes, then decoded by the standard library."""
    from digest.mime import qp_value

    raw = body.segments[0]
    for name, segment in zip(body.fields, body.segments[1:], strict=True):
        raw += qp_value(values[name]) + segment
    for line in raw.split(b"\r\n"):
        assert len(line) <= 76
        assert not line.startswith((b".", b"From "))
        assert b"\n" not in line
        assert b"\r" not in line
    return quopri.decodestring(raw.replace(b"\r\n", b"\n")).decode("utf-8").replace("\r\n", "\n")


def one(title: str = "A title", url: str = "https://news.example/a", **more: object) -> tuple[Section, ...]:
    return (Section("", (StoryCard(ArticleCard(id=1, title=title, url=url, **more)),)),)  # type: ignore[arg-type]


def tree(variant: RenderedVariant) -> lxml_html.HtmlElement:
    return lxml_html.document_fromstring(variant.html)


# ----------------------------------------------------------------------------- pieces and bytes

TEXTS = st.text(
    st.sampled_from('ab .=<>&"\té–😀\nF\u200d-') | st.characters(exclude_categories=["Cs", "Cc"]), max_size=200
)


@given(st.lists(st.tuples(TEXTS, st.sampled_from([*PERSONAL_FIELDS, "subject"])), max_size=6), TEXTS, st.data())
def test_pieces_joined_decode_to_their_text(parts: list[tuple[str, str]], end: str, data: st.DataObject) -> None:
    tokens = Tokens((*PERSONAL_FIELDS, "subject"))
    rendered = "".join(text + tokens.of[name] for text, name in parts) + end
    cut = data.draw(st.sampled_from(range(len(parts) + 1)))
    head = "".join(text + tokens.of[name] for text, name in parts[:cut])
    pieces = [Piece.of(head, tokens), Piece.of(rendered[len(head) :], tokens)]
    values = {name: data.draw(TEXTS).replace("\n", " ").replace("\t", " ") for name in (*PERSONAL_FIELDS, "subject")}
    from digest.mime import qp_piece

    body = join(pieces, {"subject": qp_piece(values["subject"])})
    expected = rendered
    for name, token in tokens.of.items():
        expected = expected.replace(token, values[name])
    assert decoded(body, values) == expected
    assert "".join(piece.shown(values) for piece in pieces) == expected
    assert body.fields == tuple(name for _, name in parts if name != "subject")
    on_the_wire = len(expected.replace("\n", "\r\n").encode())
    assert sum(p.measured({n: len(v.encode()) for n, v in values.items()}) for p in pieces) == on_the_wire


def test_a_bent_token_is_found() -> None:
    tokens = Tokens(("address",))
    with pytest.raises(ValueError, match="changed by a filter"):
        tokens.split(tokens.of["address"].upper())
    with pytest.raises(ValueError, match="changed by a filter"):
        tokens.split(tokens.of["address"][:20])


def test_tokens_are_new_every_time() -> None:
    assert not set(Tokens(("a",)).of.values()) & set(Tokens(("a",)).of.values())


# ----------------------------------------------------------------------------- fragments are the whole

_CARDS = cards()
_STORIES = st.builds(
    StoryCard, st.sampled_from(_CARDS), st.lists(st.sampled_from(_CARDS), max_size=3).map(tuple)
)  # fmt: skip
_SECTIONS = st.lists(
    st.builds(
        Section, st.sampled_from(["", "Security", "A & B <c>", "Über"]), st.lists(_STORIES, max_size=5).map(tuple)
    ),
    max_size=4,
).map(tuple)


@settings(max_examples=60)
@given(
    st.sampled_from(SHIPPED),
    _SECTIONS,
    st.sampled_from([0, 1, 5]),
    st.sampled_from([0, 2]),
    st.sampled_from([HTML_BUDGET, 20_000, 17_000, 0]),
)
def test_joined_bytes_decode_to_the_whole_template(
    name: str, chosen: tuple[Section, ...], more: int, had: int, budget: int
) -> None:
    dressed = Renderer().layout(name).open(VIEW, Dress(), budget)
    variant = dressed.assemble(chosen, more=more, had=had)
    assert variant.html_body is not None
    html = whole(dressed, "edition.mjml", chosen, more, had, variant)
    text = whole(dressed, "edition.txt", chosen, more, had, variant)
    assert decoded(variant.html_body) == variant.html == html
    assert decoded(variant.text_body) == variant.text == text


@settings(max_examples=60)
@given(
    st.sampled_from(SHIPPED),
    _SECTIONS,
    st.sampled_from([0, 1, 5]),
    st.sampled_from(list(Format)),
    st.sampled_from([0, 18_000, 30_000]),
)
def test_sizes_are_what_is_decoded_and_what_the_least_costs_allow_always_fits(
    name: str, chosen: tuple[Section, ...], more: int, form: Format, roomy: int
) -> None:
    """Selection counts with the scantest form: then there is room, and the mail keeps within it."""
    dressed = Renderer().layout(name).open(VIEW, Dress("en", form))
    costs = sum(dressed.section_cost(s.title) + sum(map(dressed.story_cost, s.stories)) for s in chosen)
    dressed = Renderer().layout(name).open(VIEW, Dress("en", form), dressed.shell_cost + costs + roomy)
    variant = dressed.assemble(chosen, more=more, had=more)
    longest = {name: "x" * length for name, length in LONGEST.items()}
    body = variant.html_body if form is Format.HTML else variant.text_body
    assert body is not None
    assert variant.html_size == len(decoded(body, longest).replace("\n", "\r\n").encode())
    assert variant.html_size <= costs + roomy + dressed.shell_cost


def test_costs_add_up_to_the_byte(dressed: Dressed) -> None:
    """Nothing lies between the costs and the size but the room that is kept for the lines of a variant."""
    chosen = tuple(replace(section, title=f"{section.title} today") for section in SECTIONS)
    dressed = dressed.layout.open(VIEW, Dress(), 0)
    full, empty = dressed.assemble(chosen, more=10_000, had=10_000), dressed.assemble((), more=10_000, had=10_000)
    costs = sum(dressed.section_cost(s.title) + sum(map(dressed.story_cost, s.stories)) for s in chosen)

    def shell(variant: RenderedVariant, tally: str) -> int:
        # the subject stands in <title> and in the label of the body
        return 2 * size(escape(variant.subject)) + size(escape(variant.preheader)) + size(tally)

    kept = 3 * 5 * sandbox.LINE_BYTES + 200
    assert full.html_size == costs + dressed.shell_cost - kept + shell(full, "12 stories")
    assert empty.html_size == dressed.shell_cost - kept + shell(empty, "Nothing new this time.")


def test_costs_of_text_are_of_text(layout: Layout) -> None:
    plain = layout.open(VIEW, Dress("en", Format.TEXT))
    variant = plain.assemble(SECTIONS)
    assert variant.html_body is None
    assert variant.html == ""
    assert variant.text == layout.open(VIEW, Dress()).assemble(SECTIONS).text
    assert variant.html_size < 20_000


def test_a_sender_gets_the_same_bytes_without_the_show(dressed: Dressed) -> None:
    full = dressed.assemble(SECTIONS, more=1)
    assert dressed.assemble(SECTIONS, more=1, show=False) == replace(full, html="", text="")


def test_the_budget_holds_a_full_digest(dressed: Dressed) -> None:
    """Mail programs clip at about 102 KB. A card costs ≤ 3 KB, so that thirty fit; the shell takes a tenth."""
    costs = [dressed._story(story, True, "card").cost for section in SECTIONS for story in section.stories]
    assert max(costs) <= 3_800  # with two stories that tell the same
    assert sum(costs) / len(costs) <= 3_000
    assert dressed.shell_cost < 16_000


def test_a_card_of_the_same_id_but_other_text_is_rendered_anew(dressed: Dressed) -> None:
    for title in ("First", "Second"):
        assert tree(dressed.assemble(one(title))).xpath("//h3")[0].text_content() == title


def test_html_and_text_tell_the_same(dressed: Dressed) -> None:
    variant = dressed.assemble(SECTIONS, more=3)
    links = [a.get("href") for a in tree(variant).xpath("//td[contains(@class,'card') or @class='in font']//h3//a")]
    also = tree(variant).xpath("//div[contains(@class,'also')]//a/@href")
    titles = [" ".join(h.text_content().split()) for h in tree(variant).xpath("//h3")]
    stories = [story for section in SECTIONS for story in section.stories]
    assert titles == [story.lead.title for story in stories]
    assert links == [story.lead.url for story in stories]
    assert also == [article.url for story in stories for article in story.also]
    flat = " ".join(variant.text.split())
    position = -1
    for section in SECTIONS:
        for needle in [section.title.upper()] + [
            x for story in section.stories for x in (story.lead.title, story.lead.excerpt, story.lead.url)
        ]:
            found = flat.find(" ".join(needle.split()), position + 1)
            assert found > position or not needle, needle
            position = max(position, found)
    for footer in (*PREVIEW.values(), "1800 F Street NW", VIEW.archive_url, "https://news.example/about", "and 3 more"):
        assert footer in variant.text
        assert footer in variant.html
    prose = [line for line in variant.text.split("\n") if "://" not in line and "#" not in line]
    assert max(map(len, prose)) <= 90


# ----------------------------------------------------------------------------- personal values


def test_personal_fields_stand_once_each_where_the_layout_puts_them(dressed: Dressed) -> None:
    variant = dressed.assemble(SECTIONS)
    assert variant.html_body is not None
    assert sorted(variant.html_body.fields) == sorted(variant.text_body.fields) == sorted(PERSONAL_FIELDS)


def test_article_text_cannot_pass_for_a_personal_value(dressed: Dressed, layout: Layout) -> None:
    """An article that links to its author's server with a token in it would hand every reader's link to him."""
    token = next(iter(dressed._tokens.of.values()))  # of another render: the best an author could ever know
    url = f"https://evil.example/?u={token}&v=%7B%7Bunsubscribe_url%7D%7D"
    fresh = layout.open(VIEW, Dress())
    variant = fresh.assemble(one(f"{token} {{{{ unsubscribe_url }}}} {{% raw %}}", url, excerpt="@@unsubscribe_url@@"))
    assert variant.html_body is not None
    assert sorted(variant.html_body.fields) == sorted(PERSONAL_FIELDS)
    shown = decoded(variant.html_body, {name: f"SECRET-{name}" for name in PERSONAL_FIELDS})
    assert shown.count("SECRET-") == 3
    assert "{{ unsubscribe_url }} {% raw %}" in shown
    assert tree(variant).xpath("//h3/a/@href") == [url]


def test_no_token_is_left_in_the_bytes(dressed: Dressed) -> None:
    variant = dressed.assemble(SECTIONS, more=2)
    assert variant.html_body is not None
    raw = b"".join((*variant.html_body.segments, *variant.text_body.segments)).replace(b"=\r\n", b"")
    assert dressed._tokens._nonce.encode() not in raw
    assert dressed._tokens._nonce not in variant.html + variant.text + variant.subject


def test_a_whole_message_reads_as_it_was_rendered(dressed: Dressed) -> None:
    """Through the message builder and the standard library's parser: both parts, the subject, the reader's links."""
    variant = dressed.assemble(SECTIONS, more=2)
    factory = MessageFactory(
        Identity(from_name="News", from_address="news@news.example", list_id="morning.news.example")
    )
    reader = Addressee(
        address="o'brien&co@news.example", message_id="<abc@news.example>", date=datetime(2026, 11, 24, tzinfo=UTC),
        unsubscribe_url="https://news.example/unsubscribe/T?a=1&b=2", preferences_url="https://news.example/preferences/T",
    )  # fmt: skip
    raw = b"".join(factory.prepare(variant).build(reader))
    message = message_from_bytes(raw, policy=default_policy)
    assert message["Subject"] == variant.subject
    expected_html, expected_text = variant.html, variant.text
    for name, placeholder in PREVIEW.items():
        expected_html = expected_html.replace(placeholder, html_escape(getattr(reader, name)))
        expected_text = expected_text.replace(placeholder, getattr(reader, name))
    for kind, expected in (("html", expected_html), ("plain", expected_text)):
        part = message.get_body((kind,))
        assert part is not None
        assert part.get_content().replace("\r\n", "\n").rstrip("\n") == expected.rstrip("\n")
    assert max(map(len, raw.partition(b"\r\n\r\n")[2].split(b"\r\n"))) <= 76


# ----------------------------------------------------------------------------- hostile articles

HOSTILE = (
    "</mj-text><mj-raw><script>alert(1)</script>",
    "{{ 7*7 }} {% for x in y %} {# no #}",
    '" onmouseover="alert(1)" x="',
    "' onmouseover='alert(1)' x='",
    "<img src=x onerror=alert(1)>",
    "]]> <!-- <![endif]-->",
    "\x00\x0b\x1b[31m\ud800\udfff\ufffe\u2028line",
    "=?utf-8?q?=0D=0ABcc:_evil@x?=",
    "\u202egpj.exe",
    "x" * 2_000_000,
    "From here\n.\n..\nFrom there",
    "",
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_article_stays_text(dressed: Dressed, text: str) -> None:
    calm = dressed.assemble(one("Calm"))
    story = ArticleCard(
        id=2, title=text, url="https://news.example/b", excerpt=text, authors=(text,), category=text,
        image=Image("https://news.example/p.jpg", 1200, 600, alt=text), published_at=datetime(2026, 7, 1, tzinfo=UTC),
    )  # fmt: skip
    variant = dressed.assemble((Section(text[:200], (StoryCard(story, (story,)),)),))
    assert variant.html_body is not None
    assert decoded(variant.html_body) == variant.html
    assert decoded(variant.text_body) == variant.text
    page = tree(variant)
    assert not page.xpath("//script | //*[@onerror or @onmouseover]")
    kinds = {element.tag for element in page.iter() if isinstance(element.tag, str)}
    assert kinds <= {element.tag for element in tree(calm).iter()} | {"h2", "img", "bdi", "br", "h3", "div"}
    assert "49" not in variant.subject
    for line in (variant.subject, variant.preheader):
        assert "\n" not in line
        assert "=?" not in line
        assert len(line.encode()) <= 200
    assert not re.search("[\x00-\x08\x0b-\x1f\u2028\u202e]", variant.html + variant.text)
    assert variant.html_size < calm.html_size + 15_000


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "/relative", "//evil.example/x", "mailto:a@b.c",
     "https:///nohost", "http://a b/", 'https://x/"><script>', "https://x/\nBcc:", "ftp://x/y", "", "https://[::1",
     "https://x/" + "a" * 3_000],
)  # fmt: skip
def test_only_absolute_web_links_are_links(dressed: Dressed, url: str) -> None:
    assert safe_url(url) == ""
    variant = dressed.assemble(one("Linkless", url, image=Image(url, 1200, 600)))
    assert "Linkless" in variant.html
    assert "Linkless" in variant.text
    assert not tree(variant).xpath("//h3/a")
    assert not tree(variant).xpath("//img")
    if url and len(url) < 100:
        assert f'"{url}"' not in variant.html


def test_unsafe_links_of_the_publication_are_text() -> None:
    brand = replace(
        BRAND, url="javascript:1", logo_url="data:image/png;base64,x", footer_links=(("Imprint", "javascript:1"),)
    )
    view = replace(VIEW, brand=brand, archive_url="javascript:1", home_url="nonsense")
    variant = Renderer().layout("cards").open(view, Dress()).assemble(SECTIONS, more=2)
    assert "Imprint" in variant.html
    assert "javascript" not in variant.html + variant.text
    assert "data:image" not in variant.html


# ----------------------------------------------------------------------------- the layout's own quality


def test_the_document_is_sound(dressed: Dressed) -> None:
    html = dressed.assemble(SECTIONS, more=2).html
    assert html.startswith("<!DOCTYPE html>")
    assert "<mj-" not in html
    assert "fonts.googleapis" not in html
    assert html.count("<!--[if mso | IE]>") >= 4
    assert html.count("<!--[if") == html.count("<![endif]")
    assert "prefers-color-scheme: dark" in html
    assert "[data-ogsc]" in html
    assert "!important" in html
    page = lxml_html.document_fromstring(html)
    assert all(table.get("role") == "presentation" for table in page.xpath("//table"))
    assert all(image.get("alt") is not None and image.get("width") for image in page.xpath("//td//img"))
    assert page.get("lang") == "en"
    assert page.get("dir") == "ltr"
    hidden = page.xpath("//div[@class='pre']")[0]
    assert "color" not in hidden.get("style")
    assert len(page.xpath("//h1")) == 1
    assert len(page.xpath("//h2")) == 3


def test_styles_are_in_the_elements(dressed: Dressed) -> None:
    """Many mail programs drop <style>: without it, sizes, colours and the accent must still be there."""
    page = tree(dressed.assemble(SECTIONS))
    for query, needles in {
        "//h3/a": ("color:#17191c", "text-decoration:none"),
        "//h3": ("font-size:23px", "Georgia"),
        "//td[contains(@class,'in ')]": ("padding:22px", "font-family", "text-align:left"),
        "//p[contains(@class,'kick')]": (f"color:{palette(BRAND.accent)['ink']}",),
    }.items():
        style = page.xpath(query)[0].get("style")
        assert all(needle in style for needle in needles), style


def test_a_heading_is_not_repeated_on_its_cards(dressed: Dressed) -> None:
    story = StoryCard(replace(_CARDS[0], category="Security"))
    headed = dressed.assemble((Section("Security", (story,)),))
    plain = dressed.assemble((Section("", (story,)),))
    assert len(tree(headed).xpath("//p[contains(@class,'kick')]")) == 0
    assert len(tree(plain).xpath("//p[contains(@class,'kick')]")) == 1
    assert "[Security]" not in headed.text
    assert "[Security]" in plain.text


def test_dates_are_on_the_editions_clock(layout: Layout) -> None:
    late = datetime(2026, 11, 24, 3, 30, tzinfo=UTC)  # still the 23rd in New York
    variant = layout.open(VIEW, Dress()).assemble(one(published_at=late))
    assert "Nov\u00a023" in variant.text, "and no line ends in it"
    assert "Tuesday, November 24, 2026" in variant.text
    german = layout.open(VIEW, Dress("de")).assemble(one(published_at=datetime(2025, 3, 1, 12, tzinfo=UTC)))
    assert "Dienstag, 24. November 2026" in german.text
    assert "1.\u00a0März\u00a02025" in german.text


def test_a_language_from_the_right_runs_from_the_right(layout: Layout) -> None:
    page = tree(layout.open(VIEW, Dress("ar")).assemble(SECTIONS))
    assert page.get("lang") == "ar"
    assert page.get("dir") == "rtl"
    styles = " ".join(page.xpath("//body//@style"))
    assert "direction:ltr" not in styles
    assert "text-align:right" in page.xpath("//td[contains(@class,'in ')]")[0].get("style")
    assert "text-align:left" in page.xpath("//td[contains(@class,'far')]")[0].get("style")
    assert "margin-right:18px" in page.xpath("//img[contains(@class,'side')]")[0].get("style")


def test_tall_and_small_pictures_stand_beside_the_text(dressed: Dressed) -> None:
    shapes = {(1200, 600): "wide", (None, None): "wide", (600, 900): "side", (300, 200): "side", (1000, 1000): "side"}
    for (width, height), kind in shapes.items():
        page = tree(dressed.assemble(one(image=Image("https://news.example/p.jpg", width, height, "x"))))
        assert [c.split()[0] for c in page.xpath("//img/@class")] == [kind]
    assert not tree(dressed.assemble(one(image=Image("https://news.example/p.gif", 1, 1)))).xpath("//img")


def test_an_edition_without_stories_still_reads(dressed: Dressed) -> None:
    variant = dressed.assemble(())
    assert "Nothing new this time." in variant.text
    assert variant.subject.startswith("The Morning Digest")


def test_the_same_edition_gives_the_same_mail(layout: Layout) -> None:
    first, second = (layout.open(VIEW, Dress()).assemble(SECTIONS, more=1) for _ in range(2))
    assert first == second


@given(st.from_regex("#[0-9a-fA-F]{6}", fullmatch=True))
def test_any_accent_is_readable(accent: str) -> None:
    colours = palette(accent)
    for paper in (PAPER, "#f4f5f2"):
        assert contrast(colours["ink"], paper) >= READABLE
    for paper in (PAPER_DARK, "#111316"):
        assert contrast(colours["ink_dark"], paper) >= READABLE
    assert contrast(colours["on_accent"], accent) >= READABLE


def test_a_colour_that_is_none_falls_back() -> None:
    assert palette("red;}</style><script>")["accent"] == "#0b5fad"
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


# ----------------------------------------------------------------------------- subjects and preheaders


def test_defaults_of_the_layout(dressed: Dressed) -> None:
    variant = dressed.assemble(SECTIONS)
    assert variant.subject == "The Morning Digest: Rebuilding CDC.gov"
    assert variant.preheader.startswith("Reduce, remove, remediate: PDFs and government websites · Designing")
    assert variant.preheader.endswith("…")
    assert variant.html.count(escape(variant.preheader)) == 1


def test_a_digests_own_lines(layout: Layout) -> None:
    view = replace(
        VIEW, subject="{{ count }} from {{ brand.name }}, {{ edition.date }}", preheader="{{ lead.title | upper }}"
    )
    variant = layout.open(view, Dress()).assemble(SECTIONS)
    assert variant.subject == "12 from Digital.gov, Tuesday, November 24, 2026"
    assert variant.preheader == "REBUILDING CDC.GOV"


@given(st.text(max_size=400), st.integers(10, 200))
def test_a_line_is_one_clean_short_line(text: str, limit: int) -> None:
    line = sandbox.one_line(text, limit)
    assert len(line.encode()) <= limit
    assert line == " ".join(line.split())
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", line)


def test_a_line_is_cut_at_a_word() -> None:
    assert sandbox.one_line("one two three four", 12) == "one two…"
    assert sandbox.one_line("ü" * 200, 20) == "ü" * 8 + "…"


@pytest.mark.parametrize(
    ("template", "says"),
    [("{{ digest.nam }}", "nam"), ("{{ digest.name", "unexpected end of template"),
     ("{% for x in others %}{{ x }}{% endfor %}", "'for'"),
     ("{{ nonsense }}", "nonsense"), ("{% include 'x' %}", "'include'"), ("{{ lead.title.upper() }}", "'call'"),
     ("{% set x = 1 %}", "'assign'"), ("{{ 'x' | center(100000) }}", "center"), ("x" * 1_001, "longer"),
     ("{{ count | nofilter }}", "nofilter"), ("{{ 'a' * 1000000000 }}", "'mul'")],
)  # fmt: skip
def test_a_broken_line_says_so_when_it_is_set(template: str, says: str) -> None:
    with pytest.raises(RenderError, match="subject template") as caught:
        check_line(template)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["{{ digest.name }}", "{% if count > 1 %}{{ others[0] }}{% else %}–{% endif %}", "Plain", ""]
)
def test_a_sound_line_passes(line: str) -> None:
    check_line(line)
    check_line(line, "preheader")


# ----------------------------------------------------------------------------- the sandbox

ATTACKS = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ digest.__class__ }}", "{{ digest.__init__.__globals__ }}",
    "{{ config }}", "{{ self.__init__.__globals__ }}", "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__ }}", "{{ joiner }}", "{{ digest|attr('__class__') }}", "{{ ''['__class__'] }}",
    "{{ '{0.__class__}'.format(digest) }}", "{{ '%s' % digest }}", "{{ '%1000000000d' % 1 }}",
    "{{ range(10**9) | list }}", "{{ range(1001) | list }}", "{{ 'x' * 10**9 }}", "{{ [1] * 10**9 }}",
    "{{ 10 ** 10 ** 10 }}", "{{ 2 ** 10000 }}", "{{ 'x'.center(10**9) }}", "{{ 'x' | center(10**9) }}",
    "{{ digest.update({'name': 1}) }}", "{{ digest.clear() }}", "{{ digest.pop('name') }}", "{{ others.append(1) }}",
    "{{ ('a' * 90000) | replace('a', 'b' * 90000) }}", "{{ (['a' * 90000] * 90000) | join }}",
    "{% for a in range(999) %}{% for b in range(999) %}{% for c in range(999) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set ns = namespace(a='xxxxxxxxxx') %}{% for i in range(100) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
    "{% set ns = namespace(a=99) %}{% for i in range(1000) %}{% set ns.a = ns.a * ns.a %}{% endfor %}",
    "{% for i in range(1000) %}{{ 'x' * 90000 }}{% endfor %}",
    "{% include '/etc/passwd' %}", "{% extends 'x' %}", "{% import 'os' as os %}", "{{ 1 / 0 }}",
    "{{ digest.name.encode('utf-7') }}", "{{ [].__len__() }}", "{{ words.items() }}",
)  # fmt: skip


@pytest.mark.parametrize("source", ATTACKS)
@pytest.mark.parametrize("environment", [sandbox.html_environment, sandbox.text_environment])
def test_a_template_cannot_leave_its_sandbox_nor_run_without_end(source: str, environment: object) -> None:
    values = {"digest": {"name": "N"}, "others": ["x"], "words": {"a": "b"}}
    started = time.process_time()
    with pytest.raises(RenderError) as caught, sandbox.explained("templates/email/x/edition.mjml"):
        sandbox.render(environment().from_string(source), values)  # type: ignore[operator]
    assert time.process_time() - started < 2
    assert re.match(r"templates/email/x/edition\.mjml:(1:)? ", str(caught.value))
    assert values == {"digest": {"name": "N"}, "others": ["x"], "words": {"a": "b"}}


def test_article_text_is_never_safe_markup() -> None:
    """There is no filter that lets article text through unescaped, and joining does not either."""
    with pytest.raises(RenderError, match="safe"), sandbox.explained("x"):
        sandbox.html_environment().from_string("{{ t | safe }}")
    with sandbox.explained("x"):
        for source in ("{{ t ~ t }}", "{{ [t, t] | join }}", "{{ t | replace('x', 'y') }}", "{{ t + t }}",
                       "{{ t | wrap }}", "{{ '{a}' | fill(a=t) }}", "{{ (t | e) ~ t }}"):  # fmt: skip
            template = sandbox.html_environment().from_string(source)
            assert "<b>" not in sandbox.render(template, {"t": "<b>"})


def test_the_purse_does_not_run_out_over_many_renders(layout: Layout) -> None:
    for _ in range(30):
        layout.open(VIEW, Dress()).assemble(SECTIONS)
    assert sandbox._purse.get() is None


# ----------------------------------------------------------------------------- layouts of the operator


def operator_layout(root: Path, name: str = "own", **changes: tuple[str, str] | str) -> Renderer:
    """A copy of a shipped layout, shared parts included, under another name, with one text in it replaced."""
    folder = root / "email" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, source in Renderer()._read_layout("cards").items():
        text = source.text
        change = changes.get(file.split(".")[1])
        if isinstance(change, str):
            text = change
        elif change:
            assert change[0] in text, "the test no longer fits the shipped layout"
            text = text.replace(*change, 1)
        (folder / file).write_text(text, "utf-8")
    return Renderer([root])


def test_the_operators_folder_comes_first(tmp_path: Path) -> None:
    templates = operator_layout(tmp_path, mjml=("<h1 class", '<h1 id="mine" class'))
    assert templates.layouts() == [*SHIPPED, "own"]
    assert 'id="mine"' in templates.layout("own").open(VIEW, Dress()).assemble(SECTIONS).html
    (tmp_path / "email" / "cards").mkdir()
    (tmp_path / "email" / "cards" / "edition.txt").write_text(
        "MINE {% block stories %}{% for section in sections %}{% block section scoped %}{% endblock %}{% for story in"
        " section.stories %}{% block card scoped %}{{ story.title }};{% endblock %}{% endfor %}{% endfor %}"
        "{% if more %}{% block more scoped %}{% endblock %}{% endif %}{% endblock %}{{ unsubscribe_url }}"
    )
    variant = templates.layout("cards").open(VIEW, Dress()).assemble(one("Only the text part is mine"))
    assert variant.text == "MINE Only the text part is mine;#unsubscribe"
    assert 'id="mine"' not in variant.html


def test_an_edited_template_is_seen_at_once_and_compiled_once(tmp_path: Path) -> None:
    templates = operator_layout(tmp_path)
    before = templates.layout("own")
    assert templates.layout("own") is before
    assert Renderer([tmp_path]).layout("own") is before
    operator_layout(tmp_path, mjml=("<h1 class", '<h1 id="edited" class'))
    after = templates.layout("own")
    assert after.hash != before.hash
    assert "edited" in after.open(VIEW, Dress()).assemble(SECTIONS).html


BROKEN = [
    ({"mjml": ("</mj-column>", "</mj-txet></mj-column>")}, r"edition\.mjml:\d+:\d+: </mj-txet> where </mj-column> was"),
    ({"mjml": ("</mj-column>", "")}, r"edition\.mjml:\d+:\d+: </mj-section> where </mj-column> was expected"),
    ({"mjml": ("</mjml>", "")}, r"edition\.mjml:1:1: <mjml> is never closed"),
    ({"mjml": ("<mj-column>", '<mj-include path="/etc/passwd" /><mj-column>')}, "mj-include> is not supported"),
    ({"mjml": ("{{ story.title }}", "{{ story.titel }}")}, r"edition\.mjml:\d+: .*titel"),
    ({"mjml": ("{{ digest.name }}", "{{ digest.name")}, r"edition\.mjml:\d+: "),
    ({"mjml": ("{% endblock %}{% endif %}{% endfor %}", "{% endif %}{% endfor %}")}, r"edition\.mjml:\d+: "),
    ({"mjml": ("{% block more scoped %}", "{% block rest scoped %}")}, "edition.mjml: block 'more' is missing"),
    ({"mjml": ("{% endfor %}{% endfor %}{% if more", "{% endfor %}between{% endfor %}{% if more")}, "something stands"),
    ({"mjml": ("<mj-column>", "<mj-column><mj-text>1 < 2</mj-text>")}, "begins no tag"),
    ({"mjml": ("</mj-column>", f"<mj-text>{'<b>' * 9_500}{'</b>' * 9_500}</mj-text></mj-column>")}, "nested too deep"),
    ({"mjml": ("{{ digest.name }}", "{% for a in range(999) %}" * 2 + "{% endfor %}" * 2)}, "more than 50000 steps"),
    ({"mjml": ("{{ unsubscribe_url }}", "{{ unsubscribe_url | upper }}")}, "changed by a filter"),
    ({"mjml": "Not MJML at all"}, r"edition\.mjml:1:1: text has no place directly in the file"),
    ({"txt": ("{{ story.title | wrap }}", "{{ story.titel | wrap }}")}, r"edition\.txt:\d+: .*titel"),
    ({"txt": ("{% endblock %}", "")}, r"edition\.txt:\d+: "),
    ({"toml": 'subject = "{{ nope }}"'}, r"layout\.toml: the subject template: 'nope' is undefined"),
    ({"toml": 'subject = "'}, r"layout\.toml: Unterminated string"),
    ({"toml": 'colour = "red"'}, r"layout\.toml: 'colour' is not a text setting"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "says"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_layout_costs_one_sentence(tmp_path: Path, changes: dict[str, tuple[str, str]], says: str) -> None:
    templates = operator_layout(tmp_path, **changes)
    with pytest.raises(RenderError, match=says) as caught:
        templates.layout("own").open(VIEW, Dress()).assemble(SECTIONS)
    assert str(caught.value).startswith("templates/email/own/")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert templates.layout("cards").name == "cards"


def test_a_compiler_that_takes_too_long_is_killed_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = operator_layout(tmp_path, mjml=("<h1 class", '<h1 id="slow" class'))
    monkeypatch.setattr(apart, "COMPILE_SECONDS", 0.01)
    with pytest.raises(RenderError, match=r"edition\.mjml: does not compile within 0\.01 seconds"):
        templates.layout("own")
    monkeypatch.undo()
    assert templates.layout("own").name == "own"


def test_what_was_compiled_is_found_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operator_layout(tmp_path, mjml=("<h1 class", '<h1 id="kept" class'))
    html = Renderer([tmp_path], keep=tmp_path / "kept").layout("own").open(VIEW, Dress()).assemble(SECTIONS).html
    for known in (renderer._compiled, renderer._layouts):
        known.clear()  # as a process that has just started
    monkeypatch.setattr(apart, "COMPILE_SECONDS", 0.001)  # a child could not even start
    again = Renderer([tmp_path], keep=tmp_path / "kept").layout("own").open(VIEW, Dress()).assemble(SECTIONS).html
    assert again == html
    assert 'id="kept"' in again
    renderer._compiled.clear()
    (tmp_path / "kept" / "own.json").write_text("{")  # half a file is no file
    with pytest.raises(RenderError, match="does not compile within"):
        Renderer([tmp_path], keep=tmp_path / "kept").layout("own")


def test_the_last_good_version_stays_in_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    templates = Renderer([tmp_path], keep=tmp_path / "kept")
    operator_layout(tmp_path, mjml=("<h1 class", '<h1 id="good" class'))
    good = templates.layout("own")
    for broken in (
        {"mjml": ("</mj-column>", "</mj-txet></mj-column>")}, {"txt": ("{{ story.title | wrap }}", "{{ story.tile }}")},
        {"toml": "subject = 1"}, {"mjml": ("{{ digest.name }}", "{% include '../../../../etc/passwd' %}")},
    ):  # fmt: skip
        operator_layout(tmp_path, **broken)  # type: ignore[arg-type]
        for renderer_of_today in (templates, Renderer([tmp_path], keep=tmp_path / "kept")):
            caplog.clear()
            variant = renderer_of_today.layout("own").open(VIEW, Dress("de")).assemble(SECTIONS)
            assert 'id="good"' in variant.html
            assert renderer_of_today.check("own")
        with pytest.raises(RenderError):
            Renderer([tmp_path]).layout("own")
    operator_layout(tmp_path, mjml=("<h1 class", '<h1 id="mended" class'))
    assert templates.layout("own").hash != good.hash
    assert 'id="mended"' in templates.layout("own").open(VIEW, Dress()).assemble(SECTIONS).html
    with pytest.raises(RenderError, match="there is no layout 'gone'"):
        templates.layout("gone")


def test_what_is_included_is_told_by_its_own_name_and_line(tmp_path: Path) -> None:
    shared = tmp_path / "email" / "shared" / "box.mjml"
    shared.parent.mkdir(parents=True)
    shared.write_text('<mj-raw>\n  <div class="box">{{ digest.name }}</div>\n</mj-raw>\n')
    templates = operator_layout(
        tmp_path, mjml=("    <mj-section>", '    {% include "shared/box.mjml" %}\n    <mj-section>')
    )
    page = tree(templates.layout("own").open(VIEW, Dress()).assemble(SECTIONS))
    assert page.xpath("//div[@class='box']/text()") == [VIEW.digest_name]
    for text, says in (
        ("<mj-raw>\n  <dvi></dvi>\n</mj-raw>\n", "templates/email/shared/box.mjml:2:3: <dvi> is not a tag of HTML"),
        (
            "<mj-raw>\n\n{{ digest.nmae }}\n</mj-raw>\n",
            "templates/email/shared/box.mjml:3: 'dict object' has no attribute",
        ),
        ("<mj-raw>\n{{ digest.name }\n</mj-raw>\n", "templates/email/shared/box.mjml:2: "),
        ('{% include "shared/box.mjml" %}', "templates/email/shared/box.mjml:1:1: parts are included more than 3 deep"),
        (
            '\n {% include "shared/none.mjml" %}',
            "templates/email/shared/box.mjml:2:2: there is no templates/email/shared/none",
        ),
    ):
        shared.write_text(text)
        assert str(templates.check("own")[0]).startswith(says)


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "/etc/passwd", "shared/../../../etc/passwd", "shared/..", "file:///etc/passwd",
     "shared/a/b.mjml", "https://x.example/a.mjml", "shared/a.mjml\\0", "own/edition.mjml"],
)  # fmt: skip
def test_nothing_outside_of_shared_is_included(tmp_path: Path, path: str) -> None:
    for part, place in (("mjml", "<h1 class"), ("txt", "{{ edition.date }}")):
        templates = operator_layout(tmp_path, **{part: (place, f'{{% include "{path}" %}}{place}')})
        with pytest.raises(RenderError, match=rf"edition\.{part}:\d+:\d+: .*cannot be included"):
            templates.layout("own")
    templates = operator_layout(tmp_path, mjml=("<h1 class", "{% include lang %}<h1 class"))
    with pytest.raises(RenderError, match=r"edition\.mjml:\d+:\d+: lang cannot be included"):
        templates.layout("own")


def test_a_layout_that_is_not_there() -> None:
    with pytest.raises(RenderError, match=r"there is no layout 'nope'; there are: briefing, cards, headlines, hero$"):
        Renderer().layout("nope")
    for name in ("../cards", "", "Cards", "a/b", "."):
        with pytest.raises(RenderError, match="not a layout's name"):
            Renderer().layout(name)


def test_a_template_that_is_not_text(tmp_path: Path) -> None:
    templates = operator_layout(tmp_path)
    (tmp_path / "email" / "own" / "edition.mjml").write_bytes(b"<mjml>\xff\xfe")
    with pytest.raises(RenderError, match=r"templates/email/own/edition\.mjml: cannot be read as UTF-8"):
        templates.layout("own")
    (tmp_path / "email" / "own" / "edition.mjml").write_text("<mjml>" + " " * 200_001)
    with pytest.raises(RenderError, match="longer than 200000"):
        templates.layout("own")


def test_compiling_never_reaches_for_the_network_or_a_file(tmp_path: Path) -> None:
    """Style sheets can import; the inliner's parser would fetch them, files too."""
    secret = tmp_path / "secret.css"
    secret.write_text(".text { color: #abcdef }")
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        imports = f"@import url(http://127.0.0.1:{server.server_port}/a.css); @import url(file://{secret});"
        source = Renderer()._read_layout("cards")["edition.mjml"].text
        source = source.replace('<mj-style inline="inline">', f'<mj-style inline="inline">{imports}')
        html = compile_mjml("x", source.replace("<mj-style>", f"<mj-style>{imports}"))
        server.shutdown()
    assert asked == []
    assert "#abcdef" not in html


def test_expressions_survive_every_parser_on_the_way() -> None:
    """Blanks, quotes, comparisons and tags in an expression are nothing that MJML or the inliner should see."""
    source = """<mjml><mj-head><mj-style inline="inline">
    .a { color: {{ "#00f" if 1 < 2 else '#f00' }}; width: {{ w }}px !important; }</mj-style></mj-head>
    <mj-body><mj-section><mj-column><mj-text align="{{ "le" ~ "ft" }}"><a class="a"
    href="{{ url("x", '<y>') }}" title="{{ "a > b" }}">{% if a < b and c > d %}{{ "<b>" }}{% endif %}{# gone #}</a>
    </mj-text></mj-column></mj-section></mj-body></mjml>"""
    html = compile_mjml("x", source)
    for expression in ("""{{ "#00f" if 1 < 2 else '#f00' }}""", "{{ w }}px", """{{ url("x", '<y>') }}""",
                       '{{ "a > b" }}', "{% if a < b and c > d %}", '{{ "<b>" }}', '{{ "le" ~ "ft" }}'):  # fmt: skip
        assert expression in html
    assert "gone" not in html
    assert "color:{{" in html.partition("<body")[2]
    assert "{{ w }}px !important" in html.partition("<body")[2]


def test_threads_share_one_compilation(tmp_path: Path) -> None:
    operator_layout(tmp_path, mjml=("<h1 class", '<h1 id="threads" class'))
    found: list[Layout] = []
    threads = [threading.Thread(target=lambda: found.append(Renderer([tmp_path]).layout("own"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(map(id, found))) == 1


# ----------------------------------------------------------------------------- system mails


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_confirmation(language: str) -> None:
    link = "https://news.example/confirm/TOKEN?a=1&b=2"
    params = {"confirm_url": link, "digest_name": "News <script> & more\r\nBcc: x@y.z"}
    mail = Renderer().system("confirm", BRAND, params, language)
    page = lxml_html.document_fromstring(mail.html)
    assert page.xpath("//a/@href") == [link, link]
    assert link in mail.text.split("\n")
    assert page.get("dir") == ("rtl" if language == "ar" else "ltr")
    assert not page.xpath("//script")
    assert "\n" not in mail.subject
    assert "News <script> & more" in mail.subject
    assert "1800 F Street NW" in mail.text
    assert max(len(line) for line in mail.text.split("\n")) <= 100


def test_a_system_mail_that_lacks_something(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"templates/system/confirm\.html:\d+: 'confirm_url' is undefined"):
        Renderer().system("confirm", Brand(), {"digest_name": "x"}, "en")
    with pytest.raises(RenderError, match=r"there is no system mail 'nope\.html'"):
        Renderer().system("nope", Brand(), {}, "en")
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / "confirm.txt").write_text("Mine: {{ confirm_url }}")
    mail = Renderer([tmp_path]).system("confirm", Brand(), {"digest_name": "x", "confirm_url": "https://a/b"}, "xx")
    assert mail.text == "Mine: https://a/b"
    assert 'lang="en"' in mail.html


def test_an_unknown_language_is_told(layout: Layout) -> None:
    with pytest.raises(RenderError, match="no words for language 'en'"):
        replace(layout, words={}).open(VIEW, Dress())


# ----------------------------------------------------------------------------- speed


def test_a_variant_is_joined_not_rendered(layout: Layout) -> None:
    """A variant of known cards costs a small part of rendering them."""
    fresh = [layout.open(replace(VIEW, edition_id=n), Dress()) for n in range(5)]
    started = time.process_time()
    for dressed in fresh:
        dressed.assemble(SECTIONS)
    rendered = (time.process_time() - started) / len(fresh)
    started = time.process_time()
    for n in range(200):
        fresh[0].assemble(SECTIONS[n % 2 :])
    joined = (time.process_time() - started) / 200
    assert joined < rendered / 5


def test_the_samples_are_what_the_trial_needs() -> None:
    assert any(not safe_url(s.lead.url) for section in SAMPLE_SECTIONS for s in section.stories)
    assert isinstance(SAMPLE_VIEW, EditionView)
    assert WHEN.tzinfo is not None
