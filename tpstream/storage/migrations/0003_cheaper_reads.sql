-- A month in which nothing was written for a day is merged into one part: FINAL has nothing to do there.
ALTER TABLE telemetry_rows
    MODIFY SETTING min_age_to_force_merge_seconds = 86400, min_age_to_force_merge_on_partition_only = 1;

-- The roll-ups again, with a start that ClickHouse knows to rise with ts: a query of some hours then
-- reads these hours and not the whole history (docs/decisions/0003). In milliseconds, as the
-- functions of whole minutes and hours end in 1970 and 2106.

CREATE OR REPLACE VIEW telemetry_minute AS
SELECT tenant, device, key, toStartOfInterval(t.ts, toIntervalMillisecond(60000)) AS ts,
    count() AS count, sum(t.number) AS sum, min(t.number) AS min, max(t.number) AS max,
    argMin(t.number, (t.ts, t.received_at, t.source_offset, t.source_index)) AS first,
    argMax(t.number, (t.ts, t.received_at, t.source_offset, t.source_index)) AS last
FROM telemetry AS t
WHERE t.kind = 'number'
GROUP BY tenant, device, key, ts;

CREATE OR REPLACE VIEW telemetry_hour AS
SELECT tenant, device, key, toStartOfInterval(t.ts, toIntervalMillisecond(3600000)) AS ts,
    count() AS count, sum(t.number) AS sum, min(t.number) AS min, max(t.number) AS max,
    argMin(t.number, (t.ts, t.received_at, t.source_offset, t.source_index)) AS first,
    argMax(t.number, (t.ts, t.received_at, t.source_offset, t.source_index)) AS last
FROM telemetry AS t
WHERE t.kind = 'number'
GROUP BY tenant, device, key, ts;
