//! Workers that were found, as the files of a fleet: references between them, one pack for the same code, what several share
//! written once. Pure: returns texts and writes nothing.

mod naming;
mod previews;
mod refer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use flotilla_model::diagnostic::Place;
use flotilla_model::names::own_secret;
use flotilla_model::spec::Environment;
use flotilla_spec::project::FLEET_FILE;
use flotilla_spec::secrets::access;
use flotilla_spec::yaml;

use super::code::{Code, Source};
use super::customers::{self, Others};
use super::fleet::Existing;
use super::ids::slug;
use super::yaml_text::{comment, map};
use super::{Findings, FoundWorker, ImportOptions, Imported, LiveAccount};
use naming::{expected, name, prefix};
use refer::refer;

/// The keys that several customers can share in `defaults` of fleet.yaml.
const SHARED: [&str; 14] = [
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
    "previewUrls",
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

    let accounts = accounts(&mut found, options, &mut findings);
    refer(&mut found, &mut findings);
    let mut imported = Imported { steps: others.steps.into_iter().collect(), ..Imported::default() };
    imported.project = slug(&project);
    let packs = packs(&mut found, options, &mut imported, &mut findings);
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
    let defaults = match options.fleet {
        // Defaults would be those of the customers that are there, too.
        Some(existing) => {
            specs.values_mut().for_each(|spec| existing.over_defaults(spec));
            Settings::new()
        }
        None => share(&mut specs),
    };
    for (id, spec) in &specs {
        let lost: Vec<&FoundWorker> =
            found.iter().filter(|worker| worker.customer == *id && !worker.lost.is_empty()).collect();
        imported.files.insert(format!("customers/{id}.yaml"), spec_text(id, spec, &lost).into_bytes());
    }
    let new: Vec<(String, String)> = packs
        .iter()
        .filter(|pack| !pack.exists)
        .map(|pack| (pack.name.clone(), format!("templates/{}", pack.name)))
        .collect();
    let fleet_yaml = match options.fleet {
        Some(existing) => existing.with(&new, &accounts).map_err(|why| {
            findings.left_out(
                Place::file(FLEET_FILE),
                format!("the packs can't be added to it: {why}"),
                format!(
                    "add them yourself, under `packs`: {}",
                    new.iter().map(|(name, path)| format!("{name}: {{ path: {path} }}")).collect::<Vec<_>>().join(", ")
                ),
            );
        }),
        None => {
            let from_production = previews::need_production(&found);
            if from_production {
                let message = "previews take the settings of production, because no worker has a host in staging";
                let help = "it is `previews.from` in fleet.yaml; what previews must not share with production goes to `environments: { preview: … }`";
                findings.note(Place::file(FLEET_FILE), message, help);
            }
            Ok(fleet_text(&fleet, &accounts, &new, &defaults, from_production))
        }
    };
    imported.files.extend(fleet_yaml.ok().map(|text| (FLEET_FILE.to_owned(), text.into_bytes())));
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

/// Names the accounts that fleet.yaml gets. If there is only one, no spec has to name it.
fn accounts(found: &mut [FoundWorker], options: ImportOptions<'_>, findings: &mut Findings) -> Vec<(String, Value)> {
    let ids: BTreeSet<String> = found.iter().filter_map(|worker| worker.account_id.clone()).collect();
    let ids: Vec<String> = ids.into_iter().collect();
    let there = options.fleet.map(Existing::accounts).unwrap_or_default();
    if let (Some(_), [], [first, ..]) = (options.fleet, &there[..], &ids[..]) {
        let message = format!("the workers belong to the account {first}, and fleet.yaml has no `accounts`");
        let help = "set CLOUDFLARE_ACCOUNT_ID to it, or add it under `accounts`";
        findings.note(Place::file(FLEET_FILE), message, help);
        return Vec::new();
    }
    let several = ids.len() + there.len() > 1;
    let mut number = 0;
    let mut named: Vec<(String, String)> = Vec::new();
    let mut new = Vec::new();
    for id in ids {
        let known = options.fleet.and_then(|fleet| fleet.account(&id)).map(str::to_owned);
        let name = known.clone().unwrap_or_else(|| match several {
            false => "default".to_owned(),
            true => loop {
                number += 1;
                let name = format!("account-{number}");
                if !there.contains(&name.as_str()) {
                    break name;
                }
            },
        });
        if known.is_none() {
            let token = match several {
                true => format!("CLOUDFLARE_API_TOKEN_{}", name.replace('-', "_").to_uppercase()),
                false => "CLOUDFLARE_API_TOKEN".to_owned(),
            };
            new.push((name.clone(), json!({"id": id, "token": {"secret": token}})));
        }
        named.push((name, id));
    }
    for worker in found.iter_mut().filter(|_| several) {
        let own = named.iter().find(|(_, id)| Some(id) == worker.account_id.as_ref());
        let first = named.first().filter(|_| there.is_empty());
        if let Some((name, _)) = own.or(first) {
            worker.settings.insert("account".to_owned(), name.as_str().into());
        }
    }
    new
}

fn insert(settings: &mut Settings, key: &str, name: &str, value: Value) {
    let map = settings.entry(key).or_insert_with(|| json!({}));
    map[name] = value;
}

/// A pack: its name, and the prefix of its workers' names.
struct Pack {
    name: String,
    prefix: String,
    /// Whether the fleet had it before.
    exists: bool,
}

/// Makes one pack of each code; the workers' settings get its name.
fn packs(
    found: &mut [FoundWorker],
    options: ImportOptions<'_>,
    imported: &mut Imported,
    findings: &mut Findings,
) -> Vec<Pack> {
    let mut keys: Vec<(String, Vec<usize>)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for (index, worker) in found.iter().enumerate() {
        let key = worker.code.as_ref().map_or_else(|| format!("none of {:?}", worker.role), |code| code.key.clone());
        let position = *known.entry(key.clone()).or_insert(keys.len());
        match keys.get_mut(position) {
            Some((_, all)) => all.push(index),
            None => keys.push((key, vec![index])),
        }
    }
    let mut packs: Vec<Pack> = Vec::new();
    for (_, all) in keys {
        // A pack's code is that of production, if there is one, as its settings are those that most workers have.
        let first = all.iter().copied().find(|index| found[*index].environment == Environment::Production);
        let first = &found[first.unwrap_or(all[0])];
        let nothing = Code::of_modules("worker", String::new(), BTreeMap::new());
        let code = first.code.as_deref().unwrap_or(&nothing).clone();
        if let Some((name, prefix)) = options.fleet.and_then(|fleet| fleet.pack_of(&code)) {
            all.iter().for_each(|index| _ = found[*index].settings.insert("pack".to_owned(), name.into()));
            packs.push(Pack { name: name.to_owned(), prefix: prefix.to_owned(), exists: true });
            continue;
        }
        let customers: BTreeSet<&str> = all.iter().map(|index| found[*index].customer.as_str()).collect();
        // A pack of several customers has the name of none of them.
        let own = first.role.clone().unwrap_or_else(|| imported.project.clone());
        let is_one = !code.name.is_empty() && (customers.len() == 1 || !customers.contains(code.name.as_str()));
        let written = if is_one { code.name.clone() } else { own };
        if code.is_copy {
            copies(&code, all.iter().map(|index| &found[*index]), findings);
        }
        let mut base = slug(&written);
        base.truncate(36);
        let base = base.trim_end_matches('-').to_owned();
        let mut name = base.clone();
        let mut number = 2;
        while packs.iter().any(|pack| pack.name == name) || options.fleet.is_some_and(|fleet| fleet.has_pack(&name)) {
            name = format!("{base}-{number}");
            number += 1;
        }
        let prefix = prefix(&all.iter().map(|index| &found[*index]).collect::<Vec<_>>(), &name);
        for index in &all {
            found[*index].settings.insert("pack".to_owned(), name.as_str().into());
        }
        let folder = format!("templates/{name}");
        for (path, bytes) in code.pack(&name, &prefix, &options.target.join(&folder), options.worker_pack) {
            imported.files.insert(format!("{folder}/{path}"), bytes);
        }
        imported.packs.push(name.clone());
        packs.push(Pack { name, prefix, exists: false });
    }
    packs
}

/// Reports copies of a pack's code, which the pack doesn't bundle.
fn copies<'w>(code: &Code, workers: impl Iterator<Item = &'w FoundWorker>, findings: &mut Findings) {
    let folder = |code: &Code| match &code.source {
        Source::Project { config, .. } => config.parent().map(Path::to_owned),
        Source::Modules { .. } => None,
    };
    let own = folder(code);
    let others: BTreeMap<_, &Place> =
        workers.filter_map(|worker| Some((folder(worker.code.as_ref()?)?, &worker.place))).collect();
    let mut others = others.into_iter().filter(|(other, _)| Some(other) != own.as_ref());
    let Some((_, place)) = others.next() else { return };
    let name = own.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let message = match others.count() {
        0 => format!("the code next to it is a copy of that of `{name}`"),
        more => format!("the code next to it, and in {more} more folders, is a copy of that of `{name}`"),
    };
    let help = format!(
        "one pack bundles the code of `{name}` for all of them: changes to a copy have no effect, and the copies can be deleted"
    );
    findings.note(place.clone(), message, help);
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
        previews::name_environments(&mut environments);
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
            let keys: Vec<String> = spec
                .keys()
                .filter(|key| SHARED.contains(&key.as_str()) || MERGED.contains(&key.as_str()))
                .cloned()
                .collect();
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
        text.push_str("# So their delivery is `manual`: only a deploy that names the customer changes them.\n");
    }
    let mut whole = Settings::new();
    whole.insert("id".to_owned(), id.into());
    whole.extend(spec.clone());
    text + &map(&whole)
}

fn fleet_text(
    name: &str,
    accounts: &[(String, Value)],
    packs: &[(String, String)],
    defaults: &Settings,
    from_production: bool,
) -> String {
    let mut fleet = Settings::new();
    fleet.insert("name".to_owned(), name.into());
    if !accounts.is_empty() {
        fleet.insert("accounts".to_owned(), Value::Object(accounts.iter().cloned().collect()));
    }
    let packs = packs.iter().map(|(name, path)| (name.clone(), json!({"path": path}))).collect();
    fleet.insert("packs".to_owned(), Value::Object(packs));
    if !defaults.is_empty() {
        fleet.insert("defaults".to_owned(), Value::Object(defaults.clone()));
    }
    if from_production {
        fleet.insert("previews".to_owned(), json!({"from": Environment::Production}));
    }
    "# yaml-language-server: $schema=schema/fleet.schema.json\n".to_owned() + &map(&fleet)
}
