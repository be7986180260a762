"""A WordPress site by its REST API; or posts saved from it, in a file of JSON.

    whole read   every post by id → terms of the site, parents too
    poll         what was modified, and what was published, since a day before the newest that is known

Two bounds, because a scheduled post that appears was modified long ago. Bounds are compared with the site's own clock,
so they overlap by more than any zone is off UTC; what comes again unchanged is passed over. Whether a bound was obeyed
is looked at: old versions ignore what they do not know.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from digest.errors import SourceError
from digest.fetch import Fetcher, shown
from digest.sources import reading, wpapi
from digest.sources.bombs import refuse_more
from digest.sources.wppost import Term, looks_like_post, made, modified
from digest.text import decode
from digest.types import Fetched, RawArticle, Skipped, TopicKind, TopicRef

OVERLAP = timedelta(hours=26)
_ZONES = timedelta(hours=15)  # a site's clock is at most 14 hours off UTC
_KEPT = 3_000  # of posts in the overlap that are remembered
_POSTS, _CATEGORIES, _TAGS = "wp/v2/posts", "wp/v2/categories", "wp/v2/tags"
_HTML_LANG = re.compile(rb"<html\b[^<>]{0,500}?\slang=[\"']?([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,2})\b", re.IGNORECASE)
_EMBED = "author,wp:term,wp:featuredmedia"


class WordPress:
    kind = "wordpress"

    def __init__(self, location: str, options: Mapping[str, Any], fetcher: Fetcher) -> None:
        self.location, self.fetcher = location, fetcher
        self.zone = reading.zone_of(options)
        self.state: dict[str, Any] = {}
        self._api: wpapi.Api | None = None
        self._met: set[str] = set()  # ids of all posts that this fetch has seen

    def fetch(self, state: Mapping[str, Any]) -> Fetched:
        path = urlsplit(self.location).path.lower()
        if not reading.is_remote(self.location) or path.endswith((".json", ".json.gz")):
            return self._document(state)
        known = reading.remembered(state, self.location)
        moved = known.get("moved_to") if known.get("moves", 0) >= reading.MOVES_BELIEVED else None
        self._api = api = wpapi.find(self.location, self.fetcher, moved or known.get("api"))
        self.state = {**reading.fresh_state(self.location), "api": api.root}
        if to := api.moved_to or (moved if api.root == moved else None):
            again = reading.MOVES_BELIEVED if moved else known.get("moves", 0) * (known.get("moved_to") == to)
            self.state |= {"moved_to": to, "moves": again + 1}
        site = _Site(self._api, self.zone, known, self.state)
        items = self._items(site, known)
        first = next(items, None)  # asked for now: an API that fails fails here
        if first is None and known.get("watermark"):
            return Fetched(iter(()), state=self.state, not_modified=True)
        return Fetched(
            chain([first] if first else [], items), topics=site.topics() if not known else (), state=self.state,
            title=site.title() if not known else None, language=self._language(first) if not known else None,
            warnings=site.warnings,
        )  # fmt: skip

    def _language(self, first: RawArticle | Skipped | None) -> str | None:
        """What the page says where the API does not: it speaks of languages only by plugins."""
        if isinstance(first, RawArticle) and first.language:
            return None
        try:
            found = _HTML_LANG.search(self.fetcher.get(self.location).content[:20_000])
        except SourceError:
            return None
        return found and found[1].decode()

    def latest(self, count: int) -> list[RawArticle | Skipped] | None:
        """The newest posts alone; None where they lie in a document."""
        if not reading.is_remote(self.location) or urlsplit(self.location).path.lower().endswith((".json", ".json.gz")):
            return None
        api = wpapi.find(self.location, self.fetcher)
        site = _Site(api, self.zone, {}, {})
        page, _ = api.listed(_POSTS, per_page=count, _embed=_EMBED)
        site.learn(page)
        return [site.article(post) for post in page]

    def gone(self, ids: Sequence[str]) -> list[str]:
        """Return which of these posts the site no longer shows. Silence of the site says nothing, so it is tested."""
        api, asked = self._api, [i for i in ids if i not in self._met and i.isdecimal()]
        if api is None or not asked:
            return []
        control, empty = next(iter(self._met), None), False
        if control is None:
            control, empty = self._any(api)
        found: list[str] = list(asked) if empty else []
        for start in range(0, len(asked) if control else 0, wpapi.PER_PAGE - 1):
            part = asked[start : start + wpapi.PER_PAGE - 1]
            there = self._there(api, [str(control), *part])
            if str(control) in there and there <= {str(control), *part}:
                found += [i for i in part if i not in there]
        for number in found:
            self.state.get("recent", {}).pop(number, None)  # should it come back, it is news
        return found

    @staticmethod
    def _any(api: wpapi.Api) -> tuple[str | None, bool]:
        """A post that is there; or whether the site counts none at all, which is more than an empty list."""
        listed, total = api.listed(_POSTS, per_page=1, _fields="id")
        return (str(listed[0].get("id")), False) if listed else (None, total == 0)

    @staticmethod
    def _there(api: wpapi.Api, ids: Sequence[str]) -> set[str]:
        """Which of *ids* the site lists. A site may give fewer a page than it is asked for, so to the list's end."""
        pages = api.walk(_POSTS, include=",".join(ids), orderby="id", order="asc", _fields="id,modified_gmt,status")
        listed = (post for page in pages for post in page)
        return {str(post.get("id")) for post in listed if post.get("status", "publish") == "publish"}

    # ------------------------------------------------------------------------- posts

    def _items(self, site: _Site, known: Mapping[str, Any]) -> Iterator[RawArticle | Skipped]:
        """Yield the posts that are new or changed; note at the end how far they went."""
        before: Mapping[str, str] = known.get("recent", {})
        now = datetime.now(UTC)
        watermark = reading.read_date(known.get("watermark"))
        newest, marks = watermark, dict[str, tuple[datetime, str]]()
        for post in site.posts(watermark):
            number, mark = str(post.get("id")), _fingerprint(post)
            if number in self._met:
                continue
            self._met.add(number)
            when = min(modified(post, self.zone) or now, now)
            newest = max(newest or when, when)
            marks[number] = when, mark
            if before.get(number) != mark:
                yield site.article(post)
        if newest is not None:
            self.state["watermark"] = newest.isoformat()
            kept = sorted((w, n) for n, (w, _) in marks.items() if w > newest - OVERLAP - _ZONES)[-_KEPT:]
            self.state["recent"] = {n: marks[n][1] for _, n in kept}

    def _document(self, state: Mapping[str, Any]) -> Fetched:
        """Posts as the API gave them once, saved to a file."""
        opened = reading.open_location(self.location, self.fetcher, state, accept="application/json")
        if opened.stream is None:
            return Fetched(iter(()), state=opened.state, not_modified=True)
        name = shown(opened.url or self.location)
        try:
            posts = json.loads(decode(opened.read()))
        except (ValueError, RecursionError, OSError, EOFError) as e:
            raise SourceError("unreadable", f"{name} is not JSON ({reading.first_line(e)})") from e
        posts = [posts] if isinstance(posts, dict) else posts
        if not isinstance(posts, list) or not any(map(looks_like_post, posts)):
            raise SourceError("not_wordpress", f"{name} holds no posts of WordPress's REST API")
        refuse_more(len(posts), name)
        return Fetched((made(post, {}, self.zone) for post in posts), state=opened.state)


def _fingerprint(post: Mapping[str, Any]) -> str:
    """What would be read of a post, small."""
    names = ("modified_gmt", "title", "content", "excerpt", "categories", "tags", "status", "sticky", "author",
             "featured_media", "link", "date_gmt")  # fmt: skip
    return blake2b(repr([post.get(name) for name in names]).encode("utf-8", "replace"), digest_size=8).hexdigest()


class _Site:
    """One fetch of one site: its posts in a good order, and its terms."""

    def __init__(self, api: wpapi.Api, zone: Any, known: Mapping[str, Any], state: dict[str, Any]) -> None:
        self.api, self.zone, self.state = api, zone, state
        self.warnings: list[str] = []
        self.terms: dict[int, Term] = {int(n): Term(*term) for n, term in known.get("categories", {}).items()}
        self._asked: set[int] = set()
        self._categories_read = False

    def posts(self, watermark: datetime | None) -> Iterator[dict[str, Any]]:
        """All posts, or those that may be newer than *watermark*; a post may come twice."""
        for page in self._everything() if watermark is None else self._since(watermark - OVERLAP):
            self.learn(page)
            yield from page

    def _everything(self) -> Iterator[list[dict[str, Any]]]:
        return self.api.walk(_POSTS, orderby="id", order="asc", _embed=_EMBED)

    def _since(self, bound: datetime) -> Iterator[list[dict[str, Any]]]:
        yield from self._newer("modified", "modified_after", bound)
        yield from self._newer("date", "after", bound)

    def _newer(self, column: str, parameter: str, bound: datetime) -> Iterator[list[dict[str, Any]]]:
        """Pages of what is newer by *column*. The newest that is known must be among it, and nothing older."""
        oldest, any_page = bound - _ZONES, False
        asked = {parameter: bound.strftime("%Y-%m-%dT%H:%M:%S"), "orderby": "id", "order": "asc", "_embed": _EMBED}
        for page in self.api.walk(_POSTS, **asked):
            if not all(_at(post, column, self.zone) >= oldest for post in page):
                break  # the bound was not obeyed
            any_page = True
            yield page
        else:
            if any_page or column == "date":
                return
        for page in self.api.walk(_POSTS, orderby=column, order="desc", _embed=_EMBED):
            times = [_at(post, column, self.zone) for post in page]
            yield [post for post, when in zip(page, times, strict=True) if when >= oldest]
            if max(times) < oldest and times == sorted(times, reverse=True):
                return

    def article(self, post: dict[str, Any]) -> RawArticle | Skipped:
        return made(post, self.terms, self.zone)

    # ------------------------------------------------------------------------- terms

    def topics(self) -> list[TopicRef]:
        """The categories of the site, those without posts too."""
        self._read_categories()
        found = (t.ref(self.terms) for t in self.terms.values() if t.kind == TopicKind.CATEGORY)
        return [ref for ref in found if ref]

    def title(self) -> str | None:
        try:
            about, _ = self.api.ask("", _fields="name")
        except SourceError:
            return None
        name = about.get("name") if isinstance(about, dict) else None
        return html.unescape(name) if isinstance(name, str) else None

    def learn(self, page: list[dict[str, Any]]) -> None:
        """Make sure that the terms of these posts are known: parents are told by the list of categories alone."""
        if any(number not in self.terms for number in _numbers(page, "categories")):
            self._read_categories()
        bare = [post for post in page if not (post.get("_embedded") or {}).get("wp:term")]
        wanted = sorted({n for n in _numbers(bare, "tags") if n not in self.terms and n not in self._asked})
        self._asked.update(wanted)
        for start in range(0, len(wanted), wpapi.PER_PAGE):
            part = ",".join(map(str, wanted[start : start + wpapi.PER_PAGE]))
            self._take(TopicKind.TAG, _TAGS, include=part)

    def _read_categories(self) -> None:
        if not self._categories_read:
            self._categories_read = True
            self._take(TopicKind.CATEGORY, _CATEGORIES, orderby="id", order="asc")
        known = {n: t for n, t in self.terms.items() if t.kind == TopicKind.CATEGORY}
        self.state["categories"] = {str(n): [t.kind, t.slug, t.name, t.parent] for n, t in known.items()}

    def _take(self, kind: TopicKind, route: str, **params: object) -> None:
        try:
            for page in self.api.walk(route, **params, _fields="id,slug,name,parent"):
                for term in page:
                    number, parent = term.get("id"), term.get("parent")
                    if isinstance(number, int):
                        self.terms[number] = Term(
                            kind, str(term.get("slug") or ""), str(term.get("name") or ""),
                            parent if isinstance(parent, int) else 0,
                        )  # fmt: skip
        except SourceError as e:
            if e.code == "too_many_requests":
                raise
            self.warnings.append(f"the list of its {route.rpartition('/')[2]} cannot be read: {e}")


def _at(post: Mapping[str, Any], column: str, zone: Any) -> datetime:
    """A column of a post in UTC; the end of time where it does not say, so that it is never taken for old."""
    when = reading.read_date(post.get(f"{column}_gmt")) or reading.read_date(post.get(column), zone)
    return when or datetime.max.replace(tzinfo=UTC)


def _numbers(posts: list[dict[str, Any]], name: str) -> Iterator[int]:
    for post in posts:
        listed = post.get(name)
        yield from (n for n in listed if isinstance(n, int)) if isinstance(listed, list) else ()
