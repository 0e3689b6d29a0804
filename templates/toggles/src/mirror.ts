/** The mirror in D1: what a page reads, and how changes and the sweep keep it true. Every time is in seconds. */

import { ApiError, type Api, type Setting, type Settings } from "./cloudflare.ts";

/** A change takes less: Cloudflare's API has 30 seconds to answer. */
const CHANGE = 60;
const LEASE = 120;

export type Zone = { customer_id: string; zone_id: string; settings: string; version: number; synced_at: number };

/** A customer's zone, in one query. */
export const zoneOf = (db: D1Database, customer: string): Promise<Zone | null> =>
  db.prepare(`SELECT customer_id, zone_id, settings, version, coalesce(failed_since, max(zone.seen_at, sweep.seen_at)) AS synced_at
    FROM zone JOIN sweep ON sweep.bucket = zone.bucket WHERE customer_id = ?`).bind(customer).first<Zone>();

/** Changes a setting at Cloudflare, then in D1. Null: another change of the same setting is not finished. */
export async function change(db: D1Database, api: Api, zone: Zone, id: string, value: string, now: number): Promise<Setting | null> {
  const key = [zone.customer_id, id];
  const begun = await db.prepare(`INSERT INTO pending (customer_id, setting, started_at) VALUES (?1, ?2, ?3)
    ON CONFLICT DO UPDATE SET started_at = ?3 WHERE started_at < ?4`).bind(...key, now, now - CHANGE).run();
  if (begun.meta.changes === 0) return null;
  const end = db.prepare("DELETE FROM pending WHERE customer_id = ? AND setting = ?").bind(...key);
  let setting: Setting;
  try {
    setting = await api.set(zone.zone_id, id, value);
  } catch (error) {
    // Cloudflare refused it. Without an answer it may have made the change: the row stays for the sweep.
    if (error instanceof ApiError && error.status < 500) await end.run();
    throw error;
  }
  // One setting alone, so that what others changed meanwhile stays; the new version stops a sync that read before.
  const write = db.prepare(`UPDATE zone SET settings = json_set(settings, '$."' || ?2 || '"', json(?3)), version = version + 1,
    changed_at = ?4 WHERE customer_id = ?1`).bind(...key, JSON.stringify(setting), now);
  await db.batch([write, end]);
  return setting;
}

type Read = { c: string; v: number; s: Settings };

/** Writes what was read from Cloudflare, where nobody changed the zone since its version was read. */
const written = (db: D1Database, reads: Read[], now: number) =>
  db.prepare(`UPDATE zone SET settings = read.s, version = version + 1, changed_at = ?2
    FROM (SELECT value ->> 'c' AS c, value ->> 'v' AS v, value -> 's' AS s FROM json_each(?1)) AS read
    WHERE zone.customer_id = read.c AND zone.version = read.v`).bind(JSON.stringify(reads), now);

/** A change that is over is repaired by a read that began after it. */
const repaired = (db: D1Database, customers: string[], began: number) =>
  db.prepare(`DELETE FROM pending WHERE started_at < ?2 AND customer_id IN (SELECT value FROM json_each(?1))`)
    .bind(JSON.stringify(customers), began - CHANGE);

const differs = (zone: Zone, settings: Settings) => zone.settings !== JSON.stringify(settings);

/** Reads one zone again, if nobody else does: of many pages that find it old, one asks Cloudflare. */
export async function refresh(db: D1Database, api: Api, customer: string, now: number): Promise<boolean> {
  const leased = await db.prepare(`UPDATE zone SET lease_until = ?2 WHERE customer_id = ?1 AND lease_until <= ?3`)
    .bind(customer, now + LEASE, now).run();
  if (leased.meta.changes === 0) return false;
  const zone = await zoneOf(db, customer);
  if (zone === null) return false;
  const settings = await api.list(zone.zone_id);
  await db.batch([
    ...(differs(zone, settings) ? [written(db, [{ c: customer, v: zone.version, s: settings }], now)] : []),
    db.prepare("UPDATE zone SET seen_at = ?2, lease_until = 0, failed_since = NULL WHERE customer_id = ?1").bind(customer, now),
    repaired(db, [customer], now),
  ]);
  return true;
}

export type Clock = { now(): number; wait(seconds: number): Promise<void> };

/** 1,000 of the 1,200 requests that a token may send in five minutes. */
const PACE = 0.3;
/** A cron trigger may run for 15 minutes, and the next one comes after 15. */
const RUN = 780;

/** Reads the zones that were read longest ago, bucket by bucket, until all are younger than 15 minutes or the time is over. */
export async function sweep(db: D1Database, api: Api, clock: Clock): Promise<{ zones: number; failed: number }> {
  const stop = clock.now() + RUN;
  const done = { zones: 0, failed: 0 };
  while (clock.now() < stop) {
    const began = clock.now();
    const bucket = await db.prepare(`UPDATE sweep SET lease_until = ?2 WHERE bucket = (SELECT bucket FROM sweep
      WHERE lease_until <= ?1 AND seen_at <= ?3 ORDER BY seen_at, bucket LIMIT 1) RETURNING bucket`)
      .bind(began, stop + LEASE, began - 900).first<number>("bucket");
    if (bucket === null) break;
    const { results } = await db.prepare(`SELECT customer_id, zone_id, settings, version, 0 AS synced_at FROM zone WHERE bucket = ?
      ORDER BY customer_id`).bind(bucket).all<Zone>();
    const reads: Read[] = [];
    const good: string[] = [];
    const bad: string[] = [];
    let throttled = false;
    for (const zone of results) {
      while (!throttled) {
        await clock.wait(PACE);
        try {
          const settings = await api.list(zone.zone_id);
          good.push(zone.customer_id);
          if (differs(zone, settings)) reads.push({ c: zone.customer_id, v: zone.version, s: settings });
        } catch (error) {
          if (error instanceof ApiError && error.status === 429) {
            // The token has to rest. If that takes longer than this run, the next run reads the bucket again.
            const pause = error.retryAfter || 300;
            throttled = clock.now() + pause >= stop;
            if (!throttled) await clock.wait(pause);
            continue;
          }
          bad.push(zone.customer_id);
        }
        break;
      }
    }
    await db.batch([
      ...(reads.length > 0 ? [written(db, reads, clock.now())] : []),
      db.prepare(`UPDATE zone SET failed_since = coalesce(failed_since, max(seen_at, (SELECT seen_at FROM sweep WHERE bucket = ?2)))
        WHERE customer_id IN (SELECT value FROM json_each(?1))`).bind(JSON.stringify(bad), bucket),
      db.prepare(`UPDATE zone SET failed_since = NULL WHERE failed_since IS NOT NULL
        AND customer_id IN (SELECT value FROM json_each(?))`).bind(JSON.stringify(good)),
      repaired(db, good, began),
      throttled
        ? db.prepare("UPDATE sweep SET lease_until = 0 WHERE bucket = ?").bind(bucket)
        : db.prepare("UPDATE sweep SET seen_at = ?2, lease_until = 0 WHERE bucket = ?1").bind(bucket, began),
    ]);
    done.zones += good.length;
    done.failed += bad.length;
    if (throttled) break;
  }
  return done;
}
