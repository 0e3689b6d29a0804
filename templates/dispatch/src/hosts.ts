// The worker that a host points to: looked up in KV, and cached for a few seconds in the isolate. Knows no requests.

import type { HostTable } from "./config.ts";
import { type Log, reason } from "./log.ts";

/**
 * The time for which a result is cached. KV itself caches it for a minute at each location, so a longer time here would
 * only add to that.
 */
const FOUND_MS = 10_000;
/** The same for hosts that no worker has: a new host should work soon. */
const MISSING_MS = 5_000;
/** The maximum number of entries of each cache. There are two, so that invented hosts don't evict real ones. */
const MOST = 5_000;

export interface Hosts {
  /** The worker of a host; null if it has none. `anew` reads from KV even if the cache has a result. */
  find(table: HostTable, host: string, anew?: boolean): Promise<string | null>;
}

export function createHosts(log: Log, now: () => number = Date.now): Hosts {
  const found = lately<string>(FOUND_MS, now);
  const missing = lately<null>(MISSING_MS, now);
  return {
    // Two requests for one host may both read from KV: a promise of one request can't be awaited by another in a worker.
    async find(table, host, anew = false) {
      const known = anew ? undefined : (found.get(host) ?? missing.get(host));
      if (known !== undefined) return known;
      let worker: string | null;
      try {
        worker = await table.get(host);
      } catch (error) {
        const old = found.stale(host);
        if (old === undefined) throw error;
        log("warn", "KV doesn't answer, an old entry is used", { host, reason: reason(error) });
        return old;
      }
      found.drop(host);
      missing.drop(host);
      if (worker === null) missing.set(host, null);
      else found.set(host, worker);
      return worker;
    },
  };
}

/** Values that expire after some time. If there are too many, the oldest one is dropped. */
function lately<T>(ms: number, now: () => number) {
  const entries = new Map<string, { value: T; until: number }>();
  return {
    get(key: string): T | undefined {
      const entry = entries.get(key);
      return entry !== undefined && now() < entry.until ? entry.value : undefined;
    },
    /** The value, even if it has expired. */
    stale: (key: string): T | undefined => entries.get(key)?.value,
    set(key: string, value: T) {
      for (const oldest of entries.keys()) {
        if (entries.size < MOST) break;
        entries.delete(oldest);
      }
      entries.set(key, { value, until: now() + ms });
    },
    drop: (key: string) => entries.delete(key),
  };
}
