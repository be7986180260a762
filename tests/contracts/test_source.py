"""What every kind of source promises: the same articles from every form, and a bad one costs itself alone."""

from __future__ import annotations

import atexit
import contextlib
import gzip
import http.server
import json
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from digest.errors import SourceError
from digest.fetch import Fetcher
from digest.sources import KINDS
from digest.text import canonical_url, clean, clean_title, slugify
from digest.types import CleanArticle, Fetched, RawArticle, Skipped, TopicKind

DATA = Path(__file__).parents[1] / "data" / "same-articles"
EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
CATEGORIES = sorted({slugify(name) for article in EXPECTED for name in article["categories"]})


@dataclass(frozen=True)
class Form:
    """One form of the 30 articles: its files, what it can say, and how to write a document of it ourselves."""

    kind: str
    files: tuple[str, ...]
    tells_kinds: bool = False
    updated: bool = True
    image: bool = True
    guid: bool = True
    summary: bool = True
    remote: bool = True
    options: tuple[tuple[str, str], ...] = ()


FORMS = {
    "wxr": Form("wxr", ("wxr.xml.gz",), tells_kinds=True, image=False),
    "wordpress": Form("wordpress", ("wp-posts-1.json.gz", "wp-posts-2.json.gz"), tells_kinds=True),
    "rss2": Form("feed", ("rss2.xml.gz", "rss2-paged-2.xml.gz"), updated=False),
    "rss1": Form("feed", ("rss1.rdf.gz",), updated=False, image=False, guid=False, summary=False),
    "atom": Form("feed", ("atom.xml.gz",), image=False),
    "json": Form("jsonfeed", ("feed.json.gz",)),
    "markdown": Form(
        "markdown", ("markdown.tar.gz",), tells_kinds=True, image=False, guid=False, remote=False,
        options=(("url", "https://capitalcities.example/:year/:month/:day/:slug/"),),
    ),
}  # fmt: skip
REMOTE = [name for name, form in FORMS.items() if form.remote]
KNOWN = {"known_categories": CATEGORIES}


@dataclass
class Limits:
    timeout_s: float = 5.0
    max_bytes: int = 10_000_000
    allow_hosts: tuple[str, ...] = ("127.0.0.1",)


@pytest.fixture(scope="module")
def fetcher() -> Iterator[Fetcher]:
    made = Fetcher(Limits())
    yield made
    made.close()


@cache
def place(file: str) -> Path:
    """Where a form's file lies; a folder is packed, and unpacked once."""
    if not file.endswith(".tar.gz"):
        return DATA / file
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(DATA / file) as packed:
        packed.extractall(folder, filter="data")
    return Path(folder) / file.removesuffix(".tar.gz")


def read(kind: str, location: Path | str, fetcher: Fetcher, **options: Any) -> list[RawArticle | Skipped]:
    return list(KINDS[kind](str(location), options, fetcher).fetch({}).items)


def articles(items: list[RawArticle | Skipped]) -> list[tuple[RawArticle, CleanArticle]]:
    made = [(raw, clean(raw)) for raw in items if isinstance(raw, RawArticle)]
    return [(raw, cleaned) for raw, cleaned in made if isinstance(cleaned, CleanArticle)]


def straight(text: str) -> str:
    """WordPress's API gives titles as they are printed, with curly quotes."""
    return text.translate(str.maketrans("‘’“”", "''\"\""))


def test_every_kind_has_a_form_here_and_a_name() -> None:
    assert {form.kind for form in FORMS.values()} == set(KINDS)
    assert all(source.kind == kind for kind, source in KINDS.items())


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_articles(name: str, fetcher: Fetcher) -> None:
    form = FORMS[name]
    items = [
        item for file in form.files for item in read(form.kind, place(file), fetcher, **KNOWN, **dict(form.options))
    ]
    found = {made.canonical_url: (raw, made) for raw, made in articles(items)}
    assert len(found) == len(items) == len(EXPECTED)
    for expected in EXPECTED:
        raw, made = found[canonical_url(expected["url"]) or ""]
        assert raw.guid == expected["guid"] or not form.guid
        assert straight(made.title) == straight(clean_title(expected["title"]))
        assert raw.authors == (expected["author"],)
        assert raw.published_at == datetime.fromisoformat(expected["published"])
        if form.updated:
            assert raw.updated_at == datetime.fromisoformat(expected["updated"])
        if form.image:
            assert made.image is not None
            assert made.image.url == expected["image"]
        assert made.excerpt
        assert not (form.summary and expected["summary"]) or expected["summary"].startswith(made.excerpt.rstrip("…"))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_topics(name: str, fetcher: Fetcher) -> None:
    form = FORMS[name]
    items = [
        item for file in form.files for item in read(form.kind, place(file), fetcher, **KNOWN, **dict(form.options))
    ]
    found = {made.canonical_url: raw for raw, made in articles(items)}
    for expected in EXPECTED:
        categories = {slugify(c) for c in expected["categories"]}
        tags = {slugify(t) for t in expected["tags"]}
        topics = found[canonical_url(expected["url"]) or ""].topics
        assert len({(t.kind, t.slug) for t in topics}) == len(topics)
        if not form.tells_kinds:  # a label that is both counts as the category it is known to be
            categories |= tags & set(CATEGORIES)
            tags -= set(CATEGORIES)
        assert {t.slug for t in topics if t.kind is TopicKind.CATEGORY} == categories
        assert {t.slug for t in topics if t.kind is TopicKind.TAG} == tags


def test_bodies_agree_between_the_forms(fetcher: Fetcher) -> None:
    texts: dict[str, set[str]] = {}
    for form in FORMS.values():
        for file in form.files:
            for _, made in articles(read(form.kind, place(file), fetcher, **dict(form.options))):
                texts.setdefault(made.canonical_url, set()).add(made.body_text)
    assert len(texts) == len(EXPECTED)
    assert {url: len(found) for url, found in texts.items() if len(found) != 1} == {}


# ----------------------------------------------------------------------------- locations


@pytest.fixture
def plain(tmp_path: Path) -> Callable[[str], Path]:
    """The first file of a form, unpacked."""

    def unpack(name: str) -> Path:
        source = place(FORMS[name].files[0])
        if source.is_dir():
            return Path(shutil.copytree(source, tmp_path / source.name))
        path = tmp_path / source.stem
        path.write_bytes(gzip.decompress(source.read_bytes()))
        return path

    return unpack


@pytest.mark.parametrize("name", FORMS)
def test_a_path_a_file_address_and_a_packed_file_say_the_same(
    name: str, plain: Callable[[str], Path], fetcher: Fetcher
) -> None:
    path, kind = plain(name), FORMS[name].kind
    items = read(kind, path, fetcher)
    assert items == read(kind, path.as_uri(), fetcher) == read(kind, place(FORMS[name].files[0]), fetcher)
    assert items


@pytest.mark.parametrize("name", FORMS)
def test_what_has_not_changed_is_not_read_again(name: str, plain: Callable[[str], Path], fetcher: Fetcher) -> None:
    path, kind = plain(name), FORMS[name].kind

    def fetch(state: Any) -> Fetched:
        return KINDS[kind](str(path), {}, fetcher).fetch(json.loads(json.dumps(dict(state))))

    first = fetch({})
    assert not first.not_modified
    assert len(list(first.items)) > 1
    again = fetch(first.state)
    assert again.not_modified
    assert list(again.items) == []
    file = min(path.iterdir()) if path.is_dir() else path
    file.write_bytes(file.read_bytes() + b"\n")
    assert len(list(fetch(first.state).items)) > 1


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize("packed", [False, True])
def test_over_http_the_same_and_conditional(
    name: str, packed: bool, plain: Callable[[str], Path], tmp_path: Path, fetcher: Fetcher
) -> None:
    path = plain(name)
    if packed:
        path = Path(shutil.copy(DATA / FORMS[name].files[0], tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Handler(*a, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    with server:
        source = KINDS[FORMS[name].kind](f"http://127.0.0.1:{server.server_address[1]}/{path.name}", {}, fetcher)
        fetched = source.fetch({})
        there = {raw.guid for raw, _ in articles(list(fetched.items))}
        assert source.fetch(fetched.state).not_modified
        server.shutdown()
    assert there == {raw.guid for raw, _ in articles(read(FORMS[name].kind, path, fetcher))}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "content",
    [
        b"", b"   \n", b"<!doctype html><html><body>Please log in</body></html>", b"\x00\x01\x02" * 100, b"[1, 2]",
        b"null", b"<?xml version='1.0'?><data><row/></data>", b"\x1f\x8bbroken", b"PK\x03\x04zip", b"[" * 100_000,
        b"<a>" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_source_is_one_sentence(kind: str, content: bytes, tmp_path: Path, fetcher: Fetcher) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read(kind, path, fetcher)
    assert caught.value.code in ("not_a_feed", "not_wxr", "not_wordpress", "unreadable")
    assert "thing" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_is_one_sentence(kind: str, tmp_path: Path, fetcher: Fetcher) -> None:
    for location, code in (
        (tmp_path / "nothing.xml", "not_found"),
        (tmp_path, "unreadable"),
        ("ftp://x.example/feed", "bad_address"),
        ("http://127.0.0.2:9/feed", "bad_address" if kind == "markdown" else "address_refused"),
    ):
        with pytest.raises(SourceError) as caught:
            read(kind, location, fetcher)
        assert caught.value.code == code


# ----------------------------------------------------------------------------- bad articles


def written(kind: str, bodies: list[tuple[str, str]]) -> bytes:
    """A document of (title, body) pairs, as a careless program writes it: nothing is checked, only markup escaped."""
    if kind == "markdown":
        n, (title, body) = len(bodies) - 1, bodies[-1]
        head = f"---\ntitle: {json.dumps(title, ensure_ascii=False)}\nurl: https://x.example/{n}\n---\n"
        return (head + body).encode("utf-8", "surrogatepass")
    if kind == "jsonfeed":
        items = [
            {"id": f"urn:x:{n}", "url": f"https://x.example/{n}", "title": title, "content_html": body}
            for n, (title, body) in enumerate(bodies)
        ]
        return json.dumps({"version": "https://jsonfeed.org/version/1.1", "title": "T", "items": items}).encode()
    if kind == "wordpress":
        posts = [
            {"id": n + 1, "link": f"https://x.example/{n}", "title": {"rendered": title}, "content": {"rendered": body}}
            for n, (title, body) in enumerate(bodies)
        ]
        return json.dumps(posts).encode()
    more = "<wp:post_type>post</wp:post_type><wp:status>publish</wp:status>" if kind == "wxr" else ""
    parts = "".join(
        f"<item><title>{title}</title><link>https://x.example/{n}</link><guid>urn:x:{n}</guid>{more}"
        f"<content:encoded>{escape(body)}</content:encoded></item>"
        for n, (title, body) in enumerate(bodies)
    )
    head = (
        '<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/" '
        'xmlns:wp="http://wordpress.org/export/1.2/"><channel><title>T</title>'
    )
    return f"{head}{parts}</channel></rss>".encode("utf-8", "surrogatepass")


def put(kind: str, path: Path, bodies: list[tuple[str, str]]) -> None:
    """What `written` makes, at *path*: one document, or a folder of them."""
    if kind != "markdown":
        path.write_bytes(written(kind, bodies))
        return
    path.mkdir()
    for n in range(len(bodies)):
        (path / f"{n}.md").write_bytes(written(kind, bodies[: n + 1]))


HOSTILE = {
    "control characters": ("A\x00\x0b\x1fB", "<p>body \x0b\x08</p>"),
    "references to control characters": ("A&#11;&#x1F;&#0;B", "<p>&#11;</p>"),
    "lone surrogates": ("A\ud800B", "<p>\udfff</p>"),
    "references to surrogates": ("A&#xD800;&#55357;B", "<p>x</p>"),
    "a title of 2 MB": ("word " * 400_000, "<p>x</p>"),
    "script": ("<![CDATA[<script>alert(1)</script>A]]>", "<script>alert(1)</script><img src=x onerror=alert(1)>"),
    "the end of CDATA": ("A ]]&gt; B", "<p>]]> x ]]></p>"),
    "20,000 div": ("Deep", "<div>" * 20_000 + "x"),
    "a body of 3 MB": ("Long", "<p>" + "word " * 600_000),
    "names of HTML's entities": ("A&nbsp;&eacute;&nosuch;B", "<p>&nbsp;&nosuch;</p>"),
    "bare ampersands": ("AT&T & B", "<p>a & b</p>"),
    "direction overrides": ("A\u202eB", "<p>\u2066x</p>"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_article_changes_nothing_but_itself(kind: str, name: str, tmp_path: Path, fetcher: Fetcher) -> None:
    good = [(f"Good {n}", f"<p>Body {n} &amp; more.</p>") for n in range(4)]
    path = tmp_path / "hostile"
    put(kind, path, [*good[:2], HOSTILE[name], *good[2:]])
    made = articles(read(kind, path, fetcher))
    by_url = {article.url: article for _, article in made}
    for n in (0, 1, 3, 4):
        article = by_url[f"https://x.example/{n}"]
        number = n if n < 2 else n - 1
        assert (article.title, article.body_html) == (f"Good {number}", f"<p>Body {number} &amp; more.</p>")
    bad = by_url["https://x.example/2"]
    assert len(bad.title) <= 300
    assert "<script" not in bad.body_html
    assert (bad.title + bad.body_html).encode("utf-8")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_document_never_raises_but_a_source_error(
    kind: str, data: st.DataObject, tmp_path: Path, fetcher: Fetcher
) -> None:
    document = bytearray(written(kind, [(f"Title {n}", f"<p>Body {n} é</p>") for n in range(3)]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(document) - 1))
        document[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=6))
    path = tmp_path / "damaged"
    path.write_bytes(bytes(document[: data.draw(st.integers(0, len(document)))]))
    items: list[RawArticle | Skipped] = []
    with contextlib.suppress(SourceError):
        items = read(kind, path, fetcher)
    assert all(isinstance(item, RawArticle | Skipped) for item in items)
    assert len(articles(items)) <= len(items)
