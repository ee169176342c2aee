"""What decode remembers to know repeats by: of each device, and of the partition itself, bridges and brokers."""

from tpstream.bus.table import Table
from tpstream.uplink.repeats import Heard, due

repeats_table = Table("repeats", Heard, due=due)
"""Written by agents/decode, through `tpstream.uplink.hearing`."""
