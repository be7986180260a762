"""Front matter: what Hugo, Jekyll and Eleventy write above a text, in YAML, TOML or JSON. Values come as plain text.

YAML is read without its guesses: `tags: no` is the word no, `2015-13-02` is text that no date is made of.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from digest.text import strip_controls

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # BaseLoader makes no objects, only text, lists, mappings
_OPEN = re.compile(r"\s*(---|\+\+\+)[ \t]*(json|toml|yaml)?[ \t]*\n", re.IGNORECASE)
MAX_CHARS = 200_000  # of front matter; no person writes that much


class FrontMatterError(ValueError):
    """It is there and cannot be read; says why in one line."""


def split(text: str) -> tuple[dict[str, Any], str] | None:
    """Return (fields, body) of a document, None if it begins with no front matter."""
    text = strip_controls(text.replace("\r\n", "\n")).lstrip("\ufeff")
    if text.lstrip().startswith("{") and not text.lstrip().startswith(("{{", "{%")):
        return _json_first(text.lstrip())
    opened = _OPEN.match(text)
    if opened is None:
        return None
    fence, said = opened[1], (opened[2] or "").lower()
    closed = re.compile(rf"^{re.escape(fence)}[ \t]*$", re.MULTILINE).search(text, opened.end())
    if closed is None:
        raise FrontMatterError(f"its front matter does not end with {fence}")
    head, body = text[opened.end() : closed.start()], text[closed.end() :]
    return parsed(head, said or ("toml" if fence == "+++" else "yaml")), body


def _json_first(text: str) -> tuple[dict[str, Any], str]:
    try:
        fields, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError) as e:
        raise FrontMatterError(f"its front matter is not JSON ({e})") from e
    return fields, text[end:]


def parsed(text: str, form: str) -> dict[str, Any]:
    """Return the fields that a text in YAML, TOML or JSON holds."""
    if len(text) > MAX_CHARS and form == "yaml":
        text = _shortened(text)
    try:
        fields = _PARSERS[form](text)
    except (ValueError, yaml.YAMLError, RecursionError) as e:
        raise FrontMatterError(f"its front matter is no {form.upper()} ({_told(e)})") from e
    if fields is None or fields == "":
        return {}
    if not isinstance(fields, dict):
        raise FrontMatterError("its front matter is no list of names and values")
    return {str(name): value for name, value in fields.items()}


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "yaml": lambda text: yaml.load(text, Loader=_LOADER),  # noqa: S506  # it makes nothing but text
    "toml": tomllib.loads,
    "json": json.loads,
}


def _shortened(text: str) -> str:
    """Long lines cut: a value of a megabyte says no more than its beginning."""
    return "\n".join(line if len(line) < 20_000 else f'{line[:19_000]}"' for line in text.split("\n"))[: 5 * MAX_CHARS]


def _told(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    said = getattr(error, "problem", None) or error
    return where + " ".join(str(said).split())[:120]


def words(value: Any) -> list[str]:
    """A field as a list of texts: a list of texts or of mappings with a name, or one text with commas in it."""
    return [word for word in map(str.strip, _words(value)) if word][:200]


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from value.split(",")
    elif isinstance(value, dict):
        yield from (v for name in ("name", "title") if isinstance(v := value.get(name), str))
    elif isinstance(value, list):
        for thing in value[:200]:  # lists in lists are no one's topics, and anchors make them endless
            yield from [thing] if isinstance(thing, str) else () if isinstance(thing, list) else _words(thing)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def text_of(fields: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that holds a text; a dotted name looks into a mapping."""
    for name in names:
        value: Any = fields
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict | list | bool) and str(value).strip():
            return str(value).strip()
    return ""


def is_set(fields: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """A field as yes or no, in the spellings of YAML 1.1."""
    value = fields.get(name)
    if value is None or value == "":
        return default
    return str(value).strip().lower() in ("true", "yes", "on", "1", "y")
