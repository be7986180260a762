"""What an operator does about deliveries: retry what failed, settle what may have arrived. Sends nothing itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from digest import ledger
from digest.db import Database
from digest.errors import UsageError
from digest.ledger.again import Again
from digest.types import EditionStatus, Result

Word = Literal["arrived", "lost", "resend"]


def retry(database: Database, edition_id: int) -> Again:
    """Send an edition again to those whose delivery was rejected or has expired, unless a later one reached them."""
    with database.transaction() as session:
        ledger.history.lock_releases(session)
        edition = ledger.editions.known(session, edition_id)
        if edition.status not in (EditionStatus.FINISHED, EditionStatus.SENDING, EditionStatus.PAUSED):
            raise UsageError(f"edition {edition_id} is {edition.status}; only one that was sent can be retried")
        again = ledger.again.retry(session, edition)
        if again == Again(0, 0):
            raise UsageError(f"no delivery of edition {edition_id} has failed; there is nothing to retry")
        return again


def settle(database: Database, edition_id: int, word: Word, readers: Collection[int] | None = None) -> int:
    """Say what became of mails that may have arrived: of these readers, or of all; how many were settled.

    ``arrived``: they count as accepted. ``lost``: their stories are given back. ``resend``: they go out once more.
    """
    with database.transaction() as session:
        edition = ledger.editions.known(session, edition_id)
        open_ones = ledger.again.unsettled(session, edition)
        if readers is not None and (others := set(readers) - open_ones.keys()):
            raise UsageError(
                f"{len(others)} of those readers have nothing to settle in edition {edition_id}; "
                f"`digest deliveries list --edition {edition_id} --outcome uncertain` shows who has"
            )
        chosen = {reader: n for reader, n in open_ones.items() if readers is None or reader in readers}
        if word == "resend":
            if edition.status == EditionStatus.CANCELLED:
                raise UsageError(f"edition {edition_id} is cancelled; it sends nothing any more")
            ledger.again.resend(session, edition, chosen)
        else:
            arrived = word == "arrived"
            result = Result.ACCEPTED if arrived else Result.CANCELLED
            ledger.again.settle(session, edition, chosen, result, f"settled by hand: {word}")
        return len(chosen)
