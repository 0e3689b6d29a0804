//! From a spec to workers: layers merged, names derived, each value checked that can be checked within one customer. Pure;
//! doesn't know the other customers.
//!
//! Layers, the weakest first: the defaults of fleet.yaml, the named layers, the spec. Each of them has, again the weakest
//! first: what holds always, what holds in the environment, what holds for the worker's role, and for that role in that
//! environment.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use serde::Deserialize as _;
use serde_json::Value;

use crate::customer::{
    D1_BINDING, DIGEST_VARIABLE, DISPATCHER_BINDING, Database, Destination, Dispatch, HOSTS_BINDING, Hosts, SHARED,
    TURSO_TOKEN, TURSO_URL, Worker,
};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::layer::{self, Merged};
use crate::limits::{Limit, grouped};
use crate::names;
use crate::pack::Pack;
use crate::project::{Fleet, Spec, labels, unknown};
use crate::spec::{DatabaseKind, Delivery, Domain, Environment, LogLevel, Observability, Settings};
use crate::yaml::{Document, Kind, Node};

/// The compatibility date of workers whose fleet sets none. Raising it redeploys them all.
const DEFAULT_COMPATIBILITY_DATE: &str = "2026-06-01";
/// How workers are named unless fleet.yaml says otherwise.
const DEFAULT_NAME: &str = "{pack-prefix}-{customer}";
/// How shared workers are named unless they say otherwise.
const DEFAULT_SHARED_NAME: &str = "{fleet}-{role}";
/// The key that makes a variable the address of another worker.
const WORKER_URL: &str = "workerUrl";
/// The keys of a layer that aren't settings of a worker.
const STRUCTURE: [&str; 6] = ["id", "name", "labels", "layers", "environments", "workers"];

/// Something that only one worker of the fleet, or only one customer, can have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// What.
    pub thing: Thing,
    /// Where it is claimed.
    pub place: Place,
    /// Who claims it.
    pub by: By,
}

/// A worker that claims something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct By {
    /// The customer.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// The role.
    pub role: Option<String>,
}

impl By {
    /// Which of its customer's workers: `staging`, or `web`, or `web (staging)`.
    pub fn own(&self) -> String {
        match (&self.role, self.environment) {
            (None, environment) => environment.to_string(),
            (Some(role), Environment::Production) => role.clone(),
            (Some(role), environment) => format!("{role} ({environment})"),
        }
    }
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let By { customer, environment, role } = self;
        match role {
            Some(role) if customer == SHARED => write!(f, "the shared worker {role} ({environment})"),
            Some(role) => write!(f, "{customer} ({role}, {environment})"),
            None => write!(f, "{customer} ({environment})"),
        }
    }
}

/// What can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thing {
    /// A custom domain, and with it its host.
    Domain(String),
    /// A host that the dispatch worker of a namespace leads to a worker.
    Entry(String),
    /// A route pattern.
    Route(String),
    /// A worker's name in an account.
    WorkerName {
        /// The account's name.
        account: String,
        /// The worker's name.
        name: String,
    },
    /// A database; a customer's workers may share one.
    Database(String),
    /// The name of a D1 database; a customer's workers may share one.
    DatabaseName {
        /// The account's name.
        account: String,
        /// The database's name.
        name: String,
    },
    /// The secrets that are a customer's own: each customer has those of its id.
    Secrets(String),
    /// The host of a route; a customer's workers may share one.
    Host(String),
}

impl Thing {
    /// Whether a customer's workers may share it.
    pub fn is_customers(&self) -> bool {
        matches!(self, Thing::Database(_) | Thing::DatabaseName { .. } | Thing::Secrets(_) | Thing::Host(_))
    }

    /// A digest of it: the same for things that exclude each other, as a custom domain and its host do.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Thing::Domain(host) | Thing::Entry(host) | Thing::Host(host) => ("host", host).hash(&mut hasher),
            other => other.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// What became of a spec.
#[derive(Default)]
pub struct Resolved {
    /// Its workers, by environment and role.
    pub workers: Vec<Worker>,
    /// What they claim.
    pub claims: Vec<Claim>,
    /// The author's mistakes; with an error among them the workers are not to be used.
    pub diagnostics: Vec<Diagnostic>,
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

/// Workers that others refer to, by name and environment.
#[derive(Default)]
struct Peers(BTreeMap<(String, Environment), Peer>);

struct Peer {
    worker: String,
    account: String,
    namespace: Option<String>,
    address: Option<String>,
}

/// A variable or service binding that refers to another worker.
struct Reference {
    /// Of which of the resolved workers.
    from: usize,
    key: String,
    /// The role, or the shared worker's name.
    to: String,
    is_service: bool,
    place: Place,
}

/// One customer's sources of settings, the weakest first: their documents, and where in them.
struct Sources<'a> {
    roots: Vec<(&'a Document, &'a Node)>,
    /// Env files, which hold in one environment; after how many of the roots they come.
    only: Vec<(usize, Environment, &'a Document)>,
}

impl<'a> Sources<'a> {
    fn of(fleet: &'a Fleet, spec: &'a Spec) -> Sources<'a> {
        let mut sources = Sources { roots: Vec::new(), only: Vec::new() };
        sources.roots.extend(fleet.document.root.get("defaults").map(|node| (&fleet.document, node)));
        for at in &spec.layers {
            sources.roots.extend(fleet.layers[*at].documents.iter().map(|document| (document, &document.root)));
            let own = spec.env_files.iter().filter(|file| file.layer == *at);
            let after = sources.roots.len();
            sources.only.extend(own.filter_map(|file| Some((after, file.environment, file.document.as_ref()?))));
        }
        sources.roots.push((&spec.document, &spec.document.root));
        sources
    }

    /// Everything that holds for a worker, the weakest first.
    fn chain(&self, environment: Environment, role: Option<&str>) -> Vec<(&'a Document, &'a Node)> {
        let mut chain = Vec::with_capacity(2 * self.roots.len() + 2);
        for (at, (document, root)) in self.roots.iter().enumerate() {
            let only = self.only.iter().filter(|(after, of, _)| *after == at && *of == environment);
            chain.extend(only.map(|(_, _, document)| (*document, &document.root)));
            let mut parts = vec![Some(*root)];
            parts.push(below(root, "environments", environment.as_str()));
            if let Some(own) = role.and_then(|role| below(root, "workers", role)) {
                parts.push(Some(own));
                parts.push(below(own, "environments", environment.as_str()));
            }
            chain.extend(parts.into_iter().flatten().map(|node| (*document, node)));
        }
        chain
    }

    /// The roles: `None` alone where there is one worker.
    fn roles(&self) -> Vec<Option<&'a str>> {
        let mut roles: Vec<Option<&'a str>> = Vec::new();
        for (_, root) in &self.roots {
            let Some(Kind::Map(entries)) = root.get("workers").map(|node| &node.kind) else { continue };
            for (role, _, node) in entries {
                // Null takes away what a weaker source has; where there is nothing to take away, it is a worker as it comes.
                let known = roles.contains(&Some(role));
                roles.retain(|other| *other != Some(role));
                if !known || !matches!(node.kind, Kind::Null) {
                    roles.push(Some(role));
                }
            }
        }
        if roles.is_empty() {
            return vec![None];
        }
        roles.sort_unstable();
        roles
    }

    /// The environments in which a worker exists: what the strongest source says, of the role before all.
    fn environments(&self, role: Option<&str>) -> Vec<Environment> {
        let own = role.into_iter().flat_map(|role| {
            self.roots.iter().rev().filter_map(move |(_, root)| below(root, "workers", role)?.get("environments"))
        });
        let all = self.roots.iter().rev().filter_map(|(_, root)| root.get("environments"));
        for node in own.chain(all) {
            if let Kind::Map(entries) = &node.kind
                && !entries.is_empty()
            {
                let named = |environment: &Environment| entries.iter().any(|(key, _, _)| key == environment.as_str());
                return Environment::ALL.into_iter().filter(named).collect();
            }
        }
        vec![Environment::Production]
    }
}

fn below<'a>(root: &'a Node, map: &str, key: &str) -> Option<&'a Node> {
    root.get(map)?.get(key)
}

fn settings_only(key: &str) -> bool {
    !STRUCTURE.contains(&key)
}

/// What holds for one worker of a customer, each value with its place.
pub fn merged<'a>(fleet: &'a Fleet, spec: &'a Spec, environment: Environment, role: Option<&str>) -> Merged<'a> {
    layer::merge(&Sources::of(fleet, spec).chain(environment, role), settings_only)
}

/// The same for a worker that all customers share.
pub fn merged_shared<'a>(fleet: &'a Fleet, environment: Environment, role: &str) -> Merged<'a> {
    let mut sources = Sources { roots: Vec::new(), only: Vec::new() };
    let root = &fleet.document.root;
    sources.roots.extend(root.get("defaults").map(|node| (&fleet.document, node)));
    sources.roots.extend(below(root, "sharedWorkers", role).map(|node| (&fleet.document, node)));
    layer::merge(&sources.chain(environment, None), settings_only)
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
            let named = role.is_some_and(|role| {
                sources
                    .roots
                    .iter()
                    .any(|(_, root)| below(root, "workers", role).is_some_and(|own| own.get("workerName").is_some()))
            });
            let shared = Some(shared);
            One::resolve(
                fleet,
                shared,
                &who,
                environment,
                role,
                &merged,
                named,
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
            let mut sources = Sources { roots: Vec::new(), only: Vec::new() };
            sources.roots.extend(document.root.get("defaults").map(|node| (document, node)));
            sources.roots.push((document, node));
            for environment in sources.environments(None) {
                let merged = layer::merge(&sources.chain(environment, None), settings_only);
                let (role, named) = (Some(role.as_str()), node.get("workerName").is_some());
                One::resolve(
                    fleet,
                    None,
                    &who,
                    environment,
                    role,
                    &merged,
                    named,
                    &mut resolved,
                    &mut references,
                    &mut peers,
                );
            }
        }
    }
    refer(fleet, &peers, None, &references, &mut resolved);
    resolved.workers.sort_by(|a, b| (a.environment, &a.role).cmp(&(b.environment, &b.role)));
    let reach = dispatchers(fleet, &mut resolved);
    Shared { resolved, peers, reach }
}

/// Checks what accounts say of their dispatch workers; gives the hosts that reach these.
fn dispatchers(fleet: &Fleet, resolved: &mut Resolved) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    let document = &fleet.document;
    for (name, account) in &fleet.accounts {
        let Some(dispatch) = &account.dispatch else { continue };
        let place = |key: &[&str]| document.place_of([&["accounts", name, "dispatch"], key].concat());
        let Some(namespace) = &account.dispatch_namespace else {
            let message = format!("the account `{name}` has a dispatch worker and no `dispatchNamespace`");
            let help = "add `dispatchNamespace: customers`, or take `dispatch` out";
            resolved.diagnostics.push(Diagnostic::error(Code::MissingKey, place(&[]), message, help));
            continue;
        };
        let alike = fleet.accounts.iter().find(|(_, other)| {
            other.id == account.id
                && other.hosts() == account.hosts()
                && other.dispatch_namespace.as_ref() < Some(namespace)
        });
        if let Some((other, _)) = alike {
            let message = format!("the accounts `{other}` and `{name}` have two namespaces and one list of hosts");
            let help = "give each a title of its own under `hosts`";
            resolved.diagnostics.push(Diagnostic::error(Code::Conflict, place(&["hosts"]), message, help));
        }
        let known: Vec<&str> = match document.root.get("sharedWorkers").map(|node| &node.kind) {
            Some(Kind::Map(entries)) => entries.iter().map(|(name, _, _)| name.as_str()).collect(),
            _ => Vec::new(),
        };
        if !known.contains(&dispatch.worker.as_str()) {
            let told = unknown("shared worker", &dispatch.worker, place(&["worker"]), known.iter().copied());
            resolved.diagnostics.push(told);
            continue;
        }
        let of_role: Vec<&Worker> =
            resolved.workers.iter().filter(|worker| worker.role.as_ref() == Some(&dispatch.worker)).collect();
        let here: Vec<&&Worker> = of_role.iter().filter(|worker| worker.account == *name).collect();
        if let (Some(elsewhere), true) = (of_role.first(), here.is_empty()) {
            let message = format!(
                "the dispatch worker `{}` of the account `{name}` is in the account `{}`",
                dispatch.worker, elsewhere.account
            );
            let help = format!("set `account: {name}` under `sharedWorkers` for `{}`", dispatch.worker);
            resolved.diagnostics.push(Diagnostic::error(Code::Conflict, place(&["worker"]), message, help));
            continue;
        }
        let hosts: BTreeSet<String> = here
            .iter()
            .flat_map(|worker| {
                let routes = worker.routes.iter().filter_map(|route| route.pattern.split('/').next());
                routes.chain(worker.domains.iter().map(String::as_str))
            })
            .map(|host| names::same_host(host).into_owned())
            .collect();
        if hosts.is_empty() && !here.is_empty() {
            let message =
                format!("no host reaches the dispatch worker `{}`: it has no route and no domain", dispatch.worker);
            let help = format!(
                "under `sharedWorkers` for `{}`, add `routes: [{{ pattern: \"*.example.com/*\", zone: example.com }}]`, with a \
                 proxied DNS record of that name",
                dispatch.worker
            );
            resolved.diagnostics.push(Diagnostic::warning(Code::Undispatched, place(&["worker"]), message, help));
        }
        all.insert(name.clone(), hosts);
    }
    all
}

/// Puts addresses and names where workers refer to each other.
fn refer(fleet: &Fleet, own: &Peers, shared: Option<&Peers>, references: &[Reference], resolved: &mut Resolved) {
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
                resolved.workers[reference.from].vars.insert(reference.key.clone(), value);
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

/// Whose workers are resolved.
struct Who<'a> {
    id: &'a str,
    name: &'a str,
    labels: &'a BTreeMap<String, String>,
    document: &'a Document,
    /// Where it is named: for what stands nowhere.
    place: Place,
}

/// One worker on its way.
struct One<'a, 'r> {
    fleet: &'a Fleet,
    /// Unless it is one of them.
    shared: Option<&'a Shared>,
    who: &'a Who<'a>,
    environment: Environment,
    role: Option<&'a str>,
    merged: &'a Merged<'a>,
    settings: &'a Settings,
    resolved: &'r mut Resolved,
}

impl<'a> One<'a, '_> {
    #[expect(clippy::too_many_arguments, reason = "two callers, just above")]
    fn resolve(
        fleet: &Fleet,
        shared: Option<&Shared>,
        who: &Who<'_>,
        environment: Environment,
        role: Option<&str>,
        merged: &Merged<'_>,
        named: bool,
        resolved: &mut Resolved,
        references: &mut Vec<Reference>,
        peers: &mut Peers,
    ) {
        let mut value = merged.to_value();
        for references in ["secrets", "services"] {
            if let Some(entries) = value.get_mut(references).and_then(Value::as_object_mut) {
                entries.retain(|_, entry| !entry.is_null());
            }
        }
        let settings = match Settings::deserialize(&value) {
            Ok(settings) => settings,
            Err(error) => {
                // Each layer is valid by itself; what is left is a map over something else.
                let message = format!("its layers don't fit together: {error}");
                let help = "see where each value comes from with `flotilla show`";
                resolved.diagnostics.push(Diagnostic::error(Code::Conflict, who.place.clone(), message, help));
                return;
            }
        };
        let pack = value["pack"].as_str();
        let pattern = value["workerName"].as_str();
        let one = One { fleet, shared, who, environment, role, merged, settings: &settings, resolved };
        one.worker(pack, pattern, named, references, peers);
    }

    fn worker(
        mut self,
        pack: Option<&str>,
        pattern: Option<&str>,
        named: bool,
        references: &mut Vec<Reference>,
        peers: &mut Peers,
    ) {
        let settings = self.settings;
        let Some((pack_name, pack)) = self.pack(pack) else { return };
        let name = self.name(pack, pattern, named);
        let (account, namespace) = self.account();
        let dispatch = self.dispatch(&account);
        let namespace = namespace.filter(|_| dispatch.is_none());
        let hosts = self.hosts(&account, namespace.as_deref());
        if let (Some(true), Some(namespace)) = (settings.workers_dev, &namespace) {
            let message = format!(
                "workersDev has no effect: workers of the dispatch namespace `{namespace}` have no workers.dev address"
            );
            let place = self.place(&["workersDev"]);
            self.push(Diagnostic::warning(Code::NoEffect, place, message, "leave it out"));
        }
        let apart = namespace.is_none();
        let domains = settings.domains.clone().filter(|_| apart).unwrap_or_default();
        let routes = settings.routes.clone().filter(|_| apart).unwrap_or_default();
        let workers_dev = namespace.is_none() && settings.workers_dev.unwrap_or(true);
        let hostless = match &hosts {
            // What is wrong with those that are written is told already.
            Some(hosts) => hosts.names.is_empty() && settings.routes.as_ref().is_none_or(Vec::is_empty),
            None => apart && domains.is_empty() && routes.is_empty(),
        };
        if !workers_dev && hostless {
            let place = match self.merged.place(&["workersDev"]) {
                Some(place) if place.file == self.who.document.file => place,
                _ => self.who.place.clone(),
            };
            let (message, help) = match &hosts {
                None => (
                    format!("nothing reaches `{name}`: no domain, no route, and workers.dev is off"),
                    "add `domains: [shop.example.com]`, or `workersDev: true`",
                ),
                Some(_) => (
                    format!("nothing reaches `{name}`: the dispatch worker has no host for it"),
                    "add `domains: [shop.example.com]`",
                ),
            };
            self.push(Diagnostic::warning(Code::Unreachable, place, message, help));
        }
        let mut secrets: BTreeMap<String, (String, Place)> = BTreeMap::new();
        for (key, value) in settings.secrets.iter().flatten() {
            secrets.insert(key.clone(), (value.secret.clone(), self.key_place(&["secrets", key])));
        }
        let mut vars = self.vars(&secrets, references);
        self.reserved(&secrets);
        if dispatch.is_some() {
            self.of_dispatch(&vars, &secrets);
        }
        let database = self.database(&account, &mut vars, &mut secrets);
        let destinations = self.destinations(pack, &mut secrets);
        self.sizes(&account, &vars, secrets.len());
        self.foreign(&secrets);
        for (key, to) in settings.services.iter().flatten() {
            let place = self.place(&["services", key]);
            let taken = vars.contains_key(key) || secrets.contains_key(key) || reserved(key).is_some();
            if taken {
                let message = format!("`{key}` is a service binding, and something else as well");
                self.push(Diagnostic::error(Code::Conflict, place.clone(), message, "give one of them another name"));
            }
            references.push(Reference {
                key: key.clone(),
                to: to.clone(),
                is_service: true,
                place,
                from: self.resolved.workers.len(),
            });
        }
        let trusted_origins =
            self.each(settings.trusted_origins.as_ref(), "trustedOrigins", Code::BadOrigin, names::origin);
        let crons = self.each(settings.crons.as_ref(), "crons", Code::BadCron, names::cron);
        if let Some(namespace) = &namespace {
            for at in 0..crons.len() {
                let what = format!("workers of the dispatch namespace `{namespace}` are not started by the clock");
                let help = "give the cron to a worker outside of the namespace, which calls them; or use an account without `dispatchNamespace`";
                self.push(Diagnostic::error(Code::NotInNamespace, self.place(&["crons", &at.to_string()]), what, help));
            }
        }
        let home = match &namespace {
            Some(_) => self.fleet.first_name(&account, |one, other| {
                (&one.id, &one.dispatch_namespace) == (&other.id, &other.dispatch_namespace)
            }),
            // Beside the namespaces, an account is one, whatever its entries say.
            None => self.fleet.first_name(&account, |one, other| one.id == other.id),
        };
        let home = if namespace.is_some() { format!("{home}, in its namespace") } else { home.to_owned() };
        self.claim(Thing::WorkerName { account: home, name: name.clone() }, self.who.place.clone());
        if let Some(role) = self.role {
            let address = self.address(&name, &account, workers_dev);
            let peer = Peer { worker: name.clone(), account: account.clone(), namespace: namespace.clone(), address };
            peers.0.insert((role.to_owned(), self.environment), peer);
        }
        let worker = Worker {
            customer: self.who.id.to_owned(),
            customer_name: self.who.name.to_owned(),
            labels: self.who.labels.clone(),
            file: self.who.document.file.clone(),
            environment: self.environment,
            role: self.role.map(str::to_owned),
            name,
            pack: pack_name.to_owned(),
            account,
            namespace,
            workers_dev,
            take_over: domains
                .iter()
                .filter(|domain| domain.take_over())
                .map(|domain| domain.name().to_owned())
                .collect(),
            domains: domains.iter().map(|domain| domain.name().to_owned()).collect(),
            routes: routes.into_iter().collect(),
            hosts,
            dispatch,
            trusted_origins,
            log_level: settings.log_level.unwrap_or(LogLevel::Info),
            database,
            destinations,
            vars,
            secrets: secrets.into_iter().map(|(key, (name, _))| (key, name)).collect(),
            services: BTreeMap::new(),
            crons: crons.into_iter().collect(),
            compatibility_date: settings
                .compatibility_date
                .clone()
                .unwrap_or_else(|| DEFAULT_COMPATIBILITY_DATE.to_owned()),
            compatibility_flags: settings.compatibility_flags.iter().flatten().cloned().collect(),
            observability: match &settings.observability {
                None => Observability { enabled: Some(true), sampling: None },
                Some(written) => Observability { enabled: Some(written.enabled.unwrap_or(true)), ..written.clone() },
            },
            delivery: settings.delivery.unwrap_or(Delivery::Automatic),
        };
        self.resolved.workers.push(worker);
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        self.resolved.diagnostics.push(diagnostic);
    }

    fn error(&mut self, code: Code, place: Place, (message, help): names::Wrong) {
        self.push(Diagnostic::error(code, place, message, help));
    }

    /// Where a value stands; where the customer is named, if it stands nowhere.
    fn place(&self, path: &[&str]) -> Place {
        self.merged.place(path).unwrap_or_else(|| self.who.place.clone())
    }

    fn key_place(&self, path: &[&str]) -> Place {
        self.merged.key_place(path).unwrap_or_else(|| self.who.place.clone())
    }

    fn claim(&mut self, thing: Thing, place: Place) {
        let (customer, role) = (self.who.id.to_owned(), self.role.map(str::to_owned));
        let by = By { customer, environment: self.environment, role };
        self.resolved.claims.push(Claim { thing, place, by });
    }

    fn pack(&mut self, written: Option<&str>) -> Option<(&'a str, &'a Pack)> {
        let packs = &self.fleet.packs;
        match written {
            None if packs.len() == 1 => packs.iter().next().map(|(name, pack)| (name.as_str(), pack)),
            None => {
                let place = self.who.document.place_of([]);
                let known = packs.keys().next()?;
                let help = format!("add `pack: {known}`, here or to `defaults` of fleet.yaml");
                let message = "it is open which pack the customer uses";
                self.push(Diagnostic::error(Code::MissingKey, place, message, help));
                None
            }
            Some(name) => {
                let found = packs.get_key_value(name).map(|(name, pack)| (name.as_str(), pack));
                if found.is_none() {
                    let place = self.place(&["pack"]);
                    self.push(unknown("pack", name, place, packs.keys().map(String::as_str)));
                }
                found
            }
        }
    }

    fn name(&mut self, pack: &Pack, pattern: Option<&str>, named: bool) -> String {
        let shared = self.who.id == SHARED;
        if let Some(pattern) = pattern
            && let Err(wrong) = names::pattern(pattern, !shared && self.role.is_none())
        {
            self.error(Code::BadNamePattern, self.place(&["workerName"]), wrong);
        }
        let default = if shared { DEFAULT_SHARED_NAME } else { DEFAULT_NAME };
        let of_fleet = self.fleet.file.worker_name.as_deref().filter(|_| !shared);
        let pattern = pattern.filter(|_| !shared || named).or(of_fleet).unwrap_or(default);
        let role = self.role.unwrap_or_default();
        let mut name = pattern
            .replace("{customer}", self.who.id.trim_start_matches('_'))
            .replace("{role}", role)
            .replace("{pack-prefix}", &pack.manifest.prefix)
            .replace("{fleet}", &self.fleet.file.name)
            .replace("{environment}", self.environment.as_str());
        if self.role.is_some() && !named && !pattern.contains("{role}") {
            name = format!("{name}-{role}");
        }
        if self.environment != Environment::Production && !pattern.contains("{environment}") {
            name = format!("{name}-{}", self.environment);
        }
        if let Err(wrong) = names::worker(&name) {
            self.error(Code::BadWorkerName, self.who.place.clone(), wrong);
        }
        name
    }

    fn account(&mut self) -> (String, Option<String>) {
        let accounts = &self.fleet.accounts;
        let (name, place) = match &self.settings.account {
            Some(name) => (name.clone(), self.place(&["account"])),
            None if accounts.len() == 1 || accounts.contains_key("default") => {
                let name = if accounts.contains_key("default") {
                    "default"
                } else {
                    &accounts.keys().next().expect("one account")[..]
                };
                (name.to_owned(), Place::file("fleet.yaml"))
            }
            None => {
                let help = "add `account:`, here or to `defaults` of fleet.yaml";
                let place = self.who.document.place_of([]);
                let message = "it is open which account the customer uses";
                self.push(Diagnostic::error(Code::MissingKey, place, message, help));
                return (String::new(), None);
            }
        };
        match accounts.get(&name) {
            Some(account) => (name, account.dispatch_namespace.clone()),
            None => {
                self.push(unknown("account", &name, place, accounts.keys().map(String::as_str)));
                (name, None)
            }
        }
    }

    /// What the worker passes requests on to, if it is the dispatch worker of its account.
    fn dispatch(&self, account: &str) -> Option<Dispatch> {
        let account = self.fleet.accounts.get(account)?;
        let named =
            self.who.id == SHARED && account.dispatch.as_ref().map(|dispatch| &dispatch.worker[..]) == self.role;
        let dispatch = || Some(Dispatch { namespace: account.dispatch_namespace.clone()?, hosts: account.hosts()? });
        named.then(dispatch).flatten()
    }

    /// Checks and claims domains and routes. In a dispatch namespace they are hosts that the dispatch worker looks up, if it
    /// has one.
    fn hosts(&mut self, account: &str, namespace: Option<&str>) -> Option<Hosts> {
        let settings = self.settings;
        let table = namespace.and_then(|_| self.fleet.accounts.get(account)?.hosts());
        let mut names = BTreeSet::new();
        for (at, domain) in settings.domains.iter().flatten().enumerate() {
            let at = at.to_string();
            let place = match domain {
                Domain::Name(_) => self.place(&["domains", &at]),
                Domain::Entry { .. } => self.place(&["domains", &at, "name"]),
            };
            let domain = domain.name();
            if let Err(wrong) = names::domain(domain) {
                self.error(Code::BadDomain, place.clone(), wrong);
            }
            let host = names::same_host(domain).into_owned();
            if table.is_some() {
                self.entry(account, &host, place);
                names.insert(host);
                continue;
            }
            if let Some(namespace) = namespace {
                self.error(Code::NotInNamespace, place.clone(), no_hosts("custom domains", account, namespace));
            }
            self.claim(Thing::Domain(host), place);
        }
        for (at, route) in settings.routes.iter().flatten().enumerate() {
            let at = at.to_string();
            let place = self.place(&["routes", &at, "pattern"]);
            if let Err(wrong) = names::zone(&route.zone) {
                self.error(Code::BadRoute, self.place(&["routes", &at, "zone"]), wrong);
            } else if let Err(wrong) = names::route(&route.pattern, &route.zone) {
                self.error(Code::BadRoute, place.clone(), wrong);
            }
            let host = names::same_host(route.pattern.split('/').next().unwrap_or_default()).into_owned();
            let path = route.pattern.find('/').map_or("", |at| &route.pattern[at..]);
            if let (Some(namespace), Some(_)) = (namespace, &table) {
                if path == "/*" && !host.starts_with('*') {
                    self.entry(account, &host, place);
                    names.insert(host);
                } else {
                    let message = format!(
                        "the dispatch worker of `{namespace}` looks up whole hosts, and `{}` is something else",
                        route.pattern
                    );
                    let help = "name each host under `domains`; what has to be told by its path needs an account without \
                                `dispatchNamespace`";
                    self.push(Diagnostic::error(Code::NotInNamespace, place, message, help));
                }
                continue;
            }
            if let Some(namespace) = namespace {
                self.error(Code::NotInNamespace, place.clone(), no_hosts("routes", account, namespace));
            }
            self.claim(Thing::Route(format!("{host}{path}")), place.clone());
            if !self.fleet.file.shared_hosts.contains(&host) {
                self.claim(Thing::Host(host), place);
            }
        }
        Some(Hosts { table: table?, names })
    }

    /// A host that the dispatch worker is to lead to this worker.
    fn entry(&mut self, account: &str, host: &str, place: Place) {
        let reach = self.shared.and_then(|shared| shared.reach.get(account));
        let takes = |pattern: &String| match pattern.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix),
            None => pattern == host,
        };
        if reach.is_some_and(|reach| !reach.is_empty() && !reach.iter().any(takes)) {
            let message = format!("no route and no domain of the dispatch worker takes in `{host}`");
            let zone = self.fleet.zone_of(host);
            let pattern = if host == zone { format!("{host}/*") } else { format!("*.{zone}/*") };
            let help = format!(
                "add `routes: [{{ pattern: \"{pattern}\", zone: {zone} }}]` or the host to it under `sharedWorkers`; a custom \
                 hostname of a zone of yours (Cloudflare for SaaS) needs neither"
            );
            self.push(Diagnostic::warning(Code::Undispatched, place.clone(), message, help));
        }
        self.claim(Thing::Entry(host.to_owned()), place);
    }

    /// Where a worker is reached from outside, as far as files tell.
    fn address(&self, name: &str, account: &str, workers_dev: bool) -> Option<String> {
        let domain = self.settings.domains.iter().flatten().next().map(|domain| domain.name().to_owned());
        let route = self.settings.routes.iter().flatten().find_map(|route| {
            let host = route.pattern.split('/').next()?;
            (!host.contains('*')).then(|| host.to_owned())
        });
        let subdomain = self.fleet.accounts.get(account).and_then(|account| account.subdomain.as_ref());
        let dev = subdomain.filter(|_| workers_dev).map(|subdomain| format!("{name}.{subdomain}.workers.dev"));
        domain.or(route).or(dev).map(|host| format!("https://{host}"))
    }

    /// A list of texts that are checked one by one.
    fn each(
        &mut self,
        items: Option<&Vec<String>>,
        key: &str,
        code: Code,
        check: fn(&str) -> Result<(), names::Wrong>,
    ) -> Vec<String> {
        for (at, item) in items.into_iter().flatten().enumerate() {
            if let Err(wrong) = check(item) {
                self.error(code, self.place(&[key, &at.to_string()]), wrong);
            }
        }
        items.cloned().unwrap_or_default()
    }

    /// The variables that stand in the layers; those that refer to other workers are noted, and filled in later.
    fn vars(
        &mut self,
        secrets: &BTreeMap<String, (String, Place)>,
        references: &mut Vec<Reference>,
    ) -> BTreeMap<String, Value> {
        let mut vars = BTreeMap::new();
        for (name, value) in self.settings.vars.iter().flatten() {
            if let Some(why) = reserved(name) {
                let place = self.key_place(&["vars", name]);
                self.push(Diagnostic::error(Code::ReservedName, place, format!("`{name}` can't be set here"), why));
            } else if let Some((_, secret)) = secrets.get(name) {
                let place = self.key_place(&["vars", name]);
                let message = format!("`{name}` is a variable and a secret");
                let told = Diagnostic::error(Code::Conflict, place, message, "keep one of the two");
                let secret = secret.clone();
                self.push(told.also(secret, "the secret"));
            }
            if let Some(to) = value.as_object().filter(|map| map.len() == 1).and_then(|map| map.get(WORKER_URL)) {
                let place = self.place(&["vars", name, WORKER_URL]);
                match to.as_str() {
                    Some(to) => references.push(Reference {
                        from: self.resolved.workers.len(),
                        key: name.clone(),
                        to: to.to_owned(),
                        is_service: false,
                        place,
                    }),
                    None => {
                        let message = format!("`{WORKER_URL}` of `{name}` must be the name of a worker");
                        self.push(Diagnostic::error(Code::WrongType, place, message, "write `{ workerUrl: auth }`"));
                    }
                }
            }
            vars.insert(name.clone(), value.clone());
        }
        vars
    }

    /// The bindings that a dispatch worker gets.
    fn of_dispatch(&mut self, vars: &BTreeMap<String, Value>, secrets: &BTreeMap<String, (String, Place)>) {
        for name in [DISPATCHER_BINDING, HOSTS_BINDING] {
            let services = self.settings.services.iter().flatten().any(|(key, _)| key == name);
            let keys =
                [("vars", vars.contains_key(name)), ("secrets", secrets.contains_key(name)), ("services", services)];
            for (map, _) in keys.into_iter().filter(|(_, taken)| *taken) {
                let message = format!("`{name}` can't be set here");
                let place = self.key_place(&[map, name]);
                let why = "it is how the dispatch worker reaches the namespace: see `dispatch` of the account";
                self.push(Diagnostic::error(Code::ReservedName, place, message, why));
            }
        }
    }

    fn reserved(&mut self, secrets: &BTreeMap<String, (String, Place)>) {
        for (name, (_, place)) in secrets {
            if let Some(why) = reserved(name) {
                let message = format!("`{name}` can't be set here");
                self.push(Diagnostic::error(Code::ReservedName, place.clone(), message, why));
            }
        }
    }

    fn database(
        &mut self,
        account: &str,
        vars: &mut BTreeMap<String, Value>,
        secrets: &mut BTreeMap<String, (String, Place)>,
    ) -> Database {
        let Some(database) = &self.settings.database else { return Database::None };
        let written = self.merged.get("database");
        let keys = written.as_ref().map(Merged::keys).unwrap_or_default();
        let Some(kind) = database.kind else {
            if !keys.is_empty() {
                let place = self.place(&["database"]);
                let help = "add `type: turso`, `type: d1` or `type: none`";
                self.push(Diagnostic::error(Code::MissingKey, place, "`database` has no `type`", help));
            }
            return Database::None;
        };
        let (word, wanted): (_, &[&str]) = match kind {
            DatabaseKind::Turso => ("turso", &["url", "token"]),
            DatabaseKind::D1 => ("d1", &["name", "id", "jurisdiction", "locationHint"]),
            DatabaseKind::None => ("none", &[]),
        };
        for key in keys.iter().filter(|key| **key != "type" && !wanted.contains(key)) {
            let place = self.key_place(&["database", key]);
            let kind = self.place(&["database", "type"]);
            let message = format!("`database.{key}` doesn't belong to the type {word}");
            let help = "turso takes `url` and `token`; d1 takes `name`, and `id`, `jurisdiction` and `locationHint` if need be; none takes nothing; \
                        `key: null` removes what a weaker layer sets";
            self.push(Diagnostic::error(Code::Conflict, place, message, help).also(kind, "the type"));
        }
        let optional = ["id", "jurisdiction", "locationHint"];
        for key in wanted.iter().filter(|key| !keys.contains(key) && !optional.contains(key)) {
            let place = self.place(&["database"]);
            let about = match *key {
                "url" => "the database's address, `libsql://…`",
                "token" => "the reference to its token, `{ secret: TURSO_AUTH_TOKEN }`",
                _ => "the database's name",
            };
            let message = format!("`database` of the type {word} has no `{key}`");
            self.push(Diagnostic::error(Code::MissingKey, place, message, format!("add `{key}`: {about}")));
        }
        match kind {
            DatabaseKind::None => Database::None,
            DatabaseKind::Turso => {
                let url = database.url.clone().unwrap_or_default();
                let place = self.place(&["database", "url"]);
                // Its protocol is no part of a database.
                let host = url.split_once("://").map_or(url.as_str(), |(_, host)| host).trim_end_matches('/');
                self.claim(Thing::Database(host.to_lowercase()), place);
                vars.insert(TURSO_URL.to_owned(), Value::String(url));
                let token = database.token.as_ref().map(|token| token.secret.clone()).unwrap_or_default();
                secrets.insert(TURSO_TOKEN.to_owned(), (token, self.place(&["database", "token"])));
                Database::Turso
            }
            DatabaseKind::D1 => {
                let name = database.name.clone().unwrap_or_default();
                // Under its name, the account has it for who gives no id, too.
                let account = self.fleet.first_name(account, |one, other| one.id == other.id).to_owned();
                let key = if database.id.is_some() { "id" } else { "name" };
                let place = self.place(&["database", key]);
                if let Some(id) = &database.id {
                    self.claim(Thing::Database(id.clone()), place.clone());
                }
                self.claim(Thing::DatabaseName { account, name: name.clone() }, place.clone());
                if database.jurisdiction.is_some() && database.location_hint.is_some() {
                    let place = self.place(&["database", "locationHint"]);
                    let message =
                        "locationHint has no effect beside `jurisdiction`, which says where the database lies";
                    self.push(Diagnostic::warning(Code::NoEffect, place, message, "leave it out"));
                }
                Database::D1 {
                    binding: D1_BINDING.to_owned(),
                    name,
                    id: database.id.clone(),
                    jurisdiction: database.jurisdiction,
                    location_hint: database.location_hint,
                }
            }
        }
    }

    /// What a worker can't have too much of.
    fn sizes(&mut self, account: &str, vars: &BTreeMap<String, Value>, secrets: usize) {
        let raise = |limit: Limit| self.fleet.raise(account, limit);
        // FLOTILLA_DIGEST is one of them.
        let count = (vars.len() + secrets + 1) as u64;
        let most = self.fleet.limit(account, Limit::Variables);
        if count > most {
            let message =
                format!("{count} variables and secrets, {DIGEST_VARIABLE} among them; a worker can have {most}");
            let help =
                format!("put several values into one variable: a variable can be a map; {}", raise(Limit::Variables));
            let place = [["vars"], ["secrets"]]
                .iter()
                .find_map(|path| self.merged.key_place(path))
                .unwrap_or_else(|| self.who.place.clone());
            self.push(Diagnostic::error(Code::TooManyVariables, place, message, help));
        }
        let most = self.fleet.limit(account, Limit::VariableBytes);
        for (name, value) in vars {
            let size = match value {
                Value::String(text) => text.len(),
                other => other.to_string().len(),
            } as u64;
            if size > most {
                let message = format!("the variable `{name}` has {} bytes; {} fit", grouped(size), grouped(most));
                let place = self.place(&["vars", name]);
                let help = format!("keep large values in KV or in the database; {}", raise(Limit::VariableBytes));
                self.push(Diagnostic::error(Code::VariableTooLarge, place, message, help));
            }
        }
        let zones: BTreeSet<&str> = self.settings.routes.iter().flatten().map(|route| route.zone.as_str()).collect();
        let most = self.fleet.limit(account, Limit::ZonesPerWorker);
        if zones.len() as u64 > most {
            let message =
                format!("routes of {} zones; a worker can have {}", grouped(zones.len() as u64), grouped(most));
            let help = format!("spread them over several workers; {}", raise(Limit::ZonesPerWorker));
            let place = self.merged.key_place(&["routes"]).unwrap_or_else(|| self.who.place.clone());
            self.push(Diagnostic::error(Code::TooManyZones, place, message, help));
        }
    }

    /// Claims the secrets of whom a secret's name names: `ACME__TOKEN` is acme's.
    fn foreign(&mut self, secrets: &BTreeMap<String, (String, Place)>) {
        if self.who.id != SHARED {
            self.claim(Thing::Secrets(names::own_secret(self.who.id, "")), self.who.place.clone());
            for (name, place) in secrets.values() {
                let tokens = self.fleet.accounts.iter().find(|(_, account)| account.token.secret == *name);
                let Some((account, _)) = tokens else { continue };
                let message =
                    format!("`{name}` is the API token of the account `{account}`: a customer's worker would have it");
                let help = "give the customer a token of its own, under another name";
                self.push(Diagnostic::error(Code::ForeignSecret, place.clone(), message, help));
            }
        }
        for (name, place) in secrets.values() {
            for (at, _) in name.match_indices("__") {
                let owner = &name[..at + 2];
                if owner != names::own_secret(self.who.id, "") {
                    self.claim(Thing::Secrets(owner.to_owned()), place.clone());
                }
            }
        }
    }

    fn destinations(&mut self, pack: &Pack, secrets: &mut BTreeMap<String, (String, Place)>) -> Vec<Destination> {
        let mut used: BTreeMap<&str, usize> = BTreeMap::new();
        let mut resolved = Vec::new();
        for (at, destination) in self.settings.destinations.iter().flatten().enumerate() {
            let at = at.to_string();
            if destination.environment.is_some() && destination.environments.is_some() {
                let place = self.place(&["destinations", &at, "environment"]);
                let message = "`environment` and `environments` both say where the destination exists";
                self.push(Diagnostic::error(Code::Conflict, place, message, "keep `environments`"));
            }
            let Some(kind) = pack.types.get(&destination.kind) else {
                let place = self.place(&["destinations", &at, "type"]);
                let known = pack.types.keys().map(String::as_str);
                self.push(unknown("destination type", &destination.kind, place, known));
                continue;
            };
            let settings = Value::Object(destination.settings.clone());
            let found = match self.merged.node(&["destinations", &at]) {
                Some((document, node)) => {
                    kind.check(document, node.get("settings").unwrap_or(node), &settings, &destination.kind)
                }
                None => Vec::new(),
            };
            let valid = found.is_empty();
            self.resolved.diagnostics.extend(found);
            let here = destination.environment.is_none_or(|environment| environment == self.environment)
                && destination.environments.as_ref().is_none_or(|all| all.contains(&self.environment));
            if !valid || !here || destination.enabled == Some(false) || destination.deleted == Some(true) {
                continue;
            }
            for setting in &kind.secrets {
                let Some(name) = destination.settings.get(setting).and_then(|value| value["secret"].as_str()) else {
                    continue;
                };
                let place = self.place(&["destinations", &at, "settings", setting]);
                match secrets.get(name) {
                    Some((other, _)) if other != name => {
                        let message = format!("`{name}` is looked up here as itself, but under `secrets` as `{other}`");
                        self.push(Diagnostic::error(Code::Conflict, place, message, "give one of them another name"));
                    }
                    Some(_) => {}
                    None => {
                        secrets.insert(name.to_owned(), (name.to_owned(), place));
                    }
                }
            }
            let number = used.entry(&destination.kind).or_insert(0);
            *number += 1;
            resolved.push(Destination {
                id: match *number {
                    1 => destination.kind.clone(),
                    n => format!("{}-{n}", destination.kind),
                },
                name: destination.name.clone(),
                kind: destination.kind.clone(),
                required_consent: destination.required_consent.clone().unwrap_or_else(|| kind.required_consent.clone()),
                settings: destination.settings.clone(),
            });
        }
        resolved
    }
}

/// Why a name can't be given to a variable or a secret.
fn reserved(name: &str) -> Option<&'static str> {
    match name {
        DIGEST_VARIABLE => Some("flotilla gives it to each worker itself"),
        TURSO_URL | TURSO_TOKEN | D1_BINDING => Some("it belongs to the database: see `database`"),
        _ => None,
    }
}

fn no_hosts(what: &str, account: &str, namespace: &str) -> names::Wrong {
    (
        format!("workers of the dispatch namespace `{namespace}` have no {what} of their own"),
        format!(
            "name the namespace's dispatch worker in fleet.yaml, `dispatch: {{ worker: … }}` of the account `{account}`: it leads \
             each host to its worker; or use an account without `dispatchNamespace`"
        ),
    )
}
