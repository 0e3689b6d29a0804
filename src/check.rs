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

/// So many other claims are shown with each; more would bury the one that is meant.
const OTHERS: usize = 3;

fn contested(group: &[Claim]) -> Vec<Diagnostic> {
    let places: Vec<&[Claim]> = group.chunk_by(|a, b| a.place == b.place).collect();
    match places.as_slice() {
        // Told once, at the one place.
        [_] => shared(group).into_iter().collect(),
        places => group.iter().filter_map(|claim| rival(claim, places)).collect(),
    }
}

/// One place that claims a thing for several workers: a customer's environments, or all customers by a default.
fn shared(group: &[Claim]) -> Option<Diagnostic> {
    let (first, last) = (group.first()?, group.last()?);
    let (code, what) = named(&first.thing);
    let (whose, help) = if first.by == last.by {
        // One entry twice is the schema's to tell; a worker's name and a domain are claimed once by each worker.
        matches!(first.thing, Thing::Route(_)).then(|| ("twice by this worker".to_owned(), keep_one()))?
    } else if first.by.0 == last.by.0 {
        let environments: Vec<String> = group.iter().map(|claim| claim.by.1.to_string()).collect();
        (format!("by each environment: {}", environments.join(", ")), own_each(code, first))
    } else {
        let by = |claim: &Claim| format!("{} ({})", claim.by.0, claim.by.1);
        let some: Vec<String> = group.iter().take(OTHERS).map(by).collect();
        let more = if group.len() > OTHERS { ", …" } else { "" };
        (format!("by {} workers: {}{more}", group.len(), some.join(", ")), "give each customer its own".to_owned())
    };
    Some(Diagnostic::error(code, first.place.clone(), format!("{what} is claimed {whose}"), help))
}

/// One claim of a thing that is claimed at other places, too.
fn rival(claim: &Claim, places: &[&[Claim]]) -> Option<Diagnostic> {
    let elsewhere = || places.iter().map(|here| &here[0]).filter(|other| other.place != claim.place);
    let other = elsewhere().next()?;
    let own = other.by.0 == claim.by.0;
    let twice = other.by == claim.by;
    if twice && !matches!(claim.thing, Thing::Route(_)) {
        // Two files of one id, or one entry twice: told of the files, and by the schema.
        return None;
    }
    let (code, what) = named(&claim.thing);
    let message = if twice {
        format!("{what} is claimed twice by this worker")
    } else if own {
        format!("{what} is also claimed by the {} worker", other.by.1)
    } else {
        format!("{what} is also claimed by {} ({})", other.by.0, other.by.1)
    };
    let help = if twice {
        keep_one()
    } else if code == Code::DuplicateWorkerName {
        "rename one of the customers, or change `workerName` in fleet.yaml".to_owned()
    } else if own {
        own_each(code, places[0].first()?)
    } else {
        "only one worker can have it".to_owned()
    };
    let diagnostic = Diagnostic::error(code, claim.place.clone(), message, help);
    Some(elsewhere().take(OTHERS).fold(diagnostic, |diagnostic, other| {
        let label = match (other.by == claim.by, other.by.0 == claim.by.0) {
            (true, _) => "claimed here, too".to_owned(),
            (_, true) => format!("claimed here by the {} worker", other.by.1),
            _ => format!("claimed here by {} ({})", other.by.0, other.by.1),
        };
        diagnostic.also(other.place.clone(), label)
    }))
}

fn named(thing: &Thing) -> (Code, String) {
    match thing {
        Thing::Domain(domain) => (Code::DuplicateDomain, format!("the domain `{domain}`")),
        Thing::Route(pattern) => (Code::DuplicateRoute, format!("the route `{pattern}`")),
        Thing::WorkerName { name, .. } => (Code::DuplicateWorkerName, format!("the worker name `{name}`")),
    }
}

fn keep_one() -> String {
    "keep one of the two".to_owned()
}

fn own_each(code: Code, first: &Claim) -> String {
    let key = if code == Code::DuplicateDomain { "domains" } else { "routes" };
    format!("give each its own: `environments: {{ {}: {{ {key}: […] }} }}`", first.by.1)
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
