"""The self-check: bytes of a feed → what is wrong with them, one sentence each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from lxml import etree

from digest.feeds.tidy import optional_url
from digest.feeds.xml import ATOM


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
        if not optional_url(link):
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
    ns = {"a": ATOM}

    def text(node: Any, path: str) -> str:
        return str(node.xpath(f"string({path})", namespaces=ns)).strip()

    if root.tag != f"{{{ATOM}}}feed":
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
    own = [link.get("href") for link in channel.iterfind(f"{{{ATOM}}}link") if link.get("rel") == "self"]
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
