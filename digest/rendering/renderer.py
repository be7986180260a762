"""The face of rendering: finds layouts and system mails, has them compiled, and keeps what was compiled.

Owns the search (the operator's folders first, file by file, then the shipped ones), the caches, and the child process.

    templates/email/<layout>/edition.mjml   the HTML part: MJML with Jinja in it
                    shared/                 what layouts have in common: {% include "shared/footer.mjml" %}
                             edition.txt    the text part
                             layout.toml    name, description, default subject and preheader
    templates/system/<kind>.html .txt       system mails
    templates/locale/<language>.po          what mails say by themselves, translated (words.py)
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from digest.errors import RenderError
from digest.paths import shipped
from digest.rendering import sandbox
from digest.rendering.layout import Layout, build
from digest.rendering.palette import palette
from digest.rendering.view import brand_values
from digest.rendering.words import Words, load_words
from digest.types import LANGUAGES, Brand, SystemMail

COMPILE_SECONDS = 60  # by the wall; a machine under load takes its time over the 0.6 s this needs
MAX_SOURCE = 200_000
_CODE = Path(__file__).resolve().parents[2]  # from here the child imports the very code that runs
MAX_INCLUDES = 3
_INCLUDE = re.compile(r"""\{%-?\s*include\s+["']([^"']*)["']\s*-?%\}(\n?)""")
_SHARED = re.compile(r"shared/[a-z0-9_-]+\.(?:mjml|txt)")
_FILES = ("edition.mjml", "edition.txt", "layout.toml")
_DEFAULTS = {
    "name": "", "description": "", "sections": "", "subject": "{{ digest.name }}: {{ lead.title }}",
    "preheader": "{% if others %}{{ others | join(' · ') }}{% else %}{{ lead.excerpt }}{% endif %}",
}  # fmt: skip

_lock = threading.RLock()
_layouts: dict[str, Layout] = {}  # by content: shared by all renderers of the process
_failures: dict[str, str] = {}


class Renderer:
    """Layouts and system mails by name. Cheap to make, safe to share between threads."""

    def __init__(self, template_dirs: Sequence[Path] = ()) -> None:
        own = shipped("templates")
        self._dirs = [*(path for path in template_dirs if path != own), own]

    def layouts(self) -> list[str]:
        """Names of all layouts there are."""
        found = {path.parent.name for root in self._dirs for path in root.glob("email/*/edition.mjml")}
        return sorted(found)

    def layout(self, name: str) -> Layout:
        """Return layout *name*, compiled. RenderError in one sentence if it is not there or broken."""
        files = self._read_layout(name)
        settings = _settings(name, files["layout.toml"])
        words = {language: load_words(self._dirs, language) for language in LANGUAGES}
        request = {
            "layout": name, "mjml_name": f"templates/email/{name}/edition.mjml", "mjml": files["edition.mjml"],
            "text": files["edition.txt"], "settings": settings,
        }  # fmt: skip
        said = {language: w.texts() for language, w in words.items()}
        key = hashlib.sha256(json.dumps([request, said], sort_keys=True).encode()).hexdigest()
        with _lock:  # one child for one template, however many threads ask
            if key in _failures:
                raise RenderError(_failures[key])
            if key not in _layouts:
                _layouts[key] = _compiled(request, key, settings, words)
            return _layouts[key]

    def system(self, kind: str, brand: Brand, params: Mapping[str, str], language: str) -> SystemMail:
        """Render a system mail: ``confirm`` (params: confirm_url, digest_name). All three parts from its templates."""
        words = load_words(self._dirs, language if language in LANGUAGES else "en")
        title = sandbox.fill(words.plain.get(f"{kind}_subject", brand.name), digest=params.get("digest_name", ""))
        values: dict[str, Any] = {
            "lang": words.language, "dir": words.direction, "start": "right" if words.direction == "rtl" else "left",
            "words": dict(words.plain), "brand": brand_values(brand), "colour": palette(brand.accent),
            "subject": sandbox.one_line(title), **params,
        }  # fmt: skip
        html = self._render_system(f"{kind}.html", sandbox.html_environment(), values)
        text = self._render_system(f"{kind}.txt", sandbox.text_environment(), values)
        return SystemMail(values["subject"], text, html)

    def _render_system(self, file: str, environment: sandbox.Sandbox, values: Mapping[str, Any]) -> str:
        source = self._find(f"system/{file}")
        if source is None:
            raise RenderError(f"there is no system mail {file!r}: add templates/system/{file}")
        with sandbox.explained(f"templates/system/{file}"):
            return sandbox.render(environment.from_string(source), values)

    def _read_layout(self, name: str) -> dict[str, str]:
        if not re.fullmatch("[a-z0-9][a-z0-9_-]*", name):
            raise RenderError(f"{name!r} is not a layout's name: small letters, digits and hyphens")
        files = {file: self._find(f"email/{name}/{file}") for file in _FILES}
        if files["edition.mjml"] is None:
            raise RenderError(f"there is no layout {name!r}; there are: {', '.join(self.layouts())}")
        if files["edition.txt"] is None:
            raise RenderError(f"layout {name!r} has no text part: add templates/email/{name}/edition.txt")
        return {file: self._whole(text or "", fold=file.endswith(".mjml")) for file, text in files.items()}

    def _whole(self, source: str, *, fold: bool, depth: int = 0) -> str:
        """*source* and the shared parts it includes; those of MJML on one line: line numbers stay the file's."""

        def part(match: re.Match[str]) -> str:
            name = match[1]
            if not _SHARED.fullmatch(name):
                raise RenderError(f'{name!r} cannot be included; only "shared/NAME.mjml" and "shared/NAME.txt" can')
            if (text := self._find(f"email/{name}")) is None:
                raise RenderError(f"there is no templates/email/{name} to include")
            if depth == MAX_INCLUDES:
                raise RenderError(f"templates/email/{name}: parts are included more than {MAX_INCLUDES} deep")
            text = self._whole(text, fold=fold, depth=depth + 1)
            return _folded(text) + match[2] if fold else text

        return _INCLUDE.sub(part, source)

    def _find(self, relative: str) -> str | None:
        for root in self._dirs:
            if (path := root / relative).is_file():
                return _read(path, relative)
        return None


def _folded(source: str) -> str:
    """On one line, without comments; blanks between tags that stand on lines of their own mean nothing."""
    source = re.sub(r"<!-- .*? -->", "", source, flags=re.DOTALL)  # Outlook's conditions have no blank there
    return re.sub(r"(?<=[>}])\s*\n\s*(?=<|\{%)", "", source.strip()).replace("\n", " ")


def _read(path: Path, relative: str) -> str:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RenderError(f"templates/{relative}: cannot be read as UTF-8 text: {error}") from error
    if len(text) > MAX_SOURCE:
        raise RenderError(f"templates/{relative}: is longer than {MAX_SOURCE} characters")
    return text


def _settings(name: str, source: str) -> dict[str, str]:
    """Read layout.toml; what it leaves out has a default. Its two lines are checked here."""
    where = f"templates/email/{name}/layout.toml"
    try:
        given = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise RenderError(f"{where}: {error}") from error
    for key, value in given.items():
        if key not in _DEFAULTS or not isinstance(value, str):
            raise RenderError(f"{where}: {key!r} is not a text setting of a layout; there are: {', '.join(_DEFAULTS)}")
    settings = {**_DEFAULTS, "name": name, **given}
    for line in ("subject", "preheader"):
        try:
            sandbox.check_line(settings[line], line)
        except RenderError as error:
            raise RenderError(f"{where}: {error}") from error
    return settings


# ----------------------------------------------------------------------------- the child process


def _compiled(request: Mapping[str, Any], key: str, settings: Mapping[str, str], words: Mapping[str, Words]) -> Layout:
    name = request["layout"]
    for part in ("mjml", "text"):  # here, where the line numbers are still those of the file
        with sandbox.explained(f"templates/email/{name}/edition.{'mjml' if part == 'mjml' else 'txt'}"):
            sandbox.html_environment().parse(request[part])
    return build(name, key, _compile_in_child(request, key), request["text"], settings, words)


def _compile_in_child(request: Mapping[str, Any], key: str) -> str:
    """Compile in a process of its own: what kills or hangs the compiler must not kill or hang us.

    What the compiler says of the template is kept, so that it is asked once; a time-out may be the machine's fault.
    """
    command = [sys.executable, "-m", "digest.rendering.compile"]
    where = request["mjml_name"]
    try:
        done = subprocess.run(  # noqa: S603 — our own module
            command, input=json.dumps(request).encode(), capture_output=True, timeout=COMPILE_SECONDS, cwd=_CODE
        )
    except subprocess.TimeoutExpired as error:
        raise RenderError(f"{where}: does not compile within {COMPILE_SECONDS} seconds") from error
    if done.returncode == -signal.SIGXCPU or done.returncode == -signal.SIGKILL:
        raise RenderError(f"{where}: takes too long to compile or to render")
    if done.returncode < 0:
        raise RenderError(f"{where}: tags are nested too deeply; the compiler died of it")
    try:
        answer: dict[str, str] = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise RenderError(f"{where}: the compiler gave up: {last[:300]}") from error
    if "error" in answer:
        _failures[key] = answer["error"]
        raise RenderError(answer["error"])
    return answer["html"]
