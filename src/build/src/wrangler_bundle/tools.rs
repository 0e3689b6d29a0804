//! The programs that bundle a wrangler project: the team's wrangler, or the one that the pack pins, and Node.js.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use flotilla_model::cache;
use flotilla_model::child::{Environment, Job, find_program};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::failure::Failure;
use flotilla_model::plain_file;
use flotilla_model::progress::Progress;
use flotilla_spec::pack::{Pack, WRANGLER, WranglerProject};

/// The oldest major version of wrangler that is used.
const OLDEST_WRANGLER: u64 = 4;
/// The oldest Node.js for a wrangler that doesn't define one.
const OLDEST_NODE: [u64; 3] = [20, 0, 0];
/// The maximum size, in bytes, of a package.json.
const MOST_BYTES: u64 = 1 << 20;

/// The wrangler of a pack.
pub(super) struct Wrangler {
    /// Its version.
    pub(super) version: String,
    /// Its folder; none if it is pinned, and so is installed when it is needed.
    folder: Option<PathBuf>,
}

/// The Node.js that runs it.
pub(super) struct Node {
    /// The program; none if there is none.
    pub(super) program: Option<PathBuf>,
}

impl Node {
    pub(super) fn find() -> Node {
        Node { program: find_program("node") }
    }

    /// Returns what distinguishes this program from others, without running it.
    pub(super) fn identity(&self) -> String {
        let real = self.program.as_ref().and_then(|program| program.canonicalize().ok());
        let of = |path: PathBuf| {
            let found: Metadata = path.metadata().ok()?;
            Some(format!("{} {} {}.{}", path.display(), found.len(), found.mtime(), found.mtime_nsec()))
        };
        real.and_then(of).unwrap_or_default()
    }
}

/// Returns an error about the programs of a pack.
fn missing(pack: &Pack, message: String, help: String) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(Code::NoWrangler, Place::file(&format!("{}/pack.yaml", pack.path)), message, help))
}

/// Returns three numbers of a version such as `v22.12.0` or `>=20.3`.
fn numbers(text: &str) -> Option<[u64; 3]> {
    let text = text.trim().trim_start_matches(|c: char| !c.is_ascii_digit());
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    Some([parts.next()??, parts.next().flatten().unwrap_or(0), parts.next().flatten().unwrap_or(0)])
}

impl Wrangler {
    /// Finds the wrangler of a pack. One that is pinned doesn't have to be installed yet.
    pub(super) fn find(pack: &Pack, project: &WranglerProject) -> Result<Wrangler, Box<Diagnostic>> {
        let found = match &pack.manifest.wrangler {
            Some(version) => Wrangler { version: version.clone(), folder: None },
            None => {
                let folders = project.folder.ancestors().take_while(|folder| folder.starts_with(&project.workspace));
                let mut folders = folders.map(|folder| folder.join("node_modules/wrangler"));
                let Some(folder) = folders.find(|folder| folder.join("package.json").is_file()) else {
                    let message = format!("there is no wrangler in the node_modules of {}", project.path);
                    let help = format!(
                        "install the packages of the wrangler project, as with `npm ci`, or pin a version in pack.yaml, which flotilla installs: `wrangler: {WRANGLER}`"
                    );
                    return Err(missing(pack, message, help));
                };
                let package = package(&folder);
                let version = package["version"].as_str().unwrap_or_default().to_owned();
                Wrangler { version, folder: Some(folder) }
            }
        };
        match numbers(&found.version) {
            Some([major, ..]) if major >= OLDEST_WRANGLER => Ok(found),
            _ => Err(too_old(pack, &found.version)),
        }
    }

    /// Returns its script, installed if it is pinned, and checks that Node.js is there and new enough for it.
    pub(super) fn script(&self, pack: &Pack, node: &Node, progress: &dyn Progress) -> Result<PathBuf, super::Error> {
        let needed = |text: &str| format!("install Node.js {text} or newer, and put it first on the PATH");
        let Some(program) = &node.program else {
            return Err(missing(pack, "Node.js, which runs wrangler, is not installed".to_owned(), needed("22")).into());
        };
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => {
                let what = format!("the pack {}", pack.path);
                cache::npm_package("wrangler", &self.version, &what, progress)?.join("node_modules/wrangler")
            }
        };
        let package = package(&folder);
        let least = package["engines"]["node"].as_str().and_then(numbers).unwrap_or(OLDEST_NODE);
        let job = Job::new(program, ["--version"], &folder).environment(Environment::plain());
        let ended = job.output(1 << 10).time(Duration::from_secs(30)).run().map_err(|trouble| {
            let failure = Failure::new(format!("`node --version` {trouble}"));
            super::Error::Failure(failure)
        })?;
        let version = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
        if numbers(&version).is_none_or(|found| found < least) {
            let [major, minor, _] = least;
            let message =
                format!("Node.js {version} is too old for wrangler {}, which needs {major}.{minor}", self.version);
            return Err(missing(pack, message, needed(&format!("{major}.{minor}"))).into());
        }
        let bin = match &package["bin"] {
            Value::String(bin) => Some(bin.as_str()),
            bins => bins["wrangler"].as_str(),
        };
        let script = bin.map(|bin| folder.join(bin)).filter(|script| script.is_file());
        let broken =
            || missing(pack, format!("the wrangler in {} is damaged", folder.display()), "install it again".to_owned());
        script.ok_or_else(|| broken().into())
    }
}

/// Returns the error of a wrangler that doesn't support the required options.
pub(super) fn too_old(pack: &Pack, version: &str) -> Box<Diagnostic> {
    let shown = if version.is_empty() { "of this project" } else { version };
    let message = format!("wrangler {shown} is too old: bundling needs its options --outfile and --metafile");
    missing(
        pack,
        message,
        format!(
            "install wrangler {OLDEST_WRANGLER}, for example with `npm install --save-dev wrangler@{OLDEST_WRANGLER}`"
        ),
    )
}

fn package(folder: &Path) -> Value {
    let bytes = plain_file::read_through_links(&folder.join("package.json"), MOST_BYTES).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(numbers("v22.12.0"), Some([22, 12, 0]));
        assert_eq!(numbers(">=20.3"), Some([20, 3, 0]));
        assert_eq!(numbers("4.164.0-beta.1"), Some([4, 164, 0]));
        assert_eq!(numbers(""), None);
        assert!(numbers("9.0.0") < numbers("20.0.0"));
    }
}
