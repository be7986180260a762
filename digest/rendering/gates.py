"""Gates: what must hold of a mail before anybody gets it. Looks at what was rendered, not at how.

Owns the checks and their sentences. Which variants are looked at, and what becomes of an edition that fails, is the
editor's business; colours are worked out in shades.py, SpamAssassin is asked in spam.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from lxml import html as lxml_html

from digest.rendering.layout import Dressed
from digest.rendering.palette import READABLE
from digest.rendering.sandbox import LINE_BYTES
from digest.rendering.shades import faint
from digest.rendering.view import PLACEHOLDER, clean
from digest.types import HTML_BUDGET, PERSONAL_FIELDS, PREVIEW, EditionView, RenderedVariant, Section

_LOOPBACK = re.compile(r"localhost|127(?:\.\d{1,3}){3}|::1")


@dataclass(frozen=True, slots=True)
class Gate:
    """One check. ``detail``: what was measured; of a failed one a sentence that says what is wrong and what to do."""

    gate: str
    ok: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check(dressed: Dressed, sections: Sequence[Section], rendered: RenderedVariant) -> list[Gate]:
    """All gates that can be told from one variant. *rendered* is *sections* in that dress, with both parts shown."""
    gates = [size(rendered), _subject(rendered.subject), _placeholders(dressed), _personal(rendered)]
    if rendered.html_body is None:
        return gates
    page = lxml_html.document_fromstring(rendered.html)
    return [*gates, _text_part(page, rendered), _alt(page), _links(page, dressed.view), *_contrast(page)]


def size(rendered: RenderedVariant, whose: str = "") -> Gate:
    """With the longest personal values there may be. ``whose``: of which variant, where it is not the house's."""
    of = f"{rendered.html_size:,} of {HTML_BUDGET:,} bytes{whose}"
    fits = rendered.html_size <= HTML_BUDGET
    return Gate("html_size", fits, of if fits else f"the mail has {of}; lower --max, or shorten intro and closing")


def safe_addresses(urls: Sequence[str], view: EditionView) -> Gate | None:
    """A failed gate for the first of *urls* that may not be linked; None if all may."""
    if wrong := next((url for url in urls if not _may_link(url, view)), None):
        return _bad_link(wrong)
    return None


# ----------------------------------------------------------------------------- lines and values


def _subject(subject: str) -> Gate:
    length = len(subject.encode())
    if not subject.strip():
        return Gate("subject", False, "the subject is empty; give the digest one with --subject")
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in subject):
        return Gate("subject", False, "the subject holds control characters; write another with --subject")
    if length > LINE_BYTES:
        return Gate("subject", False, f"the subject has {length} bytes, {LINE_BYTES} at most; shorten it")
    return Gate("subject", True, f"{length} of {LINE_BYTES} bytes")


def _placeholders(dressed: Dressed) -> Gate:
    """Nothing is left to be filled in. Articles may say what they like: the mail is looked at without them."""
    bare = dressed.assemble(())
    shell = bare.text
    if bare.html_body is not None:
        page = lxml_html.document_fromstring(bare.html)
        if strange := next((e.tag for e in page.iter() if isinstance(e.tag, str) and e.tag.startswith("mj-")), None):
            return Gate("no_template_left", False, f"<{strange}> was not compiled; correct the layout")
        shell += page.body.text_content() + " ".join(page.xpath("//@href"))
    view = dressed.view  # as it was written: Markdown takes some marks for its own
    if found := PLACEHOLDER.search("\n".join((shell, view.intro, view.closing, view.sponsor))):
        return Gate(
            "no_template_left", False, f"{found[0]!r} was not filled in; correct the digest's texts or its layout"
        )
    return Gate("no_template_left", True, "")


def _personal(rendered: RenderedVariant) -> Gate:
    """Every reader finds the way out, in every part."""
    for body, part in ((rendered.html_body, "HTML"), (rendered.text_body, "text")):
        if body is not None and (missing := [f for f in PERSONAL_FIELDS[:2] if f not in body.fields]):
            return Gate("unsubscribe", False, f"the {part} part has no {{{{ {missing[0]} }}}}; add it to the layout")
    return Gate("unsubscribe", True, "")


# ----------------------------------------------------------------------------- both parts say the same


def _text_part(page: Any, rendered: RenderedVariant) -> Gate:
    """Links of the HTML in their order, and its headings: all must stand in the text part, too."""
    said = _flat(rendered.text)
    if not said:
        return Gate("text_part", False, "the text part is empty; correct the layout's edition.txt")
    for heading in page.xpath("//h1 | //h2 | //h3"):
        if (title := _flat(heading.text_content())) and title not in said:
            return Gate("text_part", False, f"the text part lacks {title[:60]!r}; correct the layout's edition.txt")
    links = [url for url in dict.fromkeys(page.xpath("//a/@href")) if not url.startswith("mailto:")]
    if lost := next((url for url in links if url not in rendered.text), None):
        return Gate("text_part", False, f"the text part lacks the link {lost[:80]}; correct the layout's edition.txt")
    return Gate("text_part", True, f"{len(links)} links, {len(rendered.text):,} characters")


def _flat(text: str) -> str:
    return " ".join(text.split()).casefold()


# ----------------------------------------------------------------------------- the page


def _alt(page: Any) -> Gate:
    images = page.xpath("//img")
    for image in images:
        only = image.getparent().tag == "a" and not image.getparent().text_content().strip()
        if image.get("alt") is None or (only and not image.get("alt").strip()):
            return Gate("alt", False, f"the picture {image.get('src', '')[:80]} has no alt; correct the layout")
    return Gate("alt", True, f"{len(images)} pictures")


def _links(page: Any, view: EditionView) -> Gate:
    links = page.xpath("//@href")
    if wrong := next((url for url in links if url not in PREVIEW.values() and not _may_link(url, view)), None):
        return _bad_link(wrong)
    if wrong := next((u for u in page.xpath("//img/@src") if urlsplit(u).scheme not in ("http", "https")), None):
        return Gate("links", False, f"the picture {wrong[:80]!r} has no web address; correct the layout")
    return Gate("links", True, f"{len(links)} links")


def _bad_link(url: str) -> Gate:
    return Gate(
        "links", False, f"{url[:120]} is no https link; correct it at its source, or `digest articles exclude` it"
    )


def _may_link(url: str, view: EditionView) -> bool:
    """Absolute https; an address to write to; http where this publication itself is on this machine only."""
    parts = urlsplit(url)
    if parts.scheme == "mailto":
        return "@" in parts.path
    if parts.scheme == "http":
        return _LOOPBACK.fullmatch(urlsplit(view.home_url).hostname or "") is not None
    return parts.scheme == "https" and bool(parts.hostname)


def _contrast(page: Any) -> Iterator[Gate]:
    for scheme in ("light", "dark"):
        found = faint(page, scheme, READABLE)
        detail = ""
        if found:
            text, ink, paper, ratio = found
            detail = (
                f"{clean(text, 40)!r} is {ink} on {paper}, {ratio:.1f} to 1 in {scheme} mode, {READABLE} at least;"
                " change the layout's colours"
            )
        yield Gate(f"contrast_{scheme}", not found, detail)
