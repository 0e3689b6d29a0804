//! `flotilla secrets`: what secrets workers need, where their values come from, and how they are set. Shows names and sources,
//! never a value or a part of one.

mod change;
mod check;
mod list;
mod live;
pub(super) mod value;

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use flotilla_build::build::{self, Loaded};
use flotilla_deploy::rotation::{LOST, Missing, sending};
use flotilla_deploy::state::State;
use flotilla_model::customer::Worker;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::limits::Limit;
use flotilla_model::progress::Progress as _;
use flotilla_model::spec::{Delivery, Environment};
use flotilla_spec::secrets::{Finding, Secrets};

use super::Session;
use flotilla_engine::cloud::Cloud;

use super::cloud::{CloudArguments, CustomersArguments};

#[derive(Subcommand)]
pub(super) enum Arguments {
    /// List the secrets that workers need, where each value comes from, and whether the next deploy sends it
    List(list::Arguments),
    /// Report secrets that are missing, too large or unused; sends no requests
    Check(CustomersArguments),
    /// Set a secret in a dotenv file, plain or encrypted with age; the value is entered at a prompt or read from stdin
    Set(change::SetArguments),
    /// Replace a secret with a random value, or with one read from stdin
    Rotate(change::RotateArguments),
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    match arguments {
        Arguments::List(arguments) => list::run(session, arguments),
        Arguments::Check(arguments) => check::run(session, arguments),
        Arguments::Set(arguments) => change::set(session, arguments),
        Arguments::Rotate(arguments) => change::rotate(session, arguments),
    }
}

/// The effect of the next deploy on a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// It is live with this value.
    Unchanged,
    /// Another value is live.
    Changed,
    /// It isn't live.
    New,
    /// It is live, its value isn't known here, and it stays as it is.
    Kept,
    /// It isn't live, and its value isn't known here.
    Missing,
}

/// A secret of a worker.
#[derive(Debug, Serialize)]
struct Row {
    customer: String,
    environment: Environment,
    worker: String,
    binding: String,
    name: String,
    /// The source of its value.
    source: Option<String>,
    /// The name that it has there.
    found_as: Option<String>,
    /// The reason why its value isn't known here, if it isn't merely missing in all sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden: Option<String>,
    /// The source that is the reason.
    #[serde(skip)]
    unreadable: Option<String>,
    /// Whether the worker has a secret of that binding.
    deployed: bool,
    status: Status,
    /// Whether Cloudflare has it, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<live::Presence>,
    #[serde(skip)]
    bytes: usize,
    #[serde(skip)]
    most: u64,
}

/// A worker's secrets.
struct Needs {
    rows: Vec<Row>,
    /// The reason why it could not be uploaded.
    missing: Option<Missing>,
}

impl Needs {
    /// Returns whether the next deploy uploads it because of a secret.
    fn uploads(&self) -> bool {
        self.rows.iter().any(|row| matches!(row.status, Status::Changed | Status::New))
    }
}

/// A fleet, the sources of its secrets, and what is live.
struct Opened {
    loaded: Loaded,
    secrets: Secrets,
    cloud: Cloud,
    state: State,
}

/// Opens all of them. Returns none if the fleet has an error that concerns everything.
fn open(session: &Session, arguments: &CloudArguments) -> Result<Opened, Failure> {
    let loaded = build::load(&session.root, &session.ui).map_err(Failure::invalid)?;
    let (secrets, cloud, state) = arguments.open(session, &loaded.project.fleet)?;
    Ok(Opened { loaded, secrets, cloud, state })
}

impl Opened {
    /// The selected workers that flotilla deploys, in the order of customers.
    fn workers(&self, chosen: impl Fn(&Worker) -> bool) -> Vec<&Worker> {
        let ours = |worker: &&Worker| {
            self.cloud.local.is_some() || matches!(worker.delivery, Delivery::Automatic | Delivery::Manual)
        };
        self.loaded.workers.iter().filter(ours).filter(|worker| chosen(worker)).collect()
    }

    /// The secrets of [`Opened::workers`], in their order.
    fn needs(&self, session: &Session, chosen: impl Fn(&Worker) -> bool) -> Result<Vec<Needs>, Failure> {
        let workers = self.workers(chosen);
        session.ui.begin("looking up secrets", None);
        self.secrets.prepare(workers.iter().copied());
        let (live, fingerprints) = (self.state.deployed()?, self.state.fingerprints());
        let needs = workers.into_iter().map(|worker| {
            let home = self.cloud.home(&worker.account, worker.namespace.as_deref());
            let live = live.get(&(home, worker.name.clone())).map(|deployed| &deployed.live.secrets);
            let most = self.loaded.project.fleet.limit(&worker.account, Limit::VariableBytes);
            let mut known = BTreeMap::new();
            let rows = worker.secrets.iter().map(|(binding, name)| {
                let before = live.and_then(|live| live.get(binding)).filter(|before| *before != LOST);
                let mut row = Row {
                    customer: worker.customer.clone(),
                    environment: worker.environment,
                    worker: worker.name.clone(),
                    binding: binding.clone(),
                    name: name.clone(),
                    source: None,
                    found_as: None,
                    hidden: None,
                    unreadable: None,
                    deployed: before.is_some(),
                    status: if before.is_some() { Status::Kept } else { Status::Missing },
                    live: None,
                    bytes: 0,
                    most,
                };
                match self.secrets.find(&worker.customer, worker.environment, name) {
                    Finding::Value(found) => {
                        let fingerprint = fingerprints.of(found.value.expose_secret());
                        row.status = match before {
                            Some(before) if *before == fingerprint => Status::Unchanged,
                            Some(_) => Status::Changed,
                            None => Status::New,
                        };
                        known.insert(binding.clone(), fingerprint);
                        row.bytes = found.value.expose_secret().len();
                        (row.source, row.found_as) = (Some(found.source), Some(found.name));
                    }
                    Finding::Nowhere => {}
                    Finding::Hidden { source, why, .. } => {
                        row.hidden = Some(format!("{source}: {why}"));
                        row.unreadable = Some(source);
                    }
                }
                row
            });
            let rows = rows.collect();
            let missing = sending(&worker.secrets, live, &known).err();
            Needs { rows, missing }
        });
        let needs = needs.collect();
        session.ui.end();
        Ok(needs)
    }

    /// The ids of all customers.
    fn customers(&self) -> BTreeSet<&str> {
        let scan = &self.loaded.scan;
        scan.records.iter().map(build::id).chain(scan.held.iter().map(String::as_str)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_or_changed_uploads_a_worker() {
        let uploads = |status| {
            let row = Row {
                customer: String::new(),
                environment: Environment::Production,
                worker: String::new(),
                binding: String::new(),
                name: String::new(),
                source: None,
                found_as: None,
                hidden: None,
                unreadable: None,
                deployed: false,
                status,
                live: None,
                bytes: 0,
                most: 0,
            };
            Needs { rows: vec![row], missing: None }.uploads()
        };
        assert_eq!(
            [Status::Unchanged, Status::Changed, Status::New, Status::Kept, Status::Missing].map(uploads),
            [false, true, true, false, false]
        );
    }
}
