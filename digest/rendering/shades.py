"""Text against what lies behind it, in light and in dark: worked out from a mail's own HTML, without a browser.

Reads style attributes, ``bgcolor`` and, for the dark, the rules under ``prefers-color-scheme: dark``. Knows selectors
of tags and classes, one inside the other; that is what mails use. What it cannot read it leaves out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from digest.rendering.palette import contrast

_DARK = re.compile(r"@media[^{]*prefers-color-scheme:\s*dark[^{]*\{((?:[^{}]*\{[^{}]*\})*)", re.I)
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_SIMPLE = re.compile(r"([a-z][a-z0-9]*)?((?:\.[\w-]+)*)", re.I)
_HEX = re.compile(r"#([0-9a-f]{3}|[0-9a-f]{6})", re.I)
_NAMES = {"white": "#ffffff", "black": "#000000"}


@dataclass(frozen=True, slots=True)
class _Rule:
    path: tuple[tuple[str, frozenset[str]], ...]  # from the outside to the element: tag, classes
    weight: tuple[int, int]
    values: dict[str, str]

    def fits(self, element: Any) -> bool:
        if not _fits(element, self.path[-1]):
            return False
        outer = element.getparent()
        for step in reversed(self.path[:-1]):
            while outer is not None and not _fits(outer, step):
                outer = outer.getparent()
            if outer is None:
                return False
            outer = outer.getparent()
        return True


def faint(page: Any, scheme: str, least: float) -> tuple[str, str, str, float] | None:
    """The first text below *least* to 1: (text, its colour, the paper's, ratio); None where all can be read."""
    rules = sorted(_rules(page), key=lambda rule: rule.weight) if scheme == "dark" else []
    return _walk(page.body, "#000000", "#ffffff", rules, least)


def _walk(element: Any, ink: str, paper: str, rules: list[_Rule], least: float) -> tuple[str, str, str, float] | None:
    if not isinstance(element.tag, str) or element.tag in ("style", "script"):
        return None
    values = _style(element, rules)
    if values.get("display") == "none":
        return None
    ink, paper = _hex(values.get("color")) or ink, _hex(values.get("background-color")) or paper
    texts = [element.text, *(child.tail for child in element)]
    if element.tag == "img":
        texts.append(element.get("alt"))
    said = next((text for text in texts if text and text.strip(" \t\r\n\xa0\u200c\u034f")), None)
    if said and (ratio := contrast(ink, paper)) < least:
        return said, ink, paper, ratio
    return next((found for child in element if (found := _walk(child, ink, paper, rules, least))), None)


def _style(element: Any, rules: list[_Rule]) -> dict[str, str]:
    values = _declarations(element.get("style") or "")
    if background := element.get("bgcolor"):
        values.setdefault("background-color", background)
    for rule in rules:  # with !important, as they must be to win over a style attribute
        if rule.fits(element):
            values |= rule.values
    return values


def _rules(page: Any) -> list[_Rule]:
    found = []
    for style in page.xpath("//style/text()"):
        for block in _DARK.findall(style):
            for selectors, body in _RULE.findall(block):
                values = {k: v.replace("!important", "").strip() for k, v in _declarations(body).items()}
                found += [rule for selector in selectors.split(",") if (rule := _rule(selector, values))]
    return found


def _rule(selector: str, values: dict[str, str]) -> _Rule | None:
    path = []
    for step in selector.split():
        simple = _SIMPLE.fullmatch(step)
        if simple is None:
            return None
        path.append(((simple[1] or "").lower(), frozenset(filter(None, (simple[2] or "").split(".")))))
    weight = sum(len(classes) for _, classes in path), sum(bool(tag) for tag, _ in path)
    return _Rule(tuple(path), weight, values) if path else None


def _fits(element: Any, step: tuple[str, frozenset[str]]) -> bool:
    tag, classes = step
    return (not tag or element.tag == tag) and classes <= set((element.get("class") or "").split())


def _declarations(style: str) -> dict[str, str]:
    pairs = (part.partition(":") for part in style.split(";"))
    values = {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}
    if "background" in values and _hex(values["background"]):
        values.setdefault("background-color", values["background"])
    return values


def _hex(value: str | None) -> str | None:
    value = (value or "").replace("!important", "").strip().lower()
    found = _HEX.fullmatch(_NAMES.get(value, value))
    if not found:
        return None
    digits = found[1] if len(found[1]) == 6 else "".join(2 * digit for digit in found[1])
    return f"#{digits}"
