"""What a mail says by itself, in the reader's language: catalogues, numbers, dates, direction.

Owns ``templates/words/<language>.toml`` and everything Babel. Not the words of articles.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from babel import Locale
from babel.dates import format_date, format_skeleton

from digest.errors import RenderError


@dataclass(frozen=True)
class Words:
    """One language's catalogue. ``plain`` go into templates as they are; ``plurals`` through ``count``."""

    language: str
    plain: Mapping[str, str]
    plurals: Mapping[str, Mapping[str, str]]
    locale: Locale = field(repr=False)

    @classmethod
    def of(cls, language: str, entries: Mapping[str, Any]) -> Words:
        return cls(
            language,
            {key: value for key, value in entries.items() if isinstance(value, str)},
            {key: value for key, value in entries.items() if isinstance(value, dict)},
            Locale.parse(language.replace("-", "_")),
        )

    @property
    def direction(self) -> str:
        return str(self.locale.text_direction)

    def count(self, key: str, number: int) -> str:
        """The form of *key* that fits *number*: CLDR's plural rules, Arabic's six included."""
        forms = self.plurals[key]
        return forms.get(self.locale.plural_form(number), forms["other"]).replace("{n}", str(number))

    def full_date(self, when: datetime) -> str:
        return format_date(when, "full", self.locale)

    def short_date(self, when: datetime, reference: datetime) -> str:
        """Day and month on the edition's own clock; the year only where it is another one."""
        local = when.astimezone(reference.tzinfo)
        return format_skeleton("MMMd" if local.year == reference.year else "yMMMd", local, None, True, self.locale)


def load_words(dirs: Sequence[Path], language: str) -> Words:
    """Read the catalogue of *language* from the first of *dirs* that has it; English fills what it lacks."""
    return Words.of(language, read_words(dirs, language))


def read_words(dirs: Sequence[Path], language: str) -> dict[str, Any]:
    """The entries of *language* over those of English."""
    return {**_read(dirs, "en"), **_read(dirs, language)}


def _read(dirs: Sequence[Path], language: str) -> dict[str, Any]:
    for root in dirs:
        if (path := root / "words" / f"{language}.toml").is_file():
            return _parse(path, path.stat().st_mtime_ns)
    raise RenderError(f"there are no words for language {language!r}: add templates/words/{language}.toml")


@lru_cache(maxsize=64)
def _parse(path: Path, _changed: int) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RenderError(f"templates/words/{path.name}: {error}") from error
