"""One log file per part: the old one is kept beside it, and neither grows without bound."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

LARGEST = 10_000_000
"""Bytes at which a log file is put aside (one old file is kept)."""


class LogFile:
    """A file that a part writes to by itself; we only bound it.

    The part's descriptor appends, so the file can be cut to nothing under it: what was in it
    is copied aside first, and lines written in between are lost, at worst.
    """

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self.path = path
        self.old = path.with_name(path.name + ".1")
        self._largest = largest
        self._began: int | None = None  # where this run's lines begin; None before the first `open`

    def open(self) -> BinaryIO:
        """The file for a new process to append to."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.bound()
        file = self.path.open("ab")
        if self._began is None:
            self._began = file.tell()
        return file

    def bound(self) -> None:
        """Put the file aside if it is too large."""
        try:
            if self.path.stat().st_size < self._largest:
                return
        except FileNotFoundError:
            return
        shutil.copyfile(self.path, self.old)
        os.truncate(self.path, 0)
        if self._began is not None:
            self._began = 0

    def tail(self, lines: int = 10) -> list[str]:
        """The last lines that were written since the first `open`, without blank ones."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(self._began or 0, file.seek(0, os.SEEK_END) - 16_000))
                text = file.read().decode(errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]
