"""The score of an article, where an admin weighs what counts; without weights the newest stand first. Pure.

Parts are whole millionths: the same sum, and so the same order, in every process and on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

MILLION = 1_000_000
#: An article of so many words has the full length.
LONG = 600
#: Recency halves in a day for a digest that runs daily or nearly so, in three for one that runs less often.
DAILY, RARELY = timedelta(hours=24), timedelta(hours=72)


@dataclass(frozen=True, slots=True)
class Scored:
    """What scoring looks at. ``size``: candidates that tell the article's story; ``topics``: as ``kind:slug``."""

    age: timedelta
    words: int
    image: bool
    size: int
    topics: frozenset[str]


def half_life(period: timedelta | None) -> timedelta:
    """For a digest whose runs are *period* apart; None: run by hand."""
    return RARELY if period is not None and period > timedelta(hours=60) else DAILY


def parts(article: Scored, weights: Mapping[str, float], half: timedelta) -> dict[str, int]:
    """Part → millionths, for each part that has a weight: its weight × a value, most of which lie between 0 and 1."""
    return {name: round(weight * _value(name, article, half) * MILLION) for name, weight in weights.items()}


def _value(name: str, article: Scored, half: timedelta) -> float:
    match name:
        case "recency":
            return float(2 ** -(max(article.age, timedelta(0)) / half))
        case "length":
            return min(1.0, article.words / LONG)
        case "image":
            return float(article.image)
        case "story":  # two tell it: 1, four: 2
            return math.log2(max(1, article.size))
        case _:
            return float(name.removeprefix("topic:") in article.topics)


def in_words(parts: Mapping[str, int] | None) -> dict[str, float] | None:
    """Parts as people read them, with their sum under ``total``; None where nothing is weighed."""
    if not parts:
        return None
    return {name: part / MILLION for name, part in (*parts.items(), ("total", sum(parts.values())))}
