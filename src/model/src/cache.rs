//! The cache that all projects of a user share: npm packages and bundled runtimes, each under the digest of what
//! decides it. Knows folders; deleting it costs time only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::digest::Framed;
use crate::failure::Failure;
use crate::progress::Progress;

/// The environment variable that moves the cache.
pub const CACHE_VARIABLE: &str = "FLOTILLA_CACHE_DIR";

/// Returns the cache's folder: `$FLOTILLA_CACHE_DIR`, or `flotilla` where the system keeps caches.
pub fn folder() -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable(CACHE_VARIABLE)
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("flotilla")))
        .or_else(|| {
            let caches = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
            variable("HOME").map(|home| home.join(caches).join("flotilla"))
        })
        .ok_or_else(|| {
            Failure::new("there is no folder for the cache: neither HOME nor XDG_CACHE_HOME is set")
                .hint(format!("set {CACHE_VARIABLE} to a folder"))
        })
}

/// Returns an entry of the cache: the folder `<kind>/<key>`, made by `make` in a temporary folder if it isn't there yet.
/// Only one process at a time makes an entry; a process that is killed leaves nothing that looks like an entry.
pub fn entry(kind: &str, key: &str, make: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<PathBuf, Failure> {
    let parent = folder()?.join(kind);
    let entry = parent.join(key);
    if entry.is_dir() {
        return Ok(entry);
    }
    let cannot = || format!("the cache in {} can't be written", parent.display());
    fs::create_dir_all(&parent).with_context(cannot)?;
    let lock = File::create(parent.join(format!("{key}.lock"))).with_context(cannot)?;
    lock.lock().with_context(cannot)?;
    if entry.is_dir() {
        return Ok(entry);
    }
    let making = parent.join(format!("{key}.making"));
    if making.exists() {
        fs::remove_dir_all(&making).with_context(cannot)?;
    }
    fs::create_dir(&making).with_context(cannot)?;
    make(&making)?;
    fs::rename(&making, &entry).with_context(cannot)?;
    Ok(entry)
}

/// Returns a folder with the `node_modules` of a package.json and its lock file.
pub fn npm(what: &str, package: &[u8], lock: &[u8], progress: &dyn Progress) -> Result<PathBuf, Failure> {
    let key = Framed::new("npm").field(package).field(lock).finish().short();
    entry("npm", &key, |folder| {
        fs::write(folder.join("package.json"), package).context("the cache can't be written")?;
        fs::write(folder.join("package-lock.json"), lock).context("the cache can't be written")?;
        progress.begin(&format!("installing the npm packages of {what}; once, about half a minute"), None);
        let result = npm_ci(what, folder);
        progress.end();
        result
    })
}

fn npm_ci(what: &str, folder: &Path) -> Result<(), Failure> {
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Failure::new(format!("npm is not installed; it is needed for {what}"))
                .hint("install Node.js 20 or newer, which brings npm"),
            _ => Failure::new(format!("npm can't be started: {error}")),
        })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).take(12).collect();
    let offline = ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH", "ECONNRESET", "ENOTCACHED"];
    let failure = if offline.iter().any(|code| text.contains(code)) {
        Failure::new(format!("the npm registry can't be reached, so the npm packages of {what} can't be installed"))
            .hint("check the network, or point npm at a mirror with `npm config set registry URL`; then run the same command again")
    } else {
        Failure::new(format!("`npm ci` failed for {what} ({})", output.status))
    };
    Err(failure.hint(format!("npm said:\n{}", last.join("\n"))))
}
