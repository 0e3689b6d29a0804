//! Verifies deployed workers: finds each one's address and its pack's probes, and runs the checks, which are
//! `flotilla_deploy::verify`'s.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde::Serialize;

use flotilla_build::build::{self, Project};
use flotilla_deploy::cloudflare::Network;
use flotilla_deploy::state::{Deployed, State, WorkerId};
use flotilla_deploy::verify::{Report, Status, Target, serves_health, verify};
use flotilla_model::clock::SystemClock;
use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::{Diagnostic, Severity};
use flotilla_model::failure::Failure;
use flotilla_model::platform::Home;
use flotilla_model::spec::Delivery;

use crate::addresses::{dispatched, find_subdomain, health_address, url};
use crate::cloud::{Cloud, CloudOptions};
use crate::context::Context;
use crate::operator::Event;
use crate::selection::Selection;

/// The time for which failed checks are repeated, unless another is given.
const DEADLINE: Duration = Duration::from_secs(60);

/// The options of a verification.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// The time for which failed checks are repeated, once each worker was checked; zero checks once.
    pub deadline: Option<Duration>,
}

/// The results of all workers.
#[derive(Serialize)]
pub struct Results {
    /// Worker by worker.
    pub workers: Vec<Report>,
    /// The number of workers that passed, perhaps with warnings.
    pub passed: usize,
    /// The number of workers of which a check failed.
    pub failed: usize,
    /// The number of workers that weren't checked.
    pub skipped: usize,
    /// The duration.
    pub seconds: f64,
    /// Whether specs have errors: their workers aren't known.
    #[serde(skip)]
    pub has_errors: bool,
    /// The accounts whose ids aren't known: whether their workers are deployed isn't known, either.
    #[serde(skip)]
    pub unknown_accounts: Vec<String>,
}

/// Verifies the selected workers of a fleet.
pub fn verify_fleet(
    context: &Context<'_>,
    selection: &Selection,
    cloud: &CloudOptions,
    options: &VerifyOptions,
) -> Result<Results, Failure> {
    let mut loaded = build::load(&context.root, context.operator).map_err(Failure::invalid)?;
    selection.verify(context.operator, &loaded.project, &mut loaded.scan)?;
    let concerns = |found: &&Diagnostic| selection.concerns(found);
    let diagnostics: Vec<Diagnostic> = loaded.scan.diagnostics.iter().filter(concerns).cloned().collect();
    context.operator.on_event(&Event::Diagnostics(&diagnostics));
    let secrets = cloud.secrets(context, &loaded.project.fleet)?;
    let mut cloud = Cloud::new(context, &loaded.project.fleet, cloud, &secrets)?;
    cloud.start(context)?;
    let selected: Vec<&Worker> = loaded.workers.iter().filter(|worker| selection.includes(worker)).collect();
    let state = State::read(&cloud.state)?;
    let fleet = &loaded.project.fleet;
    let subdomain = |home: &Home, account: &str| {
        find_subdomain(context, fleet, &cloud, || cloud.tokens_to_look_at(fleet, [account], &secrets), home)
    };
    let targets = targets(&loaded.project, &cloud, &state, &selected, &subdomain)?;
    let results = verify_targets(context, &targets, options)?;
    let accounts: BTreeSet<&str> = selected.iter().map(|worker| worker.account.as_str()).collect();
    let invalid = cloud.invalid(accounts.iter().copied());
    for id in &invalid {
        context.operator.on_event(&Event::InvalidId(id));
    }
    let is_error = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
    let has_errors = diagnostics.iter().any(is_error) || !invalid.is_empty();
    let unknown_accounts = cloud.unknown(accounts).into_iter().map(str::to_owned).collect();
    Ok(Results { has_errors, unknown_accounts, ..results })
}

/// Verifies targets.
pub(crate) fn verify_targets(
    context: &Context<'_>,
    targets: &[Target],
    options: &VerifyOptions,
) -> Result<Results, Failure> {
    let start = Instant::now();
    let deadline = options.deadline.unwrap_or(DEADLINE);
    let workers = verify(targets, &Network::new()?, &SystemClock::new(), deadline, context.operator);
    let number = |wanted: &[Status]| workers.iter().filter(|report| wanted.contains(&report.status)).count();
    Ok(Results {
        passed: number(&[Status::Passed, Status::Warning]),
        failed: number(&[Status::Failed]),
        skipped: number(&[Status::Skipped]),
        seconds: start.elapsed().as_secs_f64(),
        workers,
        has_errors: false,
        unknown_accounts: Vec::new(),
    })
}

/// Returns the targets of the workers. `subdomain` returns the workers.dev subdomain of a home and its account's name, and is called where an
/// address needs it.
pub(crate) fn targets(
    project: &Project,
    cloud: &Cloud,
    state: &State,
    workers: &[&Worker],
    subdomain: &dyn Fn(&Home, &str) -> Option<String>,
) -> Result<Vec<Target>, Failure> {
    let packs: HashMap<(&str, &str), &str> =
        workers.iter().map(|worker| ((worker.account.as_str(), worker.name.as_str()), worker.pack.as_str())).collect();
    let packs_of_fleet = &project.fleet.packs;
    let probes =
        |pack: &str| packs_of_fleet.get(pack).and_then(|pack| pack.manifest.verify.clone()).unwrap_or_default();
    let serves = |account: &str, name: &str| {
        // If the worker isn't selected, this is unknown here; its pack usually defines it.
        packs.get(&(account, name)).is_none_or(|pack| serves_health(&probes(pack)))
    };
    let apart = apart(cloud);
    let mut all = Vec::with_capacity(workers.len());
    for worker in workers {
        let home = cloud.home(&worker.account, worker.namespace.as_deref());
        let id: WorkerId = (home.clone(), worker.name.clone());
        let live = state.one(&id)?;
        let subdomain = || subdomain(&home, &worker.account);
        let by_host = || dispatched(state, &home, &worker.name);
        let address = live.as_ref().and_then(|live| {
            let found = match apart {
                Some(_) => health_address(cloud, &worker.name, live, subdomain),
                None => url(cloud, &worker.name, live, subdomain).or_else(|| routed(live)),
            };
            found.or_else(by_host)
        });
        let called = worker.services.iter().chain(&worker.peers);
        all.push(Target {
            customer: worker.customer.clone(),
            environment: worker.environment,
            worker: worker.name.clone(),
            hosts: live.as_ref().map(|live| hosts(live, address.as_deref())).unwrap_or_default(),
            address,
            apart,
            digest: live.as_ref().map(|live| live.digest.to_string()).unwrap_or_default(),
            probes: probes(&worker.pack),
            peers: called.map(|(name, to)| (name.clone(), serves(&worker.account, to))).collect(),
            skip: live.is_none().then(|| undeployed(worker.delivery).to_owned()),
        });
    }
    Ok(all)
}

/// Returns the reason why DNS and TLS aren't checked.
fn apart(cloud: &Cloud) -> Option<&'static str> {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if cloud.local.is_some() {
        return Some("the local emulator has no DNS and no TLS");
    }
    if !cloud.is_cloudflare() {
        return Some("the API is not Cloudflare's, so public names can't be checked");
    }
    let proxied = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].iter().any(set);
    proxied.then_some("hosts can't be reached directly from behind a proxy")
}

fn undeployed(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::SelfHosted | Delivery::Gitops => "not deployed by flotilla",
        Delivery::Automatic | Delivery::Manual => "not deployed",
    }
}

/// Returns the address of a worker that only routes point to: a host of which it has every path.
fn routed(live: &Deployed) -> Option<String> {
    live.live.routes.keys().find_map(|pattern| Some(format!("https://{}/", plain_host(pattern.strip_suffix("/*")?)?)))
}

/// Returns the hosts to look up: custom domains, those of routes, and that of its address.
fn hosts(live: &Deployed, address: Option<&str>) -> BTreeSet<String> {
    let routes = live.live.routes.keys().filter_map(|pattern| plain_host(pattern.split('/').next()?));
    let own = address.filter(|address| !address.contains("://127.0.0.1"));
    let own =
        own.and_then(|address| address.strip_prefix("https://")).and_then(|rest| plain_host(rest.split('/').next()?));
    live.live.domains.keys().map(String::as_str).chain(routes).chain(own).map(str::to_owned).collect()
}

/// Returns a host without a wildcard.
fn plain_host(host: &str) -> Option<&str> {
    (!host.contains('*') && host.contains('.') && !host.contains(':')).then_some(host)
}
