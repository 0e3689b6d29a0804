// Checks the health of the workers that a worker calls. It only requests their own health, so that these requests don't
// spread.

import type { Env, WorkerConfig } from "./config.ts";
import { describe, type Log } from "./log.ts";

// The time that the peer's own check of its database may take, plus the network.
const WITHIN_MS = 3000;
// The path is public: each request costs at most this number of requests, and none while the last result is recent.
const MOST = 20;
const KEPT_MS = 2000;

export interface Peer {
  /** The service binding, or the variable with the address. */
  name: string;
  via: "service" | "address";
  ok: boolean;
  /** The HTTP status of its response. */
  http?: number;
  /** The health that it reports. */
  status?: string;
  error?: string;
}

interface Fetcher {
  fetch(url: string, init: RequestInit): Promise<Response>;
}

export function createPeers(config: WorkerConfig, log: Log) {
  const { services = [], addresses = [] } = config.peers ?? {};
  const all = [
    ...services.map((name) => ({ name, via: "service" as const })),
    ...addresses.map((name) => ({ name, via: "address" as const })),
  ].slice(0, MOST);
  let last: { at: number; peers: Peer[] } | undefined;

  return async (env: Env): Promise<Peer[]> => {
    if (last !== undefined && Date.now() - last.at < KEPT_MS) return last.peers;
    const peers = await Promise.all(all.map(async (peer) => ({ ...peer, ...(await ask(env[peer.name], peer, log)) })));
    last = { at: Date.now(), peers };
    return peers;
  };
}

async function ask(binding: unknown, peer: Pick<Peer, "name" | "via">, log: Log): Promise<Omit<Peer, "name" | "via">> {
  const init = { redirect: "manual" as const, signal: AbortSignal.timeout(WITHIN_MS) };
  try {
    const response =
      peer.via === "service"
        ? await (binding as Fetcher).fetch("https://peer.internal/health", init)
        : await fetch(new URL("/health", String(binding)).href, init);
    const text = await response.text();
    const status = statusOf(text);
    return { ok: response.ok && status === "healthy", http: response.status, ...(status !== undefined && { status }) };
  } catch (error) {
    // The reason may name hosts, so it is only logged.
    log("error", "a peer does not answer", { peer: peer.name, ...describe(error) });
    return { ok: false, error: error instanceof Error && error.name === "TimeoutError" ? "No answer in time" : "No answer" };
  }
}

function statusOf(text: string): string | undefined {
  try {
    const { status } = JSON.parse(text);
    return typeof status === "string" ? status.slice(0, 40) : undefined;
  } catch {
    return undefined;
  }
}
