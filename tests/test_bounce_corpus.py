"""Bounces as they were met in the wild, kept outside the clone: each is classified, more than by one library alone.

The run writes its table into docs/bounces.md; a page that says something else fails here, and is right the next time.
"""

from __future__ import annotations

import mailbox
import re
import time
from collections import Counter
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from digest.delivery.classify import Weight, weigh
from digest.delivery.reports import Letter, Report, ReportKind, read_report
from tests.conftest import Corpus

PAGE = Path(__file__).parents[1] / "docs/bounces.md"
TABLE = re.compile(r"(?s)(<!-- corpus -->\n).*?(<!-- /corpus -->)")
ROWS = (
    "DSN and other mail, LF",
    "the same, CRLF",
    "the same, CR alone",
    "postmaster's copies",
    "mbox",
    "JSON",
    "Mailman",
)


def messages(corpus: Corpus) -> Iterator[tuple[str, bytes]]:
    """(row of the table, message). A file of many messages gives each of them."""
    groups = {
        "bsd": ROWS[0], "dos": ROWS[1], "mac": ROWS[2], "err": ROWS[3], "mailbox": ROWS[4], "obsoleted": ROWS[5],
        "flufl.bounce": ROWS[6],
    }  # fmt: skip
    for path in corpus.find("bounces/**/*"):
        row = groups[path.parent.name]
        if row != "mbox":
            yield row, path.read_bytes()
            continue
        box = mailbox.mbox(path, create=False)
        yield from ((row, message.as_bytes()) for message in box)
        box.close()


def by_flufl_alone(message: bytes) -> str:
    from flufl.bounce import all_failures

    try:
        failing, failed = all_failures(message_from_bytes(message))
    except Exception:
        return "stumbled"
    return "failed" if failed else "failing" if failing else "nothing"


def word(report: Report) -> str:
    if report.kind is ReportKind.BOUNCE:
        return {Weight.GONE: "gone", Weight.FULL: "may pass", Weight.OURS: "about us"}[weigh(report.status)]
    return report.kind.value


@pytest.mark.corpus
def test_every_bounce_of_the_corpus_is_classified_and_the_page_says_how(corpus: Corpus) -> None:
    counts: dict[str, Counter[str]] = {row: Counter() for row in ROWS}
    slowest = 0.0
    for row, message in messages(corpus):
        began = time.process_time()
        report = read_report(Letter.of(message))
        slowest = max(slowest, time.process_time() - began)
        assert report.text.isprintable()
        counts[row].update(["messages", word(report), f"flufl {by_flufl_alone(message)}"])
        counts[row]["status"] += report.kind is ReportKind.BOUNCE and report.status is not None
    total = sum(counts.values(), Counter[str]())
    assert total["messages"] > 500
    assert slowest < 1
    assert total["unknown"] <= total["messages"] / 50
    assert total["flufl nothing"] + total["flufl stumbled"] > 5 * total["unknown"]
    table = _table(counts)
    page = PAGE.read_text()
    wanted = TABLE.sub(lambda found: found[1] + table + found[2], page)
    PAGE.write_text(wanted)
    assert page == wanted, "docs/bounces.md said something else; it has been rewritten, look at it"


COLUMNS = (
    ("messages", ("messages",)), ("gone", ("gone",)), ("may pass", ("may pass",)), ("about us", ("about us",)),
    ("of these with a status", ("status",)), ("delayed", ("delayed",)), ("complaint", ("complaint",)),
    ("leave, away, arrived", ("unsubscribe", "auto_reply", "delivered")), ("unknown", ("unknown",)),
    ("flufl.bounce alone: failed", ("flufl failed",)), ("failing", ("flufl failing",)),
    ("nothing, or stumbled", ("flufl nothing", "flufl stumbled")),
)  # fmt: skip


def _table(counts: dict[str, Counter[str]]) -> str:
    head = "| | " + " | ".join(name for name, _ in COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|\n"
    total = sum(counts.values(), Counter[str]())
    lines = [(row, counts[row]) for row in ROWS] + [("**all**", total)]
    return head + "".join(
        f"| {row} | " + " | ".join(str(sum(c[k] for k in keys)) for _, keys in COLUMNS) + " |\n" for row, c in lines
    )
