//! Looks up the ids of names. Databases and KV namespaces are looked up before the first wave, with one list of an account for all names
//! that the state doesn't know; a zone when the first change needs it. Each lookup makes its own requests; changes wait for it. Knows
//! nothing of how changes use an id.

use std::collections::{BTreeSet, HashMap};

use super::hosts::{HostKeys, HostValue};
use super::index::{ChangeIndex, LookupId};
use super::ownership::StrangersList;
use super::problem::{NextStep, Problem};
use super::run::{Phase, Run};
use super::schedule::{Delivery, Permit, RequestId, RequestState};
use crate::plan::Change;
use crate::state::ResourceKind;
use flotilla_model::bundle::Resource;
use flotilla_model::failure::Failure;
use flotilla_model::paging::{Page, Pages, Progress};
use flotilla_model::platform::{Call, CallError, Home, KV_EXISTS, Reply};

/// A lookup of one or several names.
pub(super) struct Lookup {
    /// The account whose resources are listed.
    pub account_id: String,
    /// The target of the lookup.
    pub target: Target,
    /// Its request.
    pub delivery: Delivery,
    /// The changes that wait for it.
    pub waiters: Vec<ChangeIndex>,
}

/// The target of a lookup.
pub(super) enum Target {
    /// The id of the zone of this name.
    Zone(String),
    /// The ids of names, in the account's list of such resources.
    Names(Names),
    /// The id of the KV namespace of this title, which it creates.
    NewTable(String),
    /// The workers of a home that aren't the fleet's.
    Strangers(StrangersList),
    /// The hosts that a KV namespace has, out of many that are written.
    HostKeys(HostKeys),
    /// The worker that a host in KV points to right before it is written.
    HostValue(HostValue),
}

/// Names that are looked for in a list.
pub(super) struct Names {
    resource: Resource,
    /// The names that were not found yet.
    missing: BTreeSet<String>,
    /// The name, if it is the only one that is looked for.
    only: Option<String>,
    /// The page that is read next.
    page: Page,
    /// The pages that were read.
    pages: Pages<(String, String)>,
    /// Whether they certainly exist: the platform refused to create them a second time.
    exist: bool,
}

impl Names {
    fn new(resource: Resource, missing: BTreeSet<String>, only: Option<String>) -> Names {
        Names { resource, missing, only, page: Page::First, pages: Pages::default(), exist: false }
    }
}

impl Lookup {
    /// Returns its next request; `strangers` is the filter of a list of strangers.
    pub fn call(&self, strangers: Option<String>) -> Call {
        match &self.target {
            Target::Strangers(list) => Call::ListWorkers { tags: strangers, page: list.page.clone() },
            Target::HostKeys(keys) => keys.call(),
            Target::HostValue(value) => value.call(),
            Target::Zone(name) => Call::FindZone { name: name.clone() },
            Target::NewTable(title) => Call::CreateKv { title: title.clone() },
            Target::Names(names) => match names.resource {
                Resource::Database => Call::ListDatabases { name: names.only.clone(), page: names.page.clone() },
                Resource::Kv => Call::ListKv { page: names.page.clone() },
            },
        }
    }

    /// Names it among the requests in flight.
    pub fn key(&self) -> &str {
        match &self.target {
            Target::Zone(name) | Target::NewTable(name) => name,
            Target::HostValue(value) => value.key(),
            Target::Names(_) | Target::Strangers(_) | Target::HostKeys(_) => &self.account_id,
        }
    }

    /// Returns the home that its request is about.
    pub fn home(&self) -> Home {
        match &self.target {
            Target::Strangers(list) => list.home.clone(),
            _ => Home { account_id: self.account_id.clone(), namespace: None },
        }
    }
}

/// The ids that are known in this run, by account, kind and name.
#[derive(Default)]
pub(super) struct KnownIds(HashMap<(String, ResourceKind, String), String>);

impl KnownIds {
    pub fn get(&self, account_id: &str, kind: ResourceKind, name: &str) -> Option<&String> {
        self.0.get(&(account_id.to_owned(), kind, name.to_owned()))
    }

    pub fn insert(&mut self, account_id: &str, kind: ResourceKind, name: &str, id: String) {
        self.0.insert((account_id.to_owned(), kind, name.to_owned()), id);
    }

    pub fn remove(&mut self, account_id: &str, kind: ResourceKind, name: &str) {
        self.0.remove(&(account_id.to_owned(), kind, name.to_owned()));
    }
}

impl Run<'_> {
    /// Looks up the databases and KV namespaces that changes and hosts name. KV namespaces that don't exist are created here;
    /// databases by the changes that need them.
    pub(super) fn look_up_names(&mut self) -> Result<(), Failure> {
        for ((account_id, resource), names) in self.plan.names_needed() {
            let mut missing = BTreeSet::new();
            for name in names {
                match self.ctx.state.cached_id(&account_id, ResourceKind::of(resource), &name)? {
                    Some(id) => self.ids.insert(&account_id, ResourceKind::of(resource), &name, id),
                    None => drop(missing.insert(name)),
                }
            }
            if !missing.is_empty() {
                let only = missing.first().filter(|_| missing.len() == 1).cloned();
                let names = Names::new(resource, missing, only);
                let id = self.add_lookup(&account_id, Target::Names(names));
                self.schedule.queue_request(RequestId::Lookup(id));
            }
        }
        self.run_phase(Phase::Apply)
    }

    pub(super) fn add_lookup(&mut self, account_id: &str, target: Target) -> LookupId {
        let delivery = Delivery::new(self.ctx.lane_of[account_id]);
        self.schedule.add_lookup(Lookup { account_id: account_id.to_owned(), target, delivery, waiters: Vec::new() })
    }

    /// Makes a change wait for a zone's id. The first one that needs it starts the lookup, with the change's permit.
    pub(super) fn wait_for_zone(&mut self, change: ChangeIndex, name: &str, permit: Permit) -> Result<(), Failure> {
        let account_id = &self.change(change).home.account_id;
        let key = (account_id.clone(), name.to_owned());
        let Some(id) = self.zone_lookups.get(&key).copied() else {
            let id = self.add_lookup(account_id, Target::Zone(name.to_owned()));
            self.zone_lookups.insert(key, id);
            self.schedule.wait_for(change, id);
            self.send_lookup(id, permit);
            return Ok(());
        };
        self.return_permit(permit);
        match &self.schedule.lookup(id).delivery.state {
            RequestState::Failed(why) => {
                let why = why.clone();
                self.fail(change, why)
            }
            _ => {
                self.schedule.wait_for(change, id);
                Ok(())
            }
        }
    }

    /// Handles the answer to a lookup's request.
    pub(super) fn on_lookup_answer(&mut self, id: LookupId, result: Result<Reply, CallError>) -> Result<(), Failure> {
        let Some(result) = self.handle_transient_error(RequestId::Lookup(id), result) else { return Ok(()) };
        let Lookup { account_id, target, .. } = self.schedule.lookup(id);
        let account_id = account_id.clone();
        match target {
            Target::Zone(name) => {
                let name = name.clone();
                self.on_zone(id, &account_id, &name, result)
            }
            Target::Names(_) => self.on_page(id, &account_id, result),
            Target::Strangers(_) => {
                self.on_strangers(id, result);
                Ok(())
            }
            Target::HostKeys(_) => {
                self.on_host_keys(id, result);
                Ok(())
            }
            Target::HostValue(_) => self.on_host_value(id, result),
            Target::NewTable(title) => {
                let title = title.clone();
                self.on_new_table(id, &account_id, title, result)
            }
        }
    }

    /// Resumes all changes that wait for a zone with its id, or fails them for the same reason.
    fn on_zone(
        &mut self,
        id: LookupId,
        account_id: &str,
        name: &str,
        result: Result<Reply, CallError>,
    ) -> Result<(), Failure> {
        let is_repeated = self.is_repeatedly_unauthorized(account_id, &result);
        let why = match result {
            Ok(Reply::Id(zone_id)) => {
                self.cache_id(account_id, ResourceKind::Zone, name, zone_id)?;
                self.schedule.end_lookup(id, RequestState::Succeeded);
                return Ok(());
            }
            Ok(Reply::Nothing) => {
                NextStep::Zone.because(format!("the account has no zone `{name}`, or the token can't see it"))
            }
            Ok(other) => unreachable!("BUG: {other:?} is no zone"),
            Err(CallError::Unauthorized(why)) => {
                return self.on_unauthorized_zone(id, NextStep::Token.because(why), is_repeated);
            }
            Err(error) => Problem::of(&error),
        };
        for change in self.schedule.fail_lookup(id, why.clone()) {
            self.fail(change, why.clone())?;
        }
        Ok(())
    }

    /// Reports an unauthorized token with one failure: the other changes of its account would fail alike, and are
    /// skipped.
    fn on_unauthorized_zone(&mut self, id: LookupId, why: Problem, is_repeated: bool) -> Result<(), Failure> {
        let mut is_reported = is_repeated;
        for change in self.schedule.fail_lookup(id, why.clone()) {
            match std::mem::replace(&mut is_reported, true) {
                false => self.fail(change, why.clone())?,
                true => self.skip(change)?,
            }
        }
        Ok(())
    }

    /// Handles a page of a list: the list ends with its last page, or when all names were found.
    fn on_page(&mut self, id: LookupId, account_id: &str, result: Result<Reply, CallError>) -> Result<(), Failure> {
        let listed = match result {
            Ok(Reply::Names(listed)) => listed,
            Ok(other) => unreachable!("BUG: {other:?} is no list of names"),
            Err(error) => {
                let why = explained(&self.schedule.lookup(id).call(None), &error);
                self.fail_names(id, why);
                return Ok(());
            }
        };
        let Target::Names(names) = &mut self.schedule.lookup(id).target else {
            unreachable!("BUG: only a list has pages")
        };
        let (resource, exist) = (names.resource, names.exist);
        let found: Vec<_> = listed.entries.iter().filter(|(name, _)| names.missing.remove(name)).cloned().collect();
        let is_last = match names.pages.add(listed) {
            _ if names.missing.is_empty() => true,
            Ok(Progress::Next(page)) => {
                names.page = page;
                false
            }
            Ok(Progress::Whole(_)) => true,
            Err(unsteady) => {
                self.fail_names(id, NextStep::Retry.because(unsteady.to_string()));
                return Ok(());
            }
        };
        let missing = if is_last { std::mem::take(&mut names.missing) } else { BTreeSet::new() };
        for (name, resource_id) in found {
            self.cache_id(account_id, ResourceKind::of(resource), &name, resource_id)?;
        }
        match missing.first() {
            _ if !is_last => self.schedule.continue_lookup(id),
            Some(title) if exist => {
                let why = format!("the KV namespace `{title}` exists, but can't be found");
                self.fail_names(id, NextStep::Retry.because(why));
            }
            _ => {
                for title in missing.into_iter().filter(|_| resource == Resource::Kv) {
                    let table = self.add_lookup(account_id, Target::NewTable(title));
                    self.schedule.queue_request(RequestId::Lookup(table));
                }
                self.schedule.end_lookup(id, RequestState::Succeeded);
            }
        }
        Ok(())
    }

    /// Handles the creation of a KV namespace. If it already exists, an attempt of ours whose answer was lost may have created it: then it
    /// is in the list.
    fn on_new_table(
        &mut self,
        id: LookupId,
        account_id: &str,
        title: String,
        result: Result<Reply, CallError>,
    ) -> Result<(), Failure> {
        match result {
            Ok(Reply::Id(table_id)) => {
                self.cache_id(account_id, ResourceKind::KeyValue, &title, table_id)?;
                self.schedule.end_lookup(id, RequestState::Succeeded);
            }
            Err(CallError::Rejected { code: KV_EXISTS, .. }) => {
                let missing = BTreeSet::from([title]);
                let names = Names { exist: true, ..Names::new(Resource::Kv, missing, None) };
                self.schedule.lookup(id).target = Target::Names(names);
                self.schedule.continue_lookup(id);
            }
            Ok(other) => unreachable!("BUG: {other:?} is no KV namespace"),
            Err(error) => self.fail_names(id, Problem::of(&error)),
        }
        Ok(())
    }

    /// Notes why an account's resources of a kind are unavailable; the changes and hosts that need them fail with that.
    fn fail_names(&mut self, id: LookupId, why: Problem) {
        let Lookup { account_id, target, .. } = self.schedule.lookup(id);
        let resource = match target {
            Target::Names(names) => names.resource,
            Target::NewTable(_) => Resource::Kv,
            Target::Zone(_) | Target::Strangers(_) | Target::HostKeys(_) | Target::HostValue(_) => {
                unreachable!("BUG: it is no such resource")
            }
        };
        let key = (account_id.clone(), resource);
        self.unavailable.insert(key, why.clone());
        let waiters = self.schedule.fail_lookup(id, why);
        assert!(waiters.is_empty(), "BUG: changes begin after the lists were read");
    }

    /// Drops the ids of the resources that a change needs, because one doesn't exist any more. The next deploy looks it up again.
    pub(super) fn forget_ids(&mut self, change: &Change) -> Result<(), Failure> {
        for (resource, name) in &change.needs {
            self.ctx.state.forget_id(&change.home.account_id, ResourceKind::of(*resource), name)?;
            self.ids.remove(&change.home.account_id, ResourceKind::of(*resource), name);
        }
        Ok(())
    }

    /// Keeps an id, for this run and for later ones.
    pub(super) fn cache_id(
        &mut self,
        account_id: &str,
        kind: ResourceKind,
        name: &str,
        id: String,
    ) -> Result<(), Failure> {
        self.ctx.state.cache_id(account_id, kind, name, &id)?;
        self.ids.insert(account_id, kind, name, id);
        Ok(())
    }
}

/// Returns the platform's message, with the missing permission where it is known.
pub(super) fn explained(call: &Call, error: &CallError) -> Problem {
    let denied = matches!(error, CallError::Rejected { status: 401 | 403, .. } | CallError::Unauthorized(_));
    let permission = match call {
        Call::ListDatabases { .. } => "D1: Edit",
        _ => "Workers KV Storage: Edit",
    };
    match denied {
        true => NextStep::Token.because(format!("{error}; does the token have the permission `{permission}`?")),
        false => Problem::of(error),
    }
}
