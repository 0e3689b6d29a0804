//! The D1 databases that workers are bound to and their packs have migrations for, each with what is applied and pending: for the tables of
//! several commands.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use flotilla_build::build::Loaded;
use flotilla_deploy::plan::DatabaseDecision;
use flotilla_deploy::state::State;
use flotilla_engine::cloud::Cloud;
use flotilla_engine::databases::{BoundDatabase, databases_of};
use flotilla_model::customer::Worker;
use flotilla_model::failure::Failure;
use flotilla_model::migrations::Fault;
use flotilla_model::spec::Environment;
use flotilla_model::text::names;

use super::table::Cell;
use super::ui::Style;

/// The number of names in a line.
const NAMES: usize = 6;

/// A database with migrations, and the workers that are bound to it.
#[derive(Serialize)]
pub(super) struct DatabaseRow {
    pub(super) customer: String,
    pub(super) environment: Environment,
    account: String,
    pub(super) database: String,
    workers: BTreeSet<String>,
    pub(super) pack: String,
    pub(super) binding: String,
    /// The migrations of the pack that were applied, as far as the state knows.
    pub(super) applied: Vec<String>,
    /// The migrations that are pending; if its table was not read yet, at most these.
    pub(super) pending: Vec<String>,
    /// Whether it is known what was applied.
    pub(super) known: bool,
    /// The migration that was sent, and not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    uncertain: Option<String>,
    /// The migrations that were edited or removed after they were applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<String>,
    /// The bookmark from before the last run's first migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    bookmark: Option<String>,
}

impl DatabaseRow {
    fn of(bound: &BoundDatabase) -> DatabaseRow {
        let known = bound.known.clone().unwrap_or_default();
        let names = |indices: &[usize]| indices.iter().map(|index| bound.all.files[*index].name.clone()).collect();
        let changed = match bound.decision() {
            DatabaseDecision::Faulty(faults) => faults,
            _ => Vec::new(),
        };
        let files = bound.all.files.iter();
        DatabaseRow {
            customer: String::new(),
            environment: Environment::Production,
            account: String::new(),
            database: bound.reference.name.clone(),
            workers: BTreeSet::new(),
            pack: String::new(),
            binding: bound.binding.clone(),
            applied: files
                .filter(|file| known.applied.contains_key(&file.name))
                .map(|file| file.name.clone())
                .collect(),
            pending: names(&bound.all.pending(&known.applied)),
            known: bound.known.is_some(),
            uncertain: known.in_flight,
            changed: changed.into_iter().map(|(Fault::Edited(name) | Fault::Removed(name))| name).collect(),
            bookmark: known.bookmark,
        }
    }

    /// Returns whether it lacks migrations, or was never read.
    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty() || !self.changed.is_empty() || self.uncertain.is_some()
    }

    /// Returns its status for a table.
    pub(super) fn status(&self) -> Cell {
        let pending = names(&self.pending, NAMES);
        if !self.changed.is_empty() {
            let changed = names(&self.changed, NAMES);
            return Cell::styled(format!("edited or removed since: {changed}"), Style::Error);
        }
        match (&self.uncertain, self.known, self.pending.is_empty()) {
            (Some(name), ..) => Cell::styled(format!("{name} was interrupted; pending: {pending}"), Style::Warning),
            (None, false, false) => Cell::styled(format!("not read yet; at most pending: {pending}"), Style::Dim),
            (None, _, true) => Cell::from("up to date"),
            (None, true, false) => Cell::styled(format!("pending: {pending}"), Style::Warning),
        }
    }
}

/// Returns the databases of the selected workers, each once.
pub(super) fn databases(
    loaded: &Loaded,
    cloud: &Cloud,
    state: &State,
    is_selected: impl Fn(&Worker) -> bool,
) -> Result<Vec<DatabaseRow>, Failure> {
    let mut rows: BTreeMap<(Environment, String, String, String, String), DatabaseRow> = BTreeMap::new();
    for worker in loaded.workers.iter().filter(|worker| is_selected(worker)) {
        let Some(pack) = loaded.project.fleet.packs.get(&worker.pack) else { continue };
        if pack.databases.is_empty() {
            continue;
        }
        let account_id = cloud.home(&worker.account, None).account_id;
        for bound in databases_of(pack, worker, &account_id, state)? {
            let table = bound.all.table.clone();
            let key =
                (worker.environment, worker.customer.clone(), account_id.clone(), bound.reference.name.clone(), table);
            let row = rows.entry(key).or_insert_with(|| DatabaseRow {
                customer: worker.customer.clone(),
                environment: worker.environment,
                account: worker.account.clone(),
                pack: worker.pack.clone(),
                ..DatabaseRow::of(&bound)
            });
            row.workers.insert(worker.name.clone());
        }
    }
    Ok(rows.into_values().collect())
}
