"""Readers in: a CSV file of a million confirmed subscribers, some with a zone and a language, imported into a digest.

There is no peer that does the same, so the bar is a figure: ≥ 20,000 rows a second on PostgreSQL; the peak of that
process beside the peak of one that reads a tenth of the file: ≤ 1.2 ×.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.shared.databases import KINDS, Databases, databases
from benchmarks.shared.export import NEWEST
from benchmarks.shared.measuring import Figure, Sample, called
from digest import audience
from digest.db import Database
from tests import build

SIZES = {"rows": 1_000_000, "apart": 1}
TINY = {"rows": 500, "apart": 0}

_ZONES = ("", "", "", "Europe/Berlin", "America/New_York", "Africa/Lagos")


def run(sizes: dict[str, int]) -> Iterator[Figure]:
    rows, few = sizes["rows"], sizes["rows"] // 10
    with databases() as made:
        many, tenth = _file(made.folder, rows), _file(made.folder, few)
        for kind in KINDS:
            sample = _import(made, kind, many, rows, sizes["apart"])
            small = _import(made, kind, tenth, few, sizes["apart"])
            name, bar = f"{rows:,} rows of CSV into {kind}", 20_000 if kind == "PostgreSQL" else None
            yield Figure(f"{name}, rows a second", [(rows / sample.wall, None)], "/s", at_least=bar)
            yield Figure(f"{name}, memory beside {few:,}", [(sample.peak_mb, small.peak_mb)], "MB", at_most=1.2)


def _file(folder: Path, rows: int) -> Path:
    path = folder / f"readers-{rows}.csv"
    with path.open("w", encoding="utf-8") as stream:
        stream.write("email,timezone,language,status\n")
        for n in range(rows):
            stream.write(f"Reader.{n}@mail{n % 50}.example,{_ZONES[n % 6]},{'de' if n % 5 == 0 else ''},active\n")
    return path


def _import(made: Databases, kind: str, file: Path, rows: int, apart: int) -> Sample:
    with made.fresh(kind) as url:
        sample = called("benchmarks.subscribers:import_file", apart=apart, url=url, path=str(file))
    if sample.result["new"] != rows:
        raise RuntimeError(f"not all rows came in: {sample.result}")
    return sample


def import_file(url: str, path: str) -> dict[str, Any]:
    """As `digest subscribers import FILE --digest morning --confirmed` does."""
    database = Database(url)
    with database.transaction() as session:
        build.publication(session)
        build.digest(session, zone="subscriber")
    report = audience.import_csv(database, Path(path), digest="morning", confirmed=True, now=NEWEST)
    database.close()
    return asdict(report)
