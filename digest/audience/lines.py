"""Files of people line by line: opened whatever they were saved as, read under whatever their columns are called.

What a line means is the importer's. Memory does not grow with the file.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

from digest.errors import UsageError


@dataclass(frozen=True, slots=True)
class Invalid:
    """A line that cannot be used, and why."""

    line: int
    value: str
    reason: str


def opened(stack: ExitStack, file: Path | IO[str]) -> tuple[IO[str], str]:
    """The file as text, and its name. UsageError: it cannot be read."""
    if not isinstance(file, Path):
        return file, Path(getattr(file, "name", "") or "stdin").name
    try:
        with file.open("rb") as raw:
            wide = raw.read(2) in (b"\xff\xfe", b"\xfe\xff")  # spreadsheets save "Unicode text" so
        encoding = "utf-16" if wide else "utf-8-sig"
        return stack.enter_context(file.open(encoding=encoding, errors="replace", newline="")), file.name
    except OSError as e:
        raise UsageError(f"{file} cannot be read: {e.strerror}") from None


def error_sink(stack: ExitStack, path: Path | None) -> Callable[[Invalid], None]:
    """Where to tell of lines that cannot be used: a CSV at *path*, or nowhere."""
    if path is None:
        return lambda _: None
    try:
        writer = csv.writer(stack.enter_context(path.open("w", encoding="utf-8", newline="")))
    except OSError as e:
        raise UsageError(f"{path} cannot be written: {e.strerror}") from None
    path.chmod(0o644)
    writer.writerow(("line", "value", "reason"))
    return lambda bad: writer.writerow((bad.line, as_text_cell(bad.value), bad.reason))


def as_text_cell(value: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def named_cells(
    stream: IO[str], headings: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Mapping[str, str] | Invalid, int]]:
    """(cells by field, line number). *headings*: field → what its column may be called; one of the fields is ``email``.

    A first line that holds an address is no header: the column it stands in is the address's.
    """
    first = next(stream, "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(chain([first], stream), delimiter=delimiter)
    columns: dict[str, int] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            yield Invalid(reader.line_num, "", f"the line cannot be read: {e}"), reader.line_num
            continue
        if not any(cells):
            continue
        if columns is None:
            columns, is_header = _columns(cells, headings)
            if is_header:
                continue
        yield _named(cells, columns), reader.line_num


def _columns(cells: Sequence[str], headings: Mapping[str, Sequence[str]]) -> tuple[dict[str, int], bool]:
    """Which column holds what, from the first line, and whether that line only says so."""
    names = [" ".join(cell.replace("_", " ").split()).casefold() for cell in cells]
    found = {
        field: next(names.index(a) for a in aliases if a in names)
        for field, aliases in headings.items()
        if any(a in names for a in aliases)
    }
    if "email" in found:
        return found, True
    holds = [i for i, cell in enumerate(cells) if "@" in cell]
    if not holds:
        raise UsageError("the first line names no column called email or address, and holds no address itself")
    return {"email": holds[0]}, False


def _named(cells: Sequence[str], columns: Mapping[str, int]) -> Mapping[str, str]:
    found = {field: cells[at].strip() for field, at in columns.items() if at < len(cells)}
    text = found.get("email", "")
    if text[:1] == "'" and text[1:2] in ("=", "+", "-", "@"):
        found["email"] = text[1:]  # quoted against spreadsheets, by us or by another
    return found
