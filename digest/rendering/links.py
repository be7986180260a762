"""Links of a mail: which may stand in it, which are the publication's own, and what is added to those.

Owns the parameters (``utm_source`` and the like) of a digest. Feeds and pages never come here: their links stay bare.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from digest.errors import RenderError
from digest.rendering import sandbox
from digest.types import EditionView

MAX_URL = 2_000
_NOT_IN_URL = re.compile("[\x00-\x20\x7f-\x9f\"'<>\\\\^`{|}\u2028\u2029\ud800-\udfff]")
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?(?:[/?#][A-Za-z0-9._~!$&()*+,;=:@%/?#-]*)?")
_MAILTO = re.compile(r"mailto:[^\s@\"'<>\\:]{1,64}@[A-Za-z0-9.-]{1,255}")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,40}")
_SAMPLE = {
    "digest": {"name": "Morning", "slug": "morning"},
    "edition": {"date": "Tuesday, 14 July 2026", "day": "2026-07-14", "url": "https://news.example/archive", "id": 1},
    "brand": {"name": "News", "url": "https://news.example/"},
}


def safe_url(url: str) -> str:
    """Return *url* if it is an absolute http(s) link that can stand in an attribute, else ``""``."""
    url = url.strip()
    if _PLAIN_URL.fullmatch(url) and len(url) <= MAX_URL:
        return url
    if len(url) > MAX_URL or _NOT_IN_URL.search(url):
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme.lower() in ("http", "https") and parts.hostname else ""


def safe_link(url: str) -> str:
    """As `safe_url`, for what an admin wrote: an address to write to is a link too."""
    return url if _MAILTO.fullmatch(url) else safe_url(url)


def check_params(template: str) -> None:
    """Raise RenderError unless *template* is a query string that may be added to links."""
    parse_params(template, _SAMPLE)


@lru_cache(maxsize=256)
def _pairs(template: str) -> tuple[tuple[str, str], ...]:
    pairs = [part.partition("=") for part in re.split(r"&(?![^{]*\}\})", template.strip().lstrip("?")) if part.strip()]
    for key, equals, value in pairs:
        if not equals or not _KEY.fullmatch(key.strip()) or not value.strip():
            raise RenderError(
                f"the link parameters: {key + equals + value!r} does not read NAME=VALUE; write them as"
                " utm_source=digest&utm_medium=email"
            )
    return tuple((key.strip(), value.strip()) for key, _, value in pairs)


def parse_params(template: str, values: dict[str, object]) -> tuple[tuple[str, str], ...]:
    """``utm_source=digest&utm_campaign={{ digest.slug }}`` → names and values, filled in and spelled for URLs."""
    return tuple(
        (key, quote(unquote(sandbox.render_line(value, values, "link parameters")), safe=""))
        for key, value in _pairs(template)
    )


@lru_cache(maxsize=256)
def own_links(view: EditionView) -> OwnLinks:
    """The links of an edition's mails; the same for all its variants."""
    values: dict[str, object] = {
        "digest": {"name": view.digest_name, "slug": view.digest_slug},
        "edition": {"id": view.edition_id, "day": view.local_date.date().isoformat(), "date": "", "url": ""},
        "brand": {"name": view.brand.name, "url": view.brand.url},
    }
    hosts = (view.home_url, view.brand.url, view.brand.site_url)
    return OwnLinks({_site(host) for host in hosts} - {""}, parse_params(view.link_params, values))


class OwnLinks:
    """Adds *params* to links that lead to *sites* or below them. What a link says already is never replaced."""

    def __init__(self, sites: set[str], params: tuple[tuple[str, str], ...]) -> None:
        self._sites, self._params = sites, params

    def __call__(self, url: str) -> str:
        """*url* as a mail may carry it: ``""`` if it may not."""
        url = safe_url(url)
        if not self._params or not url or not self.owns(url):
            return url
        address, hash_, fragment = url.partition("#")
        _, _, query = address.partition("?")
        said = {key.casefold() for key, _ in parse_qsl(query, keep_blank_values=True)}
        added = "&".join(f"{key}={value}" for key, value in self._params if key.casefold() not in said)
        if not added:
            return url
        joint = "?" if "?" not in address else "" if address.endswith(("?", "&")) else "&"
        longer = f"{address}{joint}{added}{hash_}{fragment}"
        return longer if len(longer) <= MAX_URL else url

    def owns(self, url: str) -> bool:
        host = _site(url)
        return any(host == site or host.endswith("." + site) for site in self._sites)


def _site(url: str) -> str:
    """The host of *url* without its ``www.``."""
    try:
        return (urlsplit(url).hostname or "").lower().removeprefix("www.")
    except ValueError:
        return ""
