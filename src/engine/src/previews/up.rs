//! Deploys a preview: the line over the project as the preview sees it, its size checked before anything is sent, and
//! the health of its workers checked until they run what was uploaded.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;

use flotilla_build::build;
use flotilla_deploy::deploy::{NextStep, Outcome};
use flotilla_deploy::pace::Priority;
use flotilla_deploy::refresh::{Finding, Inventory, What};
use flotilla_deploy::state::{State, WorkerId};
use flotilla_model::clock::{Clock as _, SystemClock};
use flotilla_model::customer::{Database, SHARED};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;
use flotilla_model::platform::{Health, HealthCheck};
use flotilla_model::preview::Preview;
use flotilla_model::selection::Selector;
use flotilla_model::spec::{Environment, PreviewRule};
use flotilla_model::tags;
use flotilla_model::text::time;
use flotilla_spec::project;
use flotilla_spec::tree::Tree;

use super::capacity::{check_capacity, check_size};
use super::delete_databases;
use crate::addresses::{dispatched, find_subdomain, health_address, known_subdomain, url};
use crate::apply::RunKind;
use crate::cloud::CloudOptions;
use crate::context::{Context, LOCK};
use crate::deploy_fleet::{DeployRequest, Deployed, apply_planned, finished};
use crate::health::{check_health, health_check};
use crate::operator::Approval;
use crate::planning::{PlanRequest, Planned, plan_fleet};
use crate::requests::PlatformRequester;
use crate::selection::{Selection, check_environments};

/// The days after which a preview expires, unless fleet.yaml or the request sets another number.
const DAYS: u16 = 7;
/// The largest number of workers of one preview, unless fleet.yaml sets another: more than a change touches, fewer
/// than would be an accident.
const LARGEST: usize = 50;
/// The time within which a worker has to run what was uploaded, unless fleet.yaml sets another.
const DEADLINE: Duration = Duration::from_secs(60);
/// A day, in seconds.
const DAY: i64 = 86_400;

/// A preview that is created or updated.
pub struct UpRequest {
    /// Its id.
    pub id: String,
    /// Its customers: ids or globs; none of them: all.
    pub customers: Vec<String>,
    /// The labels that its customers have.
    pub labels: Vec<Selector>,
    /// Only customers that differ from this commit, branch or tag.
    pub since: Option<String>,
    /// The environment whose settings it takes.
    pub from: Option<Environment>,
    /// The days after which it expires.
    pub days: Option<u16>,
    /// The cloud.
    pub cloud: CloudOptions,
    /// The approval.
    pub approval: Approval,
}

/// A worker of a preview, as it is now.
#[derive(Serialize)]
pub struct PreviewWorker {
    /// Its customer.
    pub customer: String,
    /// Its name.
    pub worker: String,
    /// Its address.
    pub address: Option<String>,
    /// The digest of its bundle.
    pub digest: String,
    /// Its health in words; none, if it wasn't checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Whether it is healthy, as far as it was checked.
    #[serde(skip)]
    pub healthy: bool,
    /// Its health check, if it has one.
    #[serde(skip)]
    check: Option<HealthCheck>,
}

/// A preview that was put up.
#[derive(Serialize)]
pub struct PreviewUp {
    /// Its id.
    pub id: String,
    /// The environment whose settings it takes.
    pub from: Environment,
    /// The time at which it expires.
    pub expires: String,
    /// Its workers.
    pub workers: Vec<PreviewWorker>,
    /// Changes that were applied.
    pub applied: usize,
    /// Changes that failed.
    pub failed: usize,
    /// Changes that weren't attempted.
    pub skipped: usize,
    /// Workers that aren't healthy.
    pub unhealthy: usize,
    /// Requests that were sent.
    pub requests: u64,
    /// The failures, as a deploy's JSON has them.
    pub failures: serde_json::Value,
    /// The next steps of a person.
    #[serde(skip)]
    pub next_steps: BTreeSet<NextStep>,
    /// The exit code that fits.
    #[serde(skip)]
    pub exit: Exit,
}

/// The result of deploying a preview.
pub enum PreviewRun {
    /// The plan of a dry run: nothing was sent but lists.
    DryRun(Box<Planned>),
    /// The preview as it is now.
    Deployed(Box<PreviewUp>),
}

/// Deploys a preview, or updates it.
pub fn preview_up(context: &Context<'_>, request: &UpRequest) -> Result<PreviewRun, Failure> {
    let Selected { customers, shared, rule, from } = selected(context, request)?;
    let largest = rule.most.unwrap_or(LARGEST);
    // Each has a worker, at the least.
    check_size(customers.len(), largest, "customer")?;
    let preview = Preview {
        id: request.id.clone(),
        from,
        domain: rule.domain,
        customers,
        shared: Some(shared),
        hosts: BTreeMap::new(),
    };
    let context = &context.of_preview(preview);
    let days = i64::from(request.days.or(rule.days).unwrap_or(DAYS));
    let now = SystemClock::new().unix();
    let expires = now + days * DAY;
    let applies = !request.approval.is_dry_run();
    let take = || Lock::take_from_all(&context.folder().join(LOCK), "preview up", context.operator);
    let lock = applies.then(take).transpose()?;
    let plan = PlanRequest {
        cloud: request.cloud.clone(),
        prune: true,
        dry_build: !applies,
        refresh: true,
        applies,
        priority: Priority::Bulk,
        expires,
        ..PlanRequest::default()
    };
    let mut planned = plan_fleet(context, &plan)?;
    check_size(planned.workers, largest, "worker")?;
    let inventory = planned.inventory.clone().unwrap_or_default();
    refuse_others(&planned)?;
    // Each machine that updates it finds what another one deployed.
    planned.findings.retain(|finding| !matches!(finding.what, What::DeployedElsewhere | What::Orphan { .. }));
    check_capacity(&planned, &inventory, now)?;
    let kept = databases(&mut planned);
    delete_databases(&mut planned.plan.changes, &inventory, |account, name| {
        kept.contains(&(account.to_owned(), name.to_owned()))
    });
    let deploy = DeployRequest {
        plan,
        reviewed: None,
        approval: request.approval.clone(),
        max_deletions: Some(usize::MAX),
        kind: RunKind::new("preview up"),
        verify: None,
    };
    let (mut planned, outcome, tokens, exit) = match apply_planned(context, planned, &deploy, lock.as_ref())? {
        Deployed::Applied(applied) => {
            let exit = applied.exit();
            (applied.planned, applied.outcome, applied.tokens, exit)
        }
        Deployed::UpToDate(planned) => {
            let exit = finished(&planned);
            (Arc::from(planned), Outcome::default(), HashMap::new(), exit)
        }
        Deployed::DryRun(planned) => return Ok(PreviewRun::DryRun(planned)),
        Deployed::OtherPlan { refusal, .. } => return Err(refusal),
    };
    let mut requests = outcome.requests;
    if outcome.is_complete() {
        if let Some(planned) = Arc::get_mut(&mut planned).filter(|planned| planned.cloud.local.is_some()) {
            // It has been started, if anything was applied.
            planned.cloud.start(context)?;
        }
        requests += renew(context, &planned, &inventory, days, now)?;
    }
    let mut workers = workers(context, &planned, &tokens)?;
    let rule = &planned.project.fleet.file.deploy.health;
    let deadline = rule.deadline_seconds.map_or(DEADLINE, Duration::from_secs);
    if outcome.is_complete() && rule.enabled.unwrap_or(true) {
        wait(context, &mut workers, deadline);
    }
    let unhealthy = workers.iter().filter(|worker| !worker.healthy).count();
    Ok(PreviewRun::Deployed(Box::new(PreviewUp {
        id: request.id.clone(),
        from,
        expires: time(expires),
        applied: outcome.applied,
        failed: outcome.failed,
        skipped: outcome.skipped + outcome.hosts_skipped,
        unhealthy,
        requests,
        failures: serde_json::to_value(&outcome.failures).unwrap_or_default(),
        next_steps: outcome.next_steps(),
        workers,
        exit: if unhealthy > 0 || !outcome.is_complete() { Exit::SomeFailed } else { exit },
    })))
}

/// The workers that a preview has, as the state knows them.
fn workers(
    context: &Context<'_>,
    planned: &Planned,
    tokens: &HashMap<String, SecretString>,
) -> Result<Vec<PreviewWorker>, Failure> {
    let state = State::read(&planned.cloud.state)?;
    let workers = state.deployed()?.into_iter().map(|((home, worker), live)| {
        let fleet = &planned.project.fleet;
        let known = || known_subdomain(fleet, &planned.cloud, &state, &home);
        let part = || find_subdomain(context, fleet, &planned.cloud, || Ok(tokens.clone()), &home);
        let by_host = dispatched(&state, &home, &worker);
        PreviewWorker {
            address: url(&planned.cloud, &worker, &live, part).or_else(|| by_host.clone()),
            check: health_address(&planned.cloud, &worker, &live, known).or(by_host).and_then(|address| {
                let source = state.stored(&live.digest).ok().flatten().map(|stored| stored.source);
                let pack = source.as_ref().and_then(|source| source["worker"]["pack"].as_str());
                health_check(&planned.project.fleet, pack, address, &worker, &live)
            }),
            digest: live.digest.to_string(),
            customer: live.customer,
            worker,
            health: None,
            healthy: true,
        }
    });
    Ok(workers.collect())
}

/// Waits until the workers run what was uploaded, or it takes too long.
fn wait(context: &Context<'_>, workers: &mut [PreviewWorker], deadline: Duration) {
    let checks = workers.iter().map(|worker| worker.check.clone()).collect();
    for (worker, health) in workers.iter_mut().zip(check_health(context.operator, checks, deadline)) {
        if let Some(health) = health {
            (worker.healthy, worker.health) = (health == Health::Healthy, Some(health.to_string()));
        }
    }
}

/// The customers of a preview, and fleet.yaml's rules for previews.
struct Selected {
    customers: BTreeSet<String>,
    /// The shared workers that are selected themselves, whether or not a customer refers to them.
    shared: BTreeSet<String>,
    rule: PreviewRule,
    /// The environment whose settings it takes.
    from: Environment,
}

/// Finds the customers of a preview.
fn selected(context: &Context<'_>, request: &UpRequest) -> Result<Selected, Failure> {
    let (customers, labels) = (request.customers.clone(), request.labels.clone());
    let selection = Selection::new(customers, labels, Vec::new(), request.since.clone());
    let mut opened = build::open(Tree::new(&context.root), context.operator).map_err(Failure::invalid)?;
    let rule = opened.fleet.file.previews.clone();
    let from = request.from.or(rule.from).unwrap_or(Environment::Staging);
    let scan = match selection.is_all() && !from.is_own() {
        true => None,
        false => Some(build::scan(&mut opened, false, context.operator).map_err(Failure::invalid)?),
    };
    if let Some(scan) = scan.as_ref().filter(|scan| from.is_own() && scan.held.is_empty()) {
        let units = scan.records.iter().flat_map(|record| &record.units);
        check_environments([from], &units.map(|unit| unit.environment).collect())?;
    }
    let mut shared = BTreeSet::new();
    let customers = match scan.filter(|_| !selection.is_all()) {
        None => opened.files.iter().map(|file| project::id_of(file).to_owned()).collect(),
        Some(mut scan) => {
            selection.verify(context.operator, &opened, &mut scan)?;
            let included = scan
                .records
                .iter()
                .filter(|record| record.units.iter().any(|unit| selection.includes_unit(record, unit)));
            let mut ids: BTreeSet<String> = included.map(|record| build::id(record).to_owned()).collect();
            // Errors in a spec are reported for the selected customers.
            ids.extend(scan.held.iter().filter(|id| selection.includes_id(id)).cloned());
            let of_shared = scan.records.iter().filter(|record| build::id(record) == SHARED);
            if ids.remove(SHARED) && request.customers.is_empty() && request.labels.is_empty() {
                // Workers that changed are selected, even those that belong to no customer.
                let units = of_shared.flat_map(|record| record.units.iter().map(move |unit| (record, unit)));
                let differing = units.filter(|(record, unit)| selection.includes_unit(record, unit));
                shared.extend(differing.filter_map(|(_, unit)| unit.role.clone()));
            }
            ids
        }
    };
    Ok(Selected { customers, shared, rule, from })
}

/// Refuses to overwrite what belongs to somebody else: a name or a host of the preview that is in use.
fn refuse_others(planned: &Planned) -> Result<(), Failure> {
    let conflicts = planned.findings.iter().filter_map(|Finding { what, worker, .. }| match what {
        What::Unowned { fleet: Some(fleet) } => Some(format!("the worker {worker} belongs to the fleet {fleet}")),
        What::Unowned { fleet: None } => Some(format!("the worker {worker} exists, and no fleet manages it")),
        What::DomainHeld { domain, holder } => {
            Some(format!("{domain} points to {holder}, which is not part of the preview"))
        }
        _ => None,
    });
    let conflicts: Vec<String> = conflicts.collect();
    let Some(first) = conflicts.first() else { return Ok(()) };
    let failure = Failure::refused(format!("{first}; nothing was sent")).hint("use another --id");
    Err(conflicts[1..].iter().fold(failure, |failure, more| failure.hint(more)))
}

/// The D1 databases that the preview's workers have, by account and name.
fn databases(planned: &mut Planned) -> BTreeSet<(String, String)> {
    let workers = planned.scan.workers(&planned.project);
    let named = workers.iter().filter_map(|worker| match &worker.database {
        Database::D1 { name, .. } => Some((planned.cloud.home(&worker.account, None).account_id, name.clone())),
        _ => None,
    });
    named.collect()
}

/// Extends the expiry of workers that were not uploaded again, once half of their days are over. Returns the number
/// of requests.
fn renew(context: &Context<'_>, planned: &Planned, inventory: &Inventory, days: i64, now: i64) -> Result<u64, Failure> {
    let fleet = &planned.project.fleet;
    let owner = fleet.owner();
    let changed: BTreeSet<WorkerId> =
        planned.plan.changes.iter().map(|change| (change.home.clone(), change.worker.clone())).collect();
    let mut late = Vec::new();
    for (home, workers) in &inventory.workers {
        for listed in workers.values() {
            let marks = tags::read(&listed.tags);
            let ends_soon = marks.expires.is_none_or(|expires| expires < now + days * DAY / 2);
            if marks.fleet == Some(&owner) && ends_soon && !changed.contains(&(home.clone(), listed.name.clone())) {
                let tags = tags::renewed(&listed.tags, now + days * DAY);
                late.push((home.clone(), listed, tags));
            }
        }
    }
    if late.is_empty() {
        return Ok(0);
    }
    let account_ids = late.iter().map(|(home, ..)| home.account_id.clone()).collect();
    let mut requester = PlatformRequester::of_cloud(context, fleet, &planned.cloud, &planned.secrets, &account_ids)?;
    for (home, listed, tags) in late {
        requester.retag(&home, &listed.name, &listed.tags, tags)?;
    }
    Ok(requester.requests as u64)
}
