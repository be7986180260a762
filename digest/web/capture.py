"""The mails that the capture server caught instead of sending, to look at: a list, and each as its reader would see it.

Caught mails hold addresses and working tokens. They are served only while mail does not leave (nothing here is
anybody's real mail then) and only to this machine itself: the connection comes from a loopback address, asks for a
loopback name, and was passed on by no proxy. To everybody else the pages do not exist.
"""

from __future__ import annotations

import email
import email.policy
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from digest import ledger
from digest.bootstrap import App
from digest.models import CapturedMail
from digest.web.guards import CONTENT_POLICY, host_name, is_loopback
from digest.web.pages import Pages

_PAGE = 50
_MOST = 2**63 - 1  # what a database takes for an id
_VIEWS = ("phone", "desktop", "text", "headers")
_CLIPPED_AT = 102 * 1024  # what Gmail shows before it cuts
_PROXIED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
#: The frame may show pictures and open links in a new tab; it may run nothing and send nothing.
_FRAME_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src https: http: data:; "
    "style-src 'unsafe-inline'; base-uri 'self'; frame-ancestors 'self'"
)
_PAGE_POLICY = CONTENT_POLICY.replace("style-src", "frame-src 'self'; style-src")


@dataclass(frozen=True, slots=True)
class Parts:
    """A mail taken apart for showing."""

    headers: str
    text: str
    html: str
    html_size: int
    text_size: int


def routes(app: App, pages: Pages) -> list[Route]:
    look = Look(app, pages)
    return [
        Route("/captured", look.list, methods=["GET"]),
        Route("/captured/{id:int}", look.mail, methods=["GET"]),
        Route("/captured/{id:int}/html", look.html, methods=["GET"]),
    ]


class Look:
    def __init__(self, app: App, pages: Pages) -> None:
        self.app, self.pages = app, pages

    def _admit(self, request: Request) -> None:
        near = request.client is not None and is_loopback(request.client.host)
        named = is_loopback(host_name(request.headers.get("host", "")))
        passed_on = any(name in request.headers for name in _PROXIED)
        if not near or not named or passed_on or self.app.live:
            raise HTTPException(404)

    def _caught(self, session: Session, request: Request) -> CapturedMail:
        found = ledger.captured_mail(session, min(request.path_params["id"], _MOST))
        if found is None:
            raise HTTPException(404)
        return found

    def list(self, request: Request) -> Response:
        self._admit(request)
        before = request.query_params.get("before", "")
        with self.app.db.reading() as session:
            mails = ledger.captured(session, _PAGE + 1, int(before[:18]) if before.isdecimal() else None)
            rows: list[dict[str, Any]] = [
                {"id": m.id, "to": ", ".join(map(str, m.rcpt_to)), "subject": m.subject or "(no subject)",
                 "at": m.received_at, "size": m.size}
                for m in mails
            ]  # fmt: skip
            brand = self.pages.brand(session)
        older = rows[_PAGE - 1]["id"] if len(rows) > _PAGE else None
        return self.pages.show(
            "public/captured.html", brand, private=True, mails=rows[:_PAGE], older=older, newest=not before
        )

    def mail(self, request: Request) -> Response:
        self._admit(request)
        view = request.query_params.get("view", "desktop")
        if view not in _VIEWS:
            raise HTTPException(404)
        with self.app.db.reading() as session:
            found = self._caught(session, request)
            mail = {
                "id": found.id, "subject": found.subject or "(no subject)", "at": found.received_at, "size": found.size,
                "mail_from": found.mail_from, "to": ", ".join(map(str, found.rcpt_to)),
            }  # fmt: skip
            parts, brand = take_apart(found.message), self.pages.brand(session)
        if not parts.html and view in ("phone", "desktop"):
            view = "text"
        return self.pages.show(
            "public/captured_mail.html", brand, private=True, mail=mail, parts=parts, view=view,
            clipped=parts.html_size > _CLIPPED_AT, headers={"content-security-policy": _PAGE_POLICY},
        )  # fmt: skip

    def html(self, request: Request) -> Response:
        """The HTML part alone, for the frame: as it was sent, but that links open beside it."""
        self._admit(request)
        with self.app.db.reading() as session:
            html = take_apart(self._caught(session, request).message).html
        headers = {
            "content-security-policy": _FRAME_POLICY,
            "x-frame-options": "SAMEORIGIN",
            "cache-control": "no-store",
            "x-robots-tag": "noindex, nofollow",
        }
        return HTMLResponse(_with_base(html), headers=headers)


def _with_base(html: str) -> str:
    at = html.lower().find("<head>")
    return f'{html[: at + 6]}<base target="_blank">{html[at + 6 :]}' if at >= 0 else f'<base target="_blank">{html}'


def take_apart(message: bytes) -> Parts:
    """The parts of a mail, whatever state it is in: what cannot be read shows as it came."""
    head, _, _ = message.replace(b"\r\n", b"\n").partition(b"\n\n")
    parsed = email.message_from_bytes(message, _class=EmailMessage, policy=email.policy.default)
    html, html_size = _body(parsed, "text/html")
    text, text_size = _body(parsed, "text/plain")
    return Parts(head.decode("utf-8", "replace"), text, html, html_size, text_size)


def _body(message: EmailMessage, kind: str) -> tuple[str, int]:
    for part in message.walk():
        if part.get_content_type() == kind and not part.is_multipart():
            payload = part.get_payload(decode=True)
            raw = payload if isinstance(payload, bytes) else b""
            try:
                text = raw.decode(part.get_content_charset("utf-8"), "replace")
            except LookupError:  # a charset that does not exist
                text = raw.decode("utf-8", "replace")
            return text.replace("\x00", "\ufffd"), len(raw)
    return "", 0
