"""Editions from a run that is due to their end: open → compose → release → finish. The heart.

    Editor.tick(at)
    ├ open_due     clocks that struck → schedules.decide_due → editions (draft, or skipped with a reason)
    │              every process may try: compare-and-set on the clock and a unique edition let one win
    ├ compose      catalogue.candidates → what each card costs → the pool, snapshot with the house variant's verdicts
    │              no transaction is held while templates compile and cards are rendered; approval holds here.
    │              Done again before a release that comes later: the same candidates, as they are by then
    ├ release      ONE transaction, serialised: what each reader has had → selection.pick → variants → batches
    └ finish       all batches done → finished

Decides when and in which order, and owns the transactions. What a reader gets is `digest.selection`; what they had is
`digest.ledger.history`; how it looks is `digest.rendering`. Sends nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import catalogue, ledger, rules, schedules
from digest.catalogue import marks
from digest.db import Database, clock
from digest.editions.proving import failed, gather_proof, prove, telling
from digest.editions.ranking import Parts, Standing, rank
from digest.editions.reasons import told_by
from digest.editions.skipping import nothing_to_say
from digest.errors import RenderError, UsageError
from digest.ledger.digests import READERS_ZONE
from digest.models import Article, Digest, Edition, EditionArticle, Schedule, ScheduleClock
from digest.rendering import Renderer, check_line
from digest.selection import (
    Limits,
    Outcome,
    Pool,
    Reason,
    StoryPart,
    caps_of,
    group_stories,
)
from digest.sending.printer import Post, Printer, brand_to_json, view_of
from digest.types import (
    HTML_BUDGET,
    ArticleStatus,
    Candidate,
    DigestStatus,
    Dress,
    EditionStatus,
    EditionView,
    Run,
    StoryCard,
)

#: Kept free of the byte budget: other languages' shells and dates differ by a little from the house's.
ROOM_RESERVE = 2_000
#: So long an edition waits for an earlier one that another process composes.
COMPOSING = timedelta(minutes=2)


@dataclass(slots=True)
class Gathered:
    """What composing read: the candidates, and all that their cards depend on."""

    edition_id: int
    revision: int
    candidates: Sequence[Candidate]
    view: EditionView
    sections: dict[int, str] = field(default_factory=dict)
    parts: Parts = field(default_factory=dict)
    left: Sequence[dict[str, Any]] = ()  # rows of the pool before, of what is no candidate any more


@dataclass(frozen=True, slots=True)
class Costed:
    """Bytes of each card, what is left for them, and which template says so."""

    costs: Mapping[int, int]
    room: int
    section_cost: int
    template_hash: str


class Announce(Protocol):
    """Tells other processes, within the transaction, that an edition was opened or has ``batches`` to send."""

    def opened(self, session: Session, edition_id: int) -> None: ...

    def released(self, session: Session, batches: int) -> None: ...


class Editor:
    """Opens, composes and releases. ``live``: editions leave for the relay, not for the capture server.

    ``announce``: who else is told; None where this process does all the work itself.
    """

    def __init__(
        self, database: Database, renderer: Renderer, post: Post, *, live: bool, announce: Announce | None = None
    ) -> None:
        self._db, self._renderer, self._post, self._live = database, renderer, post, live
        self._announce = announce

    def tick(self, at: datetime) -> list[int]:
        """Everything that is due at *at*, up to release. Returns the ids of the editions it touched."""
        touched = self.close_captured()
        touched += self.open_due(at)
        with self._db.reading() as session:
            drafts = list(ledger.editions.waiting(session))
        for edition_id in drafts:
            self.compose(edition_id)
            self.release(edition_id)
        return [*touched, *drafts]

    # ------------------------------------------------------------------------- open

    def open_due(self, at: datetime) -> list[int]:
        """Open what struck by *at*, one transaction a schedule: clocks and editions move together or not at all."""
        self._follow_home(at)
        with self._db.reading() as session:
            due = list(dict.fromkeys(s.id for _, s, _ in ledger.editions.clocks_to_look_at(session, at)))
        opened: list[int] = []
        for schedule_id in due:
            with self._db.transaction() as session:
                opened += self._strike(session, schedule_id, at)
        return opened

    def _follow_home(self, at: datetime) -> None:
        """The archive shows a run as the publication's own zone has it: when that moves, a clock must stand there."""
        with self._db.reading() as session:
            home = catalogue.publication(session).timezone
            homeless = ledger.editions.without_clock(session, READERS_ZONE, home)
        if homeless:
            with self._db.transaction() as session:
                for s in homeless:
                    run = schedules.next_run(s.cron, home, at)
                    ledger.editions.add_clock(session, s.id, home, run.instant if run else None)

    def _strike(self, session: Session, schedule_id: int, at: datetime) -> list[int]:
        runs: dict[tuple[datetime, str, int], tuple[schedules.DueRun, list[str]]] = {}
        found: tuple[Schedule, Digest] | None = None
        for clock_row, schedule, digest in ledger.editions.clocks_to_look_at(session, at):
            if schedule.id == schedule_id:
                found = schedule, digest
                for due in self._move(session, clock_row, schedule, at):
                    key = due.run.instant, due.run.local_key, due.run.fold
                    runs.setdefault(key, (due, []))[1].append(clock_row.zone)
        if found is None:
            return []
        opened = (self._open(session, *found, due, zones, at) for due, zones in runs.values())
        return [edition for edition in opened if edition is not None]

    def _move(
        self, session: Session, clock_row: ScheduleClock, schedule: Schedule, at: datetime
    ) -> Sequence[schedules.DueRun]:
        """Advance one clock; () when another process did, or nothing is due."""
        since = clock_row.next_run_at
        if since is None:  # seen for the first time: it counts from its making, never from before the simulated now
            born = ledger.editions.counts_from(session, clock_row, schedule)
            first = schedules.next_run(schedule.cron, clock_row.zone, min(born, at))
            if first is None or first.instant > at:
                ledger.editions.move_clock(session, clock_row, first.instant if first else None)
                return ()
            since = first.instant
        due = schedules.decide_due(
            schedule.cron, clock_row.zone, since, at,
            policy=schedule.missed, max_age=timedelta(seconds=schedule.missed_max_age_s),
        )  # fmt: skip
        return due.runs if ledger.editions.move_clock(session, clock_row, due.next_run_at) else ()

    def _open(
        self,
        session: Session,
        schedule: Schedule,
        digest: Digest,
        due: schedules.DueRun,
        zones: list[str],
        at: datetime,
    ) -> int | None:
        home = catalogue.publication(session).timezone
        own = schedule.timezone == READERS_ZONE
        zone = home if home in zones else zones[0]
        skip = due.skip or ("the digest is paused" if digest.status == DigestStatus.PAUSED else None)
        values = self.edition_values(session, digest, replace(due.run, zone=zone), at, due.reach)
        values |= {
            "schedule_id": schedule.id,
            "zones": sorted(zones) if own else [],
            "archived": not own or home in zones,
        }
        if skip:
            values |= {"status": EditionStatus.SKIPPED.value, "reason": skip, "finished_at": values["created_at"]}
        edition = ledger.editions.open_edition(session, values)
        if edition is None and own and not skip:
            for zone in zones:
                edition = ledger.editions.join_zone(session, values, zone) or edition
        if edition is not None and not skip and self._announce is not None:
            self._announce.opened(session, edition)
        return edition

    def edition_values(
        self, session: Session, digest: Digest, run: Run, at: datetime, reach: timedelta = timedelta(0)
    ) -> dict[str, Any]:
        home = catalogue.publication(session)
        recipe = {
            "name": digest.name, "rule": digest.rule, "categories": digest.categories, "tags": digest.tags,
            "layout": digest.layout, "lookback_s": digest.lookback_s + int(reach.total_seconds()),
            "grace_s": digest.grace_s, "minimum": digest.minimum, "maximum": digest.maximum, "approve": digest.approve,
            "uncertain": digest.uncertain, "subject": digest.subject, "preheader": digest.preheader,
            "from_name": digest.from_name or home.from_name, "reply_to": digest.reply_to,
            "lifetime_s": digest.lifetime_s,
            "intro": digest.intro, "closing": digest.closing, "sponsor": digest.sponsor,
            "link_params": digest.link_params, "selection": digest.selection,
        }  # fmt: skip
        utc = run.instant.astimezone(UTC)
        return {
            "digest_id": digest.id, "local_time": run.local_key, "fold": run.fold, "instant": run.instant,
            "zone": run.zone, "slug": ledger.editions.free_slug(session, digest.id, run.local_key[:10]),
            "month": utc.year * 100 + utc.month, "at": at, "recipe": recipe, "live": self._live,
            "repeats": digest.repeat == "others", "status": EditionStatus.DRAFT.value, "created_at": clock(session),
            "revision": 0, "recipients": 0, "template_hash": "", "subject": "", "gates": [], "archived": True,
            "zones": [],
            "reason": None, "schedule_id": None, "request_id": None,
        }  # fmt: skip

    def open_manual(self, slug: str, at: datetime) -> int:
        """An edition outside the schedule, to all active readers of the digest."""
        with self._db.transaction() as session:
            return self.open_manual_in(session, ledger.digests.find_digest(session, slug), at)

    def open_manual_in(self, session: Session, digest: Digest, at: datetime) -> int:
        zone = catalogue.publication(session).timezone
        local = at.astimezone(schedules.zone(zone))
        run = Run(local.replace(tzinfo=None, fold=0, microsecond=0), local.fold, at, zone)
        values = self.edition_values(session, digest, run, at) | {"request_id": uuid.uuid4().hex}
        edition = ledger.editions.open_edition(session, values)
        assert edition is not None
        return edition

    # ------------------------------------------------------------------------- compose

    def compose(self, edition_id: int) -> None:
        """The pool of a draft. Then its mails are proved; what fails holds the edition with a sentence.

        One that was composed before is composed again, for what editors and sources did meanwhile: its candidates stay
        those it had, but for what was pinned since.
        """
        with self._db.reading() as session:
            gathered = self.gather(session, edition_id)
        try:
            if gathered is not None:
                costed = self.cost(gathered)
                with self._db.transaction() as session:
                    edition = ledger.editions.lock_edition(session, edition_id)
                    untouched = edition is not None and edition.revision == gathered.revision
                    if edition is not None and untouched and edition.status in ledger.editions.OPEN:
                        self.store(session, edition, gathered, costed)
        except RenderError as e:
            self._hold(edition_id, str(e))
            return
        self.prove(edition_id)

    def prove(self, edition_id: int) -> None:
        """Let an open edition's mails pass the gates; one that fails holds it. No transaction while they are made."""
        try:
            self._prove(edition_id)
        except RenderError as e:
            self._hold(edition_id, str(e))

    def _prove(self, edition_id: int) -> None:
        with self._db.reading() as session:
            edition = session.get(Edition, edition_id)
            if edition is None or edition.composed_at is None or edition.status not in ledger.editions.OPEN:
                return
            if edition.gates:  # by another process, and nothing was changed since
                return
        with self._db.rehearsal() as session:  # it writes verdicts to ask the house; nobody else may meanwhile
            edition = ledger.editions.lock_edition(session, edition_id)
            if edition is None:
                return
            pool = self.pool(session, edition)
            house, _ = self.house(session, edition, pool)
            printer = Printer.load(session, edition, self._renderer, self._post)
            proof = gather_proof(session, edition, pool, house, printer)
        found = prove(proof)
        with self._db.transaction() as session:
            edition = ledger.editions.lock_edition(session, edition_id)
            if edition is not None and edition.revision == proof.revision and edition.status in ledger.editions.OPEN:
                edition.gates = [gate.to_json() for gate in found]
                if reason := failed(found):
                    edition.status, edition.reason = EditionStatus.HELD, reason

    def look(self, session: Session, edition_id: int) -> None:
        """Bring the pool of an edition that is still open to what a release would find now; *session* is a rehearsal.

        Does nothing to one that was never composed, nor where its template is broken.
        """
        edition = ledger.editions.lock_edition(session, edition_id)
        if edition is None or edition.composed_at is None or (gathered := self.gather(session, edition_id)) is None:
            return
        try:
            costed = self.cost(gathered)
        except RenderError:
            return
        self.store(session, edition, gathered, costed)

    def gather(self, session: Session, edition_id: int) -> Gathered | None:
        edition = session.get(Edition, edition_id)
        if edition is None or edition.status not in ledger.editions.OPEN:
            return None
        recipe, pinned = edition.recipe, marks.marks(session, edition.digest_id, edition.at).pinned
        found = catalogue.candidates(
            session,
            rules.combine(recipe["rule"], recipe["categories"], recipe["tags"]),
            at=edition.at,
            lookback=timedelta(seconds=recipe["lookback_s"]),
            grace=timedelta(seconds=recipe["grace_s"]),
            pinned=pinned,
        )
        left: list[dict[str, Any]] = []
        if edition.composed_at is not None:
            before = ledger.editions.pool_values(session, edition_id)
            found = [c for c in found if c.card.id in before or c.card.id in pinned]
            still = {c.card.id for c in found}
            left = [row for article, row in before.items() if article not in still]
        topics = {t for c in found for t in c.topics}
        slug = session.get_one(Digest, edition.digest_id).slug
        brand = catalogue.brand(session, self._post.public_url)
        view = view_of(edition, slug, brand, self._post.public_url)
        ranked, parts = rank(session, edition, found)
        titles = ledger.readings.section_titles(session, topics)
        return Gathered(edition_id, edition.revision, ranked, view, titles, parts, left)

    def cost(self, gathered: Gathered) -> Costed:
        layout = self._renderer.layout(gathered.view.layout)
        dressed = layout.open(gathered.view, Dress.speaking(gathered.view.brand.language))
        longest = max(gathered.sections.values(), key=len, default="")
        return Costed(
            costs={c.card.id: dressed.story_cost(StoryCard(c.card)) for c in gathered.candidates},
            room=HTML_BUDGET - dressed.shell_cost - ROOM_RESERVE,
            section_cost=dressed.section_cost(longest) if longest else 0,
            template_hash=dressed.hash,
        )

    def store(self, session: Session, edition: Edition, gathered: Gathered, costed: Costed) -> None:
        rows = [
            {
                "article_id": c.card.id, "rank": rank, "story_id": c.story_id, "topics": list(c.topics),
                "card": c.card.to_json(), "cost": costed.costs[c.card.id], "verdict": "out", "reason": Reason.MINIMUM,
                "score": {
                    "primary": c.primary, "sticky": c.sticky, "pinned": c.pinned, "source": c.source,
                    "eligible_at": c.eligible_at.isoformat(), "parts": gathered.parts.get(c.card.id),
                    "aside": Reason.FRESH if c.fresh else None,
                },
                "section": 0, "position": None,
            }
            for rank, c in enumerate(gathered.candidates)
        ]  # fmt: skip
        for place, row in enumerate(gathered.left, len(rows)):
            rows.append(row | {"rank": place, "score": row["score"] | {"aside": Reason.CHANGED}})
        ledger.editions.write_pool(session, edition.id, rows)
        edition.recipe = edition.recipe | {
            "brand": brand_to_json(gathered.view.brand), "room": costed.room, "section_cost": costed.section_cost,
            **telling(session, edition, {c.card.id: c.card.title for c in gathered.candidates}),
        }  # fmt: skip
        edition.template_hash, edition.composed_at, edition.gates = costed.template_hash, clock(session), []
        edition.revision += 1
        session.flush()
        self.house(session, edition, self.pool(session, edition))
        if edition.recipe["approve"]:
            edition.status, edition.reason = EditionStatus.HELD, "waiting for approval"

    def _hold(self, edition_id: int, reason: str) -> None:
        with self._db.transaction() as session:
            edition = ledger.editions.lock_edition(session, edition_id)
            if edition is not None and edition.status in ledger.editions.OPEN:
                edition.status, edition.reason = EditionStatus.HELD, reason

    def pool(self, session: Session, edition: Edition) -> Pool:
        """The snapshot as stories and topics of today. What was removed, taken down or is too fresh stands aside."""
        rows = ledger.editions.pool(session, edition.id)
        excluded = marks.marks(session, edition.digest_id, edition.at).excluded
        today = dict(
            session.execute(
                select(Article.id, Article.story_id)
                .join(EditionArticle, EditionArticle.article_id == Article.id)
                .where(EditionArticle.edition_id == edition.id, Article.status == ArticleStatus.PUBLISHED)
            ).all()
        )
        recipe = edition.recipe
        wanted = recipe.get("selection", {})
        about = {t for row in rows for t in (*row.topics, row.score.get("primary")) if t}
        topics = Standing.read(session, wanted, about)
        parts = []
        for row in rows:
            row.verdict, row.reason, row.detail = "out", _aside(row, excluded, today), ""
            row.section, row.position = 0, None
            if not row.reason:
                row.story_id = today[row.article_id]
                parts.append(_part(row, topics))
        limits = Limits(recipe["minimum"], recipe["maximum"], recipe["room"], recipe["section_cost"])
        caps = caps_of(wanted, limits.maximum, topics.named, topics.headings)
        return Pool(group_stories(parts), topics.order, limits, caps, topics.hidden)

    def house(self, session: Session, edition: Edition, pool: Pool) -> tuple[Outcome, int]:
        """The house variant: all topics, history = the digest's own editions. Writes verdicts, reasons, positions.

        Returns its outcome and how many stories were new to it, within its caps.
        """
        bit_of_article = ledger.history.article_bits(session, edition.id, pool.bit_of)
        earlier = ledger.history.house_seen(session, edition, bit_of_article)
        seen = reduce(or_, earlier.values(), 0)
        outcome = pool.pick(0, pool.everything & ~seen)
        verdicts = pool.explain(0, pool.everything, seen, outcome)
        details = told_by(session, pool, verdicts, earlier)
        items = [(a, s) for a, s in pool.items(outcome) if a]
        place = {article: i for i, (article, _) in enumerate(items)}
        section = dict(items)
        leads = {s.articles[0] for s in pool.stories}
        in_pool = {a for s in pool.stories for a in s.articles}
        for row in ledger.editions.pool(session, edition.id):
            if row.article_id not in in_pool:
                continue
            verdict, reason, _ = verdicts[row.story_id]
            row.verdict, row.detail = verdict, details.get(row.story_id, "")
            row.reason = Reason.ALSO if verdict == "in" and row.article_id not in leads else reason
            row.position, row.section = place.get(row.article_id), section.get(row.article_id, 0)
        session.flush()
        return outcome, pool.choose(0, pool.everything & ~seen).bit_count()

    # ------------------------------------------------------------------------- release

    def release(self, edition_id: int, revision: int | None = None) -> None:
        """Decide who gets what, once and for all. Does nothing to an edition that is held or already released."""
        with self._db.transaction() as session:
            ledger.history.lock_releases(session)
            edition = ledger.editions.lock_edition(session, edition_id)
            if edition is None or edition.status != EditionStatus.DRAFT or edition.composed_at is None:
                return
            if revision is not None and edition.revision != revision:
                raise UsageError(f"edition {edition_id} was changed meanwhile; look at it again")
            self._release(session, edition)

    def release_ready(self) -> list[int]:
        """Release what is composed, in the order of editions; returns the ids of those released.

        An edition waits for an earlier one that another process still composes, while that one is young.
        """
        released: list[int] = []
        while (edition_id := self._next_ready()) is not None:
            self.prove(edition_id)  # unless whoever composed it has done so
            self.release(edition_id)
            released.append(edition_id)
        return released

    def _next_ready(self) -> int | None:
        with self._db.reading() as session:
            young = clock(session) - COMPOSING
            for edition_id in ledger.editions.waiting(session):
                edition = session.get_one(Edition, edition_id)
                if edition.composed_at is not None:
                    return edition_id
                if edition.created_at > young:
                    return None
        return None

    def _release(self, session: Session, edition: Edition) -> None:
        edition.live = self._live
        pool = self.pool(session, edition)
        bit_of_article = ledger.history.article_bits(session, edition.id, pool.bit_of)
        now = clock(session)
        released = ledger.history.Releaser(
            session,
            edition,
            taste=pool.taste,
            pick=pool.pick,
            had=pool.had,
            items=pool.items,
            priors=ledger.history.prior_editions(session, edition, bit_of_article),
            now=now,
        ).run()
        house, new = self.house(session, edition, pool)
        edition.recipients = released.recipients
        reason = nothing_to_say(edition, pool, released, house, new)
        if reason is not None:
            edition.status, edition.reason, edition.finished_at = EditionStatus.SKIPPED, reason, now
            return
        edition.status, edition.reason, edition.released_at = EditionStatus.SENDING, None, now
        edition.subject = self._subject(session, edition, pool, house)
        if self._announce is not None:
            self._announce.released(session, ledger.editions.batches_of(session, edition.id))

    def _subject(self, session: Session, edition: Edition, pool: Pool, house: Outcome) -> str:
        """The subject of the house variant, for archive and feed; the digest's name where there is none."""
        printer = Printer.load(session, edition, self._renderer, self._post)
        items = pool.items(house)
        printer.learn_titles(session, items)
        try:
            return printer.render(Dress.speaking(printer.view.brand.language).code, items).subject if items else ""
        except RenderError:
            return str(edition.recipe["name"])

    # ------------------------------------------------------------------------- what a person decides

    def approve(self, edition_id: int) -> None:
        """Let a held edition go. One that a template held is composed anew first; one that was paused goes on."""
        with self._db.transaction() as session:
            edition = ledger.editions.known(session, edition_id)
            if edition.status == EditionStatus.PAUSED:
                edition.status, edition.reason = EditionStatus.SENDING, None
                return
            if edition.status != EditionStatus.HELD:
                raise UsageError(f"edition {edition_id} is {edition.status}, not held; there is nothing to approve")
            edition.status, edition.reason, edition.gates = EditionStatus.DRAFT, None, []
            edition.recipe = edition.recipe | {"approve": False, "held": True}
        self.compose(edition_id)
        self.release(edition_id)

    def reword(self, edition_id: int, *, subject: str | None = None, preheader: str | None = None) -> None:
        """Give an edition that is not out yet lines of its own: templates, as a digest's; ``""`` takes them back."""
        given = {key: text for key, text in (("subject", subject), ("preheader", preheader)) if text is not None}
        for what, template in given.items():
            if template:
                check_line(template, what)
        with self._db.transaction() as session:
            edition = ledger.editions.known(session, edition_id)
            if edition.status not in ledger.editions.OPEN:
                raise UsageError(f"edition {edition_id} is {edition.status}; its lines cannot be changed any more")
            digest = session.get_one(Digest, edition.digest_id)
            edition.recipe = edition.recipe | {key: text or getattr(digest, key) for key, text in given.items()}
            edition.gates, edition.revision = [], edition.revision + 1
        self.prove(edition_id)

    def cancel(self, edition_id: int, reason: str = "cancelled by an admin") -> None:
        """Stop an edition. What is on the wire may still arrive; nothing more is granted."""
        with self._db.transaction() as session:
            edition = ledger.editions.known(session, edition_id)
            if edition.status in (EditionStatus.FINISHED, EditionStatus.CANCELLED, EditionStatus.SKIPPED):
                raise UsageError(f"edition {edition_id} is {edition.status}; there is nothing left to cancel")
            ledger.editions.cancel(session, edition, reason, clock(session))

    def close_captured(self) -> list[int]:
        """Going live: what was still going out to the capture server ends there."""
        if not self._live:
            return []
        with self._db.transaction() as session:
            editions = ledger.editions.captured_but_open(session)
            for edition in editions:
                ledger.editions.cancel(session, edition, "mail went live before this captured edition was out",
                                       clock(session))  # fmt: skip
            return [e.id for e in editions]

    def finish(self) -> list[int]:
        """Close editions whose batches are all done."""
        with self._db.transaction() as session:
            return ledger.editions.finish_sent(session, clock(session))


def _aside(row: EditionArticle, excluded: Collection[int], published: Collection[int]) -> str:
    """Why a row of the snapshot cannot be picked by anybody; '' if it can."""
    if row.article_id in excluded:
        return Reason.EXCLUDED
    if row.article_id not in published:
        return Reason.GONE
    return row.score.get("aside") or ""


def _part(row: EditionArticle, topics: Standing) -> StoryPart:
    """A row of the snapshot, as selection sees it."""
    known = row.score
    primary = known.get("primary")
    return StoryPart(
        row.article_id, row.story_id, topics.of(row.topics), primary and topics.now[primary], row.cost,
        authors=tuple(row.card.get("authors", ())), source=known.get("source"), title=row.card["title"],
        pinned=bool(known.get("pinned")),
    )  # fmt: skip
