"""The same selection for feed readers: `feeds …`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from digest.cli.common import (
    FOLDER,
    Column,
    Door,
    Exit,
    Output,
    empty_or_ok,
    fail_empty_option,
    json_option,
    limit_option,
    pass_door,
    say,
)


@click.group()
def feeds() -> None:
    """RSS, Atom and JSON feeds."""


@feeds.command("list")
@limit_option
@fail_empty_option
@json_option
@pass_door
def feeds_list(door: Door, limit: int | None, fail_empty: bool, out: Output) -> int:
    """List the feeds and their addresses."""
    with door.app() as app, app.db.reading() as session:
        rows = [_feed(feed) for feed in app.shelf.list_feeds(session)[:limit]]
    columns = (Column("kind", "kind"), Column("slug", "slug"), "title", Column("RSS", "rss"))
    return empty_or_ok(out.rows(rows, *columns), fail_empty)


def _feed(feed: Any) -> dict[str, Any]:
    return {"kind": feed.selector.kind, "slug": feed.selector.slug or None, "title": feed.title, **feed.urls()}


@feeds.command("build")
@click.option("--out", "folder", type=FOLDER, required=True, metavar="DIR", help="Folder for the tree.")
@json_option
@pass_door
def feeds_build(door: Door, folder: Path, out: Output) -> None:
    """Write all feeds as static files, compressed siblings beside them, under the paths of their addresses."""
    with door.app() as app:
        report = app.shelf.build(folder)
    out.record(
        {
            "out": str(folder), "written": len(report.written), "unchanged": len(report.unchanged),
            "removed": len(report.removed), "findings": _findings(report.findings, out),
        }
    )  # fmt: skip


@feeds.command("validate")
@json_option
@pass_door
def feeds_validate(door: Door, out: Output) -> int:
    """Check every feed in every format, as it is served now."""
    with door.app() as app:
        count, findings = app.shelf.validate()
    out.record({"feeds": count, "findings": _findings(findings, out)})
    return Exit.FAILURE if findings else Exit.OK


def _findings(findings: Any, out: Output) -> Any:
    """All of them for a program; for people their number, the rest on stderr."""
    if out.as_json:
        return [{"path": f.path, "problem": f.problem} for f in findings]
    for finding in findings:
        say(f"{finding.path}: {finding.problem}")
    return len(findings)


@feeds.command("text")
@click.argument("which")
@click.argument("text", type=click.Choice(["full", "excerpt", "default"]))
@json_option
@pass_door
def feeds_text(door: Door, which: str, text: str, out: Output) -> None:
    """Say whether feeds carry whole articles or summaries alone: of `category:SLUG`, `tag:SLUG`, or `all`.

    `default` lets a topic have it as the publication does.
    """
    from digest import catalogue

    with door.app() as app, app.db.transaction() as session:
        catalogue.set_feed_text(session, which, None if text == "default" else text)
    out.record({"which": which, "text": text})


@feeds.command("hubs")
@json_option
@pass_door
def feeds_hubs(door: Door, out: Output) -> int:
    """Show the WebSub hubs of the settings: when each was last told of a change, and what went wrong."""
    from digest import publishing

    with door.app() as app, app.db.reading() as session:
        states = publishing.hub_states(session, app.settings.feeds.hubs)
    rows = [
        {"hub": s.url, "told_at": s.told_at, "failures": s.failures, "not_before": s.not_before, "error": s.error}
        for s in states
    ]
    return empty_or_ok(out.rows(rows, "hub", "told_at", "failures", "error"), False)


@feeds.command("readers")
@json_option
@pass_door
def feeds_readers(door: Door, out: Output) -> int:
    """Count readers, at least: what services report of theirs, and private feeds in use within 30 days."""
    from digest import audience, publishing

    with door.app() as app, app.db.reading() as session:
        now = app.db.now()
        counts = publishing.reader_counts(session, now)
        private = audience.count_private_readers(session, now)
    rows = [{"feed": feed, "readers": readers} for feed, readers in counts.items()]
    return empty_or_ok(out.rows([*rows, {"feed": "private", "readers": private}], "feed", "readers"), False)


COMMANDS = (feeds,)
