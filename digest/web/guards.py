"""What every request passes before a page runs: is it for us, does it come from our own pages, what may the answer do.

Raw ASGI, in this order: security headers (on refusals too), host, cross-site. Reads neither bodies nor the database.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_POLICY = (
    "default-src 'none'; style-src 'self'; img-src https: data: 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_SECURITY = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: browsers would then send "Origin: null" with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_READING = ("GET", "HEAD", "OPTIONS", "TRACE")


class SecurityHeaders:
    """Sets what a page has not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class HostCheck:
    """Answers under the public URL's host and on loopback; a request for any other host is not for us.

    Links are made from the settings alone, so that a forged Host reaches no mail; this keeps it out of pages and caches
    too, and keeps other people's names off this machine (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], public_url: str) -> None:
        self.app, self.hosts, self.public_url = app, {h.lower() for h in hosts}, public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/health/"):  # probes ask by address
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or not self._is_ours(hosts[0]):
                answer = PlainTextResponse(f"This site is found at {self.public_url}\n", status_code=400)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        name = host_name(host)
        return name in self.hosts or is_loopback(name)


class SameOrigin:
    """Refuses requests that change something and come from another site's page; browsers say so in a header.

    Clients that are no browsers say nothing and pass: there are no cookies that they could misuse. ``/unsubscribe/``
    is exempt: its token is the permission, and mailbox providers post to it from wherever they are (RFC 8058 §3.2).
    """

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self.app = app
        self.public_origin = _origin(public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_foreign(scope):
            sentence = "This form was sent from another site; open it on this one and try again.\n"
            await PlainTextResponse(sentence, status_code=403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        if scope["method"] in _READING or scope["path"].startswith("/unsubscribe/"):
            return False
        headers = Headers(scope=scope)
        if site := headers.get("sec-fetch-site"):
            return site not in ("same-origin", "none")
        origin = headers.get("origin")
        if origin is None:
            return False
        return origin.lower() not in (self.public_origin, f"{scope['scheme']}://{headers.get('host', '')}".lower())


def host_name(host: str) -> str:
    """The name in a Host header, without its port; nothing if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    return "" if parts.path or parts.query or parts.username is not None else (parts.hostname or "").rstrip(".")


def is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()
