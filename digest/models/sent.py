"""What was sent: who was given what, every attempt, what was heard later; system mails, and what was caught instead."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, SmallInteger, String, UniqueConstraint, false
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from digest.db import BigId
from digest.models.tables import Base, _id, _ref


class Batch(Base):
    """≈ 500 recipients of an edition and their variants, side by side: the history of who was given what.

    ``ids`` (int64 LE) and ``ordinals`` (uint32 LE) never change. ``todo`` (uint16 LE, NULL = all in order) is what is
    left to write, as positions in ``ids``; ``wire_to`` counts how many of ``todo`` may have been granted to the wire.
    ``retry`` 0: a first batch; each due reader of an edition is in exactly one.
    """

    __tablename__ = "batches"
    id: Mapped[int] = _id()
    edition_id: Mapped[int] = _ref("editions.id")
    part: Mapped[int]
    n: Mapped[int]
    retry: Mapped[int] = mapped_column(SmallInteger, default=0)
    ids: Mapped[bytes]
    ordinals: Mapped[bytes]
    todo: Mapped[bytes | None]
    wire_to: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]
    done: Mapped[bool] = mapped_column(default=False)
    worker: Mapped[str | None] = mapped_column(String(200))
    attempt: Mapped[int] = mapped_column(default=0)  # fence: a worker's writes count only under its own number
    leased_until: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("edition_id", "part", "n"),
        Index("ix_batches_open", "not_before", sqlite_where=sql("NOT done"), postgresql_where=sql("NOT done")),
    )


_TERMINAL = "outcome IN ('accepted','rejected','suppressed','expired','cancelled') AND NOT reopened"


class Attempt(Base):
    """One try of a delivery and what the next server said. Insert-only; partitioned by edition month on PostgreSQL.

    ``reopened``: it ended the delivery, until somebody had it sent again.
    """

    __tablename__ = "attempts"
    edition_month: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    edition_id: Mapped[int] = mapped_column(BigId, primary_key=True)
    subscriber_id: Mapped[int] = mapped_column(BigId, primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(String(16))
    code: Mapped[int | None] = mapped_column(SmallInteger)
    enhanced: Mapped[str | None] = mapped_column(String(16))
    text: Mapped[str] = mapped_column(default="")
    address: Mapped[str]  # as used
    batch_id: Mapped[int | None] = mapped_column(BigId)
    worker: Mapped[str | None] = mapped_column(String(200))
    at: Mapped[datetime]  # real clock
    reopened: Mapped[bool] = mapped_column(default=False, server_default=false())
    __table_args__ = (
        Index("uq_attempts_terminal", "edition_month", "edition_id", "subscriber_id", unique=True,
              sqlite_where=sql(_TERMINAL), postgresql_where=sql(_TERMINAL)),
        Index("ix_attempts_subscriber_id", "subscriber_id", "edition_id"),
        {"postgresql_partition_by": "LIST (edition_month)"},
    )  # fmt: skip


class DeliveryEvent(Base):
    """What was heard of a mail later, by mail or by a hook: a bounce, a complaint, a wish to leave. Never an outcome.

    ``fingerprint`` is the report's own: one that is read twice counts once. ``edition_id`` and ``subscriber_id`` are
    set where it proved whose mail it is about; ``email`` is what it said.
    """

    __tablename__ = "delivery_events"
    id: Mapped[int] = _id()
    fingerprint: Mapped[str] = mapped_column(String(80), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    edition_id: Mapped[int | None] = mapped_column(BigId)
    subscriber_id: Mapped[int | None] = mapped_column(BigId)
    email: Mapped[str | None]
    status: Mapped[str | None] = mapped_column(String(16))
    text: Mapped[str] = mapped_column(default="")
    action: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(default="")
    source: Mapped[str] = mapped_column(String(16))  # pipe | imap | pop | hook | ses
    at: Mapped[datetime] = mapped_column(index=True)
    __table_args__ = (Index("ix_delivery_events_subscriber", "subscriber_id", "edition_id"),)


class HookNonce(Base):
    """Requests of hooks that were obeyed: within the time in which they are fresh, no second one counts."""

    __tablename__ = "hook_nonces"
    nonce: Mapped[str] = mapped_column(String(200), primary_key=True)  # hook:its own number
    seen_at: Mapped[datetime] = mapped_column(index=True)


class RateShare(Base):
    """What a process may send of a rate that all keep together, until then; ``worker`` empty: how far it is booked."""

    __tablename__ = "rate_shares"
    key: Mapped[str] = mapped_column(String(320), primary_key=True)
    worker: Mapped[str] = mapped_column(String(200), primary_key=True)
    slot: Mapped[int] = mapped_column(BigId)
    amount: Mapped[int]
    until: Mapped[datetime] = mapped_column(index=True)


class SystemMail(Base):
    """Confirmations and the like: written with the row that asks for them, sent by the sweep under a lease."""

    __tablename__ = "system_mails"
    id: Mapped[int] = _id()
    kind: Mapped[str] = mapped_column(String(32))
    subscriber_id: Mapped[int] = _ref("subscribers.id", index=True)
    request: Mapped[str] = mapped_column(String(64))
    params: Mapped[dict[str, Any]] = mapped_column(default=dict)
    outcome: Mapped[str | None] = mapped_column(String(16))  # NULL: waits
    text: Mapped[str] = mapped_column(default="")
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]
    worker: Mapped[str | None] = mapped_column(String(200))
    leased_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    __table_args__ = (
        UniqueConstraint("kind", "subscriber_id", "request"),
        Index("ix_system_mails_waiting", "not_before", sqlite_where=sql("outcome IS NULL"),
              postgresql_where=sql("outcome IS NULL")),
    )  # fmt: skip


class CapturedMail(Base):
    """What the capture server caught, instead of a real inbox."""

    __tablename__ = "captured_mails"
    id: Mapped[int] = _id()
    received_at: Mapped[datetime]
    mail_from: Mapped[str]
    rcpt_to: Mapped[list[Any]] = mapped_column(default=list)
    subject: Mapped[str] = mapped_column(default="")
    message_id: Mapped[str] = mapped_column(String(300), default="", index=True)
    size: Mapped[int]
    message: Mapped[bytes]
