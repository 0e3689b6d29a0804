// Tests the sample in src/index.ts, in Node.js: replace this file with the tests of your own worker. Run with `npm test`.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const folder = mkdtempSync(join(tmpdir(), "worker-"));
after(() => rmSync(folder, { recursive: true }));
let worker;
before(async () => {
  execFileSync(process.execPath, [fileURLToPath(new URL("../build.mjs", import.meta.url)), "--out", folder]);
  ({ default: worker } = await import(pathToFileURL(join(folder, "runtime.js"))));
});
const get = (path, env) => worker.fetch(new Request(`https://acme.example${path}`), env);

test("it greets, and knows its paths", async () => {
  assert.equal(await (await get("/", { GREETING: "Hi" })).text(), "Hi\n");
  assert.equal((await get("/nothing", {})).status, 404);
});

test("/health answers what the probe in pack.yaml expects", async () => {
  const answer = await get("/health", { ENVIRONMENT: "production", WORKER: "app-acme", FLOTILLA_DIGEST: "abc" });
  const { timestamp, ...health } = await answer.json();
  assert.equal(answer.status, 200);
  assert.ok(Math.abs(Date.parse(timestamp) - Date.now()) < 60_000);
  assert.deepEqual(health, { status: "healthy", worker: "app-acme", environment: "production", digest: "abc", checks: {} });
  const bare = await (await get("/health", {})).json();
  assert.deepEqual([bare.worker, bare.environment, bare.digest], [null, null, null]);
});

test("/health asks the bindings, and keeps their errors to the log", async (t) => {
  const log = t.mock.method(console, "error", () => {});
  const DB = { prepare: (sql) => ({ run: async () => assert.equal(sql, "SELECT 1") }) };
  const FILES = { head: async () => null };
  const fine = await get("/health", { DB, FILES });
  assert.deepEqual([fine.status, (await fine.json()).checks], [200, { DB: "ok", FILES: "ok" }]);
  const CACHE = { get: async () => { throw new Error("no such namespace: 42"); } };
  const broken = await get("/health", { DB, CACHE });
  const text = await broken.text();
  assert.equal(broken.status, 503);
  assert.deepEqual([JSON.parse(text).status, JSON.parse(text).checks], ["unhealthy", { DB: "ok", CACHE: "failed" }]);
  assert.ok(!text.includes("42") && log.mock.callCount() === 1);
});
