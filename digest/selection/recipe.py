"""What a digest asks of selection, from an admin's words to what its row and its editions keep, and back to caps.

A text is checked here, against the topics there are; what it does is said in `caps` and `score`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from digest.errors import UsageError
from digest.selection.caps import Caps

#: Parts of the score, but for ``topic:KIND:SLUG``.
PARTS = ("recency", "length", "image", "story")
SECTIONS = ("none", "category", "tag")
_TOPIC = re.compile(r"(category|tag):([^:=\s]+)")
_MOST = 100
_HEAVIEST = 100.0

Known = Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class Wishes:
    """As an admin writes them; None: as it is. 0 and '' take a wish back."""

    quotas: tuple[str, ...] | None = None
    share: float | None = None
    per_author: int | None = None
    per_source: int | None = None
    section_min: int | None = None
    section_max: int | None = None
    sections: str | None = None
    score: str | None = None
    diverse: float | None = None


def changed(kept: Mapping[str, Any], wishes: Wishes, known: Known) -> dict[str, Any]:
    """What a digest keeps after *wishes*: only what it asks for. UsageError in one sentence."""
    values = dict(kept)
    if wishes.quotas is not None:
        values["quotas"] = dict(_quota(text, known) for text in wishes.quotas if text)
    if wishes.score is not None:
        values["score"] = _weights(wishes.score, known)
    if wishes.sections is not None:
        values["sections"] = "" if wishes.sections == "none" else _nearest("--sections", wishes.sections, SECTIONS)
    for name in ("per_author", "per_source", "section_min", "section_max"):
        if (number := getattr(wishes, name)) is not None:
            values[name] = _count(name, number)
    for name in ("share", "diverse"):
        if (part := getattr(wishes, name)) is not None:
            values[name] = _part_of_one(name, part)
    low, high = values.get("section_min", 0), values.get("section_max", 0)
    if high and low > high:
        raise UsageError(f"--section-min {low} and --section-max {high} do not fit; the first is the smaller one")
    return {name: value for name, value in values.items() if value}


def _quota(text: str, known: Known) -> tuple[str, int]:
    topic, equals, most = text.partition("=")
    if not equals or not most.strip().isascii() or not most.strip().isdigit() or not 1 <= int(most) <= _MOST:
        raise UsageError(f"--quota {text!r} is no quota; write a topic and 1 to {_MOST}, such as category:africa=3")
    return _topic("--quota", topic.strip(), known), int(most)


def _weights(text: str, known: Known) -> dict[str, float]:
    """``recency=1,image=.3,topic:category:africa=.5`` → part → weight, in the order of the parts."""
    weights: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = (part.strip() for part in item.partition("="))
        if not equals:
            raise UsageError(f"--score {item!r} gives no weight; write one, such as recency=.5")
        weights[_part(name, known)] = _weight(item, number)
    return {name: weight for name, weight in sorted(weights.items()) if weight}


def _part(name: str, known: Known) -> str:
    if name.startswith("topic:"):
        return "topic:" + _topic("--score", name.removeprefix("topic:"), known)
    return _nearest("--score", name, (*PARTS, "topic:category:SLUG"))


def _weight(item: str, number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not -_HEAVIEST <= weight <= _HEAVIEST:
        raise UsageError(f"--score {item!r}: the weight is a number from -{_HEAVIEST:g} to {_HEAVIEST:g}")
    return weight


def _topic(option: str, text: str, known: Known) -> str:
    found = _TOPIC.fullmatch(text)
    if not found:
        raise UsageError(f"{option} {text!r} is no topic; write category:SLUG or tag:SLUG")
    kind, slug = found.groups()
    if slug not in known.get(kind, ()):
        near = get_close_matches(slug, list(known.get(kind, ())), n=1)
        hint = f"did you mean {kind}:{near[0]}?" if near else "`digest topics --all` shows those there are"
        raise UsageError(f"{option}: there is no {kind} {slug!r}; {hint}")
    return text


def _nearest(option: str, value: str, allowed: Sequence[str]) -> str:
    if value in allowed and "SLUG" not in value:
        return value
    near = get_close_matches(value, allowed, n=1)
    raise UsageError(f"{option} {value!r}: {f'did you mean {near[0]}?' if near else 'use ' + ', '.join(allowed)}")


def _count(name: str, number: int) -> int:
    if not 0 <= number <= _MOST:
        raise UsageError(f"--{name.replace('_', '-')} {number} does not fit; 1 to {_MOST}, or 0 for none")
    return number


def _part_of_one(name: str, part: float) -> float:
    if part and not 0.01 <= part <= 1:  # also: not a number
        raise UsageError(f"--{name} {part:g} does not fit; it is a part of one, such as .4, or 0 for none")
    return round(part, 2)


# ----------------------------------------------------------------------------- what an edition makes of it


def topics_in(kept: Mapping[str, Any]) -> list[str]:
    """Every topic that quotas and weights name, as ``kind:slug``."""
    weighed = (part.removeprefix("topic:") for part in kept.get("score", ()) if part.startswith("topic:"))
    return sorted({*kept.get("quotas", ()), *weighed})


def caps_of(kept: Mapping[str, Any], maximum: int, ids: Mapping[str, int], headings: Collection[int]) -> Caps:
    """*kept* as caps of a mail of *maximum* stories. *ids*: of `topics_in`; *headings*: topics that head sections."""
    return Caps(
        quotas=tuple(sorted((ids[topic], most) for topic, most in kept.get("quotas", {}).items() if topic in ids)),
        # in whole per cent: ceil(.07 × 100) is 8 with floats
        share=-(-round(kept.get("share", 0) * 100) * maximum // 100),
        per_author=kept.get("per_author", 0),
        per_source=kept.get("per_source", 0),
        section_min=kept.get("section_min", 0),
        section_max=kept.get("section_max", 0),
        sections=frozenset(headings),
        alike=round(kept.get("diverse", 0) * 100),
    )
