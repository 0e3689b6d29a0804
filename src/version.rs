//! The build script of the binary: the version that `--version` prints, with the commit and the target that it was built for.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/version.rs");
    println!("cargo::rerun-if-env-changed=FLOTILLA_COMMIT");
    let target = std::env::var("TARGET").unwrap_or_default();
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let text = match commit() {
        Some(commit) => format!("{version} ({commit}) {target}"),
        None => format!("{version} {target}"),
    };
    println!("cargo::rustc-env=FLOTILLA_VERSION={text}");
}

/// Returns the commit that is checked out, or the one that a release build sets in FLOTILLA_COMMIT. A source archive has none.
fn commit() -> Option<String> {
    if let Some(commit) = std::env::var("FLOTILLA_COMMIT").ok().filter(|commit| !commit.is_empty()) {
        return Some(commit.chars().take(12).collect());
    }
    // Changes with each commit and each checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
