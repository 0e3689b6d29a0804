//! `flotilla rollback`.

use flotilla_deploy::plan::Plan;
use flotilla_deploy::state::RunId;
use flotilla_engine::rollback::{RollbackRequest, RolledBack, Target, rollback};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::spec::Environment;

use super::apply::{self, ApplyArguments};
use super::cloud::CloudArguments;
use super::report::{self, count};
use super::{Format, Session, summary};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Customers to roll back
    #[arg(value_name = "CUSTOMER", required_unless_present = "run", conflicts_with = "run")]
    customers: Vec<String>,
    /// Record to return to, as listed by `flotilla history` [default: what ran before]
    #[arg(long, value_name = "RECORD", conflicts_with = "run")]
    to: Option<i64>,
    /// Revert every worker that this deploy uploaded
    #[arg(long, value_name = "RUN")]
    run: Option<i64>,
    /// Only this environment
    #[arg(long, value_name = "NAME", value_parser = super::selection::environment)]
    env: Option<Environment>,
    #[command(flatten)]
    cloud: CloudArguments,
    #[command(flatten)]
    pub apply: ApplyArguments,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    summary::of("flotilla rollback", session, back(session, arguments))
}

fn back(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    session.operator.write_events(arguments.apply.events.as_deref())?;
    let target = match arguments.run {
        Some(run) => Target::Run(RunId(run)),
        None => Target::Customers {
            customers: arguments.customers.clone(),
            record: arguments.to,
            environment: arguments.env,
        },
    };
    let cloud = arguments.cloud.options();
    let request = RollbackRequest { target, cloud, approval: arguments.apply.approval() };
    let outcome = match rollback(&session.context(), &request)? {
        RolledBack::Applied(outcome) => outcome,
        RolledBack::DryRun(plan) => return report_dry_run(session, &plan),
    };
    summary::append(arguments.apply.summary.as_deref(), &summary::applied("flotilla rollback", &outcome));
    match session.format {
        Format::Json => session.json(&outcome)?,
        Format::Text => {
            report::print(&apply::summary(&outcome));
            report::print("deploys skip these workers until their bundles change or their customers are named");
        }
    }
    Ok(if outcome.is_complete() { Exit::Done } else { Exit::SomeFailed })
}

/// Reports the plan of a dry run; its changes were shown as it was made.
fn report_dry_run(session: &Session, plan: &Plan) -> Result<Exit, Failure> {
    match session.format {
        Format::Json => {
            let Plan { digest, changes, .. } = plan;
            session.json(&serde_json::json!({ "update": changes.len(), "digest": digest, "changes": changes }))?;
        }
        Format::Text => report::print(&format!("would roll back {}", count(plan.changes.len(), "worker"))),
    }
    Ok(Exit::Done)
}
