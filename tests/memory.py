"""How much memory a process has held."""

from __future__ import annotations

import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_kb() -> int:
    """The most that this process has held since its program began, in KiB.

    Not getrusage on Linux: a child's ru_maxrss starts at its parent's, however large the test run has grown.
    """
    if STATUS.exists():
        return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
