//! `flotilla preview up`: the line over the project as the preview sees it, what it takes counted before anything is sent, and
//! its workers asked until they run what was uploaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde::Serialize;

use flotilla_build::build;
use flotilla_deploy::cloudflare;
use flotilla_deploy::refresh::{Finding, Inventory, What};
use flotilla_deploy::state::{Found, State, WorkerId};
use flotilla_model::clock::{Clock as _, SystemClock};
use flotilla_model::customer::{Database, SHARED};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;
use flotilla_model::platform::{Call, Health};
use flotilla_model::preview::Preview;
use flotilla_model::progress::Progress as _;
use flotilla_model::selection::Selector;
use flotilla_model::spec::{Environment, PreviewRule};
use flotilla_model::tags;
use flotilla_spec::tree::Tree;

use super::super::apply::{ApplyArguments, Kind, subdomain};
use super::super::cloud::{CloudArguments, FOLDER};
use super::super::deploy::{Applied, LOCK, carry_out};
use super::super::plan::{LineArguments, Planned, line};
use super::super::refresh::Asking;
use super::super::report::{self, count};
use super::super::selection::{Selection, environment};
use super::super::status::{dispatched, url};
use super::super::ui::{Style, clean, time};
use super::super::{Format, Session, summary};
use super::room::{refuse_many, room};
use super::{delete_databases, id};

/// The days after which a preview has expired, unless fleet.yaml or the command line says otherwise.
const DAYS: u16 = 7;
/// The workers of one preview, unless fleet.yaml says otherwise: fewer than a person looks at, more than a change is about.
const MOST: usize = 50;
/// So many workers are asked at once.
const ASKED_AT_ONCE: usize = 16;
/// How long a worker may take to run what was uploaded, unless fleet.yaml says otherwise.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long to wait until it is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// A day, in seconds.
const DAY: i64 = 86_400;

#[derive(clap::Args)]
pub(in super::super) struct Arguments {
    /// The preview's id, such as the number of a pull request
    #[arg(long, value_name = "ID", value_parser = id)]
    id: String,
    /// Customers by id, or by glob as in 'shop-*' [default: all]
    #[arg(value_name = "CUSTOMER")]
    customers: Vec<String>,
    /// Only customers with these labels: tier=gold,region!=eu · key · !key · 'key in (a,b)' · 'key notin (a,b)'
    #[arg(long = "label", short = 'l', value_name = "SELECTOR")]
    labels: Vec<Selector>,
    /// Only customers of whom something is made otherwise than at this commit, branch or tag
    #[arg(long, value_name = "REF")]
    since: Option<String>,
    /// The environment whose settings it takes [default: previews.from of fleet.yaml, or staging]
    #[arg(long, value_name = "ENV", value_parser = environment)]
    from: Option<Environment>,
    /// After so many days it has expired [default: previews.days of fleet.yaml, or 7]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=365))]
    days: Option<u16>,
    #[command(flatten)]
    cloud: CloudArguments,
    /// Put it up without asking
    #[arg(long, short)]
    yes: bool,
    /// Append its addresses as Markdown, for a comment of a pull request
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
}

/// A worker of the preview, as it is now.
#[derive(Serialize)]
struct Row {
    customer: String,
    worker: String,
    address: Option<String>,
    digest: String,
    /// What its /health says; nothing, if it wasn't asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<String>,
    #[serde(skip)]
    well: bool,
    /// Where it is asked.
    #[serde(skip)]
    asked_at: Option<String>,
}

#[derive(Serialize)]
struct Report {
    id: String,
    from: Environment,
    expires: String,
    workers: Vec<Row>,
    applied: usize,
    failed: usize,
    skipped: usize,
    unhealthy: usize,
    requests: u64,
    failures: serde_json::Value,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let Some(Selected { customers, shared, rule }) = selected(session, arguments)? else {
        return Ok(Exit::Diagnostics);
    };
    let most = rule.most.unwrap_or(MOST);
    // Each has a worker, at the least.
    refuse_many(customers.len(), most, "customer")?;
    let from = arguments.from.or(rule.from).unwrap_or(Environment::Staging);
    let preview = Preview {
        id: arguments.id.clone(),
        from,
        domain: rule.domain,
        customers,
        shared: Some(shared),
        hosts: BTreeMap::new(),
    };
    let of_fleet = session;
    let session = &of_fleet.of_preview(preview);
    let days = i64::from(arguments.days.or(rule.days).unwrap_or(DAYS));
    let now = SystemClock::new().unix();
    let expires = now + days * DAY;
    let _lock = Lock::take_from_all(&session.place().join(FOLDER).join(LOCK), "preview up")?;
    let asked = LineArguments {
        cloud: arguments.cloud.clone(),
        prune: true,
        refresh: true,
        applies: true,
        expires,
        ..LineArguments::default()
    };
    let Some(mut planned) = line(session, &asked)? else { return Ok(Exit::Diagnostics) };
    refuse_many(planned.workers, most, "worker")?;
    let inventory = planned.inventory.clone().unwrap_or_default();
    refuse_others(&planned)?;
    // Each machine that puts it up finds what another one deployed.
    planned.findings.retain(|finding| !matches!(finding.what, What::DeployedElsewhere | What::Orphan { .. }));
    room(&planned, &inventory, now)?;
    let kept = databases(&mut planned);
    delete_databases(&mut planned.plan.changes, &inventory, |account, name| {
        kept.contains(&(account.to_owned(), name.to_owned()))
    });
    let apply = ApplyArguments { yes: arguments.yes, max_deletions: Some(usize::MAX), ..ApplyArguments::default() };
    let kind = Kind { what: "preview up", command: "flotilla preview up", reason: "", ahead: false };
    let Applied { mut planned, outcome, platform, exit } = carry_out(session, planned, &apply, &kind)?;
    let mut requests = outcome.requests;
    if outcome.is_complete()
        && let Some(planned) = std::sync::Arc::get_mut(&mut planned)
    {
        requests += renew(session, planned, &inventory, days, now)?;
    }
    let state = State::read(&planned.cloud.state)?;
    let mut rows = Vec::new();
    for ((home, worker), live) in state.deployed()? {
        let found = || state.found(&home.account_id, Found::Subdomain, "").ok().flatten();
        let part = || found().or_else(|| subdomain(&planned.cloud, &home, platform.as_deref()));
        let by_host = dispatched(&state, &home, &worker);
        rows.push(Row {
            address: url(&planned.cloud, &worker, &live, part).or_else(|| by_host.clone()),
            asked_at: planned.cloud.address(&worker, &live, found()).or(by_host),
            digest: live.digest.to_string(),
            customer: live.customer,
            worker,
            health: None,
            well: true,
        });
    }
    let rule = &planned.project.fleet.file.deploy.health;
    let deadline = rule.deadline_seconds.map_or(DEADLINE, Duration::from_secs);
    if outcome.is_complete() && rule.enabled.unwrap_or(true) {
        wait(session, &mut rows, deadline);
    }
    let unhealthy = rows.iter().filter(|row| !row.well).count();
    let report = Report {
        id: arguments.id.clone(),
        from,
        expires: time(expires),
        applied: outcome.applied,
        failed: outcome.failed,
        skipped: outcome.skipped + outcome.hosts_skipped,
        unhealthy,
        requests,
        failures: serde_json::to_value(&outcome.failures).unwrap_or_default(),
        workers: rows,
    };
    summary::append(arguments.summary.as_deref(), &markdown(&report))?;
    match session.format {
        Format::Json => session.json(&report)?,
        Format::Text => text(session, &report),
    }
    Ok(if unhealthy > 0 || !outcome.is_complete() { Exit::SomeFailed } else { exit })
}

/// Who is meant, and what fleet.yaml says of previews.
struct Selected {
    customers: BTreeSet<String>,
    /// The shared workers that are meant themselves, whoever refers to them.
    shared: BTreeSet<String>,
    rule: PreviewRule,
}

/// Finds who is meant. Nothing, if the fleet as a whole has mistakes.
fn selected(session: &Session, arguments: &Arguments) -> Result<Option<Selected>, Failure> {
    let selection = Selection::of(&arguments.customers, &arguments.labels, arguments.since.as_deref());
    let opened = build::open(Tree::new(&session.root), &session.ui).and_then(|project| {
        let scan = match selection.is_all() {
            true => None,
            false => Some(build::scan(&project, false, &session.ui)?),
        };
        Ok((project, scan))
    });
    let (project, scan) = match opened {
        Ok(opened) => opened,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(None);
        }
    };
    let mut shared = BTreeSet::new();
    let customers = match scan {
        None => project.files.iter().map(|file| flotilla_spec::project::id_of(file).to_owned()).collect(),
        Some(scan) => {
            selection.verify(&session.ui, &project, &scan)?;
            let included = scan
                .records
                .iter()
                .filter(|record| record.units.iter().any(|unit| selection.includes_unit(record, unit)));
            let mut ids: BTreeSet<String> = included.map(|record| build::id(record).to_owned()).collect();
            // What is wrong with a spec is told for whom it is meant.
            ids.extend(scan.held.iter().filter(|id| selection.includes_id(id)).cloned());
            let of_shared = scan.records.iter().filter(|record| build::id(record) == SHARED);
            if ids.remove(SHARED) && arguments.customers.is_empty() && arguments.labels.is_empty() {
                // What is made otherwise is meant, also where it is nobody's.
                let units = of_shared.flat_map(|record| record.units.iter().map(move |unit| (record, unit)));
                let differing = units.filter(|(record, unit)| selection.includes_unit(record, unit));
                shared.extend(differing.filter_map(|(_, unit)| unit.role.clone()));
            }
            ids
        }
    };
    Ok(Some(Selected { customers, shared, rule: project.fleet.file.previews.clone() }))
}

/// Refuses to take what is somebody else's: a name or a host of the preview that is in use.
fn refuse_others(planned: &Planned) -> Result<(), Failure> {
    let told = planned.findings.iter().filter_map(|Finding { what, worker, .. }| match what {
        What::Unowned { fleet: Some(fleet) } => Some(format!("the worker {worker} belongs to the fleet {fleet}")),
        What::Unowned { fleet: None } => Some(format!("the worker {worker} is there, and is no fleet's")),
        What::DomainHeld { domain, holder } => Some(format!("{domain} leads to {holder}, which is not the preview's")),
        _ => None,
    });
    let told: Vec<String> = told.collect();
    let Some(first) = told.first() else { return Ok(()) };
    let failure = Failure::refused(format!("{first}; nothing was sent")).hint("put it up under another --id");
    Err(told[1..].iter().fold(failure, |failure, more| failure.hint(more)))
}

/// The D1 databases that the preview's workers have, by account and name.
fn databases(planned: &mut Planned) -> BTreeSet<(String, String)> {
    let workers = planned.scan.workers(&planned.project);
    let named = workers.iter().filter_map(|worker| match &worker.database {
        Database::D1 { name, .. } => Some((planned.cloud.home(&worker.account, None).account_id, name.clone())),
        _ => None,
    });
    named.collect()
}

/// Puts off the end of what was not uploaded anew, once half of its days are over. Gives how many requests that took.
fn renew(session: &Session, planned: &mut Planned, inventory: &Inventory, days: i64, now: i64) -> Result<u64, Failure> {
    let fleet = &planned.project.fleet;
    let owner = fleet.owner();
    let changed: BTreeSet<WorkerId> =
        planned.plan.changes.iter().map(|change| (change.home.clone(), change.worker.clone())).collect();
    let mut late = Vec::new();
    for (home, workers) in &inventory.workers {
        for listed in workers.values() {
            let marks = tags::read(&listed.tags);
            let ends_soon = marks.expires.is_none_or(|expires| expires < now + days * DAY / 2);
            if marks.fleet == Some(&owner) && ends_soon && !changed.contains(&(home.clone(), listed.name.clone())) {
                let tags = tags::renewed(&listed.tags, now + days * DAY);
                late.push((home.clone(), Call::SetTags { worker: listed.name.clone(), tags }));
            }
        }
    }
    if late.is_empty() {
        return Ok(0);
    }
    let account_ids = late.iter().map(|(home, _)| home.account_id.clone()).collect();
    let mut asking = Asking::new(session, fleet, &mut planned.cloud, &planned.secrets, &account_ids)?;
    for (home, call) in late {
        asking.ask(&home, call)?;
    }
    Ok(asking.requests as u64)
}

/// Asks the workers, a few at a time, until they run what was uploaded or it takes too long.
fn wait(session: &Session, rows: &mut [Row], deadline: Duration) {
    let end = Instant::now() + deadline;
    let (sender, receiver) = channel();
    let pool = blocking_threadpool::ThreadPool::new(ASKED_AT_ONCE);
    session.ui.begin("asking workers", Some(rows.len() as u64));
    for (at, row) in rows.iter().enumerate() {
        let Some(address) = row.asked_at.clone() else { continue };
        let (sender, digest, ui) = (sender.clone(), row.digest.clone(), session.ui.clone());
        pool.execute(move || {
            let said = loop {
                let said = match cloudflare::health(&address) {
                    Health::Healthy(runs) if runs == digest => break (true, "healthy".to_owned()),
                    Health::Healthy(_) => "runs something else than was uploaded".to_owned(),
                    Health::Degraded(word) => word,
                    Health::Unreachable(why) => format!("unreachable: {why}"),
                };
                if Instant::now() >= end {
                    break (false, said);
                }
                std::thread::sleep(AGAIN);
            };
            ui.step(1);
            let _ = sender.send((at, said));
        });
    }
    drop(sender);
    for (at, (well, said)) in receiver {
        (rows[at].well, rows[at].health) = (well, Some(said));
    }
    session.ui.end();
}

fn text(session: &Session, report: &Report) {
    let width = |column: fn(&Row) -> &str| report.workers.iter().map(|row| column(row).len()).max().unwrap_or(0);
    let (customer, worker) = (width(|row| &row.customer), width(|row| &row.worker));
    for row in &report.workers {
        let address = row.address.as_deref().unwrap_or("no address of its own");
        let health = row.health.as_deref().unwrap_or_default();
        let style = if row.well { Style::Dim } else { Style::Error };
        report::print(
            format!(
                "{:customer$}  {:worker$}  {}  {}",
                row.customer,
                row.worker,
                clean(address),
                session.ui.paint(style, &clean(health))
            )
            .trim_end(),
        );
    }
    report::print(&format!(
        "preview {}: {}, {} applied, {} failed, {} left undone · {} · until {}",
        report.id,
        count(report.workers.len(), "worker"),
        report.applied,
        report.failed,
        report.skipped,
        count(report.requests as usize, "request"),
        report.expires
    ));
    if report.failed + report.skipped > 0 {
        report::print("run the same command again: what was acknowledged is not repeated");
    }
}

/// The addresses, for a comment.
fn markdown(report: &Report) -> String {
    let mut page = format!("### Preview {}\n\n", report.id);
    if report.workers.is_empty() {
        page += "No worker belongs to it.\n";
    } else {
        page += "| customer | worker | address | |\n|---|---|---|---|\n";
    }
    for row in &report.workers {
        // What isn't a plain address is told as text.
        let is_plain = |address: &&str| {
            address.chars().all(|c| c.is_ascii_alphanumeric() || ":/.-".contains(c)) && address.starts_with("http")
        };
        let address = match row.address.as_deref() {
            Some(address) if is_plain(&address) => address.to_owned(),
            Some(address) => summary::text(address),
            None => String::new(),
        };
        let health = row.health.as_deref().map(summary::text).unwrap_or_default();
        let (customer, worker) = (summary::text(&row.customer), summary::text(&row.worker));
        page += &format!("| {customer} | {worker} | {address} | {health} |\n");
    }
    if report.failed + report.skipped + report.unhealthy > 0 {
        let Report { failed, skipped, unhealthy, .. } = report;
        page += &format!("\n{failed} failed, {skipped} left undone, {unhealthy} not well.\n");
    }
    page + &format!("\nUntil {}.\n", report.expires)
}
