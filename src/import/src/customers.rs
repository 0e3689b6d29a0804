//! The customer that each configuration belongs to: by the environment's name, by `SERVICE_DOMAIN`, by the folders under
//! `config/customers`, by the account. Two customers never share a worker or a database. Knows a project on disk.

mod account;
mod laying;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use flotilla_model::credential;
use flotilla_model::diagnostic::{Diagnostic, Place};
use flotilla_model::names;
use flotilla_model::plain_file;
use flotilla_model::spec::Environment;
use flotilla_spec::tree::Tree;
use flotilla_spec::yaml::{Document, Node};

use super::code::{self, Code};
use super::envfiles::{self, EnvFile, EnvFiles};
use super::forms::is_variable;
use super::ids::{slug, split};
use super::settings::settings;
use super::wrangler::{self, Config, entries, text};
use super::{Findings, FoundWorker, ImportOptions, LiveAccount};
use account::live_or_not;
pub use account::of_account;

/// A file that several customers' configurations have in common.
const BASE_FILE: &str = "config/base/wrangler.base.toml";

/// The most bytes of a package.json.
const MAX_PACKAGE: u64 = 1 << 20;

/// The part of a project that belongs to no single worker.
#[derive(Debug, Default)]
pub struct Others {
    /// The project's name.
    pub name: String,
}

/// Reads the workers of a project.
pub fn read(
    path: &Path,
    live: &LiveAccount,
    options: ImportOptions<'_>,
    findings: &mut Findings,
) -> Result<(Vec<FoundWorker>, Others), Vec<Diagnostic>> {
    let (root, only) = match path.file_name() {
        Some(name) if path.is_file() => {
            (path.parent().unwrap_or(Path::new("")), Some(name.to_string_lossy().into_owned()))
        }
        _ => (path, None),
    };
    let tree = Tree::new(root);
    let mut errors = Vec::new();
    let env_files = match only {
        Some(_) => EnvFiles::default(),
        None => envfiles::read(root, &tree, findings, &mut errors),
    };
    let wrangler::Files { found: mut files, others } = match only {
        Some(file) => wrangler::Files { found: vec![file], others: Vec::new() },
        None => wrangler::files(root),
    };
    add_named_files(&mut files, &env_files, &tree, findings);
    for file in others.iter().filter(|file| !files.contains(file)) {
        let message = "this file isn't read: wrangler reads it where `--config` names it";
        let help = format!("`flotilla import {file}` reads it alone; what it deploys is not in this project");
        findings.left_out(Place::file(file), message, help);
    }
    let mut documents = Vec::new();
    for file in &files {
        match wrangler::read(&tree, file) {
            Ok(document) => documents.push(document),
            Err(found) => errors.extend(found),
        }
    }
    let base = tree.has(BASE_FILE).then(|| wrangler::read(&tree, BASE_FILE)).transpose().unwrap_or_else(|found| {
        errors.extend(found);
        None
    });
    if !errors.is_empty() {
        return Err(errors);
    }
    for (name, span, _) in base.iter().flat_map(|base| entries(Some(&base.root)).iter()) {
        if name != "account_id" {
            let place = base.as_ref().expect("BUG: its entry").place(*span);
            let help = "wrangler doesn't read this file: set it in the spec, or in `defaults` of fleet.yaml, if a tool of yours did";
            findings.left_out(place, format!("`{name}` is for no worker in particular"), help);
        }
    }
    dotvars(&tree, &documents, findings);
    documentation(&tree, findings);
    let mut reading =
        Reading { root, documents: &documents, env_files: &env_files, live, options, findings, codes: HashMap::new() };
    let name = reading.project_name();
    let mut found = reading.found(&name);
    let account = base.as_ref().and_then(|base| base.root.get("account_id")).and_then(text);
    for worker in &mut found {
        worker.account_id = worker.account_id.take().or_else(|| account.map(str::to_owned));
    }
    reading.env_files(&mut found);
    apart(&mut found, reading.findings);
    live_or_not(&found, live, reading.findings);
    Ok((found, Others { name }))
}

/// Adds the files of wrangler's that env files name.
fn add_named_files(files: &mut Vec<String>, env_files: &EnvFiles, tree: &Tree, findings: &mut Findings) {
    for (file, place) in env_files.customers.values().filter_map(|file| file.wrangler.as_ref()) {
        let file = file.trim_start_matches("./");
        let (message, help) = if file.split('/').any(|step| step == "..") || file.starts_with('/') {
            ("`WRANGLER_CONFIG` is outside of the project", "name a file of the project")
        } else if !tree.has(file) {
            ("`WRANGLER_CONFIG` names a file that does not exist", "name wrangler's file")
        } else {
            if !files.iter().any(|known| known == file) {
                files.push(file.to_owned());
            }
            continue;
        };
        findings.left_out(place.clone(), message, help);
    }
}

/// Finds the secrets of `wrangler dev`; their names only.
fn dotvars(tree: &Tree, documents: &[Document], findings: &mut Findings) {
    let folders: BTreeSet<&str> = documents
        .iter()
        .map(|document| document.file.rfind('/').map_or("", |index| &document.file[..=index]))
        .collect();
    for folder in folders {
        for name in [".dev.vars", ".env"] {
            let file = format!("{folder}{name}");
            let Ok(text) = tree.text(&file) else { continue };
            for (index, line) in text.lines().enumerate() {
                let line = line.trim().trim_start_matches("export ");
                let Some((name, value)) =
                    line.split_once('=').map(|(name, value)| (name.trim(), value.trim().trim_matches(['"', '\''])))
                else {
                    continue;
                };
                if is_variable(name) && credential::is_credential(name, value) {
                    let place = Place { file: file.clone(), line: index + 1, column: 1, width: name.len() };
                    let help = "its value was not copied; `flotilla secrets list` shows what workers need, and from where it comes";
                    findings.credential(place, format!("`{name}` is a secret of this machine"), help);
                }
            }
        }
    }
}

fn documentation(tree: &Tree, findings: &mut Findings) {
    let folder = "config/environments";
    for name in tree.names(folder).unwrap_or_default().into_iter().filter(|name| name.ends_with(".toml")) {
        let help = "no tool reads it for a deploy, and neither does flotilla: what holds stands in the specs now";
        findings.note(Place::file(&format!("{folder}/{name}")), "it is documentation", help);
    }
}

/// The code of a configuration, and the parts of it that are lost.
type Read = (Option<Arc<Code>>, Vec<String>);

struct Reading<'a, 'f> {
    root: &'a Path,
    documents: &'a [Document],
    env_files: &'a EnvFiles,
    live: &'a LiveAccount,
    options: ImportOptions<'a>,
    findings: &'f mut Findings,
    /// The code that was read already: environments mostly run the same.
    codes: HashMap<String, Read>,
}

impl<'a> Reading<'a, '_> {
    /// Returns the project's name: that of its only worker, its package, or its folder.
    fn project_name(&self) -> String {
        let worker = match self.documents {
            [worker] => worker.root.get("name").and_then(text),
            _ => None,
        };
        let package = plain_file::read(&self.root.join("package.json"), MAX_PACKAGE).ok();
        let package: Value = package.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let package = package["name"].as_str().map(|name| name.rsplit('/').next().unwrap_or(name).to_owned());
        let folder = || self.root.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = worker.map(str::to_owned).or(package).or_else(folder).unwrap_or_default();
        let name = slug(&name);
        match split(&name) {
            (Some(customer), _) => customer,
            (None, _) => name,
        }
    }

    /// Returns the customer of workers whose environment's name names none.
    fn default_customer(&self, project: &str) -> String {
        let service = self.documents.iter().flat_map(wrangler::configs).find_map(|config| service(&config));
        let folders: BTreeSet<&String> = self.env_files.customers.keys().map(|(customer, _)| customer).collect();
        let only = folders.first().filter(|_| folders.len() == 1).map(|only| (*only).clone());
        self.options.customer.map(slug).or(service).or(only).unwrap_or_else(|| project.to_owned())
    }

    fn found(&mut self, project: &str) -> Vec<FoundWorker> {
        let default = self.default_customer(project);
        let workers: Vec<&Document> = self.documents.iter().filter(|document| self.is_worker(document)).collect();
        let several = workers.iter().filter(|document| self.own(document).is_none()).count() > 1;
        let mut taken: BTreeMap<(String, Environment, Option<String>), String> = BTreeMap::new();
        let mut roles: BTreeMap<String, &str> = BTreeMap::new();
        let mut found = Vec::new();
        for document in workers {
            let folder = document.file.rsplit('/').nth(1).unwrap_or_default();
            let own = self.own(document);
            let role = (several && own.is_none()).then(|| {
                let name = document.root.get("name").and_then(text).unwrap_or("root");
                let mut role = slug(if folder.is_empty() { name } else { folder });
                role.truncate(30);
                let role = role.trim_end_matches('-').to_owned();
                let same =
                    roles.keys().filter(|other| **other == role || other.starts_with(&format!("{role}-"))).count();
                let role = if roles.contains_key(&role) { format!("{role}-{}", same + 1) } else { role };
                roles.insert(role.clone(), &document.file);
                role
            });
            let configs = wrangler::configs(document);
            let whose: Vec<_> = configs.iter().map(|config| self.whose(config, own.as_deref(), &default)).collect();
            let has_production = whose.iter().flatten().any(|(_, environment)| *environment == Environment::Production);
            for (config, whose) in configs.iter().zip(whose) {
                let whose = match (config.environment, whose) {
                    (None, _) if has_production => {
                        self.top_level(config, configs.len() > 1);
                        continue;
                    }
                    (None, _) => {
                        let customer = own.clone().or_else(|| service(config));
                        (customer.unwrap_or_else(|| default.clone()), Environment::Production)
                    }
                    (Some(_), Some(whose)) => whose,
                    (Some(name), None) => {
                        let help = "workers to look at come and go with `flotilla preview`: leave it to that, or name the environment otherwise";
                        let message = format!("[env.{name}] is for previews");
                        self.findings.left_out(config.start(), message, help);
                        continue;
                    }
                };
                let key = (whose.0.clone(), whose.1, role.clone());
                if let Some(other) = taken.get(&key) {
                    let message = format!("{} is `{}` in {}, and so is {other}", config.what(), whose.0, whose.1);
                    let help =
                        "one of the two can be imported: give the other another name, such as that of a customer";
                    self.findings.left_out(config.start(), message, help);
                    continue;
                }
                taken.insert(key, config.what());
                found.extend(self.worker(config, whose, role.clone()));
            }
        }
        found
    }

    fn is_worker(&mut self, document: &Document) -> bool {
        let Some(span) = document.root.key_span("pages_build_output_dir") else { return true };
        let help =
            "Pages projects are no workers; Cloudflare's guide \"Migrate from Pages to Workers\" makes one of it";
        self.findings.left_out(document.place(span), "it is a project of Cloudflare Pages", help);
        false
    }

    /// Returns the customer that the whole file belongs to: by a folder for each customer, or by the
    /// name that one customer's env files give.
    fn own(&self, document: &Document) -> Option<String> {
        let mut folders = document.file.rsplit('/').skip(1);
        let (folder, above) = (folders.next(), folders.next());
        if let (Some(folder), Some("customers" | "clients" | "tenants")) = (folder, above) {
            return Some(slug(folder));
        }
        let names = |file: &EnvFile| {
            file.wrangler.as_ref().is_some_and(|(file, _)| file.trim_start_matches("./") == document.file)
        };
        let all = self.env_files.customers.iter().filter(|(_, file)| names(file));
        let named: BTreeSet<&String> = all.map(|((customer, _), _)| customer).collect();
        // The project's one file is everybody's, and so is one that several name.
        named.first().filter(|_| named.len() == 1 && self.documents.len() > 1).map(|customer| (*customer).clone())
    }

    /// Returns the customer and the fleet's environment of a configuration; `None` for previews and the top level.
    fn whose(&self, config: &Config<'_>, own: Option<&str>, default: &str) -> Option<(String, Environment)> {
        let name = config.environment?;
        if matches!(name, "preview" | "previews" | "pr") {
            return None;
        }
        let (customer, environment) = split(name);
        let customer = customer
            .or_else(|| own.map(str::to_owned))
            .or_else(|| service(config))
            .unwrap_or_else(|| default.to_owned());
        Some((customer, environment.unwrap_or(Environment::Production)))
    }

    /// Reports a top level whose worker isn't imported.
    fn top_level(&mut self, config: &Config<'_>, has_environments: bool) {
        let Some(name) = config.name().filter(|_| has_environments) else { return };
        let is_live = self.live.workers.iter().any(|worker| worker.name == name);
        if is_live {
            let message = format!("the top level deploys `{name}`, which is live beside the environments' workers");
            let help = "add a spec for it if it is used, or delete it at Cloudflare";
            self.findings.left_out(config.place("name"), message, help);
        } else {
            let message = format!(
                "the top level is read for what environments inherit; its own worker, `{name}`, is not imported"
            );
            let help = "if `wrangler deploy` without `--env` created one that is used, put it under `[env.development]` and import again";
            self.findings.note(config.place("name"), message, help);
        }
    }

    /// Reads the code of a configuration, once for all configurations that define the same.
    fn code(&mut self, config: &Config<'_>, lost: &mut Vec<String>) -> Option<Arc<Code>> {
        let keys = code::KEYS.map(|key| config.get(key).map(Node::to_value));
        let key = format!("{}{}", config.document.file, json!(keys));
        let (root, findings) = (self.root, &mut *self.findings);
        let (code, of_code) = self.codes.entry(key).or_insert_with(|| {
            let mut lost = Vec::new();
            (code::of(root, config, findings, &mut lost).map(Arc::new), lost)
        });
        lost.extend_from_slice(of_code);
        code.clone()
    }

    fn worker(
        &mut self,
        config: &Config<'_>,
        (customer, environment): (String, Environment),
        role: Option<String>,
    ) -> Option<FoundWorker> {
        let Some(name) = config.name() else {
            let help = "wrangler requires a `name`: it is the worker's name";
            self.findings.left_out(config.start(), format!("{} has no name", config.what()), help);
            return None;
        };
        // A name that no worker of a fleet can have is told, and not kept.
        let name = if names::worker(&name).is_ok() { name } else { String::new() };
        let mapped = settings(config, &self.live.zones, self.findings);
        let mut lost = mapped.lost;
        let code = self.code(config, &mut lost);
        Some(FoundWorker {
            name,
            place: config.start(),
            what: config.what(),
            customer,
            environment,
            role,
            account_id: config.text("account_id").filter(|id| !id.is_empty()).map(str::to_owned),
            settings: mapped.settings,
            calls: mapped.calls,
            lost,
            code,
        })
    }
}

/// Returns the customer that the variables name.
fn service(config: &Config<'_>) -> Option<String> {
    let name = text(config.get("vars")?.get("SERVICE_DOMAIN")?)?;
    (!name.is_empty()).then(|| slug(name))
}

/// Removes from the later of two customers what the earlier one has: its worker, its databases.
fn apart(found: &mut [FoundWorker], findings: &mut Findings) {
    let mut names: BTreeMap<(Option<String>, String), String> = BTreeMap::new();
    let mut databases: BTreeMap<String, String> = BTreeMap::new();
    let mut tell = |place: &Place, what: String, help: &str| findings.lost(place.clone(), what, help);
    for worker in found {
        if !worker.name.is_empty() {
            let key = (worker.account_id.clone(), worker.name.clone());
            match names.get(&key) {
                Some(other) => {
                    let help =
                        "the first one keeps it; the other gets a worker and a name of its own, which a deploy makes";
                    tell(
                        &worker.place,
                        format!(
                            "the worker `{}` is that of {other}, too: the later deploy overwrote the earlier one",
                            worker.name
                        ),
                        help,
                    );
                    worker.lost.push(format!("its worker was that of {other}"));
                    worker.name = String::new();
                }
                None => _ = names.insert(key, worker.what.clone()),
            }
        }
        let own = worker.settings.get("database").and_then(|database| database["id"].as_str()).map(str::to_owned);
        let bound = worker.settings.get("bindings").and_then(Value::as_object).into_iter().flatten();
        let bound: Vec<(String, String)> =
            bound.filter_map(|(name, binding)| Some((name.clone(), binding["d1"].as_str()?.to_owned()))).collect();
        let all = own.map(|id| (None, id)).into_iter().chain(bound.into_iter().map(|(name, id)| (Some(name), id)));
        for (binding, id) in all {
            let owner = databases.entry(id).or_insert_with(|| worker.customer.clone());
            if *owner == worker.customer {
                continue;
            }
            let help = "each customer has a database of its own: make one, and move this customer's rows there";
            tell(&worker.place, format!("`{}` uses the database of `{owner}`", worker.customer), help);
            worker.lost.push(format!("the database of {owner}"));
            match binding {
                None => _ = worker.settings.remove("database"),
                Some(name) => {
                    if let Some(bindings) = worker.settings.get_mut("bindings").and_then(Value::as_object_mut) {
                        bindings.remove(&name);
                    }
                }
            }
        }
    }
}
