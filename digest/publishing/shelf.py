"""The shelf: every feed of one database, ready to be written out, brought up to date by whoever asks first.

Owns the cache, its threads and its bounds. Not here: HTTP (web.feeds), what a feed holds (readings), files (export).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy.orm import Session

from digest.db import Database
from digest.errors import DigestError
from digest.feeds import FORMATS, tidy
from digest.publishing.entries import Entry, make_entry, packed
from digest.publishing.export import BuildReport, Export, Finding
from digest.publishing.names import OPML_PATH, Feed, selector_of, stem_of
from digest.publishing.outlines import read_outlines
from digest.publishing.planned import Planned
from digest.publishing.readings import (
    NEVER,
    WHOLE,
    Marks,
    Outlet,
    Standing,
    list_feeds,
    months_of,
    read_marks,
    read_outlet,
    read_standing,
    read_versions,
    read_view,
    trees_of,
    whereabouts,
)
from digest.types import FeedSelector, FeedView

#: How long what was read of the database holds good; after that it is read again beside the answers, which wait for it
#: only when it is older than `STALE_S`.
FRESH_S, STALE_S = 1.0, 1.5
#: Writers put their commits in order; a version may still become visible this much later than its date says.
_LATE = timedelta(seconds=60)
_FAILURES_MAX = 1_000
_AHEAD = 12  # documents of an export that wait to be written

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slot:
    """What lies on the shelf under a path. ``entry`` None: there is no such feed.

    Good while ``marks`` are the last, or those that it ``needs`` have not moved. ``view``: a hash of what the entry was
    made of. ``gone``: there was such a feed; ``moved``: the path of the one that has taken its place.
    """

    entry: Entry | None
    marks: Marks
    needs: tuple[tuple[int, int], ...]
    key: tuple[object, ...] = ()
    view: int = 0
    kind: str = ""
    archive: bool = False
    gone: bool = False
    moved: str = ""

    @property
    def size(self) -> int:
        return self.entry.size if self.entry else 500


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
        hubs: tuple[str, ...] = (),
        limit: int = 128 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._public_url, self._live, self._hubs = database, public_url.rstrip("/"), live, hubs
        self._limit, self._clock = limit, clock
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()  # slots, flights, failures
        self._flights: dict[str, Future[Slot]] = {}
        self._failures: OrderedDict[str, tuple[float, BaseException]] = OrderedDict()
        self._reading_marks = threading.Lock()
        self._marks: Marks | None = None
        self._marks_before: Marks | None = None
        self._versions: dict[int, int] = {}
        self._versions_to: datetime | None = None
        self._renew_at = self._good_until = 0.0
        self._trouble: tuple[float, Exception] | None = None
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="feeds")
        #: When the scheduler will next change something: see `planned`.
        self.planned = Planned(None, None)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------------- kept warm

    def ready(self, path: str) -> Slot | None:
        """What lies under *path* if it is up to date; no SQL, no lock, no rendering."""
        slot = self._slots.get(path)
        now = self._clock()
        if slot is None or now >= self._good_until:
            return None
        if now >= self._renew_at:
            self._renew_at = self._good_until  # one asks for all
            self._threads.submit(self._renew)
        return slot if slot.marks is self._marks else self._carried(path, slot)

    def _carried(self, path: str, slot: Slot) -> Slot | None:
        """The slot under new marks, if nothing that it hangs on has moved."""
        marks = self._marks
        if marks is None or marks.brand != slot.marks.brand:
            return None
        if slot.kind in ("digest", "") and marks.editions != slot.marks.editions:
            return None
        versions = self._versions
        if any(versions.get(row, 0) != version for row, version in slot.needs):
            return None
        carried = replace(slot, marks=marks)
        with self._lock:
            if self._slots.get(path) is slot:
                self._slots[path] = carried
        return carried

    def stale(self, path: str) -> Slot | None:
        """What lies under *path*, however old: better than nothing when the database does not answer."""
        return self._slots.get(path)

    def is_old(self, slot: Slot) -> bool:
        """Whether the database has moved on twice since *slot* was last known to be right."""
        return slot.marks is not self._marks and slot.marks is not self._marks_before

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
        if path == OPML_PATH:
            return self._made_opml(marks)
        asked = selector_of(path)
        if asked is None:
            return Slot(None, marks, (), kind="none")
        selector, extension = asked
        with self._snapshot() as session:
            standing = read_standing(session, selector)
            if standing is None:
                return self._absent(session, selector, extension, marks)
            stands = Slot(None, marks, standing.needs, (*standing.key, standing.title), kind=selector.kind)
            if (canonical := f"{stem_of(selector)}.{extension}") != path:
                return replace(stands, moved=canonical)
            if before is not None and before.entry is not None and _same(before, stands):
                return replace(before, marks=marks)
            view = read_view(session, selector, standing, self._outlet(session))
        if view is None:
            return stands
        stands = replace(stands, view=hash(view), archive=view.archive)
        if before is not None and before.entry is not None and before.view == stands.view:
            return replace(stands, entry=before.entry)  # its own articles have not changed
        return replace(stands, entry=make_entry(view, path, extension, standing.changed))

    def _absent(self, session: Session, selector: FeedSelector, extension: str, marks: Marks) -> Slot:
        went = whereabouts(session, selector)
        moved = f"{stem_of(went.now)}.{extension}" if went and went.now else ""
        return Slot(None, marks, ((WHOLE, marks.version),), gone=went is not None, moved=moved)

    def _made_opml(self, marks: Marks) -> Slot:
        with self._snapshot() as session:
            body, changed = read_outlines(session, self._public_url)
        entry = packed(body, OPML_PATH, "text/x-opml; charset=utf-8", changed or NEVER)
        return Slot(entry, marks, ((WHOLE, marks.version),))

    def _put(self, path: str, slot: Slot) -> None:
        """Keep *slot*, and let go what was brought up to date the longest ago until all fits."""
        old = self._slots.pop(path, None)
        self._size += slot.size - (old.size if old else 0)
        self._slots[path] = slot
        while self._size > self._limit and len(self._slots) > 1:
            self._size -= self._slots.popitem(last=False)[1].size

    def _renew(self) -> None:
        """Read the marks beside the answers; trouble is for the next who has to wait."""
        try:
            self._current_marks(within=FRESH_S)
        except Exception as problem:
            log.warning("feeds cannot see whether anything changed: %s", problem)

    def _current_marks(self, within: float = STALE_S) -> Marks:
        """Read the marks unless they are younger than *within*; while one thread reads, the others wait for it."""
        with self._reading_marks:
            now = self._clock()
            if self._marks is not None and now < self._good_until - STALE_S + within:
                return self._marks
            if self._trouble is not None and now < self._trouble[0]:
                raise self._trouble[1].with_traceback(None)
            try:
                marks = self._read_marks()
            except Exception as problem:
                self._trouble = (self._clock() + FRESH_S, problem)
                raise
            if self._marks is None or marks != self._marks:
                self._marks_before, self._marks = self._marks, marks
            self._trouble = None
            self._renew_at, self._good_until = now + FRESH_S, now + STALE_S
            return self._marks

    def _read_marks(self) -> Marks:
        with self._snapshot() as session:
            marks, self.planned = read_marks(session)
            if self._marks is None or marks.version != self._marks.version:
                since = self._versions_to - _LATE if self._versions_to else None
                moved, self._versions_to = read_versions(session, since)
                self._versions = {**self._versions, **moved}
        return marks

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

    def view(self, path: str) -> FeedView | None:
        """What the feed under *path* holds now, for a page that shows it."""
        asked = selector_of(path)
        if asked is None:
            return None
        with self._snapshot() as session:
            standing = read_standing(session, asked[0])
            if standing is None:
                return None
            return read_view(session, asked[0], standing, self._outlet(session))

    def _outlet(self, session: Session) -> Outlet:
        return read_outlet(session, self._public_url, live=self._live, hubs=self._hubs)

    def _every(self) -> Iterator[tuple[str, FeedView, Standing]]:
        """Every feed's view and those of its older parts, each with its path, from one moment."""
        with self._snapshot() as session:
            outlet = self._outlet(session)
            for feed in self.list_feeds(session):
                if (standing := read_standing(session, feed.selector)) is None:
                    continue
                for tree in trees_of(feed.selector):
                    for selector, view in _parts(session, tree, standing, outlet):
                        yield stem_of(selector), view, standing

    def build(self, out: Path) -> BuildReport:
        """Write every feed below *out*, as it is served, with compressed siblings; see `export.Export`."""
        with Export(out) as export:
            for entry in _ahead(self._threads, self._documents()):
                export.add(entry)
            with self._snapshot() as session:
                body, changed = read_outlines(session, self._public_url)
            export.add(packed(body, OPML_PATH, "text/x-opml; charset=utf-8", changed or NEVER))
            return export.finish()

    def _documents(self) -> Iterator[Callable[[], Entry]]:
        for stem, view, standing in self._every():
            for extension in FORMATS:
                yield partial(make_entry, view, f"{stem}.{extension}", extension, standing.changed)

    def validate(self) -> tuple[int, list[Finding]]:
        """Write every feed in every format and check it: how many there are, and what is wrong with them."""
        count = 0
        findings: list[Finding] = []
        for stem, view, _ in self._every():
            if left_out := len(view.items) - len(tidy(view).items):
                findings.append(Finding(stem, f"{left_out} items cannot be written and are left out"))
            for extension, fmt in FORMATS.items():
                path = f"{stem}.{extension}"
                findings += [Finding(path, problem) for problem in fmt.check(fmt.write(view))]
                count += 1
        return count, findings


def _same(before: Slot, now: Slot) -> bool:
    """Nothing that the feed shows can have moved."""
    if before.marks.brand != now.marks.brand:
        return False
    return (before.needs, before.key, before.kind) == (now.needs, now.key, now.kind)


def _parts(
    session: Session, tree: FeedSelector, standing: Standing, outlet: Outlet
) -> Iterator[tuple[FeedSelector, FeedView]]:
    """The feed, and where it does not show all that it has, its pages and months."""
    view = read_view(session, tree, standing, outlet)
    if view is None:
        return
    yield tree, view
    if not view.older_url:
        return
    page = replace(tree, page=2)
    while (view := read_view(session, page, standing, outlet)) is not None:
        yield page, view
        page = replace(page, page=page.page + 1)
    for month in months_of(session, tree, outlet):
        if (view := read_view(session, month, standing, outlet)) is not None:
            yield month, view


def _ahead(threads: ThreadPoolExecutor, jobs: Iterable[Callable[[], Entry]]) -> Iterator[Entry]:
    """What the jobs give, in order; a few are done beside, while the ones before are taken."""
    waiting: deque[Future[Entry]] = deque()
    for job in jobs:
        waiting.append(threads.submit(job))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    yield from (done.result() for done in waiting)
