//! Checks the health of deployed workers, a few at a time, until they run the expected bundle or the time is up.

use std::fmt;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use blocking_threadpool::ThreadPool;

use flotilla_deploy::cloudflare;
use flotilla_model::platform::Health;

use crate::operator::Operator;

/// The number of workers that are checked at once.
const AT_ONCE: usize = 16;
/// The wait before a worker is checked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A worker to ask.
pub struct HealthTarget {
    /// The address of the health check.
    pub address: String,
    /// The digest of the bundle that it should run.
    pub digest: String,
}

/// The health of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerHealth {
    /// It is healthy and runs the expected bundle.
    Healthy,
    /// It is healthy and runs another bundle.
    OtherBundle,
    /// It reports that it isn't healthy, in a word of its own.
    Degraded(String),
    /// It can't be reached, for this reason.
    Unreachable(String),
}

impl fmt::Display for WorkerHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerHealth::Healthy => f.write_str("healthy"),
            WorkerHealth::OtherBundle => f.write_str("runs something else than was uploaded"),
            WorkerHealth::Degraded(word) => f.write_str(word),
            WorkerHealth::Unreachable(reason) => write!(f, "unreachable: {reason}"),
        }
    }
}

/// Checks workers, and repeats it for those that aren't healthy until `deadline` has passed. Returns their health in
/// the order of the targets; none for a target that is none.
pub fn ask_workers(
    operator: &dyn Operator,
    targets: Vec<Option<HealthTarget>>,
    deadline: Duration,
) -> Vec<Option<WorkerHealth>> {
    let end = Instant::now() + deadline;
    let (sender, receiver) = channel();
    let pool = ThreadPool::new(AT_ONCE);
    let mut found = vec![None; targets.len()];
    operator.begin("asking workers", Some(targets.len() as u64));
    let progress = operator.background();
    for (index, target) in targets.into_iter().enumerate() {
        let Some(target) = target else { continue };
        let (sender, progress) = (sender.clone(), progress.clone());
        pool.execute(move || {
            let health = ask_until(&target, end);
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

fn ask_until(target: &HealthTarget, end: Instant) -> WorkerHealth {
    loop {
        let health = match cloudflare::health(&target.address) {
            Health::Healthy(runs) if runs == target.digest => return WorkerHealth::Healthy,
            Health::Healthy(_) => WorkerHealth::OtherBundle,
            Health::Degraded(word) => WorkerHealth::Degraded(word),
            Health::Unreachable(reason) => WorkerHealth::Unreachable(reason),
        };
        if Instant::now() >= end {
            return health;
        }
        std::thread::sleep(ASK_AGAIN);
    }
}
