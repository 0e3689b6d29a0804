//! Writes the answers: the files, then the check, then what is created at Cloudflare, then the secrets. In this
//! order, so that what can't be undone by a file comes last.

use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};

use flotilla_build::git;
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;
use flotilla_model::plain_file;
use flotilla_model::spec::Environment;
use flotilla_spec::project::{self, FLEET_FILE};
use flotilla_spec::secrets::{Secrets, Store};
use flotilla_spec::tree::Tree;

use super::super::report;
use super::super::transaction::Transaction;
use super::super::ui::clean;
use super::super::{Format, Session};
use super::Workspace;
use flotilla_engine::context::FOLDER;

/// Returns the text of a file of the project.
pub fn read(session: &Session, file: &str) -> Result<String, Failure> {
    let path = session.root.join(file);
    std::fs::read_to_string(&path).map_err(|error| Failure::new(format!("{} can't be read: {error}", path.display())))
}

/// Writes a changed fleet.yaml or spec.
pub fn file(session: &Session, transaction: &Transaction, file: &str, text: &str) -> Result<(), Failure> {
    transaction.write(&session.root.join(file), text)
}

/// Returns fleet.yaml with these changes; nothing if there are none.
pub fn fleet(session: &Session, edits: &[flotilla_spec::edit::Change]) -> Result<Option<String>, Failure> {
    if edits.is_empty() {
        return Ok(None);
    }
    let text = read(session, FLEET_FILE)?;
    // What is new comes before what is about customers.
    let order = ["name", "workerName", "accounts", "zones", "packs", "defaults"];
    flotilla_spec::edit::yaml_all(&text, edits, &order)
        .map(Some)
        .map_err(|refused| Failure::new(format!("{FLEET_FILE}: {refused}")))
}

/// Checks the written files; prints and returns the new errors.
pub fn check(session: &Session, workspace: &Workspace) -> Vec<Diagnostic> {
    let errors = workspace.new_errors(session);
    report::diagnostics(&session.root, &session.ui, &errors);
    errors
}

/// Checks the written files; fails if there are new errors.
pub fn require_valid(session: &Session, workspace: &Workspace) -> Result<(), Failure> {
    let errors = check(session, workspace);
    if errors.is_empty() { Ok(()) } else { Err(failure(session, &errors)) }
}

/// Returns a failure for these errors.
pub fn failure(session: &Session, errors: &[Diagnostic]) -> Failure {
    let message = format!("the new spec would have {}", report::count(errors.len(), "mistake"));
    if session.format == Format::Json {
        let codes: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.code, error.message)).collect();
        return codes.into_iter().fold(Failure::new(message), |failure, code| failure.hint(code));
    }
    Failure::new(message)
}

/// The result of storing secrets.
#[derive(Default)]
pub struct Stored {
    /// The stored entries: the name, and the file.
    pub stored: Vec<(String, String)>,
    /// The entries that there is no file for.
    pub left: Vec<String>,
}

/// Stores secrets in the sources of fleet.yaml, each in the file that has it, or else in the first one. Files that are for all
/// environments are used, or those that are for one environment `only`.
pub fn secrets(
    session: &Session,
    transaction: &Transaction,
    values: &[(String, SecretString)],
    only: Option<Environment>,
) -> Result<Stored, Failure> {
    let mut all = Stored::default();
    if values.is_empty() {
        return Ok(all);
    }
    let _lock = Lock::wait(&session.root.join(FOLDER).join("secrets.lock"), "secrets", &session.ui)?;
    let fleet = project::read_fleet(&Tree::new(&session.root)).map_err(|found| failure(session, &found))?;
    for (name, value) in values {
        // Each is written to what the one before has left.
        let sources = Secrets::open(&session.root, fleet.file.secrets.as_deref(), None, false)?;
        let stores = sources.stores(&only.into_iter().collect());
        let fitting = || stores.iter().filter(|store| store.environment() == only && store.takes(name));
        let has = fitting().find(|store| store.has(name) == Ok(true));
        let store = has.or_else(|| fitting().next());
        if let Some(environment) = only {
            check_alone(&stores, store, name, environment)?;
        }
        let Some(store) = store else {
            all.left.push(name.clone());
            continue;
        };
        storable(store)?;
        let path = store.on_disk();
        transaction.change(|undo| {
            undo.note_file(&path)?;
            store.set(name, value)?;
            undo.note_written(&path)
        })?;
        warn_if_exposed(session, &path, store);
        all.stored.push((name.clone(), store.path()));
    }
    Ok(all)
}

/// Rejects a value for one environment alone that would be one for all, or that one for all would precede.
fn check_alone(
    stores: &[Store<'_>],
    store: Option<&Store<'_>>,
    name: &str,
    environment: Environment,
) -> Result<(), Failure> {
    let failure = |why: String| {
        Err(Failure::refused(format!("{name} can't be set for {environment} only: {why}"))
            .hint("without --env, it is set for all environments of the customer"))
    };
    let Some(store) = store else {
        return failure(
            "no source in fleet.yaml has a file for each environment, such as `secrets/{environment}.env`".to_owned(),
        );
    };
    let before = stores.iter().take_while(|other| other.path() != store.path());
    let mut for_all = before.filter(|other| other.environment().is_none());
    match for_all.find(|other| other.has(name) == Ok(true)) {
        Some(other) => failure(format!(
            "{} has it for all environments, and takes precedence over {}",
            clean(&other.path()),
            clean(&store.path())
        )),
        None => Ok(()),
    }
}

/// Rejects a file that git tracks, if it holds values in plain text.
fn storable(store: &Store<'_>) -> Result<(), Failure> {
    let path = store.path();
    if store.is_clear() && git::is_tracked(&store.on_disk())? {
        return Err(Failure::refused(format!("git tracks {path}, and plain-text secrets don't belong in git")).hint(format!(
            "remove it from git (git rm --cached {path}) and add it to .gitignore, or encrypt it with age; see docs/guides/secrets.md"
        )));
    }
    Ok(())
}

/// Prints a warning if a file of values in plain text isn't ignored by git, or can be read by other users.
pub fn warn_if_exposed(session: &Session, on_disk: &Path, store: &Store<'_>) {
    if !store.is_clear() {
        return;
    }
    let path = clean(&store.path());
    if git::is_exposed(on_disk).unwrap_or(true) {
        session.ui.line(&format!("git doesn't ignore {path}: add it to .gitignore before you commit"));
    }
    if let Some(mode) = plain_file::readable_by_others(on_disk) {
        session.ui.line(&format!("other users can read {path} (its mode is {mode:o}): chmod 600 {path}"));
    }
}

/// Returns whether a stored value is the effective one: no other source precedes it.
pub fn is_effective(session: &Session, name: &str, value: &SecretString) -> Result<bool, Failure> {
    let fleet = project::read_fleet(&Tree::new(&session.root)).map_err(|found| failure(session, &found))?;
    let secrets = Secrets::open(&session.root, fleet.file.secrets.as_deref(), None, false)?;
    Ok(secrets.token(name).is_some_and(|now| now.expose_secret() == value.expose_secret()))
}
