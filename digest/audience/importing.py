"""CSV in: readers by the thousand. Sends nothing, and brings back nobody who has left.

    lines ─▶ rows (or invalid, with a reason) ─▶ chunks ─▶ what is known of them ─▶ decide ─▶ write

A chunk is one transaction, written set by set; memory does not grow with the file. An import that was interrupted is
started again: rows that are there already come out unchanged.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, Any
from zoneinfo import available_timezones

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from digest.audience.addresses import Address, parse_address
from digest.audience.lines import Invalid, error_sink, named_cells, opened
from digest.audience.subscriptions import (
    dress_code,
    ensure_clocks,
    ensure_taste,
    first_schedule,
    publication,
    unknown_digest,
    zone_of,
)
from digest.audience.suppressions import suppressed_among
from digest.db import Database
from digest.errors import UsageError
from digest.models import ConsentEvent, Digest, Schedule, Subscriber, Subscription
from digest.sql import insert_many, one_of
from digest.types import Dress, Format, SubscriptionStatus

_CHUNK = 4000
_HEADINGS = {
    "email": ("email", "e-mail", "address", "mail", "email address", "e-mail address"),
    "timezone": ("timezone", "time zone", "tz"),
    "language": ("language", "lang", "locale"),
    "format": ("format",),
    "digest": ("digest",),
    "status": ("status",),
}
_TAKES = ("", "active", "subscribed", "confirmed", "enabled")
_WAITS = ("pending", "unconfirmed")
_LEFT = (
    "unsubscribed",
    "suspended",
    "paused",
    "cleaned",
    "bounced",
    "complained",
    "blocklisted",
    "disabled",
    "inactive",
)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,2}")


@dataclass(slots=True)
class ImportReport:
    """Every row is in one count beside ``rows``. ``suppressed_kept``: suppressed, or left before, and kept so."""

    rows: int = 0
    new: int = 0
    updated: int = 0
    unchanged: int = 0
    suppressed_kept: int = 0
    invalid: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    address: Address
    digest: str | None
    timezone: str | None
    language: str | None
    format: Format | None
    agreed: bool  # the file does not say otherwise
    left: bool


@dataclass(frozen=True, slots=True)
class _Recipe:
    """A digest as far as joining it goes."""

    id: int
    schedule_id: int | None
    zone: str  # of its schedule; may be "subscriber"


@dataclass(frozen=True, slots=True)
class _Held:
    """What a subscription is now."""

    id: int
    status: str
    dress: int


@dataclass(slots=True)
class _Known:
    """What the database holds of a chunk's addresses."""

    readers: dict[str, tuple[int, str | None, str | None]]  # key → id, timezone, language
    held: dict[tuple[int, int], _Held]  # (subscriber, digest)
    suppressed: set[str]


@dataclass(slots=True)
class _Plan:
    """What a chunk will write."""

    readers: dict[str, _Row] = field(default_factory=dict)
    settings: dict[int, dict[str, Any]] = field(default_factory=dict)  # subscriber id → changed columns
    joins: dict[tuple[str, int], _Row] = field(default_factory=dict)  # (address key, digest id)
    activate: list[tuple[_Row, _Held, int, int]] = field(default_factory=list)  # …, subscriber, digest
    redress: list[tuple[int, int]] = field(default_factory=list)  # subscription id, dress


def import_csv(
    database: Database,
    file: Path | IO[str],
    *,
    digest: str | None = None,
    confirmed: bool = False,
    dry_run: bool = False,
    errors_file: Path | None = None,
    now: datetime,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Import the readers of a CSV file; rows go to *digest*, else to the one their own column names, else to none.

    ``confirmed``: the file is the record of their consent; without it subscriptions wait, pending. No mail either way.
    ``dry_run`` reports the same and changes nothing (it remembers the addresses it saw: some 100 bytes each).
    ``progress`` is told the number of rows done so far.
    """
    began, report = time.perf_counter(), ImportReport()
    with ExitStack() as stack:
        stream, name = opened(stack, file)
        say = error_sink(stack, errors_file)
        importer = _Importer(database, name, digest, confirmed, now, dry_run, report)
        rows = _rows(stream)
        while chunk := list(islice(rows, _CHUNK)):
            importer.take(chunk, say)
            if progress:
                progress(report.rows)
    report.seconds = round(time.perf_counter() - began, 3)
    return report


class _Importer:
    """Takes chunks, one transaction each; counts into the report."""

    def __init__(
        self, database: Database, name: str, digest: str | None, confirmed: bool, now: datetime, dry: bool,
        report: ImportReport,
    ) -> None:  # fmt: skip
        self.database, self.name, self.confirmed, self.now = database, name, confirmed, now
        self.dry, self.report = dry, report
        self.seen: set[tuple[str, str | None]] = set()
        with database.reading() as session:
            slugs = session.execute(select(Digest.slug, Digest.id)).all()
            self.recipes = {slug: _recipe(i, first_schedule(session, i)) for slug, i in slugs}
            home = publication(session)
            self.home_zone, self.home_language = home.timezone, home.language
        if digest is not None and digest not in self.recipes:
            raise UsageError(unknown_digest(digest, self.recipes))
        self.digest = digest

    def take(self, chunk: Sequence[_Row | Invalid], say: Callable[[Invalid], None]) -> None:
        self.report.rows += len(chunk)
        rows: dict[tuple[str, str | None], _Row] = {}
        for row in chunk:
            found = self._placed(row)
            if isinstance(found, Invalid):
                self.report.invalid += 1
                say(found)
                continue
            key = (found.address.key, found.digest)
            if key in rows or key in self.seen:  # named twice: the last line's values stand
                self.report.unchanged += 1
            rows[key] = found
        fresh = [row for key, row in rows.items() if key not in self.seen]
        with self._session() as session:
            known = self._known(session, fresh)
            plan = self._decide(fresh, known)
            if self.dry:
                self.seen.update(rows)
            else:
                self._write(session, plan, known)

    def _session(self) -> AbstractContextManager[Session]:
        return self.database.reading() if self.dry else self.database.transaction()

    def _placed(self, row: _Row | Invalid) -> _Row | Invalid:
        """The row with the digest it goes to."""
        if isinstance(row, Invalid):
            return row
        slug = self.digest or row.digest
        if slug is not None and slug not in self.recipes:
            return Invalid(row.line, row.address.given, unknown_digest(slug, self.recipes))
        if slug == row.digest:
            return row
        return _Row(row.line, row.address, slug, row.timezone, row.language, row.format, row.agreed, row.left)

    # ------------------------------------------------------------------------- look up

    def _known(self, session: Session, rows: Sequence[_Row]) -> _Known:
        keys = sorted({row.address.key for row in rows})
        columns = (Subscriber.address_key, Subscriber.id, Subscriber.timezone, Subscriber.language)
        found = session.execute(select(*columns).where(one_of(session, Subscriber.address_key, keys)))
        readers = {key: (i, zone, language) for key, i, zone, language in found}
        suppressed = set(suppressed_among(session, keys))
        return _Known(readers, self._held(session, [i for i, _, _ in readers.values()]), suppressed)

    def _held(self, session: Session, subscriber_ids: Sequence[int]) -> dict[tuple[int, int], _Held]:
        if not subscriber_ids:
            return {}
        s = Subscription
        found = session.execute(
            select(s.subscriber_id, s.digest_id, s.id, s.status, s.dress).where(
                one_of(session, s.subscriber_id, subscriber_ids)
            )
        )
        return {(reader, digest): _Held(i, status, dress) for reader, digest, i, status, dress in found}

    # ------------------------------------------------------------------------- decide

    def _decide(self, rows: Iterable[_Row], known: _Known) -> _Plan:
        plan = _Plan()
        for row in rows:
            verdict = self._decide_row(row, known, plan)
            setattr(self.report, verdict, getattr(self.report, verdict) + 1)
        return plan

    def _decide_row(self, row: _Row, known: _Known, plan: _Plan) -> str:
        """Put what *row* asks for into *plan*; returns the report's word for it."""
        key = row.address.key
        if row.left or key in known.suppressed:
            return "suppressed_kept"
        reader = known.readers.get(key)
        digest = self.recipes[row.digest].id if row.digest else None
        if reader is None:
            verdict = "updated" if key in plan.readers else "new"
            plan.readers.setdefault(key, row)
            if digest is not None:
                plan.joins[key, digest] = row
            return verdict
        held = known.held.get((reader[0], digest)) if digest is not None else None
        if held and held.status in (SubscriptionStatus.UNSUBSCRIBED, SubscriptionStatus.SUSPENDED):
            return "suppressed_kept"
        changed = self._settings(row, reader, plan)
        if digest is not None and held is None:
            plan.joins[key, digest] = row
            changed = True
        elif digest is not None and held is not None:
            changed |= self._decide_held(row, held, reader[0], digest, plan)
        return "updated" if changed else "unchanged"

    def _settings(self, row: _Row, reader: tuple[int, str | None, str | None], plan: _Plan) -> bool:
        given = {"timezone": row.timezone, "language": row.language}
        changes = {name: v for (name, v), old in zip(given.items(), reader[1:], strict=True) if v and v != old}
        if changes:
            plan.settings.setdefault(reader[0], {}).update(changes)
        return bool(changes)

    def _decide_held(self, row: _Row, held: _Held, reader: int, digest: int, plan: _Plan) -> bool:
        changed = False
        if held.status == SubscriptionStatus.PENDING and self.confirmed and row.agreed:
            plan.activate.append((row, held, reader, digest))
            changed = True
        now = Dress.of(held.dress)
        want = dress_code(row.language or now.language, now.format if row.format is None else row.format)
        if want != held.dress:
            plan.redress.append((held.id, want))
            changed = True
        return changed

    # ------------------------------------------------------------------------- write

    def _write(self, session: Session, plan: _Plan, known: _Known) -> None:
        ids = {key: reader[0] for key, reader in known.readers.items()}
        ids |= self._write_readers(session, plan)
        for subscriber_id, columns in plan.settings.items():
            session.execute(update(Subscriber).where(Subscriber.id == subscriber_id).values(**columns))
        zones = {key: reader[1] for key, reader in known.readers.items()}
        self._write_joins(session, plan, ids, zones)
        self._write_activations(session, plan)
        for subscription_id, dress in plan.redress:
            session.execute(update(Subscription).where(Subscription.id == subscription_id).values(dress=dress))

    def _write_readers(self, session: Session, plan: _Plan) -> dict[str, int]:
        if not plan.readers:
            return {}
        keys = sorted(plan.readers)  # in one order, so that two imports cannot lock each other out
        rows = [plan.readers[key] for key in keys]
        columns: dict[str, list[Any]] = {
            "address": [row.address.given for row in rows],
            "address_key": keys,
            "timezone": [row.timezone for row in rows],
            "language": [row.language for row in rows],
        }
        insert_many(session, Subscriber, columns, {"created_at": self.now})
        found = session.execute(
            select(Subscriber.address_key, Subscriber.id).where(one_of(session, Subscriber.address_key, keys))
        )
        return {row.address_key: row.id for row in found}

    def _write_joins(self, session: Session, plan: _Plan, ids: dict[str, int], zones: dict[str, str | None]) -> None:
        """One set for those who are active at once, one for those who wait."""
        joins = sorted((ids[key], digest, row) for (key, digest), row in plan.joins.items())
        taste = ensure_taste(session, ()) if joins else 0
        for active in (True, False):
            rows = [join for join in joins if (self.confirmed and join[2].agreed) is active]
            clocks = self._clocks(rows, zones)
            columns: dict[str, list[Any]] = {
                "subscriber_id": [reader for reader, _, _ in rows],
                "digest_id": [digest for _, digest, _ in rows],
                "schedule_id": [schedule_id for schedule_id, _ in clocks],
                "zone": [zone for _, zone in clocks],
                "dress": [self._dress(row) for _, _, row in rows],
            }
            shared = {"taste_id": taste, "created_at": self.now, "confirmed_at": self.now if active else None}
            status = SubscriptionStatus.ACTIVE if active else SubscriptionStatus.PENDING
            insert_many(session, Subscription, columns, {**shared, "status": status.value})
            if active:
                self._start_clocks(session, clocks)
                self._write_consent(session, rows)

    def _clocks(
        self, joins: Sequence[tuple[int, int, _Row]], zones: dict[str, str | None]
    ) -> list[tuple[int | None, str]]:
        """(schedule, zone) of each."""
        recipes = {recipe.id: recipe for recipe in self.recipes.values()}
        clocks: list[tuple[int | None, str]] = []
        for _, digest, row in joins:
            recipe = recipes[digest]
            own = row.timezone or zones.get(row.address.key)
            clocks.append((recipe.schedule_id, zone_of(recipe.zone, own, self.home_zone)))
        return clocks

    def _start_clocks(self, session: Session, clocks: Iterable[tuple[int | None, str]]) -> None:
        for schedule_id, zone in sorted({(s, z) for s, z in clocks if s is not None}):
            ensure_clocks(session, schedule_id, {zone})

    def _dress(self, row: _Row) -> int:
        return dress_code(row.language or self.home_language, row.format or Format.HTML)

    def _write_activations(self, session: Session, plan: _Plan) -> None:
        if not plan.activate:
            return
        ids = [held.id for _, held, _, _ in plan.activate]
        values = {"status": SubscriptionStatus.ACTIVE.value, "confirmed_at": self.now, "ended_at": None}
        session.execute(update(Subscription).where(Subscription.id.in_(ids)).values(**values))
        clocks = session.execute(
            select(Subscription.schedule_id, Subscription.zone).where(Subscription.id.in_(ids)).distinct()
        )
        self._start_clocks(session, [(schedule_id, zone) for schedule_id, zone in clocks])
        self._write_consent(session, [(reader, digest, row) for row, _, reader, digest in plan.activate])

    def _write_consent(self, session: Session, rows: Sequence[tuple[int, int, _Row]]) -> None:
        if not rows:
            return
        columns: dict[str, list[Any]] = {
            "subscriber_id": [reader for reader, _, _ in rows],
            "digest_id": [digest for _, digest, _ in rows],
            "detail": [{"line": row.line} for _, _, row in rows],
        }
        shared = {"kind": "imported", "source": f"import:{self.name}", "at": self.now}
        insert_many(session, ConsentEvent, columns, shared)


def _recipe(digest_id: int, schedule: Schedule | None) -> _Recipe:
    return _Recipe(digest_id, schedule.id, schedule.timezone) if schedule else _Recipe(digest_id, None, "")


# ----------------------------------------------------------------------------- rows


def _rows(stream: IO[str]) -> Iterator[_Row | Invalid]:
    for cells, line in named_cells(stream, _HEADINGS):
        yield cells if isinstance(cells, Invalid) else _row(cells, line)


def _row(cells: Mapping[str, str], line: int) -> _Row | Invalid:
    def cell(field: str) -> str:
        return cells.get(field, "")

    text = cell("email")
    try:
        address = parse_address(text)
    except UsageError as e:
        return Invalid(line, text, str(e))
    zone, language, status = cell("timezone"), cell("language"), cell("status").casefold()
    format = _FORMATS.get(cell("format").casefold(), _UNKNOWN)
    if zone and zone not in _zones():
        return Invalid(line, text, f"there is no time zone {zone!r}; use a name such as Europe/Berlin")
    if language and not (len(language) <= 16 and _LANGUAGE.fullmatch(language)):
        return Invalid(line, text, f"{language!r} is not a language; use a tag such as en or pt-BR")
    if isinstance(format, str):
        return Invalid(line, text, f"there is no format {cell('format')!r}; use html or text")
    if status not in _TAKES + _WAITS + _LEFT:
        return Invalid(line, text, f"the status {status!r} is not known; use active, pending or unsubscribed")
    return _Row(
        line, address, cell("digest") or None, zone or None, language.replace("_", "-").lower() or None, format,
        agreed=status not in _WAITS, left=status in _LEFT,
    )  # fmt: skip


_UNKNOWN = "unknown"
_FORMATS: dict[str, Format | str | None] = {"": None, "html": Format.HTML, "text": Format.TEXT, "plain": Format.TEXT}


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
