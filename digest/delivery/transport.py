"""The seam between the sender and whatever carries its mail: envelopes out, answers back.

    sender (Grants)                       transport
      next()      ◄── may I have one? ──  a connection has room
      returned()  ◄── never went out ───  its envelope was announced, its body was not written
      answered()  ◄── final ────────────  accepted, deferred, rejected or uncertain
      idle()      ◄── nothing to do ────  until somebody calls kick()

Every envelope that `next` hands out comes back exactly once, by `answered` or by `returned`, unless the transport is
aborted: then nothing comes back and what was out is unknown. All calls are made on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from digest.types import Outcome, Result


@dataclass(slots=True, eq=False)
class Envelope:
    """One message to one address. ``key`` is the sender's own.

    ``build`` is called once its turn has come, on the event loop's thread: the whole message with CRLF line ends, the
    last line ended, and no line that begins with a dot. The transport looks for none (a look at every octet costs more
    than sending it): prepared messages have none by construction (`digest.mime`). ``mail_from`` may be empty.
    """

    mail_from: bytes
    rcpt: bytes
    build: Callable[[], list[bytes]]
    key: Any = None


_PATH = re.compile(rb"[!-;=?-~]+")  # printable, no blank, no angle bracket


def built(envelope: Envelope, *, limit: int = 0) -> list[bytes] | Outcome:
    """The message in parts, or why this one cannot be sent. ``limit``: what the relay takes, in octets; 0 = not said.

    For every transport, before it announces an envelope: what is wrong with one message costs nobody else.
    """
    if not _PATH.fullmatch(envelope.rcpt) or not _PATH.fullmatch(envelope.mail_from or b"-"):
        return Outcome(Result.REJECTED, text="the address cannot be written in a command")
    try:
        parts = envelope.build()
    except Exception:  # whatever it was, it is this message's alone; the sender, whose function it is, logs it
        return Outcome(Result.DEFERRED, text="could not be built")
    if limit and sum(map(len, parts)) > limit:
        text = f"the message is larger than the relay takes ({limit} octets)"
        return Outcome(Result.REJECTED, enhanced="5.3.4", text=text)
    return parts


class Wakeable(Protocol):
    """A connection that waits for work."""

    def kick(self) -> None:
        """There is something to fetch: ask `Grants.next`. Harmless on one that is busy or gone."""


class Grants(Protocol):
    """What a transport needs from a sender. An exception from one of these aborts the transport, and is in `failed`."""

    def next(self) -> Envelope | None:
        """A recipient that may be written to now, or None."""

    def answered(self, envelope: Envelope, outcome: Outcome) -> None:
        """Final for this attempt."""

    def returned(self, envelope: Envelope) -> None:
        """Its body never went out: back it goes, and no attempt is counted."""

    def idle(self, connection: Wakeable) -> None:
        """`next` gave this connection nothing: keep it, and kick it when there is something."""

    def closed(self, connection: Wakeable, reason: str | None) -> None:
        """The connection ended after its envelopes came back; None: as it should. It may come again by itself."""


class Transport(Protocol):
    """Carries what its grants hand out."""

    #: Gets a DeliveryError when the relay cannot be reached, or what a grant raised. Never a result.
    failed: asyncio.Future[None]

    def start(self) -> None:
        """Begin. Needs a running event loop."""

    async def drain(self) -> None:
        """Ask for no more, finish what was announced, say goodbye."""

    def abort(self) -> None:
        """Drop everything at once: not one more octet, not one more call."""
