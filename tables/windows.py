"""Open windows and watermarks by device; under PARTITION, what belongs to the partition itself."""

from tpstream.bus.table import Table
from tpstream.windows.older import read_older
from tpstream.windows.partition import PARTITION
from tpstream.windows.state import DeviceWindows, due, kept, restored

__all__ = ["PARTITION", "windows"]

windows = Table("windows", DeviceWindows, due=due, copy=kept, restore=restored, older=read_older)
