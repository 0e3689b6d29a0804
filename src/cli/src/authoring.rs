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
use flotilla_model::credential;
use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::{Code, Diagnostic, Severity};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::text::mask_ids;
use flotilla_spec::project::{self, Fleet};
use flotilla_spec::secrets::Secrets;
use flotilla_spec::tree::Tree;
use flotilla_spec::yaml;

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
    /// Reads the project, and starts the local emulator if it is the cloud. Returns nothing if the fleet as a whole has an error; a fleet
    /// without customers is no error.
    pub fn open(session: &Session, local: bool) -> Result<Workspace, Failure> {
        let tree = Tree::new(&session.root);
        let mut fleet = project::read_fleet(&tree).map_err(Failure::invalid)?;
        let ids: BTreeSet<String> = project::spec_files(&tree)
            .unwrap_or_default()
            .files
            .iter()
            .map(|file| project::id_of(file).to_owned())
            .collect();
        let (workers, errors) = match build::load(&session.root, &session.ui) {
            Ok(loaded) => {
                fleet.accounts = loaded.project.fleet.accounts;
                (loaded.workers, loaded.scan.diagnostics)
            }
            Err(diagnostics) if ids.is_empty() => (Vec::new(), diagnostics),
            Err(diagnostics) => return Err(Failure::invalid(diagnostics)),
        };
        let errors = errors.iter().map(identity).collect();
        let arguments = CloudArguments { local, ..CloudArguments::default() };
        let (secrets, mut cloud, _) = arguments.open(session, &fleet)?;
        cloud.start(&session.context())?;
        Ok(Workspace { fleet, secrets, cloud, ui: session.ui.clone(), workers, ids, errors })
    }

    /// Returns the flag, after a space, with which commands use the same cloud.
    pub fn local_flag(&self) -> &'static str {
        if self.cloud.local.is_some() { " --local" } else { "" }
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
    /// Skip the confirmation prompt
    #[arg(long, short)]
    pub yes: bool,
    /// What to do with the leftovers of an interrupted `new` or `edit`
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

/// Runs a command that changes the project as a whole or not at all: after the leftovers of an interrupted command are undone or kept. A
/// failure undoes what was done.
pub fn run_in_transaction(
    session: &Session,
    command: &str,
    customer: Option<&str>,
    interrupted: Option<Interrupted>,
    local: bool,
    carry_out: impl FnOnce(&Workspace, &Transaction) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    let workspace = Workspace::open(session, local)?;
    let what = customer.map_or(command.to_owned(), |id| format!("{command} {id}"));
    let deleter = |account: &str| database::deleter_of(&workspace, account);
    let transaction = Transaction::begin(session, &what, interrupted, deleter)?;
    let workspace = if transaction.recovered { Workspace::open(session, local)? } else { workspace };
    carry_out(&workspace, &transaction).map_err(|failure| transaction.roll_back(failure))
}

/// Returns the identity of a diagnostic, which doesn't change when its line moves.
fn identity(diagnostic: &Diagnostic) -> String {
    format!("{} {} {}", diagnostic.code, diagnostic.place.file, diagnostic.message)
}

/// Parses a value of the command line as YAML, as it would be read in a spec.
pub fn value(text: &str) -> Result<Value, String> {
    let quoted = |why: &str| format!("{why}: write it in quotes, as in \"{}\"", text.replace('"', "\\\""));
    if text.trim().is_empty() {
        return Err("an empty value: write `null` to remove what a layer sets, or \"\" for empty text".to_owned());
    }
    if matches!(text.trim(), "~" | "null" | "Null" | "NULL") {
        return Ok(Value::Null);
    }
    let (document, diagnostics) = yaml::parse("", text.as_bytes());
    if let Some(found) = diagnostics.first() {
        return Err(format!("{}; {}", found.message, found.help));
    }
    let document = document.ok_or_else(|| quoted("YAML reads it as a comment"))?;
    let is_whole = yaml::extents(text).is_none_or(|extent| extent.end == text.trim_end().len());
    if is_whole { Ok(document.root.to_value()) } else { Err(quoted("YAML reads a part of it as a comment")) }
}

/// Parses an answer to a question as [`value`] does; anything that isn't YAML is text, because a person sees the result.
pub fn answer(text: &str) -> Value {
    value(text).unwrap_or_else(|_| Value::from(text))
}

/// Returns the type of a value in a word.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

/// Returns a line that shows a value of `--set` and the type as which it was read, with the type of the earlier value if that differs.
pub fn set_line(path: &[String], value: &Value, before: Option<&Value>) -> String {
    let was = before.filter(|before| !before.is_null() && type_of(before) != type_of(value));
    let was = was.map(|before| format!("; it was {}", type_of(before))).unwrap_or_default();
    let shown = mask_ids(&credential::masked(path, value.clone()).to_string());
    format!("{} = {} ({}{was})", clean(&path.join(".")), clean(&shown), type_of(value))
}

/// Parses `PATH=VALUE` into the path's steps and the value.
pub fn assignment(text: &str) -> Result<(Vec<String>, Value), String> {
    let (path, written) = text.split_once('=').ok_or("write PATH=VALUE, as in vars.SHOP_LANGUAGE=de")?;
    Ok((steps(path)?, value(written)?))
}

/// Parses `vars.SHOP_LANGUAGE` or `destinations[0].enabled` into steps.
pub fn steps(path: &str) -> Result<Vec<String>, String> {
    let path = path.replace('[', ".").replace(']', "");
    let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
    if steps.iter().any(String::is_empty) {
        Err("a path consists of keys, separated by dots".to_owned())
    } else {
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_read_as_in_a_spec() {
        for (text, wanted) in [
            ("de", json!("de")),
            ("x y", json!("x y")),
            ("Acme Inc.", json!("Acme Inc.")),
            ("true", json!(true)),
            ("on", json!("on")),
            ("12", json!(12)),
            ("0.5", json!(0.5)),
            ("\"12\"", json!("12")),
            ("'1.10'", json!("1.10")),
            ("[a, b]", json!(["a", "b"])),
            ("{ name: a, list: [1] }", json!({"name": "a", "list": [1]})),
            ("{\"a\": null}", json!({"a": null})),
            ("null", json!(null)),
            ("~", json!(null)),
            ("\"\"", json!("")),
            ("https://a.example/#b", json!("https://a.example/#b")),
            ("\"*/15 * * * *\"", json!("*/15 * * * *")),
        ] {
            assert_eq!(value(text), Ok(wanted), "{text}");
        }
        for (text, message) in [
            ("1.10", "`1.10` is a number here, and becomes 1.1"),
            ("0123", "write it in quotes to keep it as it is: \"0123\""),
            ("", "an empty value"),
            ("#fff", "YAML reads it as a comment: write it in quotes, as in \"#fff\""),
            ("a #b", "YAML reads a part of it as a comment: write it in quotes, as in \"a #b\""),
            ("*/15 * * * *", "put text that begins with `*` in quotes"),
            ("[a", "bracket"),
        ] {
            let error = value(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert_eq!(answer("*/15 * * * *"), json!("*/15 * * * *"));
    }

    #[test]
    fn what_is_set_is_shown_with_its_type() {
        let path = ["vars".to_owned(), "A".to_owned()];
        assert_eq!(set_line(&path, &json!(false), Some(&json!("true"))), "vars.A = false (boolean; it was text)");
        assert_eq!(set_line(&path, &json!("x"), Some(&json!("y"))), "vars.A = \"x\" (text)");
        assert_eq!(set_line(&path, &json!([1]), None), "vars.A = [1] (list)");
        let path = ["environments", "staging", "vars", "TOKEN"].map(str::to_owned);
        assert_eq!(set_line(&path, &json!("x"), None), "environments.staging.vars.TOKEN = \"********\" (text)");
    }
}
