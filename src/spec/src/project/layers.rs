//! The layers of fleet.yaml: settings that several customers share, in files or folders of env files. Knows no customers.

use serde::Deserialize as _;

use super::{LAYERS, add_findings};
use crate::envfile;
use crate::leave_out::leave_out;
use crate::schema::Checker;
use crate::tree::Tree;
use crate::yaml::{self, Document, Kind, Node, Span};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::{Digest, Framed};
use flotilla_model::spec::LayerRule;

/// Settings that several customers share.
pub struct Layer {
    /// Its name.
    pub name: String,
    /// The rule that decides when it is used.
    pub rule: LayerRule,
    /// Whether its rule was left out as faulty: which customers use it isn't known.
    pub is_open: bool,
    /// Its settings; of a folder of env files, those that are for all customers.
    pub documents: Vec<Document>,
    /// Its errors: while there are any, it holds back the customers that use it. What is faulty in its documents is left out.
    pub errors: Vec<Diagnostic>,
    /// The digest of what it sets.
    pub digest: Digest,
}

impl Layer {
    /// Returns its name among the parts of a project that customers can need.
    pub fn part(&self) -> String {
        format!("layer {}", self.name)
    }
}

/// Reads the layers. A faulty one only stops the customers that use it.
pub(super) fn read_layers(tree: &Tree, fleet: &Document) -> Vec<Layer> {
    let Some(Kind::Map(entries)) = fleet.root.get("layers").map(|node| &node.kind) else { return Vec::new() };
    let checker = Checker::layer();
    let read = |(name, span, node): &(String, Span, Node)| {
        let rule = LayerRule::deserialize(&node.to_value()).unwrap_or_default();
        let mut reader = LayerReader {
            tree,
            documents: Vec::new(),
            errors: Vec::new(),
            digest: Framed::new("layer").field(name.as_bytes()),
        };
        match &rule.env_files {
            Some(folder) => reader.env_files(folder, &fleet.place_of(["layers", name, "envFiles"])),
            // Which folder it is isn't known.
            None if node.get("envFiles").is_some() => reader.documents.push(unread(&fleet.file)),
            None => {
                let file = format!("{LAYERS}/{name}.yaml");
                // Where its entry is faulty, it may have no file.
                if tree.has(&file) || !node.has_left_out() {
                    reader.file(&file, &fleet.place(*span), checker);
                }
            }
        }
        let LayerReader { documents, errors, digest, .. } = reader;
        let is_open = node.is_left_out() || node.get("when").is_some_and(Node::has_left_out);
        Layer { name: name.clone(), rule, is_open, documents, errors, digest: digest.finish() }
    };
    entries.iter().map(read).collect()
}

/// Returns the errors of all files of layers/, whether or not they are layers: for a project whose fleet.yaml can't be read.
pub fn check_layer_files(tree: &Tree) -> Vec<Diagnostic> {
    let names = tree.names(LAYERS).unwrap_or_default().into_iter().filter(|name| name.ends_with(".yaml"));
    let check = |name: String| {
        let (documents, digest) = (Vec::new(), Framed::new("layer"));
        let mut reader = LayerReader { tree, documents, errors: Vec::new(), digest };
        reader.file(&format!("{LAYERS}/{name}"), &Place::file(LAYERS), Checker::layer());
        reader.errors
    };
    names.flat_map(check).collect()
}

/// A layer while it is read.
struct LayerReader<'a> {
    tree: &'a Tree,
    documents: Vec<Document>,
    errors: Vec<Diagnostic>,
    digest: Framed,
}

impl LayerReader<'_> {
    /// Reads the env files that are for all customers. What is faulty in one sets nothing.
    fn env_files(&mut self, folder: &str, place: &Place) {
        let mut bad = |message: String, help: &str| {
            self.errors.push(Diagnostic::error(Code::BadLayer, place.clone(), message, help));
        };
        if folder.split('/').any(|step| step == "..") {
            bad(format!("`{folder}` is not a folder of this project"), "name a folder within it, without `..`");
            return;
        }
        if !self.tree.root.join(folder).is_dir() {
            bad(format!("there is no folder `{folder}`"), "name a folder with base/ and customers/ in it");
        }
        let base = format!("{folder}/base");
        let names = self.tree.names(&base).unwrap_or_default();
        for name in names.iter().filter(|name| name.ends_with(".env")) {
            let file = format!("{base}/{name}");
            let Some(bytes) = self.bytes(&file) else { continue };
            let (document, found) = envfile::parse(&file, &bytes);
            self.errors.extend(found);
            self.digest(&bytes);
            self.documents.push(document);
        }
    }

    /// Reads the file of its settings, without what is faulty in it.
    fn file(&mut self, file: &str, place: &Place, checker: &Checker) {
        if !self.tree.has(file) {
            let help = format!("create {file} with the settings that its customers share, or remove the layer here");
            self.errors.push(Diagnostic::error(Code::BadLayer, place.clone(), format!("there is no {file}"), help));
            return self.documents.push(unread(file));
        }
        let Some(bytes) = self.bytes(file) else { return self.documents.push(unread(file)) };
        let (document, found) = yaml::parse(file, &bytes);
        self.errors.extend(found);
        let Some(mut document) = document else {
            if !self.errors.is_empty() {
                self.documents.push(unread(file));
            }
            return self.digest(&bytes);
        };
        let value = document.root.to_value();
        add_findings(&mut self.errors, &document, checker.check(&document, &[], &value, "a layer"));
        if self.errors.is_empty() {
            self.digest(document.root.in_order().as_bytes());
        } else {
            // What was wrong with it is no part of its values.
            self.digest(&bytes);
            let more = leave_out(&mut document, &self.errors, checker, "a layer");
            self.errors.extend(more);
        }
        self.documents.push(document);
    }

    fn bytes(&mut self, file: &str) -> Option<Vec<u8>> {
        let read = self.tree.plain(file);
        read.map_err(|diagnostic| self.errors.push(*diagnostic)).ok()
    }

    fn digest(&mut self, bytes: &[u8]) {
        self.digest = self.digest.clone().field(bytes);
    }
}

/// Returns a file that can't be read: its settings are unknown.
fn unread(file: &str) -> Document {
    let span = Span { line: 1, column: 1, width: 1 };
    Document { file: file.to_owned(), root: Node { span, kind: Kind::LeftOut } }
}
