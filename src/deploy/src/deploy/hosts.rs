//! Writes the hosts of dispatch workers, thousands in a request: after a wave's uploads, and before its deletions. Knows which
//! hosts are to be written only from the plan.

use std::collections::BTreeMap;

use super::Failed;
use super::index::{HostWriteId, WaveIndex};
use super::lookups::explained;
use super::problem::Problem;
use super::run::{Phase, Run};
use super::schedule::{Delivery, RequestId, RequestState};
use crate::plan::HostChange;
use crate::state::{ResourceKind, Table};
use flotilla_model::bundle::Resource;
use flotilla_model::failure::Failure;
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

impl<'p> Run<'p> {
    /// Writes the hosts of a wave: a host that moves is overwritten, and an orphaned one is removed.
    pub(super) fn write_hosts(&mut self, wave: WaveIndex) -> Result<(), Failure> {
        for ((table, _), changes) in self.hosts_by_table(wave)? {
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
            // A host never leads to a worker that doesn't exist.
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
