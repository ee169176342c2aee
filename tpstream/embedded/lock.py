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
            holder = _holder(self._fd)
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


def refuse_beside_up(data_dir: Path) -> None:
    """ConfigurationError where the folder is that of a `tpstream up` which did not start this process.

    Two workers would write the same state and take each other's place in `run/`, so that `up` no
    longer finds its own when it stops them.
    """
    try:
        fd = os.open(data_dir / "up.lock", os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(fd)
        if holder != str(os.getppid()):
            raise ConfigurationError(
                f"`tpstream up` (pid {holder}) has workers of its own in {data_dir}; to run your Python there "
                "start it again as `tpstream up --app DIR`, or set TPSTREAM_DATA_DIR to another folder"
            ) from None
    finally:
        os.close(fd)


def _holder(fd: int) -> str:
    return os.read(fd, 20).decode(errors="replace").strip() or "unknown"
