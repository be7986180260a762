"""Which article is this? Pure: the names an article goes by, and the choice among the articles that go by them.

    native    the id inside its source: settles it, as far as the source goes
    guid      a feed's own id: everywhere if it is a URL or URN, else inside its source
    hostless  path and query of a guid that is a URL (of the address, where there is no guid), with the date of
              publication: a site that moved to another host
    url       the canonical URL, everywhere

Any name that is known makes an item the article behind it; names that lead to two articles leave it the older one,
and a warning. Two items of one document are never taken for one article when their source tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import urlsplit

from digest.text import strip_controls
from digest.types import CleanArticle, RawArticle

EVERYWHERE = 0
_MAX_VALUE = 500  # bytes; longer ones are hashed: an index entry of PostgreSQL holds no more than a third of a page
# RFC 4287 §4.2.6 wants an IRI; a URL, URN or tag: URI (RFC 4151) means the same article wherever it turns up.
_GLOBAL = re.compile(r"https?://[^\s<>\"/]+\S*|urn:[a-z0-9][a-z0-9-]{0,31}:\S+|tag:[^\s,]+,\d{4}\S*:\S+", re.I)
_HOME = re.compile(r"https?:(//[^/?#]*)?/?\??#?", re.I)


class Name(NamedTuple):
    """One alias of an article. ``scope``: a source's id, or 0: the whole installation."""

    scope: int
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Names:
    """Every name of one item; None where it has none of that kind."""

    native: Name | None = None
    guid: Name | None = None
    hostless: Name | None = None
    url: Name | None = None

    def all(self) -> list[Name]:
        return [n for n in (self.native, self.guid, self.hostless, self.url) if n is not None]

    def lasting(self) -> list[Name]:
        """Names worth adding to an article that is known already; the hostless one would grow with every new date."""
        return [n for n in (self.native, self.guid, self.url) if n is not None]

    def print(self) -> tuple[int, int]:
        """What tells two items of one document apart, small: hashes of the native id (0: none) and of the URL."""
        return hash(self.native) if self.native else 0, hash(self.url)


def is_global(guid: str) -> bool:
    return _GLOBAL.fullmatch(guid) is not None


def tidy_guid(raw: RawArticle) -> str:
    return strip_controls(raw.guid or "").strip()


def names_of(raw: RawArticle, clean: CleanArticle, source: int) -> Names:
    """The names of an item. A guid or URL that is only a home page names no article."""
    native = strip_controls(raw.native_id or "").strip()
    guid = tidy_guid(raw)
    everywhere = is_global(guid)
    if everywhere and _is_home(guid):
        guid = ""
    return Names(
        native=_name(source, "native", native),
        guid=_name(EVERYWHERE if everywhere else source, "guid", guid),
        hostless=_name(source, "hostless", _hostless(guid or clean.canonical_url, raw)),
        url=None if _is_home(clean.canonical_url) else _name(EVERYWHERE, "url", clean.canonical_url),
    )


def _name(scope: int, kind: str, value: str) -> Name | None:
    if not value:
        return None
    if len(encoded := value.encode("utf-8", "replace")) > _MAX_VALUE:
        value = "sha256:" + sha256(encoded).hexdigest()
    return Name(scope, kind, value)


def _hostless(guid: str, raw: RawArticle) -> str:
    """Path and query alone would be too weak: a planet's feed holds many a "/?p=12"; with the date they are enough."""
    if raw.published_at is None or not guid.lower().startswith(("http://", "https://")):
        return ""
    parts = _split(guid)
    if parts is None:
        return ""
    return f"{parts[0] or '/'}{'?' if parts[1] else ''}{parts[1]} {raw.published_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _is_home(url: str) -> bool:
    return _HOME.fullmatch(url) is not None


def _split(url: str) -> tuple[str, str, str] | None:
    try:
        parts = urlsplit(url)
    except ValueError:  # "http://[": hostile
        return None
    return parts.path, parts.query, parts.fragment


# ----------------------------------------------------------------------------- choosing

#: Article id → `Names.print` of the item of this document that was taken for it.
Seen = dict[int, tuple[int, int]]


@dataclass(slots=True)
class Match:
    """``article``: its id, None if new. ``repeated``: this document gave it before. ``names``: what it may go by."""

    article: int | None
    names: Names
    repeated: bool = False
    conflict: tuple[int, ...] = ()


@dataclass(slots=True)
class Chooser:
    """Matches the items of one chunk, in order. ``owners``: who goes by which name; ``seen``: of the whole document."""

    owners: dict[Name, int]
    seen: MutableMapping[int, tuple[int, int]]
    shared: frozenset[Name]

    def match(self, names: Names) -> Match:
        names = without(names, self.shared)
        native = self.owners.get(names.native) if names.native else None
        weak = {self.owners[n] for n in names.all() if n in self.owners} - {native}
        if native is not None:
            return Match(native, names, native in self.seen, tuple(sorted(weak)))
        for article in sorted(weak):  # the older one first
            if article not in self.seen:
                return Match(article, names, conflict=tuple(sorted(weak - {article})))
            if not self._told_apart(article, names):
                return Match(article, names, repeated=True)
        taken = frozenset(n for n in names.all() if n in self.owners)
        return Match(None, without(names, taken))

    def _told_apart(self, article: int, names: Names) -> bool:
        native, url = self.seen[article]
        mine, my_url = names.print()
        return mine != native if mine and native else my_url != url

    def take(self, article: int, names: Names) -> None:
        """The item with these names is this article: later items of the document meet it."""
        self.seen.setdefault(article, names.print())
        for name in names.all():
            self.owners.setdefault(name, article)


def without(names: Names, dropped: frozenset[Name]) -> Names:
    if not dropped.intersection(names.all()):
        return names
    return Names(*(None if n in dropped else n for n in (names.native, names.guid, names.hostless, names.url)))


def shared_names(items: Sequence[Names]) -> frozenset[Name]:
    """Names that several items of one document go by although their source tells them apart: those name nothing.

    A guid on items with different URLs is a feed's mistake; a URL on items with different native ids is a site's.
    """
    shared: set[Name] = set()
    shared |= _ambiguous((n.guid, n.native or n.url) for n in items)
    shared |= _ambiguous((n.hostless, n.native or n.guid) for n in items)
    shared |= _ambiguous((n.url, n.native) for n in items if n.native)
    return frozenset(shared)


def _ambiguous(pairs: Iterable[tuple[Name | None, Name | None]]) -> set[Name]:
    first: dict[Name, Name | None] = {}
    return {n for n, told in pairs if n is not None and first.setdefault(n, told) != told}
