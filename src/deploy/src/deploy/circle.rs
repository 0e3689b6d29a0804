//! Workers that swap hosts: each of them gives away a host before all of them have their new ones, whatever the order. Their moves belong
//! together: they begin when all of them can be sent, they continue after a stop, and if one fails, the others are taken back. Knows
//! neither the order of the other steps nor how requests are sent.

use std::collections::HashMap;
use std::time::Duration;

use super::index::{ChangeIndex, PutBackId};
use super::problem::{NextStep, Problem};
use super::run::{Phase, Run};
use super::schedule::{Delivery, RequestId, RequestState};
use super::{CONTROL_INTERVAL, Control};
use crate::plan::handover::Host;
use crate::plan::{Change, Step};
use crate::state::{Entry, InFlight, WorkerId};
use flotilla_model::failure::Failure;
use flotilla_model::platform::{Call, CallError, Home, Reply};

/// The longest time for which a circle's requests may wait for the rate limit once they have begun.
const LONGEST_GAP: Duration = Duration::from_secs(2);
/// The number of requests of a move: one looks at the host, one moves it.
const REQUESTS_PER_MOVE: usize = 2;

/// Changes that swap hosts, while they do.
#[derive(Default)]
pub(super) struct Circle {
    members: Vec<ChangeIndex>,
    /// The moves that were sent, in their order.
    sent: Vec<SentMove>,
}

/// A move that was sent: it may be carried out.
struct SentMove {
    taker: ChangeIndex,
    step: Step,
    /// The worker that had the host.
    from: String,
    /// The request that takes the move back.
    back: Call,
}

/// A host that goes back to the worker that had it, because another move of the circle failed.
pub(super) struct PutBack {
    taker: ChangeIndex,
    home: Home,
    step: Step,
    to: String,
    /// Its request.
    pub call: Call,
    /// The progress of its request.
    pub delivery: Delivery,
}

impl PutBack {
    /// Returns the account and home that its request is about.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Names it among the requests in flight.
    pub fn key(&self) -> &str {
        &self.to
    }
}

impl Run<'_> {
    /// Lets workers swap their hosts; what else they take comes afterwards.
    pub(super) fn swap_hosts(&mut self, members: &[ChangeIndex]) -> Result<(), Failure> {
        self.wait_for_room(members);
        self.circle = Some(Circle { members: members.to_vec(), sent: Vec::new() });
        self.run_changes(members.to_vec(), Phase::Swap)?;
        if self.is_circle_broken() {
            self.put_back()?;
        }
        self.run_changes(members.to_vec(), Phase::Take)?;
        // Those that have nothing to release end here, also after a stop.
        let is_done = |index: &ChangeIndex| {
            let steps = self.change(*index).steps.iter();
            !steps.filter(|step| !self.takes(*index, step)).any(|step| self.is_late(*index, step))
        };
        let done = members.iter().copied().filter(is_done).collect();
        self.run_changes(done, Phase::HandOver)?;
        members.iter().for_each(|member| drop(self.broken.remove(member)));
        self.circle = None;
        Ok(())
    }

    /// Waits until the rate limit allows all requests of a circle, so that none of them waits between the others.
    fn wait_for_room(&mut self, members: &[ChangeIndex]) {
        let mut needed: HashMap<_, usize> = HashMap::new();
        for index in members {
            let moves = self.change(*index).steps.iter().filter(|step| is_move(step)).count();
            *needed.entry(self.schedule.lane_id_of(*index)).or_default() += moves * REQUESTS_PER_MOVE;
        }
        for (id, needed) in needed {
            loop {
                self.poll_control();
                let lane = std::sync::Arc::clone(&self.schedule.lane(id).lane);
                // A circle that no window can hold has to wait in any case.
                let limit = usize::try_from(lane.usage().limit).unwrap_or(usize::MAX);
                let needed = needed.min(limit / 2).max(1);
                if self.control == Control::Stop || lane.finish(needed, lane.per_second()) <= LONGEST_GAP {
                    break;
                }
                let until = self.ctx.clock.now() + CONTROL_INTERVAL;
                let answers = self.ctx.pool.wait(until);
                assert!(answers.is_empty(), "BUG: nothing is in flight between two phases");
            }
        }
    }

    /// Returns whether hosts of a circle may be on their way: then the rest of it is done, too.
    pub(super) fn has_circle_begun(&self) -> bool {
        self.circle.as_ref().is_some_and(|circle| !circle.sent.is_empty())
    }

    /// Returns whether a change of the present circle failed.
    pub(super) fn is_circle_broken(&self) -> bool {
        self.broken_member().is_some()
    }

    fn broken_member(&self) -> Option<ChangeIndex> {
        self.circle.as_ref()?.members.iter().copied().find(|index| self.schedule.has_failed(*index))
    }

    /// Returns the reason why a change of a circle can't move hosts: another one of the circle failed.
    pub(super) fn swap_blocked_by(&self, index: ChangeIndex) -> Option<Problem> {
        let failed = self.broken_member()?;
        let host = self.change(index).steps.iter().find(|step| is_move(step)).and_then(Host::acquired_by)?;
        let why = format!("{} stays where it is, because {} failed", host.text(), self.change(failed).worker);
        Some(NextStep::OtherFailure.because(why))
    }

    /// Notes that a request of a circle is sent, if it moves a host.
    pub(super) fn note_sent_move(&mut self, index: ChangeIndex, call: &Call) {
        if self.phase != Phase::Swap {
            return;
        }
        let change = self.change(index);
        let task = self.schedule.task(index);
        let Some(from) = task.found.held_by.clone() else { return };
        let step = task.step(change).clone();
        let back = match call.clone() {
            Call::MoveDomain { domain, .. } => Call::MoveDomain { worker: from.clone(), domain },
            Call::MoveRoute { zone_id, id, pattern, .. } => {
                Call::MoveRoute { worker: from.clone(), zone_id, id, pattern }
            }
            _ => return,
        };
        let Some(circle) = &mut self.circle else { return };
        if !circle.sent.iter().any(|other| other.taker == index && other.step == step) {
            circle.sent.push(SentMove { taker: index, step, from, back });
        }
    }

    /// Puts back the hosts of a circle that were moved, or may have been: the last one first.
    fn put_back(&mut self) -> Result<(), Failure> {
        let sent = self.circle.as_mut().map(|circle| std::mem::take(&mut circle.sent)).unwrap_or_default();
        let why = self.broken_member().map(|failed| self.change(failed).worker.clone()).unwrap_or_default();
        for SentMove { taker, step, from, back } in sent.into_iter().rev() {
            let home = self.change(taker).home.clone();
            let host = Host::acquired_by(&step).expect("BUG: a move acquires a host");
            let message = format!("{} was moved back to {from}, because {why} failed", host.text());
            self.broken.entry(taker).or_insert(NextStep::OtherFailure.because(message));
            for worker in [&self.change(taker).worker, &from] {
                self.note_moving(&(home.clone(), worker.clone()), &step)?;
            }
            let delivery = Delivery::new(self.ctx.lane_of[&home.account_id]);
            let put_back = PutBack { taker, home, step, to: from, call: back, delivery };
            self.schedule.add_put_back(put_back);
        }
        // A change that gave its host away and didn't get it back ends with a failure, too.
        for index in self.circle.as_ref().map(|circle| circle.members.clone()).unwrap_or_default() {
            if !self.schedule.has_failed(index) {
                let problem = self.swap_blocked_by(index);
                let other = || NextStep::OtherFailure.because(format!("{why} failed"));
                self.broken.entry(index).or_insert_with(|| problem.unwrap_or_else(other));
            }
        }
        self.run_phase(Phase::Swap)
    }

    /// Handles the answer to a request that puts a host back.
    pub(super) fn on_put_back(&mut self, id: PutBackId, result: Result<Reply, CallError>) -> Result<(), Failure> {
        let Some(result) = self.handle_transient_error(RequestId::PutBack(id), result) else { return Ok(()) };
        let PutBack { taker, home, step, to, call, .. } = self.schedule.put_back_of(id);
        let (taker, step, to, giver, call) =
            (*taker, step.clone(), to.clone(), (home.clone(), to.clone()), call.clone());
        let host = Host::acquired_by(&step).expect("BUG: a move acquires a host");
        let error = match result {
            Ok(reply) => {
                self.record_put_back(taker, &giver, &host, &call, reply)?;
                for worker in [self.change(taker).id(), giver] {
                    self.end_move(&worker, &step)?;
                }
                self.schedule.end(RequestId::PutBack(id), RequestState::Succeeded);
                return Ok(());
            }
            Err(error) => error,
        };
        let worker = &self.change(taker).worker;
        let message = format!(
            "{} points to {worker} and could not be moved back to {to}: {error}; the next deploy moves all of these hosts",
            host.text()
        );
        let problem = NextStep::after(&error).because(message);
        self.broken.insert(taker, problem.clone());
        if matches!(error, CallError::Rejected { .. }) {
            for worker in [self.change(taker).id(), giver] {
                self.end_move(&worker, &step)?;
            }
        }
        self.schedule.end(RequestId::PutBack(id), RequestState::Failed(problem));
        Ok(())
    }

    /// Records that a host points to its old worker again.
    fn record_put_back(
        &mut self,
        taker: ChangeIndex,
        giver: &WorkerId,
        host: &Host,
        call: &Call,
        reply: Reply,
    ) -> Result<(), Failure> {
        let id = if let Reply::Id(id) = reply { id } else { String::new() };
        for (worker, has_it) in [(self.change(taker).id(), false), (giver.clone(), true)] {
            let Some(mut live) = self.ctx.state.one(&worker)? else { continue };
            let before = live.live.clone();
            match (host, call, has_it) {
                (Host::Domain(domain), _, true) => drop(live.live.domains.insert(domain.clone(), id.clone())),
                (Host::Domain(domain), _, false) => drop(live.live.domains.remove(domain)),
                (Host::Route(pattern), Call::MoveRoute { zone_id, id, .. }, true) => {
                    live.live.routes.insert(pattern.clone(), (zone_id.clone(), id.clone()));
                }
                (Host::Route(pattern), ..) => drop(live.live.routes.remove(pattern)),
            }
            if live.live == before {
                continue;
            }
            let action = if has_it { "put back host" } else { "return host" };
            let left =
                self.ctx.state.in_flight_of(&worker)?.map(|in_flight| in_flight.uncertainties).unwrap_or_default();
            let entry = Entry { run: self.ctx.run, at: self.ctx.clock.unix(), action, reasons: &[], left: &left };
            self.ctx.state.record(&worker, &mut live, &entry)?;
        }
        Ok(())
    }

    /// Notes in the state that it is unknown from now on whether a worker has the host of a step.
    pub(super) fn note_moving(&mut self, id: &WorkerId, step: &Step) -> Result<(), Failure> {
        let Some(live) = self.ctx.state.one(id)? else { return Ok(()) };
        let earlier = self.ctx.state.in_flight_of(id)?;
        self.moving.entry(id.clone()).or_default().push(super::steps::uncertainty_of(step));
        let earlier_ones = earlier.as_ref().map(|earlier| earlier.uncertainties.clone()).unwrap_or_default();
        let in_flight = InFlight {
            account: live.account,
            customer: live.customer,
            environment: live.environment,
            digest: earlier.as_ref().map_or(live.digest, |earlier| earlier.digest),
            uncertainties: self.with_moving(id, earlier_ones),
            run: self.ctx.run,
        };
        self.ctx.state.begin(id, &in_flight)
    }
}

/// Returns whether a step moves a host from another worker.
pub(super) fn is_move(step: &Step) -> bool {
    matches!(step, Step::MoveDomain { .. } | Step::MoveRoute { .. })
}

impl Change {
    /// Returns whether it moves a host from another worker.
    pub(super) fn has_moves(&self) -> bool {
        self.steps.iter().any(is_move)
    }
}
