//! The files of static assets, and the lists of them that versions have. Knows rows; not sessions.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::envelope::Refusal;
use super::seal::digest;
use super::store::{self, Key, Store};

/// A file of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its hash, which the client chose.
    pub hash: String,
    /// Its bytes.
    pub size: u64,
}

/// The files of a version by their paths.
pub type List = BTreeMap<String, File>;

/// Returns the scope within which files are shared: a worker, or a dispatch namespace.
pub fn scope(key: &Key) -> String {
    let name = if key.namespace.is_empty() { key.name.as_str() } else { "" };
    format!("{}/{}/{name}", key.account, key.namespace)
}

/// Stores a list, and returns its id.
///
/// # Errors
/// When the database fails.
pub fn keep_list(db: &Connection, scope: &str, list: &List) -> Result<String, Refusal> {
    let body = serde_json::to_string(list).map_err(|error| Refusal::new(500, 10002, error.to_string()))?;
    let id = digest(format!("{scope}\n{body}").as_bytes());
    store::run(db, "INSERT OR IGNORE INTO asset_list (id, scope, body) VALUES (?1, ?2, ?3)", [&id, scope, &body])?;
    Ok(id)
}

/// The list of an id.
///
/// # Errors
/// When the database fails or holds no such list.
pub fn list(db: &Connection, id: &str) -> Result<List, Refusal> {
    let body: Option<String> = store::row(db, "SELECT body FROM asset_list WHERE id = ?1", [id], |row| row.get(0))?;
    let list = body.and_then(|body| serde_json::from_str(&body).ok());
    list.ok_or_else(|| Refusal::new(500, 10002, format!("the list of assets {id} is gone")))
}

/// The files of a list that aren't there: hashes with sizes.
///
/// # Errors
/// When the database fails.
pub fn missing(db: &Connection, scope: &str, list: &List) -> Result<BTreeMap<String, u64>, Refusal> {
    let known: Vec<String> =
        store::rows(db, "SELECT hash FROM asset WHERE scope = ?1", [scope], |row| row.get::<_, String>(0))?;
    let known: BTreeSet<String> = known.into_iter().collect();
    let missing = list.values().filter(|file| !known.contains(&file.hash));
    Ok(missing.map(|file| (file.hash.clone(), file.size)).collect())
}

/// Stores a file.
///
/// # Errors
/// When the database fails.
pub fn put(db: &Connection, scope: &str, hash: &str, kind: Option<&str>, body: &[u8]) -> Result<(), Refusal> {
    let sql = "INSERT OR REPLACE INTO asset (scope, hash, type, body) VALUES (?1, ?2, ?3, ?4)";
    store::run(db, sql, params![scope, hash, kind, body])
}

/// The content type of a file, if it was uploaded with one, and its bytes.
pub type StoredFile = (Option<String>, Vec<u8>);

/// The content type and the bytes of a file.
///
/// # Errors
/// When the database fails.
pub fn file(db: &Connection, scope: &str, hash: &str) -> Result<Option<StoredFile>, Refusal> {
    let sql = "SELECT type, body FROM asset WHERE scope = ?1 AND hash = ?2";
    store::row(db, sql, [scope, hash], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Drops lists that no version has, and files that no list has. Done at the start only: it reads every version.
///
/// # Errors
/// When the database fails.
pub fn sweep(store: &Store, now: u64) -> Result<(), Refusal> {
    store.write(|db| {
        store::run(db, "DELETE FROM asset_session WHERE expires < ?1", [now.cast_signed()])?;
        let unused = "DELETE FROM asset_list WHERE id NOT IN (SELECT list FROM asset_session) AND id NOT IN
                      (SELECT json_extract(body, '$.assets.list') FROM version WHERE json_extract(body, '$.assets.list') IS NOT NULL)";
        store::run(db, unused, [])?;
        let files = "DELETE FROM asset WHERE (scope, hash) NOT IN
                     (SELECT asset_list.scope, json_extract(file.value, '$.hash') FROM asset_list, json_each(asset_list.body) AS file)";
        store::run(db, files, [])
    })
}
