//! `flotilla build`.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;

use crate::build::{self, Built, Loaded, Runtimes, Scope};
use crate::diagnostic::{Diagnostic, sorted};
use crate::failure::{Exit, Failure};
use crate::runtime;

use super::report::{self, count};
use super::selection::Selection;
use super::ui::duration;
use super::{Format, Session};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Write nothing; exit with 3 if out/ is not current
    #[arg(long)]
    check: bool,
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
    seconds: f64,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
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
        seconds,
    };
    let stale = built.written + built.removed > 0;
    match session.format {
        Format::Json => session.json(&report)?,
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
            report::print(&text);
        }
    }
    Ok(match (report::counts(&diagnostics).0, arguments.check && stale) {
        (1.., _) => Exit::Diagnostics,
        (0, true) => Exit::Pending,
        (0, false) => Exit::Done,
    })
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
    selection.verify(&session.ui, &loaded)?;
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
