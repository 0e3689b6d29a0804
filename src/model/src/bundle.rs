//! The bundle of a worker: everything that is uploaded, as one value with one digest. Pure; doesn't render and
//! doesn't send.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::assets::{self, ASSETS, AssetDigests, PackAssets};
use crate::binding::DATABASE_NAME;
use crate::customer::{DIGEST_VARIABLE, DISPATCHER_BINDING, Database, Dispatch, HOSTS_BINDING, Worker};
use crate::digest::{Digest, Framed, ShortHash};
use crate::modules::{BundledModule, ModuleKind, Modules};
use crate::objects::Migration;
use crate::platform::Module;
use crate::reason::{MetadataChange, Reason};
use crate::spec::{Observability, Placement};
use crate::tags;

/// The folder under out/ of bundles that wrangler made.
pub const BUNDLES: &str = "bundles";

/// Returns the modules of an upload from what is kept of it, the main one first. `file` is [`PackBundle::file`] and `script`
/// [`PackBundle::script`]. Nothing if they are damaged.
pub fn kept_modules(main: &str, module: Vec<u8>, file: &str, script: &Arc<[u8]>) -> Option<Vec<Module>> {
    if file.split('/').next() == Some(BUNDLES) {
        return Some(modules_of(&Modules::unpack(script)?));
    }
    Some(two_modules(main, module, file, script))
}

fn modules_of(modules: &Modules) -> Vec<Module> {
    let module = |module: &BundledModule| Module {
        name: module.name.clone(),
        content_type: module.kind.content_type(),
        bytes: Arc::clone(&module.bytes),
    };
    modules.list.iter().map(module).collect()
}

/// Returns a worker's own module, and the bundle that it imports.
fn two_modules(main: &str, module: Vec<u8>, file: &str, script: &Arc<[u8]>) -> Vec<Module> {
    let esm = |name: &str, bytes| Module { name: name.to_owned(), content_type: ModuleKind::Esm.content_type(), bytes };
    vec![esm(main, module.into()), esm(file, Arc::clone(script))]
}

/// Returns a digest of what of a worker decides how wrangler bundles its code: the compatibility date and the flags.
pub fn compatibility(worker: &Worker) -> ShortHash {
    let start = Framed::new("compatibility").field(worker.compatibility_date.as_bytes());
    worker.compatibility_flags.iter().fold(start, |framed, flag| framed.field(flag.as_bytes())).finish().short_hash()
}

/// A pack's shared code, bundled.
#[derive(Clone, Debug)]
pub struct PackBundle {
    /// Its digest: of the script and the types.
    pub digest: Digest,
    /// Its file under out/: `runtime/consent-0123456789abcdef.js`.
    pub file: String,
    /// The script.
    pub script: Arc<[u8]>,
    /// Its types, for TypeScript; none if wrangler bundled it.
    pub types: Arc<[u8]>,
    /// Its modules, if wrangler bundled it: then it is a folder, `bundles/0123456789abcdef`, workers have no module of their own, and
    /// `script` is all modules as one value.
    pub modules: Option<Arc<Modules>>,
    /// The files that it was made of, each with the beginning of its digest, if that is known.
    pub sources: Arc<[(String, u32)]>,
    /// The static assets of the pack, if it has any.
    pub assets: Option<Arc<PackAssets>>,
    /// The files that these are, each with the beginning of its hash.
    pub asset_files: Arc<[(String, u32)]>,
}

impl PackBundle {
    /// Returns a runtime from what its bundler wrote.
    pub fn new(pack: &str, script: Vec<u8>, types: Vec<u8>) -> PackBundle {
        let digest = Framed::new("runtime").field(&script).field(&types).finish();
        PackBundle {
            digest,
            file: format!("runtime/{pack}-{}.js", digest.short()),
            script: script.into(),
            types: types.into(),
            modules: None,
            sources: Arc::new([]),
            assets: None,
            asset_files: Arc::new([]),
        }
    }

    /// Returns the bundle of modules that wrangler made of these files.
    pub fn of_modules(modules: Modules, sources: Vec<(String, u32)>) -> PackBundle {
        let digest = modules.digest();
        PackBundle {
            digest,
            file: format!("{BUNDLES}/{}", digest.short()),
            script: modules.pack().into(),
            types: Arc::new([]),
            modules: Some(Arc::new(modules)),
            sources: sources.into(),
            assets: None,
            asset_files: Arc::new([]),
        }
    }

    /// Returns the bundle of a pack without code, whose workers only have static assets.
    pub fn without_code() -> PackBundle {
        PackBundle::of_modules(Modules::none(), Vec::new())
    }

    /// Returns the digests of the static assets of a worker, if it has any.
    pub fn assets_of(&self, worker: &Worker) -> Option<AssetDigests> {
        Some(self.assets.as_ref()?.digests_of(worker.assets.as_ref()?))
    }

    /// Returns its files under out/, by path.
    pub fn files(&self) -> Vec<(String, &[u8])> {
        match &self.modules {
            None => vec![(self.file.clone(), &*self.script), (self.file.replace(".js", ".d.ts"), &*self.types)],
            Some(modules) => {
                let file = |module: &BundledModule| format!("{}/{}", self.file, module.name);
                modules.list.iter().map(|module| (file(module), &*module.bytes)).collect()
            }
        }
    }

    /// Returns the modules of a worker's upload, the main one first. `module`: the worker's own; empty if wrangler bundled the pack.
    pub fn upload_modules(&self, main: &str, module: Vec<u8>) -> Vec<Module> {
        match &self.modules {
            Some(modules) => modules_of(modules),
            None => two_modules(main, module, &self.file, &self.script),
        }
    }

    /// Returns the bytes of it that count against the limit of an upload.
    pub fn size(&self) -> u64 {
        self.modules.as_ref().map_or(self.script.len() as u64, |modules| modules.size())
    }

    /// Returns the name of a worker's main module within the upload.
    fn main_module(&self, worker: &Worker) -> String {
        self.modules.as_ref().map_or_else(|| module_name(worker), |modules| modules.main.clone())
    }

    /// Returns the module specifier by which a worker's module imports it, from its folder up to out/.
    pub fn specifier(&self, worker: &Worker) -> String {
        let up = if worker.role.is_some() { "../../.." } else { "../.." };
        format!("{up}/{}", self.file)
    }
}

/// A worker's bundle without the bytes of its modules: these are rendered again when they are uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The digest that decides whether the worker is deployed.
    pub digest: Digest,
    /// The digest of the worker's own module.
    pub module: Digest,
    /// The digest of the runtime.
    pub runtime: Digest,
    /// The canonical metadata.
    pub metadata: Value,
}

/// Makes a worker's bundle from its rendered module.
pub fn bundle(worker: &Worker, module: &str, runtime: &PackBundle) -> Bundle {
    let main = runtime.main_module(worker);
    let metadata = metadata(worker, &main, runtime.assets_of(worker));
    let module = Digest::of(module.as_bytes());
    let canonical = serde_json::to_vec(&metadata).expect("BUG: metadata is JSON");
    let digest = Framed::new("bundle")
        .field(main.as_bytes())
        .field(module.to_string().as_bytes())
        .field(runtime.file.as_bytes())
        .field(runtime.digest.to_string().as_bytes())
        .field(&canonical)
        .finish();
    Bundle { digest, module, runtime: runtime.digest, metadata }
}

/// Returns a worker's bundle as an earlier build made it: of its module, the digest is enough.
pub fn remembered(worker: &Worker, digest: Digest, module: Digest, runtime: &PackBundle) -> Bundle {
    let metadata = metadata(worker, &runtime.main_module(worker), runtime.assets_of(worker));
    Bundle { digest, module, runtime: runtime.digest, metadata }
}

/// Returns the name of a worker's module within the upload. Modules resolve each other's names like files, so that
/// with this name the rendered import of the runtime needs no change.
pub fn module_name(worker: &Worker) -> String {
    format!("{}/index.js", worker.folder())
}

/// Returns the metadata that is uploaded beside the modules, in a canonical form: without the values of secrets, and without what is
/// derived from the digest.
fn metadata(worker: &Worker, main: &str, digests: Option<AssetDigests>) -> Value {
    let assets = worker.assets.as_ref().zip(digests).map(|(assets, digests)| assets::metadata(assets, digests));
    if main.is_empty() {
        // What Cloudflare takes of a worker without code, as wrangler sends it.
        return json!({
            ASSETS: assets,
            "compatibility_date": worker.compatibility_date,
            "compatibility_flags": worker.compatibility_flags,
        });
    }
    let mut bindings: Vec<Value> = worker
        .vars
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => json!({"type": "plain_text", "name": name, "text": text}),
            other => json!({"type": "json", "name": name, "json": other}),
        })
        .collect();
    if let Database::D1 { binding, name, id, .. } = &worker.database {
        bindings.push(match id {
            Some(id) => json!({"type": "d1", "name": binding, "database_id": id}),
            None => json!({"type": "d1", "name": binding, DATABASE_NAME: name}),
        });
    }
    if let Some(Dispatch { namespace, hosts }) = &worker.dispatch {
        bindings.push(json!({"type": "dispatch_namespace", "name": DISPATCHER_BINDING, "namespace": namespace}));
        bindings.push(json!({"type": "kv_namespace", "name": HOSTS_BINDING, KV_TITLE: hosts}));
    }
    let services = worker.services.iter();
    bindings.extend(services.map(|(name, service)| json!({"type": "service", "name": name, "service": service})));
    bindings.extend(worker.bindings.iter().map(|(name, binding)| binding.upload(name)));
    let read = worker.assets.as_ref().and_then(|assets| assets.options.binding.as_ref());
    bindings.extend(read.map(|name| json!({"type": "assets", "name": name})));
    bindings.extend(worker.secrets.keys().map(|name| json!({"type": "secret_text", "name": name})));
    let mut metadata = json!({
        "main_module": main,
        "compatibility_date": worker.compatibility_date,
        "compatibility_flags": worker.compatibility_flags,
        "bindings": bindings,
        "observability": observability(worker),
    });
    if let Some(assets) = assets {
        metadata[ASSETS] = assets;
    }
    // Settings that a spec doesn't have are left out, so digests don't change when new settings are introduced.
    for (key, value) in options(worker) {
        metadata[key] = value;
    }
    metadata
}

/// The key of the migrations of Durable Object classes: in canonical metadata and in wrangler's configuration all of them, in an upload those that
/// the worker has yet to go through.
pub const MIGRATIONS: &str = "migrations";
/// The key of declared Durable Object classes.
pub const EXPORTS: &str = "exports";

/// Returns a value as JSON, unless it is empty.
fn some<T: serde::Serialize>(value: T, is_empty: impl Fn(&T) -> bool) -> Option<Value> {
    (!is_empty(&value)).then(|| json!(value))
}

/// The key of the workers that get a worker's logs.
const TAIL_CONSUMERS: &str = "tail_consumers";
/// The key of the cache's options in metadata; wrangler's configuration calls it `cache`.
const CACHE_OPTIONS: &str = "cache_options";
/// The key by which canonical metadata, as wrangler's configuration, says that variables stay; an upload keeps bindings of their types.
const KEEP_VARS: &str = "keep_vars";

/// Returns the options of a worker as wrangler's configuration writes them.
pub fn wrangler_options(worker: &Worker) -> BTreeMap<&'static str, Value> {
    options(worker).into_iter().map(|(key, value)| (if key == CACHE_OPTIONS { "cache" } else { key }, value)).collect()
}

/// Returns the options of a worker beside its bindings and its compatibility, as the API writes them.
fn options(worker: &Worker) -> BTreeMap<&'static str, Value> {
    let limits = worker.limits.as_ref().map(|limits| {
        let both = [("cpu_ms", limits.cpu_ms), ("subrequests", limits.subrequests)];
        both.into_iter().filter_map(|(key, limit)| Some((key, limit?))).collect::<BTreeMap<_, _>>()
    });
    let placement = worker.placement.as_ref().map(|placement| match placement {
        Placement::Smart => json!({"mode": "smart"}),
        Placement::Region { region } => json!({"mode": "targeted", "region": region}),
        Placement::Host { host } => json!({"mode": "targeted", "host": host}),
        Placement::Hostname { hostname } => json!({"mode": "targeted", "hostname": hostname}),
    });
    let cache = worker.cache.as_ref().map(|cache| {
        let mut options = json!({"enabled": cache.enabled});
        if let Some(cross_version) = cache.cross_version {
            options["cross_version_cache"] = cross_version.into();
        }
        options
    });
    let tail = worker.tail_consumers.as_ref();
    let tail = tail.map(|names| names.iter().map(|name| json!({"service": name})).collect::<Vec<_>>());
    let all = [
        ("limits", limits.map(|limits| json!(limits))),
        ("placement", placement),
        (CACHE_OPTIONS, cache),
        (KEEP_VARS, worker.keep_vars.then_some(Value::Bool(true))),
        ("logpush", worker.logpush.map(Value::Bool)),
        (TAIL_CONSUMERS, tail.map(Value::Array)),
        (MIGRATIONS, some(worker.migrations.iter().map(Migration::api).collect::<Vec<_>>(), Vec::is_empty)),
        (EXPORTS, some(worker.exports.iter().map(|(name, export)| (name, export.api())).collect(), BTreeMap::is_empty)),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Returns a worker's observability, as the API and wrangler write it.
pub fn observability(worker: &Worker) -> Value {
    fn some<'v>(fields: impl IntoIterator<Item = (&'v str, Option<Value>)>) -> Value {
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect::<Map<_, _>>().into()
    }
    let Observability { enabled, sampling, logs, traces } = &worker.observability;
    let logs = logs.as_ref().map(|logs| {
        some([
            // The API wants these two.
            ("enabled", Some(json!(logs.enabled.unwrap_or(true)))),
            ("invocation_logs", Some(json!(logs.invocation_logs.unwrap_or(true)))),
            ("head_sampling_rate", logs.sampling.map(Value::from)),
            ("persist", logs.persist.map(Value::from)),
            ("destinations", logs.destinations.as_ref().map(|names| json!(names))),
        ])
    });
    let traces = traces.as_ref().map(|traces| {
        some([
            ("enabled", traces.enabled.map(Value::from)),
            ("head_sampling_rate", traces.sampling.map(Value::from)),
            ("persist", traces.persist.map(Value::from)),
            ("destinations", traces.destinations.as_ref().map(|names| json!(names))),
        ])
    });
    some([
        ("enabled", Some(json!(enabled.unwrap_or(true)))),
        ("head_sampling_rate", sampling.map(Value::from)),
        ("logs", logs),
        ("traces", traces),
    ])
}

/// Returns the metadata as it is uploaded: with the digest, the tags ([`crate::tags::of`]), and those secrets whose values are given. Keep:
/// the types of bindings that the platform keeps if they aren't sent.
pub fn upload_metadata<'a>(
    bundle: &Bundle,
    tags: &[String],
    keep: &[&str],
    value: impl Fn(&str) -> Option<&'a str>,
) -> Value {
    let mut metadata = bundle.metadata.clone();
    // Which of them the worker has yet to go through is known when it is sent.
    metadata.as_object_mut().map(|metadata| metadata.remove(MIGRATIONS));
    metadata["tags"] = json!(tags);
    // Without code, there are no variables either: the tags alone tell the digest.
    let Some(bindings) = metadata.get_mut("bindings").and_then(Value::as_array_mut) else { return metadata };
    bindings.retain_mut(|binding| {
        if binding["type"] != "secret_text" {
            return true;
        }
        let text = binding["name"].as_str().and_then(&value);
        binding["text"] = text.map_or(Value::Null, |text| json!(text));
        text.is_some()
    });
    bindings.push(json!({"type": "plain_text", "name": DIGEST_VARIABLE, "text": bundle.digest}));
    let mut keep = keep.to_vec();
    if metadata.as_object_mut().is_some_and(|metadata| metadata.remove(KEEP_VARS).is_some()) {
        keep.extend(["plain_text", "json"]);
    }
    if !keep.is_empty() {
        metadata["keep_bindings"] = json!(keep);
    }
    metadata
}

/// The key of a KV binding whose namespace's id is known by its title alone.
const KV_TITLE: &str = "namespace_title";

/// A resource of an account that a worker is bound to and that its spec gives by name: its id is looked up by the first deploy,
/// so that the digest can't hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// A D1 database.
    Database,
    /// A KV namespace.
    Kv,
}

/// Returns the resources that canonical metadata gives by name.
pub fn by_name(metadata: &Value) -> impl Iterator<Item = (Resource, &str)> {
    metadata["bindings"].as_array().into_iter().flatten().filter_map(|binding| {
        let database = binding.get(DATABASE_NAME).map(|name| (Resource::Database, name));
        let (resource, name) = database.or_else(|| Some((Resource::Kv, binding.get(KV_TITLE)?)))?;
        Some((resource, name.as_str()?))
    })
}

/// Returns the workers that a bundle's metadata names: those that bindings call or whose classes they use, and those that get its logs.
pub fn workers(metadata: &Value) -> Vec<String> {
    let lists = [&metadata["bindings"], &metadata[TAIL_CONSUMERS]].into_iter().filter_map(Value::as_array).flatten();
    let mut names: Vec<String> = lists.flat_map(named_workers).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Returns the workers that a binding, or a consumer of logs, names.
fn named_workers(entry: &Value) -> impl Iterator<Item = &str> {
    let all = [&entry["service"], &entry["script_name"], &entry["outbound"]["worker"]["service"]];
    all.into_iter().filter_map(Value::as_str)
}

/// Returns the digest of a bundle as it is uploaded without some of its bindings: its worker is not that of the whole bundle.
pub fn digest_without_bindings(digest: &Digest) -> Digest {
    Digest::of(format!("without bindings {digest}").as_bytes())
}

/// Makes the metadata of an upload, with the values of secrets, that of a worker that is created first: without its bindings to these
/// workers, which don't exist yet, and without static assets, which wait for the whole upload.
pub fn without_workers(metadata: &mut Value, names: &[String], digest: &Digest) {
    let Some(fields) = metadata.as_object_mut() else { return };
    fields.remove(ASSETS);
    for list in ["bindings", TAIL_CONSUMERS] {
        if let Some(entries) = fields.get_mut(list).and_then(Value::as_array_mut) {
            entries.retain(|entry| !named_workers(entry).any(|worker| names.iter().any(|name| name == worker)));
        }
    }
    let part = digest_without_bindings(digest);
    if let Some(bindings) = fields.get_mut("bindings").and_then(Value::as_array_mut) {
        bindings.retain(|binding| binding["type"] != "assets");
        let own = bindings.iter_mut().find(|binding| binding["name"] == DIGEST_VARIABLE);
        own.into_iter().for_each(|binding| binding["text"] = json!(part));
    }
    if let Some(tags) = fields.get_mut("tags").and_then(Value::as_array_mut) {
        let whole = tags::digest(digest);
        let own = tags.iter_mut().find(|tag| **tag == whole);
        own.into_iter().for_each(|tag| *tag = tags::digest(&part).into());
    }
}

/// Replaces names by ids; the first name that has none is the error.
pub fn with_ids(metadata: &mut Value, id: impl Fn(Resource, &str) -> Option<String>) -> Result<(), String> {
    let bindings = metadata.get_mut("bindings").and_then(Value::as_array_mut);
    for binding in bindings.into_iter().flatten().filter_map(Value::as_object_mut) {
        for (resource, key, own) in
            [(Resource::Database, DATABASE_NAME, "database_id"), (Resource::Kv, KV_TITLE, "namespace_id")]
        {
            let Some(Value::String(name)) = binding.remove(key) else { continue };
            binding.insert(own.to_owned(), id(resource, &name).ok_or(name)?.into());
        }
    }
    Ok(())
}

/// Returns the reasons for which the metadata of two bundles differ, in the author's terms.
pub fn differences(old: &Value, new: &Value) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (key, name) in [
        ("compatibility_date", "compatibilityDate"),
        ("compatibility_flags", "compatibilityFlags"),
        ("observability", "observability"),
        ("limits", "limits"),
        ("placement", "placement"),
        (CACHE_OPTIONS, "cache"),
        (KEEP_VARS, "keepVars"),
        ("logpush", "logpush"),
        (TAIL_CONSUMERS, "tailConsumers"),
        (EXPORTS, "exports"),
        ("main_module", "the module's name"),
    ] {
        let (old, new) = (&old[key], &new[key]);
        if old != new {
            let change = MetadataChange { name: name.to_owned(), old: old.clone(), new: new.clone() };
            reasons.push(Reason::MetadataChanged(Box::new(change)));
        }
    }
    for (key, name) in [("config", "assets"), ("files", "the files of the assets")] {
        let (old, new) = (&old[ASSETS][key], &new[ASSETS][key]);
        if old != new {
            let change = MetadataChange { name: name.to_owned(), old: old.clone(), new: new.clone() };
            reasons.push(Reason::MetadataChanged(Box::new(change)));
        }
    }
    let by_name = |metadata: &Value| -> Map<String, Value> {
        metadata["bindings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|binding| Some((binding["name"].as_str()?.to_owned(), binding.clone())))
            .collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    for (name, binding) in &after {
        match before.get(name) {
            None => reasons.push(Reason::BindingAdded { name: name.clone() }),
            Some(other) if other != binding => reasons.push(Reason::BindingChanged { name: name.clone() }),
            Some(_) => {}
        }
    }
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    reasons.extend(removed.map(|name| Reason::BindingRemoved { name: name.clone() }));
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_created_first_has_neither_bindings_to_others_nor_assets() {
        let digest = Digest::of(b"whole");
        let own = json!({"type": "durable_object_namespace", "name": "OWN", "class_name": "A"});
        let kept = json!({"type": "service", "name": "OLD", "service": "live"});
        let mut metadata = json!({
            "main_module": "index.js",
            "bindings": [
                own, kept,
                {"type": "service", "name": "API", "service": "new"},
                {"type": "durable_object_namespace", "name": "B", "class_name": "B", "script_name": "new"},
                {"type": "dispatch_namespace", "name": "D", "namespace": "n", "outbound": {"worker": {"service": "new"}}},
                {"type": "assets", "name": "ASSETS"},
                {"type": "plain_text", "name": DIGEST_VARIABLE, "text": digest},
            ],
            "tail_consumers": [{"service": "live"}, {"service": "new"}],
            "assets": {"config": {}},
            "tags": ["flotilla-f", tags::digest(&digest), "customer-a"],
        });
        assert_eq!(workers(&metadata), ["live", "new"]);
        without_workers(&mut metadata, &["new".to_owned()], &digest);
        let part = digest_without_bindings(&digest);
        assert_ne!(part, digest);
        assert_eq!(
            metadata,
            json!({
                "main_module": "index.js",
                "bindings": [own, kept, {"type": "plain_text", "name": DIGEST_VARIABLE, "text": part}],
                "tail_consumers": [{"service": "live"}],
                "tags": ["flotilla-f", tags::digest(&part), "customer-a"],
            })
        );
    }

    #[test]
    fn names_become_ids_and_what_has_none_is_named() {
        let metadata = json!({"bindings": [
            {"type": "plain_text", "name": "database_name", "text": "x"},
            {"type": "d1", "name": "DB", "database_name": "acme"},
            {"type": "d1", "name": "OTHER", "database_id": "id"},
            {"type": "kv_namespace", "name": "HOSTS", "namespace_title": "hosts"},
        ]});
        assert_eq!(by_name(&metadata).collect::<Vec<_>>(), [(Resource::Database, "acme"), (Resource::Kv, "hosts")]);
        let id = |resource, name: &str| Some(format!("{resource:?}-{name}"));
        let mut with = metadata.clone();
        assert_eq!(with_ids(&mut with, id), Ok(()));
        assert_eq!(with["bindings"][0], metadata["bindings"][0]);
        assert_eq!(with["bindings"][1], json!({"type": "d1", "name": "DB", "database_id": "Database-acme"}));
        assert_eq!(with["bindings"][2], metadata["bindings"][2]);
        assert_eq!(with["bindings"][3], json!({"type": "kv_namespace", "name": "HOSTS", "namespace_id": "Kv-hosts"}));
        assert_eq!(by_name(&with).count(), 0);
        let known = |resource, name: &str| id(resource, name).filter(|_| resource == Resource::Database);
        assert_eq!(with_ids(&mut metadata.clone(), known), Err("hosts".to_owned()));
    }
}
