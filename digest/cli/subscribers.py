"""Readers in and out: `subscribers …`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import rich_click as click

from digest.cli.common import (
    FILE,
    Column,
    Door,
    Exit,
    Output,
    asks,
    choice,
    export_rows,
    json_option,
    now,
    pass_door,
    progress,
    say,
    shown,
)


@click.group()
def subscribers() -> None:
    """Readers and what they subscribed to."""


@subscribers.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--digest", "slug", metavar="SLUG", help="The digest they take. Default: what their own column says.")
@click.option("--confirmed", is_flag=True, help="The file records their consent; without it they stay pending.")
@click.option("--dry-run", is_flag=True, help="Report the same, change nothing.")
@click.option(
    "--errors", "errors", type=FILE, metavar="FILE", help="Write rows that are no readers here, with the reason."
)
@json_option
@pass_door
def subscribers_import(
    door: Door, file: Path, slug: str | None, confirmed: bool, dry_run: bool, errors: Path | None, out: Output
) -> None:
    """Import readers from a CSV FILE (- is stdin). Sends no mail, brings back nobody who has left."""
    from digest import audience

    source: Path | IO[str] = sys.stdin if str(file) == "-" else file
    with door.app() as app, progress("rows read") as step:
        report = audience.import_csv(
            app.db,
            source,
            digest=slug,
            confirmed=confirmed,
            dry_run=dry_run,
            errors_file=errors,
            now=now(),
            progress=step,
        )
    out.record(asdict(report))
    if report.invalid and errors is None:
        say(f"{report.invalid:,} rows are no readers; --errors FILE says which and why")
    if report.rows and not confirmed and not dry_run:
        say("without --confirmed nobody new gets mail: their subscriptions are pending")


@subscribers.command("export")
@click.argument("file", type=FILE, required=False)
@json_option
@pass_door
def subscribers_export(door: Door, file: Path | None, out: Output) -> None:
    """Export all readers, one row a subscription, as CSV (or with --json as NDJSON) to FILE, else to stdout."""
    from digest import audience

    with door.app() as app, app.db.reading() as session:
        export_rows(audience.export(session), file, out, audience.write_csv)


@subscribers.command("add")
@click.argument("email")
@click.option(
    "--digest", "slugs", multiple=True, required=True, metavar="SLUG", help="Digest they take; again for more."
)
@click.option("--confirmed", is_flag=True, help="You have their consent; without it they stay pending.")
@click.option("--timezone", metavar="Z", help="Their IANA time zone.")
@click.option("--language", metavar="L", help="Their language, such as en.")
@click.option(
    "--format", "form", type=choice("html", "text"), default="html", help="What their mails are. Default: html."
)
@json_option
@pass_door
def subscribers_add(
    door: Door,
    email: str,
    slugs: tuple[str, ...],
    confirmed: bool,
    timezone: str | None,
    language: str | None,
    form: str,
    out: Output,
) -> None:
    """Put a reader on digests by hand. Sends no mail, brings back nobody who has left."""
    from digest import audience, schedules
    from digest.types import Format

    if timezone is not None:
        schedules.zone(timezone)
    with door.app() as app, app.db.transaction() as session:
        reader = audience.add(
            session,
            email,
            slugs,
            confirmed=confirmed,
            now=now(),
            timezone=timezone,
            language=language,
            format=Format[form.upper()],
        )
    _show(reader, out)


@subscribers.command("show")
@click.argument("email")
@json_option
@pass_door
def subscribers_show(door: Door, email: str, out: Output) -> None:
    """Show all that is held of an address."""
    from digest import audience

    with door.app() as app, app.db.reading() as session:
        _show(audience.show(session, email), out)


@subscribers.command("erase")
@click.argument("email")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
@pass_door
def subscribers_erase(door: Door, email: str, yes: bool, out: Output) -> int:
    """Erase a reader and what is held of them. Counts stay, and a hash that keeps imports from bringing them back."""
    from digest import audience, ledger

    if not yes and asks() and not click.confirm(f"Erase all that is held of {email}?", default=False, err=True):
        say("nothing was erased")
        return Exit.FAILURE
    with door.app() as app, app.db.transaction() as session:
        address = audience.parse_address(email)
        given = audience.given_address(session, address)
        subscriber, reason = audience.erase(session, address, now())
        ledger.events.forget(session, subscriber, given)
    out.record({"erased": 1, "kept": "hash", "reason": reason})
    return Exit.OK


def _show(reader: Mapping[str, Any], out: Output) -> None:
    if out.as_json:
        out.line(reader)
        return
    out.record({key: value for key, value in reader.items() if key not in ("subscriptions", "consent")})
    if reader["subscriptions"]:
        click.echo()
        out.rows(reader["subscriptions"], "digest", "status", "cadence", "zone", "language", "format", "since")
    if reader["consent"]:
        click.echo()
        out.rows(
            reader["consent"],
            Column("at", "at", whole=True),
            Column("consent", "kind"),
            "digest",
            "source",
            Column("detail", lambda row: shown(row["detail"])),
        )


COMMANDS = (subscribers,)
