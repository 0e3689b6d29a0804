// Builds the runtime and holds it to what the README says, in node, with bindings that fail as they are told to. That it
// runs in workerd, with a real namespace and KV beside it, is shown by the tests of flotilla. Run with `npm test`.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, mock, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const out = mkdtempSync(join(tmpdir(), "dispatch-"));
after(() => rmSync(out, { recursive: true }));
execFileSync(process.execPath, [fileURLToPath(new URL("../build.mjs", import.meta.url)), "--out", out]);
const { defineDispatcher } = await import(pathToFileURL(join(out, "runtime.js")));

let log = [];
beforeEach(() => {
  log = [];
  // Node's own warnings come this way, too.
  const keep = (line) => line.startsWith("{") && log.push(JSON.parse(line));
  for (const level of ["debug", "info", "warn", "error"]) mock.method(console, level, keep);
});

/** Bindings: hosts, and workers by name; both count what they are asked. */
function bindings(hosts, workers) {
  const asked = { hosts: [], workers: [] };
  return {
    asked,
    FLOTILLA_DIGEST: "abc",
    HOSTS: {
      async get(host) {
        asked.hosts.push(host);
        if (hosts instanceof Error) throw hosts;
        return hosts[host] ?? null;
      },
    },
    DISPATCHER: {
      get: (name) => ({
        async fetch(request) {
          asked.workers.push(name);
          if (!Object.hasOwn(workers, name)) throw new Error("Worker not found.");
          return workers[name](request);
        },
      }),
    },
  };
}

const dispatcher = (config = {}) =>
  defineDispatcher({ worker: "front", environment: "production", logLevel: "info", ...config });
const ask = (target, env, url, init) => target.fetch(new Request(url, init), env);
const html = { headers: { accept: "text/html,application/xhtml+xml,*/*;q=0.8" } };

test("a request goes, as it is, to the worker of its host", async () => {
  const env = bindings({ "acme.example.com": "c15t-acme" }, {
    "c15t-acme": async (request) =>
      new Response(await request.text(), { status: 418, headers: { url: request.url, method: request.method, cookie: request.headers.get("cookie") } }),
  });
  const response = await ask(dispatcher(), env, "https://ACME.example.com./health?a=1", { method: "POST", body: "body", headers: { cookie: "c=1" } });
  assert.deepEqual([response.status, await response.text()], [418, "body"]);
  assert.deepEqual(["url", "method", "cookie"].map((name) => response.headers.get(name)), ["https://acme.example.com./health?a=1", "POST", "c=1"]);
  assert.deepEqual(env.asked.hosts, ["acme.example.com"]);
});

test("visitors don't choose the version that answers them", async () => {
  const env = bindings({ "a.example": "a" }, {
    a: async (request) => Response.json([[...request.headers.keys()], request.method, request.redirect, await request.text()]),
  });
  const headers = { "Cloudflare-Workers-Version-Overrides": 'a="1"', "cloudflare-workers-version-key": "k", "x-own": "1", "content-type": "a/b" };
  const response = await ask(dispatcher(), env, "https://a.example/", { method: "PUT", body: "body", redirect: "manual", headers });
  assert.deepEqual(await response.json(), [["content-type", "x-own"], "PUT", "manual", "body"]);
});

test("the types of the runtime are complete", () => {
  const types = readFileSync(join(out, "runtime.d.ts"), "utf8");
  const config = readFileSync(new URL("../src/config.ts", import.meta.url), "utf8");
  const names = (text) => [...text.matchAll(/^export interface (\w+)/gm)].map(([, name]) => name);
  assert.ok(names(config).includes("DispatcherConfig"));
  assert.deepEqual(names(types), names(config));
});

test("an unknown host is told in the form that was asked for, and no worker is called", async () => {
  const env = bindings({}, {});
  const target = dispatcher();
  const told = await ask(target, env, "https://nobody.example.com/");
  assert.deepEqual([told.status, told.headers.get("content-type"), told.headers.get("cache-control")], [404, "application/json; charset=utf-8", "no-store"]);
  assert.deepEqual(await told.json(), { error: "unknown_host", message: "There is nothing at this address.", host: "nobody.example.com" });
  const page = await ask(target, env, "https://nobody.example.com/", html);
  assert.deepEqual([page.status, page.headers.get("content-type"), page.headers.get("vary")], [404, "text/html; charset=utf-8", "Accept"]);
  assert.match(await page.text(), /<h1>Not found<\/h1>[^]*nobody\.example\.com/);
  assert.equal(await (await ask(target, env, "https://nobody.example.com/", { ...html, method: "HEAD" })).text(), "");
  assert.deepEqual(env.asked.workers, []);
  for (const word of [/KV/, /dispatch/i, /front/, /namespace/i, /cloudflare/i]) assert.doesNotMatch(await (await ask(target, env, "https://nobody.example.com/", html)).text(), word);
});

test("what was looked up is kept for seconds, also that there is nothing", async () => {
  mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  try {
    const hosts = { "a.example": "a" };
    const env = bindings(hosts, { a: () => new Response("a"), b: () => new Response("b") });
    const target = dispatcher();
    const text = async (host) => (await ask(target, env, `https://${host}/`)).text();
    for (let i = 0; i < 3; i += 1) assert.equal(await text("a.example"), "a");
    for (let i = 0; i < 3; i += 1) assert.match(await text("b.example"), /unknown_host/);
    assert.deepEqual(env.asked.hosts, ["a.example", "b.example"]);
    Object.assign(hosts, { "a.example": "b", "b.example": "b" });
    mock.timers.tick(5_001);
    assert.equal(await text("b.example"), "b", "a new host works soon");
    assert.equal(await text("a.example"), "a");
    mock.timers.tick(5_000);
    assert.equal(await text("a.example"), "b");
    assert.equal(env.asked.hosts.length, 4);
  } finally {
    mock.timers.reset();
  }
});

test("who makes up hosts doesn't push out those that are there, and what is kept is bounded", async () => {
  const hosts = Object.fromEntries(Array.from({ length: 5_001 }, (_, at) => [`h${at}.example`, "a"]));
  const env = bindings(hosts, { a: () => new Response("a") });
  const target = dispatcher();
  await ask(target, env, "https://h0.example/");
  for (let at = 0; at < 6_000; at += 1) await ask(target, env, `https://made-up-${at}.example/`);
  const before = env.asked.hosts.length;
  await ask(target, env, "https://h0.example/");
  assert.equal(env.asked.hosts.length, before, "it is still known");
  await ask(target, env, "https://made-up-0.example/");
  assert.equal(env.asked.hosts.length, before + 1, "the oldest of those that aren't there is not");
  for (let at = 1; at <= 5_000; at += 1) await ask(target, env, `https://h${at}.example/`);
  const after = env.asked.hosts.length;
  await ask(target, env, "https://h0.example/");
  assert.equal(env.asked.hosts.length, after + 1);
});

test("a worker that throws is a 502 without its reason", async () => {
  const env = bindings({ "a.example": "a" }, { a: () => { throw new Error("inner detail"); } });
  const response = await ask(dispatcher(), env, "https://a.example/");
  const body = await response.json();
  assert.deepEqual([response.status, body.error], [502, "worker_failed"]);
  assert.doesNotMatch(JSON.stringify(body), /inner/);
  assert.deepEqual(log.map(({ level, to, reason }) => [level, to, reason]), [["error", "a", "inner detail"]]);
  assert.match(await (await ask(dispatcher(), env, "https://a.example/", html)).text(), /<h1>Something went wrong<\/h1>/);
});

test("a worker that exceeds a limit is a 503 that doesn't invite to try again, and the log has the limit", async () => {
  const limits = ["Worker exceeded CPU time limit.", "Worker exceeded memory limit.", "Too many subrequests by single Worker invocation."];
  for (const limit of limits) {
    log = [];
    const env = bindings({ "a.example": "a" }, { a: () => { throw new Error(limit); } });
    const response = await ask(dispatcher(), env, "https://a.example/");
    assert.deepEqual([response.status, response.headers.get("retry-after"), (await response.json()).error], [503, null, "over_limit"]);
    assert.deepEqual(log.map(({ level, message, to, reason }) => [level, message, to, reason]), [["error", "a worker exceeded a limit", "a", limit]]);
  }
});

test("an error of a worker's own is its answer", async () => {
  const env = bindings({ "a.example": "a" }, { a: () => new Response("mine", { status: 500 }) });
  const response = await ask(dispatcher(), env, "https://a.example/");
  assert.deepEqual([response.status, await response.text()], [500, "mine"]);
});

test("a host that moved is looked up again when its old worker is gone", async () => {
  const hosts = { "a.example": "old" };
  const workers = { old: () => new Response("old"), new: () => new Response("new") };
  const env = bindings(hosts, workers);
  const target = dispatcher();
  assert.equal(await (await ask(target, env, "https://a.example/")).text(), "old");
  hosts["a.example"] = "new";
  delete workers.old;
  assert.equal(await (await ask(target, env, "https://a.example/", { method: "POST", body: "x" })).text(), "new");
  assert.deepEqual(env.asked.workers, ["old", "old", "new"]);
  delete workers.new;
  const gone = await ask(target, env, "https://a.example/");
  assert.deepEqual([gone.status, (await gone.json()).error], [404, "unknown_host"]);
  assert.equal(log.at(-1).message, "a host leads to a worker that isn't there");
});

test("without KV, what was known goes on, and all else is a 503", async () => {
  mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  try {
    const env = bindings({ "a.example": "a" }, { a: () => new Response("a") });
    const target = dispatcher();
    await ask(target, env, "https://a.example/");
    mock.timers.tick(60_000);
    env.HOSTS.get = async () => { throw new Error("KV GET failed: 500"); };
    assert.equal(await (await ask(target, env, "https://a.example/")).text(), "a");
    const other = await ask(target, env, "https://b.example/");
    assert.deepEqual([other.status, other.headers.get("retry-after"), (await other.json()).error], [503, "5", "unavailable"]);
  } finally {
    mock.timers.reset();
  }
});

test("its own health is at a reserved path, and under its own address", async () => {
  const env = bindings({ "a.example": "a" }, { a: () => new Response("a") });
  const target = dispatcher();
  for (const url of ["https://a.example/.well-known/dispatch/health", "https://front.sub.workers.dev/health", "http://front.localhost:8787/health", "http://127.0.0.1:8787/health", "http://[::1]:1/health"]) {
    const response = await ask(target, env, url);
    const { status, worker, digest, checks } = await response.json();
    assert.deepEqual([response.status, status, worker, digest, checks], [200, "healthy", "front", "abc", { dispatcher: { ok: true }, hosts: { ok: true } }], url);
  }
  assert.equal(await (await ask(target, env, "https://a.example/health")).text(), "a", "a customer's own health is its worker's");
  assert.equal((await ask(target, env, "https://a.example/.well-known/dispatch/health", { method: "POST" })).status, 405);
  const sick = { ...bindings(new Error("down"), {}), DISPATCHER: undefined };
  const response = await ask(target, sick, "https://front.sub.workers.dev/health");
  assert.deepEqual([response.status, (await response.json()).checks], [503, { dispatcher: { ok: false }, hosts: { ok: false } }]);
});
