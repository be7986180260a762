"""What is said in every language: complete catalogues, plural forms, numbers and dates, and nothing left in English."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
from babel import Locale

from digest.errors import RenderError
from digest.paths import shipped
from digest.rendering import Renderer
from digest.rendering.phrases import PLAIN
from digest.rendering.words import load_words
from digest.types import LANGUAGES, Dress
from tests import catalogues

OURS = [shipped("templates")]
TRANSLATED = [language for language in LANGUAGES if language != "en"]
FILLED = re.compile(r"\{\w+\}|%\(\w+\)[sd]")


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_catalogue_says_all_that_is_said_and_nothing_else(language: str) -> None:
    catalogue, wanted = catalogues.read(catalogues.FOLDER / f"{language}.po"), catalogues.wanted()
    said = {message.id for message in wanted if message.id}
    assert len(said) > 20
    assert {message.id for message in catalogue if message.id} == said, "run `./run messages`, then translate"
    for message in catalogue:
        texts = message.string if message.pluralizable else (message.string,)
        assert not message.fuzzy, message.id
        assert all(texts), f"{message.id!r} is not translated"
        assert not message.pluralizable or len(texts) == catalogue.num_plurals, message.id


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_keeps_what_is_filled_in(language: str) -> None:
    for message in catalogues.read(catalogues.FOLDER / f"{language}.po"):
        if message.pluralizable:  # "one story" may say its number in a word
            for text in message.string:
                assert set(FILLED.findall(text)) <= set(FILLED.findall(message.id[1])), text
            assert FILLED.findall(message.string[-1]) == FILLED.findall(message.id[1])
        elif message.id:
            assert sorted(FILLED.findall(message.string)) == sorted(FILLED.findall(message.id)), message.id


@pytest.mark.parametrize("language", LANGUAGES)
def test_plural_forms_are_those_of_the_language(language: str) -> None:
    """gettext's rule in the catalogue against CLDR's: for every number both put the same ones together."""
    forms = [load_words(OURS, language).catalogue.ngettext("{n} story", "{n} stories", n) for n in (1, 2)]
    assert forms == ["{n} story", "{n} stories"]  # not a text of ours: said as it is
    rule = catalogues.read(catalogues.FOLDER / f"{language}.po").plural_expr if language != "en" else "(n != 1)"
    from gettext import c2py  # type: ignore[attr-defined]

    ours, theirs = c2py(rule), Locale.parse(language).plural_form
    pairs = {(ours(n), theirs(n)) for n in range(1_001)}
    assert len(pairs) == len({form for form, _ in pairs}) == len({form for _, form in pairs})


def test_arabic_has_six_forms() -> None:
    arabic = load_words(OURS, "ar")
    assert [arabic.count("stories", n) for n in (0, 1, 2, 3, 11, 100)] == [
        "لا مقالات", "مقالة واحدة", "مقالتان", "3 مقالات", "11 مقالة", "100 مقالة",
    ]  # fmt: skip


def test_numbers_and_dates_are_the_languages_own() -> None:
    when, other_year = datetime(2026, 7, 14, 7, 0), datetime(2025, 3, 1, 7, 0)
    said = {
        language: (w.count("stories", 12_345), w.full_date(when), w.short_date(other_year, when))
        for language in ("en", "de", "ar")
        for w in [load_words(OURS, language)]
    }
    assert said["en"] == ("12,345 stories", "Tuesday, July 14, 2026", "Mar 1, 2025")
    assert said["de"] == ("12.345 Beiträge", "Dienstag, 14. Juli 2026", "1. März 2025")
    assert said["ar"][1] == "الثلاثاء، 14 يوليو 2026"
    assert [load_words(OURS, "en").count("stories", n) for n in (0, 1, 2)] == ["0 stories", "1 story", "2 stories"]


def test_a_language_falls_back_to_its_parent_then_to_english(tmp_path: Path) -> None:
    assert load_words(OURS, "de-AT").plain["read_more"] == "Weiterlesen"
    assert load_words(OURS, "fr").plain["read_more"] == "Read more"
    january = datetime(2026, 1, 5)
    assert load_words(OURS, "de-AT").full_date(january) == "Montag, 5. Jänner 2026"
    assert Dress.speaking("de-AT").language == "de"
    assert Dress.speaking("fr-CA").language == "en"
    with pytest.raises(RenderError, match="'xx-nope' is no language"):
        load_words(OURS, "xx-nope")


def po(root: Path, language: str, text: str) -> Path:
    path = root / "locale" / f"{language}.po"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n{text}\n', "utf-8")
    return path


def test_an_operators_catalogue_goes_before_ours_text_by_text(tmp_path: Path) -> None:
    po(tmp_path, "de", 'msgid "Read more"\nmsgstr "Mehr dazu"')
    po(tmp_path, "en", 'msgid "Read more"\nmsgstr "Go on"')
    dirs = [tmp_path, *OURS]
    assert load_words(dirs, "de").plain["read_more"] == load_words(dirs, "de-CH").plain["read_more"] == "Mehr dazu"
    assert load_words(dirs, "de").plain["unsubscribe"] == "Abbestellen"
    assert load_words(dirs, "en").plain["read_more"] == "Go on"
    assert Renderer([tmp_path]).layout("cards").hash != Renderer().layout("cards").hash
    assert load_words(OURS, "de").plain["read_more"] == "Weiterlesen"


@pytest.mark.parametrize("text", ["nonsense here", 'msgid "a" msgstr', "msgstr[0"])
def test_a_broken_catalogue_costs_one_sentence(tmp_path: Path, text: str) -> None:
    po(tmp_path, "de", text)
    with pytest.raises(RenderError, match=r"templates/locale/de\.po:\S* .") as caught:
        load_words([tmp_path, *OURS], "de")
    assert "\n" not in str(caught.value)
    assert load_words([tmp_path, *OURS], "en").plain["read_more"] == "Read more"


def test_a_catalogue_that_is_not_text_costs_one_sentence(tmp_path: Path) -> None:
    po(tmp_path, "de", "").write_bytes(b"\xff\xfe\x00msgid")
    with pytest.raises(RenderError, match=r"templates/locale/de\.po"):
        load_words([tmp_path, *OURS], "de")


# ----------------------------------------------------------------------------- templates hold no words of their own

_NOT_TEXT = re.compile(
    r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}|<!--.*?-->|<(style|mj-style)\b.*?</\1\s*>|<[^>]*>|&\w+;", re.S | re.I
)
_SPOKEN = re.compile(r"""\b(?:alt|title|aria-label|placeholder)\s*=\s*"([^"]*)\"""")


def words_in(source: str) -> list[str]:
    """Words that a reader would see and no translator: in the text, and in attributes that are read out."""
    guarded = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", lambda m: "\0" * len(m[0]), source, flags=re.S)
    texts = [guarded, *_SPOKEN.findall(guarded)]
    return [word for text in texts for word in re.findall(r"[^\W\d_]{2,}", _NOT_TEXT.sub(" ", text))]


@pytest.mark.parametrize(
    "path",
    [p for folder in ("email", "system") for p in sorted((OURS[0] / folder).rglob("*")) if p.suffix != ".toml"],
    ids=lambda p: "/".join(p.parts[-2:]),
)
def test_no_template_of_a_mail_says_a_word_by_itself(path: Path) -> None:
    if path.is_file():
        assert words_in(path.read_text("utf-8")) == []


def test_words_that_no_translator_sees_are_found() -> None:
    assert words_in('<p>{{ words.also }} Hello</p><img alt="Bild {{ x }}"><!-- no --><style>a{}</style>&nbsp;·') == [
        "Hello", "Bild",
    ]  # fmt: skip


def test_templates_ask_for_no_phrase_that_is_not_there() -> None:
    sources = "".join(p.read_text("utf-8") for p in OURS[0].rglob("*") if p.suffix in (".mjml", ".txt", ".html"))
    asked = set(re.findall(r"\bwords\.(\w+)", sources))
    assert {"read_more", "unsubscribe"} <= asked <= set(PLAIN)
