//! The checks before anything is changed: the number of deletions, and the owners of workers and domains.

use std::collections::BTreeSet;

use flotilla_deploy::plan::{Action, Step};
use flotilla_deploy::refresh::{Inventory, Scope, take};
use flotilla_deploy::safety::{self, Attach, Intent};
use flotilla_deploy::state::{State, WorkerId};
use flotilla_model::failure::Failure;
use flotilla_model::reason::Reason;
use flotilla_model::spec::Share;
use flotilla_model::tags;
use flotilla_model::text::{count, first_lines};

use crate::context::Context;
use crate::left_out::LeftOut;
use crate::operator::Event;
use crate::planning::Planned;
use crate::requests::PlatformRequester;

/// The number of refusals that are listed.
const SHOWN: usize = 20;

/// Refuses to delete more than is allowed at once.
pub fn check_deletions(planned: &Planned, max_deletions: Option<usize>) -> Result<(), Failure> {
    let number = planned.plan.count(Action::Delete);
    if number == 0 {
        return Ok(());
    }
    let rule = planned.project.fleet.file.deploy.max_deletions.unwrap_or_default();
    let (count_of_all, percent) = match rule {
        // Who says one of the two, means that one.
        Share { count: Some(count), percent: None } => (count, 100.0),
        Share { count: None, percent: Some(percent) } => (usize::MAX, percent),
        Share { count, percent } => {
            (count.unwrap_or(safety::MAX_DELETIONS), percent.unwrap_or(safety::MAX_DELETIONS_PERCENT))
        }
    };
    let live = planned.live;
    let allowed = max_deletions.unwrap_or_else(|| safety::deletions(count_of_all, percent, live));
    if number <= allowed {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the plan deletes {} of {live}, and {allowed} may be deleted at once; nothing was sent",
        count(number, "worker")
    ))
    .hint(format!("if that is meant: --max-deletions {number}"))
    .hint("or set `deploy: { maxDeletions: { count: …, percent: … } }` in fleet.yaml"))
}

/// Checks, before anything is changed, whether a worker to create or a domain to attach belongs to somebody else.
/// Requests one list for each home, and one for the domains of each account. Returns the domains that may be taken from others,
/// by account id and host name. An account that refuses to be listed is left out.
pub fn preflight(
    context: &Context<'_>,
    planned: &mut Planned,
    left_out: &mut LeftOut,
) -> Result<BTreeSet<(String, String)>, Failure> {
    // What is on this machine is nobody else's.
    if planned.cloud.local.is_some() {
        return Ok(BTreeSet::new());
    }
    let mut intent = Intent::default();
    for change in &planned.plan.changes {
        if change.action == Action::Create {
            intent.creates.insert(change.id());
        }
        let mut attached = change.steps.iter().filter_map(|step| match step {
            Step::AttachDomain { domain } => Some(domain),
            _ => None,
        });
        if let Some(first) = attached.next() {
            let take_over = planned.worker(change).map(|(worker, _)| worker.take_over).unwrap_or_default();
            for domain in std::iter::once(first).chain(attached) {
                let attach = Attach { worker: change.worker.clone(), take_over: take_over.contains(domain) };
                intent.attaches.insert((change.home.account_id.clone(), domain.clone()), attach);
            }
        }
    }
    let scope = intent.scope();
    if scope.requests() == 0 {
        return Ok(BTreeSet::new());
    }
    let inventory;
    let inventory = match &planned.inventory {
        // It was all looked at just now.
        Some(inventory) if scope.homes.iter().all(|home| inventory.workers.contains_key(home)) => inventory,
        _ => {
            inventory = list(context, planned, &scope, left_out)?;
            intent.creates.retain(|(home, _)| inventory.workers.contains_key(home));
            intent.attaches.retain(|(account_id, _), _| inventory.domains.contains_key(account_id));
            &inventory
        }
    };
    let ours = |(home, worker): &&WorkerId| {
        let listed = inventory.workers.get(home).and_then(|workers| workers.get(worker));
        listed.is_some_and(|listed| tags::read(&listed.tags).fleet == Some(&planned.project.fleet.owner()))
    };
    let there = intent.creates.iter().filter(ours).count();
    if there > 0 {
        context.operator.on_event(&Event::AlreadyThere(there));
    }
    let state = State::read(&planned.cloud.state)?;
    let recorded = |id: &WorkerId| Some(state.one(id).ok()??.live.domains.into_keys().collect());
    let fleet = planned.project.fleet.owner();
    let preflight = safety::preflight(&intent, inventory, &fleet, &planned.adopt, recorded);
    if !preflight.refusals.is_empty() {
        let number = preflight.refusals.len();
        let what = count(number, if number == 1 { "thing is" } else { "thing" });
        let are = if number == 1 { "" } else { " are" };
        let failure = Failure::refused(format!("{what}{are} somebody else's; nothing was sent"));
        return Err(failure.hint(first_lines(preflight.refusals.iter().map(ToString::to_string), SHOWN)));
    }
    for change in &mut planned.plan.changes {
        let account_id = &change.home.account_id;
        for step in &mut change.steps {
            if let Step::AttachDomain { domain } = step
                && let Some(taken) = preflight.taken.get(&(account_id.clone(), domain.clone()))
            {
                let (domain, from) = (domain.clone(), taken.holder.clone());
                change.reasons.push(Reason::DomainTaken { domain: domain.clone(), old: from.clone() });
                *step = Step::TakeDomain { domain, from };
            }
        }
    }
    Ok(intent.attaches.into_iter().filter(|(_, attach)| attach.take_over).map(|(domain, _)| domain).collect())
}

/// Lists what is there, account by account. An account that refuses is left out of the plan; if that leaves nothing, it is an error.
fn list(
    context: &Context<'_>,
    planned: &mut Planned,
    scope: &Scope,
    left_out: &mut LeftOut,
) -> Result<Inventory, Failure> {
    let account_ids: BTreeSet<String> = scope.account_ids();
    let (fleet, cloud) = (&planned.project.fleet, &mut planned.cloud);
    let mut requester = PlatformRequester::new(context, fleet, cloud, &planned.secrets, &account_ids)?;
    let (mut inventory, mut refusals) = (Inventory::default(), Vec::new());
    for account_id in &account_ids {
        let mut is_refusal = false;
        let listed = take(&scope.of_account(account_id), &mut |home, call| {
            requester.request(home, &call).map_err(|error| {
                is_refusal = error.is_refusal();
                Failure::from(error)
            })
        });
        match listed {
            Ok(found) => inventory.add(found),
            Err(failure) if is_refusal => refusals.push((account_id, failure)),
            Err(failure) => return Err(failure),
        }
    }
    let is_refused = |id: &str| refusals.iter().any(|(refused, _)| *refused == id);
    if planned.plan.accounts().all(|(id, _)| is_refused(id))
        && let Some((_, failure)) = refusals.pop()
    {
        return Err(failure);
    }
    for (account_id, failure) in refusals {
        let names = planned.plan.accounts().filter(|(id, _)| id == account_id).map(|(_, name)| name.to_owned());
        for name in names.collect::<BTreeSet<String>>() {
            left_out.leave_out(context, planned, &name, &failure);
        }
    }
    Ok(inventory)
}
