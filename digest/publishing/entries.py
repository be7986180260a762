"""A feed's bytes in every content coding, with their ETags and date: the same in every process."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import brotli

from digest.feeds import FORMATS
from digest.types import FeedView

_HEADER_SAFE = re.compile(r"[\x21-\x7e ]+\Z")


@dataclass(frozen=True, slots=True)
class Coded:
    """A body in one content coding and its strong ETag (RFC 9110 §8.8.3.3: one for each coding).

    ``heads``: room for what the server makes of them once.
    """

    body: bytes
    etag: str
    heads: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


def _coded(body: bytes) -> Coded:
    return Coded(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@dataclass(frozen=True, slots=True)
class Entry:
    """A feed in one format, ready to be written out. ``modified``: a whole second. ``link``: as a header says it."""

    path: str
    content_type: str
    modified: datetime
    plain: Coded
    gzip: Coded
    br: Coded
    link: str = ""

    @property
    def size(self) -> int:
        return len(self.plain.body) + len(self.gzip.body) + len(self.br.body) + 1_000


def make_entry(view: FeedView, path: str, extension: str, modified: datetime | None) -> Entry:
    fmt = FORMATS[extension]
    # W3C WebSub §4: a topic names its hubs and itself
    links = [*(f'<{hub}>; rel="hub"' for hub in view.hubs), f'<{view.url}.{extension}>; rel="self"']
    link = ", ".join(links) if view.hubs and all(map(_HEADER_SAFE.match, links)) else ""
    return packed(fmt.write(view), path, fmt.content_type, modified or view.updated, link)


def packed(body: bytes, path: str, content_type: str, modified: datetime, link: str = "") -> Entry:
    return Entry(
        path=path,
        content_type=content_type,
        modified=modified.replace(microsecond=0),
        plain=_coded(body),
        gzip=_coded(gzip.compress(body, 6, mtime=0)),
        br=_coded(brotli.compress(body, mode=brotli.MODE_TEXT, quality=5)),  # 6 saves a hundredth for a third more time
        link=link,
    )
