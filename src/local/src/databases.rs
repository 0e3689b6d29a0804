//! D1: the API's databases, and the protocol that the binding in workerd speaks. Knows statements and their JSON; one
//! SQLite file per database is all there is behind it: no replicas.

use std::time::Instant;

use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::Value as Cell;
use rusqlite::{Batch, Connection, params};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::sql::{self, Parameter, Rows};
use super::store;

/// The code of a database that doesn't exist, and of one whose name is taken, as wrangler's users report them.
const MISSING: u32 = 7404;
const TAKEN: u32 = 7502;
/// The code of a failed statement.
const FAILED: u32 = 7500;

fn brief(row: &rusqlite::Row<'_>) -> rusqlite::Result<Value> {
    let replication: String = row.get(4)?;
    Ok(json!({
        "uuid": row.get::<_, String>(0)?, "name": row.get::<_, String>(1)?, "created_at": row.get::<_, String>(2)?,
        "version": "production", "jurisdiction": row.get::<_, Option<String>>(3)?, "read_replication": {"mode": replication},
    }))
}

/// The folder of the copies to which databases can be restored, by their ids.
pub const BOOKMARKS: &str = "d1/bookmarks";

const DATABASE: &str = "SELECT id, name, created, jurisdiction, replication FROM d1";

/// `GET …/d1/database`.
pub fn list(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let sql = format!("{DATABASE} WHERE account = ?1 ORDER BY created DESC, name");
    let mut rows = cloud.store.read(|db| store::rows(db, &sql, [account], brief))?;
    if let Some(name) = call.query("name") {
        rows.retain(|row| row["name"].as_str().is_some_and(|has| has.contains(name)));
    }
    cloud.page(&rows, call, 1000, 10_000)
}

/// Creates a database with an id from elsewhere, named after it, unless it exists.
///
/// # Errors
/// When the store can't be written.
pub fn make(db: &Connection, account: &str, id: &str, now: &str) -> Result<(), Refusal> {
    // It becomes a file's name.
    if id.len() != 36 || !id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Ok(());
    }
    let sql = "INSERT OR IGNORE INTO d1 (id, account, name, created, replication) VALUES (?1, ?2, ?1, ?3, 'disabled')";
    store::run(db, sql, [id, account, now])
}

/// `POST …/d1/database`.
pub fn create(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let name = call.text("name")?;
    if name.is_empty()
        || name.len() > 64
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    {
        return Err(Refusal::new(400, 7400, format!("invalid database name {name:?}")));
    }
    let body = call.json()?;
    let (id, now) = (cloud.store.seal.uuid(), cloud.now());
    cloud.store.write(|db| {
        if store::has(db, "SELECT 1 FROM d1 WHERE account = ?1 AND name = ?2", [account, name])? {
            return Err(Refusal::new(400, TAKEN, format!("A database with the name {name:?} already exists")));
        }
        let limit = cloud.limits.databases;
        if store::count(db, "SELECT count(*) FROM d1 WHERE account = ?1", &[account])? >= limit {
            let message = format!("the account has {limit} databases, no more are allowed");
            return Err(Refusal::new(400, 7406, message));
        }
        let replication = body["read_replication"]["mode"].as_str().unwrap_or("disabled");
        db.execute(
            "INSERT INTO d1 (id, account, name, created, jurisdiction, replication) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![id, account, name, now, body["jurisdiction"].as_str(), replication],
        )?;
        Ok(())
    })?;
    read(cloud, account, &id)
}

/// `GET …/d1/database/{id}`.
pub fn read(cloud: &Cloud, account: &str, id: &str) -> Outcome {
    let mut shown = find(cloud, account, id)?;
    let db = open(cloud, id)?;
    let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    shown["num_tables"] = db.query_row(tables, [], |row| row.get::<_, i64>(0))?.into();
    shown["file_size"] = size(&db).into();
    Ok(Answer::ok(&shown))
}

/// Returns a database's description.
pub fn find(cloud: &Cloud, account: &str, id: &str) -> Result<Value, Refusal> {
    let sql = format!("{DATABASE} WHERE account = ?1 AND id = ?2");
    let found = cloud.store.read(|db| store::row(db, &sql, [account, id], brief))?;
    found.ok_or_else(|| Refusal::new(404, MISSING, format!("The database {id} could not be found")))
}

fn size(db: &Connection) -> i64 {
    db.query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |row| row.get(0))
        .unwrap_or(0)
}

/// Ids come from the table of databases or are checked against it, so they are safe as file names.
fn open(cloud: &Cloud, id: &str) -> Result<Connection, Refusal> {
    Ok(sql::open(&cloud.folder.join("d1"), id)?)
}

/// `PATCH …/d1/database/{id}`: only `read_replication` can change.
pub fn patch(cloud: &Cloud, account: &str, id: &str, call: &Call) -> Outcome {
    find(cloud, account, id)?;
    if let Some(mode) = call.json()?["read_replication"]["mode"].as_str() {
        if !matches!(mode, "auto" | "disabled") {
            return Err(Refusal::new(400, 7400, "read_replication.mode can only be auto or disabled"));
        }
        cloud.store.write(|db| Ok(db.execute("UPDATE d1 SET replication = ?2 WHERE id = ?1", [id, mode])?))?;
    }
    read(cloud, account, id)
}

/// `DELETE …/d1/database/{id}`, with its file.
pub fn delete(cloud: &Cloud, account: &str, id: &str) -> Outcome {
    find(cloud, account, id)?;
    cloud.store.write(|db| Ok(db.execute("DELETE FROM d1 WHERE id = ?1", [id])?))?;
    // Without bookmarks, there is no folder of them.
    let _ = std::fs::remove_dir_all(cloud.folder.join(BOOKMARKS).join(id));
    for end in ["db", "db-wal", "db-shm"] {
        // A file that was never made is as good as deleted.
        let _ = std::fs::remove_file(cloud.folder.join("d1").join(format!("{id}.{end}")));
    }
    Ok(Answer::ok(&Value::Null))
}

/// The format of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Objects,
    Columns,
    None,
}

/// `POST …/query` and, with arrays instead of objects, `POST …/raw`.
pub fn query(cloud: &Cloud, account: &str, id: &str, call: &Call, raw: bool) -> Outcome {
    find(cloud, account, id)?;
    let body = call.json()?;
    let queries = body["batch"].as_array().map_or_else(|| std::slice::from_ref(body), Vec::as_slice);
    let shape = if raw { Shape::Columns } else { Shape::Objects };
    match execute(&open(cloud, id)?, queries, shape) {
        Ok(results) => Ok(Answer::ok(&results.into())),
        Err(message) => Err(Refusal::new(400, FAILED, message)),
    }
}

/// Answers the binding in a worker: `POST /query` or `/execute`, one statement or an array of them. Returns status
/// and JSON.
pub fn binding(cloud: &Cloud, id: &str, format: Option<&str>, body: &[u8]) -> (u16, Value) {
    let shape = match format {
        Some("ROWS_AND_COLUMNS") => Shape::Columns,
        Some("NONE") => Shape::None,
        _ => Shape::Objects,
    };
    let known = cloud.store.read(|db| store::has(db, "SELECT 1 FROM d1 WHERE id = ?1", [id]));
    let done = match (known, serde_json::from_slice::<Value>(body)) {
        (Ok(true), Ok(body)) => {
            let queries = body.as_array().map_or_else(|| std::slice::from_ref(&body), Vec::as_slice);
            open(cloud, id).map_err(|refusal| refusal.message).and_then(|db| execute(&db, queries, shape))
        }
        (Ok(false), _) => Err(format!("the database {id} does not exist")),
        (Err(refusal), _) => Err(refusal.message),
        (_, Err(error)) => Err(error.to_string()),
    };
    match done {
        Ok(results) => (200, results.into()),
        Err(message) => (500, json!({"success": false, "error": message})),
    }
}

/// Runs all statements in one transaction.
fn execute(db: &Connection, queries: &[Value], shape: Shape) -> Result<Vec<Value>, String> {
    let failed = |error: rusqlite::Error| {
        let (name, message) = sql::failure(&error);
        format!("{message}: {name}")
    };
    let transaction = db.unchecked_transaction().map_err(failed)?;
    let mut results = Vec::new();
    for query in queries {
        let text = query["sql"].as_str().ok_or("sql is required and must be text")?;
        let parameters = query["params"].as_array().map_or(&[][..], Vec::as_slice);
        let parameters =
            parameters.iter().map(|value| Ok(Parameter::Next(cell(value)?))).collect::<Result<Vec<_>, String>>()?;
        let alone = !text.trim_end().trim_end_matches(';').contains(';');
        let mut batch = Batch::new(db, text);
        while let Some(mut statement) = batch.next().map_err(failed)? {
            let text = statement.expanded_sql().unwrap_or_default();
            refuse_transactions(&text)?;
            if text.trim().len() > LONGEST_STATEMENT {
                return Err("statement too long: SQLITE_TOOBIG".to_owned());
            }
            let started = Instant::now();
            // In a text of several statements, those without parameters take none.
            let given = if statement.parameter_count() == 0 && !alone { &[] } else { parameters.as_slice() };
            if statement.parameter_count() != given.len() {
                return Err("Wrong number of parameter bindings for SQL query.".to_owned());
            }
            let rows = sql::run(db, &mut statement, given).map_err(failed)?;
            results.push(result(db, &rows, shape, started.elapsed().as_secs_f64() * 1000.0));
        }
    }
    if results.is_empty() {
        return Err("No SQL statements detected.".to_owned());
    }
    transaction.commit().map_err(failed)?;
    Ok(results)
}

/// The maximum length of a statement. Source: Cloudflare docs, D1 › Limits.
const LONGEST_STATEMENT: usize = 100_000;

/// D1 refuses the statements by which code would manage transactions itself.
fn refuse_transactions(text: &str) -> Result<(), String> {
    let word: String = text.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    match word.to_ascii_uppercase().as_str() {
        "BEGIN" | "COMMIT" | "END" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => {
            Err(format!("D1 doesn't run {word}: use batch() for statements that belong together: SQLITE_AUTH"))
        }
        _ => Ok(()),
    }
}

fn cell(value: &Value) -> Result<Cell, String> {
    Ok(match value {
        Value::Null => Cell::Null,
        Value::Bool(truth) => Cell::Integer(i64::from(*truth)),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Cell::Real(number.as_f64().unwrap_or(f64::NAN)), Cell::Integer)
        }
        Value::String(text) => Cell::Text(text.clone()),
        Value::Array(bytes) => {
            let byte = |value: &Value| value.as_u64().and_then(|value| u8::try_from(value).ok());
            Cell::Blob(bytes.iter().map(byte).collect::<Option<_>>().ok_or("an array parameter must hold bytes")?)
        }
        Value::Object(_) => return Err("a parameter can't be an object".to_owned()),
    })
}

fn shown(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(number) => (*number).into(),
        Cell::Real(number) => (*number).into(),
        Cell::Text(text) => text.clone().into(),
        Cell::Blob(bytes) => bytes.clone().into(),
    }
}

fn result(db: &Connection, rows: &Rows, shape: Shape, milliseconds: f64) -> Value {
    let names = || rows.columns.iter().map(|(name, _)| name.clone());
    let table = || rows.rows.iter().map(|row| row.iter().map(shown).collect::<Vec<_>>());
    let results = match shape {
        Shape::Objects => table().map(|row| Value::Object(names().zip(row).collect::<Map<_, _>>())).collect(),
        Shape::Columns => json!({"columns": names().collect::<Vec<_>>(), "rows": table().collect::<Vec<_>>()}),
        Shape::None => json!([]),
    };
    // SQLite doesn't say how many rows it read, so this is how many it returned.
    let meta = json!({
        "served_by": "local", "served_by_region": "WEUR", "served_by_primary": true, "duration": milliseconds,
        "timings": {"sql_duration_ms": milliseconds}, "changes": rows.changes, "last_row_id": rows.last_id,
        "changed_db": rows.changes > 0, "size_after": size(db), "rows_read": rows.rows.len(), "rows_written": rows.changes,
    });
    json!({"success": true, "results": results, "meta": meta})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_statement_undoes_those_before_it() {
        let db = Connection::open_in_memory().unwrap();
        let run = |queries: Value| execute(&db, queries.as_array().unwrap(), Shape::Objects);
        run(json!([{"sql": "CREATE TABLE t (a INTEGER); -- and\nINSERT INTO t VALUES (?1)", "params": [7]}])).unwrap();
        let failed = run(json!([{"sql": "DELETE FROM t"}, {"sql": "SELECT nonsense FROM t"}])).unwrap_err();
        assert!(failed.starts_with("no such column: nonsense"), "{failed}");
        let found = run(json!([{"sql": "SELECT a, x'01ff' AS b FROM t"}])).unwrap();
        assert_eq!(found[0]["results"], json!([{"a": 7, "b": [1, 255]}]));
        assert!(run(json!([{"sql": " begin"}])).unwrap_err().contains("SQLITE_AUTH"));
        assert_eq!(run(json!([{"sql": "-- nothing"}])).unwrap_err(), "No SQL statements detected.");
    }
}
