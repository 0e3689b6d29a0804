//! Applies a plan: orders, paces, retries and records. Makes no choice that the plan left open; knows the platform and
//! time only through their seams.
//!
//! One loop on one thread. It asks a lane for a permit before it hands a request to the pool, so that no thread waits for a limit; it
//! collects the responses, writes them to the state in one transaction, and sleeps until the next response, or until a lane may send again.

mod advice;
mod answer;
mod begin;
mod circle;
mod databases;
mod health;
mod hosts;
mod index;
mod lookups;
mod ownership;
mod pool;
mod problem;
mod run;
mod schedule;
mod steps;
mod task;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::pace::Lane;
use crate::plan::{Change, DatabaseChange};
use crate::state::{Deployed, RunId, State, Stored};
use flotilla_model::assets::AssetList;
use flotilla_model::clock::Clock;
use flotilla_model::digest::Digest;
use flotilla_model::plain_file;
use flotilla_model::platform::{AssetBody, HealthCheck, Module};

pub use index::{ChangeIndex, DatabaseIndex, HostWriteId, LaneId, LookupId, PutBackId, WaveIndex};
pub use ownership::Ownership;
pub use pool::{Answer, Extras, Ids, Job, Pool, Rehearsal, Threads};
pub use problem::NextStep;
pub use run::deploy;
pub use schedule::RequestId;

/// The maximum number of requests in flight at once, over all lanes.
pub const MAX_IN_FLIGHT: usize = 256;
/// The maximum number of changes in flight at once in a lane that has no response yet.
const INITIAL_WINDOW: usize = 8;
/// The time that a request takes, until answers show another one.
pub const DEFAULT_LATENCY: Duration = Duration::from_millis(500);
/// The time between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two health checks of a worker.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two looks at whether to continue, pause or stop.
const CONTROL_INTERVAL: Duration = Duration::from_millis(200);

/// An upload as it is sent.
pub struct Upload {
    /// The metadata, with the values of secrets.
    pub metadata: Value,
    /// The modules.
    pub modules: Vec<Module>,
    /// The static assets, if it has any.
    pub assets: Option<Arc<AssetList>>,
    /// The record that the state keeps once the upload was acknowledged.
    pub record: UploadRecord,
}

/// The record that the state keeps of an upload once it was acknowledged.
pub struct UploadRecord {
    /// The keyed fingerprint of each secret.
    pub secrets: std::collections::BTreeMap<String, String>,
    /// The bundle, to go back to.
    pub stored: Stored,
    /// Its modules, deflated, by their digests.
    pub objects: Vec<(Digest, Vec<u8>)>,
}

/// Makes what a change uploads when its turn comes, so that only a little is in memory.
pub trait Make: Send + Sync {
    /// Makes the upload of a change. The error is the reason why it can't be made.
    fn upload(&self, change: &Change) -> Result<Upload, String>;

    /// Returns the static assets of a change.
    fn assets(&self, change: &Change) -> Result<Assets, String> {
        Err(format!("BUG: nothing is known of the static assets of {}", change.worker))
    }
}

impl<F: Fn(&Change) -> Result<Upload, String> + Send + Sync> Make for F {
    fn upload(&self, change: &Change) -> Result<Upload, String> {
        self(change)
    }
}

/// The source of uploads.
pub type MakeUpload = dyn Make;

/// Finds the file of an asset in the working tree, by its path and its hash.
type FindFile = dyn Fn(&str, &str) -> Option<PathBuf>;

/// The static assets of a change.
pub struct Assets {
    /// The list.
    pub list: Arc<AssetList>,
    /// Finds the files of a path and a hash; none: there is no such file here any more.
    pub find: Box<FindFile>,
}

impl Assets {
    /// Reads a file by its hash. The error is the reason why it can't be uploaded.
    fn body(&self, hash: &str) -> Result<AssetBody, String> {
        let mut entries = self.list.files.iter();
        let (path, file) = entries
            .find(|(_, file)| file.hash == hash)
            .ok_or_else(|| format!("Cloudflare asks for the static asset {hash}, which the worker doesn't have"))?;
        let from = (self.find)(path, hash).ok_or_else(|| {
            format!("the static asset {path} ({hash}) is no longer at Cloudflare, nor in the project: check out the commit that has it")
        })?;
        let bytes = plain_file::read_through_links(&from, file.size)
            .map_err(|error| format!("the static asset {} can't be read: {error}", from.display()))?;
        if bytes.len() as u64 != file.size || flotilla_assets::hash(&bytes, path) != hash {
            return Err(format!(
                "the static asset {} has changed since the plan: run the same command again",
                from.display()
            ));
        }
        Ok(AssetBody { hash: hash.to_owned(), content_type: flotilla_assets::content_type(path), bytes: bytes.into() })
    }
}

/// A command to a running deploy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Continue.
    #[default]
    Continue,
    /// Begin nothing more, for now.
    Pause,
    /// Begin nothing more, and stop after what is in flight.
    Stop,
}

/// An event of a deploy, as it happens.
pub enum Event<'a> {
    /// A wave begins.
    Wave {
        /// Its name.
        name: &'a str,
        /// The number of the wave, from 1, and the number of waves.
        of: (usize, usize),
        /// The number of its changes.
        changes: usize,
    },
    /// A change is complete.
    Applied(&'a Change),
    /// A change failed.
    Failed(&'a Change, &'a str),
    /// A migration was applied to a database.
    Migrated(&'a DatabaseChange, &'a str),
    /// The migrations of a database failed: the workers that are bound to it stay as they are.
    MigrationFailed(&'a DatabaseChange, &'a str),
    /// A change is left to another deploy, which changed its worker first.
    Overtaken(&'a Change),
    /// The health checks of a wave begin.
    CheckingHealth {
        /// The number of workers that are checked.
        checked: usize,
        /// The number of workers that have no health check, or no address.
        unchecked: usize,
    },
    /// A worker is unhealthy.
    Unhealthy(&'a Change, &'a str),
    /// No more changes are begun, for this reason.
    Halted(&'a str),
    /// A lane waits this long for its limit.
    Waiting(&'a str, Duration),
    /// The deploy is paused, or resumed.
    Paused(bool),
    /// The progress, about once a second.
    Progress {
        /// The time that the rest takes.
        left: Duration,
        /// Each lane that has work.
        lanes: &'a [LaneProgress],
    },
}

/// The progress of a lane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneProgress {
    /// The first account whose requests go through it.
    pub account: String,
    /// Requests that were acknowledged.
    pub done: usize,
    /// The number of requests that are left, as far as the plan knows.
    pub left: usize,
    /// The time that these take, in seconds.
    pub seconds_left: f64,
}

/// The limits at which a deploy stops by itself.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The number of failures, unhealthy workers included, after which nothing more is begun.
    pub count: usize,
    /// The share of a wave, in percent, that may fail for the next one to begin.
    pub percent: f64,
    /// The time in which a worker has to report that it runs the new bundle; none if health is not checked.
    pub health: Option<Duration>,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { count: 10, percent: 0.0, health: Some(Duration::from_secs(60)) }
    }
}

/// Returns the health check of an uploaded worker, from its pack's name if that is known; none if its pack names no check or it has no
/// address.
pub type HealthCheckOf<'a> = dyn Fn(&Change, &Deployed, Option<&str>) -> Option<HealthCheck> + 'a;

/// Everything that a deploy works with.
pub struct DeployContext<'a> {
    /// Makes the requests.
    pub pool: Box<dyn Pool + 'a>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The lanes.
    pub lanes: Vec<Arc<Lane>>,
    /// The lane of each account, by the account's id: one token is one lane.
    pub lane_of: HashMap<String, LaneId>,
    /// The state.
    pub state: &'a mut State,
    /// The number under which it is recorded.
    pub run: RunId,
    /// Another deploy that runs at the same time, and whether it still does: its requests in flight are waited for.
    pub concurrent_run: Option<(RunId, Box<dyn Fn() -> bool + 'a>)>,
    /// The resources that may be changed; none: all of them, as on the local emulator, which nobody else has.
    pub ownership: Option<Ownership>,
    /// The limits at which it stops by itself.
    pub budget: Budget,
    /// Returns the health check of an uploaded worker.
    pub health_check: Box<HealthCheckOf<'a>>,
    /// Returns whether to continue, pause or stop; called a few times a second.
    pub control: Box<dyn FnMut() -> Control + 'a>,
    /// Receives the events of the deploy.
    pub on_event: Box<dyn FnMut(&Event<'_>) + 'a>,
}

/// The outcome of a deploy.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Changes that are complete.
    pub applied: usize,
    /// Changes that failed.
    pub failed: usize,
    /// Changes that were not begun, or not finished, because the deploy was stopped.
    pub skipped: usize,
    /// Changes that another deploy made in the meantime, or made unnecessary.
    pub overtaken: usize,
    /// The number of workers that were checked and are unhealthy.
    pub unhealthy: usize,
    /// Migrations that were applied to databases.
    #[serde(skip_serializing_if = "is_zero")]
    pub migrations: usize,
    /// Migrations that were pending and not attempted.
    #[serde(skip_serializing_if = "is_zero")]
    pub migrations_skipped: usize,
    /// Hosts that were written or removed.
    pub hosts: usize,
    /// Hosts that weren't.
    pub hosts_skipped: usize,
    /// Requests that were sent.
    pub requests: u64,
    /// Requests that were repeated after a failure.
    pub retries: u64,
    /// Requests that the platform refused because of its limit.
    pub throttled: u64,
    /// The time that it took, in seconds.
    pub seconds: f64,
    /// The reason why it stopped by itself, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// Workers that were rolled back because their wave wasn't healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<usize>,
    /// The changes that failed.
    pub failures: Vec<Failed>,
    /// The wave that was unhealthy, by its number from 0.
    #[serde(skip)]
    pub breached: Option<usize>,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Outcome {
    /// Returns whether everything that was planned is applied, and healthy.
    pub fn is_complete(&self) -> bool {
        self.failed + self.skipped + self.unhealthy + self.hosts_skipped + self.migrations_skipped == 0
    }

    /// Returns the next steps for the rest: nothing if everything is done.
    pub fn next_steps(&self) -> BTreeSet<NextStep> {
        let mut steps: BTreeSet<NextStep> = self.failures.iter().map(|failed| failed.next_step).collect();
        // It follows another one, which is named.
        if steps.len() > 1 {
            steps.remove(&NextStep::OtherFailure);
        }
        let is_transient = steps.iter().all(|step| *step == NextStep::Retry);
        if self.halted.is_some() && !is_transient && !steps.contains(&NextStep::Health) {
            steps.insert(NextStep::FailureLimit);
        }
        if steps.is_empty() && self.skipped + self.hosts_skipped + self.migrations_skipped > 0 {
            steps.insert(NextStep::Retry);
        }
        steps
    }
}

/// A change that failed.
#[derive(Debug, Serialize)]
pub struct Failed {
    /// The worker.
    pub worker: String,
    /// The customer.
    pub customer: String,
    /// The error.
    pub error: String,
    /// The next step of a person.
    pub next_step: NextStep,
}

#[cfg(test)]
mod tests;
