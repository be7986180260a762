"""The one HTTP client, guarded: what a source's address leads to is decided by strangers. The one owner of httpx.

Owns which addresses may be connected to, redirects, limits of size and time, conditional GET. Knows nothing of feeds.

    get      for each of at most 6 hops: http(s) only → connect → status
    connect  resolve → every address public, or refused → dial a vetted one (no second look-up that could say otherwise)
    body     capped on the wire, capped again unpacked; the whole request has one deadline

Proxies and other settings of the environment are not read: a proxy would resolve names out of our sight.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlencode, urljoin, urlsplit

import httpcore
import httpx

from digest import __version__
from digest.errors import SourceError

MAX_REDIRECTS = 5
_MAX_RETRY_AFTER = 7 * 86_400.0

logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole addresses, and feeds carry tokens in theirs


Find: TypeAlias = Callable[[str, int], list[str]]


class Limits(Protocol):
    """What the settings say about fetching."""

    @property
    def timeout_s(self) -> float: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def allow_hosts(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of 2xx or 304. Header names in lower case; ``content`` is unpacked, also where it was a .gz file.

    ``url`` is where it came from in the end; ``moved_to`` where permanent redirects alone have led (301, 308).
    """

    status: int
    url: str
    headers: Mapping[str, str]
    content: bytes
    not_modified: bool = False
    moved_to: str | None = None


class Fetcher:
    """Fetches over http and https, from public addresses and those of *limits.allow_hosts*. Threads may share one.

    *find* gives the addresses of a host.
    """

    def __init__(self, limits: Limits, *, public_url: str = "", find: Find | None = None) -> None:
        self.limits = limits
        self.agent = f"digest/{__version__}" + (f" (+{public_url})" if public_url else "")
        self._client = httpx.Client(
            transport=_Transport(_Guard(limits.allow_hosts, limits.timeout_s, find or look_up)),
            trust_env=False, follow_redirects=False, timeout=limits.timeout_s,
        )  # fmt: skip

    def get(
        self, url: str, *, etag: str | None = None, last_modified: str | None = None, accept: str = "*/*"
    ) -> Response:
        """Return what *url* answers; any other answer than 2xx, or 304 to a condition, is a SourceError."""
        headers = {"user-agent": self.agent, "accept": accept, "accept-encoding": "gzip"}
        if etag:
            headers["if-none-match"] = etag
        if last_modified:
            headers["if-modified-since"] = last_modified
        here, moved_to, permanent = url, None, True
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._hop(here, headers)
            if (to := _redirect(answer, here)) is None:
                return self._judged(answer, here, moved_to, conditional=bool(etag or last_modified))
            permanent = permanent and answer.status in (301, 308)
            here, moved_to = to, to if permanent else moved_to
        raise SourceError("too_many_redirects", f"{shown(url)} redirects more than {MAX_REDIRECTS} times")

    def post(self, url: str, form: Sequence[tuple[str, str]]) -> Response:
        """Send a form; any other answer than 2xx, a redirect too, is a SourceError."""
        kind = "application/x-www-form-urlencoded"
        headers = {"user-agent": self.agent, "accept": "*/*", "accept-encoding": "gzip", "content-type": kind}
        answer = self._hop(url, headers, urlencode(form).encode())
        return self._judged(answer, url, None, conditional=False)

    def close(self) -> None:
        self._client.close()

    def _hop(self, url: str, headers: dict[str, str], sent: bytes | None = None) -> _Answer:
        """One request, with what is *sent* a POST, and its whole body, without following anything."""
        if not url.lower().startswith(("http://", "https://")):
            raise SourceError(
                "bad_address", f"{shown(url)} is not an http(s) address; write it as https://news.example.org/feed"
            )
        self._client.cookies.clear()
        try:
            method = "GET" if sent is None else "POST"
            with self._client.stream(method, url, headers=headers, content=sent) as response:
                return _Answer(response.status_code, response.headers, self._body(response, url))
        except (httpcore.TimeoutException, httpx.TimeoutException) as e:
            raise SourceError("timeout", f"{shown(url)} did not answer in {self.limits.timeout_s:g} seconds") from e
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpcore.UnsupportedProtocol, UnicodeError) as e:
            raise SourceError(
                "bad_address", f"{shown(url)} is not an http(s) address; write it as https://news.example.org/feed"
            ) from e
        except (httpcore.ProtocolError, httpx.ProtocolError) as e:
            raise SourceError("bad_response", f"{shown(url)} does not speak HTTP as it should: {_said(e)}") from e
        except (httpcore.NetworkError, httpx.HTTPError, OSError) as e:
            raise SourceError("unreachable", f"{shown(url)} cannot be reached: {_said(e)}") from e

    def _body(self, response: httpx.Response, url: str) -> bytes:
        limit, data = self.limits.max_bytes, bytearray()
        if not response.is_success:
            return b""
        for chunk in response.iter_raw():
            data += chunk
            if len(data) > limit:
                raise _too_large(url, limit)
        packed = response.headers.get("content-encoding", "identity").lower().strip()
        if packed not in ("gzip", "x-gzip", "deflate", "identity", ""):
            raise SourceError("bad_response", f"{shown(url)} answers in {packed!r}, which was not asked for")
        body = bytes(data)
        for _ in range(2):  # a .gz file that a server packed once more
            if packed == "deflate" or body.startswith(b"\x1f\x8b"):
                body, packed = inflate(body, limit, url), ""
        return body

    @staticmethod
    def _judged(answer: _Answer, url: str, moved_to: str | None, *, conditional: bool) -> Response:
        """The answer, if it is one to be used."""
        status, headers = answer.status, {k.lower(): v for k, v in answer.headers.items()}
        if status == 304 and conditional:
            return Response(status, url, headers, b"", not_modified=True, moved_to=moved_to)
        if 200 <= status < 300:
            return Response(status, url, headers, answer.body, moved_to=moved_to)
        wait = retry_after(headers.get("retry-after"), datetime.now(UTC))
        code, advice = _STATUS.get(status, ("http_status", "look at it in a browser"))
        raise SourceError(code, f"{shown(url)} answers {status}: {advice}", retry_after=wait)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: httpx.Headers
    body: bytes


_STATUS = {
    401: ("forbidden", "it wants a password; give an address that is open to us"),
    403: ("forbidden", "it refuses us; ask its owner to let this user agent in"),
    404: ("not_found", "there is nothing at this address; correct the source's location"),
    410: ("gone", "it was removed for good; remove the source"),
    429: ("too_many_requests", "it was asked too often; it will be tried again later"),
    503: ("unavailable", "it is down or busy; it will be tried again later"),
}


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, at most a week (RFC 9110 §10.2.3)."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdecimal():
        return min(float(value), _MAX_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max(0.0, (when - now).total_seconds()), _MAX_RETRY_AFTER)


def inflate(data: bytes, limit: int, name: str) -> bytes:
    """Return gzip or zlib *data* unpacked, never making more than *limit* bytes of it."""
    out = bytearray()
    while data:
        unpack = zlib.decompressobj(47)  # gzip or zlib, by its first bytes
        try:
            out += unpack.decompress(data, limit + 1 - len(out))
        except zlib.error as e:
            if out:
                break  # what follows a complete member is padding
            raise SourceError("bad_response", f"{shown(name)} is packed and cannot be unpacked: {e}") from e
        if len(out) > limit:
            raise _too_large(name, limit)
        if not unpack.eof:
            break  # cut off: the reader makes of it what it can
        data = unpack.unused_data
    return bytes(out)


def shown(url: str) -> str:
    """Return *url* as it may be shown: no password, and no query, which may carry a token."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the address"
    path = "".join(c for c in parts.path[:200] if c.isprintable())
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{path}" if parts.scheme else path


def _redirect(answer: _Answer, url: str) -> str | None:
    """Where an answer sends us, without a fragment; None if it does not."""
    location: str | None = answer.headers.get("location")
    if answer.status not in (301, 302, 303, 307, 308) or not location:
        return None
    try:
        to = urljoin(url, location)
        return to.partition("#")[0]
    except ValueError as e:
        raise SourceError("bad_response", f"{shown(url)} redirects to something that is no address") from e


def _no_address(url: str) -> SourceError:
    return SourceError("bad_address", f"{shown(url)} is no http(s) address; write it as https://news.example.org/feed")


def _too_large(url: str, limit: int) -> SourceError:
    return SourceError("too_large", f"{shown(url)} is larger than {limit:,} bytes; raise fetch.max_bytes to allow it")


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# ----------------------------------------------------------------------------- whom we may talk to

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# ipaddress.is_global says yes to some of these, depending on Python's version: it is no guard by itself.
_NOT_PUBLIC_4 = [
    ipaddress.IPv4Network(n)
    for n in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")  # what IANA has given out as global unicast
_NOT_PUBLIC_6 = [
    ipaddress.IPv6Network(n)
    for n in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "3ffe::/16")  # Teredo lies in 2001::/23
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Tell whether an address lies in the public internet. Transition forms of IPv6 count as what they lead to."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def look_up(host: str, port: int) -> list[str]:
    """All addresses of *host*. Numbers in strange clothes ("0", "2130706433", "0x7f.1") come out as what they are."""
    try:
        return [socket.inet_ntoa(socket.inet_aton(host))]
    except (OSError, UnicodeError):  # it is no number
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class _Guard(httpcore.NetworkBackend):
    """Dials only addresses that it has looked at itself, and gives every connection one deadline."""

    def __init__(self, allowed: Iterable[str], timeout: float, find: Find) -> None:
        names = [entry.strip().strip("[]").rstrip(".").lower() for entry in allowed]
        self._networks = [network for network in map(_network, names) if network is not None]
        self._names = {name for name in names if _network(name) is None}
        self._timeout, self._find, self._dial = timeout, find, httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        deadline = time.monotonic() + self._timeout
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._vetted(host, port):
            try:
                left = max(0.1, deadline - time.monotonic())
                return _Timed(self._dial.connect_tcp(address, port, left, local_address, socket_options), deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as e:
                failure = e
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise httpcore.UnsupportedProtocol("sockets of this machine are not fetched from")

    def _vetted(self, host: str, port: int) -> list[str]:
        """All addresses of *host*. One that is not public refuses them all: the name may point elsewhere next time."""
        try:
            found = self._find(host, port)
        except (OSError, UnicodeError) as e:
            raise httpcore.ConnectError(f"there is no host {host[:100]!r}") from e
        if host.rstrip(".").lower() not in self._names and not all(self._may_dial(address) for address in found):
            raise SourceError(
                "address_refused",
                f"{host[:100]} is not on the public internet; add it to fetch.allow_hosts if it is meant to be read",
            )
        return found

    def _may_dial(self, text: str) -> bool:
        address = ipaddress.ip_address(text)
        return is_public(address) or any(address in network for network in self._networks)


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


class _Timed(httpcore.NetworkStream):
    """A stream whose reads and writes end at one deadline: a server that sends a byte a minute is not waited for."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def _left(self, timeout: float | None) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for this request is over")
        return left if timeout is None else min(left, timeout)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._left(timeout)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Transport(httpx.BaseTransport):
    """httpx over an httpcore pool of our own; no connection is kept, so that each request is looked at and timed."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        context = httpx.create_ssl_context(trust_env=False)
        self._pool = httpcore.ConnectionPool(ssl_context=context, network_backend=backend, max_keepalive_connections=0)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        response = self._pool.handle_request(
            httpcore.Request(
                request.method,
                target,
                headers=request.headers.raw,
                content=request.read() or None,
                extensions=request.extensions,
            )
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Stream(response))

    def close(self) -> None:
        self._pool.close()


class _Stream(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with closing(self._response):
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()
