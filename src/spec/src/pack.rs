//! A pack, read from its folder: manifest, templates, catalogue, and the sources of its runtime. Doesn't render
//! and doesn't bundle.

mod assets;
mod databases;
mod objects;
mod wrangler;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::leave_out::leave_out;
use crate::schema::{self, Checker, add_unreported};
use crate::tree::Tree;
use crate::yaml::{self, Document, Node};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::migrations::DatabaseMigrations;
use flotilla_model::plain_file;
use flotilla_model::spec::{
    BUNDLER_KEYS, CatalogueFile, DestinationType, OBJECT_KEYS, PackFile, Purpose, RuntimeFile, TEMPLATE_KEYS,
};

pub use assets::AssetSource;
pub use objects::Objects;
pub use wrangler::{Declared, Subject, WRANGLER, WranglerProject, relative, unsupported};

/// The maximum size, in bytes, of a template, and of a catalogue.
const MOST_TEMPLATE_BYTES: u64 = 1 << 20;
const MOST_CATALOGUE_BYTES: u64 = 16 << 20;
/// The maximum number of templates in a pack's folder.
const MOST_TEMPLATES: usize = 1000;

/// The maximum number of files and folders that decide a pack's code.
const MOST_SOURCES: usize = 20_000;
/// The maximum size, in bytes, of all files that decide a pack's code.
pub const MOST_SOURCE_BYTES: u64 = 256 << 20;

/// The way to fix a template that can't be read.
const TEMPLATE_HELP: &str = "templates are regular files of the pack's folder, in UTF-8, of up to 1 MiB each";

/// A pack.
pub struct Pack {
    /// Its folder.
    pub folder: PathBuf,
    /// Its folder from the project's root, with `/`.
    pub path: String,
    /// Its manifest.
    pub manifest: PackFile,
    /// Its templates: name without `.tera`, and text. The module's is the first.
    pub templates: Vec<(String, String)>,
    /// The other templates of its folder, which those include: file name and text, sorted.
    pub partials: Vec<(String, String)>,
    /// Its destination types by name.
    pub types: BTreeMap<String, Type>,
    /// The JSON Schema of each type's settings, for editors.
    pub catalogue: Map<String, Value>,
    /// The Durable Objects of its code.
    pub objects: Objects,
    /// The migrations of the D1 databases that its workers are bound to, by the names of the bindings.
    pub databases: BTreeMap<String, Arc<DatabaseMigrations>>,
    /// Its static assets.
    pub assets: Option<AssetSource>,
    /// The wrangler project that it bundles, if it has no code of its own.
    pub wrangler: Option<WranglerProject>,
}

/// A destination type.
pub struct Type {
    /// Its name for people.
    pub label: String,
    /// The consents that a visitor must have given, unless a spec sets others.
    pub required_consent: Vec<Purpose>,
    /// The settings that are references to secrets.
    pub secrets: BTreeSet<String>,
    checker: Checker,
}

impl Type {
    /// Checks the settings at a node of a document.
    pub fn check(&self, document: &Document, node: &Node, settings: &Value, kind: &str) -> Vec<Diagnostic> {
        self.checker.check_node(document, node, settings, &format!("a destination of type {kind}"))
    }
}

impl Pack {
    /// Returns the name of the uploaded module's file, the template's name without `.tera`; none if wrangler bundles the modules.
    pub fn module(&self) -> Option<&str> {
        self.manifest.module.as_deref().map(|name| name.trim_end_matches(".tera"))
    }

    /// Returns whether its templates are flotilla's own, as it has none.
    pub fn has_own_templates(&self) -> bool {
        self.wrangler.is_none() && self.manifest.module.is_some()
    }

    /// Returns how its code is bundled; none if wrangler does it, or if there is none.
    pub fn runtime(&self) -> Option<&RuntimeFile> {
        self.manifest.runtime.as_ref()
    }

    /// Returns the names of all files that a worker's folder holds.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.templates.iter().map(|(name, _)| name.as_str())
    }
}

/// A pack that can't be used: what is known of it, so that what is wrong elsewhere shows in the same run.
#[derive(Default)]
pub struct BrokenPack {
    /// Its errors; none if the errors of fleet.yaml have them.
    pub errors: Vec<Diagnostic>,
    /// Its folder from the project's root.
    pub path: String,
    /// The beginning of its workers' names, if it is known.
    pub prefix: Option<String>,
    /// Its templates as far as they can be read: name without `.tera`, and text.
    pub templates: Vec<(String, String)>,
    /// The other templates of its folder, as far as they can be read.
    pub partials: Vec<(String, String)>,
    /// Its destination types, if it is known which there are: `None` for a type that is faulty.
    pub types: Option<BTreeMap<String, Option<Type>>>,
}

impl Pack {
    /// Returns the pack as one that can't be used because of these errors.
    pub fn into_broken(self, errors: Vec<Diagnostic>) -> BrokenPack {
        BrokenPack {
            errors,
            path: self.path,
            prefix: Some(self.manifest.prefix),
            templates: self.templates,
            partials: self.partials,
            types: Some(self.types.into_iter().map(|(name, kind)| (name, Some(kind))).collect()),
        }
    }
}

/// Reads a pack. `path` is its folder from the project's root. What can be read of one with errors is checked as well.
pub fn read(tree: &Tree, path: &str) -> Result<Pack, Box<BrokenPack>> {
    let Manifest { value: manifest, runtime, mut diagnostics, document } = read_manifest(tree, path);
    let text = |key: &str| manifest[key].as_str().map(str::to_owned);
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let is_wrangler = wrangler::is_set(&manifest, "bundler");
    // Assets alone need neither code nor templates.
    let is_all_assets = !is_wrangler
        && wrangler::is_set(&manifest, "assets")
        && !TEMPLATE_KEYS.iter().any(|key| wrangler::is_set(&manifest, key));
    let (module, files) = match is_wrangler || is_all_assets {
        true => (None, Vec::new()),
        false => (text("module"), texts(&manifest["files"])),
    };
    let mut template = |name: &str, help: String| match tree.pack_text(path, name, MOST_TEMPLATE_BYTES) {
        Ok(text) => Some(text),
        Err(error) => {
            let place = Place::file(&format!("{path}/{name}"));
            let message = format!("the template can't be read: {error}");
            diagnostics.push(Diagnostic::error(Code::BadPack, place, message, help));
            None
        }
    };
    let mut templates = Vec::new();
    for name in module.iter().chain(&files) {
        let help = format!("{path}/pack.yaml lists it: add the file, or remove it from that list");
        let text = template(name, help);
        templates.extend(text.map(|text| (name.trim_end_matches(".tera").to_owned(), text)));
    }
    let is_named = |file: &String| module.as_ref() == Some(file) || files.contains(file);
    let mut partials = Vec::new();
    let names = tree.names(path).unwrap_or_default();
    let names: Vec<String> = names.into_iter().filter(|name| name.ends_with(".tera") && !is_named(name)).collect();
    let too_many = names.len() > MOST_TEMPLATES;
    for name in names.into_iter().take(MOST_TEMPLATES) {
        partials.extend(template(&name, TEMPLATE_HELP.to_owned()).map(|text| (name, text)));
    }
    if too_many {
        let message = format!("the pack has more than {MOST_TEMPLATES} templates in addition to those of its files");
        let help = "templates are the files in the pack's folder that end in .tera: remove the unused ones";
        diagnostics.push(Diagnostic::error(Code::BadPack, Place::file(&format!("{path}/pack.yaml")), message, help));
    }
    let (mut project, mut objects, mut assets) = (None, Objects::default(), None);
    let mut databases = BTreeMap::new();
    if let (false, Some(document)) = (is_wrangler, &document) {
        match databases::of_pack(tree, path, document, &manifest) {
            Ok(found) => databases = found,
            Err(found) => diagnostics.extend(found),
        }
        objects = Objects::of_pack(document, &manifest);
        diagnostics.extend(objects.check(document));
        match assets::of_pack(tree, path, document, &manifest, is_all_assets) {
            Ok(found) => assets = found,
            Err(found) => diagnostics.extend(found),
        }
        if is_all_assets {
            for key in OBJECT_KEYS.into_iter().filter(|key| wrangler::is_set(&manifest, key)) {
                let place = document.place(document.root.key_span(key).unwrap_or(document.root.span));
                let message = format!("`{key}` without code: the pack has static assets alone");
                let help = "remove it, or add `module`, `files` and `runtime`";
                diagnostics.push(Diagnostic::error(Code::Conflict, place, message, help));
            }
            templates = vec![(wrangler::TEMPLATE.0.to_owned(), wrangler::TEMPLATE.1.to_owned())];
            partials.clear();
        }
    }
    if let (true, Some(config), Some(document)) = (is_wrangler, text("config"), &document) {
        let place = |key: &str| document.place_of([key]);
        match wrangler::read(tree, path, &config, text("environment").as_deref(), place) {
            Ok(mut read) => {
                objects = std::mem::take(&mut read.objects);
                assets = read.assets.take();
                databases = std::mem::take(&mut read.databases);
                project = Some(read);
            }
            Err(found) => diagnostics.extend(found),
        }
        templates = vec![(wrangler::TEMPLATE.0.to_owned(), wrangler::TEMPLATE.1.to_owned())];
        partials.clear();
    }
    let mut catalogue = Catalogue::default();
    match text("catalogue") {
        Some(name) => catalogue = read_catalogue(tree, path, &name, &mut diagnostics),
        // Whether it has one isn't known while the manifest is faulty.
        None if !diagnostics.is_empty() => catalogue.types = None,
        None => {}
    }
    // Where the manifest can't be read, it isn't known whether there is a runtime at all.
    if runtime.is_object() {
        let named = texts(&runtime["sources"]);
        // For an earlier commit, the files are known, but not which of them were links.
        diagnostics.extend(match tree.past.is_empty() {
            true => sources(&tree.root.join(path), path, &named).1,
            false => {
                let named = named.iter().map(String::as_str).chain(OF_NPM);
                let missing = named.filter(|source| !tree.has(&format!("{path}/{source}")));
                missing.map(|source| missing_source(path, source)).collect()
            }
        });
    }
    let manifest = match PackFile::deserialize(&manifest) {
        Ok(read) if diagnostics.is_empty() => read,
        read => {
            if let (Err(error), true) = (read, diagnostics.is_empty()) {
                let place = Place::file(&format!("{path}/pack.yaml"));
                let message = format!("the pack's manifest: {error}");
                diagnostics.push(Diagnostic::error(Code::BadPack, place, message, "see templates/consent"));
            }
            let (path, prefix) = (path.to_owned(), text("prefix"));
            let types = catalogue.types;
            return Err(Box::new(BrokenPack { errors: diagnostics, path, prefix, templates, partials, types }));
        }
    };
    let types = catalogue.types.into_iter().flatten().filter_map(|(name, kind)| Some((name, kind?))).collect();
    let (folder, catalogue) = (tree.root.join(path), catalogue.schemas);
    Ok(Pack {
        folder,
        path: path.to_owned(),
        manifest,
        templates,
        partials,
        types,
        catalogue,
        objects,
        databases,
        assets,
        wrangler: project,
    })
}

/// The files that npm needs to install what a pack's code uses.
const OF_NPM: [&str; 2] = ["package.json", "package-lock.json"];

/// Returns the files that decide a pack's code, by path within the pack, each with the file that it is or that it points to; and what a
/// build would refuse of them. `path` is the pack's folder from the project's root.
pub fn sources(folder: &Path, path: &str, named: &[String]) -> (BTreeMap<String, PathBuf>, Vec<Diagnostic>) {
    let mut sources = Sources { pack: path, files: BTreeMap::new(), errors: Vec::new(), bytes: 0, seen: 0 };
    let named: BTreeSet<&str> = named.iter().map(String::as_str).chain(OF_NPM).collect();
    match folder.canonicalize() {
        Ok(root) => {
            for name in named {
                if std::fs::symlink_metadata(folder.join(name)).is_err_and(|error| error.kind() == ErrorKind::NotFound)
                {
                    sources.errors.push(missing_source(path, name));
                    continue;
                }
                sources.add(folder, &root, name);
            }
        }
        Err(error) => sources.errors.push(unreadable_source(path, "pack.yaml", &error)),
    }
    for name in OF_NPM {
        let Some(target) = sources.files.get(name) else { continue };
        let Ok(bytes) = plain_file::read_through_links(target, MOST_CATALOGUE_BYTES) else { continue };
        let json = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(json) {
            let place =
                Place { line: error.line(), column: error.column().max(1), ..Place::file(&format!("{path}/{name}")) };
            let help = "npm reads it to install what the pack's code uses: repair it, or run `npm install` in the pack's folder";
            sources.errors.push(Diagnostic::error(Code::BadPack, place, "the file is not JSON", help));
        }
    }
    if sources.seen > MOST_SOURCES {
        sources.too_many(&format!("the pack's sources have more than {MOST_SOURCES} files and folders"));
    } else if sources.bytes > MOST_SOURCE_BYTES {
        sources.too_many(&format!("the pack's sources have more than {} MiB", MOST_SOURCE_BYTES >> 20));
    }
    (sources.files, sources.errors)
}

/// The files that decide a pack's code, while they are looked up.
struct Sources<'a> {
    pack: &'a str,
    files: BTreeMap<String, PathBuf>,
    errors: Vec<Diagnostic>,
    bytes: u64,
    /// The number of files and folders that were looked at.
    seen: usize,
}

impl Sources<'_> {
    /// Adds a file, or those of a folder.
    fn add(&mut self, folder: &Path, root: &Path, path: &str) {
        // Folders count, too: links among them can repeat each other without end.
        self.seen += 1;
        if self.seen > MOST_SOURCES {
            return;
        }
        if let Err(error) = self.look_up(folder, root, path) {
            self.errors.push(unreadable_source(self.pack, path, &error));
        }
    }

    fn look_up(&mut self, folder: &Path, root: &Path, path: &str) -> io::Result<()> {
        let full = folder.join(path);
        let is_link = std::fs::symlink_metadata(&full)?.is_symlink();
        // A link is what it points to, as long as that is in the pack: then it is under version control, as the pack is.
        let target = match full.canonicalize() {
            Err(error) if is_link && error.kind() == ErrorKind::NotFound => {
                return Err(io::Error::other("it is a symbolic link to a file that doesn't exist"));
            }
            target => target?,
        };
        if path.split('/').any(|step| step == "..") || !target.starts_with(root) {
            let leads = if is_link { "it is a symbolic link that" } else { "it" };
            return Err(io::Error::other(format!("{leads} points outside the pack")));
        }
        let metadata = target.metadata()?;
        if metadata.is_dir() {
            // A link to a folder above it would never end.
            let above = full.parent().and_then(|above| above.canonicalize().ok());
            if is_link && above.is_none_or(|above| above.starts_with(&target)) {
                return Err(io::Error::other("it is a symbolic link to a folder that contains it"));
            }
            for entry in std::fs::read_dir(&full)? {
                let name = entry?.file_name();
                if name != "node_modules" {
                    self.add(folder, root, &format!("{path}/{}", name.to_string_lossy()));
                }
            }
            return Ok(());
        }
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        std::fs::File::open(&target)?;
        self.bytes = self.bytes.saturating_add(metadata.len());
        self.files.insert(path.to_owned(), target);
        Ok(())
    }

    fn too_many(&mut self, message: &str) {
        let place = Place::file(&format!("{}/pack.yaml", self.pack));
        let help =
            "`sources` under `runtime` lists the files and folders that the pack's code depends on: list no others";
        self.errors.push(Diagnostic::error(Code::BadPack, place, message, help));
    }
}

/// Reports a file that doesn't exist, though the pack's code needs it.
fn missing_source(pack: &str, source: &str) -> Diagnostic {
    let help = format!("add the file; {pack}/pack.yaml names the sources of the runtime");
    let place = Place::file(&format!("{pack}/{source}"));
    Diagnostic::error(Code::BadPack, place, "a source of the pack's code is missing", help)
}

/// Reports a file that decides a pack's code and can't be read.
pub fn unreadable_source(pack: &str, source: &str, error: &io::Error) -> Diagnostic {
    let help = format!(
        "the sources in {pack}/pack.yaml are regular files of the pack's folder, or links to such files: put a copy there, or name \
         another file"
    );
    let place = Place::file(&format!("{pack}/{source}"));
    Diagnostic::error(Code::BadPack, place, format!("a source of the pack's code can't be read: {error}"), help)
}

/// A pack's manifest, as far as it can be read.
#[derive(Default)]
struct Manifest {
    /// Its content as JSON, without what is faulty in it.
    value: Value,
    /// Its key `runtime`, faulty or not.
    runtime: Value,
    /// Its errors.
    diagnostics: Vec<Diagnostic>,
    /// The file itself, for places.
    document: Option<Document>,
}

/// The keys that a pack with a bundler can't have.
const EXCLUDED_KEYS: [&str; 8] = [
    TEMPLATE_KEYS[0],
    TEMPLATE_KEYS[1],
    TEMPLATE_KEYS[2],
    OBJECT_KEYS[0],
    OBJECT_KEYS[1],
    OBJECT_KEYS[2],
    "databases",
    "assets",
];

/// Returns the errors in which keys a pack has: those of a pack with templates and those of one with a bundler exclude each other.
fn excluding_keys(document: &Document, value: &Value) -> Vec<Diagnostic> {
    let has = |key: &&&str| wrangler::is_set(value, key);
    let key_place = |key: &str| document.place(document.root.key_span(key).unwrap_or(document.root.span));
    let is_wrangler = document.root.get("bundler").is_some();
    let (excluded, help): (&[&str], &str) = match is_wrangler {
        true => (
            &EXCLUDED_KEYS,
            "a pack has templates and a bundle command (`module`, `files`, `runtime`), or `bundler: wrangler` and `config`: keep one of the two; with `bundler`, Durable Objects, databases and assets are those of the configuration",
        ),
        false => (
            &BUNDLER_KEYS,
            "only packs with `bundler: wrangler` have this key: add that in place of `module`, `files` and `runtime`, or remove the key",
        ),
    };
    let excluded = excluded.iter().filter(has).map(|key| {
        let message = match is_wrangler {
            true => format!("`{key}` and `bundler` exclude each other"),
            false => format!("`{key}` without `bundler`"),
        };
        Diagnostic::error(Code::Conflict, key_place(key), message, help)
    });
    excluded.collect()
}

fn read_manifest(tree: &Tree, path: &str) -> Manifest {
    let file = format!("{path}/pack.yaml");
    let bad = |message: String, help: &str| vec![Diagnostic::error(Code::BadPack, Place::file(&file), message, help)];
    let failed = |diagnostics: Vec<Diagnostic>| Manifest { diagnostics, ..Manifest::default() };
    let text = match tree.pack_text(path, "pack.yaml", yaml::MAX_BYTES) {
        Ok(text) => text,
        Err(error) => {
            let help = "a pack is a folder with a pack.yaml, templates and a runtime: see templates/consent";
            return failed(bad(format!("the pack's manifest can't be read: {error}"), help));
        }
    };
    let (document, mut diagnostics) = yaml::parse(&file, text.as_bytes());
    let Some(mut document) = document else {
        if diagnostics.is_empty() {
            diagnostics = bad("the pack's manifest is empty".to_owned(), "see templates/consent");
        }
        return failed(diagnostics);
    };
    let mut value = document.root.to_value();
    add_unreported(&mut diagnostics, Checker::pack().check(&document, &[], &value, "a pack"));
    let runtime = value["runtime"].clone();
    add_unreported(&mut diagnostics, excluding_keys(&document, &value));
    if !diagnostics.is_empty() {
        let more = leave_out(&mut document, &diagnostics, Checker::pack(), "a pack");
        diagnostics.extend(more);
        value = document.root.to_value();
    }
    Manifest { value, runtime, diagnostics, document: Some(document) }
}

/// A pack's catalogue, as far as it can be read.
struct Catalogue {
    /// The types of destinations by name, if it is known which there are; `None` for a faulty one.
    types: Option<BTreeMap<String, Option<Type>>>,
    /// The schemas of their settings.
    schemas: Map<String, Value>,
}

impl Default for Catalogue {
    fn default() -> Catalogue {
        Catalogue { types: Some(BTreeMap::new()), schemas: Map::new() }
    }
}

/// Reads a catalogue, type by type: one that is faulty hides nothing of the others.
fn read_catalogue(tree: &Tree, path: &str, name: &str, diagnostics: &mut Vec<Diagnostic>) -> Catalogue {
    let mut bad = |place: Place, error: &str| {
        let message = format!("the catalogue can't be read: {error}");
        let help = "expected JSON: {\"destinations\": {TYPE: {label, requiredConsent, settings}}}";
        diagnostics.push(Diagnostic::error(Code::BadPack, place, message, help));
    };
    let place = Place::file(&format!("{path}/{name}"));
    let unknown = || Catalogue { types: None, schemas: Map::new() };
    let text = match tree.pack_text(path, name, MOST_CATALOGUE_BYTES) {
        Ok(text) => text,
        Err(error) => {
            bad(place, &error.to_string());
            return unknown();
        }
    };
    let read: Result<CatalogueFile, _> = serde_json::from_str(&text);
    let (entries, faulty) = match read {
        Ok(read) => (read.destinations, BTreeMap::new()),
        Err(error) => {
            // What the types are, as far as it is JSON of this form; else the first error is the only one.
            let Some(types) = serde_json::from_str(&text).ok().and_then(|value: Value| match &value["destinations"] {
                Value::Object(types) => Some(types.clone()),
                _ => None,
            }) else {
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or_default();
                bad(Place { line: error.line(), column: error.column().max(1), ..place }, message);
                return unknown();
            };
            // JSON is YAML, whose parser knows the places.
            let document = yaml::parse(&place.file, text.as_bytes()).0;
            let place_of = |kind: &str, key: &str| {
                let document = document.as_ref()?;
                let types = document.root.get("destinations")?;
                let span = types.get(kind)?.key_span(key).or_else(|| types.key_span(kind))?;
                Some(document.place(span))
            };
            let (mut entries, mut faulty) = (BTreeMap::new(), BTreeMap::new());
            for (kind, entry) in types {
                for (key, error) in faulty_keys(&entry) {
                    let place = place_of(&kind, key).unwrap_or_else(|| place.clone());
                    bad(place, &format!("`{kind}`: {error}"));
                }
                match DestinationType::deserialize(&entry) {
                    Ok(entry) => drop(entries.insert(kind, entry)),
                    Err(_) => drop(faulty.insert(kind, None)),
                }
            }
            (entries, faulty)
        }
    };
    // In parallel: every build waits until the schemas of all types are compiled.
    let compiled: Vec<_> = entries
        .into_par_iter()
        .map(|(kind, entry)| {
            (kind, destination_type(&entry.settings, entry.label, entry.required_consent), entry.settings)
        })
        .collect();
    let (mut types, mut schemas) = (faulty, Map::new());
    for (kind, compiled, settings) in compiled {
        match compiled {
            Ok(type_) => {
                types.insert(kind.clone(), Some(type_));
                schemas.insert(kind, settings);
            }
            Err(error) => {
                diagnostics.push(Diagnostic::error(
                    Code::BadPack,
                    place.clone(),
                    format!("the settings of `{kind}` are not a JSON Schema: {error}"),
                    "each type's `settings` is a JSON Schema (draft 2020-12) of an object",
                ));
                types.insert(kind, None);
            }
        }
    }
    Catalogue { types: Some(types), schemas }
}

/// Returns the keys of a catalogue's entry that can't be read, each with the error.
fn faulty_keys(entry: &Value) -> Vec<(&'static str, String)> {
    if !entry.is_object() {
        return vec![("", "expected a map".to_owned())];
    }
    let alone = |key: &'static str| {
        let mut alone = json!({"label": "", "requiredConsent": [], "settings": {}});
        match (alone.as_object_mut(), entry.get(key)) {
            (Some(alone), Some(value)) => drop(alone.insert(key.to_owned(), value.clone())),
            (Some(alone), None) => drop(alone.remove(key)),
            (None, _) => {}
        }
        Some((key, DestinationType::deserialize(&alone).err()?.to_string()))
    };
    ["label", "requiredConsent", "settings"].into_iter().filter_map(alone).collect()
}

fn destination_type(settings: &Value, label: String, required_consent: Vec<Purpose>) -> Result<Type, String> {
    let secrets = settings["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, property)| property["$ref"] == "#/$defs/secret")
        .map(|(name, _)| name.clone())
        .collect();
    let mut schema = settings.clone();
    schema["$defs"] = json!({"secret": schema::secret()});
    Ok(Type { label, required_consent, secrets, checker: Checker::new(schema)? })
}
