"""What `bi` may not do, and what must still work for it: decided on ClickHouse's own parse."""

import asyncio
import urllib.request
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from tpstream.storage.client import connect
from tpstream.storage.schema import migrate


@pytest.fixture(scope="module")
def bi(store):
    asyncio.run(prepare(store))
    return store.client(username="bi")


async def prepare(store):
    client = await connect(store.settings())
    await migrate(client)
    await client.command("CREATE TABLE IF NOT EXISTS secret (x Int32) ENGINE = MergeTree ORDER BY x")
    await client.command("CREATE DATABASE IF NOT EXISTS other")
    await client.command("CREATE TABLE IF NOT EXISTS other.telemetry (x Int32) ENGINE = MergeTree ORDER BY x")
    await client.close()


def ask(bi, sql, **params):
    """As raw text: clickhouse-connect would append a FORMAT of its own."""
    return bi.raw_query(sql, **params).decode()


def code_of(bi, sql, **params):
    """ClickHouse's code of the error, or 0. Over plain HTTP: clickhouse-connect leaves out what it may not set."""
    request = urllib.request.Request(f"{bi.url}/?{urlencode({'user': 'bi', **params})}", sql.encode())
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.headers.get("X-ClickHouse-Exception-Code", 0))
    except HTTPError as error:
        return int(error.headers["X-ClickHouse-Exception-Code"])


ALLOWED = [
    "SELECT 1",
    "SELECT 1;",
    "select count() from telemetry -- a comment; DROP TABLE telemetry",
    "SELECT /* ; */ ';' AS x FROM default.telemetry WHERE default.telemetry.device = 'x'",
    "WITH t AS (SELECT * FROM telemetry) SELECT t.device, avg(t.number) FROM t GROUP BY 1",
    "WITH 5 AS n SELECT n + 1",
    "SELECT number FROM numbers(3) ORDER BY number WITH FILL FROM 0 TO 9 STEP 1",
    "SELECT sumIf(number, kind = 'number'), quantileExactIf(0.9)(number, 1), avgOrNull(number) FROM telemetry",
    "SELECT device, lagInFrame(number) OVER (PARTITION BY device ORDER BY ts), row_number() OVER () FROM telemetry",
    "SELECT a.device FROM telemetry AS a JOIN telemetry_latest AS b USING (device, key)",
    "SELECT * FROM telemetry WHERE device IN (SELECT device FROM alarms) UNION ALL SELECT * FROM telemetry_latest",
    "SELECT * EXCEPT (text) REPLACE (upper(device) AS device) FROM telemetry LIMIT 1 BY device",
    "SELECT toStartOfInterval(ts, INTERVAL 1 HOUR) AS h, max(number) FROM telemetry GROUP BY h ORDER BY h",
    "SELECT arrayMap(x -> x + 1, [1, 2]), CAST(1 AS String), 1::Int8, if(1, 2, 3), tuple(1, 2).1",
    "SELECT number FROM numbers(3)",
    "SELECT * FROM telemetry_minute",
    "SELECT name FROM system.tables WHERE database = currentDatabase()",
    "SELECT name FROM system.columns WHERE table = 'telemetry'",
    "SELECT name FROM system.databases",
    "SELECT count() FROM system.functions",
    "SHOW TABLES",
    "SHOW TABLES FROM default LIKE 'tele%'",
    "SHOW DATABASES",
    "SHOW TABLES FORMAT JSON",
    "DESCRIBE telemetry FORMAT JSON",
    "EXPLAIN SELECT 1 FORMAT JSON",
    "EXISTS telemetry FORMAT JSON",
    "SHOW COLUMNS FROM telemetry",
    "SHOW CREATE TABLE telemetry",
    "DESCRIBE TABLE telemetry",
    "DESCRIBE (SELECT * FROM telemetry)",
    "EXISTS TABLE default.telemetry",
    "EXPLAIN SELECT * FROM telemetry",
    "EXPLAIN PIPELINE SELECT * FROM telemetry",
    "EXPLAIN indexes = 1 SELECT * FROM telemetry",
    "SELECT 1 FORMAT JSONEachRow",
    "SELECT simpleJSONExtractString('{}', 'a'), JSONExtractInt('{}', 'a'), dateDiff('day', now(), now()), LCASE('A')",
]

REFUSED = [
    # writing, and what is no reading
    "INSERT INTO telemetry_rows (device) VALUES ('x')",
    "INSERT INTO telemetry_rows (device) SELECT 'x'",
    "INSERT INTO FUNCTION file('/tmp/x', 'CSV', 'a Int32') SELECT 1",
    "DROP TABLE telemetry",
    "TRUNCATE TABLE telemetry_rows",
    "ALTER TABLE telemetry_rows DELETE WHERE 1",
    "DELETE FROM telemetry_rows WHERE 1",
    "CREATE TABLE x (a Int8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x (a Int8)",
    "CREATE VIEW x AS SELECT * FROM system.processes",
    "CREATE FUNCTION f AS (x) -> x",
    "CREATE USER x",
    "GRANT ALL ON *.* TO bi",
    "SET readonly = 0",
    "USE system",
    "KILL QUERY WHERE 1",
    "SYSTEM SHUTDOWN",
    "OPTIMIZE TABLE telemetry_rows FINAL",
    "RENAME TABLE telemetry_rows TO x",
    "DETACH TABLE telemetry_rows",
    "ATTACH TABLE telemetry_rows",
    "BACKUP TABLE telemetry_rows TO File('/tmp/x')",
    "CHECK TABLE telemetry_rows",
    "EXCHANGE TABLES telemetry_rows AND secret",
    "UPDATE telemetry_rows SET device = '' WHERE 1",
    "EXECUTE AS default SELECT 1",
    "BEGIN TRANSACTION",
    # more than one statement
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE secret",
    "SELECT 1 /* */ ; /* */ DROP TABLE secret",
    "SELECT 1 PARALLEL WITH DROP TABLE secret",
    # files and other hosts
    "SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1 INTO OUTFILE '{out}' FORMAT CSV",
    "SELECT 1 FORMAT CSV INTO OUTFILE '{out}'",
    "SELECT 1 INTO OUTFILE '{out}' TRUNCATE COMPRESSION 'gzip' LEVEL 1",
    "SELECT 1 UNION ALL SELECT 2 INTO OUTFILE '{out}' AND STDOUT",
    "SELECT 1 /* c */ INTO /* c */ OUTFILE /* c */ '{out}'",
    "SHOW TABLES INTO OUTFILE '{out}'",
    "SHOW COLUMNS FROM telemetry INTO OUTFILE '{out}'",
    "DESCRIBE telemetry INTO OUTFILE '{out}'",
    "EXPLAIN SELECT 1 INTO OUTFILE '{out}'",
    "EXISTS telemetry INTO OUTFILE '{out}'",
    "SELECT file('/etc/passwd')",
    "SELECT * APPLY(x -> file('/etc/passwd')) FROM telemetry",
    "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
    "SELECT `file`('/etc/passwd')",
    "SELECT * FROM telemetry ORDER BY file('/etc/passwd')",
    "SELECT sum(number) OVER (ORDER BY file('/etc/passwd')) FROM telemetry",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM FILE('/etc/passwd', 'LineAsString')",
    "SELECT * FROM `file`('/etc/passwd', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a Int8')",
    "SELECT * FROM s3('http://127.0.0.1:1/x', 'CSV', 'a Int8')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM cluster('default', system.processes)",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM sqlite('/tmp/x', 'y')",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "SELECT * FROM python('x')",
    "SELECT * FROM eval('SELECT * FROM secret')",
    "SELECT * FROM filesystem('/etc')",
    "SELECT * FROM merge('system', 'processes')",
    "SELECT * FROM merge(currentDatabase(), 'secret')",
    "SELECT * FROM view(SELECT * FROM secret)",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))",
    "SELECT * FROM (EXPLAIN SELECT * FROM secret)",
    "SELECT * FROM loop(default.secret)",
    "SELECT * FROM input('a Int8')",
    "SELECT * FROM format('CSV', '1')",
    "SELECT * FROM dictionary('x')",
    "SELECT * FROM generateRandom('a Int8')",
    "DESCRIBE TABLE file('/etc/passwd')",
    "DESCRIBE url('http://127.0.0.1:1/')",
    "EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:1', 'a', 'b', 'c', 'd') PARTITION BY x",
    "SELECT 1 WHERE 1 IN (SELECT 1 FROM url('http://127.0.0.1:1/', 'CSV', 'a Int8'))",
    # other tables
    "SELECT * FROM system.processes",
    "SELECT * FROM system . processes",
    "SELECT * FROM `system`.`processes`",
    'SELECT * FROM "system"."processes"',
    "SELECT * FROM system/**/.processes",
    "SELECT 1 UNION ALL SELECT 1 FROM system.processes",
    "SELECT (SELECT count() FROM system.processes)",
    "SELECT 1 FROM telemetry WHERE device IN (SELECT query FROM system.processes)",
    "SELECT ('', '') IN system.processes",
    "SELECT 1 IN secret",
    "SELECT 1 IN default.secret",
    "SELECT system.processes AS p, 1 IN p",
    "WITH p AS (SELECT * FROM system.processes) SELECT * FROM p",
    "WITH secret AS (SELECT 1) SELECT * FROM default.secret",
    "SELECT * FROM telemetry JOIN system.processes ON 1 = 1",
    "SELECT * FROM telemetry ARRAY JOIN (SELECT groupArray(query) FROM system.processes) AS q",
    "SELECT 1 LIMIT (SELECT count() FROM system.processes)",
    "SELECT * FROM secret",
    "SELECT * FROM default.secret",
    "SELECT * FROM telemetry_rows",
    "SELECT * FROM other.telemetry",
    "SELECT * FROM other.telemetry.x",
    "SELECT * FROM system.query_log",
    "SELECT * FROM system.users",
    "SELECT * FROM INFORMATION_SCHEMA.TABLES",
    "FROM system.processes SELECT *",
    "FROM system.processes |> SELECT *",
    "DESCRIBE system.processes",
    "SHOW CREATE TABLE secret",
    "SHOW CREATE TABLE system.processes",
    "SHOW PROCESSLIST",
    "SHOW GRANTS",
    "SHOW ACCESS",
    "SHOW CREATE USER default",
    "EXPLAIN SELECT * FROM system.processes",
    "EXPLAIN AST DROP TABLE secret",
    "EXPLAIN INSERT INTO telemetry_rows (device) SELECT 'x'",
    "SELECT dictGet('d', 'a', 1)",
    "SELECT joinGet('secret', 'x', 1)",
    "SELECT joinGet(default.secret, 'x', 1)",
    "SELECT hasColumnInTable('127.0.0.1', 'system', 'processes', 'query')",
    "SELECT getServerSetting('max_connections')",
    "SELECT getMacro('x')",
    "SELECT aiGenerate('x', 'y')",
    "SELECT logTrace('x')",
    "SELECT addressToLine(1)",
    "SELECT sleep(1)",
    "SELECT sleepEachRow(1) FROM numbers(3)",
    "SELECT catboostEvaluate('/etc/passwd', 1)",
    "SELECT generateSerialID('x')",
    # limits
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)",
    "SELECT 1 WHERE 1 IN (SELECT 1 SETTINGS max_result_rows = 0)",
    "WITH x AS (SELECT 1 SETTINGS readonly = 0) SELECT * FROM x",
    "SELECT 1 FORMAT Template SETTINGS format_template_resultset = '/etc/passwd'",
    "SELECT 1 UNION ALL SELECT 2 SETTINGS readonly = 0",
    "EXPLAIN SELECT 1 SETTINGS readonly = 0",
    # names that would forge lines of the tree
    "SELECT `a\n Function file (children 1)` FROM telemetry",
    "SELECT * FROM `telemetry\n`",
    "SELECT 1 AS `x\n   Literal 1`",
    "",
    "-- nothing",
]


@pytest.mark.parametrize("sql", ALLOWED)
def test_allowed(bi, sql):
    ask(bi, sql)


@pytest.mark.parametrize("sql", REFUSED)
def test_refused(bi, store, tmp_path, sql):
    out = tmp_path / "out"
    with pytest.raises(ClickHouseError) as caught:
        ask(bi, sql.replace("{out}", str(out)))
    # 497: by the policy; 164: by readonly = 1; 62, 36, 46: not parsed or known by ClickHouse (in this version).
    assert caught.value.code in (497, 164, 62, 36, 46), str(caught.value)
    assert not out.exists()
    left = store.client().query("SELECT count() FROM system.tables WHERE name IN ('secret', 'telemetry_rows')")
    assert left.result_rows == [(2,)]


def test_identifier_parameters_are_looked_at_too(bi):
    assert ask(bi, "SELECT count() FROM {t:Identifier}", parameters={"t": "telemetry"})
    for name in ("secret", "system.processes", "default.secret"):
        with pytest.raises(ClickHouseError) as caught:
            ask(bi, "SELECT * FROM {t:Identifier}", parameters={"t": name})
        assert caught.value.code == 497


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("readonly", "0"),
        ("readonly", "2"),
        ("max_execution_time", "0"),
        ("max_execution_time", "100000"),
        ("max_result_rows", "0"),
        ("max_result_rows", "-1"),
        ("max_memory_usage", "0"),
        ("result_overflow_mode", "break"),
        ("output_format_schema", "/tmp/x"),
        ("format_schema_path", "/tmp/x"),
        ("allow_introspection_functions", "1"),
        ("additional_table_filters", "{}"),
        ("allow_ddl", "1"),
        ("max_threads", "1000"),
        ("dialect", "kusto"),
        ("profile", "default"),
    ],
)
def test_settings_of_the_url_are_refused(bi, name, value):
    assert code_of(bi, "SELECT 1", **{name: value}) in (164, 115)


def test_a_stricter_limit_may_be_asked_for(bi):
    assert code_of(bi, "SELECT number FROM numbers(100)", max_result_rows="10") == 396
    assert code_of(bi, "SELECT number FROM numbers(10)", max_result_rows="10") == 0


def test_other_databases_are_refused(store, bi):
    with pytest.raises(ClickHouseError) as caught:
        bi.raw_query("SELECT * FROM processes", settings={"database": "system"})
    assert caught.value.code == 497


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT number FROM numbers(2000000)", 396),
        ("SELECT groupArray(number) FROM numbers(1000000000)", 241),
        ("SELECT repeat('x', 1000000) FROM numbers(1000)", 241),
    ],
)
def test_limits_hold(bi, sql, code):
    with pytest.raises(ClickHouseError) as caught:
        ask(bi, sql)
    assert caught.value.code == code


def test_a_query_in_url_and_body_is_one_query(bi, store):
    with pytest.raises(ClickHouseError) as caught:
        bi.command("SELECT 1", data="; DROP TABLE secret")
    assert caught.value.code == 62


def test_nothing_was_written_anywhere(store, bi):
    assert not list(Path(store.folder).glob("**/out*"))
