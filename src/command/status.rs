//! `flotilla status`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::build;
use crate::failure::{Exit, Failure};
use crate::secrets::Secrets;
use crate::spec::Environment;
use crate::state::{Deployed, Found, State};

use super::cloud::{Cloud, CloudArguments};
use super::report::{self, count};
use super::selection::Selection;
use super::ui::Style;
use super::{Format, Session};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    cloud: CloudArguments,
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
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let secrets = Secrets::read(&session.root, arguments.cloud.env_file.as_deref(), arguments.cloud.local)?;
    let loaded = match build::load(&session.root, &session.ui) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(Exit::Diagnostics);
        }
    };
    arguments.selection.verify(&loaded)?;
    let cloud = Cloud::new(session, &loaded.fleet, &arguments.cloud, &secrets)?;
    let state = State::read(&cloud.state)?;
    let deployed = state.deployed()?;
    let rows: Vec<Row> = loaded
        .workers
        .iter()
        .filter(|worker| arguments.selection.includes(worker))
        .map(|worker| {
            let home = cloud.home(&worker.account, worker.namespace.as_deref());
            let live = deployed.get(&(home.clone(), worker.name.clone()));
            let subdomain = || state.found(&home.account_id, Found::Subdomain, "").ok().flatten();
            Row {
                customer: worker.customer.clone(),
                environment: worker.environment,
                worker: worker.name.clone(),
                account: mask(&home.account_id),
                digest: live.map(|live| live.digest.short()),
                deployed_at: live.map(|live| time(live).to_string()),
                url: live.and_then(|live| url(&cloud, &worker.name, live, subdomain)),
            }
        })
        .collect();
    if session.format == Format::Json {
        report::json(&serde_json::json!({ "workers": rows }))?;
        return Ok(Exit::Done);
    }
    let width = |column: fn(&Row) -> &str| rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0);
    let (customer, worker) = (width(|row| &row.customer), width(|row| &row.worker));
    for row in &rows {
        let live = match (&row.digest, &row.deployed_at) {
            (Some(digest), Some(at)) => {
                format!("{digest}  {at}  {}", row.url.as_deref().unwrap_or("no address of its own"))
            }
            _ => session.ui.paint(Style::Dim, "not deployed"),
        };
        report::print(&format!(
            "{:customer$}  {:11}  {:worker$}  {live}",
            row.customer,
            row.environment.as_str(),
            row.worker
        ));
    }
    let live = rows.iter().filter(|row| row.digest.is_some()).count();
    report::print(&format!("{}, {live} deployed", count(rows.len(), "worker")));
    Ok(Exit::Done)
}

/// The first eight characters of an id: enough to tell ids apart, not enough to use one.
fn mask(id: &str) -> String {
    if id.is_empty() { "not set".to_owned() } else { format!("{}…", id.chars().take(8).collect::<String>()) }
}

fn time(live: &Deployed) -> humantime::Rfc3339Timestamp {
    let since = Duration::from_secs(u64::try_from(live.deployed_at).unwrap_or(0));
    humantime::format_rfc3339_seconds((UNIX_EPOCH + since).min(SystemTime::now()))
}

/// Where a live worker answers.
pub(super) fn url(
    cloud: &Cloud,
    worker: &str,
    live: &Deployed,
    subdomain: impl FnOnce() -> Option<String>,
) -> Option<String> {
    if let Some(port) = cloud.local {
        return Some(format!("http://{worker}.localhost:{port}/"));
    }
    match live.live.domains.keys().next() {
        Some(domain) => Some(format!("https://{domain}/")),
        None if live.live.workers_dev => {
            subdomain().map(|subdomain| format!("https://{worker}.{subdomain}.workers.dev/"))
        }
        None => None,
    }
}
