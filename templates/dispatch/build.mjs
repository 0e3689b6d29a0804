// Bundles the runtime: `node build.mjs --out DIR` writes DIR/runtime.js and DIR/runtime.d.ts. The same sources give the
// same bytes in any folder.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

try {
  const { values } = parseArgs({ options: { out: { type: "string" } } });
  if (values.out === undefined) throw new Error("usage: node build.mjs --out DIR");
  const { outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: ["src/worker.ts"],
    bundle: true,
    format: "esm",
    target: "es2022",
    legalComments: "none",
    // A tsconfig.json around a copy of this folder must not change the bytes.
    tsconfigRaw: {},
    write: false,
    outdir: ".",
    logLevel: "silent",
  });
  const config = await readFile(join(here, "src/config.ts"), "utf8");
  const types = `// The types of runtime.js, generated with it.

${config.slice(config.indexOf("/**"))}
/** A dispatch worker. */
export declare function defineDispatcher(config: DispatcherConfig): ModuleWorker;
`;
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
