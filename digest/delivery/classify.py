"""What a reply means: outcome, enhanced status, whether the address is gone, and when to try again.

Pure. Knows replies to commands (RFC 5321 §4.2, RFC 3463); keeps no history and suppresses nobody.
"""

from __future__ import annotations

import re
import zlib
from datetime import timedelta

from digest.types import Outcome, Result

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_LONGEST = 500

#: Replies that speak of the session (not authenticated, a command not known or out of order), never of one reader. To
#: take them for a rejection would end an edition for everybody because of one setting.
_SESSION = frozenset({500, 502, 503, 530, 534, 535, 538})
#: The address itself is no more (RFC 3463 §3.2, §3.5; null MX: RFC 7505 §4). A full mailbox (5.2.2) is not gone, and
#: policy or reputation (5.7.x) is about the sender.
_GONE = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.4.4"})


def outcome(code: int, text: str | bytes) -> Outcome:
    """Read the reply to MAIL, RCPT, DATA or the final dot. ``text`` is what stood after the code, lines joined."""
    line = printable(text)
    found = _ENHANCED.match(line)
    enhanced = found[1] if found and found[1][0] == str(code)[0] else None
    if found and enhanced:
        line = line[found.end() :].replace(f" {enhanced} ", " ")  # each line of a reply repeats it (RFC 2034 §4)
    if 200 <= code <= 299:
        result = Result.ACCEPTED
    elif 500 <= code <= 599 and code not in _SESSION:
        result = Result.REJECTED
    else:
        result = Result.DEFERRED
    return Outcome(result, code, enhanced, line[:_LONGEST])


def printable(text: str | bytes) -> str:
    """A foreign reply as one printable line: it is shown, stored and exported, so nothing in it may act."""
    if isinstance(text, bytes):
        text = text[: 8 * _LONGEST].decode("utf-8", "replace")
    text = text[: 8 * _LONGEST]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())


def hard(enhanced: str | None, code: int | None) -> bool:
    """True where the address will never work again, so that it may be suppressed at once."""
    return enhanced in _GONE or (code == 556 and enhanced is None)  # RFC 7504 §4: the domain takes no mail


def next_attempt(attempts: int, *, first: float = 300, last: float = 4000, seed: int = 0) -> timedelta:
    """How long to wait after so many attempts: doubling from ``first`` to ``last``, spread by a tenth either way.

    The spread follows from ``seed`` (a batch's or subscriber's id), so that a test or a second look gives the same.
    """
    wait = min(first * 2.0 ** min(max(attempts, 1) - 1, 30), last)
    spread = zlib.crc32(b"%d:%d" % (seed, attempts)) / 0xFFFFFFFF * 2 - 1
    return timedelta(seconds=round(wait * (1 + spread / 10), 3))
