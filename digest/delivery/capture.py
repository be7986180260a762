"""The capture server: takes every mail over real SMTP instead of the world, until the publication goes live.

aiosmtpd speaks the protocol; what is ours is a body read in large pieces (theirs goes line by line), PIPELINING said
aloud, and the promise that a mail is stored before it is answered with 250, many mails in one go. Where they are stored
is the caller's business: ``store`` is called with groups, always from the same thread.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import TracebackType
from typing import cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from digest.errors import DeliveryError
from digest.types import CaughtMail

Store = Callable[[Sequence[CaughtMail]], None]

SIZE_LIMIT = 30 * 1024 * 1024
_READ_LIMIT = 1 << 20
_SIMPLE_PATH = re.compile(r"<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+)>\s*(.*)")
_log = logging.getLogger(__name__)


class CaptureServer:
    """Listens in a thread of its own. Port 0 takes a free one: `port` tells which, once started."""

    def __init__(self, host: str, port: int, store: Store) -> None:
        self.host, self.port = host, port
        self._store = store
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._problem: Exception | None = None

    def start(self) -> None:
        """Listen. DeliveryError where the port cannot be had."""
        # aiosmtpd logs each command with the addresses in it
        logging.getLogger("mail.log").setLevel(logging.WARNING)
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),), name="capture", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._problem is not None:
            self._thread.join()
            raise DeliveryError(
                f"The capture server cannot listen on {self.host}:{self.port} ({self._problem}); "
                "stop what uses that port, or set capture.port to another one or to 0."
            ) from self._problem

    def stop(self) -> None:
        """Stop listening, let what is being stored be stored and answered, hang up. Harmless twice."""
        if self._thread is not None and self._thread.is_alive() and self._problem is None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._thread = None

    def __enter__(self) -> CaptureServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        keeper = _Keeper(self._store)
        sessions: set[_Session] = set()
        try:
            server = await self._loop.create_server(lambda: _Session(keeper, sessions), self.host, self.port)
        except OSError as problem:
            self._problem = problem
            self._started.set()
            return
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        await keeper.close()
        for session in [*sessions]:
            session.hang_up()
        await server.wait_closed()
        await asyncio.gather(*[session.ended.wait() for session in sessions])


class _Keeper:
    """Stores mails in groups: while one group is being written, the next one gathers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gathered: list[tuple[CaughtMail, asyncio.Future[bool]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "capture-store")

    async def keep(self, mail: CaughtMail) -> bool:
        """Store one mail; True when it is in safety."""
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._gathered.append((mail, kept))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await kept

    async def _write(self) -> None:
        while self._gathered:
            group, self._gathered = self._gathered, []
            stored = await asyncio.get_running_loop().run_in_executor(self._thread, self._stored, [m for m, _ in group])
            for _, kept in group:
                if not kept.done():  # its client may have gone
                    kept.set_result(stored)

    def _stored(self, mails: list[CaughtMail]) -> bool:
        try:
            self._store(mails)
        except Exception as problem:  # a full disk, a locked database: the client keeps its mails and tries again
            _log.warning("caught mails could not be stored: %s", type(problem).__name__)
            return False
        return True

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing
        await asyncio.sleep(0.01)  # the replies of the last group are on their way
        self._thread.shutdown()


class _Session(SMTP):
    """One client."""

    line_length_limit = _READ_LIMIT  # of the stream reader; a command is held to its own limit

    def __init__(self, keeper: _Keeper, sessions: set[_Session]) -> None:
        super().__init__(
            self, data_size_limit=SIZE_LIMIT, enable_SMTPUTF8=True, hostname="capture.localhost", ident="ESMTP capture"
        )
        self._keeper, self._sessions = keeper, sessions
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sessions.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._sessions.discard(self)
        self.ended.set()

    def hang_up(self) -> None:
        if self.transport is not None:
            cast("asyncio.Transport", self.transport).abort()

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", responses[-1]]  # RFC 2920: commands are read from a stream, in order

    async def smtp_DATA(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return
        if arg:
            await self.push("501 5.5.4 Syntax: DATA")
        elif self.envelope is None or not self.envelope.rcpt_tos:
            await self.push("503 5.5.1 Error: need RCPT command")
        else:
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            envelope, self.envelope = self.envelope, self._create_envelope()
            message = await self._message()
            await self.push(await self._kept(envelope.mail_from or "", tuple(envelope.rcpt_tos), message))

    async def _kept(self, mail_from: str, rcpt_to: tuple[str, ...], message: bytes | None) -> str:
        if message is None:
            return "552 5.3.4 Error: too much mail data"
        mail = CaughtMail(mail_from, rcpt_to, message, received_at=datetime.now(UTC))
        if await self._keeper.keep(mail):
            return "250 2.0.0 Ok: caught"
        return "451 4.3.0 Error: it could not be stored, try again later"

    async def _message(self) -> bytes | None:
        """The octets of a body up to its lone dot, dots unstuffed (RFC 5321 §4.5.2); None where there are too many."""
        body, too_large = bytearray(await self._reader.readexactly(3)), False
        # the end is looked for in what follows; where these three may be part of it, line by line
        end = b"\n" if b"\r" in body else b"\r\n.\r\n"
        while not (body.endswith(b"\r\n.\r\n") or body == b".\r\n"):
            try:
                body += await self._reader.readuntil(end)
            except asyncio.LimitOverrunError as problem:
                body += await self._reader.read(problem.consumed)
            if len(body) > SIZE_LIMIT:
                too_large = True
                del body[:-5]
        if too_large:
            return None
        del body[-3:]
        if body.startswith(b"."):
            del body[:1]
        return bytes(body).replace(b"\r\n.", b"\r\n")

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """The usual path without the full grammar of addresses, which costs more than all the rest of a mail."""
        if found := _SIMPLE_PATH.fullmatch(arg):
            return found[1], found[2]
        found_slowly: tuple[str | None, str | None] = super()._getaddr(arg)
        return found_slowly
