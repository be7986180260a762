"""An editor's word on what tells the same news: `stories split`, `stories merge`; and how a story is shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import rich_click as click

from digest.cli.common import Column, Door, Output, json_option, now, pass_door

MEMBER = (
    Column("id", "id", right=True),
    Column("published", "published_at", whole=True),
    "title",
    Column("joined by", "rule"),
    Column("like", "matched", right=True),
)


def members(session: Any, story: int) -> list[dict[str, Any]]:
    """The articles of a story as they were told, and why each joined."""
    from digest.catalogue import stories

    return [asdict(member) for member in stories.members(session, [story]).get(story, [])]


def with_members(session: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """*rows* of articles, those of a story together, each with why it joined and who else is in it."""
    from digest.catalogue import stories

    told = stories.members(session, {row["story"] for row in rows})
    order = {story: n for n, story in enumerate(dict.fromkeys(row["story"] for row in rows))}
    why = {m.id: m for story in told.values() for m in story}
    rows = [
        row
        | {"rule": why[row["id"]].rule, "matched": why[row["id"]].matched}
        | {"members": [m.id for m in told[row["story"]]]}
        for row in rows
    ]
    return sorted(rows, key=lambda row: order[row["story"]])


@click.group()
def stories() -> None:
    """Articles that tell the same news."""


@stories.command("split")
@click.argument("id", type=int)
@json_option
@pass_door
def stories_split(door: Door, id: int, out: Output) -> None:
    """Take an article out of its story, for good."""
    with door.app() as app:
        from digest import ingest

        with app.db.transaction() as session:
            left = ingest.split(session, id, at=now())
        _show(app, id, out, left=left)


@stories.command("merge")
@click.argument("id", type=int)
@click.argument("other", type=int)
@json_option
@pass_door
def stories_merge(door: Door, id: int, other: int, out: Output) -> None:
    """Make one story of the stories of two articles, for good."""
    with door.app() as app:
        from digest import ingest

        with app.db.transaction() as session:
            ingest.merge(session, id, other, at=now())
        _show(app, id, out)


def _show(app: Any, article: int, out: Output, **more: Any) -> None:
    from digest.catalogue import stories as rows

    with app.db.reading() as session:
        story = rows.story_of(session, article)
        told = members(session, story)
    if out.as_json:
        out.line({"id": article, "story": story, **more, "members": told})
    else:
        out.rows(told, *MEMBER)


COMMANDS = (stories,)
