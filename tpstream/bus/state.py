"""The state of one partition on disk: a RocksDB with the values of all tables.

It is written last in a checkpoint, so it may be behind the changelog, never ahead of it;
with each write goes how far the changelogs were at that moment, in one batch.

What a folder has of an earlier life is set aside in a new one, until the changelogs of that are
read: what they say of a key counts, and where they say nothing the old value does.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TextIO

import msgspec
from rocksdict import AccessType, BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from tpstream.bus.position import NO_LIFE, Life
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable

log = logging.getLogger(__name__)

_META = b"\x00meta"
_QUARANTINE = b"\x00quarantine\x00"
_EARLIER, _EARLIER_END = b"\x00earlier\x00", b"\x00earlier\x01"
_VALUES = b"\x01"
"""From here on are values; no table's name begins with a zero byte."""
_AT_ONCE = 10_000
"""Values that are moved in one batch."""
_BLOCKS = Cache(32 * 1024 * 1024)
"""Of all partitions of this process."""

DELETIONS_MS = 7 * 86_400_000
"""How long a changelog keeps the word that a key was deleted, ms: its topic's `delete.retention.ms`."""

FORMAT = 2
"""Format version of a partition's folder; older are read, newer refused."""


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


class StateFolder:
    """A worker's own folder of partition states; held until the process ends."""

    def __init__(self, base: Path, group: str, instance: str = "") -> None:
        """`base/group`, or the next of `group@2`, `group@3` … that no other worker on the same data folder holds.

        With an instance it is `group@instance` where that is there or `group` is held: who is given a name goes on
        with the state that it had without. ConfigurationError where another process has that name.
        """
        base.mkdir(parents=True, exist_ok=True)
        own = f"{group}@{instance}"
        self._locks: list[TextIO] = []
        if instance and not self._lock(base / f"{own}.lock"):
            raise ConfigurationError(
                f"state {base / own}: another worker uses it; "
                f"give each a TPSTREAM_INSTANCE or TPSTREAM_DATA_DIR of its own"
            )
        names: Iterable[str] = (group, *(f"{group}@{n}" for n in range(2, 1_000)))
        if instance:
            names = (own,) if (base / own).is_dir() else (group, own)
        for name in names:
            self.path = base / name
            self.path.mkdir(exist_ok=True)
            if self._lock(self.path / "lock"):
                return
        self.close()
        raise ConfigurationError(f"state {self.path}: another worker uses it; give each a TPSTREAM_DATA_DIR of its own")

    def close(self) -> None:
        """Let another process have it."""
        for file in self._locks:
            file.close()

    def _lock(self, path: Path) -> bool:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._locks.append(file)
        return True


class Values(Protocol):
    """Values to be written, by key; None: deleted."""

    def items(self) -> Iterable[tuple[str, bytes | None]]: ...


class Meta(msgspec.Struct, array_like=True):
    """How far a partition's state is: in which life, and the next changelog offset of each table."""

    format: int = FORMAT
    life: bytes = NO_LIFE
    offsets: dict[str, int] = {}
    stamps: dict[str, int] = {}
    """The highest stamp seen in each table's changelog (`tpstream.bus.stored`)."""
    owing: bool = False
    """Values of an earlier life are set aside here that this life's changelogs have not got."""
    out_of_turn: dict[str, list[str]] = {}
    """Keys by table that stand last in the changelog by a word that does not count: their owner writes them again."""
    written_at: int = 0
    """Wall clock, ms, of the last write: how old what it says of a changelog is."""
    earlier_at: int = 0
    """Wall clock, ms, of the last write in the earlier life of what is set aside; 0: nothing is."""
    settled_at: int = 0
    """The latest of these whose values an owner has written to this life's changelogs; 0: none has."""


class PartitionState:
    """One partition's RocksDB. Keys: table name, a zero byte, the key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = Rdict(str(path), options=_options(), access_type=AccessType.read_write())
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise TpstreamError(
                f"state {path}: cannot be opened ({reason}); is another program using this folder?"
            ) from None
        stored = self._db.get(_META)
        self.meta = msgspec.msgpack.decode(stored, type=Meta) if stored else Meta()
        if self.meta.format > FORMAT:
            self._db.close()
            raise TpstreamError(f"state {path}: format {self.meta.format} is newer than this tpstream ({FORMAT})")

    @classmethod
    def open(cls, path: Path, life: Life, deletions_ms: int = DELETIONS_MS) -> PartitionState:
        """The state, or an empty one where it is so old that the changelog may have forgotten deletions since."""
        state = cls(path)
        age = time.time_ns() // 1_000_000 - state.meta.written_at
        if state.life == life and state.meta.written_at and age > deletions_ms * 3 // 4:
            log.warning("state %s is %.0f days old; it is read from its changelogs anew", path, age / 86_400_000)
            state.close()
            shutil.rmtree(path)
            return cls(path)
        return state

    @property
    def life(self) -> Life:
        """The life in which it was last written."""
        return Life(self.meta.life)

    def get(self, table: str, key: str) -> bytes | None:
        """One stored value."""
        return self._db.get(table.encode() + b"\x00" + key.encode())  # type: ignore[no-any-return]

    def values(self, table: str) -> Iterator[tuple[str, bytes]]:
        """All stored values of a table."""
        prefix = table.encode() + b"\x00"
        start = len(prefix)
        for key, value in self._db.items(from_key=prefix):
            if not key.startswith(prefix):
                return
            yield key[start:].decode(), value

    @property
    def stamp(self) -> int:
        """The highest stamp seen in this life, of all tables."""
        return max(self.meta.stamps.values(), default=0)

    def write(
        self,
        life: Life,
        tables: Mapping[str, Values],
        offsets: Mapping[str, int],
        stamps: Mapping[str, int] | None = None,
        out_of_turn: Mapping[str, Collection[str]] | None = None,
        settled_at: int = 0,
    ) -> None:
        """Write values (None: delete) and how far the changelogs are, as one. Unavailable: disk full.

        `out_of_turn`: further keys to be written again; None: they have been.
        """
        self.enter(life)
        meta = self.meta
        batch = WriteBatch(raw_mode=True)
        for table, values in tables.items():
            prefix = table.encode() + b"\x00"
            for key, value in values.items():
                if value is None:
                    batch.delete(prefix + key.encode())
                else:
                    batch.put(prefix + key.encode(), value)
                if meta.owing:
                    batch.delete(_EARLIER + prefix + key.encode())
        further: dict[str, list[str]] = {}
        if out_of_turn is not None:
            tables_concerned = {*meta.out_of_turn, *out_of_turn}
            further = {t: sorted({*meta.out_of_turn.get(t, ()), *out_of_turn.get(t, ())}) for t in tables_concerned}
        self._write(
            batch,
            msgspec.structs.replace(
                meta,
                offsets={**meta.offsets, **offsets},
                stamps={**meta.stamps, **(stamps or {})},
                out_of_turn=further,
                written_at=time.time_ns() // 1_000_000,
                settled_at=max(meta.settled_at, settled_at),
            ),
        )

    def enter(self, life: Life) -> None:
        """From now on it is of this life: what it has of an earlier one is set aside. Unavailable: disk full."""
        meta = self.meta
        # An earlier tpstream set nothing aside: which of its values are owed is not known.
        if meta.life == life and meta.owing == bool(meta.earlier_at):
            return
        if meta.life == NO_LIFE:
            self.meta = Meta(FORMAT, life)
            return
        values = self._db.items(from_key=_VALUES)
        self._change(pair for key, value in values for pair in ((_EARLIER + key, value), (key, None)))
        # Who comes to an end before this sets the rest aside the next time.
        earlier_at = max(1, meta.earlier_at, meta.written_at)
        self._write(WriteBatch(raw_mode=True), Meta(FORMAT, life, owing=True, earlier_at=earlier_at))

    def adopt(self) -> None:
        """The changelogs were read to their ends: take what is set aside for what they say nothing of.

        Where another owner has written its values of an earlier life to them, and those were no older, that
        was all there is: a key that it had not was deleted, and what is set aside here is forgotten.
        """
        meta = self.meta
        if not meta.owing:
            return
        forget = meta.settled_at >= meta.earlier_at
        # Forgotten is also what was adopted before, and then could not be written.
        count = self._change((key[len(_EARLIER) :], None if forget else value) for key, value in self._earlier())
        if forget:
            log.warning(
                "state %s: %d values of an earlier life are older than this life's; forgotten", self.path, count
            )
            self.settled()

    @property
    def owes(self) -> bool:
        """Whether values of an earlier life are here that this life's changelogs have not got."""
        return self.meta.owing

    def owed(self, table: str) -> Iterator[tuple[str, bytes]]:
        """These values of a table."""
        start = len(_EARLIER) + len(table.encode()) + 1
        for key, value in self._earlier(table.encode() + b"\x00"):
            yield key[start:].decode(), value

    def settled(self) -> None:
        """What was owed is in this life's changelogs now, or is not owed any more."""
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(_EARLIER, _EARLIER_END)
        meta = self.meta
        settled_at = max(meta.settled_at, meta.earlier_at)
        self._write(batch, msgspec.structs.replace(meta, owing=False, earlier_at=0, settled_at=settled_at))

    def _change(self, changes: Iterable[tuple[bytes, bytes | None]]) -> int:
        """Put and delete (None), some at a time; how many."""
        batch, count = WriteBatch(raw_mode=True), 0
        for count, (key, value) in enumerate(changes, 1):
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
            if count % _AT_ONCE == 0:
                self._write(batch, self.meta)
                batch = WriteBatch(raw_mode=True)
        self._write(batch, self.meta)
        return count

    def _earlier(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._db.items(from_key=_EARLIER + prefix):
            if not key.startswith(_EARLIER + prefix):
                return
            yield key, value

    def quarantine(self, table: str, key: str, data: bytes) -> None:
        """Keep bytes that cannot be read beside the values, for a person to look at."""
        batch = WriteBatch(raw_mode=True)
        batch.put(_QUARANTINE + table.encode() + b"\x00" + key.encode(), data)
        self._write(batch, self.meta)

    def close(self) -> None:
        """Flush and release the folder."""
        self._db.close()

    def _write(self, batch: WriteBatch, meta: Meta) -> None:
        batch.put(_META, msgspec.msgpack.encode(meta))
        try:
            self._db.write(batch)
        except Exception as error:
            raise Unavailable(
                f"state {self.path}: cannot be written ({str(error).splitlines()[0]}); is the disk full?"
            ) from None
        self.meta = meta


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(2 * 1024 * 1024)  # two of each partition may be full at once
    options.set_max_open_files(64)
    options.set_keep_log_file_num(2)
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(10, block_based=False)  # most keys that are asked for and not in memory are nowhere
    blocks.set_block_cache(_BLOCKS)
    options.set_block_based_table_factory(blocks)
    return options
