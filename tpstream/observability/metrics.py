"""The metrics of a worker, declared once each; `GET /metrics` serves them to Prometheus.

Every process has its own registry and is a scrape target of its own. Counters are touched
once per batch, never per message, so that they cost nothing on the hot path.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE: str = CONTENT_TYPE_LATEST
"""The Content-Type of `render()`."""

REGISTRY = CollectorRegistry()
"""All metrics of this process; other parts (the bridge, the store's front) add their own here."""

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

MESSAGES = Counter("tpstream_messages", "Records handled, by agent", ("agent",), registry=REGISTRY)
POINTS = Counter("tpstream_points", "Points decoded from telemetry or stored, by agent", ("agent",), registry=REGISTRY)
BATCHES = Counter("tpstream_batches", "Batches handled, by agent", ("agent",), registry=REGISTRY)
HANDLER_SECONDS = Histogram(
    "tpstream_handler_seconds",
    "Seconds that a handler took for one batch",
    ("agent",),
    buckets=_SECONDS,
    registry=REGISTRY,
)
HANDLER_ERRORS = Counter(
    "tpstream_handler_errors",
    "Batches that a handler raised for, by kind (unavailable, error)",
    ("agent", "kind"),
    registry=REGISTRY,
)
DEAD_LETTERS = Counter(
    "tpstream_dead_letters",
    "Messages that could not be handled, by stage and reason",
    ("stage", "reason"),
    registry=REGISTRY,
)
REPEATS = Counter(
    "tpstream_repeats_dropped",
    "Raw records that only say again what an earlier one has said, by who repeated (bridge, device)",
    ("source",),
    registry=REGISTRY,
)
LATE_POINTS = Counter("tpstream_late_points", "Points that came too late, by reason", ("reason",), registry=REGISTRY)
INPUT_MISSED = Counter(
    "tpstream_input_missed",
    "Offsets that were not there any more when they were to be read, by topic",
    ("topic",),
    registry=REGISTRY,
)
QUARANTINED = Counter(
    "tpstream_state_quarantined",
    "Stored values and changelog records that are not ours and were set aside, by table",
    ("table",),
    registry=REGISTRY,
)
ROWS = Counter("tpstream_rows", "Rows that the store has acknowledged, by table", ("table",), registry=REGISTRY)

LAG = Gauge(
    "tpstream_lag_records",
    "Records in the topic that this worker has not committed",
    ("topic", "partition"),
    registry=REGISTRY,
)
SINCE_PROGRESS = Gauge(
    "tpstream_since_progress_seconds",
    "Seconds that a partition with lag has not moved",
    ("topic", "partition"),
    registry=REGISTRY,
)
BUFFERED = Gauge(
    "tpstream_buffered_records", "Records fetched and waiting for their agent", ("agent",), registry=REGISTRY
)
OLDEST_UNSTORED = Gauge(
    "tpstream_oldest_unstored_seconds", "Age of the oldest message that is not durable yet, seconds", registry=REGISTRY
)
CHECKPOINT_SECONDS = Histogram(
    "tpstream_checkpoint_seconds",
    "Seconds that a checkpoint took, by role",
    ("role",),
    buckets=_SECONDS,
    registry=REGISTRY,
)
PRODUCE_BACKLOG = Gauge(
    "tpstream_produce_backlog_records", "Records produced and not acknowledged by Kafka", registry=REGISTRY
)
PRODUCE_BACKLOG_BYTES = Gauge(
    "tpstream_produce_backlog_bytes", "Bytes produced and not acknowledged by Kafka", registry=REGISTRY
)
WEB_REQUESTS = Counter(
    "tpstream_web_requests", "Requests to the console and the API, by status", ("status",), registry=REGISTRY
)


def render() -> bytes:
    """All metrics of this process in Prometheus' text format (`CONTENT_TYPE`)."""
    return generate_latest(REGISTRY)
