"""When a relay refuses too much: better to stop an edition early than to be refused a hundred thousand times.

A relay that refuses most of an edition does not know us any more (a signature, an address, a reputation), and each
refusal makes that worse. Counts what one process hears for each edition; decides, and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from digest.types import Outcome, Result


@dataclass(slots=True)
class Heard:
    accepted: int = 0
    rejected: int = 0
    replies: Counter[str] = field(default_factory=Counter)


class Refusals:
    """``after``: so many answers are waited for; ``share`` of them refused is too much."""

    def __init__(self, *, after: int = 100, share: float = 0.5) -> None:
        self._after, self._share = after, share
        self._heard: dict[int, Heard] = {}

    def hear(self, answers: Iterable[tuple[int, Outcome]]) -> dict[int, str]:
        """Count (edition, outcome); editions to be paused, and why. What was said of one is forgotten with that."""
        for edition, outcome in answers:
            heard = self._heard.setdefault(edition, Heard())
            if outcome.result is Result.ACCEPTED:
                heard.accepted += 1
            elif outcome.result is Result.REJECTED:
                heard.rejected += 1
                heard.replies[" ".join(str(part) for part in (outcome.code, outcome.enhanced) if part)] += 1
        stop = {edition: self._reason(heard) for edition, heard in self._heard.items() if self._too_much(heard)}
        for edition in stop:
            del self._heard[edition]
        return stop

    def _too_much(self, heard: Heard) -> bool:
        answers = heard.accepted + heard.rejected
        return answers >= self._after and heard.rejected >= self._share * answers

    def _reason(self, heard: Heard) -> str:
        [(most, _)] = heard.replies.most_common(1)
        of = heard.accepted + heard.rejected
        return (
            f"the relay refused {heard.rejected:,} of {of:,} mails, most of them with {most}; "
            "mend that, then resume the edition and retry those that failed"
        )
