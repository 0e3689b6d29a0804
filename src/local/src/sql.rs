//! SQLite as the databases of workers use it: D1 and libSQL. Knows statements and values; not who may run them.

use std::path::Path;

use rusqlite::limits::Limit;
use rusqlite::types::{Value as Cell, ValueRef};
use rusqlite::{Connection, ErrorCode, Statement};

/// The result of one statement.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Name and declared type of each column.
    pub columns: Vec<(String, Option<String>)>,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
    /// Rows inserted, updated or deleted.
    pub changes: u64,
    /// The last inserted row's id.
    pub last_id: i64,
}

/// A parameter of a statement.
#[derive(Debug, Clone)]
pub enum Parameter {
    /// The next position.
    Next(Cell),
    /// By name, with or without its `:`, `@` or `$`.
    Named(String, Cell),
}

/// Opens or creates a database that code of workers may use. It can't attach other files.
///
/// # Errors
/// When the folder or file can't be made.
pub fn open(folder: &Path, name: &str) -> Result<Connection, rusqlite::Error> {
    let failed = |error: std::io::Error| {
        let reason = format!("can't make {}: {error}", folder.display());
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN), Some(reason))
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let db = Connection::open(folder.join(format!("{name}.db")))?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;",
    )?;
    db.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    Ok(db)
}

/// Runs one prepared statement to its end.
///
/// # Errors
/// SQLite's, and one for a parameter that the statement doesn't have.
pub fn run(db: &Connection, statement: &mut Statement<'_>, parameters: &[Parameter]) -> Result<Rows, rusqlite::Error> {
    let mut next = 0;
    for parameter in parameters {
        match parameter {
            Parameter::Next(cell) => {
                next += 1;
                statement.raw_bind_parameter(next, cell)?;
            }
            Parameter::Named(name, cell) => {
                let forms = [name.clone(), format!(":{name}"), format!("@{name}"), format!("${name}")];
                let mut found = None;
                for form in forms {
                    found = found.or(statement.parameter_index(&form)?);
                }
                let at = found.ok_or_else(|| rusqlite::Error::InvalidParameterName(name.clone()))?;
                statement.raw_bind_parameter(at, cell)?;
            }
        }
    }
    let columns: Vec<_> = statement
        .columns()
        .map(|column| (column.name().to_owned(), column.decl_type().map(ToOwned::to_owned)))
        .collect();
    let before = db.total_changes();
    let mut rows = Vec::new();
    let mut found = statement.raw_query();
    while let Some(row) = found.next()? {
        let cells = (0..columns.len()).map(|at| Ok(cell(row.get_ref(at)?))).collect::<Result<_, rusqlite::Error>>()?;
        rows.push(cells);
    }
    drop(found);
    Ok(Rows { columns, rows, changes: db.total_changes() - before, last_id: db.last_insert_rowid() })
}

/// Text that isn't UTF-8 is shown with replacement characters, as D1 and libSQL do.
fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
    }
}

/// SQLite's name of the kind of error, and its message.
#[must_use]
pub fn failure(error: &rusqlite::Error) -> (&'static str, String) {
    let (code, message) = match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            (Some(failure.code), message.clone().unwrap_or_else(|| failure.to_string()))
        }
        rusqlite::Error::SqlInputError { error, msg, offset, .. } => {
            (Some(error.code), format!("{msg} at offset {offset}"))
        }
        other => (None, other.to_string()),
    };
    let name = match code {
        Some(ErrorCode::ConstraintViolation) => "SQLITE_CONSTRAINT",
        Some(ErrorCode::DatabaseBusy) => "SQLITE_BUSY",
        Some(ErrorCode::DatabaseLocked) => "SQLITE_LOCKED",
        Some(ErrorCode::ReadOnly) => "SQLITE_READONLY",
        Some(ErrorCode::TooBig) => "SQLITE_TOOBIG",
        Some(ErrorCode::TypeMismatch) => "SQLITE_MISMATCH",
        Some(ErrorCode::ParameterOutOfRange) => "SQLITE_RANGE",
        Some(ErrorCode::CannotOpen) => "SQLITE_CANTOPEN",
        _ => "SQLITE_ERROR",
    };
    (name, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_run_with_both_kinds_of_parameters() {
        let folder = tempfile::tempdir().unwrap();
        let db = open(folder.path(), "x").unwrap();
        db.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT UNIQUE)").unwrap();
        let mut insert = db.prepare("INSERT INTO t (a) VALUES (?)").unwrap();
        let done = run(&db, &mut insert, &[Parameter::Next(Cell::Text("x".into()))]).unwrap();
        assert_eq!((done.changes, done.last_id), (1, 1));
        let again = run(&db, &mut insert, &[Parameter::Next(Cell::Text("x".into()))]).unwrap_err();
        assert_eq!(failure(&again).0, "SQLITE_CONSTRAINT");
        let mut select = db.prepare("SELECT a FROM t WHERE id = $id").unwrap();
        let found = run(&db, &mut select, &[Parameter::Named("id".into(), Cell::Integer(1))]).unwrap();
        assert_eq!(found.columns, [("a".to_owned(), Some("TEXT".to_owned()))]);
        assert_eq!(found.rows, [[Cell::Text("x".into())]]);
        assert!(run(&db, &mut select, &[Parameter::Named("no".into(), Cell::Null)]).is_err());
    }

    #[test]
    fn other_files_can_not_be_attached() {
        let folder = tempfile::tempdir().unwrap();
        let db = open(folder.path(), "x").unwrap();
        let other = folder.path().join("other.db");
        for sql in [format!("ATTACH '{}' AS o", other.display()), format!("VACUUM INTO '{}'", other.display())] {
            assert!(db.execute_batch(&sql).is_err(), "{sql}");
        }
        assert!(!other.exists());
    }
}
