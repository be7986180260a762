"""Every file of a folder ends in articles or one clear error, in a process of its own: five seconds, 500 MB.

The folder is the corpus where one is given, else the shipped forms and some that are broken. With
WRITE_TABLES=1 the corpus run writes its table into docs/sources.md.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data" / "same-articles"
PAGE = ROOT / "docs" / "sources.md"
MEGABYTES, SECONDS = 500, 5.0

# Reads files, a path a line, with limits of time and memory for each one; writes what became of them, a line each.
CHILD = """
import json, signal, sys, time
from digest.errors import SourceError
from digest.fetch import Fetcher
from digest.sources import KINDS
from digest.text import clean
from digest.types import CleanArticle, RawArticle
from tests.memory import peak_kb

class Limits:
    timeout_s, max_bytes, allow_hosts = 1.0, 10_000_000, ()

fetcher = Fetcher(Limits())
for line in sys.stdin:
    kind, path = line.rstrip("\\n").split(" ", 1)
    signal.alarm(SECONDS + 1)
    began, articles, skipped, error, code = time.process_time(), 0, [], "", ""
    try:
        for item in KINDS[kind](path, {"url": "https://x.example/:path/"}, fetcher).fetch({}).items:
            made = clean(item) if isinstance(item, RawArticle) else item
            if isinstance(made, CleanArticle):
                articles += 1
            else:
                skipped.append(made.reason)
    except SourceError as e:
        error, code = str(e), e.code
    told = dict(path=path, kind=kind, articles=articles, skipped=skipped, error=error, code=code,
                seconds=time.process_time() - began, peak=peak_kb() // 1024)
    print(json.dumps(told), flush=True)
""".replace("SECONDS", str(int(SECONDS)))


@dataclass
class Tally:
    files: int = 0
    articles: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    peak: int = 0


def read(files: Iterable[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Read (kind, path) pairs; each one is held to the limits."""
    wanted = [f"{kind} {path}" for kind, path in files]
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input="\n".join(wanted), capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert "Traceback" not in done.stderr, done.stderr[-2_000:]
    assert len(told) == len(wanted), f"{wanted[len(told)]} ended the process ({done.returncode})"
    for file in told:
        assert file["seconds"] <= SECONDS, file
        assert file["peak"] <= MEGABYTES, file
        assert file["articles"] or file["skipped"] or file["error"] or _holds_nothing(file), file
        assert "\n" not in file["error"], file
        assert not file["error"] or (re.fullmatch(r"[a-z_]+", file["code"]) and len(file["error"]) > 20), file
    return told


def _holds_nothing(file: dict[str, Any]) -> bool:
    """A feed without items is a feed."""
    data = Path(file["path"]).read_bytes()
    data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    if file["kind"] == "markdown":
        return True  # a list of a section, or a page of HTML that is no article
    return not re.search(rb"<(?:\w+:)?(?:item|entry)[\s>/]", data.replace(b"\0", b""))


def kind_of(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    if name.endswith(".json"):
        return "wordpress" if "wp-json" in path.parts else "jsonfeed"
    return "markdown" if name.endswith((".md", ".html", ".markdown")) else "feed"


def test_what_ships_and_what_is_broken(tmp_path: Path) -> None:
    good = [("wxr" if "wxr" in p.name else "wordpress" if p.name.startswith("wp-") else kind_of(p), p)
            for p in sorted(DATA.glob("*.gz")) if ".tar" not in p.name]  # fmt: skip
    told = read(good)
    assert len(told) == 8
    assert [file["path"] for file in told if file["error"] or not file["articles"]] == []
    whole = gzip.decompress((DATA / "rss2.xml.gz").read_bytes())
    broken = {
        "bomb.xml.gz": gzip.compress(b"<rss>" + b"\0" * 50_000_000), "cut.xml": whole[: len(whole) // 2],
        "deep.xml": b"<rss><channel><item>" + b"<a>" * 200_000, "page.xml": b"<!doctype html><p>x", "empty.json": b"",
        "deep.json": b"[" * 1_000_000, "bare.md": b"no front matter", "bytes.xml": bytes(range(256)) * 1_000,
    }  # fmt: skip
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
    told = read((kind_of(tmp_path / name), tmp_path / name) for name in broken)
    assert {Path(file["path"]).name for file in told if file["articles"]} == {"cut.xml"}
    assert sum(bool(file["error"]) for file in told) >= 6


# ----------------------------------------------------------------------------- the corpus


@pytest.mark.corpus
def test_every_file_of_the_corpus(corpus: Any, tmp_path: Path) -> None:
    files = corpus.find("feeds-real/**/*", "feeds-cases/**/*", "wp-json/**/*", "markdown/**/*")
    assert files
    named = [(path.relative_to(corpus.root), path) for path in files if path.name != "digitalgov.tar.xz"]
    for packed in corpus.root.glob("markdown/**/*.tar.xz"):
        with tarfile.open(packed) as archive:
            archive.extractall(tmp_path, filter="data")
        inner = [p for p in sorted(tmp_path.rglob("*")) if p.suffix == ".md" and p.is_file()]
        named += [(packed.relative_to(corpus.root) / p.name, p) for p in inner]
    tallies: dict[str, Tally] = defaultdict(Tally)
    for (name, _), file in zip(named, read((kind_of(p), p) for _, p in named), strict=True):
        tally = tallies["/".join(name.parts[:2])]
        tally.files += 1
        tally.articles += file["articles"]
        tally.skipped.update(file["skipped"])
        tally.errors.update([file["code"]] if file["error"] else [])
        tally.slowest, tally.peak = max(tally.slowest, file["seconds"]), max(tally.peak, file["peak"])
    assert sum(tally.articles for tally in tallies.values()) > 1_000
    if os.environ.get("WRITE_TABLES"):
        _write(tallies)


def _write(tallies: dict[str, Tally]) -> None:
    lines = ["| folder | files | articles | errors of a file | articles left out |", "|---|---|---|---|---|"]
    for name, t in sorted(tallies.items()):
        counts = (", ".join(f"{n:,} {what}" for what, n in sorted(c.items())) for c in (t.errors, t.skipped))
        lines.append(f"| {name} | {t.files:,} | {t.articles:,} | {' | '.join(counts)} |")
    slowest, peak = max(t.slowest for t in tallies.values()), max(t.peak for t in tallies.values())
    lines += ["", f"The slowest file took {slowest:.1f} s of CPU; no process grew beyond {peak} MB."]
    before, _, rest = PAGE.read_text().partition("<!-- table -->\n")
    PAGE.write_text(
        f"{before}<!-- table -->\n" + "\n".join(lines) + "\n<!-- end -->" + rest.partition("<!-- end -->")[2]
    )
