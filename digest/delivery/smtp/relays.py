"""Several relays behind one transport: who is asked, in which proportion, and who stands in for one that is away.

    sender ◄─ next, answered ─ Relays ◄─ Way (order 1, weight 3) ─ Pool ─ connections
                                     ◄─ Way (order 1, weight 1) ─ Pool
                                     ◄─ Way (order 2)            started when no other of order 1 can be used

A relay that cannot be used is left alone for a while and then tried again; what it had announced has gone back and
goes by another. One that says "too fast" gets less (`digest.delivery.pace`); its share of a rate is asked of whoever
keeps the rates. Speaks no SMTP: `pool` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from digest.delivery.pace import Pace
from digest.delivery.smtp.pool import Pool
from digest.delivery.smtp.timers import Timers
from digest.delivery.transport import Envelope, Grants, Transport, Wakeable
from digest.errors import DeliveryError
from digest.types import Outcome, Relay

MEND_S = 60.0  # a relay that could not be used is tried again after so long
STALLED_S = 5.0  # one that has not answered for so long is not waited for
LOOK_S = 0.05  # who had to wait is asked again after so long

#: May a mail go by that relay now, as far as its rate is concerned? One that may is counted.
Gate = Callable[[Relay], bool]


@dataclass(slots=True)
class Health:
    """What is remembered of relays from one run to the next, by name. ``away``: until when they are left alone."""

    away: dict[str, float] = field(default_factory=dict)
    paces: dict[str, Pace] = field(default_factory=dict)


class Relays:
    """The transport over several relays. `failed` gets a DeliveryError once none of them can be used."""

    def __init__(
        self, relays: Sequence[Relay], grants: Grants, *, health: Health | None = None, gate: Gate = lambda _: True,
        pool: Callable[[Relay, Grants], Transport] = Pool, mend_s: float = MEND_S,
    ) -> None:  # fmt: skip
        self.grants, self.gate = grants, gate
        self._make, self._health, self._mend_s = pool, health or Health(), mend_s
        self._ways = [Way(self, relay, self._health.paces.setdefault(relay.name, Pace())) for relay in relays]
        for way in self._ways:
            way.build(pool)  # what must not be spoken to is said before anything is tried
        self._waiting: list[Wakeable] = []
        self._timers = Timers()
        self._looking = self._ending = False
        self._abreast: list[Way] = []

    # -- the owner's side

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.failed: asyncio.Future[None] = self._loop.create_future()
        if all(self._left_alone(way) for way in self._ways):
            self._health.away.clear()
        for way in self._ways:
            if left := self._left_alone(way):
                way.away = True
                self._timers.later(left, partial(self._mend, way))
        self._start_first()

    async def drain(self) -> None:
        self._ending = True
        self._timers.cancel()
        self._wake()
        await asyncio.gather(*(way.pool.drain() for way in self._ways if way.started))

    def abort(self) -> None:
        self._ending = True
        self._timers.cancel()
        for way in self._ways:
            if way.started:
                way.pool.abort()

    # -- which way

    def may(self, way: Way) -> bool:
        """Whether the next mail may go that way now."""
        before = any(other.up and other.relay.order < way.relay.order for other in self._ways)
        if before or not self._is_its_turn(way):
            return False
        way.slow = not (way.pace.may(self.now()) and self.gate(way.relay))
        return not way.slow

    def _is_its_turn(self, way: Way) -> bool:
        """In proportion to the weights of those that are at work; whoever is a little ahead waits for the others."""
        if len(self._ways) == 1:
            return True
        now = self.now()
        abreast = [w for w in self._ways if w is way or (w.relay.order == way.relay.order and w.at_work(now))]
        if abreast != self._abreast:
            self._abreast = abreast if len(abreast) > 1 else []
            for each in self._ways:
                each.taken = 0
        if len(abreast) == 1:
            return True
        all_taken, all_weights = sum(w.taken for w in abreast), sum(w.relay.weight for w in abreast)
        return way.taken <= (all_taken * way.relay.weight) / all_weights

    def wait(self, connection: Wakeable) -> None:
        """A connection whose turn has not come: it is asked again soon."""
        self._waiting.append(connection)
        if not self._looking and not self._ending:
            self._looking = True
            self._timers.later(LOOK_S, self._wake)

    def _wake(self) -> None:
        self._looking = False
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.kick()

    def gone(self, connection: Wakeable) -> None:
        if connection in self._waiting:
            self._waiting.remove(connection)

    def moved(self) -> None:
        """A mail was taken: whoever waits for it may go on."""
        if self._waiting and len(self._ways) > 1:
            self._loop.call_soon(self._wake)

    # -- relays that go and come

    def _left_alone(self, way: Way) -> float:
        """For how many seconds more; 0: it is not."""
        return max(0.0, self._health.away.get(way.relay.name, 0.0) - self.now())

    def _start_first(self) -> None:
        first = min((way.relay.order for way in self._ways if not way.away), default=0)
        for way in self._ways:
            if not way.away and not way.started and way.relay.order == first:
                way.start()
                way.pool.failed.add_done_callback(partial(self._lost, way))
        self._wake()

    def _lost(self, way: Way, future: asyncio.Future[None]) -> None:
        if future.cancelled() or (problem := future.exception()) is None or self._ending:
            return
        if type(problem) is not DeliveryError:  # what a grant raised is the owner's affair
            self._fail(problem)
            return
        way.lost(str(problem))
        self._health.away[way.relay.name] = self.now() + self._mend_s
        if all(other.away for other in self._ways):
            self._fail(DeliveryError(" ".join(dict.fromkeys(other.reason for other in self._ways if other.reason))))
            return
        self._timers.later(self._mend_s, partial(self._mend, way))
        self._start_first()

    def _mend(self, way: Way) -> None:
        if not self._ending:
            self._health.away.pop(way.relay.name, None)
            way.build(self._make)
            self._start_first()

    def _fail(self, problem: BaseException) -> None:
        self.abort()
        if not self.failed.done():
            self.failed.set_exception(problem)
            self.failed.exception()  # read here: an owner who looks late gets no complaint from the loop


class Way:
    """One relay: the grants of its pool. ``taken``: mails since those at work were others; ``away``: not to be used;
    ``slow``: its rate lets it have no more just now."""

    pool: Transport

    def __init__(self, owner: Relays, relay: Relay, pace: Pace) -> None:
        self._owner, self.relay, self.pace = owner, relay, pace
        self.reason = ""
        self._last = 0.0
        self._refused = False

    def build(self, pool: Callable[[Relay, Grants], Transport]) -> None:
        self.pool = pool(self.relay, self)
        self.started = self.away = self.up = self.slow = False
        self.taken = 0

    def start(self) -> None:
        self.started = True
        self.pool.start()

    def lost(self, reason: str) -> None:
        self.away, self.up, self.started, self.reason = True, False, False, reason

    def at_work(self, now: float) -> bool:
        """It asks for mail that it may have, or answers what it has."""
        return self.up and not self.slow and now - self._last < STALLED_S

    # -- what its connections ask and say

    def next(self) -> Envelope | None:
        self.up, self._last = True, self._owner.now()
        self._refused = not self._owner.may(self)
        if self._refused or (envelope := self._owner.grants.next()) is None:
            return None
        self.taken += 1
        self._owner.moved()
        return envelope

    def answered(self, envelope: Envelope, outcome: Outcome) -> None:
        self._last = self._owner.now()
        self.pace.hear(self._last, slower=outcome.code == 421)
        self._owner.grants.answered(envelope, outcome)

    def returned(self, envelope: Envelope) -> None:
        self._owner.grants.returned(envelope)

    def idle(self, connection: Wakeable) -> None:
        if self._refused:
            self._owner.wait(connection)
        else:
            self._owner.grants.idle(connection)

    def closed(self, connection: Wakeable, reason: str | None) -> None:
        self._owner.gone(connection)
        self._owner.grants.closed(connection, reason)
