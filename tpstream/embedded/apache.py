"""Apache Kafka as a part of `up` and of tests: one KRaft node from the jars that `make kafka` brings.

It is persistent: everything is in one folder, and a restart, orderly or not, goes on with it.
Its settings are those of the compose stack (deploy/kafka/server.properties); only addresses and
folders are its own.

`python -m tpstream.embedded.apache FOLDER HOST PORT` formats the folder where it is new and
becomes the broker, keeping its process id.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tpstream.bus.provision import connect
from tpstream.errors import ConfigurationError, Unavailable
from tpstream.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
LIBS = CHECKOUT / "var" / "kafka" / "libs"
"""Where `make kafka` puts the jars."""

PROPERTIES = CHECKOUT / "deploy" / "kafka" / "server.properties"

JAVA = 17
"""The oldest Java that a Kafka 4 broker runs on."""

HEAP = "-Xmx512m"
"""As KAFKA_HEAP_OPTS in docker-compose.yml."""

_CONTROLLER_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections."""


class Apache:
    """A broker on host:port whose topics, offsets and settings are in `folder`."""

    def __init__(self, folder: Path, host: str, port: int, libs: Path = LIBS) -> None:
        self.folder = folder.absolute()
        self.host = host
        self.port = port
        self.libs = libs
        self._data = self.folder / "data"
        self._properties = self.folder / "server.properties"

    def check(self) -> None:
        """Raise ConfigurationError with the remedy where it cannot run on this machine."""
        if not PROPERTIES.is_file():
            raise ConfigurationError(
                f"Apache Kafka runs from a checkout of tpstream, and {PROPERTIES} is not here; "
                "set TPSTREAM_KAFKA to the bootstrap servers of a Kafka of your own"
            )
        if not any(self.libs.glob("kafka_*.jar")):
            raise ConfigurationError(f"Apache Kafka's jars are not in {self.libs}; run `make kafka` in {CHECKOUT}")
        found = java_release()
        if found is None:
            raise ConfigurationError("Apache Kafka needs Java, and there is none; run `make kafka`, or install it")
        if found < JAVA:
            raise ConfigurationError(
                f"Apache Kafka needs Java {JAVA} or newer, and {java()} is {found}; "
                "run `make kafka`, or set JAVA_HOME to a newer one"
            )

    def command(self) -> list[str]:
        """The command line of its process."""
        return [sys.executable, "-m", __name__, str(self.folder), self.host, str(self.port), str(self.libs)]

    def properties(self, controller: int) -> str:
        """Its server.properties: the compose stack's with this broker's addresses and folders.

        `controller` is the port on which the node speaks to itself; any free one, at each start.
        """
        reached = Settings(host=self.host).reached_host
        own = {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"HOST://{self.host}:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"HOST://{reached}:{self.port}",
            "inter.broker.listener.name": "HOST",
            "log.dirs": str(self._data),
            # A broker that was killed is taken back when its old session has ended: 9 s, unless said.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }
        lines = [
            line for line in PROPERTIES.read_text().splitlines() if "=" in line and line.split("=", 1)[0] not in own
        ]
        return "\n".join([*lines, *(f"{name}={value}" for name, value in own.items()), ""])

    def become(self) -> None:
        """Make the folder where it is new, then replace this process by the broker's."""
        self.check()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(self.properties(_free_port()))
        if not (self._data / "meta.properties").is_file():
            self._format()
        command = self._java("kafka.Kafka", str(self._properties))
        os.execv(command[0], command)

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # Java's tools take an id that begins with a dash for an option.
        words = ("format", "--ignore-formatted", f"--cluster-id=K{cluster[1:]}", "--config", str(self._properties))
        done = subprocess.run(self._java("kafka.tools.StorageTool", *words), capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["no reason given"]
            raise ConfigurationError(f"{self._data} could not be made Apache Kafka's folder: {lines[-1].strip()}")

    def _java(self, program: str, *words: str) -> list[str]:
        return [
            java() or "java",
            HEAP,
            "-XX:+ExitOnOutOfMemoryError",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
            "-cp",
            f"{self.libs}/*",
            program,
            *words,
        ]


def java() -> str | None:
    """The program: of JAVA_HOME, else of the PATH."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(f"{home}/bin/java" if home else "java")


def java_release() -> int | None:
    """Its feature release (17, 21, …); None where there is no Java that runs."""
    program = java()
    if program is None:
        return None
    with suppress(OSError):
        said = subprocess.run([program, "-version"], capture_output=True, text=True).stderr
        if found := re.search(r'version "(?:1\.)?(\d+)', said):
            return int(found[1])
    return None


async def serves(bootstrap: str) -> bool:
    """Whether the broker answers for itself and leads every partition that it has."""
    with suppress(Unavailable, OSError, TimeoutError):
        admin = await connect(bootstrap, 0.0)
        try:
            there = await admin.describe_topics()
        finally:
            await admin.close()
        return all(place["leader"] >= 0 for topic in there for place in topic["partitions"])
    return False


def _free_port() -> int:
    for port in _CONTROLLER_PORTS[os.getpid() % 1_000 :]:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ConfigurationError("no port from 20000 to 31999 is free on 127.0.0.1; stop what holds them")


def main(words: Sequence[str]) -> int:
    """FOLDER HOST PORT [LIBS]; returns only where the broker could not be begun: 2."""
    folder, host, port, *libs = words
    try:
        Apache(Path(folder), host, int(port), *map(Path, libs)).become()
    except ConfigurationError as error:
        print(f"kafka: {error}", file=sys.stderr)
    except OSError as error:
        print(
            f"kafka: {folder}: {error.strerror} ({error.filename}); free the disk or check its rights", file=sys.stderr
        )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
