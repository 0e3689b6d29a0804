// The entry of the runtime: decides which requests are forwarded, and which the dispatch worker handles itself.

import { json, refusal } from "./answers.ts";
import type { DispatcherConfig, ModuleWorker } from "./config.ts";
import { checkHealth } from "./health.ts";
import { createHosts } from "./hosts.ts";
import { createLog, reason } from "./log.ts";

export type * from "./config.ts";

/** The path of the dispatch worker's own health, on any host; no customer's worker gets requests for it. */
const HEALTH = "/.well-known/dispatch/health";
/** Hosts that no customer can have, the worker's own address among them: `/health` is its own there. */
const OWN = /(^|\.)(workers\.dev|localhost)$|^[\d.]+$|^\[/;
/** The error that Cloudflare throws for a worker that isn't in the namespace. */
const GONE = /^Worker not found/i;
/** The errors that Cloudflare throws for a worker that used up its CPU time, its memory or its subrequests. */
const OVER_LIMIT = /^(Worker exceeded (CPU time|memory) limit|Too many subrequests)/i;
/**
 * The headers that choose which version of a worker answers (Cloudflare docs, Version overrides and Version affinity). They
 * hold for workers that a worker calls, too, so a visitor could send requests to a version that isn't meant to have any.
 */
const VERSION_HEADERS = ["cloudflare-workers-version-overrides", "cloudflare-workers-version-key"];

/** A dispatch worker. */
export function defineDispatcher(config: DispatcherConfig): ModuleWorker {
  const log = createLog(config);
  const hosts = createHosts(log);

  return {
    async fetch(request, env) {
      const url = new URL(request.url);
      const host = url.hostname.replace(/\.$/, "");
      if (url.pathname === HEALTH || (url.pathname === "/health" && OWN.test(host))) {
        if (request.method !== "GET" && request.method !== "HEAD")
          return json(405, { error: "method_not_allowed", message: "Use GET or HEAD" }, { allow: "GET, HEAD" });
        const health = await checkHealth(config, env, log);
        const answer = json(health.status === "healthy" ? 200 : 503, health);
        return request.method === "HEAD" ? new Response(null, answer) : answer;
      }
      const forwarded = withoutVersionHeaders(request);
      let worker: string | null = null;
      try {
        worker = await hosts.find(env.HOSTS, host);
        while (worker !== null) {
          try {
            return await env.DISPATCHER.get(worker).fetch(forwarded);
          } catch (error) {
            if (!GONE.test(reason(error)) || forwarded.bodyUsed) {
              const isOverLimit = OVER_LIMIT.test(reason(error));
              log("error", isOverLimit ? "a worker exceeded a limit" : "a worker failed", { host, to: worker, reason: reason(error) });
              return refusal(request, host, isOverLimit ? "over_limit" : "worker_failed");
            }
            // Its host may have moved to another worker since it was looked up.
            const now: string | null = await hosts.find(env.HOSTS, host, true);
            if (now === worker) {
              log("error", "a host leads to a worker that isn't there", { host, to: worker });
              break;
            }
            worker = now;
          }
        }
      } catch (error) {
        log("error", "KV doesn't answer", { host, reason: reason(error) });
        return refusal(request, host, "unavailable");
      }
      return refusal(request, host, "unknown_host");
    },
  };
}

/** The request that customers' workers get: the same one, unless a visitor chose a version. */
function withoutVersionHeaders(request: Request): Request {
  if (!VERSION_HEADERS.some((name) => request.headers.has(name))) return request;
  const forwarded = new Request(request);
  for (const name of VERSION_HEADERS) forwarded.headers.delete(name);
  return forwarded;
}
