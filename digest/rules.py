"""The selection language: text to a small tree, and what that tree means for one article.

Owns the grammar, its errors (column and nearest name) and the meaning of every term (`matches`); the catalogue
compiles the same tree to SQL. Knows no database: which topics exist is handed to `check`.

    rule   = either                        nothing at all: every article (ALL)
    either = both {"or" both}
    both   = single {"and" single}
    single = "not" single | "(" either ")" | ("any" | "all" | "none") "(" term {"," term} ")" | term
    term   = field ":" value ["!only"]     field: category tag author source language; value: slug or "quoted"

Two terms side by side are an error: readers of such a rule disagree on what it means. `category:africa` takes the
children of africa in, `category:africa!only` does not; `language:en` takes en-gb in. Values compare in lower case.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import NoReturn, TypeAlias

from digest.errors import RuleError

FIELDS = ("category", "tag", "author", "source", "language")
FUNCTIONS = ("any", "all", "none")
KEYWORDS = ("and", "or", "not")
MAX_LENGTH = 4_000
MAX_DEPTH = 40

_BARE = re.compile(r'[^\s():,!"]+')
_TOKEN = re.compile(
    r"""\s*(?: (?P<punct>[(),])
             | (?P<field>[^\s():,!"]+) : (?P<value>"(?:[^"\\]|\\.)*" | [^\s():,!"]+)? (?P<flag>![^\s():,!"]*)?
             | (?P<word>[^\s():,!"]+) )""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Term:
    """One fact asked for. ``only``: a category without its children. ``column`` is 0 where no text stands behind it."""

    field: str
    value: str
    only: bool = False
    column: int = attribute(default=0, compare=False)

    def __str__(self) -> str:
        value = self.value
        if not _BARE.fullmatch(value):
            value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{self.field}:{value}{'!only' if self.only else ''}"


@dataclass(frozen=True, slots=True)
class Not:
    rule: Rule

    def __str__(self) -> str:
        return f"not {_grouped(self.rule)}"


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more rules."""

    rules: tuple[Rule, ...]

    def __str__(self) -> str:
        return " and ".join(_grouped(r) for r in self.rules)


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of two or more rules."""

    rules: tuple[Rule, ...]

    def __str__(self) -> str:
        return " or ".join(_grouped(r) for r in self.rules)


@dataclass(frozen=True, slots=True)
class All:
    """Every article: what an empty text means. It has no place inside another rule."""

    def __str__(self) -> str:
        return ""


Rule: TypeAlias = Term | Not | And | Or | All
ALL = All()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule may ask about one article. All values are slugs in lower case.

    ``categories`` are the article's own; ``ancestors`` the parents of those, and theirs.
    """

    categories: frozenset[str] = frozenset()
    ancestors: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    authors: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    language: str | None = None


def parse(text: str) -> Rule:
    """Return the tree of *text*; a RuleError points at the first character that does not fit."""
    if len(text) > MAX_LENGTH:
        raise RuleError(
            f"the rule has {len(text)} characters and may have {MAX_LENGTH}", text=text[:60] + "…", column=MAX_LENGTH
        )
    parser = _Parser(text)
    if parser.kind == "end":
        return ALL
    rule = parser.either(0)
    if parser.kind != "end":
        parser.unexpected()
    return rule


def matches(rule: Rule, facts: Facts) -> bool:
    """Tell whether an article with these *facts* is meant by *rule*."""
    match rule:
        case Term():
            return _holds(rule, facts)
        case Not(inner):
            return not matches(inner, facts)
        case And(rules):
            return all(matches(r, facts) for r in rules)
        case Or(rules):
            return any(matches(r, facts) for r in rules)
        case All():
            return True


def terms(rule: Rule) -> Iterator[Term]:
    """Yield the terms of *rule* from left to right."""
    match rule:
        case Term():
            yield rule
        case Not(inner):
            yield from terms(inner)
        case And(rules) | Or(rules):
            for r in rules:
                yield from terms(r)
        case All():
            return


def check(rule: Rule, known: Mapping[str, Collection[str]], text: str) -> None:
    """Raise a RuleError at the first term whose value is not *known*; fields without an entry there pass."""
    for term in terms(rule):
        names = known.get(term.field)
        if names is None or term.value in names:
            continue
        if term.field == "language" and any(speaks(name, term.value) for name in names):
            continue
        message = f"there is no {term.field} {term.value!r}{_suggest(term.value, names)}"
        raise RuleError(message, text=text if term.column else str(term), column=term.column or 1)


def combine(rule_text: str, categories: Iterable[str] = (), tags: Iterable[str] = ()) -> Rule:
    """Return the rule of a digest: its categories and tags OR-ed, and AND-ed with its rule."""
    either: list[Rule] = [Term("category", c.lower()) for c in categories]
    either += [Term("tag", t.lower()) for t in tags]
    both = [r for r in (parse(rule_text), _joined(Or, either)) if r != ALL]
    return _joined(And, both)


def speaks(language: str | None, wanted: str) -> bool:
    """Tell whether a *language* tag is the *wanted* one or a narrower form of it (RFC 4647 §3.3.1)."""
    return language is not None and (language == wanted or language.startswith(wanted + "-"))


def _holds(term: Term, facts: Facts) -> bool:
    match term.field:
        case "category":
            return term.value in facts.categories or (not term.only and term.value in facts.ancestors)
        case "tag":
            return term.value in facts.tags
        case "author":
            return term.value in facts.authors
        case "source":
            return term.value in facts.sources
        case _:
            return speaks(facts.language, term.value)


def _joined(kind: type[And] | type[Or], rules: list[Rule]) -> Rule:
    if len(rules) < 2:
        return rules[0] if rules else ALL
    return kind(tuple(rules))


def _grouped(rule: Rule) -> str:
    return f"({rule})" if isinstance(rule, And | Or) else str(rule)


def _suggest(name: str, names: Collection[str]) -> str:
    pool: Iterable[str] = names
    if len(names) > 5_000:  # the comparison below is quadratic in the names' length
        pool = [n for n in names if n[:1] == name[:1] and abs(len(n) - len(name)) < 4]
    near = difflib.get_close_matches(name, pool, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


class _Parser:
    """One token of look-ahead over the text: ``kind`` and ``match`` are the token that comes next."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.column = text, 0, 1
        self.kind, self.match = "end", _TOKEN.match("x")
        self.advance()

    def advance(self) -> None:
        """Move to the next token; ``column`` is where it starts."""
        rest = self.text[self.at :]
        if not rest.strip():
            self.kind, self.match, self.column = "end", None, len(self.text.rstrip()) + 1
            return
        self.match = _TOKEN.match(self.text, self.at)
        if self.match is None:
            start = self.at + len(rest) - len(rest.lstrip())
            self.fail(f"{self.text[start]!r} has no meaning here", start + 1)
        self.kind = "term" if self.match["field"] else "word" if self.match["word"] else self.match["punct"]
        self.column = (
            self.match.start("field" if self.kind == "term" else "word" if self.match["word"] else "punct") + 1
        )
        self.at = self.match.end()

    def fail(self, message: str, column: int | None = None) -> NoReturn:
        raise RuleError(message, text=self.text, column=column or self.column)

    def unexpected(self) -> NoReturn:
        """Say what stands where an operator or the end belongs."""
        if self.kind == ")":
            self.fail("this ')' closes nothing")
        if self.kind == ",":
            self.fail("a ',' belongs inside any(…), all(…) or none(…)")
        word = self.match["word"] if self.match and self.kind == "word" else None
        if word and (near := difflib.get_close_matches(word.lower(), KEYWORDS, n=1, cutoff=0.6)):
            self.fail(f"{word!r} is no operator; did you mean {near[0]!r}?")
        self.fail("'and' or 'or' is missing here")

    def word(self, *words: str) -> str | None:
        """Return the next token, in lower case, if it is one of *words*."""
        if self.kind == "word" and self.match and (found := self.match["word"].lower()) in words:
            return found
        return None

    def either(self, depth: int) -> Rule:
        rules = [self.both(depth)]
        while self.word("or"):
            self.advance()
            rules.append(self.both(depth))
        return _joined(Or, rules)

    def both(self, depth: int) -> Rule:
        rules = [self.single(depth)]
        while self.word("and"):
            self.advance()
            rules.append(self.single(depth))
        return _joined(And, rules)

    def single(self, depth: int) -> Rule:
        if depth > MAX_DEPTH:
            self.fail(f"the rule is nested more than {MAX_DEPTH} deep")
        if self.word("not"):
            self.advance()
            return Not(self.single(depth + 1))
        if name := self.word(*FUNCTIONS):
            return self.function(name)
        if self.kind == "(":
            opened = self.column
            self.advance()
            rule = self.either(depth + 1)
            self.close(opened)
            return rule
        return self.term()

    def function(self, name: str) -> Rule:
        self.advance()
        opened = self.column
        if self.kind != "(":
            self.fail(f"{name!r} wants its terms in brackets: {name}(category:a, tag:b)")
        rules: list[Rule] = []
        while not rules or self.kind == ",":
            self.advance()
            rules.append(self.term())
        if self.kind not in (")", "end"):
            self.fail(f"the terms of {name}(…) are separated by commas")
        self.close(opened)
        joined = _joined(And if name == "all" else Or, rules)
        return Not(joined) if name == "none" else joined

    def close(self, opened: int) -> None:
        if self.kind == "end":
            self.fail("this '(' is never closed", opened)
        if self.kind != ")":
            self.unexpected()
        self.advance()

    def term(self) -> Term:
        if self.kind != "term" or self.match is None:
            self.no_term()
        found, column = self.match, self.column
        name = found["field"].lower()
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5)
            self.fail(f"there is no field {name!r}; did you mean {near[0]!r}?" if near else self._fields(name))
        value = self.value(found)
        only = self.only(found, name)
        self.advance()
        return Term(name, value, only, column)

    @staticmethod
    def _fields(name: str) -> str:
        return f"there is no field {name!r}; fields are {', '.join(FIELDS)}"

    def value(self, found: re.Match[str]) -> str:
        """Return the value of a term in lower case, without its quotation marks."""
        after = found.end("field") + 1
        raw = found["value"] or ""
        if not raw and self.text[after : after + 1] == '"':
            self.fail("this quotation mark is never closed", after + 1)
        if raw.startswith('"'):
            raw = re.sub(r"\\(.)", r"\1", raw[1:-1], flags=re.DOTALL)
        if not raw.strip():
            self.fail(f"a value must follow {found['field']}: without a space", after + 1)
        return raw.lower()

    def only(self, found: re.Match[str], name: str) -> bool:
        flag = found["flag"]
        if flag is None:
            return False
        if flag.lower() != "!only":
            self.fail(f"{flag!r} is unknown; did you mean '!only'?", found.start("flag") + 1)
        if name != "category":
            self.fail("'!only' leaves out the children of a category; a tag has none", found.start("flag") + 1)
        return True

    def no_term(self) -> NoReturn:
        """Say what stands where a term belongs."""
        word = self.match["word"] if self.match and self.kind == "word" else None
        if self.kind == "end":
            self.fail("the rule ends where a term such as category:africa should follow")
        if word is None:
            self.fail(f"a term such as category:africa is missing before {self.kind!r}")
        if word.lower() in (*KEYWORDS, *FUNCTIONS):
            self.fail(f"a term such as category:africa is missing before {word!r}")
        if near := difflib.get_close_matches(word.lower(), (*KEYWORDS, *FUNCTIONS), n=1, cutoff=0.75):
            self.fail(f"{word!r} is no operator; did you mean {near[0]!r}?")
        self.fail(f"{word!r} says no field; did you mean category:{word} or tag:{word}?")
