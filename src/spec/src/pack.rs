//! A pack, read from its folder: manifest, templates, catalogue, and the sources of its runtime. Doesn't render
//! and doesn't bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::schema::{self, Checker};
use crate::tree::Tree;
use crate::yaml::{self, Document, Node};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::spec::{CatalogueFile, PackFile, Purpose};

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
    /// The consents that a visitor must have given, unless a spec says otherwise.
    pub required_consent: Vec<Purpose>,
    /// The settings that are references to secrets.
    pub secrets: BTreeSet<String>,
    checker: Checker,
}

impl Type {
    /// Checks the settings that stand at a node of a document.
    pub fn check(&self, document: &Document, node: &Node, settings: &Value, kind: &str) -> Vec<Diagnostic> {
        self.checker.check_node(document, node, settings, &format!("a destination of type {kind}"))
    }
}

impl Pack {
    /// The name of the uploaded module's file: the template's name without `.tera`.
    pub fn module(&self) -> &str {
        self.manifest.module.trim_end_matches(".tera")
    }

    /// The names of all files that a worker's folder holds.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.templates.iter().map(|(name, _)| name.as_str())
    }
}

/// Reads a pack. `path` is its folder from the project's root.
pub fn read(tree: &Tree, path: &str) -> Result<Pack, Vec<Diagnostic>> {
    let folder = tree.root.join(path);
    let file = format!("{path}/pack.yaml");
    let bad = |place: Place, message: String, help: &str| vec![Diagnostic::error(Code::BadPack, place, message, help)];
    let bytes = tree.bytes(&file).map_err(|error| {
        bad(
            Place::file(&file),
            format!("the pack's manifest can't be read: {error}"),
            "a pack is a folder with a pack.yaml, templates and a runtime: see templates/consent",
        )
    })?;
    let (document, mut diagnostics) = yaml::parse(&file, &bytes);
    let Some(document) = document else {
        if diagnostics.is_empty() {
            diagnostics = bad(Place::file(&file), "the pack's manifest is empty".to_owned(), "see templates/consent");
        }
        return Err(diagnostics);
    };
    let value = document.root.to_value();
    diagnostics.extend(Checker::pack().check(&document, &[], &value, "a pack"));
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let manifest = PackFile::deserialize(&value)
        .map_err(|error| bad(Place::file(&file), format!("the pack's manifest: {error}"), "see templates/consent"))?;

    let mut templates = Vec::new();
    for name in std::iter::once(&manifest.module).chain(&manifest.files) {
        match tree.text(&format!("{path}/{name}")) {
            Ok(text) => templates.push((name.trim_end_matches(".tera").to_owned(), text)),
            Err(error) => diagnostics.push(Diagnostic::error(
                Code::BadPack,
                Place::file(&format!("{path}/{name}")),
                format!("the template can't be read: {error}"),
                format!("it is named in {file}: add the file or take it out there"),
            )),
        }
    }
    let named = |file: &String| manifest.module == *file || manifest.files.contains(file);
    let mut partials = Vec::new();
    for name in tree.names(path).unwrap_or_default().into_iter().filter(|name| name.ends_with(".tera") && !named(name))
    {
        match tree.text(&format!("{path}/{name}")) {
            Ok(text) => partials.push((name, text)),
            Err(error) => diagnostics.push(Diagnostic::error(
                Code::BadPack,
                Place::file(&format!("{path}/{name}")),
                format!("the template can't be read: {error}"),
                "templates are text in UTF-8",
            )),
        }
    }
    let mut types = BTreeMap::new();
    let mut catalogue = Map::new();
    if let Some(name) = &manifest.catalogue {
        let place = Place::file(&format!("{path}/{name}"));
        let read =
            tree.text(&format!("{path}/{name}")).map_err(|error| (place.clone(), error.to_string())).and_then(|text| {
                serde_json::from_str::<CatalogueFile>(&text).map_err(|error| {
                    let message = error.to_string();
                    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
                    (Place { line: error.line(), column: error.column().max(1), ..place.clone() }, message)
                })
            });
        match read {
            Ok(read) => {
                // In parallel: what a catalogue of 34 types takes to compile, each build waits for.
                let compiled: Vec<_> = read
                    .destinations
                    .into_par_iter()
                    .map(|(kind, entry)| {
                        (kind, destination_type(&entry.settings, entry.label, entry.required_consent), entry.settings)
                    })
                    .collect();
                for (kind, compiled, settings) in compiled {
                    match compiled {
                        Ok(type_) => {
                            types.insert(kind.clone(), type_);
                            catalogue.insert(kind, settings);
                        }
                        Err(error) => diagnostics.push(Diagnostic::error(
                            Code::BadPack,
                            place.clone(),
                            format!("the settings of `{kind}` are no JSON Schema: {error}"),
                            "each type's `settings` is a JSON Schema (draft 2020-12) of an object",
                        )),
                    }
                }
            }
            Err((place, error)) => diagnostics.push(Diagnostic::error(
                Code::BadPack,
                place,
                format!("the catalogue can't be read: {error}"),
                "it is JSON: {\"destinations\": {TYPE: {label, requiredConsent, settings}}}",
            )),
        }
    }
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    Ok(Pack { folder, path: path.to_owned(), manifest, templates, partials, types, catalogue })
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
