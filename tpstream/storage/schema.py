"""The store's tables, brought to the newest version by numbered migrations (docs/sql.md)."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, NamedTuple

from tpstream.errors import TpstreamError

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")

_VERSIONS = """CREATE TABLE IF NOT EXISTS tpstream_schema
(version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
ENGINE = MergeTree ORDER BY version"""


class Migration(NamedTuple):
    """One step of the schema. Every statement may be run again after a crash half-way."""

    version: int
    name: str
    statements: tuple[str, ...]


def migrations() -> tuple[Migration, ...]:
    """All migrations that this tpstream knows, in order."""
    found = []
    for entry in resources.files("tpstream.storage.migrations").iterdir():
        if name := _FILE.fullmatch(entry.name):
            found.append(Migration(int(name[1]), name[2], statements(entry.read_text())))
    return tuple(sorted(found))


def statements(text: str) -> tuple[str, ...]:
    """The statements of a migration: each ends with a semicolon at the end of its line."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return tuple(part.strip() for part in re.split(r";\s*(?:\n|$)", lines) if part.strip())


async def migrate(client: Any) -> int:
    """Apply what is missing; the version then. Safe to run again, and by several workers at once.

    Raises TpstreamError where the store was written by a newer tpstream.
    """
    known = migrations()
    await client.command(_VERSIONS)
    present = int((await client.query("SELECT max(version) FROM tpstream_schema")).result_rows[0][0])
    newest = known[-1].version
    if present > newest:
        raise TpstreamError(
            f"the store's tables have version {present}, newer than this tpstream knows ({newest}); update tpstream"
        )
    for step in known:
        if step.version > present:
            for statement in step.statements:
                await client.command(statement)
            await client.insert("tpstream_schema", [[step.version, step.name]], column_names=["version", "name"])
    return newest
