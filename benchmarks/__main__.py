"""Run benchmarks: print each figure as a JSON line, and write them to benchmarks/results/NAME.jsonl."""

from __future__ import annotations

import importlib
import platform
import sys
import time
from pathlib import Path

import msgspec

MODULES = {
    "encodings": "encodings",
    "lane": "lane",
    "windows": "tumbling",
    "whole": "whole",
    "recovery": "recovery",
    "memory": "memory",
    "workers": "workers",
    "outage": "outage",
    "store": "store",
    "end_to_end": "end_to_end",
}
"""What each benchmark is called, and where it is."""
RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; 1 if one failed, 2 if one is unknown."""
    if unknown := set(names) - set(MODULES):
        print(f"no benchmark {sorted(unknown)[0]!r}; there are {', '.join(MODULES)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    failed = 0
    for name in names or MODULES:
        module = importlib.import_module(f"benchmarks.{MODULES[name]}")
        with (RESULTS / f"{name}.jsonl").open("w", buffering=1) as file:
            where = {"machine": platform.machine(), "python": platform.python_version(), "at": int(time.time())}
            file.write(msgspec.json.encode(where).decode() + "\n")
            try:
                for figure in module.run():
                    print(figure.line(), flush=True)
                    file.write(figure.line() + "\n")
            except (RuntimeError, ExceptionGroup) as error:
                while isinstance(error, ExceptionGroup):
                    error = error.exceptions[0]
                print(f"{name}: {error}", file=sys.stderr)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
