"""No kind of source reaches inside, and none falls for a bomb: real servers on loopback, the command in a child."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from digest import ingest
from digest.db import Database
from digest.errors import SourceError
from digest.fetch import Fetcher
from digest.sources import KINDS
from digest.sources.bombs import refuse_entities
from digest.sources.detecting import detect

ROOT = Path(__file__).parents[1]

# What must never be reached, in the clothes that addresses come in: with IPv6's transition forms, which Python takes
# for global, numbers in other bases, and names of this machine.
INSIDE = (
    "127.0.0.1", "127.1", "127.8.8.8", "0", "0.0.0.0", "2130706433", "0x7f000001", "017700000001", "localhost",
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.8", "198.18.0.1",
    "224.0.0.1", "255.255.255.255", "[::1]", "[::]", "[::127.0.0.1]", "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]",
    "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[fe80::1]", "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]",
)  # fmt: skip
REMOTE = [kind for kind in KINDS if kind != "markdown"]
DOOR = "203.0.113.7"  # stands for a public server: its name leads to one of ours


@dataclass
class Limits:
    timeout_s: float = 5.0
    max_bytes: int = 10_000_000
    allow_hosts: tuple[str, ...] = (DOOR,)


Answer = tuple[int, dict[str, str], bytes]


@contextlib.contextmanager
def serving(answer: Callable[[str], Answer]) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is no news
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that a connection was opened to; the public one is ours on loopback."""
    seen: list[str] = []
    real = socket.create_connection

    def connect(address: tuple[str, int], *args: Any, **more: Any) -> socket.socket:
        seen.append(address[0])
        return real(("127.0.0.1" if address[0] == DOOR else address[0], address[1]), *args, **more)

    monkeypatch.setattr(socket, "create_connection", connect)
    return seen


def read(kind: str, url: str, fetcher: Fetcher) -> None:
    if kind == "auto":
        detect(url, fetcher)
    else:
        list(KINDS[kind](url, {}, fetcher).fetch({}).items)


def refused(kind: str, url: str, fetcher: Fetcher) -> None:
    with pytest.raises(SourceError) as caught:
        read(kind, url, fetcher)
    assert caught.value.code == "address_refused", (kind, url, str(caught.value))
    assert "\n" not in str(caught.value)


def test_there_are_as_many_as_were_known() -> None:
    assert len(set(INSIDE)) >= 27


@pytest.mark.parametrize("kind", [*REMOTE, "auto"])
def test_no_kind_reads_from_inside(kind: str, dialled: list[str]) -> None:
    fetcher = Fetcher(Limits(allow_hosts=()))
    for host in INSIDE:
        for url in (f"http://{host}/feed", f"https://{host}:8443/wp-json/wp/v2/posts", f"http://{host}/export.xml.gz"):
            refused(kind, url, fetcher)
    assert dialled == []


def test_markdown_reads_from_no_address() -> None:
    fetcher = Fetcher(Limits())
    for host in INSIDE:
        with pytest.raises(SourceError) as caught:
            read("markdown", f"http://{host}/", fetcher)
        assert caught.value.code == "bad_address"


@pytest.mark.parametrize("kind", [*REMOTE, "auto"])
def test_no_kind_is_led_inside(kind: str, dialled: list[str]) -> None:
    fetcher, to = Fetcher(Limits()), [""]
    with serving(lambda path: (302, {"Location": f"http://{to[0]}/secret"}, b"")) as port:
        for to[0] in INSIDE:
            refused(kind, f"http://{DOOR}:{port}/feed", fetcher)
        for to[0] in ("", "x@", "[::1"):
            with pytest.raises(SourceError):
                read(kind, f"http://{DOOR}:{port}/feed", fetcher)
    assert set(dialled) == {DOOR}


@pytest.mark.parametrize("kind", [*REMOTE, "auto"])
def test_a_name_that_leads_elsewhere_the_next_time_leads_nowhere(kind: str, dialled: list[str]) -> None:
    """A name gives a public address and one inside, or first the one and then the other."""
    numbers = [host.strip("[]") for host in INSIDE if host.count(".") == 3 or ":" in host]
    answers: list[list[str]] = []
    fetcher = Fetcher(Limits(), find=lambda host, port: answers.pop(0) if answers[1:] else answers[0])
    for inside in numbers:
        for answers[:] in ([[DOOR, inside]], [[inside, DOOR]], [[inside]]):
            refused(kind, "http://rebind.example/feed", fetcher)
    assert dialled == []
    with serving(lambda path: (302, {"Location": "/again"}, b"")) as port:
        for inside in numbers:
            answers[:] = [[DOOR], [inside]]
            refused(kind, f"http://rebind.example:{port}/feed", fetcher)
    assert set(dialled) == {DOOR}


def test_what_a_document_names_is_guarded_too(dialled: list[str]) -> None:
    pages = {
        "/feed.json": b'{"version": "https://jsonfeed.org/version/1.1", "items": [], "next_url": "http://127.0.0.1/2"}',
        "/site": b'<html><link rel="https://api.w.org/" href="http://169.254.169.254/wp-json/">',
        "/page": b'<html><link rel=alternate type="application/rss+xml" href="http://[::1]/feed">',
    }
    fetcher = Fetcher(Limits())
    with serving(lambda path: (200 if path in pages else 404, {}, pages.get(path, b""))) as port:
        here = f"http://{DOOR}:{port}"
        fetched = KINDS["jsonfeed"](f"{here}/feed.json", {}, fetcher).fetch({})
        assert list(fetched.items) == []
        assert "not on the public internet" in fetched.warnings[0]
        refused("wordpress", f"{here}/site", fetcher)
        [found] = detect(f"{here}/page", fetcher)
        refused(found.kind, found.location, fetcher)
    assert set(dialled) == {DOOR}


# ----------------------------------------------------------------------------- bombs


def rss(doctype: str, *titles: str, more: str = "") -> bytes:
    items = "".join(f"<item><title>{title}</title><link>https://x.example/{n}</link></item>"
                    for n, title in enumerate(titles))  # fmt: skip
    head = f'<?xml version="1.0"?>{doctype}<rss version="2.0" xmlns:wp="http://wordpress.org/export/1.2/"><channel>'
    return f"{head}<title>T</title><wp:wxr_version>1.2</wp:wxr_version>{items}{more}</channel></rss>".encode()


def declared(*entities: str) -> str:
    return f"<!DOCTYPE rss [{''.join(f'<!ENTITY {entity}>' for entity in entities)}]>"


LAUGHS = [f'e{n} "{f"&e{n - 1};" * 10 if n else "lol"}"' for n in range(12)]
ENTITY_BOMBS = {
    "laughs": rss(declared(*LAUGHS), "&e11;", "Good"),
    "laughs in any order": rss(declared(*reversed(LAUGHS)), "&e11;"),
    "laughs behind a comment": rss("<!-- <rss> -->" + declared(*LAUGHS), "&e11;"),
    "laughs in UTF-16": rss(declared(*LAUGHS), "&e11;").decode().encode("utf-16"),
    "a circle": rss(declared('a "&b;"', 'b "&a;"'), "&a;"),
    "a long text": rss(declared(f'a "{"x" * 100_000}"'), "&a;" * 10_000),
    "a short text": rss(declared(f'a "{"x" * 900}"'), "&a;" * 200_000),
    "a file": rss(declared('a SYSTEM "file:///etc/passwd"'), "&a;"),
    "an address": rss(declared('a PUBLIC "-//x" "http://127.0.0.1/"'), "&a;"),
    "parameters": rss(declared("% a \"<!ENTITY &#37; b 'x'>\""), "x"),
}


@pytest.mark.parametrize("kind", ["feed", "wxr"])
@pytest.mark.parametrize("name", ENTITY_BOMBS)
def test_entities_that_grow_or_read_are_one_sentence(kind: str, name: str, tmp_path: Path) -> None:
    if (kind, name) == ("wxr", "a short text"):
        return  # entities are not resolved in an export, and one this short is let through
    path = tmp_path / "bomb.xml"
    path.write_bytes(ENTITY_BOMBS[name])
    with pytest.raises(SourceError, match=r"bomb\.xml (declares|repeats) ") as caught:
        read(kind, str(path), Fetcher(Limits()))
    assert "\n" not in str(caught.value)
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE rss PUBLIC "-//Netscape Communications//DTD RSS 0.91//EN" "http://my.netscape.com/rss-0.91.dtd">',
        declared('nbsp "&#160;"', "copy '&#169;'"),
        '<!DOCTYPE rss [<!ENTITY % HTMLlat1 PUBLIC "-//W3C//ENTITIES Latin 1 for XHTML//EN" "http://w3.org/x.ent">]>',
        "",
    ],
)
def test_document_types_of_real_feeds_are_none(doctype: str) -> None:
    refuse_entities(rss(doctype, "&nbsp;&copy; <![CDATA[<!DOCTYPE x [<!ENTITY a SYSTEM 'y'>]>]]>"), "feed")


@cache
def zeros() -> bytes:
    """A gigabyte in one megabyte, as many gzip members."""
    return gzip.compress(bytes(20_000_000)) * 50


def bombs() -> dict[str, tuple[str, bytes]]:
    """Name → (kind, document) of what ends in one error."""
    feed = b'{"version": "https://jsonfeed.org/version/1.1", "items": ['
    return {
        **{f"{kind}-zeros": (kind, zeros()) for kind in REMOTE},
        **{f"{kind}-laughs": (kind, ENTITY_BOMBS["laughs"]) for kind in ("feed", "wxr")},
        **{f"{kind}-deep": (kind, b"[" * 1_000_000) for kind in ("jsonfeed", "wordpress")},
        "feed-elements": ("feed", rss("", more="<item>" + "<a/>" * 500_000 + "</item>")),
        "feed-items": ("feed", rss("", more="<item/>" * 400_000)),
        "feed-attributes": ("feed", rss("", more="<item " + " ".join(f'a{n}="x"' for n in range(100_000)) + "/>")),
        "feed-nested": ("feed", rss("", more="<a>" * 400_000)),
        "jsonfeed-items": ("jsonfeed", feed + b"{}," * 1_000_000 + b"{}]}"),
        "wordpress-posts": ("wordpress", b'[{"title": "", "content": ""},' + b"{}," * 1_000_000 + b"{}]"),
    }


@pytest.mark.parametrize("over_http", [False, True])
def test_bombs_end_in_one_line_each_and_the_other_sources_go_on(
    over_http: bool, sqlite_template: Path, tmp_path: Path
) -> None:
    """By the command, in a process of its own: 500 MB, two seconds of CPU for each, no traceback, nothing lost."""
    there = bombs()
    url = f"sqlite:///{shutil.copyfile(sqlite_template, tmp_path / 'digest.sqlite3')}"
    settings = {"DIGEST_DATA_DIR": str(tmp_path), "DIGEST_DATABASE__URL": url, "DIGEST_FETCH__ALLOW_HOSTS": "127.0.0.1"}

    def answer(path: str) -> Answer:
        data = there[path.split("/")[1]][1] if path.split("/")[1] in there else b""
        packed = {"Content-Encoding": "gzip"} if data.startswith(b"\x1f\x8b") else {}
        return (200 if data else 404), {**packed, "Content-Type": "application/xml"}, data

    with serving(answer) as port:
        sources = []
        for name, (kind, data) in there.items():
            (tmp_path / name).write_bytes(data)
            place = f"http://127.0.0.1:{port}/{name}/" if over_http else str(tmp_path / name)
            sources.append((name, kind, place))
        (tmp_path / "good.xml").write_bytes(rss("", "Good"))
        sources.append(("good", "feed", str(tmp_path / "good.xml")))
        with contextlib.closing(Database(url)) as database:
            for name, kind, place in sources:
                ingest.add_source(database, name, kind=kind, location=place, at=datetime.now(UTC))
        done = subprocess.run(
            [sys.executable, "-c", INGEST, tmp_path / "cost"], capture_output=True, text=True, cwd=ROOT,
            env={**os.environ, **settings},
        )  # fmt: skip
    reports = {report["source"]: report for report in map(json.loads, done.stdout.splitlines())}
    assert set(reports) == {name for name, _, _ in sources}
    assert reports.pop("good")["new"] == 1
    for name, report in reports.items():
        [error] = report["errors"]
        assert (report["new"], len(error["message"].splitlines())) == (0, 1), name
        assert error["code"] in ("unreadable", "too_large", "not_a_feed", "bad_response"), (name, error)
    told = done.stderr.splitlines()
    assert sorted(line.partition(":")[0] for line in told) == sorted(reports), done.stderr
    assert done.returncode == 1
    seconds, peak_kb = (tmp_path / "cost").read_text().split()
    assert float(seconds) < 2 * len(reports)
    assert int(peak_kb) < 500_000


INGEST = """
import atexit, runpy, sys, time
from pathlib import Path
from tests.memory import peak_kb
cost = Path(sys.argv[1])
atexit.register(lambda: cost.write_text(f"{time.process_time()} {peak_kb()}"))
sys.argv = ["digest", "ingest", "--json"]
runpy.run_module("digest", run_name="__main__", alter_sys=True)
"""
