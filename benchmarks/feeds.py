"""A poll of a feed, beside nginx serving the same bytes as files.

One feed of 20 long articles, exported as `digest feeds build` does, behind nginx (one worker, the shipped
config/nginx/feeds.conf) and behind our server (one process). The same 32 connections ask each in turn; what is counted
is the CPU of the server's process for a request, by /proc: ours ≤ 4 × nginx, stretch 3.

* **plain, gzip, 304**: a whole feed, the same compressed, and nothing new.
* **without the lane**: the same through uvicorn and ASGI alone, to see what the lane is worth.
* **rendered**: the feed read from the database and written anew for each request, as many systems do.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.shared.measuring import ROOT, Figure
from digest import catalogue
from digest import models as m
from digest.db import Database, upgrade_schema
from digest.feeds import FORMATS
from digest.publishing import Shelf
from digest.web.feeds import FeedsApp
from digest.web.lane import lane
from tests import build

SIZES = {"articles": 20, "requests": 12_000, "rendered": 300, "turns": 5, "nginx": 1}
TINY = {"articles": 20, "requests": 3_200, "rendered": 32, "turns": 1, "nginx": 0}

_PATH = "/feeds/all.rss"
_CONNECTIONS = 32
_URL = "http://127.0.0.1"


def run(sizes: dict[str, int]) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="digest-bench-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        url = _site(folder, sizes["articles"])
        with _ours(url, "lane") as lane_at, _ours(url, "asgi") as asgi_at, _ours(url, "rendered") as rendered_at:
            if not sizes["nginx"]:
                yield from _figures(sizes, lane_at, asgi_at, rendered_at, None)
                return
            with _nginx(folder) as nginx_at:
                yield from _figures(sizes, lane_at, asgi_at, rendered_at, nginx_at)


Server = tuple[int, int]  # pid, port


def _figures(
    sizes: dict[str, int], by_lane: Server, by_asgi: Server, rendered: Server, nginx: Server | None
) -> Iterator[Figure]:
    kinds = {"plain": "", "gzip": "Accept-Encoding: gzip\r\n", "304": None}
    for kind, fields in kinds.items():
        rounds = [
            tuple(s and _cost(s, fields, sizes["requests"]) for s in (by_lane, nginx, by_asgi))
            for _ in range(sizes["turns"])
        ]
        yield Figure(f"{kind}, CPU a request", [(r[0], r[1]) for r in rounds], "µs", at_most=4)  # type: ignore[misc]
        yield Figure(f"{kind}, without the lane", [(r[2], r[1]) for r in rounds], "µs")  # type: ignore[misc]
    anew = _cost(rendered, "", sizes["rendered"])
    yield Figure("rendered for each request", [(anew, nginx and _cost(nginx, "", sizes["requests"]))], "µs")


# ----------------------------------------------------------------------------- asking


def _cost(server: Server, fields: str | None, requests: int) -> float:
    """Microseconds of the server's CPU for a request; *fields* None: with the ETag that it gave."""
    pid, port = server
    head = f"GET {_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n"
    if fields is None:
        first = _once(port, head)
        etag = next(line for line in first.split("\r\n") if line.lower().startswith("etag:")).partition(": ")[2]
        fields = f"If-None-Match: {etag}\r\n"
    request = (head + fields + "\r\n").encode()
    _ask(port, request, _CONNECTIONS * 4)  # warm
    before = _cpu(pid)
    _ask(port, request, requests)
    return (_cpu(pid) - before) / requests * 1e6


def _once(port: int, head: str) -> str:
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall((head + "Connection: close\r\n\r\n").encode())
        got = b""
        while piece := peer.recv(1 << 20):
            got += piece
    return got.partition(b"\r\n\r\n")[0].decode("latin-1")


def _ask(port: int, request: bytes, requests: int) -> None:
    """Keep that many connections busy with one request each until all are answered."""
    peers = {}
    poll = select.epoll()
    for _ in range(_CONNECTIONS):
        peer = socket.create_connection(("127.0.0.1", port))
        peers[peer.fileno()] = peer
        poll.register(peer, select.EPOLLIN)
    left = requests
    waiting: dict[int, int | None] = {}
    for number, peer in peers.items():
        peer.sendall(request)
        waiting[number] = None
        left -= 1
    while waiting:
        for number, _ in poll.poll(10):
            peer, due = peers[number], waiting.get(number)
            piece = peer.recv(1 << 20)
            if due is None:
                due = _length(piece)
            due -= len(piece)
            waiting[number] = due
            if due == 0:
                del waiting[number]
                if left > 0:
                    left -= 1
                    waiting[number] = None
                    peer.sendall(request)
    poll.close()
    for peer in peers.values():
        peer.close()


def _length(piece: bytes) -> int:
    """Bytes of the whole answer that begins with *piece*."""
    head, end, _ = piece.partition(b"\r\n\r\n")
    if not end or not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 304")):
        raise RuntimeError(f"the server answered {piece[:200]!r}")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and not head.startswith(b"HTTP/1.1 304"):
            length = int(value)
    return len(head) + 4 + length


def _cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


# ----------------------------------------------------------------------------- the servers


def _site(folder: Path, articles: int) -> str:
    """A database with one feed worth asking for, and its export beside it."""
    url = f"sqlite:///{folder}/digest.sqlite3"
    database = Database(url)
    upgrade_schema(database)
    words = random.Random(7)
    with database.transaction() as session:
        build.publication(session)
        for n in range(articles):
            body = " ".join("".join(words.choices("etaoinshrdlu", k=words.randint(2, 9))) for _ in range(420))
            build.article(session, tags=["Climate"], age=timedelta(hours=n), body_html=f"<p>{body}</p>")
        catalogue.bump(session, [t.id for t in session.query(m.Topic)])
    shelf = Shelf(database, _URL)
    shelf.build(folder / "out")
    shelf.close()
    database.close()
    return url


@contextmanager
def _ours(url: str, mode: str) -> Iterator[Server]:
    port = _free_port()
    command = [sys.executable, "-m", "benchmarks.feeds", url, str(port), mode]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        _await(port)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _nginx(folder: Path) -> Iterator[Server]:
    port, conf = _free_port(), folder / "nginx.conf"
    feeds = (ROOT / "config/nginx/feeds.conf").read_text().replace("/srv/digest", str(folder / "out"))
    user = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(
        f"{user} worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log; daemon off;\n"
        f"events {{ worker_connections 512; }}\n"
        f"http {{ access_log off; keepalive_requests 10000000; sendfile on; tcp_nopush on;\n"
        f"server {{ listen 127.0.0.1:{port};\n{feeds}\n}} }}\n"
    )
    process = subprocess.Popen([_need_nginx(), "-c", str(conf)])
    try:
        _await(port)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield int(children[0]), port
    finally:
        process.terminate()
        process.wait()


def _need_nginx() -> str:
    """nginx, from Debian if it must be and may be."""
    for attempt in (0, 1):
        if found := shutil.which("nginx") or shutil.which("/usr/sbin/nginx"):
            return found
        if attempt == 0 and os.geteuid() == 0 and Path("/etc/debian_version").exists():
            for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "nginx-light"]):
                subprocess.run(["apt-get", *words], check=True, stdout=subprocess.DEVNULL)
    raise RuntimeError("no nginx to compare with; run `apt-get install nginx-light`, then again")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _await(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server did not come up")


def main(url: str, port: str, mode: str) -> None:
    """One server of ours: with the lane, without it, or rendering for each request."""
    import uvicorn

    shelf = Shelf(Database(url), _URL)

    async def rendered(scope: Any, _receive: Any, send: Any) -> None:
        view = shelf.view(scope["path"])
        assert view is not None
        body = FORMATS["rss"].write(view)
        head = [(b"content-type", b"application/rss+xml"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    app = rendered if mode == "rendered" else FeedsApp(shelf)
    http = lane(shelf) if mode == "lane" else "httptools"
    uvicorn.run(app, port=int(port), http=http, lifespan="off", access_log=False, log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
