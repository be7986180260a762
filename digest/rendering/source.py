"""The text of a template with all that it includes, and where each character of it comes from.

Owns ``{% include "shared/footer.mjml" %}``: parts that layouts have in common, put in before anything else reads the
template, so that MJML sees one document. Any other include is refused; no path leads out of the template folders.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from digest.errors import Problem, TemplateBroken

MAX_DEPTH = 3
MAX_SOURCE = 400_000  # characters, with all that is included
_INCLUDE = re.compile(r"""\{%-?\s*include\b([^%]*?)-?%\}(\n?)""")
_COMMENT = re.compile(r"<!-- .*? -->", re.S)
_SHARED = re.compile(r"""\s*["'](shared/[a-z0-9_-]+\.(?:mjml|txt|html))["']\s*""")

Find = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Source:
    """``pieces``: (offset in ``text``, file, line and column there of the piece's first character), in order."""

    file: str
    text: str
    pieces: tuple[tuple[int, str, int, int], ...]

    def place(self, at: int) -> tuple[str, int, int]:
        """File, line and column (from 1) of the character at offset *at*."""
        offset, file, line, column = self.pieces[max(0, bisect_right(self.pieces, at, key=lambda piece: piece[0]) - 1)]
        passed = self.text.count("\n", offset, at)
        if passed:
            return file, line + passed, at - self.text.rfind("\n", offset, at)
        return file, line, column + at - offset

    def line(self, number: int) -> tuple[str, int, int]:
        """File and line of line *number* of ``text``; no column (0)."""
        start = 0
        for _ in range(number - 1):
            start = self.text.find("\n", start) + 1
        end = self.text.find("\n", start)
        written = re.compile(r"[^\s]").search(self.text, start, len(self.text) if end < 0 else end)
        file, line, _ = self.place(written.start() if written else start)
        return file, line, 0

    def folded(self) -> str:
        """The text with what is included on one line, without comments: its indentation is for its readers."""
        ends = [*(at for at, *_ in self.pieces[1:]), len(self.text)]
        whole = ""
        for (start, file, _, _), end in zip(self.pieces, ends, strict=True):
            if file != self.file:
                whole += _folded(self.text[start:end], whole[-1:])
            else:
                whole += ("\n" if start else "") + self.text[start:end]
        return whole

    def broken(self, at: int, what: str) -> TemplateBroken:
        return TemplateBroken([Problem(*self.place(at), what)])


def _folded(part: str, before: str) -> str:
    """*part* on one line; blanks between tags on lines of their own mean nothing. *before*: what precedes."""
    folded = ""
    for line in _COMMENT.sub("", part).splitlines():
        if written := line.strip():
            last = folded[-1:] or before
            joins = last in (">", "}", "\n", "") and written.startswith(("<", "{%"))
            folded += written if joins or last.isspace() else f" {written}"
    return folded


def plain(file: str, text: str) -> Source:
    """A template that includes nothing."""
    return Source(file, text, ((0, file, 1, 1),))


def read(file: str, text: str, find: Find) -> Source:
    """Put in what *text* includes. *find*: the text of a path, None where nothing is. May raise TemplateBroken."""
    whole = _Whole(find)
    whole.add(plain(file, text), 0)
    return Source(file, "".join(whole.parts), tuple(whole.pieces))


class _Whole:
    """A template while it is put together."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self.parts: list[str] = []
        self.pieces: list[tuple[int, str, int, int]] = []
        self._length = 0

    def add(self, source: Source, depth: int) -> None:
        position = 0
        for match in _INCLUDE.finditer(source.text):
            self._piece(source, position, match.start())
            part = self._included(source, match, depth)
            self.add(part, depth + 1)
            # the line end after an include is the part's own
            position = match.end() if part.text.endswith("\n") else match.start(2)
        self._piece(source, position, len(source.text))

    def _piece(self, source: Source, start: int, end: int) -> None:
        self.pieces.append((self._length, *source.place(start)))
        self.parts.append(source.text[start:end])
        self._length += end - start
        if self._length > MAX_SOURCE:
            raise source.broken(start, f"with its parts the template is longer than {MAX_SOURCE} characters")

    def _included(self, source: Source, match: re.Match[str], depth: int) -> Source:
        named = _SHARED.fullmatch(match[1])
        if named is None:
            what = f'{match[1].strip()[:60]} cannot be included; only "shared/NAME.mjml" and "shared/NAME.txt" can'
            raise source.broken(match.start(), what)
        if depth == MAX_DEPTH:
            raise source.broken(
                match.start(), f"parts are included more than {MAX_DEPTH} deep; put this one in by hand"
            )
        file = f"templates/email/{named[1]}"
        if (text := self._find(f"email/{named[1]}")) is None:
            raise source.broken(match.start(), f"there is no {file} to include; write it, or remove this")
        return plain(file, text)
