//! A pack, read from its folder: manifest, templates, catalogue, and the sources of its runtime. Doesn't render
//! and doesn't bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::schema::{self, Checker, add_unreported};
use crate::tree::Tree;
use crate::yaml::{self, Document, Node};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::spec::{CatalogueFile, PackFile, Purpose};

/// The most bytes of a template, and of a catalogue.
const MOST_TEMPLATE_BYTES: u64 = 1 << 20;
const MOST_CATALOGUE_BYTES: u64 = 16 << 20;
/// The most templates in a pack's folder.
const MOST_TEMPLATES: usize = 1000;

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
    /// Returns the name of the uploaded module's file: the template's name without `.tera`.
    pub fn module(&self) -> &str {
        self.manifest.module.trim_end_matches(".tera")
    }

    /// Returns the names of all files that a worker's folder holds.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.templates.iter().map(|(name, _)| name.as_str())
    }
}

/// Reads a pack. `path` is its folder from the project's root.
pub fn read(tree: &Tree, path: &str) -> Result<Pack, Vec<Diagnostic>> {
    let manifest = read_manifest(tree, path)?;
    let mut diagnostics = Vec::new();
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
    for name in std::iter::once(&manifest.module).chain(&manifest.files) {
        let help = format!("it is named in {path}/pack.yaml: add the file or remove it there");
        let text = template(name, help);
        templates.extend(text.map(|text| (name.trim_end_matches(".tera").to_owned(), text)));
    }
    let is_named = |file: &String| manifest.module == *file || manifest.files.contains(file);
    let mut partials = Vec::new();
    let names = tree.names(path).unwrap_or_default();
    let names: Vec<String> = names.into_iter().filter(|name| name.ends_with(".tera") && !is_named(name)).collect();
    let too_many = names.len() > MOST_TEMPLATES;
    for name in names.into_iter().take(MOST_TEMPLATES) {
        partials.extend(template(&name, TEMPLATE_HELP.to_owned()).map(|text| (name, text)));
    }
    if too_many {
        let message = format!("the pack has more than {MOST_TEMPLATES} templates beside those of its files");
        let help = "templates are the files of the pack's folder that end in .tera: remove those that nothing includes";
        diagnostics.push(Diagnostic::error(Code::BadPack, Place::file(&format!("{path}/pack.yaml")), message, help));
    }
    let (mut types, mut catalogue) = (BTreeMap::new(), Map::new());
    if let Some(name) = &manifest.catalogue {
        match read_catalogue(tree, path, name) {
            Ok(read) => (types, catalogue) = read,
            Err(mut wrong) => diagnostics.append(&mut wrong),
        }
    }
    let sources = manifest.runtime.sources.iter().map(String::as_str).chain(["package.json", "package-lock.json"]);
    for source in sources.filter(|source| !tree.has(&format!("{path}/{source}"))) {
        let help = format!("add the file; {path}/pack.yaml names the sources of the runtime");
        let place = Place::file(&format!("{path}/{source}"));
        diagnostics.push(Diagnostic::error(Code::BadPack, place, "a source of the pack's code is missing", help));
    }
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let folder = tree.root.join(path);
    Ok(Pack { folder, path: path.to_owned(), manifest, templates, partials, types, catalogue })
}

fn read_manifest(tree: &Tree, path: &str) -> Result<PackFile, Vec<Diagnostic>> {
    let file = format!("{path}/pack.yaml");
    let bad = |message: String, help: &str| vec![Diagnostic::error(Code::BadPack, Place::file(&file), message, help)];
    let text = tree.pack_text(path, "pack.yaml", yaml::MAX_BYTES).map_err(|error| {
        bad(
            format!("the pack's manifest can't be read: {error}"),
            "a pack is a folder with a pack.yaml, templates and a runtime: see templates/consent",
        )
    })?;
    let (document, mut diagnostics) = yaml::parse(&file, text.as_bytes());
    let Some(document) = document else {
        if diagnostics.is_empty() {
            diagnostics = bad("the pack's manifest is empty".to_owned(), "see templates/consent");
        }
        return Err(diagnostics);
    };
    let value = document.root.to_value();
    add_unreported(&mut diagnostics, Checker::pack().check(&document, &[], &value, "a pack"));
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    PackFile::deserialize(&value).map_err(|error| bad(format!("the pack's manifest: {error}"), "see templates/consent"))
}

/// The types of destinations by name, and the schemas of their settings.
type Catalogue = (BTreeMap<String, Type>, Map<String, Value>);

fn read_catalogue(tree: &Tree, path: &str, name: &str) -> Result<Catalogue, Vec<Diagnostic>> {
    let bad = |place: Place, error: &str| {
        let message = format!("the catalogue can't be read: {error}");
        let help = "it is JSON: {\"destinations\": {TYPE: {label, requiredConsent, settings}}}";
        vec![Diagnostic::error(Code::BadPack, place, message, help)]
    };
    let place = Place::file(&format!("{path}/{name}"));
    let text =
        tree.pack_text(path, name, MOST_CATALOGUE_BYTES).map_err(|error| bad(place.clone(), &error.to_string()))?;
    let read: CatalogueFile = serde_json::from_str(&text).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        bad(Place { line: error.line(), column: error.column().max(1), ..place.clone() }, message)
    })?;
    // In parallel: every build waits until the schemas of all types are compiled.
    let compiled: Vec<_> = read
        .destinations
        .into_par_iter()
        .map(|(kind, entry)| {
            (kind, destination_type(&entry.settings, entry.label, entry.required_consent), entry.settings)
        })
        .collect();
    let (mut types, mut catalogue, mut diagnostics) = (BTreeMap::new(), Map::new(), Vec::new());
    for (kind, compiled, settings) in compiled {
        match compiled {
            Ok(type_) => {
                types.insert(kind.clone(), type_);
                catalogue.insert(kind, settings);
            }
            Err(error) => diagnostics.push(Diagnostic::error(
                Code::BadPack,
                place.clone(),
                format!("the settings of `{kind}` are not a JSON Schema: {error}"),
                "each type's `settings` is a JSON Schema (draft 2020-12) of an object",
            )),
        }
    }
    if diagnostics.is_empty() { Ok((types, catalogue)) } else { Err(diagnostics) }
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
