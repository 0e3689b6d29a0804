//! `flotilla build --watch`: builds what is edited, as soon as it is on disk. Keeps the fleet in memory between edits, so that
//! an edit of one customer costs one customer.

mod folders;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use notify::EventKind;

use flotilla_build::build::{self, PackBundles, Scan, Scope};
use flotilla_build::manifest::{FOLDER, Record, Unit};
use flotilla_engine::build_fleet::{Built, build_fleet};
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;
use flotilla_model::progress::{Progress as _, Silent};
use flotilla_spec::project::CUSTOMERS;

use super::report::{self, count};
use super::selection::Selection;
use super::ui::{Style, clean};
use super::{Format, Session, stdout};
use folders::{Folders, cannot};

/// Editors write a file in several steps: the build waits until there was no event for this time.
const QUIET: Duration = Duration::from_millis(10);
/// But not longer than this.
const AT_MOST: Duration = Duration::from_millis(60);
/// The interval at which flotilla checks whether the folders are still the same, even without an event: of a folder above the project, and
/// of a file system that was mounted there, none does.
const LOOK: Duration = Duration::from_millis(500);

/// The files that were edited.
pub(super) enum Edited {
    /// Customers' files alone.
    Customers(BTreeSet<String>),
    /// Files that concern more than one customer.
    Fleet,
}

pub(super) fn run(session: &Session, selection: &Selection) -> Result<Exit, Failure> {
    // Before the first build: edits in the meantime are built afterwards.
    let mut watch = Watch::new(&session.root, Vec::new())?;
    let mut current = None;
    // The errors that were reported; nothing before the first build.
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
                        // From the beginning next time: the memory contains a mix of old and new.
                        current = None;
                    }
                    // Another process has built in the meantime, or a pack is used for the first time.
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
                    watch.set_sources(sources(&session.root, &done.scan, &done.runtimes));
                    current = Some(done);
                }
                Err(failure) if !failure.diagnostics.is_empty() => {
                    known = Some(print_changes(session, known.as_deref(), failure.diagnostics, (0, 0), start)?);
                    current = None;
                }
                // An invalid command line can't be fixed during the run; everything else can.
                Err(failure) if failure.exit == Exit::Usage => return Err(failure),
                Err(failure) => {
                    session.ui.end();
                    session.ui.failure(&failure);
                    current = None;
                }
            },
            None => {}
        }
        next = loop {
            let edited = watch.turn(current.is_some())?;
            start = watch.start;
            if edited.is_some() {
                break edited;
            }
        };
    }
}

/// Returns the folders of the sources that wrangler bundled.
pub(super) fn sources(root: &Path, scan: &Scan, bundles: &PackBundles) -> BTreeSet<PathBuf> {
    let files = bundles.iter().flat_map(|(_, bundle)| bundle.sources.iter());
    let own = files.filter(|(file, _)| !file.starts_with("node_modules/")).map(|(file, _)| root.join(file));
    let mut folders: BTreeSet<PathBuf> = own.filter_map(|file| file.parent()?.canonicalize().ok()).collect();
    // Those of static assets: a pack's, and customers' own.
    for assets in bundles.iter().filter_map(|(_, bundle)| bundle.assets.as_ref()) {
        let Some(folder) = assets.folder.as_ref().and_then(|folder| folder.canonicalize().ok()) else { continue };
        let files = assets.list.files.keys().map(|path| folder.join(path.trim_start_matches('/')));
        let above = files.flat_map(|file| file.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>());
        folders.extend(above.filter(|above| above.starts_with(&folder)));
        folders.insert(folder);
    }
    folders.extend(build::asset_inputs(scan).map(|file| root.join(file)).filter(|path| path.is_dir()));
    folders
}

/// A message to a watch.
pub(super) enum Message {
    /// These paths were edited; the empty one: events were lost, and everything may have been.
    Edited(Vec<PathBuf>),
    /// Everything counts as edited, on request.
    Everything,
    /// Nothing was edited: the turn ends early.
    Nothing,
}

/// Watches the files that a fleet is built from.
pub(super) struct Watch {
    root: PathBuf,
    /// Files that concern the whole fleet, beside those that fleet.yaml names.
    more: Vec<PathBuf>,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    folders: Folders,
    /// Whether a folder has come since all was looked at in quiet.
    unsettled: bool,
    /// The time of the last edits.
    start: Instant,
}

impl Watch {
    /// Watches a project from now on. `more`: files in its folder that concern the whole fleet as well.
    pub(super) fn new(root: &Path, more: Vec<PathBuf>) -> Result<Watch, Failure> {
        let (sender, receiver) = channel();
        let events = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let paths = paths(event);
            if !paths.is_empty() {
                let _ = events.send(Message::Edited(paths));
            }
        });
        let mut folders = Folders::new(root, watcher.map_err(|error| cannot(&error))?);
        folders.follow(&[])?;
        let start = Instant::now();
        Ok(Watch { root: root.to_owned(), more, sender, receiver, folders, unsettled: false, start })
    }

    /// Watches the sources that wrangler bundled as well.
    pub(super) fn set_sources(&mut self, sources: BTreeSet<PathBuf>) {
        self.folders.set_sources(sources);
    }

    /// Returns what wakes up a turn.
    pub(super) fn waker(&self) -> Sender<Message> {
        self.sender.clone()
    }

    /// Waits a while for edits. `has_fleet`: the fleet is known, so that edits of customers concern those alone.
    pub(super) fn turn(&mut self, has_fleet: bool) -> Result<Option<Edited>, Failure> {
        let (paths, everything) = edits(&self.receiver);
        self.start = Instant::now();
        // Where a folder has come, files may have come into it before it was watched: once it is quiet, all is looked at again.
        if self.folders.follow(&paths)? {
            self.unsettled = true;
            return Ok(Some(Edited::Fleet));
        }
        if paths.is_empty() && !everything && std::mem::take(&mut self.unsettled) {
            return Ok(Some(Edited::Fleet));
        }
        self.unsettled |= paths.iter().any(|path| path.is_dir() && self.folders.concerns(path));
        if everything || paths.iter().any(|path| self.more.contains(path)) {
            return Ok(Some(Edited::Fleet));
        }
        Ok(edited(&self.root, &paths, &self.folders, has_fleet))
    }
}

/// Returns the paths of an event; the empty one if events were lost, as if everything were edited.
fn paths(event: notify::Result<notify::Event>) -> Vec<PathBuf> {
    match event {
        Ok(event) if event.need_rescan() => vec![PathBuf::new()],
        Ok(event) if matches!(event.kind, EventKind::Access(_)) => Vec::new(),
        Ok(event) => event.paths,
        Err(_) => vec![PathBuf::new()],
    }
}

/// Returns the next edits, none if there are none for a while, and whether everything counts as edited.
fn edits(receiver: &Receiver<Message>) -> (Vec<PathBuf>, bool) {
    let (mut paths, mut everything) = (Vec::new(), false);
    let mut next = receiver.recv_timeout(LOOK);
    let start = Instant::now();
    while let Ok(message) = next {
        match message {
            Message::Edited(more) => paths.extend(more),
            Message::Everything => everything = true,
            Message::Nothing => {}
        }
        if start.elapsed() >= AT_MOST {
            break;
        }
        next = receiver.recv_timeout(QUIET);
    }
    (paths, everything)
}

/// Classifies the edits of these paths; none if they don't concern flotilla.
fn edited(root: &Path, paths: &[PathBuf], folders: &Folders, has_fleet: bool) -> Option<Edited> {
    let mut customers = BTreeSet::new();
    let mut fleet = !has_fleet;
    let mut any = false;
    for path in paths {
        let lost = path.as_os_str().is_empty();
        if !lost && !folders.concerns(path) {
            continue;
        }
        any = true;
        match path.strip_prefix(root.join(CUSTOMERS)) {
            Ok(name) if !name.as_os_str().is_empty() => {
                customers.insert(format!("{CUSTOMERS}/{}", name.to_string_lossy()));
            }
            _ => fleet = true,
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
    let lacks = |record: &Record, unit: &Unit| {
        done.runtimes.find(&unit.pack, unit.variant).is_none()
            && selection.includes_unit(record, unit)
            && !done.scan.is_held(record)
    };
    if done.scan.records.iter().any(|record| record.units.iter().any(|unit| lacks(record, unit))) {
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

/// Prints the errors that are new, and names those that are fixed. Returns both.
pub(super) fn print_new(
    session: &Session,
    before: &[Diagnostic],
    now: &[Diagnostic],
) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
    let new: Vec<Diagnostic> = now.iter().filter(|found| !before.contains(found)).cloned().collect();
    let fixed: Vec<Diagnostic> = before.iter().filter(|found| !now.contains(found)).cloned().collect();
    report::diagnostics(&session.root, &session.ui, &new);
    for item in &fixed {
        let word = session.ui.paint(Style::Good, "fixed");
        session.ui.line(&format!(
            "{word} [{}] {}: {}",
            item.code,
            clean(&item.place.to_string()),
            clean(&item.message)
        ));
    }
    (new, fixed)
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
    let (new, fixed) = print_new(session, before, &now);
    let milliseconds = start.elapsed().as_millis();
    if !first && written + removed + new.len() + fixed.len() == 0 {
        return Ok(now);
    }
    match session.format {
        Format::Json => session.json(&serde_json::json!({
            "written": written, "removed": removed, "milliseconds": milliseconds,
            "new": new, "fixed": fixed, "open": now.len(),
        }))?,
        Format::Text => {
            let left = if now.is_empty() { String::new() } else { format!(" · {} left", report::found(&now)) };
            let on = if first { "; watching for changes, Ctrl-C stops" } else { "" };
            let written = count(written, "file");
            report::print(&format!("{written} written, {removed} removed in {milliseconds} ms{left}{on}"));
        }
    }
    stdout::require_written()?;
    Ok(now)
}
