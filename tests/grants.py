"""A sender that only keeps books, for tests of transports."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from digest.delivery.transport import Envelope, Transport, Wakeable
from digest.types import Outcome


def envelope(rcpt: str, message: bytes | None = None) -> Envelope:
    body = message if message is not None else b"Subject: to %b\r\n\r\nHello\r\n" % rcpt.encode()
    return Envelope(b"b+1.2.mac@example.org", rcpt.encode(), lambda: [body[:10], body[10:]], key=rcpt)


class Recorder:
    """Hands out envelopes in order. What comes back goes to the front of the queue; waiting connections are woken."""

    def __init__(self, envelopes: Iterable[Envelope] = ()) -> None:
        self.queue = deque(envelopes)
        self.out: list[Envelope] = []
        self.outcomes: dict[str, list[Outcome]] = {}
        self.came_back: list[str] = []
        self.reasons: list[str | None] = []
        self.waiting: list[Wakeable] = []
        self.asked = 0
        self.most_out = 0
        self.changed = asyncio.Event()

    def next(self) -> Envelope | None:
        self.asked += 1
        if not self.queue:
            return None
        taken = self.queue.popleft()
        self.out.append(taken)
        self.most_out = max(self.most_out, len(self.out))
        return taken

    def answered(self, envelope: Envelope, outcome: Outcome) -> None:
        self.out.remove(envelope)
        self.outcomes.setdefault(envelope.key, []).append(outcome)
        self.changed.set()

    def returned(self, envelope: Envelope) -> None:
        self.out.remove(envelope)
        self.came_back.append(envelope.key)
        self.give(envelope, first=True)

    def idle(self, connection: Wakeable) -> None:
        self.waiting.append(connection)
        self.changed.set()

    def closed(self, connection: Wakeable, reason: str | None) -> None:
        self.reasons.append(reason)
        self.waiting = [waiting for waiting in self.waiting if waiting is not connection]
        self.changed.set()

    def give(self, envelope: Envelope, *, first: bool = False) -> None:
        if first:
            self.queue.appendleft(envelope)
        else:
            self.queue.append(envelope)
        waiting, self.waiting = self.waiting, []
        for connection in waiting:
            asyncio.get_running_loop().call_soon(connection.kick)

    async def until_done(self, transport: Transport, seconds: float = 10) -> None:
        """Wait until nothing is queued or out, or the transport failed (which is raised)."""
        async with asyncio.timeout(seconds):
            while self.queue or self.out:
                self.changed.clear()
                change = asyncio.ensure_future(self.changed.wait())
                await asyncio.wait({change, transport.failed}, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
                if transport.failed.done():
                    transport.failed.result()

    @property
    def results(self) -> dict[str, list[str]]:
        return {key: [outcome.result.value for outcome in found] for key, found in self.outcomes.items()}
