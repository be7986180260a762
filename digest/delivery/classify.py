"""What a reply or a later bounce means: outcome, enhanced status, how much it weighs, and when to try again.

Pure. Knows replies to commands (RFC 5321 §4.2, RFC 3463) ; what servers say in words is
`wording`. Keeps no history and suppresses nobody.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection
from datetime import date, timedelta
from enum import StrEnum

from digest.delivery.wording import contradicts, meaning
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


def one_line(text: str | bytes) -> str:
    """A foreign text as it is kept with what it is about: one printable line of at most 500 characters."""
    return printable(text)[:_LONGEST]


def hard(enhanced: str | None, code: int | None) -> bool:
    """True where the address will never work again, so that it may be suppressed at once."""
    return enhanced in _GONE or (code == 556 and enhanced is None)  # RFC 7504 §4: the domain takes no mail


class Weight(StrEnum):
    """How much a failure says about the address itself."""

    GONE = "gone"  # it will never work again
    FULL = "full"  # it did not work today: a full mailbox, a server that is down
    OURS = "ours"  # it says nothing of the address, but of us or of this very mail: policy, reputation, size, content


#: RFC 3463: the message (5.6.x), its size (5.3.4, 5.2.3), its sender (5.1.7, 5.1.8) and policy (5.7.x) are our affair.
_OURS = re.compile(r"[45]\.(?:6\.\d+|7\.\d+|3\.4|2\.3|1\.[78])")


def weigh(status: str | None) -> Weight:
    """How a bounce with that enhanced status weighs. Without one it counts as a day on which mail did not arrive."""
    if hard(status, None):
        return Weight.GONE
    return Weight.OURS if status and _OURS.fullmatch(status) else Weight.FULL


#: So many days with a bounce and no mail between them that arrived, within so long: the address is suspended.
SOFT_DAYS, SOFT_WITHIN = 5, timedelta(days=30)


def gives_up(days: Collection[date], today: date) -> bool:
    """Whether an address is to be suspended. ``days``: those on which mail to it bounced since it last arrived."""
    return len({d for d in days if d > today - SOFT_WITHIN}) >= SOFT_DAYS


# ----------------------------------------------------------------------------- words around a failure

_ANYWHERE = re.compile(r"(?<![\d.#])#?([245]\.\d{1,3}\.\d{1,3})(?![\d.]\d|\.\d)")
_AN_ADDRESS = re.compile(r"[^\s<>;,\"]{1,64}@[^\s<>;,\"]{1,253}")
_CODE = re.compile(r"(?<![\d.#-])([45]\d\d)(?![\d.@]|-\d)")


def status_of(status: str | None, text: str) -> str | None:
    """The enhanced status of a failure: as given, unless it says as good as nothing and *text* says more.

    None: neither tells. What *text* tells in words counts as the code in it does (RFC 3463 §3.1), else as final.
    """
    given = _ANYWHERE.search(status or "")
    text = _AN_ADDRESS.sub("<>", text[:2000])
    told = next((found for found in _ANYWHERE.findall(text) if found[0] != "2"), None)
    best = given[1] if given else None
    if best is None or _vague(best) or (told and hard(best, None) and not (_vague(told) or hard(told, None))):
        best = told if told and not (_vague(told) and best) else best
    if best is not None and not _vague(best) and not (hard(best, None) and contradicts(text)):
        return _tidy(best)
    words = meaning(text)
    code = _CODE.search(text)
    if words is None:
        return _tidy(best) if best else f"{code[1][0]}.0.0" if code else None
    return words if words.startswith("4") else f"{(best or (code[1] if code else words))[0]}{words[1:]}"


def _vague(status: str) -> bool:
    """Undefined in subject or detail, or a syntax that the server itself did not like: nothing of the address."""
    _, subject, detail = status.split(".")
    return int(subject) in (0, 5) or int(detail) == 0


def _tidy(status: str) -> str:
    return ".".join(str(int(part)) for part in status.split("."))


def next_attempt(attempts: int, *, first: float = 300, last: float = 4000, seed: int = 0) -> timedelta:
    """How long to wait after so many attempts: doubling from ``first`` to ``last``, spread by a tenth either way.

    The spread follows from ``seed`` (a batch's or subscriber's id), so that a test or a second look gives the same.
    """
    wait = min(first * 2.0 ** min(max(attempts, 1) - 1, 30), last)
    spread = zlib.crc32(b"%d:%d" % (seed, attempts)) / 0xFFFFFFFF * 2 - 1
    return timedelta(seconds=round(wait * (1 + spread / 10), 3))
