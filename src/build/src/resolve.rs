//! From a spec to workers: layers merged, names derived, each value checked that can be checked within one customer. Pure;
//! doesn't know the other customers.
//!
//! Layers, the weakest first: the defaults of fleet.yaml, the named layers, the spec. Each of them has, again the weakest
//! first: what holds always, what holds in the environment, what holds for the worker's role, and for that role in that
//! environment.

mod bindings;
mod claim;
mod dispatchers;
mod hosts;
mod peers;
mod previews;
mod sources;
mod worker;

use std::collections::{BTreeMap, BTreeSet};

pub use claim::{By, Claim, Thing};
pub use sources::{merged, merged_shared};

use dispatchers::dispatchers;
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::Diagnostic;
use flotilla_spec::layer;
use flotilla_spec::project::{Fleet, Spec, labels};
use flotilla_spec::yaml::Kind;
use peers::{Peers, refer};
use previews::Base;
use sources::{Sources, below, settings_only};
use worker::{Named, One, Who};

/// What became of a spec.
#[derive(Default)]
pub struct Resolved {
    /// Its workers, by environment and role.
    pub workers: Vec<Worker>,
    /// What they claim.
    pub claims: Vec<Claim>,
    /// The author's mistakes; with an error among them the workers are not to be used.
    pub diagnostics: Vec<Diagnostic>,
    /// Which of its workers, by role, refers to which shared one.
    pub refers: BTreeSet<(Option<String>, String)>,
    /// The hosts that are others in a preview, and what they are there.
    pub moved: BTreeMap<String, String>,
}

/// The workers that all customers share.
#[derive(Default)]
pub struct Shared {
    /// What became of them.
    pub resolved: Resolved,
    /// Whom others can refer to.
    peers: Peers,
    /// The hosts that reach the dispatch worker of an account, by the account's name; `*` at the beginning stands for any.
    reach: BTreeMap<String, BTreeSet<String>>,
}

/// Resolves one customer.
pub fn resolve(fleet: &Fleet, shared: &Shared, spec: &Spec) -> Resolved {
    let mut resolved = Resolved::default();
    let mut references = Vec::new();
    let mut peers = Peers::default();
    let sources = Sources::of(fleet, spec);
    let labels = labels(fleet, &spec.identity);
    let who = Who {
        id: &spec.identity.id,
        name: spec.identity.name.as_deref().unwrap_or(&spec.identity.id),
        labels: &labels,
        document: &spec.document,
        place: spec.document.place_of(["id"]),
    };
    for role in sources.roles() {
        for environment in sources.environments(role) {
            let merged = layer::merge(&sources.chain(environment, role), settings_only);
            let base = Base::of(&sources, environment, role);
            let of_role = role.is_some_and(|role| {
                sources
                    .roots
                    .iter()
                    .any(|(_, root)| below(root, "workers", role).is_some_and(|own| own.get("workerName").is_some()))
            });
            let named = match sources.named_exactly(environment, role) {
                true => Named::Exactly,
                false if of_role => Named::Role,
                false => Named::Customer,
            };
            let shared = Some(shared);
            One::resolve(
                fleet,
                shared,
                &who,
                environment,
                role,
                &merged,
                named,
                base,
                &mut resolved,
                &mut references,
                &mut peers,
            );
        }
    }
    refer(fleet, &peers, Some(&shared.peers), &references, &mut resolved);
    resolved.workers.sort_by(|a, b| (a.environment, &a.role).cmp(&(b.environment, &b.role)));
    resolved
}

/// Resolves the workers that all customers share.
pub fn shared(fleet: &Fleet) -> Shared {
    let mut resolved = Resolved::default();
    let mut references = Vec::new();
    let mut peers = Peers::default();
    let (document, labels) = (&fleet.document, BTreeMap::new());
    if let Some(Kind::Map(entries)) = document.root.get("sharedWorkers").map(|node| &node.kind) {
        for (role, span, node) in entries {
            let who = Who { id: SHARED, name: role, labels: &labels, document, place: document.place(*span) };
            let wanted = fleet.preview.as_ref().and_then(|preview| preview.shared.as_ref());
            if wanted.is_some_and(|wanted| !wanted.contains(role)) {
                continue;
            }
            let sources = Sources::shared(fleet, Some(node));
            for environment in sources.environments(None) {
                let merged = layer::merge(&sources.chain(environment, None), settings_only);
                let base = Base::of(&sources, environment, None);
                let named = match sources.named_exactly(environment, None) {
                    true => Named::Exactly,
                    false if node.get("workerName").is_some() => Named::Role,
                    false => Named::Customer,
                };
                let role = Some(role.as_str());
                One::resolve(
                    fleet,
                    None,
                    &who,
                    environment,
                    role,
                    &merged,
                    named,
                    base,
                    &mut resolved,
                    &mut references,
                    &mut peers,
                );
            }
        }
    }
    refer(fleet, &peers, None, &references, &mut resolved);
    resolved.workers.sort_by(|a, b| (a.environment, &a.role).cmp(&(b.environment, &b.role)));
    // The dispatch workers are no part of a preview: which hosts reach them is for the fleet to say.
    let reach = if fleet.preview.is_some() { BTreeMap::new() } else { dispatchers(fleet, &mut resolved) };
    Shared { resolved, peers, reach }
}
