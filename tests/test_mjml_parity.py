"""Our MJML compiler beside MJML's own, on Node: the same tree for every layout, but for what is listed.

Each layout is filled with a sample that has everything and compiled by both. What docs/templates.md lists as a
difference is evened out, and nothing else; then both trees must be equal, element by element.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lxml import html as lxml_html
from mjml import mjml2html

from benchmarks.shared.peers import Inlined
from digest.paths import shipped
from digest.rendering import Renderer
from digest.rendering.source import read
from digest.rendering.trial import SAMPLE_SECTIONS, SAMPLE_VIEW, whole_values
from tests import mjml_reference

pytestmark = pytest.mark.full
PAGE = Path(__file__).parents[1] / "docs" / "templates.md"
_ATTRIBUTE = re.compile(r"\s+[\w-]+=\"[^\"]*\"")
_TAG = re.compile(r"""<(\w+)((?:\s+[\w-]+="[^"]*")*)\s*>""")


def blanks_in_css(page: str) -> str:
    def tight(css: re.Match[str]) -> str:
        return re.sub(r"\s*([:;{},])\s*", r"\1", re.sub(r"\s+", " ", css[0]))

    return re.sub(r"<style\b.*?</style>", tight, page, flags=re.S)


def order_of_names(page: str) -> str:
    def ordered(found: re.Match[str]) -> str:
        return f'class="{" ".join(sorted(found[1].split()))}"'

    return re.sub(r'class="([^"]*)"', ordered, page)


def order_of_attributes(page: str) -> str:
    def ordered(tag: re.Match[str]) -> str:
        attributes = sorted(found.strip() for found in _ATTRIBUTE.findall(tag[2]))
        return f"<{' '.join([tag[1], *attributes])}>"

    return re.sub(r"<!--\[if.*?endif\]-->", lambda part: _TAG.sub(ordered, part[0]), page, flags=re.S)


def empty_names(page: str) -> str:
    return re.sub(r"<!--\[if.*?endif\]-->", lambda part: re.sub(r'\s+class=""', "", part[0]), page, flags=re.S)


def parts_in_a_row(page: str) -> str:
    return re.sub(r"<!\[endif\]-->\s*<!--\[if mso \| IE\]>", "", page)


#: What differs, as docs/templates.md has it, and what takes the difference away.
DIFFERENCES: dict[str, Callable[[str], str]] = {
    "blanks in style sheets": blanks_in_css,
    "the order of class names": order_of_names,
    "the order of attributes in Outlook's parts": order_of_attributes,
    '`class=""` in Outlook\'s parts': empty_names,
    "Outlook's parts that follow each other": parts_in_a_row,
}


def tree(page: str) -> Iterator[tuple[object, ...]]:
    """Every element and comment: depth, tag, attributes (styles by declaration), the text in it and after it."""
    for element in lxml_html.document_fromstring(page).iter():
        attributes = {
            name: sorted(re.sub(r"\s*:\s*", ":", part.strip()) for part in value.split(";") if part.strip())
            if name == "style"
            else value
            for name, value in element.attrib.items()
        }
        depth = sum(1 for _ in element.iterancestors())
        said = [" ".join((text or "").split()) for text in (element.text, element.tail)]
        yield depth, str(element.tag), sorted(attributes.items()), said


@pytest.fixture(scope="module")
def compiled() -> dict[str, tuple[str, str]]:
    """Layout → what our compiler and what MJML's own makes of it. Styles are inlined by neither."""
    made, renderer = {}, Renderer()
    with mjml_reference.installed() as reference:
        for name in renderer.layouts():
            path = renderer.files(name)["edition.mjml"]
            source = read(path.name, path.read_text(), lambda file: (shipped("templates") / file).read_text()).folded()
            forms = ["lead" if "lead" in renderer.layout(name).optional else "card", "row", "link"]
            values = whole_values(SAMPLE_VIEW, renderer.layout(name).words["en"], SAMPLE_SECTIONS, forms, more=3, had=3)
            filled = Inlined(source).filled({**values, "subject": "A subject", "preheader": "What else"})
            filled = re.sub(r"<mj-style\s[^>]*inline[^>]*>.*?</mj-style\s*>", "", filled, flags=re.S)
            theirs = reference.ask(filled)
            assert theirs["errors"] == [], name
            made[name] = mjml2html(filled, fonts={}), theirs["html"]
    return made


def evened(page: str, but: str = "") -> list[tuple[object, ...]]:
    for what, even in DIFFERENCES.items():
        if what != but:
            page = even(page)
    return list(tree(page))


@pytest.mark.parametrize("layout", Renderer().layouts())
def test_but_for_what_is_listed_both_compile_to_the_same(compiled: dict[str, tuple[str, str]], layout: str) -> None:
    ours, theirs = compiled[layout]
    assert len(evened(ours)) > 100
    assert evened(ours) == evened(theirs)


@pytest.mark.parametrize("what", DIFFERENCES)
def test_what_is_listed_is_there_and_told(compiled: dict[str, tuple[str, str]], what: str) -> None:
    assert any(evened(ours, what) != evened(theirs, what) for ours, theirs in compiled.values())
    assert f"| {what} |" in PAGE.read_text()
