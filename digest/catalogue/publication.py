"""The publication: one row, one brand. Reads it, checks what is set."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest.catalogue.shared import insert_missing
from digest.catalogue.versions import bump_all
from digest.errors import UsageError
from digest.models import Publication
from digest.text import canonical_url, strip_controls
from digest.types import Brand

_DEFAULT = Brand()
#: Of headlines and text: serif over sans, or one of them throughout. No font is ever loaded.
FONTS = ("mixed", "sans", "serif")


def publication(session: Session) -> Publication:
    """The publication's row; before `ensure_publication` made it, one of defaults that is not in the database."""
    return session.get(Publication, 1) or Publication(**_fresh_row())


def ensure_publication(session: Session, defaults: Mapping[str, str] | None = None) -> Publication:
    """Return the publication's row, made with *defaults* (keys of `set_brand`) if there is none."""
    if session.get(Publication, 1) is None:
        checked = {key: _checked(key, value) for key, value in (defaults or {}).items()}
        insert_missing(session, Publication.__table__, [_fresh_row() | checked])  # type: ignore[arg-type]
    return session.execute(select(Publication)).scalar_one()


def _fresh_row() -> dict[str, Any]:
    return {
        "id": 1, "name": "", "timezone": "UTC", "language": "en", "from_name": "", "site_url": "", "logo_url": "",
        "logo_dark_url": "", "logo_width": 0, "font": _DEFAULT.font, "accent": _DEFAULT.accent, "postal_address": "",
        "tagline": "", "footer_links": [], "social_links": [],
    }  # fmt: skip


def brand(session: Session, public_url: str) -> Brand:
    """The publication as templates and feeds see it."""
    row = publication(session)
    return Brand(
        name=row.name or _DEFAULT.name, url=public_url, language=row.language, timezone=row.timezone,
        site_url=row.site_url, logo_url=row.logo_url, logo_dark_url=row.logo_dark_url, logo_width=row.logo_width,
        font=row.font, postal_address=row.postal_address, tagline=row.tagline, accent=row.accent,
        footer_links=tuple((str(label), str(url)) for label, url in row.footer_links),
        social_links=tuple((str(label), str(url)) for label, url in row.social_links),
    )  # fmt: skip


def set_brand(session: Session, key: str, value: str) -> None:
    """Set one thing of the brand, or raise a UsageError that says what would fit. Feeds and pages show it at once."""
    checked = _checked(key, value)
    row = ensure_publication(session)
    if getattr(row, key) != checked:
        setattr(row, key, checked)
        session.flush()
        bump_all(session)


# ----------------------------------------------------------------------------- what fits


def _refuse(sentence: str) -> NoReturn:
    raise UsageError(sentence)


def _checked(key: str, value: str) -> Any:
    check = BRAND_KEYS.get(key)
    if check is None:
        near = difflib.get_close_matches(key, BRAND_KEYS, n=1, cutoff=0.65)
        said = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(BRAND_KEYS)}"
        _refuse(f"the brand has no {key!r}; {said}")
    return check(strip_controls(value).strip())


def _line(value: str) -> str:
    return " ".join(value.split())[:200]


def _name(value: str) -> str:
    return _line(value) or _refuse("name must not be empty; give the publication's name as readers know it")


def _timezone(value: str) -> str:
    if value != "localtime" and value in available_timezones():
        return ZoneInfo(value).key
    near = difflib.get_close_matches(value, sorted(available_timezones()), n=1, cutoff=0.5)
    said = f"did you mean {near[0]!r}?" if near else "use a name such as Europe/Berlin"
    _refuse(f"there is no time zone {value!r}; {said}")


def _language(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", value):  # RFC 5646 §2.1, the part that pages need
        _refuse(f"{value!r} is no language tag; use one such as en, de or pt-br")
    return value.lower()


def _colour(value: str) -> str:
    short = re.fullmatch(r"#?([0-9a-fA-F]{3})", value)
    if short:
        value = "".join(c * 2 for c in short[1])
    if not re.fullmatch(r"#?[0-9a-fA-F]{6}", value):
        _refuse(f"accent {value!r} is no colour; write it as #rrggbb")
    return "#" + value.removeprefix("#").lower()


def _address(value: str) -> str:
    if value and canonical_url(value) is None:
        _refuse(f"{value!r} is no web address; it must begin with https:// or http://")
    return value


def _logo_width(value: str) -> int:
    if not value.isdigit() or not (value == "0" or 16 <= int(value) <= 400):
        _refuse(f"logo_width {value!r} is no width; give the logo's width in the mail, 16 to 400 pixels, or 0")
    return int(value)


def _font(value: str) -> str:
    if value not in FONTS:
        _refuse(f"there is no font {value!r}; use {', '.join(FONTS)}: typefaces that every reader has")
    return value


def _domain(value: str) -> str | None:
    value = value.lower()
    if value and not re.fullmatch(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}", value):
        _refuse(f"mail_domain {value!r} is no domain; write it as news.example.org")
    return value or None


def _postal(value: str) -> str:
    lines = [_line(line) for line in value.replace("\\n", "\n").splitlines()]
    return "\n".join(line for line in lines if line)


def _links(value: str) -> list[list[str]]:
    """``Imprint=https://…; Privacy=https://…`` (or one a line); nothing at all takes them away."""
    links = []
    for entry in re.split(r"[;\n]\s*(?=[^;\n=]+=|$)", value):
        if not entry.strip():
            continue
        label, equals, url = (part.strip() for part in entry.partition("="))
        if not (label and equals and url):
            _refuse(f"link {entry.strip()!r} must read LABEL=https://…; several are separated by semicolons")
        links.append([_line(label), _address(url)])
    return links


BRAND_KEYS: dict[str, Callable[[str], Any]] = {
    "name": _name,
    "timezone": _timezone,
    "language": _language,
    "mail_domain": _domain,
    "from_name": _line,
    "site_url": _address,
    "logo_url": _address,
    "logo_dark_url": _address,
    "logo_width": _logo_width,
    "font": _font,
    "accent": _colour,
    "postal_address": _postal,
    "tagline": _line,
    "footer_links": _links,
    "social_links": _links,
}
