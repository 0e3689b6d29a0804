//! An empty database in memory, in which the statements of migrations are tried: it finds what no database would accept. Knows neither files
//! nor accounts.

use rusqlite::Connection;

/// A database of its own, which is gone with the value.
pub struct Scratch(Connection);

/// A statement that was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// SQLite's message.
    pub message: String,
    /// The place in the statement, in bytes, if SQLite knows it.
    pub offset: Option<usize>,
    /// Whether it isn't SQL at all, whatever tables there are.
    pub is_syntax: bool,
}

impl Scratch {
    /// Makes an empty database.
    ///
    /// # Errors
    /// SQLite's.
    pub fn new() -> Result<Scratch, rusqlite::Error> {
        Ok(Scratch(Connection::open_in_memory()?))
    }

    /// Reads a statement without running it.
    ///
    /// # Errors
    /// It was rejected: in an empty database, most statements are.
    pub fn prepare(&self, sql: &str) -> Result<(), Rejected> {
        self.0.prepare(sql).map(drop).map_err(|error| rejected(&error))
    }

    /// Runs a statement to its end.
    ///
    /// # Errors
    /// It was rejected.
    pub fn run(&self, sql: &str) -> Result<(), Rejected> {
        let run = || -> Result<(), rusqlite::Error> {
            let mut statement = self.0.prepare(sql)?;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        };
        run().map_err(|error| rejected(&error))
    }
}

fn rejected(error: &rusqlite::Error) -> Rejected {
    let (message, offset) = match error {
        rusqlite::Error::SqlInputError { msg, offset, .. } => (msg.clone(), usize::try_from(*offset).ok()),
        rusqlite::Error::SqliteFailure(failure, message) => {
            (message.clone().unwrap_or_else(|| failure.to_string()), None)
        }
        other => (other.to_string(), None),
    };
    let is_syntax =
        ["syntax error", "incomplete input", "unrecognized token"].iter().any(|kind| message.contains(kind));
    Rejected { message, offset, is_syntax }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_sql_is_told_from_what_the_tables_decide() {
        let scratch = Scratch::new().unwrap();
        let rejected = scratch.prepare("INSERT INTO t VALEUS (1)").unwrap_err();
        assert_eq!((rejected.is_syntax, rejected.offset), (true, Some(14)), "{rejected:?}");
        assert!(!scratch.prepare("ALTER TABLE t ADD COLUMN a").unwrap_err().is_syntax);
        scratch.run("CREATE TABLE t (a UNIQUE)").unwrap();
        scratch.run("INSERT INTO t VALUES (1)").unwrap();
        assert!(scratch.run("INSERT INTO t VALUES (1)").unwrap_err().message.contains("UNIQUE"));
    }
}
