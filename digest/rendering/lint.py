"""A strict reader of MJML with Jinja in it: every mistake with its line, its column and what to do about it.

Owns what is called a mistake; the tables of tags are grammar.py's. MJML's compiler lets an unknown tag, a misspelt
attribute, a tag closed by another one and a column outside of its section through in silence, and gives no lines.

    blank    Jinja's tags become blanks or letters of the same length: columns stay what they are
    read     tags, text and comments, one after the other, each with its place
    hold     the open tags: what may stand here, what is closed by what

Where {% if %} opens a tag in one branch and again in the other, the branches are read side by side.
"""

from __future__ import annotations

import difflib
import itertools
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from digest.errors import Problem
from digest.rendering.grammar import (
    ABSENT,
    ATTRIBUTES,
    CHILDREN,
    EMPTY,
    FORBIDDEN,
    HOLDS_HTML,
    HTML,
    HTML_GLOBAL,
)
from digest.rendering.source import Source

MAX_PROBLEMS = 100
MAX_DEPTH = 120  # parsers behind the compiler recurse; a layout has a dozen
MAX_BRACKETS = 20  # in each other, in a style sheet: its parser recurses, too
FILLED = "\ufffc"  # stands for a character of an expression, whose value is not known

_ENDS = {"{{": "}}", "{%": "%}", "{#": "#}"}
_TOKEN = re.compile(
    r"""(?P<comment><!--.*?(?:-->|\Z))|(?P<odd><[!?][^>]*>)|(?P<close></\s*(?P<closed>[A-Za-z][\w:.-]*)[^<>]*>)
    |(?P<open><(?P<name>[A-Za-z][\w:.-]*)(?P<attributes>(?:[^<>"']|"[^"]*"|'[^']*')*?)(?P<empty>/?)>)|(?P<stray><)""",
    re.S | re.X,
)
_ATTRIBUTE = re.compile(r"""([^\s=/"'<>]+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'<>]+))?|(\S)""")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_WORD = re.compile(r"\{%-?\s*(\w+)")
_WRITES = {"mj-text", "mj-button", "mj-table", "mj-navbar-link", "mj-accordion-title", "mj-accordion-text"}
_LENGTH = rf"-?[\d.{FILLED}]+(?:px|%|em|{FILLED})|0"
_KINDS = {
    "px": (rf"[\d.{FILLED}]+(?:px|{FILLED})|0", "a number of pixels, like 12px"),
    "length": (_LENGTH, "a length, like 12px or 50%"),
    "lengths": (rf"(?:{_LENGTH})(?:\s+(?:{_LENGTH})){{0,3}}", "one to four lengths, like 12px 24px"),
    "height": (rf"{_LENGTH}|[\d.]+|auto", "a length or a number, like 20px or 1.5"),
    "spacing": (_LENGTH, "a length, like 0.5px or 0.1em"),
    "number": (rf"[\d{FILLED}]+", "a number"),
    "colour": (
        r"#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})|(?:rgb|hsl)a?\([^)]*\)|[a-zA-Z]+|",
        "a colour, like #0b5fad",
    ),
}


def lint(source: Source) -> list[Problem]:
    """Return the mistakes of an MJML template, in the order of their places, at most ``MAX_PROBLEMS``."""
    found = _Reader(source).read()
    return sorted(set(found))[:MAX_PROBLEMS]


@dataclass(frozen=True, slots=True)
class _Open:
    """A tag that is not closed yet."""

    name: str
    at: int


class _Reader:
    """One pass over a template. Long files are cheap: nothing is looked at twice."""

    def __init__(self, source: Source) -> None:
        self._place, self.source = source.place, source.text
        self._jinja = list(_expressions(source.text))
        self.text = _blanked(source.text, self._jinja)
        self._mjml = False
        self.problems: list[Problem] = []
        self.stack: list[_Open] = []
        self._forks: list[list[_Open]] = []
        self._has_font = False

    # ------------------------------------------------------------------ places

    def say(self, at: int, what: str) -> None:
        self.problems.append(Problem(*self._place(at), what))

    @property
    def inside(self) -> str:
        return self.stack[-1].name if self.stack else ""

    def _mj_inside(self) -> str:
        """The nearest MJML tag that is open."""
        return next((tag.name for tag in reversed(self.stack) if tag.name.startswith("mj")), "")

    # ------------------------------------------------------------------ the pass

    def read(self) -> list[Problem]:
        self._quotes_in_expressions()
        self._controls()
        position = 0
        for token in self._tokens():
            self._between(position, token.start())
            position = token.end()
            if len(self.problems) > MAX_PROBLEMS:
                return self.problems
            if len(self.stack) > MAX_DEPTH:
                self.say(token.start(), f"tags are nested too deeply here: more than {MAX_DEPTH} are open; close some")
                return self.problems
            self._token(token)
        self._between(position, len(self.text))
        for tag in self.stack:
            self.say(tag.at, f"<{tag.name}> is never closed; add </{tag.name}>")
        if not self._mjml:
            self.say(0, "there is no <mjml> tag; a layout is one <mjml> with a head and a body")
        return self.problems

    def _tokens(self) -> Iterator[re.Match[str]]:
        """Tags and comments; what stands in <style> is CSS, and no tag."""
        position = 0
        while (token := _TOKEN.search(self.text, position)) is not None:
            yield token
            position = token.end()
            if (name := (token["name"] or "").lower()) in ("mj-style", "style") and not token["empty"]:
                end = re.compile(rf"</\s*{name}\b", re.I).search(self.text, position)
                self._css(position, end.start() if end else len(self.text))
                position = end.start() if end else len(self.text)

    def _token(self, token: re.Match[str]) -> None:
        at = token.start()
        if token["comment"] is not None:
            if not token[0].endswith("-->"):
                self.say(at, "this comment never ends; close it with -->")
        elif token["odd"] is not None:
            self.say(at, f"{token[0][:20]} has no place in MJML; remove it")
        elif token["stray"] is not None:
            self.say(at, "a < that begins no tag, or a tag whose quotes do not match; write &lt; for the sign itself")
        elif token["close"] is not None:
            self._close(token["closed"].lower(), at)
        else:
            self._open(token)

    def _between(self, start: int, end: int) -> None:
        """Text and Jinja between two tags: branches fork and join, and text must not stand where none can."""
        tags = self._jinja[bisect_left(self._jinja, (start, 0)) : bisect_left(self._jinja, (end, 0))]
        for a, b in tags:
            if word := _WORD.match(self.source, a, b):
                self._branch(word[1])
        inside = self.inside
        if inside in HOLDS_HTML or not (inside == "" or inside in CHILDREN or inside == "mj-attributes"):
            return
        place = f"<{inside}>" if inside else "the file"
        if match := re.compile(r"\S").search(self.text, start, end):
            self.say(match.start(), f"text has no place directly in {place}; put it into <mj-text> or <mj-raw>")
            return
        for a, _ in tags:
            if inside and not self.source.startswith("{#", a):
                self.say(a, f"Jinja has no place directly in {place}; put it into <mj-raw> or into an attribute")
                return

    def _branch(self, word: str) -> None:
        if word == "if":
            self._forks.append(list(self.stack))
        elif word in ("else", "elif") and self._forks:
            self.stack = list(self._forks[-1])
        elif word == "endif" and self._forks:
            self._forks.pop()

    # ------------------------------------------------------------------ tags

    def _open(self, token: re.Match[str]) -> None:
        at, written, empty = token.start(), token["name"], bool(token["empty"])
        name = written.lower()
        self._mjml = self._mjml or name == "mjml"
        if name.startswith("mj"):
            self._mj_tag(name, written, at)
        else:
            self._html_tag(name, at)
        attributes = self._attributes(name, token)
        self._required(name, attributes, at)
        if name in EMPTY:
            return
        if empty and not name.startswith("mj"):
            self.say(at, f"<{name}/> does not close <{name}> in HTML; write <{name}></{name}>")
        elif not empty:
            self.stack.append(_Open(name, at))

    def _mj_tag(self, name: str, written: str, at: int) -> None:
        inside = self._mj_inside()
        if name in ABSENT:
            self.say(at, f"<{name}> {ABSENT[name]}")
        elif name not in ATTRIBUTES and not (inside == "mj-attributes" and name in ("mj-all", "mj-class")):
            self.say(at, f"<{name}> is not an MJML tag{_nearest(name, ATTRIBUTES)}")
        elif written != name:
            self.say(at, f"<{written}> is written in small letters: <{name}>")
        elif inside == "mj-attributes":
            return
        elif inside == self.inside:
            if name not in CHILDREN.get(inside, ()):
                where = [f"<{tag}>" for tag, children in CHILDREN.items() if name in children and tag]
                place = f"directly in <{inside}>" if inside else "outside of <mjml>"
                hint = f"it belongs into {' or '.join(where)}" if where else "there is one around everything, no other"
                self.say(at, f"<{name}> has no place {place}; {hint}")
        else:
            self.say(at, f"<{name}> has no place inside <{self.inside}>; MJML does not look into HTML")

    def _html_tag(self, name: str, at: int) -> None:
        inside = self._mj_inside()
        if name in FORBIDDEN:
            self.say(at, f"<{name}> has no place in a mail: mail programs remove it, or the whole mail")
        elif name not in HTML and name != "style":
            self.say(at, f"<{name}> is not a tag of HTML{_nearest(name, (*HTML, *ATTRIBUTES))}")
        elif inside == "mj-attributes" or (inside in CHILDREN and inside not in HOLDS_HTML):
            self.say(
                at, f"<{name}> has no place directly in <{inside or 'the file'}>; put it into <mj-text> or <mj-raw>"
            )
        elif name == "style" and inside != "mj-raw":
            self.say(at, "<style> has no place here; use <mj-style> in the head")

    def _close(self, name: str, at: int) -> None:
        if name in EMPTY:
            self.say(at, f"</{name}> closes nothing: <{name}> has no end; remove it")
        elif self.inside == name:
            self.stack.pop()
        elif any(tag.name == name for tag in self.stack):
            while self.inside != name:
                tag = self.stack.pop()
                self.say(at, f"</{name}> where </{tag.name}> was expected; <{tag.name}> is open{self._line_of(tag)}")
            self.stack.pop()
        elif self.stack and self.inside.startswith("mj") == name.startswith("mj"):
            tag = self.stack.pop()  # most likely this one was meant
            self.say(at, f"</{name}> where </{tag.name}> was expected; <{tag.name}> is open{self._line_of(tag)}")
        else:
            self.say(at, f"</{name}> closes nothing; remove it, or open <{name}> before")

    def _line_of(self, tag: _Open) -> str:
        return f" since line {self._place(tag.at)[1]}"

    # ------------------------------------------------------------------ attributes

    def _attributes(self, tag: str, token: re.Match[str]) -> dict[str, str]:
        """Check them one by one; return those that are there."""
        found: dict[str, str] = {}
        start = token.start("attributes")
        for match in _ATTRIBUTE.finditer(token["attributes"]):
            if len(self.problems) > MAX_PROBLEMS:
                break
            name, value, stray = match.groups()
            at = start + match.start()
            if stray is not None:
                self.say(at, f"{stray} has no place among the attributes of <{tag}>; are its quotes in pairs?")
                return found
            if set(name) <= {FILLED}:
                self.say(at, f"an expression has no place among the attributes of <{tag}>; give the attribute a value")
                continue
            if name.lower() in found:
                self.say(at, f"{name} stands twice in <{tag}>; remove one")
            found[name.lower()] = (value or "").strip("\"'")
            self._attribute(tag, name, value, at)
        return found

    def _attribute(self, tag: str, name: str, value: str | None, at: int) -> None:
        if value is None:
            self.say(at, f'{name} has no value; write {name}="…"')
            return
        if value[0] not in "\"'":
            self.say(at, f'the value of {name} stands without quotes; write {name}="{value[:20]}"')
        if tag.startswith("mj"):
            self._mj_attribute(tag, name, value.strip("\"'"), at)
        elif name.lower().startswith("on"):
            self.say(at, f"{name} would run a script; mail programs remove it, or the whole mail")
        elif tag in HTML and not name.startswith(("data-", "aria-")) and name not in HTML[tag] | HTML_GLOBAL:
            self.say(at, f"{name} is not an attribute of <{tag}>{_nearest(name, (*HTML[tag], *HTML_GLOBAL))}")

    def _mj_attribute(self, tag: str, name: str, value: str, at: int) -> None:
        if tag in ("mj-all", "mj-class"):
            known = {key: kind for kinds in ATTRIBUTES.values() for key, kind in kinds.items()}
            if tag == "mj-class":
                known["name"] = "text"
        elif tag in ATTRIBUTES:
            known = ATTRIBUTES[tag]
        else:
            return
        if name not in known:
            meant = _nearest(name, known) if name != "class" else "; is 'css-class' meant?"
            self.say(at, f"{name} is not an attribute of <{tag}>{meant}")
        elif problem := _unfit(known[name], value):
            self.say(at, f"{name} of <{tag}> is {value[:40]!r}; it wants {problem}")

    def _required(self, name: str, attributes: dict[str, str], at: int) -> None:
        if name in ("img", "mj-image", "mj-carousel-image", "mj-social-element") and "alt" not in attributes:
            self.say(at, f'<{name}> has no alt; say what it shows, or alt="" where it only adorns')
        if name in ("img", "mj-image") and "src" not in attributes:
            self.say(at, f"<{name}> has no src; an image needs its address")
        if name == "img" and not {"width", "height"} & attributes.keys():
            self.say(at, "<img> has no width; Outlook shows it at its own size without one")
        inside = self._mj_inside()
        if name in ("mj-all", "mj-text") and inside == "mj-attributes":
            self._has_font = self._has_font or "font-family" in attributes
        elif name in _WRITES and not ("font-family" in attributes or self._has_font or inside == "mj-attributes"):
            self.say(at, f"<{name}> has no font-family, and MJML's own is a web font; set it here or on <mj-all>")

    # ------------------------------------------------------------------ inside expressions and styles

    def _quotes_in_expressions(self) -> None:
        """``href="{{ f("x") }}"``: our compiler reads it, editors and other tools of MJML do not."""
        for match in re.finditer(r"""=\s*("[^"]*"|'[^']*')""", self.text):
            start, end, quote = match.start(1), match.end(1), match[1][0]
            kind, other = ("double", "single") if quote == '"' else ("single", "double")
            for a, b in self._jinja[bisect_left(self._jinja, (start, 0)) : bisect_left(self._jinja, (end, 0))]:
                if (at := self.source.find(quote, a, b)) >= 0:
                    self.say(at, f"{kind} quotes in an expression inside {kind} quotes; use {other} quotes here")

    def _controls(self) -> None:
        for match in itertools.islice(_CONTROL.finditer(self.source), MAX_PROBLEMS):
            self.say(
                match.start(), f"a control character (U+{ord(match[0]):04X}) has no place in a template; remove it"
            )

    def _css(self, start: int, end: int) -> None:
        css = re.sub(r"/\*.*?(?:\*/|\Z)", lambda m: re.sub(r"\S", " ", m[0]), self.text[start:end], flags=re.S)
        if match := re.search(r"@import|url\(\s*['\"]?(?!data:)[^)]", css):
            self.say(start + match.start(), "a style sheet loads something from elsewhere; mails must not")
        if at := _too_deep(css):
            self.say(start + at, f"more than {MAX_BRACKETS} brackets stand in each other here; close some")
        depth = 0
        for match in re.finditer("[{}]", css):
            depth += 1 if match[0] == "{" else -1
            if depth < 0:
                self.say(start + match.start(), "} closes nothing in this style sheet; remove it")
                return
        if depth:
            self.say(start, f"{depth} {{ of this style sheet {'are' if depth > 1 else 'is'} never closed; add }}")


def _too_deep(css: str) -> int:
    """Where more than ``MAX_BRACKETS`` are open; 0: nowhere."""
    depth = 0
    for match in re.finditer(r"[(\[)\]]", css):
        depth = max(0, depth + (1 if match[0] in "([" else -1))
        if depth > MAX_BRACKETS:
            return match.start()
    return 0


def _expressions(source: str) -> Iterator[tuple[int, int]]:
    """Start and end of each Jinja tag; one that never ends is Jinja's own to tell."""
    position = 0
    while (match := re.compile(r"\{[{%#]").search(source, position)) is not None:
        if (end := source.find(_ENDS[match[0]], match.end())) < 0:
            return
        yield match.start(), (position := end + 2)


def _blanked(source: str, tags: Iterable[tuple[int, int]]) -> str:
    """As long as *source* and on as many lines: letters for what prints, blanks for what prints nothing."""
    parts, position = [], 0
    for start, end in tags:
        filling = FILLED if source.startswith("{{", start) else " "
        parts += [source[position:start], re.sub("[^\n]", filling, source[start:end])]
        position = end
    return "".join([*parts, source[position:]])


def _unfit(kind: str, value: str) -> str:
    """What *kind* of value is wanted, where *value* is none of it; "" where it is, or nobody can know."""
    value = value.strip()
    if kind == "text" or (value and set(value) <= {FILLED}):
        return ""
    base, _, words = kind.partition("|")
    if base in _KINDS:
        pattern, said = _KINDS[base]
        fits = re.fullmatch(pattern, value) or value in words.split("|")
        return "" if fits or FILLED in value else said
    choices = kind.split("|")
    return "" if value in choices or FILLED in value else " or ".join(choices)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; is {close[0]!r} meant?" if close else "; look it up or remove it"
