"""docs/performance.md: the figures as a run wrote them, a table for each benchmark between two marks."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.shared.measuring import Figure

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def cells(figure: Figure) -> tuple[str, str, str, str]:
    """Ours, peer, ratio and bar, for people."""
    unit = "" if figure.unit == "" else f" {figure.unit}"
    peer = "" if figure.peer is None else f"{_short(figure.peer)}{unit}"
    ratio = "" if figure.ratio is None else _short(figure.ratio)
    if figure.spread:
        ratio += f" ({_short(figure.spread[0])}–{_short(figure.spread[1])})"
    own = "" if figure.ratio is not None else unit
    bar = f"≤ {figure.at_most:g}{own}" if figure.at_most is not None else ""
    bar = f"≥ {figure.at_least:g}{own}" if figure.at_least is not None else bar
    return f"{_short(figure.ours)}{unit}", peer, ratio, bar


def _short(number: float) -> str:
    """Three figures that count."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def section(name: str, figures: Sequence[Figure]) -> str:
    lines = ["| figure | ours | peer | ratio | bar | |", "|---|---|---|---|---|---|"]
    lines += [f"| {f.name} | {' | '.join(cells(f))} | {'ok' if f.ok else '**missed**'} |" for f in figures]
    told = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {platform.system()}"
    return f"<!-- figures: {name} -->\n" + "\n".join(lines) + f"\n\nOn {told}.\n<!-- end -->"


def write(name: str, figures: Sequence[Figure]) -> None:
    """Put the figures of a run in the place of those of the run before."""
    text, new = PAGE.read_text(), section(name, figures)
    found, count = re.subn(rf"<!-- figures: {re.escape(name)} -->.*?<!-- end -->", lambda _: new, text, flags=re.DOTALL)
    if not count:
        raise RuntimeError(f"docs/performance.md has no place for {name!r}; it needs its section first")
    PAGE.write_text(found)
