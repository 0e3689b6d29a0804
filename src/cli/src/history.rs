//! `flotilla history`: what happened, from the state.

use serde::Serialize;

use flotilla_deploy::state::{Record, Run, RunId, State};
use flotilla_engine::context::{AHEAD_LOCK, FOLDER, LOCK};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::{Lock, host_name};
use flotilla_model::reason::{Reason, with_details};
use flotilla_model::spec::Environment;

use super::cloud::CloudArguments;
use super::report::{self, count};
use super::table::{Cell, Column, Fit, Table};
use super::ui::{Style, clean, duration, time};
use super::{Format, Session};

/// The columns of a customer's history.
const RECORDS: [Column<'_>; 7] = [
    Column::number("record", Fit::Name),
    Column::new("time", Fit::Whole(1)),
    Column::new("action", Fit::Cut(3)),
    Column::new("digest", Fit::Whole(4)),
    Column::new("bundle", Fit::Whole(2)),
    Column::new("environment", Fit::Whole(5)),
    Column::new("worker", Fit::Name),
];
/// The columns of the deploys.
const RUNS: [Column<'_>; 5] = [
    Column::number("run", Fit::Name),
    Column::new("began", Fit::Name),
    Column::new("kind", Fit::Name),
    Column::new("result", Fit::Whole(1)),
    Column::new("by", Fit::Cut(2)),
];

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Customer; without one, the deploys are listed
    #[arg(value_name = "CUSTOMER", conflicts_with = "run")]
    customer: Option<String>,
    /// Show what this deploy did
    #[arg(long, value_name = "RUN")]
    run: Option<i64>,
    /// Number of entries to show
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    last: usize,
    #[command(flatten)]
    cloud: CloudArguments,
}

#[derive(Serialize)]
struct Line {
    record: i64,
    run: RunId,
    at: String,
    customer: String,
    environment: Environment,
    worker: String,
    action: String,
    digest: String,
    /// Whether it is live now.
    live: bool,
    /// Whether it can be rolled back to.
    kept: bool,
    #[serde(flatten, serialize_with = "with_details")]
    reasons: Vec<Reason>,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let state = arguments.cloud.state(session)?;
    if let Some(customer) = &arguments.customer {
        CloudArguments::check_customer(session, &state, customer)?;
    }
    let records = match (&arguments.customer, arguments.run) {
        (Some(customer), _) => state.records_of(customer, arguments.last)?,
        (None, Some(run)) => state.records_of_run(RunId(run))?,
        (None, None) => return runs(session, &state, arguments.last),
    };
    if records.is_empty() {
        let of = arguments.customer.as_ref().map_or_else(|| "this deploy".to_owned(), |name| format!("`{name}`"));
        let failure = Failure::new(format!("the history has no entries for {}", clean(&of)));
        return Err(
            failure.hint("`flotilla history` lists the deploys, `flotilla status` the customers that are deployed")
        );
    }
    let lines = records.into_iter().map(|record| line(&state, record)).collect::<Result<Vec<_>, _>>()?;
    match session.format {
        Format::Json => session.json(&serde_json::json!({ "records": lines }))?,
        Format::Text => {
            let mut table = Table::new(&RECORDS);
            for line in &lines {
                let mark = match (line.live, line.kept) {
                    (true, _) => Cell::styled("live", Style::Good),
                    (false, true) => Cell::from("kept"),
                    (false, false) => Cell::default(),
                };
                table.row([
                    Cell::from(line.record.to_string()),
                    Cell::from(line.at.as_str()),
                    Cell::from(clean(&line.action)),
                    Cell::from(&line.digest[..16]),
                    mark,
                    Cell::from(line.environment.as_ref()),
                    Cell::from(clean(&line.worker)),
                ]);
                for reason in &line.reasons {
                    table.note(session.ui.paint(Style::Dim, &format!("        {}", clean(&reason.to_string()))));
                }
            }
            table.print(&session.ui);
            if lines.iter().any(|line| line.kept && !line.live) {
                report::print("`flotilla rollback CUSTOMER --to RECORD` returns to a kept bundle");
            }
        }
    }
    Ok(Exit::Done)
}

fn line(state: &State, record: Record) -> Result<Line, Failure> {
    let live = state.one(&record.worker)?.is_some_and(|live| live.digest == record.digest);
    Ok(Line {
        live,
        kept: record.is_upload() && state.is_kept(&record.digest)?,
        record: record.id,
        run: record.run,
        at: time(record.at),
        environment: record.environment,
        customer: record.customer,
        worker: record.worker.1,
        action: record.action,
        digest: record.digest.to_string(),
        reasons: record.reasons,
    })
}

fn runs(session: &Session, state: &State, last: usize) -> Result<Exit, Failure> {
    let runs: Vec<(RunId, Run)> = state.runs(last)?;
    if session.format == Format::Json {
        let runs: Vec<_> = runs.iter().map(|(id, run)| serde_json::json!({ "run": id, "deploy": run })).collect();
        session.json(&serde_json::json!({ "runs": runs }))?;
        return Ok(Exit::Done);
    }
    // The newest of those without an end, as many as hold a lock: the others were killed, or lost their state.
    let folder = session.root.join(FOLDER);
    let mut held = [LOCK, AHEAD_LOCK].into_iter().filter(|name| Lock::is_held(&folder.join(name))).count();
    let host = host_name();
    let mut table = Table::new(&RUNS);
    for (id, run) in &runs {
        let number = |key: &str| run.outcome[key].as_u64().unwrap_or(0);
        let did = match run.ended {
            // Locks of other machines aren't seen everywhere.
            0 if run.host != host => Cell::styled("running, or it was killed", Style::Warning),
            0 if held > 0 => {
                held -= 1;
                Cell::styled("running", Style::Good)
            }
            0 => Cell::styled("interrupted; the next deploy continues from there", Style::Warning),
            _ => Cell::from(format!(
                "{} applied, {} failed, {} not attempted in {}",
                number("applied"),
                number("failed"),
                number("skipped"),
                duration(run.outcome["seconds"].as_f64().unwrap_or(0.0))
            )),
        };
        table.row([
            Cell::from(id.0.to_string()),
            Cell::from(time(run.began)),
            Cell::from(clean(&run.what)),
            did,
            Cell::from(clean(&format!("{} on {}", run.who, run.host))),
        ]);
        if !run.reason.is_empty() {
            table.note(session.ui.paint(Style::Dim, &format!("        {}", clean(&run.reason))));
        }
    }
    table.print(&session.ui);
    report::print(&count(runs.len(), "deploy"));
    Ok(Exit::Done)
}
