//! Versions and deployments of a worker: a version is uploaded code with its bindings, a deployment makes one (or two,
//! by percentage) serve. Knows their rows; not how code runs.

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::call::Call;
use super::capnp::database_id;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store::{self, Key, Version, Worker};
use super::upload::{Upload, is_secret, shown};
use super::workers::Loaded;
use super::{assets, databases, kv, objects, queues};

/// Refuses bindings to what isn't there. The codes are those that wrangler's users report.
///
/// # Errors
/// 400: 10181 for a D1 database, 10041 for a KV namespace, 10143 for a service, 10061 for a class of another worker, 100119 for a dispatch
/// namespace.
pub fn check_references(cloud: &Cloud, db: &Connection, own: &Key, bindings: &[Value]) -> Result<(), Refusal> {
    let account = own.account.as_str();
    let text = |binding: &Value, field: &str| binding[field].as_str().unwrap_or_default().to_owned();
    for binding in bindings {
        let name = text(binding, "name");
        let exists = |sql: &str, id: &str| store::has(db, sql, [account, id]);
        let (found, code, what) = match binding["type"].as_str().unwrap_or_default() {
            "d1" => {
                let id = database_id(binding);
                if cloud.make_bound {
                    databases::make(db, account, id, &cloud.now())?;
                }
                (exists("SELECT 1 FROM d1 WHERE account = ?1 AND id = ?2", id)?, 10181, format!("database {id:?}"))
            }
            "kv_namespace" => {
                let id = text(binding, "namespace_id");
                if cloud.make_bound {
                    kv::make(db, account, &id)?;
                }
                let found = exists("SELECT 1 FROM kv_namespace WHERE account = ?1 AND id = ?2", &id)?;
                (found, 10041, format!("KV namespace {id:?}"))
            }
            "queue" if cloud.make_bound => {
                queues::make(cloud, db, account, &text(binding, "queue_name"))?;
                continue;
            }
            "service" => {
                let name = text(binding, "service");
                (store::find(db, &Key::of_account(account, &name))?.is_some(), 10143, format!("Worker {name:?}"))
            }
            "durable_object_namespace" => {
                objects::check_reference(db, own, &text(binding, "script_name"), &text(binding, "class_name"))?;
                continue;
            }
            "dispatch_namespace" => {
                let name = text(binding, "namespace");
                let found = exists("SELECT 1 FROM namespace WHERE account = ?1 AND name = ?2", &name)?;
                (found, 100_119, format!("dispatch namespace {name:?}"))
            }
            _ => continue,
        };
        if !found {
            return Err(Refusal::new(400, code, format!("binding {name} references {what}, which was not found")));
        }
    }
    Ok(())
}

/// Refuses consumers of logs that aren't there.
///
/// # Errors
/// 400 (10203; source: workers-sdk, issue 8275).
pub fn check_consumers(db: &Connection, account: &str, consumers: &Value) -> Result<(), Refusal> {
    let names = consumers.as_array().into_iter().flatten().filter_map(|consumer| consumer["service"].as_str());
    for name in names {
        if store::find(db, &Key::of_account(account, name))?.is_none() {
            let message = "Tail Worker does not exist on this account. Check the Worker name and try again.";
            return Err(Refusal::new(400, 10203, message));
        }
    }
    Ok(())
}

/// Stores the version that an upload makes of a worker, with its modules.
///
/// # Errors
/// Those of [`Upload::version`], and when a binding references what isn't there.
pub fn add(
    cloud: &Cloud,
    db: &Connection,
    worker: &Worker,
    previous: Option<&Version>,
    upload: (&Upload, Option<&Loaded>),
    call: &Call,
    now: &str,
) -> Result<Version, Refusal> {
    let (upload, loaded) = upload;
    let mut version = upload.version(&cloud.store, &cloud.limits, cloud.keep_secrets, previous, strict(call)?)?;
    check_references(cloud, db, &worker.key, &version.bindings)?;
    version.assets = assets::of_upload(cloud, db, &worker.key, &upload.metadata, previous)?;
    for (module, body) in &upload.modules {
        store::keep_module(db, &module.hash, body)?;
    }
    if let Some(loaded) = loaded {
        version.handlers = Some(loaded.handlers.clone());
        version.named_handlers.clone_from(&loaded.named);
        version.startup_ms = loaded.startup_ms;
    }
    save(cloud, db, worker, version, previous, call.source(), now)
}

/// Stores a version under the next number, and drops the oldest ones beyond the limit.
fn save(
    cloud: &Cloud,
    db: &Connection,
    worker: &Worker,
    version: Version,
    previous: Option<&Version>,
    source: &str,
    now: &str,
) -> Result<Version, Refusal> {
    let number = previous.map_or(0, |version| version.number) + 1;
    let version = Version { number, created: now.to_owned(), source: source.to_owned(), ..version };
    let body = serde_json::to_string(&version).map_err(|error| Refusal::new(500, 10002, error.to_string()))?;
    let sql = "INSERT INTO version (id, worker, number, body) VALUES (?1, ?2, ?3, ?4)";
    store::run(db, sql, params![version.id, worker.id, version.number, body])?;
    // A script of a namespace has no versions to go back to (docs, Workers for Platforms limits, 2026).
    let kept = if worker.key.namespace.is_empty() { cloud.limits.versions } else { 1 };
    let oldest = version.number - i64::try_from(kept).unwrap_or(i64::MAX);
    if oldest > 0 {
        let sql = "DELETE FROM version WHERE worker = ?1 AND number <= ?2 AND id IS NOT ?3";
        store::run(db, sql, params![worker.id, oldest, worker.version])?;
    }
    Ok(version)
}

/// Makes a version serve, alone. Returns the deployment's id.
pub fn deploy(
    cloud: &Cloud,
    db: &Connection,
    worker: &Worker,
    version: &Version,
    annotations: &Value,
    source: &str,
    now: &str,
) -> Result<String, Refusal> {
    let versions = json!([{"version_id": version.id, "percentage": 100}]);
    let deployment = deployment(cloud, &versions, annotations, source, now);
    record(db, worker, version, &deployment, source, now)?;
    Ok(deployment["id"].as_str().unwrap_or_default().to_owned())
}

fn deployment(cloud: &Cloud, versions: &Value, annotations: &Value, source: &str, now: &str) -> Value {
    json!({
        "id": cloud.store.seal.uuid(), "source": source, "strategy": "percentage", "created_on": now,
        "author_email": "local@example.com", "versions": versions, "annotations": annotations,
    })
}

fn record(
    db: &Connection,
    worker: &Worker,
    version: &Version,
    deployment: &Value,
    source: &str,
    now: &str,
) -> Result<(), Refusal> {
    let values = params![deployment["id"].as_str(), worker.id, deployment.to_string()];
    store::run(db, "INSERT INTO deployment (id, worker, body) VALUES (?1, ?2, ?3)", values)?;
    let older = "DELETE FROM deployment WHERE worker = ?1 AND number IN
                 (SELECT number FROM deployment WHERE worker = ?1 ORDER BY number DESC LIMIT -1 OFFSET 100)";
    store::run(db, older, [worker.id])?;
    let sql = "UPDATE worker SET version = ?2, source = ?3, modified = ?4, libsql = ?5 WHERE id = ?1";
    store::run(db, sql, params![worker.id, version.id, source, now, libsql_host(&version.bindings)])
}

/// The host of the libSQL database that a worker is bound to: that of `TURSO_DATABASE_URL`.
fn libsql_host(bindings: &[Value]) -> Option<String> {
    let url =
        bindings.iter().find(|binding| binding["name"] == "TURSO_DATABASE_URL" && binding["type"] == "plain_text")?;
    let (scheme, rest) = url["text"].as_str()?.split_once("://")?;
    let host = rest.split(['/', ':', '?', '#']).next()?.to_ascii_lowercase();
    let known = scheme == "libsql" || (scheme == "https" && host.ends_with(".turso.io"));
    (known && !host.is_empty()).then_some(host)
}

/// The query `bindings_inherit`: whether an inherited binding that doesn't exist is an error.
pub fn strict(call: &Call) -> Result<bool, Refusal> {
    match call.query("bindings_inherit") {
        None => Ok(false),
        Some("strict") => Ok(true),
        Some(other) => Err(Refusal::new(400, 10004, format!("bindings_inherit can only be strict, not {other:?}"))),
    }
}

/// `POST …/versions`: a version that doesn't serve yet.
pub fn create(cloud: &Cloud, key: &Key, call: &Call, upload: &Upload, loaded: Option<&Loaded>) -> Outcome {
    strict(call)?;
    objects::refuse(&upload.metadata)?;
    let now = cloud.now();
    cloud.store.write(|db| {
        let worker = store::get(db, key)?;
        let previous = store::latest(db, worker.id)?;
        let version = add(cloud, db, &worker, previous.as_ref(), (upload, loaded), call, &now)?;
        let mut shown = full(&worker, &version);
        shown["startup_time_ms"] = version.startup_ms.into();
        Ok(Answer::ok(&shown))
    })
}

/// `GET …/versions`: newest first; all of them with `deployable=true`, else a page.
pub fn list(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let (page, per_page) = (call.number("page", 1)?.max(1), call.number("per_page", 10)?.max(1));
    let versions = cloud.store.read(|db| store::versions(db, store::get(db, key)?.id, -1))?;
    let rows: Vec<Value> = versions.iter().map(brief).collect();
    let shown: Vec<&Value> = match call.is_set("deployable") {
        true => rows.iter().collect(),
        false => rows.iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect(),
    };
    let info = json!({"page": page, "per_page": per_page, "count": shown.len(), "total_count": rows.len()});
    let items = json!({"items": shown});
    Ok(Answer::json(200, &json!({"success": true, "errors": [], "messages": [], "result": items, "result_info": info})))
}

/// `GET …/versions/{id}`.
pub fn read(cloud: &Cloud, key: &Key, id: &str) -> Outcome {
    cloud.store.read(|db| {
        let worker = store::get(db, key)?;
        Ok(Answer::ok(&full(&worker, &store::version(db, worker.id, id)?)))
    })
}

fn brief(version: &Version) -> Value {
    json!({
        "id": version.id, "number": version.number, "annotations": version.options.get("annotations"),
        "metadata": {
            "created_on": version.created, "modified_on": version.created, "source": version.source,
            "author_id": "local", "author_email": "local@example.com", "hasPreview": false, "has_preview": false,
        },
    })
}

fn full(worker: &Worker, version: &Version) -> Value {
    let mut shown_version = brief(version);
    let mut runtime = json!({"usage_model": "standard"});
    for name in ["compatibility_date", "compatibility_flags", "limits"] {
        if let Some(value) = version.options.get(name) {
            runtime[name] = value.clone();
        }
    }
    let mut script =
        json!({"etag": version.etag, "named_handlers": version.named_handlers, "last_deployed_from": worker.source});
    if let Some(handlers) = &version.handlers {
        script["handlers"] = handlers.clone().into();
    }
    shown_version["resources"] =
        json!({"script": script, "bindings": shown(&version.bindings), "script_runtime": runtime});
    shown_version
}

/// `GET …/deployments` and `GET …/deployments/{id}`: newest first; the first is the active one.
pub fn deployments(cloud: &Cloud, key: &Key, id: Option<&str>) -> Outcome {
    cloud.store.read(|db| {
        let worker = store::get(db, key)?;
        let sql = "SELECT body FROM deployment WHERE worker = ?1 ORDER BY number DESC";
        let bodies: Vec<String> = store::rows(db, sql, [worker.id], |row| row.get(0))?;
        let all: Vec<Value> = bodies.iter().filter_map(|body| serde_json::from_str(body).ok()).collect();
        match id {
            None => Ok(Answer::ok(&json!({"deployments": all.iter().take(10).collect::<Vec<_>>()}))),
            Some(id) => match all.iter().find(|deployment| deployment["id"] == id) {
                Some(found) => Ok(Answer::ok(found)),
                None => Err(Refusal::new(404, 10056, format!("this Worker has no deployment {id}"))),
            },
        }
    })
}

/// `POST …/deployments`: makes one version serve, or two by percentage (the emulator then serves the larger one).
pub fn post_deployment(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let body = call.json()?;
    let versions = body["versions"].as_array().filter(|versions| matches!(versions.len(), 1 | 2));
    let versions = versions.ok_or_else(|| Refusal::invalid("a deployment has one or two versions"))?;
    let percentage = |version: &Value| version["percentage"].as_f64().unwrap_or(-1.0);
    let sum: f64 = versions.iter().map(percentage).sum();
    if body["strategy"] != "percentage"
        || versions.iter().any(|version| percentage(version) < 0.0)
        || (sum - 100.0).abs() > 1e-9
    {
        return Err(Refusal::invalid("the strategy must be percentage and the percentages must sum up to 100"));
    }
    let now = cloud.now();
    cloud.store.write(|db| {
        let worker = store::get(db, key)?;
        let active = store::serving(db, &worker)?;
        let mut serving: Option<(f64, Version)> = None;
        for sent in versions {
            let version = store::version(db, worker.id, sent["version_id"].as_str().unwrap_or_default())?;
            if !call.is_set("force") {
                check_secrets(cloud, active.as_ref(), &version)?;
            }
            if serving.as_ref().is_none_or(|(most, _)| percentage(sent) > *most) {
                serving = Some((percentage(sent), version));
            }
        }
        let Some((_, version)) = serving else { unreachable!("BUG: there are one or two versions") };
        let annotations = body.get("annotations").cloned().unwrap_or(json!({}));
        let deployment = deployment(cloud, &body["versions"], &annotations, call.source(), &now);
        record(db, &worker, &version, &deployment, call.source(), &now)?;
        Ok(Answer::ok(&deployment))
    })
}

/// An older version may not bring back an older secret unless forced (docs, Workers rollbacks, 2026: 10220).
fn check_secrets(cloud: &Cloud, active: Option<&Version>, target: &Version) -> Result<(), Refusal> {
    let Some(active) = active.filter(|active| active.number > target.number) else { return Ok(()) };
    let secrets = |version: &Version| -> Vec<(String, Option<String>)> {
        let mut secrets: Vec<_> = version
            .bindings
            .iter()
            .filter(|binding| is_secret(binding))
            .map(|binding| {
                (
                    binding["name"].to_string(),
                    binding["sealed"].as_str().and_then(|sealed| cloud.store.seal.unseal(sealed)),
                )
            })
            .collect();
        secrets.sort();
        secrets
    };
    if secrets(active) != secrets(target) {
        let message =
            "a secret changed since this version was deployed; use force=true to deploy it with its older secrets";
        return Err(Refusal::new(400, 10220, message));
    }
    Ok(())
}

/// Stores and deploys a version that differs from the active one in bindings or options only: what an edit of a secret
/// or of the settings does.
///
/// # Errors
/// 400 (10215) when the newest version isn't the deployed one; those of `edit`.
pub fn edit(
    cloud: &Cloud,
    db: &Connection,
    worker: &Worker,
    call: &Call,
    edit: impl FnOnce(&mut Version) -> Result<(), Refusal>,
) -> Result<Version, Refusal> {
    let latest = store::latest(db, worker.id)?.ok_or_else(Refusal::no_worker)?;
    if worker.version.as_ref() != Some(&latest.id) {
        let message = "the latest version of the Worker isn't deployed; deploy it before editing secrets or settings";
        return Err(Refusal::new(400, 10215, message));
    }
    let now = cloud.now();
    let mut version = Version { id: cloud.store.seal.uuid(), ..latest.clone() };
    edit(&mut version)?;
    let version = save(cloud, db, worker, version, Some(&latest), call.source(), &now)?;
    deploy(cloud, db, worker, &version, &json!({"workers/triggered_by": "edit"}), call.source(), &now)?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libsql_hosts() {
        for (url, expect) in [
            ("libsql://acme.turso.io", Some("acme.turso.io")),
            ("libsql://Acme.example.com:8080/x?tls=0", Some("acme.example.com")),
            ("https://acme.turso.io/", Some("acme.turso.io")),
            ("https://acme.example.com", None),
            ("libsql://", None),
            ("acme", None),
        ] {
            let bindings = [json!({"name": "TURSO_DATABASE_URL", "type": "plain_text", "text": url})];
            assert_eq!(libsql_host(&bindings).as_deref(), expect, "{url}");
        }
    }
}
