// Bundles the runtime: `node build.mjs --out DIR` writes DIR/runtime.js and DIR/runtime.d.ts, and
// `node build.mjs --settings` writes src/settings.ts. Defines what is left out of the bundle, and why that is safe;
// knows nothing about customers. The same sources give the same bytes in any folder.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const read = (path) => readFile(join(here, path), "utf8");

/** In addition to the vendors of @c15t/scripts: a second name for one of them, and the types without a vendor. */
const OWN_TYPES = { "google-analytics": "gtag", console: "console", "console-log": "console" };

// A name instead of a path, which would depend on the folder, and so would the short names that esbuild derives from
// it.
const STEPS = "consent:steps";

/**
 * Files of packages that are replaced in the bundle, with their replacements; node's own resolution finds them. A
 * replacement that is never used fails the build, so that an upgrade cannot silently bring the original back.
 */
const replacements = [
  // The engine that runs a vendor's steps in the browser; this pack's replacement writes them out as source.
  { file: "@c15t/scripts/dist/engine/runtime.js", contents: () => `export * from "${STEPS}";` },
  instead("@c15t/backend/dist/744.js", "src/instead/c15t-telemetry.ts"),
  // The routes' descriptions, for /spec.json: their texts and the schemas of the responses.
  { file: "@c15t/backend/dist/49.js", contents: edit([[/describeRoute\(\{\n[^]*?\n {4}\}\)/g, "describeRoute()", 8]]) },
  instead("hono-openapi/dist/index.js", "src/instead/hono-openapi.ts"),
  instead("@scalar/hono-api-reference/dist/index.js", "src/instead/scalar.ts"),
  instead("@opentelemetry/api/build/src/index.js", "src/instead/opentelemetry.ts"),
  instead("jose/dist/webapi/index.js", "src/instead/jose.ts"),
  instead("kysely/dist/esm/plugin/with-schema/with-schema-plugin.js", "src/instead/kysely-parts.ts"),
  instead("kysely/dist/esm/plugin/immediate-value/immediate-value-transformer.js", "src/instead/kysely-parts.ts"),
  instead("kysely/dist/esm/query-builder/merge-query-builder.js", "src/instead/kysely-parts.ts"),
  instead("semver/index.js", "src/instead/semver.ts"),
  instead("@paralleldrive/cuid2/index.js", "src/instead/cuid2.ts"),
  { file: "@c15t/translations/dist/all.js", contents: translations },
  {
    file: /^fumadb\/dist\/kysely-\w+\.js$/,
    contents: edit([
      // Only schemas are migrated to schemas here, never an existing database of any kind (see database.ts).
      ["return generateMigration(", "throw new Error("],
      // Already imported at the top; a second import at run time would keep every dialect of Kysely in the bundle.
      ['const { sql } = await import("kysely");', ""],
      // The database handles foreign keys.
      ['if (relationMode === "fumadb") adapter = createSoftForeignKey(', 'if (relationMode === "fumadb") adapter = Object('],
    ]),
  },
];

async function main() {
  const { values } = parseArgs({ options: { out: { type: "string" }, settings: { type: "boolean" } } });
  const { destinations } = JSON.parse(await read("catalogue.json"));
  const { settingsModule } = await import("./schema-types.mjs");
  const settings = settingsModule(destinations);
  if (values.settings) return writeFile(join(here, "src/settings.ts"), settings);
  if (values.out === undefined) throw new Error("usage: node build.mjs --out DIR | --settings");

  if ((await read("src/settings.ts")) !== settings)
    throw new Error("src/settings.ts is not that of catalogue.json: run `npm run settings`");
  const { builtInScriptIntegrations } = await import("@c15t/scripts/registry");
  checkCatalogue(destinations, builtInScriptIntegrations);

  const out = resolve(values.out);
  const [runtime, types] = [await bundle(), declarations(settings, await read("src/config.ts"))];
  await mkdir(out, { recursive: true });
  await writeFile(join(out, "runtime.js"), runtime);
  await writeFile(join(out, "runtime.d.ts"), types);
}

async function bundle() {
  const { build } = await import("esbuild");
  const unused = new Set(replacements);
  const replace = {
    name: "replace",
    setup({ onLoad, onResolve }) {
      onResolve({ filter: new RegExp(`^${STEPS}$`) }, () => ({ path: join(here, "src/steps.ts") }));
      onLoad({ filter: /[\\/]node_modules[\\/].*\.m?js$/ }, async ({ path }) => {
        const file = path.replaceAll("\\", "/").split("/node_modules/").at(-1);
        const replacement = replacements.find((it) => (typeof it.file === "string" ? it.file === file : it.file.test(file)));
        if (!replacement) return undefined;
        unused.delete(replacement);
        // Its imports are resolved as if it were in the original's place.
        return { contents: await replacement.contents(path), loader: "ts", resolveDir: dirname(path) };
      });
    },
  };
  const { outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: ["src/worker.ts"],
    bundle: true,
    format: "esm",
    target: "es2022",
    conditions: ["workerd", "worker", "browser"],
    minify: true,
    // Most of the texts are not ASCII; escapes would make them three times as long.
    charset: "utf8",
    legalComments: "none",
    // A tsconfig.json around a copy of this folder must not change the bytes.
    tsconfigRaw: {},
    write: false,
    outdir: ".",
    logLevel: "silent",
    plugins: [replace],
  });
  if (unused.size > 0) throw new Error(`nothing to replace any more: ${[...unused].map(({ file }) => file).join(", ")}`);
  return outputFiles[0].text;
}

/** Each vendor of @c15t/scripts has its entry in the catalogue, as c15t has it, and each entry has its vendor. */
function checkCatalogue(destinations, integrations) {
  const expected = new Map(integrations.map((it) => [it.packageSubpath, it]));
  const problems = [];
  for (const [type, vendor] of Object.entries(OWN_TYPES))
    if (destinations[type]?.vendor !== vendor) problems.push(`${type} is missing or is not of the vendor ${vendor}`);
  for (const [type, { vendor, integrationCategory, consentCategory }] of expected) {
    const entry = destinations[type];
    if (!entry) problems.push(`${type} of @c15t/scripts is missing`);
    else if (entry.vendor !== vendor || entry.category !== integrationCategory || String(entry.requiredConsent) !== consentCategory)
      problems.push(`${type} should have vendor ${vendor}, category ${integrationCategory}, requiredConsent ["${consentCategory}"]`);
  }
  for (const type of Object.keys(destinations))
    if (!expected.has(type) && !Object.hasOwn(OWN_TYPES, type)) problems.push(`${type} is unknown to @c15t/scripts`);
  if (problems.length > 0) throw new Error(problems.map((problem) => `catalogue.json: ${problem}`).join("\n"));
}

/** The types that a customer's module sees: they depend on no package. */
function declarations(settings, config) {
  const types = settings.slice(settings.indexOf("/** A secret"), settings.indexOf("/** The settings that hold a URL"));
  const own = config.slice(config.lastIndexOf("/**", config.indexOf("export type Purpose")));
  return `// The types of runtime.js, generated with it.

${types}${own}
/** A customer's worker. */
export declare function defineWorker<const Types extends readonly DestinationType[]>(config: WorkerConfig<Types>): ModuleWorker;
`;
}

function instead(file, ours) {
  return { file, contents: () => read(ours) };
}

/**
 * The same translations in less space: the structure that all languages share is written once. The texts of the IAB
 * framework are left out: /init only sends them where that is enabled, and it is not enabled here.
 */
async function translations(path) {
  const { baseTranslations, ...rest } = await import(pathToFileURL(path));
  if (!baseTranslations || Object.keys(rest).length > 0) throw new Error("@c15t/translations/all has other exports than it had");
  const texts = [];
  const take = (value) =>
    typeof value === "string"
      ? texts.at(-1).push(value) - 1
      : Object.fromEntries(Object.entries(value).map(([key, member]) => [key, take(member)]));
  const shapes = Object.values(baseTranslations).map(({ iab, ...language }) => {
    texts.push([]);
    return JSON.stringify(take(language));
  });
  if (new Set(shapes).size > 1) throw new Error("the translations of c15t have no common shape any more");
  return `
    const fill = (shape, texts) => typeof shape === "number" ? texts[shape]
      : Object.fromEntries(Object.entries(shape).map(([key, member]) => [key, fill(member, texts)]));
    const shape = ${shapes[0]};
    const texts = ${JSON.stringify(texts)};
    export const baseTranslations = Object.fromEntries(
      ${JSON.stringify(Object.keys(baseTranslations))}.map((language, index) => [language, fill(shape, texts[index])]));`;
}

/** Returns the file with parts of its text replaced. Each part must occur the given number of times: by default, once. */
function edit(pieces) {
  return async (path) => {
    let text = await readFile(path, "utf8");
    for (const [before, after, times = 1] of pieces) {
      const parts = text.split(before);
      if (parts.length !== times + 1) throw new Error(`a package is not what it was: ${before} is there ${parts.length - 1} times`);
      text = parts.join(after);
    }
    return text;
  };
}

try {
  await main();
} catch (error) {
  const places = (error.errors ?? []).map(({ text, location: at }) =>
    at ? `${at.file}:${at.line}:${at.column}: ${text}` : text);
  console.error(places.length > 0 ? places.join("\n") : error.message);
  process.exitCode = 1;
}
