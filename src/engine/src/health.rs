//! Checks the health of deployed workers as their packs say, a few at a time, until they are healthy or the time is up.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use blocking_threadpool::ThreadPool;

use flotilla_deploy::cloudflare;
use flotilla_deploy::plan::Action;
use flotilla_deploy::state::{Deployed, State};
use flotilla_model::platform::{Health, HealthCheck, Placeholders};
use flotilla_spec::project::Fleet;

use crate::addresses::health_address;
use crate::context::Context;
use crate::operator::Operator;
use crate::planning::Planned;

/// The number of workers that are checked at once.
const AT_ONCE: usize = 16;
/// The wait before a worker is checked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Returns the health check of a deployed worker: the probe of its pack that is named `health`; none if its pack has none. The pack may be
/// unknown, where a fleet has but one.
pub fn health_check(
    fleet: &Fleet,
    pack: Option<&str>,
    address: String,
    worker: &str,
    live: &Deployed,
) -> Option<HealthCheck> {
    let only = || fleet.packs.values().next().filter(|_| fleet.packs.len() == 1);
    let pack = pack.map_or_else(only, |name| fleet.packs.get(name))?;
    let placeholders = Placeholders {
        worker: worker.to_owned(),
        customer: live.customer.clone(),
        environment: live.environment.to_string(),
        digest: live.digest.to_string(),
    };
    HealthCheck::new(pack.manifest.verify.as_deref().unwrap_or_default(), address, placeholders)
}

/// Checks the health of the first workers that a plan changed, once; those without a health check are left out.
pub fn health_of_changed(context: &Context<'_>, planned: &Planned, limit: usize) -> Vec<(String, Health)> {
    let Ok(state) = State::read(&planned.cloud.state) else { return Vec::new() };
    let changes = planned.plan.changes.iter().filter(|change| change.action != Action::Delete).take(limit);
    let checks = changes.filter_map(|change| {
        let (pack, live) = (planned.worker(change)?.0.pack, state.one(&change.id()).ok().flatten()?);
        let address = health_address(&planned.cloud, &change.worker, &live, || None)?;
        let check = health_check(&planned.project.fleet, Some(&pack), address, &change.worker, &live)?;
        Some((change.worker.clone(), Some(check)))
    });
    let (workers, checks): (Vec<String>, Vec<_>) = checks.unzip();
    let found = check_health(context.operator, checks, Duration::ZERO);
    workers.into_iter().zip(found).filter_map(|(worker, health)| Some((worker, health?))).collect()
}

/// Makes health checks, and repeats those that fail until `deadline` has passed. Returns the workers' health in the order of the checks;
/// none for a worker without a check.
pub fn check_health(
    operator: &dyn Operator,
    checks: Vec<Option<HealthCheck>>,
    deadline: Duration,
) -> Vec<Option<Health>> {
    let end = Instant::now() + deadline;
    let (sender, receiver) = channel();
    let pool = ThreadPool::new(AT_ONCE);
    let mut found = vec![None; checks.len()];
    operator.begin("checking health", Some(checks.len() as u64));
    let progress = operator.background();
    for (index, check) in checks.into_iter().enumerate() {
        let Some(check) = check else { continue };
        let (sender, progress) = (sender.clone(), progress.clone());
        pool.execute(move || {
            let health = check_until(&check, end);
            progress.step(1);
            let _ = sender.send((index, health));
        });
    }
    drop(sender);
    for (index, health) in receiver {
        found[index] = Some(health);
    }
    operator.end();
    found
}

fn check_until(check: &HealthCheck, end: Instant) -> Health {
    loop {
        let health = cloudflare::health(check);
        if health == Health::Healthy || Instant::now() >= end {
            return health;
        }
        std::thread::sleep(ASK_AGAIN);
    }
}
