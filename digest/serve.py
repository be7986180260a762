"""A parent and its children: web and worker on one machine, or several workers. Does no work of its own.

A child that dies is started again; so is one whose loop stands still, once it is killed. systemd, where it listens, is
told that the service is up, that it lives, and that it stops (sd_notify(3)).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from digest.bootstrap import build, renderer_of
from digest.config import Settings
from digest.errors import ConfigError, DigestError
from digest.web.app import serve as serve_web
from digest.worker import work

log = logging.getLogger("digest.serve")

#: A child that ends so soon after the start never came up.
_COMING_UP_S = 15.0
#: A worker that was not heard of for so long is stuck: leases of its batches ended long ago.
STUCK_S = 60.0
_SPAWN = multiprocessing.get_context("spawn")

#: What a child runs: (target, arguments). The target gets a ``beat`` as its last argument and calls it while it lives.
Plan = tuple[Callable[..., None], tuple[Any, ...]]


def _web(settings: Settings, host: str, port: int, _beat: Callable[[], None]) -> None:
    serve_web(build(settings), host, port)


def serve(settings: Settings, host: str, port: int) -> int:
    """Web and worker as two children of this process, until SIGTERM or SIGINT; see `supervise`."""
    return supervise(settings, {"web": (_web, (settings, host, port)), "worker": (work, (settings,))})


def workers(settings: Settings, processes: int) -> int:
    """*processes* workers, until SIGTERM or SIGINT; one needs no parent. See `supervise`."""
    if processes > 1:
        return supervise(settings, {f"worker-{n}": (work, (settings,)) for n in range(1, processes + 1)})
    told = _Systemd()
    _read_templates(settings)
    told.say("READY=1")
    work(settings, told.alive)
    return 0


def supervise(settings: Settings, plans: Mapping[str, Plan]) -> int:
    """Run children until SIGTERM or SIGINT, which is passed on to them; they finish what they have in hand.

    Returns 1 when a child cannot start at all (its port is taken, say).
    """
    build(settings).close()  # a schema behind, or a database that is not there, is told here and once
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    before = {sign: signal.signal(sign, stop) for sign in (signal.SIGTERM, signal.SIGINT)}
    told, started = _Systemd(), time.monotonic()
    _read_templates(settings)
    children = {name: Child.start(name, plan) for name, plan in plans.items()}
    told.say("READY=1")
    try:
        while not stopping:
            time.sleep(0.2)
            told.alive()
            for name, child in children.items():
                if stopping or not child.ended():
                    continue
                if time.monotonic() - started < _COMING_UP_S:  # it never came up: what is wrong was said by the child
                    return 1
                log.error("child.died name=%s exit=%s; starting it again", name, child.process.exitcode)
                time.sleep(1)
                children[name] = Child.start(name, plans[name])
    finally:
        told.say("STOPPING=1")
        for child in children.values():
            child.process.terminate()
        for child in children.values():
            child.process.join(30)
        for sign, handler in before.items():
            signal.signal(sign, handler)
    return 0


def _read_templates(settings: Settings) -> None:
    """Say what is wrong with templates of the operator's now, on a thread: nothing has to wait for it."""
    if settings.templates_dir is not None:
        threading.Thread(target=renderer_of(settings).read_all, name="templates", daemon=True).start()


@dataclass(slots=True)
class Child:
    """A process and when it was last heard of (monotonic seconds; 0: it has not beaten yet)."""

    process: Any
    heard: Any

    @classmethod
    def start(cls, name: str, plan: Plan) -> Child:
        heard = _SPAWN.Value("d", 0.0, lock=False)
        process = _SPAWN.Process(target=_child, args=(*plan, heard), name=f"digest-{name}")
        process.start()
        return cls(process, heard)

    def ended(self) -> bool:
        """Has it ended? One that beat once and then stopped is ended first."""
        if self.heard.value and time.monotonic() - self.heard.value > STUCK_S:
            log.error("child.stuck name=%s; ending it", self.process.name)
            self.process.kill()
            self.process.join(5)
        return not self.process.is_alive()


def _child(target: Callable[..., None], args: tuple[Any, ...], heard: Any) -> None:
    """A failure that a person can mend is one sentence on stderr, in a child too. It ends with its parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def beat() -> None:
        heard.value = time.monotonic()

    try:
        target(*args, beat)
    except (ConfigError, DigestError, OSError) as e:
        print(f"digest: {e}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """A parent that was killed can tell nobody: its children notice, and free the port."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


class _Systemd:
    """The service manager, if it listens: one datagram a message to $NOTIFY_SOCKET (sd_notify(3))."""

    def __init__(self) -> None:
        self._where = os.environ.pop("NOTIFY_SOCKET", "").replace("@", "\0", 1)  # ours alone, not the children's
        self._every = int(os.environ.get("WATCHDOG_USEC") or 0) / 2_000_000
        self._last = 0.0

    def say(self, message: str) -> None:
        if self._where:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                    s.setblocking(False)  # a manager that does not listen must not stop us
                    s.connect(self._where)
                    s.send(message.encode())
            except OSError as e:
                log.warning("systemd.deaf %s", e)

    def alive(self) -> None:
        """Feed the watchdog, at twice the pace it asks for."""
        if self._every and time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self.say("WATCHDOG=1")
