"""The checker: the judge's ledger against our books. Pure: rows in, a verdict out, so that it can be lied to in tests.

lost         an owed mail that has no end, or whose end says accepted and which the judge never took
repeated     arrivals of one mail beyond the first; at most the window for each killed process, and one for each
             reply that was lost
unexplained  repeats without an `uncertain` attempt of their own
strangers    arrivals that nobody owed, a second Message-ID for one mail, or one Message-ID for two
spoken for   arrivals at readers who had left before their mail was granted
at risk      for each killed process, what the judge took of it and our books did not hold under its name
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from digest.types import TERMINAL, Result
from tests.kills.judge import Entry

TOOK = ("took", "lost")


@dataclass(frozen=True, slots=True)
class Try:
    """An attempt, as our books have it. ``life``: the worker that made it, or that ``died`` before it knew."""

    rcpt: str
    attempt: int
    outcome: str
    life: str | None
    died: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """``owed``: who was to get a mail; ``left``: those of them who left before theirs was granted.

    ``killed``: lives that were ended, ``on_wire``: those of them that had mail on the wire, ``window``: what each may
    have had out. ``fallen``: workers that ended with an error of their own; ``cut_off``: senders that lost the database
    or their lease.
    """

    owed: Collection[str]
    tries: Sequence[Try]
    entries: Sequence[Entry]
    killed: Collection[str]
    on_wire: Collection[str] = ()
    left: Collection[str] = ()
    window: int = 50
    finished: bool = True
    fallen: int = 0
    cut_off: int = 0


@dataclass(slots=True)
class Verdict:
    owed: int
    kills: int
    on_wire: int
    arrived: int = 0
    lost: int = 0
    repeated: int = 0
    allowed: int = 0
    unexplained: int = 0
    strangers: int = 0
    spoken_for: int = 0
    uncertain: int = 0
    most_at_risk: int = 0
    most_uncertain: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0
    troubles: int = 0  # that came over it besides

    @property
    def holds(self) -> bool:
        return not self.broken


def check(case: Case) -> Verdict:
    """Weigh one case; ``broken`` names each promise that was not kept, with a figure."""
    arrivals = Counter(e.rcpt for e in case.entries if e.what in TOOK)
    tries: dict[str, list[Try]] = {}
    for attempt in sorted(case.tries, key=lambda t: t.attempt):
        tries.setdefault(attempt.rcpt, []).append(attempt)
    said = Verdict(len(case.owed), len(case.killed), len(case.on_wire), arrived=arrivals.total())
    _ends(case, said, arrivals, tries)
    _repeats(case, said, arrivals, tries)
    _strangers(case, said)
    _risk(case, said)
    said.spoken_for = sum(arrivals[rcpt] for rcpt in case.left)
    for name, wrong in (
        ("lost", said.lost), ("unexplained", said.unexplained), ("strangers", said.strangers),
        ("mailed after leaving", said.spoken_for), ("repeated more than allowed", max(0, said.repeated - said.allowed)),
        ("more at risk than the window", max(0, said.most_at_risk - case.window)),
        ("more uncertain than the window", max(0, said.most_uncertain - case.window)),
        ("workers that fell by themselves", case.fallen),
    ):  # fmt: skip
        if wrong:
            said.broken.append(f"{name}: {wrong}")
    if not case.finished:
        said.broken.append("the edition did not finish")
    return said


def _ends(case: Case, said: Verdict, arrivals: Mapping[str, int], tries: Mapping[str, Sequence[Try]]) -> None:
    """Each owed mail has one end, and the judge knows of it."""
    refused = {(e.rcpt, e.code) for e in case.entries if e.what == "refused"}
    outcomes: Counter[str] = Counter()
    for rcpt in case.owed:
        ends = [t.outcome for t in tries.get(rcpt, ()) if t.outcome in TERMINAL]
        outcomes[ends[0] if ends else "none"] += 1
        if len(ends) != 1 or (ends[0] == Result.ACCEPTED and not arrivals.get(rcpt)):
            said.lost += 1
        elif ends[0] == Result.REJECTED and (rcpt, 550) not in refused:
            said.broken.append(f"rejected, as our books say, and the judge does not: {rcpt}")
    said.outcomes = dict(outcomes)
    said.uncertain = sum(t.outcome == Result.UNCERTAIN for t in case.tries)


def _repeats(case: Case, said: Verdict, arrivals: Mapping[str, int], tries: Mapping[str, Sequence[Try]]) -> None:
    """A mail arrived as often as it was accepted or uncertain, at most."""
    for rcpt, times in arrivals.items():
        explained = sum(t.outcome in (Result.UNCERTAIN, Result.ACCEPTED) for t in tries.get(rcpt, ()))
        said.repeated += times - 1
        said.unexplained += max(0, times - explained)
    replies_lost = sum(e.what == "lost" for e in case.entries)
    said.allowed = case.window * (len(case.killed) + case.cut_off) + replies_lost


def _strangers(case: Case, said: Verdict) -> None:
    ids: dict[str, set[str]] = {}
    for e in case.entries:
        if e.what in TOOK:
            ids.setdefault(e.rcpt, set()).add(e.message_id)
    said.strangers += sum(rcpt not in case.owed for rcpt in ids)
    said.strangers += sum(len(own) - 1 for own in ids.values())
    whose = Counter(one for own in ids.values() for one in own)
    said.strangers += sum(n - 1 for n in whose.values())


def _risk(case: Case, said: Verdict) -> None:
    """How much of each killed life was in the dark, by the judge and by our books."""
    recorded = {(t.rcpt, t.life) for t in case.tries if t.outcome == Result.ACCEPTED}
    in_the_dark = Counter(
        e.life for e in case.entries if e.what == "took" and e.life in case.killed and (e.rcpt, e.life) not in recorded
    )
    maybe = Counter(t.life for t in case.tries if t.died and t.life in case.killed)
    said.most_at_risk = max(in_the_dark.values(), default=0)
    said.most_uncertain = max(maybe.values(), default=0)
