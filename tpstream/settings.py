"""Every setting once: typed, read from `TPSTREAM_*` in the environment or a TOML file.

`Settings.load()` is called once by the command line and handed down; nothing below reads
the environment. The environment wins over the file, the file over the default.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tpstream.errors import ConfigurationError

PREFIX = "TPSTREAM_"


def _setting(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings with their meaning; `tpstream settings` prints this table."""

    # Where things are
    host: str = _setting("127.0.0.1", "Address that the parts of `tpstream up` listen on")
    mqtt_port: int = _setting(1883, "Port of the bridge's MQTT endpoint")
    kafka_port: int = _setting(9092, "Port of the embedded Kafka-protocol broker")
    web_port: int = _setting(6066, "Port of the web console, REST API, /health and /metrics")
    store_port: int = _setting(8123, "Port of the store's ClickHouse HTTP interface")
    web_hosts: str = _setting(
        "", "Further host:port,… by which the web port may be called; else only loopback and host"
    )
    bridge_web_port: int = _setting(6067, "Port of the bridge's /health and /metrics")
    bridge_web_host: str = _setting("", "Where /health of the web port asks for the bridge; empty: host; -: nowhere")
    worker_web_port: int = _setting(6070, "First port tried by further workers for /health and /metrics")
    data_dir: Path = _setting(Path("var"), "Folder for state, the embedded store and logs")
    kafka: str = _setting("", "Kafka bootstrap servers host:port,…; empty: host and kafka_port")
    store_host: str = _setting("", "Host of the ClickHouse HTTP interface; empty: host")
    store_user: str = _setting("default", "User of the store")
    store_password: str = _setting("", "Password of the store")
    database: str = _setting("default", "Database of the store")
    tenant: str = _setting("default", "Tenant of devices that name none")
    app: str = _setting("", "Folder of the user's application (app.toml); empty: none")

    # Topics
    partitions: int = _setting(8, "Partitions of topics keyed by device, fixed for a life of the topics")
    replication: int = _setting(1, "Replicas of each topic partition")

    # Bridge
    bridge_way: str = _setting("endpoint", "Way in: `endpoint` (devices connect here) or `broker`")
    broker_url: str = _setting("mqtt://127.0.0.1:1884", "Broker for the way in `broker`")
    broker_client_id: str = _setting("tpstream-bridge-0", "Client id of the persistent session there")
    trusted_identity: str = _setting("login", "Trusted identity sources: login,prefix,topic,envelope")
    register_on_first_sight: bool = _setting(False, "Register unknown device numbers with the default profile")
    receive_maximum: int = _setting(20, "Unacknowledged publishes read from one connection")
    max_buffered_bytes: int = _setting(64_000_000, "Unacknowledged payload bytes over all connections")
    max_payload: int = _setting(1_000_000, "Bytes of a payload that is taken whole")
    max_packet: int = _setting(16_000_000, "Bytes of an MQTT packet; above, the connection is closed")
    max_connections: int = _setting(50_000, "Device connections of one bridge")

    # Worker
    roles: str = _setting("process,store", "Roles of a worker: process, store")
    instance: str = _setting(
        "",
        "Name of this worker that outlives its process (static membership): a restart moves no partitions; empty: none",
    )
    standbys: bool = _setting(True, "Follow the tables of another worker's partitions, to take over at once")
    session_timeout: float = _setting(15.0, "Seconds after which Kafka gives a silent worker's partitions away")
    checkpoint_ms: int = _setting(1_000, "Milliseconds between checkpoints of the role process")
    table_keys: int = _setting(200_000, "Keys of a table that one worker keeps in memory; the others are on its disk")
    store_ms: int = _setting(500, "Milliseconds after which the store's batch is written at the latest")
    store_rows: int = _setting(50_000, "Rows at which the store's batch is written at once")
    fetch_wait_ms: int = _setting(200, "Milliseconds that Kafka may hold a fetch that has nothing to bring")
    linger_ms: int = _setting(
        20, "Milliseconds at least between two requests of one process to Kafka while records flow"
    )
    lane_records: int = _setting(20_000, "Records buffered per partition before its fetching pauses")
    lane_bytes: int = _setting(1_500_000, "Bytes of memory that records take per partition before its fetching pauses")
    handler_seconds: float = _setting(60.0, "Seconds that one batch may take in a handler")
    retention_days: float = _setting(0.0, "Points older than this go to tp.late.v1 only; 0: kept for ever")
    clock_ahead_hours: float = _setting(24.0, "Points further ahead than this are dead letters `clock`")
    mqtt_repeats: str = _setting("drop", "What a device, or its broker, sends again (docs/decode.md): drop or keep")
    mqtt_repeats_records: int = _setting(32, "Last records of a device among which a repeat is looked for")
    mqtt_repeats_seconds: int = _setting(3600, "Seconds after which a message is no repeat any more")
    broker_snapshot_seconds: int = _setting(
        60, "Seconds within which a broker that was killed repeats without DUP; 0: DUP is always required"
    )

    # Scripts (docs/scripts.md)
    script_cpu_ms: int = _setting(25, "CPU budget of one script call, ms")
    script_wall_ms: int = _setting(100, "A script is stopped at the latest after this, ms")
    script_memory_bytes: int = _setting(8_000_000, "Memory budget of a script")
    script_max_chars: int = _setting(50_000, "Characters of a script")
    script_max_result: int = _setting(300_000, "Bytes of a script's result")

    # Downlink
    command_timeout: float = _setting(30.0, "Seconds to wait for a device's answer to a command")
    command_attempts: int = _setting(3, "Times a command is sent before it is TIMED_OUT")
    command_expiry: float = _setting(3600.0, "Seconds after which an undelivered command is EXPIRED")

    # Embedded
    kafka_memory_mb: int = _setting(512, "Memory at which `up` begins a new life of the embedded broker")
    stop_seconds: float = _setting(10.0, "Seconds for an orderly stop of `up`")

    @property
    def bootstrap(self) -> str:
        """Kafka bootstrap servers, comma separated host:port."""
        return self.kafka or f"{self.host}:{self.kafka_port}"

    @property
    def store_address(self) -> tuple[str, int]:
        """Host and port of the ClickHouse HTTP interface."""
        return (self.store_host or self.host, self.store_port)

    @property
    def reached_host(self) -> str:
        """The host at which this machine reaches what listens on `host`: every address is none to call."""
        return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)

    @property
    def store_reached(self) -> tuple[str, int]:
        """`store_address`, as one calls it."""
        return (self.store_host or self.reached_host, self.store_port)

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        config: Path | None = None,
        defaults: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Settings:
        """Settings from overrides, else the environment, else the TOML file, else the defaults.

        `defaults` replaces some of the declared defaults: what a person did set wins over it.
        Raises ConfigurationError naming the setting that is unknown or has a bad value.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {**(defaults or {}), **(_from_file(config) if config else {})}
        known = {f.name for f in fields(cls)}
        for name, text in environ.items():
            if name.startswith(PREFIX) and name[len(PREFIX) :].lower() in known:
                values[name[len(PREFIX) :].lower()] = text
        values.update({k: v for k, v in overrides.items() if v is not None})
        return cls(**{f.name: _convert(f.name, str(f.type), values[f.name]) for f in fields(cls) if f.name in values})

    def environ(self) -> dict[str, str]:
        """The settings as environment variables, to hand them to a child process."""
        return {PREFIX + f.name.upper(): str(getattr(self, f.name)) for f in fields(self)}


def _from_file(path: Path) -> Mapping[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"cannot read settings {path}: {error.strerror}; check --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    values = content.get("tpstream", content)
    unknown = set(values) - {f.name for f in fields(Settings)}
    if unknown:
        raise ConfigurationError(f"{path}: unknown setting {sorted(unknown)[0]!r}; `tpstream settings` lists them all")
    return dict(values)


_MAY_BE_ZERO = frozenset(
    {
        "checkpoint_ms",
        "store_ms",
        "fetch_wait_ms",
        "linger_ms",
        "retention_days",
        "clock_ahead_hours",
        "broker_snapshot_seconds",
        "stop_seconds",
    }
)
_PORTS = frozenset(f.name for f in fields(Settings) if f.name.endswith("_port"))
_GREATEST = {"receive_maximum": 65_535, "mqtt_repeats_records": 1_024} | dict.fromkeys(_PORTS, 65_535)
"""What MQTT and TCP have room for, and a table's value."""

_CHOICES = {"mqtt_repeats": ("drop", "keep")}


def _in_range(name: str, number: float) -> float:
    least = "0" if name in _MAY_BE_ZERO | _PORTS else "above 0"
    greatest = _GREATEST.get(name, math.inf)
    if not (0 <= number <= greatest and number < math.inf) or (number == 0 and least != "0"):
        limit = f"up to {greatest}" if greatest < math.inf else "or more" if least == "0" else "and finite"
        raise ConfigurationError(f"{PREFIX}{name.upper()}={number} is out of range; set it to a number {least} {limit}")
    return number


def _convert(name: str, kind: str, value: Any) -> Any:
    text = str(value).strip()
    if name in _CHOICES and text not in _CHOICES[name]:
        raise ConfigurationError(f"{PREFIX}{name.upper()}={text!r} is neither {' nor '.join(_CHOICES[name])}")
    try:
        if kind == "bool":
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        if kind == "int":
            return _in_range(name, int(text))
        if kind == "float":
            return _in_range(name, float(text))
        return Path(text) if kind == "Path" else text
    except (ValueError, KeyError):
        raise ConfigurationError(f"{PREFIX}{name.upper()}={text!r} is not of type {kind}") from None
