/** The dashboard: pages read the mirror alone, a change goes to Cloudflare and then to the mirror, a cron trigger keeps it fresh. */

import { ApiError, cloudflare, type Settings } from "./cloudflare.ts";
import { change, refresh, sweep, zoneOf } from "./mirror.ts";
import { page, values } from "./page.ts";
import { customerOf } from "./session.ts";

export interface Env {
  DB: D1Database;
  /** The secret that signs session tokens. */
  SESSION_SECRET: string;
  /** An API token that may read and edit the settings of the zones. */
  ZONES_TOKEN: string;
  /** Settings that customers can't change: {"ssl": "the reason"}. */
  ENFORCED?: string;
  /** Where Cloudflare's API is, for tests. */
  API_BASE?: string;
  FLOTILLA_DIGEST?: string;
}

const OLD = 3600;
const now = () => Math.floor(Date.now() / 1000);
const failed = (error: unknown) => console.error(error instanceof Error ? error.message : String(error));
const apiOf = (env: Env) => cloudflare(env.ZONES_TOKEN, env.API_BASE || undefined);

async function handle(request: Request, env: Env, context: ExecutionContext): Promise<Response> {
  const url = new URL(request.url);
  if (url.pathname === "/health") return Response.json({ status: "healthy", digest: env.FLOTILLA_DIGEST ?? null });
  const [, id] = /^\/api\/v1\/optimizations\/([a-z0-9_-]+)$/.exec(url.pathname) ?? [];
  if (url.pathname !== "/" && id === undefined) return new Response("Not found\n", { status: 404 });
  const method = id === undefined ? "GET" : "POST";
  if (request.method !== method) return new Response("Method not allowed\n", { status: 405, headers: { allow: method } });

  const form = request.headers.get("content-type")?.startsWith("application/x-www-form-urlencoded") ?? false;
  // The session token is never a cookie, so no other site can send it.
  const fields: Record<string, unknown> = id === undefined ? {} : form
    ? Object.fromEntries(await request.formData())
    : Object(await request.json().catch(() => null));
  const bearer = /^Bearer (.+)$/.exec(request.headers.get("authorization") ?? "")?.[1];
  const session = bearer ?? (id === undefined ? url.searchParams.get("id_token") : form ? String(fields.session) : null) ?? "";
  const time = now();
  const customer = await customerOf(session, env.SESSION_SECRET, time);
  if (customer === null) return Response.json({ error: "The session token is missing, invalid or expired." }, { status: 401 });
  const zone = await zoneOf(env.DB, customer);
  if (zone === null) return Response.json({ error: "The shop has no zone." }, { status: 404 });

  const settings: Settings = JSON.parse(zone.settings);
  const enforced: Record<string, string> = JSON.parse(env.ENFORCED || "{}");
  const age = zone.synced_at === 0 ? null : time - zone.synced_at;
  if (id === undefined) {
    if (age === null || age > OLD) context.waitUntil(refresh(env.DB, apiOf(env), customer, time).catch(failed));
    return page(settings, age, session, enforced);
  }
  const answer = (status: number, error: string) =>
    form ? page(settings, age, session, enforced, error, status) : Response.json({ error }, { status });
  const setting = id.replace(/-/g, "_");
  const allowed = Object.hasOwn(values, setting) ? values[setting] : undefined;
  if (allowed === undefined) return answer(404, `There is no setting ${setting} that can be changed here.`);
  if (Object.hasOwn(enforced, setting)) return answer(409, enforced[setting]!);
  const { value } = fields;
  if (typeof value !== "string" || !allowed.includes(value)) return answer(400, `The value of ${setting} is one of: ${[...allowed].sort().join(", ")}.`);
  if (Object.hasOwn(settings, setting) && !settings[setting]!.editable) return answer(409, "The zone's plan does not allow changes.");
  try {
    const changed = await change(env.DB, apiOf(env), zone, setting, value, time);
    if (changed === null) return answer(409, `Another change of ${setting} is not finished.`);
    settings[setting] = changed;
    return form ? page(settings, age, session, enforced, "Saved.") : Response.json({ setting, ...changed });
  } catch (error) {
    failed(error);
    return error instanceof ApiError && error.status === 429
      ? answer(503, "Too many changes at the moment. Try again in a few minutes.")
      : answer(502, "The change could not be confirmed. What is true appears after the next sync.");
  }
}

export default {
  async fetch(request: Request, env: Env, context: ExecutionContext): Promise<Response> {
    try {
      return await handle(request, env, context);
    } catch (error) {
      failed(error);
      return Response.json({ error: "Something went wrong." }, { status: 500 });
    }
  },
  async scheduled(_event: ScheduledController, env: Env): Promise<void> {
    const clock = { now, wait: (seconds: number) => new Promise<void>((done) => setTimeout(done, seconds * 1000)) };
    console.log(JSON.stringify({ sweep: await sweep(env.DB, apiOf(env), clock) }));
  },
} satisfies ExportedHandler<Env>;
