"""JSON Feed 1.1, with what the other formats say besides under ``_digest``."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from digest.feeds.memo import Memo
from digest.feeds.tidy import tidy
from digest.feeds.xml import rfc3339, site, with_also
from digest.types import Enclosure, FeedItem, FeedView


def _json_item(item: FeedItem, public_url: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": item.id,
        "url": item.url,
        "title": item.title,
        "content_html": with_also(item),
        "content_text": "" if item.html else item.summary or item.title,  # one of the two is required
        "summary": item.summary,
        "image": item.image.url if item.image else "",
        "date_published": rfc3339(item.published),
        "date_modified": rfc3339(item.updated),
        "authors": [{"name": name} for name in item.authors],
        "tags": list(dict.fromkeys(topic.name for topic in item.topics)),
        "language": item.language,
        "attachments": [_attachment(one) for one in item.enclosures],
        "_digest": _extension(item, public_url),
    }
    return {key: value for key, value in fields.items() if value}


def _attachment(one: Enclosure) -> dict[str, Any]:
    size = {"size_in_bytes": one.length} if one.length else {}
    return {"url": one.url, "mime_type": one.type, **size}


def _extension(item: FeedItem, public_url: str) -> dict[str, Any]:
    """Documented in docs/feeds.md."""
    image = item.image
    fields = {
        "topics": [
            {"kind": t.kind, "slug": t.slug, "name": t.name, "url": f"{public_url}/feeds/{t.kind}/{quote(t.slug)}.json"}
            for t in item.topics
        ],
        "image": {key: v for key in ("width", "height", "alt", "credit") if image and (v := getattr(image, key))},
        "also": [{"title": title, "url": url} for title, url in item.also],
    }
    return {key: value for key, value in fields.items() if value}


def write_json(view: FeedView) -> bytes:
    view = tidy(view)
    fields: dict[str, Any] = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": view.title,
        "home_page_url": view.home_url,
        "feed_url": f"{view.url}.json",
        "next_url": view.older_url and f"{view.older_url}.json",
        "description": view.description,
        "icon": view.icon_url,
        "authors": [{"name": view.publisher}],
        "language": view.language,
        "hubs": [{"type": "WebSub", "url": hub} for hub in view.hubs],
    }
    parts = {"current": view.current_url, "older": view.older_month_url, "newer": view.newer_month_url}
    fields["_digest"] = {
        **({"archive": True} if view.archive else {}),
        **{f"{name}_url": f"{url}.json" for name, url in parts.items() if url},
    }
    document = {key: value for key, value in fields.items() if value}
    pieces = _written.all_of([(site(view), item) for item in view.items], _pieces)
    return b"".join((_dumped(document)[:-1], b',"items":[', b",".join(pieces), b"]}\n"))


_written: Memo[tuple[str, FeedItem], bytes] = Memo(16 * 2**20, lambda _, piece: 500 + len(piece))


def _pieces(keys: list[tuple[str, FeedItem]]) -> list[bytes]:
    return [_dumped(_json_item(item, public_url)) for public_url, item in keys]


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
