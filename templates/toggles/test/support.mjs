// The pack's own code over real SQLite, with a session token's maker and a Cloudflare that tests can change, delay and break.

import { execFileSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const file = (path) => fileURLToPath(new URL(path, import.meta.url));

export async function load() {
  const folder = mkdtempSync(join(tmpdir(), "toggles-"));
  try {
    execFileSync(process.execPath, [file("../build.mjs"), "--out", folder]);
    await build({
      bundle: true, format: "esm", logLevel: "silent", outfile: join(folder, "code.mjs"),
      stdin: { contents: `export * from "./mirror.ts"; export { ApiError } from "./cloudflare.ts";`, resolveDir: file("../src") },
    });
    const { default: worker } = await import(pathToFileURL(join(folder, "runtime.js")));
    return { worker, ...(await import(pathToFileURL(join(folder, "code.mjs")))) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** D1's interface over SQLite. `before` runs before each query or batch: it can wait, or fail. */
export function database() {
  const sqlite = new DatabaseSync(":memory:");
  sqlite.exec(readFileSync(file("../migrations/0001_zones.sql"), "utf8"));
  const db = { sqlite, queries: 0, before: async (_texts) => {} };
  const run = ({ text, values }) => {
    const statement = sqlite.prepare(text);
    // SQLite binds ?1 and ? by position.
    if (statement.columns().length > 0) return { results: statement.all(...values), meta: { changes: 0 } };
    return { results: [], meta: { changes: Number(statement.run(...values).changes) } };
  };
  const batch = async (statements) => {
    db.queries += 1;
    await db.before(statements.map(({ text }) => text));
    sqlite.exec("BEGIN");
    try {
      const results = statements.map(run);
      sqlite.exec("COMMIT");
      return results;
    } catch (error) {
      sqlite.exec("ROLLBACK");
      throw error;
    }
  };
  const prepare = (text, values = []) => {
    const statement = {
      text,
      values,
      bind: (...bound) => prepare(text, bound),
      all: async () => (await batch([statement]))[0],
      run: async () => (await batch([statement]))[0],
      first: async (column) => {
        const [first] = (await statement.all()).results;
        return first === undefined ? null : column === undefined ? first : first[column];
      },
    };
    return statement;
  };
  return Object.assign(db, { prepare, batch });
}

export const secret = "a secret of tests";
export function token(shop, { exp = Math.floor(Date.now() / 1000) + 60, key = secret, alg = "HS256" } = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${part({ alg, typ: "JWT" })}.${part({ dest: `https://${shop}`, exp })}`;
  return `${text}.${createHmac("sha256", key).update(text).digest("base64url")}`;
}
