"""A feed's bytes in every content coding, with their ETags and date: the same in every process."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from datetime import datetime

import brotli

from digest.feeds import FORMATS
from digest.types import FeedView


@dataclass(frozen=True, slots=True)
class Coded:
    """A body in one content coding and its strong ETag (RFC 9110 §8.8.3.3: one for each coding)."""

    body: bytes
    etag: str


def _coded(body: bytes) -> Coded:
    return Coded(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@dataclass(frozen=True, slots=True)
class Entry:
    """A feed in one format, ready to be written out. ``modified``: a whole second."""

    path: str
    content_type: str
    modified: datetime
    plain: Coded
    gzip: Coded
    br: Coded

    @property
    def size(self) -> int:
        return len(self.plain.body) + len(self.gzip.body) + len(self.br.body) + 1_000


def make_entry(view: FeedView, path: str, extension: str, modified: datetime | None) -> Entry:
    body = FORMATS[extension].write(view)
    return Entry(
        path=path,
        content_type=FORMATS[extension].content_type,
        modified=(modified or view.updated).replace(microsecond=0),
        plain=_coded(body),
        gzip=_coded(gzip.compress(body, 6, mtime=0)),
        br=_coded(brotli.compress(body, mode=brotli.MODE_TEXT, quality=6)),
    )
