"""`tpstream worker`, with a test's hand on it: it can be killed or stopped between two steps of a checkpoint.

python -m fault.campaign.worker [tpstream worker's options]; settings from the environment.

A file `at-KILL-STEP` or `at-STOP-STEP` in TPSTREAM_DATA_DIR has the process send itself that signal when its next
checkpoint has done that step; the file is removed before. FAULT_BREAK names a deliberate break (`breaks.py`).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from fault.campaign import breaks

from tpstream.bus.checkpoint import Checkpoint
from tpstream.cli.entry import run

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def order(folder: Path, what: str, step: str) -> Path:
    """The file that orders a worker with this data folder to kill or stop itself at a step."""
    return folder / f"at-{what}-{step}"


def obey(folder: Path) -> None:
    """Have each checkpoint of this process look for orders after each of its steps."""
    reached = Checkpoint.reached

    async def and_obey(self: Checkpoint, step: str) -> None:
        await reached(self, step)
        for what, number in SIGNALS.items():
            path = order(folder, what, step)
            if path.exists():
                path.unlink()
                os.kill(os.getpid(), number)

    Checkpoint.reached = and_obey  # type: ignore[method-assign]


if __name__ == "__main__":
    obey(Path(os.environ["TPSTREAM_DATA_DIR"]))
    if name := os.environ.get("FAULT_BREAK"):
        breaks.BREAKS[name]()
    sys.exit(run(["worker", *sys.argv[1:]]))
