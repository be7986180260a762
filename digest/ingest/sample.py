"""The demo's site: real articles, dated anew so that the newest are from today.

Owns the dates alone; the file it writes is read as any other export. The same instant gives the same bytes.
"""

from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256
from pathlib import Path

from digest.paths import shipped

_WEEK = timedelta(days=7)
_REST = timedelta(days=28)
_SHARE_OF_WEEK = 0.4  # of all articles, so that a daily digest has enough and a weekly one much
_STAMP = re.compile(r"<(pubDate|wp:post_date|wp:post_date_gmt|wp:post_modified_gmt)>[^<]*</\1>")


def write_sample(folder: Path, at: datetime) -> Path:
    """Write the sample site as of *at* into *folder* and return the file: a source of kind ``wxr``."""
    text = gzip.decompress((shipped("config") / "sample" / "site.xml.gz").read_bytes()).decode()
    head, *items = text.split("<item>\n")
    dates = sample_dates(len(items), at)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sample-site.xml"
    path.write_text("<item>\n".join([head, *map(_dated, items, dates)]), encoding="utf-8")
    return path


def sample_dates(count: int, at: datetime) -> list[datetime]:
    """Dates for *count* articles, newest first: from the day of *at* (UTC) back over 35 days, the last week densely."""
    at = at.astimezone(UTC).replace(microsecond=0)
    midnight = at.replace(hour=0, minute=0, second=0)
    newest = min(timedelta(hours=2), (at - midnight) / 2)
    recent = round(count * _SHARE_OF_WEEK)
    ages = [newest + _step(n, recent, _WEEK - newest) for n in range(recent)]
    ages += [_WEEK + _step(n, count - recent, _REST) for n in range(count - recent)]
    return [(at - age).replace(microsecond=0) for age in ages]


def _step(n: int, count: int, span: timedelta) -> timedelta:
    """The n-th of *count* places in *span*, a little off the beat, as people publish; the first is at its start."""
    off = int.from_bytes(sha256(str(n).encode()).digest()[:2], "big") / 65_536 * 0.8 if n else 0.0
    return span * ((n + off) / count)


def _dated(item: str, date: datetime) -> str:
    return _STAMP.sub(lambda m: f"<{m[1]}>{_spelled(m[1], date)}</{m[1]}>", item)


def _spelled(element: str, date: datetime) -> str:
    return format_datetime(date) if element == "pubDate" else date.strftime("%Y-%m-%d %H:%M:%S")
