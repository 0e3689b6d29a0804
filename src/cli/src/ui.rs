//! The output for people: lines in colours, and bars on a terminal. Everything here goes to stderr.

mod progress_bar;

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::Mutex;

use flotilla_model::failure::Failure;
use flotilla_model::text::without_commands;
pub use flotilla_model::text::{clean, clean_lines, duration, time};

use super::color::{self, Stream};
use super::signals::Signals;
use super::timings::{self, Measured, Timing};
use progress_bar::Phase;

/// The output for people.
#[derive(Clone)]
pub struct Ui(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub quiet: bool,
    pub bars: bool,
    timings: bool,
    start: Instant,
    /// The number of steps of the phase that are done. Beside the phase, so that a step takes no lock.
    pub done: AtomicU64,
    pub phase: Mutex<Option<Phase>>,
    pub measured: Mutex<Vec<Measured>>,
    pub signals: Signals,
}

impl Ui {
    /// Reads the terminal's capabilities, and `CI` and `TERM`.
    pub fn new(quiet: bool, timings: bool) -> Ui {
        let has_bars = std::io::stderr().is_terminal() && !color::is_dumb() && !color::is_set("CI");
        Ui(Arc::new(Inner {
            quiet,
            bars: has_bars && !quiet,
            timings,
            start: Instant::now(),
            done: AtomicU64::new(0),
            phase: Mutex::new(None),
            measured: Mutex::default(),
            signals: Signals::default(),
        }))
    }

    /// Returns text in a colour, if stdout or stderr shows colours.
    pub fn paint(&self, style: Style, text: &str) -> String {
        if color::is_used() { format!("\x1b[{}m{text}\x1b[0m", style as u8) } else { text.to_owned() }
    }

    /// A line to stderr, above a bar.
    pub fn line(&self, text: &str) {
        match &*self.0.phase.lock() {
            Some(phase) => phase.bar.suspend(|| stderr(text)),
            None => stderr(text),
        }
    }

    /// Prints the failure that ended the command.
    pub fn failure(&self, failure: &Failure) {
        self.line(&format!("{} {}", self.paint(Style::Error, "error:"), clean(&failure.to_string())));
        for hint in &failure.hints {
            let hint = clean_lines(hint).replace('\n', "\n    ");
            self.line(&format!("  {} {hint}", self.paint(Style::Help, "=")));
        }
    }

    /// Returns the timings until now, if they were requested.
    pub fn timings(&self) -> Option<Vec<Timing>> {
        self.0.timings.then(|| timings::timings(&self.0.measured.lock(), self.0.start.elapsed(), timings::cpu()))
    }
}

/// The styles that are in use, as their numbers of ECMA-48.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Style {
    Dim = 2,
    Error = 31,
    Good = 32,
    Warning = 33,
    Help = 36,
}

/// A broken pipe is no error.
pub(super) fn stderr(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", color::for_stream(Stream::Stderr, &without_commands(text)));
}
