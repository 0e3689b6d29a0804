//! The live resources, from the platform's lists: one request for the workers of each home, one for the domains of
//! each account that has any, one for the routes of each zone. Knows which lists to request; sends nothing by itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::WorkerId;
use flotilla_model::paging::{Unsteady, read_list};
use flotilla_model::platform::{
    Call, Home, ListedDomain, ListedQueue, ListedRoute, ListedWorker, ListedWorkflow, Reply,
};

use super::{Row, Wanted, outside};

/// The lists to request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The homes whose workers are listed.
    pub homes: BTreeSet<Home>,
    /// The accounts whose custom domains are listed.
    pub domains: BTreeSet<String>,
    /// The zones whose routes are listed, by account, as the state knows them by their ids.
    pub zones: BTreeSet<(String, String)>,
    /// And by account and name, where the id is not known.
    pub named_zones: BTreeSet<(String, String)>,
    /// The accounts whose queues are listed.
    pub queues: BTreeSet<String>,
    /// The accounts whose workflows are listed.
    pub workflows: BTreeSet<String>,
}

/// A zone's routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// The account that it belongs to.
    pub account_id: String,
    /// Its routes.
    pub routes: Vec<ListedRoute>,
}

/// The triggers of a worker that no list has: they were requested.
#[derive(Clone, Debug, Default)]
pub struct AskedTriggers {
    /// Whether it answers on workers.dev.
    pub workers_dev: bool,
    /// Whether each of its versions has an address there.
    pub preview_urls: bool,
    /// Its crons.
    pub crons: BTreeSet<String>,
}

/// The live resources.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The workers of each home that was listed, by name.
    pub workers: BTreeMap<Home, BTreeMap<String, ListedWorker>>,
    /// The custom domains of each account that was listed.
    pub domains: BTreeMap<String, Vec<ListedDomain>>,
    /// The zones that were listed, by id.
    pub zones: BTreeMap<String, Zone>,
    /// The ids of zones that were looked up, by account and name. Those that the account doesn't have are missing.
    pub found: BTreeMap<(String, String), String>,
    /// The queues of each account that was listed.
    pub queues: BTreeMap<String, Vec<ListedQueue>>,
    /// The workflows of each account that was listed.
    pub workflows: BTreeMap<String, Vec<ListedWorkflow>>,
    /// The workers.dev addresses and crons of workers, where they were requested.
    pub triggers: BTreeMap<WorkerId, AskedTriggers>,
}

impl Scope {
    /// Returns the ids of the accounts whose lists are requested.
    pub fn account_ids(&self) -> BTreeSet<String> {
        let of_homes = self.homes.iter().map(|home| &home.account_id);
        let of_zones = self.zones.iter().chain(&self.named_zones).map(|(account_id, _)| account_id);
        let others = self.queues.iter().chain(&self.workflows);
        of_homes.chain(&self.domains).chain(of_zones).chain(others).cloned().collect()
    }

    /// Returns the part of one account.
    pub fn of_account(&self, account_id: &str) -> Scope {
        let mut part = self.clone();
        part.homes.retain(|home| home.account_id == account_id);
        part.domains.retain(|id| id == account_id);
        part.zones.retain(|(id, _)| id == account_id);
        part.named_zones.retain(|(id, _)| id == account_id);
        part.queues.retain(|id| id == account_id);
        part.workflows.retain(|id| id == account_id);
        part
    }

    /// Returns the lists of everything that a fleet and its state use. `zone_id` knows the ids of zones, by account
    /// and name.
    pub fn of(
        rows: &BTreeMap<WorkerId, Row>,
        wanted: &BTreeMap<WorkerId, Wanted>,
        zone_id: impl Fn(&str, &str) -> Option<String>,
    ) -> Scope {
        let mut scope = Scope::default();
        for ((home, _), row) in rows {
            scope.homes.insert(home.clone());
            if !row.domains.is_empty() {
                scope.domains.insert(home.account_id.clone());
            }
            scope.add_parts(&home.account_id, !row.consumers.is_empty(), !row.workflows.is_empty());
            let zones = row.routes.values().map(|(zone_id, _)| (home.account_id.clone(), zone_id.clone()));
            scope.zones.extend(zones);
        }
        for ((home, _), wanted) in wanted {
            scope.homes.insert(home.clone());
            if !wanted.triggers.domains.is_empty() {
                scope.domains.insert(home.account_id.clone());
            }
            let triggers = &wanted.triggers;
            scope.add_parts(&home.account_id, !triggers.consumers.is_empty(), !triggers.workflows.is_empty());
            for name in &wanted.zones {
                let account_id = home.account_id.clone();
                match zone_id(&account_id, name) {
                    Some(id) => scope.zones.insert((account_id, id)),
                    None => scope.named_zones.insert((account_id, name.clone())),
                };
            }
        }
        // Domains and routes point to workers outside namespaces.
        let zones = scope.zones.iter().chain(&scope.named_zones).map(|(account_id, _)| account_id);
        let accounts: BTreeSet<&String> = scope.domains.iter().chain(zones).collect();
        scope.homes.extend(accounts.into_iter().map(|account_id| outside(account_id)));
        scope
    }

    /// Adds the lists of queues and of workflows of an account in which workers have some.
    fn add_parts(&mut self, account_id: &str, consumes: bool, has_workflows: bool) {
        self.queues.extend(consumes.then(|| account_id.to_owned()));
        self.workflows.extend(has_workflows.then(|| account_id.to_owned()));
    }

    /// Returns the number of requests, apart from those that look zones up.
    pub fn requests(&self) -> usize {
        let parts = self.queues.len() + self.workflows.len();
        self.homes.len() + self.domains.len() + self.zones.len() + self.named_zones.len() + parts
    }
}

impl Inventory {
    /// Adds what is live in another account.
    pub fn add(&mut self, mut other: Inventory) {
        self.workers.append(&mut other.workers);
        self.domains.append(&mut other.domains);
        self.zones.append(&mut other.zones);
        self.found.append(&mut other.found);
        self.queues.append(&mut other.queues);
        self.workflows.append(&mut other.workflows);
        self.triggers.append(&mut other.triggers);
    }
}

/// Requests the lists, one after the other, each to its end.
pub fn take<E: From<Unsteady>>(
    scope: &Scope,
    request: &mut impl FnMut(&Home, Call) -> Result<Reply, E>,
) -> Result<Inventory, E> {
    let mut inventory = Inventory::default();
    for home in &scope.homes {
        let workers = read_list(|page| match request(home, Call::ListWorkers { tags: None, page })? {
            Reply::Workers(workers) => Ok::<_, E>(workers),
            // A namespace that doesn't exist yet has no workers.
            Reply::Nothing => Ok(Vec::new().into()),
            other => unreachable!("BUG: {other:?} is no list of workers"),
        })?;
        let by_name = workers.into_iter().map(|worker| (worker.name.clone(), worker)).collect();
        inventory.workers.insert(home.clone(), by_name);
    }
    for account_id in &scope.domains {
        let domains = read_list(|page| match request(&outside(account_id), Call::ListDomains { page })? {
            Reply::Domains(domains) => Ok::<_, E>(domains),
            other => unreachable!("BUG: {other:?} is no list of domains"),
        })?;
        inventory.domains.insert(account_id.clone(), domains);
    }
    let mut zones = scope.zones.clone();
    for (account_id, name) in &scope.named_zones {
        if let Reply::Id(id) = request(&outside(account_id), Call::FindZone { name: name.clone() })? {
            inventory.found.insert((account_id.clone(), name.clone()), id.clone());
            zones.insert((account_id.clone(), id));
        }
    }
    for (account_id, zone_id) in zones {
        let routes = read_list(|page| {
            match request(&outside(&account_id), Call::ListRoutes { zone_id: zone_id.clone(), page })? {
                Reply::Routes(routes) => Ok::<_, E>(routes),
                other => unreachable!("BUG: {other:?} is no list of routes"),
            }
        })?;
        inventory.zones.insert(zone_id, Zone { account_id, routes });
    }
    for account_id in &scope.queues {
        let queues = read_list(|page| match request(&outside(account_id), Call::ListQueues { name: None, page })? {
            Reply::Queues(queues) => Ok::<_, E>(queues),
            other => unreachable!("BUG: {other:?} is no list of queues"),
        })?;
        inventory.queues.insert(account_id.clone(), queues);
    }
    for account_id in &scope.workflows {
        let workflows = read_list(|page| match request(&outside(account_id), Call::ListWorkflows { page })? {
            Reply::Workflows(workflows) => Ok::<_, E>(workflows),
            other => unreachable!("BUG: {other:?} is no list of workflows"),
        })?;
        inventory.workflows.insert(account_id.clone(), workflows);
    }
    Ok(inventory)
}

impl Inventory {
    /// Requests the workers.dev addresses and crons of workers: two requests for each. A worker that no longer exists is skipped.
    pub fn request_triggers<E>(
        &mut self,
        workers: &[WorkerId],
        request: &mut impl FnMut(&Home, Call) -> Result<Reply, E>,
    ) -> Result<(), E> {
        for id in workers {
            let (home, worker) = id;
            let addresses = request(home, Call::ReadWorkersDev { worker: worker.clone() })?;
            let Reply::WorkersDev { on, previews } = addresses else { continue };
            let Reply::Crons(crons) = request(home, Call::ReadCrons { worker: worker.clone() })? else { continue };
            self.triggers.insert(id.clone(), AskedTriggers { workers_dev: on, preview_urls: previews, crons });
        }
        Ok(())
    }
}
