"""Where a process serves its /health: a file in the data directory, found by `tpstream health`."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple


class Announcement(NamedTuple):
    """A process of ours, as it announced itself."""

    name: str
    pid: int
    port: int


def announce(data_dir: Path, name: str, port: int) -> Path:
    """Write `run/<name>.json` (name, pid, port), whole or not at all; the path is returned."""
    folder = data_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    fresh = folder / f".{name}.{os.getpid()}"
    fresh.write_text(json.dumps({"name": name, "pid": os.getpid(), "port": port}))
    fresh.replace(path)
    return path


def withdraw(path: Path) -> None:
    """Remove an announcement, if it is still this process's own."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()


def announced(data_dir: Path) -> list[Announcement]:
    """The announcements of processes that are alive, by name; those of dead ones are passed over."""
    found = []
    for path in sorted((data_dir / "run").glob("*.json")):
        try:
            content = json.loads(path.read_text())
            one = Announcement(str(content["name"]), int(content["pid"]), int(content["port"]))
            os.kill(one.pid, 0)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found.append(one)
    return found
