//! `flotilla state`: shows the state and who holds the lock, and rebuilds it from the cloud.

use std::collections::BTreeSet;

use serde::Serialize;

use flotilla_deploy::refresh::What;
use flotilla_engine::context::{AHEAD_LOCK, FOLDER, LOCK};
use flotilla_engine::rebuild::rebuild_state;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::{Holder, Lock};
use flotilla_model::spec::Environment;
use flotilla_model::text::mask;

use super::apply::given;
use super::cloud::CloudArguments;
use super::findings;
use super::report::{self, count};
use super::table::{Cell, Column, Fit, Table};
use super::ui::{Style, clean, time};
use super::{Format, Session};

/// The columns of the table.
const COLUMNS: [Column<'_>; 6] = [
    Column::new("customer", Fit::Name),
    Column::new("environment", Fit::Whole(2)),
    Column::new("worker", Fit::Name),
    Column::new("account", Fit::Cut(4)),
    Column::new("digest", Fit::Whole(3)),
    Column::new("deployed", Fit::Whole(1)),
];

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Print the state of all workers, or of one customer's workers
    Show(Show),
    /// Rebuild the state from what Cloudflare runs
    Rebuild(Rebuild),
    /// Show who holds the deploy lock, and remove a stale lock file
    Unlock,
}

#[derive(clap::Args)]
pub(super) struct Show {
    /// Customer whose workers to print [default: all]
    #[arg(value_name = "CUSTOMER")]
    customer: Option<String>,
    #[command(flatten)]
    cloud: CloudArguments,
}

#[derive(clap::Args)]
pub(super) struct Rebuild {
    #[command(flatten)]
    cloud: CloudArguments,
    /// Skip the confirmation prompt
    #[arg(long, short)]
    yes: bool,
}

#[derive(Serialize)]
struct Row {
    customer: String,
    environment: Environment,
    worker: String,
    /// Masked.
    account: String,
    namespace: Option<String>,
    digest: String,
    deployed_at: String,
    workers_dev: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    preview_urls: bool,
    domains: BTreeSet<String>,
    routes: BTreeSet<String>,
    crons: BTreeSet<String>,
    /// The queues that it consumes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    queue_consumers: BTreeSet<String>,
    /// The workflows that it runs.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    workflows: BTreeSet<String>,
    /// The tag of the last migration of its Durable Object classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    migration_tag: Option<String>,
    /// The names of the secrets' bindings.
    secrets: BTreeSet<String>,
    /// The drift that was found in the cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<String>,
    /// Whether a change of it is in flight or was interrupted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interrupted: bool,
}

#[derive(Serialize)]
struct Rebuilt {
    workers: usize,
    corrected: usize,
    changed: usize,
    orphans: usize,
    missing: usize,
}

pub(super) fn run(session: &Session, command: &Command) -> Result<Exit, Failure> {
    match command {
        Command::Show(arguments) => show(session, arguments),
        Command::Rebuild(arguments) => rebuild(session, arguments),
        Command::Unlock => unlock(session),
    }
}

fn show(session: &Session, arguments: &Show) -> Result<Exit, Failure> {
    let state = arguments.cloud.state(session)?;
    let in_flight = state.in_flight()?;
    let mut rows = Vec::new();
    state.each(|id, deployed| {
        if arguments.customer.as_ref().is_some_and(|customer| *customer != deployed.customer) {
            return;
        }
        rows.push(Row {
            customer: deployed.customer,
            environment: deployed.environment,
            account: mask(&id.0.account_id),
            namespace: id.0.namespace.clone(),
            digest: deployed.digest.short(),
            deployed_at: time(deployed.deployed_at),
            workers_dev: deployed.live.workers_dev,
            preview_urls: deployed.live.preview_urls,
            domains: deployed.live.domains.into_keys().collect(),
            routes: deployed.live.routes.into_keys().collect(),
            crons: deployed.live.crons,
            queue_consumers: deployed.live.consumers.into_keys().collect(),
            workflows: deployed.live.workflows.into_keys().collect(),
            migration_tag: deployed.live.migration_tag,
            secrets: deployed.live.secrets.into_keys().collect(),
            drift: deployed.drift.map(|drift| drift.to_string()),
            interrupted: in_flight.contains_key(&id),
            worker: id.1,
        });
    })?;
    rows.sort_by(|a, b| (a.environment, &a.customer, &a.worker).cmp(&(b.environment, &b.customer, &b.worker)));
    if let (Some(customer), true) = (&arguments.customer, rows.is_empty()) {
        return Err(Failure::new(format!("the state has no worker of `{customer}`"))
            .hint("list its customers: flotilla state show"));
    }
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "workers": rows }))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&COLUMNS);
    for row in &rows {
        let place =
            row.namespace.as_ref().map_or_else(|| row.account.clone(), |name| format!("{}/{name}", row.account));
        let cells = [&row.customer, row.environment.as_ref(), &row.worker, &place, &row.digest, &row.deployed_at];
        table.row(cells.map(|cell| Cell::from(clean(cell))));
        let mut line = |what: &str, items: &BTreeSet<String>| {
            if !items.is_empty() {
                table.note(clean(&format!("  {what}  {}", items.iter().cloned().collect::<Vec<_>>().join(", "))));
            }
        };
        if arguments.customer.is_some() {
            line("domains", &row.domains);
            line("routes", &row.routes);
            line("crons", &row.crons);
            line("consumes", &row.queue_consumers);
            line("workflows", &row.workflows);
            line("migration", &row.migration_tag.iter().cloned().collect());
            line("secrets", &row.secrets);
            line("workers.dev", &BTreeSet::from([if row.workers_dev { "on" } else { "off" }.to_owned()]));
            line("preview URLs", &row.preview_urls.then(|| "on".to_owned()).into_iter().collect());
        }
        if let Some(drift) = &row.drift {
            table.note(format!("  {} {}", session.ui.paint(Style::Warning, "!"), clean(drift)));
        }
        if row.interrupted {
            let sign = session.ui.paint(Style::Warning, "!");
            table.note(format!("  {sign} a change was interrupted; the next deploy finishes it"));
        }
    }
    table.print(&session.ui);
    report::print(&format!("{} in the state", count(rows.len(), "worker")));
    Ok(Exit::Done)
}

fn rebuild(session: &Session, arguments: &Rebuild) -> Result<Exit, Failure> {
    let rebuilt = rebuild_state(&session.context(), &arguments.cloud.options(), &given(arguments.yes, false))?;
    let exit = if rebuilt.refused.is_empty() { Exit::Done } else { Exit::SomeFailed };
    if session.format == Format::Json {
        session.json(&Rebuilt {
            workers: rebuilt.workers,
            corrected: rebuilt.corrected,
            changed: rebuilt.number(|what| matches!(what, What::Changed { .. })),
            orphans: rebuilt.number(|what| matches!(what, What::Orphan { .. })),
            missing: rebuilt.missing,
        })?;
        return Ok(exit);
    }
    // All of them have been deployed by some machine.
    let shown: Vec<_> =
        rebuilt.findings.iter().filter(|found| found.what != What::DeployedElsewhere).cloned().collect();
    findings::print(&session.ui, &shown);
    report::print(&format!(
        "{} in the state, {} corrected, {} no longer at Cloudflare",
        count(rebuilt.workers, "worker"),
        rebuilt.corrected,
        rebuilt.missing
    ));
    Ok(exit)
}

fn unlock(session: &Session) -> Result<Exit, Failure> {
    let (mut held, mut locks) = (false, Vec::new());
    for (name, what) in [(LOCK, "deploys"), (AHEAD_LOCK, "deploys that go ahead of others")] {
        let path = session.root.join(FOLDER).join(name);
        let note = |note: &Option<flotilla_model::lock::Note>| {
            note.as_ref().map_or_else(|| "an unknown process".to_owned(), ToString::to_string)
        };
        let (word, text) = match Lock::clear(&path, &session.ui)? {
            Holder::Nobody => ("free", format!("the lock of {what} is free")),
            Holder::Stale(left) => {
                ("cleared", format!("the lock of {what} is free; removed a stale lock file of {}", note(&left)))
            }
            Holder::Process(by) => {
                held = true;
                ("held", format!("the lock of {what} is held by {}", note(&by)))
            }
            Holder::Elsewhere(by, age) => {
                held = true;
                let text = format!(
                    "the lock of {what} is held on another host: {by}; it was last renewed {} s ago. If that process was just killed, run this command again in 20 s: flotilla then waits for the lock to be renewed, and removes it if it isn't",
                    age.as_secs()
                );
                ("elsewhere", text)
            }
        };
        locks.push(serde_json::json!({ "lock": name, "holder": word, "text": text }));
        if session.format == Format::Text && (word != "free" || name == LOCK) {
            report::print(&clean(&text));
        }
    }
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "locks": locks }))?;
    }
    Ok(if held { Exit::Refused } else { Exit::Done })
}
