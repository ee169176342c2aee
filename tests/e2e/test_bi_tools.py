"""BI tools query the embedded store: clickhouse-connect, SQLAlchemy and curl, as `default` and as `bi`."""

import asyncio
import shutil
import subprocess

import pytest
from sqlalchemy import create_engine, inspect, text

from tpstream.messages import Point, Telemetry
from tpstream.storage import columns
from tpstream.storage.sinks import Store
from tpstream.testing import LIFE, Position

T0 = 1_700_000_000_000


@pytest.fixture(scope="module")
def filled(store):
    asyncio.run(fill(store))
    return store


async def fill(store):
    sinks = await Store.connect(store.settings())
    messages = [Telemetry("bi-1", (Point("temp", T0 + i * 1000, 20.0 + i),)) for i in range(10)]
    origins = [Position(LIFE, 0, i) for i in range(10)]
    sinks.telemetry.add(columns.telemetry(messages, origins, [T0 + i * 1000 for i in range(10)]))
    await sinks.telemetry.flush()
    await sinks.close()


QUERY = "SELECT count(), avg(number), max(ts) FROM telemetry WHERE device = 'bi-1'"


@pytest.mark.parametrize("user", ["default", "bi"])
def test_clickhouse_connect(filled, user):
    client = filled.client(username=user)
    assert client.query(QUERY).result_rows[0][:2] == (10, 24.5)
    assert client.query("SELECT {d:String} AS d", parameters={"d": "x'y"}).result_rows == [("x'y",)]
    assert "telemetry" in client.command("SHOW TABLES").split("\n")
    frame = client.query_df("SELECT ts, number FROM telemetry WHERE device = 'bi-1' ORDER BY ts")
    assert list(frame.number) == [20.0 + i for i in range(10)]
    assert [stamp.timestamp() * 1000 for stamp in frame.ts.dt.tz_localize("UTC")][:2] == [T0, T0 + 1000]
    assert client.query("SELECT ts FROM telemetry LIMIT 0").column_names == ("ts",)


@pytest.mark.parametrize("user", ["default", "bi"])
def test_sqlalchemy(filled, user):
    engine = create_engine(f"clickhousedb://{user}@127.0.0.1:{filled.port}/default")
    with engine.connect() as connection:
        assert connection.execute(text(QUERY)).one()[:2] == (10, 24.5)
        one = text("SELECT number FROM telemetry WHERE device = :d ORDER BY ts LIMIT 1")
        bound = connection.execute(one, {"d": "bi-1"})
        assert bound.scalar() == 20.0
    seen = inspect(engine)
    assert {"telemetry", "windows", "alarms", "commands"} <= {*seen.get_table_names(), *seen.get_view_names()}
    assert "number" in {column["name"] for column in seen.get_columns("telemetry")}
    assert seen.has_table("telemetry")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("user", ["default", "bi"])
def test_curl(filled, user):
    command = ["curl", "-sS", "--user", f"{user}:", filled.url, "--data-binary", QUERY + " FORMAT JSONEachRow"]
    assert '"avg(number)":24.5' in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("telemetry", "tenant device key ts ts_from kind number text received_at source_life source_partition"
         " source_offset source_index"),
        ("telemetry_latest", "tenant device key ts ts_from kind number text received_at source_life source_partition"
         " source_offset source_index"),
        ("telemetry_minute", "tenant device key ts count sum min max first last"),
        ("telemetry_hour", "tenant device key ts count sum min max first last"),
        ("windows", "tenant window device key start end aggregate value count closed_at"),
        ("device_status", "tenant device online ts reason"),
        ("alarms", "tenant id rule device severity state started_at ended_at acknowledged_at value details"),
        ("commands", "tenant id device method params state created_at updated_at attempts result"),
        ("dead_letters", "tenant id ts device stage reason topic payload source_partition source_offset"),
    ],
)  # fmt: skip
def test_the_contract_s_columns_come_first_and_in_order(filled, table, names):
    described = [row[:2] for row in filled.client(username="bi").query(f"DESCRIBE TABLE {table}").result_rows]
    wanted = names.split()
    assert [name for name, _ in described][: len(wanted)] == wanted
    for name, kind in described:
        if name in ("ts", "received_at", "start", "end", "closed_at", "started_at", "created_at", "updated_at"):
            assert kind == "DateTime64(3, 'UTC')"
