//! Workers that refer to each other: by address, by service bindings, and as consumers of their logs. Knows those of one customer, and the shared ones.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::spec::Environment;
use flotilla_spec::project::{Fleet, unknown};

use super::{Batch, Resolved};

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
    /// The roles that may call it.
    pub(super) callers: Vec<String>,
    /// Whether it isn't known how it is reached, or in which environments it exists.
    pub(super) is_open: bool,
    /// Whether all of its domains and routes are known.
    pub(super) has_all_hosts: bool,
}

/// The setting by which a worker refers to another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReferenceKind {
    /// A variable has its address.
    Address,
    /// A service binding.
    Service,
    /// It gets the worker's logs.
    Tail,
}

/// A setting that refers to another worker.
pub(super) struct Reference {
    /// The index of the worker that refers, among the resolved ones.
    pub(super) from: usize,
    pub(super) key: String,
    /// The role of the worker that it refers to, or the name of a shared worker.
    pub(super) to: String,
    pub(super) kind: ReferenceKind,
    pub(super) place: Place,
}

/// The workers that a reference can point to: those that are resolved with it, and the shared ones.
struct PeerScope<'a> {
    own: &'a Peers,
    shared: Option<&'a Peers>,
    /// Whether it isn't known which workers there are.
    is_open: bool,
}

impl<'a> PeerScope<'a> {
    fn find(&self, key: &(String, Environment)) -> Option<&'a Peer> {
        self.own.0.get(key).or_else(|| self.shared?.0.get(key))
    }

    /// Returns the error of a reference to a worker that doesn't exist in the environment, unless it isn't known whether it does.
    fn missing(&self, reference: &Reference, environment: Environment) -> Option<Diagnostic> {
        let is_open = |peers: &Peers| peers.0.iter().any(|((name, _), peer)| *name == reference.to && peer.is_open);
        if self.is_open || is_open(self.own) || self.shared.is_some_and(is_open) {
            return None;
        }
        let (to, place) = (&reference.to, reference.place.clone());
        let all = || self.own.0.keys().chain(self.shared.into_iter().flat_map(|shared| shared.0.keys()));
        let elsewhere: Vec<&str> = all().filter(|(name, _)| name == to).map(|(_, other)| other.as_ref()).collect();
        if elsewhere.is_empty() {
            let known: BTreeSet<&str> = all().map(|(name, _)| name.as_str()).collect();
            return Some(unknown("worker", to, place, known.iter().copied()));
        }
        let message = format!("the worker `{to}` doesn't exist in {environment}, only in {}", elsewhere.join(", "));
        let help =
            format!("add `{environment}` to its `environments`, or set `{}` for each environment", reference.key);
        Some(Diagnostic::error(Code::NoAddress, place, message, help))
    }
}

/// Fills in addresses and worker names where workers refer to each other.
pub(super) fn link(batch: &mut Batch<'_>) {
    let Batch { fleet, shared, resolved, references, peers, is_open, .. } = batch;
    let is_open = *is_open || shared.is_some_and(|shared| shared.is_open);
    let known = PeerScope { own: peers, shared: shared.map(|shared| &shared.peers), is_open };
    for reference in references.iter() {
        let found = link_reference(fleet, &known, reference, resolved);
        resolved.diagnostics.extend(found);
    }
}

fn link_reference(
    fleet: &Fleet,
    known: &PeerScope<'_>,
    reference: &Reference,
    resolved: &mut Resolved,
) -> Option<Diagnostic> {
    let from = &mut resolved.workers[reference.from];
    let key = (reference.to.clone(), from.environment);
    let Some(peer) = known.find(&key) else { return known.missing(reference, from.environment) };
    if known.shared.is_none() || !known.own.0.contains_key(&key) {
        resolved.refers.insert((from.role.clone(), reference.to.clone()));
    }
    if reference.kind != ReferenceKind::Address {
        let is_own = resolved.accounts.iter().any(|own| own.name == from.account);
        if peer.is_open || !(is_own || fleet.accounts.listed().contains_key(&from.account)) {
            return None;
        }
        if peer.account != from.account || peer.namespace.is_some() {
            return Some(unreachable_service(reference, peer));
        }
        match reference.kind {
            ReferenceKind::Tail => {
                from.tail_consumers.get_or_insert_default().insert(peer.worker.clone());
            }
            _ => drop(from.services.insert(reference.key.clone(), peer.worker.clone())),
        }
        return None;
    }
    let Some(address) = &peer.address else {
        let environment = from.environment;
        return (!peer.is_open).then(|| no_address(fleet, resolved, reference, peer, environment));
    };
    from.vars.insert(reference.key.clone(), Value::String(address.clone()));
    from.peers.insert(reference.key.clone(), peer.worker.clone());
    None
}

/// Returns the error of a service binding that can't reach its worker.
fn unreachable_service(reference: &Reference, peer: &Peer) -> Diagnostic {
    let to = &reference.to;
    let what = if reference.kind == ReferenceKind::Tail { "a tail" } else { "a service binding" };
    let message = match &peer.namespace {
        Some(namespace) => {
            format!("`{to}` is in the dispatch namespace `{namespace}`, where {what} doesn't reach it")
        }
        None => format!("`{to}` is in the account `{}`; {what} stays within an account", peer.account),
    };
    let help = match reference.kind {
        ReferenceKind::Tail => {
            "a consumer of logs is a worker of the same account, outside of a dispatch namespace".to_owned()
        }
        _ => format!("call it by its address: `vars: {{ {}_URL: {{ {WORKER_URL}: {to} }} }}`", reference.key),
    };
    Diagnostic::error(Code::NoAddress, reference.place.clone(), message, help)
}

/// Returns the error of a reference to a worker without an address.
fn no_address(
    fleet: &Fleet,
    resolved: &Resolved,
    reference: &Reference,
    peer: &Peer,
    environment: Environment,
) -> Diagnostic {
    let message = format!(
        "the worker `{}` has no address in {environment}: no domain, no route, and no known workers.dev address",
        reference.to
    );
    let own = resolved.accounts.iter().find(|own| own.name == peer.account);
    let help = if own.is_some_and(|own| own.own.subdomain.is_none()) {
        "give it a domain, or set `subdomain` under `account`".to_owned()
    } else if fleet.accounts.listed().get(&peer.account).is_some_and(|account| account.subdomain.is_none()) {
        format!("give it a domain, or set `subdomain` of the account `{}` in fleet.yaml", peer.account)
    } else {
        "give it a domain".to_owned()
    };
    Diagnostic::error(Code::NoAddress, reference.place.clone(), message, help)
}
