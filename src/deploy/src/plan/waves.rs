//! Assigns changes to the waves of a deploy. Pure: the same changes get the same waves.

use std::collections::{BTreeMap, HashMap};

use super::rank::callees;
use super::{Action, Change, DatabaseChange, handover};
use crate::state::WorkerId;
use flotilla_model::customer::SHARED;
use flotilla_model::digest::Digest;
use flotilla_model::spec::{OneOrMore, WaveRule};

/// A wave: the customers that have its labels, then a number of others, then a share of all.
#[derive(Clone, Debug, Default)]
pub struct Wave {
    /// Its name, shown to people.
    pub name: String,
    /// The labels that its customers have, each with the values that match.
    pub labels: BTreeMap<String, OneOrMore>,
    /// The number of customers that are added.
    pub count: Option<usize>,
    /// The share of all customers that change, in percent, those of the waves before included.
    pub percent: Option<f64>,
}

impl Wave {
    /// Returns the waves of fleet.yaml.
    pub fn of(rules: &[WaveRule]) -> Vec<Wave> {
        let wave = |(at, rule): (usize, &WaveRule)| Wave {
            name: rule.name.clone().unwrap_or_else(|| format!("wave {}", at + 1)),
            labels: rule.labels.clone().unwrap_or_default(),
            count: rule.count,
            percent: rule.percent,
        };
        rules.iter().enumerate().map(wave).collect()
    }

    /// Returns whether a customer belongs to it by its labels.
    pub(super) fn picks(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.labels.is_empty()
            && self.labels.iter().all(|(key, values)| labels.get(key).is_some_and(|label| values.has(label)))
    }
}

/// Sets the wave of each change, and returns the waves' names. A customer's workers stay together, shared workers come first, as do new
/// ones before those that refer to them, and deletions last. A database comes with the first of its customers. Waves without changes are
/// left out.
pub(super) fn assign(waves: &[Wave], changes: &mut [Change], databases: &mut [DatabaseChange]) -> Vec<String> {
    let rest = "the rest".to_owned();
    let mut customers: BTreeMap<&str, usize> = BTreeMap::new();
    let of_changes = changes.iter().filter(|change| change.action != Action::Delete);
    let of_changes = of_changes.map(|change| (&change.customer, change.picked));
    let of_databases =
        databases.iter().flat_map(|change| &change.customers).map(|(customer, picked)| (customer, *picked));
    for (customer, picked) in of_changes.chain(of_databases) {
        let first = if customer == SHARED { 0 } else { picked.unwrap_or(usize::MAX) };
        let wave = customers.entry(customer).or_insert(first);
        *wave = (*wave).min(first);
    }
    // Customers without a wave of their own come in a stable order that isn't alphabetical.
    let mut others: Vec<&str> =
        customers.iter().filter(|(_, wave)| **wave == usize::MAX).map(|(customer, _)| *customer).collect();
    others.sort_by_cached_key(|customer| Digest::of(customer.as_bytes()).to_bytes());
    let all = customers.len();
    let mut others = others.into_iter();
    let mut taken = 0;
    for (index, wave) in waves.iter().enumerate() {
        taken += customers.values().filter(|wave| **wave == index).count();
        let up_to = wave.percent.map_or(0, |percent| (all as f64 * percent / 100.0).ceil() as usize);
        let more = wave.count.unwrap_or(0).max(up_to.saturating_sub(taken));
        for customer in others.by_ref().take(more) {
            customers.insert(customer, index);
            taken += 1;
        }
    }
    for customer in others {
        customers.insert(customer, waves.len());
    }
    let mut wave_of: BTreeMap<String, usize> =
        customers.into_iter().map(|(customer, wave)| (customer.to_owned(), wave)).collect();
    // A new worker that another one refers to comes in the same wave at the latest.
    let callees = callees(changes);
    let mut pairs = Vec::new();
    for (at, callees) in callees.iter().enumerate() {
        let is_created = |other: &&usize| changes[**other].action == Action::Create;
        pairs.extend(callees.iter().filter(is_created).map(|other| (at, *other)));
    }
    let mut has_moved = !pairs.is_empty();
    while has_moved {
        has_moved = false;
        for (caller, callee) in &pairs {
            let Some(wave) = wave_of.get(&changes[*caller].customer).copied() else { continue };
            let Some(later) = wave_of.get_mut(&changes[*callee].customer).filter(|later| **later > wave) else {
                continue;
            };
            *later = wave;
            has_moved = true;
        }
    }
    for change in changes.iter_mut() {
        change.wave = match change.action {
            Action::Delete => waves.len(),
            Action::Create | Action::Update => wave_of[&change.customer],
        };
    }
    loop {
        handover::same_waves(changes);
        // What that makes later, those that refer to it wait for.
        let is_early = |(caller, callee): &&(usize, usize)| {
            changes[*caller].wave < changes[*callee].wave && changes[*caller].action != Action::Delete
        };
        let Some((caller, callee)) = pairs.iter().find(is_early) else { break };
        changes[*caller].wave = changes[*callee].wave;
    }
    if !databases.is_empty() {
        // Workers that swap hosts are in one wave, whichever their customers' is.
        let of_worker: HashMap<WorkerId, usize> = changes.iter().map(|change| (change.id(), change.wave)).collect();
        for change in databases.iter_mut() {
            let of_workers = change.users.iter().filter_map(|user| of_worker.get(user).copied());
            let of_customers = change.customers.keys().map(|customer| wave_of[customer]);
            change.wave = of_customers.chain(of_workers).min().unwrap_or_default();
        }
    }
    let mut used: Vec<usize> = changes.iter().map(|change| change.wave).collect();
    used.extend(databases.iter().map(|change| change.wave));
    used.sort_unstable();
    used.dedup();
    for change in changes.iter_mut() {
        change.wave = used.binary_search(&change.wave).expect("BUG: it is one of them");
    }
    for change in databases.iter_mut() {
        change.wave = used.binary_search(&change.wave).expect("BUG: it is one of them");
    }
    if used.is_empty() {
        return vec![rest];
    }
    used.into_iter().map(|wave| waves.get(wave).map_or_else(|| rest.clone(), |wave| wave.name.clone())).collect()
}
