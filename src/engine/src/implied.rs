//! Workers that exist in an environment only because nothing says otherwise. Those that are deployed there stay; those that aren't are
//! reported rather than created. Sends nothing.

use std::collections::BTreeSet;

use flotilla_build::build::Project;
use flotilla_build::resolve;
use flotilla_deploy::plan::Held;
use flotilla_deploy::state::State;
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::failure::Failure;
use flotilla_model::spec::Environment;

/// The customers, and the shared workers, whose environments have to be written first.
#[derive(Default)]
pub(crate) struct Unclear {
    customers: BTreeSet<String>,
    shared: BTreeSet<Option<String>>,
    /// The errors, each once.
    pub diagnostics: BTreeSet<(Place, Environment)>,
}

impl Unclear {
    /// Adds a worker if it is implied and the state knows nothing of it.
    pub fn add(&mut self, project: &Project, worker: &Worker, state: &State) -> Result<(), Failure> {
        if !worker.is_implied || is_deployed(worker, state)? {
            return Ok(());
        }
        let shared = worker.customer == SHARED;
        match shared {
            true => self.shared.insert(worker.role.clone()),
            false => self.customers.insert(worker.customer.clone()),
        };
        let place = project.provenance(worker, |provenance| {
            resolve::place_of_environments(&project.fleet, provenance.spec, worker.role.as_deref())
        });
        self.diagnostics.insert((place.unwrap_or_else(|| Place::file(&worker.file)), worker.environment));
        Ok(())
    }

    /// Returns whether a worker is skipped: its customer is, or, if it is shared, the worker itself.
    pub fn skips(&self, worker: &Worker) -> bool {
        match worker.customer == SHARED {
            true => self.shared.contains(&worker.role),
            false => self.customers.contains(&worker.customer),
        }
    }

    /// Returns the errors.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let diagnostic = |(place, environment)| {
            let message = format!(
                "`environments` doesn't say whether the worker exists in {environment}, and it isn't deployed there"
            );
            let help = format!(
                "write `{environment}:` beside the others to deploy it there, or `{environment}: null` to leave it out"
            );
            Diagnostic::error(Code::ImpliedEnvironment, place, message, help)
        };
        self.diagnostics.into_iter().map(diagnostic).collect()
    }
}

/// Returns the entry of a worker that is skipped for this: one for all of its customer's.
pub(crate) fn held(worker: &Worker) -> Held {
    let reason = "its `environments` don't say where it exists".to_owned();
    Held { customer: worker.customer.clone(), environment: None, reason, host_conflict: false }
}

/// Returns whether a worker of the same customer, environment and role is deployed, also under another name.
fn is_deployed(worker: &Worker, state: &State) -> Result<bool, Failure> {
    for ((_, name), deployed) in state.of_customer(&worker.customer)? {
        if deployed.environment != worker.environment {
            continue;
        }
        let source = match (&worker.role, name == worker.name) {
            (None, _) | (_, true) => return Ok(true),
            _ => state.stored(&deployed.digest)?.map(|stored| stored.source),
        };
        if source.is_some_and(|source| source["worker"]["role"].as_str() == worker.role.as_deref()) {
            return Ok(true);
        }
    }
    Ok(false)
}
