//! `flotilla preview up`.

use std::path::PathBuf;

use flotilla_engine::previews::{PreviewRun, PreviewUp, PreviewWorker, UpRequest, preview_up};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::selection::Selector;
use flotilla_model::spec::Environment;

use super::super::apply::given;
use super::super::cloud::CloudArguments;
use super::super::plan;
use super::super::report::{self, count};
use super::super::selection::environment;
use super::super::ui::{Style, clean};
use super::super::{Format, Session, summary};
use super::id;

#[derive(clap::Args)]
pub(in super::super) struct Arguments {
    /// Preview id, such as the number of a pull request
    #[arg(long, value_name = "ID", value_parser = id)]
    id: String,
    /// Customer ids or globs, such as 'shop-*' [default: all]
    #[arg(value_name = "CUSTOMER")]
    customers: Vec<String>,
    /// Select customers by label: tier=gold,region!=eu · key · !key · 'key in (a,b)' · 'key notin (a,b)'
    #[arg(long = "label", short = 'l', value_name = "SELECTOR")]
    labels: Vec<Selector>,
    /// Select customers whose output changed since this commit, branch or tag
    #[arg(long, value_name = "REF")]
    since: Option<String>,
    /// Environment whose settings to use [default: previews.from in fleet.yaml, else staging]
    #[arg(long, value_name = "ENV", value_parser = environment)]
    from: Option<Environment>,
    /// Days until the preview expires [default: previews.days in fleet.yaml, else 7]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=365))]
    days: Option<u16>,
    #[command(flatten)]
    cloud: CloudArguments,
    /// Skip the confirmation prompt
    #[arg(long, short)]
    yes: bool,
    /// Show what would change, and deploy nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Append the preview's addresses as Markdown to this file, for a comment on a pull request
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let request = UpRequest {
        id: arguments.id.clone(),
        customers: arguments.customers.clone(),
        labels: arguments.labels.clone(),
        since: arguments.since.clone(),
        from: arguments.from,
        days: arguments.days,
        cloud: arguments.cloud.options(),
        approval: given(arguments.yes, arguments.dry_run),
    };
    let report = match preview_up(&session.context(), &request)? {
        PreviewRun::Deployed(report) => report,
        PreviewRun::DryRun(planned) => return plan::report_dry_run(session, &planned),
    };
    summary::append(arguments.summary.as_deref(), &markdown(&report));
    match session.format {
        Format::Json => session.json(&report)?,
        Format::Text => text(session, &report),
    }
    Ok(report.exit)
}

fn text(session: &Session, report: &PreviewUp) {
    let width =
        |column: fn(&PreviewWorker) -> &str| report.workers.iter().map(|row| column(row).len()).max().unwrap_or(0);
    let (customer, worker) = (width(|row| &row.customer), width(|row| &row.worker));
    for row in &report.workers {
        let address = row.address.as_deref().unwrap_or("no address of its own");
        let health = row.health.as_deref().unwrap_or_default();
        let style = if row.healthy { Style::Dim } else { Style::Error };
        report::print(
            format!(
                "{:customer$}  {:worker$}  {}  {}",
                row.customer,
                row.worker,
                clean(address),
                session.ui.paint(style, &clean(health))
            )
            .trim_end(),
        );
    }
    report::print(&format!(
        "preview {}: {}, {} applied, {} failed, {} not attempted · {} · until {}",
        report.id,
        count(report.workers.len(), "worker"),
        report.applied,
        report.failed,
        report.skipped,
        count(report.requests as usize, "request"),
        report.expires
    ));
    for step in &report.next_steps {
        report::print(step.text());
    }
}

/// The addresses, for a comment.
fn markdown(report: &PreviewUp) -> String {
    let mut page = format!("### Preview {}\n\n", report.id);
    if report.workers.is_empty() {
        page += "No worker belongs to it.\n";
    } else {
        page += "| customer | worker | address | |\n|---|---|---|---|\n";
    }
    for row in &report.workers {
        // Anything but a plain address is shown as text.
        let is_plain = |address: &&str| {
            address.chars().all(|c| c.is_ascii_alphanumeric() || ":/.-".contains(c)) && address.starts_with("http")
        };
        let address = match row.address.as_deref() {
            Some(address) if is_plain(&address) => address.to_owned(),
            Some(address) => summary::text(address),
            None => String::new(),
        };
        let health = row.health.as_deref().map(summary::text).unwrap_or_default();
        let (customer, worker) = (summary::text(&row.customer), summary::text(&row.worker));
        page += &format!("| {customer} | {worker} | {address} | {health} |\n");
    }
    if report.failed + report.skipped + report.unhealthy > 0 {
        let PreviewUp { failed, skipped, unhealthy, .. } = report;
        page += &format!("\n{failed} failed, {skipped} not attempted, {unhealthy} unhealthy.\n");
    }
    page + &format!("\nUntil {}.\n", report.expires)
}
