//! The dependencies between changes: the state of each change, lookup and host write, the queues of the lanes, and the requests that are
//! retried later. Knows neither the effects of requests nor their records.
//!
//! A change goes through these states; each arrow is a method of [`Schedule`], and there are no others:
//!
//! ```text
//! Pending ───queue───► Queued ───begin───► Ready ───sent───► InFlight
//!                        ▲                 │ ▲ ▲               │
//! Released ──queue───────┘                 │ │ └───answered────┘
//!    ▲                                     │ │
//!    └───────────────release───────────────┘ ├──wake◄──────── Backoff ◄──────retry_at── Ready
//!                                            └──end_lookup◄── WaitingFor ◄───wait_for── Ready
//!
//! Queued ──put_back──► Pending or Released
//! Queued, Ready or WaitingFor ──conclude──► Applied, Failed, Skipped or Overtaken
//! ```
//!
//! A change whose turn has come is Queued. When its lane has a permit it begins, which is written to the state: from then on it
//! has a [`Task`], and goes around Ready and InFlight once for each request. A change that takes hosts from others, or releases hosts for
//! them, does that when all others of its wave are done, and is Released in between.
//!
//! Lookups, host writes and hosts that are put back belong to no single change. They have requests, attempts and states of their own
//! ([`RequestState`]), so that a change never carries another's request; a change that needs an id waits for its lookup, however often
//! that is repeated.
//!
//! The queues and counters follow from the states: they exist so that an event costs the same in a deploy of ten changes and of
//! a million, and only the transitions here change them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::circle::PutBack;
use super::databases::DatabaseTask;
use super::hosts::HostWrite;
use super::index::{ChangeIndex, DatabaseIndex, HostWriteId, LaneId, LookupId, PutBackId};
use super::lookups::Lookup;
use super::problem::Problem;
use super::task::{Released, Task};
use super::{DEFAULT_LATENCY, INITIAL_WINDOW};
use crate::pace::{Lane, Ticket};
use crate::plan::handover::Host;
use crate::retry::Attempts;

/// Identifies a request in flight. None has two at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestId {
    /// The present request of a change.
    Change(ChangeIndex),
    /// The present request of a lookup.
    Lookup(LookupId),
    /// The present request of the migrations of a database.
    Database(DatabaseIndex),
    /// A write of hosts to a table.
    HostWrite(HostWriteId),
    /// A host that is put back to the worker that had it.
    PutBack(PutBackId),
    /// A health check of the worker that a change uploaded.
    HealthCheck(ChangeIndex),
}

/// The state of a change.
pub(super) enum ChangeState {
    /// Its turn has not come yet.
    Pending,
    /// It did all but what waits for the other changes of its wave.
    Released(Box<Released>),
    /// Its turn has come; it is in its lane's queue of changes to begin.
    Queued(Option<Box<Released>>),
    /// It has begun, and its next request is in its lane's queue, or the answer to its last one is being handled.
    Ready(Box<Task>),
    /// Its request is in flight.
    InFlight {
        /// The change so far.
        task: Box<Task>,
        /// The permit of the request.
        permit: Box<Permit>,
    },
    /// Its request failed and is sent again later; it is in the retry queue.
    Backoff(Box<Task>),
    /// It needs an id, and is among the waiters of the lookup that finds it out.
    WaitingFor {
        /// The change so far.
        task: Box<Task>,
        /// The lookup.
        lookup: LookupId,
    },
    /// All of its steps were acknowledged.
    Applied,
    /// It was given up after an error.
    Failed,
    /// It was not begun, or not finished, because the deploy stopped or its account's token is unauthorized.
    Skipped,
    /// Another deploy changed its worker first.
    Overtaken,
}

impl ChangeState {
    /// Returns whether the present phase still has to run it.
    fn is_open(&self) -> bool {
        use ChangeState::{Backoff, InFlight, Queued, Ready, WaitingFor};
        matches!(self, Queued(_) | Ready(_) | InFlight { .. } | Backoff(_) | WaitingFor { .. })
    }

    fn name(&self) -> &'static str {
        match self {
            ChangeState::Pending => "pending",
            ChangeState::Released(_) => "released",
            ChangeState::Queued(_) => "queued",
            ChangeState::Ready(_) => "ready",
            ChangeState::InFlight { .. } => "in flight",
            ChangeState::Backoff(_) => "in backoff",
            ChangeState::WaitingFor { .. } => "waiting for a lookup",
            ChangeState::Applied => "applied",
            ChangeState::Failed => "failed",
            ChangeState::Skipped => "skipped",
            ChangeState::Overtaken => "overtaken",
        }
    }
}

/// The state of a request that belongs to no single change: of a lookup, a write of hosts, or a host that is put back.
pub(super) enum RequestState {
    /// It is in its lane's queue.
    Pending,
    /// It is in flight.
    InFlight(Permit),
    /// It failed for now and is sent again later; it is in the retry queue.
    Backoff,
    /// It succeeded; a lookup has found its target.
    Succeeded,
    /// It failed, for this reason. It isn't retried in this run.
    Failed(Problem),
    /// The deploy was stopped before it was answered.
    Cancelled,
}

impl RequestState {
    fn is_open(&self) -> bool {
        matches!(self, RequestState::Pending | RequestState::InFlight(_) | RequestState::Backoff)
    }
}

/// The progress of a request that belongs to no single change.
pub(super) struct Delivery {
    pub lane: LaneId,
    pub attempts: Attempts,
    pub state: RequestState,
}

impl Delivery {
    pub fn new(lane: LaneId) -> Delivery {
        Delivery { lane, attempts: Attempts::default(), state: RequestState::Pending }
    }
}

/// Allows one request.
pub(super) struct Permit {
    pub lane: LaneId,
    pub ticket: Ticket,
    /// The time at which the request was sent.
    pub sent_at: Duration,
}

/// The end of a change.
pub(super) enum Conclusion {
    Applied,
    Failed(Problem),
    Skipped,
    Overtaken,
}

/// The requests that wait for a lane, and the lane's speed.
pub(super) struct LaneQueue {
    pub lane: Arc<Lane>,
    /// The requests that begin something.
    pub fresh: VecDeque<RequestId>,
    /// The next requests of what has begun.
    pub ready: VecDeque<RequestId>,
    pub in_flight: usize,
    /// The most changes in flight: few at first, one more with each that succeeds, few again when one doesn't. So an error is detected
    /// before it has spread.
    pub concurrency_window: usize,
    /// The time before which nothing is sent.
    pub not_before: Duration,
    /// The first account whose requests go through it.
    pub account: String,
    /// The steps that were acknowledged.
    pub done: usize,
    /// The number of steps that are left, as far as the plan knows.
    pub left: usize,
    /// The recent latency of responses; zero as long as there were none.
    pub latency: Duration,
}

impl LaneQueue {
    fn new(lane: &Arc<Lane>) -> LaneQueue {
        LaneQueue {
            lane: Arc::clone(lane),
            fresh: VecDeque::new(),
            ready: VecDeque::new(),
            in_flight: 0,
            concurrency_window: INITIAL_WINDOW,
            not_before: Duration::ZERO,
            account: String::new(),
            done: 0,
            left: 0,
            latency: Duration::ZERO,
        }
    }

    /// Returns the time that the steps left take, as fast as the lane answers and as its limit allows.
    pub fn time_left(&self) -> Duration {
        let at_once = self.lane.in_flight_bound().min(self.concurrency_window + self.left / 2).max(1);
        let latency = if self.latency.is_zero() { DEFAULT_LATENCY } else { self.latency };
        self.lane.finish(self.left, at_once as f64 / latency.as_secs_f64())
    }

    /// Subtracts steps from the number that is left.
    pub fn drop_steps(&mut self, steps: usize) {
        self.left = self.left.saturating_sub(steps);
    }
}

/// The states of changes, lookups and host writes, and their dependencies.
pub(super) struct Schedule<'p> {
    changes: Vec<ChangeState>,
    lookups: Vec<Lookup>,
    host_writes: Vec<HostWrite<'p>>,
    databases: HashMap<DatabaseIndex, DatabaseTask<'p>>,
    put_backs: Vec<PutBack>,
    lanes: Vec<LaneQueue>,
    /// The lane of each change.
    lane_of: Vec<LaneId>,
    /// The requests that are sent again, and when.
    retry_queue: BinaryHeap<Reverse<(Duration, RequestId)>>,
    /// Changes, lookups and host writes that the present phase waits for.
    open: usize,
    in_flight: usize,
}

impl<'p> Schedule<'p> {
    /// A schedule in which nothing has begun; `lane_of` gives the lane of each change.
    pub fn new(lanes: &[Arc<Lane>], lane_of: Vec<LaneId>) -> Schedule<'p> {
        Schedule {
            changes: lane_of.iter().map(|_| ChangeState::Pending).collect(),
            lookups: Vec::new(),
            host_writes: Vec::new(),
            databases: HashMap::new(),
            put_backs: Vec::new(),
            lanes: lanes.iter().map(LaneQueue::new).collect(),
            lane_of,
            retry_queue: BinaryHeap::new(),
            open: 0,
            in_flight: 0,
        }
    }

    pub fn lanes(&self) -> &[LaneQueue] {
        &self.lanes
    }

    pub fn lane(&mut self, lane: LaneId) -> &mut LaneQueue {
        &mut self.lanes[lane.place()]
    }

    /// Returns the id of the lane of a change.
    pub fn lane_id_of(&self, change: ChangeIndex) -> LaneId {
        self.lane_of[change.place()]
    }

    /// Returns the lane of a change.
    pub fn lane_of(&mut self, change: ChangeIndex) -> &mut LaneQueue {
        let lane = self.lane_of[change.place()];
        self.lane(lane)
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns the task of a change whose answer is taken in, or which is about to be sent.
    pub fn task(&mut self, change: ChangeIndex) -> &mut Task {
        match &mut self.changes[change.place()] {
            ChangeState::Ready(task) => task,
            other => panic!("BUG: a change that is {} has no next request", other.name()),
        }
    }

    /// Returns what a change gave up before its turn.
    pub fn released(&self, change: ChangeIndex) -> Option<&Released> {
        match &self.changes[change.place()] {
            ChangeState::Released(released) | ChangeState::Queued(Some(released)) => Some(released),
            _ => None,
        }
    }

    pub fn lookup(&mut self, id: LookupId) -> &mut Lookup {
        &mut self.lookups[id.place()]
    }

    pub fn database(&mut self, id: DatabaseIndex) -> &mut DatabaseTask<'p> {
        self.databases.get_mut(&id).expect("BUG: the database is being migrated")
    }

    pub fn host_write(&mut self, id: HostWriteId) -> &mut HostWrite<'p> {
        &mut self.host_writes[id.place()]
    }

    pub fn put_back_of(&mut self, id: PutBackId) -> &mut PutBack {
        &mut self.put_backs[id.place()]
    }

    /// Returns the attempts at a request.
    pub fn attempts(&mut self, id: RequestId) -> &mut Attempts {
        match id {
            RequestId::Change(change) => &mut self.task(change).attempts,
            _ => &mut self.delivery(id).attempts,
        }
    }

    fn delivery(&mut self, id: RequestId) -> &mut Delivery {
        match id {
            RequestId::Lookup(id) => &mut self.lookup(id).delivery,
            RequestId::Database(id) => &mut self.database(id).delivery,
            RequestId::HostWrite(id) => &mut self.host_write(id).delivery,
            RequestId::PutBack(id) => &mut self.put_back_of(id).delivery,
            RequestId::Change(_) | RequestId::HealthCheck(_) => panic!("BUG: {id:?} belongs to a change"),
        }
    }

    /// Returns whether the phase is at its end.
    pub fn is_idle(&self) -> bool {
        self.open == 0
    }

    /// Returns whether a request is in a queue or in flight: otherwise, nothing would ever end the phase.
    pub fn can_progress(&self) -> bool {
        let queued = |lane: &LaneQueue| !lane.fresh.is_empty() || !lane.ready.is_empty();
        self.in_flight > 0 || !self.retry_queue.is_empty() || self.lanes.iter().any(queued)
    }

    /// Returns when the next request is sent again.
    pub fn next_retry(&self) -> Option<Duration> {
        self.retry_queue.peek().map(|Reverse((when, _))| *when)
    }
}

/// The transitions of changes.
impl Schedule<'_> {
    /// Moves a change to its next state; `next` gives the state back from which there is no such way.
    fn transition(&mut self, change: ChangeIndex, next: impl FnOnce(ChangeState) -> Result<ChangeState, ChangeState>) {
        let place = change.place();
        let state = std::mem::replace(&mut self.changes[place], ChangeState::Pending);
        self.open -= usize::from(state.is_open());
        match next(state) {
            Ok(state) => {
                self.open += usize::from(state.is_open());
                self.changes[place] = state;
            }
            Err(state) => panic!("BUG: a change that is {} can't go on in this way", state.name()),
        }
    }

    /// Queues a change whose turn has come. One that ended before stays as it is.
    pub fn queue(&mut self, change: ChangeIndex) {
        let has_ended = !matches!(self.changes[change.place()], ChangeState::Pending | ChangeState::Released(_));
        if has_ended {
            return;
        }
        self.transition(change, |state| match state {
            ChangeState::Pending => Ok(ChangeState::Queued(None)),
            ChangeState::Released(released) => Ok(ChangeState::Queued(Some(released))),
            other => Err(other),
        });
        self.lane_of(change).fresh.push_back(RequestId::Change(change));
    }

    /// Queues a change again that can't begin yet.
    pub fn queue_again(&mut self, change: ChangeIndex, not_before: Duration) {
        let lane = self.lane_of(change);
        lane.fresh.push_back(RequestId::Change(change));
        lane.not_before = not_before;
    }

    /// Puts a change back that has no steps in this phase.
    pub fn put_back(&mut self, change: ChangeIndex) {
        self.transition(change, |state| match state {
            ChangeState::Queued(None) => Ok(ChangeState::Pending),
            ChangeState::Queued(Some(released)) => Ok(ChangeState::Released(released)),
            other => Err(other),
        });
    }

    /// Begins a change; its first request is about to be sent.
    pub fn begin(&mut self, change: ChangeIndex, mut task: Box<Task>) {
        self.transition(change, |state| match state {
            ChangeState::Queued(released) => {
                task.released = released;
                Ok(ChangeState::Ready(task))
            }
            other => Err(other),
        });
    }

    /// Makes a change wait for a lookup.
    pub fn wait_for(&mut self, change: ChangeIndex, lookup: LookupId) {
        self.transition(change, |state| match state {
            ChangeState::Ready(task) => Ok(ChangeState::WaitingFor { task, lookup }),
            other => Err(other),
        });
        let lookup = self.lookup(lookup);
        assert!(lookup.delivery.state.is_open(), "BUG: nobody answers a lookup that has ended");
        lookup.waiters.push(change);
    }

    /// Queues the next request of a change, after those that wait already.
    pub fn proceed(&mut self, change: ChangeIndex) {
        self.task(change);
        self.lane_of(change).ready.push_back(RequestId::Change(change));
    }

    /// Notes that a host was moved away from the worker of a change, whose state has this revision since.
    pub fn given(&mut self, change: ChangeIndex, host: &Host, revision: i64) {
        let place = change.place();
        let new = || Some(Box::new(Released { steps: Vec::new(), revision: Some(revision) }));
        match &mut self.changes[place] {
            ChangeState::Pending => self.changes[place] = ChangeState::Released(new().expect("BUG: it is new")),
            ChangeState::Queued(released @ None) => *released = new(),
            ChangeState::Released(released) | ChangeState::Queued(Some(released)) => released.revision = Some(revision),
            ChangeState::Ready(task)
            | ChangeState::InFlight { task, .. }
            | ChangeState::Backoff(task)
            | ChangeState::WaitingFor { task, .. } => task.given(host, revision),
            ChangeState::Applied | ChangeState::Failed | ChangeState::Skipped | ChangeState::Overtaken => {}
        }
    }

    /// Returns whether a change ended without all of its steps.
    pub fn has_failed(&self, change: ChangeIndex) -> bool {
        use ChangeState::{Failed, Overtaken, Skipped};
        matches!(self.changes[change.place()], Failed | Skipped | Overtaken)
    }

    /// Returns whether a change has not ended, and nothing of it is under way.
    pub fn is_waiting(&self, change: ChangeIndex) -> bool {
        matches!(self.changes[change.place()], ChangeState::Pending | ChangeState::Released(_))
    }

    /// Ends the part of a change that comes before what waits for the others.
    pub fn release(&mut self, change: ChangeIndex) {
        self.transition(change, |state| match state {
            ChangeState::Ready(task) => Ok(ChangeState::Released(Box::new(task.into_released()))),
            other => Err(other),
        });
    }

    /// Ends a change; returns its task if it had begun.
    pub fn conclude(&mut self, change: ChangeIndex, conclusion: &Conclusion) -> Option<Box<Task>> {
        let end = match conclusion {
            Conclusion::Applied => ChangeState::Applied,
            Conclusion::Failed(_) => ChangeState::Failed,
            Conclusion::Skipped => ChangeState::Skipped,
            Conclusion::Overtaken => ChangeState::Overtaken,
        };
        let mut ended = None;
        self.transition(change, |state| match state {
            ChangeState::Queued(_) => Ok(end),
            ChangeState::Ready(task) | ChangeState::WaitingFor { task, .. } => {
                ended = Some(task);
                Ok(end)
            }
            other => Err(other),
        });
        ended
    }
}

/// The transitions of requests, of any owner.
impl<'p> Schedule<'p> {
    /// Moves a lookup or a write of hosts to another state.
    fn set(&mut self, id: RequestId, state: RequestState) -> RequestState {
        let (opens, delivery) = (state.is_open(), self.delivery(id));
        let before = std::mem::replace(&mut delivery.state, state);
        assert!(before.is_open(), "BUG: {id:?} has ended");
        self.open -= usize::from(!opens);
        before
    }

    /// Adds a lookup; the caller queues it or sends it at once.
    pub fn add_lookup(&mut self, lookup: Lookup) -> LookupId {
        let id = LookupId::new(self.lookups.len());
        self.lookups.push(lookup);
        self.open += 1;
        id
    }

    /// Adds a write of hosts, and queues it.
    pub fn add_host_write(&mut self, write: HostWrite<'p>) {
        let id = HostWriteId::new(self.host_writes.len());
        self.host_writes.push(write);
        self.open += 1;
        self.queue_request(RequestId::HostWrite(id));
    }

    /// Adds a database whose migrations are applied, and queues its first request.
    pub fn add_database(&mut self, id: DatabaseIndex, task: DatabaseTask<'p>) {
        self.databases.insert(id, task);
        self.open += 1;
        self.queue_request(RequestId::Database(id));
    }

    /// Takes out a database whose migrations of a phase have ended.
    pub fn take_database(&mut self, id: DatabaseIndex) -> Option<DatabaseTask<'p>> {
        assert!(self.is_idle(), "BUG: databases are still being migrated");
        self.databases.remove(&id)
    }

    /// Adds a host that is put back, and queues its request.
    pub fn add_put_back(&mut self, put_back: PutBack) {
        let id = PutBackId::new(self.put_backs.len());
        self.put_backs.push(put_back);
        self.open += 1;
        self.queue_request(RequestId::PutBack(id));
    }

    /// Queues the first request of what belongs to no single change.
    pub fn queue_request(&mut self, id: RequestId) {
        let lane = self.delivery(id).lane;
        self.lane(lane).fresh.push_back(id);
    }

    /// Removes the host writes of a wave, which have ended.
    pub fn clear_host_writes(&mut self) {
        assert!(self.is_idle(), "BUG: hosts are still being written");
        self.host_writes.clear();
    }

    /// Counts a request that is about to be sent.
    pub fn reserve(&mut self, lane: LaneId, ticket: Ticket, now: Duration) -> Permit {
        self.in_flight += 1;
        self.lane(lane).in_flight += 1;
        Permit { lane, ticket, sent_at: now }
    }

    /// Takes a permit back; returns its ticket.
    pub fn give_back(&mut self, permit: Permit) -> Ticket {
        self.in_flight -= 1;
        self.lane(permit.lane).in_flight -= 1;
        permit.ticket
    }

    /// Notes that a request was sent.
    pub fn sent(&mut self, id: RequestId, permit: Permit) {
        if let RequestId::Change(change) = id {
            self.transition(change, |state| match state {
                ChangeState::Ready(task) => Ok(ChangeState::InFlight { task, permit: Box::new(permit) }),
                other => Err(other),
            });
            return;
        }
        let before = self.set(id, RequestState::InFlight(permit));
        assert!(matches!(before, RequestState::Pending), "BUG: {id:?} is sent twice");
    }

    /// Notes that a request was answered; returns its permit, which is still to be given back.
    pub fn answered(&mut self, id: RequestId) -> Permit {
        if let RequestId::Change(change) = id {
            let mut answered = None;
            self.transition(change, |state| match state {
                ChangeState::InFlight { task, permit } => {
                    answered = Some(permit);
                    Ok(ChangeState::Ready(task))
                }
                other => Err(other),
            });
            return *answered.expect("BUG: what was in flight has a permit");
        }
        match self.set(id, RequestState::Pending) {
            RequestState::InFlight(permit) => permit,
            _ => panic!("BUG: {id:?} was not in flight"),
        }
    }

    /// Sends a request again at a later time.
    pub fn retry_at(&mut self, id: RequestId, when: Duration) {
        if let RequestId::Change(change) = id {
            self.transition(change, |state| match state {
                ChangeState::Ready(task) => Ok(ChangeState::Backoff(task)),
                other => Err(other),
            });
        } else {
            self.set(id, RequestState::Backoff);
        }
        self.retry_queue.push(Reverse((when, id)));
    }

    /// Sends a request again as soon as its lane allows: before all others.
    pub fn retry_when_allowed(&mut self, id: RequestId) {
        self.queue_of(id).ready.push_front(id);
    }

    /// Sends another request of a lookup.
    pub fn continue_lookup(&mut self, id: LookupId) {
        self.continue_with(RequestId::Lookup(id));
    }

    /// Sends the next request of what belongs to no single change.
    pub fn continue_with(&mut self, id: RequestId) {
        self.delivery(id).attempts = Attempts::default();
        self.queue_of(id).ready.push_back(id);
    }

    fn queue_of(&mut self, id: RequestId) -> &mut LaneQueue {
        match id {
            RequestId::Change(change) => self.lane_of(change),
            _ => {
                let lane = self.delivery(id).lane;
                self.lane(lane)
            }
        }
    }

    /// Queues the requests whose time to be sent again has come; with no time, all of them.
    pub fn wake(&mut self, until: Option<Duration>) {
        while self.next_retry().is_some_and(|when| until.is_none_or(|until| when <= until)) {
            let Some(Reverse((_, id))) = self.retry_queue.pop() else { break };
            if let RequestId::Change(change) = id {
                self.transition(change, |state| match state {
                    ChangeState::Backoff(task) => Ok(ChangeState::Ready(task)),
                    other => Err(other),
                });
            } else {
                self.set(id, RequestState::Pending);
            }
            self.queue_of(id).ready.push_back(id);
        }
    }

    /// Ends a request that belongs to no single change.
    pub fn end(&mut self, id: RequestId, state: RequestState) {
        let before = self.set(id, state);
        assert!(matches!(before, RequestState::Pending), "BUG: {id:?} is still on its way");
    }

    /// Ends a lookup without a failure, and resumes those who wait for it.
    pub fn end_lookup(&mut self, id: LookupId, state: RequestState) {
        self.end(RequestId::Lookup(id), state);
        for change in std::mem::take(&mut self.lookup(id).waiters) {
            self.transition(change, |state| match state {
                ChangeState::WaitingFor { task, lookup } if lookup == id => Ok(ChangeState::Ready(task)),
                other => Err(other),
            });
            self.proceed(change);
        }
    }

    /// Ends a lookup with a failure; returns those who wait for it, which are to be concluded.
    pub fn fail_lookup(&mut self, id: LookupId, why: Problem) -> Vec<ChangeIndex> {
        self.end(RequestId::Lookup(id), RequestState::Failed(why));
        std::mem::take(&mut self.lookup(id).waiters)
    }
}
