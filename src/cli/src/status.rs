//! `flotilla status`: what the specs define, and what is deployed, whether or not a valid spec defines it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use serde::Serialize;

use flotilla_build::build::{self, Loaded};
use flotilla_deploy::state::{Deployed, State, WorkerId};
use flotilla_engine::addresses::{dispatched, health_address, known_subdomain, url};
use flotilla_engine::cloud::Cloud;
use flotilla_engine::health::{check_health, health_check};
use flotilla_model::customer::SHARED;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::platform::Home;
use flotilla_model::platform::{Health, HealthCheck};
use flotilla_model::spec::Environment;
use flotilla_model::text::{self, mask};
use flotilla_spec::project::{Fleet, FleetReading, read_fleet_in_part, unknown_fleet};
use flotilla_spec::tree::Tree;

use super::cloud::CustomersArguments;
use super::database_rows::{DatabaseRow, databases};
use super::report::{self, count};
use super::selection::Selection;
use super::table::{Cell, Column, Fit, Table};
use super::ui::{Style, clean, time};
use super::{Format, Session};

/// The number of customers with errors that are named.
const NAMES: usize = 12;
/// The columns of the table.
const COLUMNS: [Column<'_>; 8] = [
    Column::new("customer", Fit::Name),
    Column::new("environment", Fit::Whole(3)),
    Column::new("worker", Fit::Name),
    Column::new("digest", Fit::Whole(6)),
    Column::new("deployed", Fit::Whole(1)),
    Column::new("address", Fit::Whole(5)),
    Column::new("health", Fit::Whole(2)),
    Column::new("spec", Fit::Whole(4)),
];

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    customers: CustomersArguments,
    /// Also request each worker's /health; exit with 4 if one is unhealthy or runs another bundle
    #[arg(long)]
    health: bool,
}

/// Whether a spec defines a worker.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Spec {
    Valid,
    /// The customer's spec has errors.
    Invalid,
    /// No spec defines it.
    None,
    /// The fleet can't be read.
    Unknown,
}

impl Spec {
    fn cell(self) -> Cell {
        match self {
            Spec::Valid => Cell::default(),
            Spec::Invalid => Cell::styled("has errors", Style::Error),
            Spec::None => Cell::styled("none: `flotilla prune` deletes it", Style::Warning),
            Spec::Unknown => Cell::styled("unknown", Style::Dim),
        }
    }
}

#[derive(Serialize)]
struct Row {
    customer: String,
    environment: Environment,
    worker: String,
    /// The account's id, masked.
    account: String,
    /// Whether the account's id isn't known, and so neither whether it is deployed.
    #[serde(skip)]
    is_unknown: bool,
    /// Whether a spec defines it.
    spec: Spec,
    /// The digest that is live; none if it never was deployed.
    digest: Option<String>,
    deployed_at: Option<String>,
    url: Option<String>,
    /// The answer of its /health, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<String>,
    /// Its health check; none if it isn't deployed, has no address, or its pack names no check.
    #[serde(skip)]
    check: Option<HealthCheck>,
}

/// The inputs of rows.
struct Sources<'a> {
    fleet: &'a Fleet,
    cloud: &'a Cloud,
    state: &'a State,
}

impl Sources<'_> {
    /// Returns the row of a worker. `pack`: the one that its spec names.
    fn row(
        &self,
        (home, worker): &WorkerId,
        of: (&str, Environment, Spec),
        live: Option<&Deployed>,
        pack: Option<&str>,
    ) -> Row {
        let Sources { fleet, cloud, state } = self;
        let subdomain = || known_subdomain(fleet, cloud, state, home);
        Row {
            customer: of.0.to_owned(),
            environment: of.1,
            worker: worker.clone(),
            account: mask(&home.account_id),
            is_unknown: home.account_id.is_empty(),
            spec: of.2,
            digest: live.map(|live| live.digest.short()),
            deployed_at: live.map(|live| time(live.deployed_at)),
            url: live.and_then(|live| url(cloud, worker, live, subdomain).or_else(|| dispatched(state, home, worker))),
            health: None,
            check: live.and_then(|live| {
                let address = health_address(cloud, worker, live, subdomain);
                let address = address.or_else(|| dispatched(state, home, worker))?;
                health_check(fleet, pack, address, worker, live)
            }),
        }
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let CustomersArguments { selection, cloud } = &arguments.customers;
    let (mut loaded, errors) = match build::load(&session.root, &session.ui) {
        Ok(loaded) => (Some(loaded), Vec::new()),
        Err(errors) => (None, errors),
    };
    if let Some(loaded) = &mut loaded {
        selection.verify(&session.operator, &loaded.project, &mut loaded.scan)?;
    }
    // The state shows what is deployed, even if the files have errors, as long as the accounts are known.
    let in_part;
    let fleet = match &loaded {
        Some(loaded) => &loaded.project.fleet,
        None => match read_fleet_in_part(&Tree::new(&session.root)) {
            FleetReading { fleet: Some(mut fleet), .. } => {
                fleet.accounts.set_own(build::own_accounts(&session.root));
                in_part = fleet;
                &in_part
            }
            FleetReading { fleet: None, .. } => {
                in_part = unknown_fleet(&Tree::new(&session.root));
                &in_part
            }
        },
    };
    let (_, cloud, state) = cloud.open(session, fleet)?;
    let deployed = state.deployed()?;
    if loaded.is_none() && deployed.is_empty() {
        return Err(Failure::invalid(errors));
    }
    report::diagnostics(&session.root, &session.ui, &errors);
    let sources = Sources { fleet, cloud: &cloud, state: &state };
    let mut rows = rows(&sources, loaded.as_ref(), selection, &deployed);
    let is_healthy = !arguments.health || add_health(session, &mut rows);
    let workers = loaded.iter().flat_map(|loaded| &loaded.workers).filter(|worker| selection.includes(worker));
    let mut accounts: BTreeSet<&str> = workers.map(|worker| worker.account.as_str()).collect();
    let held = loaded.iter().flat_map(|loaded| &loaded.scan.held);
    let invalid: BTreeSet<&str> =
        held.map(String::as_str).filter(|id| *id != SHARED && selection.includes_id(id)).collect();
    if !invalid.is_empty() {
        // Nobody knows which accounts they use.
        accounts.extend(fleet.accounts.keys().map(String::as_str));
    }
    // What is invalid was reported when the cloud was opened.
    let is_invalid = !cloud.invalid(accounts.iter().copied()).is_empty();
    let unknown = unknown_accounts(&cloud.unknown(accounts));
    let migrated = match &loaded {
        Some(loaded) => databases(loaded, &cloud, &state, |worker| selection.includes(worker))?,
        None => Vec::new(),
    };
    let behind: Vec<&DatabaseRow> = migrated.iter().filter(|row| row.is_behind()).collect();
    let exit = match (unknown.is_some() || is_invalid || !errors.is_empty(), is_healthy) {
        (true, _) => Exit::Diagnostics,
        (false, true) => Exit::Done,
        (false, false) => Exit::SomeFailed,
    };
    if let Some(failure) = &unknown {
        session.ui.failure(failure);
    }
    if session.format == Format::Json {
        let mut object = serde_json::json!({ "workers": rows, "invalid": invalid });
        if !migrated.is_empty() {
            object["databases_behind"] = serde_json::to_value(&behind).map_err(anyhow::Error::from)?;
        }
        if !errors.is_empty() {
            object["error"] = "the fleet has errors: what its specs define is unknown".into();
            object["diagnostics"] = serde_json::to_value(&errors).map_err(anyhow::Error::from)?;
        }
        session.json(&object)?;
        return Ok(exit);
    }
    let mut table = Table::new(&COLUMNS);
    for row in &rows {
        let (deployed, address) = match &row.deployed_at {
            Some(at) => (Cell::from(at.as_str()), Cell::from(row.url.as_deref().unwrap_or("no address of its own"))),
            None if row.is_unknown => (Cell::styled("unknown", Style::Dim), Cell::default()),
            None => (Cell::styled("not deployed", Style::Dim), Cell::default()),
        };
        let digest = row.digest.clone().unwrap_or_default();
        let health = row.health.clone().unwrap_or_default();
        table.row([
            Cell::from(clean(&row.customer)),
            Cell::from(row.environment.as_ref()),
            Cell::from(clean(&row.worker)),
            Cell::from(digest),
            deployed,
            address,
            Cell::from(clean(&health)),
            row.spec.cell(),
        ]);
    }
    table.print(&session.ui);
    for account in without_subdomain(&sources, &deployed, &rows) {
        session.ui.line(&clean(&format!(
            "the workers.dev addresses of the account `{account}` are not known here: `flotilla verify` asks Cloudflare for its subdomain, and \
             `subdomain` in fleet.yaml sets it"
        )));
    }
    if !invalid.is_empty() {
        let names: Vec<String> = invalid.iter().map(|id| clean(id)).collect();
        let have = if names.len() == 1 { "has" } else { "have" };
        report::print(&format!(
            "{} {} {have} errors, which `flotilla check` shows: {}",
            session.ui.paint(Style::Warning, "!"),
            count(names.len(), "customer"),
            text::names(&names, NAMES)
        ));
    }
    if !behind.is_empty() {
        report::print(&format!(
            "{} migrations are pending for {}: `flotilla migrations status` shows which",
            session.ui.paint(Style::Warning, "!"),
            count(behind.len(), "database")
        ));
    }
    let live = rows.iter().filter(|row| row.digest.is_some()).count();
    report::print(&format!("{}, {live} deployed", count(rows.len(), "worker")));
    Ok(exit)
}

/// Returns the rows of the workers that valid specs define, and of those that are deployed without one.
fn rows(
    sources: &Sources<'_>,
    loaded: Option<&Loaded>,
    selection: &Selection,
    deployed: &BTreeMap<WorkerId, Deployed>,
) -> Vec<Row> {
    let mut defined: HashSet<WorkerId> = HashSet::new();
    // The id of an account may not be set here.
    let mut by_account: HashSet<(&str, Option<&str>, &str)> = HashSet::new();
    let mut rows = Vec::new();
    for worker in loaded.iter().flat_map(|loaded| &loaded.workers) {
        let id = (sources.cloud.home(&worker.account, worker.namespace.as_deref()), worker.name.clone());
        if selection.includes(worker) {
            let of = (worker.customer.as_str(), worker.environment, Spec::Valid);
            let mut row = sources.row(&id, of, deployed.get(&id), Some(&worker.pack));
            row.is_unknown |= !sources.cloud.invalid([worker.account.as_str()]).is_empty();
            rows.push(row);
        }
        defined.insert(id);
        by_account.insert((&worker.account, worker.namespace.as_deref(), &worker.name));
    }
    let is_defined = |id: &WorkerId, live: &Deployed| {
        defined.contains(id)
            || (!sources.cloud.unknown([live.account.as_str()]).is_empty()
                && by_account.contains(&(live.account.as_str(), id.0.namespace.as_deref(), id.1.as_str())))
    };
    for (id, live) in deployed.iter().filter(|(id, live)| !is_defined(id, live)) {
        let spec = match loaded {
            None => Spec::Unknown,
            Some(loaded) if loaded.scan.held.contains(&live.customer) => Spec::Invalid,
            // A spec that can't be read may define it.
            Some(loaded) if loaded.scan.unread => Spec::Unknown,
            Some(_) => Spec::None,
        };
        if selection.includes_deployed(&live.customer, live.environment)
            && (spec == Spec::Invalid || !selection.has_labels())
        {
            rows.push(sources.row(id, (&live.customer, live.environment, spec), Some(live), None));
        }
    }
    rows.sort_by(|a, b| (a.environment, &a.customer, &a.worker).cmp(&(b.environment, &b.customer, &b.worker)));
    rows
}

/// Returns the accounts of deployed workers whose only address is on workers.dev, and isn't known.
fn without_subdomain(
    Sources { fleet, cloud, state }: &Sources<'_>,
    deployed: &BTreeMap<WorkerId, Deployed>,
    rows: &[Row],
) -> BTreeSet<String> {
    let shown: HashSet<&str> = rows.iter().filter(|row| row.url.is_none()).map(|row| row.worker.as_str()).collect();
    let is_on_workers_dev = |live: &Deployed| live.live.workers_dev && live.live.domains.is_empty();
    let without = deployed.iter().filter(|((home, worker), live)| {
        cloud.local.is_none() && home.namespace.is_none() && is_on_workers_dev(live) && shown.contains(worker.as_str())
    });
    let accounts: BTreeMap<&Home, &str> = without.map(|((home, _), live)| (home, live.account.as_str())).collect();
    let unknown = accounts.into_iter().filter(|(home, _)| known_subdomain(fleet, cloud, state, home).is_none());
    unknown.map(|(_, account)| account.to_owned()).collect()
}

/// Returns the failure for accounts whose ids aren't known: whether their workers are deployed isn't known, either.
pub(super) fn unknown_accounts(unknown: &[&str]) -> Option<Failure> {
    let message = format!("the id of {} is not set, so what is deployed there is unknown", unknown.join(", "));
    let hint = "set the variable that fleet.yaml names, by default CLOUDFLARE_ACCOUNT_ID; --local shows the workers of the local emulator";
    (!unknown.is_empty()).then(|| Failure::new(message).hint(hint))
}

/// Checks the health of the deployed workers; returns whether all that have a health check are healthy.
fn add_health(session: &Session, rows: &mut [Row]) -> bool {
    let checks = rows.iter().map(|row| row.check.clone()).collect();
    let mut all_healthy = true;
    for (row, health) in rows.iter_mut().zip(check_health(&session.operator, checks, Duration::ZERO)) {
        let Some(health) = health else {
            row.health = row.digest.is_some().then(|| "no health check".to_owned());
            continue;
        };
        all_healthy &= health == Health::Healthy;
        row.health = Some(health.to_string());
    }
    all_healthy
}
