//! The D1 databases of workers and the migrations of their packs: which database each binding of a worker has, and what the state knows of
//! it. Sends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotilla_deploy::plan::{DatabaseDecision, DatabaseReference, decide_database};
use flotilla_deploy::state::{DatabaseId, RecordedDatabase, ResourceKind, State};
use flotilla_local::Scratch;
use flotilla_model::binding::D1;
use flotilla_model::customer::{Database, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::failure::Failure;
use flotilla_model::migrations::{DatabaseMigrations, Fault, Migration, position, statements};
use flotilla_model::spec::Environment;
use flotilla_model::text::{count, names};
use flotilla_spec::pack::Pack;

/// The help for a statement that isn't SQL.
const SYNTAX_HELP: &str = "fix the statement: D1 rejects the migration, and applies nothing of it";
/// The number of databases that an error names.
const NAMES: usize = 5;

/// A database that a worker is bound to, with the migrations of its pack.
pub struct BoundDatabase {
    /// The binding's name.
    pub binding: String,
    /// The database.
    pub reference: DatabaseReference,
    /// The migrations.
    pub all: Arc<DatabaseMigrations>,
    /// The part of it that the state knows.
    pub known: Option<RecordedDatabase>,
}

impl BoundDatabase {
    /// Returns what it needs.
    pub fn decision(&self) -> DatabaseDecision {
        decide_database(&self.all, self.known.as_ref())
    }
}

/// Returns the databases with migrations that a worker is bound to. A preview migrates the one that it has for itself alone.
pub fn databases_of(
    pack: &Pack,
    worker: &Worker,
    account_id: &str,
    state: &State,
) -> Result<Vec<BoundDatabase>, Failure> {
    let mut found = Vec::new();
    for (binding, all) in &pack.databases {
        let mut reference = match (&worker.database, worker.bindings.get(binding)) {
            (Database::D1 { binding: own, name, id, jurisdiction, location_hint }, _) if own == binding => {
                let (jurisdiction, location_hint) = (*jurisdiction, *location_hint);
                DatabaseReference { name: name.clone(), id: id.clone(), jurisdiction, location_hint }
            }
            (_, Some(bound)) if worker.environment != Environment::Preview => {
                let Some(text) = bound.text(D1).map(str::to_owned) else { continue };
                let id = bound.database_name().is_none().then(|| text.clone());
                let name = bound.text("name").map_or(text, str::to_owned);
                DatabaseReference { name, id, jurisdiction: None, location_hint: None }
            }
            _ => continue,
        };
        if reference.id.is_none() {
            reference.id = state.cached_id(account_id, ResourceKind::Database, &reference.name)?;
        }
        let known = match &reference.id {
            Some(id) => {
                let (account_id, id, table) = (account_id.to_owned(), id.clone(), all.table.clone());
                state.database(&DatabaseId { account_id, id, table })?
            }
            None => None,
        };
        found.push(BoundDatabase { binding: binding.clone(), reference, all: Arc::clone(all), known });
    }
    Ok(found)
}

/// The contradictions between packs' migrations and what was applied, one for each migration, with the databases that have it.
#[derive(Default)]
pub(crate) struct Contradictions(BTreeMap<(Place, Fault), BTreeSet<String>>);

impl Contradictions {
    /// Adds those of a database.
    pub fn add(&mut self, database: &BoundDatabase, faults: Vec<Fault>) {
        for fault in faults {
            let place = match &fault {
                Fault::Edited(name) => {
                    let file = database.all.files.iter().find(|file| file.name == *name);
                    file.map_or_else(
                        || database.all.place.clone(),
                        |file| Place { line: 1, column: 1, ..Place::file(&file.file) },
                    )
                }
                Fault::Removed(_) => database.all.place.clone(),
            };
            self.0.entry((place, fault)).or_default().insert(database.reference.name.clone());
        }
    }

    /// Returns them as errors.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let diagnostic = |((place, fault), databases): ((Place, Fault), BTreeSet<String>)| {
            let number = count(databases.len(), "database");
            let databases: Vec<String> = databases.into_iter().collect();
            let of = format!("{number}: {}", names(&databases, NAMES));
            let (message, help) = match fault {
                Fault::Edited(name) => (
                    format!("the migration {name} was edited after it was applied to {of}"),
                    "restore the file as it was, and write what it changes in a new migration: `flotilla migrations new NAME`",
                ),
                Fault::Removed(name) => (
                    format!("the migration {name} was applied to {of}, and its file no longer exists"),
                    "restore the file; if this is an older checkout, deploy from one that has it",
                ),
            };
            Diagnostic::error(Code::AppliedMigration, place, message, help)
        };
        self.0.into_iter().map(diagnostic).collect()
    }
}

/// Returns an error for the first statement of each migration that isn't SQL, whatever tables a database has.
pub fn syntax_errors(all: &DatabaseMigrations) -> Vec<Diagnostic> {
    let Ok(scratch) = Scratch::new() else { return Vec::new() };
    let of_file = |file: &Migration| {
        let statements = statements(&file.sql).unwrap_or_default();
        let rejected = statements.iter().enumerate().find_map(|(index, statement)| {
            let rejected = scratch.prepare(&file.sql[statement.start..statement.end]).err()?;
            rejected.is_syntax.then_some((index, statement.start, rejected))
        });
        let (index, start, rejected) = rejected?;
        let offset = start + rejected.offset.unwrap_or(0);
        Some(error_at(file, offset, (index, statements.len(), &rejected.message), SYNTAX_HELP))
    };
    all.files.iter().filter_map(of_file).collect()
}

/// Applies all migrations to an empty database in memory. Returns an error for the first statement that fails there.
pub fn rehearse(all: &DatabaseMigrations) -> Option<Diagnostic> {
    let scratch = Scratch::new().ok()?;
    for file in &all.files {
        let statements = statements(&file.sql).unwrap_or_default();
        for (index, statement) in statements.iter().enumerate() {
            if let Err(rejected) = scratch.run(&file.sql[statement.start..statement.end]) {
                let help = match rejected.is_syntax {
                    true => SYNTAX_HELP,
                    false => {
                        "the migrations were applied to an empty database in memory: a table that no migration creates is missing there"
                    }
                };
                let offset = statement.start + rejected.offset.unwrap_or(0);
                return Some(error_at(file, offset, (index, statements.len(), &rejected.message), help));
            }
        }
    }
    None
}

/// Returns an error about a statement: its index, the number of statements, and the message.
fn error_at(file: &Migration, offset: usize, (index, of, message): (usize, usize, &str), help: &str) -> Diagnostic {
    let (line, column) = position(&file.sql, offset);
    let place = Place { line, column, ..Place::file(&file.file) };
    let message = format!("statement {} of {of} of the migration fails: {message}", index + 1);
    Diagnostic::error(Code::BadSql, place, message, help)
}

/// The packs whose migrations have errors of syntax, each looked at once.
#[derive(Default)]
pub(crate) struct SyntaxErrors(BTreeMap<Place, Vec<Diagnostic>>);

impl SyntaxErrors {
    /// Returns whether the migrations have an error.
    pub fn has(&mut self, all: &DatabaseMigrations) -> bool {
        !self.0.entry(all.place.clone()).or_insert_with(|| syntax_errors(all)).is_empty()
    }

    /// Returns the errors.
    pub fn into_diagnostics(self) -> impl Iterator<Item = Diagnostic> {
        self.0.into_values().flatten()
    }
}
