"""RSS 0.9 to 2.0, RDF and Atom, read by feedparser: tolerant of all that is broken in the wild.

Its sanitiser and its resolver are off: `digest.text` does both, once, for every kind of source.
"""

from __future__ import annotations

import collections
import html
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import feedparser

from digest.errors import SourceError
from digest.fetch import Fetcher, shown
from digest.sources import reading
from digest.sources.bombs import refuse_entities, refuse_piles
from digest.sources.mending import mended
from digest.text import nearest, paragraphs
from digest.types import Enclosure, Fetched, Image, RawArticle, Skipped

_ACCEPT = "application/atom+xml, application/rss+xml, application/rdf+xml;q=0.9, application/xml;q=0.8, */*;q=0.5"
_HARMLESS = (feedparser.CharacterEncodingOverride, feedparser.NonXMLContentType)
_PICTURE = re.compile(r"\.(?:jpe?g|png|webp|gif|avif)(?:\?|$)", re.IGNORECASE)


class Feed:
    kind = "feed"

    def __init__(self, location: str, options: Mapping[str, Any], fetcher: Fetcher) -> None:
        self.location, self.fetcher = location, fetcher
        self.labels, self.zone = reading.Labels(options), reading.zone_of(options)

    def fetch(self, state: Mapping[str, Any]) -> Fetched:
        opened = reading.open_location(self.location, self.fetcher, state, accept=_ACCEPT)
        if opened.stream is None:
            return Fetched(iter(()), state=opened.state, not_modified=True)
        name = shown(opened.url or self.location)
        parsed = _parse(opened, name)
        if not parsed.get("version") and not parsed.entries:
            raise SourceError("not_a_feed", f"{name} is no feed{_guess(opened)}; give the address of the feed itself")
        fault, broken = parsed.get("bozo_exception"), _is_broken(parsed)
        if broken and not parsed.entries:
            raise SourceError("unreadable", f"{name} cannot be read: {reading.first_line(fault)}")
        fetched = Fetched(
            self._items(parsed, opened.url), state=opened.state, title=_text(parsed.feed, "title") or None,
            language=_text(parsed.feed, "language") or None,
        )  # fmt: skip
        if broken:
            fetched.warnings.append(
                f"the feed is not well-formed ({reading.first_line(fault)}); what could be read was"
            )
        return fetched

    def _items(self, parsed: Any, url: str | None) -> Iterator[RawArticle | Skipped]:
        seen = collections.Counter(_text(entry, "id") for entry in parsed.entries)
        base = _text(parsed.feed, "link") or url
        base = base if not url or (base and reading.is_remote(base)) else url
        plain_titles = str(parsed.get("version")).startswith("atom")
        for entry in parsed.entries:
            try:
                yield self._item(entry, base, seen, plain_titles)
            except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as e:
                yield Skipped("unreadable", _text(entry, "title")[:80], reading.first_line(e))

    def _item(self, entry: Any, base: str | None, seen: Mapping[str, int], plain_titles: bool) -> RawArticle:
        guid, link = _text(entry, "id"), _text(entry, "link")
        updated = reading.read_date(_text(entry, "updated"), self.zone)
        published = reading.read_date(_text(entry, "published") or _text(entry, "created"), self.zone)
        body, language, inner = _body(entry)
        title_type = (dict.get(entry, "title_detail") or {}).get("type")
        return RawArticle(
            guid=reading.short_id(guid) if guid and seen[guid] == 1 else None,
            url=link or None,
            title=_text(entry, "title"),
            title_is_html=not (plain_titles and title_type == "text/plain"),
            body_html=body,
            excerpt_html=_summary(entry, body),
            published_at=published or updated,
            updated_at=updated,
            authors=_authors(entry),
            topics=self.labels.refs(_labels(entry)),
            image=_image(entry),
            enclosures=_enclosures(entry),
            language=language,
            base_url=inner if reading.is_remote(inner) else _absolute(link) or base,
        )


def _parse(opened: reading.Opened, name: str) -> Any:
    """Parse as it is; what cannot be, or is not well-formed, once more with its bytes mended."""
    try:
        data = opened.read()
    except (OSError, EOFError, zlib.error) as e:
        raise SourceError("unreadable", f"{name} cannot be read: {reading.first_line(e)}") from e
    opened.stream = io.BytesIO(data[:2_000])
    refuse_entities(data, name)
    refuse_piles(data, name)
    parsed = _parsed(data, opened)
    if parsed is None or _is_broken(parsed):
        again = _parsed(mended(data), opened)
        if again is not None and (parsed is None or len(again.entries) >= len(parsed.entries)):
            parsed = again
    if parsed is None:
        raise SourceError("unreadable", f"{name} is no feed that can be read; look at it in a browser")
    return parsed


def _parsed(data: bytes, opened: reading.Opened) -> Any:
    """None if feedparser fails. It is never handed a name: it would open it itself."""
    headers = {"content-type": f"{opened.content_type or 'application/xml'}; charset={opened.charset}"}
    try:
        return feedparser.parse(
            io.BytesIO(data), response_headers=headers if opened.charset else {}, sanitize_html=False,
            resolve_relative_uris=False,
        )  # fmt: skip
    except Exception:  # it meets feeds that its authors have not
        return None


def _is_broken(parsed: Any) -> bool:
    fault = parsed.get("bozo_exception")
    return fault is not None and not isinstance(fault, _HARMLESS)


def _text(thing: Any, name: str) -> str:
    """What really stands there: feedparser's dictionaries answer for keys they do not have."""
    value = dict.get(thing, name)
    return value.strip() if isinstance(value, str) else ""


def _body(entry: Any) -> tuple[str, str | None, str]:
    """The fullest body as HTML, its language, and what its links are relative to ("" if nothing is said)."""
    contents = [c for c in dict.get(entry, "content") or () if isinstance(c.get("value"), str)]
    contents = [c for c in contents if "html" in c.get("type", "html") or c.get("type") == "text/plain"] or contents
    if not contents and (summary := dict.get(entry, "summary_detail")):
        contents = [summary]
    if not contents:
        return _markup({"value": _text(entry, "summary")}), None, ""
    chosen = max(contents, key=lambda c: len(c["value"]))
    return _markup(chosen), chosen.get("language") or None, chosen.get("base") or ""


def _markup(content: Mapping[str, Any]) -> str:
    value = str(content.get("value") or "")
    return paragraphs(html.escape(value, quote=False)) if content.get("type") == "text/plain" else value


def _summary(entry: Any, body: str) -> str:
    """The summary that stands beside a body."""
    detail = dict.get(entry, "summary_detail") or {"value": _text(entry, "summary")}
    summary = _markup(detail)
    return "" if not dict.get(entry, "content") or summary == body else summary


def _authors(entry: Any) -> tuple[str, ...]:
    """Names in document order: dc:creator comes as names, RSS's author as a mailbox that feedparser may cut in two."""
    authors = [a.get("name") for a in dict.get(entry, "authors") or () if isinstance(a, dict)]
    return reading.people(authors) or reading.people([_text(entry, "author")])


def _labels(entry: Any) -> Iterator[tuple[str, str]]:
    """(name, slug) of each category. In Atom the term is the key and the label is for people (RFC 4287 §4.2.2)."""
    for tag in dict.get(entry, "tags") or ():
        term, label, scheme = ((tag.get(name) or "").strip() for name in ("term", "label", "scheme"))
        if scheme.endswith("#kind") or reading.is_remote(term):  # Blogger's own bookkeeping
            continue
        if term or label:
            yield label or term, term


def _image(entry: Any) -> Image | None:
    """Of the pictures that the entry itself names the one nearest to what mails and pages want."""
    media = [m for m in dict.get(entry, "media_content") or () if _is_picture(m)]
    found = media or list(dict.get(entry, "media_thumbnail") or ())
    credit = (dict.get(entry, "media_credit") or [{}])[0].get("content") or ""
    sizes = [
        Image(m["url"], _number(m.get("width")) or None, _number(m.get("height")) or None, "", credit)
        for m in found
        if m.get("url")
    ]
    if best := nearest(sizes):
        return best
    for link in dict.get(entry, "links") or ():
        if link.get("rel") == "enclosure" and link.get("href") and _is_picture(link):
            return Image(link["href"])
    return None


def _enclosures(entry: Any) -> tuple[Enclosure, ...]:
    """RSS's enclosure and Atom's link of that name; feedparser gives both as links."""
    links = (link for link in dict.get(entry, "links") or () if link.get("rel") == "enclosure" and link.get("href"))
    return tuple(
        Enclosure(link["href"], link.get("type") or "", reading.length(link.get("length")))
        for link in links
        if not _is_picture(link)
    )


def _is_picture(media: Mapping[str, Any]) -> bool:
    said = media.get("medium") or media.get("type") or ""
    address = media.get("url") or media.get("href") or ""
    return said.startswith("image") if said else bool(_PICTURE.search(address))


def _number(value: Any) -> int:
    text = str(value or "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0


def _absolute(link: str) -> str | None:
    return link if reading.is_remote(link) else None


def _guess(opened: reading.Opened) -> str:
    """What it looks like instead, if that can be told."""
    start = opened.read().lstrip().lower()
    if b"<html" in start or start.startswith(b"<!doctype html"):
        return " but a web page"
    return " but empty" if not start else ""
