// Builds the runtime and holds it to what the README says, in node. That it runs in workerd is shown by the tests of
// flotilla. Run with `npm test`.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const pack = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "worker-"));
after(() => rmSync(folder, { recursive: true }));
let count = 0;

/** Bundles a copy of the pack with these files of its own in it. */
function bundle(files = {}) {
  const copy = join(folder, String(count++));
  mkdirSync(copy);
  for (const name of ["build.mjs", "build.json", "package.json", "src"]) cpSync(join(pack, name), join(copy, name), { recursive: true });
  symlinkSync(join(pack, "node_modules"), join(copy, "node_modules"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(copy, name), text);
  const out = join(copy, "out");
  try {
    execFileSync(process.execPath, [join(copy, "build.mjs"), "--out", out], { stdio: "pipe" });
  } catch (error) {
    return { error: error.stderr.toString() };
  }
  const read = (name) => readFileSync(join(out, name), "utf8");
  return { script: read("runtime.js"), types: read("runtime.d.ts"), path: pathToFileURL(join(out, "runtime.js")) };
}

test("the sample tells how it is", async () => {
  const { default: worker } = await import(bundle().path);
  const get = (path, env) => worker.fetch(new Request(`https://acme.example${path}`), env);
  const health = await (await get("/health", { ENVIRONMENT: "production", WORKER: "app-acme", FLOTILLA_DIGEST: "abc" })).json();
  assert.ok(Math.abs(Date.parse(health.timestamp) - Date.now()) < 60_000);
  delete health.timestamp;
  assert.deepEqual(health, { status: "healthy", worker: "app-acme", environment: "production", digest: "abc" });
  const bare = await (await get("/health", {})).json();
  assert.deepEqual([bare.worker, bare.environment, bare.digest], [null, null, null]);
  assert.equal(await (await get("/", { GREETING: "Hi" })).text(), "Hi\n");
  assert.equal((await get("/nothing", {})).status, 404);
});

test("modules of Node.js and of Cloudflare are left to workerd, and texts are texts", async () => {
  const { script, types, path, error } = bundle({
    "src/index.ts": `import { join } from "path"; import { inspect } from "node:util"; import old from "./old.cjs";
      import text from "./page.html"; import sql from "./schema.sql"; import note from "./note.txt";
      export class Admin {}
      export const load = () => import("cloudflare:workers");
      export default { fetch: () => [join("a", "b"), inspect(1), old.parse("a=1").a, text, sql, note].join("|") };`,
    "src/old.cjs": `module.exports = { parse: require("querystring").parse };`,
    "src/page.html": "<p>",
    "src/schema.sql": "SELECT 1",
    "src/note.txt": "note",
  });
  assert.equal(error, undefined);
  for (const name of ["node:path", "node:util", "node:querystring"]) assert.match(script, new RegExp(`from "${name}"`), script);
  assert.match(script, /import\("cloudflare:workers"\)/);
  assert.equal((await import(path)).default.fetch(), "a/b|1|1|<p>|SELECT 1|note");
  assert.match(types, /export declare const Admin: any;\nexport declare const load: any;\n$/);
});

test("the same sources give the same bytes in every folder", () => {
  assert.equal(bundle().script, bundle().script);
});

test("mistakes are told with their place", () => {
  assert.match(bundle({ "src/index.ts": "export const a = 1;" }).error, /^src\/index\.ts has no default export/);
  assert.match(bundle({ "src/index.ts": 'import "./no.ts";' }).error, /^src\/index\.ts:1:7: Could not resolve/);
  assert.match(bundle({ "src/index.ts": 'import a from "./a.wasm"; export default a;', "src/a.wasm": "" }).error, /\.wasm/);
});
