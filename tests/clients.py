"""What mails use of HTML and CSS, and which mail programs know it.

Owns the reading of a finished mail into *features*, named as caniemail.com names them, and the table of who supports
what (tests/data/rendering/clients.json), and docs/clients.md, which says what readers see where something is not known.
``python -m tests.clients FILE`` writes the table anew from caniemail's data, as the npm package ``caniemail`` (MIT)
carries it: package/data/caniemail.json.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cssutils
from lxml import etree
from lxml import html as lxml_html

from digest.rendering import Renderer
from tests import mail_gallery
from tests.mail_sample import BRAND

TABLE = Path(__file__).parent / "data" / "rendering" / "clients.json"
#: What a reader calls it: where the data has it. The new Outlook shows mails as outlook.com does.
CLIENTS = {
    "Gmail": ("gmail.desktop-webmail", "gmail.ios", "gmail.android", "gmail.mobile-webmail"),
    "Outlook (Word)": ("outlook.windows",),
    "Outlook (new)": ("outlook.outlook-com", "outlook.macos", "outlook.ios", "outlook.android"),
    "Apple Mail": ("apple-mail.macos", "apple-mail.ios"),
    "Yahoo": ("yahoo.desktop-webmail", "yahoo.ios", "yahoo.android"),
    "Thunderbird": ("thunderbird.macos", "thunderbird.windows"),
}
_WORST_FIRST = "nauy"

# ----------------------------------------------------------------------------- who knows what


def table() -> dict[str, dict[str, str]]:
    """Feature → program → ``y`` yes, ``a`` in part, ``n`` no, ``u`` not known; the worst of its platforms."""
    found: dict[str, dict[str, str]] = json.loads(TABLE.read_text("utf-8"))["features"]
    return found


def extracted(data: dict[str, Any]) -> dict[str, Any]:
    """The table, out of caniemail's own file: the newest version of each platform counts."""
    features = {}
    for feature in data["data"]:
        stats = feature["stats"]
        verdicts = {}
        for name, places in CLIENTS.items():
            tested = [stats.get(f, {}).get(p) for f, p in (place.split(".") for place in places)]
            newest = [list(versions.values())[-1][0] for versions in tested if versions]
            verdicts[name] = min(newest, key=_WORST_FIRST.index, default="u")
        features[feature["slug"]] = verdicts
    return {"source": "https://www.caniemail.com", "date": data["last_update_date"][:10], "features": features}


def main(path: str) -> None:
    made = extracted(json.loads(Path(path).read_text("utf-8")))
    rows = [f'  "{name}": {json.dumps(verdicts)}' for name, verdicts in sorted(made["features"].items())]
    head = f'{{"source": "{made["source"]}", "date": "{made["date"]}", "features": {{\n'
    TABLE.write_text(head + ",\n".join(rows) + "\n}}\n", "utf-8")


# ----------------------------------------------------------------------------- what readers see instead

_LIGHT = "the light colours, which stand in every element's own style and can be read on any paper"
_ONLY_STYLE = "what only a style sheet can say is missing: dark mode, narrower margins on phones"
_ATTRIBUTE = "the attributes of the table cells say the same"
_UNUSED = "the part that is not known is not used"
#: Feature → what a reader sees where a program does not know it, or only in part.
FALLBACKS = {
    "css-at-media": "the layout for wide windows; columns are fluid, so that it fits narrow ones, too",
    "css-at-media-prefers-color-scheme": f"{_LIGHT}, or the program's own dark colours",
    "css-border": "lines; those of paragraphs may be nearer to the text",
    "css-border-radius": "square corners",
    "css-color-scheme": _LIGHT,
    "css-direction": "the direction comes from `dir`, too",
    "css-display": "pictures keep a small gap below them",
    "css-display-none": "the preheader is hidden by its size, the logo for the dark by `max-height` or `mso-hide`",
    "css-float": "`align` says the same",
    "css-font-size": _UNUSED,
    "css-font-weight": "bold all the same: nothing else is asked for",
    "css-height": "the line's height says the same",
    "css-important": "in style sheets only, in small letters and after a blank, as is known everywhere",
    "css-letter-spacing": "letters at their usual distance",
    "css-line-height": "lines a little nearer to each other or farther apart",
    "css-margin": f"{_UNUSED}: no negative margins; centred by `align`",
    "css-max-height": "what has to be hidden from Outlook has `mso-hide`",
    "css-max-width": "Outlook's own tables, in conditional comments, are 600 pixels wide; pictures have `width`",
    "css-outline": "no outline either: it is only taken off",
    "css-overflow": "what has to be hidden is hidden by `display` and `mso-hide`, too",
    "css-padding": "room around cells; a line above a paragraph stands nearer to it",
    "css-pseudo-class-hover": "no line under a link that the pointer is on",
    "css-selector-attribute": "rules for Outlook's apps, which know them",
    "css-selector-chaining": f"links stay as their own style says; {_LIGHT}",
    "css-selector-class": _ONLY_STYLE,
    "css-selector-descendant": _ONLY_STYLE,
    "css-selector-grouping": _ONLY_STYLE,
    "css-selector-id": "a rule for one old Outlook is missing",
    "css-selector-type": _ONLY_STYLE,
    "css-text-align": f"{_UNUSED}: left, right and center",
    "css-text-decoration": f"{_UNUSED}: underline and none",
    "css-text-transform": "small letters where others see capitals",
    "css-width": _ATTRIBUTE,
    "css-word-break": "a word wider than the window makes it scroll",
    "css-word-spacing": "the usual distance of words: normal is all that is asked for",
    "html-align": "`text-align` says the same",
    "html-aria-label": "a screen reader reads the mail without announcing its subject first",
    "html-bdi": "the same words; a name of the other direction may draw its neighbours with it",
    "html-body": "the paper's colour is that of the element inside as well",
    "html-dir": "the direction comes from styles, too",
    "html-doctype": "nothing depends on it there",
    "html-img": "pictures, as everywhere: nobody tested it",
    "html-lang": "a screen reader takes its own language",
    "html-meta-color-scheme": _LIGHT,
    "html-role": "tables may be read out as tables",
    "html-style": _ONLY_STYLE,
    "html-width": "nothing: widths are in pixels, or 100% of a table",
}
#: What caniemail has not tested.
UNTESTED = {
    "css--ms-interpolation-mode": "for old Outlooks: smoother pictures",
    "css--ms-text-size-adjust": "for Windows phones: text as large as it says",
    "css--webkit-text-size-adjust": "for iPhones: text as large as it says",
    "css-pseudo-class-root": "the whole page; goes with `color-scheme`",
    "css-supported-color-schemes": "the older name of `color-scheme`",
    "html-aria-roledescription": '"email", for screen readers',
    "html-media": "of a style sheet; stands beside widths of 100%",
}
_VERDICTS = {"y": "yes", "a": "in part", "n": "**no**", "u": "not tested"}


def lacking(used: set[str]) -> dict[str, dict[str, str]]:
    """Those of *used* that some program does not know, or not fully."""
    known = table()
    return {name: known[name] for name in sorted(used) if name in known and set(known[name].values()) != {"y"}}


def told(used: set[str]) -> str:
    """What docs/clients.md says of mails that use these features."""
    known = table()
    head = f"| | {' | '.join(CLIENTS)} | what is seen where it is not known |\n|---|{'---|' * len(CLIENTS)}---|\n"
    rows = [f"| {_named(name)} | {' | '.join(map(_VERDICTS.get, verdicts.values()))} | {FALLBACKS.get(name, '')} |"
            for name, verdicts in lacking(used).items()]  # fmt: skip
    everywhere = ", ".join(_named(name) for name in sorted(used) if name in known and name not in lacking(used))
    untested = "\n".join(f"| {_named(name)} | {UNTESTED.get(name, '')} |" for name in sorted(used - known.keys()))
    rest = f"Known to all of them: {everywhere}.\n\nTested by nobody:\n\n| | |\n|---|---|\n{untested}\n"
    return head + "\n".join(rows) + "\n\n" + rest


def _named(slug: str) -> str:
    return f"[`{slug}`](https://www.caniemail.com/features/{slug}/)" if slug in table() else f"`{slug}`"


# ----------------------------------------------------------------------------- what a mail uses

_ELEMENTS = {
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "html-h1-h6"),
    **dict.fromkeys(("table", "tbody", "thead", "tr", "td", "th"), "html-table"),
    **dict.fromkeys(("ul", "ol", "li", "dl"), "html-lists"),
    **dict.fromkeys(("article", "main", "section", "header", "footer", "nav", "aside", "figure"), "html-semantics"),
}
#: Older than any mail program: no table lists them.
_PLAIN = {"html", "head", "title", "meta", "a", "b", "i", "br", "center"}
_PLAIN_ATTRIBUTES = {
    "href", "src", "alt", "class", "style", "id", "border", "bgcolor", "type", "name", "content", "http-equiv", "xmlns",
    "xmlns:v", "xmlns:o",
}  # fmt: skip
_PLAIN_PROPERTIES = {"color", "font-family", "font-style"}
_SIDES = re.compile(
    r"(margin|padding|border)-(?:top|right|bottom|left)(?:-(?:color|width|style))?|(border)-(?:color|width|style)"
)
_UNIT = re.compile(r"(?<![\w#.-])-?\d*\.?\d+(px|em|rem|%|vh|vw|vmin|vmax|ch|ex|pt|cm|mm|in|pc)(?![\w-])")
_FUNCTION = re.compile(r"\b(calc|min|max|clamp|rgba?|linear-gradient|radial-gradient|var|light-dark)\(")
_FUNCTIONS = {
    "calc": "css-unit-calc", "var": "css-variables", "rgb": "css-rgb", "rgba": "css-rgba",
    "linear-gradient": "css-linear-gradient", "radial-gradient": "css-radial-gradient",
}  # fmt: skip
_SELECTORS = {
    "css-selector-class": r"\.[\w-]", "css-selector-id": r"#[\w-]", "css-selector-attribute": r"\[",
    "css-selector-child": r">", "css-selector-adjacent-sibling": r"\+", "css-selector-general-sibling": r"~",
    "css-selector-universal": r"\*", "css-selector-descendant": r"[\w\])] +[\w.\[#]",
    "css-selector-chaining": r"\w\.\w|\]\.",
    "css-selector-type": r"(?:^|[\s>+~])[a-z]\w*",
}  # fmt: skip


def features(html: str) -> set[str]:
    """Every feature that *html* uses outside of what is written for Outlook alone."""
    page = lxml_html.document_fromstring(html)
    found = {"html-doctype"} if html.lower().startswith("<!doctype html>") else set()
    for element in page.iter():
        if element.tag is etree.Comment:
            found.add("html-comments")
        elif isinstance(element.tag, str):
            found |= set(_element(element))
    for style in page.xpath("//style/text()"):
        found |= set(_sheet(str(style)))
    return found


def used_by_shipped() -> set[str]:
    """What any of the shipped mails uses: every form of a story, scripts of both directions, the confirmation."""
    mails = [
        mail_gallery.mail(layout, language, count).html
        for layout in mail_gallery.LAYOUTS
        for language, count in (("en", 12), ("ar", 100))
    ]
    params = {"confirm_url": "https://news.example/confirm/x", "digest_name": "Morning"}
    mails.append(Renderer().system("confirm", BRAND, params, "en").html)
    return set().union(*map(features, mails))


def _element(element: Any) -> Iterator[str]:
    if element.tag not in _PLAIN:
        yield _ELEMENTS.get(element.tag, f"html-{element.tag}")
    if element.tag == "meta" and "color-scheme" in (element.get("name") or ""):
        yield "html-meta-color-scheme"
    if (element.get("href") or "").startswith("mailto:"):
        yield "html-mailto-links"
    for name in element.attrib:
        if name not in _PLAIN_ATTRIBUTES:
            yield "html-srcset" if name in ("srcset", "sizes") else f"html-{name}"
    yield from _inlined(element.get("style") or "")


@cache  # the same few styles come again and again
def _inlined(style: str) -> frozenset[str]:
    return frozenset(_declarations(cssutils.css.CSSStyleDeclaration(style, validating=False)))


def _sheet(text: str) -> Iterator[str]:
    for rule in _parsed(text):
        yield from _rule(rule)


def _parsed(text: str) -> Any:
    parser = cssutils.CSSParser(loglevel=logging.CRITICAL, validate=False, fetcher=lambda _url: ("utf-8", b""))
    return parser.parseString(text)


def _rule(rule: Any) -> Iterator[str]:
    if rule.type == rule.MEDIA_RULE:
        yield "css-at-media"
        named = re.findall(r"\(\s*(prefers-[a-z-]+|hover|orientation)", rule.media.mediaText)
        yield from (f"css-at-media-{name}" for name in named)
        for inner in rule.cssRules:
            yield from _rule(inner)
    elif rule.type == rule.STYLE_RULE:
        yield from _selector(rule.selectorText)
        yield from _declarations(rule.style)
    elif rule.type != rule.COMMENT:
        yield "css-at-" + rule.cssText.split()[0].lstrip("@")


def _selector(text: str) -> Iterator[str]:
    yield from (name for name, pattern in _SELECTORS.items() if re.search(pattern, text))
    for dots, name in re.findall(r"(::?)([a-z-]+)", text):
        yield f"css-pseudo-{'element' if dots == '::' else 'class'}-{name}"
    if "," in text:
        yield "css-selector-grouping"


def _declarations(style: Any) -> Iterator[str]:
    for declared in style.getProperties(all=True):
        name, value = declared.name.lower(), declared.value.lower()
        if not name.startswith("mso-"):
            yield from _declared(name, value)
        if declared.priority:
            yield "css-important"


def _declared(name: str, value: str) -> Iterator[str]:
    if side := _SIDES.fullmatch(name):
        name = side[1] or side[2]
    if name not in _PLAIN_PROPERTIES:
        yield f"css-{name}"
    if name == "display" and value in ("none", "flex", "grid"):
        yield f"css-display-{value}"
    yield from ("css-unit-percent" if unit == "%" else f"css-unit-{unit}" for unit in _UNIT.findall(value))
    yield from (_FUNCTIONS.get(name, f"css-function-{name}") for name in _FUNCTION.findall(value))
    if re.search(r"\b(?:system-ui|ui-\w+)\b", value):
        yield "css-sytem-ui"  # the slug is written so


if __name__ == "__main__":
    main(*sys.argv[1:])
