//! Conflicts of two workers over a name in an account, a host or another customer's database. And workers that have nothing to do with
//! each other, which become customers of their own. Knows workers as they were found.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use flotilla_model::spec::Environment;

use super::super::{Findings, FoundWorker};

/// Removes from the later of two workers what the earlier one has: its name, its hosts, its customer's databases. Production comes first.
pub(super) fn apart(found: &mut [FoundWorker], findings: &mut Findings) {
    // Files without an account are deployed to the one that others name.
    let default = found.iter().find_map(|worker| worker.account_id.clone());
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by_key(|index| found[*index].environment != Environment::Production);
    let mut names: BTreeMap<(Option<String>, String), String> = BTreeMap::new();
    let mut hosts: BTreeMap<String, String> = BTreeMap::new();
    let mut databases: BTreeMap<String, String> = BTreeMap::new();
    for index in order {
        let worker = &mut found[index];
        if !worker.name.is_empty() {
            let key = (worker.account_id.clone().or_else(|| default.clone()), worker.name.clone());
            match names.get(&key) {
                Some(other) => {
                    let help =
                        "the first one keeps it; the other one gets a name of its own, and a deploy creates its worker";
                    let message = format!(
                        "the worker `{}` is also that of {other}: the later deploy overwrote the earlier one",
                        worker.name
                    );
                    findings.lost(worker.place.clone(), message, help);
                    worker.lost.push(format!("its worker belongs to {other}"));
                    worker.name = String::new();
                }
                None => _ = names.insert(key, worker.what.clone()),
            }
        }
        own_hosts(worker, &mut hosts, findings);
        own_databases(worker, &mut databases, findings);
    }
}

/// Leaves a worker the hosts that no earlier one has.
fn own_hosts(worker: &mut FoundWorker, hosts: &mut BTreeMap<String, String>, findings: &mut Findings) {
    let what = worker.what.clone();
    let mut taken = Vec::new();
    for key in ["domains", "routes"] {
        let Some(Value::Array(all)) = worker.settings.get_mut(key) else { continue };
        all.retain(|host| {
            let text = host.as_str().or_else(|| host["pattern"].as_str()).unwrap_or_default();
            match hosts.get(text) {
                Some(other) if *other != what => {
                    taken.push((text.to_owned(), other.clone()));
                    false
                }
                _ => {
                    hosts.insert(text.to_owned(), what.clone());
                    true
                }
            }
        });
        if all.is_empty() {
            worker.settings.remove(key);
        }
    }
    for (host, other) in &taken {
        let message = format!("{what} has `{host}`, which belongs to {other}: a host points to one worker");
        let help =
            format!("{other} keeps it; give this one hosts of its own, such as `routes = []` in its environment");
        findings.left_out(worker.place.clone(), message, help);
    }
    let has_hosts = worker.settings.contains_key("domains") || worker.settings.contains_key("routes");
    if !taken.is_empty() && !has_hosts && worker.implies_workers_dev {
        worker.settings.remove("workersDev");
    }
}

/// Leaves a worker the databases that no other customer has.
fn own_databases(worker: &mut FoundWorker, databases: &mut BTreeMap<String, String>, findings: &mut Findings) {
    let own = worker.settings.get("database").and_then(|database| database["id"].as_str()).map(str::to_owned);
    let bound = worker.settings.get("bindings").and_then(Value::as_object).into_iter().flatten();
    let bound: Vec<(String, String)> =
        bound.filter_map(|(name, binding)| Some((name.clone(), binding["d1"].as_str()?.to_owned()))).collect();
    let all = own.map(|id| (None, id)).into_iter().chain(bound.into_iter().map(|(name, id)| (Some(name), id)));
    for (binding, id) in all {
        let owner = databases.entry(id).or_insert_with(|| worker.customer.clone());
        if *owner == worker.customer {
            continue;
        }
        let help = "each customer has a database of its own: create one, and move this customer's rows to it";
        let message = format!("`{}` uses the database of `{owner}`", worker.customer);
        findings.lost(worker.place.clone(), message, help);
        worker.lost.push(format!("the database of {owner}"));
        match binding {
            None => _ = worker.settings.remove("database"),
            Some(name) => {
                if let Some(bindings) = worker.settings.get_mut("bindings").and_then(Value::as_object_mut) {
                    bindings.remove(&name);
                }
            }
        }
    }
}

/// Makes customers of their own of the project's workers that have nothing to do with each other, so that an error in one doesn't stop the
/// others. Workers that refer to each other stay the roles of one customer.
pub(super) fn separate(found: &mut [FoundWorker], default: &str) {
    let roles: BTreeSet<String> =
        found.iter().filter(|worker| worker.customer == default).filter_map(|worker| worker.role.clone()).collect();
    let is_alone = found.iter().any(|worker| worker.customer == default && worker.role.is_none());
    if roles.len() < 2 || is_alone {
        return;
    }
    let roles: Vec<String> = roles.into_iter().collect();
    // Each role's group: the smallest role that it is connected with.
    let mut groups: Vec<usize> = (0..roles.len()).collect();
    for (one, other) in references(found, &roles) {
        let (from, to) = (groups[one].max(groups[other]), groups[one].min(groups[other]));
        groups.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
    }
    let size = |group: usize| groups.iter().filter(|other| **other == group).count();
    let all: BTreeSet<usize> = groups.iter().copied().collect();
    if all.len() < 2 {
        return;
    }
    let largest =
        all.iter().copied().max_by_key(|group| (size(*group), usize::MAX - group)).filter(|group| size(*group) > 1);
    let others: BTreeSet<String> = found
        .iter()
        .filter(|worker| worker.role.is_none() || worker.customer != default)
        .map(|worker| worker.customer.clone())
        .collect();
    // Customers that have the same roles keep them: their workers are made of the same files.
    let shared: BTreeSet<String> =
        found.iter().filter(|worker| worker.customer != default).filter_map(|worker| worker.role.clone()).collect();
    if roles.iter().any(|role| others.contains(role) || shared.contains(role)) {
        return;
    }
    for worker in found.iter_mut().filter(|worker| worker.customer == default) {
        let Some(index) = worker.role.as_ref().and_then(|role| roles.iter().position(|other| other == role)) else {
            continue;
        };
        let group = groups[index];
        if Some(group) == largest {
            continue;
        }
        worker.customer = roles[group].clone();
        if size(group) == 1 {
            worker.role = None;
        }
    }
}

/// Returns the pairs of roles of which one names a worker of the other, or its host.
fn references(found: &[FoundWorker], roles: &[String]) -> BTreeSet<(usize, usize)> {
    let index_of = |worker: &FoundWorker| roles.iter().position(|role| Some(role) == worker.role.as_ref());
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    let all: Vec<(usize, &FoundWorker)> = found.iter().filter_map(|worker| Some((index_of(worker)?, worker))).collect();
    let list = |worker: &'_ FoundWorker, key: &str| {
        worker.settings.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let entries = |worker: &FoundWorker, key: &str| -> Vec<Value> {
        worker.settings.get(key).and_then(Value::as_object).into_iter().flat_map(|map| map.values().cloned()).collect()
    };
    for (index, worker) in &all {
        let domains = list(worker, "domains").into_iter().filter_map(|domain| Some(domain.as_str()?.to_owned()));
        let routes = list(worker, "routes").into_iter();
        let routes = routes.filter_map(|route| Some(route["pattern"].as_str()?.split('/').next()?.to_owned()));
        let names = Some(worker.name.clone()).filter(|name| !name.is_empty());
        owners.extend(names.into_iter().chain(domains).chain(routes).map(|name| (name, *index)));
    }
    let mut pairs = BTreeSet::new();
    for (index, worker) in &all {
        let called = worker.calls.values().map(|(callee, _)| callee.clone());
        let bound =
            entries(worker, "bindings").into_iter().filter_map(|binding| Some(binding["worker"].as_str()?.to_owned()));
        let texts = entries(worker, "vars").into_iter().chain(list(worker, "tailConsumers"));
        let texts = texts.filter_map(|value| {
            let text = value.as_str()?;
            let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
            Some(rest.split('/').next()?.to_owned())
        });
        let named = called.chain(bound).chain(texts).filter_map(|name| owners.get(&name));
        pairs.extend(named.filter(|other| *other != index).map(|other| (*index, *other)));
    }
    pairs
}

/// Makes customers of the environments whose code is bundled differently from that of their customer: the environments of one share a pack.
pub(super) fn bundled_apart(found: &mut [FoundWorker], findings: &mut Findings) {
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by_key(|index| found[*index].environment != Environment::Production);
    let mut first: BTreeMap<(String, Option<String>), (String, Option<String>)> = BTreeMap::new();
    for index in order {
        let worker = &found[index];
        let key = worker.code.as_ref().map(|code| code.key.clone());
        let of = (worker.customer.clone(), worker.role.clone());
        let (what, common) = first.entry(of).or_insert_with(|| (worker.what.clone(), key.clone())).clone();
        if key == common {
            continue;
        }
        let base = format!("{}-{}", worker.customer, worker.environment.as_ref());
        let taken = |name: &String| found.iter().any(|other| other.customer == *name);
        let names = (2..).map(|number| format!("{base}-{number}"));
        let customer = std::iter::once(base.clone()).chain(names).find(|name| !taken(name)).unwrap_or_default();
        let message = format!(
            "the code of {} is bundled differently from that of {what}: it is the customer `{customer}` now",
            worker.what
        );
        findings.note(worker.place.clone(), message, "all environments of a customer share a pack");
        found[index].customer = customer;
    }
}
