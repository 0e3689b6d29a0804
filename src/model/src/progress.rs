//! The progress of long work. The command line decides how it is shown; nothing here prints.

use std::time::Duration;

/// A listener to long work. Called from many threads.
pub trait Progress: Sync {
    /// A phase begins, with its number of steps if that is known.
    fn begin(&self, phase: &str, steps: Option<u64>);
    /// Adds steps that are done. It costs next to nothing, so it may be called for each customer.
    fn step(&self, steps: u64);
    /// Sets the expected duration of the phase from here on: a limit makes it wait, which its steps so far don't
    /// show.
    fn expect(&self, _: Duration) {}
    /// Sets the text that is shown beside the progress.
    fn detail(&self, _: &str) {}
    /// Reports something that is worth a line of its own.
    fn note(&self, text: &str);
    /// The phase ends.
    fn end(&self);
}

/// Discards all progress.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn step(&self, _: u64) {}
    fn note(&self, _: &str) {}
    fn end(&self) {}
}
