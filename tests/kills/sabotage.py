"""What a worker is made to do in its fork: one of the faults that a checker must see, or to die at a named point.

Functions of the product are wrapped, here and in a fork alone: nothing in it knows of this. `BUGS` are seeded bugs, the
ones that senders of mail are known for; `POINTS` are the places between a claim and its last commit at which a process
may die. Each is a function of the life's number and a source of chance.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select, update

from digest import ledger
from digest import models as m
from digest.delivery.smtp.connection import Connection
from digest.ledger import batches, history, hotpath
from digest.sending import LedgerStore, printer, window
from digest.types import TERMINAL, Outcome, Result

Sabotage = Callable[[int, random.Random], None]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _after(owner: Any, name: str, then: Callable[..., None]) -> None:
    """Call *then* with what the function returned and what it was given."""
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        then(result, *args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def _before(owner: Any, name: str, first: Callable[..., None]) -> None:
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        first(*args, **kwargs)
        return real(*args, **kwargs)

    setattr(owner, name, wrapped)


# ----------------------------------------------------------------------------- bugs


def checkpoint_at_fetch(life: int, chance: random.Random) -> None:
    """A batch counts as sent when it is fetched."""

    def then(claimed: batches.Claimed | None, session: Any, **_: Any) -> None:
        if claimed:
            session.execute(update(m.Batch).where(m.Batch.id == claimed.batch_id).values(todo=b""))

    _after(ledger.batches, "claim", then)


def error_is_success(life: int, chance: random.Random) -> None:
    """Whatever the relay says, the mail was sent."""
    real = LedgerStore.group

    def group(self: LedgerStore, moves: Any, answers: Sequence[batches.Answer], granting: Any) -> Any:
        fine = Outcome(Result.ACCEPTED, 250)
        sent = (Result.DEFERRED, Result.REJECTED, Result.UNCERTAIN)
        return real(
            self, moves, [replace(a, outcome=fine) if a.outcome.result in sent else a for a in answers], granting
        )

    LedgerStore.group = group  # type: ignore[method-assign]


def random_message_id(life: int, chance: random.Random) -> None:
    """Each process invents its own."""
    real, key = printer.message_id, os.urandom(32)
    printer.message_id = lambda _, *rest: real(key, *rest)


def no_lease(life: int, chance: random.Random) -> None:
    """Batches are read, never leased, and nobody is fenced."""
    read, real = ledger.batches.claim, ledger.batches.note
    mine: set[int] = set()

    def unlease(claimed: batches.Claimed | None, bound: Any) -> None:
        if claimed:
            bound.execute(update(m.Batch).where(m.Batch.id == claimed.batch_id).values(leased_until=None))

    def claim(session: Any, *, exclude: Any = (), **rest: Any) -> Any:
        claimed = read(session, exclude={*exclude, *mine}, **rest)
        mine.update([claimed.batch_id] if claimed else [])
        unlease(claimed, session)
        return claimed

    def note(connection: Any, *, worker: str, moves: Any, answers: Any, **rest: Any) -> Any:
        for move in moves:
            taken = {"worker": worker, "attempt": move.batch.fence, "done": False}
            connection.execute(update(m.Batch).where(m.Batch.id == move.batch.batch_id).values(taken))
        recorded = select(m.Attempt.subscriber_id).where(m.Attempt.outcome.in_(TERMINAL))
        ended = set(connection.execute(recorded).scalars())
        first = [a for a in answers if a.recipient.subscriber_id not in ended]
        unseen = [replace(move, wire_to=0) for move in moves]
        refused = real(connection, worker=worker, moves=unseen, answers=first, **rest)
        unlease(moves[0].batch if moves else None, connection)
        return refused

    ledger.batches.claim, ledger.batches.note = claim, note


def window_not_kept(life: int, chance: random.Random) -> None:
    """Everything in hand is granted at once."""
    window.window_for = lambda connections: 1_000


BUGS: dict[str, Sabotage] = {
    bug.__name__: bug for bug in (checkpoint_at_fetch, error_is_success, random_message_id, no_lease, window_not_kept)
}

# ----------------------------------------------------------------------------- points


def _nth(chance: random.Random, most: int) -> Callable[[], bool]:
    """True at one call, drawn by lot."""
    left = chance.randint(1, most)

    def now() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    return now


def before_claim_commit(life: int, chance: random.Random) -> None:
    _after(ledger.batches, "claim", lambda claimed, *_, **__: die() if claimed else None)


def after_claim(life: int, chance: random.Random) -> None:
    _after(LedgerStore, "_claim", lambda claimed, *_: die() if claimed else None)


def after_mail(life: int, chance: random.Random) -> None:
    _before(Connection, "_on_mail", lambda *_: die())


def after_rcpt(life: int, chance: random.Random) -> None:
    _before(Connection, "_on_rcpt", lambda *_: die())


def _written(connection: Connection, share: float) -> None:
    """So much of the message, past the event loop, into the kernel's hands."""
    message = b"".join([*connection._parts, b".\r\n"])
    assert connection._transport
    number = connection._transport.get_extra_info("socket").fileno()
    os.set_blocking(number, True)
    message = message[: int(len(message) * share)]
    while message:
        message = message[os.write(number, message) :]


def mid_data(life: int, chance: random.Random) -> None:
    def half(connection: Connection) -> None:
        _written(connection, 0.5)
        die()

    _before(Connection, "_write_body", half)


def after_dot(life: int, chance: random.Random) -> None:
    now = _nth(chance, 10)

    def all_of_it(connection: Connection) -> None:
        if now():
            _written(connection, 1.0)
            die()

    _before(Connection, "_write_body", all_of_it)


def before_commit(life: int, chance: random.Random) -> None:
    """The reply was read: half of the lives die at once, half of them where it is recorded. On PostgreSQL that is one
    statement, which commits itself: they die before it."""
    now = _nth(chance, 10)
    if life % 2:
        _before(Connection, "_on_dot", lambda *_: die() if now() else None)
    else:
        _after(hotpath, "_on_sqlite", lambda _, __, commit: die() if commit.rows and now() else None)
        _before(hotpath, "_on_postgresql", lambda _, commit: die() if commit.rows and now() else None)


def after_commit(life: int, chance: random.Random) -> None:
    now = _nth(chance, 10)
    _after(LedgerStore, "group", lambda _, __, moves, answers, ___: die() if answers and now() else None)


def while_released(life: int, chance: random.Random) -> None:
    """Recipients are frozen in one transaction: batches first, variants last."""
    where = chance.choice(("_write_batches", "_write_variants"))
    _after(history.Releaser, where, lambda *_: die())


POINTS: dict[str, Sabotage] = {
    point.__name__: point
    for point in (
        before_claim_commit, after_claim, after_mail, after_rcpt, mid_data, after_dot, before_commit, after_commit,
        while_released,
    )
}  # fmt: skip
#: Where a mail is the server's and not yet in our books: what dies here may arrive twice.
MAY_REPEAT = ("after_dot", "before_commit")
