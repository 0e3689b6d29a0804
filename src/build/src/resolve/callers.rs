//! The calls between workers that the called one recognizes: the keys of `callers`, and the origins of `trustedOrigins` and `cors`. Knows the
//! workers of one customer, and the shared ones.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place, Severity};
use flotilla_model::preview::Preview;
use flotilla_model::service_key;
use flotilla_model::spec::{CORS_VARIABLE, Cors, Environment, OWN_ORIGINS};
use flotilla_spec::project::{Fleet, unknown};

use super::Batch;
use super::worker::WorkerResolver;

/// The part of a worker's spec that is about those that call it: services and browsers.
pub(super) struct Callee {
    /// The index of the worker, among the resolved ones.
    worker: usize,
    /// The roles that may call it, each with its place.
    callers: Vec<(String, Place)>,
    /// The place of `own` among its trusted origins.
    own_origins: Option<Place>,
    cors: Option<Cors>,
}

impl WorkerResolver<'_, '_> {
    /// Notes who may call the worker; the callers are known later. Reports what no browser would accept.
    pub(super) fn callee(&mut self) {
        let settings = self.settings;
        let indexed = |list: &Option<Vec<String>>| list.iter().flatten().cloned().enumerate().collect::<Vec<_>>();
        let callers = indexed(&settings.callers)
            .into_iter()
            .map(|(index, caller)| (caller, self.place(&["callers", &index.to_string()])))
            .collect();
        let own = indexed(&settings.trusted_origins).into_iter().find(|(_, origin)| origin == OWN_ORIGINS);
        let own_origins = own.map(|(index, _)| self.place(&["trustedOrigins", &index.to_string()]));
        if let Some(cors) = &settings.cors {
            let lists = [("headers", &cors.headers), ("exposeHeaders", &cors.expose_headers)];
            for (key, list) in lists.into_iter().filter(|_| cors.credentials == Some(true)) {
                for (index, _) in indexed(list).into_iter().filter(|(_, header)| header == "*") {
                    let place = self.place(&["cors", key, &index.to_string()]);
                    let message =
                        format!("with `credentials`, `*` in `{key}` is a header of that name, not any header");
                    self.push(Diagnostic::error(Code::Conflict, place, message, "list the headers by name"));
                }
            }
            if settings.trusted_origins.as_ref().is_none_or(Vec::is_empty) && !self.left_out.has("trustedOrigins") {
                let place = self.key_place(&["cors"]);
                let message = "cors has no effect: there are no trustedOrigins";
                let help = "list who may call the worker from a browser: `trustedOrigins: [own, https://shop.example.com]`; `own` \
                            is the customer's own workers";
                self.push(Diagnostic::warning(Code::NoEffect, place, message, help));
            }
        }
        let worker = self.batch.resolved.workers.len();
        self.batch.callees.push(Callee { worker, callers, own_origins, cors: settings.cors.clone() });
    }
}

/// Adds to workers the keys of calls between them, and the origins of browsers that may call them.
pub(super) fn connect(batch: &mut Batch<'_>) {
    let callees = std::mem::take(&mut batch.callees);
    for callee in &callees {
        origins(batch, callee);
        if !callee.callers.is_empty() {
            keys(batch, callee);
        }
    }
    keys_of_shared(batch);
}

/// Adds its key and the list of its callers to a called worker, and a key to each of those that are resolved with it.
fn keys(batch: &mut Batch<'_>, callee: &Callee) {
    let worker = &batch.resolved.workers[callee.worker];
    let (customer, environment, role) = (worker.customer.clone(), worker.environment, worker.role.clone());
    let role = role.unwrap_or_default();
    let path = path(batch.fleet, environment, &customer, &role);
    let mut accepted: Vec<String> = Vec::new();
    for (caller, place) in &callee.callers {
        let mut workers = batch.resolved.workers.iter_mut();
        if *caller == role {
            let message = "a worker can't be a caller of its own";
            let diagnostic = Diagnostic::error(Code::Cycle, place.clone(), message, "name other workers");
            batch.resolved.diagnostics.push(diagnostic);
        } else if let Some(from) =
            workers.find(|worker| worker.environment == environment && worker.role.as_ref() == Some(caller))
        {
            if has_code(from) {
                accepted.push(give(from, &role, &path));
            } else {
                let message = format!("`{caller}` can't be a caller: it has static assets alone, and no code");
                let help = "leave it out; what it loads in browsers may call the worker by `cors` and `trustedOrigins`";
                let diagnostic = Diagnostic::error(Code::Conflict, place.clone(), message, help);
                batch.resolved.diagnostics.push(diagnostic);
            }
        } else if customer == SHARED {
            accepted.push(format!("*/{caller}"));
        } else {
            let found = unknown_caller(batch, caller, place);
            batch.resolved.diagnostics.extend(found);
        }
    }
    // Where none of them exists, nothing is called.
    if !accepted.is_empty() {
        let worker = &mut batch.resolved.workers[callee.worker];
        worker.secrets.insert(service_key::BINDING.to_owned(), service_key::name(&path, None));
        worker.vars.insert(service_key::CALLERS.to_owned(), json!(accepted));
    }
}

/// Adds to the workers of a customer the keys for the shared workers that accept their roles.
fn keys_of_shared(batch: &mut Batch<'_>) {
    let Some(shared) = batch.shared else { return };
    for worker in &mut batch.resolved.workers {
        let Some(role) = worker.role.clone() else { continue };
        let environment = worker.environment;
        let knows = |name: &str| shared.peers.0.contains_key(&(name.to_owned(), environment));
        for ((name, of), peer) in &shared.peers.0 {
            let is_own = batch.peers.0.contains_key(&(name.clone(), environment));
            // A shared worker of that name is the one that is meant.
            if *of != environment || is_own || !has_code(worker) || knows(&role) || !peer.callers.contains(&role) {
                continue;
            }
            give(worker, name, &path(batch.fleet, environment, SHARED, name));
            batch.resolved.refers.insert((Some(role.clone()), name.clone()));
        }
    }
}

fn has_code(worker: &Worker) -> bool {
    !worker.assets.as_ref().is_some_and(|assets| assets.is_all)
}

/// Adds to a worker the key for the one that it calls. Returns the name by which it is known there.
fn give(from: &mut Worker, called: &str, path: &str) -> String {
    let caller = format!("{}/{}", from.customer, from.role.as_deref().unwrap_or_default());
    let binding = format!("{}_{}", service_key::BINDING, called.to_ascii_uppercase().replace('-', "_"));
    from.secrets.insert(binding, service_key::name(path, Some(&caller)));
    from.vars.insert(service_key::CALLER.to_owned(), caller.clone().into());
    caller
}

/// Returns the path of a called worker in the names of its keys.
fn path(fleet: &Fleet, environment: Environment, customer: &str, role: &str) -> String {
    let environment = fleet.preview.as_ref().map_or_else(|| environment.to_string(), Preview::word);
    format!("{environment}/{customer}/{role}")
}

/// Returns the error of a caller that the customer has in no environment, unless it isn't known which workers there are.
fn unknown_caller(batch: &Batch<'_>, caller: &str, place: &Place) -> Option<Diagnostic> {
    let roles: BTreeSet<&str> = batch.peers.0.keys().map(|(role, _)| role.as_str()).collect();
    if batch.is_open || roles.contains(caller) {
        return None;
    }
    if roles.is_empty() {
        let message = format!("there is no worker `{caller}`: the customer's only worker has no role");
        let help = "define several: `workers: { web: {}, api: { callers: [web] } }`";
        return Some(Diagnostic::error(Code::UnknownName, place.clone(), message, help));
    }
    if batch.shared.is_some_and(|shared| shared.peers.0.keys().any(|(name, _)| name == caller)) {
        let message = format!("the shared worker `{caller}` can't be a caller: it would need a key for each customer");
        let help = "let it call another shared worker, or recognize it by a secret of your own under `secrets`";
        return Some(Diagnostic::error(Code::Conflict, place.clone(), message, help));
    }
    Some(unknown("worker", caller, place.clone(), roles.iter().copied()))
}

/// Replaces `own` with the origins of the workers that are resolved together, and gives the worker its CORS settings.
fn origins(batch: &mut Batch<'_>, callee: &Callee) {
    let environment = batch.resolved.workers[callee.worker].environment;
    if let Some(place) = &callee.own_origins {
        let workers = batch.resolved.workers.iter().filter(|worker| worker.environment == environment);
        let own: BTreeSet<String> = workers.flat_map(|worker| origins_of(batch.fleet, worker)).collect();
        let is_known = batch.resolved.diagnostics.iter().all(|found| found.severity != Severity::Error);
        if own.is_empty() && is_known && !batch.is_open {
            let message = format!(
                "`{OWN_ORIGINS}` is no origin in {environment}: no domain, no route, and no known workers.dev address"
            );
            let help = "give one of the customer's workers a domain, or set `subdomain` of its account in fleet.yaml";
            batch.resolved.diagnostics.push(Diagnostic::error(Code::NoAddress, place.clone(), message, help));
        }
        let worker = &mut batch.resolved.workers[callee.worker];
        let mut origins: Vec<String> = Vec::new();
        for origin in std::mem::take(&mut worker.trusted_origins) {
            let each = if origin == OWN_ORIGINS { own.iter().cloned().collect() } else { vec![origin] };
            for origin in each {
                if !origins.contains(&origin) {
                    origins.push(origin);
                }
            }
        }
        worker.trusted_origins = origins;
    }
    if let Some(cors) = &callee.cors {
        let worker = &mut batch.resolved.workers[callee.worker];
        let value = cors_variable(cors, &worker.trusted_origins);
        worker.vars.insert(CORS_VARIABLE.to_owned(), value);
    }
}

/// Returns the origins from which browsers load a worker.
fn origins_of(fleet: &Fleet, worker: &Worker) -> Vec<String> {
    let routes = worker.routes.iter().filter_map(|route| route.pattern.split('/').next());
    let hosts = worker.hosts.iter().flat_map(|hosts| &hosts.names).map(String::as_str);
    let named = worker.domains.iter().map(String::as_str).chain(routes).chain(hosts).filter(|host| !host.contains('*'));
    let subdomain = fleet.accounts.get(&worker.account).and_then(|account| account.subdomain.as_ref());
    let dev = subdomain.filter(|_| worker.workers_dev);
    let dev = dev.map(|subdomain| format!("{}.{subdomain}.workers.dev", worker.name));
    named.map(str::to_owned).chain(dev).map(|host| format!("https://{host}")).collect()
}

/// Returns the value of the variable by which the code knows its CORS settings: every default is applied.
fn cors_variable(cors: &Cors, origins: &[String]) -> Value {
    let or = |list: &Option<Vec<String>>, default: &[&str]| match list {
        Some(list) => list.clone(),
        None => default.iter().copied().map(str::to_owned).collect(),
    };
    json!({
        "origins": origins,
        "methods": or(&cors.methods, &["GET", "HEAD", "POST"]),
        "headers": or(&cors.headers, &["content-type"]),
        "exposeHeaders": or(&cors.expose_headers, &[]),
        "credentials": cors.credentials.unwrap_or(false),
        "maxAge": cors.max_age.unwrap_or(600),
    })
}
