//! Accounts that a run can't deploy to, because their credentials are missing or refused: their changes are left out and reported as
//! failed, and those of other accounts go on.

use std::collections::{BTreeSet, HashMap};

use secrecy::SecretString;

use flotilla_deploy::deploy::{self, Failed, NextStep, Outcome};
use flotilla_model::failure::Failure;

use crate::context::Context;
use crate::operator::Event;
use crate::planning::Planned;

/// The changes that a run leaves out.
#[derive(Default)]
pub struct LeftOut {
    failures: Vec<Failed>,
    /// The number of changes.
    changes: usize,
    /// The number of hosts of dispatch namespaces.
    hosts: usize,
}

impl LeftOut {
    /// Removes the changes of an account from a plan. As for a token that is refused during a run, one failure reports it.
    pub fn leave_out(&mut self, context: &Context<'_>, planned: &mut Planned, account: &str, reason: &Failure) {
        let plan = &mut planned.plan;
        let (left_out, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut plan.changes).into_iter().partition(|change| change.account == account);
        plan.changes = kept;
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

    /// Adds what was left out to the outcome of the run.
    pub fn add_to(self, outcome: &mut Outcome) {
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
        return Err(std::mem::take(&mut planned.refused).swap_remove(0).1);
    }
    let refused = std::mem::take(&mut planned.refused);
    for (name, failure) in &refused {
        left_out.leave_out(context, planned, name, failure);
    }
    planned.refused = refused;
    Ok(())
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
        return planned.cloud.tokens(&planned.project.fleet, names.iter().map(String::as_str), &planned.secrets);
    }
    for (name, failure) in failed {
        left_out.leave_out(context, planned, name, &failure);
    }
    Ok(tokens)
}
