//! The changes that a run leaves out: to accounts whose credentials are missing or refused, and of workers whose secrets have no value.
//! They are reported as failed, and the others continue.

use std::collections::{BTreeSet, HashMap};

use secrecy::SecretString;

use flotilla_deploy::deploy::{self, Failed, NextStep, Outcome};
use flotilla_deploy::plan::Step;
use flotilla_deploy::state::{State, WorkerId};
use flotilla_model::failure::{Exit, Failure};

use crate::context::Context;
use crate::operator::Event;
use crate::planning::Planned;
use crate::secret_upload;

/// The changes that a run leaves out.
#[derive(Default)]
pub struct LeftOut {
    failures: Vec<Failed>,
    /// The number of changes.
    changes: usize,
    /// The number of hosts of dispatch namespaces.
    hosts: usize,
    /// The number of migrations of databases.
    migrations: usize,
}

impl LeftOut {
    /// Removes the changes of an account from a plan. As for a token that is refused during a run, one failure reports it.
    pub fn leave_out(&mut self, context: &Context<'_>, planned: &mut Planned, account: &str, reason: &Failure) {
        let plan = &mut planned.plan;
        let (left_out, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut plan.changes).into_iter().partition(|change| change.account == account);
        plan.changes = kept;
        let (of_account, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut plan.databases).into_iter().partition(|database| database.account == account);
        plan.databases = kept;
        self.migrations += of_account.iter().map(|database| database.pending.len()).sum::<usize>();
        let hosts = plan.hosts.len();
        plan.hosts.retain(|host| host.account != account);
        self.hosts += hosts - plan.hosts.len();
        self.changes += left_out.len();
        if let Some(first) = left_out.first() {
            let error = [&[reason.to_string()], &reason.hints[..]].concat().join("; ");
            context.operator.on_event(&Event::Deploy(&deploy::Event::Failed(first, &error)));
            let (worker, customer) = (first.worker.clone(), first.customer.clone());
            self.failures.push(Failed { worker, customer, error, next_step: NextStep::Token });
        }
    }

    /// Removes the changes of workers from a plan, for reasons by worker, with those that need them. Each is a failure.
    fn leave_workers_out(
        &mut self,
        context: &Context<'_>,
        planned: &mut Planned,
        reasons: &HashMap<WorkerId, String>,
    ) -> Result<(), Failure> {
        let state = State::read(&planned.cloud.state)?;
        let hosts = planned.plan.hosts.len();
        let removed = planned.plan.leave_out(reasons, &mut |id| Ok(state.one(id)?.is_some()))?;
        self.hosts += hosts - planned.plan.hosts.len();
        self.changes += removed.len();
        for (change, error) in removed {
            context.operator.on_event(&Event::Deploy(&deploy::Event::Failed(&change, &error)));
            let next_step = if reasons.contains_key(&change.id()) { NextStep::Secret } else { NextStep::OtherFailure };
            self.failures.push(Failed { worker: change.worker, customer: change.customer, error, next_step });
        }
        Ok(())
    }

    /// Adds what was left out to the outcome of the run.
    pub fn add_to(self, outcome: &mut Outcome) {
        outcome.migrations_skipped += self.migrations;
        outcome.failed += self.failures.len();
        outcome.skipped += self.changes - self.failures.len();
        outcome.hosts_skipped += self.hosts;
        outcome.failures.splice(..0, self.failures);
    }
}

/// Leaves out the accounts that refused to be listed: what is there isn't known. If that leaves nothing, it is an error.
pub fn refused(context: &Context<'_>, planned: &mut Planned, left_out: &mut LeftOut) -> Result<(), Failure> {
    let is_refused = |name: &str| planned.refused.iter().any(|(refused, _)| refused == name);
    if !planned.refused.is_empty() && planned.plan.accounts().all(|(_, name)| is_refused(name)) {
        let failure = std::mem::take(&mut planned.refused).swap_remove(0).1;
        return Err(as_of_some(planned, failure));
    }
    let refused = std::mem::take(&mut planned.refused);
    for (name, failure) in &refused {
        left_out.leave_out(context, planned, name, failure);
    }
    planned.refused = refused;
    Ok(())
}

/// Returns the failure of all accounts of a plan, with the exit code that it has beside changes of other accounts, if those can be deployed
/// to: whether something is left to do there decides nothing about the code.
pub fn as_of_some(planned: &Planned, failure: Failure) -> Failure {
    let planned_accounts: BTreeSet<&str> = planned.plan.accounts().map(|(_, name)| name).collect();
    let is_refused = |name: &str| planned.refused.iter().any(|(refused, _)| refused == name);
    let mut others = planned.project.fleet.accounts.keys().map(String::as_str);
    let can_be_used = |name: &str| {
        !planned_accounts.contains(name)
            && !is_refused(name)
            && planned.cloud.tokens(&planned.project.fleet, [name], &planned.secrets).is_ok()
    };
    match failure.exit == Exit::Diagnostics && others.any(can_be_used) {
        true => Failure { exit: Exit::SomeFailed, ..failure },
        false => failure,
    }
}

/// Leaves out the workers whose uploads need a secret that has no value, or too large a one: one customer's secret stops no other customer.
/// Where the bindings of workers are unknown here, they are read from the platform first. If no upload is left, it is an error.
pub fn lacking(context: &Context<'_>, planned: &mut Planned, left_out: &mut LeftOut) -> Result<(), Failure> {
    let mut lacking = secret_upload::lacking(planned)?;
    if !planned.adopt.is_empty() || !lacking.is_empty() {
        secret_upload::look(context, planned)?;
        lacking = secret_upload::lacking(planned)?;
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let uploads = planned.plan.changes.iter().filter(|change| change.steps.contains(&Step::Upload)).count();
    if lacking.len() == uploads {
        return Err(secret_upload::refusal(&planned.project.fleet, lacking));
    }
    let reasons = lacking.into_iter().map(|one| (one.id.clone(), one.reason())).collect();
    left_out.leave_workers_out(context, planned, &reasons)
}

/// Returns the tokens of a plan's accounts, by account id. An account without credentials is left out; if that leaves nothing, it is an
/// error that names what all of them lack.
pub fn tokens(
    context: &Context<'_>,
    planned: &mut Planned,
    left_out: &mut LeftOut,
) -> Result<HashMap<String, SecretString>, Failure> {
    let names: BTreeSet<String> = planned.plan.accounts().map(|(_, name)| name.to_owned()).collect();
    let (mut tokens, mut failed) = (HashMap::new(), Vec::new());
    for name in &names {
        match planned.cloud.tokens(&planned.project.fleet, [name.as_str()], &planned.secrets) {
            Ok(found) => tokens.extend(found),
            Err(failure) => failed.push((name, failure)),
        }
    }
    if tokens.is_empty() {
        let all = planned.cloud.tokens(&planned.project.fleet, names.iter().map(String::as_str), &planned.secrets);
        return all.map_err(|failure| as_of_some(planned, failure));
    }
    for (name, failure) in failed {
        left_out.leave_out(context, planned, name, &failure);
    }
    Ok(tokens)
}
