//! Serves the assets of a worker with the same two workers that serve them at Cloudflare, which miniflare contains. One looks assets up, the
//! other decides whether a request is for them or for the worker. Writes the input of the two; doesn't run them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flotilla_assets::{headers, redirects, routing};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::asset_store::List;

/// Finds the folder with the two workers, when the first worker with assets runs.
pub type AssetWorkers = Arc<dyn Fn() -> anyhow::Result<PathBuf> + Send + Sync>;

/// The files of the two workers in that folder.
const ASSETS_FILE: &str = "assets.worker.js";
const ROUTER_FILE: &str = "router.worker.js";
/// The form of the list that the first one takes: a head, and for each file the beginnings of two hashes, and room for more.
const HEAD: usize = 20;
const PATH_HASH: usize = 16;
const TAIL: usize = 8;

/// The input of the workers that serve assets.
#[derive(Debug, Default)]
pub struct AssetService {
    /// The code of the worker that looks assets up.
    pub assets_code: Vec<u8>,
    /// The code of the worker that decides who answers.
    pub router_code: Vec<u8>,
    /// The list of files, as the first one takes it.
    pub list: Vec<u8>,
    /// The configuration of the first one, as JSON.
    pub config: String,
    /// The configuration of the second one, as JSON.
    pub router_config: String,
    /// The scope in which the files are stored.
    pub scope: String,
}

impl AssetService {
    /// Returns what serves a list of files. `has_worker`: whether there is code beside the assets.
    ///
    /// # Errors
    /// When the two workers can't be read.
    pub fn new(
        folder: &Path,
        list: &List,
        config: &Value,
        options: &Value,
        scope: String,
        has_worker: bool,
    ) -> Result<Self, String> {
        let read = |file: &str| {
            let path = folder.join(file);
            std::fs::read(&path).map_err(|error| format!("can't read {}: {error}", path.display()))
        };
        Ok(Self {
            assets_code: read(ASSETS_FILE)?,
            router_code: read(ROUTER_FILE)?,
            list: encoded(list),
            config: assets_config(config, options),
            router_config: router_config(config, has_worker).to_string(),
            scope,
        })
    }
}

/// Returns the list of files as the worker reads it: sorted by the hash of the path, for a binary search.
fn encoded(list: &List) -> Vec<u8> {
    let mut entries: Vec<([u8; PATH_HASH], Vec<u8>)> = list
        .iter()
        .map(|(path, file)| {
            let hash: [u8; 32] = Sha256::digest(path.as_bytes()).into();
            let mut start = [0; PATH_HASH];
            start.copy_from_slice(&hash[..PATH_HASH]);
            (start, data_encoding::HEXLOWER_PERMISSIVE.decode(file.hash.as_bytes()).unwrap_or_default())
        })
        .collect();
    entries.sort();
    let mut bytes = vec![0; HEAD];
    for (path, content) in entries {
        bytes.extend_from_slice(&path);
        bytes.extend_from_slice(&content);
        bytes.extend_from_slice(&[0; TAIL]);
    }
    bytes
}

/// Returns the configuration of the worker that looks assets up. The rules keep their order, which decides.
fn assets_config(config: &Value, options: &Value) -> String {
    let mut fields: Vec<String> = Vec::new();
    let mut add = |name: &str, json: String| fields.push(format!("\"{name}\":{json}"));
    for name in ["compatibility_date", "compatibility_flags"] {
        if !options[name].is_null() {
            add(name, options[name].to_string());
        }
    }
    for name in ["html_handling", "not_found_handling", "base_path"] {
        if !config[name].is_null() {
            add(name, config[name].to_string());
        }
    }
    let text = |name: &str| config[name].as_str().unwrap_or_default();
    if let Some(rules) = redirects::parse(text("_redirects"), config["html_handling"] != "none").to_json() {
        add("redirects", rules);
    }
    if let Some(rules) = headers::parse(text("_headers")).to_json() {
        add("headers", rules);
    }
    add("has_static_routing", config["run_worker_first"].is_array().to_string());
    format!("{{{}}}", fields.join(","))
}

/// Returns the configuration of the worker that decides who answers.
fn router_config(config: &Value, has_worker: bool) -> Value {
    let mut router = json!({"has_user_worker": has_worker});
    match &config["run_worker_first"] {
        Value::Bool(is_first) => router["invoke_user_worker_ahead_of_assets"] = (*is_first).into(),
        Value::Array(_) => {
            let rules = worker_first(config);
            let (assets, worker) = routing::split(&rules);
            router["static_routing"] = json!({"asset_worker": assets, "user_worker": worker});
        }
        _ => {}
    }
    router
}

/// Returns the rules of `run_worker_first`, if it is a list.
pub fn worker_first(config: &Value) -> Vec<String> {
    let rules = config["run_worker_first"].as_array().into_iter().flatten();
    rules.filter_map(|rule| rule.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset_store::File;

    #[test]
    fn a_list_is_sorted_by_the_hash_of_the_path() {
        let file = |digit: &str| File { hash: digit.repeat(32), size: 1 };
        let list: List =
            [("/a".to_owned(), file("a")), ("/b".to_owned(), file("b")), ("/c".to_owned(), file("c"))].into();
        let bytes = encoded(&list);
        assert_eq!(bytes.len(), HEAD + 3 * 40);
        let paths: Vec<&[u8]> = bytes[HEAD..].chunks(40).map(|entry| &entry[..PATH_HASH]).collect();
        assert!(paths.is_sorted());
        for (path, digit) in [("/a", 0xaa), ("/b", 0xbb), ("/c", 0xcc)] {
            let hash: [u8; 32] = Sha256::digest(path.as_bytes()).into();
            let entry = bytes[HEAD..].chunks(40).find(|entry| entry[..PATH_HASH] == hash[..PATH_HASH]).unwrap();
            assert_eq!(entry[PATH_HASH..2 * PATH_HASH], [digit; 16], "{path}");
        }
    }

    #[test]
    fn configurations_are_those_of_the_workers() {
        let config = json!({
            "html_handling": "none", "_redirects": "/z /y\n/a /b", "_headers": "/*\n A: b",
            "run_worker_first": ["/api/*", "!/api/x"],
        });
        assert_eq!(
            assets_config(&config, &json!({"compatibility_date": "2026-01-01"})),
            "{\"compatibility_date\":\"2026-01-01\",\"html_handling\":\"none\",\"redirects\":{\"version\":1,\"staticRules\":\
             {\"/z\":{\"status\":302,\"to\":\"/y\",\"lineNumber\":1},\"/a\":{\"status\":302,\"to\":\"/b\",\"lineNumber\":2}},\
             \"rules\":{}},\"headers\":{\"version\":2,\"rules\":{\"/*\":{\"set\":{\"a\":\"b\"}}}},\"has_static_routing\":true}"
        );
        assert_eq!(
            router_config(&config, true),
            json!({"has_user_worker": true, "static_routing": {"asset_worker": ["/api/x"], "user_worker": ["/api/*"]}})
        );
        let first = json!({"run_worker_first": true});
        assert_eq!(router_config(&first, true)["invoke_user_worker_ahead_of_assets"], true);
        assert_eq!(assets_config(&json!({}), &json!({})), "{\"has_static_routing\":false}");
    }
}
