"""RSS 2.0, Atom and JSON Feed from one FeedView, and OPML. The face of the room.

The same view gives the same bytes in every process, on every day, under any hash seed.

    tidy      once, for all formats: what may enter a feed at all
    xml       RSS and Atom, by feedgen, mended
    jsonfeed  JSON Feed
    check     bytes → what is wrong with them, one sentence each
    opml      a list of feeds, for readers to import

Not here: where items come from, what is cached, how it is served. Bodies are allow-listed HTML when they arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from digest.feeds.check import check_atom, check_json, check_rss
from digest.feeds.jsonfeed import write_json
from digest.feeds.opml import OPML_TYPE, Outline, write_opml
from digest.feeds.tidy import BODY_MAX, TITLE_MAX, clean, line, tidy, web_url
from digest.feeds.xml import rfc822, write_atom, write_rss
from digest.types import FeedView

__all__ = [
    "BODY_MAX",
    "FORMATS",
    "OPML_TYPE",
    "TITLE_MAX",
    "FeedFormat",
    "Outline",
    "clean",
    "line",
    "rfc822",
    "tidy",
    "web_url",
    "write_atom",
    "write_json",
    "write_opml",
    "write_rss",
]


@dataclass(frozen=True, slots=True)
class FeedFormat:
    """One way to write a feed. ``media_type`` is what links say; ``content_type`` what the HTTP header says."""

    name: str
    media_type: str
    content_type: str
    write: Callable[[FeedView], bytes]
    check: Callable[[bytes], list[str]]


#: By extension. A new format is one more line here: see "A feed format" in docs/adding.md.
FORMATS: dict[str, FeedFormat] = {
    "rss": FeedFormat("RSS", "application/rss+xml", "application/rss+xml; charset=utf-8", write_rss, check_rss),
    "atom": FeedFormat("Atom", "application/atom+xml", "application/atom+xml; charset=utf-8", write_atom, check_atom),
    "json": FeedFormat("JSON Feed", "application/feed+json", "application/feed+json", write_json, check_json),
}  # fmt: skip
