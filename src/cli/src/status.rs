//! `flotilla status`.

use std::time::Duration;

use serde::Serialize;

use flotilla_build::build;
use flotilla_engine::addresses::{dispatched, health_address, known_subdomain, url};
use flotilla_engine::health::{HealthTarget, WorkerHealth, ask_workers};
use flotilla_model::failure::{Exit, Failure};
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
    /// Ask each worker's /health; exit with 4 if one is not well or runs something else
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
    /// The digest that is live; none if it never was deployed.
    digest: Option<String>,
    deployed_at: Option<String>,
    url: Option<String>,
    /// The answer of its /health, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<String>,
    #[serde(skip)]
    live: Option<String>,
    /// The address of its health check.
    #[serde(skip)]
    address: Option<String>,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let loaded = build::load(&session.root, &session.ui).map_err(Failure::invalid)?;
    let CustomersArguments { selection, cloud } = &arguments.customers;
    selection.verify(&session.operator, &loaded.project, &loaded.scan)?;
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
                digest: live.map(|live| live.digest.short()),
                deployed_at: live.map(|live| time(live.deployed_at)),
                url: live.and_then(|live| {
                    url(&cloud, &worker.name, live, subdomain).or_else(|| dispatched(&state, &home, &worker.name))
                }),
                health: None,
                live: live.map(|live| live.digest.to_string()),
                address: live.and_then(|live| {
                    let address = health_address(&cloud, &worker.name, live, subdomain());
                    address.or_else(|| dispatched(&state, &home, &worker.name))
                }),
            }
        })
        .collect();
    let is_healthy = !arguments.health || check_health(session, &mut rows);
    let exit = if is_healthy { Exit::Done } else { Exit::SomeFailed };
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

/// Checks the health of the deployed workers; returns whether all are healthy and run what was deployed.
fn check_health(session: &Session, rows: &mut [Row]) -> bool {
    let target = |row: &Row| Some(HealthTarget { address: row.address.clone()?, digest: row.live.clone()? });
    let targets = rows.iter().map(target).collect();
    let mut all_healthy = true;
    for (row, health) in rows.iter_mut().zip(ask_workers(&session.operator, targets, Duration::ZERO)) {
        let Some(health) = health else { continue };
        all_healthy &= health == WorkerHealth::Healthy;
        row.health = Some(match health {
            WorkerHealth::OtherBundle => "healthy, but runs something else than was deployed".to_owned(),
            other => other.to_string(),
        });
    }
    all_healthy
}
