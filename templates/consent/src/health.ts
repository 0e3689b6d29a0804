// The health of a worker: its secrets are bound and its database responds. Reports names, never values.

import type { Env, WorkerConfig } from "./config.ts";
import type { ConsentApi } from "./consent-api.ts";
import { describe, type Log } from "./log.ts";

// The probe of a load balancer times out soon after.
const DATABASE_WITHIN_MS = 2000;

export interface Health {
  status: "healthy" | "degraded";
  worker: string;
  environment: string;
  timestamp: string;
  /** The digest of the bundle that was deployed; null where it was not deployed by flotilla. */
  digest: string | null;
  checks: {
    secrets: { ok: boolean; missing: string[] };
    database: { ok: boolean; type: string; error?: string };
  };
}

export async function checkHealth(config: WorkerConfig, env: Env, api: ConsentApi, log: Log): Promise<Health> {
  const missing = config.secrets.filter((name) => typeof env[name] !== "string" || env[name] === "");
  const secrets = { ok: missing.length === 0, missing };
  const database = { type: config.database.type, ...(await checkDatabase(env, api, log)) };
  const { FLOTILLA_DIGEST: digest } = env;
  return {
    status: secrets.ok && database.ok ? "healthy" : "degraded",
    worker: config.worker,
    environment: config.environment,
    timestamp: new Date().toISOString(),
    digest: typeof digest === "string" ? digest : null,
    checks: { secrets, database },
  };
}

async function checkDatabase(env: Env, api: ConsentApi, log: Log): Promise<{ ok: boolean; error?: string }> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${DATABASE_WITHIN_MS} ms`)), DATABASE_WITHIN_MS);
    });
    await Promise.race([api.database(env)?.ping(), late]);
    return { ok: true };
  } catch (error) {
    // The reason may name hosts, so it is only logged; the response only reports the failure.
    log("error", "database check failed", describe(error));
    return { ok: false, error: "The database does not answer" };
  } finally {
    clearTimeout(timer);
  }
}
