"""What all pages share: templates, the style sheet with the brand's colours, feeds to discover, how errors look.

Templates escape everything; a link goes through ``url``, which lets http(s) alone through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from digest import catalogue
from digest.bootstrap import App
from digest.feeds import FORMATS
from digest.paths import shipped
from digest.rendering.links import safe_url
from digest.rendering.palette import palette
from digest.rendering.view import clean
from digest.types import Brand

_PRIVATE = {"cache-control": "no-store", "x-robots-tag": "noindex, nofollow"}


class Pages:
    """Renders pages of one publication."""

    def __init__(self, app: App) -> None:
        self.app = app
        folders = [shipped("templates") / "web"]
        if app.settings.templates_dir:
            folders.insert(0, app.settings.templates_dir / "web")
        self._templates = Environment(
            loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters |= {"url": safe_url, "line": clean_line, "day": day, "number": "{:,}".format}
        self._css = "".join(
            next(f / "public" / "site.css" for f in folders if (f / "public" / "site.css").is_file()).read_text("utf-8")
        )
        #: Path that the public URL puts before ours.
        self.base = urlsplit(app.settings.public_url).path.rstrip("/")

    def brand(self, session: Session) -> Brand:
        return catalogue.brand(session, self.app.settings.public_url)

    def show(
        self, template: str, brand: Brand, *, status: int = 200, private: bool = False,
        feeds: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None, **values: Any,
    ) -> Response:  # fmt: skip
        """A page. ``feeds``: those to discover beside the one of everything, title → address or path, without
        its extension."""
        named = {brand.name: "/feeds/all", **(feeds or {})}
        public = self.app.settings.public_url
        alternates = self.alternates({title: url if "://" in url else public + url for title, url in named.items()})
        html = self._templates.get_template(template).render(
            brand=brand,
            base=self.base,
            style=f"{self.base}/static/site.css?v={_sheet(self._css, brand.accent)[1]}",
            alternates=alternates,
            private=private,
            **values,
        )
        return HTMLResponse(html, status, headers={**(_PRIVATE if private else {}), **(headers or {})})

    @staticmethod
    def alternates(feeds: Mapping[str, str]) -> list[dict[str, str]]:
        """The links by which a page names its feeds: title → address without the extension."""
        return [
            {"type": fmt.media_type, "title": f"{title} ({fmt.name})", "href": f"{url}.{extension}"}
            for title, url in feeds.items()
            for extension, fmt in FORMATS.items()
        ]

    def style_sheet(self, request: Request) -> Response:
        """The one style sheet; its address changes with it, so that it may be kept for ever."""
        with self.app.db.reading() as session:
            css, version = _sheet(self._css, self.brand(session).accent)
        fresh = request.query_params.get("v") == version
        age = "public, max-age=31536000, immutable" if fresh else "no-cache"
        headers = {"cache-control": age, "etag": f'"{version}"'}
        if request.headers.get("if-none-match") == f'"{version}"':
            return Response(status_code=304, headers=headers)
        return Response(css, media_type="text/css", headers=headers)

    def trouble(self, status: int, sentence: str = "") -> Response:
        """A page that says what is wrong; it needs no database."""
        title = _TROUBLE.get(status, HTTPStatus(status).phrase)
        headers = {"retry-after": "60"} if status in (429, 503) else None
        return self.show(
            "public/trouble.html", _nameless(self.app), status=status, private=True, title=title,
            sentence=sentence or _SENTENCES.get(status, ""), headers=headers,
        )  # fmt: skip


def _nameless(app: App) -> Brand:
    return Brand(name=urlsplit(app.settings.public_url).hostname or "", url=app.settings.public_url)


@lru_cache(maxsize=8)
def _sheet(css: str, accent: str) -> tuple[str, str]:
    """The sheet with the brand's colours, and a name for this very text."""
    colours = palette(accent)
    whole = css
    for name in ("accent", "on_accent", "ink", "ink_dark"):
        whole = whole.replace(f"var(--brand-{name.replace('_', '-')})", colours[name])
    return whole, hashlib.sha256(whole.encode()).hexdigest()[:12]


def clean_line(text: str, limit: int = 300) -> str:
    return clean(text, limit)


def day(when: datetime, *, year: bool = True) -> str:
    """Monday 14 July 2025, on the clock that *when* carries."""
    return f"{when:%A} {when.day} {when:%B}" + (f" {when.year}" if year else "")


_TROUBLE = {
    400: "That did not work",
    403: "Not from there",
    404: "There is nothing here",
    410: "No more",
    405: "Not that way",
    413: "That is too much",
    429: "Too many requests",
    500: "Something broke",
    503: "Back in a moment",
}
_SENTENCES = {
    400: "The request could not be read.",
    404: "The page may have moved. The list of editions and the topics are still where they were.",
    405: "This address does not take that kind of request.",
    413: "What was sent is larger than any of our forms.",
    429: "Please wait a minute and try again.",
    500: "It is our fault and has been noted. Please try again later.",
    503: "The site cannot reach its own data just now. Please try again in a minute.",
}
