"""What is an address, and when two of them are the same one. Knows no table. Owner of email-validator.

An address is written to as it was given (its domain in A-labels where it is international); it is compared by its
``key``: case-folded, domain in lower-case A-labels. Two readers whose addresses a mail server might tell apart by case
alone are one reader here; nobody is ever written to at an address that somebody else typed.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

from digest.errors import UsageError

#: Local parts that every rule book agrees on; anything else is the validator's to judge.
_PLAIN_LOCAL = re.compile(r"[A-Za-z0-9_+\-]+(?:\.[A-Za-z0-9_+\-]+)*")
_MAX_LOCAL, _MAX_ADDRESS = 64, 254  # RFC 5321 §4.5.3.1


@dataclass(frozen=True, slots=True)
class Address:
    given: str
    key: str


def parse_address(text: str) -> Address:
    """The address in *text*; UsageError says in one sentence why it is none."""
    text = unicodedata.normalize("NFC", text).strip()
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise _refused(text, "it needs one @ with something on both sides")
    if "@" in local or "%" in local or "!" in local or "=?" in local:
        # source routes (RFC 5321 §3.6.1) and encoded words are read differently by different servers
        raise _refused(text, "the part before the @ may not hold @, %, ! or =?")
    ascii_domain, problem = _domain(domain)
    if problem:
        raise _refused(text, problem)
    plain = _PLAIN_LOCAL.fullmatch(local) and len(local) <= _MAX_LOCAL
    if not plain and (problem := _validator_says(f"{local}@example.org")):
        raise _refused(text, problem)
    given = f"{local}@{domain if domain.isascii() else ascii_domain}"
    if len(given) > _MAX_ADDRESS:
        raise _refused(text, f"it is longer than {_MAX_ADDRESS} characters")
    return Address(given, f"{local}@{ascii_domain}".casefold())


@lru_cache(maxsize=65536)
def _domain(domain: str) -> tuple[str, str]:
    """The domain in A-labels, or what is wrong with it. Readers share few domains: judged once each."""
    try:
        # .test names (RFC 6761 §6.2) reach nobody, and rehearsals need them
        found = validate_email(
            f"a@{domain}", check_deliverability=False, strict=False, allow_smtputf8=False, test_environment=True
        )
    except EmailNotValidError as e:
        return "", _sentence(e)
    if "." not in found.ascii_domain:
        return "", "the part after the @ needs a dot"
    return found.ascii_domain.lower(), ""


def _validator_says(address: str) -> str:
    try:
        validate_email(address, check_deliverability=False, strict=True, allow_smtputf8=False)
    except EmailNotValidError as e:
        return _sentence(e)
    return ""


def _sentence(e: EmailNotValidError) -> str:
    said = str(e).rstrip(".")
    return said[:1].lower() + said[1:]


def _refused(text: str, reason: str) -> UsageError:
    shown = text if len(text) <= 80 else text[:77] + "…"
    return UsageError(f"{shown!r} is not an e-mail address: {reason}")
