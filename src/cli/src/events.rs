//! The events of a deploy, line by line as JSON: for logs and for other programs.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use flotilla_deploy::deploy::{Event, Outcome};
use flotilla_deploy::plan::{Action, Change, DatabaseChange, Plan};
use flotilla_deploy::state::RunId;
use flotilla_model::failure::Failure;

use super::report;
use super::stdout::{self, Stdout};

/// The interval at which progress is reported.
const PROGRESS: Duration = Duration::from_secs(10);

/// The destination of the lines, if they were requested.
#[derive(Default)]
pub(super) struct Events {
    out: Option<(PathBuf, Box<dyn Write + Send>)>,
    /// The time at which progress was last reported.
    last_progress: Option<Instant>,
}

impl Events {
    /// Opens a file to append to; `-` is stdout.
    pub(super) fn open(path: Option<&Path>) -> Result<Events, Failure> {
        let Some(path) = path else { return Ok(Events::default()) };
        let out: Box<dyn Write + Send> = match path == Path::new("-") {
            true => Box::new(Stdout),
            false => {
                let file = File::options().create(true).append(true).open(path);
                let cannot = |error| Failure::new(format!("{} can't be written: {error}", path.display()));
                Box::new(file.map_err(cannot)?)
            }
        };
        Ok(Events { out: Some((path.to_owned(), out)), last_progress: None })
    }

    /// A deploy begins.
    pub(super) fn on_run_started(&mut self, run: RunId, what: &str, plan: &Plan, eta: f64) {
        let [create, update, delete] =
            [Action::Create, Action::Update, Action::Delete].map(|action| plan.count(action));
        self.line(json!({
            "event": "begun", "run": run, "what": what, "plan": plan.digest, "create": create, "update": update,
            "delete": delete, "waves": plan.waves, "eta_seconds": eta,
        }));
    }

    /// Writes an event.
    pub(super) fn on_event(&mut self, event: &Event<'_>) {
        if self.out.is_none() {
            return;
        }
        let of = |change: &Change, event: &str| {
            json!({
                "event": event, "worker": change.worker, "customer": change.customer, "environment": change.environment,
                "account": change.account, "action": change.action, "digest": change.digest,
            })
        };
        let of_database = |change: &DatabaseChange, event: &str| {
            json!({
                "event": event, "database": change.database, "customer": change.customer, "environment": change.environment,
                "account": change.account, "workers": change.workers,
            })
        };
        let with = |mut value: Value, key: &str, text: &str| {
            value[key] = json!(text);
            value
        };
        let mut has_progress = false;
        let value = match event {
            Event::Wave { name, of: (wave, waves), changes } => {
                json!({"event": "wave", "name": name, "wave": wave, "waves": waves, "changes": changes})
            }
            Event::Applied(change) => of(change, "applied"),
            Event::Failed(change, error) => with(of(change, "failed"), "error", error),
            Event::Overtaken(change) => of(change, "overtaken"),
            Event::Migrated(change, migration) => with(of_database(change, "migrated"), "migration", migration),
            Event::MigrationFailed(change, error) => with(of_database(change, "migration_failed"), "error", error),
            Event::CheckingHealth { checked, unchecked } => {
                json!({"event": "asking", "workers": checked, "unchecked": unchecked})
            }
            Event::Unhealthy(change, why) => with(of(change, "unhealthy"), "error", why),
            Event::Halted(why) => json!({"event": "halted", "reason": why}),
            Event::Waiting(account, wait) => {
                json!({"event": "waiting", "account": account, "seconds": wait.as_secs_f64()})
            }
            Event::Paused(true) => json!({"event": "paused"}),
            Event::Paused(false) => json!({"event": "resumed"}),
            Event::Progress { left, lanes } => {
                if self.last_progress.is_some_and(|last_progress| last_progress.elapsed() < PROGRESS) {
                    return;
                }
                has_progress = true;
                json!({"event": "progress", "seconds_left": left.as_secs_f64(), "lanes": lanes})
            }
        };
        if has_progress {
            self.last_progress = Some(Instant::now());
        }
        self.line(value);
    }

    /// A deploy ended.
    pub(super) fn ended(&mut self, outcome: &Outcome) {
        let mut value = serde_json::to_value(outcome).expect("BUG: an outcome is JSON");
        value["event"] = json!("ended");
        self.line(value);
    }

    fn line(&mut self, mut value: Value) {
        let Some((path, out)) = &mut self.out else { return };
        value["at"] = json!(humantime::format_rfc3339_millis(SystemTime::now()).to_string());
        let written = out
            .write_all(format!("{}\n", report::json_text(&value).unwrap_or_default()).as_bytes())
            .and_then(|()| out.flush());
        if let Err(error) = written {
            // A log that can't be written is no reason to leave a deploy half done: the command fails at its end.
            if path != Path::new("-") {
                stdout::keep_error(&format!("the events can't be written to {}", path.display()), &error);
            }
            self.out = None;
        }
    }
}
