//! A state that can be corrected without writing its file: the base of a plan that refreshes. The tables that change
//! are in memory, in front of those of the file.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::OpenFlags;

use super::{State, sqlite_failure};
use flotilla_model::failure::Failure;
use flotilla_model::platform::Home;

/// The tables that a correction writes to. What they hold is copied, apart from the records, which are only added to.
const SHADOWED: [&str; 4] = ["deployed", "begun", "found", "records"];

impl State {
    /// The state at a path, to be read and corrected in memory; the file stays as it is.
    pub fn shadow(path: &Path) -> Result<State, Failure> {
        if !State::exists(path)? {
            return Ok(State::in_memory());
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let state = State::open_with(path, flags).map_err(|error| sqlite_failure(path, error))??;
        let shadow = || -> rusqlite::Result<()> {
            state.db.execute_batch("PRAGMA temp_store = MEMORY; BEGIN")?;
            for table in SHADOWED {
                let sql: String = state.db.query_row(
                    "SELECT sql FROM main.sqlite_master WHERE type = 'table' AND name = ?",
                    [table],
                    |row| row.get(0),
                )?;
                // A name without a database means the one in memory from here on.
                state.db.execute_batch(&sql.replacen("CREATE TABLE", "CREATE TEMP TABLE", 1))?;
                if table != "records" {
                    state.db.execute_batch(&format!("INSERT INTO temp.{table} SELECT * FROM main.{table}"))?;
                }
            }
            state.db.execute_batch("COMMIT")
        };
        shadow().map_err(|error| sqlite_failure(path, error))?;
        Ok(state)
    }

    /// Returns the number of live workers.
    pub fn live(&self) -> Result<usize, Failure> {
        let rows: Option<i64> = self.row("SELECT count(*) FROM deployed", [], |row| row.get(0))?;
        Ok(rows.and_then(|rows| usize::try_from(rows).ok()).unwrap_or_default())
    }

    /// Returns the number of live workers of each home.
    pub fn workers_by_home(&self) -> Result<BTreeMap<Home, usize>, Failure> {
        let mut rows = self
            .db
            .prepare("SELECT account_id, namespace, count(*) FROM deployed GROUP BY account_id, namespace")
            .map_err(|error| self.failure(error))?;
        let home = |row: &rusqlite::Row<'_>| {
            let (account_id, namespace): (String, String) = (row.get(0)?, row.get(1)?);
            let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
            Ok((Home { account_id, namespace }, usize::try_from(row.get::<_, i64>(2)?).unwrap_or_default()))
        };
        let counted = rows.query_map([], home).and_then(Iterator::collect);
        counted.map_err(|error| self.failure(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::sample;
    use crate::state::{Entry, ResourceKind, RunId};
    use flotilla_model::platform::Home;

    #[test]
    fn a_shadow_is_corrected_and_the_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        assert!(State::shadow(&path).unwrap().live().unwrap() == 0 && !path.exists());
        let id = |name: &str| (Home { account_id: "a".to_owned(), namespace: None }, name.to_owned());
        let (_, mut deployed) = sample();
        let entry = Entry { run: RunId(1), at: 7, action: "create", reasons: &[], left: &[] };
        let mut state = State::open(&path).unwrap();
        state.record(&id("one"), &mut deployed, &entry).unwrap();
        let key = state.fingerprints().of("x");
        drop(state);
        let before = std::fs::read(&path).unwrap();
        let mut shadow = State::shadow(&path).unwrap();
        assert_eq!(shadow.fingerprints().of("x"), key);
        shadow
            .all(|shadow| {
                shadow.record(&id("two"), &mut deployed.clone(), &entry)?;
                shadow.forget(&id("one"), &deployed, &entry)?;
                shadow.cache_id("a", ResourceKind::Zone, "example.com", "z")
            })
            .unwrap();
        let names: Vec<String> = shadow.deployed().unwrap().into_keys().map(|(_, name)| name).collect();
        assert_eq!(names, ["two"]);
        assert_eq!(shadow.live().unwrap(), 1);
        assert_eq!(shadow.cached_id("a", ResourceKind::Zone, "example.com").unwrap().as_deref(), Some("z"));
        drop(shadow);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        let names: Vec<String> =
            State::read(&path).unwrap().deployed().unwrap().into_keys().map(|(_, name)| name).collect();
        assert_eq!(names, ["one"]);
    }
}
