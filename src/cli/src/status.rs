//! `flotilla status`.

use serde::Serialize;

use flotilla_build::build;
use flotilla_deploy::cloudflare;
use flotilla_deploy::state::{Deployed, Found, State};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::platform::{Health, Home};
use flotilla_model::progress::Progress as _;
use flotilla_model::spec::Environment;

use super::cloud::{Cloud, CloudArguments};
use super::report::{self, count};
use super::selection::Selection;
use super::ui::{Style, time};
use super::{Format, Session};

/// So many workers are asked at once.
const ASKED_AT_ONCE: usize = 16;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    cloud: CloudArguments,
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
    /// What its /health says, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<String>,
    #[serde(skip)]
    live: Option<String>,
    /// Where it is asked.
    #[serde(skip)]
    address: Option<String>,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let loaded = match build::load(&session.root, &session.ui) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(Exit::Diagnostics);
        }
    };
    arguments.selection.verify(&session.ui, &loaded.project, &loaded.scan)?;
    let secrets = arguments.cloud.secrets(session, &loaded.project.fleet)?;
    let cloud = Cloud::new(session, &loaded.project.fleet, &arguments.cloud, &secrets)?;
    let state = State::read(&cloud.state)?;
    let deployed = state.deployed()?;
    let mut rows: Vec<Row> = loaded
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
                deployed_at: live.map(|live| time(live.deployed_at)),
                url: live.and_then(|live| {
                    url(&cloud, &worker.name, live, subdomain).or_else(|| dispatched(&state, &home, &worker.name))
                }),
                health: None,
                live: live.map(|live| live.digest.to_string()),
                address: live.and_then(|live| {
                    let address = cloud.address(&worker.name, live, subdomain());
                    address.or_else(|| dispatched(&state, &home, &worker.name))
                }),
            }
        })
        .collect();
    let well = !arguments.health || ask(session, &mut rows);
    let exit = if well { Exit::Done } else { Exit::SomeFailed };
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
            row.environment.as_str(),
            row.worker
        ));
    }
    let live = rows.iter().filter(|row| row.digest.is_some()).count();
    report::print(&format!("{}, {live} deployed", count(rows.len(), "worker")));
    Ok(exit)
}

/// Asks the deployed workers how they are, a few at a time; says whether all are well and run what was deployed.
fn ask(session: &Session, rows: &mut [Row]) -> bool {
    let (sender, receiver) = std::sync::mpsc::channel();
    let pool = blocking_threadpool::ThreadPool::new(ASKED_AT_ONCE);
    session.ui.begin("asking workers", Some(rows.len() as u64));
    for (at, row) in rows.iter().enumerate() {
        let (Some(address), Some(digest)) = (row.address.clone(), &row.live) else { continue };
        let (sender, digest, ui) = (sender.clone(), digest.clone(), session.ui.clone());
        pool.execute(move || {
            let said = match cloudflare::health(&address) {
                Health::Healthy(runs) if runs == digest => (true, "healthy".to_owned()),
                Health::Healthy(_) => (false, "healthy, but runs something else than was deployed".to_owned()),
                Health::Degraded(word) => (false, word),
                Health::Unreachable(why) => (false, format!("unreachable: {why}")),
            };
            ui.step(1);
            let _ = sender.send((at, said));
        });
    }
    drop(sender);
    let mut all_well = true;
    for (at, (well, said)) in receiver {
        all_well &= well;
        rows[at].health = Some(said);
    }
    session.ui.end();
    all_well
}

/// The first eight characters of an id: enough to tell ids apart, not enough to use one.
pub(super) fn mask(id: &str) -> String {
    if id.is_empty() { "not set".to_owned() } else { format!("{}…", id.chars().take(8).collect::<String>()) }
}

/// Where the dispatch worker leads to a worker of its namespace, as far as the state knows.
pub(super) fn dispatched(state: &State, home: &Home, worker: &str) -> Option<String> {
    home.namespace.as_ref()?;
    state.host_of(home, worker).ok()?.map(|host| format!("https://{host}/"))
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
