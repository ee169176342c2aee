"""Open windows and watermarks by device; under PARTITION, what belongs to the partition itself."""

from tpstream.bus.table import Table
from tpstream.windows.older import read_older
from tpstream.windows.partition import PARTITION
from tpstream.windows.state import DeviceWindows, copied, due

__all__ = ["PARTITION", "windows"]

windows = Table("windows", DeviceWindows, due=due, copy=copied, older=read_older)
