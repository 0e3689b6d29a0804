//! The engine's operator at the command line: prints events, asks on the terminal, and controls a deploy by keys,
//! signals and the control file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use flotilla_deploy::deploy::{self, Control};
use flotilla_deploy::plan::Plan;
use flotilla_deploy::refresh::Seen;
use flotilla_engine::operator::{Event, LONG_WAIT, Operator, Question};
use flotilla_model::failure::Failure;
use flotilla_model::progress::Progress;
use flotilla_model::text;

use super::control_channel::ControlChannel;
use super::events::Events;
use super::plan_output::rollback_lines;
use super::report::{self, count};
use super::ui::{Style, Ui, clean, duration};
use super::{Format, confirmation, destroy, findings, plan};

/// The number of workers that are named of those that stay as they are.
const NAMES: usize = 12;

/// The number of lanes that are shown beside the progress.
const LANES: usize = 4;

/// The person or the program at the command line.
pub struct Terminal {
    root: PathBuf,
    format: Format,
    ui: Ui,
    events: Mutex<Events>,
}

impl Terminal {
    /// Returns the operator of a project.
    pub fn new(root: &Path, format: Format, ui: &Ui) -> Terminal {
        Terminal { root: root.to_owned(), format, ui: ui.clone(), events: Mutex::default() }
    }

    /// Writes the events of a run to a file, too, or to stdout for `-`.
    pub fn write_events(&self, path: Option<&Path>) -> Result<(), Failure> {
        *self.events.lock() = Events::open(path)?;
        Ok(())
    }

    fn warning(&self, text: &str) {
        self.ui.line(&format!("{} {text}", self.ui.paint(Style::Warning, "!")));
    }
}

impl Progress for Terminal {
    fn begin(&self, phase: &str, steps: Option<u64>) {
        self.ui.begin(phase, steps);
    }

    fn step(&self, steps: u64) {
        self.ui.step(steps);
    }

    fn expect(&self, time: Duration) {
        self.ui.expect(time);
    }

    fn detail(&self, text: &str) {
        self.ui.detail(text);
    }

    fn note(&self, text: &str) {
        self.ui.note(text);
    }

    fn end(&self) {
        self.ui.end();
    }
}

impl Operator for Terminal {
    fn background(&self) -> Arc<dyn Progress + Send + Sync> {
        Arc::new(self.ui.clone())
    }

    fn on_event(&self, event: &Event<'_>) {
        let ui = &self.ui;
        match event {
            Event::Diagnostics(diagnostics) => report::diagnostics(&self.root, ui, diagnostics),
            Event::NothingSelected => {
                ui.line(&format!("{} no worker is selected", ui.paint(Style::Warning, "warning:")));
            }
            Event::NothingPruned => {
                ui.line("nothing is pruned: a spec can't be read, and any worker might belong to its customer");
            }
            Event::InvalidId(invalid) => self.warning(&clean(&invalid.to_string())),
            Event::SourceUnavailable { source, reason } => {
                self.warning(&clean(&format!("{source} is unavailable ({reason}): deployed secrets stay unchanged")))
            }
            Event::Refreshed { requests, workers } => {
                ui.note(&format!(
                    "listed Cloudflare: {}, {} found",
                    count(*requests, "request"),
                    count(*workers, "worker")
                ));
            }
            Event::AccountsUnreachable(names) => {
                ui.line(&format!("skipped, because their ids or tokens are not set: {}", names.join(", ")));
            }
            Event::AccountRefused { account, reason } => {
                let reason = [&[reason.to_string()], &reason.hints[..]].concat().join("; ");
                self.warning(&clean(&format!("the account `{account}` was not refreshed: {reason}")));
            }
            Event::SubdomainUnknown { account, reason } => self.warning(&clean(&format!(
                "the workers.dev addresses of the account `{account}` are not known: {}",
                [&[reason.to_string()], &reason.hints[..]].concat().join("; ")
            ))),
            Event::Planned { view, confirms: true } => ui.line(&plan::text((*view).clone(), ui)),
            Event::Planned { view, confirms: false } => ui.note(&plan::text((*view).clone(), ui)),
            Event::RollbackPlanned(plan) => report_rollback(ui, plan),
            Event::DestroyPlanned(target) => destroy::lines(ui, target).iter().for_each(|line| ui.line(line)),
            Event::HostsPointNowhere(found) => findings::text(ui, found).iter().for_each(|line| ui.line(line)),
            Event::HostRemoved(name) if self.format == Format::Text => {
                report::print(&clean(&format!("removed {name}")));
            }
            Event::HostRemoved(_) => {}
            Event::AlreadyThere(workers) => ui.line(&format!(
                "{} of these {} deployed already, from another machine: use --refresh to deploy only what changed",
                count(*workers, "worker"),
                if *workers == 1 { "is" } else { "are" }
            )),
            Event::Stay { workers, reason } => {
                let are = if workers.len() == 1 { "is" } else { "are" };
                ui.line(&format!("{} {are} not changed: {reason}", clean(&text::names(workers, NAMES))));
            }
            Event::TriggersStay { worker, now, then } => {
                let list = |texts: &[String]| match texts {
                    [] => "nothing".to_owned(),
                    texts => clean(&texts.join(", ")),
                };
                ui.line(&format!("  {} keeps {}; with that bundle it had {}", clean(worker), list(now), list(then)));
            }
            Event::MigrationsStay { customer, migrations } => self.warning(&clean(&format!(
                "the databases of {customer} keep {} that the earlier code may not expect: {}",
                count(migrations.len(), "migration"),
                text::names(migrations, NAMES)
            ))),
            Event::RollingBack(workers) => ui.line(&format!("rolling back {}", count(*workers, "worker"))),
            Event::RunStarted { run, kind, plan, eta } => self.events.lock().on_run_started(*run, kind, plan, *eta),
            Event::Deploy(event) => {
                self.events.lock().on_event(event);
                report_change(ui, event);
            }
            Event::RunEnded(outcome) => self.events.lock().ended(outcome),
            Event::PreviewsFound(found) => found.iter().for_each(|seen| ui.line(&preview_line(seen))),
            Event::AbandonedDatabase(name) => {
                ui.note(&format!("the database {} was created, but its worker was not", clean(name)));
            }
            Event::CannotRemove { path, error } => ui.line(&format!("{} can't be removed: {error}", path.display())),
        }
    }

    fn confirm(&self, question: &Question<'_>) -> Result<(), Failure> {
        confirmation::confirm(question)
    }

    fn control(&self, folder: &Path, ahead: bool) -> Box<dyn FnMut() -> Control + '_> {
        let mut channel = ControlChannel::open(&self.ui, folder, !ahead);
        Box::new(move || channel.poll())
    }
}

/// The line of a preview that is going to be removed.
fn preview_line(seen: &Seen) -> String {
    let hosts = seen.hosts.iter().map(|host| clean(host)).collect::<Vec<_>>().join(", ");
    let databases = match seen.databases.len() {
        0 => String::new(),
        number => format!(", {}", count(number, "database")),
    };
    format!("- {}: {}{databases}, {hosts}", clean(&seen.id), count(seen.workers.len(), "worker"))
}

fn report_rollback(ui: &Ui, plan: &Plan) {
    rollback_lines(ui, plan).iter().for_each(|line| ui.line(line));
    ui.line("code and variables are rolled back; domains, routes, workers.dev, hosts in KV and crons are not changed");
}

/// Reports what happens to the changes of a plan.
fn report_change(ui: &Ui, event: &deploy::Event<'_>) {
    use deploy::Event;
    match event {
        Event::Applied(_) | Event::Overtaken(_) | Event::Migrated(..) => ui.step(1),
        Event::Failed(change, error) => {
            ui.step(1);
            ui.line(&format!(
                "{} {} ({}): {}",
                ui.paint(Style::Error, "failed"),
                change.worker,
                change.customer,
                clean(error)
            ));
        }
        Event::MigrationFailed(change, error) => {
            ui.line(&format!("{} {}: {}", ui.paint(Style::Error, "failed"), clean(&change.customer), clean(error)));
        }
        Event::Unhealthy(change, why) => ui.line(&format!(
            "{} {} ({}): {}",
            ui.paint(Style::Error, "unhealthy"),
            change.worker,
            change.customer,
            clean(why)
        )),
        Event::Wave { name, of: (at, of), changes } if *of > 1 => {
            ui.note(&format!("wave {at} of {of}, {}: {}", clean(name), count(*changes, "change")));
        }
        Event::CheckingHealth { checked, unchecked } => {
            let without = match unchecked {
                0 => String::new(),
                number => {
                    format!("; {} not checked: no address, or the pack has no probe `health`", count(*number, "worker"))
                }
            };
            ui.note(&format!("checking the health of {}{without}", count(*checked, "worker")));
        }
        Event::Halted(why) => ui.line(&format!("{}: {}", ui.paint(Style::Error, "halted"), clean(why))),
        Event::Waiting(account, wait) if *wait >= LONG_WAIT => {
            ui.note(&format!("{account}: API rate limit reached, resuming in {}", duration(wait.as_secs_f64())));
        }
        Event::Paused(true) => ui.line("paused; press r or run `flotilla control resume` to continue"),
        Event::Paused(false) => ui.line("resumed"),
        Event::Progress { left, lanes } => {
            ui.expect(*left);
            if lanes.len() > 1 {
                let described = lanes.iter().map(|lane| {
                    let all = lane.done + lane.left;
                    format!(
                        "{} {} %, {}",
                        clean(&lane.account),
                        100 * lane.done / all.max(1),
                        duration(lane.seconds_left)
                    )
                });
                let shown = described.take(LANES).collect::<Vec<_>>().join(" · ");
                let more = lanes.len().saturating_sub(LANES);
                ui.detail(&if more > 0 { format!("{shown} · {more} more") } else { shown });
            }
        }
        Event::Wave { .. } | Event::Waiting(..) => {}
    }
}
