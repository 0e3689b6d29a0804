// A small worker to begin with; put your own in its place. What it knows of its customer, it reads from its bindings.

/** The bindings: what specs give it under `vars`, `secrets` and `bindings`. */
export interface Env {
  /** The worker's name and environment, if the spec says them. */
  readonly WORKER?: string;
  readonly ENVIRONMENT?: string;
  /** The digest of the bundle that was deployed; flotilla gives it to each worker. */
  readonly FLOTILLA_DIGEST?: string;
  readonly GREETING?: string;
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const { pathname } = new URL(request.url);
    switch (pathname) {
      case "/":
        return new Response(`${env.GREETING ?? "Hello"}\n`);
      // `flotilla status --health` and deploys in waves ask for this.
      case "/health":
        return Response.json(health(env), { headers: { "cache-control": "no-store" } });
      default:
        return new Response("Not found\n", { status: 404 });
    }
  },
};

const health = (env: Env) => ({
  status: "healthy",
  worker: env.WORKER ?? null,
  environment: env.ENVIRONMENT ?? null,
  timestamp: new Date().toISOString(),
  digest: env.FLOTILLA_DIGEST ?? null,
});
