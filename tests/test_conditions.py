"""Conditional requests as RFC 9110 §13 has them, case by case."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from digest.publishing.entries import Entry, packed
from digest.web.conditions import Asked, decide

WHEN = datetime(2025, 7, 14, 5, 0, 0, tzinfo=UTC)
ENTRY: Entry = packed(b"<rss/>" * 50, "/feeds/all.rss", "application/rss+xml", WHEN)
PLAIN, GZIP, BR = ENTRY.plain.etag, ENTRY.gzip.etag, ENTRY.br.etag
SAME, OLD, NEW = "Mon, 14 Jul 2025 05:00:00 GMT", "Mon, 14 Jul 2025 04:59:59 GMT", "Mon, 14 Jul 2025 05:00:01 GMT"
FUTURE = "Fri, 01 Jan 2100 00:00:00 GMT"

#: Fields → status, or status and coding.
CASES: list[tuple[dict[str, str], object]] = [
    # no condition
    ({}, 200),
    # If-None-Match (§13.1.2): weak comparison, lists, any
    ({"if_none_match": PLAIN}, 304),
    ({"if_none_match": f"W/{PLAIN}"}, 304),
    ({"if_none_match": f"w/{PLAIN}"}, 304),
    ({"if_none_match": f' "a" , {PLAIN} '}, 304),
    ({"if_none_match": f'"a",W/"b",W/{PLAIN},"c"'}, 304),
    ({"if_none_match": f'"a,b", {PLAIN}'}, 304),
    ({"if_none_match": ", ".join(f'"{n}"' for n in range(100)) + f", {PLAIN}"}, 304),
    ({"if_none_match": ", ".join(f'"{n}"' for n in range(100))}, 200),
    ({"if_none_match": "*"}, 304),
    ({"if_none_match": " * "}, 304),
    ({"if_none_match": '"*"'}, 200),
    ({"if_none_match": '"other"'}, 200),
    ({"if_none_match": 'W/"other"'}, 200),
    ({"if_none_match": ""}, 200),
    ({"if_none_match": '""'}, 200),
    ({"if_none_match": PLAIN.strip('"')}, 200),
    ({"if_none_match": PLAIN.upper()}, 200),
    ({"if_none_match": PLAIN[:-2] + '"'}, 200),
    ({"if_none_match": f'"x{PLAIN[1:]}'}, 200),
    ({"if_none_match": "x" * 1_000_000}, 200),
    ({"if_none_match": '"' * 10_000}, 200),
    # an ETag is of one coding
    ({"if_none_match": GZIP}, 200),
    ({"if_none_match": GZIP, "accept_encoding": "gzip"}, 304),
    ({"if_none_match": BR, "accept_encoding": "gzip, br"}, 304),
    ({"if_none_match": GZIP, "accept_encoding": "gzip, br"}, 200),
    ({"if_none_match": f"{GZIP}, {BR}, {PLAIN}", "accept_encoding": "gzip, br"}, 304),
    ({"if_none_match": PLAIN, "accept_encoding": "br"}, 200),
    # If-Modified-Since (§13.1.3): three forms of date; what is none, or lies ahead, is no condition
    ({"if_modified_since": SAME}, 304),
    ({"if_modified_since": NEW}, 304),
    ({"if_modified_since": OLD}, 200),
    ({"if_modified_since": "Monday, 14-Jul-25 05:00:00 GMT"}, 304),
    ({"if_modified_since": "Monday, 14-Jul-25 04:59:59 GMT"}, 200),
    ({"if_modified_since": "Mon Jul 14 05:00:00 2025"}, 304),
    ({"if_modified_since": "Mon Jul 14 04:59:59 2025"}, 200),
    ({"if_modified_since": FUTURE}, 200),
    ({"if_modified_since": "yesterday"}, 200),
    ({"if_modified_since": ""}, 200),
    ({"if_modified_since": "Mon, 99 Jul 2025 05:00:00 GMT"}, 200),
    ({"if_modified_since": "Mon, 14 Jul 99999999 05:00:00 GMT"}, 200),
    ({"if_modified_since": "0"}, 200),
    ({"if_modified_since": SAME, "accept_encoding": "gzip"}, 304),
    # both (§13.2.2): the ETag alone decides
    ({"if_none_match": PLAIN, "if_modified_since": OLD}, 304),
    ({"if_none_match": PLAIN, "if_modified_since": "nonsense"}, 304),
    ({"if_none_match": '"other"', "if_modified_since": SAME}, 200),
    ({"if_none_match": "", "if_modified_since": SAME}, 200),
    # If-Match (§13.1.1): strong comparison, before everything else
    ({"if_match": PLAIN}, 200),
    ({"if_match": "*"}, 200),
    ({"if_match": f'"a", {PLAIN}'}, 200),
    ({"if_match": f"W/{PLAIN}"}, 412),
    ({"if_match": f'"a",W/{PLAIN}'}, 412),
    ({"if_match": '"other"'}, 412),
    ({"if_match": ""}, 412),
    ({"if_match": PLAIN, "if_none_match": PLAIN}, 304),
    ({"if_match": '"other"', "if_none_match": PLAIN}, 412),
    ({"if_match": PLAIN, "accept_encoding": "br"}, 412),
    # If-Unmodified-Since (§13.1.4): only without If-Match
    ({"if_unmodified_since": SAME}, 200),
    ({"if_unmodified_since": OLD}, 412),
    ({"if_unmodified_since": FUTURE}, 200),
    ({"if_unmodified_since": "nonsense"}, 200),
    ({"if_unmodified_since": OLD, "if_match": PLAIN}, 200),
    ({"if_unmodified_since": SAME, "if_none_match": PLAIN}, 304),
    ({"if_unmodified_since": OLD, "if_none_match": PLAIN}, 412),
    # Accept-Encoding (§12.5.3)
    ({"accept_encoding": ""}, (200, "")),
    ({"accept_encoding": "identity"}, (200, "")),
    ({"accept_encoding": "gzip"}, (200, "gzip")),
    ({"accept_encoding": "x-gzip"}, (200, "gzip")),
    ({"accept_encoding": "GZIP;Q=1"}, (200, "gzip")),
    ({"accept_encoding": "gzip, deflate, br, zstd"}, (200, "br")),
    ({"accept_encoding": "gzip;q=1.0, br;q=0.5"}, (200, "gzip")),
    ({"accept_encoding": "br;q=0, gzip;q=0.001"}, (200, "gzip")),
    ({"accept_encoding": "*"}, (200, "br")),
    ({"accept_encoding": "*;q=0.1, br;q=0"}, (200, "gzip")),
    ({"accept_encoding": "identity;q=1, gzip;q=0.5"}, (200, "")),
    ({"accept_encoding": "identity;q=0.5, gzip;q=0.5"}, (200, "gzip")),
    ({"accept_encoding": "identity;q=0, gzip"}, (200, "gzip")),
    ({"accept_encoding": "identity;q=0, *;q=0.5"}, (200, "br")),
    ({"accept_encoding": "deflate"}, (200, "")),
    ({"accept_encoding": "gzip;q=0"}, (200, "")),
    ({"accept_encoding": "gzip;q=nonsense"}, (200, "")),
    ({"accept_encoding": ",,;,gzip;,"}, (200, "gzip")),
    ({"accept_encoding": "identity;q=0"}, 406),
    ({"accept_encoding": "*;q=0"}, 406),
    ({"accept_encoding": "deflate, identity;q=0"}, 406),
    ({"accept_encoding": "*;q=0, identity;q=0.1"}, (200, "")),
    ({"accept_encoding": "identity;q=0", "if_none_match": "*"}, 406),
]


@pytest.mark.parametrize(("fields", "expected"), CASES, ids=[str(n) for n in range(len(CASES))])
def test_conditions(fields: dict[str, str], expected: object) -> None:
    got = decide(ENTRY, Asked(**{name: value.encode("latin-1") for name, value in fields.items()}))
    assert (got.status if isinstance(expected, int) else (got.status, got.coding)) == expected


def test_there_are_sixty_at_least() -> None:
    assert len(CASES) >= 60
