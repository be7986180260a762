"""What benchmarks measure with: pairs run in turns, a child with a clock and a high-water mark, figures with a bar."""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a run. ``samples``: (ours, peer) of each turn, in ``unit``; a peer of None: there is none.

    The bar, ``at_most`` or ``at_least``, is for the ratio ours ÷ peer, and for ours itself where there is no peer.
    A figure without a bar is told for the reader's sake.
    """

    name: str
    samples: Sequence[tuple[float, float | None]]
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ours(self) -> float:
        return median(ours for ours, _ in self.samples)

    @property
    def peer(self) -> float | None:
        peers = [peer for _, peer in self.samples if peer is not None]
        return median(peers) if peers else None

    @property
    def ratios(self) -> list[float]:
        return [ours / peer for ours, peer in self.samples if peer]

    @property
    def ratio(self) -> float | None:
        """The median of the turns' ratios."""
        return median(self.ratios) if self.ratios else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest ratio of several turns."""
        return (min(self.ratios), max(self.ratios)) if len(self.ratios) > 1 else None

    @property
    def ok(self) -> bool:
        judged = self.ours if self.ratio is None else self.ratio
        return (self.at_most is None or judged <= self.at_most) and (self.at_least is None or judged >= self.at_least)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "ours": self.ours, "peer": self.peer, "unit": self.unit, "ratio": self.ratio,
            "spread": self.spread, "turns": len(self.samples), "at_most": self.at_most, "at_least": self.at_least,
            "ok": self.ok,
        }  # fmt: skip


def turns(count: int, ours: Callable[[], A], peer: Callable[[], B]) -> list[tuple[A, B]]:
    """Run both *count* times, by turns, so that what disturbs the machine disturbs both."""
    return [(ours(), peer()) for _ in range(count)]


# ----------------------------------------------------------------------------- a child


@dataclass(frozen=True, slots=True)
class Sample:
    """What a child did: seconds by the wall clock, seconds of its own CPU (its children's too), MB held at most."""

    wall: float
    cpu: float
    peak_mb: float
    result: Any


def called(function: str, *, apart: bool | int = True, **arguments: Any) -> Sample:
    """Call ``module:function`` in a fresh Python; arguments and result go as JSON. Its import is not timed.

    Not *apart*: in this one, where only it counts that the call works.
    """
    if not apart:
        return sample_of(function, arguments)
    command = [sys.executable, "-m", "benchmarks.shared.child", function, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function} failed:\n{done.stderr}")
    return Sample(**json.loads(done.stdout.splitlines()[-1]))


def sample_of(function: str, arguments: dict[str, Any]) -> Sample:
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    with Clock() as clock:
        result = call(**arguments)
    return Sample(clock.wall, clock.cpu, peak_mb(), result)


def cpu_seconds() -> float:
    """CPU that this process and its finished children have used so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def peak_mb() -> float:
    """The most that this process has held since its program began."""
    status = Path("/proc/self/status")
    if status.exists():  # a child's ru_maxrss starts at its parent's
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024


class Clock:
    """Seconds of wall and CPU between entering and leaving."""

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> Clock:
        self._began = time.perf_counter(), cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._began[0], cpu_seconds() - self._began[1]
