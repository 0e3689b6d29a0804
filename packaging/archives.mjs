// Packs one archive per target, and writes SHA256SUMS.
//
//   node packaging/archives.mjs BINARIES OUT
//
// BINARIES holds a folder per target with the binary `flotilla`. The completions and man pages are the same for all of them, and
// are printed by the binary that runs on this machine. Needs GNU tar: the archives of the same files are the same bytes.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fail, inRoot, project, targets } from "./project.mjs";

const [binaries, out] = process.argv.slice(2).map((path) => resolve(path));
if (!out) fail("usage: node packaging/archives.mjs BINARIES OUT");
const { version } = project();
const has = targets.filter(({ target }) => existsSync(join(binaries, target, "flotilla")));
const own = has.find(({ os, cpu }) => os === process.platform && cpu === process.arch);
if (!own) fail(`${binaries} has no binary for ${process.platform}-${process.arch}, which prints the completions`);
const flotilla = join(binaries, own.target, "flotilla");
chmodSync(flotilla, 0o755);

mkdirSync(out, { recursive: true });
const folder = mkdtempSync(join(tmpdir(), "flotilla-archives-"));
try {
  const completions = join(folder, "completions");
  mkdirSync(completions);
  const files = { bash: "flotilla.bash", zsh: "_flotilla", fish: "flotilla.fish" };
  for (const [shell, file] of Object.entries(files)) {
    writeFileSync(join(completions, file), execFileSync(flotilla, ["completions", shell]));
  }
  execFileSync(flotilla, ["man", join(folder, "man")], { stdio: ["ignore", "ignore", "inherit"] });
  for (const { target } of has) {
    const name = `flotilla-${version}-${target}`;
    const inside = join(folder, name);
    mkdirSync(inside);
    copyFileSync(join(binaries, target, "flotilla"), join(inside, "flotilla"));
    chmodSync(join(inside, "flotilla"), 0o755);
    for (const file of ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md"]) copyFileSync(inRoot(file), join(inside, file));
    for (const shared of ["completions", "man"]) execFileSync("cp", ["-R", join(folder, shared), inside]);
    const time = process.env.SOURCE_DATE_EPOCH ?? "0";
    const same = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", `--mtime=@${time}`, "--mode=u+rw,go+r,go-w"];
    const tar = execFileSync("tar", [...same, "-C", folder, "-cf", "-", name], { maxBuffer: 1 << 30 });
    const archive = execFileSync("gzip", ["-9n"], { input: tar, maxBuffer: 1 << 30 });
    writeFileSync(join(out, `${name}.tar.gz`), archive);
  }
} finally {
  rmSync(folder, { recursive: true });
}
const sums = readdirSync(out)
  .filter((file) => file.endsWith(".tar.gz") || file.endsWith(".cdx.json"))
  .sort()
  .map((file) => `${createHash("sha256").update(readFileSync(join(out, file))).digest("hex")}  ${file}\n`);
writeFileSync(join(out, "SHA256SUMS"), sums.join(""));
