//! The price of a plan, in requests.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_model::bundle::Resource;
use flotilla_model::failure::Failure;
use flotilla_model::platform::{Home, SCRIPTS_PER_PAGE};

use super::{Action, Plan, Step, databases, hosts};
use crate::state::{ResourceKind, State};

/// The names of resources of a kind that an account needs the ids of, by account and kind.
pub(crate) type Names = BTreeMap<(String, Resource), BTreeSet<String>>;

impl Plan {
    /// Returns the most requests that upload static assets, beside one session for each worker: a file that several workers of a dispatch
    /// namespace have is uploaded once.
    pub fn asset_uploads_at_most(&self) -> usize {
        let (mut seen, mut of_packs) = (BTreeSet::new(), BTreeMap::new());
        let assets = self.changes.iter().filter_map(|change| Some((&change.home, change.assets.as_ref()?)));
        let mut uploads = 0;
        for (home, assets) in assets {
            if home.namespace.is_none() {
                uploads += assets.uploads_at_most;
            } else if seen.insert((home, assets.list)) {
                // The files of a pack are those of all its workers there.
                uploads += assets.own_at_most;
                let of_pack: &mut usize = of_packs.entry((home, assets.shared())).or_default();
                *of_pack = (*of_pack).max(assets.uploads_at_most.saturating_sub(assets.own_at_most));
            }
        }
        uploads + of_packs.into_values().sum::<usize>()
    }

    /// Returns the number of requests that the changes take, by account, without those that look up ids (see [`Plan::lookups`]) and
    /// those of [`Plan::asset_uploads_at_most`].
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
        for (account, count) in databases::requests(&self.databases).into_iter().chain(hosts::requests(&self.hosts)) {
            *requests.entry(account).or_default() += count;
        }
        requests
    }

    /// Returns the number of requests that check ownership before changes, by account: lists before the first change, one list of each
    /// wave's homes, and what is looked at right before a change. `known` is the number of workers that the state has in a home;
    /// `is_listed`: whether all homes have just been listed.
    pub fn checks(&self, known: impl Fn(&Home) -> usize, is_listed: bool) -> BTreeMap<&str, usize> {
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
        if is_listed {
            return checks;
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

    /// Returns the number of requests that look up ids for the first time, or create what has none, by account id.
    /// Assumes that the lists that are searched have one page, and that KV namespaces that the state doesn't know don't exist.
    ///
    /// # Errors
    /// When the state can't be read.
    pub fn lookups(&self, state: &State) -> Result<BTreeMap<String, usize>, Failure> {
        let is_known =
            |account_id: &str, kind, name: &str| state.cached_id(account_id, kind, name).map(|id| id.is_some());
        let mut lookups: BTreeMap<String, usize> = BTreeMap::new();
        for ((account_id, resource), names) in self.names_needed() {
            let mut unknown = 0;
            for name in names {
                unknown += usize::from(!is_known(&account_id, ResourceKind::of(resource), &name)?);
            }
            // A database that doesn't exist is created by a step of its own.
            let created = if resource == Resource::Kv { unknown } else { 0 };
            if unknown > 0 {
                *lookups.entry(account_id).or_default() += 1 + created;
            }
        }
        for (account_id, zone) in self.zones_needed() {
            if !is_known(account_id, ResourceKind::Zone, zone)? {
                *lookups.entry(account_id.to_owned()).or_default() += 1;
            }
        }
        Ok(lookups)
    }

    /// Returns the names of resources that uploads and hosts need the ids of.
    pub(crate) fn names_needed(&self) -> Names {
        let uploads = self.changes.iter().filter(|change| change.steps.contains(&Step::Upload));
        let needs = uploads
            .flat_map(|change| change.needs.iter().map(|(resource, name)| (&change.home.account_id, *resource, name)));
        let tables = self.hosts.iter().map(|change| (&change.home.account_id, Resource::Kv, &change.table));
        let mut needed = Names::new();
        let databases =
            databases::names_needed(&self.databases).map(|(account_id, name)| (account_id, Resource::Database, name));
        for (account_id, resource, name) in needs.chain(tables).chain(databases) {
            let names = needed.entry((account_id.clone(), resource)).or_default();
            if !names.contains(name) {
                names.insert(name.clone());
            }
        }
        needed
    }

    /// Returns the zones whose ids routes need and no spec has: account ids and names.
    fn zones_needed(&self) -> BTreeSet<(&str, &str)> {
        let mut zones = BTreeSet::new();
        for change in &self.changes {
            for step in &change.steps {
                if let Step::AddRoute { zone, .. } | Step::MoveRoute { zone, .. } | Step::DropRoute { zone, .. } = step
                    && !change.zone_ids.contains_key(zone)
                {
                    zones.insert((change.home.account_id.as_str(), zone.as_str()));
                }
            }
        }
        zones
    }
}
