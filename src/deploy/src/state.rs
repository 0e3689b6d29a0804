//! The state: what is deployed and what happened, in SQLite. All SQL is here and in `state/`, plain enough for another
//! database. Doesn't know the platform; never holds a secret.

mod accounts;
mod databases;
mod history;
mod hosts;
mod migration;
mod shadow;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Params, Row, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use flotilla_model::assets::{self, AssetList};
use flotilla_model::binding::OwnWorkflow;
use flotilla_model::bundle::Resource;
use flotilla_model::digest::Digest;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::fingerprint::Fingerprints;
use flotilla_model::lock::Lock;
use flotilla_model::plain_file::{self, HeldFile};
use flotilla_model::platform::Home;
use flotilla_model::reason::Reason;
use flotilla_model::spec::{Environment, QueueConsumer};
use flotilla_model::tags::Triggers;

use crate::rotation::LOST;

pub use databases::{DatabaseId, RecordedDatabase};
use history::insert_record;
pub use history::{Entry, Record, Run, RunId, Stored, deflated};
pub use hosts::{HostTarget, Table};

/// The version of the tables. A file of an older one is brought up to date, one of a newer one is refused.
const VERSION: i64 = 4;
/// Marks the file as flotilla's: "flot" in ASCII.
const APPLICATION: i64 = 0x666c_6f74;
/// The time for which another process may lock the file.
const BUSY: Duration = Duration::from_secs(5);

/// The tables of version 1; `run` came with version 2.
const TABLES: &str = "
CREATE TABLE begun (
    account_id TEXT NOT NULL, namespace TEXT NOT NULL, worker TEXT NOT NULL,
    account TEXT NOT NULL, customer TEXT NOT NULL, environment TEXT NOT NULL, digest TEXT NOT NULL, doubts TEXT NOT NULL,
    run INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, namespace, worker)
);
CREATE TABLE found (account_id TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (account_id, kind, name));
CREATE TABLE keys (name TEXT PRIMARY KEY, value BLOB NOT NULL);
INSERT INTO keys VALUES ('fingerprint', randomblob(32));
";

/// Version 2: what runs is apart from where it runs, once for each content, for rollbacks.
const TABLES_2: &str = "
CREATE TABLE deployed (
    account_id TEXT NOT NULL, namespace TEXT NOT NULL, worker TEXT NOT NULL,
    account TEXT NOT NULL, customer TEXT NOT NULL, environment TEXT NOT NULL,
    digest TEXT NOT NULL, revision INTEGER NOT NULL, deployed_at INTEGER NOT NULL, rejected TEXT NOT NULL,
    drift TEXT NOT NULL, live TEXT NOT NULL,
    PRIMARY KEY (account_id, namespace, worker)
);
CREATE TABLE records (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, at INTEGER NOT NULL,
    account_id TEXT NOT NULL, namespace TEXT NOT NULL, worker TEXT NOT NULL, customer TEXT NOT NULL, environment TEXT NOT NULL,
    action TEXT NOT NULL, digest TEXT NOT NULL, reasons TEXT NOT NULL
);
CREATE INDEX records_of_customers ON records (customer, id);
CREATE INDEX records_of_runs ON records (run, id);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, began INTEGER NOT NULL, ended INTEGER NOT NULL, who TEXT NOT NULL, host TEXT NOT NULL,
    what TEXT NOT NULL, reason TEXT NOT NULL, plan TEXT NOT NULL, outcome TEXT NOT NULL
);
CREATE TABLE bundles (
    digest TEXT PRIMARY KEY, module TEXT NOT NULL, runtime TEXT NOT NULL, runtime_file TEXT NOT NULL, metadata TEXT NOT NULL,
    source BLOB NOT NULL
);
CREATE TABLE objects (digest TEXT PRIMARY KEY, bytes BLOB NOT NULL);
CREATE INDEX deployed_by_digest ON deployed (digest);
CREATE INDEX deployed_by_customer ON deployed (customer);
CREATE INDEX bundles_by_module ON bundles (module);
CREATE INDEX bundles_by_runtime ON bundles (runtime);
";

/// Identifies a worker: its home and its name.
pub type WorkerId = (Home, String);

/// A worker as it is live, as far as the platform acknowledged it.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployed {
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The customer.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// The digest of its bundle.
    pub digest: Digest,
    /// The number of the record that wrote this: shows whether somebody else changed it since it was read.
    pub revision: i64,
    /// The time of the upload, in seconds since 1970.
    pub deployed_at: i64,
    /// The digest that was rolled back: it is not deployed again unless its customer is named.
    pub rejected: Option<Digest>,
    /// The drift that a refresh found: a reason to upload the worker again.
    pub drift: Option<Reason>,
    /// The rest.
    pub live: DeployedResources,
}

/// The resources of a deployed worker, beside its bundle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeployedResources {
    /// The platform's ETag.
    pub etag: String,
    /// The time at which the worker was created, as the platform writes it; none if that isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_on: Option<String>,
    /// Whether it answers on workers.dev.
    pub workers_dev: bool,
    /// Whether each of its versions has an address there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preview_urls: bool,
    /// Custom domains, with their ids.
    pub domains: BTreeMap<String, String>,
    /// Routes, with their zones' and their own ids.
    pub routes: BTreeMap<String, (String, String)>,
    /// Crons.
    pub crons: BTreeSet<String>,
    /// The keyed fingerprint of each secret.
    pub secrets: BTreeMap<String, String>,
    /// The queues that it consumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub consumers: BTreeMap<String, QueueConsumer>,
    /// The workflows of its own, as they were deployed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workflows: BTreeMap<String, OwnWorkflow>,
    /// The tag of the last migration of its Durable Object classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_tag: Option<String>,
    /// Whether it has Durable Object classes of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_objects: bool,
    /// The workers to which it has no bindings yet, because it was created before them and not completed since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

impl DeployedResources {
    /// Returns what points to the worker.
    pub fn triggers(&self) -> Triggers {
        Triggers {
            workers_dev: self.workers_dev,
            preview_urls: self.preview_urls,
            domains: self.domains.keys().cloned().collect(),
            patterns: self.routes.keys().cloned().collect(),
            crons: self.crons.clone(),
            consumers: self.consumers.clone(),
            workflows: self.workflows.clone(),
        }
    }
}

/// A change that was begun and not ended, as far as is known: something in it may be done or not. Without it, a worker whose upload was
/// interrupted would count as what it was before, and reverting the change would do nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct InFlight {
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The customer.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// The digest after the change.
    pub digest: Digest,
    /// The steps whose outcome is unknown.
    pub uncertainties: Vec<Uncertainty>,
    /// The deploy that began it.
    pub run: RunId,
}

/// A step whose outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uncertainty {
    /// The live bundle.
    Upload,
    /// Whether its static assets were uploaded; the next session finds out.
    Assets,
    /// Whether the worker exists.
    Delete,
    /// Whether it answers on workers.dev.
    WorkersDev,
    /// Its crons.
    Crons,
    /// Whether its database was created; a lookup finds out.
    Database,
    /// Whether a queue was created; a lookup finds out.
    Queue,
    /// Whether it consumes a queue, and how.
    Consumer(String),
    /// Whether a workflow of its own is deployed as defined.
    Workflow(String),
    /// Whether it has a domain.
    Domain(String),
    /// Whether it has a route.
    Route {
        /// The pattern.
        pattern: String,
        /// The zone's name, where the route was being added.
        zone: Option<String>,
    },
}

/// The state.
pub struct State {
    db: Connection,
    key: Vec<u8>,
    /// The files that it is written to, the database first; none in memory.
    files: Vec<HeldFile>,
    /// The file of the lock under which it is written.
    lock: Option<HeldFile>,
    /// Whether it has the tables of D1 databases: one that an older version wrote has none, and may be only read.
    has_databases: bool,
}

/// The kinds of resources whose ids are looked up by name once, and cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::AsRefStr)]
#[strum(serialize_all = "lowercase")]
pub enum ResourceKind {
    /// A zone's id.
    Zone,
    /// The account's part of its workers.dev addresses.
    Subdomain,
    /// A D1 database's id.
    Database,
    /// A KV namespace's id.
    #[strum(to_string = "kv")]
    KeyValue,
}

impl ResourceKind {
    /// Returns the kind under which the id of a resource is cached.
    pub fn of(resource: Resource) -> ResourceKind {
        match resource {
            Resource::Database => ResourceKind::Database,
            Resource::Kv => ResourceKind::KeyValue,
        }
    }
}

impl State {
    /// Opens the state, and makes it if it doesn't exist.
    pub fn open(path: &Path) -> Result<State, Failure> {
        if let Some(folder) = path.parent() {
            plain_file::create_folder(folder)
                .map_err(|error| Failure::new(format!("the folder {} can't be created: {error}", folder.display())))?;
        }
        let file = prepare(path).map_err(|error| {
            Failure::new(format!("{} can't be opened for writing: {error}", path.display()))
                .hint("check its permissions and those of its folder")
        })?;
        let mut state = State::open_with(path, OpenFlags::default()).map_err(|error| sqlite_failure(path, error))??;
        // The log and its index exist as long as somebody has the database open.
        let beside = ["-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", path.display())));
        state.files = vec![file];
        state.files.extend(beside.iter().filter_map(|path| HeldFile::at(path).ok()));
        state.verify_file()?;
        Ok(state)
    }

    /// An empty state in memory: for a plan where nothing was deployed yet.
    pub fn in_memory() -> State {
        State::open_with(Path::new(":memory:"), OpenFlags::default())
            .expect("BUG: a database in memory opens")
            .expect("BUG: a new database has our version")
    }

    /// Returns whether there is a state.
    ///
    /// # Errors
    /// It can't be determined: a folder that can't be read must not count as empty, which would mean that nothing is deployed.
    pub fn exists(path: &Path) -> Result<bool, Failure> {
        path.try_exists().map_err(|error| {
            Failure::new(format!("{} can't be read: {error}", path.display()))
                .hint("run flotilla as the user that deploys, or give your user access to the folder")
        })
    }

    /// Opens the state if it is there, without changing anything.
    pub fn read(path: &Path) -> Result<State, Failure> {
        if !State::exists(path)? {
            return Ok(State::in_memory());
        }
        // To SQLite, this is an error of the disk.
        if path.is_dir() {
            return Err(Failure::new(format!("{} is a folder, not a file with the state", path.display())).hint(
                "remove it if nothing needs it; `flotilla state rebuild` creates a new state from what is deployed",
            ));
        }
        State::open_with(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| sqlite_failure(path, error))?
    }

    fn open_with(path: &Path, flags: OpenFlags) -> rusqlite::Result<Result<State, Failure>> {
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY)?;
        let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let application: i64 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
        let writable = flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE);
        if tables == 0 && version == 0 && writable {
            // One transaction: a process that is killed here leaves an empty file, and two that begin at once
            // make one set of tables.
            db.execute_batch("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE")?;
            let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
            if tables == 0 {
                db.execute_batch(TABLES)?;
                db.execute_batch(TABLES_2)?;
                db.execute_batch(hosts::TABLE)?;
                db.execute_batch(accounts::TABLE)?;
                db.execute_batch(history::SOURCES)?;
                db.pragma_update(None, "application_id", APPLICATION)?;
                db.pragma_update(None, "user_version", VERSION)?;
            }
            db.execute_batch("COMMIT")?;
        } else if tables == 0 {
            return Ok(Ok(State::in_memory()));
        } else if application != APPLICATION {
            return Ok(Err(Failure::new(format!("{} is a database of another program", path.display()))
                .hint("move it away, and run the command again")));
        } else if version > VERSION {
            return Ok(Err(Failure::new(format!(
                "{} was written by a newer flotilla (its tables have version {version}, and this flotilla supports {VERSION})",
                path.display()
            ))
            .hint("update flotilla on this machine: an older one could lose what the newer one recorded")));
        } else if version < VERSION {
            if !writable {
                drop(db);
                return State::open_with(path, OpenFlags::default());
            }
            migration::migrate(&db)?;
        }
        if writable {
            db.execute_batch(history::INDEX)?;
            db.execute_batch(databases::TABLES)?;
        }
        let has_databases = writable || databases::exist(&db)?;
        // A record must survive a power failure: it contains what was acknowledged.
        db.pragma_update(None, "synchronous", "FULL")?;
        db.set_prepared_statement_cache_capacity(64);
        let key = db.query_row("SELECT value FROM keys WHERE name = 'fingerprint'", [], |row| row.get(0))?;
        Ok(Ok(State { db, key, files: Vec::new(), lock: None, has_databases }))
    }

    /// Notes the lock under which the state is written: without its file, another deploy could begin beside this one.
    pub fn rely_on(&mut self, lock: Option<&Lock>) {
        self.lock = lock.and_then(Lock::held_file);
    }

    /// Fails if a file was deleted or replaced since it was opened: SQLite would continue to write to a file that nobody can open any more.
    fn verify_file(&self) -> Result<(), Failure> {
        let gone = |file: &&HeldFile| !file.has_its_name();
        let (file, what, next) = if let Some(file) = self.files.iter().find(gone) {
            let next = "then run `flotilla state rebuild`, which reads from the workers' tags what is deployed";
            (file, "the last acknowledged changes are not recorded in it", next)
        } else if let Some(file) = self.lock.iter().find(gone) {
            let next = "make sure that no other deploy of this project is running, then run the same command again: it continues";
            (file, "another deploy may have begun in the meantime", next)
        } else {
            return Ok(());
        };
        let name = file.path().display();
        let failure = Failure::new(format!("{name} was deleted or replaced while it was in use: {what}"));
        Err(Failure { exit: Exit::SomeFailed, ..failure }
            .hint("flotilla begins no further changes; requests that were sent may still be carried out")
            .hint(next))
    }

    /// Several writes as one: all of them or none, and one wait for the disk.
    pub fn all<T>(&mut self, write: impl FnOnce(&mut State) -> Result<T, Failure>) -> Result<T, Failure> {
        self.open_batch()?;
        match write(self) {
            Ok(done) => self.close_batch().map(|()| done),
            Err(failure) => {
                let _ = self.db.execute_batch("ROLLBACK");
                Err(failure)
            }
        }
    }

    /// Begins a batch of writes: on disk as one, when it is closed.
    pub fn open_batch(&mut self) -> Result<(), Failure> {
        self.verify_file()?;
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(|error| self.failure(error))
    }

    /// Ends a batch. What it can't write, it undoes.
    pub fn close_batch(&mut self) -> Result<(), Failure> {
        self.db.execute_batch("COMMIT").map_err(|error| {
            let failure = self.failure(error);
            let _ = self.db.execute_batch("ROLLBACK");
            failure
        })?;
        self.verify_file()
    }

    /// Returns all live workers, in memory: for fleets and commands that look at few; see [`State::each`].
    pub fn deployed(&self) -> Result<BTreeMap<WorkerId, Deployed>, Failure> {
        let mut all = BTreeMap::new();
        self.each(|id, deployed| _ = all.insert(id, deployed))?;
        Ok(all)
    }

    /// Calls `visit` for each live worker.
    pub fn each(&self, mut visit: impl FnMut(WorkerId, Deployed)) -> Result<(), Failure> {
        let mut read = || -> rusqlite::Result<()> {
            let mut statement = self.db.prepare_cached(&format!("SELECT {DEPLOYED} FROM deployed"))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                visit(worker_id(row)?, deployed_of(row)?);
            }
            Ok(())
        };
        read().map_err(|error| self.failure(error))
    }

    /// The live workers of a customer.
    pub fn of_customer(&self, customer: &str) -> Result<Vec<(WorkerId, Deployed)>, Failure> {
        let sql = format!("SELECT {DEPLOYED} FROM deployed WHERE customer = ? ORDER BY environment, worker");
        self.rows(&sql, [customer], |row| Ok((worker_id(row)?, deployed_of(row)?)))
    }

    /// A live worker.
    pub fn one(&self, (home, worker): &WorkerId) -> Result<Option<Deployed>, Failure> {
        let sql = format!("SELECT {DEPLOYED} FROM deployed WHERE account_id = ? AND namespace = ? AND worker = ?");
        self.row(&sql, params![home.account_id, namespace(home), worker], deployed_of)
    }

    /// The changes that were begun and not ended.
    pub fn in_flight(&self) -> Result<BTreeMap<WorkerId, InFlight>, Failure> {
        self.rows(&format!("SELECT {IN_FLIGHT} FROM begun"), [], |row| Ok((worker_id(row)?, begun_of(row)?)))
    }

    /// Returns the change in flight of a worker, if there is one.
    pub fn in_flight_of(&self, (home, worker): &WorkerId) -> Result<Option<InFlight>, Failure> {
        let sql = format!("SELECT {IN_FLIGHT} FROM begun WHERE account_id = ? AND namespace = ? AND worker = ?");
        self.row(&sql, params![home.account_id, namespace(home), worker], begun_of)
    }

    /// Notes that a change begins, before its first request is sent.
    pub fn begin(&mut self, id: &WorkerId, in_flight: &InFlight) -> Result<(), Failure> {
        let ((home, worker), InFlight { account, customer, environment, run, .. }) = (id, in_flight);
        let digest = in_flight.digest.to_string();
        let doubts = serde_json::to_string(&in_flight.uncertainties).expect("BUG: doubts are JSON");
        let (namespace, environment) = (namespace(home), environment.as_ref());
        let values = params![home.account_id, namespace, worker, account, customer, environment, digest, doubts, run.0];
        self.run("INSERT OR REPLACE INTO begun VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    }

    /// Notes which steps of a change that was begun are uncertain: usually none.
    pub fn settle(&mut self, id: &WorkerId, left: &[Uncertainty]) -> Result<(), Failure> {
        settle(&self.db, id, left).map_err(|error| self.failure(error))
    }

    /// Returns the list of static assets of a bundle, if it has any and it is still kept.
    ///
    /// # Errors
    /// When the database fails.
    pub fn assets_of(&self, stored: &Stored) -> Result<Option<AssetList>, Failure> {
        let Some(digests) = assets::digests_of(&stored.metadata) else { return Ok(None) };
        let bytes = self.object(&digests.list)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Returns the id of a name, if it was found out earlier.
    pub fn cached_id(&self, account_id: &str, kind: ResourceKind, name: &str) -> Result<Option<String>, Failure> {
        let sql = "SELECT id FROM found WHERE account_id = ? AND kind = ? AND name = ?";
        self.row(sql, [account_id, kind.as_ref(), name], |row| row.get(0))
    }

    /// Keeps the id of a name for later runs.
    pub fn cache_id(&mut self, account_id: &str, kind: ResourceKind, name: &str, id: &str) -> Result<(), Failure> {
        self.run("INSERT OR REPLACE INTO found VALUES (?, ?, ?, ?)", [account_id, kind.as_ref(), name, id])
    }

    /// Drops the id of a name, because it is no longer valid.
    pub fn forget_id(&mut self, account_id: &str, kind: ResourceKind, name: &str) -> Result<(), Failure> {
        let sql = "DELETE FROM found WHERE account_id = ? AND kind = ? AND name = ?";
        self.run(sql, [account_id, kind.as_ref(), name])
    }

    /// Notes that the platform has lost these secrets of a live worker, so that the next plan sends them again.
    pub fn mark_lost_secrets(&mut self, id: &WorkerId, bindings: &BTreeSet<String>) -> Result<(), Failure> {
        let Some(mut deployed) = self.one(id)? else { return Ok(()) };
        let secrets = deployed.live.secrets.iter_mut().filter(|(binding, _)| bindings.contains(*binding));
        secrets.for_each(|(_, fingerprint)| LOST.clone_into(fingerprint));
        let live = serde_json::to_string(&deployed.live).expect("BUG: what is live is JSON");
        let (home, worker) = id;
        let sql = "UPDATE deployed SET live = ? WHERE account_id = ? AND namespace = ? AND worker = ?";
        self.run(sql, params![live, home.account_id, namespace(home), worker])
    }

    /// Returns the fingerprinter of secrets.
    pub fn fingerprints(&self) -> Fingerprints {
        Fingerprints::new(&self.key)
    }

    /// Returns the rows of a query, collected.
    fn rows<T, C: FromIterator<T>>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<C, Failure> {
        let rows = || -> rusqlite::Result<C> { self.db.prepare_cached(sql)?.query_map(values, read)?.collect() };
        rows().map_err(|error| self.failure(error))
    }

    /// Returns the row of a query, if there is one.
    fn row<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Failure> {
        let row = || self.db.prepare_cached(sql)?.query_row(values, read).optional();
        row().map_err(|error| self.failure(error))
    }

    /// Executes a statement that changes rows.
    fn run(&self, sql: &str, values: impl Params) -> Result<(), Failure> {
        if self.db.is_autocommit() {
            self.verify_file()?;
        }
        let run = || self.db.prepare_cached(sql)?.execute(values);
        run().map(drop).map_err(|error| self.failure(error))
    }

    fn failure(&self, error: rusqlite::Error) -> Failure {
        sqlite_failure(self.path().as_ref(), error)
    }

    fn path(&self) -> String {
        self.db.path().filter(|path| !path.is_empty()).unwrap_or("the state").to_owned()
    }
}

/// Creates the file if it doesn't exist, and makes it and SQLite's files beside it private. SQLite gives those that it creates the
/// permissions of the file itself.
fn prepare(path: &Path) -> io::Result<HeldFile> {
    let file = plain_file::open_with(path, File::options().read(true).write(true).create(true))?;
    for end in ["", "-wal", "-shm", "-journal"] {
        plain_file::make_private(&PathBuf::from(format!("{}{end}", path.display())));
    }
    HeldFile::of(&file, path)
}

/// The columns of a live worker.
const DEPLOYED: &str = "account_id, namespace, worker, account, customer, environment, digest, revision, deployed_at, rejected, drift, live";

fn deployed_of(row: &Row<'_>) -> rusqlite::Result<Deployed> {
    Ok(Deployed {
        account: row.get(3)?,
        customer: row.get(4)?,
        environment: environment_of(row, 5)?,
        digest: digest_of(row, 6)?,
        revision: row.get(7)?,
        deployed_at: row.get(8)?,
        rejected: Digest::parse(&row.get::<_, String>(9)?),
        drift: drift_of(row, 10)?,
        live: json_of(row, 11)?,
    })
}

/// The columns of what was begun.
const IN_FLIGHT: &str = "account_id, namespace, worker, account, customer, environment, digest, doubts, run";

fn begun_of(row: &Row<'_>) -> rusqlite::Result<InFlight> {
    Ok(InFlight {
        account: row.get(3)?,
        customer: row.get(4)?,
        environment: environment_of(row, 5)?,
        digest: digest_of(row, 6)?,
        uncertainties: json_of(row, 7)?,
        run: RunId(row.get(8)?),
    })
}

fn namespace(home: &Home) -> &str {
    home.namespace.as_deref().unwrap_or_default()
}

fn settle(db: &Connection, (home, worker): &WorkerId, left: &[Uncertainty]) -> rusqlite::Result<()> {
    let namespace = namespace(home);
    if left.is_empty() {
        db.prepare_cached("DELETE FROM begun WHERE account_id = ? AND namespace = ? AND worker = ?")?
            .execute(params![home.account_id, namespace, worker])?;
    } else {
        let uncertainties = serde_json::to_string(left).expect("BUG: doubts are JSON");
        db.prepare_cached("UPDATE begun SET doubts = ? WHERE account_id = ? AND namespace = ? AND worker = ?")?
            .execute(params![uncertainties, home.account_id, namespace, worker])?;
    }
    Ok(())
}

/// The worker that a row is about: its first three columns.
fn worker_id(row: &Row<'_>) -> rusqlite::Result<WorkerId> {
    let namespace = Some(row.get(1)?).filter(|name: &String| !name.is_empty());
    Ok((Home { account_id: row.get(0)?, namespace }, row.get(2)?))
}

fn environment_of(row: &Row<'_>, at: usize) -> rusqlite::Result<Environment> {
    serde_json::from_value(Value::String(row.get(at)?)).map_err(|_| odd(at, "no environment"))
}

fn digest_of(row: &Row<'_>, at: usize) -> rusqlite::Result<Digest> {
    Digest::parse(&row.get::<_, String>(at)?).ok_or_else(|| odd(at, "no digest"))
}

fn json_of<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(at)?).map_err(|error| odd(at, &error.to_string()))
}

/// Reads drift: empty where there is none.
fn drift_of(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Reason>> {
    if row.get::<_, String>(at)?.is_empty() { Ok(None) } else { json_of(row, at).map(Some) }
}

/// A column with a value that flotilla didn't write.
fn odd(at: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, what.to_owned().into())
}

/// Returns the failure for an error of SQLite, with a hint on how to fix it.
fn sqlite_failure(path: &Path, error: rusqlite::Error) -> Failure {
    let name = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Failure::refused(format!("{name} is in use by another process"))
                .hint("wait for it to end, and run the command again")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(path, &error),
        Some(ErrorCode::DiskFull) => Failure::new(format!("the disk is full: {name} can't be written"))
            .hint("free some space, and run the command again: acknowledged changes are recorded, and the others are repeated"),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Failure::new(format!("{name} can't be opened for writing: {error}"))
                .hint("check its permissions and those of its folder")
        }
        None => damaged(path, &error),
        _ => Failure::new(format!("{name}: {error}")),
    }
}

fn damaged(path: &Path, error: &rusqlite::Error) -> Failure {
    let name = path.display();
    Failure::new(format!("{name} is damaged: {error}")).hint(format!(
        "move it away (`mv {name} {name}.damaged`) and run `flotilla state rebuild`, or deploy again: both list what Cloudflare runs"
    ))
}

#[cfg(test)]
mod tests;
