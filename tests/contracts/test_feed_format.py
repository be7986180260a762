"""What every feed format promises, whatever it looks like inside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from digest.feeds import BODY_MAX, FORMATS, TITLE_MAX
from digest.types import FeedItem, FeedView, Image, TopicKind, TopicRef
from tests.feed_readers import faults, read

T = datetime(2025, 7, 14, 5, 0, 1, tzinfo=UTC)
AFRICA = TopicRef(TopicKind.CATEGORY, "africa", "Africa & Middle East")
CLIMATE = TopicRef(TopicKind.TAG, "climate", "Climate <change>")


def item(n: int = 1, **fields: object) -> FeedItem:
    url = f"https://news.example/articles/{n}"
    known = FeedItem(
        id=url, url=url, title=f"Headline {n}", published=T - timedelta(hours=n), updated=T - timedelta(hours=n),
        html=f"<p>Body <b>{n}</b>.</p>", summary=f"Summary {n}.",
    )  # fmt: skip
    return replace(known, **fields)


FULL = item(
    1,
    title="Q&A: why 3 < 4 – “naïve” 😀",
    updated=T,
    summary='Tom & Jerry say: 1 < 2 and "done".',
    html='<p>Body &amp; soul: ]]&gt; ]]> <a href="https://x.example/?a=1&amp;b=2">link</a></p>',
    authors=("Ana Núñez", "Bo"),
    topics=(AFRICA, CLIMATE),
    image=Image("https://news.example/i.jpg", 1200, 630, "alt"),
    language="de",
)
NEIGHBOURS = (item(2), item(3, id="urn:uuid:60a76c80-d399-11d9-b93c-0003939e0af6", authors=("Cy",), topics=(CLIMATE,)))
VIEW = FeedView(
    url="https://news.example/feeds/tag/climate", title="Climate & more", home_url="https://news.example/",
    description="Everything on climate", language="en", updated=T, items=(FULL, *NEIGHBOURS),
    hubs=("https://hub.example/",), icon_url="https://news.example/icon.png", publisher="The Harbour Paper",
)  # fmt: skip


@pytest.fixture(params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_goes_in_is_what_a_reader_gets(name: str) -> None:
    body = FORMATS[name].write(VIEW)
    assert faults(name, body) == []
    assert FORMATS[name].check(body) == []
    first, *_ = got = read(name, body)
    assert [(r.id, r.url) for r in got] == [(i.id, i.url) for i in VIEW.items]
    assert (first.title, first.published, first.updated) == (FULL.title, FULL.published, FULL.updated)
    assert first.authors == FULL.authors
    assert [n for n, _ in first.topics] == [AFRICA.name, CLIMATE.name]
    assert {k for _, k in first.topics} in ({"category", "tag"}, {""})
    assert first.html == FULL.html
    assert first.image == "https://news.example/i.jpg"
    plain = {FULL.summary, FULL.summary.replace("&", "&amp;").replace("<", "&lt;")}  # an RSS description is HTML
    assert first.summary in plain


def test_an_empty_feed_is_a_feed(name: str) -> None:
    body = FORMATS[name].write(replace(VIEW, items=(), description="", title="", language="", icon_url=""))
    assert faults(name, body) == []
    assert FORMATS[name].check(body) == []
    assert read(name, body) == []


@pytest.mark.parametrize("fields", [{"html": ""}, {"summary": ""}, {"html": "", "summary": ""}, {"title": " \x0b"}])
def test_parts_may_be_missing(name: str, fields: dict[str, str]) -> None:
    body = FORMATS[name].write(replace(VIEW, items=(item(7, **fields), *NEIGHBOURS)))
    assert faults(name, body) == []
    assert FORMATS[name].check(body) == []
    first, *rest = read(name, body)
    assert first.title
    assert [r.title for r in rest] == ["Headline 2", "Headline 3"]


# ----------------------------------------------------------------------------- a hostile article costs itself alone

CHANGED = {  # written, with what is wrong taken out
    "control characters": {"title": "a\x00b\x0bc\x1b\ufffe\uffff", "summary": "\x08", "html": "<p>\x0c</p>"},
    "lone surrogates": {"title": "a\ud800b", "html": "<p>\udfff</p>", "authors": ("\udc80",), "id": "https://x/\udc80"},
    "cdata end": {"title": "]]>", "summary": "]]>", "html": "]]><![CDATA[ ]]&gt;"},
    "2 MB title": {"title": "x" * 2_000_000},
    "script": {"title": "<script>alert(1)</script>", "summary": "<script>alert(1)</script>"},
    "entities": {"title": "<!DOCTYPE x [<!ENTITY y 'z'>]>&y;", "summary": "&y;", "html": "&y;<!-- "},
    "huge body": {"html": "<p>" + "x" * BODY_MAX},
    "bad image": {"image": Image("javascript:alert(1)", -1, None)},
    "bad language": {"language": "no such tag"},
    "bad id": {"id": "tag:with space"},
    "nameless topics": {"topics": (TopicRef(TopicKind.TAG, "\x00", "\x01"), TopicRef(TopicKind.TAG, "t", "\x01"))},
    "wide link": {"url": "https://bücher.example/a b/ü?q=ü", "id": "urn:x:1"},
}
DROPPED = {
    "script link": {"url": "javascript:alert(1)"},
    "no link": {"url": ""},
    "broken link": {"url": "http://[::1"},
    "naive date": {"published": datetime(2025, 1, 1)},
    "no date": {"updated": None},
    "date outside the calendar": {"published": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))},
    "no title at all": {"title": None},
    "topics that are none": {"topics": ("x",)},
}


@pytest.mark.parametrize("case", [*CHANGED, *DROPPED])
def test_a_hostile_article_changes_nothing_but_itself(name: str, case: str) -> None:
    hostile = item(9, **(CHANGED | DROPPED)[case])
    fmt = FORMATS[name]
    alone = fmt.write(replace(VIEW, items=NEIGHBOURS))
    body = fmt.write(replace(VIEW, items=(NEIGHBOURS[0], hostile, NEIGHBOURS[1])))
    assert faults(name, body) == []
    assert fmt.check(body) == []
    if case in DROPPED:
        assert body == alone
        return
    got = read(name, body)
    assert len(got) == 3
    assert [got[0], got[2]] == read(name, alone)
    assert len(got[1].title) <= TITLE_MAX
    assert len(body) < len(alone) + 10_000
    assert b"\x00" not in body


def test_an_id_stands_once(name: str) -> None:
    body = FORMATS[name].write(replace(VIEW, items=(item(1), item(2, id=item(1).id), item(3))))
    assert [r.title for r in read(name, body)] == ["Headline 1", "Headline 3"]


text = st.text(st.characters(blacklist_categories=()), max_size=40)
hostile_items = st.builds(
    item,
    st.integers(1, 50),
    title=text,
    summary=text,
    html=text,
    id=text | st.just("https://news.example/frozen"),
    authors=st.lists(text, max_size=2).map(tuple),
    topics=st.lists(st.builds(TopicRef, st.sampled_from(TopicKind), text, text), max_size=2).map(tuple),
    language=st.none() | text,
    image=st.none() | st.builds(Image, text.map("https://news.example/".__add__), st.integers(), st.none()),
    published=st.datetimes(timezones=st.just(UTC)),
    updated=st.datetimes(timezones=st.just(UTC)),
)


@given(items=st.lists(hostile_items, max_size=4), title=text, description=text)
@hypothesis_settings(max_examples=60)
def test_anything_gives_a_valid_feed(items: list[FeedItem], title: str, description: str) -> None:
    view = replace(VIEW, items=(*items, item(99)), title=title, description=description)
    urls = []
    for name, fmt in FORMATS.items():
        body = fmt.write(view)
        assert faults(name, body) == []
        assert fmt.check(body) == []
        urls.append([r.url for r in read(name, body)])
    assert urls[0] == urls[1] == urls[2]
    assert urls[0][-1] == item(99).url


# ----------------------------------------------------------------------------- same view, same bytes

_PRINT = """
import hashlib, sys
from tests.contracts.test_feed_format import FORMATS, VIEW
sys.stdout.write(hashlib.sha256(b"".join(f.write(VIEW) for f in FORMATS.values())).hexdigest())
"""


def _digest_elsewhere(seed: str, zone: str) -> str:
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", _PRINT], env=env, cwd=root, capture_output=True, text=True, check=True)
    return done.stdout


def test_same_view_same_bytes_in_every_process() -> None:
    assert (
        len({_digest_elsewhere(seed, zone) for seed, zone in [("0", "UTC"), ("1", "Asia/Tokyo"), ("77", "UTC")]}) == 1
    )


def test_same_view_same_bytes_at_every_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = FORMATS[name].write(VIEW)
    time.sleep(1.1)  # feedgen by itself writes the present second
    assert FORMATS[name].write(VIEW) == before


def test_every_format_is_named_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "adding.md").read_text()
    assert "## A feed format" in manual
    assert all(f"`{name}`" in manual for name in FORMATS)
