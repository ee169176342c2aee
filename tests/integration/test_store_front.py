"""The embedded store behaves at its port as ClickHouse does."""

import gzip
import json
import signal
import subprocess
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from parts.store import StorePart


def http(store, body=b"", headers=None, method="POST", **params):
    from urllib.error import HTTPError
    from urllib.parse import urlencode

    request = urllib.request.Request(
        store.url + "?" + urlencode(params),
        data=body if method == "POST" else None,
        headers=headers or {},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


@pytest.fixture
def table(store):
    name = "t_" + uuid.uuid4().hex[:8]
    http(store, f"CREATE TABLE {name} (x Int32, s String) ENGINE = MergeTree ORDER BY x".encode())
    yield name
    http(store, f"DROP TABLE {name}".encode())


def test_ping_and_the_empty_get(store):
    assert urllib.request.urlopen(store.url + "ping").read() == b"Ok.\n"
    assert http(store, method="GET")[2] == "Ok.\n"


def test_query_in_the_body_and_in_the_url(store):
    assert http(store, b"SELECT 1")[2] == "1\n"
    assert http(store, method="GET", query="SELECT 2")[2] == "2\n"
    assert http(store, b" + 1", query="SELECT 2")[2] == "3\n"


def test_format_headers_and_summary(store):
    status, headers, text = http(store, b"SELECT 1 AS x", default_format="JSONCompact", query_id="mine")
    assert status == 200
    assert json.loads(text)["data"] == [[1]]
    assert headers["X-ClickHouse-Format"] == "JSONCompact"
    assert headers["X-ClickHouse-Query-Id"] == "mine"
    assert headers["X-ClickHouse-Timezone"] == "UTC"
    assert int(json.loads(headers["X-ClickHouse-Summary"])["read_rows"]) == 1
    assert http(store, b"SELECT 1 FORMAT CSV", default_format="JSON")[1]["X-ClickHouse-Format"] == "CSV"


def test_bound_parameters_and_settings(store):
    assert http(store, b"SELECT {a:String}", param_a="it's; DROP")[2] == "it\\'s; DROP\n"
    assert http(store, b"SELECT getSetting('max_threads')", max_threads="1")[2] == "1\n"
    # The next request has a session of its own: nothing is left of the one before.
    assert http(store, b"SELECT getSetting('max_block_size')", max_block_size="777")[2] == "777\n"
    assert http(store, b"SELECT getSetting('max_block_size')")[2] != "777\n"


def test_database_of_the_request(store):
    assert http(store, b"SELECT currentDatabase()", database="system")[2] == "system\n"


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [(b"SELEC 1", 62, 400), (b"SELECT * FROM nowhere", 60, 404), (b"SELECT throwIf(1)", 395, 500), (b"", 36, 400)],
)
def test_errors_in_clickhouse_s_form(store, body, code, status):
    got, headers, text = http(store, body)
    assert (got, headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert text.startswith(f"Code: {code}. DB::Exception: ")


@pytest.mark.parametrize("way", ["basic", "header", "url"])
def test_unknown_user_is_refused(store, way):
    import base64

    if way == "url":
        answer = http(store, b"SELECT 1", user="eve")
    elif way == "header":
        answer = http(store, b"SELECT 1", headers={"X-ClickHouse-User": "eve"})
    else:
        answer = http(store, b"SELECT 1", headers={"Authorization": "Basic " + base64.b64encode(b"eve:").decode()})
    assert answer[1]["X-ClickHouse-Exception-Code"] == "516"
    assert "Authentication failed" in answer[2]


def test_a_get_only_reads(store, table):
    assert http(store, method="GET", query=f"DROP TABLE {table}")[1]["X-ClickHouse-Exception-Code"] == "164"
    assert http(store, f"EXISTS {table}".encode())[2] == "1\n"


def test_a_foreign_web_page_is_not_answered(store):
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example:8123"}):
        assert http(store, b"SELECT 1", headers=headers)[1]["X-ClickHouse-Exception-Code"] == "497"
    assert http(store, b"SELECT 1", headers={"Origin": f"http://127.0.0.1:{store.port}"})[0] == 200


def test_ways_to_insert(store, table):
    lines = b'{"x":4,"s":"four"}\n'
    http(store, f"INSERT INTO {table} VALUES (1, 'FORMAT Native\nx; --')".encode())
    http(store, b"(2, 'two')", query=f"INSERT INTO {table} VALUES")
    http(store, f"INSERT INTO {table} (x, s) FORMAT CSV\n3,three\n".encode())
    http(store, lines, query=f"INSERT INTO {table} FORMAT JSONEachRow")
    http(store, gzip.compress(b"5\tfive\n"), {"Content-Encoding": "gzip"}, query=f"INSERT INTO {table} FORMAT TSV")
    http(store, f"INSERT INTO {table} SELECT 6, 'six'".encode())
    settings = f"INSERT INTO {table} SETTINGS max_insert_threads = 1 FORMAT CSV\n7,seven\n"
    assert http(store, settings.encode())[0] == 200
    got = http(store, f"SELECT groupArray(s) FROM (SELECT s FROM {table} ORDER BY x)".encode())[2]
    assert got == "['FORMAT Native\\nx; --','two','three','four','five','six','seven']\n"


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip", False])
def test_clickhouse_connect_packs_as_it_likes(store, table, compression):
    client = store.client(compress=compression)
    client.insert(table, [[i, "x" * 50] for i in range(5000)], column_names=["x", "s"])
    assert client.query(f"SELECT count(), sum(x) FROM {table}").result_rows == [(5000, sum(range(5000)))]


def test_a_torn_body_stores_nothing(store, table):
    packed = gzip.compress(b"1\tone\n" * 1000)
    status, headers, _ = http(
        store, packed[: len(packed) // 2], {"Content-Encoding": "gzip"}, query=f"INSERT INTO {table} FORMAT TSV"
    )
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (400, "36")
    assert http(store, f"SELECT count() FROM {table}".encode())[2] == "0\n"


def test_curl(store):
    done = subprocess.run(["curl", "-sS", store.url, "-d", "SELECT 'curl'"], capture_output=True, text=True, check=True)
    assert done.stdout == "curl\n"


def test_long_selects_hold_neither_ping_nor_inserts(store, table):
    slow = "SELECT count() FROM numbers(100000000000) WHERE sleepEachRow(0.01) = 0"
    with ThreadPoolExecutor(6) as pool:
        running = [
            pool.submit(http, store, slow.encode(), max_execution_time="3", max_block_size="10") for _ in range(6)
        ]
        time.sleep(0.5)
        begin = time.monotonic()
        urllib.request.urlopen(store.url + "ping").read()
        http(store, f"INSERT INTO {table} VALUES (1, 'a')".encode())
        assert time.monotonic() - begin < 1.0
        assert all(r.result()[1]["X-ClickHouse-Exception-Code"] == "159" for r in running)


def test_a_read_that_nobody_waits_for_is_killed(store):
    slow = "SELECT count() FROM numbers(100000000000) WHERE sleepEachRow(0.01) = 0"
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(store.url + "?max_block_size=10", slow.encode(), timeout=1)
    until = time.monotonic() + 5
    count = "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow(0.01)%' AND query NOT LIKE '%LIKE%'"
    while http(store, count.encode())[2] != "0\n":
        assert time.monotonic() < until
        time.sleep(0.1)


def test_restart_keeps_what_was_acknowledged(own_store):
    client = own_store.client()
    client.command("CREATE TABLE kept (x Int32) ENGINE = MergeTree ORDER BY x")
    client.insert("kept", [[1], [2]], column_names=["x"])
    begin = time.monotonic()
    assert own_store.stop() == 0
    assert time.monotonic() - begin < 5
    own_store.start()
    assert own_store.client().query("SELECT sum(x) FROM kept").result_rows == [(3,)]
    own_store.stop(signal.SIGKILL)
    own_store.start()
    assert own_store.client().query("SELECT sum(x) FROM kept").result_rows == [(3,)]


def test_stop_waits_for_a_running_insert_and_kills_a_long_read(own_store):
    own_store.client().command("CREATE TABLE slow (x Int32) ENGINE = MergeTree ORDER BY x")
    with ThreadPoolExecutor(2) as pool:
        write = pool.submit(
            http, own_store, b"INSERT INTO slow SELECT sleepEachRow(0.1) + number FROM numbers(10)", max_block_size="1"
        )
        read = pool.submit(http, own_store, b"SELECT sleepEachRow(0.1) FROM numbers(10000)", max_block_size="1")
        time.sleep(0.3)
        begin = time.monotonic()
        assert own_store.stop() == 0
        assert time.monotonic() - begin < 8
        assert write.result()[0] == 200
        assert read.exception() is not None or read.result()[0] != 200
    own_store.start()
    assert own_store.client().query("SELECT count() FROM slow").result_rows == [(10,)]


def test_a_second_store_in_the_folder_is_one_line(own_store):
    second = StorePart(own_store.folder)
    output, _ = (process := second.spawn()).communicate(timeout=20)
    assert process.returncode == 1
    assert output.count("\n") == 1
    assert str(own_store.process.pid) in output
    assert "TPSTREAM_DATA_DIR" in output


def test_a_taken_port_is_one_line(own_store, tmp_path_factory):
    second = StorePart(tmp_path_factory.mktemp("second"))
    second.port = own_store.port
    output, _ = (process := second.spawn()).communicate(timeout=20)
    assert process.returncode == 1
    assert output.count("\n") == 1
    assert f"port {own_store.port}" in output
    assert "TPSTREAM_STORE_PORT" in output


def test_too_large_a_body_is_refused(store, table):
    with pytest.raises(DatabaseError) as caught:
        store.client(compress="lz4").raw_insert(
            table, ["x", "s"], b"1\t" + b"a" * 140_000_000 + b"\n", fmt="TSV", compression=None
        )
    assert caught.value.code == 307
