//! Prompts on the terminal: yes or no, a text to confirm with, a line, a value that isn't shown, one or several of a
//! list. The only module that names dialoguer and rpassword. Knows no command.
//!
//! One policy holds for all of them. Where stdin is no terminal, no prompt is shown: the answer has to come as a flag
//! or through stdin. A prompt whose input ends is an error or a no, never a yes. Ctrl-C at a prompt is a signal as at
//! any other time.

mod hidden;

use std::io::{BufRead as _, ErrorKind, IsTerminal as _, Write as _};
use std::time::Duration;

use dialoguer::console::{Term, truncate_str};
use dialoguer::theme::{ColorfulTheme, SimpleTheme, Theme};
use dialoguer::{Confirm, FuzzySelect, Input, MultiSelect, Select};
use secrecy::SecretString;

use flotilla_model::failure::{Exit, Failure};

use super::Session;
use super::color::{self, Stream};
use super::ui::{Ui, clean};

pub use hidden::{hidden, hidden_or_piped, piped};

/// The answers that mean yes.
pub const YES: [&str; 3] = ["y", "Y", "yes"];
/// The longest list that is shown as a whole; a longer one is filtered by typing.
const SELECT_ROWS: usize = 9;
/// The columns before each item.
const ITEM_MARGIN: usize = 6;
/// The time that a signal's handler has to end the program before the question that was interrupted does.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns whether stdin is a terminal, so that a question can be answered.
pub fn is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Waits until the handler of a signal has ended the program; a failure in case it doesn't.
pub fn wait_for_shutdown() -> Failure {
    std::thread::sleep(SHUTDOWN_TIMEOUT);
    Failure { exit: Exit::Refused, ..Failure::new("interrupted") }
}

/// Asks a question that is answered by yes or no, and returns whether it was yes.
///
/// # Errors
/// Refuses where stdin is no terminal.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    if !is_terminal() {
        return Err(Failure::refused(format!(
            "can't ask for confirmation: stdin is not a terminal; nothing was changed ({question})"
        ))
        .hint("pass --yes"));
    }
    Ok(confirm_text(&format!("{question} [y/N] "), &YES))
}

/// Asks to type one of these texts, and returns whether that was done. The caller has checked whether stdin is a
/// terminal.
pub fn confirm_text(question: &str, expected: &[&str]) -> bool {
    let _ = write!(std::io::stderr(), "{question}");
    let mut answer = String::new();
    // An input that ends or fails is no confirmation.
    std::io::stdin().lock().read_line(&mut answer).is_ok() && expected.contains(&answer.trim())
}

/// Asks a question that is answered by yes or no. The run is refused without a yes.
pub fn require_confirmation(question: &str) -> Result<(), Failure> {
    match confirm(question)? {
        true => Ok(()),
        false => Err(Failure::refused("not confirmed; nothing was changed")),
    }
}

/// Asks the questions of an interactive command, which has to handle signals while it does.
pub struct Prompter {
    ui: Ui,
    interactive: bool,
    theme: Box<dyn Theme + Send + Sync>,
}

impl Prompter {
    /// Checks whether there is a terminal whose cursor can be moved.
    pub fn new(session: &Session) -> Prompter {
        let moves = std::env::var("TERM").is_ok_and(|term| term != "dumb");
        let interactive = moves && is_terminal() && std::io::stderr().is_terminal();
        let theme: Box<dyn Theme + Send + Sync> =
            if color::shows(Stream::Stderr) { Box::new(ColorfulTheme::default()) } else { Box::new(SimpleTheme) };
        Prompter { ui: session.ui.clone(), interactive, theme }
    }

    /// Returns whether questions can be asked.
    pub fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Returns the failure of a command that would have to ask, and can't.
    pub fn missing(&self, what: &str, flag: &str) -> Failure {
        Failure::usage(format!("{what} is missing, and stdin is not a terminal to ask for it"))
            .hint(format!("pass {flag}"))
    }

    /// Prints a line between questions.
    pub fn note(&self, text: &str) {
        self.ui.line(text);
    }

    /// Prints why an answer was rejected, before the question is asked again.
    pub fn rejected(&self, failure: &Failure) {
        self.ui.failure(failure);
    }

    /// Asks for a line, until it is valid.
    pub fn line(
        &self,
        prompt: &str,
        default: &str,
        valid: impl Fn(&str) -> Result<(), String> + Sync,
    ) -> Result<String, Failure> {
        let text = interact(|| {
            let mut input = Input::<String>::with_theme(&*self.theme).with_prompt(prompt).allow_empty(true);
            if !default.is_empty() {
                input = input.default(clean(default));
            }
            input.validate_with(|text: &String| valid(text.trim())).interact_text()
        })?;
        Ok(text.trim().to_owned())
    }

    /// Asks to pick one item; a long list is filtered by typing.
    pub fn select(&self, prompt: &str, items: &[String], default: usize) -> Result<usize, Failure> {
        let items = fitted(items);
        interact(|| {
            if items.len() > SELECT_ROWS {
                let select = FuzzySelect::with_theme(&*self.theme).with_prompt(format!("{prompt} (type to filter)"));
                return select.items(&items).default(default).max_length(SELECT_ROWS).interact();
            }
            Select::with_theme(&*self.theme).with_prompt(prompt).items(&items).default(default).interact()
        })
    }

    /// Asks to pick any number of items.
    pub fn multi_select(&self, prompt: &str, items: &[String]) -> Result<Vec<usize>, Failure> {
        let items = fitted(items);
        interact(|| {
            let select = MultiSelect::with_theme(&*self.theme).with_prompt(format!("{prompt} (space selects)"));
            select.items(&items).interact()
        })
    }

    /// Asks a question that is answered by yes or no.
    pub fn confirm(&self, prompt: &str, default: bool) -> Result<bool, Failure> {
        interact(|| Confirm::with_theme(&*self.theme).with_prompt(prompt).default(default).interact())
    }

    /// Asks for a value that isn't shown; where no question can be asked, reads all of stdin.
    pub fn hidden_or_piped(&self, prompt: &str) -> Result<SecretString, Failure> {
        if self.interactive { self.hidden(prompt) } else { piped() }
    }

    /// Asks for a value that isn't shown, and may be left out.
    pub fn hidden_or_nothing(&self, prompt: &str) -> Result<Option<SecretString>, Failure> {
        hidden::hidden_or_nothing(&format!("{prompt}: "))
    }

    /// Asks for a value that isn't shown.
    pub fn hidden(&self, prompt: &str) -> Result<SecretString, Failure> {
        hidden(&format!("{prompt}: "))
    }
}

/// Returns items that fit on one line each, without control characters.
fn fitted(items: &[String]) -> Vec<String> {
    let width = usize::from(Term::stderr().size().1).saturating_sub(ITEM_MARGIN).max(ITEM_MARGIN);
    items.iter().map(|item| truncate_str(&clean(item), width, "…").into_owned()).collect()
}

/// Asks one of dialoguer's questions, on a thread of its own.
///
/// A signal that reaches the thread that reads keys interrupts it, and dialoguer takes that for Ctrl-C and raises a SIGINT: SIGTERM
/// would be followed, and sometimes overtaken, by a SIGINT that nobody sent. The system hands signals to the main thread, which only
/// waits here. The SIGINT of a real Ctrl-C is the only one that is raised.
fn interact<T: Send>(ask: impl FnOnce() -> dialoguer::Result<T> + Send) -> Result<T, Failure> {
    let answer = std::thread::scope(|scope| scope.spawn(ask).join());
    let answer = answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    answer.map_err(|dialoguer::Error::IO(error)| match error.kind() {
        ErrorKind::Interrupted => wait_for_shutdown(),
        _ => Failure::new(format!("no answer was given: {error}")),
    })
}
