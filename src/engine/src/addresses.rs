//! The addresses of deployed workers: to show, and for health checks. Knows no HTTP.

use std::collections::{BTreeSet, HashMap};

use secrecy::SecretString;

use flotilla_deploy::deploy::Failed;
use flotilla_deploy::state::{Deployed, ResourceKind, State, WorkerId};
use flotilla_model::failure::Failure;
use flotilla_model::platform::Home;
use flotilla_spec::project::Fleet;

use crate::cloud::Cloud;
use crate::context::Context;
use crate::operator::Event;
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
pub fn health_address(
    cloud: &Cloud,
    worker: &str,
    live: &Deployed,
    subdomain: impl FnOnce() -> Option<String>,
) -> Option<String> {
    if let (Some(port), true) = (cloud.local, cloud.base.is_empty()) {
        return Some(format!("http://127.0.0.1:{port}/workers/{worker}"));
    }
    if !cloud.is_cloudflare() {
        let origin = cloud.base.trim_end_matches('/').trim_end_matches("/client/v4");
        return Some(format!("{origin}/workers/{worker}"));
    }
    url(cloud, worker, live, subdomain)
}

/// Returns where the dispatch worker points to a worker of its namespace, as far as the state knows.
pub fn dispatched(state: &State, home: &Home, worker: &str) -> Option<String> {
    home.namespace.as_ref()?;
    state.host_of(home, worker).ok()?.map(|host| format!("https://{host}/"))
}

/// Returns the account's part of its workers.dev addresses: the one in fleet.yaml, or the one that the state remembers.
pub fn known_subdomain(fleet: &Fleet, cloud: &Cloud, state: &State, home: &Home) -> Option<String> {
    // One account can have several entries in fleet.yaml, of which one has it.
    let named = cloud.account_name(&home.account_id).and_then(|name| fleet.accounts.get(name));
    let has_id = |name: &String| cloud.home(name, None).account_id == home.account_id;
    let listed = || fleet.accounts.listed().iter().filter(|(name, _)| has_id(name)).map(|(_, account)| account);
    let set = named.into_iter().find_map(|account| account.subdomain.clone());
    set.or_else(|| listed().find_map(|account| account.subdomain.clone()))
        .or_else(|| state.cached_id(&home.account_id, ResourceKind::Subdomain, "").ok().flatten())
}

/// Returns the account's part of its workers.dev addresses. What isn't known is requested, once per account and run, and then remembered in the state;
/// a failure is reported to the operator, and is no failure of the run.
pub(crate) fn find_subdomain(
    context: &Context<'_>,
    fleet: &Fleet,
    cloud: &Cloud,
    tokens: impl FnOnce() -> Result<HashMap<String, SecretString>, Failure>,
    home: &Home,
) -> Option<String> {
    if let Some(found) = cloud.subdomains.lock().get(&home.account_id) {
        return found.clone();
    }
    let known = State::read(&cloud.state).ok().and_then(|state| known_subdomain(fleet, cloud, &state, home));
    let found = known.or_else(|| {
        let name = cloud.account_name(&home.account_id);
        let requested = request_subdomain(context, fleet, cloud, tokens, home).inspect_err(|reason| {
            let account = name.unwrap_or(&home.account_id);
            context.operator.on_event(&Event::SubdomainUnknown { account, reason });
        });
        requested.ok()
    });
    cloud.subdomains.lock().insert(home.account_id.clone(), found.clone());
    found
}

fn request_subdomain(
    context: &Context<'_>,
    fleet: &Fleet,
    cloud: &Cloud,
    tokens: impl FnOnce() -> Result<HashMap<String, SecretString>, Failure>,
    home: &Home,
) -> Result<String, Failure> {
    let tokens = tokens()?;
    if !tokens.contains_key(&home.account_id) {
        return Err(Failure::new("its API token is not set"));
    }
    let accounts = BTreeSet::from([home.account_id.clone()]);
    let mut requester = PlatformRequester::with_tokens(context, fleet, cloud, tokens, &accounts)?;
    let found = requester.subdomain(home).map_err(|error| Failure::new(error.to_string()))?;
    let subdomain = found.ok_or_else(|| {
        Failure::new("it has no workers.dev subdomain; one is chosen in the dashboard, under Workers & Pages")
    })?;
    let mut state = State::open(&cloud.state)?;
    state.cache_id(&home.account_id, ResourceKind::Subdomain, "", &subdomain)?;
    Ok(subdomain)
}

/// The addresses of workers.
pub struct Addresses {
    /// The names of workers with their addresses; those without one are left out.
    pub listed: Vec<(String, String)>,
    /// The number of workers beyond the limit.
    pub more: usize,
}

/// Lists the addresses of the workers that a plan changed, without those that failed, or of all that were selected if it changed none. What
/// isn't known yet is requested with `tokens`.
pub fn of_planned(
    context: &Context<'_>,
    planned: &Planned,
    failures: &[Failed],
    tokens: Option<&HashMap<String, SecretString>>,
    limit: usize,
) -> Result<Addresses, Failure> {
    let state = State::read(&planned.cloud.state)?;
    let (fleet, cloud) = (&planned.project.fleet, &planned.cloud);
    let subdomain = |home: &Home| match tokens {
        Some(tokens) => find_subdomain(context, fleet, cloud, || Ok(tokens.clone()), home),
        None => known_subdomain(fleet, cloud, &state, home),
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
        let failed: BTreeSet<&str> = failures.iter().map(|failed| failed.worker.as_str()).collect();
        for change in planned.plan.changes.iter().filter(|change| !failed.contains(change.worker.as_str())) {
            if let Some(deployed) = state.one(&change.id())? {
                add(change.id(), &deployed);
            }
        }
    }
    Ok(addresses)
}
