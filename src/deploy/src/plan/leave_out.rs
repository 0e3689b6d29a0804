//! Leaves changes out of a finished plan, with those that need them.

use std::collections::{HashMap, HashSet};

use flotilla_model::failure::Failure;

use super::transfers::{Moment, Transfer, Transfers};
use super::{Change, Plan, Step, databases, outside};
use crate::state::WorkerId;

impl Plan {
    /// Removes changes, for reasons by worker, and with them the changes that need theirs: those of workers that call a removed one which
    /// isn't deployed, those that take a host from a removed one, and those that release a host for a removed one. Returns the removed
    /// changes with their reasons; the requested ones come first. `is_live`: whether a worker is deployed.
    ///
    /// # Errors
    /// Those of `is_live`.
    pub fn leave_out(
        &mut self,
        reasons: &HashMap<WorkerId, String>,
        is_live: &mut dyn FnMut(&WorkerId) -> Result<bool, Failure>,
    ) -> Result<Vec<(Change, String)>, Failure> {
        let mut removed: Vec<(Change, String)> = Vec::new();
        let transfers = Transfers::of_plan(&self.changes);
        let ids: Vec<WorkerId> =
            if transfers.all().is_empty() { Vec::new() } else { self.changes.iter().map(Change::id).collect() };
        let ends = |transfer: &Transfer| (ids[transfer.taker].clone(), ids[transfer.giver].clone());
        let transfers: Vec<_> = transfers.all().iter().map(|transfer| (ends(transfer), transfer)).collect();
        let mut next = reasons.clone();
        while !next.is_empty() {
            let (kept, gone): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.changes).into_iter().partition(|change| !next.contains_key(&change.id()));
            self.changes = kept;
            removed
                .extend(gone.into_iter().filter_map(|change| next.remove(&change.id()).map(|reason| (change, reason))));
            let ids: HashSet<WorkerId> = removed.iter().map(|(change, _)| change.id()).collect();
            next.clear();
            for change in &self.changes {
                let other = |worker: &String| (outside(&change.home), worker.clone());
                for callee in change.refers.iter().filter(|_| change.steps.contains(&Step::Upload)) {
                    if ids.contains(&other(callee)) && !is_live(&other(callee))? {
                        let refers = if change.calls.contains(callee) { "calls" } else { "is bound to" };
                        let why = format!("it {refers} {callee}, which isn't deployed, and was skipped");
                        next.insert(change.id(), why);
                    }
                }
            }
            let gone = |id: &WorkerId| ids.contains(id);
            for ((taker, giver), transfer) in &transfers {
                let host = transfer.from.text();
                match (gone(taker), gone(giver)) {
                    (false, true) => {
                        let why = format!("{host} still belongs to {}, which was skipped", giver.1);
                        next.insert(taker.clone(), why);
                    }
                    (true, false) if transfer.moment != Moment::Move => {
                        let why = format!("{host} moves to {}, which was skipped", taker.1);
                        next.insert(giver.clone(), why);
                    }
                    _ => {}
                }
            }
        }
        // A host never points to a worker that doesn't exist or is incomplete.
        let is_removed =
            |home: &_, worker: &String| removed.iter().any(|(c, _)| c.home == *home && c.worker == *worker);
        databases::leave_out(&mut self.databases, &removed);
        self.hosts.retain(|host| !host.to.as_ref().is_some_and(|to| is_removed(&host.home, to)));
        Ok(removed)
    }
}
