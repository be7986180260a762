"""Every shipped layout, looked at in Chromium: narrow and wide, light and dark, from the left and from the right.

SCREENSHOTS names a folder that keeps the pictures of the whole matrix, as contact sheets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import html as lxml_html

from digest.rendering import Renderer, gates
from digest.types import Dress, Section, StoryCard
from tests import blocks, looks, mail_gallery
from tests.looks import Eyes, Look
from tests.mail_sample import BRAND, VIEW, sections

pytestmark = pytest.mark.slow  # a browser

WITH_PICTURES = ("cards", "hero")
PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(28, 31, 36)"}


@pytest.fixture(scope="module")
def eyes(chromium: str) -> Iterator[Eyes]:
    with looks.eyes(chromium) as opened:
        yield opened


def holds(eyes: Eyes, seen: Look, width: int, scheme: str, language: str) -> None:
    """What must hold of every look at every mail."""
    facts = seen.facts
    assert facts["mode"] == "CSS1Compat"
    assert facts["width"] == width, "it scrolls sideways"
    assert seen.low == []
    assert seen.cut == []
    assert facts["size"] >= 15
    assert facts["hidden"] == 0
    assert facts["paper"] == PAPER[scheme]
    assert facts["sides"] == ["right" if language == "ar" else "left"]
    assert facts["logos"] == ["day" if scheme == "light" else "night"]
    assert all(shown <= min(width, 600) for _, shown in facts["wide"])
    assert all(url.startswith(eyes.pictures) for url in seen.asked), "a mail loads nothing but its pictures"


@pytest.mark.parametrize("name", mail_gallery.LAYOUTS)
def test_a_mail_can_be_looked_at(eyes: Eyes, name: str) -> None:
    for language, width, scheme, pictures in (
        ("en", 320, "light", True), ("ar", 375, "dark", True), ("de", 700, "dark", False)
    ):  # fmt: skip
        html = mail_gallery.mail(name, language, 12, eyes.pictures).html
        seen = eyes.look(html, width, scheme, pictures=pictures)
        holds(eyes, seen, width, scheme, language)
        assert [bool(natural) for natural, _ in seen.facts["wide"]] == [pictures] * len(seen.facts["wide"])
        assert bool(seen.facts["wide"]) == (name in WITH_PICTURES)
        if pictures:
            assert eyes.axe() == []


@pytest.mark.full
@pytest.mark.parametrize("language", mail_gallery.LANGUAGES)
@pytest.mark.parametrize("name", mail_gallery.LAYOUTS)
def test_every_mail_can_be_looked_at(eyes: Eyes, tmp_path: Path, name: str, language: str) -> None:
    """Every size, narrow and wide, by day and by night, with pictures and without; gates and axe say nothing."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    view = mail_gallery.view(language, name, home_url="http://127.0.0.1/", pictures=eyes.pictures)
    for count in mail_gallery.SIZES:
        chosen = mail_gallery.sections(language, count, eyes.pictures)
        dressed = Renderer().layout(name).open(view, Dress(language))
        mail = dressed.assemble(chosen, had=3)
        assert [gate for gate in gates.check(dressed, chosen, mail) if not gate.ok] == []
        for width in (320, 375, 700):
            pictures = []
            for scheme in ("light", "dark"):
                for shown in (True, False):
                    holds(eyes, eyes.look(mail.html, width, scheme, pictures=shown), width, scheme, language)
                    pictures.append((f"{width} {scheme} {'' if shown else 'blocked'}", eyes.picture()))
                assert eyes.axe() == []
            looks.sheet(folder / f"{name}-{language}-{count}-{width}.png", pictures, most=2)


# ----------------------------------------------------------------------------- as they looked before

SAME = 150  # pixels that may differ: a browser's new way of smoothing a corner, no letter, no line


@pytest.mark.parametrize("name", mail_gallery.LAYOUTS)
def test_a_mail_looks_as_it_did(eyes: Eyes, tmp_path: Path, name: str) -> None:
    for look in looks.REFERENCE_LOOKS:
        before, after = looks.read(looks.reference_path(name, *look)), looks.reference(eyes, name, *look)
        if looks.difference(before, after, SAME) > SAME:
            looks.sheet(tmp_path / "both.png", [("before", before), ("now", after)])
            pytest.fail(f"{name} {look} looks otherwise, see {tmp_path}/both.png; if that is meant: ./run looks")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (r"(<td class=\"gap\" style=\"[^\"]*)padding:14px 12px 0", r"\1padding:14px 15px 0 9px"),  # a card moved
        (r"(<p class=\"kick ink\" [^>]*)color:#0b5fad", r"\1color:#596069"),  # its category lost the accent
        (r"(<h3 class=\"title text\" [^>]*)font-size:23px", r"\1font-size:22px"),
    ],
)
def test_a_fault_is_seen(eyes: Eyes, before: str, after: str) -> None:
    faulty, changed = re.subn(before, after, mail_gallery.mail("cards", "en", 6, eyes.pictures).html)
    assert changed
    look = ("cards", "en", 700, "light")
    known = looks.read(looks.reference_path(*look))
    assert looks.difference(known, looks.reference(eyes, *look, faulty), SAME) > SAME


def test_letters_of_references_are_all_drawn_as_blocks() -> None:
    for name in mail_gallery.LAYOUTS:
        for language in ("en", "ar"):
            page = lxml_html.document_fromstring(mail_gallery.mail(name, language, 6).html)
            assert blocks.missing(page.body.text_content()) == set()


# ----------------------------------------------------------------------------- programs that know less, or more


@pytest.mark.parametrize("name", mail_gallery.LAYOUTS)
def test_a_mail_without_its_style_sheet_can_be_read(eyes: Eyes, name: str) -> None:
    """As Gmail shows mails of other accounts: what stands in style attributes is all there is."""
    html = re.sub(r"<style.*?</style>", "", mail_gallery.mail(name, "ar", 12, eyes.pictures).html, flags=re.S)
    for width in (375, 700):
        seen = eyes.look(html, width)
        # the window's own margin, which a mail program has not
        assert seen.facts["width"] == width
        assert (seen.low, seen.cut) == ([], [])
        assert seen.facts["sides"] == ["right"]
        assert seen.facts["logos"] == ["day"]
        assert seen.facts["hidden"] == 0


@pytest.mark.parametrize("name", mail_gallery.LAYOUTS)
def test_outlooks_apps_show_the_dark_colours(eyes: Eyes, name: str) -> None:
    """They mark what they have recoloured and know no media query: the rules for their marks say the same."""
    html = mail_gallery.mail(name, "de", 12, eyes.pictures).html.replace("<body", "<body data-ogsc data-ogsb")
    seen = eyes.look(html, 375, "light")
    assert (seen.low, seen.facts["paper"], seen.facts["logos"]) == ([], PAPER["dark"], ["night"])


# ----------------------------------------------------------------------------- odd ones


def test_a_word_without_end_does_not_push_the_page_wide(eyes: Eyes) -> None:
    long = "Donaudampfschifffahrtsgesellschaftskapitänswitwenrente" * 4
    section = sections("https://news.invalid")[0]
    leads = [replace(c.lead, title=long, excerpt=long, category=long, authors=(long,)) for c in section.stories]
    chosen = (Section(long, tuple(StoryCard(lead, (lead,)) for lead in leads)),)
    view = replace(VIEW, digest_name=long, brand=replace(VIEW.brand, name=long))
    html = Renderer().layout("cards").open(view, Dress()).assemble(chosen).html
    seen = eyes.look(html, 375)
    assert seen.facts["width"] == 375
    assert seen.cut == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_confirmation_can_be_looked_at(eyes: Eyes, scheme: Any) -> None:
    params = {"confirm_url": "https://news.example/confirm/" + "x" * 90, "digest_name": "The Morning Digest"}
    mail = Renderer().system("confirm", BRAND, params, "en")
    eyes.show(mail.html, 320, scheme)
    assert eyes.page.evaluate("document.documentElement.scrollWidth") == 320
    assert eyes.low() == []
    assert eyes.axe() == []
    button = eyes.page.get_by_role("link", name="Yes, subscribe me").bounding_box()
    assert button is not None
    assert button["height"] >= 44
