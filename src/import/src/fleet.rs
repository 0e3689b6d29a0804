//! A fleet that an import adds to: the settings that fleet.yaml already has, and the additions to it. Knows its text; doesn't check it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use flotilla_model::plain_file;
use flotilla_spec::edit::{self, Change};
use flotilla_spec::project::FLEET_FILE;
use flotilla_spec::yaml;

use super::code::{Code, Source};

/// The keys of defaults that aren't settings of a worker, or without which a worker can't be.
const KEPT: [&str; 8] =
    ["account", "compatibilityDate", "delivery", "environments", "labels", "layers", "pack", "name"];
/// Maps that are merged key by key.
const MERGED: [&str; 4] = ["bindings", "secrets", "services", "vars"];

/// A fleet that exists.
#[derive(Clone, Debug)]
pub struct Existing {
    /// The text of its fleet.yaml.
    text: String,
    value: Value,
    /// Its packs of wrangler projects: name, prefix, configuration and environment.
    projects: Vec<(String, String, PathBuf, Option<String>)>,
}

impl Existing {
    /// Reads the fleet in a folder. The error is the reason why nothing can be added to it.
    pub fn read(root: &Path) -> Result<Option<Existing>, String> {
        let file = root.join(FLEET_FILE);
        if !file.exists() {
            return Ok(None);
        }
        let bytes = plain_file::read(&file, yaml::MAX_BYTES).map_err(|error| error.to_string())?;
        let (document, found) = yaml::parse(FLEET_FILE, &bytes);
        if let Some(error) = found.first() {
            return Err(format!("{}: {}", error.place, error.message));
        }
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        let value = document.map(|document| document.root.to_value()).unwrap_or_default();
        let mut projects = Vec::new();
        for (name, pack) in value["packs"].as_object().into_iter().flatten() {
            let Some(path) = pack["path"].as_str() else { continue };
            let folder = root.join(path);
            let manifest = plain_file::read(&folder.join("pack.yaml"), yaml::MAX_BYTES).unwrap_or_default();
            let manifest =
                yaml::parse("pack.yaml", &manifest).0.map(|document| document.root.to_value()).unwrap_or_default();
            let Some(config) = manifest["config"].as_str().and_then(|config| folder.join(config).canonicalize().ok())
            else {
                continue;
            };
            let prefix = manifest["prefix"].as_str().unwrap_or_default().to_owned();
            projects.push((name.clone(), prefix, config, manifest["environment"].as_str().map(str::to_owned)));
        }
        Ok(Some(Existing { text, value, projects }))
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.value["name"].as_str().unwrap_or_default()
    }

    /// Returns whether it has a pack of this name.
    pub(super) fn has_pack(&self, name: &str) -> bool {
        self.value["packs"].get(name).is_some()
    }

    /// Returns the name and the prefix of the pack that has this code.
    pub(super) fn pack_of(&self, code: &Code) -> Option<(&str, &str)> {
        let Source::Project { config, environment, .. } = &code.source else { return None };
        let found = self.projects.iter().find(|(_, _, other, of)| other == config && of == environment)?;
        Some((&found.0, &found.1))
    }

    /// Returns the name of its account with this id.
    pub(super) fn account(&self, id: &str) -> Option<&str> {
        let accounts = self.value["accounts"].as_object()?;
        accounts.iter().find(|(_, account)| account["id"] == id).map(|(name, _)| name.as_str())
    }

    /// Returns the names of its accounts.
    pub(super) fn accounts(&self) -> Vec<&str> {
        self.value["accounts"].as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect()
    }

    /// Removes from a spec the settings that the defaults already have, and sets to null those that it lacks.
    pub(super) fn over_defaults(&self, spec: &mut Map<String, Value>) {
        let defaults = &self.value["defaults"];
        let layers = defaults["environments"].as_object().into_iter().flat_map(Map::values);
        // What one environment alone has by default may be set otherwise in the others.
        for (key, value) in defaults.as_object().into_iter().flatten() {
            if spec.get(key) == Some(value) && !has_in_environments(defaults, key) {
                spec.remove(key);
            } else if !KEPT.contains(&key.as_str()) {
                remove_inherited(spec, key, value);
            }
        }
        for (key, value) in layers.filter_map(Value::as_object).flatten() {
            if !KEPT.contains(&key.as_str()) {
                remove_inherited(spec, key, value);
            }
        }
    }

    /// Returns the text of its fleet.yaml with more packs and accounts.
    pub(super) fn with(&self, packs: &[(String, String)], accounts: &[(String, Value)]) -> Result<String, String> {
        let path = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let mut changes = Vec::new();
        if !accounts.is_empty() && self.value["defaults"].get("account").is_none() {
            // With a second account, existing customers still name none.
            if let [only] = self.accounts()[..]
                && only != "default"
            {
                changes.push(Change::Set(path(&["defaults", "account"]), only.into()));
            }
        }
        for (name, account) in accounts {
            changes.push(Change::Set(path(&["accounts", name]), account.clone()));
        }
        for (name, folder) in packs {
            changes.push(Change::Set(path(&["packs", name]), json!({"path": folder})));
        }
        edit::yaml_all(&self.text, &changes, &[]).map_err(|refused| refused.to_string())
    }
}

fn has_in_environments(defaults: &Value, key: &str) -> bool {
    defaults["environments"].as_object().into_iter().flat_map(Map::values).any(|layer| layer.get(key).is_some())
}

/// Sets to `null` in a spec what it would inherit.
fn remove_inherited(spec: &mut Map<String, Value>, key: &str, inherited: &Value) {
    match inherited.as_object().filter(|_| MERGED.contains(&key)) {
        Some(entries) => {
            let own = spec.entry(key.to_owned()).or_insert_with(|| json!({}));
            for name in entries.keys() {
                if own.get(name).is_none() {
                    own[name] = Value::Null;
                }
            }
        }
        None => _ = spec.entry(key.to_owned()).or_insert(Value::Null),
    }
}
