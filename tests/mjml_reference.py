"""MJML's own compiler, on Node: what ours is compared with. Installed from the npm registry into a cache, once.

No part of what is shipped. ``installed()`` gives it; where there is no Node it says the one command that brings it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = "4.18.0"
_SCRIPT = """
const mjml2html = require('mjml');
require('readline').createInterface({input: process.stdin}).on('line', (line) => {
  const began = process.hrtime.bigint();
  const {html, errors} = mjml2html(JSON.parse(line), {fonts: {}, validationLevel: 'soft', keepComments: false});
  const ms = Number(process.hrtime.bigint() - began) / 1e6;
  console.log(JSON.stringify({html, ms, errors: errors.map((e) => e.formattedMessage)}));
});
"""


@dataclass
class Reference:
    """A compiler that is running; asked one template after the other."""

    process: subprocess.Popen[str]

    def ask(self, source: str) -> dict[str, Any]:
        """``html``, ``ms`` (of the compiler alone) and ``errors`` of MJML *source*."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(source) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@contextmanager
def installed() -> Iterator[Reference]:
    folder = _folder()
    command = [_need("node"), "-e", _SCRIPT]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Reference(process)  # which ends with its input


def there() -> bool:
    """Is there a Node to run it with?"""
    return all(map(shutil.which, ("node", "npm")))


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "digest-tests" / f"mjml-{VERSION}"
    if not (folder / "node_modules" / "mjml").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        command = [_need("npm"), "install", "--prefix", ".", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run([*command, f"mjml@{VERSION}"], cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=600)
    return folder


def _need(program: str) -> str:
    """Node, from Debian if it must be and may be."""
    if not shutil.which(program) and os.geteuid() == 0 and shutil.which("apt-get"):
        for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "nodejs", "npm"]):
            subprocess.run(["apt-get", *words], check=True, stdout=subprocess.DEVNULL)
    found = shutil.which(program)
    assert found, f"no {program} to compare with; run `sudo apt-get install nodejs npm`, then again"
    return found
