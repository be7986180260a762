"""A look at a source before it is trusted: what it is, its newest articles, and what they carry. Stores nothing."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from digest import text
from digest.errors import SourceError
from digest.fetch import Fetcher
from digest.sources import KINDS
from digest.sources.detecting import Found, detect
from digest.sources.options import TopicRules
from digest.types import CleanArticle, RawArticle, Skipped, TopicKind

NEWEST = 5
CARRIED = ("dates", "authors", "categories", "tags", "full text", "images")
_FULL = 100  # words: less is an excerpt
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Look:
    """What was seen. ``carries``: how many of ``articles`` have what; ``also``: other sources at the same place."""

    kind: str
    location: str
    what: str = ""
    title: str | None = None
    articles: int = 0
    carries: Counter[str] = field(default_factory=Counter)
    also: list[Found] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _newest: list[tuple[datetime, int, str, str]] = field(default_factory=list)

    def add(self, raw: RawArticle, clean: CleanArticle) -> None:
        self.articles += 1
        entry = (raw.published_at or _LONG_AGO, -self.articles, clean.title, clean.url)
        heapq.heappush(self._newest, entry)
        if len(self._newest) > NEWEST:
            heapq.heappop(self._newest)
        kinds = {ref.kind for ref in (*raw.topics, *raw.assigned)}
        has = (
            raw.published_at is not None, bool(raw.authors), TopicKind.CATEGORY in kinds, TopicKind.TAG in kinds,
            clean.word_count >= _FULL, clean.image is not None,
        )  # fmt: skip
        self.carries.update(name for name, there in zip(CARRIED, has, strict=True) if there)

    def newest(self) -> list[dict[str, Any]]:
        """The newest articles, newest first."""
        found = sorted(self._newest, reverse=True)
        return [{"title": t, "url": u, "published_at": w if w > _LONG_AGO else None} for w, _, t, u in found]

    def to_json(self) -> dict[str, Any]:
        carries = {name.replace(" ", "_"): self.carries[name] for name in CARRIED}
        return {"what": self.what or None, "newest": self.newest(), "carries": carries}

    def told(self) -> str:
        """What the articles carry, for people."""
        if not self.articles:
            return "no article yet"
        return ", ".join(_share(name, self.carries[name], self.articles) for name in CARRIED)


def _share(name: str, count: int, of: int) -> str:
    return name if count == of else f"no {name}" if not count else f"{name} in {count} of {of}"


def find_source(fetcher: Fetcher, location: str, options: Mapping[str, Any] | None = None) -> Look:
    """Find out what lies at *location* and look at it. The first that can be read is taken."""
    found = detect(location, fetcher)
    failure: SourceError | None = None
    for n, source in enumerate(found):
        try:
            look = look_at(fetcher, source.kind, source.location, options or {})
        except SourceError as e:
            failure = failure or e
            continue
        look.what, look.also = source.what, found[n + 1 :]
        return look
    assert failure is not None
    raise failure


def look_at(fetcher: Fetcher, kind: str, location: str, options: Mapping[str, Any]) -> Look:
    """Look at the articles of a source, or at the newest where its kind can give those alone."""
    reader: Any = KINDS[kind](location, options, fetcher)
    look = Look(kind, location)
    rules = TopicRules.of(options)
    if hasattr(reader, "latest") and (items := reader.latest(20)) is not None:
        _take(look, items, rules)
        return look
    fetched = reader.fetch({})
    _take(look, fetched.items, rules)
    look.title = text.clean_title(fetched.title or "", is_html=False) or None
    look.warnings += fetched.warnings
    return look


def _take(look: Look, items: Iterable[RawArticle | Skipped], rules: TopicRules) -> None:
    for item in items:
        if isinstance(item, RawArticle) and isinstance(clean := text.clean(item), CleanArticle):
            look.add(replace(item, assigned=rules.given(item, clean)), clean)
