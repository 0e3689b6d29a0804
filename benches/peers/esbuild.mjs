// A bundle for each customer through esbuild's API, as a script would make it: reads out/, bundles each index.ts with
// the runtime, some at once, and prints the milliseconds per customer, without the start of Node.js.
//   node esbuild.mjs PACKAGES PROJECT COUNT AT_ONCE
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [packages, project, count, atOnce] = process.argv.slice(2);
const esbuild = createRequire(join(resolve(packages), "package.json"))("esbuild");
const production = join(project, "out/production");
const customers = readdirSync(production).slice(0, Number(count));
const bundle = (customer) =>
  esbuild.build({
    entryPoints: [join(production, customer, "index.ts")],
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    write: false,
  });
await bundle(customers[0]);
const start = performance.now();
const left = customers.values();
const worker = async () => {
  for (const customer of left) await bundle(customer);
};
await Promise.all(Array.from({ length: Number(atOnce) }, worker));
console.log((performance.now() - start) / customers.length);
