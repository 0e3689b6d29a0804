//! Makes a plan, worker by worker. Workers that are up to date are only counted, so that a plan of any fleet holds its changes alone.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use super::comparison::Gone;
use super::databases::Databases;
use super::{
    Action, Change, DatabaseReference, DatabaseUser, Decision, Held, Options, Orphan, Plan, Step, databases, handover,
    hosts, outside, plan_digest,
};
use crate::state::{Deployed, HostTarget, InFlight, Table, WorkerId};
use flotilla_model::migrations::DatabaseMigrations;

/// Makes a plan, worker by worker: workers that are up to date are only counted.
pub struct Planner<'a> {
    options: &'a Options<'a>,
    changes: Vec<Change>,
    unchanged: usize,
    held: Vec<Held>,
    orphans: Vec<Orphan>,
    owned: HashSet<u64>,
    /// The workers that are skipped.
    skipped: HashSet<u64>,
    hosts: hosts::Hosts,
    databases: Databases,
}

/// Returns a short hash of a worker's id. Two that share one would both count as defined by a spec: that deletes nothing.
fn short(id: &WorkerId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

impl<'a> Planner<'a> {
    /// Starts a plan without workers.
    pub fn new(options: &'a Options<'a>) -> Planner<'a> {
        let held = options.invalid.iter().map(|customer| Held {
            customer: customer.clone(),
            environment: None,
            worker: None,
            reason: "it has errors".to_owned(),
            is_refused: false,
        });
        Planner {
            options,
            changes: Vec::new(),
            unchanged: 0,
            held: held.collect(),
            orphans: Vec::new(),
            owned: HashSet::new(),
            skipped: HashSet::new(),
            hosts: hosts::Hosts::default(),
            databases: Databases::default(),
        }
    }

    /// Adds a database that is behind its pack's migrations, for a worker that is bound to it; `pending`: the indices of the migrations, and
    /// whether its table has to be read first.
    pub fn add_database(
        &mut self,
        user: &DatabaseUser<'_>,
        reference: &DatabaseReference,
        all: &Arc<DatabaseMigrations>,
        pending: (Vec<usize>, bool),
    ) {
        if !self.options.only_prune {
            self.databases.add(user, reference, all, pending, self.options.waves);
        }
    }

    /// Adds the hosts of a worker that a spec defines; if it is skipped (`held`), so are they.
    pub fn add_hosts(
        &mut self,
        id: &WorkerId,
        account: &str,
        hosts: Option<&flotilla_model::customer::Hosts>,
        held: bool,
    ) {
        self.hosts.add(&id.0, &id.1, account, hosts, held);
    }

    /// Adds a worker that a spec defines, with its decision.
    pub fn add(&mut self, id: &WorkerId, decision: Decision) {
        self.owned.insert(short(id));
        match decision {
            _ if self.options.only_prune => self.unchanged += 1,
            Decision::Change(change) => self.changes.push(*change),
            Decision::Unchanged => self.unchanged += 1,
            Decision::Held(held) => {
                self.skipped.insert(short(id));
                self.held.push(held);
            }
        }
    }

    /// Returns the hosts that its changes attach, by account.
    pub fn acquired(&self) -> handover::Acquired {
        handover::Acquired::of(&self.changes)
    }

    /// Returns whether hosts may be moved away from a worker of the state, which its customer's spec defines or doesn't define. Called when
    /// all workers were added that specs define.
    pub fn giver(&self, id: &WorkerId, customer: &str, is_defined: impl FnOnce() -> bool) -> handover::Giver {
        let key = short(id);
        match self.options.invalid.contains(customer) || self.skipped.contains(&key) {
            true => handover::Giver::Held,
            false if self.owned.contains(&key) || !is_defined() => handover::Giver::Free,
            false => handover::Giver::NotSelected,
        }
    }

    /// Skips the changes that upload a worker which calls one that isn't deployed and isn't created by this plan: the platform takes no such
    /// upload. `is_live`: whether a worker is deployed.
    pub fn hold_without_callees(
        &mut self,
        is_live: &mut dyn FnMut(&WorkerId) -> Result<bool, flotilla_model::failure::Failure>,
    ) -> Result<(), flotilla_model::failure::Failure> {
        loop {
            let lasting = self.changes.iter().filter(|change| change.action != Action::Delete);
            let planned: HashSet<WorkerId> = lasting.map(Change::id).collect();
            let mut missing: HashMap<WorkerId, String> = HashMap::new();
            for change in self.changes.iter().filter(|change| change.steps.contains(&Step::Upload)) {
                for callee in &change.calls {
                    let id = (outside(&change.home), callee.clone());
                    if !planned.contains(&id) && !is_live(&id)? {
                        missing.insert(change.id(), callee.clone());
                    }
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            self.changes.retain(|change| {
                let Some(callee) = missing.get(&change.id()) else { return true };
                let is_skipped =
                    self.options.whole || self.skipped.contains(&short(&(outside(&change.home), callee.clone())));
                let reason = match is_skipped {
                    true => format!("it calls {callee}, which isn't deployed and is skipped as well"),
                    false => format!(
                        "it calls {callee}, which isn't deployed and which this run leaves out: `--with-dependencies` deploys it in the \
                         same run"
                    ),
                };
                self.skipped.insert(short(&change.id()));
                self.held.push(Held::refused(change, reason));
                false
            });
        }
    }

    /// Plans the moves of hosts between workers. Called when all workers were added.
    pub fn hand_over(&mut self, holders: &handover::Holders) {
        self.held.extend(handover::hand_over(&mut self.changes, holders));
    }

    /// Returns whether a worker of the state is orphaned. Called when all workers were added that specs define.
    pub fn is_gone(&self, id: &WorkerId, customer: &str) -> bool {
        self.options.whole
            && self.options.homes.contains(&id.0)
            && !self.owned.contains(&short(id))
            && !self.options.invalid.contains(customer)
    }

    /// Adds a worker of the state, live or interrupted, if it is orphaned.
    pub fn gone(&mut self, id: &WorkerId, live: Option<&Deployed>, in_flight: Option<&InFlight>) {
        let gone = match (live, in_flight) {
            (Some(live), in_flight) => Gone::of(live, in_flight),
            // A worker whose first upload was interrupted may be there, as well.
            (None, Some(in_flight)) => Gone::in_flight(in_flight),
            (None, None) => return,
        };
        if !self.is_gone(id, gone.customer) {
            return;
        }
        let is_pruned = self.options.pruned_customers.is_none_or(|customers| customers.contains(gone.customer));
        if self.options.prune && is_pruned {
            self.changes.push(gone.deletion(id, gone.has_objects() || self.options.objects.contains(id)));
        } else {
            let (customer, environment) = (gone.customer.to_owned(), gone.environment);
            self.orphans.push(Orphan { worker: id.1.clone(), customer, environment });
        }
    }

    /// Returns the plan of a fleet without hosts.
    pub fn finish(self) -> Plan {
        self.finish_with(&BTreeMap::new(), &|_| false)
    }

    /// Returns the plan. `recorded`: the hosts as they were written; `is_claimed`: whether any spec names a host, also one that this
    /// plan isn't about.
    pub fn finish_with(
        self,
        recorded: &BTreeMap<(Table, String), HostTarget>,
        is_claimed: &dyn Fn(&str) -> bool,
    ) -> Plan {
        let Planner { options, mut changes, unchanged, mut held, mut orphans, hosts, databases, .. } = self;
        for change in &mut changes {
            change.adopts = change.action != Action::Delete && options.adopt.contains(&change.worker);
        }
        held.sort();
        held.dedup();
        orphans.sort();
        // Some were skipped after their decision.
        let skipped: HashSet<&str> = held.iter().filter_map(|held| held.worker.as_deref()).collect();
        let mut databases = databases.finish();
        if !skipped.is_empty() && !databases.is_empty() {
            let changed: HashSet<WorkerId> = changes.iter().map(Change::id).collect();
            databases::keep_users(&mut databases, |user| changed.contains(user) || !skipped.contains(user.1.as_str()));
        }
        if options.only_databases {
            databases::alone(&mut databases, &changes);
            changes.clear();
            orphans.clear();
        }
        let plan = Plan::with_databases(changes, databases, options.waves);
        let mut hosts = hosts.changes(recorded, &plan.changes, is_claimed);
        hosts.retain(|change| !options.only_databases && (!options.only_prune || change.to.is_none()));
        let digest = plan_digest(&plan.changes, &plan.databases, &hosts);
        Plan { hosts, unchanged, held, orphans, digest, ..plan }
    }
}
