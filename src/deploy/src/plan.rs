//! The plan: the difference between what is desired and what is deployed, as a sorted value. Pure: the same inputs
//! give the same plan, and a deploy makes no choice that the plan left open.

mod comparison;
pub mod handover;
mod hosts;
mod leave_out;
pub(crate) mod order;
mod planned_action;
mod planner;
pub(crate) mod transfers;
mod waves;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::state::{Deployed, InFlight, Stored, Uncertainty, WorkerId};
use flotilla_model::binding::OwnWorkflow;
use flotilla_model::bundle::{Bundle, Resource, by_name, workers};
use flotilla_model::customer::Worker;
use flotilla_model::digest::Digest;
use flotilla_model::objects::{self, Migration, UnknownTag};
use flotilla_model::platform::{Home, SCRIPTS_PER_PAGE};
use flotilla_model::reason::{Reason, with_details};
use flotilla_model::spec::{Delivery, Environment, Jurisdiction, LocationHint, QueueConsumer};

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
    /// Whether the id of its database is known, if its spec gives the name alone.
    pub has_database: bool,
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
    /// Returns those of the planned ones that a worker with this live tag, which is bound to these classes, goes through now. The error
    /// says why it isn't what was planned.
    pub fn of_live(&self, live: Option<&str>, bound: &BTreeSet<String>) -> Result<&[Migration], String> {
        let shown = live.filter(|tag| !tag.is_empty()).unwrap_or("none");
        let pending = objects::pending(&self.all, live).map_err(|UnknownTag(tag)| unknown_tag(&tag))?;
        let now = &pending[..objects::at_once(pending, bound)];
        // Less than was planned is nothing that nobody has seen: somebody else, or an attempt whose answer was lost, did the rest.
        match now.iter().all(|migration| self.steps.contains(migration)) {
            true => Ok(now),
            false => Err(format!("the plan is stale: the worker's live Durable Object migration is {shown} now")),
        }
    }
}

/// Returns why nothing is done to a worker whose live migration the pack doesn't have.
pub fn unknown_tag(tag: &str) -> String {
    format!(
        "its live Durable Object migration `{tag}` is none of the pack's: add the missing migrations to the pack, in the order in which \
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
}

impl Change {
    /// Returns the worker that it changes.
    pub fn id(&self) -> WorkerId {
        (self.home.clone(), self.worker.clone())
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
pub fn back(id: &WorkerId, live: &Deployed, (to, bundle): (Digest, &Stored), reason: Reason) -> Change {
    Change {
        customer: live.customer.clone(),
        environment: live.environment,
        worker: id.1.clone(),
        account: live.account.clone(),
        action: Action::Update,
        reasons: vec![reason],
        steps: vec![Step::Upload],
        digest: to,
        was: Some(live.digest),
        wave: 0,
        migration: None,
        destroys_objects: false,
        adopts: false,
        home: id.0.clone(),
        revision: Some(live.revision),
        rejects: Some(live.digest),
        needs: by_name(&bundle.metadata).map(|(resource, name)| (resource, name.to_owned())).collect(),
        calls: Vec::new(),
        refers: workers(&bundle.metadata),
        picked: None,
        rank: 0,
    }
}

impl Plan {
    /// Returns a plan of these changes and nothing else.
    pub fn of(mut changes: Vec<Change>, waves: &[Wave]) -> Plan {
        changes.sort_by(|a, b| {
            (a.environment, &a.customer, &a.account, &a.worker).cmp(&(
                b.environment,
                &b.customer,
                &b.account,
                &b.worker,
            ))
        });
        rank(&mut changes);
        let waves = waves::assign(waves, &mut changes);
        let digest = PlannedAction::digest(changes.iter().map(PlannedAction::of), []);
        let (held, orphans) = (Vec::new(), Vec::new());
        Plan { changes, hosts: Vec::new(), unchanged: 0, held, orphans, waves, digest }
    }
}

/// The changes by the workers that they create or change. A worker of a dispatch namespace is bound to workers outside of it, too.
fn by_worker(changes: &[Change]) -> HashMap<(&Home, &str), usize> {
    changes.iter().enumerate().map(|(at, change)| ((&change.home, change.worker.as_str()), at)).collect()
}

/// Returns whether a change's upload refers to another worker.
fn refers(changes: &[Change]) -> bool {
    changes.iter().any(|change| !change.calls.is_empty() || !change.refers.is_empty())
}

/// Returns the changes of the workers that each change's upload refers to.
fn callees(changes: &[Change]) -> Vec<Vec<usize>> {
    if !refers(changes) {
        return vec![Vec::new(); changes.len()];
    }
    let by_worker = by_worker(changes);
    let of = |change: &Change| {
        let outside = Home { namespace: None, ..change.home.clone() };
        let names = change.calls.iter().chain(&change.refers);
        let found = names.filter_map(|name| {
            let own = by_worker.get(&(&change.home, name.as_str()));
            own.or_else(|| by_worker.get(&(&outside, name.as_str()))).copied()
        });
        let all: BTreeSet<usize> = found.filter(|at| changes[*at].action != Action::Delete).collect();
        all.into_iter().collect()
    };
    changes.iter().map(of).collect()
}

/// Ranks the changes: after those of the workers that they refer to. In a circle, those that are created come first, as far as they
/// need each other: what is live can be bound at any time.
fn rank(changes: &mut [Change]) {
    if !refers(changes) {
        return;
    }
    let mut needs = callees(changes);
    for (at, needs) in needs.iter_mut().enumerate() {
        needs.retain(|other| *other != at);
    }
    let mut first = 0;
    for groups in order::levels(&needs) {
        let mut used = 1;
        for group in groups {
            let place = |at: usize| group.iter().position(|member| *member == at);
            let is_created = |at: &&usize| changes[**at].action == Action::Create;
            let among: Vec<Vec<usize>> = group
                .iter()
                .map(|at| needs[*at].iter().filter(is_created).filter_map(|other| place(*other)).collect())
                .collect();
            let levels = order::levels(&among);
            used = used.max(levels.len());
            for (level, groups) in levels.iter().enumerate() {
                for member in groups.iter().flatten() {
                    changes[group[*member]].rank = first + level;
                }
            }
        }
        first += used;
    }
}

impl Plan {
    /// Returns the places of the changes that create workers which a change's upload refers to.
    pub fn created_callees(&self, change: &Change) -> Vec<usize> {
        let outside = Home { namespace: None, ..change.home.clone() };
        let is_named = |name: &String| change.calls.contains(name) || change.refers.contains(name);
        let is_callee = |other: &Change| {
            other.action == Action::Create
                && other.worker != change.worker
                && (other.home == change.home || other.home == outside)
                && is_named(&other.worker)
        };
        self.changes.iter().enumerate().filter(|(_, other)| is_callee(other)).map(|(at, _)| at).collect()
    }

    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.hosts.is_empty()
    }

    /// Returns the accounts that it is about: their ids, and their names in fleet.yaml.
    pub fn accounts(&self) -> impl Iterator<Item = (&str, &str)> {
        let changes = self.changes.iter().map(|change| (change.home.account_id.as_str(), change.account.as_str()));
        changes.chain(self.hosts.iter().map(|change| (change.home.account_id.as_str(), change.account.as_str())))
    }

    /// Returns the number of changes with an action.
    pub fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|change| change.action == action).count()
    }

    /// Returns the number of changes of each wave.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.waves.len()];
        for change in &self.changes {
            sizes[change.wave] += 1;
        }
        sizes
    }

    /// Returns the number of requests that the changes take, by account, without the few that look up ids for the first time.
    pub fn requests(&self) -> BTreeMap<&str, usize> {
        let mut requests = BTreeMap::new();
        for change in &self.changes {
            // What is moved is looked up first, and so is what others may have.
            let looked_up = |step: &&Step| {
                matches!(
                    step,
                    Step::MoveDomain { .. }
                        | Step::MoveRoute { .. }
                        | Step::CreateQueue { .. }
                        | Step::SetConsumer { .. }
                        | Step::RemoveConsumer { .. }
                        | Step::PutWorkflow { .. }
                        | Step::DeleteWorkflow { .. }
                )
            };
            let lookups = change.steps.iter().filter(looked_up).count();
            *requests.entry(change.account.as_str()).or_default() += change.steps.len() + lookups;
        }
        for (account, count) in hosts::requests(&self.hosts) {
            *requests.entry(account).or_default() += count;
        }
        requests
    }

    /// Returns the number of requests that look at what is there, so that nothing of others is changed, by account: lists before the
    /// first change, one list of each wave's homes, and what is looked at right before a change. `known` is the number of
    /// workers that the state has in a home.
    pub fn checks(&self, known: impl Fn(&Home) -> usize) -> BTreeMap<&str, usize> {
        let mut checks = BTreeMap::new();
        let mut lists: BTreeMap<Home, &str> = BTreeMap::new();
        let mut domains = BTreeSet::new();
        let mut waves = BTreeSet::new();
        for change in &self.changes {
            let account = change.account.as_str();
            *checks.entry(account).or_default() += change.checks();
            match change.action {
                Action::Create => drop(lists.insert(change.home.clone(), account)),
                // Only strangers are listed, who are few.
                Action::Update if !change.is_checked() && waves.insert((change.wave, &change.home)) => {
                    *checks.entry(account).or_default() += 1;
                }
                _ => {}
            }
            if change.steps.iter().any(|step| matches!(step, Step::AttachDomain { .. })) {
                let account_id = change.home.account_id.clone();
                lists.insert(Home { account_id: account_id.clone(), namespace: None }, account);
                domains.insert((account, account_id));
            }
        }
        for (account, count) in hosts::checks(&self.hosts) {
            *checks.entry(account).or_default() += count;
        }
        for (account, _) in domains {
            *checks.entry(account).or_default() += 1;
        }
        for (home, account) in lists {
            let pages = home.namespace.as_ref().map_or(1, |_| known(&home).div_ceil(SCRIPTS_PER_PAGE).max(1));
            *checks.entry(account).or_default() += pages;
        }
        checks
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
            destroys_objects: false,
            adopts: false,
            home: Home { account_id: "a".to_owned(), namespace: None },
            revision: None,
            rejects: None,
            needs: Vec::new(),
            calls: Vec::new(),
            refers: Vec::new(),
            picked: None,
            rank: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::DeployedResources;
    use flotilla_model::customer::sample as worker;
    use serde_json::json;

    fn home() -> Home {
        Home { account_id: "a".to_owned(), namespace: None }
    }

    fn bundle() -> Bundle {
        let digest = Digest::of(b"1");
        Bundle { digest, module: digest, runtime: digest, metadata: json!({"bindings": []}) }
    }

    fn live(worker: &Worker, bundle: &Bundle) -> (WorkerId, Deployed) {
        let live = DeployedResources {
            etag: String::new(),
            created_on: None,
            workers_dev: worker.workers_dev,
            domains: worker.domains.iter().map(|domain| (domain.clone(), "d".to_owned())).collect(),
            routes: worker
                .routes
                .iter()
                .map(|route| (route.pattern.clone(), ("z".to_owned(), "r".to_owned())))
                .collect(),
            crons: worker.crons.clone(),
            secrets: BTreeMap::from([("S".to_owned(), "1".to_owned())]),
            ..DeployedResources::default()
        };
        let deployed = Deployed {
            account: worker.account.clone(),
            customer: worker.customer.clone(),
            environment: worker.environment,
            digest: bundle.digest,
            revision: 1,
            deployed_at: 1,
            rejected: None,
            drift: None,
            live,
        };
        ((home(), worker.name.clone()), deployed)
    }

    fn check(
        worker: &Worker,
        bundle: &Bundle,
        secret: &str,
        deployed: &BTreeMap<WorkerId, Deployed>,
        options: &Options<'_>,
    ) -> Plan {
        let secrets = BTreeMap::from([("S".to_owned(), secret.to_owned())]);
        let id = (home(), worker.name.clone());
        let same = Stored {
            module: Digest::of(b"1"),
            runtime: Digest::of(b"1"),
            runtime_file: String::new(),
            metadata: json!({"bindings": []}),
            source: json!(null),
        };
        let known = RecordedWorker { live: deployed.get(&id), bundle: Some(&same), ..RecordedWorker::default() };
        let mut planner = Planner::new(options);
        planner.add(&id, decide(&Desired { home: home(), worker, bundle, secrets }, &known, options));
        for (id, live) in deployed {
            planner.gone(id, Some(live), None);
        }
        planner.finish()
    }

    fn whole() -> Options<'static> {
        Options { whole: true, homes: BTreeSet::from([home()]), ..Options::default() }
    }

    #[test]
    fn a_new_worker_takes_one_request_for_each_thing() {
        let plan = check(&worker("acme"), &bundle(), "1", &BTreeMap::new(), &whole());
        assert_eq!(plan.changes[0].action, Action::Create);
        assert_eq!(plan.changes[0].steps.len(), 5);
        assert_eq!(plan.changes[0].steps[0], Step::Upload);
    }

    #[test]
    fn what_is_deployed_needs_nothing() {
        let (worker, bundle) = (worker("acme"), bundle());
        let plan = check(&worker, &bundle, "1", &BTreeMap::from([live(&worker, &bundle)]), &whole());
        assert_eq!((plan.changes.len(), plan.unchanged), (0, 1));
    }

    #[test]
    fn a_changed_bundle_secret_or_cron_takes_one_request() {
        let (mut worker, bundle) = (worker("acme"), bundle());
        let deployed = BTreeMap::from([live(&worker, &bundle)]);
        let other = Bundle { digest: Digest::of(b"2"), module: Digest::of(b"2"), ..bundle.clone() };
        let upload = |plan: Plan| (plan.changes[0].steps.clone(), plan.changes[0].reasons.clone());
        assert_eq!(
            upload(check(&worker, &other, "1", &deployed, &whole())),
            (vec![Step::Upload], vec![Reason::ModuleChanged { old: bundle.module.short(), new: other.module.short() }])
        );
        assert_eq!(
            upload(check(&worker, &bundle, "2", &deployed, &whole())),
            (vec![Step::Upload], vec![Reason::SecretChanged { name: "S".to_owned() }])
        );
        let force = Options { force: Some("CVE"), ..whole() };
        assert_eq!(
            upload(check(&worker, &bundle, "1", &deployed, &force)),
            (vec![Step::Upload], vec![Reason::Forced { reason: "CVE".to_owned() }])
        );
        // What was uploaded since a redeploy for this reason began isn't uploaded by its next run.
        let since = |time| Options { forced_since: Some(time), ..Options { force: Some("CVE"), ..whole() } };
        let at = deployed.values().next().map_or(0, |deployed| deployed.deployed_at);
        assert!(check(&worker, &bundle, "1", &deployed, &since(at - 1)).is_empty());
        assert!(!check(&worker, &bundle, "1", &deployed, &since(at)).is_empty());
        worker.crons.clear();
        let steps = upload(check(&worker, &bundle, "1", &deployed, &whole())).0;
        assert_eq!(steps, vec![Step::SetCrons { crons: BTreeSet::new() }]);
    }

    #[test]
    fn the_digest_is_of_what_is_done_and_where_not_of_why() {
        let (acme, bundle) = (worker("acme"), bundle());
        let deployed = BTreeMap::from([live(&acme, &bundle)]);
        let plan = |options: &Options<'_>| check(&acme, &bundle, "1", &deployed, options);
        let (one, other) = (Options { force: Some("a"), ..whole() }, Options { force: Some("b"), ..whole() });
        let (one, other) = (plan(&one), plan(&other));
        assert_ne!(one.changes[0].reasons, other.changes[0].reasons);
        assert_eq!(one.digest, other.digest);
        let change = |edit: &dyn Fn(&mut Change)| {
            let mut change = one.changes[0].clone();
            edit(&mut change);
            PlannedAction::digest([PlannedAction::of(&change)], [])
        };
        assert_eq!(change(&|_| {}), one.digest);
        let edits: [&dyn Fn(&mut Change); 8] = [
            &|change| change.home.account_id = "b".to_owned(),
            &|change| change.home.namespace = Some(String::new()),
            &|change| change.worker.push('x'),
            &|change| change.digest = Digest::of(b"3"),
            &|change| change.was = None,
            &|change| change.wave = 1,
            &|change| change.steps.push(Step::Delete),
            &|change| change.action = Action::Create,
        ];
        let mut seen: BTreeSet<Digest> = edits.iter().map(|edit| change(edit)).collect();
        seen.insert(one.digest);
        assert_eq!(seen.len(), 9, "each of them is another plan");
        let action = PlannedAction::of(&one.changes[0]);
        let read: PlannedAction = serde_json::from_slice(&serde_json::to_vec(&action).unwrap()).unwrap();
        assert_eq!(read, action);
        assert!(!serde_json::to_string(&action).unwrap().contains("\"a\""), "an account's id is told");
    }

    #[test]
    fn a_worker_without_a_spec_is_deleted_only_by_pruning_the_whole_fleet() {
        let (acme, bundle) = (worker("acme"), bundle());
        let deployed = BTreeMap::from([live(&acme, &bundle), live(&worker("gone"), &bundle)]);
        let plan = check(&acme, &bundle, "1", &deployed, &whole());
        assert_eq!((plan.changes.len(), plan.orphans.len()), (0, 1));
        let pruned = check(&acme, &bundle, "1", &deployed, &Options { prune: true, ..whole() });
        assert_eq!(pruned.changes[0].action, Action::Delete);
        assert_eq!(pruned.changes[0].steps.last(), Some(&Step::Delete));
        let partial = check(&acme, &bundle, "1", &deployed, &Options { prune: true, ..Options::default() });
        assert_eq!((partial.changes.len(), partial.orphans.len()), (0, 0));
        let invalid = Options { prune: true, invalid: BTreeSet::from(["gone".to_owned()]), ..whole() };
        let held = check(&acme, &bundle, "1", &deployed, &invalid);
        assert_eq!((held.changes.len(), held.held.len()), (0, 1), "an invalid spec never implies a deletion");
    }

    #[test]
    fn workers_are_uploaded_after_those_that_their_bindings_name() {
        let ranks = |workers: &[(&str, Action, &[&str])]| {
            let mut changes: Vec<Change> = workers
                .iter()
                .map(|(name, action, refers)| {
                    let mut change = Change::made_up(name, *action);
                    change.worker = (*name).to_owned();
                    change.refers = refers.iter().map(|name| (*name).to_owned()).collect();
                    change
                })
                .collect();
            rank(&mut changes);
            changes.into_iter().map(|change| change.rank).collect::<Vec<_>>()
        };
        use Action::{Create, Delete, Update};
        assert_eq!(ranks(&[("a", Create, &[]), ("b", Update, &[])]), [0, 0]);
        assert_eq!(ranks(&[("a", Create, &["b"]), ("b", Create, &["c"]), ("c", Create, &[])]), [2, 1, 0]);
        assert_eq!(ranks(&[("a", Create, &["a", "elsewhere"]), ("b", Create, &["a"])]), [0, 1], "itself is no need");
        // In a circle, the one that is new comes first, whichever name it has.
        assert_eq!(ranks(&[("a", Update, &["b"]), ("b", Create, &["a"])]), [1, 0]);
        assert_eq!(ranks(&[("a", Create, &["b"]), ("b", Update, &["a"]), ("c", Create, &["a"])]), [0, 1, 2]);
        assert_eq!(ranks(&[("a", Create, &["b"]), ("b", Create, &["a"])]), [0, 0], "nobody can be first");
        assert_eq!(ranks(&[("a", Create, &["b"]), ("b", Delete, &[])]), [0, 0]);
    }

    #[test]
    fn deliveries_that_are_not_ours_are_held() {
        let mut acme = worker("acme");
        acme.delivery = Delivery::Manual;
        assert_eq!(check(&acme, &bundle(), "1", &BTreeMap::new(), &whole()).held.len(), 1);
        let named = ["acme".to_owned()];
        let options = Options { named: &named, ..Options::default() };
        assert_eq!(check(&acme, &bundle(), "1", &BTreeMap::new(), &options).changes.len(), 1);
    }
}
