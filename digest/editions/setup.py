"""Digests as an admin writes them: every text is checked before anything is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from difflib import get_close_matches

from sqlalchemy.orm import Session

from digest import catalogue, ledger, rules, schedules
from digest.audience import parse_address
from digest.db import Database
from digest.errors import UsageError
from digest.ledger.digests import READERS_ZONE
from digest.models import Digest, Schedule
from digest.rendering import Renderer, check_line, check_params, check_prose
from digest.selection import Wishes, changed
from digest.types import DigestStatus, Run

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SPAN = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
MAXIMUM = 100


@dataclass(frozen=True, slots=True)
class DigestFields:
    """What an admin may say of a digest; None: as it is, or the default."""

    name: str | None = None
    where: str | None = None
    categories: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    schedule: str | None = None
    timezone: str | None = None
    minimum: int | None = None
    maximum: int | None = None
    layout: str | None = None
    lookback: str | None = None
    grace: str | None = None
    approve: bool | None = None
    repeat: str | None = None
    uncertain: str | None = None
    missed: str | None = None
    subject: str | None = None
    preheader: str | None = None
    from_name: str | None = None
    reply_to: str | None = None
    intro: str | None = None
    closing: str | None = None
    sponsor: str | None = None
    link_params: str | None = None
    selection: Wishes | None = None


def span(text: str, what: str) -> timedelta:
    """``7d``, ``36h``, ``15m`` → how long. UsageError in one sentence."""
    found = _SPAN.fullmatch(text.strip().lower())
    if not found:
        raise UsageError(f"{what} {text!r} is not a span of time; write a number and s, m, h, d or w, such as 7d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


class Setup:
    """Adds and changes digests."""

    def __init__(self, database: Database, renderer: Renderer) -> None:
        self._db, self._renderer = database, renderer

    def add(self, slug: str, wanted: DigestFields, now: datetime) -> int:
        """A new digest and its schedule. Returns its id; UsageError leaves nothing behind."""
        _check_slug(slug)
        if wanted.schedule is None:
            raise UsageError("a digest needs a schedule; add --schedule, such as '0 7 * * 1' for Mondays 07:00")
        with self._db.transaction() as session:
            values = {"slug": slug, "name": wanted.name or slug, **self._checked(session, wanted)}
            home = catalogue.publication(session).timezone
            zone = self._zone(wanted.timezone or home)
            schedules.check_cron(wanted.schedule)
            digest = ledger.digests.add_digest(session, values, now)
            ledger.digests.add_schedule(
                session, digest, cron=wanted.schedule, timezone=zone, home=home, now=now,
                missed=_one_of("--missed", wanted.missed or "late", schedules.MISSED_POLICIES),
            )  # fmt: skip
            catalogue.bump(session, [-digest.id])
            return digest.id

    def change(self, slug: str, wanted: DigestFields) -> None:
        """Change what is given; editions that are open keep the recipe they were opened with."""
        with self._db.transaction() as session:
            digest = ledger.digests.find_digest(session, slug)
            for key, value in self._checked(session, wanted, digest).items():
                setattr(digest, key, value)
            row = ledger.digests.list_digests(session, slug)[0]
            schedule = row.schedules[0] if row.schedules else None
            if schedule is not None and wanted.missed is not None:
                schedule.missed = _one_of("--missed", wanted.missed, schedules.MISSED_POLICIES)
            if wanted.schedule is not None or wanted.timezone is not None:
                self._reschedule(session, digest, schedule, wanted)
            catalogue.bump(session, [-digest.id])  # its feed bears its name

    def _reschedule(self, session: Session, digest: Digest, schedule: Schedule | None, wanted: DigestFields) -> None:
        home = catalogue.publication(session).timezone
        cron = wanted.schedule or (schedule.cron if schedule else "")
        schedules.check_cron(cron)
        zone = self._zone(wanted.timezone or (schedule.timezone if schedule else home))
        assert schedule is not None
        if (cron, zone) != (schedule.cron, schedule.timezone):
            ledger.digests.change_schedule(session, schedule, cron=cron, timezone=zone, home=home)

    def _zone(self, name: str) -> str:
        if name != READERS_ZONE:
            schedules.zone(name)
        return name

    def _checked(self, session: Session, wanted: DigestFields, digest: Digest | None = None) -> dict[str, object]:
        """The columns that *wanted* sets, each checked."""
        values: dict[str, object] = {
            column: getattr(wanted, name) for name, column in _PLAIN.items() if getattr(wanted, name) is not None
        }
        if wanted.lookback is not None:
            values["lookback_s"] = _positive("--lookback", span(wanted.lookback, "the look-back"))
        if wanted.grace is not None:
            values["grace_s"] = int(span(wanted.grace, "the grace").total_seconds())
        if wanted.repeat is not None:
            _one_of("--repeat", wanted.repeat, ("never", "others"))
        if wanted.uncertain is not None:
            _one_of("--uncertain", wanted.uncertain, ("resend", "hold"))
        if wanted.reply_to:
            values["reply_to"] = parse_address(wanted.reply_to).given
        self._check_limits(values, digest)
        self._check_texts(wanted)
        self._check_rule(session, values, digest)
        if digest is None:
            wanted = self._with_sections(wanted)
        if wanted.selection is not None:
            kept = digest.selection if digest else {}
            values["selection"] = changed(kept, wanted.selection, catalogue.known_slugs(session))
        return values

    def _check_limits(self, values: Mapping[str, object], digest: Digest | None) -> None:
        low = values.get("minimum", digest.minimum if digest else 1)
        high = values.get("maximum", digest.maximum if digest else 12)
        assert isinstance(low, int)
        assert isinstance(high, int)
        if not 1 <= low <= high <= MAXIMUM:
            raise UsageError(f"--min {low} and --max {high} do not fit; 1 ≤ min ≤ max ≤ {MAXIMUM}")

    def _check_texts(self, wanted: DigestFields) -> None:
        for what in ("subject", "preheader"):
            if template := getattr(wanted, what):
                check_line(template, what)
        for what in ("intro", "closing", "sponsor"):
            check_prose(getattr(wanted, what) or "", what)
        check_params(wanted.link_params or "")
        if wanted.layout is not None:
            _one_of("--layout", wanted.layout, self._renderer.layouts())
            self._renderer.layout(wanted.layout)

    def _with_sections(self, wanted: DigestFields) -> DigestFields:
        """A layout may be made for sections: a new digest has them, unless it says otherwise."""
        wishes = wanted.selection or Wishes()
        if wishes.sections is not None or wanted.layout is None:
            return wanted
        kind = self._renderer.layout(wanted.layout).sections
        return replace(wanted, selection=replace(wishes, sections=kind)) if kind else wanted

    def _check_rule(self, session: Session, values: dict[str, object], digest: Digest | None) -> None:
        """The rule parses, and every topic it names exists (or will: the error names the nearest)."""
        rule = str(values.get("rule", digest.rule if digest else ""))
        names = {
            key: [str(s) for s in _listed(values.get(key, getattr(digest, key) if digest else ()))]
            for key in ("categories", "tags")
        }
        for kind, slugs in names.items():
            for slug in slugs:
                if slug.isdigit():
                    raise UsageError(
                        f"{slug} is a number, not the slug of a topic in {kind}; `digest topics` lists slugs"
                    )
        known = catalogue.known_slugs(session)
        if rule:
            rules.check(rules.parse(rule), known, rule)
        rules.check(rules.combine("", names["categories"], names["tags"]), known, "")
        values |= {key: slugs for key, slugs in names.items() if key in values}

    def pause(self, slug: str) -> None:
        """No edition opens until `resume`; what would have run is recorded as skipped."""
        with self._db.transaction() as session:
            ledger.digests.set_status(session, slug, DigestStatus.PAUSED)

    def resume(self, slug: str) -> None:
        with self._db.transaction() as session:
            ledger.digests.set_status(session, slug, DigestStatus.ACTIVE)

    def next_runs(self, slug: str, after: datetime, count: int) -> list[Run]:
        """The coming runs, by the worker's own function. One in readers' own zones is shown in the publication's."""
        with self._db.reading() as session:
            row = ledger.digests.list_digests(session, slug)[0]
            home = catalogue.publication(session).timezone
            clocks = [(s.cron, home if s.timezone == READERS_ZONE else s.timezone) for s in row.schedules]
        coming = [run for cron, zone in clocks for run in schedules.next_runs(cron, zone, after, count)]
        return sorted(coming, key=lambda r: r.instant)[:count]

    def overlapping(self, slug: str) -> list[str]:
        """Other digests that may pick the same articles: a reader of both gets each story once, from the first."""
        with self._db.reading() as session:
            digest = ledger.digests.find_digest(session, slug)
            mine = _topics_of(session, digest)
            others = [(d.slug, _topics_of(session, d)) for d in ledger.digests.others(session, digest.id)]
            return [slug for slug, theirs in others if not mine or not theirs or mine & theirs]


_PLAIN = {
    "name": "name", "where": "rule", "categories": "categories", "tags": "tags", "minimum": "minimum",
    "maximum": "maximum", "layout": "layout", "approve": "approve", "repeat": "repeat", "uncertain": "uncertain",
    "subject": "subject", "preheader": "preheader", "from_name": "from_name", "reply_to": "reply_to",
    "intro": "intro", "closing": "closing", "sponsor": "sponsor", "link_params": "link_params",
}  # fmt: skip
assert set(_PLAIN) <= {f.name for f in fields(DigestFields)}


def _listed(value: object) -> Iterable[object]:
    return value if isinstance(value, list | tuple) else ()


def _topics_of(session: Session, digest: Digest) -> set[int]:
    """Ids of the topics that bring articles in, those below a category too; empty: any article may."""
    named = list(rules.terms(rules.combine(digest.rule, digest.categories, digest.tags)))
    return catalogue.ids_of_terms(session, [t for t in named if t.field in ("category", "tag")])


def _check_slug(slug: str) -> None:
    if slug.isdigit():
        raise UsageError(f"a slug of digits only ({slug}) would be taken for a number; put a word into it")
    if not _SLUG.fullmatch(slug) or len(slug) > 60:
        raise UsageError(
            f"{slug!r} is not a slug; use lower-case letters, digits and single hyphens, such as africa-daily"
        )


def _one_of(option: str, value: str, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    if value not in allowed:
        near = get_close_matches(value, allowed, n=1)
        raise UsageError(f"{option} {value!r}: {f'did you mean {near[0]}?' if near else 'use ' + ' or '.join(allowed)}")
    return value


def _positive(option: str, length: timedelta) -> int:
    if length <= timedelta(0):
        raise UsageError(f"{option} must be longer than nothing")
    return int(length.total_seconds())
