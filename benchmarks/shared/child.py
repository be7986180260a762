"""The child of `measuring.in_child`: calls one function and says on its last line what that took."""

from __future__ import annotations

import importlib
import json
import logging
import sys

from benchmarks.shared.measuring import Clock, peak_mb


def main(function: str, arguments: str) -> None:
    module, _, name = function.partition(":")
    logging.getLogger("digest").setLevel(logging.ERROR)
    call = getattr(importlib.import_module(module), name)
    with Clock() as clock:
        result = call(**json.loads(arguments))
    print(json.dumps({"wall": clock.wall, "cpu": clock.cpu, "peak_mb": peak_mb(), "result": result}))


if __name__ == "__main__":
    main(*sys.argv[1:])
