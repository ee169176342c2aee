"""Whether today's schema can read what was written with the last released one.

Avro's own rules decide (the `avro` library); what it finds is said in the words of the schemas.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException


def malformed(schema: dict[str, Any]) -> str | None:
    """What Avro itself has against a schema, or None."""
    try:
        avro.schema.parse(json.dumps(schema))
    except AvroException as error:
        return str(error).splitlines()[0]
    return None


def breaks(schema: dict[str, Any], released: dict[str, Any]) -> Iterator[str]:
    """Each break of backward compatibility as `field NAME: what is wrong`."""
    yield from _swaps(schema, released, "")
    result = ReaderWriterCompatibilityChecker().get_compatibility(
        reader=avro.schema.parse(json.dumps(schema)), writer=avro.schema.parse(json.dumps(released))
    )
    if result.compatibility is SchemaCompatibilityType.compatible:
        return
    told: set[str] = set()
    for location in sorted(result.locations):
        line = _words(location, schema, released)
        if line not in told:
            told.add(line)
            yield line
    if not told:
        yield f"field (top): {'; '.join(sorted(result.messages))}"


def _swaps(schema: Any, released: Any, path: str) -> Iterator[str]:
    """Text where bytes were, or the other way round: Avro reads it, but in JSON bytes are base64."""
    if {str(schema), str(released)} == {"string", "bytes"}:
        yield f"field {path or '(top)'}: was {released}, is {schema}, and JSON writes these differently; take it back"
    elif isinstance(schema, dict) and isinstance(released, dict):
        for part in ("type", "items", "values"):
            if part in schema and part in released:
                yield from _swaps(schema[part], released[part], path)
        for field in schema.get("fields", ()):
            before = _field(released.get("fields"), field["name"])
            if before is not None:
                yield from _swaps(field, before, f"{path}.{field['name']}" if path else field["name"])
    elif isinstance(schema, list) and isinstance(released, list) and len(schema) == len(released):
        for now, before in zip(schema, released, strict=True):
            yield from _swaps(now, before, path)


def _words(location: str, schema: Any, released: Any) -> str:
    """A location of the checker (`/fields/1/type`, in the reader) as a field and what happened to it."""
    path: list[str] = []
    now, before = schema, released
    for part in location.strip("/").split("/"):
        if part.isdigit() and isinstance(now, list) and int(part) < len(now):
            now = now[int(part)]
            if isinstance(now, dict) and "name" in now and "type" in now and "symbols" not in now:
                path.append(str(now["name"]))
                before = _field(before, now["name"])
            elif isinstance(before, list):
                before = before[int(part)] if int(part) < len(before) else None
        elif part and isinstance(now, dict) and part in now:
            now = now[part]
            before = before.get(part) if isinstance(before, dict) else None
    name = ".".join(path) or "(top)"
    if path and before is None:
        return f"field {name}: is new and has no default, so that older records cannot be read; give it one"
    remedy = "take back the change, or make a topic of the next version"
    return f"field {name}: was {_short(before)}, is {_short(now)}; {remedy}"


def _field(fields: Any, name: str) -> Any:
    return next((field for field in fields or () if isinstance(field, dict) and field.get("name") == name), None)


def _short(schema: Any) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(", ", ": "))[:200]
