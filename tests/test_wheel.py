"""What is published: a source archive, from it a wheel, installed where no checkout is near."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from digest import __version__

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, environ: dict[str, str] | None = None) -> str:
    """Standard output of a command that has to succeed, with nothing of this process's environment."""
    given = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "LANG": "C.UTF-8", **(environ or {})}
    done = subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked source archive, not from the checkout: the archive must hold all that a build needs."""
    place = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", place, cwd=ROOT)
    with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
        archive.extractall(place, filter="data")
    unpacked = next(path for path in place.iterdir() if path.is_dir())
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place, cwd=unpacked)
    return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def bin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel, and this environment's libraries behind it."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    python = place / "bin/python"
    run(
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "-q",
        "--offline",
        "--no-deps",
        "--python",
        python,
        wheel,
        cwd=place,
    )
    return place / "bin"


def test_the_wheel_holds_all_that_the_program_reads(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("templates", "config", "alembic"):
        beside = {
            f"digest/_shipped/{path.relative_to(ROOT)}"
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.name != "digest.toml"
        }
        assert beside
        assert beside <= inside, folder
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "digest").rglob("*.py")}
    assert modules <= inside


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    inside = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in inside} == {"digest"}
    assert [n for n in inside if "__pycache__" in n or n.endswith((".pyc", ".sqlite3")) or "/tests/" in n] == []


def test_the_installed_package_is_the_one_asked(bin: Path, tmp_path: Path) -> None:
    code = (
        "import digest, alembic; from digest.paths import shipped\n"
        "print(digest.__file__, shipped('alembic'), alembic.__file__)"
    )
    package, migrations, library = run(bin / "python", "-c", code, cwd=tmp_path).split()
    assert Path(package).is_relative_to(bin.parent)
    assert Path(migrations).is_relative_to(bin.parent)
    assert not Path(library).is_relative_to(bin.parent)


def test_the_installed_package_makes_its_schema(bin: Path, tmp_path: Path) -> None:
    code = (
        "from digest.db import Database, upgrade_schema, head_revision\n"
        "database = Database('sqlite:///here.sqlite3')\n"
        "assert upgrade_schema(database) == head_revision()\n"
        "database.close()\n"
    )
    run(bin / "python", "-c", code, cwd=tmp_path)


def test_the_command_runs_from_anywhere(bin: Path) -> None:
    assert __version__ in run(bin / "digest", "--version", cwd=Path("/"))
    assert __version__ in run(bin / "python", "-m", "digest", "--version", cwd=Path("/"))
    assert '"public_url"' in run(bin / "digest", "config", "show", "--json", cwd=Path("/"))


def test_the_demo_runs_from_the_wheel(bin: Path, tmp_path: Path) -> None:
    run(bin / "digest", "demo", "--no-serve", cwd=tmp_path)
    assert list((tmp_path / "var/demo").glob("*.sqlite3"))
