"""The judge: a mail server that goes wrong in every way a relay may, and keeps a ledger of its own.

Runs in a process of its own, which nobody kills. What it took and what it refused it writes to a file, a line an event,
before it answers; how much is on the wire stands in shared memory, so that whoever kills knows what a kill may cost.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import random
import signal
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIVES = 4096  # lives of workers that shared memory has room for
_SLOT = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Faults:
    """How often which fault, as shares of messages. ``slow``: the reply to the dot comes late."""

    busy: float = 0.01  # 421 to MAIL, and the connection closes
    later: float = 0.03  # 451 to RCPT
    gone: float = 0.02  # 550 5.1.1 to RCPT
    cut_body: float = 0.01  # hangs up with half of the body read
    cut_dot: float = 0.01  # hangs up after the dot, and throws the message away
    lost: float = 0.01  # hangs up after the dot, and keeps the message
    slow: float = 0.04


NO_FAULTS = Faults(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the judge's ledger. ``what``: took, lost (took, and did not say so), refused, threw, cut.

    ``life``: which life of a worker sent it, as it introduced itself; ``message_id`` where a message came whole.
    """

    what: str
    life: str
    rcpt: str
    message_id: str = ""
    code: int = 0


class Judge:
    """``with Judge(folder, seed) as judge``: ``port``, ``total`` taken, ``busy(life)``; afterwards `entries`."""

    def __init__(
        self, folder: Path, *, seed: int = 1, faults: Faults = NO_FAULTS, slow_s: float = 0.05, think_s: float = 0.0
    ) -> None:
        self._path, self._seed, self._faults = folder / "judge.log", seed, faults
        self._slow_s, self._think_s = slow_s, think_s
        self._memory = mmap.mmap(-1, _SLOT.size * (LIVES + 1))

    def __enter__(self) -> Judge:
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = listener.getsockname()[1]
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _serve(listener, self)
            finally:
                os._exit(0)
        listener.close()
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)

    @property
    def total(self) -> int:
        """Messages taken so far."""
        return int(_SLOT.unpack_from(self._memory, 0)[0])

    def busy(self, life: int) -> int:
        """Messages of that life whose body has begun to come and whose answer was not given."""
        return int(_SLOT.unpack_from(self._memory, _SLOT.size * (life % LIVES + 1))[0])

    def entries(self) -> list[Entry]:
        return [Entry(*json.loads(line)) for line in self._path.read_text().splitlines()]

    def _add(self, slot: int, by: int) -> None:
        at = _SLOT.size * slot
        _SLOT.pack_into(self._memory, at, _SLOT.unpack_from(self._memory, at)[0] + by)


def life_name(life: int) -> str:
    """How a worker introduces itself."""
    return f"life-{life}.example.org"


def _serve(listener: socket.socket, judge: Judge) -> None:
    import uvloop

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = os.open(judge._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    chance = random.Random(judge._seed)

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        server = await loop.create_server(lambda: _Session(judge, log, chance), sock=listener)
        await stop.wait()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


class _Session(asyncio.Protocol):
    """One connection: commands and bodies in turn, a fate for each message."""

    def __init__(self, judge: Judge, log: int, chance: random.Random) -> None:
        self._judge, self._log, self._chance = judge, log, chance
        self._life, self._slot = "", 0
        self._buffer = bytearray()
        self._body = self._waits = self._counted = False
        self._fate, self._rcpt, self._refused = "", "", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._say(b"220 judge ESMTP")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._counted:
            self._count(-1)
            self._note("cut")
        self._waits = True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def _go_on(self) -> None:
        while not self._waits and (self._take_body() if self._body else self._take_line()):
            pass

    def _take_line(self) -> bool:
        line, end, _ = self._buffer.partition(b"\r\n")
        if not end:
            return False
        del self._buffer[: len(line) + 2]
        verb, _, rest = bytes(line).partition(b" ")
        getattr(self, f"_on_{verb.lower().decode('latin-1')}", self._unknown)(rest.decode("latin-1"))
        return True

    def _take_body(self) -> bool:
        if not self._counted and self._buffer and not self._refused:
            self._count(1)
            if self._fate == "cut_body":
                return self._hang_up("cut")
        if self._buffer.startswith(b".\r\n"):
            end, after = 0, 3
        elif (end := self._buffer.find(b"\r\n.\r\n")) >= 0:
            after = end + 5
        else:
            return False
        message = bytes(self._buffer[:end])
        del self._buffer[:after]
        self._body = False
        return self._end_of_body(message)

    def _end_of_body(self, message: bytes) -> bool:
        if self._refused:
            self._say(b"554 5.5.1 no valid recipients")
            return True
        if self._fate == "cut_dot":
            return self._hang_up("threw")
        found = message.partition(b"\r\nMessage-ID: ")[2].partition(b"\r\n")[0].decode("latin-1")
        self._note("lost" if self._fate == "lost" else "took", message_id=found)
        self._judge._add(0, 1)
        if self._fate == "lost":
            return self._hang_up("")
        pause = self._judge._slow_s if self._fate == "slow" else self._judge._think_s
        if not pause:
            self._taken()
            return True
        self._waits = True
        asyncio.get_running_loop().call_later(pause, self._taken_at_last)
        return False

    def _taken(self) -> None:
        self._count(-1)
        self._say(b"250 2.0.0 Ok")

    def _taken_at_last(self) -> None:
        if not self._transport.is_closing():
            self._waits = False
            self._taken()
            self._go_on()

    # -- commands

    def _on_ehlo(self, rest: str) -> None:
        self._life = rest
        self._slot = int(rest.partition(".")[0].rpartition("-")[2]) % LIVES + 1 if rest.startswith("life-") else 1
        self._say(b"250-judge\r\n250-PIPELINING\r\n250 8BITMIME")

    def _on_mail(self, rest: str) -> None:
        at, self._fate, self._refused = self._chance.random(), "", False
        for name in ("busy", "later", "gone", "cut_body", "cut_dot", "lost", "slow"):
            at -= getattr(self._judge._faults, name)
            if at < 0:
                self._fate = name
                break
        if self._fate == "busy":
            self._say(b"421 4.3.2 busy")
            self._transport.close()
            self._waits = True
        else:
            self._say(b"250 2.1.0 Ok")

    def _on_rcpt(self, rest: str) -> None:
        self._rcpt = rest.partition("<")[2].partition(">")[0]
        if self._fate in ("later", "gone"):
            self._refused = True
            self._note("refused", code=451 if self._fate == "later" else 550)
        replies = {"later": b"451 4.7.1 later", "gone": b"550 5.1.1 no such mailbox"}
        self._say(replies.get(self._fate, b"250 2.1.5 Ok"))

    def _on_data(self, rest: str) -> None:
        if self._refused:
            self._say(b"554 5.5.1 no valid recipients")
        else:
            self._body = True
            self._say(b"354 go on")

    def _on_rset(self, rest: str) -> None:
        self._say(b"250 2.0.0 Ok")

    def _on_quit(self, rest: str) -> None:
        self._say(b"221 2.0.0 bye")
        self._transport.close()

    def _unknown(self, rest: str) -> None:
        self._say(b"500 5.5.2 what?")

    # -- small change

    def _say(self, reply: bytes) -> None:
        self._transport.write(reply + b"\r\n")

    def _hang_up(self, what: str) -> bool:
        self._count(-1)
        if what:
            self._note(what)
        self._transport.abort()
        self._waits = True
        return False

    def _count(self, by: int) -> None:
        self._counted = by > 0
        self._judge._add(self._slot, by)

    def _note(self, what: str, *, message_id: str = "", code: int = 0) -> None:
        os.write(self._log, json.dumps((what, self._life, self._rcpt, message_id, code)).encode() + b"\n")
