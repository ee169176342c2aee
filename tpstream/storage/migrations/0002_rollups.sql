-- Roll-ups as plain views: a GROUP BY over what `telemetry` shows, computed when read.

CREATE OR REPLACE VIEW telemetry_minute AS
SELECT tenant, device, key,
    fromUnixTimestamp64Milli(toUnixTimestamp64Milli(t.ts) - positiveModulo(toUnixTimestamp64Milli(t.ts), 60000), 'UTC') AS ts,
    count() AS count, sum(t.number) AS sum, min(t.number) AS min, max(t.number) AS max,
    argMin(t.number, (t.ts, t.received_at, t.source_offset, t.source_index)) AS first,
    argMax(t.number, (t.ts, t.received_at, t.source_offset, t.source_index)) AS last
FROM telemetry AS t
WHERE t.kind = 'number'
GROUP BY tenant, device, key, ts;

CREATE OR REPLACE VIEW telemetry_hour AS
SELECT tenant, device, key,
    fromUnixTimestamp64Milli(toUnixTimestamp64Milli(t.ts) - positiveModulo(toUnixTimestamp64Milli(t.ts), 3600000), 'UTC') AS ts,
    count() AS count, sum(t.number) AS sum, min(t.number) AS min, max(t.number) AS max,
    argMin(t.number, (t.ts, t.received_at, t.source_offset, t.source_index)) AS first,
    argMax(t.number, (t.ts, t.received_at, t.source_offset, t.source_index)) AS last
FROM telemetry AS t
WHERE t.kind = 'number'
GROUP BY tenant, device, key, ts;
