"""A reader's whole way in Chromium: subscribe, the mail that asks, confirm, an edition, leave by its link, come back.

Everything is real: the site on a port, mail over SMTP into the capture server, links clicked where they were sent.
Screenshots go to the test's temporary folder; set SCREENSHOTS to a folder to keep them.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from sqlalchemy import select

from digest import audience, engine
from digest import models as m
from digest.bootstrap import App
from digest.config import Settings
from digest.db import Database
from digest.web.app import server
from tests import build

pytestmark = pytest.mark.slow  # a browser

# Text against what is painted behind it, as WCAG 2.2 §1.4.3 counts.
LOW_CONTRAST = """() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(v =>
    v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paper = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.offsetParent) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(paper(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(walk.currentNode.data.trim().slice(0, 40));
  }
  return found;
}"""
# What a finger has to hit, and what a page must not do.
FACTS = """() => ({
  width: document.documentElement.scrollWidth,
  small: [...document.querySelectorAll('button, .button, input:not([type=hidden]):not([tabindex="-1"])')]
    .filter(e => e.type !== 'checkbox' && e.offsetParent && e.className !== 'link')
    .filter(e => e.getBoundingClientRect().height < 40).map(e => e.outerHTML),
  headings: document.querySelectorAll('h1').length,
})"""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def app(database: Database, settings: Settings) -> App:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = App(settings.model_copy(update={"public_url": f"http://127.0.0.1:{port}"}), database)
    with database.transaction() as session:
        build.publication(session, postal_address="1 Quay Street\nHarbourtown")
        for n in range(3):
            build.article(
                session, categories=["Climate"], tags=["ice"], title=f"Thin ice, part {n}", authors=["Ann Lee"]
            )
        build.digest(session, name="Morning Harbour")
        build.digest(session, "weekly", name="The Week at Sea", cron="0 8 * * 1", zone="Europe/Berlin")
    return app


@pytest.fixture
def site(app: App) -> Iterator[str]:
    """The site's address while it is served."""
    url = app.settings.public_url
    running = server(app, "127.0.0.1", int(url.rpartition(":")[2]))
    thread = threading.Thread(target=running.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.02)
    yield url
    running.should_exit = True
    thread.join(timeout=30)
    assert not thread.is_alive()


@pytest.fixture
def work() -> Iterator[Callable[..., Any]]:
    """Runs the publisher's work beside the browser, which keeps this thread's event loop for itself."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda call, *args: pool.submit(call, *args).result(timeout=60)


class Album:
    """Takes a picture of each page and looks at what a picture cannot be asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, page: Page, name: str) -> None:
        width = page.viewport_size["width"] if page.viewport_size else 0
        page.screenshot(path=self.folder / f"{name}-{width}.png", full_page=True)
        facts = page.evaluate(FACTS)
        assert facts["width"] <= width, f"{name} is wider than {width}"
        assert facts["small"] == []
        assert facts["headings"] == 1
        assert page.evaluate(LOW_CONTRAST) == []


@pytest.fixture
def album(tmp_path: Path) -> Album:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return Album(folder)


def status_of(app: App, address: str) -> dict[str, str]:
    with app.db.reading() as session:
        return {s["digest"]: s["status"] for s in audience.show(session, address)["subscriptions"]}


def click_in_mail(context: BrowserContext, page: Page, site: str, subject: str, link: str) -> Page:
    """Open the newest captured mail with that subject and click a link in it; returns the tab that it opened."""
    page.goto(f"{site}/captured")
    page.get_by_role("link", name=subject).first.click()
    wanted = page.frame_locator("iframe").get_by_role("link", name=link).first
    with context.expect_page() as opened:
        wanted.press("Enter")  # page and frame both scroll: a click could land where the link was
    return opened.value


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (1000, "dark")])
def test_subscribe_confirm_unsubscribe(
    browser: Browser, app: App, site: str, work: Callable[..., Any], album: Album, width: int, scheme: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, complaints = context.new_page(), list[str]()
    context.on("console", lambda message: complaints.append(message.text))

    page.goto(site)
    album.take(page, "home")
    page.get_by_role("link", name="Subscribe to The Week at Sea").click()
    expect(page.get_by_label("The Week at Sea")).to_be_checked()
    page.get_by_label("Morning Harbour").check()
    page.get_by_label("Your e-mail address").fill("bo@@example.org")
    page.get_by_role("button", name="Subscribe").click()
    expect(page.get_by_role("alert")).to_contain_text("may not hold @")
    album.take(page, "subscribe")
    assert page.get_by_label("Morning Harbour").is_checked()
    page.get_by_label("Your e-mail address").fill("bo@example.org")
    page.get_by_role("button", name="Subscribe").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Check your inbox")
    album.take(page, "asked")
    assert status_of(app, "bo@example.org") == {"morning": "pending", "weekly": "pending"}

    work(engine.send, app)
    tab = click_in_mail(context, page, site, "Please confirm", "Yes, subscribe me")
    album.take(page, "captured")
    tab.wait_for_load_state()
    album.take(tab, "confirm")
    assert status_of(app, "bo@example.org") == {"morning": "pending", "weekly": "pending"}
    tab.get_by_label("The Week at Sea").uncheck()
    tab.get_by_role("button", name="Yes, subscribe me").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("You are subscribed")
    album.take(tab, "confirmed")
    assert status_of(app, "bo@example.org") == {"morning": "active", "weekly": "pending"}

    done, _ = work(engine.run, app, "morning", build.T)
    assert (done.trouble, done.left) == (None, 0)
    with app.db.reading() as session:
        assert session.scalars(select(m.Attempt.outcome)).all() == ["accepted"]
    tab = click_in_mail(context, page, site, "Thin ice", "View in browser")
    expect(tab.get_by_role("heading", level=1)).to_have_text("Morning Harbour")
    expect(tab.get_by_role("link", name="Thin ice, part 0", exact=True)).to_be_visible()
    album.take(tab, "edition")
    tab = click_in_mail(context, page, site, "Thin ice", "Unsubscribe")
    album.take(tab, "unsubscribe")
    assert status_of(app, "bo@example.org")["morning"] == "active"
    tab.get_by_role("button", name="Unsubscribe").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("You are unsubscribed")
    album.take(tab, "unsubscribed")
    assert status_of(app, "bo@example.org")["morning"] == "unsubscribed"
    tab.get_by_role("button", name="Subscribe again").click()
    expect(tab.get_by_role("status")).to_have_text("You are subscribed to Morning Harbour again.")
    album.take(tab, "preferences")
    assert status_of(app, "bo@example.org")["morning"] == "active"
    for name, path in (("topics", "/topics"), ("archive", "/archive"), ("captured-list", "/captured")):
        page.goto(site + path)
        album.take(page, name)
    assert [c for c in complaints if "Content Security Policy" in c] == []  # our own policy is in nobody's way
    context.close()


def test_the_keyboard_alone_will_do(browser: Browser, app: App, site: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site}/subscribe")
    for _ in range(5):
        page.keyboard.press("Tab")  # skip link, name, three links
    for key in ("Tab", "Space", "Tab", "Tab"):  # the first box, past the second, to the address
        page.keyboard.press(key)
    page.keyboard.type("bo@example.org")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Check your inbox")
    with app.db.reading() as session:
        assert session.scalars(select(m.Digest.slug).join(m.Subscription)).all() == ["morning"]
    context.close()


def test_a_form_on_another_site_gets_nowhere(browser: Browser, app: App, site: str) -> None:
    with app.db.transaction() as session:
        digest = session.scalars(select(m.Digest).where(m.Digest.slug == "morning")).one()
        reader = build.subscription(session, digest).subscriber_id
    target = f"{site}/preferences/{app.tokens.make('preferences', (reader,))}"
    context = browser.new_context()
    page = context.new_page()
    page.goto("data:text/html," + f"<form method=post action='{target}'><button name=all value=1>Win</button></form>")
    with page.expect_response(target) as answer:
        page.get_by_role("button", name="Win").click()
    assert answer.value.status == 403
    with app.db.reading() as session:
        assert session.scalars(select(m.Subscription.status)).all() == ["active"]
    context.close()
