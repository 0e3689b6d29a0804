//! The history: records of actions, deploys, and the bundles that can be rolled back to, each content once.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Deployed, State, Uncertainty, WorkerId, digest_of, environment_of, json_of, namespace, settle, worker_id};
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::reason::Reason;
use flotilla_model::spec::Environment;

/// The table of what bundles were made from, for workers that have another source than the first worker with the same bundle.
pub(super) const SOURCES: &str = "
CREATE TABLE IF NOT EXISTS sources (
    digest TEXT NOT NULL, account_id TEXT NOT NULL, namespace TEXT NOT NULL, worker TEXT NOT NULL, source BLOB NOT NULL,
    PRIMARY KEY (digest, account_id, namespace, worker)
) WITHOUT ROWID;
";

/// The index by which it is found whether a bundle still has a list of static assets.
pub(super) const INDEX: &str =
    "CREATE INDEX IF NOT EXISTS bundles_by_assets ON bundles (json_extract(metadata, '$.assets.list'))";

/// Identifies a deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RunId(pub i64);

/// A deploy, running or ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// The time at which it began, in seconds since 1970.
    pub began: i64,
    /// The time at which it ended; 0 while it runs, or if it was killed.
    pub ended: i64,
    /// The user.
    pub who: String,
    /// The machine.
    pub host: String,
    /// The command: `deploy`, `rollback`, `prune`.
    pub what: String,
    /// The reason, if the person who ordered it gave one.
    pub reason: String,
    /// The digest of its plan.
    pub plan: String,
    /// Its outcome, once it ended.
    pub outcome: Value,
}

/// The entry that is recorded with a write.
pub struct Entry<'a> {
    /// The deploy that it belongs to.
    pub run: RunId,
    /// The time, in seconds since 1970.
    pub at: i64,
    /// The action: `create`, `update`, `attach domain`.
    pub action: &'a str,
    /// The reasons.
    pub reasons: &'a [Reason],
    /// The parts of the same change that are still pending.
    pub left: &'a [Uncertainty],
}

/// A record of one action on a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its number; later ones are larger.
    pub id: i64,
    /// The deploy that it belongs to.
    pub run: RunId,
    /// The time, in seconds since 1970.
    pub at: i64,
    /// The worker.
    pub worker: WorkerId,
    /// The customer.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// The action.
    pub action: String,
    /// The digest that was live then.
    pub digest: Digest,
    /// The reasons.
    pub reasons: Vec<Reason>,
}

impl Record {
    /// Returns whether it put a bundle in place.
    pub fn is_upload(&self) -> bool {
        matches!(self.action.as_str(), "create" | "update" | "rollback")
    }
}

/// A bundle as the state keeps it: all that an upload needs, except the values of secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The digest of its own module.
    pub module: Digest,
    /// The digest of the runtime's script.
    pub runtime: Digest,
    /// The runtime's name as a module.
    pub runtime_file: String,
    /// The canonical metadata.
    pub metadata: Value,
    /// Its source, to explain changes: the resolved worker and the recipe. Null if that isn't known.
    pub source: Value,
}

/// Deflates an object's bytes: called where there is time for it, not where the state is written.
pub fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("BUG: memory can be written")
}

/// The maximum size, in bytes, of an object: more than any that an upload can have (64 MiB; source: Cloudflare's limits of Workers, "Worker
/// size"), so that a state that somebody else wrote takes no memory without end.
const LARGEST_OBJECT: u64 = 256 << 20;

fn inflated(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    DeflateDecoder::new(bytes).take(LARGEST_OBJECT + 1).read_to_end(&mut out)?;
    if out.len() as u64 > LARGEST_OBJECT {
        return Err(std::io::Error::other("it is larger than anything that flotilla keeps"));
    }
    Ok(out)
}

impl State {
    /// Records what the platform acknowledged, and what is still pending of the same change, in one small write.
    pub fn record(&mut self, id: &WorkerId, deployed: &mut Deployed, entry: &Entry<'_>) -> Result<(), Failure> {
        let (home, worker) = id;
        let live = serde_json::to_string(&deployed.live).expect("BUG: what is live is JSON");
        let drift = deployed.drift.as_ref().map(|drift| json!(drift).to_string()).unwrap_or_default();
        let mut write = || -> rusqlite::Result<()> {
            let savepoint = self.db.savepoint()?;
            deployed.revision = insert(&savepoint, id, deployed, entry)?;
            savepoint
                .prepare_cached("INSERT OR REPLACE INTO deployed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
                .execute(params![
                    home.account_id,
                    namespace(home),
                    worker,
                    deployed.account,
                    deployed.customer,
                    deployed.environment.as_ref(),
                    deployed.digest.to_string(),
                    deployed.revision,
                    deployed.deployed_at,
                    deployed.rejected.map(|digest| digest.to_string()).unwrap_or_default(),
                    drift,
                    live
                ])?;
            settle(&savepoint, id, entry.left)?;
            savepoint.commit()
        };
        let written = write();
        written.map_err(|error| self.failure(error))
    }

    /// Records that a worker doesn't exist any more.
    pub fn forget(&mut self, id: &WorkerId, deployed: &Deployed, entry: &Entry<'_>) -> Result<(), Failure> {
        let (home, worker) = id;
        let mut write = || -> rusqlite::Result<()> {
            let savepoint = self.db.savepoint()?;
            savepoint
                .prepare_cached("DELETE FROM deployed WHERE account_id = ? AND namespace = ? AND worker = ?")?
                .execute(params![home.account_id, namespace(home), worker])?;
            insert(&savepoint, id, deployed, entry)?;
            settle(&savepoint, id, &[])?;
            savepoint.commit()
        };
        let written = write();
        written.map_err(|error| self.failure(error))
    }

    /// Records that a deploy begins.
    pub fn begin_run(&mut self, run: &Run) -> Result<RunId, Failure> {
        let sql =
            "INSERT INTO runs (began, ended, who, host, what, reason, plan, outcome) VALUES (?, 0, ?, ?, ?, ?, ?, '')";
        self.run(sql, params![run.began, run.who, run.host, run.what, run.reason, run.plan])?;
        Ok(RunId(self.db.last_insert_rowid()))
    }

    /// Records that a deploy ended.
    pub fn end_run(&mut self, run: RunId, at: i64, outcome: &Value) -> Result<(), Failure> {
        let values = params![at, outcome.to_string(), run.0];
        self.run("UPDATE runs SET ended = ?, outcome = ? WHERE id = ?", values)
    }

    /// Returns the last deploys, the newest first.
    pub fn runs(&self, limit: usize) -> Result<Vec<(RunId, Run)>, Failure> {
        let sql = "SELECT id, began, ended, who, host, what, reason, plan, outcome FROM runs ORDER BY id DESC LIMIT ?";
        self.rows(sql, [i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            let run = Run {
                began: row.get(1)?,
                ended: row.get(2)?,
                who: row.get(3)?,
                host: row.get(4)?,
                what: row.get(5)?,
                reason: row.get(6)?,
                plan: row.get(7)?,
                outcome: serde_json::from_str(&row.get::<_, String>(8)?).unwrap_or_default(),
            };
            Ok((RunId(row.get(0)?), run))
        })
    }

    /// Returns the records of a customer's workers, the newest first.
    pub fn records_of(&self, customer: &str, limit: usize) -> Result<Vec<Record>, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.records("WHERE customer = ?1 ORDER BY id DESC LIMIT ?2", params![customer, limit])
    }

    /// Returns the records of a deploy, in order.
    pub fn records_of_run(&self, run: RunId) -> Result<Vec<Record>, Failure> {
        self.records("WHERE run = ?1 ORDER BY id", params![run.0])
    }

    /// Returns the migrations that were applied to databases of a customer after a record.
    pub fn migrations_since(&self, customer: &str, record: i64) -> Result<Vec<String>, Failure> {
        let records = self
            .records("WHERE customer = ?1 AND id > ?2 AND action = 'migrate' ORDER BY id", params![customer, record])?;
        let name = |reason: Reason| match reason {
            Reason::DatabaseMigrated { database, new } => Some(format!("{new} of {database}")),
            _ => None,
        };
        Ok(records.into_iter().flat_map(|record| record.reasons).filter_map(name).collect())
    }

    /// Returns the uploads of a worker, the newest first.
    pub fn uploads_of(&self, (home, worker): &WorkerId, customer: &str, limit: usize) -> Result<Vec<Record>, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.records(
            "WHERE customer = ?1 AND account_id = ?2 AND namespace = ?3 AND worker = ?4
                AND action IN ('create', 'update', 'rollback') ORDER BY id DESC LIMIT ?5",
            params![customer, home.account_id, namespace(home), worker, limit],
        )
    }

    fn records(&self, which: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<Record>, Failure> {
        let columns = "account_id, namespace, worker, id, run, at, customer, environment, action, digest, reasons";
        self.rows(&format!("SELECT {columns} FROM records {which}"), values, record_of)
    }

    /// Keeps a bundle of a worker, and the objects that it consists of, deflated; an object that is there already stays. Several workers can
    /// have one bundle: what each was made from is kept for each.
    pub fn store(
        &mut self,
        id: &WorkerId,
        digest: &Digest,
        stored: &Stored,
        objects: &[(Digest, Vec<u8>)],
    ) -> Result<(), Failure> {
        let [digest, module, runtime] = [digest, &stored.module, &stored.runtime].map(Digest::to_string);
        let source = deflated(stored.source.to_string().as_bytes());
        let (home, worker) = id;
        let values = params![digest, module, runtime, stored.runtime_file, stored.metadata.to_string(), source];
        self.run("INSERT OR IGNORE INTO bundles VALUES (?, ?, ?, ?, ?, ?)", values)?;
        let sql = "UPDATE bundles SET module = ?2, runtime = ?3, runtime_file = ?4, metadata = ?5 WHERE digest = ?1";
        self.run(sql, params![digest, module, runtime, stored.runtime_file, stored.metadata.to_string()])?;
        let sql = "SELECT source FROM bundles WHERE digest = ?";
        let first: Option<Vec<u8>> = self.row(sql, [&digest], |row| row.get(0))?;
        let own = params![digest, home.account_id, namespace(home), worker];
        self.run("DELETE FROM sources WHERE digest = ? AND account_id = ? AND namespace = ? AND worker = ?", own)?;
        if first.as_ref() != Some(&source) {
            let values = params![digest, home.account_id, namespace(home), worker, source];
            self.run("INSERT INTO sources VALUES (?, ?, ?, ?, ?)", values)?;
        }
        let insert = "INSERT OR IGNORE INTO objects VALUES (?, ?)";
        objects.iter().try_for_each(|(digest, bytes)| self.run(insert, params![digest.to_string(), bytes]))
    }

    /// Returns a bundle that was deployed as a worker, if it is still kept.
    pub fn stored(&self, id: &WorkerId, digest: &Digest) -> Result<Option<Stored>, Failure> {
        let (home, worker) = id;
        let sql = "SELECT module, runtime, runtime_file, metadata, coalesce(s.source, b.source)
            FROM bundles b LEFT JOIN sources s
                ON s.digest = b.digest AND s.account_id = ?2 AND s.namespace = ?3 AND s.worker = ?4
            WHERE b.digest = ?1";
        self.row(sql, params![digest.to_string(), home.account_id, namespace(home), worker], |row| {
            let source = inflated(&row.get::<_, Vec<u8>>(4)?).ok();
            Ok(Stored {
                module: digest_of(row, 0)?,
                runtime: digest_of(row, 1)?,
                runtime_file: row.get(2)?,
                metadata: json_of(row, 3)?,
                source: source.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default(),
            })
        })
    }

    /// Returns whether a bundle can be rolled back to.
    pub fn is_kept(&self, digest: &Digest) -> Result<bool, Failure> {
        // The list of its static assets is an object, too, if it has any.
        let sql = "SELECT 1 FROM bundles b JOIN objects m ON m.digest = b.module JOIN objects r ON r.digest = b.runtime
                   LEFT JOIN objects a ON a.digest = json_extract(b.metadata, '$.assets.list')
                   WHERE b.digest = ? AND (a.digest IS NOT NULL OR json_extract(b.metadata, '$.assets.list') IS NULL)";
        Ok(self.row(sql, [digest.to_string()], |_| Ok(()))?.is_some())
    }

    /// Returns the bytes of an object, if it is still kept and whole.
    pub fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Failure> {
        let sql = "SELECT bytes FROM objects WHERE digest = ?";
        let bytes: Option<Vec<u8>> = self.row(sql, [digest.to_string()], |row| row.get(0))?;
        Ok(bytes.and_then(|bytes| inflated(&bytes).ok()))
    }

    /// Deletes the bundles beyond the last `keep` of each of these workers, but never one that is live.
    pub fn retire(&mut self, workers: &[(WorkerId, String)], keep: usize) -> Result<(), Failure> {
        self.all(|state| {
            for (id, customer) in workers {
                let uploads = state.uploads_of(id, customer, usize::MAX)?;
                let mut kept: Vec<Digest> = state.one(id)?.map(|live| live.digest).into_iter().collect();
                for record in &uploads {
                    if kept.contains(&record.digest) {
                        continue;
                    }
                    if kept.len() < keep.max(1) {
                        kept.push(record.digest);
                        continue;
                    }
                    state.drop_bundle(&record.digest)?;
                }
            }
            Ok(())
        })
    }

    /// Deletes a bundle and its module; a pack's bundle is deleted with the last worker's bundle that has it.
    fn drop_bundle(&self, digest: &Digest) -> Result<(), Failure> {
        let digest = digest.to_string();
        let has = |sql: &str, digest: &String| Ok::<_, Failure>(self.row(sql, [digest], |_| Ok(()))?.is_some());
        if has("SELECT 1 FROM deployed WHERE digest = ? LIMIT 1", &digest)? {
            return Ok(());
        }
        let objects = |row: &Row<'_>| Ok([Some(row.get(0)?), Some(row.get(1)?), row.get(2)?]);
        let sql = "SELECT module, runtime, json_extract(metadata, '$.assets.list') FROM bundles WHERE digest = ?";
        let found: Option<[Option<String>; 3]> = self.row(sql, [&digest], objects)?;
        let Some(objects) = found else { return Ok(()) };
        self.run("DELETE FROM bundles WHERE digest = ?", [&digest])?;
        self.run("DELETE FROM sources WHERE digest = ?", [&digest])?;
        for object in objects.into_iter().flatten() {
            let used = "SELECT 1 FROM bundles WHERE module = ?1 OR runtime = ?1 OR json_extract(metadata, '$.assets.list') = ?1 LIMIT 1";
            if !has(used, &object)? {
                self.run("DELETE FROM objects WHERE digest = ?", [&object])?;
            }
        }
        Ok(())
    }
}

/// Adds the record of an entry, and returns its number.
fn insert(db: &Connection, id: &WorkerId, deployed: &Deployed, entry: &Entry<'_>) -> rusqlite::Result<i64> {
    let record = Record {
        id: 0,
        run: entry.run,
        at: entry.at,
        worker: id.clone(),
        customer: deployed.customer.clone(),
        environment: deployed.environment,
        action: entry.action.to_owned(),
        digest: deployed.digest,
        reasons: entry.reasons.to_vec(),
    };
    insert_record(db, &record)
}

/// Adds a record, and returns its number.
pub(super) fn insert_record(db: &Connection, record: &Record) -> rusqlite::Result<i64> {
    let (home, worker) = &record.worker;
    db.prepare_cached(
        "INSERT INTO records (run, at, account_id, namespace, worker, customer, environment, action, digest, reasons)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        record.run.0,
        record.at,
        home.account_id,
        namespace(home),
        worker,
        record.customer,
        record.environment.as_ref(),
        record.action,
        record.digest.to_string(),
        json!(record.reasons).to_string()
    ])?;
    Ok(db.last_insert_rowid())
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        worker: worker_id(row)?,
        id: row.get(3)?,
        run: RunId(row.get(4)?),
        at: row.get(5)?,
        customer: row.get(6)?,
        environment: environment_of(row, 7)?,
        action: row.get(8)?,
        digest: digest_of(row, 9)?,
        reasons: json_of(row, 10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_comes_back_and_one_without_an_end_does_not() {
        assert_eq!(inflated(&deflated(b"a worker")).unwrap(), b"a worker");
        assert!(inflated(&deflated(&vec![0; LARGEST_OBJECT as usize + 1])).is_err());
        assert!(inflated(b"\xff\xff").is_err());
    }
}
