//! Questions on a terminal. Without one, each answer has to come by an option. The only file that names dialoguer.

use std::io::{ErrorKind, IsTerminal as _};

use dialoguer::console::{Term, truncate_str};
use dialoguer::theme::{ColorfulTheme, SimpleTheme, Theme};
use dialoguer::{Confirm, FuzzySelect, Input, MultiSelect, Select};
use secrecy::SecretString;

use flotilla_model::failure::Failure;

use super::Session;
use super::changes::wait_for_the_end;
use super::secrets::value;
use super::ui::{Ui, clean};

/// Of more than so many, one types a part of the name.
const FEW: usize = 9;
/// What stands before each item.
const MARGIN: usize = 6;

/// Who is asked.
pub struct Dialogue {
    ui: Ui,
    on: bool,
    theme: Box<dyn Theme>,
}

impl Dialogue {
    /// A terminal whose cursor can be moved, or nobody.
    pub fn new(session: &Session) -> Dialogue {
        let moves = std::env::var("TERM").is_ok_and(|term| term != "dumb");
        let on = moves && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let theme: Box<dyn Theme> =
            if session.ui.has_colours() { Box::new(ColorfulTheme::default()) } else { Box::new(SimpleTheme) };
        Dialogue { ui: session.ui.clone(), on, theme }
    }

    /// Whether there is somebody to ask.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// An answer is missing that nobody can be asked for.
    pub fn missing(&self, what: &str, option: &str) -> Failure {
        Failure::usage(format!("{what} is missing, and there is no terminal to ask on")).hint(format!("pass {option}"))
    }

    /// Says something between questions.
    pub fn note(&self, text: &str) {
        self.ui.line(text);
    }

    /// Says what was wrong with an answer, before it is asked for again.
    pub fn again(&self, failure: &Failure) {
        self.ui.failure(failure);
    }

    /// Asks for a text, until it is valid.
    pub fn text(
        &self,
        prompt: &str,
        default: &str,
        valid: impl Fn(&str) -> Result<(), String>,
    ) -> Result<String, Failure> {
        let mut input = Input::<String>::with_theme(&*self.theme).with_prompt(prompt).allow_empty(true);
        if !default.is_empty() {
            input = input.default(clean(default));
        }
        let text = input.validate_with(|text: &String| valid(text.trim())).interact_text().map_err(heard)?;
        Ok(text.trim().to_owned())
    }

    /// Asks to pick one; of many, by typing a part of it.
    pub fn choose(&self, prompt: &str, items: &[String], default: usize) -> Result<usize, Failure> {
        let items = fitted(items);
        if items.len() > FEW {
            let select = FuzzySelect::with_theme(&*self.theme).with_prompt(format!("{prompt} (type to filter)"));
            return select.items(&items).default(default).max_length(FEW).interact().map_err(heard);
        }
        Select::with_theme(&*self.theme).with_prompt(prompt).items(&items).default(default).interact().map_err(heard)
    }

    /// Asks to pick any number, with the space bar.
    pub fn several(&self, prompt: &str, items: &[String]) -> Result<Vec<usize>, Failure> {
        let items = fitted(items);
        let select = MultiSelect::with_theme(&*self.theme).with_prompt(format!("{prompt} (space picks)"));
        select.items(&items).interact().map_err(heard)
    }

    /// Asks a question that is answered by yes or no.
    pub fn yes(&self, prompt: &str, default: bool) -> Result<bool, Failure> {
        Confirm::with_theme(&*self.theme).with_prompt(prompt).default(default).interact().map_err(heard)
    }

    /// Asks for a value that isn't shown.
    pub fn secret(&self, prompt: &str) -> Result<SecretString, Failure> {
        value::typed(&format!("{prompt}: "))
    }
}

/// Items that fit into a line each, without what would drive the terminal.
fn fitted(items: &[String]) -> Vec<String> {
    let width = usize::from(Term::stderr().size().1).saturating_sub(MARGIN).max(MARGIN);
    items.iter().map(|item| truncate_str(&clean(item), width, "…").into_owned()).collect()
}

fn heard(error: dialoguer::Error) -> Failure {
    let dialoguer::Error::IO(error) = error;
    match error.kind() {
        ErrorKind::Interrupted => wait_for_the_end(),
        _ => Failure::new(format!("nothing was answered: {error}")),
    }
}
