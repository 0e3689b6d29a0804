//! The addresses of deployed workers: for people, and for health checks. Knows no HTTP.

use std::collections::{BTreeSet, HashMap};

use secrecy::SecretString;

use flotilla_deploy::state::{Deployed, ResourceKind, State, WorkerId};
use flotilla_model::failure::Failure;
use flotilla_model::platform::Home;
use flotilla_spec::project::Fleet;

use crate::cloud::Cloud;
use crate::context::Context;
use crate::planning::Planned;
use crate::requests::PlatformRequester;

/// Returns where a live worker answers in public, if it has an address of its own.
pub fn url(cloud: &Cloud, worker: &str, live: &Deployed, subdomain: impl FnOnce() -> Option<String>) -> Option<String> {
    if let Some(port) = cloud.local {
        return Some(format!("http://{worker}.localhost:{port}/"));
    }
    match live.live.domains.keys().next() {
        Some(domain) => Some(format!("https://{domain}/")),
        None if live.live.workers_dev => {
            subdomain().map(|subdomain| format!("https://{worker}.{subdomain}.workers.dev/"))
        }
        None => None,
    }
}

/// Returns the address of a worker's health check. Behind another API than Cloudflare's, the workers' public names
/// mean nothing: there they are requested by their path, as the local emulator serves them.
pub fn health_address(cloud: &Cloud, worker: &str, live: &Deployed, subdomain: Option<String>) -> Option<String> {
    if let (Some(port), true) = (cloud.local, cloud.base.is_empty()) {
        return Some(format!("http://127.0.0.1:{port}/workers/{worker}"));
    }
    if !cloud.is_cloudflare() {
        let origin = cloud.base.trim_end_matches('/').trim_end_matches("/client/v4");
        return Some(format!("{origin}/workers/{worker}"));
    }
    url(cloud, worker, live, || subdomain)
}

/// Returns where the dispatch worker points to a worker of its namespace, as far as the state knows.
pub fn dispatched(state: &State, home: &Home, worker: &str) -> Option<String> {
    home.namespace.as_ref()?;
    state.host_of(home, worker).ok()?.map(|host| format!("https://{host}/"))
}

/// Returns the account's part of its workers.dev addresses, if the state knows it.
pub fn known_subdomain(state: &State, home: &Home) -> Option<String> {
    state.cached_id(&home.account_id, ResourceKind::Subdomain, "").ok().flatten()
}

/// Returns the account's part of its workers.dev addresses: requested once, with a deploy, then cached in the state.
pub(crate) fn find_subdomain(
    context: &Context<'_>,
    fleet: &Fleet,
    cloud: &Cloud,
    tokens: &HashMap<String, SecretString>,
    home: &Home,
) -> Option<String> {
    known_subdomain(&State::read(&cloud.state).ok()?, home).or_else(|| {
        let accounts = BTreeSet::from([home.account_id.clone()]);
        let mut requester = PlatformRequester::with_tokens(context, fleet, cloud, tokens.clone(), &accounts).ok()?;
        let subdomain = requester.subdomain(home).ok().flatten()?;
        let mut state = State::open(&cloud.state).ok()?;
        state.cache_id(&home.account_id, ResourceKind::Subdomain, "", &subdomain).ok()?;
        Some(subdomain)
    })
}

/// The addresses of workers.
pub struct Addresses {
    /// The names of workers with their addresses; those without one are left out.
    pub listed: Vec<(String, String)>,
    /// The number of workers beyond the limit.
    pub more: usize,
}

/// Lists the addresses of the workers that a plan changed, or of all that were selected if it changed none. What
/// isn't known yet is requested with `tokens`.
pub fn of_planned(
    context: &Context<'_>,
    planned: &Planned,
    tokens: Option<&HashMap<String, SecretString>>,
    limit: usize,
) -> Result<Addresses, Failure> {
    let state = State::read(&planned.cloud.state)?;
    let (fleet, cloud) = (&planned.project.fleet, &planned.cloud);
    let mut subdomains: HashMap<Home, Option<String>> = HashMap::new();
    let mut subdomain = |home: &Home| {
        let find = || match tokens {
            Some(tokens) => find_subdomain(context, fleet, cloud, tokens, home),
            None => known_subdomain(&state, home),
        };
        subdomains.entry(home.clone()).or_insert_with(find).clone()
    };
    let mut addresses = Addresses { listed: Vec::new(), more: 0 };
    // The limit counts the addresses that are listed: workers of a namespace have none, and take nobody's place.
    let mut add = |(home, worker): WorkerId, deployed: &Deployed| {
        if addresses.listed.len() == limit {
            addresses.more += 1;
            return;
        }
        let address = url(cloud, &worker, deployed, || subdomain(&home)).or_else(|| dispatched(&state, &home, &worker));
        addresses.listed.extend(address.map(|address| (worker, address)));
    };
    if planned.plan.is_empty() {
        state.each(|id, deployed| {
            if planned.selects(&deployed.customer, deployed.environment) {
                add(id, &deployed);
            }
        })?;
    } else {
        for change in &planned.plan.changes {
            if let Some(deployed) = state.one(&change.id())? {
                add(change.id(), &deployed);
            }
        }
    }
    Ok(addresses)
}
