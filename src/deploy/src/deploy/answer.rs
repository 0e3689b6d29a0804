//! What becomes of an answer: repeated, recorded, or a failure. Knows what is in flight; sends nothing.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::between;
use super::pool::Answer;
use super::run::{Part, Run, nothing_of};
use super::task::{doubt, same_thing, word};
use super::{ATTEMPTS, BACKOFF, Event, FIRST_IN_FLIGHT, Failed, Made, THROTTLED_ATTEMPTS};
use crate::pace::{Lane, Ticket};
use crate::plan::{Change, Step};
use crate::state::{Deployed, Doubt, Entry, Found};
use flotilla_model::bundle::Resource;
use flotilla_model::failure::Failure;
use flotilla_model::platform::{BINDING_MISSING, CONCURRENT_CHANGE, CallError, Quota, Reply};

impl Run<'_> {
    /// Takes in what was answered, and writes it to the state as one.
    pub(super) fn take(&mut self, answers: Vec<(usize, Answer)>, part: Part) -> Result<(), Failure> {
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
    pub(super) fn answered(
        &mut self,
        at: usize,
        answer: Answer,
        part: Part,
    ) -> Result<Option<Result<(), String>>, Failure> {
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
                drift: None,
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
    pub(super) fn answer_lane(
        &mut self,
        lane: &Lane,
        ticket: Ticket,
        result: &Result<Reply, CallError>,
        quota: Option<&Quota>,
    ) {
        if let Err(CallError::Throttled { retry_after }) = result {
            self.outcome.throttled += 1;
            lane.throttled(ticket, *retry_after);
        } else {
            lane.answered(ticket, quota);
        }
    }

    /// Repeats what can be repeated; gives what can't.
    pub(super) fn outlast(&mut self, at: usize, result: Result<Reply, CallError>) -> Option<Result<Reply, CallError>> {
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
    pub(super) fn zone(
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
    pub(super) fn wake_who_asked(&mut self, account: &str) {
        let names: Vec<(String, String)> = self.asking.keys().filter(|(of, _)| of == account).cloned().collect();
        for key in names {
            for at in self.asking.remove(&key).unwrap_or_default() {
                let lane = self.lane(at);
                self.queues[lane].ready.push_back(at);
            }
        }
    }

    /// Records a step that was acknowledged, and goes on to the next one.
    pub(super) fn acknowledged(
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
    pub(super) fn end(&mut self, at: usize, part: Part, result: Result<(), String>) {
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

    pub(super) fn failed(&mut self, at: usize, error: String) {
        let change = &self.plan.changes[at];
        (self.tools.hear)(&Event::Failed(change, &error));
        self.outcome.failed += 1;
        let (worker, customer) = (change.worker.clone(), change.customer.clone());
        self.outcome.failures.push(Failed { worker, customer, error });
        self.spend();
    }

    /// Halts when too much has failed.
    pub(super) fn spend(&mut self) {
        let failed = self.outcome.failed + self.outcome.unhealthy;
        if failed >= self.tools.budget.count && self.outcome.halted.is_none() {
            self.halt(format!("{failed} changes failed, as many as may"));
        }
    }
}

/// Doubts, and those of another list that are about something else.
pub(super) fn union(doubts: &[Doubt], more: &[Doubt]) -> Vec<Doubt> {
    let others = more.iter().filter(|other| !doubts.iter().any(|doubt| same_thing(doubt, other)));
    doubts.iter().chain(others).cloned().collect()
}

/// How long to wait before the next attempt: twice as long each time, and not the same for all workers.
fn backoff(change: &Change, attempt: u32) -> Duration {
    let spread =
        change.worker.bytes().fold(attempt, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) % 50;
    BACKOFF * 2u32.pow(attempt - 1) * (100 + spread) / 100
}
