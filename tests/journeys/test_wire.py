"""The mail as it stands on the wire, caught by a server that is not ours, read by a parser that is not ours."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser

from digest import engine
from digest.bootstrap import App, build
from digest.config import Settings
from digest.db import Database
from tests import build as rows
from tests.office import newsroom
from tests.smtp_server import LOST, Script, Server, Taken

AT = rows.T.replace(hour=7) + rows.timedelta(days=1)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run *server* on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def publisher(database: Database, settings: Settings, port: int) -> App:
    url = database.url.render_as_string(hide_password=False)
    return build(
        settings.model_copy(
            update={
                "live": True,
                "public_url": "https://news.example",
                "database": settings.database.model_copy(update={"url": url}),
                "smtp": settings.smtp.model_copy(update={"host": "127.0.0.1", "port": port, "connections": 3}),
            }
        )
    )


def caught(database: Database, settings: Settings, script: Script | None = None, **how: Any) -> tuple[App, Server]:
    with serving(Server(**({"script": script} if script else {}), **how)) as server:
        app = publisher(database, settings, server.port)
        engine.tick(app, AT, drain=True, refresh=False)
        app.close()
    return app, server


def parsed(taken: Taken) -> EmailMessage:
    message = message_from_bytes(taken.message, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert message.defects == []
    return message


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    assert body["Content-Transfer-Encoding"] == "quoted-printable"
    text = body.get_content()
    assert isinstance(text, str)
    return text


@pytest.fixture
def mail(database: Database, settings: Settings) -> Taken:
    newsroom(database, readers=1, name="Grüße aus der Welt", subject="{{ lead.title }} — {{ count }} · ☀")
    _, server = caught(database, settings)
    [taken] = server.taken
    return taken


def test_the_bytes_are_lawful(mail: Taken) -> None:
    raw = mail.message
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
    head, _, body = raw.partition(b"\r\n\r\n")
    assert max(map(len, head.split(b"\r\n"))) <= 998
    assert max(map(len, body.split(b"\r\n"))) <= 76
    assert not re.search(rb"(?m)^\.", raw)
    assert raw.isascii()


def test_every_header_of_the_contract_is_there_once(mail: Taken) -> None:
    message = parsed(mail)
    assert {k: v for k, v in Counter(k.lower() for k in message).items() if v > 1} == {}
    assert message["From"].addresses[0].addr_spec == "news@news.example"
    assert message["To"] == mail.rcpt == "reader0@example.org"
    assert message["Subject"] == "Story 1 — 4 · ☀"
    assert re.fullmatch(r"<[^@<>]+@news\.example>", message["Message-ID"])
    assert message["List-Id"].endswith("<morning.news.example>")
    assert re.fullmatch(r"<https://news\.example/unsubscribe/[\w.-]+>", message["List-Unsubscribe"])
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["List-Archive"] == "<https://news.example/archive>"
    assert message["Feedback-ID"]
    assert message["Date"].datetime
    assert message["Auto-Submitted"] is None, "system mail alone says so"
    assert message.get_content_type() == "multipart/alternative"
    assert [p.get_content_type() for p in message.iter_parts()] == ["text/plain", "text/html"]
    assert mail.mail_from.endswith("@news.example")
    assert mail.mail_from != "news@news.example", "bounces come back to an address that names the delivery"


def test_both_parts_say_the_same(mail: Taken) -> None:
    message = parsed(mail)
    text, html = part(message, "plain"), LexborHTMLParser(part(message, "html"))
    links = [a.attributes["href"] or "" for a in html.css("a[href]")]
    stories = list(dict.fromkeys(link for link in links if re.fullmatch(r"https://news\.example/\d+", link)))
    assert [w for w in text.split() if w in stories] == stories
    assert len(stories) == 4
    for n in range(1, 5):
        assert f"Story {n}" in text
        assert f"Story {n}" in html.text()
    [unsubscribe] = {link for link in links if "/unsubscribe/" in link}
    assert unsubscribe in text
    assert f"<{unsubscribe}>" == message["List-Unsubscribe"]
    assert len(part(message, "html").encode()) <= 95_000


def test_a_resend_bears_the_same_message_id(database: Database, settings: Settings) -> None:
    newsroom(database, readers=6)
    lost: list[str] = []

    def script(verb: str, rcpt: str) -> bytes | None:
        if verb == "DOT" and rcpt == "reader2@example.org" and not lost:
            lost.append(rcpt)
            return LOST
        return None

    app, server = caught(database, settings, script)
    ids: dict[str, list[str]] = {}
    for taken in server.taken:
        ids.setdefault(taken.rcpt, []).append(parsed(taken)["Message-ID"])
    assert {rcpt: len(v) for rcpt, v in ids.items() if len(v) > 1} == {"reader2@example.org": 2}
    assert len(set(ids["reader2@example.org"])) == 1
    assert len({v[0] for v in ids.values()}) == 6
    [row] = engine.edition_rows(app)
    app.close()
    assert (row["accepted"], row["uncertain"]) == (6, 0)


def test_a_server_without_pipelining_is_spoken_to_in_turn(database: Database, settings: Settings) -> None:
    addresses = newsroom(database, readers=8)
    _, server = caught(database, settings, pipelining=False)
    assert sorted(t.rcpt for t in server.taken) == sorted(addresses)
    assert server.early == 0


def test_a_hostile_article_changes_nothing_but_itself(database: Database, settings: Settings) -> None:
    newsroom(database, readers=1, articles=2)
    with database.transaction() as session:
        rows.article(
            session,
            title="]]></title><script>alert(1)</script>\r\nBcc: victim@example.org =?utf-8?q?=0D=0ABcc:_x@y.example?=",
            excerpt="{{ 7*7 }} {% for x in y %} \u202e @@unsubscribe_url@@ <img src=x onerror=alert(1)>",
            url="https://news.example/evil",
            categories=["<b>Bold</b>"],
            authors=['"><script>'],
            age=rows.timedelta(hours=5, minutes=30),
        )
    _, server = caught(database, settings)
    [taken] = server.taken
    message = parsed(taken)
    assert taken.rcpt == "reader0@example.org"
    assert message["Bcc"] is None
    html = part(message, "html")
    assert "<script" not in html
    assert "onerror=alert" not in html.replace("&lt;img src=x onerror=alert(1)&gt;", "")
    assert "{{ 7*7 }}" in html
    assert not re.search(r"\b49\b", part(message, "plain"))
    for n in (1, 2):
        assert f"Story {n}" in part(message, "plain")
        assert f"Story {n}" in html


def test_a_relay_that_is_not_there_is_one_sentence_and_loses_nothing(database: Database, settings: Settings) -> None:
    newsroom(database, readers=2)
    app = publisher(database, settings, 1)
    done = engine.tick(app, AT, drain=True, refresh=False)
    assert done.trouble
    assert "\n" not in done.trouble
    assert done.left == 1
    app.close()
    with serving(Server()) as server:
        app = publisher(database, settings, server.port)
        engine.send(app, drain=True)
        app.close()
    assert len(server.taken) == 2
