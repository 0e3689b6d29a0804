//! `flotilla prune`.

use std::collections::BTreeSet;

use flotilla_engine::prune::{PruneRequest, prune};
use flotilla_model::failure::{Exit, Failure};

use super::apply::ApplyArguments;
use super::cloud::CloudArguments;
use super::deploy::report_deployed;
use super::{Session, summary};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    cloud: CloudArguments,
    #[command(flatten)]
    pub apply: ApplyArguments,
    /// Also delete domains and routes of workers that no longer exist
    #[arg(long)]
    domains: bool,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    const COMMAND: &str = "flotilla prune";
    let pruned = || {
        session.operator.write_events(arguments.apply.events.as_deref())?;
        let request = PruneRequest {
            cloud: arguments.cloud.options(),
            approval: arguments.apply.approval(),
            max_deletions: arguments.apply.max_deletions,
            hosts: arguments.domains,
            customers: BTreeSet::new(),
        };
        report_deployed(session, COMMAND, prune(&session.context(), &request)?, &arguments.apply, None)
    };
    summary::of(COMMAND, session, pruned())
}
