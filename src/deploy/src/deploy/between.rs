//! What is done once for many changes, between the stages of a wave, when nothing else is in flight: ids that names stand for
//! are found, and hosts are written, thousands in a request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::pool::{Answer, Job};
use super::run::{Part, Run};
use super::{ATTEMPTS, BACKOFF, Failed, LISTEN, Order, THROTTLED_ATTEMPTS};
use crate::pace::Ticket;
use crate::plan::{Action, Change, HostChange, Step};
use crate::state::{Found, Table};
use flotilla_model::bundle::Resource;
use flotilla_model::failure::Failure;
use flotilla_model::platform::{CONCURRENT_CHANGE, Call, CallError, Home, KEYS_PER_CALL, KV_EXISTS, Reply};

/// The id of a request that belongs to no change.
const NOBODYS: usize = usize::MAX;

/// What is kept of a resource in the state.
pub(super) fn found(resource: Resource) -> Found {
    match resource {
        Resource::Database => Found::Database,
        Resource::Kv => Found::KeyValue,
    }
}

/// Why something was not done.
enum Undone {
    /// It was tried.
    Failed(String),
    /// The deploy was stopped before.
    Stopped,
}

impl Run<'_> {
    /// Finds out the ids that names stand for: one list of an account for all names that the state doesn't know. KV namespaces
    /// that aren't there are made; databases are made by the changes that need them.
    pub(super) fn resources(&mut self) -> Result<(), Failure> {
        let plan = self.plan;
        let mut wanted: BTreeMap<(String, Resource), BTreeSet<&str>> = BTreeMap::new();
        let uploads = plan.changes.iter().filter(|change| change.steps.contains(&Step::Upload));
        let needs = uploads.flat_map(|change| {
            change.needs.iter().map(|(resource, name)| (&change.home.account_id, *resource, name.as_str()))
        });
        let tables = plan.hosts.iter().map(|change| (&change.home.account_id, Resource::Kv, change.table.as_str()));
        for (account, resource, name) in needs.chain(tables) {
            wanted.entry((account.clone(), resource)).or_default().insert(name);
        }
        for ((account, resource), mut names) in wanted {
            for name in names.clone() {
                if let Some(id) = self.tools.state.found(&account, found(resource), name)? {
                    self.ids.insert((account.clone(), resource, name.to_owned()), id);
                    names.remove(name);
                }
            }
            if names.is_empty() {
                continue;
            }
            let missing = match self.list(&account, resource, names)? {
                Ok(missing) => missing,
                Err(Undone::Stopped) => return Ok(()),
                Err(Undone::Failed(why)) => {
                    self.lacking.insert((account, resource), why);
                    continue;
                }
            };
            for title in missing.into_iter().filter(|_| resource == Resource::Kv) {
                match self.make_table(&account, title)? {
                    Ok(()) => {}
                    Err(Undone::Stopped) => return Ok(()),
                    Err(Undone::Failed(why)) => {
                        self.lacking.insert((account.clone(), resource), why);
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks for names in an account's list; gives those that aren't there.
    fn list<'n>(
        &mut self,
        account: &str,
        resource: Resource,
        mut names: BTreeSet<&'n str>,
    ) -> Result<Result<BTreeSet<&'n str>, Undone>, Failure> {
        let only = names.first().filter(|_| names.len() == 1).map(|name| (*name).to_owned());
        for page in 1.. {
            let call = match resource {
                Resource::Database => Call::ListDatabases { name: only.clone(), page },
                Resource::Kv => Call::ListKv { page },
            };
            let (listed, more) = match self.ask(account, &call)? {
                Ok(Reply::Page { names, more }) => (names, more),
                Ok(_) => (Vec::new(), false),
                Err(undone) => return Ok(Err(undone)),
            };
            for (name, id) in listed {
                if names.remove(name.as_str()) {
                    self.know(account, resource, name, id)?;
                }
            }
            if names.is_empty() || !more {
                break;
            }
        }
        Ok(Ok(names))
    }

    /// Makes a KV namespace. That it is there already can be our own doing, by an attempt whose answer was lost.
    fn make_table(&mut self, account: &str, title: &str) -> Result<Result<(), Undone>, Failure> {
        match self.ask_once(account, &Call::CreateKv { title: title.to_owned() })? {
            Ok(Ok(Reply::Id(id))) => self.know(account, Resource::Kv, title.to_owned(), id).map(Ok),
            Ok(Err(CallError::Rejected { code: KV_EXISTS, .. })) => {
                let missing = self.list(account, Resource::Kv, BTreeSet::from([title]))?;
                Ok(missing.and_then(|missing| match missing.is_empty() {
                    true => Ok(()),
                    false => Err(Undone::Failed(format!("the KV namespace `{title}` is there and can't be found"))),
                }))
            }
            Ok(Ok(_)) => Ok(Err(Undone::Failed(format!("the KV namespace `{title}` was made without an id")))),
            Ok(Err(error)) => Ok(Err(Undone::Failed(error.to_string()))),
            Err(undone) => Ok(Err(undone)),
        }
    }

    /// Why a change can't be begun: what it needs can't be had, or a host leads to what it deletes.
    pub(super) fn hindrance(&self, change: &Change, part: Part) -> Result<Option<String>, Failure> {
        if change.action == Action::Delete && part == Part::Rest {
            let host = self.tools.state.host_of(&change.home, &change.worker)?;
            return Ok(host.map(|host| format!("not deleted, because the host {host} still leads to it")));
        }
        let uploads = change.steps.contains(&Step::Upload);
        let lacking = |(resource, _): &(Resource, String)| {
            self.lacking.get(&(change.home.account_id.clone(), *resource)).filter(|_| uploads).cloned()
        };
        Ok(change.needs.iter().find_map(lacking))
    }

    /// Forgets what a change's names stand for: it isn't there any more. The next deploy looks for it anew.
    pub(super) fn lose(&mut self, change: &Change) -> Result<(), Failure> {
        for (resource, name) in &change.needs {
            self.tools.state.lose(&change.home.account_id, found(*resource), name)?;
            self.ids.remove(&(change.home.account_id.clone(), *resource, name.clone()));
        }
        Ok(())
    }

    /// Keeps an id.
    fn know(&mut self, account: &str, resource: Resource, name: String, id: String) -> Result<(), Failure> {
        self.tools.state.keep(account, found(resource), &name, &id)?;
        self.ids.insert((account.to_owned(), resource, name), id);
        Ok(())
    }

    /// Writes the hosts of a wave, after its uploads: what leads to another worker is written over, and what nobody has any more
    /// is removed.
    pub(super) fn hosts(&mut self, wave: usize) -> Result<(), Failure> {
        let plan = self.plan;
        let mut tables: BTreeMap<(Table, bool), Vec<&HostChange>> = BTreeMap::new();
        for change in plan.hosts.iter().filter(|change| change.wave == wave) {
            // A host leads to no worker that isn't there.
            let is_there = match &change.to {
                Some(worker) => self.tools.state.one(&(change.home.clone(), worker.clone()))?.is_some(),
                None => true,
            };
            if is_there && self.outcome.halted.is_none() {
                tables.entry((change.id(), change.to.is_none())).or_default().push(change);
            } else {
                self.outcome.hosts_skipped += 1;
            }
        }
        for ((table, removes), changes) in tables {
            let key = (table.account_id.clone(), Resource::Kv, table.title.clone());
            let Some(namespace_id) = self.ids.get(&key).cloned() else {
                let lacking = self.lacking.get(&(table.account_id.clone(), Resource::Kv)).cloned();
                self.outcome.hosts_skipped += changes.len();
                if let Some(why) = lacking {
                    self.hosts_failed(&table, &why);
                }
                continue;
            };
            for changes in changes.chunks(KEYS_PER_CALL) {
                let state = &mut *self.tools.state;
                state.open_batch()?;
                for change in changes {
                    state.doubt_host(&table, &change.host, &change.account, (&change.home, change.to.as_deref()))?;
                }
                state.close_batch()?;
                let namespace_id = namespace_id.clone();
                let call = if removes {
                    Call::DeleteKeys { namespace_id, keys: changes.iter().map(|change| change.host.clone()).collect() }
                } else {
                    let pair = |change: &&HostChange| (change.host.clone(), change.to.clone().unwrap_or_default());
                    Call::PutKeys { namespace_id, pairs: changes.iter().map(pair).collect() }
                };
                match self.ask(&table.account_id, &call)? {
                    Ok(_) => {
                        let state = &mut *self.tools.state;
                        state.open_batch()?;
                        for change in changes {
                            match &change.to {
                                None => state.unlead(&table, &change.host)?,
                                Some(to) => state.lead(&table, &change.host, &change.account, (&change.home, to))?,
                            }
                        }
                        state.close_batch()?;
                        self.outcome.hosts += changes.len();
                    }
                    Err(Undone::Stopped) => self.outcome.hosts_skipped += changes.len(),
                    Err(Undone::Failed(why)) => {
                        self.outcome.hosts_skipped += changes.len();
                        self.hosts_failed(&table, &why);
                    }
                }
            }
        }
        Ok(())
    }

    fn hosts_failed(&mut self, table: &Table, why: &str) {
        self.outcome.failed += 1;
        let (worker, customer) = (format!("the hosts in {}", table.title), String::new());
        self.outcome.failures.push(Failed { worker, customer, error: why.to_owned() });
        self.spend();
    }

    fn ask(&mut self, account: &str, call: &Call) -> Result<Result<Reply, Undone>, Failure> {
        let failed = |error: CallError| Undone::Failed(explained(call, &error));
        Ok(self.ask_once(account, call)?.and_then(|result| result.map_err(failed)))
    }

    /// Makes one request, when the lane allows it, and again where the outcome is unknown.
    fn ask_once(&mut self, account: &str, call: &Call) -> Result<Result<Result<Reply, CallError>, Undone>, Failure> {
        let lane = self.tools.lane_of[account];
        let home = Home { account_id: account.to_owned(), namespace: None };
        let (mut attempts, mut throttled) = (0, 0);
        loop {
            let Some(ticket) = self.permit(lane) else { return Ok(Err(Undone::Stopped)) };
            self.outcome.requests += 1;
            self.tools.pool.submit(NOBODYS, Job::Call(home.clone(), call.clone()));
            let (result, quota) = loop {
                let until = self.tools.clock.now() + LISTEN;
                match self.tools.pool.wait(until).pop() {
                    Some((_, Answer::Called(result, quota, _))) => break (result, quota),
                    Some(_) => unreachable!("BUG: only a call was made"),
                    None => {}
                }
            };
            let of_lane = std::sync::Arc::clone(&self.queues[lane].lane);
            self.answer_lane(&of_lane, ticket, &result, quota.as_ref());
            match result {
                Err(CallError::Throttled { .. }) if throttled + 1 < THROTTLED_ATTEMPTS => throttled += 1,
                Err(CallError::Unavailable(message)) => {
                    attempts += 1;
                    if attempts >= ATTEMPTS {
                        let told = format!("{message}, {ATTEMPTS} times in a row");
                        return Ok(Ok(Err(CallError::Unavailable(told))));
                    }
                    self.pause(BACKOFF * 2u32.pow(attempts - 1));
                }
                Err(CallError::Rejected { code: CONCURRENT_CHANGE, .. }) if attempts + 1 < ATTEMPTS => {
                    attempts += 1;
                    self.pause(BACKOFF * 2u32.pow(attempts - 1));
                }
                other => return Ok(Ok(other)),
            }
        }
    }

    /// A permit of a lane; nothing, if the deploy is stopped before there is one.
    fn permit(&mut self, lane: usize) -> Option<Ticket> {
        loop {
            self.listen();
            match self.order {
                Order::Stop => return None,
                Order::Pause => drop(self.tools.pool.wait(self.tools.clock.now() + LISTEN)),
                Order::Go => match self.queues[lane].lane.try_acquire() {
                    Ok(ticket) => return Some(ticket),
                    Err(wait) => drop(self.tools.pool.wait(self.tools.clock.now() + wait.min(LISTEN))),
                },
            }
        }
    }

    fn pause(&mut self, wait: Duration) {
        self.outcome.retries += 1;
        let end = self.tools.clock.now() + wait;
        while self.tools.clock.now() < end && self.order != Order::Stop {
            // Nothing is in flight, so nothing is answered.
            drop(self.tools.pool.wait(end.min(self.tools.clock.now() + LISTEN)));
            self.listen();
        }
    }
}

/// What the platform said, and what to do where that is known.
fn explained(call: &Call, error: &CallError) -> String {
    let denied = matches!(error, CallError::Rejected { status: 401 | 403, .. } | CallError::Unauthorized(_));
    let permission = match call {
        Call::ListDatabases { .. } => "D1: Edit",
        _ => "Workers KV Storage: Edit",
    };
    match denied {
        true => format!("{error}; does the token have the permission `{permission}`?"),
        false => error.to_string(),
    }
}
