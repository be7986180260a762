"""A transport without a network: what goes in lies in an `Outbox`, answered as it was told to.

Ships with the package, for tests and trials of a sender; passes the same contract as the SMTP client. Sends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from digest.delivery.transport import Envelope, Grants, built
from digest.errors import DeliveryError
from digest.types import Outcome, Result

ACCEPTED = Outcome(Result.ACCEPTED, 250, "2.0.0", "Ok")

#: What an address answers: always the same, or what a function says each time.
Answer = Outcome | Callable[[Envelope], Outcome]


@dataclass(frozen=True, slots=True)
class Posted:
    """A message that was taken."""

    mail_from: bytes
    rcpt: bytes
    message: bytes


@dataclass(slots=True)
class Outbox:
    """The other side. ``answers`` by address; whatever is not named is accepted.

    An answer with code 421 ends the connection as a relay would. ``uncertain`` answers end it too; the message counts
    as arrived. With ``reachable`` false there is nobody.
    """

    answers: Mapping[str, Answer] = field(default_factory=dict)
    reachable: bool = True
    posted: list[Posted] = field(default_factory=list)

    def answer(self, envelope: Envelope) -> Outcome:
        found = self.answers.get(envelope.rcpt.decode("ascii", "replace"), ACCEPTED)
        return found(envelope) if callable(found) else found


class MemoryPool:
    """The transport over an outbox: one turn of the event loop a message and connection."""

    def __init__(self, outbox: Outbox, grants: Grants, *, connections: int = 2) -> None:
        self.outbox, self.grants = outbox, grants
        self.aborted = self.ending = False
        self._connections = [_Connection(self) for _ in range(connections)]
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.outbox.reachable:
            self._fail(DeliveryError("There is no mail relay in memory. Nothing is lost."))
            return
        for connection in self._connections:
            connection.kick()

    async def drain(self) -> None:
        self.ending = True
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self.aborted:
            for connection in self._connections:
                self.grants.closed(connection, None)

    def abort(self) -> None:
        self.aborted = self.ending = True
        for task in self._tasks:
            task.cancel()

    def _fail(self, problem: BaseException) -> None:
        self.abort()
        if not self.failed.done():
            self.failed.set_exception(problem)
            self.failed.exception()

    def _begin(self, connection: _Connection) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._work(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _work(self, connection: _Connection) -> None:
        try:
            await connection.work()
        except Exception as problem:  # a grant's exception belongs to the owner
            self._fail(problem)


class _Connection:
    """Announces one envelope while the one before it is answered, as a pipelined connection does."""

    def __init__(self, pool: MemoryPool) -> None:
        self._pool = pool
        self._task: asyncio.Task[None] | None = None

    def kick(self) -> None:
        if (self._task is None or self._task.done()) and not self._pool.ending:
            self._task = self._pool._begin(self)

    async def work(self) -> None:
        grants = self._pool.grants
        announced = self._announce()
        while announced is not None:
            await asyncio.sleep(0)
            (envelope, parts), announced = announced, self._announce()
            outcome = self._pool.outbox.answer(envelope)
            if outcome.result in (Result.ACCEPTED, Result.UNCERTAIN):
                self._pool.outbox.posted.append(Posted(envelope.mail_from, envelope.rcpt, b"".join(parts)))
            grants.answered(envelope, outcome)
            if self._pool.aborted:
                return
            if outcome.code == 421 or outcome.result is Result.UNCERTAIN:
                if announced is not None:
                    grants.returned(announced[0])
                grants.closed(self, "the relay closed the connection")
                announced = self._announce()
            elif announced is None:
                announced = self._announce()
        self._task = None
        if not self._pool.ending:
            grants.idle(self)

    def _announce(self) -> tuple[Envelope, list[bytes]] | None:
        while not self._pool.ending and (envelope := self._pool.grants.next()) is not None:
            parts = built(envelope)
            if isinstance(parts, list):
                return envelope, parts
            self._pool.grants.answered(envelope, parts)
        return None
