"""What is particular to RSS, Atom and JSON Feed: the faults of feedgen that are mended, and the self-check."""

from __future__ import annotations

import json
import locale
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import feedgen.entry
import pytest
from lxml import etree

from digest.feeds import FORMATS, clean, line, rfc822, tidy, web_url
from digest.feeds.memo import Memo
from digest.types import Enclosure, FeedItem, FeedView, Image, TopicKind, TopicRef
from tests.feed_readers import faults, read

T = datetime(2025, 7, 14, 5, 0, 1, tzinfo=UTC)
ITEM = FeedItem(
    id="https://news.example/1", url="https://news.example/1", title="AT&T <b>", published=T,
    updated=T + timedelta(hours=1), html="<p>1 &lt; 2</p>", summary="1 < 2", authors=("Ana", "Bo"),
    topics=(TopicRef(TopicKind.CATEGORY, "africa", "Africa"), TopicRef(TopicKind.TAG, "africa", "Africa")),
    image=Image("https://news.example/i.jpg", 1200, 630), language="de",
)  # fmt: skip
VIEW = FeedView(
    url="https://news.example/feeds/all", title="Harbour & <co>", home_url="https://news.example/", description="All",
    language="en", updated=T, items=(ITEM, replace(ITEM, id="urn:x:2", url="https://news.example/2")),
    hubs=("https://hub.example/", "javascript:alert(1)"), publisher="The Harbour Paper",
)  # fmt: skip
NS = {
    "a": "http://www.w3.org/2005/Atom", "content": "http://purl.org/rss/1.0/modules/content/",
    "dc": "http://purl.org/dc/elements/1.1/", "media": "http://search.yahoo.com/mrss/",
}  # fmt: skip


def tree(name: str, view: FeedView = VIEW) -> Any:
    return etree.fromstring(FORMATS[name].write(view))


def test_an_rss_channel_links_to_itself_its_hub_and_its_page() -> None:
    channel = tree("rss").find("channel")
    links = [(e.get("rel"), e.get("href"), e.get("type")) for e in channel.findall("a:link", NS)]
    assert links == [
        ("self", "https://news.example/feeds/all.rss", "application/rss+xml"),
        ("hub", "https://hub.example/", None),
    ]
    assert channel.findtext("link") == "https://news.example/"


def test_an_atom_feed_links_to_itself_its_hub_and_its_page() -> None:
    feed = tree("atom")
    assert [(e.get("rel"), e.get("href"), e.get("type")) for e in feed.findall("a:link", NS)] == [
        ("self", "https://news.example/feeds/all.atom", "application/atom+xml"),
        ("hub", "https://hub.example/", None),
        ("alternate", "https://news.example/", "text/html"),
    ]
    assert feed.findtext("a:author/a:name", None, NS) == "The Harbour Paper"


def test_atom_entries_say_what_their_link_and_content_are() -> None:
    entry = tree("atom").find("a:entry", NS)
    assert [dict(e.attrib) for e in entry.findall("a:link", NS)] == [
        {"href": "https://news.example/1", "rel": "alternate", "type": "text/html"}
    ]
    assert entry.find("a:content", NS).get("type") == "html"
    assert entry.findtext("a:summary", None, NS) == "1 < 2"
    assert entry.get("{http://www.w3.org/XML/1998/namespace}lang") == "de"
    assert [dict(e.attrib) for e in entry.findall("a:category", NS)] == [
        {"term": "africa", "label": "Africa", "scheme": "https://news.example/feeds/category"},
        {"term": "africa", "label": "Africa", "scheme": "https://news.example/feeds/tag"},
    ]


def test_an_atom_entry_always_has_something_to_read() -> None:
    entry = tree("atom", replace(VIEW, items=(replace(ITEM, html="", summary=""),))).find("a:entry", NS)
    assert entry.findtext("a:summary", None, NS) == "AT&T <b>"


def test_rss_items_say_who_wrote_them_when_they_changed_and_all_their_text() -> None:
    item = tree("rss").find("channel/item")
    assert [e.text for e in item.findall("dc:creator", NS)] == ["Ana", "Bo"]
    assert item.findtext("content:encoded", None, NS) == "<p>1 &lt; 2</p>"
    assert item.findtext("description") == "1 &lt; 2"  # HTML in there
    assert [e.tag for e in item].index("description") < [e.tag for e in item].index(f"{{{NS['content']}}}encoded")
    assert item.findtext("pubDate") == "Mon, 14 Jul 2025 05:00:01 +0000"
    assert item.findtext("a:updated", None, NS) == "2025-07-14T06:00:01Z"
    assert [(e.text, e.get("domain")) for e in item.findall("category")] == [
        ("Africa", "https://news.example/feeds/category"),
        ("Africa", "https://news.example/feeds/tag"),
    ]
    thumbnail = item.find("media:thumbnail", NS)
    assert dict(thumbnail.attrib) == {"url": "https://news.example/i.jpg", "width": "1200", "height": "630"}


def test_enclosures_say_the_length_that_their_source_gave() -> None:
    unknown = Enclosure("https://news.example/film.mp4", "video/mp4")
    known = Enclosure("https://news.example/a.mp3", "audio/mpeg", 2_000_001)
    view = replace(
        VIEW, items=(replace(ITEM, enclosures=(unknown, known)), replace(VIEW.items[1], enclosures=(unknown,)))
    )
    first, second = tree("rss", view).iter("item")
    assert [dict(e.attrib) for e in first.iter("enclosure")] == [
        {"url": known.url, "length": "2000001", "type": "audio/mpeg"}
    ]
    assert list(second.iter("enclosure")) == []  # RSS would have to make up a length
    links = tree("atom", view).find("a:entry", NS).findall("a:link[@rel='enclosure']", NS)
    assert [dict(link.attrib) for link in links] == [
        {"href": unknown.url, "rel": "enclosure", "type": "video/mp4"},
        {"href": known.url, "rel": "enclosure", "type": "audio/mpeg", "length": "2000001"},
    ]
    assert json.loads(FORMATS["json"].write(view))["items"][0]["attachments"] == [
        {"url": unknown.url, "mime_type": "video/mp4"},
        {"url": known.url, "mime_type": "audio/mpeg", "size_in_bytes": 2_000_001},
    ]
    for name, fmt in FORMATS.items():
        assert faults(name, fmt.write(view)) == []


def test_an_rss_guid_is_a_permalink_only_if_it_is_one() -> None:
    guids = [(e.text, e.get("isPermaLink")) for e in tree("rss").iter("guid")]
    assert guids == [("https://news.example/1", "true"), ("urn:x:2", "false")]


def test_rss_titles_read_alike_whether_taken_as_text_or_as_html() -> None:
    body = FORMATS["rss"].write(VIEW)
    assert b"<title>AT&#x26;T &#x3C;b" in body
    assert b"&amp;T" not in body
    assert read("rss", body)[0].title == "AT&T <b>"


def test_items_stand_as_they_were_given() -> None:
    for name, fmt in FORMATS.items():
        assert [r.url for r in read(name, fmt.write(VIEW))] == ["https://news.example/1", "https://news.example/2"]


def test_json_feed_fields() -> None:
    feed = json.loads(FORMATS["json"].write(VIEW))
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    assert feed["feed_url"] == "https://news.example/feeds/all.json"
    assert feed["hubs"] == [{"type": "WebSub", "url": "https://hub.example/"}]
    assert feed["items"][0]["tags"] == ["Africa"]
    assert feed["items"][0]["date_modified"] == "2025-07-14T06:00:01Z"


def test_dates_are_english_in_every_locale_and_leave_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object) -> str:
        raise AssertionError("the locale of the whole process was touched")

    monkeypatch.setattr(locale, "setlocale", touched)
    threads = [threading.Thread(target=FORMATS["rss"].write, args=(VIEW,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert FORMATS["rss"].write(VIEW).count(b"Mon, 14 Jul 2025 05:00:01 +0000") == 3
    assert rfc822(datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)) == "Thu, 29 Feb 2024 23:59:59 +0000"


def test_an_item_that_the_library_refuses_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tidying lets through: the others stay."""
    library_id = feedgen.entry.FeedEntry.title

    def picky(self: Any, title: str | None = None) -> Any:
        if title == "refused":
            raise ValueError("All strings must be XML compatible")
        return library_id(self, title)

    bad = replace(ITEM, id="urn:bad", title="refused")
    view = replace(VIEW, items=(*VIEW.items, bad))
    good = {name: FORMATS[name].write(VIEW) for name in ("rss", "atom")}
    monkeypatch.setattr(feedgen.entry.FeedEntry, "title", picky)
    assert {name: FORMATS[name].write(view) for name in ("rss", "atom")} == good


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("https://x.example/a b?q=ü#ä", "https://x.example/a%20b?q=%C3%BC#%C3%A4"),
        ("https://x.example/%20/a", "https://x.example/%20/a"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        (" https://x.example/\x00a\n", "https://x.example/a"),
    ],
)
def test_links_become_ascii(given: str, made: str) -> None:
    assert web_url(given) == made


@pytest.mark.parametrize(
    "url", ["", "x", "//x.example/", "javascript:alert(1)", "data:text/html,x", "https://", "ftp://x/"]
)
def test_links_are_web_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        web_url(url)


def test_ids_stay_as_frozen_unless_no_reader_could_take_them() -> None:
    ids = ["urn:uuid:60a76c80-d399-11d9-b93c-0003939e0af6", "tag:x.example,2025:1", "https://x.example/?p=1", "17", ""]
    tidied = [tidy(replace(VIEW, items=(replace(ITEM, id=i),))).items[0].id for i in ids]
    assert tidied == [*ids[:3], ITEM.url, ITEM.url]


def test_text_is_cleaned_and_cut() -> None:
    assert clean("a\x00b\ud800c\ufffed\x85e😀\t\n") == "abcd\x85e😀\t\n"
    assert line("  a\n b\x0b  ", 10) == "a b"
    assert line("x" * 11, 10) == "x" * 9 + "…"


# ----------------------------------------------------------------------------- the self-check sees what is wrong

DEFECTS = {
    "rss": [
        (b"<channel>", b"<chanel>"),
        (b"<guid", b"<gid"),
        (b">urn:x:2<", b">https://news.example/1<"),
        (b"05:00:01 +0000</pubDate>", b"05:00:01</pubDate>"),
        (b"05:00:01 +0000</lastBuildDate>", b"</lastBuildDate>"),
        (b'rel="self"', b'rel="sefl"'),
        (b"<link>https://news.example/2", b"<link>javascript:alert(1)//"),
        (b'version="2.0"', b'version="3.0"'),
    ],
    "atom": [
        (b"2005/Atom", b"2005/atom"),
        (b"</feed>", b"<feed>"),
        (b"<id>urn:x:2</id>", b""),
        (b"<id>https://news.example/feeds/all</id>", b""),
        (b"06:00:01+00:00</updated>", b"06:00:01</updated>"),
        (b"05:00:01+00:00</published>", b"05:00:01</published>"),
        (b'href="https://news.example/2" rel="alternate"', b'href="https://news.example/2" rel="self"'),
        (b"<author><name>The Harbour Paper</name></author>", b""),
        (b">urn:x:2<", b">https://news.example/1<"),
    ],
    "json": [
        (b'"items":', b'"itens":'),
        (b'"id":"urn:x:2",', b""),
        (b"06:00:01Z", b"yesterday"),
        (b'"content_html"', b'"content_htm"'),
        (b'"title":"AT&T <b>",', b""),
        (b'"feed_url"', b'"feed_uri"'),
        (b"}", b""),
    ],
}


@pytest.mark.parametrize(("name", "old", "new"), [(n, old, new) for n, pairs in DEFECTS.items() for old, new in pairs])
def test_the_self_check_sees(name: str, old: bytes, new: bytes) -> None:
    body = FORMATS[name].write(VIEW)
    assert FORMATS[name].check(body) == []
    assert old in body
    assert FORMATS[name].check(body.replace(old, new)) != []


def test_a_memo_asks_for_what_it_lacks_and_keeps_what_was_asked_for_last() -> None:
    memo: Memo[str, int] = Memo(3, lambda key, _: len(key))
    asked: list[list[str]] = []

    def make(keys: list[str]) -> list[int]:
        asked.append(keys)
        return [ord(key) for key in keys]

    for keys in ("ab", "abba", "ca", "db", "a"):
        assert memo.all_of(keys, make) == [ord(key) for key in keys]
    assert asked == [["a", "b"], ["c"], ["d"], ["a"]]  # d took the room of a
