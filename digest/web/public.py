"""The pages readers see: home, subscribing and leaving, editions in the browser, topics.

GET and HEAD change nothing, whoever follows a link: mail scanners follow all of them. POST alone acts, needs no cookie,
and the token in the address is the permission. What a stranger may learn by asking is the same for every address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from itertools import groupby
from math import log
from typing import Any, Protocol

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from digest import audience, catalogue, ledger
from digest.audience import Offer, Standing
from digest.bootstrap import App
from digest.catalogue import TopicRow
from digest.errors import TokenInvalid, UsageError
from digest.paths import shipped
from digest.publishing import PRIVATE
from digest.rendering.view import story_values
from digest.rendering.words import Words, load_words
from digest.types import Brand, EditionPage, EditionView, SubscriptionStatus
from digest.web.limits import Bucket, client_key
from digest.web.pages import Pages

_NEWEST = 8  # editions on the home page
_LISTED = 300  # editions on the archive's first page
_TAGS = 300  # tags in the cloud, the most used ones
_SHORT = {"cache-control": "public, max-age=60"}


class Submit(Protocol):
    def __call__(self, request: Request, form: FormData) -> Response: ...


def routes(app: App, pages: Pages) -> list[Route]:
    site = Site(app, pages)
    read, write = ["GET"], ["POST"]
    return [
        Route("/", site.home, methods=read),
        Route("/topics", site.topics, methods=read),
        Route("/archive", site.archive, methods=read),
        Route("/archive/{year:int}/{month:int}", site.archive_of, methods=read),
        Route("/archive/{year:int}/{month:int}/{day:int}", site.archive_of, methods=read),
        Route("/archive/{digest}/{slug}", site.edition, methods=read),
        Route("/subscribe", site.subscribe_form, methods=read),
        Route("/subscribe", posted(site.subscribe), methods=write),
        Route("/confirm/{token}", site.confirm_form, methods=read),
        Route("/confirm/{token}", posted(site.confirm), methods=write),
        Route("/preferences/{token}", site.preferences_form, methods=read),
        Route("/preferences/{token}", posted(site.preferences), methods=write),
        Route("/unsubscribe/{token}", site.unsubscribe_form, methods=read),
        Route("/unsubscribe/{token}", posted(site.unsubscribe, strict=False), methods=write),
    ]


def posted(submit: Submit, *, strict: bool = True) -> Any:
    """An endpoint that reads the form here and works in a thread. Not *strict*: an unreadable form is an empty one."""

    @wraps(submit)
    async def endpoint(request: Request) -> Response:
        try:
            form = await request.form(max_files=0, max_fields=100)
        except HTTPException:
            if strict:
                raise
            form = FormData()
        return await run_in_threadpool(submit, request, form)

    return endpoint


@dataclass(frozen=True, slots=True)
class Choice:
    """A digest on the form."""

    slug: str
    name: str
    when: str
    chosen: bool


class Site:
    def __init__(self, app: App, pages: Pages) -> None:
        self.app, self.pages = app, pages
        self._by_client = Bucket(burst=20, every_s=15)
        self._by_all = Bucket(burst=600, every_s=1)
        words = [shipped("templates")]
        self._words: Words = load_words(words, "en")

    # ------------------------------------------------------------------------- reading

    def home(self, request: Request) -> Response:
        with self.app.db.reading() as session:
            brand, offers = self.pages.brand(session), audience.offers(session)
            newest = ledger.archive(session, live=self.app.live, limit=_NEWEST)
            has_topics = bool(catalogue.topic_rows(session))
        return self.pages.show(
            "public/home.html", brand, digests=_choices(offers, ()), newest=newest, has_topics=has_topics,
            feeds={o.name: f"/feeds/digest/{o.slug}" for o in offers}, headers=_SHORT,
        )  # fmt: skip

    def topics(self, request: Request) -> Response:
        with self.app.db.reading() as session:
            brand, rows = self.pages.brand(session), catalogue.topic_rows(session)
        categories = [r for r in rows if r.kind == "category"]
        tags = sorted((r for r in rows if r.kind == "tag"), key=lambda r: (-r.count, r.slug))[:_TAGS]
        return self.pages.show(
            "public/topics.html", brand, categories=_tree(categories), tags=_cloud(tags), headers=_SHORT,
        )  # fmt: skip

    def archive(self, request: Request) -> Response:
        return self._archive("Editions", _LISTED)

    def archive_of(self, request: Request) -> Response:
        """A month, or a day of it."""
        wanted = tuple(request.path_params[name] for name in ("year", "month", "day") if name in request.path_params)
        try:
            first = datetime(*wanted, *([1] * (3 - len(wanted))))  # noqa: DTZ001 - a calendar's, not an instant
        except (ValueError, OverflowError):
            raise HTTPException(404) from None
        title = f"{first:%B} {first.year}" if len(wanted) == 2 else f"{first.day} {first:%B} {first.year}"
        return self._archive(title, None, wanted)

    def _archive(self, title: str, limit: int | None, wanted: tuple[int, ...] = ()) -> Response:
        with self.app.db.reading() as session:
            brand, entries = self.pages.brand(session), ledger.archive(session, live=self.app.live, limit=limit)
        shown = [e for e in entries if (e.local.year, e.local.month, e.local.day)[: len(wanted)] == wanted]
        if wanted and not shown:
            raise HTTPException(404)
        months = [(when, list(group)) for when, group in groupby(shown, key=lambda e: (e.local.year, e.local.month))]
        return self.pages.show(
            "public/archive.html", brand, title=title, months=months, whole=not wanted, headers=_SHORT
        )

    def edition(self, request: Request) -> Response:
        slug = request.path_params["digest"]
        with self.app.db.reading() as session:
            brand = self.pages.brand(session)
            page = ledger.edition_page(session, slug, request.path_params["slug"], live=self.app.live)
        if page is None:
            raise HTTPException(404)
        return self.pages.show(
            "public/edition.html", brand, edition=page, sections=self._sections(page, brand),
            feeds={page.digest_name: f"/feeds/digest/{slug}"}, headers={"cache-control": "public, max-age=300"},
        )  # fmt: skip

    def _sections(self, page: EditionPage, brand: Brand) -> list[dict[str, Any]]:
        """What the mail shows, from the values that the mail shows."""
        view = EditionView(
            edition_id=page.edition_id, digest_slug=page.digest_slug, digest_name=page.digest_name, layout="",
            brand=brand, local_date=page.local, archive_url="", home_url="",
        )  # fmt: skip
        return [
            {
                "title": section.title,
                "stories": [
                    story_values(s, view, self._words, kicker=s.lead.category != section.title) for s in section.stories
                ],
            }
            for section in page.sections
        ]

    # ------------------------------------------------------------------------- subscribing

    def subscribe_form(self, request: Request) -> Response:
        with self.app.db.reading() as session:
            wanted = request.query_params.getlist("digest")
            return self._subscribe_page(session, wanted)

    def _subscribe_page(
        self, session: Session, wanted: Sequence[str], *, status: int = 200, address: str = "", problem: str = "",
        field: str = "",
    ) -> Response:  # fmt: skip
        offers = audience.offers(session)
        return self.pages.show(
            "public/subscribe.html", self.pages.brand(session), status=status, digests=_choices(offers, wanted),
            address=address, problem=problem, field=field, headers={"cache-control": "no-store"},
        )  # fmt: skip

    def subscribe(self, request: Request, form: FormData) -> Response:
        """The same page for every address that is one, whatever is known of it."""
        client = request.client.host if request.client else ""
        if not self._by_client.take(client_key(client)) or not self._by_all.take(""):
            return self.pages.trouble(429)
        typed, wanted = _text(form, "email")[:320], [str(value) for value in form.getlist("digest")]
        with self.app.db.reading() as session:
            offers = {o.slug: o.name for o in audience.offers(session)}
            chosen = wanted or (list(offers) if len(offers) == 1 else [])
            if not chosen or not set(chosen) <= set(offers):
                problem = "Choose at least one of these."
                return self._subscribe_page(session, wanted, status=422, address=typed, problem=problem, field="digest")
            try:
                address = audience.parse_address(typed)
            except UsageError as e:
                problem = f"{str(e).rpartition(': ')[2].capitalize()}."
                return self._subscribe_page(session, chosen, status=422, address=typed, problem=problem, field="email")
        if not _text(form, "website"):  # people do not see this field
            self._ask(chosen, address)
        with self.app.db.reading() as session:
            brand = self.pages.brand(session)
        names = [offers[slug] for slug in chosen]
        return self.pages.show("public/asked.html", brand, private=True, address=address.given, names=names)

    def _ask(self, slugs: Sequence[str], address: audience.Address) -> None:
        now = self.app.db.now()
        with self.app.db.transaction() as session:
            audience.subscribe(session, slugs, address, now=now, source="form", detail={"page": "/subscribe"})

    # ------------------------------------------------------------------------- the links of a mail

    def confirm_form(self, request: Request) -> Response:
        subscription_id = self._ids("confirm", request)
        with self.app.db.reading() as session:
            return self._invitation_page(session, subscription_id)

    def _invitation_page(self, session: Session, subscription_id: int) -> Response:
        brand, invited = self.pages.brand(session), audience.invitation(session, subscription_id)
        if invited is None:
            return self._closed(brand)
        if not invited.pending and invited.asked.status is not SubscriptionStatus.ACTIVE:
            return self._closed(brand)
        template = "public/confirm.html" if invited.pending else "public/confirmed.html"
        return self.pages.show(
            template, brand, private=True, address=invited.address, asked=list(invited.pending) or [invited.asked],
            preferences=self._preferences_path(invited.subscriber_id),
        )  # fmt: skip

    def confirm(self, request: Request, form: FormData) -> Response:
        """What the page lists is what its button confirms; ``choice`` says that boxes were there to be unticked."""
        subscription_id = self._ids("confirm", request)
        now = self.app.db.now()
        with self.app.db.transaction() as session:
            brand, invited = self.pages.brand(session), audience.invitation(session, subscription_id)
            if invited is None:
                return self._closed(brand)
            kept = set(form.getlist("digest")) if "choice" in form else {s.digest_slug for s in invited.pending}
            for standing in invited.pending:
                if standing.digest_slug in kept:
                    audience.confirm(session, standing.id, now=now, source="link", detail={"page": "/confirm"})
            if "choice" in form and not kept:
                return self._invitation_page(session, subscription_id)
            now_active = _active(audience.preferences(session, invited.subscriber_id))
        if not now_active:
            return self._closed(brand)
        return self.pages.show(
            "public/confirmed.html", brand, private=True, address=invited.address,
            asked=[s for s in now_active if s.digest_slug in kept] or now_active,
            preferences=self._preferences_path(invited.subscriber_id),
        )  # fmt: skip

    def _closed(self, brand: Brand) -> Response:
        return self.pages.show("public/closed.html", brand, status=410, private=True)

    def _preferences_path(self, subscriber_id: int) -> str:
        return f"{self.pages.base}/preferences/{self.app.tokens.make('preferences', (subscriber_id,))}"

    def preferences_form(self, request: Request) -> Response:
        subscriber_id = self._ids("preferences", request)
        with self.app.db.reading() as session:
            return self._preferences_page(session, subscriber_id)

    def _preferences_page(self, session: Session, subscriber_id: int, done: str = "") -> Response:
        brand, found = self.pages.brand(session), audience.preferences(session, subscriber_id)
        if found is None:
            return self._closed(brand)
        return self.pages.show(
            "public/preferences.html", brand, private=True, address=found.address, done=done,
            subscriptions=[(s, cadence(s.cron, s.zone)) for s in found.subscriptions],
            active=_active(found), feed=self._private_feed(session, subscriber_id),
            feed_action=f"{self._preferences_path(subscriber_id)}/feed",
        )  # fmt: skip

    def _private_feed(self, session: Session, subscriber_id: int) -> str:
        """The address of the reader's own feed, without the extension; nothing without one."""
        serial = audience.private_serial(session, subscriber_id)
        if serial is None:
            return ""
        return f"{self.app.settings.public_url}{PRIVATE}{self.app.tokens.make('feed', (subscriber_id, serial))}"

    def preferences(self, request: Request, form: FormData) -> Response:
        """``unsubscribe`` and ``subscribe`` name digests of this reader; ``all`` leaves every one."""
        subscriber_id = self._ids("preferences", request)
        leave, back = set(form.getlist("unsubscribe")), set(form.getlist("subscribe"))
        now, changed = self.app.db.now(), []
        with self.app.db.transaction() as session:
            found = audience.preferences(session, subscriber_id)
            for s in found.subscriptions if found else ():
                if "all" in form or s.digest_slug in leave:
                    audience.unsubscribe(session, s.id, now=now, source="preferences")
                    changed.append(f"You are unsubscribed from {s.digest_name}.")
                elif s.digest_slug in back:
                    audience.resubscribe(session, s.id, now=now, source="preferences")
                    changed.append(f"You are subscribed to {s.digest_name} again.")
            done = "You are unsubscribed from everything." if "all" in form else " ".join(changed)
            return self._preferences_page(session, subscriber_id, done)

    def unsubscribe_form(self, request: Request) -> Response:
        subscription_id = self._ids("unsubscribe", request)
        with self.app.db.reading() as session:
            return self._unsubscribe_page(session, audience.find(session, subscription_id))

    def _unsubscribe_page(self, session: Session, standing: Standing | None) -> Response:
        brand = self.pages.brand(session)
        if standing is None:
            return self._closed(brand)
        found = audience.preferences(session, standing.subscriber_id)
        assert found is not None
        gone = standing.status is SubscriptionStatus.UNSUBSCRIBED
        return self.pages.show(
            "public/unsubscribed.html" if gone else "public/unsubscribe.html", brand, private=True,
            standing=standing, address=found.address, others=[s for s in _active(found) if s.id != standing.id],
            preferences=self._preferences_path(standing.subscriber_id),
        )  # fmt: skip

    def unsubscribe(self, request: Request, form: FormData) -> Response:
        subscription_id = self._ids("unsubscribe", request)
        one_click = _text(form, "List-Unsubscribe") == "One-Click"  # RFC 8058 §3.2
        now = self.app.db.now()
        with self.app.db.transaction() as session:
            source = "one-click" if one_click else "page"
            standing = audience.unsubscribe(session, subscription_id, now=now, source=source)
            if not one_click:
                return self._unsubscribe_page(session, standing)
        return PlainTextResponse("You are unsubscribed.\n", headers={"cache-control": "no-store"})

    def _ids(self, purpose: str, request: Request) -> int:
        """The one id in the token of the address."""
        ids = self.app.tokens.read(purpose, request.path_params["token"])
        if len(ids) != 1:
            raise TokenInvalid("this link is not complete; please use the whole link from the mail")
        return ids[0]


# ----------------------------------------------------------------------------- what templates are given


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def _active(found: audience.Preferences | None) -> list[Standing]:
    return [s for s in found.subscriptions if s.status is SubscriptionStatus.ACTIVE] if found else []


def _choices(offers: Sequence[Offer], wanted: Sequence[str]) -> list[Choice]:
    """Digests for the form; what is the only one, or was asked for, is ticked."""
    only = len(offers) == 1
    return [
        Choice(
            o.slug, o.name, " · ".join(filter(None, (cadence(c, z) for c, z in o.cadences))), only or o.slug in wanted
        )
        for o in offers
    ]


def _tree(rows: Sequence[TopicRow]) -> list[tuple[int, TopicRow]]:
    """Categories in the order of a table of contents, each with its depth."""
    known = {r.slug for r in rows}
    below: dict[str | None, list[TopicRow]] = {}
    for row in sorted(rows, key=lambda r: r.name.casefold()):
        below.setdefault(row.parent if row.parent in known else None, []).append(row)
    found: list[tuple[int, TopicRow]] = []
    rest = [(0, row) for row in reversed(below.pop(None, []))]
    while rest:
        depth, row = rest.pop()
        found.append((depth, row))
        rest.extend((depth + 1, child) for child in reversed(below.pop(row.slug, [])))
    return found


def _cloud(rows: Sequence[TopicRow]) -> list[tuple[int, TopicRow]]:
    """Tags in the order of the alphabet, each with a size from 1 to 5 by how often it is used."""
    most = log(max((r.count for r in rows), default=1) + 1)
    sized = [(1 + round(4 * log(r.count + 1) / most), r) for r in rows]
    return sorted(sized, key=lambda pair: pair[1].name.casefold())


_DAYS = ("Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays")
_DAY_NAMES = {name[:3].upper(): i for i, name in enumerate(_DAYS)}


def cadence(cron: str | None, zone: str) -> str:
    """A usual cron text in words; nothing for an unusual one, rather than something wrong."""
    parts = (cron or "").upper().split()
    if len(parts) != 5 or not parts[0].isdigit() or not parts[1].isdigit() or parts[3] != "*":
        return ""
    minute, hour, date, _, weekday = parts
    at = f"at {int(hour):02d}:{int(minute):02d}" + ("" if zone in ("", "subscriber") else f" ({city(zone)})")
    if date == weekday == "*":
        return f"Every day {at}"
    if weekday == "*" and date.isdigit():
        return f"Day {int(date)} of the month, {at}"
    if date != "*":
        return ""
    if weekday in ("1-5", "MON-FRI"):
        return f"Monday to Friday {at}"
    names = [_weekday(part) for part in weekday.split(",")]
    return f"{' and '.join(names) if len(names) < 3 else ', '.join(names)} {at}" if all(names) else ""


def _weekday(part: str) -> str:
    number = int(part) if part.isdigit() else _DAY_NAMES.get(part, 9)
    return _DAYS[number % 7] if number <= 7 else ""  # 0 and 7 are both Sunday


def city(zone: str) -> str:
    return zone.rpartition("/")[2].replace("_", " ")
