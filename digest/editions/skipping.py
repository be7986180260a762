"""Why an edition is skipped, in words that an editor reads. Decides nothing else."""

from __future__ import annotations

from digest import ledger
from digest.models import Edition
from digest.selection import NOTHING, Outcome, Pool


def nothing_to_say(
    edition: Edition, pool: Pool, released: ledger.history.Released, house: Outcome, new: int
) -> str | None:
    """Why an edition is skipped: nobody gets anything. Without any reader the house variant speaks for all."""
    if released.recipients:
        return None
    if not released.readers and not edition.archived:
        return "nobody reads it in this zone"
    if not released.readers and house != NOTHING:
        return None
    if not pool.stories:
        return "no recent article matches"
    minimum = pool.limits.minimum
    within = ", within quotas and caps" if pool.caps.binding else ""
    if released.readers:
        return f"no reader has {_stories(minimum)} that {'is' if minimum == 1 else 'are'} new to them{within}"
    return f"{_stories(new)} new{within}, at least {minimum} wanted"


def _stories(n: int) -> str:
    return "1 story" if n == 1 else f"{n} stories"
