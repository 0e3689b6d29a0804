//! Compares the platform's lists with the state's rows and with the desired state; returns the differences, and the
//! corrected rows. Pure; `inventory` requests the lists.
//!
//! A list of workers has each one's tags, the ETag of its content and what last uploaded it. So most of a fleet is
//! settled by one request per home. What the list doesn't have is requested per worker: whether it answers on
//! workers.dev, and its crons; and only where its tags don't show that these are as desired, see [`unclear`]. An
//! upload through the API that leaves tags and code as they are moves neither tags nor ETag, and is not seen.

mod inventory;
mod previews;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::state::WorkerId;
use flotilla_model::binding::OwnWorkflow;
use flotilla_model::digest::Digest;
use flotilla_model::limits;
use flotilla_model::platform::{Home, ListedDomain, ListedWorker};
use flotilla_model::reason::{Reason, changed_outside};
use flotilla_model::spec::{Environment, QueueConsumer};
use flotilla_model::tags::{self, Triggers};

pub use inventory::{AskedTriggers, Inventory, Scope, Zone, take};
pub use previews::{Seen, previews};

/// The source that lists give for uploads through the API; ours are among them.
const API: &str = "api";

/// A worker's row in the state.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The customer; empty where it is no longer known.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// The digest of its bundle; none where somebody else changed it.
    pub digest: Option<Digest>,
    /// The platform's ETag.
    pub etag: String,
    /// Whether it answers on workers.dev.
    pub workers_dev: bool,
    /// Whether each of its versions has an address there.
    pub preview_urls: bool,
    /// Custom domains, with their ids.
    pub domains: BTreeMap<String, String>,
    /// Routes, with their zones' and their own ids.
    pub routes: BTreeMap<String, (String, String)>,
    /// Crons.
    pub crons: BTreeSet<String>,
    /// The queues that it consumes.
    pub consumers: BTreeMap<String, QueueConsumer>,
    /// The workflows of its own.
    pub workflows: BTreeMap<String, OwnWorkflow>,
    /// The tag of the last migration of its Durable Object classes.
    pub migration_tag: Option<String>,
}

/// A worker as the specs define it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The customer.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// The digest of its bundle.
    pub digest: Digest,
    /// The triggers that should point to it.
    pub triggers: Triggers,
    /// The zones of its routes, by name.
    pub zones: BTreeSet<String>,
    /// Whether flotilla deploys it. Workers that others deploy aren't compared.
    pub ours: bool,
}

/// The state and the desired state, which the lists are compared with.
#[derive(Clone, Copy)]
pub struct Baseline<'a> {
    /// The fleet's name.
    pub fleet: &'a str,
    /// The accounts' names in fleet.yaml, by their ids.
    pub accounts: &'a BTreeMap<String, String>,
    /// The state's rows.
    pub rows: &'a BTreeMap<WorkerId, Row>,
    /// The desired workers.
    pub wanted: &'a BTreeMap<WorkerId, Wanted>,
    /// The customers whose specs have errors: their workers are unknown, and none of them is orphaned.
    pub held: &'a BTreeSet<String>,
    /// Whether `wanted` is everything that the fleet defines. Otherwise, nothing is orphaned.
    pub whole: bool,
    /// Workers that this fleet doesn't manage yet and adopts.
    pub adopt: &'a BTreeSet<String>,
    /// Workers with a change in flight: their triggers are requested.
    pub uncertain: &'a BTreeSet<WorkerId>,
    /// Don't trust the rows' triggers, only tags and responses.
    pub anew: bool,
}

/// A difference from the state, or from the desired state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The kind of difference.
    #[serde(flatten)]
    pub what: What,
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The worker, as far as it is about one.
    pub worker: String,
}

/// The kinds of differences, in the order in which they are reported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum What {
    /// A worker that a spec defines already exists, and this fleet doesn't manage it.
    Unowned {
        /// The fleet that claims it.
        fleet: Option<String>,
    },
    /// A worker of this fleet was changed by other means.
    Changed {
        /// The time, as the platform writes it.
        at: String,
        /// The means: `wrangler`, `dash`.
        by: Option<String>,
    },
    /// A worker of this fleet no longer exists.
    Missing,
    /// A worker of this fleet that no spec defines.
    Orphan {
        /// Its customer, if that is known.
        customer: Option<String>,
    },
    /// A domain that a spec defines points to a worker that this fleet doesn't manage.
    DomainHeld {
        /// The host name.
        domain: String,
        /// The worker that it points to.
        holder: String,
    },
    /// A domain points to another worker than in the state.
    DomainMoved {
        /// The host name.
        domain: String,
        /// The worker that it points to.
        holder: String,
    },
    /// A domain in the state no longer exists.
    DomainGone {
        /// The host name.
        domain: String,
    },
    /// A domain that is neither in the state nor in a spec points to a worker of this fleet.
    DomainAdded {
        /// The host name.
        domain: String,
    },
    /// A domain points to a worker that doesn't exist, or that no spec defines: anyone who creates a worker with that name gets the host.
    OrphanedDomain {
        /// The host name.
        domain: String,
        /// Its id.
        #[serde(skip)]
        id: String,
        /// Whether the worker exists.
        exists: bool,
    },
    /// A route points to another worker than in the state.
    RouteMoved {
        /// The pattern.
        pattern: String,
        /// The worker that it points to, if any.
        holder: Option<String>,
    },
    /// A route in the state no longer exists.
    RouteGone {
        /// The pattern.
        pattern: String,
    },
    /// A route that is neither in the state nor in a spec points to a worker of this fleet.
    RouteAdded {
        /// The pattern.
        pattern: String,
    },
    /// A route points to a worker that doesn't exist, or that no spec defines.
    OrphanedRoute {
        /// The pattern.
        pattern: String,
        /// The zone's id.
        #[serde(skip)]
        zone_id: String,
        /// Its id.
        #[serde(skip)]
        id: String,
        /// Whether the worker exists.
        exists: bool,
    },
    /// Another machine deployed a worker of this fleet.
    DeployedElsewhere,
    /// A worker that this fleet didn't manage is adopted.
    Adopted,
}

impl What {
    /// Returns the name of the kind, for summaries.
    pub fn kind(&self) -> &'static str {
        match self {
            What::Unowned { .. } => "not managed",
            What::Changed { .. } => "drift",
            What::Missing => "missing",
            What::Orphan { .. } => "orphan",
            What::DomainHeld { .. } => "domain held",
            What::DomainMoved { .. } => "domain moved",
            What::DomainGone { .. } => "domain gone",
            What::DomainAdded { .. } => "domain added",
            What::OrphanedDomain { .. } => "orphaned domain",
            What::RouteMoved { .. } => "route moved",
            What::RouteGone { .. } => "route gone",
            What::RouteAdded { .. } => "route added",
            What::OrphanedRoute { .. } => "orphaned route",
            What::DeployedElsewhere => "deployed elsewhere",
            What::Adopted => "adopted",
        }
    }
}

impl Finding {
    /// The finding as a sentence. Names in it are the platform's: clean them before they reach a terminal.
    pub fn text(&self) -> String {
        let worker = &self.worker;
        match &self.what {
            What::Unowned { fleet: None } => format!(
                "{worker} exists, but this fleet doesn't manage it: it is left alone; `--adopt {worker}` adopts and overwrites it"
            ),
            What::Unowned { fleet: Some(fleet) } => format!(
                "{worker} belongs to the fleet {fleet}: it is left alone; `--adopt {worker}` adopts and overwrites it"
            ),
            What::Changed { at, by } => format!("{worker} was {}", changed_outside(at, other_means(by.as_deref()))),
            What::Missing => format!("{worker} no longer exists"),
            What::Orphan { customer: Some(customer) } => {
                format!("{worker} of {customer} exists, and no spec defines it; `flotilla prune` deletes it")
            }
            What::Orphan { customer: None } => {
                format!("{worker} exists, and no spec defines it; `flotilla prune` deletes it")
            }
            What::DomainHeld { domain, holder } => format!(
                "{domain} is defined for {worker}, but points to {holder}, which this fleet doesn't manage; `takeOver: true` at the domain takes it over"
            ),
            What::DomainMoved { domain, holder } => format!("{domain} of {worker} points to {holder} now"),
            What::DomainGone { domain } => format!("{domain} of {worker} is not attached any more"),
            What::DomainAdded { domain } => format!("{domain} was attached to {worker} outside flotilla"),
            What::OrphanedDomain { domain, exists: true, .. } => {
                format!(
                    "{domain} points to {worker}, which no spec defines; `flotilla prune` detaches it with the worker"
                )
            }
            What::OrphanedDomain { domain, exists: false, .. } => format!(
                "{domain} points to {worker}, which does not exist: anyone who deploys a worker with that name gets the host; \
                 `flotilla prune --domains` detaches it"
            ),
            What::RouteMoved { pattern, holder: Some(holder) } => {
                format!("the route {pattern} of {worker} points to {holder} now")
            }
            What::RouteMoved { pattern, holder: None } => {
                format!("the route {pattern} of {worker} points to no worker now")
            }
            What::RouteGone { pattern } => format!("the route {pattern} of {worker} no longer exists"),
            What::RouteAdded { pattern } => format!("the route {pattern} was added for {worker} outside flotilla"),
            What::OrphanedRoute { pattern, exists: true, .. } => format!(
                "the route {pattern} points to {worker}, which no spec defines; `flotilla prune` removes it with the worker"
            ),
            What::OrphanedRoute { pattern, exists: false, .. } => format!(
                "the route {pattern} points to {worker}, which does not exist; `flotilla prune --domains` removes it"
            ),
            What::DeployedElsewhere => format!("{worker} was deployed by another machine"),
            What::Adopted => format!("{worker} is adopted by this fleet"),
        }
    }
}

/// Returns what a worker was uploaded by, unless that is the API: flotilla's uploads are listed as the same.
fn other_means(by: Option<&str>) -> Option<&str> {
    by.filter(|by| *by != API)
}

/// The result of a refresh.
#[derive(Debug, Default, PartialEq)]
pub struct Refreshed {
    /// The rows as the state should have them.
    pub rows: BTreeMap<WorkerId, Row>,
    /// The differences, sorted.
    pub findings: Vec<Finding>,
    /// The reasons to upload a worker whose row has no digest, or that is gone: for the plan.
    pub reasons: BTreeMap<WorkerId, Reason>,
    /// The workers that specs define and this fleet doesn't manage: they must not be changed.
    pub unowned: BTreeMap<WorkerId, String>,
    /// The number of the fleet's workers that are as in the state.
    pub unchanged: usize,
}

/// The owner of a listed worker, and whether it is as in the state.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// As in the state.
    Same(Digest),
    /// Managed by this fleet, and deployed by another machine.
    Elsewhere(Digest),
    /// Managed by this fleet, and changed by somebody else.
    Changed,
    /// In the state, but without this fleet's tags.
    Untagged,
    /// Not managed by this fleet.
    Unowned(Option<String>),
}

/// Compares a listed worker with its row.
fn standing(listed: &ListedWorker, row: Option<&Row>, fleet: &str) -> Standing {
    let marks = tags::read(&listed.tags);
    match marks.fleet {
        Some(owner) if owner == fleet => {}
        Some(other) => return Standing::Unowned(Some(other.to_owned())),
        None if row.is_some() => return Standing::Untagged,
        None => return Standing::Unowned(None),
    }
    // An upload without tags, such as wrangler's, keeps the old ones, which are then out of date. The ETag is of the code alone, so it can be
    // the same, with other assets or variables.
    let by_api = listed.uploaded_by.as_deref().is_none_or(|by| by == API);
    let Some(digest) = marks.digest else { return Standing::Changed };
    if !by_api {
        return Standing::Changed;
    }
    match row {
        None => Standing::Elsewhere(digest),
        Some(row) if row.etag == listed.etag && row.digest == Some(digest) => Standing::Same(digest),
        // It was found changed before, and nobody has uploaded since.
        Some(row) if row.etag == listed.etag && row.digest.is_none() => Standing::Changed,
        // Uploaded again with the same content, or changed by other users of the API: the content decides.
        Some(row) if row.digest == Some(digest) => {
            if row.etag.is_empty() {
                Standing::Same(digest)
            } else {
                Standing::Changed
            }
        }
        Some(_) => Standing::Elsewhere(digest),
    }
}

/// Returns the workers that have Durable Objects of their own.
pub fn with_objects(inventory: &Inventory) -> BTreeSet<WorkerId> {
    let of_home = |(home, workers): (&Home, &BTreeMap<String, ListedWorker>)| {
        let listed: Vec<WorkerId> = workers
            .values()
            .filter(|listed| listed.migration_tag.is_some())
            .map(|listed| (home.clone(), listed.name.clone()))
            .collect();
        listed
    };
    inventory.workers.iter().flat_map(of_home).collect()
}

/// Returns the workers whose workers.dev address and crons have to be requested: where the list doesn't settle them.
pub fn unclear(inventory: &Inventory, baseline: &Baseline<'_>) -> Vec<WorkerId> {
    let mut unclear = Vec::new();
    for (home, workers) in &inventory.workers {
        // In a namespace there is neither.
        if home.namespace.is_some() {
            continue;
        }
        for listed in workers.values() {
            let id = (home.clone(), listed.name.clone());
            let wanted = baseline.wanted.get(&id);
            if wanted.is_some_and(|wanted| !wanted.ours) {
                continue;
            }
            let request_needed = match standing(listed, baseline.rows.get(&id), baseline.fleet) {
                Standing::Same(_) | Standing::Elsewhere(_) if baseline.uncertain.contains(&id) => true,
                Standing::Same(_) if !baseline.anew => false,
                Standing::Same(_) | Standing::Elsewhere(_) => !settled(listed, wanted),
                Standing::Changed | Standing::Untagged => true,
                Standing::Unowned(_) => baseline.adopt.contains(&listed.name),
            };
            // Nothing more is needed for workers that no spec defines.
            if request_needed && wanted.is_some() {
                unclear.push(id);
            }
        }
    }
    unclear
}

/// Returns whether a worker's tags show that its triggers are as desired.
fn settled(listed: &ListedWorker, wanted: Option<&Wanted>) -> bool {
    let (Some(wanted), Some((digest, true))) = (wanted, tags::read(&listed.tags).triggers) else { return false };
    wanted.triggers.digest().short() == digest
}

/// Compares.
pub fn refresh(inventory: &Inventory, baseline: &Baseline<'_>) -> Refreshed {
    let mut refreshed = Refreshed::default();
    workers(inventory, baseline, &mut refreshed);
    domains(inventory, baseline, &mut refreshed);
    routes(inventory, baseline, &mut refreshed);
    refreshed.findings.sort();
    refreshed
}

/// Returns the workers whose triggers were requested and are as desired, with the tags that show it: once they have
/// them, no further requests are needed.
pub fn tagged(inventory: &Inventory, baseline: &Baseline<'_>, refreshed: &Refreshed) -> Vec<(WorkerId, Vec<String>)> {
    let asked = inventory.triggers.keys().filter_map(|id| {
        let (row, wanted) = (refreshed.rows.get(id)?, baseline.wanted.get(id)?);
        let listed = inventory.workers.get(&id.0)?.get(&id.1)?;
        let triggers = Triggers {
            workers_dev: row.workers_dev,
            preview_urls: row.preview_urls,
            domains: row.domains.keys().cloned().collect(),
            patterns: row.routes.keys().cloned().collect(),
            crons: row.crons.clone(),
            consumers: row.consumers.clone(),
            workflows: row.workflows.clone(),
        };
        // Workers that are uploaded again get their tags then.
        let settled = row.digest == Some(wanted.digest) && triggers == wanted.triggers;
        let tags = tags::settled(&listed.tags, &triggers);
        (settled && tags != listed.tags && tags.len() <= limits::TAGS).then(|| (id.clone(), tags))
    });
    asked.collect()
}

/// Returns the home of an account's workers outside namespaces: those that domains and routes point to.
fn outside(account_id: &str) -> Home {
    Home { account_id: account_id.to_owned(), namespace: None }
}

impl Baseline<'_> {
    fn account(&self, account_id: &str) -> String {
        self.accounts.get(account_id).cloned().unwrap_or_default()
    }

    /// Returns whether no spec defines a worker of this fleet. As long as a spec has errors, a worker that isn't known to be another
    /// customer's may belong to it.
    fn is_orphan(&self, id: &WorkerId, customer: &str) -> bool {
        self.whole
            && !self.wanted.contains_key(id)
            && !self.held.contains(customer)
            && (!customer.is_empty() || self.held.is_empty())
    }
}

fn workers(inventory: &Inventory, baseline: &Baseline<'_>, refreshed: &mut Refreshed) {
    // Resources that were not listed stay as they are.
    let elsewhere = baseline.rows.iter().filter(|((home, _), _)| !inventory.workers.contains_key(home));
    refreshed.rows.extend(elsewhere.map(|(id, row)| (id.clone(), row.clone())));
    for (home, workers) in &inventory.workers {
        let account = baseline.account(&home.account_id);
        let mut find = |worker: &str, what| {
            refreshed.findings.push(Finding { what, account: account.clone(), worker: worker.to_owned() });
        };
        for listed in workers.values() {
            let id = (home.clone(), listed.name.clone());
            let (row, wanted) = (baseline.rows.get(&id), baseline.wanted.get(&id));
            if wanted.is_some_and(|wanted| !wanted.ours) {
                refreshed.rows.extend(row.map(|row| (id.clone(), row.clone())));
                continue;
            }
            let standing = standing(listed, row, baseline.fleet);
            let at = listed.modified_on.clone();
            let change = || What::Changed { at, by: listed.uploaded_by.clone() };
            let digest = match &standing {
                Standing::Same(digest) => {
                    refreshed.unchanged += 1;
                    Some(*digest)
                }
                Standing::Elsewhere(digest) => {
                    find(&listed.name, What::DeployedElsewhere);
                    Some(*digest)
                }
                // No spec defines it, and somebody else has it now: its row is removed, and with it every claim to it.
                Standing::Untagged if wanted.is_none() && baseline.whole => {
                    find(&listed.name, change());
                    continue;
                }
                Standing::Changed | Standing::Untagged => {
                    let by = other_means(listed.uploaded_by.as_deref()).map(str::to_owned);
                    let reason = Reason::ChangedOutside { at: listed.modified_on.clone(), by };
                    refreshed.reasons.insert(id.clone(), reason);
                    find(&listed.name, change());
                    None
                }
                Standing::Unowned(_) if wanted.is_none() => continue,
                Standing::Unowned(_) if baseline.adopt.contains(&listed.name) => {
                    refreshed.reasons.insert(id.clone(), Reason::Adopted);
                    find(&listed.name, What::Adopted);
                    None
                }
                Standing::Unowned(fleet) => {
                    let what = What::Unowned { fleet: fleet.clone() };
                    let finding = Finding { what, account: String::new(), worker: listed.name.clone() };
                    refreshed.unowned.insert(id.clone(), finding.text());
                    find(&listed.name, finding.what);
                    continue;
                }
            };
            let believed = matches!(standing, Standing::Same(_)) && !baseline.anew;
            let new = corrected(inventory, &id, listed, believed, digest, row, wanted, &account);
            if wanted.is_some() {
                refreshed.rows.insert(id, new);
            } else if baseline.is_orphan(&id, &new.customer) {
                let customer = Some(new.customer.clone()).filter(|customer| !customer.is_empty());
                find(&listed.name, What::Orphan { customer });
                refreshed.rows.insert(id, new);
            } else {
                // What isn't listed completely stays in the state as it was, so that a complete list finds it.
                refreshed.rows.extend(row.map(|row| (id, row.clone())));
            }
        }
        let gone = baseline.rows.keys().filter(|(at, name)| at == home && !workers.contains_key(name));
        for id in gone {
            find(&id.1, What::Missing);
            refreshed.reasons.insert(id.clone(), Reason::Missing);
        }
    }
}

/// Returns a worker's corrected row, apart from domains and routes that were not listed.
#[expect(clippy::too_many_arguments, reason = "one caller, just above")]
fn corrected(
    inventory: &Inventory,
    id: &WorkerId,
    listed: &ListedWorker,
    believed: bool,
    digest: Option<Digest>,
    row: Option<&Row>,
    wanted: Option<&Wanted>,
    account: &str,
) -> Row {
    let marks = tags::read(&listed.tags);
    let (home, name) = id;
    let customer = row.map(|row| row.customer.clone()).filter(|customer| !customer.is_empty());
    let customer = customer.or_else(|| wanted.map(|wanted| wanted.customer.clone()));
    let customer = customer.or_else(|| marks.customer.map(str::to_owned)).unwrap_or_default();
    let environment = row.map(|row| row.environment).or(wanted.map(|wanted| wanted.environment));
    let environment = environment.or(marks.environment).unwrap_or(Environment::Production);
    let of_row = |row: &Row| AskedTriggers {
        workers_dev: row.workers_dev,
        preview_urls: row.preview_urls,
        crons: row.crons.clone(),
    };
    let AskedTriggers { workers_dev, preview_urls, crons } = match (inventory.triggers.get(id), row, wanted) {
        (Some(asked), ..) => asked.clone(),
        (None, Some(row), _) if believed => of_row(row),
        (None, _, Some(wanted)) if settled(listed, Some(wanted)) => AskedTriggers {
            workers_dev: wanted.triggers.workers_dev,
            preview_urls: wanted.triggers.preview_urls,
            crons: wanted.triggers.crons.clone(),
        },
        (None, Some(row), _) => of_row(row),
        (None, None, _) => AskedTriggers::default(),
    };
    let mut domains = row.map(|row| row.domains.clone()).unwrap_or_default();
    let mut routes = row.map(|row| row.routes.clone()).unwrap_or_default();
    if home.namespace.is_none() {
        if let Some(listed) = inventory.domains.get(&home.account_id) {
            let own = listed.iter().filter(|domain| domain.worker == *name);
            domains = own.map(|domain| (domain.hostname.clone(), domain.id.clone())).collect();
        }
        let listed = inventory.zones.iter().filter(|(_, zone)| zone.account_id == home.account_id);
        for (zone_id, zone) in listed {
            routes.retain(|_, (of, _)| of != zone_id);
            let own = zone.routes.iter().filter(|route| route.worker.as_deref() == Some(name));
            routes.extend(own.map(|route| (route.pattern.clone(), (zone_id.clone(), route.id.clone()))));
        }
    }
    let (consumers, workflows) = parts(inventory, id, row, wanted, settled(listed, wanted));
    let (account, etag, migration_tag) = (account.to_owned(), listed.etag.clone(), listed.migration_tag.clone());
    // The list of a namespace may not have it.
    let migration_tag = migration_tag.or_else(|| {
        let is_listed = home.namespace.is_none() || row.is_some_and(|row| row.etag != etag);
        row.filter(|_| !is_listed).and_then(|row| row.migration_tag.clone())
    });
    Row {
        account,
        customer,
        environment,
        digest,
        etag,
        workers_dev,
        preview_urls,
        domains,
        routes,
        crons,
        consumers,
        workflows,
        migration_tag,
    }
}

/// Returns the queues that a worker consumes and the workflows that it defines: as listed, and where nothing was listed, as they were.
fn parts(
    inventory: &Inventory,
    (home, name): &WorkerId,
    row: Option<&Row>,
    wanted: Option<&Wanted>,
    is_settled: bool,
) -> (BTreeMap<String, QueueConsumer>, BTreeMap<String, OwnWorkflow>) {
    let wanted_consumer = |queue: &str| wanted.and_then(|wanted| wanted.triggers.consumers.get(queue));
    let consumers = match inventory.queues.get(&home.account_id).filter(|_| home.namespace.is_none()) {
        Some(queues) => {
            let own = queues.iter().filter_map(|queue| {
                let mut consumers = queue.consumers.iter();
                let live = consumers.find(|consumer| consumer.worker.as_deref() == Some(name))?;
                // A setting that isn't in a spec has a value anyway.
                let known = [wanted_consumer(&queue.name), row.and_then(|row| row.consumers.get(&queue.name))];
                let met = known.into_iter().flatten().find(|consumer| consumer.is_met_by(&live.consumer));
                Some((queue.name.clone(), met.unwrap_or(&live.consumer).clone()))
            });
            own.collect()
        }
        None => row.map(|row| row.consumers.clone()).unwrap_or_default(),
    };
    let before = row.map(|row| row.workflows.clone()).unwrap_or_default();
    let workflows = match inventory.workflows.get(&home.account_id).filter(|_| home.namespace.is_none()) {
        Some(listed) => {
            let own = listed.iter().filter(|workflow| workflow.worker == *name);
            let known = own.map(|workflow| {
                let wanted =
                    wanted.filter(|_| is_settled).and_then(|wanted| wanted.triggers.workflows.get(&workflow.name));
                // Its settings aren't listed: one that isn't known is deployed again.
                let known = before.get(&workflow.name).or(wanted).cloned();
                (workflow.name.clone(), known.unwrap_or(OwnWorkflow(serde_json::Value::Null)))
            });
            known.collect()
        }
        None => before,
    };
    (consumers, workflows)
}

/// The target of a domain or route, among the workers of its account.
enum RouteTarget {
    /// A worker of this fleet that a spec defines, or that is skipped.
    Ours,
    /// A worker of this fleet that no spec defines.
    Orphan,
    /// A worker of others.
    Others,
    /// A worker that doesn't exist.
    Nowhere,
}

fn target_of(inventory: &Inventory, baseline: &Baseline<'_>, refreshed: &Refreshed, id: &WorkerId) -> RouteTarget {
    match (refreshed.rows.get(id), inventory.workers.get(&id.0)) {
        (Some(row), _) if baseline.is_orphan(id, &row.customer) => RouteTarget::Orphan,
        (Some(_), _) => RouteTarget::Ours,
        (None, Some(workers)) => match workers.get(&id.1) {
            None => RouteTarget::Nowhere,
            Some(listed) if tags::read(&listed.tags).fleet == Some(baseline.fleet) => RouteTarget::Ours,
            Some(_) if baseline.wanted.get(id).is_some_and(|wanted| !wanted.ours) => RouteTarget::Ours,
            Some(_) => RouteTarget::Others,
        },
        // If the workers are unknown, nothing is reported about them.
        (None, None) => RouteTarget::Others,
    }
}

fn domains(inventory: &Inventory, baseline: &Baseline<'_>, refreshed: &mut Refreshed) {
    for (account_id, listed) in &inventory.domains {
        let (home, account) = (outside(account_id), baseline.account(account_id));
        let recorded: BTreeMap<&str, &str> = baseline
            .rows
            .iter()
            .filter(|((at, _), _)| *at == home)
            .flat_map(|((_, name), row)| row.domains.keys().map(move |domain| (domain.as_str(), name.as_str())))
            .collect();
        let wanted: BTreeMap<&str, &str> = baseline
            .wanted
            .iter()
            .filter(|((at, _), wanted)| *at == home && wanted.ours)
            .flat_map(|((_, name), one)| {
                one.triggers.domains.iter().map(move |domain| (domain.as_str(), name.as_str()))
            })
            .collect();
        let mut found = Vec::new();
        for ListedDomain { id, hostname, worker } in listed {
            let holder = (home.clone(), worker.clone());
            let (recorded, wanted) = (recorded.get(hostname.as_str()), wanted.get(hostname.as_str()));
            let domain = hostname.clone();
            match target_of(inventory, baseline, refreshed, &holder) {
                RouteTarget::Nowhere => {
                    let what = What::OrphanedDomain { domain: domain.clone(), id: id.clone(), exists: false };
                    found.push((worker.clone(), what));
                }
                RouteTarget::Orphan => {
                    let what = What::OrphanedDomain { domain: domain.clone(), id: id.clone(), exists: true };
                    found.push((worker.clone(), what));
                }
                RouteTarget::Others => {
                    if let Some(wanted) = wanted {
                        let what = What::DomainHeld { domain: domain.clone(), holder: worker.clone() };
                        found.push(((*wanted).to_owned(), what));
                    }
                }
                RouteTarget::Ours => {
                    // If a worker isn't in the state, its domains aren't, either.
                    if recorded.is_none() && wanted.is_none() && baseline.rows.contains_key(&holder) {
                        found.push((worker.clone(), What::DomainAdded { domain: domain.clone() }));
                    }
                }
            }
            if let Some(recorded) = recorded.filter(|recorded| **recorded != worker.as_str()) {
                found.push(((*recorded).to_owned(), What::DomainMoved { domain, holder: worker.clone() }));
            }
        }
        let there: BTreeSet<&str> = listed.iter().map(|domain| domain.hostname.as_str()).collect();
        for (domain, worker) in recorded.iter().filter(|(domain, _)| !there.contains(*domain)) {
            // The domains of a worker that no longer exists are gone, too.
            if refreshed.rows.contains_key(&(home.clone(), (*worker).to_owned())) {
                found.push(((*worker).to_owned(), What::DomainGone { domain: (*domain).to_owned() }));
            }
        }
        let found = found.into_iter().map(|(worker, what)| Finding { what, account: account.clone(), worker });
        refreshed.findings.extend(found);
    }
}

fn routes(inventory: &Inventory, baseline: &Baseline<'_>, refreshed: &mut Refreshed) {
    for (zone_id, zone) in &inventory.zones {
        let (home, account) = (outside(&zone.account_id), baseline.account(&zone.account_id));
        let recorded: BTreeMap<&str, &str> = baseline
            .rows
            .iter()
            .filter(|((at, _), _)| *at == home)
            .flat_map(|((_, name), row)| row.routes.iter().map(move |(pattern, (of, _))| (pattern, of, name)))
            .filter(|(_, of, _)| *of == zone_id)
            .map(|(pattern, _, name)| (pattern.as_str(), name.as_str()))
            .collect();
        let wanted: BTreeSet<&str> = baseline
            .wanted
            .iter()
            .filter(|((at, _), wanted)| *at == home && wanted.ours)
            .flat_map(|(_, wanted)| wanted.triggers.patterns.iter().map(String::as_str))
            .collect();
        let mut found = Vec::new();
        for route in &zone.routes {
            let recorded = recorded.get(route.pattern.as_str());
            let pattern = route.pattern.clone();
            if let Some(worker) = &route.worker {
                let holder = (home.clone(), worker.clone());
                let target_of = target_of(inventory, baseline, refreshed, &holder);
                if let RouteTarget::Nowhere | RouteTarget::Orphan = target_of {
                    let (pattern, zone_id, id) = (pattern.clone(), zone_id.clone(), route.id.clone());
                    let exists = matches!(target_of, RouteTarget::Orphan);
                    found.push((worker.clone(), What::OrphanedRoute { pattern, zone_id, id, exists }));
                } else if let RouteTarget::Ours = target_of
                    && recorded.is_none()
                    && !wanted.contains(pattern.as_str())
                    && baseline.rows.contains_key(&holder)
                {
                    found.push((worker.clone(), What::RouteAdded { pattern: pattern.clone() }));
                }
            }
            if let Some(recorded) = recorded.filter(|recorded| route.worker.as_deref() != Some(**recorded)) {
                found.push(((*recorded).to_owned(), What::RouteMoved { pattern, holder: route.worker.clone() }));
            }
        }
        let there: BTreeSet<&str> = zone.routes.iter().map(|route| route.pattern.as_str()).collect();
        for (pattern, worker) in recorded.iter().filter(|(pattern, _)| !there.contains(*pattern)) {
            if refreshed.rows.contains_key(&(home.clone(), (*worker).to_owned())) {
                found.push(((*worker).to_owned(), What::RouteGone { pattern: (*pattern).to_owned() }));
            }
        }
        let found = found.into_iter().map(|(worker, what)| Finding { what, account: account.clone(), worker });
        refreshed.findings.extend(found);
    }
}

#[cfg(test)]
mod tests;
