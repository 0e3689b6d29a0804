//! `flotilla secrets list --live`: the secrets that specs need beside those that are set at Cloudflare.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use flotilla_deploy::state::WorkerId;
use flotilla_engine::live_secrets::{LiveSecrets, list_live_secrets, mark_lost_secrets};
use flotilla_model::customer::Worker;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::spec::Environment;

use super::super::report::{self, count};
use super::super::selection::Selection;
use super::super::table::{Cell, Column, Fit, Table};
use super::super::ui::{Style, clean};
use super::super::{Format, Session};
use super::{Opened, Row, Status};

/// The columns of the table.
const COLUMNS: [Column<'_>; 6] = [
    Column::new("customer", Fit::Name),
    Column::new("environment", Fit::Whole(3)),
    Column::new("worker", Fit::Whole(4)),
    Column::new("secret", Fit::Name),
    Column::new("live", Fit::Whole(1)),
    Column::new("next deploy", Fit::Cut(2)),
];

/// Whether Cloudflare has a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Presence {
    /// It is set.
    Set,
    /// The worker is deployed without it.
    Missing,
    /// There is no such worker.
    NotDeployed,
    /// The worker's secrets could not be listed.
    Unknown,
}

/// A worker, and something about it.
#[derive(Debug, Serialize)]
struct OfWorker<T> {
    customer: String,
    environment: Environment,
    worker: String,
    #[serde(flatten)]
    about: T,
}

impl<T> OfWorker<T> {
    fn new(worker: &Worker, about: T) -> OfWorker<T> {
        OfWorker {
            customer: worker.customer.clone(),
            environment: worker.environment,
            worker: worker.name.clone(),
            about,
        }
    }
}

/// A secret that is set and that no spec names.
#[derive(Debug, Serialize)]
struct NotInSpec {
    binding: String,
}

/// The reason why a worker's secrets aren't known.
#[derive(Debug, Serialize)]
struct Unlisted {
    error: String,
}

#[derive(Serialize)]
struct Report {
    secrets: Vec<Row>,
    not_in_spec: Vec<OfWorker<NotInSpec>>,
    failures: Vec<OfWorker<Unlisted>>,
}

pub(super) fn run(session: &Session, mut opened: Opened, selection: &Selection) -> Result<Exit, Failure> {
    let is_selected = |worker: &Worker| selection.includes(worker);
    let needs = opened.needs(session, is_selected)?;
    // The workers come from the specs, and the emulator is started if it is used: both belong to what was opened.
    let workers: Vec<Worker> = opened.workers(is_selected).into_iter().cloned().collect();
    let of_specs: Vec<&Worker> = workers.iter().collect();
    let fleet = &opened.loaded.project.fleet;
    let listed = list_live_secrets(&session.context(), fleet, &mut opened.cloud, &opened.secrets, &of_specs)?;
    let mut report = Report { secrets: Vec::new(), not_in_spec: Vec::new(), failures: Vec::new() };
    let mut table = Table::new(&COLUMNS);
    for ((worker, needs), listed) in workers.iter().zip(needs).zip(listed) {
        let presence = |binding: &str| match &listed {
            LiveSecrets::Set(names) if names.contains(binding) => Presence::Set,
            LiveSecrets::Set(_) => Presence::Missing,
            LiveSecrets::NotDeployed => Presence::NotDeployed,
            LiveSecrets::Unknown(_) => Presence::Unknown,
        };
        for row in needs.rows {
            let row = Row { live: Some(presence(&row.binding)), ..row };
            table.row(named(&row));
            report.secrets.push(row);
        }
        match &listed {
            LiveSecrets::Set(names) => {
                let others = names.iter().filter(|name| !worker.secrets.contains_key(*name));
                for other in others.map(|name| OfWorker::new(worker, NotInSpec { binding: name.clone() })) {
                    table.row(extra(&other));
                    report.not_in_spec.push(other);
                }
            }
            LiveSecrets::NotDeployed => {}
            LiveSecrets::Unknown(error) => {
                report.failures.push(OfWorker::new(worker, Unlisted { error: error.clone() }));
            }
        }
    }
    let is_marked = mark(session, &opened, &workers, &report)?;
    let number = |presence| report.secrets.iter().filter(|row| row.live == Some(presence)).count();
    let missing = number(Presence::Missing);
    let exit = match (missing, report.failures.len()) {
        (1.., _) => Exit::Diagnostics,
        (0, 1..) => Exit::SomeFailed,
        (0, 0) => Exit::Done,
    };
    if session.format == Format::Json {
        session.json(&report)?;
        return Ok(exit);
    }
    table.print(&session.ui);
    let paint = |style, word: &str| session.ui.paint(style, word);
    let mut last = "";
    for failure in &report.failures {
        // One token's failure concerns all workers of its account.
        if last != failure.about.error {
            let line = format!("{}: {}", clean(&failure.worker), clean(&failure.about.error));
            session.ui.line(&format!("{} {line}", paint(Style::Error, "not listed:")));
        }
        last = &failure.about.error;
    }
    if is_marked {
        session.ui.line(&format!(
            "{} secrets were deleted at Cloudflare; this is now recorded in the state, and the next `flotilla deploy` sends them again",
            paint(Style::Warning, "help:"),
        ));
    }
    let of = |number: usize, word: &str| if number > 0 { format!(", {number} {word}") } else { String::new() };
    report::print(&format!(
        "{} of {}: {} set, {missing} missing{}{}{}",
        count(report.secrets.len(), "secret"),
        count(workers.len(), "worker"),
        number(Presence::Set),
        of(number(Presence::NotDeployed), "of workers that are not deployed"),
        of(number(Presence::Unknown), "unknown"),
        of(report.not_in_spec.len(), "set but not in the spec"),
    ));
    Ok(exit)
}

/// Records in the state which secrets Cloudflare has lost; returns whether there are any, and whether they were recorded.
fn mark(session: &Session, opened: &Opened, workers: &[Worker], report: &Report) -> Result<bool, Failure> {
    let mut lost: BTreeMap<WorkerId, BTreeSet<String>> = BTreeMap::new();
    let key = |worker: &Worker| (worker.customer.clone(), worker.environment, worker.name.clone());
    let workers: BTreeMap<_, &Worker> = workers.iter().map(|worker| (key(worker), worker)).collect();
    for row in report.secrets.iter().filter(|row| is_lost(row)) {
        let Some(worker) = workers.get(&(row.customer.clone(), row.environment, row.worker.clone())) else { continue };
        let id = (opened.cloud.home(&worker.account, worker.namespace.as_deref()), worker.name.clone());
        lost.entry(id).or_default().insert(row.binding.clone());
    }
    if lost.is_empty() {
        return Ok(false);
    }
    match mark_lost_secrets(&session.context(), &opened.cloud, &lost) {
        Ok(()) => Ok(true),
        Err(failure) if failure.exit == Exit::Refused => {
            session
                .ui
                .failure(&failure.hint("then run this command again, so that the next deploy sends what was deleted"));
            Ok(false)
        }
        Err(failure) => Err(failure),
    }
}

/// Returns whether Cloudflare lacks a secret that the state had as deployed.
fn is_lost(row: &Row) -> bool {
    row.live == Some(Presence::Missing) && matches!(row.status, Status::Unchanged | Status::Kept)
}

/// The cells of a secret that a spec names.
fn named(row: &Row) -> [Cell; 6] {
    let live = match row.live {
        Some(Presence::Set) => Cell::styled("set", Style::Good),
        Some(Presence::Missing) => Cell::styled("missing", Style::Error),
        Some(Presence::NotDeployed) => Cell::styled("worker not deployed", Style::Dim),
        Some(Presence::Unknown) | None => Cell::styled("unknown", Style::Warning),
    };
    let next = match row.status {
        Status::Unchanged if is_lost(row) => Cell::styled("sent again", Style::Good),
        Status::Kept if is_lost(row) => Cell::styled("no value", Style::Error),
        Status::Unchanged | Status::Kept => Cell::styled("not sent", Style::Dim),
        Status::Changed => Cell::styled("sent, the value changed", Style::Warning),
        Status::New => Cell::styled("sent", Style::Good),
        Status::Missing => Cell::styled("no value", Style::Error),
    };
    cells(&row.customer, row.environment, &row.worker, &row.binding, [live, next])
}

/// The cells of a secret that no spec names.
fn extra(other: &OfWorker<NotInSpec>) -> [Cell; 6] {
    let live = Cell::styled("set, not in the spec", Style::Warning);
    cells(&other.customer, other.environment, &other.worker, &other.about.binding, [live, Cell::default()])
}

fn cells(customer: &str, environment: Environment, worker: &str, binding: &str, [live, next]: [Cell; 2]) -> [Cell; 6] {
    [
        Cell::from(clean(customer)),
        Cell::from(environment.as_ref()),
        Cell::from(clean(worker)),
        Cell::from(clean(binding)),
        live,
        next,
    ]
}
