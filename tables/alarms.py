"""Rules' states and active alarms by device; under PARTITION, the release in force."""

from tpstream.bus.table import Table
from tpstream.rules.state import DeviceAlarms

PARTITION = ""
"""The key of what belongs to the partition itself; no device has an empty number."""

alarms = Table("alarms", DeviceAlarms)
