//! Dispatch namespaces of Workers for Platforms: sets of workers without limit of number. Knows the sets; what is done
//! with one script in them is in the modules for workers.

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::scripts::{remove, script, tagged};
use super::store::{self, Key, Worker};

/// The number of scripts that one delete by tag removes when no limit is given.
const BATCH: usize = 100;

const NAMESPACE: &str = "SELECT id, name, created, modified, trusted,
    (SELECT count(*) FROM worker WHERE worker.account = namespace.account AND worker.namespace = namespace.name) FROM namespace";

fn namespace(row: &rusqlite::Row<'_>) -> rusqlite::Result<Value> {
    let (id, name): (String, String) = (row.get(0)?, row.get(1)?);
    let (created, modified): (String, String) = (row.get(2)?, row.get(3)?);
    Ok(json!({
        "namespace_id": id, "namespace_name": name, "created_on": created, "created_by": "local", "modified_on": modified,
        "modified_by": "local", "trusted_workers": row.get::<_, bool>(4)?, "script_count": row.get::<_, i64>(5)?,
    }))
}

fn get(db: &Connection, account: &str, name: &str) -> Result<Value, Refusal> {
    let found = store::row(db, &format!("{NAMESPACE} WHERE account = ?1 AND name = ?2"), [account, name], namespace)?;
    found.ok_or_else(|| Refusal::new(404, 100_119, format!("there is no dispatch namespace {name}")))
}

/// Refuses (404, 100119) a script whose namespace doesn't exist.
///
/// # Errors
/// 404 (100119), and when the database fails.
pub fn check(cloud: &Cloud, key: &Key) -> Result<(), Refusal> {
    if key.namespace.is_empty() {
        return Ok(());
    }
    cloud.store.read(|db| get(db, &key.account, &key.namespace).map(drop))
}

/// `GET …/workers/dispatch/namespaces`.
pub fn list(cloud: &Cloud, account: &str) -> Outcome {
    let sql = format!("{NAMESPACE} WHERE account = ?1 ORDER BY name");
    cloud.store.read(|db| Ok(Answer::ok(&store::rows(db, &sql, [account], namespace)?.into())))
}

/// `POST …/workers/dispatch/namespaces`.
pub fn create(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let name = call.text("name")?;
    let trusted = call.json()?["trusted_workers"] == true;
    let now = cloud.now();
    cloud.store.write(|db| {
        if get(db, account, name).is_ok() {
            return Err(Refusal::new(409, 100_120, format!("there is already a dispatch namespace {name}")));
        }
        db.execute(
            "INSERT INTO namespace (id, account, name, created, modified, trusted) VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
            params![cloud.store.seal.uuid(), account, name, now, trusted],
        )?;
        Ok(Answer::ok(&get(db, account, name)?))
    })
}

/// `GET …/dispatch/namespaces/{name}`.
pub fn read(cloud: &Cloud, account: &str, name: &str) -> Outcome {
    cloud.store.read(|db| Ok(Answer::ok(&get(db, account, name)?)))
}

/// `DELETE …/dispatch/namespaces/{name}`, with its scripts.
pub fn delete(cloud: &Cloud, account: &str, name: &str) -> Outcome {
    cloud.store.write(|db| {
        get(db, account, name)?;
        db.execute("DELETE FROM worker WHERE account = ?1 AND namespace = ?2", [account, name])?;
        db.execute("DELETE FROM namespace WHERE account = ?1 AND name = ?2", [account, name])?;
        Ok(Answer::ok(&Value::Null))
    })
}

/// `GET …/{namespace}/scripts?tags=`: all on one page.
pub fn scripts(cloud: &Cloud, account: &str, name: &str, call: &Call) -> Outcome {
    cloud.store.read(|db| {
        get(db, account, name)?;
        let workers = tagged(store::list(db, account, name)?, call.query("tags"))?;
        let rows = workers.iter().map(|worker| in_namespace(db, worker)).collect::<Result<Vec<_>, _>>()?;
        Ok(Answer::ok(&rows.into()))
    })
}

/// `GET …/{namespace}/scripts/{name}`.
pub fn read_script(cloud: &Cloud, key: &Key) -> Outcome {
    cloud.store.read(|db| Ok(Answer::ok(&in_namespace(db, &store::get(db, key)?)?)))
}

fn in_namespace(db: &Connection, worker: &Worker) -> Result<Value, Refusal> {
    let version = store::serving(db, worker)?;
    Ok(json!({
        "created_on": worker.created, "modified_on": worker.modified, "dispatch_namespace": worker.key.namespace,
        "script": script(worker, version.as_ref()),
    }))
}

/// `DELETE …/{namespace}/scripts?tags=&limit=`: the answer has no envelope (OpenAPI document of 2026).
pub fn delete_tagged(cloud: &Cloud, account: &str, name: &str, call: &Call) -> Outcome {
    let filter = call.query("tags").filter(|tags| !tags.is_empty());
    let filter = filter.ok_or_else(|| Refusal::new(400, 10004, "tags is required"))?;
    let limit = call.number("limit", BATCH)?;
    cloud.store.write(|db| {
        get(db, account, name)?;
        let found = tagged(store::list(db, account, name)?, Some(filter))?;
        let mut deleted = Vec::new();
        for worker in found.iter().take(limit) {
            remove(db, worker)?;
            deleted.push(json!({"id": worker.key.name}));
        }
        let count = deleted.len();
        Ok(Answer::json(200, &json!({"deleted": deleted, "deleted_count": count, "has_more": found.len() > count})))
    })
}
