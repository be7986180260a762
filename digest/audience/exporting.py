"""Readers out again: one row a subscription, in the columns that the import reads."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest.audience.lines import as_text_cell
from digest.models import Digest, Subscriber, Subscription, Suppression
from digest.types import Dress

COLUMNS = ("email", "digest", "status", "timezone", "language", "format", "created_at", "confirmed_at", "suppressed")


def export(session: Session) -> Iterator[dict[str, Any]]:
    """Every subscription with its reader, oldest reader first; a reader without any is one row without a digest."""
    rows = session.execute(
        select(Subscriber, Subscription, Digest.slug, Suppression.reason)
        .outerjoin(Subscription, Subscription.subscriber_id == Subscriber.id)
        .outerjoin(Digest, Digest.id == Subscription.digest_id)
        .outerjoin(Suppression, Suppression.address_key == Subscriber.address_key)
        .order_by(Subscriber.id, Subscription.id)
        .execution_options(yield_per=1000)
    )
    for reader, subscription, slug, reason in rows:
        yield {
            "email": reader.address,
            "digest": slug,
            "status": subscription.status if subscription else None,
            "timezone": reader.timezone,
            "language": reader.language,
            "format": Dress.of(subscription.dress).format.name.lower() if subscription else None,
            "created_at": subscription.created_at if subscription else reader.created_at,
            "confirmed_at": subscription.confirmed_at if subscription else None,
            "suppressed": reason,
        }


def write_csv(rows: Iterable[Mapping[str, Any]], file: IO[str]) -> int:
    """Write exported rows; a cell that a spreadsheet would take for a formula is quoted. Returns their number."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    count = 0
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in COLUMNS])
        count += 1
    return count


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if hasattr(value, "strftime") else as_text_cell(str(value))
