//! Workers: upload, list, read, delete, and what wrangler calls their service. Knows a worker as a whole; its versions
//! and settings are in modules of their own.

use serde_json::{Value, json};

use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store::{self, Key, Version, Worker};
use super::upload::{UNVERSIONED, Upload};
use super::versions;
use super::workers::Loaded;
use super::{accounts, objects, triggers};

/// `GET …/workers/scripts`: every worker of the account on one page, as Cloudflare does.
pub fn list(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    cloud.store.read(|db| {
        let mut found = Vec::new();
        for worker in tagged(store::list(db, account, "")?, call.query("tags"))? {
            let version = store::serving(db, &worker)?;
            let mut shown = script(&worker, version.as_ref());
            shown["routes"] = triggers::of_script(db, &worker.key)?.into();
            found.push(shown);
        }
        Ok(Answer::ok(&found.into()))
    })
}

/// `GET …/workers/scripts-search`: workers by a part of their name, or by id.
pub fn search(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let mut found = cloud.store.read(|db| store::list(db, account, ""))?;
    found.retain(|worker| {
        call.query("name").is_none_or(|part| worker.key.name.contains(part))
            && call.query("id").is_none_or(|id| worker.tag == id)
    });
    if call.query("order_by").is_some_and(|order| order.starts_with("modified_on") || order.starts_with("created_on")) {
        found.sort_by(|a, b| b.modified.cmp(&a.modified));
    }
    let rows: Vec<Value> = found
        .iter()
        .map(|worker| {
            json!({
                "id": worker.tag, "script_name": worker.key.name, "service_name": worker.key.name,
                "environment_name": "production", "environment_is_default": true,
                "created_on": worker.created, "modified_on": worker.modified,
            })
        })
        .collect();
    Ok(Answer::page(&rows, call.number("page", 1)?, call.number("per_page", 10)?))
}

/// The workers that a filter `tag:yes,tag:no` lets through: all of the one and none of the other.
pub fn tagged(workers: Vec<Worker>, filter: Option<&str>) -> Result<Vec<Worker>, Refusal> {
    let mut wanted = Vec::new();
    for piece in filter.unwrap_or_default().split(',').filter(|piece| !piece.is_empty()) {
        wanted.push(match piece.rsplit_once(':') {
            Some((tag, "yes")) => (tag, true),
            Some((tag, "no")) => (tag, false),
            _ => {
                return Err(Refusal::new(400, 10004, format!("{piece:?} in tags isn't of the form tag:yes or tag:no")));
            }
        });
    }
    let mut workers = workers;
    workers.retain(|worker| wanted.iter().all(|(tag, yes)| tags(worker).iter().any(|has| has == tag) == *yes));
    Ok(workers)
}

/// A worker's tags.
pub fn tags(worker: &Worker) -> &[Value] {
    worker.settings.get("tags").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `PUT …/workers/scripts/{name}`, also of a namespace: a new version, live at once.
pub fn put(cloud: &Cloud, key: &Key, call: &Call, upload: &Upload, loaded: Option<&Loaded>) -> Outcome {
    check_name(&key.name)?;
    versions::strict(call)?;
    let now = cloud.now();
    cloud.store.write(|db| {
        let found = store::find(db, key)?;
        let worker = match found {
            Some(worker) => worker,
            None => create(cloud, db, key, call.source(), &now)?,
        };
        let previous = store::latest(db, worker.id)?;
        let serving = store::serving(db, &worker)?;
        if let Some(expected) = call.header("if-match")
            && previous
                .as_ref()
                .is_none_or(|version| !expected.split(',').any(|tag| tag.trim().trim_matches('"') == version.etag))
        {
            return Err(Refusal::new(412, 10018, "the e-tag does not match the current script"));
        }
        let version = versions::add(cloud, db, &worker, previous.as_ref(), (upload, loaded), call, &now)?;
        let deployment = versions::deploy(cloud, db, &worker, &version, &json!({}), call.source(), &now)?;
        let mut worker = worker;
        objects::apply(cloud, db, &mut worker, (serving.as_ref(), &version), &upload.metadata, loaded)?;
        for name in UNVERSIONED {
            // What isn't sent stays: wrangler sets tags by a later PATCH, and only when they changed.
            if let Some(value) = upload.metadata.get(name) {
                if name == "tail_consumers" {
                    versions::check_consumers(db, &key.account, value)?;
                }
                worker.settings.insert(name.to_owned(), value.clone());
            }
        }
        store::save(db, &worker, &now)?;
        worker.modified.clone_from(&now);
        call.source().clone_into(&mut worker.source);
        let mut shown = script(&worker, Some(&version));
        shown["startup_time_ms"] = version.startup_ms.into();
        shown["entry_point"] = version.main.clone().into();
        // Not in the schema; wrangler reads the version's id here.
        shown["deployment_id"] = version.id.clone().into();
        shown["pipeline_hash"] = deployment.into();
        Ok(Answer::ok(&shown).with("etag", format!("\"{}\"", version.etag)))
    })
}

fn create(cloud: &Cloud, db: &rusqlite::Connection, key: &Key, source: &str, now: &str) -> Result<Worker, Refusal> {
    if key.namespace.is_empty() {
        accounts::subdomain(db, &key.account)?;
        let workers = store::count(db, "SELECT workers FROM account WHERE id = ?1", &[&key.account])?;
        if workers >= cloud.limits.workers {
            let message = format!("You have exceeded the limit of {} Workers on your account.", cloud.limits.workers);
            return Err(Refusal::new(403, 10037, message));
        }
    }
    // A new worker isn't on workers.dev until a request enables it (wrangler sends that after the first upload).
    let sql =
        "INSERT INTO worker (account, namespace, name, tag, created, modified, source, enabled, previews, settings)
               VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, 0, 0, '{}')";
    store::run(db, sql, [&key.account, &key.namespace, &key.name, &cloud.store.seal.id(), now, source])?;
    store::get(db, key)
}

/// Names: the pattern of Cloudflare's OpenAPI document of 2024-08; at most 63 bytes, for the name is a DNS label on
/// workers.dev (docs, Workers; wrangler checks the same).
fn check_name(name: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > 63 || name.starts_with('-') || !name.bytes().all(allowed) {
        let message = format!(
            "invalid Worker name {name:?}: use lower-case letters, digits, _ and -, not - first, at most 63 bytes"
        );
        return Err(Refusal::new(400, 10016, message));
    }
    Ok(())
}

/// Returns a worker as the API shows it.
pub fn script(worker: &Worker, version: Option<&Version>) -> Value {
    let setting = |name: &str| worker.settings.get(name).cloned();
    let mut shown = json!({
        "id": worker.key.name, "tag": worker.tag, "tags": tags(worker),
        "created_on": worker.created, "modified_on": worker.modified, "last_deployed_from": worker.source,
        "logpush": setting("logpush").unwrap_or(false.into()),
        "tail_consumers": setting("tail_consumers"),
        "usage_model": "standard", "has_assets": version.is_some_and(|version| version.assets.is_some()),
    });
    if let Some(tag) = setting(objects::TAG) {
        shown[objects::TAG] = tag;
    }
    if let Some(observability) = setting("observability").filter(|value| !value.is_null()) {
        shown["observability"] = observability;
    }
    if let Some(version) = version {
        shown["etag"] = version.etag.clone().into();
        shown["has_modules"] = (!version.classic && !version.modules.is_empty()).into();
        shown["named_handlers"] = version.named_handlers.clone().into();
        if let Some(handlers) = &version.handlers {
            shown["handlers"] = handlers.clone().into();
        }
        for name in ["compatibility_date", "compatibility_flags", "placement", "cache_options"] {
            if let Some(value) = version.options.get(name) {
                shown[name] = value.clone();
            }
        }
    }
    shown
}

/// `GET …/content/v2`, and `GET` of the worker itself: its modules as a form, or the script of a classic worker.
pub fn content(cloud: &Cloud, key: &Key) -> Outcome {
    cloud.store.read(|db| {
        let worker = store::get(db, key)?;
        let version = store::serving(db, &worker)?.ok_or_else(Refusal::no_worker)?;
        if version.modules.is_empty() {
            return Err(Refusal::new(404, 10405, "This Worker has no content: it only has static assets."));
        }
        if version.classic {
            let body = store::module(db, &version.modules[0].hash)?;
            return Ok(Answer::bytes(200, "application/javascript", body).with("etag", version.etag));
        }
        // The hash of the content can't occur in the content.
        let boundary = format!("----{}", version.etag);
        let mut body = Vec::new();
        for module in &version.modules {
            let name = module.name.replace('"', "%22");
            let head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\nContent-Type: {}\r\n\r\n",
                module.content_type
            );
            body.extend_from_slice(head.as_bytes());
            body.extend(store::module(db, &module.hash)?);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        Ok(Answer::bytes(200, &format!("multipart/form-data; boundary={boundary}"), body)
            .with("etag", version.etag)
            .with("cf-entrypoint", version.main))
    })
}

/// `DELETE …/workers/scripts/{name}` and `DELETE …/workers/services/{name}`: the worker with its routes, domains and
/// schedules. Without `force` it is refused while another worker has a service binding to it.
pub fn delete(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    cloud.store.write(|db| {
        let worker = store::get(db, key)?;
        if !call.is_set("force") && key.namespace.is_empty() {
            let bound = "SELECT count(*) FROM worker JOIN version ON version.worker = worker.id AND version.id = worker.version,
                         json_each(version.body, '$.bindings') AS binding
                         WHERE worker.account = ?1 AND worker.name != ?2 AND instr(version.body, ?2)
                         AND json_extract(binding.value, '$.type') = 'service' AND json_extract(binding.value, '$.service') = ?2";
            let users = store::count(db, bound, &[&key.account, &key.name])?;
            if users > 0 {
                let name = &key.name;
                let message = format!("{users} other Workers have a service binding to {name}; delete with force=true");
                return Err(Refusal::new(400, 10064, message));
            }
        }
        remove(db, &worker)?;
        Ok(Answer::ok(&json!({"id": worker.tag})))
    })
}

/// Deletes a worker and all that points at it.
pub fn remove(db: &rusqlite::Connection, worker: &Worker) -> Result<(), Refusal> {
    if worker.key.namespace.is_empty() {
        for sql in [
            "DELETE FROM route WHERE account = ?1 AND script = ?2",
            "DELETE FROM domain WHERE account = ?1 AND service = ?2",
            "DELETE FROM schedule WHERE account = ?1 AND script = ?2",
            "DELETE FROM consumer WHERE script = ?2 AND queue IN (SELECT id FROM queue WHERE account = ?1)",
        ] {
            store::run(db, sql, [&worker.key.account, &worker.key.name])?;
        }
    }
    store::run(db, "DELETE FROM worker WHERE id = ?1", [worker.id])
}

/// `GET …/workers/services/{name}`: undocumented, wrangler's first request.
pub fn service(cloud: &Cloud, key: &Key) -> Outcome {
    cloud.store.read(|db| {
        let worker = store::find(db, key)?;
        let worker = worker.ok_or_else(|| Refusal::new(404, 10090, "workers.api.error.service_not_found"))?;
        let version = store::serving(db, &worker)?;
        let environment = json!({
            "environment": "production", "created_on": worker.created, "modified_on": worker.modified,
            "script": script(&worker, version.as_ref()), "script_tag": worker.tag, "deployment_id": worker.version,
        });
        Ok(Answer::ok(&json!({
            "id": worker.key.name, "created_on": worker.created, "modified_on": worker.modified,
            "default_environment": environment, "environments": [environment],
        })))
    })
}

/// `GET …/workers/workers/{name or id}`: the newer model of the same worker, which wrangler 4.164 reads.
pub fn beta(cloud: &Cloud, account: &str, name: &str) -> Outcome {
    cloud.store.read(|db| {
        let key = Key::of_account(account, name);
        let found = match store::find(db, &key)? {
            Some(worker) => Some(worker),
            None => store::list(db, account, "")?.into_iter().find(|worker| worker.tag == name),
        };
        let worker = found.ok_or_else(Refusal::no_worker)?;
        let setting = |name: &str, default: Value| worker.settings.get(name).cloned().unwrap_or(default);
        Ok(Answer::ok(&json!({
            "id": worker.tag, "name": worker.key.name, "created_on": worker.created, "updated_on": worker.modified,
            "deployed_on": worker.modified, "tags": tags(&worker), "logpush": setting("logpush", false.into()),
            "observability": setting("observability", json!({"enabled": false})),
            "tail_consumers": setting("tail_consumers", json!([])),
            "subdomain": {"enabled": worker.enabled, "previews_enabled": worker.previews},
            "references": {},
        })))
    })
}
