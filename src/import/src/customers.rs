//! The customer that each configuration belongs to: by its file's name or folder, by the environment's name, by `SERVICE_DOMAIN`, by the
//! folders under `config/customers`, by the account. Knows a project on disk.

mod account;
mod apart;
mod files;
mod laying;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use flotilla_model::credential;
use flotilla_model::diagnostic::{Diagnostic, Place};
use flotilla_model::environment::Flaw;
use flotilla_model::names;
use flotilla_model::plain_file;
use flotilla_model::spec::Environment;
use flotilla_spec::pack::unsupported;
use flotilla_spec::tree::Tree;
use flotilla_spec::yaml::Document;

use super::code::{Projects, Step};
use super::envfiles::{self, EnvFile, EnvFiles};
use super::forms::is_variable;
use super::ids::{environment, is_exact, named, slug, split};
use super::settings::settings;
use super::wrangler::{self, Config, Unread, entries, text};
use super::{FindingKind, Findings, FoundWorker, ImportOptions, LiveAccount};
use account::live_or_not;
pub use account::of_account;
use apart::{apart, bundled_apart, separate};
use files::{Member, members};

/// A file that several customers' configurations have in common.
const BASE_FILE: &str = "config/base/wrangler.base.toml";

/// The maximum size, in bytes, of a package.json.
const MAX_PACKAGE: u64 = 1 << 20;
/// The name of an environment that is called `preview` in a wrangler project, and whose worker stays.
const PERMANENT: &str = "permanent-preview";

/// The part of a project that belongs to no single worker.
#[derive(Debug, Default)]
pub struct Others {
    /// The project's name.
    pub name: String,
    /// The commands that have to run before a build.
    pub steps: BTreeSet<Step>,
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
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (folder, Some(name.to_string_lossy().into_owned()))
        }
        _ => (path, None),
    };
    let root = &root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let tree = Tree::new(root);
    let mut errors = Vec::new();
    let env_files = match only {
        Some(_) => EnvFiles::default(),
        None => envfiles::read(root, &tree, findings, &mut errors),
    };
    let wrangler::Files { found: mut files, others } = match only {
        Some(file) => wrangler::Files { found: vec![file], others: Vec::new() },
        None => wrangler::files(root, options.exclude),
    };
    add_named_files(&mut files, &env_files, &tree, findings);
    for Unread { file, why, deploys } in others.iter().filter(|other| !files.contains(&other.file)) {
        let help = format!("if it deploys a worker of its own: `flotilla import {file}`");
        let kind = if *deploys { FindingKind::LeftOut } else { FindingKind::Note };
        findings.push(kind, Place::file(file), format!("this file isn't read: {why}"), help);
    }
    files.retain(|file| file != BASE_FILE);
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
    // One file with errors holds nothing else back.
    if documents.is_empty() && !errors.is_empty() {
        return Err(errors);
    }
    errors.into_iter().for_each(|error| findings.invalid(error));
    for (name, span, _) in base.iter().flat_map(|base| entries(Some(&base.root)).iter()) {
        if name != "account_id" {
            let place = base.as_ref().expect("BUG: its entry").place(*span);
            let help = "wrangler doesn't read this file: if one of your tools did, set it in the spec, or in `defaults` in fleet.yaml";
            findings.left_out(place, format!("`{name}` belongs to no particular worker"), help);
        }
    }
    dotvars(&tree, &documents, findings);
    documentation(&tree, findings);
    let projects = Projects::new(root, options);
    let mut reading = Reading { documents: &documents, env_files: &env_files, live, options, findings, projects };
    let name = reading.project_name();
    let default = reading.default_customer(&name);
    let mut found = reading.found(&default);
    let account = base.as_ref().and_then(|base| {
        let node = base.root.get("account_id")?;
        reading.findings.account_id(text(node)?, base.place(node.span))
    });
    for worker in &mut found {
        worker.account_id = worker.account_id.take().or_else(|| account.clone());
    }
    reading.env_files(&mut found);
    let steps = std::mem::take(&mut reading.projects.steps);
    apart(&mut found, reading.findings);
    if options.customer.is_none() && default == name {
        separate(&mut found, &default);
    }
    bundled_apart(&mut found, findings);
    live_or_not(&found, live, findings);
    Ok((found, Others { name, steps }))
}

/// Adds the files of wrangler's that env files name.
fn add_named_files(files: &mut Vec<String>, env_files: &EnvFiles, tree: &Tree, findings: &mut Findings) {
    for (file, place) in env_files.customers.values().filter_map(|file| file.wrangler.as_ref()) {
        let file = file.trim_start_matches("./");
        let (message, help) = if file.split('/').any(|step| step == "..") || file.starts_with('/') {
            ("`WRANGLER_CONFIG` is outside the project", "name a file of the project")
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
                    let help = "its value was not copied; `flotilla secrets list` shows what workers need, and where it comes from";
                    findings.credential(place, format!("`{name}` is a secret of this machine"), help);
                }
            }
        }
    }
}

fn documentation(tree: &Tree, findings: &mut Findings) {
    let folder = "config/environments";
    for name in tree.names(folder).unwrap_or_default().into_iter().filter(|name| name.ends_with(".toml")) {
        let help =
            "no tool reads it for a deploy, and neither does flotilla: the settings that apply are now in the specs";
        findings.note(Place::file(&format!("{folder}/{name}")), "it is documentation", help);
    }
}

struct Reading<'a, 'f> {
    documents: &'a [Document],
    env_files: &'a EnvFiles,
    live: &'a LiveAccount,
    options: ImportOptions<'a>,
    findings: &'f mut Findings,
    projects: Projects<'a>,
}

/// A configuration that deploys a worker, and whose it is.
struct Claim<'a> {
    config: Config<'a>,
    customer: String,
    environment: Environment,
    role: Option<String>,
    /// Whether its name has the environment's own word, and not another word for it.
    is_exact: bool,
}

impl<'a> Reading<'a, '_> {
    /// Returns the project's name: that of its only worker, its package, or its folder.
    fn project_name(&self) -> String {
        let worker = match self.documents {
            [worker] => worker.root.get("name").and_then(text),
            _ => None,
        };
        let root = self.projects.root;
        let package = plain_file::read(&root.join("package.json"), MAX_PACKAGE).ok();
        let package: Value = package.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let package = package["name"].as_str().map(|name| name.rsplit('/').next().unwrap_or(name).to_owned());
        // Of files that are called alike, the first: `wrangler.toml` beside `wrangler.acme.toml`.
        let first = || {
            let own = self
                .documents
                .first()
                .filter(|first| !first.file.contains('/') && wrangler::word(&first.file).is_none());
            own.and_then(|first| first.root.get("name")).and_then(text).map(str::to_owned)
        };
        let folder = || root.file_name().map(|name| name.to_string_lossy().into_owned());
        // A worker's name often has an environment in it.
        let of_worker = |name: &str| split(&slug(name)).0.unwrap_or_else(|| slug(name));
        let of_folder = || package.or_else(|| first().map(|name| of_worker(&name))).or_else(folder).unwrap_or_default();
        worker.map_or_else(|| slug(&of_folder()), of_worker)
    }

    /// Returns the customer of workers whose environment's name names none.
    fn default_customer(&self, project: &str) -> String {
        let service = self.documents.iter().flat_map(wrangler::configs).find_map(|config| service(&config));
        let folders: BTreeSet<&String> = self.env_files.customers.keys().map(|(customer, _)| customer).collect();
        let only = folders.first().filter(|_| folders.len() == 1).map(|only| (*only).clone());
        self.options.customer.map(slug).or(service).or(only).unwrap_or_else(|| project.to_owned())
    }

    fn found(&mut self, default: &str) -> Vec<FoundWorker> {
        let documents: Vec<&'a Document> = self.documents.iter().filter(|document| self.is_worker(document)).collect();
        let owned = |document: &Document| self.named_by_env_files(document);
        let members = members(&documents, &self.projects, owned);
        let mut claims = Vec::new();
        for member in &members {
            self.claims(member, default, &mut claims);
        }
        // The environments' own words come first: `dev` is development only where nothing is called so.
        claims.sort_by_key(|claim| !claim.is_exact);
        let mut taken: BTreeMap<(String, Environment, Option<String>), String> = BTreeMap::new();
        let mut found = Vec::new();
        for mut claim in claims {
            let mut key = (claim.customer.clone(), claim.environment, claim.role.clone());
            if let Some(own) =
                claim.config.environment.filter(|_| taken.contains_key(&key)).and_then(|own| named(own).ok())
            {
                // Another word for an environment that is there under its own: it keeps the word.
                (claim.environment, key.1) = (own, own);
            }
            if let Some(other) = taken.get(&key) {
                let message = format!("{} is `{}` in {}, and so is {other}", claim.config.what(), key.0, key.1);
                let help = "only one of the two can be imported: give the other one a different name, such as that of a customer";
                self.findings.left_out(claim.config.start(), message, help);
                continue;
            }
            let what = claim.config.what();
            if let Some(worker) = self.worker(claim) {
                taken.insert(key, what);
                found.push(worker);
            }
        }
        found
    }

    fn is_worker(&mut self, document: &Document) -> bool {
        let Some(span) = document.root.key_span("pages_build_output_dir") else { return true };
        let help = "Pages projects are not workers; see Cloudflare's guide \"Migrate from Pages to Workers\"";
        self.findings.left_out(document.place(span), "it is a project of Cloudflare Pages", help);
        false
    }

    /// Returns the customer whose env files alone name this file.
    fn named_by_env_files(&self, document: &Document) -> Option<String> {
        let names = |file: &EnvFile| {
            file.wrangler.as_ref().is_some_and(|(file, _)| file.trim_start_matches("./") == document.file)
        };
        let all = self.env_files.customers.iter().filter(|(_, file)| names(file));
        let named: BTreeSet<&String> = all.map(|((customer, _), _)| customer).collect();
        // The project's only file belongs to all customers, and so does one that several name.
        named.first().filter(|_| named.len() == 1 && self.documents.len() > 1).map(|customer| (*customer).clone())
    }

    /// Finds the workers of one file, and the customers that they belong to.
    fn claims(&mut self, member: &Member<'a>, default: &str, claims: &mut Vec<Claim<'a>>) {
        let configs = wrangler::configs(member.document);
        let names = || configs.iter().filter_map(|config| config.environment);
        let has_words = names().any(|name| environment(name).is_some());
        let has_customers =
            names().any(|name| matches!(split(name), (Some(of), Some(_)) if environment(&of).is_none()));
        // Beside words for environments, other names are environments, too, unless customers have some of them: `acme-staging`.
        let are_environments = (has_words || member.customer.is_some()) && !has_customers;
        let whose: Vec<_> =
            configs.iter().map(|config| self.whose(config, member, default, are_environments)).collect();
        let environments = || configs.iter().zip(&whose).filter(|(config, _)| config.environment.is_some());
        let has_production = environments()
            .any(|(_, whose)| whose.as_ref().is_some_and(|(_, environment)| *environment == Environment::Production));
        let mut customers = Vec::new();
        for (config, whose) in configs.iter().zip(&whose) {
            let (customer, environment) = match (config.environment, whose) {
                (None, _) if has_production => {
                    self.top_level(config, configs.len() > 1);
                    continue;
                }
                (_, Some(whose)) => whose.clone(),
                (Some(name), None) => {
                    self.no_environment(config, name);
                    continue;
                }
                (None, None) => continue,
            };
            if let Some(name) = config.environment
                && has_words
                && member.customer.is_none()
                && split(name).1.is_none()
                && !is_preview(name)
            {
                customers
                    .push((name, if are_environments { environment.name() } else { customer.as_str() }.to_owned()));
            }
            let is_exact = config.environment.or(member.word).is_some_and(is_exact);
            claims.push(Claim { config: *config, customer, environment, role: member.role.clone(), is_exact });
        }
        if let Some((first, now)) = customers.first() {
            let place = configs.iter().find(|config| config.environment == Some(first)).map(Config::start);
            let what = if are_environments { "environment" } else { "customer" };
            let message = match customers.len() {
                1 => format!("[env.{first}] is the {what} `{now}` now"),
                more => format!("[env.{first}] and {} more are {what}s now", more - 1),
            };
            let help = match are_environments {
                true => format!("if it is a customer, call its section [env.{first}-production], and import again"),
                false => format!(
                    "if it is an environment, call its section after a customer and it, as in [env.acme-{first}]"
                ),
            };
            self.findings.note(place.unwrap_or_else(|| Place::file(&member.document.file)), message, help);
        }
    }

    /// Reports an environment that isn't imported.
    fn no_environment(&mut self, config: &Config<'_>, name: &str) {
        let flaw = named(name).err().unwrap_or(Flaw::Form);
        self.findings.left_out(
            config.start(),
            format!("[env.{name}] can't be an environment of a fleet"),
            format!("{}; or keep deploying it with `wrangler deploy`", flaw.help()),
        );
    }

    /// Returns the customer and the fleet's environment of a configuration; `None` for environments that aren't imported.
    fn whose(
        &mut self,
        config: &Config<'_>,
        member: &Member<'_>,
        default: &str,
        are_environments: bool,
    ) -> Option<(String, Environment)> {
        let own = member.customer.clone().or_else(|| service(config)).unwrap_or_else(|| default.to_owned());
        let Some(name) = config.environment else {
            return Some((own, member.environment.unwrap_or(Environment::Production)));
        };
        if is_preview(name) {
            let message = format!("[env.{name}] is the environment `{PERMANENT}` now");
            let help = "`preview` has the settings of workers that come and go with `flotilla preview`; if this one did, too, delete the environment";
            self.findings.note(config.start(), message, help);
            return Some((own, Environment::of(PERMANENT)?));
        }
        match split(name) {
            (None, environment) => Some((own, environment?)),
            (Some(_), None) if are_environments => Some((own, named(name).ok()?)),
            // `production_staging` says two environments, and no customer.
            (Some(customer), Some(_)) if environment(&customer).is_some() => Some((own, named(name).ok()?)),
            (Some(customer), environment) => {
                let customer = match &member.customer {
                    Some(own) if *own != customer => format!("{own}-{customer}"),
                    _ => customer,
                };
                Some((customer, environment.or(member.environment).unwrap_or(Environment::Production)))
            }
        }
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
            let help = "if `wrangler deploy` without `--env` created a worker that is in use, move its settings to `[env.development]` and import again";
            self.findings.note(config.place("name"), message, help);
        }
    }

    fn worker(&mut self, claim: Claim<'_>) -> Option<FoundWorker> {
        let Claim { config, customer, environment, role, .. } = claim;
        let config = &config;
        let Some(name) = config.name() else {
            let help = "wrangler requires a `name`: it is the worker's name";
            self.findings.left_out(config.start(), format!("{} has no name", config.what()), help);
            return None;
        };
        // A worker that would lack a part of itself stays wrangler's.
        let unsupported = unsupported(config.document, config.environment);
        for (_, error) in &unsupported {
            let message = format!("{}: `{name}` is not imported", error.message);
            self.findings.lost(error.place.clone(), message, error.help.clone());
        }
        if !unsupported.is_empty() {
            return None;
        }
        let code = match self.projects.code(config, self.findings) {
            Ok(code) => code,
            Err((message, help)) => {
                let place = if config.text("main").is_some() { config.place("main") } else { config.start() };
                self.findings.left_out(place, format!("{message}: `{name}` is not imported"), help);
                return None;
            }
        };
        // A name that no worker of a fleet can have is reported, and not kept.
        let name = if names::worker(&name).is_ok() { name } else { String::new() };
        let mapped = settings(config, &self.live.zones, self.findings);
        let account_id = config.text("account_id");
        let account_id = account_id.and_then(|id| self.findings.account_id(id, config.place("account_id")));
        Some(FoundWorker {
            name,
            place: config.start(),
            what: config.what(),
            customer,
            environment,
            role,
            account_id,
            implies_workers_dev: config.get("workers_dev").is_none(),
            settings: mapped.settings,
            calls: mapped.calls,
            lost: mapped.lost,
            code: Some(Arc::new(code)),
        })
    }
}

fn is_preview(environment: &str) -> bool {
    matches!(environment, "preview" | "previews" | "pr")
}

/// Returns the customer that the variables name.
fn service(config: &Config<'_>) -> Option<String> {
    let name = text(config.get("vars")?.get("SERVICE_DOMAIN")?)?;
    (!name.is_empty()).then(|| slug(name))
}
