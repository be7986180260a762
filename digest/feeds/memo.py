"""What was made of items before: feeds share their articles, and between two builds of one feed few of them change.

Knows nothing of feeds. What it keeps is bounded by bytes; what was asked for the longest ago goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """Values by what they were made of, for threads. ``size``: the bytes that keeping a value costs."""

    def __init__(self, limit: int, size: Callable[[K, V], int]) -> None:
        self._limit, self._size_of, self._size = limit, size, 0
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def all_of(self, keys: Sequence[K], make: Callable[[list[K]], list[V]]) -> list[V]:
        """A value for each of *keys*; *make* is handed those that are not here, and gives one for each."""
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        missing = list(dict.fromkeys(key for key in keys if key not in found))
        if missing:
            made = dict(zip(missing, make(missing), strict=True))
            found |= made
            with self._lock:
                for key, value in made.items():
                    self._put(key, value)
        return [found[key] for key in keys]

    def _put(self, key: K, value: V) -> None:
        if key not in self._kept:
            self._size += self._size_of(key, value)
            self._kept[key] = value
        while self._size > self._limit:
            self._size -= self._size_of(*self._kept.popitem(last=False))
