"""What every command shares: settings and the running publisher, instants, output for people and for programs, errors.

Data goes to stdout (a table, or with --json one JSON object a line), messages to stderr, questions to a terminal only.
Imports nothing heavy at its top: a help page must not cost more than printing it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import IntEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import rich_click as click
from click.exceptions import Abort, ClickException

from digest.errors import ConfigError, DigestError, SchemaBehind, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from digest.bootstrap import App
    from digest.config import Settings


class Exit(IntEnum):
    """What a command tells the shell."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    EMPTY = 3  # with --fail-empty
    CONFIGURATION = 4
    SCHEMA_BEHIND = 5
    IN_PART = 6  # something is still queued
    TRY_AGAIN = 75  # to a mail server that hands over a bounce: sysexits' EX_TEMPFAIL
    INTERRUPTED = 130


# ----------------------------------------------------------------------------- settings and the publisher


class Door:
    """What the options before the command say; opens the publisher for the command."""

    def __init__(self, config: Path | None) -> None:
        self.config = config

    def settings(self, overrides: Mapping[str, object] | None = None) -> Settings:
        from digest.config import Settings

        return Settings.load(self.config, os.environ, overrides)

    @contextmanager
    def app(self) -> Iterator[App]:
        """The publisher; SchemaBehind where the database wants an upgrade."""
        from digest.bootstrap import build

        app = build(self.settings())
        try:
            yield app
        finally:
            app.close()


pass_door = click.make_pass_decorator(Door)


def now() -> datetime:
    """The real clock, read at the door and passed down."""
    return datetime.now(UTC)


# ----------------------------------------------------------------------------- parameters

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+-]\d\d:\d\d)?")


class Instant(click.ParamType):
    """An instant as RFC 3339 writes it. One without an offset could mean any of 38 instants: refused."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if not _RFC3339.fullmatch(value):
                raise ValueError
            when = datetime.fromisoformat(value.upper())
        except ValueError:
            self.fail(f"{value!r} is no instant; write it as 2025-07-14T07:00:00Z", param, ctx)
        if when.tzinfo is None:
            self.fail(f"{value!r} says no offset from UTC; add one, as in {value}Z or {value}+02:00", param, ctx)
        return when.astimezone(UTC)


INSTANT = Instant()
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

at_option = click.option("--at", type=INSTANT, metavar="T", help="Act as if it were T (RFC 3339). Default: now.")
limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N rows.")
fail_empty_option = click.option("--fail-empty", is_flag=True, help="Exit with 3 when there is nothing.")


def choice(*values: str) -> click.Choice[str]:
    return click.Choice(values)


# ----------------------------------------------------------------------------- output


def instant(when: datetime | None) -> str | None:
    """RFC 3339 with Z."""
    if when is None:
        return None
    text = when.astimezone(UTC).isoformat(timespec="milliseconds" if when.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def zulu(text: str | None) -> str | None:
    """An instant that was stored as text, with Z."""
    return instant(datetime.fromisoformat(text)) if text else None


def plain(value: Any) -> Any:
    """*value* as JSON knows it."""
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(v) for v in value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: what heads it, which key it shows (or how it is made of the row), how it may give way."""

    head: str
    of: str | Callable[[Mapping[str, Any]], Any]
    right: bool = False
    whole: bool = False  # never broken into lines

    def cell(self, row: Mapping[str, Any]) -> str:
        value = row[self.of] if isinstance(self.of, str) else self.of(row)
        return shown(value)


def _score(row: Mapping[str, Any]) -> str:
    """The sum, then what it is made of; parts of nothing are not worth a word."""
    parts = dict(row["score"] or {})
    if not parts:
        return ""
    total = parts.pop("total")
    made_of = ", ".join(f"{name} {part:.2f}" for name, part in parts.items() if part)
    return f"{total:.2f} ({made_of})" if made_of else f"{total:.2f}"


score_column = Column("score", _score)
why_column = Column("why", lambda row: f"{row['reason']}: {row['detail']}" if row["detail"] else row["reason"])


def shown(value: Any) -> str:
    """A value for people: one line, no control characters, an empty cell for nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%MZ}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {shown(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ", ".join(shown(v) for v in value)
    return "".join(c if c.isprintable() else " " for c in str(value))


class Output:
    """Prints data: with ``--json`` one object a line, else for people."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def line(self, row: Mapping[str, Any], stream: IO[str] | None = None) -> None:
        """One JSON object."""
        stream = stream or sys.stdout
        utf8 = (getattr(stream, "encoding", "") or "").lower().replace("-", "") == "utf8"
        click.echo(json.dumps(plain(row), ensure_ascii=not utf8), file=stream)

    def rows(self, rows: Iterable[Mapping[str, Any]], *columns: Column | str, empty: str = "") -> int:
        """Print *rows*; how many there were. ``empty``: what to say where there is none."""
        if self.as_json:
            count = 0
            for count, row in enumerate(rows, 1):  # noqa: B007 — the number of the last one
                self.line(row)
            return count
        listed = list(rows)
        if listed:
            _print_table(listed, [Column(c, c.replace(" ", "_")) if isinstance(c, str) else c for c in columns])
        elif empty:
            say(empty)
        return len(listed)

    def record(self, row: Mapping[str, Any], **names: str) -> None:
        """One thing with all its values; *names*: what people call a key."""
        if self.as_json:
            self.line(row)
        else:
            _print_record({names.get(key, key.replace("_", " ")): shown(value) or "–" for key, value in row.items()})

    def text(self, text: str) -> None:
        """Words for people alone."""
        if not self.as_json:
            click.echo(text)


def _print(table: Table) -> None:
    """A table as wide as it wants to be, unless somebody looks at it on a terminal; no blanks at the ends of lines."""
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
    with console.capture() as caught:
        console.print(table, crop=False)
    click.echo("\n".join(line.rstrip() for line in caught.get().splitlines()))


def _print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for column in columns:
        justify: Any = "right" if column.right else "left"
        table.add_column(column.head, justify=justify, no_wrap=column.right or column.whole, overflow="fold")
    for row in rows:
        table.add_row(*(Text(column.cell(row)) for column in columns))
    _print(table)


def _print_record(values: Mapping[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(name, Text(value))
    _print(table)


json_option = click.option(
    "--json", "out", is_flag=True, callback=lambda _ctx, _param, value: Output(value),
    help="Print JSON, one object a line.",
)  # fmt: skip


def say(sentence: str) -> None:
    """A message: to stderr, so that data stays data."""
    click.echo(sentence, err=True)


def export_rows(
    rows: Iterable[Mapping[str, Any]], file: Path | None, out: Output, as_csv: Callable[[Any, IO[str]], int]
) -> None:
    """Rows to *file*, else to stdout: as CSV (which *as_csv* writes and counts) or, with --json, as NDJSON."""
    if file is None:
        _write(rows, sys.stdout, out, as_csv)
        return
    with _whole_file(file) as stream:
        count = _write(rows, stream, out, as_csv)
    say(f"wrote {count:,} rows to {file}")


def _write(rows: Iterable[Mapping[str, Any]], stream: IO[str], out: Output, as_csv: Callable[..., int]) -> int:
    if not out.as_json:
        return as_csv(rows, stream)
    count = 0
    for row in rows:
        out.line(row, stream)
        count += 1
    return count


@contextmanager
def _whole_file(file: Path) -> Iterator[IO[str]]:
    """A text file to write that is there whole, for all to read (0644), or not at all."""
    temporary = file.with_name(f".{file.name}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        temporary.chmod(0o644)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def empty_or_ok(count: int, fail_empty: bool) -> int:
    return Exit.EMPTY if fail_empty and not count else Exit.OK


def asks() -> bool:
    """Is there somebody to ask?"""
    return sys.stdin.isatty() and sys.stderr.isatty()


def make_folder(folder: Path) -> None:
    """Make what is missing of *folder*, readable for a web server whatever the umask."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


@contextmanager
def progress(what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """A progress bar on a terminal, nothing elsewhere; yields what is told how much is done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    with _bar() as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


# ----------------------------------------------------------------------------- errors


def code_of(error: BaseException) -> int:
    """What an exception tells the shell."""
    match error:
        case ConfigError():
            return Exit.CONFIGURATION
        case SchemaBehind():
            return Exit.SCHEMA_BEHIND
        case UsageError():
            return Exit.USAGE
        case ClickException():
            return error.exit_code
        case Abort() | KeyboardInterrupt():
            return Exit.INTERRUPTED
        case _:
            return Exit.FAILURE


def sentences(error: BaseException) -> list[str]:
    """What an exception tells a person; settings may have several problems, all found at once."""
    match error:
        case ConfigError():
            return error.problems
        case DigestError():
            return [" ".join(str(error).split())]
        case ClickException():
            return [" ".join(error.format_message().split())]
        case Abort() | KeyboardInterrupt():
            return ["interrupted"]
        case OSError() if error.filename is not None:
            return [f"{error.filename}: {error.strerror}"]
        case _:
            said = str(error).strip().splitlines() or [""]
            name = type(error).__name__
            return [f"unexpected: {name}: {said[0]} (run with DIGEST_DEBUG=1 to see where)"]


def tell(error: BaseException) -> None:
    for sentence in sentences(error):
        click.echo(click.style("digest:", fg="red", bold=True) + f" {sentence}", err=True)


def stop(error: BaseException) -> NoReturn:
    """End the command: one sentence, its exit code, no traceback (but for DIGEST_DEBUG)."""
    expected = isinstance(error, DigestError | ConfigError | ClickException | Abort | KeyboardInterrupt)
    if os.environ.get("DIGEST_DEBUG") and not expected:
        import traceback

        traceback.print_exception(error)
    tell(error)
    sys.exit(code_of(error))


class _OneLine(logging.Formatter):
    """What rooms below log beside their reports: the sentence; the traceback only for those who debug."""

    def format(self, record: logging.LogRecord) -> str:
        if os.environ.get("DIGEST_DEBUG"):
            return super().format(record)
        return record.getMessage()


class Family(click.RichGroup):
    """The command itself: whatever goes wrong below ends in one sentence and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(_OneLine())
        try:
            code = super().main(*args, **extra)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of our output had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(Exit.FAILURE)
        except (Exception, KeyboardInterrupt) as error:
            stop(error)
        sys.exit(code if isinstance(code, int) else Exit.OK)


def gates_told(gates: Iterable[Mapping[str, Any]]) -> str:
    """Which checks of a mail held, and why one did not."""
    return ", ".join(f"{g['gate']} {'ok' if g['ok'] else 'FAILED: ' + g['detail']}" for g in gates)
