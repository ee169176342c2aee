"""One `tpstream up` per data directory."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType

from tpstream.errors import ConfigurationError, TpstreamError

LEAST_FREE = 100_000_000
"""Bytes that must be free to begin: chdb and RocksDB fail in strange ways on a full disk."""


class Lock:
    """Held while `with Lock(data_dir):`; the kernel releases it however we end.

    Raises ConfigurationError naming the process that holds it, or why the folder is of no use.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "up.lock"
        self._fd = -1

    def __enter__(self) -> Lock:
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < LEAST_FREE:
                raise TpstreamError(
                    f"{folder}: the disk is full ({free // 1_000_000} MB free, {LEAST_FREE // 1_000_000} MB needed); "
                    "free some space, or set TPSTREAM_DATA_DIR"
                )
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise TpstreamError(f"{folder}: the disk is full; free some space, or set TPSTREAM_DATA_DIR") from None
            raise ConfigurationError(
                f"{folder}: cannot be the data directory ({error.strerror}); set TPSTREAM_DATA_DIR"
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 20).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise ConfigurationError(
                f"another `tpstream up` (pid {holder}) runs in {folder}; stop it, or set TPSTREAM_DATA_DIR"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
