//! The migrations of D1 databases that a plan applies. Pure: the databases, their pack's migrations and what the state knows of both come
//! from elsewhere.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Change, Step, Wave};
use crate::state::{DatabaseId, RecordedDatabase, WorkerId};
use flotilla_model::digest::Digest;
use flotilla_model::migrations::{DatabaseMigrations, Fault};
use flotilla_model::platform::Home;
use flotilla_model::spec::{Environment, Jurisdiction, LocationHint};

/// A database as a worker's spec gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseReference {
    /// Its name; where the spec has none, its id.
    pub name: String,
    /// Its id, if the spec has it or the state knows it.
    pub id: Option<String>,
    /// The jurisdiction of its data, if it is created.
    pub jurisdiction: Option<Jurisdiction>,
    /// A hint for its location, if it is created.
    pub location_hint: Option<LocationHint>,
}

impl DatabaseReference {
    /// Returns its key in its account: two workers that give the same database have the same.
    fn key(&self) -> (bool, &str) {
        self.id.as_deref().map_or((false, &self.name), |id| (true, id))
    }
}

/// A database that a plan migrates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatabaseChange {
    /// The customer of the first worker that is bound to it.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// None: it isn't a worker's change.
    worker: Option<String>,
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The database's name; where no spec has it, its id.
    #[serde(rename = "resource")]
    pub database: String,
    /// The action.
    action: &'static str,
    /// The workers that are bound to it, sorted.
    pub workers: Vec<String>,
    /// The migrations that are pending, in order; if its table has to be read first, at most these.
    pub migrations: Vec<String>,
    /// The number of them that are applied before the workers are uploaded.
    pub before_upload: usize,
    /// Whether the database's table has to be read first, because the database may exist and the state doesn't know what was applied.
    pub reads_table: bool,
    /// Whether the state doesn't know what was applied.
    #[serde(skip)]
    pub is_unknown: bool,
    /// The wave that it belongs to, from 0.
    pub wave: usize,
    /// The home of its account.
    #[serde(skip)]
    pub home: Home,
    /// The workers that are bound to it.
    #[serde(skip)]
    pub users: Vec<WorkerId>,
    /// The database as it is written.
    #[serde(skip)]
    pub reference: DatabaseReference,
    /// All migrations of the pack.
    #[serde(skip)]
    pub all: Arc<DatabaseMigrations>,
    /// The indices of the migrations that are pending.
    #[serde(skip)]
    pub pending: Vec<usize>,
    /// Whether the plan creates it.
    #[serde(skip)]
    pub is_new: bool,
    /// Whether no change of a worker creates it.
    #[serde(skip)]
    creates: bool,
    /// Whether the migrations that come after the upload are left for the deploy that uploads.
    #[serde(skip)]
    pub leaves_after: bool,
    /// The customers whose workers are bound to it, each with the wave that its labels pick.
    #[serde(skip)]
    pub(super) customers: BTreeMap<String, Option<usize>>,
}

impl DatabaseChange {
    /// Returns how the state identifies the database with this id.
    pub fn id(&self, id: &str) -> DatabaseId {
        DatabaseId { account_id: self.home.account_id.clone(), id: id.to_owned(), table: self.all.table.clone() }
    }

    /// Returns the number of requests that it takes, without those that find or create the database.
    pub fn requests(&self) -> usize {
        // One is for the bookmark.
        let of_old = if self.is_new { 0 } else { 1 + usize::from(self.reads_table) };
        self.pending.len() + of_old + usize::from(self.creates)
    }
}

/// The part of a database's change that decides a plan's digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseAction {
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The database's name or id.
    pub database: String,
    /// The migrations, each with the digest of its text.
    pub migrations: Vec<(String, Digest)>,
    /// The wave that it belongs to, from 0.
    pub wave: usize,
}

impl DatabaseAction {
    /// Returns what a change of a database does.
    pub fn of(change: &DatabaseChange) -> DatabaseAction {
        let migration = |index: &usize| (change.all.files[*index].name.clone(), change.all.files[*index].digest);
        DatabaseAction {
            account: change.account.clone(),
            database: change.database.clone(),
            migrations: change.pending.iter().map(migration).collect(),
            wave: change.wave,
        }
    }

    /// Returns whether it is the rest of a planned action.
    pub fn is_rest_of(&self, planned: &DatabaseAction) -> bool {
        self.account == planned.account
            && self.database == planned.database
            && self.migrations.iter().all(|migration| planned.migrations.contains(migration))
    }
}

/// A worker that is bound to a database with migrations.
pub struct DatabaseUser<'a> {
    /// The worker.
    pub id: &'a WorkerId,
    /// The customer.
    pub customer: &'a str,
    /// The customer's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The environment.
    pub environment: Environment,
    /// The account's name in fleet.yaml.
    pub account: &'a str,
    /// Whether the plan creates the database.
    pub is_new: bool,
}

/// The state of a database against its pack's migrations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseDecision {
    /// Everything was applied.
    UpToDate,
    /// These are pending; `reads_table`: what was applied isn't known for certain.
    Behind {
        /// The indices of the migrations.
        pending: Vec<usize>,
        /// Whether the database's table has to be read first.
        reads_table: bool,
    },
    /// The pack and the migrations that were applied contradict each other.
    Faulty(Vec<Fault>),
}

/// Decides what a database needs. `known`: what the state knows of it.
pub fn decide_database(all: &DatabaseMigrations, known: Option<&RecordedDatabase>) -> DatabaseDecision {
    let none = RecordedDatabase::default();
    let recorded = known.unwrap_or(&none);
    let faults = all.faults(&recorded.applied);
    if !faults.is_empty() {
        return DatabaseDecision::Faulty(faults);
    }
    let (pending, reads_table) = (all.pending(&recorded.applied), known.is_none_or(|known| known.in_flight.is_some()));
    match pending.is_empty() {
        true => DatabaseDecision::UpToDate,
        false => DatabaseDecision::Behind { pending, reads_table },
    }
}

/// The databases that a plan migrates, while it is made: two workers that share one migrate it once.
#[derive(Default)]
pub(super) struct Databases {
    changes: Vec<DatabaseChange>,
    /// The indices of the changes, by account, database and table.
    by_key: BTreeMap<(String, bool, String, String), usize>,
}

impl Databases {
    /// Adds a database that is behind, for a worker that is bound to it.
    pub fn add(
        &mut self,
        user: &DatabaseUser<'_>,
        reference: &DatabaseReference,
        all: &Arc<DatabaseMigrations>,
        (pending, reads_table): (Vec<usize>, bool),
        waves: &[Wave],
    ) {
        let home = Home { account_id: user.id.0.account_id.clone(), namespace: None };
        let (has_id, key) = reference.key();
        let key = (home.account_id.clone(), has_id, key.to_owned(), all.table.clone());
        let picked = waves.iter().position(|wave| wave.picks(user.labels));
        if let Some(index) = self.by_key.get(&key) {
            let change = &mut self.changes[*index];
            change.users.push(user.id.clone());
            change.is_new |= user.is_new;
            change.customers.insert(user.customer.to_owned(), picked);
            return;
        }
        self.by_key.insert(key, self.changes.len());
        self.changes.push(DatabaseChange {
            customer: user.customer.to_owned(),
            environment: user.environment,
            worker: None,
            account: user.account.to_owned(),
            database: reference.name.clone(),
            action: "migrate",
            workers: Vec::new(),
            migrations: pending.iter().map(|index| all.files[*index].name.clone()).collect(),
            before_upload: all.before_upload(&pending),
            reads_table,
            is_unknown: reads_table,
            wave: 0,
            home,
            users: vec![user.id.clone()],
            reference: reference.clone(),
            all: Arc::clone(all),
            pending,
            is_new: user.is_new,
            creates: false,
            leaves_after: false,
            customers: BTreeMap::from([(user.customer.to_owned(), picked)]),
        });
    }

    /// Returns the changes of databases, sorted.
    pub fn finish(self) -> Vec<DatabaseChange> {
        let mut changes = self.changes;
        for change in &mut changes {
            change.reads_table &= !change.is_new;
        }
        keep_users(&mut changes, |_| true);
        changes.sort_by(|a, b| {
            (a.environment, &a.customer, &a.account, &a.database).cmp(&(
                b.environment,
                &b.customer,
                &b.account,
                &b.database,
            ))
        });
        changes
    }
}

/// Makes changes of databases the only ones of a plan. What comes after an upload waits for the deploy that uploads.
pub(super) fn alone(databases: &mut Vec<DatabaseChange>, changes: &[Change]) {
    let uploads = changes.iter().filter(|change| change.steps.contains(&Step::Upload));
    let uploaded: HashSet<WorkerId> = uploads.map(Change::id).collect();
    databases.retain_mut(|change| {
        change.creates = change.is_new;
        change.leaves_after = change.users.iter().any(|user| uploaded.contains(user));
        if change.leaves_after {
            change.pending.truncate(change.before_upload);
            change.migrations.truncate(change.before_upload);
        }
        !change.pending.is_empty()
    });
}

/// Keeps some of the workers that are bound to databases, and the databases that have any.
pub(super) fn keep_users(databases: &mut Vec<DatabaseChange>, is_kept: impl Fn(&WorkerId) -> bool) {
    databases.retain_mut(|change| {
        change.users.retain(&is_kept);
        change.users.sort();
        change.workers = change.users.iter().map(|(_, name)| name.clone()).collect();
        !change.users.is_empty()
    });
}

/// Removes the databases whose workers were left out of a plan.
pub(super) fn leave_out(databases: &mut Vec<DatabaseChange>, removed: &[(Change, String)]) {
    if !databases.is_empty() && !removed.is_empty() {
        let gone: HashSet<WorkerId> = removed.iter().map(|(change, _)| change.id()).collect();
        keep_users(databases, |user| !gone.contains(user));
    }
}

/// Returns the number of requests that migrations take, by account.
pub(super) fn requests(databases: &[DatabaseChange]) -> BTreeMap<&str, usize> {
    let mut requests = BTreeMap::new();
    for change in databases {
        *requests.entry(change.account.as_str()).or_default() += change.requests();
    }
    requests
}

/// Returns the names of databases whose ids aren't known, by account id.
pub(super) fn names_needed(databases: &[DatabaseChange]) -> impl Iterator<Item = (&String, &String)> {
    let unknown = databases.iter().filter(|change| change.reference.id.is_none());
    unknown.map(|change| (&change.home.account_id, &change.reference.name))
}
