"""What one process may send of every rate just now: shares leased from SQL, and what servers have asked for.

    take(domain)  ─► GO     and it is counted
                     WAIT   a share is being asked for, or as many are on their way there as may be
                     LATER  that domain has had its part of this moment: its mail is put off, the rest goes on
                     OVER   the day's mails of the warm-up have gone

Lives as long as the process does, across runs of its senders. All calls but `limited` are made on the event loop's
thread; SQL is asked on another. Sends nothing and knows no batch.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from digest import ledger
from digest.db import Database
from digest.delivery.pace import QUIET_S, Pace, too_fast
from digest.errors import DigestError
from digest.ledger.rates import Bound, Share
from digest.rates import Rates
from digest.sending.names import worker_name
from digest.types import Outcome, Relay

log = logging.getLogger("digest.sending")

RENEW_S = 5.0  # ahead of its end, what may be on its way at once is asked for again


class Turn(Enum):
    GO = auto()
    WAIT = auto()
    LATER = auto()
    OVER = auto()


@dataclass(slots=True)
class _Held:
    """A share in hand, until an instant of the monotonic clock. ``dry``: nobody has more before then."""

    amount: int
    until: float
    dry: bool


class Shares:
    """See the module."""

    def __init__(self, database: Database, rates: Rates) -> None:
        self._db, self._rates, self._worker = database, rates, worker_name()
        self._held: dict[Bound, _Held] = {}
        self._out: Counter[str] = Counter()  # by domain: on their way
        self._wanted: set[Bound] = set()
        self._asking: set[Bound] = set()
        self._paces: dict[str, Pace] = {}
        self._slowed: set[str] = set()
        self._swept = 0.0
        self._wake: Callable[[], None] = lambda: None
        self.bounded = rates != Rates()

    def begin(self, wake: Callable[[], None]) -> None:
        """A sender begins: nothing of its is on its way. *wake* is called when a share has come."""
        self._wake = wake
        self._out.clear()

    def limited(self, domain: str) -> bool:
        """Whether mail to that domain may have to wait although other mail goes. From any thread."""
        return domain in self._slowed or self._rates.of(domain) is not None

    @property
    def over(self) -> str | None:
        """Why no mail goes today any more; None: it does."""
        bound = self._today()
        held = self._held.get(bound) if bound else None
        if bound is None or held is None or not held.dry or held.amount or time.monotonic() >= held.until:
            return None
        return f"The warm-up lets {bound.most:,} mails go today (UTC), and they have gone; the rest goes on tomorrow."

    # -- a mail's turn

    def take(self, domain: str) -> Turn:
        if not self.bounded and domain not in self._slowed:
            return Turn.GO
        now = time.monotonic()
        bounds = self._bounds(domain)
        for bound in bounds:
            if (turn := self._look(bound, now)) is not Turn.GO:
                return turn
        if domain in self._slowed and not self._paces[domain].may(now):
            return Turn.LATER
        for bound in bounds:
            if bound.kind == "once":
                self._out[domain] += 1
            else:
                self._held[bound].amount -= 1
        return Turn.GO

    def gate(self, relay: Relay) -> bool:
        """Whether that relay may have a mail now; if so it is counted."""
        if relay.per_minute is None:
            return True
        bound = Bound("minute", f"relay {relay.name}", relay.per_minute)
        if self._look(bound, time.monotonic()) is not Turn.GO:
            return False
        self._held[bound].amount -= 1
        return True

    def ended(self, domain: str, outcome: Outcome) -> None:
        """A mail that went, or was refused its turn after all, has its answer."""
        if self._out[domain]:
            self._out[domain] -= 1
        now = time.monotonic()
        if now - self._swept > QUIET_S:
            self._sweep(now)
        pace = self._paces.get(domain)
        if pace is None:
            pace = self._paces[domain] = Pace()
        # 421 is about the connection, and so about the relay: `digest.delivery.smtp.relays` heeds it
        if pace.hear(now, slower=outcome.code != 421 and too_fast(outcome)):
            self._slowed.add(domain)

    def turn_of(self, domain: str) -> Bound | None:
        """The bound that mail to a domain is booked under while it waits."""
        limit = self._rates.of(domain)
        rates = [limit.per_minute] if limit and limit.per_minute else []
        if (pace := self._paces.get(domain)) and pace.rate:
            rates.append(max(1, math.ceil(pace.rate * 60)))
        return Bound("minute", domain, min(rates)) if rates else None

    def _sweep(self, now: float) -> None:
        """Forget domains that no bound was learned for."""
        self._swept = now
        self._paces = {domain: pace for domain, pace in self._paces.items() if pace.rate is not None}
        self._slowed &= self._paces.keys()

    # -- bounds

    def _bounds(self, domain: str) -> list[Bound]:
        bounds = [bound] if (bound := self._today()) else []
        if self._rates.per_minute:
            bounds.append(Bound("minute", "", self._rates.per_minute))
        limit = self._rates.of(domain)
        if limit and limit.per_minute:
            bounds.append(Bound("minute", domain, limit.per_minute))
        if limit and limit.at_once:
            bounds.append(Bound("once", domain, limit.at_once))
        return bounds

    def _today(self) -> Bound | None:
        warm_up = self._rates.warm_up
        most = warm_up.on(datetime.now(UTC).date()) if warm_up else None
        return Bound("day", "", most) if most is not None else None

    def _look(self, bound: Bound, now: float) -> Turn:
        held = self._held.get(bound)
        if held is None or now >= held.until:
            self._ask(bound)
            return Turn.WAIT
        if bound.kind == "once":
            if held.until - now < RENEW_S:
                self._ask(bound)
            return Turn.GO if self._out[bound.of] < held.amount else Turn.WAIT
        if held.amount > 0:
            return Turn.GO
        if not held.dry:
            self._ask(bound)
            return Turn.WAIT
        return Turn.OVER if bound.kind == "day" else Turn.LATER if bound.of else Turn.WAIT

    def _ask(self, bound: Bound) -> None:
        if bound in self._asking or bound in self._wanted:
            return
        self._wanted.add(bound)
        if not self._asking:
            asyncio.get_running_loop().call_soon(self._send_for)

    def _send_for(self) -> None:
        if self._asking or not self._wanted:
            return
        self._asking, self._wanted = self._wanted, set()
        future = asyncio.get_running_loop().run_in_executor(None, self._lease, sorted(self._asking, key=str))
        future.add_done_callback(self._come)

    def _lease(self, bounds: Sequence[Bound]) -> dict[Bound, Share]:
        try:
            with self._db.transaction() as session:
                return ledger.rates.lease(session, self._worker, bounds)
        except DigestError as e:  # a sender without its database stops by itself
            log.error("rates.failed %s", e)
            return {bound: Share(0, 1.0) for bound in bounds}

    def _come(self, future: asyncio.Future[dict[Bound, Share]]) -> None:
        self._asking = set()
        if future.cancelled():
            return
        now = time.monotonic()
        for bound, share in future.result().items():
            self._held[bound] = _Held(share.amount, now + share.seconds, dry=share.amount == 0)
        for gone in [bound for bound, held in self._held.items() if held.until < now - QUIET_S]:
            del self._held[gone]
        self._send_for()
        self._wake()
