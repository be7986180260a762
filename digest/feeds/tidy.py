"""What may enter a feed at all: every string, link, date and id made fit for every format, hostile ones too.

What an article says is taken as hostile: characters that XML forbids are dropped, titles are capped, links are http or
https. An item that cannot be made fit is left out while the others stay. Knows no format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from digest.feeds.memo import Memo
from digest.types import FeedItem, FeedView, Image

TITLE_MAX = 300
SUMMARY_MAX = 2_000
BODY_MAX = 500_000  # a longer body is left to the page; its summary stays
DOCUMENT_MAX = 4_500_000  # bytes, as they are written: readers and validators refuse more than 5 MB

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


def optional_url(url: str | None) -> str:
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
    return optional_url(item_id) or url


def _language(tag: str | None) -> str:
    return tag if tag and _LANGUAGE.match(tag) else ""


def _image(image: Image | None) -> Image | None:
    url = optional_url(image.url) if image else ""
    if not image or not url:
        return None
    width, height = (n if isinstance(n, int) and n > 0 else None for n in (image.width, image.height))
    return Image(url, width, height, line(image.alt, SUMMARY_MAX), line(image.credit, TITLE_MAX))


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
        enclosures=tuple(one._replace(url=url) for one in item.enclosures if (url := optional_url(one.url))),
        also=tuple((line(title, TITLE_MAX) or link, link) for title, link in _links(item.also)),
    )


def _links(named: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((title, link) for title, url in named if (link := optional_url(url)))


class _Fit(NamedTuple):
    """An item made fit, and the most bytes that any format writes for its parts."""

    item: FeedItem
    rest: int
    summary: int
    body: int


def _tidied(items: Iterable[FeedItem]) -> list[_Fit | None]:
    """Each item made fit; None for one that cannot be: it costs itself, never the feed."""
    found: list[_Fit | None] = []
    for item in items:
        try:
            found.append(_weighed(_tidy_item(item)))
        except (ValueError, TypeError, AttributeError, OverflowError):
            found.append(None)
    return found


def _weighed(item: FeedItem) -> _Fit:
    words = [item.title, item.url, item.id, *item.authors, item.image.url + item.image.alt if item.image else ""]
    words += [t.name + 2 * quote(t.slug) for t in item.topics] + 2 * [title + url for title, url in item.also]
    words += [one.url for one in item.enclosures]
    elements = 600 + 100 * len(item.enclosures) + 200 * (len(item.topics) + len(item.also))
    return _Fit(item, elements + _written("".join(words)), 2 * _written(item.summary), _written(item.html))


def _written(text: str) -> int:
    """Bytes of *text* once what XML and JSON escape is escaped."""
    markup = 3 * text.count("<") + 3 * text.count(">") + 4 * text.count("&")
    return len(text.encode()) + markup + sum(map(text.count, '"\\\n\t'))


_known: Memo[FeedItem, _Fit | None] = Memo(16 * 2**20, lambda item, _: 2_000 + len(item.html))


def _tidy_items(items: Sequence[FeedItem]) -> Iterator[FeedItem]:
    found: dict[str, _Fit] = {}
    for fit in _known.all_of(items, _tidied):
        if fit is not None:
            found.setdefault(fit.item.id, fit)  # RFC 4287 §4.1.1: an id stands once
    return _within(list(found.values()), DOCUMENT_MAX - sum(fit.rest for fit in found.values()))


def _within(found: list[_Fit], room: int) -> Iterator[FeedItem]:
    """The items, as many of the first with their bodies as there is *room* for beside the summaries of all."""
    for_summaries, for_bodies = room, room - sum(fit.summary for fit in found)
    for item, _, summary, body in found:
        for_summaries -= summary
        for_bodies -= body
        if for_summaries < 0:
            item = replace(item, summary="")
        yield item if for_bodies >= 0 else replace(item, html="")


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
        hubs=tuple(url for url in map(optional_url, view.hubs) if url),
        icon_url=optional_url(view.icon_url),
        publisher=line(view.publisher, 200) or title,
    )
