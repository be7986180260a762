"""The static export: feeds as files for a web server or a CDN. Owns what it wrote, and nothing else in the folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

from digest.errors import UsageError
from digest.publishing.entries import Entry
from digest.publishing.names import OPML_PATH

MANIFEST = ".digest-feeds.json"
_JOURNAL = ".digest-feeds.part"
_SUFFIXES = ("", ".gz", ".br")
_OURS = ("feeds/", OPML_PATH.lstrip("/"))


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a feed as it would be served."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Files by their path below the export folder, and feeds that could not be written, with the reason."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    findings: tuple[Finding, ...]


class Export:
    """A folder of static feeds: the URLs' paths, the served bytes, and a ``.gz`` and a ``.br`` beside each file.

    A file is replaced whole or not at all, and only when its bytes differ; its time stamp is the feed's
    Last-Modified. What is no longer a feed is deleted, but never a file that no export wrote: a manifest in the
    folder says which are ours. Beside it a journal names each file before it is written, so that a build that is cut
    short still knows its own.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._written: list[str] = []
        self._unchanged: list[str] = []
        self._findings: list[Finding] = []
        self._journal: TextIO | None = None
        with _told(out):
            _make_folder(out)
            self._ours = _read_names(out / MANIFEST) | _read_names(out / _JOURNAL)

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal is not None:
            self._journal.close()

    def add(self, entry: Entry) -> None:
        relative = entry.path.lstrip("/")
        if not _may_be_a_file(relative):
            self._findings.append(Finding(entry.path, "it cannot be a file name; the feed is served, but not exported"))
            return
        for suffix, coded in zip(_SUFFIXES, (entry.plain, entry.gzip, entry.br), strict=True):
            name = relative + suffix
            with _told(self._out):
                self._note(name)
                changed = _write_if_changed(self._out / name, coded.body, entry.modified)
            (self._written if changed else self._unchanged).append(name)

    def finish(self) -> BuildReport:
        """Delete what is no longer a feed, and say what was done."""
        kept = {*self._written, *self._unchanged}
        gone = sorted(name for name in self._ours - kept if (self._out / name).exists())
        with _told(self._out):
            for name in gone:
                (self._out / name).unlink()
            _write_if_changed(self._out / MANIFEST, json.dumps(sorted(kept), indent=0).encode() + b"\n", None)
            (self._out / _JOURNAL).unlink(missing_ok=True)
        return BuildReport(tuple(self._written), tuple(self._unchanged), tuple(gone), tuple(self._findings))

    def _note(self, name: str) -> None:
        if name not in self._ours:
            self._ours.add(name)
            if self._journal is None:
                self._journal = (self._out / _JOURNAL).open("a", encoding="utf-8", buffering=1)  # a line at a time
            self._journal.write(json.dumps(name) + "\n")


@contextmanager
def _told(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        problem = f"feeds cannot be written to {out} ({e.strerror}); choose a folder that you may write to"
        raise UsageError(problem) from e


def _may_be_a_file(relative: str) -> bool:
    parts = relative.split("/")
    try:
        fits = all(part not in ("", ".", "..") and len(part.encode()) <= 240 for part in parts)
    except UnicodeEncodeError:
        return False
    return fits and "\x00" not in relative


def _read_names(path: Path) -> set[str]:
    """What earlier builds wrote: a list, or a name a line. Names that lead out of the folder are nobody's."""
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return set()
    names: list[object] = []
    for document in [text] if text.startswith("[") else text.splitlines():
        with suppress(ValueError):
            found = json.loads(document)
            names += found if isinstance(found, list) else [found]
    return {n for n in names if isinstance(n, str) and n.startswith(_OURS) and _may_be_a_file(n)}


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # whatever the umask: a web server reads it


def _write_if_changed(path: Path, body: bytes, modified: datetime | None) -> bool:
    try:
        if path.read_bytes() == body:
            return False
    except FileNotFoundError:
        _make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".feed-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            os.fchmod(handle, 0o644)
        if modified is not None:
            os.utime(temporary, (modified.timestamp(), modified.timestamp()))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True
