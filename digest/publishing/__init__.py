"""Feeds as the world gets them: what a feed holds, its bytes in every coding, kept warm, exported, checked.

Shelf.ready(path)    no SQL: what lies on the shelf, if it is known to be up to date
Shelf.refresh(path)  one flight a path, in a thread:
├ marks              one row a second a process: has anything at all moved? If so, which versions?
├ standing           the feed's own version: unchanged → the entry stays as it is
├ view               catalogue or ledger → FeedView; the same as before → the entry stays as it is
├ feeds.FORMATS      → bytes
└ entry              → plain, gzip, br, each with its ETag; Last-Modified from the data

Same data, same bytes, same ETags, in every process. Last-Modified is the instant of the feed's last change as the
database has it, a whole second later with each change: readers that keep an old ETag while the date stands still would
never see the next one. Not here: HTTP (web.feeds), formats (feeds), what an article is (catalogue).
"""

from __future__ import annotations

from digest.publishing.entries import Coded, Entry, make_entry
from digest.publishing.export import BuildReport, Finding
from digest.publishing.hubs import HubState, hub_states, tell_hubs
from digest.publishing.names import OPML_PATH, Feed, selector_of, stem_of
from digest.publishing.planned import Planned
from digest.publishing.private import PRIVATE, read_private
from digest.publishing.readers import ReaderCounts, reader_counts
from digest.publishing.readings import list_feeds
from digest.publishing.shelf import FRESH_S, STALE_S, Shelf, Slot

__all__ = [
    "FRESH_S",
    "OPML_PATH",
    "PRIVATE",
    "STALE_S",
    "BuildReport",
    "Coded",
    "Entry",
    "Feed",
    "Finding",
    "HubState",
    "Planned",
    "ReaderCounts",
    "Shelf",
    "Slot",
    "hub_states",
    "list_feeds",
    "make_entry",
    "read_private",
    "reader_counts",
    "selector_of",
    "stem_of",
    "tell_hubs",
]
