"""The text pipeline: safe, readable, the same every time, and in bounded time."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest.text import (
    canonical_url,
    clean,
    clean_title,
    count_words,
    cut_sentence,
    decode,
    mend,
    nearest,
    paragraphs,
    plain,
    sanitize,
    slugify,
    strip_controls,
)
from digest.types import CleanArticle, Image, RawArticle, Skipped

URL = "https://news.example/2025/06/01/a-title/"


def article(**fields: Any) -> CleanArticle:
    made = clean(RawArticle(**{"url": URL, "title": "A title", **fields}))
    assert isinstance(made, CleanArticle)
    return made


# ----------------------------------------------------------------------------- characters


def test_characters_that_xml_forbids_go_and_halves_of_pairs_are_joined() -> None:
    assert strip_controls("a\x00\x0b\x1f\ufffe\uffff\ufdd0b") == "ab"
    assert strip_controls("a\x0bb") == "ab"
    assert strip_controls("\u202eABC\u202c \u2066x\u2069") == "ABC x"
    assert strip_controls("a\ud800b \ud83d\udd25") == "ab 🔥"
    assert strip_controls("\x93quoted\x94 a\r\nb\rc\td") == "“quoted” a\nb\nc\td"
    assert strip_controls("ümlaut \u200f שלום 中文") == "ümlaut \u200f שלום 中文"


@given(st.text())
def test_what_is_left_fits_into_xml_and_utf8(text: str) -> None:
    kept = strip_controls(text)
    assert strip_controls(kept) == kept
    assert kept.encode("utf-8").decode("utf-8") == kept
    assert not re.search("[\x00-\x08\x0b-\x1f\ufffe\uffff\u202a-\u202e\u2066-\u2069]", kept)


@pytest.mark.parametrize(
    ("data", "declared", "text"),
    [
        ("Grüße".encode(), None, "Grüße"),
        ("Grüße".encode("cp1252"), None, "Grüße"),
        ("“Grüße”".encode("cp1252"), "iso-8859-1", "“Grüße”"),
        ("Grüße".encode("cp1252"), "utf-8", "Grüße"),
        ("Grüße".encode(), "us-ascii", "GrÃ¼ÃŸe"),
        (b"\xef\xbb\xbf" + "Grüße".encode(), "latin-1", "Grüße"),
        (b"\xff\xfe" + "Grüße".encode("utf-16-le"), None, "Grüße"),
        ("Привет".encode("koi8-r"), "koi8-r", "Привет"),
        ('<?xml version="1.0" encoding="koi8-r"?>Привет'.encode("koi8-r"), None, None),
        (b"plain", "no-such-charset", "plain"),
        (b"plain", "hex", "plain"),
        (b"\x81\x8d", None, "\ufffd\ufffd"),
    ],
)
def test_decode(data: bytes, declared: str | None, text: str | None) -> None:
    assert decode(data, declared) == (text or data.decode("koi8-r"))


# ----------------------------------------------------------------------------- titles and slugs


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("One agency&#8217;s plan &#8211; Q&amp;A &amp;amp; more&nbsp;", "One agency’s plan – Q&A & more"),
        ("Twice &amp;#8217; escaped", "Twice ’ escaped"),
        ("AT&amp;T", "AT&T"),
        ("<b>Bold</b> <em class='x'>move</em>", "Bold move"),
        ("Hershey <HNH> sees rise", "Hershey <HNH> sees rise"),
        ("a < b and <3", "a < b and <3"),
        ("<script>alert(1)</script>Safe", "Safe"),
        ("  two\n lines\t ", "two lines"),
        ("🔥 Hot \u202eABC\u202c", "🔥 Hot ABC"),
        ("evil &#x202e; &#0; &#55296;", "evil � �"),
        ("e\u0301t\u00e9", "été"),
    ],
)
def test_titles(raw: str, title: str) -> None:
    assert clean_title(raw) == title


def test_a_plain_title_keeps_its_brackets_but_not_numeric_references() -> None:
    assert clean_title("The <b> tag &amp; you", is_html=False) == "The <b> tag &amp; you"
    assert clean_title("It&#8217;s", is_html=False) == "It’s"


def test_a_title_is_capped_at_a_word() -> None:
    title = clean_title("word " * 400_000)
    assert len(title) <= 300
    assert title.endswith("word…")
    assert len(clean_title("x" * 2_000_000)) == 300


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Climate Change", "climate-change"),
        ("climate-change", "climate-change"),
        ("Científicos & Más", "cientificos-mas"),
        ("Straße Øst Łódź", "strasse-ost-lodz"),
        ("agency's plan", "agencys-plan"),
        ("%e4%b8%ad%e5%9b%bd", "中国"),
        ("%D0%9D%D0%BE%D0%B2%D0%BE%D1%81%D1%82%D0%B8", "новости"),
        ("%e4%b8%ad%e5", "中"),
        ("हिन्दी समाचार", "हिन्दी-समाचार"),
        ("C++", "c"),
        ("🔥", "u1f525"),
        ("  ", ""),
        ("2025", "2025"),
        ("under_score", "under_score"),
        ("a--b__c", "a-b__c"),
    ],
)
def test_slugs(name: str, slug: str) -> None:
    assert slugify(name) == slug


@given(st.text(max_size=150))
def test_a_slug_is_its_own_slug_and_has_no_harm_in_it(text: str) -> None:
    slug = slugify(text)
    assert slugify(slug) == slug
    assert len(slug) <= 100
    assert not re.search(r"[\s/?#%&<>\"'.:+]", slug)


# ----------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTPS://News.Example:443/a/../b/./c", "https://news.example/b/c"),
        ("http://news.example:80", "http://news.example/"),
        ("http://news.example:8080/x", "http://news.example:8080/x"),
        ("https://news.example/?p=123", "https://news.example/?p=123"),
        ("https://news.example/?p=123&utm_source=rss", "https://news.example/?p=123"),
        ("https://x.example/s?utm_source=a&id=7&fbclid=b&q=a+b&at_medium=RSS#top", "https://x.example/s?id=7&q=a+b"),
        ("https://x.example/?b=2&a=1&b=1", "https://x.example/?b=2&a=1&b=1"),
        ("https://x.example/?utm_source=a", "https://x.example/"),
        ("https://x.example/#!/story/1", "https://x.example/#!/story/1"),
        ("https://x.example/a#b", "https://x.example/a"),
        ("https://user:pw@x.example/", "https://x.example/"),
        ("https://münchen.example/ü?q=ä", "https://xn--mnchen-3ya.example/%C3%BC?q=%C3%A4"),
        ("https://x.example/%7ejoe/%c3%bc%2f", "https://x.example/~joe/%C3%BC%2F"),
        ("https://x.example/100%", "https://x.example/100%25"),
        ("https://x.example/a b", "https://x.example/a%20b"),
        ("//x.example/a", "https://x.example/a"),
        ("https://x.example./a", "https://x.example/a"),
        ("https:\\\\x.example\\a", "https://x.example/a"),
        ("http://[2001:db8::1]:80/", "http://[2001:db8::1]/"),
        (" https://x.exa\nmple/a ", "https://x.example/a"),
        ("javascript:alert(1)", None),
        ("java\nscript:alert(1)", None),
        ("mailto:a@b.example", None),
        ("data:text/html,x", None),
        ("file:///etc/passwd", None),
        ("/relative", None),
        ("https:///nohost", None),
        ("https://x.example:port/", None),
        ("https://[::1/", None),
        ("https://a b/", None),
        ("https://" + "a" * 300 + ".example/", None),
        ("https://x.example/" + "a" * 3_000, None),
        ("tag:news.example,2025:1", None),
        ("", None),
    ],
)
def test_canonical_url(url: str, canonical: str | None) -> None:
    assert canonical_url(url) == canonical


def test_relative_addresses_meet_their_base() -> None:
    assert canonical_url("../b?x=1", URL) == "https://news.example/2025/06/01/b?x=1"
    assert canonical_url("?p=12", URL) == URL + "?p=12"
    assert canonical_url("//cdn.example/a", URL) == "https://cdn.example/a"
    assert canonical_url("http://[", URL) is None


@given(st.text(st.sampled_from("htps:/.?#&=%aAzü\\@[]1 中-_~"), max_size=40).map(lambda s: "https://x.example" + s))
def test_a_canonical_url_is_its_own(url: str) -> None:
    once = canonical_url(url)
    if once is not None:
        assert canonical_url(once) == once
        assert once.isascii()


# ----------------------------------------------------------------------------- HTML

DEBRIS = [
    ("< / li>>", "</li>"),
    ("< / li>", "</li>"),
    ("</ li >", "</li>"),
    ("<< li >", "<li>"),
    ("<<li>", "<li>"),
    ("< li >", "<li>"),
    ("< strong >", "<strong>"),
    ("< / strong >", "</strong>"),
    ("<< li >< strong >", "<li><strong>"),
    ("<li>>", "<li>"),
    ("< td >", "<td>"),
    ("< / td >< td >", "</td><td>"),
    ("< / tr >", "</tr>"),
    ("< / thead >", "</thead>"),
    ("< / th >", "</th>"),
    ("<< p >", "<p>"),
    ("< / p >", "</p>"),
    ("< / b >>", "</b>"),
    ("<< i >>", "<i>"),
    ("< br / >", "<br />"),
    ('<<li class="x">', '<li class="x">'),
    ("</ul>\n<>\n<p>", "</ul>\n<p>"),
    ("</li>\n>\n<\n<li>", "</li>\n<li>"),
    ("<p>x</p> >", "<p>x</p>"),
]
NEGATIVES = ["a < b > c", "x < i > y", "1 << 2 >> 3", "if (a<b) and b>c", "vector<<int>> v; a <> b; I <3 u"]
WHOLE = ["<br />", "<br/>", "<p>5 > 3</p>", '<a href="x" >y</a >', "<p>\n<b>x</b>\n</p>"]


@pytest.mark.parametrize(("broken", "whole"), DEBRIS)
def test_debris_is_mended(broken: str, whole: str) -> None:
    assert mend(broken) == (whole, True)


@pytest.mark.parametrize("text", NEGATIVES)
def test_arithmetic_is_no_debris(text: str) -> None:
    assert mend(text) == (text, False)


@pytest.mark.parametrize("html", WHOLE)
def test_whole_html_needs_no_repair(html: str) -> None:
    assert mend(html)[1] is False


def test_no_debris_is_left_for_a_reader_to_see() -> None:
    body = "<ul>" + "\n".join(broken for broken, _ in DEBRIS) + "</ul>"
    made = article(body_html=body)
    assert made.repaired
    assert not re.search(r"[<>]", made.body_text)
    assert not article(body_html="<p>Whole.</p>").repaired


@pytest.mark.parametrize(
    ("html", "safe"),
    [
        ("<script>alert(1)</script>x", "x"),
        ('<iframe src="https://t.example"></iframe>x', "x"),
        ('<img src=x onerror="alert(2)">', '<img src="https://news.example/2025/06/01/a-title/x">'),
        ('<a href="javascript:alert(3)">x</a>', "<a>x</a>"),
        ('<a href="java&#9;script:alert(3)">x</a>', "<a>x</a>"),
        ('<a href=" &#14; javascript:alert(3)">x</a>', "<a>x</a>"),
        ('<a href="data:text/html,x">x</a>', "<a>x</a>"),
        ('<p style="position:fixed" onclick="x()" class="y" id="z">s</p>', "<p>s</p>"),
        ("<style>body{display:none}</style>x", "x"),
        ('<form action="/x"><input name=a>ok<button>go</button></form>', "ok"),
        ("<svg><script>x</script></svg>y", "y"),
        ("<span>a</span><font>b</font>", "ab"),
        ('<a href="/x">x</a>', '<a href="https://news.example/x">x</a>'),
        ('<a href="#s1">x</a>', f'<a href="{URL}#s1">x</a>'),
        ('<a href="//cdn.example/a.pdf">x</a>', '<a href="https://cdn.example/a.pdf">x</a>'),
        ('<a href="mailto:a@b.example">x</a>', '<a href="mailto:a@b.example">x</a>'),
        (
            '<img src="/a.jpg" srcset="/a-300.jpg 300w" alt="A &amp; B">',
            '<img src="https://news.example/a.jpg" alt="A &amp; B">',
        ),
        ('<img src="data:image/gif;base64,R0" data-src="/real.jpg">', '<img src="https://news.example/real.jpg">'),
        ('<img src="/pixel.gif" width="1" height="1">x', "x"),
        ("<img>x", "x"),
        ('<div id="ez-toc-container"><p>Contents</p><ul><li>a</li></ul></div><p>b</p>', "<p>b</p>"),
        ('<p>b</p><div class="sharedaddy sd-sharing">Share</div>', "<p>b</p>"),
        ('<p>b</p><div class="yarpp yarpp-related"><p>Related</p></div>', "<p>b</p>"),
        ("<!-- wp:paragraph {\"a\":1} --><p>b</p><!-- /wp:paragraph --><!--more-->", "<p>b</p>"),
        ('<p>b</p><p>The post <a href="/x">t</a> appeared first on <a href="/">S</a>.</p>', "<p>b</p>"),
        ("<p>b [&#8230;]</p>", "<p>b…</p>"),
        ('[caption width="600"]<b>x</b> Words[/caption]', "<figure><b>x</b> Words</figure>"),
        ('[gallery ids="1,2"]<p>b</p>', "<p>b</p>"),
        ("[embed]https://v.example/1[/embed]", '<p><a href="https://v.example/1">https://v.example/1</a></p>'),
        ("<p>He said [sic] so [1] [2025] [[gallery]]</p>", "<p>He said [sic] so [1] [2025] [\u2060gallery]</p>"),
        ('<p>[su_box title="x"]in[/su_box] [button]go[/button] [foo bar="1"]</p>', "<p>in go </p>"),
        ("<p>a\x0b\ud800&#1;b</p>", "<p>ab</p>"),
    ],
)  # fmt: skip
def test_sanitize(html: str, safe: str) -> None:
    assert sanitize(html, URL) == safe


@given(st.text(st.sampled_from("<>/ abip=\"'&;#!-[]x\n"), max_size=60))
def test_sanitized_html_is_stable_and_holds_only_what_is_allowed(html: str) -> None:
    once = sanitize(html, URL)
    assert not re.search(r"<(script|style|svg|iframe|form|span)\b| on\w+=|javascript:", once)
    assert sanitize(html, URL) == once


HOSTILE = {
    "deep div": "<div>" * 20_000 + "deep",
    "deep b": "<b>" * 20_000,
    "flat p": "<p> " * 90_000,
    "deep list": "<p><ul><li>" * 20_000,
    "attributes": "<a " + "x=1 " * 20_000 + ">",
    "opening": "<" * 200_000,
    "padded": "< " * 150_000,
    "slashes": "< /" * 100_000 + "li",
    "closing": "> " * 150_000,
    "spaces": "<p>" + " " * 300_000 + "[",
    "brackets": "[a " * 100_000,
    "embed": "[embed " * 50_000,
    "comments": "<!--" * 50_000,
    "scripts": "<script>" * 20_000,
    "images": "<img data-src=a src='" * 20_000,
    "credit": "The post " * 40_000 + "appeared first on",
    "overrides": "\u202e" * 300_000,
    "surrogates": "\ud800" * 300_000,
    "ampersands": "&" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_costs_bounded_time(name: str) -> None:
    started = time.process_time()
    body = HOSTILE[name]
    article(title=body, body_html=body, excerpt_html=body)
    assert time.process_time() - started < 3  # a quadratic step takes minutes


def test_a_body_is_cut_at_its_cap_and_stays_whole() -> None:
    made = article(body_html="<p>" + 'word <a href="/x">y</a> ' * 100_000)
    assert len(made.body_html) < 1_200_000
    assert made.body_html.endswith("</p>")


def test_depth_is_capped_and_the_text_stays() -> None:
    made = article(body_html="<div>" * 5_000 + "deep" + "</div>" * 5_000 + "<p>after</p>")
    assert made.body_html.count("<div>") == 200
    assert made.body_text == "deep\nafter"


# ----------------------------------------------------------------------------- prose


def test_plain_text_has_a_line_for_each_block() -> None:
    html = "<h2>Head</h2><p>One <b>two</b>\n three<br>four &lt;b&gt;</p><ul><li>a</li><li>b</li></ul>"
    html += "<table><tr><td>1</td><td>2</td></tr></table>"
    assert plain(html) == "Head\nOne two three\nfour <b>\na\nb\n1 2"


def test_words_are_counted_in_every_script() -> None:
    assert count_words("one two  three") == 3
    assert count_words("") == 0
    assert count_words("東京は晴れです") == 4
    assert count_words("один два") == 2


LEAD = (
    "In a decisive move to bolster regional stability, ministers of eleven countries agreed on Tuesday to share radar "
    "data. The talks went on until the morning. A second round follows in May, when the parliaments will have voted."
)


def test_an_excerpt_is_the_first_paragraph_that_reads_like_one() -> None:
    link = '<a href="/x">This one is something long. It is a link to another article of ours, as one sees, no lead.</a>'
    body = f"<p>By Jane Doe</p><p>{link}</p><p>{LEAD}</p>"
    assert article(body_html=body).excerpt == LEAD


def test_a_handwritten_excerpt_wins_and_loses_what_machines_add() -> None:
    written = "<p>Short &amp; sweet. [&#8230;]</p><p>The post <a>x</a> appeared first on <a>y</a>.</p>"
    made = article(excerpt_html=written, body_html=f"<p>{LEAD}</p>")
    assert made.excerpt == "Short & sweet."
    assert article(excerpt_html="It stops in the […]").excerpt == "It stops in the…"
    assert article(excerpt_html="Text here. The post T appeared first on S.").excerpt == "Text here."
    assert article(excerpt_html="<script>x</script><p onclick=x>Hi</p>").excerpt == "Hi"


def test_an_excerpt_ends_with_a_sentence_or_a_word() -> None:
    long = LEAD + " " + LEAD
    assert cut_sentence(long).endswith("have voted.")
    assert len(cut_sentence("word " * 100)) <= 240
    assert cut_sentence("word " * 100).endswith("word…")
    assert not cut_sentence("x" * 100 + " said Dr. " + "Smith " * 60).endswith("Dr.")
    assert len(cut_sentence("語" * 1_000)) == 240


def test_paragraphs_of_the_classic_editor() -> None:
    assert paragraphs("One\ntwo\n\n\nThree") == "<p>One<br>two</p>\n<p>Three</p>"
    assert paragraphs("<h2>H</h2>\n\nText") == "<h2>H</h2>\n<p>Text</p>"
    assert paragraphs("<p>One</p>\n\nTwo") == "<p>One</p>\n\nTwo"
    assert paragraphs("") == ""


# ----------------------------------------------------------------------------- whole articles


def test_an_article_comes_out_whole() -> None:
    made = article(
        url="/2025/06/x/?utm_source=rss#top",
        base_url="https://News.Example/feed/",
        title="One &amp; two",
        body_html=f'<p>{LEAD}</p><img src="/a.jpg" width="640" alt="A">',
    )
    assert made.url == "https://news.example/2025/06/x/#top"
    assert made.canonical_url == "https://news.example/2025/06/x/"
    assert made.title == "One & two"
    assert made.image == Image("https://news.example/a.jpg", 640, None, "A")
    assert made.word_count == len(LEAD.split())
    assert made == article(
        url="/2025/06/x/?utm_source=rss#top", base_url="https://News.Example/feed/", title="One &amp; two",
        body_html=f'<p>{LEAD}</p><img src="/a.jpg" width="640" alt="A">',
    )  # fmt: skip


def test_a_title_is_never_empty() -> None:
    assert article(title="", body_html="<p>First words of the body</p>").title == "First words of the body"
    assert article(title=" <b></b> ").title == "A title"
    assert article(title="", url="https://x.example/a/some_long-name.html").title == "Some long name"
    assert clean(RawArticle(url="https://x.example/?p=1")) == Skipped(
        "empty", "https://x.example/?p=1", "neither title nor text"
    )


def test_without_a_link_there_is_no_article() -> None:
    for raw in (RawArticle(), RawArticle(url="javascript:alert(1)"), RawArticle(guid="7")):
        made = clean(replace(raw, title="x"))
        assert isinstance(made, Skipped)
        assert made.reason == "no_link"
    assert article(url=None, guid="https://x.example/?p=9").url == "https://x.example/?p=9"


def test_nothing_of_a_withheld_article_goes_on() -> None:
    made = article(withheld=True, body_html="secret <img src='/s.jpg'>", excerpt_html="secret", image=Image("/s.jpg"))
    assert (made.body_html, made.body_text, made.excerpt, made.image) == ("", "", "", None)


def test_images_are_pictures() -> None:
    assert article(image=Image("javascript:x")).image is None
    assert article(image=Image("/a.jpg", -4, 10**12, "<b>A</b>")).image == Image("https://news.example/a.jpg", alt="A")
    body = '<img src="/icon.png" width="16"><img src="https://www.gravatar.com/a"><img src="/b.jpg?x=1&amp;y=2">'
    assert article(body_html=body).image == Image("https://news.example/b.jpg?x=1&y=2")


SIGNED = "Ministers of eleven countries agree to share data – MSN"


def test_another_publishers_headline_is_a_credit_and_never_our_words() -> None:
    ours = {"title": "Eleven countries share radar data"}
    assert article(**ours, image=Image("/a.jpg", alt=SIGNED)).image == Image(
        "https://news.example/a.jpg", alt=ours["title"], credit="MSN"
    )
    given = article(**ours, image=Image("/a.jpg", alt=SIGNED, credit="AP/Jane Doe")).image
    assert given is not None
    assert (given.alt, given.credit) == (ours["title"], "AP/Jane Doe")
    inside = article(**ours, body_html=f'<p>x</p><img src="/a.jpg" alt="{SIGNED}">').image
    assert inside is not None
    assert (inside.alt, inside.credit) == (ours["title"], "MSN")
    for alt in ("A view of the harbour", "Harbour – London", "Map of the talks, day two – part 2", ""):
        kept = article(**ours, image=Image("/a.jpg", alt=alt)).image
        assert kept is not None
        assert (kept.alt, kept.credit) == (alt, "")


def test_of_several_sizes_the_one_nearest_to_1200_pixels_and_jpeg_before_webp() -> None:
    def taken(*sizes: tuple[str, int | None]) -> str | None:
        best = nearest(Image(url, width) for url, width in sizes)
        return best.url if best else None

    assert taken() is None
    assert taken(("a.jpg", 300), ("b.jpg", 1024), ("c.jpg", 2560)) == "b.jpg"
    assert taken(("a.jpg", 900), ("b.jpg", 1300)) == "b.jpg"
    assert taken(("a.webp", 1200), ("b.avif?x=1", 1200), ("c.png", 300)) == "c.png"
    assert taken(("a.jpg?format=webp", 1200), ("b.jpg", 300)) == "b.jpg"
    assert taken(("a.webp", 300), ("b.webp", 1000)) == "b.webp"
    assert taken(("a.jpg", None), ("b.jpg", 100)) == "b.jpg"
    assert taken(("a.jpg", None), ("b.jpg", None)) == "a.jpg"


@pytest.mark.parametrize(
    ("img", "src"),
    [
        ('<img src="/m-300.jpg" srcset="/m-300.jpg 300w, /m.jpg 1024w, /m-2k.jpg 2048w">', "m.jpg"),
        ('<img data-src="/m-300.jpg" data-srcset="/m-300.jpg 300w,/m.jpg 1200w">', "m.jpg"),
        ('<img srcset="/m.webp 1200w, /m.jpg 800w">', "m.jpg"),
        ('<img src="/m.jpg" srcset="/m.jpg 1x, /m2.jpg 2x">', "m.jpg"),
        ('<img src="/other.jpg" srcset="/m.jpg 1200w">', "other.jpg"),
        ("<img src='/a.jpg' srcset='" + "x " * 9_000 + "'>", "a.jpg"),
        ('<img src="/a.jpg" srcset="/a.jpg 10w, javascript:alert(1) 1200w">', None),
    ],
)  # fmt: skip
def test_an_image_of_several_sizes_has_the_best_one(img: str, src: str | None) -> None:
    body = sanitize(img, URL)
    assert body == (f'<img src="https://news.example/{src}">' if src else "")


def test_a_meta_description_goes_before_the_first_paragraph_and_after_a_written_summary() -> None:
    lead = {"body_html": f"<p>{LEAD}</p>", "description": "What it is about &amp; why."}
    assert article(**lead).excerpt == "What it is about & why."
    assert article(**lead, excerpt_html="By hand.").excerpt == "By hand."
    assert article(**lead, excerpt_html="Cut by a machine in the [&hellip;]").excerpt == "What it is about & why."
    assert article(**lead | {"description": "%%excerpt%% %%sep%%"}).excerpt == LEAD
    assert len(article(description="word " * 200).excerpt) <= 240
    assert article(**lead, withheld=True).excerpt == ""


AROUND = [
    "<p>ADVERTISEMENT</p>",
    "<p><strong>Advertisement</strong></p>",
    "<div><p>Advertisement</p></div>",
    "<h3>Share this:</h3>",
    "<p>Share on Facebook</p>",
    '<h3>Related Posts</h3><ul><li><a href="/b">Another</a></li>\n<li><a href="/c">Third</a></li></ul>',
    '<h4>You may also like</h4><ol><li><p><a href="/b">Another</a></p></li></ol>',
    '<p><strong>Read also:</strong> <a href="/b">Another one</a></p>',
    '<p>Read more: <strong><a href="/b">Another one</a></strong></p>',
    "<p>No Result</p><p>View All Result</p>",
    "<p>Table of Contents</p>",
    '<p>The post <a href="/x">t</a> appeared first on <a href="/">S</a>.</p>' * 2,
]
KEPT = [
    "<h2>Related work</h2>",
    "<p>Share prices fell on Tuesday.</p>",
    "<p>Advertisement revenue fell.</p>",
    '<p>Read more about it in <a href="https://news.example/b">our guide</a>.</p>',
    '<p>Related: <a href="https://news.example/b">the law</a> was passed in May, and it holds.</p>',
    "<h2>Share buybacks</h2>",
    '<ul><li><a href="https://news.example/b">A list</a></li></ul>',
]


@pytest.mark.parametrize("debris", AROUND)
def test_what_stands_around_an_article_goes_and_its_text_stays(debris: str) -> None:
    assert sanitize(f"<p>Before.</p>{debris}<p>After.</p>", URL) == "<p>Before.</p><p>After.</p>"


@pytest.mark.parametrize("html", KEPT)
def test_what_only_looks_like_it_stays(html: str) -> None:
    assert sanitize(f"<p>Before.</p>{html}<p>After.</p>", URL) == f"<p>Before.</p>{html}<p>After.</p>"


PIECES = st.sampled_from([
    *AROUND, *KEPT, *(broken for broken, _ in DEBRIS), "[[gallery]]", "[caption]x[/caption]", "[&#8230;]", "\n",
    "<pre>\n\nx</pre>", "<ul><li><div><p><li></ul>", "<table><td>", "<b><p></b>", "&lt;b&gt;", "&amp;lt;", "</p>",
    "<svg><p>", "<math><mi><style>", '<a href="?x&y=&quot;">', '<img src=" a b.jpg " srcset="a 1w">', "<!--", "]]>",
    "\u202e", "&#x1;", "<select><p>", "<h2>", "<details open><summary>", "<template><p>", "<noscript><img src=x>",
    "<div class=sharedaddy>", "<p dir=x>",
])  # fmt: skip


@given(st.lists(st.one_of(PIECES, st.text(st.characters(codec="utf-8"), max_size=8)), max_size=12).map("".join))
def test_cleaning_twice_changes_nothing(html: str) -> None:
    once = sanitize(html, URL)
    assert sanitize(once, URL) == once
