//! `flotilla build`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use flotilla_build::build::{self, Built, PackBundles, Project, Scan, Scope};
use flotilla_build::manifest::{FOLDER, Record, Unit};
use flotilla_build::pack_bundle;
use flotilla_model::diagnostic::{Diagnostic, sorted};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::listing;
use flotilla_model::lock::Lock;
use flotilla_model::progress::Progress as _;
use flotilla_spec::tree::Tree;

use super::report::{self, count};
use super::selection::Selection;
use super::ui::{clean, duration};
use super::{Format, Session, summary, watch};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Write nothing; exit with 3 if out/ is not current
    #[arg(long)]
    check: bool,
    /// Say why each worker is rendered
    #[arg(long)]
    explain: bool,
    /// Go on: build whatever is edited, as soon as it is on disk
    #[arg(long, short, conflicts_with = "check")]
    watch: bool,
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
    if arguments.watch {
        return watch::run(session, &arguments.selection);
    }
    let Some(done) = done(session, &arguments.selection, arguments.check, arguments.explain)? else {
        return Ok(Exit::Diagnostics);
    };
    let Done { scan, built, diagnostics, seconds, .. } = &done;
    if let Some(error) = &built.forgotten
        && built.rendered > 0
    {
        session.ui.note(&format!("what was built can't be remembered, so the next build does it all again: {error}"));
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
    summary::append(session.summary.as_deref(), &summary::build(&figures, diagnostics))?;
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

/// So many groups of reasons are shown.
const SHOWN: usize = 100;

/// Why each worker was rendered; what is the same for many is told once.
fn reasons(why: &[(String, Vec<String>)]) {
    let mut groups: BTreeMap<&[String], Vec<&str>> = BTreeMap::new();
    for (folder, lines) in why {
        groups.entry(lines).or_default().push(folder);
    }
    let mut shown: Vec<(&[String], Vec<&str>)> = groups.into_iter().collect();
    shown.sort_by(|a, b| (b.1.len(), a.1[0]).cmp(&(a.1.len(), b.1[0])));
    let rest = shown.split_off(shown.len().min(SHOWN));
    for (lines, folders) in shown {
        report::print(&format!("{}: {}", count(folders.len(), "worker"), listing::names(&folders, SMALL)));
        for line in lines {
            report::print(&format!("  {}", clean(line)));
        }
    }
    if !rest.is_empty() {
        let workers: usize = rest.iter().map(|(_, folders)| folders.len()).sum();
        let told =
            format!("… and {} for other reasons; `flotilla explain CUSTOMER` tells them", count(workers, "worker"));
        report::print(&told);
    }
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

/// The line up to out/.
pub(super) struct Done {
    pub project: Project,
    pub scan: Scan,
    pub runtimes: PackBundles,
    pub built: Built,
    /// Those of the selection.
    pub diagnostics: Vec<Diagnostic>,
    /// How long it took.
    pub seconds: f64,
}

/// The line up to out/, its diagnostics printed. Nothing, if the fleet as a whole can't be built.
pub(super) fn done(
    session: &Session,
    selection: &Selection,
    dry: bool,
    explain: bool,
) -> Result<Option<Done>, Failure> {
    Ok(match attempt(session, selection, dry, explain)? {
        Ok(done) => {
            report::diagnostics(&session.root, &session.ui, &done.diagnostics);
            Some(done)
        }
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            None
        }
    })
}

/// The same, with nothing printed: what keeps the fleet as a whole from being built comes back.
pub(super) fn attempt(
    session: &Session,
    selection: &Selection,
    dry: bool,
    explain: bool,
) -> Result<Result<Done, Vec<Diagnostic>>, Failure> {
    let start = Instant::now();
    // One at a time: the second one waits, and then has little to do. Nothing is read before, as it might be old by then.
    let _lock = if dry { None } else { Lock::wait(&session.place().join(FOLDER).join("lock"), "build", &session.ui)? };
    let tree = Tree::new(&session.root);
    let opened = match &session.preview {
        None => build::open(tree, &session.ui),
        Some(preview) => build::open_preview(tree, preview, &session.ui),
    };
    let project = match opened {
        Ok(project) => project,
        Err(diagnostics) => return Ok(Err(diagnostics)),
    };
    let mut scan = match build::scan(&project, !dry, &session.ui) {
        Ok(scan) => scan,
        Err(diagnostics) => return Ok(Err(diagnostics)),
    };
    selection.verify(&session.ui, &project, &scan)?;
    let runtimes = match build::pack_bundles(&project, &scan, &session.ui) {
        Ok(runtimes) => runtimes,
        Err(pack_bundle::Error::Diagnostic(diagnostic)) => {
            let mut diagnostics = scan.diagnostics;
            diagnostics.push(*diagnostic);
            return Ok(Err(sorted(diagnostics)));
        }
        Err(pack_bundle::Error::Failure(failure)) => return Err(failure),
    };
    let includes = |record: &Record, unit: &Unit| selection.includes_unit(record, unit);
    let scope = Scope { includes: &includes, whole: selection.is_all(), dry, explain };
    let mut built = build::build(&project, &mut scan, &runtimes, &scope, &session.ui)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut diagnostics: Vec<Diagnostic> =
        scan.diagnostics.iter().filter(|found| selection.concerns(found)).cloned().collect();
    diagnostics.append(&mut built.diagnostics);
    let diagnostics = sorted(diagnostics);
    Ok(Ok(Done { project, scan, runtimes, built, diagnostics, seconds }))
}
