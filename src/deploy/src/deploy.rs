//! Applies a plan: orders, paces, retries and records. Makes no choice that the plan left open; knows the platform and
//! time only through their seams.
//!
//! One loop on one thread. It asks a lane for a permit before it hands a request to the pool, so that no thread waits for a
//! limit; it takes what was answered meanwhile, writes that to the state as one, and sleeps until the next answer, or until a
//! lane may send again.

mod answer;
mod begin;
mod health;
mod hosts;
mod index;
mod lookups;
mod pool;
mod run;
mod schedule;
mod task;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::pace::Lane;
use crate::plan::Change;
use crate::state::{Deployed, RunId, State, Stored};
use flotilla_model::clock::Clock;
use flotilla_model::digest::Digest;
use flotilla_model::platform::Module;

pub use index::{ChangeIndex, HostWriteId, LaneId, LookupId, WaveIndex};
pub use pool::{Answer, Ids, Job, Pool, Rehearsal, Threads};
pub use run::deploy;
pub use schedule::RequestId;

/// Requests in flight at once, over all lanes, at the most.
pub const MOST_IN_FLIGHT: usize = 256;
/// Requests in flight at once in a lane that hasn't answered yet.
const FIRST_IN_FLIGHT: usize = 8;
/// How long a request takes, as long as nothing is known of it.
pub const USUAL_LATENCY: Duration = Duration::from_millis(500);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);
/// How often a worker is asked whether it is well, until it is.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often orders are looked for.
const LISTEN: Duration = Duration::from_millis(200);

/// What an upload consists of.
pub struct Upload {
    /// The metadata, with the values of secrets.
    pub metadata: Value,
    /// The modules.
    pub modules: Vec<Module>,
    /// What is known once it was acknowledged.
    pub made: Made,
}

/// What is known of an upload once it was acknowledged.
pub struct Made {
    /// The keyed fingerprint of each secret.
    pub secrets: std::collections::BTreeMap<String, String>,
    /// The bundle, to go back to.
    pub stored: Stored,
    /// Its modules, deflated, by their digests.
    pub objects: Vec<(Digest, Vec<u8>)>,
}

/// Makes the upload of a change; only when it is its turn, so that no more than a few are in memory.
pub type MakeUpload = dyn Fn(&Change) -> Result<Upload, String> + Send + Sync;

/// What is wished of a deploy while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    #[default]
    Go,
    /// Begin nothing more, for now.
    Pause,
    /// Begin nothing more, and end after what is in flight.
    Stop,
}

/// What happens in a deploy, as it happens.
pub enum Event<'a> {
    /// A wave begins.
    Wave {
        /// Its name.
        name: &'a str,
        /// Which one it is, from 1, and of how many.
        of: (usize, usize),
        /// How many changes it has.
        changes: usize,
    },
    /// A change is complete.
    Applied(&'a Change),
    /// A change failed.
    Failed(&'a Change, &'a str),
    /// A change that is left to another deploy, which was faster.
    Overtaken(&'a Change),
    /// The workers of a wave are asked whether they are well; so many have an address.
    Asking(usize),
    /// A worker isn't well.
    Unhealthy(&'a Change, &'a str),
    /// Nothing more is begun, because of this.
    Halted(&'a str),
    /// A lane waits for the limit, for so long.
    Waiting(&'a str, Duration),
    /// It pauses, or goes on.
    Paused(bool),
    /// How far it is; about once a second.
    Progress {
        /// How long the rest takes.
        left: Duration,
        /// Each lane that has something to do.
        lanes: &'a [LaneProgress],
    },
}

/// How far a lane is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneProgress {
    /// The first account whose requests go through it.
    pub account: String,
    /// Requests that were acknowledged.
    pub done: usize,
    /// Requests that are left, as far as the plan tells.
    pub left: usize,
    /// How long these take, in seconds.
    pub seconds_left: f64,
}

/// When a deploy stops by itself.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// So many failures, workers that aren't well included, and nothing more is begun.
    pub count: usize,
    /// So much of a wave, in percent, may fail for the next one to begin.
    pub percent: f64,
    /// How long a worker may take to say that it runs the new bundle; none, if they aren't asked.
    pub health: Option<Duration>,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { count: 10, percent: 0.0, health: Some(Duration::from_secs(60)) }
    }
}

/// Where the worker of a change answers, if it has an address.
pub type Address<'a> = dyn Fn(&Change, &Deployed) -> Option<String> + 'a;

/// What a deploy works with.
pub struct Tools<'a> {
    /// Where requests are made.
    pub pool: Box<dyn Pool + 'a>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The lanes.
    pub lanes: Vec<Arc<Lane>>,
    /// Which lane an account's requests go through, by the account's id: one token is one lane.
    pub lane_of: HashMap<String, LaneId>,
    /// The state.
    pub state: &'a mut State,
    /// Under which number it is recorded.
    pub run: RunId,
    /// A deploy beside which this one runs, and whether it still does: what that one has in flight is waited for.
    pub beside: Option<(RunId, Box<dyn Fn() -> bool + 'a>)>,
    /// When it stops by itself.
    pub budget: Budget,
    /// Where a worker answers, if it has an address.
    pub address: Box<Address<'a>>,
    /// What is wished now; asked a few times a second.
    pub orders: Box<dyn FnMut() -> Order + 'a>,
    /// Hears what happens.
    pub hear: Box<dyn FnMut(&Event<'_>) + 'a>,
}

/// What a deploy did.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Changes that are complete.
    pub applied: usize,
    /// Changes that failed.
    pub failed: usize,
    /// Changes that were not begun, or not finished, because the deploy was stopped.
    pub skipped: usize,
    /// Changes that another deploy made meanwhile, or that it made needless.
    pub overtaken: usize,
    /// Workers that were asked and aren't well.
    pub unhealthy: usize,
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
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Why it stopped by itself, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// Workers that were put back to what they ran before, because their wave wasn't healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<usize>,
    /// What failed.
    pub failures: Vec<Failed>,
    /// The wave that was not as it should be, by its number from 0.
    #[serde(skip)]
    pub breached: Option<usize>,
}

impl Outcome {
    /// Whether everything that was planned is done, and well.
    pub fn is_complete(&self) -> bool {
        self.failed + self.skipped + self.unhealthy + self.hosts_skipped == 0
    }
}

/// A change that failed.
#[derive(Debug, Serialize)]
pub struct Failed {
    /// The worker.
    pub worker: String,
    /// The customer.
    pub customer: String,
    /// Why.
    pub error: String,
}

#[cfg(test)]
mod tests;
