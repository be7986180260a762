"""Where articles come from: one reader for each kind of source. Adding one: docs/adding.md.

Owns reading; knows nothing of what is stored. A reader gives articles as they are: `digest.text` cleans them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from digest.fetch import Fetcher
from digest.sources.feed import Feed
from digest.sources.jsonfeed import JsonFeed
from digest.sources.markdown import Markdown
from digest.sources.wordpress import WordPress
from digest.sources.wxr import Wxr
from digest.types import Fetched

__all__ = ["KINDS", "Source"]


class Source(Protocol):
    """A reader of one kind, at one location: a path, a file: URL, or an http(s) address.

    ``options`` are the source's own settings; a reader passes over those it does not know.
    """

    kind: str

    def __init__(self, location: str, options: Mapping[str, Any], fetcher: Fetcher) -> None: ...

    def fetch(self, state: Mapping[str, Any]) -> Fetched:
        """Return what lies at the location now; *state* is what the last fetch that was stored wholly remembered.

        A source that cannot be read is a SourceError, here or from the items. A bad item is a Skipped among them.
        A reader that can tell has a second method, ``gone(native_ids) -> list[str]``: which of these articles, known
        from it, its place no longer shows. It is called when the items are used up. One that can give its newest
        articles without the rest has ``latest(count)``.
        """


KINDS: dict[str, type[Source]] = {source.kind: source for source in (WordPress, Wxr, Feed, JsonFeed, Markdown)}
