"""WordPress's REST API (wp/v2) as it is found: where it is, whether it answers, and lists that shift meanwhile.

Owns requests and paging. What a post says is read by `digest.sources.wordpress`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from digest.errors import SourceError
from digest.fetch import Fetcher, Response, shown
from digest.sources import reading
from digest.text import clean_title, decode

PER_PAGE = 100  # the most that WordPress gives
_POSTS = "wp/v2/posts"
_LINK = re.compile(r"<([^<>\s]+)>\s*;[^,]*\brel=[\"']?https://api\.w\.org/", re.IGNORECASE)
_IN_PAGE = re.compile(rb"<link[^>]{0,500}\brel=[\"']https://api\.w\.org/[\"'][^>]{0,500}>", re.IGNORECASE)
_HREF = re.compile(rb"\bhref=[\"']([^\"'\s<>]{1,500})", re.IGNORECASE)
_ELSEWHERE = "let this user agent in, or use the site's feed or an export instead"


@dataclass(slots=True)
class Api:
    """The API below *root*, which ends in "wp-json/" or in "?rest_route=/".

    ``moved_to``: its root where permanent redirects alone have led.
    """

    fetcher: Fetcher
    root: str
    moved_to: str | None = None

    def ask(self, route: str, **params: object) -> tuple[Any, Response]:
        """Return what *route* says as JSON. An API that is blocked or broken is a SourceError, never an empty list."""
        joint = "&" if "?" in self.root else "?"
        url = f"{self.root}{route}{joint}{urlencode({k: v for k, v in params.items() if v is not None})}"
        try:
            answer = self.fetcher.get(url, accept="application/json")
        except SourceError as e:
            if e.code == "forbidden":
                raise SourceError("api_blocked", f"the REST API of {shown(url)} is closed to us; {_ELSEWHERE}") from e
            raise
        return _judged(_parsed(answer), url), answer

    def listed(self, route: str, **params: object) -> tuple[list[dict[str, Any]], int | None]:
        """A list of *route*, and how long the whole one is where the server says so."""
        found, answer = self.ask(route, **params)
        if route == _POSTS and answer.moved_to:
            self.moved_to = _root_of(answer.moved_to)
        if not isinstance(found, list):
            raise SourceError(
                "not_wordpress", f"{shown(answer.url)} answers JSON, but no list of {route.split('/')[-1]}"
            )
        if len(found) > 10 * PER_PAGE:
            raise SourceError(
                "bad_response", f"{shown(answer.url)} gives {len(found):,} things where {PER_PAGE} were asked for"
            )
        total = answer.headers.get("x-wp-total", "")
        return [thing for thing in found if isinstance(thing, dict)], int(total) if total.isdecimal() else None

    def walk(self, route: str, **params: object) -> Iterator[list[dict[str, Any]]]:
        """Yield a list page by page, each thing once, and none passed over while the list shifts."""
        walk = _Walk()
        while not walk.done:
            page, total = self.listed(route, **params, per_page=PER_PAGE, offset=walk.offset or None)
            if fresh := walk.take(page, total, shown(self.root)):
                yield fresh


@dataclass(slots=True)
class _Walk:
    """Where to read on in a list that others write to.

    Each page begins with the last thing of the one before. Where none of a page was met before, things have gone from
    the list and the rest has moved up: step back until it joins on.
    """

    offset: int = 0
    done: bool = False
    met: set[Any] = field(default_factory=set)
    _size: int = 0  # of the largest page: servers may give fewer than they are asked for
    _back: int = 1
    _same: int = 0
    _last: Sequence[Any] = ()

    def take(self, page: list[dict[str, Any]], total: int | None, name: str) -> list[dict[str, Any]]:
        """Note what a page holds, return what is new of it, and choose where to read on."""
        ids = [thing.get("id") for thing in page]
        if self.offset and self.met.isdisjoint(ids):
            self.offset, self._back = max(0, self.offset - self._back), self._back * 2
            return []
        self._same = self._same + 1 if ids and ids == self._last else 0
        if self._same > 4:  # once may be: so many were published in the meantime
            raise SourceError("bad_response", f"{name} gives the same page again when asked for the next one")
        fresh = [thing for n, thing in enumerate(page) if ids[n] not in self.met and ids[n] not in ids[:n]]
        self.met.update(ids)
        self._size, self._last, self._back = max(self._size, len(page)), ids, 1
        if total is not None:
            self.done = self.offset + len(page) >= total or not page
        else:
            self.done = not page or (not fresh and (len(page) < self._size or len(page) == 1))
        self.offset += max(0, len(page) - 1)
        return fresh


def find(location: str, fetcher: Fetcher, known: str | None = None) -> Api:
    """Return the API of the site at *location*: its home page, its API or any page; *known* is tried first.

    The usual place, then the one of sites without pretty addresses, then where the page itself says it is.
    """
    failure: SourceError | None = None
    for root in dict.fromkeys([known, *_places(location)] if known else _places(location)):
        try:
            return _proven(Api(fetcher, root))
        except SourceError as e:
            if e.code in _FINAL:
                raise
            failure = failure or e
    if "/wp-json" not in location and "rest_route=" not in location:
        announced = announced_root(_page(location, fetcher))
        if announced and announced not in _places(location):
            return _proven(Api(fetcher, announced))
    assert failure is not None
    if failure.code == "not_found":
        raise SourceError(
            "no_api", f"{shown(location)} has no REST API of WordPress; use the site's feed or an export instead"
        ) from failure
    raise failure


#: What asking at another place of the same site cannot help.
_FINAL = frozenset({"bad_address", "address_refused", "unreachable", "timeout", "too_many_requests", "unavailable"})


def announced_root(page: Response | None) -> str | None:
    """Where a page says that the API is: a Link header, or a link in its head."""
    if page is None:
        return None
    found = _LINK.search(page.headers.get("link", ""))
    if found:
        return _root(urljoin(page.url, found[1]))
    tag = _IN_PAGE.search(page.content[:200_000])
    href = tag and _HREF.search(tag[0])
    return _root(urljoin(page.url, decode(href[1]).replace("&amp;", "&").replace("&#038;", "&"))) if href else None


def _root(url: str) -> str:
    return url if url.endswith("/") else f"{url}/"


def _page(location: str, fetcher: Fetcher) -> Response | None:
    try:
        return fetcher.get(location)
    except SourceError:
        return None


def _places(location: str) -> list[str]:
    parts = urlsplit(location)
    site = f"{parts.scheme}://{parts.netloc}"
    path = parts.path
    if "rest_route=" in parts.query:
        return [f"{site}{path}?rest_route=/"]
    if "/wp-json" in path:
        base = site + path[: path.index("/wp-json")]
    else:
        base = site + path.rsplit("/", 1)[0]
    return [f"{base}/wp-json/", f"{base}/?rest_route=/"]


def _proven(api: Api) -> Api:
    """*api*, if it lists posts."""
    api.listed(_POSTS, per_page=1, _fields="id")
    return api


def _root_of(url: str) -> str | None:
    """The root of the API that a request for its posts has ended at."""
    root, found, _ = url.partition(_POSTS)
    return root if found and root.endswith("/") else None


def _parsed(answer: Response) -> Any:
    text = decode(answer.content).lstrip("\ufeff").strip()
    if text.startswith("<"):
        raise SourceError(
            "api_blocked",
            f"{shown(answer.url)} answers a web page where its REST API should be: a firewall or a login; {_ELSEWHERE}",
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise SourceError(
            "bad_response",
            f"{shown(answer.url)} answers what is not JSON ({reading.first_line(e)}); look at it in a browser",
        ) from e


def _judged(said: Any, url: str) -> Any:
    """An error that comes with status 200 is still one."""
    if isinstance(said, Mapping) and isinstance(said.get("code"), str) and "message" in said:
        told = clean_title(str(said["message"]), limit=200)
        raise SourceError(
            "api_blocked", f"the REST API of {shown(url)} says: {told} ({said['code'][:60]}); {_ELSEWHERE}"
        )
    return said
