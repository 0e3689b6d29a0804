#!/usr/bin/env node
// Starts the binary for this machine, which is in a package of its own.
"use strict";
const { spawn } = require("node:child_process");

const name = `@flotilla/${process.platform}-${process.arch}`;

function find() {
  const available = Object.keys(require("../package.json").optionalDependencies);
  if (!available.includes(name)) {
    const systems = available.map((one) => one.replace("@flotilla/", "")).join(", ");
    const windows = process.platform === "win32" ? "On Windows, run flotilla in WSL." : "Build it from source with cargo.";
    return fail(`flotilla has no binary for ${process.platform}-${process.arch}, only for ${systems}`, windows);
  }
  try {
    return require.resolve(`${name}/bin/flotilla`);
  } catch {
    return fail(
      `the package ${name}, which holds flotilla's binary for this machine, is not installed`,
      "It is an optional dependency: reinstall without --omit=optional, and without a lock file or node_modules of another system.",
    );
  }
}

function fail(message, help) {
  console.error(`error: ${message}\n  help: ${help}`);
  process.exit(1);
}

// Runs the binary as a child: its signals and its exit code become those of this process.
function run(binary, args) {
  let child;
  const forward = ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2"];
  for (const signal of forward) {
    // A terminal sends what is typed to the whole process group, so that the child has it already.
    const typed = (signal === "SIGINT" || signal === "SIGQUIT") && process.stdin.isTTY;
    process.on(signal, () => typed || child.kill(signal));
  }
  // From here on no signal ends this process and leaves the child behind.
  child = spawn(binary, args, { stdio: "inherit" });
  child.on("error", (error) => fail(`${binary} can't be started: ${error.message}`, "Reinstall flotilla."));
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code);
    for (const one of forward) process.removeAllListeners(one);
    process.kill(process.pid, signal);
    // A signal that doesn't end this process, such as one that the shell ignores.
    setTimeout(() => process.exit(128 + (require("node:os").constants.signals[signal] ?? 0)), 100);
  });
}

const binary = find();
const args = process.argv.slice(2);
// Node.js 22.15 and newer can become the binary, which leaves nothing to forward. It warns that this is experimental.
if (typeof process.execve === "function") {
  process.removeAllListeners("warning");
  try {
    process.execve(binary, [binary, ...args], process.env);
  } catch {
    // As where a permission model is on.
  }
}
run(binary, args);
