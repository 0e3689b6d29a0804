//! What only the whole fleet shows: one thing claimed by two workers, an account that is too full. Pure; checks push
//! diagnostics and never stop early.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::customer::Worker;
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::limits;
use crate::names::{self, own_secret};
use crate::project::Fleet;
use crate::resolve::{Claim, Thing};

/// Two claims of one thing: a diagnostic at each place where it is claimed, and who is held for it. Sorts the claims.
pub fn claims(claims: &mut [Claim]) -> Vec<Contest> {
    claims.sort_unstable();
    claims.chunk_by(|a, b| a.thing == b.thing).filter(|group| group.len() > 1).flat_map(contested).collect()
}

/// A claim that can't be granted.
pub struct Contest {
    /// The customer whose claim it is.
    pub customer: String,
    /// What is wrong; none where it is told at another claim of the same place.
    pub diagnostic: Option<Diagnostic>,
}

/// So many other claims are shown with each; more would bury the one that is meant.
const OTHERS: usize = 3;

fn contested(group: &[Claim]) -> Vec<Contest> {
    let told = |claim: &Claim, diagnostic| Contest { customer: claim.by.customer.clone(), diagnostic };
    match &group[0].thing {
        Thing::Secrets(owner) => {
            // Whose they are is never at fault.
            let Some(own) = group.iter().find(|claim| own_secret(&claim.by.customer, "") == *owner) else {
                return Vec::new();
            };
            let others = group.iter().filter(|claim| claim.by.customer != own.by.customer);
            return others.map(|claim| told(claim, Some(foreign(claim, own)))).collect();
        }
        Thing::Database(_) if group.iter().all(|claim| claim.by.customer == group[0].by.customer) => return Vec::new(),
        _ => {}
    }
    let places: Vec<&[Claim]> = group.chunk_by(|a, b| a.place == b.place).collect();
    match places.as_slice() {
        // Told once, at the one place.
        [_] => match shared(group) {
            None => Vec::new(),
            Some(diagnostic) => {
                let mut first = Some(diagnostic);
                group.iter().map(|claim| told(claim, first.take())).collect()
            }
        },
        places => group.iter().filter_map(|claim| Some(told(claim, Some(rival(claim, places)?)))).collect(),
    }
}

/// One place that claims a thing for several workers: a customer's environments, or all customers by a default.
fn shared(group: &[Claim]) -> Option<Diagnostic> {
    let (first, last) = (group.first()?, group.last()?);
    let (code, what) = named(&first.thing);
    let (whose, help) = if first.by == last.by {
        // One entry twice is the schema's to tell; a worker's name and a domain are claimed once by each worker.
        matches!(first.thing, Thing::Route(_)).then(|| ("twice by this worker".to_owned(), keep_one()))?
    } else if first.by.customer == last.by.customer && first.by.role == last.by.role {
        let environments: Vec<String> = group.iter().map(|claim| claim.by.environment.to_string()).collect();
        (format!("by each environment: {}", environments.join(", ")), own_each(code, first))
    } else {
        let some: Vec<String> = group.iter().take(OTHERS).map(|claim| claim.by.to_string()).collect();
        let more = if group.len() > OTHERS { ", …" } else { "" };
        let help = if first.by.customer == last.by.customer {
            format!(
                "give each worker its own: `workers: {{ {}: {{ {}: […] }} }}`",
                first.by.role.as_deref().unwrap_or("web"),
                key(code)
            )
        } else {
            "give each customer its own".to_owned()
        };
        (format!("by {} workers: {}{more}", group.len(), some.join(", ")), help)
    };
    Some(Diagnostic::error(code, first.place.clone(), format!("{what} is claimed {whose}"), help))
}

/// One claim of a thing that is claimed at other places, too.
fn rival(claim: &Claim, places: &[&[Claim]]) -> Option<Diagnostic> {
    let rivals = |other: &&Claim| {
        other.place != claim.place
            && (!matches!(claim.thing, Thing::Database(_)) || other.by.customer != claim.by.customer)
    };
    let elsewhere = || places.iter().map(|here| &here[0]).filter(rivals);
    let other = elsewhere().next()?;
    let own = other.by.customer == claim.by.customer;
    let twice = other.by == claim.by;
    if twice && !matches!(claim.thing, Thing::Route(_)) {
        // Two files of one id, or one entry twice: told of the files, and by the schema.
        return None;
    }
    let (code, what) = named(&claim.thing);
    let message = if twice {
        format!("{what} is claimed twice by this worker")
    } else if own {
        format!("{what} is also claimed by the {} worker", other.by.own())
    } else {
        format!("{what} is also claimed by {}", other.by)
    };
    let help = if twice {
        keep_one()
    } else if code == Code::DuplicateWorkerName {
        "rename one of the customers, or change `workerName` in fleet.yaml".to_owned()
    } else if code == Code::SharedDatabase {
        "each customer has a database of its own; give one of them another".to_owned()
    } else if own && other.by.role == claim.by.role {
        own_each(code, places[0].first()?)
    } else {
        "only one worker can have it".to_owned()
    };
    let diagnostic = Diagnostic::error(code, claim.place.clone(), message, help);
    Some(elsewhere().take(OTHERS).fold(diagnostic, |diagnostic, other| {
        let label = match (other.by == claim.by, other.by.customer == claim.by.customer) {
            (true, _) => "claimed here, too".to_owned(),
            (_, true) => format!("claimed here by the {} worker", other.by.own()),
            _ => format!("claimed here by {}", other.by),
        };
        diagnostic.also(other.place.clone(), label)
    }))
}

/// A reference to a secret that is another customer's.
fn foreign(claim: &Claim, own: &Claim) -> Diagnostic {
    let Thing::Secrets(owner) = &claim.thing else { unreachable!("BUG: only secrets are foreign") };
    let message = format!("secrets whose names begin with `{owner}` are those of {}", own.by.customer);
    let help = "write the name without the customer: it is looked up as CUSTOMER__NAME first, and then as NAME";
    Diagnostic::error(Code::ForeignSecret, claim.place.clone(), message, help).also(own.place.clone(), "whose they are")
}

fn named(thing: &Thing) -> (Code, String) {
    match thing {
        Thing::Domain(domain) => (Code::DuplicateDomain, format!("the domain `{domain}`")),
        Thing::Route(pattern) => (Code::DuplicateRoute, format!("the route `{pattern}`")),
        Thing::WorkerName { name, .. } => (Code::DuplicateWorkerName, format!("the worker name `{name}`")),
        Thing::Database(database) => (Code::SharedDatabase, format!("the database `{database}`")),
        Thing::Secrets(owner) => (Code::ForeignSecret, format!("the secrets `{owner}…`")),
    }
}

fn key(code: Code) -> &'static str {
    match code {
        Code::DuplicateDomain => "domains",
        Code::SharedDatabase => "database",
        _ => "routes",
    }
}

fn keep_one() -> String {
    "keep one of the two".to_owned()
}

fn own_each(code: Code, first: &Claim) -> String {
    format!("give each its own: `environments: {{ {}: {{ {}: […] }} }}`", first.by.environment, key(code))
}

/// What of a worker counts against the limits of its account and its zones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// The account's name.
    account: String,
    /// Whether it is in a dispatch namespace, where the number of workers has no limit.
    namespaced: bool,
    /// Its crons.
    crons: u32,
    /// Its custom domains and routes, by zone.
    zones: Vec<(String, u32, u32)>,
}

impl Counted {
    /// Counts a worker.
    pub fn of(worker: &Worker) -> Counted {
        let mut zones: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for domain in &worker.domains {
            zones.entry(names::zone_of(domain).to_owned()).or_default().0 += 1;
        }
        for route in &worker.routes {
            zones.entry(route.zone.clone()).or_default().1 += 1;
        }
        Counted {
            account: worker.account.clone(),
            namespaced: worker.namespace.is_some(),
            crons: u32::try_from(worker.crons.len()).unwrap_or(u32::MAX),
            zones: zones.into_iter().map(|(zone, (domains, routes))| (zone, domains, routes)).collect(),
        }
    }
}

/// What counts against the limits of accounts and zones, of many workers.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Workers outside of namespaces, and crons, by account.
    accounts: BTreeMap<String, (u32, u32)>,
    /// Custom domains and routes, by zone.
    zones: BTreeMap<String, (u32, u32)>,
}

impl Tally {
    /// Adds a worker.
    pub fn add(&mut self, one: &Counted) {
        let entry = match self.accounts.get_mut(&one.account) {
            Some(entry) => entry,
            None => self.accounts.entry(one.account.clone()).or_default(),
        };
        entry.0 += u32::from(!one.namespaced);
        entry.1 += one.crons;
        for (zone, domains, routes) in &one.zones {
            let entry = match self.zones.get_mut(zone) {
                Some(entry) => entry,
                None => self.zones.entry(zone.clone()).or_default(),
            };
            entry.0 += domains;
            entry.1 += routes;
        }
    }

    /// Adds another tally.
    #[must_use]
    pub fn and(mut self, other: Tally) -> Tally {
        for (account, (workers, crons)) in other.accounts {
            let entry = self.accounts.entry(account).or_default();
            entry.0 += workers;
            entry.1 += crons;
        }
        for (zone, (domains, routes)) in other.zones {
            let entry = self.zones.entry(zone).or_default();
            entry.0 += domains;
            entry.1 += routes;
        }
        self
    }

    /// The limits that are passed.
    pub fn passed(&self, fleet: &Fleet) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for (account, (workers, _)) in &self.accounts {
            let limit = fleet.accounts.get(account).and_then(|account| account.worker_limit);
            let limit = limit.map_or(limits::WORKERS_PER_ACCOUNT, |limit| limit as usize);
            if *workers as usize > limit {
                found.push(Diagnostic::error(
                    Code::TooManyWorkers,
                    account_place(fleet, account),
                    format!("{workers} workers in the account `{account}`, which holds {limit}"),
                    "set `dispatchNamespace` (Workers for Platforms, no limit), spread the customers over accounts, or set \
                     `workerLimit` if Cloudflare raised yours",
                ));
            }
        }
        found
    }
}

/// The key of an account, if it is written out.
fn account_place(fleet: &Fleet, account: &str) -> Place {
    let (accounts, written) = fleet.document.root.along(["accounts"]);
    match accounts.key_span(account).filter(|_| written) {
        Some(span) => fleet.document.place(span),
        None => Place::file(&fleet.document.file),
    }
}
