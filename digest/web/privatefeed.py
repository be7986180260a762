"""A reader's own feed over HTTP, and the buttons on their preferences page that make, renew and end it.

The token in the address is the permission; it is in no log, and no shared cache may keep what it opens.
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from digest import audience
from digest.bootstrap import App
from digest.feeds import FORMATS
from digest.publishing import PRIVATE, make_entry, read_private
from digest.web.conditions import Asked, decide
from digest.web.pages import Pages
from digest.web.public import posted

_MAX_AGE_S = 900
_KEPT = {
    "cache-control": f"private, max-age={_MAX_AGE_S}", "vary": "Accept-Encoding", "x-robots-tag": "noindex",
    "referrer-policy": "no-referrer", "accept-ranges": "none",
}  # fmt: skip


def routes(app: App, pages: Pages) -> list[Route]:
    desk = PrivateFeeds(app, pages)
    return [
        Route(PRIVATE + "{token}.{extension}", desk.feed, methods=["GET"]),
        Route("/preferences/{token}/feed", posted(desk.change), methods=["POST"]),
    ]


class PrivateFeeds:
    def __init__(self, app: App, pages: Pages) -> None:
        self.app, self.pages = app, pages

    async def feed(self, request: Request) -> Response:
        return await run_in_threadpool(self._feed, request)

    def _feed(self, request: Request) -> Response:
        token, extension = request.path_params["token"], request.path_params["extension"]
        if extension not in FORMATS:
            raise HTTPException(404)
        ids = self.app.tokens.read("feed", token)
        if len(ids) != 2:
            raise HTTPException(404)
        with self.app.db.reading() as session:
            if audience.private_serial(session, ids[0]) != ids[1]:
                return self.pages.trouble(
                    410, "This feed was ended. The preferences page in our mails makes a new one."
                )
            view = read_private(session, ids[0], token, self.app.settings.public_url)
            counted = audience.private_polled_today(session, ids[0], now := self.app.db.now())
        if not counted:
            with self.app.db.transaction() as session:
                audience.note_private_poll(session, ids[0], now)
        entry = make_entry(view, request.url.path, extension, None)
        # No date: what leaves the feed changes it without moving the date of anything that stays.
        status, coding, coded = decide(
            entry, Asked(_field(request, "accept-encoding"), _field(request, "if-none-match"))
        )
        if coded is None:
            return self.pages.trouble(status)
        headers = {**_KEPT, "etag": coded.etag}
        if status == 304:
            return Response(status_code=304, headers=headers)
        if coding:
            headers["content-encoding"] = coding
        return Response(coded.body, headers={**headers, "content-type": entry.content_type})

    def change(self, request: Request, form: FormData) -> Response:
        """``feed=new`` makes one or gives it a new address, ``feed=off`` ends it."""
        token = request.path_params["token"]
        (subscriber_id,) = self.app.tokens.read("preferences", token)
        with self.app.db.transaction() as session:
            if form.get("feed") == "new":
                audience.open_private_feed(session, subscriber_id, self.app.db.now())
            elif form.get("feed") == "off":
                audience.close_private_feed(session, subscriber_id)
        return RedirectResponse(f"{self.pages.base}/preferences/{token}#feed", 303)


def _field(request: Request, name: str) -> bytes | None:
    lines = request.headers.getlist(name)
    return ",".join(lines).encode("latin-1") if lines else None
