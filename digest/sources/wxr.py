"""WordPress eXtended RSS: the export of a whole site (Tools → Export), versions 1.0 to 1.2, of any size, in any parts.

    parts → heads (authors, terms) and which attachments are featured → where those are → items, one at a time

    a part: file → unpacked → repaired bytes → lxml's iterparse

What the heads of all parts say is known before the first item is made, so an author, a parent or a picture may stand in
another part than the article. An item that was yielded is freed with all before it: memory does not grow with the file.
E-mail addresses and comments are left where they are.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from lxml import etree

from digest.errors import SourceError
from digest.fetch import Fetcher, shown
from digest.sources import reading
from digest.sources.bombs import PROLOG, refuse_entities
from digest.sources.mending import AMPERSAND, CHUNK, Mended, read_on
from digest.text import clean_title, nearest, paragraphs, slugify
from digest.types import Enclosure, Fetched, Image, RawArticle, Skipped, TopicKind, TopicRef

# Where the plugins for search engines keep an article's meta description.
_DESCRIPTIONS = ("_yoast_wpseo_metadesc", "rank_math_description", "_aioseo_description", "_genesis_description")
_KINDS = {"category": TopicKind.CATEGORY, "post_tag": TopicKind.TAG, "tag": TopicKind.TAG}
_SUFFIXES = (".xml", ".xml.gz", ".wxr", ".wxr.gz")


class Wxr:
    kind = "wxr"

    def __init__(self, location: str, options: Mapping[str, Any], fetcher: Fetcher) -> None:
        self.location, self.fetcher, self.zone = location, fetcher, reading.zone_of(options)

    def fetch(self, state: Mapping[str, Any]) -> Fetched:
        """Read the heads of the export's parts; the items follow lazily.

        A folder or a pattern (``export/*.xml``) is one site that its host has split.
        """
        files = None if reading.is_remote(self.location) else part_files(self.location)
        if files is not None:
            return self._split(files, state)
        opened = reading.open_location(self.location, self.fetcher, state)
        if opened.stream is None:
            return Fetched(iter(()), state=opened.state, not_modified=True)
        name = shown(opened.url or self.location)
        part = _Part(name, _opener(opened.stream, self.location))
        site = _Site(self.zone)
        part.learn(site)
        site.find_pictures([part])
        fetched = site.fetched(opened.state)
        fetched.items = part.items(site, fetched.warnings)
        return fetched

    def _split(self, files: Sequence[Path], state: Mapping[str, Any]) -> Fetched:
        """One site in several files. One that cannot be read costs itself, and is tried again at the next poll."""
        if not files:
            place = reading.local_path(self.location)
            raise SourceError("unreadable", f"there is no export in {place}; give the folder that holds the .xml files")
        seen = [f"{p} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files if p.exists()]
        known = reading.remembered(state, self.location)
        if known.get("files") == seen:
            return Fetched(iter(()), state=known, not_modified=True)
        site, good, bad = _Site(self.zone), list[_Part](), list[tuple[str, SourceError]]()
        for path in files:
            part = _Part(path.name, partial(reading.open_file, path))
            try:
                part.learn(site)
                good.append(part)
            except SourceError as e:
                bad.append((part.name, e))
        if not good:
            raise bad[0][1]
        site.find_pictures(good)
        fetched = site.fetched({**reading.fresh_state(self.location), **({} if bad else {"files": seen})})
        fetched.warnings += [f"a part was left out: {error}" for _, error in bad]
        fetched.items = _all_items(good, [name for name, _ in bad], site, fetched.warnings)
        return fetched


def part_files(location: str) -> list[Path] | None:
    """The files of an export in parts, in the order people count; None for a location that is one file."""
    path = reading.local_path(location)
    found = reading.matching(path)
    if found is None and path.is_dir():
        found = [p for p in path.rglob("*") if p.name.lower().endswith(_SUFFIXES) and p.name[0] != "."]
    return None if found is None else sorted((p for p in found if p.is_file()), key=_counted)


def _counted(path: Path) -> list[tuple[int, str]]:
    """part-2 comes before part-10."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d{1,18})", str(path)) if word]


def _opener(stream: IO[bytes], location: str) -> Callable[[], IO[bytes]]:
    """Each pass opens a document anew: a file from its place, one that came over http from memory."""
    with stream:
        if not reading.is_remote(location):
            return partial(reading.open_file, reading.local_path(location))
        data = stream.read()
    return lambda: io.BytesIO(data)


def _all_items(
    parts: Sequence[_Part], bad: Sequence[str], site: _Site, warnings: list[str]
) -> Iterator[RawArticle | Skipped]:
    """The items of all parts; each is opened when the one before has been read."""
    yield from (Skipped("unreadable", name[-200:], "a part of the export") for name in bad)
    for part in parts:
        try:
            yield from part.items(site, warnings)
        except SourceError as e:  # it went meanwhile
            warnings.append(f"a part was left out: {e}")
            yield Skipped("unreadable", part.name[-200:], "a part of the export")


@dataclass(slots=True)
class _Site:
    """What the parts of an export say together."""

    zone: Any
    title: str = ""
    language: str = ""
    authors: dict[str, str] = field(default_factory=dict)  # login → name for print
    topics: dict[tuple[TopicKind, str], TopicRef] = field(default_factory=dict)
    featured: set[str] = field(default_factory=set)  # ids of attachments
    pictures: dict[str, Image] = field(default_factory=dict)
    offset: timedelta | None = None  # of the site's clock, where an item gives both times

    def fetched(self, state: dict[str, Any]) -> Fetched:
        topics = tuple(self.topics.values())
        return Fetched(iter(()), topics, state, title=self.title or None, language=self.language or None)

    def find_pictures(self, parts: Sequence[_Part]) -> None:
        """Find the attachments that are featured, in a pass of their own: they may stand after the article."""
        for part in parts:
            if self.featured and part.has_attachments:
                part.find_pictures(self)

    def learn(self, channel: Any) -> bool:
        """Take what stands before the items, and tell whether it is WordPress that says it."""
        known = [self._take(child, _local(child)) for child in channel if isinstance(child.tag, str)]
        return any(known)

    def _take(self, child: Any, name: str) -> bool:
        inner = {_local(c): _text(c) for c in child if isinstance(c.tag, str)}
        if name == "author" and "author_login" in inner:
            self.authors.setdefault(inner["author_login"], inner.get("author_display_name", ""))
        elif name == "category" and "category_nicename" in inner:
            parent = slugify(inner.get("category_parent", "")) or None
            self._topic(TopicKind.CATEGORY, inner.get("cat_name"), inner["category_nicename"], parent)
        elif name == "tag" and "tag_slug" in inner:
            self._topic(TopicKind.TAG, inner.get("tag_name"), inner["tag_slug"], None)
        elif name in ("title", "language") and not _namespace(child):
            setattr(self, name, getattr(self, name) or _text(child).strip())
            return False
        return name in ("wxr_version", "base_site_url", "base_blog_url") or (bool(inner) and name in (
            "author", "category", "tag", "term",
        ))  # fmt: skip

    def _topic(self, kind: TopicKind, name: str | None, slug: str, parent: str | None) -> None:
        """A part that knows of a parent knows more than one that does not."""
        if (ref := reading.topic(kind, name or slug, slug, parent)) is None:
            return
        known = self.topics.get((kind, ref.slug))
        if known is None or (known.parent is None and ref.parent is not None):
            self.topics[kind, ref.slug] = ref


class _Part:
    """One file of an export. ``learn`` reads its head, ``items`` all of it."""

    def __init__(self, name: str, open_it: Callable[[], IO[bytes]]) -> None:
        self.name, self.open_it = name, open_it
        self.has_attachments = False

    def learn(self, site: _Site) -> None:
        """Take what stands before the first item; what is no export is a SourceError."""
        with self.open_it() as stream:
            self._scan(stream, site.featured)
            reader = _Reader(stream, self.name)
            channel = reader.channel()
            if channel is None:
                raise SourceError("not_wxr", f"{self.name} is no WordPress export{' but empty' * reader.source.empty}")
            first = _fields(reader.item)[0] if reader.item is not None else {}
            if not site.learn(channel) and "post_id" not in first and "post_type" not in first:
                raise SourceError("not_wxr", f"{self.name} is a feed, not a WordPress export; its kind is feed")

    def _scan(self, stream: IO[bytes], featured: set[str]) -> None:
        """Refuse entities that grow; note, by the bytes, which attachments articles feature: to parse takes longer."""
        refuse_entities(b"".join(islice(iter(partial(read_on, stream), b""), PROLOG // CHUNK)), self.name)
        stream.seek(0)
        tail = b""
        while chunk := read_on(stream):
            text = tail + chunk
            self.has_attachments = self.has_attachments or b"attachment_url>" in text
            if b"_thumbnail_id" in text:
                featured.update(found.decode() for found in _FEATURED.findall(text))
            tail = text[-400:]
        stream.seek(0)

    def find_pictures(self, site: _Site) -> None:
        """Note the attachments that are featured."""
        with self.open_it() as stream:
            reader = _Reader(stream, self.name)
            while reader.item is not None:
                fields, _, meta = _fields(reader.item)
                if fields.get("post_id") in site.featured and fields.get("attachment_url"):
                    site.pictures[fields["post_id"]] = _picture(fields["attachment_url"], meta)
                try:
                    reader.go_on()
                except SourceError:
                    return  # the pass that reads the articles will say so

    def items(self, site: _Site, warnings: list[str]) -> Iterator[RawArticle | Skipped]:
        """Yield the posts; say at the end what was wrong with the file."""
        count, failure = 0, None
        with self.open_it() as stream:
            reader = _Reader(stream, self.name)
            while reader.item is not None:
                count += 1
                if count > reader.source.closings:
                    yield Skipped("unreadable", _said(reader.item), "the file ends inside it")
                elif (made := _made(reader.item, site)) is not None:
                    yield made
                try:
                    reader.go_on()
                except SourceError as e:
                    failure, reader.item = str(e), None
            if failure or not reader.source.whole:
                warnings.append(failure or f"{self.name} ends before its end; what it held until there was read")
            elif len(reader.parser.error_log):
                fault = _fault(reader.parser)
                warnings.append(f"{self.name} is not well-formed ({fault}); what could be read was")


class _Reader:
    """The items of a stream, one at a time; ``item`` is None at the end."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self.name = name
        self.source = Mended(stream)
        self.parser = _parser(self.source)
        self.item = self._next()

    def channel(self) -> Any:
        """What the items stand in, read as far as the first of them; None if this is no RSS."""
        return self.item.getparent() if self.item is not None else _channel(self.parser.root)

    def go_on(self) -> None:
        """Let go of the item and of all that stands before it."""
        _free(self.item)
        self.item = self._next()

    def _next(self) -> Any:
        try:
            return next(self.parser)[1]
        except StopIteration:
            return None
        except etree.XMLSyntaxError as e:
            if self.parser.root is None:  # nothing at all could be read
                return None
            raise SourceError("unreadable", f"{self.name} cannot be read further: {reading.first_line(e)}") from e


# ----------------------------------------------------------------------------- one post


def _made(item: Any, site: _Site) -> RawArticle | Skipped | None:
    """An article, or why it is none; None for what never was one (attachments, pages, menus)."""
    try:
        fields, labels, meta = _fields(item)
        if fields.get("post_type", "post") not in ("post", ""):
            return None
        status = fields.get("status", "") or "publish"
        if status not in ("publish", "future"):
            number = fields.get("post_id", "")
            what = clean_title(fields.get("title", "")) or number
            return Skipped(f"status_{slugify(status)}", what, native_id=number if number.strip("0") else None)
        return _article(site, fields, labels, meta)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        return Skipped("unreadable", _said(item), reading.first_line(e))


def _article(
    site: _Site, fields: dict[str, str], labels: list[tuple[str, str, str]], meta: dict[str, str]
) -> RawArticle:
    coauthors = [name for domain, _, name in labels if domain == "author"]
    number = fields.get("post_id", "")
    return RawArticle(
        native_id=number if number.strip("0") else None,
        guid=reading.short_id(fields.get("guid")) or None,
        url=fields.get("link") or None,
        title=fields.get("title", ""),
        body_html=paragraphs(fields.get("content", "")),
        excerpt_html=fields.get("excerpt", ""),
        description=next((meta[key] for key in _DESCRIPTIONS if meta.get(key)), ""),
        published_at=_published(site, fields),
        updated_at=reading.read_date(fields.get("post_modified_gmt")),
        authors=reading.people([_author(site, fields.get("creator", "")), *coauthors]),
        topics=_refs(site, labels),
        image=site.pictures.get(meta.get("_thumbnail_id", "")),
        enclosures=_enclosures(meta),
        sticky=fields.get("is_sticky") == "1",
        withheld=bool(fields.get("post_password")),
    )


def _enclosures(meta: Mapping[str, str]) -> tuple[Enclosure, ...]:
    """What WordPress found linked in an article: address, bytes and media type, a line each."""
    url, length, kind, *_ = [*(line.strip() for line in meta.get("enclosure", "").splitlines()), "", "", ""]
    return (Enclosure(url, kind, reading.length(length)),) if url and kind else ()


def _author(site: _Site, login: str) -> str:
    """The name for print of a login. A login can be an e-mail address: then what stands before the @."""
    return site.authors.get(login) or login.partition("@")[0]


def _published(site: _Site, fields: Mapping[str, str]) -> datetime | None:
    """UTC where it is given, else the date of the feed, else the site's own clock."""
    exact, local = (reading.read_date(fields.get(name)) for name in ("post_date_gmt", "post_date"))
    if exact and local:
        site.offset = local - exact
    if exact or (exact := reading.read_date(fields.get("pubDate"))):
        return exact
    if local and site.offset is not None and site.zone is UTC:
        return local - site.offset
    return reading.read_date(fields.get("post_date"), site.zone)


def _refs(site: _Site, labels: list[tuple[str, str, str]]) -> tuple[TopicRef, ...]:
    """Topics of an item, each once. Before 3.0 WordPress wrote each label twice, once without its slug."""
    slugged = {name.lower() for domain, slug, name in labels if slug}
    found: dict[tuple[TopicKind, str], TopicRef] = {}
    for domain, slug, name in labels:
        kind = _KINDS.get(domain or "category")
        if kind is None or not (slug or name.lower() not in slugged):
            continue
        if ref := reading.topic(kind, name, slug):
            found.setdefault((kind, ref.slug), site.topics.get((kind, ref.slug), ref))
    return tuple(found.values())


# ----------------------------------------------------------------------------- elements


def _parser(source: Mended) -> Any:
    """Yields each item when its end tag was read. Nothing is resolved or loaded from elsewhere."""
    return iter(
        etree.iterparse(
            source, events=("end",), tag="{*}item", recover=True, resolve_entities=False, no_network=True,
            load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True, collect_ids=False,
        )
    )  # fmt: skip


def _local(element: Any) -> str:
    """The name without its namespace: versions differ in it, and some files forget to declare it."""
    return _split(str(element.tag))[1]


def _namespace(element: Any) -> str:
    return _split(str(element.tag))[0]


@lru_cache(maxsize=256)
def _split(tag: str) -> tuple[str, str]:
    """(namespace or its undeclared prefix, local name): "{http://…}post_id", "wp:post_id", "post_id"."""
    prefix, _, rest = tag.rpartition("}")
    undeclared, _, local = rest.rpartition(":")
    return prefix.lstrip("{") or undeclared, local


def _text(element: Any) -> str:
    """What an element holds; markup that was not escaped comes as it is written."""
    text = element.text or ""
    if len(element):
        text += "".join(etree.tostring(child, encoding="unicode") for child in element)
    return text.replace(AMPERSAND, "&")


_WORDPRESS = frozenset(
    ("post_id", "post_date", "post_date_gmt", "post_modified_gmt", "status", "post_type", "post_password", "is_sticky",
     "attachment_url", "creator")
)  # fmt: skip


def _fields(item: Any) -> tuple[dict[str, str], list[tuple[str, str, str]], dict[str, str]]:
    """(texts by name, (domain, slug, name) of each label, metadata by key) of an item."""
    fields: dict[str, str] = {}
    labels: list[tuple[str, str, str]] = []
    meta: dict[str, str] = {}
    for child in item:
        if not isinstance(child.tag, str):
            continue
        name = _local(child)
        if name == "encoded":
            fields.setdefault("excerpt" if "excerpt" in _namespace(child) else "content", _text(child))
        elif name in _WORDPRESS:
            fields.setdefault(name, _text(child).strip())
        elif name == "postmeta":
            inner = {_local(c): _text(c) for c in child}
            meta.setdefault(inner.get("meta_key", ""), inner.get("meta_value", ""))
        elif not _namespace(child):
            if name == "category":
                labels.append((child.get("domain", ""), child.get("nicename", ""), _text(child).strip()))
            elif name in ("title", "link", "guid", "pubDate"):
                fields.setdefault(name, _text(child).strip())
    return fields, labels, meta


def _free(item: Any) -> None:
    """Let go of an item and of all that stands before it."""
    item.clear()
    parent = item.getparent()
    while parent is not None and item.getprevious() is not None:
        del parent[0]


def _channel(root: Any) -> Any:
    """The channel of an export without items."""
    if root is None or _local(root) != "rss":
        return None
    return next((child for child in root if _local(child) == "channel"), None)


def _said(item: Any) -> str:
    """What an item that cannot be read calls itself."""
    return clean_title(next((c.text or "" for c in item if _local(c) in ("title", "post_id") and c.text), ""), limit=80)


def _fault(parser: Any) -> str:
    first = parser.error_log[0]
    return f"line {first.line}: {reading.first_line(first.message)}"


# ----------------------------------------------------------------------------- featured images

_FEATURED = re.compile(rb"_thumbnail_id(?:\]\]>)?\s*</[\w:]{1,40}>\s*<[\w:]{1,40}>\s*(?:<!\[CDATA\[)?\s*(\d{1,20})")
# Of PHP's serialised arrays: what WordPress knows of an image and of the smaller ones that it made of it.
_WHOLE = re.compile(r'^a:\d+:\{s:5:"width";i:(\d{1,6});s:6:"height";i:(\d{1,6});')
_SIZE = re.compile(r's:4:"file";s:\d+:"([^"/]{1,300})";s:5:"width";i:(\d{1,6});s:6:"height";i:(\d{1,6});')
_CREDIT = re.compile(r's:6:"credit";s:[1-9]\d*:"([^"]{1,200})"')


def _picture(address: str, meta: Mapping[str, str]) -> Image:
    """An attachment in the size that fits best."""
    details = meta.get("_wp_attachment_metadata", "")[:100_000]
    alt, credit = meta.get("_wp_attachment_image_alt", ""), _CREDIT.search(details)
    whole = _WHOLE.match(details)
    sizes = [(address, *(whole.groups() if whole else ("", "")))]
    folder = address.rpartition("/")[0]
    sizes += [(f"{folder}/{file}", width, height) for file, width, height in _SIZE.findall(details)]
    made = [Image(url, int(w) if w else None, int(h) if h else None) for url, w, h in sizes]
    best = nearest(made) or Image(address)
    return replace(best, alt=alt, credit=credit[1] if credit else "")
