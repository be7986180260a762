"""Feeds of 10,000 topics that many poll while articles arrive.

* **stale**: 2,000 feeds lie ready, an article comes with three of their topics: how many are to be brought up to date
  (everything, and those three), and what one of them costs on 1,000,000 articles beside 10,000 as many to a topic.
* **load**: 200 connections poll a running `digest web` for two minutes, some topics often and all now and then, half
  of them with the ETag that they have, while 500 articles arrive. Nothing but 200 and 304 may come, no answer may lack
  an article that was there five seconds before it was asked for, and the server's memory may not grow after 30 s.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from benchmarks.feeds import _await, _free_port
from benchmarks.shared.catalogue import CATEGORIES, fill
from benchmarks.shared.export import NEWEST
from benchmarks.shared.measuring import ROOT, Figure
from digest import catalogue
from digest import models as m
from digest.db import Database, upgrade_schema
from digest.publishing import STALE_S, Shelf
from tests import build

SIZES = {
    "site": 1_000_000, "topics": 10_000, "small": 10_000, "wanted": 2_000, "changes": 20, "connections": 200,
    "seconds": 120, "settled": 30, "arrivals": 500,
}  # fmt: skip
TINY = {
    "site": 1_200, "topics": 40, "small": 600, "wanted": 20, "changes": 2, "connections": 4, "seconds": 2,
    "settled": 1, "arrivals": 6,
}  # fmt: skip

_URL = "http://127.0.0.1"
#: Seconds within which an article is in every answer; and between two polls of one connection, on average.
_LATE_S, _PAUSE_S = 5.0, 0.25
_NUMBER = re.compile(rb"https://news\.example/(\d+)")


def run(sizes: dict[str, int]) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="digest-bench-") as made:
        large = _Site(Path(made) / "large", sizes["site"], sizes["topics"])
        few = max(sizes["topics"] * sizes["small"] // sizes["site"], 4)
        small = _Site(Path(made) / "small", sizes["small"], few)
        yield from _stale(large, small, sizes)
        yield from _load(large, sizes)
        large.database.close()
        small.database.close()


class _Site:
    """A catalogue to which articles come."""

    def __init__(self, folder: Path, articles: int, topics: int) -> None:
        folder.mkdir()
        self.folder, self.topics, self.last = folder, topics, articles
        self.url = f"sqlite:///{folder}/digest.sqlite3"
        self.database = Database(self.url)
        upgrade_schema(self.database)
        fill(self.database, articles, topics)

    def path(self, topic: int, extension: str = "rss") -> str:
        return f"/feeds/tag/tag-{topic}.{extension}"

    def publish(self, topics: list[int]) -> int:
        """An article with these tags; its number."""
        self.last += 1
        with self.database.transaction() as session:
            url = f"https://news.example/{self.last}"
            when = NEWEST + timedelta(seconds=self.last)
            row = build.article(session, url=url, canonical_url=url, feed_id=url, published_at=when)
            ids = [CATEGORIES + topic + 1 for topic in topics]
            session.add_all(m.ArticleTopic(article_id=row.id, topic_id=i, position=n) for n, i in enumerate(ids))
            session.flush()
            catalogue.bump(session, ids)
        return self.last


# ----------------------------------------------------------------------------- what an article makes stale


class _Desk:
    """A shelf with feeds on it, at a time of its own."""

    def __init__(self, site: _Site, wanted: int) -> None:
        self.now, self.site = 100.0, site
        self.shelf = Shelf(site.database, _URL, clock=lambda: self.now, limit=2**30)
        self.paths = [site.path(n) for n in range(min(wanted, site.topics))]
        for path in self.paths:
            assert self.shelf.entry(path) is not None

    def change(self, turn: int) -> tuple[int, float]:
        """An article of three topics comes: how many feeds it made stale, and milliseconds for each of them."""
        topics = [(turn * 3 + k) % len(self.paths) for k in range(3)]
        self.site.publish(topics)
        self.now += STALE_S
        self.shelf.entry(self.paths[0])  # the marks are read again
        stale = [path for path in self.paths if self.shelf.ready(path) is None]
        began = time.perf_counter()
        for path in stale:
            self.shelf.entry(path)
        return len(stale), (time.perf_counter() - began) * 1000 / max(len(stale), 1)


def _stale(large: _Site, small: _Site, sizes: dict[str, int]) -> Iterator[Figure]:
    desk, beside = _Desk(large, sizes["wanted"]), _Desk(small, sizes["wanted"])
    pairs = [(desk.change(turn), beside.change(turn)) for turn in range(1, sizes["changes"] + 1)]
    desk.shelf.close()
    beside.shelf.close()
    name = f"feeds that an article of three topics makes stale, of {len(desk.paths):,}"
    yield Figure(name, [(float(ours[0]), None) for ours, _ in pairs], "feeds", at_most=3)
    name = f"one of them brought up to date, on {sizes['site']:,} articles beside {sizes['small']:,}"
    yield Figure(name, [(ours[1], peer[1]) for ours, peer in pairs], "ms", at_most=2)


# ----------------------------------------------------------------------------- polled by many


@dataclass
class _Seen:
    """What was asked and answered. ``due``: of each topic, what came and when; ``held``: a path's ETag and newest."""

    due: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    held: dict[str, tuple[str, int]] = field(default_factory=dict)
    answers: int = 0
    errors: list[str] = field(default_factory=list)
    late: float = 0.0


def _load(site: _Site, sizes: dict[str, int]) -> Iterator[Figure]:
    seen, memory = _Seen(), []
    with _web(site) as (pid, port):
        stop = time.monotonic() + sizes["seconds"]
        arriving = threading.Thread(target=_arrive, args=(site, seen, sizes))
        arriving.start()

        async def watch() -> None:
            for until in (sizes["settled"], sizes["seconds"]):
                await asyncio.sleep(max(until + stop - sizes["seconds"] - time.monotonic() - 0.1, 0))
                memory.append(_rss_mb(pid))

        async def all_of_it() -> None:
            polls = (_poll(site, port, stop, seen, number) for number in range(sizes["connections"]))
            await asyncio.gather(watch(), *polls)

        asyncio.run(all_of_it())
        arriving.join()
    if seen.errors:
        raise RuntimeError(f"{len(seen.errors)} polls failed, the first: {seen.errors[0]}")
    yield Figure("polls answered a second, none with an error", [(seen.answers / sizes["seconds"], None)], "polls/s")
    yield Figure("an article's latest way into an answer", [(max(seen.late, 0.001), None)], "s", at_most=_LATE_S)
    yield Figure("the server's memory at the end beside after a quarter", [(memory[1], memory[0])], "MB", at_most=1.1)


def _arrive(site: _Site, seen: _Seen, sizes: dict[str, int]) -> None:
    dice, pause = random.Random(3), sizes["seconds"] / sizes["arrivals"] * 0.9
    for _ in range(sizes["arrivals"]):
        topics = dice.sample(range(min(site.topics, 200)), 3)  # where most look
        number = site.publish(topics)
        for topic in topics:
            seen.due.setdefault(topic, []).append((time.monotonic(), number))
        time.sleep(pause)


async def _poll(site: _Site, port: int, stop: float, seen: _Seen, number: int) -> None:
    dice = random.Random(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    while time.monotonic() < stop:
        topic = int(min(dice.paretovariate(0.5) - 1, 1e9)) % site.topics if dice.random() < 0.8 else dice.randrange(
            site.topics
        )  # fmt: skip
        path = site.path(topic, dice.choices(("rss", "atom", "json"), (6, 3, 1))[0])
        condition = seen.held.get(path) if dice.random() < 0.5 else None
        try:
            await _asked(reader, writer, path, topic, condition, seen)
        except (OSError, RuntimeError, asyncio.IncompleteReadError) as problem:
            seen.errors.append(f"{path}: {problem!r}")
            break
        await asyncio.sleep(dice.uniform(0, 2 * _PAUSE_S))
    writer.close()


async def _asked(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, topic: int,
    condition: tuple[str, int] | None, seen: _Seen,
) -> None:  # fmt: skip
    began = time.monotonic()
    fields = f"If-None-Match: {condition[0]}\r\n" if condition else ""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n{fields}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, lines = head.split(" ", 2)[1], dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    if status == "304" and condition:
        newest = condition[1]
    elif status == "200":
        body = zlib.decompress(await reader.readexactly(int(lines["content-length"])), 31)
        newest = max(map(int, _NUMBER.findall(body)))
        seen.held[path] = (lines["etag"], newest)
    else:
        raise RuntimeError(head)
    seen.answers += 1
    lacked = [came for came, article in seen.due.get(topic, ()) if article > newest]
    seen.late = max(seen.late, began - min(lacked, default=began))


@contextmanager
def _web(site: _Site) -> Iterator[tuple[int, int]]:
    port = _free_port()
    (site.folder / "digest.toml").touch()
    environ = {
        **os.environ, "DIGEST_DATABASE__URL": site.url, "DIGEST_DATA_DIR": str(site.folder),
        "DIGEST_PUBLIC_URL": f"{_URL}:{port}",
    }  # fmt: skip
    command = [sys.executable, "-m", "digest", "--config", str(site.folder / "digest.toml"), "web", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environ)
    try:
        _await(port)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
