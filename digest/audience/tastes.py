"""Tastes when topics change. A taste is immutable and shared: readers move to another one, it stays as it is."""

from __future__ import annotations

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from digest.audience.subscriptions import ensure_taste
from digest.models import Subscription, Taste


def follow_merge(session: Session, gone: int, kept: int) -> int:
    """Let readers who chose the topic *gone* have chosen *kept*. Returns how many subscriptions that moved."""
    has = (Taste.key == f"{gone}", *(Taste.key.like(p) for p in (f"{gone},%", f"%,{gone},%", f"%,{gone}")))
    moved = 0
    for taste, key in session.execute(select(Taste.id, Taste.key).where(or_(*has)).order_by(Taste.id)).all():
        topics = {kept if int(t) == gone else int(t) for t in key.split(",")}
        done = session.execute(
            update(Subscription).where(Subscription.taste_id == taste).values(taste_id=ensure_taste(session, topics))
        )
        moved += done.rowcount  # type: ignore[attr-defined]
    return moved
