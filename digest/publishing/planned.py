"""When the scheduler will next change a feed: what readers are told to come back after.

Articles change with the next poll of a source, or when one that was dated ahead is due; digests with their next run.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select

from digest.ingest.refreshing import POLL_EVERY
from digest.models import Article, ScheduleClock, Source
from digest.types import ArticleStatus

#: Seconds between which readers are told to come back, whatever is planned, and when nothing is.
LEAST_S, MOST_S, UNPLANNED_S = 60, 3600, 300
#: A closed month: corrections alone can change it.
ARCHIVE_S = 86_400


class Planned(NamedTuple):
    """The next change of articles and of editions, as time stamps; None where none is planned."""

    articles: float | None
    editions: float | None

    def max_age(self, kind: str, archive: bool, now: float) -> int:
        """Seconds for which a feed of this kind may be kept."""
        if archive:
            return ARCHIVE_S
        at = self.editions if kind == "digest" else self.articles
        return UNPLANNED_S if at is None else int(min(max(at - now, LEAST_S), MOST_S))


def planned_columns() -> tuple[Any, ...]:
    """What `planned` wants to know, as parts of a SELECT: each by an index or from a short table."""
    return (
        select(func.min(Source.polled_at)).where(Source.disabled_at.is_(None)),
        select(func.min(Article.published_at)).where(Article.status == ArticleStatus.SCHEDULED),
        select(func.min(ScheduleClock.next_run_at)),
    )


def planned(polled: datetime | None, due: datetime | None, run: datetime | None) -> Planned:
    articles = [moment for moment in (polled and polled + POLL_EVERY, due) if moment]
    return Planned(_stamp(min(articles, default=None)), _stamp(run))


def _stamp(when: datetime | None) -> float | None:
    return when.timestamp() if when else None
