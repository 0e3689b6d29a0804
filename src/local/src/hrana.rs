//! libSQL over HTTP: the Hrana protocol, versions 2 and 3, as JSON (`POST /v2/pipeline`, `/v3/pipeline`). Knows streams
//! and statements; not who may use a database.
//!
//! A stream is a connection to one SQLite file. It lives on between requests under its baton, so that a transaction can
//! span several, and ends, rolled back, when unused for ten seconds.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use data_encoding::BASE64;
use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use serde_json::{Value, json};

use super::call::decode_base64;
use super::clock::Clock;
use super::seal::Seal;
use super::sql::{self, Parameter, Rows};

/// The time after which an unused stream ends; libSQL's server uses the same.
const IDLE: Duration = Duration::from_secs(10);

/// The open streams by their baton, of the databases in a folder.
pub struct Streams {
    folder: PathBuf,
    clock: Clock,
    open: Mutex<HashMap<String, Stream>>,
}

#[derive(Debug)]
struct Stream {
    db: Connection,
    host: String,
    texts: HashMap<i64, String>,
    used: Duration,
}

/// The error of a statement.
struct Failed {
    message: String,
    code: String,
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        let (code, message) = sql::failure(&error);
        Self { message: format!("SQLite error: {message}"), code: code.to_owned() }
    }
}

fn wrong(message: impl Into<String>) -> Failed {
    Failed { message: message.into(), code: "HRANA_PROTO_ERROR".to_owned() }
}

impl Streams {
    /// Returns no streams yet.
    #[must_use]
    pub fn new(folder: PathBuf, clock: Clock) -> Streams {
        Streams { folder, clock, open: Mutex::default() }
    }

    /// Answers a pipeline request to the database of `host`: status and JSON. The host must be a host name that is safe as
    /// a file name.
    pub fn pipeline(&self, seal: &Seal, host: &str, body: &[u8]) -> (u16, Value) {
        let body: Value = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(error) => {
                return (400, json!({"message": format!("the body isn't JSON: {error}"), "code": "HRANA_PROTO_ERROR"}));
            }
        };
        let mut stream = match self.take(host, body["baton"].as_str()) {
            Ok(stream) => stream,
            Err(failed) => return (400, json!({"message": failed.message, "code": failed.code})),
        };
        let mut results = Vec::new();
        let mut open = true;
        for request in body["requests"].as_array().into_iter().flatten() {
            open &= request["type"] != "close";
            results.push(match stream.answer(request) {
                Ok(response) => json!({"type": "ok", "response": response}),
                Err(failed) => json!({"type": "error", "error": {"message": failed.message, "code": failed.code}}),
            });
        }
        let baton = open.then(|| {
            let baton = seal.id();
            stream.used = (self.clock)();
            self.open.lock().insert(baton.clone(), stream);
            baton
        });
        (200, json!({"baton": baton, "base_url": null, "results": results}))
    }

    fn take(&self, host: &str, baton: Option<&str>) -> Result<Stream, Failed> {
        let now = (self.clock)();
        let mut open = self.open.lock();
        open.retain(|_, stream| stream.used + IDLE > now);
        let Some(baton) = baton else {
            drop(open);
            let db = sql::open(&self.folder, host)?;
            return Ok(Stream { db, host: host.to_owned(), texts: HashMap::new(), used: now });
        };
        open.remove(baton).filter(|stream| stream.host == host).ok_or_else(|| Failed {
            message: "the stream has expired or the baton is wrong".to_owned(),
            code: "STREAM_EXPIRED".to_owned(),
        })
    }
}

impl Stream {
    fn answer(&mut self, request: &Value) -> Result<Value, Failed> {
        let kind = request["type"].as_str().unwrap_or_default();
        Ok(match kind {
            "close" => json!({"type": kind}),
            "execute" => json!({"type": kind, "result": self.execute(&request["stmt"])?}),
            "batch" => json!({"type": kind, "result": self.batch(&request["batch"])?}),
            "sequence" => {
                let text = self.text(request)?;
                self.db.execute_batch(&text)?;
                json!({"type": kind})
            }
            "describe" => json!({"type": kind, "result": self.describe(&self.text(request)?)?}),
            "store_sql" => {
                let id = request["sql_id"].as_i64().ok_or_else(|| wrong("sql_id must be a number"))?;
                self.texts.insert(id, request["sql"].as_str().ok_or_else(|| wrong("sql must be text"))?.to_owned());
                json!({"type": kind})
            }
            "close_sql" => {
                self.texts.remove(&request["sql_id"].as_i64().unwrap_or(-1));
                json!({"type": kind})
            }
            "get_autocommit" => json!({"type": kind, "is_autocommit": self.db.is_autocommit()}),
            other => return Err(wrong(format!("unknown request type {other:?}"))),
        })
    }

    fn text(&self, holder: &Value) -> Result<String, Failed> {
        match (holder["sql"].as_str(), holder["sql_id"].as_i64()) {
            (Some(text), _) => Ok(text.to_owned()),
            (None, Some(id)) => self.texts.get(&id).cloned().ok_or_else(|| wrong(format!("no text is stored as {id}"))),
            (None, None) => Err(wrong("sql or sql_id is required")),
        }
    }

    fn execute(&self, statement: &Value) -> Result<Value, Failed> {
        let mut parameters = Vec::new();
        for value in statement["args"].as_array().into_iter().flatten() {
            parameters.push(Parameter::Next(cell(value)?));
        }
        for named in statement["named_args"].as_array().into_iter().flatten() {
            parameters
                .push(Parameter::Named(named["name"].as_str().unwrap_or_default().to_owned(), cell(&named["value"])?));
        }
        let text = self.text(statement)?;
        let mut prepared = self.db.prepare(&text)?;
        let rows = sql::run(&self.db, &mut prepared, &parameters)?;
        Ok(shown(&rows, statement["want_rows"] != false))
    }

    fn batch(&self, batch: &Value) -> Result<Value, Failed> {
        let (mut results, mut errors): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        for step in batch["steps"].as_array().into_iter().flatten() {
            let condition = &step["condition"];
            let (mut result, mut error) = (Value::Null, Value::Null);
            if condition.is_null() || self.holds(condition, &results, &errors)? {
                match self.execute(&step["stmt"]) {
                    Ok(done) => result = done,
                    Err(failed) => error = json!({"message": failed.message, "code": failed.code}),
                }
            }
            results.push(result);
            errors.push(error);
        }
        Ok(json!({"step_results": results, "step_errors": errors}))
    }

    fn holds(&self, condition: &Value, results: &[Value], errors: &[Value]) -> Result<bool, Failed> {
        let step = |of: &[Value]| -> Result<bool, Failed> {
            let at = condition["step"].as_u64().and_then(|at| usize::try_from(at).ok());
            let value = at.and_then(|at| of.get(at)).ok_or_else(|| wrong("a condition names a later step"))?;
            Ok(!value.is_null())
        };
        let conditions = || condition["conds"].as_array().into_iter().flatten();
        match condition["type"].as_str() {
            Some("ok") => step(results),
            Some("error") => step(errors),
            Some("not") => Ok(!self.holds(&condition["cond"], results, errors)?),
            Some("and") => conditions().try_fold(true, |all, one| Ok(all && self.holds(one, results, errors)?)),
            Some("or") => conditions().try_fold(false, |any, one| Ok(any || self.holds(one, results, errors)?)),
            Some("is_autocommit") => Ok(self.db.is_autocommit()),
            other => Err(wrong(format!("unknown condition {other:?}"))),
        }
    }

    fn describe(&self, text: &str) -> Result<Value, Failed> {
        let prepared = self.db.prepare(text)?;
        let parameters: Vec<Value> =
            (1..=prepared.parameter_count()).map(|index| json!({"name": prepared.parameter_name(index)})).collect();
        let columns: Vec<Value> =
            prepared.columns().map(|column| json!({"name": column.name(), "decltype": column.decl_type()})).collect();
        Ok(json!({
            "params": parameters, "cols": columns, "is_explain": prepared.is_explain() != 0, "is_readonly": prepared.readonly(),
        }))
    }
}

fn cell(value: &Value) -> Result<Cell, Failed> {
    let bad = || wrong(format!("a value of type {} is malformed", value["type"]));
    Ok(match value["type"].as_str() {
        Some("null") => Cell::Null,
        // Numbers of 64 bits don't fit in JSON's, so the protocol writes them as text.
        Some("integer") => Cell::Integer(value["value"].as_str().and_then(|text| text.parse().ok()).ok_or_else(bad)?),
        Some("float") => Cell::Real(value["value"].as_f64().ok_or_else(bad)?),
        Some("text") => Cell::Text(value["value"].as_str().ok_or_else(bad)?.to_owned()),
        Some("blob") => Cell::Blob(value["base64"].as_str().and_then(decode_base64).ok_or_else(bad)?),
        _ => return Err(bad()),
    })
}

fn shown(rows: &Rows, want_rows: bool) -> Value {
    let value = |cell: &Cell| match cell {
        Cell::Null => json!({"type": "null"}),
        Cell::Integer(number) => json!({"type": "integer", "value": number.to_string()}),
        Cell::Real(number) => json!({"type": "float", "value": number}),
        Cell::Text(text) => json!({"type": "text", "value": text}),
        Cell::Blob(bytes) => json!({"type": "blob", "base64": BASE64.encode(bytes)}),
    };
    let table: Vec<Vec<Value>> = match want_rows {
        true => rows.rows.iter().map(|row| row.iter().map(value).collect()).collect(),
        false => Vec::new(),
    };
    let columns: Vec<Value> = rows.columns.iter().map(|(name, kind)| json!({"name": name, "decltype": kind})).collect();
    json!({
        "cols": columns, "rows": table, "affected_row_count": rows.changes, "last_insert_rowid": rows.last_id.to_string(),
        "replication_index": null, "rows_read": rows.rows.len(), "rows_written": rows.changes, "query_duration_ms": 0.0,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::Options;
    use crate::cloud::Cloud;

    fn cloud() -> (tempfile::TempDir, Arc<AtomicU64>, Cloud) {
        let (folder, now) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(0)));
        let clock = now.clone();
        let clock: crate::Clock = Arc::new(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
        let cloud = Cloud::open(Options { clock, ..Options::new(folder.path()) }).unwrap();
        (folder, now, cloud)
    }

    fn send(cloud: &Cloud, baton: &Value, requests: Value) -> (u16, Value) {
        let body = json!({"baton": baton, "requests": requests}).to_string();
        cloud.streams.pipeline(&cloud.store.seal, "acme.turso.io", body.as_bytes())
    }

    fn run(sql: &str) -> Value {
        json!({"type": "execute", "stmt": {"sql": sql}})
    }

    #[test]
    fn values_of_every_type_come_back_as_they_went() {
        let (_folder, _, cloud) = cloud();
        let args = json!([
            {"type": "null"}, {"type": "integer", "value": "9223372036854775807"}, {"type": "float", "value": 0.5},
            {"type": "text", "value": "é"}, {"type": "blob", "base64": "AP8="},
        ]);
        let statement = json!({"sql": "SELECT ?, ?, ?, ?, ?", "args": args});
        let (status, answer) =
            send(&cloud, &Value::Null, json!([{"type": "execute", "stmt": statement}, {"type": "close"}]));
        assert_eq!((status, &answer["baton"]), (200, &Value::Null));
        assert_eq!(answer["results"][0]["response"]["result"]["rows"][0], args);
    }

    #[test]
    fn a_transaction_spans_requests_and_ends_with_its_stream() {
        let (_folder, now, cloud) = cloud();
        let none = Value::Null;
        send(
            &cloud,
            &none,
            json!([{"type": "sequence", "sql": "CREATE TABLE t (a); CREATE TABLE u (a)"}, {"type": "close"}]),
        );
        let (_, begun) =
            send(&cloud, &none, json!([run("BEGIN"), run("INSERT INTO t VALUES (1)"), {"type": "get_autocommit"}]));
        assert_eq!(begun["results"][2]["response"]["is_autocommit"], false);
        let baton = begun["baton"].clone();
        let (_, committed) = send(&cloud, &baton, json!([run("COMMIT"), {"type": "close"}]));
        assert_eq!(committed["results"][0]["type"], "ok", "{committed}");
        assert_eq!(send(&cloud, &baton, json!([])).0, 400, "a baton works once");

        let (_, begun) = send(&cloud, &none, json!([run("BEGIN"), run("INSERT INTO t VALUES (2)")]));
        now.fetch_add(11, Ordering::Relaxed);
        assert_eq!(send(&cloud, &begun["baton"], json!([run("COMMIT")])).0, 400, "an idle stream expires");
        let (_, count) = send(&cloud, &none, json!([run("SELECT count(*) FROM t"), {"type": "close"}]));
        assert_eq!(count["results"][0]["response"]["result"]["rows"][0][0]["value"], "1");
    }

    #[test]
    fn a_batch_follows_its_conditions() {
        let (_folder, _, cloud) = cloud();
        let step = |sql: &str, condition: Value| json!({"stmt": {"sql": sql}, "condition": condition});
        let batch = json!({"steps": [
            step("SELECT 1", Value::Null),
            step("SELECT nonsense", json!({"type": "ok", "step": 0})),
            step("SELECT 2", json!({"type": "ok", "step": 1})),
            step("SELECT 3", json!({"type": "and", "conds": [{"type": "error", "step": 1}, {"type": "not", "cond": {"type": "ok", "step": 2}}]})),
            step("SELECT 4", json!({"type": "or", "conds": [{"type": "ok", "step": 2}, {"type": "is_autocommit"}]})),
        ]});
        let (_, answer) = send(&cloud, &Value::Null, json!([{"type": "batch", "batch": batch}, {"type": "close"}]));
        let result = &answer["results"][0]["response"]["result"];
        let ran: Vec<bool> =
            result["step_results"].as_array().unwrap().iter().map(|result| !result.is_null()).collect();
        assert_eq!(ran, [true, false, false, true, true]);
        assert!(result["step_errors"][1]["message"].as_str().unwrap().contains("no such column"));
    }

    #[test]
    fn stored_texts_and_descriptions() {
        let (_folder, _, cloud) = cloud();
        let requests = json!([
            {"type": "store_sql", "sql_id": 1, "sql": "SELECT :a AS x"},
            {"type": "describe", "sql_id": 1},
            {"type": "execute", "stmt": {"sql_id": 1, "named_args": [{"name": "a", "value": {"type": "integer", "value": "5"}}]}},
            {"type": "close_sql", "sql_id": 1},
            {"type": "execute", "stmt": {"sql_id": 1}},
        ]);
        let (_, answer) = send(&cloud, &Value::Null, requests);
        let results = &answer["results"];
        assert_eq!(results[1]["response"]["result"]["params"], json!([{"name": ":a"}]));
        assert_eq!(results[2]["response"]["result"]["rows"], json!([[{"type": "integer", "value": "5"}]]));
        assert_eq!(results[4]["type"], "error");
    }
}
