//! The host of a worker: a custom domain or a route. It has to be free in the fleet and in the account.

use serde_json::{Value, json};

use flotilla_model::failure::Failure;
use flotilla_model::names;
use flotilla_model::paging::read_list;
use flotilla_model::platform::{Call, Reply};

use super::super::ui::clean;
use super::Workspace;
use super::token::home;
use flotilla_engine::requests::PlatformRequester;

/// The host of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Its workers.dev address alone.
    None,
    /// A custom domain.
    Domain(String),
    /// A route of a zone.
    Route {
        /// The pattern.
        pattern: String,
        /// The zone.
        zone: String,
    },
}

impl Host {
    /// Returns the host name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Host::None => None,
            Host::Domain(name) => Some(name),
            Host::Route { pattern, .. } => pattern.split('/').next(),
        }
    }

    /// Returns its entry in the spec.
    pub fn entry(&self) -> Option<(&'static str, Value)> {
        match self {
            Host::None => None,
            Host::Domain(name) => Some(("domains", json!([name]))),
            Host::Route { pattern, zone } => Some(("routes", json!([{"pattern": pattern, "zone": zone}]))),
        }
    }
}

/// Checks that a host is valid, is in the zone, and belongs to no other worker of the fleet.
pub fn in_fleet(workspace: &Workspace, host: &str, zone: Option<&str>, own: Option<&str>) -> Result<(), String> {
    names::domain(host).map_err(|(wrong, help)| format!("{wrong}: {help}"))?;
    if let Some(zone) = zone
        && host != zone
        && !host.ends_with(&format!(".{zone}"))
    {
        return Err(format!("{host} is not in the zone {zone}"));
    }
    let leads = |worker: &&flotilla_model::customer::Worker| {
        let routes = worker.routes.iter().any(|route| route.pattern.split('/').next() == Some(host));
        let hosts = worker.hosts.as_ref().is_some_and(|hosts| hosts.names.contains(host));
        Some(worker.customer.as_str()) != own && (worker.domains.contains(host) || routes || hosts)
    };
    match workspace.workers.iter().find(leads) {
        Some(worker) => Err(format!("{host} is the host of {} ({})", worker.customer, worker.file)),
        None => Ok(()),
    }
}

/// Checks that no worker of the account has the host, except those named in `own`.
pub fn in_account(
    requester: &mut PlatformRequester,
    account_id: &str,
    host: &Host,
    zone_id: Option<&str>,
    own: &[String],
) -> Result<Result<(), String>, Failure> {
    let home = home(account_id);
    let is_own = |worker: &String| own.contains(worker);
    match (host, zone_id) {
        (Host::Domain(name), _) => {
            let domains = read_list(|page| match requester.fetch(&home, Call::ListDomains { page })? {
                Reply::Domains(domains) => Ok::<_, Failure>(domains),
                other => unreachable!("BUG: {other:?} is no list of domains"),
            })?;
            let holder = domains.into_iter().find(|domain| domain.hostname == *name && !is_own(&domain.worker));
            Ok(holder.map_or(Ok(()), |holder| {
                Err(format!("{name} already points to the worker {} of that account", clean(&holder.worker)))
            }))
        }
        (Host::Route { pattern, .. }, Some(zone_id)) => {
            let call = |page| Call::ListRoutes { zone_id: zone_id.to_owned(), page };
            let routes = read_list(|page| match requester.fetch(&home, call(page))? {
                Reply::Routes(routes) => Ok::<_, Failure>(routes),
                other => unreachable!("BUG: {other:?} is no list of routes"),
            })?;
            let holder = routes.into_iter().filter(|route| route.pattern == *pattern).find_map(|route| route.worker);
            Ok(holder.filter(|worker| !is_own(worker)).map_or(Ok(()), |worker| {
                Err(format!("the route {pattern} already points to the worker {}", clean(&worker)))
            }))
        }
        _ => Ok(Ok(())),
    }
}
