"""What each kind of source makes of what it finds."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from digest.errors import SourceError
from digest.fetch import Fetcher, Response
from digest.sources import KINDS
from digest.sources.mending import Mended, mended
from digest.sources.reading import Labels, people, person, read_date, topic
from digest.text import clean
from digest.types import CleanArticle, Enclosure, Fetched, Image, RawArticle, Skipped, TopicKind, TopicRef

ROOT = Path(__file__).parents[1]
CORPUS = Path(os.environ.get("DIGEST_CORPUS", ROOT.parent / "shared" / "corpus"))


class Pages(Fetcher):
    """Answers from a dictionary: what comes over the wire is the business of test_fetch."""

    def __init__(self, pages: dict[str, Response | bytes]) -> None:
        self.pages, self.asked = pages, []

    def get(self, url: str, **conditions: Any) -> Response:  # type: ignore[override]
        self.asked.append((url, conditions.get("etag"), conditions.get("last_modified")))
        page = self.pages[url]
        return page if isinstance(page, Response) else Response(200, url, {}, page)


def fetch(kind: str, data: bytes | str, **options: Any) -> Fetched:
    data = data.encode() if isinstance(data, str) else data
    url = "https://news.example/feed/"
    return KINDS[kind](url, options, Pages({url: data})).fetch({})


def items(kind: str, data: bytes | str, **options: Any) -> list[RawArticle]:
    found = list(fetch(kind, data, **options).items)
    assert all(isinstance(item, RawArticle) for item in found), found
    return found  # type: ignore[return-value]


def category(slug: str, name: str, parent: str | None = None) -> TopicRef:
    return TopicRef(TopicKind.CATEGORY, slug, name, parent)


def tag(slug: str, name: str) -> TopicRef:
    return TopicRef(TopicKind.TAG, slug, name)


# ----------------------------------------------------------------------------- dates, names, labels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sat, 06 Sep 2025 17:00:00 +0200", "2025-09-06T15:00:00"),
        ("Sat, 06 Sep 2025 17:00:00 GMT", "2025-09-06T17:00:00"),
        ("Sat, 06 Sep 2025 17:00:00 EST", "2025-09-06T22:00:00"),
        ("Sat, 06 Sep 2025 17:00:00 CEST", "2025-09-06T15:00:00"),
        ("Sat, 06 Sep 2025 17:00:00", "2025-09-06T17:00:00"),
        ("Sam, 06 Sep 2025 17:00:00 +0000", "2025-09-06T17:00:00"),
        ("6 Sep 2025 17:00 +0000", "2025-09-06T17:00:00"),
        ("2025-09-06T17:00:00Z", "2025-09-06T17:00:00"),
        ("2025-09-06T17:00:00.123456-04:00", "2025-09-06T21:00:00"),
        ("2025-09-06 17:00:00", "2025-09-06T17:00:00"),
        ("2025-09-06 17:00:00 +0200", "2025-09-06T15:00:00"),
        ("2025-09-06", "2025-09-06T00:00:00"),
        ("1757178000", "2025-09-06T17:00:00"),
        ("0000-00-00 00:00:00", None),
        ("Mon, 30 Nov -0001 00:00:00 +0000", None),
        ("Thu, 01 Jan 1970 00:00:00 +0000", None),
        ("2199-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59-12:00", None),
        ("06/09/2025", None),
        ("20250906", None),
        ("Sat, 06 Sep 2025 25:61:00 +0000", None),
        ("Sat, 06 Sep 2025 17:00:00 +9999", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("x" * 100_000, None),
    ],
)
def test_dates(text: str | None, expected: str | None) -> None:
    assert read_date(text) == (expected and datetime.fromisoformat(expected + "+00:00"))


def test_a_date_without_an_offset_is_in_the_zone_of_its_source() -> None:
    new_york = ZoneInfo("America/New_York")
    assert read_date("2025-09-06 17:00:00", new_york) == datetime(2025, 9, 6, 21, tzinfo=UTC)
    assert read_date("6 Sep 2025 17:00:00", new_york) == datetime(2025, 9, 6, 21, tzinfo=UTC)
    assert read_date("6 Sep 2025 17:00:00 GMT", new_york) == datetime(2025, 9, 6, 17, tzinfo=UTC)
    with pytest.raises(SourceError, match="Europe/Berlin"):
        fetch("feed", RSS.format(""), timezone="Europe/Berlyn")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Jane Doe", "Jane Doe"),
        ("jane@x.example (Jane Doe)", "Jane Doe"),
        ("Jane Doe <jane@x.example>", "Jane Doe"),
        ("jane@x.example", None),
        ("jane@x.example, Jane", "Jane"),
        ("ple (E F", None),
        ("<b>Jane</b> &amp; John", "Jane & John"),
        ("Dr. J. (Jay) Doe", "Dr. J. (Jay) Doe"),
        ("-", None),
        (None, None),
    ],
)
def test_a_person_never_brings_an_address(text: str | None, name: str | None) -> None:
    assert person(text) == name


def test_people_come_once_in_their_order() -> None:
    assert people(["Jane Doe", "", "JANE DOE", "A B"]) == ("Jane Doe", "A B")


def test_labels_are_tags_unless_the_site_is_known_better() -> None:
    given = [("World &amp; Asia", ""), ("Sport, Football", ""), ("World & asia", ""), (" ", "")]
    assert Labels({}).refs(given) == (tag("world-asia", "World & Asia"), tag("sport-football", "Sport, Football"))
    assert Labels({"known_categories": ["world-asia"]}).refs(given)[0] == category("world-asia", "World & Asia")
    assert Labels({"categories_are": "category"}).refs([("A", "")]) == (category("a", "A"),)
    assert Labels({"split_categories": True}).refs([("Sport, Football", "x")]) == (
        tag("sport", "Sport"),
        tag("football", "Football"),
    )
    default = Labels({"default_categories": ["news"]})
    assert default.refs([("News", "")]) == (category("news", "News"),)
    assert topic(TopicKind.TAG, "", "") is None


# ----------------------------------------------------------------------------- WXR

ITEM = """<item><title>{title}</title><link>https://news.example/{id}/</link><pubDate>{pub}</pubDate>
<dc:creator><![CDATA[jane]]></dc:creator><guid isPermaLink="false">https://news.example/?p={id}</guid>
<content:encoded><![CDATA[{body}]]></content:encoded><excerpt:encoded><![CDATA[]]></excerpt:encoded>
<wp:post_id>{id}</wp:post_id><wp:post_date>{local}</wp:post_date><wp:post_date_gmt>{gmt}</wp:post_date_gmt>
<wp:status>{status}</wp:status><wp:post_type>{type}</wp:post_type><wp:post_password>{password}</wp:post_password>
{more}</item>"""
HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:excerpt="http://wordpress.org/export/{v}/excerpt/"
 xmlns:content="http://purl.org/rss/1.0/modules/content/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:wp="http://wordpress.org/export/{v}/"><channel><title>News &amp; more</title><language>en-GB</language>
<wp:wxr_version>{v}</wp:wxr_version>"""
GONE = "0000-00-00 00:00:00"


def item(number: int = 1, **fields: str) -> str:
    given = {
        "title": f"Title {number}", "pub": "Sat, 06 Sep 2025 17:00:00 +0000", "local": "2025-09-06 13:00:00",
        "gmt": "2025-09-06 17:00:00", "status": "publish", "type": "post", "password": "", "body": "<p>Body</p>",
        "more": "",
    }  # fmt: skip
    return ITEM.format(id=number, **{**given, **fields})


def export(*parts: str, v: str = "1.2") -> str:
    return HEAD.format(v=v) + "".join(parts) + "</channel></rss>"


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "9.9"])
def test_wxr_of_any_version(version: str) -> None:
    fetched = fetch("wxr", export(item(7), v=version))
    assert (fetched.title, fetched.language) == ("News & more", "en-GB")
    (raw,) = fetched.items
    assert isinstance(raw, RawArticle)
    assert (raw.native_id, raw.guid, raw.url) == ("7", "https://news.example/?p=7", "https://news.example/7/")
    assert (raw.title, raw.body_html, raw.authors) == ("Title 7", "<p>Body</p>", ("jane",))
    assert raw.published_at == datetime(2025, 9, 6, 17, tzinfo=UTC)


def test_wxr_without_its_namespaces_is_read_too() -> None:
    bare = export(item(7)).replace("xmlns:", "data-")
    (raw,) = fetch("wxr", bare).items
    assert isinstance(raw, RawArticle)
    assert (raw.native_id, raw.body_html) == ("7", "<p>Body</p>")


def test_wxr_tells_why_a_post_is_left_out_and_passes_over_what_is_no_post() -> None:
    statuses = ["draft", "pending", "private", "trash", "auto-draft", "inherit"]
    others = [item(20 + n, type=kind) for n, kind in enumerate(("attachment", "page", "nav_menu_item", "revision"))]
    found = list(fetch("wxr", export(*(item(n, status=s) for n, s in enumerate(statuses, 1)), *others)).items)
    assert [i.reason for i in found if isinstance(i, Skipped)] == [f"status_{s}" for s in statuses]
    assert next(i.item for i in found if isinstance(i, Skipped)) == "Title 1"
    assert len(found) == len(statuses)


def test_wxr_scheduled_password_and_sticky() -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    future, secret, sticky = items("wxr", export(
        item(1, status="future", gmt=f"{later:%Y-%m-%d %H:%M:%S}"),
        item(2, password="s3cret"),
        item(3, more="<wp:is_sticky>1</wp:is_sticky>"),
    ))  # fmt: skip
    assert future.published_at == later
    assert (secret.withheld, sticky.withheld) == (True, False)
    assert (secret.sticky, sticky.sticky) == (False, True)


def test_wxr_dates_come_in_their_order() -> None:
    first, by_feed, by_clock, undated, changed = items("wxr", export(
        item(1),
        item(2, gmt=GONE, pub="Sat, 06 Sep 2025 18:00:00 +0000"),
        item(3, gmt=GONE, pub="Mon, 30 Nov -0001 00:00:00 +0000", local="2025-09-06 20:00:00"),
        item(4, gmt=GONE, pub="", local=GONE),
        item(5, more="<wp:post_modified_gmt>2025-09-07 08:00:00</wp:post_modified_gmt>"),
    ))  # fmt: skip
    assert first.published_at == datetime(2025, 9, 6, 17, tzinfo=UTC)
    assert by_feed.published_at == datetime(2025, 9, 6, 18, tzinfo=UTC)
    # the first item showed that the site is at -04:00
    assert by_clock.published_at == datetime(2025, 9, 7, 0, tzinfo=UTC)
    assert undated.published_at is None
    assert (first.updated_at, changed.updated_at) == (None, datetime(2025, 9, 7, 8, tzinfo=UTC))


def test_wxr_people_by_name_and_never_by_address() -> None:
    head = (
        "<wp:author><wp:author_login>jane</wp:author_login><wp:author_email>j@x.example</wp:author_email>"
        "<wp:author_display_name><![CDATA[Jane Doe]]></wp:author_display_name></wp:author>"
    )
    second = '<category domain="author" nicename="cap-john"><![CDATA[John &amp; Co]]></category>'
    mail = item(2).replace("[jane]", "[jim@x.example]")
    one, two = items("wxr", export(head, item(1, more=second), mail))
    assert one.authors == ("Jane Doe", "John & Co")
    assert two.authors == ("jim",)


def test_wxr_terms() -> None:
    head = (
        "<wp:category><wp:category_nicename>africa</wp:category_nicename><wp:category_parent></wp:category_parent>"
        "<wp:cat_name><![CDATA[Africa]]></wp:cat_name></wp:category>"
        "<wp:category><wp:category_nicename>kenya</wp:category_nicename><wp:category_parent>africa</wp:category_parent>"
        "<wp:cat_name><![CDATA[Kenya &amp; region]]></wp:cat_name></wp:category>"
        "<wp:tag><wp:tag_slug>%e4%b8%ad</wp:tag_slug><wp:tag_name><![CDATA[中]]></wp:tag_name></wp:tag>"
        "<wp:term><wp:term_taxonomy>nav_menu</wp:term_taxonomy><wp:term_slug>m</wp:term_slug></wp:term>"
    )
    labels = (
        '<category domain="category" nicename="kenya"><![CDATA[KENYA]]></category>'
        "<category><![CDATA[KENYA]]></category>"
        '<category domain="post_tag" nicename="%e4%b8%ad"><![CDATA[中]]></category>'
        '<category domain="tag"><![CDATA[Old]]></category>'
        '<category domain="tag" nicename="old"><![CDATA[Old]]></category>'
        '<category domain="post_format" nicename="post-format-aside"><![CDATA[Aside]]></category>'
    )
    fetched = fetch("wxr", export(head, item(1, more=labels)))
    kenya = category("kenya", "Kenya & region", "africa")
    assert list(fetched.topics) == [category("africa", "Africa"), kenya, tag("中", "中")]
    (raw,) = fetched.items
    assert isinstance(raw, RawArticle)
    assert raw.topics == (kenya, tag("中", "中"), tag("old", "Old"))


def test_wxr_featured_image_may_come_after_its_article() -> None:
    def meta(key: str, value: str) -> str:
        return f"<wp:postmeta><wp:meta_key>{key}</wp:meta_key><wp:meta_value>{value}</wp:meta_value></wp:postmeta>"

    address = "<wp:attachment_url>https://news.example/a.jpg</wp:attachment_url>"
    picture = address + meta("_wp_attachment_image_alt", "A")
    one, two = items("wxr", export(
        item(1, more=meta("_thumbnail_id", "9")), item(9, type="attachment", status="inherit", more=picture), item(2)
    ))  # fmt: skip
    assert one.image is not None
    assert (one.image.url, one.image.alt) == ("https://news.example/a.jpg", "A")
    assert two.image is None


SIZES = (
    'a:5:{s:5:"width";i:3510;s:6:"height";i:1974;s:4:"file";s:14:"2014/10/a.jpg";s:5:"sizes";a:2:{'
    's:9:"thumbnail";a:4:{s:4:"file";s:13:"a-150x150.jpg";s:5:"width";i:150;s:6:"height";i:150;s:9:"mime-type";s:1:"x";}'
    's:5:"large";a:4:{s:4:"file";s:14:"a-1024x575.jpg";s:5:"width";i:1024;s:6:"height";i:575;s:9:"mime-type";s:1:"x";}}'
    's:10:"image_meta";a:1:{s:6:"credit";s:3:"AFP";}}'
)


def attachment(number: int, address: str, **meta: str) -> str:
    more = "".join(
        f"<wp:postmeta><wp:meta_key>{key}</wp:meta_key><wp:meta_value><![CDATA[{value}]]></wp:meta_value></wp:postmeta>"
        for key, value in meta.items()
    )
    url = f"<wp:attachment_url>{address}</wp:attachment_url>"
    return item(number, type="attachment", status="inherit", more=url + more)


@pytest.mark.parametrize(
    ("details", "image"),
    [
        (SIZES, Image("https://news.example/2014/a-1024x575.jpg", 1024, 575, "A", "AFP")),
        (SIZES.replace("1024", "3900"), Image("https://news.example/2014/a.jpg", 3510, 1974, "A", "AFP")),
        (SIZES.partition('s:5:"sizes"')[0], Image("https://news.example/2014/a.jpg", 3510, 1974, "A")),
        ("", Image("https://news.example/2014/a.jpg", alt="A")),
        ("a:5:{broken", Image("https://news.example/2014/a.jpg", alt="A")),
    ],
)
def test_wxr_featured_image_in_the_size_that_fits(details: str, image: Image) -> None:
    meta = {"_wp_attachment_metadata": details, "_wp_attachment_image_alt": "A"}
    featured = "<wp:postmeta><wp:meta_key>_thumbnail_id</wp:meta_key><wp:meta_value>9</wp:meta_value></wp:postmeta>"
    picture = attachment(9, "https://news.example/2014/a.jpg", **meta)
    (raw,) = items("wxr", export(item(1, more=featured), picture))
    assert raw.image == image


# ----------------------------------------------------------------------------- WXR in parts


def parts(folder: Path, **files: str | bytes) -> str:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder)


def split(location: str) -> Fetched:
    return KINDS["wxr"](location, {}, Pages({})).fetch({})


def test_wxr_parts_come_as_people_count_and_by_a_pattern_too(tmp_path: Path) -> None:
    place = parts(tmp_path / "x", **{f"part-{n}": export(item(n)) for n in (1, 2, 9, 10, 11)}, other=export(item(7)))
    assert [i.native_id for i in split(place).items if isinstance(i, RawArticle)] == ["7", "1", "2", "9", "10", "11"]
    few = split(f"{place}/part-1*.xml").items
    assert [i.native_id for i in few if isinstance(i, RawArticle)] == ["1", "10", "11"]
    with pytest.raises(SourceError, match="no export in"):
        split(f"{place}/nothing-*.xml")


def test_wxr_parts_speak_for_each_other(tmp_path: Path) -> None:
    """People, parents and pictures stand in any part: before the article's, or after it."""
    featured = (
        "<wp:postmeta><wp:meta_key><![CDATA[_thumbnail_id]]></wp:meta_key>\n"
        "\t<wp:meta_value><![CDATA[{}]]></wp:meta_value></wp:postmeta>"
    )
    kenya = '<category domain="category" nicename="kenya">Kenya</category>'
    named = "<wp:category_nicename>kenya</wp:category_nicename><wp:cat_name>Kenya</wp:cat_name>"
    bare = f"<wp:category>{named}</wp:category>"
    tree = bare.replace("<wp:cat_name>", "<wp:category_parent>africa</wp:category_parent><wp:cat_name>")
    people = (
        "<wp:author><wp:author_login>jane</wp:author_login>"
        "<wp:author_display_name>Jane Doe</wp:author_display_name></wp:author>"
    )
    place = parts(
        tmp_path / "x",
        a=export(attachment(8, "https://news.example/8.jpg"), attachment(5, "https://news.example/5.jpg")),
        b=export(bare, *(item(n, more=featured.format(n + 6) + kenya) for n in (2, 3))),
        c=export(people, tree, attachment(9, "https://news.example/9.jpg")),
    )
    fetched = split(place)
    two, three = (i for i in fetched.items if isinstance(i, RawArticle))
    assert (two.image, three.image) == (Image("https://news.example/8.jpg"), Image("https://news.example/9.jpg"))
    assert two.authors == ("Jane Doe",)
    assert two.topics == (category("kenya", "Kenya", "africa"),) == tuple(fetched.topics)


def test_wxr_one_bad_part_stops_nothing_and_is_tried_again(tmp_path: Path) -> None:
    cut = export(item(4), item(5))
    place = parts(
        tmp_path / "x", a=export(item(1)), b="<html>Please log in", c=RSS.format("<item><title>x</title></item>"),
        d=cut[: cut.index("Title 5") + 60], e=b"\x1f\x8bbroken", f=export(item(6)),
    )  # fmt: skip
    fetched = split(place)
    found = list(fetched.items)
    assert [i.native_id for i in found if isinstance(i, RawArticle)] == ["1", "4", "6"]
    assert [i.item for i in found if isinstance(i, Skipped)] == ["b.xml", "c.xml", "e.xml", "Title 5"]
    left_out = [w.partition(": ")[2] for w in fetched.warnings if w.startswith("a part was left out")]
    assert [w.split()[0] for w in left_out] == ["b.xml", "c.xml", "e.xml"]
    assert any("d.xml ends before its end" in w for w in fetched.warnings)
    again = KINDS["wxr"](place, {}, Pages({})).fetch(dict(fetched.state))
    assert not again.not_modified
    for name in "bce":
        (tmp_path / "x" / f"{name}.xml").unlink()
    whole = split(place)
    assert len([i for i in whole.items if isinstance(i, RawArticle)]) == 3
    assert KINDS["wxr"](place, {}, Pages({})).fetch(dict(whole.state)).not_modified
    with pytest.raises(SourceError, match=r"b\.xml is no WordPress export"):
        split(parts(tmp_path / "bad", b="<html>"))


def test_wxr_classic_text_gets_its_paragraphs() -> None:
    (raw,) = items("wxr", export(item(body="One.\n\nTwo.")))
    assert raw.body_html == "<p>One.</p>\n<p>Two.</p>"


def test_wxr_that_is_cut_off_keeps_what_came() -> None:
    whole = export(*(item(n) for n in range(1, 6)))
    cut = whole[: whole.index("Title 4") + 60]
    fetched = fetch("wxr", cut)
    found = list(fetched.items)
    assert [i.native_id for i in found if isinstance(i, RawArticle)] == ["1", "2", "3"]
    assert [i.reason for i in found if isinstance(i, Skipped)] == ["unreadable"]
    assert "ends before its end" in fetched.warnings[0]


def test_wxr_with_an_item_in_pieces_keeps_the_others() -> None:
    broken = item(2).replace("</content:encoded>", "</content:wrong>")
    fetched = fetch("wxr", export(item(1), broken, item(3)))
    found = [i for i in fetched.items if isinstance(i, RawArticle)]
    assert found[0].native_id == "1"
    assert fetched.warnings


def test_wxr_in_a_wrong_charset() -> None:
    (raw,) = items("wxr", export(item(title="Grüße – ‚Welt‘")).encode("cp1252"))
    assert raw.title == "Grüße – ‚Welt‘"
    (raw,) = items("wxr", export(item(title="Grüße")).replace("UTF-8", "iso-8859-1").encode("latin-1"))
    assert raw.title == "Grüße"
    (raw,) = items("wxr", b"\xef\xbb\xbf\n" + export(item(title="Grüße")).encode())
    assert raw.title == "Grüße"
    (raw,) = items("wxr", export(item(title="Grüße")).replace("UTF-8", "UTF-16").encode("utf-16"))
    assert raw.title == "Grüße"


def test_a_plain_feed_is_no_wxr_and_an_empty_export_is_one() -> None:
    with pytest.raises(SourceError, match="its kind is feed"):
        fetch("wxr", RSS.format("<item><title>x</title></item>"))
    assert list(fetch("wxr", export()).items) == []


def test_mending_does_not_depend_on_how_the_bytes_arrive() -> None:
    text = "<a>x&nbsp;y &amp; z&#11;&#x1F; AT&T &nosuch; &#8217; é\x0b</item> end</a>"

    class OneByOne:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self, size: int) -> bytes:
            byte, self.data = self.data[:1], self.data[1:]
            return byte

    slow = Mended(OneByOne(text.encode()))  # type: ignore[arg-type]
    pieces = b"".join(iter(slow.read, b"")).decode()
    assert pieces.replace("\ue0a6", "&amp;") == mended(text.encode()).decode()
    assert mended(text.encode()).decode() == "<a>x\xa0y &amp; z AT&amp;T &amp;nosuch; &#8217; é</item> end</a>"
    assert slow.closings == 1


BIG = """
import sys
from digest.sources import KINDS
from tests.memory import peak_kb
fetched = KINDS["wxr"](sys.argv[1], {}, None).fetch({})
before = peak_kb()
count = sum(1 for _ in fetched.items)
print(count, peak_kb() - before)
"""


def test_memory_does_not_grow_with_the_export(tmp_path: Path) -> None:
    path = tmp_path / "big.xml"
    with path.open("w") as file:
        file.write(HEAD.format(v="1.2"))
        file.writelines(item(n, body="<p>word</p>" * 2_000) for n in range(1, 2_001))  # 44 MB
        file.write("</channel></rss>")
    done = subprocess.run(
        [sys.executable, "-c", BIG, path], capture_output=True, text=True, check=True, timeout=120, cwd=ROOT
    )
    count, grown_kb = (int(n) for n in done.stdout.split())
    assert count == 2_000
    assert grown_kb < 15_000


# ----------------------------------------------------------------------------- RSS, Atom

RSS = """<?xml version="1.0"?><rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:content="http://purl.org/rss/1.0/modules/content/" xmlns:media="http://search.yahoo.com/mrss/">
<channel><title>News</title><link>https://news.example/</link><language>en</language>{}</channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xml:lang="de" xml:base="https://news.example/blog/">
<title>News</title><updated>2025-09-06T17:00:00Z</updated>{}</feed>"""


def rss(*parts: str, **options: Any) -> list[RawArticle]:
    return items("feed", RSS.format("".join(f"<item>{part}</item>" for part in parts)), **options)


def cleaned(raw: RawArticle) -> CleanArticle:
    made = clean(raw)
    assert isinstance(made, CleanArticle)
    return made


def test_a_feed_says_what_it_is_called() -> None:
    fetched = fetch("feed", RSS.format(""))
    assert (fetched.title, fetched.language, list(fetched.items)) == ("News", "en", [])
    assert fetch("feed", ATOM.format("")).language == "de"


def test_titles_of_feeds_are_html_but_for_atoms_plain_ones() -> None:
    (raw,) = rss("<title>Tom &amp;amp; Jerry &lt;b&gt;x&lt;/b&gt;</title><link>/1</link>")
    assert cleaned(raw).title == "Tom & Jerry x"
    plain, html = items("feed", ATOM.format(
        '<entry><title>The &lt;b&gt; tag</title><link href="1"/></entry>'
        '<entry><title type="html">&lt;b&gt;x&lt;/b&gt; &amp;amp; y</title><link href="2"/></entry>'
    ))  # fmt: skip
    assert (cleaned(plain).title, cleaned(html).title) == ("The <b> tag", "x & y")


def test_relative_links_of_feeds() -> None:
    body = '<description>&lt;a href="b"&gt;x&lt;/a&gt;</description>'
    (raw,) = rss(f"<title>x</title><link>/a?utm_source=rss</link>{body}")
    assert cleaned(raw).url == "https://news.example/a"
    (raw,) = items("feed", ATOM.format(
        '<entry><title>x</title><link href="a"/><content type="html">&lt;img src="b.jpg"&gt;</content></entry>'
    ))  # fmt: skip
    assert cleaned(raw).url == "https://news.example/blog/a"
    assert 'src="https://news.example/blog/b.jpg"' in cleaned(raw).body_html


def test_an_id_that_repeats_inside_a_document_is_none() -> None:
    same = "<title>x</title><guid isPermaLink='false'>same</guid><link>/{}</link>"
    one, two, other = rss(same.format(1), same.format(2), "<title>y</title><guid isPermaLink='false'>own</guid>")
    assert (one.guid, two.guid, other.guid) == (None, None, "own")
    (long,) = rss(f"<title>x</title><guid>{'g' * 5_000}</guid>")
    assert long.guid is not None
    assert long.guid.startswith("urn:sha256:")


def test_updated_is_only_what_was_really_given() -> None:
    given, neither, only = items("feed", ATOM.format(
        "<entry><title>a</title><published>2025-09-01T00:00:00Z</published><updated>2025-09-02T00:00:00Z</updated></entry>"
        "<entry><title>b</title><published>2025-09-01T00:00:00Z</published></entry>"
        "<entry><title>c</title><updated>2025-09-02T00:00:00Z</updated></entry>"
    ))  # fmt: skip
    first, second = datetime(2025, 9, 1, tzinfo=UTC), datetime(2025, 9, 2, tzinfo=UTC)
    assert (given.published_at, given.updated_at) == (first, second)
    assert (neither.published_at, neither.updated_at) == (first, None)
    assert (only.published_at, only.updated_at) == (second, second)


def test_authors_of_feeds_are_names() -> None:
    names = "<dc:creator>A B</dc:creator><dc:creator>C D</dc:creator><author>x@y.example (E F)</author>"
    (raw,) = rss(f"<title>x</title>{names}")
    assert raw.authors[:2] == ("A B", "C D")
    assert "@" not in "".join(raw.authors)
    (raw,) = rss("<title>x</title><author>x@y.example (E F)</author>")
    assert raw.authors == ("E F",)
    author = "<author><name>N</name><email>n@x.example</email></author>"
    (raw,) = items("feed", ATOM.format(f"<entry><title>x</title>{author}</entry>"))
    assert raw.authors == ("N",)


def test_bodies_and_summaries_of_feeds() -> None:
    both, only, text = rss(
        "<title>x</title><description>Short.</description><content:encoded>&lt;p&gt;Long&lt;/p&gt;</content:encoded>",
        "<title>x</title><description>&lt;p&gt;Only&lt;/p&gt;</description>",
        "<title>x</title>",
    )
    assert (both.body_html, both.excerpt_html) == ("<p>Long</p>", "Short.")
    assert (only.body_html, only.excerpt_html) == ("<p>Only</p>", "")
    assert (text.body_html, text.excerpt_html) == ("", "")
    content = '<content type="text">a &lt;b&gt;\n\nc</content>'
    (plain,) = items("feed", ATOM.format(f"<entry><title>x</title>{content}</entry>"))
    assert plain.body_html == "<p>a &lt;b&gt;</p>\n<p>c</p>"


def test_images_of_feeds() -> None:
    made = rss(
        '<title>x</title><media:content url="/s.jpg" medium="image" width="10"/>'
        '<media:content url="/l.jpg" medium="image" width="900" height="x"/>'
        '<media:content url="/v.mp4" type="video/mp4"/>',
        '<title>x</title><media:thumbnail url="/t.jpg"/>',
        '<title>x</title><enclosure url="/e.png" type="image/png" length="1"/>'
        '<enclosure url="/a.mp3" type="audio/mpeg"/>',
        '<title>x</title><enclosure url="/a.mp3" type="audio/mpeg"/>',
    )
    assert [m.image and m.image.url for m in made] == ["/l.jpg", "/t.jpg", "/e.png", None]
    assert made[0].image is not None
    assert (made[0].image.width, made[0].image.height) == (900, None)


def test_labels_of_feeds() -> None:
    (raw,) = rss("<title>x</title><category>Africa</category><category>Trade</category>", known_categories=["africa"])
    assert raw.topics == (category("africa", "Africa"), tag("trade", "Trade"))
    (raw,) = items("feed", ATOM.format(
        '<entry><title>x</title><category term="trade-war" label="Trade War"/>'
        '<category scheme="http://schemas.google.com/g/2005#kind" term="http://schemas.google.com/blogger/2008/kind#post"/>'
        "</entry>"
    ))  # fmt: skip
    assert raw.topics == (tag("trade-war", "Trade War"),)


def test_a_web_page_is_said_to_be_one() -> None:
    with pytest.raises(SourceError, match="a web page") as caught:
        fetch("feed", "<!DOCTYPE html><html><body>Log in</body></html>")
    assert caught.value.code == "not_a_feed"


def test_a_feed_that_is_not_well_formed_gives_what_it_has() -> None:
    fetched = fetch("feed", RSS.format("<item><title>A</title></item><item><title>B</b></item>"))
    assert next(i.title for i in fetched.items if isinstance(i, RawArticle)) == "A"
    assert "not well-formed" in fetched.warnings[0]
    again = fetch("feed", RSS.format("<item><title>A&nbsp;B \x0b AT&T</title><link>/</link></item>"))
    assert [cleaned(i).title for i in again.items if isinstance(i, RawArticle)] == ["A B AT&T"]
    assert again.warnings == []


# ----------------------------------------------------------------------------- JSON Feed


def test_enclosures_of_every_kind_come_with_the_length_that_their_source_gives() -> None:
    sound = Enclosure("https://news.example/a.mp3", "audio/mpeg", 1234)
    (of_rss,) = rss(
        '<title>x</title><link>/a</link><enclosure url="/a.mp3" length="1234" type="Audio/MPEG; codecs=x"/>'
        '<enclosure url="/a.mp3" length="5" type="audio/mpeg"/><enclosure url="/b.jpg" length="7" type="image/jpeg"/>'
        '<enclosure url="javascript:x" length="7" type="audio/mpeg"/><enclosure url="/c.pdf" length="-1" type="pdf"/>'
    )
    (of_atom,) = items("feed", ATOM.format(
        '<entry><title>x</title><link href="/a"/>'
        '<link rel="enclosure" href="/a.mp3" type="audio/mpeg" length="1234"/></entry>'
    ))  # fmt: skip
    (of_json,) = items("jsonfeed", json_feed({
        "id": "1", "url": "/a", "title": "x",
        "attachments": [{"url": "/a.mp3", "mime_type": "audio/mpeg", "size_in_bytes": 1234}, {"url": 7}, "x"],
    }))  # fmt: skip
    meta = "<wp:postmeta><wp:meta_key>enclosure</wp:meta_key><wp:meta_value>{}</wp:meta_value></wp:postmeta>"
    of_wxr, broken = items("wxr", export(
        item(1, more=meta.format(f"{sound.url}\n1234\naudio/mpeg\n")), item(2, more=meta.format("https://x.example/"))
    ))  # fmt: skip
    assert [cleaned(raw).enclosures for raw in (of_rss, of_atom, of_json, of_wxr)] == [(sound,)] * 4
    assert broken.enclosures == ()
    (unknown,) = rss('<title>x</title><link>/a</link><enclosure url="/a.mp3" length="many" type="audio/mpeg"/>')
    assert cleaned(unknown).enclosures == (sound._replace(length=0),)


def json_feed(*entries: object, **more: object) -> str:
    return json.dumps({"version": "https://jsonfeed.org/version/1.1", "title": "News", "items": entries, **more})


def test_json_feed_of_both_versions() -> None:
    new, old = items("jsonfeed", json_feed(
        {"id": 7, "url": "/a", "title": "The <b> tag", "content_html": "<p>x</p>",
         "authors": [{"name": "A"}, {"name": "B"}],
         "date_published": "2025-09-06T17:00:00Z", "tags": ["Trade", 5], "language": "de", "summary": "a < b"},
        {"id": "8", "external_url": "https://x.example/b", "content_text": "a < b\n\nc", "banner_image": "/b.jpg"},
        author={"name": "Site"}, language="en",
    ))  # fmt: skip
    assert (new.guid, new.authors, new.language, new.topics) == ("7", ("A", "B"), "de", (tag("trade", "Trade"),))
    made = cleaned(new)
    assert (made.title, made.url, made.excerpt) == ("The <b> tag", "https://news.example/a", "a < b")
    assert new.published_at == datetime(2025, 9, 6, 17, tzinfo=UTC)
    assert (old.url, old.authors, old.body_html) == ("https://x.example/b", ("Site",), "<p>a &lt; b</p>\n<p>c</p>")
    assert old.image is not None
    assert old.image.url == "/b.jpg"


def test_json_feed_with_a_description_of_its_own() -> None:
    one = {"id": "1", "url": "/a", "title": "x", "content_html": "<p>Body", "description": "a < b"}
    plain, both = items("jsonfeed", json_feed(one, {**one, "id": "2", "summary": "Short."}))
    assert (cleaned(plain).excerpt, cleaned(both).excerpt) == ("a < b", "Short.")


def test_json_feed_with_nonsense_in_it() -> None:
    odd = {"id": None, "url": 7, "title": [], "tags": "x", "authors": "y"}
    found = list(fetch("jsonfeed", json_feed(None, "x", odd, {})).items)
    assert [i.reason for i in found if isinstance(i, Skipped)] == ["unreadable", "unreadable"]
    assert len(found) == 4


def test_json_feed_follows_its_pages_over_http_and_not_in_circles() -> None:
    base = "https://news.example/"
    pages: dict[str, Response | bytes] = {
        f"{base}{n}": json_feed({"id": str(n)}, next_url=f"{n + 1}" if n != 3 else "1").encode() for n in range(1, 4)
    }
    site = Pages(pages)
    found = list(KINDS["jsonfeed"](f"{base}1", {}, site).fetch({}).items)
    assert [i.guid for i in found if isinstance(i, RawArticle)] == ["1", "2", "3"]
    endless: dict[str, Response | bytes] = {
        f"{base}{n}": json_feed({"id": str(n)}, next_url=f"/{n + 1}").encode() for n in range(1, 20)
    }
    assert len(list(KINDS["jsonfeed"](f"{base}1", {}, Pages(endless)).fetch({}).items)) == 5
    pages[f"{base}2"] = b"broken"
    fetched = KINDS["jsonfeed"](f"{base}1", {}, Pages(pages)).fetch({})
    assert len(list(fetched.items)) == 1
    assert "further page" in fetched.warnings[0]


# ----------------------------------------------------------------------------- state


def test_a_permanent_move_is_believed_the_third_time() -> None:
    old, new = "https://old.example/feed", "https://new.example/feed"
    body = RSS.format("").encode()
    site = Pages({
        old: Response(200, new, {"etag": '"a"', "last-modified": "x"}, body, moved_to=new),
        new: Response(200, new, {}, body),
    })  # fmt: skip
    source, state = KINDS["feed"](old, {}, site), dict[str, Any]()
    for _ in range(5):
        state = dict(source.fetch(state).state)
    assert [url for url, _, _ in site.asked] == [old, old, old, new, new]
    assert site.asked[1] == (old, '"a"', "x")
    other = KINDS["feed"](new, {}, site)
    other.fetch(state)
    assert site.asked[-1] == (new, None, None)  # what was remembered belongs to another location


def test_a_move_for_a_while_is_not_believed() -> None:
    old, new = "https://old.example/feed", "https://new.example/feed"
    body = RSS.format("").encode()
    moved, back = Response(200, new, {}, body, moved_to=new), Response(200, old, {}, body)
    site = Pages({old: moved})
    source, state = KINDS["feed"](old, {}, site), dict[str, Any]()
    for answer in (moved, moved, back, moved, moved):
        site.pages[old] = answer
        state = dict(source.fetch(state).state)
    assert [url for url, _, _ in site.asked] == [old] * 5
    assert state["moves"] == 2


def test_the_same_bytes_are_not_read_again_where_a_server_knows_no_conditions() -> None:
    url = "https://news.example/feed"
    site = Pages({url: RSS.format("").encode()})
    source = KINDS["feed"](url, {}, site)
    first = source.fetch({})
    again = source.fetch(dict(first.state))
    assert (first.not_modified, again.not_modified) == (False, True)
    site.pages[url] = RSS.format("<item><title>New</title><link>https://news.example/9</link></item>").encode()
    assert not source.fetch(dict(again.state)).not_modified


# ----------------------------------------------------------------------------- other people's files


def files(*parts: str) -> list[Path]:
    return sorted(p for p in CORPUS.joinpath(*parts).rglob("*") if p.is_file())


def test_feeds_of_the_corpus_raise_nothing_but_a_source_error() -> None:
    """Runs where the corpus lies beside the clone; the cases above hold without it."""
    outcomes: collections.Counter[str] = collections.Counter()
    for path in files("feeds-cases"):
        if path.suffix not in (".xml", ".json", ".rdf", ".gz"):
            continue
        kind = "jsonfeed" if path.suffix == ".json" else "feed"
        try:
            raws = KINDS[kind](str(path), {}, Pages({})).fetch({}).items
            found = [clean(i) if isinstance(i, RawArticle) else i for i in raws]
        except SourceError as error:
            outcomes[error.code] += 1
        else:
            outcomes["items" if found else "empty"] += 1
    assert set(outcomes) <= {"items", "empty", "not_a_feed", "unreadable"}
    assert not outcomes or outcomes["items"] > 1_300


def test_exports_of_the_corpus_raise_nothing_but_a_source_error() -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    for path in files("wxr"):
        try:
            found = list(KINDS["wxr"](str(path), {}, Pages({})).fetch({}).items)
        except SourceError as error:
            outcomes[error.code] += 1
        else:
            outcomes["items" if found else "empty"] += 1
    assert set(outcomes) <= {"items", "empty", "not_wxr"}
    assert outcomes["not_wxr"] <= 1


def test_real_feeds_give_articles_that_can_be_shown() -> None:
    for path in [*files("feeds-real", "news-sites"), *files("feeds-real", "blogs")]:
        raws = [i for i in KINDS["feed"](str(path), {}, Pages({})).fetch({}).items if isinstance(i, RawArticle)]
        assert raws, path
        assert all(isinstance(clean(raw), CleanArticle) for raw in raws), path


def test_the_export_of_2000_posts_holds_what_its_manifest_says() -> None:
    path = CORPUS / "wxr-capital" / "digitalgov-2k.xml.gz"
    if not path.exists():
        return
    manifest = json.loads(path.with_name("digitalgov-2k.manifest.json").read_text())
    now, clock = datetime.fromisoformat(manifest["now"]), ZoneInfo("America/New_York")
    found = list(KINDS["wxr"](str(path), {}, Pages({})).fetch({}).items)
    raws = [i for i in found if isinstance(i, RawArticle)]
    published = [raw for raw in raws if raw.published_at and raw.published_at <= now]
    statuses = collections.Counter(i.reason.removeprefix("status_") for i in found if isinstance(i, Skipped))
    assert {**statuses, "publish": len(published), "future": len(raws) - len(published)} == manifest["posts_by_status"]
    months = collections.Counter(f"{raw.published_at.astimezone(clock):%Y-%m}" for raw in published if raw.published_at)
    assert dict(months) == manifest["published_by_local_month"]
    tags = collections.Counter(ref.slug for raw in published for ref in raw.topics if ref.kind is TopicKind.TAG)
    assert {slug: tags[slug] for slug in manifest["published_by_tag_top60"]} == manifest["published_by_tag_top60"]
    traps = manifest["traps"]
    assert [int(raw.native_id or 0) for raw in raws if raw.withheld] == traps["password"]
    assert [int(raw.native_id or 0) for raw in raws if raw.sticky] == traps["sticky"]
    mended_ones = [int(raw.native_id or 0) for raw in raws if cleaned(raw).repaired]
    assert set(traps["broken_html"]) <= set(mended_ones)
