//! Workers that were found, as the files of a fleet: references between them, one pack for the same code, what several share
//! written once. Pure: returns texts and writes nothing.

mod naming;
mod refer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use flotilla_model::names::own_secret;
use flotilla_model::spec::Environment;
use flotilla_spec::secrets::access;
use flotilla_spec::yaml;

use super::code::Code;
use super::customers::{self, Others};
use super::ids::slug;
use super::yaml_text::{comment, map};
use super::{Findings, FoundWorker, ImportOptions, Imported, LiveAccount};
use naming::{expected, name, prefix};
use refer::refer;

/// The keys that several customers can share in `defaults` of fleet.yaml.
const SHARED: [&str; 13] = [
    "account",
    "cache",
    "compatibilityDate",
    "compatibilityFlags",
    "crons",
    "keepVars",
    "limits",
    "logpush",
    "observability",
    "pack",
    "placement",
    "tailConsumers",
    "workersDev",
];
/// Maps that are merged key by key, so that part of them can be shared.
const MERGED: [&str; 4] = ["bindings", "secrets", "services", "vars"];
/// The longest prefix of a pack.
const PREFIX_LENGTH: usize = 20;

type Settings = Map<String, Value>;

/// Returns the files of a fleet with these workers.
pub fn assemble(
    root: Option<&Path>,
    mut found: Vec<FoundWorker>,
    others: Others,
    live: LiveAccount,
    options: ImportOptions<'_>,
    mut findings: Findings,
) -> Imported {
    let (more, of_account) = customers::of_account(live, &found);
    findings.0.extend(of_account);
    found.extend(more);
    found.sort_by(|a, b| (&a.customer, &a.role, a.environment).cmp(&(&b.customer, &b.role, b.environment)));
    let folder = || root.and_then(|root| Some(root.file_name()?.to_string_lossy().into_owned()));
    let project = if others.name.is_empty() { folder().unwrap_or_default() } else { others.name };
    let mut fleet = slug(options.name.unwrap_or(&project));
    fleet.truncate(40);
    let fleet = fleet.trim_end_matches('-').to_owned();
    if found.is_empty() {
        return Imported { findings: findings.sorted(), ..Imported::default() };
    }

    let accounts = accounts(&mut found);
    refer(&mut found, &mut findings);
    let mut imported = Imported::default();
    let packs = packs(&mut found, options, &mut imported);
    for worker in &mut found {
        if !worker.lost.is_empty() {
            worker.settings.insert("delivery".to_owned(), "manual".into());
        }
        for (name, reference) in worker.settings.get_mut("secrets").and_then(Value::as_object_mut).into_iter().flatten()
        {
            // Under its own name, a worker would have what a program on this machine works with, and `check` refuses that.
            if access::program_of(name).is_some() {
                *reference = json!({"secret": own_secret(&worker.customer, name)});
            }
            imported.secrets.push((worker.customer.clone(), name.clone()));
        }
        if worker.settings.get("database").is_some_and(|database| database["type"] == "turso") {
            imported.secrets.push((worker.customer.clone(), "TURSO_AUTH_TOKEN".to_owned()));
        }
        if !worker.name.is_empty() {
            imported.workers.push(worker.name.clone());
            imported.manual.extend((!worker.lost.is_empty()).then(|| worker.name.clone()));
        }
    }
    imported.secrets.sort();
    imported.secrets.dedup();

    let mut specs: BTreeMap<String, Settings> = BTreeMap::new();
    let ids: BTreeSet<String> = found.iter().map(|worker| worker.customer.clone()).collect();
    for id in &ids {
        let own: Vec<&FoundWorker> = found.iter().filter(|worker| worker.customer == *id).collect();
        specs.insert(id.clone(), customer(&own, &packs));
    }
    let defaults = share(&mut specs);
    for (id, spec) in &specs {
        let lost: Vec<&FoundWorker> =
            found.iter().filter(|worker| worker.customer == *id && !worker.lost.is_empty()).collect();
        imported.files.insert(format!("customers/{id}.yaml"), spec_text(id, spec, &lost).into_bytes());
    }
    let fleet_yaml = fleet_text(&fleet, &accounts, &packs, &defaults);
    imported.files.insert("fleet.yaml".to_owned(), fleet_yaml.into_bytes());
    imported.customers = specs.into_keys().collect();
    imported.findings = findings.sorted();
    read_again(&imported.files);
    imported
}

/// Reads the files that were written out of names and values that others chose. One that is no YAML or JSON is a bug here, which is better
/// found before anything is on disk.
fn read_again(files: &BTreeMap<String, Vec<u8>>) {
    for (path, bytes) in files.iter().filter(|(path, _)| !path.contains("/src/")) {
        let wrong = if path.ends_with(".yaml") {
            let (_, found) = yaml::parse(path, bytes);
            found.first().map(|diagnostic| diagnostic.message.clone())
        } else if path.ends_with(".json") && !path.ends_with("tsconfig.json") {
            serde_json::from_slice::<Value>(bytes).err().map(|error| error.to_string())
        } else {
            None
        };
        assert!(wrong.is_none(), "BUG: {path} is written so that it can't be read: {}", wrong.unwrap_or_default());
    }
}

/// Names the accounts. If there is only one, no spec has to name it.
fn accounts(found: &mut [FoundWorker]) -> Vec<(String, String)> {
    let ids: BTreeSet<String> = found.iter().filter_map(|worker| worker.account_id.clone()).collect();
    let plain = |id: &String| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let ids: Vec<String> = ids.into_iter().filter(plain).collect();
    let several = ids.len() > 1;
    let accounts: Vec<(String, String)> = ids
        .into_iter()
        .enumerate()
        .map(|(index, id)| (if several { format!("account-{}", index + 1) } else { "default".to_owned() }, id))
        .collect();
    for worker in found.iter_mut().filter(|_| several) {
        let own = accounts.iter().find(|(_, id)| Some(id) == worker.account_id.as_ref()).or(accounts.first());
        if let Some((name, _)) = own {
            worker.settings.insert("account".to_owned(), name.as_str().into());
        }
    }
    accounts
}

fn insert(settings: &mut Settings, key: &str, name: &str, value: Value) {
    let map = settings.entry(key).or_insert_with(|| json!({}));
    map[name] = value;
}

/// A pack: its name, and the prefix of its workers' names.
struct Pack {
    name: String,
    prefix: String,
}

/// Makes one pack of each code; the workers' settings get its name.
fn packs(found: &mut [FoundWorker], options: ImportOptions<'_>, imported: &mut Imported) -> Vec<Pack> {
    let mut keys: Vec<(String, Vec<usize>)> = Vec::new();
    let mut digests: Vec<(Arc<Code>, String)> = Vec::new();
    for (index, worker) in found.iter().enumerate() {
        let key = match &worker.code {
            None => format!("none of {:?}", worker.role),
            Some(code) => match digests.iter().find(|(other, _)| Arc::ptr_eq(other, code)) {
                Some((_, key)) => key.clone(),
                None => {
                    // What isn't there can't be told apart by what it is.
                    let key = code.key() + if code.files.is_empty() { &code.name } else { "" };
                    digests.push((Arc::clone(code), key.clone()));
                    key
                }
            },
        };
        match keys.iter_mut().find(|(other, _)| *other == key) {
            Some((_, all)) => all.push(index),
            None => keys.push((key, vec![index])),
        }
    }
    let mut packs: Vec<Pack> = Vec::new();
    for (_, all) in keys {
        let first = &found[all[0]];
        let written = first
            .code
            .as_ref()
            .map_or_else(|| first.role.clone().unwrap_or_else(|| "worker".to_owned()), |code| code.name.clone());
        let mut base = slug(&written);
        base.truncate(36);
        let base = base.trim_end_matches('-').to_owned();
        let mut name = base.clone();
        let mut number = 2;
        while packs.iter().any(|pack| pack.name == name) {
            name = format!("{base}-{number}");
            number += 1;
        }
        let prefix = prefix(&all.iter().map(|index| &found[*index]).collect::<Vec<_>>(), &name);
        for index in &all {
            found[*index].settings.insert("pack".to_owned(), name.as_str().into());
        }
        let nothing = Arc::new(Code::of_modules(&name, String::new(), BTreeMap::new()));
        let code = found[all[0]].code.as_ref().unwrap_or(&nothing);
        let folder = format!("templates/{name}");
        for (path, bytes) in code.pack(&name, &prefix, options.worker_pack) {
            imported.files.insert(format!("{folder}/{path}"), bytes);
        }
        if !code.packages.is_empty() {
            imported.locks.push((folder, code.lock.clone()));
        }
        imported.packs.push(name.clone());
        packs.push(Pack { name, prefix });
    }
    packs
}

/// Returns a customer's spec, without its id.
fn customer(own: &[&FoundWorker], packs: &[Pack]) -> Settings {
    let mut by_role: BTreeMap<Option<String>, Vec<(Environment, Settings)>> = BTreeMap::new();
    let mut names: BTreeMap<Option<String>, BTreeMap<Environment, String>> = BTreeMap::new();
    for worker in own {
        by_role.entry(worker.role.clone()).or_default().push((worker.environment, worker.settings.clone()));
        if !worker.name.is_empty() {
            names.entry(worker.role.clone()).or_default().insert(worker.environment, worker.name.clone());
        }
    }
    let id = &own[0].customer;
    let mut roles: BTreeMap<Option<String>, Settings> = BTreeMap::new();
    for (role, mut environments) in by_role {
        let mut parts: Vec<&mut Settings> = environments.iter_mut().map(|(_, settings)| settings).collect();
        // A database that environments would inherit is one that they share by accident: each says that it uses it.
        let several = parts.len() > 1;
        let mut base = hoist(&mut parts, several.then_some(&["database"]));
        let prefix = base
            .get("pack")
            .and_then(Value::as_str)
            .and_then(|name| packs.iter().find(|pack| pack.name == name))
            .map_or("", |pack| &pack.prefix);
        name(&mut base, &mut environments, names.get(&role), &expected(prefix, id, role.as_deref()));
        environments.sort_by_key(|(environment, _)| *environment);
        if environments.len() != 1 || environments[0].0 != Environment::Production || !environments[0].1.is_empty() {
            let has_production = environments.iter().any(|(environment, _)| *environment == Environment::Production);
            let removed = (!has_production).then(|| (Environment::Production.as_ref().to_owned(), Value::Null));
            let own = environments.into_iter().rev();
            let own = own.map(|(environment, settings)| (environment.as_ref().to_owned(), Value::Object(settings)));
            let differs: Settings = removed.into_iter().chain(own).collect();
            base.insert("environments".to_owned(), Value::Object(differs));
        }
        roles.insert(role, base);
    }
    if let Some(alone) = roles.remove(&None) {
        // A worker without a role beside others would be none of them: there is one file of wrangler's for it.
        if roles.is_empty() {
            return alone;
        }
        roles.insert(Some("main".to_owned()), alone);
    }
    let mut parts: Vec<&mut Settings> = roles.values_mut().collect();
    let mut spec = hoist(&mut parts, Some(&["workerName", "domains", "routes", "pack"]));
    let workers: Settings = roles
        .into_iter()
        .map(|(role, settings)| {
            (role.unwrap_or_default(), if settings.is_empty() { Value::Null } else { Value::Object(settings) })
        })
        .collect();
    spec.insert("workers".to_owned(), Value::Object(workers));
    spec
}

/// Removes from all what all have in common, and returns it: whole values, and entries of merged maps. The keys in `not` stay.
fn hoist(parts: &mut [&mut Settings], not: Option<&[&str]>) -> Settings {
    let mut common = Settings::new();
    let Some(first) = parts.first() else { return common };
    let keys: Vec<String> =
        first.keys().filter(|key| not.is_none_or(|not| !not.contains(&key.as_str()))).cloned().collect();
    for key in keys {
        let value = parts[0][&key].clone();
        if parts.iter().all(|part| part.get(&key) == Some(&value)) {
            parts.iter_mut().for_each(|part| _ = part.remove(&key));
            common.insert(key, value);
        } else if MERGED.contains(&key.as_str()) {
            let entries: Vec<(String, Value)> =
                value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
            for (name, value) in entries {
                if parts.iter().all(|part| part.get(&key).and_then(|map| map.get(&name)) == Some(&value)) {
                    for part in parts.iter_mut() {
                        if let Some(map) = part.get_mut(&key).and_then(Value::as_object_mut) {
                            map.remove(&name);
                        }
                    }
                    insert(&mut common, &key, &name, value);
                }
            }
            for part in parts.iter_mut() {
                if part.get(&key).and_then(Value::as_object).is_some_and(Map::is_empty) {
                    part.remove(&key);
                }
            }
        }
    }
    common
}

/// Returns what all customers have in common, for `defaults`.
fn share(specs: &mut BTreeMap<String, Settings>) -> Settings {
    if specs.len() < 2 {
        return Settings::new();
    }
    let mut parts: Vec<Settings> = specs
        .values_mut()
        .map(|spec| {
            let keys: Vec<String> =
                spec.keys().filter(|key| SHARED.contains(&key.as_str()) || *key == "vars").cloned().collect();
            keys.into_iter().filter_map(|key| spec.remove(&key).map(|value| (key, value))).collect()
        })
        .collect();
    let common = hoist(&mut parts.iter_mut().collect::<Vec<_>>(), None);
    for (spec, part) in specs.values_mut().zip(parts) {
        spec.extend(part);
    }
    common
}

fn spec_text(id: &str, spec: &Settings, lost: &[&FoundWorker]) -> String {
    let mut text = "# yaml-language-server: $schema=../schema/customer.schema.json\n".to_owned();
    if !lost.is_empty() {
        text.push_str(
            "# A spec can't express everything that these workers have. A deploy by flotilla would remove:\n",
        );
        let mut lines = Vec::new();
        for worker in lost {
            let mut what: Vec<&str> = worker.lost.iter().map(String::as_str).collect();
            what.sort_unstable();
            what.dedup();
            let name = if worker.name.is_empty() { id } else { &worker.name };
            let line = comment(&format!("{name}: {}", what.join(", ")));
            // Once, where it is the same in several environments.
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines.iter().for_each(|line| text.push_str(&format!("#   {line}\n")));
        text.push_str("# So their delivery is `manual`: only a deploy that names the customer touches them.\n");
    }
    let mut whole = Settings::new();
    whole.insert("id".to_owned(), id.into());
    whole.extend(spec.clone());
    text + &map(&whole)
}

fn fleet_text(name: &str, accounts: &[(String, String)], packs: &[Pack], defaults: &Settings) -> String {
    let mut fleet = Settings::new();
    fleet.insert("name".to_owned(), name.into());
    if !accounts.is_empty() {
        let several = accounts.len() > 1;
        let account = |(name, id): &(String, String)| {
            let token = if several {
                format!("CLOUDFLARE_API_TOKEN_{}", name.replace('-', "_").to_uppercase())
            } else {
                "CLOUDFLARE_API_TOKEN".to_owned()
            };
            (name.clone(), json!({"id": id, "token": {"secret": token}}))
        };
        fleet.insert("accounts".to_owned(), Value::Object(accounts.iter().map(account).collect()));
    }
    let packs =
        packs.iter().map(|pack| (pack.name.clone(), json!({"path": format!("templates/{}", pack.name)}))).collect();
    fleet.insert("packs".to_owned(), Value::Object(packs));
    if !defaults.is_empty() {
        fleet.insert("defaults".to_owned(), Value::Object(defaults.clone()));
    }
    "# yaml-language-server: $schema=schema/fleet.schema.json\n".to_owned() + &map(&fleet)
}
