//! Imports an existing project that wrangler deploys, or what is live in an account: reads it, maps it to fleet.yaml, specs and
//! packs as values, and writes them all at once. What can't be mapped is a finding with its place; a credential is one, too, and
//! its value goes nowhere. Doesn't print, and knows no command line.

pub mod code;
pub mod customers;
pub mod envfiles;
pub mod fleet;
pub mod forms;
pub mod ids;
pub mod keys;
pub mod live;
pub mod settings;
pub mod specs;
pub mod wrangler;
pub mod write;
pub mod yaml_text;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use flotilla_model::diagnostic::{Diagnostic, Place};
use flotilla_model::spec::Environment;

/// A fact about the import that a person has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// Its place; without a line if it is in no file.
    #[serde(flatten)]
    pub place: Place,
    /// The message: lower case, no full stop, never a value that may be a secret.
    pub message: String,
    /// The next step.
    pub help: String,
}

/// Kinds of findings, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, strum::AsRefStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "lowercase")]
pub enum FindingKind {
    /// A file contains a secret. Its value was not copied.
    Credential,
    /// A file can't be read. Nothing of it was imported.
    Invalid,
    /// A spec can't express it, and a deploy without it would break the worker: the worker is not imported, or its delivery is `manual`.
    Lost,
    /// A spec can't express it; a deploy leaves it as it is, or omits it.
    #[strum(to_string = "left out")]
    LeftOut,
    /// A person has to decide or to check.
    Note,
}

/// A worker as it was found: in a file of wrangler's, or live in an account.
#[derive(Clone, Debug)]
pub struct FoundWorker {
    /// Its name at Cloudflare, which it keeps.
    pub name: String,
    /// Its place.
    pub place: Place,
    /// Its name in messages: `[env.production] of wrangler.toml`.
    pub what: String,
    /// Its customer.
    pub customer: String,
    /// Its environment.
    pub environment: Environment,
    /// Its role, if the customer has several workers.
    pub role: Option<String>,
    /// The id of its account, if it is known.
    pub account_id: Option<String>,
    /// Its settings as in a spec, without references to other workers.
    pub settings: Map<String, Value>,
    /// The workers that it calls by service bindings: the binding's name, the worker's name, and its place.
    pub calls: BTreeMap<String, (String, Place)>,
    /// The settings that a spec can't express, so that a deploy would break the worker.
    pub lost: Vec<String>,
    /// Whether its `workersDev` only follows from its hosts.
    pub implies_workers_dev: bool,
    /// Its code.
    pub code: Option<Arc<code::Code>>,
}

/// A project that was read.
#[derive(Debug, Default)]
pub struct Imported {
    /// The project's name.
    pub project: String,
    /// The files to write, by path from the fleet's folder.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The commands that have to run before a build, in their order.
    pub steps: Vec<code::Step>,
    /// The customers' ids.
    pub customers: Vec<String>,
    /// The workers' names.
    pub workers: Vec<String>,
    /// The names of the workers whose delivery is `manual`.
    pub manual: Vec<String>,
    /// The packs' names.
    pub packs: Vec<String>,
    /// The secrets that a person has to set: the customer and the name.
    pub secrets: Vec<(String, String)>,
    /// The findings, by file and line.
    pub findings: Vec<Finding>,
}

/// The options of an import.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions<'a> {
    /// The fleet's name, if it is given.
    pub name: Option<&'a str>,
    /// The customer of the workers that no file assigns to one.
    pub customer: Option<&'a str>,
    /// The files of the pack `worker`, of which packs of live workers are made.
    pub worker_pack: &'a [(String, Vec<u8>)],
    /// The patterns of configuration files and folders that are left out.
    pub exclude: &'a [String],
    /// The folder of the fleet, absolute and without links.
    pub target: &'a Path,
    /// The folder within which code may be: the git repository, or the fleet's own.
    pub workspace: &'a Path,
    /// The fleet that the workers are added to, if there is one.
    pub fleet: Option<&'a fleet::Existing>,
}

impl Default for ImportOptions<'_> {
    fn default() -> Self {
        let here = Path::new("");
        let (name, customer, fleet) = (None, None, None);
        ImportOptions { name, customer, worker_pack: &[], exclude: &[], target: here, workspace: here, fleet }
    }
}

/// The live workers of an account; empty if no account was read.
#[derive(Clone, Debug, Default)]
pub struct LiveAccount {
    /// The account's id.
    pub account_id: Option<String>,
    /// Its workers.
    pub workers: Vec<LiveWorker>,
    /// Its zones: their names by id.
    pub zones: BTreeMap<String, String>,
    /// The findings.
    pub findings: Vec<Finding>,
}

/// A worker that is live.
#[derive(Clone, Debug)]
pub struct LiveWorker {
    /// Its name.
    pub name: String,
    /// Its settings as in a spec, without references to other workers.
    pub settings: Map<String, Value>,
    /// The workers that it calls by service bindings without an entry point: the binding's name and the worker's.
    pub calls: BTreeMap<String, String>,
    /// The settings that a spec can't express, so that a deploy would break the worker.
    pub lost: Vec<String>,
    /// The name of its main module.
    pub main: String,
    /// Its modules by name.
    pub modules: BTreeMap<String, Vec<u8>>,
}

/// Findings in the order of their discovery.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Adds a note.
    pub fn note(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(FindingKind::Note, place, message, help);
    }

    /// Adds what is left out.
    pub fn left_out(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(FindingKind::LeftOut, place, message, help);
    }

    /// Adds what is lost.
    pub fn lost(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(FindingKind::Lost, place, message, help);
    }

    /// Adds a secret that a file contains.
    pub fn credential(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(FindingKind::Credential, place, message, help);
    }

    /// Adds the error of a file that can't be read.
    pub fn invalid(&mut self, error: Diagnostic) {
        self.push(FindingKind::Invalid, error.place, format!("{} ({})", error.message, error.code), error.help);
    }

    /// Returns the id of an account. One that isn't such an id is a finding, unless there is none at all.
    fn account_id(&mut self, id: &str, place: Place) -> Option<String> {
        if !(id.is_empty() || forms::is_account_id(id)) {
            let help = "it has 32 digits and letters from a to f: correct it and import again, or set CLOUDFLARE_ACCOUNT_ID when you deploy";
            self.note(place, "this is not the id of an account, and is left out", help);
        }
        forms::is_account_id(id).then(|| id.to_owned())
    }

    /// Adds a finding, unless it is there already.
    pub fn push(&mut self, kind: FindingKind, place: Place, message: impl Into<String>, help: impl Into<String>) {
        let finding = Finding { kind, place, message: message.into(), help: help.into() };
        // What several environments inherit is in one place.
        if !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }

    /// Returns the findings by file and line; of one place, the gravest first.
    pub fn sorted(mut self) -> Vec<Finding> {
        self.0.sort_by(|a, b| {
            let key = |finding: &Finding| {
                (finding.place.file.clone(), finding.place.line, finding.place.column, finding.kind)
            };
            key(a).cmp(&key(b))
        });
        self.0
    }
}

/// Maps a project and what is live. Files that can't be read are reported all at once.
pub fn import(path: Option<&Path>, live: LiveAccount, options: ImportOptions<'_>) -> Result<Imported, Vec<Diagnostic>> {
    let mut findings = Findings::default();
    let (found, others) = match path {
        Some(path) => customers::read(path, &live, options, &mut findings)?,
        None => (Vec::new(), customers::Others::default()),
    };
    Ok(specs::assemble(path, found, others, live, options, findings))
}
