//! From a spec to workers: defaults applied, names derived, each value checked that can be checked within one
//! customer. Pure; doesn't know the other customers.
//!
//! Layers, the strongest first: the spec's environment, the spec, the defaults' environment, the defaults. `vars`,
//! `secrets` and `labels` are merged by key; everything else is taken whole from the strongest layer that has it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::customer::{D1_BINDING, DIGEST_VARIABLE, Database, Destination, TURSO_TOKEN, TURSO_URL, Worker};
use crate::diagnostic::{Code, Diagnostic, Place, did_you_mean};
use crate::limits;
use crate::names;
use crate::pack::Pack;
use crate::project::{Fleet, Spec};
use crate::spec::{self, DatabaseKind, Delivery, Environment, LogLevel, Observability, Settings};
use crate::yaml::Document;

/// The compatibility date of workers whose fleet sets none. Raising it redeploys them all.
const DEFAULT_COMPATIBILITY_DATE: &str = "2026-06-01";

/// Something that only one worker of the fleet can have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// What.
    pub thing: Thing,
    /// Where it is claimed.
    pub place: Place,
    /// The claiming customer and environment.
    pub by: (String, Environment),
}

/// What can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A custom domain.
    Domain(String),
    /// A route pattern.
    Route(String),
    /// A worker's name in an account.
    WorkerName {
        /// The account's name.
        account: String,
        /// The worker's name.
        name: String,
    },
}

/// What became of a spec.
#[derive(Default)]
pub struct Resolved {
    /// Its workers, one for each environment.
    pub workers: Vec<Worker>,
    /// What they claim.
    pub claims: Vec<Claim>,
    /// The author's mistakes; with an error among them the workers are not to be used.
    pub diagnostics: Vec<Diagnostic>,
}

/// One layer of settings and where it stands.
#[derive(Clone, Copy)]
struct Layer<'a> {
    document: &'a Document,
    path: [Option<&'a str>; 3],
    settings: &'a Settings,
}

impl<'a> Layer<'a> {
    fn place(&self, steps: &[&str]) -> Place {
        self.document.place_of(self.path.iter().flatten().copied().chain(steps.iter().copied()))
    }

    /// Where a key of the layer itself stands.
    fn key_of(&self, key: &str) -> Place {
        let node = self.document.root.along(self.path.iter().flatten().copied()).0;
        self.document.place(node.key_span(key).unwrap_or(node.span))
    }

    fn key_place(&self, map: &str, key: &str) -> Place {
        let steps = self.path.iter().flatten().copied().chain([map]);
        let node = self.document.root.along(steps).0;
        self.document.place(node.key_span(key).unwrap_or(node.span))
    }
}

/// The strongest layer that has a value.
fn pick<'a, T>(layers: &[Layer<'a>], get: impl Fn(&'a Settings) -> Option<&'a T>) -> Option<(&'a T, Layer<'a>)> {
    layers.iter().find_map(|layer| Some((get(layer.settings)?, *layer)))
}

/// Resolves one customer.
pub fn resolve(fleet: &Fleet, spec: &Spec) -> Resolved {
    let mut resolved = Resolved::default();
    let Some((pack_name, pack)) = pack_of(fleet, spec, &mut resolved.diagnostics) else {
        return resolved;
    };
    let environments: Vec<Environment> = match (&spec.assignment.environments, &fleet.assignment.environments) {
        (Some(own), _) if !own.is_empty() => own.keys().copied().collect(),
        (None, Some(defaults)) if !defaults.is_empty() => defaults.keys().copied().collect(),
        _ => vec![Environment::Production],
    };
    let none = Settings::default();
    for environment in environments {
        let of = |assignment: &'_ spec::Assignment| -> Option<Settings> {
            assignment.environments.as_ref()?.get(&environment)?.clone()
        };
        let (own, default) = (of(&spec.assignment), of(&fleet.assignment));
        let layers = [
            Layer {
                document: &spec.document,
                path: [Some("environments"), Some(environment.as_str()), None],
                settings: own.as_ref().unwrap_or(&none),
            },
            Layer { document: &spec.document, path: [None; 3], settings: &spec.settings },
            Layer {
                document: &fleet.document,
                path: [Some("defaults"), Some("environments"), Some(environment.as_str())],
                settings: default.as_ref().unwrap_or(&none),
            },
            Layer { document: &fleet.document, path: [Some("defaults"), None, None], settings: &fleet.settings },
        ];
        let one = One { fleet, spec, pack_name, pack, environment, layers: &layers, resolved: &mut resolved };
        one.worker();
    }
    resolved
}

fn pack_of<'a>(fleet: &'a Fleet, spec: &'a Spec, diagnostics: &mut Vec<Diagnostic>) -> Option<(&'a str, &'a Pack)> {
    let (name, place) = match (&spec.assignment.pack, &fleet.assignment.pack) {
        (Some(name), _) => (name, spec.document.place_of(["pack"])),
        (None, Some(name)) => (name, fleet.document.place_of(["defaults", "pack"])),
        (None, None) if fleet.packs.len() == 1 => {
            return fleet.packs.iter().next().map(|(name, pack)| (name.as_str(), pack));
        }
        (None, None) => {
            diagnostics.push(Diagnostic::error(
                Code::MissingKey,
                spec.document.place_of([]),
                "it is open which pack the customer uses",
                format!("add `pack: {}`, here or to `defaults` of fleet.yaml", fleet.packs.keys().next()?),
            ));
            return None;
        }
    };
    let pack = fleet.packs.get(name);
    if pack.is_none() {
        diagnostics.push(unknown("pack", name, place, fleet.packs.keys().map(String::as_str)));
    }
    pack.map(|pack| (name.as_str(), pack))
}

fn unknown<'a>(what: &str, name: &str, place: Place, known: impl Iterator<Item = &'a str> + Clone) -> Diagnostic {
    let help = match did_you_mean(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Diagnostic::error(Code::UnknownName, place, format!("there is no {what} `{name}`"), help)
}

/// One customer in one environment, on its way to a worker.
struct One<'a, 'r> {
    fleet: &'a Fleet,
    spec: &'a Spec,
    pack_name: &'a str,
    pack: &'a Pack,
    environment: Environment,
    layers: &'a [Layer<'a>],
    resolved: &'r mut Resolved,
}

impl<'a> One<'a, '_> {
    fn worker(mut self) {
        let id = &self.spec.identity.id;
        let name = self.name();
        let (account, namespace) = self.account();
        let workers_dev = pick(self.layers, |s| s.workers_dev.as_ref());
        let domains = self.domains(namespace.as_deref());
        let routes = self.routes(namespace.as_deref());
        if let (Some((true, layer)), Some(namespace)) = (workers_dev, &namespace) {
            let place = layer.place(&["workersDev"]);
            let message = format!(
                "workersDev has no effect: workers of the dispatch namespace `{namespace}` have no workers.dev address"
            );
            self.push(Diagnostic::warning(Code::NoEffect, place, message, "leave it out"));
        }
        let workers_dev = namespace.is_none() && workers_dev.is_none_or(|(on, _)| *on);
        if !workers_dev && domains.is_empty() && routes.is_empty() && namespace.is_none() {
            let place = match pick(self.layers, |s| s.workers_dev.as_ref()) {
                Some((_, layer)) if layer.document.file == self.spec.document.file => layer.place(&["workersDev"]),
                _ => self.spec.document.place_of(["id"]),
            };
            let message = format!("nothing reaches `{name}`: no domain, no route, and workers.dev is off");
            let help = "add `domains: [shop.example.com]`, or `workersDev: true`";
            self.push(Diagnostic::warning(Code::Unreachable, place, message, help));
        }
        let mut vars = self.merged(|s| s.vars.as_ref());
        let mut secrets: BTreeMap<&'a str, (String, Place)> = self
            .merged(|s| s.secrets.as_ref())
            .into_iter()
            .map(|(key, (value, layer))| (key, (value.secret.clone(), layer.key_place("secrets", key))))
            .collect();
        self.reserved(&vars, &secrets);
        let turso_url;
        let database = match pick(self.layers, |s| s.database.as_ref()) {
            None => Database::None,
            Some((database, layer)) => match database.kind {
                DatabaseKind::None => Database::None,
                DatabaseKind::Turso => {
                    turso_url = Value::String(database.url.clone().unwrap_or_default());
                    vars.insert(TURSO_URL, (&turso_url, layer));
                    let token = database.token.as_ref().map(|token| token.secret.clone()).unwrap_or_default();
                    secrets.insert(TURSO_TOKEN, (token, layer.place(&["database", "token"])));
                    Database::Turso
                }
                DatabaseKind::D1 => Database::D1 {
                    binding: D1_BINDING.to_owned(),
                    name: database.name.clone().unwrap_or_default(),
                    id: database.id.clone().unwrap_or_default(),
                },
            },
        };
        let destinations = self.destinations(&mut secrets);
        self.sizes(&vars, secrets.len());
        let trusted_origins =
            self.each(|s| s.trusted_origins.as_ref(), "trustedOrigins", Code::BadOrigin, names::origin);
        let crons = self.each(|s| s.crons.as_ref(), "crons", Code::BadCron, names::cron);
        let by = (id.clone(), self.environment);
        self.resolved.claims.push(Claim {
            thing: Thing::WorkerName { account: account.clone(), name: name.clone() },
            place: self.spec.document.place_of(["id"]),
            by,
        });
        let mut labels = self.fleet.assignment.labels.clone().unwrap_or_default();
        labels.extend(self.spec.assignment.labels.clone().unwrap_or_default());
        let own = |value: Option<&String>| value.cloned();
        let worker = Worker {
            customer: id.clone(),
            customer_name: own(self.spec.identity.name.as_ref()).unwrap_or_else(|| id.clone()),
            labels,
            file: self.spec.document.file.clone(),
            environment: self.environment,
            name,
            pack: self.pack_name.to_owned(),
            account,
            namespace,
            workers_dev,
            domains,
            routes,
            trusted_origins,
            log_level: pick(self.layers, |s| s.log_level.as_ref()).map_or(LogLevel::Info, |(level, _)| *level),
            database,
            destinations,
            vars: vars.into_iter().map(|(key, (value, _))| (key.to_owned(), value.clone())).collect(),
            secrets: secrets.into_iter().map(|(key, (name, _))| (key.to_owned(), name)).collect(),
            crons: crons.into_iter().collect(),
            compatibility_date: own(pick(self.layers, |s| s.compatibility_date.as_ref()).map(|(date, _)| date))
                .unwrap_or_else(|| DEFAULT_COMPATIBILITY_DATE.to_owned()),
            compatibility_flags: pick(self.layers, |s| s.compatibility_flags.as_ref())
                .map(|(flags, _)| flags.iter().cloned().collect())
                .unwrap_or_default(),
            observability: pick(self.layers, |s| s.observability.as_ref())
                .map_or(Observability { enabled: true, sampling: None }, |(observability, _)| observability.clone()),
            delivery: pick(self.layers, |s| s.delivery.as_ref()).map_or(Delivery::Automatic, |(delivery, _)| *delivery),
        };
        self.resolved.workers.push(worker);
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        self.resolved.diagnostics.push(diagnostic);
    }

    fn error(&mut self, code: Code, place: Place, (message, help): names::Wrong) {
        self.push(Diagnostic::error(code, place, message, help));
    }

    fn name(&mut self) -> String {
        let pattern = self.fleet.file.worker_name.as_deref().unwrap_or("{pack-prefix}-{customer}");
        let mut name = pattern
            .replace("{customer}", &self.spec.identity.id)
            .replace("{pack-prefix}", &self.pack.manifest.prefix)
            .replace("{environment}", self.environment.as_str());
        if self.environment != Environment::Production && !pattern.contains("{environment}") {
            name = format!("{name}-{}", self.environment);
        }
        if let Err(wrong) = names::worker(&name) {
            self.error(Code::BadWorkerName, self.spec.document.place_of(["id"]), wrong);
        }
        name
    }

    fn account(&mut self) -> (String, Option<String>) {
        let accounts = &self.fleet.accounts;
        let (name, place) = match pick(self.layers, |s| s.account.as_ref()) {
            Some((name, layer)) => (name.clone(), layer.place(&["account"])),
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
                let place = self.spec.document.place_of([]);
                self.push(Diagnostic::error(
                    Code::MissingKey,
                    place,
                    "it is open which account the customer uses",
                    help,
                ));
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

    fn domains(&mut self, namespace: Option<&str>) -> BTreeSet<String> {
        let Some((domains, layer)) = pick(self.layers, |s| s.domains.as_ref()) else {
            return BTreeSet::new();
        };
        for (at, domain) in domains.iter().enumerate() {
            let place = layer.place(&["domains", &at.to_string()]);
            if let Err(wrong) = names::domain(domain) {
                self.error(Code::BadDomain, place.clone(), wrong);
            }
            if let Some(namespace) = namespace {
                self.error(Code::NotInNamespace, place.clone(), no_hosts("custom domains", namespace));
            }
            let by = (self.spec.identity.id.clone(), self.environment);
            self.resolved.claims.push(Claim { thing: Thing::Domain(domain.clone()), place, by });
        }
        domains.iter().cloned().collect()
    }

    fn routes(&mut self, namespace: Option<&str>) -> BTreeSet<spec::Route> {
        let Some((routes, layer)) = pick(self.layers, |s| s.routes.as_ref()) else {
            return BTreeSet::new();
        };
        for (at, route) in routes.iter().enumerate() {
            let place = layer.place(&["routes", &at.to_string(), "pattern"]);
            if let Err(wrong) = names::zone(&route.zone) {
                self.error(Code::BadRoute, layer.place(&["routes", &at.to_string(), "zone"]), wrong);
            } else if let Err(wrong) = names::route(&route.pattern, &route.zone) {
                self.error(Code::BadRoute, place.clone(), wrong);
            }
            if let Some(namespace) = namespace {
                self.error(Code::NotInNamespace, place.clone(), no_hosts("routes", namespace));
            }
            let by = (self.spec.identity.id.clone(), self.environment);
            self.resolved.claims.push(Claim { thing: Thing::Route(route.pattern.clone()), place, by });
        }
        routes.iter().cloned().collect()
    }

    /// A list of texts that are checked one by one.
    fn each(
        &mut self,
        get: impl Fn(&'a Settings) -> Option<&'a Vec<String>>,
        key: &str,
        code: Code,
        check: fn(&str) -> Result<(), names::Wrong>,
    ) -> Vec<String> {
        let Some((items, layer)) = pick(self.layers, get) else {
            return Vec::new();
        };
        for (at, item) in items.iter().enumerate() {
            if let Err(wrong) = check(item) {
                self.error(code, layer.place(&[key, &at.to_string()]), wrong);
            }
        }
        items.clone()
    }

    /// A map whose keys come from all layers; the strongest layer wins for each key.
    fn merged<T>(
        &self,
        get: impl Fn(&'a Settings) -> Option<&'a BTreeMap<String, T>>,
    ) -> BTreeMap<&'a str, (&'a T, Layer<'a>)> {
        let mut merged = BTreeMap::new();
        for layer in self.layers.iter().rev() {
            for (key, value) in get(layer.settings).into_iter().flatten() {
                merged.insert(key.as_str(), (value, *layer));
            }
        }
        merged
    }

    fn reserved(&mut self, vars: &BTreeMap<&str, (&Value, Layer<'_>)>, secrets: &BTreeMap<&str, (String, Place)>) {
        let taken = |name: &str| match name {
            DIGEST_VARIABLE => Some("flotilla gives it to each worker itself"),
            TURSO_URL | TURSO_TOKEN | D1_BINDING => Some("it belongs to the database: see `database`"),
            _ => None,
        };
        let mut found = Vec::new();
        for (name, (_, layer)) in vars {
            let place = layer.key_place("vars", name);
            if let Some(why) = taken(name) {
                found.push(Diagnostic::error(Code::ReservedName, place, format!("`{name}` can't be set here"), why));
            } else if secrets.contains_key(name) {
                let message = format!("`{name}` is a variable and a secret");
                found.push(Diagnostic::error(Code::Conflict, place, message, "keep one of the two"));
            }
        }
        for (name, (_, place)) in secrets {
            if let Some(why) = taken(name) {
                let message = format!("`{name}` can't be set here");
                found.push(Diagnostic::error(Code::ReservedName, place.clone(), message, why));
            }
        }
        self.resolved.diagnostics.extend(found);
    }

    fn sizes(&mut self, vars: &BTreeMap<&str, (&Value, Layer<'_>)>, secrets: usize) {
        // FLOTILLA_DIGEST is one of them.
        let count = vars.len() + secrets + 1;
        if count > limits::VARIABLES_PER_WORKER {
            let message = format!(
                "{count} variables and secrets, {DIGEST_VARIABLE} among them; a worker can have {}",
                limits::VARIABLES_PER_WORKER
            );
            let help = "put several values into one variable: a variable can be a map";
            let whole = Layer { document: &self.spec.document, path: [None; 3], settings: &self.spec.settings };
            let place = ["vars", "secrets", "id"]
                .into_iter()
                .find(|key| self.spec.document.root.get(key).is_some())
                .map_or_else(|| self.spec.document.place_of([]), |key| whole.key_of(key));
            self.push(Diagnostic::error(Code::TooManyVariables, place, message, help));
        }
        for (name, (value, layer)) in vars {
            let size = match value {
                Value::String(text) => text.len(),
                other => other.to_string().len(),
            };
            if size > limits::VARIABLE_BYTES {
                let message = format!("the variable `{name}` has {size} bytes; {} fit", limits::VARIABLE_BYTES);
                let place = layer.place(&["vars", name]);
                self.push(Diagnostic::error(
                    Code::VariableTooLarge,
                    place,
                    message,
                    "keep large values in KV or in the database",
                ));
            }
        }
    }

    fn destinations(&mut self, secrets: &mut BTreeMap<&'a str, (String, Place)>) -> Vec<Destination> {
        let Some((destinations, layer)) = pick(self.layers, |s| s.destinations.as_ref()) else {
            return Vec::new();
        };
        let mut used: BTreeMap<&str, usize> = BTreeMap::new();
        let mut resolved = Vec::new();
        for (at, destination) in destinations.iter().enumerate() {
            let at = at.to_string();
            if destination.environment.is_some() && destination.environments.is_some() {
                let place = layer.place(&["destinations", &at, "environment"]);
                let message = "`environment` and `environments` both say where the destination exists";
                self.push(Diagnostic::error(Code::Conflict, place, message, "keep `environments`"));
            }
            let Some(kind) = self.pack.types.get(&destination.kind) else {
                let place = layer.place(&["destinations", &at, "type"]);
                let known = self.pack.types.keys().map(String::as_str);
                let diagnostic = unknown("destination type", &destination.kind, place, known);
                self.push(diagnostic);
                continue;
            };
            let path: Vec<&str> =
                layer.path.iter().flatten().copied().chain(["destinations", &at, "settings"]).collect();
            let value = Value::Object(destination.settings.clone());
            let found = kind.check(layer.document, &path, &value, &destination.kind);
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
                let place = layer.place(&["destinations", &at, "settings", setting]);
                match secrets.get(name) {
                    Some((other, _)) if other != name => {
                        let message = format!("`{name}` is looked up here as itself, but under `secrets` as `{other}`");
                        self.push(Diagnostic::error(Code::Conflict, place, message, "give one of them another name"));
                    }
                    Some(_) => {}
                    None => {
                        secrets.insert(name, (name.to_owned(), place));
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

fn no_hosts(what: &str, namespace: &str) -> names::Wrong {
    (
        format!("workers of the dispatch namespace `{namespace}` have no {what} of their own"),
        "reach them through the namespace's dispatch worker, or use an account without `dispatchNamespace`".to_owned(),
    )
}
