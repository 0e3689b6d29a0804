//! The checks before anything is changed: the number of deletions, and the owners of workers and domains.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use flotilla_deploy::plan::{Action, Change, HostChange, READ_ONE_BY_ONE, Step};
use flotilla_deploy::refresh::{Inventory, Scope, take};
use flotilla_deploy::safety::{self, Attach, Intent, Refusal};
use flotilla_deploy::state::{ResourceKind, State, Table, WorkerId};
use flotilla_model::failure::Failure;
use flotilla_model::paging::read_list;
use flotilla_model::platform::{Call, Home, Reply};
use flotilla_model::reason::Reason;
use flotilla_model::spec::Share;
use flotilla_model::tags;
use flotilla_model::text::{count, first_lines};

use crate::apply::OthersResources;
use crate::context::Context;
use crate::left_out::{LeftOut, as_of_some};
use crate::operator::Event;
use crate::planning::Planned;
use crate::requests::PlatformRequester;

/// The number of refusals that are listed.
const SHOWN: usize = 20;

/// More deletions than are allowed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExcessDeletions {
    /// The number of workers that the plan deletes, or whose Durable Objects it destroys.
    pub planned: usize,
    /// The number of those among them that stay, and lose Durable Objects.
    pub with_objects: usize,
    /// The number of workers that may be deleted.
    pub allowed: usize,
    /// The number of deployed workers.
    pub live: usize,
}

impl fmt::Display for ExcessDeletions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExcessDeletions { planned, with_objects, allowed, live } = *self;
        let what = if with_objects > 0 { " or their Durable Objects" } else { "" };
        write!(
            f,
            "the plan deletes {} of {live}{what}, but at most {allowed} may be deleted at once",
            count(planned, "worker")
        )
    }
}

/// Returns the deletions of a plan, if they are more than is allowed at once.
pub fn excess_deletions(planned: &Planned, max_deletions: Option<usize>) -> Option<ExcessDeletions> {
    // A class of Durable Objects holds as much as a worker does.
    let is_deletion = |change: &&Change| change.action == Action::Delete || change.destroys_objects;
    let number = planned.plan.changes.iter().filter(is_deletion).count();
    if number == 0 {
        return None;
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
    let with_objects = number - planned.plan.count(Action::Delete);
    (number > allowed).then_some(ExcessDeletions { planned: number, with_objects, allowed, live })
}

/// Refuses to delete more than is allowed at once.
pub fn check_deletions(planned: &Planned, max_deletions: Option<usize>) -> Result<(), Failure> {
    let Some(excess) = excess_deletions(planned, max_deletions) else { return Ok(()) };
    Err(Failure::refused(format!("{excess}; nothing was sent"))
        .hint(format!("if this is intended: --max-deletions {}", excess.planned))
        .hint("or set `deploy: { maxDeletions: { count: …, percent: … } }` in fleet.yaml"))
}

/// Checks, before anything is changed, whether a worker to create or a domain to attach belongs to somebody else.
/// Requests one list for each home, and one for the domains of each account. Returns the resources of others that may be changed. An
/// account that refuses to be listed is left out.
pub(crate) fn preflight(
    context: &Context<'_>,
    planned: &mut Planned,
    left_out: &mut LeftOut,
    state: &mut State,
) -> Result<OthersResources, Failure> {
    let mut others = OthersResources { adopt: planned.adopt.clone(), ..OthersResources::default() };
    // What is on this machine is nobody else's.
    if planned.cloud.local.is_some() {
        return Ok(others);
    }
    let held_hosts = check_all_hosts(context, planned, left_out, state, &mut others)?;
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
        return refuse(held_hosts).map(|()| others);
    }
    let inventory;
    let inventory = match &planned.inventory {
        // It was all looked at just now.
        Some(inventory) if scope.homes.iter().all(|home| inventory.workers.contains_key(home)) => inventory,
        _ => {
            inventory = list(context, planned, &scope, left_out, &mut others)?;
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
    let recorded = |id: &WorkerId| Some(state.one(id).ok()??.live.domains.into_keys().collect());
    let fleet = planned.project.fleet.owner();
    let mut preflight = safety::preflight(&intent, inventory, &fleet, &planned.adopt, recorded);
    preflight.refusals.extend(held_hosts);
    refuse(preflight.refusals)?;
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
    let taken = intent.attaches.into_iter().filter(|(_, attach)| attach.take_over).map(|(domain, _)| domain);
    others.take_over.extend(taken);
    Ok(others)
}

/// Fails if there are refusals.
fn refuse(refusals: Vec<Refusal>) -> Result<(), Failure> {
    if refusals.is_empty() {
        return Ok(());
    }
    let number = refusals.len();
    let what = count(number, if number == 1 { "resource is" } else { "resource" });
    let are = if number == 1 { "" } else { " are" };
    let failure = Failure::refused(format!("{what}{are} not managed by this fleet; nothing was sent"));
    Err(failure.hint(first_lines(refusals.iter().map(ToString::to_string), SHOWN)))
}

/// Checks what the hosts of dispatch namespaces point to before they are written: a KV namespace has no owner, but a value names a worker, whose
/// tags name its fleet. Few hosts are read one by one. Of many, the keys are listed, and those are read that are there and that the
/// state doesn't know to be this fleet's. A host that is to be removed and points to another worker by now stays, and is forgotten.
fn check_all_hosts(
    context: &Context<'_>,
    planned: &mut Planned,
    left_out: &mut LeftOut,
    state: &mut State,
    others: &mut OthersResources,
) -> Result<Vec<Refusal>, Failure> {
    let targets: BTreeSet<(&Home, &String)> =
        planned.plan.hosts.iter().filter_map(|change| Some((&change.home, change.to.as_ref()?))).collect();
    for (home, worker) in targets {
        if let Some(worker) = planned.planned_worker(&(home.clone(), worker.clone())) {
            others.take_over.extend(worker.take_over.into_iter().map(|host| (home.account_id.clone(), host)));
        }
    }
    let accounts: BTreeSet<String> = planned.plan.hosts.iter().map(|change| change.account.clone()).collect();
    let mut refusals = Vec::new();
    for account in accounts {
        match check_hosts(context, planned, &account, state, others) {
            Ok(held) => refusals.extend(held),
            // Another account may be fine.
            Err(failure) if planned.plan.accounts().any(|(_, name)| name != account) => {
                left_out.leave_out(context, planned, &account, &failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(refusals)
}

/// Checks the hosts of one account.
fn check_hosts(
    context: &Context<'_>,
    planned: &mut Planned,
    account: &str,
    state: &mut State,
    others: &mut OthersResources,
) -> Result<Vec<Refusal>, Failure> {
    let mut tables: BTreeMap<Table, Vec<HostChange>> = BTreeMap::new();
    for change in planned.plan.hosts.iter().filter(|change| change.account == account) {
        tables.entry(change.id()).or_default().push(change.clone());
    }
    let account_ids = tables.keys().map(|table| table.account_id.clone()).collect();
    let (fleet, cloud) = (&planned.project.fleet, &mut planned.cloud);
    let mut requester = PlatformRequester::new(context, fleet, cloud, &planned.secrets, &account_ids)?;
    let owner = planned.project.fleet.owner().into_owned();
    let recorded = state.hosts()?;
    let mut owners: BTreeMap<WorkerId, Option<Option<String>>> = BTreeMap::new();
    let (mut refusals, mut kept) = (Vec::new(), BTreeSet::new());
    for (table, changes) in tables {
        let home = Home { account_id: table.account_id.clone(), namespace: None };
        let Some(namespace_id) = find_table(&mut requester, &home, &table, state)? else { continue };
        let is_sure = |change: &HostChange| {
            recorded.get(&(table.clone(), change.host.clone())).is_some_and(|lead| lead.sure && lead.worker.is_some())
        };
        let changes: Vec<HostChange> = match changes.len() > READ_ONE_BY_ONE {
            false => changes,
            true => {
                let keys = read_list(|page| {
                    match requester.fetch(&home, Call::ListKeys { namespace_id: namespace_id.clone(), page })? {
                        Reply::Names(keys) => Ok::<_, Failure>(keys),
                        other => unreachable!("BUG: {other:?} is no list of keys"),
                    }
                })?;
                let keys: HashSet<String> = keys.into_iter().map(|(key, _)| key).collect();
                changes.into_iter().filter(|change| keys.contains(&change.host) && !is_sure(change)).collect()
            }
        };
        for change in changes {
            let call = Call::ReadKey { namespace_id: namespace_id.clone(), key: change.host.clone() };
            let Reply::Value(holder) = requester.fetch(&home, call)? else { continue };
            if Some(&holder) == change.from.as_ref() || Some(&holder) == change.to.as_ref() {
                continue;
            }
            let id = (change.home.clone(), holder.clone());
            if !owners.contains_key(&id) {
                let found = match state.one(&id)? {
                    Some(_) => None,
                    None => match requester.fetch(&change.home, Call::ReadTags { worker: holder.clone() })? {
                        Reply::Tags { tags, .. } => Some(tags::read(&tags).fleet.map(str::to_owned)),
                        _ => None,
                    },
                };
                owners.insert(id.clone(), found.filter(|found| found.as_ref() != Some(&owner)));
            }
            let Some(fleet) = &owners[&id] else {
                others.holders.insert((table.clone(), change.host.clone()), holder);
                continue;
            };
            match &change.to {
                None => drop(kept.insert((table.clone(), change.host.clone()))),
                Some(worker) if takes_over(planned, worker, &change.host) => {
                    others.take_over.insert((table.account_id.clone(), change.host.clone()));
                }
                Some(worker) => refusals.push(Refusal::HostHeld {
                    host: change.host.clone(),
                    table: table.title.clone(),
                    worker: worker.clone(),
                    holder,
                    fleet: fleet.clone(),
                }),
            }
        }
    }
    for (table, host) in &kept {
        state.release_host(table, host)?;
    }
    planned.plan.hosts.retain(|change| !kept.contains(&(change.id(), change.host.clone())));
    others.requests += requester.requests;
    Ok(refusals)
}

/// Returns the id of the KV namespace of a table; nothing if it doesn't exist yet.
fn find_table(
    requester: &mut PlatformRequester,
    home: &Home,
    table: &Table,
    state: &State,
) -> Result<Option<String>, Failure> {
    if let Some(id) = state.cached_id(&table.account_id, ResourceKind::KeyValue, &table.title)? {
        return Ok(Some(id));
    }
    let listed = read_list(|page| match requester.fetch(home, Call::ListKv { page })? {
        Reply::Names(listed) => Ok::<_, Failure>(listed),
        other => unreachable!("BUG: {other:?} is no list of KV namespaces"),
    })?;
    Ok(listed.into_iter().find(|(title, _)| *title == table.title).map(|(_, id)| id))
}

/// Returns whether the spec of a worker takes over a host, regardless of its owner.
fn takes_over(planned: &Planned, worker: &str, host: &str) -> bool {
    let records = planned.scan.records.iter();
    let mut workers = records
        .flat_map(|record| record.units.iter().filter_map(|unit| planned.scan.worker(&planned.project, record, unit)));
    workers.any(|other| other.name == worker && other.take_over.contains(host))
}

/// Lists what is deployed, account by account. An account that refuses is left out of the plan; if that leaves nothing, it is an error.
fn list(
    context: &Context<'_>,
    planned: &mut Planned,
    scope: &Scope,
    left_out: &mut LeftOut,
    others: &mut OthersResources,
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
    others.requests += requester.requests;
    let is_refused = |id: &str| refusals.iter().any(|(refused, _)| *refused == id);
    if planned.plan.accounts().all(|(id, _)| is_refused(id))
        && let Some((_, failure)) = refusals.pop()
    {
        return Err(as_of_some(planned, failure));
    }
    for (account_id, failure) in refusals {
        let names = planned.plan.accounts().filter(|(id, _)| id == account_id).map(|(_, name)| name.to_owned());
        for name in names.collect::<BTreeSet<String>>() {
            left_out.leave_out(context, planned, &name, &failure);
        }
    }
    Ok(inventory)
}
