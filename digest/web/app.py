"""The whole web door as one ASGI application, and the server that runs it.

    feeds ──▶ security headers ──▶ host ──▶ cross-site ──▶ size of the body ──▶ pages, captured mail, health

Feeds stand in front because they are most of all requests; they carry their own headers and read nothing of the Host.
Not here: what pages show (public, capture), what guards refuse (guards).
"""

from __future__ import annotations

import logging

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from digest.bootstrap import App
from digest.db import current_revision, head_revision
from digest.errors import DatabaseError, DigestError, TokenInvalid
from digest.publishing import ReaderCounts
from digest.web import capture, feedpage, hooks, privatefeed, public
from digest.web.feeds import FeedsApp
from digest.web.guards import HostCheck, SameOrigin, SecurityHeaders, host_name
from digest.web.lane import lane
from digest.web.pages import Pages

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024


def create_app(app: App, get: hooks.Get | None = None) -> ASGIApp:
    """Everything that is served over HTTP. *get*: see `hooks.routes`."""
    public_url = app.settings.public_url
    guarded: ASGIApp = _limited(_pages(app, get))
    guarded = SameOrigin(guarded, public_url)
    guarded = HostCheck(guarded, {_host(public_url), app.settings.web.host}, public_url)
    return FeedsApp(app.shelf, SecurityHeaders(guarded), ReaderCounts(app.db), app.settings.feeds.unready_per_minute)


def _limited(pages: ASGIApp) -> ASGIApp:
    """Bodies of forms are short; a hook may bring a whole message."""
    forms, machines = RequestBodyLimitMiddleware(pages, MAX_BODY), RequestBodyLimitMiddleware(pages, hooks.MAX_BODY)

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        of_machines = scope["type"] == "http" and scope["path"].startswith("/hooks/")
        await (machines if of_machines else forms)(scope, receive, send)

    return choose


def _host(url: str) -> str:
    return host_name(url.partition("//")[2].partition("/")[0])


def _pages(app: App, get: hooks.Get | None) -> Starlette:
    pages = Pages(app)

    async def ready(request: Request) -> Response:
        problem = await run_in_threadpool(not_ready, app)
        return JSONResponse({"status": problem or "ok"}, 503 if problem else 200, headers=_NOT_KEPT)

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = pages.trouble(error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    def invalid(request: Request, error: Exception) -> Response:
        sentence = str(error)
        return pages.trouble(404, f"{sentence[:1].upper()}{sentence[1:]}.")

    def down(request: Request, error: Exception) -> Response:
        log.error("a page could not be served: %s", error)
        return pages.trouble(503)

    def broken(request: Request, error: Exception) -> Response:
        log.exception("a page failed", exc_info=error)
        return pages.trouble(500)

    return Starlette(
        routes=[
            *public.routes(app, pages),
            *capture.routes(app, pages),
            *privatefeed.routes(app, pages),
            *feedpage.routes(app, pages),
            *hooks.routes(app, get),
            Route("/static/site.css", pages.style_sheet, methods=["GET"]),
            Route("/health/live", live, methods=["GET"]),
            Route("/health/ready", ready, methods=["GET"]),
        ],
        exception_handlers={
            HTTPException: refused,
            TokenInvalid: invalid,
            DatabaseError: down,
            DigestError: down,
            Exception: broken,
        },
    )


_NOT_KEPT = {"cache-control": "no-store"}


async def live(request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"}, headers=_NOT_KEPT)


def not_ready(app: App) -> str:
    """Why this process cannot serve readers; nothing if it can."""
    try:
        revision = current_revision(app.db)
    except DatabaseError:
        return "the database cannot be reached"
    return "" if revision == head_revision() else "the database wants `digest db upgrade`"


def server(app: App, host: str, port: int) -> uvicorn.Server:
    """A server that was not started yet. It keeps no access log: addresses of requests hold tokens."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(app),
            host=host,
            port=port,
            http=lane(app.shelf),
            lifespan="off",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=10,
        )
    )


def serve(app: App, host: str, port: int) -> None:
    """Serve until told to stop."""
    server(app, host, port).run()
