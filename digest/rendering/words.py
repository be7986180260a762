"""What a mail says by itself, in the reader's language: catalogues, numbers, dates, direction.

Owns the gettext catalogues (``templates/locale/LANGUAGE.po``, read as they are: nothing has to be compiled) and
everything Babel. English needs none: it stands in phrases.py and in the pages. Not the words of articles.

    de-AT  →  templates_dir/locale/de-AT.po, de.po  →  the shipped de-AT.po, de.po  →  English
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property, lru_cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_skeleton
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.numbers import format_decimal

from digest.errors import RenderError
from digest.rendering.phrases import COUNTED, PLAIN


@dataclass(frozen=True)
class Words:
    """One language. ``plain`` go into templates as they are; texts that depend on a number go through ``count``."""

    language: str
    plain: Mapping[str, str]
    locale: Locale = field(repr=False)
    catalogue: NullTranslations = field(repr=False, compare=False)

    @property
    def direction(self) -> str:
        return str(self.locale.text_direction)

    def count(self, key: str, number: int) -> str:
        """The form of *key* that fits *number*, by the language's own plural rule: Arabic has six."""
        return self.catalogue.ngettext(*COUNTED[key], number).replace("{n}", self.number(number))

    def number(self, number: int) -> str:
        """1,234 as the language groups it."""
        return str(format_decimal(number, locale=self.locale))

    def full_date(self, when: datetime) -> str:
        return _date("full", when.date(), self.locale)

    def medium_date(self, when: datetime) -> str:
        return _date("medium", when.date(), self.locale)

    def short_date(self, when: datetime, reference: datetime) -> str:
        """Day and month on the edition's own clock; the year only where it is another one."""
        local = when.astimezone(reference.tzinfo)
        return _day("MMMd" if local.year == reference.year else "yMMMd", local.date(), self.locale)

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """Everything said, to be hashed: a changed catalogue makes another mail."""
        numbers = (0, 1, 2, 3, 11, 100)  # one of each plural form there is
        counted = {key: [self.catalogue.ngettext(*forms, n) for n in numbers] for key, forms in COUNTED.items()}
        return {**{key: [text] for key, text in self.plain.items()}, **counted}


@lru_cache(maxsize=256)
def _date(form: str, day: date, locale: Locale) -> str:
    return format_date(day, form, locale)


@lru_cache(maxsize=1024)
def _day(skeleton: str, day: date, locale: Locale) -> str:
    return format_skeleton(skeleton, day, None, True, locale)


def load_words(dirs: Sequence[Path], language: str) -> Words:
    """Return the words of *language* (a tag like ``de`` or ``de-AT``); RenderError where a catalogue is broken.

    *dirs*: template folders, the first asked first. What no catalogue translates is said in English.
    """
    found = [path for tag in _fallbacks(language) for root in dirs if (path := root / "locale" / f"{tag}.po").is_file()]
    return _words(language, tuple((path, path.stat().st_mtime_ns) for path in found))


@lru_cache(maxsize=64)
def _words(language: str, files: tuple[tuple[Path, int], ...]) -> Words:
    try:
        locale = Locale.parse(language, sep="-")
    except (UnknownLocaleError, ValueError) as error:
        raise RenderError(f"{language!r} is no language that dates and numbers are known of") from error
    chain = NullTranslations()
    for path, changed in reversed(files):
        catalogue = _catalogue(path, changed)
        catalogue.add_fallback(chain)
        chain = catalogue
    return Words(language, {key: chain.gettext(text) for key, text in PLAIN.items()}, locale, chain)


def _catalogue(path: Path, _changed: int) -> GNUTranslations:
    """Read a .po file into a gettext catalogue; what is not translated, or doubtful (fuzzy), is left out."""
    compiled = io.BytesIO()
    try:
        with path.open("rb") as file:
            write_mo(compiled, read_po(file, abort_invalid=True))
        compiled.seek(0)
        return GNUTranslations(compiled)
    except (PoFileError, ValueError, LookupError, SyntaxError) as error:
        raise RenderError(f"templates/locale/{path.name}: {' '.join(str(error).split())[:300]}") from error


def _fallbacks(language: str) -> list[str]:
    """``de-AT`` → ``de-AT``, ``de``."""
    parts = language.split("-")
    return ["-".join(parts[:length]) for length in range(len(parts), 0, -1)]
