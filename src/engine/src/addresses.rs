//! Where deployed workers answer: for people, and for health checks. Knows no HTTP.

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::state::{Deployed, ResourceKind, State};
use flotilla_model::platform::{Call, Home, Platform as _, Reply};

use crate::cloud::Cloud;

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

/// Returns where the health of a worker is asked for. Behind another API than Cloudflare's, the workers' public names mean nothing:
/// there they are asked by their path, as the local emulator serves them.
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

/// Returns the account's part of its workers.dev addresses: asked for once, with a deploy, then kept in the state.
pub fn subdomain(cloud: &Cloud, home: &Home, platform: Option<&Cloudflare>) -> Option<String> {
    known_subdomain(&State::read(&cloud.state).ok()?, home).or_else(|| {
        let (Ok(Reply::Id(subdomain)), _) = platform?.call(home, &Call::FindSubdomain) else { return None };
        let mut state = State::open(&cloud.state).ok()?;
        state.cache_id(&home.account_id, ResourceKind::Subdomain, "", &subdomain).ok()?;
        Some(subdomain)
    })
}
