// A small worker to start from: replace it with your own. It gets its customer's settings from its bindings.

import { withCors, type Cors } from "./cors.ts";
import { verifyService } from "./service.ts";

/** The bindings: what specs set under `vars`, `secrets`, `database` and `bindings`. List yours here. */
export interface Env {
  /** The worker's name and its environment, if the spec sets them. */
  readonly WORKER?: string;
  readonly ENVIRONMENT?: string;
  /** The digest of the deployed bundle. flotilla sets it for every worker. */
  readonly FLOTILLA_DIGEST?: string;
  /** Who may call the worker from a browser, if the spec sets `cors`. */
  readonly FLOTILLA_CORS?: Cors;
  readonly GREETING?: string;
  readonly DB?: D1Database;
  readonly CACHE?: KVNamespace;
  readonly FILES?: R2Bucket;
}

export default {
  fetch(request, env): Promise<Response> {
    return withCors(request, env.FLOTILLA_CORS, () => respond(request, env));
  },
} satisfies ExportedHandler<Env>;

async function respond(request: Request, env: Env): Promise<Response> {
  const { pathname } = new URL(request.url);
  switch (pathname) {
    case "/":
      return new Response(`${env.GREETING ?? "Hello"}\n`);
    // `flotilla verify`, `flotilla status --health` and deploys in waves request this path.
    case "/health":
      return health(env);
    // For the `callers` of the spec alone: another worker calls it with `callService`.
    case "/caller": {
      const caller = await verifyService(request, env);
      return caller ? Response.json(caller) : new Response("Unauthorized\n", { status: 401 });
    }
    default:
      return new Response("Not found\n", { status: 404 });
  }
}

/** Healthy means that everything that the worker depends on responds. Add the dependencies of yours. */
async function health(env: Env): Promise<Response> {
  const checks = {
    DB: await check("DB", env.DB && (() => env.DB!.prepare("SELECT 1").run())),
    CACHE: await check("CACHE", env.CACHE && (() => env.CACHE!.get("health"))),
    FILES: await check("FILES", env.FILES && (() => env.FILES!.head("health"))),
  };
  const healthy = !Object.values(checks).includes("failed");
  const body = {
    status: healthy ? "healthy" : "unhealthy",
    worker: env.WORKER ?? null,
    environment: env.ENVIRONMENT ?? null,
    timestamp: new Date().toISOString(),
    digest: env.FLOTILLA_DIGEST ?? null,
    checks,
  };
  return Response.json(body, { status: healthy ? 200 : 503, headers: { "cache-control": "no-store" } });
}

/** Returns the result of one check; it is left out of the response for a binding that the customer doesn't have. */
async function check(name: string, ask: (() => Promise<unknown>) | undefined): Promise<"ok" | "failed" | undefined> {
  try {
    await ask?.();
    return ask && "ok";
  } catch (error) {
    // The response is public, so the reason is only logged.
    console.error(`${name} doesn't answer`, error);
    return "failed";
  }
}
