"""RSS 2.0 has no schema: its specification, the profile of the RSS Advisory Board and what validators warn of, as code.

Also what no format's schema sees: markup in bodies that readers should never be handed. Written to be stricter than
readers are; every rule has been seen to fail in `test_feed_rules.py`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from lxml import etree
from selectolax.lexbor import LexborHTMLParser

ATOM = "http://www.w3.org/2005/Atom"
_MEDIA = "http://search.yahoo.com/mrss/"
_DC = "http://purl.org/dc/elements/1.1/"
_CONTENT = "http://purl.org/rss/1.0/modules/content/"
_HISTORY = "http://purl.org/syndication/history/1.0"

#: What a channel and an item may hold, and of it what may stand more than once. Namespaces in full.
_CHANNEL = {
    "title", "link", "description", "language", "copyright", "managingEditor", "webMaster", "pubDate", "lastBuildDate",
    "category", "generator", "docs", "cloud", "ttl", "image", "textInput", "skipHours", "skipDays", "item",
    f"{{{ATOM}}}link", f"{{{_HISTORY}}}archive", f"{{{_HISTORY}}}complete",
}  # fmt: skip
_ITEM = {
    "title", "link", "description", "author", "category", "comments", "enclosure", "guid", "pubDate", "source",
    f"{{{ATOM}}}link", f"{{{ATOM}}}updated", f"{{{_CONTENT}}}encoded", f"{{{_DC}}}creator", f"{{{_DC}}}language",
    f"{{{_MEDIA}}}content", f"{{{_MEDIA}}}thumbnail",
}  # fmt: skip
_MANY = {"item", "category", f"{{{ATOM}}}link", f"{{{_DC}}}creator", f"{{{_MEDIA}}}content", f"{{{_MEDIA}}}thumbnail"}

_DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}"
    r" ([01]\d|2[0-3]):[0-5]\d:[0-5]\d (\+0000|GMT)"
)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_MIME = re.compile(r"[a-z]+/[A-Za-z0-9.+-]+")
_URN = re.compile(r"(urn:[a-z0-9][a-z0-9-]{0,31}:|tag:)\S+", re.IGNORECASE)
_URI_SAFE = re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=%._~-]+")

_NEVER = (
    "script,style,iframe,frame,object,embed,applet,form,input,button,textarea,select,meta,link,base,svg,math,template"
)
_LINKS = ("href", "src", "cite", "longdesc", "data", "action", "poster", "background")


def is_web_url(text: str | None) -> bool:
    """An absolute http(s) URI, in the characters that RFC 3986 has."""
    if not text or not _URI_SAFE.fullmatch(text):
        return False
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def rss_faults(body: bytes, url: str = "") -> list[str]:
    """What the specification, its profile or a validator would have against *body*, served at *url*."""
    root = etree.fromstring(body, etree.XMLParser(resolve_entities=False, huge_tree=True))
    channel = root.find("channel")
    if root.tag != "rss" or root.get("version") != "2.0" or channel is None or len(root) != 1:
        return ["not one channel in an rss of version 2.0"]
    found = [*_head(channel, url), *_named_titles(body)]
    items = channel.findall("item")
    for n, item in enumerate(items, 1):
        found += [f"item {n}: {fault}" for fault in _item(item)]
    found += [f"guid {guid} twice" for guid in _twice(item.findtext("guid") for item in items)]
    if [child.tag for child in channel][-len(items) :].count("item") != len(items):
        found.append("something of the channel behind its items")
    return found


def _twice(values: Iterable[Any]) -> list[Any]:
    return [value for value, times in Counter(values).items() if times > 1]


def _known(element: Any, allowed: set[str]) -> Iterator[str]:
    tags = [child.tag for child in element]
    yield from (f"{tag} is not known here" for tag in tags if tag not in allowed)
    yield from (f"{tag} stands twice" for tag in _twice(tags) if tag not in _MANY)


def _head(channel: Any, url: str) -> Iterator[str]:
    yield from _known(channel, _CHANNEL)
    yield from (f"no {tag}" for tag in ("title", "link", "description") if not (channel.findtext(tag) or "").strip())
    if not is_web_url(channel.findtext("link")):
        yield "the channel's link is no absolute URL"
    language = channel.findtext("language")
    if language is not None and not _LANGUAGE.fullmatch(language):
        yield f"{language!r} is no language"
    yield from _date(channel, "pubDate")
    yield from _date(channel, "lastBuildDate")
    yield from _links(channel, url)
    image = channel.find("image")
    if image is not None:
        if [image.findtext(tag) for tag in ("title", "link")] != [channel.findtext(tag) for tag in ("title", "link")]:
            yield "the image has another title or link than the channel"
        if not is_web_url(image.findtext("url")):
            yield "the image has no URL"


def _links(channel: Any, url: str) -> Iterator[str]:
    links = channel.findall(f"{{{ATOM}}}link")
    own = [link.get("href") for link in links if link.get("rel") == "self"]
    if len(own) != 1:
        yield f"{len(own)} links to itself"
    elif url and own[0] != url:
        yield f"it says that it is {own[0]}"
    for link in links:
        if not is_web_url(link.get("href")) or not link.get("rel"):
            yield "an atom:link without rel or absolute URL"
    rels = {link.get("rel") for link in links}
    if channel.find(f"{{{_HISTORY}}}archive") is not None and not ("current" in rels and rels & _ARCHIVES):
        yield "an archive that leads neither to its feed nor to another archive"


_ARCHIVES = {"prev-archive", "next-archive"}


def _date(element: Any, tag: str) -> Iterator[str]:
    """RFC 822 with four figures of year, and the day of the week that it is."""
    text = element.findtext(tag)
    if text is None:
        return
    if not _DATE.fullmatch(text) or not _is_that_day(text):
        yield f"{tag} {text!r} is no RFC 822 date"


def _is_that_day(date: str) -> bool:
    try:
        return f"{parsedate_to_datetime(date):%a}" == date[:3]
    except ValueError:
        return False


def _item(item: Any) -> Iterator[str]:
    yield from _known(item, _ITEM)
    if not (item.findtext("title") or "").strip() or not (item.findtext("description") or "").strip():
        yield "no title or no description"
    if not is_web_url(item.findtext("link")):
        yield "its link is no absolute URL"
    yield from _date(item, "pubDate")
    yield from _guid(item.find("guid"))
    tags = [child.tag for child in item]
    encoded = f"{{{_CONTENT}}}encoded"
    if encoded in tags and tags.index("description") > tags.index(encoded):
        yield "content:encoded before the description"
    updated = item.findtext(f"{{{ATOM}}}updated")
    if updated is not None and datetime.fromisoformat(updated).tzinfo is None:
        yield "atom:updated without a zone"
    yield from (f"a domain {d!r}" for c in item.iter("category") if not is_web_url(d := c.get("domain")))
    yield from _enclosure(item.find("enclosure"))
    yield from _media(item)


def _guid(guid: Any) -> Iterator[str]:
    if guid is None or not (guid.text or "").strip():
        yield "no guid"
    elif guid.get("isPermaLink") not in ("true", "false"):
        yield "a guid that does not say whether it is a link"
    elif guid.get("isPermaLink") == "true" and not is_web_url(guid.text):
        yield "a guid that is no link and says so"
    elif not is_web_url(guid.text) and not _URN.fullmatch(guid.text):
        yield f"a guid {guid.text!r} that is not unique in the world"


def _enclosure(enclosure: Any) -> Iterator[str]:
    if enclosure is None:
        return
    if not is_web_url(enclosure.get("url")):
        yield "an enclosure without an absolute URL"
    if not re.fullmatch(r"[1-9]\d*", enclosure.get("length") or ""):
        yield f"an enclosure of length {enclosure.get('length')!r}"
    if not _MIME.fullmatch(enclosure.get("type") or ""):
        yield f"an enclosure of type {enclosure.get('type')!r}"


def _media(item: Any) -> Iterator[str]:
    for media in [*item.iter(f"{{{_MEDIA}}}content"), *item.iter(f"{{{_MEDIA}}}thumbnail")]:
        if not is_web_url(media.get("url")):
            yield "a picture without an absolute URL"
        if media.get("medium") not in (None, "image", "audio", "video", "document"):
            yield f"a medium {media.get('medium')!r}"
        if not all(re.fullmatch(r"[1-9]\d*", media.get(size) or "1") for size in ("width", "height")):
            yield "a picture with a strange size"


def _named_titles(body: bytes) -> list[str]:
    """The profile: in titles, characters that could be markup are written by number."""
    return ["a title with &amp; or &lt;"] if re.search(rb"<title>[^<]*&(?:amp|lt);", body) else []


# ----------------------------------------------------------------------------- what is in the bodies


def content_faults(name: str, body: bytes) -> list[str]:
    """Markup in any body or summary that runs, loads more than pictures, or does not say where it leads."""
    return [fault for html in _bodies(name, body) for fault in html_faults(html)]


def html_faults(html: str) -> list[str]:
    tree = LexborHTMLParser(html)
    found = [f"<{node.tag}> in a body" for node in tree.css(_NEVER)]
    for node in tree.css("body *"):
        for name, value in node.attributes.items():
            if name.startswith("on") or name in ("style", "srcset", "ping"):
                found.append(f"{name} in a body")
            elif name in _LINKS and urlsplit((value or "").strip()).scheme not in ("http", "https", "mailto", "tel"):
                found.append(f"{name}={value!r} in a body")
    return found


def _bodies(name: str, body: bytes) -> Iterator[str]:
    if name == "json":
        yield from (item.get("content_html", "") for item in json.loads(body)["items"])
        return
    root = etree.fromstring(body, etree.XMLParser(resolve_entities=False, huge_tree=True))
    tags = (f"{{{ATOM}}}content",) if name == "atom" else ("description", f"{{{_CONTENT}}}encoded")
    yield from (element.text or "" for element in root.iter(*tags))
