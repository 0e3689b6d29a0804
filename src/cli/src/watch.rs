//! `flotilla build --watch`: builds what is edited, as soon as it is on disk. Keeps the fleet in memory between edits, so that
//! an edit of one customer costs one customer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use flotilla_build::build::{self, Scope};
use flotilla_build::manifest::{FOLDER, Record, Unit};
use flotilla_engine::build_fleet::{Built, build_fleet};
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;
use flotilla_model::progress::{Progress as _, Silent};
use flotilla_spec::project::{CUSTOMERS, FLEET_FILE, LAYERS};

use super::report::{self, count};
use super::selection::Selection;
use super::ui::{Style, clean};
use super::{Format, Session};

/// Editors write a file in several steps: the build waits until so long nothing more has come.
const QUIET: Duration = Duration::from_millis(10);
/// But not longer than this.
const AT_MOST: Duration = Duration::from_millis(60);

/// The files that were edited.
enum Edited {
    /// Customers' files alone.
    Customers(BTreeSet<String>),
    /// Files that concern more than one customer.
    Fleet,
}

pub(super) fn run(session: &Session, selection: &Selection) -> Result<Exit, Failure> {
    let (sender, receiver) = channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let paths = match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
            Ok(event) => event.paths,
            // Events were lost: as if everything were edited.
            Err(_) => vec![PathBuf::new()],
        };
        let _ = sender.send(paths);
    })
    .map_err(|error| cannot(&error))?;
    // Before the first build: what is edited meanwhile is built after it.
    let mut watched = BTreeSet::new();
    watch(session, &mut watcher, &mut watched, [FLEET_FILE.to_owned()])?;
    let mut current = None;
    // What is wrong, as far as it was told; nothing before the first build.
    let mut known: Option<Vec<Diagnostic>> = None;
    let mut start = Instant::now();
    let mut next = Some(Edited::Fleet);
    loop {
        match next.take() {
            Some(Edited::Customers(files)) if let Some(done) = &mut current => {
                match again(session, selection, done, &files)? {
                    Outcome::Built { written, removed, diagnostics } => {
                        known = Some(print_changes(session, known.as_deref(), diagnostics, (written, removed), start)?);
                    }
                    Outcome::Stopped(diagnostics) => {
                        known = Some(print_changes(session, known.as_deref(), diagnostics, (0, 0), start)?);
                        // From the beginning next time: what is in memory is half of the old and half of the new.
                        current = None;
                    }
                    // Another process has built meanwhile, or a pack is used for the first time.
                    Outcome::Outdated => {
                        next = Some(Edited::Fleet);
                        continue;
                    }
                }
            }
            Some(_) => match build_fleet(&session.context(), selection, false, false) {
                Ok(mut done) => {
                    let changed = (done.built.written, done.built.removed);
                    let diagnostics = std::mem::take(&mut done.diagnostics);
                    known = Some(print_changes(session, known.as_deref(), diagnostics, changed, start)?);
                    current = Some(done);
                }
                Err(failure) if !failure.diagnostics.is_empty() => {
                    known = Some(print_changes(session, known.as_deref(), failure.diagnostics, (0, 0), start)?);
                    current = None;
                }
                // A wrong command line stays wrong; the rest can be mended while we watch.
                Err(failure) if failure.exit == Exit::Usage => return Err(failure),
                Err(failure) => {
                    session.ui.end();
                    session.ui.failure(&failure);
                    current = None;
                }
            },
            None => {}
        }
        if let Some(done) = &current {
            let packs = done.project.fleet.packs.values().map(|pack| pack.path.clone());
            let env_files = done.project.fleet.layers.iter().filter_map(|layer| layer.rule.env_files.clone());
            watch(session, &mut watcher, &mut watched, packs.chain(env_files))?;
        }
        let Some(paths) = edits(&receiver) else { return Ok(Exit::Done) };
        start = Instant::now();
        next = edited(&session.root, &paths, &watched, current.is_some());
    }
}

fn cannot(error: &notify::Error) -> Failure {
    Failure::new(format!("the project can't be watched: {error}"))
        .hint("on Linux, fs.inotify.max_user_watches limits how much can be watched")
}

/// Watches the project's folders, those of the packs, and what else is named.
fn watch(
    session: &Session,
    watcher: &mut RecommendedWatcher,
    watched: &mut BTreeSet<PathBuf>,
    more: impl IntoIterator<Item = String>,
) -> Result<(), Failure> {
    let root = &session.root;
    let shallow =
        [root.clone(), root.join(CUSTOMERS), root.join(LAYERS)].map(|path| (path, RecursiveMode::NonRecursive));
    let deep =
        more.into_iter().filter(|name| name != FLEET_FILE).map(|name| (root.join(name), RecursiveMode::Recursive));
    for (path, mode) in shallow.into_iter().chain(deep) {
        // A folder that comes later is seen by the one above it.
        if path.is_dir() && !watched.contains(&path) {
            watcher.watch(&path, mode).map_err(|error| cannot(&error))?;
            watched.insert(path);
        }
    }
    Ok(())
}

/// The next edits; nothing when there can't be any more.
fn edits(receiver: &Receiver<Vec<PathBuf>>) -> Option<Vec<PathBuf>> {
    let mut paths = receiver.recv().ok()?;
    let start = Instant::now();
    while start.elapsed() < AT_MOST {
        match receiver.recv_timeout(QUIET) {
            Ok(more) => paths.extend(more),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    Some(paths)
}

/// Classifies the edits of these paths; none if they don't concern flotilla.
fn edited(root: &Path, paths: &[PathBuf], watched: &BTreeSet<PathBuf>, has_fleet: bool) -> Option<Edited> {
    let mut customers = BTreeSet::new();
    let mut fleet = !has_fleet;
    let mut any = false;
    for path in paths {
        let Ok(name) = path.strip_prefix(root) else {
            // Not a path of ours: events were lost.
            (fleet, any) = (true, true);
            continue;
        };
        let within = watched.iter().any(|folder| folder != root && path.starts_with(folder));
        let name = name.to_string_lossy();
        // The project's own folder holds much that is none of ours.
        if !within && ![FLEET_FILE, CUSTOMERS, LAYERS].contains(&&*name) {
            continue;
        }
        any = true;
        match name.strip_prefix(CUSTOMERS).and_then(|rest| rest.strip_prefix('/')) {
            Some(_) => drop(customers.insert(name.into_owned())),
            None => fleet = true,
        }
    }
    match (any, fleet) {
        (false, _) => None,
        (true, true) => Some(Edited::Fleet),
        (true, false) => Some(Edited::Customers(customers)),
    }
}

enum Outcome {
    Built { written: usize, removed: usize, diagnostics: Vec<Diagnostic> },
    Stopped(Vec<Diagnostic>),
    Outdated,
}

/// Builds some customers again.
fn again(
    session: &Session,
    selection: &Selection,
    done: &mut Built,
    files: &BTreeSet<String>,
) -> Result<Outcome, Failure> {
    let _lock = Lock::wait(&session.root.join(FOLDER).join("lock"), "build", &session.ui)?;
    if !done.scan.is_current() {
        return Ok(Outcome::Outdated);
    }
    if let Err(diagnostics) = done.scan.rescan(&mut done.project, files) {
        return Ok(Outcome::Stopped(diagnostics));
    }
    let packs = |record: &Record| record.units.iter().any(|unit| !done.runtimes.contains_key(&unit.pack));
    if done.scan.records.iter().any(packs) {
        // A pack that nobody used before.
        return Ok(Outcome::Outdated);
    }
    let includes =
        |record: &Record, unit: &Unit| files.contains(record.file()) && selection.includes_unit(record, unit);
    let scope = Scope { includes: &includes, whole: selection.is_all(), dry: false, explain: false };
    let mut built = build::build(&done.project, &mut done.scan, &done.runtimes, &scope, &Silent)?;
    let mut diagnostics: Vec<Diagnostic> =
        done.scan.diagnostics.iter().filter(|found| selection.concerns(found)).cloned().collect();
    diagnostics.append(&mut built.diagnostics);
    Ok(Outcome::Built { written: built.written, removed: built.removed, diagnostics })
}

/// Prints new errors, fixed errors and written files; nothing if there are none. The first time, always.
fn print_changes(
    session: &Session,
    before: Option<&[Diagnostic]>,
    now: Vec<Diagnostic>,
    (written, removed): (usize, usize),
    start: Instant,
) -> Result<Vec<Diagnostic>, Failure> {
    let (first, before) = (before.is_none(), before.unwrap_or_default());
    let new: Vec<Diagnostic> = now.iter().filter(|found| !before.contains(found)).cloned().collect();
    let mended: Vec<&Diagnostic> = before.iter().filter(|found| !now.contains(found)).collect();
    report::diagnostics(&session.root, &session.ui, &new);
    for item in &mended {
        let word = session.ui.paint(Style::Good, "mended");
        session.ui.line(&format!(
            "{word} [{}] {}: {}",
            item.code,
            clean(&item.place.to_string()),
            clean(&item.message)
        ));
    }
    let milliseconds = start.elapsed().as_millis();
    if !first && written + removed + new.len() + mended.len() == 0 {
        return Ok(now);
    }
    match session.format {
        Format::Json => session.json(&serde_json::json!({
            "written": written, "removed": removed, "milliseconds": milliseconds,
            "new": new, "mended": mended, "open": now.len(),
        }))?,
        Format::Text => {
            let left = if now.is_empty() { String::new() } else { format!(" · {} left", report::found(&now)) };
            let on = if first { "; watching, Ctrl-C ends" } else { "" };
            let written = count(written, "file");
            report::print(&format!("{written} written, {removed} removed in {milliseconds} ms{left}{on}"));
        }
    }
    Ok(now)
}
