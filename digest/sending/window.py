"""The sender of one process: batches under lease go out through a pool of connections, within a window.

    claim (own thread) → ahead ─ granted by a commit ─► ready → connection → answer ─ recorded by a commit ─► done
                 │      ▲             └────────── one `group` on the writer's thread moves all of it ─────────┘
                 └ seal ┘  (own thread) where mails are signed: ahead of the grant, so that no connection waits

Where mail may go only so fast (`digest.sending.shares`), a recipient is granted when its turn comes: one whose domain
has had its part of this moment is put off into a later batch, and the rest goes on.

The window bounds the **count** of granted recipients whose outcome is not recorded, over all batches in hand: what a
kill -9 can repeat. A recipient is handed to a socket only after the commit that granted it; the same commit re-checks
suppressions, unsubscribes and the edition's state. One commit is in flight at a time. The figures behind the sizes are
in docs/decisions/0004-window.md. Owns no SQL and no protocol: `digest.ledger.batches` and `digest.delivery` do.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from digest.delivery.transport import Envelope, Transport, Wakeable
from digest.errors import DeliveryError
from digest.ledger.batches import Answer, Claimed, Move, Recipient
from digest.ledger.rates import Bound
from digest.sending.shares import Shares, Turn
from digest.types import TERMINAL, Outcome, Result

HAND = 2  # batches in hand at most
MANY = 6  # … while those wait for domains that take no more just now
LOW = 250  # claim the next when fewer than this wait to be granted
CHUNK = 16  # mails that are sealed at a time
IDLE_S = 0.05  # with answers and nothing else to do, commit after this long


def window_for(connections: int) -> int:
    """How many recipients may be granted without a recorded outcome: the bound on repeats after a kill."""
    return max(50, connections * 5 // 2)


def group_size(window: int, connections: int) -> int:
    """How many answers make a commit: fewer burn CPU, more starve the connections."""
    return max(1, min(window // 3, max(8, window - 2 * connections)))


class Mails(Protocol):
    """The mails of a claimed batch. ``seals``: making one takes long enough to be done ahead, by `seal`."""

    @property
    def seals(self) -> bool: ...

    def seal(self, recipients: Sequence[Recipient]) -> None: ...

    def envelope(self, recipient: Recipient) -> Envelope: ...


class Store(Protocol):
    """The ledger as the sender sees it; every call is one transaction. Raises LeaseLost where the fence fails.

    ``rest``: the run is over; let go of what was kept open for it.
    """

    def claim(self) -> tuple[Claimed, Mails] | None: ...

    def group(
        self, moves: Sequence[Move], answers: Sequence[Answer], granting: Sequence[Recipient]
    ) -> dict[Recipient, Outcome]: ...

    def put_off(self, batch: Claimed, kept: Sequence[int], off: Sequence[Recipient], bound: Bound | None) -> None: ...

    def hand_back(self, batch: Claimed, left: Sequence[Recipient]) -> None: ...

    def rest(self) -> None: ...


@dataclass(eq=False, slots=True)
class Held:
    """A batch in hand. ``granted``: how far wire_to stands; ``left``: recipients without a recorded outcome; ``again``:
    some of its answers are not final, or may not have been under an earlier lease.

    ``unsealed`` → ``ahead`` → granted, in the batch's order. ``waits``: the next of them may not go just now.
    """

    batch: Claimed
    mails: Mails
    granted: int = 0
    left: int = 0
    again: bool = False
    unsealed: collections.deque[Recipient] = field(default_factory=collections.deque)
    ahead: collections.deque[Recipient] = field(default_factory=collections.deque)
    waits: bool = False


@dataclass(slots=True)
class Sent:
    """What a run did. ``editions``: those with an answer; ``trouble``: why it stopped early, in one sentence; ``over``:
    that it did so because the day's mails have gone."""

    editions: set[int] = field(default_factory=set)
    answers: collections.Counter[Result] = field(default_factory=collections.Counter)
    trouble: str | None = None
    over: str | None = None


class Sender:
    """Sends what can be claimed, then returns. Implements the transport's Grants.

    Every method runs on the event loop. The store's calls do not: `claim` has a thread of its own, because it reads and
    renders a whole batch and must not delay a group; `group` and `hand_back` have another.
    """

    def __init__(
        self, store: Store, connect: Callable[[Sender], Transport], *, connections: int, window: int | None = None,
        lease_s: float = 10.0, shares: Shares | None = None, patient: bool = False,
    ) -> None:  # fmt: skip
        self._store, self._connect = store, connect
        self._shares, self._patient = shares, patient
        self.window = window or window_for(connections)
        self._group, self._lease = group_size(self.window, connections), lease_s
        self._hand: list[Held] = []
        self._held: dict[int, Held] = {}
        self._ready: collections.deque[Recipient] = collections.deque()
        self._answers: list[Answer] = []
        self._idle: list[Wakeable] = []
        self._pool: Transport | None = None
        self._unrecorded = self._putting = 0
        self._committing = self._claiming = self._sealing = self._stopping = False
        self._more = True
        self._last_commit = time.monotonic()
        self.sent = Sent()

    # -- the run

    async def run(self, stop: asyncio.Event | None = None) -> Sent:
        """Claim and send until nothing can be claimed, *stop* is set, or the relay fails.

        What was granted is answered or, after a failure, handed back: nothing is left under this worker's lease.
        Raises LeaseLost when another worker took a batch over, after the sockets were dropped.
        """
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        if self._shares:
            self._shares.begin(self._turn_came)
        try:
            with (
                ThreadPoolExecutor(1, "digest-writer") as self._writer,
                ThreadPoolExecutor(1, "digest-claimer") as self._claimer,
                ThreadPoolExecutor(1, "digest-sealer") as self._sealer,
            ):
                await self._at_work(stop)
        finally:
            self._store.rest()
        return self.sent

    async def _at_work(self, stop: asyncio.Event | None) -> None:
        self._want()
        ticker = self._loop.create_task(self._tick(stop))
        try:
            await self._until_done()
        finally:
            ticker.cancel()
            if self._pool:
                self._pool.abort()

    async def _until_done(self) -> None:
        await self._done
        if self._pool is not None:
            await self._pool.drain()
        await self._settle()

    async def _settle(self) -> None:
        """After the last answer: record what is left, give back what was not sent."""
        while self._committing or self._claiming or self._sealing or self._putting:
            await asyncio.sleep(0.001)
        if self._answers:
            await self._record([*self._answers])
        for held in self._hand:
            granted = [r for r in self._ready if r.batch is held.batch]
            left = [*granted, *held.ahead, *held.unsealed]
            await self._on(self._writer, self._store.hand_back, held.batch, left)

    async def _record(self, answers: list[Answer]) -> None:
        self._answers = []
        self._count(answers)
        await self._on(self._writer, self._store.group, self._moves(), answers, [])
        self._drop_finished()

    async def _on(self, thread: Executor, call: Callable[..., Any], *args: Any) -> Any:
        return await self._loop.run_in_executor(thread, call, *args)

    def _finish(self, error: BaseException | None = None) -> None:
        if self._done.done():
            return
        self._stopping = True
        if error is None or type(error) is DeliveryError:  # not LeaseLost: then nothing more may be written
            self.sent.trouble = str(error) if error else None
            self._done.set_result(None)
        else:
            self._done.set_exception(error)

    # -- batches

    def _want(self) -> None:
        free = self._more and not self._claiming and not self._stopping
        going = [held for held in self._hand if not held.waits]
        if (
            free and len(going) < HAND and len(self._hand) < MANY
            and sum(len(held.ahead) + len(held.unsealed) for held in going) < LOW
        ):  # fmt: skip
            self._claiming = True
            self._loop.run_in_executor(self._claimer, self._store.claim).add_done_callback(self._claimed)

    def _claimed(self, future: asyncio.Future[Any]) -> None:
        self._claiming = False
        with self._told():
            self._take(future.result())

    @contextmanager
    def _told(self) -> Iterator[None]:
        """An exception on the loop ends the run with it: a sender that hangs would be worse than one that fails."""
        try:
            yield
        except Exception as e:
            self._finish(e)

    def _take(self, got: tuple[Claimed, Mails] | None) -> None:
        if got is None:
            self._more = False
        else:
            batch, mails = got
            held = Held(batch, mails, left=len(batch.recipients), again=batch.fence > 1)
            self._hand.append(held)
            self._held[batch.batch_id] = held
            (held.unsealed if mails.seals else held.ahead).extend(batch.recipients)
            self._seal()
            if self._pool is None and not self._stopping:
                self._pool = self._connect(self)
                self._pool.start()
                self._pool.failed.add_done_callback(self._relay_failed)
        self._want()
        self._pump(force=True)

    def _seal(self) -> None:
        """Have the next few mails made, unless enough are."""
        if self._sealing or self._stopping or sum(len(h.ahead) for h in self._hand if not h.waits) >= 2 * self.window:
            return
        held = next((h for h in self._hand if h.unsealed and len(h.ahead) < 2 * self.window), None)
        if held is None:
            return
        chunk = [held.unsealed.popleft() for _ in range(min(CHUNK, len(held.unsealed)))]
        self._sealing = True
        future = self._loop.run_in_executor(self._sealer, held.mails.seal, chunk)
        future.add_done_callback(lambda f: self._sealed(f, held, chunk))

    def _sealed(self, future: asyncio.Future[Any], held: Held, chunk: list[Recipient]) -> None:
        self._sealing = False
        held.ahead.extend(chunk)
        with self._told():
            future.result()
            self._seal()
            self._pump(force=self.window - self._unrecorded + len(self._answers) >= CHUNK)

    def _relay_failed(self, future: asyncio.Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._finish(error)

    # -- the window

    def _pump(self, *, force: bool = False) -> None:
        """Start a commit if one is worth it: enough answers, nothing left on the wire, or *force* and news."""
        if self._committing or self._done.done():
            return
        answered = len(self._answers)
        if self._stopping:
            if self._unrecorded - answered - len(self._ready) == 0:
                self._finish()
            return
        if not self._hand and not self._more and not self._claiming:
            self._finish()
            return
        drained = answered and answered == self._unrecorded
        if force or answered >= self._group or drained:
            granting = self._choose(self.window - self._unrecorded + answered)  # as it stands after this very commit
            if answered or granting or any(held.left == 0 for held in self._hand):
                self._seal()
                answers, self._answers = self._answers, []
                self._commit(answers, granting)

    def _choose(self, room: int) -> list[Recipient]:
        """The next recipients, at most so many, whose turn it is."""
        chosen: list[Recipient] = []
        for held in self._hand:
            held.waits = False
            while held.ahead and len(chosen) < room and not held.waits:
                if self._is_turn_of(held, held.ahead[0]):
                    chosen.append(held.ahead.popleft())
                    held.granted += 1
        if self._shares and self._hand and all(held.waits for held in self._hand):
            self._want()
            if len(self._hand) == MANY and not self._patient:
                self._put_off(self._hand[-1], self._hand[-1].ahead[0].domain)
        return chosen

    def _is_turn_of(self, held: Held, r: Recipient) -> bool:
        """Otherwise either ``held.waits``, or *r* is not there any more."""
        turn = self._shares.take(r.domain) if self._shares else Turn.GO
        if turn is Turn.OVER and self._shares:
            self._stopping, self.sent.over = True, self._shares.over
        later = turn is Turn.LATER and not self._patient and self._put_off(held, r.domain)
        held.waits = turn is not Turn.GO and not later
        return turn is Turn.GO

    def _put_off(self, held: Held, domain: str) -> bool:
        """Let all of a domain in a batch wait for its turn; False: there is nothing that may. What may have arrived
        stays: the batch speaks for it (`digest.ledger.batches.close`)."""

        def waits(r: Recipient) -> bool:
            return r.domain == domain and (held.batch.fence == 1 or r.attempts == 0)

        off = [r for r in (*held.ahead, *held.unsealed) if waits(r)]
        if not off or self._shares is None:
            return False
        gone = set(off)
        held.ahead = collections.deque(r for r in held.ahead if r not in gone)
        held.unsealed = collections.deque(r for r in held.unsealed if r not in gone)
        held.batch.recipients = [r for r in held.batch.recipients if r not in gone]
        held.left -= len(off)
        self._putting += 1
        kept, bound = [r.position for r in held.batch.recipients], self._shares.turn_of(domain)
        self._loop.run_in_executor(self._writer, self._store.put_off, held.batch, kept, off, bound).add_done_callback(
            self._was_put_off
        )
        return True

    def _was_put_off(self, future: asyncio.Future[Any]) -> None:
        self._putting -= 1
        with self._told():
            future.result()
            self._pump(force=True)

    def _turn_came(self) -> None:
        with self._told():
            self._pump(force=True)

    def _commit(self, answers: list[Answer], granting: list[Recipient]) -> None:
        self._committing, self._last_commit = True, time.monotonic()
        self._count(answers)
        moves = self._moves()
        future = self._loop.run_in_executor(self._writer, self._store.group, moves, answers, granting)
        future.add_done_callback(lambda f: self._committed(f, len(answers), granting))

    def _moves(self) -> list[Move]:
        return [Move(h.batch, h.granted, h.left == 0, h.again) for h in self._hand]

    def _count(self, answers: Sequence[Answer]) -> None:
        for a in answers:
            held = self._held[a.recipient.batch.batch_id]
            held.left -= 1
            held.again |= a.outcome.result not in TERMINAL
            self.sent.editions.add(a.recipient.batch.edition_id)
            self.sent.answers[a.outcome.result] += 1

    def _drop_finished(self) -> None:
        for held in [h for h in self._hand if h.left == 0]:
            self._hand.remove(held)
            del self._held[held.batch.batch_id]

    def _committed(self, future: asyncio.Future[Any], answered: int, granting: list[Recipient]) -> None:
        self._committing = False
        with self._told():
            self._granted(future.result(), answered, granting)

    def _granted(self, refused: dict[Recipient, Outcome], answered: int, granting: list[Recipient]) -> None:
        self._drop_finished()
        self._unrecorded += len(granting) - answered
        for r in granting:
            if r in refused:
                self._ended(r, refused[r])
                self._answers.append(Answer(r, refused[r]))  # holds its place in the window until recorded
            else:
                self._ready.append(r)  # only now may a socket see it
        self._want()
        while self._idle and self._ready and not self._stopping:
            self._idle.pop().kick()
        self._pump(force=bool(refused))

    async def _tick(self, stop: asyncio.Event | None) -> None:
        """A slow relay: commit by time. A third of the lease without a commit: renew it."""
        while not self._done.done():
            await asyncio.sleep(IDLE_S)
            if stop is not None and stop.is_set():
                self._stopping = True
            self._pump(force=True)
            if not self._committing and self._hand and time.monotonic() - self._last_commit > self._lease / 3:
                answers, self._answers = self._answers, []
                self._commit(answers, [])

    # -- what connections ask and say

    def next(self) -> Envelope | None:
        if self._stopping or not self._ready:
            return None
        r = self._ready.popleft()
        return self._held[r.batch.batch_id].mails.envelope(r)

    def answered(self, envelope: Envelope, outcome: Outcome) -> None:
        self._ended(envelope.key, outcome)
        self._answers.append(Answer(envelope.key, outcome))
        self._pump()

    def _ended(self, r: Recipient, outcome: Outcome) -> None:
        if self._shares:
            self._shares.ended(r.domain, outcome)

    def returned(self, envelope: Envelope) -> None:
        """Announced, but its body never left: another connection takes it, and no attempt is counted."""
        self._ready.appendleft(envelope.key)
        if self._idle and not self._stopping:
            self._idle.pop().kick()
        self._pump()

    def idle(self, connection: Wakeable) -> None:
        self._idle.append(connection)

    def closed(self, connection: Wakeable, reason: str | None) -> None:
        if connection in self._idle:
            self._idle.remove(connection)


def run_async(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
