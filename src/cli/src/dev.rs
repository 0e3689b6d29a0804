//! `flotilla dev`: the local emulator, and a build and a deploy to it on each save. What workers log is printed as it comes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use flotilla_deploy::deploy::{self, Control, Failed};
use flotilla_deploy::pace::Priority;
use flotilla_deploy::plan::{Action, Held};
use flotilla_engine::RunKind;
use flotilla_engine::addresses::{self, Addresses};
use flotilla_engine::cloud::{CloudOptions, PORT};
use flotilla_engine::context::Context;
use flotilla_engine::deploy_fleet::{DeployRequest, Deployed, deploy_fleet};
use flotilla_engine::health::health_of_changed;
use flotilla_engine::operator::{Approval, Event, Operator, Question};
use flotilla_engine::planning::{PlanRequest, Planned};
use flotilla_engine::selection::Selection as Selected;
use flotilla_local::{Observer, Trace};
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::platform::Health;
use flotilla_model::progress::{Progress, Silent};
use flotilla_model::text::and_more;

use super::deploy::address_line;
use super::keys::Keys;
use super::local::Emulator;
use super::plan_output::{self, NAMES};
use super::report::{self, count};
use super::selection::Selection;
use super::ui::{Style, clean, duration};
use super::watch::{self, Edited, Message, Watch};
use super::{Format, Session, logs, stdout};

/// The number of events that wait to be printed; a terminal that is slower than that misses some.
const WAITING: usize = 1000;
/// The number of workers whose health is checked after a deploy: each takes a process.
const CHECKED: usize = 5;
/// The number of addresses that are printed.
const ADDRESSES: usize = 20;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Port to listen on; 0 uses any free port
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// Read secrets from this dotenv file instead of the sources in fleet.yaml [default: .env, if it exists]
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    // Before anything is read: edits in the meantime are deployed afterwards.
    let env_file = arguments.env_file.clone().map(|file| std::path::absolute(&file).unwrap_or(file));
    let watched = env_file.clone().unwrap_or_else(|| session.root.join(".env"));
    let mut watch = Watch::new(&session.root, vec![watched])?;
    let stopped = Arc::new(AtomicBool::new(false));
    let keys = Arc::new(Mutex::new(None::<Keys>));
    let stop = {
        let (ui, stopped, waker, keys) = (session.ui.clone(), Arc::clone(&stopped), watch.waker(), Arc::clone(&keys));
        move || {
            if stopped.swap(true, Ordering::Relaxed) {
                // The second time. The processes of workers end with this one.
                if let Some(keys) = &*keys.lock() {
                    keys.restore();
                }
                ui.leave(130);
            }
            let _ = waker.send(Message::Nothing);
        }
    };
    let on_signal = stop.clone();
    if !session.ui.on_signal(Box::new(move |_| on_signal())) {
        return Err(Failure::new("signal handlers can't be installed"));
    }
    let printer = Printer::default();
    std::thread::scope(|scope| {
        let observer = printer.start(scope, session);
        let done = Emulator::start(session, arguments.port, |options| options.observer = Some(observer)).and_then(
            |emulator| {
                let (api, page) = (emulator.running.api_base(), emulator.running.page());
                match session.format {
                    Format::Text => report::print(&format!("local Cloudflare emulator\n  page  {page}\n  API   {api}")),
                    Format::Json => session.json(&emulator.json())?,
                }
                stdout::require_written()?;
                let waker = watch.waker();
                *keys.lock() = Keys::read(&session.ui, "[r]edeploy  [q]uit", move |key| match key {
                    b'q' | b'Q' => stop(),
                    b'r' | b'R' => drop(waker.send(Message::Everything)),
                    _ => {}
                });
                let operator = DevOperator {
                    session,
                    stopped: &stopped,
                    is_first: AtomicBool::new(true),
                    diagnostics: Mutex::default(),
                };
                let (known, skipped, sources) = (Vec::new(), Vec::new(), BTreeSet::new());
                let mut dev = Dev { session, arguments, env_file, operator, known, skipped, sources, deploys: 0 };
                let done = dev.follow(&mut watch, &stopped);
                // The emulator's threads continue while its events are printed, so it is stopped before the printer.
                emulator.stop();
                done
            },
        );
        *keys.lock() = None;
        printer.stop();
        done
    })?;
    if session.format == Format::Text {
        session.ui.note("stopped");
    }
    Ok(Exit::Done)
}

/// An event that waits to be printed: its worker, and its JSON.
type Waiting = (String, String);

/// Prints events on a thread of its own, so that a slow terminal blocks no worker.
#[derive(Default)]
struct Printer {
    sender: Arc<Mutex<Option<SyncSender<Waiting>>>>,
}

impl Printer {
    /// Starts the thread; returns what sends events to it.
    fn start<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        session: &'scope Session,
    ) -> Observer {
        let (sender, receiver) = sync_channel::<Waiting>(WAITING);
        *self.sender.lock() = Some(sender);
        let missed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&missed);
        scope.spawn(move || {
            while let Ok((worker, json)) = receiver.recv() {
                if let Ok(event) = serde_json::from_str(&json) {
                    logs::print_event(session, &worker, &event);
                }
                match counted.swap(0, Ordering::Relaxed) {
                    0 => {}
                    missed => {
                        session.ui.note(&format!("{} not printed: the terminal is too slow", count(missed, "event")))
                    }
                }
            }
        });
        let sender = Arc::clone(&self.sender);
        Arc::new(move |trace: &Trace| {
            let sender = sender.lock();
            let event = (trace.worker.clone(), trace.json.clone());
            if let Some(Err(TrySendError::Full(_))) = sender.as_ref().map(|sender| sender.try_send(event)) {
                missed.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Ends the thread once what waits is printed.
    fn stop(&self) {
        *self.sender.lock() = None;
    }
}

/// A run of the command.
struct Dev<'a> {
    session: &'a Session,
    arguments: &'a Arguments,
    env_file: Option<PathBuf>,
    operator: DevOperator<'a>,
    /// The diagnostics that were printed and not fixed yet.
    known: Vec<Diagnostic>,
    /// The folders of the sources that wrangler bundled.
    sources: BTreeSet<PathBuf>,
    /// The workers that the last deploy skipped.
    skipped: Vec<Held>,
    deploys: usize,
}

impl Dev<'_> {
    /// Deploys, and again on each edit, until it is stopped.
    fn follow(&mut self, watch: &mut Watch, stopped: &AtomicBool) -> Result<(), Failure> {
        let mut next = Some(Edited::Fleet);
        while !stopped.load(Ordering::Relaxed) && !stdout::is_closed() {
            if let Some(edited) = next.take() {
                self.deploy(&edited)?;
                watch.set_sources(self.sources.clone());
                stdout::require_written()?;
            }
            next = watch.turn(self.deploys > 0)?;
        }
        Ok(())
    }

    /// Builds and deploys what was edited. A failure is printed; the workers stay as they are, and the next edit may fix it.
    fn deploy(&mut self, edited: &Edited) -> Result<(), Failure> {
        let start = Instant::now();
        let narrowed = match edited {
            Edited::Customers(files) => {
                let are_there = files.iter().all(|file| self.session.root.join(file).is_file());
                are_there.then(|| self.arguments.selection.narrowed(files)).flatten()
            }
            Edited::Fleet => None,
        };
        let selection = narrowed.unwrap_or_else(|| Selected::clone(&self.arguments.selection));
        let cloud = CloudOptions { local: true, env_file: self.env_file.clone() };
        let request = DeployRequest {
            plan: PlanRequest { selection: selection.clone(), cloud, ..PlanRequest::default() },
            reviewed: None,
            approval: Approval::Given,
            max_deletions: None,
            kind: RunKind { name: "deploy", reason: "", ahead: false, priority: Priority::Interactive },
            verify: None,
        };
        *self.operator.diagnostics.lock() = None;
        let result = deploy_fleet(&Context::new(&self.session.root, &self.operator), request);
        let mut found = self.operator.diagnostics.lock().take();
        let result = match result {
            Err(failure) if !failure.diagnostics.is_empty() => {
                found = Some(failure.diagnostics);
                None
            }
            result => Some(result),
        };
        let planned = match &result {
            Some(Ok(Deployed::Applied(applied))) => Some(&*applied.planned),
            Some(Ok(Deployed::UpToDate(planned))) => Some(&**planned),
            _ => None,
        };
        // A deploy of some customers bundles what they use alone.
        self.sources.extend(
            planned.iter().flat_map(|planned| watch::sources(&self.session.root, &planned.scan, &planned.runtimes)),
        );
        let whole = selection.is_all();
        if let Some(found) = found {
            let concerned = |item: &Diagnostic| whole || selection.concerns(item);
            let (before, others): (Vec<_>, Vec<_>) = self.known.drain(..).partition(concerned);
            watch::print_new(self.session, &before, &found);
            self.known = others.into_iter().chain(found).collect();
        }
        self.session.ui.end();
        self.operator.is_first.store(false, Ordering::Relaxed);
        self.deploys += 1;
        let seconds = start.elapsed().as_secs_f64();
        match result {
            None => self.report("nothing deployed", seconds),
            Some(Ok(deployed)) => self.report_deployed(&deployed, seconds),
            // An invalid command line can't be fixed during the run; everything else can.
            Some(Err(failure)) if failure.exit == Exit::Usage && self.deploys == 1 => return Err(failure),
            Some(Err(failure)) => self.session.ui.failure(&failure),
        }
        Ok(())
    }

    fn report_deployed(&mut self, deployed: &Deployed, seconds: f64) {
        let (planned, changed) = match deployed {
            Deployed::Applied(applied) => (&*applied.planned, true),
            Deployed::UpToDate(planned) => (&**planned, false),
            Deployed::DryRun(_) | Deployed::OtherPlan { .. } => return,
        };
        let (applied, failed, failures) = match deployed {
            Deployed::Applied(applied) => {
                let outcome = &applied.outcome;
                (outcome.applied, outcome.failed + outcome.skipped, &outcome.failures[..])
            }
            _ => (0, 0, &[][..]),
        };
        let before = std::mem::replace(&mut self.skipped, planned.plan.held.clone());
        let context = Context::new(&self.session.root, &self.operator);
        if self.session.format == Format::Json {
            let health = health_of_changed(&context, planned, CHECKED);
            let unhealthy: Vec<_> = health.iter().filter(|(_, health)| *health != Health::Healthy).collect();
            let unhealthy: Vec<&str> = unhealthy.iter().map(|(worker, _)| worker.as_str()).collect();
            let object = json!({"deployed": applied, "failed": failed, "skipped": self.skipped, "unhealthy": unhealthy, "open": self.known.len(), "seconds": seconds});
            return drop(self.session.json(&object));
        }
        // What has errors was reported with them.
        let is_new = |held: &&Held| !before.contains(held) && !planned.scan.held.contains(&held.customer);
        let new: Vec<Held> = self.skipped.iter().filter(is_new).cloned().collect();
        for (reason, customers) in plan_output::by_reason(&new) {
            let word = self.session.ui.paint(Style::Warning, "skipped");
            self.session.ui.line(&format!(
                "{word} {}: {}",
                plan_output::names(customers.into_iter(), NAMES),
                clean(reason)
            ));
        }
        let errors = report::counts(&self.known).0;
        match (changed, self.deploys) {
            (false, _) if errors > 0 => self.report("nothing deployed", seconds),
            (false, 1) if planned.plan.unchanged == 0 => self.report("nothing deployed", seconds),
            (false, 1) => self.report(&format!("{} up to date", count(planned.plan.unchanged, "worker")), seconds),
            (false, _) => self.report("no changes", seconds),
            (true, _) => {
                let failed = if failed > 0 { format!(", {failed} not") } else { String::new() };
                let what = match planned.plan.changes.as_slice() {
                    [change] => clean(&change.worker),
                    _ => count(applied, "worker"),
                };
                self.report(&format!("{what} deployed{failed}"), seconds);
            }
        }
        let is_new = planned.plan.changes.iter().any(|change| change.action == Action::Create);
        if self.deploys == 1 || is_new {
            self.addresses(planned, failures);
        }
        if changed {
            for (worker, health) in health_of_changed(&context, planned, CHECKED) {
                if health != Health::Healthy {
                    let word = self.session.ui.paint(Style::Error, "unhealthy");
                    self.session.ui.line(&format!("{word} {}: {}", clean(&worker), clean(&health.to_string())));
                }
            }
        }
    }

    /// Prints where workers answer.
    fn addresses(&self, planned: &Planned, failures: &[Failed]) {
        let context = Context::new(&self.session.root, &self.operator);
        let found = addresses::of_planned(&context, planned, failures, None, ADDRESSES);
        let Ok(Addresses { listed, more }) = found else { return };
        let width = listed.iter().map(|(worker, _)| worker.chars().count()).max().unwrap_or(0);
        let mut lines: Vec<String> =
            listed.iter().map(|(worker, address)| address_line(worker, width, address, stdout::columns())).collect();
        if more > 0 {
            lines.push(format!("  {}", and_more(more)));
        }
        if !lines.is_empty() {
            report::print(&lines.join("\n"));
        }
    }

    fn report(&self, what: &str, seconds: f64) {
        let open = if self.known.is_empty() { String::new() } else { format!(" · {}", report::found(&self.known)) };
        let skipped = match self.skipped.is_empty() {
            true => String::new(),
            false => format!(" · {}", plan_output::skipped(&self.skipped)),
        };
        let watching = if self.deploys == 1 { "; watching for changes, Ctrl-C stops" } else { "" };
        if self.session.format == Format::Text {
            report::print(&format!("{what} in {}{skipped}{open}{watching}", duration(seconds)));
        } else {
            drop(self.session.json(&json!({
                "deployed": 0, "failed": 0, "skipped": self.skipped, "unhealthy": [], "open": self.known.len(), "seconds": seconds,
            })));
        }
    }
}

/// The operator of the deploys: quiet, because there is one on each save.
struct DevOperator<'a> {
    session: &'a Session,
    stopped: &'a AtomicBool,
    /// Whether progress is shown: of the first deploy alone, which can take a while.
    is_first: AtomicBool,
    /// The diagnostics of the present deploy.
    diagnostics: Mutex<Option<Vec<Diagnostic>>>,
}

impl DevOperator<'_> {
    fn shown(&self) -> &dyn Progress {
        match self.is_first.load(Ordering::Relaxed) {
            true => &self.session.ui,
            false => &Silent,
        }
    }
}

impl Progress for DevOperator<'_> {
    fn begin(&self, phase: &str, steps: Option<u64>) {
        self.shown().begin(phase, steps);
    }

    fn step(&self, steps: u64) {
        self.shown().step(steps);
    }

    fn expect(&self, time: Duration) {
        self.shown().expect(time);
    }

    fn note(&self, text: &str) {
        self.session.ui.note(text);
    }

    fn end(&self) {
        self.shown().end();
    }
}

impl Operator for DevOperator<'_> {
    fn background(&self) -> Arc<dyn Progress + Send + Sync> {
        Arc::new(self.session.ui.clone())
    }

    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Diagnostics(found) => *self.diagnostics.lock() = Some(found.to_vec()),
            // What is of interest beside the workers that were deployed.
            Event::Deploy(deploy::Event::Applied(_)) => self.shown().step(1),
            Event::Deploy(
                deploy::Event::Failed(..)
                | deploy::Event::MigrationFailed(..)
                | deploy::Event::Unhealthy(..)
                | deploy::Event::Halted(_),
            )
            | Event::NothingSelected
            | Event::SourceUnavailable { .. }
            | Event::Stay { .. }
            | Event::CannotRemove { .. } => self.session.operator.on_event(event),
            _ => {}
        }
    }

    fn confirm(&self, _: &Question<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn control(&self, _: &Path, _: bool) -> Box<dyn FnMut() -> Control + '_> {
        Box::new(|| if self.stopped.load(Ordering::Relaxed) { Control::Stop } else { Control::Continue })
    }
}
