//! D1 databases: the migrations that were applied, each with the digest of its text, and the one whose outcome is unknown.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Record, RunId, State, WorkerId, insert_record};
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::reason::Reason;
use flotilla_model::spec::Environment;

/// The tables. They came without a new version: what an older flotilla does to the state leaves them alone.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS databases (
    account_id TEXT NOT NULL, id TEXT NOT NULL, migrations_table TEXT NOT NULL, in_flight TEXT NOT NULL, bookmark TEXT NOT NULL,
    PRIMARY KEY (account_id, id, migrations_table)
);
CREATE TABLE IF NOT EXISTS migrations (
    account_id TEXT NOT NULL, id TEXT NOT NULL, migrations_table TEXT NOT NULL, name TEXT NOT NULL,
    digest TEXT NOT NULL, at INTEGER NOT NULL, run INTEGER NOT NULL,
    PRIMARY KEY (account_id, id, migrations_table, name)
);
";

/// Returns whether there are the tables.
pub(super) fn exist(db: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'migrations'";
    Ok(db.query_row(sql, [], |_| Ok(())).optional()?.is_some())
}

/// Identifies a database and the table in which it records its migrations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseId {
    /// The account's id.
    pub account_id: String,
    /// The database's id.
    pub id: String,
    /// The table.
    pub table: String,
}

/// A database whose table was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedDatabase {
    /// The migrations that were applied, each with the digest of its text; none where the pack had no such file.
    pub applied: BTreeMap<String, Option<Digest>>,
    /// The migration that was being applied: whether it was isn't known.
    pub in_flight: Option<String>,
    /// The bookmark from before the last run's first migration.
    pub bookmark: Option<String>,
}

impl State {
    /// Returns what is known of a database; none: its table was never read.
    pub fn database(&self, of: &DatabaseId) -> Result<Option<RecordedDatabase>, Failure> {
        if !self.has_databases {
            return Ok(None);
        }
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let sql = "SELECT in_flight, bookmark FROM databases WHERE account_id = ? AND id = ? AND migrations_table = ?";
        let found = self.row(sql, of.key(), |row| {
            Ok(RecordedDatabase {
                in_flight: some(row.get(0)?),
                bookmark: some(row.get(1)?),
                ..RecordedDatabase::default()
            })
        })?;
        let Some(mut found) = found else { return Ok(None) };
        let sql = "SELECT name, digest FROM migrations WHERE account_id = ? AND id = ? AND migrations_table = ?";
        found.applied = self.rows(sql, of.key(), |row| Ok((row.get(0)?, Digest::parse(&row.get::<_, String>(1)?))))?;
        Ok(Some(found))
    }

    /// Replaces what is known of a database with what its table contains. A migration that was recorded before keeps its digest.
    pub fn record_table(
        &mut self,
        of: &DatabaseId,
        applied: &[(String, Option<Digest>)],
        (run, at): (RunId, i64),
    ) -> Result<(), Failure> {
        let before = self.database(of)?.unwrap_or_default();
        self.run("DELETE FROM migrations WHERE account_id = ? AND id = ? AND migrations_table = ?", of.key())?;
        self.set(of, "", before.bookmark.as_deref())?;
        for (name, digest) in applied {
            let digest = before.applied.get(name).copied().flatten().or(*digest);
            self.insert_migration(of, name, digest, (run, at))?;
        }
        Ok(())
    }

    /// Notes that a migration is about to be applied.
    pub fn begin_migration(&mut self, of: &DatabaseId, name: &str, bookmark: Option<&str>) -> Result<(), Failure> {
        self.set(of, name, bookmark)
    }

    /// Notes that the migration which was about to be applied wasn't.
    pub fn undo_migration(&mut self, of: &DatabaseId) -> Result<(), Failure> {
        let sql = "UPDATE databases SET in_flight = '' WHERE account_id = ? AND id = ? AND migrations_table = ?";
        self.run(sql, of.key())
    }

    /// Records that a migration was applied, in the history of a worker that is bound to the database as well.
    pub fn record_migration(
        &mut self,
        of: &DatabaseId,
        (name, digest): (&str, Digest),
        (run, at): (RunId, i64),
        (worker, customer, environment): (&WorkerId, &str, Environment),
        database: &str,
    ) -> Result<(), Failure> {
        self.insert_migration(of, name, Some(digest), (run, at))?;
        self.undo_migration(of)?;
        let reasons = vec![Reason::DatabaseMigrated { database: database.to_owned(), new: name.to_owned() }];
        let (customer, action) = (customer.to_owned(), "migrate".to_owned());
        let record = Record { id: 0, run, at, worker: worker.clone(), customer, environment, action, digest, reasons };
        insert_record(&self.db, &record).map(drop).map_err(|error| self.failure(error))
    }

    /// Drops what is known of a database, because it was deleted.
    pub fn forget_database(&mut self, account_id: &str, id: &str) -> Result<(), Failure> {
        self.run("DELETE FROM migrations WHERE account_id = ? AND id = ?", [account_id, id])?;
        self.run("DELETE FROM databases WHERE account_id = ? AND id = ?", [account_id, id])
    }

    fn insert_migration(
        &self,
        of: &DatabaseId,
        name: &str,
        digest: Option<Digest>,
        (run, at): (RunId, i64),
    ) -> Result<(), Failure> {
        let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
        let values = params![of.account_id, of.id, of.table, name, digest, at, run.0];
        self.run("INSERT OR REPLACE INTO migrations VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    }

    fn set(&self, of: &DatabaseId, in_flight: &str, bookmark: Option<&str>) -> Result<(), Failure> {
        let values = params![of.account_id, of.id, of.table, in_flight, bookmark.unwrap_or_default()];
        self.run("INSERT OR REPLACE INTO databases VALUES (?, ?, ?, ?, ?)", values)
    }
}

impl DatabaseId {
    fn key(&self) -> [&str; 3] {
        [&self.account_id, &self.id, &self.table]
    }
}

#[cfg(test)]
mod tests {
    use flotilla_model::platform::Home;

    use super::*;

    #[test]
    fn what_was_applied_keeps_its_digest_and_a_table_that_was_read_is_known() {
        let mut state = State::in_memory();
        let [account_id, id, table] = ["a", "d", "d1_migrations"].map(str::to_owned);
        let of = DatabaseId { account_id: account_id.clone(), id, table };
        assert_eq!(state.database(&of).unwrap(), None);
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let seen = [("1.sql".to_owned(), Some(one)), ("x.sql".to_owned(), None)];
        state.record_table(&of, &seen, (RunId(1), 7)).unwrap();
        state.begin_migration(&of, "2.sql", Some("mark")).unwrap();
        let known = state.database(&of).unwrap().unwrap();
        assert_eq!((known.in_flight.as_deref(), known.bookmark.as_deref()), (Some("2.sql"), Some("mark")));
        let worker = (Home { account_id, namespace: None }, "w".to_owned());
        let by = (&worker, "acme", Environment::Production);
        state.record_migration(&of, ("2.sql", two), (RunId(2), 8), by, "acme-db").unwrap();
        let known = state.database(&of).unwrap().unwrap();
        assert_eq!(known.in_flight, None);
        assert_eq!(
            known.applied,
            [("1.sql", Some(one)), ("2.sql", Some(two)), ("x.sql", None)]
                .map(|(name, digest)| (name.to_owned(), digest))
                .into()
        );
        // The text of a file that was edited since isn't what was applied.
        state.record_table(&of, &[("1.sql".to_owned(), Some(two))], (RunId(3), 9)).unwrap();
        let known = state.database(&of).unwrap().unwrap();
        assert_eq!(
            (known.applied.len(), known.applied["1.sql"], known.bookmark.as_deref()),
            (1, Some(one), Some("mark"))
        );
        let records = state.records_of("acme", 9).unwrap();
        assert_eq!((records.len(), records[0].action.as_str(), records[0].digest), (1, "migrate", two));
        state.forget_database("a", "d").unwrap();
        assert_eq!(state.database(&of).unwrap(), None);
    }
}
