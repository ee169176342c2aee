"""Apache Kafka with a second listener, whose advertised address is a proxy's: clients of that one never pass it by.

python -m fault.campaign.broker FOLDER PORT PROXIED ADVERTISED
"""

from __future__ import annotations

import sys
from pathlib import Path

from tpstream.embedded.apache import Apache

HOST = "127.0.0.1"


class Proxied(Apache):
    """A broker that listens on `port` for whoever may speak to it directly, and on `proxied` for a proxy."""

    def __init__(self, folder: Path, port: int, proxied: int, advertised: int) -> None:
        super().__init__(folder, HOST, port)
        self._second = (proxied, advertised)

    def properties(self, controller: int) -> str:
        """The usual ones, with the second listener."""
        proxied, advertised = self._second
        more = {
            "listeners": f"PROXIED://{HOST}:{proxied}",
            "advertised.listeners": f"PROXIED://{HOST}:{advertised}",
            "listener.security.protocol.map": "PROXIED:PLAINTEXT",
        }
        lines = []
        for line in super().properties(controller).splitlines():
            name, _, value = line.partition("=")
            lines.append(f"{name}={value},{more[name]}" if name in more else line)
        return "\n".join([*lines, ""])


if __name__ == "__main__":
    folder, *ports = sys.argv[1:]
    Proxied(Path(folder), *map(int, ports)).become()
