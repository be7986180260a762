"""A mail server that does as it is told, well or badly. For tests of whatever sends mail."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

DROP = b"drop"  # close the connection instead of a reply
LOST = b"lost"  # at DOT: take the message, then close the connection instead of saying so
SILENCE = b"silence"  # say nothing more


class Slowly(bytes):
    """A reply that comes an octet at a time."""


#: (verb, recipient) → what is written instead of the usual reply, or None. Verbs: CONNECT EHLO HELO MAIL RCPT DATA BODY
#: (the first octets of a body have come) DOT RSET QUIT. ``recipient`` is empty until RCPT names one.
Script = Callable[[str, str], bytes | None]


@dataclass(slots=True)
class Taken:
    mail_from: str
    rcpt: str
    message: bytes  # as it came, without the final dot


@dataclass
class Server:
    """``async with Server(...) as server``: a free port on loopback. ``early``: commands that came out of turn."""

    script: Script = lambda verb, rcpt: None
    pipelining: bool = True
    extensions: tuple[bytes, ...] = (b"8BITMIME",)
    delay: float = 0.0  # before every reply
    tls: ssl.SSLContext | None = None
    security: str = "none"  # or starttls, or tls: with the context above
    login: tuple[str, str] | None = None  # who may send; nobody need say so where it is None
    taken: list[Taken] = field(default_factory=list)
    sessions: list[list[str]] = field(default_factory=list)
    early: int = 0
    open_now: int = 0
    most_open: int = 0

    async def __aenter__(self) -> Server:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=1 << 26, ssl=self.tls if self.security == "tls" else None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, Dropped, asyncio.CancelledError):
                await Session(self, reader, writer).run()
        finally:
            self.open_now -= 1
            self._tasks.discard(task)
            writer.transport.abort()


class Dropped(Exception):
    pass


class Session:
    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.log: list[str] = []
        server.sessions.append(self.log)
        self.mail_from: str | None = None
        self.rcpt = ""
        self.named = ""  # the last recipient named, taken or not
        self.secured = server.security == "tls"
        self.signed_in = server.login is None

    async def say(self, verb: str, usual: bytes) -> bytes:
        """Reply as the script says, else as usual. Returns the reply."""
        reply = self.server.script(verb, self.named) or usual
        if self.server.delay:
            await asyncio.sleep(self.server.delay)
        if reply is DROP:
            raise Dropped
        if reply is LOST:
            return reply
        if reply is SILENCE:
            await asyncio.sleep(3600)
        for piece in map(bytes, zip(reply + b"\r\n")) if isinstance(reply, Slowly) else [reply + b"\r\n"]:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.001 if isinstance(reply, Slowly) else 0)
        return reply

    async def run(self) -> None:
        await self.say("CONNECT", b"220 test ESMTP")
        while line := await self.reader.readline():
            verb, _, argument = line.strip().decode("latin-1").partition(" ")
            self.log.append(line.strip().decode("latin-1"))
            early = bool(self.reader._buffer)  # type: ignore[attr-defined]
            if early and not self.server.pipelining:
                self.server.early += 1
            await getattr(self, f"on_{verb.lower()}", self.on_unknown)(argument)
            if verb == "QUIT":
                return

    async def on_unknown(self, argument: str) -> None:
        await self.say("?", b"500 5.5.2 what?")

    async def on_ehlo(self, argument: str) -> None:
        names = [b"test", *([b"PIPELINING"] if self.server.pipelining else []), *self.server.extensions]
        if self.server.security == "starttls" and not self.secured:
            names.append(b"STARTTLS")
        lines = [b"250-" + name for name in names[:-1]] + [b"250 " + names[-1]]
        await self.say("EHLO", b"\r\n".join(lines))

    async def on_helo(self, argument: str) -> None:
        await self.say("HELO", b"250 test")

    async def on_starttls(self, argument: str) -> None:
        if (await self.say("STARTTLS", b"220 go ahead")).startswith(b"220"):
            assert self.server.tls
            await self.writer.start_tls(self.server.tls)
            self.secured = True
            self.log.append("(TLS)")

    async def on_auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        if mechanism == "PLAIN":
            _, name, password = base64.b64decode(initial).decode().split("\0")
        else:
            name, password = [await self.ask(question) for question in (b"Username:", b"Password:")]
        self.signed_in = (name, password) == self.server.login
        await self.say("AUTH", b"235 2.7.0 welcome" if self.signed_in else b"535 5.7.8 who are you?")

    async def ask(self, question: bytes) -> str:
        self.writer.write(b"334 " + base64.b64encode(question) + b"\r\n")
        return base64.b64decode(await self.reader.readline()).decode()

    async def on_mail(self, argument: str) -> None:
        if not self.signed_in:
            await self.say("?", b"530 5.7.0 Authentication required")
            return
        if self.mail_from is not None:
            await self.say("?", b"503 5.5.1 nested MAIL")
            return
        if (await self.say("MAIL", b"250 2.1.0 Ok")).startswith(b"250"):
            self.mail_from = argument.partition(":<")[2].partition(">")[0]

    async def on_rcpt(self, argument: str) -> None:
        self.named = argument.partition(":<")[2].partition(">")[0]
        if self.mail_from is None:
            await self.say("RCPT", b"503 5.5.1 need MAIL")
        elif (await self.say("RCPT", b"250 2.1.5 Ok")).startswith(b"250"):
            self.rcpt = self.named

    async def on_data(self, argument: str) -> None:
        usual = b"354 go on" if self.rcpt else b"503 5.5.1 no valid recipients"
        if not (await self.say("DATA", usual)).startswith(b"354"):
            return
        message = await self._body()
        rcpt, mail_from, self.rcpt, self.mail_from = self.rcpt, self.mail_from, "", None
        reply = await self.say("DOT", b"250 2.0.0 Ok: queued" if rcpt else b"554 5.5.1 no valid recipients")
        if reply.startswith(b"250") or reply is LOST:
            self.server.taken.append(Taken(mail_from or "", rcpt, message))
        if reply is LOST:
            raise Dropped

    async def _body(self) -> bytes:
        lines = [await self.reader.readline()]
        if lines[0] != b".\r\n" and self.server.script("BODY", self.named) is DROP:
            raise Dropped
        while lines[-1] != b".\r\n":
            lines.append(await self.reader.readuntil(b"\n"))
        self.log.append(".")
        return b"".join(lines[:-1])

    async def on_rset(self, argument: str) -> None:
        self.mail_from, self.rcpt = None, ""
        await self.say("RSET", b"250 2.0.0 Ok")

    async def on_quit(self, argument: str) -> None:
        await self.say("QUIT", b"221 2.0.0 bye")
