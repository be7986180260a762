"""Between workers and PostgreSQL: a proxy that loses the acknowledgement of a commit, or stops to pass anything on.

What is lost here was committed there: the worker hears of a broken connection and cannot know. Stopped, it is a network
that swallows everything until it heals.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import socket
from pathlib import Path

_SOCKET = ".s.PGSQL.5432"
_IDLE = b"Z\x00\x00\x00\x05I"  # ready for a query, outside a transaction


def _acknowledges(data: bytes) -> bool:
    """Whether the server says that something is committed: a transaction, or a sender's one statement."""
    return data.endswith(_IDLE) and (b"COMMIT\x00" in data or b"SELECT 1\x00" in data)


class Proxy:
    """``with Proxy(folder, folder of the server's socket) as proxy``: PostgreSQL is in reach at ``proxy.folder``."""

    def __init__(self, folder: Path, server: Path) -> None:
        self.folder, self._server = folder / "proxy", server
        self.folder.mkdir()
        self._wanted = mmap.mmap(-1, 1)

    def __enter__(self) -> Proxy:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.folder / _SOCKET))
        listener.listen(200)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                asyncio.run(self._serve(listener))
            finally:
                os._exit(0)
        listener.close()
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def lose_a_commit(self) -> None:
        """Swallow the next acknowledgement of a commit, and hang up."""
        self._wanted[0] = 1

    @property
    def waits(self) -> bool:
        """Whether that one is still to come."""
        return bool(self._wanted[0])

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def heal(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_unix_server(self._meet, sock=listener)
        await server.serve_forever()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(str(self._server / _SOCKET))
        except OSError:
            writer.close()
            return
        ways = [self._pass(reader, up_writer, watched=False), self._pass(up_reader, writer, watched=True)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        writer.close()
        up_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, watched: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                if watched and self._wanted[0] and _acknowledges(data):
                    self._wanted[0] = 0
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return
