"""The shelf: every feed of one database, ready to be written out, brought up to date by whoever asks first.

Owns the cache, its threads and its bounds. Not here: HTTP (web.feeds), what a feed holds (readings), files (export).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from digest import catalogue
from digest.db import Database
from digest.errors import DigestError
from digest.feeds import FORMATS, tidy
from digest.publishing.entries import Entry, make_entry
from digest.publishing.export import BuildReport, Export, Finding
from digest.publishing.readings import (
    Feed,
    Marks,
    Standing,
    list_feeds,
    read_marks,
    read_standing,
    read_view,
    selector_of,
    stem_of,
    whereabouts,
)
from digest.types import FeedSelector, FeedView

#: How long what was read of the database holds good.
FRESH_S = 1.0
_FAILURES_MAX = 1_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slot:
    """What lies on the shelf under a path. ``entry`` None: there is no such feed. Good while ``marks`` are the last.

    ``gone``: there was one; ``moved``: the path of the feed that has taken its place.
    """

    entry: Entry | None
    key: tuple[object, ...]
    marks: Marks
    gone: bool = False
    moved: str = ""

    @property
    def size(self) -> int:
        return self.entry.size if self.entry else 500


def _absent(session: Session, selector: FeedSelector, extension: str, marks: Marks) -> Slot:
    went = whereabouts(session, selector)
    moved = f"{stem_of(went.now)}.{extension}" if went and went.now else ""
    return Slot(None, (), marks, gone=went is not None, moved=moved)


class Shelf:
    """Every feed of one database under one public address.

    ``live`` as set; a database that is armed for *public_url* is live too. ``limit`` bounds the bytes kept.
    """

    def __init__(
        self,
        database: Database,
        public_url: str,
        *,
        live: bool = False,
        limit: int = 128 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._public_url, self._live = database, public_url.rstrip("/"), live
        self._limit, self._clock = limit, clock
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()  # slots, flights, failures
        self._flights: dict[str, Future[Slot]] = {}
        self._failures: OrderedDict[str, tuple[float, BaseException]] = OrderedDict()
        self._reading_marks = threading.Lock()
        self._marks: Marks | None = None
        self._good_until = 0.0
        self._trouble: tuple[float, Exception] | None = None
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="feeds")

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------------- kept warm

    def ready(self, path: str) -> Slot | None:
        """What lies under *path* if it is up to date; no SQL, no lock, no rendering."""
        slot = self._slots.get(path)
        if slot is not None and slot.marks is self._marks and self._clock() < self._good_until:
            return slot
        return None

    def stale(self, path: str) -> Slot | None:
        """What lies under *path*, however old: better than nothing when the database does not answer."""
        return self._slots.get(path)

    def refresh(self, path: str) -> Future[Slot]:
        """Bring *path* up to date in a thread; those who ask meanwhile get the same future.

        After a failure the same failure is given for a second, so that a database that is away is not stormed.
        """
        with self._lock:
            if (flight := self._flights.get(path)) is not None:
                return flight
            if (failed := self._failures.get(path)) is not None and self._clock() < failed[0]:
                flight = Future()
                flight.set_exception(failed[1].with_traceback(None))
                return flight
            flight = self._flights[path] = self._threads.submit(self._fly, path)
            return flight

    def entry(self, path: str) -> Entry | None:
        """The entry under *path*, up to date, waiting for it if need be; None if there is no such feed."""
        return (self.ready(path) or self.refresh(path).result()).entry

    def _fly(self, path: str) -> Slot:
        """Bring *path* up to date; all is written down before anybody hears of it."""
        problem: Exception | None = None
        try:
            return self._bring_up_to_date(path)
        except Exception as e:
            problem = e
            unexpected = None if isinstance(e, DigestError) else e
            log.error("the feed %r could not be brought up to date: %s", path, e, exc_info=unexpected)
            raise
        finally:
            with self._lock:
                self._landed(path, problem)

    def _landed(self, path: str, problem: Exception | None) -> None:
        self._flights.pop(path, None)
        self._failures.pop(path, None)
        if problem is not None:
            self._failures[path] = (self._clock() + FRESH_S, problem)
        if len(self._failures) > _FAILURES_MAX:
            self._failures.popitem(last=False)

    def _bring_up_to_date(self, path: str) -> Slot:
        marks = self._current_marks()
        before = self._slots.get(path)
        if before is not None and before.marks is marks:
            return before
        slot = self._made(path, marks, before)
        with self._lock:
            self._put(path, slot)
        return slot

    def _made(self, path: str, marks: Marks, before: Slot | None) -> Slot:
        asked = selector_of(path)
        if asked is None:
            return Slot(None, (), marks)
        selector, extension = asked
        with self._snapshot() as session:
            standing = read_standing(session, selector)
            if standing is None:
                return _absent(session, selector, extension, marks)
            key = (*standing.key, standing.title, marks.brand)
            if before is not None and before.entry is not None and before.key == key:
                return Slot(before.entry, key, marks)
            view = self._view(session, selector, standing.title)
        return Slot(make_entry(view, path, extension, standing.changed), key, marks)

    def _put(self, path: str, slot: Slot) -> None:
        """Keep *slot*, and let go what was brought up to date the longest ago until all fits."""
        old = self._slots.pop(path, None)
        self._size += slot.size - (old.size if old else 0)
        self._slots[path] = slot
        while self._size > self._limit and len(self._slots) > 1:
            self._size -= self._slots.popitem(last=False)[1].size

    def _current_marks(self) -> Marks:
        """Read the marks unless they are still good; while one thread reads, the others wait for what it finds."""
        with self._reading_marks:
            if self._marks is not None and self._clock() < self._good_until:
                return self._marks
            if self._trouble is not None and self._clock() < self._trouble[0]:
                raise self._trouble[1].with_traceback(None)
            now = self._clock()
            try:
                with self._database.reading() as session:
                    marks = read_marks(session)
            except Exception as problem:
                self._trouble = (self._clock() + FRESH_S, problem)
                raise
            if self._marks is None or marks != self._marks:
                self._marks = marks
            self._trouble, self._good_until = None, now + FRESH_S
            return self._marks

    @contextmanager
    def _snapshot(self) -> Iterator[Session]:
        """Version and items from one moment: an entry never carries a date older than its content."""
        with self._database.reading() as session:
            if not self._database.is_sqlite:  # there every read transaction is a snapshot
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    # ------------------------------------------------------------------------- all of them

    def list_feeds(self, session: Session) -> list[Feed]:
        """Every feed there is, with its title and address."""
        return list_feeds(session, self._public_url)

    def _view(self, session: Session, selector: FeedSelector, name: str) -> FeedView:
        live = self._live or catalogue.publication(session).armed_for == self._public_url
        return read_view(session, selector, name, public_url=self._public_url, live=live)

    def _every(self) -> Iterator[tuple[FeedSelector, FeedView, Standing]]:
        """Every feed's view, from one moment."""
        with self._snapshot() as session:
            for feed in self.list_feeds(session):
                if (standing := read_standing(session, feed.selector)) is not None:
                    yield feed.selector, self._view(session, feed.selector, standing.title), standing

    def build(self, out: Path) -> BuildReport:
        """Write every feed below *out*, as it is served, with compressed siblings; see `export.Export`."""
        with self._database.reading() as session:
            stems = [stem_of(feed.selector) for feed in self.list_feeds(session)]
        export = Export(out, [f"{stem}.{extension}" for stem in stems for extension in FORMATS])
        for selector, view, standing in self._every():
            for extension in FORMATS:
                export.add(make_entry(view, f"{stem_of(selector)}.{extension}", extension, standing.changed))
        return export.finish()

    def validate(self) -> tuple[int, list[Finding]]:
        """Write every feed in every format and check it: how many there are, and what is wrong with them."""
        count = 0
        findings: list[Finding] = []
        for selector, view, _ in self._every():
            if left_out := len(view.items) - len(tidy(view).items):
                findings.append(Finding(stem_of(selector), f"{left_out} items cannot be written and are left out"))
            for extension, fmt in FORMATS.items():
                path = f"{stem_of(selector)}.{extension}"
                findings += [Finding(path, problem) for problem in fmt.check(fmt.write(view))]
                count += 1
        return count, findings
