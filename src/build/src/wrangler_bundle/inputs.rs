//! The files that decide a bundle of wrangler's: found after it was bundled, and looked at before it is bundled again. Runs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use flotilla_model::digest::{Digest, Framed};
use flotilla_model::modules::{ModuleKind, Modules};
use flotilla_model::plain_file;
use flotilla_spec::documents;
use flotilla_spec::pack::WranglerProject;
use flotilla_spec::yaml::Kind;

/// The files of a folder by which packages are found and code is compiled.
const OF_FOLDERS: [&str; 3] = ["package.json", "tsconfig.json", "jsconfig.json"];
/// The files that lock packages, or lay out workspaces.
const LOCKS: [&str; 7] = [
    "package-lock.json",
    "npm-shrinkwrap.json",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    "yarn.lock",
    "bun.lock",
    "bun.lockb",
];
/// The maximum number of files that decide a bundle, and the maximum size of all of them, in bytes.
const MOST_FILES: usize = 80_000;
const MOST_BYTES: u64 = 256 << 20;
/// The maximum number of sources that a bundle lists by name.
const MOST_NAMED: usize = 200;
/// The time by which a file system's clock can be behind.
const TICK: Duration = Duration::from_millis(20);

/// The files that decide a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inputs {
    /// Files, whether or not they are there.
    files: BTreeSet<PathBuf>,
    /// Folders of which the names decide, as another file of the same name can be found first.
    names: BTreeSet<PathBuf>,
    /// Folders of which every file decides.
    trees: BTreeSet<PathBuf>,
}

/// The digests of inputs at one time; nothing for a file that doesn't exist or can't be read.
pub(super) type Contents = BTreeMap<PathBuf, Option<Digest>>;

impl Inputs {
    /// Returns what is known before a bundle was ever made: the folders that the configuration names.
    pub(super) fn of_project(project: &WranglerProject) -> Inputs {
        Inputs { trees: project.trees.clone(), ..Inputs::default() }
    }

    /// Returns the inputs of a bundle, from esbuild's metafile and the modules beside the main one. Nothing if they are unknown.
    pub(super) fn of_bundle(project: &WranglerProject, metafile: &Value, modules: &Modules) -> Option<Inputs> {
        let mut inputs = Inputs::of_project(project);
        let listed = metafile["inputs"].as_object()?;
        let sources: BTreeSet<PathBuf> = listed
            .keys()
            .map(|path| plain_file::without_dots(&project.folder.join(path)))
            .filter(|path| path.is_file())
            .collect();
        let mut imported = BTreeSet::new();
        let in_trees = |name: &str| project.trees.iter().any(|tree| tree.join(name).is_file());
        let others = modules.list.iter().skip(1).filter(|module| module.kind != ModuleKind::SourceMap);
        for module in others.filter(|module| !in_trees(&module.name)) {
            imported.extend(original(project, listed, &module.name, &module.bytes)?);
        }
        let mut folders: BTreeSet<&Path> = BTreeSet::from([project.folder.as_path()]);
        for source in sources.iter().chain(&imported) {
            let below = |folder: &&Path| folder.starts_with(&project.workspace);
            folders.extend(source.ancestors().skip(1).take_while(below));
            if !is_installed(source) {
                inputs.names.extend(source.parent().map(Path::to_owned));
            }
        }
        let above = project.folder.ancestors().take_while(|folder| folder.starts_with(&project.workspace));
        let above: BTreeSet<&Path> = above.collect();
        for folder in folders.iter().chain(&above) {
            inputs.files.extend(OF_FOLDERS.map(|name| folder.join(name)));
        }
        inputs.files.extend(above.iter().flat_map(|folder| LOCKS.map(|name| folder.join(name))));
        // wrangler reads these into the variables of the project's own command.
        inputs.files.extend([".env", ".env.local", ".dev.vars"].map(|name| project.folder.join(name)));
        inputs.files.extend(project.tsconfig.clone());
        inputs.add_extended(&project.workspace);
        inputs.files.extend(sources.into_iter().chain(imported));
        (inputs.files.len() <= MOST_FILES).then_some(inputs)
    }

    /// Adds what tsconfig files extend.
    fn add_extended(&mut self, workspace: &Path) {
        let is_config = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "json");
        let is_package = |path: &PathBuf| path.file_name().is_some_and(|name| name == "package.json");
        let mut open: Vec<PathBuf> =
            self.files.iter().filter(is_config).filter(|path| !is_package(path)).cloned().collect();
        let mut known: BTreeSet<PathBuf> = BTreeSet::new();
        while let Some(path) = open.pop() {
            if known.len() > 1000 || !known.insert(path.clone()) {
                continue;
            }
            self.files.insert(path.clone());
            let Ok(bytes) = plain_file::read_through_links(&path, 1 << 20) else { continue };
            let Ok(document) = documents::read("tsconfig.json", &bytes) else { continue };
            let extends: Vec<&str> = match document.root.get("extends").map(|node| &node.kind) {
                Some(Kind::Text(text)) => vec![text],
                Some(Kind::List(items)) => items
                    .iter()
                    .filter_map(|item| if let Kind::Text(text) = &item.kind { Some(text.as_str()) } else { None })
                    .collect(),
                _ => Vec::new(),
            };
            let folder = path.parent().unwrap_or(workspace);
            for name in extends {
                let places: Vec<PathBuf> = match name.starts_with('.') {
                    true => vec![plain_file::without_dots(&folder.join(name))],
                    false => folder.ancestors().map(|above| above.join("node_modules").join(name)).collect(),
                };
                let forms = |place: PathBuf| {
                    let text = place.as_os_str().to_owned();
                    let mut with_ending = text.clone();
                    with_ending.push(".json");
                    [place.join("tsconfig.json"), PathBuf::from(with_ending), place]
                };
                open.extend(places.into_iter().flat_map(forms).filter(|path| path.is_file()).take(3));
            }
        }
    }

    /// Reads the current inputs. The error is the reason why they can't be read: there are too many.
    pub(super) fn contents(&self, project: &WranglerProject) -> Result<Contents, String> {
        let mut total = 0;
        let mut contents = Contents::new();
        let too_many = || {
            let most = MOST_FILES;
            format!("its bundle depends on more than {most} files, or on more than {} MiB", MOST_BYTES >> 20)
        };
        for path in &self.files {
            contents.insert(path.clone(), read(path, &mut total));
            if total >= MOST_BYTES {
                return Err(too_many());
            }
        }
        for folder in &self.names {
            let mut names: Vec<_> =
                fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
            names.retain(|name| !is_skipped(&name.to_string_lossy()));
            names.sort();
            let start = Framed::new("names");
            let framed = names.iter().fold(start, |framed, name| framed.field(name.as_encoded_bytes()));
            contents.insert(folder.join("*"), Some(framed.finish()));
        }
        let mut open: Vec<PathBuf> = self.trees.iter().cloned().collect();
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if is_skipped(&entry.file_name().to_string_lossy()) || is_of_fleet(project, &path) {
                    continue;
                }
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => open.push(path),
                    // A link to a folder isn't followed: what it leads to is under another name, or outside.
                    Ok(kind) if kind.is_file() || (kind.is_symlink() && path.is_file()) => {
                        let digest = read(&path, &mut total);
                        contents.insert(path, digest);
                    }
                    _ => {}
                }
                if contents.len() > MOST_FILES || total >= MOST_BYTES {
                    return Err(too_many());
                }
            }
        }
        Ok(contents)
    }
}

/// Returns whether these are the contents that wrangler saw: no file changed since it began, apart from those that the project's own command
/// made before they were bundled. `times`: of the beginning, and of the metafile.
pub(super) fn are_settled(
    project: &WranglerProject,
    before: &Contents,
    after: &Contents,
    metafile: &Value,
    (start, bundled): (SystemTime, SystemTime),
) -> bool {
    let changed = |found: &fs::Metadata| {
        let [seconds, nanoseconds] = [found.ctime(), found.ctime_nsec()].map(|part| u64::try_from(part).unwrap_or(0));
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
    };
    let inputs = metafile["inputs"].as_object().into_iter().flatten();
    let sizes: BTreeMap<PathBuf, Option<u64>> = inputs
        .map(|(path, input)| (plain_file::without_dots(&project.folder.join(path)), input["bytes"].as_u64()))
        .collect();
    let is_as_seen = |path: &PathBuf, digest: &Option<Digest>| {
        if before.get(path).is_some_and(|then| then == digest) {
            return true;
        }
        let Ok(found) = fs::metadata(path) else { return false };
        if changed(&found) + TICK < start {
            return true;
        }
        // A command makes files before they are bundled, and what is new is its own.
        let is_made = project.build.is_some() && changed(&found) <= bundled;
        is_made && (!before.contains_key(path) || sizes.get(path) == Some(&Some(found.len())))
    };
    let mut files = after.iter().filter(|(path, digest)| digest.is_some() && !path.ends_with("*"));
    files.all(|(path, digest)| is_as_seen(path, digest))
}

/// Returns a digest of the contents.
pub(super) fn digest(contents: &Contents) -> Digest {
    let framed = contents.iter().fold(Framed::new("inputs"), |framed, (path, digest)| {
        let framed = framed.field(path.as_os_str().as_encoded_bytes());
        match digest {
            Some(digest) => framed.field(&digest.to_bytes()),
            None => framed.field(b""),
        }
    });
    framed.finish()
}

/// Returns the beginning of a digest: enough to tell that a file changed, and short, as each deployed worker keeps it.
fn mark(digest: &Digest) -> u32 {
    let [a, b, c, d, ..] = digest.to_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Returns the sources by the names that people know: paths from the fleet's project, and packages, each with its digest.
pub(super) fn named(project: &WranglerProject, contents: &Contents) -> Vec<(String, u32)> {
    let (mut own, mut packages) = (BTreeMap::new(), BTreeMap::new());
    own.insert(project.path.clone(), mark(&project.digest));
    for (path, digest) in contents {
        let Some(digest) = digest.filter(|_| !path.ends_with("*")) else { continue };
        match package(path) {
            None => drop(own.insert(project.shown(path), mark(&digest))),
            Some(name) => {
                let framed: &mut Option<Framed> = packages.entry(name).or_insert_with(|| Some(Framed::new("package")));
                let start = framed.take().unwrap_or_else(|| Framed::new("package"));
                *framed = Some(start.field(within(path).as_bytes()).field(&digest.to_bytes()));
            }
        }
    }
    let packages = packages
        .into_iter()
        .filter_map(|(name, framed)| Some((format!("node_modules/{name}"), mark(&framed?.finish()))));
    let own = own.into_iter().take(MOST_NAMED);
    own.chain(packages.take(MOST_NAMED)).collect()
}

/// Returns the path of an installed file from the folder of packages that it is in.
fn within(path: &Path) -> String {
    let text = path.to_string_lossy().into_owned();
    text.rsplit_once("/node_modules/").map(|(_, within)| within.to_owned()).unwrap_or(text)
}

/// Returns the name of the package that a file was installed with.
fn package(path: &Path) -> Option<String> {
    let text = path.to_string_lossy();
    let (_, within) = text.rsplit_once("/node_modules/")?;
    let mut steps = within.split('/');
    let first = steps.next()?;
    Some(if first.starts_with('@') { format!("{first}/{}", steps.next()?) } else { first.to_owned() })
}

fn is_installed(path: &Path) -> bool {
    path.components().any(|step| step.as_os_str() == "node_modules")
}

/// Returns whether a name in a folder of sources is none of a source.
fn is_skipped(name: &str) -> bool {
    name.starts_with('.') || name == "node_modules"
}

/// Returns whether a file belongs to the fleet rather than to the wrangler project around it.
fn is_of_fleet(project: &WranglerProject, path: &Path) -> bool {
    let of_fleet = ["out", "export", "customers", "layers", "templates", "fleet.yaml"];
    path.strip_prefix(&project.root).is_ok_and(|path| of_fleet.iter().any(|name| path == Path::new(name)))
        && project.root.starts_with(&project.folder)
}

/// Reads a file's digest, and counts its bytes; beyond the limit, it isn't read.
fn read(path: &Path, total: &mut u64) -> Option<Digest> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    *total += found.len();
    if *total >= MOST_BYTES {
        return None;
    }
    let bytes = plain_file::read_through_links(path, found.len() + 1).ok()?;
    Some(Digest::of(&bytes))
}

/// Finds the file of a text, data or WebAssembly module: the metafile only has its name and the file that imports it. Nothing if there is
/// none with these bytes.
fn original(
    project: &WranglerProject,
    listed: &serde_json::Map<String, Value>,
    name: &str,
    bytes: &[u8],
) -> Option<BTreeSet<PathBuf>> {
    // wrangler names them by the hash of their content: `0123456789012345678901234567890123456789-hello.txt`.
    let is_hash = |hash: &str| hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let base = match name.split_once('-') {
        Some((hash, base)) if is_hash(hash) => base,
        _ => name.rsplit('/').next().unwrap_or(name),
    };
    let is_it =
        |path: &PathBuf| plain_file::read_through_links(path, bytes.len() as u64).is_ok_and(|found| found == bytes);
    let mut found = BTreeSet::new();
    for (path, input) in listed {
        let imports = input["imports"].as_array().into_iter().flatten();
        let mut paths = imports.filter_map(|import| import["path"].as_str());
        if !paths.any(|path| path.trim_start_matches("./") == name) {
            continue;
        }
        let importer = plain_file::without_dots(&project.folder.join(path));
        let text = plain_file::read_through_links(&importer, MOST_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let folder = importer.parent().unwrap_or(&project.folder);
        let specifiers = text.split(['"', '\'', '`']).map(|part| part.split('?').next().unwrap_or_default());
        for specifier in specifiers.filter(|part| part.ends_with(base) && part.len() < 1000 && !part.contains('\n')) {
            let places: Vec<PathBuf> = match specifier.starts_with('.') {
                true => vec![folder.join(specifier)],
                false => folder
                    .ancestors()
                    .map(|above| above.join("node_modules").join(specifier))
                    .chain([folder.join(specifier)])
                    .collect(),
            };
            found.extend(places.iter().map(|place| plain_file::without_dots(place)).filter(is_it));
        }
    }
    (!found.is_empty()).then_some(found)
}
