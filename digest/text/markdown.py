"""Markdown: to HTML for what sources bring, to plain blocks for what an admin writes into a mail.

The one owner of the Markdown parser. `blocks` never makes HTML: a mail's templates print the words and style them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from markdown_it import MarkdownIt
from markdown_it.token import Token

_HTML = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_PLAIN = MarkdownIt("commonmark", {"html": False})


@dataclass(frozen=True, slots=True)
class Run:
    """Words in one style. ``url`` as it was written: whoever prints it checks it."""

    text: str
    url: str = ""
    strong: bool = False
    emphasis: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, an item of a list (``bullet``: its mark) or, where ``image`` is set, a picture."""

    runs: tuple[Run, ...] = ()
    bullet: str = ""
    image: str = ""
    alt: str = ""
    url: str = ""  # where the picture leads

    @property
    def text(self) -> str:
        return "".join(run.text for run in self.runs)


def to_html(source: str) -> str:
    """HTML of *source*, with whatever HTML stands in it: not safe by itself."""
    return str(_HTML.render(source))


def blocks(source: str) -> tuple[Block, ...]:
    """The paragraphs, list items and pictures of *source*. Headings are strong paragraphs; HTML stays text."""
    return _Reader().read(_PLAIN.parse(source))


@dataclass
class _Reader:
    """Walks the parser's flat list of tokens."""

    done: list[Block] = field(default_factory=list)
    lists: list[int | None] = field(default_factory=list)  # next number of each open list; None: bullets
    bullet: str = ""
    heading: bool = False

    def read(self, tokens: Iterable[Token]) -> tuple[Block, ...]:
        for token in tokens:
            match token.type:
                case "bullet_list_open":
                    self.lists.append(None)
                case "ordered_list_open":
                    self.lists.append(int(token.attrGet("start") or 1))
                case "bullet_list_close" | "ordered_list_close":
                    self.lists.pop()
                case "list_item_open":
                    self.bullet = self._mark()
                case "heading_open" | "heading_close":
                    self.heading = token.type == "heading_open"
                case "inline":
                    self._inline(token.children or [])
                case "fence" | "code_block":
                    self._paragraph([Run(token.content.strip())])
        return tuple(self.done)

    def _mark(self) -> str:
        number = self.lists[-1]
        if number is None:
            return "•"
        self.lists[-1] = number + 1
        return f"{number}."

    def _paragraph(self, runs: list[Run]) -> None:
        if any(run.text.strip() for run in runs):
            self.done.append(Block(tuple(runs), self.bullet))
            self.bullet = ""

    def _inline(self, tokens: Iterable[Token]) -> None:
        runs: list[Run] = []
        style = Run("", strong=self.heading)
        for token in tokens:
            match token.type:
                case "text" | "code_inline":
                    runs.append(replace(style, text=token.content))
                case "softbreak":
                    runs.append(replace(style, text=" "))
                case "hardbreak":
                    self._paragraph(runs)
                    runs = []
                case "link_open" | "link_close":
                    style = replace(style, url=str(token.attrGet("href") or ""))
                case "strong_open" | "strong_close":
                    style = replace(style, strong=self.heading or token.type == "strong_open")
                case "em_open" | "em_close":
                    style = replace(style, emphasis=token.type == "em_open")
                case "image":
                    self._paragraph(runs)
                    runs = []
                    self.done.append(Block(image=str(token.attrGet("src") or ""), alt=token.content, url=style.url))
        self._paragraph(runs)
