"""Plain text of a body, its length in words, and an excerpt."""

from __future__ import annotations

import html as entities
import itertools
import re
from collections.abc import Iterator

from digest.text import debris
from digest.text.characters import strip_controls
from digest.text.titles import SCRIPT, shorten

MAX_EXCERPT = 240

_BREAK = re.compile(
    r"</?(?:address|article|aside|blockquote|caption|d[dlt]|details|div|figcaption|figure|footer|h[1-6r]|header|li|main"
    r"|ol|p|pre|section|summary|table|tbody|tfoot|thead|tr|ul)\b[^<>]*>|<br\b[^<>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<!--.*?(?:-->|\Z)|</?[a-zA-Z][^<>]*>", re.DOTALL)
_CELL = re.compile(r"</t[dh]>", re.IGNORECASE)
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def plain(html: str) -> str:
    """Return the text of *html*, a line for each block, spaces collapsed."""
    return "\n".join(map(" ".join, _lines(html)))


def counted(html: str) -> tuple[str, int]:
    """Return what `plain` does, and how many words `count_words` finds in it."""
    lines = _lines(html)
    text = "\n".join(map(" ".join, lines))
    return text, count_words(text) if _may_be_cjk(text) else sum(map(len, lines))


def _lines(html: str) -> list[list[str]]:
    """The words of each line that has any."""
    if "<" in html:
        html = SCRIPT.sub("", html).replace("\r", " ").replace("\n", " ")
        html = _BREAK.sub("\n", html)
        html = _TAG.sub("", _CELL.sub(" ", html) if "</t" in html else html)
    lines = [line.split() for line in strip_controls(entities.unescape(html)).split("\n")]
    return [line for line in lines if line]


_FROM_CJK = bytes(range(0xE3, 0xF1))  # what the first byte of such a character is in UTF-8, and of some others


def _may_be_cjk(text: str) -> bool:
    if text.isascii():
        return False
    data = text.encode("utf-8", "replace")
    return len(data.translate(None, _FROM_CJK)) < len(data)


def count_words(text: str) -> int:
    """Words by spaces; in scripts without them two characters make one."""
    if not _may_be_cjk(text) or not (signs := len(_CJK.findall(text))):
        return len(text.split())
    return len(_CJK.sub(" ", text).split()) + (signs + 1) // 2


_P = re.compile(r"<p(?: [^>]*)?>(.*?)</p>", re.DOTALL)
_LINK = re.compile(r"<a\b[^<>]*>(.*?)</a>", re.DOTALL)
_NO_LEAD = re.compile(
    r"(?:by|von|par|por) [^.]{0,60}$|(?:advertisement|table of contents|share (?:this|on)|read (?:more|also)|related:"
    r"|see also|subscribe|sign up|click here|(?:photo|image)(?: by|:)|editor[’']s note|originally published|follow us"
    r"|this (?:article|post|story) (?:was|first|originally)|©|copyright)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?…][\"”’')]*(?=\s)|[。！？]")
_ABBREVIATION = re.compile(
    r"\b(?:[A-Z]|Mrs?|Ms|Drs?|St|Sen|Rep|Gov|Gen|Prof|No|vs|Inc|Ltd|Co|Corp|Jr|Sr|e\.g|i\.e|bzw|z\.B)\.$"
)


def excerpt(written: str, body: str, text: str, description: str = "") -> str:
    """Return the hand-written summary, else the meta description, else the first paragraph that reads like one.

    Failing all, the first words. A summary that ends with "[…]" was cut by a machine: a description goes before it.
    """
    summary, said = _summary(written), _summary(description) if "%%" not in description else ""
    if said and (not summary or debris.is_cut(written)):
        return cut_sentence(said)
    if summary:
        return cut_sentence(summary)
    fallback = ""
    for lead in _leads(body):
        if _reads_well(lead):
            return cut_sentence(lead)
        fallback = fallback or (lead if len(lead) >= 40 else "")
    return cut_sentence(fallback or text[: 4 * MAX_EXCERPT])


def _summary(written: str) -> str:
    if not written:
        return ""
    summary = debris.without_shortcodes(strip_controls(written[:20_000]))
    summary = debris.without_credit(" ".join(plain(debris.mend(summary)[0]).split()))
    return debris.without_cut_mark(summary)


def _leads(body: str) -> Iterator[str]:
    """Yield those of the first paragraphs that are not mostly links."""
    for found in itertools.islice(_P.finditer(body), 20):
        lead = plain(found[1])
        linked = sum(len(plain(a)) for a in _LINK.findall(found[1]))
        if linked * 2 <= len(lead):
            yield lead


def _reads_well(paragraph: str) -> bool:
    if _NO_LEAD.match(paragraph):
        return False
    if _CJK.search(paragraph):
        return len(paragraph) >= 30
    return len(paragraph) >= 80 and paragraph.count(" ") >= 12 and paragraph.rstrip("\"”’')")[-1:] in tuple(".!?…:;")


def cut_sentence(text: str, limit: int = MAX_EXCERPT) -> str:
    """Return *text* as one line of at most *limit* characters, up to a sentence end if that leaves a third of it."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    ends = [m.end() for m in _SENTENCE_END.finditer(text[: limit + 1]) if m.end() <= limit]
    for end in reversed(ends):
        if end >= limit // 3 and _ABBREVIATION.search(text[:end]) is None:
            return text[:end]
    return shorten(text, limit)
