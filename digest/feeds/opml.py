"""OPML 2.0: a list of feeds that readers import at one go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lxml import etree

from digest.feeds.tidy import TITLE_MAX, line, optional_url

OPML_TYPE = "text/x-opml"


@dataclass(frozen=True, slots=True)
class Outline:
    """A feed, or without a ``feed_url`` a folder of them."""

    title: str
    feed_url: str = ""
    home_url: str = ""
    below: tuple[Outline, ...] = ()


def write_opml(title: str, outlines: Iterable[Outline]) -> bytes:
    root = etree.Element("opml", version="2.0")
    head = etree.SubElement(root, "head")
    etree.SubElement(head, "title").text = line(title, TITLE_MAX)
    body = etree.SubElement(root, "body")
    _outlines(body, outlines)
    document: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)
    return document


def _outlines(parent: Any, outlines: Iterable[Outline]) -> None:
    for outline in outlines:
        title = line(outline.title, TITLE_MAX) or outline.feed_url
        if outline.below:
            _outlines(etree.SubElement(parent, "outline", text=title), outline.below)
        elif url := optional_url(outline.feed_url):
            home = optional_url(outline.home_url)
            etree.SubElement(
                parent,
                "outline",
                text=title,
                title=title,
                type="rss",
                xmlUrl=url,
                **({"htmlUrl": home} if home else {}),
            )
