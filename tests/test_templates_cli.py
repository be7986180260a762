"""`digest templates`: a layout of one's own from the copy to the mail, and every mistake with its place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import digest
from digest.cli import cli


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("DIGEST_TEMPLATES_DIR", str(folder))
    monkeypatch.setenv("DIGEST_DATA_DIR", str(tmp_path / "var"))
    monkeypatch.chdir(tmp_path)
    return folder


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["templates", *words])


def rows(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_from_a_copy_to_a_mail(own: Path) -> None:
    made = run("new", "mine", "--from", "headlines", "--json")
    assert made.exit_code == 0, made.stderr
    files = {Path(f).name: Path(f) for f in rows(made)[0]["files"]}  # type: ignore[attr-defined]
    assert set(files) == {"edition.mjml", "edition.txt", "layout.toml"}
    assert {f.stat().st_mode & 0o777 for f in files.values()} == {0o644}
    assert run("check", "mine").stdout == "mine: sound\n"
    listed = {row["layout"]: row["yours"] for row in rows(run("list", "--json"))}
    assert listed["mine"] == ["edition.mjml", "edition.txt", "layout.toml"]
    assert listed["cards"] == []
    shown = run("render", "mine", "--out", "look", "--language", "ar", "--json")
    assert shown.exit_code == 0, shown.stderr
    assert 'dir="rtl"' in Path("look/edition.html").read_text()
    assert "A title with" in Path("look/edition.txt").read_text()
    assert set(rows(shown)[0]) == {"layout", "out", "subject", "html_bytes", "text_bytes"}
    again = run("new", "mine")
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    assert not Path("var").exists()


def test_every_mistake_is_a_line_with_its_place(own: Path) -> None:
    run("new", "mine")
    file = own / "email" / "mine" / "edition.mjml"
    text = file.read_text()
    file.write_text(text.replace("<mj-column>", '<mj-column widht="50%">').replace("<mj-section>", "<mj-sektion>", 1))
    told = run("check", "mine")
    assert told.exit_code == 1
    assert "Traceback" not in told.stderr
    for number, line in enumerate(file.read_text().split("\n"), 1):
        for mistake in ("<mj-sektion>", "widht"):
            if mistake in line:
                assert f"{file}:{number}:{line.index(mistake) + 1}: " in told.stderr
    [row] = rows(run("check", "mine", "--json"))
    assert row["ok"] is False
    assert {problem["file"] for problem in row["problems"]} == {str(file)}  # type: ignore[attr-defined]
    for place in (own, file.parent):
        assert run("check", str(place)).exit_code == 1


CARD = "{% if story.kicker %}"
#: What must cost a process nothing but a sentence: what is put before what, and the sentence.
VICIOUS = {
    "loops": (CARD, "{% for a in range(999) %}" * 3 + "{% endfor %}" * 3, ": it takes more than 50000 steps"),
    "grows": (
        CARD, "{% set n = namespace(a='x') %}{% for i in range(99) %}{% set n.a = n.a + n.a %}{% endfor %}",
        ": a value in it grows too large",
    ),
    "steals": (CARD, '{% include "../../etc/passwd" %}', ': "../../etc/passwd" cannot be included; only "shared/'),
    "steals-too": (CARD, '<mj-include path="/etc/passwd" />', ": <mj-include> is not supported"),
    "fetches": (".plain {", "@import url(file:///etc/passwd); ", ": a style sheet loads something from elsewhere"),
    "nests": (CARD, "<b>" * 9_000, ": tags are nested too deeply here: more than 120 are open"),
    "nests-css": (".plain {", "a { width: " + "calc(" * 9_000 + "} ", ": more than 20 brackets stand in each other"),
    "is-no-text": (CARD, "\x00\x1b", ": a control character (U+0000) has no place in a template"),
}  # fmt: skip


def test_what_would_never_end_or_break_the_compiler_is_refused_with_its_place(own: Path) -> None:
    """In a process of its own, as it would be: it ends by itself, soon, with a line for each."""
    wanted = []
    for name, (place, put, says) in VICIOUS.items():
        run("new", name)
        file = own / "email" / name / "edition.mjml"
        lines = file.read_text().split("\n")
        at = next(number for number, line in enumerate(lines) if place in line)
        lines[at] = lines[at].replace(place, put + place)
        file.write_text("\n".join(lines))
        wanted.append((f"{file}:{at + 1}:", says))
    command = [sys.executable, "-m", "digest", "templates", "check", str(own)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=Path(digest.__file__).parents[1]
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "root:" not in done.stderr + done.stdout
    for where, says in wanted:
        assert any(line.startswith(where) and says in line for line in done.stderr.split("\n")), (where, says)


def test_a_layout_that_compiles_is_judged_by_the_gates(own: Path) -> None:
    run("new", "pale")
    file = own / "email" / "pale" / "edition.mjml"
    file.write_text(file.read_text().replace(".title {", ".title { color: #cccccc;"))
    told = run("check", "pale")
    assert told.exit_code == 1
    assert f"{file}: " in told.stderr
    assert "is #cccccc on #ffffff, 1.6 to 1 in light mode, 4.5 at least; change the layout's colours" in told.stderr


def test_catalogues_and_system_mails_are_checked_too(own: Path) -> None:
    run("new", "mine")
    (own / "system").mkdir()
    (own / "system" / "confirm.txt").write_text("Hello\n{{ confirm_ulr }}\n")
    told = run("check", str(own))
    assert told.exit_code == 1
    assert f"{own}/system/confirm.txt:2: 'confirm_ulr' is undefined" in told.stderr


def test_what_is_not_there_or_does_not_fit(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, code, says in (
        (("check", "nope"), 2, "there is no layout 'nope'; there are: "),
        (("check", "/nowhere/at/all"), 2, "holds no layouts"),
        (("new", "../evil"), 1, "is not a layout's name"),
        (("new", "mine", "--from", "nope"), 2, "there is no layout 'nope'"),
        (("render", "nope"), 1, "there is no layout 'nope'"),
    ):
        result = run(*words)
        assert (result.exit_code, says in result.stderr) == (code, True), (words, result.stderr)
    assert list(own.iterdir()) == []
    monkeypatch.delenv("DIGEST_TEMPLATES_DIR")
    result = run("new", "mine")
    assert result.exit_code == 4
    assert "set templates_dir" in result.stderr
