"""The static export: feeds as files for a web server or a CDN. Owns what it wrote, and nothing else in the folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from digest.errors import UsageError
from digest.publishing.entries import Entry

MANIFEST = ".digest-feeds.json"
_SUFFIXES = ("", ".gz", ".br")


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
    folder says which are ours. It names what is *planned* before the first is written, so that a build that is cut
    short still knows its own.
    """

    def __init__(self, out: Path, planned: Iterable[str]) -> None:
        self._out = out
        self._written: list[str] = []
        self._unchanged: list[str] = []
        self._findings: list[Finding] = []
        names = {path.lstrip("/") + suffix for path in planned for suffix in _SUFFIXES}
        with _told(out):
            _make_folder(out)
            self._ours = _read_manifest(out / MANIFEST) | {name for name in names if _may_be_a_file(name)}
            self._write_manifest(self._ours)

    def add(self, entry: Entry) -> None:
        relative = entry.path.lstrip("/")
        if not _may_be_a_file(relative):
            self._findings.append(Finding(entry.path, "it cannot be a file name; the feed is served, but not exported"))
            return
        for suffix, coded in zip(_SUFFIXES, (entry.plain, entry.gzip, entry.br), strict=True):
            with _told(self._out):
                changed = _write_if_changed(self._out / (relative + suffix), coded.body, entry.modified)
            (self._written if changed else self._unchanged).append(relative + suffix)

    def finish(self) -> BuildReport:
        """Delete what is no longer a feed, and say what was done."""
        kept = {*self._written, *self._unchanged}
        gone = sorted(name for name in self._ours - kept if (self._out / name).exists())
        with _told(self._out):
            for name in gone:
                (self._out / name).unlink()
            self._write_manifest(kept)
        return BuildReport(tuple(self._written), tuple(self._unchanged), tuple(gone), tuple(self._findings))

    def _write_manifest(self, names: Iterable[str]) -> None:
        _write_if_changed(self._out / MANIFEST, json.dumps(sorted(names), indent=0).encode() + b"\n", None)


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


def _read_manifest(path: Path) -> set[str]:
    """What earlier builds wrote; names that lead out of the folder are nobody's."""
    try:
        names = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return set()
    listed = names if isinstance(names, list) else []
    return {n for n in listed if isinstance(n, str) and n.startswith("feeds/") and _may_be_a_file(n)}


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
