"""Gates of an edition: which of its mails are looked at before release, and what is kept of that.

The house variant is looked at in full. The largest mail that any reader could get is measured in every dress that a
reader wears, and every link of the pool is looked at, whoever may get it. The checks are `digest.rendering.gates`'.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from digest import ledger
from digest.ledger.history import due_readers, left_out
from digest.models import Edition, Subscription
from digest.rendering import folded, gates, spam
from digest.rendering.gates import Gate
from digest.selection import Outcome, Pool
from digest.sending.printer import Printer
from digest.types import Dress, Format

__all__ = ["Gate", "Proof", "failed", "gather_proof", "prove", "prove_one", "telling"]


def telling(session: Session, edition: Edition, titles: Mapping[int, str]) -> dict[str, Any]:
    """What keeps the subject from being that of an edition before: its place in the day, titles on top then.

    *titles*: of this edition's candidates, by article. An article that was on top before is on top of no mail again.
    """
    mine = {article: folded(title) for article, title in titles.items()}
    before = [(article, folded(title)) for article, title in ledger.readings.titles_before(session, edition)]
    worn = {title for article, title in before if mine.get(article) != title}
    return {"place": ledger.editions.place_in_day(session, edition), "worn": sorted(worn & set(mine.values()))}


@dataclass(frozen=True, slots=True)
class Proof:
    """What proving needs, read in one go: after that no transaction is held."""

    edition_id: int
    revision: int
    at: datetime
    printer: Printer
    house: Sequence[tuple[int, int]]
    largest: Sequence[tuple[int, int]]
    dresses: Collection[int]
    links: Sequence[str]  # of every article that some reader may get


def gather_proof(session: Session, edition: Edition, pool: Pool, house: Outcome, printer: Printer) -> Proof:
    """The house's items and those of the mail with the dearest stories, as many as a mail may have."""
    dearest = sorted(range(len(pool.stories)), key=lambda i: -pool.stories[i].cost)[: pool.limits.maximum]
    largest = [*pool.items(pool.pick(0, sum(1 << i for i in dearest))), *left_out(pool.limits.maximum)]
    items = pool.items(house)
    printer.learn_titles(session, [*items, *largest])
    worn = session.scalars(select(Subscription.dress).where(due_readers(edition)).distinct()).all()
    links = [printer.cards[article].url for story in pool.stories for article in story.articles]
    return Proof(edition.id, edition.revision, edition.at, printer, items, largest, sorted(worn), links)


def prove(proof: Proof) -> list[Gate]:
    """Every gate of the edition; of each kind the first that failed stands for all."""
    printer = proof.printer
    home = Dress.speaking(printer.view.brand.language).code
    found = []
    if any(article for article, _ in proof.house):
        found = prove_one(printer, home, proof.house, _message(printer, home, proof))
    for dress in proof.dresses:
        if any(article for article, _ in proof.largest) and Dress.of(dress).format is Format.HTML:
            language = Dress.of(dress).language
            found.append(gates.size(printer.render(dress, proof.largest, show=False), f", in the largest ({language})"))
    if bad := gates.safe_addresses(proof.links, printer.view):
        found.append(bad)
    return _worst(found)


def prove_one(printer: Printer, dress: int, items: Sequence[tuple[int, int]], message: bytes) -> list[Gate]:
    """The gates of one variant and, where it is installed, SpamAssassin's word on its *message*."""
    found = gates.check(printer.dressed(dress), printer.sections(items), printer.render(dress, items))
    said = spam.gate(message)
    return [*found, said] if said else found


def failed(found: Sequence[Gate]) -> str | None:
    """Why an edition is held, in one sentence."""
    return next((gate.detail for gate in found if not gate.ok), None)


def _message(printer: Printer, dress: int, proof: Proof) -> bytes:
    nobody = printer.addressee(0, 0, f"reader@{printer.domain}", proof.at)
    return b"".join(printer.prepare(dress, proof.house).build(nobody))


def _worst(found: Sequence[Gate]) -> list[Gate]:
    kept: dict[str, Gate] = {}
    for gate in found:
        if gate.gate not in kept or (kept[gate.gate].ok and not gate.ok):
            kept[gate.gate] = gate
    return list(kept.values())
