//! `flotilla status`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use flotilla_build::build;
use flotilla_engine::addresses::{dispatched, health_address, known_subdomain, url};
use flotilla_engine::health::{check_health, health_check};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::platform::{Health, HealthCheck};
use flotilla_model::spec::Environment;
use flotilla_model::text::mask;

use super::cloud::CustomersArguments;
use super::report::{self, count};
use super::ui::{Style, time};
use super::{Format, Session};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    customers: CustomersArguments,
    /// Also request each worker's /health; exit with 4 if one is unhealthy or runs another bundle
    #[arg(long)]
    health: bool,
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

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let mut loaded = build::load(&session.root, &session.ui).map_err(Failure::invalid)?;
    let CustomersArguments { selection, cloud } = &arguments.customers;
    selection.verify(&session.operator, &loaded.project, &mut loaded.scan)?;
    let (_, cloud, state) = cloud.open(session, &loaded.project.fleet)?;
    let deployed = state.deployed()?;
    let mut rows: Vec<Row> = loaded
        .workers
        .iter()
        .filter(|worker| selection.includes(worker))
        .map(|worker| {
            let home = cloud.home(&worker.account, worker.namespace.as_deref());
            let live = deployed.get(&(home.clone(), worker.name.clone()));
            let subdomain = || known_subdomain(&state, &home);
            Row {
                customer: worker.customer.clone(),
                environment: worker.environment,
                worker: worker.name.clone(),
                account: mask(&home.account_id),
                is_unknown: home.account_id.is_empty() || !cloud.invalid([worker.account.as_str()]).is_empty(),
                digest: live.map(|live| live.digest.short()),
                deployed_at: live.map(|live| time(live.deployed_at)),
                url: live.and_then(|live| {
                    url(&cloud, &worker.name, live, subdomain).or_else(|| dispatched(&state, &home, &worker.name))
                }),
                health: None,
                check: live.and_then(|live| {
                    let address = health_address(&cloud, &worker.name, live, subdomain());
                    let address = address.or_else(|| dispatched(&state, &home, &worker.name))?;
                    health_check(&loaded.project.fleet, Some(&worker.pack), address, &worker.name, live)
                }),
            }
        })
        .collect();
    let is_healthy = !arguments.health || add_health(session, &mut rows);
    let selected = loaded.workers.iter().filter(|worker| selection.includes(worker));
    let accounts: BTreeSet<&str> = selected.map(|worker| worker.account.as_str()).collect();
    // What is invalid was reported when the cloud was opened.
    let is_invalid = !cloud.invalid(accounts.iter().copied()).is_empty();
    let unknown = unknown_accounts(&cloud.unknown(accounts));
    let exit = match (unknown.is_some() || is_invalid, is_healthy) {
        (true, _) => Exit::Diagnostics,
        (false, true) => Exit::Done,
        (false, false) => Exit::SomeFailed,
    };
    if let Some(failure) = &unknown {
        session.ui.failure(failure);
    }
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "workers": rows }))?;
        return Ok(exit);
    }
    let width = |column: fn(&Row) -> &str| rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0);
    let (customer, worker) = (width(|row| &row.customer), width(|row| &row.worker));
    for row in &rows {
        let live = match (&row.digest, &row.deployed_at) {
            (Some(digest), Some(at)) => {
                let health = row.health.as_deref().map(|health| format!("  {health}")).unwrap_or_default();
                format!("{digest}  {at}  {}{health}", row.url.as_deref().unwrap_or("no address of its own"))
            }
            _ if row.is_unknown => session.ui.paint(Style::Dim, "unknown: the account's id is not set or invalid"),
            _ => session.ui.paint(Style::Dim, "not deployed"),
        };
        report::print(&format!(
            "{:customer$}  {:11}  {:worker$}  {live}",
            row.customer,
            row.environment.as_ref(),
            row.worker
        ));
    }
    let live = rows.iter().filter(|row| row.digest.is_some()).count();
    report::print(&format!("{}, {live} deployed", count(rows.len(), "worker")));
    Ok(exit)
}

/// Returns the failure for accounts whose ids aren't known: whether their workers are deployed isn't known, either.
fn unknown_accounts(unknown: &[&str]) -> Option<Failure> {
    let message = format!("the id of {} is not set, so what is deployed there is unknown", unknown.join(", "));
    let hint = "set it as fleet.yaml names it, by default CLOUDFLARE_ACCOUNT_ID; --local shows the local emulator's";
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
