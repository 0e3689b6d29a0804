//! Begins a change: checks whether it still may, drops the steps that are done, and writes the note to the state
//! before its first request.

use std::collections::hash_map::Entry;

use super::index::{ChangeIndex, StepIndex};
use super::problem::{NextStep, Problem};
use super::run::{AssetLeader, Phase, Run};
use super::schedule::{Conclusion, RequestId};
use super::steps::{is_about_same, uncertainty_of};
use super::task::Task;
use super::{CONTROL_INTERVAL, answer::union};
use crate::plan::handover::Host;
use crate::plan::transfers::Moment;
use crate::plan::{Action, Change, Step};
use crate::state::{Deployed, InFlight, ResourceKind, Uncertainty, WorkerId};
use flotilla_model::bundle::Resource;
use flotilla_model::failure::Failure;

impl Run<'_> {
    /// Begins what came to the front of a lane's queue. True: its first request is to be sent.
    pub(super) fn begin(&mut self, id: RequestId) -> Result<bool, Failure> {
        match id {
            RequestId::Change(change) => self.begin_change(change),
            RequestId::Database(database) => self.begin_database(database).map(|()| true),
            RequestId::HostWrite(write) => self.begin_host_write(write).map(|()| true),
            RequestId::Lookup(_) | RequestId::PutBack(_) => Ok(true),
            RequestId::HealthCheck(_) => unreachable!("BUG: a health check is in no queue"),
        }
    }

    /// Begins a change, and notes that it begins: what is sent may be carried out, whatever becomes of this program.
    fn begin_change(&mut self, index: ChangeIndex) -> Result<bool, Failure> {
        let change = self.change(index);
        if let Some(why) = self.broken.remove(&index) {
            self.fail(index, why)?;
            self.report_concluded();
            return Ok(false);
        }
        if !self.unmigrated.is_empty() && self.unmigrated.contains(&change.id()) && change.action != Action::Delete {
            self.skip(index)?;
            self.report_concluded();
            return Ok(false);
        }
        let steps = self.steps_to_do(index);
        if steps.is_empty() {
            self.end_without_steps(index)?;
            return Ok(false);
        }
        let why = match self.phase {
            Phase::Release(_) | Phase::Create | Phase::Cycle => self.blocked_by(index)?,
            Phase::Apply => self.blocked_by(index)?.or_else(|| self.incomplete_callee_of(index)),
            Phase::Swap => self.swap_blocked_by(index).or_else(|| self.hand_over_blocked_by(index)),
            Phase::Take | Phase::HandOver => self.hand_over_blocked_by(index),
        };
        if let Some(why) = why {
            self.fail(index, why)?;
            self.report_concluded();
            return Ok(false);
        }
        let id = (change.home.clone(), change.worker.clone());
        let earlier = self.ctx.state.in_flight_of(&id)?;
        if earlier.as_ref().is_some_and(|earlier| self.is_in_flight_elsewhere(earlier)) {
            // The other deploy writes to the state as well: the state is read again in a moment.
            self.schedule.queue_again(index, self.ctx.clock.now() + CONTROL_INTERVAL);
            return Ok(false);
        }
        let live = self.ctx.state.one(&id)?;
        if self.is_overtaken(index, live.as_ref(), earlier.as_ref()) {
            self.conclude(index, Conclusion::Overtaken)?;
            self.report_concluded();
            return Ok(false);
        }
        if self.waits_for_assets(index, &steps) {
            return Ok(false);
        }
        let earlier = earlier.map(|earlier| earlier.uncertainties).unwrap_or_default();
        let task = self.note_begin(change, id, steps, live, earlier)?;
        self.schedule.begin(index, Box::new(task));
        Ok(true)
    }

    /// Returns whether a change waits for another one of the same dispatch namespace, which uploads the same static assets: what that has
    /// uploaded, this one needn't. Without one, this change goes first.
    fn waits_for_assets(&mut self, index: ChangeIndex, steps: &[StepIndex]) -> bool {
        let change = self.change(index);
        let (Some(_), Some(assets)) = (&change.home.namespace, &change.assets) else { return false };
        if !steps.iter().any(|step| change.steps[step.place()] == Step::UploadAssets) {
            return false;
        }
        match self.asset_leaders.entry((change.home.clone(), assets.shared())) {
            Entry::Vacant(entry) => {
                entry.insert(AssetLeader::Change(index, Vec::new()));
                false
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                AssetLeader::Change(leader, waiting) if *leader != index => {
                    waiting.push(index);
                    true
                }
                _ => false,
            },
        }
    }

    /// Lets those continue that wait for the static assets of a change: they are there, or it failed.
    pub(super) fn end_waiting_for_assets(&mut self, index: ChangeIndex, are_there: bool) {
        let change = self.change(index);
        let Some(assets) = &change.assets else { return };
        let Entry::Occupied(mut entry) = self.asset_leaders.entry((change.home.clone(), assets.shared())) else {
            return;
        };
        let AssetLeader::Change(leader, waiting) = entry.get_mut() else { return };
        if *leader != index {
            return;
        }
        let waiting = std::mem::take(waiting);
        match are_there {
            true => drop(entry.insert(AssetLeader::Done)),
            false => drop(entry.remove()),
        }
        for other in waiting {
            self.schedule.lane_of(other).fresh.push_front(RequestId::Change(other));
        }
    }

    /// The steps of a change that are left to do in the present phase.
    fn steps_to_do(&mut self, index: ChangeIndex) -> Vec<StepIndex> {
        let change = self.change(index);
        let released = self.schedule.released(index).map(|released| &released.steps[..]).unwrap_or_default();
        let all = change.steps.iter().enumerate().map(|(place, step)| (StepIndex::new(place), step));
        let open = all.filter(|(place, _)| self.is_of_phase(index, *place) && !released.contains(place));
        let planned: Vec<(StepIndex, &Step)> = open.collect();
        // A list of the account's databases, or another change, can have found it out since the plan.
        let is_left = |(_, step): &&(StepIndex, &Step)| match step {
            Step::CreateDatabase { name, .. } => {
                self.ids.get(&change.home.account_id, ResourceKind::Database, name).is_none()
            }
            _ => true,
        };
        let left: Vec<StepIndex> = planned.iter().filter(is_left).map(|(place, _)| *place).collect();
        self.schedule.lane_of(index).drop_steps(planned.len() - left.len());
        left
    }

    /// Ends the phase of a change that has nothing to do in it.
    fn end_without_steps(&mut self, index: ChangeIndex) -> Result<(), Failure> {
        match self.phase {
            Phase::Release(_) | Phase::Create | Phase::Cycle | Phase::Swap | Phase::Take => {
                self.schedule.put_back(index)
            }
            Phase::Apply if self.has_late_steps(index) => self.schedule.put_back(index),
            Phase::HandOver if self.gives(index) => match self.unmoved_host_of(index) {
                None => {
                    let id = self.change(index).id();
                    let left = self.with_moving(&id, Vec::new());
                    self.ctx.state.settle(&id, &left)?;
                    self.end_applied(index);
                }
                Some(_) if !self.are_takers_done(index) => self.schedule.put_back(index),
                Some(host) => {
                    let why = format!("{host} is still here, because the worker that takes it over failed");
                    self.fail(index, NextStep::OtherFailure.because(why))?;
                    self.report_concluded();
                }
            },
            Phase::Apply | Phase::HandOver => self.end_applied(index),
        }
        Ok(())
    }

    fn end_applied(&mut self, index: ChangeIndex) {
        self.schedule.conclude(index, &Conclusion::Applied);
        self.concluded.push((index, Conclusion::Applied));
        self.report_concluded();
    }

    /// Returns whether all changes that still were to take a host from a worker failed.
    fn are_takers_done(&self, index: ChangeIndex) -> bool {
        self.takers.get(&index).is_none_or(|takers| takers.iter().all(|(taker, _)| self.schedule.has_failed(*taker)))
    }

    /// Returns the reason why a change can't begin: a resource that it needs is unavailable, or a host points to the
    /// worker that it deletes.
    fn blocked_by(&self, index: ChangeIndex) -> Result<Option<Problem>, Failure> {
        let change = self.change(index);
        if change.action == Action::Delete && self.phase == Phase::Apply {
            let host = match self.unmoved_host_of(index) {
                Some(host) => Some(host),
                None => self.ctx.state.host_of(&change.home, &change.worker)?,
            };
            let why = |host| {
                NextStep::OtherFailure.because(format!("not deleted, because the host {host} still points to it"))
            };
            return Ok(host.map(why).or_else(|| self.untaken_host_of(index)));
        }
        if !change.steps.contains(&Step::Upload) {
            return Ok(None);
        }
        let unavailable = |(resource, _): &(Resource, String)| {
            self.unavailable.get(&(change.home.account_id.clone(), *resource)).cloned()
        };
        Ok(change.needs.iter().find_map(unavailable))
    }

    /// Returns the reason why nothing may call the worker of a change yet: another one that it is bound to could not be completed.
    fn incomplete_callee_of(&self, index: ChangeIndex) -> Option<Problem> {
        let change = self.change(index);
        if self.completing.is_empty() || change.action == Action::Delete {
            return None;
        }
        let others = change.cycle.and_then(|cycle| self.cycles.get(&cycle.number)).into_iter().flatten().copied();
        let callees = change.callees().filter_map(|id| self.completing.get(&id).copied());
        let failed = others.chain(callees).find(|other| *other != index && self.schedule.has_failed(*other))?;
        let worker = &self.change(failed).worker;
        let why = format!("{worker}, which it is bound to, failed and is not complete");
        Some(NextStep::OtherFailure.because(why))
    }

    /// Returns the reason why hosts can't change hands now: a worker that is to give one failed, or one that is to get one.
    fn hand_over_blocked_by(&self, index: ChangeIndex) -> Option<Problem> {
        match self.phase {
            Phase::HandOver => self.hidden_host_of(index).or_else(|| self.untaken_host_of(index)),
            _ => self.kept_host_for(index),
        }
    }

    /// Returns the reason why a change can't take a host: the worker that has it failed, or its new hosts aren't there.
    fn kept_host_for(&self, index: ChangeIndex) -> Option<Problem> {
        let mut takes = self.transfers.of_taker(index.place()).filter(|transfer| transfer.moment != Moment::Reveal);
        takes.find_map(|transfer| {
            let revealers = self.transfers.revealers(transfer.giver).filter(|other| *other != index.place());
            let mut others = std::iter::once(transfer.giver).chain(revealers).map(ChangeIndex::new);
            others.find_map(|other| self.stays(transfer.from.text(), other))
        })
    }

    /// Returns the reason why a change can't release its hosts: a new one of them is behind a route that is still there.
    fn hidden_host_of(&self, index: ChangeIndex) -> Option<Problem> {
        let left =
            self.change(index).steps.iter().find(|step| self.is_late(index, step) && !self.takes(index, step))?;
        let host = Host::released_by(left).map_or_else(|| "workers.dev".to_owned(), |host| host.text().to_owned());
        self.transfers.revealers(index.place()).find_map(|other| self.stays(&host, ChangeIndex::new(other)))
    }

    /// Returns the reason why a change can't release a host: the worker that is to get its requests failed.
    fn untaken_host_of(&self, index: ChangeIndex) -> Option<Problem> {
        let change = self.change(index);
        let is_kept = |_: &&Vec<ChangeIndex>| change.action != Action::Delete;
        change.steps.iter().filter_map(Host::released_by).find_map(|host| {
            let named = self.acquired.get(host.name()).filter(is_kept).into_iter().flatten().copied();
            let covering = self.transfers.of_giver(index.place()).filter(|transfer| transfer.from == host);
            let mut others = named.chain(covering.map(|transfer| ChangeIndex::new(transfer.taker)));
            others.find_map(|other| self.stays(host.text(), other).filter(|_| other != index))
        })
    }

    /// Returns whether a step of a change takes a host from another worker.
    pub(super) fn takes(&self, index: ChangeIndex, step: &Step) -> bool {
        self.transfers.is_taking(index.place(), step)
    }

    /// Returns the message of a host that stays where it is, if a change failed.
    fn stays(&self, host: &str, other: ChangeIndex) -> Option<Problem> {
        let why = || format!("{host} stays where it is, because {} failed", self.change(other).worker);
        self.schedule.has_failed(other).then(|| NextStep::OtherFailure.because(why()))
    }

    /// Returns whether the deploy beside which this one runs has the worker in flight.
    fn is_in_flight_elsewhere(&self, earlier: &InFlight) -> bool {
        self.ctx.concurrent_run.as_ref().is_some_and(|(run, runs)| earlier.run == *run && runs())
    }

    /// Returns whether another deploy changed the worker since this was planned.
    fn is_overtaken(&self, index: ChangeIndex, live: Option<&Deployed>, earlier: Option<&InFlight>) -> bool {
        let planned = match self.schedule.released(index) {
            Some(released) => released.revision,
            None => self.change(index).revision,
        };
        let is_newer = earlier.is_some_and(|earlier| earlier.run > self.ctx.run);
        is_newer || live.map(|live| live.revision) != planned
    }

    /// Notes in the state what may be carried out from now on.
    fn note_begin(
        &mut self,
        change: &Change,
        id: WorkerId,
        steps: Vec<StepIndex>,
        live: Option<Deployed>,
        earlier: Vec<Uncertainty>,
    ) -> Result<Task, Failure> {
        let left: Vec<Uncertainty> = steps.iter().map(|step| uncertainty_of(&change.steps[step.place()])).collect();
        self.open_notes()?;
        for step in &steps {
            self.note_move(change, &change.steps[step.place()])?;
        }
        let in_flight = InFlight {
            account: change.account.clone(),
            customer: change.customer.clone(),
            environment: change.environment,
            digest: change.digest,
            uncertainties: self.with_moving(&id, union(&left, &earlier)),
            run: self.ctx.run,
        };
        self.ctx.state.begin(&id, &in_flight)?;
        let mut task = Task::new(id, steps, live, earlier, left);
        // What points to a new worker of a cycle follows its upload in the same run.
        let is_uploaded = self.phase == Phase::Apply && change.cycle.is_some();
        task.is_check_due = self.is_check_needed(change) && !is_uploaded;
        task.is_migration_due = change.migration.is_some();
        Ok(task)
    }

    /// Notes that a host of another worker may move away from it from now on.
    fn note_move(&mut self, change: &Change, step: &Step) -> Result<(), Failure> {
        let (Step::MoveDomain { from, .. } | Step::MoveRoute { from, .. }) = step else { return Ok(()) };
        for from in from {
            self.note_moving(&(change.home.clone(), from.clone()), step)?;
        }
        Ok(())
    }

    /// Returns the uncertainties of a worker, with those of hosts that are moving away from it.
    pub(super) fn with_moving(&self, id: &WorkerId, uncertainties: Vec<Uncertainty>) -> Vec<Uncertainty> {
        match self.moving.get(id) {
            Some(moving) => union(&uncertainties, moving),
            None => uncertainties,
        }
    }

    /// Notes that it is certain again where a host of another worker is.
    pub(super) fn end_move(&mut self, id: &WorkerId, step: &Step) -> Result<(), Failure> {
        let this = uncertainty_of(step);
        let Some(moving) = self.moving.get_mut(id) else { return Ok(()) };
        moving.retain(|other| !is_about_same(other, &this));
        let Some(in_flight) = self.ctx.state.in_flight_of(id)? else { return Ok(()) };
        let left = in_flight.uncertainties.into_iter().filter(|other| !is_about_same(other, &this)).collect();
        let left = self.with_moving(id, left);
        self.ctx.state.settle(id, &left)
    }

    /// Ends a change that doesn't continue: none of its later steps was sent, but what was uncertain before still is.
    pub(super) fn conclude(&mut self, index: ChangeIndex, conclusion: Conclusion) -> Result<(), Failure> {
        let change = self.change(index);
        self.end_waiting_for_assets(index, false);
        let released = self.schedule.released(index).map_or(0, |released| released.steps.len());
        match self.schedule.conclude(index, &conclusion) {
            None => self.schedule.lane_of(index).drop_steps(change.steps.len() - released),
            Some(mut task) => {
                self.schedule.lane_of(index).drop_steps(task.steps_left());
                // What was not sent didn't move.
                let unsent = task.open_steps().skip(usize::from(task.is_outcome_unknown));
                for step in unsent.map(|step| &change.steps[step.place()]) {
                    if let Step::MoveDomain { from, .. } | Step::MoveRoute { from, .. } = step {
                        for from in from {
                            self.end_move(&(change.home.clone(), from.clone()), step)?;
                        }
                    }
                }
                if task.is_outcome_unknown {
                    let present = task.left.remove(0);
                    task.earlier.retain(|other| !is_about_same(other, &present));
                    task.earlier.push(present);
                }
                let left = self.with_moving(&task.id, task.earlier);
                self.ctx.state.settle(&task.id, &left)?;
            }
        }
        self.concluded.push((index, conclusion));
        Ok(())
    }

    /// Ends a change with an error.
    pub(super) fn fail(&mut self, index: ChangeIndex, why: Problem) -> Result<(), Failure> {
        self.conclude(index, Conclusion::Failed(why))
    }

    /// Ends a change that the deploy leaves for another run.
    pub(super) fn skip(&mut self, index: ChangeIndex) -> Result<(), Failure> {
        self.conclude(index, Conclusion::Skipped)
    }
}
