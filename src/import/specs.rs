//! Workers that were found, as the files of a fleet: who calls whom, one pack for what runs the same, what several workers share
//! written once. Pure; the texts are made here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::names;
use crate::spec::Environment;

use super::customers::{self, Others, slug};
use super::yaml_text::map;
use super::{Asked, Findings, Found, Imported, Live, News};

/// What several customers can share in `defaults` of fleet.yaml.
const SHARED: [&str; 11] = [
    "account",
    "compatibilityDate",
    "compatibilityFlags",
    "crons",
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

/// Makes the files.
pub fn assemble(
    root: Option<&Path>,
    mut found: Vec<Found>,
    others: Others,
    live: Live,
    asked: Asked<'_>,
    mut findings: Findings,
) -> Imported {
    let (more, of_account) = customers::of_account(live, &found);
    findings.0.extend(of_account);
    found.extend(more);
    found.sort_by(|a, b| (&a.customer, &a.role, a.environment).cmp(&(&b.customer, &b.role, b.environment)));
    let folder = || root.and_then(|root| Some(root.file_name()?.to_string_lossy().into_owned()));
    let project = if others.name.is_empty() { folder().unwrap_or_default() } else { others.name };
    let mut fleet = slug(asked.name.unwrap_or(&project));
    fleet.truncate(40);
    let fleet = fleet.trim_end_matches('-').to_owned();
    if found.is_empty() {
        return Imported { findings: findings.sorted(), ..Imported::default() };
    }

    let accounts = accounts(&mut found);
    refer(&mut found, &mut findings);
    let mut imported = Imported::default();
    let packs = packs(&mut found, asked, &mut imported);
    for one in &mut found {
        if !one.lost.is_empty() {
            one.settings.insert("delivery".to_owned(), "manual".into());
        }
        for (name, _) in one.settings.get("secrets").and_then(Value::as_object).into_iter().flatten() {
            imported.secrets.push((one.customer.clone(), name.clone()));
        }
        if one.settings.get("database").is_some_and(|database| database["type"] == "turso") {
            imported.secrets.push((one.customer.clone(), "TURSO_AUTH_TOKEN".to_owned()));
        }
        if !one.name.is_empty() {
            imported.workers.push((one.name.clone(), one.customer.clone()));
        }
    }
    imported.secrets.sort();
    imported.secrets.dedup();

    let mut specs: BTreeMap<String, Settings> = BTreeMap::new();
    let ids: BTreeSet<String> = found.iter().map(|one| one.customer.clone()).collect();
    for id in &ids {
        let own: Vec<&Found> = found.iter().filter(|one| one.customer == *id).collect();
        specs.insert(id.clone(), customer(&own, &packs));
    }
    let defaults = share(&mut specs);
    for (id, spec) in &specs {
        let lost: Vec<&Found> = found.iter().filter(|one| one.customer == *id && !one.lost.is_empty()).collect();
        imported.files.insert(format!("customers/{id}.yaml"), spec_text(id, spec, &lost).into_bytes());
    }
    imported.files.insert("fleet.yaml".to_owned(), fleet_text(&fleet, &accounts, &packs, &defaults).into_bytes());
    imported.customers = specs.into_keys().collect();
    imported.findings = findings.sorted();
    imported
}

/// Names for the accounts. Where there is one, no spec has to say it.
fn accounts(found: &mut [Found]) -> Vec<(String, String)> {
    let ids: BTreeSet<String> = found.iter().filter_map(|one| one.account_id.clone()).collect();
    let plain = |id: &String| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let ids: Vec<String> = ids.into_iter().filter(plain).collect();
    let several = ids.len() > 1;
    let accounts: Vec<(String, String)> = ids
        .into_iter()
        .enumerate()
        .map(|(at, id)| (if several { format!("account-{}", at + 1) } else { "default".to_owned() }, id))
        .collect();
    for one in found.iter_mut().filter(|_| several) {
        let own = accounts.iter().find(|(_, id)| Some(id) == one.account_id.as_ref()).or(accounts.first());
        if let Some((name, _)) = own {
            one.settings.insert("account".to_owned(), name.as_str().into());
        }
    }
    accounts
}

/// Puts references in the place of names and addresses: `services` between the workers of one customer, as long as they don't go
/// round in a circle, and `{ workerUrl: … }` where a variable is exactly what it becomes.
fn refer(found: &mut [Found], findings: &mut Findings) {
    let role_of: BTreeMap<(String, Environment, String), String> = found
        .iter()
        .filter(|one| !one.name.is_empty())
        .filter_map(|one| Some(((one.customer.clone(), one.environment, one.name.clone()), one.role.clone()?)))
        .collect();
    let address_of: BTreeMap<(String, Environment, String), String> = found
        .iter()
        .filter_map(|one| Some(((one.customer.clone(), one.environment, address(&one.settings)?), one.role.clone()?)))
        .collect();
    let all_addresses: BTreeSet<String> = found.iter().filter_map(|one| address(&one.settings)).collect();
    let mut edges: BTreeMap<(String, Environment), BTreeSet<(String, String)>> = BTreeMap::new();
    let mut links: BTreeSet<(String, Option<String>, String)> = BTreeSet::new();
    for one in found.iter_mut() {
        for (binding, (worker, _)) in std::mem::take(&mut one.calls) {
            let to = role_of
                .get(&(one.customer.clone(), one.environment, worker.clone()))
                .filter(|to| Some(*to) != one.role.as_ref());
            let edges = edges.entry((one.customer.clone(), one.environment)).or_default();
            match (to, &one.role) {
                (Some(to), Some(from)) if !reaches(edges, to, from) => {
                    edges.insert((from.clone(), to.clone()));
                    insert(&mut one.settings, "services", &binding, to.as_str().into());
                }
                _ => insert(&mut one.settings, "bindings", &binding, json!({"worker": worker})),
            }
        }
        for (name, value) in one.settings.get_mut("vars").and_then(Value::as_object_mut).into_iter().flatten() {
            let to = value
                .as_str()
                .and_then(|text| address_of.get(&(one.customer.clone(), one.environment, text.to_owned())));
            if let Some(to) = to.filter(|to| Some(*to) != one.role.as_ref()) {
                *value = json!({"workerUrl": to});
                links.insert((one.customer.clone(), one.role.clone(), name.clone()));
            }
        }
    }
    // The same variable in another environment, where nothing is behind the address.
    for one in found.iter() {
        for (name, value) in one.settings.get("vars").and_then(Value::as_object).into_iter().flatten() {
            let Some(url) = value.as_str().filter(|url| url.starts_with("https://")) else { continue };
            let linked = links.contains(&(one.customer.clone(), one.role.clone(), name.clone()));
            if linked && !all_addresses.contains(url) {
                let host = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
                let message =
                    format!("`{name}` of `{}` leads to `{host}`, which no worker that was found has", one.name);
                let help =
                    format!("if it is the worker of that role in {}, add `domains: [{host}]` to it", one.environment);
                findings.push(News::Note, one.place.clone(), message, help);
            }
        }
    }
}

/// Where a worker is reached, as flotilla tells others: its first domain, or its first route's host.
fn address(settings: &Settings) -> Option<String> {
    let domain = settings.get("domains").and_then(|domains| domains[0].as_str().map(str::to_owned));
    let routes = settings.get("routes").and_then(Value::as_array);
    let route = routes.into_iter().flatten().find_map(|route| {
        let host = route["pattern"].as_str()?.split('/').next()?;
        (!host.contains('*')).then(|| host.to_owned())
    });
    domain.or(route).map(|host| format!("https://{host}"))
}

fn reaches(edges: &BTreeSet<(String, String)>, from: &str, to: &str) -> bool {
    let mut open = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            open.extend(edges.iter().filter(|(one, _)| one == at).map(|(_, other)| other.as_str()));
        }
    }
    false
}

fn insert(settings: &mut Settings, key: &str, name: &str, value: Value) {
    let map = settings.entry(key).or_insert_with(|| json!({}));
    map[name] = value;
}

/// A pack: its name, and what the names of its workers begin with.
struct Pack {
    name: String,
    prefix: String,
}

/// One pack for what runs the same; `settings` get its name.
fn packs(found: &mut [Found], asked: Asked<'_>, imported: &mut Imported) -> Vec<Pack> {
    let mut keys: Vec<(String, Vec<usize>)> = Vec::new();
    for (at, one) in found.iter().enumerate() {
        let key = one.code.as_ref().map_or_else(
            || format!("none of {:?}", one.role),
            // What isn't there can't be told apart by what it is.
            |code| code.key() + if code.files.is_empty() { &code.name } else { "" },
        );
        match keys.iter_mut().find(|(other, _)| *other == key) {
            Some((_, all)) => all.push(at),
            None => keys.push((key, vec![at])),
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
        let prefix = prefix(&all.iter().map(|at| &found[*at]).collect::<Vec<_>>(), &name);
        for at in &all {
            found[*at].settings.insert("pack".to_owned(), name.as_str().into());
        }
        let nothing = super::code::Code::of_modules(&name, String::new(), BTreeMap::new());
        let code = found[all[0]].code.as_ref().unwrap_or(&nothing);
        let folder = format!("templates/{name}");
        for (path, bytes) in code.pack(&name, &prefix, asked.worker_pack) {
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

/// What the names of workers begin with, if it is the same for all: then no spec has to say them.
fn prefix(found: &[&Found], pack: &str) -> String {
    let of = |one: &Found| {
        let environment = match one.environment {
            Environment::Production => String::new(),
            other => format!("-{other}"),
        };
        let role = one.role.as_ref().map(|role| format!("-{role}")).unwrap_or_default();
        let rest = one.name.strip_suffix(&environment)?.strip_suffix(&role)?;
        rest.strip_suffix(one.customer.as_str())?.strip_suffix('-').map(str::to_owned)
    };
    let mut all = found.iter().filter(|one| !one.name.is_empty()).map(|one| of(one));
    let first = all.next().flatten().filter(|prefix| prefix.len() <= PREFIX_LENGTH && names::label(prefix).is_ok());
    if let Some(first) = first
        && all.all(|other| other.as_ref() == Some(&first))
    {
        return first;
    }
    let mut short = pack.to_owned();
    short.truncate(PREFIX_LENGTH);
    short.trim_end_matches('-').to_owned()
}

/// A customer's spec, without its id.
fn customer(own: &[&Found], packs: &[Pack]) -> Settings {
    let mut by_role: BTreeMap<Option<String>, Vec<(Environment, Settings)>> = BTreeMap::new();
    let mut names: BTreeMap<Option<String>, BTreeMap<Environment, String>> = BTreeMap::new();
    for one in own {
        by_role.entry(one.role.clone()).or_default().push((one.environment, one.settings.clone()));
        if !one.name.is_empty() {
            names.entry(one.role.clone()).or_default().insert(one.environment, one.name.clone());
        }
    }
    let id = &own[0].customer;
    let mut roles: BTreeMap<Option<String>, Settings> = BTreeMap::new();
    for (role, mut environments) in by_role {
        let mut parts: Vec<&mut Settings> = environments.iter_mut().map(|(_, settings)| settings).collect();
        let mut base = hoist(&mut parts, None);
        let prefix = base
            .get("pack")
            .and_then(Value::as_str)
            .and_then(|name| packs.iter().find(|pack| pack.name == name))
            .map_or("", |pack| &pack.prefix);
        name(&mut base, &mut environments, names.get(&role), &expected(prefix, id, role.as_deref()));
        environments.sort_by_key(|(environment, _)| *environment);
        if environments.len() != 1 || environments[0].0 != Environment::Production || !environments[0].1.is_empty() {
            let differs: Settings = environments
                .into_iter()
                .rev()
                .map(|(environment, settings)| {
                    (
                        environment.as_str().to_owned(),
                        if settings.is_empty() { Value::Null } else { Value::Object(settings) },
                    )
                })
                .collect();
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

fn expected(prefix: &str, id: &str, role: Option<&str>) -> String {
    match role {
        Some(role) => format!("{prefix}-{id}-{role}"),
        None => format!("{prefix}-{id}"),
    }
}

/// Says the workers' names as shortly as it goes: not at all, as one pattern, or for each environment.
fn name(
    base: &mut Settings,
    environments: &mut [(Environment, Settings)],
    names: Option<&BTreeMap<Environment, String>>,
    expected: &str,
) {
    let Some(names) = names else { return };
    let gives = |pattern: &str, environment: Environment| {
        let name = pattern.replace("{environment}", environment.as_str());
        match environment {
            _ if pattern.contains("{environment}") => name,
            Environment::Production => name,
            other => format!("{name}-{other}"),
        }
    };
    let all = |pattern: &str| names.iter().all(|(environment, name)| gives(pattern, *environment) == *name);
    if all(expected) {
        return;
    }
    let production = names.get(&Environment::Production).cloned();
    let with_word = names.iter().map(|(environment, name)| name.replacen(environment.as_str(), "{environment}", 1));
    let mut candidates: Vec<String> = production.clone().into_iter().collect();
    candidates.extend(
        names.iter().filter_map(|(environment, name)| name.strip_suffix(&format!("-{environment}")).map(str::to_owned)),
    );
    candidates.extend(with_word.filter(|pattern| pattern.contains('{')));
    if let Some(pattern) = candidates.into_iter().find(|pattern| all(pattern)) {
        base.insert("workerName".to_owned(), pattern.into());
        return;
    }
    let pattern = match production {
        Some(name) => {
            base.insert("workerName".to_owned(), name.clone().into());
            name
        }
        None => expected.to_owned(),
    };
    for (environment, settings) in environments {
        if let Some(name) = names.get(environment).filter(|name| gives(&pattern, *environment) != **name) {
            settings.insert("workerName".to_owned(), name.as_str().into());
        }
    }
}

/// Takes out of all what all have: whole values, and entries of the maps that are merged. Of several, `not` stays where it is.
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

/// What all customers have, for `defaults`.
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

fn spec_text(id: &str, spec: &Settings, lost: &[&Found]) -> String {
    let mut text = "# yaml-language-server: $schema=../schema/customer.schema.json\n".to_owned();
    if !lost.is_empty() {
        text.push_str("# Not all that these workers have can be said here. A deploy by flotilla would take away:\n");
        for one in lost {
            let mut what: Vec<&str> = one.lost.iter().map(String::as_str).collect();
            what.sort_unstable();
            what.dedup();
            let name = if one.name.is_empty() { id } else { &one.name };
            let line: String =
                format!("{name}: {}", what.join(", ")).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text.push_str(&format!("#   {line}\n"));
        }
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
