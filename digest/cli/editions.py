"""Editions on their way: `tick`, `run`, `editions …`, `deliveries …`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from digest.cli.common import (
    Column,
    Door,
    Exit,
    Output,
    asks,
    at_option,
    choice,
    empty_or_ok,
    fail_empty_option,
    gates_told,
    json_option,
    limit_option,
    now,
    pass_door,
    say,
    score_column,
    why_column,
    zulu,
)
from digest.errors import UsageError
from digest.types import EditionStatus

if TYPE_CHECKING:
    from digest.bootstrap import App

_OUTCOMES = ("accepted", "deferred", "rejected", "uncertain", "suppressed", "expired", "cancelled")


def _less_usual(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{row[o]:,} {o}" for o in _OUTCOMES[1:] if row[o])


_ROW = (
    Column("edition", "edition", right=True),
    Column("digest", "digest", whole=True),
    Column("scheduled for", lambda row: row["scheduled_for"] or "by hand", whole=True),
    "status",
    Column("recipients", "recipients", right=True),
    Column("accepted", "accepted", right=True),
    Column("others", _less_usual),
    "reason",
)

# ----------------------------------------------------------------------------- tick, run


@click.command("tick")
@at_option
@click.option("--drain", is_flag=True, help="Send until nothing is left; what stays deferred makes the exit code 6.")
@fail_empty_option
@json_option
@pass_door
def tick(door: Door, at: datetime | None, drain: bool, fail_empty: bool, out: Output) -> int:
    """One pass as the worker makes it: read sources, open what is due, send. Prints the editions it touched."""
    from digest import engine

    with door.app() as app:
        done = engine.tick(app, at or now(), drain=drain)
        for report in done.sources:
            for _code, message in report.errors:
                say(f"{report.source}: {message}")
        rows = engine.edition_rows(app, ids=sorted(done.editions))
    out.rows(rows, *_ROW, empty="nothing was due")
    if done.trouble:
        say(f"mail stays queued: {done.trouble}")
        return Exit.FAILURE
    _say_over(done.over)
    if drain and done.left:
        return Exit.IN_PART
    return _troubled(rows) or empty_or_ok(len(rows), fail_empty)


def _say_over(over: str | None) -> None:
    """The day's mails have gone: no failure, for it was asked for."""
    if over:
        say(f"mail stays queued: {over}")


def _troubled(rows: Sequence[Mapping[str, Any]]) -> int:
    """An edition that stopped half-way is a failure; one that was skipped or waits for a person is not."""
    return Exit.FAILURE if any(row["status"] in ("paused", "failed") for row in rows) else Exit.OK


@click.command("run")
@click.argument("slug")
@at_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@fail_empty_option
@json_option
@pass_door
def run(door: Door, slug: str, at: datetime | None, yes: bool, fail_empty: bool, out: Output) -> int:
    """Open an edition of a digest now and send it. One that needs approval is held."""
    from digest import engine

    with door.app() as app:
        if not yes and asks() and not _wanted(app, slug):
            say("nothing was sent")
            return Exit.FAILURE
        done, edition = engine.run(app, slug, at or now())
        rows = engine.edition_rows(app, ids=[edition])
    out.rows(rows, *_ROW)
    if done.trouble:
        say(f"mail stays queued: {done.trouble}")
        return Exit.FAILURE
    _say_over(done.over)
    if rows[0]["status"] == "sending":
        return Exit.IN_PART
    return _troubled(rows) or empty_or_ok(rows[0]["recipients"], fail_empty)


def _wanted(app: App, slug: str) -> bool:
    from digest import ledger

    with app.db.reading() as session:
        readers = ledger.digests.list_digests(session, slug)[0].readers
    where = "" if app.live else " (caught here, not sent: mail is not live)"
    many = f"{readers:,} reader{'' if readers == 1 else 's'}"
    return click.confirm(f"{slug} has {many}. Open an edition and send it now{where}?", default=False, err=True)


# ----------------------------------------------------------------------------- editions


@click.group()
def editions() -> None:
    """Issues of digests: what went out, what waits, what was left out and why."""


@editions.command("list")
@click.option("--digest", "slug", metavar="D", help="Only of this digest.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest N.")
@fail_empty_option
@json_option
@pass_door
def editions_list(door: Door, slug: str | None, limit: int | None, fail_empty: bool, out: Output) -> int:
    """List editions by scheduled time, digest and number."""
    from digest import engine, ledger

    with door.app() as app:
        if slug is not None:
            with app.db.reading() as session:
                ledger.digests.find_digest(session, slug)
        rows = engine.edition_rows(app, digest_slug=slug, limit=limit)
    return empty_or_ok(out.rows(rows, *_ROW, empty="no editions yet"), fail_empty)


@editions.command("show")
@click.argument("id", type=int)
@click.option("--pool", is_flag=True, help="Every article that was looked at, and why it is in or out.")
@json_option
@pass_door
def editions_show(door: Door, id: int, pool: bool, out: Output) -> None:
    """Show an edition and what any reader got in it."""
    with door.app() as app:
        row = _row(app, id)
        row |= _carried(app, id, pool, is_open=row["status"] in (EditionStatus.DRAFT, EditionStatus.HELD))
    if out.as_json:
        out.line(row)
        return
    told = {key: value for key, value in row.items() if key not in ("articles", "pool", "gates")}
    out.record(told | {"scheduled_for": row["scheduled_for"] or "by hand", "gates": gates_told(row["gates"])})
    listed = (Column("section", "section"), "title")
    if row["articles"]:
        click.echo()
        out.rows(row["articles"], *listed, Column("readers", "readers", right=True))
    if row["pool"] is not None:
        click.echo()
        scored = [score_column] if any(p["score"] for p in row["pool"]) else []
        why = (Column("", "verdict"), why_column, *scored)
        out.rows(row["pool"], *why, *listed, empty="no article was looked at")


def _row(app: App, edition: int) -> dict[str, Any]:
    from digest import engine

    rows = engine.edition_rows(app, ids=[edition])
    if not rows:
        raise UsageError(f"there is no edition {edition}; `digest editions list` shows those there are")
    return rows[0]


def _carried(app: App, edition: int, with_pool: bool, *, is_open: bool) -> dict[str, Any]:
    """What it carries and looked at. One that is still open is shown as it would go out now, and stays as it is."""
    from digest import ledger
    from digest.models import Edition
    from digest.selection import in_words

    editor = app.editor()  # it may want a transaction of its own
    with app.db.rehearsal() if is_open else app.db.reading() as session:
        if is_open:
            editor.look(session, edition)
        carried = ledger.readings.carried(session, edition)
        pool = ledger.editions.pool(session, edition)
        titles = ledger.readings.section_titles(session, {c.section for c in carried} | {p.section for p in pool})
        articles = [
            {
                "id": c.article_id, "url": c.card.url, "title": c.card.title, "section": titles.get(c.section),
                "position": c.position, "readers": c.readers,
            }
            for c in carried
        ]  # fmt: skip
        looked_at = [
            {
                "id": p.article_id, "url": p.card["url"], "title": p.card["title"],
                "published_at": zulu(p.card.get("published_at")), "verdict": p.verdict, "reason": p.reason,
                "detail": p.detail, "section": titles.get(p.section), "position": p.position,
                "score": in_words(p.score.get("parts")),
            }
            for p in pool
        ]  # fmt: skip
        row = session.get_one(Edition, edition)
        lines = {"subject": row.subject or None, "gates": list(row.gates)}
    return {**lines, "articles": articles, "pool": looked_at if with_pool else None}


@editions.command("set")
@click.argument("id", type=int)
@click.option("--subject", metavar="T", help="Template of its subject; '' takes the digest's again.")
@click.option("--preheader", metavar="T", help="Template of the line that inboxes show after it.")
@json_option
@pass_door
def editions_set(door: Door, id: int, subject: str | None, preheader: str | None, out: Output) -> None:
    """Give an edition that is not out yet a subject or preheader of its own."""
    with door.app() as app:
        app.editor().reword(id, subject=subject, preheader=preheader)
        out.rows([_row(app, id)], *_ROW)


@editions.command("approve")
@click.argument("id", type=int)
@json_option
@pass_door
def editions_approve(door: Door, id: int, out: Output) -> None:
    """Let a held or paused edition go: the worker, or `digest tick`, sends it."""
    with door.app() as app:
        app.editor().approve(id)
        out.rows([_row(app, id)], *_ROW)


@editions.command("pause")
@click.argument("id", type=int)
@click.option("--reason", default="paused by an admin", metavar="TEXT", help="Kept with the edition.")
@json_option
@pass_door
def editions_pause(door: Door, id: int, reason: str, out: Output) -> None:
    """Stop an edition for now. What is on the wire may still arrive; nothing more leaves until it is resumed."""
    from digest.editions import pausing

    with door.app() as app:
        pausing.pause(app.db, id, reason)
        out.rows([_row(app, id)], *_ROW)


@editions.command("resume")
@click.argument("id", type=int)
@json_option
@pass_door
def editions_resume(door: Door, id: int, out: Output) -> None:
    """Let a paused edition go on: the worker, or `digest tick`, sends it to those who have not had it."""
    from digest.editions import pausing

    with door.app() as app:
        pausing.resume(app.db, id)
        out.rows([_row(app, id)], *_ROW)


@editions.command("cancel")
@click.argument("id", type=int)
@click.option("--reason", default="cancelled by an admin", metavar="TEXT", help="Kept with the edition.")
@json_option
@pass_door
def editions_cancel(door: Door, id: int, reason: str, out: Output) -> None:
    """Stop an edition. What is on the wire may still arrive; nothing more leaves."""
    with door.app() as app:
        app.editor().cancel(id, reason)
        out.rows([_row(app, id)], *_ROW)


@editions.command("retry")
@click.argument("id", type=int)
@json_option
@pass_door
def editions_retry(door: Door, id: int, out: Output) -> None:
    """Send an edition again to those whose delivery was rejected or has expired, and to nobody else."""
    from digest.editions import settling

    with door.app() as app:
        again = settling.retry(app.db, id)
        if again.passed_over:
            say(f"{again.passed_over} had these stories in a later edition and are passed over")
        out.rows([_row(app, id) | {"retried": again.queued, "passed_over": again.passed_over}], *_ROW)


# ----------------------------------------------------------------------------- deliveries


@click.group()
def deliveries() -> None:
    """What became of each reader's mail."""


@deliveries.command("list")
@click.option("--edition", type=int, required=True, metavar="ID", help="Of this edition.")
@click.option("--outcome", type=choice(*_OUTCOMES), help="Only those that ended so.")
@limit_option
@fail_empty_option
@json_option
@pass_door
def deliveries_list(
    door: Door, edition: int, outcome: str | None, limit: int | None, fail_empty: bool, out: Output
) -> int:
    """List the recipients of an edition and what the next server said to each mail."""
    with door.app() as app:
        _row(app, edition)
        rows = _deliveries(app, edition, outcome, limit)
        count = out.rows(
            rows, "email", "outcome", Column("code", "code", right=True), "enhanced", Column("said", "text"),
            Column("tries", "attempts", right=True), Column("at", "at", whole=True), empty="no deliveries",
        )  # fmt: skip
    return empty_or_ok(count, fail_empty)


def _deliveries(app: App, edition: int, outcome: str | None, limit: int | None) -> Any:
    from itertools import islice

    from digest import ledger
    from digest.delivery.message import message_id
    from digest.models import Edition

    post = app.post
    with app.db.reading() as session:
        found = ledger.deliveries(session, session.get_one(Edition, edition), outcome)
        for d in islice(found, limit):
            yield {
                "email": d.address, "outcome": d.outcome, "code": d.code, "enhanced": d.enhanced, "text": d.text,
                "attempts": d.attempts, "at": d.at,
                "message_id": message_id(post.keys.message_id, edition, d.subscriber_id, post.mail_domain),
            }  # fmt: skip


@deliveries.command("show")
@click.argument("email")
@click.option("--edition", type=int, required=True, metavar="ID", help="Of this edition.")
@json_option
@pass_door
def deliveries_show(door: Door, email: str, edition: int, out: Output) -> None:
    """Tell the whole story of one reader's mail: every attempt, what servers said, and what was heard later."""
    with door.app() as app:
        _row(app, edition)
        story = _story(app, email, edition)
    if out.as_json:
        out.line(story)
        return
    out.record({key: value for key, value in story.items() if key not in ("attempts", "events")})
    said = (Column("code", "code", right=True), "enhanced", Column("said", "text"))
    click.echo()
    out.rows(story["attempts"], Column("at", "at", whole=True), Column("try", "attempt", right=True), "outcome", *said,
             empty="nothing was tried yet")  # fmt: skip
    if story["events"]:
        click.echo()
        out.rows(story["events"], Column("at", "at", whole=True), Column("heard", "kind"), "status", "action", "reason",
                 Column("said", "text"))  # fmt: skip


def _story(app: App, email: str, edition: int) -> dict[str, Any]:
    from digest import audience, ledger
    from digest.delivery.message import message_id
    from digest.models import Edition

    post, address = app.post, audience.parse_address(email)
    with app.db.reading() as session:
        reader = audience.reader_id(session, address)
        found = reader and ledger.readings.delivery(session, session.get_one(Edition, edition), reader)
        if not reader or not found:
            raise UsageError(f"edition {edition} was not released to {address.given}")
        delivery, attempts = found
        events = ledger.events.events_of(session, reader, edition)
        return {
            "email": delivery.address, "edition": edition, "outcome": delivery.outcome,
            "message_id": message_id(post.keys.message_id, edition, reader, post.mail_domain),
            "attempts": [
                {
                    "attempt": a.attempt, "outcome": a.outcome, "code": a.code, "enhanced": a.enhanced, "text": a.text,
                    "email": a.address, "at": a.at,
                }
                for a in attempts
            ],
            "events": [
                {
                    "at": e.at, "kind": e.kind, "status": e.status, "action": e.action, "reason": e.reason or None,
                    "source": e.source, "text": e.text,
                }
                for e in events
            ],
        }  # fmt: skip


@deliveries.command("settle")
@click.argument("emails", metavar="[EMAIL]…", nargs=-1)
@click.option("--edition", type=int, required=True, metavar="ID", help="Of this edition.")
@click.option("--all", "everybody", is_flag=True, help="All that may have arrived, instead of those named.")
@click.option(
    "--as", "word", type=choice("arrived", "lost", "resend"), required=True, help="What became of them, or is to."
)
@json_option
@pass_door
def deliveries_settle(
    door: Door, emails: tuple[str, ...], edition: int, everybody: bool, word: Any, out: Output
) -> None:
    """Say what became of mails that may have arrived, where a digest holds them for a person."""
    from digest.editions import settling

    if bool(emails) == everybody:
        raise UsageError("name the readers, or all of them with --all")
    with door.app() as app:
        _row(app, edition)
        readers = None if everybody else [_reader(app, email, edition) for email in emails]
        settled = settling.settle(app.db, edition, word, readers)
        out.rows([{"edition": edition, "settled": settled, "as": word}], "edition", "settled", "as")


def _reader(app: App, email: str, edition: int) -> int:
    from digest import audience

    address = audience.parse_address(email)
    with app.db.reading() as session:
        reader = audience.reader_id(session, address)
    if reader is None:
        raise UsageError(f"edition {edition} was not released to {address.given}")
    return reader


COMMANDS = (tick, run, editions, deliveries)
