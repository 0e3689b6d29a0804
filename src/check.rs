//! What only the whole fleet shows: one thing claimed by two workers, an account that is too full. Pure; checks push
//! diagnostics and never stop early.

use std::collections::BTreeMap;

use crate::customer::Worker;
use crate::diagnostic::{Code, Diagnostic};
use crate::limits;
use crate::project::Fleet;
use crate::resolve::{Claim, Thing};

/// Two claims of one thing: a diagnostic at each of them. Sorts the claims.
pub fn claims(claims: &mut [Claim]) -> Vec<Diagnostic> {
    claims.sort_unstable();
    claims.chunk_by(|a, b| a.thing == b.thing).filter(|group| group.len() > 1).flat_map(contested).collect()
}

fn contested(group: &[Claim]) -> impl Iterator<Item = Diagnostic> {
    group.iter().enumerate().map(|(at, claim)| {
        let other = &group[usize::from(at == 0)];
        let whose = if other.by.0 == claim.by.0 {
            format!("by its own {} worker", other.by.1)
        } else {
            format!("by {} ({})", other.by.0, other.by.1)
        };
        let (code, what) = match &claim.thing {
            Thing::Domain(domain) => (Code::DuplicateDomain, format!("the domain `{domain}`")),
            Thing::Route(pattern) => (Code::DuplicateRoute, format!("the route `{pattern}`")),
            Thing::WorkerName { name, .. } => (Code::DuplicateWorkerName, format!("the worker name `{name}`")),
        };
        let help = if other.by.0 == claim.by.0 && code != Code::DuplicateWorkerName {
            format!("give each environment its own, under `environments`; the other claim is at {}", other.place)
        } else if code == Code::DuplicateWorkerName {
            format!(
                "rename one of the customers, or change `workerName` in fleet.yaml; the other claim is at {}",
                other.place
            )
        } else {
            format!("only one worker can have it; the other claim is at {}", other.place)
        };
        Diagnostic::error(code, claim.place.clone(), format!("{what} is also claimed {whose}"), help)
    })
}

/// Accounts with more workers than they hold.
pub fn accounts(fleet: &Fleet, workers: &[Worker]) -> Vec<Diagnostic> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for worker in workers.iter().filter(|worker| worker.namespace.is_none()) {
        *counts.entry(&worker.account).or_default() += 1;
    }
    counts
        .into_iter()
        .filter_map(|(account, count)| {
            let limit = fleet.accounts.get(account).and_then(|account| account.worker_limit);
            let limit = limit.map_or(limits::WORKERS_PER_ACCOUNT, |limit| limit as usize);
            (count > limit).then(|| {
                Diagnostic::error(
                    Code::TooManyWorkers,
                    fleet.document.place_of(["accounts", account]),
                    format!("{count} workers in the account `{account}`, which holds {limit}"),
                    "set `dispatchNamespace` (Workers for Platforms, no limit), spread the customers over accounts, or set \
                     `workerLimit` if Cloudflare raised yours",
                )
            })
        })
        .collect()
}
