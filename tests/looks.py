"""Mails in a browser: one Chromium, one page, every width, by day and by night, with pictures and without.

Owns the looking (what a browser says of a mail, its picture, what axe finds), contact sheets of many pictures, and the
reference pictures that later ones are compared with. What must hold of what was seen is the tests' business.

`./run looks` (this module's `main`) brings up to date what is drawn from the templates: the references, the gallery
and the table of docs/clients.md.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageChops, ImageDraw
from pixelmatch.contrib.PIL import pixelmatch
from playwright.sync_api import Page, sync_playwright

from tests import blocks, clients, mail_gallery
from tests.mail_sample import picture_server

# Text against what is painted behind it, as WCAG 2.2 §1.4.3 counts; hidden text (the preheader) is not looked at.
_LOW_CONTRAST = """() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(v =>
    v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paper = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
  const found = [];
  const judge = (said, e) => {
    const style = getComputedStyle(e);
    const [a, b] = [light(parse(style.color)), light(paper(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push([said.trim().slice(0, 40), style.color, ratio]);
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (walk.currentNode.data.trim() && e.getClientRects().length) judge(walk.currentNode.data, e);
  }
  for (const i of document.images) if (i.alt && i.getClientRects().length) judge(i.alt, i);
  return found;
}"""
# Words that stand, if only in part, outside of the window or of the box that holds them.
_CUT_OFF = """() => {
  const found = [], wide = document.documentElement.clientWidth, range = document.createRange();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.getClientRects().length) continue;
    range.selectNodeContents(walk.currentNode);
    const box = e.closest('td').getBoundingClientRect();
    for (const r of range.getClientRects())
      if (r.left < -0.5 || r.right > wide + 0.5 || r.left < box.left - 0.5 || r.right > box.right + 0.5) {
        found.push(walk.currentNode.data.trim().slice(0, 40));
        break;
      }
  }
  return found;
}"""
_FACTS = """() => ({
  mode: document.compatMode,
  width: document.documentElement.scrollWidth,
  wide: [...document.querySelectorAll('img.wide')].map(i => [i.complete && i.naturalWidth, i.clientWidth]),
  paper: getComputedStyle(document.querySelector('.card')).backgroundColor,
  size: parseFloat(getComputedStyle(document.querySelector('.lede, .brief, .tight, .short, .bare')).fontSize),
  hidden: document.querySelector('.pre').getClientRects().length,
  sides: [...new Set([...document.querySelectorAll('h1, h2, h3')].map(h => getComputedStyle(h).textAlign))],
  logos: [...document.querySelectorAll('.day, .night')].filter(l => l.clientHeight).map(l => l.src.split('-')[1]),
})"""
_RULES = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
_AXE = Axe()
_ARGUMENTS = ["--no-sandbox", "--disable-lcd-text", "--force-color-profile=srgb"]  # root needs the first


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen: ``facts`` of the page, texts of ``low`` contrast, texts ``cut`` off, addresses ``asked`` for."""

    facts: dict[str, Any]
    low: list[Any]
    cut: list[str]
    asked: list[str]


class Eyes:
    """A browser window. Give it a mail, then look as often as you like."""

    def __init__(self, page: Page, pictures: str) -> None:
        self.page, self.pictures = page, pictures
        self._asked: list[str] = []
        page.on("request", lambda request: self._asked.append(request.url))

    def show(self, html: str, width: int, scheme: Any = "light", *, pictures: bool = True) -> None:
        """Without *pictures*: as mail programs do that load none before they are told to."""
        self.page.unroute_all()
        if not pictures:
            self.page.route(f"{self.pictures}/**", lambda route: route.abort())
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        self._asked.clear()
        self.page.set_content(html, wait_until="load")

    def look(self, html: str, width: int, scheme: Any = "light", *, pictures: bool = True) -> Look:
        """Show *html*, and say what is seen."""
        self.show(html, width, scheme, pictures=pictures)
        facts, cut = self.page.evaluate(_FACTS), self.page.evaluate(_CUT_OFF)
        return Look(facts, self.low(), cut, list(self._asked))

    def low(self) -> list[Any]:
        """Texts and alternative texts, with their contrast, that are hard to read."""
        found: list[Any] = self.page.evaluate(_LOW_CONTRAST)
        return found

    def picture(self, *, whole: bool = True) -> Image.Image:
        """What stands in the window now; *whole*: from top to bottom."""
        return read(io.BytesIO(self.page.screenshot(full_page=whole)))

    def axe(self) -> list[str]:
        """What axe-core has to say of what stands in the window now: rule, and the first element that breaks it."""
        found = _AXE.run(self.page, options=_RULES).response["violations"]
        return [f"{rule['id']}: {rule['nodes'][0]['html'][:120]}" for rule in found]


@contextmanager
def eyes(chromium: str) -> Iterator[Eyes]:
    """A browser and a server of pictures for as long as it takes."""
    with picture_server() as pictures, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield Eyes(browser.new_page(), pictures)
        browser.close()


def read(file: Path | io.BytesIO) -> Image.Image:
    return Image.open(file).convert("RGB")


# ----------------------------------------------------------------------------- contact sheets

_STRIP, _GAP, _LABEL = 1800, 24, 22
_BAND = 25


def strips(picture: Image.Image, most: int) -> list[Image.Image]:
    """A long picture cut into strips side by side; of one that is longer than *most* strips, the top and the end."""
    tops = list(range(0, picture.height, _STRIP))
    if len(tops) > most:
        tops = [*tops[: most - 1], picture.height - _STRIP]
    return [picture.crop((0, top, picture.width, min(top + _STRIP, picture.height))) for top in tops]


def sheet(path: Path, pictures: Sequence[tuple[str, Image.Image]], most: int = 4) -> None:
    """One picture of many, each with its name above it."""
    columns = [(name if n == 0 else "", strip) for name, p in pictures for n, strip in enumerate(strips(p, most))]
    width = sum(strip.width + _GAP for _, strip in columns) + _GAP
    whole = Image.new("RGB", (width, max(strip.height for _, strip in columns) + 2 * _LABEL), "#8a8f98")
    pen, left = ImageDraw.Draw(whole), _GAP
    for name, strip in columns:
        pen.text((left, 4), name, fill="black", font_size=14)
        whole.paste(strip, (left, _LABEL))
        left += strip.width + _GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path)


# ----------------------------------------------------------------------------- references

REFERENCES = Path(__file__).parent / "data" / "looks"
#: One set a layout: from the left in the light, and from the right, narrow, in the dark.
REFERENCE_LOOKS = (("en", 700, "light"), ("ar", 375, "dark"))


def reference(eyes: Eyes, layout: str, language: str, width: int, scheme: str, html: str = "") -> Image.Image:
    """What is compared: a mail of six articles, its letters drawn as blocks, so that no machine's fonts matter."""
    html = html or mail_gallery.mail(layout, language, 6, eyes.pictures).html
    eyes.show(html.replace("</head>", f"<style>{blocks.css()}</style></head>", 1), width, scheme)
    eyes.page.evaluate("Promise.all([...document.fonts].map(face => face.load()))")
    return eyes.picture()


def reference_path(layout: str, language: str, width: int, scheme: str) -> Path:
    return REFERENCES / f"{layout}-{language}-{width}-{scheme}.png"


def difference(before: Image.Image, after: Image.Image, enough: int) -> int:
    """How many pixels differ to the eye, smoothed edges left out; counts no further than it must to pass *enough*."""
    size = max(before.width, after.width), max(before.height, after.height)
    one, other = (Image.new("RGB", size, "magenta") for _ in range(2))
    one.paste(before)
    other.paste(after)
    count = 0
    for top in range(0, size[1], _BAND):  # most bands are the same, and need not be gone through pixel by pixel
        box = (0, top, size[0], min(top + _BAND, size[1]))
        if ImageChops.difference(one.crop(box), other.crop(box)).getbbox():
            count += pixelmatch(one.crop(box), other.crop(box))
        if count > enough:
            break
    return count


# ----------------------------------------------------------------------------- what is drawn from the templates

_ROOT = Path(__file__).parents[1]
GALLERY = _ROOT / "docs" / "img" / "gallery"
#: Layout, language, articles, width, scheme, pictures: as docs/gallery.md shows them.
GALLERY_LOOKS = (
    ("cards", "en", 12, 700, "light", True), ("cards", "ar", 12, 375, "dark", True),
    ("cards", "de", 12, 375, "light", False), ("cards", "en", 100, 375, "light", True),
    ("hero", "en", 12, 700, "light", True), ("hero", "de", 12, 375, "dark", True),
    ("hero", "ar", 12, 320, "light", True),
    ("briefing", "en", 12, 700, "light", True), ("briefing", "ar", 12, 375, "light", True),
    ("headlines", "de", 12, 700, "dark", True), ("headlines", "ar", 40, 375, "light", True),
)  # fmt: skip


def gallery_path(layout: str, language: str, count: int, width: int, scheme: str, pictures: bool) -> Path:
    return GALLERY / f"{layout}-{language}-{count}-{width}-{scheme}{'' if pictures else '-blocked'}.png"


def _draw_gallery(eyes: Eyes) -> None:
    for layout, language, count, width, scheme, pictures in GALLERY_LOOKS:
        eyes.show(mail_gallery.mail(layout, language, count, eyes.pictures).html, width, scheme, pictures=pictures)
        picture = eyes.picture()
        if count == 100:  # the place where rows give way to links
            turn = int(eyes.page.evaluate("document.querySelector('.bare').getBoundingClientRect().top"))
            picture = picture.crop((0, turn - 700, width, turn + 400))
        shown = picture.crop((0, 0, width, min(picture.height, 1100 if width < 700 else 1000)))
        shown.quantize(96, dither=Image.Dither.NONE).save(
            gallery_path(layout, language, count, width, scheme, pictures), optimize=True
        )


def _draw_references(eyes: Eyes) -> None:
    REFERENCES.mkdir(exist_ok=True)
    for layout in mail_gallery.LAYOUTS:
        for look in REFERENCE_LOOKS:
            picture = reference(eyes, layout, *look)
            if picture.getcolors(256) is not None:
                picture = picture.quantize(256, dither=Image.Dither.NONE)
            picture.save(reference_path(layout, *look), optimize=True)


def _write_clients() -> None:
    page = _ROOT / "docs" / "clients.md"
    head, mark, rest = page.read_text("utf-8").partition("<!-- features -->\n")
    end = rest[rest.index("<!-- end -->") :]
    page.write_text(head + mark + clients.told(clients.used_by_shipped()) + end, "utf-8")


def main(chromium: str) -> None:
    _write_clients()
    with eyes(chromium) as looking:
        _draw_references(looking)
        _draw_gallery(looking)


if __name__ == "__main__":
    main(*sys.argv[1:])
