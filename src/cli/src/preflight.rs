//! What a command looks at before it changes anything: how much is deleted, whose workers and domains are touched, and
//! whether somebody agrees.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use flotilla_deploy::plan::{Action, Step};
use flotilla_deploy::refresh::take;
use flotilla_deploy::safety::{self, Attach, Intent};
use flotilla_deploy::state::{State, WorkerId};
use flotilla_model::failure::Failure;
use flotilla_model::listing::and_more;
use flotilla_model::spec::Share;
use flotilla_model::tags;

use super::Session;
use super::apply::ApplyArguments;
use super::plan::Planned;
use super::refresh::Asking;
use super::report::count;

/// Refuses to delete more than is allowed at once.
pub(super) fn deletions(planned: &Planned, arguments: &ApplyArguments) -> Result<(), Failure> {
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
    let allowed = arguments.max_deletions.unwrap_or_else(|| safety::deletions(count_of_all, percent, live));
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

/// Looks, before anything is changed, whether a worker that is to be created or a domain that is to be attached is
/// somebody else's. One list for each home, and one for the domains of each account.
pub(super) fn preflight(session: &Session, planned: &mut Planned) -> Result<(), Failure> {
    // What is on this machine is nobody else's.
    if planned.cloud.local.is_some() {
        return Ok(());
    }
    let mut intent = Intent::default();
    for change in &planned.plan.changes {
        if change.action == Action::Create {
            intent.creates.insert((change.home.clone(), change.worker.clone()));
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
        return Ok(());
    }
    let asked;
    let inventory = match &planned.inventory {
        // It was all looked at just now.
        Some(inventory) if scope.homes.iter().all(|home| inventory.workers.contains_key(home)) => inventory,
        _ => {
            let account_ids = scope.homes.iter().map(|home| home.account_id.clone()).collect();
            let fleet = &planned.project.fleet;
            let mut asking = Asking::new(session, fleet, &mut planned.cloud, &planned.secrets, &account_ids)?;
            asked = take(&scope, &mut |home, call| asking.ask(home, call))?;
            &asked
        }
    };
    let ours = |(home, worker): &&WorkerId| {
        let listed = inventory.workers.get(home).and_then(|workers| workers.get(worker));
        listed.is_some_and(|listed| tags::read(&listed.tags).fleet == Some(&planned.project.fleet.owner()))
    };
    let there = intent.creates.iter().filter(ours).count();
    if there > 0 {
        session.ui.line(&format!(
            "{} of these {} there already, from another machine: with --refresh, only what changed is deployed",
            count(there, "worker"),
            if there == 1 { "is" } else { "are" }
        ));
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
        let shown = preflight.refusals.iter().take(20).map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let more = if number > 20 { format!("\n{}", and_more(number - 20)) } else { String::new() };
        return Err(failure.hint(format!("{shown}{more}")));
    }
    for change in &mut planned.plan.changes {
        let account_id = &change.home.account_id;
        let mut at = 0;
        while at < change.steps.len() {
            if let Step::AttachDomain { domain } = &change.steps[at]
                && let Some(taken) = preflight.taken.get(&(account_id.clone(), domain.clone()))
            {
                let (domain, id, from) = (domain.clone(), taken.id.clone(), taken.holder.clone());
                change.reasons.push(format!("domain {domain} is taken from {from}"));
                change.steps.insert(at, Step::TakeDomain { domain, id, from });
                at += 1;
            }
            at += 1;
        }
    }
    Ok(())
}

/// Asks a question that is answered by yes or no.
pub(super) fn ask(question: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(
            Failure::refused(format!("nobody is there to answer: {question} Nothing was changed")).hint("pass --yes")
        );
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::refused("not confirmed; nothing was changed"))
}
