"""The pool: how many connections there are, when they come, and what a relay that is not there means."""

from __future__ import annotations

import asyncio
import math
import random
import re
import ssl
from collections import deque

from digest.config import is_loopback
from digest.delivery.classify import printable
from digest.delivery.smtp.connection import Connection
from digest.delivery.smtp.opening import State, certificate_fault, context
from digest.delivery.smtp.timers import Timers
from digest.delivery.transport import Grants
from digest.errors import DeliveryError
from digest.types import Relay

_QUIT_TIMEOUT = 5.0
_LONGEST_PAUSE = 60.0


class Pool:
    """Keeps up to ``relay.connections`` connections at work.

    One connection is tried first; each that gets through brings two more (a relay that is not there is asked by one,
    one that is there is not stormed). Lost ones come back at once if they were of use, else after a pause that
    doubles. When ``tries`` attempts in a row failed and none is up, `failed` gets a DeliveryError: every envelope has
    gone back by then.
    """

    def __init__(self, relay: Relay, grants: Grants, *, tries: int = 5, pause: float = 0.25) -> None:
        _refuse_unfit(relay)
        self.relay, self.grants, self._tls = relay, grants, context(relay)
        self.aborted = self.ending = False
        self.patience = [_patience(relay, state) for state in State]
        self._tries, self._pause = tries, pause
        self._connections = [Connection(self) for _ in range(max(relay.connections, 1))]
        self._waiting: deque[Connection] = deque()
        self._up: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._timers = Timers()
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
        self._timers.cancel()

    def abort(self) -> None:
        """Drop all sockets at once (the lease is lost): no octet more, no call more."""
        self.aborted = self.ending = True
        for task in self._opening:
            task.cancel()
        self._timers.cancel()
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

    def _gone(self, connection: Connection, reason: str, *, useful: bool, was_idle: bool, hopeless: bool) -> None:
        self._up.discard(connection)
        if self.ending:
            self._note_down()
        elif not useful:
            self._trouble(connection, reason, hopeless=hopeless)
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
                await self._loop.create_connection(
                    lambda: connection, self.relay.host, self.relay.port,
                    ssl=self._tls if self.relay.security == "tls" else None,
                )  # fmt: skip
        except TimeoutError:
            self._missed(connection, "no answer in time")
        except ssl.SSLCertVerificationError as problem:
            self._missed(connection, certificate_fault(problem), hopeless=True)
        except ssl.SSLError as problem:
            self._missed(connection, f"no TLS there: {printable(problem.reason or str(problem))}")
        except OSError as problem:
            self._missed(connection, printable(problem.strerror or str(problem)) or "no connection")

    def _missed(self, connection: Connection, reason: str, *, hopeless: bool = False) -> None:
        if connection.parked:  # else it came up and was lost in the same moment, and has said so itself
            self._trouble(connection, reason, hopeless=hopeless)

    def _secure_soon(self, connection: Connection) -> None:
        task = self._loop.create_task(self._secure(connection), name="smtp starttls")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _secure(self, connection: Connection) -> None:
        assert self._tls is not None
        try:
            async with asyncio.timeout(self.relay.connect_timeout):
                await connection.shake_hands(self._tls)
        except TimeoutError:
            connection.broken("no TLS in time", hopeless=False)
        except ssl.SSLCertVerificationError as problem:
            connection.broken(certificate_fault(problem), hopeless=True)
        except OSError as problem:  # ssl.SSLError is one
            connection.broken(f"TLS failed: {printable(problem.strerror or str(problem))[:200]}", hopeless=False)

    def _trouble(self, connection: Connection, reason: str, *, hopeless: bool = False) -> None:
        """An attempt to connect came to nothing. Attempts made side by side count as one."""
        if self.ending:
            return
        connection.failures += 1
        if connection.began >= self._last_failure:
            self._failures += 1
            self._last_failure = self.now()
        if (hopeless or self._failures >= self._tries) and not self._up:
            self._crash(self._unreachable(reason, hopeless=hopeless))
            return
        connection.parked = True
        pause = min(self._pause * 2.0 ** min(connection.failures - 1, 20), _LONGEST_PAUSE)
        spread = random.uniform(0.9, 1.1)  # noqa: S311 (no secret)
        self._timers.later(pause * spread, lambda: self._open_soon(connection))

    def _unreachable(self, reason: str, *, hopeless: bool) -> DeliveryError:
        where = f"The mail relay {self.relay.host}:{self.relay.port} cannot be used"
        if hopeless:
            return DeliveryError(f"{where}: {reason}. Nothing is lost: what is waiting goes out once that is mended.")
        table = "smtp" if self.relay.name == "smtp" else f"relays.{self.relay.name}"
        return DeliveryError(
            f"{where} ({reason}); check {table}.host, {table}.port and that it runs. Nothing is lost: what is waiting "
            "goes out once it answers."
        )

    # -- timers and ends

    def _sweep(self) -> None:
        """One timer looks at all deadlines; a timer for each of four replies a message would cost more than they do."""
        now = self.now()
        for connection in self._connections:
            connection.check(now)
        self._timers.later(min(max(min(self.patience) / 4, 0.01), 1.0), self._sweep)

    def _note_down(self) -> None:
        if all(connection.state is State.DOWN for connection in self._connections):
            self._all_down.set()


def _patience(relay: Relay, state: State) -> float:
    """How long a reply may take (RFC 5321 §4.5.3.2)."""
    if state is State.IDLE:
        return math.inf
    if state is State.QUIT:
        return _QUIT_TIMEOUT
    return relay.data_timeout if state in (State.DOT, State.LONE_DOT) else relay.reply_timeout


def _refuse_unfit(relay: Relay) -> None:
    """DeliveryError for a relay that this client must not speak to."""
    if relay.username and relay.security == "none" and not is_loopback(relay.host):
        raise DeliveryError(
            f"The password for {relay.host} would travel readable: set smtp.security to starttls or tls, or leave "
            "smtp.username out."
        )
    if not re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", relay.helo):
        raise DeliveryError("The name to greet the relay with is not a host name; set the mail domain.")
