"""Articles cleaned in a process beside this one: the same results in the same order, and nothing lost to a death."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digest.text import apart
from digest.text.apart import clean_or_skip, cleaned, main
from digest.types import CleanArticle, RawArticle, Skipped, TopicKind, TopicRef

ROOT = Path(__file__).parents[1]


def _raw(number: int, body: str = "<p>Rain fell on the <b>hills</b>.</p>") -> RawArticle:
    topic = TopicRef(TopicKind.TAG, "rain", "Rain")
    return RawArticle(
        url=f"https://news.example/{number}",
        title=f"Rain, part {number}",
        body_html=body,
        topics=(topic,),
        authors=("A",),
    )


def _mixed(count: int) -> list[RawArticle | Skipped]:
    return [Skipped("status_draft", str(n)) if n % 7 == 3 else _raw(n) for n in range(count)]


@pytest.mark.parametrize("alone", [0, 1, 60, 300])
def test_the_child_gives_what_we_would_have_in_order(alone: int) -> None:
    items = _mixed(260)
    results = list(cleaned(iter(items), alone=alone))
    assert [item for item, _ in results] == items
    assert [result for _, result in results] == [i if isinstance(i, Skipped) else clean_or_skip(i) for i in items]
    assert isinstance(results[0][1], CleanArticle)
    assert results[-1][0] is items[-1], "an article comes back as it was given, topics and all"


def test_few_articles_start_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert len(list(cleaned(_mixed(apart.ALONE)))) == apart.ALONE
    with pytest.raises(TypeError):
        list(cleaned(_mixed(apart.ALONE + 1)))


def test_what_came_before_an_error_is_not_lost() -> None:
    def broken() -> Iterator[RawArticle]:
        yield from map(_raw, range(90))
        raise ValueError("the rest cannot be read")

    seen = []
    with pytest.raises(ValueError, match="the rest"):
        seen.extend(result for result in _noted(cleaned(broken(), alone=0), seen))
    assert [item.url for item, _ in seen] == [f"https://news.example/{n}" for n in range(90)]


def _noted(results: Iterator[apart.Result], seen: list[apart.Result]) -> Iterator[apart.Result]:
    for result in results:
        seen.append(result)
    yield from ()


def test_an_article_that_kills_the_child_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fault in a parser written in C would do: the process is gone without a word."""
    deadly = "import sys, os\nfrom digest.text import apart\nreal = apart.clean\n"
    deadly += "apart.clean = lambda raw: os.kill(os.getpid(), 9) if 'poison' in raw.title else real(raw)\n"
    deadly += "apart.main(sys.stdin.buffer, sys.stdout.buffer)"
    started, popen = [], subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(popen([command[0], "-c", deadly], **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    items = [_raw(n) for n in range(230)]
    items[117] = RawArticle(url="https://news.example/117", title="poison")
    results = [result for _, result in cleaned(iter(items), alone=0)]
    assert results[117] == Skipped("unreadable", "https://news.example/117", "it broke the process that cleaned it")
    assert all(isinstance(result, CleanArticle) for n, result in enumerate(results) if n != 117)
    assert len(results) == 230
    assert all(child.poll() is not None for child in started), "no child outlives its work"


def test_an_abandoned_run_leaves_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **o: started.append(popen(*a, **o)) or started[-1])
    results = cleaned(map(_raw, range(10_000)), alone=0)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert [child.poll() is not None for child in started] == [True]


def test_the_child_ends_with_its_parent() -> None:
    """Killed without a chance to say goodbye: the child sees the end of its input."""
    code = (
        "import subprocess, sys, time\nfrom digest.text import apart\nfrom digest.types import RawArticle\n"
        "results = apart.cleaned((RawArticle(url=f'http://n.test/{n}', title='x') for n in range(10**6)), alone=0)\n"
        "popen = subprocess.Popen\n"
        "def start(*a, **o):\n    p = popen(*a, **o)\n    print(p.pid, flush=True)\n    return p\n"
        "subprocess.Popen = start\nnext(results)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert _ends(child)


def _ends(process: int) -> bool:
    for _ in range(600):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True  # dead; nobody has asked after it yet
        time.sleep(0.05)
    return False


def test_a_hole_in_the_pipeline_costs_its_article(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: RawArticle) -> CleanArticle:
        raise RecursionError("too deep\nfor us")

    monkeypatch.setattr(apart, "clean", broken)
    given, answers = io.BytesIO(pickle.dumps([_raw(1), Skipped("status_draft")])), io.BytesIO()
    main(given, answers)
    expected = [Skipped("unreadable", detail="RecursionError: too deep for us"), Skipped("status_draft")]
    assert pickle.loads(answers.getvalue()) == expected
