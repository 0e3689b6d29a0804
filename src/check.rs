//! What only the whole fleet shows: one thing claimed by two workers, an account that is too full. Pure; checks push
//! diagnostics and never stop early.

use std::collections::BTreeMap;

use crate::customer::Worker;
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::limits;
use crate::project::Fleet;
use crate::resolve::{Claim, Thing};

/// Two claims of one thing: a diagnostic at each place where it is claimed. Sorts the claims.
pub fn claims(claims: &mut [Claim]) -> Vec<Diagnostic> {
    claims.sort_unstable();
    claims.chunk_by(|a, b| a.thing == b.thing).filter(|group| group.len() > 1).flat_map(contested).collect()
}

fn contested(group: &[Claim]) -> impl Iterator<Item = Diagnostic> {
    group.iter().enumerate().filter_map(|(at, claim)| {
        // The one that is at another place, if there is one: that is where people have to look.
        let elsewhere = group.iter().find(|other| other.place != claim.place);
        let other = elsewhere.unwrap_or(&group[usize::from(at == 0)]);
        let own = other.by.customer == claim.by.customer;
        if own && !matches!(claim.thing, Thing::Route(_)) && other.by.environment == claim.by.environment {
            // Two files of one id, or one entry twice: told of the files, and by the schema.
            return None;
        }
        if elsewhere.is_none() && at > 0 {
            // Told once, at the one place.
            return None;
        }
        let whose = if own && other.by.environment == claim.by.environment {
            "twice by this worker".to_owned()
        } else if elsewhere.is_none() {
            let environments: Vec<String> = group.iter().map(|claim| claim.by.environment.to_string()).collect();
            format!("by each environment: {}", environments.join(", "))
        } else if own {
            format!("by the {} worker", other.by.environment)
        } else {
            format!("by {} ({})", other.by.customer, other.by.environment)
        };
        let (code, what) = match &claim.thing {
            Thing::Domain(domain) => (Code::DuplicateDomain, format!("the domain `{domain}`")),
            Thing::Route(pattern) => (Code::DuplicateRoute, format!("the route `{pattern}`")),
            Thing::WorkerName { name, .. } => (Code::DuplicateWorkerName, format!("the worker name `{name}`")),
        };
        let also = if elsewhere.is_some() { format!("; the other claim is at {}", other.place) } else { String::new() };
        let help = if own && other.by.environment == claim.by.environment {
            format!("keep one of the two{also}")
        } else if own && code != Code::DuplicateWorkerName {
            let key = if code == Code::DuplicateDomain { "domains" } else { "routes" };
            format!("give each its own: `environments: {{ {}: {{ {key}: […] }} }}`{also}", group[0].by.environment)
        } else if code == Code::DuplicateWorkerName {
            format!("rename one of the customers, or change `workerName` in fleet.yaml{also}")
        } else {
            format!("only one worker can have it{also}")
        };
        let is =
            if elsewhere.is_none() || (own && other.by.environment == claim.by.environment) { "is claimed" } else { "is also claimed" };
        Some(Diagnostic::error(code, claim.place.clone(), format!("{what} {is} {whose}"), help))
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
                // The key of the account, if it is written out.
                let (accounts, written) = fleet.document.root.along(["accounts"]);
                let place = match accounts.key_span(account).filter(|_| written) {
                    Some(span) => fleet.document.place(span),
                    None => Place::file(&fleet.document.file),
                };
                Diagnostic::error(
                    Code::TooManyWorkers,
                    place,
                    format!("{count} workers in the account `{account}`, which holds {limit}"),
                    "set `dispatchNamespace` (Workers for Platforms, no limit), spread the customers over accounts, or set \
                     `workerLimit` if Cloudflare raised yours",
                )
            })
        })
        .collect()
}
