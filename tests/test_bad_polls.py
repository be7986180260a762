"""Requests that no reader makes, at a server that really runs: a plain status each, nothing of it in the log."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from digest import catalogue
from digest import models as m
from digest.db import Database
from tests import build
from tests.test_worker import free_port, start, stop, wait_for

pytestmark = pytest.mark.slow

ALL = "/feeds/all.rss"
PATHS = [
    "/feeds/../../../etc/passwd", "/feeds/..%2f..%2f..%2fetc%2fpasswd.rss", "/feeds/%2e%2e/%2e%2e/all.rss",
    "/feeds//all.rss", "/feeds/tag//x.rss", "/feeds/all.rss/", "/feeds/all.rss/x.rss", "/feeds/tag/%00.rss",
    "/feeds/tag/a%0d%0aSet-Cookie:%20x.rss", "/feeds/tag/%ff%fe.rss", "/feeds/tag/%ed%a0%80.rss", "/feeds/tag/%.rss",
    "/feeds/all.xml", "/feeds/all.rss.exe", "/feeds/all", "/feeds/", "/feeds/.rss", "/feeds/all.RSS",
    "/feeds/all/9999-99.rss", "/feeds/all/page-0.rss", "/feeds/all/page-99999999999999999999.rss",
    "/feeds/tag/" + "x" * 5_000 + ".rss", "/feeds/any/" + "+".join(f"tag:{n}" for n in range(999)) + ".rss",
    "/feeds/any/tag:a+tag:.rss", "/feeds/private/x.rss", "/feeds/private/../all.rss", "/feeds/tag/'%20OR%201=1--.rss",
    "/feeds/language/%F0%9F%98%80.rss", "/feeds/digest/..%5c..%5cx.atom", "/feeds.opml/x", "//feeds/all.rss",
]  # fmt: skip
ETAGS = ", ".join(f'W/"{n}"' for n in range(100))
HEADS = {
    f"If-None-Match: {ETAGS}": {200},
    f"If-None-Match: {ETAGS}, *": {200, 304},
    "If-None-Match: " + '"' * 3_000: {200},
    "If-None-Match: \xff\xfe": {200},
    "If-Modified-Since: yesterday": {200},
    "If-Modified-Since: Mon, 99 Foo 99999 99:99:99 GMT": {200},
    "If-Modified-Since: Sun, 31 Dec 99999999999999 00:00:00 GMT": {200},
    "If-Modified-Since: " + "9" * 4_000: {200},
    "Accept-Encoding: " + "gzip;q=9," * 300: {200},
    "Accept-Encoding: *;q=0": {406},
    "Range: bytes=0-0,-1,99999999999999999999-": {200},
    "Range: lines=x": {200},
    "Sec-Fetch-Dest: document\r\nAccept-Language: \xff": {200},
    "User-Agent: Feedly (99999999999999999999 subscribers)": {200},
    "A-IM: feed": {200},
    "X: " + "x" * 1_000_000: {400, 431},
    "\r\n".join(f"X-{n}: x" for n in range(9_000)): {200, 400, 431},
    "Content-Length: -1": {400},
    "Content-Length: 5\r\nContent-Length: 6": {400},
    "Transfer-Encoding: nonsense": {200, 400, 501},
    " folded: x": {200, 400},
    "No colon at all": {400},
    "Expect: 200-maybe": {200, 417},
}
LINES = [
    "GET",
    "GET  HTTP/1.1",
    f"G\x00T {ALL} HTTP/1.1",
    f"GET {ALL} HTTP/9.9",
    f"GET {ALL}",
    "\x16\x03\x01\x02\x00\x01",
]


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a running `digest web`, whose log is looked at in the end."""
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    path = folder / "digest.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{path}")
    with database.transaction() as session:
        build.publication(session)
        build.article(session, tags=["Climate"])
        catalogue.bump(session, [session.query(m.Topic).one().id])
    database.close()
    public = {"DIGEST_PUBLIC_URL": f"http://127.0.0.1:{port}"}
    web = start(f"sqlite:///{path}", folder, "web", "--port", str(port), **public)
    try:
        wait_for(lambda: _up(port))
        yield port
    finally:
        _, err = stop(web)
    assert web.returncode in (0, -signal.SIGTERM), err
    assert "Traceback" not in err
    assert "ERROR" not in err.upper()


def _up(port: int) -> bool:
    with suppress(OSError):
        return _status(port, f"GET {ALL} HTTP/1.1", "") == 200
    return False


def _status(port: int, line: str, head: str) -> int | None:
    """What the server says to a request; None if it says nothing and hangs up."""
    request = f"{line}\r\nHost: 127.0.0.1:{port}\r\n{head}\r\nConnection: close\r\n\r\n".replace("\r\n\r\nC", "\r\nC")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        with suppress(OSError):  # it may have answered and hung up before the end of it
            wire.sendall(request.encode("latin-1"))
        got = b""
        with suppress(ConnectionResetError):
            while len(got) < 12 and (piece := wire.recv(1 << 16)):
                got += piece
    return int(got[9:12]) if got.startswith(b"HTTP/1.1 ") else None


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_path_leads_anywhere_but_to_a_plain_answer(site: int, method: str) -> None:
    for path in PATHS:
        assert _status(site, f"{method} {path} HTTP/1.1", "") in (400, 404, 410, 414), path
    for path in PATHS:
        assert _status(site, f"{method} {path} HTTP/1.1", "Sec-Fetch-Dest: document") in (400, 404, 410, 414), path
    assert _status(site, f"{method} {ALL} HTTP/1.1", "") == 200


def test_absurd_fields_get_a_plain_answer(site: int) -> None:
    for head, expected in HEADS.items():
        assert _status(site, f"GET {ALL} HTTP/1.1", head) in expected, head[:60]
    for method in ("POST", "PUT", "DELETE", "TRACE", "PROPFIND"):
        assert _status(site, f"{method} {ALL} HTTP/1.1", "Content-Length: 0") == 405
    assert _status(site, f"GET {ALL} HTTP/1.1", "") == 200


def test_what_is_no_request_ends_in_a_plain_answer(site: int) -> None:
    for line in LINES:
        assert _status(site, line, "") in (200, 400, 505, None), line
    for cut in (1, 20, 40):  # who goes away in the middle
        with socket.create_connection(("127.0.0.1", site)) as wire:
            wire.sendall(f"GET {ALL} HTTP/1.1\r\nHost: x\r\n\r\n".encode()[:cut])
    assert _status(site, f"GET {ALL} HTTP/1.1", "") == 200
