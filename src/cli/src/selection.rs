//! The options by which a command is told its customers.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use flotilla_build::build::{Project, Scan, id};
use flotilla_build::manifest::{Record, Unit};
use flotilla_build::since::{Since, since};
use flotilla_model::customer::{self, Worker};
use flotilla_model::diagnostic::{Diagnostic, did_you_mean};
use flotilla_model::failure::Failure;
use flotilla_model::selection::{self, Selector, What};
use flotilla_model::spec::Environment;
use flotilla_spec::project;

use super::ui::{Style, Ui};

/// Customers by id, label and environment; without any of them, the whole fleet.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Selection {
    /// Customers by id, or by glob as in 'shop-*' [default: all]
    #[arg(value_name = "CUSTOMER")]
    customers: Vec<String>,
    /// Only customers with these labels: tier=gold,region!=eu · key · !key · 'key in (a,b)' · 'key notin (a,b)'
    #[arg(long = "label", short = 'l', value_name = "SELECTOR")]
    labels: Vec<Selector>,
    /// Only these environments; may be given several times or with commas
    #[arg(long, value_name = "NAME", value_parser = environment, value_delimiter = ',')]
    env: Vec<Environment>,
    /// Only what is made otherwise than at this commit, branch or tag: by its files, its layers or its templates
    #[arg(long, value_name = "REF")]
    since: Option<String>,
    /// What that is; found once the fleet is scanned.
    #[arg(skip)]
    differing: OnceLock<Since>,
    /// The same, made ready to match by the first question.
    #[arg(skip)]
    compiled: OnceLock<selection::Selection>,
}

/// An environment by its name.
pub fn environment(text: &str) -> Result<Environment, String> {
    let names = Environment::ALL.map(Environment::as_str);
    Environment::ALL.into_iter().find(|environment| environment.as_str() == text).ok_or_else(|| {
        match did_you_mean(text, names) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known: {}", names.join(", ")),
        }
    })
}

impl Selection {
    /// What a command selects that has options of its own.
    pub fn of(customers: &[String], labels: &[Selector], since: Option<&str>) -> Selection {
        let (customers, labels, since) = (customers.to_vec(), labels.to_vec(), since.map(str::to_owned));
        Selection { customers, labels, since, ..Selection::default() }
    }

    fn compiled(&self) -> &selection::Selection {
        self.compiled.get_or_init(|| {
            selection::Selection::new(&self.customers, self.labels.iter().cloned(), self.env.iter().copied())
        })
    }

    /// The words of a command line that select the same; customers come last.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let labels = self.labels.iter().map(|selector| ("--label", selector.to_string()));
        let env = self.env.iter().map(|environment| ("--env", environment.to_string()));
        let since = self.since.iter().map(|reference| ("--since", reference.clone()));
        for (option, value) in labels.chain(env).chain(since) {
            words.push(format!("{option}={value}"));
        }
        if !self.customers.is_empty() {
            words.push("--".to_owned());
            words.extend(self.customers.iter().cloned());
        }
        words
    }

    /// Whether it is the whole fleet.
    pub fn is_all(&self) -> bool {
        self.compiled().is_all() && self.since.is_none()
    }

    /// Whether a worker belongs to it.
    pub fn includes(&self, worker: &Worker) -> bool {
        let label = |key: &str| worker.labels.get(key).map(String::as_str);
        self.differs(|since| since.folders.contains(&worker.folder()))
            && self.compiled().matches(&worker.customer, label, worker.environment)
    }

    /// Whether a customer may belong to it, as far as its id tells.
    pub fn includes_id(&self, customer: &str) -> bool {
        self.compiled().matches_id(customer) && self.differs(|since| since.customers.contains(customer))
    }

    /// Whether something differs from the state of `--since`; without it, everything counts.
    fn differs(&self, of: impl FnOnce(&Since) -> bool) -> bool {
        self.since.is_none() || self.differing.get().is_some_and(of)
    }

    /// Whether an environment belongs to it.
    pub fn includes_environment(&self, environment: Environment) -> bool {
        self.env.is_empty() || self.env.contains(&environment)
    }

    /// The customers that are named by their ids.
    pub fn named(&self) -> &[String] {
        // Globs are among them, and are nobody's id.
        &self.customers
    }

    /// The same of what is remembered of it.
    pub fn includes_unit(&self, record: &Record, unit: &Unit) -> bool {
        let folder = || customer::folder(unit.environment, id(record), unit.role.as_deref());
        let label = |key: &str| record.labels.iter().find(|label| label.0 == key).map(|label| label.1.as_str());
        self.differs(|since| since.folders.contains(&folder()))
            && self.compiled().matches(id(record), label, unit.environment)
    }

    /// Whether a diagnostic belongs to it: those outside of customers/ concern everybody.
    pub fn concerns(&self, diagnostic: &Diagnostic) -> bool {
        let file = &diagnostic.place.file;
        !file.starts_with(project::CUSTOMERS) || self.includes_id(project::id_of(file))
    }

    /// How many of the fleet's customers have an id that belongs to it.
    pub fn count(&self, scan: &Scan) -> usize {
        if self.compiled().is_every_customer() && self.since.is_none() {
            return scan.customers;
        }
        ids(scan).into_iter().filter(|id| self.includes_id(id)).count()
    }

    /// Refuses what no customer has: ids, globs that match nothing, keys of labels. Says so where nothing is left that
    /// has all of it: that can be meant, or a slip.
    pub fn verify(&self, ui: &Ui, project: &Project, scan: &Scan) -> Result<(), Failure> {
        if self.is_all() {
            return Ok(());
        }
        if let Some(reference) = &self.since {
            let _ = self.differing.set(since(project, scan, reference)?);
        }
        let ids = ids(scan);
        let labels = scan.records.iter().flat_map(|record| &record.labels);
        let keys: BTreeSet<&str> = labels.map(|(key, _)| key.as_str()).collect();
        // The labels of customers with errors may not be known.
        let keys = scan.held.is_empty().then_some(&keys);
        let Some(unknown) = self.compiled().unknown(&ids, keys) else {
            let units = |record: &Record| record.units.iter().any(|unit| self.includes_unit(record, unit));
            let any = scan.records.iter().any(units) || scan.held.iter().any(|id| self.includes_id(id));
            if !any {
                ui.line(&format!("{} no worker is selected", ui.paint(Style::Warning, "warning:")));
            }
            return Ok(());
        };
        let written = &unknown.written;
        let (message, help) = match unknown.what {
            What::Id => {
                (format!("there is no customer `{written}`"), "customers are the files of customers/, without `.yaml`")
            }
            What::Glob => (format!("no customer's id matches `{written}`"), "`*` stands for any letters, `?` for one"),
            What::Key => {
                (format!("no customer has a label `{written}`"), "`labels` in a customer's file gives it some")
            }
        };
        let near = unknown.near.map(|near| format!("did you mean `{near}`?"));
        Err(Failure::usage(message).hint(near.unwrap_or_else(|| help.to_owned())))
    }
}

fn ids(scan: &Scan) -> BTreeSet<&str> {
    scan.records.iter().map(id).chain(scan.held.iter().map(String::as_str)).collect()
}
