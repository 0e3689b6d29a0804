//! The hosts of dispatch namespaces: which of them are to point to another worker than before. Pure; the whole table is compared,
//! as a host that moves belongs to two workers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::{Action, Change};
use crate::state::{HostTarget, Table};
use flotilla_model::platform::{Home, KEYS_PER_CALL};

/// A host that is to point to another worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HostChange {
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The KV namespace, by its title.
    pub table: String,
    /// The host.
    pub host: String,
    /// The worker that it pointed to, if that is known.
    pub from: Option<String>,
    /// The worker that it points to from now on; nothing if no worker has it any more.
    pub to: Option<String>,
    /// The wave after whose uploads it is written.
    pub wave: usize,
    /// The home of the workers.
    #[serde(skip)]
    pub home: Home,
}

impl HostChange {
    /// Returns the KV namespace that it is written to.
    pub fn id(&self) -> Table {
        Table { account_id: self.home.account_id.clone(), title: self.table.clone() }
    }
}

/// The hosts that are desired.
#[derive(Default)]
pub(super) struct Hosts {
    /// The worker that each host is to point to, by table and host.
    wanted: BTreeMap<(Table, String), (Home, String)>,
    /// The account's name in fleet.yaml, by its id.
    accounts: HashMap<String, String>,
    /// The workers that are planned.
    decided: BTreeSet<(Home, String)>,
    /// The hosts of workers that are skipped: they aren't touched.
    left_alone: BTreeSet<(Table, String)>,
}

impl Hosts {
    /// Adds a worker, with its hosts if it has any; if it is skipped (`held`), so are they.
    pub fn add(
        &mut self,
        home: &Home,
        worker: &str,
        account: &str,
        hosts: Option<&flotilla_model::customer::Hosts>,
        held: bool,
    ) {
        let Some(hosts) = hosts else { return };
        let table = Table { account_id: home.account_id.clone(), title: hosts.table.clone() };
        self.accounts.entry(home.account_id.clone()).or_insert_with(|| account.to_owned());
        for host in &hosts.names {
            let key = (table.clone(), host.clone());
            match held {
                true => drop(self.left_alone.insert(key)),
                false => drop(self.wanted.insert(key, (home.clone(), worker.to_owned()))),
            }
        }
        if !held {
            self.decided.insert((home.clone(), worker.to_owned()));
        }
    }

    /// Returns the differences from what was `recorded`. `is_claimed` returns whether any spec names a host, also one
    /// that this plan doesn't cover. Hosts are removed with the last wave.
    pub fn changes(
        self,
        recorded: &BTreeMap<(Table, String), HostTarget>,
        changes: &[Change],
        is_claimed: &dyn Fn(&str) -> bool,
    ) -> Vec<HostChange> {
        let waves: HashMap<(&Home, &str), usize> =
            changes.iter().map(|change| ((&change.home, change.worker.as_str()), change.wave)).collect();
        let last = changes.iter().map(|change| change.wave).max().unwrap_or(0);
        let deleted: BTreeSet<(&Home, &str)> = changes
            .iter()
            .filter(|change| change.action == Action::Delete)
            .map(|change| (&change.home, change.worker.as_str()))
            .collect();
        let mut host_changes = Vec::new();
        for (key, (home, worker)) in &self.wanted {
            let before = recorded.get(key);
            let is_there =
                before.is_some_and(|lead| lead.sure && lead.worker.as_ref() == Some(worker) && lead.home == *home);
            if is_there {
                continue;
            }
            host_changes.push(HostChange {
                account: self.accounts[&home.account_id].clone(),
                table: key.0.title.clone(),
                host: key.1.clone(),
                from: before.and_then(|lead| lead.worker.clone()),
                to: Some(worker.clone()),
                wave: waves.get(&(home, worker.as_str())).copied().unwrap_or(0),
                home: home.clone(),
            });
        }
        for (key, lead) in recorded {
            let owner = lead.worker.as_deref().map(|worker| (&lead.home, worker));
            // A host whose first write was interrupted is removed as well: it may exist.
            let given_up = owner.is_none_or(|(home, worker)| {
                deleted.contains(&(home, worker)) || self.decided.contains(&(home.clone(), worker.to_owned()))
            });
            if !given_up || self.wanted.contains_key(key) || self.left_alone.contains(key) || is_claimed(&key.1) {
                continue;
            }
            host_changes.push(HostChange {
                account: self.accounts.get(&key.0.account_id).cloned().unwrap_or_else(|| lead.account.clone()),
                table: key.0.title.clone(),
                host: key.1.clone(),
                from: lead.worker.clone(),
                to: None,
                wave: last,
                home: lead.home.clone(),
            });
        }
        host_changes.sort();
        host_changes
    }
}

/// The number of hosts of a KV namespace up to which each one is read before it is written. Of more, the keys are listed.
pub const READ_ONE_BY_ONE: usize = 10;

/// Returns the number of requests that look at what hosts point to, by account: before the run, and before the hosts of each wave are
/// written. Of many, only those that exist are read.
pub(super) fn checks(hosts: &[HostChange]) -> BTreeMap<&str, usize> {
    let mut tables: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut waves: BTreeMap<(&str, &str, usize), usize> = BTreeMap::new();
    for change in hosts {
        *tables.entry((&change.account, &change.table)).or_default() += 1;
        *waves.entry((&change.account, &change.table, change.wave)).or_default() += 1;
    }
    let mut checks = BTreeMap::new();
    let of_waves = waves.into_iter().map(|((account, ..), count)| (account, count));
    for (account, count) in tables.into_iter().map(|((account, _), count)| (account, count)).chain(of_waves) {
        *checks.entry(account).or_default() += if count > READ_ONE_BY_ONE { 1 } else { count };
    }
    checks
}

/// Returns the number of requests that changes of hosts take, by account.
pub(super) fn requests(hosts: &[HostChange]) -> BTreeMap<&str, usize> {
    let mut keys: BTreeMap<(&str, &str, usize, bool), usize> = BTreeMap::new();
    for change in hosts {
        *keys.entry((&change.account, &change.table, change.wave, change.to.is_some())).or_default() += 1;
    }
    let mut requests = BTreeMap::new();
    for ((account, ..), count) in keys {
        *requests.entry(account).or_default() += count.div_ceil(KEYS_PER_CALL);
    }
    requests
}
