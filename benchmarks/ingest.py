"""Articles in, and an edition opened on many of them.

* **export**: a WordPress export of 20,000 articles (benchmarks/shared/export.py says how it is made) read into a fresh
  database, cleaned, known by its names, near-duplicates made stories; the peer is lxml's bare iterparse of that same
  file, which builds each item's tree and throws it away. ≤ 30 ×, by the wall clock and by our CPU alike.
* **memory**: the peak of that process beside the peak of one that reads a tenth of the articles. ≤ 1.2 ×.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from benchmarks.shared.databases import KINDS, Databases, databases
from benchmarks.shared.export import NEWEST, write_export
from benchmarks.shared.measuring import Figure, Sample, in_child, turns
from digest import catalogue
from digest.config import Settings
from digest.db import Database
from digest.fetch import Fetcher
from digest.ingest import refresh
from digest.models import Article

SIZES = {"articles": 20_000, "few": 2_000, "turns": 3}
TINY = {"articles": 110, "few": 102, "turns": 1}

_AT = NEWEST + timedelta(hours=1)


def run(sizes: dict[str, int]) -> Iterator[Figure]:
    with databases() as made:
        many = write_export(made.folder / "many.xml", sizes["articles"])
        few = write_export(made.folder / "few.xml", sizes["few"])
        for kind in KINDS:
            yield from _export(made, kind, many, few, sizes)


# ----------------------------------------------------------------------------- an export


def _export(made: Databases, kind: str, many: Path, few: Path, sizes: dict[str, int]) -> Iterator[Figure]:
    pairs = turns(
        sizes["turns"],
        lambda: _read(made, kind, many, sizes["articles"]),
        lambda: in_child("benchmarks.shared.peers:iterparse", path=str(many)),
    )
    name = f"export of {sizes['articles']:,} articles into {kind}"
    yield Figure(f"{name}, wall", [(a.wall, b.wall) for a, b in pairs], "s", at_most=30)
    yield Figure(f"{name}, our CPU", [(a.cpu, b.cpu) for a, b in pairs], "s", at_most=30)
    small = _read(made, kind, few, sizes["few"])
    held = f"{name}, memory beside {sizes['few']:,}"
    yield Figure(held, [(max(a.peak_mb for a, _ in pairs), small.peak_mb)], "MB", at_most=1.2)


def _read(made: Databases, kind: str, export: Path, articles: int) -> Sample:
    with made.fresh(kind) as url:
        sample = in_child("benchmarks.ingest:read_export", url=url, path=str(export))
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
