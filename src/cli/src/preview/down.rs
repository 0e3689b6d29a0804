//! `flotilla preview down`.

use flotilla_engine::previews::{DownRequest, PreviewsDown, Which, previews_down};
use flotilla_model::failure::{Exit, Failure};

use super::super::apply::given;
use super::super::cloud::CloudArguments;
use super::super::report::{self, count};
use super::super::{Format, Session};
use super::id;

#[derive(clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["id", "expired", "all"])]
pub(in super::super) struct Arguments {
    /// Previews to remove; can be separated by commas
    #[arg(long, value_name = "ID", value_parser = id, value_delimiter = ',')]
    id: Vec<String>,
    /// Remove every expired preview
    #[arg(long)]
    expired: bool,
    /// Remove every preview of the fleet
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    cloud: CloudArguments,
    /// Skip the confirmation prompt
    #[arg(long, short)]
    yes: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let which = match arguments {
        Arguments { all: true, .. } => Which::All,
        Arguments { expired: true, .. } => Which::Expired,
        Arguments { id, .. } => Which::Ids(id.clone()),
    };
    let request =
        DownRequest { which, cloud: arguments.cloud.options(), approval: given(arguments.yes, arguments.dry_run) };
    let report = previews_down(&session.context(), &request)?;
    let none = report.removed.is_empty() && report.left.is_empty();
    let exit = if report.left.is_empty() { Exit::Done } else { Exit::SomeFailed };
    match session.format {
        Format::Json => session.json(&report)?,
        Format::Text if !report.planned.is_empty() => {
            report::print(&format!("would remove {}", count(report.planned.len(), "preview")));
        }
        Format::Text if none => report::print("there is no preview to remove"),
        Format::Text => {
            let PreviewsDown { removed, workers, hosts, databases, requests, .. } = &report;
            report::print(&format!(
                "{} removed: {}, {}, {} · {}",
                count(removed.len(), "preview"),
                count(*hosts, "host"),
                count(*databases, "database"),
                count(*workers, "worker"),
                count(*requests as usize, "request"),
            ));
            if !report.left.is_empty() {
                report::print("run the command again to remove what is left");
            }
        }
    }
    Ok(exit)
}
