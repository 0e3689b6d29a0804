//! Changes that `new` and `edit` make as a whole or not at all. An error, Ctrl-C and SIGTERM undo what was done; what a killed
//! process left, the next one finds and offers to undo. Knows the journal and the terminal, not what is changed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use parking_lot::{Mutex, MutexGuard};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use flotilla_deploy::undo::{self, CreatedDatabase, FOLDER, Journal, Leftover, Remains, Undo};
use flotilla_model::failure::Failure;
use flotilla_model::user_key::UserKey;

use super::Session;
use super::prompts::{self, Prompter, wait_for_shutdown};
use super::signals::Signal;
use super::ui::{Ui, clean, time};

/// The time after the first signal in which others count as the same one: keys repeat.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// The ways to deal with the changes that an interrupted command left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Interrupted {
    /// They are undone.
    Undo,
    /// They stay as they are.
    Keep,
}

/// Deletes a database that was created.
pub type DeleteDatabase = Box<dyn FnMut(&CreatedDatabase) -> Result<(), String> + Send>;

/// Changes that are made as a whole or not at all.
pub struct Transaction {
    shared: Arc<Shared>,
    /// Whether the changes of an interrupted command were undone: then the project differs from what was read before.
    pub recovered: bool,
}

struct Shared {
    ui: Ui,
    undo: Mutex<Undo>,
    delete_database: Mutex<Option<DeleteDatabase>>,
    stopped: AtomicBool,
    /// The modes of the terminal at the start.
    terminal: Option<Termios>,
}

impl Transaction {
    /// Begins, after what an interrupted command left is undone or kept. `deleter` returns the function that deletes databases of
    /// an account.
    pub fn begin(
        session: &Session,
        what: &str,
        interrupted: Option<Interrupted>,
        deleter: impl FnOnce(&str) -> Result<DeleteDatabase, Failure>,
    ) -> Result<Transaction, Failure> {
        let at = now();
        let (undo, remains) = Undo::begin(&session.root, UserKey::load(), what, at)?;
        let terminal = prompts::is_terminal().then(|| tcgetattr(std::io::stdin()).ok()).flatten();
        let shared = Arc::new(Shared {
            ui: session.ui.clone(),
            undo: Mutex::new(undo),
            delete_database: Mutex::new(None),
            stopped: AtomicBool::new(false),
            terminal,
        });
        handle_signals(&shared)?;
        let mut transaction = Transaction { shared, recovered: false };
        match remains {
            Remains::Nothing => {}
            Remains::Journal(journal) => {
                transaction.recovered = transaction.recover(session, &journal, interrupted, deleter)?;
            }
            Remains::Untrusted(why) if interrupted != Some(Interrupted::Keep) => return Err(untrusted(&why)),
            Remains::Untrusted(_) => {}
        }
        transaction.shared.undo.lock().restart(what, at)?;
        Ok(transaction)
    }

    /// Undoes what an interrupted command left, or keeps it; returns whether it was undone.
    fn recover(
        &self,
        session: &Session,
        journal: &Journal,
        interrupted: Option<Interrupted>,
        deleter: impl FnOnce(&str) -> Result<DeleteDatabase, Failure>,
    ) -> Result<bool, Failure> {
        let ui = &session.ui;
        ui.line(&format!("`flotilla {}` of {} was interrupted:", clean(&journal.what), time(journal.at)));
        for step in journal.descriptions() {
            ui.line(&format!("  {}", clean(&step)));
        }
        let prompter = Prompter::new(session);
        let undo = match interrupted {
            Some(interrupted) => interrupted == Interrupted::Undo,
            None if prompter.is_interactive() => prompter.confirm("Undo it?", true)?,
            None => {
                return Err(Failure::refused("an interrupted command left changes behind; nothing was done")
                    .hint("--interrupted undo undoes them, --interrupted keep keeps them"));
            }
        };
        if !undo {
            self.shared.undo.lock().commit()?;
            return Ok(false);
        }
        if let Some(account) = journal.accounts().first() {
            match deleter(account) {
                Ok(delete) => self.delete_databases_with(delete),
                Err(failure) => ui.failure(&failure),
            }
        }
        let left = self.shared.roll_back();
        if left.is_empty() {
            ui.line("undone");
            return Ok(true);
        }
        Err(remaining(Failure::new("some changes could not be undone"), &left)
            .hint("--interrupted keep keeps them and deletes the journal"))
    }

    /// Sets the function that deletes a database that was created.
    pub fn delete_databases_with(&self, delete: DeleteDatabase) {
        *self.shared.delete_database.lock() = Some(delete);
    }

    /// Makes one change, which has to be noted first. Nothing is undone while the change is being made.
    pub fn change<T>(&self, change: impl FnOnce(&mut Undo) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut undo = self.undo()?;
        change(&mut undo)
    }

    /// Writes a file.
    pub fn write(&self, path: &Path, text: &str) -> Result<(), Failure> {
        self.change(|undo| undo.write(path, text.as_bytes()))
    }

    /// Undoes what was done so far, to start over.
    pub fn restart(&self) -> Result<(), Failure> {
        drop(self.undo()?);
        match self.shared.roll_back().as_slice() {
            [] => Ok(()),
            left => Err(remaining(Failure::new("some changes could not be undone"), left)),
        }
    }

    /// Keeps all changes.
    pub fn commit(&self) -> Result<(), Failure> {
        self.undo()?.commit()
    }

    /// Undoes all changes because of a failure, and returns it with what could not be undone.
    pub fn roll_back(&self, failure: Failure) -> Failure {
        let was_empty = self.shared.undo.lock().is_empty();
        let left = self.shared.roll_back();
        match left.as_slice() {
            [] if was_empty => failure.hint("nothing was changed"),
            [] => failure.hint("everything is as it was before"),
            left => remaining(failure, left),
        }
    }

    /// Returns the journal; after a signal, waits for the end instead.
    fn undo(&self) -> Result<MutexGuard<'_, Undo>, Failure> {
        let undo = self.shared.undo.lock();
        if self.shared.stopped.load(Ordering::SeqCst) {
            drop(undo);
            return Err(wait_for_shutdown());
        }
        Ok(undo)
    }
}

/// Changes of files alone, as `init` and `import` make them: all of them or none, and nothing is asked. What an interrupted one left is
/// undone first.
pub struct FileChanges {
    root: PathBuf,
    what: &'static str,
    undo: Option<Undo>,
}

impl FileChanges {
    /// Undoes what an interrupted command left in a folder, if there is something.
    pub fn recover(root: &Path, ui: &Ui, what: &'static str) -> Result<FileChanges, Failure> {
        let mut changes = FileChanges { root: root.to_owned(), what, undo: None };
        if !undo::is_left(root) {
            return Ok(changes);
        }
        let (mut undo, remains) = Undo::begin(root, UserKey::load(), what, now())?;
        match remains {
            Remains::Nothing => {}
            Remains::Untrusted(why) => return Err(untrusted(&why)),
            Remains::Journal(journal) if !journal.accounts().is_empty() => {
                let before = clean(&journal.what);
                return Err(Failure::refused(format!("`flotilla {before}` was interrupted; nothing was done"))
                    .hint("`flotilla new` and `flotilla edit` offer to undo it, including a database"));
            }
            Remains::Journal(journal) => {
                let (before, at) = (clean(&journal.what), time(journal.at));
                let left = undo.roll_back(&mut |_| Err("no database is deleted here".to_owned()));
                if !left.is_empty() {
                    return Err(remaining(Failure::new(format!("`flotilla {before}` was interrupted")), &left));
                }
                ui.line(&format!("undid the changes of the interrupted `flotilla {before}` of {at}"));
            }
        }
        undo.restart(what, now())?;
        changes.undo = Some(undo);
        Ok(changes)
    }

    /// Makes the changes. A failure undoes them.
    pub fn make<T>(&mut self, make: impl FnOnce(&mut Undo) -> Result<T, Failure>) -> Result<T, Failure> {
        let undo = match &mut self.undo {
            Some(undo) => undo,
            None => self.undo.insert(Undo::begin(&self.root, UserKey::load(), self.what, now())?.0),
        };
        match make(undo) {
            Ok(made) => undo.commit().map(|()| made),
            Err(failure) => {
                let left = undo.roll_back(&mut |_| Err("no database is deleted here".to_owned()));
                Err(if left.is_empty() { failure.hint("nothing was changed") } else { remaining(failure, &left) })
            }
        }
    }
}

/// Returns the time, in seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or_default()
}

/// Returns the failure for a journal that isn't believed.
fn untrusted(why: &str) -> Failure {
    Failure::refused(format!(
        "{FOLDER} has a journal of an interrupted command that can't be used: {}; nothing was undone",
        clean(why)
    ))
    .hint(format!(
        "compare the copies in {FOLDER} with the project's files, if an interrupted command of yours left them"
    ))
    .hint("--interrupted keep leaves all files as they are, and deletes that folder")
}

/// Adds what was not undone to a failure, as hints.
fn remaining(failure: Failure, left: &[Leftover]) -> Failure {
    let failure = left.iter().fold(failure, |failure, left| {
        let what = clean(&left.what);
        failure.hint(if left.hint.is_empty() { what } else { format!("{what}; {}", clean(&left.hint)) })
    });
    failure.hint("the next `flotilla new` or `flotilla edit` offers to undo the rest")
}

impl Shared {
    fn roll_back(&self) -> Vec<Leftover> {
        let mut undo = self.undo.lock();
        let mut delete = self.delete_database.lock();
        undo.roll_back(&mut |database| match &mut *delete {
            Some(delete) => delete(database),
            None => Err("there is no token for it".to_owned()),
        })
    }

    /// Restores the terminal's earlier modes.
    fn restore_terminal(&self) {
        if let Some(modes) = &self.terminal {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, modes);
            // What was asked stays on its line, and the cursor is shown.
            let _ = write!(std::io::stderr(), "\r\n\x1b[?25h");
        }
    }

    /// Undoes everything and ends the program.
    fn end(&self, code: i32) -> ! {
        let was_empty = self.undo.lock().is_empty();
        let left = self.roll_back();
        self.restore_terminal();
        match left.as_slice() {
            [] if was_empty => self.ui.line("interrupted; nothing was changed"),
            [] => self.ui.line("interrupted; everything is as it was before"),
            left => self.ui.failure(&remaining(Failure::new("interrupted"), left)),
        }
        self.ui.leave(code)
    }
}

/// Handles signals from now on: the first undoes what was done, a second one ends at once.
fn handle_signals(shared: &Arc<Shared>) -> Result<(), Failure> {
    let ui = shared.ui.clone();
    let (shared, mut first) = (Arc::clone(shared), None::<Instant>);
    let handler = move |signal: Signal| {
        let code = signal.exit_code();
        match first {
            Some(first) if first.elapsed() < SAME_SIGNAL => {}
            Some(_) => {
                shared.restore_terminal();
                shared.ui.line(
                    "stopped before the end; the next `flotilla new` or `flotilla edit` shows what is left to undo",
                );
                shared.ui.leave(code);
            }
            None => {
                first = Some(Instant::now());
                shared.stopped.store(true, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                let _ = std::thread::Builder::new().name("undo".to_owned()).spawn(move || shared.end(code));
            }
        }
    };
    match ui.on_signal(Box::new(handler)) {
        true => Ok(()),
        false => Err(Failure::new("signal handlers can't be installed")),
    }
}
