//! The account beside the files: which of their workers are live, and the workers that no file defines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotilla_model::diagnostic::Place;
use flotilla_model::spec::Environment;

use super::super::code::Code;
use super::super::ids::{slug, split};
use super::super::{Finding, Findings, FoundWorker, LiveAccount};

/// Reports the workers that the account doesn't have.
pub(super) fn live_or_not(found: &[FoundWorker], live: &LiveAccount, findings: &mut Findings) {
    let Some(id) = &live.account_id else { return };
    for worker in found
        .iter()
        .filter(|worker| !worker.name.is_empty() && worker.account_id.as_ref().is_none_or(|other| other == id))
    {
        if !live.workers.iter().any(|live| live.name == worker.name) {
            let help = "a deploy creates it; remove its environment from the spec if you don't want it";
            findings.note(worker.place.clone(), format!("`{}` isn't live in the account", worker.name), help);
        }
    }
}

/// Returns the workers of the account that no file defines.
pub fn of_account(live: LiveAccount, found: &[FoundWorker]) -> (Vec<FoundWorker>, Vec<Finding>) {
    let known: BTreeSet<&str> = found.iter().map(|worker| worker.name.as_str()).collect();
    let mut taken: BTreeSet<(String, Environment)> =
        found.iter().map(|worker| (worker.customer.clone(), worker.environment)).collect();
    let mut more = Vec::new();
    let id = live.account_id;
    let all: BTreeSet<String> = live.workers.iter().map(|worker| worker.name.clone()).collect();
    // Workers with the same code get the name of the first one, so that they become one pack.
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for worker in live.workers.into_iter().filter(|worker| !known.contains(worker.name.as_str())) {
        // `shop-staging` is the customer shop's only if there is a shop, too.
        let (customer, environment) = match split(&worker.name) {
            (Some(customer), Some(environment))
                if environment == Environment::Production
                    || all.iter().any(|name| split(name).0.as_deref() == Some(&customer) && name != &worker.name) =>
            {
                (customer, environment)
            }
            _ => (slug(&worker.name), Environment::Production),
        };
        let key = (customer, environment);
        let (customer, environment) =
            if taken.contains(&key) { (slug(&worker.name), Environment::Production) } else { key };
        taken.insert((customer.clone(), environment));
        let mut code = Code::of_modules(&worker.name, worker.main, worker.modules);
        code.name = names.entry(code.key.clone()).or_insert(code.name).clone();
        more.push(FoundWorker {
            place: Place::file("the account"),
            what: format!("the live worker {}", worker.name),
            customer,
            environment,
            role: None,
            account_id: id.clone(),
            settings: worker.settings,
            calls: worker.calls.into_iter().map(|(name, to)| (name, (to, Place::file("the account")))).collect(),
            lost: worker.lost,
            implies_workers_dev: false,
            code: Some(Arc::new(code)),
            name: worker.name,
        });
    }
    (more, live.findings)
}
