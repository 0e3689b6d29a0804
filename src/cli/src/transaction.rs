//! What `new` and `edit` change: all of it, or nothing. An error, Ctrl-C and the request to end take back what was done, and a
//! killed process is told of by the next one.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use flotilla_deploy::undo::{Journal, Left, Made, Undo};
use flotilla_model::failure::{Exit, Failure};

use super::Session;
use super::dialogue::Dialogue;
use super::phase::lock;
use super::ui::{Ui, clean, time};

/// Who is told to end after a signal, and isn't, had none.
const SIGNAL_WAIT: Duration = Duration::from_secs(5);

/// What comes so soon after the first signal is no second one: a question that is interrupted sends one of its own.
const ECHO: Duration = Duration::from_millis(500);

/// What becomes of what an interrupted command left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Interrupted {
    /// It is taken back.
    Undo,
    /// It stays as it is.
    Keep,
}

/// Deletes a database that was made.
pub type Delete = Box<dyn FnMut(&Made) -> Result<(), String> + Send>;

/// Changes that are made as a whole.
pub struct Changes {
    shared: Arc<Shared>,
    /// Whether what an interrupted command left was taken back: then the project is another one than before.
    pub recovered: bool,
}

struct Shared {
    ui: Ui,
    undo: Mutex<Undo>,
    delete: Mutex<Option<Delete>>,
    stopped: AtomicBool,
    terminal: Option<Termios>,
}

impl Changes {
    /// Begins, after what an interrupted command left is dealt with; `deleter` makes what deletes a database in an account.
    pub fn begin(
        session: &Session,
        what: &str,
        interrupted: Option<Interrupted>,
        deleter: impl FnOnce(&str) -> Result<Delete, Failure>,
    ) -> Result<Changes, Failure> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let at = i64::try_from(at).unwrap_or_default();
        let (undo, left) = Undo::begin(&session.root, what, at)?;
        let terminal = std::io::stdin().is_terminal().then(|| tcgetattr(std::io::stdin()).ok()).flatten();
        let shared = Arc::new(Shared {
            ui: session.ui.clone(),
            undo: Mutex::new(undo),
            delete: Mutex::new(None),
            stopped: AtomicBool::new(false),
            terminal,
        });
        session.ui.take_signals();
        listen(&shared)?;
        let mut changes = Changes { shared, recovered: false };
        if let Some(left) = left {
            changes.recovered = changes.recover(session, &left, interrupted, deleter)?;
        }
        lock(&changes.shared.undo).renew(what, at)?;
        Ok(changes)
    }

    /// What an interrupted command left is taken back, or stays; which of the two.
    fn recover(
        &self,
        session: &Session,
        left: &Journal,
        interrupted: Option<Interrupted>,
        deleter: impl FnOnce(&str) -> Result<Delete, Failure>,
    ) -> Result<bool, Failure> {
        let ui = &session.ui;
        ui.line(&format!("`flotilla {}` of {} did not come to its end:", clean(&left.what), time(left.at)));
        for told in left.told(&session.root) {
            ui.line(&format!("  {}", clean(&told)));
        }
        let dialogue = Dialogue::new(session);
        let undo = match interrupted {
            Some(interrupted) => interrupted == Interrupted::Undo,
            None if dialogue.is_on() => dialogue.yes("Take it back?", true)?,
            None => {
                return Err(Failure::refused("an interrupted command left changes; nothing was done")
                    .hint("--interrupted undo takes them back, --interrupted keep leaves them as they are"));
            }
        };
        if !undo {
            lock(&self.shared.undo).keep()?;
            return Ok(false);
        }
        if let Some(account) = left.accounts().first() {
            match deleter(account) {
                Ok(delete) => *lock(&self.shared.delete) = Some(delete),
                Err(failure) => ui.failure(&failure),
            }
        }
        let told = self.shared.back();
        if told.is_empty() {
            ui.line("it is taken back");
            return Ok(true);
        }
        Err(remaining(Failure::new("not all of it could be taken back"), &told)
            .hint("--interrupted keep leaves it as it is, and forgets it"))
    }

    /// Who deletes a database that was made.
    pub fn deletes(&self, delete: Delete) {
        *lock(&self.shared.delete) = Some(delete);
    }

    /// Does one thing, which is noted before it is done. While it is being done, nothing is taken back.
    pub fn effect<T>(&self, effect: impl FnOnce(&mut Undo) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut undo = self.going()?;
        effect(&mut undo)
    }

    /// Writes a file.
    pub fn write(&self, path: &Path, text: &str) -> Result<(), Failure> {
        self.effect(|undo| undo.write(path, text.as_bytes()))
    }

    /// Takes back what was done so far, to do it otherwise.
    pub fn again(&self) -> Result<(), Failure> {
        drop(self.going()?);
        match self.shared.back().as_slice() {
            [] => Ok(()),
            left => Err(remaining(Failure::new("not all of it could be taken back"), left)),
        }
    }

    /// All of it stays.
    pub fn keep(&self) -> Result<(), Failure> {
        self.going()?.keep()
    }

    /// Takes everything back, because of a failure; that is told, and what could not be taken back.
    pub fn back(&self, failure: Failure) -> Failure {
        let was_empty = lock(&self.shared.undo).is_empty();
        let left = self.shared.back();
        match left.as_slice() {
            [] if was_empty => failure.hint("nothing was changed"),
            [] => failure.hint("everything is as it was before"),
            left => remaining(failure, left),
        }
    }

    /// The journal, unless it is to end: then it waits for the end.
    fn going(&self) -> Result<MutexGuard<'_, Undo>, Failure> {
        let undo = lock(&self.shared.undo);
        if self.shared.stopped.load(Ordering::SeqCst) {
            drop(undo);
            return Err(wait_for_the_end());
        }
        Ok(undo)
    }
}

/// What was not taken back, as hints.
fn remaining(failure: Failure, left: &[Left]) -> Failure {
    let failure = left.iter().fold(failure, |failure, left| {
        let what = clean(&left.what);
        failure.hint(if left.hint.is_empty() { what } else { format!("{what}; {}", clean(&left.hint)) })
    });
    failure.hint("the next `flotilla new` or `flotilla edit` offers to take back what is left")
}

/// After a signal: somebody else takes back what was done, and ends the program.
pub(super) fn wait_for_the_end() -> Failure {
    std::thread::sleep(SIGNAL_WAIT);
    Failure { exit: Exit::Refused, ..Failure::new("interrupted") }
}

impl Shared {
    fn back(&self) -> Vec<Left> {
        let mut undo = lock(&self.undo);
        let mut delete = lock(&self.delete);
        undo.back(&mut |made| match &mut *delete {
            Some(delete) => delete(made),
            None => Err("there is no token to do it with".to_owned()),
        })
    }

    /// The terminal as it was found.
    fn leave_terminal(&self) {
        if let Some(modes) = &self.terminal {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, modes);
            // What was asked stays on its line, and the cursor is shown.
            let _ = write!(std::io::stderr(), "\r\n\x1b[?25h");
        }
    }

    fn end(&self, code: i32) -> ! {
        let was_empty = lock(&self.undo).is_empty();
        let left = self.back();
        self.leave_terminal();
        match left.as_slice() {
            [] if was_empty => self.ui.line("interrupted; nothing was changed"),
            [] => self.ui.line("interrupted; everything is as it was before"),
            left => self.ui.failure(&remaining(Failure::new("interrupted"), left)),
        }
        self.ui.leave(code)
    }
}

/// Hears signals from now on: the first takes back what was done, a second one ends at once.
fn listen(shared: &Arc<Shared>) -> Result<(), Failure> {
    let (shared, (ready, wait)) = (Arc::clone(shared), channel());
    let listen = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            let _ = ready.send(());
            let mut first: Option<Instant> = None;
            loop {
                // A question that is asked to end sends an interrupt of its own right after.
                let code = tokio::select! {
                    biased;
                    _ = terminate.recv() => 143,
                    _ = interrupt.recv() => 130,
                };
                if first.is_some_and(|first| first.elapsed() < ECHO) {
                    continue;
                }
                first = Some(Instant::now());
                if shared.stopped.swap(true, Ordering::SeqCst) {
                    shared.leave_terminal();
                    shared
                        .ui
                        .line("ended in the middle; the next `flotilla new` or `flotilla edit` tells what is left");
                    shared.ui.leave(code);
                }
                let shared = Arc::clone(&shared);
                let _ = std::thread::Builder::new().name("undo".to_owned()).spawn(move || shared.end(code));
            }
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(anyhow::Error::from)?;
    wait.recv().map_err(|_| Failure::new("signals can't be listened to"))
}
