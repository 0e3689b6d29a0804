//! The files under customers/, layers/ and the folders of env files: which of them are read, and which are not.

use std::collections::HashSet;

use rayon::prelude::*;

use super::{CUSTOMERS, Fleet, LAYERS, id_of, id_of_any};
use crate::tree::Tree;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};

/// The files under customers/.
#[derive(Debug, Default)]
pub struct SpecFiles {
    /// The customers' files, sorted by name.
    pub files: Vec<String>,
    /// An error for each file that looks like a spec and isn't read: its customer would count as removed.
    pub unread: Vec<Diagnostic>,
}

/// The endings of files that hold values, and are no specs.
const VALUES: [&str; 4] = ["json", "jsonc", "json5", "toml"];
/// The number of folders in each other that are searched for specs.
const DEEPEST: usize = 8;
/// The number of files that aren't read, of which each is named.
const UNREAD: usize = 100;

/// Returns the files under customers/.
pub fn spec_files(tree: &Tree) -> Result<SpecFiles, Vec<Diagnostic>> {
    let missing = |message: String| {
        vec![Diagnostic::error(
            Code::NoCustomers,
            Place::file(CUSTOMERS),
            message,
            "create customers/acme.yaml with the line `id: acme` to start",
        )]
    };
    let names =
        tree.names(CUSTOMERS).map_err(|error| missing(format!("the folder of customers can't be read: {error}")))?;
    let (mut found, mut renamed) = (SpecFiles::default(), Vec::new());
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        let file = format!("{CUSTOMERS}/{name}");
        match ending(name).as_str() {
            "yaml" | "yml" => found.files.push(file),
            ending if VALUES.contains(&ending) => found.unread.push(unread(&file)),
            _ if renamed_spec(name).is_some() && !tree.has_files(&file) => renamed.push(file),
            _ => found.unread.extend(unread_below(tree, &file, DEEPEST)),
        }
    }
    // A copy next to the spec, as editors create them, is ignored; without the spec, it is what remains of it.
    let ids: HashSet<&str> = found.files.iter().map(|file| id_of(file)).collect();
    let is_alone = |file: &&String| renamed_spec(file).is_some_and(|spec| !ids.contains(id_of(spec)));
    found.unread.extend(renamed.iter().filter(is_alone).map(|file| unread(file)));
    found.unread.truncate(UNREAD);
    if found.files.is_empty() && found.unread.is_empty() && !tree.may_have_no_customers {
        return Err(missing("there are no customers".to_owned()));
    }
    Ok(found)
}

/// Returns the path of the spec that a file looks like a renamed copy of: `acme.yaml.bak`, `acme.yaml~`.
fn renamed_spec(file: &str) -> Option<&str> {
    let at = [".yaml", ".yml"].iter().filter_map(|ending| Some(file.rfind(ending)? + ending.len())).max()?;
    (at < file.len()).then(|| &file[..at])
}

/// Returns an error for each file of layers/ that no layer of fleet.yaml reads.
pub fn unread_layers(tree: &Tree, fleet: &Fleet) -> Vec<Diagnostic> {
    // What was left out as faulty may be the layer that reads a file.
    if fleet.has_left_out(&["layers"]) {
        return Vec::new();
    }
    let is_read = |name: &str| {
        fleet
            .layers
            .iter()
            .any(|layer| layer.rule.env_files.is_none() && name.strip_suffix(".yaml") == Some(&layer.name))
    };
    let mut found = Vec::new();
    for name in tree.names(LAYERS).unwrap_or_default().iter().filter(|name| !name.starts_with('.') && !is_read(name)) {
        let file = format!("{LAYERS}/{name}");
        if ["yaml", "yml"].contains(&ending(name).as_str()) {
            let name = id_of(name);
            let help = match name.is_empty() || fleet.layers.iter().any(|layer| layer.name == name) {
                true => "a layer is a file layers/NAME.yaml: put the two files together".to_owned(),
                false => format!("add `{name}:` to `layers` in fleet.yaml, or move the file out of layers/"),
            };
            let message = "no layer in fleet.yaml reads this file";
            found.push(Diagnostic::error(Code::Unread, Place::file(&file), message, help));
        } else {
            found.extend(unread_below(tree, &file, DEEPEST));
        }
    }
    found.truncate(UNREAD);
    found
}

/// Returns an error for each file in the folders of env files that nobody reads: not for all customers, and not for one that uses the
/// layer. `uses`: whether a customer uses a layer; nothing where that isn't known. `reads`: whether a customer reads a file.
pub fn unread_env_files(
    tree: &Tree,
    fleet: &Fleet,
    uses: impl Fn(&str, &str) -> Option<bool> + Sync,
    reads: impl Fn(&str, &str) -> bool + Sync,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for layer in &fleet.layers {
        // Folders outside the project are not read.
        let is_folder = || layer.errors.iter().all(|error| error.code != Code::BadLayer);
        let Some(folder) = layer.rule.env_files.as_deref().filter(|_| is_folder()) else { continue };
        let folder = folder.trim_end_matches('/');
        let (base, customers) = (format!("{folder}/base"), format!("{folder}/customers"));
        for name in
            values_in(tree, &base).filter(|name| !name.ends_with(".env") || tree.has_files(&format!("{base}/{name}")))
        {
            found.push(unread_env_file(
                &format!("{base}/{name}"),
                "files for all customers are `.env` files in this folder: rename it, or move it out of the folder",
            ));
        }
        let names = tree.names(&customers).unwrap_or_default();
        let of_one = |name: &String| -> Vec<Diagnostic> {
            let below = format!("{customers}/{name}");
            if name.starts_with('.') {
                return Vec::new();
            }
            if !tree.has_files(&below) {
                let help = format!(
                    "a customer's files are in a folder named after its id: move it to {customers}/{}/production.env",
                    id_of_any(name)
                );
                return if holds_values(name) { vec![unread_env_file(&below, &help)] } else { Vec::new() };
            }
            match uses(name, &layer.name) {
                None => return Vec::new(),
                Some(false) => {
                    let help = format!(
                        "the customer {name} doesn't exist, or doesn't use the layer `{0}`: add `{0}` to `layers` of its spec, or move the files out",
                        layer.name
                    );
                    let files = values_in(tree, &below);
                    return files.map(|file| unread_env_file(&format!("{below}/{file}"), &help)).collect();
                }
                Some(true) => {}
            }
            let files = values_in(tree, &below).filter(|file| !reads(name, &format!("{below}/{file}")));
            let help = "a customer's files are production.env, staging.env, development.env, and those of other environments that it has: \
                        rename it, or move it out of the folder";
            files.map(|file| unread_env_file(&format!("{below}/{file}"), help)).collect()
        };
        found.par_extend(names.par_iter().flat_map_iter(of_one));
    }
    found.sort_by(|a, b| a.place.cmp(&b.place));
    found.truncate(UNREAD);
    found
}

/// Returns the names in a folder of files that hold values, and of folders.
fn values_in(tree: &Tree, folder: &str) -> impl Iterator<Item = String> {
    let names = tree.names(folder).unwrap_or_default();
    let of_values =
        |name: &String| !name.starts_with('.') && (holds_values(name) || tree.has_files(&format!("{folder}/{name}")));
    names.into_iter().filter(of_values).collect::<Vec<_>>().into_iter()
}

/// Returns whether a file holds values, by its name: `production.env`, `production.env.old` and `production.yaml` do, a README doesn't.
fn holds_values(name: &str) -> bool {
    let ending = ending(name);
    name.split('.').any(|part| part == "env")
        || ["yaml", "yml"].contains(&ending.as_str())
        || VALUES.contains(&ending.as_str())
}

fn unread_env_file(file: &str, help: &str) -> Diagnostic {
    let message = "no customer reads this file";
    Diagnostic::error(Code::Unread, Place::file(file), message, help)
}

fn ending(name: &str) -> String {
    name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase()
}

/// Returns an error for each file in a folder that looks like a spec or a layer.
fn unread_below(tree: &Tree, folder: &str, deepest: usize) -> Vec<Diagnostic> {
    let names = if deepest > 0 && tree.has_files(folder) { tree.names(folder).unwrap_or_default() } else { Vec::new() };
    let mut found = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with('.')).take(UNREAD) {
        let file = format!("{folder}/{name}");
        let ending = ending(name);
        match ending == "yaml" || ending == "yml" || VALUES.contains(&ending.as_str()) {
            true if !tree.has_files(&file) => found.push(unread(&file)),
            _ => found.extend(unread_below(tree, &file, deepest - 1)),
        }
    }
    found
}

fn unread(file: &str) -> Diagnostic {
    let stem = renamed_spec(file).map_or_else(|| id_of_any(file), id_of);
    let folder = file.split_once('/').map_or(file, |(folder, _)| folder);
    let is_below = file.matches('/').count() > 1;
    let message = match is_below {
        true => format!("this file is in a folder of {folder}/, and isn't read"),
        false => "this file isn't read: specs are `.yaml` files".to_owned(),
    };
    let help = match VALUES.contains(&ending(file).as_str()) {
        true => format!(
            "JSON is valid YAML: if it is a spec, rename it to {folder}/{stem}.yaml; otherwise move it out of {folder}/"
        ),
        false if !is_below => {
            format!("if it is a spec, rename it to {folder}/{stem}.yaml; otherwise move it out of {folder}/")
        }
        false => format!("move it to {folder}/{stem}.yaml, or out of {folder}/"),
    };
    Diagnostic::error(Code::Unread, Place::file(file), message, help)
}
