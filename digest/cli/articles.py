"""What came in: `articles …`, `topics`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import rich_click as click

from digest.cli.common import (
    INSTANT,
    Column,
    Door,
    Exit,
    Output,
    choice,
    empty_or_ok,
    fail_empty_option,
    json_option,
    limit_option,
    now,
    pass_door,
)
from digest.cli.stories import MEMBER, members, with_members


@click.group()
def articles() -> None:
    """Articles of the site."""


def _article(row: Any) -> dict[str, Any]:
    keys = ("id", "title", "url", "published_at", "categories", "tags", "author", "story", "status")
    data = asdict(row)
    return {key: data[key] for key in keys}


@articles.command("list")
@click.option("--topic", metavar="category:S|tag:S", help="Only of this topic; a category with its children.")
@click.option("--since", type=INSTANT, metavar="T", help="Only published at T (RFC 3339) or later.")
@click.option("--story", "by_story", is_flag=True, help="Those of a story together, and why they joined it.")
@limit_option
@fail_empty_option
@json_option
@pass_door
def articles_list(
    door: Door,
    topic: str | None,
    since: datetime | None,
    by_story: bool,
    limit: int | None,
    fail_empty: bool,
    out: Output,
) -> int:
    """List articles, oldest first."""
    with door.app() as app, app.db.reading() as session:
        from digest import catalogue

        rows: Iterable[dict[str, Any]] = (_article(r) for r in catalogue.list_articles(session, topic, since, limit))
        first = (Column("id", "id", right=True), Column("published", "published_at", whole=True), "title")
        more: tuple[Column | str, ...] = ("categories", "tags")
        if by_story:
            rows = with_members(session, list(rows))
            more = (Column("story", "story", right=True), *MEMBER[3:])
        count = out.rows(rows, *first, *more, empty="no articles")
    return empty_or_ok(count, fail_empty)


@articles.command("show")
@click.argument("id", type=int)
@json_option
@pass_door
def articles_show(door: Door, id: int, out: Output) -> None:
    """Show one article, its marks, what tells the same news, and what changed in it since it came."""
    with door.app() as app, app.db.reading() as session:
        from digest import catalogue
        from digest.catalogue.marks import marks_of

        row = _article(catalogue.article_row(session, id)) | _marks(id, marks_of(session, id))
        changes = [{"at": r.at, "before": r.before} for r in catalogue.revisions(session, id)]
        told = members(session, row["story"])
        if out.as_json:
            out.line(row | {"members": told, "revisions": changes})
            return
        out.record(row)
        if len(told) > 1:
            out.text("")
            out.rows(told, *MEMBER)
        if changes:
            out.text("")
            changed = Column("changed", lambda change: sorted(change["before"]))
            out.rows(changes, Column("revised", "at", whole=True), changed)


@articles.command("pin")
@click.argument("id", type=int)
@click.option("--digest", "slug", metavar="D", required=True, help="In this digest.")
@click.option("--until", type=INSTANT, metavar="T", help="Until T (RFC 3339). Default: until it is unmarked.")
@json_option
@pass_door
def articles_pin(door: Door, id: int, slug: str, until: datetime | None, out: Output) -> None:
    """Put an article first in a digest, for every reader who has not had it."""
    with door.app() as app:
        from digest.editions import pin_article

        out.record(_marks(id, pin_article(app.db, id, slug, until, now())))


@articles.command("exclude")
@click.argument("id", type=int)
@click.option("--digest", "slug", metavar="D", help="Only out of this digest. Default: of all.")
@json_option
@pass_door
def articles_exclude(door: Door, id: int, slug: str | None, out: Output) -> None:
    """Keep an article out of digests; feeds and pages still have it."""
    with door.app() as app:
        from digest.editions import exclude_article

        out.record(_marks(id, exclude_article(app.db, id, slug, now())))


@articles.command("unmark")
@click.argument("id", type=int)
@click.option("--digest", "slug", metavar="D", help="Only what was said for this digest. Default: all.")
@json_option
@pass_door
def articles_unmark(door: Door, id: int, slug: str | None, out: Output) -> None:
    """Take back pins and exclusions of an article."""
    with door.app() as app:
        from digest.editions import unmark_article

        out.record(_marks(id, unmark_article(app.db, id, slug)))


def _marks(article: int, marks: Any) -> dict[str, Any]:
    return {"id": article, "marks": [asdict(mark) for mark in marks]}


@click.group("topics", invoke_without_command=True)
@click.option("--kind", type=choice("category", "tag"), help="Only categories, or only tags.")
@click.option("--months", is_flag=True, help="Articles by month instead, in the publication's time zone.")
@click.option("--all", "with_empty", is_flag=True, help="Those without articles too.")
@fail_empty_option
@json_option
@click.pass_context
def topics(ctx: click.Context, kind: str | None, months: bool, with_empty: bool, fail_empty: bool, out: Output) -> int:
    """List categories and tags with the number of their own articles: the tag cloud."""
    if ctx.invoked_subcommand is not None:
        return Exit.OK
    if months and (kind or with_empty):
        raise click.UsageError("--months counts all articles; leave out --kind and --all")
    with ctx.ensure_object(Door).app() as app, app.db.reading() as session:
        from digest import catalogue, schedules

        if months:
            zone = schedules.zone(catalogue.publication(session).timezone)
            by_month = [{"month": month, "count": count} for month, count in catalogue.months(session, zone)]
            return empty_or_ok(out.rows(by_month, "month", Column("articles", "count", right=True)), fail_empty)
        rows = [_topic(t) for t in catalogue.topic_rows(session, kind, with_empty)]
        columns = ("kind", "slug", "name", "parent", Column("articles", "count", right=True))
        return empty_or_ok(out.rows(rows, *columns, empty="no topics yet"), fail_empty)


_named = click.argument("topic", metavar="category:S|tag:S")


@topics.command("hide")
@_named
@click.option("--undo", is_flag=True, help="Show it again.")
@json_option
@pass_door
def topics_hide(door: Door, topic: str, undo: bool, out: Output) -> None:
    """Take a topic out of lists and feeds; its articles stay, and rules that name it still find them."""
    with door.app() as app:
        from digest.editions import hide_topic

        out.record(_topic(hide_topic(app.db, topic, hidden=not undo)))


@topics.command("rename")
@_named
@click.argument("name")
@click.option("--slug", metavar="S", help="Its slug. Default: made of the name.")
@json_option
@pass_door
def topics_rename(door: Door, topic: str, name: str, slug: str | None, out: Output) -> None:
    """Give a topic another name and slug. The old slug goes on leading to it: in rules, feeds and what sources say."""
    with door.app() as app:
        from digest.editions import rename_topic

        out.record(_topic(rename_topic(app.db, topic, name, slug=slug)))


@topics.command("merge")
@_named
@click.argument("into", metavar="category:S|tag:S")
@json_option
@pass_door
def topics_merge(door: Door, topic: str, into: str, out: Output) -> None:
    """Make one topic of two: articles, rules, readers' choices and feed addresses go over to the second, for good."""
    with door.app() as app:
        from digest.editions import merge_topics

        out.record(_topic(merge_topics(app.db, topic, into)))


def _topic(row: Any) -> dict[str, Any]:
    return {"kind": row.kind, "slug": row.slug, "name": row.name, "parent": row.parent, "count": row.count}


COMMANDS = (articles, topics)
