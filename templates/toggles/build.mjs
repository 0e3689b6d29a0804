// Bundles the runtime: `node build.mjs --out DIR` writes DIR/runtime.js and DIR/runtime.d.ts. The same sources give the
// same bytes in any folder. As with wrangler, packages are resolved for workerd, and Node.js's own modules are left to
// workerd; unlike wrangler, it adds no replacements for Node.js modules that workerd lacks.

import { readFile, mkdir, writeFile } from "node:fs/promises";
import { builtinModules } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

/** Node.js modules are left to workerd (`nodejs_compat`), with or without `node:` before the name. */
const builtins = {
  name: "builtins",
  async setup({ onResolve, onLoad }) {
    const { dependencies = {} } = JSON.parse(await readFile(join(here, "package.json"), "utf8"));
    const known = new Set(builtinModules.filter((name) => !name.startsWith("_")));
    onResolve({ filter: /^(node:)?[a-z_0-9/]+$/ }, ({ path, kind }) => {
      const bare = path.replace(/^node:/, "");
      // A package can have the name of such a module, and then takes precedence.
      if (path === bare && (!known.has(bare) || Object.hasOwn(dependencies, bare.split("/")[0]))) return undefined;
      return kind === "require-call"
        ? { path: `node:${bare}`, namespace: "required" }
        : { path: `node:${bare}`, external: true };
    });
    // workerd's modules can only be imported; `require` in a package returns the result of the import.
    onLoad({ filter: /.*/, namespace: "required" }, ({ path }) => ({
      contents: `import module_ from ${JSON.stringify(path)}; module.exports = module_;`,
    }));
  },
};

try {
  const { values } = parseArgs({ options: { out: { type: "string" } } });
  if (values.out === undefined) throw new Error("usage: node build.mjs --out DIR");
  // Options of wrangler that decide the bundle. They are data: nothing in them is run here.
  const { entry, define, alias, loader, tsconfig } = JSON.parse(await readFile(join(here, "build.json"), "utf8"));
  const { outputFiles, metafile, warnings } = await build({
    absWorkingDir: here,
    entryPoints: [entry],
    bundle: true,
    format: "esm",
    target: "es2024",
    conditions: ["workerd", "worker", "browser"],
    external: ["cloudflare:*"],
    alias,
    loader: { ...loader, ".txt": "text", ".html": "text", ".sql": "text" },
    define: { ...define, "process.env.NODE_ENV": '"production"', "navigator.userAgent": '"Cloudflare-Workers"' },
    keepNames: true,
    legalComments: "none",
    // A tsconfig.json around a copy of this folder must not change the bytes.
    tsconfigRaw: tsconfig,
    plugins: [builtins],
    metafile: true,
    write: false,
    outdir: ".",
    logLevel: "silent",
  });
  for (const { text, location: at } of warnings) console.error(at ? `${at.file}:${at.line}:${at.column}: ${text}` : text);
  const [exported] = Object.values(metafile.outputs).map(({ exports }) => exports);
  if (!exported.includes("default"))
    throw new Error(`${entry} has no default export: a worker is \`export default { async fetch(request, env) { … } }\``);
  const named = exported.filter((name) => name !== "default").sort();
  const types = `// The types of runtime.js, generated with it: what it exports, for modules that only pass it on.

declare const worker: object;
export default worker;
${named.map((name) => `export declare const ${name}: any;\n`).join("")}`;
  const out = resolve(values.out);
  await mkdir(out, { recursive: true });
  await writeFile(join(out, "runtime.js"), outputFiles[0].text);
  await writeFile(join(out, "runtime.d.ts"), types);
} catch (error) {
  const places = (error.errors ?? []).map(({ text, location: at }) =>
    at ? `${at.file}:${at.line}:${at.column}: ${text}` : text);
  console.error(places.length > 0 ? places.join("\n") : error.message);
  process.exitCode = 1;
}
