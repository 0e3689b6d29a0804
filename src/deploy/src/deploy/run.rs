//! The loop: what is sent next, what came back, what becomes of it. One thread; everything that a deploy knows while it runs is
//! here.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::answer::union;
use super::pool::{Answer, Ids, Job};
use super::task::{Next, Task, doubt, same_thing};
use super::{
    ASK_AGAIN, Event, FIRST_IN_FLIGHT, Failed, LISTEN, LaneProgress, Order, Outcome, TELL, Tools, USUAL_LATENCY,
};
use crate::pace::{Lane, Ticket};
use crate::plan::{Action, Change, Plan, Step};
use crate::state::{Begun, Deployed, Doubt, Found};
use flotilla_model::bundle::Resource;
use flotilla_model::failure::Failure;
use flotilla_model::platform::{Call, Health};

/// The queue of a lane.
pub(super) struct Queue {
    pub(super) lane: Arc<Lane>,
    /// Changes that are to be begun, by their place in the plan.
    pub(super) fresh: VecDeque<usize>,
    /// Changes that were begun and have a request to make.
    pub(super) ready: VecDeque<usize>,
    pub(super) in_flight: usize,
    /// At most so many at once: few at first, one more with each that succeeds, few again when one doesn't. So a mistake is
    /// known before it is everywhere.
    pub(super) trust: usize,
    /// Not before this time.
    pub(super) wake: Duration,
    pub(super) account: String,
    pub(super) done: usize,
    pub(super) left: usize,
    /// How long requests took lately; zero, as long as none was answered.
    pub(super) latency: Duration,
}

impl Queue {
    /// How long what is left takes, as fast as the lane answers and as its limit allows.
    pub(super) fn finish(&self) -> Duration {
        let at_once = self.lane.in_flight_bound().min(self.trust + self.left / 2).max(1);
        let latency = if self.latency.is_zero() { USUAL_LATENCY } else { self.latency };
        self.lane.finish(self.left, at_once as f64 / latency.as_secs_f64())
    }
}

/// The parts of a wave, one after the other. Whatever moves between workers is given up by all of them before any takes it:
/// so that swaps and chains of moves come out right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The steps that give up a domain or a route that a change of this wave takes.
    Giving(usize),
    /// All other steps.
    Rest,
}

pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) tools: Tools<'a>,
    pub(super) queues: Vec<Queue>,
    pub(super) tasks: HashMap<usize, Task>,
    /// The permits of the requests that are in flight.
    pub(super) tickets: HashMap<usize, (usize, Ticket, Duration)>,
    /// Requests that are repeated, and when.
    pub(super) again: BinaryHeap<Reverse<(Duration, usize)>>,
    /// The ids of zones, by account and name.
    pub(super) zones: HashMap<(String, String), String>,
    /// The ids of other things, by account and name.
    pub(super) ids: HashMap<(String, Resource, String), String>,
    /// What can't be had of an account, and why.
    pub(super) lacking: HashMap<(String, Resource), String>,
    /// Who waits for the id of a zone; the first one asks.
    pub(super) asking: HashMap<(String, String), Vec<usize>>,
    /// The domains and patterns that changes of this plan take, and in which wave.
    pub(super) taken: HashMap<String, usize>,
    /// Steps that were done before their change's turn, and the revision since.
    pub(super) given: HashMap<usize, (Vec<usize>, Option<i64>)>,
    /// Changes that are over.
    pub(super) over: HashSet<usize>,
    /// Accounts whose token is refused.
    pub(super) dead: HashSet<String>,
    /// What was uploaded in this wave.
    pub(super) uploaded: Vec<(usize, String)>,
    pub(super) order: Order,
    pub(super) listened: Option<Duration>,
    pub(super) told: Duration,
    pub(super) outcome: Outcome,
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
    pub(super) fn waves(&mut self) -> Result<(), Failure> {
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
    pub(super) fn halt(&mut self, why: String) {
        (self.tools.hear)(&Event::Halted(&why));
        self.outcome.halted = Some(why);
    }

    /// Whether a step gives up what a change of this wave takes.
    pub(super) fn gives(&self, step: &Step, wave: usize) -> bool {
        let thing = match step {
            Step::DetachDomain { domain, .. } | Step::DropDomain { domain } => domain,
            Step::RemoveRoute { pattern, .. } | Step::DropRoute { pattern, .. } => pattern,
            _ => return false,
        };
        self.taken.get(thing) == Some(&wave)
    }

    /// The steps of a change that are to be done in a part.
    pub(super) fn steps(&self, at: usize, part: Part) -> Vec<usize> {
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
    pub(super) fn stage(&mut self, places: Vec<usize>, part: Part) -> Result<(), Failure> {
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
    pub(super) fn listen(&mut self) {
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
    pub(super) fn tell(&mut self) {
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

    pub(super) fn lane(&self, at: usize) -> usize {
        self.tools.lane_of[&self.plan.changes[at].home.account_id]
    }

    /// When the loop has something to do again, if nothing is answered before.
    pub(super) fn until(&self) -> Duration {
        let now = self.tools.clock.now();
        let full = self.tickets.len() >= self.tools.pool.size();
        let wakes = self.queues.iter().filter(|queue| {
            !full && queue.wake > now && (!queue.ready.is_empty() || !queue.fresh.is_empty() && self.order == Order::Go)
        });
        let again = self.again.peek().map(|Reverse((when, _))| *when);
        wakes.map(|queue| queue.wake).chain(again).fold(now + LISTEN, Duration::min)
    }

    /// Begins as many requests as there are permits for. What is noted before they are sent is written as one.
    pub(super) fn begin(&mut self, part: Part) -> Result<(), Failure> {
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
    pub(super) fn send(&mut self, at: usize, lane: usize, ticket: Ticket) -> Result<(), Failure> {
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
    pub(super) fn ids_of(&self, change: &Change) -> Ids {
        let id = |(resource, name): &(Resource, String)| {
            let id = self.ids.get(&(change.home.account_id.clone(), *resource, name.clone()))?;
            Some((*resource, name.clone(), id.clone()))
        };
        change.needs.iter().filter_map(id).collect()
    }

    /// What comes next in a task.
    pub(super) fn next(&self, at: usize) -> Next {
        let change = &self.plan.changes[at];
        let account = &change.home.account_id;
        self.tasks[&at].next(change, |name| self.zones.get(&(account.clone(), name.to_owned())).cloned())
    }

    /// Takes the next change that is to be begun, and notes that it begins: what is sent may be done, whatever becomes of
    /// this program. Nothing, if none is left.
    pub(super) fn prepare(&mut self, lane: usize, part: Part) -> Result<Option<usize>, Failure> {
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
    pub(super) fn again_fresh(&mut self, at: usize) {
        let lane = self.lane(at);
        self.queues[lane].fresh.push_back(at);
        self.queues[lane].wake = self.tools.clock.now() + LISTEN;
    }

    /// Ends what isn't to go on: all of it after a stop, what wasn't begun after a halt, and what belongs to a refused token.
    pub(super) fn drop_what_is_over(&mut self, lane: usize) -> Result<(), Failure> {
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
    pub(super) fn abandon(&mut self, at: usize) -> Result<(), Failure> {
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

    /// Asks the workers of a wave whether they are well and run what was uploaded, until they are or it takes too long.
    pub(super) fn health(&mut self, deadline: Duration) -> Result<(), Failure> {
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

/// A worker of which nothing is known but that it is to go.
pub(super) fn nothing_of(change: &Change) -> Deployed {
    Deployed {
        account: change.account.clone(),
        customer: change.customer.clone(),
        environment: change.environment,
        digest: change.digest,
        revision: 0,
        deployed_at: 0,
        rejected: None,
        drift: None,
        live: Default::default(),
    }
}
