//! Properties of a step that depend on its kind alone.

use crate::plan::Step;
use crate::state::Uncertainty;

/// Returns the name of a step in the records.
pub(super) fn action_name(step: &Step) -> &'static str {
    match step {
        Step::CreateDatabase { .. } => "create database",
        Step::CreateFirst { .. } => "create without bindings",
        Step::UploadAssets => "upload assets",
        Step::Upload => "upload",
        Step::DeleteDatabase { .. } => "delete database",
        Step::Delete => "delete",
        Step::SetWorkersDev { .. } => "set workers.dev",
        Step::SetCrons { .. } => "set crons",
        Step::CreateQueue { .. } => "create queue",
        Step::SetConsumer { .. } => "set consumer",
        Step::RemoveConsumer { .. } => "remove consumer",
        Step::PutWorkflow { .. } => "deploy workflow",
        Step::DeleteWorkflow { .. } => "delete workflow",
        Step::AttachDomain { .. } | Step::MoveDomain { .. } => "attach domain",
        Step::DetachDomain { .. } | Step::DropDomain { .. } => "detach domain",
        Step::TakeDomain { .. } => "take domain",
        Step::AddRoute { .. } | Step::MoveRoute { .. } => "add route",
        Step::RemoveRoute { .. } | Step::DropRoute { .. } => "remove route",
    }
}

/// Returns what is uncertain while a step is on its way.
pub(super) fn uncertainty_of(step: &Step) -> Uncertainty {
    let route =
        |pattern: &String, zone: Option<&String>| Uncertainty::Route { pattern: pattern.clone(), zone: zone.cloned() };
    match step {
        Step::CreateDatabase { .. } | Step::DeleteDatabase { .. } => Uncertainty::Database,
        Step::UploadAssets => Uncertainty::Assets,
        Step::CreateFirst { .. } | Step::Upload => Uncertainty::Upload,
        Step::Delete => Uncertainty::Delete,
        Step::SetWorkersDev { .. } => Uncertainty::WorkersDev,
        Step::SetCrons { .. } => Uncertainty::Crons,
        Step::CreateQueue { .. } => Uncertainty::Queue,
        Step::SetConsumer { queue, .. } | Step::RemoveConsumer { queue } => Uncertainty::Consumer(queue.clone()),
        Step::PutWorkflow { name, .. } | Step::DeleteWorkflow { name } => Uncertainty::Workflow(name.clone()),
        Step::AttachDomain { domain }
        | Step::MoveDomain { domain, .. }
        | Step::DetachDomain { domain, .. }
        | Step::DropDomain { domain }
        | Step::TakeDomain { domain, .. } => Uncertainty::Domain(domain.clone()),
        Step::AddRoute { pattern, zone }
        | Step::MoveRoute { pattern, zone, .. }
        | Step::DropRoute { pattern, zone } => route(pattern, Some(zone)),
        Step::RemoveRoute { pattern, .. } => route(pattern, None),
    }
}

/// Returns whether two uncertainties are about the same resource.
pub(super) fn is_about_same(a: &Uncertainty, b: &Uncertainty) -> bool {
    match (a, b) {
        (Uncertainty::Route { pattern, .. }, Uncertainty::Route { pattern: other, .. }) => pattern == other,
        _ => a == b,
    }
}

/// Returns whether a step uploads the worker.
pub(super) fn is_upload(step: &Step) -> bool {
    matches!(step, Step::CreateFirst { .. } | Step::Upload)
}

/// Returns whether a step sets something that points to the worker.
pub(super) fn is_trigger(step: &Step) -> bool {
    matches!(
        step,
        Step::SetCrons { .. }
            | Step::SetWorkersDev { .. }
            | Step::AttachDomain { .. }
            | Step::MoveDomain { .. }
            | Step::TakeDomain { .. }
            | Step::AddRoute { .. }
            | Step::MoveRoute { .. }
            | Step::SetConsumer { .. }
            | Step::PutWorkflow { .. }
    )
}
