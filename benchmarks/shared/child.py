"""The child of `measuring.called`: calls one function and says on its last line what that took."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict

from benchmarks.shared.measuring import sample_of


def main(function: str, arguments: str) -> None:
    logging.getLogger("digest").setLevel(logging.ERROR)
    print(json.dumps(asdict(sample_of(function, json.loads(arguments)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
