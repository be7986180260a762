"""Benchmarks run, in a size that proves nothing else; what judges their figures judges right."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from lxml import etree

from benchmarks import __main__ as bench
from benchmarks.shared import page
from benchmarks.shared.export import NEWEST, PACE, write_export
from benchmarks.shared.measuring import Figure, called
from digest.stories import shingles


@pytest.mark.parametrize("name", bench.names())
def test_a_benchmark_runs(name: str) -> None:
    found = list(bench.figures(name, tiny=True))
    assert found
    assert len({figure.name for figure in found}) == len(found)
    for figure in found:
        assert figure.ours > 0
        assert page.cells(figure)[0]
        assert json.loads(json.dumps(figure.to_json()))["turns"] >= 1
    assert bench.load(name).__doc__
    assert any(figure.at_most is not None or figure.at_least is not None for figure in found)


def test_an_unknown_name_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["nope"]) == 2
    said = capsys.readouterr().err
    assert "'nope'" in said
    assert all(name in said for name in bench.names())


def test_a_ratio_is_the_median_of_the_turns_and_held_to_its_bar() -> None:
    turns = [(30.0, 1.0), (10.0, 1.0), (22.0, 2.0)]
    assert Figure("x", turns, "s").ratio == 11
    assert Figure("x", turns, "s").spread == (10, 30)
    assert Figure("x", turns, "s", at_most=11).ok
    assert not Figure("x", turns, "s", at_most=10.9).ok
    assert Figure("x", turns, "s", at_least=11).ok
    assert not Figure("x", turns, "s", at_least=11.1).ok


def test_without_a_peer_the_figure_itself_is_held_to_the_bar() -> None:
    assert Figure("x", [(19.0, None)], "ms", at_most=20).ok
    assert not Figure("x", [(21.0, None)], "ms", at_most=20).ok
    assert Figure("x", [(21.0, None)], "ms", at_most=20).ratio is None
    assert not Figure("x", [(0.5, None)], "ms", at_most=0).ok


def test_a_child_says_what_it_took(tmp_path: Path) -> None:
    path = write_export(tmp_path / "one.xml", 100)
    sample = called("benchmarks.shared.peers:iterparse", path=str(path))
    assert sample.result == 102  # attachments are items too
    assert 0 < sample.cpu < 5
    assert 5 < sample.peak_mb < 100


def test_a_child_that_fails_fails_the_run() -> None:
    with pytest.raises(RuntimeError, match="no attribute"):
        called("benchmarks.shared.export:write_export", path="a.xml", count=1)


def test_an_export_is_the_same_each_time_and_its_texts_are_not(tmp_path: Path) -> None:
    one, two = (write_export(tmp_path / name, 100) for name in ("one.xml", "two.xml"))
    assert one.read_bytes() == two.read_bytes()
    items = [i for i in etree.parse(one).findall("channel/item") if i.findtext("{*}post_type") == "post"]
    dates = [item.findtext("{*}post_date_gmt") for item in items]
    assert len(items) == 100
    assert dates == sorted(dates)
    assert (dates[0], dates[-1]) == (f"{NEWEST - 99 * PACE:%Y-%m-%d %H:%M:%S}", f"{NEWEST:%Y-%m-%d %H:%M:%S}")
    assert timedelta(minutes=18) == PACE
    bodies = [shingles(item.findtext("{*}encoded") or "") for item in items]
    alike = sum(len(a & b) / len(a | b) >= 0.35 for n, a in enumerate(bodies) for b in bodies[:n])
    assert 4 <= alike <= 6  # one in twenty


def test_figures_take_the_place_of_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "performance.md")
    page.PAGE.write_text("# A\n<!-- figures: x -->\nold\n<!-- end -->\n<!-- figures: y -->\nkept\n<!-- end -->\n")
    page.write("x", [Figure("read", [(3.0, 2.0)], "s", at_most=1)])
    text = page.PAGE.read_text()
    assert "| read | 3 s | 2 s | 1.5 | ≤ 1 | **missed** |" in text
    assert "old" not in text
    assert "kept" in text
    with pytest.raises(RuntimeError, match="no place"):
        page.write("z", [])
