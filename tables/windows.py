"""Open windows and watermarks by device; under PARTITION, what belongs to the partition itself."""

from tpstream.bus.table import Table
from tpstream.windows.state import DeviceWindows

PARTITION = ""
"""The key of the partition's own clock; no device has an empty number."""

windows = Table("windows", DeviceWindows, due=lambda value: value.due)
