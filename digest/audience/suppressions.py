"""Addresses that we may not write to: kept, asked, lifted, carried in and out.

    bounce      the address is no more; the server said so
    complaint   its reader called our mail spam
    manual      somebody here decided it
    erased      its reader had everything about them erased; they alone may come back, by subscribing and confirming

A row holds the address's comparison form or, once it was erased, a keyed hash of it: ``hash:…``. The key lies in
``secrets``, so that an export of the list says nothing to anybody else. The first reason stands, but that `erased`
gives way to any other.
"""

from __future__ import annotations

import csv
import hmac
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from secrets import token_bytes
from typing import IO, Any

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.orm import Session

from digest.audience.addresses import Address, parse_address
from digest.audience.lines import Invalid, as_text_cell, error_sink, named_cells, opened
from digest.db import Database
from digest.errors import UsageError
from digest.models import Secret, Subscriber, Suppression
from digest.sql import insert_many, insert_new, one_of
from digest.types import SuppressionReason

_SECRET = "suppression"  # noqa: S105 - its name
_HASH = "hash:"
_CHUNK = 4000
COLUMNS = ("email", "hash", "reason", "detail", "at")


# ----------------------------------------------------------------------------- ask


def suppression(session: Session, key: str) -> str | None:
    """The reason why an address (in its comparison form) may not be written to; None: it may."""
    return suppressed_among(session, [key]).get(key)


def suppressed_among(session: Session, keys: Sequence[str]) -> dict[str, str]:
    """Address → reason, of those of *keys* that may not be written to."""
    names = {key: key for key in keys}
    secret = _secret(session)
    if secret is not None:
        names |= {_hashed(secret, key): key for key in keys}
    found = session.execute(
        select(Suppression.address_key, Suppression.reason).where(one_of(session, Suppression.address_key, list(names)))
    )
    reasons: dict[str, str] = {}
    for name, reason in found:
        if reasons.get(names[name], SuppressionReason.ERASED) == SuppressionReason.ERASED:
            reasons[names[name]] = reason
    return reasons


def _secret(session: Session) -> bytes | None:
    return session.scalar(select(Secret.value).filter_by(name=_SECRET))


def _hashed(secret: bytes, key: str) -> str:
    return _HASH + hmac.digest(secret, key.encode(), "sha256").hex()


def is_hash(name: str) -> bool:
    return name.startswith(_HASH)


# ----------------------------------------------------------------------------- keep, lift


def suppress(session: Session, address_key: str, reason: str, now: datetime, detail: str = "") -> bool:
    """Never write to this address again; the first reason stands. False: it was suppressed before."""
    known = suppression(session, address_key)
    if known is not None and known != SuppressionReason.ERASED:
        return False
    row = {"address_key": address_key, "reason": reason, "detail": detail, "created_at": now}
    insert_new(session, Suppression, [row])
    return True


def lift(session: Session, address: Address) -> str:
    """Take an address off the list. Returns the reason it was on it; UsageError: it was not."""
    reason = suppression(session, address.key)
    if reason is None:
        raise UsageError(f"{address.given} is not suppressed; `digest suppressions list` shows what is")
    _remove(session, address.key)
    return reason


def lift_erased(session: Session, key: str) -> None:
    """Their reader has come back by themselves."""
    if suppression(session, key) == SuppressionReason.ERASED:
        _remove(session, key)


def _remove(session: Session, key: str) -> None:
    secret = _secret(session)
    names = [key] if secret is None else [key, _hashed(secret, key)]
    session.execute(delete(Suppression).where(Suppression.address_key.in_(names)))


def lift_all(session: Session, reason: SuppressionReason, since: datetime, until: datetime) -> int:
    """Take off what was put on for *reason* in [since, until): after a server was wrong about everybody."""
    gone = session.execute(
        delete(Suppression).where(
            Suppression.reason == reason, Suppression.created_at >= since, Suppression.created_at < until
        )
    )
    assert isinstance(gone, CursorResult)
    return gone.rowcount


def hash_away(session: Session, key: str, now: datetime) -> None:
    """What stays of an erased address: nobody can read it, and everybody who is asked to write to it is stopped."""
    insert_new(session, Secret, [{"name": _SECRET, "value": token_bytes(32), "created_at": now}])
    secret = _secret(session)
    assert secret is not None
    known = session.scalars(select(Suppression).filter_by(address_key=key)).one_or_none()
    row = {
        "address_key": _hashed(secret, key), "reason": known.reason if known else SuppressionReason.ERASED.value,
        "detail": "", "created_at": known.created_at if known else now,
    }  # fmt: skip
    insert_new(session, Suppression, [row])
    if known is not None:
        session.delete(known)


def erase(session: Session, address: Address, now: datetime) -> tuple[int | None, str]:
    """Forget a reader: subscriptions, consent and mails that wait go with them; a hash stays (`hash_away`).

    Returns (the subscriber that was, the reason kept with the hash). UsageError: nothing is held of the address.
    """
    subscriber = session.scalars(select(Subscriber).filter_by(address_key=address.key).with_for_update()).one_or_none()
    if subscriber is None and suppression(session, address.key) is None:
        raise UsageError(f"nothing is held of {address.given}")
    hash_away(session, address.key, now)
    if subscriber is not None:
        session.delete(subscriber)
        session.flush()
    reason = suppression(session, address.key)
    assert reason is not None
    return (subscriber.id if subscriber else None), reason


# ----------------------------------------------------------------------------- out


def listed(
    session: Session, *, reason: str | None = None, limit: int | None = None, address: Address | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of the list, oldest first: ``email`` (comparison form) or ``hash``, ``reason``, ``detail``, ``at``."""
    query = select(Suppression).order_by(Suppression.id).limit(limit).execution_options(yield_per=1000)
    if reason is not None:
        query = query.where(Suppression.reason == reason)
    if address is not None:
        secret = _secret(session)
        names = [address.key] if secret is None else [address.key, _hashed(secret, address.key)]
        query = query.where(Suppression.address_key.in_(names))
    for row in session.scalars(query):
        hidden = is_hash(row.address_key)
        yield {
            "email": None if hidden else row.address_key,
            "hash": row.address_key.removeprefix(_HASH) if hidden else None,
            "reason": row.reason, "detail": row.detail or None, "at": row.created_at,
        }  # fmt: skip


def write_suppressions(rows: Iterable[Mapping[str, Any]], file: IO[str]) -> int:
    """Write listed rows as CSV; a cell that a spreadsheet would take for a formula is quoted. Returns their number."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    count = 0
    for row in rows:
        at: datetime = row["at"]
        cells = (row["email"] or "", row["hash"] or "", row["reason"], row["detail"] or "")
        writer.writerow((*map(as_text_cell, cells), at.strftime("%Y-%m-%dT%H:%M:%SZ")))
        count += 1
    return count


# ----------------------------------------------------------------------------- in


@dataclass(slots=True)
class SuppressionReport:
    """Every row is in one count beside ``rows``."""

    rows: int = 0
    new: int = 0
    unchanged: int = 0
    invalid: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Row:
    name: str  # comparison form, or hash:…
    reason: str
    detail: str


def import_suppressions(
    database: Database, file: Path | IO[str], *, reason: SuppressionReason, errors_file: Path | None = None,
    now: datetime, progress: Callable[[int], None] | None = None,
) -> SuppressionReport:  # fmt: skip
    """Put the addresses of a CSV file on the list: our own export, another system's, or one address a line.

    *reason* is for rows whose own is none of ours; theirs is kept as detail. A chunk is one transaction; memory does
    not grow with the file. What is on the list stays as it is.
    """
    began, report = time.perf_counter(), SuppressionReport()
    with ExitStack() as stack:
        stream, name = opened(stack, file)
        say = error_sink(stack, errors_file)
        rows = _rows(stream, reason, f"import:{name}")
        while chunk := list(islice(rows, _CHUNK)):
            report.rows += len(chunk)
            for bad in (row for row in chunk if isinstance(row, Invalid)):
                report.invalid += 1
                say(bad)
            _write(database, [row for row in chunk if isinstance(row, _Row)], now, report)
            if progress:
                progress(report.rows)
    report.seconds = round(time.perf_counter() - began, 3)
    return report


def _write(database: Database, given: Sequence[_Row], now: datetime, report: SuppressionReport) -> None:
    rows = {row.name: row for row in given}
    with database.transaction() as session:
        known = _known(session, list(rows))
        new = [row for name, row in sorted(rows.items()) if name not in known]  # in one order: no deadlock
        columns = {
            "address_key": [row.name for row in new],
            "reason": [row.reason for row in new],
            "detail": [row.detail for row in new],
        }
        insert_many(session, Suppression, columns, {"created_at": now})
        if hashes := {row.name for row in new if is_hash(row.name)}:
            _meet(session, hashes, now)
    report.new += len(new)
    report.unchanged += len(given) - len(new)


def _known(session: Session, names: Sequence[str]) -> set[str]:
    plain = [name for name in names if not is_hash(name)]
    found = session.scalars(select(Suppression.address_key).where(one_of(session, Suppression.address_key, names)))
    return {*found, *(key for key, why in suppressed_among(session, plain).items() if why != SuppressionReason.ERASED)}


def _meet(session: Session, hashes: set[str], now: datetime) -> None:
    """Readers who are here and whose hash has come in get a row of their own: senders ask for addresses."""
    secret = _secret(session)
    if secret is None:
        return
    for key in session.scalars(select(Subscriber.address_key).execution_options(yield_per=5000)):
        if (name := _hashed(secret, key)) in hashes:
            reason = session.scalars(select(Suppression.reason).filter_by(address_key=name)).one()
            if reason != SuppressionReason.ERASED:
                row = {"address_key": key, "reason": reason, "detail": "", "created_at": now}
                insert_new(session, Suppression, [row])


_HEADINGS = {
    "email": ("email", "e-mail", "address", "mail", "email address", "e-mail address", "recipient"),
    "hash": ("hash",),
    "reason": ("reason", "status", "type", "suppression reason"),
    "detail": ("detail", "description", "comment", "error"),
}
#: How others call what we call bounce and complaint.
_REASONS = {
    **{r.value: r for r in SuppressionReason},
    "hard_bounce": SuppressionReason.BOUNCE, "hard bounce": SuppressionReason.BOUNCE,
    "hardbounce": SuppressionReason.BOUNCE, "bounced": SuppressionReason.BOUNCE, "cleaned": SuppressionReason.BOUNCE,
    "spam": SuppressionReason.COMPLAINT, "spamreport": SuppressionReason.COMPLAINT,
    "spam_complaint": SuppressionReason.COMPLAINT, "abuse": SuppressionReason.COMPLAINT,
    "complained": SuppressionReason.COMPLAINT,
}  # fmt: skip


def _rows(stream: IO[str], reason: SuppressionReason, source: str) -> Iterator[_Row | Invalid]:
    for cells, line in named_cells(stream, _HEADINGS):
        if isinstance(cells, Invalid):
            yield cells
        else:
            yield _row(cells, line, reason, source)


def _row(cells: Mapping[str, str], line: int, reason: SuppressionReason, source: str) -> _Row | Invalid:
    said = cells.get("reason", "")
    known = _REASONS.get(said.casefold())
    detail = cells.get("detail", "") or (said if known is None else "") or source
    digits = cells.get("hash", "").lower().removeprefix(_HASH)
    if digits:
        if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
            return Invalid(line, digits, "this is no hash of ours: 64 hexadecimal digits")
        return _Row(_HASH + digits, known or reason, "")
    try:
        return _Row(parse_address(cells.get("email", "")).key, known or reason, detail[:500])
    except UsageError as e:
        return Invalid(line, cells.get("email", ""), str(e))
