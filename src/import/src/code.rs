//! A worker's code as a pack: the modules that its entry point reaches, the packages that they import, and wrangler's
//! options for bundling them. Reads files of the project alone; bundles nothing.

mod closure;
mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use flotilla_model::cache;
use flotilla_model::child::Job;
use flotilla_model::digest::Framed;
use flotilla_model::plain_file;

use super::ids::slug;
use super::wrangler::{Config, text};
use super::{FindingKind, Findings, yaml_text};
use closure::{Closure, versions};
use options::options;

/// The most bytes of one file.
const MAX_BYTES: u64 = 8 << 20;
/// The extensions that wrangler bundles as text, unless `rules` say otherwise.
const TEXT: [&str; 3] = ["txt", "html", "sql"];

/// A worker's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// The name that its pack gets if it is free.
    pub name: String,
    /// Its files by path, below the pack's `src`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The entry point among them; without files, the expected one.
    pub main: String,
    /// The packages that it imports, with their versions.
    pub packages: BTreeMap<String, String>,
    /// The project's lock file of npm.
    pub lock: Option<Vec<u8>>,
    /// The options of the bundler.
    pub options: Options,
}

/// The options of the bundler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Names that are replaced, and by what.
    pub define: BTreeMap<String, String>,
    /// Modules that replace others.
    pub alias: BTreeMap<String, String>,
    /// The options of the TypeScript compiler that change what code does.
    pub compiler: Map<String, Value>,
    /// The extensions that are imported as text, beside those that are anyway.
    pub text: BTreeSet<String>,
}

/// The end of the manifest of code that serves `/health` and says which bundle runs.
const HEALTH_WITH_DIGEST: &str = "\
# The health check: asked by `flotilla verify` and after each wave of a deploy.
verify:
  - name: health
    path: /health
    json: { digest: \"{digest}\" }
";
/// The end of the manifest of code that serves `/health`.
const HEALTH: &str = "\
# The health check: asked by `flotilla verify` and after each wave of a deploy. It passes whichever version answers, until the answer says
# which one it is: return `digest: env.FLOTILLA_DIGEST` as JSON, and add `json: { digest: \"{digest}\" }` here.
verify:
  - name: health
    path: /health
";
/// The end of the manifest of other code.
const NO_HEALTH: &str = "\
# The code serves no /health, so deploys in waves go on without asking. A path that shows that the worker works makes a health check:
# verify:
#   - { name: health, path: /, status: 200 }
";

impl Code {
    /// Returns the code of a live worker: modules as they were uploaded.
    pub fn of_modules(name: &str, main: String, modules: BTreeMap<String, Vec<u8>>) -> Code {
        let files: BTreeMap<String, Vec<u8>> = modules.into_iter().filter(|(path, _)| is_module_path(path)).collect();
        let main = if files.contains_key(&main) { main } else { files.keys().next().cloned().unwrap_or_default() };
        Code { name: slug(name), files, main, packages: BTreeMap::new(), lock: None, options: Options::default() }
    }

    /// Returns a key that is the same for workers that run the same code.
    pub fn key(&self) -> String {
        let mut framed = Framed::new("code").field(self.main.as_bytes());
        for (path, bytes) in &self.files {
            framed = framed.field(path.as_bytes()).field(bytes);
        }
        let options = json!({"define": self.options.define, "alias": self.options.alias, "compiler": self.options.compiler, "text": self.options.text, "packages": self.packages});
        framed.field(options.to_string().as_bytes()).finish().to_string()
    }

    /// Returns the files of its pack, by path within it, made from those of the pack `worker`; without a lock file if the packages
    /// need one of their own.
    pub fn pack(&self, name: &str, prefix: &str, worker: &[(String, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for (path, bytes) in worker {
            let text = || String::from_utf8_lossy(bytes).into_owned();
            let changed = match path.as_str() {
                "pack.yaml" => self.manifest(name, prefix, &text()),
                "build.json" => self.bundling(),
                "package.json" => self.package(name, &text()),
                "package-lock.json" if self.packages.is_empty() => {
                    text().replace("\"flotilla-worker\"", &format!("\"flotilla-{name}\""))
                }
                "package-lock.json" => continue,
                "README.md" => format!(
                    "# {name}\n\nThe code of a worker that `flotilla import` found, as a pack. build.json names the module where it begins.\n"
                ),
                path if path.starts_with("src/") || path.starts_with("test/") => continue,
                _ => {
                    files.insert(path.clone(), bytes.clone());
                    continue;
                }
            };
            files.insert(path.clone(), changed.into_bytes());
        }
        files.extend(self.files.iter().map(|(path, bytes)| (format!("src/{path}"), bytes.clone())));
        files
    }

    /// Returns the manifest of its pack. What a deployed worker is asked is what the code serves: the sample's own probes ask for more.
    fn manifest(&self, name: &str, prefix: &str, text: &str) -> String {
        let line = |line: &str| match line.split_once(": ") {
            Some(("name", _)) => format!("name: {}", yaml_text::scalar(name)),
            Some(("prefix", _)) => format!("prefix: {}", yaml_text::scalar(prefix)),
            Some(("description", _)) => "description: Imported from a project of wrangler's.".to_owned(),
            _ => line.to_owned(),
        };
        let kept = text.lines().take_while(|line| !line.starts_with("# What `flotilla verify`"));
        let kept: String = kept.map(line).map(|line| line + "\n").collect();
        let says = |text: &str| self.files.values().any(|bytes| memchr::memmem::find(bytes, text.as_bytes()).is_some());
        let serves_health = ['"', '\'', '`'].iter().any(|quote| says(&format!("{quote}/health{quote}")));
        let probe = match (serves_health, says("FLOTILLA_DIGEST")) {
            (true, true) => HEALTH_WITH_DIGEST,
            (true, false) => HEALTH,
            (false, _) => NO_HEALTH,
        };
        kept + probe
    }

    /// Takes the files below the folder that all have in common, `src/` in most projects, and moves paths
    /// accordingly.
    fn set_files(&mut self, files: BTreeMap<String, Vec<u8>>, entry: &str) {
        let folders = files.keys().map(|path| path.rfind('/').map_or("", |at| &path[..=at]));
        let above = folders.reduce(common).unwrap_or("").to_owned();
        self.main = entry.strip_prefix(&above).unwrap_or(entry).to_owned();
        for target in self.options.alias.values_mut() {
            if let Some(path) = target.strip_prefix("./").and_then(|path| path.strip_prefix(above.as_str())) {
                *target = format!("./src/{path}");
            }
        }
        self.files = files.into_iter().map(|(path, bytes)| (path[above.len()..].to_owned(), bytes)).collect();
    }

    /// Returns what the bundler reads: data alone, which the code of build.mjs doesn't contain.
    fn bundling(&self) -> String {
        let loader: Map<String, Value> =
            self.options.text.iter().map(|extension| (format!(".{extension}"), "text".into())).collect();
        let mut tsconfig = Map::new();
        if !self.options.compiler.is_empty() {
            tsconfig.insert("compilerOptions".to_owned(), self.options.compiler.clone().into());
        }
        let data = json!({
            "entry": format!("src/{}", self.main), "define": self.options.define, "alias": self.options.alias,
            "loader": loader, "tsconfig": tsconfig,
        });
        serde_json::to_string_pretty(&data).expect("BUG: options are JSON") + "\n"
    }

    fn package(&self, name: &str, text: &str) -> String {
        let mut package: Value = serde_json::from_str(text).unwrap_or_default();
        package["name"] = format!("flotilla-{name}").into();
        if let Some(scripts) = package["scripts"].as_object_mut() {
            scripts.retain(|key, _| key == "build");
        }
        for (name, version) in &self.packages {
            package["dependencies"][name] = version.clone().into();
        }
        serde_json::to_string_pretty(&package).expect("BUG: a package is JSON") + "\n"
    }
}

/// Runs npm to write a lock file for a package.json from the versions of an older one. The error is npm's message.
pub fn lock(package: &[u8], older: Option<&[u8]>) -> Result<Vec<u8>, String> {
    let folder = tempfile::Builder::new().prefix("flotilla-lock-").tempdir().map_err(|error| error.to_string())?;
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).map_err(|error| error.to_string());
    write("package.json", package)?;
    if let Some(older) = older {
        write("package-lock.json", older)?;
    }
    let words = [
        "install",
        "--package-lock-only",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefer-offline",
        "--loglevel=error",
        "--omit-lockfile-registry-resolved",
    ];
    let job = Job::new("npm", words, folder.path()).environment(cache::npm_environment());
    let ended = job.run().map_err(|trouble| format!("npm {trouble}"))?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        return Err(said.lines().find(|line| !line.trim().is_empty()).unwrap_or("npm said nothing").to_owned());
    }
    std::fs::read(folder.path().join("package-lock.json")).map_err(|error| error.to_string())
}

/// The keys of a configuration that decide its code.
pub const KEYS: [&str; 9] =
    ["alias", "assets", "define", "jsx_factory", "jsx_fragment", "main", "rules", "site", "tsconfig"];

/// Reads the code of a configuration. Without a `main` there is none.
pub fn of(root: &Path, config: &Config<'_>, findings: &mut Findings, lost: &mut Vec<String>) -> Option<Code> {
    let folder = config.document.file.rsplit('/').nth(1);
    let name = folder.or_else(|| config.document.root.get("name").and_then(text)).unwrap_or("worker");
    let Some(main) = config.text("main") else {
        if config.get("assets").is_none() && config.get("site").is_none() {
            let help = "write where its code begins: `main = \"src/index.ts\"`";
            findings.push(FindingKind::Lost, config.start(), format!("{} has no `main`", config.what()), help);
            lost.push("its code".to_owned());
        }
        return None;
    };
    let mut code = Code {
        name: slug(name),
        files: BTreeMap::new(),
        main: "index.ts".to_owned(),
        packages: BTreeMap::new(),
        lock: None,
        options: options(root, config, findings, lost),
    };
    let Some(entry) = entry_point(root, config, main, &mut code, findings, lost) else { return Some(code) };
    let mut closure = Closure {
        root,
        options: &code.options,
        files: BTreeMap::new(),
        bytes: 0,
        packages: BTreeSet::new(),
        findings,
        lost,
    };
    closure.follow(&entry, &config.place("main"));
    let (files, packages) = (closure.files, closure.packages);
    code.set_files(files, &entry);
    code.packages = versions(root, config, &packages, findings, lost);
    if !code.packages.is_empty() {
        code.lock = nearest(root, config.folder(), "package-lock.json").map(|(_, bytes)| bytes);
    }
    Some(code)
}

/// Returns the path of the entry point; none, with a finding, where the code can't be imported.
fn entry_point(
    root: &Path,
    config: &Config<'_>,
    main: &str,
    code: &mut Code,
    findings: &mut Findings,
    lost: &mut Vec<String>,
) -> Option<String> {
    let place = config.place("main");
    let Some(entry) = inside(config.folder(), main) else {
        let help = "a worker's code is within the folder that is imported: name that folder, or move the code";
        findings.push(FindingKind::Lost, place, "`main` is outside of the project", help);
        lost.push("its code".to_owned());
        return None;
    };
    if entry.ends_with(".py") {
        let help = "flotilla bundles JavaScript and TypeScript; keep deploying this worker with `wrangler deploy`";
        findings.push(FindingKind::Lost, place, "it is a worker in Python", help);
        lost.push("its code".to_owned());
        return None;
    }
    if !root.join(&entry).exists() {
        let help = format!(
            "if a build writes it, run that build and import again with --force; or put the bundled worker at \
                            templates/…/src/{}",
            file_name(&entry)
        );
        code.main = file_name(&entry).to_owned();
        findings.push(FindingKind::Lost, place, format!("`{main}`, the worker's entry point, does not exist"), help);
        lost.push("its code, which was not built".to_owned());
        return None;
    }
    Some(entry)
}

/// Returns whether the name of a module can be a path in a pack: below it, not in a folder of git's, and without characters that no
/// file's name should have.
pub(super) fn is_module_path(path: &str) -> bool {
    plain_file::project_path(path).is_ok() && !path.contains(|c: char| c.is_control() || c == '\\')
}

/// Returns the folders that two paths have in common.
fn common<'a>(one: &'a str, other: &'a str) -> &'a str {
    let mut end = 0;
    for (index, byte) in one.bytes().enumerate() {
        if other.as_bytes().get(index) != Some(&byte) {
            break;
        }
        if byte == b'/' {
            end = index + 1;
        }
    }
    &one[..end]
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Resolves a path from a folder, without `.` and `..`; `None` if it points out of the project.
fn inside(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\\') || path.contains('\0') {
        return None;
    }
    let mut steps: Vec<&str> = folder.split('/').filter(|step| !step.is_empty()).collect();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => _ = steps.pop()?,
            step => steps.push(step),
        }
    }
    Some(steps.join("/"))
}

/// Returns whether a path goes through a symbolic link.
fn is_linked(root: &Path, path: &str) -> bool {
    let mut at = root.to_owned();
    path.split('/').any(|step| {
        at.push(step);
        std::fs::symlink_metadata(&at).is_ok_and(|metadata| metadata.is_symlink())
    })
}

/// Returns the nearest file of a name, from a folder upwards to the project's own.
fn nearest(root: &Path, folder: &str, name: &str) -> Option<(String, Vec<u8>)> {
    let mut folder = folder.trim_end_matches('/');
    loop {
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        let is_plain = std::fs::symlink_metadata(root.join(&path))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_BYTES * 4);
        if is_plain && let Ok(bytes) = std::fs::read(root.join(&path)) {
            return Some((path, bytes));
        }
        if folder.is_empty() {
            return None;
        }
        folder = folder.rfind('/').map_or("", |at| &folder[..at]);
    }
}
