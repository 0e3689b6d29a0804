//! The options of commands that apply a plan, and what came of it for people.

use std::path::PathBuf;

use flotilla_deploy::deploy::Outcome;
use flotilla_engine::operator::Approval;

use super::report::count;
use super::ui::{clean, duration};

/// The options of commands that apply a plan.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct ApplyArguments {
    /// Apply the plan without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Apply the plan if it has this digest, without asking; eight characters are enough
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// Append what was done as Markdown, for the summary of a CI job
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// How many workers may be deleted, instead of what fleet.yaml says
    #[arg(long, value_name = "N")]
    pub max_deletions: Option<usize>,
    /// Append what happens, line by line as JSON; - is stdout
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
}

impl ApplyArguments {
    /// Returns how the plan is approved.
    pub(super) fn approval(&self) -> Approval {
        match &self.digest {
            Some(digest) => Approval::Digest(digest.clone()),
            None => given(self.yes),
        }
    }
}

/// Returns how a plan is approved with or without `--yes`.
pub(super) fn given(yes: bool) -> Approval {
    if yes { Approval::Given } else { Approval::Ask }
}

/// Returns what came of a plan, for people.
pub(super) fn summary(outcome: &Outcome) -> String {
    let mut text = format!(
        "{} applied, {} failed, {} left undone · {} in {}",
        outcome.applied,
        outcome.failed,
        outcome.skipped,
        count(outcome.requests as usize, "request"),
        duration(outcome.seconds)
    );
    if outcome.retries + outcome.throttled > 0 {
        text += &format!(" · {} repeated, {} throttled", outcome.retries, outcome.throttled);
    }
    if outcome.overtaken > 0 {
        text += &format!(" · {} overtaken by another deploy", outcome.overtaken);
    }
    if outcome.unhealthy > 0 {
        text += &format!(" · {} not well", outcome.unhealthy);
    }
    if let Some(why) = &outcome.halted {
        text += &format!("\nhalted: {}", clean(why));
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
