//! Workers that only a plan can find wrong. Their compatibility date is in the future; or they exist in an environment only because nothing
//! says otherwise: those that are deployed there stay; those that aren't are
//! reported rather than created. Sends nothing.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_build::build::Project;
use flotilla_build::provenance::Provenance;
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

/// Workers whose compatibility date is still to come: no platform takes an upload of them.
#[derive(Default)]
pub(crate) struct FutureDates {
    /// The places of the dates, with the dates.
    found: BTreeMap<Place, String>,
}

impl FutureDates {
    /// Returns whether a worker is one of them, and notes it.
    pub fn add(&mut self, project: &Project, worker: &Worker, today: &str) -> bool {
        let is_future = worker.compatibility_date.as_str() > today;
        if is_future {
            let place = project.provenance(worker, |provenance| match provenance.of(&["compatibilityDate"]) {
                Provenance::At(place) => place,
                _ => Place::file(&worker.file),
            });
            self.found.insert(place, worker.compatibility_date.clone());
        }
        is_future
    }

    /// Returns the errors, one for each place.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let diagnostic = |(place, date): (Place, String)| {
            let message = format!("the compatibility date {date} is in the future");
            let help = "write the date of today, by UTC, or an earlier one: Cloudflare takes no later one";
            Diagnostic::error(Code::NotAllowed, place, message, help)
        };
        self.found.into_iter().map(diagnostic).collect()
    }
}

/// Returns the day of a time in seconds since 1970, as `2026-06-01`.
pub(crate) fn day(unix: i64) -> String {
    // Days from 1 March of the year 0; years of 400 and of 4 repeat.
    let days = unix.div_euclid(86_400) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

/// Returns the entry of a worker that is skipped for this: one for all of its customer's.
pub(crate) fn held(worker: &Worker, reason: &str) -> Held {
    let reason = reason.to_owned();
    Held { customer: worker.customer.clone(), environment: None, reason, is_refused: false }
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

#[cfg(test)]
mod tests {
    use super::day;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(951_782_399), "2000-02-28");
        assert_eq!(day(951_782_400), "2000-02-29");
        assert_eq!(day(1_782_864_000), "2026-07-01");
        assert_eq!(day(1_798_761_599), "2026-12-31");
    }
}
