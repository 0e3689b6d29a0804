// The health of a dispatch worker: its bindings exist and KV responds.

import type { DispatcherConfig, Env } from "./config.ts";
import { type Log, reason } from "./log.ts";

export interface Health {
  status: "healthy" | "degraded";
  worker: string;
  environment: string;
  timestamp: string;
  /** The digest of the bundle that was deployed; null where it was not deployed by flotilla. */
  digest: string | null;
  checks: { dispatcher: { ok: boolean }; hosts: { ok: boolean } };
}

export async function checkHealth(config: DispatcherConfig, env: Env, log: Log): Promise<Health> {
  const dispatcher = { ok: typeof env.DISPATCHER?.get === "function" };
  const hosts = { ok: true };
  try {
    // No host has this name; that KV responds is enough.
    await env.HOSTS.get("_");
  } catch (error) {
    hosts.ok = false;
    log("error", "KV doesn't answer", { reason: reason(error) });
  }
  return {
    status: dispatcher.ok && hosts.ok ? "healthy" : "degraded",
    worker: config.worker,
    environment: config.environment,
    timestamp: new Date().toISOString(),
    digest: env.FLOTILLA_DIGEST ?? null,
    checks: { dispatcher, hosts },
  };
}
