"""Every exception of ours.

Exception
├── ConfigError             settings are wrong; outside the family, so that no per-item handler hides it
└── DigestError             one sentence: what is wrong and what to do
    ├── UsageError          the caller asked for something that does not exist or does not fit
    │   └── RuleError       a selection rule does not parse; carries the column
    ├── SchemaBehind        the database wants `digest db upgrade`
    ├── DatabaseError       the database cannot be reached, is locked, or full
    ├── SourceError         a source cannot be read at all (a bad article is a value, not an exception)
    ├── RenderError         a template is broken or breaks its budget
    │   └── TemplateBroken  mistakes in a template's source, each with its place
    ├── DeliveryError       no relay can be reached; nothing was lost
    │   └── LeaseLost       another worker took the batch over: stop writing at once
    └── TokenInvalid        a link from a mail was changed or serves another purpose

An expected failure of one item is a value (an Outcome, a Skipped), never an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ConfigError(Exception):
    """Settings are wrong. ``problems`` holds one sentence each; all are found before this is raised."""

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("; ".join(self.problems))


class DigestError(Exception):
    """Base of all that can be told to a person in one sentence."""


class UsageError(DigestError):
    """The caller asked for something that does not exist or does not fit."""


class RuleError(UsageError):
    """A selection rule does not parse, or names what is not there. ``column`` counts from 1."""

    def __init__(self, message: str, *, text: str, column: int) -> None:
        self.text, self.column = text, column
        super().__init__(f"{message} (column {column} of {text!r})")


class SchemaBehind(DigestError):
    """The database schema is older than this program."""


class DatabaseError(DigestError):
    """The database cannot be reached, is locked, or is full."""


class SourceError(DigestError):
    """A source cannot be read. ``code`` is a stable word: unreachable, not_found, gone, too_large, not_a_feed, …

    ``retry_after`` in seconds where the server said so.
    """

    def __init__(self, code: str, message: str, *, retry_after: float | None = None) -> None:
        self.code, self.retry_after = code, retry_after
        super().__init__(message)


class RenderError(DigestError):
    """A template does not compile, or what it renders fails a gate. The edition is held, nothing is sent."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a template. ``line`` and ``column`` count from 1; 0 where only the file is known."""

    file: str
    line: int
    column: int
    what: str

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return f"{place}: {self.what}"


class TemplateBroken(RenderError):
    """A template's source has mistakes. ``problems`` holds all that were found; the sentence tells the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        more = f" (and {len(problems) - 1} more: `digest templates check`)" if len(problems) > 1 else ""
        super().__init__(f"{self.problems[0]}{more}")


class DeliveryError(DigestError):
    """No relay can be reached. What was claimed goes back; nothing is lost."""


class LeaseLost(DeliveryError):
    """Another worker has taken the batch over: abort the sockets, write nothing more."""


class TokenInvalid(DigestError):
    """A token from a link was changed, has aged out, or was made for another purpose."""


def in_a_line(error: BaseException) -> str:
    """What an exception is and says, for a report: at most some 200 characters of one line."""
    said = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
