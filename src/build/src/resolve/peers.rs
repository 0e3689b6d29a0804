//! Workers that refer to each other: by address, and by service bindings. Knows those of one customer, and the shared ones.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::spec::Environment;
use flotilla_spec::project::{Fleet, unknown};

use super::Resolved;

/// The key that makes a variable the address of another worker.
pub(super) const WORKER_URL: &str = "workerUrl";

/// Workers that others refer to, by name and environment.
#[derive(Default)]
pub(super) struct Peers(pub(super) BTreeMap<(String, Environment), Peer>);

pub(super) struct Peer {
    pub(super) worker: String,
    pub(super) account: String,
    pub(super) namespace: Option<String>,
    pub(super) address: Option<String>,
}

/// A variable or service binding that refers to another worker.
pub(super) struct Reference {
    /// Of which of the resolved workers.
    pub(super) from: usize,
    pub(super) key: String,
    /// The role, or the shared worker's name.
    pub(super) to: String,
    pub(super) is_service: bool,
    pub(super) place: Place,
}

/// Puts addresses and names where workers refer to each other.
pub(super) fn refer(
    fleet: &Fleet,
    own: &Peers,
    shared: Option<&Peers>,
    references: &[Reference],
    resolved: &mut Resolved,
) {
    for reference in references {
        let from = &resolved.workers[reference.from];
        let (environment, to) = (from.environment, &reference.to);
        let key = (to.clone(), environment);
        let place = reference.place.clone();
        let Some(peer) = own.0.get(&key).or_else(|| shared?.0.get(&key)) else {
            let all = || own.0.keys().chain(shared.into_iter().flat_map(|shared| shared.0.keys()));
            let elsewhere: Vec<&str> = all().filter(|(name, _)| name == to).map(|(_, other)| other.as_str()).collect();
            resolved.diagnostics.push(if elsewhere.is_empty() {
                let known: BTreeSet<&str> = all().map(|(name, _)| name.as_str()).collect();
                unknown("worker", to, place, known.iter().copied())
            } else {
                let message =
                    format!("the worker `{to}` doesn't exist in {environment}, only in {}", elsewhere.join(", "));
                let help = format!(
                    "add `{environment}` to its `environments`, or set `{}` for each environment",
                    reference.key
                );
                Diagnostic::error(Code::NoAddress, place, message, help)
            });
            continue;
        };
        if shared.is_none() || !own.0.contains_key(&key) {
            resolved.refers.insert((from.role.clone(), to.clone()));
        }
        if reference.is_service {
            if peer.account != from.account || peer.namespace.is_some() {
                let message = match &peer.namespace {
                    Some(namespace) => format!(
                        "`{to}` is in the dispatch namespace `{namespace}`, where no service binding reaches it"
                    ),
                    None => {
                        format!("`{to}` is in the account `{}`; service bindings stay within an account", peer.account)
                    }
                };
                let help =
                    format!("call it by its address: `vars: {{ {}_URL: {{ {WORKER_URL}: {to} }} }}`", reference.key);
                resolved.diagnostics.push(Diagnostic::error(Code::NoAddress, place, message, help));
                continue;
            }
            let name = peer.worker.clone();
            resolved.workers[reference.from].services.insert(reference.key.clone(), name);
            continue;
        }
        match &peer.address {
            Some(address) => {
                let value = Value::String(address.clone());
                let from = &mut resolved.workers[reference.from];
                from.vars.insert(reference.key.clone(), value);
                from.peers.insert(reference.key.clone(), peer.worker.clone());
            }
            None => {
                let message = format!(
                    "the worker `{to}` has no address in {environment}: no domain, no route, and no known workers.dev address"
                );
                let help = if fleet.accounts.get(&peer.account).is_some_and(|account| account.subdomain.is_none()) {
                    format!("give it a domain, or set `subdomain` of the account `{}` in fleet.yaml", peer.account)
                } else {
                    "give it a domain".to_owned()
                };
                resolved.diagnostics.push(Diagnostic::error(Code::NoAddress, place, message, help));
            }
        }
    }
    let mut calls: BTreeMap<(Environment, &str), Vec<(&str, &Place)>> = BTreeMap::new();
    for reference in references.iter().filter(|reference| reference.is_service) {
        let from = &resolved.workers[reference.from];
        if own.0.contains_key(&(reference.to.clone(), from.environment)) {
            calls
                .entry((from.environment, from.role.as_deref().unwrap_or_default()))
                .or_default()
                .push((&reference.to, &reference.place));
        }
    }
    resolved.diagnostics.extend(cycles(&calls));
}

/// Each circle of service bindings once, told where it closes.
fn cycles(calls: &BTreeMap<(Environment, &str), Vec<(&str, &Place)>>) -> Vec<Diagnostic> {
    fn walk<'a>(
        calls: &BTreeMap<(Environment, &'a str), Vec<(&'a str, &Place)>>,
        at: (Environment, &'a str),
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<(Environment, &'a str)>,
        found: &mut Vec<Diagnostic>,
    ) {
        if done.contains(&at) {
            return;
        }
        path.push(at.1);
        for (to, place) in calls.get(&at).into_iter().flatten() {
            if let Some(start) = path.iter().position(|role| role == to) {
                let circle = path[start..].iter().chain([to]).copied().collect::<Vec<_>>().join(" → ");
                let message = format!("service bindings go round in a circle in {}: {circle}", at.0);
                let help = "neither could be uploaded before the other: let one of them call by address, `{ workerUrl: … }` under `vars`";
                found.push(Diagnostic::error(Code::Cycle, (*place).clone(), message, help));
            } else {
                walk(calls, (at.0, to), path, done, found);
            }
        }
        path.pop();
        done.insert(at);
    }
    let (mut done, mut found) = (BTreeSet::new(), Vec::new());
    for at in calls.keys() {
        walk(calls, *at, &mut Vec::new(), &mut done, &mut found);
    }
    found
}
