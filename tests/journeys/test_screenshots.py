"""Every shipped layout, looked at in Chromium: narrow and wide, light and dark, from the left and from the right.

The pictures are written to the test's temporary folder; set DIGEST_SCREENSHOTS to a folder to keep them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from digest.rendering import Renderer
from digest.types import Dress, Section, StoryCard
from tests import mail_gallery
from tests.mail_sample import BRAND, VIEW, picture_server, sections

pytestmark = pytest.mark.slow  # a browser

# Text against what is painted behind it, as WCAG 2.2 §1.4.3 counts; hidden text (the preheader) is not looked at.
LOW_CONTRAST = """() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(v =>
    v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paper = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, style = getComputedStyle(e);
    if (!walk.currentNode.data.trim() || !e.offsetParent && style.position !== 'fixed') continue;
    const [a, b] = [light(parse(style.color)), light(paper(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push([walk.currentNode.data.trim().slice(0, 40), style.color, ratio]);
  }
  return found;
}"""
FACTS = """() => ({
  mode: document.compatMode,
  width: document.documentElement.scrollWidth,
  height: document.body.scrollHeight,
  wide: [...document.querySelectorAll('img.wide')].map(i => [i.complete && i.naturalWidth, i.clientWidth]),
  paper: getComputedStyle(document.querySelector('.card')).backgroundColor,
  size: parseFloat(getComputedStyle(document.querySelector('.lede, .brief, .tight')).fontSize),
  hidden: document.querySelector('.pre').getClientRects().length,
})"""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def look(
    browser: Browser, html: str, width: int, scheme: Any, path: Path
) -> tuple[dict[str, Any], list[Any], list[str]]:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(html, wait_until="load")
    facts, low = page.evaluate(FACTS), page.evaluate(LOW_CONTRAST)
    page.screenshot(path=path)
    context.close()
    return facts, low, asked


WITH_PICTURES = ("cards", "hero")


def holds(browser: Browser, path: Path, name: str, language: str, count: int, width: int, scheme: str) -> None:
    """One mail, looked at with its pictures."""
    with picture_server() as pictures:
        mail = mail_gallery.mail(name, language, count, pictures)
        facts, low, asked = look(browser, mail.html, width, scheme, path)
    assert facts["mode"] == "CSS1Compat"
    assert facts["width"] == width, "it scrolls sideways"
    assert low == []
    assert facts["size"] >= 15
    assert facts["hidden"] == 0
    assert all(natural and shown <= min(width, 600) for natural, shown in facts["wide"])
    assert facts["paper"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(28, 31, 36)")
    assert bool(asked) == (name in WITH_PICTURES and count <= 40)
    assert all(url.startswith(pictures) for url in asked), "a mail loads nothing but the pictures of its articles"
    assert path.stat().st_size > 10_000


def _path(tmp_path: Path, *parts: object) -> Path:
    folder = Path(os.environ.get("DIGEST_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / ("-".join(map(str, parts)) + ".png")


@pytest.mark.parametrize(
    ("language", "width", "scheme"), [("en", 320, "light"), ("ar", 375, "dark"), ("de", 700, "dark")]
)
@pytest.mark.parametrize("name", mail_gallery.LAYOUTS)
def test_a_mail_can_be_looked_at(
    browser: Browser, tmp_path: Path, name: str, language: str, width: int, scheme: str
) -> None:
    holds(browser, _path(tmp_path, name, language, 12, width, scheme), name, language, 12, width, scheme)


@pytest.mark.full
@pytest.mark.parametrize("count", mail_gallery.SIZES)
@pytest.mark.parametrize("language", mail_gallery.LANGUAGES)
@pytest.mark.parametrize("name", mail_gallery.LAYOUTS)
def test_every_mail_can_be_looked_at(browser: Browser, tmp_path: Path, name: str, language: str, count: int) -> None:
    """Every layout, language and size, narrow and wide, by day and by night, with pictures and without."""
    for width in (375, 700):
        for scheme in ("light", "dark"):
            if count <= 40:  # a longer mail has no room for all pictures
                holds(
                    browser, _path(tmp_path, name, language, count, width, scheme), name, language, count, width, scheme
                )
            blocked = mail_gallery.mail(name, language, count, "https://pictures.invalid").html
            path = _path(tmp_path, name, language, count, width, scheme, "blocked")
            facts, low, _ = look(browser, blocked, width, scheme, path)
            assert (facts["width"], low) == (width, [])


def test_a_word_without_end_does_not_push_the_page_wide(browser: Browser, tmp_path: Path) -> None:
    long = "Donaudampfschifffahrtsgesellschaftskapitänswitwenrente" * 4
    section = sections("https://news.invalid")[0]
    leads = [replace(c.lead, title=long, excerpt=long, category=long, authors=(long,)) for c in section.stories]
    chosen = (Section(long, tuple(StoryCard(lead, (lead,)) for lead in leads)),)
    view = replace(VIEW, digest_name=long, brand=replace(VIEW.brand, name=long))
    html = Renderer().layout("cards").open(view, Dress()).assemble(chosen).html
    facts, _, _ = look(browser, html, 375, "light", tmp_path / "long.png")
    assert facts["width"] == 375


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_confirmation_can_be_looked_at(browser: Browser, tmp_path: Path, scheme: Any) -> None:
    params = {"confirm_url": "https://news.example/confirm/" + "x" * 90, "digest_name": "The Morning Digest"}
    mail = Renderer().system("confirm", BRAND, params, "en")
    context = browser.new_context(viewport={"width": 320, "height": 640}, color_scheme=scheme)
    page = context.new_page()
    page.set_content(mail.html)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert page.evaluate(LOW_CONTRAST) == []
    button = page.get_by_role("link", name="Yes, subscribe me").bounding_box()
    assert button is not None
    assert button["height"] >= 44
    page.screenshot(path=tmp_path / "confirm.png")
    context.close()
