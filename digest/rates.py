"""How fast mail may go, as it is set: frozen values. Who keeps to them is `digest.sending.shares`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

#: Mails a day beyond which a warm-up bounds nothing.
WARM = 10_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """What a recipient domain takes from all machines together. None: no bound."""

    per_minute: int | None = None
    at_once: int | None = None


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Mails a day of an address that is new to receivers: ``first`` on the first day, then each day ``growth`` times
    as many, until that is more than anybody sends."""

    since: date
    first: int
    growth: float

    def on(self, day: date) -> int | None:
        """Mails of that day (UTC); None: the address is warm."""
        days = max((day - self.since).days, 0)
        if math.log(self.first) + days * math.log(self.growth) > math.log(WARM):
            return None
        return int(self.first * self.growth**days)


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast mail may go. ``domains``: by recipient domain; ``others``: any other one's."""

    per_minute: int | None = None
    domains: Mapping[str, Limit] = field(default_factory=dict)
    others: Limit | None = None
    warm_up: WarmUp | None = None

    def of(self, domain: str) -> Limit | None:
        return self.domains.get(domain, self.others)
