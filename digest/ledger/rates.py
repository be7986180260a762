"""Rates that the processes of all machines keep together: each leases a share, for ten seconds, and sends no more.

Three kinds of bound, by name: ``minute`` (mails in slots of ten seconds), ``day`` (mails of a day in UTC) and ``once``
(mails on their way at one time). What is leased and not used is lost with its time, so no process takes much ahead.
``book`` says when the turn of mail comes that has to wait. Decides nothing about mail; `digest.sending` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import delete, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from digest.db import clock
from digest.models import RateShare

SLOT_S = 10
_DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Kind = Literal["minute", "day", "once"]


@dataclass(frozen=True, slots=True)
class Bound:
    """``most``: mails a minute, a day, or at once. ``of``: what they go to, like a domain."""

    kind: Kind
    of: str
    most: int

    @property
    def key(self) -> str:
        return f"{self.kind} {self.of}"


@dataclass(frozen=True, slots=True)
class Share:
    """So many more mails (``once``: so many at one time), for so many seconds."""

    amount: int
    seconds: float


def lease(session: Session, worker: str, bounds: Sequence[Bound]) -> dict[Bound, Share]:
    """A share of each, as much as is left: of a day or slot some part, so that others find theirs."""
    _one_at_a_time(session)
    now = clock(session)
    held = _held(session, {bound.key for bound in bounds}, now)
    shares: dict[Bound, Share] = {}
    rows = []
    for bound in bounds:
        slot, ends = _slot(bound, now)
        amounts = {who: amount for who, at, amount in held.get(bound.key, ()) if at == slot}
        amount = _fair(bound, amounts, worker) if bound.kind == "once" else _portion(bound, amounts, slot)
        shares[bound] = Share(amount, (ends - now).total_seconds())
        mine = amount if bound.kind == "once" else amounts.get(worker, 0) + amount
        rows.append({"key": bound.key, "worker": worker, "slot": slot, "amount": mine, "until": ends})
    _keep(session, rows)
    return shares


def _slot(bound: Bound, now: datetime) -> tuple[int, datetime]:
    """(its number, its end)."""
    if bound.kind == "once":
        return 0, now + timedelta(seconds=SLOT_S)
    length = _DAY_S if bound.kind == "day" else SLOT_S
    slot = int((now - _EPOCH).total_seconds()) // length
    return slot, _EPOCH + timedelta(seconds=(slot + 1) * length)


def _portion(bound: Bound, amounts: dict[str, int], slot: int) -> int:
    if bound.kind == "day":
        whole, part = bound.most, bound.most // 100
    else:  # what is below one mail a slot adds up over several
        whole = (slot + 1) * bound.most * SLOT_S // 60 - slot * bound.most * SLOT_S // 60
        part = whole // 4
    return max(0, min(max(part, 1), whole - sum(amounts.values())))


def _fair(bound: Bound, amounts: dict[str, int], worker: str) -> int:
    others = [amount for who, amount in amounts.items() if who != worker]
    return max(0, min(max(bound.most // (len(others) + 1), 1), bound.most - sum(others)))


def book(session: Session, bound: Bound, mails: int) -> datetime:
    """When so many mails of a ``minute`` bound have their turn, after those that were booked before them."""
    _one_at_a_time(session)
    now = clock(session)
    until = session.scalars(
        select(RateShare.until).where(RateShare.key == bound.key, RateShare.worker == "")
    ).one_or_none()
    turn = max(now + timedelta(seconds=SLOT_S), until or now)
    ends = turn + timedelta(seconds=mails * 60 / bound.most)
    _keep(session, [{"key": bound.key, "worker": "", "slot": -1, "amount": 0, "until": ends}])
    return turn


def forget(session: Session, now: datetime) -> None:
    """Shares that have run out."""
    session.execute(delete(RateShare).where(RateShare.until < now - timedelta(hours=1)))


def _held(session: Session, keys: Collection[str], now: datetime) -> dict[str, list[tuple[str, int, int]]]:
    rows = session.execute(
        select(RateShare.key, RateShare.worker, RateShare.slot, RateShare.amount).where(
            RateShare.key.in_(sorted(keys)), RateShare.until > now
        )
    )
    held: dict[str, list[tuple[str, int, int]]] = {}
    for key, worker, slot, amount in rows:
        held.setdefault(key, []).append((worker, slot, amount))
    return held


def _keep(session: Session, rows: Iterable[dict[str, object]]) -> None:
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    insert = dialect.insert(RateShare)
    new = {name: insert.excluded[name] for name in ("slot", "amount", "until")}
    session.execute(insert.on_conflict_do_update(index_elements=["key", "worker"], set_=new), list(rows))


def _one_at_a_time(session: Session) -> None:
    """Two that look at once would both find the same mails left. SQLite's transactions begin with a lock as it is."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext('digest rates'))"))
