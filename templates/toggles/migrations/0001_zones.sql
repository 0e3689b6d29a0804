-- A mirror of the zones' settings. Every time is in Unix seconds.
CREATE TABLE zone (
  customer_id TEXT PRIMARY KEY,
  zone_id TEXT NOT NULL UNIQUE,
  -- The sweep reads the zones of one bucket together: give each about 100 zones.
  bucket INTEGER NOT NULL,
  -- {"rocket_loader": {"value": "on", "editable": true}, …}
  settings TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(settings)),
  -- Counts the changes of `settings`: who read an older version writes nothing.
  version INTEGER NOT NULL DEFAULT 0,
  changed_at INTEGER NOT NULL DEFAULT (unixepoch()),
  -- When a page's request read this zone alone, and until when no other may.
  seen_at INTEGER NOT NULL DEFAULT 0,
  lease_until INTEGER NOT NULL DEFAULT 0,
  -- The last time it was read before reading it began to fail.
  failed_since INTEGER
);
CREATE INDEX zone_bucket ON zone (bucket);
CREATE TABLE sweep (
  bucket INTEGER PRIMARY KEY,
  seen_at INTEGER NOT NULL DEFAULT 0,
  lease_until INTEGER NOT NULL DEFAULT 0
);
CREATE TRIGGER zone_inserted AFTER INSERT ON zone BEGIN
  INSERT INTO sweep (bucket) VALUES (new.bucket) ON CONFLICT DO NOTHING;
END;
-- A change that Cloudflare may have and `zone` may not. It also keeps two changes of one setting apart.
CREATE TABLE pending (
  customer_id TEXT NOT NULL,
  setting TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  PRIMARY KEY (customer_id, setting)
);
CREATE VIEW customer_zones AS SELECT customer_id, zone_id, changed_at AS updated_at FROM zone;
CREATE VIEW customer_toggles AS
SELECT zone.customer_id, replace(entry.key, '_', '-') AS toggle_id, json_extract(entry.value, '$.value') AS state,
  coalesce(zone.failed_since, max(zone.seen_at, sweep.seen_at)) AS last_synced_at, zone.changed_at AS updated_at
FROM zone JOIN sweep ON sweep.bucket = zone.bucket, json_each(zone.settings) AS entry;
