"""A site that speaks WordPress's REST API over real HTTP on this machine, with the faults that real ones have."""

from __future__ import annotations

import contextlib
import html
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

CATEGORIES = [
    {"id": 1, "slug": "world", "name": "World", "parent": 0},
    {"id": 2, "slug": "africa", "name": "Africa &amp; Sahel", "parent": 1},
    {"id": 3, "slug": "asia", "name": "Asia", "parent": 1},
]
TAGS = [{"id": 10 + n, "slug": f"tag-{n}", "name": f"Tag {n}"} for n in range(4)]


@dataclass
class Post:
    id: int
    date: datetime
    modified: datetime
    title: str
    status: str = "publish"
    categories: list[int] = field(default_factory=lambda: [2])
    tags: list[int] = field(default_factory=lambda: [10])
    sticky: bool = False
    protected: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Site:
    """What the site holds, and what is wrong with it."""

    now: datetime
    offset: timedelta = timedelta(hours=-4)  # of its clock
    posts: dict[int, Post] = field(default_factory=dict)
    next_id: int = 100
    ignores_bounds: bool = False
    only_rest_route: bool = False
    closed_authors: bool = False
    embeds: bool = True
    no_totals: bool = False
    cap: int = 100
    blocked: str = ""  # one of _BLOCKED: what every answer of the API is instead
    moved_to: str = ""  # where it is now; all that is asked for here is answered with 301
    busy: list[tuple[int, str]] = field(default_factory=list)  # (status, Retry-After) of the next answers
    between: Any = None  # called after each answered list of posts: the site goes on while it is read
    page: bytes = b"<!doctype html><title>Site</title>"  # its home page
    asked: list[str] = field(default_factory=list)
    url: str = ""

    # ------------------------------------------------------------------------- what editors do

    def publish(self, title: str = "", *, age: timedelta = timedelta(), **columns: Any) -> Post:
        number = self.next_id
        self.next_id += 1
        post = Post(number, self.now - age, self.now, title or f"Post {number}", **columns)
        self.posts[number] = post
        return post

    def schedule(self, after: timedelta) -> Post:
        """It appears later, and is not modified then: WordPress changes its status alone."""
        return self.publish(age=-after)

    def edit(self, number: int, title: str) -> None:
        post = self.posts[number]
        post.title, post.modified = title, self.now

    def remove(self, number: int) -> None:
        self.posts[number].status, self.posts[number].modified = "trash", self.now

    def restore(self, number: int) -> None:
        self.posts[number].status, self.posts[number].modified = "publish", self.now

    def shown(self) -> dict[int, Post]:
        return {n: p for n, p in self.posts.items() if p.status == "publish" and p.date <= self.now}

    # ------------------------------------------------------------------------- what it answers

    def answer(self, route: str, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        if route == "":
            return 200, {"name": "The &quot;Site&quot;", "namespaces": ["wp/v2"]}, {}
        if route == "wp/v2/posts":
            return self._listed(self._chosen(query), query, self._post)
        if route in ("wp/v2/categories", "wp/v2/tags"):
            terms = CATEGORIES if route.endswith("categories") else TAGS
            wanted = {int(n) for n in query["include"].split(",")} if "include" in query else None
            return self._listed([t for t in terms if wanted is None or t["id"] in wanted], query, lambda term, _: term)
        return 404, {"code": "rest_no_route", "message": "No route", "data": {"status": 404}}, {}

    def _chosen(self, query: dict[str, str]) -> list[Post]:
        found = list(self.shown().values())
        if "include" in query:
            wanted = {int(n) for n in query["include"].split(",")}
            found = [p for p in found if p.id in wanted]
        for name, column in (("after", "date"), ("modified_after", "modified")):
            if name in query and not self.ignores_bounds:
                bound = datetime.fromisoformat(query[name]).replace(tzinfo=UTC)  # it compares with its own clock
                found = [p for p in found if getattr(p, column) + self.offset > bound]
        by = query.get("orderby", "date")
        found.sort(key=lambda p: (getattr(p, by), p.id), reverse=query.get("order", "desc") == "desc")
        return found

    def _listed(self, things: list[Any], query: dict[str, str], shape: Any) -> tuple[int, Any, dict[str, str]]:
        size, start = min(self.cap, int(query.get("per_page", 10))), int(query.get("offset", 0))
        page = [shape(thing, query) for thing in things[start : start + size]]
        return 200, page, {} if self.no_totals else {"X-WP-Total": str(len(things))}

    def _post(self, post: Post, query: dict[str, str]) -> dict[str, Any]:
        def stamp(when: datetime) -> str:
            return when.strftime("%Y-%m-%dT%H:%M:%S")

        body = "" if post.protected else f"<p>Body of {post.title}.</p>"
        made: dict[str, Any] = {
            "id": post.id, "date": stamp(post.date + self.offset), "date_gmt": stamp(post.date),
            "modified": stamp(post.modified + self.offset), "modified_gmt": stamp(post.modified),
            "guid": {"rendered": f"http://site.example/?p={post.id}"}, "link": f"https://site.example/{post.id}/",
            "status": "publish", "type": "post", "title": {"rendered": html.escape(post.title)},
            "content": {"rendered": body, "protected": post.protected},
            "excerpt": {"rendered": ""}, "categories": post.categories, "tags": post.tags, "sticky": post.sticky,
        }  # fmt: skip
        if "_embed" in query and self.embeds:
            author: dict[str, Any] = {"id": 1, "name": "Ann Author"}
            if self.closed_authors:
                author = {"code": "rest_user_invalid_id", "message": "Invalid user ID.", "data": {"status": 404}}
            own = [{**t, "taxonomy": "category"} for t in CATEGORIES if t["id"] in post.categories]
            labels = [{**t, "taxonomy": "post_tag"} for t in TAGS if t["id"] in post.tags]
            for term in own:
                term.pop("parent")
            made["_embedded"] = {"author": [author], "wp:term": [own, labels]}
        made |= post.extra
        return {k: made[k] for k in query["_fields"].split(",") if k in made} if "_fields" in query else made


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.site.asked.append(self.path)
        status, body, kind, headers = self._answer(urlsplit(self.path))
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, parts: SplitResult) -> tuple[int, bytes, str, dict[str, str]]:
        site, query = self.site, {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if site.moved_to:
            return 301, b"", "text/plain", {"Location": site.moved_to + self.path}
        if site.busy:
            status, wait = site.busy.pop(0)
            return status, b"slow down", "text/plain", {"Retry-After": wait}
        if "rest_route" in query:
            route = query["rest_route"].lstrip("/")
        elif parts.path.startswith("/wp-json/") and not site.only_rest_route:
            route = parts.path.removeprefix("/wp-json/")
        elif parts.path == "/":
            link = f'<{site.url}/?rest_route=/>; rel="https://api.w.org/"'
            return 200, site.page, "text/html", {"Link": link}
        else:
            return 404, b"<html>not here</html>", "text/html", {}
        if site.blocked:
            return _BLOCKED[site.blocked]
        status, body, headers = site.answer(route, query)
        if site.between is not None and route == "wp/v2/posts" and "_embed" in query:
            site.between()
        return status, json.dumps(body).encode(), "application/json; charset=UTF-8", headers


_CLOSED = b'{"code":"rest_disabled","message":"The API is off.","data":{"status":401}}'
_BLOCKED: dict[str, tuple[int, bytes, str, dict[str, str]]] = {
    "html": (200, b"<html><title>Just a moment...</title></html>", "text/html", {}),
    "401": (401, _CLOSED, "application/json", {}),
    "403": (403, b"<html>Forbidden</html>", "text/html", {}),
    "error": (200, _CLOSED, "application/json", {}),
}


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve *site* on a port of its own; its ``url`` is then set."""
    handler = type("Handler", (_Handler,), {"site": site})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is no news
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
