"""Steps that are taken later on the running loop, all of which can be called off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    def __init__(self) -> None:
        self._handles: set[asyncio.TimerHandle] = set()

    def later(self, delay: float, step: Callable[[], None]) -> None:
        """Take *step* in *delay* seconds."""

        def run() -> None:
            self._handles.discard(handle)
            step()

        handle = asyncio.get_running_loop().call_later(delay, run)
        self._handles.add(handle)

    def cancel(self) -> None:
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()
