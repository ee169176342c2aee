"""Whether an Avro schema and a msgspec struct describe the same record.

Two looks: the types, field by field; and real records, encoded as the topics do it (JSON by
msgspec) and read with the schema by fastavro. The second would catch what the first overlooks.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import fastavro
import msgspec
from fastavro.validation import ValidationError
from msgspec import inspect

SIMPLE = {
    inspect.IntType: "long",
    inspect.FloatType: "double",
    inspect.StrType: "string",
    inspect.BoolType: "boolean",
    inspect.BytesType: "bytes",
    inspect.NoneType: "null",
}


def disagreements(struct: type[msgspec.Struct], schema: dict[str, Any]) -> Iterator[str]:
    """Each difference as `field NAME: what is wrong`; nothing where they agree."""
    found = list(_types(inspect.type_info(struct), schema, ""))
    yield from found
    if not found:
        yield from _records(struct, schema)


def _types(info: inspect.Type, schema: Any, path: str) -> Iterator[str]:
    kind = schema["type"] if isinstance(schema, dict) else schema
    match info:
        case inspect.StructType():
            yield from _fields(info, schema, path) if kind == "record" else _differs(path, "a record", kind)
        case inspect.VarTupleType() | inspect.ListType():
            yield from (
                _types(info.item_type, schema["items"], f"{path}[]")
                if kind == "array"
                else _differs(path, "an array", kind)
            )
        case inspect.TupleType():  # a pair in JSON; Avro has no tuples, so a record with as many fields
            inner = schema["fields"] if kind == "record" else []
            if len(inner) != len(info.item_types):
                yield from _differs(path, f"a record of {len(info.item_types)} fields", kind)
            for item, field in zip(info.item_types, inner, strict=False):
                yield from _types(item, field["type"], f"{path}.{field['name']}")
        case inspect.DictType():
            yield from (
                _types(info.value_type, schema["values"], f"{path}{{}}")
                if kind == "map"
                else _differs(path, "a map", kind)
            )
        case inspect.LiteralType() | inspect.EnumType():
            symbols = [m.value for m in info.cls] if isinstance(info, inspect.EnumType) else list(info.values)
            got = schema["symbols"] if kind == "enum" else kind
            if not isinstance(got, list) or sorted(map(str, got)) != sorted(map(str, symbols)):
                yield from _differs(path, f"an enum of {', '.join(sorted(map(str, symbols)))}", got)
        case inspect.UnionType():
            if not isinstance(schema, list) or len(schema) != len(info.types):
                yield from _differs(path, f"a union of {len(info.types)} types", schema)
            else:
                branches = {_name(branch): branch for branch in schema}
                for item in info.types:
                    name = SIMPLE.get(type(item), type(item).__name__)
                    if name not in branches:
                        yield from _differs(path, f"a union with {name}", schema)
        case _:
            if (expected := SIMPLE.get(type(info))) != kind:
                yield from _differs(path, expected or type(info).__name__, kind)


def _fields(info: inspect.StructType, schema: dict[str, Any], path: str) -> Iterator[str]:
    if schema.get("name") != info.cls.__name__:
        yield from _differs(path, f"a record named {info.cls.__name__}", schema.get("name"))
    written = {field["name"]: field for field in schema["fields"]}
    if not schema.get("doc"):
        yield f"field {path or '(top)'}: has no doc"
    for field in info.fields:
        at = f"{path}.{field.encode_name}" if path else field.encode_name
        if field.encode_name not in written:
            yield f"field {at}: is in the struct {info.cls.__name__}, not in the schema"
            continue
        avro = written.pop(field.encode_name)
        if not avro.get("doc"):
            yield f"field {at}: has no doc"
        yield from _types(field.type, avro["type"], at)
        yield from _default(field, avro, at)
    for name in written:
        yield f"field {path + '.' if path else ''}{name}: is in the schema, not in the struct {info.cls.__name__}"


def _default(field: inspect.Field, avro: dict[str, Any], path: str) -> Iterator[str]:
    if field.required != ("default" not in avro):
        struct, schema = ("required", "optional") if field.required else ("optional", "required")
        yield f"field {path}: is {struct} in the struct, {schema} in the schema"
    elif not field.required:
        factory = field.default_factory
        value = field.default if factory is msgspec.NODEFAULT else factory()
        expected = msgspec.json.decode(msgspec.json.encode(value))
        if avro["default"] != expected:
            yield f"field {path}: default is {expected!r} in the struct, {avro['default']!r} in the schema"


def _differs(path: str, struct: Any, schema: Any) -> Iterator[str]:
    yield f"field {path or '(top)'}: is {struct} in the struct, {schema} in the schema"


def _name(schema: Any) -> str:
    return str(schema.get("name", schema["type"])) if isinstance(schema, dict) else str(schema)


def _records(struct: type[msgspec.Struct], schema: dict[str, Any]) -> Iterator[str]:
    parsed = fastavro.parse_schema(schema)
    for full in (False, True):
        record = msgspec.convert(_sample(inspect.type_info(struct), full), struct)
        datum = _datum(msgspec.json.decode(msgspec.json.encode(record)), schema)
        try:
            fastavro.validation.validate(datum, parsed, strict=True)
        except ValidationError as error:
            yield f"field {error.errors[0].field}: a record from JSON does not fit: {error.errors[0]}"
            return
        file = io.BytesIO()
        fastavro.schemaless_writer(file, parsed, datum)
        file.seek(0)
        if fastavro.schemaless_reader(file, parsed, None) != datum:
            yield "field (top): a record does not come back from Avro as it went in"


def _sample(info: inspect.Type, full: bool) -> Any:
    """A value of the type; `full`: with every optional field given, else with none."""
    match info:
        case inspect.StructType():
            return {f.encode_name: _sample(f.type, full) for f in info.fields if full or f.required}
        case inspect.VarTupleType() | inspect.ListType():
            return [_sample(info.item_type, full)] * 2
        case inspect.TupleType():
            return [_sample(item, full) for item in info.item_types]
        case inspect.DictType():
            return {"a": _sample(info.value_type, full)}
        case inspect.LiteralType():
            return info.values[-1 if full else 0]
        case inspect.EnumType():
            return list(info.cls)[-1 if full else 0].value
        case inspect.UnionType():
            some = [item for item in info.types if not isinstance(item, inspect.NoneType)]
            return _sample(some[-1], full) if full or len(some) == len(info.types) else None
        case inspect.BytesType():
            return base64.b64encode(b"\x00\xff").decode()
        case inspect.IntType():
            return 2**53 - 1 if full else 0
        case inspect.FloatType():
            return 1.5
        case inspect.BoolType():
            return full
        case _:
            return "a" if full else ""


def _datum(value: Any, schema: Any) -> Any:
    """What stands in JSON as Avro's types have it: defaults put in, base64 as bytes, pairs as records."""
    if isinstance(schema, list):
        return None if value is None else _datum(value, next(branch for branch in schema if branch != "null"))
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        if isinstance(value, list):
            value = dict(zip((field["name"] for field in schema["fields"]), value, strict=True))
        return {f["name"]: _datum(value.get(f["name"], f.get("default")), f["type"]) for f in schema["fields"]}
    if kind == "array":
        return [_datum(item, schema["items"]) for item in value]
    if kind == "map":
        return {key: _datum(item, schema["values"]) for key, item in value.items()}
    if kind == "bytes":
        return base64.b64decode(value)
    return float(value) if kind == "double" and isinstance(value, int) else value
