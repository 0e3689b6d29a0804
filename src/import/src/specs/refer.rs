//! Workers that refer to each other: names and addresses that become references. Knows the workers that were found.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use flotilla_model::spec::Environment;

use super::super::{Findings, FoundWorker};
use super::{Settings, insert};

/// Replaces names and addresses by references: `services` and `tailConsumers` between the workers of one customer, and `{ workerUrl: … }` where a
/// variable is exactly the address.
pub(super) fn refer(found: &mut [FoundWorker], findings: &mut Findings) {
    let role_of: BTreeMap<(String, Environment, String), String> = found
        .iter()
        .filter(|worker| !worker.name.is_empty())
        .filter_map(|worker| {
            Some(((worker.customer.clone(), worker.environment, worker.name.clone()), worker.role.clone()?))
        })
        .collect();
    let address_of: BTreeMap<(String, Environment, String), String> = found
        .iter()
        .filter_map(|worker| {
            Some(((worker.customer.clone(), worker.environment, address(&worker.settings)?), worker.role.clone()?))
        })
        .collect();
    let all_addresses: BTreeSet<String> = found.iter().filter_map(|worker| address(&worker.settings)).collect();
    let mut links: BTreeSet<(String, Option<String>, String)> = BTreeSet::new();
    for worker in found.iter_mut() {
        for (binding, (callee, _)) in std::mem::take(&mut worker.calls) {
            match role_of.get(&(worker.customer.clone(), worker.environment, callee.clone())) {
                Some(to) => insert(&mut worker.settings, "services", &binding, to.as_str().into()),
                None => insert(&mut worker.settings, "bindings", &binding, json!({"worker": callee})),
            }
        }
        for consumer in worker.settings.get_mut("tailConsumers").and_then(Value::as_array_mut).into_iter().flatten() {
            let to = consumer
                .as_str()
                .and_then(|callee| role_of.get(&(worker.customer.clone(), worker.environment, callee.to_owned())));
            if let Some(to) = to.filter(|to| Some(*to) != worker.role.as_ref()) {
                *consumer = json!({"role": to});
            }
        }
        for (name, value) in worker.settings.get_mut("vars").and_then(Value::as_object_mut).into_iter().flatten() {
            let to = value
                .as_str()
                .and_then(|text| address_of.get(&(worker.customer.clone(), worker.environment, text.to_owned())));
            if let Some(to) = to.filter(|to| Some(*to) != worker.role.as_ref()) {
                *value = json!({"workerUrl": to});
                links.insert((worker.customer.clone(), worker.role.clone(), name.clone()));
            }
        }
    }
    // The same variable in another environment, where nothing is behind the address.
    for worker in found.iter() {
        for (name, value) in worker.settings.get("vars").and_then(Value::as_object).into_iter().flatten() {
            let Some(url) = value.as_str().filter(|url| url.starts_with("https://")) else { continue };
            let linked = links.contains(&(worker.customer.clone(), worker.role.clone(), name.clone()));
            if linked && !all_addresses.contains(url) {
                let host = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
                let message = format!(
                    "`{name}` of `{}` points to `{host}`, which belongs to none of the imported workers",
                    worker.name
                );
                let help = format!(
                    "if it belongs to the worker with that role in {}, add `domains: [{host}]` to that worker",
                    worker.environment
                );
                findings.note(worker.place.clone(), message, help);
            }
        }
    }
}

/// Returns the address of a worker, as `workerUrl` gives it: its first domain, or its first route's host.
fn address(settings: &Settings) -> Option<String> {
    let domain = settings.get("domains").and_then(|domains| domains[0].as_str().map(str::to_owned));
    let routes = settings.get("routes").and_then(Value::as_array);
    let route = routes.into_iter().flatten().find_map(|route| {
        let host = route["pattern"].as_str()?.split('/').next()?;
        (!host.contains('*')).then(|| host.to_owned())
    });
    domain.or(route).map(|host| format!("https://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_model::diagnostic::Place;

    fn worker(role: &str, tails: &[&str], calls: &[&str]) -> FoundWorker {
        let settings = json!({"tailConsumers": tails}).as_object().cloned().unwrap_or_default();
        let call = |name: &&str| ("API".to_owned(), ((*name).to_owned(), Place::file("w")));
        FoundWorker {
            name: format!("acme-{role}"),
            place: Place::file("w"),
            what: role.to_owned(),
            customer: "acme".to_owned(),
            environment: Environment::Production,
            role: Some(role.to_owned()),
            account_id: None,
            settings,
            calls: calls.iter().map(call).collect(),
            lost: Vec::new(),
            implies_workers_dev: false,
            code: None,
        }
    }

    #[test]
    fn consumers_of_logs_are_roles_where_they_are_the_customers_own() {
        let mut found = [
            worker("api", &["acme-logs", "acme-api", "outside"], &[]),
            worker("logs", &["acme-web"], &[]),
            worker("web", &[], &["acme-logs"]),
        ];
        refer(&mut found, &mut Findings::default());
        assert_eq!(found[0].settings["tailConsumers"], json!([{"role": "logs"}, "acme-api", "outside"]));
        assert_eq!(found[1].settings["tailConsumers"], json!([{"role": "web"}]));
        assert_eq!(found[2].settings["services"], json!({"API": "logs"}));
    }
}
