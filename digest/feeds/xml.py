"""RSS 2.0 and Atom. Owner of feedgen, whose faults are mended here and nowhere else.

No clock, no locale, no set is asked: the same view gives the same bytes in every process, on every day.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import feedgen.entry
import feedgen.feed
from feedgen.ext.base import BaseEntryExtension, BaseExtension
from lxml import etree

from digest.feeds.memo import Memo
from digest.feeds.tidy import tidy
from digest.types import FeedItem, FeedView

ATOM = "http://www.w3.org/2005/Atom"
_CONTENT = "http://purl.org/rss/1.0/modules/content/"
_DC = "http://purl.org/dc/elements/1.1/"
_HISTORY = "http://purl.org/syndication/history/1.0"
_MEDIA = "http://search.yahoo.com/mrss/"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def rfc3339(when: datetime) -> str:
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


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
    """What feedgen leaves out of a channel: links of RFC 5005, and in RSS every atom:link but the first self."""

    view: FeedView
    extension: str

    def extend_ns(self) -> dict[str, str]:
        return {"dc": _DC, "media": _MEDIA, "fh": _HISTORY}

    def extend_atom(self, feed: Any) -> Any:
        for rel, url in _parts(self.view):
            _add(feed, "link", href=f"{url}.{self.extension}", rel=rel)
        return self._marked(feed, feed)

    def extend_rss(self, feed: Any) -> Any:
        for hub in self.view.hubs:
            _add(feed[0], f"{{{ATOM}}}link", href=hub, rel="hub")
        for rel, url in _parts(self.view):
            _add(feed[0], f"{{{ATOM}}}link", href=f"{url}.{self.extension}", rel=rel)
        return self._marked(feed, feed[0])

    def _marked(self, feed: Any, head: Any) -> Any:
        view = self.view
        if view.archive and (view.older_month_url or view.newer_month_url):  # RFC 5005 §4: one that leads to others
            _add(head, f"{{{_HISTORY}}}archive")
        return feed


def _parts(view: FeedView) -> Iterator[tuple[str, str]]:
    """How this document hangs together with the feed's other parts: (rel, address without extension)."""
    named = (
        ("current", view.current_url),
        ("next", "" if view.archive else view.older_url),  # RFC 5005 §3: pages
        ("prev-archive", view.older_month_url),  # §4: months
        ("next-archive", view.newer_month_url),
    )
    return ((rel, url) for rel, url in named if url)


class _EntryMends(BaseEntryExtension):  # type: ignore[misc]
    """What feedgen loses or never had in an entry."""

    item: FeedItem

    def extend_atom(self, entry: Any) -> Any:
        for link in entry.iterchildren("link"):  # written without rel and type
            link.set("rel", "alternate")
            link.set("type", "text/html")
        for one in self.item.enclosures:
            length = {"length": str(one.length)} if one.length else {}
            _add(entry, "link", href=one.url, rel="enclosure", type=one.type, **length)
        for title, url in self.item.also:
            _add(entry, "link", href=url, rel="related", type="text/html", title=title)
        if self.item.language:
            entry.set(_XML_LANG, self.item.language)
        self._image(entry)
        return entry

    def extend_rss(self, entry: Any) -> Any:
        item = self.item
        if item.html:
            _add(entry, f"{{{_CONTENT}}}encoded", with_also(item))
        for name in item.authors:  # <author> wants an e-mail address
            _add(entry, f"{{{_DC}}}creator", name)
        if item.language:
            _add(entry, f"{{{_DC}}}language", item.language)
        if item.updated != item.published:
            _add(entry, f"{{{ATOM}}}updated", rfc3339(item.updated))
        # RSS Advisory Board: one, and it has to say its length.
        if (one := next((e for e in item.enclosures if e.length), None)) is not None:
            _add(entry, "enclosure", url=one.url, length=str(one.length), type=one.type)
        self._image(entry)
        return entry

    def _image(self, entry: Any) -> None:
        """Outside any media:group: a group of one is an error."""
        if (image := self.item.image) is None:
            return
        sizes = {k: str(v) for k, v in (("width", image.width), ("height", image.height)) if v}
        content = _add(entry, f"{{{_MEDIA}}}content", url=image.url, medium="image", **sizes)
        if image.alt:
            _add(content, f"{{{_MEDIA}}}description", image.alt, type="plain")
        if image.credit:
            _add(content, f"{{{_MEDIA}}}credit", image.credit)
        _add(entry, f"{{{_MEDIA}}}thumbnail", url=image.url, **sizes)


@dataclass(frozen=True)
class _Form:
    """What RSS and Atom have apart. ``tag``: an item's; ``end``: what closes the document behind the last of them."""

    extension: str
    media_type: str
    tag: bytes
    end: bytes
    fill: Callable[[Any, FeedItem], None]
    document: Callable[[Any], bytes]


def _channel(view: FeedView, form: _Form) -> Any:
    channel = feedgen.feed.FeedGenerator()
    channel.register_extension("mends", _ChannelMends, _EntryMends)
    channel.mends.view, channel.mends.extension = view, form.extension
    channel.id(view.url)
    channel.title(view.title)
    channel.subtitle(view.description)
    channel.language(view.language or None)
    channel.generator("digest")  # without a version: an upgrade changes no feed
    channel.updated(view.updated)
    channel.author(name=view.publisher)
    channel.link(href=f"{view.url}.{form.extension}", rel="self", type=form.media_type)
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


def site(view: FeedView) -> str:
    """The public address that *view* belongs to: what stands before its ``/feeds/``."""
    return view.url.partition("/feeds/")[0]


def with_also(item: FeedItem) -> str:
    """The body, and below it the other articles that tell the story."""
    if not (item.also and item.html):
        return item.html
    links = (f'<li><a href="{html.escape(url)}">{html.escape(title)}</a></li>' for title, url in item.also)
    return f"{item.html}<ul>{''.join(links)}</ul>"


# ----------------------------------------------------------------------------- documents


def _fill_atom(entry: Any, item: FeedItem) -> None:
    if item.html:
        entry.content(with_also(item), type="html")  # without a type readers show the tags
    if item.summary or not item.html:  # RFC 4287 §4.1.1.1: text that reads without following the link
        entry.summary(item.summary or item.title)


def _fill_rss(entry: Any, item: FeedItem) -> None:
    # An RSS description is HTML, and has to stand before content:encoded.
    entry.summary(html.escape(item.summary or item.title, quote=False))


_TITLE = re.compile(rb"<title>[^<]*[&][^<]*</title>")


def _plain_title(match: re.Match[bytes]) -> bytes:
    """Readers disagree whether an RSS title is HTML; numeric references are read alike by all of them."""
    return match[0].replace(b"&amp;", b"&#x26;").replace(b"&lt;", b"&#x3C;")


def _rss_document(channel: Any) -> bytes:
    return _TITLE.sub(_plain_title, channel.rss_str())


def _atom_document(channel: Any) -> bytes:
    document: bytes = channel.atom_str()
    return document


_ATOM = _Form("atom", "application/atom+xml", b"entry", b"</feed>", _fill_atom, _atom_document)
_RSS = _Form("rss", "application/rss+xml", b"item", b"</channel></rss>", _fill_rss, _rss_document)


def _write(view: FeedView, form: _Form) -> bytes:
    """The feed around its items; most of those stand in other feeds too, and stood in this one before."""
    view = tidy(view)
    head, end, rest = form.document(_channel(replace(view, items=()), form)).rpartition(form.end)
    return b"".join((head, *_pieces(view, form), end, rest))


_written: Memo[tuple[str, str, FeedItem], bytes] = Memo(32 * 2**20, lambda key, piece: 500 + len(piece))


def _pieces(view: FeedView, form: _Form) -> list[bytes]:
    """Each item as the document has it; nothing for one that cannot be written."""

    def cut(keys: list[tuple[str, str, FeedItem]]) -> list[bytes]:
        return _cut(replace(view, items=tuple(item for _, _, item in keys)), form)

    return _written.all_of([(form.extension, site(view), item) for item in view.items], cut)


def _cut(view: FeedView, form: _Form) -> list[bytes]:
    """Write a document and take it apart. No text and no attribute holds a bare ``<``: tags are what they seem."""
    channel = _channel(view, form)
    try:
        for item in view.items:
            form.fill(_entry(channel, item, site(view)), item)
        document = form.document(channel)
    except (ValueError, TypeError):
        if len(view.items) == 1:
            return [b""]
        return [_cut(replace(view, items=(item,)), form)[0] for item in view.items]
    opening, closing = b"<" + form.tag, b"</" + form.tag + b">"
    pieces = document[document.index(opening) :].split(closing)[:-1]
    return [piece + closing for piece in pieces]


def write_atom(view: FeedView) -> bytes:
    return _write(view, _ATOM)


def write_rss(view: FeedView) -> bytes:
    return _write(view, _RSS)
