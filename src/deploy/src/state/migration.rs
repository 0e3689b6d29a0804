//! State migration: brings the tables of a state that an older version of flotilla wrote up to date, in one transaction. A process
//! that is killed in it leaves the tables as they were. Knows every version since the first.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde_json::Value;

use super::history::deflated;
use super::{TABLES_2, VERSION, accounts, hosts, json_of};

/// Brings the tables up to date.
pub(super) fn migrate(db: &Connection) -> rusqlite::Result<()> {
    let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
    // Another process can have been faster.
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version >= VERSION {
        return Ok(());
    }
    if version < 2 {
        to_version_2(&transaction)?;
    }
    if version < 3 {
        to_version_3(&transaction)?;
    }
    // Version 4 notes customers' own accounts.
    transaction.execute_batch(accounts::TABLE)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Keeps what runs apart from where it runs. Version 1 recorded no reasons and kept no modules.
fn to_version_2(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "ALTER TABLE begun ADD COLUMN run INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE deployed RENAME TO deployed_1; ALTER TABLE records RENAME TO records_1",
    )?;
    db.execute_batch(TABLES_2)?;
    db.execute_batch(hosts::TABLE)?;
    db.execute_batch(
        "INSERT INTO records SELECT r.id, 0, r.at, r.account_id, r.namespace, r.worker, coalesce(d.customer, ''),
            coalesce(d.environment, 'production'), r.action, r.digest, '[]'
         FROM records_1 r LEFT JOIN deployed_1 d
            ON d.account_id = r.account_id AND d.namespace = r.namespace AND d.worker = r.worker",
    )?;
    {
        let mut rows = db.prepare(
            "SELECT account_id, namespace, worker, account, customer, environment, digest, deployed_at, live FROM deployed_1",
        )?;
        let mut rows = rows.query([])?;
        let mut deployed = db.prepare("INSERT INTO deployed VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, '', '', ?)")?;
        let mut bundles = db.prepare("INSERT OR REPLACE INTO bundles VALUES (?, ?, ?, '', ?, ?)")?;
        while let Some(row) = rows.next()? {
            let text = |at: usize| row.get::<_, String>(at);
            let mut live: Value = json_of(row, 8)?;
            let mut take = |key: &str| live.as_object_mut().and_then(|live| live.remove(key)).unwrap_or_default();
            let (module, runtime, metadata) = (take("module"), take("runtime"), take("metadata"));
            let digest = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (module, runtime) = (digest(&module), digest(&runtime));
            bundles.execute(params![text(6)?, module, runtime, metadata.to_string(), deflated(b"null")])?;
            deployed.execute(params![
                text(0)?,
                text(1)?,
                text(2)?,
                text(3)?,
                text(4)?,
                text(5)?,
                text(6)?,
                row.get::<_, i64>(7)?,
                live.to_string()
            ])?;
        }
    }
    db.execute_batch("DROP TABLE deployed_1; DROP TABLE records_1")?;
    Ok(())
}

/// Turns reasons into values. Those that were recorded as sentences stay sentences.
fn to_version_3(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "UPDATE records SET reasons = (
            SELECT json_group_array(json_object('kind', 'recorded', 'text', value) ORDER BY key) FROM json_each(reasons)
         ) WHERE reasons <> '[]';
         UPDATE deployed SET drift = json_object('kind', 'recorded', 'text', drift) WHERE drift <> ''",
    )
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use serde_json::json;

    use super::super::{State, Uncertainty};
    use super::*;
    use flotilla_model::digest::Digest;
    use flotilla_model::platform::Home;
    use flotilla_model::reason::Reason;

    /// The tables as version 1 made them.
    const TABLES_1: &str = "
CREATE TABLE deployed (
    account_id TEXT NOT NULL, namespace TEXT NOT NULL, worker TEXT NOT NULL,
    account TEXT NOT NULL, customer TEXT NOT NULL, environment TEXT NOT NULL,
    digest TEXT NOT NULL, deployed_at INTEGER NOT NULL, live TEXT NOT NULL,
    PRIMARY KEY (account_id, namespace, worker)
);
CREATE TABLE records (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, account_id TEXT NOT NULL, namespace TEXT NOT NULL, worker TEXT NOT NULL,
    action TEXT NOT NULL, digest TEXT NOT NULL
);
CREATE TABLE begun (
    account_id TEXT NOT NULL, namespace TEXT NOT NULL, worker TEXT NOT NULL,
    account TEXT NOT NULL, customer TEXT NOT NULL, environment TEXT NOT NULL, digest TEXT NOT NULL, doubts TEXT NOT NULL,
    PRIMARY KEY (account_id, namespace, worker)
);
CREATE TABLE found (account_id TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (account_id, kind, name));
CREATE TABLE keys (name TEXT PRIMARY KEY, value BLOB NOT NULL);
INSERT INTO keys VALUES ('fingerprint', x'0102');
PRAGMA application_id = 1718382452;
PRAGMA user_version = 1;
";

    #[test]
    fn a_state_of_version_1_is_brought_up_to_date_whoever_opens_it() {
        for reads in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.db");
            let digests = [b"b", b"m", b"r"].map(|bytes| Digest::of(bytes));
            let live = json!({
                "module": digests[1], "runtime": digests[2], "metadata": {"bindings": []}, "etag": "e", "workers_dev": true,
                "domains": {"a.example.com": "d1"}, "routes": {}, "crons": ["* * * * *"], "secrets": {"S": "f"},
            });
            let db = Connection::open(&path).unwrap();
            db.execute_batch(TABLES_1).unwrap();
            db.execute(
                "INSERT INTO deployed VALUES ('a', '', 'w', 'default', 'acme', 'production', ?, 7, ?)",
                params![digests[0].to_string(), live.to_string()],
            )
            .unwrap();
            db.execute("INSERT INTO records VALUES (1, 7, 'a', '', 'w', 'create', ?)", [digests[0].to_string()])
                .unwrap();
            db.execute(
                "INSERT INTO begun VALUES ('a', '', 'v', 'default', 'bolt', 'production', ?, '[\"upload\"]')",
                [digests[0].to_string()],
            )
            .unwrap();
            drop(db);
            let state = if reads { State::read(&path) } else { State::open(&path) }.unwrap();
            let id = (Home { account_id: "a".to_owned(), namespace: None }, "w".to_owned());
            let deployed = state.one(&id).unwrap().expect("it is still deployed");
            assert_eq!((deployed.customer.as_str(), deployed.digest, deployed.deployed_at), ("acme", digests[0], 7));
            assert_eq!(deployed.live.domains["a.example.com"], "d1");
            assert_eq!((deployed.live.secrets["S"].as_str(), deployed.live.workers_dev), ("f", true));
            let stored = state.stored(&digests[0]).unwrap().expect("what was known of its bundle");
            assert_eq!(
                (stored.module, stored.metadata, stored.source),
                (digests[1], json!({"bindings": []}), Value::Null)
            );
            assert!(!state.is_kept(&digests[0]).unwrap(), "version 1 kept no modules");
            let records = state.records_of("acme", 9).unwrap();
            assert_eq!((records.len(), records[0].action.as_str(), records[0].digest), (1, "create", digests[0]));
            assert_eq!(
                state.in_flight().unwrap().into_values().next().expect("still in doubt").uncertainties,
                [Uncertainty::Upload]
            );
            drop(state);
            let again = State::open(&path).unwrap();
            assert_eq!(again.records_of("acme", 9).unwrap().len(), 1, "once is enough");
            assert!(again.hosts().unwrap().is_empty(), "the tables that came later are there");
        }
    }

    /// A state as version 2 of the tables was written: deploys, a redeploy, a rollback, a deletion, drift, and a change that was
    /// interrupted.
    fn version_2() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/state/version-2.db");
        std::fs::copy(fixture, &path).unwrap();
        (folder, path)
    }

    /// Returns the version, and all rows of all tables, a line each, sorted.
    fn dump(path: &Path) -> (i64, Vec<String>) {
        let db = Connection::open(path).unwrap();
        let version = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        let mut tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").unwrap();
        let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut lines = Vec::new();
        for table in tables {
            let mut rows = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = rows.column_count();
            let mut rows = rows.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<_> =
                    (0..columns).map(|index| row.get::<_, rusqlite::types::Value>(index).unwrap()).collect();
                lines.push(format!("{table} {values:?}"));
            }
        }
        lines.sort();
        (version, lines)
    }

    /// Returns the reasons and the drift of a state, as they are in its tables.
    fn reasons(path: &Path) -> Vec<String> {
        let db = Connection::open(path).unwrap();
        let mut rows = db
            .prepare("SELECT reasons FROM records WHERE reasons <> '[]' UNION ALL SELECT drift FROM deployed WHERE drift <> ''")
            .unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// Wraps each sentence of the reasons that version 2 kept.
    fn wrapped(kept: &str) -> String {
        let wrap = |text: &str| json!({"kind": "recorded", "text": text});
        match serde_json::from_str::<Vec<String>>(kept) {
            Ok(sentences) => Value::from_iter(sentences.iter().map(|text| wrap(text))).to_string(),
            Err(_) => wrap(kept).to_string(),
        }
    }

    #[test]
    fn a_state_of_version_2_keeps_each_row_and_its_reasons_read_as_before() {
        let (_folder, path) = version_2();
        let (before, was) = (dump(&path), reasons(&path));
        assert_eq!((before.0, was.len()), (2, 12));
        let state = State::open(&path).unwrap();
        let records = state.records_of("bluebird", 99).unwrap();
        let shown: Vec<String> = records.iter().flat_map(|record| &record.reasons).map(Reason::to_string).collect();
        assert_eq!(
            shown,
            [
                "back to record 1, 957dccb50cfd7367 of 2026-11-29T18:24:39Z",
                "forced: a bulk redeploy",
                "customers/bluebird.yaml:3:9 crons[0] nothing → \"0 4 * * *\"",
                "customers/bluebird.yaml:2:19 vars.GREETING nothing → \"hello\"",
                "crons 0 4 * * *",
                "it is new",
                "workers.dev on",
            ]
        );
        let drifted: Vec<String> = state
            .deployed()
            .unwrap()
            .into_values()
            .filter_map(|live| live.drift)
            .map(|drift| drift.to_string())
            .collect();
        assert_eq!(drifted, ["it was changed outside of flotilla at 2026-11-29T18:24:44.073516Z"]);
        drop(state);
        let after = dump(&path);
        assert_eq!((after.0, reasons(&path)), (VERSION, was.iter().map(|kept| wrapped(kept)).collect()));
        // But for the form of reasons and drift, each row of each table is what it was.
        let mut expected = before.1.clone();
        for kept in &was {
            let (old, new) = (format!("Text({kept:?})"), format!("Text({:?})", wrapped(kept)));
            expected.iter_mut().for_each(|line| *line = line.replace(&old, &new));
        }
        expected.sort();
        assert_eq!(after.1, expected);
        // A second run changes nothing, and neither does a migration that comes too late.
        drop(State::open(&path).unwrap());
        migrate(&Connection::open(&path).unwrap()).unwrap();
        assert_eq!(dump(&path), after);
    }

    #[test]
    fn a_migration_that_is_killed_leaves_the_state_as_it_was() {
        let (_folder, path) = version_2();
        let before = dump(&path);
        let db = Connection::open(&path).unwrap();
        // So that what isn't committed is on disk, as well.
        db.execute_batch("PRAGMA cache_size = 1").unwrap();
        let transaction = Transaction::new_unchecked(&db, TransactionBehavior::Immediate).unwrap();
        to_version_3(&transaction).unwrap();
        transaction.pragma_update(None, "user_version", VERSION).unwrap();
        // What a kill leaves on disk at this moment.
        let killed = tempfile::tempdir().unwrap();
        for file in ["state.db", "state.db-wal", "state.db-shm"] {
            let from = path.with_file_name(file);
            if from.exists() {
                std::fs::copy(from, killed.path().join(file)).unwrap();
            }
        }
        drop(transaction);
        drop(db);
        let killed = killed.path().join("state.db");
        for path in [&path, &killed] {
            assert_eq!(dump(path), before);
            assert_eq!(State::read(path).unwrap().records_of("acme", 99).unwrap().len(), 8);
            assert_eq!(dump(path).0, VERSION);
        }
    }
}
