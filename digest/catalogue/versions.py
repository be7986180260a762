"""Versions: what feeds read once a second instead of the articles.

Row 0 stands for the whole catalogue, a positive id for a topic, minus a digest's id for that digest's own row.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from digest.catalogue.shared import chunks
from digest.db import clock
from digest.models import FeedVersion

WHOLE = 0


def bump(session: Session, ids: Iterable[int]) -> None:
    """Tell feeds that these topics, and with them the whole catalogue, have changed. Last in a transaction.

    Rows are locked in the order of their ids, so that two writers cannot lock each other out.
    """
    wanted = sorted({WHOLE, *ids})
    now = clock(session).replace(microsecond=0)  # the real one: this becomes a Last-Modified
    before: dict[int, datetime | None] = {}
    for part in chunks(wanted):
        found = select(FeedVersion.topic_id, FeedVersion.changed_at).where(FeedVersion.topic_id.in_(part))
        before.update(session.execute(found.order_by(FeedVersion.topic_id).with_for_update()).all())
    rows = [{"topic_id": i, "version": 1, "changed_at": _later(before.get(i), now)} for i in wanted]
    make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = make(FeedVersion.__table__)  # type: ignore[arg-type]
    statement = statement.on_conflict_do_update(
        index_elements=["topic_id"],
        set_={"version": FeedVersion.version + 1, "changed_at": statement.excluded.changed_at},
    )
    session.execute(statement, rows)


def bump_all(session: Session, also: Iterable[int] = ()) -> None:
    """Tell every feed: something that all of them show has changed, such as the publication's or a topic's name."""
    bump(session, {*session.scalars(select(FeedVersion.topic_id)), *also})


def feed_version(session: Session) -> int:
    """The version of the whole catalogue; 0 before its first article."""
    return session.scalar(select(FeedVersion.version).where(FeedVersion.topic_id == WHOLE)) or 0


def feed_versions(session: Session) -> dict[int, int]:
    """Every version by id."""
    return dict(session.execute(select(FeedVersion.topic_id, FeedVersion.version)).all())


def _later(before: datetime | None, now: datetime) -> datetime:
    """Now, but a whole second after *before*: HTTP dates have no fractions."""
    return now if before is None else max(now, before + timedelta(seconds=1))
