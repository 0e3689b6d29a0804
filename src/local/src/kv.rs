//! Workers KV: namespaces and their values through the API and through the binding in workerd. Knows keys and bytes;
//! not the real platform's caching.

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::call::{Body, Call, decode_base64};
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store;

/// Pairs or keys of one request. Source: Cloudflare's OpenAPI document of 2024-08.
const BULK: usize = 10_000;
/// The longest key, in bytes. Source: the same document.
const KEY_BYTES: usize = 512;

/// A stored value.
pub struct Entry {
    /// The bytes.
    pub value: Vec<u8>,
    /// JSON, if any was given.
    pub metadata: Option<String>,
}

fn namespace(row: &rusqlite::Row<'_>) -> rusqlite::Result<Value> {
    Ok(json!({"id": row.get::<_, String>(0)?, "title": row.get::<_, String>(1)?, "supports_url_encoding": true}))
}

/// `GET …/storage/kv/namespaces`.
pub fn list(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let sql = "SELECT id, title FROM kv_namespace WHERE account = ?1 ORDER BY title";
    let rows = cloud.store.read(|db| store::rows(db, sql, [account], namespace))?;
    Ok(Answer::page(&rows, call.number("page", 1)?, call.number("per_page", 20)?))
}

/// `POST …/storage/kv/namespaces`.
pub fn create(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let (title, id) = (call.text("title")?, cloud.store.seal.id());
    cloud.store.write(|db| {
        if store::has(db, "SELECT 1 FROM kv_namespace WHERE account = ?1 AND title = ?2", [account, title])? {
            return Err(Refusal::new(400, 10014, "a namespace with this account ID and title already exists"));
        }
        db.execute("INSERT INTO kv_namespace (id, account, title) VALUES (?1, ?2, ?3)", [&id, account, title])?;
        Ok(Answer::ok(&json!({"id": id, "title": title, "supports_url_encoding": true})))
    })
}

/// Creates a namespace with an id from elsewhere, titled after it, unless it exists.
///
/// # Errors
/// When the store can't be written.
pub fn make(db: &Connection, account: &str, id: &str) -> Result<(), Refusal> {
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        db.execute("INSERT OR IGNORE INTO kv_namespace (id, account, title) VALUES (?1, ?2, ?1)", [id, account])?;
    }
    Ok(())
}

/// One namespace: `GET` and `DELETE`.
pub fn one(cloud: &Cloud, account: &str, id: &str, delete: bool) -> Outcome {
    cloud.store.write(|db| {
        let shown = check(db, account, id)?;
        if delete {
            db.execute("DELETE FROM kv_namespace WHERE id = ?1", [id])?;
            return Ok(Answer::ok(&Value::Null));
        }
        Ok(Answer::ok(&shown))
    })
}

fn check(db: &Connection, account: &str, id: &str) -> Result<Value, Refusal> {
    let sql = "SELECT id, title FROM kv_namespace WHERE account = ?1 AND id = ?2";
    store::row(db, sql, [account, id], namespace)?.ok_or_else(|| Refusal::new(404, 10013, "namespace not found"))
}

/// `GET`, `PUT` and `DELETE …/values/{key}`.
pub fn value(cloud: &Cloud, account: &str, id: &str, key: &str, call: &Call) -> Outcome {
    cloud.store.read(|db| check(db, account, id))?;
    match call.method.as_str() {
        "GET" => match get(cloud, id, key)? {
            Some(entry) => Ok(Answer::bytes(200, "application/octet-stream", entry.value)),
            None => Err(Refusal::new(404, 10009, "get: 'key not found'")),
        },
        "DELETE" => {
            delete(cloud, id, &[key])?;
            Ok(Answer::ok(&Value::Null))
        }
        _ => {
            let (value, metadata) = match &call.body {
                Body::Form(parts) => {
                    let part = |name: &str| parts.iter().find(|part| part.name == name).map(|part| part.body.to_vec());
                    let metadata = part("metadata").map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                    (part("value").ok_or_else(|| Refusal::unparseable("the form has no part \"value\""))?, metadata)
                }
                Body::Raw(bytes) => (bytes.to_vec(), None),
                Body::Json(json) => (json.to_string().into_bytes(), None),
                Body::Empty => (Vec::new(), None),
                Body::Broken(why) => return Err(Refusal::unparseable(why)),
            };
            let expiration = expiration(cloud, call.query("expiration"), call.query("expiration_ttl"))?;
            put(cloud, id, &[Pair { key, value, metadata, expiration }])?;
            Ok(Answer::ok(&Value::Null))
        }
    }
}

/// `PUT …/bulk`: up to 10,000 pairs (OpenAPI document of 2024-08).
pub fn bulk(cloud: &Cloud, account: &str, id: &str, call: &Call) -> Outcome {
    cloud.store.read(|db| check(db, account, id))?;
    let pairs = call.json()?.as_array().filter(|pairs| pairs.len() <= BULK);
    let pairs = pairs.ok_or_else(|| Refusal::unparseable(format!("it must be an array of at most {BULK} pairs")))?;
    let mut entries = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let text = |name: &str| pair[name].as_str().ok_or_else(|| Refusal::unparseable(format!("{name} must be text")));
        let value = match pair["base64"] == true {
            true => decode_base64(text("value")?).ok_or_else(|| Refusal::unparseable("a value isn't base64"))?,
            false => text("value")?.as_bytes().to_vec(),
        };
        let seconds = |name: &str| pair[name].as_u64().map(|seconds| seconds.to_string());
        let expiration = expiration(cloud, seconds("expiration").as_deref(), seconds("expiration_ttl").as_deref())?;
        let metadata = pair.get("metadata").filter(|metadata| !metadata.is_null()).map(Value::to_string);
        let key = text("key")?;
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(Refusal::unparseable(format!("a key has {} bytes, not 1 to {KEY_BYTES}", key.len())));
        }
        entries.push(Pair { key, value, metadata, expiration });
    }
    put(cloud, id, &entries)?;
    Ok(Answer::ok(&json!({"successful_key_count": pairs.len(), "unsuccessful_keys": []})))
}

/// `POST …/bulk/delete` and `DELETE …/bulk`: up to 10,000 keys.
pub fn bulk_delete(cloud: &Cloud, account: &str, id: &str, call: &Call) -> Outcome {
    cloud.store.read(|db| check(db, account, id))?;
    let keys = call.json()?.as_array().filter(|keys| keys.len() <= BULK);
    let keys = keys.ok_or_else(|| Refusal::unparseable(format!("it must be an array of at most {BULK} keys")))?;
    let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
    delete(cloud, id, &keys)?;
    Ok(Answer::ok(&json!({"successful_key_count": keys.len(), "unsuccessful_keys": []})))
}

/// `GET …/keys`.
pub fn keys(cloud: &Cloud, account: &str, id: &str, call: &Call) -> Outcome {
    cloud.store.read(|db| check(db, account, id))?;
    let limit = call.number("limit", 1000)?;
    let (rows, cursor) =
        names(cloud, id, call.query("prefix").unwrap_or(""), call.query("cursor").unwrap_or(""), limit)?;
    let info = json!({"count": rows.len(), "cursor": cursor.unwrap_or_default()});
    Ok(Answer::json(200, &json!({"success": true, "errors": [], "messages": [], "result": rows, "result_info": info})))
}

/// A page of names after `cursor`, and the next cursor if there is more.
///
/// # Errors
/// When the database fails.
pub fn names(
    cloud: &Cloud,
    id: &str,
    prefix: &str,
    cursor: &str,
    limit: usize,
) -> Result<(Vec<Value>, Option<String>), Refusal> {
    let now = seconds(cloud);
    let limit = limit.clamp(1, 1000);
    let fetched = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let mut rows: Vec<Value> = cloud.store.read(|db| {
        let sql = "SELECT name, expiration, metadata FROM kv WHERE namespace = ?1 AND substr(name, 1, length(?2)) = ?2
                   AND name > ?3 AND (expiration IS NULL OR expiration > ?4) ORDER BY name LIMIT ?5";
        store::rows(db, sql, params![id, prefix, cursor, now, fetched], |row| {
            let mut shown = json!({"name": row.get::<_, String>(0)?});
            if let Some(expiration) = row.get::<_, Option<i64>>(1)? {
                shown["expiration"] = expiration.into();
            }
            if let Some(metadata) = row.get::<_, Option<String>>(2)? {
                shown["metadata"] = serde_json::from_str(&metadata).unwrap_or(Value::Null);
            }
            Ok(shown)
        })
    })?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let cursor = rows.last().filter(|_| more).and_then(|row| row["name"].as_str()).map(ToOwned::to_owned);
    Ok((rows, cursor))
}

/// The value of a key, unless it expired.
///
/// # Errors
/// When the database fails.
pub fn get(cloud: &Cloud, id: &str, key: &str) -> Result<Option<Entry>, Refusal> {
    cloud.store.read(|db| {
        let sql = "SELECT value, metadata FROM kv
                   WHERE namespace = ?1 AND name = ?2 AND (expiration IS NULL OR expiration > ?3)";
        let entry = |row: &rusqlite::Row<'_>| Ok(Entry { value: row.get(0)?, metadata: row.get(1)? });
        store::row(db, sql, params![id, key, seconds(cloud)], entry)
    })
}

/// A value to store.
pub struct Pair<'a> {
    /// The key.
    pub key: &'a str,
    /// The bytes.
    pub value: Vec<u8>,
    /// JSON, if any was given.
    pub metadata: Option<String>,
    /// The time at which it expires, in seconds since 1970.
    pub expiration: Option<i64>,
}

/// Stores values.
///
/// # Errors
/// When the database fails or there is no such namespace.
pub fn put(cloud: &Cloud, id: &str, pairs: &[Pair<'_>]) -> Result<(), Refusal> {
    let sql = "INSERT OR REPLACE INTO kv (namespace, name, value, metadata, expiration) VALUES (?1, ?2, ?3, ?4, ?5)";
    cloud.store.write(|db| {
        let stored = |Pair { key, value, metadata, expiration }: &Pair<'_>| {
            store::run(db, sql, params![id, key, value, metadata, expiration])
        };
        pairs.iter().try_for_each(stored)
    })
}

/// Removes values.
///
/// # Errors
/// When the database fails.
pub fn delete(cloud: &Cloud, id: &str, keys: &[&str]) -> Result<(), Refusal> {
    let sql = "DELETE FROM kv WHERE namespace = ?1 AND name = ?2";
    cloud.store.write(|db| keys.iter().try_for_each(|key| store::run(db, sql, [id, key])))
}

/// Returns the time at which a value expires, in seconds since 1970, of either form.
///
/// # Errors
/// 400 (10004) when one isn't a number.
pub fn expiration(cloud: &Cloud, at: Option<&str>, after: Option<&str>) -> Result<Option<i64>, Refusal> {
    let number = |text: &str| {
        text.parse::<i64>().map_err(|_| Refusal::new(400, 10004, format!("not a number of seconds: {text:?}")))
    };
    match (at, after) {
        (Some(at), _) => number(at).map(Some),
        (None, Some(after)) => Ok(Some(number(after)?.saturating_add(seconds(cloud)))),
        (None, None) => Ok(None),
    }
}

fn seconds(cloud: &Cloud) -> i64 {
    i64::try_from((cloud.clock)().as_secs()).unwrap_or(i64::MAX)
}
