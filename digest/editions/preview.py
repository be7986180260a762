"""The next edition exactly as it would go out: opened, composed and picked in a transaction that is rolled back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import catalogue, ledger, schedules
from digest.audience import parse_address
from digest.db import Database
from digest.editions.editor import Editor
from digest.editions.proving import Gate, prove_one
from digest.editions.reasons import told_by
from digest.errors import UsageError
from digest.ledger.digests import READERS_ZONE
from digest.ledger.history import PART_BITS, article_bits, left_out, prior_editions, seen_by
from digest.models import Digest, Edition, EditionArticle, Subscriber, Subscription, Taste
from digest.rendering import Renderer
from digest.selection import Outcome, Pool, Reason, in_words
from digest.sending.printer import Post, Printer
from digest.types import Dress, RenderedVariant


@dataclass(frozen=True, slots=True)
class Preview:
    """``rendered`` and ``message`` are None when nobody would get anything; ``data`` says why, for every candidate."""

    rendered: RenderedVariant | None
    message: bytes | None
    data: dict[str, Any]


#: verdict, reason, what the reason names
_Told = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Reader:
    subscriber_id: int
    subscription_id: int
    address: str
    topics: tuple[int, ...]
    dress: int


def preview(
    database: Database, renderer: Renderer, post: Post, slug: str, at: datetime, *, live: bool, email: str | None = None
) -> Preview:
    """What the digest's next run would send if it were composed at *at*: the house variant, or what one reader gets.

    RenderError when a template is broken; UsageError when there is no such digest or reader.
    """
    editor = Editor(database, renderer, post, live=live)
    with database.rehearsal() as session:
        digest = ledger.digests.find_digest(session, slug)
        reader = _reader(session, digest, email) if email else None
        edition = session.get_one(Edition, _open(session, editor, digest, at))
        gathered = editor.gather(session, edition.id)
        assert gathered is not None
        editor.store(session, edition, gathered, editor.cost(gathered))
        pool = editor.pool(session, edition)
        outcome, verdicts, had = _pick(session, editor, edition, pool, reader)
        printer = Printer.load(session, edition, renderer, post)
        items = [*pool.items(outcome), *left_out(had if outcome else 0)]
        printer.learn_titles(session, items)
        dress = reader.dress if reader else Dress.speaking(gathered.view.brand.language).code
        rendered = printer.render(dress, items) if any(a for a, _ in items) else None
        message = _message(printer, rendered, reader, at) if rendered else None
        rows = ledger.editions.pool(session, edition.id)
        gates = prove_one(printer, dress, items, message) if message is not None else []
        data = _data(digest, edition, rows, verdicts, items, printer.titles, rendered, message, gates)
        return Preview(rendered, message, data)


def _open(session: Session, editor: Editor, digest: Digest, at: datetime) -> int:
    """The edition of the next run at or after *at*, unless it is open already: then one like it."""
    row = ledger.digests.list_digests(session, digest.slug)[0]
    if row.schedules:
        schedule = row.schedules[0]
        home = catalogue.publication(session).timezone
        zone = home if schedule.timezone == READERS_ZONE else schedule.timezone
        run = schedules.next_run(schedule.cron, zone, at - timedelta(minutes=1))
        if run is not None:
            values = editor.edition_values(session, digest, run, at) | {"schedule_id": schedule.id}
            edition = ledger.editions.open_edition(session, values)
            if edition is not None:
                return edition
    return editor.open_manual_in(session, digest, at)


def _reader(session: Session, digest: Digest, email: str) -> _Reader:
    row = session.execute(
        select(Subscriber.id, Subscription.id, Subscriber.address, Taste.key, Subscription.dress)
        .join(Subscription, Subscription.subscriber_id == Subscriber.id)
        .join(Taste, Taste.id == Subscription.taste_id)
        .where(Subscription.digest_id == digest.id, Subscriber.address_key == parse_address(email).key)
    ).one_or_none()
    if row is None:
        raise UsageError(f"that address has no subscription to {digest.slug}; `digest subscribers show` lists theirs")
    topics = tuple(int(t) for t in row[3].split(",")) if row[3] else ()
    return _Reader(row[0], row[1], row[2], topics, row[4])


def _pick(
    session: Session, editor: Editor, edition: Edition, pool: Pool, reader: _Reader | None
) -> tuple[Outcome, dict[int, _Told], int]:
    """The outcome, article id → its verdict for every candidate, and how many stories other digests brought."""
    outcome, _ = editor.house(session, edition, pool)
    had = 0
    if reader is not None:
        bit_of_article = article_bits(session, edition.id, pool.bit_of)
        priors = prior_editions(session, edition, bit_of_article)
        who = reader.subscriber_id
        every, elsewhere = seen_by(session, priors, who >> PART_BITS, [who])
        places, reach = pool.taste(reader.topics)
        seen = every[who]
        outcome = pool.pick(places, reach & ~seen)
        verdicts = pool.explain(places, reach, seen, outcome)
        had = pool.had(places, reach & ~seen, reach & elsewhere.get(who, 0))
    rows = ledger.editions.pool(session, edition.id)
    told = {r.article_id: (r.verdict, r.reason, r.detail) for r in rows}
    if reader is not None:
        earlier = {p.edition_id: seen_by(session, [p], who >> PART_BITS, [who])[0][who] for p in priors}
        details = told_by(session, pool, verdicts, earlier)
        for story in pool.stories:
            verdict, reason, _ = verdicts[story.id]
            detail = details.get(story.id, "")
            told |= dict.fromkeys(story.articles, (verdict, Reason.ALSO if verdict == "in" else reason, detail))
            told[story.articles[0]] = verdict, reason, detail
    return outcome, told, had


def _message(printer: Printer, rendered: RenderedVariant, reader: _Reader | None, at: datetime) -> bytes:
    """The mail as its reader would get it; for nobody, to ``reader@`` the mail domain, with links that open nothing."""
    who = (
        (reader.subscriber_id, reader.subscription_id, reader.address) if reader else (0, 0, f"reader@{printer.domain}")
    )
    return b"".join(printer.prepare_rendered(rendered).build(printer.addressee(*who, at)))


def _data(
    digest: Digest, edition: Edition, rows: Sequence[EditionArticle], verdicts: dict[int, _Told],
    items: Sequence[tuple[int, int]], titles: dict[int, str], rendered: RenderedVariant | None, message: bytes | None,
    gates: Sequence[Gate],
) -> dict[str, Any]:  # fmt: skip
    position = {article: i for i, (article, _) in enumerate(i for i in items if i[0])}
    section = {article: titles.get(s, "") for article, s in items if article}
    candidates = [
        {
            "id": r.article_id, "title": r.card["title"], "url": r.card["url"],
            "published_at": r.card["published_at"], "verdict": verdicts[r.article_id][0],
            "reason": verdicts[r.article_id][1], "detail": verdicts[r.article_id][2],
            "section": section.get(r.article_id), "position": position.get(r.article_id),
            "score": in_words(r.score.get("parts")),
        }
        for r in rows
    ]  # fmt: skip
    picks = sorted((c for c in candidates if c["position"] is not None), key=lambda c: c["position"])
    return {
        "digest": digest.slug,
        "scheduled_for": edition.instant.astimezone(schedules.zone(edition.zone)).isoformat(),
        "at": edition.at.isoformat().replace("+00:00", "Z"),
        "subject": rendered.subject if rendered else None,
        "preheader": rendered.preheader if rendered else None,
        "picks": picks,
        "had": -sum(n for article, n in items if not article and n < 0),
        "candidates": candidates,
        "bytes": {
            "html": rendered.html_size if rendered else 0,
            "text": len(rendered.text.encode()) if rendered else 0,
            "message": len(message) if message else 0,
        },
        "gates": [gate.to_json() for gate in gates],
    }
