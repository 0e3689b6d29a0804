//! R2 through the binding in workerd: objects with their metadata, whole or in part, conditions, lists. Knows keys
//! and bytes; there are no uploads in parts, no checksums and no API. A bucket exists as soon as it is bound.
//!
//! The wire (workerd's `r2-rpc.c++` and `r2-api.capnp`): a request is JSON, in a header, or for changes in front of
//! the body; the answer is JSON, its length in a header, and an object's bytes behind it.

use rusqlite::params;
use serde_json::{Value, json};

use super::cloud::Cloud;
use super::envelope::{Answer, Refusal};
use super::seal::digest;
use super::store;

/// The header with the request, where there is no body.
pub const REQUEST: &str = "cf-r2-request";
/// The header with the length of the JSON at the beginning of a body.
pub const SIZE: &str = "cf-r2-metadata-size";
/// The header with the reason of an error.
const ERROR: &str = "cf-r2-error";

/// Objects on a page of a list, unless a smaller limit is given. Source: Cloudflare docs, R2 › Workers API: at most
/// 1,000.
const PAGE: usize = 1000;
/// The longest key, in bytes. Source: Cloudflare docs, R2 › Limits.
const KEY_BYTES: usize = 1024;

/// An error with R2's own codes: a status, a code and a sentence.
struct Failed(u16, u32, String);

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Failed {
        Failed(500, 10001, refusal.message)
    }
}

/// An object as it is stored.
struct Object {
    name: String,
    size: i64,
    etag: String,
    version: String,
    uploaded: i64,
    http: Value,
    custom: Value,
}

impl Object {
    const COLUMNS: &str = "name, length(value), etag, version, uploaded, http, custom";

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Object> {
        let json = |text: String| serde_json::from_str(&text).unwrap_or_default();
        Ok(Object {
            name: row.get(0)?,
            size: row.get(1)?,
            etag: row.get(2)?,
            version: row.get(3)?,
            uploaded: row.get(4)?,
            http: json(row.get(5)?),
            custom: json(row.get(6)?),
        })
    }

    /// Returns it as the binding reads it. A list has the two kinds of metadata only on request.
    fn to_json(&self, http: bool, custom: bool) -> Value {
        let mut told = json!({
            "name": self.name, "size": self.size, "etag": self.etag, "version": self.version, "uploaded": self.uploaded,
            "storageClass": "Standard", "checksums": {},
        });
        if http {
            told["httpFields"] = self.http.clone();
        }
        if custom {
            told["customFields"] = self.custom.clone();
        }
        told
    }
}

/// Answers one call of a binding to a bucket. `body` is empty where `asked` came in a header.
pub fn answer(cloud: &Cloud, bucket: &str, asked: &[u8], body: &[u8]) -> Answer {
    let asked: Value = serde_json::from_slice(asked).unwrap_or_default();
    operate(cloud, bucket, &asked, body).unwrap_or_else(|Failed(status, code, message)| {
        let error = json!({"version": 0, "v4code": code, "message": message});
        Answer::bytes(status, "text/plain", message.into_bytes()).with(ERROR, error.to_string())
    })
}

fn json_answer(value: &Value, bytes: &[u8]) -> Answer {
    let mut body = value.to_string().into_bytes();
    let size = body.len().to_string();
    body.extend_from_slice(bytes);
    Answer::bytes(200, "application/octet-stream", body).with(SIZE, size)
}

fn operate(cloud: &Cloud, bucket: &str, asked: &Value, body: &[u8]) -> Result<Answer, Failed> {
    let key = asked["object"].as_str().unwrap_or_default();
    if key.len() > KEY_BYTES {
        return Err(Failed(414, 10020, "the key is longer than 1,024 bytes".to_owned()));
    }
    match asked["method"].as_str().unwrap_or_default() {
        "head" => {
            let object = find(cloud, bucket, key)?.ok_or_else(missing)?;
            Ok(json_answer(&object.to_json(true, true), b""))
        }
        "get" => get(cloud, bucket, key, asked),
        "put" => put(cloud, bucket, key, asked, body),
        "delete" => {
            let all = asked["objects"].as_array().map_or(&[][..], Vec::as_slice).iter();
            let keys: Vec<&str> = all.chain(asked.get("object")).filter_map(Value::as_str).collect();
            let sql = "DELETE FROM r2 WHERE bucket = ?1 AND name = ?2";
            cloud.store.write(|db| keys.iter().try_for_each(|key| store::run(db, sql, [bucket, key])))?;
            Ok(json_answer(&json!({}), b""))
        }
        "list" => list(cloud, bucket, asked),
        other => Err(Failed(501, 10001, format!("the local Cloudflare's R2 has no `{other}`"))),
    }
}

fn missing() -> Failed {
    Failed(404, 10007, "The specified key does not exist.".to_owned())
}

fn find(cloud: &Cloud, bucket: &str, key: &str) -> Result<Option<Object>, Refusal> {
    let sql = format!("SELECT {} FROM r2 WHERE bucket = ?1 AND name = ?2", Object::COLUMNS);
    cloud.store.read(|db| store::row(db, &sql, [bucket, key], Object::read))
}

fn get(cloud: &Cloud, bucket: &str, key: &str, asked: &Value) -> Result<Answer, Failed> {
    let object = find(cloud, bucket, key)?.ok_or_else(missing)?;
    let mut whole = object.to_json(true, true);
    if !holds(&asked["onlyIf"], Some(&object)) {
        // The object without its bytes: that is how the worker knows.
        let error = json!({"version": 0, "v4code": 10031, "message": "precondition failed"});
        let mut answer = json_answer(&whole, b"").with(ERROR, error.to_string());
        answer.status = 412;
        return Ok(answer);
    }
    let (offset, length) = range(asked, object.size)?;
    let bytes: Vec<u8> = cloud.store.read(|db| {
        let sql = "SELECT substr(value, ?3, ?4) FROM r2 WHERE bucket = ?1 AND name = ?2";
        let part = params![bucket, key, offset + 1, length];
        // Of nothing, a part is NULL.
        Ok(db.prepare_cached(sql)?.query_row(part, |row| row.get::<_, Option<Vec<u8>>>(0))?.unwrap_or_default())
    })?;
    whole["range"] = json!({"offset": offset, "length": length});
    Ok(json_answer(&whole, &bytes))
}

/// A number, which may come as text.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// Returns the offset and length of the requested range.
fn range(asked: &Value, size: i64) -> Result<(i64, i64), Failed> {
    let beyond = || Failed(416, 10039, "The requested range is not satisfiable".to_owned());
    let header = asked["rangeHeader"].as_str().and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let (offset, length) = match (header, &asked["range"]) {
        (Some(("", suffix)), _) => (None, suffix.parse().ok().map(|suffix: i64| (suffix, true))),
        (Some((from, to)), _) => {
            let from: i64 = from.parse().map_err(|_| beyond())?;
            (Some(from), to.parse().ok().map(|to: i64| (to - from + 1, false)))
        }
        (None, range) => match number(&range["suffix"]) {
            Some(suffix) => (None, Some((suffix, true))),
            None => (number(&range["offset"]), number(&range["length"]).map(|length| (length, false))),
        },
    };
    let (offset, length) = match (offset, length) {
        (None, Some((suffix, true))) => (size - suffix.min(size), suffix),
        (offset, length) => (offset.unwrap_or(0), length.map_or(size, |(length, _)| length)),
    };
    if offset < 0 || length < 0 || (offset >= size && size > 0) {
        return Err(beyond());
    }
    Ok((offset, length.min(size - offset)))
}

/// Returns whether the conditions hold for the existing object.
fn holds(conditions: &Value, object: Option<&Object>) -> bool {
    let has = |tags: &Value| {
        tags.as_array().map(|tags| {
            tags.iter().any(|tag| {
                object.is_some_and(|object| tag["type"] == "wildcard" || tag["value"] == object.etag.as_str())
            })
        })
    };
    let uploaded = object.map(|object| match conditions["secondsGranularity"] == true {
        true => object.uploaded / 1000 * 1000,
        false => object.uploaded,
    });
    let before = number(&conditions["uploadedBefore"]).zip(uploaded);
    let after = number(&conditions["uploadedAfter"]).zip(uploaded);
    has(&conditions["etagMatches"]) != Some(false)
        && has(&conditions["etagDoesNotMatch"]) != Some(true)
        && before.is_none_or(|(before, uploaded)| uploaded < before)
        && after.is_none_or(|(after, uploaded)| uploaded > after)
}

fn put(cloud: &Cloud, bucket: &str, key: &str, asked: &Value, body: &[u8]) -> Result<Answer, Failed> {
    if !holds(&asked["onlyIf"], find(cloud, bucket, key)?.as_ref()) {
        return Err(Failed(412, 10031, "At least one of the pre-conditions you specified did not hold.".to_owned()));
    }
    let either = |name: &str, none: Value| asked.get(name).filter(|value| !value.is_null()).cloned().unwrap_or(none);
    let object = Object {
        name: key.to_owned(),
        size: i64::try_from(body.len()).unwrap_or(i64::MAX),
        etag: digest(body)[..32].to_owned(),
        version: cloud.store.seal.id(),
        uploaded: i64::try_from((cloud.clock)().as_millis()).unwrap_or(i64::MAX),
        http: either("httpFields", json!({})),
        custom: either("customFields", json!([])),
    };
    cloud.store.write(|db| {
        let sql = "INSERT OR REPLACE INTO r2 (bucket, name, value, etag, version, uploaded, http, custom)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let (http, custom) = (object.http.to_string(), object.custom.to_string());
        let values = params![bucket, object.name, body, object.etag, object.version, object.uploaded, http, custom];
        store::run(db, sql, values)
    })?;
    Ok(json_answer(&object.to_json(true, true), b""))
}

fn list(cloud: &Cloud, bucket: &str, asked: &Value) -> Result<Answer, Failed> {
    let text = |name: &str| asked[name].as_str().unwrap_or_default();
    let (prefix, delimiter) = (text("prefix"), text("delimiter"));
    let limit = number(&asked["limit"]).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE).clamp(1, PAGE);
    // Of httpFields 0 and customFields 1.
    let include: Vec<i64> = asked["include"].as_array().into_iter().flatten().filter_map(number).collect();
    let mut after = text("startAfter").max(text("cursor")).to_owned();
    let (mut objects, mut folders, mut truncated) = (Vec::new(), Vec::<String>::new(), false);
    let sql = format!(
        "SELECT {} FROM r2 WHERE bucket = ?1 AND name > ?2 AND substr(name, 1, length(?3)) = ?3 ORDER BY name",
        Object::COLUMNS
    );
    let all = cloud.store.read(|db| store::rows(db, &sql, [bucket, &after, prefix], Object::read))?;
    for object in all {
        let below = &object.name[prefix.len()..];
        let folder = below.find(delimiter).filter(|_| !delimiter.is_empty());
        let folder = folder.map(|at| object.name[..prefix.len() + at + delimiter.len()].to_owned());
        if folder.is_some() && folder.as_ref() == folders.last() {
            after.clone_from(&object.name);
            continue;
        }
        if objects.len() + folders.len() == limit {
            truncated = true;
            break;
        }
        after.clone_from(&object.name);
        match folder {
            Some(folder) => folders.push(folder),
            None => objects.push(object.to_json(include.contains(&0), include.contains(&1))),
        }
    }
    let mut page = json!({"objects": objects, "truncated": truncated, "delimitedPrefixes": folders});
    if truncated {
        page["cursor"] = after.into();
    }
    Ok(json_answer(&page, b""))
}
