"""The HTML of a body: bounded, mended, reduced to the allow-list. The one owner of nh3."""

from __future__ import annotations

import re
import threading

import nh3

from digest.text import debris
from digest.text.addresses import resolve
from digest.text.characters import strip_controls
from digest.text.images import with_best_sizes
from digest.text.tags import ADDRESSES, ALLOWED, ATTRIBUTES, DROPPED, FLAT

MAX_BODY = 512 * 1024
MAX_DEPTH = 200


def sanitize(html: str, base: str | None = None) -> str:
    """Return *html* reduced to the allow-list, its links and images absolute against *base*, boilerplate removed."""
    return safe_html(html, base)[0]


def safe_html(html: str, base: str | None) -> tuple[str, bool]:
    """Return what `sanitize` does, and whether debris was mended on the way."""
    html = _flattened(_capped(strip_controls(html[: MAX_BODY + 1])))
    html, mended = debris.mend(html)
    html = debris.without_shortcodes(html)
    html = with_best_sizes(debris.load_lazy_images(html))
    html = debris.without_blocks(html)
    _here.base = base
    safe = _cleaner.clean(html)
    if "&#" in html:  # an entity can spell a control character; none that has a name does
        safe = strip_controls(safe)
    return debris.tidied(safe).strip(), mended


class _Here(threading.local):
    """Against what the links of the body that this thread cleans are resolved."""

    base: str | None = None


_here = _Here()


def _kept(tag: str, attribute: str, value: str) -> str | None:
    if (tag, attribute) not in ADDRESSES:
        return value
    found = resolve(value, _here.base)
    return None if found and tag == "img" and found.startswith("mailto:") else found


# Made once: reading these sets takes longer than cleaning a short body.
_cleaner = nh3.Cleaner(
    tags=set(ALLOWED), clean_content_tags=set(DROPPED), attributes=ATTRIBUTES, link_rel=None,
    url_schemes={"http", "https", "mailto"}, attribute_filter=_kept,
)  # fmt: skip


def _capped(html: str) -> str:
    """Cut at 512 Ki characters, not inside a tag."""
    if len(html) <= MAX_BODY:
        return html
    html = html[:MAX_BODY]
    opened = html.rfind("<")
    return html[:opened] if opened > html.rfind(">") else html


_CHEAP_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]*)[^<>]*>")


def _flattened(html: str) -> str:
    """Drop tags that open deeper than 200: parsers need quadratic time for them, or their stack.

    A cheap count: it may take a tag inside a quoted attribute for one, which only makes it more careful.
    """
    if html.count("<") <= MAX_DEPTH:
        return html
    depth, over = 0, 0

    def keep(match: re.Match[str]) -> str:
        nonlocal depth, over
        if match[2].lower() in FLAT:
            return match[0]
        if match[1]:
            if over:
                over -= 1
                return ""
            depth = max(0, depth - 1)
        elif depth >= MAX_DEPTH:
            over += 1
            return ""
        else:
            depth += 1
        return match[0]

    return _CHEAP_TAG.sub(keep, html)


_OPENS_BLOCK = re.compile(
    r"</?(?:address|article|aside|blockquote|d[dlt]|div|figure|figcaption|form|h[1-6r]|iframe|li|ol|pre|section|t[dhr]"
    r"|table|tbody|ul)\b|<!--",
    re.IGNORECASE,
)


def paragraphs(text: str) -> str:
    """Return text whose paragraphs are blank lines as HTML, as WordPress does when it shows its classic editor's.

    What already has paragraphs or block comments comes back as it is.
    """
    if not text or re.search(r"<p[\s>]|<!-- wp:", text):
        return text
    blocks = (block.strip() for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")))
    return "\n".join(b if _OPENS_BLOCK.match(b) else f"<p>{b.replace(chr(10), '<br>')}</p>" for b in blocks if b)
