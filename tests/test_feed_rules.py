"""Feeds of whole sites against schemas and rules; and the rules themselves, each seen to find what it is for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from digest.config import Settings
from digest.db import Database
from digest.feeds import FORMATS
from digest.feeds.tidy import DOCUMENT_MAX
from digest.fetch import Fetcher
from digest.ingest import add_source, refresh
from digest.publishing import Shelf
from digest.text import clean
from digest.types import CleanArticle, Enclosure, FeedItem, FeedView, Image, RawArticle, TopicKind, TopicRef
from tests.conftest import Corpus
from tests.feed_readers import LARGEST, faults, tree_faults
from tests.feed_rules import content_faults, rss_faults
from tests.hostile import OWN

T = datetime(2025, 7, 14, 5, 0, 1, tzinfo=UTC)
ITEM = FeedItem(
    id="https://news.example/?p=1", url="https://news.example/1", title="One", published=T, updated=T + timedelta(1),
    html='<p>Body <a href="https://a.example/">a</a></p>', summary="Summary.", authors=("Ana",), language="de",
    topics=(TopicRef(TopicKind.TAG, "climate", "Climate"),), image=Image("https://news.example/i.jpg", 3, 2, "alt"),
    enclosures=(Enclosure("https://news.example/a.mp3", "audio/mpeg", 1234),),
)  # fmt: skip
VIEW = FeedView(
    url="https://news.example/feeds/all/2025-06", title="All", home_url="https://news.example/", description="All",
    language="en", updated=T, items=(replace(ITEM, id="https://news.example/2", url="https://news.example/2"), ITEM),
    icon_url="https://news.example/i.png", publisher="The Paper", current_url="https://news.example/feeds/all",
    older_month_url="https://news.example/feeds/all/2025-05", archive=True,
)  # fmt: skip
RSS = FORMATS["rss"].write(VIEW)
URL = "https://news.example/feeds/all/2025-06.rss"


def test_what_is_right_has_no_faults() -> None:
    assert rss_faults(RSS, URL) == []
    for name, fmt in FORMATS.items():
        assert faults(name, fmt.write(VIEW)) == content_faults(name, fmt.write(VIEW)) == []


SEEDED = {
    "no version": ('version="2.0"', 'version="0.92"'),
    "no title": ("<channel><title>All</title>", "<channel>"),
    "no description": ("<description>All</description>", ""),
    "relative channel link": ("<link>https://news.example/</link><d", "<link>/</link><d"),
    "two languages": ("<language>en</language>", "<language>en</language><language>en</language>"),
    "no language": ("<language>en</language>", "<language>english, mostly</language>"),
    "unknown element": ("<docs>", "<updated>x</updated><docs>"),
    "undeclared by us": ("<docs>", '<x:y xmlns:x="urn:x"/><docs>'),
    "RFC 3339": ("Mon, 14 Jul 2025 05:00:01 +0000</pubDate>", "2025-07-14T05:00:01Z</pubDate>"),
    "two figures": ("<pubDate>Mon, 14 Jul 2025", "<pubDate>Mon, 14 Jul 25"),
    "another day": ("<pubDate>Mon, 14 Jul 2025", "<pubDate>Tue, 14 Jul 2025"),
    "no such hour": ("05:00:01 +0000</pubDate>", "25:00:01 +0000</pubDate>"),
    "no such day": ("<pubDate>Mon, 14 Jul", "<pubDate>Mon, 32 Jul"),
    "guid twice": (">https://news.example/2</guid>", ">https://news.example/?p=1</guid>"),
    "guid says nothing": ('<guid isPermaLink="false">', "<guid>"),
    "guid no link": (">https://news.example/2</guid>", ">two</guid>"),
    "guid no id": (' isPermaLink="true">https://news.example/2</guid>', ' isPermaLink="false">2</guid>'),
    "no guid": ('<guid isPermaLink="false">https://news.example/?p=1</guid>', ""),
    "self elsewhere": ('2025-06.rss" rel="self"', '2025-07.rss" rel="self"'),
    "no self": ('rel="self"', 'rel="via"'),
    "lonely archive": ('rel="prev-archive"', 'rel="via"'),
    "no item link": ("<link>https://news.example/2</link>", "<link>news.example/2</link>"),
    "script link": ("<link>https://news.example/2</link>", "<link>javascript:x</link>"),
    "space in a link": ("<link>https://news.example/2</link>", "<link>https://news.example/ 2</link>"),
    "domain": ('domain="https://news.example/feeds/tag"', 'domain="tag"'),
    "two descriptions": ("<description>Summary.", "<description>a</description><description>Summary."),
    "author": ("<dc:creator>Ana</dc:creator>", "<creator>Ana</creator>"),
    "type of enclosure": ('type="audio/mpeg"', 'type="mp3"'),
    "no length": ('length="1234"', 'length="0"'),
    "enclosure elsewhere": ('<enclosure url="https://news.example/a.mp3"', '<enclosure url="/a.mp3"'),
    "medium": ('medium="image"', 'medium="picture"'),
    "width": ('width="3"', 'width="wide"'),
    "relative picture": ('<media:thumbnail url="https://news.example', '<media:thumbnail url="'),
    "icon": ("<image><url>https://news.example", "<image><url>"),
    "icon's title": ("<image><url>https://news.example/i.png</url><title>All", "<image><url>https://news.example/i.png</url><title>A"),
    "markup in a title": ("<title>One</title>", "<title>One &lt;b&gt;</title>"),
    "updated": ("2025-07-15T05:00:01Z", "2025-07-15T05:00:01"),
}  # fmt: skip


@pytest.mark.parametrize("case", SEEDED)
def test_every_rule_finds_what_it_is_for(case: str) -> None:
    right, wrong = SEEDED[case]
    seeded = RSS.replace(right.encode(), wrong.encode(), 1)
    assert seeded != RSS
    assert rss_faults(seeded, URL) != []


@pytest.mark.parametrize(
    "html",
    [
        "<script>x</script>", "<p style='color:red'>x</p>", "<iframe src='https://a.example/'></iframe>",
        "<a href='/x'>x</a>", "<a href='#x'>x</a>", "<img src='//a.example/x.png'>", "<img src=x>",
        "<p onclick='x'>x</p>", "<a href='javascript:x'>x</a>", "<svg><script>x</script></svg>", "<meta charset=x>",
        "<img srcset='https://a.example/x.png 2x' src='https://a.example/x.png'>",
    ],
)  # fmt: skip
def test_no_body_may_act_or_lead_nowhere(html: str) -> None:
    for name, fmt in FORMATS.items():
        assert content_faults(name, fmt.write(replace(VIEW, items=(replace(ITEM, html=html),)))) != []


def test_dates_of_json_are_looked_at() -> None:
    feed = json.loads(FORMATS["json"].write(VIEW))
    feed["items"][0]["date_published"] = "yesterday"
    assert faults("json", json.dumps(feed).encode()) != []


# ----------------------------------------------------------------------------- no article makes a feed invalid


def _faults_of(items: list[FeedItem]) -> list[str]:
    """Of every format, with what nobody should see in a body."""
    view = replace(VIEW, items=tuple(items))
    found = []
    for name, fmt in FORMATS.items():
        body = fmt.write(view)
        assert len(body) < LARGEST
        found += [*faults(name, body), *content_faults(name, body), *fmt.check(body)]
    return found


def _article(n: int, html: str) -> FeedItem | None:
    """An article that says *html* wherever it can say something, as it reaches a feed."""
    url = f"https://news.example/{n}"
    done = clean(RawArticle(url=url, title=html, body_html=html, excerpt_html=html, image=Image(html[:500])))
    if not isinstance(done, CleanArticle):
        return None
    return FeedItem(
        id=html[:100], url=done.url, title=done.title, published=T, updated=T, html=done.body_html,
        summary=done.excerpt, authors=(html[:50],), image=done.image,
        topics=(TopicRef(TopicKind.TAG, html[:80], html),),
    )  # fmt: skip


def _items(markup: list[str]) -> list[FeedItem]:
    return [found for n, html in enumerate(markup) if (found := _article(n, html)) is not None]


CONTROLS = "".join(map(chr, [*range(0x20), 0x7F, 0x85, 0x2028, 0xFFFE, 0xFFFF, 0xD800, 0x1F600]))


def test_hostile_markup_never_makes_a_feed_invalid() -> None:
    items = _items([*OWN, CONTROLS, f"<p>{CONTROLS}</p>", f"<a href='https://a.example/{CONTROLS}'>x</a>"])
    assert len(items) > len(OWN) // 2
    assert _faults_of(items) == []


@pytest.mark.parametrize("piece", ["x", "&amp; ", "<b>ü</b> ", "<", '"\\', "\x00\ud800"])
def test_fields_of_two_megabytes_never_make_a_feed_invalid(piece: str) -> None:
    items = _items([piece * (2_000_000 // len(piece))])
    raw = replace(ITEM, title=piece * 2_000_000, summary=piece * 2_000_000, authors=(piece * 2_000_000,), html="")
    assert _faults_of([*items, raw]) == []


def test_a_month_of_long_articles_stays_under_what_readers_take() -> None:
    """Bodies of the newest, summaries of all."""
    items = [replace(ITEM, id=f"urn:x:{n}", html=f"<p>{'word ' * 2_000}</p>") for n in range(1_000)]
    for name, fmt in FORMATS.items():
        body = fmt.write(replace(VIEW, items=tuple(items)))
        assert faults(name, body) == []
        assert DOCUMENT_MAX * 0.8 < len(body) < LARGEST
        assert body.count(b"Summary.") >= len(items)


@pytest.mark.parametrize("piece", ["\\", '"', "\t", "&<>", "\U0001f30d"])
def test_a_month_stays_under_what_readers_take_however_its_letters_are_written(piece: str) -> None:
    items = [replace(ITEM, id=f"urn:x:{n}", html=f"<p>{n} {piece * (24_000 // len(piece))}</p>") for n in range(400)]
    for name, fmt in FORMATS.items():
        assert len(fmt.write(replace(VIEW, items=tuple(items)))) < LARGEST, name


def test_a_month_without_room_for_bodies_keeps_every_item() -> None:
    items = [replace(ITEM, id=f"urn:x:{n}", summary="&<" * 900) for n in range(1_000)]
    for name, fmt in FORMATS.items():
        body = fmt.write(replace(VIEW, items=tuple(items)))
        assert faults(name, body) == []
        assert body.count(b"urn:x:") == len(items)
        assert len(body) < LARGEST


@pytest.mark.corpus
def test_the_markup_of_the_corpus_never_makes_a_feed_invalid(corpus: Corpus) -> None:
    markup = [path.read_bytes().decode("utf-8", "replace") for path in corpus.find("html-messy/**/*")]
    markup += [text for whole in markup if whole[:1] in "[{" for text in _strings(json.loads(whole))]
    items = _items(markup)
    for start in range(0, len(items), 300):
        assert _faults_of(items[start : start + 300]) == []


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


# ----------------------------------------------------------------------------- a whole site


@pytest.mark.corpus
def test_every_feed_of_a_newspaper_is_valid(
    corpus: Corpus, sqlite: Database, settings: Settings, tmp_path: Path
) -> None:
    for n, export in enumerate(corpus.find("wxr-capital/*.xml.gz")):
        add_source(sqlite, f"site-{n}", kind="wxr", location=str(export), at=T)
    refresh(sqlite, Fetcher(settings.fetch), at=T + timedelta(days=365), force=True)
    shelf = Shelf(sqlite, "https://news.example")
    assert shelf.build(tmp_path / "out").findings == ()
    shelf.close()
    count, found = tree_faults(tmp_path / "out", "https://news.example")
    assert found == []
    assert count > 3_000
