//! Applies a plan: orders, paces, retries and records. Makes no choice that the plan left open; knows the platform and
//! time only through their seams.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blocking_threadpool::Builder;
use serde::Serialize;
use serde_json::Value;

use crate::clock::Clock;
use crate::failure::Failure;
use crate::pace::Lane;
use crate::plan::{Change, Plan, Step};
use crate::platform::{CONCURRENT_CHANGE, Call, CallError, Module, Platform, ROUTE_EXISTS, Reply};
use crate::state::{Begun, Deployed, Doubt, Found, Live, State, WorkerId};

/// Changes in flight at once, over all lanes. An upload takes the platform about a second, and the limit is four
/// requests a second: eight keep a lane full.
const IN_FLIGHT: usize = 8;
/// How often a call is tried whose outcome is unknown.
const ATTEMPTS: u32 = 5;
/// How often a call may be throttled before it counts as failed: with waits of up to five minutes, over an hour.
const THROTTLED_ATTEMPTS: u32 = 20;
/// The first wait between two attempts; it doubles each time.
const BACKOFF: Duration = Duration::from_millis(500);

/// What an upload consists of.
pub struct Upload {
    /// The metadata, with the values of secrets.
    pub metadata: Value,
    /// The modules.
    pub modules: Vec<Module>,
    /// What is live afterwards; domains, routes and the like are as they were before.
    pub live: Live,
}

/// Makes the upload of a change; only when it is its turn, so that no more than a few are in memory.
pub type MakeUpload = dyn Fn(&Change) -> Result<Upload, String> + Send + Sync;

/// Hears of each change that ended, and why it failed.
pub type Done = dyn Fn(&Change, Result<(), &str>) + Send + Sync;

/// What a deploy works with.
pub struct Tools {
    /// The platform.
    pub platform: Arc<dyn Platform>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Each account's lane, by the account's id.
    pub lanes: HashMap<String, Arc<Lane>>,
    /// The state.
    pub state: Mutex<State>,
    /// Makes uploads.
    pub upload: Box<MakeUpload>,
    /// Set from outside to stop after what is in flight.
    pub stop: Arc<AtomicBool>,
    /// Called after each change.
    pub done: Box<Done>,
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
    /// Requests that were sent.
    pub requests: u64,
    /// Requests that were repeated after a failure.
    pub retries: u64,
    /// Requests that the platform refused because of its limit.
    pub throttled: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What failed.
    pub failures: Vec<Failed>,
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

/// Why a change did not come to its end.
enum Stopped {
    /// It failed; the others go on.
    Failed(String),
    /// It was stopped with the deploy.
    Skipped,
}

struct Run {
    tools: Tools,
    live: Mutex<BTreeMap<WorkerId, Deployed>>,
    /// The changes that an earlier deploy began and didn't end.
    begun: BTreeMap<WorkerId, Begun>,
    /// The domains and patterns that changes of this plan take.
    taken: HashSet<String>,
    /// The workers whose change ended while it gave.
    over: Mutex<HashSet<WorkerId>>,
    /// The workers of which a call's outcome is unknown.
    unsure: Mutex<HashSet<WorkerId>>,
    /// Held by whoever asks for a zone.
    asking: Mutex<()>,
    dead: Mutex<HashSet<String>>,
    outcome: Mutex<Outcome>,
    ended: AtomicU64,
    requests: AtomicU64,
    retries: AtomicU64,
    throttled: AtomicU64,
    broken: Mutex<Option<Failure>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Applies a plan once. Safe to call again: what was acknowledged is recorded and not repeated. Fails as a whole only
/// where the state can't be written.
pub fn deploy(plan: &Plan, tools: Tools) -> Result<Outcome, Failure> {
    let start = tools.clock.now();
    let (live, begun) = {
        let state = lock(&tools.state);
        (state.deployed()?, state.begun()?)
    };
    let run = Arc::new(Run {
        tools,
        live: Mutex::new(live),
        begun,
        taken: taken(&plan.changes),
        over: Mutex::default(),
        unsure: Mutex::default(),
        asking: Mutex::default(),
        dead: Mutex::default(),
        outcome: Mutex::default(),
        ended: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        retries: AtomicU64::new(0),
        throttled: AtomicU64::new(0),
        broken: Mutex::new(None),
    });
    let pool = Builder::new().num_threads(IN_FLIGHT).queue_len(IN_FLIGHT).thread_name("deploy".to_owned()).build();
    let mut begun_changes = 0;
    let last = plan.changes.iter().map(|change| change.rank).max().unwrap_or(0);
    let rounds = std::iter::once((Part::Giving, 0)).chain((0..=last).map(|rank| (Part::Rest, rank)));
    for (part, rank) in rounds {
        let gives = |change: &Change| change.steps.iter().any(|step| run.gives(step));
        let now = |change: &&Change| match part {
            Part::Giving => gives(change),
            Part::Rest => change.rank == rank,
        };
        for change in plan.changes.iter().filter(now) {
            let (run, change) = (Arc::clone(&run), change.clone());
            // Blocks while the queue is full, so that a plan of any length takes no more memory than this.
            begun_changes += 1;
            pool.execute(move || {
                run.change(&change, part);
                run.ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        pool.join();
    }
    drop(pool);
    // The pool's own count of panics can lag behind its join.
    let panicked = begun_changes - run.ended.load(Ordering::Relaxed);
    assert!(panicked == 0, "BUG: {panicked} changes panicked");
    if let Some(failure) = lock(&run.broken).take() {
        return Err(failure);
    }
    let mut outcome = std::mem::take(&mut *lock(&run.outcome));
    outcome.failures.sort_by(|a, b| a.worker.cmp(&b.worker));
    outcome.requests = run.requests.load(Ordering::Relaxed);
    outcome.retries = run.retries.load(Ordering::Relaxed);
    outcome.throttled = run.throttled.load(Ordering::Relaxed);
    outcome.seconds = run.tools.clock.now().saturating_sub(start).as_secs_f64();
    Ok(outcome)
}

/// The parts of a deploy, one after the other. Whatever moves between workers is given up by all of them before any
/// takes it: so that swaps and chains of moves come out right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The steps that give up a domain or a route that another change takes.
    Giving,
    /// All other steps.
    Rest,
}

fn taken(changes: &[Change]) -> HashSet<String> {
    let steps = changes.iter().flat_map(|change| &change.steps);
    let taken = steps.filter_map(|step| match step {
        Step::AttachDomain { domain } => Some(domain.clone()),
        Step::AddRoute { pattern, .. } => Some(pattern.clone()),
        _ => None,
    });
    taken.collect()
}

impl Run {
    fn stopped(&self) -> bool {
        self.tools.stop.load(Ordering::Relaxed)
    }

    /// Whether a step gives up what another change takes.
    fn gives(&self, step: &Step) -> bool {
        match step {
            Step::DetachDomain { domain, .. } | Step::DropDomain { domain } => self.taken.contains(domain),
            Step::RemoveRoute { pattern, .. } | Step::DropRoute { pattern, .. } => self.taken.contains(pattern),
            _ => false,
        }
    }

    fn change(&self, change: &Change, part: Part) {
        let id = (change.home.clone(), change.worker.clone());
        if part == Part::Rest && lock(&self.over).contains(&id) {
            return;
        }
        let result = if self.stopped() { Err(Stopped::Skipped) } else { self.steps(change, &id, part) };
        if part == Part::Giving {
            if result.is_ok() {
                return;
            }
            lock(&self.over).insert(id);
        }
        let mut outcome = lock(&self.outcome);
        match result {
            Ok(()) => {
                outcome.applied += 1;
                (self.tools.done)(change, Ok(()));
            }
            Err(Stopped::Skipped) => outcome.skipped += 1,
            Err(Stopped::Failed(error)) => {
                (self.tools.done)(change, Err(&error));
                outcome.failed += 1;
                let (worker, customer) = (change.worker.clone(), change.customer.clone());
                outcome.failures.push(Failed { worker, customer, error });
            }
        }
    }

    fn steps(&self, change: &Change, id: &WorkerId, part: Part) -> Result<(), Stopped> {
        if lock(&self.dead).contains(&change.home.account_id) {
            return Err(Stopped::Skipped);
        }
        let (giving, rest): (Vec<&Step>, Vec<&Step>) = change.steps.iter().partition(|step| self.gives(step));
        // What is sent may be done, whatever becomes of this program: it is noted before.
        let mut left: Vec<Doubt> = giving.iter().chain(&rest).map(|step| doubt(step)).collect();
        let steps = match part {
            Part::Giving => giving,
            Part::Rest => {
                left.drain(..giving.len());
                rest
            }
        };
        if part == Part::Giving || left.len() == change.steps.len() {
            let begun = Begun {
                account: change.account.clone(),
                customer: change.customer.clone(),
                environment: change.environment,
                digest: change.digest,
                doubts: left.clone(),
            };
            let noted = lock(&self.tools.state).begin(id, &begun);
            self.written(noted)?;
        }
        let mut earlier: Vec<Doubt> = self.begun.get(id).map(|begun| begun.doubts.clone()).unwrap_or_default();
        let mut live = lock(&self.live).remove(id);
        for step in steps {
            let this = left.remove(0);
            let result = self.step(change, step, id, &mut live, &left);
            let unsure = lock(&self.unsure).remove(id);
            if result.is_ok() || unsure {
                earlier.retain(|other| !same_thing(other, &this));
            }
            if let Err(stopped) = result {
                // Nothing of what follows was sent; but what was in doubt before still is.
                earlier.extend(unsure.then_some(this));
                let settled = lock(&self.tools.state).settle(id, &earlier);
                self.written(settled)?;
                return Err(stopped);
            }
        }
        if let (Part::Giving, Some(live)) = (part, live) {
            lock(&self.live).insert(id.clone(), live);
        }
        Ok(())
    }

    /// One step: the request, and the record of what was acknowledged.
    fn step(
        &self,
        change: &Change,
        step: &Step,
        id: &WorkerId,
        live: &mut Option<Deployed>,
        left: &[Doubt],
    ) -> Result<(), Stopped> {
        let worker = change.worker.clone();
        if let Step::Upload = step {
            let Upload { metadata, modules, live: mut new } = (self.tools.upload)(change).map_err(Stopped::Failed)?;
            let etag = self.call(change, &Call::Upload { worker, metadata, modules })?;
            if let Some(before) = live.take() {
                new.workers_dev = before.live.workers_dev;
                new.domains = before.live.domains;
                new.routes = before.live.routes;
                new.crons = before.live.crons;
            }
            if let Reply::Id(etag) = etag {
                new.etag = etag;
            }
            *live = Some(Deployed {
                account: change.account.clone(),
                customer: change.customer.clone(),
                environment: change.environment,
                digest: change.digest,
                deployed_at: self.tools.clock.unix(),
                live: new,
            });
            return self.record(id, live.as_ref(), change.action.as_str(), left);
        }
        if let Step::Delete = step {
            self.call(change, &Call::Delete { worker })?;
            let at = self.tools.clock.unix();
            let forgotten = lock(&self.tools.state).forget(id, &change.digest, at);
            return self.written(forgotten);
        }
        match step {
            Step::DropDomain { domain } => self.drop_domain(change, domain)?,
            Step::DropRoute { pattern, zone } => self.drop_route(change, pattern, zone)?,
            _ => {}
        }
        if live.is_none() && matches!(step, Step::DropDomain { .. } | Step::DropRoute { .. }) {
            let settled = lock(&self.tools.state).settle(id, left);
            return self.written(settled);
        }
        let Some(deployed) = live.as_mut() else {
            return Err(Stopped::Failed("the plan is stale: the state no longer has this worker".to_owned()));
        };
        let done = match step {
            Step::Upload | Step::Delete => unreachable!("BUG: they are above"),
            Step::DropDomain { domain } => {
                deployed.live.domains.remove(domain);
                "detach domain"
            }
            Step::DropRoute { pattern, .. } => {
                deployed.live.routes.remove(pattern);
                "remove route"
            }
            Step::DetachDomain { domain, id } => {
                self.call(change, &Call::DetachDomain { id: id.clone() })?;
                deployed.live.domains.remove(domain);
                "detach domain"
            }
            Step::RemoveRoute { pattern, zone_id, id } => {
                self.call(change, &Call::RemoveRoute { zone_id: zone_id.clone(), id: id.clone() })?;
                deployed.live.routes.remove(pattern);
                "remove route"
            }
            Step::SetWorkersDev { on } => {
                self.call(change, &Call::SetWorkersDev { worker, on: *on })?;
                deployed.live.workers_dev = *on;
                "set workers.dev"
            }
            Step::AttachDomain { domain } => {
                let reply = self.call(change, &Call::AttachDomain { worker, domain: domain.clone() })?;
                deployed.live.domains.insert(domain.clone(), id_of(reply));
                "attach domain"
            }
            Step::AddRoute { pattern, zone } => {
                let zone_id = self.zone(change, zone)?;
                let id = self.add_route(change, &zone_id, pattern)?;
                deployed.live.routes.insert(pattern.clone(), (zone_id, id));
                "add route"
            }
            Step::SetCrons { crons } => {
                self.call(change, &Call::SetCrons { worker, crons: crons.iter().cloned().collect() })?;
                deployed.live.crons = crons.clone();
                "set crons"
            }
        };
        self.record(id, live.as_ref(), done, left)
    }

    fn record(&self, id: &WorkerId, live: Option<&Deployed>, what: &str, left: &[Doubt]) -> Result<(), Stopped> {
        let deployed = live.expect("BUG: something was acknowledged");
        let at = self.tools.clock.unix();
        let written = lock(&self.tools.state).record(id, deployed, what, at, left);
        self.written(written)
    }

    /// Where the state can't be written, nothing more may be done: it could not be recorded.
    fn written(&self, result: Result<(), Failure>) -> Result<(), Stopped> {
        result.map_err(|failure| {
            self.tools.stop.store(true, Ordering::Relaxed);
            lock(&self.broken).get_or_insert(failure);
            Stopped::Skipped
        })
    }

    /// A zone's id: found out once, then kept.
    fn zone(&self, change: &Change, name: &str) -> Result<String, Stopped> {
        let account_id = &change.home.account_id;
        let known = || lock(&self.tools.state).found(account_id, Found::Zone, name).ok().flatten();
        if let Some(id) = known() {
            return Ok(id);
        }
        // One asks, the others wait for its answer: a fleet with one zone would ask for it eight times at once.
        let _asking = lock(&self.asking);
        if let Some(id) = known() {
            return Ok(id);
        }
        match self.call(change, &Call::FindZone { name: name.to_owned() })? {
            Reply::Id(id) => {
                let kept = lock(&self.tools.state).keep(account_id, Found::Zone, name, &id);
                self.written(kept)?;
                Ok(id)
            }
            _ => Err(Stopped::Failed(format!("the account has no zone `{name}`, or the token can't see it"))),
        }
    }

    /// Adds a route. That it exists already can be our own doing, by an attempt whose answer was lost.
    fn add_route(&self, change: &Change, zone_id: &str, pattern: &str) -> Result<String, Stopped> {
        let (worker, zone_id, pattern) = (change.worker.clone(), zone_id.to_owned(), pattern.to_owned());
        let add = Call::AddRoute { worker: worker.clone(), zone_id: zone_id.clone(), pattern: pattern.clone() };
        match self.try_call(change, &add)? {
            Ok(reply) => Ok(id_of(reply)),
            Err(error @ CallError::Rejected { code: ROUTE_EXISTS, .. }) => {
                match self.call(change, &Call::FindRoute { worker, zone_id, pattern: pattern.clone() })? {
                    Reply::Id(id) => Ok(id),
                    _ => Err(Stopped::Failed(format!("the route {pattern} leads to another worker: {error}"))),
                }
            }
            Err(error) => Err(Stopped::Failed(error.to_string())),
        }
    }

    /// Detaches a domain if the worker has it.
    fn drop_domain(&self, change: &Change, domain: &str) -> Result<(), Stopped> {
        let find = Call::FindDomain { worker: change.worker.clone(), domain: domain.to_owned() };
        if let Reply::Id(id) = self.call(change, &find)? {
            self.call(change, &Call::DetachDomain { id })?;
        }
        Ok(())
    }

    /// Removes a route if it leads to the worker.
    fn drop_route(&self, change: &Change, pattern: &str, zone: &str) -> Result<(), Stopped> {
        let zone_id = self.zone(change, zone)?;
        let (worker, pattern) = (change.worker.clone(), pattern.to_owned());
        if let Reply::Id(id) = self.call(change, &Call::FindRoute { worker, zone_id: zone_id.clone(), pattern })? {
            self.call(change, &Call::RemoveRoute { zone_id, id })?;
        }
        Ok(())
    }

    fn call(&self, change: &Change, call: &Call) -> Result<Reply, Stopped> {
        self.try_call(change, call)?.map_err(|error| Stopped::Failed(explained(call, &error)))
    }

    /// Makes a call: when the lane allows it, and again where the outcome is unknown.
    fn try_call(&self, change: &Change, call: &Call) -> Result<Result<Reply, CallError>, Stopped> {
        let mut lost = false;
        let result = self.attempts(change, call, &mut lost);
        if lost && !matches!(result, Ok(Ok(_))) {
            lock(&self.unsure).insert((change.home.clone(), change.worker.clone()));
        }
        result
    }

    fn attempts(&self, change: &Change, call: &Call, lost: &mut bool) -> Result<Result<Reply, CallError>, Stopped> {
        let account = &change.home.account_id;
        let lane = &self.tools.lanes[account];
        let clock = self.tools.clock.as_ref();
        let (mut attempts, mut throttled) = (0, 0);
        loop {
            let stop = || self.stopped() || lock(&self.dead).contains(account);
            let ticket = loop {
                if stop() {
                    return Err(Stopped::Skipped);
                }
                match lane.try_acquire() {
                    Ok(ticket) => break ticket,
                    Err(wait) => clock.sleep(wait.min(Duration::from_millis(200))),
                }
            };
            self.requests.fetch_add(1, Ordering::Relaxed);
            let (result, quota) = self.tools.platform.call(&change.home, call);
            match &result {
                Err(CallError::Throttled { retry_after }) => lane.throttled(ticket, *retry_after),
                _ => lane.answered(ticket, quota.as_ref()),
            }
            match result {
                Err(CallError::Throttled { retry_after }) => {
                    self.throttled.fetch_add(1, Ordering::Relaxed);
                    throttled += 1;
                    if throttled >= THROTTLED_ATTEMPTS {
                        return Ok(Err(CallError::Throttled { retry_after }));
                    }
                }
                Err(CallError::Unauthorized(message)) => {
                    // One failure tells it; the account's other changes would fail alike.
                    let first = lock(&self.dead).insert(account.clone());
                    return if first { Ok(Err(CallError::Unauthorized(message))) } else { Err(Stopped::Skipped) };
                }
                Err(CallError::Unavailable(message)) => {
                    *lost = true;
                    attempts += 1;
                    if attempts >= ATTEMPTS {
                        return Ok(Err(CallError::Unavailable(format!("{message}, {ATTEMPTS} times in a row"))));
                    }
                    self.wait(change, attempts);
                }
                Err(CallError::Rejected { code: CONCURRENT_CHANGE, .. }) if attempts + 1 < ATTEMPTS => {
                    attempts += 1;
                    self.wait(change, attempts);
                }
                other => return Ok(other),
            }
        }
    }

    /// Waits before the next attempt: twice as long each time, and not the same for all workers.
    fn wait(&self, change: &Change, attempt: u32) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        let spread =
            change.worker.bytes().fold(attempt, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) % 50;
        self.tools.clock.sleep(BACKOFF * 2u32.pow(attempt - 1) * (100 + spread) / 100);
    }
}

/// What isn't known while a step is on its way.
fn doubt(step: &Step) -> Doubt {
    let route =
        |pattern: &String, zone: Option<&String>| Doubt::Route { pattern: pattern.clone(), zone: zone.cloned() };
    match step {
        Step::Upload => Doubt::Upload,
        Step::Delete => Doubt::Delete,
        Step::SetWorkersDev { .. } => Doubt::WorkersDev,
        Step::SetCrons { .. } => Doubt::Crons,
        Step::AttachDomain { domain } | Step::DetachDomain { domain, .. } | Step::DropDomain { domain } => {
            Doubt::Domain(domain.clone())
        }
        Step::AddRoute { pattern, zone } | Step::DropRoute { pattern, zone } => route(pattern, Some(zone)),
        Step::RemoveRoute { pattern, .. } => route(pattern, None),
    }
}

/// Whether two doubts are about the same thing.
fn same_thing(a: &Doubt, b: &Doubt) -> bool {
    match (a, b) {
        (Doubt::Route { pattern, .. }, Doubt::Route { pattern: other, .. }) => pattern == other,
        _ => a == b,
    }
}

fn id_of(reply: Reply) -> String {
    match reply {
        Reply::Id(id) => id,
        _ => String::new(),
    }
}

/// What the platform said, and what to do where that is known.
fn explained(call: &Call, error: &CallError) -> String {
    let advice = match (call, error) {
        (Call::AttachDomain { domain, .. }, CallError::Rejected { code: 100_117, .. }) => {
            format!("; {domain} has DNS records already: remove them, or write a route under `routes`")
        }
        (Call::Upload { .. }, CallError::Rejected { code: 10037, .. }) => {
            "; the account holds no more workers: set `dispatchNamespace` in fleet.yaml".to_owned()
        }
        (Call::Upload { .. }, CallError::Rejected { status: 404, .. }) => {
            "; is the account's id right, and does the dispatch namespace exist?".to_owned()
        }
        (Call::SetWorkersDev { .. }, CallError::Rejected { code: 10007 | 10063, .. }) => {
            "; the account has no workers.dev subdomain yet: choose one in the dashboard, or set `workersDev: false`"
                .to_owned()
        }
        _ => String::new(),
    };
    format!("{error}{advice}")
}

#[cfg(test)]
mod tests;
