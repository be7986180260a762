"""Bounces as servers write them that know no standard, and replies of absent people.

flufl.bounce finds the address in them; what the failure was is read from the words around it (`classify.status_of`).
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32

from digest.delivery.classify import one_line, printable, status_of
from digest.delivery.reports.notices import read_notices
from digest.delivery.reports.report import Report, ReportKind

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    from flufl.bounce import all_failures

logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL + 1)  # it logs addresses, and every stumble at length

#: What a server says of a failure stands at the top; the rest is the mail that it returns.
_TOP, _WIDE = 1 << 16, 1000
_FROM_SERVER = re.compile(
    r"(?i)mailer-?daemon|post_?master|mail ?delivery|delivery (sub)?system|mailerdaemon|mail administrator|maildelivery"
    r"|\bmmdf\b|mailadm|no-?reply@(sns|.*amazonses)|bounces?[@+-]"
)
_SAYS_RETURNED = re.compile(
    r"(?i)undeliver|returned (mail|to sender)|return(ed)? message|delivery (status|failure|report|notification|has)"
    r"|(mail|message|delivery|nicht|non) ?(zustell|remis|delivery|failure|failed|error|rejected)|failure notice"
    r"|mail failed|failed mail|could not send|couldn't be delivered|cannot send|can't send|not delivered|unzustellbar"
    r"|non recapitabile|no entregado|mail could not|warning: message|message (status|delayed)|error(s)? (sending|in)"
    r"|=?(user|host|addressee|recipient|mailbox|account).{0,20}(unknown|not (found|listed)|full|disabled|expired)"
    r"|bounce|rejected|配信|エラー|не доставлено"
)
_ABSENT = re.compile(
    r"(?i)^\s*(\[?auto(matic|mated|matische|matisch)?[ -]?(reply|response|antwort|generated|svar)?\]?\s*[:\]]"
    r"|automatic reply|autoreply|auto[ -]?reply|auto[ -]?respon|out[ -]of[ -](the[ -])?office|ooo\b|abwesen|vacation"
    r"|on (annual )?leave|away from|i am (away|out)|réponse automatique|absence"
    r"|risposta automatica|respuesta automática"
    r"|automatisch antwoord|autosvar|自動応答|不在)"
)
#: What mail programs send for a reader who presses "unsubscribe" (RFC 2369 §3.2); Apple's calls it a reply.
_UNSUBSCRIBE = re.compile(r"(?i)^(re:\s*)?(unsubscribe|abmelden|abbestellen|opt-?out|remove)\W*$")
_STILL_TRYING = re.compile(
    r"(?i)will (continue|keep) (to )?(try|be (re)?tr)|still being retried|has not (yet )?been (delivered|collected)|"
    r"delayed (mail|\d)|not yet been delivered|this is a warning|warning: (message|could not)|no action is required"
)
_ADDRESS = re.compile(r"<?\b([A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+)")
_ABUSE = re.compile(r"(?i)abuse report|complaint|spam report|reported (your|this|the) (e-?mail|message)")


def read(message: Message, parts: Sequence[Message], octets: bytes) -> Report:
    """What a message reports that follows no standard."""
    subject, sender = _heading(message, "Subject"), _heading(message, "From")
    top = _top(parts)
    if _UNSUBSCRIBE.match(subject):
        return Report(ReportKind.UNSUBSCRIBE, _first_address(_heading(message, "From")), text=one_line(subject))
    if _absent(message, subject, sender):
        return Report(ReportKind.AUTO_REPLY, text=one_line(subject))
    if top.lstrip().startswith("{") and (notices := read_notices("".join(top.splitlines()))):
        return notices[0]  # a provider's notice, sent as a mail
    failing, failed = _found_by_flufl(octets)
    address = next(iter(sorted(failed or failing)), None) or _named(message)
    by_server = bool(_FROM_SERVER.search(sender)) or str(message.get("Return-Path", "")).strip() == "<>"
    if address is None and not (by_server or _SAYS_RETURNED.search(subject)):
        return Report(ReportKind.UNKNOWN, text=one_line(subject), problem="it is no report that is known here")
    if address is None and (_ABUSE.search(subject) or _ABUSE.search(top[:500])):
        return Report(ReportKind.COMPLAINT, _first_address(top), text=one_line(subject))
    return _bounce(subject, top, address, delayed=bool(failing) and not failed)


def _bounce(subject: str, top: str, address: str | None, *, delayed: bool) -> Report:
    line = _telling_line(top, address)
    status = status_of(None, line) or status_of(None, printable(top[:4000])) or status_of(None, subject)
    address = address or _first_address(top)
    if address is None and status is None and not _SAYS_RETURNED.search(subject):
        return Report(ReportKind.UNKNOWN, text=one_line(subject), problem="it is a server's but tells no failure")
    waits = delayed or bool(_STILL_TRYING.search(top[:4000]))
    return Report(ReportKind.DELAYED if waits else ReportKind.BOUNCE, address, status, one_line(line or subject))


def _absent(message: Message, subject: str, sender: str) -> bool:
    """A program replies for a person (RFC 3834 §5), not a server for itself: those say auto-replied as well."""
    if _FROM_SERVER.search(sender):
        return False
    if any(message.get(name) for name in ("X-Autoreply", "X-Autorespond", "X-Autoresponder", "X-Auto-Response-From")):
        return True
    automatic = str(message.get("Auto-Submitted", "")).strip().lower()
    precedence = str(message.get("Precedence", "")).strip().lower()
    if automatic.startswith("auto-replied") or precedence in ("auto_reply", "auto-reply"):
        return not _SAYS_RETURNED.search(subject)
    return bool(_ABSENT.search(subject))


def _found_by_flufl(octets: bytes) -> tuple[set[str], set[str]]:
    """(addresses failing for now, addresses that failed). Its patterns see short lines of the top alone."""
    lines = (line[:_WIDE] for line in octets[:_TOP].splitlines(keepends=False))
    try:
        failing, failed = all_failures(BytesParser(policy=compat32).parsebytes(b"\n".join(lines)))
    except Exception:  # it stumbles over messages without a sender and the like
        return set(), set()
    return _addresses(failing), _addresses(failed)


def _addresses(found: frozenset[bytes]) -> set[str]:
    texts = {a.decode("utf-8", "replace").strip().strip("<>'\"") for a in found}
    return {text for text in texts if "@" in text}


def _named(message: Message) -> str | None:
    """Some servers name the failed recipients in a header of their own."""
    for name in ("X-Failed-Recipients", "X-Actual-Recipients", "X-Actual-Recipient"):
        if found := _ADDRESS.search(str(message.get(name, ""))[:1000]):
            return found[1]
    return None


def _heading(message: Message, name: str) -> str:
    raw = str(message.get(name, ""))[:1000]
    try:
        return " ".join(str(make_header(decode_header(raw))).split())
    except (LookupError, ValueError):
        return " ".join(raw.split())


def _top(parts: Sequence[Message]) -> str:
    """The words of the server: the text parts before what is returned, and no more than can be words."""
    texts: list[str] = []
    for part in parts:
        if part.get_content_type() in ("message/rfc822", "text/rfc822-headers", "message/delivery-status"):
            break
        words = part.get_content_maintype() == "text" or not part.is_multipart()  # with a wrong boundary it is one text
        if words and isinstance(data := part.get_payload(decode=True), bytes):
            texts.append(_decoded(data[:_TOP], part.get_content_charset()))
    text = "\n".join(texts)[:_TOP]
    return _RETURNED.split(text, maxsplit=1)[0] or text


_RETURNED = re.compile(
    r"(?mi)^(?:-+ ?(?:this is a copy|original message|unsent message|below this line).*|received: from .*)$"
)


def _decoded(data: bytes, charset: str | None) -> str:
    try:
        return data.decode(charset or "utf-8", "replace")
    except LookupError:
        return data.decode("utf-8", "replace")


_TELLS = re.compile(r"(?<![\d.])(?:[45]\d\d[ -]|[245]\.\d{1,3}\.\d{1,3})")


def _telling_line(top: str, address: str | None) -> str:
    """The line with a code in it, and what follows; else the one that names the address, and what follows."""
    lines = [line.strip() for line in top.splitlines() if line.strip()]
    for i, line in enumerate(lines):
        if _TELLS.search(line) and (status_of(None, line) or status_of(None, " ".join(lines[i : i + 2]))):
            return one_line(" ".join(lines[i : i + 2]))
    for i, line in enumerate(lines):
        if address and address.lower() in line.lower():
            return one_line(" ".join(lines[i : i + 4]))
    return ""


def _first_address(top: str) -> str | None:
    found = next((a for a in _ADDRESS.findall(top[:4000]) if not _FROM_SERVER.search(a)), None)
    return found.rstrip(".") if found else None
