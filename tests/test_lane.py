"""The short way through the server: the same answers as the long one, for what it takes, and nothing it should not."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from digest import catalogue
from digest import models as m
from digest.db import Database
from digest.publishing import Shelf
from digest.web import lane as lanes
from digest.web.feeds import FeedsApp
from digest.web.lane import lane
from tests import build

ALL = "/feeds/all.rss"
HEAD = f"GET {ALL} HTTP/1.1\r\nHost: x\r\n"


_QUIETLY: Any = {"lifespan": "off", "log_level": "critical", "server_header": False, "ws": "none"}
FIELDS = (b"Host", b"Content-Length", b"If-None-Match", b"X", b"accept-encoding")


class Wire:
    """Two servers on one shelf, with the lane and without, and raw requests to them."""

    def __init__(self, shelf: Shelf) -> None:
        self.taken: list[bytes] = []
        taken = self.taken

        class Watched(lane(shelf)):  # type: ignore[misc]
            def _answered(self, data: bytes) -> Any:
                answer = super()._answered(data)
                if answer is not None:
                    taken.append(data)
                return answer

        self.servers = [
            uvicorn.Server(uvicorn.Config(FeedsApp(shelf), port=0, http=http, **_QUIETLY))
            for http in (Watched, "httptools")
        ]
        self.threads = [threading.Thread(target=server.run) for server in self.servers]
        for thread in self.threads:
            thread.start()
        while not all(server.started for server in self.servers):
            time.sleep(0.01)
        self.ports = [server.servers[0].sockets[0].getsockname()[1] for server in self.servers]

    def close(self) -> None:
        for server in self.servers:
            server.should_exit = True
        for thread in self.threads:
            thread.join()

    def ask(self, which: int, *pieces: bytes, pause: float = 0.05) -> bytes:
        """Everything that comes back until it is quiet or closed."""
        with socket.create_connection(("127.0.0.1", self.ports[which]), timeout=10) as peer:
            for n, piece in enumerate(pieces):
                if n:
                    time.sleep(pause)
                with suppress(ConnectionError):  # closed under our hands: what was said before counts
                    peer.sendall(piece)
            return _until_quiet(peer)

    def both(self, *pieces: bytes) -> tuple[bytes, bytes]:
        return _timeless(self.ask(0, *pieces)), _timeless(self.ask(1, *pieces))


def _until_quiet(peer: socket.socket) -> bytes:
    got = b""
    peer.settimeout(8)
    try:
        while piece := peer.recv(1 << 20):
            got += piece
            peer.settimeout(0.06)
    except (TimeoutError, ConnectionError):
        pass
    return got


def _timeless(answer: bytes) -> bytes:
    """An answer with its fields in one order, without the date."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *fields = re.sub(rb"(?i)\r\ndate: [^\r]*", b"", head).split(b"\r\n")
    return b"\n".join([first, *sorted(fields), b"", body])


@pytest.fixture(scope="module")
def wire(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    path = tmp_path_factory.mktemp("lane") / "digest.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{path}")
    with database.transaction() as session:
        build.publication(session)
        for n in range(3):
            build.article(session, tags=["Climate"], age=timedelta(hours=n))
        build.digest(session)
        catalogue.bump(session, [t.id for t in session.query(m.Topic)])
    shelf = Shelf(database, "https://news.example")
    patch = pytest.MonkeyPatch()
    patch.setattr("digest.publishing.shelf.FRESH_S", 600.0)
    patch.setattr("digest.publishing.shelf.STALE_S", 600.0)
    for name in ("all.rss", "tag/climate.atom", "digest/morning.json"):
        shelf.entry(f"/feeds/{name}")
    made = Wire(shelf)
    yield made
    made.close()
    patch.undo()
    shelf.close()
    database.close()


TAKEN = [
    HEAD,
    HEAD.replace("GET", "HEAD"),
    HEAD + "Accept-Encoding: gzip, br\r\n",
    HEAD + "ACCEPT-encoding:gzip\r\nConnection: keep-alive\r\nUser-Agent: x\r\n",
    HEAD + "If-None-Match: *\r\n",
    HEAD + 'If-None-Match: "a"\r\nIf-None-Match: *\r\n',
    HEAD + "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
    HEAD + "Range: bytes=0-9\r\n",
    HEAD + "Sec-Fetch-Dest: empty\r\n",
    HEAD.replace("all.rss", "tag/climate.atom") + "Accept-Encoding: identity\r\n",
    HEAD.replace("all.rss", "digest/morning.json"),
]
LEFT = [
    HEAD.replace("GET", "POST"),
    HEAD.replace("GET", "PURGE"),
    HEAD.replace("1.1", "1.0"),
    HEAD.replace("/feeds/all.rss", "/feeds/all.rss?x=1"),
    HEAD.replace("all.rss", "%61ll.rss"),
    HEAD.replace("all.rss", "../feeds/all.rss"),
    HEAD.replace("all.rss", "none.rss"),
    HEAD.replace("all.rss", "all.exe"),
    HEAD.replace("all.rss", "tag/none.rss"),
    HEAD + "Content-Length: 0\r\n",
    HEAD + "Transfer-Encoding: chunked\r\n",
    HEAD + "Connection: close\r\n",
    HEAD + "Connection: Upgrade\r\nUpgrade: websocket\r\n",
    HEAD + "Expect: 100-continue\r\n",
    HEAD + "Host: y\r\n",
    HEAD + "Sec-Fetch-Dest: document\r\n",
    HEAD + "If-Match: \"x\"\r\n",
    HEAD + "Accept-Encoding: identity;q=0\r\n",
    HEAD + "User-Agent: Feedly (3 subscribers)\r\n",
    HEAD + "X: a\r\n folded: b\r\n",
    HEAD + "Space : x\r\n",
    HEAD + "No colon\r\n",
    HEAD + "X: a\rb\r\n",
    HEAD + "X: a\x00b\r\n",
    HEAD + "If-None-Match: \x01\r\n",
    HEAD + "X: a\nContent-Length: 5\r\n",
    f"GET {ALL} HTTP/1.1\r\n",
]  # fmt: skip


@pytest.mark.parametrize("head", TAKEN)
def test_the_lane_answers_as_the_long_way_does(wire: Wire, head: str) -> None:
    before = len(wire.taken)
    ours, theirs = wire.both(head.encode() + b"\r\n")
    assert ours == theirs
    assert ours.startswith((b"HTTP/1.1 200", b"HTTP/1.1 304"))
    assert len(wire.taken) == before + 1


@pytest.mark.parametrize("head", LEFT, ids=range(len(LEFT)))
def test_what_is_unusual_goes_the_long_way(wire: Wire, head: str) -> None:
    before = len(wire.taken)
    ours, theirs = wire.both(head.encode() + b"\r\n")
    assert ours == theirs
    assert len(wire.taken) == before


def test_requests_in_pieces_and_several_at_once_are_answered_in_order(wire: Wire) -> None:
    plain = HEAD.encode() + b"\r\n"
    gone = plain.replace(b"all.rss", b"none.rss")
    for pieces in (
        (plain[:20], plain[20:]), (plain + plain,), (gone + plain,), (plain + gone[:30], gone[30:]), (gone, plain),
        (plain, plain, gone, plain), (plain[:-1], b"\n" + plain), (b"\r\n" + plain,),
    ):  # fmt: skip
        answers = [wire.ask(which, *pieces) for which in (0, 1)]
        assert re.findall(rb"HTTP/1.1 \d+", answers[0]) == re.findall(rb"HTTP/1.1 \d+", answers[1]) != []


junk = st.binary(max_size=12)


@given(st.lists(st.tuples(st.sampled_from(FIELDS), junk)))
@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_lane_takes_the_parser_would_have_read_alike(
    wire: Wire, fields: list[tuple[bytes, bytes]]
) -> None:
    before = len(wire.taken)
    request = HEAD.encode() + b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n"
    ours = wire.ask(0, request)
    if len(wire.taken) > before:
        assert _timeless(ours) == _timeless(wire.ask(1, request))


def test_a_head_without_end_is_refused(wire: Wire) -> None:
    answer = wire.ask(0, HEAD.encode(), *[b"X: " + b"x" * 30_000 + b"\r\n"] * 40, pause=0.001)
    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""  # closed under the sender's hands
    assert wire.ask(0, HEAD.encode() + b"X: " + b"x" * 40_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_client_that_never_finishes_is_let_go(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "SLOW_S", 0.3)
    for pieces in ((HEAD.encode(),), (b"",), (HEAD.encode() + b"\r\n", HEAD.encode())):
        with socket.create_connection(("127.0.0.1", wire.ports[0]), timeout=10) as peer:
            for piece in pieces:
                peer.sendall(piece)
                time.sleep(0.05)
            got = b""
            while piece := peer.recv(1 << 20):  # until it is closed
                got += piece
        assert b"HTTP/1.1 408 Request Timeout\r\n" in got
