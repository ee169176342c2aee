"""What a user configured, kept in files, because the embedded Kafka broker forgets it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tpstream.bus import topics
from tpstream.errors import TpstreamError

FORMAT = 1

KEPT = (
    topics.config_devices.name,
    topics.config_profiles.name,
    topics.config_scripts.name,
    topics.config_rules.name,
    topics.config_releases.name,
)
"""The topics that are kept, in the order in which they are put back: a release names versions
of documents, so these come before it."""


class Record(msgspec.Struct, frozen=True):
    """The newest record of a key, as it stood in its topic."""

    key: bytes
    value: bytes
    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


class _File(msgspec.Struct):
    format: int
    topic: str
    records: list[Record]


_decode = msgspec.json.Decoder(_File).decode


class Kept:
    """The newest record per key of each configuration topic, in memory and in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[str, dict[bytes, Record]] = {name: {} for name in KEPT}
        self._changed: set[str] = set()

    @property
    def changed(self) -> bool:
        """Whether there is something that `save` would write."""
        return bool(self._changed)

    def take(
        self, topic: str, key: bytes, value: bytes | None, timestamp: int, headers: tuple[tuple[str, bytes], ...] = ()
    ) -> None:
        """A record was read: it replaces the one of its key; None: the key is gone."""
        records = self.records[topic]
        if value is None:
            if records.pop(key, None) is None:
                return
        else:
            record = Record(key, value, timestamp, headers)
            if records.get(key) == record:  # what was put back comes by again
                return
            records[key] = record
        self._changed.add(topic)

    def load(self) -> int:
        """Read the files; how many records there are. TpstreamError: a file cannot be read."""
        for topic in KEPT:
            path = self._path(topic)
            try:
                content = _decode(path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, msgspec.MsgspecError) as error:
                raise TpstreamError(
                    f"{path}: kept configuration cannot be read ({error}); restore or remove it"
                ) from None
            if content.format > FORMAT:
                raise TpstreamError(f"{path}: format {content.format} is newer than this tpstream ({FORMAT})")
            self.records[topic] = {record.key: record for record in content.records}
        return sum(map(len, self.records.values()))

    def drain(self) -> Mapping[str, bytes]:
        """The content of the files that have to be written, by topic; they count as written."""
        files = {
            topic: msgspec.json.encode(_File(FORMAT, topic, list(self.records[topic].values())))
            for topic in KEPT
            if topic in self._changed
        }
        self._changed.clear()
        return files

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files whole or not at all, durable when it returns. OSError: disk full, say."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for topic, content in files.items():
            path = self._path(topic)
            fresh = path.with_name(f".{path.name}")
            with fresh.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def again(self, files: Mapping[str, bytes]) -> None:
        """These could not be written: the next `drain` has them again."""
        self._changed.update(files)

    def _path(self, topic: str) -> Path:
        return self.folder / f"{topic}.json"
