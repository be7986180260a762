"""One connection of the pool: envelopes announced, written and answered, in step with the relay's replies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from digest.delivery.classify import outcome, printable
from digest.delivery.replies import Garbled, Replies
from digest.delivery.smtp.opening import OPENING, Opening, State
from digest.delivery.transport import Envelope, built
from digest.types import Outcome, Result

if TYPE_CHECKING:
    from digest.delivery.smtp.pool import Pool


class Connection(asyncio.Protocol):
    """One place in the pool: a connection that may come and go. Holds up to two envelopes.

    ``_current``: its body and dot were written, the reply is awaited. ``_next``: its MAIL, RCPT and DATA were written.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool, self._relay, self._grants = pool, pool.relay, pool.grants
        self._transport: asyncio.Transport | None = None
        self.opening = Opening(self, pool.relay)
        by_state = {
            **self.opening.handlers, State.IDLE: self._on_unasked, State.RSET: self._on_rset, State.MAIL: self._on_mail,
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
        self._hopeless = False
        self.opening.reset()
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
        elif self.state in OPENING:
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
            self.drop("no reply in time")

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._reset()
        self.parked = False
        self._transport = cast("asyncio.Transport", transport)
        self.expect(State.GREETING)
        if self._pool.ending:
            self._vanish()

    def data_received(self, data: bytes) -> None:
        try:
            for code, text in self._replies.feed(data):
                if self._transport is None or self._reason is not None:
                    return
                self._handlers[self.state](code, text)
        except Garbled as problem:
            self.drop(str(problem))
        except Exception as problem:  # a grant's exception must reach the owner, not the event loop's log
            self._pool._crash(problem)

    def connection_lost(self, exc: Exception | None) -> None:
        was, self.state = self.state, State.DOWN
        self._transport = None
        if self._pool.aborted or was is State.DOWN:  # told twice, or vanished
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
        self._pool._gone(self, reason, useful=useful, was_idle=was is State.IDLE, hopeless=self._hopeless)

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

    def secure(self) -> None:
        """The relay is ready for TLS."""
        self.expect(State.HANDSHAKE)
        self._pool._secure_soon(self)

    async def shake_hands(self, context: ssl.SSLContext) -> None:
        """Go on over TLS. OSError, ssl.SSLError where that cannot be."""
        plain = self._transport
        if self._replies.pending:
            self.opening.noise()
        if plain is None or plain.is_closing() or self.state is not State.HANDSHAKE:
            return
        loop = asyncio.get_running_loop()
        secured = await loop.start_tls(plain, self, context, server_hostname=self._relay.host)
        if secured is None or self.state is not State.HANDSHAKE:
            raise ConnectionError("the relay closed the connection")
        self._transport = secured
        self.opening.secured()

    def broken(self, reason: str, *, hopeless: bool) -> None:
        """The handshake failed; the event loop may or may not tell that the connection is lost."""
        self.drop(reason, hopeless=hopeless)
        self.connection_lost(None)

    def begin(self) -> None:
        """The session stands: mail may go."""
        self._ready = True
        self._read_extensions()
        self._pool._opened(self)
        self._proceed()

    def _read_extensions(self) -> None:
        offered = self.opening.offered
        self._pipelining = b"PIPELINING" in offered
        self._declares_size = b"SIZE" in offered  # RFC 1870
        limit = (offered.get(b"SIZE") or [b"0"])[0]
        self._size_limit = int(limit) if limit.isdigit() else 0

    def refuse_service(self, code: int, text: bytes) -> None:
        self.drop(f"the relay answered {code} {printable(text)[:200]}".rstrip())

    def _on_unasked(self, code: int, text: bytes) -> None:
        # RFC 5321 §3.8: 421 may come at any time; anything else means that replies and commands are out of step
        self.refuse_service(code, text)

    def _quit(self) -> None:
        self.write(b"QUIT\r\n")
        self.expect(State.QUIT)

    def _on_quit(self, code: int, text: bytes) -> None:
        if self._transport is not None:
            self._transport.close()

    # -- one envelope after the other

    def _proceed(self) -> None:
        """Nothing is on the wire: announce the next envelope, or wait for one."""
        if commands := self._announce():
            self.write(commands)
            self.expect(State.MAIL)
        elif self._pool.ending:
            self._quit()
        else:
            self.expect(State.IDLE)
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
            self.refuse_service(code, text)
        elif self._next is not None:  # its commands went out together with RSET
            self.expect(State.MAIL)
        else:
            self._proceed()

    def _on_mail(self, code: int, text: bytes) -> None:
        self._judge(code, text)
        self._sender_refused = self._refusal is not None
        self._step(State.RCPT, self._rcpt)

    def _on_rcpt(self, code: int, text: bytes) -> None:
        if 200 <= code <= 299 and self._sender_refused:
            # a message that nobody can be said to have sent: leave before DATA can make it an empty one
            self.drop("the relay takes a recipient after it refused the sender")
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
            self.write(command(self._next))
        self.expect(state)

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
        self.expect(State.DOT)
        if self._transport is not None:
            self._transport.writelines(parts)

    def _write_lone_dot(self) -> None:
        # RFC 2920 §3.1: every recipient was refused, yet DATA is answered 354: end the message that has no reader
        self.write(b".\r\n")
        self.expect(State.LONE_DOT)
        self._settle()

    def _on_lone_dot(self, code: int, text: bytes) -> None:
        if code == 421:
            self.refuse_service(code, text)
        else:
            self._proceed()

    def _refuse(self) -> None:
        """The announced envelope is done without its message: clear the transaction, announce the next."""
        self.expect(State.RSET)
        self._settle()
        self.write(b"RSET\r\n" + (self._announce() if self._pipelining else b""))

    def _settle(self) -> None:
        """Answer the announced envelope with its refusal."""
        envelope, refusal, self._next = self._next, self._refusal, None
        if envelope is not None and refusal is not None:
            self._answered(envelope, refusal)

    def _on_dot(self, code: int, text: bytes) -> None:
        if 300 <= code <= 399:
            raise Garbled(f"an answer out of step: {code}")
        envelope, self._current = self._current, None
        self.expect(State.MAIL)
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
        self.refuse_service(code, text)

    # -- small change

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def expect(self, state: State) -> None:
        self.state = state
        self._deadline = self._pool.now() + self._pool.patience[state]

    def drop(self, reason: str, *, hopeless: bool = False) -> None:
        """Give the connection up; its envelopes go back when the event loop has closed it.

        *hopeless*: another try would end the same, until somebody changes a setting.
        """
        if self._reason is None:
            self._reason, self._hopeless = reason, hopeless
        self.abort()
