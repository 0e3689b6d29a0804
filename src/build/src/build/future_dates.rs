//! Compatibility dates in the future.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};

use super::Project;
use crate::provenance::Provenance;

/// Workers whose compatibility date is in the future: Cloudflare rejects their uploads.
#[derive(Default)]
pub struct FutureDates {
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
            let help = "write today's date in UTC, or an earlier one: Cloudflare accepts no later date";
            Diagnostic::error(Code::NotAllowed, place, message, help)
        };
        self.found.into_iter().map(diagnostic).collect()
    }
}

/// Returns the day of a time in seconds since 1970, as `2026-06-01`.
fn day(unix: i64) -> String {
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

/// Returns the day of today, by UTC.
pub fn today() -> String {
    day(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(951_782_399), "2000-02-28");
        assert_eq!(day(951_782_400), "2000-02-29");
        assert_eq!(day(1_782_864_000), "2026-07-01");
        assert_eq!(day(1_798_761_599), "2026-12-31");
    }
}
