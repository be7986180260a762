"""How mails look: `templates list|new|check|render`. Needs the template folders alone, no database."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from digest.cli.common import FOLDER, Column, Door, Exit, Output, choice, json_option, make_folder, pass_door, say
from digest.errors import ConfigError, Problem, UsageError

if TYPE_CHECKING:
    from digest.rendering import Renderer


@click.group()
def templates() -> None:
    """How mails look: layouts, yours and the shipped ones."""


def _renderer(folder: Path | None) -> Renderer:
    """Without what was kept: templates are looked at as they stand."""
    from digest.rendering import Renderer

    return Renderer([folder] if folder else [])


@templates.command("list")
@json_option
@pass_door
def templates_list(door: Door, out: Output) -> None:
    """List the layouts, and which of their files are yours."""
    own = door.settings().templates_dir
    renderer = _renderer(own)
    rows = [
        {
            "layout": name,
            **renderer.describe(name),
            "yours": [f for f, p in renderer.files(name).items() if _in(p, own)],
        }
        for name in renderer.layouts()
    ]
    out.rows(rows, Column("layout", "layout", whole=True), "name", "description", "yours")


def _in(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.is_relative_to(folder)


@templates.command("new")
@click.argument("name")
@click.option("--from", "source", default="cards", metavar="LAYOUT", help="The layout to start from. Default: cards.")
@json_option
@pass_door
def templates_new(door: Door, name: str, source: str, out: Output) -> None:
    """Copy a layout into your folder, to be changed there. With its own name it is changed everywhere it is used."""
    own = door.settings().templates_dir
    if own is None:
        raise ConfigError("there is no folder of your own for templates; set templates_dir, then again")
    renderer = _renderer(own)
    renderer.check_name(name)
    if source not in renderer.layouts():
        raise UsageError(f"there is no layout {source!r}; there are: {', '.join(renderer.layouts())}")
    folder = own / "email" / name
    if folder.exists():
        raise UsageError(f"{folder} is there already; change it there, or take another name")
    make_folder(folder)
    files = [shutil.copyfile(path, folder / file) for file, path in renderer.files(source).items()]
    for file in files:
        file.chmod(0o644)
    if out.as_json:
        out.line({"layout": name, "from": source, "files": files})
    else:
        out.text(f"{folder}: a copy of {source}. Change it, then: digest templates check {name}")


@templates.command("check")
@click.argument("what", required=False, metavar="[NAME|DIR]")
@json_option
@pass_door
def templates_check(door: Door, what: str | None, out: Output) -> int:
    """Read templates strictly, compile them and hold mails made with them to the gates; 1 where one has a mistake.

    Of a layout, of a folder like templates_dir, or of all there are.
    """
    renderer, names = _chosen(door, what)
    rows = []
    for name in names:
        problems = [_row(renderer, problem) for problem in renderer.check(name)]
        rows.append({"layout": name, "ok": not problems, "problems": problems})
    others = [_row(renderer, problem) for problem in renderer.check_rest()]
    if others:
        rows.append({"layout": None, "ok": False, "problems": others})
    _report(rows, out)
    return Exit.OK if all(row["ok"] for row in rows) else Exit.FAILURE


def _report(rows: list[dict[str, Any]], out: Output) -> None:
    for row in rows:
        if out.as_json:
            out.line(row)
        elif row["ok"]:
            out.text(f"{row['layout']}: sound")
        else:
            for problem in row["problems"]:
                say(str(Problem(problem["file"], problem["line"] or 0, problem["column"] or 0, problem["problem"])))


def _chosen(door: Door, what: str | None) -> tuple[Renderer, list[str]]:
    """Which folder is asked first, and which layouts are meant."""
    own = door.settings().templates_dir
    if what is None:
        renderer = _renderer(own)
        return renderer, renderer.layouts()
    if not ("/" in what or Path(what).is_dir()):
        renderer = _renderer(own)
        renderer.check_name(what)
        if what not in renderer.layouts():
            raise UsageError(f"there is no layout {what!r}; there are: {', '.join(renderer.layouts())}")
        return renderer, [what]
    folder = Path(what).absolute()
    if (folder / "edition.mjml").is_file() and folder.parent.name == "email":
        return _renderer(folder.parent.parent), [folder.name]
    names = sorted(path.parent.name for path in folder.glob("email/*/edition.*"))
    if not names:
        raise UsageError(f"{folder} holds no layouts; they stand in {folder}/email/NAME/edition.mjml")
    return _renderer(folder), sorted(set(names))


def _row(renderer: Renderer, problem: Problem) -> dict[str, Any]:
    return {
        "file": renderer.where(problem.file), "line": problem.line or None, "column": problem.column or None,
        "problem": problem.what,
    }  # fmt: skip


@templates.command("render")
@click.argument("name")
@click.option("--out", "folder", type=FOLDER, metavar="DIR", help="Where the files go. Default: a folder of its name.")
@click.option("--language", type=choice("en", "de", "ar"), default="en", help="Language of the mail. Default: en.")
@json_option
@pass_door
def templates_render(door: Door, name: str, folder: Path | None, language: str, out: Output) -> None:
    """Show a layout on sample articles: edition.html and edition.txt."""
    from digest.rendering.trial import SAMPLE_SECTIONS, SAMPLE_VIEW
    from digest.types import Dress

    renderer = _renderer(door.settings().templates_dir)
    mail = renderer.layout(name).open(SAMPLE_VIEW, Dress(language)).assemble(SAMPLE_SECTIONS, more=3)
    folder = folder or Path(name)
    make_folder(folder)
    for file, text in (("edition.html", mail.html), ("edition.txt", mail.text)):
        (folder / file).write_text(text, "utf-8")
        (folder / file).chmod(0o644)
    out.record(
        {"layout": name, "out": str(folder), "subject": mail.subject, "html_bytes": mail.html_size,
         "text_bytes": len(mail.text.encode())},
        html_bytes="bytes of HTML", text_bytes="bytes of text",
    )  # fmt: skip


COMMANDS = (templates,)
