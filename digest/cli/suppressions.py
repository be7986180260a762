"""Whom not to write to: `suppressions …`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO

import rich_click as click

from digest.cli.common import (
    FILE,
    INSTANT,
    Column,
    Door,
    Exit,
    Output,
    asks,
    choice,
    empty_or_ok,
    export_rows,
    fail_empty_option,
    json_option,
    limit_option,
    now,
    pass_door,
    progress,
    say,
)
from digest.errors import UsageError

_REASONS = ("bounce", "complaint", "manual", "erased")


@click.group()
def suppressions() -> None:
    """Addresses that are never written to, and why."""


_LISTED = ("email", "hash", "reason", "detail", Column("at", "at", whole=True))


@suppressions.command("list")
@click.option("--reason", type=choice(*_REASONS), help="Only for this reason.")
@click.option("--email", metavar="ADDRESS", help="Only this address; one that was erased is found by its hash.")
@limit_option
@fail_empty_option
@json_option
@pass_door
def suppressions_list(
    door: Door, reason: str | None, email: str | None, limit: int | None, fail_empty: bool, out: Output
) -> int:
    """List suppressed addresses, oldest first."""
    from digest import audience

    with door.app() as app, app.db.reading() as session:
        address = audience.parse_address(email) if email else None
        rows = audience.listed(session, reason=reason, limit=limit, address=address)
        count = out.rows(rows, *_LISTED, empty="nobody is suppressed")
    return empty_or_ok(count, fail_empty)


@suppressions.command("add")
@click.argument("email")
@click.option("--reason", type=choice(*_REASONS[:3]), default="manual", show_default=True, help="Why, in one word.")
@click.option("--detail", default="", metavar="TEXT", help="Why, in words.")
@json_option
@pass_door
def suppressions_add(door: Door, email: str, reason: str, detail: str, out: Output) -> None:
    """Never write to an address again. One that is suppressed already keeps its first reason."""
    from digest import audience

    with door.app() as app:
        address = audience.parse_address(email)
        with app.db.transaction() as session:
            audience.suppress(session, address.key, reason, now(), detail)
        with app.db.reading() as session:
            out.rows(audience.listed(session, address=address), *_LISTED)


@suppressions.command("remove")
@click.argument("email", required=False)
@click.option(
    "--reason", type=choice("bounce", "complaint", "manual"), help="Instead of one address: all of a reason …"
)
@click.option("--since", type=INSTANT, metavar="T", help="… put on at T or later …")
@click.option("--until", type=INSTANT, metavar="T", help="… and before T. Default: now.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
@pass_door
def suppressions_remove(
    door: Door, email: str | None, reason: str | None, since: datetime | None, until: datetime | None, yes: bool,
    out: Output,
) -> int:  # fmt: skip
    """Take an address off the list, or all that came in a time: after a server was wrong about everybody."""
    from digest import audience
    from digest.types import SuppressionReason

    if (email is None) == (reason is None) or (reason is not None and since is None):
        raise UsageError("say which: one EMAIL, or --reason together with --since")
    with door.app() as app:
        if email is not None:
            with app.db.transaction() as session:
                was = audience.lift(session, audience.parse_address(email))
            out.record({"removed": 1, "reason": was})
            return Exit.OK
        assert reason is not None
        assert since is not None
        if not yes and asks() and not click.confirm(f"Take off all that {reason} put on since then?", err=True):
            say("nothing was removed")
            return Exit.FAILURE
        with app.db.transaction() as session:
            count = audience.lift_all(session, SuppressionReason(reason), since, until or now())
    out.record({"removed": count, "reason": reason})
    return Exit.OK


@suppressions.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--reason", type=choice(*_REASONS[:3]), default="manual", show_default=True, help="Of rows that name none of ours."
)
@click.option("--errors", type=FILE, metavar="FILE", help="Write rows that name no address, with what is wrong.")
@json_option
@pass_door
def suppressions_import(door: Door, file: Path, reason: str, errors: Path | None, out: Output) -> None:
    """Import a CSV FILE (- is stdin): our own export, another system's, or one address a line."""
    from digest import audience
    from digest.types import SuppressionReason

    source: Path | IO[str] = sys.stdin if str(file) == "-" else file
    with door.app() as app, progress("rows read") as step:
        report = audience.import_suppressions(
            app.db, source, reason=SuppressionReason(reason), errors_file=errors, now=now(), progress=step
        )
    out.record(asdict(report))
    if report.invalid and errors is None:
        say(f"{report.invalid:,} rows name no address; --errors FILE says which and why")


@suppressions.command("export")
@click.argument("file", type=FILE, required=False)
@json_option
@pass_door
def suppressions_export(door: Door, file: Path | None, out: Output) -> None:
    """Export the list as CSV (or with --json as NDJSON) to FILE, else to stdout."""
    from digest import audience

    with door.app() as app, app.db.reading() as session:
        export_rows(audience.listed(session), file, out, audience.write_suppressions)


COMMANDS = (suppressions,)
