//! Applies a plan: orders, paces, retries and records. Makes no choice that the plan left open; knows the platform and
//! time only through their seams.
//!
//! One loop on one thread. It asks a lane for a permit before it hands a request to the pool, so that no thread waits for a
//! limit; it takes what was answered meanwhile, writes that to the state as one, and sleeps until the next answer, or until a
//! lane may send again.

mod between;
mod pool;
mod task;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::bundle::Resource;
use crate::clock::Clock;
use crate::digest::Digest;
use crate::failure::Failure;
use crate::pace::{Lane, Ticket};
use crate::plan::{Action, Change, Plan, Step};
use crate::platform::{BINDING_MISSING, CONCURRENT_CHANGE, Call, CallError, Health, Module, Quota, Reply};
use crate::state::{Begun, Deployed, Doubt, Entry, Found, RunId, State, Stored};

pub use pool::{Answer, Ids, Job, Pool, Rehearsal, Threads};
use task::{Next, Task, doubt, same_thing, word};

/// Requests in flight at once, over all lanes, at the most.
pub const MOST_IN_FLIGHT: usize = 256;
/// Requests in flight at once in a lane that hasn't answered yet.
const FIRST_IN_FLIGHT: usize = 8;
/// How long a request takes, as long as nothing is known of it.
pub const USUAL_LATENCY: Duration = Duration::from_millis(500);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);
/// How often a call is tried whose outcome is unknown.
const ATTEMPTS: u32 = 5;
/// How often a call may be throttled before it counts as failed: with waits of up to five minutes, over an hour.
const THROTTLED_ATTEMPTS: u32 = 20;
/// The first wait between two attempts; it doubles each time.
const BACKOFF: Duration = Duration::from_millis(500);
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
    pub lane_of: HashMap<String, usize>,
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

/// The queue of a lane.
struct Queue {
    lane: Arc<Lane>,
    /// Changes that are to be begun, by their place in the plan.
    fresh: VecDeque<usize>,
    /// Changes that were begun and have a request to make.
    ready: VecDeque<usize>,
    in_flight: usize,
    /// At most so many at once: few at first, one more with each that succeeds, few again when one doesn't. So a mistake is
    /// known before it is everywhere.
    trust: usize,
    /// Not before this time.
    wake: Duration,
    account: String,
    done: usize,
    left: usize,
    /// How long requests took lately; zero, as long as none was answered.
    latency: Duration,
}

impl Queue {
    /// How long what is left takes, as fast as the lane answers and as its limit allows.
    fn finish(&self) -> Duration {
        let at_once = self.lane.in_flight_bound().min(self.trust + self.left / 2).max(1);
        let latency = if self.latency.is_zero() { USUAL_LATENCY } else { self.latency };
        self.lane.finish(self.left, at_once as f64 / latency.as_secs_f64())
    }
}

/// The parts of a wave, one after the other. Whatever moves between workers is given up by all of them before any takes it:
/// so that swaps and chains of moves come out right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The steps that give up a domain or a route that a change of this wave takes.
    Giving(usize),
    /// All other steps.
    Rest,
}

struct Run<'a> {
    plan: &'a Plan,
    tools: Tools<'a>,
    queues: Vec<Queue>,
    tasks: HashMap<usize, Task>,
    /// The permits of the requests that are in flight.
    tickets: HashMap<usize, (usize, Ticket, Duration)>,
    /// Requests that are repeated, and when.
    again: BinaryHeap<Reverse<(Duration, usize)>>,
    /// The ids of zones, by account and name.
    zones: HashMap<(String, String), String>,
    /// The ids of other things, by account and name.
    ids: HashMap<(String, Resource, String), String>,
    /// What can't be had of an account, and why.
    lacking: HashMap<(String, Resource), String>,
    /// Who waits for the id of a zone; the first one asks.
    asking: HashMap<(String, String), Vec<usize>>,
    /// The domains and patterns that changes of this plan take, and in which wave.
    taken: HashMap<String, usize>,
    /// Steps that were done before their change's turn, and the revision since.
    given: HashMap<usize, (Vec<usize>, Option<i64>)>,
    /// Changes that are over.
    over: HashSet<usize>,
    /// Accounts whose token is refused.
    dead: HashSet<String>,
    /// What was uploaded in this wave.
    uploaded: Vec<(usize, String)>,
    order: Order,
    listened: Option<Duration>,
    told: Duration,
    outcome: Outcome,
}

/// Applies a plan once. Safe to call again: what was acknowledged is recorded and not repeated. Fails as a whole only
/// where the state can't be written.
pub fn deploy(plan: &Plan, tools: Tools<'_>) -> Result<Outcome, Failure> {
    let start = tools.clock.now();
    let queue = |lane: &Arc<Lane>| Queue {
        lane: Arc::clone(lane),
        fresh: VecDeque::new(),
        ready: VecDeque::new(),
        in_flight: 0,
        trust: FIRST_IN_FLIGHT,
        wake: Duration::ZERO,
        account: String::new(),
        done: 0,
        left: 0,
        latency: Duration::ZERO,
    };
    let mut run = Run {
        plan,
        queues: tools.lanes.iter().map(queue).collect(),
        tools,
        tasks: HashMap::new(),
        tickets: HashMap::new(),
        again: BinaryHeap::new(),
        zones: HashMap::new(),
        ids: HashMap::new(),
        lacking: HashMap::new(),
        asking: HashMap::new(),
        taken: taken(&plan.changes),
        given: HashMap::new(),
        over: HashSet::new(),
        dead: HashSet::new(),
        uploaded: Vec::new(),
        order: Order::Go,
        listened: None,
        told: start,
        outcome: Outcome::default(),
    };
    for change in &plan.changes {
        let queue = &mut run.queues[run.tools.lane_of[&change.home.account_id]];
        queue.left += change.steps.len();
        if queue.account.is_empty() {
            queue.account.clone_from(&change.account);
        }
    }
    run.resources()?;
    run.waves()?;
    let Run { mut outcome, tools, .. } = run;
    outcome.failures.sort_by(|a, b| a.worker.cmp(&b.worker));
    outcome.seconds = tools.clock.now().saturating_sub(start).as_secs_f64();
    Ok(outcome)
}

/// The domains and patterns that changes take, and in which wave.
fn taken(changes: &[Change]) -> HashMap<String, usize> {
    let steps = changes.iter().flat_map(|change| change.steps.iter().map(move |step| (step, change.wave)));
    let taken = steps.filter_map(|(step, wave)| match step {
        Step::AttachDomain { domain } => Some((domain.clone(), wave)),
        Step::AddRoute { pattern, .. } => Some((pattern.clone(), wave)),
        _ => None,
    });
    taken.collect()
}

impl Run<'_> {
    fn waves(&mut self) -> Result<(), Failure> {
        let waves = self.plan.waves.len();
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); waves];
        for (at, change) in self.plan.changes.iter().enumerate() {
            places[change.wave].push(at);
        }
        for (wave, places) in places.iter().enumerate() {
            let name = &self.plan.waves[wave];
            (self.tools.hear)(&Event::Wave { name, of: (wave + 1, waves), changes: places.len() });
            let before = self.outcome.failed;
            self.uploaded.clear();
            if !self.taken.is_empty() {
                let gives = |at: &usize| self.plan.changes[*at].steps.iter().any(|step| self.gives(step, wave));
                let giving: Vec<usize> = (0..self.plan.changes.len()).filter(gives).collect();
                self.stage(giving, Part::Giving(wave))?;
            }
            let deletes = |at: &usize| self.plan.changes[*at].action == Action::Delete;
            let (deletions, others): (Vec<usize>, Vec<usize>) = places.iter().copied().partition(deletes);
            let last = others.iter().map(|at| self.plan.changes[*at].rank).max().unwrap_or(0);
            for rank in 0..=last {
                let now = others.iter().copied().filter(|at| self.plan.changes[*at].rank == rank).collect();
                self.stage(now, Part::Rest)?;
            }
            // A host leads to its new worker when that is there, and elsewhere before its old one goes.
            self.hosts(wave)?;
            self.stage(deletions, Part::Rest)?;
            if wave + 1 == waves || self.outcome.halted.is_some() || self.order == Order::Stop {
                continue;
            }
            if let Some(deadline) = self.tools.budget.health {
                self.health(deadline)?;
            }
            let failed = self.outcome.failed - before + self.outcome.unhealthy;
            let allowed = (places.len() as f64 * self.tools.budget.percent / 100.0).floor() as usize;
            if failed > allowed && self.outcome.halted.is_none() {
                self.outcome.breached = Some(wave);
                self.halt(format!(
                    "{failed} of the {} changes of the wave `{name}` failed or aren't well",
                    places.len()
                ));
            }
        }
        Ok(())
    }

    /// Nothing more is begun.
    fn halt(&mut self, why: String) {
        (self.tools.hear)(&Event::Halted(&why));
        self.outcome.halted = Some(why);
    }

    /// Whether a step gives up what a change of this wave takes.
    fn gives(&self, step: &Step, wave: usize) -> bool {
        let thing = match step {
            Step::DetachDomain { domain, .. } | Step::DropDomain { domain } => domain,
            Step::RemoveRoute { pattern, .. } | Step::DropRoute { pattern, .. } => pattern,
            _ => return false,
        };
        self.taken.get(thing) == Some(&wave)
    }

    /// The steps of a change that are to be done in a part.
    fn steps(&self, at: usize, part: Part) -> Vec<usize> {
        let done = self.given.get(&at).map(|(done, _)| done);
        let open = |step: &usize| done.is_none_or(|done| !done.contains(step));
        let steps = &self.plan.changes[at].steps;
        match part {
            Part::Giving(wave) => {
                (0..steps.len()).filter(|step| self.gives(&steps[*step], wave) && open(step)).collect()
            }
            Part::Rest => (0..steps.len()).filter(open).collect(),
        }
    }

    /// Makes changes until none of these is left.
    fn stage(&mut self, places: Vec<usize>, part: Part) -> Result<(), Failure> {
        for at in places {
            if !self.over.contains(&at) {
                let lane = self.lane(at);
                self.queues[lane].fresh.push_back(at);
            }
        }
        loop {
            self.listen();
            let now = self.tools.clock.now();
            while self.again.peek().is_some_and(|Reverse((when, _))| *when <= now) {
                let Some(Reverse((_, at))) = self.again.pop() else { break };
                let lane = self.lane(at);
                self.queues[lane].ready.push_back(at);
            }
            self.begin(part)?;
            let idle = self.queues.iter().all(|queue| queue.fresh.is_empty() && queue.ready.is_empty());
            if idle && self.tickets.is_empty() && self.again.is_empty() {
                return Ok(());
            }
            let until = self.until();
            let answers = self.tools.pool.wait(until);
            if !answers.is_empty() {
                self.take(answers, part)?;
            }
        }
    }

    /// Asks for orders, now and then.
    fn listen(&mut self) {
        let now = self.tools.clock.now();
        if self.order == Order::Stop || self.listened.is_some_and(|at| now < at + LISTEN) {
            return;
        }
        self.listened = Some(now);
        if now >= self.told + TELL {
            self.told = now;
            self.tell();
        }
        let order = (self.tools.orders)();
        if (order == Order::Pause) != (self.order == Order::Pause) && order != Order::Stop {
            (self.tools.hear)(&Event::Paused(order == Order::Pause));
        }
        self.order = order;
    }

    /// Tells how far it is.
    fn tell(&mut self) {
        let lanes: Vec<LaneProgress> = self
            .queues
            .iter()
            .filter(|queue| queue.left > 0)
            .map(|queue| LaneProgress {
                account: queue.account.clone(),
                done: queue.done,
                left: queue.left,
                seconds_left: queue.finish().as_secs_f64(),
            })
            .collect();
        let left = lanes.iter().map(|lane| lane.seconds_left).fold(0.0, f64::max);
        (self.tools.hear)(&Event::Progress { left: Duration::from_secs_f64(left), lanes: &lanes });
    }

    fn lane(&self, at: usize) -> usize {
        self.tools.lane_of[&self.plan.changes[at].home.account_id]
    }

    /// When the loop has something to do again, if nothing is answered before.
    fn until(&self) -> Duration {
        let now = self.tools.clock.now();
        let full = self.tickets.len() >= self.tools.pool.size();
        let wakes = self.queues.iter().filter(|queue| {
            !full && queue.wake > now && (!queue.ready.is_empty() || !queue.fresh.is_empty() && self.order == Order::Go)
        });
        let again = self.again.peek().map(|Reverse((when, _))| *when);
        wakes.map(|queue| queue.wake).chain(again).fold(now + LISTEN, Duration::min)
    }

    /// Begins as many requests as there are permits for. What is noted before they are sent is written as one.
    fn begin(&mut self, part: Part) -> Result<(), Failure> {
        let mut jobs: Vec<(usize, usize, Ticket)> = Vec::new();
        let now = self.tools.clock.now();
        let mut begun = false;
        for lane in 0..self.queues.len() {
            loop {
                self.drop_what_is_over(lane)?;
                let queue = &self.queues[lane];
                let waits = queue.ready.is_empty() && (queue.fresh.is_empty() || self.order == Order::Pause);
                if waits
                    || now < queue.wake
                    || queue.in_flight >= queue.lane.in_flight_bound().min(queue.trust)
                    || self.tickets.len() + jobs.len() >= self.tools.pool.size()
                {
                    break;
                }
                let ticket = match queue.lane.try_acquire() {
                    Ok(ticket) => ticket,
                    Err(wait) => {
                        self.queues[lane].wake = now + wait;
                        if wait >= Duration::from_secs(1) {
                            let account = self.queues[lane].ready.front().or(self.queues[lane].fresh.front());
                            let account = account.map_or("", |at| &self.plan.changes[*at].account);
                            (self.tools.hear)(&Event::Waiting(account, wait));
                        }
                        break;
                    }
                };
                let at = match self.queues[lane].ready.pop_front() {
                    Some(at) => Some(at),
                    None => {
                        if !begun {
                            begun = true;
                            self.tools.state.open_batch()?;
                        }
                        self.prepare(lane, part)?
                    }
                };
                let Some(at) = at else {
                    self.queues[lane].lane.unused(ticket);
                    continue;
                };
                self.queues[lane].in_flight += 1;
                jobs.push((at, lane, ticket));
            }
        }
        if begun {
            self.tools.state.close_batch()?;
        }
        for (at, lane, ticket) in jobs {
            self.send(at, lane, ticket)?;
        }
        Ok(())
    }

    /// Hands a task's next request to the pool. One that waits for a zone's id gives its permit back.
    fn send(&mut self, at: usize, lane: usize, ticket: Ticket) -> Result<(), Failure> {
        let change = &self.plan.changes[at];
        let account = change.home.account_id.clone();
        let mut next = self.next(at);
        if let Next::Zone(name) = &next {
            // An earlier deploy can have found it out.
            if let Some(id) = self.tools.state.found(&account, Found::Zone, name)? {
                self.zones.insert((account.clone(), name.clone()), id);
                next = self.next(at);
            }
        }
        let job = match next {
            Next::Upload => Job::Upload(Box::new(change.clone()), self.ids_of(change)),
            Next::Call(call) => Job::Call(change.home.clone(), call),
            Next::Zone(name) => {
                let waiting = self.asking.entry((account, name.clone())).or_default();
                waiting.push(at);
                if waiting.len() > 1 {
                    self.queues[lane].in_flight -= 1;
                    self.queues[lane].lane.unused(ticket);
                    return Ok(());
                }
                Job::Call(change.home.clone(), Call::FindZone { name })
            }
            Next::Done => unreachable!("BUG: a step that is done isn't sent"),
        };
        self.outcome.requests += 1;
        self.tickets.insert(at, (lane, ticket, self.tools.clock.now()));
        self.tools.pool.submit(at, job);
        Ok(())
    }

    /// The ids that a change's upload needs, as far as they are known.
    fn ids_of(&self, change: &Change) -> Ids {
        let id = |(resource, name): &(Resource, String)| {
            let id = self.ids.get(&(change.home.account_id.clone(), *resource, name.clone()))?;
            Some((*resource, name.clone(), id.clone()))
        };
        change.needs.iter().filter_map(id).collect()
    }

    /// What comes next in a task.
    fn next(&self, at: usize) -> Next {
        let change = &self.plan.changes[at];
        let account = &change.home.account_id;
        self.tasks[&at].next(change, |name| self.zones.get(&(account.clone(), name.to_owned())).cloned())
    }

    /// Takes the next change that is to be begun, and notes that it begins: what is sent may be done, whatever becomes of
    /// this program. Nothing, if none is left.
    fn prepare(&mut self, lane: usize, part: Part) -> Result<Option<usize>, Failure> {
        while let Some(at) = self.queues[lane].fresh.pop_front() {
            let change = &self.plan.changes[at];
            let mut steps = self.steps(at, part);
            let planned = steps.len();
            // A list of the account's databases, or another change, can have found it out since the plan.
            steps.retain(|step| match &change.steps[*step] {
                Step::CreateDatabase { name, .. } => {
                    let key = (change.home.account_id.clone(), Resource::Database, name.clone());
                    !self.ids.contains_key(&key)
                }
                _ => true,
            });
            self.queues[lane].left = self.queues[lane].left.saturating_sub(planned - steps.len());
            if steps.is_empty() {
                self.end(at, part, Ok(()));
                continue;
            }
            let id = (change.home.clone(), change.worker.clone());
            if let Some(why) = self.hindrance(change, part)? {
                self.queues[lane].left = self.queues[lane].left.saturating_sub(change.steps.len());
                self.end(at, part, Err(why));
                continue;
            }
            let earlier = self.tools.state.begun_one(&id)?;
            let in_flight =
                |earlier: &Begun| self.tools.beside.as_ref().is_some_and(|(run, runs)| earlier.run == *run && runs());
            if earlier.as_ref().is_some_and(in_flight) {
                // The other deploy has it in flight, and writes to the state as well: it is looked at again in a moment.
                self.again_fresh(at);
                return Ok(None);
            }
            let live = self.tools.state.one(&id)?;
            let expected = self.given.get(&at).map_or(change.revision, |(_, revision)| *revision);
            let faster = earlier.as_ref().is_some_and(|earlier| earlier.run > self.tools.run);
            if faster || live.as_ref().map(|live| live.revision) != expected {
                self.over.insert(at);
                let steps = change.steps.len();
                self.queues[lane].left = self.queues[lane].left.saturating_sub(steps);
                self.outcome.overtaken += 1;
                (self.tools.hear)(&Event::Overtaken(change));
                continue;
            }
            let left: Vec<Doubt> = steps.iter().map(|step| doubt(&change.steps[*step])).collect();
            let earlier = earlier.map(|earlier| earlier.doubts).unwrap_or_default();
            let begun = Begun {
                account: change.account.clone(),
                customer: change.customer.clone(),
                environment: change.environment,
                digest: change.digest,
                doubts: union(&left, &earlier),
                run: self.tools.run,
            };
            self.tools.state.begin(&id, &begun)?;
            let task = Task {
                id,
                steps,
                at: 0,
                live,
                earlier,
                left,
                attempts: 0,
                throttled: 0,
                lost: false,
                found: Default::default(),
            };
            self.tasks.insert(at, task);
            return Ok(Some(at));
        }
        Ok(None)
    }

    /// A change that is to be begun, but not yet.
    fn again_fresh(&mut self, at: usize) {
        let lane = self.lane(at);
        self.queues[lane].fresh.push_back(at);
        self.queues[lane].wake = self.tools.clock.now() + LISTEN;
    }

    /// Ends what isn't to go on: all of it after a stop, what wasn't begun after a halt, and what belongs to a refused token.
    fn drop_what_is_over(&mut self, lane: usize) -> Result<(), Failure> {
        let stopping = self.order == Order::Stop;
        let queue = &self.queues[lane];
        if !stopping && self.outcome.halted.is_none() && self.dead.is_empty() {
            return Ok(());
        }
        if queue.fresh.is_empty() && queue.ready.is_empty() {
            return Ok(());
        }
        let dead = |at: &usize| self.dead.contains(&self.plan.changes[*at].home.account_id);
        let halted = stopping || self.outcome.halted.is_some();
        let (gone, fresh): (Vec<usize>, Vec<usize>) = queue.fresh.iter().partition(|at| halted || dead(at));
        let (ended, ready): (Vec<usize>, Vec<usize>) = queue.ready.iter().partition(|at| stopping || dead(at));
        self.queues[lane].fresh = fresh.into();
        self.queues[lane].ready = ready.into();
        for at in gone {
            let steps = self.plan.changes[at].steps.len();
            self.queues[lane].left = self.queues[lane].left.saturating_sub(steps);
            self.over.insert(at);
            self.outcome.skipped += 1;
        }
        for at in ended {
            self.abandon(at)?;
            self.over.insert(at);
            self.outcome.skipped += 1;
        }
        Ok(())
    }

    /// Forgets a task: nothing of what follows was sent, but what was in doubt before still is.
    fn abandon(&mut self, at: usize) -> Result<(), Failure> {
        let Some(mut task) = self.tasks.remove(&at) else { return Ok(()) };
        let lane = self.lane(at);
        self.queues[lane].left = self.queues[lane].left.saturating_sub(task.steps.len() - task.at);
        if task.lost {
            let this = task.left.remove(0);
            task.earlier.retain(|other| !same_thing(other, &this));
            task.earlier.push(this);
        }
        self.tools.state.settle(&task.id, &task.earlier)
    }

    /// Takes in what was answered, and writes it to the state as one.
    fn take(&mut self, answers: Vec<(usize, Answer)>, part: Part) -> Result<(), Failure> {
        self.tools.state.open_batch()?;
        // What is told of is told once it was written.
        let mut ended = Vec::new();
        for (at, answer) in answers {
            if let Some(result) = self.answered(at, answer, part)? {
                ended.push((at, result));
            }
        }
        self.tools.state.close_batch()?;
        for (at, result) in ended {
            self.end(at, part, result);
        }
        Ok(())
    }

    /// Takes in one answer. Something, if its change came to an end with it.
    fn answered(&mut self, at: usize, answer: Answer, part: Part) -> Result<Option<Result<(), String>>, Failure> {
        let change = &self.plan.changes[at];
        let account = change.home.account_id.clone();
        let (lane, ticket, sent) = self.tickets.remove(&at).expect("BUG: an answer has a permit");
        let took = self.tools.clock.now().saturating_sub(sent);
        let queue = &mut self.queues[lane];
        queue.latency = if queue.latency.is_zero() { took } else { (queue.latency * 15 + took) / 16 };
        queue.in_flight -= 1;
        queue.trust = match &answer {
            Answer::Called(Ok(_), ..) => queue.trust + 1,
            Answer::Called(Err(CallError::Throttled { .. }), ..) => queue.trust,
            _ => FIRST_IN_FLIGHT,
        };
        let lane = Arc::clone(&queue.lane);
        let (result, quota, made) = match answer {
            Answer::Called(result, quota, made) => (result, quota, made),
            Answer::NotMade(why) => {
                lane.unused(ticket);
                self.abandon(at)?;
                return Ok(Some(Err(why)));
            }
            Answer::Health(_) => unreachable!("BUG: health is asked between waves"),
        };
        self.answer_lane(&lane, ticket, &result, quota.as_ref());
        if let Err(CallError::Unauthorized(_)) = result {
            // One failure tells it; the account's other changes would fail alike.
            if !self.dead.insert(account.clone()) {
                self.abandon(at)?;
                self.over.insert(at);
                self.outcome.skipped += 1;
                return Ok(None);
            }
        }
        let asked: Option<String> = self
            .asking
            .iter()
            .find(|((of, _), waiting)| *of == account && waiting.first() == Some(&at))
            .map(|((_, name), _)| name.clone());
        let result = match self.outlast(at, result) {
            Some(result) => result,
            None => {
                if let Some(name) = asked {
                    // It asks again; the others wait on.
                    self.asking.entry((account, name)).or_default().retain(|other| *other != at);
                    self.wake_who_asked(&change.home.account_id.clone());
                }
                return Ok(None);
            }
        };
        if let Some(name) = asked {
            return self.zone(at, account, name, result);
        }
        if let Err(CallError::Rejected { code, .. }) = &result
            && BINDING_MISSING.contains(code)
            && self.tasks[&at].step(change) == Some(&Step::Upload)
        {
            self.lose(change)?;
        }
        let zones = &self.zones;
        let zone = |name: &str| zones.get(&(account.clone(), name.to_owned())).cloned();
        let task = self.tasks.get_mut(&at).expect("BUG: an answer has a task");
        let lost = task.lost;
        let made = made.filter(|_| result.is_ok());
        if let (Some(made), Some(_)) = (&made, task.step(change)) {
            let before = task.live.take();
            let mut live = before.map(|before| before.live).unwrap_or_default();
            live.secrets.clone_from(&made.secrets);
            task.live = Some(Deployed {
                account: change.account.clone(),
                customer: change.customer.clone(),
                environment: change.environment,
                digest: change.digest,
                revision: 0,
                deployed_at: self.tools.clock.unix(),
                rejected: change.rejects,
                drift: String::new(),
                live,
            });
        }
        let stale = task.live.is_none()
            && !matches!(
                task.step(change),
                Some(
                    Step::Delete
                        | Step::DropDomain { .. }
                        | Step::DropRoute { .. }
                        | Step::CreateDatabase { .. }
                        | Step::DeleteDatabase { .. }
                        | Step::Upload
                )
            );
        let done = match task.answered(change, result, zone) {
            Ok(done) if !stale => done,
            Ok(_) => {
                self.abandon(at)?;
                return Ok(Some(Err("the plan is stale: the state no longer has this worker".to_owned())));
            }
            Err(why) => {
                task.lost = lost;
                self.abandon(at)?;
                return Ok(Some(Err(why)));
            }
        };
        if !done {
            let lane = self.lane(at);
            self.queues[lane].ready.push_back(at);
            return Ok(None);
        }
        self.acknowledged(at, made, part)
    }

    /// Tells the lane what came of its request.
    fn answer_lane(&mut self, lane: &Lane, ticket: Ticket, result: &Result<Reply, CallError>, quota: Option<&Quota>) {
        if let Err(CallError::Throttled { retry_after }) = result {
            self.outcome.throttled += 1;
            lane.throttled(ticket, *retry_after);
        } else {
            lane.answered(ticket, quota);
        }
    }

    /// Repeats what can be repeated; gives what can't.
    fn outlast(&mut self, at: usize, result: Result<Reply, CallError>) -> Option<Result<Reply, CallError>> {
        let change = &self.plan.changes[at];
        let lane = self.tools.lane_of[&change.home.account_id];
        let task = self.tasks.get_mut(&at).expect("BUG: an answer has a task");
        match result {
            Err(CallError::Throttled { retry_after }) => {
                task.throttled += 1;
                if task.throttled >= THROTTLED_ATTEMPTS {
                    return Some(Err(CallError::Throttled { retry_after }));
                }
                self.queues[lane].ready.push_front(at);
                None
            }
            Err(CallError::Unavailable(message)) => {
                task.lost = true;
                task.attempts += 1;
                if task.attempts >= ATTEMPTS {
                    let told = format!("{message}, {ATTEMPTS} times in a row");
                    return Some(Err(CallError::Unavailable(told)));
                }
                let wait = backoff(change, task.attempts);
                self.outcome.retries += 1;
                self.again.push(Reverse((self.tools.clock.now() + wait, at)));
                None
            }
            Err(CallError::Rejected { code: CONCURRENT_CHANGE, .. }) if task.attempts + 1 < ATTEMPTS => {
                task.attempts += 1;
                let wait = backoff(change, task.attempts);
                self.outcome.retries += 1;
                self.again.push(Reverse((self.tools.clock.now() + wait, at)));
                None
            }
            other => Some(other),
        }
    }

    /// A zone's id: found out once, then kept.
    fn zone(
        &mut self,
        at: usize,
        account: String,
        name: String,
        result: Result<Reply, CallError>,
    ) -> Result<Option<Result<(), String>>, Failure> {
        let waiting = self.asking.remove(&(account.clone(), name.clone())).unwrap_or_default();
        let failed = match result {
            Ok(Reply::Id(id)) => {
                self.tools.state.keep(&account, Found::Zone, &name, &id)?;
                self.zones.insert((account, name), id);
                None
            }
            Ok(_) => Some(format!("the account has no zone `{name}`, or the token can't see it")),
            Err(error) => Some(error.to_string()),
        };
        for other in waiting {
            if failed.is_none() || other != at {
                // Who waited asks for itself, if it has to.
                let lane = self.lane(other);
                self.queues[lane].ready.push_back(other);
            }
        }
        match failed {
            None => Ok(None),
            Some(why) => {
                self.abandon(at)?;
                Ok(Some(Err(why)))
            }
        }
    }

    /// Those who wait for a zone that nobody asks for any more ask for themselves.
    fn wake_who_asked(&mut self, account: &str) {
        let names: Vec<(String, String)> = self.asking.keys().filter(|(of, _)| of == account).cloned().collect();
        for key in names {
            for at in self.asking.remove(&key).unwrap_or_default() {
                let lane = self.lane(at);
                self.queues[lane].ready.push_back(at);
            }
        }
    }

    /// Records a step that was acknowledged, and goes on to the next one.
    fn acknowledged(
        &mut self,
        at: usize,
        made: Option<Box<Made>>,
        part: Part,
    ) -> Result<Option<Result<(), String>>, Failure> {
        let change = &self.plan.changes[at];
        let task = self.tasks.get_mut(&at).expect("BUG: an answer has a task");
        let step = task.step(change).expect("BUG: something was acknowledged");
        let this = doubt(step);
        task.earlier.retain(|other| !same_thing(other, &this));
        let is_last = task.at + 1 == task.steps.len();
        let left = match is_last && part == Part::Rest {
            true => Vec::new(),
            false => union(&task.left[1..], &task.earlier),
        };
        let action = match step {
            Step::Upload if change.rejects.is_some() => "rollback",
            Step::Upload => change.action.as_str(),
            step => word(step),
        };
        let entry = Entry {
            run: self.tools.run,
            at: self.tools.clock.unix(),
            action,
            reasons: if made.is_some() || *step == Step::Delete { &change.reasons } else { &[] },
            left: &left,
        };
        let state = &mut *self.tools.state;
        if let (Step::CreateDatabase { name, .. }, Some(Some(database))) = (step, &task.found.id) {
            state.keep(&change.home.account_id, between::found(Resource::Database), name, database)?;
            let key = (change.home.account_id.clone(), Resource::Database, name.clone());
            self.ids.insert(key, database.clone());
        }
        if let Step::DeleteDatabase { name } = step {
            state.lose(&change.home.account_id, between::found(Resource::Database), name)?;
            self.ids.remove(&(change.home.account_id.clone(), Resource::Database, name.clone()));
        }
        if let Some(made) = &made {
            state.store(&change.digest, &made.stored, &made.objects)?;
        }
        match (&mut task.live, step) {
            (live, Step::Delete) => {
                let gone = live.take().unwrap_or_else(|| nothing_of(change));
                state.forget(&task.id, &gone, &entry)?;
            }
            (Some(live), _) => state.record(&task.id, live, &entry)?,
            (None, _) => state.settle(&task.id, &left)?,
        }
        if made.is_some()
            && let Some(address) = task.live.as_ref().and_then(|live| (self.tools.address)(change, live))
        {
            self.uploaded.push((at, address));
        }
        task.proceed();
        let lane = self.lane(at);
        self.queues[lane].done += 1;
        self.queues[lane].left = self.queues[lane].left.saturating_sub(1);
        if !is_last {
            let lane = self.lane(at);
            self.queues[lane].ready.push_back(at);
            return Ok(None);
        }
        let task = self.tasks.remove(&at).expect("BUG: it was there");
        if let Part::Giving(_) = part {
            let (done, revision) = self.given.entry(at).or_default();
            done.extend(task.steps);
            *revision = task.live.map(|live| live.revision);
        }
        Ok(Some(Ok(())))
    }

    /// A change came to the end of a part.
    fn end(&mut self, at: usize, part: Part, result: Result<(), String>) {
        let change = &self.plan.changes[at];
        match result {
            Ok(()) if part != Part::Rest => {}
            Ok(()) => {
                self.outcome.applied += 1;
                (self.tools.hear)(&Event::Applied(change));
            }
            Err(error) => {
                self.over.insert(at);
                self.failed(at, error);
            }
        }
    }

    fn failed(&mut self, at: usize, error: String) {
        let change = &self.plan.changes[at];
        (self.tools.hear)(&Event::Failed(change, &error));
        self.outcome.failed += 1;
        let (worker, customer) = (change.worker.clone(), change.customer.clone());
        self.outcome.failures.push(Failed { worker, customer, error });
        self.spend();
    }

    /// Halts when too much has failed.
    fn spend(&mut self) {
        let failed = self.outcome.failed + self.outcome.unhealthy;
        if failed >= self.tools.budget.count && self.outcome.halted.is_none() {
            self.halt(format!("{failed} changes failed, as many as may"));
        }
    }

    /// Asks the workers of a wave whether they are well and run what was uploaded, until they are or it takes too long.
    fn health(&mut self, deadline: Duration) -> Result<(), Failure> {
        let uploaded = std::mem::take(&mut self.uploaded);
        (self.tools.hear)(&Event::Asking(uploaded.len()));
        let addresses: HashMap<usize, String> = uploaded.into_iter().collect();
        let end = self.tools.clock.now() + deadline;
        let mut open: BTreeSet<(Duration, usize)> = addresses.keys().map(|at| (Duration::ZERO, *at)).collect();
        let mut asked = 0;
        while !open.is_empty() || asked > 0 {
            self.listen();
            let now = self.tools.clock.now();
            while let Some((when, at)) = open.first().copied() {
                if when > now || asked >= self.tools.pool.size() {
                    break;
                }
                open.remove(&(when, at));
                if self.order == Order::Stop {
                    continue;
                }
                asked += 1;
                self.tools.pool.submit(at, Job::Health(addresses[&at].clone()));
            }
            let until = open.first().map_or(now + LISTEN, |(when, _)| (*when).clamp(now, now + LISTEN));
            for (at, answer) in self.tools.pool.wait(until) {
                asked -= 1;
                let Answer::Health(health) = answer else { unreachable!("BUG: only health was asked") };
                let change = &self.plan.changes[at];
                let why = match health {
                    Health::Healthy(runs) if runs == change.digest.to_string() => continue,
                    Health::Healthy(_) => "it runs something else than was uploaded".to_owned(),
                    Health::Degraded(word) => format!("it says that it is {word}"),
                    Health::Unreachable(why) => format!("it can't be reached: {why}"),
                };
                let now = self.tools.clock.now();
                if now < end {
                    open.insert((now + ASK_AGAIN, at));
                    continue;
                }
                (self.tools.hear)(&Event::Unhealthy(change, &why));
                self.outcome.unhealthy += 1;
                let (worker, customer) = (change.worker.clone(), change.customer.clone());
                self.outcome.failures.push(Failed {
                    worker,
                    customer,
                    error: format!("uploaded, but not well: {why}"),
                });
                self.spend();
            }
        }
        Ok(())
    }
}

/// Doubts, and those of another list that are about something else.
fn union(doubts: &[Doubt], more: &[Doubt]) -> Vec<Doubt> {
    let others = more.iter().filter(|other| !doubts.iter().any(|doubt| same_thing(doubt, other)));
    doubts.iter().chain(others).cloned().collect()
}

/// A worker of which nothing is known but that it is to go.
fn nothing_of(change: &Change) -> Deployed {
    Deployed {
        account: change.account.clone(),
        customer: change.customer.clone(),
        environment: change.environment,
        digest: change.digest,
        revision: 0,
        deployed_at: 0,
        rejected: None,
        drift: String::new(),
        live: Default::default(),
    }
}

/// How long to wait before the next attempt: twice as long each time, and not the same for all workers.
fn backoff(change: &Change, attempt: u32) -> Duration {
    let spread =
        change.worker.bytes().fold(attempt, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) % 50;
    BACKOFF * 2u32.pow(attempt - 1) * (100 + spread) / 100
}

#[cfg(test)]
mod tests;
