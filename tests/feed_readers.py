"""Feeds as the world sees them: the official schemas (for RSS, which has none, `feed_rules`), and a reader not ours.

A new format brings its schema and its reader here; the contract tests then hold it to what the others promise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

import feedparser
import jsonschema
from lxml import etree

from digest.feeds import FORMATS
from tests.feed_rules import content_faults, rss_faults

#: More than this the validator of the W3C does not read, nor do some readers.
LARGEST = 5_000_000

SCHEMAS = Path(__file__).parent / "data" / "schemas"


@dataclass(frozen=True)
class Read:
    """One item as a reader understands it. ``topics``: (name, "category" | "tag" | "")."""

    id: str
    title: str
    url: str
    published: datetime
    updated: datetime
    authors: tuple[str, ...]
    topics: tuple[tuple[str, str], ...]
    summary: str
    html: str
    image: str


@cache
def _rng() -> Any:
    return etree.RelaxNG(etree.parse(SCHEMAS / "atom.rng"))


@cache
def _json_schema() -> Any:
    schema = json.loads((SCHEMAS / "jsonfeed-1.1.schema.json").read_text())
    return jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker())


def faults(name: str, body: bytes, url: str = "") -> list[str]:
    """What the format's schema, or for RSS (which has none) its rules, have against *body*, served at *url*."""
    if name == "json":
        return [error.message for error in _json_schema().iter_errors(json.loads(body))]
    if name == "rss":
        return rss_faults(body, url)
    root = etree.fromstring(body, etree.XMLParser(resolve_entities=False, huge_tree=True))
    return [] if _rng().validate(root) else [str(_rng().error_log)]


def tree_faults(out: Path, public_url: str, step: int = 1) -> tuple[int, list[str]]:
    """How many feeds lie below *out*, and what is wrong with every *step*-th of them."""
    paths = sorted(path for name in FORMATS for path in (out / "feeds").rglob(f"*.{name}"))
    found = []
    for path in paths[::step]:
        name, body, url = path.suffix[1:], path.read_bytes(), f"{public_url}/{path.relative_to(out)}"
        problems = [*faults(name, body, url), *content_faults(name, body), *FORMATS[name].check(body)]
        problems += [] if len(body) < LARGEST else [f"it has {len(body)} bytes"]
        found += [f"{url}: {problem}" for problem in problems]
    return len(paths), found


def _when(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = parsedate_to_datetime(text)
    assert when.tzinfo is not None
    return when.astimezone(UTC)


def _kind(scheme: str | None) -> str:
    return (scheme or "").rpartition("/")[2]


def _of_json(item: dict[str, Any]) -> Read:
    return Read(
        item["id"], item["title"], item["url"], _when(item["date_published"]), _when(item["date_modified"]),
        tuple(a["name"] for a in item.get("authors", ())), tuple((t, "") for t in item.get("tags", ())),
        item.get("summary", ""), item.get("content_html", ""), item.get("image", ""),
    )  # fmt: skip


def _of_xml(e: Any) -> Read:
    thumbnails = e.get("media_thumbnail") or [{}]
    bodies = e.get("content") or [{}]
    return Read(
        e.id, e.title, e.link, _when(e.published), _when(dict.get(e, "updated") or e.published),
        tuple(a.name for a in e.get("authors") or ()),
        tuple((t.label or t.term, _kind(t.scheme)) for t in e.get("tags") or ()),
        e.get("summary", ""), bodies[0].get("value", ""), thumbnails[0].get("url", ""),
    )  # fmt: skip


def read(name: str, body: bytes) -> list[Read]:
    if name == "json":
        return [_of_json(item) for item in json.loads(body)["items"]]
    parsed = feedparser.parse(body, sanitize_html=False, resolve_relative_uris=False)
    assert not parsed.bozo, parsed.bozo_exception
    return [_of_xml(entry) for entry in parsed.entries]
