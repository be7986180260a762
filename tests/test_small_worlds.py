"""Every rule of selection at once, over small worlds: what goes in, in which order, and why the others do not.

The expectation is written a second time, in plain lists and straight from docs/selection.md; the room of a mail and
sections have their own in test_selection, what readers had in test_release.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from digest import ledger
from digest import models as m
from digest.catalogue import marks
from digest.db import Database
from digest.editions.editor import Costed
from digest.selection import Reason
from digest.types import ArticleCard
from tests import build
from tests.office import Office

AT, MINUTE, DAY = build.T, timedelta(minutes=1), timedelta(days=1)
GRACE = 15 * MINUTE
AGES = [-5 * MINUTE, 5 * MINUTE, GRACE - MINUTE, GRACE, 60 * MINUTE, 2 * DAY, 7 * DAY - MINUTE, 7 * DAY, 30 * DAY]
RULES = {
    "": lambda a: True,
    "category:africa": lambda a: bool(a.categories & {"Africa", "Sahel"}),
    "category:africa!only": lambda a: "Africa" in a.categories,
    "not tag:x": lambda a: "x" not in a.tags,
    "category:asia or tag:x": lambda a: "Asia" in a.categories or "x" in a.tags,
}


@dataclass(frozen=True)
class Told:
    """An article of a small world. ``late``: how long after its date it was first seen."""

    age: timedelta
    late: timedelta
    status: str
    sticky: bool
    story: int
    categories: frozenset[str]
    tags: frozenset[str]
    authors: frozenset[str]
    mark: str
    shown: bool  # in an earlier edition of the digest

    @property
    def published(self) -> Any:
        return AT - self.age

    @property
    def eligible(self) -> Any:
        return self.published + self.late


@dataclass(frozen=True)
class Wanted:
    rule: str
    lookback: timedelta
    minimum: int
    maximum: int
    quota: int  # of Africa with what is below it; 0: none
    per_author: int


mostly = st.sampled_from
TOLD = st.builds(
    Told,
    age=mostly([*AGES, 7 * DAY, 7 * DAY, 30 * DAY - MINUTE, 60 * MINUTE, 61 * MINUTE, 90 * MINUTE]),
    late=mostly([timedelta(0)] * 3 + [DAY, 7 * DAY - 20 * MINUTE, 30 * DAY - 2 * DAY]),
    status=mostly(["published"] * 6 + ["scheduled", "withheld", "removed"]),
    sticky=mostly([False, False, False, True]), story=st.integers(1, 6),
    categories=st.frozensets(mostly(["Africa", "Sahel", "Asia"]), max_size=2), tags=st.frozensets(mostly(["x"])),
    authors=st.frozensets(mostly(["Ann", "Bo"]), max_size=2), mark=mostly([""] * 6 + ["pin", "exclude", "exclude all"]),
    shown=mostly([False] * 5 + [True]),
)  # fmt: skip
WANTED = st.builds(
    Wanted, rule=mostly(sorted(RULES)), lookback=mostly([7 * DAY, 40 * DAY]), minimum=st.integers(1, 2),
    maximum=st.integers(2, 5), quota=st.integers(0, 2), per_author=st.integers(0, 2),
)  # fmt: skip


def candidates(world: list[Told], wanted: Wanted) -> list[int]:
    """Numbers of the articles that are looked at, in the order of the digest."""

    def looked_at(a: Told) -> bool:
        if a.status != "published" or a.published > AT or a.eligible > AT:
            return False
        recent = a.eligible > AT - wanted.lookback and a.published > AT - 30 * DAY
        return a.mark == "pin" or (recent and RULES[wanted.rule](a))

    found = [n for n, a in enumerate(world) if looked_at(a)]
    order = sorted(found, key=lambda n: (world[n].sticky, world[n].published, n), reverse=True)
    return sorted(order, key=lambda n: world[n].mark != "pin")


def expected(world: list[Told], wanted: Wanted) -> dict[int, tuple[str, Reason]]:
    looked_at = candidates(world, wanted)
    verdicts: dict[int, tuple[str, Reason]] = {}
    stories: dict[int, list[int]] = {}
    for n in looked_at:
        a = world[n]
        if a.mark.startswith("exclude"):
            verdicts[n] = "out", Reason.EXCLUDED
        elif a.mark != "pin" and a.eligible > AT - GRACE:
            verdicts[n] = "out", Reason.FRESH
        else:
            stories.setdefault(a.story, []).append(n)
    seen = {a.story for a in world if a.shown}

    def african(story: int) -> bool:
        return any(world[n].categories & {"Africa", "Sahel"} for n in stories[story])

    def quota_full(chosen: list[int], story: int) -> bool:
        return bool(wanted.quota) and african(story) and sum(map(african, chosen)) >= wanted.quota

    def authors_full(chosen: list[int], story: int) -> bool:
        return bool(wanted.per_author) and any(
            sum(author in world[stories[s][0]].authors for s in chosen) >= wanted.per_author
            for author in world[stories[story][0]].authors
        )

    chosen: list[int] = []
    for story in stories:
        free = world[stories[story][0]].mark == "pin" or not (quota_full(chosen, story) or authors_full(chosen, story))
        if story not in seen and len(chosen) < wanted.maximum and free:
            chosen.append(story)
    enough = len(chosen) >= wanted.minimum
    for story, articles in stories.items():
        lead = world[articles[0]].mark == "pin"
        if story in seen:
            why = Reason.SEEN
        elif story in chosen:
            why = (Reason.PINNED if lead else Reason.PICKED) if enough else Reason.MINIMUM
        elif not lead and quota_full(chosen, story):
            why = Reason.QUOTA
        elif not lead and authors_full(chosen, story):
            why = Reason.AUTHOR
        else:
            why = Reason.MAXIMUM
        shown = enough and story in chosen
        for n in articles:
            verdicts[n] = "in" if shown else "out", Reason.ALSO if shown and n != articles[0] else why
    return verdicts


def composed(session: Session, office: Office, world: list[Told], wanted: Wanted) -> list[tuple[int, str, str, Any]]:
    """(number, verdict, reason, position) of each row of the pool, in its order."""
    build.publication(session)
    build.topic(session, "Sahel", parent=build.topic(session, "Africa"))
    build.topic(session, "Asia")
    build.topic(session, "x", kind="tag")
    quota = {"quotas": {"category:africa": wanted.quota}} if wanted.quota else {}
    digest = build.digest(
        session, rule=wanted.rule, lookback_s=int(wanted.lookback.total_seconds()), minimum=wanted.minimum,
        maximum=wanted.maximum, grace_s=int(GRACE.total_seconds()),
        selection=quota | ({"per_author": wanted.per_author} if wanted.per_author else {}),
    )  # fmt: skip
    number: dict[int, int] = {}
    for n, a in enumerate(world):
        row = build.article(
            session, published_at=a.published, eligible_at=a.eligible, status=a.status, sticky=a.sticky,
            story_id=a.story, categories=sorted(a.categories), tags=sorted(a.tags), authors=sorted(a.authors),
        )  # fmt: skip
        number[row.id] = n
        if a.mark == "pin":
            marks.pin(session, row.id, digest.id, None, AT)
        elif a.mark:
            marks.exclude(session, row.id, marks.EVERYWHERE if "all" in a.mark else digest.id, AT)
    had = [ArticleCard(i, "t", "u", "", None, (), AT, "") for i, n in number.items() if world[n].shown]
    build.edition(session, digest, had, instant=AT - DAY, live=True)
    edition = session.get_one(m.Edition, office.editor.open_manual_in(session, digest, AT))
    gathered = office.editor.gather(session, edition.id)
    assert gathered
    costs = dict.fromkeys((c.card.id for c in gathered.candidates), 10)
    office.editor.store(session, edition, gathered, Costed(costs, 95_000, 0, ""))
    rows = ledger.editions.pool(session, edition.id)
    return [(number[r.article_id], r.verdict, r.reason, r.position) for r in rows]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=st.lists(TOLD, min_size=4, max_size=16), wanted=WANTED)
def test_every_candidate_has_the_verdict_that_the_rules_say(
    database: Database, world: list[Told], wanted: Wanted
) -> None:
    with database.rehearsal() as session:
        rows = composed(session, Office(database), world, wanted)
    told = expected(world, wanted)
    assert [n for n, *_ in rows] == candidates(world, wanted), "in the order of the digest, each once"
    assert {n: (verdict, reason) for n, verdict, reason, _ in rows} == told
    inside = sorted((p, n) for n, verdict, _, p in rows if verdict == "in")
    assert [p for p, _ in inside] == list(range(len(inside)))
    leads = [n for _, n in inside if told[n][1] is not Reason.ALSO]
    assert leads == [n for n in candidates(world, wanted) if n in leads], "the mail keeps the order"
