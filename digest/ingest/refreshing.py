"""Sources in: which are due, what they give, what is stored, what went wrong.

Owns the transactions and the order of events. Reading a format is the sources' work, cleaning is text's, which article
an item is decides the catalogue. Nothing is fetched or cleaned while a transaction is open.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from digest import catalogue, text
from digest.db import Database
from digest.errors import ConfigError, DigestError, SourceError, UsageError, in_a_line
from digest.fetch import Fetcher
from digest.ingest.collapsing import collapse
from digest.ingest.looking import Look
from digest.models import Source
from digest.sources import KINDS
from digest.sources.options import TopicRules, checked
from digest.sources.reading import matching
from digest.text.apart import clean_or_skip, cleaned
from digest.types import CleanArticle, Fetched, RawArticle, Skipped

log = logging.getLogger(__name__)

POLL_EVERY = timedelta(minutes=10)
_BACK_OFF = timedelta(minutes=10)  # doubled with every failure
_MAX_BACK_OFF = timedelta(hours=6)
_MAX_RETRY_AFTER = timedelta(days=1)  # a server may ask for more; we ask again after a day
_CHUNK = 500
_CHUNK_CHARS = 5_000_000  # so that a chunk of long articles is no heavier than one of short ones
_MAX_WARNINGS = 20
_POLLING = timedelta(minutes=2)  # so long nobody else polls a source that somebody reads; longer ones are read twice
_RECENT = timedelta(days=8)  # what a weekly digest may still carry is asked after at every poll

Pair = tuple[RawArticle, CleanArticle]


@dataclass(slots=True)
class SourceReport:
    """What one refresh of a source did. ``skipped``: reason → how many; ``scheduled``: those that wait for a date."""

    source: str
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    scheduled: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    errors: list[tuple[str, str]] = field(default_factory=list)  # (code, message)
    warnings: list[str] = field(default_factory=list)
    not_modified: bool = False
    look: Look | None = None  # of a check

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source, "new": self.new, "changed": self.changed, "unchanged": self.unchanged,
            "removed": self.removed, "scheduled": self.scheduled,
            "skipped": [{"reason": reason, "count": count} for reason, count in sorted(self.skipped.items())],
            "errors": [{"code": code, "message": message} for code, message in self.errors],
            "warnings": self.warnings,
        }  # fmt: skip

    def warn(self, sentence: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(sentence)


# ----------------------------------------------------------------------------- refresh


def refresh(
    database: Database,
    fetcher: Fetcher,
    *,
    at: datetime,
    names: Sequence[str] | None = None,
    force: bool = False,
    among: Collection[int] | None = None,
    budget_s: float = 60.0,
    on_report: Callable[[SourceReport], None] | None = None,
) -> list[SourceReport]:
    """Read the sources that are due at *at*; those called by *names*, or all with *force*: due or not, and whole.

    *among*: where several processes share the work, only these (ids), and none that another one reads just now.

    publish_due          articles whose date has come
    due sources          never read first, then the longest unread; a failing one waits for its back-off
    └ for each           until the budget is spent: the source that is being read then is read to its end
      ├ fetch            the source's lazy items, what it calls itself, its list of topics
      ├ clean            an item that cannot be cleaned is skipped with a reason
      ├ store, collapse  a transaction for some 500 articles; a chunk that fails is halved until one is left
      ├ take out         what the source says is gone
      └ finish           the source's state, last: after a crash everything is read again, and changes nothing
    """
    with database.transaction() as session:
        catalogue.publish_due(session, at)
    started, reports = time.monotonic(), list[SourceReport]()
    asked_for = force or names is not None
    for source in _due_sources(database, at, names, asked_for):
        if not asked_for and time.monotonic() - started > budget_s:
            break
        if among is not None and source.id not in among:
            continue
        if not _take(database, source) and among is not None:
            continue
        report = _refresh_source(database, fetcher, source, at, {} if asked_for else source.state)
        reports.append(report)
        if on_report is not None:
            on_report(report)
    return reports


def due(database: Database, at: datetime) -> list[int]:
    """Sources (ids) that are due at *at*, those that somebody reads just now among them."""
    return [s.id for s in _due_sources(database, at, None, asked_for=False)]


def _take(database: Database, source: Source) -> bool:
    """Say that this process reads the source; False when another one does."""
    now = database.now()
    with database.transaction() as session:
        row = session.scalars(select(Source).where(Source.id == source.id).with_for_update()).one_or_none()
        if row is None or (row.polling_until is not None and row.polling_until > now):
            return False
        row.polling_until = now + _POLLING
        return True


def _due_sources(database: Database, at: datetime, names: Sequence[str] | None, asked_for: bool) -> list[Source]:
    now = database.now()
    with database.reading() as session:
        if names is not None:
            sources = [catalogue.get_source(session, name) for name in dict.fromkeys(names)]
        else:
            sources = catalogue.list_sources(session)
        session.expunge_all()
    if names is not None:
        return sources
    due = [s for s in sources if s.disabled_at is None and (asked_for or is_due(s, at, now))]
    return sorted(due, key=lambda s: (s.polled_at is not None, s.polled_at or at, s.id))


def is_due(source: Source, at: datetime, now: datetime) -> bool:
    """Polls fall due by *at*; back-off is a matter of the real clock, *now*."""
    if source.retry_at is not None and source.retry_at > now:
        return False
    return source.polled_at is None or not at - POLL_EVERY < source.polled_at <= at


def _refresh_source(
    database: Database, fetcher: Fetcher, source: Source, at: datetime, state: Mapping[str, Any]
) -> SourceReport:
    report = SourceReport(source.slug)
    try:
        reader = open_source(source.kind, source.location, source.options, fetcher)
        fetched = reader.fetch(state)
        if fetched.not_modified:
            report.not_modified = True
            with database.reading() as session:
                report.unchanged, report.scheduled = catalogue.count_articles(session, source)
        else:
            _prepare(database, source, fetched)
            _store_items(database, source, fetched, at, report)
        _take_out(database, source, reader, at, whole=not state, report=report)
        for warning in fetched.warnings:
            report.warn(warning)
        _finish(database, source, fetched, at)
    except SourceError as e:
        _fail(database, source, report, e)
    except (DigestError, ConfigError, SQLAlchemyError):
        _let_go(database, source)
        raise  # ours or the database's: no other source would fare better
    except Exception as e:  # a reader that met what it was not made for; the other sources go on
        log.warning("source %s cannot be read", source.slug, exc_info=e)
        _fail(database, source, report, SourceError("unreadable", f"what it gave cannot be read ({in_a_line(e)})"))
    return report


def _let_go(database: Database, source: Source) -> None:
    with contextlib.suppress(DigestError, SQLAlchemyError), database.transaction() as session:
        session.execute(update(Source).where(Source.id == source.id).values(polling_until=None))


def _take_out(
    database: Database, source: Source, reader: Any, at: datetime, *, whole: bool, report: SourceReport
) -> None:
    """Remove what the source itself says is gone: of all its articles after a whole read, else of the recent ones.

    Sources that cannot tell have no ``gone``; that a feed no longer lists an article says nothing.
    """
    if not hasattr(reader, "gone"):
        return
    with database.reading() as session:
        there = catalogue.native_ids(session, source, None if whole else at - _RECENT)
    gone = reader.gone(there) if there else []
    if gone:
        with database.transaction() as session:
            report.removed += catalogue.remove(session, _row(session, source), gone)
            report.unchanged -= min(len(gone), report.unchanged) * report.not_modified


def open_source(kind: str, location: str, options: Mapping[str, Any], fetcher: Fetcher) -> Any:
    """The reader of a kind, at a location."""
    reader = KINDS.get(kind)
    if reader is None:
        raise SourceError("unknown_kind", f"there is no kind of source {kind!r}; kinds are {', '.join(sorted(KINDS))}")
    return reader(location, options, fetcher)


# ----------------------------------------------------------------------------- items


def _store_items(database: Database, source: Source, fetched: Fetched, at: datetime, report: SourceReport) -> None:
    seen: dict[int, tuple[int, int]] = {}
    repaired = 0
    for pairs, gone in _chunks(fetched.items, TopicRules.of(source.options), report):
        repaired += sum(clean.repaired for _, clean in pairs)
        if pairs:
            _store_chunk(database, source, pairs, at, seen, None, report)
        if gone:
            with database.transaction() as session:
                report.removed += catalogue.remove(session, _row(session, source), gone)
    if repaired:
        report.warn(f"broken markup was mended in {repaired} article{'s' * (repaired > 1)}")


def _chunks(
    items: Iterator[RawArticle | Skipped], rules: TopicRules, report: SourceReport
) -> Iterator[tuple[list[Pair], list[str]]]:
    """Yield articles, cleaned, some hundred at a time, and beside them the native ids of those that were taken back."""
    pairs, gone, size = list[Pair](), list[str](), 0
    for item, result in cleaned(items):
        if isinstance(result, Skipped):
            report.skipped[result.reason] += 1
            if result.native_id is not None:
                gone.append(result.native_id)
        elif isinstance(item, RawArticle):
            pairs.append(_pair(item, result, rules))
            size += len(result.body_html) + len(result.body_text)
        if len(pairs) + len(gone) >= _CHUNK or size >= _CHUNK_CHARS:
            yield pairs, gone
            pairs, gone, size = [], [], 0
    yield pairs, gone


def _pair(raw: RawArticle, clean: CleanArticle, rules: TopicRules) -> Pair:
    """The raw text has done its duty; memory stays flat."""
    return replace(raw, body_html="", excerpt_html="", assigned=rules.given(raw, clean)), clean


def _store_chunk(
    database: Database,
    source: Source,
    pairs: list[Pair],
    at: datetime,
    seen: dict[int, tuple[int, int]],
    shared: frozenset[Any] | None,
    report: SourceReport,
) -> None:
    """Store a chunk in one transaction; if it is refused, its halves, until the article that is refused is alone.

    *shared*: what the whole chunk says of its names, once only a part of it is tried.
    """
    try:
        with database.transaction() as session:
            counts = catalogue.store(session, _row(session, source), pairs, at=at, seen=seen, shared=shared)
            collapse(session, counts.touched, at=at)
    except (DigestError, ConfigError):
        raise
    except Exception as e:
        if len(pairs) == 1:
            log.warning("the article %s is refused", pairs[0][1].canonical_url, exc_info=e)
            report.skipped["rejected"] += 1
            return
        shared = catalogue.names_that_tell_nothing(source, pairs) if shared is None else shared
        half = len(pairs) // 2
        for part in (pairs[:half], pairs[half:]):
            _store_chunk(database, source, part, at, seen, shared, report)
        return
    seen.update(counts.seen)
    report.new += counts.new
    report.changed += counts.changed
    report.unchanged += counts.unchanged
    report.scheduled += counts.scheduled
    if counts.repeated:
        report.skipped["repeated"] += counts.repeated
    for warning in counts.warnings:
        report.warn(warning)


def push(database: Database, name: str, raw: RawArticle, *, at: datetime) -> SourceReport:
    """Take one article from outside, as the source called *name* would have given it.

    It is cleaned, known again and stored like any other; the report says what became of it. Not for a first import:
    what is pushed counts as published when it came.
    """
    with database.reading() as session:
        source = catalogue.get_source(session, name)
        session.expunge_all()
    report = SourceReport(source.slug)
    result = clean_or_skip(raw)
    if isinstance(result, Skipped):
        report.skipped[result.reason] += 1
        return report
    pair = _pair(raw, result, TopicRules.of(source.options))
    with database.transaction() as session:
        row = _row(session, source)
        row.imported_at = row.imported_at or at
    _store_chunk(database, source, [pair], at, {}, frozenset(), report)
    return report


# ----------------------------------------------------------------------------- the source's row


def _row(session: Session, source: Source) -> Source:
    """The source's row in this transaction."""
    row = session.get(Source, source.id)
    if row is None:
        raise SourceError("removed", f"the source {source.slug!r} was removed while it was being read")
    return row


def _prepare(database: Database, source: Source, fetched: Fetched) -> None:
    """Record what the source calls itself and its topics, those without articles too."""
    with database.transaction() as session:
        row = _row(session, source)
        row.title = text.clean_title(fetched.title or "", is_html=False) or row.title
        row.language = fetched.language or row.language
        if fetched.topics:
            catalogue.ensure_topics(session, fetched.topics)


def _finish(database: Database, source: Source, fetched: Fetched, at: datetime) -> None:
    with database.transaction() as session:
        row = _row(session, source)
        row.polled_at, row.polling_until = at, None
        row.failing_since = row.retry_at = row.last_error = None
        row.failures = 0
        row.disabled_at = None  # asked by name, it answered
        row.state = dict(fetched.state)
        _note_move(row)
        if not fetched.not_modified:
            row.imported_at = row.imported_at or at


def _note_move(row: Source) -> None:
    """Count equal permanent redirects, whole reads among them: the third is believed."""
    to = row.state.get("moved_to")
    row.moved_count = min(row.moved_count * (row.moved_to == to) + 1, 1_000) if to else 0
    row.moved_to = to
    if to:
        row.state = {**row.state, "moves": row.moved_count}


def _fail(database: Database, source: Source, report: SourceReport, error: SourceError) -> None:
    """Record a failure and when to try again, by the real clock."""
    report.errors.append((error.code, str(error)))
    now = database.now()
    with database.transaction() as session:
        row = session.get(Source, source.id)
        if row is not None:
            row.failing_since, row.polling_until = row.failing_since or now, None
            row.failures += 1
            row.retry_at = now + _wait(row.failures, error.retry_after)
            row.last_error = str(error)
            if error.code == "gone":  # RFC 9110 §15.5.11: gone for good; asked again only by name
                row.disabled_at = row.disabled_at or now


def _wait(failures: int, retry_after: float | None) -> timedelta:
    if retry_after is not None:  # RFC 9110 §10.2.3
        return min(max(timedelta(seconds=min(retry_after, 1e6)), timedelta()), _MAX_RETRY_AFTER)
    return min(_BACK_OFF * (1 << min(failures - 1, 10)), _MAX_BACK_OFF)


# ----------------------------------------------------------------------------- adding and checking


def add_source(
    database: Database,
    name: str,
    *,
    kind: str,
    location: str,
    categories: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    at: datetime,
) -> Source:
    """Add a source after a look at its kind, its options and, for a local one, its place. Ingests nothing."""
    if kind not in KINDS:
        raise UsageError(f"there is no kind of source {kind!r}; kinds are {', '.join(sorted(KINDS))}")
    place, kept = absolute(location), checked(options or {})
    with database.transaction() as session:
        return catalogue.add_source(
            session, name, kind=kind, location=place, categories=categories, options=kept, at=at
        )


def change_source(
    database: Database,
    name: str,
    *,
    location: str | None = None,
    categories: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Source:
    """Change what is given of a source; an option with an empty value goes. The next poll reads it whole."""
    place = None if location is None else absolute(location)
    with database.transaction() as session:
        row = catalogue.get_source(session, name)
        kept = checked({**row.options, **(options or {})})
        return catalogue.change_source(session, row, location=place, categories=categories, options=kept)


def absolute(location: str) -> str:
    """A location that means the same from any folder: http(s) as it is, a local path absolute and there."""
    scheme = urlsplit(location).scheme.lower()
    if scheme in ("http", "https"):
        if not urlsplit(location).hostname:
            raise UsageError(f"{location!r} names no host; write it as https://news.example.org/feed")
        return location
    if scheme not in ("", "file"):
        raise UsageError(f"{location!r}: {scheme} addresses cannot be read; use http(s) or a local path")
    path = Path(unquote(urlsplit(location).path) if scheme == "file" else location).expanduser().absolute()
    if not path.exists() and not matching(path):
        if not scheme and re.fullmatch(r"(?:[\w-]+\.)+[a-z]{2,}(?:[/?:].*)?", location, re.IGNORECASE):
            raise UsageError(f"there is no file {location}; if it is a web address, write it as https://{location}")
        raise UsageError(f"there is nothing at {path}; give the path of a file that exists, or an http(s) address")
    return str(path)


def check_source(database: Database, fetcher: Fetcher, name: str) -> SourceReport:
    """Read a source and store nothing: ``new`` counts the articles it would give."""
    with database.reading() as session:
        source = catalogue.get_source(session, name)
        session.expunge_all()
    report = SourceReport(source.slug)
    try:
        fetched = open_source(source.kind, source.location, source.options, fetcher).fetch({})
        report.look = look = Look(source.kind, source.location, title=fetched.title)
        for pairs, _ in _chunks(fetched.items, TopicRules.of(source.options), report):
            report.new += len(pairs)
            for raw, clean in pairs:
                look.add(raw, clean)
        report.warnings += fetched.warnings[:_MAX_WARNINGS]
    except SourceError as e:
        report.errors.append((e.code, str(e)))
    return report
