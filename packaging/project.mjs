// What every package says of the project, read from Cargo.toml, and the targets that binaries are built for.
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));

// A binary for another system goes here, into the matrix of .github/workflows/release.yml and into packaging/README.md. Linux
// binaries are linked statically, so that one of them runs on every distribution.
export const targets = [
  { target: "x86_64-unknown-linux-musl", os: "linux", cpu: "x64" },
  { target: "aarch64-unknown-linux-musl", os: "linux", cpu: "arm64" },
  { target: "x86_64-apple-darwin", os: "darwin", cpu: "x64" },
  { target: "aarch64-apple-darwin", os: "darwin", cpu: "arm64" },
];

// The name, version, description, license and repository of the root package.
export function project() {
  const options = { cwd: root, encoding: "utf8", maxBuffer: 1 << 26 };
  const metadata = JSON.parse(execFileSync("cargo", ["metadata", "--no-deps", "--format-version=1", "--offline"], options));
  const found = metadata.packages.find((one) => one.name === "flotilla");
  const { name, version, description, license, repository } = found;
  return { name, version, description, license, repository };
}

// The path of a file of the repository's root.
export const inRoot = (path) => `${root}/${path}`;

// Ends with a message instead of a stack trace.
export function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}
