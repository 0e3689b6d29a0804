// Builds the runtime and holds it to what the README says, in node: the databases are tested with real workerd, by the
// tests of flotilla. Run with `npm test`.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { insert, insertOriginal, plain } from "./page.mjs";
import { catalogue, HOSTILE, hostileDestinations, sampleDestinations } from "./samples.mjs";

const out = mkdtempSync(join(tmpdir(), "consent-"));
after(() => rmSync(out, { recursive: true }));
execFileSync(process.execPath, [fileURLToPath(new URL("../build.mjs", import.meta.url)), "--out", out]);
const { defineWorker } = await import(pathToFileURL(join(out, "runtime.js")));

const ORIGIN = "https://acme.example";
const NONE = { necessary: false, measurement: false, marketing: false, functionality: false, experience: false };
const ALL = { necessary: true, measurement: true, marketing: true, functionality: true, experience: true };

const worker = (config = {}) =>
  defineWorker({
    worker: "c15t-acme",
    customer: "acme",
    environment: "production",
    trustedOrigins: [ORIGIN],
    logLevel: "error",
    database: { type: "none" },
    secrets: [],
    destinations: [],
    ...config,
  });

const get = (target, path, { env = {}, ...init } = {}) => target.fetch(new Request(`https://worker.example${path}`, init), env);
const scriptsPath = (consent) => `/analytics/scripts?consent=${encodeURIComponent(JSON.stringify(consent))}`;
const scriptsOf = async (destinations, consent = ALL) =>
  (await get(worker({ destinations }), scriptsPath(consent))).json();

/** What the log said meanwhile. */
async function logged(action) {
  const { error } = console;
  const lines = [];
  console.error = (line) => lines.push(JSON.parse(line));
  try {
    await action();
  } finally {
    console.error = error;
  }
  return lines;
}

test("each vendor's scripts do in a page what c15t's own engine does", async () => {
  for (const consent of [ALL, { ...ALL, marketing: false }])
    for (const kind of ["least", "all"]) {
      const destinations = sampleDestinations(kind);
      const { scripts } = await scriptsOf(destinations, consent);
      for (const { type, settings, requiredConsent } of destinations) {
        const ours = scripts.filter(({ destination }) => destination === type);
        assert.equal(ours.length > 0, requiredConsent.every((purpose) => consent[purpose]), type);
        if (ours.length === 0 || ["google-analytics", "console", "console-log"].includes(type)) continue;
        const { apiKey, host, ...rest } = settings;
        const options = type === "posthog" ? { ...(host && { apiHost: host }), ...rest, id: apiKey } : settings;
        const { window, script } = await insertOriginal(type, options, consent);
        assert.deepEqual(plain(insert(ours)), plain(window), `${type}, ${kind}`);
        const load = ours.find((it) => it.type === "script") ?? {};
        assert.equal(load.src, new URL(script.src, "https://page.example").href, type);
        assert.deepEqual([!!load.async, !!load.defer], [!!script.async, !!script.defer], type);
        assert.deepEqual({ ...load.attributes }, { ...script.attributes }, type);
      }
    }
});

test("google-analytics is a Google tag with its id in both places, and with parameters", async () => {
  const settings = { measurementId: "G-ABC123", apiSecret: { secret: "A_SECRET" }, debugMode: true, customParameters: { currency: "EUR" } };
  const destination = { id: "ga", name: "ga", type: "google-analytics", requiredConsent: ["measurement"], settings };
  const { scripts } = await scriptsOf([destination], { ...NONE, measurement: true });
  assert.deepEqual(scripts.map(({ id, type }) => [id, type]), [["ga/setup", "inline"], ["ga/load", "script"]]);
  assert.equal(scripts[1].src, "https://www.googletagmanager.com/gtag/js?id=G-ABC123");
  const [consent, js, config] = insert(scripts).dataLayer.map((args) => [...args]);
  assert.equal(consent[2].analytics_storage, "granted");
  assert.equal(consent[2].ad_storage, "denied");
  assert.equal(js[0], "js");
  assert.equal(JSON.stringify(config), '["config","G-ABC123",{"debug_mode":true,"currency":"EUR"}]');
  assert.deepEqual((await scriptsOf([{ ...destination, settings: { ...settings, enableClientSide: false } }])).scripts, []);
});

test("a vendor that always loads starts denied where only necessary is required", async () => {
  const destination = { id: "p", name: "p", type: "posthog", requiredConsent: ["necessary"], settings: { apiKey: "phc_1" } };
  const { scripts } = await scriptsOf([destination], { ...NONE, necessary: true });
  assert.match(scripts[0].content, /"opt_out_capturing"\]\)/);
  assert.match(scripts[0].update, /opt_out_capturing/);
});

test("no setting leaves its string, and none reaches a prototype", async () => {
  const destinations = hostileDestinations();
  let answer;
  const log = await logged(async () => (answer = await scriptsOf(destinations)));
  assert.equal({}.polluted, undefined);
  const sent = new Set(answer.scripts.map(({ destinationId }) => destinationId));
  assert.ok(!sent.has(`google-tag${HOSTILE}`), "an id that would change the URL around it");
  for (const { id, type } of destinations) {
    if (!sent.has(id)) {
      // Its settings cannot be right: an id that would change a URL, or that the vendor's helper refuses.
      assert.ok(log.some((line) => line.id === id && line.type === type && !("settings" in line)), type);
      continue;
    }
    const scripts = answer.scripts.filter(({ destinationId }) => destinationId === id);
    for (const { content = "", update = "" } of scripts) assert.doesNotMatch(content + update, /[<\n\u2028\u2029]|polluted/, type);
    insert(scripts);
  }
  assert.ok(JSON.stringify(insert(answer.scripts.filter(({ destination }) => destination === "meta-pixel")).fbq.queue).includes(JSON.stringify(HOSTILE)));
});

test("an URL that is not http(s) is refused, and the other destinations go on", async () => {
  const [good] = sampleDestinations("least").filter(({ type }) => type === "meta-pixel");
  const bad = { ...good, id: "bad", settings: { pixelId: "1", scriptSrc: "javascript:alert(1)" } };
  let answer;
  const log = await logged(async () => (answer = await scriptsOf([bad, good])));
  assert.deepEqual([...new Set(answer.scripts.map(({ destinationId }) => destinationId))], ["meta-pixel"]);
  assert.equal(answer.metadata.destinationCount, 2);
  assert.equal(log.length, 1);
  assert.equal(JSON.stringify(log).includes("alert"), false);
});

test("a secret is neither sent nor named", async () => {
  const target = worker({ destinations: sampleDestinations("all"), secrets: ["A_SECRET"] });
  const env = { A_SECRET: "the-value" };
  assert.doesNotMatch(await (await get(target, scriptsPath(ALL), { env })).text(), /the-value|A_SECRET/);
  assert.doesNotMatch(await (await get(target, "/health", { env })).text(), /the-value/);
  const misplaced = { id: "r", name: "r", type: "reddit-pixel", requiredConsent: [], settings: { pixelId: "1", initOptions: { secret: "A_SECRET" } } };
  assert.doesNotMatch(JSON.stringify(await scriptsOf([misplaced])), /A_SECRET/);
});

test("what is not a consent is a bad request", async () => {
  const bad = ["", "{", "null", "[]", "1", '{"necessary":1}', '{"other":true}', '{"__proto__":true}', '{"constructor":true}'];
  for (const consent of bad) assert.equal((await get(worker(), `/analytics/scripts?consent=${encodeURIComponent(consent)}`)).status, 400, consent);
  const missing = await get(worker(), "/analytics/scripts");
  assert.equal(missing.status, 400);
  assert.deepEqual(await missing.json(), { error: "Missing consent parameter", message: "Consent preferences are required" });
  assert.equal((await get(worker(), `${scriptsPath(ALL)}&x=${"x".repeat(5000)}`)).status, 400);
});

test("a generation is used again for the same consent, however it is written", async () => {
  const target = worker({ destinations: sampleDestinations("least") });
  const ask = async (consent) => (await (await get(target, scriptsPath(consent))).json()).metadata;
  const first = await ask({ marketing: true, measurement: false });
  const second = await ask({ experience: false, marketing: true });
  assert.deepEqual([first.cached, second.cached], [false, true]);
  assert.deepEqual(second, { ...first, cached: true });
  assert.deepEqual(first.consent, { ...NONE, marketing: true });
  assert.equal((await ask({ marketing: true, measurement: true })).cached, false);
  assert.equal(first.destinationCount, Object.values(catalogue).filter(({ requiredConsent }) => String(requiredConsent) === "marketing").length);
});

test("health says what is missing", async () => {
  const target = worker({ secrets: ["BOUND", "GONE"], database: { type: "d1", binding: "DB" } });
  let response;
  await logged(async () => (response = await get(target, "/health", { env: { BOUND: "value", FLOTILLA_DIGEST: "abc" } })));
  const { status, digest, checks } = await response.json();
  assert.deepEqual([response.status, status, digest, checks.secrets, checks.database.ok], [503, "degraded", "abc", { ok: false, missing: ["GONE"] }, false]);
  const healthy = await get(worker({ secrets: ["BOUND"] }), "/health", { env: { BOUND: "value" } });
  assert.deepEqual([healthy.status, (await healthy.json()).status, healthy.headers.get("cache-control")], [200, "healthy", "no-store"]);
});

test("health tells of those that it calls, where it is asked to", async () => {
  const asked = [];
  const service = (status, body) => ({ fetch: async (url) => (asked.push(url), new Response(body, { status })) });
  const env = {
    AUTH: service(200, '{"status":"healthy","peers":[]}'),
    ILL: service(503, '{"status":"degraded"}'),
    OTHER: service(200, "text"),
    GONE: { fetch: async () => { throw new Error("inner detail"); } },
    API_URL: "https://api.example/base/",
  };
  const peers = { services: ["AUTH", "ILL", "OTHER", "GONE"], addresses: ["API_URL"] };
  const target = worker({ peers });
  const { fetch: original } = globalThis;
  globalThis.fetch = async (url) => (asked.push(url), new Response('{"status":"healthy"}'));
  try {
    let answer;
    const log = await logged(async () => (answer = await get(target, "/health?peers", { env })));
    const told = await answer.json();
    assert.deepEqual([answer.status, told.status], [200, "healthy"], "whoever is called is no part of its own health");
    assert.deepEqual(told.peers, [
      { name: "AUTH", via: "service", ok: true, http: 200, status: "healthy" },
      { name: "ILL", via: "service", ok: false, http: 503, status: "degraded" },
      { name: "OTHER", via: "service", ok: false, http: 200 },
      { name: "GONE", via: "service", ok: false, error: "No answer" },
      { name: "API_URL", via: "address", ok: true, http: 200, status: "healthy" },
    ]);
    assert.deepEqual(log.map(({ peer, reason }) => [peer, reason]), [["GONE", "inner detail"]]);
    // Each is asked for its own health alone, and not again at once.
    const paths = asked.map((url) => { const { pathname, search } = new URL(url); return pathname + search; });
    assert.deepEqual(paths, ["/health", "/health", "/health", "/health"]);
    assert.deepEqual((await (await get(target, "/health?peers", { env })).json()).peers, told.peers);
    assert.equal(asked.length, 4);
    assert.equal("peers" in (await (await get(target, "/health", { env })).json()), false);
    assert.deepEqual((await (await get(worker(), "/health?peers")).json()).peers, []);
    const many = worker({ peers: { services: Array(50).fill("AUTH"), addresses: [] } });
    assert.equal((await (await get(many, "/health?peers", { env })).json()).peers.length, 20);
  } finally {
    globalThis.fetch = original;
  }
});

test("only trusted origins may read, whatever the answer", async () => {
  for (const path of ["/health", "/init", "/nowhere", "/status", "/analytics/scripts"])
    for (const [origin, allowed] of [[ORIGIN, ORIGIN], ["http://acme.example", null], ["https://www.acme.example", null], ["null", null]]) {
      const { headers } = await get(worker(), path, { headers: { origin } });
      assert.equal(headers.get("access-control-allow-origin"), allowed, `${path} ${origin}`);
      assert.equal(headers.get("vary"), "Origin");
    }
  const preflight = await get(worker(), "/subjects", { method: "OPTIONS", headers: { origin: ORIGIN } });
  assert.equal(preflight.status, 204);
  assert.match(preflight.headers.get("access-control-allow-methods"), /PATCH/);
});

test("methods, and c15t without a database", async () => {
  const refused = await get(worker(), "/health", { method: "POST" });
  assert.deepEqual([refused.status, refused.headers.get("allow")], [405, "GET, HEAD, OPTIONS"]);
  assert.equal(await (await get(worker(), "/health", { method: "HEAD" })).text(), "");
  const answers = { "/init": 200, "/status": 503, "/": 200, "/subjects/sub_1": 503, "/nowhere": 404, "/docs": 404, "/spec.json": 404 };
  for (const [path, status] of Object.entries(answers)) assert.equal((await get(worker(), path)).status, status, path);
  // The first thing that somebody sees who opens the address.
  const about = await (await get(worker(), "/")).json();
  assert.deepEqual([about.service, about.worker, about.paths[0]], ["consent", "c15t-acme", "/health"]);
  assert.equal((await get(worker(), "/", { method: "POST" })).status, 405);
  const german = await (await get(worker(), "/init", { headers: { "accept-language": "de" } })).json();
  assert.equal(german.translations.language, "de");
});

test("an error is logged and not told", async () => {
  const env = { get FLOTILLA_DIGEST() { throw new Error("inner detail"); } };
  let response;
  const log = await logged(async () => (response = await get(worker(), "/health", { env, headers: { origin: ORIGIN } })));
  assert.deepEqual([response.status, await response.json()], [500, { error: "Internal Server Error" }]);
  assert.equal(response.headers.get("access-control-allow-origin"), ORIGIN);
  assert.equal(log[0].reason, "inner detail");
});

test("a cron trigger checks the health", async () => {
  const log = await logged(() => worker({ secrets: ["GONE"] }).scheduled({}, {}));
  assert.deepEqual(log.map(({ message, checks }) => [message, checks.secrets.missing]), [["scheduled check: degraded", ["GONE"]]]);
});
