//! The configuration that a build makes in the place of a project's own: `@cloudflare/vite-plugin` and others write one beside the code that
//! they bundle, and `wrangler deploy` uses it. Reads files; runs nothing.

use std::path::{Path, PathBuf};

use serde_json::Value;

use flotilla_model::plain_file;

use super::super::wrangler::{Config, NAMES};
use super::read_package;

/// The file that names the configuration.
const FILE: &str = ".wrangler/deploy/config.json";
/// The package whose builds write it.
const PLUGIN: &str = "@cloudflare/vite-plugin";
/// The maximum size, in bytes, of a configuration.
const MAX_BYTES: u64 = 1 << 20;

/// The configuration that `wrangler deploy` uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Used {
    /// The one that was found.
    Own,
    /// One that a build made.
    Made(PathBuf),
    /// One that a build makes, which has not run for this environment.
    NotMade,
}

/// Returns the configuration that `wrangler deploy` uses for a worker. `folders` are those of the configuration and above it.
pub(super) fn used<'f>(config: &Config<'_>, folders: impl Iterator<Item = &'f Path>, workspace: &Path) -> Used {
    let folders: Vec<&Path> = folders.collect();
    let name = config.document.file.rsplit('/').next().unwrap_or_default();
    // A file that `--config` names is used itself.
    let Some(folder) = folders.first().filter(|_| NAMES.contains(&name)) else { return Used::Own };
    let made = read(&folder.join(FILE)).and_then(|deploy| {
        let path = plain_file::without_dots(&folder.join(FILE).parent()?.join(deploy["configPath"].as_str()?));
        let made = path.starts_with(workspace).then(|| read(&path))??;
        (made["targetEnvironment"].as_str() == config.environment).then_some(path)
    });
    let is_vite = || {
        let package = folders.iter().find_map(|folder| read_package(folder)).unwrap_or_default();
        ["dependencies", "devDependencies"].iter().any(|list| package[list][PLUGIN].is_string())
    };
    match made {
        Some(path) => Used::Made(path),
        None if is_vite() || folder.join(FILE).is_file() => Used::NotMade,
        None => Used::Own,
    }
}

fn read(path: &Path) -> Option<Value> {
    let bytes = plain_file::read_through_links(path, MAX_BYTES).ok()?;
    serde_json::from_slice(&bytes).ok()
}
