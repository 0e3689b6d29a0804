// Tests src/cors.ts and src/service.ts, in Node.js, whatever the worker in src/index.ts is. Run with `npm test`.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const folder = mkdtempSync(join(tmpdir(), "between-"));
after(() => rmSync(folder, { recursive: true }));
let withCors, callService, verifyService, HEADER, WINDOW;
before(async () => {
  const source = (name) => fileURLToPath(new URL(`../src/${name}.ts`, import.meta.url));
  await build({ entryPoints: [source("cors"), source("service")], format: "esm", outdir: folder, outExtension: { ".js": ".mjs" } });
  ({ withCors } = await import(pathToFileURL(join(folder, "cors.mjs"))));
  ({ callService, verifyService, HEADER, WINDOW } = await import(pathToFileURL(join(folder, "service.mjs"))));
});

const mac = (key, text) => createHmac("sha256", key).update(text).digest("hex");
const OLD = mac("old", "production/acme/api");
const NEW = mac("new", "production/acme/api");
/** The bindings of the caller and of the called worker, as flotilla derives them of these keys of the called one. */
const caller = (keys, name = "acme/web") =>
  ({ FLOTILLA_CALLER: name, FLOTILLA_SERVICE_KEY_API: keys.map((key) => mac(key, name)).join(" ") });
const called = (keys, callers = ["acme/web"]) => ({ FLOTILLA_CALLERS: callers, FLOTILLA_SERVICE_KEY: keys.join(" ") });

/** Returns the request that a call sends. */
async function sent(env, url = "https://api.acme.example/items?all=1", init = {}) {
  let request;
  await callService(env, "api", new Request(url, init), { fetch: async (it) => { request = it; return new Response(); } });
  return request;
}

test("the called worker learns who called", async () => {
  assert.deepEqual(await verifyService(await sent(caller([NEW])), called([NEW])), { customer: "acme", role: "web" });
  const request = await sent(caller([NEW]), undefined, { method: "POST", body: "text", headers: { "x-own": "1" } });
  assert.deepEqual([request.method, request.headers.get("x-own"), await request.text(), request.redirect], ["POST", "1", "text", "manual"]);
  await assert.rejects(callService({}, "api", new Request("https://a.example")), /this worker has no key for api/);
});

test("strangers, other customers, other roles and other requests are not recognized", async () => {
  const own = called([NEW]);
  assert.equal(await verifyService(new Request("https://api.acme.example/"), own), undefined);
  const bluebird = mac("new", "production/bluebird/api");
  for (const env of [caller([bluebird]), caller([bluebird], "bluebird/web"), caller([NEW], "acme/jobs"), caller([NEW], "bluebird/web")])
    assert.equal(await verifyService(await sent(env), own), undefined);
  // A name that is listed, with a key of another.
  const stolen = { ...caller([NEW], "acme/jobs"), FLOTILLA_CALLER: "acme/web" };
  assert.equal(await verifyService(await sent(stolen), own), undefined);
  const { headers } = await sent(caller([NEW]));
  for (const [url, method] of [["https://api.acme.example/items", "GET"], ["https://api.acme.example/items?all=1", "DELETE"]])
    assert.equal(await verifyService(new Request(url, { method, headers }), own), undefined);
  assert.notEqual(await verifyService(new Request("https://api.acme.example/items?all=1", { headers }), own), undefined);
  for (const env of [{}, { FLOTILLA_SERVICE_KEY: NEW }, { ...own, FLOTILLA_SERVICE_KEY: "" }, called([NEW], [])])
    assert.equal(await verifyService(await sent(caller([NEW])), env), undefined);
});

test("a signature has a time, and nothing else is read as one", async (t) => {
  const request = await sent(caller([NEW]));
  const value = request.headers.get(HEADER);
  const [name, time, signature] = value.split(" ");
  for (const wrong of ["", name, `${name} ${time}`, `${name} ${time} ${signature.slice(1)}`, `${name} ${time} zz${signature.slice(2)}`,
    `${name} ${Number(time) + 1} ${signature}`, `${name} 1e9 ${signature}`, `${name} NaN ${signature}`, `a/b/c ${time} ${signature}`,
    `${name} ${time} x x ${signature}`]) {
    const forged = new Request(request.url, { headers: { [HEADER]: wrong } });
    assert.equal(await verifyService(forged, called([NEW])), undefined, wrong);
  }
  const now = Number(time) * 1000;
  const clock = t.mock.method(Date, "now", () => now + WINDOW * 1000);
  assert.notEqual(await verifyService(request, called([NEW])), undefined);
  clock.mock.mockImplementation(() => now + (WINDOW + 1) * 1000);
  assert.equal(await verifyService(request, called([NEW])), undefined);
});

test("during a rotation, either side may have the other key or both", async () => {
  for (const [from, to] of [[[OLD], [OLD]], [[OLD], [NEW, OLD]], [[NEW, OLD], [OLD]], [[NEW, OLD], [NEW, OLD]], [[NEW], [NEW, OLD]], [[NEW, OLD], [NEW]]])
    assert.notEqual(await verifyService(await sent(caller(from)), called(to)), undefined);
  assert.equal(await verifyService(await sent(caller([OLD])), called([NEW])), undefined);
});

test("a shared worker accepts a role of all customers, and none that pretends to be shared", async () => {
  const shared = called([NEW], ["*/web", "_shared/gateway"]);
  assert.deepEqual(await verifyService(await sent(caller([NEW], "bluebird/web")), shared), { customer: "bluebird", role: "web" });
  assert.deepEqual(await verifyService(await sent(caller([NEW], "_shared/gateway")), shared), { customer: "_shared", role: "gateway" });
  assert.equal(await verifyService(await sent(caller([NEW], "_shared/web")), shared), undefined);
});

const CORS = { origins: ["https://acme.example"], methods: ["GET", "PUT"], headers: ["x-own"], exposeHeaders: [], credentials: false, maxAge: 600 };
const names = (response) => [...response.headers.keys()].filter((name) => name.startsWith("access-control-"));

/** Returns the response to a request from an origin, and whether the code behind ran. */
async function from(origin, cors, init = {}, answer = () => new Response("text", { headers: { vary: "Accept" } })) {
  let ran = false;
  const request = new Request("https://api.acme.example/", { ...init, headers: { ...(origin && { origin }), ...init.headers } });
  const response = await withCors(request, cors, () => { ran = true; return answer(); });
  return { response, ran };
}
const PREFLIGHT = { method: "OPTIONS", headers: { "access-control-request-method": "PUT", "access-control-request-headers": "x-own, x-other" } };

test("a preflight from a listed origin is answered, and the code behind doesn't run", async () => {
  const { response, ran } = await from("https://acme.example", CORS, PREFLIGHT);
  assert.deepEqual([response.status, ran], [204, false]);
  assert.deepEqual(Object.fromEntries(response.headers), {
    "access-control-allow-origin": "https://acme.example", "access-control-allow-methods": "GET, PUT",
    "access-control-allow-headers": "x-own", "access-control-max-age": "600", vary: "Origin, Access-Control-Request-Headers",
  });
  const credentials = await from("https://acme.example", { ...CORS, credentials: true }, PREFLIGHT);
  assert.equal(credentials.response.headers.get("access-control-allow-credentials"), "true");
  const any = await from("https://acme.example", { ...CORS, headers: ["*"] }, PREFLIGHT);
  assert.equal(any.response.headers.get("access-control-allow-headers"), "x-own, x-other");
});

test("others get nothing: an origin is listed exactly or not at all", async () => {
  for (const origin of ["https://acme.example.evil.example", "https://evil-acme.example", "http://acme.example", "https://acme.example:8443",
    "https://ACME.example", "null", "https://www.acme.example"]) {
    const preflight = await from(origin, CORS, PREFLIGHT);
    assert.deepEqual([preflight.response.status, names(preflight.response), preflight.ran], [204, [], false], origin);
    const { response } = await from(origin, CORS);
    assert.deepEqual([names(response), response.headers.get("vary")], [[], "Accept, Origin"], origin);
  }
});

test("a response says for whom it is, and keeps all else", async () => {
  const { response } = await from("https://acme.example", { ...CORS, exposeHeaders: ["etag"], credentials: true });
  assert.deepEqual(names(response), ["access-control-allow-credentials", "access-control-allow-origin", "access-control-expose-headers"]);
  assert.deepEqual([await response.text(), response.headers.get("vary")], ["text", "Accept, Origin"]);
  const bare = await from(null, CORS, { method: "OPTIONS" });
  assert.deepEqual([bare.ran, names(bare.response), bare.response.headers.get("vary")], [true, [], "Accept, Origin"]);
  // What another server allowed is not passed on.
  const passed = await from("https://evil.example", CORS, {}, () => new Response("", { headers: { "access-control-allow-origin": "*" } }));
  assert.deepEqual(names(passed.response), []);
  const without = await from("https://acme.example", undefined, PREFLIGHT);
  assert.deepEqual([without.ran, without.response.headers.get("vary")], [true, "Accept"]);
});
