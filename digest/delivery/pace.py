"""How fast a server likes its mail, learned from what it says.

A server that says "too fast" (421, 4.7.x) to a good part of what it gets is believed: half the speed, and a quarter
more for each ten seconds in which it does not say so again, until the bound is gone. A few such answers among many
mean nothing: greylisting says 4.7.1 to strangers one by one. Counts what is heard; sends and waits for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from digest.types import Outcome, Result

SLOWEST = 0.1  # mails a second
QUIET_S = 10.0
FASTER = 1.25
#: So many answers, and such a share of all in ten seconds, are meant for our speed.
ENOUGH, SHARE = 3, 0.1


def too_fast(outcome: Outcome) -> bool:
    """Whether a server asks for less: it closes for now (421), or its policy puts us off (RFC 3463 §3.8: 4.7.x)."""
    return outcome.result is Result.DEFERRED and (
        outcome.code == 421 or (outcome.enhanced is not None and outcome.enhanced.startswith("4.7."))
    )


@dataclass(slots=True)
class Pace:
    """One server's, or one recipient domain's. ``rate``: mails a second; None: no bound has been learned.

    Instants are seconds of a monotonic clock.
    """

    rate: float | None = None
    _heard: int = 0
    _slow: int = 0
    _since: float | None = None
    _changed: float = 0.0
    _enough: float = 0.0  # at this speed the bound is dropped
    _tokens: float = 0.0
    _filled: float = 0.0

    def hear(self, now: float, *, slower: bool) -> bool:
        """Count an answer; True where it makes us slower."""
        if self._since is None or now - self._since > QUIET_S:
            self._heard, self._slow, self._since = 0, 0, now
        self._heard += 1
        self._slow += slower
        if not slower or self._slow < ENOUGH or self._slow < SHARE * self._heard:
            return False
        if self.rate is not None and now - self._changed < 1.0:  # what was on its way already
            return False
        seen = self._heard / max(now - self._since, 1.0)
        self._enough = max(self._enough, 2 * seen)
        self.rate = max(SLOWEST, (seen if self.rate is None else min(self.rate, seen)) / 2)
        self._changed = self._filled = now
        self._tokens = 0.0
        return True

    def may(self, now: float) -> bool:
        """Whether a mail may go now; one that may is counted."""
        self._recover(now)
        if self.rate is None:
            return True
        self._tokens = min(max(self.rate, 1.0), self._tokens + (now - self._filled) * self.rate)
        self._filled = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _recover(self, now: float) -> None:
        while self.rate is not None and now - self._changed >= QUIET_S:
            self._changed += QUIET_S
            self.rate *= FASTER
            if self.rate >= self._enough:
                self.rate, self._enough = None, 0.0
