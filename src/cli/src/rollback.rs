//! `flotilla rollback`.

use flotilla_deploy::state::RunId;
use flotilla_engine::rollback::{RollbackRequest, Target, rollback};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::spec::Environment;

use super::apply::{self, ApplyArguments};
use super::cloud::CloudArguments;
use super::report;
use super::{Format, Session, summary};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The customers whose workers go back
    #[arg(value_name = "CUSTOMER", required_unless_present = "run", conflicts_with = "run")]
    customers: Vec<String>,
    /// To what this record put in place; `flotilla history` lists them [default: what ran before]
    #[arg(long, value_name = "RECORD", conflicts_with = "run")]
    to: Option<i64>,
    /// Every worker that this deploy uploaded, to what it ran before it
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
    let outcome = rollback(&session.context(), &request)?;
    summary::append(arguments.apply.summary.as_deref(), &summary::applied("flotilla rollback", &outcome));
    match session.format {
        Format::Json => session.json(&outcome)?,
        Format::Text => {
            report::print(&apply::summary(&outcome));
            report::print(
                "the next deploy leaves these as they are until their bundles change, or their customers are named",
            );
        }
    }
    Ok(if outcome.is_complete() { Exit::Done } else { Exit::SomeFailed })
}
