"""Layouts compiled in a process of their own, and what was compiled kept on disk.

Owns the child process (its start, its end, what its death means) and the folder of compiled layouts. What kills or
hangs the compiler must not kill or hang us; and a process that starts does not pay for what another has compiled. What
the child does is compile.py's business.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from digest.errors import Problem, RenderError, TemplateBroken

COMPILE_SECONDS = 60  # by the wall; a machine under load takes its time over the 0.6 s this needs
_CODE = Path(__file__).resolve().parents[2]  # from here the child imports the very code that runs

Request = Mapping[str, Any]


def key_of(request: Request) -> str:
    """A name for this very content, compiled by this very code."""
    return hashlib.sha256(json.dumps([_compiler(), request], sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def _compiler() -> list[str]:
    ours = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return [hashlib.sha256(ours).hexdigest(), *map(version, ("mjml-python", "premailer", "cssutils", "lxml", "jinja2"))]


def compile_apart(request: Request) -> str:
    """Compile in a child process; TemplateBroken for what it says of the template, RenderError where it died.

    A time-out may be the machine's fault: it is a RenderError, and worth another try.
    """
    command = [sys.executable, "-m", "digest.rendering.compile"]
    where = request["file"]
    try:
        done = subprocess.run(  # noqa: S603 — our own module
            command, input=json.dumps(request).encode(), capture_output=True, timeout=COMPILE_SECONDS, cwd=_CODE
        )
    except subprocess.TimeoutExpired as error:
        raise RenderError(f"{where}: does not compile within {COMPILE_SECONDS} seconds; make it smaller") from error
    if died := _death(done.returncode):
        raise TemplateBroken([Problem(where, 0, 0, died)])
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise RenderError(f"{where}: the compiler gave up: {last[:300]}") from error
    if problems := answer.get("problems"):
        raise TemplateBroken([Problem(*problem) for problem in problems])
    return str(answer["html"])


def _death(code: int) -> str:
    """What the end of the child says of the template."""
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "takes too long to compile or to render; take out what repeats"
    return "tags are nested too deeply; the compiler died of it" if code < 0 else ""


class Kept:
    """The last good version of each layout: ``FOLDER/NAME.json``. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, name: str) -> dict[str, Any] | None:
        """``key``, ``request`` and ``html`` of what was kept last; None where there is nothing that can be read."""
        if self.folder is None:
            return None
        with contextlib.suppress(OSError, ValueError):
            entry = json.loads((self.folder / f"{name}.json").read_bytes())
            if isinstance(entry, dict) and entry.keys() >= {"key", "request", "html"}:
                return entry
        return None

    def store(self, name: str, key: str, request: Request, html: str) -> None:
        """Keep it, whole or not at all. A folder that cannot be written costs time at the next start, no more."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(dir=self.folder, prefix=f".{name}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"key": key, "request": request, "html": html}, file)
            Path(path).replace(self.folder / f"{name}.json")
