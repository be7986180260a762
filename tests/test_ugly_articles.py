"""Articles that would break a mail, between two that are fine, in every layout: theirs is the harm, if any.

The whole mail is read as bytes by the standard library and as a tree by a parser that is not ours, and must be the mail
with a plain article in the same place, but for what that article says.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from functools import cache
from itertools import takewhile
from typing import Any, cast

import pytest
from lxml import html as lxml_html

from digest.delivery.message import Addressee, Identity, MessageFactory
from digest.rendering import Dressed, Renderer, gates
from digest.text import clean
from digest.types import (
    PREVIEW,
    ArticleCard,
    CleanArticle,
    Dress,
    Image,
    RawArticle,
    RenderedVariant,
    Section,
    StoryCard,
)
from tests.hostile import CORPUS, OWN, beside
from tests.mail_sample import VIEW

WHEN = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
LAYOUTS = Renderer().layouts()
URL = "https://news.example/marked"
MARK = "Marked"
#: Controls, marks that reorder what follows them, lone surrogates: none of them is left in a mail.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

UGLY = {
    "expressions": "{{ 7*7 }} {% for x in y %}{{ unsubscribe_url }}{% endfor %} {# no #} {{ self }} ${x} #{y}",
    "MJML": "</mj-text></mj-raw></mj-column><mj-include path='/etc/passwd'/><mj-raw>{{ x }}<script>alert(1)</script>",
    "XML": "]]> <![CDATA[ x ]]> <?xml version='1.0'?> <!DOCTYPE x [<!ENTITY e 'y'>]> &e; &#x0; &#xD800; &amp;lt;",
    "comments": "--> <!-- <!--[if mso]> <![endif]--> <!--[if !mso]><!--> <!--<![endif]--> --!>",
    "ends": "</p></a></td></tr></table></div></body></html><table><tr><td></style></title></textarea></script>",
    "quotes": '" onmouseover="x()" \' onfocus=\'x()\' ` = > \\" &quot; &#34; &#39;',
    "NUL and others": "a\x00b\x01\x08\x0b\x0c\x1b[31m\x7f\x85\u2028\u2029\ufffe\uffff",
    "lone surrogates": "a\ud800b\udfffc\udc00\ud83d",
    "overrides": "\u202eevil\u202d \u202agnp.\u202b \u2066exe\u2067 \u2068x \u200f\u200e \u061c no end",
    "headers": "Subject\r\nBcc: evil@x.example\r\n\r\n.\r\nMAIL FROM:<evil@x.example>\r\n=?utf-8?q?=0D=0ABcc:_evil@x?=",
    "dots": "." * 300 + "\n.\n..\nFrom here\nFrom there " + "." * 80,
    "piled up": "a" + "\u0300\u0489\u20dd" * 400 + " z\u0337\u0352",
    "one long word": "x" * 2_000_000,
    "long": "A title without end. " * 100_000,
    "blanks": "\u00a0\u200b\u200c\u200d\ufeff\u3000\u2800 \t " * 50,
    "entities": "&" * 5_000 + "<" * 5_000,
    "nested": "<div>" * 20_000 + "deep" + "</div>" * 20_000,
    "unclosed": "<b><i><table><tr><td><ul><li><a href='x'>" * 3_000 + "deep",
    "attributes": "<p " + "a='b' " * 20_000 + ">text",
}


@cache
def dressed(layout: str) -> Dressed:
    return Renderer().layout(layout).open(VIEW, Dress())


def card(number: int, title: str, **more: Any) -> ArticleCard:
    """An article that has everything a card can show, so that each shows in the plain mail."""
    given = {
        "excerpt": f"{title}: what it is about.", "image": Image(f"{URL}.jpg", 1200, 600, f"{title}: a picture"),
        "authors": (f"{title} Author",), "published_at": WHEN, "category": f"{title} Topic",
    }  # fmt: skip
    return ArticleCard(number, title, f"{URL}/{number}", **{**given, **more})


def as_given(text: str) -> ArticleCard:
    """As if nobody had cleaned it on its way in."""
    return replace(
        card(2, text, excerpt=text, authors=(text, text), category=text), image=Image(f"{URL}.jpg", 1200, 600, text)
    )


def as_read(text: str) -> ArticleCard | None:
    """As it comes out of the cleaning that every article goes through; None where that leaves nothing."""
    raw = RawArticle(url=f"{URL}/2", title=text, body_html=text, authors=(text,), image=Image(f"{URL}.jpg", alt=text))
    got = clean(raw)
    if not isinstance(got, CleanArticle):
        return None
    return ArticleCard(2, got.title, got.url, got.excerpt, got.image, raw.authors, WHEN, text[:80])


def sections(middle: ArticleCard) -> tuple[Section, ...]:
    first, last = card(1, "First"), card(3, "Last")
    return Section("", (StoryCard(first), StoryCard(middle, (replace(middle, id=4),)), StoryCard(last))), Section(
        "Below", (StoryCard(card(5, "Bottom")),)
    )


Node = tuple[int, str, tuple[tuple[str, str], ...], str, str]


def flat(html: str) -> list[Node]:
    """Every element in its order: depth, tag, attributes, the text in it and after it."""
    return [
        (sum(1 for _ in e.iterancestors()), str(e.tag), tuple(sorted(e.attrib.items())), e.text or "", e.tail or "")
        for e in lxml_html.document_fromstring(html).iter()
    ]


def shared(one: list[Any], other: list[Any]) -> int:
    """How many of both are the same from the start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def telling(parts: list[Any]) -> list[int]:
    """Which of *parts* tell of the article in the middle."""
    return [n for n, part in enumerate(parts) if MARK in str(part) or f"{URL}/2" in str(part)]


@cache
def plain(layout: str) -> tuple[list[Node], list[str]]:
    """The mail with a plain article in the middle: its elements, and the lines of its text part."""
    mail = mail_of(layout, card(2, MARK))
    return flat(mail.html), mail.text.split("\n")


def mail_of(layout: str, middle: ArticleCard) -> RenderedVariant:
    return dressed(layout).assemble(sections(middle))


def hold(layout: str, mail: RenderedVariant) -> None:
    """All that is not the article's own is as it was."""
    nodes, lines = plain(layout)
    found, said = flat(mail.html), mail.text.split("\n")
    own = telling(nodes)
    top = next(n for n, node in enumerate(nodes) if node[1] == "body") + 4  # subject and preheader tell of the lead
    assert shared(nodes[top:], found[top:]) >= own[0] - top, "what stands above it is not as it was"
    assert shared(nodes[::-1], found[::-1]) >= len(nodes) - 1 - own[-1], "what stands below it is not as it was"
    assert shared(lines[::-1], said[::-1]) >= len(lines) - 1 - telling(lines)[-1], "the text below is not as it was"
    assert shared(lines, said) >= telling(lines)[0] - 2, "the text above is not as it was"
    assert {node[1] for node in found} <= {node[1] for node in nodes} | {"bdi", "br"}
    assert not UNSEEN.search(mail.html + mail.text)
    assert len(mail.html) < 60_000
    hold_as_bytes(mail)


def hold_as_bytes(mail: RenderedVariant) -> None:
    """The message is a message, and its parts say what was rendered."""
    prepared = MessageFactory(Identity("news@news.example", "News", list_id="m.news.example")).prepare(mail)
    reader = Addressee("ada@news.example", "<a@news.example>", f"{URL}/unsubscribe", f"{URL}/preferences", WHEN)
    raw = b"".join(prepared.build(reader))
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
    assert max(map(len, raw.partition(b"\r\n\r\n")[2].split(b"\r\n"))) <= 76
    message = cast(EmailMessage, message_from_bytes(raw, policy=default_policy))
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert "Bcc" not in message
    for kind, rendered in (("plain", mail.text), ("html", mail.html)):
        part = cast(EmailMessage, message.get_body((kind,)))
        assert not part.defects
        for field, shown in PREVIEW.items():
            rendered = rendered.replace(shown, getattr(reader, field))
        assert part.get_content().replace("\r\n", "\n").rstrip("\n") == rendered.rstrip("\n")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_hole_would_be_seen(layout: str) -> None:
    """So that the tests below can fail: text let into the page as it is, in either part."""
    mail = mail_of(layout, as_given("<div><table><tr><td>x"))
    hold(layout, mail)
    with pytest.raises(AssertionError, match="below it"):
        hold(layout, replace(mail, html=mail.html.replace("&lt;", "<").replace("&gt;", ">")))
    with pytest.raises(AssertionError, match="the text below"):
        hold(layout, replace(mail, text=mail.text.replace("Last", "\x1b")))


@pytest.mark.parametrize("name", UGLY)
def test_an_ugly_article_costs_itself(name: str) -> None:
    text = UGLY[name]
    read = as_read(text)
    for layout in LAYOUTS:
        hold(layout, mail_of(layout, as_given(text)))
        if read is not None:
            hold(layout, mail_of(layout, read))


def some() -> Iterator[str]:
    yield from OWN
    if CORPUS.is_dir():
        yield from random.Random(24).sample(beside(), 40)


def test_hostile_markup_costs_itself() -> None:
    """Half as if nobody had cleaned it, half cleaned; each in one layout, all layouts by turns."""
    for number, text in enumerate(some()):
        given = as_given(text[:20_000]) if number % 2 else as_read(text)
        if given is not None:
            layout = LAYOUTS[number // 2 % len(LAYOUTS)]
            hold(layout, mail_of(layout, given))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gates_let_the_mail_of_an_ugly_article_pass(layout: str) -> None:
    for name in ("expressions", "MJML", "ends", "overrides", "lone surrogates"):
        given = sections(as_given(UGLY[name]))
        found = gates.check(dressed(layout), given, dressed(layout).assemble(given))
        assert [gate for gate in found if not gate.ok] == []
