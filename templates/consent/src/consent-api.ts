// c15t: creates its instance, once per database, and defines which of its routes need the database. Knows nothing about
// scripts, health and CORS.

import { c15tInstance } from "@c15t/backend";
import type { Env, WorkerConfig } from "./config.ts";
import { createDatabase, type Database, openSource, type Source } from "./database.ts";
import { c15tError } from "./http.ts";
import { describe, type Log } from "./log.ts";

interface Instance {
  identity: readonly unknown[];
  database: Database | undefined;
  handler(request: Request): Promise<Response>;
}

export interface ConsentApi {
  answer(request: Request, url: URL, env: Env): Promise<Response>;
  /** The database, if the worker has one. Fails when a binding is missing. */
  database(env: Env): Database | undefined;
}

// c15t's status, at both of its paths, queries the database, and so do all routes that store or read consents. Without
// a database, c15t does not handle `/`.
const needsDatabase = (path: string): boolean =>
  path === "/" || /^\/(status|subjects|consents|legal-documents)(\/|$)/.test(path);

export function createConsentApi(config: WorkerConfig, log: Log): ConsentApi {
  // An isolate may outlive a change of its bindings, so an instance is only reused for the same database.
  let current: Instance | undefined;

  function instance(env: Env): Instance {
    const source = openSource(config.database, env);
    const identity = source?.identity ?? [];
    if (!current || !same(current.identity, identity)) current = { identity, ...create(config, source) };
    return current;
  }

  return {
    database: (env) => instance(env).database,
    async answer(request, url, env) {
      if (!needsDatabase(url.pathname)) return withoutDatabase(request, env);
      if (config.database.type === "none") return unavailable("No database is configured");
      let ready: Instance;
      try {
        ready = instance(env);
        await ready.database?.prepare();
      } catch (error) {
        log("error", "database not available", describe(error));
        return unavailable("The database is not available");
      }
      return ready.handler(request);
    },
  };

  /** Routes that need no database work even if its binding is missing. */
  function withoutDatabase(request: Request, env: Env): Promise<Response> {
    try {
      return instance(env).handler(request);
    } catch (error) {
      log("warn", "database not available", describe(error));
      return create(config, undefined).handler(request);
    }
  }
}

const unavailable = (message: string): Response => c15tError(503, "SERVICE_UNAVAILABLE", message);

const same = (a: readonly unknown[], b: readonly unknown[]): boolean =>
  a.length === b.length && a.every((value, index) => value === b[index]);

function create(config: WorkerConfig, source: Source | undefined): Omit<Instance, "identity"> {
  const database = source && createDatabase(source);
  const { handler } = c15tInstance({
    appName: config.worker,
    adapter: (database ?? createDatabase(noSource)).adapter,
    trustedOrigins: [...config.trustedOrigins],
    logger: { level: config.logLevel, appName: config.worker },
    // The bundle does not contain the code for these.
    openapi: { enabled: false },
    telemetry: { enabled: false },
  });
  return { database, handler };
}

/** c15t requires an adapter even where none is used. */
const noSource: Source = {
  identity: [],
  connect() {
    throw new Error("no database is configured");
  },
};
