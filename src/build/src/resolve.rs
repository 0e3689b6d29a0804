//! From a spec to workers: layers merged, names derived, each value checked that can be checked within one customer. Pure;
//! doesn't know the other customers.
//!
//! Layers, the weakest first: the defaults of fleet.yaml, the named layers, the spec. Each of them has, again the weakest
//! first: what holds always, what holds in the environment, what holds for the worker's role, and for that role in that
//! environment.

mod account;
mod assets;
mod bindings;
mod callers;
mod claim;
mod database;
mod destinations;
mod dispatchers;
mod hosts;
mod left_out;
mod peers;
mod previews;
mod siblings;
mod sources;
mod worker;

use std::collections::{BTreeMap, BTreeSet};

pub use account::DefinedAccount;
pub use assets::NamedFolder;
pub use claim::{Claimant, ClaimedResource, UniqueClaim};
pub use sources::{merged, merged_shared};

use dispatchers::dispatchers;
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::spec::{Environment, OwnAccount};
use flotilla_spec::layer::{self, Merged};
use flotilla_spec::project::{Fleet, Spec, labels};
use flotilla_spec::yaml::Kind;
use peers::{Peers, Reference, link};
use previews::Base;
use sources::{Sources, below, settings_only};
use worker::{NameScope, Subject, Target};

/// The result of resolving a spec.
#[derive(Default)]
pub struct Resolved {
    /// Its workers, by environment and role.
    pub workers: Vec<Worker>,
    /// Workers that can't be built, as it isn't known which pack they are made from, or the pack can't be used.
    pub unusable: Vec<Worker>,
    /// The resources that its workers claim.
    pub claims: Vec<UniqueClaim>,
    /// The author's errors and warnings; with an error among them the workers must not be used.
    pub diagnostics: Vec<Diagnostic>,
    /// The shared workers that its workers refer to, each with the role of the worker that does.
    pub refers: BTreeSet<(Option<String>, String)>,
    /// The broken packs and layers that its workers need: without them, it isn't known what the workers are.
    pub broken_parts: BTreeSet<String>,
    /// The hosts that are replaced in a preview, and the hosts that replace them.
    pub moved: BTreeMap<String, String>,
    /// The accounts of its own that its workers use.
    pub accounts: Vec<DefinedAccount>,
    /// The folders with static assets of its own, of which the workers have the names alone.
    pub asset_folders: Vec<NamedFolder>,
    /// The files and folders that decide the lists of such assets.
    pub asset_inputs: Vec<crate::stamp::Input>,
}

/// The workers that all customers share.
#[derive(Default)]
pub struct Shared {
    /// The result of resolving them.
    pub resolved: Resolved,
    /// The workers that others can refer to.
    peers: Peers,
    /// Whether it isn't known which workers there are.
    is_open: bool,
    /// The hosts that reach the dispatch worker of an account, by the account's name; `*` at the beginning matches any.
    reach: BTreeMap<String, BTreeSet<String>>,
}

/// The workers that are resolved together: those of one customer, or the shared ones.
struct Batch<'a> {
    fleet: &'a Fleet,
    /// The shared workers; `None` while these are being resolved.
    shared: Option<&'a Shared>,
    resolved: Resolved,
    references: Vec<Reference>,
    /// The workers that others may call.
    callees: Vec<callers::Callee>,
    peers: Peers,
    /// Whether it isn't known which workers there are.
    is_open: bool,
    /// The account of the customer's own that has its id as its name.
    primary_account: Option<OwnAccount>,
    /// The databases that are set for an environment alone.
    own_databases: database::OwnDatabases,
    /// The databases of the workers.
    databases: Vec<database::InUse>,
}

impl<'a> Batch<'a> {
    fn new(fleet: &'a Fleet, shared: Option<&'a Shared>) -> Batch<'a> {
        Batch {
            fleet,
            shared,
            resolved: Resolved::default(),
            references: Vec::new(),
            callees: Vec::new(),
            peers: Peers::default(),
            is_open: false,
            primary_account: None,
            own_databases: BTreeSet::new(),
            databases: Vec::new(),
        }
    }

    /// Notes the databases that sources set for an environment alone: `role` is where they look, and `name` the worker's role.
    fn note_own_databases(
        &mut self,
        sources: &Sources<'_>,
        environment: Environment,
        role: Option<&str>,
        name: Option<&str>,
    ) {
        let name = || name.map(str::to_owned);
        if sources.sets_in(environment, role, "database").next().is_some() {
            self.own_databases.insert((environment, name(), None));
        }
        for bindings in sources.sets_in(environment, role, "bindings") {
            let Kind::Map(entries) = &bindings.kind else { continue };
            self.own_databases.extend(entries.iter().map(|(key, ..)| (environment, name(), Some(key.clone()))));
        }
    }

    /// Links workers that refer to each other, and sorts them.
    fn finish(mut self) -> (Resolved, Peers) {
        link(&mut self);
        callers::connect(&mut self);
        let shared = database::shared_by_environments(&self.databases, &self.own_databases);
        self.resolved.diagnostics.extend(shared);
        self.resolved.diagnostics.extend(siblings::siblings(&self.resolved.claims));
        let workers = std::mem::take(&mut self.resolved.workers);
        let packs = &self.fleet.packs;
        (self.resolved.workers, self.resolved.unusable) =
            workers.into_iter().partition(|worker| packs.contains_key(&worker.pack));
        self.resolved.workers.sort_by(|a, b| (a.environment, &a.role).cmp(&(b.environment, &b.role)));
        (self.resolved, self.peers)
    }
}

/// Resolves one customer.
pub fn resolve(fleet: &Fleet, shared: &Shared, spec: &Spec) -> Resolved {
    let mut batch = Batch::new(fleet, Some(shared));
    let layers = spec.layers.iter().map(|index| &fleet.layers[*index]);
    batch.resolved.broken_parts.extend(layers.filter(|layer| !layer.errors.is_empty()).map(|layer| layer.part()));
    let sources = Sources::of(fleet, spec);
    batch.is_open = sources.lacks_workers();
    batch.primary_account = account::primary(&sources);
    let labels = labels(fleet, &spec.identity);
    let subject = Subject {
        id: &spec.identity.id,
        name: spec.identity.name.as_deref().unwrap_or(&spec.identity.id),
        labels: &labels,
        document: &spec.document,
        place: spec.document.place_of(["id"]),
    };
    for role in sources.roles() {
        let has_own_name = role.is_some_and(|role| {
            let mut roots = sources.roots.iter();
            roots.any(|(_, root)| below(root, "workers", role).is_some_and(|own| own.get("workerName").is_some()))
        });
        let environments = sources.environments(role);
        if environments.is_empty() && !sources.lacks_environments(role) {
            batch.resolved.diagnostics.push(no_environment(&sources, role, &subject));
        }
        for environment in environments {
            let name_scope = name_scope(&sources, environment, role, has_own_name);
            let (merged, base) = settings(&sources, environment, role);
            let is_implied = sources.is_implied(environment, role);
            let left_out = sources.left_out(environment, role);
            let standing = (!sources.lacks_environments(role)).then(|| sources.standing(role));
            batch.note_own_databases(&sources, environment, role, role);
            let subject = &subject;
            let target =
                Target { subject, environment, is_implied, role, name_scope, merged, base, left_out, standing };
            batch.resolve(&target);
        }
    }
    batch.finish().0
}

/// Resolves the workers that all customers share.
pub fn shared(fleet: &Fleet) -> Shared {
    let mut batch = Batch::new(fleet, None);
    let (document, labels) = (&fleet.document, BTreeMap::new());
    let included = fleet.preview.as_ref().and_then(|preview| preview.shared.as_ref());
    if let Some(Kind::Map(entries)) = document.root.get("sharedWorkers").map(|node| &node.kind) {
        for (role, span, node) in entries.iter().filter(|(role, ..)| included.is_none_or(|all| all.contains(role))) {
            let subject = Subject { id: SHARED, name: role, labels: &labels, document, place: document.place(*span) };
            let sources = Sources::shared(fleet, Some(node));
            let has_own_name = node.get("workerName").is_some();
            let environments = sources.environments(None);
            if environments.is_empty() && !sources.lacks_environments(None) {
                batch.resolved.diagnostics.push(no_environment(&sources, None, &subject));
            }
            for environment in environments {
                let name_scope = name_scope(&sources, environment, None, has_own_name);
                let (merged, base) = settings(&sources, environment, None);
                batch.note_own_databases(&sources, environment, None, Some(role));
                let (is_implied, role) = (sources.is_implied(environment, None), Some(role.as_str()));
                let left_out = sources.left_out(environment, None);
                let standing = (!sources.lacks_environments(None)).then(|| sources.standing(None));
                let subject = &subject;
                let target =
                    Target { subject, environment, is_implied, role, name_scope, merged, base, left_out, standing };
                batch.resolve(&target);
            }
        }
    }
    let is_open = fleet.lacks("sharedWorkers");
    batch.is_open = is_open;
    let (mut resolved, peers) = batch.finish();
    // The dispatch workers are no part of a preview: which hosts reach them is for the fleet to say.
    let reach = if fleet.preview.is_some() { BTreeMap::new() } else { dispatchers(fleet, &peers, &mut resolved) };
    Shared { resolved, peers, is_open, reach }
}

/// Returns the merged settings of a worker, and those that it is derived from if it is one of a preview.
fn settings<'a>(sources: &Sources<'a>, environment: Environment, role: Option<&str>) -> (Merged<'a>, Option<Base>) {
    let merged = layer::merge(&sources.chain(environment, role), settings_only);
    (merged, Base::of(sources, environment, role))
}

/// Returns the error of a worker whose environments are all removed.
fn no_environment(sources: &Sources<'_>, role: Option<&str>, subject: &Subject<'_>) -> Diagnostic {
    let place = sources.place_of_environments(role).unwrap_or_else(|| subject.place.clone());
    let message = "no environment is left: `null` removes one, and production exists unless it is removed";
    let help = "an environment without settings of its own is a key without a value: `environments: { staging: }`";
    Diagnostic::error(Code::MissingKey, place, message, help)
}

/// Returns the place where the environments of a customer's workers of a role are written; for a shared worker, the role is its name.
pub fn place_of_environments(fleet: &Fleet, spec: Option<&Spec>, role: Option<&str>) -> Option<Place> {
    match spec {
        Some(spec) => Sources::of(fleet, spec).place_of_environments(role),
        None => Sources::shared(fleet, below(&fleet.document.root, "sharedWorkers", role?)).place_of_environments(None),
    }
}

/// Returns whether a customer's worker of a role exists in an environment only because a weaker source than the one that names its
/// environments defines it; for a shared worker, the role is its name.
pub fn is_inherited(fleet: &Fleet, spec: Option<&Spec>, role: Option<&str>, environment: Environment) -> bool {
    match spec {
        Some(spec) => Sources::of(fleet, spec).is_inherited(environment, role),
        None => role.is_some_and(|name| {
            Sources::shared(fleet, below(&fleet.document.root, "sharedWorkers", name)).is_inherited(environment, None)
        }),
    }
}

fn name_scope(sources: &Sources<'_>, environment: Environment, role: Option<&str>, has_own_name: bool) -> NameScope {
    match sources.named_exactly(environment, role) {
        true => NameScope::Exact,
        false if has_own_name => NameScope::Role,
        false => NameScope::Customer,
    }
}
