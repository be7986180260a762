"""What lies at an address or a path? The kinds of source that read it, the best one first.

A path is told by its content. A page leads to the REST API behind it and to the feeds that it links.
"""

from __future__ import annotations

import html
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

from digest.errors import SourceError
from digest.fetch import Fetcher, Response, shown
from digest.sources import reading, wpapi
from digest.sources.markdown import SUFFIXES
from digest.sources.mending import read_on
from digest.sources.wppost import looks_like_post
from digest.text import decode

_HEAD = 500_000  # characters of a page in which links are looked for
_LINK = re.compile(r"<link\b[^>]{1,2000}>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"\b(rel|type|href|title)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']+))", re.IGNORECASE)
_FEEDS = {
    "application/rss+xml": "feed", "application/atom+xml": "feed", "application/rdf+xml": "feed",
    "application/feed+json": "jsonfeed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """A source that is there: ``what`` says it in words."""

    kind: str
    location: str
    what: str


def detect(location: str, fetcher: Fetcher) -> list[Found]:
    """Return what may be read at *location*; nothing that can be is a SourceError that says what was seen."""
    found = list(_remote(location, fetcher) if reading.is_remote(location) else _local(location))
    if not found:
        raise SourceError(
            "nothing_found",
            f"{shown(location)} is neither a feed, an export, a folder of Markdown nor a page that leads to one; "
            "give the address of the feed itself",
        )
    return list({(f.kind, f.location): f for f in reversed(found)}.values())[::-1]


def _local(location: str) -> Iterator[Found]:
    path = reading.local_path(location)
    if (parts := reading.matching(path)) is not None:
        if any(p.is_file() and _kind_of(_beginning(p)) == "wxr" for p in parts[:20]):
            yield Found("wxr", location, f"WordPress exports ({len(parts):,} files)")
        return
    if path.is_dir():
        names = [p.name.lower() for p in path.rglob("*") if p.is_file()]
        if any(name.endswith(tuple(SUFFIXES)) for name in names):
            yield Found("markdown", location, "a folder of Markdown")
        elif any(name.endswith((".xml", ".xml.gz", ".wxr", ".wxr.gz")) for name in names):
            yield Found("wxr", location, "a folder of WordPress exports")
        return
    if (kind := _kind_of(_beginning(path))) is not None:
        yield Found(kind, location, _WORDS[kind])
    elif path.suffix.lower() in SUFFIXES:
        yield Found("markdown", location, "a file of Markdown")


def _beginning(path: Path) -> bytes:
    with reading.open_file(path) as stream:
        return b"".join(itertools.islice(iter(partial(read_on, stream), b""), 32))


_WORDS = {
    "wxr": "a WordPress export", "feed": "a feed", "jsonfeed": "a JSON Feed",
    "wordpress": "posts of WordPress's REST API",
}  # fmt: skip


def _kind_of(data: bytes) -> str | None:
    """The kind of a document, by what stands in it."""
    text = decode(data[:_HEAD]).lstrip("\ufeff \t\r\n")
    if text.startswith(("{", "[")):
        return _json_kind(text, data)
    head = text[:20_000]
    if "http://wordpress.org/export/" in head or "<wp:wxr_version" in head:
        return "wxr"
    return "feed" if re.search(r"<(?:rss|feed|rdf:RDF|RDF)\b", head) and not _is_page(head) else None


def _json_kind(text: str, data: bytes) -> str | None:
    if text.startswith("{") and "jsonfeed.org/version" in text[:5_000]:
        return "jsonfeed"
    try:
        said = json.loads(decode(data))
    except (ValueError, RecursionError):
        return None
    if isinstance(said, dict) and isinstance(said.get("items"), list):
        return "jsonfeed"
    listed = said if isinstance(said, list) else [said]
    return "wordpress" if any(map(looks_like_post, listed)) else None


def _is_page(text: str) -> bool:
    return re.match(r"\s*(?:<!doctype html|<html)", text, re.IGNORECASE) is not None


# ----------------------------------------------------------------------------- addresses


def _remote(location: str, fetcher: Fetcher) -> Iterator[Found]:
    page = fetcher.get(location)
    kind = _kind_of(page.content)
    if kind is not None and not (kind == "wordpress" and "/wp/v2/" in location + page.url):
        yield Found(kind, location, _WORDS[kind])
        return
    if "/wp-json" in location or "rest_route=" in location or _speaks_wordpress(page):
        try:
            api = wpapi.find(location, fetcher, wpapi.announced_root(page))
            yield Found("wordpress", location, f"a WordPress site (REST API at {shown(api.root)})")
        except SourceError as e:
            if e.code in ("too_many_requests", "unavailable"):
                raise
    yield from _linked(page)


def _speaks_wordpress(page: Response) -> bool:
    return wpapi.announced_root(page) is not None or b"/wp-content/" in page.content[:_HEAD]


def _linked(page: Response) -> Iterator[Found]:
    """The feeds that a page links (RFC 4287 calls it alternate), those of comments left out."""
    for tag in _LINK.findall(decode(page.content[:_HEAD])):
        said = {name.lower(): html.unescape(a or b or c) for name, a, b, c in _ATTRIBUTE.findall(tag)}
        kind = _FEEDS.get(said.get("type", "").lower().strip())
        if kind is None or "alternate" not in said.get("rel", "").lower().split() or not said.get("href"):
            continue
        if "comment" in (said.get("title", "") + said["href"]).lower():
            continue
        url = urljoin(page.url, said["href"].strip())
        if reading.is_remote(url):
            yield Found(kind, url, f"{_WORDS[kind]} that the page links{_called(said.get('title', ''))}")


def _called(title: str) -> str:
    words = " ".join(title.split())[:80]
    return f" as “{words}”" if words else ""
