//! What `new` and `edit` both ask: which token and account, which host, which database, which destinations. Each question can
//! be answered by an option instead.

pub mod database;
pub mod destinations;
pub mod host;
pub mod token;
pub mod write;

use std::collections::BTreeSet;

use serde_json::Value;

use flotilla_build::build;
use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::{Code, Diagnostic, Severity};
use flotilla_model::failure::Failure;
use flotilla_spec::project::{self, Fleet};
use flotilla_spec::secrets::Secrets;
use flotilla_spec::tree::Tree;

use super::Session;
use super::cloud::{Cloud, CloudArguments};
use super::report;

/// The fleet as it is before anything is changed.
pub struct Ground {
    /// fleet.yaml and what it names.
    pub fleet: Fleet,
    /// Where secrets come from.
    pub secrets: Secrets,
    /// The cloud that is asked.
    pub cloud: Cloud,
    /// The workers of all customers without mistakes.
    pub workers: Vec<Worker>,
    /// The ids of all customers.
    pub ids: BTreeSet<String>,
    /// What is wrong already.
    mistakes: BTreeSet<String>,
}

impl Ground {
    /// Looks at the project. Nothing, if the fleet has a mistake that holds for all; a fleet without customers is none.
    pub fn open(session: &Session) -> Result<Option<Ground>, Failure> {
        let tree = Tree::new(&session.root);
        let fleet = match project::read_fleet(&tree) {
            Ok(fleet) => fleet,
            Err(diagnostics) => {
                report::stopped(session, &diagnostics)?;
                return Ok(None);
            }
        };
        let ids: BTreeSet<String> =
            project::spec_files(&tree).unwrap_or_default().iter().map(|file| project::id_of(file).to_owned()).collect();
        let (workers, mistakes) = match build::load(&session.root, &session.ui) {
            Ok(loaded) => (loaded.workers, loaded.survey.diagnostics),
            Err(diagnostics) if ids.is_empty() => (Vec::new(), diagnostics),
            Err(diagnostics) => {
                report::stopped(session, &diagnostics)?;
                return Ok(None);
            }
        };
        let mistakes = mistakes.iter().map(said).collect();
        let arguments = CloudArguments::default();
        let secrets = arguments.secrets(session, &fleet)?;
        let cloud = Cloud::new(session, &fleet, &arguments, &secrets)?;
        Ok(Some(Ground { fleet, secrets, cloud, workers, ids, mistakes }))
    }

    /// The errors that were not there before.
    pub fn new_mistakes(&self, session: &Session) -> Vec<Diagnostic> {
        let found = match build::load(&session.root, &session.ui) {
            Ok(loaded) => loaded.survey.diagnostics,
            Err(diagnostics) => diagnostics,
        };
        let is_new = |found: &Diagnostic| {
            found.severity == Severity::Error
                && found.code != Code::NoCustomers
                && !self.mistakes.contains(&said(found))
        };
        found.into_iter().filter(is_new).collect()
    }
}

/// What tells a mistake from others, wherever its lines have moved to.
fn said(diagnostic: &Diagnostic) -> String {
    format!("{} {} {}", diagnostic.code, diagnostic.place.file, diagnostic.message)
}

/// A value of a command line: JSON where it is some, text otherwise.
pub fn value(text: &str) -> Value {
    match serde_json::from_str(text) {
        // Numbers that would lose digits are text, as they have to be in specs.
        Ok(Value::Number(number)) if number.to_string() != text => Value::from(text),
        Ok(value) => value,
        Err(_) => Value::from(text),
    }
}

/// `PATH=VALUE`: the path's steps, and the value.
pub fn assignment(text: &str) -> Result<(Vec<String>, Value), String> {
    let (path, written) = text.split_once('=').ok_or("write PATH=VALUE, as in vars.SHOP_LANGUAGE=de")?;
    Ok((steps(path)?, value(written)))
}

/// `vars.SHOP_LANGUAGE` or `destinations[0].enabled`, in steps.
pub fn steps(path: &str) -> Result<Vec<String>, String> {
    let path = path.replace('[', ".").replace(']', "");
    let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
    if steps.iter().any(String::is_empty) { Err("a path is keys with dots between them".to_owned()) } else { Ok(steps) }
}
