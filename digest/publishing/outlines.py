"""The list of all feeds as OPML: everything, categories, tags, authors, languages, sources, digests.

Feeds by story are left out: who imports the list would get every article twice.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from digest import catalogue
from digest.feeds import Outline, write_opml
from digest.models import FeedVersion
from digest.publishing.names import Feed
from digest.publishing.readings import list_feeds

_FOLDERS = {
    "category": "Categories", "tag": "Tags", "author": "Authors", "language": "Languages", "source": "Sources",
    "digest": "Editions",
}  # fmt: skip


def read_outlines(session: Session, public_url: str) -> tuple[bytes, datetime | None]:
    """The document, and when anything in it can last have changed."""
    brand = catalogue.brand(session, public_url)
    feeds = list_feeds(session, public_url)
    outlines = [_outline(feed, public_url) for feed in feeds if feed.selector.kind == "all"]
    for kind, title in _FOLDERS.items():
        below = tuple(_outline(feed, public_url) for feed in feeds if feed.selector.kind == kind)
        outlines += [Outline(title, below=below)] if below else []
    changed = session.scalar(select(func.max(FeedVersion.changed_at)))
    return write_opml(brand.name, outlines), changed


def _outline(feed: Feed, public_url: str) -> Outline:
    home = f"{public_url}/archive" if feed.selector.kind == "digest" else f"{public_url}/"
    return Outline(feed.title, f"{feed.url}.atom", home)
