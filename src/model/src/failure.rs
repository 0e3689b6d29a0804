//! Failures of the environment: network, disk, credentials, unsafe plans; with a hint on what to do next and the exit
//! code.

use std::fmt;

use crate::diagnostic::{Diagnostic, Severity};
use crate::text::count;

/// The exit codes of the program; documented in docs/reference/exit-codes.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Errors in the files, or a failure before anything was changed.
    Diagnostics = 1,
    /// The command line was wrong.
    Usage = 2,
    /// Changes are pending (`plan --exit-code`, `build --check`).
    Pending = 3,
    /// Some changes failed.
    SomeFailed = 4,
    /// Refused: unsafe or stale plan, lock, no confirmation.
    Refused = 5,
    /// A bug in flotilla.
    Bug = 70,
}

/// The reason why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The error, with causes, and what to do next.
    pub error: anyhow::Error,
    /// The next steps, one sentence each.
    pub hints: Vec<String>,
    /// The errors in files that are the reason, if they are.
    pub diagnostics: Vec<Diagnostic>,
}

impl Failure {
    /// Returns a failure that ends the command with exit code 1.
    pub fn new(message: impl fmt::Display) -> Failure {
        anyhow::anyhow!("{message}").into()
    }

    /// Returns a refusal: exit code 5.
    pub fn refused(message: impl fmt::Display) -> Failure {
        Failure { exit: Exit::Refused, ..Failure::new(message) }
    }

    /// Wrong usage: exit code 2.
    pub fn usage(message: impl fmt::Display) -> Failure {
        Failure { exit: Exit::Usage, ..Failure::new(message) }
    }

    /// A fleet that can't be built because of errors in its files: exit code 1.
    pub fn invalid(diagnostics: Vec<Diagnostic>) -> Failure {
        let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        Failure { diagnostics, ..Failure::new(format!("{}; nothing was changed", count(errors, "error"))) }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure { exit: Exit::Diagnostics, error, hints: Vec::new(), diagnostics: Vec::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}
