"""`./run bench [NAME]…`: how fast, beside a peer that did the same work in the same run.

A benchmark is a module of this folder. Its docstring says what it measures, against whom, and the bar; its
``run(sizes)`` yields figures (`benchmarks.shared.measuring.Figure`) and is given ``SIZES``, or ``TINY`` with --tiny,
which only proves that it still runs. Ratios travel between machines, seconds do not: a bar is a ratio wherever there is
a peer to compare with.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from benchmarks.shared import page
from benchmarks.shared.measuring import Figure

HERE = Path(__file__).parent


def names() -> list[str]:
    """Every benchmark there is."""
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def load(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name}")


def figures(name: str, *, tiny: bool = False) -> Iterator[Figure]:
    """Run one benchmark; its figures as they come. SpamAssassin is not asked: its second would hide all of ours."""
    module, asked = load(name), os.environ.get("SPAMASSASSIN")
    found: Iterable[Figure] = module.run(module.TINY if tiny else module.SIZES)
    os.environ["SPAMASSASSIN"] = ""
    try:
        yield from found
    finally:
        del os.environ["SPAMASSASSIN"]
        os.environ |= {} if asked is None else {"SPAMASSASSIN": asked}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures; 1 when one misses its bar, 2 when there is no such benchmark."""
    wanted = _arguments(argv)
    unknown = [name for name in wanted.names if name not in names()]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    logging.getLogger("digest").setLevel(logging.ERROR)  # a warning is no figure
    if not wanted.json:
        print(_line("", "ours", "peer", "ratio", "bar", ""))
    missed = False
    for name in wanted.names or names():
        found = []
        for figure in figures(name, tiny=wanted.tiny):
            found.append(figure)
            missed |= not figure.ok and not wanted.tiny
            print(json.dumps({"bench": name, **figure.to_json()}) if wanted.json else _row(name, figure), flush=True)
        if wanted.write:
            page.write(name, found)
    return 1 if missed else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("./run bench", description="Measure, beside a peer in the same run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(names())}; all by default")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--tiny", action="store_true", help="small sizes, no bars: does it still run?")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/performance.md")
    wanted = parser.parse_args(argv)
    if wanted.tiny and wanted.write:
        parser.error("--tiny measures nothing that is worth writing down")
    return wanted


def _row(bench: str, figure: Figure) -> str:
    ok = "ok" if figure.ok else "MISSED"
    return _line(f"{bench}: {figure.name}", *page.cells(figure), ok)


def _line(name: str, ours: str, peer: str, ratio: str, bar: str, ok: str) -> str:
    return f"{name:<66} {ours:>13} {peer:>13} {ratio:>16} {bar:>10}  {ok}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
