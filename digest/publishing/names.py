"""Names of feeds: which path means which feed, and which of its spellings is the one. No database.

/feeds/all · /feeds/{category,tag,author,language,source,digest}/SLUG
/feeds/any/category:SLUG+tag:SLUG · /feeds/all/category:SLUG+tag:SLUG      one of these topics, all of them
/feeds/stories/…                                                          the same, each story once
…/2025-07 · …/page-2                                                      the archive of a month; what is older
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import quote

from digest.feeds import FORMATS
from digest.types import FeedSelector

#: Most topics that one feed may combine.
TERMS = 10
OPML_PATH = "/feeds.opml"

_SLUG_KINDS = ("category", "tag", "author", "language", "source", "digest")
_SLUG_MAX = 200
_MONTH = re.compile(r"(?:19|20|21)\d\d-(?:0[1-9]|1[0-2])\Z", re.ASCII)
_PAGE = re.compile(r"page-([2-9]|[1-9]\d)\Z", re.ASCII)


def selector_of(path: str) -> tuple[FeedSelector, str] | None:
    """``/feeds/tag/climate.rss`` (decoded) → what it asks for and the format; None if no feed can have that name."""
    stem, dot, extension = path.removeprefix("/feeds/").rpartition(".")
    if not dot or not path.startswith("/feeds/") or extension not in FORMATS or "\x00" in stem:
        return None
    parts = stem.split("/")
    stories = parts[0] == "stories"
    found = _feed(parts[stories:])
    if found is None or (stories and found.kind == "digest"):
        return None
    return replace(found, stories=stories), extension


def _feed(parts: list[str]) -> FeedSelector | None:
    """The names between ``/feeds/`` and the extension, without ``stories``."""
    if len(parts) > 1 and _MONTH.match(parts[-1]) and (feed := _whole(parts[:-1])):
        return replace(feed, month=parts[-1])
    if len(parts) > 1 and (page := _PAGE.match(parts[-1])) and (feed := _whole(parts[:-1])):
        return replace(feed, page=int(page[1])) if feed.kind != "digest" else None
    return _whole(parts)


def _whole(parts: list[str]) -> FeedSelector | None:
    if parts == ["all"]:
        return FeedSelector("all")
    if len(parts) != 2 or not parts[1]:
        return None
    kind, slug = parts
    if kind in ("any", "all"):
        return _combined("any" if kind == "any" else "every", slug)
    if kind not in _SLUG_KINDS or len(slug) > _SLUG_MAX:
        return None
    return FeedSelector(cast(Any, kind), slug)


def _combined(kind: str, slug: str) -> FeedSelector | None:
    """Topics in the one order that their feed has; of one topic alone the feed is that topic's own."""
    terms = {tuple(term.partition(":")[::2]) for term in slug.split("+")}
    sound = all(kind in ("category", "tag") and 0 < len(name) <= _SLUG_MAX for kind, name in terms)
    if not sound or slug.count("+") >= TERMS:
        return None
    if len(terms) == 1:
        (alone,) = terms
        return FeedSelector(cast(Any, alone[0]), alone[1])
    return FeedSelector(cast(Any, kind), "+".join(f"{kind}:{name}" for kind, name in sorted(terms)))


def stem_of(selector: FeedSelector) -> str:
    """The feed's path without its extension, decoded."""
    kind = "all" if selector.kind == "every" else selector.kind
    parts = ["/feeds", *(["stories"] if selector.stories else []), kind, *([selector.slug] if selector.slug else [])]
    if selector.month or selector.page > 1:
        parts.append(selector.month or f"page-{selector.page}")
    return "/".join(parts)


def url_of(selector: FeedSelector, public_url: str) -> str:
    """The feed's address without its extension."""
    return public_url + quote(stem_of(selector), safe="/:+")


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed that exists. ``url``: its address without an extension, percent-encoded."""

    selector: FeedSelector
    title: str
    url: str

    def urls(self) -> dict[str, str]:
        """Its address in each format."""
        return {name: f"{self.url}.{name}" for name in FORMATS}
