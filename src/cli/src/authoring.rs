//! The parts that `new` and `edit` share: token and account, host, database, destinations, and writing. Each question has a flag
//! that answers it.

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
use flotilla_model::failure::{Exit, Failure};
use flotilla_spec::project::{self, Fleet};
use flotilla_spec::secrets::Secrets;
use flotilla_spec::tree::Tree;

use super::Session;
use flotilla_engine::cloud::Cloud;

use super::cloud::CloudArguments;
use super::transaction::{Interrupted, Transaction};
use super::ui::{Ui, clean};

/// The project before anything is changed.
pub struct Workspace {
    /// fleet.yaml and what it names.
    pub fleet: Fleet,
    /// The sources of secrets.
    pub secrets: Secrets,
    /// The platform that the project deploys to.
    pub cloud: Cloud,
    /// The output for waits.
    pub ui: Ui,
    /// The workers of all customers without errors.
    pub workers: Vec<Worker>,
    /// The ids of all customers.
    pub ids: BTreeSet<String>,
    /// The diagnostics that there are already.
    errors: BTreeSet<String>,
}

impl Workspace {
    /// Reads the project. Returns nothing if the fleet as a whole has an error; to have no customers is none.
    pub fn open(session: &Session) -> Result<Workspace, Failure> {
        let tree = Tree::new(&session.root);
        let fleet = project::read_fleet(&tree).map_err(Failure::invalid)?;
        let ids: BTreeSet<String> =
            project::spec_files(&tree).unwrap_or_default().iter().map(|file| project::id_of(file).to_owned()).collect();
        let (workers, errors) = match build::load(&session.root, &session.ui) {
            Ok(loaded) => (loaded.workers, loaded.scan.diagnostics),
            Err(diagnostics) if ids.is_empty() => (Vec::new(), diagnostics),
            Err(diagnostics) => return Err(Failure::invalid(diagnostics)),
        };
        let errors = errors.iter().map(identity).collect();
        let (secrets, cloud, _) = CloudArguments::default().open(session, &fleet)?;
        Ok(Workspace { fleet, secrets, cloud, ui: session.ui.clone(), workers, ids, errors })
    }

    /// Returns the errors that were not there before.
    pub fn new_errors(&self, session: &Session) -> Vec<Diagnostic> {
        let found = match build::load(&session.root, &session.ui) {
            Ok(loaded) => loaded.scan.diagnostics,
            Err(diagnostics) => diagnostics,
        };
        let is_new = |found: &Diagnostic| {
            found.severity == Severity::Error
                && found.code != Code::NoCustomers
                && !self.errors.contains(&identity(found))
        };
        found.into_iter().filter(is_new).collect()
    }
}

/// The options of commands that write specs.
#[derive(clap::Args)]
pub struct WritingArguments {
    /// Don't ask whether it is to be written
    #[arg(long, short)]
    pub yes: bool,
    /// What becomes of what an interrupted `new` or `edit` left
    #[arg(long, value_enum)]
    pub interrupted: Option<Interrupted>,
}

/// Prints a summary of labels and texts, with empty lines around it.
pub fn print_summary(session: &Session, summary: &[(&str, String)]) {
    session.ui.line("");
    for (what, value) in summary {
        session.ui.line(&format!("  {:14}{}", format!("{what}:"), clean(value)));
    }
    session.ui.line("");
}

/// Runs a command that changes the project as a whole or not at all: after what an interrupted command left is dealt with. A failure
/// undoes what was done.
pub fn run_in_transaction(
    session: &Session,
    command: &str,
    customer: Option<&str>,
    interrupted: Option<Interrupted>,
    carry_out: impl FnOnce(&Workspace, &Transaction) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    let workspace = Workspace::open(session)?;
    let what = customer.map_or(command.to_owned(), |id| format!("{command} {id}"));
    let deleter = |account: &str| database::deleter_of(&workspace, account);
    let transaction = Transaction::begin(session, &what, interrupted, deleter)?;
    let workspace = if transaction.recovered { Workspace::open(session)? } else { workspace };
    carry_out(&workspace, &transaction).map_err(|failure| transaction.roll_back(failure))
}

/// Returns the identity of a diagnostic, which doesn't change when its line moves.
fn identity(diagnostic: &Diagnostic) -> String {
    format!("{} {} {}", diagnostic.code, diagnostic.place.file, diagnostic.message)
}

/// Parses a value of the command line: JSON if it is valid, text otherwise.
pub fn value(text: &str) -> Value {
    match serde_json::from_str(text) {
        // Numbers that would lose digits are text, as they have to be in specs.
        Ok(Value::Number(number)) if number.to_string() != text => Value::from(text),
        Ok(value) => value,
        Err(_) => Value::from(text),
    }
}

/// Parses `PATH=VALUE` into the path's steps and the value.
pub fn assignment(text: &str) -> Result<(Vec<String>, Value), String> {
    let (path, written) = text.split_once('=').ok_or("write PATH=VALUE, as in vars.SHOP_LANGUAGE=de")?;
    Ok((steps(path)?, value(written)))
}

/// Parses `vars.SHOP_LANGUAGE` or `destinations[0].enabled` into steps.
pub fn steps(path: &str) -> Result<Vec<String>, String> {
    let path = path.replace('[', ".").replace(']', "");
    let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
    if steps.iter().any(String::is_empty) { Err("a path is keys with dots between them".to_owned()) } else { Ok(steps) }
}
