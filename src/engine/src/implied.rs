//! Errors that the files alone don't show, but the day and the state do. A compatibility date is in the future. A worker exists in an
//! environment only because nothing says otherwise: where it is deployed, it stays; where it isn't, it is reported instead of created. A
//! worker calls one that isn't deployed. Sends nothing.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_build::build::future_dates::{FutureDates, today};
use flotilla_build::build::{self, Project, Scan};
use flotilla_build::manifest::Record;
use flotilla_build::provenance::Provenance;
use flotilla_build::resolve;
use flotilla_deploy::plan::Held;
use flotilla_deploy::state::State;
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::failure::Failure;
use flotilla_model::spec::{Delivery, Environment};

use crate::cloud::{Cloud, CloudOptions};
use crate::context::Context;
use crate::selection::Selection;

/// The customers, and the shared workers, whose environments have to be written first.
#[derive(Default)]
pub(crate) struct Unclear {
    customers: BTreeMap<String, BTreeSet<Environment>>,
    shared: BTreeMap<Option<String>, BTreeSet<Environment>>,
    /// The errors, each once.
    pub diagnostics: BTreeSet<(Place, Environment)>,
}

impl Unclear {
    /// Adds a worker if it is implied and the state knows nothing of it.
    pub fn add(&mut self, project: &Project, worker: &Worker, state: &State) -> Result<(), Failure> {
        let is_unclear = worker.is_implied || is_from_before(project, worker, state)?;
        if !is_unclear || is_deployed(worker, state)? {
            return Ok(());
        }
        let environments = match worker.customer == SHARED {
            true => self.shared.entry(worker.role.clone()).or_default(),
            false => self.customers.entry(worker.customer.clone()).or_default(),
        };
        environments.insert(worker.environment);
        let place = project.provenance(worker, |provenance| {
            resolve::place_of_environments(&project.fleet, provenance.spec, worker.role.as_deref())
        });
        self.diagnostics.insert((place.unwrap_or_else(|| Place::file(&worker.file)), worker.environment));
        Ok(())
    }

    /// Returns why a worker is skipped, if it is: its customer is, or, if it is shared, the worker itself.
    pub fn skips(&self, worker: &Worker) -> Option<String> {
        let environments = match worker.customer == SHARED {
            true => self.shared.get(&worker.role),
            false => self.customers.get(&worker.customer),
        }?;
        let names: Vec<&str> = environments.iter().map(AsRef::as_ref).collect();
        Some(format!("its `environments` don't define whether it exists in {}", names.join(", ")))
    }

    /// Returns the errors.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let diagnostic = |(place, environment)| {
            let message = format!(
                "`environments` doesn't define whether the worker exists in {environment}, where it isn't deployed"
            );
            let help = format!(
                "write `{environment}:` next to the others to deploy it there, or `{environment}: null` to leave it out"
            );
            Diagnostic::error(Code::ImpliedEnvironment, place, message, help)
        };
        self.diagnostics.into_iter().map(diagnostic).collect()
    }
}

/// Returns the errors of the selected workers whose compatibility date is still to come: a day later, there may be none.
pub fn future_dates(project: &Project, scan: &Scan, selection: &Selection) -> Vec<Diagnostic> {
    let today = today();
    let number: u32 = today.replace('-', "").parse().unwrap_or(u32::MAX);
    let mut future = FutureDates::default();
    for record in scan.records.iter().filter(|record| !scan.is_held(record)) {
        let units = record.units.iter().filter(|unit| unit.compatibility_date > number);
        for unit in units.filter(|unit| selection.includes_unit(record, unit)) {
            if let Some(worker) = scan.worker(project, record, unit) {
                future.add(project, &worker, &today);
            }
        }
    }
    future.into_diagnostics()
}

/// Returns warnings for the selected workers that call one which a deploy of the selection wouldn't find: it isn't selected, has errors
/// or isn't deployed by flotilla, and the state knows nothing of it. Where all workers are selected and have no errors, nothing is
/// looked up; a project without a state hasn't been deployed from here.
pub fn missing_callees(
    context: &Context<'_>,
    project: &Project,
    scan: &Scan,
    selection: &Selection,
) -> Result<Vec<Diagnostic>, Failure> {
    let is_automatic = |worker: &Worker| worker.delivery == Delivery::Automatic;
    if selection.is_all() && scan.held.is_empty() && project.shared.resolved.workers.iter().all(is_automatic) {
        return Ok(Vec::new());
    }
    let options = CloudOptions::default();
    let secrets = options.secrets(context, &project.fleet)?;
    let cloud = Cloud::new(context, &project.fleet, &options, &secrets)?;
    if !State::exists(&cloud.state)? {
        return Ok(Vec::new());
    }
    let state = State::read(&cloud.state)?;
    let workers = |record: &Record| -> Vec<(Worker, bool)> {
        let worker = |unit| Some((scan.worker(project, record, unit)?, selection.includes_unit(record, unit)));
        record.units.iter().filter_map(worker).collect()
    };
    let of_shared = scan.records.iter().find(|record| build::id(record) == SHARED);
    let shared: Vec<(Worker, bool)> = of_shared.map(workers).unwrap_or_default();
    let mut diagnostics = BTreeMap::new();
    for record in scan.records.iter().filter(|record| !scan.is_held(record)) {
        if !record.units.iter().any(|unit| selection.includes_unit(record, unit)) {
            continue;
        }
        let own = workers(record);
        for (caller, _) in own.iter().filter(|(_, is_selected)| *is_selected) {
            for (binding, callee) in &caller.services {
                let is_callee = |(other, _): &&(Worker, bool)| {
                    (&other.name, &other.account) == (callee, &caller.account) && other.namespace.is_none()
                };
                let found = own.iter().chain(&shared).find(is_callee);
                // The state doesn't contain what others deploy.
                let by_others = |worker: &Worker| matches!(worker.delivery, Delivery::Gitops | Delivery::SelfHosted);
                let comes = |(worker, is_selected): &(Worker, bool)| {
                    let is_named = selection.named().contains(&worker.customer);
                    let is_deployed = is_automatic(worker) || (worker.delivery == Delivery::Manual && is_named);
                    let is_held = worker.customer == SHARED && of_shared.is_some_and(|record| scan.is_held(record));
                    by_others(worker) || (*is_selected && is_deployed && !is_held)
                };
                let id = (cloud.home(&caller.account, None), callee.clone());
                if found.is_some_and(comes) || state.one(&id)?.is_some() {
                    continue;
                }
                let place = project.provenance(caller, |provenance| match provenance.of(&["services", binding]) {
                    Provenance::At(place) => place,
                    _ => Place::file(&caller.file),
                });
                let message = format!("`{callee}`, which `{}` calls, isn't deployed", caller.name);
                let help = match found {
                    Some((_, true)) | None => {
                        format!("deploy `{callee}` first: until then, `{}` is skipped", caller.name)
                    }
                    Some((_, false)) => format!(
                        "`flotilla deploy --with-dependencies` deploys it in the same run; without it, `{}` is skipped",
                        caller.name
                    ),
                };
                diagnostics.insert((place.clone(), message.clone()), (place, message, help));
            }
        }
    }
    let warning = |(place, message, help)| Diagnostic::warning(Code::CalleeNotDeployed, place, message, help);
    Ok(diagnostics.into_values().map(warning).collect())
}

/// Returns the entry of a worker that is skipped for this: one for all of its customer's.
pub(crate) fn held(worker: &Worker, reason: &str) -> Held {
    let reason = reason.to_owned();
    Held { customer: worker.customer.clone(), environment: None, worker: None, reason, is_refused: false }
}

/// Returns whether production, where a worker isn't deployed, is inherited past the environments that its own spec names, while another one of
/// them is deployed: before environments were added to each other, that spec removed production.
fn is_from_before(project: &Project, worker: &Worker, state: &State) -> Result<bool, Failure> {
    if worker.environment != Environment::Production {
        return Ok(false);
    }
    let others = state.of_customer(&worker.customer)?;
    if !others.iter().any(|(_, deployed)| deployed.environment != worker.environment) {
        return Ok(false);
    }
    Ok(project.provenance(worker, |provenance| {
        resolve::is_inherited(&project.fleet, provenance.spec, worker.role.as_deref(), worker.environment)
    }))
}

/// Returns whether a worker of the same customer, environment and role is deployed, also under another name.
fn is_deployed(worker: &Worker, state: &State) -> Result<bool, Failure> {
    for (id, deployed) in state.of_customer(&worker.customer)? {
        if deployed.environment != worker.environment {
            continue;
        }
        let source = match (&worker.role, id.1 == worker.name) {
            (None, _) | (_, true) => return Ok(true),
            _ => state.stored(&id, &deployed.digest)?.map(|stored| stored.source),
        };
        if source.is_some_and(|source| source["worker"]["role"].as_str() == worker.role.as_deref()) {
            return Ok(true);
        }
    }
    Ok(false)
}
