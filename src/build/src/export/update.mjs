// Brings this folder up to date from a newer export: `node update.mjs FOLDER`. It looks at all of it before it replaces
// anything. `node update.mjs --pending` says whether what is here was deployed, `--deployed` notes that it was,
// and `--message` is what a commit of it is called.

import { createHash } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const LIST = "export.json";
const DEPLOYED = "deployed.json";
// Not taken from an export: GitHub lets no workflow change workflows.
const WORKFLOWS = ".github/";

class Refused extends Error {}
const refuse = (why) => {
  throw new Refused(`${why}; nothing was replaced`);
};

const bytes = (...path) => readFileSync(join(...path));
const sha256 = (data) => createHash("sha256").update(data).digest("hex");

/** The list of an export, which has to be one. */
function list(folder) {
  let read;
  try {
    read = JSON.parse(bytes(folder, LIST).toString());
  } catch {
    refuse(`that is no export: it has no ${LIST} that can be read`);
  }
  const { customer, workers, files } = read ?? {};
  const isMap = typeof files === "object" && files !== null && Object.keys(files).length > 0;
  if (typeof customer !== "string" || !Array.isArray(workers) || workers.length === 0 || !isMap) refuse(`its ${LIST} lacks something`);
  for (const [path, sum] of Object.entries(files)) {
    const steps = path.split("/");
    // Static assets are published, and have any name; everything else is code.
    const isAsset = steps[0] === "assets" || steps.includes("_assets", 1);
    const name = isAsset ? /^[^\\/:\x00-\x1f\x7f]+$/ : /^[A-Za-z0-9_.-]+$/;
    const plain = steps.every((step) => name.test(step) && step !== "." && step !== ".." && !/^(\.git|node_modules)$/i.test(step));
    if (!plain || path.startsWith(WORKFLOWS) || [LIST, DEPLOYED].includes(path)) refuse(`it has a file of a name that isn't taken: ${JSON.stringify(path)}`);
    if (!/^[0-9a-f]{64}$/.test(sum)) refuse(`its ${LIST} lacks the digest of ${path}`);
  }
  for (const { folder: of, digest } of workers)
    if (!/^[0-9a-f]{64}$/.test(digest) || !Object.hasOwn(files, `${of}/wrangler.jsonc`))
      refuse("a worker lacks its files");
  return { customer, workers, files };
}

/** All plain files below a folder; a link or anything else is refused. */
function below(folder, path = "") {
  return readdirSync(join(folder, path)).flatMap((name) => {
    const next = path === "" ? name : `${path}/${name}`;
    const metadata = lstatSync(join(folder, next));
    if (metadata.isDirectory()) return below(folder, next);
    if (!metadata.isFile()) refuse(`${next} is no plain file`);
    return [next];
  });
}

function update(folder) {
  const [now, next] = [list(here), list(folder)];
  if (now.customer !== next.customer) refuse(`it is of ${JSON.stringify(next.customer)}, not of ${now.customer}`);
  for (const path of below(folder))
    if (path !== LIST && !path.startsWith(WORKFLOWS) && !Object.hasOwn(next.files, path)) refuse(`it has a file that isn't on its list: ${path}`);
  const contents = Object.entries(next.files).map(([path, sum]) => {
    let data;
    try {
      data = bytes(folder, path);
    } catch {
      refuse(`${path} is missing`);
    }
    if (sha256(data) !== sum) refuse(`${path} is damaged`);
    return [path, data];
  });
  let changed = 0;
  for (const [path, data] of contents) {
    const file = join(here, path);
    if (existsSync(file) && bytes(file).equals(data)) continue;
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, data);
    changed += 1;
  }
  for (const path of Object.keys(now.files).filter((path) => !Object.hasOwn(next.files, path))) {
    rmSync(join(here, path), { force: true });
    changed += 1;
  }
  // The last: until then, this is the old export, and is brought up to date again.
  writeFileSync(join(here, LIST), bytes(folder, LIST));
  console.log(changed === 0 ? "nothing new" : `${changed} files changed`);
}

/** What decides whether there is something to deploy. */
const digests = () => JSON.stringify(list(here).workers.map(({ worker, digest }) => [worker, digest]));

/** What a commit of this export is called. */
function message() {
  const { customer, workers } = list(here);
  return `${customer}: ${workers.map(({ worker, digest }) => `${worker} ${digest.slice(0, 16)}`).join(", ")}`;
}

try {
  const [what] = process.argv.slice(2);
  if (what === "--pending") console.log(!existsSync(join(here, DEPLOYED)) || bytes(here, DEPLOYED).toString().trim() !== digests());
  else if (what === "--message") console.log(message());
  else if (what === "--deployed") writeFileSync(join(here, DEPLOYED), `${digests()}\n`);
  else if (what === undefined || what.startsWith("-")) throw new Refused("usage: node update.mjs FOLDER | --pending | --deployed | --message");
  else update(what);
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
