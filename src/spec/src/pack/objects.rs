//! The Durable Objects of a pack's code: which classes its workers are bound to, and the migrations or the declaration of the classes.
//! Read from pack.yaml, or from the configuration of a wrangler project.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::yaml::{Document, Kind, Node};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::objects::{ClassExport, Fault, Migration, classes, export_faults, migration_faults};

/// The Durable Objects of a pack's code.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// The classes that each worker is bound to, by the names of the bindings.
    pub bindings: BTreeMap<String, String>,
    /// The migrations, in order.
    pub migrations: Vec<Migration>,
    /// The declared classes, by name.
    pub exports: BTreeMap<String, ClassExport>,
    /// The places of the bindings, the migrations and the declared classes, with the file.
    places: Places,
}

#[derive(Clone, Debug, Default)]
struct Places {
    bindings: BTreeMap<String, Place>,
    migrations: Vec<Place>,
    exports: BTreeMap<String, Place>,
}

impl Objects {
    /// Reads those of a pack.yaml. The schema reports anything else.
    pub(super) fn of_pack(document: &Document, manifest: &Value) -> Objects {
        let mut objects = Objects::default();
        let place = |node: &Node| document.place(node.span);
        for (name, node) in entries(document.root.get("durableObjects")) {
            if let Kind::Text(class) = &node.kind {
                objects.bindings.insert(name.to_owned(), class.clone());
                objects.places.bindings.insert(name.to_owned(), place(node));
            }
        }
        let migrations = manifest["migrations"].as_array().map_or(&[][..], Vec::as_slice);
        let nodes = items(document.root.get("migrations"));
        for (value, node) in migrations.iter().zip(nodes) {
            if let Ok(migration) = serde_json::from_value(value.clone()) {
                objects.add_migration(migration, place(node));
            }
        }
        for (name, node) in entries(document.root.get("exports")) {
            if let Ok(export) = serde_json::from_value(manifest["exports"][name].clone()) {
                objects.add_export(name, export, place(node));
            }
        }
        objects
    }

    /// Adds a class that the workers are bound to.
    pub(super) fn bind(&mut self, name: &str, class: &str, place: Place) {
        self.bindings.insert(name.to_owned(), class.to_owned());
        self.places.bindings.insert(name.to_owned(), place);
    }

    /// Adds a migration.
    pub(super) fn add_migration(&mut self, migration: Migration, place: Place) {
        self.migrations.push(migration);
        self.places.migrations.push(place);
    }

    /// Adds a declared class.
    pub(super) fn add_export(&mut self, name: &str, export: ClassExport, place: Place) {
        self.exports.insert(name.to_owned(), export);
        self.places.exports.insert(name.to_owned(), place);
    }

    /// Returns the classes that the code has to export.
    pub fn classes(&self) -> BTreeSet<&str> {
        let declared = self.exports.iter().filter(|(_, export)| export.is_live()).map(|(name, _)| name.as_str());
        classes(&self.migrations).into_keys().chain(declared).collect()
    }

    /// Returns the place of a class: where it is bound, or else where it is created or declared.
    pub fn place_of(&self, class: &str) -> Option<&Place> {
        let bound = self.bindings.iter().find(|(_, bound)| *bound == class);
        let bound = bound.and_then(|(name, _)| self.places.bindings.get(name));
        let creates = |migration: &Migration| classes([migration]).contains_key(class);
        let created = self.migrations.iter().position(creates).and_then(|index| self.places.migrations.get(index));
        bound.or(created).or_else(|| self.places.exports.get(class))
    }

    /// Returns what Cloudflare would reject.
    pub(super) fn check(&self, document: &Document) -> Vec<Diagnostic> {
        let error = |place: Option<&Place>, (message, help): Fault| {
            let place = place.cloned().unwrap_or_else(|| Place::file(&document.file));
            Diagnostic::error(Code::BadMigration, place, message, help)
        };
        let mut errors = Vec::new();
        if let (false, Some(first)) = (self.migrations.is_empty(), self.places.exports.values().next()) {
            let message = "Durable Object classes have migrations or are declared, but not both".to_owned();
            let help = "keep `exports` and remove `migrations`, or keep `migrations` and remove `exports`".to_owned();
            errors.push(error(Some(first), (message, help)));
        }
        let faults = migration_faults(&self.migrations);
        errors.extend(faults.into_iter().map(|(index, fault)| error(self.places.migrations.get(index), fault)));
        errors.extend(
            export_faults(&self.exports).into_iter().map(|(name, fault)| error(self.places.exports.get(name), fault)),
        );
        if errors.is_empty() {
            let there = self.classes();
            for (name, class) in self.bindings.iter().filter(|(_, class)| !there.contains(class.as_str())) {
                let was = self.migrations.iter().any(|migration| migration.deleted_classes.contains(class))
                    || self.exports.contains_key(class);
                let (message, help) = match was {
                    true => (
                        format!(
                            "the binding `{name}` uses the class `{class}`, which is deleted, renamed or transferred"
                        ),
                        "remove the binding: a class that is bound can't be deleted; or bind another class",
                    ),
                    false => (
                        format!("the binding `{name}` uses the class `{class}`, which no migration creates"),
                        "add a migration: `{ tag: v1, newSqliteClasses: [CLASS] }`, in a wrangler configuration `\"migrations\": [{ \"tag\": \
                         \"v1\", \"new_sqlite_classes\": [\"CLASS\"] }]`",
                    ),
                };
                errors.push(error(self.places.bindings.get(name), (message, help.replace("CLASS", class))));
            }
        }
        errors
    }
}

fn entries(node: Option<&Node>) -> impl Iterator<Item = (&str, &Node)> {
    let entries = match node.map(|node| &node.kind) {
        Some(Kind::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().map(|(name, _, node)| (name.as_str(), node))
}

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.kind) {
        Some(Kind::List(items)) => items,
        _ => &[],
    }
}
