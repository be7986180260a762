"""The SMTP client: a pool of pipelined connections to one relay.

    write   body of A + dot + MAIL, RCPT, DATA of B        one write, one packet train (RFC 2920 §3.1)
    read    250 (A)  250  250  354 (B may come)            A is answered, B's body goes next

So a message costs one round trip and next to no work in Python. A body is written only after its own 354. Where the
relay does not offer PIPELINING the same steps are taken one by one.

What is written waits for a reply before more is written, so at most one body and one set of commands lies in a
connection's buffer, however slow the relay: no further back-pressure is needed and memory stays flat.

Owns sockets and time-outs. Does not sign, does not retry a recipient, does not know what is sent or to whom.
Speaks plain SMTP only: a relay that asks for TLS or a password is refused, never spoken to in clear.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections import deque
from collections.abc import Callable
from enum import IntEnum, auto
from typing import cast

from digest.delivery.classify import outcome, printable
from digest.delivery.replies import Garbled, Replies
from digest.delivery.transport import Envelope, Grants, built
from digest.errors import DeliveryError
from digest.types import Outcome, Relay, Result

__all__ = ["Connection", "Envelope", "Grants", "Pool"]

_QUIT_TIMEOUT = 5.0
_LONGEST_PAUSE = 60.0


class State(IntEnum):
    """Which reply a connection waits for."""

    DOWN = 0
    GREETING = auto()
    EHLO = auto()
    HELO = auto()
    IDLE = auto()
    RSET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    DOT = auto()
    LONE_DOT = auto()
    QUIT = auto()


class Connection(asyncio.Protocol):
    """One place in the pool: a connection that may come and go. Holds up to two envelopes.

    ``_current``: its body and dot were written, the reply is awaited. ``_next``: its MAIL, RCPT and DATA were written.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool, self._relay, self._grants = pool, pool.relay, pool.grants
        self._transport: asyncio.Transport | None = None
        by_state = {
            State.GREETING: self._on_greeting, State.EHLO: self._on_ehlo, State.HELO: self._on_helo,
            State.IDLE: self._on_unasked, State.RSET: self._on_rset, State.MAIL: self._on_mail,
            State.RCPT: self._on_rcpt, State.DATA: self._on_data, State.DOT: self._on_dot,
            State.LONE_DOT: self._on_lone_dot, State.QUIT: self._on_quit,
        }  # fmt: skip
        self._handlers = [by_state.get(state, self._on_unasked) for state in State]
        self.parked = False  # the pool is going to open it
        self.failures = 0
        self.state = State.DOWN
        self.began = 0.0
        self._reset()

    def _reset(self) -> None:
        self._replies = Replies()
        self._current: Envelope | None = None
        self._next: Envelope | None = None
        self._parts: list[bytes] = []
        self._refusal: Outcome | None = None
        self._sender_refused = False
        self._pipelining = self._declares_size = False
        self._size_limit = 0
        self._taken = self._answers = 0
        self._reason: str | None = None
        self._ready = False
        self._deadline = 0.0

    # -- the owner's side

    def kick(self) -> None:
        """There is work: take it if idle, come back if the relay hung up meanwhile."""
        if self.state is State.IDLE:
            self._guarded(self._proceed)
        elif self.state is State.DOWN:
            self._pool._wanted(self)

    def finish(self) -> None:
        """Say goodbye as soon as nothing is on the wire."""
        if self.state is State.IDLE:
            self._quit()
        elif self.state in (State.GREETING, State.EHLO, State.HELO):
            self._vanish()

    def _vanish(self) -> None:
        """Nothing was ever on this wire: be down at once. A connection whose opening was cancelled while it came up
        may never be told that it was lost (uvloop closes it unheard)."""
        transport, self._transport, self.state = self._transport, None, State.DOWN
        if transport is not None:
            transport.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def check(self, now: float) -> None:
        """Drop the connection when its reply is overdue."""
        if self._transport is not None and self._deadline < now:
            self._drop("no reply in time")

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._reset()
        self.parked = False
        self._transport = cast("asyncio.Transport", transport)
        self._expect(State.GREETING)
        if self._pool.ending:
            self._vanish()

    def data_received(self, data: bytes) -> None:
        try:
            for code, text in self._replies.feed(data):
                if self._transport is None or self._reason is not None:
                    return
                self._handlers[self.state](code, text)
        except Garbled as problem:
            self._drop(str(problem))
        except Exception as problem:  # a grant's exception must reach the owner, not the event loop's log
            self._pool._crash(problem)

    def connection_lost(self, exc: Exception | None) -> None:
        was, self.state = self.state, State.DOWN
        vanished, self._transport = self._transport is None, None
        if self._pool.aborted or vanished:
            return
        reason = self._reason or (printable(str(exc)) if exc else "the relay closed the connection")
        self._guarded(lambda: self._give_back(was, reason))

    def _give_back(self, was: State, reason: str) -> None:
        if (current := self._current) is not None:
            self._current = None
            # RFC 1047: the relay may have taken it and been cut off before it could say so
            self._grants.answered(current, Outcome(Result.UNCERTAIN, text=f"no reply to the message: {reason}"[:500]))
        self._release(Outcome(Result.DEFERRED, text=f"the connection ended before the message: {reason}"[:500]))
        useful = self._ready and (self._answers > 0 or self._taken == 0)
        self._grants.closed(self, None if was is State.QUIT else reason)
        self._pool._gone(self, reason, useful=useful, was_idle=was is State.IDLE)

    def _release(self, if_first: Outcome) -> None:
        """Let go of the announced envelope, whose body was not written.

        It goes back uncounted, for the end of the connection need not be its doing. The first one of a connection
        has nobody else to blame; it counts as an attempt, so that no recipient can come back for ever.
        """
        envelope, self._next = self._next, None
        if envelope is None:
            return
        if self._refusal is not None:
            self._grants.answered(envelope, self._refusal)
        elif self._taken == 1:
            self._grants.answered(envelope, if_first)
        else:
            self._grants.returned(envelope)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as problem:  # as in data_received
            self._pool._crash(problem)

    # -- the session

    def _on_greeting(self, code: int, text: bytes) -> None:
        if code == 220:
            self._write(b"EHLO %b\r\n" % self._relay.helo.encode("ascii"))
            self._expect(State.EHLO)
        else:
            self._refuse_service(code, text)

    def _on_ehlo(self, code: int, text: bytes) -> None:
        if code == 250:
            self._read_extensions(text)
            self._begin()
        elif code >= 500:  # RFC 5321 §3.2: an older server
            self._write(b"HELO %b\r\n" % self._relay.helo.encode("ascii"))
            self._expect(State.HELO)
        else:
            self._refuse_service(code, text)

    def _on_helo(self, code: int, text: bytes) -> None:
        if code == 250:
            self._begin()
        else:
            self._refuse_service(code, text)

    def _read_extensions(self, text: bytes) -> None:
        words = [line.upper().split() for line in text.split(b"\n")[1:]]
        offered = {line[0]: line[1:] for line in words if line}
        self._pipelining = b"PIPELINING" in offered
        self._declares_size = b"SIZE" in offered  # RFC 1870
        limit = (offered.get(b"SIZE") or [b"0"])[0]
        self._size_limit = int(limit) if limit.isdigit() else 0

    def _begin(self) -> None:
        self._ready = True
        self._pool._opened(self)
        self._proceed()

    def _refuse_service(self, code: int, text: bytes) -> None:
        self._drop(f"the relay answered {code} {printable(text)[:200]}".rstrip())

    def _on_unasked(self, code: int, text: bytes) -> None:
        # RFC 5321 §3.8: 421 may come at any time; anything else means that replies and commands are out of step
        self._refuse_service(code, text)

    def _quit(self) -> None:
        self._write(b"QUIT\r\n")
        self._expect(State.QUIT)

    def _on_quit(self, code: int, text: bytes) -> None:
        if self._transport is not None:
            self._transport.close()

    # -- one envelope after the other

    def _proceed(self) -> None:
        """Nothing is on the wire: announce the next envelope, or wait for one."""
        if commands := self._announce():
            self._write(commands)
            self._expect(State.MAIL)
        elif self._pool.ending:
            self._quit()
        else:
            self._expect(State.IDLE)
            self._grants.idle(self)

    def _announce(self) -> bytes:
        """Take the next envelope and give the commands to be written for it now; empty when there is none."""
        while not self._pool.ending and (envelope := self._grants.next()) is not None:
            parts = built(envelope, limit=self._size_limit)
            if isinstance(parts, list):
                self._next, self._parts, self._refusal, self._sender_refused = envelope, parts, None, False
                self._taken += 1
                return self._mail(envelope) + (self._rcpt(envelope) + b"DATA\r\n" if self._pipelining else b"")
            self._grants.answered(envelope, parts)
        return b""

    def _mail(self, envelope: Envelope) -> bytes:
        if self._declares_size:
            return b"MAIL FROM:<%b> SIZE=%d\r\n" % (envelope.mail_from, sum(map(len, self._parts)))
        return b"MAIL FROM:<%b>\r\n" % envelope.mail_from

    def _rcpt(self, envelope: Envelope) -> bytes:
        return b"RCPT TO:<%b>\r\n" % envelope.rcpt

    def _on_rset(self, code: int, text: bytes) -> None:
        if code != 250:
            self._refuse_service(code, text)
        elif self._next is not None:  # its commands went out together with RSET
            self._expect(State.MAIL)
        else:
            self._proceed()

    def _on_mail(self, code: int, text: bytes) -> None:
        self._judge(code, text)
        self._sender_refused = self._refusal is not None
        self._step(State.RCPT, self._rcpt)

    def _on_rcpt(self, code: int, text: bytes) -> None:
        if 200 <= code <= 299 and self._sender_refused:
            # a message that nobody can be said to have sent: leave before DATA can make it an empty one
            self._drop("the relay takes a recipient after it refused the sender")
        else:
            self._judge(code, text)
            self._step(State.DATA, lambda _: b"DATA\r\n")

    def _judge(self, code: int, text: bytes) -> None:
        """Remember the first refusal of the announced envelope."""
        if 300 <= code <= 399:
            raise Garbled(f"an answer out of step: {code}")
        if code == 421:
            self._leave(code, text)
        elif code >= 400 and self._refusal is None:
            self._refusal = outcome(code, text)

    def _step(self, state: State, command: Callable[[Envelope], bytes]) -> None:
        """Go on to the next command's reply; in lock-step write the command first, or none after a refusal."""
        if self._reason is not None or self._next is None:
            return
        if not self._pipelining and self._refusal is not None:
            self._refuse()
            return
        if not self._pipelining:
            self._write(command(self._next))
        self._expect(state)

    def _on_data(self, code: int, text: bytes) -> None:
        if code == 354 and self._refusal is None:
            self._write_body()
        elif code == 354:
            self._write_lone_dot()
        elif code < 400:
            raise Garbled(f"an answer out of step: {code}")
        else:
            self._judge(code, text)
            if self._reason is None:
                self._refuse()

    def _write_body(self) -> None:
        """The one write of a message; everything before it was preparation."""
        parts, self._parts = self._parts, []
        self._current, self._next = self._next, None
        parts.append(b".\r\n")
        if self._pipelining:
            parts.append(self._announce())
        self._expect(State.DOT)
        if self._transport is not None:
            self._transport.writelines(parts)

    def _write_lone_dot(self) -> None:
        # RFC 2920 §3.1: every recipient was refused, yet DATA is answered 354: end the message that has no reader
        self._write(b".\r\n")
        self._expect(State.LONE_DOT)
        self._settle()

    def _on_lone_dot(self, code: int, text: bytes) -> None:
        if code == 421:
            self._refuse_service(code, text)
        else:
            self._proceed()

    def _refuse(self) -> None:
        """The announced envelope is done without its message: clear the transaction, announce the next."""
        self._expect(State.RSET)
        self._settle()
        self._write(b"RSET\r\n" + (self._announce() if self._pipelining else b""))

    def _settle(self) -> None:
        """Answer the announced envelope with its refusal."""
        envelope, refusal, self._next = self._next, self._refusal, None
        if envelope is not None and refusal is not None:
            self._answered(envelope, refusal)

    def _on_dot(self, code: int, text: bytes) -> None:
        if 300 <= code <= 399:
            raise Garbled(f"an answer out of step: {code}")
        envelope, self._current = self._current, None
        self._expect(State.MAIL)
        if envelope is not None:
            self._answered(envelope, outcome(code, text))
        if code == 421:
            self._leave(code, text)
        elif self._next is None:
            self._proceed()

    def _answered(self, envelope: Envelope, result: Outcome) -> None:
        self._answers += 1
        self._pool._progress()
        self._grants.answered(envelope, result)

    def _leave(self, code: int, text: bytes) -> None:
        """421: the relay closes the connection (RFC 5321 §3.8). What was announced goes back."""
        self._release(outcome(code, text))
        self._refuse_service(code, text)

    # -- small change

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _expect(self, state: State) -> None:
        self.state = state
        self._deadline = self._pool.now() + self._pool.patience[state]

    def _drop(self, reason: str) -> None:
        """Give the connection up; its envelopes go back when the event loop has closed it."""
        if self._reason is None:
            self._reason = reason
        self.abort()


class Pool:
    """Keeps up to ``relay.connections`` connections at work.

    One connection is tried first; each that gets through brings two more (a relay that is not there is asked by one,
    one that is there is not stormed). Lost ones come back at once if they were of use, else after a pause that
    doubles. When ``tries`` attempts in a row failed and none is up, `failed` gets a DeliveryError: every envelope has
    gone back by then.
    """

    def __init__(self, relay: Relay, grants: Grants, *, tries: int = 5, pause: float = 0.25) -> None:
        _refuse_unfit(relay)
        self.relay, self.grants = relay, grants
        self.aborted = self.ending = False
        self.patience = [_patience(relay, state) for state in State]
        self._tries, self._pause = tries, pause
        self._connections = [Connection(self) for _ in range(max(relay.connections, 1))]
        self._waiting: deque[Connection] = deque()
        self._up: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._all_down = asyncio.Event()
        self._failures, self._last_failure = 0, 0.0

    # -- the owner's side

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.failed: asyncio.Future[None] = self._loop.create_future()
        for connection in self._connections:
            self._park(connection)
        self._sweep()
        self._ramp(1)

    async def drain(self) -> None:
        """Finish what was announced, then close. Returns when every connection is down."""
        self.ending = True
        openings = [*self._opening]
        for task in openings:
            task.cancel()
        await asyncio.gather(*openings, return_exceptions=True)
        for connection in self._connections:
            connection.finish()
        self._note_down()
        await self._all_down.wait()
        self._cancel_timers()

    def abort(self) -> None:
        """Drop all sockets at once (the lease is lost): no octet more, no call more."""
        self.aborted = self.ending = True
        for task in self._opening:
            task.cancel()
        self._cancel_timers()
        for connection in self._connections:
            connection.abort()
        self._all_down.set()

    # -- the connections' side

    def _opened(self, connection: Connection) -> None:
        self._up.add(connection)
        self._ramp(2)

    def _progress(self) -> None:
        self._failures = 0

    def _wanted(self, connection: Connection) -> None:
        """A connection that was lost while idle has work again."""
        if not self.ending and not connection.parked:
            self._open_soon(connection)

    def _gone(self, connection: Connection, reason: str, *, useful: bool, was_idle: bool) -> None:
        self._up.discard(connection)
        if self.ending:
            self._note_down()
        elif not useful:
            self._trouble(connection, reason)
        else:
            connection.failures = 0
            self._progress()
            if was_idle:
                self.grants.idle(connection)  # relays hang up on the idle; it comes back when there is work
            else:
                self._open_soon(connection)

    def _crash(self, problem: BaseException) -> None:
        """Something that no reply can mend: everything stops, and the owner learns why."""
        self.abort()
        if not self.failed.done():
            self.failed.set_exception(problem)
            self.failed.exception()  # read here, so that an owner who looks late gets no complaint from the loop

    # -- opening

    def _park(self, connection: Connection) -> None:
        connection.parked = True
        self._waiting.append(connection)

    def _ramp(self, count: int) -> None:
        for _ in range(min(count, len(self._waiting))):
            self._open_soon(self._waiting.popleft())

    def _open_soon(self, connection: Connection) -> None:
        if self.ending:
            return
        connection.parked = True
        task = self._loop.create_task(self._open(connection), name="smtp open")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connection: Connection) -> None:
        connection.began = self.now()
        try:
            async with asyncio.timeout(self.relay.connect_timeout):
                await self._loop.create_connection(lambda: connection, self.relay.host, self.relay.port)
        except TimeoutError:
            self._missed(connection, "no answer in time")
        except OSError as problem:
            self._missed(connection, printable(problem.strerror or str(problem)) or "no connection")

    def _missed(self, connection: Connection, reason: str) -> None:
        if connection.parked:  # else it came up and was lost in the same moment, and has said so itself
            self._trouble(connection, reason)

    def _trouble(self, connection: Connection, reason: str) -> None:
        """An attempt to connect came to nothing. Attempts made side by side count as one."""
        if self.ending:
            return
        connection.failures += 1
        if connection.began >= self._last_failure:
            self._failures += 1
            self._last_failure = self.now()
        if self._failures >= self._tries and not self._up:
            self._crash(self._unreachable(reason))
            return
        connection.parked = True
        pause = min(self._pause * 2.0 ** min(connection.failures - 1, 20), _LONGEST_PAUSE)
        spread = random.uniform(0.9, 1.1)  # noqa: S311 (no secret)
        self._later(pause * spread, lambda: self._open_soon(connection))

    def _unreachable(self, reason: str) -> DeliveryError:
        return DeliveryError(
            f"The mail relay {self.relay.host}:{self.relay.port} cannot be used ({reason}); check smtp.host, smtp.port "
            "and that it runs. Nothing is lost: what is waiting goes out once it answers."
        )

    # -- timers and ends

    def _later(self, delay: float, step: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(handle)
            step()

        handle = self._loop.call_later(delay, run)
        self._timers.add(handle)

    def _sweep(self) -> None:
        """One timer looks at all deadlines; a timer for each of four replies a message would cost more than they do."""
        now = self.now()
        for connection in self._connections:
            connection.check(now)
        self._later(min(max(min(self.patience) / 4, 0.01), 1.0), self._sweep)

    def _note_down(self) -> None:
        if all(connection.state is State.DOWN for connection in self._connections):
            self._all_down.set()

    def _cancel_timers(self) -> None:
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()


def _patience(relay: Relay, state: State) -> float:
    """How long a reply may take (RFC 5321 §4.5.3.2)."""
    if state is State.IDLE:
        return math.inf
    if state is State.QUIT:
        return _QUIT_TIMEOUT
    return relay.data_timeout if state in (State.DOT, State.LONE_DOT) else relay.reply_timeout


def _refuse_unfit(relay: Relay) -> None:
    """DeliveryError for a relay that this client must not speak to."""
    if relay.security != "none" or relay.username:
        raise DeliveryError(
            "This version sends without TLS and without a password only, and will not send in clear what is set to be "
            "protected: set smtp.security to none and leave smtp.username out, or use a relay on this machine."
        )
    if not re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", relay.helo):
        raise DeliveryError("The name to greet the relay with is not a host name; set the mail domain.")
