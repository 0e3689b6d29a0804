//! `flotilla state`: what is on record, made anew from the cloud, and who holds the lock.

use std::collections::BTreeSet;

use serde::Serialize;

use flotilla_deploy::refresh::What;
use flotilla_deploy::state::State;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::{Holder, Lock};
use flotilla_model::spec::Environment;
use flotilla_spec::project;
use flotilla_spec::tree::Tree;

use super::cloud::{Cloud, CloudArguments, FOLDER};
use super::deploy::{AHEAD_LOCK, LOCK};
use super::plan::{Wish, wish};
use super::preflight::ask;
use super::refresh::{self, How};
use super::report::{self, count};
use super::status::mask;
use super::ui::{Style, clean, time};
use super::{Format, Session};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Print what is on record, of all workers or of a customer's
    Show(Show),
    /// Make the record anew from what is in the cloud
    Rebuild(Rebuild),
    /// Say who holds the lock of deploys, and remove a note that is stale
    Unlock,
}

#[derive(clap::Args)]
pub(super) struct Show {
    /// The customer
    #[arg(value_name = "CUSTOMER")]
    customer: Option<String>,
    #[command(flatten)]
    cloud: CloudArguments,
}

#[derive(clap::Args)]
pub(super) struct Rebuild {
    #[command(flatten)]
    cloud: CloudArguments,
    /// Replace the record without asking
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
    domains: BTreeSet<String>,
    routes: BTreeSet<String>,
    crons: BTreeSet<String>,
    /// The names of the secrets' bindings.
    secrets: BTreeSet<String>,
    /// What was found to be otherwise in the cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<String>,
    /// Whether a change of it was begun and not ended.
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
    let fleet = match project::read_fleet(&Tree::new(&session.root)) {
        Ok(fleet) => fleet,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(Exit::Diagnostics);
        }
    };
    let secrets = arguments.cloud.secrets(session, &fleet)?;
    let cloud = Cloud::new(session, &fleet, &arguments.cloud, &secrets)?;
    let state = State::read(&cloud.state)?;
    let begun = state.begun()?;
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
            domains: deployed.live.domains.into_keys().collect(),
            routes: deployed.live.routes.into_keys().collect(),
            crons: deployed.live.crons,
            secrets: deployed.live.secrets.into_keys().collect(),
            drift: deployed.drift.map(|drift| drift.to_string()),
            interrupted: begun.contains_key(&id),
            worker: id.1,
        });
    })?;
    rows.sort_by(|a, b| (a.environment, &a.customer, &a.worker).cmp(&(b.environment, &b.customer, &b.worker)));
    if let (Some(customer), true) = (&arguments.customer, rows.is_empty()) {
        return Err(Failure::new(format!("nothing of `{customer}` is on record"))
            .hint("the customers that are: flotilla state show"));
    }
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "workers": rows }))?;
        return Ok(Exit::Done);
    }
    for row in &rows {
        let place =
            row.namespace.as_ref().map_or_else(|| row.account.clone(), |name| format!("{}/{name}", row.account));
        let head = format!(
            "{}  {}  {}  {place}  {}  {}",
            row.customer, row.environment, row.worker, row.digest, row.deployed_at
        );
        report::print(&clean(&head));
        let line = |what: &str, items: &BTreeSet<String>| {
            if !items.is_empty() {
                report::print(&clean(&format!("  {what}  {}", items.iter().cloned().collect::<Vec<_>>().join(", "))));
            }
        };
        if arguments.customer.is_some() {
            line("domains", &row.domains);
            line("routes", &row.routes);
            line("crons", &row.crons);
            line("secrets", &row.secrets);
            line("workers.dev", &BTreeSet::from([if row.workers_dev { "on" } else { "off" }.to_owned()]));
        }
        if let Some(drift) = &row.drift {
            report::print(&format!("  {} {}", session.ui.paint(Style::Warning, "!"), clean(drift)));
        }
        if row.interrupted {
            let sign = session.ui.paint(Style::Warning, "!");
            report::print(&format!("  {sign} a change of it was interrupted; the next deploy ends it"));
        }
    }
    report::print(&format!("{} on record", count(rows.len(), "worker")));
    Ok(Exit::Done)
}

fn rebuild(session: &Session, arguments: &Rebuild) -> Result<Exit, Failure> {
    let _lock = Lock::take_from_all(&session.root.join(FOLDER).join(LOCK), "deploy")?;
    let Some(wish) = wish(session, &arguments.cloud)? else {
        return Ok(Exit::Diagnostics);
    };
    let Wish { project, secrets, mut cloud, wanted, held, whole, homes } = wish;
    if !arguments.yes && cloud.local.is_none() {
        let before = count(State::read(&cloud.state)?.live()?, "worker");
        ask(&format!("replace the record of {before} by what is in the cloud?"))?;
    }
    let mut state = State::open(&cloud.state)?;
    let how = How {
        wanted,
        held: &held,
        whole,
        adopt: BTreeSet::new(),
        homes: &homes,
        anew: true,
        all_domains: true,
        tag: true,
    };
    let truth = refresh::refresh(session, &project.fleet, &mut cloud, &secrets, &mut state, how)?;
    let findings = &truth.refreshed.findings;
    let number = |is: fn(&What) -> bool| findings.iter().filter(|finding| is(&finding.what)).count();
    let rebuilt = Rebuilt {
        workers: state.live()?,
        corrected: truth.corrected,
        changed: number(|what| matches!(what, What::Changed { .. })),
        orphans: number(|what| matches!(what, What::Orphan { .. })),
        missing: truth.missing.len(),
    };
    if session.format == Format::Json {
        session.json(&rebuilt)?;
        return Ok(Exit::Done);
    }
    // That they were deployed by some machine is what all of them have in common.
    let told: Vec<_> = findings.iter().filter(|finding| finding.what != What::DeployedElsewhere).cloned().collect();
    refresh::print(&session.ui, &told);
    report::print(&format!(
        "{} on record now, {} corrected, {} not there any more",
        count(rebuilt.workers, "worker"),
        rebuilt.corrected,
        rebuilt.missing
    ));
    Ok(Exit::Done)
}

fn unlock(session: &Session) -> Result<Exit, Failure> {
    let (mut held, mut told) = (false, Vec::new());
    for (name, what) in [(LOCK, "deploys"), (AHEAD_LOCK, "deploys that go ahead of others")] {
        let path = session.root.join(FOLDER).join(name);
        let note = |note: &Option<flotilla_model::lock::Note>| {
            note.as_ref().map_or_else(|| "a process that left no note".to_owned(), ToString::to_string)
        };
        let (word, text) = match Lock::clear(&path)? {
            Holder::Nobody => ("free", format!("the lock of {what} is free")),
            Holder::Stale(left) => {
                ("cleared", format!("the lock of {what} is free; a note that was left is removed: {}", note(&left)))
            }
            Holder::Process(by) => {
                held = true;
                ("held", format!("the lock of {what} is held: {}", note(&by)))
            }
            Holder::Elsewhere(by, age) => {
                held = true;
                let text = format!(
                    "the lock of {what} is held on another host: {by}; it was heard of {} s ago. If that process is dead, the \
                     lock is free two minutes after it was last heard of",
                    age.as_secs()
                );
                ("elsewhere", text)
            }
        };
        told.push(serde_json::json!({ "lock": name, "holder": word, "text": text }));
        if session.format == Format::Text && (word != "free" || name == LOCK) {
            report::print(&clean(&text));
        }
    }
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "locks": told }))?;
    }
    Ok(if held { Exit::Refused } else { Exit::Done })
}
