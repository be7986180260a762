"""`digest templates`: a layout of one's own from the copy to the mail, and every mistake with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

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
