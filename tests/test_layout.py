"""The shape of the project: folders that are no packages, floors, sizes, what the package says about itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import digest
from digest.paths import shipped

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = sorted((ROOT / "digest").rglob("*.py"))

LONGEST_FUNCTION, LONGEST_MODULE, LONGEST_MEDIAN = 60, 600, 10


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, the docstring left out: explaining is not length."""
    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or node.lineno) - first.lineno + 1


# ----------------------------------------------------------------------------- folders


@pytest.mark.parametrize("folder", ["templates", "config", "alembic", "tests", "benchmarks", "docs"])
def test_folders_beside_the_package_are_no_packages(folder: str) -> None:
    """An ``alembic/__init__.py`` would hide the library of that name from whoever runs in the checkout."""
    assert (ROOT / folder).is_dir()
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_alembic_is_the_library_in_a_checkout() -> None:
    code = "import alembic, alembic.command; print(alembic.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).is_relative_to(ROOT / "alembic")


@pytest.mark.parametrize("folder", ["templates", "config", "alembic"])
def test_what_the_package_ships_is_found_beside_it(folder: str) -> None:
    assert shipped(folder) == ROOT / folder


def test_no_module_is_called_like_the_noun_it_would_hide() -> None:
    assert not (ROOT / "digest/digest.py").exists()
    assert not (ROOT / "digest/digest").exists()


# ----------------------------------------------------------------------------- floors


def test_every_room_keeps_to_its_floor() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    done = subprocess.run([*command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ----------------------------------------------------------------------------- sizes


def test_a_long_function_says_why() -> None:
    """A line of its docstring starts with ``Long:`` and gives the reason."""
    long = {where: lines(node) for where, node in functions() if lines(node) > LONGEST_FUNCTION}
    excused = {where for where, node in functions() if re.search(r"(?m)^Long: \w", ast.get_docstring(node) or "")}
    assert {where: n for where, n in long.items() if where not in excused} == {}


def test_the_median_function_is_short() -> None:
    sizes = sorted(lines(node) for _, node in functions())
    assert sizes[len(sizes) // 2] < LONGEST_MEDIAN


def test_no_module_is_a_warehouse() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {path: n for path, n in sizes.items() if n >= LONGEST_MODULE} == {}


def test_every_module_says_what_it_owns() -> None:
    assert [p.relative_to(ROOT) for p in MODULES if not ast.get_docstring(ast.parse(p.read_text()))] == []


def test_nothing_is_left_for_later() -> None:
    """In the words of unfinished work; tests that are skipped or expected to fail count as such."""
    later = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b|pytest\.(skip|xfail)|mark\.(skip|skipif|xfail)\b")
    texts = [*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "templates").rglob("*.*"), ROOT / "run"]
    found = [str(p.relative_to(ROOT)) for p in texts if p != Path(__file__) and later.search(_text(p))]
    assert found == []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


# ----------------------------------------------------------------------------- the package about itself


def test_one_version() -> None:
    assert digest.__version__ == PYPROJECT["project"]["version"]
    assert (
        f"[{digest.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
        or "[Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    )


def test_the_package_describes_itself() -> None:
    project = PYPROJECT["project"]
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "MIT"
    assert "digest contributors" in (ROOT / "LICENSE").read_text()
    from trove_classifiers import classifiers

    assert set(project["classifiers"]) <= classifiers
    assert project["scripts"] == {"digest": "digest.cli:main"}


def test_the_lock_holds_every_dependency_and_the_tools_that_fill_an_environment() -> None:
    locked = set(re.findall(r"(?m)^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text()))
    wanted = [*PYPROJECT["project"]["dependencies"], *PYPROJECT["dependency-groups"]["dev"]]
    named = {re.match(r"[\w.-]+", text)[0].lower().replace("_", "-") for text in wanted}  # type: ignore[index]
    assert named | {"uv", "hatchling", "editables"} <= locked


def test_the_lock_names_no_extras() -> None:
    """pip before 23.3 silently skips a locked line with an extra, and what it would have brought."""
    assert not re.findall(r"(?m)^[\w.-]+\[", (ROOT / "requirements.lock").read_text())


def test_ci_does_what_the_readme_says() -> None:
    assert "./run test" in (ROOT / ".ci/run").read_text()
    for script in ("run", ".ci/run"):
        assert (ROOT / script).stat().st_mode & 0o111
    subprocess.run(["/bin/sh", "-n", "run"], cwd=ROOT, check=True)


def test_run_lists_its_commands() -> None:
    """What the help names exists, and the other way round."""
    done = subprocess.run(["./run", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"(?m)^  (\w+) ", done.stdout))
    text = (ROOT / "run").read_text()
    known = set(re.search(r"(?m)^([\w |]+)\) setup ;;$", text)[1].split(" | "))  # type: ignore[index]
    assert listed == known
