"""The web door: what readers see and do, what nobody may, captured mail; on both databases through the real wiring."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from starlette.testclient import TestClient

from digest import audience, ledger
from digest import models as m
from digest.bootstrap import App
from digest.config import Settings
from digest.db import Database
from digest.types import ArticleCard, CaughtMail, Image
from digest.web import public
from digest.web.app import create_app
from digest.web.capture import take_apart
from digest.web.guards import host_name
from digest.web.limits import Bucket, client_key
from tests import build

T = build.T
HERE = "http://127.0.0.1:8000"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"


@pytest.fixture
def app(database: Database, settings: Settings) -> App:
    return App(settings, database)


@pytest.fixture
def client(app: App) -> TestClient:
    return visit(app)


def visit(app: App, base_url: str = HERE, peer: str = "127.0.0.1", **options: Any) -> TestClient:
    return TestClient(create_app(app), base_url, client=(peer, 50_000), follow_redirects=False, **options)


@pytest.fixture
def site(app: App) -> App:
    """A small publication: two digests, an edition each, topics, a reader of both."""
    assert app.tokens  # makes the keys, as the first start does
    with app.db.transaction() as session:
        build.publication(
            session, postal_address="1 Quay Street\nHarbourtown", footer_links=[["Imprint", "https://x.example/i"]]
        )
        climate, sports = build.topic(session, "Climate"), build.topic(session, "Sports")
        for n in range(3):
            build.article(session, categories=["Climate"], tags=["ice", "sea level"][: n + 1])
        for topic, count in (
            (climate, 3),
            (sports, 1),
            *((build.topic(session, t, kind="tag"), 2) for t in ("ice", "sea level")),
        ):
            topic.articles = count
        morning = build.digest(session, name="Morning Harbour")
        weekly = build.digest(session, "weekly", name="The Week", cron="0 8 * * 1", zone="Europe/Berlin")
        cards = [
            ArticleCard(1, "Ice melts", "https://news.example/ice", "It is getting warm.",
                        Image("https://news.example/i.jpg", 1200, 600, "Ice"), ("Ann Lee", "Bo Ek"), T, "Climate"),
            ArticleCard(2, "Ice melts, says another", "https://other.example/ice", published_at=T, category="Climate"),
            ArticleCard(3, "Harbour wins", "https://news.example/harbour", "Two to one.", None, ("Cy",), T, "Sports"),
        ]  # fmt: skip
        build.edition(session, morning, cards, sections=[climate, climate, sports], also=[2])
        build.edition(session, weekly, cards[:1], instant=T - timedelta(days=40))
        reader = build.subscriber(session, "ann@example.org")
        for digest in (morning, weekly):
            build.subscription(session, digest, reader)
    return app


class _Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def links(self) -> list[str]:
        return [a["href"] or "" for a in self.all("a")]


def seen(response: Any, status: int = 200) -> _Page:
    assert response.status_code == status, response.text
    assert "<html" in response.text
    return _Page(response.text)


def rows(database: Database) -> dict[str, Any]:
    """Everything in every table."""
    with database.reading() as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table)).all()))
            for table in m.Base.metadata.sorted_tables
        }


def statuses(database: Database) -> dict[str, str]:
    with database.reading() as session:
        found = session.execute(select(m.Digest.slug, m.Subscription.status).join(m.Subscription)).all()
    return {row.slug: row.status for row in found}


def token(app: App, purpose: str, digest: str = "morning") -> str:
    with app.db.reading() as session:
        row = session.scalars(select(m.Subscription).join(m.Digest).where(m.Digest.slug == digest)).one()
        return app.tokens.make(purpose, (row.subscriber_id if purpose == "preferences" else row.id,))


# ----------------------------------------------------------------------------- pages


def test_an_empty_publication_has_pages_too(client: TestClient) -> None:
    for path in ("/", "/archive", "/topics", "/subscribe"):
        page = seen(client.get(path))
        assert len(page.all("h1")) == 1
    assert client.get("/static/site.css").status_code == 200


def test_home_shows_what_there_is_to_get(site: App) -> None:
    page = seen(visit(site).get("/"))
    assert "The Harbour Paper" in page.text
    assert "Every day at 07:00 (UTC)" in page.text
    assert "Mondays at 08:00 (Berlin)" in page.text
    assert {"/subscribe?digest=morning", "/subscribe?digest=weekly", "/archive/morning/2025-07-14", "/feeds/all.rss",
            "/feeds/digest/weekly.json", "https://x.example/i"} <= set(page.links())  # fmt: skip
    assert "1 Quay Street" in page.text


def test_every_page_names_its_feeds(site: App) -> None:
    client = visit(site)
    for path in ("/", "/archive", "/topics", "/subscribe", "/archive/morning/2025-07-14", "/nowhere"):
        found = {a["href"] for a in _Page(client.get(path).text).all("link") if a.get("rel") == "alternate"}
        assert {f"{HERE}/feeds/all.{x}" for x in ("rss", "atom", "json")} <= found
    found = {a["href"] for a in seen(client.get("/archive/morning/2025-07-14")).all("link") if a["rel"] == "alternate"}
    assert f"{HERE}/feeds/digest/morning.atom" in found
    assert client.get("/feeds/all.atom").status_code == 200
    assert client.get("/feeds/tag/sea-level.rss").status_code == 200


def test_an_edition_in_the_browser_shows_what_the_mail_shows(site: App) -> None:
    page = seen(visit(site).get("/archive/morning/2025-07-14"))
    for text in ("Morning Harbour", "Monday 14 July 2025", "2 stories", "Climate", "Ice melts", "By Ann Lee and Bo Ek",
                 "It is getting warm.", "Also", "Ice melts, says another", "Sports", "Harbour wins"):  # fmt: skip
        assert text in page.text
    assert {"https://news.example/ice", "https://other.example/ice", "https://news.example/harbour"} <= set(
        page.links()
    )
    assert page.all("img")[0]["alt"] == "Ice"
    assert "ann@example.org" not in page.text
    assert not [link for link in page.links() if re.search(r"/(unsubscribe|preferences|confirm)/", link)]


def test_the_archive_lists_by_local_date(site: App) -> None:
    client = visit(site)
    page = seen(client.get("/archive"))
    assert page.text.index("July 2025") < page.text.index("June 2025")
    july = seen(client.get("/archive/2025/07"))
    assert "/archive/morning/2025-07-14" in july.links()
    assert "/archive/weekly/2025-06-04" not in july.links()
    assert "/archive/weekly/2025-06-04" in seen(client.get("/archive/2025/06/04")).links()
    for nowhere in ("/archive/2025/08", "/archive/2025/13", "/archive/2025/02/30", "/archive/morning/2025-07-15",
                    "/archive/evening/2025-07-14", "/archive/99999999999999999999/1"):  # fmt: skip
        seen(client.get(nowhere), 404)


def test_topics_are_a_cloud_with_counts_and_feeds(site: App) -> None:
    page = seen(visit(site).get("/topics"))
    assert {"/feeds/category/climate.atom", "/feeds/tag/sea-level.rss"} <= set(page.links())
    assert {"s1", "s2", "s3", "s4", "s5"} & {a.get("class") for a in page.all("li")}


def test_hostile_text_stays_text(app: App) -> None:
    with app.db.transaction() as session:
        build.publication(session, name=EVIL, postal_address=EVIL, footer_links=[[EVIL, "javascript:alert(3)"]],
                          logo_url="javascript:alert(4)", accent="red;}*{background:url(//evil)")  # fmt: skip
        topic = build.topic(session, "Evil")
        topic.name, topic.articles = EVIL, 3
        tag = build.topic(session, "Eviltag", kind="tag")
        tag.name, tag.articles = EVIL, 3
        digest = build.digest(session, name=EVIL)
        card = ArticleCard(
            1, EVIL, "javascript:alert(5)", EVIL, Image("javascript:alert(6)", 900, 400, EVIL), (EVIL,), T, EVIL
        )
        build.edition(
            session,
            digest,
            [card, replace(card, id=2, url="data:text/html,x")],
            also=[2],
            sections=[topic],
            subject=EVIL,
        )
        mine = build.subscription(session, digest).id
    client = visit(app)
    ledger_mail = CaughtMail(EVIL, (EVIL,), f"Subject: {EVIL}\r\nX: {EVIL}\r\n\r\n{EVIL}".encode(), T)
    with app.db.transaction() as session:
        ledger.store_captured(session, [ledger_mail])
    paths = ["/", "/archive", "/archive/morning/2025-07-14", "/topics", "/subscribe", "/captured", "/captured/1",
             "/captured/1?view=headers",
             f"/unsubscribe/{app.tokens.make('unsubscribe', (mine,))}", f"/{EVIL}"]  # fmt: skip
    pages = [client.get(path) for path in paths]
    pages.append(client.post("/subscribe", data={"digest": "morning", "email": EVIL}))
    pages.append(client.post("/subscribe", data={"digest": EVIL, "email": "a@example.org"}))
    for response in pages:
        page = _Page(response.text)
        assert "html" in dict(page.tags)
        assert not page.all("script")
        for tag, attrs in page.tags:
            assert not [name for name in attrs if name.startswith("on")], tag
            for name in ("href", "src", "action"):
                scheme = urlsplit(attrs.get(name) or "").scheme
                assert scheme in ("", "http", "https") or attrs[name] == "data:,", (tag, attrs)  # no icon
        for image in page.all("img"):
            assert image["src"] != "x"
    assert "alert(1)" in pages[2].text  # it is there, as text
    assert "evil" not in client.get("/static/site.css").text


def test_pages_are_plain_and_forms_are_labelled(site: App) -> None:
    client = visit(site)
    tokens = [f"/{p}/{token(site, p)}" for p in ("confirm", "preferences", "unsubscribe")]
    for path in ("/", "/archive", "/topics", "/subscribe", "/archive/morning/2025-07-14", *tokens):
        page = seen(client.get(path))
        assert len(page.all("h1")) == 1, path
        assert not page.all("script")
        assert not [a for _, a in page.tags if "style" in a]
        labelled = {a["for"] for a in page.all("label") if "for" in a}
        for field in page.all("input"):
            assert field.get("type") in ("hidden", "checkbox") or field["id"] in labelled


# ----------------------------------------------------------------------------- subscribing


def ask(client: TestClient, address: str = "bo@example.org", digest: Any = "morning", **more: Any) -> Any:
    return client.post("/subscribe", data={"email": address, "digest": digest, "website": "", **more})


def asked_for(app: App) -> str:
    """The path of the confirmation that waits to be mailed."""
    with app.db.reading() as session:
        mail = session.scalars(select(m.SystemMail)).one()
        return f"/confirm/{app.tokens.make('confirm', (mail.params['subscription_id'],))}"


def test_subscribe_confirm_preferences_unsubscribe(site: App) -> None:
    client = visit(site)
    page = seen(ask(client, digest=["morning", "weekly"]))
    assert "bo@example.org" in page.text
    path = asked_for(site)
    page = seen(client.get(path))
    assert "Morning Harbour" in page.text
    assert "bo@example.org" in page.text
    form = {"choice": "1", "digest": "morning"}
    page = seen(client.post(path, data=form))
    assert "You are subscribed" in page.text
    preferences = next(link for link in page.links() if "/preferences/" in link)
    with site.db.reading() as session:
        told = audience.show(session, "bo@example.org")
    assert [(s["digest"], s["status"]) for s in told["subscriptions"]] == [("morning", "active"), ("weekly", "pending")]
    seen(client.post(path))  # nothing unticked: the rest too
    assert "Morning Harbour" in seen(client.get(preferences)).text
    page = seen(client.post(preferences, data={"unsubscribe": "weekly"}))
    assert "You are unsubscribed from The Week." in page.text
    assert "again" in seen(client.post(preferences, data={"subscribe": "weekly"})).text
    seen(client.post(preferences, data={"all": "1"}))
    with site.db.reading() as session:
        told = audience.show(session, "bo@example.org")
    assert {s["status"] for s in told["subscriptions"]} == {"unsubscribed"}
    seen(client.get(path), 410)


def test_the_answer_is_the_same_for_every_address(site: App) -> None:
    with site.db.transaction() as session:
        audience.suppress(session, "cy@example.org", "complained", T)
    client = visit(site)
    answers = set()
    for address in ("ann@example.org", "bo@example.org", "bo@example.org", "cy@example.org"):
        response = ask(client, address)
        assert response.status_code == 200
        answers.add(response.text.replace(address, "ADDRESS"))
    assert len(answers) == 1
    with site.db.reading() as session:
        assert session.scalar(select(func.count()).select_from(m.SystemMail)) == 1


@pytest.mark.parametrize(
    ("form", "sentence", "field"),
    [
        ({"email": "", "digest": "morning"}, "It needs one @", "email"),
        ({"email": "bo@@example.org", "digest": "morning"}, "may not hold @", "email"),
        ({"email": "bo@example.org"}, "Choose at least one", "digest"),
        ({"email": "bo@example.org", "digest": "mornin"}, "Choose at least one", "digest"),
    ],
)
def test_a_form_that_does_not_fit_comes_back_with_what_was_typed(
    site: App, form: dict[str, str], sentence: str, field: str
) -> None:
    before = rows(site.db)
    page = seen(visit(site).post("/subscribe", data=form), 422)
    assert sentence in page.text
    assert next(a for a in page.all("input") if a["name"] == "email")["value"] == form["email"]
    described = [a for _, a in page.tags if a.get("aria-describedby") == "problem"]
    assert len(described) == 1
    assert (described[0].get("name") == "email") == (field == "email")
    assert rows(site.db) == before


def test_who_fills_the_unseen_field_gets_the_page_and_no_mail(site: App) -> None:
    client, before = visit(site), rows(site.db)
    assert ask(client, website="https://spam.example").text == ask(visit(site), website="x").text
    assert rows(site.db) == before


def test_one_client_cannot_ask_for_ever(site: App) -> None:
    client = visit(site)
    answers = [ask(client, f"reader{n}@example.org").status_code for n in range(25)]
    assert answers == [200] * 20 + [429] * 5
    assert ask(visit(site, peer="127.0.0.2")).status_code == 200
    assert "retry-after" in ask(client).headers


def test_the_one_digest_of_a_publication_needs_no_choice(app: App) -> None:
    with app.db.transaction() as session:
        build.digest(session)
    assert visit(app).post("/subscribe", data={"email": "bo@example.org"}).status_code == 200
    assert statuses(app.db) == {"morning": "pending"}


def test_consent_is_recorded_with_where_it_was_given(site: App) -> None:
    client = visit(site)
    ask(client)
    client.post(asked_for(site))
    with site.db.reading() as session:
        events = audience.show(session, "bo@example.org")["consent"]
    assert [(e["kind"], e["source"], e["detail"]) for e in events] == [
        ("requested", "form", {"page": "/subscribe"}),
        ("confirmed", "link", {"page": "/confirm"}),
    ]


# ----------------------------------------------------------------------------- leaving


def test_one_click_unsubscribes_without_a_page(site: App) -> None:
    path = f"/unsubscribe/{token(site, 'unsubscribe')}"
    # RFC 8058 §3.2: no cookies, no browser headers, urlencoded or multipart
    response = visit(site, "http://127.0.0.1").post(path, content=b"List-Unsubscribe=One-Click",
                                headers={"content-type": "application/x-www-form-urlencoded"})  # fmt: skip
    assert (response.status_code, response.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert statuses(site.db) == {"morning": "unsubscribed", "weekly": "active"}
    response = visit(site).post(
        f"/unsubscribe/{token(site, 'unsubscribe', 'weekly')}", files={"List-Unsubscribe": (None, "One-Click")}
    )
    assert response.status_code == 200
    assert statuses(site.db) == {"morning": "unsubscribed", "weekly": "unsubscribed"}
    with site.db.reading() as session:
        assert [e["source"] for e in audience.show(session, "ann@example.org")["consent"]] == ["one-click"] * 2


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"", None), (b"\xff\xfe=%", "application/x-www-form-urlencoded"), (b"broken", "multipart/form-data; boundary=b"),
     (b"{}", "application/json"), (b"x" * 3000 + b"=1&" * 300, "application/x-www-form-urlencoded")],
)  # fmt: skip
def test_leaving_works_whatever_the_body_says(site: App, body: bytes, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    path = f"/unsubscribe/{token(site, 'unsubscribe')}"
    page = seen(visit(site).post(path, content=body, headers={**headers, "sec-fetch-site": "cross-site"}))
    assert "You are unsubscribed" in page.text
    assert statuses(site.db)["morning"] == "unsubscribed"


def test_the_page_asks_first_and_offers_the_way_back(site: App) -> None:
    client, path = visit(site), f"/unsubscribe/{token(site, 'unsubscribe')}"
    page = seen(client.get(path))
    assert "Shall no more of this come to ann@example.org?" in page.text
    page = seen(client.post(path))
    assert "The Week" in page.text
    back = next(a for a in page.all("form") if "/preferences/" in (a.get("action") or ""))["action"]
    seen(client.post(back, data={"subscribe": "morning"}))
    assert statuses(site.db) == {"morning": "active", "weekly": "active"}


def test_following_links_changes_nothing(site: App) -> None:
    """Mail scanners follow every link, several times, with whatever method does not send a body."""
    client = visit(site)
    links = audience.Links(HERE, site.tokens)
    with site.db.reading() as session:
        pairs = session.execute(select(m.Subscription.id, m.Subscription.subscriber_id)).all()
    paths = ["/", "/archive", "/topics", "/subscribe", "/archive/morning/2025-07-14", "/captured"]
    for mine, reader in pairs:
        paths += [urlsplit(u).path for u in (links.confirm(mine), links.unsubscribe(mine), links.preferences(reader))]
    ask(client, "bo@example.org", ["morning", "weekly"])
    paths.append(asked_for(site))
    before, followed = rows(site.db), set()
    while paths:
        path = paths.pop()
        for method in ("GET", "HEAD", "OPTIONS") * 3:
            response = client.request(method, path)
            assert response.status_code in (200, 404, 405), (method, path)
        followed.add(path)
        found = _Page(client.get(path).text).links() if not path.startswith("/feeds/") else []
        paths += [p for p in found if p.startswith("/") and p not in followed and p not in paths]
    assert len(followed) > 20
    assert rows(site.db) == before


def test_links_that_were_changed_lead_nowhere(site: App) -> None:
    client, before = visit(site), rows(site.db)
    for purpose in ("confirm", "preferences", "unsubscribe"):
        good = token(site, purpose)
        other = "unsubscribe" if purpose == "preferences" else "preferences"
        for wrong in (good[:-2], good[:-2] + "AA", "x", "0", token(site, other), "%00", "é"):
            for method in ("GET", "POST"):
                page = seen(client.request(method, f"/{purpose}/{wrong}"), 404)
                assert "please use the whole link from the mail" in page.text
    assert rows(site.db) == before


def test_links_of_readers_who_are_gone_are_closed(site: App) -> None:
    client = visit(site)
    for purpose in ("confirm", "preferences", "unsubscribe"):
        path = f"/{purpose}/{site.tokens.make(purpose, (99_999,))}"
        seen(client.get(path), 410)
        seen(client.post(path), 410)
    one_click = client.post(path, data={"List-Unsubscribe": "One-Click"})
    assert one_click.status_code == 200


# ----------------------------------------------------------------------------- what nobody may


def test_forms_of_other_sites_are_refused(site: App) -> None:
    path, before = f"/preferences/{token(site, 'preferences')}", rows(site.db)
    client = visit(site)
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9000"},
    ):
        for address in (path, "/subscribe", f"/confirm/{token(site, 'confirm')}"):
            form = {"all": "1", "email": "bo@example.org", "digest": "morning"}
            assert client.post(address, data=form, headers=headers).status_code == 403, headers
        assert client.get("/", headers=headers).status_code == 200
    assert rows(site.db) == before
    for headers in ({"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {"origin": HERE}, {}):
        assert client.post(path, data={"unsubscribe": "morning"}, headers=headers).status_code == 200, headers


def test_only_our_own_names_are_answered(app: App) -> None:
    app.settings = app.settings.model_copy(update={"public_url": "https://news.example"})
    for host, status in (
        ("news.example", 200), ("NEWS.example:443", 200), ("news.example.", 200), ("127.0.0.1:8000", 200),
        ("localhost", 200), ("[::1]:8000", 200), ("evil.example", 400), ("news.example.evil.example", 400),
        ("news.example@evil.example", 400), ("evil.example/news.example", 400),
        ("", 400), ("news.example:x", 400),
    ):  # fmt: skip
        response = visit(app).get("/", headers={"host": host})
        assert response.status_code == status, host
        assert "evil" not in response.text
    assert visit(app).get("/health/live", headers={"host": "10.0.0.7:8000"}).status_code == 200
    page = visit(app).get(
        "/", headers={"host": "news.example", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    )
    assert "evil" not in page.text
    assert "https://news.example/feeds/all.rss" in page.text


def test_every_answer_carries_the_security_headers(site: App) -> None:
    client = visit(site)
    answers = [client.get(p) for p in ("/", "/nowhere", "/static/site.css", "/health/live", "/captured")]
    answers += [client.post("/", data={}), client.get("/", headers={"host": "evil.example"}), ask(client)]
    answers.append(client.post("/subscribe", headers={"sec-fetch-site": "cross-site"}))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        for rule in (
            "default-src 'none'",
            "style-src 'self'",
            "img-src https: data: 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ):
            assert rule in policy
        assert "script-src" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "set-cookie" not in answer.headers


def test_pages_behind_tokens_are_kept_by_nobody(site: App) -> None:
    client = visit(site)
    for purpose in ("confirm", "preferences", "unsubscribe"):
        answer = client.get(f"/{purpose}/{token(site, purpose)}")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-robots-tag"] == "noindex, nofollow"


def test_large_bodies_are_refused(site: App) -> None:
    client, before = visit(site), rows(site.db)
    assert client.post("/subscribe", data={"email": "x" * 70_000, "digest": "morning"}).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1024

    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/subscribe", content=endless(), headers=headers).status_code == 413
    assert rows(site.db) == before


def test_what_is_not_there_says_so(client: TestClient) -> None:
    page = seen(client.get("/nowhere"), 404)
    assert "There is nothing here" in page.text
    seen(client.post("/"), 405)
    seen(client.delete("/subscribe"), 405)


def test_a_database_that_went_away_is_a_page_without_a_traceback(app: App) -> None:
    client = visit(app, raise_server_exceptions=False)
    app.db = Database("sqlite:////nonexistent/folder/digest.sqlite3")
    page = seen(client.get("/"), 503)
    assert "Traceback" not in page.text
    assert client.get("/health/live").status_code == 200
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "the database cannot be reached")


def test_ready_means_database_and_schema(app: App, tmp_path: Path) -> None:
    client = visit(app)
    assert client.get("/health/ready").json() == {"status": "ok"}
    app.db = Database(f"sqlite:///{tmp_path}/empty.sqlite3")
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "the database wants `digest db upgrade`")
    app.db.close()


def test_the_style_sheet_has_the_colours_of_the_brand_and_is_kept(app: App) -> None:
    with app.db.transaction() as session:
        build.publication(session, accent="#7a1f5c")
    client = visit(app)
    href = next(a["href"] for a in seen(client.get("/")).all("link") if a["rel"] == "stylesheet")
    sheet = client.get(href)
    assert "#7a1f5c" in sheet.text
    assert "var(--brand" not in sheet.text
    assert "immutable" in sheet.headers["cache-control"]
    assert client.get("/static/site.css?v=old").headers["cache-control"] == "no-cache"
    assert client.get(href, headers={"if-none-match": sheet.headers["etag"]}).status_code == 304


def test_a_site_below_a_path_links_below_it(app: App) -> None:
    app.settings = app.settings.model_copy(update={"public_url": "https://paper.example/news"})
    page = seen(visit(app).get("/", headers={"host": "paper.example"}))
    assert all(link.startswith(("/news/", "#")) for link in page.links())


# ----------------------------------------------------------------------------- captured mail

_PART = b"--b\r\nContent-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n%s\r\n"
_HTML = b"<html><head><title>x</title></head><body><p>Caf=C3=A9 in colour</p><script>alert(1)</script></body></html>"
MAIL = (
    b"From: news@localhost.localdomain\r\nTo: ann@example.org\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\n"
    b'MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary="b"\r\n\r\n'
    + _PART % (b"plain", b"Caf=C3=A9 in words")
    + _PART % (b"html", _HTML)
    + b"--b--\r\n"
)


def catch(app: App, *messages: bytes) -> None:
    with app.db.transaction() as session:
        ledger.store_captured(session, [CaughtMail("b+1@x.example", ("ann@example.org",), x, T) for x in messages])


def test_captured_mail_can_be_looked_at(app: App) -> None:
    catch(app, MAIL)
    client = visit(app)
    page = seen(client.get("/captured"))
    assert "/captured/1" in page.links()
    assert "Café" in page.text
    page = seen(client.get("/captured/1"))
    frame = page.all("iframe")[0]
    assert frame["src"] == "/captured/1/html"
    assert frame["sandbox"] == "allow-popups allow-popups-to-escape-sandbox"
    assert f"{len(MAIL)} bytes" in page.text
    html = client.get("/captured/1/html")
    assert "Café in colour" in html.text
    policy = html.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-popups")
    assert "script" not in policy.replace("allow-scripts", "ALLOWED")
    assert "frame-src 'self'" in client.get("/captured/1").headers["content-security-policy"]
    assert "Café in words" in seen(client.get("/captured/1?view=text")).text
    assert "=?utf-8?q?Caf=C3=A9?=" in seen(client.get("/captured/1?view=headers")).text
    for nowhere in ("/captured/2", "/captured/2/html", "/captured/1?view=nothing", "/captured/99999999999999999999"):
        assert client.get(nowhere).status_code == 404


def test_the_list_goes_back_page_by_page(app: App) -> None:
    catch(app, *[f"Subject: Mail {n}\r\n\r\nx".encode() for n in range(1, 121)])
    client, path, found = visit(app), "/captured", []
    while path:
        page = seen(client.get(path))
        found += re.findall(r"Mail (\d+)", page.text)
        path = next((link for link in page.links() if "before=" in link), "")
    assert found == [str(n) for n in range(120, 0, -1)]
    assert client.get("/captured?before=x").status_code == 200


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("192.0.2.7", {}),
        ("127.0.0.1", {"host": "news.example"}),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}),
        ("127.0.0.1", {"forwarded": "for=192.0.2.7"}),
        ("127.0.0.1", {"x-real-ip": "127.0.0.1"}),
        ("127.0.0.1", {"via": "1.1 proxy"}),
    ],
)
def test_captured_mail_is_for_this_machine_alone(app: App, peer: str, headers: dict[str, str]) -> None:
    app.settings = app.settings.model_copy(update={"public_url": "https://news.example"})
    catch(app, MAIL)
    for path in ("/captured", "/captured/1", "/captured/1/html"):
        response = visit(app, peer=peer).get(path, headers=headers)
        assert response.status_code == 404
        assert "ann@" not in response.text
        assert visit(app).get(path).status_code == 200


def test_captured_mail_is_hidden_once_mail_leaves(app: App) -> None:
    catch(app, MAIL)
    with app.db.transaction() as session:
        build.publication(session, armed_for=app.settings.public_url)
    assert visit(app).get("/captured").status_code == 404
    assert visit(app).get("/captured/1/html").status_code == 404


@given(st.binary(max_size=400) | st.binary(max_size=80).map(lambda b: MAIL[: 4 * len(b)] + b + MAIL[4 * len(b) :]))
def test_whatever_was_caught_can_be_taken_apart(message: bytes) -> None:
    parts = take_apart(message)
    assert isinstance(parts.headers + parts.text + parts.html, str)


# ----------------------------------------------------------------------------- small parts


@pytest.mark.parametrize(
    ("cron", "zone", "words"),
    [
        ("0 7 * * *", "UTC", "Every day at 07:00 (UTC)"),
        ("30 6 * * 1-5", "Europe/Berlin", "Monday to Friday at 06:30 (Berlin)"),
        ("0 8 * * 1", "subscriber", "Mondays at 08:00"),
        ("0 8 * * sun", "", "Sundays at 08:00"),
        ("0 8 * * 7", "", "Sundays at 08:00"),
        ("0 8 * * 0,6", "America/New_York", "Sundays and Saturdays at 08:00 (New York)"),
        ("0 8 1 * *", "", "Day 1 of the month, at 08:00"),
        ("0 8 1 * 1", "", ""),
        ("*/5 * * * *", "", ""),
        ("0 8 * 6 *", "", ""),
        ("0 8 * * 1#2", "", ""),
        ("nonsense", "", ""),
        (None, "", ""),
    ],
)
def test_usual_cadences_have_words(cron: str | None, zone: str, words: str) -> None:
    assert public.cadence(cron, zone) == words


def test_categories_stand_below_their_parents() -> None:
    def row(slug: str, parent: str | None = None) -> Any:
        return public.TopicRow(0, "category", slug, slug.title(), parent, 1)

    tree = public._tree([row("africa", "world"), row("sports"), row("world"), row("kenya", "africa"), row("x", "gone")])
    assert [(depth, r.slug) for depth, r in tree] == [
        (0, "sports"), (0, "world"), (1, "africa"), (2, "kenya"), (0, "x"),
    ]  # fmt: skip


def test_buckets_fill_again() -> None:
    now = [0.0]
    bucket = Bucket(2, 10.0, lambda: now[0])
    assert [bucket.take("a") for _ in range(3)] == [True, True, False]
    assert bucket.take("b")
    now[0] = 10.0
    assert [bucket.take("a") for _ in range(2)] == [True, False]
    now[0] = 1000.0
    assert [bucket.take("a") for _ in range(3)] == [True, True, False]


def test_a_household_shares_a_bucket() -> None:
    assert client_key("2001:db8:1:2:3::4") == client_key("2001:db8:1:2:ffff::1") != client_key("2001:db8:1:3::1")
    assert client_key("::ffff:192.0.2.1") == client_key("192.0.2.1") == "192.0.2.1"
    assert client_key("testclient") == "testclient"


@given(st.text(max_size=60))
def test_any_host_header_has_a_name_or_none(host: str) -> None:
    assert isinstance(host_name(host), str)
