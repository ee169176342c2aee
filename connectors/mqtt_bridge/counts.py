"""What the bridge counts: plain integers, touched on the hot path, read by `metrics` when asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """Counters since the bridge started. Each is a metric of the same name (`metrics`)."""

    published: int = 0
    """Publishes taken from devices."""
    published_bytes: int = 0
    acknowledged: int = 0
    """Publishes that Kafka has acknowledged."""
    dropped_qos0: int = 0
    """QoS 0 publishes dropped, as TPSTREAM_MAX_BUFFERED_BYTES was reached."""
    refused: Counter[str] = field(default_factory=Counter)
    """Publishes refused, by reason; each is a record in the raw topic."""
    connected: int = 0
    refused_connections: Counter[str] = field(default_factory=Counter)
    disconnected: Counter[str] = field(default_factory=Counter)
    """Connections that ended, by reason."""
    downlinks: int = 0
    """Records of tp.downlink.mqtt.v1 read."""
    downlinks_sent: int = 0
    """Downlinks handed to a subscribed connection, or to the broker."""
    downlinks_dropped: int = 0
    """Downlinks that found a device's queue full; agents/downlink sends them again."""
    downlinks_unreadable: int = 0
    receipts: int = 0
