//! `flotilla build`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use crate::build::{self, Built, Loaded, Runtimes, Scope};
use crate::diagnostic::{Diagnostic, sorted};
use crate::failure::{Exit, Failure};
use crate::runtime;

use super::report::{self, count};
use super::selection::Selection;
use super::ui::duration;
use super::{Format, Session, summary};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Write nothing; exit with 3 if out/ is not current
    #[arg(long)]
    check: bool,
    /// How many threads render [default: one for each core]
    #[arg(short = 'j', long = "threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Append a summary in Markdown to this file, as in --summary "$GITHUB_STEP_SUMMARY"
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
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global()
            .map_err(anyhow::Error::from)?;
    }
    let Some(Line { loaded, built, diagnostics, seconds, .. }) = line(session, &arguments.selection, arguments.check)?
    else {
        return Ok(Exit::Diagnostics);
    };
    let workers = built.bundles.iter().flatten().count();
    // With `built.diagnostics` printed and gone, a selected worker without a bundle is one that failed.
    let failed: BTreeSet<&str> = loaded
        .workers
        .iter()
        .zip(&built.bundles)
        .filter(|(worker, bundle)| bundle.is_none() && arguments.selection.includes(worker))
        .map(|(worker, _)| worker.customer.as_str())
        .collect();
    let report = Report {
        customers: loaded.customers,
        workers,
        rendered: workers,
        unchanged: built.unchanged,
        written: built.written,
        removed: built.removed,
        invalid: loaded.invalid + failed.len(),
        suppressed: loaded.suppressed.iter().filter(|off| arguments.selection.concerns(&off.diagnostic)).count(),
        seconds,
    };
    let stale = built.written + built.removed > 0;
    let figures = summary_figures(&report, arguments.check);
    summary::append(session.summary.as_deref(), &summary::build(&figures, &diagnostics))?;
    match session.format {
        Format::Json => report::json(&report)?,
        Format::Text => {
            let mut text = if arguments.check {
                match stale {
                    true => format!(
                        "out/ is not current: {} to write, {} to remove; run `flotilla build`",
                        report.written, report.removed
                    ),
                    false => "out/ is current".to_owned(),
                }
            } else if stale {
                format!("{} written, {} removed", count(report.written, "file"), report.removed)
            } else {
                "nothing to do: out/ is current".to_owned()
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
    Ok(match (report::counts(&diagnostics).0, arguments.check && stale) {
        (1.., _) => Exit::Diagnostics,
        (0, true) => Exit::Pending,
        (0, false) => Exit::Done,
    })
}

/// What a build did, for its summary.
fn summary_figures(report: &Report, check: bool) -> Vec<String> {
    let (write, remove) = if check { ("to write", "to remove") } else { ("written", "removed") };
    let mut told = vec![
        count(report.customers, "customer"),
        count(report.workers, "worker"),
        format!("{} {write}", count(report.written, "file")),
        format!("{} {remove}", report.removed),
        format!("{} unchanged", count(report.unchanged, "worker")),
        duration(report.seconds),
    ];
    if report.invalid > 0 {
        told.push(format!("{} with errors", count(report.invalid, "customer")));
    }
    if report.suppressed > 0 {
        told.push(format!("{} suppressed", count(report.suppressed, "warning")));
    }
    told
}

/// The line up to bundles.
pub(super) struct Line {
    pub loaded: Loaded,
    pub runtimes: Runtimes,
    pub built: Built,
    /// Those of the selection, printed already.
    pub diagnostics: Vec<Diagnostic>,
    /// How long it took.
    pub seconds: f64,
}

/// The line up to bundles on disk, its diagnostics printed. Nothing, if the fleet as a whole can't be built.
pub(super) fn line(session: &Session, selection: &Selection, dry: bool) -> Result<Option<Line>, Failure> {
    let start = Instant::now();
    let loaded = match build::load(&session.root, &session.ui) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(None);
        }
    };
    selection.verify(&loaded)?;
    let runtimes = match build::runtimes(&loaded, &session.ui) {
        Ok(runtimes) => runtimes,
        Err(runtime::Error::Diagnostic(diagnostic)) => {
            let mut diagnostics = loaded.diagnostics;
            diagnostics.push(*diagnostic);
            report::stopped(session, &sorted(diagnostics))?;
            return Ok(None);
        }
        Err(runtime::Error::Failure(failure)) => return Err(failure),
    };
    let scope = Scope { includes: &|worker| selection.includes(worker), whole: selection.is_all(), dry };
    let mut built = build::build(&loaded, &runtimes, &scope, &session.ui)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut diagnostics: Vec<Diagnostic> =
        loaded.diagnostics.iter().filter(|d| selection.concerns(d)).cloned().collect();
    diagnostics.append(&mut built.diagnostics);
    let diagnostics = sorted(diagnostics);
    report::diagnostics(&session.root, &session.ui, &diagnostics);
    Ok(Some(Line { loaded, runtimes, built, diagnostics, seconds }))
}
