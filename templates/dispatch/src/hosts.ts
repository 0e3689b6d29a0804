// Knows which worker a host is led to: looked up in KV, and kept for a few seconds in the isolate. Knows no requests.

import type { HostTable } from "./config.ts";
import { type Log, reason } from "./log.ts";

/**
 * So long what was found is not asked for again. KV itself keeps an answer for a minute at each place, so more than some
 * seconds here would only make it later.
 */
const FOUND_MS = 10_000;
/** The same for hosts that nobody has: a new one is to work soon. */
const MISSING_MS = 5_000;
/** So many of each are kept. Apart, so that who asks for made-up hosts doesn't push out those that are there. */
const MOST = 5_000;

export interface Hosts {
  /** The worker of a host; null if it has none. `anew` asks KV whatever is known here. */
  find(table: HostTable, host: string, anew?: boolean): Promise<string | null>;
}

export function createHosts(log: Log, now: () => number = Date.now): Hosts {
  const found = lately<string>(FOUND_MS, now);
  const missing = lately<null>(MISSING_MS, now);
  return {
    // Two requests for one host may both ask: a promise of one request can't be awaited by another in a worker.
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

/** Values that hold for some time. When there are too many, the oldest goes. */
function lately<T>(ms: number, now: () => number) {
  const entries = new Map<string, { value: T; until: number }>();
  return {
    get(key: string): T | undefined {
      const entry = entries.get(key);
      return entry !== undefined && now() < entry.until ? entry.value : undefined;
    },
    /** Also one that doesn't hold any more. */
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
