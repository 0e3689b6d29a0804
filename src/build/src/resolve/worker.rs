//! From the merged settings to one worker. Knows neither the customer's other workers nor other customers.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::Value;

use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::names;
use flotilla_model::preview::Preview;
use flotilla_model::spec::{Delivery, Environment, LogLevel, Observability, RequestLimits, Settings};
use flotilla_spec::layer::Merged;
use flotilla_spec::pack::Pack;
use flotilla_spec::project::{Fleet, unknown};
use flotilla_spec::yaml::Document;

use super::bindings::reserved;
use super::claim::{By, Claim, Thing};
use super::peers::{Peer, Peers, Reference};
use super::previews::{self, Base};
use super::{Resolved, Shared};

/// The compatibility date of workers whose fleet sets none. Raising it redeploys them all.
const DEFAULT_COMPATIBILITY_DATE: &str = "2026-06-01";
/// How workers are named unless fleet.yaml says otherwise.
const DEFAULT_NAME: &str = "{pack-prefix}-{customer}";
/// How shared workers are named unless they say otherwise.
const DEFAULT_SHARED_NAME: &str = "{fleet}-{role}";

/// Whose workers are resolved.
pub(super) struct Who<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) document: &'a Document,
    /// Where it is named: for what stands nowhere.
    pub(super) place: Place,
}

/// For whom the `workerName` that counts is given, if one is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// For all workers of a customer.
    Customer,
    /// For one of several, or for a shared one.
    Role,
    /// For one worker in one environment.
    Exactly,
}

/// One worker on its way.
pub(super) struct One<'a, 'r> {
    pub(super) fleet: &'a Fleet,
    /// Unless it is one of them.
    pub(super) shared: Option<&'a Shared>,
    pub(super) who: &'a Who<'a>,
    pub(super) environment: Environment,
    pub(super) role: Option<&'a str>,
    pub(super) merged: &'a Merged<'a>,
    pub(super) settings: &'a Settings,
    /// What it is made from, if it is one of a preview.
    pub(super) base: Option<&'a Base>,
    pub(super) resolved: &'r mut Resolved,
}

impl<'a> One<'a, '_> {
    #[expect(clippy::too_many_arguments, reason = "two callers, just above")]
    pub(super) fn resolve(
        fleet: &Fleet,
        shared: Option<&Shared>,
        who: &Who<'_>,
        environment: Environment,
        role: Option<&str>,
        merged: &Merged<'_>,
        named: Named,
        base: Option<Base>,
        resolved: &mut Resolved,
        references: &mut Vec<Reference>,
        peers: &mut Peers,
    ) {
        let mut value = merged.to_value();
        for references in ["secrets", "services", "bindings"] {
            if let Some(entries) = value.get_mut(references).and_then(Value::as_object_mut) {
                entries.retain(|_, entry| !entry.is_null());
            }
        }
        let mut settings = match Settings::deserialize(&value) {
            Ok(settings) => settings,
            Err(error) => {
                // Each layer is valid by itself; what is left is a map over something else.
                let message = format!("its layers don't fit together: {error}");
                let help = "see where each value comes from with `flotilla show`";
                resolved.diagnostics.push(Diagnostic::error(Code::Conflict, who.place.clone(), message, help));
                return;
            }
        };
        if let (Some(preview), Some(base)) = (&fleet.preview, &base) {
            let moved = previews::adapt(fleet, preview, base, who, role, &mut settings);
            resolved.moved.extend(moved);
        }
        let pack = value["pack"].as_str();
        let pattern = value["workerName"].as_str();
        let one =
            One { fleet, shared, who, environment, role, merged, settings: &settings, base: base.as_ref(), resolved };
        one.worker(pack, pattern, named, references, peers);
    }

    pub(super) fn worker(
        mut self,
        pack: Option<&str>,
        pattern: Option<&str>,
        named: Named,
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
        let bindings = self.bindings(&vars, &secrets, &database, dispatch.is_some());
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
            bindings,
            peers: BTreeMap::new(),
            crons: crons.into_iter().collect(),
            compatibility_date: settings
                .compatibility_date
                .clone()
                .unwrap_or_else(|| DEFAULT_COMPATIBILITY_DATE.to_owned()),
            compatibility_flags: settings.compatibility_flags.iter().flatten().cloned().collect(),
            observability: match &settings.observability {
                None => Observability { enabled: Some(true), ..Observability::default() },
                Some(written) => Observability { enabled: Some(written.enabled.unwrap_or(true)), ..written.clone() },
            },
            limits: settings.limits.clone().filter(|limits| *limits != RequestLimits::default()),
            placement: settings.placement.clone(),
            logpush: settings.logpush,
            tail_consumers: settings.tail_consumers.as_ref().map(|names| names.iter().cloned().collect()),
            delivery: settings.delivery.unwrap_or(Delivery::Automatic),
        };
        self.resolved.workers.push(worker);
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.resolved.diagnostics.push(diagnostic);
    }

    pub(super) fn error(&mut self, code: Code, place: Place, (message, help): names::Wrong) {
        self.push(Diagnostic::error(code, place, message, help));
    }

    /// Where a value stands; where the customer is named, if it stands nowhere.
    pub(super) fn place(&self, path: &[&str]) -> Place {
        self.merged.place(path).unwrap_or_else(|| self.who.place.clone())
    }

    pub(super) fn key_place(&self, path: &[&str]) -> Place {
        self.merged.key_place(path).unwrap_or_else(|| self.who.place.clone())
    }

    pub(super) fn claim(&mut self, thing: Thing, place: Place) {
        let (customer, role) = (self.who.id.to_owned(), self.role.map(str::to_owned));
        let by = By { customer, environment: self.environment, role };
        self.resolved.claims.push(Claim { thing, place, by });
    }

    pub(super) fn pack(&mut self, written: Option<&str>) -> Option<(&'a str, &'a Pack)> {
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

    pub(super) fn name(&mut self, pack: &Pack, pattern: Option<&str>, named: Named) -> String {
        let shared = self.who.id == SHARED;
        // What stands in a customer's own file gives nobody else that name.
        let own = self.merged.place(&["workerName"]).is_some_and(|place| place.file == self.who.document.file);
        if let Some(pattern) = pattern
            && let Err(wrong) = names::pattern(pattern, !own && self.role.is_none())
        {
            self.error(Code::BadNamePattern, self.place(&["workerName"]), wrong);
        }
        let default = if shared { DEFAULT_SHARED_NAME } else { DEFAULT_NAME };
        let of_fleet = self.fleet.file.worker_name.as_deref().filter(|_| !shared);
        let pattern = pattern.filter(|_| !shared || named != Named::Customer).or(of_fleet).unwrap_or(default);
        let role = self.role.unwrap_or_default();
        let mut name = pattern
            .replace("{customer}", self.who.id.trim_start_matches('_'))
            .replace("{role}", role)
            .replace("{pack-prefix}", &pack.manifest.prefix)
            .replace("{fleet}", &self.fleet.file.name)
            .replace("{environment}", &self.environment_in_names());
        if self.role.is_some() && named == Named::Customer && !pattern.contains("{role}") {
            name = format!("{name}-{role}");
        }
        // What is exact is so for the worker that stands; beside it, a preview has a name of its own.
        let apart = match self.environment {
            Environment::Production => false,
            Environment::Preview => true,
            Environment::Development | Environment::Staging => named != Named::Exactly,
        };
        if apart && !pattern.contains("{environment}") {
            name = format!("{name}-{}", self.environment_in_names());
        }
        if let Err(wrong) = names::worker(&name) {
            self.error(Code::BadWorkerName, self.who.place.clone(), wrong);
        }
        name
    }

    fn environment_in_names(&self) -> String {
        self.fleet.preview.as_ref().map_or_else(|| self.environment.to_string(), Preview::word)
    }

    pub(super) fn account(&mut self) -> (String, Option<String>) {
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

    /// A list of texts that are checked one by one.
    pub(super) fn each(
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
}
