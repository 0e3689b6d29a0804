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
use super::ui::{Style, clean, duration, time};
use super::{Format, Session};

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
        let failure = Failure::new(format!("the history has nothing about {}", clean(&of)));
        return Err(
            failure.hint("`flotilla history` lists the deploys, `flotilla status` the customers that are deployed")
        );
    }
    let lines = records.into_iter().map(|record| line(&state, record)).collect::<Result<Vec<_>, _>>()?;
    match session.format {
        Format::Json => session.json(&serde_json::json!({ "records": lines }))?,
        Format::Text => {
            for line in &lines {
                let marks = match (line.live, line.kept) {
                    (true, _) => session.ui.paint(Style::Good, " live"),
                    (false, true) => " kept".to_owned(),
                    (false, false) => String::new(),
                };
                report::print(&format!(
                    "{:>6}  {}  {:<16} {}  {} in {}{marks}",
                    line.record,
                    line.at,
                    line.action,
                    &line.digest[..16],
                    line.worker,
                    line.environment
                ));
                for reason in &line.reasons {
                    report::print(&session.ui.paint(Style::Dim, &format!("        {}", clean(&reason.to_string()))));
                }
            }
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
    for (id, run) in &runs {
        let number = |key: &str| run.outcome[key].as_u64().unwrap_or(0);
        let did = match run.ended {
            // Locks of other machines aren't seen everywhere.
            0 if run.host != host => session.ui.paint(Style::Warning, "running, or it was killed"),
            0 if held > 0 => {
                held -= 1;
                session.ui.paint(Style::Good, "running")
            }
            0 => session.ui.paint(Style::Warning, "interrupted; the next deploy continues from there"),
            _ => format!(
                "{} applied, {} failed, {} not attempted in {}",
                number("applied"),
                number("failed"),
                number("skipped"),
                duration(run.outcome["seconds"].as_f64().unwrap_or(0.0))
            ),
        };
        let reason = if run.reason.is_empty() { String::new() } else { format!(": {}", clean(&run.reason)) };
        let who = clean(&format!("{} on {}", run.who, run.host));
        report::print(&format!("{:>6}  {}  {}{reason} by {who}  {did}", id.0, time(run.began), run.what));
    }
    report::print(&count(runs.len(), "deploy"));
    Ok(Exit::Done)
}
