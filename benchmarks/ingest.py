"""Articles in, and an edition opened on many of them; on SQLite and on PostgreSQL.

* **export**: a WordPress export of 20,000 articles (benchmarks/shared/export.py says how it is made) read into a fresh
  database, cleaned, known by its names, near-duplicates made stories. The peer is lxml's bare iterparse of that same
  file, which builds each item's tree and throws it away: ≤ 30 × by the wall clock. Our CPU, of both processes (one
  reads and stores, the other cleans), is told beside it.
* **memory**: the peak of that process beside the peak of one that reads a tenth of the articles: ≤ 1.2 ×.
* **poll**: a feed of 50 full articles that brings nothing new, answered with 304 or with the same bytes again: ≤ 20 ms
  of our own CPU.
* **edition**: opened, composed and released on 1,000,000 articles beside one on 10,000, the same few hundred
  candidates in both: ≤ 1.5 ×.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from benchmarks.shared.catalogue import fill
from benchmarks.shared.databases import KINDS, Databases, databases
from benchmarks.shared.export import NEWEST, write_export
from benchmarks.shared.feed import ITEMS, served_feed
from benchmarks.shared.measuring import Figure, Sample, called, cpu_seconds, turns
from digest import catalogue
from digest.audience import Keys
from digest.config import Settings
from digest.db import Database
from digest.editions import DigestFields, Editor, Setup
from digest.fetch import Fetcher
from digest.ingest import refresh
from digest.models import Article, Digest, EditionArticle
from digest.rendering import Renderer
from digest.sending import Post
from tests import build

SIZES = {
    "articles": 20_000, "few": 2_000, "turns": 1, "apart": 1,
    "polls": 100, "site": 1_000_000, "small": 10_000, "openings": 7,
}  # fmt: skip
TINY = {"articles": 110, "few": 102, "turns": 1, "polls": 2, "site": 1_200, "small": 1_000, "openings": 1, "apart": 0}

_AT = NEWEST + timedelta(hours=1)
_READERS = 50


def run(sizes: dict[str, int]) -> Iterator[Figure]:
    with databases() as made, served_feed() as site:
        many = write_export(made.folder / "many.xml", sizes["articles"])
        few = write_export(made.folder / "few.xml", sizes["few"])
        for kind in KINDS:
            yield from _export(made, kind, many, few, sizes)
            yield from _poll(made, kind, site, sizes)
            yield _edition(made, kind, sizes)


# ----------------------------------------------------------------------------- an export


def _export(made: Databases, kind: str, many: Path, few: Path, sizes: dict[str, int]) -> Iterator[Figure]:
    pairs = turns(
        sizes["turns"],
        lambda: _read(made, kind, many, sizes["articles"], sizes["apart"]),
        lambda: called("benchmarks.shared.peers:iterparse", apart=sizes["apart"], path=str(many)),
    )
    name = f"export of {sizes['articles']:,} articles into {kind}"
    yield Figure(f"{name}, wall", [(a.wall, b.wall) for a, b in pairs], "s", at_most=30)
    yield Figure(f"{name}, our CPU", [(a.cpu, b.cpu) for a, b in pairs], "s")
    small = _read(made, kind, few, sizes["few"], sizes["apart"])
    held = f"{name}, memory beside {sizes['few']:,}"
    yield Figure(held, [(max(a.peak_mb for a, _ in pairs), small.peak_mb)], "MB", at_most=1.2)


def _read(made: Databases, kind: str, export: Path, articles: int, apart: int) -> Sample:
    with made.fresh(kind) as url:
        sample = called("benchmarks.ingest:read_export", apart=apart, url=url, path=str(export))
    got = sample.result
    if (got["new"], got["errors"]) != (articles, []) or not 0 < got["stories"] < articles:
        raise RuntimeError(f"{export} gave {got}")
    return sample


def read_export(url: str, path: str) -> dict[str, Any]:
    """Read an export into an empty database, as `digest sources add` and `digest ingest` do."""
    database = Database(url)
    with database.transaction() as session:
        catalogue.add_source(session, "gazette", kind="wxr", location=path, at=_AT)
    report = refresh(database, Fetcher(Settings.load(None, {}).fetch), at=_AT, names=["gazette"])[0]
    with database.reading() as session:
        stories = session.scalar(select(func.count(Article.story_id.distinct())))
    database.close()
    return {"new": report.new, "errors": report.errors, "stories": stories}


# ----------------------------------------------------------------------------- a poll


def _poll(made: Databases, kind: str, site: str, sizes: dict[str, int]) -> Iterator[Figure]:
    for path, answer in (("conditional", "304"), ("plain", "the same bytes")):
        with made.fresh(kind) as url:
            given = {"url": url, "location": f"{site}/{path}", "polls": sizes["polls"]}
            spent = called("benchmarks.ingest:poll", apart=sizes["apart"], **given).result
        yield Figure(f"poll answered with {answer}, {kind}, our CPU", [(ms, None) for ms in spent], "ms", at_most=20)


def poll(url: str, location: str, polls: int) -> list[float]:
    """Read a feed, then ask for it again and again; milliseconds of CPU of each asking."""
    database = Database(url)
    fetcher = Fetcher(Settings.load(None, {"DIGEST_FETCH__ALLOW_HOSTS": "127.0.0.1"}).fetch)
    with database.transaction() as session:
        catalogue.add_source(session, "gazette", kind="feed", location=location, at=_AT)
    first = refresh(database, fetcher, at=_AT)[0]
    assert first.new == ITEMS, first
    spent = []
    for n in range(1, polls + 1):
        before = cpu_seconds()
        report = refresh(database, fetcher, at=_AT + n * timedelta(minutes=10))[0]
        spent.append((cpu_seconds() - before) * 1000)
        assert (report.new, report.changed, report.unchanged, report.errors) == (0, 0, ITEMS, []), report
    database.close()
    return spent


# ----------------------------------------------------------------------------- an edition


def _edition(made: Databases, kind: str, sizes: dict[str, int]) -> Figure:
    with made.fresh(kind) as many, made.fresh(kind) as few:
        large, small = _Desk(many, sizes["site"]), _Desk(few, sizes["small"])
        dates = [NEWEST - n * timedelta(days=8) for n in range(sizes["openings"], -1, -1)]
        for desk in (large, small):
            desk.open(dates[0])  # templates compile, pages come in
        pairs = [(large.open(at), small.open(at)) for at in dates[1:]]
        large.close()
        small.close()
    name = f"edition opened on {sizes['site']:,} articles beside {sizes['small']:,}, {kind}"
    return Figure(name, pairs, "ms", at_most=1.5)


class _Desk:
    """An editor over so many articles, with a digest of one category and a tag, and some readers."""

    def __init__(self, url: str, articles: int) -> None:
        self.database = Database(url)
        fill(self.database, articles)
        post, renderer = Post("https://news.example", "news.example", Keys(b"t" * 32, b"m" * 32)), Renderer()
        self.editor = Editor(self.database, renderer, post, live=True)
        wanted = DigestFields(categories=("category-1",), tags=("tag-5",), schedule="0 7 * * *")
        digest = Setup(self.database, renderer).add("morning", wanted, NEWEST - timedelta(days=365))
        with self.database.transaction() as session:
            row = session.get_one(Digest, digest)
            for _ in range(_READERS):
                build.subscription(session, row)

    def open(self, at: datetime) -> float:
        """Open, compose and release an edition; milliseconds."""
        began = time.perf_counter()
        edition = self.editor.open_manual("morning", at)
        self.editor.compose(edition)
        self.editor.release(edition)
        spent = (time.perf_counter() - began) * 1000
        with self.database.reading() as session:
            pool = session.scalar(select(func.count()).where(EditionArticle.edition_id == edition))
        assert pool, "an edition without candidates measures nothing"
        return spent

    def close(self) -> None:
        self.database.close()
