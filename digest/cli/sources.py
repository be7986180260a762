"""Where articles come from: `sources …`, `ingest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import rich_click as click

from digest.cli.common import (
    Column,
    Door,
    Exit,
    Output,
    at_option,
    empty_or_ok,
    fail_empty_option,
    json_option,
    limit_option,
    now,
    pass_door,
    progress,
    say,
    shown,
)

_KINDS = "auto, wordpress, wxr, feed, jsonfeed or markdown"


@click.group()
def sources() -> None:
    """Places that articles come from."""


def _source_row(source: Any) -> dict[str, Any]:
    return {
        "source": source.slug,
        "kind": source.kind,
        "location": source.location,
        "categories": list(source.categories),
        "options": dict(source.options),
        "title": source.title or None,
        "language": source.language,
        "polled_at": source.polled_at,
        "failing_since": source.failing_since,
        "last_error": source.last_error,
        "disabled_at": source.disabled_at,
        "moved_to": source.moved_to if source.moved_count >= 3 else None,
    }


def _trouble(row: Mapping[str, Any]) -> str:
    """What is wrong with a source, since when, and whether it is asked any more."""
    if row["last_error"] is None:
        return ""
    off = "; not asked any more" if row["disabled_at"] else ""
    return f"since {shown(row['failing_since'])}: {row['last_error']}{off}"


_LISTED = (
    Column("source", "source", whole=True),
    "kind",
    "location",
    "categories",
    "polled at",
    Column("trouble", _trouble),
)


class _Pair(click.ParamType):
    """NAME=VALUE, as a pair."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, there, given = str(value).partition("=")
        if not there or not name.strip():
            self.fail(f"{value!r} says no name and value; write it as NAME=VALUE", param, ctx)
        return name.strip(), given.strip()


_given_options = (
    click.option("--zone", metavar="Z", help="Time zone of dates that say none, as Europe/Berlin. Default: UTC."),
    click.option("--url", "pattern", metavar="PATTERN",
                 help="Markdown: where its articles are, as https://…/:year/:slug/."),
    click.option("--keyword", "keywords", multiple=True, metavar="TOPIC=W,W",
                 help="Topic of articles whose headline or excerpt names one of the words; again for more."),
    click.option("--option", "others", multiple=True, type=_Pair(), metavar="NAME=VALUE",
                 help="Any option of a source by name; again for more."),
)  # fmt: skip


def _takes_options(command: Any) -> Any:
    for option in reversed(_given_options):
        command = option(command)
    return command


def _options(
    zone: str | None, pattern: str | None, keywords: Sequence[str], others: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """The options that were given; an empty one is given too."""
    options: dict[str, Any] = dict(others)
    options |= {k: v for k, v in (("timezone", zone), ("url", pattern)) if v is not None}
    if keywords:
        options["keywords"] = [keyword for keyword in keywords if keyword]
    return options


@sources.command("add")
@click.argument("name")
@click.option(
    "--kind", default="auto", show_default=True, metavar="K", help=f"What lies there: {_KINDS}; auto finds out."
)
@click.option("--location", required=True, metavar="URL_OR_PATH", help="Web address, or path of a file or folder.")
@click.option(
    "--category", "categories", multiple=True, metavar="C", help="Category that all its articles get; again for more."
)
@_takes_options
@json_option
@pass_door
def sources_add(
    door: Door, name: str, kind: str, location: str, categories: tuple[str, ...], zone: str | None,
    pattern: str | None, keywords: tuple[str, ...], others: tuple[tuple[str, str], ...], out: Output,
) -> None:  # fmt: skip
    """Add a source. Ingests nothing: `digest ingest NAME` does."""
    with door.app() as app:
        from digest import ingest
        from digest.sources.options import checked

        look, options = None, checked(_options(zone, pattern, keywords, others))
        if kind == "auto":
            look = ingest.find_source(app.fetcher, ingest.absolute(location), options)
            kind, location = look.kind, look.location
        made = ingest.add_source(
            app.db, name, kind=kind, location=location, categories=categories, options=options, at=now()
        )
        if look is None:
            _told(_source_row(made), out)
        else:
            _looked(_source_row(made), look, out)


@sources.command("set")
@click.argument("name")
@click.option("--location", metavar="URL_OR_PATH", help="Another web address or path.")
@click.option(
    "--category", "categories", multiple=True, metavar="C", help="Instead of the categories it has; again for more."
)
@_takes_options
@json_option
@pass_door
def sources_set(
    door: Door, name: str, location: str | None, categories: tuple[str, ...], zone: str | None,
    pattern: str | None, keywords: tuple[str, ...], others: tuple[tuple[str, str], ...], out: Output,
) -> None:  # fmt: skip
    """Change a source: what is given, and nothing else. Its next poll reads it whole."""
    with door.app() as app:
        from digest import ingest

        changed = ingest.change_source(
            app.db, name, location=location, categories=categories or None,
            options=_options(zone, pattern, keywords, others),
        )  # fmt: skip
    _told(_source_row(changed), out)


def _told(row: dict[str, Any], out: Output) -> None:
    out.record(row if out.as_json else _worded(row))


def _worded(row: dict[str, Any]) -> dict[str, Any]:
    """A source for people: its options as they are typed."""
    said = []
    for name, value in row["options"].items():
        if isinstance(value, dict):
            said += [f"{name}={topic}={','.join(words)}" for topic, words in value.items()]
        else:
            said.append(f"{name}={','.join(value) if isinstance(value, list) else value}")
    return row | {"options": "; ".join(said) or None}


def _looked(row: dict[str, Any], look: Any, out: Output) -> None:
    """A source and what was seen there."""
    if out.as_json:
        out.line(row | look.to_json())
        return
    out.record(_worded(row) | {"what": look.what or None, "articles carry": look.told()})
    out.rows(look.newest(), "published at", Column("newest articles", "title"), "url", empty="no article yet")
    for other in look.also:
        say(f"there is also {other.what}: --kind {other.kind} --location {other.location}")
    for warning in look.warnings:
        say(f"{row['source']}: {warning}")


@sources.command("list")
@limit_option
@fail_empty_option
@json_option
@pass_door
def sources_list(door: Door, limit: int | None, fail_empty: bool, out: Output) -> int:
    """List the sources, oldest first."""
    with door.app() as app, app.db.reading() as session:
        from digest import catalogue

        rows = [_source_row(s) for s in catalogue.list_sources(session)[:limit]]
        return empty_or_ok(out.rows(rows, *_LISTED, empty="no sources yet; add one: digest sources add"), fail_empty)


@sources.command("remove")
@click.argument("name")
@json_option
@pass_door
def sources_remove(door: Door, name: str, out: Output) -> None:
    """Forget a source. Its articles stay."""
    with door.app() as app, app.db.transaction() as session:
        from digest import catalogue

        catalogue.remove_source(session, name)
    out.record({"source": name, "removed": True})


@sources.command("check")
@click.argument("name")
@json_option
@pass_door
def sources_check(door: Door, name: str, out: Output) -> int:
    """Read a source to its end and store nothing: what would come, and what would be left out."""
    with door.app() as app:
        from digest import ingest

        report = ingest.check_source(app.db, app.fetcher, name)
    found = {"source": report.source, "articles": report.new} | _notes(report.to_json())
    seen = report.look.to_json() if report.look else {"what": None, "newest": [], "carries": {}}
    if out.as_json:
        out.line(found | seen)
    else:
        carry = report.look.told() if report.look else None
        out.record({
            "source": report.source, "articles": report.new, "skipped": _skipped(found), "articles carry": carry,
        })  # fmt: skip
        out.rows(seen["newest"], "published at", Column("newest articles", "title"), "url", empty="no article")
        _tell(found)
    return Exit.FAILURE if report.errors else Exit.OK


def _notes(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("skipped", "errors", "warnings")}


# ----------------------------------------------------------------------------- ingest


@click.command("ingest")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@at_option
@json_option
@pass_door
def ingest(door: Door, names: Sequence[str], at: datetime | None, out: Output) -> int:
    """Read sources now, due or not: all of them, or those named."""
    with door.app() as app, progress("sources read", _many(app, names)) as step:
        from digest.ingest import refresh

        reports: list[dict[str, Any]] = []

        def done(report: Any) -> None:
            reports.append(report.to_json())
            step(len(reports))
            if out.as_json:
                out.line(reports[-1])

        refresh(app.db, app.fetcher, at=at or now(), names=names or None, force=True, on_report=done)
    if not out.as_json:
        out.rows(reports, *_REPORTED, empty="no sources yet; add one: digest sources add")
    for report in reports:
        _tell(report)
    return Exit.FAILURE if any(r["errors"] for r in reports) else Exit.OK


def _many(app: Any, names: Sequence[str]) -> int:
    from digest import catalogue

    with app.db.reading() as session:
        return len(names) or len(catalogue.list_sources(session))


def _skipped(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{s['count']:,} {s['reason']}" for s in row["skipped"])


_REPORTED = (
    Column("source", "source", whole=True),
    *(Column(key, key, right=True) for key in ("new", "changed", "unchanged", "removed", "scheduled")),
    Column("skipped", _skipped),
)


def _tell(report: Mapping[str, Any]) -> None:
    """What went wrong with a source, or is worth knowing of it, to stderr."""
    for error in report["errors"]:
        say(f"{report['source']}: {error['message']} ({error['code']})")
    for warning in report["warnings"]:
        say(f"{report['source']}: {warning}")


COMMANDS = (sources, ingest)
