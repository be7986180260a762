"""A feed of 50 full articles over real HTTP on this machine; at one of its addresses it knows conditions."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from html import escape

from benchmarks.shared.export import NEWEST, PACE, Post, posts

ITEMS = 50
_ETAG = '"of-the-hour"'


def _body() -> bytes:
    items = "".join(_item(n, post) for n, post in enumerate(posts(ITEMS)))
    return (
        '<?xml version="1.0" encoding="UTF-8"?><rss version="2.0" '
        'xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel><title>The Gazette</title>'
        f"<link>https://gazette.example/</link><description>News</description>{items}</channel></rss>"
    ).encode()


def _item(n: int, post: Post) -> str:
    return (
        f"<item><title>{escape(post.title)}</title><link>https://gazette.example/{n}/</link>"
        f"<guid isPermaLink='false'>https://gazette.example/?p={n}</guid>"
        f"<pubDate>{format_datetime(NEWEST - n * PACE)}</pubDate>"
        f"<content:encoded>{escape(post.body)}</content:encoded></item>"
    )


@contextmanager
def served_feed() -> Iterator[str]:
    """The server's address; ``/conditional`` and ``/plain`` are the feed."""
    body = _body()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known = self.path == "/conditional"
            unchanged = known and self.headers.get("If-None-Match") == _ETAG
            self.send_response(304 if unchanged else 200)
            if known:
                self.send_header("ETag", _ETAG)
            self.send_header("Content-Type", "application/rss+xml; charset=utf-8")
            if not unchanged:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not unchanged:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
