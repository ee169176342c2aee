"""The bridge's metrics, read from its counts when Prometheus asks: nothing on the hot path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from connectors.mqtt_bridge.counts import Counts

CONTENT_TYPE: str = CONTENT_TYPE_LATEST

PREFIX = "tpstream_bridge_"

_COUNTERS = {
    "published": "Publishes taken from devices",
    "published_bytes": "Payload bytes taken from devices",
    "acknowledged": "Publishes that Kafka has acknowledged",
    "dropped_qos0": "QoS 0 publishes dropped at TPSTREAM_MAX_BUFFERED_BYTES",
    "connected": "Connections that devices opened",
    "downlinks": "Records of the downlink topic read",
    "downlinks_sent": "Downlinks handed to a subscribed connection or the broker",
    "downlinks_dropped": "Downlinks that found a device's queue full",
    "downlinks_unreadable": "Records of the downlink topic that are no publish to a device",
    "receipts": "Receipts written to the raw topic",
}
_LABELLED = {
    "refused": "Publishes refused, by reason",
    "refused_connections": "Connections refused, by reason",
    "disconnected": "Connections that ended, by reason",
}

Gauges = Mapping[str, tuple[str, Callable[[], float]]]
"""Name to meaning and present value."""


class Metrics:
    """A registry of its own, as several bridges may live in one process (tests)."""

    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self._counts = counts
        self._gauges = gauges
        self._registry = CollectorRegistry()
        self._registry.register(self)  # type: ignore[arg-type]
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        for name, meaning in _COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, meaning, value=getattr(self._counts, name))
        for name, meaning in _LABELLED.items():
            family = CounterMetricFamily(PREFIX + name, meaning, labels=("reason",))
            for reason, value in getattr(self._counts, name).items():
                family.add_metric((reason,), value)
            yield family
        for name, (meaning, value) in self._gauges.items():
            yield GaugeMetricFamily(PREFIX + name, meaning, value=value())

    def render(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
