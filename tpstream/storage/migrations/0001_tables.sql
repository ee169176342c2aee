-- The tables of docs/sql.md. Rows are written to …_rows; the name that people read is a view
-- that shows each identity once, also before merges (docs/decisions/0003). What an insert has
-- acknowledged is on the disk: an offset is committed on the strength of it.

CREATE TABLE IF NOT EXISTS telemetry_rows
(
    tenant LowCardinality(String),
    device String,
    key LowCardinality(String),
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, LZ4),
    ts_from Enum8('device' = 1, 'delivery' = 2),
    kind Enum8('number' = 1, 'bool' = 2, 'text' = 3, 'json' = 4),
    number Nullable(Float64),
    text String,
    received_at DateTime64(3, 'UTC') CODEC(DoubleDelta, LZ4),
    source_life LowCardinality(String),
    source_partition UInt32,
    source_offset UInt64 CODEC(DoubleDelta, LZ4),
    source_index UInt32,
    -- Identity of a point: the device's own ts makes it one; stamped at delivery, its origin does.
    source UInt64 MATERIALIZED if(ts_from = 'device', 0, sipHash64(source_life, source_partition, source_offset, source_index)),
    -- Falls with delivery time, offset and place in the message: the first to arrive has the highest.
    rank UInt128 MATERIALIZED bitNot(bitShiftLeft(toUInt128(toUInt64(greatest(0, toUnixTimestamp64Milli(received_at)))), 80)
        + bitShiftLeft(toUInt128(source_offset), 24) + toUInt128(source_index % 16777216)) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(rank)
PARTITION BY toYYYYMM(ts)
ORDER BY (tenant, device, key, ts, source)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW telemetry AS
SELECT tenant, device, key, ts, ts_from, kind, number, text, received_at,
    source_life, source_partition, source_offset, source_index
FROM telemetry_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE IF NOT EXISTS telemetry_latest_rows
(
    tenant LowCardinality(String),
    device String,
    key LowCardinality(String),
    ts DateTime64(3, 'UTC'),
    ts_from Enum8('device' = 1, 'delivery' = 2),
    kind Enum8('number' = 1, 'bool' = 2, 'text' = 3, 'json' = 4),
    number Nullable(Float64),
    text String,
    received_at DateTime64(3, 'UTC'),
    source_life LowCardinality(String),
    source_partition UInt32,
    source_offset UInt64,
    source_index UInt32,
    -- The newest ts wins, and of one ts the row that `telemetry` keeps.
    rank UInt256
)
ENGINE = ReplacingMergeTree(rank)
ORDER BY (tenant, device, key)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Not a count over inserts: a row repeated replaces itself, so this can be fed by inserts.
CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry_latest_feed TO telemetry_latest_rows AS
SELECT tenant, device, key, ts, ts_from, kind, number, text, received_at,
    source_life, source_partition, source_offset, source_index,
    bitShiftLeft(toUInt256(toUInt64(toUnixTimestamp64Milli(ts) + 4611686018427387904)), 128) + toUInt256(rank) AS rank
FROM telemetry_rows;

CREATE OR REPLACE VIEW telemetry_latest AS
SELECT tenant, device, key, ts, ts_from, kind, number, text, received_at,
    source_life, source_partition, source_offset, source_index
FROM telemetry_latest_rows FINAL;

CREATE TABLE IF NOT EXISTS windows_rows
(
    tenant LowCardinality(String),
    window LowCardinality(String),
    device String,
    key LowCardinality(String),
    start DateTime64(3, 'UTC'),
    end DateTime64(3, 'UTC'),
    aggregate LowCardinality(String),
    value Nullable(Float64),
    count UInt64,
    closed_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(closed_at)
PARTITION BY toYYYYMM(start)
ORDER BY (tenant, window, device, key, start)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW windows AS
SELECT tenant, window, device, key, start, end, aggregate, value, count, closed_at
FROM windows_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE IF NOT EXISTS alarms_rows
(
    tenant LowCardinality(String),
    id String,
    rule LowCardinality(String),
    device String,
    severity LowCardinality(String),
    state LowCardinality(String),
    started_at DateTime64(3, 'UTC'),
    ended_at Nullable(DateTime64(3, 'UTC')),
    acknowledged_at Nullable(DateTime64(3, 'UTC')),
    value Nullable(Float64),
    details String,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW alarms AS
SELECT tenant, id, rule, device, severity, state, started_at, ended_at, acknowledged_at, value, details, version
FROM alarms_rows FINAL;

CREATE TABLE IF NOT EXISTS commands_rows
(
    tenant LowCardinality(String),
    id String,
    device String,
    method String,
    params String,
    state LowCardinality(String),
    created_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC'),
    attempts UInt32,
    result String,
    source String,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW commands AS
SELECT tenant, id, device, method, params, state, created_at, updated_at, attempts, result, source, version
FROM commands_rows FINAL;

CREATE TABLE IF NOT EXISTS dead_letters_rows
(
    tenant LowCardinality(String),
    id String,
    ts DateTime64(3, 'UTC'),
    device String,
    stage LowCardinality(String),
    reason LowCardinality(String),
    topic String,
    payload String,
    detail String,
    attempts UInt32,
    source_life LowCardinality(String),
    source_partition Int64,
    source_offset Int64,
    source_index UInt32
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW dead_letters AS
SELECT tenant, id, ts, device, stage, reason, topic, payload, source_partition, source_offset,
    detail, attempts, source_life, source_index
FROM dead_letters_rows FINAL;

CREATE TABLE IF NOT EXISTS device_status_rows
(
    tenant LowCardinality(String),
    device String,
    online Bool,
    ts DateTime64(3, 'UTC'),
    reason LowCardinality(String),
    source_life LowCardinality(String),
    source_partition UInt32,
    source_offset UInt64,
    source_index UInt32
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (tenant, device, ts, source_life, source_partition, source_offset, source_index)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW device_status AS
SELECT tenant, device, online, ts, reason
FROM device_status_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
