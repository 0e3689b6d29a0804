//! The resources of the account, in one SQLite file: workers, versions, modules by content, and the tables of the
//! other modules. Knows rows; not HTTP.
//!
//! A worker outside a dispatch namespace has the namespace `''`. The bodies of modules are stored once by their sha256, so a runtime that
//! ten thousand workers share is stored, and nearly always hashed, once.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Params, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::envelope::Refusal;
use super::seal::{Seal, digest};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account (id TEXT PRIMARY KEY, subdomain TEXT NOT NULL UNIQUE, workers INTEGER NOT NULL DEFAULT 0)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS zone (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, account TEXT NOT NULL, created TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS zone_setting (zone TEXT NOT NULL, id TEXT NOT NULL, value TEXT NOT NULL, modified TEXT NOT NULL,
    PRIMARY KEY (zone, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS zone_plan (zone TEXT PRIMARY KEY, plan TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (number INTEGER PRIMARY KEY, account TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS audit_at ON audit (account, at);
CREATE TABLE IF NOT EXISTS worker (
    id INTEGER PRIMARY KEY, account TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL,
    created TEXT NOT NULL, modified TEXT NOT NULL, source TEXT NOT NULL, version TEXT, enabled INTEGER NOT NULL,
    previews INTEGER NOT NULL, settings TEXT NOT NULL, libsql TEXT, UNIQUE (account, namespace, name));
CREATE TRIGGER IF NOT EXISTS worker_came AFTER INSERT ON worker WHEN NEW.namespace = '' BEGIN
    UPDATE account SET workers = workers + 1 WHERE id = NEW.account; END;
CREATE TRIGGER IF NOT EXISTS worker_went AFTER DELETE ON worker WHEN OLD.namespace = '' BEGIN
    UPDATE account SET workers = workers - 1 WHERE id = OLD.account; END;
CREATE INDEX IF NOT EXISTS worker_name ON worker (name);
CREATE INDEX IF NOT EXISTS worker_libsql ON worker (libsql) WHERE libsql IS NOT NULL;
CREATE TABLE IF NOT EXISTS version (
    id TEXT PRIMARY KEY, worker INTEGER NOT NULL REFERENCES worker ON DELETE CASCADE, number INTEGER NOT NULL,
    body TEXT NOT NULL, UNIQUE (worker, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deployment (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, worker INTEGER NOT NULL REFERENCES worker ON DELETE CASCADE,
    body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS deployment_worker ON deployment (worker, number);
CREATE TABLE IF NOT EXISTS module (hash TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS asset (
    scope TEXT NOT NULL, hash TEXT NOT NULL, type TEXT, body BLOB NOT NULL, PRIMARY KEY (scope, hash));
CREATE TABLE IF NOT EXISTS asset_list (id TEXT PRIMARY KEY, scope TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS asset_session (
    token TEXT PRIMARY KEY, account TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, list TEXT NOT NULL,
    expires INTEGER NOT NULL, complete INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS route (
    id TEXT PRIMARY KEY, zone TEXT NOT NULL, pattern TEXT NOT NULL UNIQUE, account TEXT NOT NULL, script TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS route_zone ON route (zone);
CREATE INDEX IF NOT EXISTS route_script ON route (account, script);
CREATE TABLE IF NOT EXISTS domain (
    id TEXT PRIMARY KEY, hostname TEXT NOT NULL UNIQUE, account TEXT NOT NULL, service TEXT NOT NULL, environment TEXT NOT NULL,
    zone TEXT NOT NULL, zone_name TEXT NOT NULL, cert TEXT NOT NULL, enabled INTEGER NOT NULL, previews INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS domain_service ON domain (account, service);
CREATE INDEX IF NOT EXISTS domain_zone ON domain (zone);
CREATE TABLE IF NOT EXISTS schedule (
    account TEXT NOT NULL, script TEXT NOT NULL, cron TEXT NOT NULL, created TEXT NOT NULL, modified TEXT NOT NULL,
    PRIMARY KEY (account, script, cron)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS object_class (
    worker INTEGER NOT NULL REFERENCES worker ON DELETE CASCADE, class TEXT NOT NULL, id TEXT NOT NULL, sqlite INTEGER NOT NULL,
    PRIMARY KEY (worker, class)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL, created TEXT NOT NULL, UNIQUE (account, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS consumer (
    id TEXT PRIMARY KEY, queue TEXT NOT NULL UNIQUE REFERENCES queue ON DELETE CASCADE, script TEXT NOT NULL, body TEXT NOT NULL,
    created TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL, queue TEXT NOT NULL REFERENCES queue ON DELETE CASCADE, kind TEXT NOT NULL,
    body BLOB NOT NULL, sent INTEGER NOT NULL, due INTEGER NOT NULL, attempts INTEGER NOT NULL, taken INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS message_due ON message (queue, taken, due);
CREATE TABLE IF NOT EXISTS workflow (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL, script TEXT NOT NULL, class TEXT NOT NULL, body TEXT NOT NULL,
    created TEXT NOT NULL, modified TEXT NOT NULL, UNIQUE (account, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS namespace (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL, created TEXT NOT NULL, modified TEXT NOT NULL,
    trusted INTEGER NOT NULL, UNIQUE (account, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS d1 (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL, created TEXT NOT NULL, jurisdiction TEXT,
    replication TEXT NOT NULL, UNIQUE (account, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kv_namespace (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, title TEXT NOT NULL, UNIQUE (account, title)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kv (
    namespace TEXT NOT NULL REFERENCES kv_namespace ON DELETE CASCADE, name TEXT NOT NULL, value BLOB NOT NULL,
    metadata TEXT, expiration INTEGER, PRIMARY KEY (namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS r2 (
    bucket TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, etag TEXT NOT NULL, version TEXT NOT NULL,
    uploaded INTEGER NOT NULL, http TEXT NOT NULL, custom TEXT NOT NULL, PRIMARY KEY (bucket, name));
";

/// Bodies from this size on are remembered, to be recognised without hashing them again.
const LARGE: usize = 32 << 10;
/// The number of large bodies that are remembered: the bundles of a few packs.
const REMEMBERED: usize = 8;

/// The database, the key of its secrets, and the large modules last seen.
#[derive(Debug)]
pub struct Store {
    db: Mutex<Connection>,
    /// Seals secrets and makes ids.
    pub seal: Seal,
    large: Mutex<Vec<(Vec<u8>, String)>>,
    generation: AtomicU64,
}

/// Returns the reason why a database can't be opened: that it is no database, or that its folder can't be written to.
fn cannot_open(error: rusqlite::Error, file: &Path) -> anyhow::Error {
    let file = file.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            anyhow::Error::from(error).context(format!("{file} isn't a database of the local Cloudflare emulator"))
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            let error = std::io::Error::new(std::io::ErrorKind::PermissionDenied, error);
            anyhow::Error::from(error).context(format!("{file} can't be written"))
        }
        _ => anyhow::Error::from(error).context(format!("{file} can't be opened")),
    }
}

impl Store {
    /// Opens or creates `cloudflare.db` and `key` in `folder`.
    ///
    /// # Errors
    /// When a file can't be opened or isn't what it should be.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("can't create {}", folder.display()))?;
        let file = folder.join("cloudflare.db");
        let db = Connection::open(&file).map_err(|error| cannot_open(error, &file))?;
        // Nothing here is worth an fsync per upload: a killed process loses nothing, a power cut the last writes.
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;")
            .and_then(|()| db.execute_batch(SCHEMA))
            .map_err(|error| cannot_open(error, &file))?;
        db.set_prepared_statement_cache_capacity(128);
        let seal = Seal::open(&folder.join("key"))?;
        let store = Self { db: Mutex::new(db), seal, large: Mutex::default(), generation: AtomicU64::new(0) };
        store.sweep().context("can't drop unused modules")?;
        Ok(store)
    }

    /// Runs `work` on the database.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Refusal>) -> Result<T, Refusal> {
        work(&self.db.lock())
    }

    /// Runs `work` in one transaction, which is rolled back when it fails.
    ///
    /// # Errors
    /// Those of `work`, and of the database.
    pub fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut db = self.db.lock();
        let transaction = db.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        self.generation.fetch_add(1, Ordering::Relaxed);
        Ok(done)
    }

    /// Returns a number that is greater after each change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The sha256 of a module's body. A large body that was seen lately is recognised by comparing, which is ten times
    /// cheaper than hashing it.
    #[must_use]
    pub fn hash(&self, body: &[u8]) -> String {
        if body.len() < LARGE {
            return digest(body);
        }
        let mut large = self.large.lock();
        if let Some(at) = large.iter().position(|(known, _)| known == body) {
            large[..=at].rotate_right(1);
            return large[0].1.clone();
        }
        let hash = digest(body);
        large.truncate(REMEMBERED - 1);
        large.insert(0, (body.to_vec(), hash.clone()));
        hash
    }

    /// Drops modules that no version names. Done at the start only: it reads every version.
    fn sweep(&self) -> Result<(), rusqlite::Error> {
        let db = self.db.lock();
        db.execute(
            "DELETE FROM module WHERE hash NOT IN
             (SELECT json_extract(part.value, '$.hash') FROM version, json_each(version.body, '$.modules') AS part)",
            [],
        )?;
        Ok(())
    }
}

/// Returns the rows of a query.
///
/// # Errors
/// When the database fails.
pub fn rows<T>(
    db: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Refusal> {
    Ok(db.prepare_cached(sql)?.query_map(parameters, read)?.collect::<Result<_, _>>()?)
}

/// Returns the row of a query, if there is one.
///
/// # Errors
/// When the database fails.
pub fn row<T>(
    db: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, Refusal> {
    Ok(db.prepare_cached(sql)?.query_row(parameters, read).optional()?)
}

/// Returns whether a query has a row.
///
/// # Errors
/// When the database fails.
pub fn has(db: &Connection, sql: &str, parameters: impl Params) -> Result<bool, Refusal> {
    Ok(db.prepare_cached(sql)?.exists(parameters)?)
}

/// Executes a statement that changes rows.
///
/// # Errors
/// When the database fails.
pub fn run(db: &Connection, sql: &str, parameters: impl Params) -> Result<(), Refusal> {
    db.prepare_cached(sql)?.execute(parameters)?;
    Ok(())
}

/// The identity of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The account's id.
    pub account: String,
    /// The dispatch namespace, or `""`.
    pub namespace: String,
    /// The worker's name.
    pub name: String,
}

impl Key {
    /// Returns the key of a worker outside dispatch namespaces.
    #[must_use]
    pub fn of_account(account: &str, name: &str) -> Key {
        Key::new(account, "", name)
    }

    /// Returns the key of a worker.
    #[must_use]
    pub fn new(account: &str, namespace: &str, name: &str) -> Key {
        Key { account: account.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// A worker, without its versions.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Row in the database.
    pub id: i64,
    /// Account, namespace and name.
    pub key: Key,
    /// Its immutable id.
    pub tag: String,
    /// The time at which it was created, RFC 3339.
    pub created: String,
    /// The time at which anything about it last changed, RFC 3339.
    pub modified: String,
    /// The client that deployed it last: `wrangler`, `api`, …
    pub source: String,
    /// The version that serves, if any is deployed.
    pub version: Option<String>,
    /// Whether it is served on workers.dev.
    pub enabled: bool,
    /// Its versions have preview URLs.
    pub previews: bool,
    /// The settings that aren't versioned: `tags`, `logpush`, `observability`, `tail_consumers`; and the tag of the last migration.
    pub settings: Map<String, Value>,
}

impl Worker {
    /// Returns its tags.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        let tags = self.settings.get("tags").and_then(Value::as_array);
        tags.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
    }
}

/// One uploaded version of a worker.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Version {
    /// Its UUID.
    pub id: String,
    /// 1 for the first of the worker.
    pub number: i64,
    /// The time at which it was created, RFC 3339.
    pub created: String,
    /// The client that created it: `wrangler`, `api`.
    pub source: String,
    /// The hash of the modules. Cloudflare doesn't document its own.
    pub etag: String,
    /// The entry module.
    pub main: String,
    /// The entry is a service-worker script and not an ES module.
    pub classic: bool,
    /// The modules, the entry first.
    pub modules: Vec<Module>,
    /// The bindings, with secrets sealed under `sealed` instead of `text`.
    pub bindings: Vec<Value>,
    /// The fields of the upload among: `compatibility_date`, `compatibility_flags`, `annotations`, `limits`,
    /// `placement`, `usage_model`.
    pub options: Map<String, Value>,
    /// The static assets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assets: Option<VersionAssets>,
    /// The exports of the code, if workerd loaded it: handlers of the default export.
    pub handlers: Option<Vec<String>>,
    /// Named exports with their handlers, if workerd loaded it.
    pub named_handlers: Vec<Value>,
    /// Milliseconds that workerd took to load it, 0 if it didn't.
    pub startup_ms: u64,
}

/// The assets of a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VersionAssets {
    /// The id of their list.
    pub list: String,
    /// The configuration, as it was sent.
    pub config: Value,
}

/// One module of a version; its body is in the table `module`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Module {
    /// Path by which other modules import it.
    pub name: String,
    /// Content type as uploaded.
    pub content_type: String,
    /// sha256 of the body.
    pub hash: String,
    /// Bytes.
    pub size: usize,
}

const WORKER: &str = "SELECT id, account, namespace, name, tag, created, modified, source, version, enabled, previews, settings FROM worker";

fn worker(row: &Row<'_>) -> rusqlite::Result<Worker> {
    Ok(Worker {
        id: row.get(0)?,
        key: Key { account: row.get(1)?, namespace: row.get(2)?, name: row.get(3)? },
        tag: row.get(4)?,
        created: row.get(5)?,
        modified: row.get(6)?,
        source: row.get(7)?,
        version: row.get(8)?,
        enabled: row.get(9)?,
        previews: row.get(10)?,
        settings: serde_json::from_str(&row.get::<_, String>(11)?).unwrap_or_default(),
    })
}

/// The worker of that key, if it exists.
///
/// # Errors
/// When the database fails.
pub fn find(db: &Connection, key: &Key) -> Result<Option<Worker>, Refusal> {
    let sql = format!("{WORKER} WHERE account = ?1 AND namespace = ?2 AND name = ?3");
    row(db, &sql, [&key.account, &key.namespace, &key.name], worker)
}

/// The worker of that key.
///
/// # Errors
/// 404: 10007 for a worker of the account, 10092 for one of a namespace (the code that wrangler expects there).
pub fn get(db: &Connection, key: &Key) -> Result<Worker, Refusal> {
    find(db, key)?.ok_or_else(|| match key.namespace.as_str() {
        "" => Refusal::no_worker(),
        namespace => Refusal::new(404, 10092, format!("no script {} in the dispatch namespace {namespace}", key.name)),
    })
}

/// Returns all workers of an account's namespace (`""`: of none), by name.
///
/// # Errors
/// When the database fails.
pub fn list(db: &Connection, account: &str, namespace: &str) -> Result<Vec<Worker>, Refusal> {
    rows(db, &format!("{WORKER} WHERE account = ?1 AND namespace = ?2 ORDER BY name"), [account, namespace], worker)
}

/// The deployed workers of any account that have this name, those outside a namespace first.
///
/// # Errors
/// When the database fails.
pub fn named(db: &Connection, name: &str) -> Result<Vec<Worker>, Refusal> {
    let sql = format!("{WORKER} WHERE name = ?1 AND version IS NOT NULL ORDER BY namespace != '', modified DESC");
    rows(db, &sql, [name], worker)
}

/// Every deployed worker, by account and name, and the workers whose TURSO_DATABASE_URL names `libsql` if that is given.
///
/// # Errors
/// When the database fails.
pub fn deployed(db: &Connection, libsql: Option<&str>) -> Result<Vec<Worker>, Refusal> {
    let deployed = format!("{WORKER} WHERE version IS NOT NULL");
    match libsql {
        None => rows(db, &format!("{deployed} ORDER BY account, namespace, name"), [], worker),
        Some(host) => rows(db, &format!("{deployed} AND libsql = ?1"), [host], worker),
    }
}

/// One version of a worker.
///
/// # Errors
/// 404 (10222) when the worker has no such version.
pub fn version(db: &Connection, worker: i64, id: &str) -> Result<Version, Refusal> {
    let sql = "SELECT body FROM version WHERE worker = ?1 AND id = ?2";
    let body: Option<String> = row(db, sql, params![worker, id], |row| row.get(0))?;
    body.and_then(|body| serde_json::from_str(&body).ok())
        .ok_or_else(|| Refusal::new(404, 10222, format!("this Worker has no version {id}")))
}

/// The version of a worker that serves, if any is deployed.
///
/// # Errors
/// When the database fails.
pub fn serving(db: &Connection, worker: &Worker) -> Result<Option<Version>, Refusal> {
    worker.version.as_deref().map(|id| version(db, worker.id, id)).transpose()
}

/// The newest `count` versions of a worker, newest first.
///
/// # Errors
/// When the database fails.
pub fn versions(db: &Connection, worker: i64, count: i64) -> Result<Vec<Version>, Refusal> {
    let sql = "SELECT body FROM version WHERE worker = ?1 ORDER BY number DESC LIMIT ?2";
    let bodies: Vec<String> = rows(db, sql, [worker, count], |row| row.get(0))?;
    Ok(bodies.iter().filter_map(|body| serde_json::from_str(body).ok()).collect())
}

/// The newest version of a worker, deployed or not: what the next upload inherits from.
///
/// # Errors
/// When the database fails.
pub fn latest(db: &Connection, worker: i64) -> Result<Option<Version>, Refusal> {
    Ok(versions(db, worker, 1)?.pop())
}

/// The body of a stored module.
///
/// # Errors
/// When the database fails or holds no such module.
pub fn module(db: &Connection, hash: &str) -> Result<Vec<u8>, Refusal> {
    Ok(db.prepare_cached("SELECT body FROM module WHERE hash = ?1")?.query_row([hash], |row| row.get(0))?)
}

/// Stores a module's body unless it is there.
///
/// # Errors
/// When the database fails.
pub fn keep_module(db: &Connection, hash: &str, body: &[u8]) -> Result<(), Refusal> {
    if has(db, "SELECT 1 FROM module WHERE hash = ?1", [hash])? {
        return Ok(());
    }
    run(db, "INSERT INTO module (hash, body) VALUES (?1, ?2)", params![hash, body])
}

/// Writes a worker's unversioned fields and its time of change.
///
/// # Errors
/// When the database fails.
pub fn save(db: &Connection, worker: &Worker, now: &str) -> Result<(), Refusal> {
    let settings = Value::Object(worker.settings.clone()).to_string();
    let sql = "UPDATE worker SET modified = ?2, enabled = ?3, previews = ?4, settings = ?5 WHERE id = ?1";
    run(db, sql, params![worker.id, now, worker.enabled, worker.previews, settings])
}

/// Returns the count that a query selects.
///
/// # Errors
/// When the database fails.
pub fn count(db: &Connection, sql: &str, parameters: &[&str]) -> Result<u64, Refusal> {
    let count: i64 = db.prepare_cached(sql)?.query_row(rusqlite::params_from_iter(parameters), |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// A Durable Object class of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// The id of its namespace, under which its objects are stored.
    pub id: String,
    /// Whether they are stored in SQLite.
    pub sqlite: bool,
}

/// The classes of a worker.
///
/// # Errors
/// When the database fails.
pub fn classes(db: &Connection, worker: i64) -> Result<Vec<Class>, Refusal> {
    let sql = "SELECT class, id, sqlite FROM object_class WHERE worker = ?1 ORDER BY class";
    rows(db, sql, [worker], |row| Ok(Class { name: row.get(0)?, id: row.get(1)?, sqlite: row.get(2)? }))
}
