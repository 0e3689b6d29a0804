//! The customers that a run covers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;

use rayon::prelude::*;

use flotilla_build::build::{Project, Scan, id};
use flotilla_build::manifest::{Record, Unit};
use flotilla_build::since::{Since, since};
use flotilla_model::customer::{self, Worker};
use flotilla_model::diagnostic::{Diagnostic, did_you_mean};
use flotilla_model::failure::Failure;
use flotilla_model::selection::{self, EmptyPart, Selector, What};
use flotilla_model::spec::Environment;
use flotilla_spec::project;

use crate::operator::{Event, Operator};

/// Customers by id, label and environment; without any of them, the whole fleet.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Ids, or globs of ids.
    customers: Vec<String>,
    labels: Vec<Selector>,
    environments: Vec<Environment>,
    /// Only what differs from this commit, branch or tag.
    since: Option<String>,
    /// Also the workers that the selected ones call.
    with_dependencies: bool,
    /// Decides about the selected customers as a run of the whole fleet does, which names none.
    as_unnamed: bool,
    /// The ones of them that aren't selected; found by [`Selection::verify`].
    dependencies: OnceLock<Dependencies>,
    /// The differences; found by [`Selection::verify`].
    differing: OnceLock<Since>,
    /// The same, made ready to match by the first question.
    compiled: OnceLock<selection::Selection>,
}

/// The workers that the selected ones call.
#[derive(Clone, Debug, Default)]
struct Dependencies {
    /// Their folders.
    folders: HashSet<String>,
    /// Their customers and environments.
    customers: BTreeSet<(String, Environment)>,
}

impl Selection {
    /// Customers by id or glob, by label, by environment, and by what differs from a commit, branch or tag.
    pub fn new(
        customers: Vec<String>,
        labels: Vec<Selector>,
        environments: Vec<Environment>,
        since: Option<String>,
    ) -> Selection {
        Selection { customers, labels, environments, since, ..Selection::default() }
    }

    /// Adds the workers that the selected ones call, directly or through others.
    #[must_use]
    pub fn with_dependencies(self, with_dependencies: bool) -> Selection {
        Selection { with_dependencies, ..self }
    }

    /// Decides about the selected customers as a run of the whole fleet does: one that is deployed only if it is named stays skipped.
    #[must_use]
    pub fn as_unnamed(self) -> Selection {
        Selection { as_unnamed: true, ..self }
    }

    fn compiled(&self) -> &selection::Selection {
        self.compiled.get_or_init(|| {
            selection::Selection::new(&self.customers, self.labels.iter().cloned(), self.environments.iter().copied())
        })
    }

    /// Returns whether it is the whole fleet.
    pub fn is_all(&self) -> bool {
        self.compiled().is_all() && self.since.is_none()
    }

    /// Returns whether labels decide it, which only a valid spec has.
    pub fn has_labels(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Returns whether a worker belongs to it.
    pub fn includes(&self, worker: &Worker) -> bool {
        let label = |key: &str| worker.labels.get(key).map(String::as_str);
        self.is_dependency(|| worker.folder())
            || (self.differs(|since| since.folders.contains(&worker.folder()))
                && self.compiled().matches(&worker.customer, label, worker.environment))
    }

    /// Returns whether a selected worker calls the one with this folder.
    fn is_dependency(&self, folder: impl FnOnce() -> String) -> bool {
        self.dependencies.get().is_some_and(|dependencies| dependencies.folders.contains(&folder()))
    }

    /// Returns whether a customer may belong to it, as far as its id decides.
    pub fn includes_id(&self, customer: &str) -> bool {
        let is_dependency = || {
            let mut dependencies = self.dependencies.get().into_iter().flat_map(|dependencies| &dependencies.customers);
            dependencies.any(|(id, _)| id == customer)
        };
        (self.compiled().matches_id(customer) && self.differs(|since| since.customers.contains(customer)))
            || is_dependency()
    }

    /// Returns whether a deployed worker belongs to it, as far as its customer and environment decide.
    pub fn includes_deployed(&self, customer: &str, environment: Environment) -> bool {
        let is_environment = self.environments.is_empty() || self.environments.contains(&environment);
        let is_dependency = |dependencies: &Dependencies| {
            dependencies.customers.iter().any(|(id, other)| id == customer && *other == environment)
        };
        (self.compiled().matches_id(customer)
            && self.differs(|since| since.customers.contains(customer))
            && is_environment)
            || self.dependencies.get().is_some_and(is_dependency)
    }

    /// Returns whether something differs from the commit of `--since`; without it, everything does.
    fn differs(&self, of: impl FnOnce(&Since) -> bool) -> bool {
        self.since.is_none() || self.differing.get().is_some_and(of)
    }

    /// The customers that are named by their ids.
    pub fn named(&self) -> &[String] {
        // Globs are among them, and are nobody's id.
        if self.as_unnamed { &[] } else { &self.customers }
    }

    /// The same of what is remembered of it.
    pub fn includes_unit(&self, record: &Record, unit: &Unit) -> bool {
        let folder = || customer::folder(unit.environment, id(record), unit.role.as_deref());
        self.is_dependency(folder)
            || (self.differs(|since| since.folders.contains(&folder())) && self.matches(record, unit))
    }

    /// Returns whether what is remembered of a worker belongs to it, whatever has changed.
    fn matches(&self, record: &Record, unit: &Unit) -> bool {
        let label = |key: &str| record.labels.iter().find(|label| label.0 == key).map(|label| label.1.as_str());
        self.compiled().matches(id(record), label, unit.environment)
    }

    /// Returns whether a diagnostic belongs to it: those outside customers/ concern everybody.
    pub fn concerns(&self, diagnostic: &Diagnostic) -> bool {
        let file = &diagnostic.place.file;
        !file.starts_with(project::CUSTOMERS) || self.includes_id(project::id_of(file))
    }

    /// Returns the number of the fleet's customers whose id belongs to it.
    pub fn count(&self, scan: &Scan) -> usize {
        if self.compiled().is_every_customer() && self.since.is_none() {
            return scan.customers;
        }
        ids(scan).into_iter().filter(|id| self.includes_id(id)).count()
    }

    /// Rejects ids, globs, labels and environments that match no customer, and a selection that no customer matches. Reports it if nothing
    /// of it changed since a commit. Leaves out of the scan the errors of packs that no selected customer needs.
    pub fn verify(&self, operator: &dyn Operator, project: &Project, scan: &mut Scan) -> Result<(), Failure> {
        if self.is_all() {
            return Ok(());
        }
        self.verify_some(operator, project, scan)?;
        scan.leave_out_other_parts(|id| self.includes_id(id));
        Ok(())
    }

    fn verify_some(&self, operator: &dyn Operator, project: &Project, scan: &Scan) -> Result<(), Failure> {
        if let Some(reference) = &self.since {
            let _ = self.differing.set(since(project, scan, reference)?);
        }
        let ids = ids(scan);
        let labels = scan.records.iter().flat_map(|record| &record.labels);
        let keys: BTreeSet<&str> = labels.map(|(key, _)| key.as_str()).collect();
        // The labels of customers with errors may not be known.
        let keys = scan.held.is_empty().then_some(&keys);
        let Some(unknown) = self.compiled().unknown(&ids, keys) else {
            // Of an environment that is a fleet's own, only the fleet shows whether it is one.
            let known: BTreeSet<Environment> =
                scan.records.iter().flat_map(|record| &record.units).map(|unit| unit.environment).collect();
            let own = self.environments.iter().copied().filter(|own| own.is_own() && scan.held.is_empty());
            check_environments(own, &known)?;
            let units = |record: &Record| record.units.iter().any(|unit| self.includes_unit(record, unit));
            if scan.records.iter().any(units) || scan.held.iter().any(|id| self.includes_id(id)) {
                if self.with_dependencies {
                    let _ = self.dependencies.set(self.find_dependencies(project, scan));
                }
                return Ok(());
            }
            // That nothing changed since a commit is no error.
            let all = || scan.records.iter().flat_map(|record| record.units.iter().map(move |unit| (record, unit)));
            if self.since.is_some() && all().any(|(record, unit)| self.matches(record, unit)) {
                operator.on_event(&Event::NothingSelected);
                return Ok(());
            }
            let labels = all().map(|(record, unit)| (unit.environment, record.labels.as_slice()));
            return Err(nobody(&self.compiled().empty_part(labels), &self.environments));
        };
        let written = &unknown.written;
        let (message, help) = match unknown.what {
            What::Id => (
                format!("there is no customer `{written}`"),
                "a customer's id is the name of its file in customers/, without `.yaml`",
            ),
            What::Glob => {
                (format!("no customer's id matches `{written}`"), "`*` matches any characters, `?` one character")
            }
            What::Key => (format!("no customer has a label `{written}`"), "set `labels` in the customers' files"),
        };
        let near = unknown.near.map(|near| format!("did you mean `{near}`?"));
        Err(Failure::usage(message).hint(near.unwrap_or_else(|| help.to_owned())))
    }

    /// Finds the workers that the selected ones call, directly or through others: by service bindings and by addresses.
    fn find_dependencies(&self, project: &Project, scan: &Scan) -> Dependencies {
        let all: Vec<(Worker, bool)> = scan
            .records
            .par_iter()
            .flat_map_iter(|record| {
                let worker = |unit| Some((scan.worker(project, record, unit)?, self.includes_unit(record, unit)));
                record.units.iter().filter_map(worker)
            })
            .collect();
        let by_name: HashMap<(&str, Option<&str>, &str), &Worker> = all
            .iter()
            .map(|(worker, _)| ((worker.account.as_str(), worker.namespace.as_deref(), worker.name.as_str()), worker))
            .collect();
        let mut dependencies = Dependencies::default();
        let mut callers: Vec<&Worker> =
            all.iter().filter(|(_, selected)| *selected).map(|(worker, _)| worker).collect();
        let mut known: HashSet<String> = callers.iter().map(|worker| worker.folder()).collect();
        while let Some(caller) = callers.pop() {
            let tails = caller.tail_consumers.iter().flatten();
            for name in caller.services.values().chain(caller.peers.values()).chain(tails) {
                let key = (caller.account.as_str(), caller.namespace.as_deref(), name.as_str());
                let Some(callee) = by_name.get(&key).filter(|callee| known.insert(callee.folder())) else { continue };
                dependencies.folders.insert(callee.folder());
                dependencies.customers.insert((callee.customer.clone(), callee.environment));
                callers.push(callee);
            }
        }
        dependencies
    }
}

fn ids(scan: &Scan) -> BTreeSet<&str> {
    scan.records.iter().map(id).chain(scan.held.iter().map(String::as_str)).collect()
}

/// Rejects the first environment that no worker is in.
pub fn check_environments(
    environments: impl IntoIterator<Item = Environment>,
    known: &BTreeSet<Environment>,
) -> Result<(), Failure> {
    let Some(unknown) = environments.into_iter().find(|environment| !known.contains(environment)) else {
        return Ok(());
    };
    let names = known.iter().map(|environment| environment.name());
    let hint = match did_you_mean(unknown.name(), names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("environments of this fleet: {}", names.collect::<Vec<_>>().join(", ")),
    };
    Err(Failure::usage(format!("no customer has a worker in {unknown}")).hint(hint))
}

/// Returns the failure of a selection that no customer matches.
fn nobody(empty: &EmptyPart, environments: &[Environment]) -> Failure {
    match empty {
        EmptyPart::Environments => {
            let named: Vec<&str> = environments.iter().map(AsRef::as_ref).collect();
            Failure::usage(format!("no customer has a worker in {}", named.join(" or ")))
                .hint("`environments` in a customer's file lists where it has workers; by default, in production only")
        }
        EmptyPart::Label { requirement, key, near, known } => {
            let help = match near {
                Some(near) => format!("did you mean `{key}={near}`?"),
                None => format!("values of `{key}`: {}", known.join(", ")),
            };
            Failure::usage(format!("no customer's labels match `{requirement}`")).hint(help)
        }
        EmptyPart::Together => Failure::usage("no customer matches the whole selection")
            .hint("each part matches some customers: `flotilla list` with fewer filters shows which"),
    }
}
