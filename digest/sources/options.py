"""What an operator may say about a source: names and values of its options, checked before they are kept.

    keywords: {"Africa": ["Kenya", "African Union"], "tag:Climate": ["climate change"]}

Owns those that are no matter of a format: topics by words and by default. A reader passes over what it does not know.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from digest.errors import UsageError
from digest.sources import reading
from digest.text import clean_title, slugify
from digest.types import CleanArticle, RawArticle, TopicKind, TopicRef

_MAX_WORDS = 2_000  # of all rules of a source together: each is looked for in each article


def listed(value: Any) -> list[str]:
    """A value as a list of texts: a list, or one text with commas in it."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    return [word for word in (str(part).strip() for part in parts) if word]


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return *options* as they are kept, texts made into what is meant; a UsageError names the first that is wrong.

    An option with an empty value is left out.
    """
    found = {}
    for name, value in options.items():
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, n=1, cutoff=0.5)
            advice = f"did you mean {near[0]!r}?" if near else f"options are {', '.join(OPTIONS)}"
            raise UsageError(f"there is no option {name!r} of a source; {advice}")
        if value not in (None, "", [], {}):
            found[name] = OPTIONS[name](value)
    return found


def _zone(value: Any) -> str:
    try:
        return ZoneInfo(str(value)).key
    except (KeyError, ValueError, OSError) as e:
        raise UsageError(f"there is no time zone {value!r}; write it as Europe/Berlin") from e


def _kind(value: Any) -> str:
    if value not in list(TopicKind):
        raise UsageError(f"categories_are {value!r}: it is tag or category")
    return str(value)


def _yes_or_no(value: Any) -> bool:
    said = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(str(value).lower())
    if said is None:
        raise UsageError(f"{value!r} is neither true nor false")
    return said


def _pattern(value: Any) -> str:
    if not reading.is_remote(str(value)):
        raise UsageError(f"url {value!r} is no web address; write it as https://news.example/:year/:slug/")
    return str(value)


def _keywords(value: Any) -> dict[str, list[str]]:
    """Rules as a mapping, or as texts "TOPIC=word,word"; those of one topic are joined."""
    pairs = value.items() if isinstance(value, Mapping) else map(_rule, [value] if isinstance(value, str) else value)
    found: dict[str, list[str]] = {}
    for topic, words in pairs:
        if _topic(topic) is None:
            raise UsageError(f"keywords: {topic!r} is no topic; write it as Africa=Kenya,Ghana or tag:Climate=climate")
        kept = found.setdefault(str(topic).strip(), [])
        kept += [word for word in listed(words) if word not in kept]
        if not any(map(_folded, kept)):
            raise UsageError(f"keywords: {topic!r} has no words; write them as Africa=Kenya,Ghana")
    if sum(map(len, found.values())) > _MAX_WORDS:
        raise UsageError(f"keywords: there are more than {_MAX_WORDS:,} words; leave out the rare ones")
    return found


def _rule(text: Any) -> tuple[str, str]:
    topic, _, words = str(text).partition("=")
    return topic.strip(), words


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "timezone": _zone,
    "url": _pattern,
    "keywords": _keywords,
    "default_categories": listed,
    "known_categories": listed,
    "categories_are": _kind,
    "split_categories": _yes_or_no,
    "categories_from": listed,
    "tags_from": listed,
}


# ----------------------------------------------------------------------------- topics by words


@dataclass(frozen=True, slots=True)
class TopicRules:
    """Topics that a source's options give its articles: by words that they name, and where they have no category.

    ``keywords``: pairs of a topic and folded words.
    """

    keywords: tuple[tuple[TopicRef, tuple[str, ...]], ...] = ()
    defaults: tuple[TopicRef, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TopicRules:
        rules = ((_topic(name), _words(words)) for name, words in (options.get("keywords") or {}).items())
        defaults = (_topic(f"category:{name}") for name in listed(options.get("default_categories") or ()))
        return cls(tuple((topic, words) for topic, words in rules if topic), tuple(filter(None, defaults)))

    def given(self, raw: RawArticle, clean: CleanArticle) -> tuple[TopicRef, ...]:
        """The topics for an article beside those it names itself: by words in the order of the rules, else the
        default categories."""
        found: tuple[TopicRef, ...] = ()
        if self.keywords:
            text = f"{_folded(clean.title)}\n{_folded(clean.excerpt)}"
            found = tuple(topic for topic, words in self.keywords if any(_names(text, word) for word in words))
        if any(ref.kind is TopicKind.CATEGORY for ref in (*raw.topics, *found)):
            return found
        return (*found, *self.defaults)


def _topic(name: Any) -> TopicRef | None:
    """A topic as a rule names it: a category, unless it begins with "tag:"."""
    kind, colon, rest = str(name).strip().partition(":")
    told = colon and kind.lower() in list(TopicKind)
    label = clean_title(rest if told else str(name))
    worded = label.replace("-", " ").capitalize() if label == slugify(label) else label
    return reading.topic(TopicKind(kind.lower()) if told else TopicKind.CATEGORY, worded, slugify(label))


def _words(words: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(folded for word in words if (folded := _folded(str(word)))))


_SAME = str.maketrans({"’": "'", "‘": "'", "-": " ", "‐": " ", "‑": " ", "–": " ", "—": " "})


def _folded(text: str) -> str:
    """For comparison: no case, one spelling of Unicode, a hyphen is a blank."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).replace("i\u0307", "i")
    return " ".join(folded.translate(_SAME).split())


def _names(text: str, word: str) -> bool:
    """Whether *word* stands in *text* as a word or words of their own."""
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if _parted(text[at - 1 : at], word[0]) and _parted(text[end : end + 1], word[-1]):
            return True
        at = text.find(word, at + 1)
    return False


def _parted(outside: str, edge: str) -> bool:
    """Whether a word may begin or end at *edge*. Scripts that set no blanks between words part anywhere."""
    return not outside or not _is_letter(outside) or not _is_letter(edge) or _is_unspaced(edge)


def _is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN"  # a mark belongs to the letter before it


def _is_unspaced(char: str) -> bool:
    """Thai, Lao, Burmese, Khmer; Chinese and Japanese."""
    return any(low <= char <= high for low, high in _UNSPACED)


_UNSPACED = (("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"), ("\u3040", "\u30ff"),
             ("\u3400", "\u9fff"), ("\uf900", "\ufaff"), ("\U00020000", "\U0003ffff"))  # fmt: skip
