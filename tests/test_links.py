"""Links of a mail and the texts of a digest: what is added, what is left alone, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from digest.errors import RenderError
from digest.rendering import Renderer, check_params, check_prose
from digest.rendering.links import own_links
from digest.text.markdown import blocks
from digest.types import Dress
from tests.mail_gallery import sections, view

PARAMS = "utm_source=digest&utm_medium=email&utm_campaign={{ digest.slug }} {{ edition.day }}"
ADDED = "utm_source=digest&utm_medium=email&utm_campaign=morning%202026-11-24"
HERE = view("en", link_params=PARAMS, brand=replace(view("en").brand, site_url="https://www.site.example/"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.site.example/a", f"https://www.site.example/a?{ADDED}"),
        ("https://site.example/a?p=1#part", f"https://site.example/a?p=1&{ADDED}#part"),
        ("https://blog.site.example/?", f"https://blog.site.example/?{ADDED}"),
        ("https://news.example/archive", f"https://news.example/archive?{ADDED}"),
        ("https://site.example/?utm_source=x&UTM_medium=", "https://site.example/?utm_source=x&UTM_medium=&"
         "utm_campaign=morning%202026-11-24"),
        ("https://other.example/a", "https://other.example/a"),
        ("https://notsite.example/a", "https://notsite.example/a"),
        ("https://site.example.evil.example/", "https://site.example.evil.example/"),
        ("javascript:alert(1)", ""),
    ],
)  # fmt: skip
def test_parameters_go_onto_our_own_links_alone(url: str, expected: str) -> None:
    assert own_links(HERE)(url) == expected


def test_both_parts_carry_them_and_the_readers_own_links_do_not() -> None:
    variant = Renderer().layout("cards").open(HERE, Dress()).assemble(sections("en", 3))
    for part in (variant.html.replace("&amp;", "&"), variant.text):
        assert f"https://news.example/en/1?{ADDED}" in part
        assert "https://acme.example/?utm" not in part
        assert "#unsubscribe?" not in part
    bare = Renderer().layout("cards").open(replace(HERE, link_params=""), Dress()).assemble(sections("en", 3))
    assert "utm_" not in bare.html + bare.text


@pytest.mark.parametrize(
    "template", ["utm_source", "=x", "a b=c", "utm_source=", "utm_campaign={{ nobody }}", "x={% for %}"]
)
def test_parameters_that_are_none_are_refused_in_a_sentence(template: str) -> None:
    with pytest.raises(RenderError) as caught:
        check_params(template)
    assert "\n" not in str(caught.value)


def test_an_admins_text_is_markdown_and_never_markup() -> None:
    hostile = (
        "<script>x</script> [a](javascript:1) **b** </mj-text>\n\n1. *one*\n2. two\n\n![pic](data:image/png;base64,x)"
    )
    variant = Renderer().layout("cards").open(view("en", intro=hostile), Dress()).assemble(sections("en", 3))
    assert "<script" not in variant.html
    assert "javascript:" not in variant.html.replace("[a](javascript:1)", "")
    assert "data:image" not in variant.html
    assert "<b>b</b>" in variant.html
    assert "1. one" in variant.text
    assert [block.bullet for block in blocks("* a\n* b\n\n3. c")] == ["•", "•", "3."]


def test_texts_that_cannot_be_sent_are_refused() -> None:
    for text in ("Dear {{ name }}", "x" * 4_001):
        with pytest.raises(RenderError, match="the intro"):
            check_prose(text, "intro")
    check_prose("100 % of *everything*", "intro")
