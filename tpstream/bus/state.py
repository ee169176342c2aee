"""The state of one partition on disk: a RocksDB with the values of all tables.

It is written last in a checkpoint, so it may be behind the changelog, never ahead of it;
with each write goes how far the changelogs were at that moment, in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from rocksdict import AccessType, Options, Rdict, WriteBatch

from tpstream.bus.position import NO_LIFE, Life
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable

_META = b"\x00meta"
FORMAT = 1


def pin_partitions(directory: Path, partitions: int) -> None:
    """Record with how many partitions this state is kept; ConfigurationError if it was another number.

    A device's values are in the partition of its key: with another number they would not be found.
    """
    pin = directory / "partitions"
    directory.mkdir(parents=True, exist_ok=True)
    known = pin.read_text().strip() if pin.exists() else ""
    if known and known != str(partitions):
        raise ConfigurationError(
            f"state {directory} was kept with {known} partitions, not {partitions}; set TPSTREAM_PARTITIONS={known}, "
            f"or move the folder away to begin without open windows, alarms and commands"
        )
    if not known:
        pin.write_text(f"{partitions}\n")


class Meta(msgspec.Struct, array_like=True):
    """How far a partition's state is: in which life, and the next changelog offset of each table."""

    format: int = FORMAT
    life: bytes = NO_LIFE
    offsets: dict[str, int] = {}


class PartitionState:
    """One partition's RocksDB. Keys: table name, a zero byte, the key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(8 * 1024 * 1024)
        options.set_max_open_files(64)
        options.set_keep_log_file_num(2)
        try:
            self._db = Rdict(str(path), options=options, access_type=AccessType.read_write())
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise TpstreamError(
                f"state {path}: cannot be opened ({reason}); is another worker using this data folder?"
            ) from None
        stored = self._db.get(_META)
        self.meta = msgspec.msgpack.decode(stored, type=Meta) if stored else Meta()
        if self.meta.format > FORMAT:
            raise TpstreamError(f"state {path}: format {self.meta.format} is newer than this tpstream ({FORMAT})")

    @property
    def life(self) -> Life:
        """The life in which it was last written."""
        return Life(self.meta.life)

    def values(self, table: str) -> Iterator[tuple[str, bytes]]:
        """All stored values of a table."""
        prefix = table.encode() + b"\x00"
        for key, value in self._db.items(from_key=prefix):
            if not key.startswith(prefix):
                return
            yield key[len(prefix) :].decode(), value

    def write(self, life: Life, tables: Mapping[str, Mapping[str, bytes | None]], offsets: Mapping[str, int]) -> None:
        """Write values (None: delete) and how far the changelogs are, as one. Unavailable: disk full."""
        batch = WriteBatch(raw_mode=True)
        for table, values in tables.items():
            prefix = table.encode() + b"\x00"
            for key, value in values.items():
                if value is None:
                    batch.delete(prefix + key.encode())
                else:
                    batch.put(prefix + key.encode(), value)
        known = self.meta.offsets if self.meta.life == life else {}
        meta = Meta(FORMAT, life, {**known, **offsets})
        batch.put(_META, msgspec.msgpack.encode(meta))
        try:
            self._db.write(batch)
        except Exception as error:
            raise Unavailable(
                f"state {self.path}: cannot be written ({str(error).splitlines()[0]}); is the disk full?"
            ) from None
        self.meta = meta

    def close(self) -> None:
        """Flush and release the folder."""
        self._db.close()
