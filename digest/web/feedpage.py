"""A feed as a person sees it who opens its address: what a feed is, how to follow it, what is in it. Works without
scripts; a script of two lines copies the address.

Only browsers come here, and they say so (``Sec-Fetch-Dest: document``): see `FeedsApp`.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from digest.bootstrap import App
from digest.feeds import FORMATS, tidy
from digest.publishing import selector_of
from digest.web.feeds import VARY
from digest.web.guards import CONTENT_POLICY
from digest.web.pages import Pages

_SHOWN = 20
#: Where a reader's own service takes a feed: name, and what stands before the feed's address.
_SERVICES = (
    ("Feedly", "https://feedly.com/i/subscription/feed/"),
    ("Inoreader", "https://www.inoreader.com/?add_feed="),
    ("NewsBlur", "https://www.newsblur.com/?url="),
    ("Feedbin", "https://feedbin.com/?subscribe="),
    ("The Old Reader", "https://theoldreader.com/feeds/subscribe?url="),
)
_COPY = """\
const button = document.getElementById("copy"), address = document.getElementById("address");
button.hidden = false;
button.addEventListener("click", async () => {
  address.select();
  try { await navigator.clipboard.writeText(address.value); } catch { document.execCommand("copy"); }
  button.textContent = button.dataset.done;
});
"""


def routes(app: App, pages: Pages) -> list[Route]:
    def show(path: str) -> Response:
        slot = app.shelf.ready(path) or app.shelf.refresh(path).result()
        if slot.moved:
            return RedirectResponse(pages.base + quote(slot.moved, safe="/:+"), 301)
        if slot.gone:
            return pages.trouble(410, "This feed is no more. The topics page lists those there are.")
        view = app.shelf.view(path) if slot.entry is not None else None
        if view is None:
            raise HTTPException(404)
        with app.db.reading() as session:
            brand = pages.brand(session)
        view, extension = tidy(view), path.rpartition(".")[2]
        url = f"{view.url}.{extension}"
        return pages.show(
            "public/feed.html", brand, feed=view, url=url, format=FORMATS[extension].name, shown=view.items[:_SHOWN],
            formats=[(fmt.name, f"{view.url}.{name}") for name, fmt in FORMATS.items()],
            services=[(name, before + quote(url, safe="")) for name, before in _SERVICES],
            older=f"{view.older_url}.{extension}" if view.older_url else "",
            feeds={view.title: view.url},
            headers={
                "cache-control": "public, max-age=60", "vary": VARY.decode(), "x-robots-tag": "noindex",
                "content-security-policy": f"{CONTENT_POLICY}; script-src 'self'",
            },
        )  # fmt: skip

    async def feed(request: Request) -> Response:
        path = f"/feeds/{request.path_params['path']}"
        if selector_of(path) is None:
            raise HTTPException(404)
        return await run_in_threadpool(show, path)

    def script(request: Request) -> Response:
        return Response(_COPY, media_type="text/javascript", headers={"cache-control": "public, max-age=86400"})

    return [Route("/feeds/{path:path}", feed, methods=["GET"]), Route("/static/copy.js", script, methods=["GET"])]
