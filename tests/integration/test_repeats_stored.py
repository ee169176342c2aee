"""What arrives twice, from the raw topic through decode and store to the real store's readers."""

import uuid
from collections.abc import Sequence
from types import SimpleNamespace

from agents.decode import decode
from agents.store import store as store_agent
from tables.repeats import repeats_table
from tables.status import device_status_table
from tpstream.bus import topics
from tpstream.bus.envelope import ORIGIN, Kind, RawHeader, WayIn, pack_origin
from tpstream.bus.position import Position
from tpstream.devices.catalog import Catalog
from tpstream.messages import Device
from tpstream.storage.reader import Reader
from tpstream.storage.sinks import Store
from tpstream.testing import LIFE, FakeRecord, batch_of

NOW = 1_700_000_000_000


async def rows(store, device: str, records: Sequence[FakeRecord]) -> list[tuple[int, float]]:
    """What readers see of the device after each of these raw records has been through decode and store."""
    settings = store.settings()
    catalog = Catalog(settings)
    catalog.take(topics.config_devices.name, device, topics.config_devices.encode(Device(device)))
    opened, reader = await Store.connect(settings), Reader(settings)
    services = SimpleNamespace(settings=settings, catalog=catalog, scripts=None, store=opened)
    tables = (device_status_table, repeats_table)
    for table in tables:
        table.partitions.clear()
    for record in records:
        decoded = batch_of(topics.uplink_raw, [record], services=services, tables=tables)
        await decode(decoded)
        for table in tables:
            table.of(decoded).accept()
        passed = [
            FakeRecord(out.value, record.offset, out.timestamp, out.key, tuple(out.headers))
            for out in decoded.outgoing
            if out.topic == topics.uplink_telemetry.name
        ]
        stored = batch_of(topics.uplink_telemetry, passed, services=services)
        await store_agent(stored)
        for sink, columns, positions in stored.rows:
            sink.add(columns, positions)
        await opened.telemetry.flush()
    found = sorted((row["ts"], row["number"]) for row in await reader.telemetry(device))
    await opened.close()
    await reader.close()
    return found


def raw(device: str, value: bytes, offset: int, *headers: tuple[str, bytes], at: int = NOW, **tp: object) -> FakeRecord:
    packed = RawHeader(Kind.PUBLISH, **tp).pack()
    topic = f"devices/{device}/telemetry".encode()
    return FakeRecord(value, offset, at, device.encode(), (("topic", topic), ("tp", packed), *headers))


async def test_of_a_history_that_is_uploaded_twice_the_first_to_arrive_stays(store):
    device = f"h-{uuid.uuid4().hex[:8]}"
    first = b'[{"ts":1600000000000,"values":{"k":1}},{"ts":1600000001000,"values":{"k":2}}]'
    second = first.replace(b'"k":1', b'"k":9')[:-1] + b',{"ts":1600000002000,"values":{"k":3}}]'
    found = await rows(
        store, device, [raw(device, first, 1), raw(device, second, 2, at=NOW + 1), raw(device, first, 3)]
    )
    assert found == [(1600000000000, 1.0), (1600000001000, 2.0), (1600000002000, 3.0)]


async def test_a_reading_without_a_time_is_one_however_often_bridge_device_or_replay_say_it(store):
    device = f"r-{uuid.uuid4().hex[:8]}"
    said = {"qos": 1, "session": 5, "packet_id": 1, "incarnation": 7}
    origin = (ORIGIN, pack_origin(Position(LIFE, 0, 1)))
    found = await rows(
        store,
        device,
        [
            raw(device, b'{"k":1}', 1, sequence=1, **said),
            raw(device, b'{"k":1}', 2, sequence=1, **said),
            raw(device, b'{"k":1}', 3, sequence=2, dup=True, at=NOW + 50, **said),
            raw(device, b'{"k":1}', 4, origin, way_in=WayIn.REPLAY),
            raw(device, b'{"k":1}', 5, sequence=3, qos=1, session=5, packet_id=2, incarnation=7, at=NOW + 60),
        ],
    )
    assert found == [(NOW, 1.0), (NOW + 60, 1.0)]
