"""What SpamAssassin thinks of a mail, where it is installed. Asks this machine alone: no network tests.

``$SPAMASSASSIN`` names another program to ask; set to nothing, nobody is asked.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from digest.rendering.gates import Gate

SECONDS = 60
_SCORE = re.compile(rb"X-Spam-Status:.*?score=(-?[0-9.]+).*?required=([0-9.]+).*?tests=([A-Z0-9_,\s]*)", re.S)


def score(message: bytes) -> tuple[float, float, str] | None:
    """(its score, from which on it is spam, the rules that fired); None without SpamAssassin, or where it fails."""
    if (program := shutil.which(os.environ.get("SPAMASSASSIN", "spamassassin"))) is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 — found on the PATH, local tests only
            [program, "--local"], input=message, capture_output=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _SCORE.search(done.stdout)
    return (float(found[1]), float(found[2]), "".join(found[3].decode().split())) if found else None


def gate(message: bytes) -> Gate | None:
    """None without SpamAssassin: then nobody was asked."""
    if (said := score(message)) is None:
        return None
    points, limit, rules = said
    if points >= limit:
        return Gate("spam", False, f"SpamAssassin gives it {points:g} of {limit:g} points ({rules}); change its words")
    return Gate("spam", True, f"{points:g} of {limit:g} points ({rules})")
