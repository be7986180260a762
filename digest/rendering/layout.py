"""Layouts, and editions dressed in them: fragments rendered once, variants joined from bytes.

Owns the fragments (shell, section heads, cards), their cost in bytes, and their assembly. Compiling is compile.py's,
what templates see is view.py's, the bytes are pieces.py's.

    Layout.open(view, dress)          edition and dress fixed: the shell is rendered, personal values are tokens
      └ Dressed.story_cost(story)     a story is rendered and encoded when first asked for, then kept
      └ Dressed.assemble(sections)    shell-top · (section head · stories …) * · more · had · shell-bottom, as bytes

A story has up to four forms: ``lead`` (the first of a mail), ``card``, ``row`` and ``link``. The fullest forms that
the byte budget has room for are taken, from the end of the mail: what fits in full stays in full.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from jinja2 import Template
from jinja2.runtime import Context
from markupsafe import escape

from digest.errors import RenderError
from digest.mime import qp_piece
from digest.rendering import sandbox
from digest.rendering.links import own_links
from digest.rendering.pieces import Piece, Tokens, join, size
from digest.rendering.source import Source
from digest.rendering.subjects import distinct
from digest.rendering.view import MAX_TITLE, clean, line_values, shell_values, story_line_values, story_values
from digest.rendering.words import Words
from digest.types import (
    HTML_BUDGET,
    LONGEST,
    PERSONAL_FIELDS,
    PREVIEW,
    Dress,
    EditionView,
    Format,
    RenderedVariant,
    Section,
    StoryCard,
)

#: Values that differ from variant to variant: tokens in the shell, filled in when a variant is assembled.
VARIANT_FIELDS = ("subject", "preheader", "tally")
BLOCKS = ("stories", "section", "card", "more")
FORMS = ("card", "row", "link")  # fullest first; a layout need not have the last two
OPTIONAL = ("lead", "row", "link", "had")
_RESERVED_MORE = 10_000  # the "and N more" line is kept room for at its longest
_LONGEST_TEXT = {**LONGEST, "subject": sandbox.LINE_BYTES, "preheader": sandbox.LINE_BYTES, "tally": 200}
# a line of 200 bytes can be five times that once it is escaped
_LONGEST_HTML = {**_LONGEST_TEXT, "subject": 5 * sandbox.LINE_BYTES, "preheader": 5 * sandbox.LINE_BYTES}
_HTML_PART, _TEXT_PART = "edition.mjml", "edition.txt"


@dataclass(frozen=True)
class Layout:
    """One layout, compiled. ``hash`` names its content: the templates, the words and the settings of its folder."""

    name: str
    hash: str
    html: Template
    text: Template
    subject: str
    preheader: str
    sections: str  # category | tag: what a digest made with it has sections by, unless it says otherwise
    words: Mapping[str, Words]

    @cached_property
    def optional(self) -> tuple[str, ...]:
        """The blocks it has beside those that every layout has. What one part lacks, the other does not show."""
        return tuple(block for block in OPTIONAL if block in self.html.blocks and block in self.text.blocks)

    @cached_property
    def forms(self) -> tuple[str, ...]:
        return tuple(form for form in FORMS if form == "card" or form in self.optional)

    def open(self, view: EditionView, dress: Dress, budget: int = HTML_BUDGET) -> Dressed:
        """Dress an edition: what is common to all its variants in this language and format."""
        if (words := self.words.get(dress.language)) is None:
            raise RenderError(f"layout {self.name!r} has no words for language {dress.language!r}")
        return Dressed(self, view, dress, words, budget)


def build(
    name: str, content_hash: str, html: str | Source, text: Source, settings: Mapping[str, str],
    words: Mapping[str, Words],
) -> Layout:  # fmt: skip
    """Make a layout of compiled HTML (or of MJML, to try it out) and its text template.

    TemplateBroken if either does not parse.
    """
    if isinstance(html, Source):
        html_template = sandbox.parsed(sandbox.html_environment(), html)
    else:
        with sandbox.explained(f"templates/email/{name}/edition.mjml"):
            html_template = sandbox.html_environment().from_string(html)
    text_template = sandbox.parsed(sandbox.text_environment(), text)
    lines = settings["subject"], settings["preheader"], settings.get("sections", "")
    return Layout(name, content_hash, html_template, text_template, *lines, words)


@dataclass(frozen=True, slots=True)
class _Fragment:
    """One stretch of a mail in both parts; ``html`` is None for readers of plain text."""

    html: Piece | None
    text: Piece
    cost: int

    @classmethod
    def of(cls, html: Piece | None, text: Piece) -> _Fragment:
        return cls(html, text, text.measured(_LONGEST_TEXT) if html is None else html.measured(_LONGEST_HTML))


class Dressed:
    """An edition in one dress. Costs are bytes of decoded HTML, personal values at their longest.

    For readers of plain text there is no HTML: costs and ``html_size`` are those of the text part then.
    """

    def __init__(self, layout: Layout, view: EditionView, dress: Dress, words: Words, budget: int) -> None:
        self.layout, self.view, self.dress, self._words, self._budget = layout, view, dress, words, budget
        self._tokens = Tokens((*PERSONAL_FIELDS, *VARIANT_FIELDS))
        self._values: dict[str, Any] = {**shell_values(view, words), **self._tokens.of}
        self._line_values = line_values(view, words)
        self._link = own_links(view)
        self._contexts: dict[str, Context] = {}  # by part: made once, as every fragment has the same around it
        self._html = None if dress.format is Format.TEXT else layout.html
        self._stories: dict[tuple[int, tuple[int, ...], bool, str], tuple[StoryCard, _Fragment]] = {}
        self._heads: dict[str, _Fragment] = {}
        self._counted: dict[tuple[str, int], _Fragment] = {}
        self._tallies: dict[int, str] = {}

    @cached_property
    def hash(self) -> str:
        """Names all that the mails of this edition share but their texts: the layout's content and the brand."""
        told = json.dumps([self.layout.hash, asdict(self.view.brand)], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    # ------------------------------------------------------------------ costs

    @cached_property
    def shell_cost(self) -> int:
        """Everything but sections and stories; room for the lines below them is kept."""
        top, bottom = self._shell
        lines = [self._count_line(block, _RESERVED_MORE).cost for block in ("more", "had")]
        return top.cost + bottom.cost + sum(lines)

    def story_cost(self, story: StoryCard) -> int:
        """What *story* costs at least: in its scantest form, under a heading that is not its category's name."""
        return min(self._story(story, True, form).cost for form in self.layout.forms)

    def section_cost(self, title: str) -> int:
        return self._head(title).cost if title else 0

    # ------------------------------------------------------------------ assembly

    def assemble(
        self, sections: Sequence[Section], *, more: int = 0, had: int = 0, show: bool = True
    ) -> RenderedVariant:
        """Join the fragments of *sections*. ``more``: how many stories found no room; they are in the archive.

        ``had``: how many were left out because this reader had them. ``show``: give ``html`` and ``text`` to look at,
        too; senders, who want the bytes alone, save a fifth.
        """
        lines = self._lines(sections)
        fragments = self._fragments(sections, more, had)
        text = [fragment.text for fragment in fragments]
        html = [fragment.html for fragment in fragments if fragment.html is not None]
        counted = _LONGEST_TEXT
        shown = lines
        if html:
            counted, shown = _LONGEST_HTML, {name: str(escape(value)) for name, value in lines.items()}
        measured = {**counted, **{name: size(value) for name, value in shown.items()}}
        return RenderedVariant(
            subject=lines["subject"],
            preheader=lines["preheader"],
            html=_shown(html, shown) if show else "",
            text=_shown(text, lines) if show else "",
            html_body=join(html, {name: qp_piece(value) for name, value in shown.items()}) if html else None,
            text_body=join(text, {name: qp_piece(value) for name, value in lines.items()}),
            html_size=sum(piece.measured(measured) for piece in html or text),
        )

    def _fragments(self, sections: Sequence[Section], more: int, had: int) -> list[_Fragment]:
        top, bottom = self._shell
        fragments, stories = [top], iter(self._fitted(sections, more, had)[1])
        for section in sections:
            if section.title:
                fragments.append(self._head(section.title))
            fragments += itertools.islice(stories, len(section.stories))
        return [*fragments, *self._below(more, had), bottom]

    def forms(self, sections: Sequence[Section], more: int = 0, had: int = 0) -> list[str]:
        """The form of each story of a mail: the fullest ones that there is room for.

        Step by step (cards to rows, rows to links) all that must become scantier does so from the end of the mail.
        """
        return self._fitted(sections, more, had)[0]

    def _fitted(self, sections: Sequence[Section], more: int, had: int) -> tuple[list[str], list[_Fragment]]:
        """The stories of a mail in their `forms`."""
        stories = [(story, _has_kicker(story, s.title)) for s in sections for story in s.stories]
        chosen = [self.layout.forms[0]] * len(stories)
        if chosen and "lead" in self.layout.optional:
            chosen[0] = "lead"
        room = self._budget - sum(fragment.cost for fragment in (*self._shell, *self._below(more, had)))
        room -= sum(self._head(section.title).cost for section in sections if section.title)
        fitted = [self._story(*story, form) for story, form in zip(stories, chosen, strict=True)]
        room -= sum(fragment.cost for fragment in fitted)
        for scanter in self.layout.forms[1:]:
            for n in reversed(range(len(stories))):
                if room >= 0:
                    return chosen, fitted
                fuller, chosen[n], fitted[n] = fitted[n], scanter, self._story(*stories[n], scanter)
                room += fuller.cost - fitted[n].cost
        return chosen, fitted

    def _lines(self, sections: Sequence[Section]) -> dict[str, str]:
        """Subject, preheader and intro: the only things that a variant renders for itself."""
        values = {**self._line_values, **story_line_values(sections)}
        name = values["digest"]["name"]
        subject = sandbox.render_line(self.view.subject or self.layout.subject, values, "subject")
        preheader = sandbox.render_line(self.view.preheader or self.layout.preheader, values, "preheader")
        subject = subject.rstrip(" :·–-") or name  # a title that is not there leaves its colon
        subject = distinct(subject, values["lead"]["title"], self.view, self._words)
        return {"subject": subject, "preheader": preheader, "tally": self._tally(values["count"])}

    def _tally(self, stories: int) -> str:
        if stories not in self._tallies:
            words = self._words
            self._tallies[stories] = words.count("stories", stories) if stories else words.plain["nothing"]
        return self._tallies[stories]

    # ------------------------------------------------------------------ fragments

    @cached_property
    def _shell(self) -> tuple[_Fragment, _Fragment]:
        text_top, text_bottom = self._split_shell(self.layout.text, _TEXT_PART)
        if self._html is None:
            return _Fragment.of(None, text_top), _Fragment.of(None, text_bottom)
        html_top, html_bottom = self._split_shell(self._html, _HTML_PART)
        return _Fragment.of(html_top, text_top), _Fragment.of(html_bottom, text_bottom)

    def _split_shell(self, template: Template, part: str) -> tuple[Piece, Piece]:
        """Render all but the stories, with a token in their place, and cut there."""
        place = Tokens(("stories",))
        with self._explained(part):
            whole = sandbox.render_around(template, "stories", place.of["stories"], self._values)
            texts, found = place.split(whole)
            if len(found) != 1:
                raise ValueError("block 'stories' must stand in it exactly once")
            return Piece.of(texts[0], self._tokens), Piece.of(texts[1], self._tokens)

    def _story(self, story: StoryCard, kicker: bool, form: str) -> _Fragment:
        key = (story.lead.id, tuple([article.id for article in story.also]), kicker, form)
        known = self._stories.get(key)
        if known is not None and (known[0] is story or known[0] == story):
            return known[1]
        values = {"story": story_values(story, self.view, self._words, kicker=kicker, form=form, link=self._link)}
        fragment = self._block(form, values)
        self._stories[key] = story, fragment
        return fragment

    def _head(self, title: str) -> _Fragment:
        if (fragment := self._heads.get(title)) is None:
            values = {"section": {"title": clean(title, MAX_TITLE)}}
            fragment = self._heads[title] = self._block("section", values)
        return fragment

    def _below(self, more: int, had: int) -> list[_Fragment]:
        return [self._count_line(block, number) for block, number in (("more", more), ("had", had)) if number > 0]

    def _count_line(self, block: str, number: int) -> _Fragment:
        """What stands below the stories, if anything: "and N more", and how many the reader had already."""
        if (fragment := self._counted.get((block, number))) is None:
            if block in BLOCKS or block in self.layout.optional:
                fragment = self._block(block, {block: {"number": number, "text": self._words.count(block, number)}})
            else:
                fragment = _Fragment.of(None if self._html is None else Piece.of(""), Piece.of(""))
            self._counted[block, number] = fragment
        return fragment

    def _block(self, name: str, values: Mapping[str, Any]) -> _Fragment:
        html = None if self._html is None else self._piece(self._html, _HTML_PART, name, values)
        return _Fragment.of(html, self._piece(self.layout.text, _TEXT_PART, name, values))

    def _piece(self, template: Template, part: str, block: str, values: Mapping[str, Any]) -> Piece:
        with self._explained(part):
            if (context := self._contexts.get(part)) is None:
                context = self._contexts[part] = template.new_context(self._values)
            return Piece.of(sandbox.render_block(template, block, context, values), self._tokens)

    def _explained(self, part: str) -> Any:
        return sandbox.explained(f"templates/email/{self.layout.name}/{part}")


def _shown(pieces: Sequence[Piece], lines: Mapping[str, str]) -> str:
    values = {**PREVIEW, **lines}
    return "".join([piece.shown(values) for piece in pieces])


def _has_kicker(story: StoryCard, section_title: str) -> bool:
    """A card does not repeat the heading it stands under."""
    return story.lead.category.casefold() != section_title.casefold()
