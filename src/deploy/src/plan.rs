//! The plan: the difference between what is desired and what is deployed, as a sorted value. Pure: the same inputs
//! give the same plan, and a deploy makes no choice that the plan left open.

mod comparison;
mod cycles;
mod databases;
pub mod handover;
mod hosts;
mod leave_out;
pub(crate) mod order;
mod planned_action;
mod planner;
mod price;
mod rank;
pub(crate) mod transfers;
mod waves;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use crate::state::{Deployed, InFlight, Stored, Uncertainty, WorkerId};
use flotilla_model::assets::digests_of;
use flotilla_model::binding::OwnWorkflow;
use flotilla_model::bundle::{Bundle, Resource, by_name, workers};
use flotilla_model::customer::Worker;
use flotilla_model::digest::Digest;
use flotilla_model::objects::{self, Migration, UnknownTag};
use flotilla_model::platform::Home;
use flotilla_model::reason::{Reason, with_details};
use flotilla_model::spec::{Delivery, Environment, Jurisdiction, LocationHint, QueueConsumer};

pub use databases::{
    DatabaseAction, DatabaseChange, DatabaseDecision, DatabaseReference, DatabaseUser, decide_database,
};
pub use hosts::{HostChange, READ_ONE_BY_ONE};
pub use planned_action::{HostAction, PlannedAction};
pub use planner::Planner;
pub use waves::Wave;

/// A worker as it is desired.
pub struct Desired<'a> {
    /// The home that it belongs to.
    pub home: Home,
    /// The worker.
    pub worker: &'a Worker,
    /// Its bundle.
    pub bundle: &'a Bundle,
    /// The fingerprints of its secrets, as far as their values are known here.
    pub secrets: BTreeMap<String, String>,
}

/// A worker as the state knows it.
#[derive(Clone, Copy, Default)]
pub struct RecordedWorker<'a> {
    /// The deployed worker, if it is deployed.
    pub live: Option<&'a Deployed>,
    /// An earlier change that was interrupted: what of it is done is unknown.
    pub in_flight: Option<&'a InFlight>,
    /// The bundle that is live, if the state keeps it.
    pub bundle: Option<&'a Stored>,
    /// The reasons for which the live bundle and the desired one differ, in the author's terms, if they are known.
    pub differences: &'a [Reason],
    /// The names of its D1 databases whose ids aren't known.
    pub unknown_databases: &'a [String],
    /// The number of files of its static assets that the platform may lack, and how many of them are the worker's own.
    pub missing_assets: (usize, usize),
    /// The hosts that another worker may have by now, after an interrupted change of that one.
    pub contested: &'a [Uncertainty],
}

/// The action on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::AsRefStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[allow(missing_docs)]
pub enum Action {
    Create,
    Update,
    Delete,
}

/// One request of a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Step {
    /// Finds the database of this name, or creates it.
    CreateDatabase {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        jurisdiction: Option<Jurisdiction>,
        #[serde(skip_serializing_if = "Option::is_none")]
        location_hint: Option<LocationHint>,
    },
    /// Creates the worker, unless it exists, without its bindings to these workers: they are new as well, and bound to it in turn.
    CreateFirst {
        without: Vec<String>,
    },
    /// Uploads the static assets that the platform lacks: a session, and a request for each bucket of missing files.
    UploadAssets,
    Upload,
    DetachDomain {
        domain: String,
        id: String,
    },
    /// Detaches a domain that the worker may have: an earlier change was interrupted.
    DropDomain {
        domain: String,
    },
    /// Points a domain of another worker, which the state doesn't know, or not with that domain, to this one.
    TakeDomain {
        domain: String,
        from: String,
    },
    RemoveRoute {
        pattern: String,
        zone_id: String,
        id: String,
    },
    /// Removes a route that the worker may have.
    DropRoute {
        pattern: String,
        zone: String,
    },
    SetWorkersDev {
        on: bool,
        /// Whether each of its versions has an address, too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        previews: bool,
    },
    AttachDomain {
        domain: String,
    },
    /// Points a domain of another worker of the fleet to this one. After an interrupted move there are several that may have it.
    MoveDomain {
        domain: String,
        from: Vec<String>,
    },
    AddRoute {
        pattern: String,
        zone: String,
    },
    /// The same for a route.
    MoveRoute {
        pattern: String,
        zone: String,
        from: Vec<String>,
    },
    SetCrons {
        crons: BTreeSet<String>,
    },
    /// Finds the queue of this name, or creates it.
    CreateQueue {
        name: String,
    },
    /// Makes the worker the consumer of a queue, or changes the settings with which it is.
    SetConsumer {
        queue: String,
        consumer: QueueConsumer,
    },
    RemoveConsumer {
        queue: String,
    },
    /// Deploys a workflow of the worker's own.
    PutWorkflow {
        name: String,
        workflow: OwnWorkflow,
    },
    /// Deletes a workflow of a worker that is deleted.
    DeleteWorkflow {
        name: String,
    },
    /// Deletes the database of this name, which only this worker uses: that of a preview.
    DeleteDatabase {
        name: String,
    },
    Delete,
}

/// The migrations of Durable Object classes that an upload goes through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMigration {
    /// The tag of the last one that is live, as far as the state knows.
    pub from: Option<String>,
    /// The migrations of this upload.
    pub steps: Vec<Migration>,
    /// All of the bundle's.
    #[serde(skip)]
    pub all: Vec<Migration>,
}

impl PlannedMigration {
    /// Returns those of the planned ones that a worker with this live tag, which is bound to these classes, goes through now. The error is
    /// the reason why that differs from the plan.
    pub fn of_live(&self, live: Option<&str>, bound: &BTreeSet<String>) -> Result<&[Migration], String> {
        let shown = live.filter(|tag| !tag.is_empty()).unwrap_or("none");
        let pending = objects::pending(&self.all, live).map_err(|UnknownTag(tag)| unknown_tag(&tag))?;
        let now = &pending[..objects::at_once(pending, bound).0];
        // Fewer migrations than planned are fine: somebody else, or an attempt whose response was lost, applied the rest.
        match now.iter().all(|migration| self.steps.contains(migration)) {
            true => Ok(now),
            false => Err(format!("the plan is stale: the worker's live Durable Object migration is {shown} now")),
        }
    }
}

/// The static assets that a change uploads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedAssets {
    /// The digest of the list.
    pub list: Digest,
    /// The number of files that the platform may lack, each of which can take a request.
    pub uploads_at_most: usize,
    /// The number of them that are not of the pack.
    #[serde(skip)]
    pub own_at_most: usize,
    /// The pack, whose files its other workers have as well; none where it isn't known.
    #[serde(skip)]
    pub pack: Option<String>,
}

/// The key of workers that share files: their pack, or else the list.
pub(crate) type SharedAssets = (Option<String>, Option<Digest>);

impl PlannedAssets {
    /// Returns what the worker has in common with those that share its files.
    pub(crate) fn shared(&self) -> SharedAssets {
        (self.pack.clone(), self.pack.is_none().then_some(self.list))
    }
}

/// Returns why a worker is skipped whose live migration the pack doesn't have.
pub fn unknown_tag(tag: &str) -> String {
    format!(
        "the pack doesn't have its live Durable Object migration `{tag}`: add the missing migrations to the pack, in the order in which \
         they were applied"
    )
}

/// One entry of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The customer.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// The worker's name.
    pub worker: String,
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The action.
    pub action: Action,
    /// The reasons, in the author's terms.
    #[serde(flatten, serialize_with = "with_details")]
    pub reasons: Vec<Reason>,
    /// The requests, in their order.
    pub steps: Vec<Step>,
    /// The digest that is live afterwards, or was before a deletion.
    pub digest: Digest,
    /// The digest that was live before, if there was one.
    pub was: Option<Digest>,
    /// The wave that it belongs to, from 0.
    pub wave: usize,
    /// The migrations of Durable Object classes that its upload goes through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<PlannedMigration>,
    /// The static assets that it uploads; none: those of the version before stay, or it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assets: Option<PlannedAssets>,
    /// Whether it destroys data of Durable Objects: with the worker that it deletes, or with a class.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub destroys_objects: bool,
    /// Whether it may overwrite a worker that this fleet doesn't manage: `--adopt` names it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub adopts: bool,
    /// The home that it belongs to.
    #[serde(skip)]
    pub home: Home,
    /// The worker's revision in the state when this was planned: if it is another one, another deploy was faster.
    #[serde(skip)]
    pub revision: Option<i64>,
    /// The digest that it takes back, if it goes back to an earlier bundle.
    #[serde(skip)]
    pub rejects: Option<Digest>,
    /// The ids of the zones that its spec has, by name.
    #[serde(skip)]
    pub zone_ids: BTreeMap<String, String>,
    /// The resources that its bundle gives by name: the upload needs their ids.
    #[serde(skip)]
    pub needs: Vec<(Resource, String)>,
    /// The workers that it calls.
    #[serde(skip)]
    calls: Vec<String>,
    /// The other workers that its bundle's bindings name: the platform accepts only those that exist.
    #[serde(skip)]
    refers: Vec<String>,
    /// The wave that its labels pick.
    #[serde(skip)]
    picked: Option<usize>,
    /// The length of the longest chain of changes before it: a binding requires the worker that it names.
    #[serde(skip)]
    pub rank: usize,
    /// The cycle of bindings that its worker is part of, if there is one.
    #[serde(skip)]
    pub cycle: Option<Cycle>,
}

/// The part of a change in a cycle of bindings between workers that aren't complete yet. What points to one of them, at the change's own rank,
/// comes when all of them are uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// The number of the cycle in the plan.
    pub number: usize,
    /// The rank at which the worker is created, if that comes before its upload.
    pub create: Option<usize>,
    /// The rank at which the worker is uploaded.
    pub upload: usize,
}

impl Change {
    /// Returns the worker that it changes.
    pub fn id(&self) -> WorkerId {
        (self.home.clone(), self.worker.clone())
    }

    /// Returns the number of its steps up to the creation of its worker, if that comes before its upload.
    pub fn steps_to_create(&self) -> usize {
        let last = self.steps.iter().position(|step| matches!(step, Step::CreateFirst { .. }));
        last.map_or(0, |place| place + 1)
    }

    /// Returns the number of its steps up to its upload, if the others of its cycle come before the rest.
    pub fn steps_of_cycle(&self) -> usize {
        let last = self.cycle.and_then(|_| self.steps.iter().position(|step| *step == Step::Upload));
        last.map_or(0, |place| place + 1)
    }

    /// Returns the workers that it refers to, and that bindings can name.
    pub(crate) fn callees(&self) -> impl Iterator<Item = WorkerId> {
        let home = outside(&self.home);
        self.refers.iter().map(move |name| (home.clone(), name.clone()))
    }

    /// Returns whether its worker has, before its upload, not all of its bindings.
    pub(crate) fn completes(&self) -> bool {
        let is_missing = |reason: &Reason| matches!(reason, Reason::BindingsMissing { .. });
        self.steps_to_create() > 0 || self.reasons.iter().any(is_missing)
    }

    /// Deletes a database before the worker: as long as the worker exists, its tags name the database.
    pub fn delete_database(&mut self, name: String) {
        if let Some(at) = self.steps.iter().position(|step| *step == Step::Delete) {
            self.steps.insert(at, Step::DeleteDatabase { name });
        }
    }
}

/// A customer whose worker is skipped, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Held {
    /// The customer.
    pub customer: String,
    /// The environment, if it is known.
    pub environment: Option<Environment>,
    /// The worker; none: all of the customer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The reason why it is skipped.
    pub reason: String,
    /// Whether it is skipped because of another worker: one that still has a host that it needs, or one that it calls. The run counts as refused.
    #[serde(skip)]
    pub is_refused: bool,
}

impl Held {
    /// Returns the entry of a change that is skipped because of another worker.
    pub(crate) fn refused(change: &Change, reason: String) -> Held {
        let (customer, worker) = (change.customer.clone(), Some(change.worker.clone()));
        Held { customer, environment: Some(change.environment), worker, reason, is_refused: true }
    }
}

/// An orphaned worker: it is deployed, and no spec defines it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Orphan {
    /// The worker's name.
    pub worker: String,
    /// The customer it belonged to.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
}

/// The difference between what is desired and what is deployed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The changes, sorted by environment and customer.
    pub changes: Vec<Change>,
    /// The D1 databases whose migrations are applied, sorted by environment and customer.
    pub databases: Vec<DatabaseChange>,
    /// The hosts of dispatch namespaces that are to point to another worker, sorted.
    pub hosts: Vec<HostChange>,
    /// The number of workers that are up to date.
    pub unchanged: usize,
    /// The workers that are skipped.
    pub held: Vec<Held>,
    /// The workers that are orphaned.
    pub orphans: Vec<Orphan>,
    /// The names of the waves, in their order; at least one.
    pub waves: Vec<String>,
    /// The digest of the actions: the plan that was reviewed is the one that is applied.
    pub digest: Digest,
}

/// The options of a plan.
#[derive(Default)]
pub struct Options<'a> {
    /// Upload every worker, changed or not, for this reason.
    pub force: Option<&'a str>,
    /// Except workers that were uploaded after this time, in seconds since 1970: a redeploy for the same reason was interrupted.
    pub forced_since: Option<i64>,
    /// Delete orphaned workers. Only a plan of the whole fleet can.
    pub prune: bool,
    /// Delete, and nothing else.
    pub only_prune: bool,
    /// Apply the migrations of databases, and nothing else.
    pub only_databases: bool,
    /// The customers whose orphaned workers are deleted; none: all.
    pub pruned_customers: Option<&'a BTreeSet<String>>,
    /// The customers that were named: a manual delivery requires that.
    pub named: &'a [String],
    /// Deploy regardless of the delivery: to the local emulator, and previews.
    pub any_delivery: bool,
    /// Whether the plan covers the whole fleet.
    pub whole: bool,
    /// The customers whose specs have errors: their workers are skipped.
    pub invalid: BTreeSet<String>,
    /// The homes whose workers the fleet may manage.
    pub homes: BTreeSet<Home>,
    /// The waves.
    pub waves: &'a [Wave],
    /// The workers that this fleet doesn't manage, and why they are skipped.
    pub unowned: BTreeMap<WorkerId, String>,
    /// The workers that were deployed and don't exist any more.
    pub missing: BTreeSet<WorkerId>,
    /// The workers that have Durable Objects of their own, as far as they were listed.
    pub objects: BTreeSet<WorkerId>,
    /// The names of the workers that may be overwritten though this fleet doesn't manage them.
    pub adopt: BTreeSet<String>,
}

/// The decision about one worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It changes.
    Change(Box<Change>),
    /// It is up to date.
    Unchanged,
    /// It is skipped.
    Held(Held),
}

/// Decides about a desired worker. Pure, and each worker by itself: many can be decided at once.
pub fn decide(wanted: &Desired<'_>, known: &RecordedWorker<'_>, options: &Options<'_>) -> Decision {
    let worker = wanted.worker;
    let named = options.named.contains(&worker.customer);
    let not_ours = match worker.delivery {
        _ if options.any_delivery => None,
        Delivery::Automatic => None,
        Delivery::Manual if named => None,
        Delivery::Manual => Some("its delivery is manual: name it to deploy it"),
        Delivery::Gitops => Some("its delivery is gitops: its own pipeline deploys it"),
        Delivery::SelfHosted => Some("its delivery is self-hosted"),
    };
    let rejected = known.live.is_some_and(|live| live.rejected == Some(wanted.bundle.digest));
    let not_again = (rejected && !named && options.force.is_none()).then_some(
        "it was rolled back, and its spec has not changed since: change it, or name the customer to deploy it again",
    );
    let unowned = match options.unowned.is_empty() {
        true => None,
        false => options.unowned.get(&(wanted.home.clone(), worker.name.clone())).map(String::as_str),
    };
    if let Some(reason) = not_ours.or(unowned).or(not_again) {
        let (customer, environment) = (worker.customer.clone(), Some(worker.environment));
        let (worker, reason) = (Some(worker.name.clone()), reason.to_owned());
        return Decision::Held(Held { customer, environment, worker, reason, is_refused: false });
    }
    // Which of the pack's migrations it went through isn't known.
    let live_tag = known.live.and_then(|live| live.live.migration_tag.as_deref());
    if let Err(UnknownTag(tag)) = objects::pending(&objects::migrations_of(&wanted.bundle.metadata), live_tag) {
        let (customer, environment) = (worker.customer.clone(), Some(worker.environment));
        let (worker, reason) = (Some(worker.name.clone()), unknown_tag(&tag));
        return Decision::Held(Held { customer, environment, worker, reason, is_refused: true });
    }
    match comparison::change(wanted, known, options) {
        Some(change) => Decision::Change(Box::new(change)),
        None => Decision::Unchanged,
    }
}

/// Returns the change that puts a worker back to an earlier bundle. The live one counts as rejected.
pub fn back(id: &WorkerId, live: &Deployed, (to, bundle, files): (Digest, &Stored, usize), reason: Reason) -> Change {
    // Those of the version before are others, or it isn't known which they are.
    let assets = digests_of(&bundle.metadata).map(|digests| PlannedAssets {
        list: digests.list,
        uploads_at_most: files,
        own_at_most: 0,
        pack: None,
    });
    let steps = assets.iter().map(|_| Step::UploadAssets).chain([Step::Upload]).collect();
    Change {
        customer: live.customer.clone(),
        environment: live.environment,
        worker: id.1.clone(),
        account: live.account.clone(),
        action: Action::Update,
        reasons: vec![reason],
        steps,
        digest: to,
        was: Some(live.digest),
        wave: 0,
        migration: None,
        assets,
        destroys_objects: false,
        adopts: false,
        home: id.0.clone(),
        revision: Some(live.revision),
        rejects: Some(live.digest),
        zone_ids: BTreeMap::new(),
        needs: by_name(&bundle.metadata).map(|(resource, name)| (resource, name.to_owned())).collect(),
        calls: Vec::new(),
        refers: workers(&bundle.metadata),
        picked: None,
        rank: 0,
        cycle: None,
    }
}

/// Returns the home of the workers that a worker's bindings name: none names a worker of a dispatch namespace.
pub(crate) fn outside(home: &Home) -> Home {
    Home { namespace: None, ..home.clone() }
}

/// Returns the digest of what a plan does.
pub(crate) fn plan_digest(changes: &[Change], databases: &[DatabaseChange], hosts: &[HostChange]) -> Digest {
    PlannedAction::digest(
        changes.iter().map(PlannedAction::of),
        databases.iter().map(DatabaseAction::of),
        hosts.iter().map(HostAction::of),
    )
}

impl Plan {
    /// Returns a plan of these changes and nothing else.
    pub fn of(changes: Vec<Change>, waves: &[Wave]) -> Plan {
        Plan::with_databases(changes, Vec::new(), waves)
    }

    /// Returns a plan of these changes, and of these migrations of databases.
    fn with_databases(mut changes: Vec<Change>, mut databases: Vec<DatabaseChange>, waves: &[Wave]) -> Plan {
        changes.sort_by(|a, b| {
            (a.environment, &a.customer, &a.account, &a.worker).cmp(&(
                b.environment,
                &b.customer,
                &b.account,
                &b.worker,
            ))
        });
        rank::rank(&mut changes);
        cycles::add_steps(&mut changes);
        let waves = waves::assign(waves, &mut changes, &mut databases);
        let digest = plan_digest(&changes, &databases, &[]);
        let (held, orphans) = (Vec::new(), Vec::new());
        Plan { changes, databases, hosts: Vec::new(), unchanged: 0, held, orphans, waves, digest }
    }
}

impl Plan {
    /// Returns the places of the changes that create workers which a change's upload refers to.
    pub fn created_callees(&self, change: &Change) -> Vec<usize> {
        let outside = outside(&change.home);
        let is_named = |name: &String| change.calls.contains(name) || change.refers.contains(name);
        let is_callee = |other: &Change| {
            other.action == Action::Create
                && (&other.home, &other.worker) != (&change.home, &change.worker)
                && other.home == outside
                && is_named(&other.worker)
        };
        self.changes.iter().enumerate().filter(|(_, other)| is_callee(other)).map(|(at, _)| at).collect()
    }

    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.hosts.is_empty() && self.databases.is_empty()
    }

    /// Returns the accounts that it is about: their ids, and their names in fleet.yaml.
    pub fn accounts(&self) -> impl Iterator<Item = (&str, &str)> {
        let changes = self.changes.iter().map(|change| (change.home.account_id.as_str(), change.account.as_str()));
        let databases = self.databases.iter().map(|change| (change.home.account_id.as_str(), change.account.as_str()));
        changes
            .chain(databases)
            .chain(self.hosts.iter().map(|change| (change.home.account_id.as_str(), change.account.as_str())))
    }

    /// Returns the number of changes with an action.
    pub fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|change| change.action == action).count()
    }

    /// Returns the number of changes of each wave; a database counts unless one of its workers changes, too.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.waves.len()];
        for change in &self.changes {
            sizes[change.wave] += 1;
        }
        for change in self.databases_alone() {
            sizes[change.wave] += 1;
        }
        sizes
    }

    /// Returns the databases none of whose workers changes.
    pub fn databases_alone(&self) -> impl Iterator<Item = &DatabaseChange> {
        let changed: HashSet<WorkerId> = match self.databases.is_empty() {
            true => HashSet::new(),
            false => self.changes.iter().map(Change::id).collect(),
        };
        self.databases.iter().filter(move |change| !change.users.iter().any(|user| changed.contains(user)))
    }
}

#[cfg(any(test, feature = "testing"))]
impl Change {
    /// Returns a change for tests of other modules.
    pub fn made_up(customer: &str, action: Action) -> Change {
        let digest = Digest::of(customer.as_bytes());
        Change {
            customer: customer.to_owned(),
            environment: Environment::Production,
            worker: format!("t-{customer}"),
            account: "default".to_owned(),
            action,
            reasons: Vec::new(),
            steps: vec![Step::Upload],
            digest,
            was: None,
            wave: 0,
            migration: None,
            assets: None,
            destroys_objects: false,
            adopts: false,
            home: Home { account_id: "a".to_owned(), namespace: None },
            revision: None,
            rejects: None,
            zone_ids: BTreeMap::new(),
            needs: Vec::new(),
            calls: Vec::new(),
            refers: Vec::new(),
            picked: None,
            rank: 0,
            cycle: None,
        }
    }
}

#[cfg(test)]
mod tests;
