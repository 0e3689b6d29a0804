//! A worker's code as a pack: a wrangler project, which the pack names and which stays where it is, or the modules of a live worker, which the
//! pack contains. Reads files of the project; bundles nothing.

mod credentials;
mod redirected;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use flotilla_model::credential;
use flotilla_model::digest::Framed;
use flotilla_model::plain_file;
use flotilla_spec::pack::{WRANGLER, relative};
use flotilla_spec::yaml::Node;

use super::ids::slug;
use super::wrangler::{CUSTOMERS, Config, NAMES, entries, items, text, word};
use super::{Findings, ImportOptions, yaml_text};
use redirected::Used;

/// The keys of a configuration that decide how wrangler bundles its code, or what is uploaded with it. Consumers of queues and workflows are
/// in specs.
const KEYS: [&str; 23] = [
    "alias",
    "assets",
    "base_dir",
    "build",
    "data_blobs",
    "define",
    "durable_objects",
    "exports",
    "find_additional_modules",
    "jsx_factory",
    "jsx_fragment",
    "keep_names",
    "migrations",
    "minify",
    "no_bundle",
    "preserve_file_names",
    "python_modules",
    "rules",
    "site",
    "text_blobs",
    "tsconfig",
    "upload_source_maps",
    "wasm_modules",
];
/// The keys among them that have the same meaning in whatever folder the configuration is.
const ANYWHERE: [&str; 8] = [
    "define",
    "durable_objects",
    "jsx_factory",
    "jsx_fragment",
    "keep_names",
    "migrations",
    "minify",
    "upload_source_maps",
];
/// The maximum size, in bytes, of a package.json.
const MAX_PACKAGE: u64 = 1 << 20;
/// The most files and bytes of a folder that is compared with others.
const MAX_COMPARED: (usize, u64) = (2_000, 32 << 20);
/// The lock files of package managers, and the commands that install what they list.
const LOCKS: [(&str, &str); 6] = [
    ("package-lock.json", "npm ci"),
    ("npm-shrinkwrap.json", "npm ci"),
    ("pnpm-lock.yaml", "pnpm install --frozen-lockfile"),
    ("yarn.lock", "yarn install"),
    ("bun.lock", "bun install"),
    ("bun.lockb", "bun install"),
];
/// The end of the manifest of a pack.
const NO_HEALTH: &str = "\
# A path that shows that the worker works can be its health check, which `flotilla verify` and deploys in waves use:
# verify:
#   - { name: health, path: /, status: 200 }
";

/// A worker's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// The name that its pack gets if it is free; nothing: that of the project.
    pub name: String,
    /// Whether the key is that of its files, wherever they are.
    pub is_copy: bool,
    /// A key that is the same for workers that run the same code.
    pub key: String,
    /// Its location.
    pub source: Source,
}

/// The location of a worker's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A wrangler project, which wrangler bundles where it is.
    Project {
        /// The configuration, absolute and without links.
        config: PathBuf,
        /// Its environment; none is the top level.
        environment: Option<String>,
        /// The version of wrangler that flotilla has to install, as the project has none that can bundle it.
        wrangler: Option<&'static str>,
    },
    /// The modules of a live worker, by path, and the name of the main one.
    Modules {
        /// The main module.
        main: String,
        /// The modules.
        files: BTreeMap<String, Vec<u8>>,
    },
}

impl Code {
    /// Returns the code of a live worker: modules as they were uploaded.
    pub fn of_modules(name: &str, main: String, modules: BTreeMap<String, Vec<u8>>) -> Code {
        let files: BTreeMap<String, Vec<u8>> = modules.into_iter().filter(|(path, _)| is_module_path(path)).collect();
        let main = if files.contains_key(&main) { main } else { files.keys().next().cloned().unwrap_or_default() };
        let start = Framed::new("code").field(main.as_bytes());
        let framed = files.iter().fold(start, |framed, (path, bytes)| framed.field(path.as_bytes()).field(bytes));
        // What isn't there can't be told apart by what it is.
        let key = if files.is_empty() { format!("none of {name}") } else { framed.finish().to_string() };
        Code { name: slug(name), key, is_copy: false, source: Source::Modules { main, files } }
    }

    /// Returns the files of its pack, by path within it. `folder`: the absolute path of the pack's folder; `worker`: the files of the pack
    /// `worker`, of which packs of modules are made.
    pub fn pack(
        &self,
        name: &str,
        prefix: &str,
        folder: &Path,
        worker: &[(String, Vec<u8>)],
    ) -> BTreeMap<String, Vec<u8>> {
        match &self.source {
            Source::Project { config, environment, wrangler } => {
                let mut lines = vec![
                    ("name", name.to_owned()),
                    ("prefix", prefix.to_owned()),
                    ("bundler", "wrangler".to_owned()),
                    ("config", relative(folder, config)),
                ];
                lines.extend(environment.clone().map(|environment| ("environment", environment)));
                lines.extend(wrangler.map(|version| ("wrangler", version.to_owned())));
                let lines = lines.iter().map(|(key, value)| format!("{key}: {}\n", yaml_text::scalar(value)));
                let text = lines.collect::<String>() + NO_HEALTH;
                BTreeMap::from([("pack.yaml".to_owned(), text.into_bytes())])
            }
            Source::Modules { main, files } => modules_pack(name, prefix, main, files, worker),
        }
    }
}

/// Returns the files of a pack with these modules.
fn modules_pack(
    name: &str,
    prefix: &str,
    main: &str,
    modules: &BTreeMap<String, Vec<u8>>,
    worker: &[(String, Vec<u8>)],
) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (path, bytes) in worker {
        let text = || String::from_utf8_lossy(bytes).into_owned();
        let changed = match path.as_str() {
            "pack.yaml" => manifest(name, prefix, &text()),
            "build.json" => {
                let data =
                    json!({"entry": format!("src/{main}"), "define": {}, "alias": {}, "loader": {}, "tsconfig": {}});
                serde_json::to_string_pretty(&data).expect("BUG: options are JSON") + "\n"
            }
            "package.json" => package(name, &text()),
            "package-lock.json" => text().replace("\"flotilla-worker\"", &format!("\"flotilla-{name}\"")),
            "README.md" => {
                format!(
                    "# {name}\n\nThe code of a live worker, as `flotilla import` read it. build.json names its main module.\n"
                )
            }
            path if path.starts_with("src/") || path.starts_with("test/") => continue,
            _ => {
                files.insert(path.clone(), bytes.clone());
                continue;
            }
        };
        files.insert(path.clone(), changed.into_bytes());
    }
    files.extend(modules.iter().map(|(path, bytes)| (format!("src/{path}"), bytes.clone())));
    files
}

/// Returns the manifest of a pack of modules, made of that of the pack `worker`, whose probes ask for what its own code serves.
fn manifest(name: &str, prefix: &str, text: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some(("name", _)) => format!("name: {}", yaml_text::scalar(name)),
        Some(("prefix", _)) => format!("prefix: {}", yaml_text::scalar(prefix)),
        Some(("description", _)) => "description: Imported from a live worker.".to_owned(),
        _ => line.to_owned(),
    };
    let kept = text.lines().take_while(|line| !line.starts_with("# The requests that `flotilla verify`"));
    kept.map(line).map(|line| line + "\n").collect::<String>() + NO_HEALTH
}

fn package(name: &str, text: &str) -> String {
    let mut package: Value = serde_json::from_str(text).unwrap_or_default();
    package["name"] = format!("flotilla-{name}").into();
    if let Some(scripts) = package["scripts"].as_object_mut() {
        scripts.retain(|key, _| key == "build");
    }
    serde_json::to_string_pretty(&package).expect("BUG: a package is JSON") + "\n"
}

/// A command that has to run before flotilla can build, and the folder in which it has to run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// Its order: packages are installed before anything is built.
    pub order: u8,
    /// The folder.
    pub folder: PathBuf,
    /// The command.
    pub command: String,
}

/// The code of a project's configurations.
pub struct Projects<'a> {
    /// The project's folder, without links.
    pub root: &'a Path,
    /// The options of the import.
    pub options: ImportOptions<'a>,
    /// The configurations whose code was looked at already, so that nothing is reported twice.
    seen: BTreeSet<String>,
    /// The reasons for which packs pin a version of wrangler: each is reported once.
    pinned: BTreeSet<String>,
    /// The commands that have to run before a build.
    pub steps: BTreeSet<Step>,
}

impl<'a> Projects<'a> {
    /// Returns none looked at.
    pub fn new(root: &'a Path, options: ImportOptions<'a>) -> Projects<'a> {
        Projects { root, options, seen: BTreeSet::new(), pinned: BTreeSet::new(), steps: BTreeSet::new() }
    }

    /// Returns a key that is the same for configurations whose code is the same, wherever they are.
    pub fn key(&self, config: &Config<'_>) -> String {
        let folder = self.root.join(config.folder());
        let mut values: BTreeMap<&str, Value> = BTreeMap::new();
        for key in KEYS {
            let Some(node) = config.get(key) else { continue };
            let value = match key {
                // Bindings belong to specs; the worker's own classes belong to the code.
                "durable_objects" => own_classes(node.get("bindings")),
                _ => node.to_value(),
            };
            if !(value.is_null() || value.as_array().is_some_and(Vec::is_empty)) {
                values.insert(key, value);
            }
        }
        let main = config.text("main").map(|main| plain_file::without_dots(&folder.join(main)));
        let is_fixed = values.keys().all(|key| ANYWHERE.contains(key));
        let place = match main {
            Some(main) if is_fixed && !main.starts_with(&folder) => main.to_string_lossy().into_owned(),
            Some(main) => match self.copy(config, &main, is_fixed) {
                Some(copy) => copy,
                None => format!("{} {}", folder.display(), main.display()),
            },
            None => folder.to_string_lossy().into_owned(),
        };
        json!([place, values]).to_string()
    }

    /// Returns a key of the folder of a configuration that is the same for a copy of it beside it: shell loops often have a copy of the code
    /// in the folder of each customer.
    fn copy(&self, config: &Config<'_>, main: &Path, is_fixed: bool) -> Option<String> {
        let folder = config.folder().trim_end_matches('/');
        let (above, _) = folder.rsplit_once('/')?;
        let last = above.rsplit('/').next().unwrap_or(above);
        if !CUSTOMERS.contains(&last) {
            return None;
        }
        let root = self.root.join(folder);
        let main = main.strip_prefix(&root).ok().filter(|main| is_fixed && root.join(main).is_file())?;
        let mut files = BTreeMap::new();
        let (mut open, mut left) = (vec![root.clone()], MAX_COMPARED.1);
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).ok()? {
                let entry = entry.ok()?;
                let (path, name) = (entry.path(), entry.file_name().into_string().ok()?);
                let kind = entry.file_type().ok()?;
                if name.starts_with('.') || name == "node_modules" || NAMES.contains(&name.as_str()) {
                    continue;
                }
                if kind.is_dir() {
                    open.push(path);
                } else {
                    let bytes = plain_file::read(&path, left).ok()?;
                    left -= bytes.len() as u64;
                    files.insert(path.strip_prefix(&root).ok()?.to_path_buf(), bytes);
                    if files.len() > MAX_COMPARED.0 {
                        return None;
                    }
                }
            }
        }
        let start = Framed::new("copy").field(above.as_bytes()).field(main.as_os_str().as_encoded_bytes());
        let all = files.iter();
        let framed =
            all.fold(start, |framed, (path, bytes)| framed.field(path.as_os_str().as_encoded_bytes()).field(bytes));
        Some(framed.finish().to_string())
    }

    /// Returns the code of a configuration. The error is the reason why flotilla can't deploy it, and what to do.
    pub fn code(&mut self, config: &Config<'_>, findings: &mut Findings) -> Result<Code, (String, String)> {
        let file = self.root.join(&config.document.file);
        let folder = file.parent().unwrap_or(self.root).to_owned();
        let has_main = config.text("main").map(|main| plain_file::without_dots(&folder.join(main)));
        if let Some(main) = &has_main {
            if !main.starts_with(self.options.workspace) {
                let message = "`main` is outside the project".to_owned();
                return Err((message, "a worker's code must be in the git repository of its configuration".to_owned()));
            }
            if main.extension().is_some_and(|extension| extension == "py") {
                let message = "it is a worker in Python".to_owned();
                let help =
                    "flotilla deploys JavaScript and TypeScript; keep deploying this worker with `wrangler deploy`";
                return Err((message, help.to_owned()));
            }
        } else if config.get("assets").is_none() && config.get("site").is_none() {
            if let Some((script, main)) = self.main_of_command(&folder) {
                let message =
                    format!("{} has no `main`: the script `{script}` of package.json names {main}", config.what());
                return Err((message, format!("add `main = \"{main}\"` to the file, and import again")));
            }
            let message = format!("{} has no `main`: it deploys no worker", config.what());
            return Err((message, "nothing to do; if there is code, add `main = \"src/index.ts\"`".to_owned()));
        }
        let used = redirected::used(config, self.folders(&folder), self.options.workspace);
        let key = match &used {
            Used::Made(path) => path.to_string_lossy().into_owned(),
            _ => self.key(config),
        };
        let is_copy = has_main.as_deref().is_some_and(|main| self.copy(config, main, true).is_some());
        let wrangler = self.wrangler(config, &folder, findings);
        // A build is for one environment.
        let built_for = config.environment.filter(|_| used != Used::Own).unwrap_or_default();
        if self.seen.insert(format!("{} {key} {built_for}", config.document.file)) {
            self.steps_of(config, &folder, (has_main.as_deref(), &used), findings);
            for (name, span, node) in entries(config.get("define")) {
                let value = text(node).unwrap_or_default().trim_matches(['"', '\'']);
                if credential::is_credential(name, value) {
                    let help = "read it from `env` as a secret, and have a new one issued";
                    let message = format!("`define` writes the secret `{name}` into the code");
                    findings.credential(config.document.place(*span), message, help);
                }
            }
            if config.get("site").is_some() && config.get("assets").is_none() {
                let message = "`site` (Workers Sites) becomes static assets, which answer before the code".to_owned();
                let help = "code that reads them from `__STATIC_CONTENT` finds nothing there: let it call `env.ASSETS.fetch(request)`, with \
                            `assets` in place of `site`";
                findings.note(config.place("site"), message, help);
            }
            if let Some(main) = has_main.filter(|main| main.is_file()) {
                credentials::report(self.root, &main, findings);
            }
        }
        let name = folder.strip_prefix(self.root).ok().and_then(Path::file_name);
        let name = name.map(|name| name.to_string_lossy().into_owned());
        // `wrangler.acme.toml` is one customer's name for code of all.
        let own = || config.document.root.get("name").and_then(text).filter(|_| word(&config.document.file).is_none());
        let name = name.or_else(|| own().map(str::to_owned)).unwrap_or_default();
        let (config, environment) = match used {
            // It has the settings of its environment alone.
            Used::Made(path) => (path, None),
            _ => (file, config.environment.map(str::to_owned)),
        };
        let source = Source::Project { config, environment, wrangler };
        let name = if name.is_empty() { name } else { slug(&name) };
        Ok(Code { name, key, is_copy, source })
    }

    /// Returns the script of a package.json that deploys the worker of a folder, and the entry point that it names: `wrangler deploy src/index.ts`.
    fn main_of_command(&self, folder: &Path) -> Option<(String, String)> {
        let package = read_package(folder)?;
        let scripts = package["scripts"].as_object()?;
        scripts.iter().find_map(|(name, command)| {
            let (_, words) = command.as_str()?.split_once("wrangler ")?;
            let mut words = words.split_whitespace();
            words.next().filter(|word| matches!(*word, "deploy" | "publish"))?;
            let main = words.find(|word| !word.starts_with('-') && folder.join(word).is_file())?;
            Some((name.clone(), main.to_owned()))
        })
    }

    /// Returns the folders from that of a configuration upwards to the repository's.
    fn folders<'f>(&self, folder: &'f Path) -> impl Iterator<Item = &'f Path> + use<'f, 'a> {
        let workspace = self.options.workspace;
        folder.ancestors().take_while(move |folder| folder.starts_with(workspace))
    }

    /// Returns the version of wrangler that the pack has to pin, because the project has none that flotilla can use.
    fn wrangler(&mut self, config: &Config<'_>, folder: &Path, findings: &mut Findings) -> Option<&'static str> {
        let version = |folder: &Path| {
            let installed = read_package(&folder.join("node_modules/wrangler"))?;
            Some(installed["version"].as_str()?.to_owned())
        };
        let listed = |folder: &Path| {
            let package = read_package(folder)?;
            let lists = ["devDependencies", "dependencies"].into_iter();
            lists.filter_map(|list| package[list]["wrangler"].as_str()).next().map(str::to_owned)
        };
        let found = self.folders(folder).find_map(version).or_else(|| self.folders(folder).find_map(listed));
        let place = config.start();
        let why = match &found {
            None => "no package.json of the project lists wrangler".to_owned(),
            Some(version) if is_old(version) => {
                format!("the project's wrangler is {version}, which is too old for flotilla")
            }
            Some(_) => return None,
        };
        let help = "check that its bundle works like that of your wrangler, or install wrangler 4 in the project and remove `wrangler` from pack.yaml";
        if self.pinned.insert(why.clone()) {
            findings.note(place, format!("{why}: the pack bundles the code with wrangler {WRANGLER}"), help);
        }
        Some(WRANGLER)
    }

    /// Notes what has to be run before the project can be built.
    fn steps_of(
        &mut self,
        config: &Config<'_>,
        folder: &Path,
        (main, used): (Option<&Path>, &Used),
        findings: &mut Findings,
    ) {
        let package = self.folders(folder).find_map(|at| Some((at.to_owned(), read_package(at)?)));
        let lock = self.folders(folder).find_map(|at| {
            let (_, command) = LOCKS.iter().find(|(name, _)| at.join(name).is_file())?;
            Some((at.to_owned(), *command))
        });
        let lists = |key: &str| {
            package.as_ref().is_some_and(|(_, package)| package[key].as_object().is_some_and(|all| !all.is_empty()))
        };
        let installed = self.folders(folder).any(|at| at.join("node_modules").is_dir());
        if !installed && (lists("dependencies") || lists("devDependencies")) {
            let at = package.as_ref().map_or_else(|| folder.to_owned(), |(at, _)| at.clone());
            let (folder, command) = lock.clone().unwrap_or((at, "npm install"));
            self.steps.insert(Step { order: 0, folder, command: command.to_owned() });
        }
        let has_script = package.as_ref().filter(|(_, package)| package["scripts"]["build"].is_string());
        let manager = lock.map_or("npm", |(_, command)| command.split(' ').next().unwrap_or("npm"));
        let built_in = has_script.map(|(at, _)| at.clone());
        let command = format!("{manager} run build");
        let mut step = || {
            let at = built_in.clone()?;
            self.steps.insert(Step { order: 1, folder: at.clone(), command: command.clone() });
            let shown = relative(self.root, &at);
            Some(if shown.is_empty() { format!("`{command}`") } else { format!("`{command}` in {shown}") })
        };
        if *used == Used::NotMade {
            let environment = config.environment.map(|name| format!(" for the environment `{name}`"));
            let message = format!(
                "a build makes the configuration that `wrangler deploy` uses in the place of this one, and it has not run{}",
                environment.unwrap_or_default()
            );
            let build = step().unwrap_or_else(|| "`vite build`".to_owned());
            let help = format!("run {build}, and import again: otherwise, packs bundle what this file names");
            findings.note(config.start(), message, help);
            return;
        }
        let Some(main) = main.filter(|main| !main.exists()) else { return };
        if config.get("build").is_some_and(|build| build.get("command").is_some()) {
            return;
        }
        let shown = config.text("main").unwrap_or_default();
        let message = format!("`{shown}`, the worker's entry point, does not exist");
        let help = match step() {
            Some(build) => format!("if a build creates it, run that before `flotilla build`: {build}"),
            None => format!("if a build creates {}, run it before `flotilla build`", relative(self.root, main)),
        };
        findings.note(config.place("main"), message, help);
    }
}

/// Returns the entries of classes that the worker itself has.
fn own_classes(node: Option<&Node>) -> Value {
    items(node).iter().filter(|entry| entry.get("script_name").is_none()).map(Node::to_value).collect()
}

/// Returns whether a version, or a range of versions, is older than what flotilla can use.
fn is_old(version: &str) -> bool {
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    let major = digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major < 4) && !version.contains("||") && !version.starts_with(">=")
}

fn read_package(folder: &Path) -> Option<Value> {
    let bytes = plain_file::read_through_links(&folder.join("package.json"), MAX_PACKAGE).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Returns whether the name of a module can be a path in a pack: below it, not in a folder of git's, and without characters that no
/// file's name should have.
pub(super) fn is_module_path(path: &str) -> bool {
    plain_file::project_path(path).is_ok() && !path.contains(|c: char| c.is_control() || c == '\\')
}
