//! `flotilla build`.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Serialize;

use flotilla_engine::build_fleet::{Built, build_fleet};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::progress::Progress as _;
use flotilla_model::reason::Reason;
use flotilla_model::text;

use super::report::{self, count};
use super::selection::Selection;
use super::ui::{clean, duration};
use super::{Format, Session, summary, watch};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Write nothing; exit with 3 if out/ is out of date
    #[arg(long)]
    check: bool,
    /// Show why each worker is rendered
    #[arg(long)]
    explain: bool,
    /// Watch for changes and rebuild
    #[arg(long, short, conflicts_with = "check")]
    watch: bool,
    /// Append a Markdown summary to this file, such as "$GITHUB_STEP_SUMMARY"
    #[arg(long, value_name = "FILE")]
    pub(super) summary: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    customers: usize,
    workers: usize,
    rendered: usize,
    unchanged: usize,
    written: usize,
    removed: usize,
    invalid: usize,
    suppressed: usize,
    seconds: f64,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    if arguments.watch {
        return watch::run(session, &arguments.selection);
    }
    let done = done(session, &arguments.selection, arguments.check, arguments.explain)?;
    let Built { scan, built, diagnostics, seconds, .. } = &done;
    if let Some(error) = &built.forgotten
        && built.rendered > 0
    {
        session.ui.note(&format!("the build cache can't be written, so the next build starts without it: {error}"));
    }
    let workers = built.workers;
    let report = Report {
        customers: scan.customers,
        workers,
        rendered: built.rendered,
        unchanged: built.unchanged,
        written: built.written,
        removed: built.removed,
        invalid: scan.invalid + built.failed.len(),
        suppressed: scan.suppressed.iter().filter(|off| arguments.selection.concerns(&off.diagnostic)).count(),
        seconds: *seconds,
    };
    let stale = built.written + built.removed > 0;
    if arguments.explain && session.format == Format::Text {
        reasons(&built.reasons);
    }
    let figures = summary_figures(&report, arguments.check);
    summary::append(session.summary.as_deref(), &summary::build(&figures, diagnostics));
    match session.format {
        Format::Json => session.json(&report)?,
        Format::Text => {
            let mut text = if arguments.check {
                match stale {
                    true => format!(
                        "out/ is out of date: {} to write, {} to remove; run `flotilla build`",
                        report.written, report.removed
                    ),
                    false => "out/ is current".to_owned(),
                }
            } else if stale {
                format!("{} written, {} removed", count(report.written, "file"), report.removed)
            } else {
                "nothing to do: out/ is up to date".to_owned()
            };
            text += &format!(" · {} in {}", count(workers, "worker"), duration(report.seconds));
            if report.invalid > 0 {
                let were = if report.invalid == 1 { "it was" } else { "they were" };
                text += &format!(" · {} with errors, left as {were}", count(report.invalid, "customer"));
            }
            if report.suppressed > 0 {
                text += &format!(" · {} suppressed", count(report.suppressed, "warning"));
            }
            report::print(&text);
        }
    }
    let errors = report::counts(diagnostics).0;
    // The process ends here: a hundred thousand records need not be put away one by one.
    std::mem::forget(done);
    Ok(match (errors, arguments.check && stale) {
        (1.., _) => Exit::Diagnostics,
        (0, true) => Exit::Pending,
        (0, false) => Exit::Done,
    })
}

/// A group that is not larger than this is shown one by one.
const SMALL: usize = 12;

/// The number of groups of reasons that are shown.
const SHOWN: usize = 100;

/// Prints why each worker was rendered; a reason that many share is printed once.
fn reasons(why: &[(String, Vec<Reason>)]) {
    let mut groups: HashMap<&[Reason], Vec<&str>> = HashMap::new();
    for (folder, lines) in why {
        groups.entry(lines).or_default().push(folder);
    }
    let mut shown: Vec<(&[Reason], Vec<&str>)> = groups.into_iter().collect();
    shown.sort_by(|a, b| (b.1.len(), a.1[0]).cmp(&(a.1.len(), b.1[0])));
    let rest = shown.split_off(shown.len().min(SHOWN));
    for (lines, folders) in shown {
        report::print(&format!("{}: {}", count(folders.len(), "worker"), text::names(&folders, SMALL)));
        for line in lines {
            report::print(&format!("  {}", clean(&line.to_string())));
        }
    }
    if !rest.is_empty() {
        let workers: usize = rest.iter().map(|(_, folders)| folders.len()).sum();
        let lines = format!("… and {} for other reasons; see `flotilla explain CUSTOMER`", count(workers, "worker"));
        report::print(&lines);
    }
}

/// Returns the figures of a build, for its summary.
fn summary_figures(report: &Report, check: bool) -> Vec<String> {
    let (write, remove) = if check { ("to write", "to remove") } else { ("written", "removed") };
    let mut lines = vec![
        count(report.customers, "customer"),
        count(report.workers, "worker"),
        format!("{} {write}", count(report.written, "file")),
        format!("{} {remove}", report.removed),
        format!("{} unchanged", count(report.unchanged, "worker")),
        duration(report.seconds),
    ];
    if report.invalid > 0 {
        lines.push(format!("{} with errors", count(report.invalid, "customer")));
    }
    if report.suppressed > 0 {
        lines.push(format!("{} suppressed", count(report.suppressed, "warning")));
    }
    lines
}

/// Builds the fleet, with its diagnostics printed.
pub(super) fn done(session: &Session, selection: &Selection, dry: bool, explain: bool) -> Result<Built, Failure> {
    let built = build_fleet(&session.context(), selection, dry, explain)?;
    report::diagnostics(&session.root, &session.ui, &built.diagnostics);
    Ok(built)
}
