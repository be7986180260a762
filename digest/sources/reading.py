"""What readers of every kind share: opening a location, and turning names, dates and labels of the wild into ours."""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_tz
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from digest import __version__
from digest.errors import SourceError
from digest.fetch import Fetcher, shown
from digest.sources.bombs import MAX_LABELS
from digest.text import clean_title, slugify, strip_controls
from digest.types import TopicKind, TopicRef

# ----------------------------------------------------------------------------- opening

MAX_DOCUMENT = 10_000_000  # of what is read in one piece; over http fetch.max_bytes comes first
MOVES_BELIEVED = 3  # a permanent redirect may be a mistake of an hour: followed always, remembered at the third


@dataclass(slots=True)
class Opened:
    """A document, ready to be read. ``stream`` None: nothing new. ``url``: where it came from, if over http."""

    stream: IO[bytes] | None
    state: dict[str, Any]
    url: str | None = None
    charset: str | None = None
    content_type: str = ""

    def read(self) -> bytes:
        """The whole document, if it is none that is packed to be endless."""
        assert self.stream is not None
        with self.stream as stream:
            data = stream.read(MAX_DOCUMENT + 1)
        if len(data) > MAX_DOCUMENT:
            raise SourceError(
                "too_large", f"it is larger than {MAX_DOCUMENT:,} bytes; give a smaller file, or an export"
            )
        return data


def open_location(location: str, fetcher: Fetcher, state: Mapping[str, Any], *, accept: str = "*/*") -> Opened:
    """Open an http(s) address, a file: URL or a path; a .gz is unpacked on the way.

    *state* is what the last whole read remembered. It counts only for the very same location, read by this release.
    """
    known = remembered(state, location)
    if is_remote(location):
        return _open_remote(location, fetcher, known, accept)
    return _open_local(location, known)


def remembered(state: Mapping[str, Any], location: str) -> dict[str, Any]:
    """What the last whole read of this very location remembered; nothing if another release wrote it."""
    same = state.get("location") == location and state.get("release") == __version__
    return dict(state) if same else {}


def fresh_state(location: str) -> dict[str, Any]:
    """The beginning of what is remembered."""
    return {"location": location, "release": __version__}


def is_remote(location: str) -> bool:
    return location.lower().startswith(("http://", "https://"))


def _open_remote(location: str, fetcher: Fetcher, known: dict[str, Any], accept: str) -> Opened:
    url = known.get("moved_to") if known.get("moves", 0) >= MOVES_BELIEVED else None
    answer = fetcher.get(
        url or location, etag=known.get("etag"), last_modified=known.get("last_modified"), accept=accept
    )
    if answer.not_modified:
        return Opened(None, known)
    state = {**fresh_state(location), "digest": hashlib.blake2b(answer.content, digest_size=16).hexdigest()}
    for name in ("etag", "last_modified"):
        if value := answer.headers.get(name.replace("_", "-")):
            state[name] = value
    if url:
        state |= {"moved_to": answer.moved_to or url, "moves": MOVES_BELIEVED}
    elif answer.moved_to:
        again = known.get("moved_to") == answer.moved_to
        state |= {"moved_to": answer.moved_to, "moves": known.get("moves", 0) * again + 1}
    if state["digest"] == known.get("digest"):  # many servers know no conditions
        return Opened(None, state)
    kind, _, rest = answer.headers.get("content-type", "").partition(";")
    charset = re.search(r"charset=[\"']?([\w.:-]{2,40})", rest, re.IGNORECASE)
    return Opened(io.BytesIO(answer.content), state, answer.url, charset and charset[1], kind.strip().lower())


def _open_local(location: str, known: dict[str, Any]) -> Opened:
    path = local_path(location)
    try:
        stat = path.stat()
        if path.is_dir():
            raise SourceError("unreadable", f"{path} is a folder; name a file in it")
        seen = f"{stat.st_size} {stat.st_mtime_ns}"
        state = {**fresh_state(location), "file": seen}
        if known.get("file") == seen:
            return Opened(None, known)
    except OSError as e:
        raise _unreadable(path, e) from e
    return Opened(open_file(path), state)


def open_file(path: Path) -> IO[bytes]:
    """Open a file of this machine; a .gz is unpacked on the way."""
    try:
        if path.exists() and not path.is_file():
            raise SourceError("unreadable", f"{path} is no file; name one")  # to open a pipe is to wait for its writer
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        return cast("IO[bytes]", _Unpacked(path)) if packed else path.open("rb")
    except OSError as e:
        raise _unreadable(path, e) from e


class _Unpacked(gzip.GzipFile):
    """A packed file that ends with a SourceError where it becomes a hundred times as large: text does not."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._limit = max(50_000_000, 100 * path.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > self._limit:
            raise SourceError("too_large", f"{self.name} unpacks to more than 100 times its size; it is no export")
        return super().read(size)


def _unreadable(path: Path, e: OSError) -> SourceError:
    if isinstance(e, FileNotFoundError):
        return SourceError("not_found", f"there is no file {path}; correct the source's location")
    return SourceError("unreadable", f"{path} cannot be read: {e.strerror or e}")


def matching(path: Path) -> list[Path] | None:
    """What a pattern such as ``export/*.xml`` stands for; None for a path that is none, or that is there."""
    if not any(char in str(path) for char in "*?[") or path.exists():
        return None
    return [Path(found) for found in glob.iglob(str(path), recursive=True)]


def local_path(location: str) -> Path:
    """Return the path that a location means."""
    if location.lower().startswith("file:"):
        return Path(unquote(urlsplit(location).path))
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", location):
        raise SourceError("bad_address", f"{shown(location)} cannot be read; give a path or an http(s) address")
    return Path(location)


# ----------------------------------------------------------------------------- dates

_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=366)  # further ahead is a slip of the keyboard; nearer may be a schedule
# Names of zones that RFC 5322 does not know and email.utils reads as UTC. IST and CST are left out: they mean too much.
_ZONES = {
    name: timezone(timedelta(hours=hours))
    for name, hours in {
        "WEST": 1, "BST": 1, "CET": 1, "MET": 1, "CEST": 2, "MEST": 2, "EET": 2, "SAST": 2, "EEST": 3, "MSK": 3,
        "PKT": 5, "WIB": 7, "SGT": 8, "HKT": 8, "AWST": 8, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11, "NZST": 12,
        "NZDT": 13, "AKST": -9, "AKDT": -8, "HST": -10, "BRT": -3, "ART": -3,
    }.items()
}  # fmt: skip
_CLOCK = re.compile(r"\d:\d\d")
_NO_YEAR = re.compile(r"\s-\d{4}\s+\d")  # "30 Nov -0001 00:00:00": email.utils makes 2000 of it
_NO_OFFSET = re.compile(r"(?:[+-]\d{4}|\bUTC?|\bGMT|\bZ)\W*$", re.IGNORECASE)


def read_date(text: object, zone: tzinfo = UTC) -> datetime | None:
    """Return a date as feeds and exports write it, in UTC and whole seconds; None where it makes no sense.

    RFC 5322 with zone names of the wild, ISO 8601, seconds since 1970. Without an offset it is meant in *zone*.
    """
    text = " ".join(str(text or "")[:100].split())
    when = _iso(text) or _rfc5322(text)
    if when is None and re.fullmatch(r"\d{9,10}", text):
        when = datetime.fromtimestamp(int(text), UTC)
    if when is None:
        return None
    try:
        when = (when if when.tzinfo else when.replace(tzinfo=zone)).astimezone(UTC).replace(microsecond=0)
    except (OverflowError, ValueError):
        return None
    return when if _EARLIEST <= when <= datetime.now(UTC) + _AHEAD else None


_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")  # as WordPress writes it, three to an article


def _iso(text: str) -> datetime | None:
    if _STAMP.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return None
    if not re.match(r"\d{4}-\d\d-\d\d", text):  # "20250906" may be anything
        return None
    text = re.sub(r"^(\S{10}) (\d)", r"\1T\2", text).replace(" ", "")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _rfc5322(text: str) -> datetime | None:
    text = re.sub(r"^[^\W\d]+\.?,\s*(?=\d)", "", text)  # names of days come in every language, and say nothing new
    name = text.rpartition(" ")[2].strip("()").upper()
    found = parsedate_tz(text)
    if found is None or not _CLOCK.search(text) or _NO_YEAR.search(text) or found[0] < 1990:
        return None
    offset = found[9]
    try:
        when = datetime(*found[:6])  # noqa: DTZ001  # the zone follows
        if name in _ZONES:
            return when.replace(tzinfo=_ZONES[name])
        known = bool(offset) or _NO_OFFSET.search(text) is not None  # email.utils says 0 where nothing is said
        return when.replace(tzinfo=timezone(timedelta(seconds=offset or 0))) if known else when
    except ValueError:
        return None


def zone_of(options: Mapping[str, Any]) -> tzinfo:
    """The zone of dates without an offset: the source's option ``timezone``, else UTC."""
    name = options.get("timezone")
    if not name:
        return UTC
    try:
        return ZoneInfo(str(name))
    except (KeyError, ValueError, OSError) as e:
        raise SourceError("bad_option", f"there is no time zone {name!r}; write it as Europe/Berlin") from e


# ----------------------------------------------------------------------------- names and labels

_MAILBOX = re.compile(r"<?[^\s<>()]+@[^\s<>()]+>?")


def person(text: object) -> str | None:
    """Return a name for print, or None. An e-mail address in it is never ours to publish."""
    return _person(str(text or "")[:2_400])


@lru_cache(maxsize=4_096)
def _person(text: str) -> str | None:
    name = clean_title(text, limit=120)
    if "@" in name:
        bracketed = re.fullmatch(r"\S+@\S+ \((.+)\)", name)
        name = bracketed[1] if bracketed else _MAILBOX.sub("", name)
    name = name.strip(" ,;")
    return name if name and name.count("(") == name.count(")") and any(c.isalnum() for c in name) else None


def people(names: Iterable[object]) -> tuple[str, ...]:
    """Return the names that are names, each once, in their order."""
    found = {slugify(name): name for name in reversed([n for n in map(person, names) if n])}
    return tuple(reversed(found.values()))


@lru_cache(maxsize=4096)  # a site names the same few on every article
def topic(kind: TopicKind, name: object, slug: str = "", parent: str | None = None) -> TopicRef | None:
    """Return a reference to a topic, or None where nothing is named."""
    label = clean_title(str(name or ""), limit=200)
    key = slugify(slug or label)
    return TopicRef(kind, key, label or key, parent) if key else None


class Labels:
    """What a feed calls category: its formats do not tell categories from tags.

    Options of the source: ``categories_are`` "tag" (the default) or "category"; ``known_categories``: slugs that are
    categories in any case, as ``default_categories`` are; ``split_categories``: true if "China, India" means two.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._known = {slugify(str(slug)) for slug in _listed(options.get("known_categories"))}
        self._known |= {slugify(str(slug)) for slug in _listed(options.get("default_categories"))}
        self._otherwise = TopicKind(options.get("categories_are") or "tag")
        self._split = bool(options.get("split_categories"))

    def refs(self, labels: Iterable[tuple[str, str]]) -> tuple[TopicRef, ...]:
        """Topics for (name, slug) pairs, each once."""
        found: dict[tuple[TopicKind, str], TopicRef] = {}
        for name, slug in islice(labels, MAX_LABELS):
            for part in name.split(",")[:MAX_LABELS] if self._split else [name]:
                key = slugify(clean_title(part if self._split else slug or part))
                kind = TopicKind.CATEGORY if key in self._known else self._otherwise
                if ref := topic(kind, part, key):
                    found.setdefault((kind, ref.slug), ref)
        return tuple(found.values())


def _listed(value: Any) -> Sequence[Any]:
    if not value:
        return ()
    return [value] if isinstance(value, str) else list(value)


def short_id(text: object) -> str | None:
    """Return an id as it is, or a hash of one that is too long to be kept."""
    found = strip_controls(str(text or "")).strip()
    return found if len(found) <= 1_000 else "urn:sha256:" + hashlib.sha256(found.encode()).hexdigest()


def length(value: object) -> int:
    """Bytes of a file, as a source gives them; 0 for what is no such number."""
    text = str(value if value is not None else "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else 0


def first_line(error: object) -> str:
    """What an error says, short and on one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
