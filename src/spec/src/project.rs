//! A project on disk: fleet.yaml, its packs, and the customers' files. Reads; doesn't resolve or check across files.

mod fleet;
mod layers;
mod unread;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::envfile;
use crate::leave_out::leave_out;
use crate::schema::{Checker, add_unreported, empty_values};
use crate::tree::Tree;
use crate::yaml::{self, Document, Kind, Node};
use flotilla_model::diagnostic::{Code, Diagnostic, Place, did_you_mean};
use flotilla_model::failure::Failure;
use flotilla_model::names;
use flotilla_model::spec::{Environment, Identity, OneOrMore};

pub use fleet::{Fleet, FleetReading, LeftOutRules, read_fleet, read_fleet_in_part, unknown_fleet};
pub use layers::{Layer, check_layer_files};
pub use unread::{SpecFiles, spec_files, unread_env_files, unread_layers};

/// The file that makes a folder a project.
pub const FLEET_FILE: &str = "fleet.yaml";
/// The folder of the customers' files.
pub const CUSTOMERS: &str = "customers";
/// The folder of the layers' files.
pub const LAYERS: &str = "layers";
/// The folder of previews: each has what the project's folder has, `out/` and `.flotilla/`.
pub const PREVIEWS: &str = ".flotilla/previews";
/// The environment variable with the id of the default account; wrangler's own.
pub const ACCOUNT_ID_VARIABLE: &str = "CLOUDFLARE_ACCOUNT_ID";
/// The environment variable with the API token; wrangler's own.
pub const TOKEN_VARIABLE: &str = "CLOUDFLARE_API_TOKEN";

/// A customer's file, read.
pub struct Spec {
    /// The tree of the file.
    pub document: Document,
    /// The identity of the customer.
    pub identity: Identity,
    /// The id in the file, if it differs from the file's name: perhaps only the file was renamed.
    pub written: Option<String>,
    /// The layers that it uses, by their place in [`Fleet::layers`], weakest first.
    pub layers: Vec<usize>,
    /// The env files that are looked for, for this customer.
    pub env_files: Vec<EnvFile>,
    /// Whether something of the file was left out as faulty.
    pub is_partial: bool,
    /// The layers of which it isn't known whether it uses them, as something that decides it was left out.
    pub open_layers: Vec<usize>,
    /// Whether there may be other layers that it uses.
    pub is_open: bool,
}

/// A customer's own env file, or its absence.
pub struct EnvFile {
    /// The layer that it belongs to.
    pub layer: usize,
    /// The environment that it is for.
    pub environment: Environment,
    /// Its path from the project's root.
    pub file: String,
    /// Its bytes, if it is there.
    pub bytes: Option<Vec<u8>>,
    /// Its settings.
    pub document: Option<Document>,
}

/// Finds the project: the nearest folder upwards from `from` with a fleet.yaml. A folder with customers and without
/// one is a project, too, and the error reports that its fleet.yaml is missing.
pub fn find(from: &Path) -> Result<PathBuf, Failure> {
    let from = from
        .canonicalize()
        .map_err(|error| Failure::new(format!("the folder {} can't be opened: {error}", from.display())))?;
    let found = from.ancestors().find(|folder| folder.join(FLEET_FILE).is_file());
    let customers = || Some(from.as_path()).filter(|folder| folder.join(CUSTOMERS).is_dir());
    found.or_else(customers).map(Path::to_owned).ok_or_else(|| {
        Failure::new(format!("there is no {FLEET_FILE} in {} or above it", from.display()))
            .hint("change to the folder of a project, or name one with -C DIR")
    })
}

/// Returns the folders of packs and env files that fleet.yaml names, whether or not anything else about it is right. Paths that
/// lead out of the project, or that are the project, are left out.
pub fn named_folders(tree: &Tree) -> BTreeSet<String> {
    let document = tree.plain(FLEET_FILE).ok().and_then(|bytes| yaml::parse(FLEET_FILE, &bytes).0);
    let value = document.map(|document| document.root.to_value()).unwrap_or_default();
    let named = |list: &str, key: &str| -> Vec<String> {
        let entries = value.get(list).and_then(Value::as_object).into_iter().flat_map(Map::values);
        entries.filter_map(|entry| Some(entry.get(key)?.as_str()?.trim_end_matches('/').to_owned())).collect()
    };
    let is_within = |path: &String| path.split('/').all(|step| !["", ".", ".."].contains(&step));
    [("packs", "path"), ("layers", "envFiles")]
        .into_iter()
        .flat_map(|(list, key)| named(list, key))
        .filter(is_within)
        .collect()
}

/// Returns the folders of the wrangler projects that the packs bundle, as far as fleet.yaml and the packs can be read.
pub fn wrangler_folders(tree: &Tree) -> BTreeSet<PathBuf> {
    let value = |file: &str, bytes: Option<Vec<u8>>| {
        let document = bytes.and_then(|bytes| yaml::parse(file, &bytes).0);
        document.map(|document| document.root.to_value()).unwrap_or_default()
    };
    let fleet = value(FLEET_FILE, tree.plain(FLEET_FILE).ok());
    let packs = fleet.get("packs").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let packs = packs.filter_map(|pack| pack.get("path")?.as_str());
    let config = |pack: &str| {
        let text = tree.pack_text(pack.trim_end_matches('/'), "pack.yaml", yaml::MAX_BYTES).ok();
        let manifest = value("pack.yaml", text.map(String::into_bytes));
        let config = tree.root.join(pack).join(manifest.get("config")?.as_str()?).canonicalize().ok()?;
        config.parent().map(Path::to_owned)
    };
    packs.filter_map(config).collect()
}

/// Returns the folder of a preview, from the project's root.
pub fn preview_folder(id: &str) -> String {
    format!("{PREVIEWS}/{id}")
}

/// Returns the id that a spec's file name gives it.
pub fn id_of(file: &str) -> &str {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or(name)
}

/// Returns the id that the name of any file would give a spec, whatever its ending.
pub fn id_of_any(file: &str) -> &str {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Reads one customer's file. Beside diagnostics there can be a spec without the parts that can't be read: the other
/// errors in it are found in the same run.
pub fn read_spec(tree: &Tree, fleet: Option<&Fleet>, file: &str, bytes: &[u8], checker: &Checker) -> Reading {
    let (document, mut diagnostics) = yaml::parse(file, bytes);
    let Some(mut document) = document else {
        if diagnostics.is_empty() {
            diagnostics.push(empty(file));
        }
        return Reading { spec: None, diagnostics };
    };
    let value = document.root.to_value();
    add_findings(&mut diagnostics, &document, checker.check(&document, &[], &value, "a customer"));
    let expected = id_of(file);
    explain_id(&mut diagnostics, &document, value["id"].as_str());
    let mut written = None;
    if let Some(id) = value["id"].as_str()
        && id != expected
    {
        written = Some(id.to_owned());
        let place = document.place_of(["id"]);
        let form = "an id consists of lower-case letters, digits and hyphens, and is the file's name";
        let help = if is_id(expected) {
            // The format of a value that has to be replaced anyway is not reported.
            diagnostics.retain(|diagnostic| diagnostic.place != place);
            format!("write `id: {expected}`, or rename the file")
        } else if is_id(id) {
            format!("rename the file to {id}.yaml: {form}")
        } else if let Some(near) = names::nearest_id(id) {
            format!("write `id: {near}`, and rename the file to {near}.yaml: {form}")
        } else {
            form.to_owned()
        };
        let message = format!("the id {id:?} is not the file's name, {expected:?}");
        diagnostics.push(Diagnostic::error(Code::IdNotFileName, place, message, help));
    }
    let is_partial = !diagnostics.is_empty();
    let mut value = value;
    if is_partial {
        let more = leave_out(&mut document, &diagnostics, checker, "a customer");
        diagnostics.extend(more);
        value = document.root.to_value();
    }
    // Its folder in out/ is named after the file.
    if let Some(map) = value.as_object_mut() {
        map.insert("id".to_owned(), expected.into());
    }
    let nobody = || Identity { id: expected.to_owned(), ..Identity::default() };
    let identity = Identity::deserialize(&value).unwrap_or_else(|_| nobody());
    let mut spec = Spec {
        identity,
        document,
        written,
        layers: Vec::new(),
        env_files: Vec::new(),
        is_partial,
        open_layers: Vec::new(),
        is_open: false,
    };
    if let Some(fleet) = fleet {
        layers_of(fleet, &mut spec, &mut diagnostics);
        env_files_of(tree, fleet, &mut spec, &mut diagnostics);
    }
    Reading { spec: Some(spec), diagnostics }
}

/// The result of reading a customer's file.
pub struct Reading {
    /// The spec, as far as it could be read.
    pub spec: Option<Spec>,
    /// Its errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// The layers of a customer: those that its labels choose, in the order of fleet.yaml, then those that it lists.
fn layers_of(fleet: &Fleet, spec: &mut Spec, diagnostics: &mut Vec<Diagnostic>) {
    let own_has_left_out = |spec: &Spec, key| spec.document.root.get(key).is_some_and(Node::has_left_out);
    spec.is_open = spec.document.root.is_left_out() || fleet.lacks("layers") || own_has_left_out(spec, "layers");
    if fleet.layers.is_empty() && spec.identity.layers.is_none() {
        return;
    }
    let labels = labels(fleet, &spec.identity);
    let listed = spec.identity.layers.clone().unwrap_or_default();
    let others = (0..fleet.layers.len()).filter(|index| !listed.contains(&fleet.layers[*index].name));
    let chosen: Vec<(usize, Option<bool>)> = others.map(|index| (index, chosen(fleet, spec, &labels, index))).collect();
    let open = chosen.iter().filter(|(_, is_chosen)| is_chosen.is_none());
    spec.open_layers = open.map(|(index, _)| *index).collect();
    spec.layers = chosen.into_iter().filter(|(_, chosen)| *chosen == Some(true)).map(|(index, _)| index).collect();
    for (index, name) in listed.iter().enumerate() {
        match fleet.layers.iter().position(|layer| layer.name == *name) {
            Some(layer) => spec.layers.push(layer),
            None if fleet.lacks("layers") => {}
            None => {
                let place = spec.document.place_of(["layers", &index.to_string()]);
                let known = fleet.layers.iter().map(|layer| layer.name.as_str());
                diagnostics.push(unknown("layer", name, place, known));
            }
        }
    }
}

/// Returns whether the labels of a customer choose a layer; `None` if that isn't known, as something was left out as faulty.
fn chosen(fleet: &Fleet, spec: &Spec, labels: &BTreeMap<String, String>, index: usize) -> Option<bool> {
    let layer = &fleet.layers[index];
    let Some(when) = &layer.rule.when else { return if layer.is_open { None } else { Some(false) } };
    let fits = |(key, wanted): &(&String, &OneOrMore)| labels.get(*key).is_some_and(|value| wanted.has(value));
    if !fleet.is_partial && !spec.is_partial {
        return Some(when.iter().all(|label| fits(&label)));
    }
    let own = spec.document.root.get("labels").filter(|_| spec.is_partial);
    // A customer's own settings override the defaults.
    let is_unknown = |key: &str| match own.map(|own| (own.is_left_out(), own.get(key))) {
        Some((true, _)) => true,
        Some((_, Some(label))) => label.is_left_out(),
        _ => !labels.contains_key(key) && fleet.has_left_out(&["defaults", "labels", key]),
    };
    let (unknown, known): (Vec<_>, Vec<_>) = when.iter().partition(|(key, _)| is_unknown(key));
    let is_chosen = known.iter().all(fits);
    match is_chosen && (layer.is_open || !unknown.is_empty()) {
        true => None,
        false => Some(is_chosen),
    }
}

/// Returns the environments that a customer's env files may be for: the usual ones, and those that its sources name.
fn named_environments(fleet: &Fleet, spec: &Spec) -> BTreeSet<Environment> {
    let layers = spec.layers.iter().flat_map(|index| &fleet.layers[*index].documents);
    let roots = fleet.document.root.get("defaults").into_iter().chain(layers.map(|document| &document.root));
    let mut environments = BTreeSet::from(Environment::USUAL);
    for root in roots.chain([&spec.document.root]) {
        environments.extend(environments_in(root));
        if let Some(Kind::Map(roles)) = root.get("workers").map(|node| &node.kind) {
            environments.extend(roles.iter().flat_map(|(_, _, own)| environments_in(own)));
        }
    }
    environments.remove(&Environment::Preview);
    environments
}

/// Returns the names under `environments`.
pub fn environments_in(root: &Node) -> impl Iterator<Item = Environment> {
    let entries = match root.get("environments").map(|node| &node.kind) {
        Some(Kind::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().filter_map(|(key, ..)| Environment::of(key))
}

fn env_files_of(tree: &Tree, fleet: &Fleet, spec: &mut Spec, diagnostics: &mut Vec<Diagnostic>) {
    if spec.layers.iter().all(|layer| fleet.layers[*layer].rule.env_files.is_none()) {
        return;
    }
    let environments = named_environments(fleet, spec);
    for layer in spec.layers.clone() {
        let Some(folder) = &fleet.layers[layer].rule.env_files else { continue };
        for environment in environments.iter().copied() {
            let file = format!("{folder}/customers/{}/{environment}.env", spec.identity.id);
            let document = if tree.has(&file) {
                match tree.plain(&file) {
                    Ok(bytes) => {
                        let (document, found) = envfile::parse(&file, &bytes);
                        diagnostics.extend(found);
                        Some((document, bytes))
                    }
                    Err(diagnostic) => {
                        diagnostics.push(*diagnostic);
                        None
                    }
                }
            } else {
                None
            };
            let (document, bytes) = document.unzip();
            spec.env_files.push(EnvFile { layer, environment, file, bytes, document });
        }
    }
}

/// Returns the labels of a customer: the fleet's defaults, and its own over them.
pub fn labels(fleet: &Fleet, identity: &Identity) -> BTreeMap<String, String> {
    let mut labels = fleet.labels.clone();
    labels.extend(identity.labels.clone().unwrap_or_default());
    labels
}

/// Returns an unknown name, with the one that was probably meant.
pub fn unknown<'a>(what: &str, name: &str, place: Place, known: impl Iterator<Item = &'a str> + Clone) -> Diagnostic {
    let help = match did_you_mean(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => match known.collect::<Vec<_>>() {
            known if known.is_empty() => format!("there is no {what} at all"),
            known => format!("known: {}", known.join(", ")),
        },
    };
    Diagnostic::error(Code::UnknownName, place, format!("there is no {what} `{name}`"), help)
}

/// Adds which id would be valid instead of one that isn't, and where to keep the one that other systems have.
fn explain_id(diagnostics: &mut [Diagnostic], document: &Document, id: Option<&str>) {
    let Some((id, near)) = id.filter(|id| !is_id(id)).and_then(|id| Some((id, names::nearest_id(id)?))) else { return };
    let place = document.place_of(["id"]);
    for diagnostic in diagnostics.iter_mut().filter(|found| found.code == Code::WrongForm && found.place == place) {
        let form = &diagnostic.help;
        diagnostic.help = format!(
            "{form}: write `id: {near}`, and rename the file to {near}.yaml; to keep the original, add it as a label or a variable, such as \
             `vars: {{ CUSTOMER_ID: {} }}`",
            serde_json::Value::from(id)
        );
    }
}

/// Returns whether a text has the form of an id; its length is the schema's business.
fn is_id(text: &str) -> bool {
    names::label(text).is_ok()
}

fn empty(file: &str) -> Diagnostic {
    let help = if file == FLEET_FILE {
        "it begins with `name: my-fleet`".to_owned()
    } else {
        format!("write at least `id: {}`", id_of(file))
    };
    Diagnostic::error(Code::EmptyFile, Place::file(file), "the file is empty", help)
}

/// Adds what a schema finds in a document, and its empty values where the schema has nothing against them.
fn add_findings(diagnostics: &mut Vec<Diagnostic>, document: &Document, found: Vec<Diagnostic>) {
    let is_new = |empty: &Diagnostic| found.iter().all(|found| found.place.line != empty.place.line);
    let empty: Vec<Diagnostic> = empty_values(document).into_iter().filter(is_new).collect();
    add_unreported(diagnostics, found);
    add_unreported(diagnostics, empty);
}
