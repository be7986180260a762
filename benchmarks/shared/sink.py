"""Servers to send to, and Postfix's own client: what `./run bench send` is measured into and against."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from benchmarks.shared.measuring import ROOT


def postfix(program: str) -> list[str]:
    """One of Postfix's test programs, installed as root on Debian where it is absent; root may not run it as root."""
    if not _where(program) and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(
            ["apt-get", "install", "-qq", "-y", "postfix"], env=environment, capture_output=True, check=False
        )
    if not (found := _where(program)):
        raise RuntimeError(f"{program} is not here; install Postfix: apt-get install postfix")
    return [found]


def _where(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


@contextmanager
def smtp_sink() -> Iterator[int]:
    """Postfix's sink on a free port: it takes all mail and throws it away."""
    port = _free_port()
    user = ["-u", "postfix"] if os.geteuid() == 0 else []
    with _running([*postfix("smtp-sink"), *user, f"127.0.0.1:{port}", "1024"], port):
        yield port


@contextmanager
def fast_sink() -> Iterator[int]:
    """Ours, in a process of its own."""
    port = _free_port()
    with _running([sys.executable, "-m", "benchmarks.shared.sink", str(port)], port):
        yield port


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > ends:
                    raise RuntimeError(f"{command[0]} does not run") from None
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def smtp_source(port: int, sessions: int, length: int, count: int) -> None:
    """Postfix's client at its fastest: sessions stay open (-d), every mail is the same."""
    options = ["-d", "-s", str(sessions), "-l", str(length), "-m", str(count)]
    addresses = ["-f", "news@news.example", "-t", "reader@example.net"]
    subprocess.run(
        [*postfix("smtp-source"), *options, *addresses, f"127.0.0.1:{port}"], check=True, capture_output=True
    )


# ----------------------------------------------------------------------------- a sink that costs next to nothing


_REPLIES = {b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n", b"EHLO": b"250-sink\r\n250 PIPELINING\r\n"}
_END = b"\r\n.\r\n"


class Sink(asyncio.BufferedProtocol):
    """Answers every command and keeps nothing; of a body it looks for the end alone, where it was read to."""

    def __init__(self) -> None:
        self._buffer = bytearray(1 << 18)
        self._view, self._kept, self._in_body = memoryview(self._buffer), 0, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(b"220 sink ESMTP\r\n")

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._kept :]

    def buffer_updated(self, nbytes: int) -> None:
        start, end, replies = 0, self._kept + nbytes, []
        while start < end:
            at = self._buffer.find(_END if self._in_body else b"\r\n", start, end)
            if at < 0:
                break
            if self._in_body:
                reply, start, self._in_body = b"250 taken\r\n", at + 5, False
            else:
                verb = bytes(self._buffer[start : start + 4]).upper()
                reply, start, self._in_body = _REPLIES.get(verb, b"250 ok\r\n"), at + 2, verb == b"DATA"
            replies.append(reply)
        if self._in_body:
            start = max(start, end - 4)  # an end may be cut in two
        self._kept = end - start
        self._view[: self._kept] = bytes(self._view[start:end])
        if replies:
            self._transport.write(b"".join(replies))


def main(port: str) -> None:
    import uvloop

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", int(port), backlog=256)
        await server.serve_forever()

    uvloop.run(serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
