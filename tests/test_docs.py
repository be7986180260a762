"""What exists is documented, and what is documented exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from digest.config import Settings, names, variable
from digest.errors import ConfigError
from digest.selection.recipe import PARTS
from digest.selection.story import Reason

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]


def rows(page: Path, columns: int) -> list[list[str]]:
    """The body rows of a page's tables that have so many columns, without backticks."""
    found = [
        [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        for line in page.read_text().splitlines()
        if line.startswith("|") and not set(line) <= set("|- ")
    ]
    return [row for row in found if len(row) == columns]


# ----------------------------------------------------------------------------- settings


def test_every_setting_has_its_row_with_variable_and_default() -> None:
    shipped = tomllib.loads((ROOT / "config/defaults.toml").read_text())
    table = {row[0]: row for row in rows(DOCS / "configure.md", 4)[1:]}
    assert list(table) == names()
    for name, (_, said_variable, said_default, what) in table.items():
        default: object = shipped
        for key in name.split("."):
            default = default.get(key, "unset") if isinstance(default, dict) else default
        assert said_variable == variable(name)
        assert said_default == (str(default).lower() if isinstance(default, bool) else str(default))
        assert len(what) > 10


def test_ranges_in_words_are_the_ranges_that_hold() -> None:
    said = {row[0]: re.search(r", (\d+) to (\d+)$", row[3]) for row in rows(DOCS / "configure.md", 4)[1:]}
    assert sum(map(bool, said.values())) >= 4
    for name, limits in said.items():
        if limits:
            low, high = int(limits[1]), int(limits[2])
            for value in (low, high):
                Settings.load(None, {variable(name): str(value)})
            for value in (low - 1, high + 1):
                with pytest.raises(ConfigError):
                    Settings.load(None, {variable(name): str(value)})


# ----------------------------------------------------------------------------- dependencies


def test_every_dependency_has_its_reason_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    named = [re.match(r"[\w-]+", text)[0] for text in wanted]  # type: ignore[index]
    told = [row[0] for row in rows(DOCS / "decisions/0002-dependencies.md", 2) if row[0] != "package"]
    assert told == named


# ----------------------------------------------------------------------------- selection


def test_every_reason_and_every_part_of_a_score_is_told() -> None:
    told = [row[0] for row in rows(DOCS / "selection.md", 2)]
    assert told[told.index("reason") + 1 :] == list(Reason)
    assert told[told.index("part") + 1 : told.index("reason")] == [*PARTS, "topic:KIND:SLUG"]


# ----------------------------------------------------------------------------- benchmarks


def test_every_benchmark_has_its_section_and_place_for_its_figures() -> None:
    text = (DOCS / "performance.md").read_text()
    assert re.findall(r"(?m)^## (\w+)$", text) == benchmarks.names()
    assert re.findall(r"<!-- figures: (\w+) -->", text) == benchmarks.names()


# ----------------------------------------------------------------------------- pages


def test_decisions_are_numbered_and_have_their_parts() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert len({p.name[:4] for p in pages}) == len(pages) > 0
    for page in pages:
        text = page.read_text()
        assert re.match(r"# \S", text), page.name
        for part in ("context", "choice", "cost"):
            assert re.search(rf"(?im)^(#+ |\*\*){part}\b", text), (page.name, part)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    gone = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (page.parent / t).exists()]
    assert gone == []


def test_the_pages_are_there() -> None:
    wanted = {"install.md", "configure.md", "selection.md", "glossary.md", "flow.md", "adding.md", "performance.md"}
    assert wanted <= {p.name for p in DOCS.glob("*.md")}
