"""Web and worker on one machine: a parent with two children, the embedded default. Does no work of its own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from digest.bootstrap import build
from digest.config import Settings
from digest.errors import ConfigError, DigestError
from digest.web.app import serve as serve_web
from digest.worker import work

log = logging.getLogger("digest.serve")

#: A child that ends so soon after the start never came up.
_COMING_UP_S = 15.0


def _web(settings: Settings, host: str, port: int) -> None:
    serve_web(build(settings), host, port)


def serve(settings: Settings, host: str, port: int) -> int:
    """Web and worker as two children of this process, until SIGTERM or SIGINT. A child that dies is started again.

    Returns 1 when the web cannot start at all (its port is taken, say).
    """
    build(settings).close()  # a schema behind, or a database that is not there, is told here and once
    spawn = multiprocessing.get_context("spawn")
    plans: dict[str, Any] = {"web": (_web, (settings, host, port)), "worker": (work, (settings,))}
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    before = {sign: signal.signal(sign, stop) for sign in (signal.SIGTERM, signal.SIGINT)}
    children = {name: _start(spawn, name, *plan) for name, plan in plans.items()}
    started = time.monotonic()
    try:
        while not stopping:
            time.sleep(0.2)
            for name, child in children.items():
                if child.is_alive() or stopping:
                    continue
                if time.monotonic() - started < _COMING_UP_S:  # it never came up: what is wrong was said by the child
                    return 1
                log.error("child.died name=%s exit=%s; starting it again", name, child.exitcode)
                time.sleep(1)
                children[name] = _start(spawn, name, *plans[name])
    finally:
        for child in children.values():
            child.terminate()
        for child in children.values():
            child.join(30)
        for sign, handler in before.items():
            signal.signal(sign, handler)
    return 0


def _start(spawn: Any, name: str, target: Any, args: tuple[Any, ...]) -> Any:
    child = spawn.Process(target=_child, args=(target, args), name=f"digest-{name}")
    child.start()
    return child


def _child(target: Any, args: tuple[Any, ...]) -> None:
    """A failure that a person can mend is one sentence on stderr, in a child too. It ends with its parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        target(*args)
    except (ConfigError, DigestError, OSError) as e:
        print(f"digest: {e}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """A parent that was killed can tell nobody: its children notice, and free the port."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
