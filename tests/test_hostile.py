"""What a browser makes of cleaned bodies: on a page, in a feed reader and in a mail it runs nothing and loads pictures
alone. Chromium is asked, not an expression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

import feedparser
import pytest
from lxml import etree
from lxml import html as lxml_html
from playwright.sync_api import Browser, Route, sync_playwright

from digest.feeds import FORMATS
from digest.rendering import Renderer
from digest.text import clean, sanitize
from digest.types import ArticleCard, CleanArticle, Dress, FeedItem, FeedView, Image, RawArticle, Section, StoryCard
from tests.hostile import CORPUS, OWN, beside
from tests.mail_sample import VIEW

pytestmark = pytest.mark.slow

HOME = "http://news.example/2025/07/a-title/"
WHEN = datetime(2025, 7, 14, tzinfo=UTC)
SETS = ["own", "beside"] if CORPUS.is_dir() else ["own"]

WATCH = """
window.hits = 0; window.ran = () => { window.hits++ };
for (const name of ['alert', 'confirm', 'prompt', 'print', 'xss', 'open']) window[name] = window.ran;
"""
# Handlers of events that only a reader would cause are caused here; then the document is searched.
PROVOKE = r"""() => {
  const bad = [];
  for (const name of ['click', 'submit']) document.addEventListener(name, (e) => e.preventDefault(), true);
  const names = ['click', 'mouseover', 'pointerenter', 'focus', 'load', 'error', 'toggle', 'begin', 'start', 'input',
                 'animationstart', 'submit', 'beforetoggle'];
  for (const node of document.body.querySelectorAll('*')) {
    for (const attribute of node.attributes)
      if (/^on|^style$|^ping$|^srcset$|^background$/i.test(attribute.name)) bad.push(node.outerHTML.slice(0, 120));
    for (const name of ['href', 'src', 'cite', 'action', 'data', 'poster', 'formaction', 'xlink:href']) {
      const value = node.getAttribute(name);
      if (value === null) continue;
      let scheme = 'broken:';
      try { scheme = new URL(value, document.baseURI).protocol } catch {}
      if (!['http:', 'https:', 'mailto:', 'broken:'].includes(scheme)) bad.push(node.outerHTML.slice(0, 120));
    }
    for (const name of names) node.dispatchEvent(new Event(name, {bubbles: false, cancelable: true}));
  }
  const elements = 'script,style,link,meta,base,iframe,frame,object,embed,applet,form,input,button,textarea,select,' +
                   'video,audio,source,svg,math,template,dialog,portal,noscript';
  for (const node of document.body.querySelectorAll(elements)) bad.push(node.outerHTML.slice(0, 120));
  return bad;
}"""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def look(browser: Browser, html: str) -> tuple[int, list[str], list[str]]:
    """(calls of ran(), what was found that could act, what was loaded that is no picture) when *html* is opened."""
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []

    def answer(route: Route) -> None:
        request = route.request
        if request.url == HOME and request.is_navigation_request() and request.frame.parent_frame is None:
            route.fulfill(body=html, content_type="text/html; charset=utf-8")
            return
        if request.resource_type != "image":
            asked.append(f"{request.resource_type} {request.url}")
        route.abort()

    page.route("**/*", answer)
    page.add_init_script(WATCH)
    page.goto(HOME, wait_until="load")
    bad = page.evaluate(PROVOKE)
    page.wait_for_timeout(300)
    hits = page.evaluate("window.hits")
    context.close()
    return hits, bad, asked


def document(bodies: Sequence[str]) -> str:
    articles = "".join(f"<article>{body}</article>\n" for body in bodies)
    return f"<!doctype html><html><head><title>x</title></head><body>{articles}</body></html>"


def given(name: str) -> list[str]:
    return OWN if name == "own" else beside()


@pytest.fixture(scope="module")
def cleaned() -> dict[str, list[CleanArticle]]:
    made: dict[str, list[CleanArticle]] = {}
    for name in SETS:
        raws = (
            RawArticle(url=HOME, title=body, body_html=body, excerpt_html=body, image=Image("/a.jpg", alt=body))
            for body in given(name)
        )
        made[name] = [c for c in map(clean, raws) if isinstance(c, CleanArticle)]
    assert len(made["own"]) == len(OWN)
    return made


ACTS = {
    "<script>ran()</script>": "runs",
    "<img src=x onerror=ran()>": "runs",
    "<p onmouseover=ran()>x</p>": "runs",
    "<a href='javascript:ran()'>x</a>": "is found",
    "<form action='javascript:ran()'></form>": "is found",
    "<link rel=stylesheet href='https://elsewhere.example/a.css'>": "stylesheet",
    "<script src='https://elsewhere.example/a.js'></script>": "script",
    "<iframe src='https://elsewhere.example/'></iframe>": "document",
    "<video src='https://elsewhere.example/a.mp4'></video>": "media",
}


@pytest.mark.parametrize("body", ACTS)
def test_uncleaned_they_would_act(browser: Browser, body: str) -> None:
    """So that the tests below can fail: each way of acting is seen."""
    hits, bad, asked = look(browser, document([body]))
    seen = ["runs"] * bool(hits) + ["is found"] * bool(bad) + [a.split()[0] for a in asked]
    assert ACTS[body] in seen


@pytest.mark.parametrize("name", SETS)
def test_on_a_page_nothing_runs_and_only_pictures_load(
    browser: Browser, cleaned: dict[str, list[CleanArticle]], name: str
) -> None:
    assert look(browser, document([c.body_html for c in cleaned[name]])) == (0, [], [])
    texts = (f'<h1>{escape(c.title)}</h1><p title="{escape(c.excerpt)}">{escape(c.excerpt)}</p>' for c in cleaned[name])
    assert look(browser, document(list(texts))) == (0, [], [])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("extension", ["rss", "atom"])
def test_in_a_feed_reader_that_trusts_us_nothing_runs(
    browser: Browser, cleaned: dict[str, list[CleanArticle]], name: str, extension: str
) -> None:
    items = tuple(
        FeedItem(f"urn:x:{n}", c.url, c.title, WHEN, WHEN, html=c.body_html, summary=c.excerpt, image=c.image)
        for n, c in enumerate(cleaned[name])
    )
    view = FeedView("http://news.example/feeds/all", "x", "http://news.example/", "x", "en", WHEN, items)
    body = FORMATS[extension].write(view)
    etree.fromstring(body, etree.XMLParser(resolve_entities=False))
    entries = feedparser.parse(body, sanitize_html=False, resolve_relative_uris=False).entries
    assert len(entries) == len(items)
    parts = [part for e in entries for part in (*e.get("content", ()), e.get("summary_detail")) if part]
    shown = [escape(p["value"]) if p["type"] == "text/plain" else p["value"] for p in parts]
    assert len(shown) >= len(items)
    assert look(browser, document(shown)) == (0, [], [])


def test_in_a_mail_nothing_runs(browser: Browser, cleaned: dict[str, list[CleanArticle]]) -> None:
    """A mail's own style sheet is ours; what articles say is text in it."""
    cards = [
        ArticleCard(n, c.title, c.url, c.excerpt, c.image, (c.title[:80],), WHEN, c.title[:80], c.word_count)
        for n, c in enumerate(cleaned["own"], 1)
    ]
    sections = (Section(cards[0].title, tuple(StoryCard(card, (card,)) for card in cards)),)
    for name in Renderer().layouts():
        html = Renderer().layout(name).open(VIEW, Dress()).assemble(sections).html
        hits, _, asked = look(browser, html)
        assert (hits, asked) == (0, []), name
        nodes = [node for node in lxml_html.document_fromstring(html).iter() if isinstance(node.tag, str)]
        assert not {node.tag for node in nodes} & {"script", "iframe", "svg", "form", "object", "embed", "base"}
        assert not [name for node in nodes for name in node.attrib if name.startswith("on")]


@pytest.mark.parametrize("name", SETS)
def test_cleaning_them_twice_changes_nothing(cleaned: dict[str, list[Any]], name: str) -> None:
    for body in given(name):
        once = sanitize(body, HOME)
        assert sanitize(once, HOME) == once, body
