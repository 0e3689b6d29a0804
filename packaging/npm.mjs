// Packs the npm packages: `flotilla`, which is a launcher, and `@flotilla/<os>-<cpu>` with a binary each.
//
//   node packaging/npm.mjs BINARIES OUT
//
// BINARIES is the folder that archives.mjs reads. Writes a tarball each into OUT, to be published with `npm publish`, the platforms'
// packages first.
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fail, inRoot, project, targets } from "./project.mjs";

const [binaries, out] = process.argv.slice(2).map((path) => resolve(path));
if (!out) fail("usage: node packaging/npm.mjs BINARIES OUT");
const { version, description, license, repository } = project();
const about = { version, description, license, homepage: repository, repository: { type: "git", url: `git+${repository}.git` } };
const has = targets.filter(({ target }) => existsSync(join(binaries, target, "flotilla")));
if (has.length === 0) fail(`${binaries} has no binary for any target`);
mkdirSync(out, { recursive: true });

// Packs a package whose files are written by a function.
function pack(manifest, write) {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-npm-"));
  try {
    for (const file of ["LICENSE-APACHE", "LICENSE-MIT"]) copyFileSync(inRoot(file), join(folder, file));
    write(folder);
    writeFileSync(join(folder, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
    execFileSync("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", out], { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

for (const { target, os, cpu } of has) {
  const name = `@flotilla/${os}-${cpu}`;
  const manifest = {
    name,
    ...about,
    description: `The binary of flotilla for ${os}-${cpu}`,
    os: [os],
    cpu: [cpu],
    files: ["bin", "LICENSE-*"],
    // Yarn Plug'n'Play: a binary can't be started from within an archive.
    preferUnplugged: true,
  };
  pack(manifest, (folder) => {
    mkdirSync(join(folder, "bin"));
    copyFileSync(join(binaries, target, "flotilla"), join(folder, "bin/flotilla"));
    chmodSync(join(folder, "bin/flotilla"), 0o755);
    writeFileSync(join(folder, "README.md"), `# ${name}\n\n${manifest.description}. Install the package \`flotilla\` instead.\n`);
  });
}
// It names only what was packed: a package that isn't there is no error to npm, and flotilla would be without its binary.
const optional = Object.fromEntries(has.map(({ os, cpu }) => [`@flotilla/${os}-${cpu}`, version]));
const launcher = {
  name: "flotilla",
  ...about,
  keywords: ["cloudflare", "workers", "wrangler", "deploy", "multi-tenant"],
  bin: { flotilla: "bin/flotilla.js" },
  engines: { node: ">=22.12" },
  files: ["bin", "LICENSE-*"],
  optionalDependencies: optional,
};
pack(launcher, (folder) => {
  mkdirSync(join(folder, "bin"));
  copyFileSync(inRoot("packaging/npm/flotilla.js"), join(folder, "bin/flotilla.js"));
  chmodSync(join(folder, "bin/flotilla.js"), 0o755);
  copyFileSync(inRoot("packaging/npm/README.md"), join(folder, "README.md"));
});
