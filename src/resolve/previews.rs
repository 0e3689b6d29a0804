//! How a worker differs in a preview: its hosts, its database, nothing that the clock starts. Knows one worker at a time.

use std::collections::BTreeMap;

use crate::customer::SHARED;
use crate::diagnostic::{Code, Diagnostic};
use crate::layer;
use crate::preview::Preview;
use crate::project::Fleet;
use crate::spec::{Database, DatabaseKind, Domain, Environment, Settings};

use super::sources::{Sources, settings_only};
use super::worker::{One, Who};

/// What a worker of a preview is made from.
pub(super) struct Base {
    /// The environment whose settings it takes.
    pub(super) environment: Environment,
    /// Whether something says which database it has in previews.
    says_database: bool,
    /// The address of the database that it has in production, if it has one at Turso.
    production: Option<String>,
}

impl Base {
    /// That of a worker; nothing, if it isn't one of a preview.
    pub(super) fn of(sources: &Sources<'_>, environment: Environment, role: Option<&str>) -> Option<Base> {
        if environment != Environment::Preview {
            return None;
        }
        let says_database = sources.of_previews(role).iter().any(|(_, node)| node.get("database").is_some());
        let standing = sources.standing(role);
        let production = standing.contains(&Environment::Production).then(|| {
            let merged = layer::merge(&sources.chain(Environment::Production, role), settings_only);
            merged.get("database").map(|database| database.to_value())
        });
        let production = production.flatten().and_then(|value| Some(value.get("url")?.as_str()?.to_owned()));
        Some(Base { environment: sources.base(role)?, says_database, production })
    }
}

/// Puts what is the preview's own in place of what is not. Gives the hosts that it moved.
pub(super) fn adapt(
    fleet: &Fleet,
    preview: &Preview,
    base: &Base,
    who: &Who<'_>,
    role: Option<&str>,
    settings: &mut Settings,
) -> BTreeMap<String, String> {
    let domains = settings.domains.take().unwrap_or_default();
    let routes = settings.routes.take().unwrap_or_default();
    let of_routes = routes.iter().filter_map(|route| route.pattern.split('/').next());
    let hosts: Vec<&str> = domains.iter().map(Domain::name).chain(of_routes).collect();
    let mut moved = BTreeMap::new();
    match &preview.domain {
        // What is reached from nowhere outside of the preview isn't in it either.
        Some(domain) if !hosts.is_empty() || settings.workers_dev.unwrap_or(true) => {
            let host = preview.host_in(domain, Some(who.id).filter(|id| *id != SHARED), role);
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
    if let Some(database) = &mut settings.database
        && database.kind == Some(DatabaseKind::D1)
        && !base.says_database
    {
        database.name = database.name.as_ref().map(|name| preview.database(name));
        database.id = None;
    }
    moved
}

impl One<'_, '_> {
    /// Refuses a preview that would work on the data of production.
    pub(super) fn production_database(&mut self, base: &Base, database: &Database) {
        let url = database.url.as_ref().filter(|_| database.kind == Some(DatabaseKind::Turso));
        if base.says_database || url.is_none() || url != base.production.as_ref() {
            return;
        }
        let place = self.place(&["database"]);
        let message = "a preview would work on the database of production";
        let help = "say which one previews have, here or under `defaults` of fleet.yaml: \
                    `environments: { preview: { database: { type: turso, url: …, token: … } } }`, or `{ type: none }`";
        self.push(Diagnostic::error(Code::ProductionData, place, message, help));
    }
}
