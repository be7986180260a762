"""Many articles cleaned in a process beside this one, while this one stores what came before.

Cleaning takes as long as reading and storing together. The child owns nothing: articles go in by its standard input,
cleaned ones come out, in their order; it ends when its input does, however that came about. What kills it costs the
article that did it, and no other.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from digest.errors import in_a_line
from digest.text import clean
from digest.types import CleanArticle, RawArticle, Skipped

log = logging.getLogger(__name__)

#: So many are cleaned here before a child is started: it takes half a second to come up.
ALONE = 500
_BATCH = 25
# On their way at a time: enough for the child to be at work while this process stores some 500, and memory stays flat.
_AHEAD = 24
_AHEAD_CHARS = 5_000_000
_CODE = Path(__file__).resolve().parents[2]  # from here the child imports the very code that runs

Item = RawArticle | Skipped
Result = tuple[Item, CleanArticle | Skipped]


def cleaned(items: Iterable[Item], *, alone: int = ALONE) -> Iterator[Result]:
    """Yield each item and what it gives, cleaned, in order: the first *alone* in this process, the rest in a child.

    What was skipped before comes through as it is. An error in *items* is raised after all that came before it.
    """
    rest = iter(items)
    for item in islice(rest, alone):
        yield item, _result(item)
    first = next(rest, None)
    if first is None:
        return
    rest = chain([first], rest)
    if len(os.sched_getaffinity(0)) < 2 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) < 2:
        yield from ((item, _result(item)) for item in rest)
    else:
        yield from _in_a_child(rest)


def clean_or_skip(raw: RawArticle) -> CleanArticle | Skipped:
    """`clean`, or that it could not be done: hostile input that finds a hole in the text pipeline costs itself."""
    try:
        return clean(raw)
    except Exception as e:
        log.warning("an article cannot be cleaned", exc_info=e)
        return Skipped("unreadable", detail=in_a_line(e))


def _result(item: Item) -> CleanArticle | Skipped:
    return item if isinstance(item, Skipped) else clean_or_skip(item)


# ----------------------------------------------------------------------------- this side


def _in_a_child(items: Iterator[Item]) -> Iterator[Result]:
    ahead, child, failure = deque[list[Item]](), _Child(), None
    try:
        while True:
            while failure is None and len(ahead) < _AHEAD and sum(map(_weight, ahead)) < _AHEAD_CHARS:
                batch, failure = _batch(items)
                if not batch:
                    break
                child.send(batch)
                ahead.append(batch)
            if not ahead:
                break
            results = child.receive()
            if results is None:  # it died; whoever did it is among those on their way
                child.close()
                for item in chain.from_iterable(ahead):
                    yield item, _singly(item)
                ahead.clear()
                child = _Child()
                continue
            yield from zip(ahead.popleft(), results, strict=True)
    finally:
        child.close()
    if failure is not None:
        raise failure


def _batch(items: Iterator[Item]) -> tuple[list[Item], Exception | None]:
    """The next items, and the error that ended them early."""
    batch: list[Item] = []
    try:
        batch.extend(islice(items, _BATCH))
    except Exception as e:
        return batch, e
    return batch, None


def _weight(batch: list[Item]) -> int:
    return sum(len(item.body_html) for item in batch if isinstance(item, RawArticle))


def _singly(item: Item) -> CleanArticle | Skipped:
    """Clean an article in a child of its own."""
    if isinstance(item, Skipped):
        return item
    child = _Child()
    try:
        child.send([item])
        results = child.receive()
    finally:
        child.close()
    return results[0] if results else Skipped("unreadable", item.url or "", "it broke the process that cleaned it")


class _Child:
    """The process, and two threads that hand in and take out, so that neither side waits for the other to read."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "digest.text.apart"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_CODE
        )
        self._given: queue.SimpleQueue[list[Item] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[list[CleanArticle | Skipped] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._hand_in, self._take_out)]
        for thread in self._threads:
            thread.start()

    def send(self, batch: Sequence[Item]) -> None:
        """What no cleaning asks for stays here."""
        bare = [replace(i, authors=(), topics=(), assigned=()) if isinstance(i, RawArticle) else i for i in batch]
        self._given.put(bare)

    def receive(self) -> list[CleanArticle | Skipped] | None:
        """The results of the batch that was sent first; None if the child is no more."""
        return self._answers.get()

    def close(self) -> None:
        self._process.kill()  # it holds nothing, and one that hangs would never see the end of its input
        self._process.wait()
        self._given.put(None)
        for thread in self._threads:
            thread.join()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.stdout.close()  # type: ignore[union-attr]

    def _hand_in(self) -> None:
        with contextlib.suppress(OSError):  # `receive` will tell
            while (batch := self._given.get()) is not None:
                pickle.dump(batch, self._process.stdin, pickle.HIGHEST_PROTOCOL)  # type: ignore[arg-type]
                self._process.stdin.flush()  # type: ignore[union-attr]

    def _take_out(self) -> None:
        with contextlib.suppress(EOFError, pickle.UnpicklingError, OSError):
            while True:
                self._answers.put(pickle.load(self._process.stdout))  # type: ignore[arg-type]  # noqa: S301 — our own
        self._answers.put(None)


# ----------------------------------------------------------------------------- the other side


def main(given: IO[bytes], answers: IO[bytes]) -> None:
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            batch: list[Any] = pickle.load(given)  # noqa: S301 — from the parent
            pickle.dump([_result(item) for item in batch], answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


if __name__ == "__main__":
    logging.disable()  # what went wrong with an article stands in its result
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts both: the parent ends us
    main(sys.stdin.buffer, sys.stdout.buffer)
