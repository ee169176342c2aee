"""What `tpstream up` says when everything runs: where it is, what goes on, what to try."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from tpstream.embedded import parts
from tpstream.settings import Settings

TOPIC, PAYLOAD = "devices/my-first/telemetry", '{"temperature":21.5}'


def summary(settings: Settings, names: set[str], *, program: str, publisher: str | None, forgets: bool = True) -> str:
    """The text.

    `program`: how the user calls us; `publisher`: mosquitto_pub where it is installed; `forgets`:
    whether our Kafka keeps its records in memory only.
    """
    host = settings.host
    rows = [
        ("console", f"http://{host}:{settings.web_port}/", "devices, charts, alarms, commands; /health, /metrics"),
        ("MQTT", f"mqtt://{host}:{settings.mqtt_port}", "devices connect here"),
        ("SQL", "http://{}:{}/".format(*settings.store_address), "ClickHouse's HTTP interface, for BI tools"),
        ("Kafka", settings.bootstrap, "topics tp.*"),
        ("logs", str(_near(settings.data_dir / "log")), "one file per part"),
    ]
    width = max(len(where) for _, where, _ in rows)
    lines = ["", *(f"  {what:<9}{where:<{width}}  {why}" for what, where, why in rows), ""]
    if parts.SIMULATOR in names:
        lines += [
            "  Six simulated greenhouses report their temperature each second. Above 30 for two windows of",
            "  ten seconds a rule raises an alarm and turns their fan on; below 28 it clears and turns it off.",
            "",
        ]
    lines += [
        "  Try:",
        f"    {_publish(settings, publisher)}",
        f"""    {program} sql "SELECT device, key, ts, number FROM telemetry_latest ORDER BY ts DESC LIMIT 5\"""",
        f"    {program} {_act(names)}",
        "",
    ]
    if parts.KAFKA in names and forgets:
        lines += [
            "  The embedded Kafka keeps its records in memory: what it has acknowledged and the store does",
            "  not have yet is lost if that broker dies. Stopping with Ctrl+C loses nothing.",
            "",
        ]
    elif parts.KAFKA in names:
        lines += [
            f"  Kafka keeps its records in {_near(settings.data_dir / 'kafka')}. Stopping with Ctrl+C loses nothing.",
            "",
        ]
    return "\n".join(lines)


def program() -> str:
    """How the user can call us from here: the bare name where the PATH knows it, else the path."""
    found = shutil.which("tpstream")
    ours = Path(sys.argv[0]).absolute()
    if ours.name != "tpstream" or not ours.exists():
        ours = Path(sys.executable).parent / "tpstream"
    if found is not None and Path(found).resolve() == ours.resolve():
        return "tpstream"
    return shlex.quote(str(_near(ours)))


def publisher() -> str | None:
    """The program mosquitto_pub, where it is installed."""
    return shutil.which("mosquitto_pub") and "mosquitto_pub"


def _publish(settings: Settings, publisher: str | None) -> str:
    where = f"-h {settings.host} " if settings.host != "127.0.0.1" else ""
    if publisher:
        return f"{publisher} {where}-p {settings.mqtt_port} -q 1 -t {TOPIC} -m '{PAYLOAD}'"
    python = shlex.quote(str(_near(Path(sys.executable))))
    call = f'single("{TOPIC}", """{PAYLOAD}""", 1, hostname="{settings.host}", port={settings.mqtt_port})'
    # paho logs its own good-bye as an error, which Python shows where nobody set up logging.
    return f"{python} -c 'import logging, paho.mqtt.publish as mqtt; logging.disable(); mqtt.{call}'"


def _act(names: set[str]) -> str:
    """A command where somebody is there to answer it, else the way to have somebody."""
    if parts.SIMULATOR in names:
        return """send greenhouse-1 fan '{"on":true}'"""
    return "simulate --devices 2  # greenhouses that answer the command fan"


def _near(path: Path) -> Path:
    """The path relative to where the user is, where that is shorter."""
    try:
        return path.absolute().relative_to(Path(os.getcwd()))
    except ValueError:
        return path
