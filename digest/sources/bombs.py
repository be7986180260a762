"""Documents that are small and cost without end: refused with one sentence before a parser sees them.

Owns what no feed and no export holds: entities that grow or read files, elements and attributes
by the hundred thousand.
"""

from __future__ import annotations

import re
from collections import Counter

from digest.errors import SourceError
from digest.text import decode

MAX_ITEMS = 20_000  # of one feed: a whole site comes as an export
MAX_LABELS = 200  # of one article
PROLOG = 1_000_000  # bytes in which a document type is looked for
_MAX_ENTITY = 10_000  # characters: entities of real feeds are letters
_MAX_TAGS = 150_000

# Before the first element: blanks, instructions, comments.
_DOCTYPE = re.compile(r"(?:[^<]|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE\b([^\[>]*+)(\[)?", re.DOTALL | re.IGNORECASE)
_SUBSET = re.compile(r"(?:<!--.*?-->|<\?.*?\?>|\"[^\"]*+\"|'[^']*+'|[^\]\"'])*+\]", re.DOTALL)
_ENTITY = re.compile(r"<!ENTITY\s+(%\s+)?([^\s\"'>%]+)\s+(?:(SYSTEM|PUBLIC)\b|\"([^\"]*+)\"|'([^']*+)')", re.IGNORECASE)
_REFERENCE = re.compile(r"[&%]([^\s&%;#]{1,200});")
_USED = re.compile(rb"&([^\s&;#<]{1,200});")
_CDATA = re.compile(rb"<!\[CDATA\[.*?(?:\]\]>|\Z)", re.DOTALL)
_ITEM = re.compile(rb"<(?:\w{1,20}:)?(?:item|entry)\b", re.IGNORECASE)
# Elements that hold nothing but each other: the parser's time grows with their square; so it does with attributes.
_PILE = re.compile(rb"(?:<[A-Za-z][^<>/]{0,80}>\s{0,9}){1000}")
_ATTRIBUTES = re.compile(rb"<[A-Za-z](?:[^<>\"']*+[\"'][^<>\"']*+){2000}|<[A-Za-z][^\s<>]*+(?:\s++[^\s<>]++){2000}")


def refuse_entities(data: bytes, name: str) -> None:
    """A document type that declares entities which grow, or which are files, is a SourceError.

    *data*: the document, or its beginning.
    """
    text = decode(data[:PROLOG]).replace("\0", "")
    found = _DOCTYPE.match(text)
    if found is None or not found[2]:
        return
    ended, values = _SUBSET.match(text, found.end()), dict[str, str]()
    for entity in _ENTITY.finditer(text, found.end(), ended.end() if ended else len(text)):
        parameter, key, outside, double, single = entity.groups()
        if outside and not parameter:
            raise _refused(name, f"declares {key[:40]!r} as a text that lies elsewhere")
        if not outside:
            values.setdefault(key, double if double is not None else single)
    sizes: dict[str, int] = {}
    for key, value in values.items():
        if "<!" in value or _grown(key, values, sizes) > _MAX_ENTITY:
            raise _refused(name, f"declares {key[:40]!r} as a text that grows without end")
    used = Counter(_USED.findall(data)) if values else Counter[bytes]()
    if sum(times * sizes.get(key.decode(errors="replace"), 0) for key, times in used.items()) > len(data) + PROLOG:
        raise _refused(name, "repeats texts that it declares without end")


def _grown(key: str, values: dict[str, str], known: dict[str, int], depth: int = 0) -> int:
    """How long a declared text becomes; one that holds itself is endless."""
    if key not in values:
        return 0
    if depth > 50:
        return _MAX_ENTITY + 1
    if key not in known:
        known[key] = _MAX_ENTITY + 1  # until it is known, in case it holds itself
        value = values[key]
        inner = (_grown(found, values, known, depth + 1) for found in _REFERENCE.findall(value))
        known[key] = min(len(value) + sum(inner), _MAX_ENTITY + 1)
    return known[key]


def refuse_piles(data: bytes, name: str) -> None:
    """A feed of more items, elements or attributes than any has is a SourceError."""
    if _PILE.search(data):
        raise SourceError("unreadable", f"{name} is nested without end; look at it in a browser")
    bare = _CDATA.sub(b"", data) if b"<![CDATA[" in data else data
    if bare.count(b"<") > _MAX_TAGS or _ATTRIBUTES.search(bare):
        raise SourceError("too_large", f"{name} has more elements than a feed has; look at it in a browser")
    refuse_more(sum(1 for _ in _ITEM.finditer(bare)), name)


def refuse_more(items: int, name: str) -> None:
    """A document of more items than a feed has is a SourceError."""
    if items > MAX_ITEMS:
        raise SourceError("too_large", f"{name} holds more than {MAX_ITEMS:,} items; use an export of the site instead")


def _refused(name: str, what: str) -> SourceError:
    return SourceError("unreadable", f"{name} {what}: no feed does; look at it in an editor")
