"""MJML to HTML with its styles inlined, once for each version of a template. Runs in a child process.

Owns MJML and the inliner, and nothing else does: a template that nests too deeply takes the process down (both stand on
native parsers that recurse), and one that never ends has to be killed. ``python -m digest.rendering.compile`` reads one
JSON object on standard input (the parts of a layout, see renderer.py) and answers with one (``html`` or ``problems``).

    protect    every {{ … }} and {% … %} becomes a plain word, so that no parser can trip over an expression
    MJML       → HTML, tables and all
    inline     the rules of <mj-style inline="inline"> → style attributes
    restore    the words become Jinja again

Article text never comes here: what is compiled is the template, once, not the mail.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import resource
import sys
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import cssutils
from mjml import mjml2html
from premailer import Premailer

from digest.errors import RenderError, TemplateBroken
from digest.rendering.source import Source
from digest.rendering.trial import try_out

CPU_SECONDS = 20
MEMORY_BYTES = 1 << 30
_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.S)
_INLINE_STYLE = re.compile(r"""<mj-style\s[^>]*\binline\s*=\s*["']inline["'][^>]*>(.*?)</mj-style\s*>""", re.S)
# A screen reader jumps to what is the main thing on a page; MJML says only that it is an article
_ARTICLE = re.compile(r'(<body\b[^>]*>)(<div\b[^>]*\brole="article".*)(</body>)', re.S)
# MJML ignores the document's direction on columns; left to right is written into each of them
_COLUMN_DIRECTION = "text-align:left;direction:ltr;"


def compile_mjml(name: str, source: str) -> str:
    """Return the Jinja template that *source* compiles to. RenderError in one sentence, with the line where known."""
    guard = _Guard(source)
    styles: list[str] = []

    def take_out(match: re.Match[str]) -> str:
        styles.append(match[1])
        return ""

    protected = _INLINE_STYLE.sub(take_out, guard.protected)
    try:
        html = mjml2html(protected, fonts={})  # fonts: nothing is loaded from other servers
    except ValueError as error:
        raise RenderError(f"{name}: MJML does not compile: {_first_words(error)}") from error
    html = html.replace("<!doctype html>", "<!DOCTYPE html>", 1)  # the inliner drops a lower-case one
    html = html.replace(_COLUMN_DIRECTION, "text-align:{{start}};direction:{{dir}};")
    html = _ARTICLE.sub(r'\1<div role="main">\2</div>\3', html)
    guard_again = _Guard(html)
    html = guard.restored(name, guard_again.restored(name, inline(guard_again.protected, "\n".join(styles))))
    html = re.sub(r"\n\s+", "\n", html)  # the template's indentation is for its readers, not for the wire
    if leftover := re.search(r"</?mj-[a-z-]+", html):
        raise RenderError(f"{name}: {leftover[0]}> stands where MJML cannot see it, as inside another text tag")
    return html


def inline(html: str, css: str) -> str:
    """Write the rules of *css* into style attributes; the document's own <style> stays as it is."""
    # MJML's reset rules are for <style> alone: inlined they would cost 7 KB. Comments hold Outlook's own <style>.
    marked = re.sub(r"(<!--.*?-->)|<style\b", lambda m: m[1] or '<style data-premailer="ignore"', html, flags=re.S)
    result = _Inliner(
        marked,
        css_text=[css],
        keep_style_tags=True,  # else @font-face, @supports and [data-ogsc] rules are lost
        strip_important=False,  # what the template's author wrote stays
        disable_validation=True,
        allow_network=False,
        allow_loading_external_files=False,
        # width="100%" on images would undo what Outlook needs
        disable_basic_attributes=["width", "height", "align", "valign", "bgcolor"],
        align_floating_images=False,
        preserve_internal_links=True,
        cssutils_logging_level=logging.CRITICAL,
        method="html",
    ).transform(pretty_print=False)
    # the inlined rules are in the style attributes now: their copy in the head is dead weight
    result = result.replace(f'<style type="text/css">{css}</style>', "", 1)
    return str(result.replace(' data-premailer="ignore"', ""))


class _Inliner(Premailer):  # type: ignore[misc]
    """Premailer without a network: its CSS parser fetches every @import, file: too, whatever it is told."""

    _parser = cssutils.CSSParser(fetcher=lambda _url: ("utf-8", b""), validate=False, loglevel=logging.CRITICAL)

    def _parse_css_string(self, css_body: str, validate: bool = True) -> object:
        return self._parser.parseString(css_body, validate=validate)


class _Guard:
    """Stands plain words in for Jinja tags while parsers of other languages are at work."""

    def __init__(self, source: str) -> None:
        self._nonce = "j" + hashlib.sha256(source.encode()).hexdigest()[:16]
        self._tags: list[str] = []
        self.protected = _JINJA.sub(self._stand_in, source)

    def _stand_in(self, match: re.Match[str]) -> str:
        if match[0].startswith("{#"):
            return ""
        self._tags.append(match[0])
        return f"{self._nonce}x{len(self._tags) - 1}x"

    def restored(self, name: str, html: str) -> str:
        seen: set[int] = set()

        def put_back(match: re.Match[str]) -> str:
            seen.add(int(match[1]))
            return self._tags[int(match[1])]

        restored = re.sub(f"{self._nonce}x([0-9]+)x", put_back, html)
        if lost := [tag for number, tag in enumerate(self._tags) if number not in seen]:
            raise RenderError(f"{name}: {lost[0]} is lost where it stands; put it into text or inside <mj-raw>")
        return restored


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def main() -> None:
    """Answer one request. Limits are set here, in the child: the parent only waits and kills."""
    for limit, soft, hard in (
        (resource.RLIMIT_CPU, CPU_SECONDS, CPU_SECONDS + 1),
        (resource.RLIMIT_AS, MEMORY_BYTES, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0, 0),  # no file is written here
        (resource.RLIMIT_CORE, 0, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # not every system has all of them
            resource.setrlimit(limit, (soft, hard))
    request = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"html": compile_layout(request)}
    except TemplateBroken as error:
        answer = {"problems": [astuple(problem) for problem in error.problems]}
    except RenderError as error:
        answer = {"problems": [(request["file"], 0, 0, str(error).removeprefix(f"{request['file']}: "))]}
    except RecursionError:
        answer = {"problems": [(request["file"], 0, 0, "something in it is nested too deeply; make it flatter")]}
    except MemoryError:
        answer = {"problems": [(request["file"], 0, 0, f"takes more than {MEMORY_BYTES >> 20} MB; make it smaller")]}
    json.dump(answer, sys.stdout)


def compile_layout(request: Mapping[str, Any]) -> str:
    """The whole of the child's work: compile, then render what was compiled.

    Where that fails the MJML is rendered as it stands: there the lines are known.
    """
    mjml, text = (Source(f, t, tuple(map(tuple, pieces))) for f, t, pieces in (request["mjml"], request["text"]))
    html = compile_mjml(mjml.file, mjml.folded())
    try:
        try_out(request["layout"], html, text, request["settings"])
    except RenderError:
        try_out(request["layout"], mjml, text, request["settings"])
        raise
    return html


if __name__ == "__main__":
    main()
