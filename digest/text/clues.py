"""Clues to the story that an article was rewritten from: a foreign headline beneath an image, a link to the source."""

from __future__ import annotations

import html as entities
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

from digest.text.addresses import canonical_url
from digest.text.prose import plain
from digest.text.titles import clean_title

_MIN_WORDS = 4
_SIGNED = re.compile(r"^(.*\S)\s+[–—|-]\s+(\S.{1,47})$")
_LINK = re.compile(r'<a\b[^<>]*?href="([^"<>]+)"[^<>]*>(.*?)</a>', re.DOTALL)
_ALT = re.compile(r'<img\b[^<>]*?\balt="([^"<>]*)"')
_BEFORE = re.compile(
    r"(?:\bsource|\bquelle|\bfuente|\bvia|\boriginal(?:ly)?(?: (?:article|story|post|published|appeared|on|at|by|in))*"
    r"|\bread (?:the )?(?:full|original)(?: (?:article|story|on|at))*)\s*:?\s*$",
    re.IGNORECASE,
)
_WORDS = ("source", "quelle", "fuente", "via", "original", "read")  # one of them stands in what the two below find
_LINKED = re.compile(
    r"^\W*(?:source|quelle|fuente|original(?: (?:article|story|source))?"
    r"|read (?:the )?(?:full|original) (?:article|story)\b.*)\W*$",
    re.IGNORECASE,
)


def signed(title: str) -> tuple[str, str] | None:
    """Return (headline, publisher) of a headline signed " – Publisher", or None.

    A publisher's name is short, begins with a capital or is a domain, and holds no number: "– part 2" is none.
    """
    found = _SIGNED.match(title)
    if found is None:
        return None
    name = found[2]
    named = name[0].isupper() or "." in name.strip(".")
    if not named or len(name.split()) > 4 or any(c.isdigit() for c in name):
        return None
    return found[1], name


def without_publisher(title: str) -> str:
    """Return a headline without the " – Publisher" that aggregators put behind it, if five words are left."""
    found = signed(title)
    return found[0] if found is not None and len(found[0].split()) > _MIN_WORDS else title


def alternative_texts(body: str) -> Iterator[str]:
    """Yield the alternative texts of the images of a clean *body*."""
    if "<img" in body:
        yield from (entities.unescape(found) for found in _ALT.findall(body))


def clue_title(alts: Iterable[str]) -> str | None:
    """Return the first foreign headline among the alternative texts of an article's images."""
    for alt in alts:
        found = signed(clean_title(alt))
        if found is not None and len(found[0].split()) >= _MIN_WORDS:
            return found[0]
    return None


def _names_a_story(address: str) -> bool:
    """Whether an address is that of one article, by its words, and not of a site, a section or a press office."""
    path = re.sub(r"\.\w{2,5}$", "", unquote(urlsplit(address).path, errors="replace").rstrip("/"))
    return len(re.findall(r"[^\W\d_]+", path.rpartition("/")[2])) >= _MIN_WORDS


def clue_url(body: str, own_url: str) -> str | None:
    """Return the address that a clean *body* names as its source: the last such link to another host's page."""
    if "<a " not in body:
        return None
    own = urlsplit(own_url).hostname
    for link in reversed(list(_LINK.finditer(body))):
        around = body[max(0, link.start() - 120) : link.end()].lower()
        if not any(word in around for word in _WORDS):
            continue
        before = plain(body[max(0, link.start() - 120) : link.start()])
        if not _BEFORE.search(before) and not _LINKED.match(plain(link[2])):
            continue
        address = canonical_url(link[1].replace("&amp;", "&"))
        if address is not None and urlsplit(address).hostname != own and _names_a_story(address):
            return address
    return None
