"""Whether the ports are free, and if not, who has them."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tpstream.errors import ConfigurationError

_LISTEN = "0A"  # state in /proc/net/tcp
PATIENCE = 1.0
"""Seconds that a process which is just ending is given to let go of a port."""


def check(host: str, ports: Mapping[str, int]) -> None:
    """Raise ConfigurationError for the first setting whose port cannot be listened on."""
    taken: dict[int, str] = {}
    for setting, port in ports.items():
        if port in taken:
            raise ConfigurationError(f"{taken[port]} and {setting} are both {port}; give one another port")
        taken[port] = setting
    deadline = time.monotonic() + PATIENCE
    for setting, port in ports.items():
        while (problem := _problem(host, port)) is not None:
            if problem == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise ConfigurationError(_message(host, port, setting, problem))


def _problem(host: str, port: int) -> int | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EINVAL
        except OverflowError:
            return errno.ERANGE
    return None


def _message(host: str, port: int, setting: str, problem: int) -> str:
    if problem == errno.EADDRINUSE:
        return f"port {port} ({setting}) is taken{_by(holder(port))}; stop that, or set {setting} to a free port"
    if problem == errno.EACCES:
        return f"port {port} ({setting}) needs more rights than this user has; set {setting} to one above 1023"
    if problem == errno.ERANGE:
        return f"{setting}={port} is no port; set it to one from 1024 to 65535"
    return f"cannot listen on {host}:{port} ({os.strerror(problem)}); check TPSTREAM_HOST and {setting}"


def _by(who: tuple[int, str] | None) -> str:
    return f" by {who[1]} (pid {who[0]})" if who else ""


def holder(port: int) -> tuple[int, str] | None:
    """The process that has a port, as (pid, name), where the kernel lets us see it."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not wanted:
        return None
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # another user's, or gone meanwhile
            for descriptor in (entry / "fd").iterdir():
                if os.readlink(descriptor) in wanted:
                    return int(entry.name), _name(entry)
    return None


def _name(entry: Path) -> str:
    """The command as one would look for it: `mosquitto`, or of a Python program its script too."""
    words = [w for w in (entry / "cmdline").read_bytes().decode(errors="replace").split("\0") if w]
    if not words:
        return (entry / "comm").read_text().strip()
    name = os.path.basename(words[0])
    return " ".join([name, *map(os.path.basename, words[1:4])]) if name.startswith("python") else name


def _inodes(port: int) -> set[str]:
    """The sockets on a local port, from the kernel's table: who listens, else who else has it.

    The second are clients: a port above 32767 may serve as the near end of any connection.
    """
    listening: set[str] = set()
    others: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rsplit(":", 1)[1], 16) == port:
                    (listening if fields[3] == _LISTEN else others).add(fields[9])
    return listening or others - {"0"}
