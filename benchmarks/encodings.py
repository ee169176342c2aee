"""What it costs to write and read one Telemetry of three points, by encoding.

Each encoding goes from the struct to bytes and back to the struct, as an agent needs it;
fastavro knows dicts only, so its figures are given for dicts too (`… dict`), without the structs.
The best of seven rounds: what the machine can do when nothing else runs.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import msgspec

from benchmarks.figure import Figure
from tpstream.messages import Point, Telemetry

SCHEMA = Path(__file__).parents[1] / "schemas" / "tp.uplink.telemetry.v1.avsc"
ROUNDS, CALLS = 7, 20_000
TS = 1_700_000_000_000
TELEMETRY = Telemetry(
    "greenhouse-1",
    (Point("temperature", TS, 21.53), Point("humidity", TS, 40.25), Point("battery", TS, 3.712)),
)


def run() -> Iterator[Figure]:
    """Microseconds and bytes per message; the peer is JSON by msgspec."""
    base: dict[str, float] = {}
    for name, (write, read) in _encodings().items():
        data = write()
        for what, call in (("write", write), ("read", lambda read=read, data=data: read(data))):
            value = _microseconds(call)
            base.setdefault(what, value)
            yield _figure(f"encoding {name}, {what}", value, "µs", base[what])
        base.setdefault("size", len(data))
        yield _figure(f"encoding {name}, size", len(data), "bytes", base["size"])


def _figure(bench: str, value: float, unit: str, base: float) -> Figure:
    cpu = round(value, 3) if unit == "µs" else None
    peer = "JSON by msgspec"
    return Figure(
        bench=bench, value=round(value, 3), unit=unit, peer=peer, ratio=round(value / base, 2), cpu_us_per_message=cpu
    )


def _encodings() -> dict[str, tuple[Callable[[], bytes], Callable[[bytes], Any]]]:
    schema = fastavro.parse_schema(json.loads(SCHEMA.read_text()))
    as_dict = {
        "device": TELEMETRY.device,
        "points": [{name: getattr(point, name) for name in point.__struct_fields__} for point in TELEMETRY.points],
    }
    json_encoder, json_decoder = msgspec.json.Encoder(), msgspec.json.Decoder(Telemetry)
    pack_encoder, pack_decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Telemetry)

    def avro_dict() -> bytes:
        file = io.BytesIO()
        fastavro.schemaless_writer(file, schema, as_dict)
        return file.getvalue()

    def avro_struct() -> bytes:
        file = io.BytesIO()
        points = [
            {"key": p.key, "ts": p.ts, "number": p.number, "text": p.text, "kind": p.kind, "ts_from": p.ts_from}
            for p in TELEMETRY.points
        ]
        fastavro.schemaless_writer(file, schema, {"device": TELEMETRY.device, "points": points})
        return file.getvalue()

    def read_dict(data: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(data), schema, None)

    def read_struct(data: bytes) -> Telemetry:
        found: Any = fastavro.schemaless_reader(io.BytesIO(data), schema, None)
        return Telemetry(found["device"], tuple(Point(**point) for point in found["points"]))

    assert json_decoder.decode(json_encoder.encode(TELEMETRY)) == TELEMETRY == read_struct(avro_struct())
    return {
        "JSON by msgspec": (lambda: json_encoder.encode(TELEMETRY), json_decoder.decode),
        "msgpack by msgspec": (lambda: pack_encoder.encode(TELEMETRY), pack_decoder.decode),
        "Avro by fastavro": (avro_struct, read_struct),
        "Avro by fastavro, dicts": (avro_dict, read_dict),
    }


def _microseconds(call: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time_ns()
        for _ in range(CALLS):
            call()
        best = min(best, (time.process_time_ns() - started) / CALLS / 1000)
    return best


if __name__ == "__main__":
    for figure in run():
        print(figure.line())
