//! The differences of a worker in a preview: its hosts, its database, no crons, no queues that it consumes and no preview URLs. Knows one worker at a time.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use flotilla_model::binding::{self, Binding};
use flotilla_model::customer::SHARED;
use flotilla_model::diagnostic::{Code, Diagnostic};
use flotilla_model::preview::Preview;
use flotilla_model::spec::{Database, DatabaseKind, Domain, Environment, Settings};
use flotilla_spec::layer;
use flotilla_spec::project::Fleet;
use flotilla_spec::yaml::Kind;

use super::sources::{Sources, settings_only};
use super::worker::{Subject, WorkerResolver, filled};

/// The settings that a worker of a preview is derived from.
pub(super) struct Base {
    /// The environment whose settings it takes.
    pub(super) environment: Environment,
    /// Whether a layer defines its database in previews.
    pub(super) says_database: bool,
    /// The bindings that a layer defines for previews.
    says_bindings: BTreeSet<String>,
    /// Its settings in production; null if it doesn't exist there.
    production: Value,
}

/// The kinds of bindings that point to data, or to services that change data: a preview's changes there are permanent.
const DATA: [&str; 20] = [
    "kv",
    "r2",
    "d1",
    "queue",
    "durableObject",
    "workflow",
    "analyticsEngine",
    "hyperdrive",
    "vectorize",
    "pipeline",
    "pipelineStream",
    "k2",
    "aiSearch",
    "aiSearchNamespace",
    "agentMemory",
    "artifacts",
    "stream",
    "vpcService",
    "vpcNetwork",
    "vpcTunnel",
];

impl Base {
    /// Returns the base of a worker of a preview; `None` for other workers.
    pub(super) fn of(sources: &Sources<'_>, environment: Environment, role: Option<&str>) -> Option<Base> {
        if environment != Environment::Preview {
            return None;
        }
        let of_previews = sources.of_previews(role);
        let says_database = of_previews.iter().any(|(_, node)| node.get("database").is_some());
        let bindings = of_previews.iter().filter_map(|(_, node)| match &node.get("bindings")?.kind {
            Kind::Map(entries) => Some(entries.iter().map(|(name, _, _)| name.clone())),
            _ => None,
        });
        let says_bindings = bindings.flatten().collect();
        let production = match sources.standing(role).contains(&Environment::Production) {
            true => layer::merge(&sources.chain(Environment::Production, role), settings_only).to_value(),
            false => Value::Null,
        };
        Some(Base { environment: sources.base(role)?, says_database, says_bindings, production })
    }
}

/// Replaces hosts, origins and databases with those of the preview, and removes crons and queue consumers. Returns the replaced hosts.
pub(super) fn adapt(
    fleet: &Fleet,
    preview: &Preview,
    base: &Base,
    subject: &Subject<'_>,
    role: Option<&str>,
    settings: &mut Settings,
) -> BTreeMap<String, String> {
    let domains = settings.domains.take().unwrap_or_default();
    let routes = settings.routes.take().unwrap_or_default();
    let of_routes = routes.iter().filter_map(|route| route.pattern.split('/').next());
    let hosts: Vec<&str> = domains.iter().map(Domain::name).chain(of_routes).collect();
    let mut moved = BTreeMap::new();
    match &preview.domain {
        // A worker that can't be reached outside the preview can't be reached in it, either.
        Some(domain) if !hosts.is_empty() || settings.workers_dev.unwrap_or(true) => {
            let host = preview.host_in(domain, Some(subject.id).filter(|id| *id != SHARED), role);
            moved.extend(hosts.iter().map(|before| ((*before).to_owned(), host.clone())));
            settings.domains = Some(vec![Domain::Name(host)]);
        }
        Some(_) => {}
        None => {
            let named = hosts.iter().filter(|host| !host.contains('*'));
            moved.extend(
                named.map(|host| ((*host).to_owned(), preview.host(host, fleet.zone_of(host), base.environment))),
            );
            let mut domains: Vec<String> = Vec::new();
            for host in hosts.iter().filter_map(|host| moved.get(*host)) {
                if !domains.contains(host) {
                    domains.push(host.clone());
                }
            }
            settings.domains = Some(domains.into_iter().map(Domain::Name).collect());
        }
    }
    for origin in settings.trusted_origins.iter_mut().flatten() {
        *origin = preview.origin(origin);
    }
    settings.crons = None;
    settings.preview_urls = None;
    settings.queue_consumers = None;
    if let Some(database) = &mut settings.database
        && database.kind == Some(DatabaseKind::D1)
        && !base.says_database
    {
        database.name = database.name.as_ref().map(|name| preview.database(name));
        database.id = None;
    }
    moved
}

impl WorkerResolver<'_, '_> {
    /// Reports a preview that would use the data of production.
    pub(super) fn production_database(&mut self, base: &Base, database: &Database) {
        let url = database.url.as_ref().filter(|_| database.kind == Some(DatabaseKind::Turso));
        let of_production = &base.production["database"];
        let its_url = of_production["url"].as_str();
        let its_url = its_url.map(|url| filled(url, self.target.subject.id, Environment::Production.as_ref()));
        let is_its = of_production["type"] == "turso" && its_url.as_ref() == url;
        if base.says_database || url.is_none() || !is_its {
            return;
        }
        let place = self.place(&["database"]);
        let message = "a preview would use the database of production";
        let help = "define which one previews use, here or under `defaults` of fleet.yaml: \
                    `environments: { preview: { database: { type: turso, url: …, token: … } } }`, or `{ type: none }`";
        self.push(Diagnostic::error(Code::ProductionData, place, message, help));
    }

    /// Reports a binding of a preview that points to the data of production.
    pub(super) fn production_binding(&mut self, base: &Base, name: &str, binding: &Binding) {
        let Some(key) = binding.kind().map(binding::Kind::key).filter(|key| DATA.contains(key)) else { return };
        let is_its = base.production["bindings"][name].get(key) == binding.0.get(key);
        if base.says_bindings.contains(name) || !is_its {
            return;
        }
        let place = self.key_place(&["bindings", name]);
        let message = format!("the binding `{name}` of a preview would use a resource of production");
        let help = format!(
            "define it for previews, here or under `defaults` of fleet.yaml: \
             `environments: {{ preview: {{ bindings: {{ {name}: {{ {key}: … }} }} }} }}`, or `{name}: null`"
        );
        self.push(Diagnostic::error(Code::ProductionData, place, message, help));
    }
}
