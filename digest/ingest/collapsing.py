"""Near-duplicates become one story, and an editor has the last word.

    collapse   articles that are new or changed → the board around them → places that moved → rows
    split      an article leaves its story and never comes back to it
    merge      two stories become one, for good

All in the caller's transaction. Nobody's ``eligible_at`` moves: an article that leaves a story is no newer for it, and
what readers had is known by articles, not by stories. Owns the order of events; the rules are `digest.stories`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from digest.catalogue import stories as rows
from digest.catalogue import take_turn
from digest.errors import UsageError
from digest.stories import Board, Found


def collapse(session: Session, articles: Sequence[int], *, at: datetime) -> list[int]:
    """Find the stories of articles that are new or changed. Returns the articles whose story is another now."""
    if not articles:
        return []
    board = Board(lambda low, high: _found(session, low, high), lambda ids: rows.bodies(session, ids))
    changed = rows.pieces(session, articles)
    companions = set(rows.members_of(session, {piece.story for piece in changed})).difference(articles)
    places = board.settle(changed, rows.pieces(session, companions))
    return rows.move(session, places, at) if places else []


def _found(session: Session, low: datetime, high: datetime) -> Found:
    """The articles of a span, the editor's word on them, and whole the stories that it ties them to."""
    here = rows.pieces_between(session, low, high)
    known = {piece.id for piece in here}
    merged, split = rows.edits(session, sorted(known))
    if not merged and not split:
        return Found(here)
    tied = rows.pieces(session, {a for pair in merged for a in pair} - known)
    whole = rows.members_of(session, {p.story for p in [*here, *tied] if p.rule == "editor"})
    tied += rows.pieces(session, set(whole) - known - {p.id for p in tied})
    return Found([*here, *tied], merged, split)


def split(session: Session, article: int, *, at: datetime) -> int:
    """Take *article* out of its story for good. Returns the story it left."""
    take_turn(session)
    story = rows.story_of(session, article)
    everyone = rows.members_of(session, [story])
    if len(everyone) == 1:
        raise UsageError(f"article {article} is alone in its story; there is nothing to split")
    rows.say_apart(session, article, everyone, at)
    collapse(session, everyone, at=at)
    return story


def merge(session: Session, one: int, other: int, *, at: datetime) -> int:
    """Make one story of the stories of two articles, for good. Returns the story."""
    take_turn(session)
    stories = {rows.story_of(session, one), rows.story_of(session, other)}
    if len(stories) == 1:
        raise UsageError(f"articles {one} and {other} are of one story already")
    everyone = rows.members_of(session, stories)
    rows.say_same(session, everyone, at)
    collapse(session, everyone, at=at)
    return rows.story_of(session, one)
