//! Workers that refer to each other: names and addresses that become references. Knows the workers that were found.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use flotilla_model::spec::Environment;

use super::super::{Findings, Found, News};
use super::{Settings, insert};

/// Puts references in the place of names and addresses: `services` between the workers of one customer, as long as they don't go
/// round in a circle, and `{ workerUrl: … }` where a variable is exactly what it becomes.
pub(super) fn refer(found: &mut [Found], findings: &mut Findings) {
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
