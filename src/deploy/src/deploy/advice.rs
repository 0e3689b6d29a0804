//! The advice for steps that the platform rejects.

use super::problem::{NO_SCRIPT, NO_SUBDOMAIN, NO_WORKER, NextStep, Problem, TOO_MANY_WORKERS};
use super::steps::is_trigger;
use crate::plan::{Change, Step};
use flotilla_model::platform::{BINDING_MISSING, CallError, MIGRATION_TAG_FAILED};

/// The code of the failure to attach a domain that has DNS records.
pub(super) const DOMAIN_HAS_RECORDS: u64 = 100_117;

/// The code of an id that no zone has.
const NO_ZONE: u64 = 1001;
/// The code of an address that the API doesn't have, which can be due to an id in it.
const NO_ROUTE: u64 = 7003;

/// Returns whether the state has the worker, and the change doesn't upload it.
pub(super) fn is_known(change: &Change) -> bool {
    change.was.is_some() && !change.steps.contains(&Step::Upload)
}

/// Returns the message of a domain that another worker has.
pub(super) fn attached_elsewhere(domain: &str, holder: &str) -> Problem {
    NextStep::Host.because(format!(
        "{domain} is attached to the worker {holder}: remove it from that worker and deploy again; if {holder} is not managed by this fleet, \
         `{{ name: {domain}, takeOver: true }}` under `domains` takes it over"
    ))
}

/// Returns the message of the platform, with advice where there is some.
pub(super) fn explained(change: &Change, step: &Step, error: &CallError) -> Problem {
    let (advice, next) = match (step, error) {
        (Step::AttachDomain { domain }, CallError::Rejected { code: DOMAIN_HAS_RECORDS, .. }) => (
            format!("; {domain} already has DNS records: remove them, or write a route under `routes`"),
            NextStep::Host,
        ),
        (Step::CreateDatabase { .. } | Step::DeleteDatabase { .. }, CallError::Rejected { status: 401 | 403, .. }) => {
            ("; does the token have the permission `D1: Edit`?".to_owned(), NextStep::Token)
        }
        (Step::Upload, CallError::Rejected { code: MIGRATION_TAG_FAILED, .. }) => {
            ("; somebody else migrated its Durable Object classes at the same time".to_owned(), NextStep::Plan)
        }
        (
            Step::CreateQueue { .. } | Step::SetConsumer { .. } | Step::RemoveConsumer { .. },
            CallError::Rejected { status: 401 | 403, .. },
        ) => ("; does the token have the permission `Queues: Edit`?".to_owned(), NextStep::Token),
        (Step::Upload, CallError::Rejected { code, .. })
            if BINDING_MISSING.contains(code) && !change.needs.is_empty() =>
        {
            (
                "; a resource that was found by its name no longer exists: the next deploy looks it up again"
                    .to_owned(),
                NextStep::Retry,
            )
        }
        (Step::Upload, CallError::Rejected { code: TOO_MANY_WORKERS, .. }) => {
            let advice = "; the account is full: set `dispatchNamespace` in fleet.yaml";
            (advice.to_owned(), NextStep::Account)
        }
        (Step::Upload, CallError::Rejected { status: 404, .. }) => {
            ("; is the account's id right, and does the dispatch namespace exist?".to_owned(), NextStep::Account)
        }
        (_, CallError::Rejected { code: NO_WORKER | NO_SCRIPT, .. }) if is_trigger(step) && is_known(change) => {
            let or = match step {
                Step::SetWorkersDev { .. } => ", or the account has no workers.dev subdomain",
                _ => "",
            };
            let worker = &change.worker;
            let advice = format!(
                "; {worker} was deleted outside flotilla{or}: `flotilla deploy --refresh` corrects the state and recreates the worker"
            );
            (advice, NextStep::Refresh)
        }
        (
            Step::AddRoute { zone, .. } | Step::MoveRoute { zone, .. },
            CallError::Rejected { code: NO_ZONE | NO_ROUTE, .. },
        ) if change.zone_ids.contains_key(zone) => {
            let id = &change.zone_ids[zone];
            let advice = format!("; is {id} the id of {zone}? without `zoneId`, the zone is looked up by its name");
            (advice, NextStep::Zone)
        }
        (Step::SetWorkersDev { .. }, CallError::Rejected { code: NO_WORKER | NO_SUBDOMAIN, .. }) => {
            let advice = "; the account has no workers.dev subdomain yet: choose one in the dashboard, or set `workersDev: false`";
            (advice.to_owned(), NextStep::Account)
        }
        _ => (String::new(), NextStep::after(error)),
    };
    next.because(format!("{error}{advice}"))
}
