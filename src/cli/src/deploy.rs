//! `flotilla deploy`, and what a command reports that applied a plan.

use std::collections::HashMap;
use std::path::PathBuf;

use secrecy::SecretString;

use flotilla_deploy::deploy::{Failed, Outcome};
use flotilla_deploy::pace::Priority;
use flotilla_engine::RunKind;
use flotilla_engine::addresses;
use flotilla_engine::deploy_fleet::{DeployRequest, Deployed, deploy_fleet, finished};
use flotilla_engine::operator::Approval;
use flotilla_engine::plan_file::PlanFile;
use flotilla_engine::planning::Planned;
use flotilla_engine::verification::Results;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::progress::Progress as _;
use flotilla_model::text::and_more;

use super::apply::{self, ApplyArguments};
use super::columns;
use super::plan::{self, LineArguments};
use super::plan_output::PlanOutput;
use super::report;
use super::ui::clean;
use super::verify::{self, VerifyArguments};
use super::{Format, Session, stdout, summary};

/// The number of workers whose addresses are printed.
const ADDRESSES: usize = 50;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    line: LineArguments,
    #[command(flatten)]
    pub apply: ApplyArguments,
    /// Deploy the named customers ahead of a deploy that is running
    #[arg(long, requires = "customers")]
    ahead: bool,
    /// Apply a plan saved by `flotilla plan --out FILE`; refused if it is out of date
    #[arg(long, value_name = "FILE", conflicts_with_all = PLANNED)]
    plan: Option<PathBuf>,
    /// After the deploy, check the changed workers as `flotilla verify` does; exit with 4 if a check fails
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    verification: VerifyArguments,
}

/// The options that a plan's file sets already.
const PLANNED: [&str; 11] = [
    "customers",
    "labels",
    "env",
    "since",
    "with_dependencies",
    "all",
    "reason",
    "prune",
    "refresh",
    "adopt",
    "digest",
];

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    summary::of("flotilla deploy", session, deploy(session, arguments))
}

fn deploy(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    if let (false, Some(option)) = (arguments.verify, arguments.verification.given()) {
        return Err(Failure::usage(format!("{option} needs --verify")));
    }
    let file = arguments.plan.as_deref().map(PlanFile::read).transpose()?;
    let line = match &file {
        Some(file) => arguments.line.of_file(file)?,
        None => arguments.line.clone(),
    };
    session.operator.write_events(arguments.apply.events.as_deref())?;
    let priority = if arguments.ahead { Priority::Interactive } else { Priority::Bulk };
    let (name, reason) = if line.all { ("redeploy", line.reason.as_str()) } else { ("deploy", "") };
    let request = DeployRequest {
        plan: line.request(),
        reviewed: file.as_ref(),
        approval: if file.is_some() { Approval::Given } else { arguments.apply.approval() },
        max_deletions: arguments.apply.max_deletions,
        kind: RunKind { name, reason, ahead: arguments.ahead, priority },
        verify: arguments.verify.then(|| arguments.verification.options()),
    };
    let deployed = deploy_fleet(&session.context(), request)?;
    report_deployed(session, "flotilla deploy", deployed, &arguments.apply, Some(&arguments.verification))
}

/// Reports the outcome of a command that applies a plan. Without `verification`, the addresses of workers that stayed as they are don't
/// matter.
pub(super) fn report_deployed(
    session: &Session,
    command: &str,
    deployed: Deployed,
    arguments: &ApplyArguments,
    verification: Option<&VerifyArguments>,
) -> Result<Exit, Failure> {
    let summary_file = arguments.summary.as_deref();
    match deployed {
        Deployed::OtherPlan { planned, refusal } => {
            summary::append(summary_file, &PlanOutput(planned.view()).markdown(""));
            Err(refusal.hint(format!("the plan is now:\n{}", plan::text(planned.view(), &session.ui))))
        }
        Deployed::UpToDate(planned) => {
            summary::append(summary_file, &PlanOutput(planned.view()).markdown(""));
            match session.format {
                Format::Json => session.json(&with_verified(&Outcome::default(), None)?)?,
                Format::Text => {
                    report::print(&plan::text(planned.view(), &session.ui));
                    if verification.is_some() {
                        addresses(session, &planned, &[], None);
                    }
                }
            }
            Ok(finished(&planned))
        }
        Deployed::DryRun(planned) => {
            summary::append(summary_file, &PlanOutput(planned.view()).markdown(""));
            plan::report_dry_run(session, &planned)
        }
        Deployed::Applied(applied) => {
            summary::append(summary_file, &summary::applied(command, &applied.outcome));
            if let (Some(results), Some(verification)) = (&applied.verified, verification) {
                verify::write_junit(verification, results);
            }
            match session.format {
                Format::Json => session.json(&with_verified(&applied.outcome, applied.verified.as_ref())?)?,
                Format::Text => {
                    report::print(&apply::summary(&applied.outcome));
                    match &applied.verified {
                        Some(results) => report::print(&verify::text(&session.ui, results)),
                        None => {
                            addresses(session, &applied.planned, &applied.outcome.failures, Some(&applied.tokens));
                        }
                    }
                }
            }
            Ok(applied.exit())
        }
    }
}

/// An outcome as JSON, with the verification after it.
fn with_verified(outcome: &Outcome, verified: Option<&Results>) -> Result<serde_json::Value, Failure> {
    let mut object = serde_json::to_value(outcome).map_err(anyhow::Error::from)?;
    if let Some(results) = verified {
        object["verified"] = serde_json::to_value(results).map_err(anyhow::Error::from)?;
    }
    Ok(object)
}

/// Returns the line of a worker's address, or two lines where the terminal is too narrow for one.
pub(super) fn address_line(worker: &str, width: usize, address: &str, limit: Option<usize>) -> String {
    let (worker, address) = (clean(worker), clean(address));
    let line = format!("  {worker:<width$}  {address}");
    if limit.is_some_and(|limit| columns::width(&line) > limit) { format!("  {worker}\n    {address}") } else { line }
}

/// Prints where each worker answers. An unknown address is no reason to fail after a deploy.
fn addresses(
    session: &Session,
    planned: &Planned,
    failures: &[Failed],
    tokens: Option<&HashMap<String, SecretString>>,
) {
    let Ok(found) = addresses::of_planned(&session.context(), planned, failures, tokens, ADDRESSES) else { return };
    let mut lines: Vec<String> =
        found.listed.iter().map(|(worker, address)| address_line(worker, 31, address, stdout::columns())).collect();
    if found.more > 0 {
        lines.push(format!("  {}: flotilla status", and_more(found.more)));
    }
    if !lines.is_empty() {
        report::print(&lines.join("\n"));
    }
    if planned.cloud.local.is_some() {
        session.ui.note(if planned.cloud.base.is_empty() || planned.cloud.running.is_some() {
            "`flotilla local` serves them"
        } else {
            "the local emulator is serving them"
        });
    }
}
