//! Handles answers: updates what is known and recorded, and decides whether the request is sent again. Decides
//! nothing about what is sent; sends nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::index::ChangeIndex;
use super::pool::Answer;
use super::problem::{CALLEE_MISSING, NO_CLASS, NextStep, Problem};
use super::run::{Phase, Run};
use super::schedule::{Conclusion, Permit, RequestId};
use super::steps::{action_name, is_about_same, is_upload, uncertainty_of};
use super::{Event, Failed, INITIAL_WINDOW, UploadRecord};
use crate::plan::handover::Host;
use crate::plan::{Change, Step};
use crate::retry::Verdict;
use crate::state::{Deployed, DeployedResources, Entry, ResourceKind, Uncertainty, WorkerId};
use flotilla_model::bundle::digest_without_bindings;
use flotilla_model::failure::Failure;
use flotilla_model::objects;
use flotilla_model::platform::{BINDING_MISSING, CallError, Quota, Reply};
use flotilla_model::reason::Reason;
use flotilla_model::text::count;
use flotilla_model::uploaded::Uploaded;

impl Run<'_> {
    /// Handles a batch of answers, and writes it to the state in one transaction.
    pub(super) fn on_answers(&mut self, answers: Vec<(RequestId, Answer)>) -> Result<(), Failure> {
        self.ctx.state.open_batch()?;
        for (id, answer) in answers {
            self.on_answer(id, answer)?;
        }
        self.ctx.state.close_batch()?;
        // What ended is reported once it was written.
        self.report_concluded();
        Ok(())
    }

    fn on_answer(&mut self, id: RequestId, answer: Answer) -> Result<(), Failure> {
        let permit = self.schedule.answered(id);
        self.adapt_window(id, &permit, &answer);
        match answer {
            Answer::Called(result, quota, record) => {
                self.count_answer(permit, &result, quota.as_ref());
                match id {
                    RequestId::Change(change) => self.on_change_answer(change, result, record),
                    RequestId::Lookup(lookup) => self.on_lookup_answer(lookup, result),
                    RequestId::Database(database) => self.on_database_answer(database, result),
                    RequestId::HostWrite(write) => self.on_host_answer(write, result),
                    RequestId::PutBack(put_back) => self.on_put_back(put_back, result),
                    RequestId::HealthCheck(_) => unreachable!("BUG: health is checked between waves"),
                }
            }
            Answer::NotMade(why) => {
                self.return_permit(permit);
                let RequestId::Change(change) = id else { unreachable!("BUG: only uploads are made") };
                self.fail(change, NextStep::Input.because(why))
            }
            Answer::Health(_) => unreachable!("BUG: health is checked between waves"),
        }
    }

    /// Adapts how many changes a lane has in flight to how it answers.
    fn adapt_window(&mut self, id: RequestId, permit: &Permit, answer: &Answer) {
        let took = self.ctx.clock.now().saturating_sub(permit.sent_at);
        let lane = self.schedule.lane(permit.lane);
        lane.latency = if lane.latency.is_zero() { took } else { (lane.latency * 15 + took) / 16 };
        if let RequestId::Change(_) | RequestId::Database(_) = id {
            lane.concurrency_window = match answer {
                Answer::Called(Ok(_), ..) => lane.concurrency_window + 1,
                Answer::Called(Err(CallError::Throttled { .. }), ..) => lane.concurrency_window,
                _ => INITIAL_WINDOW,
            };
        }
    }

    /// Counts an answer against the lane's limit.
    fn count_answer(&mut self, permit: Permit, result: &Result<Reply, CallError>, quota: Option<&Quota>) {
        let lane = Arc::clone(&self.schedule.lane(permit.lane).lane);
        let ticket = self.schedule.give_back(permit);
        if let Err(CallError::Throttled { retry_after }) = result {
            self.outcome.throttled += 1;
            lane.throttled(ticket, *retry_after);
        } else {
            lane.answered(ticket, quota);
        }
    }

    /// Sends a request again if its answer isn't final; returns a final one.
    pub(super) fn handle_transient_error(
        &mut self,
        id: RequestId,
        result: Result<Reply, CallError>,
    ) -> Option<Result<Reply, CallError>> {
        let key = self.retry_key(id);
        match self.schedule.attempts(id).decide(&key, result) {
            Verdict::Final(result) => return Some(result),
            Verdict::WhenAllowed => self.schedule.retry_when_allowed(id),
            Verdict::Retry { wait, .. } => {
                self.outcome.retries += 1;
                self.schedule.retry_at(id, self.ctx.clock.now() + wait);
            }
        }
        None
    }

    /// Names a request among those in flight.
    fn retry_key(&mut self, id: RequestId) -> String {
        match id {
            RequestId::Change(change) | RequestId::HealthCheck(change) => self.change(change).worker.clone(),
            RequestId::Lookup(lookup) => self.schedule.lookup(lookup).key().to_owned(),
            RequestId::Database(database) => self.schedule.database(database).change.database.clone(),
            RequestId::HostWrite(write) => self.schedule.host_write(write).table.title.clone(),
            RequestId::PutBack(put_back) => self.schedule.put_back_of(put_back).key().to_owned(),
        }
    }

    /// Returns whether an answer reports a token as unauthorized that is known to be.
    pub(super) fn is_repeatedly_unauthorized(&mut self, account_id: &str, result: &Result<Reply, CallError>) -> bool {
        matches!(result, Err(CallError::Unauthorized(_))) && !self.unauthorized.insert(account_id.to_owned())
    }

    fn on_change_answer(
        &mut self,
        index: ChangeIndex,
        result: Result<Reply, CallError>,
        record: Option<Box<UploadRecord>>,
    ) -> Result<(), Failure> {
        let change = self.change(index);
        if self.is_repeatedly_unauthorized(&change.home.account_id, &result) {
            // One failure reports it; the account's other changes would fail alike.
            return self.skip(index);
        }
        let task = self.schedule.task(index);
        let is_lost = matches!(result, Err(CallError::Unavailable(_)));
        let is_look = task.is_check_due || task.is_migration_due && is_upload(task.step(change));
        task.is_outcome_unknown |= !is_look && is_lost;
        // It may have gone through its migrations: the next attempt has to know.
        task.is_migration_due |= is_lost && change.migration.is_some() && is_upload(task.step(change));
        let Some(result) = self.handle_transient_error(RequestId::Change(index), result) else { return Ok(()) };
        if let Err(CallError::Rejected { code, .. }) = &result
            && BINDING_MISSING.contains(code)
            && is_upload(self.schedule.task(index).step(change))
        {
            self.forget_ids(change)?;
        }
        let record = record.filter(|_| result.is_ok());
        if let (Ok(Reply::Uploaded(uploaded)), Some(_)) = (&result, &record) {
            let live = self.schedule.task(index).live.clone();
            if let Some(live) = live.filter(|live| uploaded.is_recreated(live.live.created_on.as_deref())) {
                return self.on_recreated(index, live, uploaded.clone());
            }
        }
        let lacked = match &result {
            Err(CallError::Rejected { code, .. }) if CALLEE_MISSING.contains(code) => Some(*code),
            _ => None,
        };
        match (self.advance(index, result, record.as_deref()), lacked) {
            (Err(why), Some(code)) => {
                let why = self.without_callee(index, why, code);
                self.fail(index, why)
            }
            (Err(why), None) => self.fail(index, why),
            (Ok(false), _) => {
                self.schedule.proceed(index);
                Ok(())
            }
            (Ok(true), _) => self.on_step_done(index, record.as_deref()),
        }
    }

    /// Returns the problem of an upload that was rejected because a binding names a worker that doesn't exist, as far as this deploy was to
    /// create such a worker: then the advice depends on how that ended.
    fn without_callee(&self, index: ChangeIndex, why: Problem, code: u64) -> Problem {
        let change = self.change(index);
        let callees: Vec<ChangeIndex> = self.plan.created_callees(change).into_iter().map(ChangeIndex::new).collect();
        let named = |at: &ChangeIndex| self.change(*at).worker.as_str();
        match callees.iter().find(|callee| self.schedule.has_failed(**callee)).or(callees.first()) {
            Some(failed) if self.schedule.has_failed(*failed) => {
                NextStep::OtherFailure.because(format!("{why}; {} was not created", named(failed)))
            }
            // A class that the worker itself lacks has the same code.
            Some(_) if code == NO_CLASS => why,
            Some(callee) => NextStep::Retry.because(format!("{why}; {} was just created", named(callee))),
            None => why,
        }
    }

    /// Ends a change whose upload created the worker that it was meant to update: somebody had deleted it, with everything but its bundle.
    /// The state keeps the earlier bundle, so that the same command plans the same change with everything that is missing.
    fn on_recreated(&mut self, index: ChangeIndex, mut before: Deployed, uploaded: Uploaded) -> Result<(), Failure> {
        let change = self.change(index);
        let DeployedResources { mut domains, mut routes, .. } = before.live;
        // Hosts that still point to it, although they should not, are removed by the next change: nothing else is assumed to exist.
        domains.retain(|name, _| {
            change.steps.iter().any(|step| matches!(step, Step::DetachDomain { domain, .. } if domain == name))
        });
        routes.retain(|name, _| {
            change.steps.iter().any(|step| matches!(step, Step::RemoveRoute { pattern, .. } if pattern == name))
        });
        let Uploaded { etag, created_on, .. } = uploaded;
        before.live = DeployedResources { etag, created_on, domains, routes, ..DeployedResources::default() };
        before.drift = Some(Reason::Recreated);
        let task = self.schedule.task(index);
        task.is_outcome_unknown = false;
        task.earlier.retain(|other| *other != Uncertainty::Upload);
        let (id, left) = (task.id.clone(), task.earlier.clone());
        let left = self.with_moving(&id, left);
        let reasons = [Reason::Recreated];
        let (run, at) = (self.ctx.run, self.ctx.clock.unix());
        let entry = Entry { run, at, action: "recreate", reasons: &reasons, left: &left };
        self.ctx.state.record(&id, &mut before, &entry)?;
        // A rollback leaves hosts and crons as they are: it can't bring them back.
        let (next, how) = match change.rejects {
            Some(_) => (NextStep::Refresh, "`flotilla deploy --refresh` restores them; then roll back again"),
            None => (NextStep::Retry, "run the same command again to restore them"),
        };
        let worker = &change.worker;
        self.fail(index, next.because(format!(
            "{worker} had been deleted outside flotilla: this upload recreated it without the secrets, hosts and crons that it had; {how}"
        )))
    }

    /// Lets the present step handle its answer. Returns whether the step is done.
    fn advance(
        &mut self,
        index: ChangeIndex,
        result: Result<Reply, CallError>,
        record: Option<&UploadRecord>,
    ) -> Result<bool, Problem> {
        let change = self.change(index);
        let now = self.ctx.clock.unix();
        let ids = &self.ids;
        let zone = |name: &str| {
            let of_spec = change.zone_ids.get(name);
            of_spec.or_else(|| ids.get(&change.home.account_id, ResourceKind::Zone, name)).cloned()
        };
        let ownership = self.ctx.ownership.as_ref();
        let task = self.schedule.task(index);
        if let Some(record) = record {
            let mut live = uploaded(change, task.live.take(), record, now);
            if let Step::CreateFirst { without } = task.step(change) {
                live.digest = digest_without_bindings(&change.digest);
                live.live.without.clone_from(without);
            }
            task.live = Some(live);
        }
        let is_stale = task.live.is_none() && needs_worker(task.step(change));
        match task.on_answer(change, result, ownership, zone)? {
            _ if is_stale => Err(NextStep::Plan.because("the plan is stale: the state no longer has this worker")),
            is_done => Ok(is_done),
        }
    }

    /// Records a step that was acknowledged, and proceeds to the next one.
    fn on_step_done(&mut self, index: ChangeIndex, record: Option<&UploadRecord>) -> Result<(), Failure> {
        let change = self.change(index);
        let step = self.schedule.task(index).step(change);
        self.update_database_id(index, step)?;
        let whole = record.filter(|_| *step == Step::Upload);
        if let Some(record) = whole {
            self.ctx.state.store(&change.id(), &change.digest, &record.stored, &record.objects)?;
        }
        self.record_step(index, step, whole.is_some())?;
        if let Step::MoveDomain { from, .. } | Step::MoveRoute { from, .. } = step {
            let host = Host::acquired_by(step).expect("BUG: it acquires a host");
            for from in from {
                self.record_given(index, from, &host)?;
                let giver = self.change_of.get(&(change.home.clone(), from.clone()));
                if let Some(takers) = giver.and_then(|giver| self.takers.get_mut(giver)) {
                    takers.retain(|(taker, other)| *taker != index || other != host.text());
                }
                self.end_move(&(change.home.clone(), from.clone()), step)?;
            }
        }
        let task = self.schedule.task(index);
        if let (Some(record), Some(live)) = (whole, &task.live) {
            let pack = record.stored.source["worker"]["pack"].as_str();
            match (self.ctx.health_check)(change, live, pack) {
                Some(check) => self.uploaded.push((index, check)),
                None => self.unchecked += 1,
            }
        }
        task.proceed();
        let is_last = task.steps_left() == 0;
        if *step == Step::UploadAssets {
            self.end_waiting_for_assets(index, true);
        }
        let lane = self.schedule.lane_of(index);
        lane.done += 1;
        lane.drop_steps(1);
        if !is_last && self.schedule.task(index).is_done_already(change) {
            return self.on_step_done(index, None);
        }
        match (is_last, self.phase) {
            (false, _) => self.schedule.proceed(index),
            (true, Phase::Release(_) | Phase::Create | Phase::Cycle | Phase::Swap | Phase::Take) => {
                self.schedule.release(index)
            }
            (true, Phase::Apply) if self.has_late_steps(index) => self.schedule.release(index),
            (true, Phase::HandOver) if self.gives(index) => self.schedule.release(index),
            (true, _) => {
                self.schedule.conclude(index, &Conclusion::Applied);
                self.concluded.push((index, Conclusion::Applied));
            }
        }
        Ok(())
    }

    /// Keeps the id of a database that was created or found, and forgets that of one that was deleted.
    fn update_database_id(&mut self, index: ChangeIndex, step: &Step) -> Result<(), Failure> {
        let account_id = &self.change(index).home.account_id;
        match step {
            Step::CreateDatabase { name, .. } => {
                if let Some(Some(id)) = self.schedule.task(index).found.id.clone() {
                    self.cache_id(account_id, ResourceKind::Database, name, id)?;
                }
            }
            Step::DeleteDatabase { name } => {
                if let Some(Some(id)) = self.schedule.task(index).found.id.clone() {
                    self.ctx.state.forget_database(account_id, &id)?;
                }
                self.ctx.state.forget_id(account_id, ResourceKind::Database, name)?;
                self.ids.remove(account_id, ResourceKind::Database, name);
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes an acknowledged step to the state, with what of the change is still uncertain.
    fn record_step(&mut self, index: ChangeIndex, step: &Step, is_upload: bool) -> Result<(), Failure> {
        let change = self.change(index);
        let is_final = match self.phase {
            Phase::Release(_) | Phase::Create | Phase::Cycle | Phase::Swap | Phase::Take => false,
            Phase::Apply => !self.has_late_steps(index),
            Phase::HandOver => !self.gives(index),
        };
        let task = self.schedule.task(index);
        let this = uncertainty_of(step);
        task.earlier.retain(|other| !is_about_same(other, &this));
        let left = match task.steps_left() == 1 && is_final {
            true => Vec::new(),
            false => union(&task.left[1..], &task.earlier),
        };
        let id = task.id.clone();
        let left = self.with_moving(&id, left);
        let task = self.schedule.task(index);
        let entry = Entry {
            run: self.ctx.run,
            at: self.ctx.clock.unix(),
            action: match step {
                Step::Upload if change.rejects.is_some() => "rollback",
                Step::Upload => change.action.as_ref(),
                step => action_name(step),
            },
            reasons: if is_upload || *step == Step::Delete { &change.reasons } else { &[] },
            left: &left,
        };
        let state = &mut *self.ctx.state;
        match (&mut task.live, step) {
            (live, Step::Delete) => {
                let gone = live.take().unwrap_or_else(|| unknown_worker(change));
                state.forget(&task.id, &gone, &entry)
            }
            (Some(live), _) => state.record(&task.id, live, &entry),
            (None, _) => state.settle(&task.id, &left),
        }
    }

    /// Records that a worker no longer has a host, because it was moved to another.
    fn record_given(&mut self, index: ChangeIndex, from: &str, host: &Host) -> Result<(), Failure> {
        let id: WorkerId = (self.change(index).home.clone(), from.to_owned());
        let Some(mut live) = self.ctx.state.one(&id)? else { return Ok(()) };
        let (had, action) = match host {
            Host::Domain(domain) => (live.live.domains.remove(domain).is_some(), "detach domain"),
            Host::Route(pattern) => (live.live.routes.remove(pattern).is_some(), "remove route"),
        };
        if !had {
            return Ok(());
        }
        let left = self.ctx.state.in_flight_of(&id)?.map(|in_flight| in_flight.uncertainties).unwrap_or_default();
        let entry = Entry { run: self.ctx.run, at: self.ctx.clock.unix(), action, reasons: &[], left: &left };
        self.ctx.state.record(&id, &mut live, &entry)?;
        if let Some(giver) = self.change_of.get(&id) {
            self.schedule.given(*giver, host, live.revision);
        }
        Ok(())
    }

    /// Reports the changes that ended.
    pub(super) fn report_concluded(&mut self) {
        for (index, conclusion) in std::mem::take(&mut self.concluded) {
            let change = self.change(index);
            match conclusion {
                Conclusion::Skipped => self.outcome.skipped += 1,
                Conclusion::Applied => {
                    self.outcome.applied += 1;
                    self.emit(&Event::Applied(change));
                }
                Conclusion::Overtaken => {
                    self.outcome.overtaken += 1;
                    self.emit(&Event::Overtaken(change));
                }
                Conclusion::Failed(Problem { text: error, next }) => {
                    self.emit(&Event::Failed(change, &error));
                    self.outcome.failed += 1;
                    let (worker, customer) = (change.worker.clone(), change.customer.clone());
                    self.outcome.failures.push(Failed { worker, customer, error, next_step: next });
                    self.check_failure_budget();
                }
            }
        }
    }

    /// Halts when too much has failed.
    pub(super) fn check_failure_budget(&mut self) {
        let failed = self.outcome.failed + self.outcome.unhealthy;
        if failed >= self.ctx.budget.count && self.outcome.halted.is_none() {
            let changes = count(failed, "change");
            self.halt(format!("{changes} failed, which is the limit (`deploy.failures`)"));
        }
    }
}

/// The worker after an upload; what is known of its hosts and crons stays.
fn uploaded(change: &Change, before: Option<Deployed>, record: &UploadRecord, now: i64) -> Deployed {
    let mut live = before.map(|before| before.live).unwrap_or_default();
    live.without.clear();
    live.secrets.clone_from(&record.secrets);
    let metadata = &record.stored.metadata;
    live.has_objects = objects::has_classes(metadata, &change.worker);
    // A workflow that it no longer defines is left alone from now on.
    let bindings = metadata["bindings"].as_array().into_iter().flatten();
    let own: BTreeSet<&str> = bindings.filter_map(|binding| binding["workflow_name"].as_str()).collect();
    live.workflows.retain(|name, _| own.contains(name.as_str()));
    Deployed { deployed_at: now, rejected: change.rejects, live, ..unknown_worker(change) }
}

/// A worker of which nothing is known but its change.
fn unknown_worker(change: &Change) -> Deployed {
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

/// Returns whether a step changes a worker that has to be in the state.
fn needs_worker(step: &Step) -> bool {
    match step {
        Step::Delete
        | Step::DropDomain { .. }
        | Step::DropRoute { .. }
        | Step::CreateDatabase { .. }
        | Step::DeleteDatabase { .. }
        | Step::CreateQueue { .. }
        | Step::RemoveConsumer { .. }
        | Step::DeleteWorkflow { .. }
        | Step::UploadAssets
        | Step::CreateFirst { .. }
        | Step::Upload => false,
        Step::DetachDomain { .. }
        | Step::TakeDomain { .. }
        | Step::RemoveRoute { .. }
        | Step::SetWorkersDev { .. }
        | Step::AttachDomain { .. }
        | Step::MoveDomain { .. }
        | Step::AddRoute { .. }
        | Step::MoveRoute { .. }
        | Step::SetConsumer { .. }
        | Step::PutWorkflow { .. }
        | Step::SetCrons { .. } => true,
    }
}

/// Returns these uncertainties, and those of another list that are about something else.
pub(super) fn union(uncertainties: &[Uncertainty], more: &[Uncertainty]) -> Vec<Uncertainty> {
    let others = more.iter().filter(|other| !uncertainties.iter().any(|uncertainty| is_about_same(uncertainty, other)));
    uncertainties.iter().chain(others).cloned().collect()
}
