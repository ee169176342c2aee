"""`tpstream up` with the real broker and stand-ins for the other parts; settings from the environment.

python stand_in_up.py EVENTS [NAME=OPTIONS …]: OPTIONS are those of stand_in.py, or `real` for the part itself.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

from tpstream.cli.up import DEFAULTS, run
from tpstream.embedded import parts
from tpstream.errors import TpstreamError
from tpstream.settings import Settings


def main(events: str, options: dict[str, str]) -> int:
    """Supervise until told to stop; the exit code."""
    settings = Settings.load(defaults=DEFAULTS)
    stand_in = Path(__file__).with_name("stand_in.py")
    ports = {
        parts.STORE: settings.store_port,
        parts.BRIDGE: settings.bridge_web_port,
        parts.WORKER: settings.web_port,
    }

    def stood_in(name: str) -> list[str]:
        announce = ["--announce", str(settings.data_dir)] if name == parts.WORKER_STORE else []
        listen = ["--listen", str(settings.mqtt_port)] if name == parts.BRIDGE else []
        more = shlex.split(options.get(name, ""))
        return [sys.executable, "-P", str(stand_in), name, str(ports.get(name, 0)), events, *announce, *listen, *more]

    wanted = {
        name: part if name == parts.KAFKA or options.get(name) == "real" else replace(part, command=stood_in(name))
        for name, part in parts.parts(settings, simulate=True).items()
    }
    try:
        return run(settings, wanted)
    except TpstreamError as error:
        print(f"tpstream: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], dict(text.split("=", 1) for text in sys.argv[2:])))
