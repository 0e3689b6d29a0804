//! Static assets: upload sessions, the files by their hashes, and which of them a version has. Knows what is stored; how it is served is in
//! `asset_service`.
//!
//! Files are stored once for each worker of an account, and once for all workers of a dispatch namespace (cloudflare-docs, Workers for
//! Platforms › Static assets, 2026). Which other clients there are is wrangler alone: what it sends and reads is taken from there and from
//! the SDK cloudflare-typescript 7.3.0 (`workers.scripts.assets`, `workers.assets.upload`), as the OpenAPI document has neither.

use std::collections::BTreeMap;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use flotilla_assets::{HASH_LENGTH, MOST_BYTES, headers, redirects, routing};
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

use super::asset_service::worker_first;
use super::asset_store::{self, File, List, keep_list, list, missing, scope};
use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store::{self, Key, Version, VersionAssets};

/// The seconds for which a session is valid, and for which its files can be deployed (cloudflare-docs, Workers › Direct uploads, 2026).
const LIFETIME: u64 = 3600;
/// The maximum size, in bytes, and number of files of a bucket, which is uploaded by one request.
const BUCKET_BYTES: u64 = 32 << 20;
const BUCKET_FILES: usize = 500;
/// The code for `_redirects` that can't be used, as wrangler's users report it.
const BAD_REDIRECTS: u32 = 100_324;

/// `POST …/assets-upload-session`: which files of a list are to be uploaded, in buckets.
pub fn open(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let manifest = call.json()?["manifest"].clone();
    let list: List =
        serde_json::from_value(manifest).map_err(|error| Refusal::unparseable(format!("manifest: {error}")))?;
    check(cloud, &list)?;
    let (scope, now) = (scope(key), (cloud.clock)().as_secs());
    cloud.store.write(|db| {
        store::run(db, "DELETE FROM asset_session WHERE expires < ?1", [now.cast_signed()])?;
        let id = keep_list(db, &scope, &list)?;
        let missing = missing(db, &scope, &list)?;
        let token = session(cloud, db, key, &id, missing.is_empty())?;
        let mut buckets: Vec<(u64, Vec<&str>)> = Vec::new();
        for (hash, size) in &missing {
            match buckets.last_mut() {
                Some((bytes, files)) if *bytes + size <= BUCKET_BYTES && files.len() < BUCKET_FILES => {
                    *bytes += size;
                    files.push(hash);
                }
                _ => buckets.push((*size, vec![hash])),
            }
        }
        let buckets: Vec<Vec<&str>> = buckets.into_iter().map(|(_, files)| files).collect();
        Ok(Answer::ok(&json!({"jwt": token, "buckets": buckets})))
    })
}

fn check(cloud: &Cloud, list: &List) -> Result<(), Refusal> {
    if list.len() > cloud.limits.asset_files {
        return Err(Refusal::invalid(format!("{} assets, more than {}", list.len(), cloud.limits.asset_files)));
    }
    for (path, File { hash, size }) in list {
        if !path.starts_with('/') {
            return Err(Refusal::invalid(format!("the asset {path:?} has a path that doesn't begin with /")));
        }
        let is_hash = hash.len() == HASH_LENGTH && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            return Err(Refusal::invalid(format!("the hash of {path:?} isn't {HASH_LENGTH} hexadecimal digits")));
        }
        if *size > MOST_BYTES {
            return Err(Refusal::invalid(format!("the asset {path:?} is {size} bytes, more than {MOST_BYTES}")));
        }
    }
    Ok(())
}

/// Makes a token: of a session, or of one whose files are all there.
fn session(cloud: &Cloud, db: &Connection, key: &Key, list: &str, is_complete: bool) -> Result<String, Refusal> {
    let now = (cloud.clock)().as_secs();
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let head = part(&json!({"alg": "HS256", "typ": "JWT"}));
    let body = part(&json!({"iat": now, "exp": now + LIFETIME, "script": key.name, "complete": is_complete}));
    let token = format!("{head}.{body}.{}", cloud.store.seal.id());
    let sql = "INSERT INTO asset_session (token, account, namespace, name, list, expires, complete) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let values =
        params![token, key.account, key.namespace, key.name, list, (now + LIFETIME).cast_signed(), is_complete];
    store::run(db, sql, values)?;
    Ok(token)
}

/// A session that a token is of.
struct Session {
    key: Key,
    list: String,
}

fn find(cloud: &Cloud, db: &Connection, token: &str, is_complete: bool) -> Result<Option<Session>, Refusal> {
    let sql =
        "SELECT account, namespace, name, list FROM asset_session WHERE token = ?1 AND complete = ?2 AND expires > ?3";
    let now = (cloud.clock)().as_secs().cast_signed();
    store::row(db, sql, params![token, is_complete, now], |row| {
        let (account, namespace, name): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Session { key: Key::new(&account, &namespace, &name), list: row.get(3)? })
    })
}

/// `POST …/workers/assets/upload?base64=true`: the files of a bucket. The session's token takes the place of the account's.
pub fn upload(cloud: &Cloud, account: &str, token: &str, call: &Call) -> Outcome {
    let parts = call.form()?;
    if !call.is_set("base64") {
        return Err(Refusal::invalid("files have to be encoded in base64: base64=true"));
    }
    cloud.store.write(|db| {
        let session = find(cloud, db, token, false)?.filter(|session| session.key.account == account);
        let session =
            session.ok_or_else(|| Refusal::new(401, 10000, "the upload session's token is invalid or expired"))?;
        let (list, scope) = (list(db, &session.list)?, scope(&session.key));
        let sizes: BTreeMap<&str, u64> = list.values().map(|file| (file.hash.as_str(), file.size)).collect();
        for part in parts {
            let size = *sizes
                .get(part.name.as_str())
                .ok_or_else(|| Refusal::invalid(format!("the file {:?} is none of the upload session's", part.name)))?;
            let body = BASE64
                .decode(&part.body)
                .map_err(|_| Refusal::invalid(format!("the file {:?} isn't encoded in base64", part.name)))?;
            if body.len() as u64 != size {
                let message = format!("the file {:?} has {} bytes in place of {size}", part.name, body.len());
                return Err(Refusal::invalid(message));
            }
            // The type that stands for none.
            let kind = part.content_type.as_deref().filter(|kind| *kind != "application/null");
            asset_store::put(db, &scope, &part.name, kind, &body)?;
        }
        Ok(match missing(db, &scope, &list)?.is_empty() {
            true => {
                let token = self::session(cloud, db, &session.key, &session.list, true)?;
                Answer { status: 201, ..Answer::ok(&json!({"jwt": token})) }
            }
            false => Answer { status: 202, ..Answer::ok(&json!({})) },
        })
    })
}

/// Returns the assets that an upload gives a version. `previous`: the version whose assets are kept.
///
/// # Errors
/// 400: the token isn't that of a complete session of this worker, there is nothing to keep, or the configuration can't be used.
pub fn of_upload(
    cloud: &Cloud,
    db: &Connection,
    key: &Key,
    metadata: &Map<String, Value>,
    previous: Option<&Version>,
) -> Result<Option<VersionAssets>, Refusal> {
    let sent = metadata.get("assets").filter(|assets| !assets.is_null());
    let is_kept = metadata.get("keep_assets").is_some_and(|keep| *keep == true);
    let token = sent.and_then(|assets| assets["jwt"].as_str());
    let before = previous.and_then(|version| version.assets.as_ref());
    let list = match (token, is_kept) {
        (Some(token), _) => {
            let session = find(cloud, db, token, true)?.filter(|session| session.key == *key);
            let session = session.ok_or_else(|| {
                Refusal::invalid("the token of the assets isn't that of a complete upload session of this Worker")
            })?;
            session.list
        }
        (None, true) => {
            let before = before.ok_or_else(|| Refusal::invalid("there are no assets of an earlier version to keep"))?;
            before.list.clone()
        }
        (None, false) if sent.is_some() => {
            return Err(Refusal::invalid("assets must have the token of an upload session, in jwt"));
        }
        (None, false) => {
            let mut bindings = metadata.get("bindings").and_then(Value::as_array).into_iter().flatten();
            return match bindings.any(|binding| binding["type"] == "assets") {
                true => Err(Refusal::invalid("a binding to assets needs assets")),
                false => Ok(None),
            };
        }
    };
    let config = sent.map(|assets| assets["config"].clone()).filter(|config| !config.is_null());
    let config = config.or_else(|| before.map(|before| before.config.clone()).filter(|_| token.is_none()));
    let config = config.unwrap_or_else(|| json!({}));
    check_config(&config)?;
    Ok(Some(VersionAssets { list, config }))
}

fn check_config(config: &Value) -> Result<(), Refusal> {
    let is_one_of = |key: &str, allowed: &[&str]| match config[key].as_str() {
        Some(value) if allowed.contains(&value) => Ok(()),
        None if config[key].is_null() => Ok(()),
        _ => Err(Refusal::invalid(format!("assets.config.{key} must be one of {}", allowed.join(", ")))),
    };
    is_one_of("html_handling", &["auto-trailing-slash", "force-trailing-slash", "drop-trailing-slash", "none"])?;
    is_one_of("not_found_handling", &["none", "404-page", "single-page-application"])?;
    match &config["run_worker_first"] {
        Value::Null | Value::Bool(_) => {}
        Value::Array(_) => {
            if let Some((_, why)) = routing::faults(&worker_first(config)).first() {
                return Err(Refusal::invalid(format!("assets.config.run_worker_first: {why}")));
            }
        }
        _ => return Err(Refusal::invalid("assets.config.run_worker_first must be a boolean or a list of rules")),
    }
    let message = |what: &str, faults: &[flotilla_assets::Fault]| {
        let lines: Vec<String> = faults.iter().map(|fault| format!("Line {}: {}", fault.line, fault.message)).collect();
        format!("Invalid {what} configuration:\n{}", lines.join("\n"))
    };
    let redirects =
        redirects::parse(config["_redirects"].as_str().unwrap_or_default(), config["html_handling"] != "none");
    if !redirects.faults.is_empty() {
        return Err(Refusal::new(400, BAD_REDIRECTS, message("_redirects", &redirects.faults)));
    }
    let headers = headers::parse(config["_headers"].as_str().unwrap_or_default());
    match headers.faults.is_empty() {
        true => Ok(()),
        false => Err(Refusal::invalid(message("_headers", &headers.faults))),
    }
}
