// Tests build.mjs, in Node.js and with modules of its own, whatever the worker in src is. Run with `npm test`.

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

/** Bundles a copy of the pack; if there are files, they take the place of the worker in src. */
function bundle(files) {
  const copy = join(folder, String(count++));
  mkdirSync(copy);
  for (const name of ["build.mjs", "build.json", "package.json", "src"]) cpSync(join(pack, name), join(copy, name), { recursive: true });
  symlinkSync(join(pack, "node_modules"), join(copy, "node_modules"));
  if (files !== undefined) {
    mkdirSync(join(copy, "fixture"));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(copy, "fixture", name), text);
    const options = JSON.parse(readFileSync(join(copy, "build.json"), "utf8"));
    writeFileSync(join(copy, "build.json"), JSON.stringify({ ...options, entry: "fixture/index.ts" }));
  }
  const out = join(copy, "out");
  try {
    execFileSync(process.execPath, [join(copy, "build.mjs"), "--out", out], { stdio: "pipe" });
  } catch (error) {
    return { error: error.stderr.toString() };
  }
  const read = (name) => readFileSync(join(out, name), "utf8");
  return { script: read("runtime.js"), types: read("runtime.d.ts"), path: pathToFileURL(join(out, "runtime.js")) };
}

test("modules of Node.js and of Cloudflare are left to workerd, and texts are texts", async () => {
  const { script, types, path, error } = bundle({
    "index.ts": `import { join } from "path"; import { inspect } from "node:util"; import old from "./old.cjs";
      import text from "./page.html"; import sql from "./schema.sql"; import note from "./note.txt";
      export class Admin {}
      export const load = () => import("cloudflare:workers");
      export default { fetch: () => [join("a", "b"), inspect(1), old.parse("a=1").a, text, sql, note].join("|") };`,
    "old.cjs": `module.exports = { parse: require("querystring").parse };`,
    "page.html": "<p>",
    "schema.sql": "SELECT 1",
    "note.txt": "note",
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
  assert.match(bundle({ "index.ts": "export const a = 1;" }).error, /^fixture\/index\.ts has no default export/);
  assert.match(bundle({ "index.ts": 'import "./no.ts";' }).error, /^fixture\/index\.ts:1:7: Could not resolve/);
  assert.match(bundle({ "index.ts": 'import a from "./a.wasm"; export default a;', "a.wasm": "" }).error, /\.wasm/);
});
