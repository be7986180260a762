"""JSON Feed 1.0 and 1.1 (jsonfeed.org/version/1.1), read leniently."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin

from digest.errors import SourceError
from digest.fetch import Fetcher, shown
from digest.sources import reading
from digest.sources.bombs import refuse_more
from digest.text import decode, paragraphs
from digest.types import Enclosure, Fetched, Image, RawArticle, Skipped

MAX_PAGES = 5
_ACCEPT = "application/feed+json, application/json;q=0.9, */*;q=0.5"


class JsonFeed:
    kind = "jsonfeed"

    def __init__(self, location: str, options: Mapping[str, Any], fetcher: Fetcher) -> None:
        self.location, self.fetcher = location, fetcher
        self.labels, self.zone = reading.Labels(options), reading.zone_of(options)

    def fetch(self, state: Mapping[str, Any]) -> Fetched:
        """Read the document; its further pages are fetched when the items of the first are used up."""
        opened = reading.open_location(self.location, self.fetcher, state, accept=_ACCEPT)
        if opened.stream is None:
            return Fetched(iter(()), state=opened.state, not_modified=True)
        document = self._document(opened)
        base = opened.url or _text(document.get("home_page_url")) or None
        fetched = Fetched(
            iter(()), state=opened.state, title=_text(document.get("title")) or None,
            language=_text(document.get("language")) or None,
        )  # fmt: skip
        fetched.items = self._items(document, base, fetched.warnings)
        return fetched

    def _document(self, opened: reading.Opened) -> dict[str, Any]:
        name = shown(opened.url or self.location)
        try:
            document = json.loads(decode(opened.read()))
        except (ValueError, RecursionError, OSError, EOFError) as e:
            raise SourceError("not_a_feed", f"{name} is not JSON ({reading.first_line(e)})") from e
        if not isinstance(document, dict) or not isinstance(document.get("items"), list):
            raise SourceError("not_a_feed", f"{name} is JSON, but no JSON Feed: it has no list of items")
        refuse_more(len(document["items"]), name)
        return document

    def _items(self, document: dict[str, Any], base: str | None, warnings: list[str]) -> Iterator[RawArticle | Skipped]:
        """Yield the items of the document and, over http, of the pages it names; an id that repeats is none."""
        ids: set[str] = set()
        asked = {base}
        for _ in range(MAX_PAGES):
            authors = _names(document)
            for item in document["items"]:
                yield self._item(item, base, authors, ids)
            following = _text(document.get("next_url"))
            if not following or not base or not reading.is_remote(self.location):
                return
            if (url := urljoin(base, following)) in asked:
                return
            asked.add(url)
            try:
                document = self._document(reading.open_location(url, self.fetcher, {}, accept=_ACCEPT))
            except SourceError as e:
                warnings.append(f"a further page was left out: {e}")
                return

    def _item(self, item: Any, base: str | None, authors: tuple[str, ...], ids: set[str]) -> RawArticle | Skipped:
        if not isinstance(item, dict):
            return Skipped("unreadable", str(item)[:80], "an item is not an object")
        guid = reading.short_id(item.get("id")) or None
        if guid in ids:
            guid = None
        elif guid:
            ids.add(guid)
        body, text = _text(item.get("content_html")), _text(item.get("content_text"))
        tags = item.get("tags") if isinstance(item.get("tags"), list) else []
        return RawArticle(
            guid=guid,
            url=_text(item.get("url")) or _text(item.get("external_url")) or None,
            title=_text(item.get("title")),
            title_is_html=False,
            body_html=body or paragraphs(html.escape(text, quote=False)),
            excerpt_html=html.escape(_text(item.get("summary")), quote=False),
            description=html.escape(_text(item.get("description")), quote=False),  # in no version of it; some write it
            published_at=reading.read_date(item.get("date_published"), self.zone),
            updated_at=reading.read_date(item.get("date_modified"), self.zone),
            authors=_names(item) or authors,
            topics=self.labels.refs((_text(tag), "") for tag in tags or ()),
            image=_image(item),
            enclosures=_enclosures(item),
            language=_text(item.get("language")) or None,
            base_url=base,
        )


def _text(value: Any) -> str:
    """A string, or nothing: "url": 7 and "url": null are both seen."""
    return value.strip() if isinstance(value, str) else ""


def _names(thing: dict[str, Any]) -> tuple[str, ...]:
    """Authors of a feed or an item: a list since 1.1, one object in 1.0."""
    found = thing.get("authors") if isinstance(thing.get("authors"), list) else [thing.get("author")]
    return reading.people(a.get("name") if isinstance(a, dict) else a for a in found or () if isinstance(a, dict | str))


def _image(item: dict[str, Any]) -> Image | None:
    for name in ("image", "banner_image"):
        if url := _text(item.get(name)):
            return Image(url)
    for a in _attachments(item):
        if _text(a.get("mime_type")).startswith("image/"):
            return Image(_text(a["url"]))
    return None


def _attachments(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    found = item.get("attachments") if isinstance(item.get("attachments"), list) else []
    return (a for a in found or () if isinstance(a, dict) and _text(a.get("url")))


def _enclosures(item: dict[str, Any]) -> tuple[Enclosure, ...]:
    return tuple(
        Enclosure(_text(a["url"]), _text(a.get("mime_type")), reading.length(a.get("size_in_bytes")))
        for a in _attachments(item)
    )
