//! Which customers a command is for.

use std::collections::BTreeSet;

use crate::build::{Survey, id};
use crate::customer::Worker;
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::failure::Failure;
use crate::manifest::{Record, Unit};
use crate::project;
use crate::spec::Environment;

/// Customers by id, label and environment; without any of them, the whole fleet.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Selection {
    /// Customers by id [default: all]
    #[arg(value_name = "CUSTOMER")]
    pub customers: Vec<String>,
    /// Only customers with this label; several must all hold
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only this environment
    #[arg(long, value_name = "NAME", value_parser = environment)]
    env: Option<Environment>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, as in tier=gold")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn environment(text: &str) -> Result<Environment, String> {
    let names = Environment::ALL.map(Environment::as_str);
    Environment::ALL.into_iter().find(|environment| environment.as_str() == text).ok_or_else(|| {
        match did_you_mean(text, names) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known: {}", names.join(", ")),
        }
    })
}

impl Selection {
    /// Whether it is the whole fleet.
    pub fn is_all(&self) -> bool {
        self.customers.is_empty() && self.labels.is_empty() && self.env.is_none()
    }

    /// Whether a worker belongs to it.
    pub fn includes(&self, worker: &Worker) -> bool {
        (self.customers.is_empty() || self.customers.contains(&worker.customer))
            && self.labels.iter().all(|(key, value)| worker.labels.get(key) == Some(value))
            && self.env.is_none_or(|environment| environment == worker.environment)
    }

    /// The same of what is remembered of it.
    pub fn includes_unit(&self, record: &Record, unit: &Unit) -> bool {
        let has =
            |(key, value): &(String, String)| record.labels.iter().any(|label| (&label.0, &label.1) == (key, value));
        (self.customers.is_empty() || self.customers.iter().any(|customer| customer == id(record)))
            && self.labels.iter().all(has)
            && self.env.is_none_or(|environment| environment == unit.environment)
    }

    /// Whether a diagnostic belongs to it: those outside of customers/ concern everybody.
    pub fn concerns(&self, diagnostic: &Diagnostic) -> bool {
        let file = &diagnostic.place.file;
        self.customers.is_empty()
            || !file.starts_with(project::CUSTOMERS)
            || self.customers.iter().any(|customer| customer == project::id_of(file))
    }

    /// Refuses ids that no customer has.
    pub fn verify(&self, survey: &Survey) -> Result<(), Failure> {
        if self.customers.is_empty() {
            return Ok(());
        }
        let known: BTreeSet<&str> =
            survey.records.iter().map(id).chain(survey.held.iter().map(String::as_str)).collect();
        for customer in &self.customers {
            if !known.contains(customer.as_str()) {
                let failure = Failure::usage(format!("there is no customer `{customer}`"));
                return Err(match did_you_mean(customer, known.iter().copied()) {
                    Some(near) => failure.hint(format!("did you mean `{near}`?")),
                    None => failure.hint("customers are the files of customers/, without `.yaml`"),
                });
            }
        }
        Ok(())
    }
}
