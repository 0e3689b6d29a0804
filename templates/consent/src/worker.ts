// The entry of the runtime: the paths that a worker serves, and their handlers.

import type { ModuleWorker, WorkerConfig } from "./config.ts";
import { createConsentApi } from "./consent-api.ts";
import { checkHealth } from "./health.ts";
import { createCors, json, readOnly } from "./http.ts";
import { createLog, describe } from "./log.ts";
import { createPeers } from "./peers.ts";
import { createScripts } from "./scripts.ts";

export type * from "./config.ts";

/** The response for people who open the worker's address in a browser. */
const about = (config: WorkerConfig) => ({
  service: "consent",
  worker: config.worker,
  environment: config.environment,
  message: "This worker has no database: it serves scripts, and stores no consents. Set `database` in the customer's spec.",
  paths: ["/health", '/analytics/scripts?consent={"measurement":true}', "/init"],
});

/** A customer's worker. */
export function defineWorker(config: WorkerConfig): ModuleWorker {
  const log = createLog(config);
  const cors = createCors(config.trustedOrigins);
  const scripts = createScripts(config, log);
  const api = createConsentApi(config, log);
  const peers = createPeers(config, log);

  return {
    async fetch(request, env) {
      if (request.method === "OPTIONS") return cors.preflight(request);
      const url = new URL(request.url);
      let response: Response;
      try {
        switch (url.pathname) {
          case "/health":
            response = await readOnly(request, async () => {
              const health = await checkHealth(config, env, api, log);
              const told = url.searchParams.has("peers") ? { ...health, peers: await peers(env) } : health;
              return json(health.status === "healthy" ? 200 : 503, told);
            });
            break;
          case "/":
            // With a database, c15t returns its status.
            response =
              config.database.type === "none"
                ? await readOnly(request, () => json(200, about(config)))
                : await api.answer(request, url, env);
            break;
          case "/analytics/scripts":
            response = await readOnly(request, () => scripts(url));
            break;
          default:
            response = await api.answer(request, url, env);
        }
      } catch (error) {
        log("error", "request failed", { path: url.pathname, ...describe(error) });
        response = json(500, { error: "Internal Server Error" });
      }
      return cors.apply(request, response);
    },

    /** A cron trigger, if the customer has one, checks the worker's health. */
    async scheduled(_event, env) {
      const { status, checks } = await checkHealth(config, env, api, log);
      log(status === "healthy" ? "info" : "error", `scheduled check: ${status}`, { checks });
    },
  };
}
