"""Check the schemas; part of `make check`: python schemas/check.py [--release]

- Every topic with a record type has a schema file, and every file a topic.
- Schema and struct (tpstream/messages.py) agree: names, types, what is optional, defaults.
- Today's schema reads what was written with the last released one (schemas/released/).

Prints one line per schema. Exit code 1 if anything is wrong, naming file and field.
`--release` records today's schemas as released, if all is well: with each release of tpstream.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from agreement import disagreements
from compatibility import breaks, malformed

from tpstream.bus.topics import all_topics
from tpstream.messages import Document

HERE = Path(os.path.relpath(Path(__file__).parent))


def structs() -> dict[str, type[msgspec.Struct]]:
    """The record types by the name of their schema file; topics of raw bytes have none."""
    typed = {topic.name: topic.type for topic in all_topics() if topic.type is not bytes}
    return {"document" if kind is Document else name: kind for name, kind in typed.items()}


def problems(folder: Path, name: str, struct: type[msgspec.Struct]) -> Iterator[str]:
    """What is wrong with one schema, in lines that name file and field."""
    file, released = folder / f"{name}.avsc", folder / "released" / f"{name}.avsc"
    if not file.exists():
        yield f"{file}: is missing; describe {struct.__name__} there"
        return
    schema = _load(file)
    if isinstance(schema, str):
        yield schema
        return
    yield from (f"{file}: {line}" for line in disagreements(struct, schema))
    if released.exists():
        before = _load(released)
        yield from [before] if isinstance(before, str) else (f"{file}: {line}" for line in breaks(schema, before))


def strays(folder: Path, names: set[str]) -> Iterator[str]:
    """Files that describe no topic."""
    for file in sorted([*folder.glob("*.avsc"), *(folder / "released").glob("*.avsc")]):
        if file.stem not in names:
            yield f"{file}: no topic has such records; remove the file, or declare the topic"


def check(folder: Path, *, release: bool = False) -> int:
    """Print one line per schema; 0 if all is well, else 1."""
    wrong = 0
    kinds = structs()
    for name, struct in kinds.items():
        found = list(problems(folder, name, struct))
        new = "" if (folder / "released" / f"{name}.avsc").exists() else ", not released yet"
        print(
            "\n".join(found) if found else f"{name}: agrees with {struct.__name__}{new or ', reads the released one'}"
        )
        wrong += len(found)
    for line in strays(folder, set(kinds)):
        print(line)
        wrong += 1
    if release and not wrong:
        (folder / "released").mkdir(exist_ok=True)
        for name in kinds:
            shutil.copy(folder / f"{name}.avsc", folder / "released" / f"{name}.avsc")
        print(f"released: {len(kinds)} schemas")
    return 1 if wrong else 0


def _load(file: Path) -> dict[str, Any] | str:
    try:
        schema: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        return f"{file}: not JSON: {error}"
    fault = malformed(schema) if isinstance(schema, dict) else "not a record"
    return schema if fault is None else f"{file}: not an Avro schema: {fault}"


if __name__ == "__main__":
    sys.exit(check(HERE, release="--release" in sys.argv[1:]))
