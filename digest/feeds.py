"""RSS 2.0, Atom and JSON Feed from one FeedView. Owner of feedgen, whose faults are mended here and nowhere else.

The same view gives the same bytes in every process, on every day, under any hash seed: no clock, no locale, no set is
asked. What an article says is taken as hostile: characters that XML forbids are dropped, titles are capped, links are
http or https, and an item that still cannot be written is left out while the others stay.

``write``     view → tidy (once, for all formats) → the format's own writer → bytes
``check``     bytes → what is wrong with them, one sentence each

Not here: where items come from, what is cached, how it is served. Bodies are allow-listed HTML when they arrive.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

import feedgen.entry
import feedgen.feed
from feedgen.ext.base import BaseEntryExtension, BaseExtension
from lxml import etree

from digest.types import FeedItem, FeedView, Image

TITLE_MAX = 300
SUMMARY_MAX = 2_000
BODY_MAX = 500_000  # a longer body is left to the page; its summary stays

_ATOM = "http://www.w3.org/2005/Atom"
_CONTENT = "http://purl.org/rss/1.0/modules/content/"
_DC = "http://purl.org/dc/elements/1.1/"
_MEDIA = "http://search.yahoo.com/mrss/"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class FeedFormat:
    """One way to write a feed. ``media_type`` is what links say; ``content_type`` what the HTTP header says."""

    name: str
    media_type: str
    content_type: str
    write: Callable[[FeedView], bytes]
    check: Callable[[bytes], list[str]]


# ----------------------------------------------------------------------------- tidy: what may enter a feed at all

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 §2.2, production 2
_SPACE = re.compile(r"\s+")
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*\Z")  # RFC 4287 §2, atomLanguageTag
_OTHER_ID = re.compile(r"(urn|tag):[A-Za-z0-9][A-Za-z0-9._~:/?#@!$&'()*+,;=%-]*\Z")
_URL_SAFE = ":/?#[]@!$&'()*+,;=%-._~"


def clean(text: str) -> str:
    """*text* without the characters that no XML document may hold, lone surrogates among them."""
    return _ILLEGAL.sub("", text)


def line(text: str, limit: int) -> str:
    """*text* as one clean line of at most *limit* characters."""
    text = _SPACE.sub(" ", clean(text[: limit * 8])).strip()
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def web_url(url: str) -> str:
    """*url* as an absolute http or https URI in ASCII (RFC 3987 §3.1); raises ValueError for anything else."""
    parts = urlsplit(clean(url).strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http link")
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    return quote(parts._replace(netloc=host).geturl(), safe=_URL_SAFE)


def _optional_url(url: str | None) -> str:
    try:
        return web_url(url or "")
    except ValueError:
        return ""


def _instant(when: datetime) -> datetime:
    if when.tzinfo is None:
        raise ValueError("a date without a zone")
    return when.astimezone(UTC).replace(microsecond=0)


def _identity(item_id: str, url: str) -> str:
    """The id as frozen if it is an http URL, a URN or a tag URI; else the article's address."""
    item_id = clean(item_id).strip()
    if _OTHER_ID.match(item_id):
        return item_id
    return _optional_url(item_id) or url


def _language(tag: str | None) -> str:
    return tag if tag and _LANGUAGE.match(tag) else ""


def _image(image: Image | None) -> Image | None:
    url = _optional_url(image.url) if image else ""
    if not image or not url:
        return None
    width, height = (n if isinstance(n, int) and n > 0 else None for n in (image.width, image.height))
    return Image(url, width, height)


def _names(names: Iterable[str]) -> tuple[str, ...]:
    lines = (line(name, 200) for name in names)
    return tuple(dict.fromkeys(name for name in lines if name))


def _tidy_item(item: FeedItem) -> FeedItem:
    url = web_url(item.url)
    summary = line(item.summary, SUMMARY_MAX)
    published = _instant(item.published)
    topics = (replace(t, slug=line(t.slug, 200), name=line(t.name, 200) or line(t.slug, 200)) for t in item.topics)
    return FeedItem(
        id=_identity(item.id, url),
        url=url,
        title=line(item.title, TITLE_MAX) or line(summary, 80) or url,
        published=published,
        updated=max(_instant(item.updated), published),
        html=clean(item.html).strip() if len(item.html) <= BODY_MAX else "",
        summary=summary,
        authors=_names(item.authors),
        topics=tuple({(t.kind, t.slug): t for t in topics if t.slug}.values()),
        image=_image(item.image),
        language=_language(item.language),
    )


def _tidy_items(items: Iterable[FeedItem]) -> Iterator[FeedItem]:
    seen: set[str] = set()
    for item in items:
        try:
            tidied = _tidy_item(item)
        except (ValueError, TypeError, AttributeError, OverflowError):
            continue  # it costs itself, never the feed
        if tidied.id not in seen:  # RFC 4287 §4.1.1: an id stands once
            seen.add(tidied.id)
            yield tidied


def tidy(view: FeedView) -> FeedView:
    """*view* with every value fit for every format; items that cannot be made so are gone."""
    title = line(view.title, TITLE_MAX) or view.url
    return replace(
        view,
        url=web_url(view.url),
        title=title,
        home_url=web_url(view.home_url),
        description=line(view.description, SUMMARY_MAX) or title,
        language=_language(view.language),
        updated=_instant(view.updated),
        items=tuple(_tidy_items(view.items)),
        hubs=tuple(url for url in map(_optional_url, view.hubs) if url),
        icon_url=_optional_url(view.icon_url),
        publisher=line(view.publisher, 200) or title,
    )


# ----------------------------------------------------------------------------- feedgen, mended


def rfc822(when: datetime) -> str:
    """``Mon, 14 Jul 2025 05:00:00 +0000`` in English whatever the locale (RFC 5322 §3.3)."""
    when = when.astimezone(UTC)
    day, month = _DAYS[when.weekday()], _MONTHS[when.month - 1]
    return f"{day}, {when.day:02} {month} {when.year:04} {when:%H:%M:%S} +0000"


# feedgen's own switches the locale of the whole process three times a date, and threads leave it switched.
feedgen.feed.formatRFC2822 = feedgen.entry.formatRFC2822 = rfc822


def _add(parent: Any, tag: str, text: str | None = None, **attributes: str) -> Any:
    element = etree.SubElement(parent, tag, attributes)
    element.text = text
    return element


class _ChannelMends(BaseExtension):  # type: ignore[misc]
    """What feedgen leaves out of a channel: every atom:link but the first self."""

    hubs: tuple[str, ...] = ()

    def extend_ns(self) -> dict[str, str]:
        return {"dc": _DC, "media": _MEDIA}

    def extend_rss(self, feed: Any) -> Any:
        for hub in self.hubs:
            _add(feed[0], f"{{{_ATOM}}}link", href=hub, rel="hub")
        return feed


class _EntryMends(BaseEntryExtension):  # type: ignore[misc]
    """What feedgen loses or never had in an entry."""

    item: FeedItem

    def extend_atom(self, entry: Any) -> Any:
        for link in entry.iterchildren("link"):  # written without rel and type
            link.set("rel", "alternate")
            link.set("type", "text/html")
        if self.item.language:
            entry.set(_XML_LANG, self.item.language)
        self._thumbnail(entry)
        return entry

    def extend_rss(self, entry: Any) -> Any:
        item = self.item
        if item.html:
            _add(entry, f"{{{_CONTENT}}}encoded", item.html)
        for name in item.authors:  # <author> wants an e-mail address
            _add(entry, f"{{{_DC}}}creator", name)
        if item.language:
            _add(entry, f"{{{_DC}}}language", item.language)
        if item.updated != item.published:
            _add(entry, f"{{{_ATOM}}}updated", rfc3339(item.updated))
        self._thumbnail(entry)
        return entry

    def _thumbnail(self, entry: Any) -> None:
        if image := self.item.image:  # outside any media:group: a group of one is an error
            sizes = {k: str(v) for k, v in (("width", image.width), ("height", image.height)) if v}
            _add(entry, f"{{{_MEDIA}}}thumbnail", url=image.url, **sizes)


def _channel(view: FeedView, extension: str, media_type: str) -> Any:
    channel = feedgen.feed.FeedGenerator()
    channel.register_extension("mends", _ChannelMends, _EntryMends)
    channel.mends.hubs = view.hubs
    channel.id(view.url)
    channel.title(view.title)
    channel.subtitle(view.description)
    channel.language(view.language or None)
    channel.generator("digest")  # without a version: an upgrade changes no feed
    channel.updated(view.updated)
    channel.author(name=view.publisher)
    channel.link(href=f"{view.url}.{extension}", rel="self", type=media_type)
    for hub in view.hubs:
        channel.link(href=hub, rel="hub")
    channel.link(href=view.home_url, rel="alternate", type="text/html")  # last: RSS takes the last for its <link>
    if view.icon_url:
        channel.icon(view.icon_url)
        channel.image(url=view.icon_url, title=view.title, link=view.home_url)
    return channel


def _entry(channel: Any, item: FeedItem, site: str) -> Any:
    entry = channel.add_entry(order="append")  # feedgen would turn the feed round
    entry.mends.item = item
    entry.guid(item.id, permalink=item.id == item.url)
    entry.title(item.title)
    entry.link(href=item.url)
    entry.published(item.published)
    entry.updated(item.updated)
    for name in item.authors:
        entry.author(name=name)
    for topic in item.topics:
        entry.category(term=topic.slug, scheme=f"{site}/feeds/{topic.kind}", label=topic.name)
    return entry


def _site(view: FeedView) -> str:
    """The public address that *view* belongs to: what stands before its ``/feeds/``."""
    return view.url.rsplit("/feeds/", 1)[0]


def _atom_tree(view: FeedView) -> bytes:
    channel = _channel(view, "atom", "application/atom+xml")
    for item in view.items:
        entry = _entry(channel, item, _site(view))
        if item.html:
            entry.content(item.html, type="html")  # without a type readers show the tags
        if item.summary or not item.html:  # RFC 4287 §4.1.1.1: text that reads without following the link
            entry.summary(item.summary or item.title)
    document: bytes = channel.atom_str()
    return document


def _rss_tree(view: FeedView) -> bytes:
    channel = _channel(view, "rss", "application/rss+xml")
    for item in view.items:
        entry = _entry(channel, item, _site(view))
        # An RSS description is HTML, and has to stand before content:encoded.
        entry.summary(html.escape(item.summary or item.title, quote=False))
    document: bytes = channel.rss_str()
    return _TITLE.sub(_plain_title, document)


_TITLE = re.compile(rb"<title>[^<]*[&][^<]*</title>")


def _plain_title(match: re.Match[bytes]) -> bytes:
    """Readers disagree whether an RSS title is HTML; numeric references are read alike by all of them."""
    return match[0].replace(b"&amp;", b"&#x26;").replace(b"&lt;", b"&#x3C;")


def _write_xml(view: FeedView, tree: Callable[[FeedView], bytes]) -> bytes:
    """Write the whole feed; if that fails, find the items that fail alone and leave those out."""
    view = tidy(view)
    try:
        return tree(view)
    except (ValueError, TypeError):
        whole = tuple(item for item in view.items if _writes(replace(view, items=(item,)), tree))
        return tree(replace(view, items=whole))


def _writes(view: FeedView, tree: Callable[[FeedView], bytes]) -> bool:
    try:
        tree(view)
    except (ValueError, TypeError):
        return False
    return True


def write_atom(view: FeedView) -> bytes:
    return _write_xml(view, _atom_tree)


def write_rss(view: FeedView) -> bytes:
    return _write_xml(view, _rss_tree)


# ----------------------------------------------------------------------------- JSON Feed 1.1


def rfc3339(when: datetime) -> str:
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _json_item(item: FeedItem) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": item.id,
        "url": item.url,
        "title": item.title,
        "content_html": item.html,
        "content_text": "" if item.html else item.summary or item.title,  # one of the two is required
        "summary": item.summary,
        "image": item.image.url if item.image else "",
        "date_published": rfc3339(item.published),
        "date_modified": rfc3339(item.updated),
        "authors": [{"name": name} for name in item.authors],
        "tags": list(dict.fromkeys(topic.name for topic in item.topics)),
        "language": item.language,
    }
    return {key: value for key, value in fields.items() if value}


def write_json(view: FeedView) -> bytes:
    view = tidy(view)
    fields: dict[str, Any] = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": view.title,
        "home_page_url": view.home_url,
        "feed_url": f"{view.url}.json",
        "description": view.description,
        "icon": view.icon_url,
        "authors": [{"name": view.publisher}],
        "language": view.language,
        "hubs": [{"type": "WebSub", "url": hub} for hub in view.hubs],
    }
    document = {key: value for key, value in fields.items() if value}
    document["items"] = [_json_item(item) for item in view.items]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


# ----------------------------------------------------------------------------- self-check


def _parse(body: bytes) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
    return etree.fromstring(body, parser)


def _faults(items: Iterable[tuple[str, str, str, bool]]) -> Iterator[str]:
    """What is wrong with items given as (id, link, title, dates are right)."""
    seen: set[str] = set()
    for number, (item_id, link, title, dated) in enumerate(items, 1):
        if not item_id:
            yield f"item {number} has no id"
        elif item_id in seen:
            yield f"item {number} repeats the id {item_id}"
        seen.add(item_id)
        if not _optional_url(link):
            yield f"item {number} has no http link"
        if not title:
            yield f"item {number} has no title"
        if not dated:
            yield f"item {number} has a date that is missing or has no zone"


def _dated(parse: Callable[[str], datetime], *texts: str | None) -> bool:
    try:
        return all(parse(text or "").tzinfo is not None for text in texts)
    except (ValueError, TypeError):
        return False


def _missing(head: Iterable[tuple[str, object]]) -> list[str]:
    return [f"the feed has no {name}" for name, value in head if not value]


def check_atom(body: bytes) -> list[str]:
    try:
        root = _parse(body)
    except etree.XMLSyntaxError as e:
        return [f"it is not well-formed XML: {e}"]
    ns = {"a": _ATOM}

    def text(node: Any, path: str) -> str:
        return str(node.xpath(f"string({path})", namespaces=ns)).strip()

    if root.tag != f"{{{_ATOM}}}feed":
        return ["its root is not an Atom feed"]
    faults = _missing(
        (name, text(root, path))
        for name, path in (
            ("id", "a:id"), ("title", "a:title"), ("author", "a:author/a:name"),
            ("self link", "a:link[@rel='self']/@href"),
        )
    )  # fmt: skip
    if not _dated(datetime.fromisoformat, text(root, "a:updated")):
        faults.append("the feed has no updated date with a zone")
    return faults + list(
        _faults(
            (
                text(e, "a:id"), text(e, "a:link[@rel='alternate']/@href"), text(e, "a:title"),
                _dated(datetime.fromisoformat, text(e, "a:updated"), text(e, "a:published")),
            )
            for e in root.iterfind("a:entry", ns)
        )
    )  # fmt: skip


def check_rss(body: bytes) -> list[str]:
    try:
        root = _parse(body)
    except etree.XMLSyntaxError as e:
        return [f"it is not well-formed XML: {e}"]
    channel = root.find("channel")
    if root.tag != "rss" or root.get("version") != "2.0" or channel is None:
        return ["its root is not RSS 2.0"]
    head = [(name, (channel.findtext(name) or "").strip()) for name in ("title", "link", "description")]
    own = [link.get("href") for link in channel.iterfind(f"{{{_ATOM}}}link") if link.get("rel") == "self"]
    faults = _missing([*head, ("self link", own)])
    if not _dated(parsedate_to_datetime, channel.findtext("lastBuildDate")):
        faults.append("the feed has no lastBuildDate with a zone")
    return faults + list(
        _faults(
            (
                i.findtext("guid") or "", i.findtext("link") or "", i.findtext("title") or "",
                _dated(parsedate_to_datetime, i.findtext("pubDate")),
            )
            for i in channel.iterfind("item")
        )
    )  # fmt: skip


def check_json(body: bytes) -> list[str]:
    try:
        feed = json.loads(body)
        items = [dict(item) for item in feed["items"]]
    except (ValueError, TypeError, KeyError) as e:
        return [f"it is not a JSON Feed: {e!r}"]
    faults = _missing((name, feed.get(name)) for name in ("version", "title", "home_page_url", "feed_url"))
    faults += [
        f"item {n} has no content"
        for n, i in enumerate(items, 1)
        if not (i.get("content_html") or i.get("content_text"))
    ]
    return faults + list(
        _faults(
            (
                i.get("id", ""), i.get("url", ""), i.get("title", ""),
                _dated(datetime.fromisoformat, i.get("date_published"), i.get("date_modified")),
            )
            for i in items
        )
    )  # fmt: skip


#: By extension. A new format is one more line here: see "A feed format" in docs/adding.md.
FORMATS: dict[str, FeedFormat] = {
    "rss": FeedFormat("RSS", "application/rss+xml", "application/rss+xml; charset=utf-8", write_rss, check_rss),
    "atom": FeedFormat("Atom", "application/atom+xml", "application/atom+xml; charset=utf-8", write_atom, check_atom),
    "json": FeedFormat("JSON Feed", "application/feed+json", "application/feed+json", write_json, check_json),
}  # fmt: skip
