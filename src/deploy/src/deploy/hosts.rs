//! Writes the hosts of dispatch workers, thousands in a request: after a wave's uploads, and before its deletions. Knows which
//! hosts are to be written only from the plan.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Failed;
use super::index::{HostWriteId, LookupId, WaveIndex};
use super::lookups::{Target, explained};
use super::problem::{NextStep, Problem};
use super::run::{Phase, Run};
use super::schedule::{Delivery, RequestId, RequestState};
use crate::plan::{HostChange, READ_ONE_BY_ONE};
use crate::state::{ResourceKind, Table};
use flotilla_model::bundle::Resource;
use flotilla_model::failure::Failure;
use flotilla_model::paging::{Page, Pages, Progress};
use flotilla_model::platform::{Call, CallError, KEYS_PER_CALL, Reply};

/// A request that writes hosts.
pub(super) struct HostWrite<'p> {
    /// The table that they are written to.
    pub table: Table,
    namespace_id: String,
    /// The hosts: all of them are pointed to a worker, or all of them are removed.
    changes: Vec<&'p HostChange>,
    /// Its request.
    pub delivery: Delivery,
}

impl HostWrite<'_> {
    /// Returns its request.
    pub fn call(&self) -> Call {
        let namespace_id = self.namespace_id.clone();
        if self.changes.iter().any(|change| change.to.is_none()) {
            let keys = self.changes.iter().map(|change| change.host.clone()).collect();
            return Call::DeleteKeys { namespace_id, keys };
        }
        let pair = |change: &&HostChange| (change.host.clone(), change.to.clone().unwrap_or_default());
        Call::PutKeys { namespace_id, pairs: self.changes.iter().map(pair).collect() }
    }
}

/// A list of the keys of a KV namespace, of which those are read that are among the hosts.
pub(super) struct HostKeys {
    table: Table,
    namespace_id: String,
    /// The hosts that are about to be written, each with the worker that it pointed to and the one that it is to point to.
    hosts: BTreeMap<String, HostChange>,
    page: Page,
    pages: Pages<(String, String)>,
}

impl HostKeys {
    /// Returns its next request.
    pub fn call(&self) -> Call {
        Call::ListKeys { namespace_id: self.namespace_id.clone(), page: self.page.clone() }
    }
}

/// A host whose present value is read.
pub(super) struct HostValue {
    table: Table,
    namespace_id: String,
    change: HostChange,
}

impl HostValue {
    /// Returns its request.
    pub fn call(&self) -> Call {
        Call::ReadKey { namespace_id: self.namespace_id.clone(), key: self.change.host.clone() }
    }

    /// Names it among the requests in flight.
    pub fn key(&self) -> &str {
        &self.change.host
    }
}

/// The reasons why hosts of a wave aren't written.
#[derive(Default)]
pub(super) struct KeptHosts {
    /// By table and host.
    hosts: HashMap<(Table, String), Problem>,
    /// The tables that can't be read.
    tables: HashMap<Table, Problem>,
}

impl<'p> Run<'p> {
    /// Writes the hosts of a wave: a host that moves is overwritten, and an orphaned one is removed.
    pub(super) fn write_hosts(&mut self, wave: WaveIndex) -> Result<(), Failure> {
        let tables = self.hosts_by_table(wave)?;
        let kept = self.look_at_hosts(&tables)?;
        for ((table, _), changes) in tables {
            let changes = self.without_kept(&table, changes, &kept)?;
            let account_id = &table.account_id;
            let Some(namespace_id) = self.ids.get(account_id, ResourceKind::KeyValue, &table.title).cloned() else {
                self.outcome.hosts_skipped += changes.len();
                if let Some(why) = self.unavailable.get(&(account_id.clone(), Resource::Kv)).cloned() {
                    self.report_failed_hosts(&table, why);
                }
                continue;
            };
            for changes in changes.chunks(KEYS_PER_CALL) {
                self.schedule.add_host_write(HostWrite {
                    table: table.clone(),
                    namespace_id: namespace_id.clone(),
                    changes: changes.to_vec(),
                    delivery: Delivery::new(self.ctx.lane_of[account_id]),
                });
            }
        }
        self.run_phase(Phase::Apply)?;
        self.schedule.clear_host_writes();
        Ok(())
    }

    /// The hosts of a wave that can be written, by table; those that are removed apart, and last.
    fn hosts_by_table(&mut self, wave: WaveIndex) -> Result<BTreeMap<(Table, bool), Vec<&'p HostChange>>, Failure> {
        let plan = self.plan;
        let mut tables: BTreeMap<(Table, bool), Vec<&HostChange>> = BTreeMap::new();
        for change in plan.hosts.iter().filter(|change| change.wave == wave.place()) {
            // A host never points to a worker that doesn't exist.
            let exists = match &change.to {
                Some(worker) => self.ctx.state.one(&(change.home.clone(), worker.clone()))?.is_some(),
                None => true,
            };
            if exists && self.outcome.halted.is_none() {
                tables.entry((change.id(), change.to.is_none())).or_default().push(change);
            } else {
                self.outcome.hosts_skipped += 1;
            }
        }
        Ok(tables)
    }

    /// Reads what the hosts of a wave point to right before they are written: hosts that somebody else pointed elsewhere in the meantime
    /// stay. Few hosts are read one by one; of more, the keys are listed, and those are read that exist and that the state doesn't know to
    /// be this fleet's.
    fn look_at_hosts(&mut self, tables: &BTreeMap<(Table, bool), Vec<&'p HostChange>>) -> Result<KeptHosts, Failure> {
        self.kept_hosts = KeptHosts::default();
        if self.ctx.ownership.is_none() || tables.is_empty() || self.is_halted_or_stopped() {
            return Ok(KeptHosts::default());
        }
        let mut all: BTreeMap<&Table, Vec<&HostChange>> = BTreeMap::new();
        for ((table, _), changes) in tables {
            all.entry(table).or_default().extend(changes);
        }
        let recorded = match all.values().any(|changes| changes.len() > READ_ONE_BY_ONE) {
            true => self.ctx.state.hosts()?,
            false => BTreeMap::new(),
        };
        for (table, changes) in all {
            let Some(namespace_id) = self.ids.get(&table.account_id, ResourceKind::KeyValue, &table.title).cloned()
            else {
                continue;
            };
            if changes.len() <= READ_ONE_BY_ONE {
                for change in changes {
                    self.read_host(table, &namespace_id, change);
                }
                continue;
            }
            let is_sure = |change: &&&HostChange| {
                let lead = recorded.get(&(table.clone(), change.host.clone()));
                lead.is_some_and(|lead| lead.sure && lead.worker.is_some())
            };
            let unsure = changes.iter().filter(|change| !is_sure(change));
            let hosts = unsure.map(|change| (change.host.clone(), (*change).clone())).collect();
            let (table, page, pages) = (table.clone(), Page::First, Pages::default());
            let account_id = table.account_id.clone();
            let keys = HostKeys { table, namespace_id, hosts, page, pages };
            if !keys.hosts.is_empty() {
                let id = self.add_lookup(&account_id, Target::HostKeys(keys));
                self.schedule.queue_request(RequestId::Lookup(id));
            }
        }
        self.run_phase(Phase::Apply)?;
        Ok(std::mem::take(&mut self.kept_hosts))
    }

    fn read_host(&mut self, table: &Table, namespace_id: &str, change: &HostChange) {
        let value = HostValue { table: table.clone(), namespace_id: namespace_id.to_owned(), change: change.clone() };
        let id = self.add_lookup(&table.account_id, Target::HostValue(value));
        self.schedule.queue_request(RequestId::Lookup(id));
    }

    /// Handles a page of a KV namespace's keys.
    pub(super) fn on_host_keys(&mut self, id: LookupId, result: Result<Reply, CallError>) {
        let Target::HostKeys(keys) = &mut self.schedule.lookup(id).target else {
            unreachable!("BUG: only a list of keys has such pages")
        };
        let table = keys.table.clone();
        let why = match result {
            Ok(Reply::Names(listed)) => match keys.pages.add(listed) {
                Ok(Progress::Next(page)) => {
                    keys.page = page;
                    self.schedule.continue_lookup(id);
                    return;
                }
                Ok(Progress::Whole(listed)) => {
                    let namespace_id = keys.namespace_id.clone();
                    let hosts = std::mem::take(&mut keys.hosts);
                    let there: BTreeSet<String> = listed.into_iter().map(|(key, _)| key).collect();
                    for change in hosts.values().filter(|change| there.contains(&change.host)) {
                        self.read_host(&table, &namespace_id, change);
                    }
                    self.schedule.end_lookup(id, RequestState::Succeeded);
                    return;
                }
                Err(unsteady) => NextStep::Retry.because(unsteady.to_string()),
            },
            Ok(other) => unreachable!("BUG: {other:?} is no list of keys"),
            Err(error) => explained(&keys.call(), &error),
        };
        self.kept_hosts.tables.insert(table, why.clone());
        self.schedule.fail_lookup(id, why);
    }

    /// Handles the present value of a host: another fleet's worker keeps it.
    pub(super) fn on_host_value(&mut self, id: LookupId, result: Result<Reply, CallError>) -> Result<(), Failure> {
        let Target::HostValue(HostValue { table, change, .. }) = &self.schedule.lookup(id).target else {
            unreachable!("BUG: only a host has such a value")
        };
        let (table, change) = (table.clone(), change.clone());
        let key = (table, change.host.clone());
        let holder = match result {
            Ok(Reply::Value(holder)) => holder,
            Ok(_) => {
                self.schedule.end_lookup(id, RequestState::Succeeded);
                return Ok(());
            }
            Err(error) => {
                let why = explained(&self.schedule.lookup(id).call(None), &error);
                self.kept_hosts.hosts.insert(key, why.clone());
                self.schedule.fail_lookup(id, why);
                return Ok(());
            }
        };
        if !self.may_lose_host(&key, &change, &holder)? {
            // A wrong response must not drop anything: the next run checks whose worker that is.
            let why = match &change.to {
                Some(to) => NextStep::Host.because(format!(
                    "{} now points to {holder}, which is not in this fleet's state, and not to {to}; `{{ name: {}, takeOver: true }}` \
                     under `domains` takes it over",
                    change.host, change.host
                )),
                None => NextStep::Retry.because(format!(
                    "{} is not removed: it now points to {holder}, which is not in this fleet's state",
                    change.host
                )),
            };
            self.kept_hosts.hosts.insert(key, why);
        }
        self.schedule.end_lookup(id, RequestState::Succeeded);
        Ok(())
    }

    /// Returns whether a host may be taken from the worker that it points to.
    fn may_lose_host(&self, key: &(Table, String), change: &HostChange, holder: &String) -> Result<bool, Failure> {
        let is_expected = change.from.as_ref() == Some(holder) || change.to.as_ref() == Some(holder);
        let is_allowed = self.ctx.ownership.as_ref().is_some_and(|ownership| {
            ownership.holders.get(key) == Some(holder)
                || change.to.is_some() && ownership.take_over.contains(&(key.0.account_id.clone(), key.1.clone()))
        });
        Ok(is_expected || is_allowed || self.ctx.state.one(&(change.home.clone(), holder.clone()))?.is_some())
    }

    /// Returns the changes of hosts that are written, and reports those that aren't.
    fn without_kept(
        &mut self,
        table: &Table,
        changes: Vec<&'p HostChange>,
        kept: &KeptHosts,
    ) -> Result<Vec<&'p HostChange>, Failure> {
        if let Some(why) = kept.tables.get(table) {
            self.outcome.hosts_skipped += changes.len();
            self.report_failed_hosts(table, why.clone());
            return Ok(Vec::new());
        }
        let mut written = Vec::new();
        for change in changes {
            match kept.hosts.get(&(table.clone(), change.host.clone())) {
                None => written.push(change),
                Some(why) => {
                    self.outcome.hosts_skipped += 1;
                    self.report_failed_hosts(table, why.clone());
                }
            }
        }
        Ok(written)
    }

    /// Notes in the state that hosts are about to be written.
    pub(super) fn begin_host_write(&mut self, id: HostWriteId) -> Result<(), Failure> {
        self.open_notes()?;
        let HostWrite { table, changes, .. } = self.schedule.host_write(id);
        for change in changes.iter() {
            let to = (&change.home, change.to.as_deref());
            self.ctx.state.mark_host_uncertain(table, &change.host, &change.account, to)?;
        }
        Ok(())
    }

    /// Handles the answer to a write of hosts.
    pub(super) fn on_host_answer(&mut self, id: HostWriteId, result: Result<Reply, CallError>) -> Result<(), Failure> {
        let Some(result) = self.handle_transient_error(RequestId::HostWrite(id), result) else { return Ok(()) };
        let write = self.schedule.host_write(id);
        let (table, changes) = (write.table.clone(), std::mem::take(&mut write.changes));
        match result {
            Ok(_) => {
                for change in &changes {
                    match &change.to {
                        None => self.ctx.state.release_host(&table, &change.host)?,
                        Some(to) => {
                            self.ctx.state.point_host(&table, &change.host, &change.account, (&change.home, to))?
                        }
                    }
                }
                self.outcome.hosts += changes.len();
                self.schedule.end(RequestId::HostWrite(id), RequestState::Succeeded);
            }
            Err(error) => {
                write.changes = changes;
                let why = explained(&write.call(), &error);
                self.outcome.hosts_skipped += write.changes.len();
                self.schedule.end(RequestId::HostWrite(id), RequestState::Failed(why.clone()));
                self.report_failed_hosts(&table, why);
            }
        }
        Ok(())
    }

    /// Leaves hosts as they are, because the deploy was stopped.
    pub(super) fn cancel_host_write(&mut self, id: HostWriteId) {
        self.outcome.hosts_skipped += self.schedule.host_write(id).changes.len();
        self.schedule.end(RequestId::HostWrite(id), RequestState::Cancelled);
    }

    fn report_failed_hosts(&mut self, table: &Table, Problem { text: error, next }: Problem) {
        self.outcome.failed += 1;
        let (worker, customer) = (format!("the hosts in {}", table.title), String::new());
        self.outcome.failures.push(Failed { worker, customer, error, next_step: next });
        self.check_failure_budget();
    }
}
