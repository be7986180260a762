"""The standing recipes: `digests …`, and `preview` of the next edition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from digest.cli.common import (
    FOLDER,
    Column,
    Door,
    Output,
    asks,
    at_option,
    choice,
    empty_or_ok,
    fail_empty_option,
    gates_told,
    json_option,
    limit_option,
    make_folder,
    now,
    pass_door,
    plain,
    say,
    score_column,
    why_column,
    zulu,
)

if TYPE_CHECKING:
    from digest.editions import Setup

C = TypeVar("C", bound=Callable[..., Any])


@click.group()
def digests() -> None:
    """Digests: what goes into them, when they run."""


#: The options that `add` and `set` share.
_RECIPE = (
    click.option("--name", metavar="N", help="Name that readers see."),
    click.option("--where", metavar="RULE", help="Rule, such as 'category:africa and not tag:sports'."),
    click.option(
        "--category",
        "categories",
        multiple=True,
        metavar="C",
        help="Articles of this category and its children; again for more: any of them.",
    ),
    click.option(
        "--tag", "tags", multiple=True, metavar="T", help="Articles with this tag; again for more: any of them."
    ),
    click.option("--schedule", metavar="CRON", help="When it runs: minute hour day month weekday."),
    click.option(
        "--timezone",
        metavar="Z",
        help="IANA zone of the schedule, or 'subscriber': each reader's own. Default: the publication's.",
    ),
    click.option(
        "--min", "minimum", type=int, metavar="N", help="Fewest stories a reader gets a mail for. Default: 1."
    ),
    click.option("--max", "maximum", type=int, metavar="N", help="Most stories in a mail. Default: 12."),
    click.option(
        "--quota",
        "quotas",
        multiple=True,
        metavar="TOPIC=N",
        help="At most N stories of a topic, such as category:africa=3; again for more.",
    ),
    click.option(
        "--share", type=float, metavar="PART", help="Most of the maximum that one category may take, such as .4."
    ),
    click.option("--per-author", type=int, metavar="N", help="At most N stories by one author. Default: any."),
    click.option("--per-source", type=int, metavar="N", help="At most N stories from one source. Default: any."),
    click.option("--sections", metavar="KIND", help="Sections by category, by tag, or none. Default: none."),
    click.option("--section-min", type=int, metavar="N", help="Places kept for each section. Default: none."),
    click.option("--section-max", type=int, metavar="N", help="At most N stories in a section. Default: any."),
    click.option(
        "--score",
        metavar="WEIGHTS",
        help="Best instead of newest first, such as 'recency=1,image=.3,topic:category:africa=.5'.",
    ),
    click.option(
        "--diverse", type=float, metavar="PART", help="Leave out what is so much like a better story, such as .5."
    ),
    click.option("--layout", metavar="L", help="Layout of the mail. Default: cards."),
    click.option("--lookback", metavar="SPAN", help="How far back it looks, such as 36h. Default: 7d."),
    click.option("--grace", metavar="SPAN", help="How long an article rests before it is taken. Default: 15m."),
    click.option("--approve/--no-approve", default=None, help="Hold each edition until somebody approves it."),
    click.option(
        "--repeat",
        type=choice("never", "others"),
        help="Whether it may repeat stories of other digests. Default: never.",
    ),
    click.option(
        "--uncertain",
        type=choice("resend", "hold"),
        help="What to do with mails that may have arrived when a process died. Default: resend.",
    ),
    click.option(
        "--missed",
        type=choice("late", "merge", "skip"),
        help="What becomes of a run that nobody was up for. Default: late.",
    ),
    click.option("--subject", metavar="T", help="Template of the subject."),
    click.option("--preheader", metavar="T", help="Template of the line that inboxes show after it."),
    click.option("--from-name", metavar="N", help="Sender's name. Default: the publication's."),
    click.option("--reply-to", metavar="A", help="Address that answers go to."),
    click.option("--intro", metavar="TEXT", help="Text above the stories, in Markdown."),
    click.option("--closing", metavar="TEXT", help="Text below the stories, in Markdown."),
    click.option("--sponsor", metavar="TEXT", help="What a sponsor says, in Markdown; a picture may be in it."),
    click.option(
        "--link-params",
        metavar="QUERY",
        help="Added to links to the publication's own site, such as 'utm_source=digest&utm_medium=email'.",
    ),
)


def _recipe(command: C) -> C:
    for option in reversed(_RECIPE):
        command = option(command)
    return command


def _fields(given: Mapping[str, Any]) -> Any:
    from digest.editions import DigestFields, Wishes

    wishes = {f.name: given[f.name] for f in fields(Wishes)} | {"quotas": given["quotas"] or None}
    others = {key: value for key, value in given.items() if key not in wishes}
    topics = {key: tuple(filter(None, given[key])) if given[key] else None for key in ("categories", "tags")}
    return DigestFields(**{**others, **topics}, selection=Wishes(**wishes))


@digests.command("add")
@click.argument("slug")
@_recipe
@json_option
@pass_door
def digests_add(door: Door, /, slug: str, out: Output, **given: Any) -> None:
    """Add a digest. Categories and tags are joined by "or", and with --where by "and"."""
    with door.app() as app:
        setup = app.setup()
        setup.add(slug, _fields(given), now())
        if given["repeat"] is None:
            _ask_to_repeat(setup, slug)
        out.record(_digest_rows(app, slug)[0])


def _ask_to_repeat(setup: Setup, slug: str) -> None:
    """A digest that shares articles with another: who reads both gets each story once, unless somebody says so."""
    from digest.editions import DigestFields

    others = setup.overlapping(slug)
    if not others:
        return
    shared = f"{slug} may carry stories that {' and '.join(others[:3])}{' …' if others[3:] else ''} carry too"
    if not asks():
        say(f"{shared}; who reads both gets each story once (--repeat others changes that)")
    elif click.confirm(f"{shared}. Who reads both gets each story once. Repeat them here?", default=False, err=True):
        setup.change(slug, DigestFields(repeat="others"))


@digests.command("set")
@click.argument("slug")
@_recipe
@json_option
@pass_door
def digests_set(door: Door, /, slug: str, out: Output, **given: Any) -> None:
    """Change what is given; '' empties texts and lists, 0 takes a cap back. Open editions keep the recipe they have."""
    with door.app() as app:
        app.setup().change(slug, _fields(given))
        out.record(_digest_rows(app, slug)[0])


@digests.command("list")
@limit_option
@fail_empty_option
@json_option
@pass_door
def digests_list(door: Door, limit: int | None, fail_empty: bool, out: Output) -> int:
    """List the digests, oldest first."""
    with door.app() as app:
        rows = _digest_rows(app)[:limit]
    columns = (
        Column("digest", "digest", whole=True), "name", Column("takes", _takes), Column("runs", _runs), "status",
        Column("readers", "readers", right=True),
    )  # fmt: skip
    return empty_or_ok(out.rows(rows, *columns, empty="no digests yet; add one: digest digests add"), fail_empty)


@digests.command("show")
@click.argument("slug")
@json_option
@pass_door
def digests_show(door: Door, slug: str, out: Output) -> None:
    """Show a digest's recipe."""
    with door.app() as app:
        out.record(_digest_rows(app, slug)[0])


def _digest_rows(app: Any, slug: str | None = None) -> list[dict[str, Any]]:
    from digest import ledger

    with app.db.reading() as session:
        return [_digest(row) for row in ledger.digests.list_digests(session, slug)]


def _digest(row: Any) -> dict[str, Any]:
    d = row.digest
    return {
        "digest": d.slug, "name": d.name, "status": d.status, "readers": row.readers, "where": d.rule or None,
        "categories": list(d.categories), "tags": list(d.tags),
        "schedules": [{"cron": s.cron, "timezone": s.timezone, "missed": s.missed} for s in row.schedules],
        "min": d.minimum, "max": d.maximum, "selection": d.selection, "layout": d.layout,
        "lookback": _span(d.lookback_s), "grace": _span(d.grace_s), "approve": d.approve, "repeat": d.repeat,
        "uncertain": d.uncertain,
        "subject": d.subject or None, "preheader": d.preheader or None, "from_name": d.from_name or None,
        "reply_to": d.reply_to or None, "intro": d.intro or None, "closing": d.closing or None,
        "sponsor": d.sponsor or None, "link_params": d.link_params or None, "created_at": d.created_at,
    }  # fmt: skip


def _span(seconds: int) -> str:
    """As `--lookback` takes it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _takes(row: Mapping[str, Any]) -> str:
    topics = [f"category:{c}" for c in row["categories"]] + [f"tag:{t}" for t in row["tags"]]
    listed = " or ".join(topics)
    if row["where"] and listed:
        return f"({listed}) and ({row['where']})"
    return listed or row["where"] or "everything"


def _runs(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{s['cron']} {s['timezone']}" for s in row["schedules"])


@digests.command("next")
@click.argument("slug")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=6, metavar="N", help="How many. Default: 6.")
@json_option
@pass_door
def digests_next(door: Door, slug: str, count: int, out: Output) -> None:
    """Show the coming runs, as the worker will take them."""
    with door.app() as app:
        runs = app.setup().next_runs(slug, now(), count)
    rows = [{"local": r.instant.astimezone(_zone(r.zone)).isoformat(), "utc": r.instant, "zone": r.zone} for r in runs]
    out.rows(rows, Column("local", "local", whole=True), Column("UTC", "utc", whole=True), "zone")


def _zone(name: str) -> Any:
    from digest import schedules

    return schedules.zone(name)


@digests.command("pause")
@click.argument("slug")
@json_option
@pass_door
def digests_pause(door: Door, slug: str, out: Output) -> None:
    """Open no more editions; runs that come meanwhile are recorded as skipped."""
    with door.app() as app:
        app.setup().pause(slug)
        out.record(_digest_rows(app, slug)[0])


@digests.command("resume")
@click.argument("slug")
@json_option
@pass_door
def digests_resume(door: Door, slug: str, out: Output) -> None:
    """Let a paused digest run again."""
    with door.app() as app:
        app.setup().resume(slug)
        out.record(_digest_rows(app, slug)[0])


# ----------------------------------------------------------------------------- preview

_FILES = ("edition.html", "edition.txt", "edition.eml", "edition.json")


@click.command("preview")
@click.argument("slug")
@at_option
@click.option("--for", "email", metavar="EMAIL", help="As this reader gets it. Default: what nobody has had yet.")
@click.option(
    "--out",
    "folder",
    type=FOLDER,
    metavar="DIR",
    help="Write edition.html, .txt, .eml and .json there, and screenshots if Chromium is here.",
)
@click.option("--open", "shown", is_flag=True, help="Show all of it in the browser. Without --out: from a new folder.")
@click.option("--why", is_flag=True, help="Every article that was looked at, and why it is in or out.")
@fail_empty_option
@json_option
@pass_door
def preview(
    door: Door, slug: str, at: datetime | None, email: str | None, folder: Path | None, shown: bool, why: bool,
    fail_empty: bool, out: Output,
) -> int:  # fmt: skip
    """Show the next edition exactly as it would go out. Changes nothing."""
    from digest import editions

    with door.app() as app:
        made = editions.preview(app.db, app.renderer, app.post, slug, at or now(), live=app.live, email=email)
    data = made.data | {key: [_candidate(c) for c in made.data[key]] for key in ("picks", "candidates")}
    if shown and folder is None:
        folder = _new_folder(slug)
    if folder is not None:
        _write(folder, made, data)
        _write_pictures(folder, made, door)
    if out.as_json:
        out.line(data)
    else:
        _show_preview(data, why, made.rendered.text if made.rendered and folder is None and not why else "")
    if made.rendered is None:
        say(f"{slug} would send nothing: {_why_nothing(data)}")
    elif shown and folder is not None:
        _show(folder, made)
    return empty_or_ok(made.rendered is not None, fail_empty)


def _candidate(candidate: Mapping[str, Any]) -> dict[str, Any]:
    return {**candidate, "published_at": zulu(candidate["published_at"]), "section": candidate["section"] or None}


def _why_nothing(data: Mapping[str, Any]) -> str:
    if not data["candidates"]:
        return "no recent article matches; a longer --lookback finds older ones"
    return "of the articles that match none may go in; --why says why"


def _write(folder: Path, made: Any, data: Mapping[str, Any]) -> None:
    """The files, readable for a web server whatever the umask; those of an earlier preview don't outlive it."""
    import json

    make_folder(folder)
    rendered = made.rendered
    contents = {
        "edition.html": rendered.html.encode() if rendered else None,
        "edition.txt": rendered.text.encode() if rendered else None,
        "edition.eml": made.message,
        "edition.json": json.dumps(plain(data), indent=2, ensure_ascii=False).encode() + b"\n",
    }
    for name in _FILES:
        path, content = folder / name, contents[name]
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)
            path.chmod(0o644)
            say(f"wrote {path}")


def _new_folder(slug: str) -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix=f"digest-preview-{slug}-"))


def _write_pictures(folder: Path, made: Any, door: Door) -> None:
    """Screenshots, or one sentence why there are none; old ones don't stay beside a new mail."""
    from digest.cli import browser
    from digest.fetch import Fetcher

    for name in (*browser.PICTURES, browser.OVERVIEW):
        (folder / name).unlink(missing_ok=True)
    if made.rendered is None or not made.rendered.html:
        return
    limits = door.settings().fetch.model_copy(update={"timeout_s": browser.PICTURE_S})
    try:
        for path in browser.take_pictures(made.rendered.html, folder, Fetcher(limits)):
            say(f"wrote {path}")
    except browser.NoPictures as e:
        say(str(e))


def _show(folder: Path, made: Any) -> None:
    """All that was written, on one page in the person's browser; where there is no screen, its path."""
    from digest.cli import browser

    pictures = [name for name in browser.PICTURES if (folder / name).exists()]
    page = folder / browser.OVERVIEW
    page.write_text(browser.overview(made.rendered, pictures), "utf-8")
    page.chmod(0o644)
    if browser.show(page):
        say(f"opened {page}")
    else:
        say(f"there is no screen here to show it on; open {page.absolute()} in a browser")


_STORY = (
    Column("section", "section"),
    Column("published", lambda row: datetime.fromisoformat(row["published_at"]), whole=True),
    "title",
)


def _show_preview(data: Mapping[str, Any], why: bool, text: str) -> None:
    out = Output(False)
    out.record({"digest": data["digest"], "run": data["scheduled_for"], "as of": data["at"], **_looks(data)})
    click.echo()
    if why:
        scored = [score_column] if any(c["score"] for c in data["candidates"]) else []
        out.rows(data["candidates"], Column("", "verdict"), why_column, *scored, *_STORY)
    elif text:
        click.echo(text)
    else:
        out.rows(data["picks"], *_STORY)


def _looks(data: Mapping[str, Any]) -> dict[str, Any]:
    """What an inbox would show, and how big it is; nothing of nothing."""
    if data["subject"] is None:
        return {}
    size = data["bytes"]
    return {
        "subject": data["subject"], "preheader": data["preheader"], "stories": len(data["picks"]),
        "size": f"{size['message']:,} bytes on the wire, {size['html']:,} of HTML, {size['text']:,} of text",
        "gates": gates_told(data["gates"]),
    }  # fmt: skip


COMMANDS = (digests, preview)
