"""Commands in flight, queued and lately ended, by device; under PARTITION, the partition's clock."""

from tpstream.bus.table import Table
from tpstream.downlink.state import DeviceCommands

PARTITION = ""
"""The key of the partition's own clock; no device has an empty number."""

commands = Table("commands", DeviceCommands, due=lambda value: value.due)
