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
import logging
import re
import threading
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from digest.errors import Problem, RenderError, TemplateBroken
from digest.paths import shipped
from digest.rendering import sandbox
from digest.rendering.apart import Kept, Request, compile_apart, key_of
from digest.rendering.layout import Layout, build
from digest.rendering.lint import lint
from digest.rendering.palette import palette
from digest.rendering.source import Source, plain, read
from digest.rendering.view import brand_values
from digest.rendering.words import load_words
from digest.types import LANGUAGES, Brand, Dress, SystemMail

MAX_SOURCE = 200_000
_FILES = ("edition.mjml", "edition.txt", "layout.toml")
_DEFAULTS = {
    "name": "", "description": "", "sections": "", "subject": "{{ digest.name }}: {{ lead.title }}",
    "preheader": "{% if others %}{{ others | join(' · ') }}{% else %}{{ lead.excerpt }}{% endif %}",
}  # fmt: skip

log = logging.getLogger("digest.rendering")

_lock = threading.RLock()
_compiled: dict[str, str] = {}  # by content: shared by all renderers of the process
_layouts: dict[str, Layout] = {}
_failures: dict[str, TemplateBroken] = {}
_told: set[str] = set()


class Renderer:
    """Layouts and system mails by name. Cheap to make, safe to share between threads."""

    def __init__(self, template_dirs: Sequence[Path] = (), *, keep: Path | None = None) -> None:
        """*keep*: a folder for what was compiled: the next process finds it, and the last good version with it.

        With it a layout that is broken is replaced by what worked; without it templates are looked at as they stand.
        """
        own = shipped("templates")
        self._kept = Kept(keep)
        self._good: dict[str, str] = {}  # layout → key of its last good version, compiled and kept
        self._dirs = [*(path for path in template_dirs if path != own), own]

    def layouts(self) -> list[str]:
        """Names of all layouts there are."""
        found = {path.parent.name for root in self._dirs for path in root.glob("email/*/edition.mjml")}
        return sorted(found)

    def layout(self, name: str) -> Layout:
        """Return layout *name*, compiled: as it stands, or, where that is broken, as it last was good, or as shipped.

        RenderError in one sentence if it is not there, or broken and never was good.
        """
        try:
            return self._current(name)
        except RenderError as error:
            if not self._is_there(name) or (instead := self._worked(name)) is None:
                raise
            layout, which = instead
            if (said := f"{self.located(error)}; the {which} version of layout {name!r} is in use") not in _told:
                _told.add(said)
                log.warning(said)
            return layout

    def _worked(self, name: str) -> tuple[Layout, str] | None:
        """What can stand in for a layout that is broken: its last good version, else the shipped one of its name."""
        if (entry := self._kept.load(name)) is not None:
            return self._layout(entry["key"], entry["request"], entry["html"]), "last good"
        if self._kept.folder is not None and (as_shipped := Renderer(keep=self._kept.folder / "shipped"))._is_there(
            name
        ):
            return as_shipped._current(name), "shipped"
        return None

    def read_all(self) -> None:
        """Read and compile the layouts of the operator; log what is wrong: as a process starts, not as mail is due."""
        own = self._dirs[:-1]
        everywhere = any(True for root in own for _ in root.glob("email/shared/*"))
        for name in self.layouts():
            if not everywhere and not any((root / "email" / name).is_dir() for root in own):
                continue
            try:
                self.layout(name)
            except RenderError as error:
                log.warning("%s; layout %r cannot be used until that is mended", self.located(error), name)

    def check(self, name: str) -> list[Problem]:
        """Every mistake of layout *name* as it stands; none: it can be used. Where it compiles, the gates judge it."""
        try:
            return _failed_gates(name, self._current(name))
        except TemplateBroken as error:
            return list(error.problems)
        except RenderError as error:
            file, colon, what = str(error).partition(": ")
            told = (file, what) if colon and file.startswith("templates/") else (f"templates/email/{name}", str(error))
            return [Problem(told[0], 0, 0, told[1])]

    def check_rest(self) -> list[Problem]:
        """Mistakes of system mails and catalogues, in every language."""
        params = {"confirm_url": "https://news.example/confirm/x", "digest_name": "Morning"}
        found: list[Problem] = []
        for language in LANGUAGES:
            try:
                self.system("confirm", Brand("The News", "https://news.example/"), params, language)
            except TemplateBroken as error:
                found += error.problems
            except RenderError as error:
                found.append(Problem("templates", 0, 0, str(error)))
        return sorted(set(found))

    def check_name(self, name: str) -> None:
        """RenderError unless *name* can be a layout's."""
        if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,63}", name) or name == "shared":
            raise RenderError(f"{name!r} is not a layout's name: small letters, digits and hyphens")

    def describe(self, name: str) -> dict[str, str]:
        """``name`` and ``description`` of a layout, as its layout.toml says; a broken one says nothing."""
        try:
            settings = _settings(name, self._find(f"email/{name}/layout.toml") or "")
        except RenderError:
            settings = {"name": name, "description": ""}
        return {key: settings[key] for key in ("name", "description")}

    def files(self, name: str) -> dict[str, Path]:
        """Where the parts of a layout lie: the first folder that has each."""
        found = {file: self._path(f"email/{name}/{file}") for file in _FILES}
        return {file: path for file, path in found.items() if path is not None}

    def where(self, file: str) -> str:
        """The path of what a problem calls ``templates/email/…``."""
        path = self._path(file.removeprefix("templates/"))
        return file if path is None else str(path)

    def located(self, error: RenderError) -> str:
        """What *error* says, by the path of the file that it is about."""
        file, colon, rest = str(error).partition(":")
        return f"{self.where(file)}{colon}{rest}"

    def _current(self, name: str) -> Layout:
        request = self._request(name)
        key = key_of(request)
        with _lock:  # one child for one template, however many threads ask
            if key in _failures:
                raise _failures[key]
            if self._good.get(name) != key:
                self._compile(name, key, request)
                self._good[name] = key
            return self._layout(key, request, _compiled[key])

    def _compile(self, name: str, key: str, request: Request) -> None:
        """See that it is compiled, by whomever, and kept."""
        kept = self._kept.load(name)
        if kept is not None and kept["key"] == key:
            _compiled.setdefault(key, kept["html"])
            return
        if key not in _compiled:
            try:
                _read_strictly(_source(request["mjml"]), _source(request["text"]))
                _compiled[key] = compile_apart(request)
            except TemplateBroken as error:
                _failures[key] = error
                raise
        self._kept.store(name, key, request, _compiled[key])

    def _request(self, name: str) -> dict[str, Any]:
        """What a layout is made of, as the child gets it."""
        files = self._read_layout(name)
        settings = _settings(name, files["layout.toml"].text)
        mjml, text = files["edition.mjml"], files["edition.txt"]
        return {
            "layout": name, "file": mjml.file, "settings": settings,
            "mjml": (mjml.file, mjml.text, mjml.pieces), "text": (text.file, text.text, text.pieces),
        }  # fmt: skip

    def _layout(self, key: str, request: Request, html: str) -> Layout:
        words = {language: load_words(self._dirs, language) for language in LANGUAGES}
        said = json.dumps([key, {language: w.texts for language, w in words.items()}], sort_keys=True)
        content = hashlib.sha256(said.encode()).hexdigest()
        if content not in _layouts:
            text = _source(request["text"])
            _layouts[content] = build(request["layout"], content, html, text, request["settings"], words)
        return _layouts[content]

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
            return sandbox.render(sandbox.parsed(environment, plain(f"templates/system/{file}", source)), values)

    def _is_there(self, name: str) -> bool:
        return any((root / "email" / name / "edition.mjml").is_file() for root in self._dirs)

    def _read_layout(self, name: str) -> dict[str, Source]:
        self.check_name(name)
        files = {file: self._find(f"email/{name}/{file}") for file in _FILES}
        if files["edition.mjml"] is None:
            raise RenderError(f"there is no layout {name!r}; there are: {', '.join(self.layouts())}")
        if files["edition.txt"] is None:
            raise RenderError(f"layout {name!r} has no text part: add templates/email/{name}/edition.txt")
        return {file: read(f"templates/email/{name}/{file}", text or "", self._find) for file, text in files.items()}

    def _find(self, relative: str) -> str | None:
        path = self._path(relative)
        return None if path is None else _read(path, relative)

    def _path(self, relative: str) -> Path | None:
        return next((path for root in self._dirs if (path := root / relative).is_file()), None)


def _source(told: Sequence[Any]) -> Source:
    """A template as it stands in a request; JSON knows no tuples."""
    file, text, pieces = told
    return Source(file, text, tuple((at, name, line, column) for at, name, line, column in pieces))


def _failed_gates(name: str, layout: Layout) -> list[Problem]:
    """What the gates say of a mail that has everything, in each language; of the same fault once."""
    from digest.rendering import gates
    from digest.rendering.trial import SAMPLE_SECTIONS, SAMPLE_VIEW

    failed: dict[str, str] = {}
    for language in LANGUAGES:
        dressed = layout.open(SAMPLE_VIEW, Dress(language))
        mail = dressed.assemble(SAMPLE_SECTIONS, more=3, had=3)
        failed |= {g.gate: g.detail for g in gates.check(dressed, SAMPLE_SECTIONS, mail) if not g.ok}
    return [Problem(f"templates/email/{name}/edition.mjml", 0, 0, detail) for detail in failed.values()]


def _read_strictly(mjml: Source, text: Source) -> None:
    """TemplateBroken with all the mistakes that can be found without compiling."""
    sandbox.parsed(sandbox.html_environment(), mjml)  # first: what Jinja cannot read is not worth linting
    sandbox.parsed(sandbox.text_environment(), text)
    if problems := lint(mjml):
        raise TemplateBroken(problems)


def _read(path: Path, relative: str) -> str:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RenderError(f"templates/{relative}: cannot be read as UTF-8 text: {error}") from error
    if len(text) > MAX_SOURCE:
        raise TemplateBroken([Problem(f"templates/{relative}", 0, 0, f"is longer than {MAX_SOURCE} characters")])
    return text


def _settings(name: str, source: str) -> dict[str, str]:
    """Read layout.toml; what it leaves out has a default. Its two lines are checked here."""
    where = f"templates/email/{name}/layout.toml"
    try:
        given = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column (\d+)\)", said := str(error))
        at = (int(place[1]), int(place[2])) if place else (0, 0)
        raise TemplateBroken([Problem(where, *at, said.partition(" (at ")[0])]) from error
    for key, value in given.items():
        if key not in _DEFAULTS or not isinstance(value, str):
            what = f"{key!r} is not a text setting of a layout; there are: {', '.join(_DEFAULTS)}"
            raise TemplateBroken([Problem(where, 0, 0, what)])
    settings = {**_DEFAULTS, "name": name, **given}
    for line in ("subject", "preheader"):
        try:
            sandbox.check_line(settings[line], line)
        except RenderError as error:
            raise TemplateBroken([Problem(where, 0, 0, str(error))]) from error
    return settings
