"""Addresses: made absolute, and spelled one way so that they can be compared."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from digest.text.characters import strip_controls

MAX_URL = 2_000

#: Parameters that only say who sent a reader. at_*: the BBC's feeds.
_TRACKING = re.compile(
    r"(?:utm_|mtm_|matomo_|piwik_|pk_|hsa_|at_|_hs).*|(?:fb|g|d|y|tw|tt|msclk)clid|msclkid|[gw]braid|fb_ref|fb_source"
    r"|mc_[ce]id|mkt_tok|igsh(?:id)?|oly_(?:anon|enc)_id|vero_id|wickedid|srsltid|xtor|ns_(?:campaign|mchannel|source"
    r"|linkname|fee)|s_cid|cmpid|_ga|_gl|_openstat|__s|hsctatracking|trk|ref_src",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*|[0-9a-f:.]*:[0-9a-f:.]*")
_BREAKS = str.maketrans("", "", "\t\n")  # browsers read across them (WHATWG URL §4.4)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNSAFE = re.compile(r"[^!#$%&'()*+,/:;=?@\[\]~\w.-]|[^\x00-\x7f]|%(?![0-9A-Fa-f]{2})", re.ASCII)


def canonical_url(url: str, base: str | None = None) -> str | None:
    """Return the one spelling of an http(s) address under which we compare it, or None if it is none.

    Scheme and host in lower case, IDNA, no user, no default port, dots resolved, no fragment (but for "#!"), no
    tracking parameters; all else as it stands and in its order: "/?p=123" is an article of its own.
    """
    return normal_url(url, base, keep_fragment=False)


def normal_url(url: str, base: str | None = None, *, keep_fragment: bool = True) -> str | None:
    """The work of `canonical_url`; a link that readers follow keeps its fragment."""
    absolute = resolve(url, base)
    if absolute is None or absolute.startswith("mailto:"):
        return None
    try:
        parts = urlsplit(absolute.replace("\\", "/"))  # browsers read a backslash so: no second reading of the host
        host, port = _place(parts.netloc)
    except ValueError:  # a port of letters, a bracket too few, a label too long
        return None
    if host is None:
        return None
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        host += f":{port}"
    query = "&".join(p for p in parts.query.split("&") if p and not _TRACKING.fullmatch(unquote(p.partition("=")[0])))
    fragment = parts.fragment if keep_fragment or parts.fragment.startswith("!") else ""
    whole = f"{parts.scheme}://{host}{_spelled(_undotted(parts.path))}"
    whole += f"?{_spelled(query)}" * bool(query) + f"#{_spelled(fragment)}" * bool(fragment)
    return whole if len(whole) <= MAX_URL else None


def resolve(url: str, base: str | None = None) -> str | None:
    """Return *url* as an absolute http, https or mailto address, otherwise as it was given, or None."""
    if url.startswith(("https://", "http://")) and url.isascii() and url.isprintable() and len(url) <= 4 * MAX_URL:
        return url.rstrip()
    url = strip_controls(url[: 4 * MAX_URL].strip()).translate(_BREAKS)
    if not _SCHEME.match(url):
        if base is None or not url:
            return f"https:{url}" if url.startswith("//") else None
        try:
            url = urljoin(base, url)
        except ValueError:
            return None
    scheme, _, rest = url.partition(":")
    scheme = scheme.lower()
    if scheme == "mailto" or (scheme in ("http", "https") and rest.startswith(("//", "\\\\", "/\\", "\\/"))):
        return f"{scheme}:{rest}"
    return None


@lru_cache(maxsize=512)  # one site, over and over
def _place(netloc: str) -> tuple[str | None, int | None]:
    """Host and port, without a user; a ValueError where they are none."""
    parts = SplitResult("", netloc, "", "", "")
    return _host(parts), parts.port


def _host(parts: SplitResult) -> str | None:
    host = unquote(parts.hostname or "").rstrip(".")
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if not _HOST.fullmatch(host):
        return None
    return f"[{host}]" if ":" in host else host


def _undotted(path: str) -> str:
    """RFC 3986 §5.2.4, for paths of absolute addresses."""
    if "/." not in path:
        return path or "/"
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if path.endswith(("/.", "/..")):
        kept.append("")
    return "/" + "/".join(kept)


def _spelled(part: str) -> str:
    """One spelling of percent-encoding: unreserved characters bare (RFC 3986 §6.2.2.2), the rest in upper case."""
    part = _UNSAFE.sub(lambda m: "".join(f"%{byte:02X}" for byte in m[0].encode()), part)
    return _ESCAPE.sub(_unescaped, part)


def _unescaped(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return char if char.isascii() and (char.isalnum() or char in "-._~") else match[0].upper()
