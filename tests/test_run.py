"""./run on machines that lack something: one sentence that says what to do, and never half an environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("sh", "sed", "cat", "cksum", "dirname", "rm", "id", "mktemp")

#: Makes an environment, says how it was asked, and then reaches no index.
UV = '[ "$1" = venv ] && { echo "$@" >>calls; mkdir .venv; exit 0; }; exit 1'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What ./run reads of a checkout, and a PATH with the tools of every POSIX system and nothing else."""
    for name in ("run", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "path").mkdir()
    for tool in (*TOOLS, "mkdir"):
        (tmp_path / "path" / tool).symlink_to(shutil.which(tool) or tool)
    return tmp_path


def offer(clone: Path, name: str, script: str) -> None:
    tool = clone / "path" / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def run(clone: Path, *words: str, **environ: str) -> tuple[int, str]:
    given = {"PATH": str(clone / "path"), "HOME": str(clone), **environ}
    done = subprocess.run([clone / "run", *words], env=given, capture_output=True, text=True, check=False, cwd=clone)
    return done.returncode, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""


def test_an_unknown_command_is_answered(clone: Path) -> None:
    code, said = run(clone, "tset")
    assert code == 1
    assert "./run help" in said


def test_a_python_that_is_too_old_or_a_shim_is_passed_over(clone: Path) -> None:
    for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python"):
        offer(clone, name, "exit 127")
    offer(clone, "python3", f'exec {sys.executable} "$@"')
    offer(clone, "uv", UV)
    run(clone, "lint", PYTHON="/nowhere/python")
    assert sys.prefix in (clone / "calls").read_text()


def test_packages_that_do_not_come_leave_no_environment_that_counts(clone: Path) -> None:
    offer(clone, "python3", f'exec {sys.executable} "$@"')
    offer(clone, "uv", UV)
    for _ in range(2):  # the second time it begins anew
        code, said = run(clone, "lint")
        assert code == 1
        assert "package index" in said
        assert not (clone / ".venv/complete").exists()
    assert (clone / "calls").read_text().count("venv -q") == 2


def test_a_folder_that_is_not_there_is_named(clone: Path) -> None:
    offer(clone, "python3", f'exec {sys.executable} "$@"')
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(sys.executable)
    text = (clone / "requirements.lock").read_bytes() + (clone / "pyproject.toml").read_bytes()
    sum_ = subprocess.run(["cksum"], input=text, capture_output=True, check=True).stdout.decode().strip()
    (clone / ".venv/complete").write_text(f"{sum_} {clone}\n")
    code, said = run(clone, "test", "--corpus", "nowhere")
    assert (code, said) == (1, "run: there is no folder nowhere")
    code, said = run(clone, "test", "--corpus")
    assert (code, said) == (1, "run: --corpus wants a folder")
