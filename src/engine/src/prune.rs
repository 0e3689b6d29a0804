//! Deletes workers that no spec defines any more, and removes domains and routes that point to workers which don't exist.

use std::collections::{BTreeSet, HashSet};

use flotilla_deploy::pace::Priority;
use flotilla_deploy::refresh::{Finding, What};
use flotilla_deploy::state::State;
use flotilla_model::customer::SHARED;
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;
use flotilla_model::platform::{Call, Home, Reply};
use flotilla_spec::project;
use flotilla_spec::tree::Tree;

use crate::apply::RunKind;
use crate::cloud::{Cloud, CloudOptions};
use crate::context::{Context, LOCK};
use crate::deploy_fleet::{DeployRequest, Deployed, apply_planned};
use crate::operator::{Approval, Event, Question};
use crate::planning::{PlanRequest, Planned, plan_fleet};
use crate::requests::PlatformRequester;

/// The workers to prune.
pub struct PruneRequest {
    /// The cloud.
    pub cloud: CloudOptions,
    /// The approval.
    pub approval: Approval,
    /// The number of workers that may be deleted, instead of fleet.yaml's.
    pub max_deletions: Option<usize>,
    /// Removes domains and routes that point to no worker, too.
    pub hosts: bool,
    /// Only workers of these customers; none: of all.
    pub customers: BTreeSet<String>,
}

/// A domain or a route that points to no worker, and the call that removes it.
fn removal(finding: &Finding) -> Option<(String, Call)> {
    match &finding.what {
        What::OrphanedDomain { domain, id, exists: false } => {
            Some((domain.clone(), Call::DetachDomain { id: id.clone() }))
        }
        What::OrphanedRoute { pattern, zone_id, id, exists: false } => {
            Some((pattern.clone(), Call::RemoveRoute { zone_id: zone_id.clone(), id: id.clone() }))
        }
        _ => None,
    }
}

/// Prunes a fleet.
pub fn prune(context: &Context<'_>, request: &PruneRequest) -> Result<Deployed, Failure> {
    let applies = !request.approval.is_dry_run();
    let take = || Lock::take_from_all(&context.folder().join(LOCK), "prune", context.operator);
    let lock = applies.then(take).transpose()?;
    let context = &Context { may_have_no_customers: has_no_customer_left(context, request)?, ..context.clone() };
    prune_under_lock(context, request, lock.as_ref())
}

/// Returns whether the state has something to prune, and nothing of any customer: then a project without customers is no error, and shared
/// workers can be deleted.
fn has_no_customer_left(context: &Context<'_>, request: &PruneRequest) -> Result<bool, Failure> {
    let Ok(fleet) = project::read_fleet(&Tree::new(&context.root)) else { return Ok(false) };
    let secrets = request.cloud.secrets(context, &fleet)?;
    let state = State::read(&Cloud::new(context, &fleet, &request.cloud, &secrets)?.state)?;
    let (mut shared, mut others) = (0, 0);
    state.each(|_, live| if live.customer == SHARED { shared += 1 } else { others += 1 })?;
    Ok(shared > 0 && others == 0)
}

/// Prunes a fleet under a lock that is taken already; a dry run needs none.
pub(crate) fn prune_under_lock(
    context: &Context<'_>,
    request: &PruneRequest,
    lock: Option<&Lock>,
) -> Result<Deployed, Failure> {
    let applies = !request.approval.is_dry_run();
    let plan = PlanRequest {
        cloud: request.cloud.clone(),
        prune: true,
        only_prune: true,
        pruned_customers: request.customers.clone(),
        refresh: true,
        applies,
        priority: Priority::Bulk,
        ..PlanRequest::default()
    };
    let mut planned = plan_fleet(context, &plan)?;
    // The rest of what differs is for plan and deploy to report.
    planned.findings.retain(|finding| matches!(finding.what, What::OrphanedDomain { .. } | What::OrphanedRoute { .. }));
    // The hosts of workers that it deletes go with them.
    let deleted: HashSet<&str> = planned.plan.changes.iter().map(|change| change.worker.as_str()).collect();
    planned.findings.retain(|finding| !deleted.contains(finding.worker.as_str()));
    if request.hosts {
        remove_hosts(context, &mut planned, &request.approval)?;
    }
    let kind = RunKind::new("prune");
    let deploy = DeployRequest {
        plan,
        reviewed: None,
        approval: request.approval.clone(),
        max_deletions: request.max_deletions,
        kind,
        verify: None,
    };
    apply_planned(context, planned, &deploy, lock)
}

/// Checks again, right before a domain or a route is removed: somebody may have created its worker, or pointed it to another one.
fn still_points_nowhere(requester: &mut PlatformRequester, home: &Home, finding: &Finding) -> Result<bool, Failure> {
    let worker = finding.worker.clone();
    let is_there = match &finding.what {
        What::OrphanedDomain { domain, .. } => {
            let call = Call::FindDomain { worker: worker.clone(), domain: domain.clone() };
            matches!(requester.fetch(home, call)?, Reply::Id(_))
        }
        What::OrphanedRoute { zone_id, id, .. } => {
            let call = Call::ReadRoute { zone_id: zone_id.clone(), id: id.clone() };
            requester.fetch(home, call)? == Reply::HeldBy(Some(worker.clone()))
        }
        _ => false,
    };
    Ok(is_there && requester.fetch(home, Call::ReadTags { worker })? == Reply::Nothing)
}

/// Removes the domains and routes among the findings.
fn remove_hosts(context: &Context<'_>, planned: &mut Planned, approval: &Approval) -> Result<(), Failure> {
    let nowhere: Vec<(Finding, String, Call)> = planned
        .findings
        .iter()
        .filter_map(|finding| removal(finding).map(|(name, call)| (finding.clone(), name, call)))
        .collect();
    if nowhere.is_empty() {
        return Ok(());
    }
    let findings: Vec<Finding> = nowhere.iter().map(|(finding, ..)| finding.clone()).collect();
    context.operator.on_event(&Event::HostsPointNowhere(&findings));
    if approval.is_dry_run() {
        return Ok(());
    }
    if *approval == Approval::Ask && planned.cloud.local.is_none() {
        context.operator.confirm(&Question::RemoveHosts(nowhere.len()))?;
    }
    let homes: Vec<Home> = findings
        .iter()
        .map(|finding| Home { account_id: planned.cloud.home(&finding.account, None).account_id, namespace: None })
        .collect();
    let account_ids = homes.iter().map(|home| home.account_id.clone()).collect();
    let fleet = &planned.project.fleet;
    let mut requester = PlatformRequester::new(context, fleet, &mut planned.cloud, &planned.secrets, &account_ids)?;
    for (home, (finding, name, call)) in homes.iter().zip(nowhere) {
        if still_points_nowhere(&mut requester, home, &finding)? {
            requester.fetch(home, call)?;
            context.operator.on_event(&Event::HostRemoved(&name));
        }
    }
    planned.findings.retain(|finding| removal(finding).is_none());
    Ok(())
}
