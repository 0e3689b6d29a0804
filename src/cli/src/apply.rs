//! The options of commands that apply a plan, and their outcome in words.

use std::path::PathBuf;

use flotilla_deploy::deploy::Outcome;
use flotilla_engine::operator::Approval;

use super::report::count;
use super::ui::{clean, duration};

/// The options of commands that apply a plan.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct ApplyArguments {
    /// Skip the confirmation prompt
    #[arg(long, short)]
    pub yes: bool,
    /// Show the plan and deploy nothing
    #[arg(long, conflicts_with_all = ["yes", "digest", "events"])]
    pub dry_run: bool,
    /// Apply the plan without asking if it has this digest; eight characters are enough
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// Append a Markdown summary to this file, such as "$GITHUB_STEP_SUMMARY"
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Maximum number of workers to delete [default: deploy.maxDeletions in fleet.yaml]
    #[arg(long, value_name = "N")]
    pub max_deletions: Option<usize>,
    /// Append events as JSON lines to this file; - is stdout
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
}

impl ApplyArguments {
    /// Returns how the plan is approved.
    pub(super) fn approval(&self) -> Approval {
        match &self.digest {
            Some(digest) => Approval::Digest(digest.clone()),
            None => given(self.yes, self.dry_run),
        }
    }
}

/// Returns how a plan is approved with or without `--yes` and `--dry-run`.
pub(super) fn given(yes: bool, dry_run: bool) -> Approval {
    match (dry_run, yes) {
        (true, _) => Approval::DryRun,
        (false, true) => Approval::Given,
        (false, false) => Approval::Ask,
    }
}

/// Returns the outcome of a plan, in words.
pub(super) fn summary(outcome: &Outcome) -> String {
    let mut text = format!(
        "{} applied, {} failed, {} not attempted · {} in {}",
        outcome.applied,
        outcome.failed,
        outcome.skipped,
        count(outcome.requests as usize, "request"),
        duration(outcome.seconds)
    );
    if outcome.retries + outcome.throttled > 0 {
        text += &format!(" · {} retried, {} throttled", outcome.retries, outcome.throttled);
    }
    if outcome.overtaken > 0 {
        text += &format!(" · {} overtaken by another deploy", outcome.overtaken);
    }
    if outcome.unhealthy > 0 {
        text += &format!(" · {} unhealthy", outcome.unhealthy);
    }
    if let Some(why) = &outcome.halted {
        text += &format!("\nhalted: {}", clean(why));
    }
    if outcome.migrations + outcome.migrations_skipped > 0 {
        text += &format!("\n{} applied", count(outcome.migrations, "migration"));
        if outcome.migrations_skipped > 0 {
            text += &format!(", {} not attempted", outcome.migrations_skipped);
        }
    }
    if outcome.hosts + outcome.hosts_skipped > 0 {
        text += &format!("\n{} written", count(outcome.hosts, "host"));
        if outcome.hosts_skipped > 0 {
            text += &format!(", {} not", outcome.hosts_skipped);
        }
    }
    for step in outcome.next_steps() {
        text += &format!("\n{}", step.text());
    }
    text
}
