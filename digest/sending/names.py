"""Who works here: names of senders, and whether the process behind one is gone. Knows no lease."""

from __future__ import annotations

import os
import socket
import uuid
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def _host() -> str:
    """This boot of this host: a process number means nothing on another."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "-"
    return f"{socket.gethostname()}:{boot}"


def _started(pid: int) -> str | None:
    """When that process began, in clock ticks since boot; None: there is none; '': the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        return "" if _answers(pid) else None
    except (OSError, IndexError):
        return ""


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def worker_name() -> str:
    """A name for one sender of this process: host, boot, process, its start, and a word of its own."""
    pid = os.getpid()
    return f"{_host()}:{pid}:{_started(pid) or ''}:{uuid.uuid4().hex[:8]}"


def is_gone(worker: str) -> bool:
    """True when that worker's process ran on this very host and is no more: its leases are void at once."""
    parts = worker.rsplit(":", 3)
    if len(parts) != 4 or parts[0] != _host() or not parts[1].isdigit():
        return False
    started = _started(int(parts[1]))
    return started is None or (started != "" and started != parts[2])
