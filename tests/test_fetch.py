"""The guarded client against real servers on loopback: whom it talks to, how much it takes, how long it waits."""

from __future__ import annotations

import gzip
import http.server
import ipaddress
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from digest import __version__
from digest.errors import SourceError
from digest.fetch import Fetcher, inflate, is_public, retry_after, shown


@dataclass
class Limits:
    timeout_s: float = 5.0
    max_bytes: int = 100_000
    allow_hosts: tuple[str, ...] = ("127.0.0.1",)


@dataclass
class Site:
    """A web server: path → (status, headers, body), and the requests that reached it."""

    address: str
    port: int = 0
    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str = "/", host: str | None = None) -> str:
        return f"http://{host or self.address}:{self.port}{path}"

    def put(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> str:
        self.pages[path] = (status, {k.replace("_", "-"): v for k, v in headers.items()}, body)
        return self.url(path)


def serve(address: str) -> Iterator[Site]:
    site = Site(address)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            status, headers, body = site.pages.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((address, 0), Handler) as server:
        site.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield site
        server.shutdown()


@pytest.fixture
def site() -> Iterator[Site]:
    """A server whose address is in allow_hosts: it stands for the public internet."""
    yield from serve("127.0.0.1")


@pytest.fixture
def inside() -> Iterator[Site]:
    """A server that must not be reached."""
    yield from serve("127.0.0.2")


def failing(call: Callable[[], object]) -> SourceError:
    with pytest.raises(SourceError) as caught:
        call()
    return caught.value


# ----------------------------------------------------------------------------- whom


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
        *[
            (address, False)
            for address in (
                "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
                "100.64.0.1", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
                "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
                "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
                "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "fe80::1", "fec0::1", "fc00::1",
                "fd12::1", "ff02::1", "ff0e::1", "100::1", "3fff::1", "5f00::1",
            )
        ],
    ],
)  # fmt: skip
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_a_zone_makes_an_address_local() -> None:
    assert not is_public(ipaddress.ip_address("2606:2800:220:1:248:1893:25c8:1946%eth0"))


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "localhost", "0", "2130706434", "0x7f.2", "127.2", "[::1]", "[::ffff:127.0.0.2]"]
)
def test_this_machine_is_refused_however_it_is_spelled(inside: Site, host: str) -> None:
    error = failing(lambda: Fetcher(Limits(allow_hosts=())).get(inside.url(host=host)))
    assert error.code == "address_refused"
    assert "fetch.allow_hosts" in str(error)
    assert inside.seen == []


def test_allow_hosts_takes_names_addresses_and_networks(inside: Site) -> None:
    inside.put("/", b"in")
    for allowed in ("127.0.0.2", "127.0.0.0/30", "intranet.example"):
        fetcher = Fetcher(Limits(allow_hosts=(allowed,)), find=lambda host, port: ["127.0.0.2"])
        assert fetcher.get(inside.url(host="intranet.example")).content == b"in"
    fetcher = Fetcher(Limits(allow_hosts=("other.example",)), find=lambda host, port: ["127.0.0.2"])
    assert failing(lambda: fetcher.get(inside.url(host="intranet.example"))).code == "address_refused"


def test_one_private_address_among_public_ones_refuses_the_name(site: Site, inside: Site) -> None:
    site.put("/", b"out")
    for found in (["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"], ["::ffff:127.0.0.2"]):
        fetcher = Fetcher(Limits(), find=lambda host, port, found=found: found)
        assert failing(lambda f=fetcher: f.get(site.url(host="rebind.example"))).code == "address_refused"
    assert site.seen == inside.seen == []


def test_the_address_that_was_looked_at_is_the_one_dialled(site: Site, inside: Site) -> None:
    site.put("/", b"out")
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])  # a second look-up would lead inside
    assert (
        Fetcher(Limits(), find=lambda host, port: next(answers)).get(site.url(host="rebind.example")).content == b"out"
    )


def test_redirects_are_looked_at_too(site: Site, inside: Site) -> None:
    inside.put("/secret", b"secret")
    for target in (inside.url("/secret"), "file:///etc/passwd", "gopher://127.0.0.1/", "http://[::1/"):
        url = site.put("/go", status=302, Location=target)
        assert failing(lambda url=url: Fetcher(Limits()).get(url)).code in (
            "address_refused",
            "bad_address",
            "bad_response",
        )
    assert inside.seen == []


def test_proxies_of_the_environment_are_not_used(site: Site, inside: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, inside.url())
    site.put("/", b"direct")
    assert Fetcher(Limits()).get(site.url()).content == b"direct"
    assert inside.seen == []


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x.example/", "/etc/passwd", "http://", "http://[::1/", "http://x:y/"]
)
def test_only_http_addresses_are_fetched(url: str) -> None:
    assert failing(lambda: Fetcher(Limits()).get(url)).code in ("bad_address", "unreachable")


# ----------------------------------------------------------------------------- how much, how long


def test_the_size_is_capped_on_the_wire_and_unpacked(site: Site) -> None:
    fetcher = Fetcher(Limits(max_bytes=10_000))
    assert len(fetcher.get(site.put("/fits", b"x" * 10_000)).content) == 10_000
    assert failing(lambda: fetcher.get(site.put("/wire", b"x" * 10_001))).code == "too_large"
    bomb = gzip.compress(bytes(20_000_000))
    assert failing(lambda: fetcher.get(site.put("/bomb", bomb[:9_000], Content_Encoding="gzip"))).code == "too_large"
    twice = gzip.compress(gzip.compress(bytes(9_000_000)))
    assert failing(lambda: fetcher.get(site.put("/twice.gz", twice, Content_Encoding="gzip"))).code == "too_large"


def test_a_bomb_is_never_unpacked_beyond_the_cap() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    assert failing(lambda: inflate(bomb, 10_000, "bomb")).code == "too_large"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_packed_answers_and_gz_files_come_out_plain(site: Site) -> None:
    fetcher = Fetcher(Limits())
    text = b"<rss/>" * 100
    for name, body, encoding in (
        ("/plain", text, "identity"),
        ("/gzip", gzip.compress(text), "gzip"),
        ("/deflate", zlib.compress(text), "deflate"),
        ("/file.gz", gzip.compress(text), "identity"),
        ("/file2.gz", gzip.compress(gzip.compress(text)), "gzip"),
        ("/members.gz", gzip.compress(text[:300]) + gzip.compress(text[300:]), "gzip"),
        ("/mislabelled", text, "gzip"),
    ):
        assert fetcher.get(site.put(name, body, Content_Encoding=encoding)).content == text, name
    cut = fetcher.get(site.put("/cut", gzip.compress(text)[:-12], Content_Encoding="gzip")).content
    assert text.startswith(cut)
    broken = b"\x1f\x8b" + b"\xff" * 40
    assert failing(lambda: fetcher.get(site.put("/broken", broken, Content_Encoding="gzip"))).code == "bad_response"
    assert failing(lambda: fetcher.get(site.put("/br", b"x", Content_Encoding="br"))).code == "bad_response"


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"])
def test_a_server_that_trickles_is_left(start: bytes) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(start)
                while not stop.wait(0.1):
                    try:
                        connection.sendall(b"H" if start else b"HTTP/1.1 "[:1])
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        error = failing(lambda: Fetcher(Limits(timeout_s=0.7)).get(f"http://127.0.0.1:{listening.getsockname()[1]}/"))
        took = time.monotonic() - began
        stop.set()
        thread.join()
    assert error.code in ("timeout", "bad_response")
    assert took < 3
    if start:
        assert error.code == "timeout"


def test_what_is_not_there_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = failing(lambda: Fetcher(Limits()).get(f"http://127.0.0.1:{port}/feed?token=s3cret"))
    assert error.code == "unreachable"
    assert "s3cret" not in str(error)

    def nowhere(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    assert failing(lambda: Fetcher(Limits(), find=nowhere).get("http://no.example/")).code == "unreachable"


def test_what_is_not_http_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"220 mail.example ESMTP\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=greet)
        thread.start()
        error = failing(lambda: Fetcher(Limits()).get(f"http://127.0.0.1:{listening.getsockname()[1]}/"))
        thread.join()
    assert error.code == "bad_response"


# ----------------------------------------------------------------------------- HTTP


def test_the_request_says_who_asks(site: Site) -> None:
    site.put("/", b"")
    Fetcher(Limits(), public_url="https://news.example").get(site.url())
    _, headers = site.seen[0]
    assert headers["user-agent"] == f"digest/{__version__} (+https://news.example)"
    assert "cookie" not in headers
    assert "if-none-match" not in headers


def test_a_condition_that_holds_gives_not_modified(site: Site) -> None:
    site.put("/feed", status=304, ETag='"a"')
    fetcher = Fetcher(Limits())
    answer = fetcher.get(site.url("/feed"), etag='"a"', last_modified="Wed, 03 Sep 2025 22:31:58 GMT")
    assert (answer.not_modified, answer.content, answer.headers["etag"]) == (True, b"", '"a"')
    assert site.seen[0][1]["if-none-match"] == '"a"'
    assert site.seen[0][1]["if-modified-since"] == "Wed, 03 Sep 2025 22:31:58 GMT"
    assert failing(lambda: fetcher.get(site.url("/feed"))).code == "http_status"


def test_redirects_are_followed_five_times_and_permanent_ones_told(site: Site) -> None:
    fetcher = Fetcher(Limits())
    site.put("/end", b"end", Set_Cookie="a=b")
    for n in range(6):
        site.put(f"/{n}", status=301, Location="/end#top" if n == 0 else str(n - 1))
    answer = fetcher.get(site.url("/4"))
    assert (answer.content, answer.url, answer.moved_to) == (b"end", site.url("/end"), site.url("/end"))
    assert failing(lambda: fetcher.get(site.url("/5"))).code == "too_many_redirects"
    site.put("/mixed", status=308, Location="/temporary")
    site.put("/temporary", status=302, Location="/1")
    assert fetcher.get(site.url("/mixed")).moved_to == site.url("/temporary")
    assert fetcher.get(site.url("/end")).moved_to is None
    assert not any("cookie" in headers for _, headers in site.seen)


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "forbidden"), (403, "forbidden"), (404, "not_found"), (410, "gone"), (429, "too_many_requests"),
     (500, "http_status"), (503, "unavailable"), (300, "http_status")],
)  # fmt: skip
def test_other_answers_are_errors_with_a_code(site: Site, status: int, code: str) -> None:
    error = failing(lambda: Fetcher(Limits()).get(site.put("/x", b"", status, Retry_After="120")))
    assert (error.code, error.retry_after) == (code, 120.0)
    assert str(status) in str(error)


def test_retry_after_takes_seconds_and_dates() -> None:
    now = datetime(2025, 9, 3, 22, 0, tzinfo=UTC)
    assert retry_after("90", now) == 90
    assert retry_after("Wed, 03 Sep 2025 22:31:58 GMT", now) == 31 * 60 + 58
    assert retry_after("Wed, 03 Sep 2025 21:00:00 GMT", now) == 0
    assert retry_after("999999999999", now) == 7 * 86_400
    for useless in (None, "", "soon", "-5", "²"):
        assert retry_after(useless, now) is None


def test_an_address_is_shown_without_its_secrets() -> None:
    assert shown("https://user:pw@News.example:8443/feed?key=1#x") == "https://news.example:8443/feed"
    assert shown("http://[::1]:80/a\nb") == "http://[::1]:80/ab"
    assert shown("http://[") == "the address"
