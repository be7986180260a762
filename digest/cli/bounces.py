"""What comes back: `bounce`, `bounces …`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import rich_click as click

from digest.cli.common import (
    Column,
    Door,
    Exit,
    Output,
    choice,
    empty_or_ok,
    fail_empty_option,
    json_option,
    now,
    pass_door,
    say,
    tell,
)
from digest.errors import ConfigError, DatabaseError

_TAKEN = ("kind", "email", "status", "action", "reason", Column("edition", "edition", right=True))
_REASONS = ("bounce", "complaint", "manual", "erased")

# ----------------------------------------------------------------------------- bounce, bounces


@click.command("bounce")
@click.option(
    "--recipient", metavar="ADDRESS", help="Whom the message was delivered to, where its headers do not say so."
)
@json_option
@pass_door
def bounce(door: Door, recipient: str | None, out: Output) -> int:
    """Read one bounce, complaint or wish to leave from stdin, as a mail server hands it over.

    What the message proves has its effect; any message is one row. A database that is not there ends with 75, so that
    the mail server keeps the message and tries again.
    """
    from dataclasses import replace

    from digest import bounces
    from digest.delivery.reports import read_letter, read_report

    letter = read_letter(sys.stdin.buffer)
    report = read_report(letter)
    if recipient:
        report = replace(report, to=(recipient, *report.to))
    try:
        with door.app() as app:
            post = app.post
            with app.db.transaction() as session:
                taken = bounces.take(
                    session, report, fingerprint=letter.fingerprint, source="pipe", keys=post.keys,
                    domain=post.mail_domain, now=now(),
                )  # fmt: skip
    except DatabaseError as e:
        tell(e)
        return Exit.TRY_AGAIN
    out.rows([asdict(taken)], *_TAKEN)
    return Exit.OK


@click.group("bounces")
def bounces_group() -> None:
    """What was heard of mail after it had left."""


@bounces_group.command("poll")
@json_option
@pass_door
def bounces_poll(door: Door, out: Output) -> None:
    """Read the mailbox of bounces (IMAP or POP3) now, and remove what was kept. One row a message."""
    from digest import bounces

    with door.app() as app:
        place = app.settings.bounce_mailbox()
        if place is None:
            raise ConfigError("no mailbox of bounces is set; set bounces.host, bounces.username, bounces.password_file")
        post, rows = app.post, list[dict[str, Any]]()

        def told(taken: bounces.Taken) -> None:
            out.line(asdict(taken)) if out.as_json else rows.append(asdict(taken))

        polled = bounces.poll(app.db, place, keys=post.keys, domain=post.mail_domain, now=now, told=told)
    if rows:
        out.rows(rows, *_TAKEN)
    elif not polled.read:
        say("the mailbox is empty")
    if polled.left:
        say(f"{polled.left:,} messages are no reports; they were left for a person")


@bounces_group.command("list")
@click.option(
    "--kind",
    type=choice("bounce", "complaint", "unsubscribe", "delayed", "auto_reply", "unknown"),
    help="Only of this kind.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest N.")
@fail_empty_option
@json_option
@pass_door
def bounces_list(door: Door, kind: str | None, limit: int | None, fail_empty: bool, out: Output) -> int:
    """List what was heard, oldest first."""
    from digest import ledger

    with door.app() as app, app.db.reading() as session:
        rows = [_event(e) for e in ledger.events.listed(session, kind=kind, limit=limit)]
    count = out.rows(rows, Column("at", "at", whole=True), *_TAKEN, "source", "text", empty="nothing was heard yet")
    return empty_or_ok(count, fail_empty)


def _event(event: Any) -> dict[str, Any]:
    return {
        "at": event.at, "kind": event.kind, "email": event.email, "status": event.status, "action": event.action,
        "reason": event.reason or None, "edition": event.edition_id, "source": event.source, "text": event.text,
    }  # fmt: skip


COMMANDS = (bounce, bounces_group)
