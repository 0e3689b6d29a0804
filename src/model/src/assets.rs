//! Static assets: how they answer, and the list of files that a worker has as one value. Reads no files and sends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::digest::{Digest, Framed};

/// The handling of the paths of HTML files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum HtmlHandling {
    /// `/about` for about.html, `/docs/` for docs/index.html.
    AutoTrailingSlash,
    /// `/about/` for about.html.
    ForceTrailingSlash,
    /// `/docs` for docs/index.html.
    DropTrailingSlash,
    /// Paths are those of files.
    None,
}

/// The answer to a request that no asset fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum NotFoundHandling {
    /// The status 404.
    #[serde(rename = "none")]
    None,
    /// The nearest 404.html.
    #[serde(rename = "404-page")]
    Page,
    /// index.html.
    #[serde(rename = "single-page-application")]
    SinglePageApplication,
}

/// The requests that reach the worker before the assets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WorkerFirst {
    /// All of them, or those that no asset fits.
    All(bool),
    /// Requests for these paths; a path after `!` is an exception.
    Paths(Vec<String>),
}

impl JsonSchema for WorkerFirst {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WorkerFirst".into()
    }

    fn inline_schema() -> bool {
        true
    }

    // Flat, so that an error is reported as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["boolean", "array"], "items": {"type": "string"}, "minItems": 1})
    }
}

/// The settings for serving the assets of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssetOptions {
    /// The name of the binding by which the code reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// The handling of HTML files; none: Cloudflare's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html_handling: Option<HtmlHandling>,
    /// The answer where no asset fits; none: Cloudflare's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_found_handling: Option<NotFoundHandling>,
    /// The requests that reach the worker first; none: those that no asset fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_worker_first: Option<WorkerFirst>,
}

impl AssetOptions {
    /// Returns the options as the API and wrangler write them, without the binding.
    pub fn api(&self) -> Map<String, Value> {
        let all = [
            ("html_handling", self.html_handling.map(|value| json!(value))),
            ("not_found_handling", self.not_found_handling.map(|value| json!(value))),
            ("run_worker_first", self.run_worker_first.as_ref().map(|value| json!(value))),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// The assets of a worker: the settings for serving them, and those that its customer adds to its pack's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerAssets {
    /// The settings for serving them.
    #[serde(flatten)]
    pub options: AssetOptions,
    /// Whether there is no code beside them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_all: bool,
    /// The files of a folder of the customer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnAssets>,
}

/// The assets of a folder that a spec names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnAssets {
    /// The folder, from the project's root.
    pub directory: String,
    /// The list of its files.
    #[serde(flatten)]
    pub list: AssetList,
}

/// A file: its hash and its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AssetFile {
    /// The hash.
    pub hash: String,
    /// The bytes.
    pub size: u64,
}

impl From<AssetFile> for String {
    fn from(AssetFile { hash, size }: AssetFile) -> String {
        format!("{hash} {size}")
    }
}

impl TryFrom<String> for AssetFile {
    type Error = String;

    fn try_from(text: String) -> Result<AssetFile, String> {
        let read = || {
            let (hash, size) = text.split_once(' ')?;
            Some(AssetFile { hash: hash.to_owned(), size: size.parse().ok()? })
        };
        read().ok_or_else(|| format!("`{text}` is no hash with a size"))
    }
}

/// A list of assets, and the texts of the files with rules beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetList {
    /// The files by their paths, which begin with `/`.
    #[serde(default)]
    pub files: BTreeMap<String, AssetFile>,
    /// `_headers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<String>,
    /// `_redirects`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirects: Option<String>,
}

impl AssetList {
    /// Returns the list with files of another one over it.
    pub fn with(&self, own: &AssetList) -> AssetList {
        let mut list = self.clone();
        list.files.extend(own.files.iter().map(|(path, file)| (path.clone(), file.clone())));
        list.headers = own.headers.clone().or(list.headers);
        list.redirects = own.redirects.clone().or(list.redirects);
        list
    }

    /// Returns the number of files that other lists don't have.
    pub fn count_new<'l>(&'l self, others: impl IntoIterator<Item = &'l AssetList>) -> usize {
        let hashes = |list: &'l AssetList| list.files.values().map(|file| file.hash.as_str());
        let known: BTreeSet<&str> = others.into_iter().flat_map(hashes).collect();
        hashes(self).collect::<BTreeSet<_>>().difference(&known).count()
    }

    /// Returns the list as an upload session is given it.
    pub fn manifest(&self) -> Value {
        let file = |(path, file): (&String, &AssetFile)| (path.clone(), json!({"hash": file.hash, "size": file.size}));
        self.files.iter().map(file).collect::<Map<_, _>>().into()
    }

    /// Returns the digests of its files, and of all of it.
    pub fn digests(&self) -> AssetDigests {
        let start = Framed::new("assets");
        let files = self.files.iter().fold(start, |framed, (path, file)| {
            framed.field(path.as_bytes()).field(file.hash.as_bytes()).field(&file.size.to_le_bytes())
        });
        let files = files.finish();
        let rule = |rule: &Option<String>| rule.as_ref().map_or_else(Vec::new, |text| [b"=", text.as_bytes()].concat());
        let list = Framed::new("list of assets").field(&files.to_bytes());
        let list = list.field(&rule(&self.headers)).field(&rule(&self.redirects)).finish();
        AssetDigests { files, list }
    }
}

/// The digests of a list of assets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssetDigests {
    /// The digest of the files alone.
    pub files: Digest,
    /// The digest of the files, `_headers` and `_redirects`.
    pub list: Digest,
}

impl AssetDigests {
    /// Returns the digests of a list with files of another one over it, without putting the two together: of ten thousand customers, each has
    /// few files beside the same ones.
    pub fn with(&self, own: &AssetDigests) -> AssetDigests {
        let both = |name, shared: &Digest, own: &Digest| {
            Framed::new(name).field(&shared.to_bytes()).field(&own.to_bytes()).finish()
        };
        AssetDigests {
            files: both("assets over assets", &self.files, &own.files),
            list: both("list over list", &self.list, &own.list),
        }
    }
}

/// The assets that all workers of a pack have.
#[derive(Clone, Debug)]
pub struct PackAssets {
    /// Their folder; none if each customer has one of its own, and there are no others.
    pub folder: Option<PathBuf>,
    /// The list.
    pub list: Arc<AssetList>,
    /// Its digests.
    pub digests: AssetDigests,
}

impl PackAssets {
    /// Returns the assets of a folder.
    pub fn new(folder: Option<PathBuf>, list: AssetList) -> PackAssets {
        PackAssets { folder, digests: list.digests(), list: list.into() }
    }

    /// Returns the digests of the assets of a worker.
    pub fn digests_of(&self, worker: &WorkerAssets) -> AssetDigests {
        match &worker.own {
            Some(own) => self.digests.with(&own.list.digests()),
            None => self.digests,
        }
    }

    /// Returns the list of a worker.
    pub fn list_of(&self, worker: &WorkerAssets) -> Arc<AssetList> {
        match &worker.own {
            Some(own) => self.list.with(&own.list).into(),
            None => Arc::clone(&self.list),
        }
    }
}

/// The key of assets in canonical metadata and in an upload.
pub const ASSETS: &str = "assets";

/// Returns the entry of a worker's canonical metadata: the options, and the digests of what is uploaded apart.
pub(crate) fn metadata(worker: &WorkerAssets, digests: AssetDigests) -> Value {
    json!({"config": worker.options.api(), "files": digests.files, "list": digests.list})
}

/// Returns the digests that canonical metadata has; none: the worker has no assets.
pub fn digests_of(metadata: &Value) -> Option<AssetDigests> {
    let digest = |key: &str| Digest::parse(metadata[ASSETS][key].as_str()?);
    Some(AssetDigests { files: digest("files")?, list: digest("list")? })
}

/// Returns whether an upload with this metadata can keep the assets of the version before it.
pub fn can_keep(before: &Value, after: &Value) -> bool {
    digests_of(before).zip(digests_of(after)).is_some_and(|(before, after)| before.files == after.files)
}

/// Sets the assets of an upload: the token that stands for them, or, without one, that those of the version before stay; and the configuration.
pub fn complete(metadata: &mut Value, token: Option<&str>, list: &AssetList) {
    let mut config = metadata[ASSETS]["config"].as_object().cloned().unwrap_or_default();
    for (key, text) in [("_headers", &list.headers), ("_redirects", &list.redirects)] {
        if let Some(text) = text {
            config.insert(key.to_owned(), text.clone().into());
        }
    }
    metadata[ASSETS] = json!({ "config": config });
    match token {
        Some(token) => metadata[ASSETS]["jwt"] = token.into(),
        None => metadata["keep_assets"] = true.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(files: &[(&str, &str)]) -> AssetList {
        let file = |(path, hash): &(&str, &str)| ((*path).to_owned(), AssetFile { hash: (*hash).to_owned(), size: 1 });
        AssetList { files: files.iter().map(file).collect(), ..AssetList::default() }
    }

    #[test]
    fn a_customers_files_come_over_those_of_the_pack() {
        let shared = AssetList { headers: Some("/*\n A: b".to_owned()), ..list(&[("/a", "1"), ("/b", "2")]) };
        let own = AssetList { redirects: Some("/x /y".to_owned()), ..list(&[("/b", "3"), ("/c", "4")]) };
        let both = shared.with(&own);
        assert_eq!(both.files, list(&[("/a", "1"), ("/b", "3"), ("/c", "4")]).files);
        assert_eq!((both.headers.is_some(), both.redirects.is_some()), (true, true));
        assert_eq!(serde_json::from_value::<AssetList>(json!(both)).unwrap(), both);
    }

    #[test]
    fn rules_are_apart_from_files() {
        let plain = list(&[("/a", "1")]).digests();
        let with = |headers: &str| AssetList { headers: Some(headers.to_owned()), ..list(&[("/a", "1")]) }.digests();
        assert_eq!(with("").files, plain.files);
        assert!(with("").list != plain.list && with("x").list != with("").list);
        assert_ne!(list(&[("/a", "2")]).digests().files, plain.files);
        let metadata = |digests: AssetDigests| json!({"assets": metadata(&WorkerAssets::default(), digests)});
        assert!(can_keep(&metadata(plain), &metadata(with("x"))));
        assert!(!can_keep(&json!({}), &metadata(plain)));
        let mut sent = metadata(plain);
        complete(&mut sent, None, &list(&[]));
        assert_eq!(sent, json!({"assets": {"config": {}}, "keep_assets": true}));
        complete(&mut sent, Some("t"), &AssetList { headers: Some("h".to_owned()), ..list(&[]) });
        assert_eq!(sent["assets"], json!({"config": {"_headers": "h"}, "jwt": "t"}));
    }
}
