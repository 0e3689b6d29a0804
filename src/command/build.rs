//! `flotilla build`.

use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use crate::build::{self, Built, Loaded, Project, Runtimes, Scope, Survey};
use crate::bundle::{self, Bundle};
use crate::diagnostic::{Diagnostic, sorted};
use crate::digest::Digest;
use crate::failure::{Exit, Failure};
use crate::lock::Lock;
use crate::manifest::{FOLDER, Record, Unit};
use crate::progress::Progress as _;
use crate::runtime;
use crate::tree::Tree;

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
    /// How many threads render [default: one for each core]
    #[arg(short = 'j', long = "threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
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
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global()
            .map_err(anyhow::Error::from)?;
    }
    let Some(done) = done(session, &arguments.selection, arguments.check)? else {
        return Ok(Exit::Diagnostics);
    };
    let Done { survey, built, diagnostics, seconds, .. } = &done;
    if let Some(error) = &built.forgotten
        && built.rendered > 0
    {
        session.ui.note(&format!("what was built can't be remembered, so the next build does it all again: {error}"));
    }
    let workers = built.workers;
    let report = Report {
        customers: survey.customers,
        workers,
        rendered: built.rendered,
        unchanged: built.unchanged,
        written: built.written,
        removed: built.removed,
        invalid: survey.invalid + built.failed.len(),
        seconds: *seconds,
    };
    let stale = built.written + built.removed > 0;
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
            report::print(&text);
        }
    }
    Ok(match (report::counts(diagnostics).0, arguments.check && stale) {
        (1.., _) => Exit::Diagnostics,
        (0, true) => Exit::Pending,
        (0, false) => Exit::Done,
    })
}

/// The line up to out/.
pub(super) struct Done {
    pub project: Project,
    pub survey: Survey,
    pub runtimes: Runtimes,
    pub built: Built,
    /// Those of the selection, printed already.
    pub diagnostics: Vec<Diagnostic>,
    /// How long it took.
    pub seconds: f64,
}

/// The line up to out/, its diagnostics printed. Nothing, if the fleet as a whole can't be built.
pub(super) fn done(session: &Session, selection: &Selection, dry: bool) -> Result<Option<Done>, Failure> {
    let start = Instant::now();
    // One at a time: the second one waits, and then has little to do. Nothing is read before, as it might be old by then.
    let _lock = if dry { None } else { Lock::wait(&session.root.join(FOLDER).join("lock"), "build", &session.ui)? };
    let project = match build::open(Tree::new(&session.root)) {
        Ok(project) => project,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(None);
        }
    };
    let mut survey = match build::survey(&project, !dry, &session.ui) {
        Ok(survey) => survey,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(None);
        }
    };
    selection.verify(&survey)?;
    let runtimes = match build::runtimes(&project, &survey, &session.ui) {
        Ok(runtimes) => runtimes,
        Err(runtime::Error::Diagnostic(diagnostic)) => {
            let mut diagnostics = survey.diagnostics;
            diagnostics.push(*diagnostic);
            report::stopped(session, &sorted(diagnostics))?;
            return Ok(None);
        }
        Err(runtime::Error::Failure(failure)) => return Err(failure),
    };
    let includes = |record: &Record, unit: &Unit| selection.includes_unit(record, unit);
    let scope = Scope { includes: &includes, whole: selection.is_all(), dry };
    let mut built = build::build(&project, &mut survey, &runtimes, &scope, &session.ui)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut diagnostics: Vec<Diagnostic> =
        survey.diagnostics.iter().filter(|d| selection.concerns(d)).cloned().collect();
    diagnostics.append(&mut built.diagnostics);
    let diagnostics = sorted(diagnostics);
    report::diagnostics(&session.root, &session.ui, &diagnostics);
    Ok(Some(Done { project, survey, runtimes, built, diagnostics, seconds }))
}

/// The line up to bundles.
pub(super) struct Line {
    pub loaded: Loaded,
    /// The bundles of the loaded workers, in their order; none where there is none.
    pub bundles: Vec<Option<Bundle>>,
    pub runtimes: Runtimes,
    pub built: Built,
    /// Those of the selection, printed already.
    pub diagnostics: Vec<Diagnostic>,
}

/// The line up to out/, with each worker and its bundle.
pub(super) fn line(session: &Session, selection: &Selection) -> Result<Option<Line>, Failure> {
    let Some(Done { project, survey, runtimes, built, diagnostics, .. }) = done(session, selection, false)? else {
        return Ok(None);
    };
    let workers = survey.workers(&project);
    let made = survey.made();
    let bundles = workers
        .par_iter()
        .map(|worker| {
            let (made, resolved) = made.get(worker.folder().as_str())?;
            let current =
                selection.includes(worker) && made.from == **resolved && !built.failed.contains(&worker.customer);
            let (digest, module) = (made.bundle(), Digest::from_bytes(made.module));
            current.then(|| bundle::remembered(worker, digest, module, &runtimes[&worker.pack]))
        })
        .collect();
    drop(made);
    Ok(Some(Line { loaded: Loaded { project, survey, workers }, bundles, runtimes, built, diagnostics }))
}
