"""WordPress eXtended RSS: the export of a whole site (Tools → Export), versions 1.0 to 1.2, of any size.

    file → unpacked → repaired bytes → lxml's iterparse → channel head (authors, terms) → items, one at a time

The head is read before `fetch` returns, the items when they are asked for. An item that was yielded is freed with all
before it, so memory does not grow with the file. E-mail addresses and comments are left where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from lxml import etree

from digest.errors import SourceError
from digest.fetch import Fetcher, shown
from digest.sources import reading
from digest.sources.mending import AMPERSAND, Mended, read_on
from digest.text import clean_title, paragraphs, slugify
from digest.types import Fetched, Image, RawArticle, Skipped, TopicKind, TopicRef

# Where the plugins for search engines keep an article's meta description.
_DESCRIPTIONS = ("_yoast_wpseo_metadesc", "rank_math_description", "_aioseo_description", "_genesis_description")
_KINDS = {"category": TopicKind.CATEGORY, "post_tag": TopicKind.TAG, "tag": TopicKind.TAG}


class Wxr:
    kind = "wxr"

    def __init__(self, location: str, options: Mapping[str, Any], fetcher: Fetcher) -> None:
        self.location, self.fetcher, self.zone = location, fetcher, reading.zone_of(options)

    def fetch(self, state: Mapping[str, Any]) -> Fetched:
        """Read the head of the export; the items follow lazily. A folder of exports is one site, split by its host."""
        if not reading.is_remote(self.location) and (folder := reading.local_path(self.location)).is_dir():
            return self._folder(folder, state)
        return self._file(self.location, state)

    def _folder(self, folder: Path, state: Mapping[str, Any]) -> Fetched:
        files = sorted(p for p in folder.iterdir() if p.name.lower().endswith((".xml", ".xml.gz")) and p.is_file())
        if not files:
            raise SourceError(
                "unreadable", f"there is no export in {folder}; give the folder that holds the .xml files"
            )
        seen = [f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files]
        known = reading.remembered(state, self.location)
        if known.get("files") == seen:
            return Fetched(iter(()), state=known, not_modified=True)
        first = self._file(str(files[0]), {})
        whole = Fetched(
            iter(()), topics=first.topics, state={**reading.fresh_state(self.location), "files": seen},
            title=first.title, language=first.language,
        )  # fmt: skip
        whole.items = self._parts(first, files[1:], whole.warnings)
        return whole

    def _parts(self, first: Fetched, others: list[Path], warnings: list[str]) -> Iterator[RawArticle | Skipped]:
        """The items of all files; each is opened when the one before has been read."""
        yield from first.items
        warnings += first.warnings
        for path in others:
            part = self._file(str(path), {})
            yield from part.items
            warnings += part.warnings

    def _file(self, location: str, state: Mapping[str, Any]) -> Fetched:
        opened = reading.open_location(location, self.fetcher, state)
        if opened.stream is None:
            return Fetched(iter(()), state=opened.state, not_modified=True)
        export = _Export(opened.stream, shown(opened.url or location), self.zone)
        try:
            export.open()
        except BaseException:
            opened.stream.close()
            raise
        fetched = Fetched(
            iter(()), topics=tuple(export.topics.values()), state=opened.state, title=export.title or None,
            language=export.language or None,
        )  # fmt: skip
        fetched.items = export.items(fetched.warnings)
        return fetched


class _Export:
    """One pass over one export. ``open`` reads the head: what stands before the first item."""

    def __init__(self, stream: IO[bytes], name: str, zone: Any) -> None:
        self.stream, self.name, self.zone = stream, name, zone
        self.title = self.language = ""
        self.authors: dict[str, str] = {}  # login → name for print
        self.topics: dict[tuple[TopicKind, str], TopicRef] = {}
        self.pictures: dict[str, Image] = {}
        self.offset: timedelta | None = None  # of the site's clock, where an item gives both times

    def open(self) -> None:
        if _mentions(self.stream, b"_thumbnail_id"):
            self.pictures = _find_pictures(self.stream)
        self.source = Mended(self.stream)
        self.parser = _parser(self.source)
        self.pending = self._next()
        channel = self.pending.getparent() if self.pending is not None else _channel(self.parser.root)
        if channel is None:
            raise SourceError("not_wxr", f"{self.name} is no WordPress export{' but empty' * self.source.empty}")
        known = [self._head(child, _local(child)) for child in channel if isinstance(child.tag, str)]
        first = _fields(self.pending)[0] if self.pending is not None else {}
        if not any(known) and "post_id" not in first and "post_type" not in first:
            raise SourceError("not_wxr", f"{self.name} is a feed, not a WordPress export; its kind is feed")

    def items(self, warnings: list[str]) -> Iterator[RawArticle | Skipped]:
        """Yield the posts; say at the end what was wrong with the file."""
        count, failure = 0, None
        with self.stream:
            while self.pending is not None:
                count += 1
                if count > self.source.closings:
                    yield Skipped("unreadable", _said(self.pending), "the file ends inside it")
                elif (made := self._made(self.pending)) is not None:
                    yield made
                _free(self.pending)
                try:
                    self.pending = self._next()
                except SourceError as e:
                    failure, self.pending = str(e), None
            if failure or not self.source.whole:
                warnings.append(failure or f"{self.name} ends before its end; what it held until there was read")
            elif len(self.parser.error_log):
                warnings.append(f"{self.name} is not well-formed ({_fault(self.parser)}); what could be read was")

    def _next(self) -> Any:
        try:
            return next(self.parser)[1]
        except StopIteration:
            return None
        except etree.XMLSyntaxError as e:
            if self.parser.root is None:  # nothing at all could be read
                return None
            raise SourceError("unreadable", f"{self.name} cannot be read further: {reading.first_line(e)}") from e

    def _head(self, child: Any, name: str) -> bool:
        """Take what a child of the channel says, and tell whether only WordPress says it."""
        inner = {_local(c): _text(c) for c in child if isinstance(c.tag, str)}
        if name == "author" and "author_login" in inner:
            self.authors[inner["author_login"]] = inner.get("author_display_name", "")
        elif name == "category" and "category_nicename" in inner:
            parent = slugify(inner.get("category_parent", "")) or None
            self._topic(TopicKind.CATEGORY, inner.get("cat_name"), inner["category_nicename"], parent)
        elif name == "tag" and "tag_slug" in inner:
            self._topic(TopicKind.TAG, inner.get("tag_name"), inner["tag_slug"], None)
        elif name in ("title", "language") and not _namespace(child):
            setattr(self, name, _text(child).strip())
            return False
        return name in ("wxr_version", "base_site_url", "base_blog_url") or (bool(inner) and name in (
            "author", "category", "tag", "term",
        ))  # fmt: skip

    def _topic(self, kind: TopicKind, name: str | None, slug: str, parent: str | None) -> None:
        if ref := reading.topic(kind, name or slug, slug, parent):
            self.topics.setdefault((kind, ref.slug), ref)

    def _made(self, item: Any) -> RawArticle | Skipped | None:
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
            return self._article(fields, labels, meta)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            return Skipped("unreadable", _said(item), reading.first_line(e))

    def _article(self, fields: dict[str, str], labels: list[tuple[str, str, str]], meta: dict[str, str]) -> RawArticle:
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
            published_at=self._published(fields),
            updated_at=reading.read_date(fields.get("post_modified_gmt")),
            authors=reading.people([self._author(fields.get("creator", "")), *coauthors]),
            topics=self._refs(labels),
            image=self.pictures.get(meta.get("_thumbnail_id", "")),
            sticky=fields.get("is_sticky") == "1",
            withheld=bool(fields.get("post_password")),
        )

    def _author(self, login: str) -> str:
        """The name for print of a login. A login can be an e-mail address: then what stands before the @."""
        return self.authors.get(login) or login.partition("@")[0]

    def _published(self, fields: Mapping[str, str]) -> datetime | None:
        """UTC where it is given, else the date of the feed, else the site's own clock."""
        exact, local = (reading.read_date(fields.get(name)) for name in ("post_date_gmt", "post_date"))
        if exact and local:
            self.offset = local - exact
        if exact or (exact := reading.read_date(fields.get("pubDate"))):
            return exact
        if local and self.offset is not None and self.zone is UTC:
            return local - self.offset
        return reading.read_date(fields.get("post_date"), self.zone)

    def _refs(self, labels: list[tuple[str, str, str]]) -> tuple[TopicRef, ...]:
        """Topics of an item, each once. Before 3.0 WordPress wrote each label twice, once without its slug."""
        slugged = {name.lower() for domain, slug, name in labels if slug}
        found: dict[tuple[TopicKind, str], TopicRef] = {}
        for domain, slug, name in labels:
            kind = _KINDS.get(domain or "category")
            if kind is None or not (slug or name.lower() not in slugged):
                continue
            if ref := reading.topic(kind, name, slug):
                found.setdefault((kind, ref.slug), self.topics.get((kind, ref.slug), ref))
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


def _mentions(stream: IO[bytes], word: bytes) -> bool:
    """Tell whether *word* occurs, and go back to the beginning."""
    found, tail = False, b""
    while not found and (chunk := read_on(stream)):
        found, tail = word in tail + chunk, chunk[-len(word) :]
    stream.seek(0)
    return found


def _find_pictures(stream: IO[bytes]) -> dict[str, Image]:
    """Return the images that articles feature, by the id of their attachment, and go back to the beginning.

    A pass of its own: an attachment may stand after the article that names it.
    """
    wanted: set[str] = set()
    there: dict[str, Image] = {}
    try:
        for _, item in _parser(Mended(stream)):
            fields, _, meta = _fields(item)
            if fields.get("post_type") == "attachment" and fields.get("attachment_url"):
                alt = meta.get("_wp_attachment_image_alt", "")
                there[fields.get("post_id", "")] = Image(fields["attachment_url"], alt=alt)
            elif "_thumbnail_id" in meta:
                wanted.add(meta["_thumbnail_id"])
            _free(item)
    except etree.XMLSyntaxError:
        pass  # the pass that reads the articles will say so
    stream.seek(0)
    return {number: image for number, image in there.items() if number in wanted}
