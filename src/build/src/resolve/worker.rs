//! From the merged settings to one worker. Knows neither the customer's other workers nor other customers.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use flotilla_model::customer::{Dispatch, Hosts, SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::limits::PREVIEWED_NAME_LENGTH;
use flotilla_model::names;
use flotilla_model::preview::Preview;
use flotilla_model::spec::{
    Delivery, Domain, Environment, LogLevel, OWN_ORIGINS, Observability, PackFile, PackSetting, RequestLimits, Route,
    Settings, TailConsumer,
};
use flotilla_spec::layer::Merged;
use flotilla_spec::pack::{AssetSource, Objects, Type};
use flotilla_spec::project::unknown;
use flotilla_spec::yaml::{Document, Kind, Node};

use super::bindings::reserved;
use super::claim::{Claimant, ClaimedResource, UniqueClaim};
use super::left_out::LeftOut;
use super::peers::{Peer, Reference, ReferenceKind};
use super::previews::{self, Base};
use super::{Batch, assets};

/// The compatibility date of workers whose fleet sets none. Raising it redeploys them all.
const DEFAULT_COMPATIBILITY_DATE: &str = "2026-06-01";
/// The pattern of workers' names unless fleet.yaml sets another.
const DEFAULT_NAME: &str = "{pack-prefix}-{customer}";
/// The pattern of shared workers' names unless they set another.
const DEFAULT_SHARED_NAME: &str = "{fleet}-{role}";

/// The customer whose workers are resolved, or the shared worker.
pub(super) struct Subject<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) document: &'a Document,
    /// The place of its name: for values that no file sets.
    pub(super) place: Place,
}

/// The workers that the effective `workerName` is set for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NameScope {
    /// All workers of a customer.
    Customer,
    /// One of several workers, or a shared one.
    Role,
    /// One worker in one environment.
    Exact,
}

/// A worker that is to be resolved.
pub(super) struct Target<'a> {
    pub(super) subject: &'a Subject<'a>,
    pub(super) environment: Environment,
    /// Whether it exists there only because nothing says otherwise.
    pub(super) is_implied: bool,
    pub(super) role: Option<&'a str>,
    pub(super) name_scope: NameScope,
    pub(super) merged: Merged<'a>,
    /// The settings that it is derived from, if it is a worker of a preview.
    pub(super) base: Option<Base>,
    /// The settings that aren't known, as something of them was left out as faulty.
    pub(super) left_out: LeftOut,
    /// The lasting environments in which it exists, if they are known.
    pub(super) standing: Option<Vec<Environment>>,
}

/// Secrets by the name that the worker reads: the name in the sources, and the place.
pub(super) type Secrets = BTreeMap<String, (String, Place)>;

/// Resolves one worker.
pub(super) struct WorkerResolver<'a, 'r> {
    pub(super) batch: &'r mut Batch<'a>,
    pub(super) target: &'r Target<'r>,
    pub(super) settings: &'r Settings,
    /// The settings that aren't known.
    pub(super) left_out: LeftOut,
    /// The pack that the settings name.
    pack: Option<&'r str>,
    /// The pattern of the worker's name in the settings.
    name_pattern: Option<&'r str>,
}

/// The account of a worker, and the ways to reach it.
struct Reach {
    account: String,
    namespace: Option<String>,
    dispatch: Option<Dispatch>,
    hosts: Option<Hosts>,
    domains: Vec<Domain>,
    routes: Vec<Route>,
    workers_dev: bool,
    preview_urls: bool,
}

impl Batch<'_> {
    /// Resolves one worker.
    pub(super) fn resolve(&mut self, target: &Target<'_>) {
        let mut value = target.merged.to_value();
        for map in ["secrets", "services", "bindings", "queueConsumers"] {
            if let Some(entries) = value.get_mut(map).and_then(Value::as_object_mut) {
                entries.retain(|_, entry| !entry.is_null());
            }
        }
        let mut left_out = target.left_out.clone();
        let mut settings = match Settings::deserialize(&value) {
            Ok(settings) => settings,
            Err(_) => {
                // Each layer is valid by itself; the remaining error is a map that overrides something else.
                let entries = value.as_object_mut().into_iter().flat_map(std::mem::take);
                let (known, faulty): (Map<_, _>, Map<_, _>) =
                    entries.partition(|(key, value)| fault(key, value).is_none());
                for (key, error) in faulty.iter().filter_map(|(key, value)| Some((key, fault(key, value)?))) {
                    left_out.leave_out(key);
                    if target.left_out.has(key) {
                        continue;
                    }
                    let message = format!("its layers can't be merged: {error}");
                    let help = "see where each value comes from with `flotilla show`";
                    let place = target.subject.place.clone();
                    self.resolved.diagnostics.push(Diagnostic::error(Code::Conflict, place, message, help));
                }
                value = Value::Object(known);
                Settings::deserialize(&value).unwrap_or_default()
            }
        };
        if let Some(database) = &mut settings.database {
            let environment = match (&self.fleet.preview, &target.base) {
                (Some(preview), Some(base)) if base.says_database => preview.word(),
                (_, Some(base)) => base.environment.to_string(),
                (_, None) => target.environment.to_string(),
            };
            for text in [&mut database.name, &mut database.url].into_iter().flatten() {
                *text = filled(text, target.subject.id, &environment);
            }
        }
        if let (Some(preview), Some(base)) = (&self.fleet.preview, &target.base) {
            let moved = previews::adapt(self.fleet, preview, base, target.subject, target.role, &mut settings);
            self.resolved.moved.extend(moved);
        }
        let (pack, name_pattern) = (value["pack"].as_str(), value["workerName"].as_str());
        // Without code, nothing is bound and nothing is called.
        let packs = &self.fleet.packs;
        let of_worker = match pack {
            Some(name) => packs.get(name),
            None => packs.values().next().filter(|_| packs.len() == 1 && self.fleet.broken_packs.is_empty()),
        };
        let is_all_assets = of_worker.and_then(|pack| pack.assets.as_ref()).is_some_and(|assets| assets.is_all);
        let lacks_code = if is_all_assets { assets::without_code(&mut settings) } else { Vec::new() };
        WorkerResolver { batch: self, target, settings: &settings, left_out, pack, name_pattern }.resolve(&lacks_code);
    }
}

/// Returns the error of a setting that can't be read, if it can't.
fn fault(key: &str, value: &Value) -> Option<serde_json::Error> {
    Settings::deserialize(&Value::Object([(key.to_owned(), value.clone())].into_iter().collect())).err()
}

/// The pack that a worker is made from, as far as it is known.
pub(super) struct PackInUse<'a> {
    name: &'a str,
    prefix: Option<&'a str>,
    /// None, if not all of it is known.
    manifest: Option<&'a PackFile>,
    /// The Durable Objects of its code, if all of it is known.
    pub(super) objects: Option<&'a Objects>,
    /// Its static assets.
    pub(super) assets: Option<&'a AssetSource>,
    pub(super) types: Types<'a>,
}

impl PackInUse<'_> {
    /// Returns its name.
    pub(super) fn name(&self) -> &str {
        self.name
    }

    /// Returns whether all of it is known.
    pub(super) fn is_known(&self) -> bool {
        self.manifest.is_some()
    }
}

/// The destination types of a pack, as far as they are known.
#[derive(Clone, Copy)]
pub(super) enum Types<'a> {
    /// All of them.
    Known(&'a BTreeMap<String, Type>),
    /// Their names.
    Named(&'a BTreeMap<String, Option<Type>>),
    /// None.
    Unknown,
}

impl<'a> Types<'a> {
    /// Returns the type of a name, if it is there and can be used.
    pub(super) fn find(self, name: &str) -> Option<&'a Type> {
        match self {
            Types::Known(types) => types.get(name),
            Types::Named(types) => types.get(name)?.as_ref(),
            Types::Unknown => None,
        }
    }

    /// Returns the names of all types, if it is known that there is none of this name.
    pub(super) fn without(self, name: &str) -> Option<Vec<&'a str>> {
        match self {
            Types::Known(types) => Some(types.keys().map(String::as_str).collect()),
            Types::Named(types) => (!types.contains_key(name)).then(|| types.keys().map(String::as_str).collect()),
            Types::Unknown => None,
        }
    }
}

impl<'a> WorkerResolver<'a, '_> {
    fn resolve(mut self, lacks_code: &[&'static str]) {
        let pack = self.pack();
        if let Some(pack) = &pack {
            self.warn_of_missing_code(pack, lacks_code);
        }
        self.warn_of_unused_settings(pack.as_ref());
        let known_name = self.name(pack.as_ref());
        let reach = self.reach(known_name.as_deref());
        let name = known_name.clone().unwrap_or_default();
        let mut secrets = self.secrets();
        let mut vars = self.vars(&secrets);
        self.reserved(&secrets);
        let dispatches = reach.dispatch.is_some();
        if dispatches {
            self.of_dispatch(&vars, &secrets);
        }
        let database = self.database(&reach.account, &mut vars, &mut secrets);
        let destinations = self.destinations(pack.as_ref().map_or(Types::Unknown, |pack| pack.types), &mut secrets);
        self.sizes(&reach.account, &vars, secrets.len());
        self.foreign(&secrets);
        self.services(&vars, &secrets);
        self.tails();
        let objects = pack.as_ref().and_then(|pack| pack.objects);
        let mut bindings = self.bindings(&vars, &secrets, &database, dispatches, (&name, objects, &reach.account));
        self.workflows(&reach.account, reach.namespace.as_deref(), &name, &mut bindings);
        let queue_consumers = self.queue_consumers(&reach.account, reach.namespace.as_deref());
        let (migrations, exports) = self.classes(objects);
        let assets = self.assets(pack.as_ref(), &reach.account, &vars, &secrets, (&bindings, &database));
        let (target, settings) = (self.target, self.settings);
        let provenance = settings.trusted_origins.as_ref();
        let trusted_origins = self.checked(provenance, "trustedOrigins", Code::BadOrigin, |origin| match origin {
            OWN_ORIGINS => Ok(()),
            origin => names::origin(origin),
        });
        self.callee();
        let crons = self.crons(reach.namespace.as_deref());
        self.compatibility_date();
        if known_name.is_some() {
            self.claim_name(&name, &reach);
        }
        self.offer(known_name.as_deref(), &reach);
        // In a dispatch namespace as well, where they are hosts.
        let taken_over = settings.domains.iter().flatten().filter(|domain| domain.take_over());
        let worker = Worker {
            customer: target.subject.id.to_owned(),
            customer_name: target.subject.name.to_owned(),
            labels: target.subject.labels.clone(),
            file: target.subject.document.file.clone(),
            environment: target.environment,
            is_implied: target.is_implied,
            role: target.role.map(str::to_owned),
            name,
            pack: pack.map(|pack| pack.name.to_owned()).unwrap_or_default(),
            account_id: self.batch.account(&reach.account).and_then(|account| account.id.literal()),
            workers_dev: reach.workers_dev,
            preview_urls: reach.preview_urls,
            take_over: taken_over
                .map(|domain| match &reach.namespace {
                    Some(_) => names::same_host(domain.name()).into_owned(),
                    None => domain.name().to_owned(),
                })
                .collect(),
            domains: reach.domains.iter().map(|domain| domain.name().to_owned()).collect(),
            routes: reach.routes.into_iter().collect(),
            account: reach.account,
            namespace: reach.namespace,
            hosts: reach.hosts,
            dispatch: reach.dispatch,
            trusted_origins,
            log_level: settings.log_level.unwrap_or(LogLevel::Info),
            database,
            destinations,
            vars,
            secrets: secrets.into_iter().map(|(key, (name, _))| (key, name)).collect(),
            services: BTreeMap::new(),
            bindings,
            peers: BTreeMap::new(),
            migrations,
            exports,
            queue_consumers,
            crons: crons.into_iter().collect(),
            compatibility_date: settings
                .compatibility_date
                .clone()
                .unwrap_or_else(|| DEFAULT_COMPATIBILITY_DATE.to_owned()),
            compatibility_flags: settings.compatibility_flags.iter().flatten().cloned().collect(),
            observability: observability(settings),
            limits: settings.limits.clone().filter(|limits| *limits != RequestLimits::default()),
            placement: settings.placement.clone(),
            keep_vars: settings.keep_vars.unwrap_or(false),
            cache: settings.cache.clone(),
            logpush: settings.logpush,
            tail_consumers: settings.tail_consumers.as_ref().map(|consumers| {
                let name = |consumer: &TailConsumer| match consumer {
                    TailConsumer::Name(name) => Some(name.clone()),
                    TailConsumer::Role { .. } => None,
                };
                consumers.iter().filter_map(name).collect()
            }),
            assets,
            delivery: settings.delivery.unwrap_or(Delivery::Automatic),
        };
        self.batch.resolved.workers.push(worker);
    }

    /// Resolves the account and everything that makes the worker reachable.
    fn reach(&mut self, name: Option<&str>) -> Reach {
        let settings = self.settings;
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
        let workers_dev = apart && settings.workers_dev.unwrap_or(true);
        let preview_urls = self.preview_urls(name, namespace.as_deref());
        let reach = Reach { account, namespace, dispatch, hosts, domains, routes, workers_dev, preview_urls };
        if let Some(name) = name.filter(|_| !self.is_reach_open(&reach.account)) {
            self.warn_if_unreachable(name, &reach);
        }
        reach
    }

    /// Returns whether each version of the worker has an address.
    fn preview_urls(&mut self, name: Option<&str>, namespace: Option<&str>) -> bool {
        if self.settings.preview_urls != Some(true) {
            return false;
        }
        let place = self.place(&["previewUrls"]);
        if let Some(namespace) = namespace {
            let message = format!("workers of the dispatch namespace `{namespace}` have no preview URLs");
            self.push(Diagnostic::error(Code::NotInNamespace, place, message, "leave it out"));
            return false;
        }
        if let Some(name) = name.filter(|name| name.len() > PREVIEWED_NAME_LENGTH) {
            let message = format!(
                "`{name}` has {} characters, and a version's address has room for {}",
                name.len(),
                PREVIEWED_NAME_LENGTH
            );
            let help = "shorten the name, or leave `previewUrls` out: the address of a version is a label of at most 63 characters";
            self.push(Diagnostic::error(Code::BadWorkerName, place, message, help));
        }
        true
    }

    /// Returns whether it isn't known how the worker is reached.
    fn is_reach_open(&self, account: &str) -> bool {
        let keys = ["account", "domains", "routes", "workersDev"];
        keys.into_iter().any(|key| self.left_out.has(key)) || self.is_account_open(account)
    }

    /// Returns whether an account isn't known, or not all of it.
    pub(super) fn is_account_open(&self, account: &str) -> bool {
        let fleet = self.batch.fleet;
        // One of the shared workers may be the dispatch worker that is meant.
        let is_dispatch_open = || {
            let dispatch = self.batch.account(account).and_then(|account| account.dispatch.as_ref());
            let shared = fleet.document.root.get("sharedWorkers");
            dispatch.is_some_and(|dispatch| shared.is_none_or(|shared| shared.get(&dispatch.worker).is_none()))
        };
        self.batch.account(account).is_none()
            || fleet.has_left_out(&["accounts", account])
            || (self.target.subject.id == SHARED && is_dispatch_open())
    }

    /// Returns whether it isn't known if the worker is in a dispatch namespace, where its hosts are other things.
    pub(super) fn may_be_dispatched(&self, account: &str) -> bool {
        let fleet = self.batch.fleet;
        let has_namespace = || fleet.accounts.listed().values().any(|account| account.dispatch_namespace.is_some());
        self.is_account_open(account) && (has_namespace() || fleet.has_left_out(&["accounts"]))
    }

    /// Returns whether another worker of the same file calls it by a service binding.
    fn is_called(&self) -> bool {
        self.target.role.is_some_and(|role| calls(&self.target.subject.document.root, role))
    }

    fn warn_if_unreachable(&mut self, name: &str, reach: &Reach) {
        let is_hostless = match &reach.hosts {
            // What is wrong with those that are written is reported already.
            Some(hosts) => hosts.names.is_empty() && self.settings.routes.as_ref().is_none_or(Vec::is_empty),
            None => reach.namespace.is_none() && reach.domains.is_empty() && reach.routes.is_empty(),
        };
        let has_crons = self.settings.crons.as_ref().is_some_and(|crons| !crons.is_empty());
        if reach.workers_dev || !is_hostless || has_crons || self.is_called() {
            return;
        }
        let subject = self.target.subject;
        let place = match self.target.merged.place(&["workersDev"]) {
            Some(place) if place.file == subject.document.file => place,
            _ => subject.place.clone(),
        };
        let (message, help) = match &reach.hosts {
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

    fn secrets(&self) -> Secrets {
        let written = self.settings.secrets.iter().flatten();
        let named =
            written.map(|(key, value)| (key.clone(), (value.secret.clone(), self.key_place(&["secrets", key]))));
        named.collect()
    }

    /// Notes the service bindings that the layers define; they are linked later.
    fn services(&mut self, vars: &BTreeMap<String, Value>, secrets: &Secrets) {
        for (key, to) in self.settings.services.iter().flatten() {
            let place = self.place(&["services", key]);
            if vars.contains_key(key) || secrets.contains_key(key) || reserved(key).is_some() {
                let message = format!("`{key}` is a service binding, but is also used for something else");
                self.push(Diagnostic::error(Code::Conflict, place.clone(), message, "give one of them another name"));
            }
            let from = self.batch.resolved.workers.len();
            let reference = Reference { key: key.clone(), to: to.clone(), kind: ReferenceKind::Service, place, from };
            self.batch.references.push(reference);
        }
    }

    /// Notes the workers of the fleet that get the logs; they are linked later.
    fn tails(&mut self) {
        for (index, consumer) in self.settings.tail_consumers.iter().flatten().enumerate() {
            let TailConsumer::Role { role } = consumer else { continue };
            let index = index.to_string();
            let place = self.place(&["tailConsumers", &index, "role"]);
            if self.target.role == Some(role) {
                let message = "a worker can't get its own logs: each of its runs would be the reason of another one";
                self.push(Diagnostic::error(Code::Cycle, place, message, "name another worker"));
                continue;
            }
            let from = self.batch.resolved.workers.len();
            let (key, to) = ("tailConsumers".to_owned(), role.clone());
            self.batch.references.push(Reference { key, to, kind: ReferenceKind::Tail, place, from });
        }
    }

    fn crons(&mut self, namespace: Option<&str>) -> Vec<String> {
        let crons = self.checked(self.settings.crons.as_ref(), "crons", Code::BadCron, names::cron);
        for index in namespace.map_or(0..0, |_| 0..crons.len()) {
            let message =
                format!("workers of the dispatch namespace `{}` can't have crons", namespace.unwrap_or_default());
            let help = "give the cron to a worker outside the namespace, which calls them; or use an account without `dispatchNamespace`";
            let place = self.place(&["crons", &index.to_string()]);
            self.push(Diagnostic::error(Code::NotInNamespace, place, message, help));
        }
        crons
    }

    /// Rejects a compatibility date that no calendar has.
    fn compatibility_date(&mut self) {
        let Some(date) = &self.settings.compatibility_date else { return };
        let parts: Vec<u32> = date.split('-').filter_map(|part| part.parse().ok()).collect();
        let [year, month, day] = parts[..] else { return };
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if is_leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if day > days {
            let place = self.place(&["compatibilityDate"]);
            let message = format!("{date} doesn't exist: that month has {days} days");
            self.push(Diagnostic::error(Code::WrongForm, place, message, "write a date that exists"));
        }
    }

    /// Claims the worker's name, in its account or namespace.
    fn claim_name(&mut self, name: &str, reach: &Reach) {
        let fleet = self.batch.fleet;
        if reach.account.is_empty() || fleet.has_left_out(&["accounts", &reach.account]) {
            return;
        }
        let account = match &reach.namespace {
            Some(_) => {
                let home = self
                    .batch
                    .account_of_claims(&reach.account, |one, other| one.dispatch_namespace == other.dispatch_namespace);
                format!("{home}, in its namespace")
            }
            // Beside the namespaces, an account is one, whatever its entries say.
            None => self.batch.account_of_claims(&reach.account, |_, _| true),
        };
        let name = name.to_owned();
        self.claim(ClaimedResource::WorkerName { account, name }, self.target.subject.place.clone());
    }

    /// Makes the worker known to those that refer to it by its role.
    fn offer(&mut self, name: Option<&str>, reach: &Reach) {
        let Some(role) = self.target.role else { return };
        let is_open = name.is_none() || self.is_reach_open(&reach.account) || self.target.standing.is_none();
        let worker = name.unwrap_or_default().to_owned();
        let address = self.address(&worker, &reach.account, reach.workers_dev);
        let (account, namespace) = (reach.account.clone(), reach.namespace.clone());
        let left_out = &self.left_out;
        let has_all_hosts = self.target.standing.is_some()
            && !["account", "domains", "routes"].into_iter().any(|key| left_out.has(key));
        let callers = self.settings.callers.clone().unwrap_or_default();
        let peer = Peer { worker, account, namespace, address, callers, is_open, has_all_hosts };
        self.batch.peers.0.insert((role.to_owned(), self.target.environment), peer);
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.batch.resolved.diagnostics.push(diagnostic);
    }

    pub(super) fn error(&mut self, code: Code, place: Place, (message, help): names::Wrong) {
        self.push(Diagnostic::error(code, place, message, help));
    }

    /// Returns the place of a value, or that of the customer's name if no file sets it.
    pub(super) fn place(&self, path: &[&str]) -> Place {
        self.target.merged.place(path).unwrap_or_else(|| self.target.subject.place.clone())
    }

    pub(super) fn key_place(&self, path: &[&str]) -> Place {
        self.target.merged.key_place(path).unwrap_or_else(|| self.target.subject.place.clone())
    }

    pub(super) fn claim(&mut self, resource: ClaimedResource, place: Place) {
        // A source that isn't known may set something else, but a customer's own secrets are its own.
        if self.left_out.is_open() && !matches!(resource, ClaimedResource::Secrets(_)) {
            return;
        }
        let (customer, role) = (self.target.subject.id.to_owned(), self.target.role.map(str::to_owned));
        let claimant = Claimant { customer, environment: self.target.environment, role };
        self.batch.resolved.claims.push(UniqueClaim { resource, place, claimant });
    }

    fn pack(&mut self) -> Option<PackInUse<'a>> {
        let fleet = self.batch.fleet;
        let (packs, broken) = (&fleet.packs, &fleet.broken_packs);
        let mut names = packs.keys().chain(broken.keys());
        let name = self.pack.or_else(|| names.next().filter(|_| packs.len() + broken.len() == 1).map(String::as_str));
        let Some(name) = name.filter(|_| !self.left_out.has("pack")) else {
            if !self.left_out.has("pack") && !fleet.lacks("packs") {
                let place = self.target.subject.document.place_of([]);
                let known = packs.keys().chain(broken.keys()).next()?;
                let help = format!("add `pack: {known}`, here or to `defaults` of fleet.yaml");
                let message = "no pack is selected, and the fleet has more than one";
                self.push(Diagnostic::error(Code::MissingKey, place, message, help));
            }
            return None;
        };
        if let Some((name, pack)) = packs.get_key_value(name) {
            let (prefix, manifest) = (Some(pack.manifest.prefix.as_str()), Some(&pack.manifest));
            return Some(PackInUse {
                name,
                prefix,
                manifest,
                objects: Some(&pack.objects),
                assets: pack.assets.as_ref(),
                types: Types::Known(&pack.types),
            });
        }
        if let Some((name, pack)) = broken.get_key_value(name) {
            self.batch.resolved.broken_parts.insert(name.to_owned());
            let types = pack.types.as_ref().map_or(Types::Unknown, Types::Named);
            return Some(PackInUse {
                name,
                prefix: pack.prefix.as_deref(),
                manifest: None,
                objects: None,
                assets: None,
                types,
            });
        }
        if !fleet.lacks("packs") {
            let place = self.place(&["pack"]);
            self.push(unknown("pack", name, place, packs.keys().chain(broken.keys()).map(String::as_str)));
        }
        None
    }

    /// Warns of settings in the customer's own file that the pack ignores. Defaults and layers are for several packs.
    fn warn_of_unused_settings(&mut self, pack: Option<&PackInUse<'_>>) {
        let Some(PackInUse { name, manifest: Some(manifest), .. }) = pack else {
            return;
        };
        // The code gets the origins with the CORS settings, whatever its templates use.
        let is_variable = |setting| setting == PackSetting::TrustedOrigins && self.settings.cors.is_some();
        let unused = PackSetting::ALL.into_iter().filter(|setting| !manifest.uses(*setting) && !is_variable(*setting));
        for setting in unused {
            let key = setting.key();
            if let Some(place) =
                self.target.merged.key_place(&[key]).filter(|place| self.is_for_this_worker(place, key))
            {
                let message = format!("{key} has no effect: the pack `{name}` doesn't use it");
                let help = "leave it out, or pass the value to the code as a variable under `vars`";
                self.push(Diagnostic::warning(Code::NoEffect, place, message, help));
            }
        }
    }

    /// Returns whether a setting is meant for this worker alone, and for no other of the customer or the fleet.
    pub(super) fn is_for_this_worker(&self, place: &Place, key: &str) -> bool {
        let subject = self.target.subject;
        let Some(role) = self.target.role else {
            return self.is_own(place);
        };
        let list = if subject.id == SHARED { "sharedWorkers" } else { "workers" };
        let node = subject.document.root.get(list).and_then(|workers| workers.get(role));
        let span = node.and_then(|node| node.key_span(key));
        span.is_some_and(|span| subject.document.place(span) == *place)
    }

    /// Returns whether a place is in the customer's own file.
    fn is_own(&self, place: &Place) -> bool {
        place.file == self.target.subject.document.file
    }

    /// Returns the worker's name, if all that it is made of is known.
    fn name(&mut self, pack: Option<&PackInUse<'_>>) -> Option<String> {
        let (pattern, scope) = (self.name_pattern, self.target.name_scope);
        let shared = self.target.subject.id == SHARED;
        // A name in a customer's own file applies to no other customer.
        let own = self.target.merged.place(&["workerName"]).is_some_and(|place| self.is_own(&place));
        if let Some(pattern) = pattern
            && let Err(wrong) = names::pattern(pattern, !own && self.target.role.is_none())
        {
            self.error(Code::BadNamePattern, self.place(&["workerName"]), wrong);
            return None;
        }
        let fleet = self.batch.fleet;
        let default = if shared { DEFAULT_SHARED_NAME } else { DEFAULT_NAME };
        let of_fleet = fleet.file.worker_name.as_deref().filter(|_| !shared);
        let own = pattern.filter(|_| !shared || scope != NameScope::Customer);
        let pattern = own.or(of_fleet).unwrap_or(default);
        let prefix = pack.and_then(|pack| pack.prefix);
        if self.left_out.has("workerName")
            || (own.is_none() && !shared && fleet.lacks("workerName"))
            || (pattern.contains("{fleet}") && fleet.lacks("name"))
            || (pattern.contains("{pack-prefix}") && prefix.is_none())
        {
            return None;
        }
        let role = self.target.role.unwrap_or_default();
        let mut name = pattern
            .replace("{customer}", self.target.subject.id.trim_start_matches('_'))
            .replace("{role}", role)
            .replace("{pack-prefix}", prefix.unwrap_or_default())
            .replace("{fleet}", &self.batch.fleet.file.name)
            .replace("{environment}", &self.environment_in_names());
        if self.target.role.is_some() && scope == NameScope::Customer && !pattern.contains("{role}") {
            name = format!("{name}-{role}");
        }
        // An exact name applies to the permanent worker; a preview has a name of its own.
        let apart = match self.target.environment {
            Environment::Production => false,
            Environment::Preview => true,
            Environment::Development | Environment::Named(_) | Environment::Staging => scope != NameScope::Exact,
        };
        if apart && !pattern.contains("{environment}") {
            name = format!("{name}-{}", self.environment_in_names());
        }
        if let Err(wrong) = names::worker(&name) {
            self.error(Code::BadWorkerName, self.target.subject.place.clone(), wrong);
        }
        Some(name)
    }

    pub(super) fn environment_in_names(&self) -> String {
        self.batch.fleet.preview.as_ref().map_or_else(|| self.target.environment.to_string(), Preview::word)
    }

    /// Returns a list of texts, each of which is checked.
    fn checked(
        &mut self,
        items: Option<&Vec<String>>,
        key: &str,
        code: Code,
        check: fn(&str) -> Result<(), names::Wrong>,
    ) -> Vec<String> {
        for (index, item) in items.into_iter().flatten().enumerate() {
            if let Err(wrong) = check(item) {
                self.error(code, self.place(&[key, &index.to_string()]), wrong);
            }
        }
        items.cloned().unwrap_or_default()
    }
}

/// Returns the name or address of a database with the customer and the environment in it.
pub(super) fn filled(text: &str, customer: &str, environment: &str) -> String {
    text.replace("{customer}", customer.trim_start_matches('_')).replace("{environment}", environment)
}

fn observability(settings: &Settings) -> Observability {
    let written = settings.observability.clone().unwrap_or_default();
    Observability { enabled: Some(written.enabled.unwrap_or(true)), ..written }
}

/// Returns whether a node has a service binding to a role, or sends it logs, at any depth.
fn calls(node: &Node, role: &str) -> bool {
    let Kind::Map(entries) = &node.kind else { return false };
    let is_role = |node: &Node| matches!(&node.kind, Kind::Text(text) if text == role);
    entries.iter().any(|(key, _, node)| match &node.kind {
        Kind::Map(services) if key == "services" => services.iter().any(|(_, _, callee)| is_role(callee)),
        Kind::List(consumers) if key.trim_end_matches('+') == "tailConsumers" => {
            consumers.iter().filter_map(|consumer| consumer.get("role")).any(is_role)
        }
        _ => calls(node, role),
    })
}
