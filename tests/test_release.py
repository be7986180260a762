"""Nothing twice and nothing forgotten, against brute force; every tempting shortcut turns the oracle red."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import models as m
from digest.db import Database
from digest.ledger import history
from tests.release_world import KINDS, World, live_through


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts and batches in a small world."""
    monkeypatch.setattr(history, "PART_BITS", 5)
    monkeypatch.setattr(history, "BATCH_SIZE", 7)


def red(world: World) -> int:
    """What went wrong with the stories themselves; what mails say of them is not enough."""
    return world.violations.total() - world.violations["wrongly told what was left out"]


def test_no_story_twice_and_none_forgotten(database: Database) -> None:
    world = live_through(database, seed=1, readers=60, days=15)
    assert +world.violations == {}
    assert world.stats["mails"] > 800
    happened = "splits", "merges", "cancelled", "rejected", "deferred", "uncertain", "left out"
    assert min(world.stats[k] for k in happened) > 0


@pytest.mark.full
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_no_story_twice_over_sixty_days(database: Database, seed: int) -> None:
    assert +live_through(database, seed=seed, readers=500, days=60).violations == {}


Naive = Callable[[pytest.MonkeyPatch], dict[str, Any] | None]


def story_ids_stored(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """History holds the story as it was at release, instead of its articles."""

    class Stories(history.Releaser):
        def __init__(self, session: Session, edition: m.Edition, *, items: Any, **parts: Any) -> None:
            def stories(outcome: Any) -> list[tuple[int, int]]:
                ids = dict(session.execute(select(m.Article.id, m.Article.story_id)).all())
                return list(dict.fromkeys((ids[a], s) for a, s in items(outcome)))

            super().__init__(session, edition, items=stories, **parts)

    patch.setattr(history, "article_bits", lambda session, edition, bit_of_story: dict(bit_of_story))
    return {"releaser": Stories}


def only_the_shown_claimed(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    class Leads(history.Releaser):
        def __init__(self, session: Session, edition: m.Edition, *, items: Any, **parts: Any) -> None:
            def leads(outcome: Any) -> list[tuple[int, int]]:
                story = dict(session.execute(select(m.Article.id, m.Article.story_id)).all())
                first: dict[int, tuple[int, int]] = {}
                for a, s in items(outcome):
                    first.setdefault(story[a], (a, s))
                return list(first.values())

            super().__init__(session, edition, items=leads, **parts)

    return {"releaser": Leads}


def prior_by_article(patch: pytest.MonkeyPatch) -> None:
    """Earlier editions that share an article, not a story."""

    def prior(session: Session, edition: m.Edition, bits: dict[int, int]) -> list[history.Prior]:
        mine = select(m.EditionArticle.article_id).where(m.EditionArticle.edition_id == edition.id)
        sharing = set(session.scalars(select(m.EditionArticle.edition_id).where(m.EditionArticle.article_id.in_(mine))))
        return [p for p in whole(session, edition, bits) if p.edition_id in sharing]

    whole = history.prior_editions
    patch.setattr(history, "prior_editions", prior)


def prior_of_own_zone(patch: pytest.MonkeyPatch) -> None:
    whole = history._counts_against
    patch.setattr(history, "_counts_against", lambda e: whole(e) & (m.Edition.zone == e.zone))


def cancelled_claims_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(history, "_KEPT", frozenset({"never"}))


def cancelled_claims_all(patch: pytest.MonkeyPatch) -> None:
    whole = history.prior_editions

    def all_kept(session: Session, edition: m.Edition, bits: dict[int, int]) -> list[history.Prior]:
        return [replace(p, kept=None) for p in whole(session, edition, bits)]

    patch.setattr(history, "prior_editions", all_kept)


def nothing_given_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(history, "GAVE_BACK", frozenset({"never"}))


def captured_claims(patch: pytest.MonkeyPatch) -> None:
    whole = history._counts_against

    def all_of_them(edition: m.Edition) -> Any:
        edition.live, live = False, edition.live
        try:
            return whole(edition)
        finally:
            edition.live = live

    patch.setattr(history, "_counts_against", all_of_them)


def repeats_itself(patch: pytest.MonkeyPatch) -> None:
    """An edition that may repeat others has no history at all."""
    whole = history.prior_editions
    patch.setattr(history, "prior_editions", lambda s, e, bits: [] if e.repeats else whole(s, e, bits))


def derived_from_todays_choices(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was seen follows from the digests, zone and topics chosen now, not from what was sent."""
    bits: dict[int, int] = {}
    whole = history.prior_editions

    def remember(session: Session, edition: m.Edition, bit_of_article: dict[int, int]) -> list[history.Prior]:
        bits.clear()
        bits.update(bit_of_article)
        return whole(session, edition, bit_of_article)

    def seen(session: Session, priors: Any, part: int, readers: Any) -> tuple[dict[int, int], dict[int, int]]:
        masks = dict.fromkeys(readers, 0)
        keys = dict(session.execute(select(m.Taste.id, m.Taste.key)).all())
        for prior in priors:
            edition = session.get_one(m.Edition, prior.edition_id)
            pool = session.scalars(
                select(m.EditionArticle).filter_by(edition_id=edition.id).order_by(m.EditionArticle.rank)
            ).all()
            for s in session.scalars(select(m.Subscription).filter_by(digest_id=edition.digest_id, zone=edition.zone)):
                if s.subscriber_id in masks:
                    chosen = {int(t) for t in keys[s.taste_id].split(",")}
                    shown = list(dict.fromkeys(r.rank for r in pool if chosen & set(r.topics)))[:12]
                    for row in pool:
                        masks[s.subscriber_id] |= bits.get(row.article_id, 0) if row.rank in shown else 0
        return masks, {}

    patch.setattr(history, "prior_editions", remember)
    patch.setattr(history, "seen_by", seen)
    return {"readers": 25, "days": 7}  # it is slow, and wrong soon enough


@pytest.mark.parametrize(
    "naive",
    [
        story_ids_stored, only_the_shown_claimed, prior_by_article, prior_of_own_zone, cancelled_claims_nothing,
        cancelled_claims_all, nothing_given_back, captured_claims, repeats_itself, derived_from_todays_choices,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_every_shortcut_turns_the_oracle_red(database: Database, naive: Naive, monkeypatch: pytest.MonkeyPatch) -> None:
    how = naive(monkeypatch) or {}
    world = live_through(database, **{"seed": 1, "readers": 50, "days": 15} | how)
    assert red(world) > 0, f"{naive.__name__} went unnoticed over {world.stats['mails']} mails"


def test_the_world_has_every_kind_of_digest() -> None:
    assert {k.repeats for k in KINDS} == {True, False}
    assert {k.topics is None for k in KINDS} == {True, False}
