"""tpstream: the stream-processing heart of an IoT platform.

from tpstream import app, topics, Batch

app.window("temperature_10s", key="temperature", size="10s", aggregate="mean")

@app.batch_agent(topics.uplink_telemetry)
async def watch(batch: Batch) -> None:
    for record, message in batch.values():
        ...
"""

from tpstream.app import App, app
from tpstream.bus import topics
from tpstream.bus.batch import Batch
from tpstream.bus.stream import Event, Stream
from tpstream.bus.table import Table
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable

__all__ = [
    "App",
    "Batch",
    "ConfigurationError",
    "Event",
    "Stream",
    "Table",
    "TpstreamError",
    "Unavailable",
    "app",
    "topics",
]
__version__ = "0.1.0"
