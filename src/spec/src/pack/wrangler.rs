//! The wrangler project that a pack with `bundler: wrangler` bundles: where its configuration is, what of it decides the bundle, and the
//! settings in it that specs must have. Reads the configuration alone; runs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::assets::{self, AssetSource};
use super::databases;
use super::objects::Objects;
use crate::documents;
use crate::tree::Tree;
use crate::yaml::{Document, Kind, Node};
use flotilla_model::binding::KINDS;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::Digest;
use flotilla_model::migrations::DatabaseMigrations;
use flotilla_model::objects::{ClassExport, Migration};
use flotilla_model::plain_file;

/// The template of the wrangler file of each worker.
pub const TEMPLATE: (&str, &str) = ("wrangler.jsonc", include_str!("wrangler.jsonc.tera"));
/// The version of wrangler that flotilla is tested with, for projects that have none of their own.
pub const WRANGLER: &str = "4.164.0";
/// The maximum size, in bytes, of a configuration.
const MOST_BYTES: u64 = 1 << 20;
/// The way to fix a path of a configuration.
const CONFIG_HELP: &str = "`config` is the path of a wrangler.toml, wrangler.json or wrangler.jsonc from the pack's folder: ../../apps/web/wrangler.jsonc; if a \
                           build makes the file, run that first";

/// The keys that wrangler doesn't take over from the top level, apart from those of bindings.
const NOT_INHERITED: [&str; 10] = [
    "cloudchamber",
    "connect",
    "containers",
    "define",
    "secrets",
    "streaming_tail_consumers",
    "tail_consumers",
    "unsafe",
    "unsafe_hello_world",
    "vars",
];
/// The keys that flotilla can't deploy yet, and what they set.
const UNSUPPORTED: [(&str, &str); 9] = [
    ("cloudchamber", CONTAINERS),
    ("connect", "a connect binding"),
    ("containers", CONTAINERS),
    ("data_blobs", "data blobs"),
    ("logfwdr", "a log forwarder"),
    ("streaming_tail_consumers", "streaming tail consumers"),
    ("text_blobs", "text blobs"),
    ("unsafe", "unsafe bindings or metadata"),
    ("wasm_modules", "WebAssembly modules outside the code"),
];

/// The key of containers.
const CONTAINERS: &str = "containers";
/// The help for a setting that can't be deployed.
const KEEP_DEPLOYING: &str = "keep deploying this worker with `wrangler deploy`, or move this part to another worker that you deploy with wrangler";
/// The help for containers.
const NO_REGISTRY: &str = "a container needs an image in Cloudflare's registry, which `wrangler deploy` builds and pushes with Docker: keep \
                           deploying this worker with it";
/// The help for a workflow that is exported under one name.
const EXPORTED_WORKFLOW: &str = "remove it here, and define it in the specs under a name for each customer: \
                                 `bindings: { FLOW: { workflow: \"{customer}-flow\", class: Flow } }`";

/// A wrangler project.
pub struct WranglerProject {
    /// The configuration, without links.
    pub config: PathBuf,
    /// The configuration from the project's root, with `/`; it can begin with `..`.
    pub path: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The folder of the configuration, where wrangler runs.
    pub folder: PathBuf,
    /// The folder within which packages, lock files and tsconfig files count: the git repository, or the fleet's project.
    pub workspace: PathBuf,
    /// The project of the fleet, without links.
    pub root: PathBuf,
    /// The entry point, as it is written, with its place; none if the worker has no code.
    pub main: Option<(String, Place)>,
    /// The command that makes the code before wrangler bundles it, with its place.
    pub build: Option<(String, Place)>,
    /// The folders whose files decide the bundle, all of them: those that `build.command` reads, and that of additional modules.
    pub trees: BTreeSet<PathBuf>,
    /// The tsconfig.json that the configuration names.
    pub tsconfig: Option<PathBuf>,
    /// The settings of the configuration that specs must have.
    pub declared: Vec<Declared>,
    /// The Durable Objects of its code.
    pub objects: Objects,
    /// The migrations of its D1 databases, by the names of the bindings.
    pub databases: BTreeMap<String, Arc<DatabaseMigrations>>,
    /// Its static assets.
    pub assets: Option<AssetSource>,
}

/// A setting of a wrangler configuration that flotilla takes from specs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its kind and name.
    pub subject: Subject,
    /// Its place.
    pub place: Place,
}

/// The subject of a setting of a wrangler configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A variable.
    Variable(String),
    /// A secret that must be set.
    Secret(String),
    /// A binding.
    Binding(String),
    /// A compatibility flag.
    Flag(String),
    /// Routes or custom domains.
    Routes,
    /// Cron triggers.
    Crons,
    /// Consumers of queues.
    Consumers,
    /// One of the options `limits`, `placement`, `cache`, `keep_vars`, `logpush` and `tail_consumers`, by its key.
    Option(&'static str),
}

impl WranglerProject {
    /// Returns a path from the project's root, with `/`, for people; it can begin with `..`.
    pub fn shown(&self, path: &Path) -> String {
        relative(&self.root, path)
    }
}

/// Returns a path from a folder, with `/`; both are absolute and without links.
pub fn relative(folder: &Path, path: &Path) -> String {
    let common = folder.components().zip(path.components()).take_while(|(one, other)| one == other).count();
    let up = folder.components().skip(common).map(|_| "..".to_owned());
    let down = path.components().skip(common).map(|step| step.as_os_str().to_string_lossy().into_owned());
    up.chain(down).collect::<Vec<_>>().join("/")
}

/// Reads the configuration that a pack names. `place`: the place of a key of pack.yaml.
pub(super) fn read(
    tree: &Tree,
    pack: &str,
    config: &str,
    environment: Option<&str>,
    place: impl Fn(&str) -> Place,
) -> Result<WranglerProject, Vec<Diagnostic>> {
    let bad =
        |message: String, help: &str| vec![Diagnostic::error(Code::BadWranglerConfig, place("config"), message, help)];
    let cannot =
        |error: std::io::Error| bad(format!("the wrangler configuration {config} can't be read: {error}"), CONFIG_HELP);
    let root = tree.root.canonicalize().map_err(cannot)?;
    let repository = root.ancestors().find(|folder| folder.join(".git").exists());
    let workspace = assets::workspace(&root);
    let written = plain_file::without_dots(&root.join(pack).join(config));
    let file = relative(&root, &written);
    let text = if let Some(Some(bytes)) = tree.past.get(&file) {
        bytes.clone()
    } else {
        let real = written.canonicalize().map_err(cannot)?;
        if !real.starts_with(&workspace) {
            let allowed = match repository {
                Some(repository) => format!("it must be in the git repository {}", repository.display()),
                None => format!("it must be in {}, because that is in no git repository", root.display()),
            };
            let message = format!("the wrangler configuration {config} is outside this project: {allowed}");
            return Err(bad(
                message,
                "a fleet's code must be under the same version control as the fleet: move the fleet or the wrangler project",
            ));
        }
        plain_file::read_through_links(&real, MOST_BYTES).map_err(cannot)?
    };
    let real = written.canonicalize().unwrap_or(written);
    let folder = real.parent().unwrap_or(&root).to_owned();
    let document = documents::read(&file, &text)?;
    let reading = Reading { document: &document, environment, file: &file };
    let objects = reading.objects();
    reading.check(&objects)?;
    let within =
        |path: &str| Some(plain_file::without_dots(&folder.join(path))).filter(|path| path.starts_with(&workspace));
    let build = reading.get("build");
    let command = build.and_then(|build| build.get("command")).and_then(text_of);
    let mut trees = BTreeSet::new();
    if command.is_some() {
        // The files that a command reads are unknown, apart from the project itself and the folders in wrangler's setting.
        trees.insert(folder.clone());
        trees.extend(build.and_then(|build| build.get("cwd")).and_then(text_of).and_then(&within));
        let watched = build.and_then(|build| build.get("watch_dir"));
        let watched = watched.into_iter().flat_map(|node| match &node.kind {
            Kind::List(items) => items.iter().filter_map(text_of).collect(),
            _ => text_of(node).into_iter().collect::<Vec<_>>(),
        });
        trees.extend(watched.filter_map(&within));
    }
    let is_set = |key: &str| reading.get(key).is_some_and(|node| matches!(node.kind, Kind::Bool(true)));
    if is_set("no_bundle") || is_set("find_additional_modules") {
        let main = reading.get("main").and_then(text_of).and_then(|main| Some(Path::new(main).parent()?.to_owned()));
        let base = reading.get("base_dir").and_then(text_of).map(PathBuf::from).or(main).unwrap_or_default();
        trees.extend(within(&base.to_string_lossy()));
    }
    let main = reading.get("main");
    let is_all = main.and_then(text_of).is_none();
    let assets = (reading.get("assets"), reading.get("site"));
    let assets = assets::of_wrangler(&document, assets, (&root, &workspace, &folder), is_all)?;
    let bound = reading.get("d1_databases").map(entries).unwrap_or_default();
    let databases = databases::of_wrangler(&document, bound, (&root, &workspace, &folder))?;
    Ok(WranglerProject {
        assets,
        databases,
        main: main.and_then(|node| Some((text_of(node)?.to_owned(), document.place(node.span)))),
        build: command.map(|command| {
            let node = build.and_then(|build| build.get("command")).map_or(document.root.span, |node| node.span);
            (command.to_owned(), document.place(node))
        }),
        tsconfig: document.root.get("tsconfig").and_then(text_of).and_then(&within),
        declared: reading.declared(),
        objects,
        path: file.clone(),
        digest: Digest::of(&text),
        trees,
        config: real,
        folder: folder.clone(),
        workspace,
        root,
    })
}

fn text_of(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        _ => None,
    }
}

/// Returns the entries of a list; a map is its own entry.
fn entries(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::List(items) => items,
        Kind::Map(_) => std::slice::from_ref(node),
        _ => &[],
    }
}

fn is_empty(node: &Node) -> bool {
    match &node.kind {
        Kind::Empty | Kind::Null | Kind::Bool(false) => true,
        Kind::List(items) => items.is_empty(),
        // Builds that make a configuration write every key.
        Kind::Map(entries) => entries.iter().all(|(.., node)| is_empty(node)),
        _ => false,
    }
}

/// Returns whether a value of `unsafe` has nothing but rate limits, which are bindings of specs.
fn is_rate_limits(key: &str, node: &Node) -> bool {
    let Kind::Map(all) = &node.kind else { return false };
    let is_limit = |entry: &Node| entry.get("type").and_then(text_of) == Some("ratelimit");
    key == "unsafe" && all.iter().all(|(name, _, node)| name == "bindings" && entries(node).iter().all(is_limit))
}

/// Returns what a configuration sets that flotilla can't deploy yet: the key, and the error with its place.
pub fn unsupported(document: &Document, environment: Option<&str>) -> Vec<(&'static str, Diagnostic)> {
    Reading { document, environment, file: &document.file }.unsupported()
}

/// A configuration, and the environment of it that is bundled.
struct Reading<'a> {
    document: &'a Document,
    environment: Option<&'a str>,
    file: &'a str,
}

impl<'a> Reading<'a> {
    /// Returns the value of a key, inherited as wrangler does.
    fn get(&self, key: &str) -> Option<&'a Node> {
        let root = &self.document.root;
        let Some(environment) = self.environment else { return root.get(key) };
        let own = root.get("env").and_then(|environments| environments.get(environment)).and_then(|own| own.get(key));
        let is_binding = KINDS.iter().any(|kind| kind.wrangler.split('.').next() == Some(key));
        let is_inherited = !is_binding && !NOT_INHERITED.contains(&key);
        own.or_else(|| root.get(key).filter(|_| is_inherited))
    }

    /// Returns the worker's name, as wrangler makes it of the environment's.
    fn name(&self) -> Option<String> {
        let name = |node: &Node| node.get("name").and_then(text_of).map(str::to_owned);
        let top = || name(&self.document.root);
        let Some(environment) = self.environment else { return top() };
        let own = self.document.root.get("env").and_then(|all| all.get(environment)).and_then(name);
        own.or_else(|| Some(format!("{}-{environment}", top()?)))
    }

    fn error(&self, code: Code, node: &Node, message: String, help: &str) -> Diagnostic {
        Diagnostic::error(code, self.document.place(node.span), message, help)
    }

    /// Checks that it is a configuration of this environment, with code, and without anything that flotilla can't deploy.
    fn check(&self, objects: &Objects) -> Result<(), Vec<Diagnostic>> {
        let root = &self.document.root;
        let mut errors = Vec::new();
        if !matches!(root.kind, Kind::Map(_)) {
            let message = "the wrangler configuration isn't a table".to_owned();
            return Err(vec![self.error(Code::BadWranglerConfig, root, message, "see wrangler's documentation")]);
        }
        if let Some(environment) = self.environment
            && root.get("env").and_then(|environments| environments.get(environment)).is_none()
        {
            let names: Vec<&str> = match root.get("env").map(|node| &node.kind) {
                Some(Kind::Map(entries)) => entries.iter().map(|(name, ..)| name.as_str()).collect(),
                _ => Vec::new(),
            };
            let message = format!("{} has no environment `{environment}`", self.file);
            let help = match names.is_empty() {
                true => "remove `environment` from pack.yaml: the file has no environments".to_owned(),
                false => format!("it has: {}", names.join(", ")),
            };
            let place = Place::file(self.file);
            return Err(vec![Diagnostic::error(Code::BadWranglerConfig, place, message, help)]);
        }
        let has_assets = ["assets", "site"].into_iter().any(|key| self.get(key).is_some_and(|node| !is_empty(node)));
        if self.get("main").and_then(text_of).is_none() && !has_assets {
            let message = format!("{} has no `main`, so there is no code to bundle", self.file);
            let help = "name the module that wrangler bundles: \"main\": \"src/index.ts\"";
            errors.push(Diagnostic::error(Code::BadWranglerConfig, Place::file(self.file), message, help));
        }
        errors.extend(self.unsupported().into_iter().map(|(_, error)| error));
        for node in self.get("migrations").map(entries).into_iter().flatten() {
            if Migration::of_api(&node.to_value()).is_none() {
                let message = "a migration is invalid: it needs a `tag`, and lists of classes".to_owned();
                errors.push(self.error(Code::BadMigration, node, message, "see wrangler's documentation"));
            }
        }
        errors.extend(objects.check(self.document));
        if self.get("main").and_then(text_of).is_none()
            && let Some(place) = objects.classes().into_iter().find_map(|class| objects.place_of(class))
        {
            let message = "Durable Object classes without code that has them: there are static assets alone".to_owned();
            let help = "remove them, or name the code: \"main\": \"src/index.ts\"";
            errors.push(Diagnostic::error(Code::Conflict, place.clone(), message, help));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Returns what it sets that flotilla can't deploy yet: the key, and the error.
    fn unsupported(&self) -> Vec<(&'static str, Diagnostic)> {
        let mut errors = Vec::new();
        for (key, what) in UNSUPPORTED {
            if let Some(node) = self.get(key).filter(|node| !is_empty(node) && !is_rate_limits(key, node)) {
                errors.push(self.cannot_deploy(node, key, what));
            }
        }
        if let Some(Kind::Map(exports)) = self.get("exports").map(|node| &node.kind) {
            for (name, _, node) in exports.iter().filter(|(.., node)| ClassExport::of_api(&node.to_value()).is_none()) {
                let kind = node.get("type").and_then(text_of).unwrap_or_default();
                let (what, help) = match kind {
                    "workflow" => ("a workflow under a name that is the same for all customers", EXPORTED_WORKFLOW),
                    _ => ("an export that is not a plain Durable Object class", KEEP_DEPLOYING),
                };
                let message = format!("`exports.{name}` sets {what}, which flotilla can't deploy yet");
                errors.push(("exports", self.error(Code::CannotDeploy, node, message, help)));
            }
        }
        errors
    }

    fn cannot_deploy(&self, node: &Node, key: &'static str, what: &str) -> (&'static str, Diagnostic) {
        let message = format!("`{key}` sets {what}, which flotilla can't deploy yet");
        let help = if what == CONTAINERS { NO_REGISTRY } else { KEEP_DEPLOYING };
        (key, self.error(Code::CannotDeploy, node, message, help))
    }

    /// Returns the Durable Objects of the code: bindings without a worker, migrations, and declared classes.
    fn objects(&self) -> Objects {
        let mut objects = Objects::default();
        let place = |node: &Node| self.document.place(node.span);
        let bindings = self.get("durable_objects").and_then(|objects| objects.get("bindings")).map(entries);
        let name = self.name();
        let is_own = |node: &&Node| {
            let script = node.get("script_name").and_then(text_of);
            script.is_none() || script == name.as_deref()
        };
        for node in bindings.into_iter().flatten().filter(is_own) {
            if let (Some(name), Some(class)) =
                (node.get("name").and_then(text_of), node.get("class_name").and_then(text_of))
            {
                objects.bind(name, class, place(node));
            }
        }
        for node in self.get("migrations").map(entries).into_iter().flatten() {
            if let Some(migration) = Migration::of_api(&node.to_value()) {
                objects.add_migration(migration, place(node));
            }
        }
        if let Some(Kind::Map(exports)) = self.get("exports").map(|node| &node.kind) {
            for (name, _, node) in exports {
                if let Some(export) = ClassExport::of_api(&node.to_value()) {
                    objects.add_export(name, export, place(node));
                }
            }
        }
        objects
    }

    /// Returns the settings that specs must have instead.
    fn declared(&self) -> Vec<Declared> {
        let mut declared = Vec::new();
        let mut add = |subject: Subject, node: &Node| {
            declared.push(Declared { subject, place: self.document.place(node.span) });
        };
        if let Some(Kind::Map(vars)) = self.get("vars").map(|node| &node.kind) {
            vars.iter().for_each(|(name, _, node)| add(Subject::Variable(name.clone()), node));
        }
        let required = self.get("secrets").and_then(|secrets| secrets.get("required")).map(entries);
        for node in required.into_iter().flatten() {
            if let Some(name) = text_of(node) {
                add(Subject::Secret(name.to_owned()), node);
            }
        }
        for kind in KINDS {
            let node = kind.wrangler.split('.').try_fold(None, |node: Option<&Node>, step| match node {
                None => self.get(step).map(Some),
                Some(node) => node.get(step).map(Some),
            });
            for entry in node.flatten().map(entries).into_iter().flatten() {
                if let Some(name) = entry.get(kind.name).and_then(text_of) {
                    add(Subject::Binding(name.to_owned()), entry);
                }
            }
        }
        let limits = self.get("unsafe").and_then(|node| node.get("bindings")).map(entries);
        for entry in limits.into_iter().flatten() {
            if let Some(name) = entry.get("name").and_then(text_of) {
                add(Subject::Binding(name.to_owned()), entry);
            }
        }
        for node in self.get("compatibility_flags").map(entries).into_iter().flatten() {
            if let Some(flag) = text_of(node) {
                add(Subject::Flag(flag.to_owned()), node);
            }
        }
        let routes = ["routes", "route"].into_iter().filter_map(|key| self.get(key)).find(|node| !is_empty(node));
        routes.into_iter().for_each(|node| add(Subject::Routes, node));
        let crons = self.get("triggers").and_then(|triggers| triggers.get("crons")).filter(|node| !is_empty(node));
        crons.into_iter().for_each(|node| add(Subject::Crons, node));
        let consumers = self.get("queues").and_then(|queues| queues.get("consumers")).filter(|node| !is_empty(node));
        consumers.into_iter().for_each(|node| add(Subject::Consumers, node));
        for key in ["limits", "placement", "cache", "keep_vars", "logpush", "tail_consumers"] {
            if let Some(node) = self.get(key).filter(|node| !is_empty(node)) {
                add(Subject::Option(key), node);
            }
        }
        // Some kinds share a key of wrangler's.
        let mut known = BTreeSet::new();
        declared.retain(|one| known.insert(one.subject.clone()));
        declared
    }
}

/// Returns whether a value of pack.yaml is set.
pub(super) fn is_set(manifest: &Value, key: &str) -> bool {
    manifest.get(key).is_some_and(|value| !value.is_null())
}
